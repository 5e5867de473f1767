# SPDX-License-Identifier: Apache-2.0
"""One HTML page of results: figures, plots, conditions, and a comparison. It loads nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

import rowvit
from rowvit.errors import RowvitError, needs
from rowvit.hardware import host
from rowvit.hardware.config import HardwareConfig
from rowvit.images import for_network
from rowvit.measure import energy
from rowvit.measure.draw import pictures
from rowvit.measure.draw.plots import embedded, estimate, number
from rowvit.measure.power.statistics import FIGURES
from rowvit.measure.report import charts
from rowvit.measure.report.charts import Plot
from rowvit.measure.speed.baseline import disturbances
from rowvit.targets.target import read_package

TEMPLATE = Path(__file__).with_name("report.html.j2")
#: conditions whose differences a comparison lists; load, date, temperatures and idle watts always differ
_CONDITIONS = (
    *("target", "board", "overlay", "config", "clock", "model", "data", "rowvit", "versions"),
    *("protocol", "instrument", "idle", "host"),
)


#: queries of media: where the page has no room for a wide picture, and where it is dark
_NARROW, _DARK = "(max-width: 60rem)", "(prefers-color-scheme: dark)"
#: columns of a table of counters, so that it fits on a screen
_LAYERS = 8
#: parts of names in result files, as they are written
_WORDS = {
    "axi": "AXI",
    "cpu": "CPU",
    "mhz": "MHz",
    "hz": "Hz",
    "sha256": "SHA-256",
    "ffn2": "FFN2",
    "fclk": "clock",
}


class Digits(str):
    """Digits that are text already: aligned like numbers."""


@dataclass
class FigureCard:
    """A headline figure; what it depends on is folded below."""

    name: str
    value: str
    unit: str
    conditions: list[str]


def page(
    documents: Sequence[tuple[str, dict[str, Any]]],
    picture: Plot | None = None,
    estimated: dict[str, Any] | None = None,
) -> str:
    """The page of some results.

    Parameters
    ----------
    documents : sequence of (name, result)
        From `check.read`; those of one kind are compared with the first of that kind. A result goes by its
        name in every title, table and plot.
    picture : Plot, optional
        From `photo`.
    estimated : dict, optional
        From `estimated_energy`.

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
    environment.tests["figure"] = lambda value: isinstance(value, int | float | Digits)
    kinds = {kind: [d for d in documents if d[1]["kind"] == kind] for kind in ("throughput", "power")}
    kinds["power"] = [d for d in kinds["power"] if "none" not in d[1]["power"]]
    return environment.get_template(TEMPLATE.name).render(
        version=rowvit.__version__,
        comparisons=[_comparison(kind, some) for kind, some in kinds.items() if len(some) > 1],
        results=[_result(name, document, documents) for name, document in documents],
        picture=picture,
        estimated=estimated,
    )


def photo(documents: Sequence[tuple[str, dict[str, Any]]], model: str, source: Path) -> Plot:
    """What the network that was measured makes of a photo, by the integer reference.

    Parameters
    ----------
    documents : sequence of (name, result)
        As for `page`.
    model : str
        A package, by name or path.
    source : Path
        The photo.

    Raises
    ------
    RowvitError
        None of the results is of this network, or the photo or the package cannot be read.
    """
    package = read_package(model)
    if package.meta["hash"] not in [document["model"]["hash"] for _, document in documents]:
        raise RowvitError(
            f"no result is of the network {package.meta['name']} as it is in {model}", "measure it"
        )
    with rowvit.open("golden") as golden:
        golden.load(package)
        results = golden([source])
    wide, narrow = (
        pictures.draw(
            [source.name], [pictures.seen(source, package.meta)], results, results, package.meta, narrow
        )
        for narrow in (False, True)
    )
    caption = f"What {package.meta['name']} makes of {source.name}, by the integer reference"
    others = [
        (f"{_NARROW} and {_DARK}", embedded(narrow, "webp", dark=True)),
        (_NARROW, embedded(narrow, "webp")),
        (_DARK, embedded(wide, "webp", dark=True)),
    ]
    return Plot(caption, embedded(wide, "webp"), others)


def estimated_energy(
    documents: Sequence[tuple[str, dict[str, Any]]], model: str, source: Path, energies: energy.Energies
) -> dict[str, Any] | None:
    """What pruning and skipping save in the energy of a photo, estimated by activity: a table and its notes.

    Parameters
    ----------
    documents : sequence of (name, result)
        As for `page`. The estimate is for the configuration of the first one of this network. What was
        measured on a board stands beside it, if results of ``rowvit power`` have this network and one that
        drops no tokens and skips nothing, on one configuration.
    model : str
        A package, by name or path, that one of the results is of: see `photo`.
    source : Path
        The photo.
    energies : Energies

    Returns
    -------
    dict, optional
        None if the configuration is of another rowvit, which had other fields.

    Raises
    ------
    RowvitError
        The photo or the package cannot be read, or the network without its savings does not fit.
    """
    package = read_package(model)
    own = [d for _, d in documents if d["model"]["hash"] == package.meta["hash"]]
    config = {key: value for key, value in own[0]["config"].items() if key != "hash"}
    config |= {"board": "none", "clock_mhz": own[0]["clock"]["mhz"]}
    if config.keys() != {field.name for field in fields(HardwareConfig)}:
        return None
    hardware = HardwareConfig(**config)
    found = energy.savings(package, for_network(source, package.meta), hardware, energies)
    rows = [
        [name, *(value / 1e6 for value in (one.ddr, one.sram, one.arithmetic, one.total)), one.tops_per_watt]
        for name, one in found.items()
    ]
    head = ["skipped", *(f"{part}, µJ" for part in energy.PARTS), "sum, µJ", "TOPS/W"]
    note = f"One photo on '{hardware.name}'; published energies at {energies.process}."
    note += f" TOPS/W without DDR; the paper has {energy.PAPER_TOPS_PER_WATT}."
    said = [
        f"{energy.prediction(found)}.",
        _measured_ratio([d for d in own if d["kind"] == "power"], documents),
    ]
    return _table(f"Energy, {energy.LABEL}: nothing here was measured", head, rows, note) | {"said": said}


def _measured_ratio(own: list[dict[str, Any]], documents: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """A dense network's measured dynamic energy over that of the network of ``own``, in a sentence."""
    key = "dynamic_joules_per_image"
    for pruned in own:
        for name, dense in documents:
            model, measured = dense["model"], (pruned, dense)
            if (
                dense["model"]["hash"] != pruned["model"]["hash"]
                and all(d["target"] == "board" and d.get("power", {}).get("significant") for d in measured)
                and all(d["protocol"]["batch"] == 1 for d in measured)  # as is predicted
                and dense["config"] == pruned["config"]
                and dense["clock"] == pruned["clock"]
                and _place(dense) == _place(pruned)
                and model["architecture"] == pruned["model"]["architecture"]
                and not model["pruning"]
                and model["ffn2_rule"] == "none"
            ):
                over, under = (d["power"][key] for d in (dense, pruned))
                ratio = over["value"] / under["value"]
                half = ratio * math.hypot(*(e["uncertainty"] / e["value"] for e in (over, under)))
                value, around = estimate(ratio, half)
                return f"Measured on the board, by {name}: {value} ± {around} times."
    return (
        "No results of rowvit power --batch 1 on a board, of this network and of a dense one, at the same"
        " clock and place of the meter, test it yet."
    )


def _place(document: dict[str, Any]) -> tuple[str, str]:
    """What measured the power, and where: a meter has a log for each measurement."""
    instrument = document["instrument"]
    return str(instrument["name"]).partition(", log ")[0], str(instrument["measures"])


def _result(
    name: str, document: dict[str, Any], documents: Sequence[tuple[str, dict[str, Any]]]
) -> dict[str, Any]:
    """What the template shows of one result."""
    throughput = document["kind"] == "throughput"
    tables, pictures = _throughput(name, document) if throughput else _power(document)
    return {
        "name": name,
        "title": f"{document['model']['name']} on {document['target']}: {document['kind']}",
        "evidence": document["evidence"],
        "cards": _cards(name, document, documents),
        "tables": tables,
        "plots": pictures,
        "conditions": _conditions(document),
    }


def _cards(
    name: str, document: dict[str, Any], documents: Sequence[tuple[str, dict[str, Any]]]
) -> list[FigureCard]:
    """Headline figures: of power its own, of throughput also the energy of the same network.

    Accuracy goes with throughput, and with power that no throughput goes with.
    """

    def same(one: dict[str, Any]) -> bool:
        if not isinstance(one["model"]["hash"], str):  # made in memory
            return False
        return all(one[part]["hash"] == document[part]["hash"] for part in ("model", "config"))

    others = [one for one in documents if one[1]["kind"] != document["kind"]]
    others = [one for one in others if one[1]["target"] == document["target"] and same(one[1])]
    alike = [one for one in others if _as_fast(one[1], document)]
    alike = [one for one in alike if "none" not in one[1].get("power", {})] or alike
    keys = ["joules_per_image", "dynamic_joules_per_image"]
    accuracy = [_accuracy_card(document["model"].get("accuracy", {}))]
    if document["kind"] == "power":
        if "none" in document["power"]:
            cards = [_no_energy(document["power"]["none"])]
        else:
            cards = _energy_cards(name, document, [*keys, "images_per_second"])
        return cards if others else [*cards, *accuracy]
    cards = _speed_cards(name, document)
    if not others:
        cards.append(_no_energy("no result of rowvit power goes with this"))
    elif not alike:
        cards.append(_no_energy("rowvit power had another overlay, clock or batch"))
    elif "none" in alike[0][1]["power"]:
        cards.append(_no_energy(alike[0][1]["power"]["none"]))
    elif len(alike) > 1:
        cards.append(_no_energy(f"several results go with this: {', '.join(name for name, _ in alike)}"))
    elif document["target"] != "board":
        cards.append(_no_energy(*_where(*alike[0])))
    else:
        cards += _energy_cards(*alike[0], keys)
    return [*cards, *accuracy]


def _as_fast(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two results of a network are of one overlay, clock and batch."""
    return all(one[key] == other[key] for key in ("overlay", "clock")) and (
        one["protocol"]["batch"] == other["protocol"]["batch"]
    )


def _no_energy(*why: str) -> FigureCard:
    return FigureCard("energy per image", "not measured", "", [*why])


def _where(name: str, document: dict[str, Any]) -> list[str]:
    config, clock = document["config"], document["clock"]
    return [f"from {name}: {document['evidence']}", f"'{config['name']}' at {clock['mhz']:g} MHz"]


def _speed_cards(name: str, document: dict[str, Any]) -> list[FigureCard]:
    figures, data = document["throughput"], document["data"]
    latency, pipelined = figures["latency_ms"], figures["pipelined"]
    said = [*_where(name, document), figures["basis"], f"{data['set']}, {data['subset']}"]
    if "memory" in figures:
        said.append(f"memory: {figures['memory']}")
    batches = f"{pipelined['images']} images, in batches of {pipelined['batch']}, from pixels in memory"
    alone = f"median of {len(latency['values'])} images, one by one; 90 % within {number(latency['p90'])} ms"
    return [
        FigureCard("throughput", number(figures["images_per_second"]), "images/s", [batches, *said]),
        FigureCard("latency", number(latency["median"]), "ms", [alone, *said]),
    ]


def _energy_cards(name: str, document: dict[str, Any], keys: Sequence[str]) -> list[FigureCard]:
    power, instrument = document["power"], document["instrument"]
    confidence = f"± at {power['confidence']:.0%} confidence, {len(power['pass_watts']) // 2} pairs of passes"
    said = [confidence, *_where(name, document), f"{instrument['name']}: {instrument['measures']}"]
    cards = []
    for key in keys:
        title, unit, scale = FIGURES[key]
        value, half = estimate(*(power[key][part] * scale for part in ("value", "uncertainty")))
        cards.append(FigureCard(title, f"{value} ± {half}", unit, said))
    return cards


def _accuracy_card(accuracy: dict[str, Any]) -> FigureCard:
    """What the package states about itself; results of older versions do not have it."""
    if "int8" not in accuracy:
        return FigureCard("accuracy", "not stated", "", [accuracy.get("none", "rowvit eval measures it")])
    said = [f"in int8, on {accuracy.get('set', 'a set without a name')}", "as the package states it"]
    return FigureCard("accuracy", number(accuracy["int8"]), accuracy.get("unit", ""), said)


def _table(
    title: str, head: list[str], rows: list[list[Any]], note: str = "", folded: bool = False
) -> dict[str, Any]:
    return {"title": title, "head": head, "rows": rows, "note": note, "folded": folded}


def _throughput(name: str, document: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Plot]]:
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
    tables, pictures = [_table("Figures", ["", ""], rows, figures["basis"])], [charts.latency(figures)]
    if phases := figures["phases"]["latency"]:
        together = {phase["name"]: phase["ms"] for phase in figures["phases"]["pipelined"]}
        rows = [[p["name"], p["ms"], together.get(p["name"]), p["clock"]] for p in phases]
        head = ["ms per image", "one by one", batches, "clock"]
        tables.append(_table("Phases", head, rows, "DMA in overlaps with compute."))
        pictures.append(charts.phases(figures))
    if "sources" in (work := figures.get("host", {})):
        found = ((source, *map(Digits, figures), limit) for source, *figures, limit in host.rows(work))
        tables.append(_table("Host", [*host.HEAD], [[*row] for row in found], f"{host.said(work)}."))
    if isinstance(layers := figures["layers"], list):
        rows = [[y["name"], y["cycles"], Digits(f"{y['busy']:.1%}")] for y in layers]
        tables.append(
            _table("Layers", ["layer", "cycles", "array busy"], rows, "Medians over the images.", True)
        )
        note = "By layer: medians over the images taken one by one."
        for first in range(0, len(layers), _LAYERS):
            some, means = layers[first : first + _LAYERS], [] if first else ["mean per image"]
            rows = [
                [key, *([mean] if means else []), *(y.get(key) for y in some)]
                for key, mean in figures["counters"].items()
            ]
            span = "" if len(layers) <= _LAYERS else f", {some[0]['name']} to {some[-1]['name']}"
            head = ["counter", *means, *(y["name"] for y in some)]
            tables.append(_table(f"Counters{span}", head, rows, note, True))
        pictures.append(charts.layers([(name, figures)]))
    if isinstance(figures["baseline"], list):
        marks = disturbances(figures["baseline"], document["host"])
        head = ["runtime", "threads", "batch", "images/s", "median ms", "p90 ms"]
        if any(marks):
            head.append("disturbed")
        rows = []
        for s, mark in zip(figures["baseline"], marks, strict=True):
            speeds = s["images_per_second"], 1e3 * s["median_s"], 1e3 * s["p90_s"]
            rows.append([f"{s['runtime']} {s['version']}", s["threads"], s["batch"], *speeds])
            if any(marks):
                rows[-1].append(mark)
        note = f"{document['host']['cpu']}; wall time per call."
        if any(marks):
            note += " Other programs may have taken this CPU's time: no comparison with the marked ones."
        tables.append(_table("The float network on the CPU", head, rows, note))
        pictures.append(charts.rates(name, document))
    tables.append(_table("FINN's names", ["key", "value"], [*figures["finn"].items()], "", True))
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
        one, half, error = (found[key][k] * scale for k in ("value", "uncertainty", "standard_error"))
        rows.append([f"{name}, {unit}", *map(Digits, estimate(one, half)), Digits(estimate(error, error)[0])])
    note = (
        f"Means over {len(found['pass_watts']) // 2} pairs of passes. The uncertainty is half of the"
        f" {found['confidence']:.0%} interval by Student's t, and what the instrument can hide by steps of"
        f" {found['step_watts']:.2g} W, by gaps ({np.mean(found['gap_watts']):.2g} W) and by the load next to"
        f" a pass ({found['leak_watts']:.2g} W); its own accuracy is not included."
    )
    if not found["significant"]:
        note += " The difference between busy and idle is within its uncertainty."
    tables = [_table("Power", ["", "mean", "uncertainty", "standard error"], rows, note)]
    return tables, [charts.power(document), charts.pairs(document)]


def _conditions(document: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Everything about a measurement, in the order in which a reviewer asks, with names and values."""
    names = {"evidence": "what it is", "board": "board", "overlay": "overlay", "config": "configuration"}
    names |= {"clock": "clock", "model": "model", "data": "data", "protocol": "protocol"}
    names |= {"instrument": "instrument", "idle": "idle power", "temperature": "temperature", "host": "host"}
    names |= {"rowvit": "rowvit", "versions": "versions", "date": "date", "command": "command"}
    rows = [(text, document[key]) for key, text in names.items()]
    if memory := document.get("throughput", {}).get("memory"):
        rows.insert(4, ("simulated memory", memory))
    if log := document.get("power", {}).get("log"):
        rows.insert(9, ("meter's log", log))
    return [(text, [(_name(key), value) for key, value in _flat("", part).items()]) for text, part in rows]


def _name(key: str) -> str:
    """A key of a result, such as "host.cpu", in words."""
    return " ".join(_WORDS.get(word, word) for word in re.split(r"[._]+", key) if word)


def _said(value: Any) -> str:
    """A condition in words."""
    if isinstance(value, dict):
        if list(value) == ["none"]:
            return f"none: {value['none']}"
        return ", ".join(f"{_name(key)} {_said(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list):
        return (" " if all(isinstance(v, str) for v in value) else "; ").join(map(_said, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _comparison(kind: str, some: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Quantities of several results of one kind, side by side."""
    labels = [name for name, _ in some]
    documents = [document for _, document in some]
    rows = _quantities(kind, documents, labels)
    pictures = [charts.ratios([(name, values) for name, values, *_ in rows if all(values)], labels)]
    if kind == "throughput":
        tables = [d["throughput"]["layers"] for d in documents]
        named = [[layer["name"] for layer in t] if isinstance(t, list) else None for t in tables]
        if named[0] and all(n == named[0] for n in named):
            pictures.append(charts.layers([(name, d["throughput"]) for name, d in some]))
    differences = []
    for key in (*_CONDITIONS, "memory"):
        flat = [_flat(key, document.get(key) or document[kind].get(key, "")) for document in documents]
        for name in dict.fromkeys(name for f in flat for name in f):
            values = [f.get(name, "") for f in flat]
            if name not in ("host.load", "idle.watts") and len(set(values)) > 1:
                differences.append([_name(name), *map(_shortened, values)])
    return {
        "kind": kind,
        "labels": labels,
        "head": ["", *labels, *(f"{label} / {labels[0]}" for label in labels[1:]), ""],
        "rows": [
            [name, *shown, *(Digits(f"{v / values[0]:.3f}" if values[0] else "") for v in values[1:]), remark]
            for name, values, shown, remark in rows
        ],
        "differences": differences,
        "plots": pictures,
    }


def _quantities(
    kind: str, documents: list[dict[str, Any]], labels: list[str]
) -> list[tuple[str, list[float], list[Any], str]]:
    """Name, value in every result, how these are written (of power, with uncertainties), and a remark."""
    if kind == "throughput":
        every = [d["throughput"] for d in documents]
        found = {"images per second": [f["images_per_second"] for f in every]}
        for key in ("median", "p90", "p99"):
            found[f"latency, {key}, ms"] = [f["latency_ms"][key] for f in every]
        for key in ("dense_equivalent", "executed"):
            found[f"GOPS, {key.replace('_', '-')}"] = [f["gops"][key] for f in every]
        if all("none" not in f["counters"] for f in every):
            for key in ("cycles", "fires", "axi_beats"):
                found[f"{_name(key)} per image"] = [f["counters"][key] for f in every]
        return [(name, values, values, "") for name, values in found.items()]
    rows = []
    for key, (name, unit, scale) in FIGURES.items():
        values, halves = ([scale * d["power"][key][k] for d in documents] for k in ("value", "uncertainty"))
        shown = [Digits(" ± ".join(estimate(*both))) for both in zip(values, halves, strict=True)]
        apart = [
            abs(value - values[0]) > math.hypot(half, halves[0])
            for value, half in zip(values[1:], halves[1:], strict=True)
        ]
        words = ["beyond" if one else "within" for one in apart]
        if len(set(words)) > 1:
            words = [f"{label} {word}" for label, word in zip(labels[1:], words, strict=True)]
        remark = f"{', '.join(dict.fromkeys(words))} the uncertainties"
        rows.append((f"{name}, {unit}", values, shown, remark))
    return rows


def _shortened(text: str) -> str:
    """The start of a hash: all of it is shown with its result."""
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text) else text


def _flat(name: str, value: Any) -> dict[str, str]:
    """Values by their dotted names; what has no value says why."""
    if isinstance(value, dict) and value and list(value) != ["none"]:
        dotted = f"{name}." if name else ""
        return {k: v for key, inner in value.items() for k, v in _flat(f"{dotted}{key}", inner).items()}
    return {name: _said(value)}
