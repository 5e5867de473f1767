# SPDX-License-Identifier: Apache-2.0
"""Control sets in a netlist of Xilinx 7 series cells: flip-flops that share clock, enable and set or reset.

A slice of a 7 series has one clock, one enable and one set or reset for its eight flip-flops, so that each
control set takes slices of its own. UG949 ("Follow Control Set Guidelines") asks for less than 7.5% of the
part's flip-flops divided by eight. Nets that are the same function count as one: Yosys copies inverters and
LUTs for each flip-flop. Sets of fewer than four flip-flops, which Vivado turns into logic, count, too; those
of LUT RAM and shift registers do not.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator
from typing import Any

FLIP_FLOP = re.compile(r"FD[RSCP]E(_1)?")
LOGIC = re.compile(r"LUT\d|INV|MUXF\d|CARRY4")
CONTROL = ("R", "S", "CLR", "PRE")

Net = int | str  #: a net's number, or a constant: "0", "1", "x"


def reduce(table: list[str], inputs: list[Net]) -> tuple[tuple[str, ...], tuple[Net, ...]]:
    """A LUT's truth table and inputs without constants and inputs that change nothing, in order."""
    for net in sorted(set(inputs), key=str):
        at = [i for i, other in enumerate(inputs) if other == net]
        mask = sum(1 << i for i in at)
        low = [value for k, value in enumerate(table) if k & mask == 0]
        high = [value for k, value in enumerate(table) if k & mask == mask]
        inputs = [other for other in inputs if other != net]
        if net == "1":
            table = high
        elif net in ("0", "x") or low == high:
            table = low
        else:
            table, inputs = low + high, [*inputs, net]
    return tuple(table), tuple(inputs)


class Nets:
    """The nets of a flat module, equal ones merged."""

    def __init__(self, module: dict[str, Any]) -> None:
        cells = module["cells"].values()
        self.flip_flops = [cell for cell in cells if FLIP_FLOP.fullmatch(cell["type"])]
        self._logic = [cell for cell in cells if LOGIC.fullmatch(cell["type"])]
        self._same: dict[Net, Net] = {}
        while self._merge():
            pass

    def __getitem__(self, net: Net) -> Net:
        while net in self._same:
            net = self._same[net]
        return net

    def _merge(self) -> bool:
        """One pass; whether it has merged anything."""
        before, seen = len(self._same), {}
        for net, what in self._values():
            net, value = self[net], what if isinstance(what, int | str) else seen.setdefault(what, net)
            if isinstance(net, int) and self[value] != net:
                self._same[net] = self[value]
        return len(self._same) > before

    def _values(self) -> Iterator[tuple[Net, Hashable]]:
        """Each net that a cell drives, and what it is: another net, or a function of others."""
        for cell in self._logic:
            ports, kind = cell["connections"], cell["type"]
            if kind.startswith("LUT") or kind == "INV":
                size = int(kind[3:]) if kind != "INV" else 1
                bits = cell["parameters"]["INIT"].rjust(1 << size, "0") if kind != "INV" else "01"
                names = [f"I{i}" for i in range(size)] if kind != "INV" else ["I"]
                table, inputs = reduce([*reversed(bits)], [self[ports[name][0]] for name in names])
                if not inputs:
                    yield ports["O"][0], table[0]
                else:
                    yield ports["O"][0], inputs[0] if table == ("0", "1") else (table, inputs)
                continue
            outputs = [name for name in sorted(ports) if cell["port_directions"][name] == "output"]
            key = (kind, *(self[net] for name in sorted(ports) if name not in outputs for net in ports[name]))
            for name in outputs:
                yield from ((net, (key, name, i)) for i, net in enumerate(ports[name]))
        for cell in self.flip_flops:
            if "keep" not in cell["attributes"]:  # which is a copy on purpose
                ports = cell["connections"]
                key = tuple((name, self[ports[name][0]]) for name in sorted(ports) if name != "Q")
                yield ports["Q"][0], (cell["type"], cell["parameters"].get("INIT"), key)


def control_sets(module: dict[str, Any]) -> Counter[tuple[Net, Net, str, Net]]:
    """Flip-flops of each control set (clock, enable, kind of set or reset, its net) of a flat netlist."""
    nets = Nets(module)
    members: dict[tuple[Net, Net, str, Net], set[Net]] = defaultdict(set)
    for cell in nets.flip_flops:
        ports = cell["connections"]
        pin = next(name for name in CONTROL if name in ports)
        control = nets[ports[pin][0]]
        # sets and resets by one net share a slice, if both wait for the clock or neither does
        kind = "" if control in ("0", "x") else "asynchronous" if pin in ("CLR", "PRE") else "synchronous"
        members[nets[ports["C"][0]], nets[ports["CE"][0]], kind, control if kind else "0"].add(
            nets[ports["Q"][0]]
        )
    return Counter({key: len(flops) for key, flops in members.items()})
