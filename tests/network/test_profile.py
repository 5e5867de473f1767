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
from rowvit.measure.speed import profile as measure
from rowvit.measure.speed.fill import fills
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
    lines = output.split("layer ", 1)[1].split("\n\n")[0].splitlines()[1:]
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
    for piece in slices:  # microseconds at the clock, to a nanosecond; Perfetto takes whole ones
        cycles, at = (1e3 * piece["args"][key] / load("tiny").clock_mhz for key in ("cycles", "start"))
        assert (1e3 * piece["ts"], 1e3 * piece["dur"]) == (
            pytest.approx(at, abs=0.7),
            pytest.approx(cycles, abs=1.2),
        )
        piece["ts"], piece["dur"] = (int(piece[key] * 1000) for key in ("ts", "dur"))
    names = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert list(names.values()) == ["layers", *measure.TRACKS.values()]
    layers = [s for s in slices if names[s["tid"]] == "layers"]
    image, *inside = layers
    assert (image["args"]["start"], image["args"]["cycles"]) == (0, total)
    assert [s["args"]["cycles"] for s in inside] == list(rows.values())
    assert [s["args"]["start"] for s in inside] == np.cumsum([0, *rows.values()][:-1]).tolist()
    # every track but the layers' holds one operation at a time
    for track in set(names) - {image["tid"]}:
        end = 0
        for piece in (s for s in slices if s["tid"] == track):
            assert end <= piece["ts"] and piece["dur"] >= 0, piece
            end = piece["ts"] + piece["dur"]
        assert end <= image["dur"]
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


def test_what_cannot_be_filled(files):
    """By hand: 2 heads of 64 on 3 groups of 64 lanes, and so on."""
    digits = read_package("sign-digits").meta
    found = {one.part: (one.share, one.why) for one in fills(digits, load("pynq-z2"))}
    assert found["Q, K, V and P V"] == (pytest.approx(2 / 3), "2 heads on 3 groups")
    assert found["patches, projection, FFN2"][0] == pytest.approx(128 / 192)
    assert found["FFN1"][0] == pytest.approx(512 / 768) and "chunks of 256" in found["FFN1"][1]
    assert found["head"][0] == pytest.approx(10 / 192 / 2)
    live = [197, 99, 50, 26]  # in attention of layers 0 and 1, 2 and 3, 4, and 5
    padded = 2 * 256 + 2 * 128 + 64 + 64
    assert found["Q K^T"][0] == pytest.approx(2 / 3 * (2 * 197 + 2 * 99 + 50 + 26) / padded)
    assert all(str(count) in found["Q K^T"][1] for count in live)
    assert "rows of all others" in found
    sizes = dict(depth=1, heads=3, image_size=32, patch_size=8, hidden=384, classes=5)
    full = random_package(np.random.default_rng(1), dim=192, **sizes)
    parts = {one.part for one in fills(full.meta, load("pynq-z2"))}
    assert not parts & {"patches, projection, FFN2", "Q, K, V and P V", "FFN1"}
    answer = {"rows": "all", "layers": [0]}
    answers = random_package(np.random.default_rng(1), dim=192, tokens=answer, **sizes | {"classes": 0})
    assert "head" not in {one.part for one in fills(answers.meta, load("pynq-z2"))}
    narrow = random_package(np.random.default_rng(1), dim=128, **sizes | {"heads": 4})
    why = {one.part: one.why for one in fills(narrow.meta, load("pynq-z2"))}
    assert why["Q, K, V and P V"] == "a head has 32 channels, and takes 64 lanes and 4 heads on 3 groups"
    text = run(files["package.safetensors"], "--predict", "-c", "tiny").stdout
    assert "What this network's sizes cannot fill" in text and "head" in text


def test_filled_share_is_that_of_the_sizes():
    """Fires of the RTL while it is busy: without zeros to skip, all groups and rows that the sizes fill."""
    package = random_package(
        np.random.default_rng(2), dim=32, depth=1, heads=2, image_size=16, patch_size=4, hidden=64, classes=3
    )
    found = measure.profile(package, np.full((16, 16, 3), 200, np.uint8), load("tiny"), MemoryModel())
    embed = found.layers[0]
    assert embed.macs / embed.busy == pytest.approx(32 * 17 / 18, rel=0.01)  # 17 tokens, 9 bands of 2 rows


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
    assert "use .png, .svg, .pdf or .webp" in mistake(*small, "--plot", tmp_path / "x.unknown")
    assert "configuration" in mistake(files["program.safetensors"], "--predict", "-c", "pynq-z2")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    assert "pip install matplotlib" in mistake(*small, "--plot", tmp_path / "x.png")
