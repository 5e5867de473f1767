# SPDX-License-Identifier: Apache-2.0
"""How many cycles a program takes, without running it: a model of the engines in events.

Every engine is a coroutine with a clock. It advances one band, tile or piece of a load at a time, in
order of time, and waits where its instruction says so. What depends on data (tokens alive, non-zeros,
rows of W2) comes as `LayerStatistics`, from the integer reference or assumed. The constants are the
pipeline lengths of the RTL, which the modules' headers state; ``tests/network/test_cycle_model.py``
compares with the RTL.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from rowvit.errors import RowvitError
from rowvit.formats.program import Program
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import QUEUE, Dst, Engine, Flag, Instruction, LoadKind, NormKind, Op
from rowvit.hardware.pipeline import (
    BURST_WORDS,
    BURSTS,
    CAPTURE,
    LOAD_FIFO,
    NEAR_END,
    NORM_OUT,
    NORM_ROW,
    NORM_STATS,
    NORM_SUM,
    PREFETCH,
    QUEUE_DEPTH,
    REACT,
    REACT_BAND,
    REACT_SPARSE,
    READ,
    RESIDUAL_STAGE,
    SCORE,
    SEARCH_SCANS,
    SOFTMAX,
    SOFTMAX_GROUP,
)

if TYPE_CHECKING:
    from rowvit.reference.network import Counts


@dataclass(frozen=True)
class Memory:
    """The DDR; `rowvit.sim.device.MemoryModel` serves as well.

    Parameters
    ----------
    latency : int
        Cycles from a read's address to its first word.
    rate : int
        Percent of the cycles that carry a word, for loads and input together.
    ideal : bool
        No latency, and a word for everybody in every cycle.
    """

    latency: int = 40
    rate: int = 85
    ideal: bool = False


@dataclass
class LayerStatistics:
    """What the data decide in one layer of one image.

    Parameters
    ----------
    before, after : int
        Tokens alive in attention, and from the projection on.
    hidden : int array [after, chunks]
        Nonzero hidden activations.
    first : int array [tiles, hidden]
        The first row of a row tile that uses a hidden neuron, hence a row of W2; ``after`` if none does.
        One tile unless the rule is "tile".
    probabilities : int array [heads, before]
        Nonzero probabilities.
    """

    before: int
    after: int
    hidden: np.ndarray
    first: np.ndarray
    probabilities: np.ndarray


Statistics = list[LayerStatistics]


def measured(counts: Counts) -> Statistics:
    """Statistics of an image that the integer reference ran (`rowvit.reference.network.run`)."""
    layers = zip(counts.hidden_rows, counts.w2_first, counts.pv_rows, strict=True)
    return [LayerStatistics(p.shape[1], hidden.shape[0], hidden, first, p) for hidden, first, p in layers]


def assumed(
    program: Program, hidden: float = 0.2, rows: float = 0.4, probabilities: float = 0.9
) -> Statistics:
    """Statistics without an image.

    Parameters
    ----------
    program : Program
    hidden : float
        Share of the hidden activations that are not zero.
    rows : float
        Share of the rows of W2 that are used; at least ``hidden``.
    probabilities : float
        Share of the probabilities that are not zero.

    Returns
    -------
    list of LayerStatistics
        Every pruning keeps as many tokens as it may; the shares are spread at random (same seed).
    """
    meta = program.meta
    arch, rng = meta["architecture"], np.random.default_rng(0)
    keep = {step["layer"]: step["keep"] + 1 for step in meta["pruning"]}
    starts = np.arange(0, arch["hidden"], meta["ffn_chunk"])
    layers, live = [], arch["tokens"]
    for layer in range(arch["depth"]):
        after = min(live, keep.get(layer, live))
        tiles = -(-after // meta["tile_rows"]) if meta["ffn2_rule"] == "tile" else 1
        used = rng.random((tiles, arch["hidden"])) < rows
        columns = np.add.reduceat(used, starts, axis=1, dtype=int)[np.arange(after) * tiles // after]
        nonzeros = rng.binomial(columns, min(1.0, hidden / max(rows, 1e-9)))
        p = rng.binomial(live, probabilities, (arch["heads"], live))
        # rows use a neuron independently of each other
        begin = np.arange(tiles)[:, None] * meta["tile_rows"]
        waits = rng.geometric(np.clip(hidden / max(rows, 1e-9), 1e-9, 1), used.shape) - 1
        first = np.where(used, np.minimum(begin + waits, after - 1), after)
        layers.append(LayerStatistics(live, after, nonzeros, first, p))
        live = after
    return layers


@dataclass
class Slice:
    """One operation of one engine.

    Parameters
    ----------
    engine : Engine
    name : str
    layer : int
        -1: patch embedding; the network's depth: head.
    image : int
    number : int
        Operations of this engine before it, since start.
    start, end : float
        Cycles since start. Before ``start`` the operation waits for its first dependency.
    busy : float
        Cycles of work in it: scalars that fire, words that arrive, lanes that drain.
    """

    engine: Engine
    name: str
    layer: int
    image: int
    number: int
    start: float = 0.0
    end: float = 0.0
    busy: float = 0.0


@dataclass
class LayerTimes:
    """Cycles of one layer by engine, and why the array stood still.

    The array's four add up to the time from the previous layer's last operation to this one's.
    """

    busy: dict[Engine, float] = field(default_factory=lambda: dict.fromkeys(Engine, 0.0))
    weights: float = 0.0  #: array waits for loads
    data: float = 0.0  #: array waits for activations
    draining: float = 0.0  #: array waits for the drain of the tile before
    instructions: float = 0.0  #: array waits for the dispatcher
    load_wait: float = 0.0  #: a load waits for room or for a mask
    softmax: float = 0.0  #: softmax busy
    macs: float = 0.0  #: multiplications of the array
    words: float = 0.0  #: 64-bit words loaded


@dataclass
class Prediction:
    """What `predict` says of one start of the core.

    Parameters
    ----------
    total : int
        Cycles from start to the last word of the last image.
    layer_cycles : list of int
        Of the last image: embedding, layers, head, as in `rowvit.targets.target.Result`.
    image_cycles : list of int
        Of every image; the head of all but the last counts in the next one's embedding.
    layers : list of LayerTimes
        Of the last image, in the same order.
    timeline : list of Slice
    """

    total: int
    layer_cycles: list[int]
    image_cycles: list[int]
    layers: list[LayerTimes]
    timeline: list[Slice]


def predict(
    program: Program,
    config: HardwareConfig,
    memory: Any = None,
    statistics: Statistics | Sequence[Statistics] | None = None,
    images: int = 1,
) -> Prediction:
    """Predict the cycles of a start of the core.

    Parameters
    ----------
    program : Program
    config : HardwareConfig
        What the program was compiled for.
    memory : Memory or MemoryModel, optional
    statistics : list of LayerStatistics, or one such list per image, optional
        From `measured` or, by default, `assumed`.
    images : int
        Images of the start.

    Raises
    ------
    RowvitError
        Operations of the program wait for each other.
    """
    found = statistics or assumed(program)
    each = [found] * images if isinstance(found[0], LayerStatistics) else list(found)
    return _Model(program, config, memory or Memory(), each[:images]).run()


@dataclass(eq=False)
class _Job:
    """One instruction of one image, as its engine sees it."""

    instruction: Instruction
    slice: Slice
    deps: list[tuple[Engine, int, bool]]  # engine, operation (absolute), band by band
    live: int
    rows: np.ndarray | None = None  # sparse MATMUL, ATTN: scalars of every row, of its longest group
    work: np.ndarray | None = None  # ATTN: scalars of every row, over all groups
    words: float = 0.0  # LOAD
    scan: int = 0  # LOAD, gather: mask words
    fetched: int = 0  # LOAD, gather: rows
    void: bool = False
    turn: int = 0  # pass of the program
    time: float = 0.0  # when it enters its queue


class _Progress:
    """Completion times of one engine's operations and bands, possibly in the future."""

    def __init__(self) -> None:
        self.done: list[float] = []
        self.bands: list[float] = []  # of the operation under way
        self.last: list[float] = []  # of the one before
        self.waiters: list[Iterator] = []

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

    def complete(self, time: float) -> None:
        self.done.append(time)
        self.last, self.bands = self.bands, []


class _Model:
    """The machine. Times are cycles since start."""

    def __init__(
        self, program: Program, config: HardwareConfig, memory: Any, statistics: list[Statistics]
    ) -> None:
        self.program, self.config, self.statistics = program, config, statistics
        self.latency = 0 if memory.ideal else memory.latency
        self.shared = not memory.ideal
        rate = 1.0 if memory.ideal else memory.rate / 100
        self.rate = min(rate, BURSTS * BURST_WORDS / (self.latency + BURST_WORDS))
        self.depth = program.meta["architecture"]["depth"]
        self.now = 0.0
        self.heap: list[tuple[float, int, Iterator]] = []
        self.order = count()
        self.progress = {engine: _Progress() for engine in Engine}
        self.queues: dict[Engine, deque[_Job]] = {engine: deque() for engine in Engine}
        self.idle: dict[Engine, Iterator] = {}  # engines that wait for an instruction
        self.blocked: Engine | None = None  # queue that holds the dispatcher
        self.timeline: list[Slice] = []
        self.marks: list[list[float]] = [[] for _ in statistics]
        self.ends: list[float] = []
        self.layers = [LayerTimes() for _ in range(self.depth + 2)]
        # who takes what from whom
        self.loading = False  # words of a load arrive
        self.receiving = False  # words of the input arrive
        self.other_words = 0.0  # of program and output, beside a load
        #: until when the drain leaves what share of its cycles to a load that writes its memory
        self.stores: dict[LoadKind, tuple[float, float]] = {}
        self.residual: deque[tuple[float, float]] = deque()  # when the drain reads residuals

    def run(self) -> Prediction:
        jobs = [job for turn in range(len(self.statistics) + 1) for job in self._jobs(turn)]
        self.dispatcher = self._dispatch(jobs)
        for process in (
            self._load(),
            self._array(),
            self._norm(),
            self._select(),
            self._receive(),
            self.dispatcher,
        ):
            self._start(process, 0.0)
        heap = self.heap
        while heap:
            self.now, _, process = heapq.heappop(heap)
            self.running = process
            wish = next(process, None)
            if wish is None or isinstance(wish, Engine):
                continue  # ended, or whoever it waits for knows it
            heapq.heappush(heap, (max(wish, self.now), next(self.order), process))
        if len(self.ends) < len(self.statistics):
            stuck = ", ".join(queue[0].slice.name for queue in self.queues.values() if queue)
            raise RowvitError(f"the program never ends: {stuck} wait for each other; compile it again")
        # as in a Result, an image but the last ends with its last mark
        ends = [marks[-1] for marks in self.marks[:-1]] + self.ends[-1:]
        starts = [0.0, *ends[:-1]]
        marks = [starts[-1], *self.marks[-1], ends[-1]]
        return Prediction(
            total=round(ends[-1]),
            layer_cycles=[round(b) - round(a) for a, b in pairwise(marks)],
            image_cycles=[round(b) - round(a) for a, b in zip(starts, ends, strict=True)],
            layers=self.layers,
            timeline=sorted(self.timeline, key=lambda s: s.start),
        )

    # -- program --------------------------------------------------------------------------------

    def _jobs(self, turn: int) -> list[_Job]:
        """The instructions of one pass with the work that its data make of them."""
        header, *body, _ = self.program.instructions
        names = iter(self.program.meta["ops"])
        images = len(self.statistics)
        arch, statistics = self.program.meta["architecture"], self.statistics[min(turn, images - 1)]
        per_image = dict.fromkeys(Engine, 0)
        for instruction in body:
            per_image[QUEUE[instruction.op]] += 1
        per_image[Engine.DRAIN] = per_image[Engine.EXEC]
        base = {engine: n * turn for engine, n in per_image.items()}
        number = dict(base)
        live, jobs, heads = arch["tokens"], [], 0
        layer, layers = -1, []
        for instruction in body if turn < images else body[: header.fields["finish"]]:
            queue = QUEUE[instruction.op]
            name = ""
            if queue is Engine.EXEC:
                layer, name = next(names)
            layers.append(layer)
            deps = [
                (engine, base[engine] + dep - 1, engine in instruction.chain)
                for engine, dep in instruction.deps.items()
                if base[engine] + dep > 0
            ]
            previous = Flag.PREVIOUS in instruction.flags
            piece = Slice(queue, name, layer, turn - previous, number[queue])
            job = _Job(instruction, piece, deps, live, void=not 0 <= turn - previous < images, turn=turn)
            number[queue] += 1
            jobs.append(job)
            if job.void:
                continue
            fields = instruction.fields
            if Flag.ONE_ROW in instruction.flags:
                job.live = 1
            if instruction.op is Op.SELECT:
                job.slice.layer, job.slice.name = instruction.tag, "select"
                live = statistics[instruction.tag].after
            elif instruction.op is Op.RECV:
                job.slice.layer, job.slice.name = -1, "patches"
            elif instruction.op is Op.ATTN:
                heads = 0 if name.endswith(".0") else heads
                rows = statistics[layer].probabilities[heads : heads + fields["groups"]]
                heads += fields["groups"]
                rows = np.maximum(rows, 1).astype(float)
                job.rows, job.work = rows.max(axis=0), rows.sum(axis=0)
            elif Flag.SPARSE in instruction.flags:
                chunk = int(name.split(".")[1])
                job.rows = np.maximum(statistics[layer].hidden[:, chunk], 1).astype(float)
        for index, job in enumerate(jobs):
            if job.slice.engine is Engine.NORM and not job.void:
                dump = job.instruction.fields["kind"] == NormKind.DUMP
                # a dump belongs to what was computed before it
                job.slice.layer = layers[index] if dump else self._user(job, jobs[index + 1 :]).layer
                job.slice.name = "dump" if dump else "norm"
        for index, job in enumerate(jobs):
            if job.slice.engine is Engine.LOAD and not job.void:
                self._describe_load(job, jobs[index + 1 :], statistics)
        return jobs

    def _user(self, job: _Job, later: list[_Job]) -> Slice:
        """The array operation that follows in the same image."""
        slices = (j.slice for j in later)
        return next(s for s in slices if s.engine is Engine.EXEC and s.image == job.slice.image)

    def _describe_load(self, job: _Job, later: list[_Job], statistics: Statistics) -> None:
        """Words, name and layer of a load, from the operation that uses it."""
        config, fields = self.config, job.instruction.fields
        kind, dst = LoadKind(fields["kind"]), fields["dst"]
        gather = Flag.GATHER in job.instruction.flags
        line = config.lanes // 8
        if kind is LoadKind.WEIGHT:
            job.words = fields["rows"] * fields["groups"] * line
        elif kind is LoadKind.PARAM:
            job.words = fields["groups"] * config.lanes
        elif kind is LoadKind.NORM:
            job.words = fields["rows"]
        else:
            job.words = config.residual_words(fields["rows"])
        second = None  # a load of the rest of the rows
        for user in later:
            if self._uses(user.instruction, kind, dst, gather):
                break
            if Flag.REST in user.instruction.flags and user.instruction.fields["dst"] == dst:
                second = user
        job.slice.layer, job.slice.name = user.slice.layer, f"{user.slice.name} {kind.name.lower()}"
        if gather:
            _, chunk, *rest = user.slice.name.split(".")
            layer = statistics[user.slice.layer]
            tile = int(rest[1]) if len(rest) > 1 else 0
            begin = int(chunk) * self.program.meta["ffn_chunk"] + dst - user.instruction.fields["wbase"]
            end = min(begin + fields["rows"], (int(chunk) + 1) * self.program.meta["ffn_chunk"])
            first = layer.first[tile, begin:end] if tile < len(layer.first) else np.empty(0)
            low, high = 0, layer.after
            if Flag.REST in job.instruction.flags:
                low = fields["band0"] * config.rows
            elif second is not None:  # this one's mask covers the bands before
                high = min(high, second.instruction.fields["band0"] * config.rows)
            job.scan = -(-fields["rows"] // config.lanes)
            job.fetched = int(((first >= low) & (first < high)).sum())
            job.words = job.fetched * fields["groups"] * line

    def _uses(self, user: Instruction, kind: LoadKind, dst: int, gather: bool) -> bool:
        fields = user.fields
        if kind is LoadKind.NORM:
            return user.op is Op.NORM and fields["slot"] == dst
        if user.op is not Op.MATMUL:
            return False
        if kind is LoadKind.PARAM:
            return fields["pslot"] == dst
        if kind is LoadKind.RESIDUAL:
            return fields["dst"] == Dst.RESIDUAL
        lines = fields["k"] * (self.config.lanes if Flag.SPARSE in user.flags else 1)
        return gather <= (Flag.SPARSE in user.flags) and fields["wbase"] <= dst < fields["wbase"] + lines

    # -- processes ------------------------------------------------------------------------------

    def _start(self, process: Iterator, time: float) -> None:
        heapq.heappush(self.heap, (time, next(self.order), process))

    def _wake(self, engine: Engine) -> None:
        """The engine's progress is known a step further."""
        progress = self.progress[engine]
        if progress.waiters:
            for process in progress.waiters:
                self._start(process, self.now)
            progress.waiters = []

    def _ready(self, deps: list, band: int) -> Iterator:
        """When a band's dependencies are met, and the engine that was last: returned, not yielded."""
        latest, who = 0.0, None
        for engine, operation, chain in deps:
            progress = self.progress[engine]
            while (time := progress.when(operation, band if chain else -1)) is None:
                progress.waiters.append(self.running)
                yield engine
            if time > latest:
                latest, who = time, engine
        return latest, who

    def _take(self, engine: Engine) -> _Job:
        """The instruction at the head of a queue has been taken."""
        job = self.queues[engine].popleft()
        if self.blocked is engine:
            self.blocked = None
            self._start(self.dispatcher, self.now)
        return job

    def _dispatch(self, jobs: list[_Job]) -> Iterator:
        """Instructions arrive a few ahead of their use, and enter their queues in order."""
        consumed: deque[float] = deque([0.0] * PREFETCH, PREFETCH)
        last = self.latency + READ + 8 / self.rate  # the header comes first
        turn = 0
        for job in jobs:
            if job.turn != turn:
                turn = job.turn
                last = max(last, self.now) + self.latency + READ + 16 / self.rate
            # words of loads that are in flight come first
            behind = BURSTS * BURST_WORDS / self.rate if self.loading else 0.0
            arrival = consumed[0] + self.latency + READ + 8 / self.rate + behind
            last = max(arrival, last + 8)
            yield last
            if self.loading:
                self.other_words += 8
            queue = self.queues[job.slice.engine]
            while len(queue) >= QUEUE_DEPTH:
                self.blocked = job.slice.engine
                yield job.slice.engine
            last = max(last, self.now)
            consumed.append(last)
            job.time = last
            queue.append(job)
            if (engine := self.idle.pop(job.slice.engine, None)) is not None:
                self._start(engine, last + 2)

    # -- loads ----------------------------------------------------------------------------------

    def _next(self, engine: Engine) -> Iterator:
        """Wait for the next instruction of a queue."""
        if not self.queues[engine]:
            self.idle[engine] = self.running
            yield engine
        return self.queues[engine][0]

    def _load(self) -> Iterator:
        progress = self.progress[Engine.LOAD]
        held = 0.0  # words that wait in the reader
        flow = 0.0  # when words arrive again after it was full
        free = asked = 0.0  # when the data side, and the request side, are free
        while True:
            job = yield from self._next(Engine.LOAD)
            asked = max(asked, job.time + 4)
            ready, _ = yield from self._ready(job.deps, -1)
            if job.scan:
                # its requests wait for the mask, and the data for them; nothing is held meanwhile
                begin = max(asked, ready)
                asked = begin + job.fetched + 5 * job.scan
                begin += 8 + self.latency + READ if job.fetched else 0
                begin = max(begin, free)
                held = 0.0
            else:
                first = asked + READ + (0 if job.void else self.latency)
                begin = max(free, ready, first)
                held += self.rate * max(0.0, begin - max(free, first))
                if held > LOAD_FIFO:
                    held, flow = LOAD_FIFO, begin + self.latency + READ
                # the next request goes out when the reader has room for the last words of this one
                asked = max(asked + 4, free - LOAD_FIFO + job.words)
            if begin > self.now:
                yield begin
            self._take(Engine.LOAD)
            piece, kind = job.slice, LoadKind(job.instruction.fields["kind"])
            piece.start, piece.busy = begin, 0.0
            self._account(job).load_wait += max(0.0, begin - max(free, job.time))
            left = job.words
            self._account(job).words += left
            self.loading = left > 0
            time = begin
            while left > 0:
                rate = self.rate / 2 if self.receiving and self.shared else self.rate
                until, share = self.stores.get(kind, (0.0, 1.0))
                writes = share if until - time >= 1 else 1.0
                words = min(left, max(8.0, 4 * LOAD_FIFO * writes))
                if kind is LoadKind.RESIDUAL:  # waits for whole drains
                    words = min(words, LOAD_FIFO / 4)
                    if writes < 1:
                        words = min(words, (until - time) * writes)
                held -= self.other_words if self.shared else 0
                self.other_words = 0.0
                if time < flow:
                    rate = 0.0
                    words = min(words, held, (flow - time) * writes)
                    if words < 1:
                        time = flow
                        continue
                elif held < 0:
                    time, held = time - held / rate, 0.0
                if writes > rate:
                    fast = min(words, writes * held / (writes - rate))
                    spent = fast / writes + ((words - fast) / rate if words > fast else 0.0)
                else:
                    spent = words / writes
                held = min(LOAD_FIFO, max(0.0, held + rate * spent - words))
                time += spent
                piece.busy += spent
                left -= words
                yield time
            self.loading = False
            free = max(time, begin + 2)
            if job.words > LOAD_FIFO:
                asked = max(asked, free - LOAD_FIFO)
            piece.end = free + 1
            self._finish(job, piece.end)
            progress.complete(piece.end)
            self._wake(Engine.LOAD)

    # -- array ----------------------------------------------------------------------------------

    def _account(self, job: _Job) -> LayerTimes:
        """Where the job's cycles count: the last image's are kept."""
        if job.slice.image == len(self.statistics) - 1 and not job.void:
            return self.layers[job.slice.layer + 1]
        return LayerTimes()

    def _finish(self, job: _Job, time: float) -> None:
        job.slice.end = time
        if not job.void:
            self.timeline.append(job.slice)
        self._account(job).busy[job.slice.engine] += job.slice.busy

    def _array(self) -> Iterator:
        self.issue_free = 0.0  # the last tile's last scalar has fired
        self.shadow_free = 0.0  # the next tile's last scalar may fire
        self.drain_free = 0.0
        while True:
            job = yield from self._next(Engine.EXEC)
            drained = Slice(Engine.DRAIN, job.slice.name, job.slice.layer, job.slice.image, job.slice.number)
            account = self._account(job)
            job.slice.start = -1.0
            if job.instruction.op is Op.ATTN:
                last = yield from self._attention(job, drained, account)
            else:
                last = yield from self._matmul(job, drained, account)
            self._take(Engine.EXEC)
            self._finish(job, self.issue_free)
            self.progress[Engine.EXEC].complete(self.issue_free)
            self._wake(Engine.EXEC)
            if not job.void:
                self.timeline.append(drained)
            account.busy[Engine.DRAIN] += drained.busy
            self.progress[Engine.DRAIN].complete(last)
            self._wake(Engine.DRAIN)
            flags = frozenset() if job.void else job.instruction.flags
            if Flag.MARK in flags:
                self.marks[job.slice.image].append(last)
            if Flag.LAST in flags:
                self.ends.append(self.drain_begin + job.instruction.fields["count"] + 9)

    @property
    def _done_latency(self) -> int:
        return 16 + 4 * self.config.groups

    def _tile(
        self, job: _Job, drained: Slice, account: LayerTimes, fires: float, lanes: int, ready: float, why
    ) -> float:
        """One tile through array and drain; returns when its results are complete."""
        start = max(self.issue_free, ready)
        gap = start - self.issue_free
        if gap > 0:
            if why is Engine.LOAD:
                account.weights += gap
            elif why is None:
                account.instructions += gap
            else:
                account.data += gap
        if job.slice.start < 0:
            job.slice.start = start
        end = start + fires
        if end < self.shadow_free:
            account.draining += self.shadow_free - end
            end = self.shadow_free
        job.slice.busy += fires
        self.issue_free = end
        self.drain_begin = begin = max(end + CAPTURE, self.drain_free + 1)
        self.drain_free = begin + lanes
        self.shadow_free = self.drain_free - NEAR_END
        if drained.busy == 0:
            drained.start = begin
        drained.busy += lanes
        drained.end = self.drain_free + self._done_latency
        return drained.end

    def _matmul(self, job: _Job, drained: Slice, account: LayerTimes) -> Iterator:
        instruction, fields, config = job.instruction, job.instruction.fields, self.config
        dst = Dst(fields["dst"])
        gather = Flag.GATHER in instruction.flags
        bands = config.bands(job.live)
        first, end = fields["band0"], min(bands, fields["band0"] + fields["bands"])
        progress = self.progress[Engine.DRAIN]
        ready, why = yield from self._ready(job.deps, 0)
        if job.time + 2 > ready:
            ready, why = job.time + 2, None
        ready += REACT + first
        chained = [dep for dep in job.deps if dep[2]]
        if job.void or end <= first:
            self.issue_free = max(self.issue_free, ready) + 1
            job.slice.start = self.issue_free
            drained.start = drained.end = max(self.issue_free, self.drain_free) + self._done_latency
            return drained.end
        by_row = dst is Dst.VALUE or gather
        steal = 1.0
        last = 0.0
        for band in range(first, end):
            if band > 0 and chained:
                time, who = yield from self._ready(chained, band)
                if band > first or time + REACT_BAND > ready:
                    ready, why = time + REACT_BAND, who
            start = max(self.issue_free, ready)
            if start > self.now:
                yield start
            rows = min(config.rows, job.live - band * config.rows)
            if job.rows is None:
                fires = float(fields["k"])
                scalars = fires * rows
            else:
                # a line that is loaded takes the second row's port for a cycle
                steal = 1.0 + self.rate * 8 / config.lanes if self.loading else 1.0
                pair = job.rows[band * config.rows : band * config.rows + rows]
                fires = max(pair[0], 5 * fields["k"], pair[-1] * steal if rows > 1 else 0.0)
                scalars = pair.sum()
            lanes = config.lanes * (fields["groups"] if dst is Dst.STREAM else rows if by_row else 1)
            last = self._tile(job, drained, account, fires, lanes, ready, why)
            account.macs += scalars * fields["groups"] * config.lanes
            if dst is Dst.RESIDUAL:
                begin = self.drain_begin + RESIDUAL_STAGE
                self.residual.append((begin, begin + lanes))
                period = max(fires, lanes + 1)
                self.stores[LoadKind.RESIDUAL] = self.drain_free, (period - lanes) / period
            elif dst in (Dst.KEY, Dst.VALUE):
                # lines gather while the drain writes; between two bands' writes one is written per cycle
                period = max(fires, lanes + 1)
                free = (period - lanes) * config.lanes / 8
                self.stores[LoadKind.WEIGHT] = self.drain_free, min(1.0, free / period)
            if dst is Dst.STREAM:
                self.other_words += fields["count"] / 4
                self.shadow_free = self.drain_free
            if band + 1 < end:
                progress.bands += [last] * (band + 1 - len(progress.bands))
                self._wake(Engine.DRAIN)
        return last

    def _attention(self, job: _Job, drained: Slice, account: LayerTimes) -> Iterator:
        fields, config = job.instruction.fields, self.config
        lanes, rows = config.lanes, config.rows
        bands, tiles = config.bands(job.live), -(-job.live // config.lanes)
        progress = self.progress[Engine.DRAIN]
        score = Flag.SCORE in job.instruction.flags
        ready, why = yield from self._ready(job.deps, 0)
        if job.time + 2 > ready:
            ready, why = job.time + 2, None
        ready += REACT + config.groups
        chained = [dep for dep in job.deps if dep[2]]
        order = [("s", 0)]
        for band in range(1, bands):
            order += [("s", band), ("pv", band - 1)]
        order.append(("pv", bands - 1))
        weighed: list[float] = []  # when a band's P is complete
        softmax_free = last = 0.0
        for part, band in order:
            if part == "s":
                if band > 0 and chained:
                    ready, why = yield from self._ready(chained, band)
                    ready += REACT_BAND
                start = max(self.issue_free, ready)
                if start > self.now:
                    yield start
                for _ in range(tiles):
                    self._tile(job, drained, account, fields["head_dim"], lanes, ready, why)
                alive = min(rows, job.live - band * rows)
                account.macs += tiles * fields["head_dim"] * alive * fields["groups"] * lanes
                begin = max(softmax_free, self.drain_free + RESIDUAL_STAGE + 2)
                softmax_free = begin + lanes * tiles + SOFTMAX + SOFTMAX_GROUP * config.groups
                if score and band == 0:
                    softmax_free += fields["groups"] * (job.live + SCORE)
                account.softmax += softmax_free - begin
                weighed.append(softmax_free)
            else:
                start = max(self.issue_free, weighed[band] + REACT_SPARSE)
                if start > self.now:
                    yield start
                pair = slice(band * rows, (band + 1) * rows)
                fires = max(job.rows[pair].max(), 5.0 * tiles)
                account.macs += job.work[pair].sum() * lanes
                last = self._tile(
                    job, drained, account, fires, lanes, weighed[band] + REACT_SPARSE, Engine.EXEC
                )
                if band + 1 < bands:
                    progress.bands.append(last)
                    self._wake(Engine.DRAIN)
        return last

    # -- vector units ---------------------------------------------------------------------------

    def _reads(self, time: float, reads: int) -> float:
        """When so many reads of the residual memory are done; the drain's go first."""
        busy = self.residual
        while busy and busy[0][1] <= time:
            busy.popleft()
        for begin, end in busy:
            if time + reads <= begin:
                break
            reads -= max(0.0, begin - time)
            time = max(time, end)
        return time + reads

    def _norm(self) -> Iterator:
        progress = self.progress[Engine.NORM]
        rows_of_band = self.config.rows
        while True:
            job = yield from self._next(Engine.NORM)
            fields = job.instruction.fields
            bands = self.config.bands(job.live)
            ready, _ = yield from self._ready(job.deps, 0)
            start = max(ready, job.time + 2, self.now)
            if start > self.now:
                yield start
            job.slice.start = start
            if job.void:
                time = start + 1
            elif fields["kind"] == NormKind.DUMP:
                time = start + 12
                for band in range(bands):
                    ready, _ = yield from self._ready(job.deps, band)
                    rows = min(rows_of_band, job.live - band * rows_of_band)
                    time = max(time, ready) + rows * (6 * fields["dim"] / 4 + 1)
                    yield time
                    progress.bands.append(time)
                    self._wake(Engine.NORM)
            else:
                time = yield from self._layernorm(job, bands, start + 1, progress)
            self._take(Engine.NORM)
            self._finish(job, time)
            progress.complete(time)
            self._wake(Engine.NORM)

    def _layernorm(self, job: _Job, bands: int, free: float, progress: _Progress) -> Iterator:
        """Pass 1 of the next band goes before pass 2 of this one as soon as it can."""
        config, fields = self.config, job.instruction.fields
        reads = config.lanes * -(-fields["dim"] // config.tile)
        tail = NORM_ROW * (config.rows - 1)
        summed = normed = 0
        stats_free = results_free = time = 0.0  # sums may be made; results may be overwritten
        waiting: float | None = None  # sums are complete, and wait for the results before to be used
        valid: float | None = None  # results are complete
        while normed < bands:
            if waiting is not None and valid is None:
                loaded = max(waiting, results_free)
                stats_free, valid, waiting = loaded + tail, loaded + NORM_STATS + tail, None
            sum_at = None
            if summed < bands and waiting is None:
                known = [
                    self.progress[engine].when(operation, summed if chain else -1)
                    for engine, operation, chain in job.deps
                ]
                if None not in known:
                    sum_at = max([free, stats_free, *known])
            if sum_at is None and valid is None:
                yield from self._ready(job.deps, summed)
                continue
            norm_at = max(free, valid) if valid is not None else None
            choose_sum = sum_at is not None and (norm_at is None or sum_at <= norm_at)
            at = sum_at if choose_sum else norm_at
            if at > self.now:
                yield at
                continue  # more may be known by now
            free = at + 1
            for _ in range(0, reads, 16):  # in pieces: the drain's reads are known for a band or so
                free = self._reads(free, 16)
                yield free
            job.slice.busy += free - at
            if choose_sum:
                summed += 1
                waiting = free + NORM_SUM
            else:
                normed += 1
                results_free, valid = at + 10, None
                time = free + NORM_OUT
                if normed < bands:
                    progress.bands.append(time)
                    self._wake(Engine.NORM)
        return time

    def _select(self) -> Iterator:
        while True:
            job = yield from self._next(Engine.SELECT)
            ready, _ = yield from self._ready(job.deps, 0)
            start = max(ready, job.time + 2)
            kept = self.statistics[job.slice.image][job.slice.layer].after
            scans = 1 if kept in (1, job.live) else SEARCH_SCANS
            job.slice.start = start
            job.slice.busy = scans * (job.live + 3) + 1.5 * kept + 30
            end = start + job.slice.busy
            yield end
            self._take(Engine.SELECT)
            self._finish(job, end)
            self.progress[Engine.SELECT].complete(end)
            self._wake(Engine.SELECT)

    def _receive(self) -> Iterator:
        progress = self.progress[Engine.RECV]
        rows_of_band = self.config.rows
        while True:
            job = yield from self._next(Engine.RECV)
            fields = job.instruction.fields
            bands = 0 if job.void else -(-fields["rows"] // rows_of_band)
            time = max(job.time + 3, self.latency)
            job.slice.start = -1.0
            for band in range(bands):
                ready, _ = yield from self._ready(job.deps, band)
                time = max(time, ready)
                if time > self.now:
                    yield time
                if job.slice.start < 0:
                    job.slice.start = time
                rows = range(band * rows_of_band, min((band + 1) * rows_of_band, fields["rows"]))
                zeros = sum(row < fields["prefix"] for row in rows)
                self.receiving = True
                rate = self.rate / 2 if self.loading and self.shared else self.rate
                spent = fields["row_words"] * (zeros + (len(rows) - zeros) / rate) + 2 * self.rate
                job.slice.busy += spent
                time += spent
                if band + 1 < bands:
                    progress.bands.append(time)
                    self._wake(Engine.RECV)
            yield time
            self.receiving = False
            self._take(Engine.RECV)
            self._finish(job, time)
            progress.complete(time)
            self._wake(Engine.RECV)
