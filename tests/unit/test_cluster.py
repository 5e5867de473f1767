# SPDX-License-Identifier: Apache-2.0
"""cluster: the DSPs and the twin that simulators take, in every cycle, against plain sums of products."""

import random

import cocotb
import pytest
from cocotb.triggers import FallingEdge, ReadOnly
from xilinx import cells

import harness

LANES = 16
WIDEST = ((-128, 127), (0, 255), (-256, 255))  # of x: int8, after ReLU, and what the port takes


def shadow(sums: list[int]) -> tuple[int, int]:
    """The bits {wraps, p} of all pairs, as (p, wraps), from the sums of the lanes: rowvit_mac_pair.v."""
    p = wraps = 0
    for pair in range(LANES // 2):
        low, high = sums[2 * pair : 2 * pair + 2]
        both = low + (high << 17)
        p |= (both & (1 << 43) - 1) << 52 * pair
        wraps |= ((low >> 17) + (both >> 16 & 1) & 0x1FF) << 52 * pair + 43
    return p, wraps


@cocotb.test()
async def tiles(dut):
    """Tiles of one product and of the longest, without and with idle cycles within and between."""
    rng = random.Random(13)
    cocotb.start_soon(harness.Clock(dut.clk_i, 10, "ns").start())
    steps = []
    for number in range(60):
        low, high = rng.choice(WIDEST)
        length, idle = rng.choice([1, 1, 2, 3, 7, 40, 200]), rng.choice([0, 0, 0.3])
        sums, extreme = [0] * LANES, rng.choice([None, None, -127, 127])
        if number == 7:
            length, extreme = 1536, 127
        for n in range(length):
            while rng.random() < idle:
                steps.append(None)
            x = rng.choice([low, high]) if extreme else rng.randint(low, high)
            weights = [extreme or rng.randint(-127, 127) for _ in range(LANES)]
            sums = [a + x * w for a, w in zip(sums, weights, strict=True)]
            if any(not -(1 << 25) <= one < 1 << 25 for one in sums):
                break  # the width of a sum: docs/numerics.md
            last = n == length - 1
            steps.append((x, weights, n == 0, shadow(sums) if last else None))
    p_from = {cycle + 5: step[3][0] for cycle, step in enumerate(steps) if step and step[3]}
    wraps_from = {cycle + 6: step[3][1] for cycle, step in enumerate(steps) if step and step[3]}
    p = wraps = None
    mask = sum(((1 << 43) - 1) << 52 * pair for pair in range(LANES // 2))
    for cycle, step in enumerate([*steps, *[None] * 8]):
        await FallingEdge(dut.clk_i)
        p, wraps = p_from.get(cycle, p), wraps_from.get(cycle, wraps)
        if wraps is not None:
            got = int(dut.shadow_o.value)
            assert got & mask == p and got & ~mask == wraps, cycle
        x, weights = step[:2] if step else (rng.randint(-256, 255), [rng.randint(-127, 127)] * LANES)
        pairs = 0
        for lane, weight in enumerate(weights):
            less = lane % 2 and weights[lane - 1] < 0
            pairs |= (weight - less & 0xFF) << 8 * lane
        use_b, other = rng.random() < 0.5, rng.getrandbits(8 * LANES)
        dut.x_i.value, dut.use_b_i.value = x, use_b
        dut.a_i.value, dut.b_i.value = (other, pairs) if use_b else (pairs, other)
        dut.en_i.value = step is not None
        dut.first_i.value = bool(step[2]) if step else rng.random() < 0.5
        dut.last_i.value = bool(step[3]) if step else rng.random() < 0.5
        await ReadOnly()


@pytest.mark.parametrize("use_dsp", [0, 1], ids=["twin", "DSP48E1"])
def test_cluster(use_dsp):
    library = [cells()] if use_dsp else []
    harness.run("rowvit_cluster", {"LANES": LANES, "USE_DSP": use_dsp}, testcase="tiles", library=library)
