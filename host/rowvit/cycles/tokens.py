# SPDX-License-Identifier: Apache-2.0
"""Engines that bring tokens in and throw them out: input stream and token selection."""

from __future__ import annotations

from rowvit.cycles.machine import Machine, Process
from rowvit.hardware.isa import Engine
from rowvit.hardware.pipeline import SEARCH_SCANS


def select(machine: Machine) -> Process[None]:
    while True:
        job = yield from machine.next(Engine.SELECT)
        ready, _ = yield from machine.ready(job.deps, 0)
        start = max(ready, job.time + 2)
        kept = machine.statistics[job.slice.image][job.slice.layer].after
        scans = 1 if kept in (1, job.live) else SEARCH_SCANS
        job.slice.start = start
        job.slice.busy = scans * (job.live + 3) + 1.5 * kept + 30
        end = start + job.slice.busy
        yield end
        machine.take(Engine.SELECT)
        machine.finish(job, end)


def receive(machine: Machine) -> Process[None]:
    rows_of_band = machine.config.rows
    while True:
        job = yield from machine.next(Engine.RECV)
        piece, fields = job.slice, job.instruction.fields
        bands = 0 if job.void else machine.config.bands(fields["rows"])
        time = max(job.time + 3, machine.latency)
        piece.start = -1.0
        for band in range(bands):
            ready, _ = yield from machine.ready(job.deps, band)
            time = max(time, ready)
            yield from machine.until(time)
            if piece.start < 0:
                piece.start = time
            rows = range(band * rows_of_band, min((band + 1) * rows_of_band, fields["rows"]))
            zeros = sum(row < fields["prefix"] for row in rows)
            machine.receiving = True
            rate = machine.rate / 2 if machine.loading and machine.shared else machine.rate
            spent = fields["row_words"] * (zeros + (len(rows) - zeros) / rate) + 2 * machine.rate
            piece.busy += spent
            time += spent
            if band + 1 < bands:
                machine.band_done(Engine.RECV, time)
        yield time
        machine.receiving = False
        machine.take(Engine.RECV)
        machine.finish(job, time)
