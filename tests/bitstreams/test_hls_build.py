# SPDX-License-Identifier: Apache-2.0
"""The HLS preprocessor in the bitstream build, run with a stand-in for Vitis HLS (see ``vitis_hls``)."""

from __future__ import annotations

import re
import shutil

import pytest

from rowvit.errors import RowvitError
from rowvit.formats import provenance
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import CORE, DMA, FRONTEND, boards
from standins import ROOT, VITIS_HLS, build, needs_tcl


@needs_tcl
@pytest.mark.parametrize("run", [False, True], ids=["vitis_hls", "vitis-run"])
@pytest.mark.parametrize("name", ["Pynq-Z2", "KV260"])
def test_hls_front_end(make, monkeypatch, tmp_path, name, run):
    """The IP is made for the board's part and clock, and stands between DMA and core."""
    monkeypatch.setenv("STANDIN_HLS_RECORD", str(tmp_path / "hls"))
    program = tmp_path / ("vitis-run" if run else "vitis_hls")
    program.write_text(f'#!/bin/sh\nexec {VITIS_HLS} "$@"\n')
    program.chmod(0o755)
    made, record = make(name, frontend="hls", vitis_hls=str(program))
    config = configs.load(boards()[name].configuration)
    part, period, loops = (tmp_path / "hls").read_text().split()
    assert part == boards()[name].part
    assert float(period) == pytest.approx(1e3 / config.clock_mhz, abs=1e-3)
    source = (ROOT / "hls/frontend.cpp").read_text()
    assert int(loops) == source.count("#pragma HLS PIPELINE") == source.count("II=1") > 5
    assert record.cells[FRONTEND] == "rowvit:hls:rowvit_frontend:1.0"
    assert {f"{DMA}/M_AXIS_MM2S", f"{FRONTEND}/s_axis"} in record.wires
    assert {f"{FRONTEND}/m_axis", f"{CORE}/s_axis"} in record.wires
    assert (f"{DMA}/mm2s_prmry_reset_out_n", f"{FRONTEND}/ap_rst_n") in record.nets
    assert made.frontend == "hls"
    assert made.config_hash == f"{config.hash:08X}"
    assert (tmp_path / f"out/rowvit-{config.name}-hls.bit").is_file()
    assert provenance.verify(tmp_path / "out") == [made]


@needs_tcl
def test_slow_loops_warn(make, monkeypatch, capsys):
    monkeypatch.setenv("STANDIN_INTERVAL", "2")
    make("Pynq-Z2", frontend="hls")
    assert "begins every 2 cycles, not every cycle" in capsys.readouterr().err


@needs_tcl
@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("frontend.cpp", "front_end.cpp", "front_end.cpp"),
        ("set_top rowvit_frontend", "set_top frontend", "no function frontend"),
        ("-flow_target vivado", "-flow_target vitis", "flow_target"),
        ("    csynth_design\n", "", "synthesise first"),
        ("-library hls", "-library ip", "finds no IP rowvit:hls:rowvit_frontend"),
        ("-format ip_catalog", "-format xo", "format xo"),
        ("open_solution -reset solution", "open_solution -reset other", "Vitis HLS left no "),
    ],
)
def test_wrong_hls_script_is_refused(make, monkeypatch, tmp_path, right, wrong, message):
    copy = shutil.copytree(ROOT / "hls", tmp_path / "hls")
    text = (copy / "build.tcl").read_text()
    assert right in text
    (copy / "build.tcl").write_text(text.replace(right, wrong))
    monkeypatch.setattr(build, "HLS", copy)
    with pytest.raises(RowvitError, match=re.escape(message)):
        make("Pynq-Z2", frontend="hls")
    assert not (tmp_path / "out").exists()


def test_missing_vitis_hls(make):
    with pytest.raises(RowvitError, match=r"no-hls not found; install Vitis HLS 2022\.1 .*VITIS_HLS=/path"):
        make("Pynq-Z2", vivado="sh", frontend="hls", vitis_hls="no-hls")
    with pytest.raises(RowvitError, match="vitis_hls or vitis-run not found"):
        make("Pynq-Z2", vivado="sh", frontend="hls", vitis_hls="")
