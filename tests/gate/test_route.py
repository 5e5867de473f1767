# SPDX-License-Identifier: Apache-2.0
"""Place and route of a small array on a Lattice ECP5 by nextpnr, the one open router with multiplier and
RAM timing: the design is routable, in a family that it was not written for. It says nothing of a Zynq.
"""

from __future__ import annotations

import json
import subprocess
from statistics import median

import pytest
from netlist import FOLDER, need, sources, yosys

from rowvit.hardware.config import load

SEEDS = 1, 2, 3
TARGET = 80  # MHz that placer and router aim at
#: the placer with more weight on slow paths than by default, and the router by timing: wires are most of the
#: longest paths (68 MHz by default, 82 so, of one netlist with seed 1)
EFFORT = ["--placer-heap-timingweight", "20", "--placer-heap-critexp", "4", "--tmg-ripup"]
#: LFE5U-85F, slowest speed grade; `tiny` takes 40 % of it (a 45F routes too slowly)
PART = ["--85k", "--package", "CABGA381", "--speed", "6"]


@pytest.mark.slow
def test_tiny_on_ecp5():
    """Routes with three seeds, and leaves clock and utilisation of each in build/gate/ecp5-SEED.json."""
    need("yosys", "nextpnr-ecp5")
    FOLDER.mkdir(parents=True, exist_ok=True)
    netlist = FOLDER / "ecp5.netlist.json"
    sets = " ".join(f"-set {name.upper()} {value}" for name, value in load("tiny").structure().items())
    yosys(f"chparam {sets} rowvit_top; synth_ecp5 -top rowvit_top -json {netlist}", *sources())
    achieved = []
    for seed in SEEDS:
        report = FOLDER / f"ecp5-{seed}.json"
        command = ["nextpnr-ecp5", *PART, "--json", str(netlist), "--report", str(report)]
        # the ports stay inside the chip: there are more than pins
        command += ["--seed", str(seed), "--out-of-context", "--router", "router2"]
        command += ["--freq", str(TARGET), "--timing-allow-fail", *EFFORT]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        found = json.loads(report.read_text())
        ((clock, frequency),) = found["fmax"].items()
        achieved.append(frequency["achieved"])
        print(f"seed {seed}: {clock} {achieved[-1]:.1f} MHz")
    used = {kind: use["used"] for kind, use in found["utilization"].items() if use["used"]}
    print(f"median {median(achieved):.1f} MHz;", ", ".join(f"{n} {kind}" for kind, n in used.items()))
    assert median(achieved) >= 75
    assert used["MULT18X18D"] >= load("tiny").macs_per_cycle // 2
