# SPDX-License-Identifier: Apache-2.0
"""What reducing large photos and frames (docs/numerics.md, section 9) costs in accuracy, as a Markdown table.

    python benchmarks/scaling.py sign-digits --data sign_digits_jpeg.npz

Every test photo is enlarged to the height of a camera's frame, gets noise, and is given to the network as a
JPEG (quality 85) and as frames of RGB and YUYV. Beside it stand the answers to the same pixels, scaled by the
package's filter from their full size.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from record import Record, record

from rowvit.images import FILTERS, for_network
from rowvit.photos import open_data
from rowvit.reference import patchify, run
from rowvit.targets.target import read_package

SIZES = (640, 480), (1920, 1080)


def enlarged(photo: bytes, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """A photo in the middle of a frame, its edges drawn out, with noise of up to 8 levels."""
    square = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB").resize((height, height), Image.BICUBIC))
    pad = (width - height) // 2
    frame = np.pad(square.astype(np.int16), ((0, 0), (pad, pad), (0, 0)), "edge")
    return Image.fromarray((frame + rng.integers(-8, 9, frame.shape)).clip(0, 255).astype(np.uint8))


def yuyv(frame: Image.Image) -> NDArray[Any]:
    """uint8 [height, width, 2], of the full range; a pair has the mean of its two U and V."""
    yuv = np.asarray(frame.convert("YCbCr")).astype(np.uint16)
    found = yuv[:, :, :2].astype(np.uint8)
    for column in (0, 1):
        found[:, column::2, 1] = (yuv[:, 0::2, 1 + column] + yuv[:, 1::2, 1 + column] + 1) >> 1
    return found


def main(
    model: Annotated[str, typer.Argument(help="A package, by name or file.")],
    data: Annotated[Path, typer.Option(help="A labelled set, as for rowvit eval.")],
    keep: Record = False,
) -> None:
    """Print how many photos are recognised, and how many answers are those to pixels that the filter made."""
    package, photos = read_package(model), open_data(data, "test")
    side, patch = package.arch["image_size"], package.arch["patch_size"]
    chosen = FILTERS[package.meta["preprocessing"]["resize"]]
    print("| size | from | recognised | the same answer as by the filter |\n|---|---|---|---|")
    for size in SIZES:
        rng, pixels = np.random.default_rng(0), {name: [] for name in ("filter", "JPEG", "RGB", "YUYV")}
        for photo in photos.files:
            frame, file = enlarged(photo, *size, rng), io.BytesIO()
            frame.save(file, "JPEG", quality=85)
            left = (size[0] - size[1]) // 2
            square = frame.crop((left, 0, left + size[1], size[1]))
            pixels["filter"].append(np.asarray(square.resize((side, side), chosen)))
            pixels["JPEG"].append(for_network(file.getvalue(), package.meta))
            pixels["RGB"].append(for_network(np.asarray(frame), package.meta))
            pixels["YUYV"].append(for_network(yuyv(frame), package.meta, full_range=True))
        answers = {
            name: np.array([one.top1 for one in run(package, patchify(np.stack(made), patch))])
            for name, made in pixels.items()
        }
        for name, found in answers.items():
            figures = {
                "recognised": int((found == photos.labels).sum()),
                "same": int((found == answers["filter"]).sum()),
                "photos": len(found),
            }
            print(f"| {size[0]} x {size[1]} | {name} | {figures['recognised']} | {figures['same']} |")
            if keep:
                record("scaling", f"{package.meta['name']} {size[0]} {name}", figures)


if __name__ == "__main__":
    typer.run(main)
