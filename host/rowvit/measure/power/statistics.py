# SPDX-License-Identifier: Apache-2.0
"""What the passes of a power measurement and its samples say: figures with their uncertainties.

A figure is stated as its mean over the pairs, its standard error, and an uncertainty: half of the 99 %
interval by Student's t, plus what the instrument can hide by its steps, by gaps between its samples, and by
its lag or its clock, which put the load of one pass into the next. The instrument's own accuracy is not in
it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rowvit.errors import RowvitError
from rowvit.measure.power.instrument import Instrument
from rowvit.measure.power.passes import FEWEST_PAIRS, PowerPass
from rowvit.measure.power.samples import Samples
from rowvit.measure.result import differences

CONFIDENCE = 0.99
#: in a result file; a fast meter's log is kept next to it
MOST_SAMPLES = 20_000
_AROUND = 10.0  # seconds before and behind the passes whose samples count
#: a measurement is refused where the loads next to passes hide more than this share of the difference between
#: idle and busy beyond doubt
MOST_LEAK = 0.25

#: the figures of a result: name, unit, and the factor from the result's number to that unit
FIGURES = {
    "idle_watts": ("idle", "W", 1),
    "busy_watts": ("busy", "W", 1),
    "delta_watts": ("busy minus idle", "W", 1),
    "joules_per_image": ("energy per image", "mJ", 1e3),
    "dynamic_joules_per_image": ("of that, above idle", "mJ", 1e3),
    "images_per_second": ("throughput", "images/s", 1),
}


def add_figures(document: dict[str, Any], instrument: Instrument) -> None:
    """Complete a result with the figures that the instrument's samples give.

    Raises
    ------
    RowvitError
        Samples are missing.
    """
    passes = [PowerPass(**record) for record in document["passes"]]
    samples = instrument.samples(passes)
    found = figures(passes, samples)
    document["instrument"] |= {"name": instrument.name, "sampling_hz": 1 / samples.interval}
    document["idle"] = {
        "watts": found["idle_watts"]["value"],
        "state": "overlay and network loaded, core not started",
    }
    document["power"] = found


def figures(passes: Sequence[PowerPass], samples: Samples) -> dict[str, Any]:
    """What the passes say.

    Parameters
    ----------
    passes : sequence of PowerPass
        From `measure`.
    samples : Samples

    Returns
    -------
    dict
        The part ``power`` of a result; "significant" is whether the dynamic energy is more than its
        uncertainty.

    Raises
    ------
    RowvitError
        Samples are missing.
    """
    samples = _near(passes, samples)
    return _figures(passes, _readings(passes, samples)) | {"samples": _kept(samples)}


def _readings(passes: Sequence[PowerPass], samples: Samples) -> dict[str, Any]:
    """What the samples say of the passes, under its names in a result; all figures come from it."""
    lengths = np.array([p.seconds for p in passes])
    joules = np.array([samples.energy(p.begin, p.end) for p in passes])
    firsts = np.array([samples.integral(p.begin, p.begin + p.seconds / 2) for p in passes])
    return {
        "pass_watts": (joules / lengths).tolist(),
        "half_watts": ((2 * firsts - joules) / (lengths / 2)).tolist(),
        "gap_watts": [samples.hidden(p.begin, p.end) / p.seconds for p in passes],
        "step_watts": samples.step(),
        "misplaced_s": samples.misplaced,
    }


def _figures(passes: Sequence[PowerPass], readings: dict[str, Any]) -> dict[str, Any]:
    """From `_readings`; ``leak_watts`` is what of the loads next to it a pass may have in it."""
    watts, step = np.array(readings["pass_watts"]), readings["step_watts"]
    busy = np.array([p.kind == "busy" for p in passes])
    leak, leak_error = _leak(passes, watts, readings)
    hidden = step / 2 + np.array(readings["gap_watts"]) + leak
    idle_hidden, busy_hidden = (
        (float(hidden[kind].mean()), float(leak_error[kind].mean())) for kind in (~busy, busy)
    )
    both = idle_hidden[0] + busy_hidden[0], idle_hidden[1] + busy_hidden[1]
    # pair by pair: the order within a pair is random
    idle_watts, busy_watts = watts[~busy], watts[busy]
    delta = busy_watts - idle_watts
    per_image = np.array([p.seconds / p.images for p in passes if p.kind == "busy"])
    mean = float(per_image.mean())
    estimates = {
        "idle_watts": _estimate(idle_watts, idle_hidden),
        "busy_watts": _estimate(busy_watts, busy_hidden),
        "delta_watts": _estimate(delta, both),
        "joules_per_image": _estimate(busy_watts * per_image, busy_hidden, mean),
        "dynamic_joules_per_image": _estimate(delta * per_image, both, mean),
        "images_per_second": _estimate(1 / per_image),
    }
    dynamic = estimates["dynamic_joules_per_image"]
    return {
        "confidence": CONFIDENCE,
        **estimates,
        "significant": bool(dynamic["value"] > dynamic["uncertainty"]),
        "leak_watts": float((leak + leak_error).mean()),
        **readings,
    }


def _leak(
    passes: Sequence[PowerPass], watts: np.ndarray, readings: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Watts of the loads next to it that each pass has in it, and their uncertainty.

    An instrument that lags shows the load before a pass in its first half more than in its second; a log
    that is misplaced shows the load behind it in its second. Drift does neither, since the order of the
    passes is random.

    Raises
    ------
    RowvitError
        It is more than `MOST_LEAK` of the difference, beyond doubt.
    """
    busy = np.array([p.kind == "busy" for p in passes], float)
    apart = watts[busy == 1].mean() - watts[busy == 0].mean()
    before, after = np.insert(busy[:-1], 0, 0.0) - busy, np.append(busy[1:], 0.0) - busy
    # on the board's own clock an instrument shows nothing that comes later
    own = readings["misplaced_s"] is None
    sides = np.stack([before] if own else [before, after], axis=1) * apart
    # of the load before the first pass nothing is known
    table = np.insert(sides * ([1] if own else [1, -1]), 0, 1.0, axis=1)[1:]
    halves = np.array(readings["half_watts"])[1:]
    inverse = np.linalg.pinv(table.T @ table)
    shares = inverse @ table.T @ halves
    rest = halves - table @ shares
    freedom = len(table) - table.shape[1]
    errors = np.sqrt(np.diag(inverse) * (rest @ rest) / freedom) * student_t(CONFIDENCE, freedom)
    sides = np.abs(sides)
    sides[0, 0] = abs(apart)
    sides *= _fading(passes, float((shares + errors)[1:].max()))
    certain = sides @ np.maximum((shares - errors)[1:], 0.0)
    if certain[busy == 1].mean() + certain[busy == 0].mean() > MOST_LEAK * abs(apart):
        raise RowvitError(
            f"one half of a pass has {shares[1:].max():.0%} more than the other of the load next to it: the"
            " instrument lags or averages over too long a time",
            "use a longer --settle, or a faster instrument",
        )
    most = sides @ np.maximum(shares[1:], 0.0)
    if not own:
        misplaced = readings["misplaced_s"]
        late = [max(0, misplaced - p.begin + p.start) + max(0, misplaced - p.stop + p.end) for p in passes]
        most += abs(apart) * np.array(late) / [p.seconds for p in passes]
    return most, sides @ errors[1:]


def _fading(passes: Sequence[PowerPass], most: float) -> float:
    """What remains of the load before a pass, in the mean over it, relative to what its halves differ by.

    It is half of that if it is gone by the second half, and more the more slowly it fades. Taken is the
    largest time constant, of those up to a pass, with which the halves would differ by no more than ``most``
    of the difference between the loads.
    """
    settle = min((p.begin - p.start) / p.seconds for p in passes)
    constants = np.linspace(0.01, 1, 100)  # in passes
    left = np.exp(-0.5 / constants)  # behind a half
    seen = 2 * constants * np.exp(-settle / constants) * (1 - left) ** 2
    return float(((1 + left) / (2 * (1 - left)))[seen <= max(most, seen[0])].max())


def disagreements(document: dict[str, Any]) -> list[str]:
    """Figures of a result with power that its own passes and samples do not give; a phrase for each.

    Where the file has only means of the samples, the power of every pass is taken as it is, if the means give
    nearly the same.
    """
    found = document["power"]
    passes = [PowerPass(**record) for record in document["passes"]]
    kept = found["samples"]
    samples = Samples(np.array(kept["times"]), np.array(kept["watts"]))
    kinds = [one.kind for one in passes]
    for key in ("pass_watts", "half_watts", "gap_watts"):
        if not 2 * kinds.count("busy") == len(passes) == len(found[key]) or any(
            p.seconds <= 0 for p in passes
        ):
            return [f"power.{key} has not one figure for each pass, as many idle as busy"]
    if len(passes) < 2 * FEWEST_PAIRS:
        return [f"passes: fewer than {FEWEST_PAIRS} pairs"]
    if any(p.kind == "busy" and not p.images for p in passes):
        return ["passes: a busy one has no image"]
    exact = kept["means_of"] == 1
    try:
        readings = _readings(passes, samples)
    except RowvitError as error:
        return [f"power.samples: {error.message}"]
    problems = []
    for key, values in readings.items():
        # the file has watts only, not the volts and amperes, or several sensors, whose steps it states
        if key in ("step_watts", "misplaced_s") or not (exact or key == "pass_watts"):
            continue
        if not np.allclose(values, found[key], rtol=1e-6 if exact else 0.05, atol=1e-9):
            problems.append(f"power.{key} is not what power.samples gives")
    stated = found.get("log", {}).get("resolution_w") is not None
    if exact and not stated and found["step_watts"] < readings["step_watts"] * (1 - 1e-6):
        problems.append("power.step_watts is less than between any two of power.samples")
    try:
        again = _figures(passes, {key: found[key] for key in readings})
    except RowvitError as error:
        return [*problems, f"power: {error.message}"]
    problems += differences(found, {k: v for k, v in again.items() if k not in readings}, "power")
    problems += differences(document["idle"], {"watts": again["idle_watts"]["value"]}, "idle")
    if (least := min(found["pass_watts"])) < 0:
        problems.append(f"power.pass_watts: {least:g} W is below 0: the meter's sign or zero is wrong")
    return problems


def _near(passes: Sequence[PowerPass], samples: Samples) -> Samples:
    """Without what a log has long before and behind the passes."""
    ends = min(p.start for p in passes) - _AROUND, max(p.stop for p in passes) + _AROUND
    first, last = np.searchsorted(samples.times, ends)
    own = slice(max(int(first) - 1, 0), int(last) + 1)
    return replace(samples, times=samples.times[own], watts=samples.watts[own])


def _kept(samples: Samples) -> dict[str, Any]:
    """Samples for the result file: all, or the first, the last, and between them means of so many, and of
    what is left, that it has at most `MOST_SAMPLES`.
    """
    count = len(samples.times)
    block = max(1, -(-(count - 2) // (MOST_SAMPLES - 2)))
    starts = sorted({0, *range(1, count - 1, block), count - 1})
    counts = np.diff([*starts, count])
    times, watts = (np.add.reduceat(values, starts) / counts for values in (samples.times, samples.watts))
    return {"times": times.tolist(), "watts": watts.tolist(), "means_of": block}


def _estimate(
    values: np.ndarray, hidden: tuple[float, float] = (0.0, 0.0), factor: float = 1.0
) -> dict[str, float]:
    """The mean over pairs, its standard error, and half of the interval that holds the true value.

    ``hidden``, times ``factor``, is what the instrument may add to every value alike, so that no mean removes
    it; and the random error of that, which is independent of the values' own.
    """
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
    half = math.hypot(student_t(CONFIDENCE, len(values) - 1) * error, factor * hidden[1]) + factor * hidden[0]
    return {"value": float(values.mean()), "standard_error": error, "uncertainty": half}


def student_t(confidence: float, freedom: int) -> float:
    """The t that ``|t|`` of Student's distribution stays below with this confidence."""
    # with t = sqrt(freedom) tan(angle), the distribution is a power of the angle's cosine
    angle = np.linspace(0, math.pi / 2, 100_001)
    height = np.cos(angle) ** (freedom - 1)
    share = np.concatenate([[0.0], np.cumsum(height[1:] + height[:-1])])
    return math.sqrt(freedom) * math.tan(np.interp(confidence, share / share[-1], angle))
