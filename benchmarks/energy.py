# SPDX-License-Identifier: Apache-2.0
"""Energy of an image, estimated by activity, as Markdown tables; nothing is measured (docs/energy.md).

    python benchmarks/energy.py                             # those that come with rowvit and DeiT-Tiny's size
    python benchmarks/energy.py deit-tiny --config paper

The counts of the network as it is are those of the simulated RTL, next to the cycle model's; what each saving
does, alone and together, is counted by the model.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import numpy as np
import typer
from cycles import network
from record import Record, record

import rowvit
from rowvit.cli.common import status
from rowvit.cycles import activity, measured
from rowvit.formats.package import ModelPackage
from rowvit.hardware.config import HardwareConfig, load
from rowvit.images import for_network
from rowvit.measure import energy
from rowvit.measure.speed.profile import layer_activity, watched
from rowvit.reference import patchify, run
from rowvit.targets.session import image_files, shipped_photos
from rowvit.targets.target import read_program

NETWORKS = ["sign-digits", "everyday", "deit-tiny"]


def one_image(name: str, package: ModelPackage) -> np.ndarray:
    """The network's first photo, or random pixels [S, S, 3]."""
    if photos := shipped_photos(name):
        return for_network(image_files(photos)[0], package.meta)
    side = package.arch["image_size"]
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def both(package: ModelPackage, image: np.ndarray, config: HardwareConfig) -> list[energy.Estimate]:
    """The energy by the RTL's counts, and by the model's."""
    program, prices = read_program(package, config), energy.load()
    (result,) = run(package, patchify(image[None], package.arch["patch_size"]))
    with rowvit.open("sim", config=config, activity=True) as sim:
        sim.load(program)
        _, _, counters = watched(sim, image)
        counted = layer_activity(sim, counters)
    work = result.counts
    return [
        energy.estimate(config, energy.added(layers), prices, work.macs_executed, work.macs_dense)
        for layers in (counted, activity(program, config, measured(work)))
    ]


def figures(found: energy.Estimate) -> dict[str, float]:
    """Of a record and a row: energies in µJ."""
    parts = {part: asdict(found)[part] / 1e6 for part in ("ddr", "sram", "arithmetic")}
    rates = {"tops_per_watt": found.tops_per_watt, "all_counted": found.tops_per_watt_dense}
    return {**parts, "chip": found.chip / 1e6, "total": found.total / 1e6, **rates}


def row(name: str, values: dict[str, float], *more: str) -> str:
    """In Markdown."""
    shown = ("ddr", "sram", "arithmetic", "total", "tops_per_watt", "all_counted")
    return f"| {name} | " + " | ".join([*(f"{values[key]:.2f}" for key in shown), *more]) + " |"


def main(
    networks: Annotated[list[str] | None, typer.Argument(help="Names; quote 'deit-tiny dense'.")] = None,
    config: Annotated[str, typer.Option(help="Hardware configuration.")] = "pynq-z2",
    keep: Record = False,
) -> None:
    """Print the tables."""
    hardware = load(config)
    for name in networks or NETWORKS:
        package = network(name)
        image = one_image(name, package)
        with status(f"{name}: simulating an image"):
            rtl, model = both(package, image, hardware)
        saved = energy.savings(package, image, hardware, energy.load())
        print(f"{name} on {config}, {energy.LABEL}, energies in µJ, at {energy.load().process}\n")
        print("| skipped | DDR | SRAM | arithmetic | sum | TOPS/W | all counted | of dense |")
        print("|---|---|---|---|---|---|---|---|")
        dense = saved["dense"]
        for skipped, one in saved.items():
            found = figures(one) | {
                "percent_of_dense": 100 * one.total / dense.total,
                "times": dense.total / one.total,
                "times_chip": dense.chip / one.chip,
            }
            print(row(skipped, found, f"{found['percent_of_dense']:.1f} %"), flush=True)
            if keep:
                record("energy", f"{config} {name}, {skipped}", found)
        error = 100 * (model.total / rtl.total - 1)
        print(row("as it is, simulated RTL", figures(rtl), f"model {error:+.2f} %"), "\n", flush=True)
        if keep:
            own = {"model": model.total / 1e6, "error_percent": error}
            record("energy", f"{config} {name}, simulated", figures(rtl) | own, "verilator")


if __name__ == "__main__":
    typer.run(main)
