# SPDX-License-Identifier: Apache-2.0
"""The event kernel, and what the engines share. Times are cycles since start."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator
from itertools import count
from typing import Any, TypeVar

from rowvit.cycles.data import LayerTimes, Slice, Statistics
from rowvit.cycles.jobs import Dependency, Job
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import Engine, LoadKind
from rowvit.hardware.memory import Memory

T = TypeVar("T")
#: yields the time at which it continues, or None where somebody else starts it again
Process = Generator[float | None, None, T]


class Progress:
    """Completion times of one engine's operations and bands, possibly in the future."""

    def __init__(self) -> None:
        self.done: list[float] = []
        self.bands: list[float] = []  # of the operation under way
        self.last: list[float] = []  # of the one before
        self.waiters: list[Process[Any]] = []

    def when(self, operation: int, band: int) -> float | None:
        """Time when the operation's band (-1: the operation) is complete; None if not known yet."""
        known = len(self.done)
        if operation < known:
            if band >= 0 and operation == known - 1 and band < len(self.last):
                return self.last[band]
            return self.done[operation]
        if band >= 0 and operation == known and band < len(self.bands):
            return self.bands[band]
        return None


class Machine:
    """Event kernel, queues and progress of the engines, and the resources that they take from each other.

    ``statistics`` are those of every image, ``depth`` is the network's.
    """

    def __init__(
        self, config: HardwareConfig, memory: Memory, statistics: list[Statistics], depth: int
    ) -> None:
        self.config, self.statistics = config, statistics
        self.latency = 0 if memory.ideal else memory.latency
        self.shared = not memory.ideal  #: loads and input share the bandwidth
        #: words of the port per cycle, and 64-bit words in each
        self.rate = memory.beats_per_cycle
        self.parts = config.port_bits // 64
        # events
        self.now = 0.0
        self._heap: list[tuple[float, int, Process[Any]]] = []
        self._order = count()
        self._running: Process[Any]
        # instructions
        self.progress = {engine: Progress() for engine in Engine}
        self.queues: dict[Engine, deque[Job]] = {engine: deque() for engine in Engine}
        self.idle: dict[Engine, Process[Any]] = {}  #: engines that wait for an instruction
        self.dispatcher: Process[None]
        self.blocked: Engine | None = None  #: queue that holds the dispatcher
        # results
        self.timeline: list[Slice] = []
        self.marks: list[list[float]] = [[] for _ in statistics]
        self.ends: list[float] = []
        self.layers = [LayerTimes() for _ in range(depth + 2)]
        # contention
        self.loading = False  #: words of a load arrive
        self.receiving = False  #: words of the input arrive
        self.other_words = 0.0  #: of program and output, during a load
        #: until when the drain leaves what share of its cycles to a load that writes its memory
        self.stores: dict[LoadKind, tuple[float, float]] = {}
        self.residual: deque[tuple[float, float]] = deque()  #: when the drain reads residuals

    # -- events ---------------------------------------------------------------------------------

    def start(self, process: Process[Any], time: float) -> None:
        heapq.heappush(self._heap, (time, next(self._order), process))

    def run(self) -> None:
        """Until every process has ended or waits for another one."""
        while self._heap:
            self.now, _, self._running = heapq.heappop(self._heap)
            time = next(self._running, None)
            if time is not None:
                self.start(self._running, max(time, self.now))

    def until(self, time: float) -> Process[None]:
        if time > self.now:
            yield time

    # -- instructions ---------------------------------------------------------------------------

    def next(self, engine: Engine) -> Process[Job]:
        """Wait for the next instruction of a queue."""
        if not self.queues[engine]:
            self.idle[engine] = self._running
            yield None
        return self.queues[engine][0]

    def take(self, engine: Engine) -> None:
        """Remove the instruction at the head of a queue."""
        self.queues[engine].popleft()
        if self.blocked is engine:
            self.blocked = None
            self.start(self.dispatcher, self.now)

    def ready(self, deps: list[Dependency], band: int) -> Process[tuple[float, Engine | None]]:
        """When a band's dependencies are met, and the engine that was last: returned, not yielded."""
        latest, last = 0.0, None
        for engine, operation, chain in deps:
            progress = self.progress[engine]
            while (time := progress.when(operation, band if chain else -1)) is None:
                progress.waiters.append(self._running)
                yield None
            if time > latest:
                latest, last = time, engine
        return latest, last

    def band_done(self, engine: Engine, time: float, bands: int = 1) -> None:
        """The next ``bands`` bands of the engine's operation are complete."""
        self.progress[engine].bands += [time] * bands
        self._wake(engine)

    def done(self, engine: Engine, time: float) -> None:
        """The engine's operation is complete."""
        progress = self.progress[engine]
        progress.done.append(time)
        progress.last, progress.bands = progress.bands, []
        self._wake(engine)

    def _wake(self, engine: Engine) -> None:
        progress = self.progress[engine]
        for process in progress.waiters:
            self.start(process, self.now)
        progress.waiters = []

    # -- results --------------------------------------------------------------------------------

    def account(self, job: Job) -> LayerTimes:
        """Where the job's cycles count: the last image's are kept."""
        if job.slice.image == len(self.statistics) - 1 and not job.void:
            return self.layers[job.slice.layer + 1]
        return LayerTimes()

    def finish(self, job: Job, time: float) -> None:
        """The job, taken from its queue before, is complete."""
        engine = job.slice.engine
        job.slice.end = time
        if not job.void:
            self.timeline.append(job.slice)
        self.account(job).busy[engine] += job.slice.busy
        self.done(engine, time)
