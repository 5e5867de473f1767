# SPDX-License-Identifier: Apache-2.0
"""AVIF and HEIC are decoded by a process of their own, which may take so much memory and no more.

Their headers may name another size than the coded picture has, and nobody knows that before it is decoded.
"""

from __future__ import annotations

import os
import subprocess
import sys
from io import BufferedReader
from pathlib import Path
from threading import Timer
from typing import BinaryIO

from PIL import Image

from rowvit.errors import RowvitError

FORMATS = ("AVIF", "HEIF")  # by Pillow's names
#: bytes that the process takes besides the picture
PROCESS = 24_000_000
_MORE = 1.5  # of a picture: its memory by size, which is not all in use at a time
_PATIENCE = 120.0  # seconds
_DECODER = Path(__file__).with_name("decoder.py")


def decode(data: BinaryIO, form: str, size: tuple[int, int], needed: int) -> Image.Image:
    """The picture in RGB, turned as its EXIF says.

    Parameters
    ----------
    data : binary file
    form : str
        One of `FORMATS`.
    size : tuple of int
        Width and height, or height and width, as its header says.
    needed : int
        Bytes that a picture of this size takes.

    Raises
    ------
    RowvitError
        It cannot be decoded within the memory and two minutes, or has another size. The sentence lacks the
        picture.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    data.seek(0)
    command = [sys.executable, str(_DECODER), form, str(int(PROCESS + _MORE * needed))]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, env=environment) as process:
        late = Timer(_PATIENCE, process.kill)
        late.start()
        try:
            found = _read(process, data.read(), size)
        finally:
            process.kill()
            late.cancel()
    if found is None:
        raise RowvitError(
            "is damaged, or larger than its header says", "use a complete file, or save it as JPEG"
        )
    return found


def _read(process: subprocess.Popen[bytes], data: bytes, size: tuple[int, int]) -> Image.Image | None:
    """The picture; None if the process ends without it, or it has another size."""
    assert process.stdin is not None and isinstance(process.stdout, BufferedReader)
    try:
        process.stdin.write(data)
        process.stdin.close()
    except BrokenPipeError:
        return None
    del data
    width, _, height = process.stdout.readline(40).strip().partition(b" ")
    if not (width.isdigit() and height.isdigit()) or sorted((int(width), int(height))) != sorted(size):
        return None
    shape = int(width), int(height)
    pixels = bytearray(3 * shape[0] * shape[1])
    if process.stdout.readinto(pixels) < len(pixels):
        return None
    return Image.frombytes("RGB", shape, pixels)
