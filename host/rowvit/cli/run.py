# SPDX-License-Identifier: Apache-2.0
"""``rowvit run``."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

import rowvit
from rowvit.cli.common import (
    DEFAULT_CONFIG,
    OUT,
    ConfigOption,
    FrontendName,
    MemoryName,
    ModelArgument,
    TargetName,
    app,
    sentences,
    writable,
    write,
)
from rowvit.cli.measuring import image_files, own_photos, progress_bar
from rowvit.errors import RowvitError
from rowvit.hardware import config as configs
from rowvit.processors import processors

if TYPE_CHECKING:
    from rowvit.hardware.config import HardwareConfig
    from rowvit.targets.target import Result, Target


@app.command()
@sentences
def run(
    model: ModelArgument,
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="Image files or directories; left out, the photos that come with the model."),
    ] = None,
    target: Annotated[
        TargetName,
        typer.Option(
            "--target",
            "-t",
            help="golden: integer reference; sim: the RTL in simulation; board: a Zynq with PYNQ.",
        ),
    ] = TargetName.sim,
    config: ConfigOption = DEFAULT_CONFIG,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Compare with the integer reference, to the bit; exit 1 if they differ."
        ),
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write results and counters of every image; - for standard output."),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Images per start of the core; above 1 the counters are the batch's.")
    ] = 1,
    jobs: Annotated[
        int, typer.Option(min=0, help="Simulations side by side; 0: one per processor.", show_default=False)
    ] = 0,
    checkpoints: Annotated[
        bool,
        typer.Option(
            "--checkpoints", help="Also read, and with --check compare, every half layer's residuals."
        ),
    ] = False,
    memory: Annotated[
        MemoryName, typer.Option(help="sim: ddr with the latency and rate below, or an ideal memory.")
    ] = MemoryName.ddr,
    latency: Annotated[
        int, typer.Option(min=0, help="sim: cycles from a read's address to its first word.")
    ] = 40,
    rate: Annotated[
        int, typer.Option(min=1, max=100, help="sim: percent of the cycles that carry a word.")
    ] = 85,
    ddr: Annotated[int, typer.Option(min=1, max=4096, help="sim: megabytes of memory for buffers.")] = 128,
    stalls: Annotated[
        int,
        typer.Option(min=0, help="sim: seed of random stalls on every channel; 0: none.", show_default=False),
    ] = 0,
    trace: Annotated[
        Path | None, typer.Option(help="sim: write a waveform (FST); builds a slower simulator.")
    ] = None,
    trace_cycles: Annotated[
        str, typer.Option(help="sim: first cycle of the waveform and the one after its last.")
    ] = "0:1000000",
    bitstream: Annotated[
        Path | None,
        typer.Option(help="board: the .bit, by default rowvit-CONFIG.bit or rowvit-CONFIG-hls.bit."),
    ] = None,
    frontend: Annotated[
        FrontendName,
        typer.Option(
            help="Who makes patches of images: this computer, or the HLS preprocessor between DMA and core."
        ),
    ] = FrontendName.host,
    timeout: Annotated[float | None, typer.Option(help="Seconds that one image may take.")] = None,
) -> None:
    """Classify images, and say what it took.

    The table shows a true class where file names begin with one, as in 7_1449.jpg.
    Cycles are the core's own counter, from start to the last word of the answer.

    Examples
    --------
      rowvit run sign-digits --target sim --check

      rowvit run deit-tiny.safetensors cat.jpg --target sim --memory ideal --json cat.json

      rowvit run sign-digits photos/ --target board --bitstream rowvit-pynq-z2.bit --batch 20
    """
    writable(json_file)
    hardware = configs.load(config)
    options: dict[str, Any] = {"frontend": frontend.value}
    if target is not TargetName.golden and timeout:
        options["timeout"] = timeout
    if target is TargetName.board:
        options["bitstream"] = bitstream
    elif target is TargetName.golden:
        options["checkpoints"] = checkpoints
    else:
        from rowvit.sim.device import MemoryModel

        options["memory"] = MemoryModel(latency, rate, memory is MemoryName.ideal, ddr)
        options["stalls"] = stalls
        if trace:
            options["trace"], options["window"] = trace, _window(trace_cycles)
    session = _Session(model, hardware, target, options, checkpoints)
    images = images or own_photos(model)
    if not images:
        raise RowvitError("no image is named; give image files or directories")
    files = image_files(images)
    pixels = session.decode(files)
    if jobs == 0:
        jobs = processors()
    if target is not TargetName.sim or trace:
        jobs = 1

    begin = time.monotonic()
    with progress_bar(f"{len(files)} images", len(files)) as progress:
        results = session.run(pixels, batch, jobs, progress)
    seconds = time.monotonic() - begin
    if check:
        session.compare(results, pixels)

    if str(json_file) != "-":
        _print_results(files, results, session.meta["classes"])
        _print_statistics(results, session, seconds)
    if json_file:
        text = json.dumps(session.report(files, results, seconds), indent=1)
        if str(json_file) == "-":
            sys.stdout.write(text + "\n")
        else:
            write(json_file, text + "\n")
    if any(result.bit_exact is False for result in results):
        raise typer.Exit(1)


class _Session:
    """One network on one target."""

    def __init__(
        self,
        model: str,
        config: HardwareConfig,
        target: TargetName,
        options: dict[str, Any],
        checkpoints: bool,
    ) -> None:
        from rowvit.targets.target import read_model, read_program

        self.config, self.target, self.options, self.checkpoints = config, target, options, checkpoints
        self.package = self.model = read_model(model)
        if target is not TargetName.golden:
            self.model = read_program(self.package, config, checkpoints)
        self.meta = self.model.meta

    def decode(self, files: list[Path]) -> Sequence[np.ndarray]:
        """Images uint8 [height, width, 3]: of the network's size, or whole for the HLS front end."""
        from rowvit.images import decode, frame

        if self.options["frontend"] == "hls":
            return [frame(file) for file in files]
        side, resize = self.meta["architecture"]["image_size"], self.meta["preprocessing"]["resize"]
        return np.stack([decode(file, side, resize) for file in files])

    def run(
        self, pixels: Sequence[np.ndarray], batch: int, jobs: int, progress: Callable[[float], None]
    ) -> list[Result]:
        starts = [pixels[first : first + batch] for first in range(0, len(pixels), batch)]
        jobs = min(jobs, len(starts))
        if jobs == 1:
            with rowvit.open(self.target.value, self.config, **self.options) as target:
                target.load(self.model)
                return _collect(([result] for result in target.stream(pixels, batch)), progress)
        from rowvit.sim.verilate import build

        build(self.config)  # once, before the processes need it
        spec = self.target.value, self.config, self.options, self.model
        spawn = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(jobs, spawn, _start_worker, spec) as pool:
                return _collect(pool.map(_work, starts), progress)
        except BrokenProcessPool as error:
            raise RowvitError(
                f"one of {jobs} simulations was killed, as when memory runs out; give fewer --jobs"
            ) from error

    def compare(self, results: list[Result], pixels: Sequence[np.ndarray]) -> None:
        """Set ``bit_exact`` of every result."""
        options = {"checkpoints": self.checkpoints, "frontend": self.options["frontend"]}
        with rowvit.open("golden", self.config, **options) as golden:
            golden.load(self.package)
            with progress_bar("the reference", len(results)) as progress:
                expected = _collect(([one] for one in golden.stream(pixels)), progress)
        for result, reference in zip(results, expected, strict=True):
            result.bit_exact = result.same(reference)

    def report(self, files: list[Path], results: list[Result], seconds: float) -> dict[str, Any]:
        config = self.config
        report: dict[str, Any] = {
            "model": self.meta.get("name") or self.meta["model"]["name"],
            "target": self.target.value,
            "frontend": self.options["frontend"],
            "config": {"name": config.name, "hash": f"{config.hash:08X}", "clock_mhz": config.clock_mhz},
            "seconds": seconds,
        }
        if "memory" in self.options:
            report["memory"] = vars(self.options["memory"])
            report["stalls"] = self.options["stalls"]
        keys = ("top1", "label", "cycles", "layer_cycles", "batch", "counters", "bit_exact", "seconds")
        keys += ("macs_executed", "macs_dense", "w2_rows_fetched", "w2_rows_total")
        report["images"] = [
            {
                "file": str(file),
                **{key: getattr(result, key) for key in keys},
                "probability": float(result.probabilities[result.top1]),
                "logits": result.logits.tolist(),
                "kept": [tokens.tolist() for tokens in result.kept],
            }
            for file, result in zip(files, results, strict=True)
        ]
        return report


def _collect(parts: Iterable[list[Result]], progress: Callable[[float], None]) -> list[Result]:
    results: list[Result] = []
    for part in parts:
        results += part
        progress(len(results))
    return results


class _Worker:
    """What a process of the pool holds: what to open, and the target once it is open."""

    spec: tuple[str, HardwareConfig, dict[str, Any], Any]
    target: Target | None = None


def _start_worker(*spec) -> None:
    _Worker.spec = spec


def _work(pixels: Sequence[np.ndarray]) -> list[Result]:
    if _Worker.target is None:  # here and not at the start of the process, so that errors arrive
        target, config, options, model = _Worker.spec
        opened = rowvit.open(target, config, **options)
        opened.load(model)
        _Worker.target = opened
    return _Worker.target(pixels, len(pixels))


def _window(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise RowvitError(f"trace cycles '{text}' are not FIRST:LAST, as in 0:1000000")
    return int(first), int(last)


def _print_results(files: list[Path], results: list[Result], classes: list[str]) -> None:
    truths = [file.stem.split("_")[0] for file in files]
    known = set(truths) <= set(map(str, classes)) and all("_" in file.stem for file in files)
    checked = any(result.bit_exact is not None for result in results)
    counted = any(result.cycles is not None for result in results)
    table = Table(box=None, pad_edge=False)
    table.add_column("image")
    if known:
        table.add_column("truth")
    table.add_column("prediction")
    table.add_column("probability", justify="right")
    if checked:
        table.add_column("equals reference")
    if counted:
        table.add_column("cycles", justify="right")
    for file, truth, result in zip(files, truths, results, strict=True):
        row = [file.name]
        if known:
            row.append(truth)
        row += [result.label, f"{result.probabilities[result.top1]:.3f}"]
        if checked:
            row.append("yes" if result.bit_exact else "[red]NO[/red]")
        if counted:
            row.append(f"{result.cycles:,}")
        table.add_row(*row)
    OUT.print(table, highlight=False)
    if known:
        right = sum(truth == result.label for truth, result in zip(truths, results, strict=True))
        OUT.print(f"{right} of {len(results)} right", highlight=False)
    OUT.print()


def _print_statistics(results: list[Result], session: _Session, seconds: float) -> None:
    config, count = session.config, len(results)
    table = Table(show_header=False, box=None, pad_edge=False)
    row = table.add_row
    counted = all(result.macs_executed is not None for result in results)

    def mean(name: str) -> float:
        return sum(getattr(result, name) for result in results) / count

    live = [str(session.meta["architecture"]["tokens"])]
    for numbers in zip(*(result.live for result in results), strict=True):
        low, high = min(numbers), max(numbers)
        live.append(f"{low}" if low == high else f"{low} to {high}")
    row("tokens alive", " > ".join(live))
    if counted:
        executed, dense = mean("macs_executed"), mean("macs_dense")
        row("MACs per image", f"{executed / 1e6:.1f} M of {dense / 1e6:.1f} M dense ({executed / dense:.0%})")
        fetched, total = mean("w2_rows_fetched"), mean("w2_rows_total")
        row("W2 rows per image", f"{fetched:.0f} fetched, {total - fetched:.0f} skipped of {total:.0f}")
    if session.target is not TargetName.golden:
        cycles = mean("cycles")
        memory = session.options.get("memory")
        row("cycles per image", f"{cycles:,.0f}" + (f" ({memory})" if memory else ""))
        # the images of a batch share one set of counters
        fires = sum(result.counters["fires"] / result.batch for result in results) / count
        text = f"busy {fires / (cycles * config.rows * config.groups):.1%}"
        if counted:
            text += f", useful {mean('macs_executed') / (cycles * config.macs_per_cycle):.1%}"
        row("MAC array", f"{text} of {config.macs_per_cycle} MAC per cycle")
        kind = "simulated" if session.target is TargetName.sim else "counted"
        rate = config.clock_mhz * 1e6 / cycles
        row("images per second", f"{rate:.1f} at {config.clock_mhz:g} MHz ({kind} cycles x clock)")
    if session.target is TargetName.sim:
        row("simulation", f"{mean('cycles') / mean('seconds') / 1e3:.0f} kHz in each process")
    row("wall time", f"{seconds:.1f} s, {count / seconds:.2f} images per second")
    if any(result.bit_exact is not None for result in results):
        equal = sum(result.bit_exact is True for result in results)
        row("equal to reference", f"{equal} of {count}, to the bit")
    OUT.print(table, highlight=False)
