# SPDX-License-Identifier: Apache-2.0
"""axi_reader: data and order per client, AXI rules, independence of the clients, rate, clear, errors."""

from __future__ import annotations

import random
from collections import deque

import cocotb
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

from harness import SIMULATORS, collect, cycles, drive, parameter, pulse, run, start, uint, wait_for

BASE = 0x12_3456_7000
SIZE = 1 << 16


def size() -> int:
    """Bytes of a word."""
    return parameter("WIDTH", 64) // 8


def word_at(address: int) -> int:
    """Memory content: a mixture of the address bits."""
    parts = range(address, address + size(), 8)
    halves = [(part * 0x9E3779B97F4A7C15 ^ part >> 7) & (1 << 64) - 1 for part in parts]
    return sum(half << 64 * i for i, half in enumerate(halves))


class Memory:
    """AXI4 memory that checks every burst: alignment, length, 4 KB, number in flight, stable AR."""

    def __init__(self, dut, latency: int = 12, ar_stall: float = 0.0, r_stall: float = 0.0):
        self.dut, self.latency, self.ar_stall, self.r_stall = dut, latency, ar_stall, r_stall
        self.bad: set[int] = set()
        self.bursts: deque[tuple[int, int, int]] = deque()
        self.beats = 0

    async def run(self) -> None:
        dut, time, beat, waiting, offered = self.dut, 0, 0, None, False
        while True:
            ready = random.random() >= self.ar_stall
            dut.m_axi_arready.value = int(ready)
            head = self.bursts[0] if self.bursts else None
            offered = offered or bool(head and head[0] <= time and random.random() >= self.r_stall)
            dut.m_axi_rvalid.value = int(offered)
            if offered:
                address = head[1] + size() * beat
                dut.m_axi_rdata.value = word_at(address)
                dut.m_axi_rresp.value = 2 if address in self.bad else 0
                dut.m_axi_rlast.value = int(beat == head[2] - 1)
            await ReadOnly()
            burst = None
            if dut.m_axi_arvalid.value:
                burst = uint(dut.m_axi_araddr), uint(dut.m_axi_arlen) + 1
                assert waiting in (None, burst), "AR changed while it waited"
                assert (1 << uint(dut.m_axi_arsize), uint(dut.m_axi_arburst)) == (size(), 1)
            else:
                assert waiting is None, "AR withdrawn"
            waiting = None if ready else burst
            if ready and burst:
                address, length = burst
                assert address % size() == 0 and length <= 16
                assert address % 4096 + size() * length <= 4096, "a burst crosses 4 KB"
                assert address >= BASE and address + size() * length <= BASE + SIZE
                self.bursts.append((time + self.latency, address, length))
                assert len(self.bursts) <= 8
            if offered:
                assert dut.m_axi_rready.value, "R waits"
                self.beats += 1
                offered = False
                beat += 1
                if beat == head[2]:
                    self.bursts.popleft()
                    beat = 0
            await FallingEdge(dut.clk_i)
            time += 1


def new_requests(n: int, longest: int) -> list[tuple[int, int]]:
    """Requests as (address, words), some of one word, some across several 4 KB pages."""
    requests = []
    for _ in range(n):
        words = random.choice((1, 2, 8, 24, random.randint(1, longest)))
        requests.append((BASE + size() * random.randrange(SIZE // size() - words), words))
    return requests


async def client(dut, index: int, requests: list[tuple[int, int]], source: float, sink: float) -> None:
    """Make the requests and check their words."""
    items = [
        {f"req{index}_addr_i": address, f"req{index}_bytes_i": size() * words} for address, words in requests
    ]
    cocotb.start_soon(drive(dut, items, source, f"req{index}"))
    expected = deque(word_at(address + size() * i) for address, words in requests for i in range(words))

    def check(word: int) -> bool:
        assert word == expected.popleft()
        return not expected

    await collect(dut, check, sink, f"rsp{index}")


@cocotb.test()
async def data_and_order(dut):
    """Two clients with random requests, under stalls of the clients and of the memory."""
    await start(dut)
    memory = Memory(dut)
    cocotb.start_soon(memory.run())
    stalls = (0, 0, 0, 0), (0.8, 0.1, 0, 0.2), (0, 0.6, 0.5, 0), (0.3, 0.3, 0.8, 0.5)
    for source, sink, ar_stall, r_stall in stalls:
        memory.ar_stall, memory.r_stall = ar_stall, r_stall
        tasks = [
            cocotb.start_soon(client(dut, c, new_requests(15, longest), source, sink))
            for c, longest in enumerate((8, 700))
        ]
        for task in tasks:
            await task
    await wait_for(dut, lambda: not dut.busy_o.value, 100)


@cocotb.test()
async def clients_do_not_block_each_other(dut):
    """A client that takes nothing leaves the other at work."""
    await start(dut)
    cocotb.start_soon(Memory(dut).run())
    for blocked in (0, 1):
        items = [{f"req{blocked}_addr_i": BASE, f"req{blocked}_bytes_i": 4000}]
        cocotb.start_soon(drive(dut, items, 0, f"req{blocked}"))
        await client(dut, 1 - blocked, new_requests(20, 200), 0.1, 0.1)
        await pulse(dut, "clear_i")


@cocotb.test()
async def full_rate(dut):
    """Rows of 24 words from anywhere, 40 cycles of latency: at least 97 % of the cycles carry a word."""
    await start(dut)
    memory = Memory(dut, latency=40)
    cocotb.start_soon(memory.run())
    requests = [(address, 24) for address, _ in new_requests(100, 24)]
    last = BASE + SIZE - 24 * size()
    requests = [(min(address & ~(8 * size() - 1), last), words) for address, words in requests]
    cocotb.start_soon(client(dut, 1, requests, 0, 0))
    n = await wait_for(dut, lambda: memory.beats == 2400)
    assert n < 2400 / 0.97 + 50


async def count_beats(dut, found: list[int]) -> None:
    """Words that the reader says have arrived."""
    while True:
        await ReadOnly()
        found[0] += int(dut.beat_o.value)
        await FallingEdge(dut.clk_i)


@cocotb.test()
async def clear_swallows_what_is_in_flight(dut):
    """Clear at any time; the next request gets its own words only."""
    await start(dut)
    memory = Memory(dut, latency=30, ar_stall=0.3, r_stall=0.3)
    cocotb.start_soon(memory.run())
    for _ in range(30):
        drivers = []
        for c in (0, 1):
            address, count = BASE + size() * random.randrange(64), size() * random.randint(1, 60)
            items = [{f"req{c}_addr_i": address, f"req{c}_bytes_i": count}] * 2
            drivers.append(cocotb.start_soon(drive(dut, items, 0, f"req{c}")))
        dut.rsp0_ready_i.value, dut.rsp1_ready_i.value = random.getrandbits(1), random.getrandbits(1)
        await cycles(dut, random.choice((0, 1, 2, random.randrange(90))))
        for driver in drivers:
            driver.cancel()
        dut.req0_valid_i.value = dut.req1_valid_i.value = 0
        dut.rsp0_ready_i.value = dut.rsp1_ready_i.value = 0
        dut.clear_i.value = 1
        await cycles(dut)
        dut.clear_i.value = 0
        requests = [new_requests(2, 30) for _ in (0, 1)]
        beats = [0]
        counter = cocotb.start_soon(count_beats(dut, beats))
        tasks = [cocotb.start_soon(client(dut, c, requests[c], 0, 0)) for c in (0, 1)]
        for task in tasks:
            await task
        counter.cancel()
        assert beats[0] == sum(words for each in requests for _, words in each)


@cocotb.test()
async def reports_errors(dut):
    """One pulse per word with SLVERR."""
    await start(dut)
    memory = Memory(dut)
    memory.bad = {BASE + size() * i for i in (3, 17, 18)}
    cocotb.start_soon(memory.run())
    pulses = 0

    async def count() -> None:
        nonlocal pulses
        while True:
            await ReadOnly()
            pulses += int(dut.error_o.value)
            await FallingEdge(dut.clk_i)

    counter = cocotb.start_soon(count())
    await client(dut, 1, [(BASE, 30)], 0, 0)
    assert pulses == 3
    counter.cancel()


@pytest.mark.parametrize(("sim", "width"), [*((sim, 64) for sim in SIMULATORS), ("icarus", 128)])
def test_axi_reader(sim, width):
    run("rowvit_axi_reader", {"WIDTH": width}, sim)


def test_axi_reader_small():
    """The smallest FIFOs and two bursts in flight: nothing but the rate suffers."""
    run(
        "rowvit_axi_reader",
        {"OUTSTANDING": 2, "DEPTH0": 16, "DEPTH1": 16},
        testcase=["data_and_order", "clients_do_not_block_each_other", "clear_swallows_what_is_in_flight"],
    )
