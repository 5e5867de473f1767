# SPDX-License-Identifier: Apache-2.0
"""The core's registers as a PYNQ driver."""

from __future__ import annotations

from rowvit.errors import RowvitError
from rowvit.hardware.isa import BUSY, COUNTER_BASE, COUNTERS, DONE, ERROR, NOWHERE, REGISTERS, Engine, Error
from rowvit.overlay.bitfile import CORE_TYPES
from rowvit.pynq import DefaultIP

_START, _RESET = 1, 2  # of the register CONTROL
_ERRORS: dict[int, tuple[str, str]] = {
    Error.BAD_OPCODE: ("the program holds an unknown instruction", "compile the network again"),
    Error.ADDRESS_RANGE: ("the program loads or goes on beyond its blob", "compile the network again"),
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
_STARTED = [  # words that a start writes, in this order
    REGISTERS[name][0] // 4
    for name in (
        *("BASE_LO", "BASE_HI", "PROGRAM", "LENGTH", "PASSES", "WATCHDOG"),
        *("IRQ_STATUS", "IRQ_ENABLE", "CONTROL"),
    )
]
_FIRST = COUNTER_BASE // 4
_COUNTERS = {name: _FIRST + number for number, (name, _) in enumerate(COUNTERS)}  # words


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
        return int(self.mmio.array[REGISTERS[name][0] // 4])

    def set(self, name: str, value: int) -> None:
        """Write a register by its name in ``isa.REGISTERS``."""
        self.mmio.array[REGISTERS[name][0] // 4] = int(value)

    def start(self, base: int, length: int, program: int, passes: int, watchdog: int) -> None:
        """Run ``passes`` passes of the program at ``program`` in the blob of ``length`` bytes at ``base``."""
        words = self.mmio.array
        values = base & 0xFFFFFFFF, base >> 32, program, length, passes, watchdog, 3, 3, _START
        for word, value in zip(_STARTED, values, strict=True):
            words[word] = value

    def reset(self) -> None:
        """Abandon what is running, and clear error and counters."""
        self.set("CONTROL", _RESET)
        self.get("STATUS")  # the write is answered some cycles before the last word of output is gone

    def counters(self) -> dict[str, int]:
        """The counters of the last start, by their names in ``isa.COUNTERS``."""
        words = self.mmio.array[_FIRST : _FIRST + len(_COUNTERS)]
        return dict(zip(_COUNTERS, map(int, words), strict=True))

    def counter(self, name: str) -> int:
        """One of the `counters`."""
        return int(self.mmio.array[_COUNTERS[name]])

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
        where = "" if code in NOWHERE else f" at instruction {index}"
        return RowvitError(f"the core stopped{where}: {text}", advice)

    def state(self) -> str:
        """Status, progress and words moved, in a few words."""
        status, counters = self.get("STATUS"), self.counters()
        flags = [name for bit, name in ((BUSY, "busy"), (DONE, "done"), (ERROR, "stopped")) if status & bit]
        done = ", ".join(f"{name} {count}" for name, count in self.progress().items())
        return (
            f"core {' and '.join(flags) or 'idle'} (status 0x{status:08X}), {status >> 16} passes done,"
            f" {self.get('LIVE')} live tokens, operations done {done},"
            f" {counters['axi_beats']} words read from memory, {counters['recv_words']} received,"
            f" {counters['send_words']} sent"
        )
