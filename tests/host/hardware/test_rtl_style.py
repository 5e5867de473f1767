# SPDX-License-Identifier: Apache-2.0
"""What `rtl/STYLE.md` says of names, and no linter checks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

RTL = Path(__file__).resolve().parents[3] / "rtl"
MODULES = sorted(RTL.rglob("rowvit_*.v"))
#: registers of another name, to be renamed
UNNAMED: dict[str, str] = {
    "rowvit_core": "done_exec",
    "rowvit_exec": "attn",
    "rowvit_issue": r"(fire|first|last|lockstep|nonzero|pv|x)_s[123]",  # _s: the stage
}
#: modules whose parameters have no comment each, to be written
UNCOMMENTED = {"rowvit_core", "rowvit_drain", "rowvit_exec", "rowvit_issue"}


def registers(text: str) -> set[str]:
    """What is assigned at a clock's edge: in this RTL, without blocking, and nothing else is."""
    syntax = pytest.importorskip("pyslang.syntax")
    found: set[str] = set()

    def visit(node: object) -> None:
        if getattr(node, "kind", None) == syntax.SyntaxKind.NonblockingAssignmentExpression:
            names = str(node.left)
            while names != (names := re.sub(r"\[[^][]*\]", "", names)):
                pass
            found.update(re.findall(r"[A-Za-z_]\w*", re.sub(r"//.*", "", names)))

    syntax.SyntaxTree.fromText(text).root.visit(visit)
    return found


def test_registers_are_found() -> None:
    text = """module m (input wire clk_i, output reg a_o); always @(posedge clk_i) begin if (a <= b) c <= a <= b;
        {a_o, d[2*i[0]+:1]} <= x; for (i = 0; i < 2; i = i + 1) e_q[f] <= g; end endmodule"""
    assert registers(text) == {"c", "a_o", "d", "e_q"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_registers_end_in_q(path: Path) -> None:
    """Or in `_o`: they are ports."""
    others = {name for name in registers(path.read_text()) if not name.endswith(("_q", "_o"))}
    pattern = UNNAMED.get(path.stem, "")
    assert not {name for name in others if not re.fullmatch(pattern, name)}
    assert not pattern or others, "its names are as they should be: take it off the list"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_parameters_have_a_comment_each(path: Path) -> None:
    lines = [line.strip() for line in path.read_text().partition(");\n")[0].splitlines()]
    bare = [
        line
        for above, line in zip(["", *lines], lines, strict=False)
        if line.startswith("parameter ") and not (above.startswith("// ") and "//" not in line)
    ]
    if path.stem in UNCOMMENTED:
        assert bare, "its parameters are as they should be: take it off the list"
    else:
        assert not bare
