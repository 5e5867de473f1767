# SPDX-License-Identifier: Apache-2.0
"""Plain vision transformers in the names of mmpretrain and of Google's JAX: outputs equal the original's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exports
from rowvit.errors import RowvitError
from rowvit.model.importers import import_model

#: timm's names and mmpretrain's
MMPRETRAIN = {
    r"patch_embed\.proj\.": "backbone.patch_embed.projection.",
    r"blocks\.(\d+)\.norm(\d)\.": r"backbone.layers.\1.ln\2.",
    r"blocks\.(\d+)\.attn\.": r"backbone.layers.\1.attn.",
    r"blocks\.(\d+)\.mlp\.fc1\.": r"backbone.layers.\1.ffn.layers.0.0.",
    r"blocks\.(\d+)\.mlp\.fc2\.": r"backbone.layers.\1.ffn.layers.1.",
    r"blocks\.(\d+)\.ls1\.gamma": r"backbone.layers.\1.attn.gamma1.weight",
    r"blocks\.(\d+)\.ls2\.gamma": r"backbone.layers.\1.ffn.gamma2.weight",
    r"norm_pre\.": "backbone.pre_norm.",
    r"fc_norm\.": "backbone.ln2.",
    r"norm\.": "backbone.ln1.",
    r"head\.": "head.layers.head.",
    r"head_dist\.": "head.layers.head_dist.",
    r"(cls_token|dist_token|pos_embed)": r"backbone.\1",
}


def renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """A state dict with the first name that fits."""
    return {
        next(re.sub(f"^{old}", new, name) for old, new in names.items() if re.match(old, name)): tensor
        for name, tensor in state.items()
    }


@torch.no_grad()
@pytest.mark.parametrize(
    "make",
    [
        exports.timm_network,
        lambda: exports.timm_network(init_values=0.5, qkv_bias=False),
        lambda: exports.timm_network(global_pool="avg"),
        lambda: exports.timm_network(pre_norm=True),
        lambda: exports.timm_network(num_classes=0),
        exports.timm_distilled,
    ],
)
def test_mmpretrain(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    network = make()
    torch.save({"state_dict": renamed(network.state_dict(), MMPRETRAIN), "meta": {}}, tmp_path / "a.pth")
    found = import_model(tmp_path / "a.pth", heads=3)
    images = exports.images()
    torch.testing.assert_close(found.model(images), network(images), rtol=1e-4, atol=3e-5)


def test_a_head_of_mmpretrain_with_a_hidden_layer(tmp_path: Path) -> None:
    state = renamed(exports.timm_network().state_dict(), MMPRETRAIN)
    state["head.layers.pre_logits.weight"] = torch.zeros(24, 24)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(RowvitError, match=r"pre_logits.*--encoder leaves out"):
        import_model(tmp_path / "a.pth", heads=3)
    assert import_model(tmp_path / "a.pth", heads=3, encoder=True).model.config.classes == 0


def jax_arrays(network: nn.Module, heads: int) -> dict[str, np.ndarray]:
    """The parameters of timm's network as Google's vision_transformer stores them."""
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    dim = state["cls_token"].shape[-1]
    arrays = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for block in range(len(network.blocks)):
        ours, theirs = f"blocks.{block}", f"Transformer/encoderblock_{block}"
        for norm, number in (("norm1", 0), ("norm2", 2)):
            arrays[f"{theirs}/LayerNorm_{number}/scale"] = state[f"{ours}.{norm}.weight"]
            arrays[f"{theirs}/LayerNorm_{number}/bias"] = state[f"{ours}.{norm}.bias"]
        attention = f"{theirs}/MultiHeadDotProductAttention_1"
        for part, name in enumerate(("query", "key", "value")):
            rows = slice(part * dim, (part + 1) * dim)
            weight, bias = state[f"{ours}.attn.qkv.weight"][rows], state[f"{ours}.attn.qkv.bias"][rows]
            arrays[f"{attention}/{name}/kernel"] = weight.T.reshape(dim, heads, -1)
            arrays[f"{attention}/{name}/bias"] = bias.reshape(heads, -1)
        arrays[f"{attention}/out/kernel"] = state[f"{ours}.attn.proj.weight"].T.reshape(heads, -1, dim)
        arrays[f"{attention}/out/bias"] = state[f"{ours}.attn.proj.bias"]
        for layer in (0, 1):
            dense = f"{theirs}/MlpBlock_3/Dense_{layer}"
            arrays[f"{dense}/kernel"] = state[f"{ours}.mlp.fc{layer + 1}.weight"].T
            arrays[f"{dense}/bias"] = state[f"{ours}.mlp.fc{layer + 1}.bias"]
    return arrays


@torch.no_grad()
@pytest.mark.parametrize("act", [None, "gelu"])
def test_jax(act: str | None, tmp_path: Path) -> None:
    """Timm's own reader of these files agrees; flax's GELU is by tanh, and heads are in the shapes."""
    function = "gelu" if act else "gelu_tanh"
    network = exports.timm_network(act_layer=function)
    np.savez(tmp_path / "a.npz", **jax_arrays(network, 3))
    again = exports.timm_network(act_layer=function)
    for parameter in again.parameters():
        parameter.zero_()
    again.load_pretrained(str(tmp_path / "a.npz"))
    images = exports.images()
    torch.testing.assert_close(again(images), network(images))
    found = import_model(tmp_path / "a.npz", act=act)
    assert (found.model.config.heads, found.model.config.act) == (3, function)
    assert not any("heads" in note for note in found.notes)
    torch.testing.assert_close(found.model(images), again(images), rtol=1e-4, atol=3e-5)


def test_jax_with_more_behind_it(tmp_path: Path) -> None:
    arrays = jax_arrays(exports.timm_network(), 3)
    np.savez(tmp_path / "a.npz", **arrays, **{"pre_logits/kernel": np.zeros((24, 24), np.float32)})
    with pytest.raises(RowvitError, match=r"'pre_logits\..*a head of several layers.*--encoder"):
        import_model(tmp_path / "a.npz")
    assert import_model(tmp_path / "a.npz", encoder=True).model.config.classes == 0
    (tmp_path / "b.npz").write_bytes(b"no archive")
    with pytest.raises(RowvitError, match=r"b\.npz"):
        import_model(tmp_path / "b.npz")
    with pytest.raises(RowvitError, match=r"c\.npz: no such file"):
        import_model(tmp_path / "c.npz")


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "options"), [("BlipVisionModel", {"act": "gelu"}), ("OwlViTVisionModel", {"act": "quick_gelu"})]
)
def test_kin_of_clip(kind: str, options: dict, tmp_path: Path) -> None:
    """As state dicts, whose activation and epsilon are the library's usual ones."""
    transformers = pytest.importorskip("transformers")
    made = getattr(transformers, kind)
    size = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40)
    network = made(made.config_class(**size, image_size=16, patch_size=4)).eval()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    found = import_model(tmp_path / "a.pth", heads=3).model
    assert found.config.act == options["act"] and found.config.eps == network.config.layer_norm_eps
    images = exports.images()
    torch.testing.assert_close(found(images), network(images).pooler_output, rtol=1e-4, atol=3e-5)


@torch.no_grad()
def test_clip_of_timm_has_its_epsilon(tmp_path: Path) -> None:
    """1e-5 where timm's other networks have 1e-6: embeddings are small enough for it to count."""
    import timm

    network = timm.create_model(
        "vit_base_patch32_clip_224", depth=1, embed_dim=24, num_heads=3, img_size=64, num_classes=5
    ).eval()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    found = import_model(tmp_path / "a.pth", heads=3, pool="token")
    assert found.model.config.eps == 1e-5 and any("epsilon 1e-05 assumed" in note for note in found.notes)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(found.model(images), network(images), rtol=1e-4, atol=1e-5)
