# SPDX-License-Identifier: Apache-2.0
"""Waiting in tests: for events, with a deadline that only something that hangs reaches."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: seconds after which something hangs: many times what anything here takes on a busy machine
HANG = 1800.0


def until(condition: Callable[[], T], *processes: subprocess.Popen) -> T:
    """Wait until a condition is true, for which ``processes`` have to run; its value."""
    end = time.monotonic() + HANG
    while not (found := condition()):
        assert time.monotonic() < end, "it does not happen"
        assert all(process.poll() is None for process in processes) or condition(), "a process has ended"
        time.sleep(0.005)
    return found
