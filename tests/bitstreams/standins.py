# SPDX-License-Identifier: Apache-2.0
"""``bitstreams/build.py``, the stand-ins that it is run with, and what they record."""

from __future__ import annotations

import importlib.util
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VIVADO, VITIS_HLS = str(HERE / "vivado"), str(HERE / "vitis_hls")
BOARD_FILES = {
    "Pynq-Z1": "www.digilentinc.com:pynq-z1:part0:1.0",
    "Pynq-Z2": "tul.com.tw:pynq-z2:part0:1.0",
    "Arty-Z7-20": "digilentinc.com:arty-z7-20:part0:1.0",
    "Zybo-Z7-20": "digilentinc.com:zybo-z7-20:part0:1.2",
    "Eclypse-Z7": "digilentinc.com:eclypse-z7:part0:1.1",
    "ZCU104": "xilinx.com:zcu104:part0:1.1",
    "ZCU106": "xilinx.com:zcu106:part0:2.6",
    "ZCU102": "xilinx.com:zcu102:part0:3.4",
    "KV260": "xilinx.com:kv260_som:part0:1.4",
    "KR260": "xilinx.com:kr260_som:part0:1.1",
    "Genesys-ZU-5EV": "digilentinc.com:gzu_5ev:part0:1.0",
    "Ultra96V2": "avnet.com:ultra96v2:part0:1.2",
    "AUP-ZU3": "realdigital.org:aup-zu3-8gb:part0:1.0",
    "Genesys-ZU-3EG": "digilentinc.com:gzu_3eg:part0:1.1",
    "ZUBoard_1CG": "avnet.com:ZUBoard_1CG:part0:1.0",
    "RFSoC4x2": "realdigital.org:rfsoc4x2:part0:1.0",
}

needs_tcl = pytest.mark.skipif(shutil.which("tclsh") is None, reason="needs tclsh: apt-get install tcl")

spec = importlib.util.spec_from_file_location("bitstream_build", ROOT / "bitstreams/build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


class Record:
    """What the stand-in was told to build."""

    def __init__(self, path: Path) -> None:
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        of = defaultdict(list)
        for kind, *rest in lines:
            of[kind].append(rest)
        self.part, self.board_part = of["part"][0][0], of["board_part"][0][0]
        self.cells = {name: vlnv for name, vlnv in of["cell"]}
        self.parameters = {(cell, name): value for cell, name, value in of["parameter"]}
        self.interfaces = dict(of["interface"])
        self.wires = {frozenset(pair) for pair in of["wire"]}
        self.nets = {tuple(pair) for pair in of["net"]}
        self.addresses = {path: (int(base), int(size)) for path, base, size in of["address"]}
        self.files = {Path(file): fileset for fileset, file in of["file"]}
