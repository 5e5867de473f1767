# SPDX-License-Identifier: Apache-2.0
"""SigLIP: one query attends to all tokens behind the last LayerNorm; its answer is an embedding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import exports
import rowvit
from networks import randomise, snr
from rowvit.errors import RowvitError
from rowvit.model.importers import import_model
from rowvit.model.importers.timm import from_module
from rowvit.model.relu import to_relu
from rowvit.model.vit import normalise, predict
from rowvit.quant.quantise import QuantOptions, quantise
from test_import_clip import MEAN, PHOTOS, STD, tokenizer

transformers = pytest.importorskip("transformers")
SIZE = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=16, patch_size=4)
SIZE |= dict(intermediate_size=48)


def siglip(kind: str = "SiglipVisionModel") -> torch.nn.Module:
    made = getattr(transformers, kind)
    if kind == "SiglipModel":
        text = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=40)
        text |= dict(max_position_embeddings=12, projection_size=32)
        config = made.config_class(vision_config=SIZE, text_config=text)
    else:
        config = made.config_class(**SIZE)
    torch.manual_seed(3)
    return randomise(made(config)).eval()


def embeddings(network: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return getattr(network, "vision_model", network)(pixels).pooler_output


@pytest.mark.parametrize("kind", ["SiglipVisionModel", "SiglipModel"])
@pytest.mark.parametrize("form", ["folder", "state dict"])
def test_imported(kind: str, form: str, tmp_path: Path) -> None:
    network = siglip(kind)
    if form == "folder":
        network.save_pretrained(tmp_path)
        found = import_model(tmp_path)
    else:
        torch.save(network.state_dict(), tmp_path / "siglip.pth")
        found = import_model(tmp_path / "siglip.pth", heads=2)
    config = found.model.config
    assert (config.pool, config.prefix, config.act, config.pool_act) == ("attention", 0, *2 * ["gelu_tanh"])
    assert found.card.classes == [f"embedding {number}" for number in range(32)]
    pixels = normalise(PHOTOS, MEAN, STD)
    with torch.inference_mode():
        torch.testing.assert_close(found.model(pixels), embeddings(network, pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("classes", [0, 5])
def test_of_timm(classes: int) -> None:
    """With classes behind the pooling, too."""
    network = exports.timm_network(global_pool="map", class_token=False, num_classes=classes)
    model, difference = from_module(network)
    assert difference < 1e-5 and model.config.pool == "attention"
    assert (model.config.classes, model.config.pool_act) == (classes or 24, "gelu")


def test_without_the_pooling(tmp_path: Path) -> None:
    """The encoder alone, and a new head on the mean of its tokens."""
    siglip().save_pretrained(tmp_path)
    alone = import_model(tmp_path, encoder=True)
    assert alone.model.config.classes == 0 and any("attn_pool" in note for note in alone.notes)
    assert import_model(tmp_path, classes=3).model.config.pool == "norm-mean"


def test_prompts(tmp_path: Path) -> None:
    """The order of the classes is SigLIP's own, whose texts are padded to one length."""
    network, prompts = siglip("SiglipModel"), ["a dog", "a cab", "beef"]
    network.save_pretrained(tmp_path)
    tokenizer(tmp_path)
    found = import_model(tmp_path, prompts=prompts)
    assert found.card.classes == prompts
    pixels = normalise(PHOTOS, MEAN, STD)
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        prompts, padding="max_length", max_length=12, return_tensors="pt"
    )
    with torch.inference_mode():
        theirs = network(pixel_values=pixels, input_ids=tokens["input_ids"]).logits_per_image
        ours = found.model(pixels)
    bias = network.logit_bias.detach()
    factor = ((ours - bias) / (theirs - bias)).numpy()
    np.testing.assert_allclose(factor, np.repeat(factor[:, :1], 3, axis=1), rtol=1e-3)
    assert 0.5 < factor.mean() < 2


@pytest.mark.parametrize("target", ["golden", "sim"])
def test_on_the_accelerator(target: str, tmp_path: Path) -> None:
    """From the folder to embeddings: near the float network's, whose own activation the pooling keeps."""
    siglip().save_pretrained(tmp_path)
    found = import_model(tmp_path, mean=MEAN, std=STD)
    model = found.model
    assert len(list(to_relu(model, found.card, PHOTOS))) == 3
    assert (model.config.act, model.config.pool_act) == ("relu", "gelu_tanh")
    package = quantise(model, PHOTOS, QuantOptions("siglip", found.card.classes, MEAN, STD))
    assert [step["op"] for step in package.meta["host_head"]["steps"]] == ["linear", "residual"]
    with rowvit.open(target, config="tiny") as opened:
        opened.load(package)
        ours = np.stack([result.logits for result in opened(PHOTOS)])
    exact = predict(model, PHOTOS, MEAN, STD)
    assert ours.shape == exact.shape == (6, 32)
    assert snr(exact, ours) > 20


def test_a_pooling_of_another_kind_is_refused(tmp_path: Path) -> None:
    state = exports.timm_network(global_pool="map", class_token=False).state_dict()
    torch.save(state | {"attn_pool.pos_embed": torch.zeros(16, 24)}, tmp_path / "a.pth")
    with pytest.raises(RowvitError, match="pooling by attention of another kind"):
        import_model(tmp_path / "a.pth", heads=3)
