# SPDX-License-Identifier: Apache-2.0
"""Resources of a configuration by Yosys (synth_xilinx -family xc7 -widemux 5), as a Markdown table.

    python benchmarks/resources.py            # pynq-z2

An estimate by an open tool, not Vivado's report: DSP, block RAM and registers come within a few
percent, LUT less well. The last column is block RAM as Vivado maps it, by its documents
(`memories.py`). Needs Yosys on the PATH; takes some minutes and 2 GB.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from memories import total
from record import Record, record
from synthesis import module_name, read_top

#: LUTs that a distributed RAM or shift register primitive occupies
LUTS = {"RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "SRL16E": 1, "SRLC32E": 1}


def synthesise(config: str) -> dict[str, Counter]:
    """Cells per module and, under "design hierarchy", of the whole."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "stat.txt"
        script = (
            f"{read_top(config)}; synth_xilinx -family xc7 -widemux 5 -top rowvit_top;"
            f" tee -q -o {report} stat"
        )
        subprocess.run(["yosys", "-q", "-l", f"{folder}/log", "-p", script], check=True, capture_output=True)
        sections = re.split(r"\n=== (.*?) ===\n", report.read_text())
    return {
        module_name(name): Counter(
            {cell: int(n) for cell, n in re.findall(r"^\s+([A-Z]\w+)\s+(\d+)$", text, re.M)}
        )
        for name, text in zip(sections[1::2], sections[2::2], strict=True)
    }


def resources(cells: Counter) -> dict[str, float]:
    """LUT (logic and memory), FF, DSP48E1, RAMB36 of one module."""
    return {
        "lut_logic": sum(n for cell, n in cells.items() if re.fullmatch(r"LUT\d", cell)),
        "lut_memory": sum(n * LUTS[cell] for cell, n in cells.items() if cell in LUTS),
        "ff": sum(n for cell, n in cells.items() if cell.startswith("FD")),
        "dsp": cells["DSP48E1"],
        "ramb36": cells["RAMB36E1"] + cells["RAMB18E1"] / 2,
    }


def row(name: str, cells: Counter) -> str:
    """In Markdown."""
    logic, memory, flops, dsp, blocks = resources(cells).values()
    return f"| {name} | {logic:,} | {memory:,} | {flops:,} | {dsp} | {blocks:g} |"


def main(
    config: Annotated[str, typer.Argument(help="Hardware configuration.")] = "pynq-z2", keep: Record = False
) -> None:
    """Print the resources of each module (once, without the modules in it) and of the design."""
    modules = synthesise(config)
    design = modules.pop("design hierarchy")
    print("| module | LUT, logic | LUT, memory | FF | DSP48E1 | RAMB36 | by Vivado's rules |")
    print("|---|---|---|---|---|---|---|")
    for name, cells in sorted(modules.items()):
        print(row(name, cells), "|")
    print(row(f"**{config}**", design), f"{total(config)[0]:g} |")
    if keep:
        record("resources", config, {"config": config, **resources(design)}, "yosys")


if __name__ == "__main__":
    typer.run(main)
