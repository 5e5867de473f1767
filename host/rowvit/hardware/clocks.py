# SPDX-License-Identifier: Apache-2.0
"""The clock of the programmable logic: a PLL of the processing system divided by two numbers of 6 bits.

UG585 (FPGA0_CLK_CTRL) and UG1087 (PL0_REF_CTRL). PYNQ sets the divisors of a .hwh, and leaves source and PLL
as the boot image set them: the same divisors give another clock on a board whose PLL runs at another rate.
"""

from __future__ import annotations

from dataclasses import dataclass

from rowvit.errors import RowvitError

DIVISORS = range(1, 64)
ROUNDING = 0.001  #: share of a clock that oscillators and PLLs are rounded by
TOLERANCE = 0.02  #: a clock that is faster than what timing was met for by less is that clock


@dataclass(frozen=True)
class Clock:
    """``pll_mhz`` divided by ``divisor0`` and ``divisor1``."""

    pll_mhz: float
    divisor0: int
    divisor1: int

    @property
    def mhz(self) -> float:
        return self.pll_mhz / (self.divisor0 * self.divisor1)


def clocks(pll_mhz: float) -> list[Clock]:
    """Every clock that a PLL can be divided to, slowest first; of the pairs with one product, the first."""
    products = {a * b: (a, b) for b in reversed(DIVISORS) for a in reversed(DIVISORS) if a >= b}
    return [Clock(pll_mhz, *products[n]) for n in sorted(products, reverse=True)]


def at_most(pll_mhz: float, mhz: float, rounding: float = ROUNDING) -> Clock:
    """The fastest clock that is no faster than ``mhz``, but for a rounding by that share of it.

    Raises
    ------
    RowvitError
        Even the slowest is faster.
    """
    found = [clock for clock in clocks(pll_mhz) if clock.mhz <= mhz * (1 + rounding)]
    if not found:
        raise RowvitError(
            f"a PLL of {pll_mhz:g} MHz cannot be divided to {mhz:g} MHz",
            f"use at least {clocks(pll_mhz)[0].mhz:.3f} MHz",
        )
    return found[-1]
