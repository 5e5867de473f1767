# SPDX-License-Identifier: Apache-2.0
"""The cycle model against the RTL: the same program, image and memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import rowvit
from rowvit.compiler import compile
from rowvit.compiler.plan import Stage
from rowvit.cycles import Memory, assumed, measured, predict
from rowvit.hardware.config import load
from rowvit.hardware.isa import Engine
from rowvit.quant.synthetic import preset_package, random_package
from rowvit.reference import network, patchify
from rowvit.sim.device import MemoryModel
from rowvit.targets.target import read_package


def random_images(package, count, seed=1):
    side = package.meta["architecture"]["image_size"]
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def errors(package, config="pynq-z2", memory=None, batch=1, stages=None, **changes):
    """Relative errors of the total and of every layer of the last image.

    A layer's is relative to at least a thirtieth of an image: 3 % of that are 0.1 % of the image. The head of
    few classes is shorter, and where the last block ends in it is a matter of latencies.
    """
    hardware = replace(load(config), **changes)
    program, images = compile(package, hardware, stages=stages), random_images(package, batch)
    with rowvit.open("sim", config=hardware, memory=memory) as sim:
        sim.load(program)
        results = sim(images, batch=batch)
    found = network.run(package, patchify(images, package.arch["patch_size"]))
    predicted = predict(program, hardware, memory, [measured(r.counts) for r in found], batch)
    assert len(predicted.layer_cycles) == len(results[-1].layer_cycles)
    counted = np.array(results[-1].layer_cycles)
    layers = (predicted.layer_cycles - counted) / np.maximum(counted, counted.sum() / 30)
    return predicted.total / results[-1].counters["cycles"] - 1, layers


def tiny_network(seed, **changes):
    options = dict(dim=32, depth=2, heads=2, image_size=20, patch_size=4, hidden=64, classes=20)
    return random_package(np.random.default_rng(seed), **options | changes)


@pytest.mark.parametrize(
    "changes",
    [
        dict(ffn2_rule="none"),
        dict(ffn2_rule="image", pruning=[{"layer": 0, "keep": 12, "threshold": 0}]),
        dict(ffn2_rule="tile", tile_rows=8, ffn_chunk=32),
        dict(tokens={"rows": "all", "layers": [0, 1]}, pruning=[{"layer": 0, "keep": 12, "threshold": 0}]),
        dict(tokens={"rows": "all", "layers": [1]}, classes=0),
        dict(gated=True, rotary=True, pruning=[{"layer": 0, "keep": 12, "threshold": 0}]),
        dict(gated=True, ffn2_rule="tile", tile_rows=8, ffn_chunk=64),
    ],
    ids=["dense", "pruned", "tile", "tokens", "no classes", "gated", "gated, tile"],
)
@pytest.mark.parametrize("rows", [2, 4])
def test_tiny(changes, rows):
    """Operations of a few cycles: the pipelines' lengths count as much as the work.

    Most is missed where many masked loads of a few rows follow each other (4 rows, rule "tile").
    """
    total, _ = errors(tiny_network(3, **changes), "tiny", rows=rows)
    assert abs(total) < 0.065


@pytest.mark.parametrize(
    "stages",
    [(Stage(0, 2),), (Stage(0, 1), Stage(1, 4)), (Stage(0, 2), Stage(1, 4))],
    ids=["all", "last", "nested"],
)
def test_tiny_batch(stages):
    """Images that share loads."""
    network = tiny_network(3, ffn2_rule="image", pruning=[{"layer": 0, "keep": 12, "threshold": 0}])
    room = dict(token_depth=4096, residual_depth=4096)
    total, _ = errors(network, "tiny", batch=stages[-1].images, stages=stages, **room)
    assert abs(total) < 0.06


@pytest.mark.parametrize(
    "memory",
    [None, MemoryModel(120, 50), pytest.param(MemoryModel(ideal=True), marks=pytest.mark.slow)],
    ids=str,
)
def test_sign_digits(memory):
    total, layers = errors(read_package("sign-digits"), memory=memory)
    assert abs(total) < 0.01
    assert np.abs(layers).max() < 0.03


@pytest.mark.slow
@pytest.mark.parametrize(("name", "images"), [("sign-digits", 3), ("sign-digits", 4), ("deit-tiny", 8)])
def test_batch(name, images):
    package = read_package(name) if name == "sign-digits" else preset_package(name)
    total, layers = errors(package, batch=images)
    assert abs(total) < 0.01
    assert np.abs(layers).max() < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "pruned"])
@pytest.mark.parametrize(
    ("preset", "config"),
    [
        ("deit-tiny", "pynq-z2"),
        ("deit-small", "pynq-z2"),
        ("vit-small-14", "pynq-z2-257"),
        ("deit-tiny", "kv260"),
        ("deit-tiny", "zcu104"),
    ],
)
def test_known_networks(preset, config, dense):
    total, layers = errors(preset_package(preset, dense=dense), config)
    assert abs(total) < 0.01
    assert np.abs(layers).max() < 0.03


def test_assumed_statistics():
    """Without an image: the preset's densities give its cycles."""
    package, hardware = preset_package("deit-tiny"), load("pynq-z2")
    program = compile(package, hardware)
    (found,) = network.run(package, patchify(random_images(package, 1), 16))
    exact = predict(program, hardware, statistics=measured(found.counts))
    rough = predict(program, hardware, statistics=assumed(program, hidden=0.2, rows=0.4, probabilities=0.9))
    assert rough.total == pytest.approx(exact.total, rel=0.03)
    assert predict(program, hardware).total == rough.total


def test_timeline():
    """Every operation once an image; those of an engine in order, the array's not at the same time."""
    package, hardware = tiny_network(5, ffn2_rule="image"), load("tiny")
    program = compile(package, hardware, batch=1)
    predicted = predict(program, hardware, Memory(rate=60), images=2)
    assert sum(predicted.image_cycles) == predicted.total
    assert sum(predicted.layer_cycles) == predicted.image_cycles[-1]
    for engine in Engine:
        slices = [s for s in predicted.timeline if s.engine is engine]
        each = [sorted(s.name for s in slices if s.image == image) for image in range(2)]
        assert each[0] == each[1]
        assert engine is Engine.SELECT or each[0]
        for before, after in pairwise(slices):
            assert before.number < after.number
            if engine is Engine.EXEC:
                assert before.end <= after.start
    slow = predict(program, hardware, Memory(latency=200, rate=10), images=2)
    ideal = predict(program, hardware, Memory(ideal=True), images=2)
    assert ideal.total < predicted.total < slow.total
