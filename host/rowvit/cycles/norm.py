# SPDX-License-Identifier: Apache-2.0
"""The norm engine: LayerNorm, into token memory or the output stream, and dumps of the residual stream."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from rowvit.cycles.jobs import Job
from rowvit.cycles.machine import Machine, Process
from rowvit.hardware.isa import Engine, Flag, NormKind
from rowvit.hardware.pipeline import NORM_OUT, NORM_ROW, NORM_ROWS, NORM_STATS, NORM_SUM


@dataclass
class _Statistics:
    """The unit that makes what pass 2 needs of a part's sums."""

    free: float = 0.0  #: sums may be made
    results_free: float = 0.0  #: results may be overwritten
    waiting: float = inf  #: when sums are complete that wait for the results before to be used
    valid: float = inf  #: when results are complete

    def go_on(self, tail: float) -> None:
        if self.waiting < inf and self.valid == inf:
            loaded = max(self.waiting, self.results_free)
            self.free, self.valid, self.waiting = loaded + tail, loaded + NORM_STATS + tail, inf


class Norm:
    def __init__(self, machine: Machine) -> None:
        self.machine, self.config = machine, machine.config

    def run(self) -> Process[None]:
        machine = self.machine
        while True:
            job = yield from machine.next(Engine.NORM)
            bands = self.config.bands(job.live)
            ready, _ = yield from machine.ready(job.deps, 0)
            start = max(ready, job.time + 2, machine.now) + 1
            yield from machine.until(start)
            job.slice.start = start
            if job.void:
                time = start + 1
            elif job.instruction.fields["kind"] == NormKind.DUMP:
                time = yield from self._dump(job, bands, start + 12)
            else:
                time = yield from self._layernorm(job, bands, start + 1)
            machine.take(Engine.NORM)
            machine.finish(job, time)
            if not job.void and Flag.LAST in job.instruction.flags:
                machine.ends.append(time)

    def _dump(self, job: Job, bands: int, time: float) -> Process[float]:
        machine, config = self.machine, self.config
        for band in range(bands):
            ready, _ = yield from machine.ready(job.deps, band)
            rows = min(config.rows, job.live - band * config.rows)
            time = max(time, ready) + rows * (7 * job.instruction.fields["dim"] / 4 + 1)
            yield time
            machine.band_done(Engine.NORM, time)
        return time

    def _layernorm(self, job: Job, bands: int, free: float) -> Process[float]:
        """Pass 1 of the next part of a band goes before pass 2 of this one as soon as it can."""
        machine, rows = self.machine, min(self.config.rows, NORM_ROWS)
        tail, words = NORM_ROW * (rows - 1), 1
        if job.instruction.fields["kind"] == NormKind.TOKENS:
            words = -(-rows * self.config.groups // 4)  # of a channel's values
        parts = [
            (band, part)
            for band in range(bands)
            for part in range(self.config.rows // rows)
            if band * self.config.rows + part * rows < job.live
        ]
        statistics = [_Statistics() for _ in range(self.config.rows // rows)]
        summed = normed = 0
        time = 0.0
        while normed < len(parts):
            for unit in statistics:
                unit.go_on(tail)
            sum_at = inf
            if summed < len(parts) and (unit := statistics[parts[summed][1]]).waiting == inf:
                sum_at = max(free, unit.free, self._known(job, parts[summed][0]))
            norm_at = max(free, statistics[parts[normed][1]].valid)
            at = min(sum_at, norm_at)
            if at == inf:
                yield from machine.ready(job.deps, parts[summed][0])
                continue
            if at > machine.now:
                yield at
                continue  # more may be known by now
            normalises = sum_at > norm_at
            free = yield from self._pass(job, at, words if normalises else 1)
            job.slice.busy += free - at
            if not normalises:
                statistics[parts[summed][1]].waiting = free + NORM_SUM
                summed += 1
            else:
                band, part = parts[normed]
                statistics[part].results_free, statistics[part].valid = at + 12, inf
                normed += 1
                time = free + NORM_OUT
                if normed < len(parts) and parts[normed][0] > band:
                    machine.band_done(Engine.NORM, time)
        return time

    def _known(self, job: Job, band: int) -> float:
        """When a band's dependencies are met, as far as that is known; else infinity."""
        latest = 0.0
        for engine, operation, chain in job.deps:
            time = self.machine.progress[engine].when(operation, band if chain else -1)
            latest = max(latest, inf if time is None else time)
        return latest

    def _pass(self, job: Job, time: float, words: int) -> Process[float]:
        """A band's channels are read once, and give ``words`` each; returns when that is done."""
        reads = self.config.lanes * -(-job.instruction.fields["dim"] // self.config.tile)
        time += 1
        for _ in range(0, reads, 16):  # in pieces: the drain's reads are known for a band or so
            time = max(self._reads(time, 16), time + 16 * words)
            yield time
        return time

    def _reads(self, time: float, reads: float) -> float:
        """When ``reads`` reads of the residual memory are done; the drain's go first."""
        busy = self.machine.residual
        while busy and busy[0][1] <= time:
            busy.popleft()
        for begin, end in busy:
            if time + reads <= begin:
                break
            reads -= max(0.0, begin - time)
            time = max(time, end)
        return time + reads
