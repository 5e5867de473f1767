# SPDX-License-Identifier: Apache-2.0
"""Unit tests run the RTL; without a simulator they are skipped, not failed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Verilator's makefiles run `python3` with the PYTHONPATH that cocotb sets: it must be this interpreter
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip this folder's tests where Icarus or Verilator is missing."""
    missing = [tool for tool in ("iverilog", "verilator") if shutil.which(tool) is None]
    if not missing:
        return
    tools = " ".join(missing)
    skip = pytest.mark.skip(reason=f"not on PATH: {tools} (apt-get install {tools})")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(skip)
