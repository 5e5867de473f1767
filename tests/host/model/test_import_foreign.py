# SPDX-License-Identifier: Apache-2.0
"""Networks that the accelerator does not run, in every form: what they are is said, and what they have."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import onnx
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import exports
from networks import randomise
from rowvit.errors import RowvitError
from rowvit.model.importers import import_model, neighbours
from rowvit.model.importers.foreign import KINDS

transformers = pytest.importorskip("transformers")
SIZE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
SMALL = dict(depth=1, embed_dim=48, num_heads=3)
REFUSED = "which the accelerator does not run"


def refused(source: object, words: str, **options: object) -> None:
    """One sentence with these words."""
    with pytest.raises(RowvitError) as error:
        import_model(source, **options)
    assert re.search(words, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)


# -- by settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_by_its_settings(kind: str, tmp_path: Path) -> None:
    """All of them are transformers' own names."""
    assert kind in transformers.CONFIG_MAPPING
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    name, what = KINDS[kind]
    refused(tmp_path, f"this is {name}: {what}, {REFUSED}")


def made(kind: str, **settings: object) -> nn.Module:
    """One of transformers' networks, small."""
    found = getattr(transformers, kind)
    return randomise(found(found.config_class(**SIZE | settings))).eval()


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("BeitModel", dict(use_relative_position_bias=True), "transformers' beit: relative positions"),
        ("ConvNextModel", dict(depths=[1] * 4, hidden_sizes=[8] * 4), "ConvNeXt: no attention"),
    ],
)
def test_as_transformers_saves_them(kind: str, settings: dict, words: str, tmp_path: Path) -> None:
    made(kind, **settings).save_pretrained(tmp_path)
    refused(tmp_path, f"this is {words}")


@pytest.mark.parametrize("key", ["vision_config", "backbone_config", "encoder"])
def test_a_part_of_a_whole(key: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "a", key: {"model_type": "swin"}}))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    refused(tmp_path, "this is Swin: attention in windows")


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


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("ViTModel", dict(hidden_size=64), "hidden_size 64, and the weights say 32"),
        ("ViTModel", dict(num_hidden_layers=3), "num_hidden_layers 3, and the weights say 2"),
        ("ViTModel", dict(intermediate_size=65), "intermediate_size 65, and the weights say 64"),
        ("ViTModel", dict(patch_size=16), "patch_size 16, and the weights say 8"),
        ("ViTModel", dict(image_size=64), "image_size 64, and the weights say 32"),
        ("ViTModel", dict(num_channels=1), "num_channels 1, and the weights say 3"),
        ("Dinov2Model", dict(mlp_ratio=3), r"mlp_ratio 3, and the weights say 4\.0"),
        (
            "Dinov2WithRegistersModel",
            dict(num_register_tokens=3),
            "num_register_tokens 3, and the weights say 4",
        ),
    ],
)
def test_numbers_that_contradict_the_weights(kind: str, change: dict, words: str, tmp_path: Path) -> None:
    made(kind, intermediate_size=64).save_pretrained(tmp_path)
    import_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert change.keys() <= config.keys()
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    refused(tmp_path, f"its config.json says {words}")


def test_numbers_of_another_part_do_not_count(tmp_path: Path) -> None:
    """Of a whole with a text side; what transformers leaves out is its default, 12 heads."""
    vision = dict(SIZE, hidden_size=48, num_attention_heads=12, intermediate_size=64)
    network = made("SiglipVisionModel", **vision)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    del vision["num_attention_heads"]
    vision |= {"model_type": "siglip_vision_model"}
    config = {"hidden_size": 7, "num_hidden_layers": 7, "num_attention_heads": 7, "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = import_model(tmp_path, encoder=True).model
    assert found.config.heads == 12
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs = network(pixels).last_hidden_state
        torch.testing.assert_close(found.norm(found.encode(pixels)), theirs, rtol=1e-4, atol=1e-4)


def test_heads_that_transformers_leaves_out(tmp_path: Path) -> None:
    """They are its own defaults; of a part that is not known they are assumed, and that is said."""
    for kind, heads in neighbours._HEADS.items():
        with suppress(KeyError):  # not every version knows all
            assert transformers.CONFIG_MAPPING[kind]().num_attention_heads == heads
    vision = dict(SIZE, hidden_size=128, num_attention_heads=4, intermediate_size=64)
    save_file(made("SiglipVisionModel", **vision).state_dict(), tmp_path / "model.safetensors")
    del vision["num_attention_heads"]
    for kind, heads in (("smolvlm_vision", 16), ("another", 2)):
        config = {"vision_config": vision | {"model_type": kind, "hidden_act": "gelu_pytorch_tanh"}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        found = import_model(tmp_path, encoder=True)
        assert found.model.config.heads == heads
        assert ("2 heads of 64 channels assumed" in " ".join(found.notes)) == (kind == "another")


def test_the_whole_says_how_photos_come() -> None:
    """Not a part of it, which may be another network by itself."""
    pixels = {"size": {"height": 518, "width": 518}}
    for whole, part, mean in (("depth_anything", "dinov2", 0.5), ("blip", "blip_vision_model", 0.48145466)):
        settings = {"model_type": whole, "backbone_config": {"model_type": part}}
        found = neighbours.Neighbours(settings, pixels)._processing
        assert "do_center_crop" not in found and found["image_mean"][0] == mean


@torch.no_grad()
def test_positions_that_settings_deny(tmp_path: Path) -> None:
    plain = dict(use_absolute_position_embeddings=False, use_relative_position_bias=False)
    network = made("Data2VecVisionForImageClassification", **plain, intermediate_size=64)
    network.save_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(import_model(tmp_path).model(pixels), network(pixels).logits)


# -- by the names of tensors ---------------------------------------------------------------------------


def plain(*without: str, **more: tuple[int, ...]) -> dict[str, Tensor]:
    """The state dict of timm's plain network, without some tensors and with others of these shapes."""
    state = dict(exports.timm_network().state_dict())
    return {k: v for k, v in state.items() if k not in without} | {k: torch.zeros(v) for k, v in more.items()}


def names(*found: str) -> dict[str, Tensor]:
    return {name: torch.zeros(2, 2) for name in found}


BLOCK = "blocks.0.mlp."
#: as their own repositories and other libraries write them: what the refusal says
STATES: dict[str, tuple[Callable[[], dict[str, Tensor]], str]] = {
    "EVA-02": (
        lambda: plain(
            **{
                "blocks.0.attn.rope.freqs_cos": (4, 4),
                f"{BLOCK}w3.weight": (2, 2),
                f"{BLOCK}ffn_ln.weight": (2,),
            }
        ),
        "this is EVA-02.*: a norm inside the FFN, which",
    ),
    "BEiT": (
        lambda: plain(
            "pos_embed", **{"blocks.0.gamma_1": (24,), "rel_pos_bias.relative_position_bias_table": (4, 3)}
        ),
        "this is BEiT or Data2Vec.*: relative positions",
    ),
    "a gate and its value of two sizes": (
        lambda: plain(
            f"{BLOCK}fc1.weight", **{f"{BLOCK}fc1_g.weight": (9, 24), f"{BLOCK}fc1_x.weight": (8, 24)}
        ),
        r"fc1_g\.weight' and 'blocks.*fc1_x\.weight' differ in shape \(\[9, 24\] and \[8, 24\]\)",
    ),
    "another order of gate, value and FFN2": (
        lambda: plain(
            f"{BLOCK}fc1.weight",
            f"{BLOCK}fc2.weight",
            **{f"{BLOCK}w1.weight": (9, 24), f"{BLOCK}w3.weight": (9, 24), f"{BLOCK}w2.weight": (24, 9)},
        ),
        r"tensor 'blocks\.0\.mlp\.fc2\.weight' has shape \[9, 24\], expected \[24, any\]",
    ),
    "AIMv2": (
        lambda: names("preprocessor.patchifier.proj.weight", "trunk.blocks.0.norm_1.weight"),
        "this is AIMv2.*: norms without a bias, such as RMSNorm",
    ),
    "SAM": (
        lambda: {f"image_encoder.{k}": v for k, v in plain(**{"blocks.0.attn.rel_pos_h": (3, 8)}).items()},
        "this is SAM or ViTDet.*: attention in windows and relative positions",
    ),
    "Perception Encoder": (
        lambda: {
            "visual.conv1.weight": torch.zeros(4, 3, 2, 2),
            **names("visual.ln_pre.weight", "visual.attn_pool.probe"),
        },
        "this is Perception Encoder.*does not say by which angles its positions turn; .*timm:NAME",
    ),
    "vit-pytorch": (
        lambda: names("to_patch_embedding.3.weight", "transformer.layers.0.0.to_qkv.weight"),
        "this is lucidrains' vit-pytorch.*: a LayerNorm of a patch's pixels",
    ),
    "vit-pytorch, old": (
        lambda: names("to_patch_embedding.1.weight", "transformer.layers.0.0.fn.to_qkv.weight"),
        "this is lucidrains' vit-pytorch.*, whose names are not read; export it as ONNX",
    ),
    "mmpretrain's Swin": (
        lambda: {
            "backbone.patch_embed.projection.weight": torch.zeros(4, 3, 2, 2),
            **names("backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table"),
        },
        "this is Swin.*: attention in windows and relative positions",
    ),
    "JAX hybrid": (
        lambda: {"embedding.kernel": torch.zeros(1, 1, 4, 4), **names("conv_root.kernel")},
        r"'conv_root\.weight': convolutions",
    ),
    "video": (
        lambda: plain("patch_embed.proj.weight", **{"patch_embed.proj.weight": (24, 3, 2, 4, 4)}),
        "this is a video network.*, of several frames.: patches of several frames",
    ),
    "no last LayerNorm": (lambda: plain("norm.weight", "norm.bias"), "no LayerNorm behind the last block"),
    "no bias": (
        lambda: plain("blocks.0.norm1.bias"),
        "without a bias: norms without a bias, such as RMSNorm",
    ),
    "rotary, mixed": (lambda: plain(**{"rope.freqs": (2, 2)}), r"'rope\.freqs': mixed rotary positions"),
    "rotary, of unknown angles": (
        lambda: plain(**{"blocks.0.attn.rope.freqs_cos": (4, 4)}),
        r"a network with rotary positions \('blocks.*angles are read from DINOv3's .*; .*timm:NAME",
    ),
    "rotary, of timm": (
        lambda: plain("pos_embed", **{"blocks.0.gamma_1": (24,)}),
        "this is Eva or BEiT in timm's names .*do not say whether and how .*; .*timm:NAME --weights FILE",
    ),
    "a gate behind attention": (
        lambda: plain(**{"blocks.0.attn.gate.weight": (24, 24)}),
        "'blocks.0.attn.gate.weight': attention with a gate",
    ),
}


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("encoder", [False, True])
def test_by_its_tensors(name: str, encoder: bool, tmp_path: Path) -> None:
    """--encoder leaves nothing out that the blocks use."""
    make, words = STATES[name]
    torch.save(make(), tmp_path / "a.pth")
    refused(tmp_path / "a.pth", words, encoder=encoder, heads=3)


#: of timm: arguments that make it small; what is said of the module, and of the state dict
TIMM: dict[str, tuple[dict, str, str]] = {
    "eva02_base_patch14_224": (SMALL, "", "EVA-02 .*: a norm inside the FFN, which"),
    "eva02_base_patch16_clip_224": (
        SMALL,
        "",
        "EVA-02 .*: a norm inside the FFN and a norm inside attention",
    ),
    "vit_pe_core_base_patch16_224": (
        SMALL,
        "pools by attention beside a class token",
        "Perception Encoder .*which angles",
    ),
    "vit_pe_lang_large_patch14_448": (
        SMALL | {"img_size": 56},
        "0 LayerNorms",
        "how its positions turn.*timm:NAME",
    ),
    "vit_pe_spatial_base_patch16_512": (
        SMALL | {"img_size": 64},
        "0 LayerNorms",
        "no LayerNorm behind the last block",
    ),
    "vit_small_patch16_rope_mixed_224": (SMALL, "mixed rotary", "mixed rotary"),
    "beit_base_patch16_224": (SMALL, "Beit.*: relative positions", "BEiT or Data2Vec .*: relative positions"),
    "beit3_base_patch16_224": (SMALL, "", "a norm inside the FFN and a norm inside attention"),
    "aimv2_large_patch14_224": (SMALL, "", "AIMv2 .*: norms without a bias, such as RMSNorm, which"),
    "vit_base_patch16_radio_v3": (SMALL | {"img_size": 64}, "0 LayerNorms", "no LayerNorm behind"),
    "samvit_base_patch16_224": (SMALL, "windows and relative", "SAM or ViTDet .*windows and relative"),
    "naflexvit_base_patch16_gap": (SMALL, "any shape", "NaFlex .*: patches of photos of any shape"),
    "vit_small_patch16_18x2_224": (SMALL, "made of ParallelThingsBlock", "side by side"),
    "swin_tiny_patch4_window7_224": (
        dict(depths=(1, 1), num_heads=(3, 6), embed_dim=48),
        "windows and relative",
        "Swin .*: attention in windows and relative positions",
    ),
    "swinv2_tiny_window8_256": (
        dict(depths=(1, 1), num_heads=(3, 6), embed_dim=48),
        "windows and relative",
        "Swin v2 .*: attention in windows and relative positions",
    ),
    "hiera_tiny_224": (
        dict(embed_dim=24),
        "windows and pooling",
        "Hiera .*: attention in windows and pooling",
    ),
    "convit_tiny": (dict(depth=1), "gated by positions", "gated by positions"),
    "mixer_s32_224": ({}, "no attention", "MLP-Mixer .*: no attention"),
    "resnet18": ({}, "no attention, but convolutions", "ResNet or its kin .*: no attention"),
    "mobilenetv3_small_050": ({}, "no attention, but convolutions", "MobileNet or its kin .*: no attention"),
    "convnext_atto": ({}, "no attention, but convolutions", "ConvNeXt or its kin .*: no attention"),
    "mobilevit_xxs": ({}, "convolutions", "one of several convolutions: convolutions"),
}


@pytest.mark.parametrize("name", TIMM)
def test_of_timm(name: str, tmp_path: Path) -> None:
    """By a name without weights, as a folder and as a state dict."""
    arguments, module, state = TIMM[name]
    network = timm.create_model(name, **arguments)
    refused(f"timm:{name}", module or state)  # before anything is fetched
    timm.models.save_for_hf(network, tmp_path, model_args=arguments, safe_serialization=True)
    refused(tmp_path, f"{state}|{module}" if module else state)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    (tmp_path / "config.json").unlink()
    refused(tmp_path / "a.pth", state)


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("MLCDVisionModel", dict(intermediate_size=64), "'class_pos_emb': a class token that turns"),
        ("ConvNextModel", dict(depths=[1] * 4, hidden_sizes=[8] * 4), "no attention, but convolutions"),
        ("Aimv2VisionModel", dict(intermediate_size=64), "AIMv2 .*: norms without a bias, such as RMSNorm"),
        ("Siglip2VisionModel", dict(num_patches=16), "NaFlex .*, a matrix.: patches of photos of any shape"),
        ("YolosModel", dict(image_size=[32, 48]), "positions added between the blocks"),
        ("Data2VecVisionModel", dict(use_relative_position_bias=True), "BEiT or Data2Vec .*: relative"),
        (
            "ResNetModel",
            dict(depths=[1] * 4, hidden_sizes=[8] * 4),
            "a convolutional network .*: no attention",
        ),
        ("VitPoseBackbone", dict(patch_size=[8, 8]), r"ViTPose .*: patches of a padded photo"),
        ("InternVLVisionModel", dict(intermediate_size=64), "no LayerNorm behind the last block"),
    ],
)
def test_of_transformers(kind: str, settings: dict, words: str, tmp_path: Path) -> None:
    torch.save(made(kind, **settings).state_dict(), tmp_path / "a.pth")
    refused(tmp_path / "a.pth", words)


# -- ONNX ----------------------------------------------------------------------------------------------


def nameless(path: Path) -> Path:
    """The file without the names that say what it is."""
    model = onnx.load(path)
    new: dict[str, str] = {"": ""}
    for node in model.graph.node:
        node.name = ""
        for tensors in (node.input, node.output):
            tensors[:] = [new.setdefault(tensor, f"t{len(new)}") for tensor in tensors]
    for value in [*model.graph.initializer, *model.graph.input, *model.graph.output]:
        value.name = new[value.name]
    onnx.save(model, path)
    return path


#: network, side, what its nodes say, and what the names of its tensors add
ONNX: dict[str, tuple[Callable[[], nn.Module], int, str, str]] = {
    "DINOv3 of timm": (
        lambda: timm.create_model("vit_small_patch16_dinov3", **SMALL, img_size=32),
        32,
        "it turns queries and keys by their positions, and rotary positions are not read from ONNX; import",
        "rotary positions are not read from ONNX; import the folder, state dict or timm name",
    ),
    "DINOv3 of transformers": (
        lambda: made("DINOv3ViTModel", intermediate_size=64),
        32,
        "",
        r"this is DINOv3 \('network\.model\.layer\.0.*rotary positions are not read from ONNX; import the",
    ),
    "EVA-02": (
        lambda: timm.create_model("eva02_base_patch14_224", **SMALL, img_size=28),
        28,
        "rotary positions are not read from ONNX",
        "this is EVA-02 .*: a norm inside the FFN, which",
    ),
    "EVA-02, tiny": (
        lambda: timm.create_model("eva02_tiny_patch14_224", **SMALL, img_size=28),
        28,
        "rotary positions are not read from ONNX",
        "rotary positions are not read from ONNX",
    ),
    "DINOv3 of transformers, gated": (
        lambda: made("DINOv3ViTModel", intermediate_size=64, use_gated_mlp=True),
        32,
        "",
        r"this is DINOv3 \('network\.model\.layer\.0.*rotary positions are not read from ONNX; import the",
    ),
    "DINOv2 giant": (
        lambda: timm.create_model("vit_giant_patch14_dinov2", **SMALL, img_size=28),
        28,
        r"\(Mul\): it multiplies two layers .* \(a gated FFN, which is not read from ONNX\); import the",
        "a gated FFN, which is not read from ONNX",
    ),
    "DINOv2 giant of transformers": (
        lambda: made("Dinov2Model", use_swiglu_ffn=True),
        32,
        "a gated FFN, which is not read from ONNX",
        r"a network with a gated FFN \('network\.encoder\..*\), which is not read from ONNX; import the",
    ),
    "BEiT": (
        lambda: timm.create_model("beit_base_patch16_224", **SMALL, img_size=32),
        32,
        r"\(Add\): a table is added to attention's scores \(relative positions, or a mask\)",
        "relative positions",
    ),
    "post-norm": (
        lambda: timm.create_model("vit_base_patch16_rpn_224", **SMALL, img_size=32),
        32,
        "attention comes before the first LayerNorm.*post-norm",
        "post-norm",
    ),
    "RMSNorm": (
        lambda: made("Aimv2VisionModel", intermediate_size=64),
        32,
        r"do not subtract the mean \(RMSNorm\)",
        "this is AIMv2 .*RMSNorm",
    ),
    "Swin of timm": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224", depths=(1, 1), num_heads=(3, 6), embed_dim=48, img_size=56
        ),
        56,
        r"reads \[1, 14, 14, 48\] scalars.*without windows",
        "without windows",
    ),
    "Swin of transformers": (
        lambda: transformers.SwinModel(
            transformers.SwinConfig(
                depths=[1, 1], num_heads=[1, 2], embed_dim=24, image_size=56, patch_size=4
            )
        ),
        56,
        r"attention in windows",
        "windows",
    ),
    "normalised queries": (
        lambda: exports.timm_network(qk_norm=True),
        16,
        "residual stream .normalised queries and keys",
        "normalised queries and keys",
    ),
    "mixed heads": (
        lambda: timm.create_model("cait_xxs24_224", depth=1, depth_token_only=1, img_size=32),
        32,
        "it mixes attention's heads",
        "attention whose heads are mixed",
    ),
    "tokens behind": (
        lambda: made("YolosModel", num_detection_tokens=5, image_size=[32, 32]),
        32,
        "5 tokens stand behind the patches .* not read from ONNX; import the folder or state dict",
        "5 tokens stand behind the patches",
    ),
    "convolutions": (
        lambda: timm.create_model("mobilenetv3_small_050"),
        32,
        "has no attention, but 53 convolutions",
        "no attention",
    ),
}


@pytest.mark.parametrize("name", ONNX)
def test_as_onnx(name: str, tmp_path: Path) -> None:
    make, side, nodes, named = ONNX[name]
    network = exports.Answer(randomise(make()), "last_hidden_state").eval()
    path = exports.export(network, tmp_path / "a.onnx", "script", 17, torch.randn(1, 3, side, side))
    refused(path, named)
    if nodes:
        refused(nameless(path), nodes)


def test_onnx_beside_settings(tmp_path: Path) -> None:
    """Optimum writes config.json beside: where the file is refused, that says more than a node."""
    network = exports.Answer(exports.timm_network(qk_norm=True)).eval()
    exports.export(network, tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "aimv2_vision_model"}))
    refused(tmp_path, "this is AIMv2: RMSNorm, which")
    exports.export(exports.timm_network(), tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "num_hidden_layers": 5}))
    refused(tmp_path, "its config.json says num_hidden_layers 5, and the weights say 2")


def test_naflex_as_onnx(tmp_path: Path) -> None:
    """Its inputs are patches, a mask and their shapes."""

    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = made("Siglip2VisionModel", num_patches=16, intermediate_size=64)

        def forward(self, patches: Tensor, mask: Tensor, shapes: Tensor) -> Tensor:
            return self.network(patches, mask, shapes).last_hidden_state

    inputs = torch.randn(1, 16, 192), torch.ones(1, 16, dtype=torch.long), torch.tensor([[4, 4]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = ["pixel_values", "pixel_attention_mask", "spatial_shapes"]
        path = tmp_path / "a.onnx"
        torch.onnx.export(Three().eval(), inputs, path, dynamo=False, opset_version=17, input_names=names)
    refused(path, f"this is NaFlex: patches of photos of any shape, {REFUSED}")
