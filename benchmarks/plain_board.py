# SPDX-License-Identifier: Apache-2.0
"""A board whose registers are plain memory and whose core has always finished, for benchmarks of the driver.

What the driver does on it is what it does on a board, less the kernel and cache flushes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rowvit.formats.program import Program
from rowvit.hardware.block_design import CORE, DMA, block_design
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import ABI_VERSION, COUNTER_BASE, COUNTERS, ID, REGISTERS, Record
from rowvit.overlay import RowvitOverlay
from rowvit.overlay.bitfile import BitHeader
from rowvit.overlay.dma import MM2S, S2MM
from rowvit.pynq import Device, PynqBuffer
from rowvit.sim import hwh
from rowvit.sim.device import MemoryModel, SimDevice
from rowvit.targets.driver import Accelerator

DONE = 2  #: of the core's STATUS; of the DMA's, that a channel is idle


class _Waking(np.ndarray):
    """Registers of a DMA that leaves its reset."""

    def __setitem__(self, index: int, value: int) -> None:
        waking = index in (MM2S // 4, S2MM // 4) and value == 4
        super().__setitem__(index, 0 if waking else value)


class Board(SimDevice):
    """A board whose registers are plain memory; its core is always done, and has sent ``answer``."""

    def __init__(self, config: HardwareConfig, folder: Path, frontend: str = "host") -> None:
        Device.__init__(self, "plain")
        self.name, self.config, self.model, self._open = "plain", config, MemoryModel(), None
        self.capabilities = {"MEMORY_MAPPED": True}
        self.arch = "armv7l" if hwh.is_zynq_7000(config) else "aarch64"
        self.timestamp, self.answer = "", np.zeros(0, np.uint8)
        self.ddr, self._used = np.empty(128 << 20, np.uint8), {}
        self.memory: dict[int, np.ndarray] = {}
        self.clocks = hwh.clock_registers(config)
        self.bitstream = str(folder / f"{config.name}-{frontend}.bit")
        header = BitHeader("rowvit_wrapper", "", "simulation", "", "", 0)
        Path(self.bitstream).write_bytes(header.encode(b""))
        Path(self.bitstream).with_suffix(".hwh").write_text(hwh.handoff(config, frontend))
        self.design = block_design(config, frontend=frontend)
        Device.active_device = self

    def close(self) -> None:
        pass

    def mmap(self, base: int, length: int) -> np.ndarray:
        if base not in self.memory:
            words = np.zeros(length // 4, np.uint32).view(_Waking)
            for address, value in self.clocks.items():
                if base <= address < base + length:
                    words[(address - base) // 4] = value
            for slave in self.design.addresses:
                if slave.base == base and slave.cell == CORE:
                    for name, value in (
                        ("ID", ID),
                        ("ABI", ABI_VERSION),
                        ("CONFIG_HASH", self.config.hash),
                        ("STATUS", DONE),
                    ):
                        words[REGISTERS[name][0] // 4] = value
                    first = COUNTER_BASE // 4
                    words[first : first + len(COUNTERS)] = 1_000  # beyond the answer's marks
                elif slave.base == base and slave.cell == DMA and length > 0x34:
                    words[0x04 // 4] = words[0x34 // 4] = 2
            self.memory[base] = words
        return self.memory[base]

    def download(self, bitstream: object, parser: object = None) -> None:
        pass

    def allocate(self, shape: tuple[int, ...], dtype: object, **_: object) -> PynqBuffer:
        buffer = super().allocate(shape, dtype)
        if shape[-1] == self.answer.size:
            buffer[:] = self.answer
        return buffer

    def flush(self, *_: int) -> None:
        pass

    invalidate = flush


def record(kind: Record, tag: int, count: int, payload: np.ndarray) -> bytes:
    raw = payload.tobytes()
    return (kind | tag << 8 | count << 16 | len(raw) << 32).to_bytes(8, "little") + raw + bytes(-len(raw) % 8)


def answer(meta: dict, tile: int) -> bytes:
    """What the core sends for one image: any logits, and the first of the tokens."""
    arch = meta["architecture"]
    keep = {entry["layer"]: entry["keep"] for entry in meta["pruning"]}
    parts, live = [], arch["tokens"]
    for layer in range(arch["depth"] + 1):
        parts.append(record(Record.MARK, 255 if not layer else layer - 1, 1, np.array([9 * layer, 0], "<u4")))
        if layer in keep:
            live = min(live, arch["prefix"] + keep[layer])
            parts.append(record(Record.KEPT, layer, live, np.arange(live, dtype="<u2")))
    logits = np.arange(arch["classes"], dtype="<i2")
    for first in range(0, arch["classes"], tile):
        some = logits[first : first + tile]
        parts.append(record(Record.LOGITS, 0, len(some), some))
    return b"".join(parts)


def plain(config: HardwareConfig, folder: Path, frontend: str = "host") -> Accelerator:
    """An accelerator on a `Board`, whose registers are plain memory from now on, as a board's are."""
    board = Board(config, folder, frontend)
    acc = Accelerator(RowvitOverlay(board.bitstream, config, board, frontend=frontend))
    for registers in (acc.core.mmio, acc.dma.mmio):
        registers.array = registers.array.view(np.ndarray)
    return acc


def ready(acc: Accelerator, model: Program) -> None:
    acc.load(model)
    acc.device.answer = np.frombuffer(answer(model.meta, acc.config.tile), np.uint8)
    assert acc.device.answer.size == model.passes[0].output_bytes
