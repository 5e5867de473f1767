# SPDX-License-Identifier: Apache-2.0
"""Photos to the pixels that a network takes."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from rowvit.errors import RowvitError

# by name, as Pillow 9.0 has no Image.Resampling
_ORIENTATION = 0x0112  # of EXIF's tags
FILTERS = {name: getattr(Image, name.upper()) for name in ("bicubic", "bilinear")}


def decode(
    source: str | os.PathLike | bytes, side: int, resize: str = "bicubic", crop: float = 1.0
) -> np.ndarray:
    """Decode one image, crop it to its middle square and scale that.

    A JPEG of twice the size or more is decoded at half, a quarter or an eighth of it, whichever is the
    smallest whose crop still has ``side`` pixels a side; that saves most of the time and memory. Of 16 bits
    per value the upper 8 are taken. A PNG must match its checksums; other formats have none.

    Parameters
    ----------
    source : path or bytes
        Any format that Pillow reads.
    side : int
        Pixels of the result's side.
    resize : str
        "bicubic" or "bilinear".
    crop : float
        Side of the square, as a share of the image's shorter side.

    Returns
    -------
    uint8 array [side, side, 3], RGB

    Raises
    ------
    RowvitError
        The file is missing, damaged, no regular file or no image, larger than Pillow allows, or its values
        have 32 bits, of which nothing says what is black and what is white.
    """
    if resize not in FILTERS:
        raise RowvitError(f"resize filter {resize!r} is not known", f"use one of {', '.join(FILTERS)}")
    square = middle(upright(source, math.ceil(side / crop)), crop)
    return np.asarray(square.resize((side, side), FILTERS[resize]))


def middle(image: Image.Image, crop: float = 1.0) -> Image.Image:
    """The middle square of an image, which is what networks get of it; ``crop`` as of `decode`."""
    square = max(1, round(crop * min(image.size)))
    if image.size == (square, square):  # a crop is a copy
        return image
    left, top = (image.width - square) // 2, (image.height - square) // 2
    return image.crop((left, top, left + square, top + square))


def within(image: Image.Image, crop: float) -> Image.Image:
    """An image without what a network's crop leaves out on all sides; its middle square is the network's."""
    width, height = (max(1, round(crop * size)) for size in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def for_network(source: str | os.PathLike | bytes, meta: dict, frontend: str = "host") -> np.ndarray:
    """Decode one image to what a network's front end takes; `RowvitError` as in `decode`.

    For "host" that is uint8 [S, S, 3] of the size in ``meta``, the network's description; for "hls" the image
    at full size, less what the network's crop leaves out on all sides, since the preprocessor takes the
    middle square of that and scales it.
    """
    pixels = meta["preprocessing"]
    crop = pixels.get("crop", 1.0)
    if frontend == "hls":
        return np.asarray(within(upright(source), crop))
    return decode(source, meta["architecture"]["image_size"], pixels["resize"], crop)


def is_picture(path: Path) -> bool:
    """Whether the name ends like that of a format that Pillow reads."""
    return Image.registered_extensions().get(path.suffix.lower()) in Image.OPEN


def upright(source: str | os.PathLike | bytes, side: int = 0) -> Image.Image:
    """Decode one image, in RGB and turned as its EXIF says; `RowvitError` as in `decode`.

    It has the size that it is stored with; with ``side``, a JPEG may be scaled as `decode` says.
    """
    name = "image" if isinstance(source, bytes) else os.fspath(source)
    if not isinstance(source, bytes) and os.path.exists(source) and not os.path.isfile(source):
        raise RowvitError(f"{name}: is not a regular file", "use image files")  # a pipe might never end
    try:
        with _open(source) as image:
            if side:
                image.draft("RGB", (side, side))  # of other formats it does nothing
            image.load()
            turned = ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image
            if turned.mode == "RGB":
                return turned
            # Pillow would clip what is more than 255
            sixteen = turned.mode.startswith("I;16") or (turned.mode == "I" and image.format == "PNG")
            if sixteen:
                return Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8)).convert("RGB")
            if turned.mode in ("I", "F"):
                raise RowvitError(
                    f"{name}: has 32 bits per value, of unknown range", "convert it to 8 or 16 bits"
                )
            return turned.convert("RGB")
    except FileNotFoundError as error:
        raise RowvitError(f"{name}: no such file") from error
    except RowvitError:
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6  # below, Pillow warns from the half on
        raise RowvitError(f"{name}: has more than {limit:.0f} million pixels", "scale it down") from error
    except Exception as error:  # a damaged file makes Pillow's readers raise anything
        raise RowvitError(
            f"{name}: cannot be decoded as an image", "use a complete JPEG or PNG file"
        ) from error


def _open(source: str | os.PathLike | bytes) -> Image.Image:
    """A PNG's checksums are compared, too: nobody looks at them while it is decoded."""

    def again() -> Image.Image:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)

    image = again()
    if image.format == "PNG":
        with image:
            image.verify()
        return again()
    return image
