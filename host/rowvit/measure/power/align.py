# SPDX-License-Identifier: Apache-2.0
"""Where the log of an external meter lies on the clock of the passes, by the edges between them.

A place and a rate are searched where busy and idle passes differ most. From there the log is fitted with what
a meter shows that lags by a time constant: least squares over the shift and the rate of its clock, the lag,
both powers and a drift. How well the edges agree on shift and rate is their uncertainty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rowvit.errors import RowvitError
from rowvit.measure.power.statistics import CONFIDENCE, student_t

if TYPE_CHECKING:
    from rowvit.measure.power.passes import PowerPass

#: the largest difference between the rates of the two clocks
_RATE = 0.04
#: a log is aligned where a busy pass takes more than the idle one of its pair by this many times what these
#: differences scatter, so that drift from pair to pair is in none of them, or by so many pairs that they say
#: it to such a share of itself; the log of another measurement, in another order, does neither
_APART, _PRECISE = 3.0, 0.25
#: and where chance would not set them that far apart, at any of the places looked at, more often than this
_CHANCE = 0.01


@dataclass(frozen=True)
class Alignment:
    """How a meter's clock and response compare with the board's clock and load."""

    at: float  #: the log's time in the middle of the passes
    middle: float  #: the monotonic time then
    rate: float  #: seconds of the board's clock in one of the meter's, less one
    rate_error: float  #: the rate's uncertainty
    lag: float  #: time constant of the meter in seconds
    misplaced: float  #: seconds by which monotonic times may be off at any pass

    def monotonic(self, times: np.ndarray) -> np.ndarray:
        """Times of the log [n] on the board's monotonic clock."""
        return self.middle + (times - self.at) * (1 + self.rate)

    def record(self) -> dict[str, float]:
        """For a result."""
        return {
            "shift_s": self.middle - self.at,
            "rate_ppm": 1e6 * self.rate,
            "rate_uncertainty_ppm": 1e6 * self.rate_error,
            "lag_s": self.lag,
        }


def align(
    times: np.ndarray, watts: np.ndarray, passes: Sequence[PowerPass], wall: float | None, search: float
) -> Alignment:
    """Find a log's place.

    Parameters
    ----------
    times, watts : float64 array [n]
        The log, in seconds of its own clock, and in watts.
    passes : sequence of PowerPass
    wall : float or None
        The wall clock minus the monotonic one; without it, all places are tried.
    search : float
        Seconds by which the two wall clocks may differ.

    Raises
    ------
    RowvitError
        The log does not cover the passes, or does not rise and fall with them, or the meter lags by more than
        half of a pass.
    """
    starts = np.array([p.start for p in passes])
    stops = np.array([p.stop for p in passes])
    busy = np.array([p.kind == "busy" for p in passes])
    first, last, shortest = starts.min(), stops.max(), (stops - starts).min()
    middle, span = (first + last) / 2, last - first
    # the log covers all passes, in fewer seconds by a slow clock
    low, high = times[0] + (1 - _RATE) * span / 2, times[-1] - (1 - _RATE) * span / 2
    if wall is not None:
        low, high = max(low, middle + wall - search), min(high, middle + wall + search)
    uncovered = RowvitError(
        f"the meter's log of {times[-1] - times[0]:.0f} s does not cover the {span:.0f} s of the"
        f" measurement, or its clock is off by more than {search:g} s",
        "use the whole log, or write its times as seconds from its start",
    )
    if low > high:
        raise uncovered
    total = np.concatenate([[0.0], np.cumsum((watts[1:] + watts[:-1]) / 2 * np.diff(times))])

    def means(at: np.ndarray, rate: float) -> np.ndarray:
        """Mean watts [pass, place] of every pass, for every place of the log."""
        ends = (
            np.interp(at + (some[:, None] - middle) / (1 + rate), times, total) for some in (stops, starts)
        )
        return np.subtract(*ends) / (stops - starts)[:, None] * (1 + rate)

    reach = shortest / 20  # far less than the peak is wide
    places = np.append(np.arange(low, high, reach), high)
    count = int(_RATE / (reach / (span / 2)))
    rates = np.arange(-count, count + 1) * (reach / (span / 2))

    def contrast(rate: float) -> np.ndarray:
        """By how much busy passes take more than idle ones, for every place from which the log covers all."""
        found, half = means(places, rate), span / 2 / (1 + rate)
        covered = (places - half >= times[0] - reach) & (places + half <= times[-1] + reach)
        return np.where(covered, found[busy].mean(axis=0) - found[~busy].mean(axis=0), -np.inf)

    contrasts = [contrast(rate) for rate in rates]
    rate, place = np.unravel_index(np.argmax(contrasts), (len(rates), len(places)))
    if not np.isfinite(contrasts[rate][place]):
        raise uncovered
    found = _fit(times, watts, passes, places[place], rates[rate])
    found_means = means(np.array([found.at]), found.rate)[:, 0]
    # both have the passes pair by pair
    differences = found_means[busy] - found_means[~busy]
    apart, scatter = differences.mean(), differences.std(ddof=1)
    tried = (1 + 4 * (high - low) / shortest) * (1 + 4 * _RATE * span / shortest)
    freedom = len(differences) - 1
    error = scatter / math.sqrt(len(differences))
    chance = student_t(1 - _CHANCE / tried, freedom) * error
    needed = max(chance, min(_APART * scatter, student_t(CONFIDENCE, freedom) * error / _PRECISE))
    if apart <= needed:
        raise RowvitError(
            f"the meter's log does not rise and fall with the passes (busy ones take {apart:.3g} W more than"
            f" the idle ones of their pairs; these differences scatter by {scatter:.3g} W, so that it takes"
            f" {needed:.3g} W to tell that from chance)",
            "is it the log of this measurement?",
        )
    if found.lag > shortest / 2:
        raise RowvitError(
            f"the meter lags by {found.lag:.1f} s in passes of {shortest:.1f} s",
            "use a faster meter, or longer passes (--seconds, --settle)",
        )
    return found


def _fit(
    times: np.ndarray, watts: np.ndarray, passes: Sequence[PowerPass], at: float, rate: float
) -> Alignment:
    """The least squares, from a place and a rate nearby."""
    starts = np.array([p.start for p in passes])
    busy = np.array([p.kind == "busy" for p in passes], float)
    first, last = starts[0], passes[-1].stop
    middle, span = (first + last) / 2, last - first
    shortest = min(p.stop - p.start for p in passes)
    # means over times that are short beside a pass
    width = max(float(np.median(np.diff(times))), shortest / 200)
    inside = np.abs(times - at) * (1 + rate) < span / 2 - width
    bins = np.unique(((times[inside] - at) / width).astype(np.int64), return_inverse=True)[1]
    count = np.bincount(bins)
    t, y = (np.bincount(bins, values[inside]) / count for values in (times - at, watts))

    def monotonic(p: np.ndarray) -> np.ndarray:
        return middle + p[0] + t * (1 + rate) + p[1] * t / (span / 2)

    def residuals(p: np.ndarray) -> np.ndarray:
        """Of seconds by which the place, and the ends of the log, move, and the logarithm of the lag."""
        x = monotonic(p)
        table = np.stack([np.ones(len(x)), _response(x, starts, busy, math.exp(p[2])), x - middle], axis=1)
        return y - table @ np.linalg.lstsq(table, y, rcond=None)[0]

    lags = math.log(width / 2), math.log(shortest)
    steps = np.array([width / 2, width / 2, 0.1])
    fits = []
    for lag in np.linspace(*lags, 5)[:-1]:
        p = np.array([0.0, 0.0, lag])
        r = residuals(p)
        for _ in range(30):
            slopes = np.stack([(residuals(p + h) - r) / h.sum() for h in np.diag(steps)], axis=1)
            move = np.linalg.lstsq(slopes, -r, rcond=None)[0]
            for scale in 0.5 ** np.arange(6):  # as far as it gets better
                further = p + scale * move
                further[2] = np.clip(further[2], *lags)
                if (better := residuals(further)) @ better < r @ r:
                    break
            else:
                break
            p, r = further, better
        fits.append((r @ r, tuple(p), slopes, r))
    _, place, slopes, r = min(fits, key=lambda fit: fit[0])
    p = np.array(place)
    # from pass to pass, since what the fit leaves is alike within one
    number = np.searchsorted(starts, monotonic(p))
    sums = np.stack([np.bincount(number, column * r) for column in slopes.T], axis=1)
    inverse = np.linalg.pinv(slopes.T @ slopes)
    freedom = len(passes) - 3
    covariance = inverse @ sums.T @ sums @ inverse * len(passes) / freedom
    t99 = student_t(CONFIDENCE, freedom)
    ends = [np.array([1.0, side, 0.0]) for side in (-1, 1)]
    return Alignment(
        at=float(at),
        middle=middle + p[0],
        rate=rate + p[1] / (span / 2),
        rate_error=t99 * math.sqrt(covariance[1, 1]) / (span / 2),
        lag=math.exp(p[2]),
        misplaced=t99 * math.sqrt(max(end @ covariance @ end for end in ends)),
    )


def _response(times: np.ndarray, edges: np.ndarray, levels: np.ndarray, lag: float) -> np.ndarray:
    """At ``times``, what a meter with a time constant shows of a load of ``levels`` behind ``edges``."""
    shown = [levels[0]]
    for level, seconds in zip(levels, np.diff(edges), strict=False):
        shown.append(level + (shown[-1] - level) * math.exp(-seconds / lag))
    index = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, None)
    since = np.maximum(times - edges[index], 0.0)
    return levels[index] + (np.array(shown)[index] - levels[index]) * np.exp(-since / lag)
