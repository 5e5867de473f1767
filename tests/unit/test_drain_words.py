# SPDX-License-Identifier: Apache-2.0
"""drain_words: plain words, hidden segments and the softmax's segments in one token memory, to the bit."""

from __future__ import annotations

import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

from harness import cycles, parameter, run, start, uint, wait_for
from rowvit.reference.layers import compress
from vector import defined


class Unit:
    """Drives both sources and keeps what was written."""

    def __init__(self, dut) -> None:
        self.dut = dut
        self.rows, self.groups, self.lanes = (parameter(name) for name in ("ROWS", "GROUPS", "LANES"))
        self.n, self.segment = self.rows * self.groups, 1 + self.lanes // 8
        self.tokens: dict[tuple[int, int], int] = {}
        self.maps: list[list[int]] = []  #: bitmaps of the hidden segments that ended together, 0 where none
        cocotb.start_soon(self.watch())

    async def watch(self) -> None:
        dut, n = self.dut, self.n
        while True:
            await ReadOnly()
            valid, ended = uint(dut.tw_valid_o), uint(dut.seg_valid_o)
            for r in range(self.rows):
                if valid >> r & 1:
                    address = defined(dut.tw_addr_o) >> 16 * r & 0xFFFF
                    assert (r, address) not in self.tokens, f"word {address} of row {r} came twice"
                    self.tokens[r, address] = defined(dut.tw_data_o) >> 64 * r & (1 << 64) - 1
            if ended:
                maps = [defined(dut.seg_map_o) >> self.lanes * i & (1 << self.lanes) - 1 for i in range(n)]
                self.maps.append([m if ended >> i & 1 else 0 for i, m in enumerate(maps)])
            await FallingEdge(dut.clk_i)

    def values(self) -> np.ndarray:
        """uint8 [n, lanes] with a random share of zeros."""
        rng = np.random.default_rng(random.getrandbits(32))
        return np.where(
            rng.random((self.n, self.lanes)) < random.random(),
            0,
            rng.integers(256, size=(self.n, self.lanes)),
        )

    async def tile(self, values: np.ndarray, base: int, sparse: bool, active: int) -> None:
        """Results of the array, a lane per cycle."""
        dut = self.dut
        dut.dense_i.value, dut.sparse_i.value = int(not sparse), int(sparse)
        dut.active_i.value, dut.base_i.value = active, base
        for lane in range(self.lanes):
            dut.valid_i.value, dut.place_i.value = 1, lane // 8
            dut.word_end_i.value = ((1 << self.rows) - 1) * (lane % 8 == 7)
            dut.data_i.value = sum(int(v) << 8 * i for i, v in enumerate(values[:, lane]))
            await FallingEdge(dut.clk_i)
            dut.valid_i.value = dut.word_end_i.value = 0

    async def probabilities(self, values: np.ndarray, bases: list[int], pauses: float) -> None:
        """A segment of every row and group, as the softmax sends it."""
        dut = self.dut
        for lane in range(self.lanes):
            while random.random() < pauses or (lane == self.lanes - 1 and uint(dut.p_closed_o)):
                await FallingEdge(dut.clk_i)
            dut.p_feed_i.value = (1 << self.rows) - 1
            dut.p_data_i.value = sum(int(v) << 8 * i for i, v in enumerate(values[:, lane]))
            dut.p_keep_i.value = sum(int(v != 0) << i for i, v in enumerate(values[:, lane]))
            dut.p_base_i.value = sum(base << 16 * g for g, base in enumerate(bases))
            await FallingEdge(dut.clk_i)
            dut.p_feed_i.value, dut.p_base_i.value = 0, random.getrandbits(16 * self.groups)

    def check_segment(self, row: int, base: int, values: np.ndarray) -> None:
        nonzeros = int(np.count_nonzero(values))
        used = -(-nonzeros // 8)
        for i, word in enumerate(compress(values.astype(np.uint8))[: 1 + used]):
            bits = 64 if i < used or not nonzeros % 8 else 8 * (nonzeros % 8)
            found = self.tokens.pop((row, base + i))
            assert (found ^ int(word)) & (1 << bits) - 1 == 0, (row, base, i)


@cocotb.test()
async def both(dut):
    """Hidden tiles, then probabilities beside plain words of O, and so on."""
    await start(dut)
    unit = Unit(dut)
    for turn in range(25):
        base = random.randrange(1 << 14)
        # hidden rows, back to back
        active = random.getrandbits(unit.n) or 1
        hidden = [unit.values() for _ in range(random.randint(1, 3))]
        for k, values in enumerate(hidden):
            await unit.tile(values, base + 64 * k, True, active)
        await cycles(dut, 1 + unit.lanes)  # S takes as long, before the softmax has something to send
        for k, values in enumerate(hidden):
            maps = [sum(int(v != 0) << lane for lane, v in enumerate(row)) for row in values]
            assert unit.maps.pop(0) == [m if active >> i & 1 else 0 for i, m in enumerate(maps)]
            for i in range(unit.n):
                if active >> i & 1:
                    unit.check_segment(
                        i // unit.groups, base + 64 * k + i % unit.groups * unit.segment, values[i]
                    )
        assert not unit.tokens and not unit.maps and uint(dut.p_idle_o)

        # probabilities beside O
        plain = unit.values()
        task = cocotb.start_soon(unit.tile(plain, 40000, False, active))
        sent = []
        for k in range(random.randint(1, 4)):
            bases = [20000 + (4 * g + k) * unit.segment for g in range(unit.groups)]
            sent.append((unit.values(), bases))
            await unit.probabilities(*sent[-1], random.choice((0.0, 0.3)))
        await task
        await wait_for(dut, lambda: bool(dut.p_idle_o.value))
        await cycles(dut, 2)
        for values, bases in sent:
            for i in range(unit.n):
                unit.check_segment(i // unit.groups, bases[i % unit.groups], values[i])
        for i in range(unit.n):
            if active >> i & 1:
                first = 40000 + i % unit.groups * unit.lanes // 8
                found = [unit.tokens.pop((i // unit.groups, first + w)) for w in range(unit.lanes // 8)]
                assert b"".join(w.to_bytes(8, "little") for w in found) == plain[i].astype(np.uint8).tobytes()
        assert not unit.tokens and not unit.maps, turn


@pytest.mark.parametrize(
    "sim, parameters",
    [
        ("icarus", {"ROWS": 2, "GROUPS": 1, "LANES": 16}),
        ("verilator", {"ROWS": 2, "GROUPS": 3, "LANES": 64}),
        ("verilator", {"ROWS": 4, "GROUPS": 2, "LANES": 16}),
    ],
)
def test_drain_words(sim, parameters):
    """One head; heads that share a bank; more rows."""
    run("rowvit_drain_words", parameters, sim)
