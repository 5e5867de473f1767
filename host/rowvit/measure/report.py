# SPDX-License-Identifier: Apache-2.0
"""One HTML page of results: figures, plots, conditions, and a comparison. It loads nothing else."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import rowvit
from rowvit.errors import needs
from rowvit.measure import plots
from rowvit.measure.plots import Plot
from rowvit.measure.power import FIGURES

TEMPLATE = Path(__file__).with_name("report.html.j2")
#: conditions whose differences a comparison lists; the host's load and the date always differ
_CONDITIONS = (
    *("target", "board", "overlay", "config", "clock", "model", "data", "rowvit", "versions"),
    *("protocol", "instrument", "host"),
)


def page(documents: list[tuple[str, dict[str, Any]]]) -> str:
    """The page of some results.

    Parameters
    ----------
    documents : list of (name, result)
        From `result.read`; those of one kind are compared with the first of that kind.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    RowvitError
        jinja2 or matplotlib is missing.
    """
    with needs("a report needs jinja2", "'rowvit[report]'"):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    kinds = {kind: [d for d in documents if d[1]["kind"] == kind] for kind in ("throughput", "power")}
    kinds["power"] = [d for d in kinds["power"] if "none" not in d[1]["power"]]
    return environment.get_template(TEMPLATE.name).render(
        version=rowvit.__version__,
        comparisons=[_comparison(kind, some) for kind, some in kinds.items() if len(some) > 1],
        results=[_result(name, document) for name, document in documents],
    )


def number(value: float | None) -> str:
    """Four significant digits, with separators of thousands."""
    if value is None:
        return ""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 9)}f}"


def _result(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of one result."""
    tables, pictures = (_throughput if document["kind"] == "throughput" else _power)(document)
    return {
        "name": name,
        "title": f"{document['model']['name']} on {document['target']}",
        "evidence": document["evidence"],
        "kind": document["kind"],
        "tables": tables,
        "plots": pictures,
        "conditions": _conditions(document),
    }


def _table(title: str, head: list[str], rows: list[list[Any]], note: str = "") -> dict[str, Any]:
    return {"title": title, "head": head, "rows": rows, "note": note}


def _throughput(document: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Plot]]:
    """Tables and plots."""
    figures = document["throughput"]
    latency, pipelined = figures["latency_ms"], figures["pipelined"]
    batches = f"batches of {pipelined['batch']}"
    rows = [["images per second", figures["images_per_second"]]]
    rows += [[f"latency, {key}, ms", latency[key]] for key in ("min", "median", "p90", "p99", "max")]
    rows.append([f"ms per image in {batches}", pipelined["ms_per_image"]])
    rows += [[f"GOPS, {key.replace('_', '-')}", value] for key, value in figures["gops"].items()]
    rows += _from_files(figures)
    if "simulator_khz" in figures:
        rows.append(["speed of the simulation, kHz", figures["simulator_khz"]])
    tables, pictures = [_table("Figures", ["", ""], rows, figures["basis"])], [plots.latency(figures)]
    if phases := figures["phases"]["latency"]:
        together = {phase["name"]: phase["ms"] for phase in figures["phases"]["pipelined"]}
        rows = [[p["name"], p["ms"], together.get(p["name"]), p["clock"]] for p in phases]
        head = ["ms per image", "one by one", batches, "clock"]
        tables.append(_table("Phases", head, rows, "DMA in overlaps with compute."))
        pictures.append(plots.phases(figures))
    if isinstance(layers := figures["layers"], list):
        rows = [[y["name"], y["cycles"], f"{y['busy']:.1%}"] for y in layers]
        tables.append(_table("Layers", ["layer", "cycles", "array busy"], rows, "Medians over the images."))
        head = ["counter", "mean per image", *(y["name"] for y in layers)]
        rows = [[key, mean, *(y.get(key) for y in layers)] for key, mean in figures["counters"].items()]
        note = "By layer: medians over the images taken one by one."
        tables.append(_table("Counters", head, rows, note))
        pictures.append(plots.layers([(document["model"]["name"], figures)]))
    if isinstance(figures["baseline"], list):
        head = ["runtime", "threads", "batch", "images/s", "median ms", "p90 ms"]
        rows = []
        for s in figures["baseline"]:
            speeds = s["images_per_second"], 1e3 * s["median_s"], 1e3 * s["p90_s"]
            rows.append([f"{s['runtime']} {s['version']}", str(s["threads"]), str(s["batch"]), *speeds])
        note = f"{document['host']['cpu']}; wall time per call."
        tables.append(_table("The float network on the CPU", head, rows, note))
        pictures.append(plots.rates(f"rowvit '{document['config']['name']}', {document['target']}", figures))
    tables.append(_table("FINN's names", ["key", "value"], [*figures["finn"].items()]))
    return tables, pictures


def _from_files(figures: dict[str, Any]) -> list[list[Any]]:
    """Rows of the figures; results of older versions have none of these."""
    rows: list[list[Any]] = []
    files, limit = (figures.get(key, {"none": ""}) for key in ("files", "limit"))
    if "none" not in files:
        rows.append(["decoding a file, ms per image, host's clock", files["decoding"]["ms_per_image"]])
        if "none" not in files["pipelined"]:
            rows.append(["images per second from files", files["pipelined"]["images_per_second"]])
    if "none" not in limit:
        rows.append(["limit of throughput from pixels", limit["pixels"]])
        if "files" in limit:
            rows.append(["limit of throughput from files", limit["files"]])
    return rows


def _power(document: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Plot]]:
    """Tables and plots."""
    found = document["power"]
    if "none" in found:
        return [_table("Power", ["", ""], [["not measured", found["none"]]])], []
    rows = []
    for key, (name, unit, scale) in FIGURES.items():
        values = (found[key][k] * scale for k in ("value", "uncertainty", "standard_error"))
        rows.append([f"{name}, {unit}", *values])
    note = (
        f"Means over {len(found['pass_watts']) // 2} pairs of passes. The uncertainty is half of the"
        f" {found['confidence']:.0%} interval by Student's t, and what steps of {found['step_watts']:.2g} W"
        " can hide; the instrument's own accuracy is not included."
    )
    if not found["significant"]:
        note += " The difference between busy and idle is within its uncertainty."
    tables = [_table("Power", ["", "mean", "uncertainty", "standard error"], rows, note)]
    return tables, [plots.power(document), plots.pairs(document)]


def _conditions(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Everything about a measurement, in the order in which a reviewer asks."""
    names = {"evidence": "what it is", "board": "board", "overlay": "overlay", "config": "configuration"}
    names |= {"clock": "clock", "model": "model", "data": "data", "protocol": "protocol"}
    names |= {"instrument": "instrument", "idle": "idle power", "temperature": "temperature", "host": "host"}
    names |= {"rowvit": "rowvit", "versions": "versions", "date": "date", "command": "command"}
    rows = [(text, _said(document[key])) for key, text in names.items()]
    if memory := document.get("throughput", {}).get("memory"):
        rows.insert(4, ("simulated memory", memory))
    return rows


def _said(value: Any) -> str:
    """A condition in words."""
    if isinstance(value, dict):
        if list(value) == ["none"]:
            return f"none: {value['none']}"
        return ", ".join(f"{key.replace('_', ' ')} {_said(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return (" " if all(isinstance(v, str) for v in value) else "; ").join(map(_said, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _comparison(kind: str, some: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Quantities of several results of one kind, side by side."""
    labels = [name for name, _ in some]
    documents = [document for _, document in some]
    rows = _quantities(kind, documents)
    pictures = [plots.ratios([(name, values) for name, values, _ in rows if all(values)], labels)]
    if kind == "throughput":
        tables = [d["throughput"]["layers"] for d in documents]
        named = [[layer["name"] for layer in t] if isinstance(t, list) else None for t in tables]
        if named[0] and all(n == named[0] for n in named):
            pictures.append(plots.layers([(name, d["throughput"]) for name, d in some]))
    differences = []
    for key in (*_CONDITIONS, "memory"):
        flat = [_flat(key, document.get(key) or document[kind].get(key, "")) for document in documents]
        for name in dict.fromkeys(name for f in flat for name in f):
            values = [f.get(name, "") for f in flat]
            if name != "host.load" and len(set(values)) > 1:
                differences.append([name, *map(_shortened, values)])
    return {
        "kind": kind,
        "labels": labels,
        "head": ["", *labels, *(f"{label} / {labels[0]}" for label in labels[1:]), ""],
        "rows": [
            [name, *values, *(f"{v / values[0]:.3f}" if values[0] else "" for v in values[1:]), remark]
            for name, values, remark in rows
        ],
        "differences": differences,
        "plots": pictures,
    }


def _quantities(kind: str, documents: list[dict[str, Any]]) -> list[tuple[str, list[float], str]]:
    """Name, value in every result, and a remark."""
    if kind == "throughput":
        every = [d["throughput"] for d in documents]
        rows = [("images per second", [f["images_per_second"] for f in every], "")]
        for key in ("median", "p90", "p99"):
            rows.append((f"latency, {key}, ms", [f["latency_ms"][key] for f in every], ""))
        for key in ("dense_equivalent", "executed"):
            rows.append((f"GOPS, {key.replace('_', '-')}", [f["gops"][key] for f in every], ""))
        if all("none" not in f["counters"] for f in every):
            for key in ("cycles", "fires", "axi_beats"):
                rows.append((f"{key} per image", [f["counters"][key] for f in every], ""))
        return rows
    rows = []
    for key, (name, unit, scale) in FIGURES.items():
        ones = [d["power"][key] for d in documents]
        apart = [
            abs(one["value"] - ones[0]["value"]) > math.hypot(one["uncertainty"], ones[0]["uncertainty"])
            for one in ones[1:]
        ]
        remark = "within the uncertainties" if not any(apart) else "beyond the uncertainties"
        rows.append((f"{name}, {unit}", [one["value"] * scale for one in ones], remark))
    return rows


def _shortened(text: str) -> str:
    """The start of a hash: all of it is shown with its result."""
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text) else text


def _flat(name: str, value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _flat(f"{name}.{key}", inner).items()}
    return {name: _said(value)}
