# SPDX-License-Identifier: Apache-2.0
"""What picture files say of themselves, read before a reader keeps it all: lists, texts, a JPEG's scans.

Readers keep whatever stands before the pixels, and some trust the first size that they meet, their decoders
another. So a file of kilobytes could take any memory before the first pixel.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from rowvit.decoding import TooLarge

#: of one file: parts that a reader keeps, numbers in one list of a TIFF, scans that go through all pixels.
#: Cameras' files have dozens of parts; a TIFF has a number for each strip
_PARTS, _NUMBERS, _SCANS = 1024, 1 << 18, 200
_TEXTS = 4_000_000  # bytes of a PNG's texts, unpacked
_JUNK = 1 << 16  # bytes between the segments of a JPEG, at most
_BLOCKS = 1 << 17  # of the comments and the like in a GIF; of 255 bytes at most
_BARE = (0x01, *range(0xD0, 0xD8))  # markers of JPEG without a length
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))


@dataclass(frozen=True)
class Jpeg:
    """A JPEG's frame, as its decoder reads it."""

    size: tuple[int, int]  #: width, height
    sampling: tuple[tuple[int, int], ...]  #: of each colour, across and down
    whole: bool  #: whether the decoder holds coefficients of all pixels: no scan has all colours of a line


def read(data: BinaryIO) -> Jpeg | None:
    """The frame of a JPEG; None of others, and where there is none before the first scan.

    `TooLarge` for a file with more before its pixels than any picture has, or with so many scans that to
    decode them takes minutes; the sentence lacks its name.
    """
    data.seek(0)
    head = data.read(4)
    if head[:2] == b"\xff\xd8":
        return _jpeg(data)
    if head == b"\x89PNG":
        _check_png(data)
    elif head == b"GIF8":
        _check_gif(data)
    elif head[:2] in (b"II", b"MM"):
        _check_tiff(data, "<" if head[:2] == b"II" else ">")
    return None


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise TooLarge(f"has {what} before its pixels", "save it anew, without them")


def _jpeg(data: BinaryIO) -> Jpeg | None:
    frame: tuple[int, bytes] | None = None
    for number, (kind, place, length) in enumerate(_segments(data), 1):
        _require(number <= _PARTS, f"more than {_PARTS:,} segments")
        if kind in _FRAMES and frame is None:
            data.seek(place)
            frame = kind, data.read(length)
        if kind == 0xDA and frame is not None:
            data.seek(place)
            parts = data.read(1)
            progressive, (height, width), count = frame[0] & 3 == 2, _shape(frame[1]), frame[1][5:6]
            whole = progressive or parts != count
            if whole and data.read().count(b"\xff\xda") > _SCANS:
                raise TooLarge(f"has more than {_SCANS} scans", "save it anew")
            pairs = frame[1][7::3]
            return Jpeg((width, height), tuple((pair >> 4, pair & 15) for pair in pairs), whole)
    return None


def _shape(frame: bytes) -> tuple[int, int]:
    return int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")


def _segments(data: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Marker, place and length of each segment's content up to the first scan, as libjpeg finds them."""
    data.seek(2)
    junk = 0
    while True:
        while (byte := data.read(1)) not in (b"\xff", b"") and junk <= _JUNK:
            junk += 1
        while (byte := data.read(1)) == b"\xff" and junk <= _JUNK:  # fill
            junk += 1
        if not byte or byte == b"\xd9" or junk > _JUNK:
            return
        kind = byte[0]
        if kind == 0 or kind in _BARE:
            continue
        length = int.from_bytes(data.read(2), "big") - 2
        place = data.tell()
        yield kind, place, length
        if kind == 0xDA or length < 0:
            return
        data.seek(place + length)


def _check_png(data: BinaryIO) -> None:
    parts = texts = 0
    data.seek(8)
    while len(head := data.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        after = data.tell() + length + 4
        if kind not in (b"IDAT", b"fdAT", b"fcTL"):
            parts += 1
            _require(parts <= _PARTS, f"more than {_PARTS:,} chunks")
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            texts += length if length > _TEXTS else _unpacked(kind, data.read(length))
            _require(texts <= _TEXTS, f"more than {_TEXTS // 10**6} MB of texts")
        if kind == b"IEND":
            return
        data.seek(after)


def _unpacked(kind: bytes, text: bytes) -> int:
    """Bytes that a reader makes of a chunk of text, counted no further than the most that there may be."""
    packed = text.partition(b"\0")[2]
    if kind == b"iTXt":
        packed = packed[2:].split(b"\0", 2)[-1] if packed[:1] == b"\1" else b""
    elif kind == b"zTXt":
        packed = packed[1:]
    else:
        packed = b""
    with suppress(zlib.error):
        return len(text) + len(zlib.decompressobj().decompress(packed, _TEXTS))
    return len(text)


def _check_gif(data: BinaryIO) -> None:
    """Up to the second picture, where its reader stops."""
    data.seek(10)
    flags = data.read(3)[:1] or b"\0"
    data.seek(_palette(flags[0]), os.SEEK_CUR)
    blocks = pictures = 0
    while pictures < 2:
        kind = data.read(1)
        if kind == b",":
            pictures += 1
            place = data.read(9)
            data.seek(_palette(place[8]) + 1 if len(place) == 9 else 0, os.SEEK_CUR)
        elif kind == b"!":
            data.read(1)
        elif kind in (b";", b""):
            return
        else:
            continue
        while size := int.from_bytes(data.read(1), "big"):
            data.seek(size, os.SEEK_CUR)
            blocks += kind == b"!"
            _require(blocks <= _BLOCKS, f"more than {_BLOCKS:,} blocks")


def _palette(flags: int) -> int:
    """Bytes of the colours that follow."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _check_tiff(data: BinaryIO, order: str) -> None:
    """The first list of tags, which says all of the first picture."""
    data.seek(2)
    big = _number(data, order + "H") == 43
    place, count, size = ("Q", "Q", 20) if big else ("I", "H", 12)
    data.seek(8 if big else 4)
    data.seek(_number(data, order + place))
    for _ in range(min(_number(data, order + count), 65_535)):
        if len(tag := data.read(size)) < size:
            return
        kind, numbers = struct.unpack_from(f"{order}H{place}", tag, 2)
        # bytes and texts are kept as they are
        _require(kind in (1, 2, 6, 7) or numbers <= _NUMBERS, f"a list of {numbers:,} numbers")


def _number(data: BinaryIO, form: str) -> int:
    found = data.read(struct.calcsize(form))
    return int(struct.unpack(form, found)[0]) if len(found) == struct.calcsize(form) else 0
