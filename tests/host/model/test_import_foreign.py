# SPDX-License-Identifier: Apache-2.0
"""Folders of networks that the accelerator does not run: what they are is said, and what they have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from networks import randomise
from rowvit.errors import RowvitError
from rowvit.model.importers import import_model
from rowvit.model.importers.foreign import KINDS as _OTHERS

transformers = pytest.importorskip("transformers")
SIZE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)


@pytest.mark.parametrize("kind", _OTHERS)
def test_by_its_settings(kind: str, tmp_path: Path) -> None:
    """All of them are transformers' own names."""
    assert kind in transformers.CONFIG_MAPPING
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    name, what = _OTHERS[kind]
    with pytest.raises(RowvitError, match=f"this is {name}: {what}, which the accelerator does not run"):
        import_model(tmp_path)


def saved(kind: str, folder: Path, **settings: object) -> Path:
    made = getattr(transformers, kind)
    randomise(made(made.config_class(**SIZE | settings))).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("DINOv3ViTModel", dict(intermediate_size=64), "DINOv3: rotary positions"),
        ("Dinov2Model", dict(use_swiglu_ffn=True), "transformers' dinov2: a gated FFN"),
        ("BeitModel", dict(use_relative_position_bias=True), "transformers' beit: relative positions"),
        ("ConvNextModel", dict(depths=[1] * 4, hidden_sizes=[8] * 4), "ConvNeXt: no attention"),
    ],
)
def test_as_transformers_saves_them(kind: str, settings: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(RowvitError, match=f"this is {words}"):
        import_model(saved(kind, tmp_path, **settings))


def test_heads_of_a_backbone(tmp_path: Path) -> None:
    """DepthAnything's stand in the settings of its backbone: 4 of 8 channels, not one of 64."""
    own = dict(num_attention_heads=4, intermediate_size=64, out_features=["stage1", "stage2"])
    backbone = transformers.Dinov2Config(**SIZE | own, reshape_hidden_states=False)
    neck = dict(neck_hidden_sizes=[8, 8], reassemble_factors=[1, 1], reassemble_hidden_size=32)
    neck |= dict(fusion_hidden_size=8, head_hidden_size=8)
    config = transformers.DepthAnythingConfig(backbone_config=backbone, patch_size=8, **neck)
    network = randomise(transformers.DepthAnythingForDepthEstimation(config)).eval()
    network.save_pretrained(tmp_path)
    found = import_model(tmp_path, encoder=True).model
    assert found.config.heads == 4
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs = network.backbone(pixels).feature_maps[-1]
        torch.testing.assert_close(found.norm(found.encode(pixels)), theirs, rtol=1e-4, atol=1e-4)
