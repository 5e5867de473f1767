# SPDX-License-Identifier: Apache-2.0
"""Every fault of `faults.FAULTS` once: a sentence or right results, and right again afterwards.

`make soak` does it thousands of times.
"""

from __future__ import annotations

import numpy as np
import pytest

from faults import CONFIGURATIONS, FAULTS, Outcome, Rig, attempt


@pytest.fixture(scope="module")
def rig():
    """On `tiny`, whose simulator other tests build, too."""
    number = 0
    while True:
        with Rig(np.random.default_rng(number)) as found:
            if found.config is CONFIGURATIONS[0]:
                yield found
                return
        number += 1


@pytest.mark.parametrize("name", FAULTS)
def test_fault(rig, name):
    rig.rng = np.random.default_rng(list(FAULTS).index(name))  # whichever faults came before
    outcome = attempt(rig, name)
    assert outcome.passed, outcome


def test_what_passes():
    """Results that are wrong without a sentence pass only where nothing has a checksum."""
    checked = next(name for name, fault in FAULTS.items() if fault.checked)
    bare = next(name for name, fault in FAULTS.items() if not fault.checked)
    found = {
        (name, ended, after): Outcome(name, ended, after).passed
        for name in (checked, bare)
        for ended in ("error", "right", "wrong", "crash", "hang")
        for after in (True, False)
    }
    assert {key for key, passed in found.items() if passed} == {
        *((checked, ended, True) for ended in ("error", "right")),
        *((bare, ended, True) for ended in ("error", "right", "wrong")),
    }
