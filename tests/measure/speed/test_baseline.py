# SPDX-License-Identifier: Apache-2.0
"""The float network on this machine's CPU."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch

from rowvit.errors import RowvitError
from rowvit.measure.speed import baseline
from rowvit.measure.speed.numpy_network import NumpyNetwork
from rowvit.processors import processors
from rowvit.quant.synthetic import random_package

PRUNING = [{"layer": 0, "keep": 9, "threshold": 0}, {"layer": 2, "keep": 4, "threshold": 0}]


def package(pruning=(), kinds: bool = False) -> dict:
    size = dict(dim=32, depth=3, heads=2, image_size=20, patch_size=4, hidden=48, classes=7)
    rng = np.random.default_rng(3)
    return random_package(rng, **size, pruning=list(pruning), rotary=kinds, gated=kinds).meta


def test_export_equals_torch_and_prunes():
    """Token lists depend on the image; the exported network must choose anew for each."""
    network = baseline.float_network(package(PRUNING))
    session = onnxruntime.InferenceSession(baseline.export(network, 5))
    images = np.random.default_rng(0).standard_normal((5, 3, 20, 20), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    kept = network.tokens.numpy()
    assert kept.shape == (5, 5) and len(np.unique(kept, axis=0)) > 1
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=1e-5)
    with torch.inference_mode():
        dense = baseline.float_network(package())(torch.from_numpy(images)).numpy()
    assert np.abs(dense - expected).max() > 1e-3  # same seeded weights, so pruning made the difference


@pytest.mark.parametrize("pruning", [(), PRUNING], ids=["dense", "pruned"])
@pytest.mark.parametrize("registers", [0, 2])
def test_numpy_equals_torch(pruning, registers):
    network = package(pruning)
    network["architecture"]["prefix"] += registers
    network["architecture"]["tokens"] += registers
    by_torch = baseline.float_network(network)
    torch.nn.init.normal_(by_torch.pos_embed, std=0.5)
    torch.nn.init.normal_(by_torch.blocks[1].norm1.bias)
    images = np.random.default_rng(0).standard_normal((5, 3, 20, 20), np.float32)
    with torch.inference_mode():
        expected = by_torch(torch.from_numpy(images)).numpy()
    parameters = {name: value.numpy() for name, value in by_torch.state_dict().items()}
    found = NumpyNetwork(network["architecture"], network["pruning"], parameters)(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    made = NumpyNetwork(network["architecture"], network["pruning"]).parameters
    assert {name: value.shape for name, value in made.items()} == {n: v.shape for n, v in parameters.items()}


def test_numpy_needs_no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = list(baseline.measure(baseline.ways(package(PRUNING), ["numpy"], (1, 4)), 0.01))
    assert [(s.runtime, s.batch, s.difference) for s in found] == [("numpy", 1, None), ("numpy", 4, None)]


def test_every_combination_is_timed():
    before = torch.get_num_threads()
    ways = baseline.ways(package(PRUNING), batches=(1, 3), threads=(1, 2))
    found = list(baseline.measure(ways, 0.02))
    assert len(found) == len(ways)
    assert torch.get_num_threads() == before
    assert {(s.runtime, s.threads, s.batch) for s in found} == {
        (runtime, threads, batch) for runtime in ("torch", "ort") for threads in (1, 2) for batch in (1, 3)
    }
    for speed in found:
        assert speed.calls >= 5 and 0 < speed.fastest_s <= speed.median_s <= speed.p90_s
        assert speed.images_per_second == speed.batch / speed.median_s == speed.record()["images_per_second"]
        assert speed.difference < 1e-5 and speed.version


def test_gates_and_rotary_positions():
    """Are the network's here, too: without them it would be a smaller one."""
    meta = package(kinds=True)
    network = baseline.float_network(meta)
    assert network.config.rotary and network.blocks[0].mlp.fc1.out_features == 2 * 48
    (way,) = baseline.ways(meta, ["ort"], (2,), (1,))
    (found,) = baseline.measure([way], 0.01)
    assert found.difference < 1e-4
    with pytest.raises(RowvitError, match="the baseline numpy has no network that is gated and rotary"):
        baseline.ways(meta, ["numpy"])


def test_without_a_class_token():
    """And so without classes, as SigLIP's encoder."""
    shape = dict(dim=32, depth=1, heads=2, image_size=20, patch_size=4, hidden=48, classes=0, prefix=0)
    answers = {"rows": "all", "layers": [0]}
    meta = random_package(np.random.default_rng(3), **shape, tokens=answers).meta
    found = [*baseline.measure(baseline.ways(meta, batches=(2,), threads=(1,)), 0.01)]
    assert [speed.runtime for speed in found] == ["torch", "ort"]
    assert all(speed.difference < 1e-5 for speed in found)


def test_mistakes(monkeypatch):
    with pytest.raises(RowvitError, match="no baseline 'tvm'; use torch, ort, numpy or"):
        baseline.ways(package(), ["tvm"])
    export = baseline.export
    other = baseline.float_network(package())
    torch.nn.init.ones_(other.head.weight)
    monkeypatch.setattr(baseline, "export", lambda network, batch: export(other, batch))
    with pytest.raises(RowvitError, match="differs from PyTorch"):
        list(baseline.measure(baseline.ways(package(), ["ort"], (1,), (1,)), 0.01))


def speed(runtime="torch", threads=1, batch=1, median=10.0, fastest=9.5, share=1.0) -> dict:
    """A record; times in ms."""
    times = median / 1e3, fastest / 1e3, median / 1e3
    return baseline.Speed(runtime, "1", threads, batch, 100, *times, share, None).record()


@pytest.mark.parametrize(
    ("speeds", "load", "phrases"),
    [
        ([speed(), speed(threads=2, median=6, fastest=5.5, share=1.9)], 0.9, ["", ""]),
        ([speed()], 1.1, ["load 1.1"]),
        ([speed(median=20)], 0.0, ["median 2.1 x fastest"]),
        ([speed(share=0.6)], 0.0, ["60% of a processor"]),
        (
            [speed(), speed(threads=2, median=11, fastest=10), speed("ort", 2, median=11, fastest=10)],
            0.0,
            ["", "slower than with 1", ""],
        ),
        ([speed(median=20, share=0.5)], 0.0, ["median 2.1 x fastest, 50% of a processor"]),
    ],
)
def test_speeds_that_others_disturb(speeds, load, phrases):
    assert baseline.disturbances(speeds, {"load": load, "processors": 2}) == phrases


def test_a_contended_processor_shows():
    """More processes than processors compute beside it."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3 * processors())]
    try:
        (found,) = baseline.measure(baseline.ways(package(PRUNING), ["torch"], (1,), (1,)), 1.0)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert found.processor_share < 0.8
    assert baseline.disturbances([found.record()], {"load": 0.0, "processors": processors()}) != [""]
