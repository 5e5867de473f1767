# SPDX-License-Identifier: Apache-2.0
"""Processes, by /proc."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def children(parent: int) -> set[int]:
    """Processes that descend from one."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(path.name))
        if fields and fields[0] != "Z":
            parents[int(path.name)] = int(fields[1])
    found = {parent}
    while more := {child for child, its in parents.items() if its in found} - found:
        found |= more
    return found - {parent}


def alive(process: int) -> bool:
    fields = _stat(process)
    return bool(fields) and fields[0] != "Z"


def seconds(process: int) -> float:
    """Of processor time."""
    fields = _stat(process)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def megabytes(process: int, what: str) -> float:
    """VmRSS, or VmHWM, the most so far; fails with an OSError or IndexError if there is no such process."""
    return int(Path(f"/proc/{process}/status").read_text().partition(f"{what}:")[2].split()[0]) / 1000


def _stat(process: int) -> list[str]:
    """What /proc says behind the name; nothing if there is no such process."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return []
