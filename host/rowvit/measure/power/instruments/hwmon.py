# SPDX-License-Identifier: Apache-2.0
"""INA226, INA260 and similar power sensors that the kernel reads."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from rowvit.errors import RowvitError
from rowvit.measure.power.instrument import Recorder, Wanted, instrument, rails_of

HWMON = Path("/sys/class/hwmon")


@instrument("hwmon", "INA226 or INA260 of the kernel")
def hwmon(wanted: Wanted, root: Path | None = None) -> Recorder:
    """Sensors by the name that the kernel gives them, since their numbers change.

    Parameters
    ----------
    wanted : Wanted
        ``rails`` are names of sensors, or the start of one.
    root : Path, optional
        The directory of the ``hwmon*``; by default `HWMON`.

    Raises
    ------
    RowvitError
        The board has no sensor, none is known for it, no sensor or more than one has the name, or the
        sensor gives no power.
    """
    from rowvit.pynq import pmbus

    root = root or HWMON
    rails, measures = rails_of("hwmon", wanted)
    found = {file.parent: file.read_text().strip() for file in sorted(root.glob("hwmon*/name"))}
    sensors, intervals = [], [wanted.interval]
    for name in rails:
        fits = [p for p, n in found.items() if n == name] or [
            p for p, n in found.items() if n.startswith(name)
        ]
        if len(fits) != 1:
            state = "is the name of several" if fits else "is missing, so its power is unknown"
            listed = ", ".join(sorted(found.values())) or "no sensors"
            raise RowvitError(f"sensor {name} {state}; {root} has {listed}", "name one with --rail")
        path, label = fits[0], found[fits[0]]
        if not (path / "power1_input").is_file():
            raise RowvitError(f"sensor {label} ({path}) measures no power: it has no power1_input")
        sensors.append(pmbus.SysFSSensor(str(path / "power1_input"), "W", label, 1e-6))
        with suppress(OSError, ValueError):
            # it averages over this time: faster reading would give the same value again
            intervals.append(float((path / "update_interval").read_text()) / 1e3)
    return Recorder(f"hwmon {' + '.join(s.name for s in sensors)}", measures, sensors, max(intervals))
