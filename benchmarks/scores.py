# SPDX-License-Identifier: Apache-2.0
"""What the scores of tokens choose, beside those of the 8-bit exponentials that P V is made of.

    python benchmarks/scores.py sign-digits --data sign_digits_jpeg.npz --name "hand signs"

On test photos, by the integer reference: how many of the patches that stay have score 0 and are chosen by
their number, how often the last that stays and the first that goes have the same score, how often the class
is that of the network without pruning, and top-1 where the data has the package's classes; as Markdown rows.
Of equal scores the first patch stays; beside that, the one whose score was higher at the pruning before.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

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


class ByBefore(Chosen):
    """The same where of equal scores the one stays whose score was higher before; for one image at a time."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens, self.before = tokens, np.zeros(tokens)

    def __call__(self, scores: np.ndarray, keep: int, threshold: int = 0) -> np.ndarray:
        super().__call__(scores, keep, threshold)
        before = np.zeros(self.tokens) if len(scores) == self.tokens else self.before
        best = np.lexsort((-before[1:], -scores[1:]))[:keep]
        best = best[scores[1:][best] >= threshold]
        rows = np.concatenate([[0], np.sort(best) + 1])
        self.before = scores[rows]
        return rows


def classes(package: ModelPackage, pixels: np.ndarray, batch: int = BATCH) -> np.ndarray:
    """Classes of photos [B, S, S, 3]."""
    parts = range(0, len(pixels), batch)
    side = package.arch["patch_size"]
    images = [one for at in parts for one in run(package, patchify(pixels[at : at + batch], side))]
    return np.array([image.logits.argmax() for image in images])


def main(
    packages: Annotated[
        list[str],
        typer.Argument(help="Of one network; one without pruning stands for the first without its own."),
    ],
    data: Annotated[Path, typer.Option(help="As for rowvit eval.")],
    name: Annotated[str, typer.Option(help="What the records are called.")],
    tests: Annotated[int, typer.Option(help="Test photos.")] = 2000,
    keep: Record = False,
) -> None:
    """Print a row for each package and way to score."""
    read = {Path(file).stem: read_package(file) for file in packages}
    pruned = {stem: package for stem, package in read.items() if package.meta["pruning"]}
    first = next(iter(read.values()))
    dense = next((package for stem, package in read.items() if stem not in pruned), None)
    dense = dense or ModelPackage(first.meta | {"pruning": []}, first.tensors)
    photos = open_data(data, "test", False).subset(tests)
    if labelled := set(photos.classes) <= set(dense.meta["classes"]):
        photos = matched(photos, name, dense.meta["classes"], None)
    taken = dense.meta["preprocessing"]
    pixels = photos.prepared(dense.arch["image_size"], taken["resize"], taken.get("crop", 1.0))
    expected = classes(dense, pixels)
    for stem, package in pruned.items():
        for way, scores, chosen in (
            ("8 bits", eight_bits, Chosen()),
            ("now", token_scores, Chosen()),
            ("ties by the score before", token_scores, ByBefore(package.arch["tokens"])),
        ):
            network.token_scores, network.select = scores, chosen
            found = classes(package, pixels, 1 if isinstance(chosen, ByBefore) else BATCH)
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
            print(f"| {name}, {stem}, {way} | {shown} |", flush=True)
            if keep:
                record("scores", f"{name}, {stem}, {way}", figures)


if __name__ == "__main__":
    typer.run(main)
