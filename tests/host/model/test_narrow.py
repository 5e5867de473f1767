# SPDX-License-Identifier: Apache-2.0
"""Fewer hidden neurons by refitting the second FFN matrix."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rowvit.errors import RowvitError

torch = pytest.importorskip("torch")

import photos as sets  # noqa: E402
from squares import CARD, network, pictures  # noqa: E402

from rowvit.cli import app  # noqa: E402
from rowvit.model import store  # noqa: E402
from rowvit.model.narrow import to_narrow  # noqa: E402
from rowvit.model.vit import ViTConfig, normalise, predict  # noqa: E402
from rowvit.photos import open_data  # noqa: E402

CONFIG = ViTConfig(image_size=16, patch_size=4, dim=32, depth=3, heads=2, hidden=48, classes=3)


@torch.no_grad()
@pytest.mark.parametrize("gated", [False, True])
def test_one_neuron_is_the_best_one(gated: bool) -> None:
    """Of the first layer's neurons, against a least squares solver that tries each of them."""
    model = network(replace(CONFIG, hidden=8, gated=gated, act="silu" if gated else "relu"))
    seen: dict[str, torch.Tensor] = {}
    predict(model, pictures(), CARD.mean, CARD.std, 60, seen.__setitem__)
    mlp = copy.deepcopy(model.blocks[0].mlp)
    hidden = mlp.activate(mlp.fc1(seen["layers.0.norm2"].flatten(0, 1))).double().numpy()
    weight, bias = mlp.fc2.weight.double().numpy(), mlp.fc2.bias.double().numpy()
    wanted = hidden @ weight.T + bias
    errors = {}
    for stay in combinations(range(8), 7):
        inputs = np.hstack([hidden[:, stay], np.ones((len(hidden), 1))])
        solution = np.linalg.lstsq(inputs, wanted, rcond=None)[0]
        errors[stay] = np.square(inputs @ solution - wanted).sum() / np.square(wanted).sum()
    best = min(errors, key=errors.__getitem__)
    found = next(to_narrow(model, CARD, pictures(), 7, ridge=1e-9))
    assert found.error == pytest.approx(errors[best], rel=1e-3)
    first = mlp.fc1.weight.unflatten(0, (8, -1))[list(best)].flatten(0, 1)
    assert torch.equal(model.blocks[0].mlp.fc1.weight, first)


def test_refit_is_nearer_than_a_cut() -> None:
    """Logits on photos that were not used for the fit, and what does not matter goes first."""
    model, photos = network(CONFIG), pictures(120)
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.fc1.bias[5] = -1e3  # silent
    expected = predict(model, photos[100:], CARD.mean, CARD.std)
    wide = copy.deepcopy(model)
    layers = list(to_narrow(model, CARD, photos[:100], 24))
    assert [layer.layer for layer in layers] == [0, 1, 2] and model.config.hidden == 24
    assert all(0 < layer.error < 0.5 * layer.cut for layer in layers)
    with torch.no_grad():
        for old, new in zip(wide.blocks, model.blocks, strict=True):
            stays = [bool((row == new.mlp.fc1.weight).all(dim=1).any()) for row in old.mlp.fc1.weight]
            assert sum(stays) == 24 and not stays[5]
            old.mlp.fc2.weight[:, ~torch.tensor(stays)] = 0
    errors = [
        np.square(predict(net, photos[100:], CARD.mean, CARD.std) - expected).sum() for net in (model, wide)
    ]
    assert errors[0] < 0.5 * errors[1]
    model.train()(normalise(photos[:2], CARD.mean, CARD.std)).sum().backward()  # and can be trained


@pytest.mark.parametrize(
    ("change", "hidden", "said"),
    [
        ({}, 48, "48 hidden neurons cannot stay of squares's 48"),
        ({"prefix": 0, "pool": "attention"}, 24, "squares pools by attention"),
    ],
)
def test_refusals(change: dict, hidden: int, said: str) -> None:
    with pytest.raises(RowvitError, match=said):
        next(to_narrow(network(replace(CONFIG, **change)), CARD, pictures(4), hidden))


def test_command(tmp_path: Path) -> None:
    """It says what it costs, and the file it writes is a network like any other: quantised, it runs."""
    data, out = sets.archive(tmp_path / "a.npz", train=48), tmp_path / "narrow.safetensors"
    model = network(CONFIG)
    store.save(tmp_path / "wide.safetensors", model, CARD)
    arguments = [tmp_path / "wide.safetensors", "--data", data, "--hidden", 32, "-o", out]
    arguments += ["--photos", 20, "--check", 10, "--no-measure"]
    run = CliRunner().invoke(app, ["narrow", *map(str, arguments)], catch_exceptions=False)
    assert run.exit_code == 0 and "top-1 on 10 training photos" in run.output
    found, card = store.load(out)
    assert found.config.hidden == 32 and "32 of 48 hidden neurons" in card.history[-1]
    checked = open_data(data, "train").subset(10, skip=20)
    rows = {line.split()[0]: line.split()[1:] for line in run.output.splitlines() if line.strip()}
    for layer, width, network_then in (("none", 1, model), ("2", 3, found)):
        guesses = predict(network_then, checked.prepared(16, CARD.resize, CARD.crop), CARD.mean, CARD.std)
        share = np.mean(guesses.argmax(axis=1) == checked.labels)
        assert len(rows[layer]) == width and rows[layer][-1] == f"{share:.1%}"
    assert len(rows["0"]) == len(rows["1"]) == 2
    made = str(tmp_path / "int8.safetensors")
    run = CliRunner().invoke(
        app, ["quantise", str(out), "--data", str(data), "-o", made], catch_exceptions=False
    )
    assert run.exit_code == 0
