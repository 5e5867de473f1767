# SPDX-License-Identifier: Apache-2.0
"""How much energy an image takes: the protocol of a power measurement, and its statistics.

Passes come in pairs, one idle (overlay and network loaded, core not started) and one busy, in shuffled
order, so that drift affects both alike. A figure is stated as its mean over the pairs, its standard error,
and an uncertainty: half of the 99 % interval by Student's t, plus what the instrument can hide by its steps,
by gaps between its samples, and by its lag or its clock, which put the load of one pass into the next. The
instrument's own accuracy is not in it.
"""

from __future__ import annotations

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
#: with more of the load next to it in the first half of a pass than in the second, relative to the difference
#: of the loads, a measurement is refused
MOST_LEAK = 0.1

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

    def forecast(self, work: float, interval: float = 0.0) -> float:
        """Seconds that it takes, if the shortest load takes ``work`` seconds, and a sample ``interval``."""
        parts = self.settle, self.seconds, max(self.tail, 2 * interval)
        return self.pairs * sum(part + math.ceil(part / work) * work for part in parts)


#: on a simulated accelerator, which takes seconds for an image, and whose power nobody asks for
DRY_RUN = Plan(pairs=5, seconds=2.0, settle=0.5)


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
    progress: Callable[[float, str, float], None] = lambda done, note, total: None,
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
        Gets seconds that the passes have taken, a phrase, and seconds that they will take in all: known when
        the images have been classified once.

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
    done: list[Pass] = []
    begun = total = 0.0

    def note() -> None:
        progress(time.monotonic() - begun, f"{len(done)} of {2 * plan.pairs} passes", total)

    def work() -> int:
        nonlocal begun, total
        start = time.monotonic()
        images = len(target(workload.images, batch))
        if not begun:
            begun = time.monotonic()
            total = plan.forecast(begun - start, instrument.interval)
        note()
        return images

    def over(one: Pass) -> None:
        done.append(one)
        note()

    passes = measure(plan, work, instrument, read, progress=over)
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
    return _figures(passes, _readings(passes, samples)) | {"samples": _kept(samples)}


def _readings(passes: Sequence[Pass], samples: Samples) -> dict[str, Any]:
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


def _figures(passes: Sequence[Pass], readings: dict[str, Any]) -> dict[str, Any]:
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
    passes: Sequence[Pass], watts: np.ndarray, readings: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Watts of the loads next to it that each pass has in it, and their uncertainty.

    An instrument that lags shows the load before a pass in its first half more than in its second; a log
    that is misplaced shows the load behind it in its second. Drift does neither, since the order of the
    passes is random.

    Raises
    ------
    RowvitError
        It is more than `MOST_LEAK` beyond doubt.
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
    if (shares - errors)[1:].max() > MOST_LEAK:
        raise RowvitError(
            f"one half of a pass has {shares[1:].max():.0%} more than the other of the load next to it: the"
            " instrument lags or averages over too long a time",
            "use a longer --settle, or a faster instrument",
        )
    sides = np.abs(sides)
    sides[0, 0] = abs(apart)
    sides *= _fading(passes)
    most = sides @ np.maximum(shares[1:], 0.0)
    if not own:
        misplaced = readings["misplaced_s"]
        late = [max(0, misplaced - p.begin + p.start) + max(0, misplaced - p.stop + p.end) for p in passes]
        most += abs(apart) * np.array(late) / [p.seconds for p in passes]
    return most, sides @ errors[1:]


def _fading(passes: Sequence[Pass]) -> float:
    """What remains of the load before a pass, in the mean over it, relative to what its halves differ by.

    It is half of that if it is gone by the second half, and more the more slowly it fades. Taken is the
    largest time constant, of those up to a pass, with which the halves would differ by no more than
    `MOST_LEAK`.
    """
    settle = min((p.begin - p.start) / p.seconds for p in passes)
    constants = np.linspace(0.01, 1, 100)  # in passes
    left = np.exp(-0.5 / constants)  # behind a half
    seen = 2 * constants * np.exp(-settle / constants) * (1 - left) ** 2
    return float(((1 + left) / (2 * (1 - left)))[seen <= MOST_LEAK].max())


def disagreements(document: dict[str, Any]) -> list[str]:
    """Figures of a result with power that its own passes and samples do not give; a phrase for each.

    Where the file has only means of the samples, the power of every pass is taken as it is, if the means give
    nearly the same.
    """
    found = document["power"]
    passes = [Pass(**record) for record in document["passes"]]
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


def _kept(samples: Samples) -> dict[str, Any]:
    """Samples for the result file: all, or means of as many as make it `MOST_SAMPLES`."""
    block = -(-len(samples.times) // MOST_SAMPLES)
    count = len(samples.times) // block * block
    times, watts = (
        values[:count].reshape(-1, block).mean(axis=1) for values in (samples.times, samples.watts)
    )
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
