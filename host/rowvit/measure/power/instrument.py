# SPDX-License-Identifier: Apache-2.0
"""Instruments that measure power: what they have in common, and their registry.

An instrument is started and stopped around every pass of a measurement and gives all its samples at the end.
Each kind but "none" is a module in `rowvit.measure.power.instruments`, which is all that a new one takes;
which rail or sensor carries a board's power is in ``hardware/boards.toml``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rowvit.errors import RowvitError, needs
from rowvit.hardware.block_design import boards, known
from rowvit.measure.power.passes import PowerPass
from rowvit.measure.power.samples import Samples, resolution


@dataclass(eq=False)
class Instrument:
    """What gives `Samples`."""

    name: str
    measures: str  #: which power: the rail or socket
    interval: float = 0.0  #: seconds between samples, if known beforehand; else 0
    #: when there are samples: "now", that is after the passes, "later", from a log, or "never"
    available: Literal["now", "later", "never"] = "now"

    def start(self) -> None:
        """Called before a pass."""

    def stop(self) -> None:
        """Called after a pass."""

    def samples(self, passes: Sequence[PowerPass]) -> Samples:
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
        names = [sensor.name for sensor in sensors]
        if twice := [name for name in names if names.count(name) > 1]:
            raise RowvitError(f"{twice[0]} is to be measured twice", "name it once")
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

    def samples(self, passes: Sequence[PowerPass]) -> Samples:
        times, *watts = np.concatenate(self._parts, axis=1)
        # the steps of several sensors may all hide something
        return Samples(times, np.sum(watts, axis=0), sum(map(resolution, watts)))

    def watts(self) -> float:
        return sum(float(sensor.sensor.get_value()) for sensor in self._sensors)


# -- which instruments there are ----------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """What an instrument is asked to measure."""

    board: str | None = None  #: as PYNQ names it; chooses rails or sensors; None off the board
    rails: Sequence[str] = ()  #: rails or sensors instead of the board's own; their power is added
    measures: str = ""  #: where a meter is connected, if the user says so
    interval: float = 0.05  #: seconds from one sample to the next


@dataclass(frozen=True)
class Kind:
    """An entry of the registry: a kind's name, a phrase about it, and what opens it."""

    name: str
    help: str
    open: Callable[[Wanted], Instrument]


KINDS: dict[str, Kind] = {}


def instrument(name: str, help: str) -> Callable[[Callable[[Wanted], Instrument]], Callable]:
    """Register a function that opens an instrument, as ``rowvit power --instrument NAME``.

    It takes what is `Wanted`, and raises a `RowvitError` if that cannot be measured.
    """

    def register(function: Callable[[Wanted], Instrument]) -> Callable[[Wanted], Instrument]:
        KINDS[name] = Kind(name, help, function)
        return function

    return register


@instrument("none", "only count images")
def none(wanted: Wanted) -> Instrument:
    """Passes are made and images counted, but no power is measured; `RowvitError` if rails are named."""
    if wanted.rails:
        raise RowvitError("--instrument none has no rails", "leave --rail out")
    name = "none: images and seconds are counted, power is not measured"
    return Instrument(name, "nothing", available="never")


def rails_of(kind: str, wanted: Wanted) -> tuple[Sequence[str], str]:
    """Names of the rails or sensors that an instrument shall read, and what their power is.

    Raises
    ------
    RowvitError
        No rail of the board is known for this kind.
    """
    if wanted.rails:
        return wanted.rails, wanted.measures or "the rails named by the user"
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
