# SPDX-License-Identifier: Apache-2.0
"""The die's temperature in the course of a measurement."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

IIO = Path("/sys/bus/iio/devices")


def thermometer(target: str, root: Path | None = None) -> tuple[str, Callable[[], float]] | tuple[None, None]:
    """The die's temperature: its source, and a function that gives degrees Celsius.

    Both are None where there is none, as in simulation.
    The source is the XADC or SYSMON, which the kernel shows as an IIO device below `IIO`.
    """
    found = [] if target == "sim" else sorted(glob.glob(str((root or IIO) / "iio:device*" / "in_temp*_raw")))
    for raw in found:
        stem = raw[: -len("raw")]

        def read(stem: str = stem) -> float:
            value, offset, scale = (
                float(Path(stem + part).read_text()) for part in ("raw", "offset", "scale")
            )
            return (value + offset) * scale / 1e3

        try:
            read()
            name = (Path(raw).parent / "name").read_text().strip()
        except (OSError, ValueError):
            continue
        return f"{name} {Path(raw).name}", read
    return None, None


def temperatures(source: str | None, degrees: Sequence[float], target: str) -> dict[str, Any]:
    """The part ``temperature``: what was read in the course of a measurement, in degrees Celsius."""
    if source is None:
        return {
            "none": "the simulation has none" if target == "sim" else "no XADC or SYSMON among IIO devices"
        }
    return {"source": source, "first": degrees[0], "last": degrees[-1], "highest": max(degrees)}
