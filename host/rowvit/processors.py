# SPDX-License-Identifier: Apache-2.0
"""How many processors there are to use."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


def processors() -> int:
    """Processors that this process may use: a container may have a share of a large machine."""
    return min(allowed(), _quota())


def allowed() -> int:
    """Processors that threads may run on, whatever share of their time they get."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def control_groups() -> list[Path]:
    """The folder of this process's control group, version 2, and those of the groups that it is in."""
    with suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        for own in (line.removeprefix("0::/") for line in lines if line.startswith("0::/")):
            group = GROUPS / own
            return [group, *(parent for parent in group.parents if parent.is_relative_to(GROUPS))]
    return []


@cache
def _quota() -> int:
    """Processors whose time the control groups give, rounded up."""
    found = [os.cpu_count() or 1]
    for group in control_groups():
        with suppress(OSError, ValueError):  # without a limit it is "max"
            quota, period = map(int, (group / "cpu.max").read_text().split())
            found.append(math.ceil(quota / period))
    with suppress(OSError, ValueError):  # version 1
        quota, period = (
            int((GROUPS / "cpu" / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period")
        )
        found.append(math.ceil(quota / period) if quota > 0 else found[0])
    return max(1, min(found))
