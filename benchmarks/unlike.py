# SPDX-License-Identifier: Apache-2.0
"""How often a network says of what it does not know that it is unlike all its classes, as a Markdown table.

    python benchmarks/unlike.py everyday --data sign_digits_jpeg.npz --data CIFAR

Of all test photos of other classes, or so many of them, and of pictures that show nothing. These are
drawn anew: the network was shown others when it learned what its classes look like.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from record import Record, record

from rowvit.formats.description import image_shape
from rowvit.photos import open_data
from rowvit.targets.session import Session
from rowvit.targets.target import read_package
from rowvit.teach.odd import pictures

_SEEDS = 10  # sets of pictures that show nothing


def main(
    package: Annotated[
        str, typer.Argument(help="A package that says when a photo is unlike all its classes.")
    ],
    data: Annotated[list[Path], typer.Option(help="Labelled photos, as for rowvit eval.")],
    photos: Annotated[int, typer.Option(help="Of each set, at most; 0: all.")] = 0,
    keep: Record = False,
) -> None:
    """Print the table."""
    model = read_package(package)
    shape, taken = image_shape(model.arch), model.meta["preprocessing"]
    print("| pictures | number | said to be unlike all, % |")
    print("|---|---|---|")
    with Session(model, "golden") as session:
        for path in data:
            given = open_data(path, "test")
            given = given.subset(photos) if photos else given
            pixels = given.prepared(shape, taken["resize"], taken.get("crop", 1.0))
            _row(session, given.name.split(",")[0], [*pixels], package, keep)
        drawn = [one for seed in range(1, 1 + _SEEDS) for one in pictures(*shape, seed)]
        _row(session, "pictures of nothing", drawn, package, keep)


def _row(session: Session, name: str, images: list, package: str, keep: bool) -> None:
    distances = np.array([result.distance for result in session.run(images, jobs=0)])
    share = 100 * float((distances > 1).mean())
    print(f"| {name} | {len(images):,} | {share:.1f} |")
    if keep:
        record("unlike", f"{Path(package).stem} {name}", {"pictures": len(images), "unlike": share})


if __name__ == "__main__":
    typer.run(main)
