# SPDX-License-Identifier: Apache-2.0
"""Rounding of the patch embedding: errors that cancel where inputs are alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowvit.quant.rounding import compensated

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=50)
@given(seed=SEEDS, inputs=st.integers(1, 300))
def test_alike_inputs_keep_their_sum(seed: int, inputs: int) -> None:
    """Inputs that are all the same see only the weights' sum: it stays, to the last weight's rounding."""
    levels = np.random.default_rng(seed).uniform(-100, 100, (3, inputs))
    found = compensated(levels, np.ones((inputs, inputs)))
    assert np.array_equal(found, np.round(found))
    assert np.abs(found.sum(axis=1) - levels.sum(axis=1)).max() < 0.6  # the damping lets 0.1 pass


@settings(max_examples=50)
@given(seed=SEEDS, inputs=st.integers(1, 40), scale=st.sampled_from([1e-6, 1.0, 1e9]))
def test_independent_inputs_round_to_nearest(seed: int, inputs: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    levels, moment = rng.uniform(-127, 127, (4, inputs)), np.diag(rng.uniform(0.1, 1, inputs)) * scale
    assert np.array_equal(compensated(levels, moment), np.round(levels))


@settings(max_examples=50)
@given(seed=SEEDS, inputs=st.integers(2, 260))
def test_within_the_limit_and_never_far(seed: int, inputs: int) -> None:
    """Channels at the limit stay within it; weights move by a few units at most."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(-127, 127, (3, inputs))
    levels[:, 0] = 127
    rows = rng.standard_normal((2 * inputs, inputs)).cumsum(axis=1)
    found = compensated(levels, rows.T @ rows)
    assert np.abs(found).max() <= 127
    assert np.abs(found - levels).max() < 8


def test_inputs_that_are_always_zero() -> None:
    assert compensated(np.array([[0.4, 1.6]]), np.zeros((2, 2))).tolist() == [[0, 2]]
    some = np.diag([1.0, 0.0])
    assert compensated(np.array([[0.4, 1.6]]), some).tolist() == [[0, 2]]


@pytest.mark.parametrize("inputs", [75, 192, 588])
def test_smooth_rows_lose_less(inputs: int) -> None:
    """Rows like those of a photo, on rows that the rounding has not seen: ten times less error power."""
    rng = np.random.default_rng(inputs)
    seen, unseen = rng.standard_normal((2, 3000, inputs)).cumsum(axis=2)
    levels = rng.standard_normal((16, inputs)) * 30
    errors = [rounded - levels for rounded in (np.round(levels), compensated(levels, seen.T @ seen))]
    nearest, found = (np.square(unseen @ error.T).sum() for error in errors)
    assert found < nearest / 10
