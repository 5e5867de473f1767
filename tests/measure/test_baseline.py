# SPDX-License-Identifier: Apache-2.0
"""The float network on this machine's CPU."""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime
import pytest
import torch

from rowvit.errors import RowvitError
from rowvit.measure import baseline
from rowvit.measure.numpy_network import NumpyNetwork
from rowvit.quant.synthetic import random_package

PRUNING = [{"layer": 0, "keep": 9, "threshold": 0}, {"layer": 2, "keep": 4, "threshold": 0}]


def package(pruning=()) -> dict:
    size = dict(dim=32, depth=3, heads=2, image_size=20, patch_size=4, hidden=48, classes=7)
    return random_package(np.random.default_rng(3), **size, pruning=list(pruning)).meta


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


def test_mistakes(monkeypatch):
    with pytest.raises(RowvitError, match="no baseline 'tvm'; use torch, ort, numpy or"):
        baseline.ways(package(), ["tvm"])
    export = baseline.export
    other = baseline.float_network(package())
    torch.nn.init.ones_(other.head.weight)
    monkeypatch.setattr(baseline, "export", lambda network, batch: export(other, batch))
    with pytest.raises(RowvitError, match="differs from PyTorch"):
        list(baseline.measure(baseline.ways(package(), ["ort"], (1,), (1,)), 0.01))
