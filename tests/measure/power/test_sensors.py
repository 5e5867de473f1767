# SPDX-License-Identifier: Apache-2.0
"""Instruments on the board: which sensor, and the energy of known waveforms through PYNQ's DataRecorder."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from clocks import SharedClock
from fakes import hwmon_tree
from hypothesis import given
from hypothesis import strategies as st
from pynq.pmbus import Rail, Sensor

from rowvit.errors import RowvitError
from rowvit.hardware.block_design import boards, known
from rowvit.measure.power import instrument as registry
from rowvit.measure.power import instruments
from rowvit.measure.power.instrument import Instrument, Recorder, Wanted
from rowvit.measure.power.instruments import kinds, open_instrument, own_instrument
from rowvit.measure.power.instruments.hwmon import hwmon
from rowvit.measure.power.instruments.pmbus import pmbus
from rowvit.measure.power.samples import Samples
from rowvit.measure.temperature import temperatures, thermometer


class Libsensors:
    """Its function that PYNQ calls: it leaves the value alone where it cannot read one."""

    def sensors_get_value(self, chip: Callable[[], float], number: int, value: Any) -> int:
        try:
            value[0] = chip()
        except OSError:
            return -4  # SENSORS_ERR_KERNEL
        return 0


@pytest.fixture(autouse=True)
def libsensors(monkeypatch):
    monkeypatch.setattr("pynq.pmbus._lib", Libsensors())


def sensor(watts: Callable[[], float], name: str = "power") -> Sensor:
    """PYNQ's, of a chip that has these watts."""
    return Sensor(watts, 0, "W", name)


def record(instrument, clock: SharedClock, seconds: float) -> tuple[float, float]:
    """Run an instrument; begin and end of what lies within its samples."""
    instrument.start()
    clock.sleep(0.1)
    begin = clock.now
    clock.sleep(seconds)
    end = clock.now
    clock.sleep(0.1)
    instrument.stop()
    return begin, end


# -- energy -------------------------------------------------------------------------------------


@given(st.data())
def test_energy_of_straight_pieces_is_exact(data):
    """Trapezoids are exact on a polygon, wherever the pass begins and ends."""
    steps = data.draw(st.lists(st.floats(0.02, 0.03), min_size=60, max_size=70))
    watts = data.draw(st.lists(st.floats(0, 20), min_size=len(steps) + 1, max_size=len(steps) + 1))
    times = np.concatenate([[100.0], 100 + np.cumsum(steps)])
    begin = data.draw(st.floats(times[0], times[4]))
    end = data.draw(st.floats(times[-5], times[-1]))
    expected = 0.0  # piece by piece, by the mean of its ends
    for i in range(len(steps)):
        low, high = max(times[i], begin), min(times[i + 1], end)
        if low < high:
            slope = (watts[i + 1] - watts[i]) / (times[i + 1] - times[i])
            expected += (high - low) * (watts[i] + slope * ((low + high) / 2 - times[i]))
    found = Samples(times, np.array(watts)).energy(begin, end)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_missing_samples_are_refused():
    samples = Samples(np.array([0.0, 0.1, 0.2, 0.9, 1.0]), np.ones(5))
    with pytest.raises(RowvitError, match=r"no power sample for 0.70 s in a pass of 1.00 s"):
        samples.energy(0.0, 1.0)
    for begin, end in ((-0.1, 0.2), (0.1, 1.1)):
        with pytest.raises(RowvitError, match="do not cover a whole pass"):
            samples.energy(begin, end)
    with pytest.raises(RowvitError, match="do not cover"):
        Samples(np.empty(0), np.empty(0)).energy(0.0, 1.0)


def test_step_is_what_the_instrument_resolves():
    assert Samples(np.arange(4.0), np.array([1.0, 1.25, 1.0, 2.0])).step() == 0.25
    assert Samples(np.arange(3.0), np.ones(3)).step() == 0.0


# -- known waveforms through the real DataRecorder ----------------------------------------------


def test_energy_of_rails_with_known_waveforms(clock):
    """A sine and a triangle on two rails, in two passes; the sum's integral is known in closed form."""
    origin = clock.now
    sine = lambda: 3 + 2 * math.sin(2 * math.pi * (clock.now - origin) / 2.1)  # noqa: E731
    triangle = lambda: 1 + 4 * abs(2 * ((clock.now - origin) / 2.7 % 1) - 1)  # noqa: E731

    def integral(t: float) -> float:
        since = t - origin
        whole, part = divmod(since / 2.7, 1)
        return (
            3 * since
            - 2 * 2.1 / (2 * math.pi) * math.cos(2 * math.pi * since / 2.1)
            + since
            + 4 * 2.7 * (whole / 2 + (part - part**2 if part < 0.5 else part**2 - part + 0.5))
        )

    rails = {name: Rail(name) for name in ("INT", "AUX", "other")}
    rails["INT"].power, rails["AUX"].power = sensor(sine, "INT_power"), sensor(triangle, "AUX_power")
    instrument = pmbus(Wanted("ZCU104", ["INT", "AUX"], interval=0.01), rails)
    assert instrument.name == "pmbus INT + AUX" and "named by the user" in instrument.measures
    passes = [record(instrument, clock, 4.0), record(instrument, clock, 3.0)]
    samples = instrument.samples([])
    for begin, end in passes:
        assert samples.energy(begin, end) == pytest.approx(integral(end) - integral(begin), rel=0.01)
    assert samples.interval == pytest.approx(0.01, rel=1e-3)


def test_energy_of_a_sysfs_sensor_with_a_known_waveform(tmp_path, clock):
    """A fake INA260: its file holds the power of the moment, in microwatts."""
    root = hwmon_tree(tmp_path, {"hwmon3": "ina260_u14", "hwmon0": "other"})
    path, origin = root / "hwmon3" / "power1_input", clock.now
    watts = lambda: 5 + 2 * math.sin(math.pi * (clock.now - origin))  # noqa: E731
    clock.moved = lambda: path.write_text(f"{round(watts() * 1e6)}\n")
    instrument = hwmon(Wanted("KV260", interval=0.01), root)
    begin, end = record(instrument, clock, 3.3)
    assert instrument.name == "hwmon ina260_u14" and "K26 module" in instrument.measures
    integral = [5 * t - 2 * math.cos(math.pi * (t - origin)) / math.pi for t in (begin, end)]
    assert instrument.samples([]).energy(begin, end) == pytest.approx(integral[1] - integral[0], rel=0.01)


def test_sensors_of_the_kernel_add_up(tmp_path):
    root = hwmon_tree(tmp_path, {"hwmon3": "ina226_u14", "hwmon0": "ina226_u79", "hwmon5": "other"})
    for name, microwatts in (("hwmon3", 1_500_000), ("hwmon0", 250_000), ("hwmon5", 9_000_000)):
        (root / name / "power1_input").write_text(f"{microwatts}\n")
    assert hwmon(Wanted("KV260", ["ina226_u14", "ina226_u79"]), root).watts() == pytest.approx(1.75)


def test_a_sensor_that_fails_is_not_averaged_over(tmp_path, clock):
    """Of the kernel, or of libsensors, whose last value PYNQ gives again."""
    root, rail, begin = hwmon_tree(tmp_path, {"hwmon3": "ina260_u14"}), Rail("12V"), clock.now
    file = root / "hwmon3" / "power1_input"

    def watts() -> float:
        if clock.now > begin + 0.5:
            raise OSError
        return 5.25

    rail.power = sensor(watts, "12V_power")
    clock.moved = lambda: file.unlink(missing_ok=True) if clock.now > begin + 0.5 else None
    kernel = hwmon(Wanted("KV260", interval=0.01), root)
    rails = pmbus(Wanted("ZCU104", interval=0.01), {"12V": rail})
    assert rails.watts() == 5.25
    for instrument, cause in (
        (kernel, r"sensor ina260_u14 cannot be read: .*No such file"),
        (rails, "sensor 12V_power cannot be read: libsensors reads no value"),
    ):
        begin = clock.now
        file.write_text("5250000\n")
        instrument.start()
        clock.sleep(1.0)
        with pytest.raises(RowvitError, match=cause):
            instrument.stop()


# -- which sensor -------------------------------------------------------------------------------


def test_hwmon_goes_by_name(tmp_path):
    root = hwmon_tree(
        tmp_path, {"hwmon0": "ams", "hwmon7": "ina226_u79", "hwmon12": "ina226_u7"}, update_interval="140\n"
    )
    assert hwmon(Wanted("", ["ina226_u7"]), root).name == "hwmon ina226_u7"  # the whole name wins
    both = hwmon(Wanted("", ["ina226_u79", "ams"]), root)
    assert both.name == "hwmon ina226_u79 + ams" and both.interval == 0.14
    with pytest.raises(
        RowvitError, match=r"sensor ina226 is the name of several; .* has ams, ina226_u7, ina"
    ):
        hwmon(Wanted("", ["ina226"]), root)
    with pytest.raises(RowvitError, match="sensor ina260 is missing, so its power is unknown"):
        hwmon(Wanted("KV260"), root)
    with pytest.raises(RowvitError, match="has no sensors"):
        hwmon(Wanted("KV260"), tmp_path / "none")
    (root / "hwmon0" / "power1_input").unlink()
    with pytest.raises(RowvitError, match=r"sensor ams .* measures no power"):
        hwmon(Wanted("", ["ams"]), root)


def test_a_missing_rail_is_refused():
    rails = {"12V": Rail("12V"), "INT": Rail("INT")}
    with pytest.raises(RowvitError, match=r"rail 12V of ZCU104 is missing.*PYNQ finds 12V, INT"):
        pmbus(Wanted("ZCU104"), rails)  # it has no power sensor
    with pytest.raises(RowvitError, match=r"rail 12V of ZCU104 is missing.*PYNQ finds no rails"):
        pmbus(Wanted("ZCU104"), {})
    rails["12V"].power = sensor(lambda: 1.0)
    assert pmbus(Wanted("zcu104"), rails).measures == "12 V input of the board"


def test_boards_without_a_sensor_name_a_meter():
    for board in ("Pynq-Z1", "Pynq-Z2", "AUP-ZU3"):
        for opener in (pmbus, hwmon):
            with pytest.raises(
                RowvitError, match=f"no power sensor of {board} .*DC meter .*--instrument csv"
            ):
                opener(Wanted(board))
    with pytest.raises(RowvitError, match=r"no rail of this machine is known.*known: ZCU104"):
        pmbus(Wanted(""))
    with pytest.raises(RowvitError, match="power of KV260 is read by --instrument hwmon"):
        pmbus(Wanted("KV260"))


def test_every_board_says_how_its_power_is_measured():
    for board in boards().values():
        sensor = board.power
        assert sensor.instrument in kinds() and sensor.measures
        assert bool(sensor.rails) == (sensor.instrument != "csv")
        assert known(board.name) is board
    assert known("Ultra96").name == "Ultra96V2"  # as its PYNQ image calls it
    assert known("") is known("DE10") is None


def test_a_new_instrument_is_one_file(tmp_path, monkeypatch):
    """A module that lies in the package is found, listed and opened."""
    (tmp_path / "usbmeter.py").write_text(
        "from rowvit.measure.power.instrument import Instrument, instrument\n"
        "@instrument('usb', 'a meter on USB')\n"
        "def usb(wanted):\n"
        "    return Instrument('usb', wanted.measures, wanted.interval)\n"
    )
    monkeypatch.setattr(instruments, "__path__", [*instruments.__path__, str(tmp_path)])
    monkeypatch.setattr(instruments, "KINDS", dict(registry.KINDS))
    monkeypatch.setattr(registry, "KINDS", instruments.KINDS)
    before = list(kinds())
    kinds.cache_clear()
    try:
        assert list(kinds()) == sorted([*before, "usb"])
        opened = open_instrument("usb", Wanted(measures="its plug", interval=0.5))
        assert type(opened) is Instrument and (opened.measures, opened.interval) == ("its plug", 0.5)
    finally:
        kinds.cache_clear()
    with pytest.raises(RowvitError, match=f"no instrument 'watt'; use one of {', '.join(before)}"):
        open_instrument("watt", Wanted())


def test_the_own_instrument_of_a_board():
    assert own_instrument(None) == "none" and open_instrument("", Wanted()).available == "never"
    assert own_instrument("ZCU104") == "pmbus" and own_instrument("KV260") == "hwmon"
    assert own_instrument("Pynq-Z2") == own_instrument("DE10") == "pmbus"  # which refuses, and says why


def test_thermometer(tmp_path):
    assert thermometer("board", tmp_path) == (None, None)
    device = tmp_path / "iio:device1"
    device.mkdir()
    for name, text in {"name": "xadc", "in_temp0_raw": "2600", "in_temp0_offset": "-2219"}.items():
        (device / name).write_text(text)
    assert thermometer("board", tmp_path) == (None, None)  # incomplete
    (device / "in_temp0_scale").write_text("123.040771484")
    source, read = thermometer("board", tmp_path)
    assert source == "xadc in_temp0_raw" and read() == pytest.approx(46.88, abs=0.01)
    (device / "in_temp0_raw").write_text("2700")
    assert read() == pytest.approx(59.18, abs=0.01)
    (device / "in_temp0_raw").write_text("")  # for a moment, and then not at all
    assert read() is None
    (device / "in_temp0_raw").unlink()
    assert read() is None
    assert temperatures(source, [None, 46.5, None, 59.0, 47.5], "board") == {
        "source": source,
        "first": 46.5,
        "last": 47.5,
        "highest": 59.0,
    }
    assert temperatures(source, [None], "board") == {"none": "xadc in_temp0_raw could not be read"}


def test_the_power_of_this_moment():
    """Rails add up; a meter with a log has none to tell."""
    rails = [sensor(lambda: 1.5, "core"), sensor(lambda: 0.25, "memory")]
    assert Recorder("rails", "core and memory", rails).watts() == 1.75
    with pytest.raises(RowvitError, match="core is to be measured twice; name it once"):
        Recorder("rails", "core and memory", [*rails, rails[0]])
    with pytest.raises(RowvitError, match="meter does not tell the power of this moment; use pmbus or hwmon"):
        Instrument("meter", "12 V").watts()
