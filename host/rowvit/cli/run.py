# SPDX-License-Identifier: Apache-2.0
"""``rowvit run`` and ``rowvit profile``."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from rowvit.cli import options as opt
from rowvit.cli.common import (
    ERR,
    OUT,
    Terminated,
    answered,
    command,
    print_host_work,
    print_rows,
    progress_bar,
    right_aligned,
    say,
    status,
    unread,
    write,
    wrote,
)
from rowvit.cli.energy import print_energy
from rowvit.errors import RowvitError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rowvit.hardware.config import HardwareConfig
    from rowvit.measure.speed.profile import LayerProfile, Profile
    from rowvit.targets.session import RunStatistics, Session
    from rowvit.targets.target import Result


#: of a waveform: the most bytes for a cycle and a multiplier of the array, and bytes written in a second, as
#: seen with an image of sign-digits on 'pynq-z2'; while patches are embedded a third as many
TRACE_BYTES, TRACE_RATE = 6.0, 2.5e6
_TRACED = "0:1000000"  # cycles


@command()
def run(
    model: opt.ModelArgument,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGES",
            help=f"Image files ({opt.FILES}) or folders of them; by default the photos that come with the"
            " model.",
        ),
    ] = None,
    *,
    recursive: opt.RecursiveOption = False,
    target: opt.TargetOption,
    config: opt.ConfigOption = opt.DEFAULT_CONFIG,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Compare logits and kept tokens with the integer reference, bit for bit; exit 1 if they"
            " differ, after a second run that shows where.",
        ),
    ] = False,
    check_every: opt.CheckEveryOption = None,
    top: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Classes that are shown of each image, the likeliest first."),
    ] = 1,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write results and counters of every image; - for standard output."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"Write a picture ({opt.PICTURES}): the photos, what is left of them after each pruning,"
            " the classes, and the class token's attention, which the integer reference computes.",
        ),
    ] = None,
    batch: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Images per start of the core; above 1 the counters are the batch's."
        ),
    ] = 1,
    jobs: opt.JobsOption = 0,
    checkpoints: Annotated[
        bool,
        typer.Option(
            "--checkpoints",
            help="Also read the residuals after every half layer; with --check, compare them, too.",
        ),
    ] = False,
    memory: opt.MemoryOption = opt.MemoryName.ddr,
    latency: opt.LatencyOption = opt.LATENCY,
    rate: opt.RateOption = opt.RATE,
    ddr: Annotated[
        int, typer.Option(min=1, max=4096, metavar="MB", help="sim: memory for buffers.")
    ] = opt.DDR,
    stalls: Annotated[
        int,
        typer.Option(
            min=0, metavar="SEED", show_default="none", help="sim: seed of random stalls on every channel."
        ),
    ] = 0,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="sim: write a waveform (.fst); builds a slower simulator."),
    ] = None,
    trace_cycles: Annotated[
        str,
        typer.Option(metavar="FIRST:LAST", help="sim: cycles of the waveform, without the last of these."),
    ] = _TRACED,
    bitstream: opt.BitstreamOption = None,
    frontend: opt.FrontendOption = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            show_default="10, on sim 600",
            help="sim, board: time for one image, at most.",
        ),
    ] = None,
) -> None:
    """Classify images, and show the cycles and the work that they took.

    The table shows the true class where file names begin with it, as in 7_1449.jpg or tabby-cat_1.jpg.
    Cycles are the core's own counter, from start to the last word of the answer.

    Examples
    --------
      rowvit run sign-digits --target sim --check

      rowvit run everyday photo.jpg --top 5 --plot photo.png

      rowvit run vit-int8.safetensors photo.jpg --memory ideal --json photo.json

      rowvit run sign-digits photos/ --recursive --target board --batch 20
    """
    from rowvit.targets.guard import Difference
    from rowvit.targets.session import Session, image_files, shipped_photos
    from rowvit.targets.target import first_difference, read_package

    if plot:
        from rowvit.measure.draw.plots import can_save

        can_save(plot)
    if trace_cycles != _TRACED and not trace:
        raise RowvitError("--trace-cycles is of a waveform", "name its file, with --trace")
    if check:
        read_package(model)  # a program is refused now, not after the run
    options = opt.target_options(target, bitstream, memory, latency, rate, check_every, ddr, frontend)
    if target is not opt.TargetName.golden and timeout is not None:
        options["timeout"] = timeout
    if target is opt.TargetName.sim:
        options["stalls"] = stalls
        if trace:
            options |= {"trace": trace, "window": _window(trace_cycles)}
    with Session(model, target.value, config, checkpoints=checkpoints, **options) as session:
        images = images or shipped_photos(model)
        if not images:
            raise RowvitError("no image is named", "pass image files or directories")
        files = image_files(images, lambda text: say(text, ERR), recursive)
        for option, path in (("--plot", plot), ("--json", json_file), ("--trace", trace)):
            if path:
                unread(path, option, files)
        if "window" in options:
            _announce_trace(session, len(files), options["window"])
        session.prepare(len(files), batch, jobs)
        what = f"{len(files)} image{'s' * (len(files) > 1)}"
        results: list[Result] = []
        refused: dict[int, RowvitError] = {}
        try:
            with (
                progress_bar(what, len(files)) as progress,
                session.forecast(len(files), batch, jobs, progress),
            ):
                begin = time.monotonic()
                session.run(files, batch, jobs, progress, refused.__setitem__, results)
        except Difference as error:
            file = files[error.image]
            raise RowvitError(str(error.renumbered(error.image, str(file))), _again(session, file)) from error
        except (KeyboardInterrupt, Terminated):
            if results and str(json_file) != "-":
                there = [file for number, file in enumerate(files) if number not in refused][: len(results)]
                with suppress(OSError):  # the terminal may be what has gone
                    _print_results(there, results, session.meta, top)
                    say(f"stopped: {len(results)} of {len(files)} images", ERR)
            raise
        seconds = time.monotonic() - begin
        files = answered(files, refused)
        reference = results if target is opt.TargetName.golden else []
        if check:
            with progress_bar("the reference", len(results)) as progress:
                reference = session.compare(results, files, progress)
        statistics = session.statistics(results)

        if json_file:
            text = json.dumps(session.record(files, results, seconds), indent=1) + "\n"
            if str(json_file) == "-":
                typer.echo(text, nl=False)
            else:
                write(json_file, text)
        if str(json_file) != "-":
            _print_results(files, results, session.meta, top)
            if not session.meta["classes"]:
                say("The network has no classes, and answers with tokens: rowvit features writes them.")
            _print_statistics(statistics, session, seconds)
        if json_file and str(json_file) != "-":
            wrote(json_file)
        if wrong := [n for n, result in enumerate(results) if result.bit_exact is False]:
            first = wrong[0]
            where = first_difference(results[first], reference[first], session.meta)
            say(f"{files[first]} differs from the integer reference in {where}", ERR)
            if target is not opt.TargetName.golden and not session.checkpoints:
                say(_again(session, files[first]), ERR)
        if plot:
            _draw(session, files, results, reference, plot)
    if "window" in options:
        say(f"{trace}: written; open it with gtkwave {trace}", ERR)
    if wrong or refused:
        raise typer.Exit(1)


def _again(session: Session, file: Path) -> str:
    """What comes of an image that differed if it is computed once more."""
    with status("computing it again"):
        try:
            where = session.locate(file)
            result = f"it first differs in {where}" if where else "it is equal to the reference"
        except RowvitError as error:
            result = str(error)
    return f"computed again with checkpoints, the network loaded anew: {result}"


def _draw(
    session: Session,
    files: list[Path],
    results: list[Result],
    reference: list[Result],
    path: Path,
) -> None:
    """Write the picture of the first photos; ``reference`` is empty if it has not run."""
    from rowvit.formats.program import Program
    from rowvit.measure.draw import pictures, plots
    from rowvit.photos import readable

    count = min(len(files), pictures.MOST)
    if isinstance(session.source, Program):
        say(f"{path}: without attention, which takes the model package instead of a compiled program", ERR)
    elif not reference:
        with progress_bar("the reference", count) as progress:
            reference = session.reference(files[:count], progress)
    with status("drawing"):
        photos = (pictures.seen(file, session.meta, session.frontend) for file in files[:count])
        names = [readable(file.name) for file in files[:count]]
        picture = pictures.draw(names, photos, results[:count], reference[:count], session.meta)
        plots.save(picture, path)
    say(f"{path}: " + ("the picture" if count == len(files) else f"the first {count} photos"), ERR)


def _announce_trace(session: Session, images: int, window: tuple[int, int]) -> None:
    """How long the waveform is, before it is written."""
    cycles = max(0, min(window[1], images * session.predicted()) - window[0])
    size = cycles * TRACE_BYTES * session.config.macs_per_cycle
    say(
        f"a waveform of {cycles:,} cycles, up to about {size / 1e6:,.0f} MB and {size / TRACE_RATE:,.0f} s;"
        " less with --trace-cycles",
        ERR,
    )


def _window(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise RowvitError(f"trace cycles '{text}' are not FIRST:LAST", "write them as 0:1000000")
    return int(first), int(last)


def _truths(files: list[Path], classes: Sequence[str]) -> list[str]:
    """The classes that files' names begin with, before an underscore; empty where one does with none."""
    given = {one.replace(" ", "-"): one for one in map(str, classes)}

    def truth(file: Path) -> str:
        parts = file.stem.replace(" ", "-").split("_")
        heads = ("_".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
        return next((given[head] for head in heads if head in given), "")

    return [truth(file) for file in files]


def _print_results(files: list[Path], results: list[Result], meta: Mapping[str, Any], top: int) -> None:
    """``meta``: the network's."""
    from rowvit.targets.features import told

    classes, names = meta["classes"], meta.get("row_heads", {}).get("names", ())
    truths = _truths(files, classes)
    compared = any(result.bit_exact is not None for result in results)
    known = sum(map(bool, truths))
    rows: list[dict[str, str | Text]] = []
    for file, truth, result in zip(files, truths, results, strict=True):
        row: dict[str, str | Text] = {"image": file.name}
        others: list[tuple[str, float]] = []
        if known:
            row["truth"] = truth
        if classes:
            (_, share), *others = result.likeliest(classes, top)
            row["prediction"], row["probability"] = result.verdict, f"{share:.3f}"
        if names:
            seen = (f"{name} {share:.2f}" for name, share in told(result.rows, names))
            row["seen"] = ", ".join(seen) or "nothing"
        if compared:
            said = "yes" if result.bit_exact else Text("NO", "red")
            row["equals reference"] = "not compared" if result.bit_exact is None else said
        if result.cycles is not None:
            row["cycles"] = f"{result.cycles:,}"
        rows.append(row)
        rows += [{"prediction": other, "probability": f"{share:.3f}"} for other, share in others]
    table = Table(box=None, pad_edge=False)
    longest = max(len(str(row["image"])) for row in rows if "image" in row)
    for title in rows[0]:
        numbers = title in ("probability", "cycles")
        # what is long goes on in the next line, and no figure does
        table.add_column(
            title,
            justify="right" if numbers else "left",
            overflow="fold",
            no_wrap=numbers or title == "equals reference" or (title == "image" and longest <= 32),
        )
    for row in rows:
        table.add_row(*(row.get(title, "") for title in rows[0]))
    OUT.print(table)
    if known:
        right = sum(bool(truth) and truth == one.label for truth, one in zip(truths, results, strict=True))
        silent = f"; of {len(results) - known} the name says nothing" if known < len(results) else ""
        OUT.print(f"{right} of {known} right{silent}")
    OUT.print()


def _print_statistics(found: RunStatistics, session: Session, seconds: float) -> None:
    config, count = session.config, found.images
    rows = {
        "tokens alive": " > ".join(
            f"{low}" if low == high else f"{low} to {high}" for low, high in found.tokens
        )
    }
    if found.macs_executed is not None and found.macs_dense is not None:
        executed, dense = found.macs_executed, found.macs_dense
        rows["MACs per image"] = (
            f"{executed / 1e6:.1f} M of {dense / 1e6:.1f} M dense ({executed / dense:.0%})"
        )
    if found.w2_rows_fetched is not None and found.w2_rows_total is not None:
        fetched, total = found.w2_rows_fetched, found.w2_rows_total
        rows["W2 rows per image"] = f"{fetched:.0f} fetched, {total - fetched:.0f} skipped of {total:.0f}"
    if found.cycles is not None:
        memory = session.options.get("memory")
        rows["cycles per image"] = f"{found.cycles:,.0f}" + (f" ({memory})" if memory else "")
        useful = "" if found.array_useful is None else f", useful {found.array_useful:.1%}"
        rows["MAC array"] = f"busy {found.array_busy:.1%}{useful} of {config.macs_per_cycle} MAC per cycle"
        kind = "simulated" if session.target_name == "sim" else "counted"
        rows["images per second"] = (
            f"{found.images_per_second:.1f} at {config.clock_text} ({kind} cycles at the core's clock)"
        )
    if found.simulation_khz is not None:
        rows["simulation"] = f"{found.simulation_khz:.0f} kHz in each process"
    rows["wall time"] = f"{seconds:.1f} s, {count / seconds:.2f} images per second"
    if found.bit_exact is not None:
        rows["equal to reference"] = (
            f"{found.bit_exact} of {found.compared}, bit for bit in {session.compared}"
        )
        if found.compared < count:
            rows["not compared"] = str(count - found.compared)
    print_rows(rows)


@command()
def profile(
    model: opt.ModelArgument,
    image: Annotated[
        Path | None,
        typer.Argument(
            metavar="IMAGE",
            help="An image file; by default the first photo that comes with the model, or random pixels.",
        ),
    ] = None,
    config: opt.ConfigOption = opt.DEFAULT_CONFIG,
    predict: Annotated[
        bool, typer.Option("--predict", help="Only the cycle model, without simulating the RTL.")
    ] = False,
    memory: opt.MemoryOption = opt.MemoryName.ddr,
    latency: opt.LatencyOption = opt.LATENCY,
    rate: opt.RateOption = opt.RATE,
    trace_json: Annotated[
        Path | None,
        typer.Option("--trace-json", metavar="FILE", help="Write the timeline, for ui.perfetto.dev."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"Write a picture ({opt.PICTURES}): timeline and roofline."),
    ] = None,
    energy: Annotated[
        bool,
        typer.Option(
            "--energy",
            help="Also estimate the energy, from counts of the RTL (or with --predict of the model) and"
            " published energies.",
        ),
    ] = False,
    energies: opt.EnergiesOption = None,
) -> None:
    """Show where the cycles of one image go, by layer and unit.

    The array multiplies, or waits: for weights, for data, or for the drain of its previous tile. The
    counters are the RTL's; what it waits for comes from the cycle model, whose cycles are shown next to
    the RTL's.

    Examples
    --------
      rowvit profile sign-digits --plot sign.png --trace-json sign.json

      rowvit profile vit-int8.safetensors photo.jpg --predict --rate 50

      rowvit profile sign-digits --energy
    """
    from rowvit.formats.description import square_side
    from rowvit.formats.package import ModelPackage
    from rowvit.hardware import config as configs
    from rowvit.measure import energy as joules
    from rowvit.measure.draw import plots
    from rowvit.measure.speed import profile as measure
    from rowvit.targets.target import read_model

    hardware = configs.load(config)
    prices = joules.load(energies) if energy or energies else None
    model_memory = opt.memory_model(memory, latency, rate)
    network = read_model(model)
    if plot:
        plots.can_save(plot)
    pixels = _one_image(model, image, network.meta)
    with status("predicting" if predict else "simulating one image"):
        found = measure.profile(network, pixels, hardware, model_memory, not predict, prices is not None)
    saved = None
    if prices is not None and isinstance(network, ModelPackage):
        with status("counting what the network saves"):
            saved = joules.savings(network, pixels, hardware, prices)
    if trace_json:
        write(trace_json, json.dumps(measure.trace(found)) + "\n")
    if plot:
        plots.save(measure.plot(found), plot)
    _print_profile(found)
    _print_fills(network.meta, hardware)
    print_host_work(found.host_work(square_side(network.meta["architecture"])))
    if prices is not None:
        print_energy(found, prices, saved)
    OUT.print()
    if trace_json:
        say(f"{trace_json}: written; open it at ui.perfetto.dev")
    if plot:
        wrote(plot)


def _one_image(model: str, image: Path | None, meta: dict[str, Any]) -> np.ndarray:
    """Pixels uint8 [H, W, 3]: of the file, of the model's first photo, or random."""
    from rowvit.formats.description import image_shape
    from rowvit.images import for_network
    from rowvit.targets.session import image_files, shipped_photos

    if image is None and (photos := shipped_photos(model)):
        image = image_files(photos)[0]
    if image is None:
        shape = *image_shape(meta["architecture"]), 3
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return for_network(image, meta)


def _print_profile(found: Profile) -> None:
    """The table of `rowvit profile`; shares are of the layer's cycles."""

    def shares(layers: list[LayerProfile], *keys: str) -> list[str]:
        cycles = sum(layer.cycles for layer in layers)
        values = [sum(getattr(layer, key) for layer in layers) / cycles for key in keys]
        return [f"{min(value, 1):.0%}" if value >= 0.005 else "." for value in values]

    compared = found.result is not None
    array = right_aligned(
        *("layer", "cycles", *(["model"] if compared else []), "MAC/cycle", "filled"),
        *("busy", "weights", "data", "draining"),
    )
    units = right_aligned("layer", "load", "load waits", "drain", "LayerNorm", "softmax", "selection")
    for name, layers in [*((layer.name, [layer]) for layer in found.layers), ("total", found.layers)]:
        cycles, predicted = (sum(getattr(layer, key) for layer in layers) for key in ("cycles", "predicted"))
        array.add_row(
            name,
            f"{cycles:,}",
            *([f"{predicted / cycles - 1:+.1%}"] if compared else []),
            f"{sum(layer.macs for layer in layers) / cycles:.0f}",
            _filled(layers, found.config),
            *shares(layers, "busy", "weights", "data", "draining"),
        )
        units.add_row(name, *shares(layers, "load", "load_wait", "drain", "norm", "softmax", "select"))
    config = found.config
    say(f"{found.network} on {config.name}: {found.source}, {found.memory}")
    say(
        f"\nThe array ({config.macs_per_cycle} MAC per cycle): how many of them it has when busy; busy, or"
        " waiting for"
    )
    OUT.print(array)
    say("\nThe other units: busy")
    OUT.print(units)


def _filled(layers: list[LayerProfile], config: HardwareConfig) -> str:
    """Multiplications of the busy cycles, as a share of those that the array could do."""
    busy = sum(layer.busy for layer in layers)
    macs = sum(layer.macs for layer in layers)
    return f"{min(macs / (busy * config.macs_per_cycle), 1):.0%}" if busy else "."


def _print_fills(meta: dict[str, Any], config: HardwareConfig) -> None:
    """What of the array this network leaves empty whatever the weights and the image are."""
    from rowvit.measure.speed.fill import fills

    found = fills(meta, config)
    if not found:
        say("\nThis network's sizes fill the array")
        return
    table = right_aligned("product", "lanes filled", left=1)
    table.add_column("because")
    for one in found:
        table.add_row(one.part, f"{one.share:.0%}", one.why)
    say("\nWhat this network's sizes cannot fill")
    OUT.print(table)
