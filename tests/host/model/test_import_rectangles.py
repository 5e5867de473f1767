# SPDX-License-Identifier: Apache-2.0
"""Networks for rectangular images, in every form: outputs equal the original's; and options for sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rowvit.errors import RowvitError

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

import exports  # noqa: E402
from exports import Answer, export, timm_network  # noqa: E402
from networks import randomise  # noqa: E402
from rowvit.cli import app  # noqa: E402
from rowvit.model import store  # noqa: E402
from rowvit.model.importers import import_model  # noqa: E402
from rowvit.model.vit import normalise  # noqa: E402

SIZE = (12, 28)  # 21 patches of 4 x 4


def images(size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def same(found: Any, network: nn.Module, size: tuple[int, int] = SIZE) -> bool:
    """Whether the network takes this size, and its output for random images is the original's."""
    theirs = network(images(size))
    theirs = getattr(theirs, "logits", theirs)
    fits = found.model.config.size == size
    return fits and torch.allclose(found.model(images(size)), theirs, rtol=1e-4, atol=1e-4)


NETWORKS = {
    "class token": {},
    "registers without positions": dict(reg_tokens=3, no_embed_class=True),
    "mean, no class token": dict(global_pool="avg", fc_norm=False, class_token=False),
}


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_state_dict(tmp_path: Path, options: dict) -> None:
    """Its size decides; without it, or with one that is another number of patches, it is asked for."""
    network = timm_network(img_size=SIZE, **options)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    told = dict(heads=3, pool="norm-mean" if "global_pool" in options else "token")
    found = import_model(tmp_path / "a.pth", image_size=SIZE, **told)
    assert same(found, network) and found.model.config.grid == (3, 7)
    assert "positions taken for those of 12 x 28 pixels, as --image-size says" in found.notes
    for size in (None, 16, (16, 32)):
        with pytest.raises(RowvitError, match=r"no square grid of patches; pass the size .*HEIGHTxWIDTH"):
            import_model(tmp_path / "a.pth", image_size=size, **told)


def test_positions_that_fit_a_square_too(tmp_path: Path) -> None:
    """Of 36 patches: 6 x 6, unless the size says that they are 4 x 9; for any other they are interpolated."""
    for own in ((24, 24), (16, 36)):
        network = timm_network(img_size=own)
        torch.save(network.state_dict(), tmp_path / "a.pth")
        found = import_model(tmp_path / "a.pth", heads=3, pool="token", image_size=own)
        assert same(found, network, own)
    found = import_model(tmp_path / "a.pth", heads=3, pool="token", image_size=(16, 32))
    assert "positions interpolated from 24 to 16 x 32 pixels, as timm does" in found.notes


def test_timm_folder_and_weights_by_name(tmp_path: Path) -> None:
    """By the folder's arguments; where they do not say, and for bare weights, by the size that is passed."""
    network = timm_network(img_size=SIZE)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    weights = tmp_path / "weights.pth"
    torch.save(network.state_dict(), weights)
    assert same(import_model("timm:rowvit_test_network", weights=weights, image_size=SIZE), network)
    for arguments, told in (({"img_size": [*SIZE]}, {}), ({}, {"image_size": SIZE})):
        config = {"architecture": "rowvit_test_network", "num_classes": 5, "model_args": arguments}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert same(import_model(tmp_path, **told), network)


def test_as_many_patches_as_the_square(tmp_path: Path) -> None:
    """288 x 512 pixels have as many as 384 x 384, and other positions: they are interpolated all the same."""
    import timm

    network = randomise(timm.create_model("vit_tiny_patch16_384", num_classes=3, depth=1))
    twin = timm.create_model("vit_tiny_patch16_384", num_classes=3, depth=1, img_size=(288, 512))
    state = network.state_dict()
    state["pos_embed"] = resampled(state["pos_embed"], (18, 32))
    twin.load_state_dict(state)
    arguments = {"architecture": "vit_tiny_patch16_384", "num_classes": 3, "model_args": {"depth": 1}}
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(arguments))
    found = import_model(tmp_path, image_size=(288, 512))
    assert same(found, twin.eval(), (288, 512))
    assert "positions interpolated from 384 to 288 x 512 pixels, as timm does" in found.notes
    assert same(import_model(tmp_path), network.eval(), (384, 384))


def test_weights_for_another_square(tmp_path: Path) -> None:
    """Of a name whose own images are larger: the size that is passed is theirs."""
    import timm

    network = randomise(timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=64))
    torch.save(network.state_dict(), tmp_path / "a.pth")
    torch.save(
        {"state_dict": network.state_dict(), "state_dict_ema": network.state_dict()}, tmp_path / "b.pth"
    )
    for file, part in (("a.pth", None), ("b.pth", "state_dict_ema")):
        name = "timm:vit_tiny_patch16_224"
        found = import_model(name, weights=tmp_path / file, image_size=64, part=part)
        assert same(found, network.eval(), (64, 64))
        with pytest.raises(RowvitError, match="do not fit"):
            import_model(name, weights=tmp_path / file, part=part)


def resampled(positions: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(positions, list(grid), num_prefix_tokens=1)


@torch.no_grad()
def test_interpolated_as_by_timm(tmp_path: Path) -> None:
    """Positions of a square to those of a rectangle, and back from a file of rowvit's."""
    from timm.layers import resample_abs_pos_embed

    network = timm_network()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    found = import_model(tmp_path / "a.pth", heads=3, pool="token", image_size=SIZE)
    twin, state = timm_network(img_size=SIZE), dict(network.state_dict())
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [3, 7], num_prefix_tokens=1)
    twin.load_state_dict(state)
    assert same(found, twin)
    store.save(tmp_path / "a.safetensors", found.model, found.card)
    assert same(import_model(tmp_path / "a.safetensors"), twin)
    assert import_model(tmp_path / "a.safetensors", image_size=16).model.config.size == (16, 16)
    with pytest.raises(RowvitError, match="patch of 4 does not divide the image of 12 x 30 pixels"):
        import_model(tmp_path / "a.safetensors", image_size=(12, 30))


@pytest.mark.parametrize("form", ["folder", "state dict", "ONNX"])
@pytest.mark.parametrize("size", [16, 40])
@pytest.mark.parametrize("kind", ["Dinov2Model", "Dinov2WithRegistersModel", "ViTModel"])
@torch.no_grad()
def test_interpolated_as_by_transformers(tmp_path: Path, kind: str, size: int, form: str) -> None:
    """Which antialiases in one of its networks alone."""
    transformers = pytest.importorskip("transformers")
    made = getattr(transformers, kind)
    shape = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96)
    network = randomise(made(made.config_class(image_size=32, patch_size=4, hidden_act="gelu", **shape)))
    network.eval().save_pretrained(tmp_path)
    source, told = tmp_path, {}
    if form == "state dict":
        (tmp_path / "config.json").unlink()
        source, told = tmp_path / "model.safetensors", {"heads": 3, "act": "gelu"}
    elif form == "ONNX":
        pytest.importorskip("onnx")
        (tmp_path / "model.safetensors").unlink()
        answer = Answer(network, "last_hidden_state")
        export(answer, tmp_path / "model.onnx", "dynamo", 18, torch.zeros(1, 3, 32, 32))
    found = import_model(source, image_size=size, encoder=True, **told)
    assert f"as {'timm' if 'Registers' in kind else 'transformers'} does" in " ".join(found.notes)
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    theirs = network(pixels, **({"interpolate_pos_encoding": True} if kind == "ViTModel" else {}))
    ours = found.model.norm(found.model.encode(pixels))
    torch.testing.assert_close(ours, theirs.last_hidden_state, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["folder", "state dict", "ONNX"])
def test_transformers(tmp_path: Path, form: str) -> None:
    """Its ``config.json`` says height and width, also beside ONNX with open sizes, as optimum writes it."""
    transformers = pytest.importorskip("transformers")
    shape = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40)
    config = transformers.ViTConfig(image_size=list(SIZE), patch_size=4, num_labels=5, **shape)
    network = randomise(transformers.ViTForImageClassification(config))
    if form == "state dict":
        torch.save(network.state_dict(), tmp_path / "a.pth")
        assert same(import_model(tmp_path / "a.pth", heads=3, image_size=SIZE), network)
        return
    network.save_pretrained(tmp_path)
    if form == "folder":
        assert same(import_model(tmp_path), network)
        return
    onnx = pytest.importorskip("onnx")
    (tmp_path / "model.safetensors").unlink()
    model = onnx.load(export(Answer(network, "logits"), tmp_path / "a.onnx", example=images()[:1]))
    for name, dim in zip("bchw", model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        dim.dim_param = name
    onnx.save(model, tmp_path / "model.onnx")
    assert same(import_model(tmp_path), network)


@pytest.mark.parametrize(("how", "opset"), [("script", 17), ("dynamo", 18)])
@torch.no_grad()
def test_onnx(tmp_path: Path, how: str, opset: int) -> None:
    """Of a fixed size, and with the preprocessing of photos in the graph."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    if how == "dynamo":
        pytest.importorskip("onnxscript")
    network = timm_network(img_size=SIZE)
    found = import_model(export(network, tmp_path / "a.onnx", how, opset, images()[:1]))
    assert same(found, network)
    if how == "dynamo":
        return
    photos = torch.randint(0, 256, (2, *SIZE, 3), dtype=torch.uint8)
    raw = exports.Raw(network)
    found = import_model(export(raw, tmp_path / "b.onnx", how, opset, photos[:1]))
    taken = normalise(photos.numpy(), found.card.mean, found.card.std)
    assert torch.allclose(found.model(taken), raw(photos), atol=1e-4)


def test_patches_that_are_no_squares_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = timm_network(img_size=(16, 32), patch_size=(4, 8))
    torch.save(network.state_dict(), tmp_path / "a.pth")
    with pytest.raises(RowvitError, match="patches are 4 x 8 pixels of 3 channels, expected squares"):
        import_model(tmp_path / "a.pth", pool="token", image_size=(16, 32))
    with pytest.raises(RowvitError, match="a grid of square patches"):
        import_model(export(network, tmp_path / "a.onnx", example=images((16, 32))[:1]))


def test_commands(tmp_path: Path) -> None:
    """Height and width, as ``info`` shows them; what is no size is told."""

    def rowvit(*arguments: object, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    out = tmp_path / "a.safetensors"
    source = "import", "timm:rowvit_test_network", "--random", "-o", out, "--image-size"
    assert "interpolated from 16 to 12 x 28 pixels" in rowvit(*source, "12x28").stdout
    assert store.load(out)[0].config.size == SIZE
    shown = rowvit("info", out).stdout
    assert "12 x 28 (height x width), patches of 4" in shown and "22 tokens" in shown
    rowvit(*source, "24")
    assert store.load(out)[0].config.size == (24, 24)
    for text in ("12x", "0x12", "12x28x3", "-4", "wide"):
        told = rowvit(*source, text, code=2).output.replace("\u2502", "")
        assert "is not a number of pixels, or two as in 224x320" in " ".join(told.split())
    fits = rowvit("fits", "timm:deit_tiny_patch16_224", "--image-size", "224x320", "--json", "-").stdout
    assert json.loads(fits)["configurations"]
