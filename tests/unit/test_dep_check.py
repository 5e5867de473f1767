# SPDX-License-Identifier: Apache-2.0
"""dep_check against the rule in isa.py, including wrapped counts."""

from __future__ import annotations

import random

import cocotb
from cocotb.triggers import Timer

from harness import run
from rowvit.hardware.isa import MAX_OPERATIONS

ENGINES = 6
#: from NO_DEP, which dispatch puts 0x4000 below a pass's start, to its last operation and 0x100 of the next
NEVER = 0x4000 + MAX_OPERATIONS + 0xFF


def met(done: list[int], bands: list[int], dep: list[int], chain: int, band: int) -> bool:
    """The rule on unbounded counts."""
    return all(
        done[e] >= dep[e] or (chain >> e & 1 and done[e] == dep[e] - 1 and bands[e] > band)
        for e in range(ENGINES)
    )


def pack(values: list[int]) -> int:
    return sum((value & 0xFFFF) << 16 * e for e, value in enumerate(values))


@cocotb.test()
async def follows_the_rule(dut):
    """Random counts near each other, across the 16-bit wrap; one engine at a time decides."""
    seen = {True: 0, False: 0}
    for _ in range(4000):
        done = [random.choice((0, 5, 0x7FFF, 0xFFFF, random.randrange(1 << 20))) for _ in range(ENGINES)]
        dep = [d - random.choice((random.randrange(0x4000), NEVER)) for d in done]
        for e in random.sample(range(ENGINES), random.randint(0, 2)):
            dep[e] = done[e] + random.choice((-1, 0, 1, 1, 2, 0x3000))
        bands = [random.choice((0, 1, 2, 300)) for _ in range(ENGINES)]
        band = random.choice((0, 1, 2, 299))
        chain = random.getrandbits(ENGINES)
        dut.done_i.value, dut.dep_i.value, dut.bands_i.value = pack(done), pack(dep), pack(bands)
        dut.chain_i.value, dut.band_i.value = chain, band
        await Timer(1, "ns")
        expected = met(done, bands, dep, chain, band)
        seen[expected] += 1
        assert bool(dut.ok_o.value) == expected
    assert min(seen.values()) > 500


def test_dep_check():
    run("rowvit_dep_check")
