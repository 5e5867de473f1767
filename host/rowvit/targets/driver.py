# SPDX-License-Identifier: Apache-2.0
"""The driver: networks on the accelerator, through PYNQ. The same code serves board and simulator.

It needs numpy and pynq only, and pynq not before it has a device.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.formats.description import image_shape
from rowvit.formats.records import Answer, spans
from rowvit.formats.work import Shape, shape
from rowvit.hardware.isa import BUSY, DONE, ERROR, ID
from rowvit.overlay.dma import DMA_HALTED, DMA_IDLE, MM2S, S2MM, dma_failed, dma_state, stop, wake
from rowvit.reference.frontend import Geometry, fill_packet
from rowvit.targets.target import Result, Target, loaded, read_program

if TYPE_CHECKING:
    from rowvit.compiler import Program
    from rowvit.formats.package import ModelPackage
    from rowvit.formats.program import Pass
    from rowvit.overlay import RowvitOverlay
    from rowvit.pynq import Interrupt, PynqBuffer
    from rowvit.targets.guard import Guard

LOG = logging.getLogger("rowvit")
_MOVES = ("axi_beats", "fires", "recv_words", "send_words")  # counters that show progress
_POLL = 0.0005  # seconds between polls of an asynchronous stream without an interrupt
_NAP = 0.00005  # seconds that a stream sleeps between polls; Linux makes 0.1 ms of them
_SLEPT = 0.8  # part of the core's time for the last answer that a stream sleeps before it polls
MEMINFO = Path("/proc/meminfo")
_CLOSING = 1.0  # seconds that a stream's end waits for who closes it
_LOOK = 0.02  # seconds after which the core is polled although no interrupt came
_SHAPES = 1_000  # thresholds keep now more tokens, now fewer
_LOOKS = 20  # polls after which a read has no answer
#: results, or seconds for which there is nothing to do but wait
_Flow = Generator["list[Result] | float", None, None]


class _Slot:
    """The buffers of a batch, and views of them that are made once: PYNQ's run much Python.

    Parameters
    ----------
    source : PynqBuffer
        What is sent, uint8 [at least as many as images, bytes].
    sink : PynqBuffer
        What is received, uint8 [at least as many as passes, bytes].
    """

    def __init__(self, source: PynqBuffer, sink: PynqBuffer) -> None:
        self.source, self.sink = source, sink
        self.images: NDArray[Any] = source.view(np.ndarray)
        self.answers: NDArray[Any] = sink.view(np.ndarray)
        self._shapes: tuple[tuple[int, int], tuple[int, int]] = source.shape, sink.shape
        self._packets: dict[int, PynqBuffer] = {}
        self._sinks: dict[int, PynqBuffer] = {}

    def holds(self, *shapes: tuple[int, int]) -> bool:
        """Whether source and sink are at least as large."""
        (images, size), (passes, length) = shapes
        (most_images, most_size), (most_passes, most_length) = self._shapes
        return most_images >= images and most_size >= size and most_passes >= passes and most_length >= length

    def packet(self, image: int, size: int) -> PynqBuffer:
        """The first ``size`` bytes of what is sent for an image."""
        found = self._packets.get(image)
        if found is None or found.nbytes != size:
            found = self._packets[image] = self._part(self.source[image, :size])
        return found

    def answer(self, number: int) -> PynqBuffer:
        """Where the answer of a pass goes."""
        found = self._sinks.get(number)
        if found is None:
            found = self._sinks[number] = self._part(self.sink[number])
        return found

    @staticmethod
    def _part(of: PynqBuffer) -> PynqBuffer:
        """A part, whose cache the DMA's driver leaves alone: PYNQ 3.1 would flush or invalidate all of the
        buffer for each.
        """
        of.coherent = True
        return of

    def free(self) -> None:
        # parts of a buffer keep its memory in XRT, which would unmap it when something else lies there
        self._packets.clear()
        self._sinks.clear()
        self.source.freebuffer()
        self.sink.freebuffer()


@dataclass
class _Batch:
    """The images of one start, from pixels to answers."""

    code: Pass
    slot: _Slot
    sizes: list[int]  # bytes to send of each image
    watchdog: int
    packing: float  # seconds
    sent: int = 0  # transfers started, the last one of image sent - 1
    sending: bool = False
    mm2s: int = 0  # status of the DMA's channel when the last transfer was complete
    misread: tuple[int, int] | None = None  # what MM2S_LENGTH read after a transfer of how many other bytes
    answers: int = 0  # passes whose answers have come
    lengths: list[int] = field(default_factory=list)  # bytes received of each pass
    started: float = 0.0
    taken: float = 0.0  # when the last input had been sent
    answered: float = 0.0  # when the last answer came; before it, when the core was started
    deadline: float = 0.0

    def __post_init__(self) -> None:
        self.count = len(self.sizes)
        self.passes = self.count // self.code.images

    @property
    def taking(self) -> bool:
        """Whether input has to be sent, or is on its way."""
        return self.sending or self.sent < self.count


class Accelerator(Target):
    """The core in a loaded overlay.

    Parameters
    ----------
    overlay : RowvitOverlay
    timeout : float
        Seconds that one image may take.
    watchdog : int
        Cycles without any progress inside the core after which it stops with an error; 0: never. Waiting
        for the host does not count. The HLS front end adds the cycles that a frame takes.
    check_every : int, optional
        One image in so many, the first included, is computed by the integer reference, too, beside the core;
        where it differs, a `RowvitError` says so, at the latest at the end of its call or stream, and until
        the network is loaded again nothing more is computed. Only for what is loaded as a package, or as a
        program compiled by this process.
    on_close : callable, optional
        Called at the end of `close`: what else to release.

    Raises
    ------
    RowvitError
        The overlay's DMA does not answer or lacks a channel, or ``check_every`` is below 1.
    """

    def __init__(
        self,
        overlay: RowvitOverlay,
        timeout: float = 10.0,
        watchdog: int = 1_000_000,
        check_every: int | None = None,
        on_close: Callable[[], object] = lambda: None,
    ) -> None:
        self.overlay, self.config, self.device = overlay, overlay.config, overlay.device
        self.frontend, self.timeout, self.watchdog = overlay.frontend, timeout, watchdog
        self.core, self.dma = overlay.core, overlay.dma
        self.program: Program | None = None
        self.blob: PynqBuffer | None = None  #: the network's program and weights, where the core reads them
        self._flow: _Flow | None = None
        self._working = threading.RLock()  # held by whoever uses core, DMA or `_flow`, or closes all of it
        self._took: dict[int, float] = {}  # seconds of the core for the last answer, by images of its pass
        self._shapes: dict[tuple[int, ...], tuple[Shape, int]] = {}  # by tokens kept; and lane tiles of W2
        self._on_close, self._own = on_close, object()
        self._warned = False  # that MM2S_LENGTH is not what was sent
        self.guard: Guard | None = None
        if check_every is not None:
            from rowvit.targets.guard import Guard

            self.guard = Guard(check_every, self.check_memory)
        self._claim, self._closed = overlay.claim(), False
        with overlay.turns.taken():
            self.reset()

    def load(self, model: str | Path | ModelPackage | Program) -> None:
        """Make a network ready: a package is compiled, and the blob copied to memory that the core can read.

        `RowvitError` if the file or network cannot be used on this configuration, the memory is too small, a
        stream is open, or the accelerator was closed.
        """
        with self.overlay.turns.taken(), self._working:
            self._require_open()
            self.overlay.require_loaded()
            self._unload()
            program = read_program(model, self.config)
            if self.guard is not None:
                self.guard.use(program, self.config, self.frontend)
            if self.frontend == "hls":  # refuses what the preprocessor cannot do
                _geometry(np.empty((*image_shape(program.meta["architecture"]), 0)), program.meta)
            self._check_size(max(program.meta["input"]["bytes"], *(p.output_bytes for p in program.passes)))
            self.blob = self._allocate(program.blob.shape)
            self.blob[:] = program.blob
            self.blob.flush()
            self.program, self.meta, self._took, self._shapes = program, program.meta, {}, {}

    def check_memory(self) -> None:
        """Compare program and weights in the memory that the core reads with those that were loaded.

        `RowvitError` if a byte has changed, or no network is loaded.
        """
        buffer, blob = loaded(self.blob), loaded(self.program).blob
        buffer.invalidate()
        changed = np.flatnonzero(buffer != blob)
        if changed.size:
            raise RowvitError(
                f"{changed.size} of {blob.size} bytes of program and weights have changed in memory,"
                f" the first at {changed[0]}",
                "load the network again, and see what else writes to memory, or whether it is defective",
            )

    def is_checking(self, result: Result) -> bool:
        return self.guard is not None and self.guard.checking(result)

    @property
    def count(self) -> int:
        return 0 if self.guard is None else self.guard.count

    def count_from(self, first: int) -> None:
        if self.guard is not None:
            self.guard.count = first

    def _check_size(self, size: int) -> None:
        limit = self.dma.buffer_max_size
        if size > limit:
            raise RowvitError(
                f"one image takes a transfer of {size} bytes, the DMA moves at most {limit}",
                "build the DMA with a wider length register",
            )

    def probe(self) -> None:
        with self._working:
            self._require_open()
            self.overlay.require_loaded()
            self.overlay.check_core()

    def close(self) -> None:
        """As of every target; `RowvitError` if another thread is at work on a stream."""
        with ExitStack() as last:  # in reverse, whatever one of them raises
            if not self._working.acquire(blocking=False):
                raise RowvitError("another thread is at work on this accelerator", "end that there first")
            last.callback(self._working.release)
            if _runs(self._flow):
                raise RowvitError("an image of its stream closes this accelerator", "end the stream first")
            last.callback(self._let_go)
            last.callback(self._on_close)
            last.callback(self._unload)
            if self._flow is not None:
                self._flow.close()
        if self.guard is not None:
            self.guard.close()

    def _let_go(self) -> None:
        self.overlay.release()
        self._claim, self._closed = None, True

    def _require_open(self) -> None:
        if self._closed:  # another process may have the board
            raise RowvitError("this accelerator was closed", "open it again")

    def _ready(self, batch: int) -> None:
        self._require_open()
        super()._ready(batch)

    def _unload(self) -> None:
        if self.blob is not None:
            self.blob.freebuffer()
        self.blob = self.program = self.meta = None

    # -- streams --------------------------------------------------------------------------------

    def stream(self, images: Iterable[NDArray[Any] | str | Path], batch: int = 1) -> Iterator[Result]:
        step: float | list[Result] | None = []
        with self._open(images, batch) as flow:
            while (step := self._step(flow, step)) is not None:
                if isinstance(step, float):
                    time.sleep(step)  # other threads run: they decode, or compute the integer reference
                else:
                    yield from step
            self._require_open()

    stream.__doc__ = Target.stream.__doc__

    async def stream_async(
        self, images: Iterable[NDArray[Any] | str | Path], batch: int = 1
    ) -> AsyncIterator[Result]:
        """Like `stream`, leaving the processor to other coroutines while the core computes.

        It waits for the core's interrupt if the overlay has one, and polls every half millisecond
        otherwise. One that is left before its end stays open until the event loop closes it:
        ``contextlib.aclosing`` does so at once.
        """
        step: float | list[Result] | None = []
        with self._open(images, batch) as flow:
            interrupt = self._interrupt()
            while (step := self._step(flow, step)) is not None:
                if isinstance(step, float):
                    await self._event(interrupt)
                    continue
                for result in step:
                    yield result
            self._require_open()

    async def interrupt_arrives(self, images: NDArray[Any]) -> bool:
        """Run ``images`` and tell whether the core's interrupt arrives within a second."""
        interrupt = self._interrupt()
        if interrupt is None:
            return False
        self(images)  # the line stays up until the next start
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(interrupt.wait(), 1)
            return True
        return False

    @contextmanager
    def _open(self, images: Iterable[NDArray[Any] | str | Path], batch: int) -> Iterator[_Flow]:
        self._ready(batch)
        with self.overlay.turns.taken(self.close):
            with self._working:
                self._require_open()
                self.overlay.require_loaded()
                if self.guard is not None:
                    self.guard.refuse()
                halted = any(self.dma.read(channel + 4) & DMA_HALTED for channel in (MM2S, S2MM))
                # someone else was here, the last reset failed, or a read failed behind the last image
                if (
                    self.overlay.turns.last is not self._own
                    or halted
                    or self.core.get("STATUS") & (BUSY | ERROR)
                ):
                    self.reset()
                flow = self._flow = self._steps(images, batch)
            try:
                yield flow
            finally:
                # else `close` ends it, and may wait for the thread in which Python finalises this
                if self._working.acquire(timeout=_CLOSING):
                    try:
                        if not _runs(flow):  # else `close` is at it in this thread
                            flow.close()
                        self._flow = None
                    finally:
                        self._working.release()

    def _step(self, flow: _Flow, last: float | list[Result] | None) -> float | list[Result] | None:
        """The next of a stream, if that has not ended, or was closed; whoever closes it waits for no step.

        ``last`` is what came before: where that were results, the caller's code has run since.
        """
        with self._working:
            if not self._closed:
                self.overlay.require_loaded(configured=not isinstance(last, float))
            return next(flow, None)

    def _steps(self, images: Iterable[NDArray[Any] | str | Path], batch: int) -> _Flow:
        """`_run_all` of all images, with the guard's checks."""
        guard = self.guard
        if guard is None:
            yield from self._run_all(self._starts(self._batches(images, batch)))
            return
        heard = True
        try:
            groups = guard.watch(self._batches(guard.begin(images), batch))
            with closing(self._run_all(self._starts(groups))) as steps:
                for step in steps:
                    guard.note(() if isinstance(step, float) else step)
                    yield step
                    while guard.behind > 1:  # so that what waits for the integer reference stays little
                        yield _POLL
                        guard.settle()
            while guard.behind:
                yield _POLL
                guard.settle()
        except GeneratorExit:
            heard = False
            raise
        finally:
            guard.end(heard)

    @property
    def _checking(self) -> bool:
        """Whether the integer reference is at work beside the core."""
        return self.guard is not None and self.guard.busy

    def _starts(self, groups: Iterator[Sequence[NDArray[Any]]]) -> Iterator[Sequence[NDArray[Any]]]:
        """The images of every start: a batch, or where the program has a pass for several images, what those
        passes run of it, and then the rest.
        """
        most = max(code.images for code in loaded(self.program).passes)
        for group in groups:
            together = len(group) // most * most
            yield from (part for part in (group[:together], group[together:]) if part)

    def _interrupt(self) -> Interrupt | None:
        """A new one for every stream: it belongs to the event loop that waits for it."""
        from rowvit.pynq import Interrupt, hear

        for pin in self.core.interrupts:
            with suppress(ValueError):  # no UIO device
                found = Interrupt(pin)
                hear()
                return found
        return None

    async def _event(self, interrupt: Interrupt | None) -> None:
        """Wait for the core, or a short time."""
        if interrupt is None:
            await asyncio.sleep(_POLL)
        elif (seconds := self._since_interrupt()) is not None:
            await asyncio.sleep(seconds)
        else:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(interrupt.wait(), _LOOK)

    def _since_interrupt(self) -> float | None:
        """Seconds to wait where the core's interrupt has come, or will not; otherwise None."""
        with self._working:
            if self._closed:
                return 0.0
            if raised := self.core.get("IRQ_STATUS"):
                self.core.set("IRQ_STATUS", raised)
                return 0.0
            if not self.core.get("STATUS") & BUSY:  # the DMA is about to finish
                return _POLL if self._checking else 0.0
        return None

    # -- a run ----------------------------------------------------------------------------------

    def _run_all(self, batches: Iterator[Sequence[NDArray[Any]]]) -> _Flow:
        """Results of batch after batch; seconds to wait whenever there is nothing else to do."""
        slots: list[_Slot | None] = [None, None]
        running: _Batch | None = None
        staged: _Batch | None = None
        finished: _Batch | None = None
        failure: Exception | None = None
        try:
            for slot in cycle(range(2)):
                try:
                    images = next(batches, None)
                except Exception as error:  # the caller's; images before it still get their results
                    images, failure = None, error
                staged = None if images is None else self._stage(images, slots, slot)
                if running is not None:
                    running.deadline = time.monotonic() + self._limit(running)
                    while not self._advance(running):
                        if staged is not None and not staged.sent and not running.taking:
                            self._send(staged)  # it stands at the core's door until the core is started
                        yield self._pause(running)
                    received, counters = time.monotonic(), self.core.counters()  # a start clears them
                if staged is not None:
                    self._start(staged)  # the core works while the results are read
                if running is not None:
                    self._take(running)
                if staged is not None:
                    self.dma.recvchannel.transfer(staged.slot.answer(0))
                finished, running = running, staged
                if finished is not None:
                    results, finished = self._results(finished, received, counters), None
                    yield results
                if failure is not None:
                    raise failure
                if running is None:
                    return
        except BaseException:
            if running or staged or finished:  # core or DMA may be working on them, or its answer was cut
                with suppress(RowvitError):
                    self.reset()
            raise
        finally:
            for channel in (self.dma.sendchannel, self.dma.recvchannel):
                channel._active_buffer = None  # PYNQ's, of a transfer that was not waited for: see _Slot.free
            for held in slots:
                if held is not None:
                    held.free()

    def _stage(self, images: Sequence[NDArray[Any]], slots: list[_Slot | None], slot: int) -> _Batch:
        """What the DMA sends for ``images``, in memory that it can read: patches, or frames."""
        meta, count, code = loaded(self.meta), len(images), loaded(self.program).pass_for(len(images))
        begin = time.monotonic()
        watchdog, sizes = self.watchdog, [meta["input"]["bytes"]] * count
        if self.frontend == "hls":
            geometries = [_geometry(image, meta) for image in images]
            sizes = [geometry.packet_bytes for geometry in geometries]
            watchdog += max(g.width * g.height for g in geometries) if watchdog else 0
        size = -(-max(sizes) // 8) * 8  # packets start at whole words
        self._check_size(size)
        shapes = (count, size), (count // code.images, -(-code.output_bytes // 8) * 8)
        held = slots[slot]
        if held is None or not held.holds(*shapes):
            if held is not None:
                held.free()
            slots[slot] = None
            source = self._allocate(shapes[0])
            try:
                sink = self._allocate(shapes[1])
            except BaseException:
                source.freebuffer()
                raise
            held = slots[slot] = _Slot(source, sink)
            source[:] = 0  # rows end in padding
        if self.frontend == "hls":
            for image, geometry, packet in zip(images, geometries, held.images, strict=False):
                fill_packet(image, geometry, packet[: geometry.packet_bytes])
        else:
            rows = meta["input"]["rows"]
            for image, packet in zip(images, held.images, strict=False):
                _pack(image, meta["architecture"]["patch_size"], packet.reshape(rows, -1))
        held.source.flush()
        return _Batch(code, held, sizes, watchdog, time.monotonic() - begin)

    def _start(self, batch: _Batch) -> None:
        """Start the core; its answer waits until the DMA is told where it goes."""
        batch.started = batch.answered = time.monotonic()
        blob = loaded(self.blob)
        self.core.start(blob.physical_address, blob.nbytes, batch.code.offset, batch.passes, batch.watchdog)
        if not batch.sent:
            self._send(batch)  # it arrives while weights load

    def _send(self, batch: _Batch) -> None:
        """Send the next image."""
        self.dma.sendchannel.transfer(batch.slot.packet(batch.sent, batch.sizes[batch.sent]))
        batch.sent, batch.sending = batch.sent + 1, True

    def _take(self, batch: _Batch) -> None:
        """Take note of an answer that has come; the last one makes all visible to the CPU."""
        self.dma.recvchannel.wait()
        batch.lengths.append(self.dma.recvchannel.transferred)
        if len(batch.lengths) == batch.passes:
            batch.slot.sink.invalidate()

    def _advance(self, batch: _Batch) -> bool:
        """Do what there is to do; True when all answers have come, the last of which `_take` has to take."""
        send, passes = self.dma.sendchannel, batch.passes
        if batch.sending and (status := self._finished(MM2S)):
            send.wait()
            batch.sending, batch.taken, batch.mm2s = False, time.monotonic(), status
            size = batch.sizes[batch.sent - 1]
            if send.transferred != size:
                batch.misread = batch.misread or (send.transferred, size)
        if not batch.sending and batch.sent < batch.count:
            self._send(batch)
        if batch.answers < passes:
            if self._finished(S2MM):
                batch.answers += 1
                batch.answered = time.monotonic()
                batch.deadline = batch.answered + self._limit(batch)
                if batch.answers < passes:
                    self._take(batch)
                    self.dma.recvchannel.transfer(batch.slot.answer(batch.answers))
            elif self.core.get("STATUS") & ERROR:
                self._check_sent(batch)
                raise self.core.error()
        if batch.answers == passes and not batch.sending:
            self._check_sent(batch)
            return True
        if time.monotonic() > batch.deadline:
            self._check_sent(batch)
            core, s2mm = self.core.state(), dma_state(self.dma.read(S2MM + 4))
            # behind the last transfer the next batch's may be waiting
            mm2s = dma_state(self.dma.read(MM2S + 4) if batch.sending else batch.mm2s)
            cause, advice = self._cause(batch)
            image = batch.answers * batch.code.images
            late = f"image {image} was not done in {self._limit(batch):g} s, probably because {cause}"
            raise RowvitError(f"{late}: {core}, DMA MM2S {mm2s}, S2MM {s2mm}", advice)
        return False

    def _limit(self, batch: _Batch) -> float:
        """Seconds that a pass may take, whose images are done together."""
        return self.timeout * batch.code.images

    def _pause(self, batch: _Batch) -> float:
        """Seconds to sleep before the core is asked again.

        Most of the time that the last answer took, and then so little that an answer waits for 0.05 ms on
        average; as little while input is sent, since the next one must follow it.
        """
        now = time.monotonic()
        took = 0.0 if batch.taking else self._took.get(batch.code.images, 0.0)
        return max(min(batch.answered + _SLEPT * took, batch.deadline) - now, _NAP)

    def _words(self, images: int) -> int:
        """Input words that the core takes for so many images."""
        return int(loaded(self.meta)["input"]["bytes"]) // 8 * images

    def _check_sent(self, batch: _Batch) -> None:
        """`RowvitError` if the DMA's length register read other than was sent, and the core got less, too.

        PG021 promises of S2MM alone that it reads the bytes that were moved: the core's counter decides.
        """
        if batch.misread is None:
            return
        transferred, size = batch.misread
        words, received = self._words(batch.sent - batch.sending), self.core.counter("recv_words")
        if received < words:
            raise RowvitError(
                f"the DMA sent {transferred} of {size} bytes, and {received} of {words} words reached the"
                " core: its length register is narrower than the .hwh says",
                "copy this bitstream's own .hwh, or build the DMA with 26 bits",
            )
        if not self._warned:
            self._warned = True
            LOG.warning(
                "the DMA's MM2S_LENGTH reads %d after a transfer of %d bytes, but all words reached the core",
                transferred,
                size,
            )

    def _finished(self, channel: int) -> int:
        """The status of a channel of the DMA if its transfer is complete, otherwise 0."""
        status = int(self.dma.mmio.array[channel // 4 + 1])  # asked often, and `read` runs much Python
        if dma_failed(status):
            if self.core.get("STATUS") & ERROR:  # which came first
                raise self.core.error()
            raise RowvitError(
                f"the DMA's {'S2MM' if channel else 'MM2S'} channel stopped: {dma_state(status)}",
                "bitstream and software may be of different versions",
            )
        return status if status & DMA_IDLE else 0

    def _cause(self, batch: _Batch) -> tuple[str, str]:
        """The likely cause of a wait that took too long, and advice."""
        core = self.core
        if core.get("ID") != ID:
            return "the core no longer answers", "load the bitstream again"
        before, done = core.counters(), core.progress()
        time.sleep(0.01)
        status, after = core.get("STATUS"), core.counters()
        if status & DONE:
            return "the core is done, but the DMA never saw TLAST", "use .bit and .hwh of one build"
        if not status & BUSY:
            advice = "see that nothing else uses it, and load the bitstream again"
            return "the core never started or was reset meanwhile", advice
        if after["cycles"] == before["cycles"]:
            return "the core's clock stands still", "see that the PL clock is on (rowvit diagnose)"
        if done != core.progress() or any(after[name] != before[name] for name in _MOVES):
            return "the core is still at work", "allow more time (timeout=)"
        if not after["axi_beats"]:
            cause = "no word came from memory, as the core's read port does not reach an HP port"
            return cause, "see `rowvit verify-overlay`"
        if not self._memory_answers():
            cause = f"the memory no longer answers the core's reads: {after['axi_beats']} words came"
            return cause, "load the bitstream again, and run `rowvit diagnose`"
        words = self._words(batch.sent)
        if after["recv_words"] < words:
            arrived = f"{after['recv_words']} of {words} input words arrived"
            return f"{arrived}, and the DMA's MM2S stream stands still", "run `rowvit diagnose`"
        taken = f"the DMA's S2MM stream stands still after {after['send_words']} words"
        return f"{taken}, or the core waits for itself", "run `rowvit diagnose`, and report this message"

    def _memory_answers(self) -> bool:
        """Whether the core, which is stuck, reads a word after a reset; true also if the DMA refuses that.

        No counter tells a read that is not answered from input that does not come: who has no instruction
        takes no input, either.
        """
        blob = loaded(self.blob)
        with suppress(RowvitError):
            self.reset()
            self.core.start(blob.physical_address, blob.nbytes, 0, 1, 0)
            for _ in range(_LOOKS):
                time.sleep(_POLL)
                if not self.core.get("STATUS") & BUSY or self.core.counter("axi_beats"):
                    return True
            return False
        return True

    def _results(self, batch: _Batch, received: float, counters: dict[str, int]) -> list[Result]:
        begin = time.monotonic()
        meta, code, start = loaded(self.meta), batch.code, (0, 0)
        core = counters["cycles"] / (1e6 * self.config.clock_mhz)  # the simulator's time is not the host's
        self._took[code.images] = min(core, received - batch.started) / batch.passes
        results: list[Result] = []
        for number, (packet, length) in enumerate(zip(batch.slot.answers, batch.lengths, strict=False), 1):
            answers = Answer.parse(packet[:length], meta, code.images)
            last = number == batch.passes
            end = (counters["cycles"], counters["fires"]) if last else answers[-1].marks[-1]
            cycles, fires = (
                # counters have 32 bits and wrap
                spans(
                    0,
                    [[mark[j] - start[j] & 0xFFFFFFFF for mark in answer.marks] for answer in answers],
                    end[j] - start[j] & 0xFFFFFFFF,
                    code.shares,
                )
                for j in (0, 1)
            )
            start = end
            results += [
                Result.of(
                    meta,
                    self._logits(answer),
                    answer.kept,
                    loaded(self.program).head,
                    tokens=answer.tokens,
                    rows=self._rows(answer),
                    checkpoints=answer.checkpoints,
                    cycles=sum(own_cycles),
                    layer_cycles=own_cycles,
                    layer_fires=own_fires,
                    counters=counters,
                    batch=batch.count,
                )
                for answer, own_cycles, own_fires in zip(answers, cycles, fires, strict=True)
            ]
        if batch.count == 1:
            self._add_work(results[0], meta)
        timing = {
            "pack": batch.packing,
            "run": received - batch.started,
            "send": batch.taken - batch.started,
            "unpack": time.monotonic() - begin,
        }
        for result in results:
            result.timing = timing
            result.seconds = (timing["pack"] + timing["run"] + timing["unpack"]) / batch.count
        return results

    def _logits(self, answer: Answer) -> NDArray[Any]:
        """The core's, or the host's from its tokens."""
        program = loaded(self.program)
        if "host_head" not in program.meta:
            return answer.logits
        from rowvit.reference.head import head_logits

        return head_logits(
            program.meta, program.head, answer.tokens[program.meta["architecture"]["depth"] - 1]
        )

    def _rows(self, answer: Answer) -> dict[str, NDArray[Any]]:
        """What the host says of rows, if the network has heads for them."""
        program = loaded(self.program)
        if "row_heads" not in program.meta:
            return {}
        from rowvit.reference.head import row_answers

        last = answer.tokens[program.meta["architecture"]["depth"] - 1]
        return row_answers(program.meta, program.head, last)

    def _add_work(self, result: Result, meta: dict[str, Any]) -> None:
        """Multiplications and W2 rows from token counts and counters."""
        found = self._shapes.get(kept := tuple(result.live))
        if found is None:
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            arch = meta["architecture"]
            alive = dict(zip((step["layer"] for step in meta["pruning"]), kept, strict=True))
            live = [arch["tokens"]]
            for layer in range(arch["depth"]):
                live.append(alive.get(layer, live[-1]))
            found = self._shapes[kept] = shape(meta, live[1:]), -(-arch["dim"] // self.config.tile)
        (tokens, tiles), counters = found, result.counters  # FFN2's sum over lane tiles
        nonzeros, rows = counters["ffn2_nonzeros"] // tiles, counters["w2_fetched"] // tiles
        vars(result).update(vars(tokens.work(counters["pv_nonzeros"], nonzeros, rows)))

    def reset(self) -> None:
        """Put core and DMA into the state that they have after loading the bitstream; the network stays.

        `RowvitError` if the DMA does not stop, a channel is missing, another bitstream was loaded, or the
        accelerator was closed.
        """
        with self._working:
            self._require_open()
            self.overlay.require_loaded()
            path = self.overlay.handoff.dma.path
            stop(self.dma, path)  # before the core, whose TVALID may fall when it is reset, without TREADY
            self.core.reset()
            wake(
                self.dma, path
            )  # again: it takes four words before it is started (PG021), the core's last ones
            for channel in (self.dma.sendchannel, self.dma.recvchannel):
                channel.start()
            self.overlay.turns.last = self._own

    def _allocate(self, shape: tuple[int, ...]) -> PynqBuffer:
        from rowvit.pynq import allocate

        try:
            buffer: PynqBuffer = allocate(shape, np.uint8, target=self.device)
            return buffer
        except (RuntimeError, MemoryError, OSError) as error:
            asked = -(-math.prod(shape) // 1024)
            raise RowvitError(
                f"no contiguous memory for a buffer of {asked} KB ({cma()})",
                "free other buffers, use a smaller batch, or boot with a larger cma=",
            ) from error


def _runs(flow: _Flow | None) -> bool:
    return flow is not None and inspect.getgeneratorstate(flow) == inspect.GEN_RUNNING


def _pack(image: NDArray[Any], patch: int, rows: NDArray[Any]) -> None:
    """Write an image's patches to uint8 [patches, bytes], whose rows may end in padding.

    They are those of `reference.patchify`, copied in pieces of a patch's width. ``rows`` are only written:
    reading memory that the processor does not cache takes long.
    """
    height, across, channels = image.shape
    down, across, width = height // patch, across // patch, patch * channels
    values = np.bitwise_xor(image, 0x80, order="C")
    pieces = values.reshape(down, patch, across, width).view(f"V{width}")[..., 0]
    strides = (across * rows.strides[0], rows.strides[0], width)
    target: NDArray[Any] = np.ndarray((down, across, patch), f"V{width}", rows, 0, strides)
    target[:] = pieces.transpose(0, 2, 1)


def _geometry(image: NDArray[Any], meta: dict[str, Any]) -> Geometry:
    """The middle square of an image [height, width, ...], for the network that ``meta`` describes."""
    return Geometry.for_network(image.shape[1], image.shape[0], meta["architecture"])


def cma() -> str:
    """What the kernel says about its contiguous memory."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        lines = []
    found = [" ".join(line.split()) for line in lines if line.startswith("Cma")]
    return ", ".join(found) or "the kernel does not say how much there is"
