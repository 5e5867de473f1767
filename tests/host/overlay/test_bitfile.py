# SPDX-License-Identifier: Apache-2.0
"""What the files of an overlay say, judged without a board: ``rowvit verify-overlay``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overlays import built
from typer.testing import CliRunner

from replay import TINY
from rowvit.cli import app
from rowvit.errors import RowvitError
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import boards
from rowvit.overlay.bitfile import BitHeader, Handoff
from rowvit.overlay.verify import verify
from rowvit.sim import hwh

HEADER = BitHeader("rowvit_wrapper", "2022.2", "7z020clg400", "2026/11/25", "12:00:00", 64)
SYSTEM = 'ARCH="zynq" '
words = st.text(
    st.characters(codec="ascii", exclude_characters="\0;", categories=["L", "N", "P"]), max_size=40
)


@pytest.fixture
def files(tmp_path) -> Path:
    """A sound pair for a Pynq-Z2; the .bit."""
    bit = tmp_path / "rowvit.bit"
    bit.write_bytes(HEADER.encode(bytes(64)))
    text = hwh.handoff(replace(TINY, board="Pynq-Z2"))
    bit.with_suffix(".hwh").write_text(text.replace(SYSTEM, f'{SYSTEM}DEVICE="7z020" PACKAGE="clg400" '))
    return bit


def edit(bit: Path, old: str, new: str, count: int = -1) -> None:
    path = bit.with_suffix(".hwh")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, count))


def found(bit: Path) -> dict[str, tuple[bool | None, str]]:
    return {check.name: (check.ok, check.text) for check in verify(bit)}


# -- the .bit ---------------------------------------------------------------------------------------


@given(design=words.filter(bool), tool=words, part=words, date=words, data=st.binary(max_size=300))
def test_headers(tmp_path_factory, design, tool, part, date, data):
    header = BitHeader(design, tool, part, date, "12:00", len(data))
    path = tmp_path_factory.mktemp("bit") / "a.bit"
    path.write_bytes(header.encode(data))
    assert BitHeader.read(path) == header


@settings(max_examples=40)
@given(length=st.integers(0, len(HEADER.encode(bytes(64))) - 1))
def test_a_bit_that_is_cut_short(tmp_path_factory, length):
    """Wherever it is cut, it is refused with a sentence."""
    path = tmp_path_factory.mktemp("bit") / "a.bit"
    path.write_bytes(HEADER.encode(bytes(64))[:length])
    with pytest.raises(RowvitError, match=r"a\.bit.*copy the file again"):
        BitHeader.read(path)


def test_a_bit_as_vivado_writes_it(tmp_path):
    """Fields as they stand in a real header, byte by byte."""
    raw = (
        b"\x00\x09\x0f\xf0\x0f\xf0\x0f\xf0\x0f\xf0\x00\x00\x01"
        b"a\x00\x2crowvit_wrapper;UserID=0XFFFFFFFF;Version=20\x00"
        b"b\x00\x0c7z020clg400\x00c\x00\x0b2026/11/25\x00d\x00\x0912:00:00\x00e\x00\x00\x00\x04ABCD"
    )
    (tmp_path / "a.bit").write_bytes(raw)
    header = BitHeader.read(tmp_path / "a.bit")
    assert header == BitHeader("rowvit_wrapper", "20", "7z020clg400", "2026/11/25", "12:00:00", 4)


# -- the .hwh ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", configs.names())
@pytest.mark.parametrize("board", boards())
def test_every_configuration_on_every_board(tmp_path, name, board):
    config = replace(configs.load(name), board=board)
    path = tmp_path / "a.hwh"
    path.write_text(hwh.handoff(config))
    handoff = Handoff(path)
    assert handoff.config.hash == config.hash and name in handoff.config_names()
    assert handoff.zynq_7000 == (boards()[board].family.name == "zynq-7000")
    assert handoff.core.clock_mhz == config.clock_mhz
    assert handoff.core.clock_source == f"ps_0/{boards()[board].family.clock}"


@pytest.mark.parametrize(
    "text, number",
    [
        *(("0x3E22A840", 0x3E22A840), ("26", 26), ("32'h0000_001A", 26), ("4'b1010", 10), ("100.0", 100)),
        *(
            ("-1", -1),
            ("", 5),
            ("1.2.3", 5),
            ("8'd1A", 5),
            ("8'b19", 5),
            ("8'h_", 5),
            ("1e999", 5),
            ("nan", 5),
        ),
    ],
)
def test_numbers_as_vivado_writes_them(files, text, number):
    edit(files, '"c_sg_length_width" VALUE="26"', f'"c_sg_length_width" VALUE="{text}"')
    assert Handoff(files.with_suffix(".hwh")).dma.number("C_SG_LENGTH_WIDTH", 5) == number


# -- verify-overlay ---------------------------------------------------------------------------------


def test_a_sound_overlay(files):
    assert found(files) == {
        "bitstream": (True, "rowvit_wrapper for 7z020clg400, 2026/11/25 12:00:00, Vivado 2022.2, 64 bytes"),
        "handoff": (True, "rowvit.hwh, Zynq-7000, Vivado 2022.2"),
        "same build": (True, "both for 7z020clg400"),
        "core": (True, "rowvit_0, 2 x 1 x 16, configuration tiny (hash 61098B35), host front end"),
        "clock": (True, "100 MHz"),
        "DMA": (True, "axi_dma_0, both channels, transfers of up to 67,108,863 bytes"),
        "addresses": (True, "rowvit_0 0x43C00000 (4 KB), axi_dma_0 0x40400000 (64 KB)"),
        "memory ports": (
            True,
            "rowvit_0/m_axi to S_AXI_HP1, axi_dma_0/M_AXI_MM2S to S_AXI_HP0,"
            " axi_dma_0/M_AXI_S2MM to S_AXI_HP0",
        ),
        "provenance": (None, "there is no rowvit.json next to it: where it comes from is unknown"),
    }


@pytest.mark.parametrize(
    "old, new, name, ok, text",
    [
        ('DEVICE="7z020"', 'DEVICE="7z010"', "same build", False, "the .bit is for 7z020clg400, the .hwh"),
        ('VERSION="2022.2"', 'VERSION="2023.1"', "same build", False, "from Vivado 2022.2, the .hwh from 20"),
        ('VERSION="2022.2"', 'VERSION="2022.2.1"', "same build", True, "both for 7z020clg400"),
        (
            'NAME="rowvit"',
            'NAME="VIT_9_0"',
            "same build",
            False,
            "rowvit_wrapper, the .hwh of VIT_9_0",
        ),
        (
            'CLKFREQUENCY="100000000"',
            'CLKFREQUENCY="80000000"',
            "clock",
            None,
            "80 MHz, where 'tiny' has 100",
        ),
        ('CLKFREQUENCY="100000000"', 'CLKFREQUENCY="99999001.0"', "clock", True, "99.999 MHz"),
        ('length_width" VALUE="26"', 'length_width" VALUE="-1"', "DMA", False, "has -1 bits: a transfer"),
        ('length_width" VALUE="26"', 'length_width" VALUE="14.5.1"', "DMA", False, "at most 16,383 bytes"),
        ('CLKFREQUENCY="100000000"', 'CLKFREQUENCY="fast"', "handoff", False, "damaged (could not convert"),
        ('HIGHVALUE="0x43C00FFF"', 'HIGHVALUE=""', "handoff", False, "rowvit.hwh is damaged (invalid lit"),
        ('CLKFREQUENCY="100000000"', "", "clock", None, "the .hwh does not say the core's clock"),
        ('mm2s" VALUE="1"', 'mm2s" VALUE="0"', "DMA", False, "axi_dma_0: it lacks a channel"),
        ('e_sg" VALUE="0"', 'e_sg" VALUE="1"', "DMA", False, "it is in scatter-gather mode"),
        (
            '_mm2s_tdata_width" VALUE="64"',
            '_mm2s_tdata_width" VALUE="32"',
            "DMA",
            False,
            "its mm2s stream is 3",
        ),
        ('length_width" VALUE="26"', 'length_width" VALUE="14"', "DMA", False, "at most 16,383 bytes"),
        (
            'HIGHVALUE="0x43C00FFF"',
            'HIGHVALUE="0x43C000FF"',
            "addresses",
            False,
            "has 256 bytes of addresses",
        ),
        ('BASEVALUE="0x43C00000"', 'BASEVALUE="0x40400000"', "addresses", False, "ranges overlap"),
        ('"S_AXI_HP1"', '"S_AXI_ACP"', "memory ports", None, "S_AXI_ACP is not an HP port"),
    ],
)
def test_what_is_wrong(files, old, new, name, ok, text):
    edit(files, old, new)
    assert found(files)[name][0] is ok
    assert text in found(files)[name][1]


def test_where_it_comes_from(files):
    """Its build's word on configuration and front end, and that the files are that build's."""
    built(files)
    text = "Pynq-Z2, 0123456789ab, Vivado 2022.2, 2026-01-01T00:00:00+00:00; files are unchanged"
    assert found(files)["provenance"] == (True, text)
    for changes, text in (
        (dict(dirty=True), "Pynq-Z2, 0123456789ab, with changes, Vivado 2022.2"),
        (dict(frontend="hls"), "rowvit.json is of a build with the hls front end, the .hwh has host"),
    ):
        built(files, **changes)
        ok, said = found(files)["provenance"]
        assert ok == ("dirty" in changes) and said.startswith(text)
    built(files)
    files.write_bytes(HEADER.encode(bytes(63) + b"1"))
    ok, said = found(files)["provenance"]
    assert not ok and "rowvit.bit is not the file of" in said


def test_a_master_without_memory(files):
    edit(files, 'MASTERBUSINTERFACE="M_AXI_MM2S"', 'MASTERBUSINTERFACE="M_AXI_S2MM"')
    assert found(files)["memory ports"][0] is False


def test_an_overlay_of_two_cores(files):
    edit(files, "xilinx.com:ip:axi_intc:4.1", "xilinx.com:module_ref:rowvit_top:1.0")
    assert found(files)["core"] == (
        False,
        f"{files.with_suffix('.hwh')}: the design holds 2 blocks of type rowvit core (it holds rowvit_0,"
        " axi_intc_0)",
    )


def test_a_processor_in_a_hierarchy(files):
    """Its clock is the core's all the same."""
    plain = Handoff(files.with_suffix(".hwh"))
    edit(files, f'FULLNAME="/{plain.processor.path}"', f'FULLNAME="/sys/{plain.processor.path}"')
    moved = Handoff(files.with_suffix(".hwh"))
    assert moved.processor.path == f"sys/{plain.processor.path}"
    assert moved.pl_clock == plain.pl_clock is not None


def test_a_configuration_of_no_name(files):
    mine = replace(TINY, weight_depth=1024, board="Pynq-Z2")
    files.with_suffix(".hwh").write_text(hwh.handoff(mine))
    assert found(files)["core"] == (
        True,
        f"rowvit_0, 2 x 1 x 16, configuration none of the named ones (hash {mine.hash:08X}), host front end",
    )


def test_the_command(files):
    run = CliRunner().invoke(app, ["verify-overlay", str(files)])
    assert run.exit_code == 0, run.output
    assert "failed" not in run.stdout
    edit(files, 'length_width" VALUE="26"', 'length_width" VALUE="14"')
    run = CliRunner().invoke(app, ["verify-overlay", str(files)])
    assert run.exit_code == 1
    assert run.stdout.splitlines()[-1] == "DMA: set c_sg_length_width to 26"
    run = CliRunner().invoke(app, ["verify-overlay", "none.bit"])
    assert run.exit_code == 1
    assert "none.bit: cannot be read (No such file or directory)" in " ".join(run.stdout.split())
