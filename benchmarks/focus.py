# SPDX-License-Identifier: Apache-2.0
"""Whether the patches that a network keeps show the subject, over a whole test set, as a Markdown table.

    python benchmarks/focus.py sign-digits --data sign_digits_jpeg.npz

The mask is `rowvit.train.subject.subject`, a threshold on colour for subjects before a plain, light
background; no network takes part. A patch is on the subject if at least half of its pixels are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from record import Record, record

from rowvit.photos import open_data
from rowvit.reference import patchify, run
from rowvit.targets.target import read_package
from rowvit.train.subject import on_patches, subject

FINER = 4  # times as many pixels per side for the mask as for the network


def main(
    model: Annotated[str, typer.Argument(help="A package, by name or file.")],
    data: Annotated[Path, typer.Option(help="A labelled set, as for rowvit eval.")],
    keep: Record = False,
) -> None:
    """Print, for each pruning, how many patches are kept and which share of them is on the subject."""
    package, photos = read_package(model), open_data(data, "test")
    side, patch = package.arch["image_size"], package.arch["patch_size"]
    taken = package.meta["preprocessing"]
    how = taken["resize"], taken.get("crop", 1.0)
    steps = package.meta["pruning"]
    kept = np.zeros(len(steps))
    hits = np.zeros(len(steps))
    covered = 0.0
    right = 0
    for index, label in enumerate(photos.labels):
        fine = Image.fromarray(photos.pixels([index], FINER * side, *how)[0])
        share = on_patches(np.asarray(subject(fine))[None], FINER * patch)[0]
        covered += share.mean()
        (result,) = run(package, patchify(photos.pixels([index], side, *how), patch))
        right += result.top1 == label
        for step, tokens in enumerate(result.kept):
            patches = tokens[tokens >= package.arch.get("prefix", 1)] - package.arch.get("prefix", 1)
            kept[step] += len(patches)
            hits[step] += (share[patches] >= 0.5).sum()
    print("| pruning in layer | patches kept | on the subject |\n|---|---|---|")
    print(f"| (all) | {share.size} | {100 * covered / len(photos):.1f} % of the pixels |")
    figures = {"all": {"patches": share.size, "on_subject": 100 * covered / len(photos)}}
    for step, number, hit in zip(steps, kept, hits, strict=True):
        if not number:  # the class token alone stays
            continue
        print(f"| {step['layer']} | {number / len(photos):.1f} | {100 * hit / number:.1f} % |")
        found = {"patches": number / len(photos), "on_subject": 100 * hit / number}
        figures[f"behind layer {step['layer']}"] = found
    for place, found in figures.items() if keep else ():
        record("focus", f"{package.meta['name']} {place}", found)
    print(f"\n{photos.name}: {right} right, {100 * right / len(photos):.2f} %")


if __name__ == "__main__":
    typer.run(main)
