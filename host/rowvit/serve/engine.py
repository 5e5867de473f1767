# SPDX-License-Identifier: Apache-2.0
"""One accelerator for many requests: a bounded queue, batches of what waits, deadlines, and faults.

One thread owns the target. Requests wait in order of arrival; the thread takes the network of the oldest one
and gives the target images of that network for as long as there are some, at most a batch if another network
waits. While the core computes one batch, the next is made of what has come in meanwhile. Besides the networks
that are served, requests may bring others, which the engine keeps no longer than they do.

If the target fails, the images that were in it are answered by an error, and those that wait stay; the
target's own reset, then opening it anew, must bring back an answer before anything else is run. A result that
differs from the integer reference, where the target checks some, is such a failure; a result that is being
checked is answered when it has been found equal.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.formats.program import Program
from rowvit.serve.networks import Network
from rowvit.serve.refusal import Refusal
from rowvit.targets.guard import Difference
from rowvit.targets.target import Result, Target

LOG = logging.getLogger("rowvit.serve")
_LONGEST_PAUSE = 30.0  # seconds between attempts to bring the core back
_IDLE = 5.0  # seconds between two looks at a core that has nothing to do
_SOON = 1  # seconds after which a server that is not ready may be asked again
#: the address that a request comes from
ADDRESS: ContextVar[str] = ContextVar("address", default="")


@dataclass(eq=False)
class TimedResult:
    """A result, and how long its request took."""

    result: Result
    waited: float  #: seconds in the queue
    took: float  #: seconds from the queue to the answer, waiting included


@dataclass(eq=False, repr=False)
class _Job:
    """One image on its way."""

    network: Network
    pixels: np.ndarray
    answer: asyncio.Future[TimedResult]
    entered: float = field(default_factory=time.monotonic)
    started: float = 0.0


@dataclass(eq=False, repr=False)
class Place:
    """A request's room in the queue, which it may lose as long as the core has none of its images."""

    address: str
    images: int
    jobs: list[_Job] = field(default_factory=list)
    lost: bool = False

    @property
    def begun(self) -> bool:
        return any(job.started for job in self.jobs)


class InferenceQueue:
    """The target and its queue.

    Parameters
    ----------
    open_target : callable
        Opens the target; called in the engine's thread, again after a fault that a reset does not end.
    networks : mapping of str to Network
        Those that are served.
    batch : int, optional
        Images per start of the core, at most; by default what the network's program computes together, at
        least 2.
    limit : int
        Images that may wait or be computed at once. Where there are more, the address that has the most gives
        way: its youngest request that the core has not begun.
    computed : bool
        Whether a core that has nothing to do computes an image now and then: its registers may answer while
        it does not.
    patience : float
        Seconds without an answer after which the core counts as hung.
    answered : callable
        Gets every answer with its network, in the engine's thread.

    Attributes
    ----------
    target : Target
        Once `start` has returned.
    faults : int
        Failures of the target so far.
    differences : int
        Results that differed from the integer reference so far; those when it was brought back are included.
    held : int
        Images that wait or are computed.
    """

    target: Target

    def __init__(
        self,
        open_target: Callable[[], Target],
        networks: Mapping[str, Network],
        batch: int | None = None,
        limit: int = 64,
        patience: float = 30.0,
        computed: bool = False,
        answered: Callable[[Network, TimedResult], object] = lambda network, answer: None,
    ) -> None:
        self.networks, self.limit, self.patience = networks, limit, patience
        self.faults = self.differences = self.held = 0
        self._open, self._batch, self._answered = open_target, batch, answered
        self._computed = computed
        self._places: dict[Place, None] = {}  # the oldest first
        #: what the target loads for a network, and how many images it gets per start of the core
        self._models: WeakKeyDictionary[Network, tuple[object, int]] = WeakKeyDictionary()
        self._loaded: Network | None = None
        self._queue: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._state = "starting"  # ready, recovering: requests may wait; down: they are refused
        self._trouble = ""
        self._moved = time.monotonic()  # when the core last took or gave something
        self._busy = False
        self._per_image = 0.1  # seconds, smoothed
        self._thread = threading.Thread(target=self._run, name="accelerator", daemon=True)
        self._started: Future[None] = Future()

    # -- from any thread --------------------------------------------------------------------------

    def start(self) -> None:
        """Open the target, load every network once; `RowvitError` if that fails."""
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            from rowvit.sim.tools import end_all

            end_all()  # a simulator may be built, which an interrupt does not reach
            raise

    @property
    def ready(self) -> bool:
        """Whether the core answers."""
        return self._state == "ready" and not self._stopping and not self._hung

    @property
    def trouble(self) -> str:
        """Why it is not `ready`, in a sentence without a full stop; empty if it is."""
        if self._stopping:
            return "the server is stopping"
        if self._hung:
            return f"the core has not answered for {time.monotonic() - self._moved:.0f} s"
        return self._trouble if self._state != "ready" else ""

    @property
    def _hung(self) -> bool:
        return self._busy and time.monotonic() - self._moved > self.patience

    def batch(self, network: Network) -> int:
        """Images of a network per start of the core, at most."""
        return self._prepared(network)[1]

    def stop(self, seconds: float) -> None:
        """Take nothing more, finish what waits, for at most ``seconds``, and close the target."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(seconds)
        self._refuse_waiting(Refusal(503, "the server stopped", "send the request again"))

    # -- from the event loop ----------------------------------------------------------------------

    @contextmanager
    def place(self, images: int = 1) -> Iterator[Place]:
        """Room for a request's images, from before they are decoded until they are answered.

        Raises
        ------
        Refusal
            429 if there is none, 413 if there never can be, 503 if the core is not there.
        """
        if images > self.limit:
            raise Refusal(
                413,
                f"{images} images are more than the {self.limit} that may wait here",
                "send fewer at once",
            )
        if self._state == "down" or self._stopping or self._hung:
            raise Refusal(503, self.trouble, "try again later", _SOON)
        own = Place(ADDRESS.get(), images)
        while self.held + images > self.limit:
            if not self._displaced(own):
                raise self._full()
        self.held += images
        self._places[own] = None
        try:
            yield own
        finally:
            self.held -= own.images
            self._places.pop(own, None)

    def _full(self) -> Refusal:
        after = max(1, math.ceil(self._per_image * self.held))
        return Refusal(
            429, f"{self.held} images wait already", f"try again in {after} s, or send fewer at once", after
        )

    def _displaced(self, newcomer: Place) -> bool:
        """Whether a request of the address that has the most has given way to one of another."""
        counts: Counter[str] = Counter()
        for one in self._places:
            counts[one.address] += one.images
        most = max(counts, key=lambda address: counts[address])
        if counts[most] <= counts[newcomer.address] + newcomer.images:
            return False
        with self._changed:
            waiting = (p for p in reversed(self._places) if p.address == most and p.images and not p.begun)
            other = next(waiting, None)
            if other is None:
                return False
            self._queue = deque(job for job in self._queue if job not in other.jobs)
        refusal = self._full()
        self.held -= other.images
        other.images, other.lost = 0, True
        for job in other.jobs:
            _settle(job.answer, job.answer.set_exception, refusal)
        return True

    async def classify(
        self, network: Network, images: Sequence[np.ndarray], deadline: float, place: Place
    ) -> list[TimedResult]:
        """Answers for images uint8 [H, W, 3] (any size with the HLS front end).

        Parameters
        ----------
        network : Network
        images : sequence of uint8 arrays
        deadline : float
            Of the monotonic clock.
        place : Place
            Of the request.

        Raises
        ------
        Refusal
            504 after the deadline, 503 if the core failed, 429 if the place is lost.
        """
        if place.lost:
            raise self._full()
        loop = asyncio.get_running_loop()
        jobs = [_Job(network, pixels, loop.create_future()) for pixels in images]
        place.jobs += jobs
        begin = time.monotonic()
        with self._changed:
            self._queue.extend(jobs)
            self._changed.notify()
        gathered = asyncio.gather(*(job.answer for job in jobs))
        try:
            return await asyncio.wait_for(gathered, max(0.0, deadline - begin))
        except asyncio.TimeoutError as error:
            waits = sum(not job.started for job in jobs)
            where = "it still waited" if waits == len(jobs) else "the core was processing it"
            raise Refusal(
                504,
                f"no answer within {time.monotonic() - begin:.3g} s, and {where}",
                "allow more time, or send less at once",
            ) from error
        finally:
            with self._changed:
                for job in jobs:
                    job.answer.cancel()
                    if not job.started and job in self._queue:
                        self._queue.remove(job)

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._reopen()
        except BaseException as error:
            self._started.set_exception(error)
            return
        self._state = "ready"
        self._started.set_result(None)
        while not self._ended:
            network = self._oldest()
            if network is not None:
                self._serve(network)
            elif not self._ended:
                self._probe()
        self._close()

    @property
    def _ended(self) -> bool:
        return self._stopping and not self._queue

    def _oldest(self) -> Network | None:
        """The network of the oldest image that waits; None at the end, and if none has come for a while."""
        with self._changed:
            self._busy = False
            self._changed.wait_for(lambda: self._queue or self._stopping, _IDLE)
            return self._queue[0].network if self._queue else None

    def _probe(self) -> None:
        """So that a core that is lost is brought back before somebody needs it, and a health check tells."""
        network = self._loaded or next(iter(self.networks.values()))
        self._moved, self._busy = time.monotonic(), True
        try:
            self.target.probe()
            if self._computed:
                count = self.target.count
                self._load(network)
                self.target(network.grey[None])
                self.target.count_from(count)  # of those that are checked it is none
        except Exception as error:
            self._recover(network, (), error)

    def _serve(self, network: Network) -> None:
        inside: deque[_Job] = deque()
        checked: deque[tuple[_Job, Result]] = deque()  # the integer reference is at work on them
        self._moved, self._busy = time.monotonic(), True
        try:
            self._load(network)
            images = self._waiting(network, inside)
            for result in self.target.stream(images, self.batch(network)):
                while checked and checked[0][1].bit_exact:
                    self._finish(*checked[0])
                    checked.popleft()  # not before it has its answer
                if self.target.is_checking(result):
                    checked.append((inside.popleft(), result))
                else:
                    self._finish(inside[0], result)
                    inside.popleft()
            while checked:
                self._finish(*checked[0])
                checked.popleft()
        except Exception as error:  # of a driver, a kernel, a simulator: all are faults of the core
            self._recover(network, [*(job for job, _ in checked), *inside], error)

    def _load(self, network: Network) -> None:
        if self._loaded is not network:
            self._loaded = None
            self.target.load(self._prepared(network)[0])  # type: ignore[arg-type]
            self._loaded = network

    def _waiting(self, network: Network, inside: deque[_Job]) -> Iterator[np.ndarray]:
        """Pixels of the images of one network, as long as there are some; their jobs are then ``inside``."""
        taken, most = 0, self.batch(network)
        while True:
            with self._changed:
                others = any(job.network is not network for job in self._queue)
                job = next((job for job in self._queue if job.network is network), None)
                if job is None or (others and taken >= most):
                    return
                self._queue.remove(job)
                job.started = self._moved = time.monotonic()
                inside.append(job)
            taken += 1
            yield job.pixels

    def _finish(self, job: _Job, result: Result) -> None:
        now = time.monotonic()
        self._moved = now
        self._per_image += 0.1 * (max(result.seconds, 1e-4) - self._per_image)
        answer = TimedResult(result, job.started - job.entered, now - job.entered)
        self._answered(job.network, answer)
        _settle(job.answer, job.answer.set_result, answer)

    def _refuse_waiting(self, refusal: Refusal, network: Network | None = None) -> None:
        """Refuse the images that wait, or those of one network."""
        with self._changed:
            left = [job for job in self._queue if network in (None, job.network)]
            self._queue = deque(job for job in self._queue if job not in left)
        for job in left:
            _settle(job.answer, job.answer.set_exception, refusal)

    def _failed(self, state: str, error: Exception) -> None:
        self._state, self._trouble = state, f"the core failed: {_sentence(error)}"
        self.differences += isinstance(error, Difference)

    def _recover(self, network: Network, inside: Sequence[_Job], error: Exception) -> None:
        """Answer what was in the core, and bring it back."""
        self.faults += 1
        self._failed("recovering", error)
        LOG.error("%s", self._trouble)
        refusal = Refusal(503, self._trouble, "it is being reset, send the request again", _SOON)
        for job in inside:
            _settle(job.answer, job.answer.set_exception, refusal)
        if network not in self.networks.values():  # it may itself be what fails, and holds up no other
            self._refuse_waiting(refusal, network)
            network = next(iter(self.networks.values()))
        pause = 0.0
        while not self._stopping:
            try:
                if pause:
                    self._close()
                    self._reopen()
                self._loaded = None  # what is in memory may be damaged
                self._load(network)
                self.target(network.grey[None])
            except Exception as again:
                self._failed("down", again)
                pause = min(_LONGEST_PAUSE, 2 * pause or 1.0)
                LOG.error("%s; the next attempt is in %g s", self._trouble, pause)
                self._refuse_waiting(Refusal(503, self._trouble, "try again later", _SOON))
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, pause)
            else:
                LOG.warning("the core answers again")
                self._state, self._trouble = "ready", ""
                return

    def _reopen(self) -> None:
        """Open the target, and see that it takes every network."""
        self.target = self._open()
        try:
            for network in self.networks.values():
                self._load(network)
        except BaseException:
            self._close()
            raise

    def _prepared(self, network: Network) -> tuple[object, int]:
        """What the target loads for a network, and its batch."""
        from rowvit.targets.golden import Golden

        if network not in self._models:
            model: ModelPackage | Program = network.runs
            together = 1
            if not isinstance(self.target, Golden):
                model = network.program(self.target.config)
                together = max(code.images for code in model.passes)
            self._models[network] = model, self._batch or max(2, together)
        return self._models[network]

    def _close(self) -> None:
        self._loaded = None
        try:
            self.target.close()
        except Exception as error:  # it is given up in any case
            LOG.warning("closing the target: %s", _sentence(error))


def _settle(future: asyncio.Future, change: Callable[[Any], object], value: object) -> None:
    """Change a future of the event loop from another thread, unless it is done or the loop has ended."""
    with suppress(RuntimeError):
        future.get_loop().call_soon_threadsafe(lambda: None if future.done() else change(value))


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, RowvitError) else f"{type(error).__name__}: {error}"
