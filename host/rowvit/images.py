# SPDX-License-Identifier: Apache-2.0
"""Photos to the pixels that a network takes."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from rowvit import confined, headers
from rowvit.confined.decoder import TURNS
from rowvit.decoding import ROOM, TooLarge, say_once
from rowvit.errors import RowvitError, needs
from rowvit.formats.description import Size, image_shape, sides
from rowvit.headers import Jpeg

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


class NoPicture(RowvitError):
    """A file is none of the `FORMATS`, or of one that nothing here reads."""


def decode(
    source: str | os.PathLike | bytes, size: Size, resize: str = "bicubic", crop: float = 1.0
) -> np.ndarray:
    """Decode one image, crop it to its middle square or rectangle and scale that (numerics.md, section 9).

    A JPEG of twice the size or more is decoded at half, a quarter or an eighth of it, as far as its crop, of
    sides rounded down, still has all pixels of the result; that saves most of the time and memory. Of 9 to 16
    bits per value the upper 8 are taken. A PNG must match its checksums; other formats have none.

    Parameters
    ----------
    source : path or bytes
        One of the `FORMATS`. Of several frames the first is taken, which is said once.
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
    NoPicture
        It is none of the `FORMATS`, or what reads AVIF or HEIC is missing.
    TooLarge
        It takes more memory than pictures may (``decoding.Room``), or is larger than Pillow allows.
    RowvitError
        The file is missing, damaged or no regular file; its values have 32 bits, of which nothing says what
        is black and what is white.
    """
    if resize not in FILTERS:
        raise RowvitError(f"resize filter {resize!r} is not known", f"use one of {', '.join(FILTERS)}")
    shape = sides(size)
    with _opened(source, before_crop(shape, crop)) as (image, reduced):
        left, top, right, below = box = _middle(*image.size, shape, crop)
        if reduced or _is_large(below - top, right - left, shape):
            found = _rgb(_cells(_thinned(image, box, shape), shape))
        else:
            found = np.asarray(image.crop(box).resize(shape[::-1], FILTERS[resize]))
        del image
    return found


def before_crop(shape: tuple[int, int], crop: float) -> tuple[int, int]:
    """Height and width of which ``crop`` leaves at least a shape."""
    height, width = (math.ceil(side / crop) for side in shape)
    return height, width


def middle(image: Image.Image, shape: tuple[int, int], crop: float = 1.0) -> Image.Image:
    """A copy of what a network gets of an image: its middle rectangle of ``shape``'s ratio.

    ``crop`` is as of `decode`.
    """
    return image.crop(_middle(*image.size, shape, crop))


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
        For "host", of the network's size; that a file has no colours is said, once. For "hls" what the
        preprocessor scales: of RGB a view.

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
        with upright(source, before_crop(shape, crop)) as image:
            return _of_rgb(np.asarray(image), shape, resize, crop, frontend)
    found = decode(source, shape, resize, crop)
    if _is_grey(found):
        text = "%s has no colours: a network that learned from colours may be sure of it, and wrong"
        say_once(text, _name(source))
    return found


def _name(source: str | os.PathLike | bytes) -> str:
    return "the image" if isinstance(source, bytes) else os.fspath(source)


def _is_grey(pixels: np.ndarray) -> bool:
    """Whether red, green and blue are alike in uint8 [height, width, 3]; few pixels say so of most photos."""
    return all((part == part[:, :, :1]).all() for part in (pixels[::8, ::8], pixels))


def is_picture(path: Path) -> bool:
    """Whether the name ends like that of one of the `FORMATS`."""
    return path.suffix.lower() in _SUFFIXES


@contextmanager
def upright(source: str | os.PathLike | bytes, enough: Size = 0) -> Iterator[Image.Image]:
    """One image, in RGB and turned as its EXIF says, which is closed at the end.

    It has the size that it is stored with, or where that is more than ``enough``, a JPEG may be scaled as
    `decode` says. Until the end it takes part of the memory that pictures may take, with as much again for
    what is made of it.

    Raises
    ------
    RowvitError
        As by `decode`.
    """
    with _opened(source, sides(enough), copies=1) as (image, _):
        yield image
        del image


# -- files and memory ---------------------------------------------------------------------------------

#: names of files by Pillow's names of formats: what cameras, phones and scanners write, and browsers show.
#: Others run programs, or say late how large they are
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
}
_SUFFIXES = {suffix for suffixes in FORMATS.values() for suffix in suffixes}
_SCALED = ("JPEG", "MPO")  # which decoders scale; MPO is Pillow's name of a JPEG with others behind it
_FRAMES = ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "HEIF")  # which may have several; MPO's are previews
_EXIF = 1_000_000  # bytes of it, at most: cameras write 64 kB
_AVIF, _HEIC = {b"avif", b"avis"}, {b"heic", b"heix", b"heim", b"heis", b"mif1"}  # brands of ISO files
#: bytes for each pixel that decoders hold beside the pixels, as measured (docs/numerics.md, section 9)
_HELD = {"WEBP": 12, "AVIF": 12, "HEIF": 9}
#: tags of TIFF: bits of a value, how colours are coded, values of a pixel, lines of a strip, sides of a tile
_BITS, _COLOURS, _VALUES, _ROWS, _TILE_WIDTH, _TILE_HEIGHT = 258, 262, 277, 278, 322, 323


@contextmanager
def _opened(
    source: str | os.PathLike | bytes, enough: tuple[int, int], copies: int = 0
) -> Iterator[tuple[Image.Image, bool]]:
    """As `upright`, and whether it was scaled; with room for ``copies`` of it."""
    name = _name(source)
    if not isinstance(source, bytes) and os.path.exists(source) and not os.path.isfile(source):
        raise RowvitError(f"{name}: is not a regular file", "use image files")  # a pipe might never end
    with ExitStack() as room:
        image, reduced = _loaded(source, name, enough, copies, room)
        with closing(image):
            yield image, reduced
        del image  # with what its reader holds, before the room is given back


def _loaded(
    source: str | os.PathLike | bytes, name: str, enough: tuple[int, int], copies: int, room: ExitStack
) -> tuple[Image.Image, bool]:
    """As of `_opened`; nothing is decoded before ``room`` holds what that takes."""
    try:
        with _begun(source, name) as (data, file, frame):
            stored, form = file.size, str(file.format)
            if form in _FRAMES and getattr(file, "is_animated", False):
                which = "main one" if form == "HEIF" else "first"
                say_once(f"%s has several frames, of which the {which} is taken", name)
            if form in _SCALED and (frame is None or frame.size != stored):
                raise ValueError("its decoder would find another size than Pillow, which makes the room")
            if all(enough) and form in _SCALED:
                lies = enough[0] != enough[1] and _orientation(file, name) in _LYING
                file.draft("RGB", enough if lies else enough[::-1])
            reduced = file.size != stored
            needed = _bytes(file, name, data, stored, frame)
            apart = confined.PROCESS if form in confined.FORMATS else 0
            with _named(f"{name}: {form} of {stored[0]:,} x {stored[1]:,} pixels"):
                room.enter_context(ROOM.taken(apart + needed + 4 * copies * file.width * file.height))
                if apart:
                    return confined.decode(data, form, stored, needed), False
            file.load()
            return _in_rgb(file, name), reduced
    except FileNotFoundError as error:
        raise RowvitError(f"{name}: no such file") from error
    except RowvitError:
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6  # below, Pillow warns from the half on
        raise TooLarge(f"{name}: has more than {limit:.0f} million pixels", "scale it down") from error
    except MemoryError as error:
        raise TooLarge(f"{name}: there is no memory to decode it", "scale it down") from error
    except UnidentifiedImageError as error:
        raise NoPicture(f"{name}: is no picture", f"use one of {', '.join(FORMATS)}") from error
    except Exception as error:  # a damaged file makes Pillow's readers raise anything
        raise RowvitError(
            f"{name}: cannot be decoded as an image", "use a complete file, or save it as JPEG"
        ) from error


@contextmanager
def _begun(
    source: str | os.PathLike | bytes, name: str
) -> Iterator[tuple[BinaryIO, Image.Image, Jpeg | None]]:
    """A file, what has read its start, and a JPEG's frame."""
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as data:
        with _named(f"{name}:"):
            frame = headers.read(data)
        with _reader(data, name) as file:
            yield data, file, frame


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Sentences of errors begin with what they are about."""
    try:
        yield
    except RowvitError as error:
        raise type(error)(f"{what} {error.message}", error.advice) from error


def _reader(data: BinaryIO, name: str) -> Image.Image:
    """What has read the start of a file; a PNG's checksums are compared: nobody does that while decoding."""

    def again() -> Image.Image:
        data.seek(0)
        return Image.open(data, formats=[form for form in FORMATS if form in Image.OPEN])

    Image.preinit()
    try:
        image = again()
    except UnidentifiedImageError:  # of the readers of the commonest formats
        Image.init()
        _require_reader(data, name)
        image = again()
    if image.format == "PNG":
        with image:
            image.verify()
        return again()
    return image


def _require_reader(data: BinaryIO, name: str) -> None:
    """`NoPicture` if what reads AVIF or HEIC is missing, and this is one of them."""
    data.seek(0)
    head = data.read(32)
    # the brand, and those that the file is compatible with: of AVIF they may be HEIC's, too
    brands = {head[i : i + 4] for i in (8, *range(16, 32, 4))} if head[4:8] == b"ftyp" else set()
    try:
        if brands & _AVIF:
            with needs(f"{name}: AVIF needs Pillow 11.3 or later", "'pillow>=11.3'"):
                from PIL import _avif  # noqa: F401
        elif brands & _HEIC and "HEIF" not in Image.OPEN:
            with needs(f"{name}: HEIC needs the package pillow-heif", "'rowvit[heic]'"):
                from pillow_heif import register_heif_opener
            register_heif_opener()
    except RowvitError as error:
        raise NoPicture(error.message, error.advice) from error


def _orientation(image: Image.Image, name: str) -> int:
    """How EXIF says that a picture lies; `TooLarge` if to read that might take any memory."""
    if (size := len(image.info.get("exif") or b"")) > _EXIF:
        raise TooLarge(f"{name}: has {size / 1e6:.0f} MB of EXIF", "save it anew, without it")
    found = image.getexif().get(_ORIENTATION, 1)
    return found if isinstance(found, int) else 1


def _bytes(file: Image.Image, name: str, data: BinaryIO, stored: tuple[int, int], frame: Jpeg | None) -> int:
    """Memory that decoding takes at most, and `_in_rgb` then.

    ``stored`` is the size in the file, and ``frame`` a JPEG's.
    """
    form, whole = file.format, stored[0] * stored[1]
    found = _HELD.get(str(form), 0) * whole
    packed = form == "TIFF" and file.info.get("compression") != "raw"
    if packed or form in _HELD:  # which are read in large parts, or as a whole
        at = data.tell()
        found += data.seek(0, os.SEEK_END)
        data.seek(at)
    if frame is not None and frame.whole:  # coefficients of 16 bits
        most = max(h for h, _ in frame.sampling) * max(v for _, v in frame.sampling)
        found += sum(2 * whole * h * v // most for h, v in frame.sampling)
    if packed:  # a strip or a tile
        tags = vars(file)["tag_v2"]
        bits, values = tags.get(_BITS, (1,)), tags.get(_VALUES, 1)
        width, height = max(stored[0], tags.get(_TILE_WIDTH, 0)), tags.get(_TILE_HEIGHT, 0)
        height = height or min(stored[1], tags.get(_ROWS, stored[1]))
        found += width * height * (4 if tags.get(_COLOURS) == 6 else -(-max(bits) * values // 8))
    # a PNG may say behind its pixels that it is turned, and to look there decodes it
    turned = form == "PNG" or _orientation(file, name) != 1
    return found + 4 * file.width * file.height * (2 if turned or file.mode != "RGB" else 1)


def _in_rgb(image: Image.Image, name: str) -> Image.Image:
    """Turned as its EXIF says, and in RGB; each step gives back what the one before has made."""
    form, tags = image.format, vars(image).get("tag_v2", {}) if image.format == "TIFF" else {}
    bits, inverse = max(tags.get(_BITS, (16,))), tags.get(_COLOURS) == 0  # of TIFF: 0 may be white
    if (turn := TURNS.get(_orientation(image, name))) is not None:
        turned = image.transpose(turn)  # and no EXIF is written anew, whose other tags may be damaged
        image.close()
        image = turned
    if image.mode == "RGB":
        return image
    # Pillow would clip what is more than 255
    if image.mode.startswith("I;16") or (image.mode == "I" and form in ("PNG", "PPM")):
        grey = (np.asarray(image) >> max(bits - 8, 0)).astype(np.uint8)
        found = Image.fromarray(~grey if inverse else grey).convert("RGB")
    elif image.mode in ("I", "F"):
        raise RowvitError(f"{name}: has 32 bits per value, of unknown range", "convert it to 8 or 16 bits")
    else:
        found = image.convert("RGB")
    image.close()
    return found


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


def _thinned(image: Image.Image, box: tuple[int, int, int, int], shape: tuple[int, int]) -> np.ndarray:
    """A part of an RGB image as words of its bytes, R first, uint32, of less than twice ``shape`` each way.

    ``box`` is left, top, right, below.
    """
    left, top, right, below = box
    (y, step_y, down), (x, step_x, across) = _reduced(below - top, shape[0]), _reduced(right - left, shape[1])
    if step_y == step_x == 1:
        return _words(image.crop(box))

    def places(first: int, step: int) -> list[float]:
        """Of both lines of the first block: a pixel's middle, less what Affine adds."""
        return [first + 0.5 - step / 2 + quarter * step // 4 for quarter in (1, 3)]

    lines = []
    for down_to in places(top + y, step_y):
        one, other = (
            image.transform((across, down), _AFFINE, (step_x, 0, right_to, 0, step_y, down_to))
            for right_to in places(left + x, step_x)
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
