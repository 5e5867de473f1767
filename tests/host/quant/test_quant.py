# SPDX-License-Identifier: Apache-2.0
"""Container, model package, quantiser, and the demo network that is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rowvit
from networks import randomise, smooth_photos, snr
from rowvit.errors import RowvitError
from rowvit.formats import container
from rowvit.formats.package import ModelPackage, keep_schedule
from rowvit.images import decode
from rowvit.quant.fixed import multiplier
from rowvit.quant.synthetic import random_package
from rowvit.reference import patchify, run

MODELS = Path(rowvit.__file__).parent / "models"
TINY = dict(dim=32, depth=2, heads=2, image_size=16, patch_size=4, hidden=64, classes=5)


def tiny(**changes: object) -> ModelPackage:
    return random_package(np.random.default_rng(0), **(TINY | changes))


# -- container ---------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_container_agrees_with_safetensors(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    library = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("container") / "a.safetensors"
    kinds = [
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "float16",
        "int32",
        "uint32",
        "float32",
        "int64",
        "float64",
    ]
    tensors = {
        f"t{index}": rng.integers(0, 2, rng.integers(0, 4, rng.integers(0, 4))).astype(kind)
        for index, kind in enumerate(rng.choice(kinds, 5))
    }
    container.write(path, tensors, {"key": "value"})
    ours, metadata = container.read(path)
    theirs = library.load_file(path)
    library.save_file(tensors, path, {"other": "text"})
    back, other = container.read(path)
    assert metadata == {"key": "value"} and other == {"other": "text"}
    for name, tensor in tensors.items():
        for copy in (ours[name], theirs[name], back[name]):
            assert copy.dtype == tensor.dtype and np.array_equal(copy, tensor)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    container.write(path, {"a": np.arange(10, dtype=np.int16)}, {})
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(RowvitError, match=r"cut\.safetensors"):
            container.read(path)


@pytest.mark.parametrize(
    "header",
    [
        b"\xff\xfe",
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F8", "shape": [1], "data_offsets": [0, 1]}}',
        b'{"a": {"dtype": "I8", "shape": [2], "data_offsets": [0, 1]}}',
        b'{"a": {"dtype": "I8", "shape": [-1, -1], "data_offsets": [0, 1]}}',
        b'{"a": {"dtype": "I8", "shape": [1], "data_offsets": [0, 9]}}',
        b'{"__metadata__": {"rowvit": 3}}',
        b'{"a": {"dtype": "I8", "shape": [1], "data_offsets": [0]}}',
        b'{"a": {"dtype": "I8", "shape": [Infinity], "data_offsets": [0, 1]}}',
        b'{"a": {"dtype": "I8", "shape": [0, 1e30], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "I8", "shape": [4294967296, 4294967296, 0], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "I8", "shape": [%s1], "data_offsets": [0, 1]}}' % (b"1, " * 99),
        b'{"\\ud800": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]}}',
        b"[" * 100_000,
    ],
)
def test_foreign_headers_are_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(RowvitError, match=r"odd\.safetensors"):
        container.read(path)


def test_container_names_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(RowvitError, match="complex"):
        container.write(tmp_path / "a", {"z": np.zeros(1, complex)}, {})
    with pytest.raises(RowvitError, match="cannot be written"):
        container.write(tmp_path / "no" / "a", {}, {})
    with pytest.raises(RowvitError, match="cannot be read"):
        container.read(tmp_path / "missing")
    (tmp_path / "text").write_text("PK this is something else entirely")
    with pytest.raises(RowvitError, match="not a safetensors file"):
        container.read(tmp_path / "text")


# -- package -----------------------------------------------------------------------------------------


def test_package_round_trip(tmp_path: Path) -> None:
    package = tiny(pruning=keep_schedule(16, (0,), 0.5))
    package.save(tmp_path / "a.safetensors")
    loaded = ModelPackage.load(tmp_path / "a.safetensors")
    assert loaded.meta == package.meta and loaded.meta["hash"] == loaded.digest()
    assert all(np.array_equal(loaded.tensors[name], package.tensors[name]) for name in package.tensors)
    loaded.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_package_detects_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    package = tiny()
    package.save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(RowvitError, match="hash"):
        ModelPackage.load(path)
    meta = package.meta | {"name": "renamed"}
    container.write(path, package.tensors, {"rowvit": json.dumps(meta)})
    with pytest.raises(RowvitError, match="hash"):
        ModelPackage.load(path)
    unreadable = ("{", "[]", "[" * 100_000, '{"format": 1, "x": NaN}')
    for text, message in (*((text, "not readable") for text in unreadable), ('{"format": 9}', "format 9")):
        container.write(path, package.tensors, {"rowvit": text})
        with pytest.raises(RowvitError, match=message):
            ModelPackage.load(path)
    container.write(path, package.tensors, {})
    with pytest.raises(RowvitError, match="not a rowvit package"):
        ModelPackage.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.meta.pop("ffn_chunk"), "description lacks ffn_chunk"),
        (lambda p: p.meta["architecture"].update(heads=3), "not a multiple of heads"),
        (lambda p: p.meta["architecture"].update(tokens=18), "do not agree"),
        (lambda p: p.meta["architecture"].update(depth="2"), "architecture.depth"),
        (lambda p: p.meta["architecture"].update(dim=2048), "limit is 1024"),
        (
            lambda p: p.meta.update(
                architecture=p.arch | {"heads": 32}, pruning=[{"layer": 0, "keep": 9, "threshold": 0}]
            ),
            "16 heads",
        ),
        (lambda p: p.meta.update(ffn2_rule="some"), "ffn2_rule"),
        (lambda p: p.meta.update(ffn2_rule="tile", tile_rows=0), "tile_rows"),
        (lambda p: p.meta.update(ffn_chunk=0), "ffn_chunk"),
        (lambda p: p.meta.update(classes=["a"]), "class names"),
        (lambda p: p.meta.update(pruning=[{"layer": 2, "keep": 3, "threshold": 0}]), "pruning layers"),
        (
            lambda p: p.meta.update(pruning=[{"layer": 1, "keep": -1, "threshold": 0}]),
            "pruning.0.keep is -1, but must be bigger",
        ),
        (lambda p: p.meta.update(pruning=7), "pruning is 7, but must be array"),
        (lambda p: p.meta["params"]["layers"].pop(), "depth 2"),
        (lambda p: p.meta["params"]["layers"][0].update(thr=0), "thr is 0"),
        (lambda p: p.meta["params"].update({"head.shift": 41}), "head.shift is 41"),
        (lambda p: p.meta["preprocessing"].pop("std"), "description lacks preprocessing.std"),
        (lambda p: p.meta["preprocessing"].update(std=[1.0, 0.0, 1.0]), r"preprocessing.std.1 is 0.0"),
        (lambda p: p.meta["preprocessing"].update(mean=[1.0]), "mean is not of 3 channels"),
        (lambda p: p.tensors.pop("pos"), "pos"),
        (lambda p: p.tensors.update(pos=p.tensors["pos"][1:]), "tensor pos is int16"),
        (lambda p: p.tensors["head.weight"].__setitem__((0, 0), -128), "holds -128"),
        (lambda p: p.tensors["head.bias"].__setitem__(0, 1 << 25), "26 bits"),
    ],
)
def test_package_checks(change: object, message: str) -> None:
    package = tiny()
    change(package)
    with pytest.raises(RowvitError, match=message):
        package.check()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rope.places", 5, "has coordinate 5 of 5"),
        ("rope.table", (1 << 14) + 1, "cosines or sines above 1"),
    ],
)
def test_positions_of_a_package(name: str, value: int, message: str) -> None:
    package = random_package(np.random.default_rng(3), **TINY, rotary=True)
    package.check()
    package.tensors[name] = package.tensors[name].copy()
    package.tensors[name].flat[0] = value
    with pytest.raises(RowvitError, match=message):
        package.check()


# -- quantiser ---------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 32767, allow_subnormal=False), min_size=1, max_size=8))
def test_multiplier(factors: list[float]) -> None:
    mult, shift = multiplier(np.array(factors))
    assert 1 <= shift <= 40 and mult.dtype == np.uint16
    error = np.abs(mult * 2.0**-shift - factors)
    assert (error <= 0.5 * 2.0**-shift).all()
    if max(factors) >= 2**-24:
        assert error.max() <= max(factors) * 2**-15


@pytest.mark.parametrize("exponent", range(-20, 14))
def test_a_power_of_two_is_one_in_spite_of_rounding(exponent: int) -> None:
    power = 2.0**exponent
    for factor in (np.nextafter(power, 0), power, np.nextafter(power, np.inf)):
        mult, shift = multiplier(factor)
        assert mult == 32768 and mult * 2.0**-shift == power


@pytest.mark.parametrize("factor", [-1.0, 40000.0, float("nan"), float("inf")])
def test_multiplier_refuses(factor: float) -> None:
    with pytest.raises(RowvitError, match="layer"):
        multiplier(factor, "layer")


def float_network(seed: int = 0, **options: object) -> object:
    """A random ReLU network of tiny size with activations near 1."""
    pytest.importorskip("torch")
    from rowvit.model.vit import VisionTransformer, ViTConfig

    shape = dict(image_size=32, patch_size=4, dim=64, depth=3, heads=2, hidden=128, classes=10)
    config = ViTConfig(**shape | options)
    return randomise(VisionTransformer(config), seed)


def photos(count: int, seed: int = 0) -> np.ndarray:
    return smooth_photos(count, 32, 32, seed)


def options(**changes: object) -> object:
    pytest.importorskip("torch")
    from rowvit.quant.quantise import QuantOptions

    base = dict(
        name="test",
        classes=[str(index) for index in range(10)],
        mean=(0.5, 0.4, 0.6),
        std=(0.25, 0.2, 0.3),
        ffn_chunk=64,
    )
    return QuantOptions(**(base | changes))


def test_quantised_network_follows_the_float_network() -> None:
    model, told = float_network(), options()
    from rowvit.model.vit import predict
    from rowvit.quant.quantise import quantise

    package = quantise(model, photos(32), told)
    unseen = photos(16, seed=1)
    seen: dict[str, np.ndarray] = {}
    exact = predict(
        model, unseen, told.mean, told.std, observe=lambda name, value: seen.update({name: value.numpy()})
    )
    results = run(package, patchify(unseen, 4), checkpoints=True)
    logits = np.stack([result.logits for result in results]) * package.meta["scales"]["logit"]
    assert snr(exact, logits) > 25
    floors = {"embed": 55} | {f"layers.{i}.{part}": 28 for i in range(3) for part in ("attn", "ffn")}
    for name, floor in floors.items():
        rows = np.stack([result.checkpoints[name] for result in results]) * package.meta["scales"]["residual"]
        assert snr(seen[name], rows) > floor, name


def test_pruning_schedule_goes_into_the_package() -> None:
    pruning = tuple(keep_schedule(64, (0, 2), 0.5))
    model = float_network(pruning=pruning)
    from rowvit.model.vit import predict
    from rowvit.quant.quantise import quantise

    package = quantise(model, photos(16), options())
    assert package.meta["pruning"] == [dict(step) for step in pruning]
    unseen = photos(16, seed=1)
    results = run(package, patchify(unseen, 4))
    assert all(result.counts.live == [33, 33, 17] for result in results)
    predict(model, unseen, options().mean, options().std)
    same = [
        len(np.intersect1d(result.kept[-1], tokens)) / 17
        for result, tokens in zip(results, model.tokens.numpy(), strict=True)
    ]
    assert np.mean(same) > 0.85  # scores that differ by less than the rounding may swap


def test_threshold_energy() -> None:
    model = float_network()
    from rowvit.quant.quantise import quantise

    thresholds = []
    for energy in (0.0, 0.001, 0.02):
        package = quantise(model, photos(8), options(threshold_energy=energy))
        thresholds.append([layer["thr"] for layer in package.meta["params"]["layers"]])
    assert thresholds[0] == [1, 1, 1]
    for exact, some, more in zip(*thresholds, strict=True):
        assert exact < some < more <= 255
    # what is silent on these photos need not be on others
    model.blocks[1].mlp.fc1.bias.data.fill_(-100)
    package = quantise(model, photos(8), options(threshold_energy=0.02))
    assert [layer["thr"] > 1 for layer in package.meta["params"]["layers"]] == [True, False, True]


def test_quantiser_refuses() -> None:
    told = options()
    from rowvit.quant.quantise import quantise

    with pytest.raises(RowvitError, match="gelu"):
        quantise(float_network(act="gelu"), photos(1), told)
    with pytest.raises(RowvitError, match="has thresholds of its own; leave out --threshold-energy"):
        quantise(float_network(thresholds=(0.1, 0, 0)), photos(1), options(threshold_energy=0.02))
    with pytest.raises(RowvitError, match="calibration photos"):
        quantise(float_network(), photos(1)[:, 1:], told)
    with pytest.raises(RowvitError, match="calibration photos"):
        quantise(float_network(), photos(0), told)
    with pytest.raises(RowvitError, match="2048"):
        quantise(float_network(), photos(1), options(ffn_chunk=2048))


def test_dead_channels_keep_their_bias() -> None:
    model = float_network()
    from rowvit.quant.quantise import quantise

    for block in model.blocks:
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            layer.weight.data[::3] = 0
            layer.weight.data[1::3] *= 1e-7
    told = options()
    from rowvit.model.vit import predict

    package = quantise(model, photos(16), told)
    exact = predict(model, photos(16), told.mean, told.std)
    logits = np.stack([result.logits for result in run(package, patchify(photos(16), 4))])
    assert snr(exact, logits * package.meta["scales"]["logit"]) > 25


# -- shipped demo network ----------------------------------------------------------------------------


def test_shipped_demo_network() -> None:
    package = ModelPackage.load(MODELS / "sign_digits.safetensors")
    accuracy = package.meta["accuracy"]
    assert accuracy["set"] == "sign-digits test, all 411"
    assert accuracy["int8"] > 95.5
    assert accuracy["int8"] > accuracy["float"] - 1
    paths = sorted((MODELS / "sign_digits_photos").glob("*.jpg"))
    labels = [int(path.name[0]) for path in paths]
    assert labels == sorted([*range(10), *range(10)])
    pixels = np.stack([decode(path, package.arch["image_size"]) for path in paths])
    results = run(package, patchify(pixels, package.arch["patch_size"]))
    right = sum(result.top1 == label for result, label in zip(results, labels, strict=True))
    assert right >= 18
    assert all(result.counts.live == [197, 99, 99, 50, 26, 26] for result in results)
