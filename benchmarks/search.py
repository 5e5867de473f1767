# SPDX-License-Identifier: Apache-2.0
"""What the search of `rowvit prune` finds, beside the best of three equally spaced blocks and seven ratios.

    python benchmarks/search.py relu.safetensors --data DATA --name "hand signs"

Without training: both choose on the same training photos, the regular ones by top-1 or, without labels, by
agreement with the unpruned network, and are measured on test photos that neither has seen, as Markdown rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from record import Record, record

from rowvit.errors import RowvitError
from rowvit.hardware.config import load
from rowvit.measure.accuracy import schedules as points
from rowvit.measure.accuracy.evaluation import matched
from rowvit.measure.accuracy.search import Search
from rowvit.model import store
from rowvit.photos import open_data

RATIOS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
SHARES = (0.8, 0.65, 0.5)  #: of the unpruned network's cycles


def spaced(depth: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """Three equally spaced blocks, at every ratio."""
    step = max(1, depth // 4)
    for first in range(1, step + 2):
        layers = tuple(layer for layer in range(first, first + 3 * step, step) if layer < depth - 1)
        if layers:
            yield from ((layers, rho) for rho in RATIOS)


def main(
    model: Annotated[Path, typer.Argument(help="A float network with ReLU.")],
    data: Annotated[Path, typer.Option(help="As for rowvit prune.")],
    name: Annotated[str, typer.Option(help="What the records are called.")],
    photos: Annotated[int, typer.Option(help="Training photos that both choose on.")] = 500,
    tests: Annotated[int, typer.Option(help="Test photos.")] = 2000,
    config: Annotated[str, typer.Option("--config", "-c")] = "pynq-z2",
    exact: Annotated[bool, typer.Option("--exact", help="Tokens alone, no thresholds.")] = False,
    keep: Record = False,
) -> None:
    """Print a row for each budget."""
    network, card = store.load(model)
    hardware, side = load(config), network.config.image_size
    sets = [
        open_data(data, split, False).subset(count) for split, count in (("train", photos), ("test", tests))
    ]
    labelled = bool(sets[0].classes) and set(sets[0].classes) <= set(card.classes)
    if labelled:
        sets = [matched(one, card.name, card.classes, None) for one in sets]
    train, test = (one.prepared(side, card.resize, card.crop) for one in sets)
    package = points.stand_in(network, card, train, "image")
    with Search(network, card, package, train, hardware, not exact) as search:
        dense = [
            points.classes(network, card, pixels, search.point(search.dense)) for pixels in (train, test)
        ]
        tried = [
            points.measure(network, card, package, train, hardware, *way)
            for way in spaced(network.config.depth)
        ]
        seen = sets[0].labels if labelled else dense[0]
        found = [float((points.classes(network, card, train, one) == seen).mean()) for one in tried]
        truth = sets[1].labels if labelled else dense[1]
        for share in SHARES:
            budget = share * search.point(search.dense).cycles
            fits = [index for index, one in enumerate(tried) if one.cycles <= budget]
            try:
                new = search.within(cycles=budget)
            except RowvitError as error:  # what is left with one token is above it
                print(f"{name}, {share:g} of the cycles: {error.message}", file=sys.stderr)
                continue
            chosen = (
                [tried[max(fits, key=lambda index: (found[index], -tried[index].cycles))]] if fits else []
            )
            figures = {"photos": len(test), "budget": budget, "dense": int((dense[1] == truth).sum())}
            for way, one in zip(("spaced", "searched"), [*chosen, new], strict=True):
                guesses = points.classes(network, card, test, one)
                figures |= {
                    way: int((guesses == truth).sum()),
                    f"{way}_same": int((guesses == dense[1]).sum()),
                }
                figures[f"{way}_cycles"] = one.cycles
                print(
                    f"| {name} | {share:g} | {way} | {one.layers} {one.shares} | {one.cycles:,.0f} |"
                    f" {figures[way] / len(test):.2%} | {figures[f'{way}_same'] / len(test):.2%} |",
                    flush=True,
                )
            if keep:
                record("search", f"{name} {share}", figures, "torch")


if __name__ == "__main__":
    typer.run(main)
