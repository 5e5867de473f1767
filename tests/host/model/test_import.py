# SPDX-License-Identifier: Apache-2.0
"""Import of timm names and state dicts, changes of shape, and the command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rowvit.errors import RowvitError
from rowvit.formats import container
from rowvit.reference import patchify, run

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402
from timm.models import vision_transformer  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

import exports  # noqa: E402
from networks import randomise  # noqa: E402
from rowvit.cli import app  # noqa: E402
from rowvit.model import adapt, store  # noqa: E402
from rowvit.model.importers import import_model  # noqa: E402
from rowvit.model.importers.neighbours import _PROCESSORS  # noqa: E402
from rowvit.model.importers.timm import from_module  # noqa: E402
from rowvit.model.vit import normalise  # noqa: E402


def state_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


# -- timm ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_timm_name(tmp_path: Path) -> None:
    images = exports.images()
    found = import_model("timm:rowvit_test_network", random=True)
    assert torch.allclose(found.model(images), exports.timm_network()(images), atol=2e-5)
    assert found.card.classes == list("01234") and "random" in found.card.source
    other = randomise(exports.timm_network(num_classes=9), seed=5)
    torch.save({"model": other.state_dict()}, tmp_path / "a.pth")
    found = import_model("timm:rowvit_test_network", weights=tmp_path / "a.pth")
    assert torch.allclose(found.model(images), other(images), atol=2e-5)
    assert "a.pth" in found.card.source and found.card.licence == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (123, 117, 104)}, "mean 123 117 104 is not that of pixels in 0..1; divide"),
        ({"std": (0.0, 0.2, 0.2)}, "std 0 0.2 0.2 is not that"),
        ({"std": (58.4, 57.1, 57.4)}, "std 58.4 57.1 57.4 is not that"),
        ({"std": (float("nan"), 0.2, 0.2)}, "std nan 0.2 0.2 is not that"),
    ],
)
def test_mean_and_std_of_other_pixels(options: dict, message: str) -> None:
    with pytest.raises(RowvitError, match=message):
        import_model("timm:rowvit_test_network", random=True, **options)


def test_timm_card() -> None:
    """Preprocessing, licence and class names come along; 1000 classes are ImageNet's."""
    found = import_model("timm:deit_tiny_patch16_224", random=True)
    again = import_model("timm:deit_tiny_patch16_224", random=True).model
    assert torch.equal(found.model.blocks[3].mlp.fc1.weight, again.blocks[3].mlp.fc1.weight)
    assert found.model.config.heads == 3 and found.model.config.tokens == 197
    assert found.card.classes[0] == "tench" and len(set(found.card.classes)) == 1000
    assert found.card.classes[134] == "crane (134)" and found.card.classes[517] == "crane (517)"
    assert found.card.mean == [0.485, 0.456, 0.406] and found.card.resize == "bicubic"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deit_tiny_patch16_244", "no model 'deit_tiny_patch16_244'; do you mean deit_tiny_patch16_224"),
        ("resnet18", "resnet18 is of class ResNet, which is neither VisionTransformer nor Eva: no attention"),
        ("eva02_base_patch14_224", "EVA-02 .*: a norm inside the FFN, which"),
        ("vit_small_patch16_rope_mixed_224", "mixed rotary positions"),
        ("vit_pe_core_tiny_patch16_384", "beside a class token.*--encoder"),
        ("eva02_enormous_patch14_clip_224", "made of EvaBlockPostNorm"),
        ("vit_base_patch16_sapiens2", "normalised queries and keys and norms without a bias"),
        (
            "swin_tiny_patch4_window7_224",
            "SwinTransformer, which is neither VisionTransformer nor Eva.*windows.*relative positions",
        ),
        ("levit_128s", "LevitDistilled, which is neither.*relative positions.*convolutions"),
        ("xcit_nano_12_p16_224", "Xcit, which is neither.*attention across channels"),
        ("cait_xxs24_224", "Cait, which is neither.*heads are mixed.*class token alone"),
    ],
)
def test_timm_names_that_are_refused(name: str, message: str) -> None:
    with pytest.raises(RowvitError, match=message):
        import_model(f"timm:{name}", random=True)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: exports.timm_network(qk_norm=True), r"'blocks\.0\.attn\.q_norm.*': normalised queries"),
        (lambda: exports.timm_network(block_fn=vision_transformer.ResPostBlock), "made of ResPostBlock"),
        (lambda: exports.timm_network(act_layer=torch.nn.Mish), "is not two layers"),
        (lambda: exports.timm_network(global_pool="max"), "pools by 'max'"),
        (lambda: exports.timm_network(global_pool="map"), "pooling by attention is of patches alone"),
    ],
)
def test_timm_variants_that_are_refused(network: Callable, message: str) -> None:
    with pytest.raises(RowvitError, match=message):
        from_module(network())


def test_without_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One sentence, quickly, if neither the hub nor its cache has the weights."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(RowvitError, match=r"the hub does not answer.*--random"):
        import_model("timm:deit_tiny_patch16_224")


# -- state dicts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "pool"),
    [
        (exports.timm_network, "token"),
        (lambda: exports.timm_network(init_values=0.5, qkv_bias=False), "token"),
        (lambda: exports.timm_network(reg_tokens=3), "token"),
        (lambda: exports.timm_network(reg_tokens=3, no_embed_class=True), "token"),
        (lambda: exports.timm_network(global_pool="avg", fc_norm=False), "norm-mean"),
        (lambda: exports.timm_network(global_pool="avg"), None),
        (lambda: exports.timm_network(global_pool="avg", class_token=False), None),
        (
            lambda: exports.timm_network(global_pool="avg", class_token=False, reg_tokens=2, fc_norm=False),
            None,
        ),
        (lambda: exports.timm_network(num_classes=0), None),
        (exports.timm_distilled, None),
        (exports.torchvision_network, None),
        (exports.HuggingFaceNetwork, None),
        (lambda: exports.HuggingFaceNetwork(distilled=True), None),
    ],
)
@torch.no_grad()
def test_state_dicts_of_three_libraries(tmp_path: Path, make: Callable, pool: str | None) -> None:
    """With a class token and one LayerNorm, timm's names fit two networks, and ``pool`` decides."""
    network = make()
    state = state_of(network)
    images = exports.images()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(
        {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "b.pth"
    )
    for name in ("a.safetensors", "b.pth"):
        if pool:
            with pytest.raises(RowvitError, match=r"fits two networks.*--pool token.*or.*--pool norm-mean"):
                import_model(tmp_path / name, heads=3)
        found = import_model(tmp_path / name, heads=3, pool=pool)
        assert torch.allclose(found.model(images), network(images), atol=3e-5)
        assert any("GELU assumed" in note for note in found.notes)
        assert any("ImageNet's" in note for note in found.notes)
        own = found.model.config.pool
        told = import_model(tmp_path / name, heads=3, act="gelu", pool=own, mean=[0.1] * 3, std=[0.2] * 3)
        assert all("epsilon" in note for note in told.notes) and told.card.mean == [0.1] * 3


@torch.no_grad()
def test_files_next_to_the_weights(tmp_path: Path) -> None:
    """Heads, activation, epsilon, class names and preprocessing of transformers; the name of timm."""
    network = exports.HuggingFaceNetwork()
    save_file(state_of(network), tmp_path / "model.safetensors")
    config = {
        "num_attention_heads": 3,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "id2label": {str(i): name for i, name in enumerate(["ant", "bee", "cat", "dog", "elk"])},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    pixels = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(pixels))
    found = import_model(tmp_path / "model.safetensors")
    assert not found.notes and found.model.config.eps == 1e-12
    assert found.card.classes == ["ant", "bee", "cat", "dog", "elk"]
    assert found.card.mean == [0.1, 0.2, 0.3] and found.card.std == [0.4, 0.5, 0.6]
    assert found.card.resize == "bilinear"
    assert torch.allclose(found.model(exports.images()), network(exports.images()), atol=2e-5)
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "quick_gelu"}))
    assert import_model(tmp_path / "model.safetensors").model.config.act == "quick_gelu"
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "mish"}))
    with pytest.raises(RowvitError, match="'mish' is not one of relu"):
        import_model(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RowvitError, match=r"config\.json"):
        import_model(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "rowvit_test_network"}')
    save_file(state_of(exports.timm_network()), tmp_path / "model.safetensors")
    found = import_model(tmp_path / "model.safetensors")
    assert found.model.config.heads == 3 and found.card.source == "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """A network of transformers with these settings and this preprocessing."""

    def written(pixels: object = None, **settings: object) -> Path:
        save_file(state_of(exports.HuggingFaceNetwork()), tmp_path / "model.safetensors")
        config = {"num_attention_heads": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-12} | settings
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(pixels or {}))
        return tmp_path

    return written


@pytest.mark.parametrize(
    "pixels",
    [
        {"image_mean": [0.2, 0.5, 0.4], "image_std": [0.3, 0.2, 0.1]},
        {"image_mean": 0.5, "image_std": 0.25, "rescale_factor": 0.00392156862745098},
        {"image_mean": [127.5, 100, 90], "image_std": [127.5, 60, 50], "do_rescale": False},
        {"image_mean": [1, 1, 1], "image_std": [1, 0.5, 1], "rescale_factor": 1 / 127.5},
        {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": False},
        {"do_normalize": False, "rescale_factor": 1 / 256},
    ],
)
def test_pixels_are_scaled_as_by_transformers(folder: Callable[..., Path], pixels: dict) -> None:
    processors = pytest.importorskip("transformers")
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    # transformers' own, without its scaling of the side
    processor = processors.ViTImageProcessor(do_resize=False, **pixels)
    (theirs,) = processor(image, input_data_format="channels_last", return_tensors="np")["pixel_values"]
    found = import_model(folder(pixels | {"do_resize": False}))
    ours = normalise(image[None], found.card.mean, found.card.std)[0].numpy()
    assert not found.notes and np.allclose(ours, theirs, atol=1e-4 * abs(theirs).max())


@pytest.mark.parametrize(
    ("pixels", "mean", "std"),
    [
        ({"image_mean": [0.4, 0.5, 0.3], "image_std": [0.2, 0.1, 0.3]}, [0.4, 0.5, 0.3], [0.2, 0.1, 0.3]),
        ({"do_normalize": False}, [0] * 3, [1] * 3),
    ],
)
@pytest.mark.parametrize("scaled", [{"do_rescale": False}, {"do_rescale": None}, {"rescale_factor": 1}])
def test_pixels_that_others_have_scaled(
    folder: Callable[..., Path], pixels: dict, mean: list, std: list, scaled: dict
) -> None:
    """As tensors are that torchvision makes: transformers scales them no more, and means are of 0..1."""
    found = import_model(folder(pixels | scaled))
    assert (found.card.mean, found.card.std) == (mean, std)
    assert [
        note.startswith("mean and std are taken for those of pixels in 0..1") for note in found.notes
    ] == [True]


def test_pixels_with_an_offset(folder: Callable[..., Path]) -> None:
    """EfficientNet's processor brings them to -1..1 before it normalises."""
    pixels = {"image_mean": [0, 0.5, 0], "image_std": [1, 0.5, 0.5], "rescale_factor": 1 / 127.5}
    card = import_model(folder(pixels | {"rescale_offset": True})).card
    assert card.mean == pytest.approx([0.5, 0.75, 0.5]) and card.std == pytest.approx([0.5, 0.25, 0.25])


@pytest.mark.parametrize(
    ("pixels", "settings", "message"),
    [
        (
            {"image_mean": [127.5] * 3, "image_std": [127.5] * 3},
            {},
            r"image_mean \[127.5.*, of pixels in 0..1",
        ),
        ({"image_mean": [0.5] * 3, "image_std": [0.0] * 3}, {}, "image_std .*, of pixels in 0..1"),
        ({"image_mean": [0.5] * 2, "image_std": [0.5] * 3}, {}, r"image_mean \[0.5, 0.5\]; fix it or move"),
        ({"image_mean": "grey", "image_std": [0.5] * 3}, {}, "image_mean grey"),
        (
            {"do_normalize": False, "rescale_factor": 1e-5},
            {},
            "rescale_factor 1e-05, of pixels in 0..0.00255",
        ),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 0}, {}, "rescale_factor 0"),
        ({"size": "large"}, {}, "size large; fix it or move"),
        ({"size": {"height": "x", "width": 3}}, {}, "size {'height': 'x'"),
        ({"size": [[1]]}, {}, r"size \[\[1\]\]"),
        ({"size": float("inf")}, {}, "size inf"),
        ({}, {"mlp_ratio": float("inf")}, "mlp_ratio inf"),
        ({}, {"num_attention_heads": [3]}, r"num_attention_heads \[3\]; fix the config.json"),
        ({}, {"num_attention_heads": 2.5}, "num_attention_heads 2.5"),
        ({}, {"layer_norm_eps": -1.0}, "layer_norm_eps -1.0"),
        ({}, {"layer_norm_eps": "small"}, "layer_norm_eps small"),
        ({}, {"layer_norm_eps": 10**400}, "layer_norm_eps 1000"),
        ({}, {"id2label": {"first": "ant"}}, "id2label"),
        ({}, {"id2label": 5}, "id2label 5"),
        ({}, {"image_size": ["a", "b"]}, "image_size"),
        ({}, {"image_size": 0}, "image_size 0"),
        ({}, {"image_size": 16.5}, "image_size 16.5"),
        ({}, {"hidden_act": {"name": "gelu"}}, "hidden_act"),
    ],
)
def test_settings_that_make_no_sense(
    folder: Callable[..., Path], pixels: dict, settings: dict, message: str
) -> None:
    with pytest.raises(RowvitError, match=f"config.json says {message}"):
        import_model(folder(pixels, **settings))


def test_settings_that_leave_something_open(folder: Callable[..., Path], tmp_path: Path) -> None:
    """Null is what is not there; whole numbers may have a point, and class names be a list."""
    names = ["ant", "bee", "cat", "dog", "elk"]
    found = import_model(
        folder(
            {"image_mean": None},
            layer_norm_eps=None,
            num_attention_heads=3.0,
            image_size=[16.0, 16],
            id2label=names,
        )
    )
    assert found.card.classes == names and any("ImageNet's" in note for note in found.notes)
    assert any("epsilon" in note for note in found.notes)
    half = import_model(folder({"image_mean": [0.5] * 3}, id2label={"-1": "none", **dict(enumerate("abcd"))}))
    assert half.card.mean == [0.5] * 3 and half.card.std == pytest.approx([0.229, 0.224, 0.225])
    assert half.card.classes == ["none", *"abcd"] and "std is assumed to be ImageNet's" in half.notes[0]
    store.save(tmp_path / "vit.safetensors", found.model, found.card)
    assert store.load(tmp_path / "vit.safetensors")[0].config.heads == 3


@pytest.mark.parametrize(
    ("pixels", "squashed"),
    [
        ({"size": {"height": 16, "width": 16}}, True),
        ({"size": {"height": 20, "width": 20}, "do_center_crop": True, "crop_size": 16}, True),
        ({"size": 16, "feature_extractor_type": "ViTFeatureExtractor"}, True),
        ({"size": 20, "image_processor_type": "DeiTImageProcessor", "do_center_crop": True}, True),
        ({"size": [16, 16]}, True),
        ({"size": 16, "feature_extractor_type": "CLIPFeatureExtractor", "do_center_crop": True}, False),
        ({"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": 16}, False),
        ({"size": {"shortest_edge": 16}}, False),
        ({"size": {"longest_edge": 16}}, False),
        ({"size": {"height": 16, "width": 16}, "keep_aspect_ratio": True}, False),
        ({"size": 800, "max_size": 1333, "format": "coco_detection"}, False),
        ({"size": {"height": 16, "width": 16}, "do_resize": False}, False),
        ({"size": {"height": 16, "width": 16}, "do_resize": None}, True),
        ({"size": 16, "image_processor_type": "DINOv3ViTImageProcessorFast"}, True),
        ({"image_processor_type": "ViTImageProcessor"}, True),
        ({"image_processor_type": "ViTImageProcessor", "size": None}, True),
        ({"image_processor_type": "CLIPImageProcessor"}, False),
        ({}, False),
    ],
)
def test_photos_that_are_squashed_elsewhere(
    folder: Callable[..., Path], pixels: dict, squashed: bool
) -> None:
    usual = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    notes = import_model(folder(usual | pixels)).notes
    said = "transformers squeezes photos of any shape into one; here their middle is cut out in that shape"
    assert [note.startswith(said) for note in notes] == [True] * squashed


@pytest.mark.parametrize(
    ("pixels", "network", "resize"),
    [
        ({"resample": 2}, "clip", "bilinear"),
        ({"resample": 3}, "vit", "bicubic"),
        ({}, "vit", "bilinear"),
        ({"resample": None, "image_processor_type": "ViTImageProcessor"}, "", "bilinear"),
        ({"image_processor_type": "BitImageProcessor"}, "vit", "bicubic"),
        ({}, "deit", "bicubic"),
        ({}, "dinov2", "bicubic"),
        ({"resample": 0}, "vit", "nearest"),
        ({"resample": 1}, "deit", "lanczos"),
        ({"resample": [2]}, "deit", "[2]"),
        ({"resample": True}, "deit", "True"),
    ],
)
def test_how_photos_are_resized(folder: Callable[..., Path], pixels: dict, network: str, resize: str) -> None:
    """As transformers does it by its settings, and by the defaults of the network's processor."""
    usual = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    found = import_model(folder(usual | pixels, model_type=network))
    here = resize in ("bilinear", "bicubic")
    assert found.card.resize == (resize if here else "bicubic")
    assert any(f"by resampling '{resize}'" in note for note in found.notes) == (not here)


@pytest.mark.parametrize(
    ("pixels", "network", "crop"),
    [
        ({}, "deit", 224 / 256),
        ({"size": 448}, "deit", 0.5),
        ({"do_center_crop": False}, "deit", 1.0),
        ({}, "beit", 1.0),
        ({"size": 256, "do_center_crop": True}, "beit", 224 / 256),
        ({"size": {"shortest_edge": 256}}, "dinov2", 0.875),
        ({"size": 256, "image_processor_type": "CLIPImageProcessor"}, "", 0.875),
        ({"size": {"shortest_edge": 20}, "crop_size": 16, "do_center_crop": True}, "clip", 0.8),
    ],
)
def test_what_of_photos_is_cut_out(
    folder: Callable[..., Path], pixels: dict, network: str, crop: float
) -> None:
    """Where the settings do not say, what the network's processor does."""
    usual = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    assert import_model(folder(usual | pixels, model_type=network)).card.crop == pytest.approx(crop)


@pytest.mark.parametrize("name", _PROCESSORS)
def test_what_processors_of_transformers_do(folder: Callable[..., Path], name: str) -> None:
    """Where the settings name one and say nothing else."""
    transformers = pytest.importorskip("transformers")
    kind = f"{name.removesuffix('Image')}ImageProcessor"
    if not hasattr(transformers, kind):
        pytest.skip(f"this version of transformers has no {kind}")
    theirs, taken = getattr(transformers, kind)(), _PROCESSORS[name]

    def size(value: object) -> dict:
        return {key: side for key, side in dict(value or {}).items() if side}

    assert taken["size"] == size(theirs.size) and taken["resample"] == theirs.resample
    cut = bool(getattr(theirs, "do_center_crop", False))
    assert taken.get("do_center_crop", False) == cut
    assert not cut or taken["crop_size"] == size(theirs.crop_size)
    found = import_model(folder({"image_processor_type": kind}))
    assert (found.card.mean, found.card.std) == (list(theirs.image_mean), list(theirs.image_std))
    assert not any("assumed" in note for note in found.notes)


def test_photos_that_timm_squashes(tmp_path: Path) -> None:
    """Be it said beside its own weights or beside ONNX."""
    network = exports.timm_network()
    save_file(state_of(network), tmp_path / "model.safetensors")
    exports.export(network, tmp_path / "model.onnx")
    for mode in ("squash", "center"):
        settings = {"architecture": "rowvit_test_network", "num_classes": 5, "crop_mode": mode}
        (tmp_path / "config.json").write_text(json.dumps(settings))
        for name in ("model.safetensors", "model.onnx"):
            notes = import_model(tmp_path / name).notes
            assert any(note.startswith("timm squeezes photos") for note in notes) == (mode == "squash")


def test_a_new_head_of_zeros(tmp_path: Path) -> None:
    """As timm makes one: every answer is 0, of which nothing can be a share; int8, too."""
    network = exports.timm_network()
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    model, difference = from_module(network)
    assert difference == 0 and not model.head.weight.any()
    exports.export(network, tmp_path / "model.onnx")
    assert not import_model(tmp_path / "model.onnx").model.head.weight.any()


def test_settings_as_other_versions_write_them(tmp_path: Path) -> None:
    """Transformers 5 beside words, and its feature extractors of before; timm of before, and beside ONNX."""
    save_file(state_of(exports.HuggingFaceNetwork()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 3, "id2label": None}))
    pixels = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": [20, 20]}
    pixels |= {"do_center_crop": True, "crop_size": [16, 16]}
    for name, content in (
        ("preprocessor_config.json", pixels),
        ("processor_config.json", {"image_processor": pixels, "processor_class": "CLIPProcessor"}),
    ):
        (tmp_path / name).write_text(json.dumps(content))
        card = import_model(tmp_path).card
        assert (card.mean, card.std, card.crop) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], 0.8), name
        (tmp_path / name).unlink()
    network, names = exports.timm_network(), ["ant", "bee", "cat", "dog", "elk"]
    pixels = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.8, "interpolation": "bilinear"}
    whole = {"architecture": "rowvit_test_network", "num_classes": 5}
    save_file(state_of(network), tmp_path / "model.safetensors")
    for settings in (
        whole | pixels | {"labels": names},
        whole | {"pretrained_cfg": pixels, "label_names": names},
    ):
        (tmp_path / "config.json").write_text(json.dumps(settings))
        found = [import_model(tmp_path)]
        exports.export(network, tmp_path / "model.onnx")
        found.append(import_model(tmp_path / "model.onnx"))
        for card in (one.card for one in found):
            assert (card.mean, card.std, card.crop) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], 0.8)
            assert card.resize == "bilinear" and card.classes == names
        assert not any("assumed" in note for one in found for note in one.notes)


@pytest.mark.parametrize("options", [{"encoder": True}, {"classes": 3}])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (exports.HuggingFaceNetwork, "vit.encoder.layer.0.adapter.weight"),
        (exports.HuggingFaceNetwork, "vit.encoder.layer.1.attention.q_norm.weight"),
        (exports.torchvision_network, "encoder.layers.encoder_layer_0.adapter.weight"),
    ],
)
def test_no_part_of_a_block_is_left_out(tmp_path: Path, make: Callable, name: str, options: dict) -> None:
    """Though all behind the last LayerNorm is."""
    save_file(state_of(make()) | {name: torch.ones(24)}, tmp_path / "a.safetensors")
    with pytest.raises(RowvitError):
        import_model(tmp_path / "a.safetensors", heads=3, **options)


@torch.no_grad()
def test_pooler_of_transformers_is_left_out(tmp_path: Path) -> None:
    network = exports.HuggingFaceNetwork()
    state = {name: tensor for name, tensor in state_of(network).items() if "classifier" not in name}
    state |= {"vit.pooler.dense.weight": torch.ones(24, 24), "vit.pooler.dense.bias": torch.ones(24)}
    save_file(state, tmp_path / "a.safetensors")
    found = import_model(tmp_path / "a.safetensors", heads=3)
    save_file(state_of(network), tmp_path / "whole.safetensors")
    whole = import_model(tmp_path / "whole.safetensors", heads=3).model
    images = exports.images()
    assert found.model.config.classes == 0 and any("pooler" in note for note in found.notes)
    assert torch.equal(whole.head(found.model(images)), whole(images))
    head = {"classifier.weight": torch.ones(5, 24), "classifier.bias": torch.ones(5)}
    save_file(state | head, tmp_path / "a.safetensors")
    with pytest.raises(RowvitError, match=r"'pooler\.dense\.bias', which this network has no place for"):
        import_model(tmp_path / "a.safetensors", heads=3)


@torch.no_grad()
def test_half_precision_checkpoint(tmp_path: Path) -> None:
    network = exports.timm_network()
    save_file(
        {name: tensor.bfloat16() for name, tensor in state_of(network).items()}, tmp_path / "a.safetensors"
    )
    found = import_model(tmp_path / "a.safetensors", heads=3, pool="token")
    images = exports.images()
    assert found.model.head.weight.dtype == torch.float32
    assert torch.allclose(found.model(images), network(images), atol=0.1)


@pytest.mark.parametrize(
    "make", [exports.timm_distilled, exports.HuggingFaceNetwork, exports.transformers_dinov3]
)
def test_damaged_state_dicts_are_refused_by_tensor(tmp_path: Path, make: Callable) -> None:
    """Every tensor in turn is left out, or has another shape."""
    whole = state_of(make())
    for name, tensor in whole.items():
        for changed in (None, tensor.flatten(), tensor[None], tensor[..., :-1], tensor[:0], tensor.sum()):
            if changed is not None and changed.shape == tensor.shape:
                continue
            state = {key: value for key, value in whole.items() if key != name}
            if changed is not None:
                state[name] = changed.contiguous()
            torch.save(state, tmp_path / "a.pth")
            try:
                found = import_model(tmp_path / "a.pth", heads=3)
            except RowvitError as error:
                assert re.search("the state dict|not a valid network", str(error))
            else:  # optional tensors
                assert changed is None or "token" in name, name
                assert not found.model.config.classes or "bias" in name or "dist" in name, name


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    state = state_of(exports.timm_network())
    state["blocks.1.attn.proj.weight"][2, 3] = value
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(RowvitError, match=r"'blocks\.1\.attn\.proj\.weight' holds NaN or infinity"):
        import_model(tmp_path / "a.safetensors", heads=3, pool="token")


# -- changes of shape ----------------------------------------------------------------------------------


@torch.no_grad()
def test_resizing_is_timms() -> None:
    from timm.layers import resample_abs_pos_embed

    for options in ({}, {"reg_tokens": 2}, {"global_pool": "avg", "class_token": False}):
        network = exports.timm_network(**options)
        model, _ = from_module(network)
        for size in (24, 12, 40):
            grid = size // 4
            expected = resample_abs_pos_embed(
                network.pos_embed, (grid, grid), num_prefix_tokens=model.config.prefix
            )
            resized = adapt.resize(model, size)
            assert torch.allclose(resized.pos_embed, expected, atol=1e-6)
            assert resized(torch.randn(1, 3, size, size)).shape == (1, 5)
        assert adapt.resize(model, 16) is model
        with pytest.raises(RowvitError, match="patch of 4 does not divide the image of 18"):
            adapt.resize(model, 18)


@torch.no_grad()
def test_a_resized_network_keeps_the_same_shares_of_its_tokens() -> None:
    model, _ = from_module(exports.timm_network())  # 16 patches
    schedule = [{"layer": 0, "keep": 8, "threshold": 3}, {"layer": 1, "keep": 1, "threshold": 0}]
    for last in (1, 0):
        pruned = adapt.rebuild(
            model, replace(model.config, pruning=(schedule[0], schedule[1] | {"keep": last}))
        )
        for size, kept in ((24, (18, 2)), (12, (4, 1)), (16, (8, 1))):
            resized = adapt.resize(pruned, size)
            expected = [
                schedule[0] | {"keep": kept[0]},
                schedule[1] | {"keep": kept[1] if last else 0},
            ]
            assert list(resized.config.pruning) == expected
            live = []
            for block in resized.blocks:
                block.register_forward_hook(
                    lambda _block, _inputs, out, live=live: live.append(out[0].shape[1])
                )
            resized(torch.randn(1, 3, size, size))
            assert live == [1 + step["keep"] for step in expected]


@torch.no_grad()
def test_heads_can_be_changed() -> None:
    model, _ = from_module(exports.timm_distilled())
    images = exports.images()
    alone = adapt.class_head_alone(model)
    assert torch.allclose(alone(images), model.head(model.pool(model.encode(images))[:, 0]), atol=1e-6)
    new = adapt.with_classes(model, 3)
    assert new(images).shape == (3, 3) and not new.config.distilled
    assert torch.equal(new(images), adapt.with_classes(model, 3)(images))
    assert torch.equal(adapt.with_classes(model, 0)(images), model.norm(model.encode(images)[:, 0]))


@pytest.mark.parametrize("head", ["all", "class"])
def test_the_head_that_the_command_keeps(tmp_path: Path, head: str) -> None:
    module = exports.timm_distilled()
    save_file(state_of(module), tmp_path / "a.safetensors")
    words = [
        "import",
        tmp_path / "a.safetensors",
        "--heads",
        3,
        "--head",
        head,
        "-o",
        tmp_path / "b.safetensors",
    ]
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == 0, result.output
    found, (whole, _) = store.load(tmp_path / "b.safetensors")[0], from_module(module)
    assert found.config.distilled == (head == "all")
    wanted = whole if head == "all" else adapt.class_head_alone(whole)
    assert torch.allclose(found(exports.images()), wanted(exports.images()), atol=1e-5)


def test_the_command_passes_on_what_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict = {}

    def taken(source: str, **options: object) -> None:
        seen.update(options, source=source)
        raise RowvitError("enough")

    monkeypatch.setattr("rowvit.model.importers.import_model", taken)
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    (tmp_path / "prompts.txt").write_text("a photo of a cat\n")
    words = [
        *("import", "a.pth", "-o", tmp_path / "b.safetensors", "--weights", "w.pth", "--random"),
        *("--heads", 4, "--act", "silu", "--pool", "mean", "--part", "ema", "--onnx-output", "out"),
        *("--encoder", "--head", "class", "--classes", 7, "--image-size", "48x64", "--licence", "MIT"),
        *("--class-names", tmp_path / "names.txt", "--prompts", tmp_path / "prompts.txt"),
        *("--mean", 0.1, 0.2, 0.3, "--std", 0.4, 0.5, 0.6),
    ]
    assert "enough" in CliRunner().invoke(app, [*map(str, words)]).output
    assert seen == {
        **{"source": "a.pth", "weights": Path("w.pth"), "random": True, "heads": 4, "act": "silu"},
        **{"pool": "mean", "part": "ema", "output": "out", "encoder": True, "class_head": True},
        **{"classes": 7, "image_size": (48, 64), "licence": "MIT", "class_names": ["cat", "dog"]},
        **{"prompts": ["a photo of a cat"], "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)},
    }


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    save_file(state_of(exports.timm_network()), tmp_path / "a.safetensors")
    with pytest.raises(RowvitError, match="has one head"):
        import_model(tmp_path / "a.safetensors", heads=3, pool="token", class_head=True)
    with pytest.raises(RowvitError, match="belong to a timm name"):
        import_model(tmp_path / "a.safetensors", random=True)
    with pytest.raises(RowvitError, match="not both"):
        import_model("timm:rowvit_test_network", random=True, weights=tmp_path / "a.safetensors")
    with pytest.raises(RowvitError, match="5 heads do not divide the width 24"):
        import_model(tmp_path / "a.safetensors", heads=5, pool="token")
    for name in ("missing.pth", "missing.safetensors", "missing.onnx"):
        with pytest.raises(RowvitError, match=name):
            import_model(tmp_path / name)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-8])
    with pytest.raises(RowvitError, match=r"cut\.safetensors"):
        import_model(tmp_path / "cut.safetensors")


def test_what_a_source_says_itself_is_not_told(tmp_path: Path) -> None:
    """Nor what it has not: an option that would be ignored is refused."""
    network = exports.timm_network()
    exports.export(network, tmp_path / "a.onnx")
    save_file(state_of(network), tmp_path / "a.safetensors")
    found = import_model(tmp_path / "a.safetensors", heads=3, pool="token")
    store.save(tmp_path / "ours.safetensors", found.model, found.card)
    timm = tmp_path / "timm"
    timm.mkdir()
    save_file(state_of(network), timm / "model.safetensors")
    (timm / "config.json").write_text('{"architecture": "rowvit_test_network"}')
    told = {"heads": 3, "act": "gelu", "pool": "token", "part": "model", "output": "logits"}
    flags = {name: f"--{name}" for name in told} | {"output": "--onnx-output"}
    sources: dict[object, tuple[str, ...]] = {
        "timm:rowvit_test_network": (),
        tmp_path / "a.onnx": ("output",),
        tmp_path / "ours.safetensors": (),
        timm: ("part",),
    }
    for source, takes in sources.items():
        for name in told.keys() - {*takes}:
            with pytest.raises(RowvitError, match=rf"{flags[name]} is for .*; leave it out"):
                import_model(source, **{name: told[name]})


# -- the command ---------------------------------------------------------------------------------------


def rowvit(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_what_is_not_imported(tmp_path: Path) -> None:
    """What is compiled already, what is not there, and the very file that would be written."""
    out, program = tmp_path / "out.safetensors", tmp_path / "program.safetensors"
    rowvit("compile", "sign-digits", "-o", program)
    said = rowvit("import", program, "-o", out, code=2).output
    assert "program.safetensors: is a compiled program; import the package or" in said
    said = rowvit("import", "vit_tiny_patch16_224", "-o", out, code=2).output
    assert "no such file; a network of timm is timm:vit_tiny_patch16_224" in said
    weights = tmp_path / "model.safetensors"
    save_file(state_of(exports.timm_network()), weights)
    before = weights.read_bytes()
    for source in (tmp_path, weights):
        said = rowvit("import", source, "-o", weights, code=2).output
        assert "model.safetensors: it is read as well; name another file with" in said
    assert weights.read_bytes() == before


def test_command(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\nthree\n")
    out = tmp_path / "a.safetensors"
    shown = rowvit(
        *("import", "timm:rowvit_test_network", "--random", "--classes", 3, "--class-names", names),
        *("--image-size", 24, "--mean", 0.1, 0.2, 0.3, "--licence", "MIT", "--origin", "us", "-o", out),
    ).stdout
    assert "24 x 24" in shown and "untrained" in shown and "interpolated from 16 to 24" in shown
    model, card = store.load(out)
    assert model.config.image_size == 24 and card.classes == ["one", "two", "three"]
    assert (
        card.mean == [0.1, 0.2, 0.3]
        and card.licence == "MIT"
        and card.source == "us"
        and len(card.history) == 1
    )
    described = rowvit("info", out).stdout
    assert "24 x 24" in described and "MIT" in described and "not measured" in described
    again = tmp_path / "b.safetensors"
    rowvit("import", out, "--image-size", 16, "-o", again)  # a float network is a source too
    assert store.load(again)[0].config.image_size == 16 and len(store.load(again)[1].history) == 2
    measured = store.load(out)
    measured[1].accuracy = {"float": {"set": "s", "unit": "percent top-1", "float": 98.0}}
    store.save(out, *measured)
    for options, stays in (
        (["--licence", "BSD"], True),
        (["--image-size", 16], False),
        (["--classes", 5], False),
    ):
        rowvit("import", out, *options, "-o", again)
        card = store.load(again)[1]
        assert bool(card.accuracy) == stays and "imported again" in card.history[-1]
    assert "the head of 5 classes is untrained" in card.history[-1]
    names.write_text('["one", "two"]')
    mistake = rowvit("import", out, "--class-names", names, "-o", again, code=2).stderr
    assert mistake.startswith("rowvit: ") and "2 class names for 3 classes" in mistake
    mistake = rowvit("import", tmp_path / "none.pth", "-o", again, code=2).stderr
    assert len(mistake.strip().splitlines()) == 1


@torch.no_grad()
def test_distilled_network_runs_with_its_class_head(tmp_path: Path) -> None:
    """The accelerator has one head: a distilled network is refused, and runs without its second head."""
    from rowvit.model.vit import predict
    from rowvit.quant.quantise import QuantOptions, quantise

    network, _ = from_module(exports.timm_distilled())
    photos = torch.randint(0, 256, (8, 4, 4, 3), generator=torch.Generator().manual_seed(3))
    photos = photos.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2).numpy().astype("uint8")
    told = QuantOptions(name="deit", classes=list("01234"), ffn_chunk=32)
    with pytest.raises(RowvitError, match="second head"):
        quantise(adapt.rebuild(network, replace(network.config, act="relu")), photos, told)
    alone = adapt.class_head_alone(network)
    pruned = replace(alone.config, act="relu", pruning=({"layer": 0, "keep": 9},))
    alone = adapt.rebuild(alone, pruned)
    package = quantise(alone, photos, told)
    assert package.arch["prefix"] == 2 and package.arch["tokens"] == 18
    exact = predict(alone, photos, told.mean, told.std)
    results = run(package, patchify(photos, 4))
    logits = torch.tensor([result.logits.tolist() for result in results]) * package.meta["scales"]["logit"]
    noise = (logits - torch.from_numpy(exact)).square().mean() / torch.from_numpy(exact).square().mean()
    assert noise < 0.01 and all(len(result.kept[0]) == 10 for result in results)
    package.save(tmp_path / "deit.safetensors")
    assert "rowvit" in container.read(tmp_path / "deit.safetensors")[1]
