# SPDX-License-Identifier: Apache-2.0
"""The float network on this machine's CPU."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from rowvit.errors import RowvitError
from rowvit.measure import baseline
from rowvit.model.synthetic import random_package

PRUNING = [{"layer": 0, "keep": 9, "threshold": 0}, {"layer": 2, "keep": 4, "threshold": 0}]


def meta(pruning=()) -> dict:
    size = dict(dim=32, depth=3, heads=2, image_size=20, patch_size=4, hidden=48, classes=7)
    return random_package(np.random.default_rng(3), **size, pruning=list(pruning)).meta


def test_export_equals_torch_and_prunes():
    """Token lists depend on the image; the exported network must choose anew for each."""
    network = baseline.float_network(meta(PRUNING))
    session = onnxruntime.InferenceSession(baseline.export(network, 5))
    images = np.random.default_rng(0).standard_normal((5, 3, 20, 20), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    kept = network.tokens.numpy()
    assert kept.shape == (5, 5) and len(np.unique(kept, axis=0)) > 1
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=1e-5)
    with torch.inference_mode():
        dense = baseline.float_network(meta())(torch.from_numpy(images)).numpy()
    assert np.abs(dense - expected).max() > 1e-3  # same seeded weights, so pruning made the difference


def test_every_combination_is_timed():
    before = torch.get_num_threads()
    found = list(baseline.measure(meta(PRUNING), batches=(1, 3), threads=(1, 2), seconds=0.02))
    assert torch.get_num_threads() == before
    assert {(s.runtime, s.threads, s.batch) for s in found} == {
        (runtime, threads, batch) for runtime in baseline.RUNTIMES for threads in (1, 2) for batch in (1, 3)
    }
    for speed in found:
        assert speed.calls >= 5 and 0 < speed.fastest_s <= speed.median_s <= speed.p90_s
        assert speed.images_per_second == speed.batch / speed.median_s == speed.record()["images_per_second"]
        assert speed.difference < 1e-5 and speed.version


def test_mistakes(monkeypatch):
    with pytest.raises(RowvitError, match="no baseline 'tvm'; take torch or ort"):
        list(baseline.measure(meta(), ["tvm"]))
    export = baseline.export
    other = baseline.float_network(meta())
    torch.nn.init.ones_(other.head.weight)
    monkeypatch.setattr(baseline, "export", lambda network, batch: export(other, batch))
    with pytest.raises(RowvitError, match="differs from PyTorch"):
        list(baseline.measure(meta(), ["ort"], (1,), (1,), 0.01))
