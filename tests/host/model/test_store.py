# SPDX-License-Identifier: Apache-2.0
"""Float networks on disk, and invalid configurations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rowvit.errors import RowvitError
from rowvit.formats import container
from rowvit.formats.package import ModelPackage

torch = pytest.importorskip("torch")

from rowvit.model import store  # noqa: E402
from rowvit.model.vit import VisionTransformer, ViTConfig  # noqa: E402

SMALL = dict(image_size=8, patch_size=4, dim=12, depth=2, heads=3, hidden=20, classes=2)


def network(**changes: object) -> VisionTransformer:
    """A network with random parameters."""
    model = VisionTransformer(ViTConfig(**(SMALL | changes)))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return model.eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "pruning": ({"layer": 0, "keep": 2},),
            "ffn2_rule": "tile",
            "tile_rows": 2,
            "thresholds": (0.0, 0.1),
        },
        {"prefix": 2, "distilled": True, "act": "gelu"},
        {"prefix": 0, "pool": "mean", "eps": 1e-12, "act": "gelu_tanh"},
        {"classes": 0, "prefix": 5},
    ],
)
@torch.no_grad()
def test_round_trip(tmp_path: Path, changes: dict) -> None:
    model = network(**changes)
    names = ["cat", "dog"][: model.config.classes]
    card = store.Card(
        "small", names, std=[0.1, 0.2, 0.3], licence="MIT", accuracy={"set": "none"}, history=["made"]
    )
    store.save(tmp_path / "a.safetensors", model, card)
    read, card_read = store.load(tmp_path / "a.safetensors")
    assert read.config == model.config and card_read == card and not read.training
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(read(images), model(images))
    store.save(tmp_path / "b.safetensors", read, card_read)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_what_is_not_written(tmp_path: Path) -> None:
    model = network()
    with pytest.raises(RowvitError, match="3 class names for 2 classes"):
        store.save(tmp_path / "a", model, store.Card("small", list("abc")))
    for value in (float("nan"), float("inf")):
        model.blocks[1].mlp.fc1.weight.data[3, 4] = value
        with pytest.raises(RowvitError, match=r"'blocks\.1\.mlp\.fc1\.weight' holds NaN"):
            store.save(tmp_path / "a", model, store.Card("small", list("ab")))
    assert not (tmp_path / "a").exists()


def test_what_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    store.save(path, network(), store.Card("small", ["a", "b"]))
    tensors, metadata = container.read(path)
    good = json.loads(metadata[store.KEY])

    def refused(message: str, description: object = good, **changes: object) -> None:
        container.write(path, tensors | changes, {store.KEY: json.dumps(description)})
        with pytest.raises(RowvitError, match=rf"odd\.safetensors.*{message}"):
            store.load(path)

    refused("description is not readable", [])
    refused("description is not readable", {})
    refused("description is not readable", {"format": 1, "config": 3, "card": {}})
    refused("description is not readable", good | {"card": {"colour": "red"}})
    refused("description is not readable", good | {"config": good["config"] | {"colour": "red"}})
    refused("5 heads do not divide the width 12", good | {"config": good["config"] | {"heads": 5}})
    refused("heads is 3.0, no whole number", good | {"config": good["config"] | {"heads": 3.0}})
    refused("thresholds are not", good | {"config": good["config"] | {"thresholds": [0.1]}})
    for card, message in (
        ({"mean": [0.5, 0.5]}, r"mean \[0.5, 0.5\] is not that of three channels"),
        ({"std": [0.5, 0.0, 0.5]}, "std .* is not that of three channels"),
        ({"mean": "grey"}, "mean grey is not"),
        ({"resize": "lanczos"}, "no way to resize is 'lanczos'; use bicubic or bilinear"),
        ({"crop": 2.0}, "crop 2.0 is not a share"),
    ):
        refused(message, good | {"card": good["card"] | card})
    refused("format 7", good | {"format": 7})
    refused(r"lacks 'blocks\.2", good | {"config": good["config"] | {"depth": 3}})
    refused("'pos_embed' has shape", pos_embed=np.zeros((1, 6, 12), np.float32))
    refused("'pos_embed' holds NaN", pos_embed=np.full((1, 5, 12), np.nan, np.float32))
    refused("has 'more'", more=np.zeros(1, np.float32))
    container.write(path, tensors, {})
    with pytest.raises(RowvitError, match="rowvit import"):
        store.load(path)
    with pytest.raises(RowvitError, match=r"sign-digits: no such file; .* rowvit import.* in int8"):
        store.load("sign-digits")
    with pytest.raises(RowvitError, match="rowvit quantise"):
        ModelPackage.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 9}, "patch of 4 does not divide the image of 9"),
        ({"heads": 5}, "5 heads do not divide the width 12"),
        ({"depth": 0}, "depth is 0"),
        ({"classes": -1}, "classes is -1"),
        ({"act": "swish"}, "'swish' is not one of relu, gelu"),
        ({"pool": "max"}, "'max' is not one of token"),
        ({"prefix": 0}, "no class token for the head"),
        ({"prefix": 0, "pool": "mean", "pruning": ({"layer": 0, "keep": 1},)}, "whose attention"),
        ({"distilled": True}, "two heads"),
        ({"dim": 12.0}, "dim is 12.0, no whole number"),
        ({"depth": True}, "depth is True, no whole number"),
        ({"eps": 0.0}, "eps is 0.0"),
        ({"eps": "small"}, "eps is small"),
        ({"pruning": ({"layer": 0},)}, "pruning is not a list of layers"),
        ({"pruning": ({"layer": 0, "keep": -1},)}, "pruning is not a list of layers"),
        ({"pruning": ({"layer": 7, "keep": 1},)}, "pruning is not a list of layers"),
        ({"pruning": ({"layer": 1, "keep": 2}, {"layer": 0, "keep": 1})}, "pruning is not a list of layers"),
        ({"pruning": (3,)}, "pruning is not a list of layers"),
        ({"thresholds": (0.1,)}, "thresholds are not a number for each of 2 layers"),
        ({"thresholds": ("a", "b")}, "thresholds are not a number"),
    ],
)
def test_contradictions_are_named(changes: dict, message: str) -> None:
    with pytest.raises(RowvitError, match=message):
        ViTConfig(**(SMALL | changes))


@torch.no_grad()
def test_pruning_keeps_the_tokens_that_heads_read() -> None:
    """Two heads, or the mean of patches, need the prefix in place; registers compete with patches."""
    images = torch.randn(3, 3, 8, 8)
    pruning = ({"layer": 0, "keep": 2},)
    for changes, kept in (
        ({"prefix": 2, "distilled": True}, [0, 1]),
        ({"prefix": 3, "pool": "mean"}, [0, 1, 2]),
        ({"prefix": 3}, [0]),
    ):
        model = network(pruning=pruning, **changes)
        model(images)
        assert model.tokens.shape == (3, len(kept) + 2)
        assert all(row[: len(kept)].tolist() == kept for row in model.tokens)
