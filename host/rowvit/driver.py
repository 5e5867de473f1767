# SPDX-License-Identifier: Apache-2.0
"""The driver: one network on the accelerator, through PYNQ. The same code serves board and simulator.

It imports numpy and pynq only.
"""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pynq import allocate

from rowvit.errors import RowvitError
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import ABI_VERSION, COUNTER_BASE, COUNTERS, ID, REGISTERS, Error, Record
from rowvit.reference import patchify
from rowvit.target import Result, Target, read_program

if TYPE_CHECKING:
    from rowvit.compiler import Program
    from rowvit.quant.package import ModelPackage

_BUSY, _ERROR = 1, 4
_START, _RESET = 1, 2
_DMA_RESET, _DMA_IDLE = 4, 2
_MM2S, _S2MM = 0x00, 0x30  # register offsets of the DMA's channels
_DMA_ERRORS = {
    0x10: "internal error (the packet is longer than its buffer)",
    0x20: "slave error (memory refused the access)",
    0x40: "decode error (there is no memory at the address)",
}
_SENTENCES = {
    Error.BAD_OPCODE: "the program holds an unknown instruction; compile the network again",
    Error.ADDRESS_RANGE: "the program loads beyond its blob; compile the network again",
    Error.BAD_HASH: "the program is for another configuration or ABI; compile it for this one",
    Error.AXI_READ: "a memory read failed (SLVERR or DECERR); the blob's address is not memory for the core",
    Error.WATCHDOG: "nothing moved for {watchdog} cycles",
    Error.STREAM_SHORT: "the input packet of an image ended early; the stream lost words",
    Error.STREAM_LONG: "the input packet of an image is too long; the stream is out of step",
}


class Accelerator(Target):
    """The core in a loaded overlay.

    Parameters
    ----------
    overlay : pynq.Overlay
    config : HardwareConfig
        What the bitstream was made from.
    timeout : float
        Seconds that one image may take.
    watchdog : int
        Cycles without any progress inside the core that make it stop with an error; 0: never.

    Raises
    ------
    RowvitError
        The overlay holds no core, or one of another configuration or ABI.
    """

    def __init__(
        self, overlay, config: HardwareConfig, timeout: float = 10.0, watchdog: int = 1_000_000
    ) -> None:
        self.config, self.timeout, self.watchdog = config, timeout, watchdog
        self.device = overlay.device
        self.core = _find(overlay, "rowvit")
        self.dma = _find(overlay, "axi_dma")
        self.program: Program | None = None
        self._blob = None
        identity, abi, found = (self._read(name) for name in ("ID", "ABI", "CONFIG_HASH"))
        where = f"bitstream {overlay.bitfile_name}"
        if identity != ID:
            raise RowvitError(
                f"{where}: register ID reads 0x{identity:08X}, not 0x{ID:08X}: no rowvit core is at this"
                " address; the .hwh may be another bitstream's"
            )
        if abi != ABI_VERSION:
            raise RowvitError(
                f"{where} has ABI {abi}, this software {ABI_VERSION}; build both from the same version"
            )
        if found != config.hash:
            raise RowvitError(
                f"{where} was built for a configuration with hash 0x{found:08X}, but '{config.name}' has"
                f" 0x{config.hash:08X}; name the configuration it was built for"
            )
        if None in (self.dma.sendchannel, self.dma.recvchannel):
            raise RowvitError(f"{where}: its AXI DMA lacks a channel; build it with MM2S and S2MM")
        self._reset()

    def load(self, model: str | Path | ModelPackage | Program) -> None:
        """Make a network ready: a package is compiled, the blob is copied to memory the core can read.

        Raises
        ------
        RowvitError
            The file or network cannot be used on this configuration, or the memory is too small.
        """
        self._unload()
        program = read_program(model, self.config)
        size = max(program.meta["input"]["bytes"], program.meta["output"]["max_bytes"])
        if size > self.dma.buffer_max_size:
            raise RowvitError(
                f"one image takes a transfer of {size} bytes, the DMA moves at most"
                f" {self.dma.buffer_max_size}; build the DMA with a wider length register"
            )
        self._blob = self._allocate(program.blob.shape)
        self._blob[:] = program.blob
        self._blob.flush()
        self.program, self.meta = program, program.meta

    def close(self) -> None:
        self._unload()
        if hasattr(self.device, "advance"):  # a simulation ends with its driver
            self.device.close()

    def _unload(self) -> None:
        if self._blob is not None:
            self._blob.freebuffer()
        self._blob = self.program = self.meta = None

    # -- a run ----------------------------------------------------------------------------------

    def _run(self, images: np.ndarray) -> list[Result]:
        meta, count = self.program.meta, len(images)
        rows, size = meta["input"]["rows"], meta["input"]["bytes"]
        begin = time.monotonic()
        with (
            self._allocate((count, rows, size // rows)) as source,
            self._allocate((count, -(-meta["output"]["max_bytes"] // 8) * 8)) as sink,
        ):
            patches = patchify(images, meta["architecture"]["patch_size"])
            source[:, :, patches.shape[2] :] = 0
            source[:, :, : patches.shape[2]] = patches.view(np.uint8)
            source.flush()
            packed = time.monotonic()
            try:
                lengths, taken = self._stream(source, sink)
                received = time.monotonic()
                counters = {
                    name: self.core.read(COUNTER_BASE + 4 * i) for i, (name, _) in enumerate(COUNTERS)
                }
            except BaseException:
                with suppress(RowvitError):
                    self._reset()
                raise
            outputs = [np.array(sink[i, :length]) for i, length in enumerate(lengths)]
        results, start = [], (0, 0)
        for i, output in enumerate(outputs):
            end = (counters["cycles"], counters["fires"]) if i == count - 1 else None
            result, start = _result(meta, output, start, end)
            result.counters, result.batch = counters, count
            if count == 1:
                _count_work(result, meta, self.config)
            results.append(result)
        unpacked = time.monotonic()
        timing = {
            "pack": packed - begin,
            "run": received - packed,
            "send": taken - packed,
            "unpack": unpacked - received,
        }
        for result in results:
            result.seconds, result.timing = (unpacked - begin) / count, timing
        return results

    def _stream(self, source: np.ndarray, sink: np.ndarray) -> tuple[list[int], float]:
        """Send all images and receive their records; bytes received of each, and when the last was taken."""
        send, receive, count = self.dma.sendchannel, self.dma.recvchannel, len(source)
        base = self._blob.physical_address
        for name, value in (
            ("BASE_LO", base & 0xFFFFFFFF),
            ("BASE_HI", base >> 32),
            ("PROGRAM", 0),
            ("LENGTH", self._blob.nbytes),
            ("IMAGES", count),
            ("WATCHDOG", self.watchdog),
            ("IRQ_STATUS", 3),
            ("IRQ_ENABLE", 3),
        ):
            self._write(name, value)
        receive.transfer(sink[0])
        send.transfer(source[0])  # waits until the core asks, so that its clock counts no time of ours
        self._write("CONTROL", _START)
        lengths: list[int] = []
        sent, sending, taken = 1, True, 0.0
        deadline = time.monotonic() + self.timeout * count
        while len(lengths) < count:
            if sending and self._finished(send, _MM2S):
                sending, taken = False, time.monotonic()
            if not sending and sent < count:
                send.transfer(source[sent])
                sent, sending = sent + 1, True
            if self._finished(receive, _S2MM):
                lengths.append(receive.transferred)
                if len(lengths) < count:
                    receive.transfer(sink[len(lengths)])
            elif self._read("STATUS") & _ERROR:
                raise RowvitError(self._error())
            if time.monotonic() > deadline:
                raise RowvitError(
                    f"image {len(lengths)} was not done in {self.timeout:g} s:"
                    f" {self._where(sent, len(lengths))}"
                )
        return lengths, time.monotonic() if sending else taken

    def _finished(self, channel, offset: int) -> bool:
        """Whether the channel's transfer is complete; its data are then visible to the CPU."""
        status = self.dma.read(offset + 4)
        if errors := [text for bit, text in _DMA_ERRORS.items() if status & bit]:
            if self._read("STATUS") & _ERROR:  # then that is what came first
                raise RowvitError(self._error())
            raise RowvitError(f"the DMA stopped with status 0x{status:08X}: {', '.join(errors)}")
        if not status & _DMA_IDLE:
            return False
        channel.wait()
        return True

    def _error(self) -> str:
        value = self._read("ERROR")
        code, index = value & 0xFF, value >> 8
        try:
            text = _SENTENCES[Error(code)].format(watchdog=self.watchdog)
        except (KeyError, ValueError):
            text = f"unknown error code {code}; the bitstream may be newer than this software"
        return f"the core stopped at instruction {index}: {text}"

    def _where(self, sent: int, received: int) -> str:
        status, live = self._read("STATUS"), self._read("LIVE")
        done = [self._read(f"PROGRESS{i}") for i in range(3)]
        counts = ", ".join(
            f"{name} {done[i // 2] >> 16 * (i % 2) & 0xFFFF}"
            for i, name in enumerate(("LOAD", "EXEC", "DRAIN", "NORM", "SELECT", "RECV"))
        )
        mm2s, s2mm = (self.dma.read(offset + 4) for offset in (_MM2S, _S2MM))
        return (
            f"core status 0x{status:08X}, operations done {counts}, {live} live tokens,"
            f" DMA MM2S 0x{mm2s:08X} ({sent} images sent), S2MM 0x{s2mm:08X} ({received} received)"
        )

    # -- registers and memory -------------------------------------------------------------------

    def _read(self, name: str) -> int:
        return self.core.read(REGISTERS[name][0])

    def _write(self, name: str, value: int) -> None:
        self.core.write(REGISTERS[name][0], int(value))

    def _reset(self) -> None:
        """Core and DMA as after loading the bitstream; a transfer that never ends is dropped."""
        self.dma.write(0, _DMA_RESET)
        self._write("CONTROL", _RESET)
        for channel in (self.dma.sendchannel, self.dma.recvchannel):
            channel.start()

    def _allocate(self, shape: tuple[int, ...]):
        try:
            return allocate(shape, np.uint8, target=self.device)
        except (RuntimeError, MemoryError, OSError) as error:
            asked = int(np.prod(shape)) >> 10
            raise RowvitError(
                f"no contiguous memory for a buffer of {asked} KB ({_cma()}); free other buffers, take a"
                " smaller batch, or boot with a larger cma="
            ) from error


def _find(overlay, kind: str):
    """The IP whose type is named ``kind...``."""
    for name, details in overlay.ip_dict.items():
        if details["type"].split(":")[2].startswith(kind):
            return getattr(overlay, name)
    raise RowvitError(
        f"bitstream {overlay.bitfile_name} holds no {kind} block; it holds {', '.join(overlay.ip_dict)}"
    )


def _cma() -> str:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        lines = []
    found = [" ".join(line.split()) for line in lines if line.startswith("Cma")]
    return ", ".join(found) or "the kernel does not say how much there is"


# -- records ------------------------------------------------------------------------------------


def records(output: np.ndarray) -> list[tuple[Record, int, int, np.ndarray]]:
    """Split an output packet.

    Parameters
    ----------
    output : uint8 array [bytes]

    Returns
    -------
    list of (type, tag, count, payload uint8 [bytes])

    Raises
    ------
    RowvitError
        A header is not a record's.
    """
    found, at = [], 0
    while at < len(output):
        header = int.from_bytes(output[at : at + 8].tobytes(), "little")
        kind, tag, count, size = header & 0xFF, header >> 8 & 0xFF, header >> 16 & 0xFFFF, header >> 32
        if kind not in set(Record) or at + 8 + size > len(output):
            raise RowvitError(
                f"the output is not made of records: word {at // 8} of {len(output) // 8} is 0x{header:016X};"
                " bitstream and software may be of different versions"
            )
        found.append((Record(kind), tag, count, output[at + 8 : at + 8 + size]))
        at += 8 + -(-size // 8) * 8
    return found


def _result(
    meta: dict, output: np.ndarray, start: tuple[int, int], end: tuple[int, int] | None
) -> tuple[Result, tuple[int, int]]:
    """The result of one image, and (cycles, fires) at its end: ``end``, or its last MARK."""
    depth = meta["architecture"]["depth"]
    logits = None
    kept: list[np.ndarray] = []
    checkpoints: dict[str, np.ndarray] = {}
    marks = [start]
    for kind, tag, count, payload in records(output):
        if kind is Record.LOGITS:
            logits = payload.view("<i2")[:count].copy()
        elif kind is Record.KEPT:
            kept.append(payload.view("<u2")[:count].astype(np.int64))
        elif kind is Record.CHECKPOINT:
            name = f"layers.{(tag - 1) // 2}.{('ffn', 'attn')[tag % 2]}" if tag else "embed"
            checkpoints[name] = payload.view("<i2").reshape(count, -1).copy()
        else:
            word = payload.view("<u4")
            marks.append((int(word[0]), int(word[1])))
    classes = meta["architecture"]["classes"]
    got = 0 if logits is None else len(logits)
    if logits is None or got != classes or len(marks) != depth + 2 or len(kept) != len(meta["pruning"]):
        raise RowvitError(
            f"the output of an image is incomplete: {got} of {classes} logits,"
            f" {len(marks) - 1} of {depth + 1} marks, {len(kept)} of {len(meta['pruning'])} token lists"
        )
    marks.append(end or marks[-1])
    # counters have 32 bits and wrap
    steps = [[(now[i] - before[i]) & 0xFFFFFFFF for before, now in pairwise(marks)] for i in (0, 1)]
    result = Result.of(
        meta,
        logits,
        kept,
        checkpoints=checkpoints,
        cycles=sum(steps[0]),
        layer_cycles=steps[0],
        layer_fires=steps[1],
    )
    return result, marks[-1]


def _count_work(result: Result, meta: dict, config: HardwareConfig) -> None:
    """Multiplications and W2 rows from token counts and counters."""
    arch, rule = meta["architecture"], meta["ffn2_rule"]
    dim, hidden, depth, heads = (arch[name] for name in ("dim", "hidden", "depth", "heads"))
    tiles = -(-dim // config.tile)
    patch = (arch["tokens"] - arch["prefix"]) * arch["channels"] * arch["patch_size"] ** 2 * dim
    alive = dict(zip((step["layer"] for step in meta["pruning"]), result.live, strict=True))

    n = arch["tokens"]
    dense = depth * (4 * n * dim**2 + 2 * n * n * dim + 2 * n * dim * hidden)
    executed, rows = 0, 0
    for layer in range(depth):
        after = alive.get(layer, n)
        executed += 3 * n * dim**2 + n * n * dim + after * (dim**2 + dim * hidden)
        rows += hidden * (-(-after // meta["tile_rows"]) if rule == "tile" else 1)
        if rule == "none":
            executed += after * dim * hidden
        n = after
    executed += result.counters["pv_nonzeros"] * (dim // heads)
    if rule != "none":
        executed += result.counters["ffn2_nonzeros"] // tiles * dim
    result.macs_executed = patch + executed + dim * arch["classes"]
    result.macs_dense = patch + dense + dim * arch["classes"]
    result.w2_rows_total = rows
    result.w2_rows_fetched = rows if rule == "none" else result.counters["w2_fetched"] // tiles
