# SPDX-License-Identifier: Apache-2.0
"""Checks of a board or the simulator, from files to logits; each says what it found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rowvit.compiler import Program, compile
from rowvit.cycles import measured, predict
from rowvit.errors import RowvitError
from rowvit.formats.description import image_shape
from rowvit.formats.package import keep_schedule
from rowvit.hardware.block_design import bitstream_here
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import LoadKind, Op
from rowvit.overlay import RowvitOverlay, require_board
from rowvit.overlay.verify import Check, Finding, verify
from rowvit.pynq import Clocks, Device, allocate
from rowvit.quant.synthetic import random_package
from rowvit.reference.frontend import Geometry
from rowvit.targets.driver import Accelerator, cma
from rowvit.targets.golden import Golden
from rowvit.targets.target import Result, first_difference, loaded

if TYPE_CHECKING:
    from rowvit.formats.package import ModelPackage

SECONDS = {"board": 20.0, "sim": 600.0}  # that one image may take
_SHARE = 0.02  # by which a clock may differ
_MEMORY = 16 << 20  # bytes: more than a network of DeiT-Tiny's size and its images take
#: self-test networks, the largest first: patches per side, pixels of a patch, channels
_SIZES = ((24, 16, 768), (16, 16, 768), (16, 16, 384), (14, 16, 384), (14, 16, 192), (7, 4, 64), (7, 4, 32))
_SMALL = _SIZES[-2:]


def diagnose(target: str, config: HardwareConfig, bitstream: Path | None = None) -> Iterator[Check]:
    """Check after check, each as it is done, up to the first that fails.

    ``target`` is "sim" or "board"; ``bitstream`` the board's .bit, by default as for ``rowvit.open``.
    """
    walk = _Walk(target, config, bitstream)
    with walk.opened:
        for name, step in walk.steps():
            walk.figures = {}
            try:
                found = step()
                checks = found if isinstance(found, list) else [Check(name, *found)]
            except RowvitError as error:
                checks = [Check(name, False, error.message, error.advice)]
            except (RuntimeError, OSError, ValueError) as error:
                checks = [Check(name, False, str(error))]
            yield from (replace(check, figures=walk.figures) for check in checks)
            if any(check.ok is False for check in checks):
                return


class _Walk:
    """The steps, and what they pass on: device, overlay, accelerator; ``figures`` are those of a step."""

    device: Device
    overlay: RowvitOverlay
    acc: Accelerator
    figures: dict[str, float]

    def __init__(self, target: str, config: HardwareConfig, bitstream: Path | None) -> None:
        self.target, self.config, self.opened = target, config, ExitStack()
        self.bitstream = bitstream or bitstream_here(config)
        self.mhz = config.clock_mhz

    def steps(self) -> Iterator[tuple[str, Callable[[], Finding | list[Check]]]]:
        yield "device", self._device
        yield "files", lambda: verify(self.bitstream)
        yield "overlay", self._overlay
        yield "PL clock", self._clock
        yield "memory", self._memory
        yield "channels", self._channels
        yield "transfer", self._transfer
        if self.target == "board":
            yield "speed", self._speed
        yield "memories", self._memories
        yield "stream", self._stream
        yield "interrupt", self._interrupt

    def _device(self) -> Finding:
        if self.target == "sim":
            from rowvit.sim.device import SimDevice

            self.device = self.opened.enter_context(SimDevice(self.config))
            self.bitstream = Path(self.device.bitstream)
        else:
            require_board()
            self.device = Device.active_device
        return True, str(getattr(self.device, "name", self.device.tag))

    def _overlay(self) -> Finding:
        self.overlay = RowvitOverlay(self.bitstream, self.config, self.device)
        return True, f"loaded; ID, ABI and hash {self.config.hash:08X} are correct"

    def _clock(self) -> Finding:
        """The PL clock that PYNQ reads from the processing system, compared with the one in the .hwh."""
        if self.overlay.handoff.pl_clock is None:
            self.mhz = self.overlay.config.clock_mhz
            return None, "the .hwh does not say which PL clock drives the core"
        index, wanted = self.overlay.handoff.pl_clock
        found = getattr(Clocks, f"fclk{index}_mhz")
        self.mhz = found
        self.figures = {"pl_clock": index, "mhz": found, "built_for_mhz": wanted}
        text = f"PL clock {index} runs at {found:.1f} MHz, built for {wanted:g}"
        if found > wanted * (1 + _SHARE):
            raise RowvitError(
                text, f"set pynq.Clocks.fclk{index}_mhz = {wanted:g}: the circuit may fail above it"
            )
        if found < wanted * (1 - _SHARE):
            return None, f"{text}: it works, at another speed"
        return True, text

    def _memory(self) -> Finding:
        expected = np.arange(_MEMORY // 4, dtype=np.uint32).view(np.uint8)
        try:
            with allocate((_MEMORY,), np.uint8, target=self.device) as buffer:
                buffer[:] = expected
                buffer.flush()
                buffer.invalidate()
                if not np.array_equal(buffer, expected):
                    raise RowvitError("memory for the DMA loses data", "boot the image that PYNQ ships")
        except (RuntimeError, MemoryError, OSError) as error:
            raise RowvitError(
                f"no {_MEMORY >> 20} MB of contiguous memory ({cma()})",
                "free buffers (restart other notebooks), or boot with a larger cma=",
            ) from error
        return True, f"{_MEMORY >> 20} MB for the DMA; {cma()}"

    def _channels(self) -> Finding:
        self.acc = Accelerator(self.overlay, SECONDS[self.target])
        self.opened.callback(self.acc.close)
        return True, f"both of {self.overlay.handoff.dma.path} leave reset and start"

    def _transfer(self) -> Finding:
        """Through the core and back, as there is no loopback: the smallest network, and the words moved."""
        small = self._fitting(_SMALL)
        result = self._compare(*small)
        words = result.counters["recv_words"], result.counters["send_words"]
        if words[0] * 8 != small[1].meta["input"]["bytes"]:
            raise RowvitError(
                f"the core received {words[0]} words, not {small[1].meta['input']['bytes'] // 8}",
                "build the bitstream again",
            )
        return True, f"{words[0]} words in, {words[1]} out: equal to the reference"

    def _speed(self) -> Finding:
        """Cycles per second while the core waits for an input that does not come.

        Slower than PYNQ believes is no fault of the build, and no danger: its oscillator may be another.

        The two readings are as far apart in time as the bounds say between which the processor made them: it
        may have done something else in between.
        """
        core, program = self.acc.core, loaded(self.acc.program)
        with allocate(program.blob.shape, np.uint8, target=self.device) as buffer:
            buffer[:] = program.blob
            buffer.flush()
            try:
                core.start(buffer.physical_address, buffer.nbytes, 0, 1, 0)
                before, first, after = time.monotonic(), core.counter("cycles"), time.monotonic()
                time.sleep(0.2)
                begin, last, end = time.monotonic(), core.counter("cycles"), time.monotonic()
            finally:
                core.reset()
        cycles = (last - first) % 2**32
        slowest, fastest = cycles / (end - before) / 1e6, cycles / (begin - after) / 1e6
        found = cycles / (end + begin - after - before) * 2 / 1e6
        self.figures = {"counted_mhz": found, "at_least_mhz": slowest, "at_most_mhz": fastest}
        text = f"{found:.1f} MHz counted by the core, {self.mhz:.1f} by PYNQ"
        share = 2 * _SHARE * self.mhz
        if slowest > self.mhz + share:
            raise RowvitError(
                text,
                "timing may not be met: copy .bit and .hwh of one build, and load through PYNQ; an oscillator"
                " that is faster than PYNQ assumes needs another overlay",
            )
        if fastest < self.mhz - share:
            return None, f"{text}: results are right, figures by this clock are not (another oscillator?)"
        return True, text

    def _memories(self) -> Finding:
        """The largest self-test network: random numbers through most of the on-chip memories."""
        package, program = self._fitting(_SIZES)
        result = self._compare(package, program)
        lines = max(
            i.fields["dst"] + i.fields["rows"]
            for i in program.passes[0].instructions
            if i.op is Op.LOAD and i.fields["kind"] == LoadKind.WEIGHT
        )
        kept = " > ".join(map(str, [program.meta["architecture"]["tokens"], *result.live]))
        return True, (
            f"{lines} of {self.config.weight_depth} weight lines, {len(result.checkpoints)} checkpoints,"
            f" tokens {kept}, {result.w2_rows_fetched} of {result.w2_rows_total} W2 rows: equal to the"
            f" reference; {result.cycles:,} cycles; program and weights in memory are unchanged"
        )

    def _stream(self) -> Finding:
        package, program = self._fitting(_SMALL)
        images = _images(program, 3)
        expected = self._golden(package)(images)
        self.acc.load(program)
        if not all(r.same(e) for r, e in zip(self.acc.stream(images), expected, strict=True)):
            raise RowvitError("images in a stream had other results", "report it, with this table")
        return True, "3 images, two in flight, equal the reference"

    def _interrupt(self) -> Finding:
        pins = ", ".join(self.acc.core.interrupts)
        if not pins:
            return None, "the overlay has none: stream_async polls instead"
        seen = asyncio.run(self.acc.interrupt_arrives(_images(loaded(self.acc.program), 1)))
        if not seen:
            return None, f"{pins} was not seen: stream_async polls every 20 ms instead"
        return True, f"{pins} arrives"

    # -- self-test networks -------------------------------------------------------------------------

    def _fitting(self, sizes: Sequence[tuple[int, int, int]]) -> tuple[ModelPackage, Program]:
        """The first network of ``sizes`` that the configuration holds."""
        for side, patch, dim in (*sizes, (3, 4, self.config.lanes)):  # the last one for any configuration
            try:
                if self.overlay.frontend == "hls":
                    Geometry.of(side * patch, side * patch, side * patch, patch)
                package = random_package(
                    np.random.default_rng(2025),
                    dim=dim,
                    depth=1,
                    heads=max(dim // self.config.lanes, 1),
                    image_size=side * patch,
                    patch_size=patch,
                    hidden=4 * dim,
                    classes=10,
                    pruning=keep_schedule(side * side, (0,), 0.5),
                    ffn_chunk=min(4 * dim, 384),
                    name="self-test",
                )
                return package, compile(package, self.config, checkpoints=True)
            except RowvitError as error:
                refused = error
        raise refused

    def _golden(self, package: ModelPackage) -> Golden:
        golden = Golden(self.config, checkpoints=True)
        golden.load(package)
        return golden

    def _compare(self, package: ModelPackage, program: Program) -> Result:
        """Run one image; `RowvitError` if a bit differs from the integer reference."""
        images = _images(program, 1)
        golden = self._golden(package)
        (expected,) = golden(images)
        self.acc.load(program)
        (result,) = self.acc(images)
        self.acc.check_memory()
        predicted = predict(program, self.config, statistics=measured(golden.counts[0]))
        self.figures = {"cycles": result.counters["cycles"], "predicted_cycles": predicted.total}
        if where := first_difference(result, expected, program.meta):
            raise RowvitError(
                f"the result differs from the reference, first in {where}",
                "see that timing is met at this clock, and build the bitstream again",
            )
        return result


def _images(program: Program, count: int) -> NDArray[Any]:
    shape = count, *image_shape(program.meta["architecture"]), 3
    return np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
