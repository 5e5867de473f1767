# SPDX-License-Identifier: Apache-2.0
"""fifo and skid_buffer: order, capacity, full rate, clear, under all stall patterns."""

from __future__ import annotations

import random

import cocotb
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

from harness import SIMULATORS, STALLS, collect, cycles, drive, parameter, pulse, run, start, uint


def words(n: int) -> list[int]:
    return [random.getrandbits(parameter("WIDTH")) for _ in range(n)]


@cocotb.test()
async def keeps_order(dut):
    """What comes out is what went in, whoever stalls."""
    await start(dut)
    for source, sink in STALLS:
        sent, got = words(200), []
        cocotb.start_soon(drive(dut, sent, source))
        await collect(dut, lambda item: got.append(item) or len(got) == len(sent), sink)  # noqa: B023
        assert got == sent


@cocotb.test()
async def full_rate(dut):
    """Without stalls one word passes per cycle."""
    await start(dut)
    sent, got = words(100), []
    cocotb.start_soon(drive(dut, sent))
    await collect(dut, lambda item: got.append(item) or True)
    for _ in range(99):
        dut.out_ready_i.value = 1
        await ReadOnly()
        assert dut.out_valid_o.value
        got.append(uint(dut.out_data_o))
        await FallingEdge(dut.clk_i)
    assert got == sent


@cocotb.test()
async def capacity_and_clear(dut):
    """Holds exactly its depth; clear empties it."""
    await start(dut)
    depth = parameter("DEPTH", 2)
    for _ in range(3):
        task = cocotb.start_soon(drive(dut, words(depth)))
        await task
        await ReadOnly()
        assert not dut.in_ready_o.value and dut.out_valid_o.value
        if parameter("DEPTH"):
            assert uint(dut.count_o) == depth
        await pulse(dut, "clear_i")
        await ReadOnly()
        assert dut.in_ready_o.value and not dut.out_valid_o.value
        await cycles(dut)


@pytest.mark.parametrize(
    "toplevel, parameters, sim",
    [
        ("rowvit_fifo", {"WIDTH": 9, "DEPTH": 2}, "icarus"),
        *(("rowvit_fifo", {"WIDTH": 512, "DEPTH": 16}, sim) for sim in SIMULATORS),
        *(("rowvit_skid_buffer", {"WIDTH": 33}, sim) for sim in SIMULATORS),
    ],
)
def test_fifo(toplevel, parameters, sim):
    run(toplevel, parameters, sim)
