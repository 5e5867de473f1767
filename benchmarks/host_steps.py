# SPDX-License-Identifier: Apache-2.0
"""The host's work, step by step, for a Python whose instructions are counted: `host.py` runs it.

    python host_steps.py FOLDER [GROUP...]

FOLDER has the files that `host.py` makes; groups are import and those of `GROUPS`, by default all. The driver
works on a board whose registers are plain memory and whose core has always finished: what it does is what it
does on a board, less the kernel and cache flushes.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER, CHOSEN = Path(sys.argv[1]), sys.argv[2:] or ["import", "compile", "load", "photos", "stream"]
MOMENT = 0x5EED0000  #: numbers of processes that there are not
CALLS = 4  #: of what is called once per image
WARM = 2  #: calls before them, so that what is done once is not among them
#: steps in the order of their counts, and calls that each count has
STEPS: list[tuple[str, int]] = []
counting = True  #: whether `begin` and `end` do anything
LIBRARY = ctypes.CDLL(os.environ["ROWVIT_MARKS"]) if "ROWVIT_MARKS" in os.environ else None


def moment(number: int) -> None:
    """Let the emulator's plugin write its count."""
    with suppress(OSError):
        os.getpgid(MOMENT + number)


def begin() -> None:
    """Count from now on."""
    if not counting:
        return
    moment(0)
    if LIBRARY is not None:
        LIBRARY.begin()


def end(step: str, calls: int = 1) -> None:
    """What was counted since `begin` are so many calls of a step."""
    if not counting:
        return
    if LIBRARY is not None:
        LIBRARY.end(str(len(STEPS)).encode())
    moment(1)
    STEPS.append((step, calls))


def count(step: str, work: Callable[[], object], calls: int = CALLS, warm: int = WARM) -> None:
    """Count calls of ``work``."""
    for _ in range(warm):
        work()
    gc.collect()
    gc.disable()
    begin()
    for _ in range(calls):
        work()
    end(step, calls)
    gc.enable()


begin()
end("nothing")
counting = "import" in CHOSEN
begin()
import numpy as np  # noqa: E402

end("import numpy")
begin()
import rowvit.cli  # noqa: E402, F401

end("import rowvit.cli")
begin()
from rowvit.targets.driver import Accelerator  # noqa: E402

end("import of the driver")
counting = True

from PIL import Image  # noqa: E402

from rowvit.compiler import compile  # noqa: E402
from rowvit.formats.program import Program  # noqa: E402
from rowvit.hardware.block_design import CORE, DMA, block_design  # noqa: E402
from rowvit.hardware.config import HardwareConfig, load  # noqa: E402
from rowvit.hardware.isa import (  # noqa: E402
    ABI_VERSION,
    COUNTER_BASE,
    COUNTERS,
    ID,
    REGISTERS,
    Record,
)
from rowvit.images import for_network  # noqa: E402
from rowvit.overlay import RowvitOverlay  # noqa: E402
from rowvit.overlay.bitfile import BitHeader  # noqa: E402
from rowvit.overlay.dma import S2MM  # noqa: E402
from rowvit.pynq import Device, PynqBuffer  # noqa: E402
from rowvit.reference.frontend import Geometry, fill_packet  # noqa: E402
from rowvit.sim import hwh  # noqa: E402
from rowvit.sim.device import MemoryModel, SimDevice  # noqa: E402
from rowvit.targets.target import read_package, read_program  # noqa: E402

PACKETS: dict[Geometry, np.ndarray] = {}
DONE = 2  #: of the core's STATUS; of the DMA's, that a channel is idle


class _Waking(np.ndarray):
    """Registers of a DMA that leaves its reset."""

    def __setitem__(self, index: int, value: int) -> None:
        super().__setitem__(index, 0 if value == 4 else value)


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
                    words[first : first + len(COUNTERS)] = 1_000_000  # beyond the answer's marks
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


def opened(config: HardwareConfig, frontend: str = "host") -> Accelerator:
    """An accelerator on a `Board`, whose registers are plain memory from now on, as a board's are."""
    board = Board(config, FOLDER, frontend)
    acc = Accelerator(RowvitOverlay(board.bitstream, config, board, frontend=frontend))
    for registers in (acc.core.mmio, acc.dma.mmio):
        registers.array = registers.array.view(np.ndarray)
    return acc


def ready(acc: Accelerator, model: Program) -> None:
    acc.load(model)
    acc.device.answer = np.frombuffer(answer(model.meta, acc.config.tile), np.uint8)
    assert acc.device.answer.size == model.passes[0].output_bytes


def streamed(step: str, acc: Accelerator, images: np.ndarray) -> None:
    """An image of a stream of ready arrays, its share of opening and closing the stream included."""
    list(acc.stream(images))
    begin()
    for _ in acc.stream(images):
        pass
    end(step, len(images))


@contextmanager
def replaced(owner: object, **methods: Callable[..., object]) -> Iterator[None]:
    """An object with other methods."""
    vars(owner).update(methods)
    try:
        yield
    finally:
        for name in methods:
            delattr(owner, name)


def within(step: str, acc: Accelerator, images: np.ndarray, owner: object, name: str) -> None:
    """What a method does that a stream calls once for each image."""
    method, called = getattr(owner, name), 0

    def counted(*arguments: object) -> object:
        nonlocal called
        called += 1
        if called <= WARM:
            return method(*arguments)
        begin()
        found = method(*arguments)
        end(step)
        return found

    with replaced(owner, **{name: counted}):
        list(acc.stream(images))
    assert called == len(images), called


def between(acc: Accelerator, images: np.ndarray) -> None:
    """What the core waits for between two images: from the poll that finds an answer to the next start."""
    finished, start = acc._finished, acc.core.start
    answers = 0

    def looked(channel: int) -> int:
        nonlocal answers
        if channel == S2MM:
            answers += 1
            if WARM < answers < len(images):
                begin()
        return finished(channel)

    def started(*arguments: int) -> None:
        start(*arguments)
        if answers > WARM:
            end("between two images")

    with replaced(acc, _finished=looked), replaced(acc.core, start=started):
        list(acc.stream(images))
    assert answers == len(images), answers


def frames() -> Iterator[tuple[str, bytes | np.ndarray]]:
    """Frames of cameras: arrays of RGB and YUYV, and MJPEG, without the tables that cameras leave out."""
    for size in ("640x480", "1920x1080"):
        with Image.open(FOLDER / f"{size}.jpg") as photo:
            yield f"camera's RGB {size}", np.array(photo)
            yuv = np.array(photo.convert("YCbCr"))
        yuv[:, 1::2, 1] = yuv[:, 0::2, 2]
        yield f"camera's YUYV {size}", np.ascontiguousarray(yuv[:, :, :2])
    data = (FOLDER / "640x480.jpg").read_bytes()
    frame, at = data[:2], 2
    while data[at + 1] != 0xDA:  # the scan
        after = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        frame += b"" if data[at + 1] == 0xC4 else data[at:after]  # Huffman tables
        at = after
    yield "camera's MJPEG 640x480", frame + data[at:]


def packed(frame: np.ndarray, meta: dict) -> None:
    """A frame for the preprocessor, with its header where the DMA takes it."""
    arch = meta["architecture"]
    geometry = Geometry.of(frame.shape[1], frame.shape[0], arch["image_size"], arch["patch_size"])
    if geometry not in PACKETS:
        PACKETS[geometry] = np.empty(geometry.packet_bytes, np.uint8)
    fill_packet(frame, geometry, PACKETS[geometry])


def compiling() -> None:
    config = load("pynq-z2")
    # before anything else that makes what both need once
    path = FOLDER / "deit-tiny.safetensors"
    count("second start of deit-tiny, from the cache", lambda: read_program(path, config), 1, warm=0)
    for name in NAMES:
        package = read_package(f"{FOLDER / name}.safetensors")
        count(f"compile {name}", lambda package=package: compile(package, config), calls=1, warm=0)


def loading() -> None:
    for name in NAMES:
        count(f"load program {name}", lambda name=name: program(name), calls=1, warm=0)


def photos() -> None:
    meta = program("deit-tiny").meta
    for size in ("224x224", "640x480", "1920x1080"):
        data = (FOLDER / f"{size}.jpg").read_bytes()
        count(f"JPEG {size}", lambda data=data: for_network(data, meta))
        count(f"JPEG {size}, HLS front end", lambda data=data: for_network(data, meta, "hls"))
    for step, frame in frames():
        count(step, lambda frame=frame: for_network(frame, meta))
        count(f"{step}, HLS front end", lambda frame=frame: packed(for_network(frame, meta, "hls"), meta))


def streaming() -> None:
    with opened(load("pynq-z2")) as acc:
        for name in NAMES:
            ready(acc, program(name))
            side = acc.meta["architecture"]["image_size"]
            images = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), dtype=np.uint8)
            count(f"call {name}", lambda images=images: acc(images[:1]))
            streamed(f"stream {name}", acc, images)
            gc.disable()
            within(f"stage {name}", acc, images, acc, "_stage")
            within(f"parse {name}", acc, images, acc, "_results")
            if name == NAMES[0]:  # the others are the same for every network
                within("start", acc, images, acc, "_start")
                within("poll", acc, images, acc, "_advance")
                within("counters", acc, images, acc.core, "counters")
                within("take an answer", acc, images, acc, "_take")
                between(acc, images)
            gc.enable()


def program(name: str) -> Program:
    return Program.load(f"{FOLDER / name}.rowvit")


NAMES = ("sign-digits", "deit-tiny")
GROUPS = {"compile": compiling, "load": loading, "photos": photos, "stream": streaming}

for group, work in GROUPS.items():
    if group in CHOSEN:
        work()
(FOLDER / "steps.json").write_text(json.dumps(STEPS))
