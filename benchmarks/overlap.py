# SPDX-License-Identifier: Apache-2.0
"""Images per second from JPEGs, with a core that takes a fixed time: how far decoding and the core overlap.

    python benchmarks/overlap.py --record

The core is none: its DMA has an answer when the time is over, which is that of sign-digits or DeiT-Tiny on
PYNQ-Z2 or KV260, pruned or not. Driver and decoder are the real ones, on this machine. The bound is the
slower of the core, and of decoding alone with every processor.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import typer
from host import FOLDER, SIZES, prepare
from plain_board import DONE, plain, ready
from record import Record, record

from rowvit.formats.program import Program
from rowvit.hardware.config import load
from rowvit.hardware.isa import REGISTERS
from rowvit.overlay.dma import S2MM
from rowvit.targets.driver import Accelerator

MILLISECONDS = 1.6, 3.1, 9.4, 22.8
SECONDS = 3.0  #: a run's, about
CONTROL, STATUS, LENGTH = REGISTERS["CONTROL"][0] // 4, (S2MM + 4) // 4, (S2MM + 0x28) // 4


class Core(np.ndarray):
    """Registers of a core that is done ``seconds`` after its start."""

    seconds = 0.0
    done = 0.0

    def __setitem__(self, index: int, value: int) -> None:
        if index == CONTROL:
            Core.done = time.monotonic() + Core.seconds
        super().__setitem__(index, value)


class Dma(np.ndarray):
    """Registers of a DMA that waits for that core's answer."""

    armed = False

    def __setitem__(self, index: int, value: int) -> None:
        if index == LENGTH:
            Dma.armed = True
        super().__setitem__(index, value)

    def __getitem__(self, index: int) -> int:
        if index != STATUS:
            return super().__getitem__(index)
        Dma.armed = Dma.armed and time.monotonic() < Core.done
        return 0 if Dma.armed else DONE


def rate(acc: Accelerator, files: list[Path]) -> float:
    """Images per second of a stream of files."""
    list(acc.stream(files[:4]))
    begin = time.monotonic()
    count = sum(1 for _ in acc.stream(files))
    return count / (time.monotonic() - begin)


def decoding(acc: Accelerator, file: Path) -> float:
    """Images per second of decoding alone."""
    list(acc.prepared([file] * 4))
    begin = time.monotonic()
    count = sum(1 for _ in acc.prepared([file] * 100))
    return count / (time.monotonic() - begin)


def main(keep: Record = False) -> None:
    """Print a Markdown table of photos by time of the core."""
    prepare()
    print("| JPEG | core, ms | images/s | core alone | decoding alone | of the lower |\n|" + " -- |" * 6)
    with plain(load("pynq-z2"), FOLDER) as acc:
        ready(acc, Program.load(FOLDER / "deit-tiny.rowvit"))
        acc.core.mmio.array = acc.core.mmio.array.view(Core)
        acc.dma.mmio.array = acc.dma.mmio.array.view(Dma)
        for size in SIZES:
            file = FOLDER / f"{size}.jpg"
            for milliseconds in MILLISECONDS:
                Core.seconds = milliseconds / 1e3
                core, alone = 1 / Core.seconds, decoding(acc, file)
                lower = min(core, alone)
                found = rate(acc, [file] * max(20, round(SECONDS * lower)))
                row = f"{found:.0f} | {core:.0f} | {alone:.0f} | {found / lower:.0%}"
                print(f"| {size} | {milliseconds} | {row} |", flush=True)
                if keep:
                    figures = {"rate": found, "core": core, "decoding": alone, "of_lower": found / lower}
                    record("overlap", f"{size} {milliseconds}", figures)


if __name__ == "__main__":
    typer.run(main)
