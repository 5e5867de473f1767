# SPDX-License-Identifier: Apache-2.0
"""Instruments that say how much power flows: rails of PYNQ, and sensors of the kernel.

An instrument is started and stopped around every pass of a measurement and gives all its samples at the end.
Which rail or sensor carries a board's power is said in ``hardware/boards.toml``. A meter outside the board is
in `rowvit.measure.meter`.
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
from rowvit.hardware.block_design import boards, known

if TYPE_CHECKING:
    from rowvit.measure.power import Pass

HWMON = Path("/sys/class/hwmon")
IIO = Path("/sys/bus/iio/devices")


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

    @property
    def interval(self) -> float:
        """Seconds from a sample to the next: the median."""
        return float(np.median(np.diff(self.times)))

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
    interval : float
        Seconds between samples, so far as they are known before; else 0.
    """

    def __init__(self, name: str, measures: str, interval: float = 0.0) -> None:
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

    name, parents, origin = "monotonic", (), 0.0

    def get_value(self, parents: Any = None) -> float:
        return time.monotonic() - self.origin  # a small number, since the recorder may keep 32 bits


class _Careful:
    """A sensor whose failure is kept: in the recorder's thread it would be lost."""

    parents = ()

    def __init__(self, sensor: Any) -> None:
        self.sensor, self.name = sensor, sensor.name
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
        self._clock.origin = time.monotonic()
        self._recorder.reset()
        self._recorder.record(self.interval)

    def stop(self) -> None:
        self._recorder.stop()
        for sensor in self._sensors:
            if sensor.failure:
                raise RowvitError(f"sensor {sensor.name} cannot be read: {sensor.failure}")
        frame = self._recorder.frame
        watts = frame[[sensor.name for sensor in self._sensors]].to_numpy(np.float64).sum(axis=1)
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
    wanted, measures = _wanted("pmbus", board, rails)
    if found is None:
        from pynq import get_rails

        found = get_rails()
    if missing := [name for name in wanted if name not in found or found[name].power is None]:
        raise RowvitError(
            f"rail {', '.join(missing)} of {board or 'this machine'} is missing, so its power is unknown;"
            f" PYNQ finds {', '.join(found) or 'no rails'}. Look at /etc/sensors.d, or take --instrument"
            " hwmon or csv"
        )
    sensors = [found[name].power for name in wanted]
    return Recorder(f"pmbus {' + '.join(wanted)}", measures, sensors, interval)


def hwmon(
    board: str, names: Sequence[str] = (), root: Path | None = None, interval: float = 0.05
) -> Recorder:
    """INA226, INA260 and their like by the name that the kernel gives them, since their numbers change.

    Parameters
    ----------
    board : str
        As PYNQ names it; chooses the sensor.
    names : sequence of str, optional
        Other sensors, by the whole of their name or its beginning; their power is added.
    root : Path, optional
        The directory of the ``hwmon*``; by default `HWMON`.
    interval : float

    Raises
    ------
    RowvitError
        The board has no sensor, none is known for it, a name fits none or several, or the sensor gives no
        power.
    """
    from pynq.pmbus import SysFSSensor

    root = root or HWMON
    wanted, measures = _wanted("hwmon", board, names)
    found: dict[Path, str] = {}
    for file in sorted(root.glob("hwmon*/name")):
        found[file.parent] = file.read_text().strip()
    sensors, labels, intervals = [], [], [interval]
    for name in wanted:
        fits = [p for p, n in found.items() if n == name] or [
            p for p, n in found.items() if n.startswith(name)
        ]
        if len(fits) != 1:
            state = "is the name of several" if fits else "is missing, so its power is unknown"
            listed = ", ".join(sorted(found.values())) or "no sensors"
            raise RowvitError(f"sensor {name} {state}; {root} has {listed}. Name one with --rail")
        path, label = fits[0], found[fits[0]]
        if not (path / "power1_input").is_file():
            raise RowvitError(f"sensor {label} ({path}) measures no power: it has no power1_input")
        sensors.append(SysFSSensor(str(path / "power1_input"), "W", label, 1e-6))
        labels.append(label)
        try:  # it averages for so long: faster reading would give the same value again
            intervals.append(float((path / "update_interval").read_text()) / 1e3)
        except (OSError, ValueError):
            continue
    return Recorder(f"hwmon {' + '.join(labels)}", measures, sensors, max(intervals))


def _wanted(instrument: str, board: str, given: Sequence[str]) -> tuple[Sequence[str], str]:
    """Names of the rails, and what their power is."""
    if given:
        return given, "the rails named by the user"
    row = known(board)
    if row is None:
        listed = ", ".join(b.name for b in boards().values() if b.power.instrument == instrument)
        raise RowvitError(
            f"no rail of {board or 'this machine'} is known to carry its power (known: {listed}); name one"
            " with --rail, or take --instrument csv"
        )
    if row.power.instrument == "csv":
        raise RowvitError(
            f"no power sensor of {row.name} is known; measure at {row.power.measures}, with a DC meter that"
            " logs 10 samples a second or more, such as a Joulescope JS220, an Otii Arc or a supply with a"
            " data log, and take --instrument csv"
        )
    if row.power.instrument != instrument:
        raise RowvitError(
            f"the power of {row.name} is read by --instrument {row.power.instrument}; for another sensor,"
            " name it with --rail"
        )
    return row.power.rails, row.power.measures


def thermometer(root: Path | None = None) -> tuple[str, Callable[[], float]] | None:
    """The die's temperature: its source, and a function that gives degrees Celsius; None if there is none.

    It is the XADC or SYSMON, which the kernel gives as an IIO device below `IIO`.
    """
    for raw in sorted(glob.glob(str((root or IIO) / "iio:device*" / "in_temp*_raw"))):
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
