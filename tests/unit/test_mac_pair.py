# SPDX-License-Identifier: Apache-2.0
"""mac_pair against plain sums of products, with the pair of weights on either port."""

import random

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly
from xilinx import cells

import harness


def drive(dut, rng: random.Random, pipeline: list, step: tuple | None, x: int, pair: int) -> tuple | None:
    """Set inputs, the pair on either port; the step (x, w0, w1, first, ...) whose product is due."""
    use_b, other = rng.random() < 0.5, rng.randrange(1 << 16)
    dut.x_i.value, dut.use_b_i.value = x, use_b
    dut.a_i.value, dut.b_i.value = (other, pair) if use_b else (pair, other)
    now = pipeline.pop(0)
    pipeline.append(step)
    # of the factors that enter now, of those of one and two cycles before, and of the product
    dut.en_i.value = sum(1 << age for age, one in enumerate([*pipeline[::-1], now]) if one is not None)
    dut.first_i.value = bool(now and now[3])
    return now


@cocotb.test()
async def sums(dut):
    """Runs of products from one term to the longest the numerics allow, with idle cycles between."""
    rng = random.Random(11)
    cocotb.start_soon(harness.Clock(dut.clk_i, 10, "ns").start())
    corners_w, corners_x = [-127, -1, 0, 1, 127], [-128, -1, 0, 1, 127, 255]
    runs = [[(x, w0, w1)] for x in corners_x for w0 in corners_w for w1 in corners_w]
    runs += [[(255, sign * 127, other * 127)] * 1024 for sign in (-1, 1) for other in (-1, 1)]
    for length in (2, 3, 40, 300):
        for _ in range(6):
            low, high = rng.choice([(-128, 127), (0, 255)])
            runs.append(
                [
                    tuple(rng.randint(*ends) for ends in ((low, high), (-127, 127), (-127, 127)))
                    for _ in range(length)
                ]
            )
    pipeline, check = [None] * 3, [None] * 2
    steps, p_before = [], None
    for run in runs:
        low = high = 0
        for n, (x, w0, w1) in enumerate(run):
            low, high = low + x * w0, high + x * w1
            if rng.random() < 0.1:
                steps.append(None)
            steps.append((x, w0, w1, n == 0, low, high))
    for step in [*steps, *[None] * 6]:
        await FallingEdge(dut.clk_i)
        x, w0, w1 = step[:3] if step else (rng.randint(-256, 255), 127, -127)
        pair = w1 - (w0 < 0) << 8 & 0xFF00 | w0 & 0xFF
        now = drive(dut, rng, pipeline, step, x, pair)
        await ReadOnly()
        sums = check.pop(0)
        check.append(None if now is None else (int(now[4]), int(now[5])))
        if sums is not None and p_before is not None:
            wraps = dut.wraps_o.value.to_signed() - (p_before >> 16 & 1)
            assert (wraps << 17) + (p_before & 0x1FFFF) == sums[0]
            got = ((p_before >> 17) - wraps) & 0x3FFFFFF
            assert got - ((got >> 25) << 26) == sums[1]
        p_before = int(dut.p_o.value) if dut.p_o.value.is_resolvable else None


@cocotb.test()
async def stands_still(dut):
    """While nothing is summed, no register behind a multiplier's inputs changes, whatever comes in."""
    rng = random.Random(5)
    cocotb.start_soon(harness.Clock(dut.clk_i, 10, "ns").start())
    registers = [getattr(dut.u_dsp, name) for name in ("Ar2", "Dr", "ADr", "Br1", "Br2", "Mr")]
    dut.first_i.value = 0
    before = None
    for cycle in range(200):
        await FallingEdge(dut.clk_i)
        for port, bits in ((dut.x_i, 9), (dut.a_i, 16), (dut.b_i, 16), (dut.use_b_i, 1)):
            port.value = rng.getrandbits(bits) - (256 if bits == 9 else 0)
        dut.en_i.value = 15 << max(0, cycle - 36) & 15  # after the last factors none come
        await ReadOnly()
        values = [str(register.value) for register in registers]
        if cycle > 45:
            assert values == before, cycle
        before = values


@cocotb.test()
async def plain(dut):
    """Two plain products for each factor, with cycles without one between them."""
    rng = random.Random(7)
    cocotb.start_soon(harness.Clock(dut.clk_i, 10, "ns").start())
    pipeline: list = [None] * 3
    due, begun = None, False
    low = high = 0
    for cycle in range(2000):
        await FallingEdge(dut.clk_i)
        if due:
            assert (dut.low_o.value.to_signed(), dut.high_o.value.to_signed()) == due, cycle
        x = rng.choice([-128, -1, 0, 255, rng.randint(-128, 255)])
        w = [rng.choice([-127, 127, rng.randint(-127, 127)]) for _ in range(2)]
        first = not begun or rng.random() < 0.02
        step = (x, *w, first) if rng.random() < 0.8 else None
        begun = begun or step is not None
        now = drive(dut, rng, pipeline, step, x, (w[1] & 0xFF) << 8 | w[0] & 0xFF)
        if now:
            x, *w, first = now
            low, high = x * w[0] + low * (not first), x * w[1] + high * (not first)
            due = low, high


def test_mac_pair():
    harness.run("rowvit_mac_pair", testcase=["sums", "stands_still"], library=[cells()])


def test_as_a_chip_would_have_it():
    """What benchmarks/paper.py counts the gates of."""
    shaped = harness.ROOT / "benchmarks" / "dsp_shaped.v"
    harness.run("rowvit_mac_pair", testcase="sums", library=[shaped])


def test_plain_pair():
    """What it counts beside them."""
    harness.run("plain_pair", testcase="plain", source=harness.ROOT / "benchmarks" / "plain_pair.v")
