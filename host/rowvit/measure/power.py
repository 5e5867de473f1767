# SPDX-License-Identifier: Apache-2.0
"""How much energy an image takes: the protocol of a power measurement, and its statistics.

Passes come in pairs, one idle (overlay and network loaded, core not started) and one busy, in shuffled
order, so that drift affects both alike. A figure is stated as its mean over the pairs, its standard error,
and an uncertainty: half of the 99 % interval by Student's t, plus what the steps of the instrument can hide.
The instrument's own accuracy is not in it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rowvit.errors import RowvitError
from rowvit.measure.result import differences
from rowvit.measure.sensors import Instrument, Samples

if TYPE_CHECKING:
    from rowvit.measure.workload import Workload

CONFIDENCE = 0.99
#: fewer pairs say too little about their own spread
FEWEST_PAIRS = 5
#: in a result file; a fast meter's log is kept next to it
MOST_SAMPLES = 20_000

#: the figures of a result: name, unit, and the factor from the result's number to that unit
FIGURES = {
    "idle_watts": ("idle", "W", 1),
    "busy_watts": ("busy", "W", 1),
    "delta_watts": ("busy minus idle", "W", 1),
    "joules_per_image": ("energy per image", "mJ", 1e3),
    "dynamic_joules_per_image": ("of that, above idle", "mJ", 1e3),
    "images_per_second": ("throughput", "images/s", 1),
}


@dataclass(frozen=True)
class Plan:
    """What is done.

    Parameters
    ----------
    pairs : int
        Idle passes, and as many busy ones.
    seconds : float
        Measured part of a pass; a busy one lasts until its last image is done.
    settle : float
        Seconds of the same load before that, which are not counted.
    tail : float
        Seconds of the same load after it, since the sensor lags.
    seed : int
        Of the order.
    """

    pairs: int = 10
    seconds: float = 10.0
    settle: float = 3.0
    tail: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pairs < FEWEST_PAIRS:
            raise RowvitError(
                f"{self.pairs} pairs of passes are too few for an uncertainty", f"use at least {FEWEST_PAIRS}"
            )
        if self.seconds <= 0 or self.settle < 0 or self.tail < 0:
            raise RowvitError("a pass must take more than 0 s, and settle and tail at least 0 s")

    def order(self) -> list[tuple[int, str]]:
        """(pair, "idle" or "busy") of every pass; half of the pairs, drawn at random, start with "busy"."""
        first = np.random.default_rng(self.seed).permutation(np.arange(self.pairs) % 2)
        return [(pair, ("idle", "busy")[first[pair] ^ turn]) for pair in range(self.pairs) for turn in (0, 1)]


@dataclass(frozen=True)
class Pass:
    """One pass; times are seconds of the monotonic clock.

    Parameters
    ----------
    pair : int
    kind : str
        "idle" or "busy".
    start, begin, end, stop : float
        Of the load, and between ``begin`` and ``end`` of what counts.
    images : int
        Classified between ``begin`` and ``end``.
    temperature : float or None
        Degrees Celsius at ``end``.
    """

    pair: int
    kind: str
    start: float
    begin: float
    end: float
    stop: float
    images: int
    temperature: float | None = None

    @property
    def seconds(self) -> float:
        return self.end - self.begin


def measure(
    plan: Plan,
    work: Callable[[], int],
    instrument: Instrument,
    temperature: Callable[[], float] | None = None,
    clock: Any = time,
    progress: Callable[[Pass], None] = lambda done: None,
) -> list[Pass]:
    """Make the passes.

    Parameters
    ----------
    plan : Plan
    work : callable
        Classifies some images and returns how many; the network is loaded already.
    instrument : Instrument
    temperature : callable, optional
        Gives degrees Celsius.
    clock : object
        With ``monotonic()`` and ``sleep(seconds)``.
    progress : callable
        Gets every pass when it is over.

    Raises
    ------
    RowvitError
        The accelerator or the instrument failed.
    """
    work()  # the first start allocates and compiles what later ones reuse
    passes = []
    for pair, kind in plan.order():

        def load(seconds: float, busy: bool = kind == "busy") -> int:
            """Work, or wait, for at least this long; returns the images."""
            if not busy:
                clock.sleep(seconds)
                return 0
            images, until = 0, clock.monotonic() + seconds
            while clock.monotonic() < until:
                images += work()
            return images

        instrument.start()
        try:
            start = clock.monotonic()
            load(plan.settle)
            begin = clock.monotonic()
            images = load(plan.seconds)
            end = clock.monotonic()
            degrees = temperature() if temperature else None
            # beyond the end by two samples, so that the end lies between samples of the same load
            load(max(plan.tail, 2 * instrument.interval))
            stop = clock.monotonic()
        finally:
            instrument.stop()
        passes.append(Pass(pair, kind, start, begin, end, stop, images, degrees))
        progress(passes[-1])
    return passes


def document(
    workload: Workload,
    plan: Plan,
    instrument: Instrument,
    batch: int = 8,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Make the passes, and describe them: the result that ``rowvit power`` writes.

    Parameters
    ----------
    workload : Workload
        All of its images are classified in one call, so that the core never waits for the host through an
        idle pass.
    plan : Plan
    instrument : Instrument
        Without samples yet, or ever, the result lacks figures; see `instruments.meter.join`.
    batch : int
        Images per start of the core.
    progress : callable
        Gets the number of passes done.

    Raises
    ------
    RowvitError
        The target cannot be opened, or the accelerator or the instrument failed.
    """
    from rowvit.measure import result  # not at the top: the help of rowvit power imports this module

    session, (source, read) = workload.session, workload.thermometer()
    found = result.describe("power", session, workload.data)
    target = session.target
    wall = time.time() - time.monotonic()
    done = itertools.count(1)
    passes = measure(
        plan,
        lambda: len(target(workload.images, batch)),
        instrument,
        read,
        progress=lambda _: progress(next(done)),
    )
    degrees = [one.temperature for one in passes if one.temperature is not None]
    found |= {
        "protocol": {
            "warm_up": f"all images once, and {plan.settle:g} s of the same load before every pass",
            "repetitions": plan.pairs,
            "batch": batch,
            **asdict(plan),
            "order": [kind for _, kind in plan.order()],
            "wall_minus_monotonic_s": wall,
        },
        "instrument": {
            "name": instrument.name,
            "measures": instrument.measures,
            "sampling_hz": {"none": instrument.name},
        },
        "idle": {"none": "no power was measured"},
        "temperature": result.temperature(source, degrees, session.target_name),
        "passes": [asdict(one) for one in passes],
        "power": {"none": instrument.name},
    }
    if instrument.available == "now":
        add_figures(found, instrument)
    return found


def add_figures(document: dict[str, Any], instrument: Instrument) -> None:
    """Complete a result with the figures that the instrument's samples give.

    Raises
    ------
    RowvitError
        Samples are missing.
    """
    passes = [Pass(**record) for record in document["passes"]]
    samples = instrument.samples(passes)
    found = figures(passes, samples)
    document["instrument"] |= {"name": instrument.name, "sampling_hz": 1 / samples.interval}
    document["idle"] = {
        "watts": found["idle_watts"]["value"],
        "state": "overlay and network loaded, core not started",
    }
    document["power"] = found


def figures(passes: Sequence[Pass], samples: Samples) -> dict[str, Any]:
    """What the passes say.

    Parameters
    ----------
    passes : sequence of Pass
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
    watts = np.array([samples.energy(p.begin, p.end) / p.seconds for p in passes])
    return _figures(passes, watts, samples.step()) | {"samples": _kept(samples)}


def _figures(passes: Sequence[Pass], watts: np.ndarray, step: float) -> dict[str, Any]:
    """From the mean power of every pass."""
    busy = np.array([p.kind == "busy" for p in passes])
    # pair by pair: the order within a pair is random
    idle_watts, busy_watts = watts[~busy], watts[busy]
    per_image = np.array([p.seconds / p.images for p in passes if p.kind == "busy"])
    estimates = {
        "idle_watts": _estimate(idle_watts, step / 2),
        "busy_watts": _estimate(busy_watts, step / 2),
        "delta_watts": _estimate(busy_watts - idle_watts, step),
        "joules_per_image": _estimate(busy_watts * per_image, step / 2 * per_image.mean()),
        "dynamic_joules_per_image": _estimate((busy_watts - idle_watts) * per_image, step * per_image.mean()),
        "images_per_second": _estimate(1 / per_image, 0.0),
    }
    dynamic = estimates["dynamic_joules_per_image"]
    return {
        "confidence": CONFIDENCE,
        **estimates,
        "significant": bool(dynamic["value"] > dynamic["uncertainty"]),
        "step_watts": step,
        "pass_watts": watts.tolist(),
    }


def disagreements(document: dict[str, Any]) -> list[str]:
    """Figures of a result with power that its own passes and samples do not give; a phrase for each.

    Where the file has only means of the samples, the power of every pass is taken as it is, if the means give
    nearly the same.
    """
    found = document["power"]
    passes = [Pass(**record) for record in document["passes"]]
    kept = found["samples"]
    samples = Samples(np.array(kept["times"]), np.array(kept["watts"]))
    watts = np.array(found["pass_watts"])
    kinds = [one.kind for one in passes]
    if not len(watts) == len(passes) == 2 * kinds.count("busy") or any(p.seconds <= 0 for p in passes):
        return ["power.pass_watts has not one figure for each pass, as many idle as busy"]
    if any(p.kind == "busy" and not p.images for p in passes):
        return ["passes: a busy one has no image"]
    try:
        means = np.array([samples.energy(p.begin, p.end) / p.seconds for p in passes])
    except RowvitError as error:
        return [f"power.samples: {error.message}"]
    exact = kept["means_of"] == 1
    problems = []
    if not np.allclose(means, watts, rtol=1e-6 if exact else 0.05, atol=1e-9):
        problems.append("power.pass_watts is not what power.samples gives")
    # of a log's readings, which may be volts and amperes, the file has the watts only
    step = samples.step() if exact and "log" not in found else found["step_watts"]
    again = _figures(passes, watts, step) | {"confidence": CONFIDENCE}
    problems += differences(found, again, "power")
    problems += differences(document["idle"], {"watts": again["idle_watts"]["value"]}, "idle")
    if watts.min() < 0:
        problems.append(f"power.pass_watts: {watts.min():g} W is below 0: the meter's sign or zero is wrong")
    return problems


def _kept(samples: Samples) -> dict[str, Any]:
    """Samples for the result file: all, or means of as many as make it `MOST_SAMPLES`."""
    block = -(-len(samples.times) // MOST_SAMPLES)
    count = len(samples.times) // block * block
    times, watts = (
        values[:count].reshape(-1, block).mean(axis=1) for values in (samples.times, samples.watts)
    )
    return {"times": times.tolist(), "watts": watts.tolist(), "means_of": block}


def _estimate(values: np.ndarray, hidden: float) -> dict[str, float]:
    """The mean over pairs, its standard error, and half of the interval that holds the true value.

    ``hidden`` is what the instrument's steps may add to every value alike, so that no mean removes it.
    """
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
    half = student_t(CONFIDENCE, len(values) - 1) * error + hidden
    return {"value": float(values.mean()), "standard_error": error, "uncertainty": half}


def student_t(confidence: float, freedom: int) -> float:
    """The t that ``|t|`` of Student's distribution stays below with this confidence."""
    # with t = sqrt(freedom) tan(angle), the distribution is a power of the angle's cosine
    angle = np.linspace(0, math.pi / 2, 100_001)
    height = np.cos(angle) ** (freedom - 1)
    share = np.concatenate([[0.0], np.cumsum(height[1:] + height[:-1])])
    return math.sqrt(freedom) * math.tan(np.interp(confidence, share / share[-1], angle))
