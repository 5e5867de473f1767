# SPDX-License-Identifier: Apache-2.0
"""The die's temperature in the course of a measurement."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

IIO = Path("/sys/bus/iio/devices")
Read = Callable[[], "float | None"]  #: degrees Celsius, None where they could not be read this time


def thermometer(target: str, root: Path | None = None) -> tuple[str, Read] | tuple[None, None]:
    """The die's temperature: its source, and a function that gives it.

    Both are None where there is none, as in simulation.
    The source is the XADC or SYSMON, which the kernel shows as an IIO device below `IIO`.
    """
    found = [] if target == "sim" else sorted(glob.glob(str((root or IIO) / "iio:device*" / "in_temp*_raw")))
    for raw in found:
        stem = raw[: -len("raw")]

        def read(stem: str = stem) -> float | None:
            with suppress(OSError, ValueError):
                value, offset, scale = (
                    float(Path(stem + part).read_text()) for part in ("raw", "offset", "scale")
                )
                return (value + offset) * scale / 1e3
            return None

        with suppress(OSError):
            name = (Path(raw).parent / "name").read_text().strip()
            if read() is not None:
                return f"{name} {Path(raw).name}", read
    return None, None


def temperatures(source: str | None, degrees: Sequence[float | None], target: str) -> dict[str, Any]:
    """The part ``temperature``: what was read in the course of a measurement, in degrees Celsius."""
    found = [value for value in degrees if value is not None]
    if source is None:
        return {
            "none": "the simulation has none" if target == "sim" else "no XADC or SYSMON among IIO devices"
        }
    if not found:
        return {"none": f"{source} could not be read"}
    return {"source": source, "first": found[0], "last": found[-1], "highest": max(found)}
