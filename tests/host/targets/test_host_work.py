# SPDX-License-Identifier: Apache-2.0
"""The driver's work per image, counted in instructions: no step needs a tenth more than what is recorded."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

ARCH = "x86"  # valgrind counts this machine's
MORE = 1.1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="counting needs valgrind")
def test_no_step_takes_more_than_recorded() -> None:
    """`python benchmarks/host.py stream --record` records what a change costs or saves on purpose."""
    import host
    from record import read

    counts = host.counted(host.Architecture(ARCH), ["stream"])
    recorded = {name: entry["figures"]["million"] for name, entry in read("host").items()}
    assert {f"{ARCH} {step}" for step in counts} <= recorded.keys()
    over = {
        step: f"{count / 1e6:.3g} million instructions, recorded {recorded[f'{ARCH} {step}']:.3g}"
        for step, count in counts.items()
        if count / 1e6 > MORE * recorded[f"{ARCH} {step}"]
    }
    assert not over
