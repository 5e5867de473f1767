# SPDX-License-Identifier: Apache-2.0
"""Faults in Python sources, by the operators of Cosmic Ray.

Annotations, imports, decorators' arguments, caches and the texts of errors are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, takewhile

import parso
from cosmic_ray.plugins import get_operator, operator_names
from parso.tree import BaseNode, Leaf, NodeOrLeaf

#: nodes below which nothing is changed
FIXED = {"raise_stmt", "import_name", "import_from", "tfpdef"}
#: what they make is no fault: numbers that matter here and members of enumerations are the same if equal
HARMLESS = {"Eq_Is", "Is_Eq", "NotEq_IsNot", "IsNot_NotEq"}
#: those that need no arguments
OPERATORS = {
    name: get_operator(name)()
    for name in operator_names()
    if not get_operator(name).arguments() and name.partition("_")[2] not in HARMLESS
}


def edits(source: str) -> Iterator[tuple[str, int, int, str]]:
    """Operator, and the bytes from a start to an end that become a text."""
    lines = [0, *accumulate(len(line.encode()) for line in source.splitlines(keepends=True))]
    columns = [*source.splitlines(), ""]

    def place(position: tuple[int, int]) -> int:
        line, column = position
        return lines[line - 1] + len(columns[line - 1][:column].encode())

    for node in _changeable(parso.parse(source)):
        before, kept = node.get_code(include_prefix=False), _state(node)
        for name, operator in OPERATORS.items():
            for index, _ in enumerate(operator.mutation_positions(node)):
                mutated = operator.mutate(node, index)
                after = mutated.get_code(include_prefix=False).lstrip(" ") if mutated else ""
                _restore(kept)
                first = _common(before, after)
                same = _common(before[first:][::-1], after[first:][::-1])
                start = place(node.start_pos) + len(before[:first].encode())
                end = start + len(before[first : len(before) - same].encode())
                kind = name.rpartition("/")[2].partition("_")[0]
                yield kind, start, end, after[first : len(after) - same]


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _changeable(node: NodeOrLeaf) -> Iterator[NodeOrLeaf]:
    """Itself and all nodes that may be changed."""
    typing = node.type == "if_stmt" and node.children[1].get_code().strip() == "TYPE_CHECKING"
    if typing or node.type in FIXED:
        return
    if node.type == "decorator":
        if "cache" not in node.get_code():
            yield node
        return
    yield node
    if isinstance(node, BaseNode):
        before = ""
        for child in node.children:
            # what follows is a variable's or a result's type
            if before != "->" and not (node.type == "annassign" and before == ":"):
                yield from _changeable(child)
            before = child.value if isinstance(child, Leaf) else ""


def _state(node: NodeOrLeaf) -> list[tuple[NodeOrLeaf, str, object]]:
    """What operators change in place: a node's children, or a leaf's text."""
    if isinstance(node, Leaf):
        return [(node, "value", node.value)]
    own = [(node, "children", list(node.children))]
    return own + [entry for child in node.children for entry in _state(child)]


def _restore(kept: list[tuple[NodeOrLeaf, str, object]]) -> None:
    for node, name, value in kept:
        setattr(node, name, list(value) if isinstance(value, list) else value)
