# SPDX-License-Identifier: Apache-2.0
"""Register-to-register paths of a configuration by Yosys, as a Markdown table.

    python benchmarks/timing.py            # pynq-z2

Cells are those of 7 series by abc9, delays those that Yosys knows of its cells (prjxray, Artix-7);
wires count nothing. So a path will be one and a half to three times as long on the chip: the table
ranks paths, and shows where one became worse. Every module is synthesised by itself; the last row
is the longest path through all of them. Then paths that have no register where the chip needs one
are searched: between two DSPs or between a RAM and a DSP, and DSPs that multiply and add without one.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated

import typer
from synthesis import module_name, read_top

#: LUT RAMs that Yosys has no delays of, as (ports of each read, width of address); those of RAM64X1D
LUT_RAMS = {
    "RAM32M": ([(f"ADDR{x}", f"DO{x}", 2) for x in "ABCD"], 5),
    "RAM64M": ([(f"ADDR{x}", f"DO{x}", 1) for x in "ABCD"], 6),
    "RAM256X1S": ([("A", "O", 1)], 8),
}
INITS = ["INIT", "INIT_A", "INIT_B", "INIT_C", "INIT_D"]
CLOCK_TO_OUTPUT, ADDRESS_TO_OUTPUT = 1153, 642  # ps
COMBINATIONAL = re.compile(r"LUT\d|MUXF\d|CARRY4|INV|BUF")
ROWS = 12  # of the table


def lut_rams() -> str:
    """Black boxes with delays."""
    text = ""
    for name, (reads, width) in LUT_RAMS.items():
        data = ["D"] if name == "RAM256X1S" else [f"DI{x}" for x in "ABCD"]
        ports = [f"output [{bits - 1}:0] {o}, input [{width - 1}:0] {a}" for a, o, bits in reads]
        ports += [f"input [{reads[0][2] - 1}:0] {d}" for d in data] + ["input WCLK", "input WE"]
        text += f"(* blackbox *) module {name}({', '.join(ports)}); "
        text += "".join(f"parameter {p} = 0; " for p in [*INITS, "IS_WCLK_INVERTED"]) + "specify\n"
        for address, output, bits in reads:
            text += f"(posedge WCLK *> ({output} : {bits}'b0)) = {CLOCK_TO_OUTPUT};\n"
            text += f"({address} *> {output}) = {ADDRESS_TO_OUTPUT};\n"
        text += "endspecify endmodule\n"
    return text


def synthesise(config: str, folder: Path) -> tuple[str, dict]:
    """What `sta` printed of each module and of the whole, and the flat netlist."""
    # abc9 leaves its cell models without the delays
    (folder / "lut_rams.v").write_text(lut_rams())
    timing = (
        "read_verilog -lib -specify -overwrite +/xilinx/cells_sim.v;"
        f" read_verilog -lib -specify -overwrite {folder}/lut_rams.v; tee -q -o"
    )
    script = (
        f"{read_top(config)};"
        " synth_xilinx -family xc7 -abc9 -widemux 5 -noiopad -noclkbuf -top rowvit_top; design -save mapped;"
        f" {timing} {folder}/modules.sta sta; design -load mapped; flatten;"
        f" write_json {folder}/whole.json; {timing} {folder}/whole.sta sta"
    )
    subprocess.run(["yosys", "-q", "-p", script], check=True, capture_output=True)
    text = (folder / "modules.sta").read_text() + (folder / "whole.sta").read_text()
    return text, json.loads((folder / "whole.json").read_text())["modules"]["rowvit_top"]


def paths(text: str) -> list[tuple[int, str, str, str, Counter]]:
    """(arrival in ps, module, first cell, last cell, cell types between) of each module's worst path.

    A path that ends at a port of its module has the cell before it as its last one.
    """
    found = []
    text = re.sub(r"^Warning:.*\n", "", text, flags=re.M)
    for name, arrival, body in re.findall(
        r"Latest arrival time in '(.*?)' is (\d+):\n(.*?)(?=\n\n|\Z)", text, re.S
    ):
        cells = re.findall(r"^ +\d+ \S+ \((\w+)\.(\S+)\)", body, re.M)
        nets = re.findall(r"^ {9,}(\S.*)$", body, re.M)
        kinds = Counter(kind for kind, _ in cells[1:-1])
        name = module_name(name)
        nets = [net for net in nets if not net.startswith("$")]
        ends = (cells[-1][0], nets[-1] if nets else "", cells[0][0]) if cells else ("", "", "")
        found.append((int(arrival), name, f"{ends[0]} {ends[1]}".strip("\\ "), ends[2], kinds))
    return sorted(found, key=lambda path: path[0])


def unregistered(module: dict) -> Counter:
    """Paths that lack a register, as (kind, where) and how many endpoints."""
    readers = defaultdict(list)  # net -> combinational cells and DSP ports that it reaches
    starts = []
    bad: Counter = Counter()
    for name, cell in module["cells"].items():
        kind, ports, values = cell["type"], cell["connections"], cell["parameters"]
        if kind == "DSP48E1":
            register = {k: int(values[k], 2) for k in ("AREG", "BREG", "DREG", "ADREG", "MREG", "PREG")}
            if not register["MREG"] and not register["PREG"]:
                bad["DSP without MREG and PREG", place(name)] += 1
            if not register["PREG"]:
                starts += [("DSP without PREG", bit) for bit in ports["P"]]
            for port, reg in (("A", "AREG"), ("B", "BREG"), ("D", "DREG")):
                if port == "D" and set(ports["D"]) <= {"0", "1", "x"}:
                    continue
                for bit in ports[port] if not register[reg] else ():
                    readers[bit].append((place(name), "DSP", ()))
        elif kind.startswith("RAMB"):
            registered = int(values["DOA_REG"], 2) and int(values["DOB_REG"], 2)
            for port in ("DOADO", "DOBDO") if not registered else ():
                starts += [("RAM", bit) for bit in ports.get(port, ())]
        elif COMBINATIONAL.fullmatch(kind):
            outputs = [bit for port in ("O", "CO") for bit in ports.get(port, ())]
            for port, bits in ports.items():
                if port not in ("O", "CO"):
                    for bit in bits:
                        readers[bit].append((name, "", outputs))
    for what in {kind for kind, _ in starts}:
        seen, edge = set(), {bit for kind, bit in starts if kind == what}
        while edge:
            seen |= edge
            after = set()
            for bit in edge:
                for name, kind, outputs in readers[bit]:
                    if kind:
                        bad[f"{what} to a DSP input without register", name] += 1
                    after |= {out for out in outputs if out not in seen}
            edge = after
    return bad


def place(name: str) -> str:
    """The instance path of a cell, with indices left out."""
    name = re.sub(r"\[\d+\]", "[]", name.replace("\\", ""))
    return re.sub(r"\$(techmap|auto|flatten)\S*?(?=u_)|\.?\$.*", "", name)


def main(config: Annotated[str, typer.Argument(help="Hardware configuration.")] = "pynq-z2") -> None:
    """Print the longest paths and those that lack a register."""
    with tempfile.TemporaryDirectory() as folder:
        text, module = synthesise(config, Path(folder))
    *modules, whole = paths(text)
    print("| module | ps | from | to | through |\n|---|---|---|---|---|")
    rows = [path for path in modules if path[1] != "rowvit_top"][-ROWS:]
    for arrival, name, first, last, kinds in [*rows[::-1], whole]:
        through = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
        label = "**all**" if name == "rowvit_top" else name
        print(f"| {label} | {arrival:,} | `{first}` | {last} | {through} |")
    print()
    missing = unregistered(module)
    for (what, where), count in sorted(missing.items()):
        print(f"- {what}: {where} ({count})")
    if not missing:
        print("No path between DSPs, or from RAM to DSP, lacks a register.")


if __name__ == "__main__":
    typer.run(main)
