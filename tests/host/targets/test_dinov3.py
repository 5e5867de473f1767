# SPDX-License-Identifier: Apache-2.0
"""A small DINOv3 from transformers' folder to the accelerator: tokens by golden and sim."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from networks import randomise, snr
from rowvit.model import adapt
from rowvit.model.importers import import_model
from rowvit.model.relu import to_relu
from rowvit.model.vit import VisionTransformer, normalise
from rowvit.quant.quantise import QuantOptions, quantise
from test_features import HALF, PHOTOS, answers

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> VisionTransformer:
    """4 x 4 patches, two registers, heads of 16 channels; with ReLU."""
    shape = dict(hidden_size=32, num_attention_heads=2, num_hidden_layers=3, intermediate_size=48)
    config = transformers.DINOv3ViTConfig(**shape, image_size=16, patch_size=4, num_register_tokens=2)
    made = randomise(transformers.DINOv3ViTModel(config))
    made.save_pretrained(folder := tmp_path_factory.mktemp("dinov3"))
    found = import_model(folder, mean=HALF, std=HALF)
    with torch.inference_mode():
        pixels = normalise(PHOTOS, HALF, HALF)
        theirs = made(pixels).pooler_output
        torch.testing.assert_close(found.model(pixels), theirs, rtol=1e-4, atol=3e-5)
    with torch.no_grad():
        for _ in to_relu(found.model, found.card, PHOTOS):
            pass
    return adapt.rebuild(found.model, replace(found.model.config, act="relu"))


@pytest.mark.parametrize("target", ["golden", "sim"])
@pytest.mark.parametrize("pruning", [(), ({"layer": 0, "keep": 11}, {"layer": 1, "keep": 5})])
def test_from_folder_to_tokens(
    network: VisionTransformer, pruning: tuple, target: str, tmp_path: Path
) -> None:
    """Equal to the reference to the bit, and near the float network's; tokens that stay keep their places."""
    made = adapt.rebuild(network, replace(network.config, pruning=pruning)).eval()
    package = quantise(made, PHOTOS, QuantOptions("dinov3", [], HALF, HALF, tokens="all"))
    assert package.meta["rotary"]["coordinates"] == 5  # those of rows and columns, and of the class token
    results, wanted = answers(target, package, tmp_path)
    with torch.inference_mode():
        exact = made.norm(made.encode(normalise(PHOTOS, HALF, HALF))).numpy()
    alike = 0
    for number, (result, want) in enumerate(zip(results, wanted, strict=True)):
        assert result.same(want)
        found = result.tokens[2]
        np.testing.assert_array_equal(found.values, want.tokens[2].values)
        assert len(found.indices) == (6 if pruning else 19)
        if (found.indices == made.tokens[number].numpy()).all():  # integers can rank tokens otherwise
            alike += 1
            assert snr(exact[number], found.values * package.meta["scales"]["tokens"]) > 20
    assert alike >= 3
