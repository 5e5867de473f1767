# SPDX-License-Identifier: Apache-2.0
"""The rails that PYNQ finds through libsensors."""

from __future__ import annotations

import math
from typing import Any

from rowvit.errors import RowvitError
from rowvit.measure.power.instrument import Recorder, Wanted, instrument, rails_of


class _Answering:
    """A sensor of PYNQ, which drops the error of a read that failed and gives the value before it again."""

    parents = ()

    def __init__(self, sensor: Any) -> None:
        self.sensor, self.name = sensor, sensor.name

    def get_value(self, parents: Any = None) -> float:
        self.sensor._value[0] = math.nan
        if math.isnan(watts := float(self.sensor.get_value())):
            raise OSError("libsensors reads no value")
        return watts


@instrument("pmbus", "rails of PYNQ")
def pmbus(wanted: Wanted, found: dict[str, Any] | None = None) -> Recorder:
    """Rails by their names in PYNQ.

    Parameters
    ----------
    wanted : Wanted
    found : dict, optional
        Used instead of ``pynq.get_rails()``.

    Raises
    ------
    RowvitError
        The board has no sensor, no rails are known for it, or one of them is missing.
    """
    rails, measures = rails_of("pmbus", wanted)
    if found is None:
        from rowvit.pynq import pmbus

        found = pmbus.get_rails()
    if missing := [name for name in rails if name not in found or found[name].power is None]:
        raise RowvitError(
            f"rail {', '.join(missing)} of {wanted.board or 'this machine'} is missing, so its power is"
            f" unknown; PYNQ finds {', '.join(found) or 'no rails'}",
            "look at /etc/sensors.d, or use --instrument hwmon or csv",
        )
    sensors = [_Answering(found[name].power) for name in rails]
    return Recorder(f"pmbus {' + '.join(rails)}", measures, sensors, wanted.interval)
