# SPDX-License-Identifier: Apache-2.0
"""Names of the host's classes."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import rowvit


def test_no_two_classes_share_a_name():
    """Of public ones: who reads or searches for a name finds one class."""
    root = Path(rowvit.__file__).parent
    found = defaultdict(list)
    for path in root.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(root)))
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}
