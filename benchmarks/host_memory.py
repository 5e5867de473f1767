# SPDX-License-Identifier: Apache-2.0
"""The most memory that a command takes beside a board, in MB: `host.py --memory` runs it, once per command.

    python host_memory.py FOLDER run|serve

The command is rowvit's own, with DeiT-Tiny's package, which it compiles, and 20 JPEGs of 1920x1080; the board
is that of `plain_board.py`. Under an emulator its memory is counted, too.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
from plain_board import Board, answer

from rowvit.cli import app
from rowvit.formats.program import Program
from rowvit.hardware.config import load

PHOTOS, PORT, SECONDS = 20, 8765, 300.0


class Found(Board):
    """The board that PYNQ finds when it looks for one."""

    _probe_priority_ = -1
    boards: list[Board] = []

    @classmethod
    def _probe_(cls) -> list[Board]:
        return cls.boards


def peak() -> float:
    """The most memory of this process since its start, in MB, of files' pages as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def classify(photo: bytes) -> None:
    """Send photos to the server when it listens; end the process with what it took."""
    end = time.monotonic() + SECONDS
    for number in range(PHOTOS):
        while True:
            try:
                client = http.client.HTTPConnection("127.0.0.1", PORT, timeout=SECONDS)
                client.request("POST", "/models/deit-tiny/classify", photo, {"Content-Type": "image/jpeg"})
                break
            except ConnectionRefusedError:
                if number or time.monotonic() > end:
                    os._exit(3)
                time.sleep(0.1)
        reply = client.getresponse()
        if reply.status != 200:
            print(reply.status, reply.read().decode(), file=sys.stderr)
            os._exit(4)
        reply.read()
    print(peak(), flush=True)
    os._exit(0)


def measure(folder: Path, command: str) -> None:
    """Run a command, and print what it took."""
    work = folder / "memory"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    os.environ["ROWVIT_CACHE"] = str(work)
    config, photo = load("pynq-z2"), folder / "1920x1080.jpg"
    board = Found(config, work)
    Found.boards.append(board)
    board.answer = np.frombuffer(
        answer(Program.load(folder / "deit-tiny.rowvit").meta, config.tile), np.uint8
    )
    model = f"{'deit-tiny=' if command == 'serve' else ''}{folder / 'deit-tiny.safetensors'}"
    chosen = [command, model, "-t", "board", "--bitstream", board.bitstream]
    if command == "serve":
        Thread(target=classify, args=(photo.read_bytes(),), daemon=True).start()
        app([*chosen, "--port", str(PORT)])
    else:
        photos = work / "photos"
        photos.mkdir()
        for number in range(PHOTOS):
            shutil.copy(photo, photos / f"{number}.jpg")
        with contextlib.redirect_stdout(sys.stderr):
            status = app([*chosen, str(photos)], standalone_mode=False)
        print(peak(), flush=True)
        sys.exit(status)


if __name__ == "__main__":
    measure(Path(sys.argv[1]), sys.argv[2])
