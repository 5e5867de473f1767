# SPDX-License-Identifier: Apache-2.0
"""The dispatcher: instructions come from memory and enter the engines' queues in program order."""

from __future__ import annotations

from collections import deque

from rowvit.cycles.jobs import Job
from rowvit.cycles.machine import Machine, Process
from rowvit.hardware.isa import INSTRUCTION_BYTES
from rowvit.hardware.pipeline import (
    BURST_WORDS,
    BURSTS,
    FETCHES,
    INSTRUCTION,
    PROGRAM_FIFO,
    QUEUE_DEPTH,
    READ,
)


def dispatch(machine: Machine, jobs: list[Job]) -> Process[None]:
    """Instructions arrive a few ahead of their use, and enter their queues in order."""
    words = INSTRUCTION_BYTES // 8 // machine.parts
    # one is in the dispatcher's register
    ahead = min(FETCHES, PROGRAM_FIFO // words + 1)
    consumed: deque[float] = deque([0.0] * ahead, ahead)
    last = machine.latency + READ + words / machine.rate  # the header comes first
    turn = 0
    for job in jobs:
        engine = job.slice.engine
        if job.turn != turn:
            turn = job.turn
            last = max(last, machine.now) + machine.latency + READ + 2 * words / machine.rate
        # words of loads that are in flight come first
        behind = BURSTS * BURST_WORDS / machine.rate if machine.loading else 0.0
        arrival = consumed[0] + machine.latency + READ + words / machine.rate + behind
        last = max(arrival, last + words + INSTRUCTION)
        yield last
        if machine.loading:
            machine.other_words += words
        while len(machine.queues[engine]) > QUEUE_DEPTH:  # with the one at its head
            machine.blocked = engine
            yield None
        last = max(last, machine.now)
        consumed.append(last)
        job.time = last
        machine.queues[engine].append(job)
        if (process := machine.idle.pop(engine, None)) is not None:
            machine.start(process, last + 3)
