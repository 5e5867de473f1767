# SPDX-License-Identifier: Apache-2.0
"""requant against plain integers, extremes included."""

import random

import cocotb
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

import harness


def expected(acc, bias, mult, shift):
    value = max(-(1 << 24), min((1 << 24) - 1, acc + bias)) * mult
    value = (value + (1 << (shift - 1))) >> shift
    return max(-32768, min(32767, value))


@cocotb.test()
async def values(dut):
    rng = random.Random(3)
    dut.clk_i.value = 0
    cocotb.start_soon(harness.Clock(dut.clk_i, 10, "ns").start())
    extremes = [-(1 << 25), (1 << 25) - 1, -1, 0, 1]
    queue = []
    for _ in range(4000):
        acc = (
            rng.choice(extremes) if rng.random() < 0.3 else rng.randrange(-(1 << rng.randint(1, 25)), 1 << 20)
        )
        bias = rng.choice(extremes) if rng.random() < 0.2 else rng.randrange(-(1 << 16), 1 << 16)
        mult = rng.choice([0, 1, 65535, 65536, rng.randrange(65536)])
        shift = rng.randint(1, 40)
        await FallingEdge(dut.clk_i)
        dut.acc_i.value, dut.bias_i.value = acc, bias
        dut.mult_i.value, dut.shift_i.value = mult, shift
        queue.append(expected(acc, bias, mult, shift))
        if len(queue) > 7:
            await ReadOnly()
            assert dut.y_o.value.to_signed() == queue.pop(0)


@pytest.mark.parametrize("sim", harness.SIMULATORS)
def test_requant(sim):
    harness.run("rowvit_requant", sim=sim, testcase="values")
