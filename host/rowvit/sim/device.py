# SPDX-License-Identifier: Apache-2.0
"""A PYNQ device whose logic is the Verilated RTL.

``pynq.Overlay``, ``MMIO``, ``lib.dma.DMA``, ``allocate`` and ``Interrupt`` work on it as on a board.
Buffers are not coherent: the CPU's copy and the device's differ until ``flush`` or ``invalidate``, so that
a forgotten one fails here as it would on the board.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from rowvit.errors import RowvitError, temporary_directory
from rowvit.hardware.block_design import CORE, DMA, INTC, block_design
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import COUNTERS, NOWHERE, REGISTERS, Engine, Error
from rowvit.hardware.memory import Memory
from rowvit.overlay.bitfile import BitHeader
from rowvit.pynq import Device, Metadata, PynqBuffer, RuntimeMetadataParser, interrupt
from rowvit.sim import hwh
from rowvit.sim.verilate import build, build_frontend

DDR_BASE = 0x10000000
PAGE = 4096
STEP = 2000  # cycles that one read of a status register may take
IRQ_LINES = {"armv7l": 61, "aarch64": 121}
_PORTS = ("read", "send", "receive", "address")
_EFFECTS = ("pause", "flip", "last", "error")
_FAILURES = (
    "",
    "an AXI4-Lite access got no answer in 100000 cycles",
    "the core changed a read address before it was taken",
    "the core asked for a read burst that AXI4 or the memory does not allow",
    "the core changed a word of its output stream before it was taken",
    "the core broke an assertion, which stands on the standard output",
)


@dataclass(frozen=True)
class MemoryModel(Memory):
    """The simulated DDR."""

    megabytes: int = 128  #: by default as many as are behind ``allocate`` on a PYNQ-Z2

    def __post_init__(self) -> None:
        if self.latency < 0 or not 1 <= self.rate <= 100 or not 1 <= self.megabytes <= 4096:
            raise RowvitError(
                f"no memory has latency {self.latency}, rate {self.rate} % and {self.megabytes} MB",
                "use a latency from 0, a rate of 1 to 100 and a size of 1 to 4096",
            )


_EVENT = np.dtype([("done", "<u2", len(Engine)), ("counters", "<u4", len(COUNTERS))])


class _Stats(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("cycles", "progress", "bursts", "beats", "sent", "received", "failure")
    ]


@cache
def _library(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise RowvitError(
            f"the simulator cannot be loaded ({error})",
            "set the variable ROWVIT_CACHE to a directory from which programs may run",
        ) from error
    u32, u64, handle = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
    library.rowvit_new.argtypes = [handle, u64, u64, u32, u32, ctypes.c_int, u64]
    library.rowvit_new.restype = handle
    library.rowvit_load_frontend.argtypes = [handle, ctypes.c_char_p]
    library.rowvit_delete.argtypes = library.rowvit_reset.argtypes = [handle]
    library.rowvit_run.argtypes = [handle, u64]
    library.rowvit_read.argtypes = [handle, u32, ctypes.POINTER(u32)]
    library.rowvit_write.argtypes = library.rowvit_dma_write.argtypes = [handle, u32, u32]
    library.rowvit_dma_read.argtypes = [handle, u32]
    library.rowvit_dma_read.restype = u32
    library.rowvit_interrupts.argtypes = library.rowvit_active.argtypes = [handle]
    library.rowvit_interrupts.restype = library.rowvit_active.restype = u32
    library.rowvit_stats.argtypes = [handle, ctypes.POINTER(_Stats)]
    library.rowvit_inject.argtypes = [handle, u32, u32, u64, u64]
    library.rowvit_watch.argtypes = [handle, ctypes.c_int]
    library.rowvit_event_count.argtypes = library.rowvit_events.argtypes = [handle]
    library.rowvit_event_count.restype = u64
    library.rowvit_activity_names.argtypes = library.rowvit_activity.argtypes = [handle]
    library.rowvit_activity_names.restype = ctypes.c_char_p
    library.rowvit_activity.restype = ctypes.POINTER(u64)
    library.rowvit_events.restype = ctypes.POINTER(u32)
    library.rowvit_trace.argtypes = [handle, ctypes.c_char_p, u64, u64]
    return library


class _InterruptController:
    """The registers of an AXI interrupt controller (PG099) that PYNQ uses."""

    STATUS, PENDING, ENABLE, SET, CLEAR, MASTER = 0x00, 0x04, 0x08, 0x10, 0x14, 0x1C

    def __init__(self) -> None:
        self.enabled = self.master = 0

    def read(self, offset: int, lines: int) -> int:
        values = {self.STATUS: lines, self.PENDING: lines & self.enabled, self.ENABLE: self.enabled}
        return values.get(offset, self.master if offset == self.MASTER else 0)

    def write(self, offset: int, value: int) -> None:
        if offset == self.ENABLE:
            self.enabled = value
        elif offset == self.SET:
            self.enabled |= value
        elif offset == self.CLEAR:
            self.enabled &= ~value
        elif offset == self.MASTER:
            self.master = value


class _InterruptLine:
    """Replaces the UIO file of the PS interrupt: waiting for it lets the simulation run."""

    def __init__(self, device: SimDevice) -> None:
        self.device = device

    def add_event(self, event: asyncio.Event, number: int) -> None:
        def look() -> None:
            with suppress(RowvitError):  # which the waiter meets at its next access
                if not self.device.interrupt_pending():
                    self.device.advance()
                    asyncio.get_event_loop().call_soon(look)
                    return
            with suppress(RowvitError):  # PYNQ's interrupt controller reads the registers of a closed device
                event.set()

        asyncio.get_event_loop().call_soon(look)


class SimDevice(Device):
    """The core of one configuration, its DMA and memory, as a PYNQ device.

    It is also a context manager, which closes it.

    Parameters
    ----------
    config : HardwareConfig
    memory : MemoryModel, optional
    stalls : int
        Seed of random stalls on every channel; 0 for none.
    budget : int
        Cycles without any word moving, while the host waits, that end the wait with an error.
    trace : path, optional
        Waveform (FST) of the cycles in ``window``.
    window : tuple of int
        First cycle and the one after the last, counted from the start of the simulation.
    rtl : Path, optional
        Directory with another ``rowvit_top.v``.
    activity : bool
        Count what `activity` returns; the simulator is another one, and slower.
    frontend : str
        "host": the DMA's stream goes to the core; "hls": it goes through the preprocessor's C++.
    cached : bool
        Whether the processor sees buffers through a cache, as nothing flushes for it; False: as PYNQ
        allocates them on a board, where reads and writes go to the memory at once.

    Raises
    ------
    RowvitError
        The simulator or the preprocessor cannot be built, or the waveform cannot be written. Later, from any
        access: a wait exceeded the budget, or the core broke a rule of AXI.
    """

    def __init__(
        self,
        config: HardwareConfig,
        memory: MemoryModel | None = None,
        stalls: int = 0,
        budget: int = 2_000_000,
        trace: str | Path | None = None,
        window: tuple[int, int] = (0, 1_000_000),
        rtl: Path | None = None,
        activity: bool = False,
        frontend: str = "host",
        cached: bool = True,
    ) -> None:
        super().__init__(f"rowvit-sim-{config.name}")
        self.name = self.tag
        self.config = config
        self.model = memory or MemoryModel()
        self.budget = budget
        self.capabilities = {"REGISTER_RW": True}
        self.arch = "armv7l" if hwh.is_zynq_7000(config) else "aarch64"
        self._counts, self._cached = activity, cached
        self._library = _library(build(config, rtl, trace is not None, activity))
        kernel = build_frontend() if frontend == "hls" else None
        try:
            self.ddr = np.zeros(self.model.megabytes << 20, np.uint8)
        except (MemoryError, ValueError) as error:  # 32 bits address less
            raise RowvitError(
                f"this machine has no {self.model.megabytes} MB for the simulated memory",
                "use fewer megabytes",
            ) from error
        self._used: dict[int, int] = {}  # bytes of the buffers by address
        self._ps = hwh.clock_registers(config)
        self._slaves = block_design(config, frontend=frontend).addresses
        self._intc = _InterruptController()
        self._waited_since = self._looks = 0
        self._directory = temporary_directory()
        self.bitstream = str(Path(self._directory.name) / "rowvit.bit")
        header = BitHeader("rowvit_wrapper", "", "simulation", "", "", 0)
        Path(self.bitstream).write_bytes(header.encode(b""))
        Path(self.bitstream).with_suffix(".hwh").write_text(hwh.handoff(config, frontend))
        self._open = self._library.rowvit_new(
            self.ddr.ctypes.data,
            DDR_BASE,
            self.ddr.size,
            self.model.latency,
            self.model.rate,
            self.model.ideal,
            stalls,
        )
        try:
            if kernel and self._library.rowvit_load_frontend(self._sim, os.fsencode(kernel)):
                raise RowvitError(f"{kernel}: cannot be loaded", "remove it, and it is built again")
            if trace is not None and self._library.rowvit_trace(self._sim, os.fsencode(trace), *window):
                raise RowvitError(f"{trace}: the waveform cannot be written there")
        except BaseException:
            self.close()
            raise
        # private, and the only way in: on a board PYNQ finds this device in /sys
        interrupt._InterruptController._uio_devices[IRQ_LINES[self.arch]] = _InterruptLine(self)
        Device.active_device = self

    def close(self) -> None:
        """End the simulation, and remove its files; buffers keep their contents. More calls do nothing.

        Afterwards every access raises a `RowvitError`.
        """
        if self._open:
            self._library.rowvit_delete(self._open)
            self._open = None
            self._directory.cleanup()

    def __enter__(self) -> SimDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _sim(self) -> int:
        if not self._open:
            raise RowvitError(f"{self.name} is closed", "open the target again")
        return self._open

    @property
    def stats(self) -> dict[str, int]:
        """Since the start: cycles, cycle of the last progress, read bursts and words, stream words."""
        stats = _Stats()
        self._library.rowvit_stats(self._sim, stats)
        return {name: getattr(stats, name) for name, *_ in _Stats._fields_}

    def inject(self, port: str, effect: str, word: int, value: int = 0) -> None:
        """Let a fault happen to one word, once; it replaces one that has not happened yet.

        Parameters
        ----------
        port : str
            "read": words of the core from memory; "send": of the DMA to the core; "receive": of the core to
            the DMA; "address": those of read bursts, which know "pause" and "flip" only.
        effect : str
            "pause": the word comes ``value`` cycles late; -1: neither it nor any after it comes. "flip": its
            bit ``value`` is inverted. "last": its TLAST is inverted. "error": a read comes with RRESP
            ``value``; a channel of the DMA halts with the bits ``value`` in its status register.
        word : int
            Which one, counted from now on.
        """
        numbers = _PORTS.index(port), _EFFECTS.index(effect) + 1
        self._library.rowvit_inject(self._sim, *numbers, word, value % 2**64)

    def heal(self) -> None:
        """No fault happens from now on, and what a "pause" keeps back comes."""
        self._library.rowvit_inject(self._sim, 0, 0, 0, 0)

    def watch(self) -> None:
        """Record from now on when operations complete, and drop what was recorded before."""
        self._library.rowvit_watch(self._sim, 1)

    def events(self) -> np.ndarray:
        """What was recorded since `watch`, for the last start.

        Returns
        -------
        structured array, an element per cycle in which an operation completed
            ``done`` uint16 [6]: operations completed, in the order of `isa.Engine` (wraps);
            ``counters`` uint32 [20]: in the order of `isa.COUNTERS`.
        """
        count = self._library.rowvit_event_count(self._sim)
        if not count:
            return np.empty(0, _EVENT)
        words = ctypes.cast(
            self._library.rowvit_events(self._sim), ctypes.POINTER(ctypes.c_uint8 * (count * _EVENT.itemsize))
        )
        events = np.frombuffer(words.contents, _EVENT).copy()
        cycles = events["counters"][:, 0]
        starts = np.flatnonzero(cycles[1:] < cycles[:-1]) + 1  # before it, what the previous start left
        return events[starts[-1] if len(starts) else 0 :]

    def activity(self) -> dict[str, np.ndarray]:
        """What was counted since `watch`, which has to be called before the start.

        Returns
        -------
        dict of uint64 arrays [events + 1]
            For every name of `hardware.activity.COUNTS` that is no register of the core: the counts at the
            elements of `events`, and now.

        Raises
        ------
        RowvitError
            The device was opened without ``activity``.
        """
        if not self._counts:
            raise RowvitError(f"{self.name} does not count its activity", "open it with activity=True")
        names = self._library.rowvit_activity_names(self._sim).decode().split()
        rows = self._library.rowvit_event_count(self._sim) + 1
        found = np.ctypeslib.as_array(self._library.rowvit_activity(self._sim), (rows, len(names))).copy()
        return dict(zip(names, found[-len(self.events()) - 1 :].T, strict=True))

    # -- what PYNQ calls ------------------------------------------------------------------------

    def get_bitfile_metadata(self, bitfile_name: str, partial: bool = False) -> RuntimeMetadataParser:
        parser = RuntimeMetadataParser(Metadata(input=str(Path(bitfile_name).with_suffix(".hwh"))))
        parser.refresh_hierarchy_dict()
        return parser

    def download(self, bitstream, parser=None) -> None:
        self._library.rowvit_reset(self._sim)
        self._intc = _InterruptController()
        super().post_download(bitstream, parser, self.name)

    def allocate(self, shape, dtype, **kwargs) -> PynqBuffer:
        """A buffer in the simulated DDR; ``RowvitError`` if there is no room."""
        size = max(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize, 1)
        address = self._take(-(-size // PAGE) * PAGE)
        memory = np.zeros(size, np.uint8) if self._cached else self.ddr[address - DDR_BASE :][:size]
        buffer = PynqBuffer(shape, dtype, buffer=memory, device=self, device_address=address, bo=address)
        buffer.memory = buffer.return_to = self
        buffer.pointer = address
        buffer.freed = True  # nothing to unmap
        return buffer

    def return_pointer(self, address: int) -> None:
        """Called when a buffer is freed."""
        del self._used[address]

    def flush(self, bo: int, offset: int, pointer: int, size: int) -> None:
        """Copy the CPU's bytes at ``pointer`` to the DDR."""
        ctypes.memmove(self.ddr.ctypes.data + bo + offset - DDR_BASE, pointer, size)

    def invalidate(self, bo: int, offset: int, pointer: int, size: int) -> None:
        """Copy the DDR's bytes to the CPU's at ``pointer``."""
        ctypes.memmove(pointer, self.ddr.ctypes.data + bo + offset - DDR_BASE, size)

    def read_registers(self, address: int, length: int) -> bytes:
        return b"".join(self._read(address + i).to_bytes(4, "little") for i in range(0, length, 4))

    def write_registers(self, address: int, data: bytes) -> None:
        for i in range(0, len(data), 4):
            self._write(address + i, int.from_bytes(bytes(data[i : i + 4]), "little"))

    # -- simulation -----------------------------------------------------------------------------

    def advance(self, cycles: int = STEP) -> None:
        """Run until an interrupt or a finished transfer, or for ``cycles``."""
        self._library.rowvit_run(self._sim, cycles)
        stats = self.stats
        self._check(stats)
        quiet = stats["cycles"] - max(stats["progress"], self._waited_since)
        if quiet > self.budget:
            raise RowvitError(f"nothing moved for {quiet} cycles: {self.diagnosis()}")

    def interrupt_pending(self) -> bool:
        raised = self._intc.enabled & self._library.rowvit_interrupts(self._sim)
        return bool(self._intc.master & 1 and raised)

    def diagnosis(self) -> str:
        """The state of core and DMA, in one sentence."""
        stats = self.stats
        mm2s, s2mm = (self._library.rowvit_dma_read(self._sim, offset) for offset in (0x04, 0x34))
        status, error, live = (self._core(REGISTERS[name][0]) for name in ("STATUS", "ERROR", "LIVE"))
        code = error & 0xFF
        known = Error(code).name if code in set(Error) else f"unknown {code}"
        if code not in NOWHERE:
            known += f" at instruction {error >> 8}"
        return (
            f"cycle {stats['cycles']}, core status 0x{status:08X}, error {known},"
            f" {live} live tokens, DMA MM2S 0x{mm2s:08X}, S2MM 0x{s2mm:08X},"
            f" {stats['beats']} words read, {stats['sent']} sent, {stats['received']} received"
        )

    def _check(self, stats: dict[str, int]) -> None:
        if stats["failure"]:
            raise RowvitError(f"{_FAILURES[stats['failure']]} (cycle {stats['cycles']})")

    def _take(self, size: int) -> int:
        free, start = 0, DDR_BASE
        for address, length in [*sorted(self._used.items()), (DDR_BASE + self.ddr.size, 0)]:
            if address - start >= size:
                self._used[start] = size
                return start
            free, start = max(free, address - start), address + length
        raise RowvitError(
            f"a buffer of {size >> 10} KB does not fit: the largest free block of the"
            f" {self.model.megabytes} MB memory has {free >> 10} KB",
            "use more megabytes of simulated memory",
        )

    def _core(self, offset: int) -> int:
        value = ctypes.c_uint32()
        if self._library.rowvit_read(self._sim, offset, value):
            self._check(self.stats)
        return value.value

    def _decode(self, address: int) -> tuple[str | None, int]:
        """The cell of the block design at an address, if any, and the offset within it."""
        for slave in self._slaves:
            if slave.base <= address < slave.base + slave.range:
                return slave.cell, address - slave.base
        return None, address

    def _read(self, address: int) -> int:
        cell, offset = self._decode(address)
        if cell == CORE:
            value = self._core(offset)
            if offset == REGISTERS["STATUS"][0] and value & 1:  # busy: the host is waiting
                self.advance()
                value = self._core(offset)
            return value
        if cell == DMA:
            if offset in (0x04, 0x34):
                self._looks += 1
                # a host that reads the status of a running transfer, or any status many times, is waiting
                if self._library.rowvit_active(self._sim) & (1 if offset == 0x04 else 2) or self._looks > 100:
                    self.advance()
            return self._library.rowvit_dma_read(self._sim, offset)
        if cell == INTC:
            return self._intc.read(offset, self._library.rowvit_interrupts(self._sim))
        return self._ps.get(address, 0)

    def _write(self, address: int, value: int) -> None:
        cell, offset = self._decode(address)
        if cell is None:
            # clocks; pynq keeps using the first device of the process, even when it is closed
            self._ps[address] = value
            return
        if cell == INTC:  # PYNQ writes to it whenever it waits
            self._intc.write(offset, value)
            return
        self._waited_since = self.stats["cycles"]
        self._looks = 0
        if cell == CORE:
            if self._library.rowvit_write(self._sim, offset, value):
                self._check(self.stats)
        else:
            self._library.rowvit_dma_write(self._sim, offset, value)
