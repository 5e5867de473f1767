# SPDX-License-Identifier: Apache-2.0
"""norm_engine against its Python twin: sizes, extremes, stalls, progress, records, reset."""

from __future__ import annotations

import random
from dataclasses import dataclass

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge

from harness import collect, cycles, drive, parameter, reset, run, start, uint, wait_for
from rowvit.hardware.isa import Engine, Flag, NormKind, Op, Record
from rowvit.reference.layers import layernorm, token_values
from vector import answer, banks, instruction


def generator() -> np.random.Generator:
    return np.random.default_rng(random.getrandbits(32))


def residual_rows(rows: int, dim: int) -> np.ndarray:
    """int16 rows, each of another kind: usual, huge, tiny, constant, two-valued, one channel off."""
    rng, out = generator(), np.zeros((rows, dim), np.int64)
    for row in out:
        kind = random.randrange(8)
        row[:] = rng.normal(rng.integers(-3000, 3000), 10 ** rng.uniform(0, 4), dim)
        if kind == 0:
            row[:] = random.choice((0, 1, -1, 32767, -32768))
        elif kind == 1:
            row[:] = rng.choice((-32768, 32767), dim)
        elif kind == 2:
            row[:] = random.choice((0, 7, -32768))
            row[rng.integers(dim)] = random.choice((8, 32767, -32768))
        elif kind == 3:
            row[:] = rng.integers(-1, 2, dim)
    return np.clip(out, -32768, 32767).astype(np.int16)


@dataclass
class Norm:
    """One LAYERNORM with its rows and parameters."""

    live: int
    dim: int
    slot: int = 0
    one_row: bool = False

    def __post_init__(self) -> None:
        self.rows, self.groups, self.lanes = (parameter(name) for name in ("ROWS", "GROUPS", "LANES"))
        self.count = 1 if self.one_row else self.live
        self.bands = -(-self.count // self.rows)
        self.addresses = self.lanes * -(-self.dim // (self.lanes * self.groups))
        self.res_stride = self.addresses + random.randrange(5)
        self.res_base = random.randrange(1000)
        self.dst_base = random.randrange(1000)
        self.dst_stride = self.dim // 8 + random.randrange(5)
        self.part = min(self.rows, 4)
        self.part_words = self.addresses * -(-self.part * self.groups // 4)
        rng = generator()
        self.x = residual_rows(self.bands * self.rows, self.dim)
        wild = random.random() < 0.3
        self.shift = random.choice((0, 1, 31)) if wild else random.randint(12, 20)
        usual = rng.normal(2000, 800, self.dim).astype(int)
        self.g = rng.integers(-32768, 32768, self.dim) if wild else usual
        limit = 1 << (31 if wild else 14)
        self.b = rng.integers(-limit, limit, self.dim)
        if wild:
            self.b[rng.random(self.dim) < 0.2] = random.choice((-limit, limit - 1))

    def place(self, channel: int) -> tuple[int, int]:
        """Group and address within a band of a channel."""
        tile, lane = divmod(channel, self.lanes)
        return tile % self.groups, tile // self.groups * self.lanes + lane

    def read(self, address: int) -> int:
        """All residual banks at an address; noise where no channel lives."""
        band, offset = divmod(address - self.res_base, self.res_stride)
        value = random.getrandbits(16 * self.rows * self.groups)
        if not 0 <= band < self.bands:
            return value
        for g in range(self.groups):
            tile = offset // self.lanes * self.groups + g
            channel = tile * self.lanes + offset % self.lanes
            if channel < self.dim:
                for r in range(self.rows):
                    at = 16 * (r * self.groups + g)
                    value &= ~(0xFFFF << at)
                    value |= (int(self.x[band * self.rows + r, channel]) & 0xFFFF) << at
        return value

    def fields(self, kind: NormKind) -> dict[str, int]:
        return {
            "kind": kind,
            "dim": self.dim,
            "res_stride": self.res_stride,
            "res_base": self.res_base,
            "dst_base": self.dst_base,
            "dst_stride": self.part_words if kind is NormKind.TOKENS else self.dst_stride,
            "slot": self.slot,
            "shift": self.shift,
        }

    def flags(self) -> tuple[Flag, ...]:
        return (Flag.ONE_ROW,) if self.one_row else ()

    def words(self) -> list[dict[int, int]]:
        """Per bank: address to word."""
        out: list[dict[int, int]] = [{} for _ in range(self.rows)]
        y = layernorm(self.x[: self.count], self.g, self.b, self.shift)
        for row, values in enumerate(y):
            base = self.dst_base + row // self.rows * self.dst_stride
            words = np.ascontiguousarray(values).view("<u8")
            out[row % self.rows] |= {base + i: int(word) for i, word in enumerate(words)}
        return out

    def tokens(self) -> list[int]:
        """Words of a TOKENS record."""
        y, found = token_values(self.x[: self.count], self.g, self.b, self.shift), []
        for first in range(0, self.count, self.part):
            for address in range(self.addresses):
                values = []
                for row in range(first, first + self.part):
                    for group in range(self.groups):
                        tile = address // self.lanes * self.groups + group
                        channel = tile * self.lanes + address % self.lanes
                        there = row < self.count and channel < self.dim
                        values.append(int(y[row, channel]) & 0xFFFF if there else 0)
                values += [0] * (-len(values) % 4)
                found += [
                    sum(value << 16 * i for i, value in enumerate(values[at : at + 4]))
                    for at in range(0, len(values), 4)
                ]
        return found


class Unit:
    """The engine with memories around it."""

    def __init__(self, dut, read_stall: float = 0.0, write_stall: float = 0.0) -> None:
        self.dut, self.rows, self.op = dut, parameter("ROWS"), None
        self.written: list[dict[int, int]] = [{} for _ in range(self.rows)]
        self.tasks = [
            cocotb.start_soon(banks(dut, "tw", self.rows, self.written, write_stall)),
            cocotb.start_soon(
                answer(dut, self.read, "rd_addr_o", "rd_data_i", read_stall, "rd_valid_o", "rd_ready_i", 2)
            ),
        ]

    def read(self, address: int) -> int:
        return self.op.read(address)

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()

    async def load(self, op: Norm, stall: float = 0.0) -> None:
        """Parameters in the order of a LOAD."""
        dut = self.dut
        for channel in range(op.dim):
            while random.random() < stall:
                dut.nw_valid_i.value = 0
                await FallingEdge(dut.clk_i)
            group, index = op.place(channel)
            dut.nw_valid_i.value, dut.nw_slot_i.value = 1, op.slot
            dut.nw_group_i.value, dut.nw_index_i.value = group, index
            g, b = int(op.g[channel]), int(op.b[channel])
            dut.nw_data_i.value = (g & 0xFFFF) << 32 | b & 0xFFFFFFFF
            await FallingEdge(dut.clk_i)
        dut.nw_valid_i.value = 0

    async def norm(self, op: Norm, load: bool = True) -> None:
        """Load, run and compare one LAYERNORM."""
        dut, before = self.dut, uint(self.dut.done_o)
        self.op = op
        for bank in self.written:
            bank.clear()
        if load:
            await self.load(op)
        dut.live_i.value = op.live
        word = instruction(Op.NORM, op.flags(), **op.fields(NormKind.LAYERNORM))
        await drive(dut, [word], 0, "instr", data="{}_i")
        assert uint(dut.done_o) == before + 1 and uint(dut.bands_o) == 0 and not dut.busy_o.value
        assert self.written == op.words()

    async def void(self, op: Norm, kind: NormKind) -> None:
        """An instruction that only counts."""
        dut, before = self.dut, uint(self.dut.done_o)
        self.op = op
        for bank in self.written:
            bank.clear()
        word = instruction(Op.NORM, (*op.flags(), Flag.VOID), **op.fields(kind))
        await drive(dut, [word], 0, "instr", data="{}_i")
        await FallingEdge(dut.clk_i)
        assert uint(dut.done_o) == before + 1 and not dut.busy_o.value
        assert not any(self.written) and not dut.out_valid_o.value

    async def record(self, op: Norm, kind: NormKind, stall: float, last: bool = False) -> None:
        """Run and compare one DUMP, or one TOKENS, whose parameters it loads."""
        dut, tag, image = self.dut, random.getrandbits(8), random.getrandbits(4)
        self.op = op
        for bank in self.written:
            bank.clear()
        if kind is NormKind.TOKENS:
            await self.load(op)
        dut.live_i.value = op.live
        words: list[tuple[int, int, int]] = []
        flags = (*op.flags(), Flag.LAST) if last else op.flags()
        word = instruction(Op.NORM, flags, tag, image=image, **op.fields(kind))
        task = cocotb.start_soon(drive(dut, [word], 0, "instr", data="{}_i"))
        ends = ("out_data_o", "out_eor_o", "out_last_o")
        await collect(dut, lambda item: words.append(item) or item[1], stall, data=ends)
        await task
        if kind is NormKind.TOKENS:
            code, payload = Record.TOKENS, op.tokens()
        else:
            code, payload = Record.CHECKPOINT, op.x[: op.count].copy().view("<u8").ravel().tolist()
        header = code | image << 4 | tag << 8 | op.count << 16 | 8 * len(payload) << 32
        assert [item[0] for item in words] == [header, *payload]
        assert [item[1] for item in words] == [0] * len(payload) + [1]
        assert [item[2] for item in words] == [0] * len(payload) + [last]
        assert not dut.busy_o.value and uint(dut.bands_o) == 0 and not any(self.written)


def sizes() -> list[int]:
    """Channel counts: all, one lane tile, a partial group, a multiple of all groups."""
    lanes, groups, most = (parameter(name) for name in ("LANES", "GROUPS", "MAX_DIM"))
    dims = {most, lanes, min(most, lanes * groups), min(most, lanes * (groups + 1))}
    return sorted(dims)


@cocotb.test()
async def layernorms(dut):
    """Sizes, live counts, parameters and stalls; operations back to back."""
    await start(dut)
    slots = parameter("NORM_SLOTS")
    for read_stall, write_stall in ((0, 0), (0.5, 0), (0, 0.6), (0.1, 0.9)):
        unit = Unit(dut, read_stall, write_stall)
        dims = sizes() if read_stall == write_stall == 0 else random.sample(sizes(), 2)
        for dim in dims:
            for live in (1, random.choice((2, 3)), random.choice((4, 5)), random.randint(6, 20)):
                await unit.norm(Norm(live, dim, random.randrange(slots)))
        await unit.norm(Norm(5, random.choice(sizes()), one_row=True))
        for kind in NormKind:
            await unit.void(Norm(5, random.choice(sizes())), kind)
        unit.stop()


@cocotb.test()
async def records(dut):
    """Of residuals and of tokens, of all rows and of one, between LayerNorms."""
    await start(dut)
    for stall in (0.0, 0.6, 0.95):
        unit = Unit(dut, stall / 2)
        for kind in (NormKind.DUMP, NormKind.TOKENS):
            for dim in sizes() if not stall else random.sample(sizes(), 1):
                await unit.record(Norm(random.choice((1, 2, 5, 11)), dim), kind, stall)
                await unit.norm(Norm(2, dim))
            await unit.record(Norm(random.choice((3, 9)), dim), kind, stall, last=True)
            await unit.record(Norm(4, dim, one_row=True), kind, stall)
        unit.stop()


@cocotb.test()
async def slots_keep_apart(dut):
    """Every slot holds its own full set."""
    await start(dut)
    unit = Unit(dut)
    ops = [Norm(1, parameter("MAX_DIM"), slot) for slot in range(parameter("NORM_SLOTS"))]
    for op in ops:
        await unit.load(op)
    for op in ops:
        await unit.norm(op, load=False)


@cocotb.test()
async def loads_while_running(dut):
    """A slot is filled while LayerNorms with another one run."""
    await start(dut)
    for stall in (0.0, 0.8):
        unit = Unit(dut, 0.1, 0.1)
        op = Norm(5, parameter("MAX_DIM"))
        await unit.load(op)
        later = Norm(3, parameter("MAX_DIM"), 1)
        task = cocotb.start_soon(unit.load(later, stall))
        while not task.done():
            await unit.norm(op, load=False)
        await unit.norm(later, load=False)
        unit.stop()


@cocotb.test()
async def chained(dut):
    """With a chained dependency no band is read before it may be; progress counts written bands."""
    await start(dut)
    unit = Unit(dut, 0.2, 0.2)
    for kind in NormKind:
        op = Norm(4 * parameter("ROWS"), sizes()[0])
        unit.op = op
        for bank in unit.written:
            bank.clear()
        await unit.load(op)
        dut.live_i.value = op.live
        dut.out_ready_i.value = 1
        dut.done_i.value = dut.bands_i.value = 0
        word = instruction(Op.NORM, deps={Engine.DRAIN: 1}, chain=(Engine.DRAIN,), **op.fields(kind))
        task = cocotb.start_soon(drive(dut, [word], 0, "instr", data="{}_i"))
        done = uint(dut.done_o)
        for band in range(op.bands):
            await cycles(dut, 500)
            assert uint(dut.bands_o) == band and uint(dut.done_o) == done
            if kind is NormKind.LAYERNORM:
                assert len(unit.written[0]) == band * op.dim // 8
            dut.bands_i.value = band + 1 << 16 * Engine.DRAIN
            await cycles(dut, 3)
            dut.live_i.value = 1  # was sampled when the first band could start
        dut.done_i.value = 1 << 16 * Engine.DRAIN
        await task
        assert uint(dut.done_o) == done + 1
        if kind is NormKind.LAYERNORM:
            assert unit.written == op.words()


@cocotb.test()
async def speed(dut):
    """Bands follow each other at two cycles per address and little more."""
    await start(dut)
    unit = Unit(dut)
    times = []
    for bands in (4, 12):
        op = Norm(bands * parameter("ROWS"), parameter("MAX_DIM"))
        await unit.load(op)
        task = cocotb.start_soon(unit.norm(op, load=False))
        await wait_for(dut, lambda: bool(dut.busy_o.value))
        times.append(await wait_for(dut, lambda: not dut.busy_o.value))
        await task
    per_band = (times[1] - times[0]) / 8
    assert per_band <= max(2 * op.addresses + 10, 37 * parameter("ROWS") + 100)
    assert times[0] <= 4 * per_band + 180
    task = cocotb.start_soon(unit.record(op, NormKind.TOKENS, 0.0))
    await wait_for(dut, lambda: bool(dut.busy_o.value))
    wide = await wait_for(dut, lambda: not dut.busy_o.value)
    await task
    words = op.rows // op.part * (op.addresses + 1.1 * op.part_words)
    assert wide <= op.bands * max(per_band, words) + 300


@cocotb.test()
async def restart(dut):
    """At any time; then everything works as before."""
    await start(dut)
    for delay in (1, 20, 60, 150, 200, 260, 300):
        for kind in NormKind:
            unit = Unit(dut, 0.1, 0.5)
            unit.op = Norm(5, sizes()[-1])
            dut.live_i.value = 5
            word = instruction(Op.NORM, **unit.op.fields(kind))
            task = cocotb.start_soon(drive(dut, [word], 0, "instr", data="{}_i"))
            await cycles(dut, delay)
            task.cancel()
            unit.stop()
            dut.instr_valid_i.value = 0
            await reset(dut)
            assert not dut.busy_o.value and uint(dut.tw_valid_o) == 0 and not dut.out_valid_o.value
            assert uint(dut.done_o) == 0 and uint(dut.bands_o) == 0
        unit = Unit(dut, 0.1, 0.1)
        await unit.norm(Norm(3, sizes()[0]))
        for kind in (NormKind.DUMP, NormKind.TOKENS):
            await unit.record(Norm(3, sizes()[0]), kind, 0.2)
        unit.stop()


@pytest.mark.parametrize(
    "sim, parameters",
    [
        ("icarus", {"ROWS": 2, "GROUPS": 1, "LANES": 16, "MAX_DIM": 32, "NORM_SLOTS": 2}),
        ("verilator", {"ROWS": 2, "GROUPS": 3, "LANES": 16, "MAX_DIM": 256, "NORM_SLOTS": 3}),
        ("verilator", {"ROWS": 8, "GROUPS": 3, "LANES": 16, "MAX_DIM": 96, "NORM_SLOTS": 2}),
    ],
)
def test_norm_engine(sim, parameters):
    """Booth rows (Icarus) and products (Verilator); one group, and three with a partial tile; two parts."""
    run("rowvit_norm_engine", parameters, sim)
