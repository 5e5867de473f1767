# SPDX-License-Identifier: Apache-2.0
"""Meters with faults watch a load whose energy is known by construction: their interval holds it, or they are
refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowvit.errors import RowvitError
from rowvit.measure.power.instruments.meter import MeterLog
from rowvit.measure.power.passes import PowerPass, PowerPlan
from rowvit.measure.power.samples import Samples, resolution
from rowvit.measure.power.statistics import figures

IDLE, BUSY = 3.0, 3.75  # watts
IMAGE = 0.05  # seconds


def passes_of(plan: PowerPlan) -> list[PowerPass]:
    """As `rowvit.measure.power.protocol.measure` would make them, with 20 ms between them."""
    passes, now = [], 1000.0
    for pair, kind in plan.order():
        begin = now + plan.settle
        images = round(plan.seconds / IMAGE) * (kind == "busy")
        end = begin + (images * IMAGE or plan.seconds)
        passes.append(PowerPass(pair, kind, now, begin, end, end + plan.tail, images))
        now = end + plan.tail + 0.02
    return passes


@dataclass
class Load:
    """A square wave that follows the passes, warms up, and has bursts.

    Parameters
    ----------
    passes : sequence of PowerPass
    bursts : sequence of (begin, end, watts)
    """

    passes: Sequence[PowerPass]
    bursts: Sequence[tuple[float, float, float]] = ()

    def __post_init__(self) -> None:
        edges, levels = [0.0], [IDLE]
        for p in self.passes:
            edges += [p.start, p.stop]
            levels += [BUSY if p.kind == "busy" else IDLE, IDLE]
        self.edges = np.array([*edges, 1e5])
        self.total = np.concatenate([[0.0], np.cumsum(levels * np.diff(self.edges))])

    def energy(self, until: np.ndarray | float) -> np.ndarray:
        """Joules."""
        found = np.interp(until, self.edges, self.total) + 5e-5 * (np.asarray(until) - 1000) ** 2
        for begin, end, watts in self.bursts:
            found = found + watts * np.clip(until - begin, 0, end - begin)
        return found

    def truth(self) -> dict[str, float]:
        """The energies of an image."""
        watts = {
            (p.pair, p.kind): float(self.energy(p.end) - self.energy(p.begin)) / p.seconds
            for p in self.passes
        }
        busy = [p for p in self.passes if p.kind == "busy"]
        return {
            "joules_per_image": np.mean([watts[p.pair, "busy"] * IMAGE for p in busy]),
            "dynamic_joules_per_image": np.mean(
                [(watts[p.pair, "busy"] - watts[p.pair, "idle"]) * IMAGE for p in busy]
            ),
        }


@dataclass
class Meter:
    """Lags by a time constant, is noisy, has steps, a clock of its own, and gaps in its log.

    Parameters
    ----------
    hz : float
        Readings per second, each the mean since the one before.
    lag : float
        Seconds.
    noise, step : float
        Watts.
    behind : float
        Noise behind the steps, in watts.
    rate, offset : float
        By how much its clock runs fast, relative, and is ahead, in seconds.
    gaps : sequence of (begin, end)
    """

    hz: float = 50.0
    lag: float = 0.0
    noise: float = 0.01
    step: float = 0.01
    behind: float = 0.0
    rate: float = 0.0
    offset: float = 7.0
    gaps: Sequence[tuple[float, float]] = field(default_factory=list)

    def log(self, path: Path, load: Load, rng: np.random.Generator) -> Path:
        """Write what it reads."""
        fine = max(1, round(200 / self.hz))
        edges = np.arange(load.passes[0].start - 20, load.passes[-1].stop + 20, 1 / self.hz / fine)
        watts = np.diff(load.energy(edges)) * self.hz * fine
        if self.lag:  # the response to each piece, which is constant
            gone, shown, out = np.exp(-1 / self.hz / fine / self.lag), watts[0], []
            for power in watts.tolist():
                shown = power + (shown - power) * gone
                out.append(shown)
            watts = np.array(out)
        count = len(watts) // fine
        watts = watts[: count * fine].reshape(count, fine).mean(axis=1)
        watts += rng.normal(0, self.noise, count)
        if self.step:
            watts = np.round(watts / self.step) * self.step
        watts += rng.normal(0, self.behind, count)
        times = edges[: count * fine : fine] + 0.5 / self.hz
        kept = np.ones(count, bool)
        for begin, end in self.gaps:
            kept &= (times < begin) | (times > end)
        times = 1000 + (times - 1000) * (1 + self.rate) + self.offset
        rows = (f"{t:.6f},{w:.6f}\n" for t, w in zip(times[kept], watts[kept], strict=True))
        path.write_text("time,power\n" + "".join(rows))
        return path


PLAN = PowerPlan()  # the default


def found(tmp_path: Path, load: Load, seed: int = 0, step: float | None = None, **meter: Any):
    """The figures by the log of a meter, and how its clock was found to differ."""
    path = Meter(**meter).log(tmp_path / "meter.csv", load, np.random.default_rng(seed))
    reader = MeterLog(path, step=step)
    return figures(load.passes, reader.samples(load.passes)), reader.found.record()


def errors(power: dict[str, Any], load: Load) -> list[float]:
    """Of both energies, in units of the stated uncertainty."""
    return [(power[name]["value"] - true) / power[name]["uncertainty"] for name, true in load.truth().items()]


def relative(power: dict[str, Any]) -> float:
    """The uncertainty of the dynamic energy."""
    one = power["dynamic_joules_per_image"]
    return one["uncertainty"] / one["value"]


@pytest.mark.parametrize(("lag", "most"), [(0.14, 0.03), (1.0, 0.04), (2.0, 0.15), (2.9, 0.4)])
def test_a_meter_that_lags(tmp_path, lag, most):
    load = Load(passes_of(PLAN))
    power, clock = found(tmp_path, load, lag=lag)
    assert np.abs(errors(power, load)).max() <= 1 and relative(power) < most
    assert clock["lag_s"] == pytest.approx(lag, abs=0.02)


def test_a_meter_that_lags_too_far_is_refused(tmp_path):
    """From a quarter of the difference on."""
    load = Load(passes_of(PLAN))
    for lag in (3.2, 4.0):
        with pytest.raises(RowvitError, match=r"load next to it: the instrument lags .* longer --settle"):
            found(tmp_path, load, lag=lag)
    with pytest.raises(RowvitError, match=r"the meter lags by 9\.\d s in passes of 13\.5 s; use a faster"):
        found(tmp_path, load, lag=9.0)
    patient = Load(passes_of(PowerPlan(settle=16.0)))
    power, _ = found(tmp_path, patient, lag=4.0)
    assert np.abs(errors(power, patient)).max() <= 1 and relative(power) < 0.06


@pytest.mark.parametrize("rate", [-0.03, -0.01, 0.001, 0.01, 0.03])
def test_a_clock_that_runs_wrong(tmp_path, rate):
    load = Load(passes_of(PLAN))
    power, clock = found(tmp_path, load, rate=rate)
    assert np.abs(errors(power, load)).max() <= 1 and relative(power) < 0.03
    true = 1e6 * (1 / (1 + rate) - 1)  # seconds of the board in one of the meter's
    assert clock["rate_ppm"] == pytest.approx(true, abs=clock["rate_uncertainty_ppm"])
    assert clock["rate_uncertainty_ppm"] < 500


@pytest.mark.parametrize("busy", [[3], range(20)], ids=["in one pass", "in every busy one"])
def test_a_gap_that_hides_a_burst(tmp_path, busy):
    passes = passes_of(PLAN)
    gaps = [(p.begin + 4, p.begin + 4.95) for i, p in enumerate(passes) if p.kind == "busy" and i in busy]
    load = Load(passes, [(begin + 0.02, end - 0.02, BUSY - IDLE) for begin, end in gaps])
    power, _ = found(tmp_path, load, gaps=gaps)
    assert gaps and np.abs(errors(power, load)).max() <= 1
    whole, _ = found(tmp_path, Load(passes))
    assert relative(power) > relative(whole) and not any(whole["gap_watts"])
    with pytest.raises(RowvitError, match=r"no power sample for 1\.2\d s in a pass of 10\.00 s"):
        found(tmp_path, load, gaps=[(begin, begin + 1.2) for begin, _ in gaps])


def test_readings_that_are_lost_one_by_one_are_no_gap(tmp_path):
    load = Load(passes_of(PLAN))
    gaps = [(t, t + 0.03) for t in np.arange(load.passes[0].start, load.passes[-1].stop, 0.11)]
    power, _ = found(tmp_path, load, gaps=gaps)
    assert np.abs(errors(power, load)).max() <= 1 and not any(power["gap_watts"])


def test_steps_that_noise_hides(tmp_path):
    """10 mW of noise before steps of 50 mW, 1 mW behind them: no two readings are one step apart."""
    load = Load(passes_of(PLAN))
    power, _ = found(tmp_path, load, noise=0.01, step=0.05, behind=0.001)
    assert power["step_watts"] == pytest.approx(0.05, rel=0.02)
    assert np.abs(errors(power, load)).max() <= 1


def test_two_levels_show_no_step(tmp_path):
    """They could be one step apart, unless the meter's resolution is stated."""
    passes = passes_of(PLAN)
    times = np.arange(passes[0].start, passes[-1].stop, 0.02)
    busy = np.array([p.kind == "busy" for p in passes])
    kind = busy[np.searchsorted([p.start for p in passes], times, side="right") - 1]
    rows = (f"{t:.6f},{BUSY if b else IDLE:.2f}\n" for t, b in zip(times, kind, strict=True))
    path = tmp_path / "meter.csv"
    path.write_text("time,power\n0.1,3.00\n" + "".join(rows) + "9999,3.00\n")
    assert relative(figures(passes, MeterLog(path).samples(passes))) > 1
    stated = figures(passes, MeterLog(path, step=0.01).samples(passes))
    assert stated["step_watts"] == 0.01 and relative(stated) < 0.03
    assert stated["delta_watts"]["value"] == pytest.approx(BUSY - IDLE, rel=1e-3)


@given(
    step=st.sampled_from([0.002, 0.01, 0.05, 0.1]),
    noise=st.floats(0.5, 2),
    behind=st.sampled_from([0.0, 0.003, 0.05]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40)
def test_the_step_is_found(step, noise, behind, seed):
    """In readings that noise spreads over neighbouring steps; ``noise`` and ``behind`` are in steps."""
    rng = np.random.default_rng(seed)
    watts = np.where(np.arange(4000) // 200 % 2, BUSY, IDLE) + rng.normal(0, noise * step, 4000)
    watts = np.round(watts / step) * step + rng.normal(0, behind * step, 4000)
    assert resolution(watts) == pytest.approx(step, rel=0.05)


@given(noise=st.floats(1e-4, 0.5), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_noise_is_no_step(noise, seed):
    rng = np.random.default_rng(seed)
    watts = np.where(np.arange(4000) // 200 % 2, BUSY, IDLE) + rng.normal(0, noise, 4000)
    assert resolution(watts) <= 1e-5
    assert Samples(np.arange(4000.0), watts).step() == resolution(watts)


@given(
    lag=st.just(0.0) | st.floats(0.02, 5),
    rate=st.just(0.0) | st.floats(-0.035, 0.035),
    offset=st.floats(-1e4, 1e4),
    noise=st.floats(0.002, 0.3),
    step=st.sampled_from([0.0, 0.01, 0.1]),
    hz=st.sampled_from([10, 50]),
    plan=st.builds(PowerPlan, st.integers(5, 10), st.sampled_from([5.0, 10.0]), st.sampled_from([1.0, 3.0])),
    gaps=st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1), st.floats(0.1, 1.0)), max_size=3),
    burst=st.floats(IDLE - BUSY, BUSY - IDLE),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, derandomize=True)  # at 99 % of confidence, new examples may miss
def test_the_true_energy_lies_in_the_interval(
    tmp_path_factory, lag, rate, offset, noise, step, hz, plan, gaps, burst, seed
):
    passes = passes_of(plan)
    away = []
    for number, place, length in gaps:  # within what counts
        p = passes[number]
        begin = p.begin + place * (p.seconds - length)
        away.append((begin, begin + length))
    load = Load(passes, [(begin, end, burst) for begin, end in away])
    meter = dict(lag=lag, rate=rate, offset=offset, noise=noise, step=step, hz=hz, gaps=away)
    try:
        power, _ = found(tmp_path_factory.mktemp("log"), load, seed, **meter)
    except RowvitError as error:
        assert any(text in str(error) for text in ("lags", "no power sample for", "does not rise and fall"))
        assert lag > plan.settle / 2 or gaps or noise > 0.1, str(error)  # not without a reason
    else:
        assert np.abs(errors(power, load)).max() <= 1
