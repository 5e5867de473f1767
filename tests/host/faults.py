# SPDX-License-Identifier: Apache-2.0
"""Faults around a network on the simulated RTL, each followed by a run without one.

`FAULTS` holds them by name. Each is provoked at a random moment of random runs of a `Rig`: one random network
on one array, with one memory and one deadline. After the fault the rig runs an image again; that has to give
the records of the integer reference, and the counters of an image before any fault.
"""

from __future__ import annotations

import asyncio
import io
import logging
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

import rowvit
from networks import small_package
from replay import TINY
from rowvit.compiler import compile
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.formats.program import Program
from rowvit.images import decode
from rowvit.sim.device import DDR_BASE, STEP, MemoryModel
from rowvit.targets import driver
from rowvit.targets.target import Result

CONFIGURATIONS = [TINY, replace(TINY, name="tiny-4x1", rows=4, token_depth=4096, residual_depth=4096)]
#: counters that do not depend on stalls. Words from memory do, as the program is fetched ahead, and, where
#: rows share a port, the cycles in which their products meet
EXACT = ("ffn2_nonzeros", "pv_nonzeros", "w2_fetched", "w2_rows", "recv_words", "send_words")
#: what ends a run that stands still: the core, the simulation, or the host's clock
DEADLINES = [
    dict(watchdog=5_000, budget=25_000, timeout=60.0),
    dict(watchdog=0, budget=25_000, timeout=60.0),
    dict(watchdog=0, budget=10**9, timeout=2.0),
]
HANG = 600.0  # seconds after which a run without an end counts as one
NEVER = -1


class Hang(BaseException):
    """A run that none of its deadlines ended."""


class Camera(Exception):
    """What an iterator of images may raise."""


class HostsClock:
    """Seconds for the driver, by the cycles of a rig's device: a busy machine's own would end sound runs."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.seen, self.cycles = rig, 0, 0

    def monotonic(self) -> float:
        with suppress(RowvitError):  # it may be closed
            now = self.rig.device.stats["cycles"]
            self.cycles += now - self.seen if now >= self.seen else now  # it may be another one
            self.seen = now
        return self.cycles / 250e3

    def sleep(self, seconds: float) -> None:
        """The simulation stands still meanwhile."""


class Rig:
    """A random network and how it is run; ``rng`` decides everything.

    It is a context manager, which closes it.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.config = CONFIGURATIONS[rng.integers(len(CONFIGURATIONS))]
        self.package, self.program = self._network()
        side = self.package.arch["image_size"]
        self.images = rng.integers(0, 256, (4, side, side, 3), dtype=np.uint8)
        self.options: dict[str, Any] = dict(
            memory=MemoryModel(
                int(rng.integers(0, 120)), int(rng.integers(30, 101)), bool(rng.random() < 0.2)
            ),
            stalls=int(rng.integers(0, 4)),
            **DEADLINES[rng.choice(len(DEADLINES), p=[0.45, 0.45, 0.1])],
        )
        with rowvit.open("golden", self.config, checkpoints=True) as golden:
            golden.load(self.package)
            self.expected = golden(self.images)
        self.folder = tempfile.TemporaryDirectory(prefix="rowvit-")
        self.clock = patch.object(driver, "time", HostsClock(self))
        self.clock.start()
        self.open()
        before = self.device.stats
        self.clean = [self.acc(image[None])[0] for image in self.images]
        after = self.device.stats
        self.words = {
            port: (after[name] - before[name]) // len(self.images)
            for port, name in (
                ("read", "beats"),
                ("send", "sent"),
                ("receive", "received"),
                ("address", "bursts"),
            )
        }
        self.cycles = max(result.counters["cycles"] for result in self.clean)
        assert self.right(self.clean, range(len(self.images)))

    def _network(self) -> tuple[ModelPackage, Program]:
        while True:
            package = small_package(self.rng)
            if package.arch["depth"] * package.arch["tokens"] > 20:
                continue  # takes longer, and shows no more
            with suppress(RowvitError):  # does not fit
                return package, compile(package, self.config, checkpoints=True)

    def open(self) -> None:
        self.acc = rowvit.open("sim", self.config, **self.options)
        self.device = self.acc.device
        self.acc.load(self.program)

    def close(self) -> None:
        self.acc.close()
        self.clock.stop()
        self.folder.cleanup()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def right(self, results: list[Result], chosen: range | list[int]) -> bool:
        """Whether each is the reference's, in logits, kept tokens and checkpoints."""
        return all(r.same(self.expected[i]) for r, i in zip(results, chosen, strict=False))

    def run(self, change: Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]] = iter) -> bool:
        """Run what `plan` chose; whether the results are right. ``change`` makes other images of them."""
        found: list[Result] = []
        pixels = change(iter([self.images[i] for i in self.chosen]))

        async def follow() -> None:
            async for result in self.acc.stream_async(pixels, self.batch):
                found.append(result)

        try:
            if self.waits:
                asyncio.run(follow())
            else:
                for result in self.acc.stream(pixels, self.batch):
                    found.append(result)
        except Camera:
            return self.right(found, self.chosen)
        except BaseException:
            if not self.right(found, self.chosen):
                return False
            raise
        return len(found) == len(self.chosen) and self.right(found, self.chosen)

    def plan(self) -> None:
        """Choose images, how many a start takes, and whether the host waits for interrupts."""
        self.chosen = self.rng.integers(0, len(self.images), self.rng.integers(1, 4)).tolist()
        self.batch = int(self.rng.integers(1, 4))
        self.waits = bool(self.rng.random() < 0.3)

    def moment(self) -> int:
        """A cycle of what `plan` chose."""
        return int(self.rng.integers(1, self.cycles * len(self.chosen)))

    def inject(self, port: str, effect: str, value: int) -> None:
        """To a random word of what `plan` chose."""
        words = self.words[port] * len(self.chosen)
        if effect == "last" and self.rng.random() < 0.5:  # the end of a packet, which is lost
            word = self.words[port] * int(self.rng.integers(1, len(self.chosen) + 1)) - 1
        else:
            word = int(self.rng.integers(words))
        self.device.inject(port, effect, word, value)

    def at(self, cycle: int, action: Callable[[], object]) -> None:
        """Do something while the host waits, ``cycle`` cycles from now."""
        device, advance = self.device, self.device.advance
        due = device.stats["cycles"] + cycle

        def reach(cycles: int = STEP) -> None:
            left = due - device.stats["cycles"]
            if left > cycles:
                advance(cycles)
                return
            del device.advance
            if left > 0:
                advance(left)
            action()

        device.advance = reach

    def recover(self) -> None:
        """The fault is over: memory and DMA work again, and what was closed is opened."""
        for name in ("advance", "allocate", "interrupt_pending", "read_registers", "write_registers"):
            self.device.__dict__.pop(name, None)
        if self.device._open is None:
            self.open()
        self.device.heal()
        if self.acc.program is not self.program:
            self.acc.load(self.program)
        else:
            try:
                self.acc.check_memory()
            except RowvitError:  # a wrong address let the DMA write there
                self.acc.load(self.program)

    def as_before(self) -> bool:
        """Whether an image gives the reference's records and the counters of one before any fault."""
        i = int(self.rng.integers(len(self.images)))
        (result,) = self.acc(self.images[i][None])
        return result.same(self.expected[i]) and all(
            result.counters[name] == self.clean[i].counters[name] for name in EXACT
        )


@dataclass(frozen=True)
class Fault:
    """``provoke`` returns whether all results are right, or raises what the user would see."""

    provoke: Callable[[Rig], bool]
    #: whether something says so: nothing on a bus has a checksum, nor has a JPEG
    checked: bool = True


@dataclass(frozen=True)
class Outcome:
    fault: str
    ended: str  #: "error": with a sentence; "right"; "wrong": with a result that is not; "crash"; "hang"
    after: bool  #: whether the run after it was right
    text: str = ""  #: the sentence, or the traceback

    @property
    def passed(self) -> bool:
        """A sentence or right results, and right again afterwards; on what has no checksum, the latter."""
        allowed = ("error", "right") if FAULTS[self.fault].checked else ("error", "right", "wrong")
        return self.ended in allowed and self.after


def attempt(rig: Rig, name: str) -> Outcome:
    """Provoke a fault in a rig, and run an image afterwards."""

    def hang(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, HANG)
    try:
        ended, text = _ended(lambda: FAULTS[name].provoke(rig))
        rig.recover()
        after, found = _ended(rig.as_before)
        if after != "right":
            text = f"{text}\nafterwards: {after} {found}"
        return Outcome(name, ended, after == "right", text)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _ended(run: Callable[[], bool]) -> tuple[str, str]:
    """How it ended, and what the user would see of it; a logged error, as asyncio's, is a crash."""
    logged: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: logged.append(handler.format(record))
    logging.getLogger().addHandler(handler)
    try:
        ended, text = ("right" if run() else "wrong"), ""
    except RowvitError as error:
        ended, text = "error", str(error)
    except Hang:
        ended, text = "hang", traceback.format_exc()
    except Exception:
        ended, text = "crash", traceback.format_exc()
    finally:
        logging.getLogger().removeHandler(handler)
    return ("crash", "\n".join([*logged, text])) if logged else (ended, text)


# -- on the buses ------------------------------------------------------------------------------------


def on(port: str, effect: str, *values: int) -> Callable[[Rig], bool]:
    """A fault of one word, with one of ``values``."""

    def provoke(rig: Rig) -> bool:
        rig.plan()
        rig.inject(port, effect, int(rig.rng.choice(values)))
        return rig.run()

    return provoke


def pauses(port: str) -> Callable[[Rig], bool]:
    return on(port, "pause", 10, 300, 3_000, 12_000)


def registers(direction: str) -> Callable[[Rig], bool]:
    """A bit of one access to a register of core or DMA."""

    def provoke(rig: Rig) -> bool:
        rig.plan()
        bit, left = int(rig.rng.integers(32)), int(rig.rng.integers(60))
        access = getattr(rig.device, direction)

        def flip(word: bytes) -> bytes:
            nonlocal left
            left -= 1
            mask = 1 << bit if left == -1 else 0
            return (int.from_bytes(bytes(word), "little") ^ mask).to_bytes(4, "little")

        def read(address: int, length: int) -> bytes:
            return flip(access(address, length))

        def write(address: int, data: bytes) -> None:
            access(address, flip(data))

        setattr(rig.device, direction, read if direction == "read_registers" else write)
        return rig.run()

    return provoke


def memory_bit(rig: Rig) -> bool:
    """Of program and weights, while they are read; asked for afterwards."""
    rig.plan()
    blob = rig.acc.blob
    at = blob.physical_address - DDR_BASE + int(rig.rng.integers(blob.nbytes))

    def flip() -> None:
        rig.device.ddr[at] ^= 1 << int(rig.rng.integers(8))

    flip()
    with suppress(RowvitError):
        rig.run()
    rig.acc.check_memory()
    return False


# -- resets and hosts --------------------------------------------------------------------------------


def interrupted(action: Callable[[Rig], object]) -> Callable[[Rig], bool]:
    """Something is done at a random cycle of a run."""

    def provoke(rig: Rig) -> bool:
        rig.plan()
        rig.at(rig.moment(), lambda: action(rig))
        return rig.run()

    return provoke


def ctrl_c(rig: Rig) -> bool:
    def stop(_: Rig) -> None:
        raise KeyboardInterrupt

    try:
        return interrupted(stop)(rig)
    except KeyboardInterrupt:
        return True


def late_host(rig: Rig) -> bool:
    """A process that is not scheduled, for longer than the watchdog waits."""
    rig.plan()
    access = rig.device.write_registers

    def write(address: int, data: bytes) -> None:
        if rig.rng.random() < 0.1:
            rig.device.advance(int(rig.rng.integers(10_000)))
        access(address, data)

    rig.device.write_registers = write
    return rig.run()


def interrupts(pending: bool) -> Callable[[Rig], bool]:
    """Of the core, that never or always seem to be there."""

    def provoke(rig: Rig) -> bool:
        rig.plan()
        rig.waits = True
        rig.device.interrupt_pending = lambda: pending
        return rig.run()

    return provoke


def no_room(rig: Rig) -> bool:
    rig.plan()
    left, take = int(rig.rng.integers(4)), rig.device.allocate

    def allocate(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left == -1:
            raise MemoryError
        return take(*arguments, **options)

    rig.device.allocate = allocate
    return rig.run()


def closed_stream(rig: Rig) -> bool:
    """After some of the results."""
    rig.plan()
    stream = rig.acc.stream(iter([rig.images[i] for i in rig.chosen]), rig.batch)
    found = [result for _, result in zip(range(rig.rng.integers(len(rig.chosen))), stream, strict=False)]
    stream.close()
    return rig.right(found, rig.chosen)


def closed_target(rig: Rig) -> bool:
    """Under an open stream, which is asked for more."""
    rig.plan()
    stream = rig.acc.stream(iter([rig.images[i] for i in rig.chosen]), rig.batch)
    found = [next(stream)] if rig.rng.random() < 0.7 else []
    rig.acc.close()
    right = rig.right(found, rig.chosen)
    return right and list(stream) is None


def broken_camera(rig: Rig) -> bool:
    rig.plan()
    left = int(rig.rng.integers(len(rig.chosen)))

    def change(images: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for _ in range(left):
            yield next(images)
        raise Camera

    return rig.run(change)


def other_shape(rig: Rig) -> bool:
    rig.plan()
    left = int(rig.rng.integers(len(rig.chosen)))
    wrong = [np.zeros((3, 5, 3), np.uint8), rig.images[0].astype(float), rig.images[0][..., :1]]

    def change(images: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for _ in range(left):
            yield next(images)
        yield wrong[rig.rng.integers(len(wrong))]

    return rig.run(change)


# -- files -------------------------------------------------------------------------------------------


def damaged(rig: Rig, data: bytes) -> bytes:
    """With a bit that is inverted."""
    changed = bytearray(data)
    changed[rig.rng.integers(len(data))] ^= 1 << int(rig.rng.integers(8))
    return bytes(changed)


def cut(rig: Rig, data: bytes) -> bytes:
    """Without its end."""
    return data[: rig.rng.integers(len(data))]


def network(kind: str, damage: Callable[[Rig, bytes], bytes]) -> Callable[[Rig], bool]:
    def provoke(rig: Rig) -> bool:
        rig.plan()
        path = Path(rig.folder.name, f"{kind}.safetensors")
        getattr(rig, kind).save(path)
        path.write_bytes(damage(rig, path.read_bytes()))
        rig.acc.load(path)
        if kind == "package":
            rig.acc.load(compile(ModelPackage.load(path), rig.config, checkpoints=True))
        return rig.run()

    return provoke


def picture(form: str, damage: Callable[[Rig, bytes], bytes]) -> Callable[[Rig], bool]:
    """A photo-like one, of 8 or 16 bits."""

    def provoke(rig: Rig) -> bool:
        side = rig.package.arch["image_size"]
        y, x = np.mgrid[: side + int(rig.rng.integers(3)), :40]
        waves = [np.sin((x * a + y * b) / 10) for a, b in rig.rng.uniform(-2, 2, (3, 2))]
        pixels = (128 + 100 * np.stack(waves, axis=2)).astype(np.uint8)
        if form == "PNG" and rig.rng.random() < 0.5:
            pixels = pixels[..., 0].astype(np.uint16) << 8
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, form)
        path = Path(rig.folder.name, f"picture.{form.lower()}")
        path.write_bytes(damage(rig, file.getvalue()))
        resize = rig.package.meta["preprocessing"]["resize"]
        with rowvit.open("golden", rig.config, checkpoints=True) as golden:
            golden.load(rig.package)
            (expected,) = golden(decode(file.getvalue(), side, resize)[None])
        (result,) = rig.acc([path])
        return result.same(expected)

    return provoke


#: by name, as in the table
FAULTS: dict[str, Fault] = {
    "SLVERR or DECERR on a read": Fault(on("read", "error", 2, 3)),
    "memory that pauses": Fault(pauses("read")),
    "memory that takes no address for long": Fault(pauses("address")),
    "memory that is dead": Fault(on("read", "pause", NEVER)),
    "memory that takes no address": Fault(on("address", "pause", NEVER)),
    "MM2S that pauses": Fault(pauses("send")),
    "S2MM that pauses": Fault(pauses("receive")),
    "MM2S that stops": Fault(on("send", "pause", NEVER)),
    "S2MM that stops": Fault(on("receive", "pause", NEVER)),
    "MM2S that halts with an error": Fault(on("send", "error", 0x10, 0x20, 0x40)),
    "S2MM that halts with an error": Fault(on("receive", "error", 0x10, 0x20, 0x40)),
    "TLAST of the input early or lost": Fault(on("send", "last", 0)),
    "TLAST of the output early or lost": Fault(on("receive", "last", 0)),
    "core reset by someone else": Fault(interrupted(lambda rig: rig.acc.core.reset())),
    "DMA reset by someone else": Fault(interrupted(lambda rig: rig.acc.dma.write(0, 4))),
    "both reset by someone else": Fault(interrupted(lambda rig: rig.acc.reset())),
    "bitstream loaded again": Fault(interrupted(lambda rig: rig.acc.overlay.download())),
    "Ctrl-C": Fault(ctrl_c),
    "host that is late": Fault(late_host),
    "interrupts that do not come": Fault(interrupts(False)),
    "interrupts without a cause": Fault(interrupts(True)),
    "no room for a buffer": Fault(no_room),
    "stream closed": Fault(closed_stream),
    "accelerator closed under a stream": Fault(closed_target),
    "simulation closed during a run": Fault(interrupted(lambda rig: rig.device.close())),
    "camera that fails": Fault(broken_camera),
    "image of another shape or type": Fault(other_shape),
    "bit of a package": Fault(network("package", damaged)),
    "package that is cut": Fault(network("package", cut)),
    "bit of a program": Fault(network("program", damaged)),
    "program that is cut": Fault(network("program", cut)),
    "bit of a PNG": Fault(picture("PNG", damaged)),
    "PNG that is cut": Fault(picture("PNG", cut)),
    "JPEG that is cut": Fault(picture("JPEG", cut)),
    "bit of program or weights in memory, then `check_memory`": Fault(memory_bit),
    "bit of a JPEG": Fault(picture("JPEG", damaged), checked=False),
    "bit of a word that the core reads": Fault(on("read", "flip", *range(64)), checked=False),
    "bit of an address that the core reads": Fault(on("address", "flip", *range(32)), checked=False),
    "bit of the input": Fault(on("send", "flip", *range(64)), checked=False),
    "bit of the output": Fault(on("receive", "flip", *range(64)), checked=False),
    "bit of a register that is written": Fault(registers("write_registers"), checked=False),
    "bit of a register that is read": Fault(registers("read_registers"), checked=False),
}
