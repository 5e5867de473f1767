# SPDX-License-Identifier: Apache-2.0
"""Configurations have a clock that their board makes, and in whose period their longest path fits twice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rowvit.hardware import config as configs
from rowvit.hardware.block_design import board
from rowvit.hardware.clocks import at_most

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from record import read
from timing import fastest

ON_BOARDS = [name for name in configs.names() if configs.load(name).board != "none"]


@pytest.mark.parametrize("name", ON_BOARDS)
def test_clock(name: str) -> None:
    """The path is recorded: ``python benchmarks/timing.py NAME --record``, some minutes each."""
    config = configs.load(name)
    made = at_most(board(config.board).pll_mhz, config.clock_mhz).mhz
    assert made == pytest.approx(config.clock_mhz, rel=1e-5)
    longest = read("timing")[name]["figures"]["longest"]
    assert config.clock_mhz == pytest.approx(fastest(config, longest), rel=1e-5)
