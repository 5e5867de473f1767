# SPDX-License-Identifier: Apache-2.0
"""Rotary positions: DINOv3 in three libraries' names, and timm's Eva. Outputs equal the library's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import exports
from networks import randomise
from rowvit.errors import RowvitError
from rowvit.model import adapt
from rowvit.model.importers import import_model
from rowvit.model.importers.rotary import by_axes
from rowvit.model.importers.timm import configuration, from_module
from rowvit.model.vit import VisionTransformer
from test_import_libraries import renamed

SIDE = 48


def dinov3(**settings: object) -> nn.Module:
    """Of transformers: 6 x 6 patches, four registers, heads of 16 channels."""
    return exports.transformers_dinov3(
        **dict(hidden_size=48, image_size=SIDE, patch_size=8, num_register_tokens=4) | settings
    )


def pixels(*size: int) -> Tensor:
    return torch.randn(2, 3, *(size or (SIDE, SIDE)), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def require_equal(found: VisionTransformer, network: nn.Module, images: Tensor | None = None) -> None:
    images = pixels(*found.config.size) if images is None else images
    theirs = network(images)
    torch.testing.assert_close(found(images), theirs.pooler_output, rtol=1e-4, atol=3e-5)
    tokens = found.norm(found.encode(images))
    torch.testing.assert_close(tokens, theirs.last_hidden_state, rtol=1e-4, atol=3e-5)


# -- DINOv3 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(num_register_tokens=0),
        dict(image_size=[32, 56]),
        dict(rope_theta=7.0, layer_norm_eps=1e-3),
        dict(key_bias=True, hidden_act="silu"),
        dict(use_gated_mlp=True, hidden_act="silu"),
        dict(use_gated_mlp=True, mlp_bias=False, proj_bias=False, query_bias=False, intermediate_size=48),
    ],
)
def test_a_folder_of_transformers(settings: dict, tmp_path: Path) -> None:
    network = dinov3(**settings)
    network.save_pretrained(tmp_path)
    found = import_model(tmp_path)
    require_equal(found.model, network)
    assert len(found.notes) == 1 and "ImageNet's" in found.notes[0]
    require_equal(import_model(tmp_path, image_size=(64, 40)).model, network, pixels(64, 40))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda name: name,
        lambda name: f"backbone.{name}",
        lambda name: name.replace("model.layer", "layer"),  # as transformers 4 has them
    ],
)
def test_a_state_dict_of_transformers(change: object, gated: bool, tmp_path: Path) -> None:
    """The activation is the usual one."""
    act = "silu" if gated else "gelu"
    network = dinov3(use_gated_mlp=gated, hidden_act=act)
    torch.save({change(name): tensor for name, tensor in network.state_dict().items()}, tmp_path / "a.pth")
    found = import_model(tmp_path / "a.pth", heads=3, image_size=SIDE)
    require_equal(found.model, network)
    assert any("epsilon 1e-05 assumed" in note for note in found.notes)
    assert any("SiLU of the FFN's gate assumed (--act)" in note for note in found.notes) == gated
    assert not any("pixels assumed" in note for note in found.notes)
    found = import_model(tmp_path / "a.pth", heads=3)
    assert "224 pixels assumed (--image-size); a state dict does not say" in found.notes
    assert found.model.config.size == (224, 224)


#: transformers' names and those of DINOv3's repository
OWN = {
    r"embeddings\.(cls_token|mask_token)": r"\1",
    r"embeddings\.register_tokens": "storage_tokens",
    r"embeddings\.patch_embeddings\.": "patch_embed.proj.",
    r"model\.layer\.(\d+)\.layer_scale(\d)\.lambda1": r"blocks.\1.ls\2.gamma",
    r"model\.layer\.(\d+)\.attention\.(\w)_proj\.": r"blocks.\1.attn.\2_proj.",
    r"model\.layer\.(\d+)\.mlp\.up_proj\.": r"blocks.\1.mlp.fc1.",
    r"model\.layer\.(\d+)\.mlp\.down_proj\.": r"blocks.\1.mlp.fc2.",
    r"model\.layer\.(\d+)\.": r"blocks.\1.",
    r"norm\.": "norm.",
}
OWN_GATED = {
    rf"model\.layer\.(\d+)\.mlp\.{theirs}_proj\.": rf"blocks.\1.mlp.{own}."
    for own, theirs in (("w1", "gate"), ("w2", "up"), ("w3", "down"))
}


def own_names(network: nn.Module, masked: float) -> dict[str, Tensor]:
    """As DINOv3's repository stores them; keys have a bias that does not count."""
    state = renamed(network.state_dict(), OWN_GATED | OWN if network.config.use_gated_mlp else OWN)
    dim = network.config.hidden_size
    for block in range(network.config.num_hidden_layers):
        name = f"blocks.{block}.attn"
        state[f"{name}.qkv.weight"] = torch.cat([state.pop(f"{name}.{part}_proj.weight") for part in "qkv"])
        bias = state.pop(f"{name}.q_proj.bias"), torch.ones(dim), state.pop(f"{name}.v_proj.bias")
        state[f"{name}.qkv.bias"] = torch.cat(bias)
        mask = torch.ones(dim), torch.full((dim,), masked), torch.ones(dim)
        state[f"{name}.qkv.bias_mask"] = torch.cat(mask)
        for part in ("weight", "bias"):
            state[f"{name}.proj.{part}"] = state.pop(f"{name}.o_proj.{part}")
    head = dim // network.config.num_attention_heads
    state["rope_embed.periods"] = 100.0 ** (2 * torch.arange(head // 4) / (head // 2))
    return state | {"local_cls_norm.weight": torch.ones(dim), "local_cls_norm.bias": torch.ones(dim)}


@pytest.mark.parametrize(("masked", "gated"), [(0.0, False), (float("nan"), False), (0.0, True)])
def test_its_own_repository(masked: float, gated: bool, tmp_path: Path) -> None:
    network = dinov3(use_gated_mlp=gated, hidden_act="silu" if gated else "gelu")
    state = own_names(network, masked)
    torch.save(
        {"teacher": {f"backbone.{name}": tensor for name, tensor in state.items()}}, tmp_path / "a.pth"
    )
    found = import_model(tmp_path / "a.pth", image_size=SIDE)
    require_equal(found.model, network)
    assert found.model.config.heads == 3 and found.model.config.eps == 1e-5
    with pytest.raises(
        RowvitError, match="are for heads of 16 channels, and 2 heads of 48 have 24; leave out"
    ):
        import_model(tmp_path / "a.pth", heads=2)
    state["blocks.0.attn.qkv.bias_mask"].fill_(float("nan"))
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(RowvitError, match=r"'blocks\.0\.attn\.qkv\.bias' holds NaN"):
        import_model(tmp_path / "a.pth")


@torch.no_grad()
def test_with_a_new_head_and_without_any(tmp_path: Path) -> None:
    """What stands beside the encoder is left out, and its positions are not."""
    network = dinov3()
    for state in (network.state_dict(), own_names(network, 0.0)):
        torch.save(state | {"mask_head.weight": torch.ones(2, 2)}, tmp_path / "a.pth")
        with pytest.raises(RowvitError, match=r"'mask_head\.weight'.*--encoder"):
            import_model(tmp_path / "a.pth", heads=3)
        found = import_model(tmp_path / "a.pth", heads=3, encoder=True, image_size=SIDE)
        require_equal(found.model, network)
        found = import_model(tmp_path / "a.pth", heads=3, classes=4, image_size=SIDE)
        assert found.model(pixels()).shape == (2, 4) and found.model.config.rotary


@torch.no_grad()
@pytest.mark.parametrize("size", [(80, 80), (32, 72)])
def test_resized_as_transformers(size: tuple[int, int], tmp_path: Path) -> None:
    network = dinov3()
    network.save_pretrained(tmp_path)
    model = import_model(tmp_path).model
    require_equal(adapt.resize(model, size), network, pixels(*size))
    found = import_model(tmp_path, image_size=size)
    require_equal(found.model, network, pixels(*size))
    assert any("positions interpolated from 48 to " in note for note in found.notes)


# -- timm's Eva ----------------------------------------------------------------------------------------

SMALL = dict(depth=2, embed_dim=48, num_heads=3)
EVA: dict[str, tuple[str, dict]] = {
    "DINOv3": ("vit_small_patch16_dinov3", dict(img_size=96)),
    "DINOv3, biases, class token": ("vit_base_patch16_dinov3_qkvb", dict(img_size=96, global_pool="token")),
    "DINOv3, separate layers": ("vit_small_patch16_dinov3_qkvb", dict(img_size=96, qkv_fused=False)),
    "LingBot": ("vit_small_patch16_lingbot", dict(img_size=96, num_classes=5)),
    "RoPE-ViT": ("vit_small_patch16_rope_224", dict(img_size=96)),
    "RoPE-ViT, rectangle": ("vit_small_patch16_rope_224", dict(img_size=(64, 112))),
    "RoPE-ViT, positions too": ("vit_small_patch16_rope_ape_224", dict(img_size=96)),
    "interleaved sections": (
        "vit_small_patch16_rope_224",
        dict(img_size=96, rope_type="mrope", rope_grid_indexing="ij", rope_mrope_section=(2, 3, 3)),
    ),
    "DINOv3 S+": ("vit_small_plus_patch16_dinov3", dict(img_size=96)),
    "DINOv3 S+, biases": ("vit_small_plus_patch16_dinov3_qkvb", dict(img_size=96)),
    "DINOv3 H+": ("vit_huge_plus_patch16_dinov3", dict(img_size=96, num_classes=5, embed_dim=60)),
    "DINOv3 H+, biases": ("vit_huge_plus_patch16_dinov3_qkvb", dict(img_size=(64, 112))),
    "DINOv3, gate and value in one layer": ("vit_small_patch16_dinov3", dict(img_size=96, swiglu_mlp=True)),
    "LingBot giant": ("vit_giant_patch16_lingbot", dict(img_size=96)),
    "EVA-02": ("eva02_tiny_patch14_224", {}),
    "EVA-02, class token": ("eva02_small_patch14_224", dict(global_pool="token", img_size=84)),
    "EVA-02, larger": ("eva02_small_patch14_336", dict(num_classes=5)),
    "no class token": ("vit_medium_patch16_rope_reg1_gap_256", dict(img_size=96)),
    "EVA, no rotary positions": ("eva_giant_patch14_224", dict(img_size=84)),
}


def eva(name: str, **arguments: object) -> nn.Module:
    return randomise(timm.create_model(name, **SMALL | arguments))


@torch.no_grad()
@pytest.mark.parametrize("case", EVA)
def test_eva(case: str, tmp_path: Path) -> None:
    """As a module and as timm's folder."""
    name, arguments = EVA[case]
    network = eva(name, **arguments)
    model, difference = from_module(network)
    assert difference < 1e-5 and model.config.rotary == (network.rope is not None)
    timm.models.save_for_hf(network, tmp_path, model_args=SMALL | arguments, safe_serialization=True)
    found = import_model(tmp_path).model
    assert found.config == model.config
    images = pixels(*found.config.size)
    theirs = network(images)
    torch.testing.assert_close(found(images), theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


@torch.no_grad()
def test_eva_resized() -> None:
    """DINOv3's angles of another size, though timm's table has them less whole turns."""
    network = eva("vit_small_patch16_dinov3", img_size=96)
    model = adapt.resize(from_module(network)[0], 160)
    torch.testing.assert_close(model(pixels(160, 160)), network(pixels(160, 160)), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "side", "act", "crop"),
    [("vit_tiny_patch16_dinov3_qkvb", 256, "gelu", 1.0), ("eva02_tiny_patch14_224", 224, "silu", 0.9)],
)
def test_eva_by_name(name: str, side: int, act: str, crop: float, tmp_path: Path) -> None:
    """With a file of weights, and as a checkpoint that names its architecture."""
    network = randomise(timm.create_model(name, num_classes=5))
    torch.save(network.state_dict(), tmp_path / "a.pth")
    torch.save({"arch": name, "state_dict": network.state_dict()}, tmp_path / "b.pth")
    theirs = network(pixels(side, side))
    for source, options in ((f"timm:{name}", {"weights": tmp_path / "a.pth"}), (tmp_path / "b.pth", {})):
        found = import_model(source, **options)
        assert found.model.config.act == act and found.card.crop == crop
        torch.testing.assert_close(found.model(pixels(side, side)), theirs, rtol=1e-4, atol=1e-4)
    with pytest.raises(RowvitError, match=r"do not say whether and how its positions turn.*timm:NAME"):
        import_model(tmp_path / "a.pth")


@torch.no_grad()
def test_perception_encoder_without_its_pooling(tmp_path: Path) -> None:
    arguments = SMALL | {"img_size": 96, "attn_pool_num_heads": 3}
    network = eva("vit_pe_core_tiny_patch16_384", **arguments)
    timm.models.save_for_hf(network, tmp_path, model_args=arguments, safe_serialization=True)
    with pytest.raises(RowvitError, match=r"pools by attention beside a class token.*--encoder leaves out"):
        import_model(tmp_path)
    found = import_model(tmp_path, encoder=True).model
    tokens = found.norm(found.encode(pixels(96, 96)))
    torch.testing.assert_close(tokens, network.forward_features(pixels(96, 96)), rtol=1e-4, atol=1e-4)
    network = eva("vit_pe_core_gigantic_patch14_448", img_size=84, attn_pool_num_heads=2)
    with pytest.raises(RowvitError, match="pools by attention of 2 heads, expected 3"):
        from_module(network)
    network = eva("vit_pe_core_gigantic_patch14_448", img_size=84, mlp_ratio=4, attn_pool_num_heads=3)
    assert from_module(network)[1] < 1e-5


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("vit_small_patch16_rope_mixed_224", {}, "mixed rotary positions"),
        ("vit_small_patch16_dinov3", dict(qk_norm=True), "normalised queries and keys"),
        ("vit_small_patch16_dinov3", dict(scale_attn_inner=True), "a norm inside attention"),
        ("vit_small_patch16_dinov3", dict(scale_mlp=True), "a norm inside the FFN"),
        ("vit_small_plus_patch16_dinov3", dict(scale_mlp=True), "EVA-02 .*: a norm inside the FFN, which"),
        ("vit_small_patch16_dinov3", dict(use_post_norm=True), "made of EvaBlockPostNorm"),
        ("vit_small_patch16_dinov3", dict(use_post_transformer_norm=False), "between 0 LayerNorms"),
        ("vit_small_patch16_dinov3", dict(use_fc_norm=True, use_post_transformer_norm=True), "2 LayerNorms"),
        ("vit_small_patch16_dinov3", dict(global_pool="max"), "pools by 'max'"),
        ("vit_small_patch16_dinov3", dict(num_heads=8), "four channels at a time, of 6"),
    ],
)
def test_eva_that_is_refused(name: str, arguments: dict, message: str) -> None:
    with pytest.raises(RowvitError, match=message):
        from_module(timm.create_model(name, **SMALL | dict(img_size=96) | arguments).eval())


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        ("vit_7b_patch16_dinov3", "norm-mean"),
        ("eva02_small_patch14_336", "mean"),
        ("vit_large_patch16_dinov3", "norm-mean"),
        ("vit_large_patch16_rope_ape_224", "token"),
        ("vit_large_patch16_rope_mixed_224", ""),
        ("vit_base_patch16_rope_reg1_gap_256", "mean"),
    ],
)
def test_architectures_without_weights(name: str, pool: str) -> None:
    """Also of networks that would take gigabytes."""
    if pool:
        config = configuration(name)
        assert config.rotary and config.pool == pool
    else:
        with pytest.raises(RowvitError, match="mixed"):
            configuration(name)


# -- tables of angles ----------------------------------------------------------------------------------


def table(angles: Tensor) -> tuple[Tensor, Tensor]:
    return angles.cos(), angles.sin()


@pytest.mark.parametrize("half", [False, True])
def test_tables_by_axes(half: bool) -> None:
    """Rows and columns of pairs in any order, one that does not turn, and angles beyond a whole turn."""
    rows, columns = torch.arange(5.0)[:, None], torch.arange(7.0)[None]
    pairs = [columns * 0.3, rows * 2.5, columns * 0 + rows * 0, columns * 1.9 - 4]
    rope = by_axes(*table(torch.stack(torch.broadcast_tensors(*pairs), dim=-1)), half)
    order = [1, 5, 0, 4, 2, 6, 3, 7] if half else [2, 3, 0, 1, 4, 5, 6, 7]
    assert rope.order == order and rope.grid == (5, 7)
    torch.testing.assert_close(rope.rows, torch.cat([rows * 2.5, rows * 0], dim=1))
    turns = torch.tensor([0, 2 * torch.pi])
    found = rope.columns + turns * torch.round(
        (torch.stack([rows[0], rows[0] - 4], dim=1) - rope.columns[:1]) / 6.28
    )
    torch.testing.assert_close(found, torch.cat([columns.T * 0.3, columns.T * 1.9 - 4], dim=1))


def test_tables_that_are_refused() -> None:
    rows, columns = torch.arange(4.0)[:, None, None], torch.arange(4.0)[None, :, None]
    with pytest.raises(RowvitError, match="mixed rotary positions"):
        by_axes(*table(torch.cat([rows + columns, rows + 0 * columns], dim=-1)), True)
    with pytest.raises(RowvitError, match="turn 2 pairs of a head's channels by the row and 0 by the column"):
        by_axes(*table(torch.cat([rows + 0 * columns] * 2, dim=-1)), True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(num_register_tokens=3), "num_register_tokens 3, and the weights say 4"),
        (dict(intermediate_size=41), "intermediate_size 41, and the weights say 40"),
        (dict(use_gated_mlp=False), "use_gated_mlp False, and the weights say True"),
        (dict(mlp_bias=False), "mlp_bias False, and the weights say True"),
        (dict(key_bias=True), "key_bias True, and the weights say False"),
    ],
)
def test_settings_that_contradict(change: dict, words: str, tmp_path: Path) -> None:
    dinov3(use_gated_mlp=True).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(RowvitError) as error:
        import_model(tmp_path)
    assert re.search(words, str(error.value))
