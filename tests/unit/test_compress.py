# SPDX-License-Identifier: Apache-2.0
"""compress against its Python twin: any density, stalls, full rate, clear."""

from __future__ import annotations

import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

from harness import SIMULATORS, STALLS, cycles, drive, parameter, run, start, uint
from rowvit.reference.layers import compress, decompress
from vector import defined


def segment(density: float) -> np.ndarray:
    """A segment of uint8 with about that part of nonzero values."""
    lanes = parameter("LANES")
    values = np.random.default_rng(random.getrandbits(32)).integers(1, 256, lanes).astype(np.uint8)
    values[np.random.default_rng(random.getrandbits(32)).random(lanes) >= density] = 0
    return values


def some_segments() -> list[np.ndarray]:
    return [segment(density) for density in (0, 0.1, 1, 0.5, 1, 1, 0, 0.03, 0.9, 0.2, 0.97, 1)]


async def sink(dut, words: dict[int, int], stall: float, patience: int | None = None) -> None:
    """Take words; with ``patience``, each after exactly that many cycles of waiting."""
    waited = 0
    while True:
        go = waited >= patience if patience is not None else random.random() >= stall
        dut.out_ready_i.value = int(go)
        await ReadOnly()
        if dut.out_valid_o.value:
            waited += 1
            if go:
                address = uint(dut.out_addr_o)
                assert address not in words
                words[address] = defined(dut.out_data_o)
                waited = 0
        await FallingEdge(dut.clk_i)


async def bitmaps(dut, seen: list[int]) -> None:
    while True:
        await ReadOnly()
        if dut.seg_valid_o.value:
            seen.append(uint(dut.seg_bitmap_o))
        await FallingEdge(dut.clk_i)


def check(segments: list[np.ndarray], bases: list[int], words: dict[int, int], seen: list[int]) -> None:
    """The words are the twin's, no more and no fewer; so are the bitmaps."""
    lanes = parameter("LANES")
    expected = {}
    for values, base in zip(segments, bases, strict=True):
        twin = compress(values)
        used = 1 + -(-int(np.count_nonzero(values)) // 8)
        expected |= {base + i: int(twin[i]) for i in range(used)}
        raw = np.array([words.get(base + i, 0) for i in range(1 + lanes // 8)], np.uint64)
        assert np.array_equal(decompress(raw, lanes), values)
    assert words.keys() == expected.keys()
    assert seen == [int(compress(values)[0]) for values in segments]


async def feed(dut, segments: list[np.ndarray], bases: list[int], stall: float) -> None:
    items = [
        {
            "in_data_i": int(value),
            "in_keep_i": int(value != 0),
            "in_base_i": base if lane == 0 else random.getrandbits(16),
        }
        for values, base in zip(segments, bases, strict=True)
        for lane, value in enumerate(values)
    ]
    await drive(dut, items, stall)


async def idle(dut) -> None:
    for _ in range(1000):
        await ReadOnly()
        done = bool(dut.idle_o.value)
        await FallingEdge(dut.clk_i)
        if done:
            return
    raise AssertionError("idle_o never came")


@cocotb.test()
async def segments(dut):
    """All densities, back to back, under all stalls."""
    await start(dut)
    for source_stall, sink_stall in STALLS:
        data = some_segments()
        bases = [20 * i + 7 for i in range(len(data))]
        words: dict[int, int] = {}
        seen: list[int] = []
        tasks = [cocotb.start_soon(sink(dut, words, sink_stall)), cocotb.start_soon(bitmaps(dut, seen))]
        await feed(dut, data, bases, source_stall)
        await idle(dut)
        for task in tasks:
            task.cancel()
        check(data, bases, words, seen)


@cocotb.test()
async def full_rate(dut):
    """A sink that takes every word within two cycles never holds the source up."""
    await start(dut)
    for patience in (0, 1, 2):
        data = some_segments()
        bases = [20 * i for i in range(len(data))]
        words: dict[int, int] = {}
        seen: list[int] = []
        tasks = [cocotb.start_soon(sink(dut, words, 0, patience)), cocotb.start_soon(bitmaps(dut, seen))]
        for values, base in zip(data, bases, strict=True):
            for value in values:
                dut.in_valid_i.value, dut.in_data_i.value, dut.in_base_i.value = 1, int(value), base
                dut.in_keep_i.value = int(value != 0)
                await ReadOnly()
                assert dut.in_ready_o.value
                await FallingEdge(dut.clk_i)
        dut.in_valid_i.value = 0
        await idle(dut)
        for task in tasks:
            task.cancel()
        check(data, bases, words, seen)


@cocotb.test()
async def reset_in_the_middle(dut):
    """After a reset nothing of the old segment is left."""
    await start(dut)
    await feed(dut, [segment(1)], [0], 0)
    source = cocotb.start_soon(feed(dut, [segment(1)], [50], 0))
    await cycles(dut, 5)
    source.cancel()
    dut.in_valid_i.value = 0
    dut.rst_ni.value = 0
    await cycles(dut)
    dut.rst_ni.value = 1
    await ReadOnly()
    assert dut.idle_o.value
    await FallingEdge(dut.clk_i)
    data, words, seen = [segment(0.5)], {}, []
    tasks = [cocotb.start_soon(sink(dut, words, 0)), cocotb.start_soon(bitmaps(dut, seen))]
    await feed(dut, data, [100], 0)
    await idle(dut)
    for task in tasks:
        task.cancel()
    check(data, [100], words, seen)


@cocotb.test()
async def reset_at_the_end_of_a_segment(dut):
    """A segment whose last value comes with the reset has no bitmap."""
    await start(dut)
    seen: list[int] = []
    cocotb.start_soon(bitmaps(dut, seen))
    dut.in_valid_i.value, dut.in_keep_i.value = 1, 1
    await cycles(dut, parameter("LANES") - 1)
    dut.rst_ni.value = 0
    await cycles(dut)
    dut.rst_ni.value, dut.in_valid_i.value = 1, 0
    await cycles(dut, 3)
    assert seen == []
    assert dut.idle_o.value


@pytest.mark.parametrize("sim, lanes", [("icarus", 8), ("icarus", 16), ("icarus", 64), (SIMULATORS[1], 16)])
def test_compress(sim, lanes):
    """The lane counts of the configurations, and the smallest."""
    run("rowvit_compress", {"LANES": lanes}, sim)
