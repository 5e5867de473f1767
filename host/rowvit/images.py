# SPDX-License-Identifier: Apache-2.0
"""Photos to the pixels that a network takes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps

from rowvit.errors import RowvitError
from rowvit.quant.package import ModelPackage

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def decode(source: str | os.PathLike | bytes, side: int, resize: str = "bicubic") -> np.ndarray:
    """Decode one image, cut its middle to a square and scale it.

    Parameters
    ----------
    source : path or bytes
        Any format that Pillow reads.
    side : int
        Pixels of the result's side.
    resize : str
        "bicubic" or "bilinear".

    Returns
    -------
    uint8 array [side, side, 3], RGB

    Raises
    ------
    RowvitError
        If the file is missing, truncated or no image.
    """
    if resize not in _FILTERS:
        raise RowvitError(f"Resize filter {resize!r} is not known; use one of {', '.join(_FILTERS)}.")
    image = _open(source)
    square = min(image.size)
    left, top = (image.width - square) // 2, (image.height - square) // 2
    image = image.crop((left, top, left + square, top + square))
    return np.asarray(image.resize((side, side), _FILTERS[resize]))


def frame(source: str | os.PathLike | bytes) -> np.ndarray:
    """Decode one image as it is, as uint8 [height, width, 3] RGB; `RowvitError` as in `decode`."""
    return np.asarray(_open(source))


def _open(source: str | os.PathLike | bytes) -> Image.Image:
    name = "image" if isinstance(source, bytes) else os.fspath(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError as error:
        raise RowvitError(f"{name}: no such file.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RowvitError(f"{name}: cannot be decoded as an image; give a whole JPEG or PNG file.") from error


def load(sources: Iterable[str | os.PathLike | bytes], package: ModelPackage) -> np.ndarray:
    """Images uint8 [B, S, S, 3] as ``package`` takes them; `RowvitError` as in `decode`."""
    side, resize = package.arch["image_size"], package.meta["preprocessing"]["resize"]
    return np.stack([decode(source, side, resize) for source in sources])
