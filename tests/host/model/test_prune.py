# SPDX-License-Identifier: Apache-2.0
"""Token schedules and FFN2 thresholds: search, Pareto front, budgets."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rowvit.errors import RowvitError
from rowvit.hardware import config as configs

torch = pytest.importorskip("torch")

import photos as sets  # noqa: E402

from rowvit.cli import app  # noqa: E402
from rowvit.formats.package import ModelPackage, keep_schedule  # noqa: E402
from rowvit.measure.accuracy.evaluation import integer_work  # noqa: E402
from rowvit.measure.accuracy.schedules import (  # noqa: E402
    Point,
    choose,
    cycles_of,
    explore,
    front,
    pruned,
    schedule_of,
    schedules,
    thresholds_for,
    tile_cycles,
    top1,
)
from rowvit.model import store  # noqa: E402
from rowvit.model.prune import set_ffn2, set_pruning  # noqa: E402
from rowvit.model.vit import VisionTransformer, ViTConfig, predict  # noqa: E402
from rowvit.quant.quantise import QuantOptions, quantise  # noqa: E402
from rowvit.train.data import open_data  # noqa: E402
from rowvit.train.loop import Trainer  # noqa: E402
from rowvit.train.recipe import Phase, Recipe  # noqa: E402

CONFIG = ViTConfig(image_size=16, patch_size=4, dim=32, depth=4, heads=2, hidden=64, classes=3)
CARD = store.Card("squares", list(sets.COLOURS))
POINTS = st.lists(
    st.builds(
        Point, st.just((1,)), st.floats(0.1, 1), st.integers(1, 50), st.floats(0, 1), st.integers(0, 20)
    ),
    min_size=1,
    max_size=20,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network that knows the colours, and its photos."""
    folder = tmp_path_factory.mktemp("prune")
    data = sets.archive(folder / "a.npz", train=60)
    torch.manual_seed(0)
    model = VisionTransformer(CONFIG)
    recipe = Recipe((Phase(10, 3e-3),), batch=10, precision="fp32")
    Trainer(model, CARD, open_data(data, "train"), recipe, folder / "x.state").run()
    store.save(folder / "net.safetensors", model, CARD)
    return folder / "net.safetensors", data


def labelled(data: Path) -> tuple[np.ndarray, np.ndarray]:
    photos = open_data(data, "train")
    return photos.pixels(range(len(photos)), 16), photos.labels


def integers(model: VisionTransformer, pixels: np.ndarray) -> ModelPackage:
    options = QuantOptions("squares", CARD.classes, CARD.mean, CARD.std, ffn_chunk=64)
    return quantise(model, pixels[:16], options)


@given(POINTS)
def test_front_is_what_no_point_beats(points: list[Point]) -> None:
    best = front(points)
    assert [p.cycles for p in best] == sorted({p.cycles for p in best})
    assert all(a.top1 < b.top1 for a, b in itertools.pairwise(best))
    for point in points:
        beaten = any(
            other.cycles <= point.cycles and other.top1 >= point.top1 and other != point for other in points
        )
        assert beaten or point in best
        assert any(b.cycles <= point.cycles and b.top1 >= point.top1 for b in best)


@given(POINTS, st.integers(1, 50), st.floats(0, 1))
def test_choice_keeps_to_the_budget(points: list[Point], cycles: int, saved: float) -> None:
    fits = [p for p in points if p.cycles <= cycles and p.macs_saved >= saved]
    if not fits:
        with pytest.raises(RowvitError, match="the fastest takes"):
            choose(points, cycles, saved)
        return
    chosen = choose(points, cycles, saved)
    assert chosen in fits and all(p.top1 <= chosen.top1 for p in fits)


@pytest.mark.parametrize("depth", [1, 2, 3, 6, 12, 24])
def test_schedules_fit_the_network(depth: int) -> None:
    found = list(schedules(depth))
    assert found[0] == ((), 1.0) and len(set(found)) == len(found)
    for layers, rho in found[1:]:
        assert list(layers) == sorted(set(layers)) and layers[0] > 0 and layers[-1] < depth - 1
        assert 0 < rho < 1
    assert depth < 3 or len(found) > 1
    assert depth != 12 or ((3, 6, 9), 0.5) in found


def test_points_are_those_of_reference_and_cycle_model(trained: tuple[Path, Path]) -> None:
    model, card = store.load(trained[0])
    pixels, labels = labelled(trained[1])
    package, config = integers(model, pixels), configs.load("tiny")
    tried = [((1, 2), 0.5), ((), 1.0), ((2,), 0.3), ((1, 2), 0.1)]
    runs: list[int] = []
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, index=index: runs.append(index))
    seen: list[Point] = []
    points = explore(model, card, package, pixels, labels, config, tried, seen.append)
    assert sorted(seen, key=points.index) == points and model.config.pruning == ()
    assert [(point.layers, point.rho) for point in points] == tried
    # two batches; what comes before the first drop only once
    assert [runs.count(index) // 2 for index in range(4)] == [1, 3, 4, 4]
    for point in points:
        pruning = keep_schedule(16, point.layers, point.rho)
        assert cycles_of(pruned(package, pruning), pixels[:4], config) == (point.cycles, point.macs_saved)
        set_pruning(model, pruning)
        guesses = predict(model, pixels, card.mean, card.std).argmax(axis=1)
        assert point.top1 == np.mean(guesses == labels)
    assert points[1].cycles > points[0].cycles > points[3].cycles
    assert points[1].macs_saved < points[0].macs_saved < points[3].macs_saved
    assert points[1].top1 > 0.9


def test_thresholds_cost_no_more_than_allowed(trained: tuple[Path, Path]) -> None:
    model, card = store.load(trained[0])
    pixels, labels = labelled(trained[1])
    exact = top1(model, card, pixels, labels)
    steps: list[tuple[float, float]] = []
    found = thresholds_for(model, card, pixels, labels, 0.05, "image", lambda *step: steps.append(step))
    assert model.config.thresholds == found and len(found) == 4 and all(value > 0 for value in found)
    assert top1(model, card, pixels, labels) >= exact - 0.05
    assert [energy for energy, _ in steps] == sorted(energy for energy, _ in steps)
    assert all(reached >= exact - 0.05 for _, reached in steps[:-1])
    # what lies below a threshold holds that share of the energy
    kept = steps[-2][0] if steps[-1][1] < exact - 0.05 else steps[-1][0]
    set_ffn2(model, "image")
    hidden: dict[str, np.ndarray] = {}
    predict(model, pixels, card.mean, card.std, 60, lambda n, v: hidden.update({n: v.numpy()}))
    values = hidden["layers.0.hidden"]
    share = np.square(values[values < found[0]]).sum() / np.square(values).sum()
    assert share == pytest.approx(kept, rel=0.2)
    # and where no loss at all is bearable, nothing is dropped
    with torch.no_grad():
        none = thresholds_for(model, card, pixels, labels, -1.0, "image")
    assert none == (0.0,) * 4 and model.config.thresholds == ()


def test_rule_without_room_is_left_out(trained: tuple[Path, Path]) -> None:
    model, _ = store.load(trained[0])
    pixels, _ = labelled(trained[1])
    package, config = integers(model, pixels), configs.load("tiny")
    changed = ModelPackage(package.meta | {"ffn2_rule": "tile"}, package.tensors)
    assert tile_cycles(package, pixels, config) == {"tile": cycles_of(changed, pixels[:4], config)[0]}
    package.meta["tile_rows"] = 1  # 17 masks of 4 words, where there are 64
    assert tile_cycles(package, pixels, config) == {}


def command(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["prune", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def test_search_for_a_budget(trained: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    net, data = trained
    arguments = [net, "--data", data, "-c", "tiny", "-o", tmp_path / "out.safetensors", "--photos", 30]
    text = command(
        *arguments,
        "--macs-saved",
        45,
        "--plot",
        tmp_path / "p.png",
        "--json",
        tmp_path / "p.json",
        "--max-loss",
        5,
    )
    model, card = store.load(tmp_path / "out.safetensors")
    points = json.loads((tmp_path / "p.json").read_text())
    chosen = max((p for p in points if p["macs_saved"] >= 0.45), key=lambda p: (p["top1"], -p["cycles"]))
    assert [step["layer"] for step in model.config.pruning] == chosen["layers"]
    costs = dict(re.findall(r"(image|tile) ([\d,]+)", text.split("cycles by rule:")[1]))
    assert model.config.ffn2_rule == min(costs, key=lambda name: int(costs[name].replace(",", "")))
    assert len(model.config.thresholds) == 4
    assert "chosen" in text and (tmp_path / "p.png").stat().st_size > 10_000
    assert card.accuracy["set"] == "a test, all 12" and len(card.history) == 2
    assert "the fastest takes" in command(*arguments, "--cycles", 10, code=2)


def test_schedule_by_hand(trained: tuple[Path, Path], tmp_path: Path) -> None:
    net, data = trained
    arguments = [
        net,
        "--data",
        data,
        "-c",
        "tiny",
        "-o",
        tmp_path / "out.safetensors",
        "--photos",
        20,
        "--no-measure",
    ]
    command(*arguments, "--layers", "1,2", "--rho", 0.5, "--rule", "tile")
    model, _ = store.load(tmp_path / "out.safetensors")
    assert [(step["layer"], step["keep"]) for step in model.config.pruning] == [(1, 8), (2, 4)]
    assert model.config.ffn2_rule == "tile"
    command(*arguments, "--layers", "0,1,3", "--keep", "0.8,0.4,0", "--rule", "image")
    model, card = store.load(tmp_path / "out.safetensors")
    assert [(step["layer"], step["keep"]) for step in model.config.pruning] == [(0, 13), (1, 6), (3, 0)]
    assert "after attention of blocks 0, 1, 3: 0.8 0.4 0 of them stay" in " ".join(card.history)
    for shares in ("0.8,0.9", "0.8", "1.1,0.5", "much,little"):
        said = command(*arguments, "--layers", "1,2", "--keep", shares, code=2)
        assert "are not 2 descending shares from 1 to 0" in said
    both = ["--layers", "1,2", "--keep", "0.5,0.2", "--rho", 0.5]
    assert "--rho and --keep exclude each other" in command(*arguments, *both, code=2)
    for wrong in ("2,1", "1,4", "one", ""):
        assert "not ascending numbers below 4" in command(*arguments, "--layers", wrong, "--rho", 0.5, code=2)
    assert "either a schedule or a budget; use --layers with --rho" in command(
        *arguments, "--layers", "1", code=2
    )
    assert "either a schedule or a budget; use --layers with --rho" in command(*arguments, code=2)
    assert "'most' is not one of" in command(*arguments, "--cycles", 9, "--rule", "most", code=2)


def test_schedule_by_hand_needs_no_labels(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """The same schedule and cycles from a folder of photos as from the archive of the same ones."""
    net, data = trained
    photos = tmp_path / "photos"
    photos.mkdir()
    for index, pixels in enumerate(labelled(data)[0][:6]):
        (photos / f"{index}.png").write_bytes(sets.png(pixels))
    arguments = [net, "--data", photos, "-c", "tiny", "-o", tmp_path / "out.safetensors", "--rule", "image"]
    hand = ["--layers", "1,2", "--rho", 0.5]
    said = command(*arguments, *hand, "--json", tmp_path / "p.json")
    model, card = store.load(tmp_path / "out.safetensors")
    assert [(step["layer"], step["keep"]) for step in model.config.pruning] == [(1, 8), (2, 4)]
    assert "top-1" not in said and "no accuracy is measured: " in said and card.accuracy == {}
    assert "out.safetensors: written; next: rowvit quantise" in said
    points = json.loads((tmp_path / "p.json").read_text())
    assert [point["top1"] for point in points] == [None, None] and points[1]["cycles"] < points[0]["cycles"]
    for more in (["--macs-saved", 30], [*hand, "--max-loss", 1], [*hand, "--plot", tmp_path / "p.png"]):
        assert "has no folder" in command(*arguments, *more, code=2)


def test_trimmed_last_block_gives_the_same_logits(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Only the class token passes the last FFN: logits to the bit, for fewer MACs, rows of W2 and cycles."""
    net, data = trained
    pixels, _ = labelled(data)
    arguments = [net, "--data", data, "-c", "tiny", "--photos", 20, "--rule", "image", "--no-measure"]
    arguments += ["--layers", "1,2", "--rho", 0.5]
    command(*arguments, "-o", tmp_path / "whole.safetensors")
    command(*arguments, "--trim", "-o", tmp_path / "trimmed.safetensors")
    logits = []
    for name in ("whole", "trimmed"):
        model, card = store.load(tmp_path / f"{name}.safetensors")
        logits.append(predict(model, pixels, card.mean, card.std))
    assert model.config.pruning[-1] == {"layer": 3, "keep": 0, "threshold": 0}
    assert "the class token alone" in card.history[-1]
    assert np.allclose(*logits, rtol=1e-5, atol=1e-5)
    package = integers(model, pixels)
    whole, trimmed = (
        integer_work(
            pruned(package, schedule_of(model, (1, 2), 0.5, trim)),
            pixels,
            config=configs.load("tiny"),
            cycles=8,
        )
        for trim in (False, True)
    )
    assert np.array_equal(whole.logits, trimmed.logits)
    assert trimmed.macs_executed.sum() < whole.macs_executed.sum()
    assert trimmed.w2_rows_fetched.sum() < whole.w2_rows_fetched.sum()
    assert np.nanmean(trimmed.cycles) < np.nanmean(whole.cycles)
    averaged = replace(CONFIG, pool="mean")
    with pytest.raises(RowvitError, match="leave out --trim"):
        schedule_of(VisionTransformer(averaged), (1,), 0.5, trim=True)
