# SPDX-License-Identifier: Apache-2.0
"""The command ``rowvit``."""

from __future__ import annotations

import functools
import json
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

import rowvit
from rowvit.errors import RowvitError
from rowvit.hardware import config as configs
from rowvit.hardware.isa import Op

if TYPE_CHECKING:
    from rowvit.bitfile import Check
    from rowvit.hardware.config import HardwareConfig
    from rowvit.measure.profile import LayerProfile, Profile
    from rowvit.target import Result, Target

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""Vision transformers on the rowvit accelerator.

Try: rowvit run sign-digits --target sim --check""",
)
config_app = typer.Typer(
    no_args_is_help=True, help="Hardware configurations: what an accelerator is built from."
)
app.add_typer(config_app, name="config")
overlays_app = typer.Typer(no_args_is_help=True, help="Overlays for boards: prebuilt ones, and built ones.")
app.add_typer(overlays_app, name="overlays")
OUT = Console()
ERR = Console(stderr=True)
LOG = logging.getLogger("rowvit")


class TargetName(str, Enum):
    """Where a network runs."""

    golden = "golden"
    sim = "sim"
    board = "board"


class MemoryName(str, Enum):
    """How the simulated memory behaves."""

    ddr = "ddr"
    ideal = "ideal"


def _sentences(command: Callable) -> Callable:
    """What the user can put right becomes one sentence and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        if not LOG.handlers:
            LOG.addHandler(RichHandler(console=ERR, show_time=False, show_level=False, show_path=False))
            LOG.setLevel(logging.INFO)
        try:
            return command(*args, **kwargs)
        except RowvitError as error:
            ERR.print(f"rowvit: {error}", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from error

    return wrapped


ModelArgument = Annotated[
    str,
    typer.Argument(
        help="A model package or compiled program (.safetensors), or sign-digits, which comes along."
    ),
]
ConfigOption = Annotated[
    str,
    typer.Option(
        "--config", "-c", help="Hardware configuration: a name (rowvit config list) or a .toml file."
    ),
]


@app.command()
@_sentences
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
    config: ConfigOption = "pynq-z2",
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
        typer.Option(help="board: the .bit, by default rowvit-CONFIG.bit; its .hwh lies beside it."),
    ] = None,
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
    hardware = configs.load(config)
    options: dict[str, Any] = {}
    if target is not TargetName.golden and timeout:
        options["timeout"] = timeout
    if target is TargetName.board:
        options["bitstream"] = bitstream
    elif target is TargetName.golden:
        options["checkpoints"] = checkpoints
    else:
        from rowvit.device.sim import MemoryModel

        options["memory"] = MemoryModel(latency, rate, memory is MemoryName.ideal, ddr)
        options["stalls"] = stalls
        if trace:
            options["trace"], options["window"] = trace, _window(trace_cycles)
    session = _Session(model, hardware, target, options, checkpoints)
    files = _files(model, images or [])
    pixels = session.decode(files)
    if jobs == 0:
        jobs = os.cpu_count() or 1
    if target is not TargetName.sim or trace:
        jobs = 1

    begin = time.monotonic()
    results = session.run(pixels, batch, jobs)
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
            _write(json_file, text + "\n")
    if any(result.bit_exact is False for result in results):
        raise typer.Exit(1)


@app.command()
@_sentences
def profile(
    model: ModelArgument,
    image: Annotated[
        Path | None,
        typer.Argument(
            help="An image file; left out, the first photo that comes with the model, or random pixels."
        ),
    ] = None,
    config: ConfigOption = "pynq-z2",
    predict: Annotated[
        bool, typer.Option("--predict", help="Only the cycle model, without simulating the RTL.")
    ] = False,
    memory: Annotated[
        MemoryName, typer.Option(help="ddr with the latency and rate below, or an ideal memory.")
    ] = MemoryName.ddr,
    latency: Annotated[int, typer.Option(min=0, help="Cycles from a read's address to its first word.")] = 40,
    rate: Annotated[int, typer.Option(min=1, max=100, help="Percent of the cycles that carry a word.")] = 85,
    trace_json: Annotated[
        Path | None, typer.Option("--trace-json", help="Write the timeline, for ui.perfetto.dev.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture (.png, .svg, .pdf): timeline and roofline.")
    ] = None,
) -> None:
    """Say where the cycles of one image go, by layer and unit.

    The array multiplies, or waits: for weights, for data, or for the drain of its previous tile. The
    counters are the RTL's; what it waits for is told apart by the cycle model, whose cycles stand
    beside the RTL's.

    Examples
    --------
      rowvit profile sign-digits --plot sign.png --trace-json sign.json

      rowvit profile deit-tiny.safetensors cat.jpg --predict --rate 50
    """
    from rowvit.device.sim import MemoryModel
    from rowvit.measure import profile as measure
    from rowvit.target import read_model

    hardware = configs.load(config)
    model_memory = MemoryModel(latency, rate, memory is MemoryName.ideal)
    network = read_model(model)
    for path in (trace_json, plot):
        if path and not path.parent.is_dir():
            raise RowvitError(f"{path}: there is no directory {path.parent}")
        if path and path.is_dir():
            raise RowvitError(f"{path}: cannot be written (it is a directory)")
    found = measure.profile(
        network, _one_image(model, image, network.meta), hardware, model_memory, not predict
    )
    _print_profile(found)
    if trace_json:
        measure.write_trace(found, trace_json)
    if plot:
        measure.plot(found, plot)


@app.command()
@_sentences
def compile(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The program to write (.safetensors).")],
    config: ConfigOption = "pynq-z2",
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="The program also sends every half layer.")
    ] = False,
) -> None:
    """Compile a model package into a program for one configuration.

    A program holds instructions and weights in one blob; a board loads it without compiling.
    """
    from rowvit.compiler import compile as lower
    from rowvit.target import read_package

    program = lower(read_package(model), configs.load(config), checkpoints)
    program.save(output)
    sizes = program.meta["input"]["bytes"], program.meta["output"]["max_bytes"]
    OUT.print(
        f"{output}: {len(program.code)} instructions, {program.blob.nbytes / 1e6:.2f} MB for '{config}';"
        f" an image is {sizes[0]} bytes in, up to {sizes[1]} out",
        soft_wrap=True,
        highlight=False,
    )


@app.command()
@_sentences
def disasm(model: ModelArgument, config: ConfigOption = "pynq-z2") -> None:
    """Print a program's instructions, one a line; a package is compiled first.

    LOAD>=12 waits until 12 loads of this image are complete; DRAIN~7 follows the seventh operation
    of the drain band by band.
    """
    from rowvit.compiler import disasm as text
    from rowvit.target import read_program

    sys.stdout.write(text(read_program(model, configs.load(config))))


@app.command()
@_sentences
def info(model: ModelArgument) -> None:
    """Describe a model package or a compiled program."""
    from rowvit.compiler import Program
    from rowvit.target import read_model

    found = read_model(model)
    meta = found.meta
    arch = meta["architecture"]
    table = Table(show_header=False, box=None, pad_edge=False)
    rows: dict[str, object] = {}
    if isinstance(found, Program):
        rows["program of"] = f"{meta['model']['name']} for '{meta['config']['name']}'"
        rows["instructions"] = meta["instructions"]
        rows["blob"] = f"{found.blob.nbytes / 1e6:.2f} MB"
        counts = {op.name: sum(i.op is op for i in found.instructions) for op in Op}
        rows["by opcode"] = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        rows["checkpoints"] = "yes" if meta["checkpoints"] else "no"
    else:
        rows["package"] = meta["name"]
        rows["weights"] = f"{sum(t.nbytes for t in found.tensors.values()) / 1e6:.2f} MB"
        for key in ("licence", "source", "accuracy", "hash"):
            rows[key] = meta.get(key)
    rows["image"] = f"{arch['image_size']} x {arch['image_size']}, patches of {arch['patch_size']}"
    rows["network"] = (
        f"{arch['depth']} layers, {arch['dim']} channels, {arch['heads']} heads, {arch['hidden']} hidden,"
        f" {arch['tokens']} tokens, {arch['classes']} classes"
    )
    rows["pruning"] = (
        "; ".join(
            f"layer {step['layer']} keeps {step['keep']}"
            + (f" with score {step['threshold'] / 2**20:.4f} and more" if step["threshold"] else "")
            for step in meta["pruning"]
        )
        or "none"
    )
    rows["second FFN matrix"] = {
        "none": "fetched whole",
        "image": "rows that the image uses are fetched",
        "tile": f"rows that a tile of {meta.get('tile_rows')} tokens uses are fetched",
    }[meta["ffn2_rule"]]
    for name, value in rows.items():
        if value not in (None, ""):
            table.add_row(name, json.dumps(value) if isinstance(value, dict) else str(value))
    OUT.print(table)


@app.command("verify-overlay")
@_sentences
def verify_overlay(
    bitstream: Annotated[Path, typer.Argument(help="The .bit; its .hwh and .json lie beside it.")],
) -> None:
    """Judge a bitstream by its files, without a board: one build, which configuration, DMA, ports, clock.

    Example
    -------
      rowvit verify-overlay rowvit-pynq-z2.bit
    """
    from rowvit.bitfile import verify

    if not _print_checks(verify(bitstream)):
        raise typer.Exit(1)


@app.command()
@_sentences
def diagnose(
    target: Annotated[
        TargetName, typer.Option("--target", "-t", help="board: this board; sim: the simulated one.")
    ] = TargetName.board,
    config: ConfigOption = "pynq-z2",
    bitstream: Annotated[
        Path | None,
        typer.Option(help="board: the .bit, by default rowvit-CONFIG.bit; its .hwh lies beside it."),
    ] = None,
) -> None:
    """Walk over the board, from its files to a network with known logits, and say where it goes wrong.

    The walk ends at the first step that fails; below the table stands what to do.

    Examples
    --------
      rowvit diagnose --bitstream rowvit-pynq-z2.bit

      rowvit diagnose --target sim
    """
    from rowvit.diagnose import diagnose as walk

    if target is TargetName.golden:
        raise RowvitError("golden has nothing to diagnose; take --target board or sim")
    with ERR.status("looking") as status:
        checks = []
        for check in walk(target.value, configs.load(config), bitstream):
            checks.append(check)
            status.update(f"{check.name} looked at, going on")
    if not _print_checks(checks):
        raise typer.Exit(1)


@config_app.command("list")
@_sentences
def config_list() -> None:
    """List the configurations that come with rowvit."""
    table = Table(
        "name", "board", "rows x groups x lanes", "MAC per cycle", "MHz", "hash", box=None, pad_edge=False
    )
    for name in configs.names():
        c = configs.load(name)
        table.add_row(
            name,
            c.board,
            f"{c.rows} x {c.groups} x {c.lanes}",
            str(c.macs_per_cycle),
            f"{c.clock_mhz:g}",
            f"{c.hash:08X}",
        )
    OUT.print(table, highlight=False)


@config_app.command("show")
@_sentences
def config_show(
    name: Annotated[str, typer.Argument(help="A configuration's name or .toml file.")],
) -> None:
    """Show one configuration: its fields, and the memories that they make."""
    c = configs.load(name)
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in {"board": c.board, "clock_mhz": f"{c.clock_mhz:g}", **c.structure()}.items():
        table.add_row(key, str(value))
    table.add_row("MAC per cycle", str(c.macs_per_cycle))
    table.add_row("weight memory", f"{c.groups * c.weight_depth * c.lanes / 1024:g} KB")
    table.add_row("token memory", f"{c.rows * c.token_depth * 8 / 1024:g} KB")
    table.add_row("residual memory", f"{c.rows * c.groups * c.residual_depth * 2 / 1024:g} KB")
    table.add_row("hash", f"{c.hash:08X}")
    OUT.print(table, highlight=False)


ManifestOption = Annotated[
    Path | None, typer.Option("--manifest", help="Another list of prebuilt overlays than rowvit's (.toml).")
]


@overlays_app.command("list")
@_sentences
def overlays_list(manifest: ManifestOption = None) -> None:
    """List the prebuilt overlays."""
    from rowvit import overlays

    entries = overlays.manifest(manifest or overlays.MANIFEST)
    if not entries:
        OUT.print(
            "There are no prebuilt overlays yet. Build one with Vivado: make bitstream BOARD=Pynq-Z2",
            soft_wrap=True,
            highlight=False,
        )
        return
    table = Table("name", "board", "configuration", "MB", box=None, pad_edge=False)
    for entry in entries:
        size = sum(file.bytes for file in entry.files)
        table.add_row(entry.name, entry.board, entry.configuration, f"{size / 1e6:.1f}")
    OUT.print(table, highlight=False)


@overlays_app.command("fetch")
@_sentences
def overlays_fetch(
    name: Annotated[str, typer.Argument(help="A name of rowvit overlays list.")],
    to: Annotated[Path, typer.Option("--to", help="Directory that takes .bit, .hwh and .json.")] = Path(),
    seconds: Annotated[float, typer.Option(help="Give up after so many seconds.")] = 300,
    manifest: ManifestOption = None,
) -> None:
    """Download a prebuilt overlay, and see that it is what it should be."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from rowvit import overlays

    entries = {entry.name: entry for entry in overlays.manifest(manifest or overlays.MANIFEST)}
    if name not in entries:
        known = f"take one of {', '.join(entries)}" if entries else "there are none yet: make bitstream"
        raise RowvitError(f"no prebuilt overlay '{name}'; {known}")
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=ERR) as progress:
        tasks = {f.name: progress.add_task(f.name, total=f.bytes) for f in entries[name].files}
        overlays.fetch(
            entries[name], to, seconds, lambda file, done, _: progress.update(tasks[file], completed=done)
        )
    OUT.print(f"{to / name}.bit, .hwh and .json: as in the manifest", soft_wrap=True, highlight=False)


@overlays_app.command("verify")
@_sentences
def overlays_verify(
    path: Annotated[Path, typer.Argument(help="A .bit, .hwh or .json, or a directory of overlays.")],
) -> None:
    """See that overlays are whole and of a configuration that this version knows.

    rowvit verify-overlay looks into .bit and .hwh themselves.
    """
    from rowvit import overlays

    for made in overlays.verify(path):
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_row("whole", ", ".join(made.files))
        table.add_row("configuration", f"{made.configuration}, hash {made.config_hash}")
        table.add_row("board", f"{made.board}, {made.part}")
        source = made.revision or "unknown"
        table.add_row("built", f"{made.date}, {made.tool}, {made.strategy}")
        table.add_row("commit", f"{source}, with changes" if made.dirty else source)
        table.add_row("clock", f"{made.actual_clock_mhz:g} MHz")
        table.add_row("slack", f"setup {made.setup_slack_ns:g} ns, hold {made.hold_slack_ns:g} ns")
        OUT.print(table, highlight=False)


# -- running ------------------------------------------------------------------------------------


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
        from rowvit.target import read_model, read_program

        self.config, self.target, self.options, self.checkpoints = config, target, options, checkpoints
        self.package = self.model = read_model(model)
        if target is not TargetName.golden:
            self.model = read_program(self.package, config, checkpoints)
        self.meta = self.model.meta

    def decode(self, files: list[Path]) -> np.ndarray:
        from rowvit.images import decode

        side, resize = self.meta["architecture"]["image_size"], self.meta["preprocessing"]["resize"]
        return np.stack([decode(file, side, resize) for file in files])

    def run(self, pixels: np.ndarray, batch: int, jobs: int) -> list[Result]:
        starts = [pixels[first : first + batch] for first in range(0, len(pixels), batch)]
        jobs = min(jobs, len(starts))
        if jobs == 1:
            with rowvit.open(self.target.value, self.config, **self.options) as target:
                target.load(self.model)
                return target(pixels, batch)
        from rowvit.device.verilate import build

        build(self.config)  # once, before the processes need it
        with ProcessPoolExecutor(
            jobs,
            multiprocessing.get_context("spawn"),
            _start_worker,
            (self.target.value, self.config, self.options, self.model),
        ) as pool:
            return [result for results in pool.map(_work, starts) for result in results]

    def compare(self, results: list[Result], pixels: np.ndarray) -> None:
        """Set ``bit_exact`` of every result."""
        with rowvit.open("golden", self.config, checkpoints=self.checkpoints) as golden:
            golden.load(self.package)
            for result, expected in zip(results, golden(pixels), strict=True):
                result.bit_exact = result.same(expected)

    def report(self, files: list[Path], results: list[Result], seconds: float) -> dict[str, Any]:
        config = self.config
        report: dict[str, Any] = {
            "model": self.meta.get("name") or self.meta["model"]["name"],
            "target": self.target.value,
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


class _Worker:
    """What a process of the pool holds: what to open, and the target once it is open."""

    spec: tuple[str, HardwareConfig, dict[str, Any], Any]
    target: Target | None = None


def _start_worker(*spec) -> None:
    _Worker.spec = spec


def _work(pixels: np.ndarray) -> list[Result]:
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


def _files(model: str, images: list[Path]) -> list[Path]:
    """The files named, or in the directories named, or the model's own photos."""
    from rowvit.target import MODELS

    if not images:
        images = [MODELS / f"{model.replace('-', '_')}_photos"]
        if not images[0].is_dir():
            raise RowvitError("no image is named; give image files or directories")
    files: list[Path] = []
    for path in images:
        files += sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    if not files:
        raise RowvitError(f"{images[0]} holds no files; give image files")
    return files


def _one_image(model: str, image: Path | None, meta: dict[str, Any]) -> np.ndarray:
    """Pixels uint8 [S, S, 3]: of the file, of the model's first photo, or random."""
    from rowvit.images import decode
    from rowvit.target import MODELS

    side = meta["architecture"]["image_size"]
    photos = MODELS / f"{model.replace('-', '_')}_photos"
    if image is None and photos.is_dir():
        image = sorted(photos.iterdir())[0]
    if image is None:
        return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return decode(image, side, meta["preprocessing"]["resize"])


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise RowvitError(f"{path}: cannot be written ({error.strerror})") from error


# -- printing -----------------------------------------------------------------------------------


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


def _print_checks(checks: list[Check]) -> bool:
    """A table of what was found and what to do; whether nothing failed."""
    table = Table(box=None, pad_edge=False, show_header=False)
    marks = {True: "[green]ok[/green]", False: "[red]failed[/red]", None: "[yellow]?[/yellow]"}
    for check in checks:
        table.add_row(marks[check.ok], check.name, escape(check.text))
    OUT.print(table, highlight=False)
    failed = [check for check in checks if check.ok is False]
    for check in failed:
        if check.advice:
            OUT.print(f"\n{check.name}: {check.advice}", markup=False, highlight=False, soft_wrap=True)
    return not failed


def _print_profile(found: Profile) -> None:
    """The table of `rowvit profile`; shares are of the layer's cycles."""

    def shares(layers: list[LayerProfile], *keys: str) -> list[str]:
        cycles = sum(layer.cycles for layer in layers)
        values = [sum(getattr(layer, key) for layer in layers) / cycles for key in keys]
        return [f"{min(value, 1):.0%}" if value >= 0.005 else "." for value in values]

    compared = found.result is not None
    array = Table(
        *("layer", "cycles", *["model"] * compared, "MAC/cycle", "busy", "weights", "data", "draining"),
        box=None,
        pad_edge=False,
    )
    units = Table(
        *("layer", "load", "load waits", "drain", "LayerNorm", "softmax", "selection"),
        box=None,
        pad_edge=False,
    )
    for table in (array, units):
        for column in table.columns[1:]:
            column.justify = "right"
    for name, layers in [*((layer.name, [layer]) for layer in found.layers), ("total", found.layers)]:
        cycles, predicted = (sum(getattr(layer, key) for layer in layers) for key in ("cycles", "predicted"))
        array.add_row(
            name,
            f"{cycles:,}",
            *[f"{predicted / cycles - 1:+.1%}"] * compared,
            f"{sum(layer.macs for layer in layers) / cycles:.0f}",
            *shares(layers, "busy", "weights", "data", "draining"),
        )
        units.add_row(name, *shares(layers, "load", "load_wait", "drain", "norm", "softmax", "select"))
    config = found.config
    OUT.print(
        f"{found.network} on {config.name}: {found.source}, {found.memory}", soft_wrap=True, highlight=False
    )
    OUT.print(f"\nThe array ({config.macs_per_cycle} MAC per cycle): busy, or waiting for", highlight=False)
    OUT.print(array, highlight=False)
    OUT.print("\nThe other units: busy", highlight=False)
    OUT.print(units, highlight=False)


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
