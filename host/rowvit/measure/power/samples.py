# SPDX-License-Identifier: Apache-2.0
"""Power over time: energy between two moments, and what gaps and steps of the readings can hide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rowvit.errors import RowvitError

#: steps hidden by noise are believed where so many moves from level to level are close to multiples of
#: them, by the mean over the cosines of their phases; looked at are about so many moves
_MANY, _REGULAR, _MOST = 20, 0.75, 4000


@dataclass(frozen=True)
class Samples:
    """Power over time."""

    times: np.ndarray  #: float64 [n]: seconds of the monotonic clock, ascending
    watts: np.ndarray  #: float64 [n]
    #: watts between two neighbouring readings of the instrument, where `step` is not to estimate it
    resolution: float | None = None
    #: seconds by which ``times`` may be off, where another clock than the board's gave them
    misplaced: float | None = None

    def energy(self, begin: float, end: float) -> float:
        """Joules from ``begin`` to ``end`` by the trapezoidal rule.

        Raises
        ------
        RowvitError
            The samples do not cover the whole time, or have a gap of more than a tenth of it.
        """
        times = self._within(begin, end)
        if (gap := np.diff(times).max()) > 0.1 * (end - begin):
            raise RowvitError(
                f"no power sample for {gap:.2f} s in a pass of {end - begin:.2f} s",
                "sample faster, or make the passes longer",
            )
        return self.integral(begin, end)

    def integral(self, begin: float, end: float) -> float:
        """As `energy`, whatever the gaps."""
        times = self._within(begin, end)
        watts = np.interp(times, self.times, self.watts)
        return float(((watts[1:] + watts[:-1]) / 2 * np.diff(times)).sum())

    def hidden(self, begin: float, end: float) -> float:
        """Joules that gaps from ``begin`` to ``end`` can hide.

        A gap is longer than the sampling and than a hundredth of the time explain. Power in it may differ
        from the readings beside it by as much as any two readings do.
        """
        between = np.diff(self._within(begin, end))
        gaps = between[between > max(2.5 * self.interval, 0.01 * (end - begin))]
        return float(gaps.sum() * np.ptp(self.watts))

    def _within(self, begin: float, end: float) -> np.ndarray:
        """Both, and the times of the samples between them."""
        if not (len(self.times) and self.times[0] <= begin < end <= self.times[-1]):
            raise RowvitError(
                f"the power samples do not cover a whole pass ({begin:.3f} to {end:.3f} s of the monotonic"
                " clock)",
                "sample faster, or use the log of the whole measurement",
            )
        inside = (self.times > begin) & (self.times < end)
        return np.concatenate([[begin], self.times[inside], [end]])

    @cached_property
    def interval(self) -> float:
        """Seconds from a sample to the next: the median."""
        return float(np.median(np.diff(self.times)))

    def step(self) -> float:
        """What the instrument resolves, in watts: as it says, or by `resolution` of its readings."""
        return resolution(self.watts) if self.resolution is None else self.resolution


def resolution(readings: np.ndarray) -> float:
    """The step between neighbouring readings of an instrument, in their unit; 0 if they are all the same.

    Every difference of two readings is a multiple of the step. So it is their greatest common divisor, in
    units of the last digit that was written: two levels alone could be one step apart. Noise that was added
    behind the steps, as by a calibration in floating point, hides this; then differences lie close to
    multiples of the step, and readings at three levels at least.
    """
    levels, counts = np.unique(readings, return_counts=True)
    if len(levels) < 2:
        return 0.0
    # six significant digits, which PYNQ's recorder keeps, and more than a meter has
    unit = 10.0 ** (math.floor(math.log10(np.abs(levels).max())) - 5)
    exact = float(np.gcd.reduce(np.diff(np.round(levels / unit).astype(np.int64)))) * unit
    if not exact:  # they differ by less than that
        return float(np.diff(levels).min())
    moves = np.abs(np.diff(readings))
    moves = moves[:: 1 + len(moves) // _MOST]
    for step in np.geomspace(np.ptp(levels) / 2, exact, 300)[:-1]:
        phases, between = np.cos(2 * math.pi * moves / step), moves > 0.45 * step
        if between.sum() < _MANY or min(phases.mean(), phases[between].mean()) < _REGULAR:
            continue
        origin = np.angle((counts * np.exp(2j * math.pi * levels / step)).sum()) / (2 * math.pi)
        _, places = np.unique(np.round(readings / step - origin), return_counts=True)
        single = moves[between & (moves < 1.5 * step)]
        if len(single) and (places > 0.01 * len(readings)).sum() >= 3:
            return float(np.median(single))
    return exact
