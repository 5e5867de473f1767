# SPDX-License-Identifier: Apache-2.0
"""Cycles that the cycle model predicts for programs: of published networks, and of small ones that are drawn.
And which images the compiler lets share loads, by batch, wherever a published network fits.

    python benchmarks/schedules.py --record    # after a change that costs or saves cycles on purpose

No data and no simulation: seconds. A test compares them with what was recorded, so that no change of the
compiler costs cycles unseen (tests/network/test_schedules.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from cycles import network
from record import Record, record

from rowvit.compiler import compile
from rowvit.compiler.plan import Plan, problem
from rowvit.compiler.sharing import choose
from rowvit.cycles import predict
from rowvit.formats.package import keep_schedule
from rowvit.formats.program import Program
from rowvit.hardware.config import HardwareConfig, load, names

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
BATCHES = (2, 3, 8)
RATES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def cycles(program: Program, config: HardwareConfig) -> dict[str, list[int]]:
    """Of every pass, by its images: the embedding, every layer and the head of the last image."""
    counts = [part.images for part in program.passes]
    return {f"x{images}": predict(program, config, images=images).layer_cycles for images in counts}


def published(config: str, name: str) -> dict[str, list[int]]:
    """Figures of a published network."""
    return cycles(compile(network(name), load(config)), load(config))


def shares(name: str) -> dict[str, str]:
    """Of a network, also as if it dropped other shares of its tokens: by configuration and batch, the first
    layer of each stage and the images that share from there on.
    """
    meta = network(name).meta
    arch, layers = meta["architecture"], [step["layer"] for step in meta["pruning"]]
    kept = {rate: keep_schedule(arch["tokens"] - arch["prefix"], layers, rate) for rate in RATES if layers}
    found = {}
    for rate, pruning in ({"published": meta["pruning"]} | kept).items():
        for config in names():
            pruned, hardware = meta | {"pruning": pruning}, load(config)
            for batch in () if problem(pruned, hardware) else BATCHES:
                stages = choose(Plan(pruned, hardware), batch)
                text = " ".join(f"{stage.layer}:{stage.images}" for stage in stages)
                found[f"{config} {rate} x{batch}"] = text
    return found


def drawn(array: str, number: int) -> dict[str, list[int]]:
    """Figures of a network drawn for an array."""
    one = case(array, number)
    return cycles(one.program, one.config)


def main(keep: Record = False) -> None:
    """Print cycles and stages."""
    found = {f"{config} {name}": published(config, name) for config, name in PUBLISHED}
    found |= {f"drawn for {array}": {str(n): drawn(array, n) for n in DRAWN} for array in ARRAYS}
    found |= {f"shares of {name}": shares(name) for name in dict(map(reversed, PUBLISHED))}
    for name, figures in found.items():
        print(name, figures)
        if keep:
            record("schedules", name, figures)


if __name__ == "__main__":
    typer.run(main)
