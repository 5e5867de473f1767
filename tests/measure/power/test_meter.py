# SPDX-License-Identifier: Apache-2.0
"""The log of an external meter: found in time, refused where it is another's, and true in energy."""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from clocks import FakeClock
from fakes import FakeBoard, write_log
from hypothesis import given, settings
from hypothesis import strategies as st

from rowvit.errors import RowvitError
from rowvit.measure.power.align import align
from rowvit.measure.power.instrument import Instrument
from rowvit.measure.power.instruments.meter import MeterLog
from rowvit.measure.power.passes import PowerPass, PowerPlan
from rowvit.measure.power.protocol import measure
from rowvit.measure.power.samples import resolution
from rowvit.measure.power.statistics import figures

WALL = 1.76e9  # the wall clock less the monotonic one


def run(seed: int) -> tuple[FakeBoard, list[PowerPass]]:
    """A measurement of the fake board, which a meter watches from its supply."""
    board = FakeBoard(FakeClock(), np.random.default_rng(seed))
    board.clock.sleep(20)
    passes = measure(
        PowerPlan(5, 4.0, 1.0, 0.5, seed), board.work, Instrument("csv", "supply"), clock=board.clock
    )
    board.clock.sleep(20)
    return board, passes


@given(
    seed=st.integers(0, 2**32 - 1),
    wrong=st.floats(-50, 50),
    rate=st.sampled_from([10, 50, 1000]),
    noise=st.floats(0, 0.05),
)
@settings(max_examples=20)
def test_a_log_is_found_whatever_its_clock(tmp_path_factory, seed, wrong, rate, noise):
    board, passes = run(seed)
    path = tmp_path_factory.mktemp("log") / "meter.csv"
    write_log(path, board, rate, offset=WALL + wrong, noise=noise)
    meter = MeterLog(path, wall=WALL)
    samples = meter.samples(passes)
    assert meter.found.record()["shift_s"] == pytest.approx(
        -WALL - wrong, abs=0.3
    )  # less than settle and tail leave room for
    for p in passes:
        true = board.energy(p.end) - board.energy(p.begin)
        assert samples.energy(p.begin, p.end) == pytest.approx(true, rel=0.01)


@pytest.mark.parametrize(("pairs", "fits"), [(8, False), (40, True)])
def test_many_pairs_tell_what_scatters(pairs, fits):
    """Differences that scatter by more than a third of themselves: few say little, many all that is asked."""
    rng = np.random.default_rng(pairs)
    ends, passes = 100 + 6 * np.arange(2 * pairs + 1), []
    times = np.arange(60, ends[-1] + 40, 0.05)
    watts = np.full(len(times), 5.0)
    for number, (start, stop) in enumerate(pairwise(ends)):
        kind = ("idle", "busy")[(number + number // 2) % 2]
        passes.append(PowerPass(number // 2, kind, start, start + 0.5, stop - 0.5, stop, 10))
        inside = (times >= start) & (times < stop)
        watts[inside] += (kind == "busy") + rng.normal(0, 0.4)
    passes.sort(key=lambda p: p.start)
    if fits:
        found = align(times, watts, passes, None, 60)
        assert found.middle - found.at == pytest.approx(0, abs=0.3)
    else:
        with pytest.raises(RowvitError, match=r"scatter by \S+ W, so that it takes \S+ W to tell that from"):
            align(times, watts, passes, None, 60)


def test_times_may_count_from_anywhere_and_be_dates(tmp_path):
    board, passes = run(7)
    path = tmp_path / "meter.csv"
    write_log(path, board, 50, offset=-board.times[0])  # seconds from the log's start
    expected = figures(passes, MeterLog(path).samples(passes))
    rows = path.read_text().splitlines()[1:]
    begin = board.times[0] + WALL

    dates = ["Date, Voltage (V), charge, CURRENT (A)"]
    for row in rows:
        since, watts = map(float, row.split(","))
        when = datetime.fromtimestamp(begin + since, timezone.utc)
        dates.append(f"{when.replace(tzinfo=None).isoformat()}, 5.0, 9, {watts / 5}")
    path.write_text("\n".join(dates) + "\n")
    found = figures(passes, MeterLog(path, wall=WALL).samples(passes))
    assert found["joules_per_image"]["value"] == pytest.approx(
        expected["joules_per_image"]["value"], rel=1e-4
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_log_of_another_measurement_is_refused(tmp_path, seed):
    """Its passes are as long, in another order; or nothing but noise and drift."""
    _, passes = run(seed)
    other, _ = run(seed + 100)
    path = tmp_path / "meter.csv"
    write_log(path, other, 50, offset=0.0)
    with pytest.raises(RowvitError, match="does not rise and fall with the passes"):
        MeterLog(path).samples(passes)
    rng = np.random.default_rng(seed)
    times = np.arange(0, 200, 0.05)
    watts = 3 + times * 1e-3 + rng.normal(0, 0.3, len(times))
    path.write_text("time,power\n" + "".join(f"{t},{w}\n" for t, w in zip(times, watts, strict=True)))
    with pytest.raises(RowvitError, match="does not rise and fall with the passes"):
        MeterLog(path).samples(passes)


def test_a_log_that_begins_and_ends_with_the_passes(tmp_path):
    """Beside it there is no power that would make idle passes, the first and the last, seem to take less."""
    order = ["idle", "busy", "busy", "idle", "idle", "busy", "busy", "idle", "busy", "idle"]
    passes, now = [], 1000.0
    for number, kind in enumerate(order):
        seconds = 2.0 if kind == "idle" else 8.0
        passes.append(PowerPass(number // 2, kind, now, now + 1, now + 1 + seconds, now + 1.5 + seconds, 9))
        now += 1.6 + seconds
    times = np.arange(passes[0].start - 2, passes[-1].stop + 2, 0.01)
    busy = sum(((times >= p.start) & (times < p.stop)) * (p.kind == "busy") for p in passes)
    watts = 2.2 + 0.45 * busy + np.random.default_rng(0).normal(0, 0.01, len(times))
    path = tmp_path / "meter.csv"
    path.write_text("time,power\n" + "".join(f"{t},{w}\n" for t, w in zip(times, watts, strict=True)))
    found = figures(passes, MeterLog(path).samples(passes))["delta_watts"]
    assert found["value"] == pytest.approx(0.45, abs=found["uncertainty"]) and found["uncertainty"] < 0.05


def test_a_log_that_ends_early_is_refused(tmp_path):
    board, passes = run(1)
    path = tmp_path / "meter.csv"
    write_log(path, board, 50, offset=0.0)
    rows = path.read_text().splitlines()
    path.write_text("\n".join(rows[: len(rows) // 2]) + "\n")
    with pytest.raises(RowvitError, match="does not cover the"):
        MeterLog(path).samples(passes)
    write_log(path, board, 50, offset=WALL + 300)
    with pytest.raises(RowvitError, match="its clock is off by more than 60 s"):
        MeterLog(path, wall=WALL).samples(passes)
    assert MeterLog(path, wall=WALL, search=400).samples(passes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has the columns a, b; it needs time, and power"),
        ("time,voltage\n1,2\n2,2\n", "or voltage and current"),
        (
            "time,power\n1,x\n2,3\n",
            r"csv: line 2: 'x' in the column 'power' is not a number; remove the line",
        ),
        ("time,power\n1,2\n\n2,OL\n3,2\n", r"line 4: 'OL' in the column 'power' is not a number; .*overload"),
        ("time,volt,amp\n1,5,2\n2,5,OL\n", r"line 3: 'OL' in the column 'amp' is not a number"),
        ("time;power\n1;2,5\n2;2,25\n3;0.L\n", r"line 4: '0\.L' in the column 'power' is not a number"),
        ("time,power\nnoon,1\nnight,3\n", r"line 2: 'noon' in the column 'time' is not a time"),
        ("time,power\n2026-01-01T10:00:00,1\nOL,3\n", r"line 3: 'OL' in the column 'time' is not a time"),
        ("Time,Power (W)\n1,2\n2,x\n", r"line 3: 'x' in the column 'Power \(W\)' is not a number"),
        ("time,power\n1,2\n2,inf\n", "line 3: 'inf' in the column 'power' is not a number"),
        (
            "Date,power\n2026-01-01T10:00:00,1\nnever,3\n",
            "'never' in the column 'Date' is not a time; remove",
        ),
        ("time,power\n1,\n2,3\n", "line 2: a cell is empty; remove the line, which leaves a gap"),
        ("time,power\n2,1\n1,3\n", "line 3: its time is not after the one before; remove the line"),
        ("time,power\n2,1\n", "has 1 readings; log ten a second"),
        ("time,power\n", "has 0 readings; log ten a second"),
        ("time,power\n1,2\n2,3,4\n", r"cannot be read as CSV \(line 3 has more cells than the header\); use"),
        ("", "cannot be read as CSV"),
    ],
)
def test_bad_logs(tmp_path, text, message):
    path: Path = tmp_path / "meter.csv"
    path.write_text(text)
    with pytest.raises(RowvitError, match=message):
        MeterLog(path).samples([])
    with pytest.raises(RowvitError, match="cannot be read"):
        MeterLog(tmp_path / "none.csv").samples([])


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("Time (s);Power (W)", "{since:.6f};{watts:.6f}"),
        ("Time (s);Power (W)", "{wall:.6f};{watts:.6f}"),
        ("time,power", "{since:.6f},{watts:.6f},"),
        ("time,power,", "{since:.6f},{watts:.6f},"),
        ("Time;Power", "{date:%d.%m.%Y %H:%M:%S,%f};{comma}"),
        ("Time,Power", "{date.day}.{date.month}.{date.year} {date:%H:%M:%S.%f},{watts:.6f}"),
        ("Date;Time;Power", "{date:%d.%m.%Y;%H:%M:%S.%f};{comma}"),
    ],
)
def test_other_ways_to_write_a_log(tmp_path, header, row):
    """Points behind semicolons, separators at the end of a row, and dates with the day first."""
    wall = 1_767_348_000.0  # 2 January 2026, which is no 1 February
    board, passes = run(7)
    path = tmp_path / "meter.csv"
    write_log(path, board, 50, offset=-board.times[0])
    expected = figures(passes, MeterLog(path).samples(passes))["joules_per_image"]["value"]
    lines = [header]
    for text in path.read_text().splitlines()[1:]:
        since, watts = map(float, text.split(","))
        when = board.times[0] + wall + since
        date, comma = datetime.fromtimestamp(when, timezone.utc), f"{watts:.6f}".replace(".", ",")
        lines.append(row.format(since=since, watts=watts, wall=when, date=date, comma=comma))
    path.write_text("\n".join(lines) + "\n")
    found = figures(passes, MeterLog(path, wall=wall).samples(passes))["joules_per_image"]["value"]
    assert found == pytest.approx(expected, rel=1e-4)


def test_cells_are_not_lost(tmp_path):
    """Of rows with more cells than the header, as of decimal commas between commas."""
    path = tmp_path / "meter.csv"
    path.write_text("time,power\n" + "".join(f"{n},0,2,0{n}\n" for n in range(9)))
    with pytest.raises(RowvitError, match="cannot be read as CSV"):
        MeterLog(path)._read()


def test_decimal_commas_and_a_column_each_for_date_and_time(tmp_path):
    board, passes = run(7)
    path = tmp_path / "meter.csv"
    write_log(path, board, 50, offset=-board.times[0])
    expected = figures(passes, MeterLog(path).samples(passes))["joules_per_image"]["value"]
    rows = [tuple(map(float, row.split(","))) for row in path.read_text().splitlines()[1:]]
    begin = board.times[0] + WALL
    lines = ["Date;Time;Power factor;Power (W)"]
    for since, watts in rows:
        when = datetime.fromtimestamp(begin + since, timezone.utc)
        number = f"{watts:.6f}".replace(".", ",")
        lines.append(f"{when:%Y-%m-%d;%H:%M:%S.%f};1,0;{number}")
    path.write_text("\n".join(lines) + "\n")
    found = figures(passes, MeterLog(path, wall=WALL).samples(passes))["joules_per_image"]["value"]
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("names", "scale"),
    [
        (["Time (ms)", "Power (mW)"], (1e3, 1e3)),
        (["time_s", "power_kw"], (1, 1e-3)),
        (["Time [s]", "Power [µW]"], (1, 1e6)),
        (["Timestamp, seconds", "Watts"], (1, 1)),
        (["time", "POWER_MILLIWATTS"], (1, 1e3)),
        (["Time (milliseconds)", "Power total (W)"], (1e3, 1)),
    ],
)
def test_units_in_the_names_of_columns(tmp_path, names, scale):
    board, passes = run(3)
    path = tmp_path / "meter.csv"
    write_log(path, board, 50, offset=-board.times[0])
    expected = figures(passes, MeterLog(path).samples(passes))["joules_per_image"]["value"]
    rows = np.array([list(map(float, row.split(","))) for row in path.read_text().splitlines()[1:]])
    lines = [",".join(f'"{name}"' for name in names)] + [f"{t:.9g},{w:.9g}" for t, w in rows * scale]
    path.write_text("\n".join(lines))
    found = figures(passes, MeterLog(path).samples(passes))["joules_per_image"]["value"]
    assert found == pytest.approx(expected, rel=1e-4)


def test_units_of_volts_and_amperes(tmp_path):
    """And what steps of both may hide: 10 mA at 5 V are 50 mW, which no mean removes."""
    board, passes = run(3)
    path = tmp_path / "meter.csv"
    write_log(path, board, 50, offset=-board.times[0])
    expected = figures(passes, MeterLog(path).samples(passes))["delta_watts"]
    rows = np.array([list(map(float, row.split(","))) for row in path.read_text().splitlines()[1:]])
    amperes = np.round(rows[:, 1] / 5, 2)
    lines = ["time,Voltage (mV),current (mA)"]
    lines += [f"{t:.9g},5000,{1e3 * a:.0f}" for t, a in zip(rows[:, 0], amperes, strict=True)]
    path.write_text("\n".join(lines))
    samples = MeterLog(path).samples(passes)
    assert samples.step() == pytest.approx(0.05)
    found = figures(passes, samples)["delta_watts"]
    assert abs(found["value"] - expected["value"]) < found["uncertainty"]
    assert found["uncertainty"] > 0.05


def test_a_column_of_several(tmp_path):
    """Is not guessed; what was read is in the result."""
    board, passes = run(3)
    path = tmp_path / "meter.csv"
    write_log(path, board, 50, offset=-board.times[0])
    rows = [row.split(",") for row in path.read_text().splitlines()[1:]]
    lines = ["time,Power min (W),Power avg (W)", *(f"{t},{float(w) - 1:.9g},{w}" for t, w, *_ in rows)]
    expected = MeterLog(path).samples(passes)
    path.write_text("\n".join(lines))
    with pytest.raises(RowvitError, match=r"several columns have a power: .*; say which by --column NAME"):
        MeterLog(path).samples(passes)
    log = MeterLog(path, columns=["power AVG (w)"])
    np.testing.assert_allclose(log.samples(passes).watts, expected.watts)
    assert log.used == ["time", "Power avg (W)"]


def test_readings_that_hardly_differ():
    """A bench supply's volts, of more digits than a result keeps."""
    volts = 12 + 3e-6 * np.sin(np.arange(200.0))
    assert 0 < resolution(volts) < 1e-6


@pytest.mark.parametrize(
    "names", ["time,power_va", "time,Power (dBm)", "time [frames],power", "time,volt (V),current (mW)"]
)
def test_other_units_are_refused(tmp_path, names):
    path = tmp_path / "meter.csv"
    path.write_text(
        names + "\n" + "\n".join(f"{i},1,1" if names.count(",") == 2 else f"{i},1" for i in range(9))
    )
    with pytest.raises(RowvitError, match="which is no unit of"):
        MeterLog(path).samples(run(1)[1])
