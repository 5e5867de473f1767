# SPDX-License-Identifier: Apache-2.0
"""counters and watchdog."""

from __future__ import annotations

import random

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from harness import cycles, pulse, reset, run, start, uint
from rowvit.hardware import isa

N = len(isa.COUNTERS)


@cocotb.test()
async def counters_add(dut):
    """Each counter is the sum of the increments that it was to count since the reset."""
    await start(dut)
    for _ in range(2):
        await reset(dut)
        total = [0] * N
        for _ in range(300):
            inc = [random.choice((0, 1, random.getrandbits(16))) for _ in range(N)]
            enabled = random.choice((0, (1 << N) - 1, random.getrandbits(N)))
            dut.inc_i.value = sum(value << 16 * i for i, value in enumerate(inc))
            dut.en_i.value = enabled
            total = [t + v * (enabled >> i & 1) for i, (t, v) in enumerate(zip(total, inc, strict=True))]
            await cycles(dut)
        dut.inc_i.value = 0
        await ReadOnly()
        assert uint(dut.count_o) == sum((t & 0xFFFFFFFF) << 32 * i for i, t in enumerate(total))
        await cycles(dut)


@cocotb.test()
async def watchdog_bites_once(dut):
    """Exactly one pulse, limit cycles after the last sign of life; none while idle or switched off."""
    await start(dut)

    async def pulses(n: int) -> list[int]:
        found = []
        for i in range(n):
            await ReadOnly()
            if dut.error_o.value:
                found.append(i)
            await FallingEdge(dut.clk_i)
        return found

    limit = 20
    dut.limit_i.value = limit
    assert await pulses(50) == [], "idle"
    dut.busy_i.value = 1
    (first,) = await pulses(100)
    assert abs(first - limit) <= 2
    for alive in ("event_i", "progress_i"):
        for _ in range(10):
            assert await pulses(limit - 3) == []
            if alive == "event_i":
                await pulse(dut, alive)
            else:
                dut.progress_i.value = random.getrandbits(192)
        (first,) = await pulses(100)
        assert abs(first - limit) <= 3
    await reset(dut)
    assert len(await pulses(100)) == 1
    await reset(dut)
    dut.limit_i.value = 0
    assert await pulses(100) == [], "switched off"


def test_counters():
    run("rowvit_counters", testcase="counters_add")


def test_watchdog():
    run("rowvit_watchdog", {"WIDTH": 192}, testcase="watchdog_bites_once")
