# SPDX-License-Identifier: Apache-2.0
"""Pictures from strangers, on a machine with a board's memory: the server stays small, and answers."""

from __future__ import annotations

import http.client
import io
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import photos as sets
import pytest
from PIL import Image
from processes import megabytes
from puppet import command, port_of
from waiting import HANG, until

BOARD = 512_000_000, 300_000_000  # bytes that there are, and that are free
_SCRIPT = f"""
import rowvit.decoding
rowvit.decoding.memory = lambda: {BOARD}
from rowvit.cli import app
app()
"""


@pytest.fixture(scope="module")
def board(files):
    """The process and its port; the network has been used."""
    with command(files["small"], program=("-c", _SCRIPT)) as (process, lines):
        port = port_of(lines)
        assert ask(port, saved("PNG", 300, 200))[0] == 200
        yield process, port


def ask(
    port: int,
    data: bytes,
    path: str = "/models/small/classify?explain=1",
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG)
    try:
        connection.request("POST", path, data, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def forget(process: subprocess.Popen) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def saved(form: str, width: int, height: int, mode: str = "RGB", **options) -> bytes:
    gradient = np.add.outer(np.arange(height), np.arange(width))[:, :, None] * np.array([1, 2, 3]) // 16
    file = io.BytesIO()
    Image.fromarray(gradient.astype(np.uint8)).convert(mode).save(file, form, **options)
    return file.getvalue()


def one_colour(form: str, width: int, height: int, mode: str, **options) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height), "#446688").save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("WEBP", dict(lossless=True)),
        ("PNG", {}),
        ("GIF", {}),
        ("TIFF", dict(compression="tiff_lzw")),
        ("AVIF", {}),
    ],
)
def test_small_files_of_many_pixels(board, form, options):
    """24 at once, of kilobytes, each of which would take most of the memory: all are refused before that."""
    sets.require_reader(form)
    process, port = board
    side = 5000 if form != "GIF" else 9000
    data = one_colour(form, side, side, "RGBA" if form in ("WEBP", "PNG") else "RGB", **options)
    forget(process)
    before = megabytes(process.pid, "VmRSS")
    with ThreadPoolExecutor(24) as pool:
        replies = list(pool.map(lambda _: ask(port, data), range(24)))
    assert {status for status, _ in replies} == {413}
    assert b"MB to decode, and may take 64 MB here; scale it down" in replies[0][1]
    assert megabytes(process.pid, "VmHWM") < max(150, before + 40)
    assert ask(port, saved("PNG", 300, 200))[0] == 200


def test_photos_take_their_turns(board):
    """Large ones of cameras, 12 at once: all are answered, one after the other where they are large."""
    process, port = board
    photos = [
        saved("JPEG", 4000, 3000),
        saved("PNG", 2400, 1800),
        saved("WEBP", 1600, 1200),
        saved("TIFF", 2400, 1800, compression="tiff_lzw"),
    ]
    before = megabytes(process.pid, "VmRSS")
    forget(process)
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda number: ask(port, photos[number % 4]), range(12)))
    assert [status for status, _ in replies] == [200] * 12
    assert megabytes(process.pid, "VmHWM") < before + 100
    until(lambda: megabytes(process.pid, "VmRSS") < before + 20)


@pytest.mark.parametrize("how", ["classify", "form", "page", "png"])
def test_large_uploads(board, how):
    """14 MB each, 4 at once, in every way that there is: what is sent, made of it and drawn takes turns."""
    process, port = board
    rng = np.random.default_rng(3)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (2160, 2160, 3), np.uint8)).save(file, "PNG", compress_level=0)
    data = file.getvalue()
    assert 13.9e6 < len(data) < 16e6
    path, headers, edge = "/models/small/classify", {}, b"--0123456789abcdef"
    if how in ("form", "page"):
        path = "/" if how == "page" else path
        headers["Content-Type"] = f"multipart/form-data; boundary={edge[2:].decode()}"
        name = b'Content-Disposition: form-data; name="photo"; filename="photo.png"'
        data = edge + b"\r\n" + name + b"\r\n\r\n" + data + b"\r\n" + edge + b"--\r\n"
    elif how == "png":
        headers["Accept"] = "image/png"
    before = megabytes(process.pid, "VmRSS")
    forget(process)
    with ThreadPoolExecutor(4) as pool:
        statuses = [*pool.map(lambda _: ask(port, data, path, headers)[0], range(4))]
    assert statuses == [200] * 4
    assert megabytes(process.pid, "VmHWM") < before + 100
    until(lambda: megabytes(process.pid, "VmRSS") < before + 20)
