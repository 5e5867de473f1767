# SPDX-License-Identifier: Apache-2.0
"""Resources of a configuration by Yosys (synth_xilinx -family xc7 -widemux 5), as a Markdown table.

    python benchmarks/resources.py            # pynq-z2

An estimate by an open tool, not Vivado's report: DSP, block RAM and registers come within a few
percent, LUT less well. Control sets are counted in the whole design, flattened (`control_sets.py`). The last
column is block RAM as Vivado maps it, by its documents (`memories.py`). Needs Yosys on the PATH; takes some
minutes and 2 GB.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from control_sets import control_sets
from memories import total
from record import Record, record
from synthesis import module_name, read_top

#: LUTs that a distributed RAM or shift register primitive occupies
LUTS = {"RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "SRL16E": 1, "SRLC32E": 1}


#: flip-flops of a slice
SLICE = 8


def synthesise(config: str) -> tuple[dict[str, Counter], list[int]]:
    """Cells per module and, under "design hierarchy", of the whole; flip-flops of each control set."""
    with tempfile.TemporaryDirectory() as folder:
        report, flat = Path(folder) / "stat.txt", Path(folder) / "flat.json"
        script = (
            f"{read_top(config)}; synth_xilinx -family xc7 -widemux 5 -top rowvit_top;"
            f" tee -q -o {report} stat; flatten; write_json {flat}"
        )
        subprocess.run(["yosys", "-q", "-l", f"{folder}/log", "-p", script], check=True, capture_output=True)
        sections = re.split(r"\n=== (.*?) ===\n", report.read_text())
        sets = control_sets(json.loads(flat.read_text())["modules"]["rowvit_top"])
    modules = {
        module_name(name): Counter(
            {cell: int(n) for cell, n in re.findall(r"^\s+([A-Z]\w+)\s+(\d+)$", text, re.M)}
        )
        for name, text in zip(sections[1::2], sections[2::2], strict=True)
    }
    return modules, [*sets.values()]


def resources(cells: Counter) -> dict[str, float]:
    """LUT (logic and memory), FF, DSP48E1, RAMB36, wide multiplexers of one module."""
    return {
        "lut_logic": sum(n for cell, n in cells.items() if re.fullmatch(r"LUT\d", cell)),
        "lut_memory": sum(n * LUTS[cell] for cell, n in cells.items() if cell in LUTS),
        "ff": sum(n for cell, n in cells.items() if cell.startswith("FD")),
        "dsp": cells["DSP48E1"],
        "ramb36": cells["RAMB36E1"] + cells["RAMB18E1"] / 2,
        "muxf7": cells["MUXF7"],
        "muxf8": cells["MUXF8"],
    }


def row(name: str, cells: Counter) -> str:
    """In Markdown."""
    logic, memory, flops, dsp, blocks, seven, eight = resources(cells).values()
    return f"| {name} | {logic:,} | {memory:,} | {flops:,} | {dsp} | {blocks:g} | {seven:,} | {eight:,} |"


def main(
    config: Annotated[str, typer.Argument(help="Hardware configuration.")] = "pynq-z2", keep: Record = False
) -> None:
    """Print the resources of each module (once, without the modules in it) and of the design."""
    modules, sets = synthesise(config)
    design = modules.pop("design hierarchy")
    small = sum(size < SLICE for size in sets)
    print(
        "| module | LUT, logic | LUT, memory | FF | DSP48E1 | RAMB36 | MUXF7 | MUXF8"
        f" | control sets | with fewer than {SLICE} FF | RAMB36 by Vivado's rules |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, cells in sorted(modules.items()):
        print(row(name, cells), "| | |")
    print(row(f"**{config}**", design), f"{len(sets):,} | {small:,} | {total(config)[0]:g} |")
    if keep:
        figures = {"config": config, **resources(design), "control_sets": len(sets), "small_sets": small}
        record("resources", config, figures, "yosys")


if __name__ == "__main__":
    typer.run(main)
