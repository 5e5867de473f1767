# SPDX-License-Identifier: Apache-2.0
"""Instruments that say how much power flows: rails of PYNQ, sensors of the kernel, an external meter's log.

An instrument is started and stopped around every pass of a measurement and gives all its samples at the end.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rowvit.errors import RowvitError

if TYPE_CHECKING:
    from rowvit.measure.power import Pass

HWMON = Path("/sys/class/hwmon")
IIO = Path("/sys/bus/iio/devices")
#: rails in PYNQ's images that carry all of a board's input power
PMBUS_RAILS = {"ZCU104": ["12V"], "Ultra96V2": ["5V"]}
#: the same for sensors that the kernel drives
HWMON_SENSORS = {"KV260": ["ina260_u14"]}
NO_SENSOR = ("Pynq-Z1", "Pynq-Z2")
METER = (
    "measure at its supply (the 7 to 15 V socket, or USB) with a DC meter that logs at 10 Hz or more, such as"
    " a Joulescope JS220 or a bench supply with a data log, and take --instrument csv --log FILE"
)


@dataclass(frozen=True)
class Samples:
    """Power over time.

    Parameters
    ----------
    times : float64 array [n]
        Seconds of the monotonic clock, ascending.
    watts : float64 array [n]
    """

    times: np.ndarray
    watts: np.ndarray

    def energy(self, begin: float, end: float) -> float:
        """Joules from ``begin`` to ``end`` by the trapezoidal rule.

        Raises
        ------
        RowvitError
            The samples do not reach over the whole time, or have a gap of a tenth of it.
        """
        if not (len(self.times) and self.times[0] <= begin < end <= self.times[-1]):
            raise RowvitError(
                f"there are no power samples over the whole of a pass ({begin:.3f} to {end:.3f} s of the"
                " monotonic clock); sample faster, or give the log of the whole measurement"
            )
        inside = (self.times > begin) & (self.times < end)
        times = np.concatenate([[begin], self.times[inside], [end]])
        if (gap := np.diff(times).max()) > 0.1 * (end - begin):
            raise RowvitError(
                f"no power sample for {gap:.2f} s in a pass of {end - begin:.2f} s; sample faster, or make"
                " the passes longer"
            )
        watts = np.interp(times, self.times, self.watts)
        return float(((watts[1:] + watts[:-1]) / 2 * np.diff(times)).sum())

    def step(self) -> float:
        """The smallest difference between two readings, in watts: what the instrument resolves."""
        values = np.unique(self.watts)
        return float(np.diff(values).min()) if len(values) > 1 else 0.0


class Instrument:
    """What gives `Samples`.

    Parameters
    ----------
    name : str
    measures : str
        Which power: the rail or socket.
    interval : float or None
        Seconds between samples; None if only the instrument knows.
    """

    def __init__(self, name: str, measures: str, interval: float | None) -> None:
        self.name, self.measures, self.interval = name, measures, interval

    def start(self) -> None:
        """Called before a pass."""

    def stop(self) -> None:
        """Called after a pass."""

    def samples(self, passes: Sequence[Pass]) -> Samples:
        """All samples of ``passes``."""
        raise NotImplementedError


class _Clock:
    """A sensor for `DataRecorder` that reads the monotonic clock: its own index is the wall clock's."""

    name, parents = "monotonic", ()

    def __init__(self) -> None:
        self.origin = time.monotonic()

    def get_value(self, parents: Any = None) -> float:
        return time.monotonic() - self.origin  # a small number, whatever the frame's precision


class _Careful:
    """A sensor whose failure is kept: in the recorder's thread it would be lost."""

    def __init__(self, sensor: Any) -> None:
        self.sensor, self.name, self.parents = sensor, sensor.name, ()
        self.failure: Exception | None = None

    def get_value(self, parents: Any = None) -> float:
        try:
            return float(self.sensor.get_value())
        except (OSError, ValueError) as error:
            self.failure = error
            return float("nan")


class Recorder(Instrument):
    """Sensors of PYNQ, sampled by its `DataRecorder`; their watts are added.

    Parameters
    ----------
    name, measures : str
    sensors : sequence
        Objects with ``name``, ``parents`` and ``get_value()`` in watts, as `pynq.pmbus.SysFSSensor`.
    interval : float
        Seconds from a sample to the next, plus what the reading takes.
    """

    def __init__(self, name: str, measures: str, sensors: Sequence[Any], interval: float = 0.05) -> None:
        from pynq.pmbus import DataRecorder

        super().__init__(name, measures, interval)
        self._clock = _Clock()
        self._sensors = [_Careful(sensor) for sensor in sensors]
        self._recorder = DataRecorder(self._clock, *self._sensors)
        self._parts: list[np.ndarray] = []

    def start(self) -> None:
        self._recorder.reset()
        self._recorder.record(self.interval)

    def stop(self) -> None:
        self._recorder.stop()
        for sensor in self._sensors:
            if sensor.failure:
                raise RowvitError(f"sensor {sensor.name} cannot be read: {sensor.failure}")
        frame = self._recorder.frame
        watts = frame[[sensor.name for sensor in self._sensors]].sum(axis=1).to_numpy(np.float64)
        times = frame[self._clock.name].to_numpy(np.float64) + self._clock.origin
        self._parts.append(np.stack([times, watts]))

    def samples(self, passes: Sequence[Pass]) -> Samples:
        return Samples(*np.concatenate(self._parts, axis=1))


def pmbus(
    board: str, rails: Sequence[str] = (), found: dict[str, Any] | None = None, interval: float = 0.05
) -> Recorder:
    """The rails that PYNQ finds through libsensors.

    Parameters
    ----------
    board : str
        As PYNQ names it; chooses the rails.
    rails : sequence of str, optional
        Other rails; their power is added.
    found : dict, optional
        In place of ``pynq.get_rails()``.
    interval : float

    Raises
    ------
    RowvitError
        The board has no sensor, no rails are known for it, or one of them is missing.
    """
    wanted = _wanted(board, rails, PMBUS_RAILS)
    if found is None:
        from pynq import get_rails

        found = get_rails()
    if missing := [name for name in wanted if name not in found or found[name].power is None]:
        raise RowvitError(
            f"rail {', '.join(missing)} of {board} is missing, so its power is unknown; PYNQ finds"
            f" {', '.join(found) or 'no rails'}. Look at /etc/sensors.d, or take --instrument hwmon or csv"
        )
    sensors = [found[name].power for name in wanted]
    return Recorder(f"pmbus {' + '.join(wanted)}", _measures(board, rails), sensors, interval)


def hwmon(board: str, names: Sequence[str] = (), root: Path = HWMON, interval: float = 0.05) -> Recorder:
    """INA226, INA260 and their like by the name that the kernel gives them, since their numbers change.

    Parameters
    ----------
    board : str
        As PYNQ names it; chooses the sensor.
    names : sequence of str, optional
        Other sensors, by the whole of their name or its beginning; their power is added.
    root : Path
        The directory of the ``hwmon*``.
    interval : float

    Raises
    ------
    RowvitError
        The board has no sensor, none is known for it, or a name fits none or several.
    """
    from pynq.pmbus import DerivedPowerSensor, SysFSSensor

    wanted = _wanted(board, names, HWMON_SENSORS)
    found = {}
    for path in sorted(root.glob("hwmon*")):
        try:
            found[path] = (path / "name").read_text().strip()
        except OSError:
            continue
    sensors, intervals, measured = [], [interval], []
    for name in wanted:
        fits = [p for p, n in found.items() if n == name] or [
            p for p, n in found.items() if n.startswith(name)
        ]
        if len(fits) != 1:
            state = "is missing, so its power is unknown" if not fits else "is the name of several"
            listed = ", ".join(sorted(found.values())) or "no sensors"
            raise RowvitError(f"sensor {name} {state}; {root} has {listed}. Name one with --rail")
        path, label = fits[0], found[fits[0]]
        volts = SysFSSensor(str(path / "in1_input"), "V", f"{label}_v", 1e-3)
        amperes = SysFSSensor(str(path / "curr1_input"), "A", f"{label}_a", 1e-3)
        if (path / "power1_input").is_file():
            sensors.append(SysFSSensor(str(path / "power1_input"), "W", label, 1e-6))
        elif (path / "in1_input").is_file() and (path / "curr1_input").is_file():
            sensors.append(DerivedPowerSensor(label, volts, amperes))
        else:
            raise RowvitError(
                f"sensor {label} ({path}) gives neither power1_input nor in1_input and curr1_input"
            )
        measured.append(label)
        try:  # it averages for so long: faster reading would give the same value again
            intervals.append(float((path / "update_interval").read_text()) / 1e3)
        except (OSError, ValueError):
            continue
    return Recorder(f"hwmon {' + '.join(measured)}", _measures(board, names), sensors, max(intervals))


def _wanted(board: str, given: Sequence[str], known: dict[str, list[str]]) -> list[str]:
    if given:
        return list(given)
    if board in NO_SENSOR:
        raise RowvitError(f"{board} has no power sensor; {METER}")
    if board not in known:
        raise RowvitError(
            f"no rail of {board or 'this machine'} is known to carry all of its power (known:"
            f" {', '.join(known)}); name one with --rail, or take --instrument csv"
        )
    return known[board]


def _measures(board: str, given: Sequence[str]) -> str:
    return "the rails named by the user" if given else f"input power of {board}: processor, logic and memory"


class MeterLog(Instrument):
    """The log of an external meter: a CSV file with a header.

    Columns are found by the beginning of their name, whatever the case: ``time`` (seconds, or dates; without
    a zone they are UTC), and ``power`` (watts), or ``voltage`` (volts) and ``current`` (amperes). The meter's
    clock need not be right: the log is shifted to where power rises and falls with the passes.

    Parameters
    ----------
    path : Path
    wall : float, optional
        The wall clock less the monotonic one while the passes ran; by default what it is now.
    search : float
        Seconds that the meter's clock may be wrong. A log whose times do not count from 1970 is searched
        through as a whole.
    """

    def __init__(self, path: Path, wall: float | None = None, search: float = 60.0) -> None:
        super().__init__(f"external meter, log {path.name}", "what the meter is connected to", None)
        self.path, self.search = path, search
        self.wall = time.time() - time.monotonic() if wall is None else wall
        self.shift: float | None = None  #: seconds added to the log's times

    def samples(self, passes: Sequence[Pass]) -> Samples:
        """Samples on the monotonic clock.

        Raises
        ------
        RowvitError
            The log is unreadable, does not cover the passes, or does not rise and fall with them.
        """
        times, watts = self._read()
        self.interval = float(np.median(np.diff(times)))
        self.shift = _align(times, watts, passes, self.wall if times[0] > 1e8 else None, self.search)
        return Samples(times + self.shift, watts)

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        import pandas as pd

        try:
            frame = pd.read_csv(self.path, skipinitialspace=True)
        except (OSError, ValueError) as error:
            raise RowvitError(f"{self.path}: cannot be read as CSV ({error})") from error
        columns = {str(name).strip().lower(): name for name in frame.columns}

        def column(*starts: str) -> Any:
            return next((frame[columns[n]] for n in columns if n.startswith(starts)), None)

        when, power = column("time", "date"), column("power", "watt")
        volts, amperes = column("volt"), column("curr", "amp")
        if when is None or (power is None and (volts is None or amperes is None)):
            raise RowvitError(
                f"{self.path} has the columns {', '.join(map(str, frame.columns))}; it needs time, and power"
                " or voltage and current"
            )
        try:
            if not pd.api.types.is_numeric_dtype(when):
                when = pd.to_datetime(when, utc=True)
                when = (when - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
            watts = power if power is not None else volts * amperes
            table = np.stack([when.to_numpy(np.float64), watts.to_numpy(np.float64)])
        except (TypeError, ValueError) as error:
            raise RowvitError(f"{self.path}: a time or power is not a number ({error})") from error
        if table.shape[1] < 2 or not np.isfinite(table).all() or (np.diff(table[0]) <= 0).any():
            raise RowvitError(f"{self.path}: times must ascend, and no cell may be empty")
        return table[0], table[1]


def _align(
    times: np.ndarray, watts: np.ndarray, passes: Sequence[Pass], wall: float | None, search: float
) -> float:
    """Seconds to add to a log's times: where the power of busy and idle passes differs most.

    ``wall`` is the wall clock less the monotonic one; without it, all places are tried.
    """
    total = np.concatenate([[0.0], np.cumsum((watts[1:] + watts[:-1]) / 2 * np.diff(times))])
    starts = np.array([p.start for p in passes])
    stops = np.array([p.stop for p in passes])
    busy = np.array([p.kind == "busy" for p in passes])
    low, high = stops.max() - times[-1], starts.min() - times[0]  # the log covers all passes
    if wall is not None:
        low, high = max(low, -wall - search), min(high, -wall + search)
    if low > high:
        raise RowvitError(
            f"the meter's log of {times[-1] - times[0]:.0f} s does not cover the"
            f" {stops.max() - starts.min():.0f} s of the measurement, or its clock is wrong by more than"
            f" {search:g} s; give the whole log, or its times as seconds from its start"
        )

    def contrast(shifts: np.ndarray) -> np.ndarray:
        """Mean power of the busy passes less that of the idle ones, for every shift."""

        def mean(chosen: np.ndarray) -> np.ndarray:
            joules = sum(
                np.interp(stop - shifts, times, total) - np.interp(start - shifts, times, total)
                for start, stop in zip(starts[chosen], stops[chosen], strict=True)
            )
            return joules / (stops - starts)[chosen].sum()

        return mean(busy) - mean(~busy)

    shifts = np.linspace(low, high, 20_001)
    best = shifts[contrast(shifts).argmax()]
    around = shifts[1] - shifts[0]
    shifts = np.clip(np.linspace(best - around, best + around, 2001), low, high)
    found = contrast(shifts)
    best, most = shifts[found.argmax()], found.max()
    spread = float(np.std(watts))
    # a log in step with the passes has most of its spread between them
    if most <= 0.5 * spread:
        raise RowvitError(
            f"the meter's log does not rise and fall with the passes (busy and idle differ by"
            f" {most:.3g} W of a spread of {spread:.3g} W); is it the log of this measurement?"
        )
    return float(best)


def thermometer(root: Path = IIO) -> tuple[str, Callable[[], float]] | None:
    """The die's temperature: its source, and a function that gives degrees Celsius; None if there is none.

    It is the XADC or SYSMON, which the kernel gives as an IIO device.
    """
    for raw in sorted(glob.glob(str(root / "iio:device*" / "in_temp*_raw"))):
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
    return None
