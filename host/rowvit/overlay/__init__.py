# SPDX-License-Identifier: Apache-2.0
"""The overlay in PYNQ's manner: importing this module binds `RowvitCore` to the core of any overlay."""

from __future__ import annotations

import time
import warnings
from functools import cached_property, reduce
from pathlib import Path

import pynq
from pynq import MMIO, DefaultHierarchy, DefaultIP, Device, Overlay
from pynq.lib.dma import DMA

from rowvit.errors import RowvitError
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import ABI_VERSION, COUNTER_BASE, COUNTERS, ID, REGISTERS, Engine, Error
from rowvit.overlay.bitfile import CORE_TYPES, DMA_TYPE, Block, Handoff

BUSY, DONE, ERROR = 1, 2, 4  # of the register STATUS
_START, _RESET = 1, 2  # of the register CONTROL
MM2S, S2MM = 0x00, 0x30  # register offsets of the DMA's channels: control, and status 4 beyond
_DMA_RUN, _DMA_RESET, DMA_HALTED, DMA_IDLE = 1, 4, 1, 2
_DMA_ERRORS = {
    0x10: "internal error (the packet is longer than its buffer)",
    0x20: "slave error (memory refused the access)",
    0x40: "decode error (there is no memory at the address)",
}
NO_BOARD = "PYNQ finds no device here; run on a board with PYNQ, as root (sudo -i), or take --target sim"
_DMA_SECONDS = 1.0  # a reset takes microseconds
_SENTENCES = {
    Error.BAD_OPCODE: "the program holds an unknown instruction; compile the network again",
    Error.ADDRESS_RANGE: "the program loads beyond its blob; compile the network again",
    Error.BAD_HASH: "the program is for another configuration or ABI; compile it for this one",
    Error.AXI_READ: "a memory read failed (SLVERR or DECERR); the blob's address is not memory for the core",
    Error.WATCHDOG: "nothing moved for {watchdog} cycles; run `rowvit diagnose`",
    Error.STREAM_SHORT: "the input packet of an image ended early; the stream lost words",
    Error.STREAM_LONG: "the input packet of an image is too long; the stream is out of step",
}


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
        #: pins of the block that stand behind an interrupt controller
        self.interrupts: list[str] = [pin["fullpath"] for pin in description.get("interrupts", {}).values()]

    def get(self, name: str) -> int:
        """Read a register by its name in ``isa.REGISTERS``."""
        return self.read(REGISTERS[name][0])

    def set(self, name: str, value: int) -> None:
        """Write a register by its name in ``isa.REGISTERS``."""
        self.write(REGISTERS[name][0], int(value))

    def start(self, base: int, length: int, images: int, watchdog: int) -> None:
        """Run ``images`` images of the program at ``base``, the begin of a blob of ``length`` bytes."""
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
        """Drop what runs; clears error and counters."""
        self.set("CONTROL", _RESET)

    def counters(self) -> dict[str, int]:
        """The counters of the last start, by their names in ``isa.COUNTERS``."""
        return {name: self.read(COUNTER_BASE + 4 * i) for i, (name, _) in enumerate(COUNTERS)}

    def progress(self) -> dict[str, int]:
        """Operations that every engine has completed since start; 16 bits, they wrap."""
        done = [self.get(f"PROGRESS{i}") for i in range(3)]
        return {engine.name: done[engine // 2] >> 16 * (engine % 2) & 0xFFFF for engine in Engine}

    def error(self) -> str:
        """The sticky error as a sentence."""
        value = self.get("ERROR")
        code, index = value & 0xFF, value >> 8
        try:
            text = _SENTENCES[Error(code)].format(watchdog=self.get("WATCHDOG"))
        except (KeyError, ValueError):
            text = f"unknown error code {code}; the bitstream may be newer than this software"
        return f"the core stopped at instruction {index}: {text}"

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


class RowvitHierarchy(DefaultHierarchy):
    """A hierarchy of the block design that holds a core and its DMA: ``core`` and ``dma``."""

    @cached_property
    def core(self) -> RowvitCore:
        return getattr(self, _named(self.description, "core"))

    @cached_property
    def dma(self) -> DMA:
        name = _named(self.description, "dma")
        ip = self.description["ip"][name]
        wake(MMIO(ip["phys_addr"], ip["addr_range"], device=self.device), ip["fullpath"])
        return getattr(self, name)

    @staticmethod
    def checkhierarchy(description: dict) -> bool:
        return all(_named(description, kind) for kind in ("core", "dma"))


class RowvitOverlay(Overlay):
    """A bitstream with a rowvit core.

    The files are judged before anything is loaded, and the core's ID, ABI and configuration hash before
    anything else is asked of it. ``overlay.core`` is its `RowvitCore`, ``overlay.dma`` the AXI DMA,
    ``overlay.frontend`` "hls" if the preprocessor stands between them, otherwise "host".

    Parameters
    ----------
    bitfile_name : str or Path
        The .bit; its .hwh lies beside it.
    config : HardwareConfig, optional
        What the bitstream shall be of; by default what the .hwh says.
    device : pynq.Device, optional
    download : bool
        False if the bitstream is loaded already.
    frontend : str, optional
        "host" or "hls": what the bitstream shall have; by default what the .hwh says.

    Raises
    ------
    RowvitError
        A file is missing or of another design or configuration, there is no device, PYNQ's cached
        metadata are not the .hwh's, or the core is not what the .hwh says.
    """

    def __init__(
        self,
        bitfile_name: str | Path,
        config: HardwareConfig | None = None,
        device: Device | None = None,
        download: bool = True,
        frontend: str | None = None,
    ) -> None:
        path = Path(bitfile_name).absolute()
        if not path.is_file():
            raise RowvitError(f"{path} does not exist; build it or copy it to the board")
        self.handoff = Handoff(path.with_suffix(".hwh"))
        self.config = config or self.handoff.config
        self.frontend = self.handoff.frontend
        if self.handoff.config.hash != self.config.hash:
            raise RowvitError(
                f"{self.handoff.path} is of configuration {' or '.join(self.handoff.config_names()) or '?'}"
                f" (hash 0x{self.handoff.config.hash:08X}), not of '{self.config.name}'"
                f" (0x{self.config.hash:08X}); name the configuration it was built for"
            )
        if frontend not in (None, self.frontend):
            raise RowvitError(
                f"{path} has the {self.frontend} front end, not {frontend}; take --frontend {self.frontend},"
                " or another bitstream"
            )
        if self.handoff.zynq_7000 and int(pynq.__version__.split(".")[0]) >= 4:
            raise RowvitError(
                f"{path} is for a Zynq-7000, which PYNQ {pynq.__version__} no longer supports; use PYNQ 3.1"
            )
        if device is None and not board_here():
            raise RowvitError(NO_BOARD)
        super().__init__(str(path), download=False, device=device)
        for block in (self.handoff.core, self.handoff.dma):
            self._compare(block)
        if download:
            self.download()
        self._check_core()

    @cached_property
    def core(self) -> RowvitCore:
        return self._driver(self.handoff.core)

    @cached_property
    def dma(self) -> DMA:
        """The AXI DMA; `RowvitError` if it does not answer or lacks a channel."""
        block = self.handoff.dma
        # PYNQ's driver waits for ever for channels that do not start
        wake(MMIO(block.base, block.size, device=self.device), block.path)
        dma = self._driver(block)
        if not isinstance(dma, DMA):
            raise RowvitError(f"PYNQ has no driver for {block.path} ({block.type}); use AXI DMA 7.1")
        if None in (dma.sendchannel, dma.recvchannel):
            raise RowvitError(
                f"bitstream {self.bitfile_name}: its AXI DMA lacks a channel; build it with MM2S and S2MM"
            )
        return dma

    def _check_core(self) -> None:
        """Three reads, before any driver is made: PYNQ's write to interrupt controller and DMA."""
        where, block = f"bitstream {self.bitfile_name}", self.handoff.core
        registers = MMIO(block.base, block.size, device=self.device)
        identity, abi, found = (registers.read(REGISTERS[name][0]) for name in ("ID", "ABI", "CONFIG_HASH"))
        if identity != ID:
            raise RowvitError(
                f"{where}: register ID reads 0x{identity:08X}, not 0x{ID:08X}: no rowvit core is at this"
                " address; the .hwh may be another bitstream's"
            )
        if abi != ABI_VERSION:
            raise RowvitError(
                f"{where} has ABI {abi}, this software {ABI_VERSION}; build both from the same version"
            )
        if found != self.config.hash:
            raise RowvitError(
                f"{where} was built for a configuration with hash 0x{found:08X}, but '{self.config.name}' has"
                f" 0x{self.config.hash:08X}; name the configuration it was built for, and copy its own .hwh"
            )

    def _driver(self, block: Block):
        return reduce(getattr, block.path.split("/"), self)

    def _compare(self, block: Block) -> None:
        """PYNQ keeps the metadata of the last bitstream on disk and takes them for the same .bit again."""
        known = self.ip_dict.get(block.path)
        if known is None:
            difference = f"do not hold {block.path}"
        elif (known["phys_addr"], known["addr_range"]) != (block.base, block.size):
            difference = (
                f"have {block.path} at 0x{known['phys_addr']:08X}, the .hwh has it at 0x{block.base:08X}"
            )
        elif changed := [
            name
            for name, value in known["parameters"].items()
            if str(value) != block.parameters.get(name.lower(), str(value))
        ]:
            difference = f"have another {changed[0]} of {block.path} than the .hwh"
        else:
            return
        raise RowvitError(
            f"PYNQ's metadata of {self.bitfile_name} are not those of the .hwh beside it: they {difference};"
            f" delete {' and '.join(map(str, cached_metadata())) or 'the cached metadata'} and load again"
        )


def board_here() -> bool:
    """Whether PYNQ finds the logic of a board."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PYNQ's, of a PC without accelerator cards
        return bool(Device.devices)


def cached_metadata() -> list[Path]:
    """Files in which PYNQ remembers the last bitstream."""
    folder = Path(pynq.__file__).parent / "pl_server"
    return sorted([*folder.glob("*_metadata*.pkl"), *folder.glob("global_pl_state*.json")])


def dma_state(status: int) -> str:
    """A channel's status register in words."""
    if errors := [text for bit, text in _DMA_ERRORS.items() if status & bit]:
        return f"{', '.join(errors)} (status 0x{status:08X})"
    text = "halted" if status & DMA_HALTED else "idle" if status & DMA_IDLE else "waiting"
    return f"{text} (status 0x{status:08X})"


def dma_failed(status: int) -> bool:
    return any(status & bit for bit in _DMA_ERRORS)


def wake(registers: MMIO | DMA, name: str) -> None:
    """Reset both channels of a DMA and start them; a transfer that never ends is dropped.

    Raises
    ------
    RowvitError
        It does not answer as a DMA does.
    """

    def wait(offset: int, bit: int, what: str) -> None:
        deadline = time.monotonic() + _DMA_SECONDS
        while (value := registers.read(offset)) & bit:
            if time.monotonic() > deadline:
                raise RowvitError(
                    f"{name} does not {what}: register 0x{offset:02X} reads 0x{value:08X} after"
                    f" {_DMA_SECONDS:g} s, it is no AXI DMA or has no clock; use .bit and .hwh of one build"
                )

    registers.write(MM2S, _DMA_RESET)
    wait(MM2S, _DMA_RESET, "leave its reset")
    for channel in (MM2S, S2MM):
        registers.write(channel, _DMA_RUN)
        wait(channel + 4, DMA_HALTED, "start")


def _named(description: dict, kind: str) -> str | None:
    """The block of a hierarchy that is the core or the DMA."""
    for name, ip in description["ip"].items():
        if ip["type"] in CORE_TYPES if kind == "core" else ip["type"].startswith(DMA_TYPE):
            return name
    return None
