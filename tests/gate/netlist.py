# SPDX-License-Identifier: Apache-2.0
"""Netlists of Xilinx 7 series primitives by Yosys, and Yosys' simulation models of the primitives."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from xilinx import cells

from rowvit.errors import replacing
from rowvit.sim.verilate import sources

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))
from record import version  # noqa: E402

RTL = ROOT / "rtl"
FOLDER = ROOT / "build" / "gate"
#: what a block RAM holds at first, on which nobody relies
INITIAL = re.compile(r"^    \.INITP?_[0-9A-F]{2}\(.*\n", re.MULTILINE)


def need(*tools: str) -> None:
    """Skip the test if a tool is not on the PATH; tools are named as Debian's packages."""
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        pytest.skip(f"not on PATH: {' '.join(missing)} (sudo apt-get install -y {' '.join(missing)})")


def yosys(script: str, *inputs: Path) -> None:
    """Run a script; its messages are in the exception if it fails."""
    script = f"read_verilog -I{RTL} {' '.join(map(str, inputs))}; {script}"
    done = subprocess.run(["yosys", "-q", "-p", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def synthesise(top: str, parameters: dict[str, int | str], name: str | None = None) -> Path:
    """The netlist of ``top``, whose module is called ``name``; made once for the same RTL and Yosys."""
    inputs = sources(RTL)
    sets = " ".join(f"-set {key} {value}" for key, value in sorted(parameters.items()))
    script = (f"chparam {sets} {top}; " if sets else "") + (
        f"synth_xilinx -family xc7 -flatten -noiopad -noclkbuf -top {top}; rename {top} {name or top};"
        " write_verilog -noattr -simple-lhs"
    )
    sha = hashlib.sha256(f"{version('yosys')}\n{script}\n{INITIAL.pattern}".encode())
    for path in [*inputs, *RTL.glob("*.vh")]:
        sha.update(path.read_bytes())
    netlist = FOLDER / f"{name or top}-{sha.hexdigest()[:16]}.v"
    if not netlist.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with replacing(netlist) as part:  # other workers may make or read it
            yosys(f"{script} {part}", *inputs)
            part.write_text(INITIAL.sub("", part.read_text()))
    return netlist


def primitives() -> list[Path]:
    """Simulation models of the Xilinx primitives: Yosys', and ours of block RAM."""
    models = FOLDER / "cells_sim.v"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with replacing(models) as part:
        part.write_text(re.sub(r"\nmodule RAMB\d+E1 .*?\nendmodule", "", cells().read_text(), flags=re.S))
    return [models, Path(__file__).with_name("block_ram.v")]
