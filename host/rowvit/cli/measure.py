# SPDX-License-Identifier: Apache-2.0
"""Measurements and their reports: ``rowvit bench``, ``baseline``, ``power``, ``power-log`` and ``report``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Exit, Option

from rowvit.cli import options as opt
from rowvit.cli.common import (
    ERR,
    OUT,
    Command,
    command,
    print_host_work,
    print_rows,
    progress_bar,
    require_suffix,
    right_aligned,
    say,
    status,
    writable,
    write,
    wrote,
)
from rowvit.errors import RowvitError
from rowvit.measure.power.passes import DRY_RUN, FEWEST_PAIRS, PowerPlan


@command()
def bench(
    model: opt.ModelArgument,
    images: opt.ImagesArgument = None,
    *,
    recursive: opt.RecursiveOption = False,
    target: opt.TargetOption,
    config: opt.ConfigOption = opt.DEFAULT_CONFIG,
    count: opt.CountOption = 0,
    batch: opt.BatchOption = 8,
    warm_up: Annotated[
        int,
        Option(
            "--warm-up", min=0, metavar="N", help="Images before each measurement, which are not counted."
        ),
    ] = 1,
    baseline: Annotated[
        str,
        Option(
            metavar="NAMES",
            help="Also time the float network on this CPU, in the same run: torch, ort (onnxruntime),"
            " numpy, or a file of rowvit baseline; several with commas.",
        ),
    ] = "",
    baseline_seconds: Annotated[
        float,
        Option(min=0, metavar="SECONDS", help="Time for each combination of runtime, threads and batch."),
    ] = 3.0,
    json_file: opt.ResultOption = None,
    data: opt.SetNameOption = None,
    subset: opt.SubsetOption = None,
    bitstream: opt.BitstreamOption = None,
    check_every: opt.CheckEveryOption = None,
    memory: opt.MemoryOption = opt.MemoryName.ddr,
    latency: opt.LatencyOption = opt.LATENCY,
    rate: opt.RateOption = opt.RATE,
) -> None:
    """Measure latency and throughput, and where the time goes.

    Latency is that of one image after the other; throughput that of batches, where one is computed while
    the next is prepared. On sim both are simulated cycles at the core's clock; nothing is measured.

    Examples
    --------
      rowvit bench sign-digits --target sim --baseline torch,ort --json sim.json

      rowvit bench sign-digits --target sim --memory ideal --json ideal.json

      rowvit bench vit-program.safetensors photos/ --target board --images 1000 --warm-up 20 --json board.json
    """
    from rowvit.measure.speed import baseline as cpu
    from rowvit.measure.speed import throughput
    from rowvit.targets.session import Session

    runtimes = [name for name in baseline.split(",") if name]
    options = opt.target_options(target, bitstream, memory, latency, rate, check_every)
    with Session(model, target.value, config, **options) as session:
        chosen = session.choose(images or (), count, data, subset, lambda text: say(text, ERR), recursive)
        total = len(chosen.pixels)
        batch = min(batch, total)
        # what is missing, before the work
        ways = cpu.ways(session.meta, runtimes, sorted({1, batch}))
        session.prepare(total)  # a simulator that is built here does not count
        rounds = 2 + bool(chosen.files) * (1 if target is opt.TargetName.sim else 2)
        with progress_bar(f"{total} images, alone and in batches", rounds * total) as progress:
            document = throughput.document(session, chosen, batch, warm_up, progress)
    if ways:
        speeds: list[dict[str, Any]] = []
        with progress_bar("the float network on this CPU", len(ways)) as progress:
            for speed in cpu.measure(ways, baseline_seconds):
                speeds.append(speed.record())
                progress(len(speeds))
        document["throughput"]["baseline"] = speeds
    _write_result(document, json_file, _print_throughput)
    if chosen.skipped:
        raise Exit(1)


def _print_throughput(document: dict[str, Any]) -> None:
    from rowvit.measure.speed.baseline import MOST_LOAD, disturbances

    figures = document["throughput"]
    config, clock = document["config"], document["clock"]
    say(
        f"{document['model']['name']} on {document['target']}, '{config['name']}' at {clock['mhz']:g} MHz:"
        f" {document['evidence']}" + (f"; {figures['memory']}" if "memory" in figures else "")
    )
    host = document["host"]
    if document["target"] != "sim" and host["load"] > MOST_LOAD * host["processors"]:
        say(
            f"This machine was busy before the start (load {host['load']:.1f} on {host['processors']}"
            " processors): times by its clock may be other programs' doing"
        )
    latency, gops, pipelined = figures["latency_ms"], figures["gops"], figures["pipelined"]
    print_rows(
        {
            "latency": f"median {latency['median']:.3f} ms (min {latency['min']:.3f},"
            f" p90 {latency['p90']:.3f}, p99 {latency['p99']:.3f})",
            "": f"of {len(latency['values'])} images, one after the other",
            "throughput": f"{figures['images_per_second']:.1f} images/s"
            f" ({pipelined['ms_per_image']:.3f} ms per image, in batches of {pipelined['batch']})",
            "effective GOPS": f"{gops['dense_equivalent']:.1f} dense-equivalent,"
            f" {gops['executed']:.1f} executed"
            + (f", of a peak of {gops['peak']:.1f}" if "peak" in gops else ""),
            **_limits(figures),
            **_checked(document["protocol"]),
        }
    )
    if figures["phases"]["latency"]:
        table = right_aligned("ms per image", "one by one", f"batches of {pipelined['batch']}", left=1)
        table.add_column("by")
        together = {phase["name"]: phase["ms"] for phase in figures["phases"]["pipelined"]}
        for phase in figures["phases"]["latency"]:
            other = together.get(phase["name"])
            table.add_row(
                phase["name"],
                f"{phase['ms']:.3f}",
                "" if other is None else f"{other:.3f}",
                "host's clock" if phase["clock"] == "host" else phase["clock"],
            )
        OUT.print()
        OUT.print(table)
    print_host_work(figures["host"])
    if isinstance(figures["layers"], list):
        table = right_aligned("layer", "cycles", "array busy")
        for layer in figures["layers"]:
            table.add_row(layer["name"], f"{layer['cycles']:,.0f}", f"{layer['busy']:.1%}")
        OUT.print()
        OUT.print(table)
    if isinstance(figures["baseline"], list):
        say(
            f"\nThe float network on {host['cpu']} ({host['processors']} processors, load {host['load']:.1f}"
            " before the start), wall time:"
        )
        marks = disturbances(figures["baseline"], host)
        titles = ["runtime", "threads", "batch", "images/s", "at best", "ms per call"]
        table = right_aligned(*titles)
        if any(marks):
            table.add_column("disturbed")
        for speed, mark in zip(figures["baseline"], marks, strict=True):
            row = [
                f"{speed['runtime']} {speed['version']}",
                str(speed["threads"]),
                str(speed["batch"]),
                f"{speed['images_per_second']:.1f}",
                f"{speed['batch'] / speed['fastest_s']:.1f}",
                f"{speed['median_s'] * 1e3:.2f}",
            ]
            table.add_row(*row, *([mark] if any(marks) else []))
        OUT.print(table)
        if any(marks):
            say(
                "Other programs may have taken this CPU's time: do not compare with the speeds marked as"
                " disturbed, but measure again on an idle machine"
            )


def _checked(protocol: dict[str, Any]) -> dict[str, str]:
    """A row about images that the integer reference computed, too; one that differs has no result."""
    if "check_every" not in protocol:
        return {}
    images = "every image" if protocol["check_every"] == 1 else f"one image in {protocol['check_every']}"
    return {"checked": f"{images}, by the integer reference at the same time: equal"}


def _limits(figures: dict[str, Any]) -> dict[str, str]:
    """Rows about files, and about what bounds the throughput."""
    rows: dict[str, str] = {}
    files, limit = figures["files"], figures["limit"]
    if "none" not in files:
        decoding, together = files["decoding"], files["pipelined"]
        text = (
            f"decoding takes {decoding['ms_per_image']:.3f} ms per image ({decoding['threads']}"
            f" thread{'s' * (decoding['threads'] != 1)})"
        )
        if "none" not in together:
            rate, ms = together["images_per_second"], together["ms_per_image"]
            text = f"{rate:.1f} images/s ({ms:.3f} ms per image); {text}"
        rows["from files"] = text
    if "none" not in limit:
        host, dma, core = (limit["ms"][name] for name in ("host", "DMA", "core"))
        text = f"{limit['pixels']}: core {core:.3f} ms per image, DMA {dma:.3f}, host {host:.3f}"
        if "files" in limit:
            text += f", from files {limit['host_from_files_ms']:.3f}"
            if limit["files"] != limit["pixels"]:
                text += f" (the limit then: {limit['files']})"
        rows["limit"] = text
    return rows


@command()
def baseline(
    model: opt.ModelArgument,
    output: Annotated[Path, Option("--output", "-o", metavar="FILE", help="The file to write (.onnx).")],
    batch: Annotated[int, Option(min=1, metavar="N", help="Images per call.")] = 1,
) -> None:
    """Write the float network of a model's architecture as ONNX, for rowvit bench --baseline FILE.

    For boards that run onnxruntime, but not PyTorch. The weights are random, since speed does not
    depend on them.

    Example
    -------
      rowvit baseline vit-int8.safetensors -o vit-float.onnx
    """
    from rowvit.measure.speed.baseline import save
    from rowvit.targets.target import read_model

    require_suffix(output, ".onnx")
    with status("writing the float network"):
        save(read_model(model).meta, output, batch)
    say(f"{output}: float network for {batch} images per call")
    wrote(output, "rowvit", "bench", model, "--target", "board", "--baseline", output)


class _ListsInstruments(Command):
    """Its help lists the instruments, whose modules other commands do not need."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from rowvit.measure.power.instruments import kinds

        listed = "; ".join(f"{kind.name}: {kind.help}" for kind in kinds().values())
        option: Any = next(one for one in self.params if one.name == "instrument")
        option.help = f"{listed}. {_BY_DEFAULT}"
        super().format_help(ctx, formatter)


_BY_DEFAULT = (
    "By default the board's own sensor; where none is known, csv has to be named. Off the board none."
)


def _planned(name: str) -> str:
    """Of a power measurement: what is done by default."""
    return f"{getattr(PowerPlan(), name):g}, on sim {getattr(DRY_RUN, name):g}"


@command(cls=_ListsInstruments)
def power(
    model: opt.ModelArgument,
    images: opt.ImagesArgument = None,
    *,
    recursive: opt.RecursiveOption = False,
    target: opt.TargetOption,
    config: opt.ConfigOption = opt.DEFAULT_CONFIG,
    instrument: Annotated[str, Option(metavar="NAME", help=_BY_DEFAULT, show_default=False)] = "",
    rail: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="pmbus, hwmon: a rail or sensor by name, instead of the board's; repeat to add their power.",
        ),
    ] = None,
    log: Annotated[
        Path | None,
        Option(metavar="FILE", help="csv: the meter's log, if it exists by the end of the passes."),
    ] = None,
    measures: Annotated[str, Option(metavar="TEXT", help="csv: where the meter is connected.")] = "",
    pairs: Annotated[
        int | None,
        Option(
            metavar="N",
            show_default=_planned("pairs"),
            help=f"Number of idle passes, and of busy ones, at least {FEWEST_PAIRS}.",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        Option(metavar="SECONDS", show_default=_planned("seconds"), help="Measured part of a pass."),
    ] = None,
    settle: Annotated[
        float | None,
        Option(
            metavar="SECONDS",
            show_default=_planned("settle"),
            help="The same load before that part, not counted.",
        ),
    ] = None,
    interval: Annotated[
        float,
        Option(min=0.001, metavar="SECONDS", help="pmbus, hwmon: time from one sample to the next."),
    ] = 0.05,
    seed: Annotated[int, Option(min=0, metavar="SEED", help="Of the order of the passes.")] = 0,
    batch: opt.BatchOption = 8,
    count: Annotated[
        int,
        Option(
            "--images",
            "-n",
            min=0,
            metavar="N",
            show_default="1 on sim, else 200",
            help="Number of images, repeated if there are fewer.",
        ),
    ] = 0,
    json_file: opt.ResultOption = None,
    data: opt.SetNameOption = None,
    subset: opt.SubsetOption = None,
    bitstream: opt.BitstreamOption = None,
) -> None:
    """Measure the energy per image: idle and busy passes in shuffled order, and their difference.

    Idle means: overlay and network loaded, core not started. PYNQ-Z1 and Z2 have no sensor and need an
    external meter; its log may also be joined later, with rowvit power-log. On sim it is a dry run, with
    one image.

    Examples
    --------
      rowvit power vit-program.safetensors photos/ --target board --json power.json

      rowvit power sign-digits --target board --instrument csv --measures "its socket" --json csv.json
    """
    from rowvit.measure import result
    from rowvit.measure.power import protocol
    from rowvit.measure.power.instrument import Wanted
    from rowvit.measure.power.instruments import meter, open_instrument
    from rowvit.targets.session import Session

    simulated = target is opt.TargetName.sim
    given: dict[str, Any] = {"pairs": pairs, "seconds": seconds, "settle": settle, "seed": seed}
    plan = replace(
        DRY_RUN if simulated else PowerPlan(),
        **{name: value for name, value in given.items() if value is not None},
    )
    count = count or int(simulated)  # one image, as each takes seconds
    board = result.board().get("name", "") if target is opt.TargetName.board else None
    opened = open_instrument(instrument, Wanted(board, rail or (), measures, interval))
    later = opened.available == "later"
    if later and str(json_file) in ("None", "-"):
        raise RowvitError(
            f"--instrument {instrument} needs a result file, which the meter's log is joined to",
            "pass --json FILE",
        )
    if log is not None and not later:
        raise RowvitError("--log is for --instrument csv", "leave it out, or measure with a meter")
    options = opt.target_options(target, bitstream)
    with Session(model, target.value, config, **options) as session:
        chosen = session.choose(images or (), count, data, subset, lambda text: say(text, ERR), recursive)
        session.prepare(len(chosen.pixels))  # a simulator that is built here does not count
        with progress_bar("seconds of the passes") as progress:
            document = protocol.document(session, chosen, plan, opened, batch, progress)
    if later:
        _write_result(document, json_file)
    if later and log is None:
        say(f"Copy the meter's log and run: rowvit power-log {json_file} LOG")
    else:
        if log:
            meter.join(document, log)
        _write_result(document, json_file, _print_power)
    if chosen.skipped:
        raise Exit(1)


@command("power-log")
def power_log(
    result_file: Annotated[Path, Argument(metavar="RESULT", help="Of rowvit power --instrument csv.")],
    log: Annotated[Path, Argument(metavar="LOG", help="The meter's log (CSV with a header).")],
    output: Annotated[
        Path | None, Option("--output", "-o", metavar="FILE", help="Write here instead of over RESULT.")
    ] = None,
    search: Annotated[
        float,
        Option(min=0, metavar="SECONDS", help="How far the meter's clock may be from the board's."),
    ] = 60.0,
    resolution: Annotated[
        float | None,
        Option(
            min=0,
            metavar="WATTS",
            help="Step between two readings of the meter; by default as the log shows.",
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        Option(metavar="NAME", help="A column that counts where several begin alike; may be repeated."),
    ] = None,
) -> None:
    """Join the log of an external meter to the passes of rowvit power --instrument csv.

    The log needs columns time (seconds or dates), and power, or voltage and current. It is shifted, and
    stretched by up to 4 %, to where the power rises and falls with the passes, and refused where it does not.

    Example
    -------
      rowvit power-log csv.json meter.csv
    """
    from rowvit.measure.power.instruments import meter
    from rowvit.measure.report import check

    document = check.read(result_file)
    meter.join(document, log, search, resolution, column or [])
    _write_result(document, output or result_file, _print_power)


def _print_power(document: dict[str, Any]) -> None:
    from rowvit.measure.power.statistics import FIGURES

    say(f"{document['model']['name']} on {document['target']}: {document['evidence']}")
    busy = [p for p in document["passes"] if p["kind"] == "busy"]
    found = document["power"]
    if "none" in found:
        images = sum(p["images"] for p in busy)
        rate = images / sum(p["end"] - p["begin"] for p in busy)
        say(f"{len(busy)} busy passes: {images} images, {rate:.2f} images/s")
        say(f"instrument: {found['none']}")
        return
    instrument = document["instrument"]
    table = right_aligned("", "mean", f"± ({found['confidence']:.0%})", "standard error")
    for key, (name, unit, scale) in FIGURES.items():
        one = found[key]
        value, half, error = (one[k] * scale for k in ("value", "uncertainty", "standard_error"))
        # two digits of the uncertainty, and as many decimals of the others
        digits = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 3
        table.add_row(name, *(f"{number:.{digits}f} {unit}" for number in (value, half, error)))
    OUT.print(table)
    say(
        f"{len(busy)} pairs of passes; {instrument['name']} ({instrument['measures']}),"
        f" {instrument['sampling_hz']:.3g} samples per second"
    )
    gaps = sum(found["gap_watts"]) / len(found["gap_watts"])
    say(
        f"in ±, beside the scatter: steps of {found['step_watts']:.2g} W, gaps in the samples"
        f" {gaps:.2g} W, the load next to a pass {found['leak_watts']:.2g} W"
    )
    if log := found.get("log"):
        rate, error = log["rate_ppm"] / 1e4, log["rate_uncertainty_ppm"] / 1e4
        say(
            f"the meter's clock runs {abs(rate):.3f} % {'slow' if rate > 0 else 'fast'} (± {error:.3f} %),"
            f" which is corrected, and its readings lag by {log['lag_s']:.2g} s"
        )
    if found["step_watts"] > abs(found["delta_watts"]["value"]) / 4:
        say(
            "The readings show no smaller steps: if the meter has them, pass --resolution to rowvit power-log"
            if log
            else "The instrument's steps are too coarse for this difference"
        )
    elif not found["significant"]:
        say(
            "The difference between busy and idle is within its uncertainty: use longer or more passes"
            " (--seconds, --pairs)"
        )


def _write_result(
    document: dict[str, Any],
    path: Path | None,
    show: Callable[[dict[str, Any]], None] = lambda document: None,
) -> None:
    """Write a result where --json says, and then show it, unless that is standard output.

    `RowvitError` if writing fails; what cannot be written is shown, and what cannot be shown is written.
    """
    from rowvit.measure import result

    if str(path) == "-":
        typer.echo(json.dumps(document, indent=1))
        return
    try:
        if path:
            result.write(path, document)
    finally:
        show(document)
    if path:
        say(f"{path}: the result; rowvit report {path}", ERR)


@command()
def report(
    results: Annotated[
        list[Path], Argument(metavar="RESULTS", help="Result files of rowvit bench and rowvit power.")
    ],
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="FILE", help="The page to write.", show_default="report.html"),
    ] = None,
    check: Annotated[
        bool, Option("--check", help="Only check that each is complete; write nothing.")
    ] = False,
    model: Annotated[
        str | None,
        Option(
            metavar="MODEL",
            help="The package that was measured: the page shows how it classifies a photo, and estimates the"
            " energy of that.",
        ),
    ] = None,
    photo: Annotated[
        Path | None,
        Option(metavar="IMAGE", help="That photo; by default the first that comes with the model."),
    ] = None,
    energies: opt.EnergiesOption = None,
) -> None:
    """Turn results into one HTML page with plots; several of one kind are compared.

    A result that lacks board, overlay, configuration, clock, model, data, warm-up, repetitions, instrument,
    sampling rate, idle power, temperature, versions or command line is refused.

    Examples
    --------
      rowvit report sim.json ideal.json -o report.html

      rowvit report sim.json power.json --model sign-digits

      rowvit report --check sim.json
    """
    from rowvit.measure.report.check import read

    documents = {path: read(path) for path in results}
    if check:
        for path, document in documents.items():
            say(f"{path}: complete; {document['evidence']}")
        return
    output = output or Path("report.html")
    writable(output)
    from rowvit.measure.energy import load
    from rowvit.measure.report import page as pages
    from rowvit.targets.session import image_files, shipped_photos

    shown = [photo] if photo else shipped_photos(model) if model else []
    if energies and not model:
        raise RowvitError("--energies is for what is estimated of --model", "pass --model, or leave it out")
    if bool(model) != bool(shown):
        raise RowvitError("the picture takes a network and a photo", "pass both --model and --photo")
    alone = len({path.name for path in documents}) == len(documents)
    named = [(path.name if alone else str(path), document) for path, document in documents.items()]
    with status("drawing"):
        picture = estimated = None
        if model:
            (source, *_) = image_files(shown)
            picture = pages.photo(named, model, source)
            estimated = pages.estimated_energy(named, model, source, load(energies))
        text = pages.page(named, picture, estimated)
    write(output, text)
    say(f"{output}: {len(documents)} result{'s' * (len(documents) > 1)}; open it in a browser")
