# SPDX-License-Identifier: Apache-2.0
"""The table in docs/your-model.md: libraries' own networks, small and random, in all their forms.

``pytest -m slow -s tests/host/model/test_import_table.py`` prints its rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rowvit.errors import RowvitError

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
timm = pytest.importorskip("timm")

from torch import nn  # noqa: E402

import exports  # noqa: E402
from networks import randomise  # noqa: E402
from rowvit.model.importers import import_model  # noqa: E402
from rowvit.model.vit import ACTIVATIONS  # noqa: E402

pytestmark = pytest.mark.slow

SIZE = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=16, patch_size=4)
SIZE |= dict(intermediate_size=40)
AMBIGUOUS = r"fits two networks.*--pool"
POOLED = "pool"  # by attention, in ONNX
UNREAD = "not read from ONNX"


def transformers_network(name: str, **settings: object) -> nn.Module:
    """One of transformers' networks, small."""
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, name)
    config = kind.config_class()
    if hasattr(config, "vision_config"):
        config.vision_config = type(config.vision_config)(**SIZE | settings)
    else:
        config = kind.config_class(**SIZE | settings)
    return randomise(kind(config))


#: network -> what makes it, and by form what the refusal says; forms that are not named are equal
TRANSFORMERS: dict[str, tuple[dict, dict[str, str]]] = {
    "ViTForImageClassification": ({}, {}),
    "ViTModel": ({}, {}),
    "DeiTForImageClassification": ({}, {}),
    "DeiTForImageClassificationWithTeacher": ({}, {}),
    "ViTMSNForImageClassification": ({}, {}),
    "Dinov2Model": ({}, {}),
    "Dinov2WithRegistersModel": ({}, {}),
    "Dinov2ForImageClassification": ({}, {}),
    "IJepaForImageClassification": ({}, {}),
    "BeitForImageClassification": (
        dict(use_absolute_position_embeddings=True, use_relative_position_bias=False),
        {},
    ),
    "SiglipForImageClassification": ({}, {}),
    "SiglipVisionModel": ({}, dict.fromkeys(("script", "dynamo"), POOLED)),
    "CLIPVisionModel": ({}, {}),
    "DINOv3ViTModel": (dict(num_register_tokens=4), dict.fromkeys(("script", "dynamo"), UNREAD)),
}
TIMM: dict[str, tuple[dict, dict[str, str]]] = {
    "ViT": ({}, {"state dict": AMBIGUOUS}),
    "ViT, quick GELU": ({"act_layer": "quick_gelu"}, {"state dict": AMBIGUOUS}),
    "ViT, SiLU": ({"act_layer": "silu"}, {"state dict": AMBIGUOUS}),
    "ViT, LayerScale and 4 registers": ({"init_values": 0.5, "reg_tokens": 4}, {"state dict": AMBIGUOUS}),
    "mean, LayerNorm behind it": ({"global_pool": "avg"}, {}),
    "mean, LayerNorm before it": ({"global_pool": "avg", "fc_norm": False}, {"state dict": AMBIGUOUS}),
    "mean, registers and no class token": (
        dict(global_pool="avg", fc_norm=False, class_token=False, reg_tokens=2),
        {},
    ),
    "SigLIP's pooling": (
        dict(global_pool="map", class_token=False),
        dict.fromkeys(("script", "dynamo"), POOLED),
    ),
    "CLIP": (
        dict(name="vit_base_patch32_clip_224"),
        {"state dict": AMBIGUOUS},
    ),
    "DINOv3": (
        dict(name="vit_small_patch16_dinov3"),
        {"state dict": "timm:NAME"} | dict.fromkeys(("script", "dynamo"), UNREAD),
    ),
    "DINOv3 S+": (
        dict(name="vit_small_plus_patch16_dinov3"),
        {"state dict": "timm:NAME"} | dict.fromkeys(("script", "dynamo"), UNREAD),
    ),
    "EVA-02": (
        dict(name="eva02_tiny_patch14_224"),
        {"state dict": "timm:NAME"} | dict.fromkeys(("script", "dynamo"), UNREAD),
    ),
    "DINOv2 giant": (
        dict(name="vit_giant_patch14_dinov2"),
        {"state dict": AMBIGUOUS} | dict.fromkeys(("script", "dynamo"), UNREAD),
    ),
}
FORMS = ("state dict", "folder", "script", "dynamo")


def logits(network: nn.Module) -> nn.Module:
    """The network's logits, or what follows its last LayerNorm."""
    pooled = type(network).__name__ in ("CLIPVisionModel", "SiglipVisionModel")
    return exports.Answer(
        network, *(("pooler_output",) if pooled else ("logits", "last_hidden_state"))
    ).eval()


def files(network: nn.Module, folder: Path, form: str) -> tuple[Path, dict]:
    """The network in one of `FORMS`, and options that the form needs."""
    heads = {"heads": 3, "image_size": 16}
    if form == "state dict":
        torch.save(network.state_dict(), folder / "a.pth")
        act = getattr(getattr(network, "config", None), "hidden_act", None)
        act = getattr(network, "arguments", {}).get("act_layer", act)
        return folder / "a.pth", heads | ({"act": act} if act in ACTIVATIONS else {})
    if form == "folder":
        if hasattr(network, "save_pretrained"):
            network.save_pretrained(folder)
        else:
            timm_folder(network, folder)
        return folder, {}
    exported = exports.export(logits(network), folder / "a.onnx", *ONNX[form])
    return exported, {}


ONNX = {"script": ("script open", 17), "dynamo": ("dynamo", 18)}


def timm_folder(network: nn.Module, folder: Path) -> None:
    """As timm writes it for a network that it made by name."""
    from safetensors.torch import save_file

    save_file(network.state_dict(), folder / "model.safetensors")
    config = {"architecture": network.architecture, "num_classes": 5, "model_args": network.arguments}
    (folder / "config.json").write_text(json.dumps(config))


NAME = "vit_tiny_patch16_224"


def timm_network(name: str = NAME, **options: object) -> nn.Module:
    arguments = dict(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5) | options
    network = randomise(timm.create_model(name, **arguments))
    network.architecture, network.arguments = name, arguments
    return network


def outcome(network: nn.Module, folder: Path, form: str, refusal: str | None) -> str:
    """The largest difference, relative to the peak, or "refused"; what is not expected is an error."""
    folder.mkdir()
    try:
        path, options = files(network, folder, form)
    except torch.onnx.errors.UnsupportedOperatorError:
        return "PyTorch cannot export it"
    told = ""
    try:
        model = import_model(path, **options).model
    except RowvitError as error:
        assert refusal is not None, f"{form}: {error}"
        assert re.search(refusal, str(error)), f"{form}: {error}"
        if refusal != AMBIGUOUS:
            return "refused"
        told, refusal = "norm-mean" if network.global_pool == "avg" else "token", None
        model = import_model(path, **options, pool=told).model
    assert refusal is None, f"{form} is not refused"
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = logits(network)(images)
        ours = model(images) if theirs.ndim == 2 else model.norm(model.encode(images))
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    assert difference < 2e-5, f"{form}: {difference:.1e}"
    return f"{difference:.0e}" + (f" with --pool {told}" if told else "")


def row(name: str, network: nn.Module, tmp_path: Path, refusals: dict[str, str]) -> None:
    cells: Iterator[str] = (
        outcome(network, tmp_path / form.replace(" ", "-"), form, refusals.get(form)) for form in FORMS
    )
    print(f"\n| {name} | {' | '.join(cells)} |")


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(tmp_path: Path, name: str) -> None:
    settings, refusals = TRANSFORMERS[name]
    row(f"transformers {name}", transformers_network(name, **settings), tmp_path, refusals)


@pytest.mark.parametrize("name", TIMM)
def test_timm(tmp_path: Path, name: str) -> None:
    options, refusals = TIMM[name]
    row(f"timm {name}", timm_network(**options), tmp_path, refusals)


def half(path: Path) -> Path:
    """Half precision with float32 inputs: its casts stand at the file's end."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    onnx.save(model, path.with_name("half.onnx"))
    return path.with_name("half.onnx")


def optimised(level: str) -> Callable[[Path], Path]:
    def change(path: Path) -> Path:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
        options.optimized_model_filepath, options.log_severity_level = str(path.with_name("o.onnx")), 3
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return path.with_name("o.onnx")

    return change


def fused(path: Path) -> Path:
    """Onnxruntime's optimiser for transformers, as optimum's O2 calls it."""
    from onnxruntime.transformers.optimizer import optimize_model

    optimize_model(str(path), "vit", num_heads=3, hidden_size=24).save_model_to_file(
        str(path.with_name("t.onnx"))
    )
    return path.with_name("t.onnx")


def integers(path: Path) -> Path:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(path, path.with_name("q.onnx"))
    return path.with_name("q.onnx")


def open_sizes(path: Path) -> Path:
    """As optimum exports: batch, channels, height and width are open, and config.json says the size."""
    import onnx

    model = onnx.load(path)
    for name, dim in zip("bchw", model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        dim.dim_param = name
    onnx.save(model, path.with_name("model.onnx"))
    path.with_name("config.json").write_text('{"image_size": 16}')
    return path.with_name("model.onnx")


@pytest.mark.parametrize(
    ("name", "change", "opset", "refusal"),
    [
        ("optimum's open sizes", open_sizes, 17, None),
        ("half precision, float32 inputs", half, 17, None),
        ("onnxruntime, basic", optimised("BASIC"), 17, None),
        ("onnxruntime, extended", optimised("EXTENDED"), 17, None),
        ("onnxruntime, extended, opset 14", optimised("EXTENDED"), 14, None),
        ("onnxruntime, all", optimised("ALL"), 17, None),
        ("onnxruntime's optimiser for transformers", fused, 17, None),
        ("quantised by onnxruntime", integers, 17, "is quantised already.*rowvit quantise"),
    ],
)
def test_onnx(tmp_path: Path, name: str, change: Callable, opset: int, refusal: str | None) -> None:
    network = transformers_network("ViTForImageClassification")
    path = change(exports.export(logits(network), tmp_path / "a.onnx", "script open", opset))
    if refusal:
        with pytest.raises(RowvitError, match=refusal):
            import_model(path)
        print(f"\n| {name} | refused |")
        return
    images = exports.images()
    with torch.no_grad():
        theirs = logits(network)(images)
        difference = float((import_model(path).model(images) - theirs).abs().max() / theirs.abs().max())
    print(f"\n| {name} | {difference:.0e} |")
    assert difference < (5e-3 if "half" in name else 2e-5)
