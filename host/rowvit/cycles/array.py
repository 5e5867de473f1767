# SPDX-License-Identifier: Apache-2.0
"""The array and its drain: matrix products and attention."""

from __future__ import annotations

from rowvit.cycles.data import LayerTimes, Slice
from rowvit.cycles.jobs import Job
from rowvit.cycles.machine import Machine, Process
from rowvit.hardware import pipeline
from rowvit.hardware.isa import Dst, Engine, Flag, LoadKind, Op


class Array:
    """Tiles go through the array and then the drain; shadow accumulators lie between."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.config = machine, machine.config
        self._issue_free = 0.0  # the last tile's last scalar has fired
        self._shadow_free = 0.0  # the next tile's last scalar may fire
        self._drain_begin = self._drain_free = 0.0
        # the operation under way
        self._job: Job
        self._drained: Slice
        self._account: LayerTimes

    def run(self) -> Process[None]:
        machine = self.machine
        while True:
            job = yield from machine.next(Engine.EXEC)
            piece = job.slice
            drained = Slice(Engine.DRAIN, piece.operation, piece.image, piece.number)
            self._job, self._drained, self._account = job, drained, machine.account(job)
            piece.start = -1.0
            attention = job.instruction.op is Op.ATTN
            last = yield from self._attention() if attention else self._matmul()
            machine.take(Engine.EXEC)
            machine.finish(job, self._issue_free)
            if not job.void:
                machine.timeline.append(drained)
            self._account.busy[Engine.DRAIN] += drained.busy
            machine.done(Engine.DRAIN, last)
            if not job.void and Flag.MARK in job.instruction.flags:
                machine.marks[piece.image].append(last)
            if not job.void and Flag.LAST in job.instruction.flags:
                machine.ends.append(self._drain_begin + job.instruction.fields["count"] + 9)

    def _first(self, job: Job, react: int) -> Process[tuple[float, Engine | None]]:
        """When the first scalar may fire, and who was waited for last; None: the dispatcher."""
        ready, who = yield from self.machine.ready(job.deps, 0)
        if job.time + 3 > ready:
            ready, who = job.time + 3, None
        return ready + (pipeline.REACT + react), who

    def _tile(self, fires: float, lanes: int, ready: float, who: Engine | None) -> float:
        """One tile through array and drain; returns when its results are complete."""
        piece, drained, account = self._job.slice, self._drained, self._account
        start = max(self._issue_free, ready)
        gap = start - self._issue_free
        if gap > 0:
            if who is Engine.LOAD:
                account.weights += gap
            elif who is None:
                account.instructions += gap
            else:
                account.data += gap
        if piece.start < 0:
            piece.start = start
        end = start + fires
        if end < self._shadow_free:
            account.draining += self._shadow_free - end
            end = self._shadow_free
        piece.busy += fires
        self._issue_free = end
        self._drain_begin = begin = max(end + pipeline.BEGIN, self._drain_free + 1)
        self._drain_free = begin + lanes
        self._shadow_free = self._drain_free - pipeline.NEAR_END
        if drained.busy == 0:
            drained.start = begin
        drained.busy += lanes
        drained.end = self._drain_free + pipeline.drain_done(self.config.groups)
        if self._job.instruction.flags & {Flag.ROPE, Flag.GATED}:
            drained.end += pipeline.ROTATE
            self._drain_free += pipeline.ROTATE - 1
        return drained.end

    def _matmul(self) -> Process[float]:
        machine, config, job, fields = self.machine, self.config, self._job, self._job.instruction.fields
        first = fields["band0"]
        end = min(config.bands(job.live), first + fields["bands"])
        ready, who = yield from self._first(job, first)
        if job.void or end <= first:
            self._issue_free = max(self._issue_free, ready) + 1
            job.slice.start = self._issue_free
            last = max(self._issue_free, self._drain_free) + pipeline.drain_done(config.groups)
            self._drained.start = self._drained.end = last
            return last
        last = 0.0
        for band in range(first, end):
            if band > 0 and job.chained:
                time, waited = yield from machine.ready(job.chained, band)
                if band > first or time + pipeline.REACT_BAND > ready:
                    ready, who = time + pipeline.REACT_BAND, waited
            yield from machine.until(max(self._issue_free, ready))
            fires, scalars = self._scalars(job, band)
            lanes = config.lanes * self._words_per_lane(job, band)
            last = self._tile(fires, lanes, ready, who)
            self._account.macs += scalars * fields["groups"] * config.lanes
            self._claim(job, fires, lanes)
            if band + 1 < end:
                machine.band_done(Engine.DRAIN, last, band + 1 - len(machine.progress[Engine.DRAIN].bands))
        return last

    def _rows(self, job: Job, band: int) -> int:
        return min(self.config.rows, job.live - band * self.config.rows)

    def _scalars(self, job: Job, band: int) -> tuple[float, float]:
        """Cycles in which a band's scalars fire, and scalars of all its rows."""
        rows, k = self._rows(job, band), job.instruction.fields["k"]
        if Flag.SPARSE not in job.instruction.flags:
            return float(k), float(k) * rows
        # a line that is loaded takes the odd rows' ports for a cycle
        steal = (
            1.0 + self.machine.rate * self.machine.parts * 8 / self.config.lanes
            if self.machine.loading
            else 1.0
        )
        ports = job.ports[band]
        return max(ports[0::2].max(), 5 * k, ports[1::2].max() * steal), job.work[band]

    def _words_per_lane(self, job: Job, band: int) -> int:
        """Cycles that the drain takes for a lane: gathered rows go one by one."""
        if job.instruction.fields["dst"] == Dst.STREAM:
            return job.instruction.fields["groups"]
        return self._rows(job, band) if Flag.GATHER in job.instruction.flags else 1

    def _claim(self, job: Job, fires: float, lanes: int) -> None:
        """What the drain of the newest tile takes from others."""
        machine, fields = self.machine, job.instruction.fields
        dst = fields["dst"]
        period = max(fires, lanes + 1)
        if dst == Dst.RESIDUAL:
            begin = self._drain_begin + pipeline.RESIDUAL_STAGE
            machine.residual.append((begin, begin + lanes))
            machine.stores[LoadKind.RESIDUAL] = self._drain_free, (period - lanes) / period
        elif dst in (Dst.KEY, Dst.VALUE):
            # lines gather while the drain writes; between two bands' writes one is written per cycle
            taken = lanes if dst == Dst.KEY else lanes * self.config.rows / 8
            free = (period - taken) * self.config.lanes / 8 / machine.parts
            machine.stores[LoadKind.WEIGHT] = self._drain_free, min(1.0, free / period)
        elif dst == Dst.STREAM:
            machine.other_words += fields["count"] / 4
            self._shadow_free = self._drain_free

    def _attention(self) -> Process[float]:
        """The next band's scores go before this one's probabilities, which softmax makes meanwhile."""
        machine, job = self.machine, self._job
        bands = self.config.bands(job.live)
        ready, who = yield from self._first(job, self.config.groups)
        weighed: list[float] = []  # when a band's P is complete
        softmax_free = last = 0.0
        for band in range(bands + 1):
            if band < bands:
                if band > 0 and job.chained:
                    time, who = yield from machine.ready(job.chained, band)
                    ready = time + pipeline.REACT_BAND
                yield from machine.until(max(self._issue_free, ready))
                softmax_free = self._scores(band, ready, who, softmax_free)
                weighed.append(softmax_free)
            if band > 0:
                ready_p = weighed[band - 1] + pipeline.REACT_SPARSE
                yield from machine.until(max(self._issue_free, ready_p))
                last = self._weigh(band - 1, ready_p)
                if band < bands:
                    machine.band_done(Engine.DRAIN, last)
        return last

    def _scores(self, band: int, ready: float, who: Engine | None, free: float) -> float:
        """Q K^T of a band and its softmax, which is ``free`` from then on; returns when P is complete."""
        config, job, fields = self.config, self._job, self._job.instruction.fields
        tiles = -(-job.live // config.lanes)
        for _ in range(tiles):
            self._tile(fields["head_dim"], config.lanes, ready, who)
        scalars = tiles * fields["head_dim"] * self._rows(job, band)
        self._account.macs += scalars * fields["groups"] * config.lanes
        begin = max(free, self._drain_free + pipeline.SCORED)
        end = begin + config.lanes * tiles + pipeline.SOFTMAX + pipeline.SOFTMAX_GROUP * config.groups
        if band == 0 and Flag.SCORE in job.instruction.flags:
            end += fields["groups"] * (job.live + pipeline.SCORE)
        self._account.softmax += end - begin
        return end

    def _weigh(self, band: int, ready: float) -> float:
        """P V of a band."""
        config, job = self.config, self._job
        fires = max(job.ports[band].max(), 5.0 * -(-job.live // config.lanes))
        self._account.macs += job.work[band] * config.lanes
        return self._tile(fires, config.lanes, ready, Engine.EXEC)
