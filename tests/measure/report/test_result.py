# SPDX-License-Identifier: Apache-2.0
"""A result that lacks what a reviewer asks is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rowvit.errors import RowvitError
from rowvit.measure import result
from rowvit.measure.power.passes import PowerPass
from rowvit.measure.power.samples import Samples
from rowvit.measure.power.statistics import figures
from rowvit.measure.report import check
from rowvit.targets.session import ImageSet

#: what a reviewer asks, and where it stands
ASKED = {
    "board": "board",
    "overlay hash": "overlay.sha256",
    "configuration": "config.hash",
    "clock": "clock.mhz",
    "model hash": "model.hash",
    "data set": "data.set",
    "subset": "data.subset",
    "its pixels": "data.sha256",
    "warm-up": "protocol.warm_up",
    "repetitions": "protocol.repetitions",
    "instrument": "instrument.name",
    "what it measures": "instrument.measures",
    "sampling rate": "instrument.sampling_hz",
    "idle baseline": "idle",
    "temperature": "temperature",
    "versions": "versions",
    "revision": "rowvit.revision",
    "command line": "command",
    "latency": "throughput.latency_ms.p99",
    "what the figures are": "evidence",
}


@pytest.fixture
def document(bench_file) -> dict:
    return json.loads(bench_file.read_text())


def without(document: dict, path: str) -> dict:
    *parents, last = path.split(".")
    inner = document
    for name in parents:
        inner = inner[name]
    del inner[last]
    return document


def test_complete_results_pass(document, power_file):
    assert check.check(document) == []
    assert check.check(json.loads(power_file.read_text())) == []


def test_where_nothing_can_be_written(document, tmp_path, rowvit_command, monkeypatch):
    """A check writes nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.html").mkdir()
    (tmp_path / "result.json").write_text(json.dumps(document))
    assert "complete" in rowvit_command("report", "--check", "result.json").stdout
    assert "report.html: cannot be written" in rowvit_command("report", "result.json", code=2).stderr


@pytest.mark.parametrize("path", ASKED.values(), ids=ASKED)
def test_what_is_missing_is_named(document, path, tmp_path, rowvit_command):
    file = tmp_path / "result.json"
    file.write_text(json.dumps(without(document, path)))
    said = rowvit_command("report", "--check", file, code=2).stderr
    assert f"it lacks {path}" in " ".join(said.split())


def test_what_cannot_be_known_needs_a_reason(document):
    document["temperature"] = {"none": "the enclosure is sealed"}
    assert check.check(document) == []
    for absent in (None, {}, {"none": ""}, "unknown"):
        document["temperature"] = absent
        assert check.check(document)


def test_a_board_has_no_excuse(document):
    """Of a board, overlay and model are known; where power is given, idle power and sampling rate are."""
    document |= {"target": "board", "board": {"name": "Pynq-Z2", "kernel": "5.15"}}
    document["evidence"] = "measured on the board"
    assert check.check(document) == []
    for key, value in (("overlay", {"none": "lost"}), ("board", {"none": "forgotten"})):
        assert check.check(document | {key: value})
    assert check.check(document | {"model": document["model"] | {"hash": {"none": "lost"}}})


def test_only_a_board_is_measured(document):
    """No file says measured of what was simulated, or the other way round."""
    assert check.check(document | {"evidence": "measured on the board"})
    assert check.check(document | {"target": "board", "board": {"name": "Pynq-Z2", "kernel": "5.15"}})


def test_power_without_idle_or_rate_is_refused(power_file):
    document = json.loads(power_file.read_text())
    assert check.check(document | {"idle": {"none": "no time"}})
    assert check.check(
        document | {"instrument": document["instrument"] | {"sampling_hz": {"none": "unknown"}}}
    )
    assert check.check(document | {"passes": []})
    # not measured is said, not left out
    document |= {"power": {"none": "no meter"}, "idle": {"none": "no meter"}}
    assert check.check(document) == []
    del document["power"]
    assert check.check(document) == ["it lacks power"]


def test_unreadable_files(tmp_path):
    for text, message in (("{", "is not JSON"), ("[]", "is not of type 'object'"), ("{}", "it lacks schema")):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(RowvitError, match=message):
            check.read(tmp_path / "r.json")
    with pytest.raises(RowvitError, match="cannot be read"):
        check.read(tmp_path / "none.json")
    with pytest.raises(RowvitError, match="cannot be written"):
        result.write(tmp_path / "none" / "r.json", {})


def test_the_environment_of_a_baseline_is_told(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("HOME", "/nobody")
    found = result.host()["environment"]
    assert found["OMP_NUM_THREADS"] == "3" and "HOME" not in found


def test_revision_says_whether_the_tree_was_changed():
    found = result.revision()
    assert found["version"] and len(found["sources_sha256"]) == 64
    assert found == result.revision()


def test_data_set_is_its_pixels(document):
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    images = ImageSet(pixels, [], "a", "b", 2)
    first = result.data_set(images)
    pixels[1, 0, 0, 0] = 1
    assert first["images"] == 2 and first["sha256"] != result.data_set(images)["sha256"]


def edited(path, *changes):
    """A result in which the places (keys with dots) have other values."""
    document = json.loads(path.read_text())
    for place, value in changes:
        *parents, last = place.split(".")
        where = document
        for key in parents:
            where = where[key]
        where[last] = value(where[last]) if callable(value) else value
    return document


@pytest.mark.parametrize(
    "place, value, phrase",
    [
        ("throughput.images_per_second", lambda v: 10 * v, "throughput.images_per_second is"),
        ("throughput.latency_ms.median", lambda v: 0.9 * v, "throughput.latency_ms.median is"),
        ("throughput.latency_ms.min", 0.0, "throughput.latency_ms.min is"),
        ("throughput.pipelined.ms_per_image", lambda v: v / 10, "but the core alone takes"),
        ("throughput.finn.throughput[images/s]", 1.0, "throughput.finn.throughput[images/s] is 1.0"),
        ("protocol.repetitions", 0, "protocol.repetitions is 0, of"),
        ("throughput.gops.executed", 1e6, "above the peak"),
        ("throughput.latency_ms.values", lambda v: v[:-1], "protocol.repetitions is"),
    ],
)
def test_throughput_is_computed_again(bench_file, place, value, phrase):
    problems = check.check(edited(bench_file, (place, value)))
    assert any(phrase in problem for problem in problems), problems


@pytest.mark.parametrize(
    "place, value, phrase",
    [
        ("power.joules_per_image.value", lambda v: v / 2, "power.joules_per_image.value is"),
        ("power.dynamic_joules_per_image.uncertainty", 0.0, "power.dynamic_joules_per_image.uncertainty is"),
        ("power.significant", lambda v: not v, "power.significant is"),
        ("idle.watts", -3.0, "idle.watts is -3.0, but"),
        (
            "power.pass_watts",
            lambda v: [2 * w for w in v],
            "power.pass_watts is not what power.samples gives",
        ),
        ("power.pass_watts", lambda v: v[1:], "power.pass_watts has not one figure for each pass"),
        ("power.half_watts", lambda v: v[1:], "power.half_watts has not one figure for each pass"),
        ("power.misplaced_s", 2.0, "power.delta_watts.uncertainty is"),
        ("passes", lambda v: v[:8], "power.pass_watts has not one figure"),
        ("power.samples.times", lambda v: [t + 3 for t in v], "power.pass_watts is not what"),
        (
            "passes",
            lambda v: [p | {"images": 2 * p["images"]} for p in v],
            "power.images_per_second.value is",
        ),
        ("passes", lambda v: [p | {"images": 0} for p in v], "a busy one has no image"),
    ],
)
def test_power_is_computed_again(power_file, place, value, phrase):
    problems = check.check(edited(power_file, (place, value)))
    assert any(phrase in problem for problem in problems), problems


def of_samples(power_file, watts: float = 0.0) -> dict:
    """The result as if the meter had given only the samples that are kept, with its zero ``watts`` off."""
    document = json.loads(power_file.read_text())
    kept = document["power"]["samples"]
    samples = Samples(np.array(kept["times"]), np.array(kept["watts"]) + watts)
    document["power"] |= figures([PowerPass(**record) for record in document["passes"]], samples)
    document["idle"]["watts"] = document["power"]["idle_watts"]["value"]
    return document


@pytest.mark.parametrize(
    "key, value, phrase",
    [
        ("half_watts", lambda v: [0.0] * len(v), "power.half_watts is not what power.samples gives"),
        ("gap_watts", lambda v: [w + 1 for w in v], "power.gap_watts is not what power.samples gives"),
        ("step_watts", lambda v: 0.0, "power.step_watts is less than between any two of power.samples"),
    ],
)
def test_what_an_instrument_hides_is_computed_again(power_file, key, value, phrase):
    document = of_samples(power_file)
    assert check.check(document) == []
    document["power"][key] = value(document["power"][key])
    assert phrase in check.check(document)


def test_power_below_zero(power_file):
    """All of it: no figure disagrees, but the meter is wrong."""
    (problem,) = check.check(of_samples(power_file, -6.0))
    assert "W is below 0" in problem
