# SPDX-License-Identifier: Apache-2.0
"""mac_pair: the behavioural twin and the DSP48E1 primitive against plain products."""

import random
import shutil
from pathlib import Path

import cocotb
import harness
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

LATENCY = 4


@cocotb.test()
async def products(dut):
    rng = random.Random(11)
    cocotb.start_soon(harness.Clock(dut.clk_i, 10, "ns").start())
    corners_w, corners_x = [-127, -1, 0, 1, 127], [-256, -128, -1, 0, 1, 127, 255]
    cases = [(x, w0, w1) for x in corners_x for w0 in corners_w for w1 in corners_w]
    cases += [(rng.randrange(-256, 256), rng.randrange(-127, 128), rng.randrange(-127, 128)) for _ in range(3000)]
    queue = []
    for x, w0, w1 in cases:
        await FallingEdge(dut.clk_i)
        dut.x_i.value, dut.w0_i.value, dut.w1_i.value = x, w0, w1
        queue.append((x * w0, x * w1))
        if len(queue) > LATENCY:
            await ReadOnly()
            p0 = dut.p0_o.value.to_signed()
            p1 = dut.p1_o.value.to_signed() + int(dut.borrow_o.value)
            assert (p0, p1) == queue.pop(0)


def primitives():
    """Yosys' simulation models of the Xilinx primitives."""
    yosys = shutil.which("yosys")
    if yosys is None:
        pytest.skip("Yosys is not installed: apt-get install yosys")
    return Path(yosys).resolve().parents[1] / "share" / "yosys" / "xilinx" / "cells_sim.v"


@pytest.mark.parametrize("use_dsp", [0, 1])
def test_mac_pair(use_dsp):
    library = [primitives()] if use_dsp else []
    harness.run("mac_pair", {"USE_DSP": use_dsp}, testcase="products", library=library)
