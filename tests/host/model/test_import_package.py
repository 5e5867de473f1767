# SPDX-License-Identifier: Apache-2.0
"""Packages read back as float networks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowvit.errors import RowvitError
from rowvit.formats.bundled import MODELS, bundled
from rowvit.formats.package import ModelPackage, keep_schedule
from rowvit.images import decode
from rowvit.quant.synthetic import random_package
from rowvit.reference import patchify, run

pytest.importorskip("torch")

from typer.testing import CliRunner

from networks import randomise, smooth_photos, snr
from rowvit.cli import app
from rowvit.model import store
from rowvit.model.importers import import_model
from rowvit.model.vit import VisionTransformer, ViTConfig, predict
from rowvit.quant.quantise import QuantOptions, quantise

SHAPE = dict(image_size=24, patch_size=4, dim=64, depth=2, heads=2, hidden=96, classes=5)
MEAN, STD = (0.5, 0.4, 0.6), (0.25, 0.2, 0.3)


def photos(width: int = 24) -> np.ndarray:
    return smooth_photos(8, 24, width, seed=4)


def options(classes: int, **changes: object) -> QuantOptions:
    names = [f"class {index}" for index in range(classes)]
    told = dict(name="test", classes=names, mean=MEAN, std=STD, crop=0.9, licence="MIT", source="us")
    return QuantOptions(**told | changes)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 99),
    width=st.sampled_from([24, 32]),
    prefix=st.integers(0, 3),
    classes=st.sampled_from([0, 5]),
    tokens=st.sampled_from(["class", "all"]),
    least=st.sampled_from([0, 20_000]),
    dropped=st.booleans(),
    lossy=st.booleans(),
)
def test_the_integers_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    width: int,
    prefix: int,
    classes: int,
    tokens: str,
    least: int,
    dropped: bool,
    lossy: bool,
) -> None:
    """What is read back and quantised again has the same weights, thresholds and schedule."""
    (step,) = keep_schedule(36, (1,), 0.5)
    schedule = ({key: step[key] for key in ("layer", "keep")} | ({"threshold": least} if least else {}),)
    if not prefix:  # there is nothing that a head sees, or that says which tokens to drop
        classes, tokens, dropped = 0, "all", False
    config = ViTConfig(
        **SHAPE | dict(classes=classes),
        image_width=width,
        prefix=prefix,
        pool="token" if prefix else "norm-mean",
        pruning=schedule if dropped else (),
        ffn2_rule="image",
    )
    told = options(classes, tokens=tokens, ffn2_rule="image", threshold_energy=0.02 * lossy)
    package = quantise(randomise(VisionTransformer(config), seed), photos(width), told)
    path = tmp_path_factory.mktemp("package") / "net.safetensors"
    package.save(path)
    found = import_model(path)
    back, card = found.model, found.card
    assert "8 bits" in found.notes[0]
    assert ("the thresholds of its scores" in found.notes[-1]) == bool(dropped and least)
    assert (card.name, card.classes, card.crop) == ("test", list(told.classes), 0.9)
    assert (card.mean, card.std, card.licence, card.source) == (list(MEAN), list(STD), "MIT", "us")
    assert (
        back.config.pruning == config.pruning
        and back.config.pool == config.pool
        and back.config.size == config.size
    )
    again = quantise(back, photos(width), options(classes, tokens=tokens, ffn2_rule="image"))
    for name, tensor in package.tensors.items():
        if name.endswith(".weight"):
            # to one level in a rare channel whose bias, not its weights, sets the unit
            assert np.abs(tensor.astype(int) - again.tensors[name]).max() <= 1, name
            assert (tensor == again.tensors[name]).mean() > 0.99, name
    levels = [[layer["thr"] for layer in one.meta["params"]["layers"]] for one in (package, again)]
    assert np.abs(np.subtract(*levels)).max() <= 1, levels
    exact = predict(back, photos(width), MEAN, STD)
    if classes:
        logits = np.stack([result.logits for result in run(package, patchify(photos(width), 4))])
        assert snr(exact, logits * package.meta["scales"]["logit"]) > 15


def test_the_bundled_network_is_trained_on(tmp_path: Path) -> None:
    """By its name: with new classes, or as it is, and quantised again."""

    def rowvit(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    out = tmp_path / "back.safetensors"
    said = rowvit("import", "sign-digits", "-o", out)
    assert "read back from a package: weights have its 8 bits" in re.sub(r"\s+", " ", said)
    model, card = store.load(out)
    package = ModelPackage.load(MODELS / "sign_digits.safetensors")
    step = "imported again, read back from a package: weights have its 8 bits"
    assert card.accuracy == {} and card.history == [*package.meta["history"], step]
    paths = sorted((MODELS / "sign_digits_photos").glob("*.jpg"))
    pixels = np.stack([decode(path, package.arch["image_size"], card.resize, card.crop) for path in paths])
    exact = predict(model, pixels, card.mean, card.std)
    results = run(package, patchify(pixels, package.arch["patch_size"]))
    logits = np.stack([result.logits for result in results])
    assert snr(exact, logits * package.meta["scales"]["logit"]) > 25
    assert model.tokens.shape[1] == results[0].counts.live[-1]

    said = rowvit("import", "everyday", "--classes", 3, "-o", out)
    assert "what its classes look like is left out" in re.sub(r"\s+", " ", said)
    assert store.load(out)[0].config.classes == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gated": True, "hidden": 32}, "is quantised, and has a gated FFN; import what it was made of"),
        ({"rotary": True}, "is quantised, and has rotary positions"),
        ({"pre_norm": True}, "is quantised, and has a LayerNorm before its blocks"),
        ({"pool": "norm-mean", "prefix": 1}, "is quantised, and has a head that the host computes"),
    ],
)
def test_what_is_not_read_back(tmp_path: Path, change: dict, message: str) -> None:
    config = ViTConfig(**SHAPE | change)
    package = quantise(randomise(VisionTransformer(config), 1), photos(), options(5))
    path = tmp_path / "net.safetensors"
    package.save(path)
    with pytest.raises(RowvitError, match=message):
        import_model(path)


def test_a_package_that_does_not_say_whose_it_is(tmp_path: Path) -> None:
    config = ViTConfig(**SHAPE)
    package = quantise(randomise(VisionTransformer(config), 1), photos(), options(5))
    meta = {key: value for key, value in package.meta.items() if key not in ("licence", "source", "hash")}
    path = tmp_path / "net.safetensors"
    ModelPackage(meta, package.tensors).save(path)
    assert (import_model(path).card.licence, import_model(path).card.source) == ("", "")


def test_a_bundled_name_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name names one file: what comes with rowvit, or else what is there."""
    config = ViTConfig(**SHAPE)
    package = quantise(randomise(VisionTransformer(config), 1), photos(), options(5))
    package.save(path := tmp_path / "my_net.safetensors")
    before = path.read_bytes()
    for name in (tmp_path / "my-net", tmp_path / "my_net", "./sign-digits", "../models/sign-digits"):
        assert bundled(name) is None
    assert bundled("a" * 252) is None
    monkeypatch.chdir(MODELS)
    assert bundled("./sign-digits") is None
    assert bundled("sign-digits") == bundled("sign_digits") == MODELS / "sign_digits.safetensors"
    result = CliRunner().invoke(app, ["import", str(tmp_path / "my-net"), "-o", str(path)])
    assert result.exit_code == 2 and path.read_bytes() == before
    monkeypatch.setattr("rowvit.formats.bundled.MODELS", tmp_path)
    result = CliRunner().invoke(app, ["import", "my-net", "-o", str(path)])
    assert result.exit_code == 2 and "it is read as well" in " ".join(result.output.split())
    assert path.read_bytes() == before


def test_units_that_are_not_named(tmp_path: Path) -> None:
    sizes = dict(dim=64, depth=1, heads=1, image_size=16, patch_size=4, hidden=64, classes=3)
    package = random_package(np.random.default_rng(1), **sizes)
    path = tmp_path / "net.safetensors"
    package.save(path)
    with pytest.raises(RowvitError, match=r"does not say the unit 'layers\.0\.hidden'"):
        import_model(path)
