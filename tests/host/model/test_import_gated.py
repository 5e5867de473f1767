# SPDX-License-Identifier: Apache-2.0
"""Gated FFNs without rotary positions: DINOv2 giant in four libraries' names. Outputs equal the library's."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from timm.layers import GluMlp, SwiGLU
from torch import Tensor, nn

import exports
from networks import randomise
from rowvit.errors import RowvitError
from rowvit.model.importers import import_model
from rowvit.model.importers.timm import from_module
from rowvit.model.vit import VisionTransformer
from test_import_libraries import MMPRETRAIN, renamed

SMALL = dict(depth=2, embed_dim=48, num_heads=3, img_size=56)
NAME = "vit_giant_patch14_dinov2"


def transformers_dinov2(kind: str = "Dinov2Model", **settings: object) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    made = getattr(transformers, kind)
    size = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=56, patch_size=14)
    return randomise(made(made.config_class(**size | dict(use_swiglu_ffn=True) | settings)))


def giant(name: str = NAME, **arguments: object) -> nn.Module:
    return randomise(timm.create_model(name, **SMALL | arguments))


def pixels(side: int = 56) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def require_equal(found: VisionTransformer, network: nn.Module) -> None:
    assert found.config.gated
    images = pixels(found.config.image_size)
    theirs = network(images)
    if not isinstance(theirs, Tensor):
        tokens = found.norm(found.encode(images))
        torch.testing.assert_close(tokens, theirs.last_hidden_state, rtol=1e-4, atol=3e-5)
        theirs = theirs.pooler_output
    torch.testing.assert_close(found(images), theirs, rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize(
    ("kind", "dim", "ratio", "hidden"),
    [("Dinov2Model", 48, 4, 128), ("Dinov2Model", 30, 3, 64), ("Dinov2WithRegistersModel", 48, 3, 96)],
)
def test_of_transformers(kind: str, dim: int, ratio: int, hidden: int, tmp_path: Path) -> None:
    """As a folder, where the first layer is one; as a state dict, where it is two."""
    network = transformers_dinov2(kind, hidden_size=dim, mlp_ratio=ratio)
    network.save_pretrained(tmp_path)
    found = import_model(tmp_path)
    assert found.model.config.hidden == hidden and network.config.hidden_act == "gelu"
    require_equal(found.model, network)
    assert len(found.notes) == 1 and "ImageNet's" in found.notes[0]
    torch.save(network.state_dict(), tmp_path / "a.pth")
    (tmp_path / "config.json").unlink()
    for name in ("a.pth", "model.safetensors"):
        found = import_model(tmp_path / name, heads=3)
        require_equal(found.model, network)
        assert "SiLU of the FFN's gate assumed (--act); a state dict does not say" in found.notes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(mlp_ratio=3), r"mlp_ratio 3, and the weights say 4\.0"),
        (dict(use_swiglu_ffn=False), "use_swiglu_ffn False, and the weights say True"),
    ],
)
def test_settings_that_contradict(change: dict, words: str, tmp_path: Path) -> None:
    transformers_dinov2().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(RowvitError, match=f"its config.json says {words}"):
        import_model(tmp_path)


@pytest.mark.parametrize("name", [NAME, "vit_giant_patch14_reg4_dinov2", "vit_giant_patch14_reg1_tipsv2"])
def test_of_timm(name: str, tmp_path: Path) -> None:
    """As a module, a folder and a state dict."""
    network = giant(name, num_classes=5)
    model, difference = from_module(network)
    assert difference < 1e-5 and model.config.act == "silu"
    arguments = SMALL | {"num_classes": 5}
    timm.models.save_for_hf(network, tmp_path, model_args=arguments, safe_serialization=True)
    require_equal(import_model(tmp_path).model, network)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    (tmp_path / "config.json").unlink()
    found = import_model(tmp_path / "a.pth", heads=3, pool="token")
    require_equal(found.model, network)
    assert "the first half of FFN1 is taken for its gate; a state dict does not say" in found.notes


#: timm's names and those of DINOv2's repository
OWN = {r"(.*\.mlp)\.fc1\.": r"\1.w12.", r"(.*\.mlp)\.fc2\.": r"\1.w3.", "(.*)": r"\1"}


def test_its_own_repository(tmp_path: Path) -> None:
    """Also as weights of timm's network, and those of transformers."""
    network = giant()
    state = renamed(network.state_dict(), OWN) | {"mask_token": torch.zeros(1, 48)}
    torch.save(state, tmp_path / "a.pth")
    require_equal(import_model(tmp_path / "a.pth", heads=3).model, network)
    for file, other in (("a.pth", network), ("b.pth", transformers_dinov2())):
        torch.save(other.state_dict() if file == "b.pth" else state, tmp_path / file)
        found = import_model("timm:rowvit_test_giant", weights=tmp_path / file)
        require_equal(found.model, other)


def test_mmpretrain(tmp_path: Path) -> None:
    names = {
        r"blocks\.(\d+)\.mlp\.fc1\.": r"backbone.layers.\1.ffn.w12.",
        r"blocks\.(\d+)\.mlp\.fc2\.": r"backbone.layers.\1.ffn.w3.",
    }
    network = giant()
    torch.save(renamed(network.state_dict(), names | MMPRETRAIN), tmp_path / "a.pth")
    require_equal(import_model(tmp_path / "a.pth", heads=3).model, network)


@pytest.mark.parametrize(
    ("layer", "act"),
    [
        (GluMlp, "gelu"),  # the gate is the second half
        (partial(GluMlp, gate_last=False), "relu"),
        (SwiGLU, "silu"),
        (partial(SwiGLU, bias=False), "gelu_tanh"),
    ],
)
def test_other_gates(layer: object, act: str) -> None:
    """Of timm's VisionTransformer: two orders, two layers, other activations, no biases."""
    network = exports.timm_network(mlp_layer=layer, act_layer=act)
    model, difference = from_module(network)
    assert difference < 1e-5 and model.config.gated and model.config.act == act


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(mlp_layer=GluMlp, act_layer=nn.Sigmoid), "is not two layers with relu or gelu"),
        (dict(mlp_layer=SwiGLU, scale_mlp_norm=True), "a norm inside the FFN, which"),
    ],
)
def test_gates_that_are_refused(options: dict, words: str) -> None:
    with pytest.raises(RowvitError) as error:
        from_module(exports.timm_network(**options))
    assert re.search(words, str(error.value))
