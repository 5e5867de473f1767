# SPDX-License-Identifier: Apache-2.0
"""residual_memory against arrays: who writes and reads in a cycle, and what is read two cycles later."""

import random

import cocotb
import pytest
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly

import harness
from harness import parameter, uint


@cocotb.test()
async def traffic(dut):
    rng = random.Random(5)
    banks, depth = parameter("BANKS"), parameter("DEPTH")
    memory = [[0] * depth for _ in range(banks)]
    dut.clk_i.value = 0
    cocotb.start_soon(Clock(dut.clk_i, 10, "ns").start())
    for name in ("drain_we_i", "load_we_i", "drain_rd_i", "norm_rd_i"):
        getattr(dut, name).value = 0
    await harness.cycles(dut, 2)

    def drive(port, address):
        words = [rng.getrandbits(16) for _ in range(banks)]
        getattr(dut, f"{port}_waddr_i").value = address
        getattr(dut, f"{port}_wdata_i").value = sum(w << 16 * b for b, w in enumerate(words))
        return words

    due = [None, None]  # what is read in one cycle, and in two
    reads = 0
    for cycle in range(depth + 3000):
        busy = rng.random() < 0.5
        loads = cycle < depth or rng.random() < 0.5
        if cycle < depth:  # fill it
            busy = False
        enabled = rng.getrandbits(banks)
        drain_at, load_at = rng.randrange(depth), cycle if cycle < depth else rng.randrange(depth)
        drained, loaded = drive("drain", drain_at), drive("load", load_at)
        dut.drain_busy_i.value = int(busy)
        dut.drain_we_i.value = enabled
        dut.load_we_i.value = int(loads)
        read_from = {"drain": rng.randrange(depth), "norm": rng.randrange(depth)}
        wanted = {port: cycle >= depth and rng.random() < 0.5 for port in read_from}
        for port, address in read_from.items():
            getattr(dut, f"{port}_rd_i").value = int(wanted[port])
            getattr(dut, f"{port}_raddr_i").value = address
        await ReadOnly()
        assert bool(dut.load_ready_o.value) == (not busy)
        assert bool(dut.norm_rd_ready_o.value) == (not wanted["drain"])
        if due[0] is not None:
            reads += 1
            assert uint(dut.rdata_o) == due[0]
        port = "drain" if wanted["drain"] else "norm"
        at = read_from[port]
        # a word that is written in the same cycle is not read: the clients never do that
        writes = enabled if busy else int(loads)
        clash = writes and at == (drain_at if busy else load_at)
        old = sum(memory[b][at] << 16 * b for b in range(banks))
        due = [due[1], old if wanted[port] and not clash else None]
        for b in range(banks):
            if busy and enabled >> b & 1:
                memory[b][drain_at] = drained[b]
            elif not busy and loads:
                memory[b][load_at] = loaded[b]
        await FallingEdge(dut.clk_i)
    assert reads > 1000


@pytest.mark.parametrize(("banks", "depth"), [(3, 16), (2, 48), (4, 3072)])
def test_residual_memory(banks, depth):
    harness.run("rowvit_residual_memory", {"BANKS": banks, "DEPTH": depth}, testcase="traffic")
