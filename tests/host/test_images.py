# SPDX-License-Identifier: Apache-2.0
"""Photos: decoding."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import rowvit
from rowvit.errors import RowvitError
from rowvit.images import decode, for_network, upright
from rowvit.quant.synthetic import random_package

HOST = Path(rowvit.__file__).parents[1]


def encoded(pixels: np.ndarray, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


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


def test_turned_cameras():
    """Orientation 6 of EXIF: the top of the scene is at the right of the file."""
    photo = np.zeros((4, 4, 3), np.uint8)
    photo[:, 3] = 255
    exif = Image.Exif()
    exif[0x0112] = 8
    turned = decode(encoded(photo, exif=exif), 4)
    assert (turned[0] == 255).all() and (turned[1:] == 0).all()


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
        small = upright(file, 224)
        turned = orientation != 1
        assert small.size == (
            -(-(height if turned else width) // scale),
            -(-(width if turned else height) // scale),
        )
        whole = upright(file)
        assert whole.size == ((height, width) if turned else (width, height))
        square = min(whole.size)
        left, top = (whole.width - square) // 2, (whole.height - square) // 2
        middle = whole.crop((left, top, left + square, top + square)).resize((224, 224), Image.BICUBIC)
        assert np.abs(decode(file, 224).astype(int) - np.asarray(middle)).mean() < 4


def test_jpegs_below_twice_the_size_are_decoded_whole():
    photo = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    file = encoded(photo, "JPEG")
    assert upright(file, 46).size == (120, 90) and upright(file, 45).size == (60, 45)


@pytest.mark.parametrize(
    "data", [b"", b"hello", encoded(np.zeros((9, 9, 3), np.uint8))[:45]], ids=["empty", "text", "cut"]
)
def test_what_is_no_photo(data):
    with pytest.raises(RowvitError, match="cannot be decoded as an image; use a complete JPEG or PNG"):
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
        expected = np.asarray(upright(encoded(np.stack([eight] * 3, -1), form, **options)))
        assert np.array_equal(np.asarray(upright(encoded(sixteen, form, **options))), expected)


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
@pytest.mark.parametrize(
    "form, options, limit",
    [("JPEG", {}, 120), ("JPEG", {"progressive": True}, 600), ("PNG", {"compress_level": 1}, 700)],
    ids=["JPEG", "progressive JPEG", "PNG"],
)
def test_memory_for_121_megapixels(tmp_path, form, options, limit):
    """Peak of the whole process, in MB: decoded, the photo has 363."""
    Image.new("RGB", (11_000, 11_000), (40, 90, 200)).save(tmp_path / "photo", form, **options)
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
    environment = os.environ | {"PYTHONPATH": str(HOST)}
    found = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True)
    assert int(found.split()[-1]) / 1000 < limit  # kB


def test_crop_of_the_network(tmp_path) -> None:
    """The middle square of 0.5 of the shorter side, for the host and in what the preprocessor gets."""
    photo = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "a.png")
    meta = {"architecture": {"image_size": 20}, "preprocessing": {"resize": "bicubic", "crop": 0.5}}
    middle = photo[10:30, 22:42]
    assert np.array_equal(for_network(tmp_path / "a.png", meta), middle)
    window = for_network(tmp_path / "a.png", meta, "hls")  # whose middle square is the same
    assert np.array_equal(window, photo[10:30, 16:48]) and np.array_equal(window[:, 6:26], middle)
