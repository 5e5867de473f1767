# SPDX-License-Identifier: Apache-2.0
"""What a network sees of a photo: the photo as ``rowvit run`` shows it, and crops and mirrors of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rowvit.decoding import Refused, decoded
from rowvit.formats.description import image_shape
from rowvit.images import FILTERS, decode
from rowvit.photos import File, encoded

_SMALLEST = 0.5  # share of the photo's middle that a crop has


def views(file: File, meta: Mapping[str, Any], count: int, flip: bool, seed: int) -> NDArray[np.uint8]:
    """Views of a photo.

    Parameters
    ----------
    file : path, bytes or pixels
    meta : mapping
        Description of the network.
    count : int
        The first is the photo as it is; the others are crops, and every second one of them is mirrored.
    flip : bool
        Whether a mirrored photo shows the same.
    seed : int
        Of the crops.

    Returns
    -------
    uint8 array [count, height, width, 3]
    """
    pixels = meta["preprocessing"]
    shape, resize, crop = image_shape(meta["architecture"]), pixels["resize"], pixels.get("crop", 1.0)
    source = encoded(file)
    found = [decode(source, shape, resize, crop)]
    if count > 1:
        rng = np.random.default_rng(seed)
        double = 2 * shape[0], 2 * shape[1]
        large = Image.fromarray(decode(source, double, resize, crop))
        for number in range(1, count):
            side = np.sqrt(rng.uniform(_SMALLEST, 1.0))
            height, width = (round(side * size) for size in double)
            top, left = (
                int(rng.integers(size - part + 1)) for size, part in zip(double, (height, width), strict=True)
            )
            part = large.resize(shape[::-1], FILTERS[resize], (left, top, left + width, top + height))
            own = np.asarray(part)
            found.append(own[:, ::-1] if flip and number % 2 else own)
    return np.stack(found)


def all_views(
    files: Sequence[File], meta: Mapping[str, Any], count: int, flip: bool, refused: Refused
) -> Iterator[NDArray[np.uint8]]:
    """The views of every photo, decoded in threads; ``refused`` gets those that cannot be."""

    def made(number: int) -> NDArray[np.uint8]:
        return views(files[number], meta, count, flip, number)

    yield from decoded(range(len(files)), made, refused=refused)


def chunks(parts: Iterator[NDArray[np.uint8]], size: int) -> Iterator[list[NDArray[np.uint8]]]:
    """Several photos' views at a time."""
    while taken := [*islice(parts, size)]:
        yield taken
