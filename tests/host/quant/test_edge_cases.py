# SPDX-License-Identifier: Apache-2.0
"""Networks and photos at the edge: float network, integer reference and RTL agree on them."""

from __future__ import annotations

import numpy as np
import pytest

import rowvit
from networks import randomise, smooth_photos
from rowvit.compiler import compile
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage, keep_schedule
from rowvit.hardware.config import load
from rowvit.quant.synthetic import random_package
from rowvit.reference import patchify, run

torch = pytest.importorskip("torch")

from rowvit.model.vit import VisionTransformer, ViTConfig, predict  # noqa: E402
from rowvit.quant.quantise import QuantOptions, quantise  # noqa: E402

PATCHES = 25


def network(seed: int = 0, **changes: object) -> VisionTransformer:
    """A random ReLU network that fits `tiny`, with activations near 1."""
    shape = dict(image_size=20, patch_size=4, dim=32, depth=2, heads=2, hidden=32, classes=4)
    return randomise(VisionTransformer(ViTConfig(**shape | changes)), seed)


def photos(count: int = 6) -> np.ndarray:
    return smooth_photos(count, 20, 20)


def package_of(model: VisionTransformer, calibration: np.ndarray | None = None) -> ModelPackage:
    names = [str(index) for index in range(model.config.classes)]
    options = QuantOptions(name="edge", classes=names, ffn_chunk=16)
    return quantise(model, photos() if calibration is None else calibration, options)


def agree(model: VisionTransformer, images: np.ndarray, noise: float = 0.05) -> list:
    """Results of the RTL, which equal the reference bit for bit, and the float network within ``noise``."""
    package = package_of(model)
    with rowvit.open("golden", config="tiny", checkpoints=True) as golden:
        golden.load(package)
        expected = golden(images)
    with rowvit.open("sim", config="tiny") as sim:
        sim.load(compile(package, load("tiny"), checkpoints=True))
        results = sim(images)
    assert all(result.same(want) for result, want in zip(results, expected, strict=True))
    exact = predict(model, images, [0.5] * 3, [0.5] * 3)
    logits = np.stack([result.logits for result in results]) * package.meta["scales"]["logit"]
    assert np.abs(logits - exact).max() <= noise * max(np.abs(exact).max(), 0.1)
    return results


def test_no_neuron_is_ever_active() -> None:
    """Nothing of W2 is fetched, and images still have classes."""
    shape = dict(image_size=20, patch_size=4, dim=32, depth=2, heads=2, hidden=32, classes=4)
    package = random_package(np.random.default_rng(0), **shape, columns=0.0)
    with rowvit.open("golden", config="tiny") as golden, rowvit.open("sim", config="tiny") as sim:
        golden.load(package)
        sim.load(package)
        (expected,), (found,) = golden(photos(1)), sim(photos(1))
    assert found.same(expected)
    assert run(package, patchify(photos(1), 4))[0].counts.w2_rows_fetched == 0


@torch.no_grad()
def test_all_tokens_equal() -> None:
    """Every score ties: the lowest indices stay."""
    model = network(pruning=tuple(keep_schedule(PATCHES, (0,), 0.5)))
    model.patch_embed.proj.weight.zero_()
    model.patch_embed.proj.bias.zero_()
    model.cls_token.zero_()
    model.pos_embed[:] = model.pos_embed[:, :1].clone()
    for result in agree(model, photos(2)):
        assert result.kept[0].tolist() == list(range(14))


@torch.no_grad()
def test_all_scalars_of_all_tokens_equal() -> None:
    """No variance anywhere before the first layer: LayerNorm gives its offset."""
    for value in (0.0, 0.7):
        model = network()
        model.patch_embed.proj.weight.zero_()
        model.patch_embed.proj.bias.zero_()
        model.cls_token.zero_()
        model.pos_embed.fill_(value)
        agree(model, photos(1))


@torch.no_grad()
def test_one_token_is_kept() -> None:
    model = network(pruning=({"layer": 0, "keep": 1},))
    images = photos(3)
    results = agree(model, images, noise=0.1)
    predict(model, images, [0.5] * 3, [0.5] * 3)
    assert [len(result.kept[0]) for result in results] == [2, 2, 2]
    assert [result.kept[0].tolist() for result in results] == model.tokens.tolist()


@torch.no_grad()
def test_no_token_is_kept_but_the_class_token() -> None:
    results = agree(network(pruning=({"layer": 1, "keep": 0},)), photos(2))
    assert [result.kept[0].tolist() for result in results] == [[0], [0]]


@torch.no_grad()
def test_rho_of_one_is_no_pruning() -> None:
    dense, pruned = network(), network(pruning=tuple(keep_schedule(PATCHES, (0, 1), 1.0)))
    images = photos(2)
    results = agree(pruned, images)
    assert all(len(kept) == PATCHES + 1 for result in results for kept in result.kept)
    for result, without in zip(results, agree(dense, images), strict=True):
        assert np.array_equal(result.logits, without.logits)


@pytest.mark.parametrize("rule", ["none", "image", "tile"])
@torch.no_grad()
def test_hidden_rows_all_zero(rule: str) -> None:
    """A layer whose FFN says nothing but its bias: no row of its W2 is fetched."""
    model = network()
    model.blocks[0].mlp.fc1.bias.fill_(-100.0)
    package = package_of(model)
    package.meta["ffn2_rule"] = rule
    images = photos(1)
    with rowvit.open("golden", config="tiny") as golden, rowvit.open("sim", config="tiny") as sim:
        golden.load(package)
        sim.load(package)
        (want,), (result,) = golden(images), sim(images)
    assert result.same(want) and result.w2_rows_fetched == want.w2_rows_fetched
    if rule == "none":
        assert result.w2_rows_fetched == result.w2_rows_total == 2 * model.config.hidden
    else:
        assert result.w2_rows_fetched <= result.w2_rows_total // 2
    agree(model, images)


@torch.no_grad()
def test_one_class() -> None:
    results = agree(network(classes=1), photos(2))
    assert all(result.logits.shape == (1,) and result.top1 == 0 for result in results)


@pytest.mark.parametrize("value", [0, 128, 255])
@torch.no_grad()
def test_constant_image(value: int) -> None:
    """Calibration has not seen the like of some: what is clipped there is allowed for."""
    agree(network(), np.full((1, 20, 20, 3), value, np.uint8), noise=0.15)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@torch.no_grad()
def test_weights_that_are_no_numbers(value: float) -> None:
    for name in ("blocks.1.mlp.fc2.weight", "pos_embed", "norm.bias"):
        model = network()
        model.get_parameter(name).view(-1)[3] = value
        with pytest.raises(RowvitError, match=f"'{name}' holds NaN or infinity"):
            package_of(model)


@torch.no_grad()
def test_calibration_on_one_photo_warns(caplog: pytest.LogCaptureFixture) -> None:
    package_of(network(), photos(2))
    assert not caplog.records
    package_of(network(), photos(1))
    assert "one photo" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act": "gelu"}, "activation is gelu"),
        ({"prefix": 2, "distilled": True}, "second head"),
        ({"classes": 0}, "no classifier head"),
    ],
)
def test_what_the_accelerator_does_not_run(change: dict, message: str) -> None:
    with pytest.raises(RowvitError, match=message):
        package_of(network(**change))


@torch.no_grad()
def test_prefix_of_several_tokens() -> None:
    """Registers, or a distillation token whose head is left out: they compete with the patches."""
    model = network(prefix=3, pruning=({"layer": 0, "keep": 6},))
    images = photos(3)
    results = agree(model, images)
    predict(model, images, [0.5] * 3, [0.5] * 3)
    for result, tokens in zip(results, model.tokens.tolist(), strict=True):
        kept = set(result.kept[0].tolist())
        assert len(kept) == 7 and 0 in kept and len(kept & set(tokens)) >= 6  # rounding may swap two scores
