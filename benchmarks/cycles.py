# SPDX-License-Identifier: Apache-2.0
"""Cycles and utilisation on the simulated accelerator, as a Markdown table.

    python benchmarks/cycles.py                      # three rows of docs/results.md
    python benchmarks/cycles.py deit-tiny --images 8 # steady state over a batch

Cycles are exact and repeatable: random images from a seed, and a memory with a given latency and rate. Wall
time and simulated kHz depend on the machine that ran it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer

import rowvit
from rowvit.cli.common import status
from rowvit.formats.package import ModelPackage
from rowvit.hardware.config import load
from rowvit.hardware.memory import Memory
from rowvit.quant.synthetic import PRESETS, preset_package
from rowvit.sim.device import MemoryModel
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
    """``images`` random images in one start of the simulated accelerator.

    Parameters
    ----------
    busy, useful : float
        Shares of ``cycles`` x MACs per cycle: lane-group multiplications, and multiplications of the network.
    macs, macs_dense : int
        Multiplications of all images, as executed, and without pruning and skipping.
    seconds : float
        Wall time of the simulation.
    """

    network: str
    images: int
    memory: str
    cycles: int
    busy: float
    useful: float
    macs: int
    macs_dense: int
    clock_mhz: float
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Simulated cycles x clock."""
        return self.clock_mhz * 1e6 * self.images / self.cycles

    def row(self) -> str:
        """Under `HEADER`."""
        return (
            f"| {self.network} | {self.images} | {self.memory} | {self.cycles // self.images:,} |"
            f" {self.busy:.1%} | {self.useful:.1%} | {self.images_per_second:.1f} |"
            f" {self.cycles / self.seconds / 1e3:.0f} | {self.seconds / self.images:.1f} |"
        )


def measure(name: str, config: str, memory: MemoryModel, images: int) -> Cycles:
    """Simulate, and compare everything with the reference."""
    package, hardware = network(name), load(config)
    side = package.meta["architecture"]["image_size"]
    pixels = np.random.default_rng(0).integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    with rowvit.open("golden", config=config) as golden:
        golden.load(package)
        expected = golden(pixels)
    with rowvit.open("sim", config=config, memory=memory) as sim:
        sim.load(package)
        results = sim(pixels, batch=images)
    assert all(r.same(e) for r, e in zip(results, expected, strict=True)), (
        f"{name} differs from the reference"
    )
    counters = results[-1].counters
    available = counters["cycles"] * hardware.macs_per_cycle
    macs = sum(e.macs_executed for e in expected)
    return Cycles(
        name,
        images,
        str(memory),
        counters["cycles"],
        counters["fires"] * hardware.lanes / available,
        macs / available,
        macs,
        sum(e.macs_dense for e in expected),
        hardware.clock_mhz,
        sum(r.seconds for r in results),
    )


def main(
    networks: Annotated[list[str] | None, typer.Argument(help="Names; quote 'deit-tiny dense'.")] = None,
    config: Annotated[str, typer.Option(help="Hardware configuration.")] = "pynq-z2",
    images: Annotated[int, typer.Option(help="Images per start.")] = 1,
    latency: Annotated[int, typer.Option(help="Cycles from address to first word.")] = Memory.latency,
    rate: Annotated[int, typer.Option(help="Percent of cycles that carry a word.")] = Memory.rate,
    ideal: Annotated[bool, typer.Option(help="A memory without latency or limit.")] = False,
) -> None:
    """Print cycles, utilisation and simulation speed."""
    memory = MemoryModel(latency=latency, rate=rate, ideal=ideal)
    print(HEADER)
    for number, name in enumerate(networks or NETWORKS):
        with status(f"{name}, {number + 1} of {len(networks or NETWORKS)}: half a minute each"):
            row = measure(name, config, memory, images).row()
        print(row, flush=True)


if __name__ == "__main__":
    typer.run(main)
