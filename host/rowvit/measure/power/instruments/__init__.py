# SPDX-License-Identifier: Apache-2.0
"""The kinds of instruments that measure power, one module each.

`kinds` finds every module here, whose `instrument.instrument` registers what it opens.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from rowvit.errors import RowvitError
from rowvit.hardware.block_design import known
from rowvit.measure.power.instrument import KINDS, Instrument, Kind, Wanted


@cache
def kinds() -> dict[str, Kind]:
    """All instruments by name: "none", and what the modules here register."""
    for module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return dict(sorted(KINDS.items()))


def open_instrument(name: str, wanted: Wanted) -> Instrument:
    """An instrument by the name of its kind.

    Parameters
    ----------
    name : str
        Empty for the board's own; off the board there is none.
    wanted : Wanted

    Raises
    ------
    RowvitError
        There is no such kind, or it cannot measure what is wanted.
    """
    return kind(name or own_instrument(wanted.board)).open(wanted)


def kind(name: str) -> Kind:
    """The kind of this name; `RowvitError` if there is none."""
    found = kinds()
    if name not in found:
        raise RowvitError(f"no instrument '{name}'", f"use one of {', '.join(found)}")
    return found[name]


def own_instrument(board: str | None) -> str:
    """The kind that measures a board's power, by ``boards.toml``; "none" off the board.

    Where that takes a meter, or the board is unknown, it is "pmbus", which refuses and says what to do.
    """
    if board is None:
        return "none"
    row = known(board)
    return row.power.instrument if row and row.power.instrument != "csv" else "pmbus"
