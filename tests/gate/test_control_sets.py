# SPDX-License-Identifier: Apache-2.0
"""Limits on control sets, wide multiplexers and LUT RAM: of what is recorded, and of common modules."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from netlist import FOLDER, need, yosys

from rowvit.sim.verilate import sources

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from control_sets import control_sets
from record import read, version

#: per configuration: LUT RAM, MUXF7, MUXF8
LIMITS = {"pynq-z2": (5_200, 3_100, 1_400), "kv260": (9_300, 12_000, 5_300)}

#: module, parameters, control sets at most, of them with fewer than eight flip-flops
MODULES = [
    ("rowvit_fifo", {"WIDTH": 13, "DEPTH": 8}, 1, 0),
    ("rowvit_skid_buffer", {"WIDTH": 65}, 2, 0),
    ("rowvit_compress", {"LANES": 64}, 6, 1),
    ("rowvit_fetch", {"LANES": 64}, 13, 2),
    ("rowvit_recip", {"QW": 18}, 4, 1),
]


@pytest.mark.parametrize("name", LIMITS)
def test_recorded(name: str) -> None:
    """UG949 asks for less than 7.5% of the part's flip-flops divided by eight; at most 7% are taken."""
    figures = read("resources")[name]["figures"]
    part = read("parts")[name]["figures"]
    memory, seven, eight = LIMITS[name]
    assert figures["control_sets"] <= 0.07 * part["ff"] / 8
    assert figures["lut_memory"] <= memory
    assert figures["muxf7"] <= seven and figures["muxf8"] <= eight


@pytest.mark.parametrize("top, parameters, most, small", MODULES, ids=[top for top, *_ in MODULES])
def test_module(top: str, parameters: dict[str, int], most: int, small: int) -> None:
    need("yosys")
    counted = read("resources")["pynq-z2"]["versions"]["yosys"].split()[1]
    if version("yosys").split()[1] != counted:
        pytest.skip(f"the limits are for Yosys {counted}, and others map otherwise")
    FOLDER.mkdir(parents=True, exist_ok=True)
    flat = FOLDER / f"{top}-control-sets.json"
    sets = " ".join(f"-set {key} {value}" for key, value in parameters.items())
    yosys(
        f"chparam {sets} {top}; synth_xilinx -family xc7 -widemux 5 -flatten -noiopad -noclkbuf -top {top};"
        f" write_json {flat}",
        *sources(),
    )
    found = control_sets(json.loads(flat.read_text())["modules"][top])
    assert len(found) <= most, found
    assert sum(size < 8 for size in found.values()) <= small, found
