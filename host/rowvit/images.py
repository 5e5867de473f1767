# SPDX-License-Identifier: Apache-2.0
"""Photos to the pixels that a network takes."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from rowvit.errors import RowvitError
from rowvit.formats.description import Size, image_shape, sides

_ORIENTATION = 0x0112  # of EXIF's tags
_LYING = (5, 6, 7, 8)  # its values where a photo is stored on its side
# by name, as Pillow 9.0 has no Image.Resampling and no Image.Transform
FILTERS = {name: getattr(Image, name.upper()) for name in ("bicubic", "bilinear")}
_AFFINE = vars(Image)["AFFINE"]
_WORD = np.dtype("<u4")
_LIMITED = [
    min(max(base + (510 * (value - offset) + span) // (2 * span), 0), 255)
    for base, offset, span in ((0, 16, 219), (128, 128, 224), (128, 128, 224))
    for value in range(256)
]  # Y, U and V of the limited range to the full one, rounded half up


def decode(
    source: str | os.PathLike | bytes, size: Size, resize: str = "bicubic", crop: float = 1.0
) -> np.ndarray:
    """Decode one image, crop it to its middle square or rectangle and scale that (numerics.md, section 9).

    A JPEG of twice the size or more is decoded at half, a quarter or an eighth of it, whichever is the
    smallest whose crop still has all pixels of the result; that saves most of the time and memory. Of 16 bits
    per value the upper 8 are taken. A PNG must match its checksums; other formats have none.

    Parameters
    ----------
    source : path or bytes
        Any format that Pillow reads.
    size : int or tuple of int
        Pixels of the result's side, or its height and width.
    resize : str
        "bicubic" or "bilinear": how images of less than twice the size are scaled.
    crop : float
        Side of the square, as a share of the image's shorter side; of a rectangle likewise.

    Returns
    -------
    uint8 array [height, width, 3], RGB

    Raises
    ------
    RowvitError
        The file is missing, damaged, no regular file or no image, larger than Pillow allows, or its values
        have 32 bits, of which nothing says what is black and what is white.
    """
    if resize not in FILTERS:
        raise RowvitError(f"resize filter {resize!r} is not known", f"use one of {', '.join(FILTERS)}")
    shape = sides(size)
    image, reduced = _load(source, before_crop(shape, crop))
    part = middle(image, shape, crop)
    if reduced or _is_large(part.height, part.width, shape):
        return _rgb(_cells(_thinned(part, shape), shape))
    return np.asarray(part.resize(shape[::-1], FILTERS[resize]))


def before_crop(shape: tuple[int, int], crop: float) -> tuple[int, int]:
    """Height and width of which ``crop`` leaves at least a shape."""
    height, width = (math.ceil(side / crop) for side in shape)
    return height, width


def middle(image: Image.Image, shape: tuple[int, int], crop: float = 1.0) -> Image.Image:
    """What a network gets of an image: its middle rectangle of ``shape``'s ratio; ``crop`` as of `decode`."""
    box = _middle(*image.size, shape, crop)
    return image if box == (0, 0, *image.size) else image.crop(box)  # a crop is a copy


def within(image: Image.Image, crop: float) -> Image.Image:
    """The middle square, and one line more where that keeps it in the middle: the preprocessor finds it."""
    left, top, _, _ = _middle(*image.size, (1, 1), crop)
    return image.crop((left, top, image.width - left, image.height - top))


def _middle(width: int, height: int, shape: tuple[int, int], crop: float) -> tuple[int, int, int, int]:
    """The middle rectangle that a network of ``shape`` gets: left, top, right, below."""
    down, across = shape
    if width * down <= height * across:  # the photo's width is the limit
        columns = max(1, round(crop * width))
        rows = max(1, _share(columns, down, across))
    else:
        rows = max(1, round(crop * height))
        columns = max(1, _share(rows, across, down))
    left, top = (width - columns) // 2, (height - rows) // 2
    return left, top, left + columns, top + rows


def _share(count: int, part: int, whole: int) -> int:
    """``count * part / whole``, rounded half up."""
    return (2 * count * part + whole) // (2 * whole)


def _is_large(rows: int, columns: int, shape: tuple[int, int]) -> bool:
    """Whether pixels are reduced in integers to ``shape``, and not scaled by Pillow."""
    return rows >= 2 * shape[0] and columns >= 2 * shape[1]


def for_network(
    source: str | os.PathLike | bytes | np.ndarray,
    meta: Mapping[str, Any],
    frontend: str = "host",
    full_range: bool = False,
) -> np.ndarray:
    """One image as a network's front end takes it (numerics.md, section 9).

    Parameters
    ----------
    source : path, bytes or uint8 array [height, width, 3] or [height, width, 2]
        A file or its contents, such as a frame of a camera's MJPEG; RGB; or a camera's YUYV: Y, and U in even
        columns, V in odd ones.
    meta : mapping
        Description of the network's package or program.
    frontend : str
        "host" or "hls".
    full_range : bool
        Whether YUYV has 0 to 255 for black to white, as in JPEG; else 16 to 235, as V4L2 has it by default.

    Returns
    -------
    uint8 array [height, width, 3], RGB
        For "host", of the network's size; for "hls" what the preprocessor scales: of RGB a view.

    Raises
    ------
    RowvitError
        As by `decode`; or the array is no frame.
    """
    pixels, shape = meta["preprocessing"], image_shape(meta["architecture"])
    resize, crop = pixels["resize"], pixels.get("crop", 1.0)
    if isinstance(source, np.ndarray):
        _check(source)
        if source.shape[2] == 2:
            return _of_yuyv(source, shape, resize, crop, frontend, full_range)
        return _of_rgb(source, shape, resize, crop, frontend)
    if frontend == "hls":
        return np.asarray(within(upright(source, before_crop(shape, crop)), crop))
    return decode(source, shape, resize, crop)


def is_picture(path: Path) -> bool:
    """Whether the name ends like that of a format that Pillow reads."""
    return Image.registered_extensions().get(path.suffix.lower()) in Image.OPEN


def upright(source: str | os.PathLike | bytes, enough: Size = 0) -> Image.Image:
    """Decode one image, in RGB and turned as its EXIF says; `RowvitError` as in `decode`.

    It has the size that it is stored with, or where that is more than ``enough``, a JPEG may be scaled as
    `decode` says.
    """
    return _load(source, sides(enough))[0]


def _load(source: str | os.PathLike | bytes, enough: tuple[int, int]) -> tuple[Image.Image, bool]:
    """As `upright`, and whether it was scaled."""
    name = "image" if isinstance(source, bytes) else os.fspath(source)
    if not isinstance(source, bytes) and os.path.exists(source) and not os.path.isfile(source):
        raise RowvitError(f"{name}: is not a regular file", "use image files")  # a pipe might never end
    try:
        with _open(source) as image:
            stored = image.size
            if all(enough):
                lies = enough[0] != enough[1] and image.getexif().get(_ORIENTATION, 1) in _LYING
                image.draft("RGB", enough if lies else enough[::-1])  # of other formats it does nothing
            reduced = image.size != stored
            image.load()
            turned = ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image
            if turned.mode == "RGB":
                return turned, reduced
            # Pillow would clip what is more than 255
            sixteen = turned.mode.startswith("I;16") or (turned.mode == "I" and image.format == "PNG")
            if sixteen:
                return Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8)).convert("RGB"), reduced
            if turned.mode in ("I", "F"):
                raise RowvitError(
                    f"{name}: has 32 bits per value, of unknown range", "convert it to 8 or 16 bits"
                )
            return turned.convert("RGB"), reduced
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


# -- frames of cameras --------------------------------------------------------------------------------


def _check(frame: np.ndarray) -> None:
    """`RowvitError` if an array is no frame."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] not in (2, 3) or not frame.size:
        raise RowvitError(
            f"a frame is {frame.dtype} {[*frame.shape]}",
            "pass uint8 [height, width, 3] in RGB or [height, width, 2] in YUYV",
        )
    if frame.shape[2] == 2 and frame.shape[1] % 2:
        raise RowvitError(
            f"a YUYV frame has {frame.shape[1]} columns, an odd number",
            "pass whole pairs: they share U and V",
        )


def _of_rgb(frame: np.ndarray, shape: tuple[int, int], resize: str, crop: float, frontend: str) -> np.ndarray:
    """The pixels that a lossless file of the frame has."""
    height, width = frame.shape[:2]
    left, top, right, below = _middle(width, height, shape, crop)
    if frontend == "hls":
        return frame[top : height - top, left : width - left]
    rows, columns = below - top, right - left
    if not _is_large(rows, columns, shape):
        image = Image.fromarray(frame[top:below, left:right])
        return np.asarray(image.resize(shape[::-1], FILTERS[resize]))
    (y, step_y, down), (x, step_x, across) = _reduced(rows, shape[0]), _reduced(columns, shape[1])
    words = _blocks(frame, (top + y, left + x), (3 * width, 3), (step_y, step_x), (down, across))
    return _rgb(_cells(words, shape))


def _of_yuyv(
    frame: np.ndarray, shape: tuple[int, int], resize: str, crop: float, frontend: str, full_range: bool
) -> np.ndarray:
    """A pair of columns is one word, Y U Y V; large frames stay in words until they are small."""
    height, width = frame.shape[:2]
    left, top, right, below = _middle(width, height, shape, crop)
    rows, columns = below - top, right - left
    if _is_large(rows, columns, shape):
        (_, step_y, down), (_, step_x, across) = (
            _reduced(rows // 2, shape[0]),
            _reduced(columns // 2, shape[1]),
        )
        first = (height - 2 * step_y * down) // 2, (width // 2 - step_x * across) // 2
        words = _blocks(frame, first, (2 * width, 4), (2 * step_y, step_x), (down, across))
        if frontend == "host":
            words = _cells(words, shape)
        yuv = words.view(np.uint8).reshape(*words.shape, 4)
        one, other = yuv[:, :, 0], yuv[:, :, 2]
        yuv[:, :, 0] = (one | other) - ((one ^ other) >> 1)  # (one + other + 1) >> 1
        yuv[:, :, 2] = yuv[:, :, 3]
        return np.asarray(_converted(yuv, full_range))
    odd = left % 2
    part = frame[top:below, left - odd : right + right % 2]
    yuv = np.zeros((*part.shape[:2], 4), np.uint8)
    yuv[:, :, 0] = part[:, :, 0]
    for column in (0, 1):
        yuv[:, column::2, 1], yuv[:, column::2, 2] = part[:, 0::2, 1], part[:, 1::2, 1]
    image = _converted(np.ascontiguousarray(yuv[:, odd : odd + columns]), full_range)
    return np.asarray(image if frontend == "hls" else image.resize(shape[::-1], FILTERS[resize]))


def _converted(yuv: np.ndarray, full_range: bool) -> Image.Image:
    """BT.601's Y, U, V and any byte, uint8 [height, width, 4], to RGB, by Pillow's tables for JPEG.

    JPEG's range is the full one; V4L2's, by default, the limited one (the manual's "Defining Colorspaces").
    """
    size = yuv.shape[1], yuv.shape[0]
    image = Image.frombuffer("YCbCr", size, yuv, "raw", "YCbCrX", 0, 1)
    return (image if full_range else image.point(_LIMITED)).convert("RGB")


# -- words: a pixel or a pair of YUYV each ------------------------------------------------------------


def _reduced(count: int, side: int) -> tuple[int, int, int]:
    """Along one axis of ``count`` lines: where the first block begins, its lines, and how many there are."""
    step = count // side
    blocks = count // step
    return (count - blocks * step) // 2, step, blocks


def _thinned(image: Image.Image, shape: tuple[int, int]) -> np.ndarray:
    """An RGB image as words of its bytes, R first, uint32, of less than twice ``shape`` along each axis."""
    (top, step_y, down), (left, step_x, across) = map(_reduced, (image.height, image.width), shape)
    if step_y == step_x == 1:
        return _words(image)

    def places(first: int, step: int) -> list[float]:
        """Of both lines of the first block: a pixel's middle, less what Affine adds."""
        return [first + 0.5 - step / 2 + quarter * step // 4 for quarter in (1, 3)]

    lines = []
    for y in places(top, step_y):
        one, other = (
            image.transform((across, down), _AFFINE, (step_x, 0, x, 0, step_y, y))
            for x in places(left, step_x)
        )
        lines.append(_mean(_words(one), _words(other)))
    return _mean(*lines)


def _words(image: Image.Image) -> np.ndarray:
    """Pixels of RGB as words, uint32 [height, width]; their last bytes say nothing."""
    return np.frombuffer(image.tobytes("raw", "RGBX"), _WORD).reshape(image.height, image.width)


def _blocks(
    frame: np.ndarray,
    first: tuple[int, int],
    strides: tuple[int, int],
    steps: tuple[int, int],
    counts: tuple[int, int],
) -> np.ndarray:
    """Mean of four words of each block of a frame: a quarter and three quarters down and across it.

    Parameters
    ----------
    frame : uint8 array
    first, steps : tuple of int
        The first block's place and the size of all, in lines and words.
    strides : tuple of int
        Bytes from line to line and from word to word, which may overlap.
    counts : tuple of int
        Blocks in a column and in a row.

    Returns
    -------
    uint32 array [*counts]
    """
    data = np.ascontiguousarray(frame).reshape(-1)
    by = steps[0] * strides[0], steps[1] * strides[1]
    rows, columns = (
        [start + quarter * step // 4 for quarter in (1, 3)] for start, step in zip(first, steps, strict=True)
    )

    def sample(row: int, column: int) -> np.ndarray:
        nonlocal data
        offset = row * strides[0] + column * strides[1]
        if offset + (counts[0] - 1) * by[0] + (counts[1] - 1) * by[1] + 4 > data.size:
            data = np.append(data, np.uint8(0))  # a word of three bytes at the end
        # one copy of words that are not aligned takes fewer instructions than working on them
        return np.ndarray(counts, _WORD, data, offset, by).copy()

    if columns[0] == columns[1]:  # of a block that is a word wide
        return _mean(*(sample(row, columns[0]) for row in rows))
    return _mean(*(_mean(*(sample(row, column) for column in columns)) for row in rows))


def _cells(words: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Words to fewer, of ``shape``, down to half along each axis: a cell is one line, or the mean of two."""
    for side in shape:  # lines, then columns: whole lines are copied at once
        edges = (2 * np.arange(side + 1) * len(words) + side) // (2 * side)
        first, double = edges[:-1], np.flatnonzero(np.diff(edges) == 2)
        cells = words[first]
        cells[double] = _mean(cells[double], words[first[double] + 1])
        words = np.ascontiguousarray(cells.T)
    return words


def _mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Byte by byte, (a + b + 1) >> 1 of uint32 arrays: four bytes at once, as numpy has no mean of bytes."""
    half = a ^ b
    half >>= 1
    half &= 0x7F7F7F7F
    either = a | b
    either -= half
    return either


def _rgb(words: np.ndarray) -> np.ndarray:
    """Words uint32 [height, width] to uint8 [height, width, 3]."""
    size = words.shape[1], words.shape[0]
    packed = Image.frombuffer("RGBX", size, words, "raw", "RGBX", 0, 1).tobytes("raw", "RGB")
    return np.frombuffer(packed, np.uint8).reshape(*words.shape, 3)
