# SPDX-License-Identifier: Apache-2.0
"""The gated FFN: by its definition, in int8, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from networks import randomise
from rowvit.compiler import compile
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.hardware.config import load
from rowvit.measure.accuracy.schedules import thresholds_for
from rowvit.model import store
from rowvit.model.vit import VisionTransformer, ViTConfig, predict
from rowvit.quant.calibrate import decibels
from rowvit.quant.quantise import QuantOptions, quantise
from rowvit.reference import patchify, run
from rowvit.reference.layers import gate

CONFIG = ViTConfig(32, 8, 32, 2, 2, 40, 3, gated=True)
CARD = store.Card("a", list("012"))
OPTIONS = QuantOptions("a", list("012"), ffn_chunk=20)


def photos(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@torch.no_grad()
@pytest.mark.parametrize("act", ["silu", "relu"])
def test_by_its_definition(act: str) -> None:
    """SwiGLU's, and with ReLU that of the second layer's input."""
    model = randomise(VisionTransformer(replace(CONFIG, act=act)))
    mlp, x = model.blocks[0].mlp, torch.randn(7, 32)
    gates, values = (x @ mlp.fc1.weight[part::2].T + mlp.fc1.bias[part::2] for part in (0, 1))
    shut = torch.sigmoid(gates) if act == "silu" else gates > 0
    torch.testing.assert_close(mlp(x, lambda *_: None, ""), mlp.fc2(gates * shut * values))


def test_integers_by_their_definition() -> None:
    """Both ends of every range, and the ties of the rounding."""
    ends = [-32768, -32767, -1, 0, 1, 2, 255, 256, 16384, 32767]
    for left in ends:
        for right in ends:
            exact = max(left, 0) * right / 2**16
            wanted = max(-127, min(127, int(np.floor(exact + 0.5))))
            assert gate(np.array([[left, right]], np.int16)).tolist() == [[wanted]]


@torch.no_grad()
@pytest.mark.parametrize("size", [0.01, 1.0, 300.0])
def test_int8_is_near(size: float) -> None:
    """Whatever the sizes of gates and of what they let through: their units follow them."""
    model = randomise(VisionTransformer(CONFIG))
    for block in model.blocks:
        block.mlp.fc1.weight[0::2] *= size
        block.mlp.fc1.bias[0::2] *= size
        block.mlp.fc2.weight /= size
    exact = predict(model, photos(20, 5), CARD.mean, CARD.std)
    package = quantise(model, photos(40), OPTIONS)
    found = run(package, patchify(photos(20, 5), 8))
    ours = np.stack([result.logits for result in found]) * package.meta["scales"]["logit"]
    assert decibels(np.square(exact).sum(), np.square(exact - ours).sum()) > 28
    shares = [np.mean(sum(result.counts.ffn2_nonzeros) / (2 * 17 * 40)) for result in found]
    assert 0.2 < np.mean(shares) < 0.6  # about half of the gates are shut


def test_a_file(tmp_path: Path) -> None:
    model = randomise(VisionTransformer(CONFIG))
    store.save(tmp_path / "a.safetensors", model, CARD)
    again, _ = store.load(tmp_path / "a.safetensors")
    assert again.config == CONFIG
    quantise(again, photos(20), OPTIONS).save(tmp_path / "b.safetensors")
    package = ModelPackage.load(tmp_path / "b.safetensors")
    assert package.meta["gated"] and package.tensors["layers.0.fc1.weight"].shape == (32, 80)
    package.meta["params"]["layers"][1]["thr"] = 2
    with pytest.raises(RowvitError, match="a gated FFN has no threshold: thr is 1"):
        package.check()
    del package.meta["gated"]
    with pytest.raises(RowvitError, match=r"tensor layers\.0\.fc1\.weight is int8"):
        package.check()


def test_what_is_refused() -> None:
    with pytest.raises(RowvitError, match="a gated FFN has no thresholds"):
        replace(CONFIG, thresholds=(1.0, 1.0))
    model = randomise(VisionTransformer(CONFIG))
    with pytest.raises(RowvitError, match="no thresholds; leave out --max-loss"):
        thresholds_for(model, CARD, photos(9), np.zeros(9, int), 0.1, "image")
    with pytest.raises(RowvitError, match="no threshold; leave out --threshold-energy"):
        quantise(model, photos(20), replace(OPTIONS, threshold_energy=0.1))
    package = quantise(randomise(VisionTransformer(replace(CONFIG, dim=64))), photos(20), OPTIONS)
    with pytest.raises(RowvitError, match=r"needs a gated FFN, which comes with rotary .*fits kv260"):
        compile(package, load("pynq-z2"))
