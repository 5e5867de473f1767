# SPDX-License-Identifier: Apache-2.0
"""Pictures that show nothing: plain ones, gradients, noise, stripes, text.

A network makes of them something that may lie among its classes, where distance alone does not tell. So it
is shown some of each kind when it learns what its classes look like (`rowvit.teach.familiar`), and a picture
that is nearer to one of the kinds than to every class is like none of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

EACH = 8  #: pictures of a kind
_LETTERS = "etaoin shrdlu cmfwyp vbgkqj"


def pictures(height: int, width: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """`EACH` pictures [height, width, 3] of every kind, one kind after the other."""
    rng = np.random.default_rng(seed)
    drawn = [kind(rng, height, width) for kind in _KINDS for _ in range(EACH)]
    return [np.broadcast_to(np.clip(one, 0, 255), (height, width, 3)).astype(np.uint8) for one in drawn]


def _colour(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.integers(0, 256, 3).astype(np.float64)


def _plain(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    return _colour(rng)


def _grey(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """A covered lens, or a wall: grey, with the noise of a sensor."""
    return rng.integers(0, 256) + rng.normal(0, rng.uniform(0, 20), (height, width, 3))


def _gradient(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    angle, (rows, columns) = rng.uniform(0, 2 * np.pi), np.indices((height, width)) / max(height, width)
    ramp = np.cos(angle) * rows + np.sin(angle) * columns
    share = (ramp - ramp.min()) / np.ptp(ramp)
    found: NDArray[np.float64] = _colour(rng) * share[..., None] + _colour(rng) * (1 - share[..., None])
    return found


def _noise(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    return rng.uniform(0, 256, (height, width, 3))


def _grey_noise(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    return rng.uniform(0, 256, (height, width, 1))


def _blobs(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Out of focus."""
    side = int(rng.choice([3, 5, 8, 16]))
    few = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    return np.asarray(few.resize((width, height), Image.Resampling.BICUBIC), np.float64)


def _stripes(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Or a checkerboard."""
    rows, columns = np.indices((height, width)) // int(rng.choice([2, 4, 8, 16]))
    way = int(rng.integers(3))
    odd = (rows * (way != 1) + columns * (way != 0)) % 2
    return np.where(odd[..., None], _colour(rng), _colour(rng))


def _text(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    page = Image.new("RGB", (width, height), tuple(int(c) for c in rng.integers(200, 256, 3)))
    draw, ink = ImageDraw.Draw(page), tuple(int(c) for c in rng.integers(0, 80, 3))
    for top in range(2, height, 12):
        draw.text((2, top), "".join(rng.choice(list(_LETTERS), 1 + width // 5)), fill=ink)
    return np.asarray(page, np.float64)


_KINDS: tuple[Callable[[np.random.Generator, int, int], NDArray[np.float64]], ...] = (
    *(_plain, _grey, _gradient, _noise),
    *(_grey_noise, _blobs, _stripes, _text),
)
