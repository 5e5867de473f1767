# SPDX-License-Identifier: Apache-2.0
"""What the build of an overlay says, where nothing was built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rowvit.formats.provenance import Provenance, sha256
from rowvit.hardware import config as configs


def built(bit: Path, **changes: object) -> Provenance:
    """Write what the build of an overlay for `tiny` said, next to its .bit and .hwh."""
    tiny = configs.load("tiny")
    made = Provenance(
        **dict(board="Pynq-Z2", part="xc7z020clg400-1", configuration="tiny", frontend="host"),
        structure=tiny.structure(),
        config_hash=f"{tiny.hash:08X}",
        **dict(revision="0123456789abcdef", dirty=False, tool="Vivado 2022.2", strategy="any", board_file=""),
        **dict(clock_mhz=100.0, actual_clock_mhz=100.0, setup_slack_ns=0.1, hold_slack_ns=0.01),
        utilisation={"lut": {"used": 1.0, "available": 2.0}},
        date="2026-01-01T00:00:00+00:00",
        files={path.name: sha256(path) for path in (bit, bit.with_suffix(".hwh"))},
    )
    made = replace(made, **changes)
    made.write(bit.with_suffix(".json"))
    return made
