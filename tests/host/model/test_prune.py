# SPDX-License-Identifier: Apache-2.0
"""Token schedules and FFN2 thresholds: search, Pareto front, budgets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rowvit.errors import RowvitError
from rowvit.hardware import config as configs

torch = pytest.importorskip("torch")

import photos as sets  # noqa: E402

from rowvit.cli import app  # noqa: E402
from rowvit.formats.package import ModelPackage, keep_schedule  # noqa: E402
from rowvit.measure.accuracy.evaluation import integer_work  # noqa: E402
from rowvit.measure.accuracy.schedules import (  # noqa: E402
    ENERGIES,
    Point,
    classes,
    cycles_of,
    judged,
    measure,
    plot,
    pruned,
    schedule_of,
    stand_in,
    thresholds_for,
    tile_cycles,
    top1,
)
from rowvit.measure.accuracy.search import Schedule, Search  # noqa: E402
from rowvit.measure.draw import plots  # noqa: E402
from rowvit.model import store  # noqa: E402
from rowvit.model.prune import set_ffn2, set_pruning  # noqa: E402
from rowvit.model.vit import VisionTransformer, ViTConfig, predict  # noqa: E402
from rowvit.photos import open_data, spread  # noqa: E402
from rowvit.quant.quantise import QuantOptions, quantise  # noqa: E402
from rowvit.train.loop import Trainer  # noqa: E402
from rowvit.train.recipe import Phase, Recipe  # noqa: E402

CONFIG = ViTConfig(image_size=16, patch_size=4, dim=32, depth=4, heads=2, hidden=64, classes=3)
CARD = store.Card("squares", list(sets.COLOURS))


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


@pytest.fixture(scope="module")
def search(trained: tuple[Path, Path]) -> Iterator[Search]:
    """Of a network with four blocks and 16 patches."""
    model, card = store.load(trained[0])
    pixels, _ = labelled(trained[1])
    with Search(model, card, integers(model, pixels), pixels, configs.load("tiny")) as found:
        yield found
    assert model.config.pruning == () and model.config.thresholds == ()
    assert all(block.keep is None and block.mlp.threshold == 0 for block in model.blocks)


def test_points_are_those_of_reference_and_cycle_model(trained: tuple[Path, Path]) -> None:
    model, card = store.load(trained[0])
    pixels, labels = labelled(trained[1])
    package, config = integers(model, pixels), configs.load("tiny")
    tried = [((1, 2), 0.5), ((), 1.0), ((2,), 0.3), ((1, 2), 0.1)]
    points = [measure(model, card, package, pixels, config, layers, rho) for layers, rho in tried]
    dense = classes(model, card, pixels, points[1])
    for (layers, rho), point in zip(tried, points, strict=True):
        pruning = keep_schedule(16, layers, rho)
        assert cycles_of(pruned(package, pruning), pixels[:: len(pixels) // 4][:4], config) == (
            point.cycles,
            point.macs_saved,
        )
        found = judged(point, classes(model, card, pixels, point), dense, labels)
        set_pruning(model, pruning)
        guesses = predict(model, pixels, card.mean, card.std).argmax(axis=1)
        set_pruning(model, ())
        assert found.top1 == np.mean(guesses == labels) and found.agreement == np.mean(guesses == dense)
        assert np.isnan(judged(point, guesses, dense, None).top1)
    assert points[1].cycles > points[0].cycles > points[3].cycles
    assert points[1].macs_saved < points[0].macs_saved < points[3].macs_saved
    assert np.mean(dense == labels) > 0.9


def test_costs_are_near_those_of_the_cycle_model(search: Search) -> None:
    """Between the schedules of the tables, too, and with thresholds."""
    for keep, levels in (
        ((16, 16, 16, 16), (0, 0, 0, 0)),
        ((16, 13, 13, 5), (0, 0, 0, 0)),
        ((12, 9, 6, 3), (0, 4, 0, 8)),
        ((2, 2, 2, 2), (3, 3, 3, 3)),
    ):
        schedule = Schedule(keep, levels)
        point = search.point(schedule)
        assert search.costs.cycles(schedule) == pytest.approx(point.cycles, rel=0.08)
        saved = 1 - search.costs.macs(schedule) / search.costs.macs(search.dense)
        start = search.point(search.dense).macs_saved
        assert 1 - (1 - saved) * (1 - start) == pytest.approx(point.macs_saved, abs=0.05)


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
def test_the_best_schedule_within_a_limit(search: Search, share: float) -> None:
    """None of the regular ones has less divergence; it is the same when searched again."""
    limit = share * search.costs.cycles(search.dense)
    best = search.best(search.costs.cycles, limit)
    assert search.costs.cycles(best) <= limit and best.keep[-1] >= 1
    assert list(best.keep) == sorted(best.keep, reverse=True)
    for other, divergence in search.tried.items():
        if len(set(other.levels)) == 1 and search.costs.cycles(other) <= limit:
            assert search.tried[best] <= divergence or other not in search.regular(search.costs.cycles, limit)
    assert search.best(search.costs.cycles, limit) == best
    log, dense = (
        logits.log_softmax(dim=-1) for logits in (search.logits_of(best), search.logits_of(search.dense))
    )
    assert search.tried[best] == pytest.approx(float((dense.exp() * (dense - log)).sum(dim=-1).mean()))


def test_more_costs_less(search: Search) -> None:
    """The divergence of what is found grows as the budget shrinks."""
    limits = [share * search.costs.cycles(search.dense) for share in (1.0, 0.8, 0.6, 0.45)]
    found = [search._divergence(search.best(search.costs.cycles, limit)) for limit in limits]
    assert found[0] == pytest.approx(0, abs=1e-9) and found == sorted(found)


def test_a_budget_that_the_whole_network_keeps(search: Search) -> None:
    """Needs no pruning, also where the last block is trimmed, which the tables do not know."""
    search.trim = True
    try:
        dense = search.point(search.dense)
        assert dense.cycles < search.costs.cycles(search.dense)
        for budget in ({"cycles": dense.cycles}, {"macs_saved": dense.macs_saved}):
            assert search.within(**budget).layers == ()
        point = search.within(cycles=0.9 * dense.cycles)
        assert 0.75 * dense.cycles < point.cycles <= 0.9 * dense.cycles and point.layers
    finally:
        search.trim = False


def test_budgets_are_kept_exactly(search: Search) -> None:
    """By the cycle model and the integer reference, though the tables are off by some percent."""
    dense = search.point(search.dense)
    for share in (0.85, 0.6):
        point = search.within(cycles=share * dense.cycles)
        assert share * dense.cycles * 0.8 < point.cycles <= share * dense.cycles
    point = search.within(macs_saved=0.5)
    assert 0.5 <= point.macs_saved < 0.65
    both = search.within(cycles=0.85 * dense.cycles, macs_saved=0.5)
    assert both.cycles <= 0.85 * dense.cycles and both.macs_saved >= 0.5
    both = search.within(cycles=0.6 * dense.cycles, macs_saved=0.1)
    assert both.cycles <= 0.6 * dense.cycles


def test_the_fastest_schedule_is_found(search: Search) -> None:
    """A budget that it keeps is kept, and one below it names it."""
    with pytest.raises(RowvitError, match="no schedule is within the budget; the fastest takes") as error:
        search.within(cycles=10)
    cycles = float(re.search(r"takes ([\d,]+) cycles", str(error.value))[1].replace(",", ""))
    strictest = Schedule((1,) * 4, (len(ENERGIES),) * 4)
    assert cycles == round(search.point(strictest).cycles)
    found = search.within(cycles=cycles + 1)
    assert cycles - 1 <= found.cycles <= cycles + 1
    assert search.within(cycles=cycles + 200).cycles <= cycles + 200
    with pytest.raises(RowvitError, match="the fastest takes"):
        search.within(cycles=cycles - 1)


def test_a_network_of_one_block(trained: tuple[Path, Path]) -> None:
    """It drops tokens for its FFN."""
    torch.manual_seed(1)
    model = VisionTransformer(replace(CONFIG, depth=1))
    pixels = open_data(trained[1], "train").prepared(16, "bicubic", 1.0)
    package = stand_in(model, CARD, pixels, "image")
    with Search(model, CARD, package, pixels, configs.load("tiny")) as found:
        point = found.within(macs_saved=0.4)
        assert point.macs_saved >= 0.4 and point.layers == (0,)


def test_a_network_of_one_class(trained: tuple[Path, Path]) -> None:
    """Whatever is dropped, its answer is the same."""
    pixels, _ = labelled(trained[1])
    model, card = VisionTransformer(replace(CONFIG, classes=1)), replace(CARD, classes=["one"])
    package = stand_in(model, card, pixels, "image")
    with pytest.raises(RowvitError, match="of one class every schedule gives the same answer"):
        Search(model, card, package, pixels, configs.load("tiny"))


def test_the_front(trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of the plot joins what nothing faster reaches."""
    pytest.importorskip("matplotlib")
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    tops = {100: 0.5, 90: 0.7, 80: 0.6, 70: 0.6, 60: 0.2, 50: 0.3}
    points = [Point((0,), 0.5, cycles * 1e6, 0.5, top1=top) for cycles, top in tops.items()]
    plot(points, points[2], configs.load("tiny"), tmp_path / "front.png")
    dots, line, star = drawn[0].axes[0].get_lines()
    assert len(dots.get_xdata()) == 6 and star.get_xdata() == [80]
    assert [*line.get_xdata()] == [50, 70, 90]


def test_moves() -> None:
    """Tokens of one block, between its neighbours'; levels up to the highest."""
    one = Schedule((10, 8, 8, 3), (0, 0, 8, 0))
    assert one.with_tokens(1, -1, 10) is None and one.with_tokens(1, 3, 10) is None
    assert one.with_tokens(1, 2, 10) == Schedule((10, 10, 8, 3), one.levels)
    assert (
        one.with_tokens(3, -2, 10) == Schedule((10, 8, 8, 1), one.levels)
        and one.with_tokens(3, -3, 10) is None
    )
    assert one.with_tokens(0, 1, 10) is None
    assert one.with_tokens(0, 2, 12) == Schedule((12, 8, 8, 3), one.levels)
    assert one.with_level(2, 1) is None and one.with_level(0, -1) is None
    assert one.with_level(2, -1) == Schedule(one.keep, (0, 0, 7, 0))


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


def test_tiles_are_the_networks(trained: tuple[Path, Path]) -> None:
    """Whose rows of a tile it will be quantised with: by them rule `tile` costs what it costs."""
    model, card = store.load(trained[0])
    model.config = replace(model.config, tile_rows=4)
    package = stand_in(model, card, labelled(trained[1])[0][:8], "tile")
    assert package.meta["tile_rows"] == 4


def test_rule_without_room_is_left_out(trained: tuple[Path, Path]) -> None:
    model, _ = store.load(trained[0])
    pixels, _ = labelled(trained[1])
    package, config = integers(model, pixels), configs.load("tiny")
    changed = ModelPackage(package.meta | {"ffn2_rule": "tile"}, package.tensors)
    assert tile_cycles(package, pixels, config) == {
        "tile": cycles_of(changed, pixels[:: len(pixels) // 4][:4], config)[0]
    }
    package.meta["tile_rows"] = 1  # 17 masks of 4 words, where there are 64
    assert tile_cycles(package, pixels, config) == {}


def command(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["prune", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize("photos", [0, 1, 4, 7, 8, 301])
def test_some_photos_are_from_all_over_the_set(photos: int) -> None:
    """Which is sorted by class: those between them are as many everywhere."""
    chosen = spread(np.arange(photos), 4)
    assert len(chosen) == min(4, photos)
    assert not photos or np.ptp(np.diff([*chosen, photos])) <= 1


def test_search_for_a_budget(trained: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    net, data = trained
    arguments = [net, "--data", data, "-c", "tiny", "-o", tmp_path / "out.safetensors", "--photos", 30]
    files = ["--plot", tmp_path / "p.png", "--json", tmp_path / "p.json"]
    text = command(*arguments, "--macs-saved", 45, *files)
    model, card = store.load(tmp_path / "out.safetensors")
    points = json.loads((tmp_path / "p.json").read_text())
    assert points[0]["layers"] == [] and points[0]["agreement"] == 1
    assert [p["cycles"] for p in points] == sorted((p["cycles"] for p in points), reverse=True)
    layers, thresholds = [step["layer"] for step in model.config.pruning], list(model.config.thresholds)
    shares = [step["keep"] / 16 for step in model.config.pruning]
    same = [(p["layers"], p["rho"], p["thresholds"]) == (layers, shares, thresholds) for p in points]
    (chosen,) = (point for point, wanted in zip(points, same, strict=True) if wanted)
    assert chosen["macs_saved"] >= 0.45 and chosen["top1"] is not None
    costs = dict(re.findall(r"(image|tile) ([\d,]+)", text.split("cycles by rule:")[1]))
    assert model.config.ffn2_rule == min(costs, key=lambda name: int(costs[name].replace(",", "")))
    assert "chosen" in text and (tmp_path / "p.png").stat().st_size > 10_000
    assert card.accuracy["set"] == "a test, all 12"
    assert len(card.history) == bool(layers) + bool(thresholds)
    assert "the fastest takes" in command(*arguments, "--cycles", 10, code=2)
    assert "leave out --max-loss" in command(*arguments, "--cycles", 9, "--max-loss", 1, code=2)


def test_what_the_network_had_before_counts_for_nothing(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Its schedule and thresholds are replaced: the figures are those of the network without them."""
    net, data = trained
    model, card = store.load(net)
    set_pruning(model, keep_schedule(16, (1,), 0.3))
    set_ffn2(model, "image", (0.2,) * 4)
    store.save(tmp_path / "had.safetensors", model, card)
    told = []
    for source in (net, tmp_path / "had.safetensors"):
        arguments = [source, "--data", data, "-c", "tiny", "-o", tmp_path / "out.safetensors", "--photos", 30]
        said = command(*arguments, "--cycles", 25_000, "--json", tmp_path / "p.json", "--no-measure")
        assert ("that it has are replaced" in said) == (source != net)
        told.append((json.loads((tmp_path / "p.json").read_text()), store.load(tmp_path / "out.safetensors")))
    assert told[0][0] == told[1][0] and told[0][1][0].config == told[1][0 + 1][0].config


def test_what_quantise_would_refuse(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """At once, and not after a search."""
    model = VisionTransformer(replace(CONFIG, prefix=3, pool="class-mean"))
    store.save(tmp_path / "mean.safetensors", model, CARD)
    arguments = [tmp_path / "mean.safetensors", "--data", trained[1], "-o", tmp_path / "out.safetensors"]
    for way in (["--macs-saved", 20], ["--layers", 1, "--rho", 0.5]):
        assert "pruning may drop the 2 tokens beside the class token" in command(*arguments, *way, code=2)


def test_registers_are_tokens_too() -> None:
    """A budget is met as closely with more prefix tokens."""
    pixels = np.stack(sets.labelled(30, 2)[0])
    for prefix in (1, 9):
        torch.manual_seed(0)
        model = VisionTransformer(replace(CONFIG, prefix=prefix)).eval()
        package = integers(model, pixels)
        with Search(model, CARD, package, pixels, configs.load("tiny"), lossy=False) as found:
            point = found.within(macs_saved=0.4)
            assert 0.4 <= point.macs_saved < 0.45, prefix


def test_search_without_labels_and_thresholds(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """A folder of photos is enough; --exact drops tokens alone."""
    net, data = trained
    photos = tmp_path / "photos"
    photos.mkdir()
    for index, pixels in enumerate(labelled(data)[0][:12]):
        (photos / f"{index}.png").write_bytes(sets.png(pixels))
    arguments = [net, "--data", photos, "-c", "tiny", "-o", tmp_path / "out.safetensors"]
    said = command(*arguments, "--macs-saved", 45, "--exact")
    model, card = store.load(tmp_path / "out.safetensors")
    assert model.config.pruning and model.config.thresholds == () and card.accuracy == {}
    assert "top-1" not in said and "agreement" in said


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
    for word in ("--lossy", "--exact"):
        said = command(*arguments, "--layers", "1,2", "--rho", 0.5, word, code=2)
        assert "--lossy and --exact are of a search; by hand --max-loss raises thresholds" in said
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
    assert "has no folder" in command(*arguments, *hand, "--max-loss", 1, code=2)


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
            timed=range(8),
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
