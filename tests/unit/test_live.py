# SPDX-License-Identifier: Apache-2.0
"""live: a count per image, and the last one written."""

from __future__ import annotations

import random

import cocotb
import pytest

from harness import cycles, parameter, run, start, uint


@cocotb.test()
async def counts(dut):
    """Random writes of both kinds against a list; all readers look at any image."""
    await start(dut)
    readers, most = parameter("N"), parameter("MAX_TOKENS")
    counted = {image: 0 for image in range(16)}
    assert uint(dut.last_o) == 0
    for image in counted:
        counted[image] = random.randint(0, most)
        dut.set_image_i.value, dut.set_rows_i.value, dut.set_valid_i.value = image, counted[image], 1
        await cycles(dut)
    dut.set_valid_i.value = 0
    for _ in range(parameter("WRITES")):
        which = random.choice(("set", "kept", None))
        image, rows = random.getrandbits(4), random.randint(0, most)
        for kind in ("set", "kept"):
            getattr(dut, f"{kind}_valid_i").value = int(kind == which)
            getattr(dut, f"{kind}_image_i").value = image if kind == which else random.getrandbits(4)
            getattr(dut, f"{kind}_rows_i").value = rows if kind == which else random.randint(0, most)
        asked = [random.choice((image, random.getrandbits(4))) for _ in range(readers)]
        dut.image_i.value = sum(i << 4 * n for n, i in enumerate(asked))
        await cycles(dut)
        if which:
            counted[image] = rows
            assert uint(dut.last_o) == rows
        found = uint(dut.live_o)
        assert [found >> 16 * n & 0xFFFF for n in range(readers)] == [counted[i] for i in asked]


@pytest.mark.parametrize(
    "sim, parameters", [("icarus", {"N": 4, "MAX_TOKENS": 320}), ("verilator", {"N": 1, "MAX_TOKENS": 24})]
)
def test_live(sim, parameters):
    run("rowvit_live", parameters, sim, env={"WRITES": 300})
