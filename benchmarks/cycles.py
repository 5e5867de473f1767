# SPDX-License-Identifier: Apache-2.0
"""Cycles and utilisation on the simulated accelerator, as a Markdown table.

    python benchmarks/cycles.py                      # three rows of docs/results.md
    python benchmarks/cycles.py deit-tiny --images 8 # steady state over a batch

Cycles are exact and repeatable: random images from a seed, and a memory with a given latency and rate. Wall
time and simulated kHz depend on the machine that ran it.

Compared with the integer reference are the logits and kept tokens of the program whose cycles these are; and
of the same network compiled with checkpoints, on the same images, also the residual stream after the
embedding and after every half layer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated

import numpy as np
import typer
from record import Record, record

import rowvit
from rowvit.cli.common import status
from rowvit.compiler import compile
from rowvit.cycles import measured, predict
from rowvit.formats.package import ModelPackage
from rowvit.hardware.config import load
from rowvit.hardware.memory import Memory
from rowvit.quant.synthetic import PRESETS, preset_package
from rowvit.sim.device import MemoryModel
from rowvit.targets.session import image_files, shipped_photos
from rowvit.targets.target import read_model

NETWORKS = ["deit-tiny dense", "deit-tiny", "sign-digits"]
HEADER = (
    "| network | images | memory | cycles per image | array busy | useful MACs | FPS at clock |"
    " simulated kHz | wall s |\n|---|---|---|---|---|---|---|---|---|"
)


def network(name: str) -> ModelPackage:
    """A shipped model, or a preset ("deit-tiny", "deit-tiny dense", ...)."""
    preset, _, variant = name.partition(" ")
    if preset in PRESETS:
        return preset_package(preset, dense=variant == "dense")
    return read_model(name)


@dataclass(frozen=True)
class Cycles:
    """Means over images on the simulated accelerator.

    Parameters
    ----------
    images : int
        Of one start.
    busy, useful : float
        Shares of ``cycles`` x MACs per cycle: lane-group multiplications, and multiplications of the network.
    macs, macs_dense : int
        Multiplications, as executed, and without pruning and skipping.
    layers, predicted : list of int
        Cycles of embedding, layers and head of the last image, and those of the cycle model.
    seconds : float
        Wall time of the simulation.
    """

    network: str
    config: str
    images: int
    memory: str
    cycles: float
    busy: float
    useful: float
    macs: float
    macs_dense: float
    layers: list[int]
    predicted: list[int]
    seconds: float

    @property
    def name(self) -> str:
        """In benchmarks/results."""
        batch = f" x{self.images}" if self.images > 1 else ""
        memory = "" if self.memory == str(MemoryModel()) else f", {self.memory}"
        return f"{self.config} {self.network}{batch}{memory}"

    @property
    def clock_mhz(self) -> float:
        """Of the configuration."""
        return load(self.config).clock_mhz

    @property
    def images_per_second(self) -> float:
        """Simulated cycles at the core's clock."""
        return self.clock_mhz * 1e6 / self.cycles

    def row(self) -> str:
        """Under `HEADER`."""
        return (
            f"| {self.network} | {self.images} | {self.memory} | {self.cycles:,.0f} |"
            f" {self.busy:.1%} | {self.useful:.1%} | {self.images_per_second:.1f} |"
            f" {self.cycles / self.seconds / 1e3:.0f} | {self.seconds:.1f} |"
        )


def measure(name: str, config: str, memory: MemoryModel, images: int = 1, photos: bool = False) -> Cycles:
    """Simulate a start with random images, or the network's photos in starts; compare with the reference."""
    package, hardware = network(name), load(config)
    program, thorough = compile(package, hardware), compile(package, hardware, checkpoints=True)
    side = package.arch["image_size"]
    pixels = np.random.default_rng(0).integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    chosen = image_files(shipped_photos(name)) if photos else pixels
    with rowvit.open("golden", config=config, checkpoints=True) as golden:
        golden.load(package)
        expected = golden(chosen, batch=images)
    with rowvit.open("sim", config=config, memory=memory) as sim:
        sim.load(program)
        results = sim(chosen, batch=images)
        sim.load(thorough)
        again = sim(chosen, batch=images)
    for result, other, right in zip(results, again, expected, strict=True):
        assert result.same(replace(right, checkpoints={})), f"{name} differs from the reference"
        assert other.same(right), f"{name} with checkpoints differs from the reference"
    predicted = predict(program, hardware, memory, [measured(c) for c in golden.counts], images)
    cycles, fires, macs, macs_dense, seconds = np.mean(
        [
            (r.cycles, r.counters["fires"] / r.batch, e.macs_executed, e.macs_dense, r.seconds)
            for r, e in zip(results, expected, strict=True)
        ],
        axis=0,
    ).tolist()
    available = cycles * hardware.macs_per_cycle
    return Cycles(
        name + " photos" * photos,
        config,
        images,
        str(memory),
        cycles,
        fires * hardware.lanes / available,
        macs / available,
        macs,
        macs_dense,
        results[-1].layer_cycles,
        predicted.layer_cycles,
        seconds,
    )


def main(
    networks: Annotated[list[str] | None, typer.Argument(help="Names; quote 'deit-tiny dense'.")] = None,
    config: Annotated[str, typer.Option(help="Hardware configuration.")] = "pynq-z2",
    images: Annotated[int, typer.Option(help="Images per start.")] = 1,
    latency: Annotated[int, typer.Option(help="Cycles from address to first word.")] = Memory.latency,
    rate: Annotated[int, typer.Option(help="Percent of cycles that carry a word.")] = Memory.rate,
    ideal: Annotated[bool, typer.Option(help="A memory without latency or limit.")] = False,
    photos: Annotated[bool, typer.Option(help="The network's own photos instead of random images.")] = False,
    keep: Record = False,
) -> None:
    """Print cycles, utilisation and simulation speed."""
    memory = MemoryModel(latency=latency, rate=rate, ideal=ideal)
    print(HEADER)
    for number, name in enumerate(networks or NETWORKS):
        with status(f"{name}, {number + 1} of {len(networks or NETWORKS)}: a minute each"):
            found = measure(name, config, memory, images, photos)
        print(found.row(), flush=True)
        if keep:
            record("cycles", found.name, asdict(found), "verilator")


if __name__ == "__main__":
    typer.run(main)
