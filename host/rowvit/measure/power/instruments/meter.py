# SPDX-License-Identifier: Apache-2.0
"""A power meter outside the board: its log, aligned with the passes of a measurement."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rowvit.errors import RowvitError
from rowvit.hardware.block_design import known
from rowvit.measure.power.align import Alignment, align
from rowvit.measure.power.instrument import Instrument, Wanted, instrument, require_pandas
from rowvit.measure.power.samples import Samples, resolution
from rowvit.measure.power.statistics import add_figures, disagreements

if TYPE_CHECKING:
    from rowvit.measure.power.passes import PowerPass

#: how the names of meters outside the board start, before and after their log is joined
EXTERNAL = "external meter"


@instrument("csv", "log of an external meter")
def csv(wanted: Wanted) -> Instrument:
    """A meter whose log `join` takes later; `RowvitError` if nobody says where it is, or rails are named."""
    if wanted.rails:
        raise RowvitError("--instrument csv has no rails", "leave --rail out")
    row = known(wanted.board or "")
    where = wanted.measures or (row.power.measures if row and row.power.instrument == "csv" else "")
    if not where:
        raise RowvitError(
            "nobody says where the meter is connected", "use --measures, such as '12 V supply of the board'"
        )
    name = f"{EXTERNAL}; its log is not joined yet (rowvit power-log)"
    return Instrument(name, where, available="later")


class MeterLog(Instrument):
    """The log of an external meter: a CSV file with a header.

    Columns are found by the start of their name, in upper or lower case: ``time`` or ``date`` (seconds,
    or dates; without a zone they are UTC), and ``power`` or ``watt`` (watts), or ``volt`` (volts) and
    ``curr`` or ``amp`` (amperes). A unit behind it, as in "Power (mW)" or "current_ma", is taken into
    account; brackets with anything else are refused. Date and time may be in two columns, and columns apart
    by semicolons, with decimal commas. The meter's clock need not be correct: the log is
    shifted and stretched to where power rises and falls with the passes.

    Parameters
    ----------
    path : Path
    measures : str
        What the meter is connected to.
    wall : float
        The board's wall clock minus its monotonic one while the passes ran.
    search : float
        Seconds by which the two wall clocks may differ. A log whose times do not count from 1970 is searched
        as a whole.
    step : float, optional
        Watts between two neighbouring readings of the meter; by default estimated from those in the log.
    columns : sequence of str
        Names of columns that count where several begin alike.
    """

    def __init__(
        self,
        path: Path,
        measures: str = "not said",
        wall: float = 0.0,
        search: float = 60.0,
        step: float | None = None,
        columns: Sequence[str] = (),
    ) -> None:
        super().__init__(f"{EXTERNAL}, log {path.name}", measures)
        self.path, self.wall, self.search, self.step = path, wall, search, step
        self.columns = [name.strip().lower() for name in columns]
        self.used: list[str] = []  #: columns that were read
        self.found: Alignment | None = None  #: how its clock differs from the board's

    def samples(self, passes: Sequence[PowerPass]) -> Samples:
        """Samples on the monotonic clock of ``passes``.

        Raises
        ------
        RowvitError
            The log is unreadable, does not cover the passes, or does not rise and fall with them.
        """
        times, watts, step = self._read()
        self.found = align(times, watts, passes, self.wall if times[0] > 1e8 else None, self.search)
        step = step if self.step is None else self.step
        return Samples(self.found.monotonic(times), watts, step, self.found.misplaced)

    def _read(self) -> tuple[np.ndarray, np.ndarray, float | None]:
        """Seconds, watts, and what steps of volts and amperes may hide of these."""
        require_pandas()
        table = _Table(self.path, self.columns)
        power = table.numbers("w", "power", "watt")
        volts: Any = None if power is not None else table.numbers("v", "volt")
        amperes: Any = None if power is not None else table.numbers("a", "curr", "amp")
        if not table.timed or (power is None and (volts is None or amperes is None)):
            raise RowvitError(
                f"{self.path} has the columns {', '.join(map(str, table.frame.columns))}; it needs time, and"
                " power or voltage and current"
            )
        when, step = table.times(), None
        self.used = [name for name in map(str, table.frame.columns) if name in table.used]
        if power is None:
            power = volts * amperes
            steps = (resolution(column.to_numpy(np.float64)) for column in (volts, amperes))
            step = np.dot(list(steps), [abs(amperes).mean(), abs(volts).mean()])
        readings = np.stack([when.to_numpy(np.float64), power.to_numpy(np.float64)])
        table.require_order(readings)
        return readings[0], readings[1], step


class _Table:
    """A log's cells by columns, whose names are in lower case; what is wrong with one is said by its line.

    `RowvitError` if it cannot be read. ``wanted`` are the columns that count where several begin alike;
    ``used`` becomes those that were read, as the log calls them.
    """

    def __init__(self, path: Path, wanted: Sequence[str]) -> None:
        import pandas as pd

        self.path, self.wanted = path, wanted
        self.used: set[str] = set()
        try:
            text = path.read_text(encoding="utf-8-sig")
            # where commas are decimal, columns are apart by semicolons
            separator, self.decimal = (";", ",") if ";" in text.partition("\n")[0] else (",", ".")
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # that cells are lost
                self.frame = pd.read_csv(
                    io.StringIO(_without_ends(text, separator)),
                    skipinitialspace=True,
                    index_col=False,
                    sep=separator,
                    decimal=self.decimal,
                )
        except (OSError, ValueError, pd.errors.ParserWarning) as error:
            why = _RAGGED.search(str(error))
            said = f"line {why[1]} has more cells than the header" if why else str(error)
            raise RowvitError(
                f"{path}: cannot be read as CSV ({' '.join(said.split())})",
                "use a log with a header, and as many cells in every line",
            ) from error
        self.names = {str(name).strip().lower(): name for name in self.frame.columns}
        # of the rows: pandas leaves out lines that are empty
        self.lines = [number for number, line in enumerate(text.splitlines(), 1) if line.strip()][1:]

    def numbers(self, kind: str, *starts: str) -> Any:
        """In watts, volts or amperes, by the first letter of these; None if no column begins so."""
        names = self._called(starts)
        if len(names) > 1:
            raise RowvitError(
                f"{self.path}: several columns have a {_QUANTITIES[kind]}: {', '.join(names)}",
                "say which by --column NAME",
            )
        return self._column(names[0], kind) if names else None

    @property
    def timed(self) -> bool:
        """Whether there are `times`."""
        return bool(self._called(("time", "date")))

    def times(self) -> Any:
        """In seconds since 1970, or as the log counts them, of the columns that begin with time or date."""
        import pandas as pd

        names = self._called(("time", "date"))
        when = self._column(names[0], "s")
        days, hours = (self._called((start,))[:1] for start in ("date", "time"))
        if days and hours:
            day, hour = self._column(days[0], "s"), self._column(hours[0], "s")
            if not pd.api.types.is_numeric_dtype(hour):
                when = day.astype(str) + " " + hour.astype(str)
        if pd.api.types.is_numeric_dtype(when):
            return when
        dates = _dates(when)
        self._refuse(dates.isna() & when.notna(), when, names[0], "time")
        return (dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)

    def require_order(self, readings: np.ndarray) -> None:
        """`RowvitError` if of the seconds and watts [2, n] one is empty, or the times do not ascend."""
        empty = ~np.isfinite(readings).all(axis=0)
        wrong = empty | (np.diff(readings[0], prepend=-np.inf) <= 0)
        for row in np.flatnonzero(wrong)[:1]:
            what = "a cell is empty" if empty[row] else "its time is not after the one before"
            raise RowvitError(
                f"{self.path}: line {self.lines[row]}: {what}", "remove the line, which leaves a gap"
            )
        if readings.shape[1] < 2:
            raise RowvitError(f"{self.path} has {readings.shape[1]} readings", "log ten a second or more")

    def _called(self, starts: tuple[str, ...]) -> list[str]:
        """The columns whose names begin so; of these the wanted ones, where there are some."""
        names = [name for name in self.names if name.startswith(starts) and "factor" not in name]
        return [name for name in names if name in self.wanted] or names

    def _column(self, name: str, kind: str) -> Any:
        """Its numbers in the quantity's own unit; dates as they are."""
        import pandas as pd

        self.used.add(str(self.names[name]))
        values = self.frame[self.names[name]]
        if not pd.api.types.is_numeric_dtype(values):
            cells = values.astype(str).str.replace(self.decimal, ".", regex=False)
            numbers = pd.to_numeric(cells, errors="coerce")
            if kind == "s" and numbers.isna().any():
                return values
            self._refuse(numbers.isna() & values.notna(), values, name, "number")
            values = numbers
        self._refuse(np.isinf(values), values, name, "number")
        return values * self._unit(name, kind)

    def _refuse(self, wrong: Any, values: Any, name: str, what: str) -> None:
        """`RowvitError` about the first cell that is wrong, if one is."""
        for row in np.flatnonzero(wrong)[:1]:
            cell, where = str(values.iloc[row]).strip(), self.names[name]
            overload = "; or, if OL is there for overload, measure in a larger range"
            raise RowvitError(
                f"{self.path}: line {self.lines[row]}: {cell!r} in the column {where!r} is not a {what}",
                f"remove the line, which leaves a gap{overload if what == 'number' else ''}",
            )

    def _unit(self, column: str, kind: str) -> float:
        """What a column's numbers are multiplied with, by the unit in its name; 1 without one."""
        bracket = re.search(r"[(\[](.*?)[)\]]", column)
        words = [bracket.group(1)] if bracket else re.split(r"[\s_/.,-]+", column)[1:]
        for word in words:
            unit = word.strip().replace("μ", "u").replace("µ", "u")
            unit = _LONG.sub(lambda found: _SHORT[found.group()], unit)
            if unit.endswith(kind) and unit.removesuffix(kind) in _PREFIXES:
                return _PREFIXES[unit.removesuffix(kind)]
        others = [word for word in words if word.strip().lstrip("mkµμu") in _OTHERS]
        if bracket or others:
            unit = bracket.group(1) if bracket else others[0]
            raise RowvitError(
                f"{self.path}: the column {column!r} has the unit {unit!r}, which is no unit of"
                f" {_QUANTITIES[kind]}",
                f"use {', '.join(prefix + kind for prefix in _PREFIXES)}",
            )
        return 1.0


_DOTTED = re.compile(r"^\s*(\d{1,2})\.(\d{1,2})\.(\d{4})\b")  # day, month, year, as where commas are decimal
_RAGGED = re.compile(r"Expected \d+ fields in line (\d+)")  # of pandas, which says more
_PREFIXES = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "k": 1e3}
_OTHERS = ("va", "var", "wh", "ah", "dbm", "j", "j/s")  # of quantities that are taken for power or current
_QUANTITIES = {"s": "time", "w": "power", "v": "voltage", "a": "current"}
_SHORT = {
    **{"milli": "m", "micro": "u", "nano": "n", "kilo": "k", "seconds": "s", "second": "s", "sec": "s"},
    **{"watts": "w", "watt": "w", "volts": "v", "volt": "v", "amperes": "a", "ampere": "a", "amps": "a"},
    "amp": "a",
}
_LONG = re.compile("|".join(sorted(_SHORT, key=len, reverse=True)))


def join(
    document: dict[str, Any],
    log: Path,
    search: float = 60.0,
    step: float | None = None,
    columns: Sequence[str] = (),
) -> None:
    """Complete a result of `rowvit.measure.power.protocol.document` with the meter's log and its figures.

    ``search``, ``step`` and ``columns`` are as of `MeterLog`.

    Raises
    ------
    RowvitError
        The result is of another instrument, or the log does not fit it.
    """
    if document["kind"] != "power" or not document["instrument"]["name"].startswith(EXTERNAL):
        raise RowvitError(
            "the result was not recorded for an external meter",
            "use a result of rowvit power --instrument csv",
        )
    wall = document["protocol"]["wall_minus_monotonic_s"]
    meter = MeterLog(log, document["instrument"]["measures"], wall, search, step, columns)
    add_figures(document, meter)
    assert meter.found is not None  # by the line before
    document["power"]["log"] = {
        "file": log.name,
        "sha256": hashlib.sha256(log.read_bytes()).hexdigest(),
        "columns": meter.used,
        "resolution_w": step,
        **meter.found.record(),
    }
    if problems := disagreements(document):
        raise RowvitError(
            f"{log}: does not give a result that holds: {problems[0]}",
            "make the passes longer, or the log shorter",
        )


def _without_ends(text: str, separator: str) -> str:
    """A table whose rows do not end in a separator, where all of them do and the header does not."""
    header, *rows = text.splitlines()
    if header.rstrip().endswith(separator) or not all(
        row.rstrip().endswith(separator) for row in rows if row.strip()
    ):
        return text
    return "\n".join([header, *(row.rstrip().removesuffix(separator) for row in rows)])


def _dates(column: Any) -> Any:
    """Of what is none, NaT."""
    import pandas as pd

    turned = column.astype(str).str.replace(_DOTTED, lambda m: f"{m[3]}-{m[2]:0>2}-{m[1]:0>2}", regex=True)
    column = column.where(column.isna(), turned)
    try:
        return pd.to_datetime(column, utc=True, format="ISO8601")
    except ValueError:  # another way to write dates, or pandas before 2.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it guesses
            return pd.to_datetime(column, utc=True, errors="coerce")
