# SPDX-License-Identifier: Apache-2.0
"""The protocol of a power measurement: its order, what it refuses, and its statistics by hand."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
from clocks import FakeClock
from hypothesis import assume, given
from hypothesis import strategies as st

from rowvit.errors import RowvitError
from rowvit.measure.power.instrument import Instrument
from rowvit.measure.power.passes import PowerPass, PowerPlan
from rowvit.measure.power.protocol import measure
from rowvit.measure.power.samples import Samples
from rowvit.measure.power.statistics import MOST_SAMPLES, disagreements, figures, student_t


@given(st.integers(5, 40), st.integers(0, 2**32 - 1))
def test_order_is_paired_and_shuffled(pairs, seed):
    order = PowerPlan(pairs, seed=seed).order()
    assert [pair for pair, _ in order] == [i // 2 for i in range(2 * pairs)]
    firsts = [kind for _, kind in order[::2]]
    assert all(sorted(order[2 * i : 2 * i + 2]) == [(i, "busy"), (i, "idle")] for i in range(pairs))
    assert firsts.count("busy") == pairs // 2  # what drifts falls on both alike
    assert order == PowerPlan(pairs, seed=seed).order()


def test_orders_differ():
    assert len({tuple(PowerPlan(seed=seed).order()) for seed in range(20)}) > 10


def test_plans_that_say_nothing_are_refused():
    with pytest.raises(RowvitError, match="4 pairs of passes are too few for an uncertainty; use at least 5"):
        PowerPlan(4)
    for values in (dict(seconds=0), dict(settle=-1), dict(tail=-0.1)):
        with pytest.raises(RowvitError, match="a pass must take more than 0 s"):
            PowerPlan(**values)


class Recorded(Instrument):
    """Notes when it was on."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__("fake", "nothing", interval=0.5)
        self.clock, self.on = clock, []

    def start(self) -> None:
        self.on.append([self.clock.now])

    def stop(self) -> None:
        self.on[-1].append(self.clock.now)


def test_passes():
    """Settle and tail are not counted, images are; the load goes on beyond the last sample that matters."""
    clock, calls = FakeClock(), []

    def work() -> int:
        calls.append(clock.now)
        clock.sleep(0.3)
        return 2

    instrument, seen, degrees = Recorded(clock), [], iter(range(100))
    plan = PowerPlan(pairs=5, seconds=3.0, settle=1.0, tail=0.2)
    passes = measure(plan, work, instrument, lambda: next(degrees), clock, seen.append)
    assert seen == passes and [(p.pair, p.kind) for p in passes] == plan.order()
    assert [p.temperature for p in passes] == list(range(10))
    for p, (on, off) in zip(passes, instrument.on, strict=True):
        assert on == p.start and off == p.stop
        assert p.begin - p.start >= 1.0 and p.seconds >= 3.0
        assert p.stop - p.end >= 1.0  # two intervals of the instrument, which is more than the tail
        within = [t for t in calls if p.begin <= t < p.end]
        assert p.images == 2 * len(within) == (20 if p.kind == "busy" else 0)


@given(
    plan=st.builds(PowerPlan, st.integers(5, 8), st.floats(0.5, 20), st.floats(0, 5), st.floats(0, 1)),
    work=st.floats(0.05, 30),
    interval=st.floats(0, 1),
)
def test_the_forecast_is_what_it_takes(plan, work, interval):
    parts = np.array([plan.settle, plan.seconds, max(plan.tail, 2 * interval)]) / work
    assume((np.abs(parts - np.round(parts)) > 1e-6)[parts > 0].all())  # else rounding decides
    clock = FakeClock(0.0)

    def classify() -> int:
        clock.sleep(work)
        return 1

    measure(plan, classify, Instrument("fake", "nothing", interval), clock=clock)
    took = clock.now - work  # the first time is not in the passes
    assert plan.forecast(work, interval) == pytest.approx(took, rel=1e-6)


def test_a_failure_stops_the_instrument():
    clock = FakeClock()
    instrument = Recorded(clock)
    calls = iter([1, 1])

    def work() -> int:
        clock.sleep(1)
        try:
            return next(calls)
        except StopIteration:
            raise RowvitError("the accelerator stopped") from None

    with pytest.raises(RowvitError, match="the accelerator stopped"):
        measure(PowerPlan(), work, instrument, clock=clock)
    assert all(len(span) == 2 for span in instrument.on)


def made_up(idle: list[float], busy: list[float], images: list[int]) -> tuple[list[PowerPass], Samples]:
    """Passes of 10 s with constant power, and samples every 0.1 s."""
    passes, times, watts, now = [], [], [], 100.0
    for pair, (low, high, count) in enumerate(zip(idle, busy, images, strict=True)):
        for kind, power in (("idle", low), ("busy", high)):
            passes.append(
                PowerPass(pair, kind, now, now + 1, now + 11, now + 12, count if kind == "busy" else 0)
            )
            times.append(now + np.arange(121) * 0.1)
            watts.append(np.full(121, power))
            now += 13
    return passes, Samples(np.concatenate(times), np.concatenate(watts))


def test_figures_by_hand():
    idle, busy, images = [3.0, 3.1, 2.9, 3.0, 3.0], [4.0, 4.2, 3.9, 4.1, 3.8], [100, 110, 100, 90, 100]
    found = figures(*made_up(idle, busy, images))
    # mean and standard error of the differences 1.0, 1.1, 1.0, 1.1, 0.8, by hand
    assert found["delta_watts"]["value"] == pytest.approx(1.0)
    error = math.sqrt((0 + 0.01 + 0 + 0.01 + 0.04) / 4 / 5)
    assert found["delta_watts"]["standard_error"] == pytest.approx(error)
    # 4.604 is the t of 99 % with 4 degrees of freedom; the readings lie 0.1 W apart
    assert found["step_watts"] == pytest.approx(0.1)
    assert found["delta_watts"]["uncertainty"] == pytest.approx(4.604 * error + 0.1, rel=1e-3)
    joules = [b * 10 / n for b, n in zip(busy, images, strict=True)]
    assert found["joules_per_image"]["value"] == pytest.approx(sum(joules) / 5)
    dynamic = [(b - i) * 10 / n for b, i, n in zip(busy, idle, images, strict=True)]
    assert found["dynamic_joules_per_image"]["value"] == pytest.approx(sum(dynamic) / 5)
    assert found["images_per_second"]["value"] == pytest.approx(10.0)
    assert found["pass_watts"] == pytest.approx([w for pair in zip(idle, busy, strict=True) for w in pair])
    assert found["significant"]


def test_no_difference_is_said_to_be_none():
    for more in (0.0, 0.02):
        busy = [watts + more for watts in (3.0, 3.0, 3.1, 2.9, 3.0)]
        found = figures(*made_up([3.0, 3.1, 2.9, 3.0, 3.0], busy, [10] * 5))
        assert found["dynamic_joules_per_image"]["value"] == pytest.approx(more)
        assert not found["significant"]


def test_a_pass_without_samples_is_refused():
    passes, samples = made_up([3.0] * 5, [4.0] * 5, [10] * 5)
    away = (samples.times < 140) | (samples.times > 143)
    with pytest.raises(RowvitError, match=r"no power sample for 3\.\d+ s"):
        figures(passes, Samples(samples.times[away], samples.watts[away]))


def test_long_logs_are_kept_as_means():
    passes, samples = made_up([3.0] * 5, [4.0] * 5, [10] * 5)
    assert figures(passes, samples)["samples"]["means_of"] == 1
    times = np.arange(0, 300, 0.002)
    kept = figures(passes, Samples(times, np.interp(times, samples.times, samples.watts)))["samples"]
    # without what comes long before and behind the passes
    near = (times > passes[0].start - 10.01) & (times < passes[-1].stop + 10.01)
    assert kept["means_of"] == math.ceil(near.sum() / MOST_SAMPLES) > 1
    assert len(kept["times"]) <= MOST_SAMPLES
    assert np.mean(kept["times"]) == pytest.approx(times[near].mean(), rel=1e-3)


@pytest.mark.parametrize("every", [0.002, 0.0021, 0.0033])
def test_means_reach_as_far_as_the_log(every):
    """A log may end a moment behind the last pass."""
    passes, samples = made_up([3.0] * 5, [4.0] * 5, [10] * 5)
    times = np.arange(passes[0].start, passes[-1].end + 2 * every, every)
    found = figures(passes, Samples(times, np.interp(times, samples.times, samples.watts)))
    kept, block = found["samples"], found["samples"]["means_of"]
    assert block > 1 and len(kept["times"]) <= MOST_SAMPLES
    assert (kept["times"][0], kept["times"][-1]) == (times[0], times[-1])
    inner = [
        times[first : min(first + block, len(times) - 1)].mean() for first in range(1, len(times) - 1, block)
    ]
    np.testing.assert_allclose(kept["times"][1:-1], inner)
    document = {
        "passes": [asdict(one) for one in passes],
        "power": found,
        "idle": {"watts": found["idle_watts"]["value"]},
    }
    assert disagreements(document) == []


@pytest.mark.parametrize(
    ("confidence", "freedom", "t"),  # as printed in tables
    [
        (0.95, 4, 2.776),
        (0.99, 4, 4.604),
        (0.99, 9, 3.250),
        (0.999, 8, 5.041),
        (0.99, 60, 2.660),
        (0.9, 1, 6.314),
    ],
)
def test_students_t(confidence, freedom, t):
    assert student_t(confidence, freedom) == pytest.approx(t, abs=1.5e-3)
