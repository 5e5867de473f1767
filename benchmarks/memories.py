# SPDX-License-Identifier: Apache-2.0
"""RAMs of a configuration as Vivado maps them, by its documented rules; a calculation, not a report.

    python benchmarks/memories.py                   # pynq-z2
    python benchmarks/memories.py --board ZCU102    # does its configuration fit its part?

The arrays are those that Yosys finds in the elaborated RTL. An array goes where its attribute
``ram_style`` says, and without one to block RAM. For 7 series Vivado extends the depth of a block RAM to
the next power of two (AR 61995; UG906, "Optimizing RAMB Utilization when Memory Depth is not a Power of 2"),
takes the fewest primitives of one shape for it, and beyond 32K words cascades primitives of 32K x 1. An
UltraRAM is always 4096 x 72.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from record import Record, record
from synthesis import module_name, read_top

from rowvit.errors import RowvitError
from rowvit.hardware.block_design import Board, board
from rowvit.hardware.config import load

#: width of a RAMB36E1 by log2 of its depth; a RAMB18E1 of the same depth has the width of the next row
WIDTHS = {9: 72, 10: 36, 11: 18, 12: 9, 13: 4, 14: 2, 15: 1}
BYTE_WIDTH = 9  # of a block RAM that writes bytes, with a parity bit that int8 leaves unused
ULTRA_DEPTH, ULTRA_WIDTH = 4096, 72
#: RAMB36 around the core: AXI DMA 7.1 with both channels of 64 bits and bursts of 8 and 16 takes 2 RAMB36 and
#: 2 RAMB18 by a public report of Vivado 2020.2 (github.com/jhjhajh/capstoneprojFPGA, design_1_axi_dma_0_1);
#: interconnects, converters, reset and interrupt controller take none in public reports
SYSTEM = 3.0


@dataclass(frozen=True)
class Ram:
    """An array of the RTL: module, words, bits, ``ram_style``, whether it has two ports that write or read
    (true dual port), whether single bytes are written, and how many there are.
    """

    module: str
    depth: int
    width: int
    style: str
    dual: bool
    bytes: bool
    count: int

    def block_ram(self) -> float:
        """RAMB36 that one of them takes; a half is a RAMB18."""
        if self.style in ("distributed", "ultra"):
            return 0.0
        deep = max((self.depth - 1).bit_length(), 10 if self.dual else 9)
        width = self.width * BYTE_WIDTH // 8 if self.bytes else self.width
        if deep > 15:
            return (1 << (deep - 15)) * float(width)
        counts = []
        for log2 in range(10 if self.dual else 9, deep + 1):  # 512 x 72 takes both ports for one
            slices, rest = divmod(width, WIDTHS[log2])
            # a RAMB18 of this depth, counted for an array that is no deeper: no document has one in a column
            half = log2 == deep and rest <= WIDTHS.get(log2 + 1, 0)
            counts.append((slices + (0.5 if rest and half else 1.0 if rest else 0.0)) * (1 << (deep - log2)))
        return min(counts)

    def ultra_ram(self) -> int:
        """URAM288 that one of them takes."""
        if self.style != "ultra":
            return 0
        return -(-self.depth // ULTRA_DEPTH) * -(-self.width // ULTRA_WIDTH)


def rams(config: str, ram_style: str = "block") -> list[Ram]:
    """The arrays of a configuration, those in LUT RAM too; ``ram_style`` as rowvit_top's parameter."""
    with tempfile.TemporaryDirectory() as folder:
        netlist = Path(folder) / "netlist.json"
        script = (
            f'{read_top(config)}; chparam -set RAM_STYLE "{ram_style}" rowvit_top; hierarchy -top rowvit_top;'
            f" proc; opt_clean; memory_collect; write_json {netlist}"
        )
        subprocess.run(["yosys", "-q", "-p", script], check=True, capture_output=True)
        modules = json.loads(netlist.read_text())["modules"]
    instances = Counter[str]()

    def count(name: str) -> None:
        instances[name] += 1
        for cell in modules[name]["cells"].values():
            if cell["type"] in modules:
                count(cell["type"])

    count("rowvit_top")
    found = Counter[tuple]()
    for name, number in instances.items():
        for cell in modules[name]["cells"].values():
            if cell["type"].startswith("$mem"):
                values = cell["parameters"]
                width = int(values["WIDTH"], 2)
                style = cell["attributes"].get("ram_style", "auto")
                writes = int(values["WR_PORTS"], 2)
                ports = int(values["RD_PORTS"], 2) > 1
                key = (module_name(name), int(values["SIZE"], 2), width, style, ports, writes > 1)
                found[key] += number
    return [Ram(*key, count=number) for key, number in sorted(found.items())]


def target(config: str) -> Board | None:
    """The board of a configuration."""
    return None if (name := load(config).board) == "none" else board(name)


def total(config: str) -> tuple[float, int]:
    """RAMB36 and URAM288 of a configuration, on the memories that its board uses."""
    part = target(config)
    found = rams(config, part.ram_style if part else "block")
    return sum(r.count * r.block_ram() for r in found), sum(r.count * r.ultra_ram() for r in found)


def main(
    config: Annotated[str, typer.Argument(help="Hardware configuration, by default the board's.")] = "",
    board_name: Annotated[str, typer.Option("--board", help="By default the configuration's.")] = "",
    keep: Record = False,
) -> None:
    """Print the block RAM and UltraRAM of every array; with --board, fail where the part has less."""
    try:
        on = board(board_name) if board_name else target(config or "pynq-z2")
        config = config or (on.configuration if on else "")
        found = rams(config, on.ram_style if on else "block")
    except RowvitError as error:
        print(f"rowvit: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    print("| module | depth | width | number | RAMB36 | URAM |\n|---|---|---|---|---|---|")
    blocks, ultras = 0.0, 0
    for ram in found:
        block, ultra = ram.count * ram.block_ram(), ram.count * ram.ultra_ram()
        if block or ultra:
            print(f"| {ram.module} | {ram.depth} | {ram.width} | {ram.count} | {block:g} | {ultra} |")
        blocks, ultras = blocks + block, ultras + ultra
    print(f"| **{config}** | | | | {blocks:g} | {ultras} |")
    print(f"| with the AXI DMA | | | | {blocks + SYSTEM:g} | {ultras} |")
    figures = {"config": config, "ramb36": blocks, "with_dma": blocks + SYSTEM}
    if on:
        print(f"| {on.part} | | | | {on.block_ram} | {on.ultra_ram} |")
        figures |= {"part_ramb36": on.block_ram}
        figures |= {"uram": ultras, "part_uram": on.ultra_ram} if on.ultra_ram else {}
    if keep:
        record("memories", f"{config} on {board_name}" if board_name else config, figures, "yosys")
    if on and board_name:
        fits = blocks + SYSTEM <= on.block_ram and ultras <= on.ultra_ram
        print(f"{config} {'fits' if fits else 'does not fit'} the memories of {on.name}")
        raise typer.Exit(not fits)


if __name__ == "__main__":
    typer.run(main)
