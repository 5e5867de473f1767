# SPDX-License-Identifier: Apache-2.0
"""Calibration methods, smoothing, thresholds, and the table of noise."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from networks import snr
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage, patch_chunks
from rowvit.hardware.config import load
from rowvit.reference import patchify, run
from rowvit.targets.golden import Golden

torch = pytest.importorskip("torch")

import photos as sets  # noqa: E402

from rowvit.cli import app  # noqa: E402
from rowvit.model import store  # noqa: E402
from rowvit.model.vit import VisionTransformer, ViTConfig, normalise, predict  # noqa: E402
from rowvit.photos import open_data  # noqa: E402
from rowvit.quant.aware import activation_scales, quantisation_aware, round_through  # noqa: E402
from rowvit.quant.calibrate import ActivationStatistics, decibels  # noqa: E402
from rowvit.quant.noise import layer_noise  # noqa: E402
from rowvit.quant.quantise import QuantOptions, default_chunk, quantise  # noqa: E402
from rowvit.quant.smooth import centre_keys, smooth  # noqa: E402

CONFIG = ViTConfig(image_size=16, patch_size=4, dim=32, depth=3, heads=2, hidden=96, classes=3)
MEAN, STD = (0.5,) * 3, (0.5,) * 3
OPTIONS = QuantOptions(name="net", classes=list(sets.COLOURS), mean=MEAN, std=STD, ffn_chunk=96)


def network(config: ViTConfig = CONFIG, seed: int = 0) -> VisionTransformer:
    """Random weights at which every activation is near 1, with an outlier channel after each LayerNorm."""
    generator = torch.Generator().manual_seed(seed)
    model = VisionTransformer(config).eval()
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
        parameter.data = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
        if name.endswith("norm1.weight") or name.endswith("norm2.weight"):
            parameter.data = 1 + 0.2 * parameter.data
            parameter.data[3] = 30.0
    for block in model.blocks:
        block.attn.qkv.weight.data[:, 3] /= 30
        block.mlp.fc1.weight.data[:, 3] /= 30
    for angles in model.buffers():  # of rotary positions
        angles.copy_(torch.arange(4.0)[:, None] * torch.rand(angles.shape[1], generator=generator))
    return model


def pictures(count: int, seed: int = 4) -> np.ndarray:
    return np.stack(sets.labelled(count, seed)[0])


def logits(package: ModelPackage, images: np.ndarray) -> np.ndarray:
    found = run(package, patchify(images, 4))
    return np.stack([result.logits for result in found]) * package.meta["scales"]["logit"]


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([127, 255]), st.floats(0.1, 30))
def test_scales_by_method(seed: int, levels: int, spread: float) -> None:
    """Each method does what it says, and "mse" has no more error than the others."""
    values = np.random.default_rng(seed).standard_t(3, 4000) * spread
    statistics = ActivationStatistics()
    statistics.observe("x", torch.from_numpy(values.reshape(1, 40, 100)).float())
    sampled = statistics.samples["x"][0].astype(np.float64)
    top = np.abs(values.astype(np.float32)).max()
    units = {m: statistics.scale("x", levels, m, 99.0) for m in ("mse", "percentile", "max")}
    assert units["max"] == pytest.approx(top / levels)
    assert np.mean(sampled <= units["percentile"] * levels * (1 + 1e-9)) >= 0.99
    assert np.mean(sampled < units["percentile"] * levels * 0.999) <= 0.99

    def error(unit: float) -> float:
        return np.square(np.clip(np.round(sampled / unit), 0, levels) * unit - sampled).sum()

    assert error(units["mse"]) <= min(error(units["max"]), error(units["percentile"]) * 1.05)
    assert np.array_equal(
        statistics.channels["x"], np.abs(values.astype(np.float32)).reshape(40, 100).max(axis=0)
    )


@torch.no_grad()
@settings(max_examples=15)
@given(
    st.integers(0, 1000),
    st.floats(0, 1),
    st.sets(st.sampled_from(["norm", "value", "hidden"]), min_size=1),
    st.booleans(),
    st.booleans(),
)
def test_smoothing_changes_no_result(
    seed: int, strength: float, places: set, dead: bool, gated: bool
) -> None:
    model = network(replace(CONFIG, depth=2, gated=gated), seed)
    if dead:  # channels of all zero weights or activations
        model.blocks[0].mlp.fc1.weight[:5] = 0
        model.blocks[0].mlp.fc1.bias[:5] = -1
        model.blocks[1].attn.qkv.weight[:, 7] = 0
    images = pictures(6)
    before = predict(model, images, MEAN, STD)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evened = smooth(model, MEAN, STD, images, strength, tuple(places))
    assert np.allclose(predict(evened, images, MEAN, STD), before, atol=1e-3 * np.abs(before).max())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("count", [1, 40])
def test_rare_great_activations_are_always_seen(count: int) -> None:
    """A few activations in a million, ten times larger than the others, count in the scale."""
    values = torch.rand(8, 256, 512, generator=torch.Generator().manual_seed(0))
    values[3, 17, :count] = 10.0
    statistics = ActivationStatistics()
    statistics.observe("x", values)
    assert all(part.base is None for part in statistics.samples["x"])  # none keeps a whole activation alive
    magnitudes, weights = statistics.magnitudes("x")
    assert (magnitudes == 10).sum() == count and weights.sum() == pytest.approx(values.numel(), rel=1e-6)
    assert len(magnitudes) < values.numel() / 10

    def error(unit: float) -> float:
        return float(((values / unit).round().clamp(max=127) * unit - values).square().sum())

    least = min(error(unit) for unit in 10 / 127 * np.geomspace(0.2, 1, 30))
    assert error(statistics.scale("x", 127)) < 1.02 * least
    assert statistics.noise("x", 0.02, 127) == pytest.approx(
        decibels(float(values.square().sum()), error(0.02)), abs=0.1
    )


@torch.no_grad()
def test_centred_keys_change_no_result_and_keep_the_logits_in_range() -> None:
    """Keys with a large common part: the attention logits would be clipped at 44."""
    model, images, unseen = network(), pictures(40), pictures(30, seed=9)
    dim = CONFIG.dim
    for block in model.blocks:
        block.attn.qkv.bias[:dim] += 6
        block.attn.qkv.bias[dim : 2 * dim] += 6
    exact = predict(model, unseen, MEAN, STD)
    centred = centre_keys(model, MEAN, STD, images)
    assert np.allclose(predict(centred, unseen, MEAN, STD), exact, atol=1e-4 * np.abs(exact).max())
    keys = []
    predict(
        centred, images, MEAN, STD, len(images), lambda n, v: keys.append(v) if n.endswith(".k") else None
    )
    assert all(k.mean(dim=(0, 2)).abs().max() < 1e-4 for k in keys) and len(keys) == CONFIG.depth
    before, after = (snr(exact, logits(quantise(m, images, OPTIONS), unseen)) for m in (model, centred))
    assert after > before + 5


def test_smoothing_helps_where_a_channel_stands_out() -> None:
    model, images, unseen = network(), pictures(40), pictures(30, seed=9)
    exact = predict(model, unseen, MEAN, STD)
    plain = quantise(model, images, OPTIONS)
    evened = quantise(smooth(model, MEAN, STD, images, 0.5), images, OPTIONS)
    assert snr(exact, logits(evened, unseen)) > snr(exact, logits(plain, unseen)) + 3


def test_powers_of_two_cost_little() -> None:
    model, images = network(), pictures(40)
    package = quantise(model, images, replace(OPTIONS, power_of_two=True))
    for name, tensor in package.tensors.items():
        if name.endswith(".mult"):
            values = tensor[tensor > 0].astype(np.int64)
            assert (values & (values - 1) == 0).all(), name
    exact = predict(model, images, MEAN, STD)
    free = snr(exact, logits(quantise(model, images, OPTIONS), images))
    assert free - 6 < snr(exact, logits(package, images)) < free + 3


def test_thresholds_of_the_network_go_into_the_package() -> None:
    model = network(replace(CONFIG, thresholds=(0.0, 0.3, 1e6)))
    package = quantise(model, pictures(20), OPTIONS)
    units = [package.meta["scales"][f"layers.{i}.hidden"] for i in range(3)]
    found = [layer["thr"] for layer in package.meta["params"]["layers"]]
    assert found == [1, max(1, int(np.ceil(0.3 / units[1]))), 255]


@torch.no_grad()
@pytest.mark.parametrize("parts", [{}, {"rotary": True}, {"gated": True}])
def test_aware_network_rounds_as_its_package(parts: dict) -> None:
    """Its logits are closer to the package's than the float network's are; afterwards it is as before."""
    model, images, unseen = network(replace(CONFIG, **parts)), pictures(40), pictures(30, seed=9)
    package = quantise(model, images, OPTIONS)
    exact, integers = predict(model, unseen, MEAN, STD), logits(package, unseen)
    scales = activation_scales(model, MEAN, STD, images)
    assert scales == {name: pytest.approx(package.meta["scales"][name]) for name in scales}
    with quantisation_aware(model, scales):
        aware = predict(model, unseen, MEAN, STD)
    assert snr(integers, aware) > snr(integers, exact) + 3
    assert np.array_equal(predict(model, unseen, MEAN, STD), exact)


@torch.no_grad()
@pytest.mark.parametrize("pool", ["norm-mean", "class-mean", "attention"])
def test_a_head_in_float_is_not_rounded(pool: str) -> None:
    """That of a host; its package says so, too."""
    model, images = network(replace(CONFIG, pool=pool, prefix=int(pool == "class-mean"))), pictures(40)
    scales = activation_scales(model, MEAN, STD, images)
    assert "norm" not in scales and "norm" not in quantise(model, images, OPTIONS).meta["scales"]
    features = torch.randn(5, model.config.seen)
    exact = model.head(features)
    with quantisation_aware(model, scales):
        assert torch.equal(model.head(features), exact)
        assert not torch.equal(model.blocks[0].mlp.fc1(features[:, :32]), exact)


@torch.no_grad()
@pytest.mark.parametrize("pool", ["norm-mean", "class-mean"])
def test_patches_that_are_all_dropped(pool: str) -> None:
    """Of none the mean is 0, for the float network as for the integers."""
    config = replace(CONFIG, pool=pool, prefix=1, pruning=({"layer": 1, "keep": 0},))
    model, images = network(config), pictures(20)
    exact = predict(model, images, MEAN, STD)
    golden = Golden(load("tiny"))
    golden.load(quantise(model, images, OPTIONS))
    found = np.stack([result.logits for result in golden(images)])
    assert np.isfinite(exact).all() and np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


@torch.no_grad()
@pytest.mark.parametrize("unit", [0.01, 0.0237, 0.31])
def test_neighbouring_levels_stay_apart_in_bfloat16(unit: float) -> None:
    """bfloat16 has 8 significant bits: 255 and 254 units would be equal if they were not integers."""
    model = network()
    fc2, scales = model.blocks[1].mlp.fc2, activation_scales(model, MEAN, STD, pictures(4))
    scales["layers.1.hidden"] = unit
    fc2.weight.zero_()
    fc2.weight[0, :2] = torch.tensor([0.3, -0.3])
    fc2.bias.zero_()
    levels = torch.arange(1, 256.0)
    hidden = torch.zeros(255, CONFIG.hidden)
    hidden[:, 0], hidden[:, 1] = levels * unit, (levels - 1) * unit
    with quantisation_aware(model, scales), torch.autocast("cpu", torch.bfloat16):
        differences = fc2(hidden)[:, 0]
    assert torch.allclose(differences, torch.full((255,), 0.3 * unit), rtol=0.01)


def test_gradient_passes_where_nothing_is_clipped() -> None:
    x = torch.tensor([-20.0, -0.6, 0.2, 3.3, 30.0], requires_grad=True)
    y = round_through(x, 0.5, -20, 20) * 0.5
    assert y.tolist() == [-10.0, -0.5, 0.0, 3.5, 10.0]
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_aware_training_recovers_accuracy() -> None:
    """Training towards the float network's outputs brings the package's closer to them."""
    model, images = network(), pictures(60)
    target = torch.from_numpy(predict(model, images, MEAN, STD))
    before = snr(target.numpy(), logits(quantise(model, images, OPTIONS), images))
    scales = activation_scales(model, MEAN, STD, images)
    optimizer = torch.optim.Adam(model.parameters(), 3e-4)
    inputs = normalise(images, MEAN, STD)
    with quantisation_aware(model, scales):
        for _ in range(80):
            loss = (model(inputs) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert snr(target.numpy(), logits(quantise(model, images, OPTIONS), images)) > before + 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "median"}, "'median' is not one of mse, percentile, max"),
        ({"percentile": 0.0}, "percentile 0 is not"),
        ({"threshold_energy": 1.0}, "threshold energy 1 is not"),
    ],
)
def test_options_out_of_range(change: dict, message: str) -> None:
    with pytest.raises(RowvitError, match=message):
        replace(OPTIONS, **change)


def test_method_max_clips_nothing() -> None:
    """Attention's output, too, whose unit is that of V by a power of two."""
    model, images = network(), pictures(40)
    statistics = ActivationStatistics()
    predict(model, images, MEAN, STD, observe=statistics.observe)
    scales = quantise(model, images, replace(OPTIONS, method="max")).meta["scales"]
    for name in (f"layers.{layer}.{part}" for layer in range(3) for part in ("q", "k", "v", "o")):
        assert scales[name] * 127.5 >= statistics.peak[name], name


def test_what_only_a_head_on_the_core_can_do() -> None:
    """Its tokens alone are a class token's: a head on the host sees all of them."""
    model = network(replace(CONFIG, pool="norm-mean", prefix=0))
    with pytest.raises(RowvitError, match="head, which the host computes, sees all tokens"):
        quantise(model, pictures(10), replace(OPTIONS, tokens="class"))


def test_a_head_of_zeros() -> None:
    model = network()
    model.head.weight.data[:] = 0
    model.head.bias.data[:] = 0
    images = pictures(10)
    assert not logits(quantise(model, images, OPTIONS), images).any()


def test_hidden_channels_with_thresholds_are_not_smoothed() -> None:
    model = network(replace(CONFIG, thresholds=(0.0, 0.3, 0.0)))
    with pytest.raises(RowvitError, match="thresholds are of hidden activations as they are"):
        smooth(model, MEAN, STD, pictures(10), 0.5, ("norm", "hidden"))
    smooth(model, MEAN, STD, pictures(10), 0.5)


def test_options_that_would_do_nothing(tmp_path: Path) -> None:
    store.save(tmp_path / "in.safetensors", network(CONFIG), store.Card("net", list(sets.COLOURS)))
    line = ["quantise", str(tmp_path / "in.safetensors"), "--data", str(sets.archive(tmp_path / "a.npz"))]
    line += ["-o", str(tmp_path / "out.safetensors")]
    for more, said in (
        (["--rule", "image", "--tile-rows", "8"], "--tile-rows is for rule tile, not for image"),
        (["--ffn-chunk", "0"], "should be greater than or equal to 1"),
    ):
        done = CliRunner().invoke(app, [*line, *more])
        assert done.exit_code == 2 and said in " ".join(done.output.replace("│", " ").split())


def test_rows_of_a_tile_are_the_networks(tmp_path: Path) -> None:
    """Unless an option says otherwise."""
    store.save(
        tmp_path / "in.safetensors",
        network(replace(CONFIG, ffn2_rule="tile", tile_rows=4)),
        store.Card("net", list(sets.COLOURS)),
    )
    data = sets.archive(tmp_path / "a.npz")
    for more, rows in ((), 4), (("--tile-rows", "8"), 8):
        line = [
            "quantise",
            tmp_path / "in.safetensors",
            "--data",
            data,
            "--no-measure",
            "--photos",
            10,
            *more,
        ]
        result = CliRunner().invoke(app, [*map(str, line), "-o", str(tmp_path / "out.safetensors")])
        assert result.exit_code == 0, result.output
        assert ModelPackage.load(tmp_path / "out.safetensors").meta["tile_rows"] == rows


def kept(model: VisionTransformer, package: ModelPackage, images: np.ndarray, name: str) -> float:
    """Decibels of the residual stream where the float network has it under this name."""
    taken, seen = package.meta["preprocessing"], {}
    observe = lambda name, value: seen.setdefault(name, value.numpy().copy())  # noqa: E731
    predict(model, images, taken["mean"], taken["std"], observe=observe)
    results = run(package, patchify(images, model.config.patch_size), True)
    found = np.stack([result.checkpoints[name] for result in results])
    return snr(seen[name], found * package.meta["scales"]["residual"])


@pytest.mark.parametrize("apart", [0.0, 0.4])
def test_sums_that_cancel_between_chunks_of_ffn2(apart: float) -> None:
    """The bias, which is in the first one, makes up for what both add."""
    model, images = network(replace(CONFIG, depth=1)), pictures(10)
    mlp = model.blocks[0].mlp
    mlp.fc1.bias.data += 3
    mlp.fc2.weight.data[:, :48] += apart
    mlp.fc2.weight.data[:, 48:] -= apart
    mlp.fc2.bias.data = -3 * mlp.fc2.weight.data.sum(dim=1)
    whole, halves = (
        kept(model, quantise(model, images, replace(OPTIONS, ffn_chunk=chunk)), images, "layers.0.ffn")
        for chunk in (96, 48)
    )
    assert whole > 12 and halves > whole - 1


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize(("size", "patch"), [(16, 4), (64, 32)])
@pytest.mark.parametrize("level", [0, 255])
def test_sums_that_cancel_in_the_patch_embedding(pre_norm: bool, size: int, patch: int, level: int) -> None:
    """Filters without a mean over their patch, and photos without one, brighter or darker than all others."""
    model = network(replace(CONFIG, image_size=size, patch_size=patch, pre_norm=pre_norm))
    weight, across = model.patch_embed.proj.weight.data, torch.linspace(-1, 1, patch)
    weight[:] = torch.randn(32, 3, 1, 1) * across[:, None]
    images = np.random.default_rng(0).integers(120, 136, (10, size, size, 3), dtype=np.uint8)
    package = quantise(model, images, OPTIONS)
    found, tensors, factor = [], package.tensors, 2.0 ** -package.meta["params"]["patch.shift"]
    for photos in (images, np.full((1, size, size, 3), level, np.uint8)):
        total = tensors["pos"][1:].astype(np.float64)
        for chunk in patch_chunks(package.arch):
            added = patchify(photos, patch)[..., chunk] @ tensors["patch.weight"][chunk].astype(np.int64)
            total = total + (added := added * tensors["patch.mult"] * factor)
            found += [np.abs(added).max(), np.abs(total).max()]
    assert 2000 < max(found) < 32767


def test_photos_that_are_darker_than_the_mean() -> None:
    """What the position table subtracts is greater than what is left."""
    model = network(replace(CONFIG, pre_norm=True))
    model.patch_embed.proj.weight.data[:] = torch.randn(32, 3, 1, 1) * 0.2
    for part in (model.pos_embed, model.cls_token, model.patch_embed.proj.bias):
        part.data *= 0.1
    images = pictures(10) // 8
    package = quantise(model, images, replace(OPTIONS, mean=(0.0,) * 3, std=(1.0,) * 3))
    assert kept(model, package, images, "embed") > 30


def test_an_epsilon_that_matters_warns(caplog: pytest.LogCaptureFixture) -> None:
    model = network()
    with caplog.at_level(logging.WARNING, "rowvit"):
        quantise(model, pictures(10), OPTIONS)
        assert not caplog.text
        for part in (
            model.patch_embed.proj.weight,
            model.patch_embed.proj.bias,
            model.pos_embed,
            model.cls_token,
        ):
            part.data *= 0.003
        quantise(model, pictures(10), OPTIONS)
    assert "epsilon is 1e-06, and the tokens' variance only" in caplog.text


def test_patches_that_are_not_looked_at() -> None:
    """A layer of zeros has no unit of its own."""
    model = network()
    model.patch_embed.proj.weight.data[:] = model.patch_embed.proj.bias.data[:] = 0
    for part in (*model.parameters(),):
        part.data *= 0.01
    package = quantise(model, pictures(10), OPTIONS)
    assert kept(model, package, pictures(10), "embed") > 20


def test_one_photo_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "rowvit"):
        quantise(network(), pictures(1), OPTIONS)
    assert "one photo" in caplog.text


@pytest.mark.parametrize(
    ("hidden", "chunk"), [(96, 96), (512, 256), (768, 384), (1536, 384), (385, 256), (3072, 384)]
)
def test_default_chunk(hidden: int, chunk: int) -> None:
    assert default_chunk(replace(CONFIG, hidden=hidden)) == chunk
    assert default_chunk(replace(CONFIG, hidden=hidden // 2, gated=True)) == -(-chunk // 2) or hidden % 2
    assert chunk * -(-hidden // chunk) < hidden + chunk


def test_noise_is_what_the_networks_say() -> None:
    """The table's last rows against both networks; a layer with coarse weights shows."""
    model, images = network(), pictures(20)
    with torch.no_grad():  # one large weight in each row leaves few levels for the others
        weight = model.blocks[1].mlp.fc1.weight
        weight[:, 0] = 60 * weight.abs().amax(dim=1)
        model.blocks[1].norm2.weight[0] = 0.001
        model.blocks[1].norm2.bias[0] = 0.0
    package = quantise(model, images, OPTIONS)
    rows = layer_noise(model, package, images)
    assert [row.layer for row in rows] == ["embed", "0", "1", "2", "logits"]
    exact = predict(model, images, MEAN, STD)
    assert rows[-1].ffn == pytest.approx(snr(exact, logits(package, images)), abs=1e-3)
    seen: dict[str, np.ndarray] = {}
    predict(model, images, MEAN, STD, observe=lambda name, value: seen.update({name: value.numpy()}))
    found = run(package, patchify(images, 4), checkpoints=True)
    ours = np.stack([r.checkpoints["layers.0.attn"] for r in found]) * package.meta["scales"]["residual"]
    assert rows[1].attention == pytest.approx(snr(seen["layers.0.attn"], ours), abs=1e-3)
    assert rows[1].weights > 35 and rows[3].weights > 35
    assert rows[2].weights > 35  # a large weight alone is no noise: the rest of the matrix has little energy
    assert rows[2].ffn < rows[2].attention - 3


@pytest.mark.parametrize("energy", [0.0, 0.1])
def test_thresholds_are_no_noise(energy: float) -> None:
    """The network's own, and those that quantisation chose."""
    images = pictures(20)
    model = network(CONFIG if energy else replace(CONFIG, thresholds=(0.5,) * CONFIG.depth))
    package = quantise(model, images, replace(OPTIONS, threshold_energy=energy))
    assert all(layer["thr"] > 1 for layer in package.meta["params"]["layers"])
    rows = layer_noise(model, package, images)
    exact = layer_noise(network(), quantise(network(), images, OPTIONS), images)
    for row, other in zip(rows[1:-1], exact[1:-1], strict=True):
        assert row.ffn > other.ffn - 6


def test_decibels() -> None:
    assert decibels(100.0, 1.0) == pytest.approx(20)
    assert decibels(1.0, 0.0) == decibels(0.0, 1.0) == float("inf")


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--rule", "tile", "--tile-rows", 4], {"ffn2_rule": "tile", "tile_rows": 4}),
        (["--ffn-chunk", 32], {"ffn_chunk": 32}),
        (["--threshold-energy", 0.05], {"threshold_energy": 0.05}),
        (["--method", "max"], {"method": "max"}),
        (["--method", "percentile", "--percentile", 90], {"method": "percentile", "percentile": 90.0}),
        (["--power-of-two"], {"power_of_two": True}),
        (["--tokens", "all", "--behind", "0,2"], {"tokens": "all", "behind": (0, 2)}),
        (["--smooth", 0.5], {}),
        (["--photos", 10], {}),
    ],
)
def test_every_option_does_what_the_library_does(tmp_path: Path, words: list, options: dict) -> None:
    """And each of them changes the package."""
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train", labels=False)
    store.save(tmp_path / "in.safetensors", network(), store.Card("net", list(sets.COLOURS)))

    def made(*more: object) -> ModelPackage:
        line = ["quantise", tmp_path / "in.safetensors", "--data", tmp_path / "a.npz", "--no-measure", *more]
        result = CliRunner().invoke(app, [*map(str, line), "-o", str(tmp_path / "out.safetensors")])
        assert result.exit_code == 0, result.output
        return ModelPackage.load(tmp_path / "out.safetensors")

    model, card = store.load(tmp_path / "in.safetensors")
    pixels = photos.subset(10 if "--photos" in words else 256).prepared(16, card.resize, card.crop)
    model = centre_keys(model, card.mean, card.std, pixels)
    if "--smooth" in words:
        model = smooth(model, card.mean, card.std, pixels, 0.5)
    usual = {"ffn_chunk": default_chunk(CONFIG), "mean": card.mean, "std": card.std}
    wanted = quantise(model, pixels, QuantOptions("net", card.classes, **usual | options))
    found, without = made(*words), made()

    def same(one: ModelPackage, other: ModelPackage) -> bool:
        parts = "params", "scales", "pruning", "ffn2_rule", "tile_rows", "ffn_chunk", "tokens"
        return all(one.meta.get(key) == other.meta.get(key) for key in parts) and all(
            np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors | other.tensors
        )

    assert same(found, wanted) and not same(found, without)


def test_command(tmp_path: Path) -> None:
    data = sets.archive(tmp_path / "a.npz")
    card = store.Card("net", list(sets.COLOURS), licence="CC0-1.0", source="test", history=["made"])
    store.save(tmp_path / "in.safetensors", network(replace(CONFIG, ffn2_rule="tile")), card)
    arguments = ["quantise", tmp_path / "in.safetensors", "--data", data, "-o", tmp_path / "out.safetensors"]
    arguments += [
        "--photos",
        10,
        "--smooth",
        0.5,
        "--method",
        "percentile",
        "--json",
        tmp_path / "noise.json",
    ]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    package = ModelPackage.load(tmp_path / "out.safetensors")
    assert package.meta["licence"] == "CC0-1.0" and package.meta["ffn2_rule"] == "tile"
    assert (
        package.meta["accuracy"]["set"] == "a test, all 12" and 0 <= package.meta["accuracy"]["int8"] <= 100
    )
    assert package.meta["history"][0] == "made" and "10 of 24" in package.meta["history"][1]
    rows = json.loads((tmp_path / "noise.json").read_text())
    assert [row["layer"] for row in rows] == ["embed", "0", "1", "2", "logits"]
    assert "Signal-to-noise" in result.output and "hidden" in result.output
    bad = CliRunner().invoke(app, [*map(str, arguments), "--rule", "most"])
    assert bad.exit_code == 2 and "'most'" in bad.output
