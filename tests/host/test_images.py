# SPDX-License-Identifier: Apache-2.0
"""Photos: decoding."""

from __future__ import annotations

import io
import math
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction

import numpy as np
import photos as sets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from rowvit.errors import RowvitError
from rowvit.images import FORMATS, decode, for_network, is_picture, upright
from rowvit.quant.synthetic import random_package


def encoded(pixels: np.ndarray, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def opened(file: bytes, enough: int | tuple[int, int] = 0) -> Image.Image:
    with upright(file, enough) as image:
        return image.copy()


@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    side=st.integers(1, 30),
    resize=st.sampled_from(["bicubic", "bilinear"]),
)
def test_any_size(width, height, side, resize):
    grey = np.full((height, width, 3), 77, np.uint8)
    pixels = decode(encoded(grey), side, resize)
    assert pixels.shape == (side, side, 3) and pixels.dtype == np.uint8
    assert (pixels == 77).all()


def test_the_middle_is_taken():
    photo = np.zeros((4, 10, 3), np.uint8)
    photo[:, 3:7] = 255
    assert (decode(encoded(photo), 4) == 255).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "AVIF"])
def test_turned_cameras(form):
    """Orientation 8 of EXIF: the top of the scene is at the right of the file."""
    sets.require_reader(form)
    photo = np.zeros((40, 40, 3), np.uint8)
    photo[:, 30:] = 255
    exif = Image.Exif()
    exif[0x0112] = 8
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}}.get(form, {})
    turned = decode(encoded(photo, form, exif=exif, **options), 40)
    assert (turned[:10] > 250).all() and (turned[10:] < 5).all()


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("orientation", range(10))
def test_turned_as_by_pillow(orientation, damaged):
    """Also where another tag has a type that it cannot have, with which Pillow writes no EXIF anew."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    plain = Image.Exif()
    plain[0x0112] = orientation
    with Image.open(io.BytesIO(encoded(pixels, "WEBP", lossless=True, exif=plain))) as image:
        theirs = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    tags = [struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)]
    tags += [struct.pack("<HHII", 0x0132, 12, 1, 38)] * damaged  # the time as a double
    exif = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(tags) + struct.pack("<Id", 0, 1.5)
    file = encoded(pixels, "WEBP", lossless=True, exif=b"Exif\0\0" + exif)
    assert np.array_equal(opened(file), theirs)


@pytest.mark.parametrize("form", FORMATS)
def test_formats(tmp_path, form):
    """Each is found by its names, and has the same pixels, but for what it loses."""
    sets.require_reader(form)
    photo = np.zeros((60, 90, 3), np.uint8)
    photo[:, :45], photo[:, 45:] = (200, 40, 90), (20, 120, 60)
    expected = decode(encoded(photo), 24)
    for suffix in FORMATS[form]:
        file = tmp_path / f"photo{suffix.upper()}"
        file.write_bytes(encoded(photo, form))
        assert is_picture(file)
        assert np.abs(decode(file, 24).astype(int) - expected).mean() < 6
    assert not is_picture(tmp_path / "photo.eps") and not is_picture(tmp_path / "photo")


def test_what_other_programs_would_run(tmp_path):
    """PostScript, which Pillow gives to Ghostscript, and others are no pictures here."""
    (tmp_path / "a.png").write_bytes(encoded(np.zeros((9, 9, 3), np.uint8), "EPS"))
    with pytest.raises(RowvitError, match=r"a\.png: is no picture; use one of JPEG, PNG"):
        decode(tmp_path / "a.png", 8)


def test_formats_that_nothing_reads_here(monkeypatch, tmp_path):
    """The sentence says what to install."""
    for name, brand in (("a.heic", b"heic"), ("b.heif", b"mif1heic"), ("c.avif", b"avif")):
        (tmp_path / name).write_bytes(b"\0\0\0\x1cftyp" + brand.ljust(8, b"\0") + b"mif1miaf" + bytes(99))
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heic = "HEIC needs the package pillow-heif; install it with: pip install 'rowvit[heic]'"
    for name in ("a.heic", "b.heif"):
        with pytest.raises(RowvitError, match=re.escape(f"{name}: {heic}")):
            decode(tmp_path / name, 8)
    monkeypatch.delattr("PIL._avif", raising=False)
    monkeypatch.setitem(sys.modules, "PIL._avif", None)
    avif = r"c\.avif: AVIF needs Pillow 11\.3 or later; install it with: pip install 'pillow>=11\.3'"
    with pytest.raises(RowvitError, match=avif):
        decode(tmp_path / "c.avif", 8)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_of_several_frames_is_taken(form, monkeypatch, caplog):
    """Which is said once, for the first of such files."""
    sets.require_reader(form)
    monkeypatch.setattr("rowvit.decoding.SAID", {})
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("white", "black", "black")]
    file = io.BytesIO()
    frames[0].save(file, form, save_all=True, append_images=frames[1:])
    with caplog.at_level("INFO", "rowvit"):
        assert (decode(encoded(np.zeros((30, 30, 3), np.uint8), form), 30) < 5).all() and not caplog.messages
        for _ in range(2):
            assert (decode(file.getvalue(), 30) > 250).all()
    sentence = "the image has several frames, of which the first is taken; so of all such files"
    assert caplog.messages == [sentence]


@pytest.mark.parametrize(("width", "height", "scale"), [(640, 480, 2), (480, 1900, 2), (1800, 900, 4)])
def test_large_jpegs_are_scaled_while_they_are_decoded(width, height, scale):
    """Close to the whole photo's, also turned; a decoder of the smaller size says how large it is then."""
    y, x = np.mgrid[:height, :width] / 40
    waves = [np.sin(x), np.cos(y), np.sin(x + y)]
    photo = (128 + 100 * np.stack(waves, axis=2)).astype(np.uint8)
    exif = Image.Exif()
    for orientation in (1, 6, 8):
        exif[0x0112] = orientation
        file = encoded(photo, "JPEG", quality=90, exif=exif)
        small = opened(file, 224)
        turned = orientation != 1
        assert small.size == (
            -(-(height if turned else width) // scale),
            -(-(width if turned else height) // scale),
        )
        whole = opened(file)
        assert whole.size == ((height, width) if turned else (width, height))
        square = min(whole.size)
        left, top = (whole.width - square) // 2, (whole.height - square) // 2
        middle = whole.crop((left, top, left + square, top + square)).resize((224, 224), Image.BICUBIC)
        assert np.abs(decode(file, 224).astype(int) - np.asarray(middle)).mean() < 4


def test_jpegs_below_twice_the_size_are_decoded_whole():
    photo = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    file = encoded(photo, "JPEG")
    assert opened(file, 46).size == (120, 90) and opened(file, 45).size == (60, 45)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the image: is no picture; use one of JPEG, PNG"),
        (b"hello", "the image: is no picture; use one of JPEG, PNG"),
        (
            encoded(np.zeros((9, 9, 3), np.uint8))[:45],
            "cannot be decoded as an image; use a complete file",
        ),
    ],
    ids=["empty", "text", "cut"],
)
def test_what_is_no_photo(data, says):
    with pytest.raises(RowvitError, match=says):
        decode(data, 8)


def flips(data: bytes, sample: int = 1) -> Iterator[bytes]:
    """Copies with a bit inverted."""
    for bit in range(0, 8 * len(data), sample):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_flipped_bit_of_a_png_is_found(dtype):
    """Or changes nothing, as behind the pixels."""
    grey = (np.add.outer(np.arange(20), np.arange(20)) * 6).astype(dtype) << (8 if dtype is np.uint16 else 0)
    file = encoded(grey)
    expected, found = decode(file, 16), 0
    for damaged in flips(file):
        try:
            assert np.array_equal(decode(damaged, 16), expected)
        except RowvitError:
            found += 1
    assert found > 7 * len(file)


@pytest.mark.parametrize("form", ["TIFF", "JPEG", "BMP", "GIF", "WEBP"])
@pytest.mark.filterwarnings("ignore")
def test_what_is_damaged_gives_pixels_or_a_sentence(form):
    """Without checksums, the pixels may be others."""
    file = encoded(np.random.default_rng(2).integers(0, 256, (6, 6, 3), dtype=np.uint8), form)
    for damaged in flips(file, 3):
        with suppress(RowvitError):
            assert decode(damaged, 6).shape == (6, 6, 3)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_the_upper_eight(form):
    """As of 16-bit colour, whose upper halves Pillow takes itself; it clips 16-bit grey to 255."""
    eight = np.random.default_rng(1).integers(0, 256, (20, 20), dtype=np.uint8)
    sixteen = eight.astype(np.uint16) << 8 | 0x5A
    turned = Image.Exif()
    turned[0x0112] = 6
    for options in ({}, {"exif": turned}):
        expected = np.asarray(opened(encoded(np.stack([eight] * 3, -1), form, **options)))
        assert np.array_equal(np.asarray(opened(encoded(sixteen, form, **options))), expected)


def grey_tiff(values: np.ndarray, bits: int, white: int) -> bytes:
    """A TIFF without compression, of values of 12 or 16 bits; ``white`` 0 says that 0 is white."""
    height, width = values.shape
    rows = values.astype("<u2")
    if bits == 12:
        pairs = rows.astype(np.uint32).reshape(height, -1, 2)
        whole = pairs[..., 0] << 12 | pairs[..., 1]
        data = np.stack([whole >> 16, whole >> 8, whole], -1).astype(np.uint8).tobytes()
    else:
        data = rows.tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, white), (273, 8 + 2 + 12 * 9 + 4)]
    tags += [(277, 1), (278, height), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + data


@pytest.mark.parametrize(("bits", "white"), [(12, 1), (16, 0), (16, 1)])
def test_grey_of_more_than_eight_bits(bits, white):
    """From black to white by what the file says of both."""
    eight = np.random.default_rng(1).integers(0, 256, (20, 20))
    values = eight << bits - 8 | 5
    found = np.asarray(opened(grey_tiff(values, bits, white)))
    assert np.array_equal(found[..., 0], eight if white else 255 - eight)


def test_portable_greymaps():
    """PGM of 16 bits, whose values Pillow scales to all of them."""
    eight = np.random.default_rng(1).integers(0, 256, (20, 20))
    file = b"P5 20 20 65535\n" + (eight << 8 | 0x5A).astype(">u2").tobytes()
    assert np.array_equal(np.asarray(opened(file))[..., 0], eight)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_of_unknown_range_are_refused(dtype):
    pixels = np.linspace(0, 1000, 81).reshape(9, 9).astype(dtype)
    with pytest.raises(RowvitError, match="32 bits per value, of unknown range; convert it to 8 or 16 bits"):
        decode(encoded(pixels, "TIFF"), 8)


def test_a_pipe_is_no_photo(tmp_path):
    """Opening one waits for who writes to it."""
    os.mkfifo(tmp_path / "p.jpg")
    with pytest.raises(RowvitError, match=r"p\.jpg: is not a regular file"):
        decode(tmp_path / "p.jpg", 8)


def test_a_photo_that_is_not_there(tmp_path):
    with pytest.raises(RowvitError, match=r"x\.jpg: no such file"):
        decode(tmp_path / "x.jpg", 8)
    with pytest.raises(RowvitError, match="resize filter 'cubic' is not known; use one of bicubic"):
        decode(encoded(np.zeros((9, 9, 3), np.uint8)), 8, "cubic")


def test_more_pixels_than_pillow_decodes(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    file = encoded(np.zeros((1000, 2001), np.uint8))
    with pytest.raises(RowvitError, match="has more than 2 million pixels; scale it down"):
        decode(file, 8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Image size")
def test_memory_for_121_megapixels(tmp_path):
    """Peak of the whole process, in MB: decoded, the photo has 363."""
    Image.new("RGB", (11_000, 11_000), (40, 90, 200)).save(tmp_path / "photo", "JPEG")
    package = random_package(
        np.random.default_rng(0),
        dim=32,
        depth=1,
        heads=2,
        image_size=224,
        patch_size=16,
        hidden=32,
        classes=3,
    )
    package.save(tmp_path / "p.safetensors")
    code = (
        "from pathlib import Path; from rowvit.cli import app\n"
        "app(['run', 'p.safetensors', 'photo', '-t', 'golden'], standalone_mode=False)\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    found = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True)
    assert int(found.split()[-1]) / 1000 < 120  # kB


def test_a_photo_without_colours(monkeypatch, caplog, tmp_path):
    """Is told of, once; a pixel of colour makes it a photo in colours."""
    monkeypatch.setattr("rowvit.decoding.SAID", {})
    grey = np.random.default_rng(0).integers(0, 256, (20, 20, 1), dtype=np.uint8).repeat(3, axis=2)
    coloured = grey.copy()
    coloured[7, 7] = 255, 0, 0
    for name, pixels in (("a", coloured), ("b", grey), ("c", grey)):
        (tmp_path / f"{name}.png").write_bytes(encoded(pixels))
        with caplog.at_level("INFO", "rowvit"):
            for_network(tmp_path / f"{name}.png", described(20))
    (said,) = caplog.messages
    assert said.startswith(f"{tmp_path / 'b.png'} has no colours: a network that learned from colours may be")


def test_crop_of_the_network(tmp_path) -> None:
    """The middle square of 0.5 of the shorter side, for the host and for the preprocessor."""
    photo = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "a.png")
    meta = described(20, crop=0.5)
    middle = photo[10:30, 22:42]
    for frontend in ("host", "hls"):
        assert np.array_equal(for_network(tmp_path / "a.png", meta, frontend), middle)
        assert np.array_equal(for_network(photo, meta, frontend), middle)


# -- numerics.md, section 9, once more: in Python's integers, pixel by pixel --------------------------


def described(side: int, resize: str = "bicubic", crop: float = 1.0) -> dict:
    return {"architecture": {"image_size": side}, "preprocessing": {"resize": resize, "crop": crop}}


def mean(a: int, b: int) -> int:
    return (int(a) + int(b) + 1) >> 1


def square_of(width: int, height: int, crop: float) -> tuple[int, int, int]:
    n = max(1, round(crop * min(width, height)))
    return n, (width - n) // 2, (height - n) // 2


def blocks(pixels: np.ndarray, first: tuple[int, int], steps: tuple[int, int], count: int) -> np.ndarray:
    """Of values [height, width, channels], the mean of four of each block."""
    found = np.zeros((count, count, pixels.shape[2]), int)
    for y, x, c in np.ndindex(found.shape):
        top, left = first[0] + y * steps[0], first[1] + x * steps[1]
        rows, columns = (
            [at + q * step // 4 for q in (1, 3)] for at, step in zip((top, left), steps, strict=True)
        )
        found[y, x, c] = mean(*(mean(*(pixels[row, column, c] for column in columns)) for row in rows))
    return found


def cells(values: np.ndarray, side: int) -> np.ndarray:
    n, channels = values.shape[0], values.shape[2]
    edge = [(2 * i * n + side) // (2 * side) for i in range(side + 1)]
    lines, found = np.zeros((side, n, channels), int), np.zeros((side, side, channels), int)
    for i, x, c in np.ndindex(lines.shape):
        lines[i, x, c] = mean(values[edge[i], x, c], values[edge[i + 1] - 1, x, c])
    for i, j, c in np.ndindex(found.shape):
        found[i, j, c] = mean(lines[i, edge[j], c], lines[i, edge[j + 1] - 1, c])
    return found


def by_pillow(square: np.ndarray, side: int, resize: str) -> np.ndarray:
    scaled = Image.fromarray(square.astype(np.uint8)).resize((side, side), getattr(Image, resize.upper()))
    return np.asarray(scaled)


def from_rgb(pixels: np.ndarray, side: int, resize: str, crop: float, decoder: bool = False) -> np.ndarray:
    """With ``decoder``, pixels that a JPEG's decoder has scaled."""
    n, left, top = square_of(pixels.shape[1], pixels.shape[0], crop)
    square = pixels[top : top + n, left : left + n]
    if n < 2 * side and not decoder:
        return by_pillow(square, side, resize)
    step = n // side
    count = n // step
    margin = (n - step * count) // 2
    small = square if step == 1 else blocks(square, (margin, margin), (step, step), count)
    return cells(small, side)


def to_rgb(y: int, u: int, v: int, full_range: bool) -> list[int]:
    """By the formulas that the page names; Pillow's tables may be one off."""
    if not full_range:
        y = min(max((510 * (y - 16) + 219) // 438, 0), 255)
        u, v = (min(max(128 + (510 * (c - 128) + 224) // 448, 0), 255) for c in (u, v))
    exact = y + 1.402 * (v - 128), y - 0.34414 * (u - 128) - 0.71414 * (v - 128), y + 1.772 * (u - 128)
    return [min(max(int(value // 1), 0), 255) for value in exact]


def converted(yuv: np.ndarray, full_range: bool) -> np.ndarray:
    found = np.zeros(yuv.shape, int)
    for y, x in np.ndindex(yuv.shape[:2]):
        found[y, x] = to_rgb(*(int(value) for value in yuv[y, x]), full_range)
    return found


def from_yuyv(frame: np.ndarray, side: int, crop: float, full_range: bool, hls: bool) -> np.ndarray:
    """Not yet scaled where Pillow does that."""
    height, width = frame.shape[:2]
    n, left, top = square_of(width, height, crop)
    if n >= 2 * side:
        step = n // 2 // side
        count = n // 2 // step
        pairs = frame.reshape(height, width // 2, 4)
        first = (height - 2 * step * count) // 2, (width // 2 - step * count) // 2
        small = blocks(pairs, first, (2 * step, step), count)
        small = small if hls else cells(small, side)
        luma = [[mean(pair[0], pair[2]) for pair in line] for line in small]
        return converted(np.dstack([luma, small[:, :, 1], small[:, :, 3]]), full_range)
    yuv = np.zeros((n, n, 3), int)
    for y, x in np.ndindex(n, n):
        column = (left + x) // 2 * 2
        yuv[y, x] = frame[top + y, left + x, 0], frame[top + y, column, 1], frame[top + y, column + 1, 1]
    return converted(yuv, full_range)


@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    side=st.integers(1, 12),
    resize=st.sampled_from(["bicubic", "bilinear"]),
    crop=st.sampled_from([1.0, 0.9, 0.5]),
)
def test_pixels_are_those_of_the_page(width, height, side, resize, crop):
    """Of frames, also in other orders of memory, and of files without loss."""
    frame = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = from_rgb(frame, side, resize, crop)
    assert np.array_equal(decode(encoded(frame), side, resize, crop), expected)
    meta = described(side, resize, crop)
    padded = np.pad(frame, ((1, 0), (2, 3), (0, 0)))[1:, 2 : 2 + width]
    for same in (frame, padded, np.asfortranarray(frame), frame[::-1].copy()[::-1]):
        assert np.array_equal(for_network(same, meta), expected)
    n, left, top = square_of(width, height, crop)
    inside = frame[top : height - top, left : width - left]
    assert np.array_equal(for_network(frame, meta, "hls"), inside) and max(inside.shape[:2]) <= n + 1


@given(
    pairs=st.integers(1, 30),
    height=st.integers(1, 60),
    side=st.integers(1, 12),
    crop=st.sampled_from([1.0, 0.9, 0.5]),
    full_range=st.booleans(),
)
def test_yuyv_is_that_of_the_page(pairs, height, side, crop, full_range):
    """One off where Pillow's tables round in another way."""
    frame = np.random.default_rng(pairs * height).integers(0, 256, (height, 2 * pairs, 2), dtype=np.uint8)
    meta = described(side, crop=crop)
    for frontend in ("host", "hls"):
        expected = from_yuyv(frame, side, crop, full_range, frontend == "hls")
        found = for_network(frame, meta, frontend, full_range)
        if frontend == "host" and len(expected) != side:
            continue
        assert found.shape == expected.shape and np.abs(found - expected).max() <= 1
    whole = for_network(frame, described(side, crop=crop), "hls", full_range)
    if square_of(2 * pairs, height, crop)[0] < 2 * side:
        assert np.array_equal(for_network(frame, meta, "host", full_range), by_pillow(whole, side, "bicubic"))


@pytest.mark.parametrize("full_range", [False, True])
def test_black_white_and_colours_of_yuyv(full_range):
    """By the values that BT.601 gives them."""
    black, white = (0, 255) if full_range else (16, 235)
    colours = {
        (0, 0, 0): (black, 128, 128),
        (255, 255, 255): (white, 128, 128),
        (255, 0, 0): (76, 85, 255) if full_range else (81, 90, 240),
        (0, 255, 0): (150, 44, 21) if full_range else (145, 54, 34),
        (0, 0, 255): (29, 255, 107) if full_range else (41, 240, 110),
    }
    for rgb, (y, u, v) in colours.items():
        for size in (8, 20):
            frame = np.full((size, size, 2), y, np.uint8)
            frame[:, 0::2, 1], frame[:, 1::2, 1] = u, v
            found = for_network(frame, described(8), full_range=full_range)
            assert np.abs(found.astype(int) - rgb).max() <= 2, (rgb, found[0, 0])


@pytest.mark.parametrize(("width", "height", "crop"), [(160, 120, 1.0), (75, 301, 0.9), (1000, 700, 1.0)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_large_jpegs_are_those_of_the_page(width, height, crop, mode):
    """From what the decoder gives, also turned; the preprocessor gets that."""
    y, x = np.mgrid[:height, :width] / 9
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=2)
    photo = Image.fromarray((128 + 100 * waves).astype(np.uint8)).convert(mode)
    exif, side = Image.Exif(), 30
    for orientation in (1, 6):
        exif[0x0112] = orientation
        file = io.BytesIO()
        photo.save(file, "JPEG", exif=exif)
        small = opened(file.getvalue(), math.ceil(side / crop))
        assert max(small.size) < max(width, height)
        pixels = np.asarray(small)
        expected = from_rgb(pixels, side, "bicubic", crop, decoder=True)
        assert np.array_equal(decode(file.getvalue(), side, crop=crop), expected)
        _, left, top = square_of(*small.size, crop)
        meta = described(side, crop=crop)
        found = for_network(file.getvalue(), meta, "hls")
        assert np.array_equal(found, pixels[top : small.height - top, left : small.width - left])


def test_cameras_leave_out_the_huffman_tables_of_mjpeg():
    """They are those that the standard names; the frame ends in what a buffer had before, too."""
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    file = encoded(photo, "JPEG")
    short, at = b"", 2
    while file[at + 1] != 0xDA:  # start of the scan
        size = int.from_bytes(file[at + 2 : at + 4], "big") + 2
        short += b"" if file[at + 1] == 0xC4 else file[at : at + size]
        at += size
    short = file[:2] + short + file[at:] + bytes(100)
    assert len(short) < len(file) - 200
    for frontend in ("host", "hls"):
        found = [for_network(data, described(20), frontend) for data in (file, short)]
        assert np.array_equal(*found)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), r"a frame is float32 \[8, 8, 3\]; pass uint8 \[height, width, 3\]"),
        (np.zeros((8, 8), np.uint8), r"a frame is uint8 \[8, 8\]; pass uint8"),
        (np.zeros((8, 8, 4), np.uint8), r"a frame is uint8 \[8, 8, 4\]; pass uint8"),
        (np.zeros((0, 8, 3), np.uint8), r"a frame is uint8 \[0, 8, 3\]; pass uint8"),
        (np.zeros((8, 9, 2), np.uint8), "a YUYV frame has 9 columns, an odd number; pass whole pairs"),
    ],
)
def test_what_is_no_frame(frame, message):
    for frontend in ("host", "hls"):
        with pytest.raises(RowvitError, match=message):
            for_network(frame, described(4), frontend)


def test_a_camera_may_be_of_any_size():
    """4K, whose blocks are large, and a single line."""
    meta = described(224)
    large = np.full((2160, 3840, 3), 77, np.uint8)
    large[:, :840] = large[:, 3000:] = 0
    assert (for_network(large, meta) == 77).all()
    assert for_network(np.full((1, 4000, 2), 128, np.uint8), meta).shape == (224, 224, 3)


# -- rectangles: the page once more, each pixel from those that it is made of --------------------------

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))


def rectangle(shape: tuple[int, int], resize: str = "bicubic", crop: float = 1.0) -> dict:
    meta = described(shape[0], resize, crop)
    meta["architecture"] |= {"image_width": shape[1]}
    return meta


def part_of(width: int, height: int, shape: tuple[int, int], crop: float) -> tuple[int, int, int, int]:
    """Rows and columns of the middle rectangle, and where it begins."""
    wide, half = Fraction(shape[1], shape[0]), Fraction(1, 2)
    if Fraction(width, height) <= wide:
        columns = max(1, round(crop * width))
        rows = max(1, math.floor(columns / wide + half))
    else:
        rows = max(1, round(crop * height))
        columns = max(1, math.floor(rows * wide + half))
    return rows, columns, (height - rows) // 2, (width - columns) // 2


def sources(first: int, step: int, count: int, side: int) -> list[list[list[int]]]:
    """For every pixel along an axis its one or two blocks, and of each the lines at 1 and 3 quarters."""
    edge = [(2 * i * count + side) // (2 * side) for i in range(side + 1)]
    lines = [[first + b * step + q * step // 4 for q in (1, 3)] for b in range(count)]
    return [[lines[edge[i]], lines[edge[i + 1] - 1]] for i in range(side)]


def reduced(values: np.ndarray, down: list, across: list) -> np.ndarray:
    """Values [height, width, channels] to a pixel for each of the `sources` down and across."""

    def two(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a + b + 1) >> 1

    def block(rows: list[int], columns: list[int]) -> np.ndarray:
        return two(*(two(*(values[row, column] for column in columns)) for row in rows))

    values = values.astype(int)
    return np.array(
        [[two(*(two(*(block(r, c) for r in rows)) for c in columns)) for columns in across] for rows in down]
    )


def rectangle_of_rgb(
    pixels: np.ndarray, shape: tuple[int, int], resize: str, crop: float, decoder: bool = False
) -> np.ndarray:
    rows, columns, top, left = part_of(pixels.shape[1], pixels.shape[0], shape, crop)
    if not decoder and (rows < 2 * shape[0] or columns < 2 * shape[1]):
        part = Image.fromarray(pixels[top : top + rows, left : left + columns])
        return np.asarray(part.resize((shape[1], shape[0]), getattr(Image, resize.upper())))
    axes = []
    for first, n, side in ((top, rows, shape[0]), (left, columns, shape[1])):
        step = n // side
        count = n // step
        axes.append(sources(first + (n - step * count) // 2, step, count, side))
    return reduced(pixels, *axes)


@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    shape=SHAPES,
    resize=st.sampled_from(["bicubic", "bilinear"]),
    crop=st.sampled_from([1.0, 0.9, 0.5]),
)
def test_rectangles_are_those_of_the_page(width, height, shape, resize, crop):
    """Of frames, and of files without loss."""
    frame = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = rectangle_of_rgb(frame, shape, resize, crop)
    assert np.array_equal(decode(encoded(frame), shape, resize, crop), expected)
    assert np.array_equal(for_network(frame, rectangle(shape, resize, crop)), expected)


@given(
    pairs=st.integers(1, 35),
    height=st.integers(1, 70),
    shape=SHAPES,
    crop=st.sampled_from([1.0, 0.9, 0.5]),
    full_range=st.booleans(),
)
def test_rectangles_of_yuyv_are_those_of_the_page(pairs, height, shape, crop, full_range):
    """One off where Pillow's tables round in another way; small ones are converted and scaled by Pillow."""
    frame = np.random.default_rng(pairs * height).integers(0, 256, (height, 2 * pairs, 2), dtype=np.uint8)
    rows, columns, top, left = part_of(2 * pairs, height, shape, crop)
    found = for_network(frame, rectangle(shape, crop=crop), full_range=full_range)
    if rows >= 2 * shape[0] and columns >= 2 * shape[1]:
        step, across = rows // 2 // shape[0], columns // 2 // shape[1]
        counts = rows // 2 // step, columns // 2 // across
        down = sources((height - 2 * step * counts[0]) // 2, 2 * step, counts[0], shape[0])
        side = sources((pairs - across * counts[1]) // 2, across, counts[1], shape[1])
        small = reduced(frame.reshape(height, pairs, 4), down, side)
        luma = (small[:, :, 0] + small[:, :, 2] + 1) >> 1
        expected = converted(np.dstack([luma, small[:, :, 1], small[:, :, 3]]), full_range)
        assert found.shape == expected.shape and np.abs(found - expected).max() <= 1
        return
    even = np.arange(2 * pairs) // 2 * 2
    yuv = np.dstack([frame[:, :, 0], frame[:, even, 1], frame[:, even + 1, 1]])
    yuv = yuv[top : top + rows, left : left + columns].astype(int)
    if not full_range:
        yuv[:, :, 0] = (510 * (yuv[:, :, 0] - 16) + 219) // 438
        yuv[:, :, 1:] = 128 + (510 * (yuv[:, :, 1:] - 128) + 224) // 448
    planes = [Image.fromarray(plane.clip(0, 255).astype(np.uint8)) for plane in np.moveaxis(yuv, 2, 0)]
    rgb = Image.merge("YCbCr", planes).convert("RGB")
    assert np.array_equal(found, np.asarray(rgb.resize((shape[1], shape[0]), Image.BICUBIC)))


@pytest.mark.parametrize("size", [(160, 120), (75, 301), (1001, 333), (640, 483)])
@pytest.mark.parametrize(("shape", "crop"), [((24, 40), 1.0), ((40, 12), 0.9), ((9, 30), 0.875)])
def test_rectangles_of_jpegs_are_those_of_the_page(size, shape, crop):
    """By what the decoder gives, also of photos that are stored on their side."""
    width, height = size
    y, x = np.mgrid[:height, :width] / 9
    photo = Image.fromarray((128 + 100 * np.stack([np.sin(x), np.cos(y), np.sin(x + y)], 2)).astype(np.uint8))
    wanted, exif = tuple(math.ceil(side / crop) for side in shape), Image.Exif()
    for orientation in (1, 3, 6, 8):
        exif[0x0112] = orientation
        file = io.BytesIO()
        photo.save(file, "JPEG", exif=exif)
        columns, rows = (height, width) if orientation > 4 else (width, height)
        scale = max(s for s in (1, 2, 4, 8) if s == 1 or s <= min(rows // wanted[0], columns // wanted[1]))
        small = opened(file.getvalue(), wanted)
        assert small.size == (-(-columns // scale), -(-rows // scale))
        pixels = np.asarray(small)
        expected = rectangle_of_rgb(pixels, shape, "bicubic", crop, decoder=scale > 1)
        assert np.array_equal(decode(file.getvalue(), shape, crop=crop), expected)
