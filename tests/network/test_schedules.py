# SPDX-License-Identifier: Apache-2.0
"""Programs take the cycles that were recorded, by the cycle model: no change costs any unseen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from draws import ARRAYS

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from record import read
from schedules import DRAWN, PUBLISHED, drawn, published, shares

AGAIN = "if that is meant to be: python benchmarks/schedules.py --record"


@pytest.mark.parametrize("number", DRAWN)
@pytest.mark.parametrize("array", ARRAYS)
def test_drawn_networks(array, number):
    assert drawn(array, number) == read("schedules")[f"drawn for {array}"]["figures"][str(number)], AGAIN


@pytest.mark.parametrize("name", sorted({name for _, name in PUBLISHED}))
def test_images_that_share_loads(name):
    assert shares(name) == read("schedules")[f"shares of {name}"]["figures"], AGAIN


@pytest.mark.parametrize(("config", "name"), PUBLISHED)
def test_published_networks(config, name):
    assert published(config, name) == read("schedules")[f"{config} {name}"]["figures"], AGAIN
