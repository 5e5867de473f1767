# SPDX-License-Identifier: Apache-2.0
"""Who leaves in_ready_o open is never refused: each of these assertions speaks where that is broken."""

from __future__ import annotations

import cocotb
import pytest

from harness import RTL, Clock, cycles, parameter, run, start


@cocotb.test()
async def fifo(dut):
    """A word more than there is room for."""
    await start(dut, in_valid_i=1)
    await cycles(dut, parameter("DEPTH") + 2)


@cocotb.test()
async def compress(dut):
    """Nobody takes the words of a segment, and the next one ends."""
    await start(dut, in_valid_i=1, in_keep_i=1)
    await cycles(dut, 2 * parameter("LANES") + 2)


@cocotb.test()
async def axi_reader(dut):
    """A burst of one word is answered with words that never end."""
    await start(dut, req0_bytes_i=8, m_axi_arready=1, m_axi_rvalid=0, m_axi_rlast=0)
    dut.req0_valid_i.value = 1
    await cycles(dut)
    dut.req0_valid_i.value = 0
    await cycles(dut, 8)
    dut.m_axi_rvalid.value = 1
    await cycles(dut, 40)


@cocotb.test()
async def drain_records(dut):
    """Marks come where there is no room for them."""
    await start(dut)
    for _ in range(40):
        dut.mark_i.value = 1
        await cycles(dut)
        dut.mark_i.value = 0
        await cycles(dut)


@cocotb.test()
async def drain_words(dut):
    """Probabilities come without a look at p_closed_o."""
    ones = (1 << parameter("ROWS") * parameter("GROUPS")) - 1
    await start(dut, p_feed_i=(1 << parameter("ROWS")) - 1, p_keep_i=ones)
    await cycles(dut, 20 * parameter("LANES"))


@cocotb.test()
async def norm_tokens(dut):
    """Steps come in spite of full_o, and nobody takes their words."""
    await start(dut, value_i=1, ready_i=0)
    await cycles(dut, 40)


@cocotb.test()
async def fetch(dut):
    """Words come that nobody has asked for."""
    await start(dut, rd_dvalid_i=1)
    await cycles(dut, 20)


@cocotb.test()
async def fetch_bitmaps(dut):
    """A bitmap is entered as long as it waits, and nobody takes a scalar."""
    await start(dut, rd_ready_i=1, rd_dvalid_i=0, rd_data_i=1, cmd_sparse_i=1, cmd_count_i=10)
    dut.cmd_valid_i.value = 1
    asked = False
    for _ in range(100):
        dut.rd_dvalid_i.value = int(asked)
        asked = bool(dut.rd_valid_o.value)
        await cycles(dut)


@cocotb.test()
async def drain_front(dut):
    """Empty tiles come one per cycle, and their events leave many cycles later."""
    await start(dut, tile_i=(1 << len(dut.tile_i)) - 1, instr_i=0, room_i=1, mark_room_i=1, marking_i=0)
    dut.tile_valid_i.value = 1
    await cycles(dut, 40)


@cocotb.test()
async def rotary_places(dut):
    """A place is loaded while another moves."""
    dut.load_i.value = dut.move_i.value = 1
    cocotb.start_soon(Clock(dut.clk_i, 10, "ns").start())
    await cycles(dut, 3)


#: test, where the assertion is, parameters, and the fault of the module that breaks it, where no input does
CASES = [
    ("fifo", "rowvit_fifo.", {"DEPTH": 4, "NEVER_REFUSED": 1}, None),
    ("compress", "rowvit_compress.", {"LANES": 16, "NEVER_REFUSED": 1}, None),
    ("axi_reader", "g_client[0].u_fifo.", {}, None),
    ("drain_records", "rowvit_drain_records.u_fifo.", {"GROUPS": 1}, None),
    ("drain_words", "u_compress.", {"ROWS": 2, "GROUPS": 6, "LANES": 16}, None),
    ("norm_tokens", "rowvit_norm_tokens.u_fifo.", {}, None),
    ("fetch", "rowvit_fetch.u_words.", {"LANES": 16}, None),
    ("fetch_bitmaps", "rowvit_fetch.u_bitmaps.", {"LANES": 16}, ("R_COUNT && |bytes", "R_WORDS && |bytes")),
    ("rotary_places", "rowvit_rotary_places.", {"DEPTH": 16}, None),
    ("drain_front", "rowvit_drain_front.u_events.", {}, ("ev_count < TILE_QUEUE[3:0] - 4'd1", "1'b1")),
]


@pytest.mark.parametrize(
    "sim, case",
    [*(("icarus", case) for case in CASES), ("verilator", CASES[0])],
    ids=lambda part: part if isinstance(part, str) else part[0],
)
def test_a_refusal_is_reported(sim, case, tmp_path, capfd):
    name, where, parameters, fault = case
    module = f"rowvit_{name.removesuffix('_bitmaps')}"
    source = None
    if fault:
        (source,) = RTL.glob(f"*/{module}.v")
        text = source.read_text()
        assert text.count(fault[0]) == 1
        source = tmp_path / source.name
        source.write_text(text.replace(*fault))
    with pytest.raises((RuntimeError, SystemExit)):
        run(module, parameters, sim, name, source=source)
    said = capfd.readouterr()
    assert f"{where}g_assert.never_refused" in said.out + said.err
