# SPDX-License-Identifier: Apache-2.0
"""The host's work, counted in instructions: no step needs a tenth more than what is recorded.

The limits are for the versions of Python, NumPy and Pillow that are recorded with them: what takes more with
others is told, and no failure.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

ARCH = "x86"  # valgrind counts this machine's
MORE = 1.1


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="counting needs valgrind")
@pytest.mark.parametrize(
    "groups",
    [
        ["import", "load"],
        pytest.param(["compile", "photos", "stream"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_no_step_takes_more_than_recorded(groups: list[str], tmp_path: Path, monkeypatch) -> None:
    """`python benchmarks/host.py --record` records what a change costs or saves on purpose."""
    import host
    from record import read

    from rowvit.measure.result import versions

    monkeypatch.setattr(host, "FOLDER", tmp_path)
    for name in ("ROWVIT_CACHE", "ROWVIT_CACHE_PROGRAMS"):
        monkeypatch.setenv(name, "")  # which counting changes
    counts = host.counted(host.Architecture(ARCH), groups)
    recorded = read("host")
    over, others = {}, set()
    for step, count in counts.items():
        record = recorded[f"{ARCH} {step}"]
        limit = MORE * record["figures"]["million"]
        if count / 1e6 > limit:
            over[step] = f"{count / 1e6:.3g} million instructions, at most {limit:.3g}"
            others |= record["versions"].items() - versions().items()
    if others:
        pytest.skip(f"recorded with {sorted(others)}, and more here: {over}")
    assert not over
