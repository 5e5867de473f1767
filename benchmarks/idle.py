# SPDX-License-Identifier: Apache-2.0
"""Where the array has nothing to do in a batch, layer by layer, by the cycle model, as a Markdown table.

    python benchmarks/idle.py deit-tiny --images 8 --config pynq-z2

In the cycles that it multiplies some lane works; the rest of a layer's time is before its operations or
within them.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated

import numpy as np
import typer
from cycles import network
from record import Record, record

from rowvit.compiler import compile
from rowvit.cycles import measured, predict
from rowvit.formats.description import layer_names
from rowvit.hardware.config import load
from rowvit.hardware.isa import Engine
from rowvit.reference import patchify, run


def main(
    name: Annotated[str, typer.Argument(help='A preset ("deit-tiny dense"), or a model.')] = "deit-tiny",
    config: Annotated[str, typer.Option(help="Hardware configuration.")] = "pynq-z2",
    images: Annotated[int, typer.Option(help="Images of the batch.")] = 8,
    keep: Record = False,
) -> None:
    """Print cycles per image."""
    package, hardware = network(name), load(config)
    side, patch = package.arch["image_size"], package.arch["patch_size"]
    pixels = np.random.default_rng(0).integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    counts = [reference.counts for reference in run(package, patchify(pixels, patch))]
    program = compile(package, hardware, batch=images)
    found = predict(program, hardware, statistics=[measured(count) for count in counts], images=images)
    spent: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    before = 0.0
    for piece in (s for s in found.timeline if s.engine is Engine.EXEC):
        layer = spent[piece.layer + 1]
        layer[0] += piece.busy
        layer[1] += max(0.0, piece.start - before)
        layer[2] += max(0.0, piece.end - max(piece.start, before) - piece.busy)
        before = max(before, piece.end)
    shares = program.pass_for(images).shares
    print("| layer | images that share | multiplies | waits before an operation | waits within |")
    print("|---|---|---|---|---|")
    names = layer_names(program.meta)
    for number, layer_name in enumerate(names):
        share = shares[number - 1] if 0 < number < len(names) - 1 else (1 if number == 0 else shares[-1])
        print(f"| {layer_name} | {share} | " + " | ".join(f"{x / images:,.0f}" for x in spent[number]) + " |")
    sums = np.sum(list(spent.values()), axis=0) / images
    print(f"| **{found.total / images:,.0f}** | | " + " | ".join(f"{x:,.0f}" for x in sums) + " |")
    if keep:
        multiplies, before, within = sums.tolist()
        figures = {
            "cycles": found.total / images,
            "multiplies": multiplies,
            "before": before,
            "within": within,
        }
        figures["before_embedding"] = spent[0][1] / images
        record("idle", f"{config} {name} x{images}", figures)


if __name__ == "__main__":
    typer.run(main)
