# SPDX-License-Identifier: Apache-2.0
"""recv: rows land in their banks, progress and dependencies per band, stream length errors, reset."""

from __future__ import annotations

import random

import cocotb
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

from harness import STALLS, cycles, drive, parameter, reset, run, start, uint, wait_for
from rowvit.hardware import isa

NORM = isa.Engine.NORM
FIELDS = isa.FIELDS[isa.Op.RECV]


def instruction(
    index: int = 0, chain: int = 0, deps: dict[int, int] | None = None, void: bool = False, **fields: int
) -> int:
    """A RECV instruction as the dispatcher hands it over."""
    word = isa.Op.RECV | void << 16 + isa.Flag.VOID | chain << 32 | index << 496
    for engine in isa.Engine:
        dep = (deps or {}).get(engine, -0x4000)
        word |= (dep & 0xFFFF) << 16 * (3 + engine)
    for name, value in fields.items():
        word |= value << 16 * FIELDS[name].slot
    return word


async def memory(dut, written: list[tuple[int, int, int]], stall: float) -> None:
    """Accept token memory writes as (bank, address, word)."""
    rows = parameter("ROWS")
    while True:
        ready = sum((random.random() >= stall) << bank for bank in range(rows))
        dut.tw_ready_i.value = ready
        await ReadOnly()
        valid = uint(dut.tw_valid_o)
        assert valid & valid - 1 == 0
        if valid & ready:
            written.append((valid.bit_length() - 1, uint(dut.tw_addr_o), uint(dut.tw_data_o)))
        await FallingEdge(dut.clk_i)


def packet(words: list[int], last: int = -1) -> list[dict[str, int]]:
    end = last % len(words) if words else 0
    return [{"s_axis_tdata": word, "s_axis_tlast": int(i == end)} for i, word in enumerate(words)]


def stream(dut, items: list[dict[str, int]], stall: float = 0.0):
    return cocotb.start_soon(drive(dut, items, stall, "s_axis", "{}_tvalid", "{}_tready"))


@cocotb.test()
async def places_rows(dut):
    """Images of odd sizes, back to back, under all stalls."""
    await start(dut)
    rows_per_band = parameter("ROWS")
    done = 0
    for source_stall, sink_stall in STALLS:
        ops, items, expected = [], [], []
        for _ in range(6):
            prefix = random.choice((0, 1, 2, 3))
            rows = prefix + random.choice((1, 2, 5, 8))
            row_words = random.choice((1, 2, 5))
            base, stride = random.randrange(2000), random.randrange(row_words, 20)
            fields = dict(rows=rows, prefix=prefix, row_words=row_words, dst_base=base, dst_stride=stride)
            if random.random() < 0.5:
                ops.append(instruction(void=True, **fields))
            ops.append(instruction(**fields))
            words = [random.getrandbits(64) for _ in range((rows - prefix) * row_words)]
            items += packet(words)
            words = [0] * prefix * row_words + words
            expected += [
                (r % rows_per_band, base + r // rows_per_band * stride + w, words[r * row_words + w])
                for r in range(rows)
                for w in range(row_words)
            ]
        written: list[tuple[int, int, int]] = []
        sink = cocotb.start_soon(memory(dut, written, sink_stall))
        stream(dut, items, source_stall)
        await drive(dut, ops, 0.0, "instr", data="{}_i")
        assert written == expected
        done += len(ops)
        assert uint(dut.done_o) == done and uint(dut.bands_o) == 0
        sink.cancel()


@cocotb.test()
async def waits_per_band(dut):
    """With chain, band p starts when the NORM operation has finished more than p bands."""
    await start(dut)
    rows_per_band = parameter("ROWS")
    written: list[tuple[int, int, int]] = []
    cocotb.start_soon(memory(dut, written, 0.5))
    bands = 4

    async def bands_are_written() -> None:
        while True:
            await ReadOnly()
            assert 2 * rows_per_band * uint(dut.bands_o) <= len(written)
            await FallingEdge(dut.clk_i)

    cocotb.start_soon(bands_are_written())
    stream(dut, packet([random.getrandbits(64) for _ in range(2 * rows_per_band * bands)]))
    op = instruction(
        chain=1 << NORM, deps={NORM: 8}, rows=rows_per_band * bands, row_words=2, dst_base=0, dst_stride=2
    )
    task = cocotb.start_soon(drive(dut, [op], 0.0, "instr", data="{}_i"))
    dut.done_i.value = 6 << 16 * NORM
    dut.bands_i.value = 3 << 16 * NORM
    await cycles(dut, 30)
    assert written == []
    dut.done_i.value = 7 << 16 * NORM
    for band in range(bands):
        dut.bands_i.value = band << 16 * NORM
        await cycles(dut, 80)
        assert len(written) == 2 * rows_per_band * band and uint(dut.bands_o) == band
    dut.done_i.value = 8 << 16 * NORM
    dut.bands_i.value = 0
    await task
    assert len(written) == 2 * rows_per_band * bands


@cocotb.test()
async def stream_errors_and_reset(dut):
    """Short and long packets stop the engine with their code; after a reset it works again."""
    await start(dut)
    written: list[tuple[int, int, int]] = []
    cocotb.start_soon(memory(dut, written, 0.2))
    shape = {"rows": 5, "prefix": 1, "row_words": 3, "dst_base": 7, "dst_stride": 3}
    for index, (last, code) in enumerate(
        ((4, isa.Error.STREAM_SHORT), (10, isa.Error.STREAM_SHORT), (12, isa.Error.STREAM_LONG))
    ):
        dut.instr_i.value = instruction(index=index + 300, **shape)
        dut.instr_valid_i.value = 1
        sender = stream(dut, packet([1] * 14, last))
        for _ in range(200):
            await ReadOnly()
            if dut.error_valid_o.value:
                break
            await FallingEdge(dut.clk_i)
        assert uint(dut.error_code_o) == code and uint(dut.error_info_o) == index + 300
        await cycles(dut, 20)
        assert uint(dut.done_o) == 0 and not dut.error_valid_o.value
        sender.cancel()
        dut.s_axis_tvalid.value = dut.instr_valid_i.value = 0
        await reset(dut)
        written.clear()
        sender = stream(dut, packet([5] * 12))
        await drive(dut, [instruction(**shape)], 0.0, "instr", data="{}_i")
        assert len(written) == 15 and uint(dut.done_o) == 1
        await reset(dut)
        assert uint(dut.done_o) == 0


@cocotb.test()
async def the_next_packet_waits(dut):
    """No word is taken before the operation that it is for: none behind TLAST, none while idle."""
    await start(dut)
    written: list[tuple[int, int, int]] = []
    cocotb.start_soon(memory(dut, written, 0.3))
    dut.s_axis_tvalid.value = dut.s_axis_tlast.value = 1
    for _ in range(20):
        await ReadOnly()
        assert not dut.s_axis_tready.value and not dut.starved_o.value
        await FallingEdge(dut.clk_i)
    dut.s_axis_tvalid.value = 0
    taken = []

    async def watch() -> None:
        while True:
            await ReadOnly()
            if dut.s_axis_tvalid.value and dut.s_axis_tready.value:
                taken.append(uint(dut.s_axis_tdata))
            await FallingEdge(dut.clk_i)

    cocotb.start_soon(watch())
    sizes = [random.choice((1, 2, 3, 7)) for _ in range(12)]
    items = [item for size in sizes for item in packet([random.getrandbits(64) for _ in range(size)])]
    stream(dut, items, random.choice((0.0, 0.5)))
    expected = 0
    for size in sizes:
        op = instruction(rows=size, row_words=1, dst_base=0, dst_stride=1)
        await drive(dut, [instruction(void=True), op], 0.0, "instr", data="{}_i")
        expected += size
        await cycles(dut, random.choice((0, 5, 20)))
        assert len(taken) == expected


@cocotb.test()
async def says_that_it_waits(dut):
    """starved_o, where a word is missing, and only there."""
    await start(dut)
    written: list[tuple[int, int, int]] = []
    cocotb.start_soon(memory(dut, written, 0.0))
    task = cocotb.start_soon(drive(dut, [instruction(rows=3, row_words=1)], 0.0, "instr", data="{}_i"))
    for word in range(3):
        await cycles(dut, 10)
        assert dut.starved_o.value
        await drive(
            dut,
            [{"s_axis_tdata": word, "s_axis_tlast": int(word == 2)}],
            0.0,
            "s_axis",
            "{}_tvalid",
            "{}_tready",
        )
    await task
    await cycles(dut, 10)
    assert not dut.starved_o.value and len(written) == 3


@cocotb.test()
async def full_rate(dut):
    """A word per cycle but for two cycles between bands."""
    await start(dut)
    written: list[tuple[int, int, int]] = []
    cocotb.start_soon(memory(dut, written, 0.0))
    rows, row_words = 4 * parameter("ROWS"), 24
    stream(dut, packet([1] * (rows * row_words)))
    cocotb.start_soon(
        drive(dut, [instruction(rows=rows, row_words=row_words, dst_stride=24)], 0.0, "instr", data="{}_i")
    )
    assert await wait_for(dut, lambda: uint(dut.done_o) == 1) <= rows * row_words + 4 * 2 + 6


@pytest.mark.parametrize("rows", [2, 4])
def test_recv(rows):
    run("rowvit_recv", {"ROWS": rows})
