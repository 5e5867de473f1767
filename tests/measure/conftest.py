# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from clocks import SharedClock
from PIL import Image
from pynq import pmbus
from typer.testing import CliRunner

from rowvit.cli import app
from rowvit.measure.power import instrument, protocol
from rowvit.quant.synthetic import random_package


def run(*arguments: object, code: int = 0):
    """The command ``rowvit``."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="session")
def rowvit_command():
    return run


@pytest.fixture
def clock(monkeypatch) -> SharedClock:
    """What PYNQ's recorder and the passes go by."""
    shared = SharedClock()
    monkeypatch.setattr(pmbus, "time", shared)
    monkeypatch.setattr(pmbus, "threading", shared)
    monkeypatch.setattr(instrument, "time", shared)
    monkeypatch.setattr(protocol, "measure", partial(protocol.measure, clock=shared))
    return shared


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> dict[str, Path]:
    """A package for `tiny`, and five images."""
    directory = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(5)
    size = dict(dim=32, depth=2, heads=2, image_size=12, patch_size=2, hidden=48, classes=5)
    files = {"package": directory / "small.safetensors", "images": directory / "photos"}
    random_package(rng, **size, pruning=[{"layer": 0, "keep": 20, "threshold": 0}]).save(files["package"])
    files["images"].mkdir()
    for i in range(5):
        pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(files["images"] / f"{i}.png")
    return files


@pytest.fixture(scope="session")
def bench_file(small, tmp_path_factory) -> Path:
    """A result of rowvit bench on the simulated accelerator, with baselines."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    command = ("bench", small["package"], small["images"], "-c", "tiny", "-n", 7, "--batch", 3)
    run(*command, "--baseline", "torch,ort", "--baseline-seconds", 0.05, "--json", path)
    return path


@pytest.fixture(scope="session")
def power_file(small, tmp_path_factory) -> Path:
    """A dry run of rowvit power, joined with the made up log of a meter: 3 W idle, 4.5 W busy."""
    path = tmp_path_factory.mktemp("power") / "power.json"
    plan = ("--pairs", 5, "--seconds", 0.3, "--settle", 0.1)
    command = ("power", small["package"], small["images"], "-t", "sim", "-c", "tiny", "--batch", 2, "-n", 3)
    out = run(*command, *plan, "--instrument", "csv", "--measures", "nothing: made up", "--json", path).stdout
    assert f"rowvit power-log {path} LOG" in "".join(out.splitlines())
    document = json.loads(path.read_text())
    passes, wall = document["passes"], document["protocol"]["wall_minus_monotonic_s"]
    times = np.arange(passes[0]["start"] - 3, passes[-1]["stop"] + 3, 0.002)
    busy = np.zeros(len(times))
    for p in passes:
        busy[(times >= p["start"]) & (times < p["stop"])] = p["kind"] == "busy"
    watts = 3 + 1.5 * busy + np.random.default_rng(0).normal(0, 0.01, len(times))
    log = path.with_name("meter.csv")
    rows = (f"{t + wall + 20:.6f},{w}\n" for t, w in zip(times, watts, strict=True))  # 20 s fast
    log.write_text("time,power\n" + "".join(rows))
    run("power-log", path, log)
    return path
