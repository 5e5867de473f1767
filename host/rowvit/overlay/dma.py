# SPDX-License-Identifier: Apache-2.0
"""The AXI DMA's registers, as far as PYNQ's driver does not use or explain them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rowvit.errors import RowvitError

if TYPE_CHECKING:
    from rowvit.pynq import DMA, MMIO

MM2S, S2MM = 0x00, 0x30  # register offsets of the channels: control, and 4 bytes on, status
DMA_HALTED, DMA_IDLE = 1, 2  # of a status register
_RUN, _RESET = 1, 4  # of a control register
_ERRORS = {
    0x10: "internal error (the packet is longer than its buffer)",
    0x20: "slave error (memory refused the access)",
    0x40: "decode error (there is no memory at the address)",
}
_FAILED = sum(_ERRORS)
_SECONDS = 1.0  # a reset takes microseconds


def dma_state(status: int) -> str:
    """A channel's status register in words."""
    if errors := [text for bit, text in _ERRORS.items() if status & bit]:
        return f"{', '.join(errors)} (status 0x{status:08X})"
    text = "halted" if status & DMA_HALTED else "idle" if status & DMA_IDLE else "waiting"
    return f"{text} (status 0x{status:08X})"


def dma_failed(status: int) -> bool:
    return status & _FAILED != 0


def stop(registers: MMIO | DMA, name: str) -> None:
    """Reset both channels of a DMA, which then takes and sends nothing; a transfer under way is abandoned.

    `RowvitError` if it does not behave as a DMA.
    """
    registers.write(MM2S, _RESET)
    _wait(registers, MM2S, _RESET, f"{name} does not leave its reset")


def wake(registers: MMIO | DMA, name: str) -> None:
    """`stop` and `start`."""
    stop(registers, name)
    start(registers, name)


def start(registers: MMIO | DMA, name: str) -> None:
    """Start both channels of a DMA; `RowvitError` if it does not behave as one."""
    for channel in (MM2S, S2MM):
        registers.write(channel, _RUN)
        _wait(registers, channel + 4, DMA_HALTED, f"{name} does not start")


def _wait(registers: MMIO | DMA, offset: int, bit: int, problem: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while (value := registers.read(offset)) & bit:
        if time.monotonic() > deadline:
            raise RowvitError(
                f"{problem}: register 0x{offset:02X} reads 0x{value:08X} after {_SECONDS:g} s, so it is no"
                " AXI DMA or has no clock",
                "use .bit and .hwh of one build",
            )
