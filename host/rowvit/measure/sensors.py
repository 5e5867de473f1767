# SPDX-License-Identifier: Apache-2.0
"""Instruments that measure power: what they have in common, and their registry.

An instrument is started and stopped around every pass of a measurement and gives all its samples at the end.
Each kind but "none" is a module in `rowvit.measure.instruments`, which is all that a new one takes; which
rail or sensor carries a board's power is in ``hardware/boards.toml``.
"""

from __future__ import annotations

import glob
import math
import pkgutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rowvit.errors import RowvitError, needs
from rowvit.hardware.block_design import boards, known

if TYPE_CHECKING:
    from rowvit.measure.power import Pass

IIO = Path("/sys/bus/iio/devices")
#: steps hidden by noise are believed where so many moves from level to level are close to multiples of
#: them, by the mean over the cosines of their phases; looked at are about so many moves
_MANY, _REGULAR, _MOST = 20, 0.75, 4000


@dataclass(frozen=True)
class Samples:
    """Power over time.

    Parameters
    ----------
    times : float64 array [n]
        Seconds of the monotonic clock, ascending.
    watts : float64 array [n]
    resolution : float, optional
        Watts between two neighbouring readings of the instrument, where `step` is not to estimate it.
    misplaced : float, optional
        Seconds by which ``times`` may be off, where another clock than the board's gave them.
    """

    times: np.ndarray
    watts: np.ndarray
    resolution: float | None = None
    misplaced: float | None = None

    def energy(self, begin: float, end: float) -> float:
        """Joules from ``begin`` to ``end`` by the trapezoidal rule.

        Raises
        ------
        RowvitError
            The samples do not cover the whole time, or have a gap of more than a tenth of it.
        """
        times = self._within(begin, end)
        if (gap := np.diff(times).max()) > 0.1 * (end - begin):
            raise RowvitError(
                f"no power sample for {gap:.2f} s in a pass of {end - begin:.2f} s",
                "sample faster, or make the passes longer",
            )
        return self.integral(begin, end)

    def integral(self, begin: float, end: float) -> float:
        """As `energy`, whatever the gaps."""
        times = self._within(begin, end)
        watts = np.interp(times, self.times, self.watts)
        return float(((watts[1:] + watts[:-1]) / 2 * np.diff(times)).sum())

    def hidden(self, begin: float, end: float) -> float:
        """Joules that gaps from ``begin`` to ``end`` can hide.

        A gap is longer than the sampling and than a hundredth of the time explain. Power in it may differ
        from the readings beside it by as much as any two readings do.
        """
        between = np.diff(self._within(begin, end))
        gaps = between[between > max(2.5 * self.interval, 0.01 * (end - begin))]
        return float(gaps.sum() * np.ptp(self.watts))

    def _within(self, begin: float, end: float) -> np.ndarray:
        """Both, and the times of the samples between them."""
        if not (len(self.times) and self.times[0] <= begin < end <= self.times[-1]):
            raise RowvitError(
                f"the power samples do not cover a whole pass ({begin:.3f} to {end:.3f} s of the monotonic"
                " clock)",
                "sample faster, or use the log of the whole measurement",
            )
        inside = (self.times > begin) & (self.times < end)
        return np.concatenate([[begin], self.times[inside], [end]])

    @cached_property
    def interval(self) -> float:
        """Seconds from a sample to the next: the median."""
        return float(np.median(np.diff(self.times)))

    def step(self) -> float:
        """What the instrument resolves, in watts: as it says, or by `resolution` of its readings."""
        return resolution(self.watts) if self.resolution is None else self.resolution


def resolution(readings: np.ndarray) -> float:
    """The step between neighbouring readings of an instrument, in their unit; 0 if they are all the same.

    Every difference of two readings is a multiple of the step. So it is their greatest common divisor, in
    units of the last digit that was written: two levels alone could be one step apart. Noise that was added
    behind the steps, as by a calibration in floating point, hides this; then differences lie close to
    multiples of the step, and readings at three levels at least.
    """
    levels, counts = np.unique(readings, return_counts=True)
    if len(levels) < 2:
        return 0.0
    # six significant digits, which PYNQ's recorder keeps, and more than a meter has
    unit = 10.0 ** (math.floor(math.log10(np.abs(levels).max())) - 5)
    exact = float(np.gcd.reduce(np.diff(np.round(levels / unit).astype(np.int64)))) * unit
    moves = np.abs(np.diff(readings))
    moves = moves[:: 1 + len(moves) // _MOST]
    for step in np.geomspace(np.ptp(levels) / 2, exact, 300)[:-1]:
        phases, between = np.cos(2 * math.pi * moves / step), moves > 0.45 * step
        if between.sum() < _MANY or min(phases.mean(), phases[between].mean()) < _REGULAR:
            continue
        origin = np.angle((counts * np.exp(2j * math.pi * levels / step)).sum()) / (2 * math.pi)
        _, places = np.unique(np.round(readings / step - origin), return_counts=True)
        if (places > 0.01 * len(readings)).sum() >= 3:
            return float(np.median(moves[between & (moves < 1.5 * step)]))
    return exact


@dataclass(eq=False)
class Instrument:
    """What gives `Samples`.

    Parameters
    ----------
    name : str
    measures : str
        Which power: the rail or socket.
    interval : float
        Seconds between samples, if known beforehand; else 0.
    available : str
        When there are samples: "now", that is after the passes, "later", from a log, or "never".
    """

    name: str
    measures: str
    interval: float = 0.0
    available: Literal["now", "later", "never"] = "now"

    def start(self) -> None:
        """Called before a pass."""

    def stop(self) -> None:
        """Called after a pass."""

    def samples(self, passes: Sequence[Pass]) -> Samples:
        """All samples of ``passes``."""
        raise NotImplementedError

    def watts(self) -> float:
        """The power at this moment; `RowvitError` if the instrument does not tell."""
        raise RowvitError(f"{self.name} does not tell the power of this moment", "use pmbus or hwmon")


def require_pandas() -> None:
    """Raise a `RowvitError` without pandas, which is no part of the core: armv7l has no wheel of it."""
    with needs(
        "power from sensors or a meter's log needs pandas", "pandas (on a board: apt install python3-pandas)"
    ):
        import pandas  # noqa: F401


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
        from rowvit.pynq import pmbus

        require_pandas()
        super().__init__(name, measures, interval)
        self._clock = _Clock()
        self._sensors = [_Careful(sensor) for sensor in sensors]
        self._recorder = pmbus.DataRecorder(self._clock, *self._sensors)
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
        watts = frame[[sensor.name for sensor in self._sensors]].to_numpy(np.float64).T
        times = frame[self._clock.name].to_numpy(np.float64) + self._clock.origin
        self._parts.append(np.stack([times, *watts]))

    def samples(self, passes: Sequence[Pass]) -> Samples:
        times, *watts = np.concatenate(self._parts, axis=1)
        # the steps of several sensors may all hide something
        return Samples(times, np.sum(watts, axis=0), sum(map(resolution, watts)))

    def watts(self) -> float:
        return sum(float(sensor.sensor.get_value()) for sensor in self._sensors)


# -- which instruments there are ----------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """What an instrument is asked to measure.

    Parameters
    ----------
    board : str or None
        As PYNQ names it; chooses rails or sensors. None off the board.
    rails : sequence of str
        Rails or sensors to use instead of the board's own; their power is added.
    measures : str
        Where a meter is connected, if the user says so.
    interval : float
        Seconds from one sample to the next.
    """

    board: str | None = None
    rails: Sequence[str] = ()
    measures: str = ""
    interval: float = 0.05


@dataclass(frozen=True)
class Kind:
    """An entry of the registry: a kind's name, a phrase about it, and what opens it."""

    name: str
    help: str
    open: Callable[[Wanted], Instrument]


_KINDS: dict[str, Kind] = {}


def instrument(name: str, help: str) -> Callable[[Callable[[Wanted], Instrument]], Callable]:
    """Register a function that opens an instrument, as ``rowvit power --instrument NAME``.

    It takes what is `Wanted`, and raises a `RowvitError` if that cannot be measured.
    """

    def register(function: Callable[[Wanted], Instrument]) -> Callable[[Wanted], Instrument]:
        _KINDS[name] = Kind(name, help, function)
        return function

    return register


@instrument("none", "only count images")
def none(wanted: Wanted) -> Instrument:
    """Passes are made and images counted, but no power is measured; `RowvitError` if rails are named."""
    if wanted.rails:
        raise RowvitError("--instrument none has no rails", "leave --rail out")
    name = "none: images and seconds are counted, power is not measured"
    return Instrument(name, "nothing", available="never")


@cache
def kinds() -> dict[str, Kind]:
    """All instruments by name: "none", and what the modules in `rowvit.measure.instruments` register."""
    from rowvit.measure import instruments

    for module in pkgutil.iter_modules(instruments.__path__):
        import_module(f"{instruments.__name__}.{module.name}")
    return dict(sorted(_KINDS.items()))


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
    found = kinds()
    name = name or own_instrument(wanted.board)
    if name not in found:
        raise RowvitError(f"no instrument '{name}'", f"use one of {', '.join(found)}")
    return found[name].open(wanted)


def own_instrument(board: str | None) -> str:
    """The kind that measures a board's power, by ``boards.toml``; "none" off the board.

    Where that takes a meter, or the board is unknown, it is "pmbus", which refuses and says what to do.
    """
    if board is None:
        return "none"
    row = known(board)
    return row.power.instrument if row and row.power.instrument != "csv" else "pmbus"


def rails_of(kind: str, wanted: Wanted) -> tuple[Sequence[str], str]:
    """Names of the rails or sensors that an instrument shall read, and what their power is.

    Raises
    ------
    RowvitError
        No rail of the board is known for this kind.
    """
    if wanted.rails:
        return wanted.rails, "the rails named by the user"
    row = known(wanted.board or "")
    if row is None:
        listed = ", ".join(b.name for b in boards().values() if b.power.instrument == kind)
        raise RowvitError(
            f"no rail of {wanted.board or 'this machine'} is known to carry its power (known: {listed})",
            "name one with --rail, or use --instrument csv",
        )
    if row.power.instrument == "csv":
        raise RowvitError(
            f"no power sensor of {row.name} is known",
            f"measure at {row.power.measures}, with a DC meter that logs at least 10 samples per second,"
            " such as a Joulescope JS220, an Otii Arc or a supply with a data log, and use --instrument csv",
        )
    if row.power.instrument != kind:
        raise RowvitError(
            f"the power of {row.name} is read by --instrument {row.power.instrument}",
            "for another sensor, name it with --rail",
        )
    return row.power.rails, row.power.measures


# -- temperature --------------------------------------------------------------------------------


def thermometer(root: Path | None = None) -> tuple[str, Callable[[], float]] | None:
    """The die's temperature: its source, and a function that gives degrees Celsius; None if there is none.

    The source is the XADC or SYSMON, which the kernel shows as an IIO device below `IIO`.
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
