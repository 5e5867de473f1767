# SPDX-License-Identifier: Apache-2.0
"""recip and isqrt against their Python twins, and their latency."""

from __future__ import annotations

import random

import cocotb
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

from harness import SIMULATORS, parameter, run, start, uint
from rowvit.reference.primitives import isqrt, recip


async def compute(dut, name: str, value: int) -> int:
    """Start with ``value``; returns the cycles until done."""
    getattr(dut, name).value = value
    dut.start_i.value = 1
    for cycle in range(100):
        await FallingEdge(dut.clk_i)
        dut.start_i.value = 0
        getattr(dut, name).value = random.getrandbits(len(getattr(dut, name)))
        await ReadOnly()
        if dut.done_o.value:
            return cycle + 1
    raise AssertionError("done_o never came")


@cocotb.test()
async def reciprocals(dut):
    """Around every power of two, and random; back to back."""
    await start(dut)
    width = parameter("QW", 27)
    values = {(1 << i) + d for i in range(width) for d in (-1, 0, 1)} | {(1 << width) - 1}
    values |= {random.getrandbits(random.randint(1, width)) for _ in range(200)}
    for q in sorted(v for v in values if 1 <= v < 1 << width):
        assert await compute(dut, "q_i", q) == 18
        assert (uint(dut.n_o), uint(dut.r_o)) == tuple(int(v) for v in recip(q)), q
        await FallingEdge(dut.clk_i)


@cocotb.test()
async def roots(dut):
    """Around squares, at both ends, and random."""
    await start(dut)
    bases = [0, 1, 2, 3, (1 << 25) - 1, (1 << 26) - 1] + [random.getrandbits(26) for _ in range(80)]
    values = {b * b + d for b in bases for d in (-1, 0, 1, 2 * b)} | {(1 << 52) - 1}
    values |= {random.getrandbits(random.randint(1, 52)) for _ in range(80)}
    for v in sorted(v for v in values if 0 <= v < 1 << 52):
        assert await compute(dut, "v_i", v) == 27
        assert uint(dut.root_o) == int(isqrt(v)), v
        await FallingEdge(dut.clk_i)


@pytest.mark.parametrize("sim", SIMULATORS)
def test_recip(sim):
    """At the width of LayerNorm and of the softmax."""
    run("rowvit_recip", {"QW": 26}, sim, "reciprocals")
    run("rowvit_recip", {"QW": 17}, "icarus", "reciprocals")


@pytest.mark.parametrize("sim", SIMULATORS)
def test_isqrt(sim):
    """One width."""
    run("rowvit_isqrt", {}, sim, "roots")
