# SPDX-License-Identifier: Apache-2.0
"""The load engine and its reader."""

from __future__ import annotations

from rowvit.cycles.data import Slice
from rowvit.cycles.jobs import Job
from rowvit.cycles.machine import Machine, Process
from rowvit.hardware.isa import Engine, LoadKind
from rowvit.hardware.pipeline import GATHER_ROW, GATHER_WORD, LOAD_FIFO, READ


class Loader:
    """Requests run ahead of the data, as far as the reader has room for the words, which are the port's."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._held = 0.0  # words that wait in the reader
        self._flow = 0.0  # when words arrive again after it was full
        self._free = self._asked = 0.0  # when the data side, and the request side, are free

    def run(self) -> Process[None]:
        machine = self.machine
        while True:
            job = yield from machine.next(Engine.LOAD)
            self._asked = max(self._asked, job.time + 5)
            ready, _ = yield from machine.ready(job.deps, -1)
            begin = self._gather(job, ready) if job.scan else self._dense(job, ready)
            yield from machine.until(begin)
            machine.take(Engine.LOAD)
            account = machine.account(job)
            account.load_wait += max(0.0, begin - max(self._free, job.time))
            account.words += job.words
            job.slice.start = begin
            machine.loading = job.words > 0
            words = job.words / machine.parts
            time = yield from self._transfer(job.slice, begin, words)
            machine.loading = False
            self._free = max(time, begin + 2)
            if words > LOAD_FIFO:
                self._asked = max(self._asked, self._free - LOAD_FIFO)
            machine.finish(job, self._free + 1)

    def _gather(self, job: Job, ready: float) -> float:
        """When a masked load's data begin: its requests wait for the mask, and nothing is held meanwhile."""
        begin = max(self._asked, ready)
        self._asked = begin + GATHER_ROW * job.fetched + GATHER_WORD * job.scan
        begin += 8 + self.machine.latency + READ if job.fetched else 0
        self._held = 0.0
        return max(begin, self._free)

    def _dense(self, job: Job, ready: float) -> float:
        """When a load's data begin; words that arrive before are held by the reader."""
        machine = self.machine
        first = self._asked + READ + (0 if job.void else machine.latency)
        begin = max(self._free, ready, first)
        self._held += machine.rate * max(0.0, begin - max(self._free, first))
        if self._held > LOAD_FIFO:
            self._held, self._flow = LOAD_FIFO, begin + machine.latency + READ
        # the next request goes out when the reader has room for the last words of this one
        self._asked = max(self._asked + 6, self._free - LOAD_FIFO + job.words / machine.parts)
        return begin

    def _transfer(self, piece: Slice, time: float, left: float) -> Process[float]:
        """Words arrive and are written; returns when the last one is."""
        machine = self.machine
        while left > 0:
            rate = machine.rate / 2 if machine.receiving and machine.shared else machine.rate
            words, writes = self._writable(piece.load, time, left)
            self._held -= machine.other_words if machine.shared else 0
            machine.other_words = 0.0
            if time < self._flow:
                rate = 0.0
                words = min(words, self._held, (self._flow - time) * writes)
                if words < 1:
                    time = self._flow
                    continue
            elif self._held < 0:
                time, self._held = time - self._held / rate, 0.0
            spent = words / writes
            if writes > rate:
                fast = min(words, writes * self._held / (writes - rate))
                spent = fast / writes + ((words - fast) / rate if words > fast else 0.0)
            self._held = min(LOAD_FIFO, max(0.0, self._held + rate * spent - words))
            time += spent
            piece.busy += spent
            left -= words
            yield time
        return time

    def _writable(self, kind: LoadKind | None, time: float, left: float) -> tuple[float, float]:
        """Words that can be written in one piece, and words per cycle; the drain goes first."""
        until, share = self.machine.stores.get(kind, (0.0, 1.0)) if kind is not None else (0.0, 1.0)
        most = 1.0 if kind is LoadKind.WEIGHT else 1.0 / self.machine.parts
        writes = share * most if until - time >= 1 else most
        words = min(left, max(8.0, 4 * LOAD_FIFO * writes))
        if kind is LoadKind.RESIDUAL:  # waits for whole drains
            words = min(words, LOAD_FIFO / 4)
            if writes < most:
                words = min(words, (until - time) * writes)
        return words, writes
