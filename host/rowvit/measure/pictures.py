# SPDX-License-Identifier: Apache-2.0
"""What a network makes of a photo: the patches that are left, where its class token looks, and its classes.

Pillow images and plain values, for a web page as well as for a plot.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rowvit.errors import RowvitError
from rowvit.images import FILTERS, middle, upright
from rowvit.reference.frontend import Geometry

if TYPE_CHECKING:
    from rowvit.targets.target import Result

#: brightness of a dropped patch, relative to the photo's
DIMMED = 0.15
_LOOK, _OPAQUE = "#ff7f0e", 220  # of 255: the photo shines through


@dataclass(frozen=True)
class Look:
    """The class token's attention in one layer."""

    layer: int
    tokens: np.ndarray  #: int64 [n]: original indices of the tokens that enter the layer
    shares: np.ndarray  #: float64 [heads, n]: of the attention of every head, which adds up to 1


def seen(source: str | os.PathLike | bytes, meta: Mapping[str, Any], frontend: str = "host") -> Image.Image:
    """The part of a photo that a network sees, in the photo's own resolution.

    Parameters
    ----------
    source : path or bytes
        As for `images.decode`, and refused as there.
    meta : mapping
        Description of the network's package or program.
    frontend : str
        "host" or "hls": what scales it for the network, and cuts off what.

    Returns
    -------
    Image
        RGB and square, of at least the pixels that the network takes.
    """
    side, patch = (meta["architecture"][key] for key in ("image_size", "patch_size"))
    image = upright(source)
    if frontend == "hls":
        window = Geometry.of(*image.size, side, patch)
        right, below = window.left + window.window_width, window.top + window.window_height
        image = image.crop((window.left, window.top, right, below))
    image = middle(image)
    return (
        image if image.width >= side else image.resize((side, side), FILTERS[meta["preprocessing"]["resize"]])
    )


def remaining(
    photo: Image.Image, kept: np.ndarray, arch: Mapping[str, int], dimmed: float = DIMMED
) -> Image.Image:
    """A photo in which the patches that the network dropped are dimmed.

    Parameters
    ----------
    photo : Image
        Square, such as `seen` returns, or the network's pixels.
    kept : int array
        Tokens that stay, as in ``Result.kept``: the prefix (class token) comes before the patches, which go
        row by row.
    arch : mapping
        The network's "architecture".
    dimmed : float
        Brightness of the dropped patches, relative to the photo.

    Raises
    ------
    RowvitError
        The photo is not square, or a token is outside it.
    """
    stays = _on_photo(photo, kept, np.full(len(kept), 255), arch)
    return Image.composite(photo, _darker(photo, dimmed), stays)


def looks(result: Result, meta: Mapping[str, Any]) -> list[Look]:
    """The class token's attention in every layer, on the tokens that enter it; none on sim and board.

    These are the integers that the reference computes, and the core selects by, over the sum of their row.
    `meta` is the description of the network.
    """
    after = dict(zip((step["layer"] for step in meta["pruning"]), result.kept, strict=True))
    tokens = np.arange(meta["architecture"]["tokens"])
    found = []
    for layer, weights in enumerate(result.attention):
        found.append(Look(layer, tokens, weights / weights.sum(axis=1, keepdims=True, dtype=np.int64)))
        tokens = after.get(layer, tokens)
    return found


def attention(
    photo: Image.Image, look: Look, arch: Mapping[str, int], head: int | None = None
) -> Image.Image:
    """A photo in grey on which patches are the more orange the more the class token attends to them.

    Parameters
    ----------
    photo : Image
        As for `remaining`, which also says what is raised.
    look : Look
        The patch with the most attention is all orange; those that earlier layers dropped are dimmed.
    arch : mapping
    head : int, optional
        By default the mean over the heads.
    """
    shares = look.shares.mean(axis=0) if head is None else look.shares[head]
    patches = look.tokens >= arch["prefix"]
    most = shares[patches].max(initial=0)
    strength = np.rint(_OPAQUE * shares / most) if most else np.zeros(len(shares))
    grey = photo.convert("L").convert("RGB")
    base = remaining(grey, look.tokens, arch)
    return Image.composite(
        Image.new("RGB", photo.size, _LOOK), base, _on_photo(photo, look.tokens, strength, arch)
    )


def classes(result: Result, names: Sequence[Any], count: int = 5) -> list[tuple[str, float]]:
    """The likeliest classes, the likeliest first, and their probabilities."""
    order = np.argsort(-result.probabilities, kind="stable")[:count]
    return [(str(names[i]), float(result.probabilities[i])) for i in order]


def _darker(image: Image.Image, share: float) -> Image.Image:
    return image.point(lambda value: int(value * share))


def _on_photo(
    photo: Image.Image, tokens: np.ndarray, values: np.ndarray, arch: Mapping[str, int]
) -> Image.Image:
    """The values (0 to 255) of the tokens that are patches, each on its patch of the photo; elsewhere 0."""
    grid, prefix = arch["image_size"] // arch["patch_size"], arch["prefix"]
    patches = tokens >= prefix
    if photo.width != photo.height or photo.width < grid or (tokens >= prefix + grid * grid).any():
        raise RowvitError(
            f"a photo of {photo.width} x {photo.height} pixels has no {grid} x {grid} patches, or tokens"
            " beyond them are kept",
            "use the square that this network took",
        )
    table = np.zeros(grid * grid, np.uint8)
    table[tokens[patches] - prefix] = values[patches]
    patch_of = (2 * np.arange(photo.width) + 1) * grid // (2 * photo.width)  # where a pixel's middle is
    return Image.fromarray(table.reshape(grid, grid)[patch_of][:, patch_of])
