# SPDX-License-Identifier: Apache-2.0
"""send: records stay whole, nothing is lost, TLAST passes, full rate, reset."""

from __future__ import annotations

import random

import cocotb
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

from harness import SIMULATORS, STALLS, collect, cycles, parameter, reset, run, start, uint


async def source(dut, index: int, records: list[tuple[list[int], bool]], stall: float, shared: dict) -> None:
    """Drive source ``index``; the sources share the packed inputs through ``shared``."""

    def put(valid: int, word: int = 0, eor: int = 0, last: int = 0) -> None:
        for name, value, width in (
            ("in_valid_i", valid, 1),
            ("in_data_i", word, 64),
            ("in_eor_i", eor, 1),
            ("in_last_i", last, 1),
        ):
            mask = (1 << width) - 1 << width * index
            shared[name] = shared[name] & ~mask | value << width * index
            getattr(dut, name).value = shared[name]

    for words, last in records:
        for i, word in enumerate(words):
            end = i == len(words) - 1
            while random.random() < stall:
                await FallingEdge(dut.clk_i)
            put(1, word, int(end), int(end and last))
            while True:
                await ReadOnly()
                taken = uint(dut.in_ready_o) >> index & 1
                await FallingEdge(dut.clk_i)
                if taken:
                    break
            put(0)


def new_records(index: int, n: int, longest: int) -> list[tuple[list[int], bool]]:
    """Records whose words carry the source, the record and the position."""
    return [
        ([index << 48 | r << 16 | i for i in range(random.randint(1, longest))], random.random() < 0.5)
        for r in range(n)
    ]


@cocotb.test()
async def records_stay_whole(dut):
    """Whatever stalls: each record comes out in one piece, each source's in order, TLAST at its end."""
    await start(dut)
    n = parameter("N")
    shared = dict.fromkeys(("in_valid_i", "in_data_i", "in_eor_i", "in_last_i"), 0)
    for source_stall, sink_stall in STALLS:
        sent = [new_records(index, 15, 7) for index in range(n)]
        total = sum(len(words) for records in sent for words, _ in records)
        for index in range(n):
            cocotb.start_soon(source(dut, index, sent[index], source_stall, shared))
        got = []
        await collect(
            dut,
            lambda item, got=got, total=total: got.append(item) or len(got) == total,
            sink_stall,
            "m_axis",
            "{}_tvalid",
            "{}_tready",
            ("{}_tdata", "{}_tlast"),
        )
        queues = [list(records) for records in sent]
        while got:
            words, last = queues[got[0][0] >> 48].pop(0)
            flags = [0] * (len(words) - 1) + [int(last)]
            assert got[: len(words)] == list(zip(words, flags, strict=True))
            del got[: len(words)]
        assert not any(queues)


@cocotb.test()
async def full_rate(dut):
    """A word per cycle, also from record to record and from source to source."""
    await start(dut)
    shared = dict.fromkeys(("in_valid_i", "in_data_i", "in_eor_i", "in_last_i"), 0)
    sent = [new_records(index, 10, 3) for index in range(parameter("N"))]
    for index, records in enumerate(sent):
        cocotb.start_soon(source(dut, index, records, 0.0, shared))
    dut.m_axis_tready.value = 1
    await cycles(dut, 2)
    for _ in range(sum(len(words) for records in sent for words, _ in records) - 1):
        await ReadOnly()
        assert dut.m_axis_tvalid.value and dut.sent_o.value and uint(dut.m_axis_tkeep) == 0xFF
        await FallingEdge(dut.clk_i)


@cocotb.test()
async def reset_releases_the_lock(dut):
    """After a reset another source may start in the middle of a record."""
    await start(dut)
    dut.in_valid_i.value = 1
    dut.in_data_i.value = 11 | 22 << 64
    await cycles(dut, 4)
    dut.in_valid_i.value = 0
    await reset(dut)
    await ReadOnly()
    assert not dut.m_axis_tvalid.value
    await cycles(dut)
    dut.in_valid_i.value = dut.in_eor_i.value = 2
    await cycles(dut)
    dut.in_valid_i.value = 0
    await ReadOnly()
    assert dut.m_axis_tvalid.value and uint(dut.m_axis_tdata) == 22


@pytest.mark.parametrize("sim", SIMULATORS)
def test_send(sim):
    run("rowvit_send", {"N": 3}, sim)
