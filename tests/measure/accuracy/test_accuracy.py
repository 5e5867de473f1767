# SPDX-License-Identifier: Apache-2.0
"""Accuracy over a set: what is counted, on whatever target and by however many workers."""

from __future__ import annotations

import json
import threading
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from waiting import HANG

from rowvit.cli import app
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage, keep_schedule
from rowvit.hardware import config as configs
from rowvit.measure.accuracy.evaluation import Evaluation, Outcomes, evaluate, matched, read_labels, wilson
from rowvit.quant.synthetic import random_package
from rowvit.reference import patchify, run

torch = pytest.importorskip("torch")
import photos as sets  # noqa: E402

from rowvit.model import store  # noqa: E402
from rowvit.model.prune import set_ffn2  # noqa: E402
from rowvit.model.vit import VisionTransformer, ViTConfig, predict  # noqa: E402
from rowvit.photos import Photos, open_data  # noqa: E402
from rowvit.quant.quantise import QuantOptions, quantise  # noqa: E402

TINY = dict(dim=32, depth=2, heads=2, image_size=16, patch_size=4, hidden=64, classes=3)


def package(**changes: object) -> ModelPackage:
    """That knows the colours of the photos, unless it has more classes."""
    found = random_package(np.random.default_rng(0), **(TINY | changes))
    if len(found.meta["classes"]) == len(sets.COLOURS):
        found.meta["classes"] = list(sets.COLOURS)
    return found


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # R: prop.test(right, total, correct=FALSE)$conf.int
    [
        (15, 20, 0.531299, 0.888138),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (9100, 10000, 0.904228, 0.915454),
    ],
)
def test_wilson(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=2e-5)


def test_top_k_and_confusion() -> None:
    logits = np.array(
        [[3, 2, 1, 0, -1, -2], [0, 0, 5, 0, 0, 0], [1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1]], float
    )
    ones = np.ones(4, np.int64)
    nothing = np.full(4, np.nan)
    work = Outcomes(logits, ones, ones * 4, ones, ones * 2, ones * 0.5, nothing, ones.astype(bool), nothing)
    found = Evaluation("n", "d", "int8 golden", np.array([0, 5, 0, 5]), list("abcdef"), work)
    assert found.right() == 1 and found.right(2) == 1 and found.right(5) == 1 and found.right(6) == 4
    confusion = found.confusion()
    assert confusion[0, 0] == 1 and confusion[5, 2] == 1 and confusion[0, 5] == 1 and confusion[5, 0] == 1
    assert confusion.sum() == 4
    report = found.report()
    assert report["top1"] == 25 and report["macs_saved"] == 75 and report["w2_rows_saved"] == 50
    assert "cycles" not in report and "bit_exact" not in report and "unlike" not in report


def test_package_over_a_set(tmp_path: Path) -> None:
    photos = open_data(sets.archive(tmp_path / "a.npz", test=40), "test")
    net = package(pruning=keep_schedule(16, (0,), 0.5))
    seen: list[int] = []
    found = evaluate(net, photos, progress=seen.append)
    expected = run(net, patchify(photos.pixels(range(40), 16), 4))
    assert found.right() == sum(r.top1 == y for r, y in zip(expected, photos.labels, strict=True))
    assert found.work.macs_executed.tolist() == [r.counts.macs_executed for r in expected]
    assert found.work.w2_rows_fetched.tolist() == [r.counts.w2_rows_fetched for r in expected]
    assert seen == [32, 40]
    with pytest.raises(RowvitError, match="has no photos"):
        evaluate(net, replace(photos, files=[], labels=photos.labels[:0]))


def test_cycles_are_of_photos_from_all_over_the_set(tmp_path: Path) -> None:
    """A set is sorted by class; what cannot be decoded is none of them."""
    photos = open_data(sets.archive(tmp_path / "a.npz", test=70), "test")
    net = package(pruning=keep_schedule(16, (0,), 0.5))
    found = evaluate(net, photos, config=configs.load("tiny"), cycles=4)
    assert np.flatnonzero(np.isfinite(found.work.cycles)).tolist() == [0, 17, 35, 52]
    files = [b"" if number in (16, 17, 40) else file for number, file in enumerate(photos.files)]
    fewer = evaluate(
        net, replace(photos, files=files), config=configs.load("tiny"), cycles=4, refused=lambda *_: None
    )
    assert np.flatnonzero(np.isfinite(fewer.work.cycles)).tolist() == [0, 33, 49]
    assert fewer.work.cycles[[0, 33, 49]].tolist() == found.work.cycles[[0, 35, 52]].tolist()
    every = evaluate(net, photos, config=configs.load("tiny"), cycles=100)
    assert np.isfinite(every.work.cycles).all()


@pytest.mark.parametrize("pool", ["token", "norm-mean", "class-mean"])
def test_float_counts_as_integers_where_the_host_has_the_head(tmp_path: Path, pool: str) -> None:
    photos = open_data(sets.archive(tmp_path / "a.npz"), "test")
    torch.manual_seed(0)
    model = VisionTransformer(ViTConfig(**TINY, pool=pool)).eval()
    pixels = photos.pixels(range(12), 16)
    made = quantise(model, pixels, QuantOptions("n", list(sets.COLOURS), ffn_chunk=64))
    work = [evaluate(one, photos).work for one in ((model, store.Card("n", list(sets.COLOURS))), made)]
    assert work[0].macs_dense.tolist() == work[1].macs_dense.tolist()


@torch.no_grad()
@pytest.mark.parametrize("rule", ["none", "image", "tile"])
def test_float_network_counts_as_its_integers(tmp_path: Path, rule: str) -> None:
    """MACs and rows of a float network against the definition, counted from its own hidden activations."""
    photos = open_data(sets.archive(tmp_path / "a.npz"), "test")
    torch.manual_seed(0)
    config = ViTConfig(**TINY, pruning=tuple(keep_schedule(16, (1,), 0.5)), ffn2_rule=rule, tile_rows=4)
    model, card = VisionTransformer(config).eval(), store.Card("n", list(sets.COLOURS))
    found = evaluate((model, card), photos)
    pixels = photos.pixels(range(12), 16)
    hidden: dict[str, np.ndarray] = {}
    logits = predict(
        model,
        pixels,
        card.mean,
        card.std,
        observe=lambda name, value: hidden.update({name: value.numpy()}) if "hidden" in name else None,
    )
    assert np.array_equal(found.work.logits.argmax(axis=1), logits.argmax(axis=1))
    fixed = 16 * 48 * 32 + 3 * 32
    dense = fixed + 2 * (4 * 17 * 32**2 + 2 * 17**2 * 32 + 2 * 17 * 32 * 64)
    assert (found.work.macs_dense == dense).all()
    first, second = (hidden[f"layers.{i}.hidden"] != 0 for i in range(2))
    assert first.shape == (12, 17, 64) and second.shape == (12, 9, 64)
    for image in range(12):
        macs = fixed + (4 * 17 + 3 * 17 + 9) * 32**2 + 4 * 17**2 * 32 + (17 + 9) * 32 * 64
        used = 26 * 64 if rule == "none" else int(first[image].sum() + second[image].sum())
        assert found.work.macs_executed[image] == macs + 32 * used
        rows = 0
        for used in (first[image], second[image]):
            step = 4 if rule == "tile" else 100
            tiles = [used[i : i + step].any(axis=0).sum() for i in range(0, len(used), step)]
            rows += sum(tiles) if rule != "none" else 64
        assert found.work.w2_rows_fetched[image] == rows
    set_ffn2(model, rule, (1e9, 0.0))  # of the first layer nothing is left
    fewer = evaluate((model, card), photos).work
    assert (fewer.zeros > 17 / 26 - 1e-9).all()
    assert (fewer.w2_rows_fetched <= {"none": 128, "image": 64, "tile": 3 * 64}[rule]).all()


DIGITS = list(map(str, range(10)))
WORDS = "zero one two three four five six seven eight nine".split()  # noqa: SIM905


def photos_of(*names: str) -> Photos:
    return Photos([], np.arange(len(names)), names, "set test")


def test_classes_by_name() -> None:
    # some of them, in another order
    found = matched(photos_of("7", "2"), "net", DIGITS)
    assert found.labels.tolist() == [7, 2] and found.classes == tuple(DIGITS)
    assert found.name == "set test, 2 of 10 classes"
    # numbers are indices, in the order of numbers and not of names
    found = matched(photos_of("0", "1", "10", "2"), "net", [f"c{i}" for i in range(11)])
    assert found.labels.tolist() == [0, 1, 10, 2]
    # but no indices beside names that are numbers
    for classes, given in ((list("12345"), list("01234")), (list("0124"), list("0123"))):
        with pytest.raises(RowvitError, match=f"{'0' if '0' not in classes else '3'} of the photos"):
            matched(photos_of(*given), "net", classes)
    # ImageNet's folders, for a network whose classes have no names, and for no other
    synsets, numbers = [f"n{i:08d}" for i in range(1000)], list(map(str, range(1000)))
    assert matched(photos_of(*synsets), "net", numbers).labels.tolist() == list(range(1000))
    with pytest.raises(RowvitError, match="are no classes of net"):
        matched(photos_of(*synsets), "net", [f"c{i}" for i in range(1000)])
    with pytest.raises(RowvitError, match="are no classes of net"):
        matched(photos_of(*synsets[:999]), "net", numbers)


def test_two_classes_of_one_name(tmp_path: Path) -> None:
    """As ImageNet's cranes: told apart by their numbers, and never by the name."""
    classes = ["crane", "tench", "crane"]
    found = matched(photos_of("a", "b", "c"), "net", classes, "sorted")
    assert found.labels.tolist() == [0, 1, 2]
    again = matched(found, "net", classes)  # as `evaluate` does
    assert again.labels.tolist() == [0, 1, 2] and again.name == found.name
    (tmp_path / "l.csv").write_text("x,2\ny,tench\nz,0\n")
    labels = read_labels(str(tmp_path / "l.csv"))
    found = matched(photos_of("x", "y", "z"), "net", classes, labels)
    assert found.labels.tolist() == [2, 1, 0]
    for names, given in ((("crane", "tench"), None), (("x",), {"x": "crane"})):
        with pytest.raises(RowvitError, match="two classes of net are called crane; give their numbers"):
            matched(photos_of(*names), "net", classes, given)


def test_names_that_do_not_match_are_refused() -> None:
    """Sorted folders zero ... nine are not the digits 0 ... 9 in order."""
    with pytest.raises(RowvitError) as refused:
        matched(photos_of(*sorted(WORDS)), "digits", DIGITS)
    assert str(refused.value) == (
        "eight, five, four, ... zero of the photos (set test) are no classes of digits (0, 1, 2, ... 9);"
        " name the folders as the classes, or pass --labels FILE with a line FOLDER,CLASS for each; or"
        " --labels sorted, if the network was trained on folders in sorted order"
    )
    with pytest.raises(RowvitError, match="cat of the photos"):
        matched(photos_of("3", "cat"), "digits", DIGITS)


def test_names_that_are_written_in_two_ways(tmp_path: Path) -> None:
    """MacOS takes accents apart, in names of folders, and a network or a file may have them so."""
    whole, apart = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    assert matched(photos_of("bar", whole), "net", ["bar", apart]).labels.tolist() == [0, 1]
    assert matched(photos_of(apart, "bar"), "net", ["bar", whole]).labels.tolist() == [1, 0]
    (tmp_path / "l.csv").write_text(f"{apart},bar\nb,{apart}\n", encoding="utf-8")
    labels = read_labels(str(tmp_path / "l.csv"))
    assert matched(photos_of("b", whole), "net", ["bar", whole], labels).labels.tolist() == [1, 0]


def test_links_and_classes_without_photos(tmp_path: Path) -> None:
    """Links to folders are followed, one that leads back ends; a class without photos is missing."""
    data = sets.folder(tmp_path / "data")
    moved = (data / "val" / "red").rename(tmp_path / "elsewhere")
    (data / "val" / "red").mkdir()
    found = matched(open_data(data, "test"), "net", list(sets.COLOURS))
    assert len(found) == 8 and found.name.endswith(", 2 of 3 classes")
    (data / "val" / "red" / "more").symlink_to(moved)
    for name, place in (("itself", data / "val" / "red"), ("up", data / "val"), ("top", data)):
        (data / "val" / "red" / name).symlink_to(place)
    found = matched(open_data(data, "test"), "net", list(sets.COLOURS))
    assert len(found) == 12 and found.name == "data test, all 12"


@pytest.mark.parametrize("name", ["Train", "valid", "Test"])
def test_classes_that_are_called_as_splits(tmp_path: Path, name: str) -> None:
    data = sets.folder(tmp_path / "data") / "val"
    (data / "red").rename(data / name)
    assert open_data(data, "test").classes == tuple(sorted(["blue", "green", name]))
    (tmp_path / "loose" / name).mkdir(parents=True)
    for place in ("a.png", f"{name}/b.png"):
        (tmp_path / "loose" / place).write_bytes(sets.png(sets.labelled(1, 3)[0][0]))
    assert len(open_data(tmp_path / "loose", "train", labels=False)) == 1


def test_labels_from_a_file(tmp_path: Path) -> None:
    lines = [f"{word}, {number}" for number, word in enumerate(WORDS)]
    (tmp_path / "l.csv").write_text("\n".join([*lines, ""]))
    found = matched(photos_of(*sorted(WORDS)), "digits", DIGITS, read_labels(str(tmp_path / "l.csv")))
    assert [sorted(WORDS)[i] for i in np.argsort(found.labels)] == WORDS
    (tmp_path / "l.json").write_text('{"cat": "animal", "dog": "animal", "car": 1}')
    labels = read_labels(str(tmp_path / "l.json"))
    found = matched(photos_of("car", "cat", "dog"), "net", ["animal", "thing"], labels)
    assert found.labels.tolist() == [1, 0, 0] and found.name == "set test"
    with pytest.raises(RowvitError, match="bus of the photos"):
        matched(photos_of("bus", "cat"), "net", ["animal", "thing"], labels)
    assert matched(photos_of("x", "y"), "net", ["a", "b"], "sorted").labels.tolist() == [0, 1]
    with pytest.raises(RowvitError, match=r"knows 5 classes, the photos .* have 3"):
        matched(photos_of("x", "y", "z"), "net", list("abcde"), "sorted")
    deep, long = '{"a":' * 200_000, f"a,{'b' * 200_000}"
    for name, text, message in (("l.json", deep, "nested too deeply"), ("l.csv", long, "field larger than")):
        (tmp_path / name).write_text(text)
        with pytest.raises(RowvitError, match=message):
            read_labels(str(tmp_path / name))
    for text, message in (("a,b,c", "line 1 is not FOLDER,CLASS"), ("a,b\n\nc", "line 2 is not")):
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(RowvitError, match=message):
            read_labels(str(tmp_path / "l.csv"))
    for text, message in (("[1]", "no object of names"), ('{"a": 1.5}', "no object"), ("{", "is not JSON")):
        (tmp_path / "l.json").write_text(text)
        with pytest.raises(RowvitError, match=message):
            read_labels(str(tmp_path / "l.json"))
    with pytest.raises(RowvitError, match="cannot be read"):
        read_labels(str(tmp_path / "none"))


def test_classes_in_another_order(tmp_path: Path) -> None:
    """By name, whatever the order."""
    photos = open_data(sets.archive(tmp_path / "a.npz"), "test")
    net = package()
    net.meta["classes"] = list(sets.COLOURS)
    found = evaluate(net, photos)
    back = np.array([2, 0, 1])  # the network's third class comes first
    net.tensors |= {key: net.tensors[key][..., back] for key in ("head.weight", "head.bias", "head.mult")}
    other = evaluate(net, photos)
    net.meta["classes"] = [list(sets.COLOURS)[i] for i in back]
    turned = evaluate(net, photos)
    assert turned.right() == found.right() != other.right()
    found.compare(turned)  # the same answers by name, whatever the order
    assert found.agreement == 1
    found.compare(other)
    assert found.agreement == float((found.guesses == other.guesses).mean()) < 1
    # one that knows something else, too, which no photo shows
    four = package(classes=4)
    four.tensors |= net.tensors
    for key in ("head.weight", "head.bias", "head.mult"):
        tensor = net.tensors[key]
        four.tensors[key] = np.concatenate([0 * tensor[..., :1], tensor], axis=-1)
    four.tensors["head.bias"][0] = -(1 << 24)
    four.meta |= {"params": net.meta["params"], "scales": net.meta["scales"]}
    four.meta["classes"] = ["nothing", *net.meta["classes"]]
    found.compare(evaluate(four, photos))
    assert found.agreement == 1


def test_workers_change_nothing(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    photos = open_data(sets.archive(tmp_path / "a.npz", test=70), "test")
    net = package()
    one, two = evaluate(net, photos), evaluate(net, photos, jobs=2)
    assert np.array_equal(one.work.logits, two.work.logits)
    assert np.array_equal(one.work.macs_executed, two.work.macs_executed)


@pytest.mark.slow
def test_dask_cluster_by_its_address(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    photos = open_data(sets.archive(tmp_path / "a.npz", test=40), "test")
    net = package()
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        found = evaluate(net, photos, scheduler=cluster.scheduler_address)
    assert np.array_equal(found.work.logits, evaluate(net, photos).work.logits)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        pytest.raises(RowvitError, match=r"has no workers; start some: dask worker"),
    ):
        evaluate(net, photos, scheduler=cluster.scheduler_address)
    with pytest.raises(RowvitError, match=r"127\.0\.0\.1:9"):
        evaluate(net, photos, scheduler="tcp://127.0.0.1:9")


OVER = threading.Event()


def stands_still(*_: object, **__: object) -> None:
    """A worker's part of the work; Dask finds it by its name."""
    OVER.wait(HANG)


def test_workers_that_give_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    photos = open_data(sets.archive(tmp_path / "a.npz"), "test")
    monkeypatch.setattr("rowvit.measure.accuracy.evaluation.DEADLINE", 0.2)
    monkeypatch.setattr("rowvit.measure.accuracy.evaluation._shard", stands_still)
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        with pytest.raises(RowvitError, match="photos 0 to 11: the workers died on them, or did not answer"):
            evaluate(package(), photos, scheduler=cluster.scheduler_address)
        OVER.set()


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = package()
    digits.meta |= {"name": "digits", "classes": ["0", "1", "2"]}
    digits.save(tmp_path / "digits.safetensors")
    data = sets.archive(tmp_path / "a.npz")
    package().save(tmp_path / "net.safetensors")
    torch.manual_seed(0)
    model = VisionTransformer(ViTConfig(**TINY))
    store.save(tmp_path / "float.safetensors", model, store.Card("float", list(sets.COLOURS)))

    def call(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["eval", *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result.output

    arguments = [tmp_path / "net.safetensors", "--data", data, "--config", "tiny"]
    text = call(
        *arguments, "--cycles", 2, "--agree", tmp_path / "net.safetensors", "--json", tmp_path / "r.json"
    )
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["agreement"] == 100 and report["photos"] == 12 and report["cycles"] > 1000
    assert f"{report['top1']:.2f} %" in text and report["cycles_of"] == "cycle model, tiny, 2 photos"
    whole = call(*arguments, "--rule", "none", "--json", tmp_path / "none.json")
    assert "0.0 % fewer" in whole
    assert json.loads((tmp_path / "none.json").read_text())["top1"] == report["top1"]
    text = call(tmp_path / "float.safetensors", "--data", data, "--photos", 5, "--rule", "tile")
    assert "(float fp32)" in text and "5 of 12 drawn" in text
    text = call(tmp_path / "float.safetensors", "--data", data, "--precision", "bf16")
    assert "(float bf16)" in text
    assert "'fp4' is not fp32" in call(*arguments, "--precision", "fp4", code=2)
    assert "quantise it" in call(tmp_path / "float.safetensors", "--data", data, "--target", "sim", code=2)
    said = call(tmp_path / "float.safetensors", "--data", data, "--cycles", 2, code=2)
    assert "--cycles is for int8 networks" in said
    said = call(*arguments, "--scheduler", "tcp://localhost:1", "--jobs", 2, code=2)
    assert "--jobs is for this machine" in said
    assert "'most' is not one of" in call(*arguments, "--rule", "most", code=2)
    assert "rowvit run" in call(*arguments, "--target", "board", code=2)
    monkeypatch.setattr("rowvit.measure.accuracy.evaluation.evaluate", None)
    for other, message in (("typo", "typo"), ("digits", "are no classes of digits")):
        said = call(*arguments, "--agree", tmp_path / f"{other}.safetensors", code=2)
        assert message in " ".join(said.split())  # before the work


def test_photos_that_cannot_be_decoded(tmp_path: Path) -> None:
    """They are told and do not count, in whatever shard they are; the others do, as without them."""
    good = open_data(sets.archive(tmp_path / "a.npz", test=70), "test")
    damaged = {2, 33, *range(64, 70)}  # the last shard has no other
    files = [file[:-20] if number in damaged else file for number, file in enumerate(good.files)]
    refused: dict[int, RowvitError] = {}
    seen: list[int] = []
    net = package()
    with pytest.raises(RowvitError, match="cannot be decoded"):
        evaluate(net, replace(good, files=files))
    found = evaluate(net, replace(good, files=files), progress=seen.append, refused=refused.__setitem__)
    assert refused.keys() == damaged and "cannot be decoded" in str(refused[33]) and seen == [32, 64, 70]
    whole = evaluate(net, good)
    assert np.array_equal(found.work.logits, np.delete(whole.work.logits, [*damaged], axis=0))
    assert np.array_equal(found.truth, np.delete(good.labels, [*damaged]))
    assert found.data == f"{good.name}, but for 8 that cannot be decoded"
    with pytest.raises(RowvitError, match="is no picture"):
        evaluate(net, replace(good, files=[b"" for _ in files]), refused=refused.__setitem__)

    net.save(tmp_path / "net.safetensors")
    data = sets.folder(tmp_path / "set")
    (data / "val" / "red" / "photo.jpg").write_text("no picture")
    result = CliRunner().invoke(
        app, ["eval", str(tmp_path / "net.safetensors"), "--data", str(data), "--json", str(tmp_path / "r")]
    )
    assert result.exit_code == 1 and "photo.jpg: is no picture" in " ".join(result.output.split())
    assert json.loads((tmp_path / "r").read_text())["photos"] == 12


def test_on_the_simulated_rtl(tmp_path: Path) -> None:
    photos = open_data(sets.archive(tmp_path / "a.npz"), "test").subset(2)
    from rowvit.hardware import config as configs

    net, config = package(), configs.load("tiny")
    found = evaluate(net, photos, "sim", config)
    assert found.work.bit_exact.all() and np.isfinite(found.work.cycles).all()
    report = found.report()
    assert report["bit_exact"] == 2 and report["cycles_of"] == "RTL in simulation, tiny, 2 photos"
    golden = evaluate(net, photos, "golden", config, cycles=2)
    assert np.array_equal(golden.work.logits, found.work.logits)
    assert replace(golden).work.cycles == pytest.approx(found.work.cycles, rel=0.1)


@pytest.mark.parametrize("what", ["logits", "kept", "fewer", "tokens"])
def test_a_photo_that_differs_on_the_simulated_rtl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """In whatever the two answer, and be it that one keeps tokens where the other has none."""
    from rowvit.hardware import config as configs
    from rowvit.targets.driver import Accelerator

    drops = [{"layer": 0, "keep": 6, "threshold": 0}]
    net = package(tokens={"layers": [TINY["depth"] - 1], "rows": "all"}, pruning=drops)
    plain, seen = Accelerator.__call__, []

    def other(self: Accelerator, *arguments: object) -> list:
        first, *more = found = plain(self, *arguments)
        seen.append(found)
        if len(seen) > 1:
            return found
        if what == "logits":
            first.logits = first.logits + 1
        elif what == "kept":
            first.kept = [first.kept[0][::-1]]
        elif what == "fewer":
            first.kept = []
        else:
            first.tokens = {n: one._replace(values=1 - one.values) for n, one in first.tokens.items()}
        return [first, *more]

    monkeypatch.setattr(Accelerator, "__call__", other)
    photos = open_data(sets.archive(tmp_path / "a.npz"), "test").subset(2)
    found = evaluate(net, photos, "sim", configs.load("tiny"))
    assert found.work.bit_exact.tolist() == [False, True]


def test_workers_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them stays behind."""
    distributed = pytest.importorskip("distributed")
    clusters: list = []

    def refuses(cluster: object, **_: object) -> None:
        clusters.append(cluster)
        raise OSError("timed out")

    monkeypatch.setattr(distributed, "Client", refuses)
    photos = open_data(sets.archive(tmp_path / "a.npz"), "test")
    with pytest.raises(RowvitError, match=r"no workers could be started \(timed out\); use --jobs 1"):
        evaluate(package(), photos, jobs=2)
    assert clusters[0].status == distributed.Status.closed and not clusters[0].workers


def test_logits_that_are_no_numbers_are_no_accuracy():
    one = np.ones(2)
    logits = np.array([[0.0, np.nan], [1.0, 0.0]])
    outcomes = Outcomes(logits, *[one] * 6, one.astype(bool), one)
    with pytest.raises(RowvitError, match="n: of 1 of 2 photos it has logits that are no numbers"):
        Evaluation("n", "set", "float fp32", np.zeros(2, np.int64), ["a", "b"], outcomes)
