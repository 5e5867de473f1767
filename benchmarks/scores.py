# SPDX-License-Identifier: Apache-2.0
"""What the scores of tokens choose, beside those of the 8-bit exponentials that P V is made of.

    python benchmarks/scores.py unpruned.safetensors pruned.safetensors --data DATA --name "DeiT-Tiny"

On test photos, by the integer reference: how many of the patches that stay have score 0 and are chosen by
their number, how often the last that stays and the first that goes have the same score, how often the class
is that of the unpruned package, and top-1 where the data has the package's classes; as Markdown rows.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from record import Record, record

from rowvit.formats.package import ModelPackage
from rowvit.measure.accuracy.evaluation import matched
from rowvit.photos import open_data
from rowvit.reference import network, patchify, run
from rowvit.reference.attention import exponentials
from rowvit.reference.primitives import recip
from rowvit.targets.target import read_package

BATCH = 20
token_scores, select = network.token_scores, network.select


def eight_bits(s: np.ndarray) -> np.ndarray:
    """Scores as `rowvit.reference.attention.token_scores`, of exponentials in 8 bits."""
    e = exponentials(s).astype(np.int64)
    n, r = recip(e.sum(axis=-1, keepdims=True))
    found: np.ndarray = ((e * r) >> (n - 4)).sum(axis=0)
    return found


class Chosen:
    """`select`, counting what it chooses by number."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, scores: np.ndarray, keep: int, threshold: int = 0) -> np.ndarray:
        rows = select(scores, keep, threshold)
        stay = scores[rows[1:]]
        gone = np.delete(scores, rows)
        tied = stay.min() == gone.max() if gone.size and stay.size else False
        self.counts += Counter(kept=stay.size, zero=int((stay == 0).sum()), prunings=1, tied=int(tied))
        if tied:
            self.counts["by_number"] += int((stay == stay.min()).sum())
        return rows


def classes(package: ModelPackage, pixels: np.ndarray) -> np.ndarray:
    """Classes of photos [B, S, S, 3]."""
    parts = range(0, len(pixels), BATCH)
    side = package.arch["patch_size"]
    images = [one for at in parts for one in run(package, patchify(pixels[at : at + BATCH], side))]
    return np.array([image.logits.argmax() for image in images])


def main(
    unpruned: Annotated[str, typer.Argument(help="A package.")],
    pruned: Annotated[list[str], typer.Argument(help="The same with token pruning.")],
    data: Annotated[Path, typer.Option(help="As for rowvit eval.")],
    name: Annotated[str, typer.Option(help="What the records are called.")],
    tests: Annotated[int, typer.Option(help="Test photos.")] = 2000,
    keep: Record = False,
) -> None:
    """Print a row for each package and way to score."""
    dense = read_package(unpruned)
    photos = open_data(data, "test", False).subset(tests)
    if labelled := set(photos.classes) <= set(dense.meta["classes"]):
        photos = matched(photos, name, dense.meta["classes"], None)
    pixels = photos.prepared(dense.arch["image_size"], **scaling(dense.meta))
    expected = classes(dense, pixels)
    for file in pruned:
        package = read_package(file)
        for way, scores in (("8 bits", eight_bits), ("now", token_scores)):
            network.token_scores, network.select = scores, (chosen := Chosen())
            found = classes(package, pixels)
            counts = chosen.counts
            figures = {
                "photos": len(pixels),
                "zero": 100 * counts["zero"] / counts["kept"],
                "tied": 100 * counts["tied"] / counts["prunings"],
                "by_number": 100 * counts["by_number"] / counts["kept"],
                "same": 100 * float((found == expected).mean()),
            }
            if labelled:
                figures["top1"] = 100 * float((found == photos.labels).mean())
            shown = " | ".join(f"{value:.2f}" for value in list(figures.values())[1:])
            print(f"| {name}, {Path(file).stem}, {way} | {shown} |", flush=True)
            if keep:
                record("scores", f"{name}, {Path(file).stem}, {way}", figures)


def scaling(meta: dict[str, Any]) -> dict[str, Any]:
    """How a package's photos are scaled."""
    return {"resize": meta["preprocessing"]["resize"], "crop": meta["preprocessing"].get("crop", 1.0)}


if __name__ == "__main__":
    typer.run(main)
