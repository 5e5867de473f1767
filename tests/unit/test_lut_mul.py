# SPDX-License-Identifier: Apache-2.0
"""lut_mul: the Booth rows (Icarus) and the product that Verilator compiles are both the product."""

from __future__ import annotations

import random

import cocotb
import pytest
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly

from harness import parameter, run, uint


@cocotb.test()
async def products(dut):
    """All operands if they are small, else corners and random ones; with and without stalls."""
    cocotb.start_soon(Clock(dut.clk_i, 10, "ns").start())
    await FallingEdge(dut.clk_i)
    aw, bw, constant = parameter("AW"), parameter("BW"), parameter("ROUND", 0)
    if aw + bw <= 10:
        pairs = [(a, b) for a in range(1 << aw) for b in range(1 << bw)]
    else:
        corners = [[0, 1, (1 << w - 1) - 1, 1 << w - 1, (1 << w) - 1] for w in (aw, bw)]
        pairs = [(a, b) for a in corners[0] for b in corners[1]]
        pairs += [(random.getrandbits(aw), random.getrandbits(bw)) for _ in range(1000)]

    def signed(value: int, width: int) -> int:
        return value - (value >> width - 1 << width)

    latency = -(-((bw + 1) // 2) // parameter("PER_STAGE"))
    expected: list[int | None] = [None] * latency
    for a, b in pairs:
        while True:
            enable = random.random() < 0.9
            dut.en_i.value, dut.a_i.value, dut.b_i.value = int(enable), a, b
            await ReadOnly()
            if expected[-1] is not None:
                assert uint(dut.p_o) == expected[-1]
            await FallingEdge(dut.clk_i)
            if enable:
                break
        product = signed(a, aw) * signed(b, bw) + constant
        expected = [product & (1 << aw + bw) - 1, *expected[:-1]]


@pytest.mark.parametrize(
    "sim, aw, bw, per_stage, constant",
    [
        ("icarus", 5, 5, 3, 0),
        ("icarus", 3, 7, 3, 4),
        ("icarus", 16, 16, 2, 0),
        ("icarus", 17, 18, 2, 1 << 15),
        ("icarus", 18, 9, 3, 0),
        ("verilator", 17, 18, 2, 1 << 15),
    ],
)
def test_lut_mul(sim, aw, bw, per_stage, constant):
    """Exhaustive where small; the widths in use otherwise."""
    run("rowvit_lut_mul", {"AW": aw, "BW": bw, "PER_STAGE": per_stage, "ROUND": constant}, sim)
