# SPDX-License-Identifier: Apache-2.0
"""What commands that run images share: options, network and images, bars, the result file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import rowvit
from rowvit.cli.common import ERR, MemoryName, TargetName
from rowvit.errors import RowvitError
from rowvit.hardware import config as configs

if TYPE_CHECKING:
    from rowvit.hardware.config import HardwareConfig
    from rowvit.targets.target import Target

ImagesArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Image files or directories; left out, the photos that come with the model, or random pixels."
    ),
]
TargetOption = Annotated[
    TargetName,
    typer.Option(
        "--target", "-t", help="board: this board; sim: the RTL in simulation; golden: integer reference."
    ),
]
CountOption = Annotated[
    int,
    typer.Option(
        "--images", "-n", min=0, help="Images, taken again from the first; 0: 10 on sim, else 200.",
        show_default=False,
    ),
]  # fmt: skip
BatchOption = Annotated[int, typer.Option(min=1, help="Images per start of the core, for throughput.")]
JsonOption = Annotated[
    Path | None, typer.Option("--json", help="Write the result file; - for standard output.")
]
DataOption = Annotated[
    str | None, typer.Option("--data", help="Name of the data set; by default its directory's.")
]
SubsetOption = Annotated[
    str | None, typer.Option("--subset", help="Which part of the data set the images are.")
]
MemoryOption = Annotated[
    MemoryName, typer.Option(help="sim: ddr with the latency and rate below, or an ideal memory.")
]
LatencyOption = Annotated[
    int, typer.Option(min=0, help="sim: cycles from a read's address to its first word.")
]
RateOption = Annotated[
    int, typer.Option(min=1, max=100, help="sim: percent of the cycles that carry a word.")
]
BitstreamOption = Annotated[
    Path | None,
    typer.Option(help="board: the .bit, by default rowvit-CONFIG.bit; its .hwh lies beside it."),
]


@dataclass
class Workload:
    """A network, images, and where it runs."""

    target: str
    config: HardwareConfig
    options: dict[str, Any]
    model: Any
    pixels: np.ndarray  # uint8 [N, S, S, 3]
    data: dict[str, Any]

    @contextmanager
    def open(self) -> Iterator[Target]:
        with rowvit.open(self.target, self.config, **self.options) as target:
            target.load(self.model)
            yield target

    def describe(self, kind: str, opened: Target) -> dict[str, Any]:
        """The conditions of a measurement with what was opened."""
        from rowvit.measure import result

        bitstream = Path(opened.overlay.bitfile_name) if self.target == "board" else None
        return result.describe(kind, self.target, self.config, self.model.meta, self.data, bitstream)


def prepare(
    model: str,
    images: list[Path] | None,
    target: TargetName,
    config: str,
    count: int,
    data: str | None,
    subset: str | None,
    bitstream: Path | None,
    memory: tuple[MemoryName, int, int],
) -> Workload:
    """The workload that the options name.

    Raises
    ------
    RowvitError
        A file cannot be read, or the network does not fit the configuration.
    """
    from rowvit.images import decode
    from rowvit.measure.result import data_set
    from rowvit.targets.target import read_model, read_program

    hardware = configs.load(config)
    options: dict[str, Any] = {}
    if target is TargetName.board and bitstream:
        options["bitstream"] = bitstream
    if target is TargetName.sim:
        from rowvit.sim.device import MemoryModel

        kind, latency, rate = memory
        options["memory"] = MemoryModel(latency, rate, kind is MemoryName.ideal)
    network = read_model(model)
    if target is not TargetName.golden:
        network = read_program(network, hardware)
    count = count or (10 if target is TargetName.sim else 200)
    side = network.meta["architecture"]["image_size"]
    if not images and (images := own_photos(model)):
        data = data or f"photos that come with {model}"
    if images:
        files = image_files(images)
        data = data or (images[0] if images[0].is_dir() else images[0].parent).resolve().name
        resize = network.meta["preprocessing"]["resize"]
        pixels = np.stack([decode(file, side, resize) for file in files[:count]])
        subset = subset or f"first {len(pixels)} of {len(files)} files by name"
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (min(count, 16), side, side, 3), dtype=np.uint8)
        data, subset = data or "random pixels", subset or "seed 0"
    described = data_set(data, subset, pixels)
    described["repeated"] = count / len(pixels)
    return Workload(
        target.value, hardware, options, network, pixels[np.arange(count) % len(pixels)], described
    )


def own_photos(model: str) -> list[Path]:
    """The directory of the photos that come with a model; empty if none do."""
    from rowvit.targets.target import MODELS

    photos = MODELS / f"{model.replace('-', '_')}_photos"
    return [photos] if photos.is_dir() else []


def image_files(images: list[Path]) -> list[Path]:
    """The files named, and those in the directories named; `RowvitError` if these hold none."""
    files: list[Path] = []
    for path in images:
        files += sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    if not files:
        raise RowvitError(f"{images[0]} holds no files; give image files")
    return files


@contextmanager
def progress_bar(description: str, total: float) -> Iterator[Callable[[float], None]]:
    """A bar on standard error; the function sets how much is done."""
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=ERR, transient=True, disable=not ERR.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done: progress.update(task, completed=done)


def temperature(target: str) -> tuple[str, Callable[[], float]] | None:
    """Of the board's die; a simulated one has none."""
    if target == "sim":
        return None
    from rowvit.measure.sensors import thermometer

    return thermometer()


def temperatures(source: tuple[str, Any] | None, values: list[float], target: str) -> dict[str, Any]:
    if source is None:
        return {
            "none": "the simulation has none" if target == "sim" else "no XADC or SYSMON among IIO devices"
        }
    return {"source": source[0], "first": values[0], "last": values[-1], "highest": max(values)}


def written(document: dict[str, Any], path: Path | None) -> None:
    """Write a result where the options say; `RowvitError` if that fails."""
    from rowvit.measure import result

    if str(path) == "-":
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    elif path:
        result.write(path, document)
        ERR.print(f"{path}: the result; rowvit report {path}", highlight=False, soft_wrap=True)
