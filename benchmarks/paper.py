# SPDX-License-Identifier: Apache-2.0
"""The figures of the paper's chip (arXiv 2510.14393), and those of this design in its size, in Markdown.

    python benchmarks/paper.py                  # configuration paper: 2 x 4 x 64 at 1 GHz

Gates are two-input NANDs: the transistors that Yosys estimates for its CMOS gates, over four. A register is a
plain flip-flop with multiplexers for enable and reset, a DSP is the multiplier and sum that it is used for
(`dsp_shaped.v`; `plain_pair.v` is what could stand there instead), memories of any kind are left out, and
nothing is placed. Energy is estimated by activity (`energy.py`), and what training keeps comes from
benchmarks/results. Needs Yosys, and takes some minutes.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from figures import Figures
from record import Record, record
from synthesis import module_name, read_top

from rowvit.hardware.activity import COUNTS, memories
from rowvit.hardware.config import load

SHAPED = Path(__file__).with_name("dsp_shaped.v")
PLAIN = Path(__file__).with_name("plain_pair.v")
#: transistors of a two-input NAND
NAND = 4
#: of the design's parts, the module that is all of each
PARTS = {
    "pairs of multipliers": "rowvit_mac_pair",
    "shadow accumulators": "rowvit_cluster",
    "drain": "rowvit_drain",
    "softmax": "rowvit_softmax",
    "LayerNorm": "rowvit_norm_engine",
}
#: figures of the paper, as its abstract has them
PAPER = {
    "MACs per cycle": "512",
    "clock, MHz": "1,000",
    "peak GOPS": "1,024",
    "logic, thousand gates": "496.4",
    "SRAM, KB": "232",
    "fewer operations": "61.5 %",
    "fewer W2 weights": "59.3 %",
    "points lost": "under 2",
    "TOPS/W": "2.31",
}


def _modules(read: str, top: str) -> dict[str, Any]:
    """What Yosys' ``stat`` says of the modules of a design in CMOS gates."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "stat.json"
        script = (
            f"{read}; synth -top {top} -run begin:fine; opt -fast -full; techmap; opt -fast;"
            # no register needs a value at power-on; enables and resets become gates
            " setattr -unset init w:*; dfflegalize -cell $_DFF_P_ x; opt_clean; abc -fast -g cmos; opt_clean;"
            f" tee -q -o {report} stat -tech cmos -json -top {top}"
        )
        subprocess.run(["yosys", "-q", "-l", f"{folder}/log", "-p", script], check=True, capture_output=True)
        text = report.read_text()
    modules: dict[str, Any] = json.loads(text[text.index("{") :])["modules"]
    return {name.removeprefix("\\"): found for name, found in modules.items()}


def _own(module: dict[str, Any]) -> float:
    """Transistors of a module without those in it."""
    return float(str(module["estimated_num_transistors"]).rstrip("+"))


def plain(pairs: int) -> float:
    """Thousand two-input NANDs of as many pairs of plain multipliers."""
    (found,) = _modules(f"read_verilog {PLAIN}", "plain_pair").values()
    return pairs * _own(found) / NAND / 1e3


def gates(config: str) -> dict[str, float]:
    """Thousand two-input NANDs of the design, in all and by part."""
    modules = _modules(
        f"{read_top(config)}; read_verilog {SHAPED}; hierarchy -check -top rowvit_top;"
        " proc; flatten rowvit_mac_pair",  # which has no use for some bits of it
        "rowvit_top",
    )

    @cache
    def transistors(name: str) -> Counter[str]:
        """Of a module and what is in it, by the names of modules."""
        found = Counter({module_name(name): _own(modules[name])})
        for cell, count in modules[name]["num_cells_by_type"].items():
            if (inner := cell.removeprefix("\\")) in modules:
                found.update({part: count * n for part, n in transistors(inner).items()})
        return found

    def whole(part: str) -> float:
        """All instances of a module, with what is in them."""
        top = next(name for name in modules if module_name(name) == "rowvit_top")
        return sum(
            count * sum(transistors(name).values())
            for name, count in instances(top).items()
            if module_name(name) == part
        )

    @cache
    def instances(name: str) -> Counter[str]:
        """Of every module below this one, and of itself."""
        found = Counter({name: 1})
        for cell, count in modules[name]["num_cells_by_type"].items():
            if (inner := cell.removeprefix("\\")) in modules:
                found.update({part: count * n for part, n in instances(inner).items()})
        return found

    found = {part: whole(module) / NAND / 1e3 for part, module in PARTS.items()}
    found["shadow accumulators"] -= found["pairs of multipliers"]
    total = whole("rowvit_top") / NAND / 1e3
    return {"all": total, **found, "the rest": total - sum(found.values())}


def main(
    config: Annotated[str, typer.Argument(help="Hardware configuration.")] = "paper",
    trained: Annotated[str, typer.Option(help="FILE/RECORD of a trained network.")] = "cifar10-deit-t/+ int8",
    estimated: Annotated[
        str, typer.Option(help="Network of `energy.py`, on this configuration.")
    ] = "deit-tiny",
    keep: Record = False,
) -> None:
    """Print the table, and the gates by part."""
    hardware, found = load(config), gates(config)
    instead = plain(hardware.macs_per_cycle // 2)
    bits = {m.name: m.copies * m.words * m.bits for m in memories(hardware, dict.fromkeys(COUNTS, 0.0))}
    bits.pop("exponentials")  # logic
    network, energy = Figures(trained), Figures(f"energy/{config} {estimated}, all")
    peak = 2 * hardware.macs_per_cycle * hardware.clock_mhz / 1e3
    figures = {
        "macs_per_cycle": hardware.macs_per_cycle,
        "clock_mhz": hardware.clock_mhz,
        "peak_gops": peak,
        "gates": found["all"],
        "sram": sum(bits.values()) / 8 / 1024,
        "macs_saved": network["macs_saved"],
        "w2_rows_saved": network["w2_rows_saved"],
        "lost": network["lost"],
        "tops_per_watt": energy["tops_per_watt"],
    }
    shown = [f"{value:,.1f}" if value % 1 else f"{value:,.0f}" for value in figures.values()]
    shown[-4:-2] = (f"{value} %" for value in shown[-4:-2])
    shown[-1] = f"{figures['tops_per_watt']:.2f}, estimate by activity"
    print(f"|  | the paper's chip | `{config}` |\n|---|---|---|")
    for (name, paper), own in zip(PAPER.items(), shown, strict=True):
        print(f"| {name} | {paper} | {own} |")
    print("\n| thousand gates | |\n|---|---|")
    for part, count in found.items():
        print(f"| {part} | {count:,.1f} |")
    print(f"| two plain multipliers in place of each pair | {instead:,.1f} |")
    if keep:
        parts = {f"gates of {part}": count for part, count in found.items()}
        parts["gates of plain pairs"] = instead
        record(
            "paper", config, figures | parts | {f"sram of {n}": b / 8192 for n, b in bits.items()}, "yosys"
        )


if __name__ == "__main__":
    typer.run(main)
