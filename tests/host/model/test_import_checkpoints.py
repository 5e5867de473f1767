# SPDX-License-Identifier: Apache-2.0
"""What training scripts and libraries save: folders, containers, prefixes; logits equal the original's."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rowvit.errors import RowvitError

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import exports  # noqa: E402
from networks import randomise  # noqa: E402
from rowvit.model.importers import import_model  # noqa: E402

SMALL = dict(img_size=32, depth=1, num_classes=4)


def equal(found: Any, network: nn.Module) -> bool:
    """Whether the logits are those of the original, for random images of its size."""
    side = found.model.config.image_size
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return torch.allclose(found.model(images), network(images), atol=3e-5)


def timm_folder(path: Path, name: str, settings: Mapping[str, Any], **options: Any) -> nn.Module:
    """A network of timm's, and a folder as timm writes it, with what ``settings`` change."""
    network = randomise(timm.create_model(name, **SMALL | options))
    path.mkdir()
    save_file(network.state_dict(), path / "model.safetensors")
    pixels = dict(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], interpolation="bilinear", crop_pct=0.8)
    config = {
        "architecture": name,
        "num_classes": 4,
        "global_pool": "token",
        "label_names": ["ant", "bee", "cat", "dog"],
        "model_args": {"img_size": [32, 32], "depth": 1, "num_classes": 4} | options,
        "pretrained_cfg": pixels | {"license": "mit", "input_size": [3, 32, 32]},
    }
    (path / "config.json").write_text(json.dumps(config | dict(settings)))
    return network


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {}),
        ({"global_pool": "avg", "fc_norm": False}, {}),
        ({"global_pool": "avg", "reg_tokens": 2, "class_token": False, "fc_norm": False}, {}),
        # older versions write the pooling beside the arguments, and not where the LayerNorm is
        (
            {"global_pool": "avg", "fc_norm": False},
            {"model_args": {"img_size": 32, "depth": 1}, "global_pool": "avg"},
        ),
        ({}, {"label_names": {"0": "ant", "1": "bee", "2": "cat", "3": "dog"}}),
    ],
)
def test_timm_folder(tmp_path: Path, options: dict, settings: dict) -> None:
    """Preprocessing, class names, arguments and pooling of the ``config.json``."""
    network = timm_folder(tmp_path / "net", "vit_tiny_patch16_224", settings, **options)
    found = import_model(tmp_path / "net")
    assert equal(found, network)
    card = found.card
    assert card.mean == [0.1, 0.2, 0.3] and card.std == [0.4, 0.5, 0.6]
    assert (card.resize, card.crop, card.licence) == ("bilinear", 0.8, "mit")
    assert card.classes == ["ant", "bee", "cat", "dog"]
    if not options and not settings:
        found = import_model(tmp_path / "net" / "model.safetensors", classes=7)
        assert found.card.crop == 1 and found.card.mean == card.mean  # the head is yet to be trained
        assert import_model(tmp_path / "net", encoder=True).card.crop == 0.8  # and there will be none


def test_timm_crop_is_timms(tmp_path: Path) -> None:
    """The middle of a photo that timm's own evaluation takes."""
    import numpy as np
    from PIL import Image
    from timm.data import create_transform

    from rowvit.images import decode

    noise = np.random.default_rng(3).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((240, 180), Image.BICUBIC)
    photo.save(tmp_path / "a.png")
    transform = create_transform(
        (3, 72, 72), interpolation="bicubic", crop_pct=0.8, mean=[0] * 3, std=[1] * 3
    )
    theirs = (transform(photo).permute(1, 2, 0).numpy() * 255).round()
    ours = decode(tmp_path / "a.png", 72, "bicubic", 0.8)
    assert np.abs(ours - theirs).mean() < 2  # they scale before they crop
    assert np.abs(decode(tmp_path / "a.png", 72) - theirs).mean() > 10


def test_names_of_transformers_5(tmp_path: Path) -> None:
    """What ``state_dict()`` gives since version 5; ``save_pretrained`` still writes the older names."""
    network = exports.HuggingFaceNetwork()
    new = {
        ".encoder.layer.": ".layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    state = {}
    for name, tensor in network.state_dict().items():
        for old, now in new.items():
            name = name.replace(old, now)
        state[name] = tensor
    torch.save(state, tmp_path / "a.pth")
    assert equal(import_model(tmp_path / "a.pth", heads=3), network)


CONTAINERS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "model_state_dict": lambda s: {"epoch": 3, "model_state_dict": s, "optimizer_state_dict": {"state": {}}},
    "ema": lambda s: {"state_dict_ema": s},
    "moving average": lambda s: {"n_averaged": torch.tensor(3)} | {f"module.{k}": v for k, v in s.items()},
    "namespace": lambda s: {"model": s, "args": argparse.Namespace(lr=0.1, data=Path("/data"), seed=None)},
    "lightning": lambda s: {"state_dict": {f"model.{n}": t for n, t in s.items()}, "loops": {}},
    "compiled": lambda s: {f"_orig_mod.module.{n}": t for n, t in s.items()},
    "teacher": lambda s: {"teacher": {f"backbone.{n}": t for n, t in s.items()}},
}


@pytest.mark.parametrize("how", CONTAINERS)
def test_containers_and_prefixes(tmp_path: Path, how: str) -> None:
    network = exports.timm_network()
    torch.save(CONTAINERS[how](network.state_dict()), tmp_path / "a.ckpt")
    assert equal(import_model(tmp_path / "a.ckpt", heads=3, pool="token"), network)


def test_head_beside_a_prefixed_encoder(tmp_path: Path) -> None:
    """Lightning around transformers: the encoder's prefix is longer than the head's."""
    network = exports.HuggingFaceNetwork()
    state = {f"net.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    assert equal(import_model(tmp_path / "a.ckpt", heads=3), network)
    torch.save(state | {"loss.weight": torch.ones(4)}, tmp_path / "a.ckpt")
    with pytest.raises(RowvitError, match=r"'loss\.weight', which this network has no place for.*--encoder"):
        import_model(tmp_path / "a.ckpt", heads=3)
    found = import_model(tmp_path / "a.ckpt", heads=3, encoder=True)
    assert found.model.config.classes == 0 and "left out: head, loss" in found.notes


def test_one_of_several_networks_is_named(tmp_path: Path) -> None:
    network, other = exports.timm_network(), randomise(exports.timm_network(), seed=8)
    torch.save({"model": other.state_dict(), "model_ema": network.state_dict()}, tmp_path / "a.pth")
    with pytest.raises(RowvitError, match=r"holds 2 networks: 'model', 'model_ema'; name one .*--part"):
        import_model(tmp_path / "a.pth", heads=3, pool="token")
    with pytest.raises(RowvitError, match=r"has no network 'ema', but: 'model', 'model_ema'"):
        import_model(tmp_path / "a.pth", heads=3, pool="token", part="ema")
    assert equal(import_model(tmp_path / "a.pth", heads=3, pool="token", part="model_ema"), network)
    both = {f"student.{n}": t for n, t in other.state_dict().items()}
    both |= {f"teacher.{n}": t for n, t in network.state_dict().items()}
    torch.save(both, tmp_path / "a.pth")
    assert equal(import_model(tmp_path / "a.pth", heads=3, pool="token", part="teacher"), network)


def test_architecture_that_a_checkpoint_names(tmp_path: Path) -> None:
    """As timm's and DeiT's training scripts write it; it decides heads, activation and pooling."""
    network, path = exports.timm_network(), tmp_path / "a.pth"
    for name in ({"arch": "rowvit_test_network"}, {"args": argparse.Namespace(model="rowvit_test_network")}):
        torch.save({"state_dict": network.state_dict(), **name}, path)
        found = import_model(path)
        assert found.model.config.heads == 3 and equal(found, network)
        assert "the checkpoint names timm's rowvit_test_network" in found.notes
    torch.save({"state_dict": exports.timm_network(depth=3).state_dict(), **name}, path)
    with pytest.raises(RowvitError, match="fits two networks"):  # the name is wrong
        import_model(path)
    found = import_model(path, pool="token")
    assert found.model.config.depth == 3


class Secret:
    """A class that PyTorch does not open safely."""


def test_what_is_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(exports.timm_network(), path)
    with pytest.raises(RowvitError, match=r"objects of .*timm\..*which could run any code.*state_dict\(\)"):
        import_model(path)
    torch.save({"model": exports.timm_network().state_dict(), "args": Secret()}, path)
    with pytest.raises(RowvitError, match=r"objects of .*Secret"):
        import_model(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(RowvitError, match="holds no state dict"):
        import_model(path)
    torch.save(nn.Conv2d(3, 4, 4).state_dict(), path)
    with pytest.raises(RowvitError, match=r"the state dict lacks 'patch_embed\.proj\.weight'"):
        import_model(path)
    script = torch.jit.trace(exports.timm_network(), exports.images(1))
    script.save(str(path))
    assert equal(import_model(path, heads=3, pool="token"), exports.timm_network())
    with pytest.raises(RowvitError, match="holds none of model"):
        import_model(tmp_path)


def with_registers_of_dinov2(network: nn.Module) -> dict[str, Tensor]:
    """DINOv2's own repository: other name, and no positions for the registers."""
    state = dict(network.state_dict())
    state["register_tokens"] = state.pop("reg_token")
    return state | {"mask_token": torch.zeros(1, 24)}


def test_dinov2_hub(tmp_path: Path) -> None:
    """The registers have no positions; the class token has."""
    network = exports.timm_network(reg_tokens=4, num_classes=0, init_values=0.5)
    state = with_registers_of_dinov2(network)
    place = state["pos_embed"].clone()
    state["pos_embed"] = torch.cat([place[:, :1], place[:, 5:]], dim=1)
    with torch.no_grad():
        network.pos_embed[:, 1:5] = 0
    torch.save(state, tmp_path / "a.pth")
    found = import_model(tmp_path / "a.pth", heads=3)
    assert equal(found, network) and any("class token assumed" in note for note in found.notes)


def test_head_on_token_and_mean(tmp_path: Path) -> None:
    """Dinov2ForImageClassification, by the width of its head."""
    network = exports.HuggingFaceNetwork()
    state = dict(network.state_dict()) | {"classifier.weight": torch.randn(5, 48)}
    torch.save(state, tmp_path / "a.pth")
    found = import_model(tmp_path / "a.pth", heads=3).model
    assert found.config.pool == "class-mean"
    images = torch.randn(2, 3, found.config.image_size, found.config.image_size)
    tokens = found.norm(found.encode(images))
    seen = torch.cat([tokens[:, 0], tokens[:, found.config.prefix :].mean(dim=1)], dim=1)
    expected = seen @ state["classifier.weight"].T + state["classifier.bias"]
    torch.testing.assert_close(found(images), expected)
    assert import_model(tmp_path / "a.pth", heads=3, classes=6).model.config.classes == 6
