# SPDX-License-Identifier: Apache-2.0
"""GELU to ReLU by ridge refit."""

from __future__ import annotations

import copy
from dataclasses import replace
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
from rowvit.model.relu import to_relu  # noqa: E402
from rowvit.model.vit import VisionTransformer, ViTConfig, normalise, predict  # noqa: E402
from rowvit.photos import open_data  # noqa: E402

CONFIG = ViTConfig(image_size=16, patch_size=4, dim=32, depth=3, heads=2, hidden=48, classes=3, act="gelu")


@torch.no_grad()
@pytest.mark.parametrize(("act", "gated"), [("gelu", False), ("gelu_tanh", False), ("silu", True)])
def test_refit_is_the_ridge_solution(act: str, gated: bool) -> None:
    """Every layer against a least squares solver on the stacked system, in the same terms.

    The inputs of a layer come from a run of the whole network, with the solver's matrices in the layers
    before it.
    """
    model = network(replace(CONFIG, act=act, gated=gated, pruning=({"layer": 1, "keep": 6},)))
    twin = copy.deepcopy(model)
    attended: list[int] = []
    for block in model.blocks:
        block.attn.register_forward_hook(lambda *_: attended.append(1))
    for found in to_relu(model, CARD, pictures(), ridge=0.01, batch=25):
        seen: dict[str, torch.Tensor] = {}
        twin(normalise(pictures(), CARD.mean, CARD.std), seen.__setitem__)
        mlp = twin.blocks[found.layer].mlp
        y = mlp.fc1(seen[f"layers.{found.layer}.norm2"].flatten(0, 1))
        assert len(y) == 60 * (17 if found.layer == 0 else 7)
        gates, values = (y[:, 0::2], y[:, 1::2]) if gated else (y, 1)
        wanted = mlp.fc2(mlp.act(gates) * values).double().numpy()
        hidden = (gates.relu() * values).double().numpy()
        weight, bias = (t.double().numpy() for t in (mlp.fc2.weight, mlp.fc2.bias))
        left = wanted - hidden @ weight.T - bias
        ridge = 0.01 * np.square(hidden).sum(axis=0).mean()
        system = np.vstack([np.hstack([hidden, np.ones((len(hidden), 1))]), np.sqrt(ridge) * np.eye(48, 49)])
        solution = np.linalg.lstsq(system, np.vstack([left, np.zeros((48, 32))]), rcond=None)[0]
        refitted = hidden @ (weight + solution[:-1].T).T + bias + solution[-1]
        assert found.error == pytest.approx(
            np.square(refitted - wanted).sum() / np.square(wanted).sum(), rel=1e-3
        )
        assert found.swapped == pytest.approx(np.square(left).sum() / np.square(wanted).sum(), rel=1e-3)
        assert found.zeros == pytest.approx((hidden == 0).mean(), abs=1e-4)
        mlp.fc2.weight += torch.from_numpy(solution[:-1].T).float()
        mlp.fc2.bias += torch.from_numpy(solution[-1]).float()
        mlp.act = torch.relu
        for name, tensor in twin.state_dict().items():
            assert torch.allclose(model.state_dict()[name], tensor, atol=2e-4), name
    assert len(attended) == 3 * 3  # each layer once for each batch


@torch.no_grad()
def test_tokens_that_turn_and_are_dropped() -> None:
    """A refit layer sees what the network itself feeds it: places of the tokens that are left."""
    model = network(replace(CONFIG, rotary=True, pruning=({"layer": 0, "keep": 6},)))
    twin, seen = copy.deepcopy(model), {}
    attended: dict[int, torch.Tensor] = {}
    for number, block in enumerate(model.blocks):
        block.norm2.register_forward_hook(lambda _, __, y, n=number: attended.setdefault(n, y))
    for found in to_relu(model, CARD, pictures(20), batch=20):
        twin.blocks[found.layer].mlp.load_state_dict(model.blocks[found.layer].mlp.state_dict())
        if not found.layer:
            predict(twin, pictures(20), CARD.mean, CARD.std, 20, seen.__setitem__)
            assert torch.allclose(attended[0], seen["layers.0.norm2"], atol=1e-5)
        assert attended[found.layer].shape[1] == 7


def test_refit_is_nearer_than_a_swap() -> None:
    """Logits on photos that were not used for the fit."""
    model, photos = network(CONFIG), pictures(120)
    swapped = VisionTransformer(replace(CONFIG, act="relu"))
    swapped.load_state_dict(model.state_dict())
    expected = predict(model, photos[100:], CARD.mean, CARD.std)
    layers = list(to_relu(model, CARD, photos[:100]))
    assert [layer.layer for layer in layers] == [0, 1, 2] and model.config.act == "relu"
    assert all(0 < layer.error < layer.swapped and 0.2 < layer.zeros < 0.8 for layer in layers)
    errors = [
        np.square(predict(net, photos[100:], CARD.mean, CARD.std) - expected).sum()
        for net in (model, swapped)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_silent_neurons_and_one_photo() -> None:
    """Hidden neurons that are never active, and fewer rows than unknowns, leave finite weights."""
    model = network(CONFIG)
    with torch.no_grad():
        model.blocks[1].mlp.fc1.bias.fill_(-1e3)
    layers = list(to_relu(model, CARD, pictures(1)))
    assert layers[1].zeros == 1.0
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_refusals() -> None:
    with pytest.raises(RowvitError, match="has ReLU already"):
        next(to_relu(network(replace(CONFIG, act="relu")), CARD, pictures()))
    with pytest.raises(RowvitError, match="no photos"):
        next(to_relu(network(CONFIG), CARD, pictures()[:0]))
    with pytest.raises(RowvitError, match="is not above 0"):
        next(to_relu(network(CONFIG), CARD, pictures(), ridge=0.0))


def test_photos_without_labels(tmp_path: Path) -> None:
    pictures_only = tmp_path / "photos"
    pictures_only.mkdir()
    for index, pixels in enumerate(pictures(3)):
        (pictures_only / f"{index}.png").write_bytes(sets.png(pixels))
    store.save(tmp_path / "in.safetensors", network(CONFIG), CARD)
    arguments = ["relu", tmp_path / "in.safetensors", "--data", pictures_only, "-o", tmp_path / "out"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--measure"])
    assert result.exit_code == 2 and "has no folders of classes" in result.output
    assert not (tmp_path / "out").exists()
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0 and store.load(tmp_path / "out")[0].config.act == "relu"
    assert "no accuracy is measured: " in result.stderr and "top-1" not in result.stdout
    following = f"out: written; next: rowvit quantise {tmp_path / 'out'} --data {pictures_only}"
    assert following in result.stdout.replace("\n", "")


@pytest.mark.parametrize("aware", ["", "quantise = true\n"])
def test_command_with_fine_tuning(tmp_path: Path, aware: str) -> None:
    data = sets.archive(tmp_path / "a.npz", train=48)
    store.save(tmp_path / "in.safetensors", network(CONFIG), CARD)
    (tmp_path / "r.toml").write_text(
        f"batch = 8\n[[phase]]\n{aware}name = 'heal'\nepochs = 1\nlr = 1e-3\ndistill = 0.5"
    )
    arguments = [tmp_path / "in.safetensors", "--data", data, "-o", tmp_path / "out.safetensors"]
    arguments += ["--photos", 20, "--check", 10, "--recipe", tmp_path / "r.toml"]
    result = CliRunner().invoke(app, ["relu", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    model, card = store.load(tmp_path / "out.safetensors")
    assert model.config.act == "relu" and "float" in card.accuracy
    assert [line.split(" ")[0] for line in card.history] == ["GELU", "trained"]
    assert "20 of 48" in card.history[0] and "top-1 on 10 training photos" in result.output
    assert measured(result.output) == [False, False, True]
    arguments = [*arguments[:-2], "--each-layer", "--no-measure"]
    assert measured(CliRunner().invoke(app, ["relu", *map(str, arguments)]).output) == [True, True, True]


@pytest.mark.parametrize("ridge", [[], ["--ridge", 0.3]])
def test_the_ridge_of_the_command(tmp_path: Path, ridge: list) -> None:
    data = sets.archive(tmp_path / "a.npz", train=48)
    store.save(tmp_path / "in.safetensors", network(CONFIG), CARD)
    arguments = [tmp_path / "in.safetensors", "--data", data, "-o", tmp_path / "out.safetensors", *ridge]
    result = CliRunner().invoke(app, ["relu", *map(str, arguments), "--no-measure"])
    assert result.exit_code == 0, result.output
    wanted = {}
    for value in (0.001, 0.3):
        model, card = store.load(tmp_path / "in.safetensors")
        photos = open_data(data, "train").prepared(16, card.resize, card.crop)
        for _ in to_relu(model, card, photos, value):
            pass
        wanted[value] = model.blocks[1].mlp.fc2.weight
    found = store.load(tmp_path / "out.safetensors")[0].blocks[1].mlp.fc2.weight
    assert torch.allclose(found, wanted[0.3 if ridge else 0.001], atol=1e-4)
    assert not torch.allclose(wanted[0.3], wanted[0.001], atol=1e-3)


def measured(output: str) -> list[bool]:
    """Whether top-1 was measured, by layer."""
    rows = [line.split() for line in output.splitlines() if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["0", "1", "2"] and "none" in output
    return [len(row) == 5 for row in rows]
