# SPDX-License-Identifier: Apache-2.0
"""issue (the array): dense and sparse tiles against integer products, with stalls on all sides."""

import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

import harness
from rowvit.compiler.weights import pack_pairs
from rowvit.hardware.buses import TILE

ROWS, GROUPS, LANES, DEPTH = harness.parameter("ROWS", 2), 2, 8, 64
N = ROWS * GROUPS
USED = 48  # weight lines that tiles read; the others are written meanwhile


def make_tile(rng):
    """A random tile: its descriptor, the scalars of every fetcher and the lists they stand for."""
    sparse, shared = rng.random() < 0.5, rng.random() < 0.5
    groups, rows = rng.randint(1, GROUPS), (1 << rng.choice([1, ROWS, ROWS, rng.randint(1, ROWS)])) - 1
    wbase = rng.randrange(USED // 2)
    length = rng.randint(1, USED // 2)
    streams, used = [[] for _ in range(N)], {}
    for r in range(ROWS):
        for g in range(groups):
            if not rows >> r & 1:
                continue
            if shared and g:
                used[r, g] = used[r, 0]
                continue
            if sparse:
                indices = sorted(rng.sample(range(length), rng.randint(0, length)))
                items = [(rng.randrange(1, 256), k) for k in indices] or [(0, 0)]
            else:
                items = [(rng.randrange(-128, 128), k) for k in range(length)]
            used[r, g] = items
            streams[r * GROUPS + g] = [(x, k, n == len(items) - 1) for n, (x, k) in enumerate(items)]
    descriptor = {
        "null": 0,
        "op_last": int(rng.random() < 0.3),
        "shared": int(shared),
        "sparse": int(sparse),
        "pv": int(rng.random() < 0.5),
        "wbase": wbase,
        "groups": groups,
        "rows": rows,
    }
    return descriptor, streams, used


@cocotb.test()
async def tiles(dut):
    source, sink = harness.parameter("stalls")
    rng = random.Random(17)
    weights = np.array(
        [[[rng.randint(-127, 127) for _ in range(LANES)] for _ in range(DEPTH)] for _ in range(GROUPS)]
    )
    cases = [make_tile(rng) for _ in range(60)]
    await harness.start(dut)

    def write(group, line):
        """Present one line of one group to the write port."""
        data = int.from_bytes(pack_pairs(weights[group, line].astype(np.int8)).tobytes(), "little")
        dut.wr_valid_i.value = 1 << group
        dut.wr_line_i.value = line << (6 * group)
        dut.wr_be_i.value = ((1 << LANES) - 1) << (LANES * group)
        dut.wr_data_i.value = data

    for group in range(GROUPS):
        for line in range(DEPTH):
            write(group, line)
            await FallingEdge(dut.clk_i)
    # the drain's way: a pair of lanes of one line and group, the bits of a line of ones that are left
    for group in range(GROUPS):
        for line in range(USED):
            lane = rng.randrange(0, LANES, 2)
            weights[group, line, lane : lane + 2] = rng.randint(-127, 127), rng.randint(-127, 127)
            pair = pack_pairs(weights[group, line, lane : lane + 2].astype(np.int8)).tobytes()
            write(group, line)
            dut.wr_be_i.value = 3 << LANES * group + lane
            dut.wr_data_i.value = (1 << 8 * LANES) - 1
            clear = (~int.from_bytes(pair, "little") & 0xFFFF) << 8 * (lane % 8)
            dut.wr_clear_i.value = clear << 64 * group
            await FallingEdge(dut.clk_i)
    dut.wr_clear_i.value = 0
    dut.wr_valid_i.value = 0
    await harness.cycles(dut, 2)

    async def disturb():
        while True:
            if rng.random() < source:
                write(rng.randrange(GROUPS), rng.randrange(USED, DEPTH))
            else:
                dut.wr_valid_i.value = 0
            await FallingEdge(dut.clk_i)

    async def feed():
        """All fetchers in one coroutine: they share packed ports."""
        queues = [[item for case in cases for item in case[1][i]] for i in range(N)]
        valid = [False] * N
        while any(queues):
            data = idx = last = 0
            for i in range(N):
                valid[i] = bool(queues[i]) and (valid[i] or rng.random() >= source)
                if valid[i]:
                    x, k, end = queues[i][0]
                    data |= (x & 511) << (9 * i)
                    idx |= k << (11 * i)
                    last |= end << i
            dut.x_data_i.value, dut.x_idx_i.value, dut.x_last_i.value = data, idx, last
            dut.x_valid_i.value = sum(v << i for i, v in enumerate(valid))
            await ReadOnly()
            taken = int(dut.x_ready_o.value)
            await FallingEdge(dut.clk_i)
            for i in range(N):
                if valid[i] and taken >> i & 1:
                    queues[i].pop(0)
                    valid[i] = False

    ops = 0

    async def count_ops():
        nonlocal ops
        while True:
            await ReadOnly()
            ops += int(dut.op_done_o.value)
            await FallingEdge(dut.clk_i)

    cocotb.start_soon(disturb())
    cocotb.start_soon(feed())
    cocotb.start_soon(count_ops())
    # operations without a tile, up to more than the queue of tiles holds
    queued = []
    for case in cases:
        for _ in range(rng.choice([0, 0, 0, 1, 3, 6, 10])):
            queued.append(make_tile(rng)[0] | {"null": 1, "op_last": 1})
        queued.append(case[0])
    vectors = [{"tile_i": TILE.pack(fields, ROWS=ROWS)} for fields in queued]
    cocotb.start_soon(harness.drive(dut, vectors, source / 2, "tile"))
    for n, (descriptor, _, used) in enumerate(cases):
        await harness.wait_for(dut, lambda: bool(dut.captured_o.value), 20_000)
        await harness.cycles(dut, 1)  # the shadows are complete two cycles after it
        shadow = str(dut.shadow_o.value)[::-1]  # unused clusters are undefined
        for (r, g), items in used.items():
            want = sum(x * weights[g, descriptor["wbase"] + k] for x, k in items)
            for lane in range(LANES):
                first = 26 * ((r * GROUPS + g) * LANES + lane // 2 * 2)
                pair = int(shadow[first : first + 52][::-1], 2)
                wraps = (pair >> 43) - (pair >> 51 << 9) - (pair >> 16 & 1)
                got = (pair >> 17 & 0x3FFFFFF) - wraps if lane % 2 else (wraps << 17) + (pair & 0x1FFFF)
                got = (got + (1 << 25)) % (1 << 26) - (1 << 25)
                assert got == want[lane], f"tile {n} {descriptor}: row {r} group {g} lane {lane}"
        while rng.random() < sink:
            await FallingEdge(dut.clk_i)
        dut.release_i.value = 1
        await FallingEdge(dut.clk_i)
        dut.release_i.value = 0
    await harness.cycles(dut, 5)
    assert ops == sum(descriptor["op_last"] for descriptor in queued)


@pytest.mark.parametrize(
    ("rows", "stalls"),
    [*((2, stalls) for stalls in harness.STALLS), (4, harness.STALLS[-1]), (8, (0.1, 0.0))],
)
def test_issue(rows, stalls):
    parameters = {"ROWS": rows, "GROUPS": GROUPS, "LANES": LANES, "WEIGHT_DEPTH": DEPTH, "AW": 6}
    harness.run("rowvit_issue", parameters, env={"stalls": stalls}, testcase="tiles")
