# SPDX-License-Identifier: Apache-2.0
"""token_memory: write priority, read rotation, and what is read, with random traffic on all ports."""

import random

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

import harness

ROWS, GROUPS, WRITERS, DEPTH = 2, 3, 4, 32
READERS = ROWS * GROUPS


@cocotb.test()
async def traffic(dut):
    rng = random.Random(23)
    await harness.start(dut)
    banks = [[0] * DEPTH for _ in range(ROWS)]

    async def write(valid, addresses, words):
        dut.w_valid_i.value = valid
        dut.w_addr_i.value = sum(a << 16 * i for i, a in enumerate(addresses))
        dut.w_data_i.value = sum(w << 64 * i for i, w in enumerate(words))

    ports = WRITERS * ROWS
    for address in range(DEPTH):  # fill both banks through client 0
        words = [rng.getrandbits(64) for _ in range(ROWS)] + [0] * (ports - ROWS)
        await write((1 << ROWS) - 1, [address] * ports, words)
        for bank in range(ROWS):
            banks[bank][address] = words[bank]
        await FallingEdge(dut.clk_i)
    granted_writes = []  # of the last cycle; a read sees those of the cycle before
    waiting = [0] * READERS
    expected = [None] * READERS
    for _ in range(3000):
        valid = sum((rng.random() < 0.4) << i for i in range(ports))
        addresses = [rng.randrange(DEPTH) for _ in range(ports)]
        words = [rng.getrandbits(64) for _ in range(ports)]
        await write(valid, addresses, words)
        wants = [rng.random() < 0.7 or waiting[f] for f in range(READERS)]
        # the readers of other groups than the first have the bank of their row
        bank_of = [f // GROUPS if f % GROUPS else rng.randrange(ROWS) for f in range(READERS)]
        address_of = [rng.randrange(DEPTH) for _ in range(READERS)]
        dut.r_valid_i.value = sum(bool(w) << f for f, w in enumerate(wants))
        dut.r_bank_i.value = sum(b << f for f, b in enumerate(bank_of))
        dut.r_addr_i.value = sum(a << 16 * f for f, a in enumerate(address_of))
        await ReadOnly()
        for f in range(READERS):
            assert bool(int(dut.r_dvalid_o.value) >> f & 1) == (expected[f] is not None)
            if expected[f] is not None:
                assert int(dut.r_data_o.value) >> 64 * f & (1 << 64) - 1 == expected[f]
        granted = int(dut.r_ready_o.value)
        expected = [None] * READERS
        for bank in range(ROWS):
            asking = [f for f in range(READERS) if wants[f] and bank_of[f] == bank]
            served = [f for f in asking if granted >> f & 1]
            assert len(served) == min(1, len(asking))
            for f in served:
                expected[f] = banks[bank][address_of[f]]
        for f in range(READERS):
            waiting[f] = waiting[f] + 1 if wants[f] and not granted >> f & 1 else 0
            assert waiting[f] < 2 * READERS  # the rotation starves nobody for long
        for bank, address, word in granted_writes:
            banks[bank][address] = word
        granted_writes = []
        ready = int(dut.w_ready_o.value)
        for bank in range(ROWS):
            first = next((w for w in range(WRITERS) if valid >> (w * ROWS + bank) & 1), None)
            for w in range(WRITERS):
                if valid >> (w * ROWS + bank) & 1:
                    assert bool(ready >> (w * ROWS + bank) & 1) == (w == first)
            if first is not None:
                i = first * ROWS + bank
                granted_writes.append((bank, addresses[i], words[i]))
        await FallingEdge(dut.clk_i)


def test_token_memory():
    parameters = {"ROWS": ROWS, "DEPTH": DEPTH, "N_READ": READERS, "N_WRITE": WRITERS}
    harness.run("rowvit_token_memory", parameters, testcase="traffic")
