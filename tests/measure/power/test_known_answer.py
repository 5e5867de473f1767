# SPDX-License-Identifier: Apache-2.0
"""The whole protocol on a board whose energy per image is known: does its uncertainty hold what it says?"""

from __future__ import annotations

import numpy as np
import pytest
from clocks import FakeClock
from fakes import FakeBoard, FakeSensor, results

from rowvit.errors import RowvitError
from rowvit.measure.power.passes import PowerPlan
from rowvit.measure.power.protocol import measure
from rowvit.measure.power.statistics import figures

RUNS = 100


def study(plan: dict, **sensor) -> dict[str, np.ndarray]:
    """Of every seeded run: errors of both energies in units of the stated uncertainty; that, relative."""
    rows = []
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        board = FakeBoard(FakeClock(), rng)
        instrument = FakeSensor(board, rng, **sensor)
        passes = measure(PowerPlan(seed=seed, **plan), board.work, instrument, clock=board.clock)
        found = figures(passes, instrument.samples(passes))
        row = {}
        for name, truth in (
            ("dynamic_joules_per_image", board.truth()),
            ("joules_per_image", board.total(passes)),
        ):
            estimate = found[name]
            row[name] = (estimate["value"] - truth) / estimate["uncertainty"]
            row[f"{name} relative"] = estimate["uncertainty"] / truth
        assert found["significant"]
        rows.append(row)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def test_the_images_differ():
    energies = [r.counters["fires"] for r in results()]
    assert len(set(energies)) > 4 and max(energies) > 1.05 * min(energies)


@pytest.mark.parametrize(
    "sensor",
    [
        dict(),  # as an INA260: it averages over 140 ms, and has steps of 10 mW
        dict(noise=0.2, average=0.002, step=0.0),  # fast and noisy
        dict(noise=0.0, step=0.1),  # coarse
    ],
    ids=["ina260", "noisy", "coarse"],
)
def test_true_energy_lies_within_the_uncertainty(sensor):
    found = study(dict(pairs=10, seconds=5.0, settle=1.0, tail=0.5), **sensor)
    for name in ("dynamic_joules_per_image", "joules_per_image"):
        assert (np.abs(found[name]) <= 1).sum() >= 95, name
    # and the uncertainty is worth stating
    assert np.median(found["dynamic_joules_per_image relative"]) < 0.15
    assert np.median(found["joules_per_image relative"]) < 0.03


def test_it_is_missed_where_the_sensor_is_wrong():
    """The study can fail: a sensor that reads 10 % high, which the uncertainty does not include."""
    found = study(dict(pairs=10, seconds=5.0, settle=1.0, tail=0.5), scale=1.1)
    assert (np.abs(found["dynamic_joules_per_image"]) <= 1).sum() < 5


def test_a_sensor_that_lags_is_refused_where_nothing_settles():
    """It sees some of the pass before."""
    with pytest.raises(RowvitError, match="of the load next to it: the instrument lags or averages"):
        study(dict(pairs=10, seconds=5.0, settle=0.0, tail=0.5), average=1.5)
