# SPDX-License-Identifier: Apache-2.0
"""What the search of `rowvit prune` finds, beside the best of three equally spaced blocks at as many cycles.

    python benchmarks/search.py relu.safetensors --data DATA --name "hand signs"

Without training, as Markdown rows: three blocks drop the same share of their tokens, as little as the budget
allows; of all places for them the best by top-1 on training photos or, without labels, by agreement with the
unpruned network. The search has the same photos, and both are measured on test photos that neither has seen.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from record import Record, record

from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.hardware.config import HardwareConfig, load
from rowvit.measure.accuracy import schedules as points
from rowvit.measure.accuracy.evaluation import matched
from rowvit.measure.accuracy.search import Search
from rowvit.model import store
from rowvit.model.vit import VisionTransformer
from rowvit.photos import open_data

SHARES = (0.8, 0.65, 0.5)  #: of the unpruned network's cycles


def spaced(
    network: VisionTransformer,
    card: store.Card,
    package: ModelPackage,
    photos: np.ndarray,
    config: HardwareConfig,
    budget: float,
) -> list[points.Point]:
    """Three equally spaced blocks, at every place where some ratio is within the budget."""
    depth, found = network.config.depth, []
    step = max(1, depth // 4)
    for first in range(step + 2):
        layers = tuple(layer for layer in range(first, first + 3 * step, step) if layer < depth - 1)
        low, high, best = 0.02, 1.0, None
        for _ in range(8):
            rho = (low + high) / 2
            point = points.measure(network, card, package, photos, config, layers, rho)
            if point.cycles <= budget:
                low, best = rho, point
            else:
                high = rho
        found += [best] if best else []
    return found


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
        seen = sets[0].labels if labelled else dense[0]
        truth = sets[1].labels if labelled else dense[1]
        for share in SHARES:
            budget = share * search.point(search.dense).cycles
            tried = spaced(network, card, package, train, hardware, budget)
            found = [float((points.classes(network, card, train, one) == seen).mean()) for one in tried]
            try:
                new = search.within(cycles=budget)
            except RowvitError as error:  # what is left with one token is above it
                print(f"{name}, {share:g} of the cycles: {error.message}", file=sys.stderr)
                continue
            chosen = [tried[max(range(len(tried)), key=found.__getitem__)]] if tried else []
            figures = {"photos": len(test), "budget": budget, "dense": int((dense[1] == truth).sum())}
            for way, one in zip(["spaced"] * len(chosen) + ["searched"], [*chosen, new], strict=True):
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
