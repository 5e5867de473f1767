# SPDX-License-Identifier: Apache-2.0
"""Cycles that the cycle model predicts for programs: of published networks, and of small ones that are drawn.

    python benchmarks/schedules.py --record    # after a change that costs or saves cycles on purpose

No data and no simulation: seconds. A test compares them with what was recorded, so that no change of the
compiler costs cycles unseen (tests/network/test_schedules.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from record import Record, record

from rowvit.compiler import compile
from rowvit.cycles import predict
from rowvit.formats.program import Program
from rowvit.hardware.config import HardwareConfig, load
from rowvit.quant.synthetic import PRESETS, preset_package
from rowvit.targets.target import read_package

sys.path.append(str(Path(__file__).parents[1] / "tests" / "network"))
from draws import ARRAYS, case

#: configuration and network
PUBLISHED = [
    ("pynq-z2", "deit-tiny dense"),
    ("pynq-z2", "deit-tiny"),
    ("pynq-z2", "sign-digits"),
    ("pynq-z2", "deit-small"),
    ("pynq-z2-257", "vit-small-14"),
    ("kv260", "deit-tiny"),
]
DRAWN = range(12)


def cycles(program: Program, config: HardwareConfig) -> dict[str, list[int]]:
    """Of every pass, by its images: the embedding, every layer and the head of the last image."""
    counts = [part.images for part in program.passes]
    return {f"x{images}": predict(program, config, images=images).layer_cycles for images in counts}


def published(config: str, name: str) -> dict[str, list[int]]:
    """Figures of a published network."""
    preset, _, variant = name.partition(" ")
    package = preset_package(preset, variant == "dense") if preset in PRESETS else read_package(name)
    return cycles(compile(package, load(config)), load(config))


def drawn(array: str, number: int) -> dict[str, list[int]]:
    """Figures of a network drawn for an array."""
    one = case(array, number)
    return cycles(one.program, one.config)


def main(keep: Record = False) -> None:
    """Print cycles."""
    found = {f"{config} {name}": published(config, name) for config, name in PUBLISHED}
    found |= {f"drawn for {array}": {str(n): drawn(array, n) for n in DRAWN} for array in ARRAYS}
    for name, figures in found.items():
        print(name, figures)
        if keep:
            record("schedules", name, figures)


if __name__ == "__main__":
    typer.run(main)
