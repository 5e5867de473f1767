# SPDX-License-Identifier: Apache-2.0
"""The commands bench, power, power-log, baseline and report."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
from fakes import hwmon_tree

import rowvit
from rowvit.errors import RowvitError
from rowvit.measure import temperature
from rowvit.measure.power import protocol
from rowvit.measure.power.instruments import hwmon, meter
from rowvit.measure.report import check
from rowvit.measure.speed import baseline
from rowvit.targets.driver import Accelerator
from rowvit.targets.golden import Golden
from rowvit.targets.target import read_program


@pytest.fixture
def mistake(rowvit_command):
    def run(*arguments: object) -> str:
        done = rowvit_command(*arguments, code=2)
        assert done.stdout == "" and done.stderr.lstrip().startswith("rowvit: ")
        return " ".join(done.stderr.split())

    return run


def test_bench(bench_file):
    document = json.loads(bench_file.read_text())
    assert check.check(document) == []
    assert document["data"]["images"] == 5 and document["data"]["set"] == "photos"
    assert document["protocol"] == {
        "warm_up": "1 image before latency, and before throughput",
        "repetitions": 7,
        "batch": 3,
    }
    assert len(document["throughput"]["latency_ms"]["values"]) == 7
    runs = {(s["runtime"], s["batch"]) for s in document["throughput"]["baseline"]}
    assert runs == {(runtime, batch) for runtime in ("torch", "ort") for batch in (1, 3)}
    assert document["evidence"].startswith("simulated cycles at a clock of no board")


def test_bench_prints_what_it_found(rowvit_command, small):
    command = ("bench", small["package"], "-c", "tiny", "-n", 3, "--batch", 2, "--memory", "ideal")
    out = rowvit_command(*command).stdout
    assert "nothing was measured on a board; ideal memory" in out
    for text in ("latency", "of 3 images, one after the other", "batches of 2", "dense-equivalent", "DMA in"):
        assert text in out
    written = json.loads(rowvit_command(*command, "--json", "-").stdout)  # nothing else on standard output
    assert written["data"]["set"] == "random pixels" and check.check(written) == []


def test_a_batch_is_not_larger_than_the_images(rowvit_command, small):
    """For the CPU as for the core."""
    command = ("bench", small["package"], "-c", "tiny", "-n", 2, "--batch", 8, "--baseline", "numpy")
    written = json.loads(rowvit_command(*command, "--baseline-seconds", 0.01, "--json", "-").stdout)
    assert written["protocol"]["batch"] == 2
    assert [speed["batch"] for speed in written["throughput"]["baseline"]] == [1, 2]


def test_bench_is_as_asked_for(rowvit_command, small, monkeypatch):
    """Images before the measurement, the name of the set, the memory, and the time of a baseline."""
    seconds, images = [], []
    measured, streamed = baseline.measure, Golden.stream
    monkeypatch.setattr(baseline, "measure", lambda ways, each: seconds.append(each) or measured(ways, each))
    command = ("bench", small["package"], small["images"], "-c", "tiny", "-n", 2, "--batch", 2, "--json", "-")
    named = (*command, "--data", "mine", "--subset", "the odd ones", "--baseline", "numpy")
    document = json.loads(rowvit_command(*named, "--baseline-seconds", 0.02).stdout)
    assert (document["data"]["set"], document["data"]["subset"]) == ("mine", "the odd ones")
    assert seconds == [0.02]
    far = json.loads(rowvit_command(*command, "--latency", 400).stdout)
    rare = json.loads(rowvit_command(*command, "--rate", 10).stdout)
    first, late, few = (one["throughput"]["latency_ms"]["median"] for one in (document, far, rare))
    assert late > 1.2 * first and few > 1.2 * first

    def counting(target, pixels, batch):
        pixels = list(pixels)
        images.append(len(pixels))
        return streamed(target, pixels, batch)

    monkeypatch.setattr(Golden, "stream", counting)
    total = []
    for warm_up in (0, 3):
        images.clear()
        document = json.loads(rowvit_command(*command, "-t", "golden", "--warm-up", warm_up).stdout)
        assert document["protocol"]["warm_up"].startswith(f"{warm_up} images before")
        total.append(sum(images))
    assert total[1] - total[0] == 2 * 3  # alone, and in batches


def test_power_is_as_asked_for(rowvit_command, small, monkeypatch):
    def stop(session, chosen, plan, opened, batch, progress):
        raise RowvitError(f"asked for {plan.seed}, {batch}")

    monkeypatch.setattr(protocol, "document", stop)
    command = ("power", small["package"], "-t", "sim", "-c", "tiny", "--seed", 11, "--batch", 3)
    assert "asked for 11, 3" in rowvit_command(*command, code=2).stderr


def test_power_with_the_log_of_a_meter(rowvit_command, small, power_file, tmp_path, monkeypatch):
    """It is what power and, later, power-log say."""
    document = json.loads(power_file.read_text())
    asked, joined = [], meter.join
    monkeypatch.setattr(protocol, "document", lambda *_: document)

    def join(found, log, *options):
        asked.append(log)
        joined(found, log, *options)

    monkeypatch.setattr(meter, "join", join)
    command = ("power", small["package"], "-t", "sim", "-c", "tiny", "--instrument", "csv")
    measures = ("--measures", document["instrument"]["measures"], "--json", tmp_path / "one.json")
    rowvit_command(*command, *measures, "--log", power_file.with_name("meter.csv"))
    rowvit_command("power-log", power_file, power_file.with_name("meter.csv"), "-o", tmp_path / "two.json")
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert one["power"] == two["power"] and asked == [power_file.with_name("meter.csv")] * 2


def test_power_log_is_as_asked_for(rowvit_command, power_file, monkeypatch):
    asked = []
    monkeypatch.setattr(meter, "join", lambda document, log, *options: asked.append(options))
    log = power_file.with_name("meter.csv")
    command = ("power-log", power_file, log, "-o", power_file.with_name("other.json"))
    rowvit_command(*command)
    rowvit_command(*command, "--search", 7, "--resolution", 0.5, "--column", "A", "--column", "B")
    assert asked == [(60.0, None, []), (7.0, 0.5, ["A", "B"])]


@pytest.mark.parametrize("predict", [False, True], ids=["simulated", "predicted"])
def test_profile_of_another_memory(rowvit_command, small, predict):
    command = ("profile", small["package"], "-c", "tiny", *(["--predict"] if predict else []))

    def cycles(*options: object) -> int:
        said = rowvit_command(*command, *options).stdout
        return max(int(number.replace(",", "")) for number in re.findall(r"\b\d[\d,]+\b", said))

    usual = cycles()
    assert cycles("--latency", 400) > 1.2 * usual
    assert cycles("--rate", 10) > 1.2 * usual


def test_options_that_would_do_nothing(mistake, small, tmp_path, bench_file):
    command = ("bench", small["package"], "-c", "tiny", "--memory", "ideal", "--rate", 50)
    assert "--latency and --rate are of --memory ddr; leave them out with ideal" in mistake(*command)
    command = ("run", small["package"], tmp_path, "-c", "tiny", "--trace-cycles", "0:9")
    assert "--trace-cycles is of a waveform; name its file, with --trace" in mistake(*command)
    command = ("report", bench_file, "--energies", tmp_path / "none.toml", "-o", tmp_path / "page.html")
    assert "--energies is for what is estimated of --model" in mistake(*command)


def test_bench_with_checks(rowvit_command, small, tmp_path, mistake, monkeypatch):
    command = ("bench", small["package"], "-c", "tiny", "-n", 3, "--batch", 2, "--check-every", 2)
    file = tmp_path / "checked.json"
    out = rowvit_command(*command, "--json", file).stdout
    assert re.search(r"checked +one image in 2, by the integer reference at the same time: equal", out)
    document = json.loads(file.read_text())
    assert document["protocol"]["check_every"] == 2 and check.check(document) == []

    def damaged(*arguments):
        program = read_program(*arguments)
        program.weights[-4000:-3000] ^= 0x40
        return program

    monkeypatch.setattr("rowvit.targets.session.read_program", damaged)
    assert "rowvit: image 0 differs from the integer reference in logits[" in mistake(*command)
    assert "--check-every is for sim and board, not for --target golden" in mistake(*command, "-t", "golden")


def test_bench_golden(rowvit_command, small):
    command = ("bench", small["package"], small["images"], "-t", "golden", "-c", "tiny", "-n", 4)
    document = json.loads(rowvit_command(*command, "--json", "-").stdout)
    assert check.check(document) == [] and "no accelerator was measured" in document["evidence"]
    assert document["throughput"]["baseline"] == {"none": "not asked for (--baseline)"}


def test_bench_leaves_out_what_cannot_be_decoded(rowvit_command, small, tmp_path, mistake, monkeypatch):
    """A file that is damaged or no picture does not stop the others; those that come again fit in memory."""
    for file in small["images"].iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "0_text.jpg").write_text("no picture")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:-100])
    command = ("bench", small["package"], tmp_path, "-t", "golden", "-c", "tiny", "-n", 6, "--json", "-")
    found = rowvit_command(*command, code=1)
    document = json.loads(found.stdout)
    assert document["data"]["images"] == 4 and document["data"]["subset"] == "first 4 of 6 files by name"
    assert document["throughput"]["files"]["images"] == 6
    skipped = re.findall(
        r"skipped: \S+/(\S+): (?:is no picture|cannot be decoded)", " ".join(found.stderr.split())
    )
    assert skipped == ["0_text.jpg", "1.png"]
    monkeypatch.setattr("rowvit.targets.session.AHEAD_BYTES", 1000)  # two images of 12 x 12
    document = json.loads(rowvit_command(*command, code=1).stdout)
    assert document["data"]["images"] == 2 and document["data"]["repeated"] == 3
    for file in tmp_path.glob("[0-9].png"):
        file.write_bytes(b"")
    assert "0.png: is no picture" in mistake(*command)


def test_baseline_from_a_file(rowvit_command, small, tmp_path, mistake):
    """For a board that has onnxruntime, but not PyTorch."""
    file = tmp_path / "float.onnx"
    rowvit_command("baseline", small["package"], "-o", file, "--batch", 2)
    bench = ("bench", small["package"], "-t", "golden", "-c", "tiny", "-n", 2, "--baseline-seconds", 0.01)
    speeds = json.loads(rowvit_command(*bench, "--baseline", file, "--json", "-").stdout)["throughput"]
    assert {(s["runtime"], s["batch"], s["difference"]) for s in speeds["baseline"]} == {("ort", 2, None)}
    other = ("bench", "sign-digits", "-t", "golden", "-n", 1, "--baseline", file)
    assert "is not the float network of this model" in mistake(*other)
    file.write_bytes(b"no")
    assert "onnxruntime cannot read float.onnx" in mistake(*bench, "--baseline", file)
    assert "cannot be read" in mistake(*bench, "--baseline", tmp_path / "none.onnx")
    assert "no baseline 'tvm'" in mistake(*bench, "--baseline", "tvm")


def test_power_with_a_meter(power_file):
    document = json.loads(power_file.read_text())
    found = document["power"]
    assert found["idle_watts"]["value"] == pytest.approx(3.0, rel=1e-3)
    assert found["busy_watts"]["value"] == pytest.approx(4.5, rel=1e-3)
    busy = [p for p in document["passes"] if p["kind"] == "busy"]
    per_image = sum((p["end"] - p["begin"]) / p["images"] for p in busy) / len(busy)
    assert found["dynamic_joules_per_image"]["value"] == pytest.approx(1.5 * per_image, rel=0.01)
    assert document["idle"]["watts"] == found["idle_watts"]["value"]
    log = power_file.with_name("meter.csv")
    assert found["log"]["sha256"] == hashlib.sha256(log.read_bytes()).hexdigest()
    wall = document["protocol"]["wall_minus_monotonic_s"]
    assert found["log"]["shift_s"] == pytest.approx(-wall - 20, abs=0.1)  # the meter is 20 s fast
    assert document["evidence"].startswith("a dry run")


def test_power_with_a_sensor(rowvit_command, small, tmp_path, monkeypatch, clock):
    """A fake INA226 that gives 5 W while the simulated accelerator works, 0.37 s a time, else 3 W.

    It has steps of 10 mW, and noise to show them.
    """
    root = hwmon_tree(tmp_path / "hwmon", {"hwmon4": "ina226_u79"})
    monkeypatch.setattr(hwmon, "HWMON", root)
    path, call, watts = root / "hwmon4" / "power1_input", Accelerator.__call__, [3]

    def timed(self, *arguments):
        watts[0] = 5
        results = call(self, *arguments)
        clock.sleep(0.37)
        watts[0] = 3
        return results

    monkeypatch.setattr(Accelerator, "__call__", timed)
    noise = itertools.cycle((-10_000, 0, 10_000))
    clock.moved = lambda: path.write_text(f"{watts[0] * 1_000_000 + next(noise)}\n")
    command = ("power", small["package"], "-t", "sim", "-c", "tiny", "--instrument", "hwmon", "-n", 2)
    plan = ("--rail", "ina226", "--pairs", 5, "--seconds", 3, "--settle", 0.4, "--interval", 0.02)
    out = rowvit_command(*command, *plan, "--json", tmp_path / "power.json").stdout
    assert "energy per image" in out and "5 pairs of passes; hwmon ina226_u79" in out
    document = json.loads((tmp_path / "power.json").read_text())
    assert check.check(document) == []
    found = document["power"]
    assert found["idle_watts"]["value"] == pytest.approx(3.0, rel=0.01)
    assert found["busy_watts"]["value"] == pytest.approx(5.0, rel=0.01)
    assert found["step_watts"] == pytest.approx(0.01, rel=1e-3)  # pandas may keep 32 bits
    assert found["significant"] and document["instrument"]["sampling_hz"] == pytest.approx(50, rel=0.01)
    assert document["protocol"]["order"] == [p["kind"] for p in document["passes"]]


def test_power_refuses(mistake, small, tmp_path, monkeypatch, bench_file, power_file):
    monkeypatch.setattr(hwmon, "HWMON", tmp_path)
    sim = ("power", small["package"], "-t", "sim", "-c", "tiny")
    assert "sensor ina260 is missing" in mistake(*sim, "--instrument", "hwmon", "--rail", "ina260")
    assert "no rail of this machine is known" in mistake(*sim, "--instrument", "pmbus")
    assert "too few for an uncertainty" in mistake(*sim, "--pairs", 2)
    assert "--measures" in mistake(*sim, "--instrument", "csv", "--json", tmp_path / "p.json")
    assert "pass --json FILE" in mistake(*sim, "--instrument", "csv", "--measures", "its supply")
    assert "none has no rails" in mistake(*sim, "--instrument", "none", "--rail", "INT")
    assert "no instrument 'watt'; use one of csv, hwmon, none, pmbus" in mistake(*sim, "--instrument", "watt")
    assert "cannot be written" in mistake(*sim, "--json", tmp_path / "no" / "p.json")
    document = json.loads(power_file.read_text())
    document["instrument"]["name"] = "hwmon ina226_u79"
    (tmp_path / "hwmon.json").write_text(json.dumps(document))
    for other in (bench_file, tmp_path / "hwmon.json"):
        text = mistake("power-log", other, power_file.with_name("meter.csv"))
        assert "the result was not recorded for an external meter; use a result of" in text
    monkeypatch.setenv("BOARD", "Pynq-Z2")
    board = ("power", small["package"], "-c", "tiny")
    assert "no power sensor of Pynq-Z2 is known; measure at its supply" in mistake(*board)
    monkeypatch.setenv("BOARD", "KV260")
    assert "sensor ina260 is missing" in mistake(*board)


def test_report(rowvit_command, mistake, bench_file, power_file, tmp_path):
    out = rowvit_command("report", "--check", bench_file, power_file).stdout
    assert out.count("complete; ") == 2 and "a dry run" in out
    page = tmp_path / "page.html"
    rowvit_command("report", bench_file, power_file, "-o", page)
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert "cannot be written" in mistake("report", bench_file, "-o", tmp_path / "no" / "page.html")
    incomplete = json.loads(bench_file.read_text())
    del incomplete["clock"]
    (tmp_path / "r.json").write_text(json.dumps(incomplete))
    assert "it lacks clock" in mistake("report", bench_file, tmp_path / "r.json", "-o", page)


def test_a_board(rowvit_command, small, tmp_path, monkeypatch):
    """A board whose core is the simulated one: its clock, its bitstream, its die's temperature."""
    monkeypatch.setenv("BOARD", "Pynq-Z2")
    monkeypatch.setattr(temperature, "IIO", tmp_path)
    device = tmp_path / "iio:device0"
    device.mkdir()
    for name, text in {"name": "xadc", "raw": "2600", "offset": "-2219", "scale": "123.04"}.items():
        (device / (name if name == "name" else f"in_temp0_{name}")).write_text(text)
    opened, bits = rowvit.open, []

    def open_simulated(target, config):
        accelerator = opened("sim", config)
        path = Path(accelerator.overlay.bitfile_name)
        bits.append((path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
        return accelerator

    monkeypatch.setattr("rowvit.targets.session.open_target", open_simulated)
    command = ("bench", small["package"], small["images"], "-t", "board", "-c", "tiny", "-n", 6, "--batch", 4)
    document = json.loads(rowvit_command(*command, "--json", "-").stdout)
    assert check.check(document) == []
    assert document["evidence"] == "measured on the board"  # which is why a name of a board must be there
    assert document["board"]["name"] == "Pynq-Z2"
    assert [(document["overlay"]["file"], document["overlay"]["sha256"])] == bits
    assert document["clock"]["source"].startswith("read from the processing system")
    assert document["clock"]["mhz"] == pytest.approx(100, rel=0.01)
    assert document["temperature"]["source"] == "xadc in_temp0_raw"
    assert document["temperature"]["highest"] == pytest.approx(46.9, abs=0.1)
    phases = [p["name"] for p in document["throughput"]["phases"]["latency"]]
    assert phases == ["packing", "DMA in", "compute", "start, DMA out, waiting", "unpacking"]
    assert "memory" not in document["throughput"]
    files, limit = document["throughput"]["files"], document["throughput"]["limit"]
    assert files["images"] == 6 and files["pipelined"]["images_per_second"] > 0
    assert limit["pixels"] in limit["ms"] and limit["ms"]["core"] > 0
    assert limit["host_from_files_ms"] > limit["ms"]["host"] > 0
