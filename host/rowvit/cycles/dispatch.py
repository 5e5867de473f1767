# SPDX-License-Identifier: Apache-2.0
"""The dispatcher: instructions come from memory and enter the engines' queues in program order."""

from __future__ import annotations

from collections import deque

from rowvit.cycles.jobs import Job
from rowvit.cycles.machine import Machine, Process
from rowvit.hardware.pipeline import BURST_WORDS, BURSTS, INSTRUCTION, PREFETCH, QUEUE_DEPTH, READ


def dispatch(machine: Machine, jobs: list[Job]) -> Process[None]:
    """Instructions arrive a few ahead of their use, and enter their queues in order."""
    consumed: deque[float] = deque([0.0] * PREFETCH, PREFETCH)
    last = machine.latency + READ + 8 / machine.rate  # the header comes first
    turn = 0
    for job in jobs:
        engine = job.slice.engine
        if job.turn != turn:
            turn = job.turn
            last = max(last, machine.now) + machine.latency + READ + 16 / machine.rate
        # words of loads that are in flight come first
        behind = BURSTS * BURST_WORDS / machine.rate if machine.loading else 0.0
        arrival = consumed[0] + machine.latency + READ + 8 / machine.rate + behind
        last = max(arrival, last + INSTRUCTION)
        yield last
        if machine.loading:
            machine.other_words += 8
        while len(machine.queues[engine]) > QUEUE_DEPTH:  # with the one at its head
            machine.blocked = engine
            yield None
        last = max(last, machine.now)
        consumed.append(last)
        job.time = last
        machine.queues[engine].append(job)
        if (process := machine.idle.pop(engine, None)) is not None:
            machine.start(process, last + 3)
