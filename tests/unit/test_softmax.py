# SPDX-License-Identifier: Apache-2.0
"""softmax against its Python twins: e of every lane, reciprocals, token scores, under stalls and reset."""

from __future__ import annotations

import random
from dataclasses import dataclass

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

from harness import cycles, parameter, pulse, reset, run, start, uint, wait_for
from rowvit.reference.attention import exponentials, token_scores
from rowvit.reference.primitives import recip
from vector import defined


def random_logits(shape: tuple[int, ...]) -> np.ndarray:
    """Logits in all their range: spread, alike, all equal, one ahead of all others."""
    rng = np.random.default_rng(random.getrandbits(32))
    spread = random.choice((0, 3, 64, 300, 4096))
    s = rng.integers(-2048, 2048, shape[:-1])[..., None] + rng.integers(-spread, spread + 1, shape)
    if random.random() < 0.3:
        s[..., rng.integers(shape[-1])] = 2047
    return np.clip(s, -2048, 2047)


@dataclass
class Op:
    """Settings and logits [bands, rows, groups, padded tokens] of one attention operation."""

    live: int
    heads: int
    score: bool = False
    score_clear: bool = False
    table: int | None = None  #: entry of token 0; None: any that leaves room

    def __post_init__(self) -> None:
        self.rows, self.groups, self.lanes = (parameter(name) for name in ("ROWS", "GROUPS", "LANES"))
        self.tiles = -(-self.live // self.lanes)
        self.segment = 1 + self.lanes // 8
        self.bands = -(-self.live // self.rows)
        self.base = random.randrange(1000)
        if self.table is None:
            self.table = random.randint(0, parameter("MAX_TOKENS") - self.live)
        self.stride = self.tiles * self.segment + random.randrange(3)
        self.s = random_logits((self.bands, self.rows, self.groups, self.tiles * self.lanes))
        self.e = exponentials(self.s[..., : self.live])

    def segments(self, band: int, row: int) -> dict[int, list[int]]:
        """Values of a row by the address of their segments."""
        segments = {}
        for g in range(self.groups):
            e = np.zeros(self.tiles * self.lanes, np.uint8)
            e[: self.live] = self.e[band, row, g]
            for t, values in enumerate(e.reshape(self.tiles, self.lanes)):
                segments[self.base + (band % 2 * self.groups + g) * self.stride + t * self.segment] = (
                    values.tolist()
                )
        return segments


class Unit:
    """Drives S as the array's drain does and checks what becomes of it."""

    def __init__(self, dut, stall: float) -> None:
        self.dut, self.rows = dut, parameter("ROWS")
        self.written: list[dict[int, list[int]]] = [{} for _ in range(self.rows)]
        self.sink = cocotb.start_soon(self.take(stall))
        self.scores: dict[int, int] = {}  #: entries that were written

    async def take(self, stall: float) -> None:
        """As the drain: its segment builders stay closed for a while after a segment."""
        dut, lanes, groups = self.dut, parameter("LANES"), parameter("GROUPS")
        n = self.rows * groups
        taken: list[list[int]] = [[] for _ in range(n)]
        base = [0] * n
        closed = [0] * n  #: cycles
        dut.p_closed_i.value, dut.p_idle_i.value = 0, 1
        while True:
            await ReadOnly()
            fed = defined(dut.p_feed_o)
            assert fed in (0, (1 << self.rows) - 1)
            closed = [max(0, cycles - (random.random() >= stall)) for cycles in closed]
            if fed:
                data, keep, bases = (defined(h) for h in (dut.p_data_o, dut.p_keep_o, dut.p_base_o))
                for i in range(n):
                    if not taken[i]:
                        base[i] = bases >> 16 * (i % groups) & 0xFFFF
                    taken[i].append(data >> 8 * i & 0xFF)
                    assert (keep >> i & 1) == (taken[i][-1] != 0)
                    if len(taken[i]) == lanes:
                        assert not defined(dut.p_closed_i) >> i & 1, "a segment ended behind a closed one"
                        assert base[i] not in self.written[i // groups], f"segment {base[i]} came twice"
                        self.written[i // groups][base[i]] = taken[i]
                        taken[i], closed[i] = [], random.randint(1, 9)
            await FallingEdge(dut.clk_i)
            dut.p_closed_i.value = sum(bool(cycles) << i for i, cycles in enumerate(closed))
            dut.p_idle_i.value = int(not any(closed) and not any(taken))

    async def send(self, op: Op, band: int) -> None:
        dut = self.dut
        for token in range(op.tiles * op.lanes):
            if token % op.lanes == 0:
                await cycles(dut, random.choice((0, 0, 1, 30)))
            dut.s_valid_i.value = 1
            dut.s_token_i.value = token
            dut.s_first_i.value = int(token == 0)
            dut.s_last_i.value = int(token == op.tiles * op.lanes - 1)
            flat = op.s[band, :, :, token].reshape(-1)
            dut.s_data_i.value = sum((int(v) & 0xFFF) << 12 * i for i, v in enumerate(flat))
            await FallingEdge(dut.clk_i)
            dut.s_valid_i.value = 0

    async def check(self, op: Op, band: int) -> None:
        """Segments and reciprocals of a complete band."""
        dut = self.dut
        for row in range(self.rows):
            if band * self.rows + row >= op.live:
                self.written[row].clear()
                continue
            # A band that is complete has all its segments; the next one may have some already.
            for base, values in op.segments(band, row).items():
                assert self.written[row].pop(base) == values, (band, row, base)
        dut.recip_band_i.value = band % 2
        await ReadOnly()
        found_r, found_n = uint(dut.recip_r_o), uint(dut.recip_n_o)
        await FallingEdge(dut.clk_i)
        for row in range(self.rows):
            for g in range(op.groups):
                if band * self.rows + row < op.live:
                    i = row * op.groups + g
                    n, r = recip(op.e[band, row, g].sum(dtype=np.int64))
                    assert (found_n >> 5 * i & 31, found_r >> 17 * i & 0x1FFFF) == (n, r), (band, row, g)

    async def run(self, op: Op) -> None:
        """One operation; band i + 2 comes when band i was checked."""
        dut = self.dut
        dut.cfg_live_i.value, dut.cfg_groups_i.value = op.live, op.heads
        dut.cfg_p_base_i.value, dut.cfg_p_stride_i.value = op.base, op.stride
        dut.cfg_score_i.value, dut.cfg_score_clear_i.value = int(op.score), int(op.score_clear)
        dut.cfg_table_i.value = op.table
        await pulse(dut, "op_start_i")
        assert uint(dut.bands_o) == 0
        await self.send(op, 0)
        for band in range(op.bands):
            if band + 1 < op.bands:
                await self.send(op, band + 1)
            if uint(dut.bands_o) <= band:
                await wait_for(dut, lambda band=band: uint(dut.bands_o) > band, 4000)
            await self.check(op, band)
        await cycles(dut, 2)
        assert not dut.busy_o.value and not any(self.leftovers(op))
        if op.score:
            scores = token_scores(op.s[0, 0, : op.heads, : op.live])
            for entry, score in enumerate(scores, op.table):
                self.scores[entry] = int(score) + (0 if op.score_clear else self.scores[entry])
            await self.check_scores()

    def leftovers(self, op: Op) -> list[dict[int, list[int]]]:
        """Segments beyond those checked; rows that do not exist may write what they like."""
        dead = op.live % self.rows
        found, self.written[:] = list(self.written), [{} for _ in range(self.rows)]
        return found[: dead or None]

    async def check_scores(self) -> None:
        """Those of this operation, and of those before, which have other entries."""
        for entry, score in self.scores.items():
            self.dut.score_addr_i.value = entry
            for read in (1, 0):  # what was read stays
                self.dut.score_read_i.value = read
                await cycles(self.dut)
                await ReadOnly()
                assert self.dut.score_ready_o.value
                assert uint(self.dut.score_data_o) == score, entry
                await FallingEdge(self.dut.clk_i)
                self.dut.score_addr_i.value = random.randrange(parameter("MAX_TOKENS"))


@cocotb.test()
async def operations(dut):
    """Live counts of all kinds, heads, scores over several operations, segments that stay closed."""
    await start(dut)
    most, lanes, groups = (parameter(name) for name in ("MAX_TOKENS", "LANES", "GROUPS"))
    for stall in (0.0, 0.5, 0.85):
        unit = Unit(dut, stall)
        for live in (most, 1, 2, lanes, lanes + 1, 2 * lanes - 1, random.randint(1, most)):
            heads = random.randint(1, groups)
            score = random.random() < 0.6
            first = Op(live, heads, score, True)
            await unit.run(first)
            if score:
                await unit.run(Op(live, groups, True, False, first.table))
                await unit.run(Op(live, heads, False, True))
        unit.sink.cancel()


@cocotb.test()
async def speed(dut):
    """Without stalls a band takes one cycle per lane of its tiles and little more."""
    await start(dut)
    unit = Unit(dut, 0.0)
    op = Op(parameter("MAX_TOKENS"), 1)
    dut.cfg_live_i.value, dut.cfg_p_stride_i.value = op.live, op.stride
    await pulse(dut, "op_start_i")
    await unit.send(op, 0)
    taken = await wait_for(dut, lambda: uint(dut.bands_o) == 1)
    assert taken <= op.tiles * op.lanes + 30


@cocotb.test()
async def restart(dut):
    """At any time, then an operation as if nothing had been."""
    await start(dut)
    unit = Unit(dut, 0.5)
    for delay in (0, 3, 20, 40, 60, 70, 90):
        op = Op(parameter("MAX_TOKENS"), parameter("GROUPS"), True, True)
        task = cocotb.start_soon(unit.run(op))
        await cycles(dut, 1 + op.tiles * op.lanes + delay)
        task.cancel()
        dut.s_valid_i.value = 0
        unit.sink.cancel()
        await FallingEdge(dut.clk_i)
        await reset(dut)
        assert not dut.busy_o.value and uint(dut.p_feed_o) == 0 and uint(dut.bands_o) == 0
        unit = Unit(dut, 0.5)
        await unit.run(Op(random.randint(1, 20), 1, True, True))


@pytest.mark.parametrize(
    "sim, parameters",
    [
        ("icarus", {"ROWS": 2, "GROUPS": 1, "LANES": 16, "MAX_TOKENS": 40}),
        ("verilator", {"ROWS": 2, "GROUPS": 3, "LANES": 16, "MAX_TOKENS": 64}),
    ],
)
def test_softmax(sim, parameters):
    """One head, and three."""
    run("rowvit_softmax", parameters, sim)
