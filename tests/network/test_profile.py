# SPDX-License-Identifier: Apache-2.0
"""`rowvit profile`: the table, the trace, the picture, and one sentence for every mistake."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rowvit.cli import app
from rowvit.compiler import compile
from rowvit.hardware.config import load
from rowvit.hardware.isa import Op
from rowvit.measure import profile as measure
from rowvit.quant.synthetic import random_package
from rowvit.sim.device import MemoryModel
from rowvit.targets.target import read_package, read_program

RATE = ("-c", "tiny", "--rate", "60")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A package and a program for `tiny`, and an image."""
    directory = tmp_path_factory.mktemp("profile")
    package = random_package(
        np.random.default_rng(4),
        dim=32,
        depth=2,
        heads=2,
        image_size=16,
        patch_size=4,
        hidden=64,
        classes=5,
        pruning=[{"layer": 0, "keep": 7, "threshold": 0}],
        name="small",
    )
    found = {name: directory / name for name in ("package.safetensors", "program.safetensors", "image.png")}
    package.save(found["package.safetensors"])
    compile(package, load("tiny")).save(found["program.safetensors"])
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(found["image.png"])
    return found


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["profile", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def table(output):
    """Rows of the array's table: name to cycles."""
    lines = output.split("busy, or waiting for\n")[1].split("\n\n")[0].splitlines()[1:]
    return {name: int(cycles.replace(",", "")) for name, cycles, *_ in map(str.split, lines)}


@pytest.mark.parametrize("predict", [[], ["--predict"]], ids=["sim", "model"])
@pytest.mark.parametrize("model", ["package.safetensors", "program.safetensors"])
def test_table_and_trace(files, tmp_path, model, predict):
    out = tmp_path / "trace.json"
    result = run(files[model], files["image.png"], *RATE, *predict, "--trace-json", out)
    rows = table(result.stdout)
    total = rows.pop("total")
    assert list(rows) == ["embed", "0", "1", "head"]
    assert sum(rows.values()) == total

    trace = json.loads(out.read_text())
    assert trace["otherData"]["cycles"] == total
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    names = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert list(names.values()) == ["layers", *measure.TRACKS.values()]
    layers = [s for s in slices if names[s["tid"]] == "layers"]
    image, *inside = layers
    assert (image["ts"], image["dur"]) == (0, total)
    assert [s["dur"] for s in inside] == list(rows.values())
    assert [s["ts"] for s in inside] == np.cumsum([0, *rows.values()][:-1]).tolist()
    # every track but the layers' holds one operation at a time
    for track in set(names) - {image["tid"]}:
        end = 0
        for piece in (s for s in slices if s["tid"] == track):
            assert end <= piece["ts"] and piece["dur"] >= 0, piece
            end = piece["ts"] + piece["dur"]
        assert end <= total
    array = [s for s in slices if names[s["tid"]] == "array"]
    program = read_program(files["program.safetensors"], load("tiny"))
    assert len(array) == sum(i.op in (Op.MATMUL, Op.ATTN) for i in program.passes[0].instructions)


def test_measured_and_predicted_agree(files):
    arguments = (files["package.safetensors"], files["image.png"], *RATE)
    simulated, predicted = (table(run(*arguments, *more).stdout) for more in ([], ["--predict"]))
    assert predicted["total"] == pytest.approx(simulated["total"], rel=0.06)


def test_shares_add_up(files):
    pixels = np.asarray(Image.open(files["image.png"]))
    package = read_package(files["package.safetensors"])
    for simulate in (False, True):
        found = measure.profile(package, pixels, load("tiny"), MemoryModel(), simulate)
        assert (found.result is not None) == simulate
        for layer in found.layers:
            parts = layer.busy + layer.weights + layer.data + layer.draining
            assert parts == pytest.approx(layer.cycles, abs=1)
            assert 0 <= layer.load <= layer.cycles


def test_plot(files, tmp_path):
    pytest.importorskip("matplotlib")
    for suffix in ("png", "svg"):
        out = tmp_path / f"picture.{suffix}"
        run(files["package.safetensors"], "--predict", "-c", "tiny", "--plot", out)
        assert out.stat().st_size > 10000
    assert Image.open(tmp_path / "picture.png").size[0] > 1000


def mistake(*arguments):
    result = run(*arguments, code=2)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("building the simulator")]
    assert len(lines) == 1 and lines[0].startswith("rowvit: "), result.stderr
    return lines[0]


def test_mistakes(files, tmp_path, monkeypatch):
    package = files["package.safetensors"]
    small = (package, "--predict", "-c", "tiny")
    assert "no.png" in mistake(package, tmp_path / "no.png", "--predict", "-c", "tiny")
    for option in ("--plot", "--trace-json"):
        assert "there is no directory" in mistake(*small, option, tmp_path / "none" / "x.png")
        assert "cannot be written" in mistake(*small, option, tmp_path)
    assert "cannot be written" in mistake(*small, "--plot", tmp_path / "x.unknown")
    assert "configuration" in mistake(files["program.safetensors"], "--predict", "-c", "pynq-z2")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    assert "pip install matplotlib" in mistake(*small, "--plot", tmp_path / "x.png")
