# SPDX-License-Identifier: Apache-2.0
"""No instrument: passes are made and images counted, but no power is measured."""

from __future__ import annotations

from rowvit.errors import RowvitError
from rowvit.measure.sensors import Instrument, Wanted, instrument


@instrument("none", "only count images")
def none(wanted: Wanted) -> Instrument:
    """`RowvitError` if rails are named."""
    if wanted.rails:
        raise RowvitError("--instrument none has no rails", "leave --rail out")
    name = "none: images and seconds are counted, power is not measured"
    return Instrument(name, "nothing", available="never")
