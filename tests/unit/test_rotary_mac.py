# SPDX-License-Identifier: Apache-2.0
"""rotary_mac against sums of two products: the DSP48E1 of Yosys' models, and the twin."""

import random

import cocotb
import pytest
from cocotb.triggers import FallingEdge, ReadOnly
from xilinx import cells

import harness


@cocotb.test()
async def sums(dut):
    """Pairs of products at full rate, with the ends of their ranges; the sum of each first one as well."""
    rng = random.Random(3)
    regs, begin = harness.parameter("REGS"), harness.parameter("ROUND")
    cocotb.start_soon(harness.Clock(dut.clk_i, 10, "ns").start())
    ranges = 1 << 19, 1 << 15

    def draw(high):
        return rng.choice([-high, -1, 0, 1, high // 2, high - 1, rng.randrange(-high, high)])

    drawn = [tuple(draw(high) for high in ranges) for _ in range(600)]
    wanted, total = [], 0
    for number, (a, b) in enumerate(drawn):
        total = (total if number % 2 else begin) + a * b
        wanted.append(total)
    found = []
    for step in range(len(drawn) + regs + 2):
        await FallingEdge(dut.clk_i)
        dut.a_i.value, dut.b_i.value = drawn[step] if step < len(drawn) else (1, 1)
        dut.first_i.value = (step - regs) % 2 == 0
        await ReadOnly()
        if step >= regs + 2:
            found.append(dut.p_o.value.to_signed())
    assert found == wanted


@pytest.mark.parametrize("dsp", [0, 1])
@pytest.mark.parametrize("regs", [1, 2])
def test_rotary_mac(regs, dsp):
    parameters = {"REGS": regs, "ROUND": 1 << 19, "USE_DSP": dsp}
    harness.run("rowvit_rotary_mac", parameters, testcase="sums", library=[cells()] if dsp else [])
