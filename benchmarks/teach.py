# SPDX-License-Identifier: Apache-2.0
"""How well classes are learned from a few photos of each, on a complete test set, as a Markdown table.

    python benchmarks/teach.py deit-int8.safetensors --data sign_digits_jpeg.npz
    python benchmarks/teach.py deit-int8.safetensors --data CIFAR --photos 10 --photos 50 --draws 3

The photos are drawn at random from the training photos, several times; of each draw `rowvit.teach` makes a
head, which all test photos judge in float (an int8 head answers alike, as its test holds). Features are the
integer reference's, of every photo that is drawn once.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from record import Record, record
from rich.progress import Progress

from rowvit.photos import Photos, open_data
from rowvit.targets.session import Session
from rowvit.targets.target import read_package
from rowvit.teach.backbone import Backbone
from rowvit.teach.fit import fit
from rowvit.teach.lesson import look


def main(
    package: Annotated[str, typer.Argument(help="The package whose blocks stay as they are.")],
    data: Annotated[Path, typer.Option(help="Labelled photos, as for rowvit train.")],
    photos: Annotated[list[int], typer.Option(help="Of each class.")] = [10, 20, 50],  # noqa: B006
    draws: Annotated[int, typer.Option(help="Of the photos.")] = 5,
    views: Annotated[int, typer.Option(help="Of each photo.")] = 4,
    solver: Annotated[str, typer.Option(help="logistic or ridge.")] = "logistic",
    keep: Record = False,
) -> None:
    """Print the table."""
    backbone = Backbone.of(read_package(package))
    given, test = open_data(data, "train"), open_data(data, "test")
    drawn = {(count, draw): _draw(given.labels, count, draw) for count in photos for draw in range(draws)}
    needed = np.unique(np.concatenate(list(drawn.values())))
    with Session(backbone.package, "golden") as session:
        seen = _seen(session, backbone, given, needed, views)
        (judges,) = _seen(session, backbone, test, np.arange(len(test)), 1).transpose(1, 0, 2)
    place = np.full(len(given), -1)
    place[needed] = np.arange(len(needed))
    print("| photos of a class | top-1, % (least to most) | by cross-validation, % |")
    print("|---|---|---|")
    for count in photos:
        right, told = [], []
        for draw in range(draws):
            own = drawn[count, draw]
            x, labels = seen[place[own]], given.labels[own]
            of = np.repeat(np.arange(len(own)), views)
            found = fit(x.reshape(len(of), -1), labels[of], of, solver)
            right.append(100 * float((found.head.logits(judges).argmax(axis=1) == test.labels).mean()))
            told.append(100 * float((found.probabilities.argmax(axis=1) == labels).mean()))
        print(
            f"| {count} | {np.mean(right):.1f} ({min(right):.1f} to {max(right):.1f}) | {np.mean(told):.1f} |"
        )
        if keep:
            figures = {"top1": np.mean(right), "low": min(right), "high": max(right), "told": np.mean(told)}
            name = f"{Path(package).stem} {data.stem.removesuffix('_jpeg')} {count}"
            record("teach", name, {key: float(value) for key, value in figures.items()}, "scikit-learn")
    print(f"\n{draws} draws from {given.name}; {test.name}; {views} views, {solver} regression")


def _draw(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Numbers of ``count`` photos of each class, ascending."""
    rng = np.random.default_rng(seed)
    own = [rng.permutation(np.flatnonzero(labels == label))[:count] for label in range(labels.max() + 1)]
    return np.sort(np.concatenate(own))


def _seen(session: Session, backbone: Backbone, photos: Photos, chosen: np.ndarray, views: int) -> np.ndarray:
    """What a head sees of views of the chosen photos: [n, views, D]."""
    own = replace(photos, files=[photos.files[i] for i in chosen], labels=photos.labels[chosen])

    def refuse(number: int, error: Exception) -> None:
        raise error

    with Progress() as progress:
        task = progress.add_task(photos.name, total=len(chosen))

        def done(count: int) -> None:
            progress.update(task, completed=count)

        seen = look(own, backbone, partial(session.run, jobs=0), views, True, refuse, done)
    return backbone.seen(seen.values).reshape(len(chosen), views, -1)


if __name__ == "__main__":
    typer.run(main)
