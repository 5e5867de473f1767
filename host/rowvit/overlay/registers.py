# SPDX-License-Identifier: Apache-2.0
"""The registers of the core, as a PYNQ driver; those of the DMA, as far as PYNQ's does not explain them."""

from __future__ import annotations

import time

from pynq import MMIO, DefaultIP
from pynq.lib.dma import DMA

from rowvit.errors import RowvitError
from rowvit.hardware.isa import COUNTER_BASE, COUNTERS, REGISTERS, Engine, Error
from rowvit.overlay.bitfile import CORE_TYPES

BUSY, DONE, ERROR = 1, 2, 4  # of the register STATUS
_START, _RESET = 1, 2  # of the register CONTROL
_ERRORS: dict[int, tuple[str, str]] = {
    Error.BAD_OPCODE: ("the program holds an unknown instruction", "compile the network again"),
    Error.ADDRESS_RANGE: ("the program loads beyond its blob", "compile the network again"),
    Error.BAD_HASH: ("the program is for another configuration or ABI", "compile it for this one"),
    Error.AXI_READ: (
        "a memory read failed (SLVERR or DECERR)",
        "see that the core reaches the memory at the blob's address",
    ),
    Error.WATCHDOG: ("nothing moved for {watchdog} cycles", "run `rowvit diagnose`"),
    Error.STREAM_SHORT: (
        "the input packet of an image ended early",
        "run `rowvit diagnose`: the stream lost words",
    ),
    Error.STREAM_LONG: (
        "the input packet of an image is too long",
        "run `rowvit diagnose`: the stream is out of step",
    ),
}

MM2S, S2MM = 0x00, 0x30  # register offsets of the channels: control, and 4 bytes on, status
DMA_HALTED, DMA_IDLE = 1, 2  # of a status register
_DMA_RUN, _DMA_RESET = 1, 4  # of a control register
_DMA_ERRORS = {
    0x10: "internal error (the packet is longer than its buffer)",
    0x20: "slave error (memory refused the access)",
    0x40: "decode error (there is no memory at the address)",
}
_SECONDS = 1.0  # a reset takes microseconds


class RowvitCore(DefaultIP):
    """The core's registers.

    ``read(offset)`` and ``write(offset, value)`` are `pynq.DefaultIP`'s.

    Parameters
    ----------
    description : dict
        The core's entry in ``Overlay.ip_dict``.
    """

    bindto = list(CORE_TYPES)

    def __init__(self, description: dict) -> None:
        super().__init__(description)
        self.path: str = description["fullpath"]
        #: pins of the block that are connected to an interrupt controller
        self.interrupts: list[str] = [pin["fullpath"] for pin in description.get("interrupts", {}).values()]

    def get(self, name: str) -> int:
        """Read a register by its name in ``isa.REGISTERS``."""
        return self.read(REGISTERS[name][0])

    def set(self, name: str, value: int) -> None:
        """Write a register by its name in ``isa.REGISTERS``."""
        self.write(REGISTERS[name][0], int(value))

    def start(self, base: int, length: int, images: int, watchdog: int) -> None:
        """Run ``images`` images of the program at the start of the blob of ``length`` bytes at ``base``."""
        for name, value in (
            ("BASE_LO", base & 0xFFFFFFFF),
            ("BASE_HI", base >> 32),
            ("PROGRAM", 0),
            ("LENGTH", length),
            ("IMAGES", images),
            ("WATCHDOG", watchdog),
            ("IRQ_STATUS", 3),
            ("IRQ_ENABLE", 3),
            ("CONTROL", _START),
        ):
            self.set(name, value)

    def reset(self) -> None:
        """Abandon what is running, and clear error and counters."""
        self.set("CONTROL", _RESET)

    def counters(self) -> dict[str, int]:
        """The counters of the last start, by their names in ``isa.COUNTERS``."""
        return {name: self.read(COUNTER_BASE + 4 * i) for i, (name, _) in enumerate(COUNTERS)}

    def progress(self) -> dict[str, int]:
        """Operations that each engine has completed since start; they wrap at 16 bits."""
        done = [self.get(f"PROGRESS{i}") for i in range(3)]
        return {engine.name: done[engine // 2] >> 16 * (engine % 2) & 0xFFFF for engine in Engine}

    def error(self) -> RowvitError:
        """The sticky error as an exception to raise."""
        value = self.get("ERROR")
        code, index = value & 0xFF, value >> 8
        unknown = f"unknown error code {code}", "build bitstream and software from the same version"
        text, advice = _ERRORS.get(code, unknown)
        text = text.format(watchdog=self.get("WATCHDOG"))
        return RowvitError(f"the core stopped at instruction {index}: {text}", advice)

    def state(self) -> str:
        """Status, progress and words moved, in a few words."""
        status, counters = self.get("STATUS"), self.counters()
        flags = [name for bit, name in ((BUSY, "busy"), (DONE, "done"), (ERROR, "stopped")) if status & bit]
        done = ", ".join(f"{name} {count}" for name, count in self.progress().items())
        return (
            f"core {' and '.join(flags) or 'idle'} (status 0x{status:08X}), {status >> 16} images done,"
            f" {self.get('LIVE')} live tokens, operations done {done},"
            f" {counters['axi_beats']} words read from memory, {counters['recv_words']} received,"
            f" {counters['send_words']} sent"
        )


def dma_state(status: int) -> str:
    """A channel's status register in words."""
    if errors := [text for bit, text in _DMA_ERRORS.items() if status & bit]:
        return f"{', '.join(errors)} (status 0x{status:08X})"
    text = "halted" if status & DMA_HALTED else "idle" if status & DMA_IDLE else "waiting"
    return f"{text} (status 0x{status:08X})"


def dma_failed(status: int) -> bool:
    return any(status & bit for bit in _DMA_ERRORS)


def wake(registers: MMIO | DMA, name: str) -> None:
    """Reset both channels of a DMA and start them; a transfer that never ends is abandoned.

    `RowvitError` if it does not behave as a DMA.
    """

    def wait(offset: int, bit: int, what: str) -> None:
        deadline = time.monotonic() + _SECONDS
        while (value := registers.read(offset)) & bit:
            if time.monotonic() > deadline:
                raise RowvitError(
                    f"{name} does not {what}: register 0x{offset:02X} reads 0x{value:08X} after"
                    f" {_SECONDS:g} s, so it is no AXI DMA or has no clock",
                    "use .bit and .hwh of one build",
                )

    registers.write(MM2S, _DMA_RESET)
    wait(MM2S, _DMA_RESET, "leave its reset")
    for channel in (MM2S, S2MM):
        registers.write(channel, _DMA_RUN)
        wait(channel + 4, DMA_HALTED, "start")
