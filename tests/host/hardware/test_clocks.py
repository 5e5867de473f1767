# SPDX-License-Identifier: Apache-2.0
"""Clocks that a processing system can make of its PLL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowvit.errors import RowvitError
from rowvit.hardware.clocks import at_most, clocks


def test_boards() -> None:
    """PYNQ-Z2's IO PLL is at 1000 MHz (Xilinx/PYNQ, pynqz2.tcl), KV260's at 999.99 (Kria-PYNQ, base.tcl)."""
    reached = {round(clock.mhz, 3) for clock in clocks(1000.0)}
    assert {250, 200, 166.667, 142.857, 125, 111.111, 100, 90.909, 83.333, 76.923, 50} <= reached
    assert not {150, 120, 80, 75, 60} & reached
    clock = at_most(1000.0, 150.0)
    assert clock.mhz == pytest.approx(142.857, abs=1e-3) and clock.divisor0 * clock.divisor1 == 7
    assert at_most(999.99, 300.0).mhz == pytest.approx(249.9975)
    assert at_most(1499.985, 250.0).mhz == pytest.approx(249.9975)


@given(st.floats(400, 2000), st.floats(1, 700))
def test_at_most_is_the_fastest_below(pll: float, mhz: float) -> None:
    possible = [pll / (a * b) for a in range(1, 64) for b in range(1, 64) if pll / (a * b) <= 1.001 * mhz]
    clock = at_most(pll, mhz)
    assert clock.mhz == pytest.approx(max(possible))
    assert 1 <= clock.divisor0 <= 63 and 1 <= clock.divisor1 <= 63


def test_too_slow() -> None:
    with pytest.raises(RowvitError, match=r"cannot be divided to 0\.1 MHz"):
        at_most(1000.0, 0.1)
