# SPDX-License-Identifier: Apache-2.0
"""The host's work, step by step, for a Python whose instructions are counted: `host.py` runs it.

    python host_steps.py FOLDER [GROUP...]

FOLDER has the files that `host.py` makes; groups are import and those of `GROUPS`, by default all. The driver
works on the board of `plain_board.py`.
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
from plain_board import plain, ready  # noqa: E402

from rowvit.compiler import compile  # noqa: E402
from rowvit.formats.program import Program  # noqa: E402
from rowvit.hardware.config import load  # noqa: E402
from rowvit.images import for_network  # noqa: E402
from rowvit.overlay.dma import S2MM  # noqa: E402
from rowvit.reference.frontend import Geometry, fill_packet  # noqa: E402
from rowvit.targets.target import read_package, read_program  # noqa: E402

PACKETS: dict[Geometry, np.ndarray] = {}


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
    for name in NAMES:
        meta = program(name).meta
        for size in ("224x224", "640x480", "1920x1080"):
            data = (FOLDER / f"{size}.jpg").read_bytes()
            count(f"JPEG {size} {name}", lambda data=data, meta=meta: for_network(data, meta))
            count(
                f"JPEG {size}, HLS front end {name}",
                lambda data=data, meta=meta: for_network(data, meta, "hls"),
            )
        for step, frame in frames():
            count(f"{step} {name}", lambda frame=frame, meta=meta: for_network(frame, meta))
            count(
                f"{step}, HLS front end {name}",
                lambda frame=frame, meta=meta: packed(for_network(frame, meta, "hls"), meta),
            )


def streaming() -> None:
    with plain(load("pynq-z2"), FOLDER) as acc:
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
