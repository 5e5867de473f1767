# SPDX-License-Identifier: Apache-2.0
"""fetch: scalar streams of dense and compressed rows, with stalls on both sides."""

import random
from collections import deque

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

import harness
from rowvit.reference.layers import compress


def make_row(rng, lanes, sparse, memory, addr):
    """Put a random row at word ``addr``; return the command count and the expected (x, k) list."""
    if not sparse:
        k = 8 * rng.randint(1, 12)
        values = np.array([rng.randrange(256) for _ in range(k)], np.uint8)
        memory[addr : addr + k // 8] = values.view("<u8").tolist()
        return k, values, list(range(k))
    segments = rng.randint(1, 5)
    density = rng.choice([0, 0.03, 0.2, 0.6, 1.0])
    values = np.array(
        [rng.randrange(1, 256) * (rng.random() < density) for _ in range(segments * lanes)], np.uint8
    )
    for s in range(segments):
        words = compress(values[s * lanes : (s + 1) * lanes])
        memory[addr + s * words.size : addr + (s + 1) * words.size] = words.tolist()
    index = np.flatnonzero(values)
    return segments, values[index], index.tolist()


@cocotb.test()
async def rows(dut):
    lanes = harness.parameter("LANES")
    source, sink = harness.parameter("stalls")
    rng = random.Random(5)
    memory = [[rng.getrandbits(64) for _ in range(1 << 12)] for _ in range(2)]
    commands, expected = [], []
    for n in range(60):
        sparse, unsigned = rng.random() < 0.6, rng.random() < 0.5
        addr = 64 * n
        count, values, index = make_row(rng, lanes, sparse, memory[n % 2], addr)
        commands.append(
            {
                "cmd_sparse_i": sparse,
                "cmd_unsigned_i": unsigned,
                "cmd_bank_i": n % 2,
                "cmd_addr_i": addr,
                "cmd_count_i": count,
            }
        )
        x = values.astype(int) if unsigned else values.view(np.int8).astype(int)
        expected.append(dict(zip(index, x.tolist(), strict=True)))
    await harness.start(dut)

    async def serve():
        """Data a cycle after the read or later, in order; what is asked for stays until it is granted."""
        pending, waiting = deque(), None
        while True:
            answer = bool(pending) and rng.random() >= source / 2
            dut.rd_dvalid_i.value = answer
            dut.rd_data_i.value = pending.popleft() if answer else rng.getrandbits(64)
            ready = rng.random() >= source
            dut.rd_ready_i.value = ready
            await ReadOnly()
            asked = (int(dut.rd_bank_o.value), harness.uint(dut.rd_addr_o)) if dut.rd_valid_o.value else None
            assert waiting is None or asked == waiting
            waiting = None if ready else asked
            if asked and ready:
                bank, addr = asked
                pending.append(memory[bank][addr])
            await FallingEdge(dut.clk_i)

    cocotb.start_soon(serve())
    cocotb.start_soon(harness.drive(dut, commands, source / 2, "cmd"))
    got, row = [], {}

    def take(item):
        nonlocal row
        data, idx, last = item
        x = data - 512 if data > 255 else data
        if x or not last or idx in expected[len(got)]:
            assert idx not in row
            row[idx] = x
        if last:
            got.append(row)
            row = {}
        return len(got) == len(commands)

    await harness.collect(dut, take, sink, "x", data=("{}_data_o", "{}_idx_o", "{}_last_o"))
    for n, (have, want) in enumerate(zip(got, expected, strict=True)):
        assert have == want, f"row {n}: {commands[n]}"


@pytest.mark.parametrize("lanes", [16, 64])
@pytest.mark.parametrize("stalls", harness.STALLS)
def test_fetch(lanes, stalls):
    harness.run("rowvit_fetch", {"LANES": lanes, "BANK_W": 1}, env={"stalls": stalls}, testcase="rows")
