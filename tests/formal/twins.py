# SPDX-License-Identifier: Apache-2.0
"""A reset of one cycle is whole: two copies of a module, in any two states, behave alike after it.

The harness is made from the module's ports. Both copies get the same inputs; outputs without a qualifier must
be equal in every cycle, others where their qualifier is high.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from prover import RTL, Mutant, model, mutated, smtbmc, yosys


@dataclass(frozen=True)
class Twins:
    """Two copies of ``module`` for ``depth`` cycles after a reset of one cycle.

    Parameters
    ----------
    module : str
    depth : int
        Cycles that are checked.
    parameters : dict
        Small ones.
    qualified : dict
        Output -> the output that says when it means something (bit by bit, or one bit for all); None: never.
        Of an output that has fields, ``name[low+:width]`` are those that are compared.
    mutants : tuple of Mutant
        Each of which breaks the equality.
    """

    module: str
    depth: int
    parameters: dict[str, int] = field(default_factory=dict)
    qualified: dict[str, str | None] = field(default_factory=dict)
    #: valid of an instruction -> cycles after the reset in which it is low: the dispatcher was reset, too
    quiet: dict[str, int] = field(default_factory=dict)
    mutants: tuple[Mutant, ...] = ()

    def holds(self, work: Path, mutant: Mutant | None = None) -> bool:
        """Whether the copies stay equal, with a fault in the RTL or without."""
        sources = mutated(sorted(RTL.glob("*/*.v")), mutant, work)
        values = "".join(f" -chparam {name} {value}" for name, value in self.parameters.items())
        read = (
            f"read_verilog -I{RTL} {' '.join(map(str, sources))}; hierarchy -check -top {self.module}{values}"
        )
        ports = work / "ports.json"
        yosys(f"{read}; proc; flatten; write_json {ports}")
        (top,) = (m for m in json.loads(ports.read_text())["modules"].values() if m["attributes"].get("top"))
        harness = work / "twins.v"
        harness.write_text(
            self._harness({n: (p["direction"], len(p["bits"])) for n, p in top["ports"].items()})
        )
        return smtbmc(model([harness, *sources], "twins", work), "-t", str(self.depth + 1))

    def _harness(self, ports: dict[str, tuple[str, int]]) -> str:
        lines = ["module twins (input wire clk_i"]
        inputs = {
            n: width for n, (way, width) in ports.items() if way == "input" and n not in ("clk_i", "rst_ni")
        }
        lines += [f", input wire [{width - 1}:0] {name}" for name, width in inputs.items()]
        lines.append(");\n  reg rst_ni = 1'b0;\n  always @(posedge clk_i) rst_ni <= 1'b1;")
        outputs = {name: width for name, (way, width) in ports.items() if way == "output"}
        values = ", ".join(f".{name}({value})" for name, value in self.parameters.items())
        for copy in "ab":
            lines += [f"  wire [{width - 1}:0] {copy}_{name};" for name, width in outputs.items()]
            bound = [".clk_i(clk_i)", ".rst_ni(rst_ni)", *(f".{name}({name})" for name in inputs)]
            bound += [f".{name}({copy}_{name})" for name in outputs]
            lines.append(f"  {self.module} #({values}) u_{copy} ({', '.join(bound)});")
        lines.append("  reg [7:0] since = 8'd0;\n  always @(posedge clk_i) since <= since + 8'd1;")
        lines += [
            f"  always @* if (since <= {count}) assume (!{name});" for name, count in self.quiet.items()
        ]
        lines.append("  always @* if (rst_ni) begin")
        for name, width in outputs.items():
            parts = {key: by for key, by in self.qualified.items() if key.partition("[")[0] == name}
            if not parts:
                lines.append(f"    assert (a_{name} == b_{name});")
            for key, by in parts.items():
                bits = outputs[by] if by else 0
                for bit in range(bits):
                    part = key if "[" in key else f"{name}[{width // bits * bit}+:{width // bits}]"
                    lines.append(f"    if (a_{by}[{bit}]) assert (a_{part} == b_{part});")
        lines.append("  end\nendmodule")
        return "\n".join(lines)
