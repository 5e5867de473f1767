# SPDX-License-Identifier: Apache-2.0
"""Register-to-register paths and fan-out of a configuration by Yosys, as Markdown tables.

    python benchmarks/timing.py               # pynq-z2; paths over 3,600 ps, nets with over 400 loads

Cells are those of 7 series by abc9, delays and setup times those that Yosys knows of its cells (prjxray,
Artix-7); wires count nothing. On the chip a path takes one and a half to three times as long: the table ranks
paths, and shows where one got worse. A configuration has the fastest clock of its board's PLL in whose period
the longest path fits twice, for UltraScale+ scaled by `FAMILIES`. The design is flat; paths with the same
ends but for indices are one row. Then come paths that have no register where the chip needs one: between two
DSPs or between a RAM and a DSP, and DSPs that multiply and add without one.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from record import Record, record
from synthesis import read_top

from rowvit.hardware.block_design import board
from rowvit.hardware.clocks import at_most
from rowvit.hardware.config import HardwareConfig, load

#: LUT RAMs that Yosys has no delays of, as (ports of each read, width of address); those of RAM64X1D
LUT_RAMS = {
    "RAM32M": ([(f"ADDR{x}", f"DO{x}", 2) for x in "ABCD"], 5),
    "RAM64M": ([(f"ADDR{x}", f"DO{x}", 1) for x in "ABCD"], 6),
    "RAM256X1S": ([("A", "O", 1)], 8),
}
#: delays by those of Artix-7; with caution: AMD's soft processors run at 265 MHz in Zynq-7000 and 661 in Zynq
#: UltraScale+ (MicroBlaze, UG984), at 224 and 506 (MicroBlaze V, UG1629), which says 0.40 and 0.44
FAMILIES = {"zynq-7000": 1.0, "zynq-ultrascale": 0.65}
INITS = ["INIT", "INIT_A", "INIT_B", "INIT_C", "INIT_D"]
CLOCK_TO_OUTPUT, ADDRESS_TO_OUTPUT = 1153, 642  # ps
REGISTERED_RAM = 882  # ps, clock to output of a RAMB with its output register (DS181, Trcko_DO_REG, -1: 0.88)
COMBINATIONAL = re.compile(r"LUT\d|MUXF\d|CARRY4|INV|BUF")
OUTPUTS = {"Q", "O", "P", "DOADO", "DOBDO"}

Pin = tuple[str, int]


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


def synthesise(config: str, folder: Path) -> tuple[dict, dict]:
    """The flat netlist of ``rowvit_top``, and the cell models with their delays, as Yosys' JSON."""
    (folder / "lut_rams.v").write_text(lut_rams())
    scripts = (
        f"{read_top(config)}; synth_xilinx -family xc7 -abc9 -widemux 5 -noiopad -noclkbuf -top rowvit_top;"
        f" flatten; write_json {folder}/flat.json",
        # abc9 leaves its cell models without the delays
        "read_verilog -lib -specify +/xilinx/cells_sim.v;"
        f" read_verilog -lib -specify -overwrite {folder}/lut_rams.v; proc; write_json {folder}/cells.json",
    )
    for script in scripts:
        subprocess.run(["yosys", "-q", "-p", script], check=True, capture_output=True)
    flat = json.loads((folder / "flat.json").read_text())["modules"]["rowvit_top"]
    return flat, json.loads((folder / "cells.json").read_text())["modules"]


@dataclass
class Timing:
    """Delays of a kind of cell in ps: through it, from clock to output, and setup before the clock."""

    through: dict[Pin, dict[Pin, int]] = field(default_factory=lambda: defaultdict(dict))
    launch: dict[Pin, int] = field(default_factory=dict)
    setup: dict[Pin, int] = field(default_factory=dict)

    @classmethod
    def of(cls, model: dict) -> Timing:
        """From a cell model whose ``specify`` block Yosys has read."""
        pins: dict[Any, Pin] = {
            bit: (port, i) for port, info in model["ports"].items() for i, bit in enumerate(info["bits"])
        }
        timing = cls()
        for cell in model["cells"].values():
            values, wires = cell["parameters"], cell["connections"]
            sources = [pins[bit] for bit in wires.get("SRC", ()) if bit in pins]
            ends = [pins[bit] for bit in wires.get("DST", ()) if bit in pins]
            if cell["type"] == "$specify2":
                parallel = values["FULL"] == "0" and len(sources) == len(ends)
                pairs = (
                    zip(sources, ends, strict=True) if parallel else ((s, e) for s in sources for e in ends)
                )
                for source, end in pairs:
                    through = timing.through[source]
                    through[end] = max(number(values["T_RISE_MAX"]), through.get(end, 0))
            elif cell["type"] == "$specify3":
                for end in ends:
                    timing.launch[end] = max(number(values["T_RISE_MAX"]), timing.launch.get(end, 0))
            elif cell["type"] == "$specrule":
                for source in sources:
                    limit = number(values["T_LIMIT_MAX"])
                    timing.setup[source] = max(limit, timing.setup.get(source, 0))
        return timing


def number(bits: str) -> int:
    """Yosys' text of a number; 0 if it is undefined."""
    return int(bits, 2) if set(bits) <= set("01") else 0


class Netlist:
    """The flat netlist with the arrival time of every net."""

    def __init__(self, module: dict, models: dict) -> None:
        self.cells = {name: cell for name, cell in module["cells"].items() if cell["type"] in models}
        self.timing = {kind: Timing.of(models[kind]) for kind in {c["type"] for c in self.cells.values()}}
        self.names: dict[int, str] = {}
        for name, net in module["netnames"].items():
            if not net.get("hide_name"):
                for bit in net["bits"]:
                    self.names.setdefault(bit, name)
        self.arrival: dict[int, int] = {}
        self.before: dict[int, tuple[int | None, str]] = {}  # net -> net before it, cell between
        self._propagate()

    def pins(self, cell: dict, table: dict[Pin, Any]) -> Iterator[tuple[int, Any]]:
        """(net, value) of every pin in a table that is connected to a net."""
        for (port, i), value in table.items():
            bits = cell["connections"].get(port, ())
            if i < len(bits) and isinstance(bits[i], int):
                yield bits[i], value

    def _propagate(self) -> None:
        loads: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
        waiting: Counter[int] = Counter()
        for name, cell in self.cells.items():
            timing = self.timing[cell["type"]]
            registered = number(cell["parameters"].get("DOA_REG", "0")) > 0
            for net, delay in self.pins(cell, timing.launch):
                self.arrival[net] = min(delay, REGISTERED_RAM) if registered else delay
                self.before[net] = (None, name)
            for net, ends in self.pins(cell, timing.through):
                for end, delay in self.pins(cell, ends):
                    loads[net].append((end, delay, name))
                    waiting[end] += 1
        ready = deque(net for net in {*loads, *self.arrival} if not waiting[net])
        while ready:
            net = ready.popleft()
            start = self.arrival.setdefault(net, 0)
            for end, delay, name in loads[net]:
                if start + delay > self.arrival.get(end, -1):
                    self.arrival[end], self.before[end] = start + delay, (net, name)
                waiting[end] -= 1
                if not waiting[end]:
                    ready.append(end)

    def ends(self) -> Iterator[tuple[int, int, str, str]]:
        """(time in ps with setup, net, cell, port) of every path's end."""
        for name, cell in self.cells.items():
            for pin, setup in self.timing[cell["type"]].setup.items():
                for net, _ in self.pins(cell, {pin: None}):
                    yield self.arrival.get(net, 0) + setup, net, name, pin[0]

    def start(self, net: int) -> tuple[str, Counter[str]]:
        """Where the longest path to a net starts, and the kinds of cells on the way."""
        kinds: Counter[str] = Counter()
        while net in self.before:
            before, cell = self.before[net]
            if before is None:
                return self.names.get(net, place(cell)), kinds
            kinds[self.cells[cell]["type"]] += 1
            net = before
        return self.names.get(net, "a port"), kinds

    def end(self, name: str) -> str:
        """What a cell is called: the net that it drives, or its place."""
        wires = self.cells[name]["connections"]
        outputs = [bit for port in OUTPUTS for bit in wires.get(port, ()) if isinstance(bit, int)]
        if self.cells[name]["type"].startswith("FD") and outputs and outputs[0] in self.names:
            return self.names[outputs[0]]
        return place(name)

    def describe(self, net: int) -> str:
        """The net's name or, without one, the names of what makes it."""
        if net in self.names:
            return f"`{plain(self.names[net])}`"
        _, driver = self.before[net]
        cell = self.cells[driver]
        inputs = {
            plain(self.names[bit])
            for port, bits in cell["connections"].items()
            if cell["port_directions"][port] == "input"
            for bit in bits
            if bit in self.names
        }
        return f"{cell['type']} of {', '.join(f'`{name}`' for name in sorted(inputs)) or 'unnamed nets'}"

    def fan_out(self) -> Counter[int]:
        """Pins that each net drives, clocks left out."""
        found: Counter[int] = Counter()
        for cell in self.cells.values():
            directions = cell["port_directions"]
            for port, bits in cell["connections"].items():
                if directions[port] == "input" and port not in ("C", "CLK", "WCLK", "CLKARDCLK", "CLKBWRCLK"):
                    found.update(bit for bit in bits if isinstance(bit, int))
        return found


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
    return re.sub(r"\$(techmap|auto|flatten)\S*?(?=u_)|\.?\$.*", "", plain(name))


def plain(name: str) -> str:
    """A name without indices, backslashes and the core's instance."""
    return re.sub(r"\[\d+\]", "[]", name.replace("\\", "")).replace("u_core.", "")


def fastest(config: HardwareConfig, longest: float) -> float:
    """The fastest clock, in MHz, of a configuration's board in whose period its longest path fits twice."""
    target = board(config.board)
    return at_most(target.pll_mhz, 1e6 / (2 * longest * FAMILIES[target.family.name]), rounding=0).mhz


def main(
    config: Annotated[str, typer.Argument(help="Hardware configuration.")] = "pynq-z2",
    limit: Annotated[int, typer.Option(help="Print paths of more ps than this, or the longest one.")] = 3600,
    loads: Annotated[int, typer.Option(help="Print nets with more loads than this.")] = 400,
    keep: Record = False,
) -> None:
    """Print the paths over a limit, nets with many loads, and paths that lack a register."""
    with tempfile.TemporaryDirectory() as folder:
        module, models = synthesise(config, Path(folder))
    netlist = Netlist(module, models)
    rows: dict[tuple[str, str, str], tuple[int, int, Counter[str]]] = {}
    ends = sorted(netlist.ends(), reverse=True)
    for time, net, cell, port in ends:
        if time <= limit and rows:
            break
        first, kinds = netlist.start(net)
        kind = netlist.cells[cell]["type"]
        key = (plain(first), plain(netlist.end(cell)), f"{kind}.{port}")
        worst, count, through = rows.get(key, (time, 0, kinds))
        rows[key] = (worst, count + 1, through)
    over = sum(time > limit for time, *_ in ends)
    print("| ps | ends | from | to | into | through |\n|---|---|---|---|---|---|")
    for (first, last, into), (time, count, kinds) in rows.items():
        through = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
        print(f"| {time:,} | {count} | `{first}` | `{last}` | {into} | {through} |")
    print(f"\n{over:,} of {len(ends):,} ends are reached after more than {limit:,} ps.\n")
    hardware, longest = load(config), ends[0][0]
    if hardware.board != "none":
        print(f"Twice in a period: {fastest(hardware, longest):.3f} MHz; it has {hardware.clock_mhz:g}.\n")

    print("| loads | net |\n|---|---|")
    many: dict[str, int] = {}
    for net, pins in netlist.fan_out().items():
        if pins > loads:
            name = netlist.describe(net)
            many[name] = max(pins, many.get(name, 0))
    for name, pins in sorted(many.items(), key=lambda item: -item[1]):
        print(f"| {pins:,} | {name} |")
    print()
    missing = unregistered(module)
    for (what, where), count in sorted(missing.items()):
        print(f"- {what}: {where} ({count})")
    if not missing:
        print("No path between DSPs, or from RAM to DSP, lacks a register.")
    if keep:
        figures = {"config": config, "longest": longest, "ends": len(ends), "over": over}
        figures |= {"missing": sum(missing.values())}
        figures |= {"fastest_mhz": fastest(hardware, longest)} if hardware.board != "none" else {}
        figures |= {"nets": len(many), "most_loads": max(many.values())} if many else {}
        record("timing", config, figures, "yosys")


if __name__ == "__main__":
    typer.run(main)
