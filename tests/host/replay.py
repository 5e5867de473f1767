# SPDX-License-Identifier: Apache-2.0
"""What the stand-in core replays: the records of one image, and the program that makes it send them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pynq

from rowvit.compiler import Program
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import boards
from rowvit.hardware.isa import Record
from rowvit.sim.device import SimDevice
from rowvit.targets.driver import Accelerator

#: boards of the families that this PYNQ supports: PYNQ 4 dropped Zynq-7000
BOARDS = [
    name
    for name, board in boards().items()
    if int(pynq.__version__.split(".")[0]) < 4 or board.family.name != "zynq-7000"
]
TINY = replace(configs.load("tiny"), board=BOARDS[0])
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def record(kind: Record, tag: int, count: int, payload: np.ndarray, image: int = 0) -> bytes:
    raw = payload.tobytes()
    header = kind | image << 4 | tag << 8 | count << 16 | len(raw) << 32
    return header.to_bytes(8, "little") + raw + bytes(-len(raw) % 8)


def mark(tag: int, cycles: int, fires: int) -> bytes:
    return record(Record.MARK, tag, 1, np.array([cycles, fires], np.uint32))


ANSWER = b"".join(
    [
        mark(255, 10, 4),
        record(Record.CHECKPOINT, 0, 2, np.arange(32, dtype=np.int16)),
        record(Record.KEPT, 0, 3, np.array([0, 2, 4], np.uint16)),
        record(Record.CHECKPOINT, 1, 1, np.arange(16, dtype=np.int16)),
        record(Record.CHECKPOINT, 2, 1, -np.arange(16, dtype=np.int16)),
        mark(0, 30, 9),
        record(Record.LOGITS, 0, 3, np.array([1, 7, -2], np.int16)),
    ]
)


def program(answer: bytes = ANSWER, output_bytes: int | None = None, **changes) -> Program:
    """What the stand-in answers every image with, as a program."""
    meta = {
        "config": {"name": "tiny", "hash": TINY.hash},
        "model": {"name": "replay", "hash": ""},
        "architecture": dict(
            image_size=8,
            patch_size=4,
            channels=3,
            dim=16,
            depth=1,
            heads=1,
            hidden=16,
            classes=3,
            prefix=1,
            tokens=5,
        ),
        "classes": ["ant", "bee", "cow"],
        "preprocessing": {"resize": "bilinear"},
        "scales": {"logit": 0.25},
        "pruning": [{"layer": 0, "keep": 2, "threshold": 0}],
        "ffn2_rule": "image",
        "tile_rows": 0,
        "input": {"rows": 4, "row_words": 6, "bytes": 192},
        "passes": [
            {
                "images": 1,
                "shares": [1],
                "output_bytes": len(answer) if output_bytes is None else output_bytes,
                "instructions": 0,
                "operations": [],
            }
        ],
    }
    code = np.zeros((0, 32), np.uint16)
    return Program(code, np.frombuffer(answer, np.uint8), meta | changes, checked=True)


def leak_free(acc: Accelerator) -> bool:
    """Whether only the network is in the device's memory, if there is one."""
    gc.collect()
    return len(acc.device._used) == (acc.program is not None)


def fpga_manager(device: SimDevice, folder: Path, state: str, error: OSError | None = None) -> None:
    """From now on the device has the kernel's FPGA manager, in ``folder``; bitstreams bring it to ``state``,
    with ``error`` for who loads them.
    """
    device.BS_FPGA_MAN = str(folder / "firmware")
    (folder / "state").write_text("operating\n")
    load = device.download

    def download(*arguments) -> None:
        (folder / "state").write_text(f"{state}\n")
        if error is not None:
            raise error
        load(*arguments)

    device.download = download


def disturb(device: SimDevice, reads: dict[int, int | Callable[[int], int]]) -> None:
    """From now on registers read other values: by address, a value or a function of the true one."""
    read = device.read_registers

    def disturbed(address: int, length: int) -> bytes:
        value = int.from_bytes(read(address, length), "little")
        change = reads.get(address, value)
        return (change(value) if callable(change) else change).to_bytes(length, "little")

    device.read_registers = disturbed
