# SPDX-License-Identifier: Apache-2.0
"""Own classes from a few photos: the head, the package with it, the command, and what is refused."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import photos as sets
import pytest
from PIL import Image
from typer.testing import CliRunner

from networks import randomise
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.measure.accuracy.evaluation import wilson
from rowvit.photos import Photos, open_data
from rowvit.quant.synthetic import random_package
from rowvit.reference import patchify, run
from rowvit.targets.session import Session
from rowvit.teach import fit as fitting
from rowvit.teach import lesson
from rowvit.teach.backbone import Backbone, Kept
from rowvit.teach.familiar import Familiar, learn
from rowvit.teach.lesson import UNSEEN, Findings, Seen, Taught, look, read, recordings, require, teach
from rowvit.teach.views import all_views, views

torch = pytest.importorskip("torch")

from rowvit.cli import app  # noqa: E402
from rowvit.cli.teach import _print  # noqa: E402
from rowvit.model.vit import VisionTransformer, ViTConfig  # noqa: E402
from rowvit.quant.quantise import QuantOptions, quantise  # noqa: E402

CONFIG = ViTConfig(sets.SIDE, 4, 32, 2, 2, 48, 5, pruning=({"layer": 0, "keep": 8},))
OPTIONS = QuantOptions("base", list("01234"), ffn_chunk=48)
NAMES = list(sets.COLOURS)


def package(config: ViTConfig = CONFIG, **options: object) -> ModelPackage:
    """Random weights: squares of different colours are different all the same."""
    pictures = np.stack(sets.labelled(30, 8)[0])
    return quantise(randomise(VisionTransformer(config), 1), pictures, replace(OPTIONS, **options))


def class_folders(path: Path, count: int = 24, seed: int = 0) -> Path:
    for number, (pixels, label) in enumerate(zip(*sets.labelled(count, seed), strict=True)):
        place = path / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:03d}.png").write_bytes(sets.png(pixels))
    return path


def clusters(rng: np.random.Generator, counts: list[int], views: int) -> tuple[np.ndarray, ...]:
    """Views of photos around the middle of their class, labels of views, and whose they are."""
    labels = np.repeat(np.arange(len(counts)), counts)
    middles = rng.normal(0, 20, (len(counts), 6))
    own = middles[labels] + rng.normal(0, 15, (len(labels), 6))
    x = np.repeat(own, views, axis=0) + rng.normal(0, 2, (len(labels) * views, 6))
    return x, np.repeat(labels, views), np.repeat(np.arange(len(labels)), views)


@pytest.mark.parametrize("counts", [[8, 5], [9, 3, 7]])
@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_head_minimises_its_loss(counts: list[int], solver: str) -> None:
    """No step in any direction makes the penalised loss smaller; every class counts the same."""
    rng = np.random.default_rng(len(counts))
    x, labels, _ = clusters(rng, counts, 2)
    solve, strengths = {
        "ridge": (fitting._ridge, (0.03, 3.0)),
        "logistic": (fitting._logistic, (0.01, 0.3)),
    }[solver]
    z = (x - x.mean(axis=0)) / x.std()
    weights = 1.0 / np.bincount(labels)[labels]
    weights /= weights.mean()
    wanted = np.eye(len(counts))[labels]

    def loss(weight: np.ndarray, bias: np.ndarray, strength: float) -> float:
        logits = z @ weight.T + bias
        if solver == "ridge":
            errors = (weights[:, None] * (logits - wanted) ** 2).mean(axis=0).sum()
            return float(errors + strength * (weight**2).sum())
        own = np.log(fitting.softmax(logits)[np.arange(len(z)), labels])
        # of two classes one is the other's negative, and the penalty is on what they differ by
        size = (weight**2).sum() if len(counts) > 2 else ((weight[1] - weight[0]) ** 2).sum()
        return float(-(weights * own).sum() * strength + size / 2)

    for head, strength in zip(solve(z, labels, weights, strengths), strengths, strict=True):
        least = loss(head.weight, head.bias, strength)
        for _ in range(50):
            step = 1e-2 * rng.normal(size=head.weight.shape), 1e-2 * rng.normal(size=head.bias.shape)
            if len(counts) == 2 and solver == "logistic":
                step = np.stack([step[0][0], -step[0][0]]), np.stack([step[1][0], -step[1][0]])
            assert loss(head.weight + step[0], head.bias + step[1], strength) > least


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_no_photo_judges_itself(solver: str) -> None:
    """Views of one photo are never on both sides; with labels at random, nothing is recognised."""
    rng = np.random.default_rng(3)
    own = rng.normal(0, 20, (60, 40))
    x, labels = (
        np.repeat(own, 4, axis=0) + rng.normal(0, 0.1, (240, 40)),
        np.repeat(rng.permutation(60) % 3, 4),
    )
    found = fitting.fit(x, labels, np.repeat(np.arange(60), 4), solver)
    assert (found.probabilities.argmax(axis=1) == labels[::4]).mean() < 0.55
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_no_recording_judges_itself(solver: str) -> None:
    """Frames that were taken together, with labels at random: none is recognised, unless they are spread."""
    rng = np.random.default_rng(4)
    recordings = np.repeat(np.arange(30), 6)
    x = np.repeat(rng.normal(0, 20, (30, 40)), 6, axis=0) + rng.normal(0, 0.5, (180, 40))
    labels, photos = (rng.permutation(30) % 3)[recordings], np.arange(180)

    def right(**options: np.ndarray) -> float:
        found = fitting.fit(x, labels, photos, solver, **options)
        return float((found.probabilities.argmax(axis=1) == labels).mean())

    assert right(recordings=recordings) < 0.6 and right() > 0.95
    # where a class has one recording, its photos cannot but be spread
    one = np.where(labels == 1, 0, 1 + recordings)
    assert fitting.lone(labels, one).tolist() == [False, True, False]
    found = fitting.fit(x, labels, photos, solver, recordings=one)
    known = found.probabilities.argmax(axis=1) == labels
    assert known[labels == 1].mean() > 0.9 and known[labels != 1].mean() < 0.6


@pytest.mark.parametrize("count", [3, 10])
def test_few_photos_never_make_it_certain(count: int) -> None:
    """Classes that are told apart without a mistake: as sure as Platt's targets are."""
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(2), count)
    x = np.where(labels, 9.0, -9.0)[:, None] + rng.normal(size=(2 * count, 6))
    found = fitting.fit(x, labels, np.arange(2 * count), "ridge")
    assert (found.probabilities.argmax(axis=1) == labels).all()
    assert found.probabilities.max(axis=1).mean() == pytest.approx((count + 1) / (count + 2), abs=0.02)


def test_old_and_new_photos_count_the_same() -> None:
    """A photo with one view, as those that were kept have, as much as one whose four views are equal."""
    x, labels, photos = clusters(np.random.default_rng(2), [6, 6], 1)
    views = np.repeat(np.arange(12), np.where(np.arange(12) < 4, 1, 4))
    once, found = (fitting.fit(x[v], labels[v], photos[v], "ridge") for v in (np.arange(12), views))
    np.testing.assert_allclose(found.head.weight, once.head.weight, rtol=1e-6)
    np.testing.assert_allclose(found.probabilities, once.probabilities, rtol=1e-6)
    plain, more = (learn(x[v], labels[v], photos[v]) for v in (np.arange(12), views))
    np.testing.assert_allclose(more.whitening, plain.whitening, rtol=1e-5)
    assert more.limit == pytest.approx(plain.limit, rel=1e-5)


def test_probabilities_say_how_often_they_are_right() -> None:
    x, labels, photos = clusters(np.random.default_rng(5), [150, 150, 150], 2)
    found = fitting.fit(x, labels, photos, "ridge")
    sure = found.probabilities.max(axis=1)
    right = found.probabilities.argmax(axis=1) == labels[::2]
    assert abs(sure.mean() - right.mean()) < 0.06 and right.mean() > 0.5


def test_views() -> None:
    meta = package().meta
    pixels = np.arange(40 * 30 * 3, dtype=np.uint16).reshape(40, 30, 3).astype(np.uint8)
    found = views(pixels, meta, 5, True, 7)
    assert found.shape == (5, 16, 16, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, views(pixels, meta, 5, True, 7))
    plain = views(pixels, meta, 5, False, 7)
    np.testing.assert_array_equal(found[[0, 2, 4]], plain[[0, 2, 4]])
    np.testing.assert_array_equal(found[[1, 3]], plain[[1, 3], :, ::-1])
    np.testing.assert_array_equal(views(pixels, meta, 1, True, 9)[0], found[0])
    assert (views(pixels, meta, 3, True, 8)[1:] != found[1:3]).any()


def test_views_of_a_rectangle() -> None:
    """Each is an upright part of the picture, of its shape, with at least 70 % of both sides; no two files
    have the same.
    """
    meta = {
        "architecture": {"image_size": 32, "image_width": 96, "patch_size": 4},
        "preprocessing": {"resize": "bilinear", "crop": 1.0},
    }
    rows, columns = np.mgrid[0:64, 0:192]
    picture = np.stack([4 * rows, columns, 0 * rows], axis=-1).astype(np.uint8)  # a pixel tells its place
    ((*parts,), (*others,)) = all_views([picture, picture], meta, 9, False, pytest.fail)
    for part in parts[1:]:
        y, x = part[..., 0] / 4.0, part[..., 1] / 1.0
        height, width = (np.ptp(y) + 2) / 64, (np.ptp(x) + 2) / 192
        assert 0.66 < height <= 1.05 and 0.66 < width <= 1.05 and abs(height - width) < 0.06
        assert (np.diff(y.mean(axis=1)) > 0).all() and (np.diff(x.mean(axis=0)) > 0).all()
        assert np.ptp(y, axis=1).max() < 2 and np.ptp(x, axis=0).max() < 2
    assert len({part.tobytes() for part in [*parts, *others]}) == 17  # the first is the whole picture


@pytest.mark.parametrize("classes", [5, 0])
def test_int8_head_answers_as_the_float_one(classes: int) -> None:
    """On a backbone with a head, and on one that answers with its class token only."""
    options = {} if classes else dict(tokens="class", classes=[])
    base = package(replace(CONFIG, classes=classes), **options)
    backbone = Backbone.of(base)
    pictures, labels = sets.labelled(30, 2)
    given = Photos(pictures, labels, tuple(NAMES), "squares")
    with Session(backbone.package, "golden", "tiny") as session:
        seen = look(given, backbone, session.run, 3, True, lambda *_: None)
    assert seen.values.shape == (90, 32)
    found = teach(seen, backbone, "mine", "ridge")
    assert found.findings.right.sum() >= 28 and found.package.meta["classes"] == NAMES
    unseen, truth = sets.labelled(30, 77)
    results = run(found.package, patchify(np.stack(unseen), 4))
    logits = np.stack([result.logits for result in results]) * found.package.meta["scales"]["logit"]
    with Session(backbone.package, "golden", "tiny") as session:
        again = look(replace(given, files=unseen), backbone, session.run, 1, True, lambda *_: None)
    exact = found.fitted.head.logits(backbone.fitted(seen.values).seen(again.values))
    assert np.abs(logits - exact).max() < 0.06 * np.abs(exact).max()
    assert (logits.argmax(axis=1) == truth).mean() > 0.9


def test_command(tmp_path: Path) -> None:
    """Folders to a package that runs on the RTL; files that cannot be read are left out, and said."""
    folder = class_folders(tmp_path / "squares")
    (folder / "red" / "broken.png").write_bytes(b"no picture")
    package().save(tmp_path / "base.safetensors")
    command = ["teach", str(folder), "--from", str(tmp_path / "base.safetensors"), "--config", "tiny"]
    command += ["-o", str(tmp_path / "mine.safetensors"), "--json", str(tmp_path / "found.json")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1, result.output
    said = " ".join(result.output.split())
    assert re.search(r"^skipped: \S*broken.png: is no picture", said, re.MULTILINE)
    assert "of 24 photos recognised" in said and "by cross-validation; logistic regression" in said
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["photos"]) == 24 and found["right"] >= 22
    (folder / "red" / "broken.png").unlink()
    assert CliRunner().invoke(app, command).exit_code == 0
    taught = ModelPackage.load(tmp_path / "mine.safetensors")
    assert taught.meta["name"] == "mine" and "24 photos of squares" in taught.meta["history"][-1]
    unseen = sets.labelled(6, 50)[0]
    with Session(taught, "sim", "tiny") as session:
        results = session.run(unseen)
        session.compare(results, unseen)
    assert all(one.bit_exact for one in results)
    assert [one.label for one in results] == [NAMES[label] for label in np.arange(6) % 3]
    for photo in sorted((folder / "red").iterdir())[2:]:
        photo.write_bytes(b"no picture")
    result = CliRunner().invoke(app, command)
    said = " ".join(result.output.split())
    assert result.exit_code == 2 and "fewer than 3 photos of red (2)" in said
    assert said.count(".png: is no picture") == 6  # the reason


def test_a_lesson_is_as_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's name, and whether mirrored photos show the same."""
    package().save(tmp_path / "base.safetensors")
    seen, mirrored = lesson.look, []
    monkeypatch.setattr(lesson, "look", lambda *a: mirrored.append(a[4]) or seen(*a))
    folder, out = class_folders(tmp_path / "squares", 12), tmp_path / "mine.safetensors"
    command = [
        "teach",
        str(folder),
        "--from",
        str(tmp_path / "base.safetensors"),
        "-c",
        "tiny",
        "-o",
        str(out),
    ]
    for options in ([], ["--no-flip", "--name", "squares of mine"]):
        result = CliRunner().invoke(app, command + options)
        assert result.exit_code == 0, result.output
    assert mirrored == [True, False]
    assert ModelPackage.load(out).meta["name"] == "squares of mine"


def test_reference_in_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many photos; the package is the same, bit for bit."""
    folder = class_folders(tmp_path / "squares", 54)
    (folder / "red" / "broken.png").write_bytes(b"no picture")
    package().save(tmp_path / "base.safetensors")
    command = ["teach", str(folder), "--from", str(tmp_path / "base.safetensors"), "--config", "tiny"]
    command += ["-o", str(tmp_path / "mine.safetensors"), "--keep", "--solver", "ridge"]
    digests = set()
    for count in (1, 2):
        monkeypatch.setattr("rowvit.targets.session.processors", lambda count=count: count)
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1 and "broken.png" in result.output
        digests.add(ModelPackage.load(tmp_path / "mine.safetensors").digest())
    assert len(digests) == 1


def test_lesson_on_the_core(tmp_path: Path) -> None:
    """By PYNQ's driver and the RTL, with batches, as on a board: the package is the same, bit for bit."""
    folder = class_folders(tmp_path / "squares", 9)
    package().save(tmp_path / "base.safetensors")
    digests = set()
    for target, batch in (("golden", 1), ("sim", 1), ("sim", 5)):
        command = ["teach", str(folder), "--from", str(tmp_path / "base.safetensors"), "--config", "tiny"]
        command += ["-o", str(tmp_path / "mine.safetensors"), "--keep", "--views", "2", "--solver", "ridge"]
        result = CliRunner().invoke(app, [*command, "--target", target, "--batch", str(batch)])
        assert result.exit_code == 0, result.output
        digests.add(ModelPackage.load(tmp_path / "mine.safetensors").digest())
    assert len(digests) == 1


def test_picture_of_the_confused(tmp_path: Path) -> None:
    """Photos in each other's folders are drawn; where none was mistaken, nothing is, and that is said."""
    folder = class_folders(tmp_path / "squares")
    package().save(tmp_path / "base.safetensors")
    picture = tmp_path / "confused.png"
    command = ["teach", str(folder), "--from", str(tmp_path / "base.safetensors"), "--config", "tiny"]
    command += ["-o", str(tmp_path / "mine.safetensors"), "--plot", str(picture), "--solver", "ridge"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0 and not picture.exists(), result.output
    assert "not written, as no photo" in " ".join(result.output.split())
    moved = sorted((folder / NAMES[0]).iterdir())[:2]
    for file in moved:
        file.rename(folder / NAMES[1] / f"moved-{file.name}")
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    width, height = Image.open(picture).size
    assert 300 < width < 1000 and 200 < height < 600
    bad = CliRunner().invoke(app, [*command[:-3], "confused.txt"])
    assert bad.exit_code != 0 and "its name does not end like a picture's" in " ".join(bad.output.split())


def test_photos_in_the_wrong_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are named, and so are all answers in the file; none of them is written over."""
    mistaken = lambda found: iter(np.flatnonzero(found.guesses != found.labels))  # noqa: E731
    monkeypatch.setattr("rowvit.teach.lesson.Findings.doubtful", mistaken)
    folder = class_folders(tmp_path / "squares", 120)
    package().save(tmp_path / "base.safetensors")
    moved = sorted((folder / NAMES[0]).iterdir())[:2]
    for file in moved:
        file.rename(folder / NAMES[1] / f"moved-{file.name}")
    command = ["teach", str(folder), "--from", str(tmp_path / "base.safetensors"), "--config", "tiny"]
    command += ["-o", str(tmp_path / "mine.safetensors")]
    result = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "found.json")])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "found.json").read_text())["photos"]
    assert len(rows) == 120 and all(row["class"] == Path(row["file"]).parent.name for row in rows)
    wrong = [row for row in rows if row["class"] != row["guess"]]
    assert {Path(row["file"]).name for row in wrong} == {f"moved-{file.name}" for file in moved}
    assert all(1 / 3 < row["probability"] <= 1 for row in rows)
    assert [row for row in rows if row["doubtful"]] == wrong
    said = " ".join(result.output.split())
    for row in wrong:
        assert f"in the wrong folder? {row['file']} lies in {NAMES[1]} and looks like {NAMES[0]}" in said
    monkeypatch.setattr("rowvit.cli.teach._LISTED", 1)
    said = CliRunner().invoke(app, command).output
    assert said.count("in the wrong folder?") == 1
    assert "and 1 more, which --json lists" in said
    photo = folder / NAMES[1] / f"moved-{moved[0].name}"
    picture = photo.with_suffix(".png").read_bytes()
    bad = CliRunner().invoke(app, [*command, "--plot", str(photo)])
    assert bad.exit_code == 2 and "it is read as well" in " ".join(bad.output.split())
    assert photo.read_bytes() == picture


def test_kept_photos_are_learned_again(tmp_path: Path) -> None:
    """A class, and photos of another, are added without the photos of before."""
    folder = class_folders(tmp_path / "squares")
    more = tmp_path / "more"
    more.mkdir()
    (folder / "red").rename(more / "red")
    (more / "blue").mkdir()
    for file in sorted((folder / "blue").iterdir())[:2]:  # fewer than a new class needs
        file.rename(more / "blue" / file.name)
    package().save(tmp_path / "base.safetensors")

    def taught(photos: Path, base: str, target: str, *options: str) -> str:
        command = ["teach", str(photos), "--from", str(tmp_path / base), "-o", str(tmp_path / target)]
        result = CliRunner().invoke(app, [*command, "--config", "tiny", *options])
        return "" if result.exit_code == 0 else result.output

    assert taught(folder, "base.safetensors", "two.safetensors", "--keep") == ""
    assert taught(more, "two.safetensors", "three.safetensors", "--add") == ""
    (tmp_path / "broken" / "blue").mkdir(parents=True)
    (tmp_path / "broken" / "blue" / "1.png").write_bytes(b"no picture")
    assert "'broken' has no photo that can be read" in " ".join(
        taught(tmp_path / "broken", "two.safetensors", "none.safetensors", "--add").split()
    )
    two, three = (ModelPackage.load(tmp_path / f"{name}.safetensors") for name in ("two", "three"))
    assert two.meta["taught"] == {"photos": 14} and three.meta["taught"] == {"photos": 24}
    assert three.meta["classes"] == NAMES and two.meta["classes"] == NAMES[:2]
    np.testing.assert_array_equal(three.tensors["taught.seen"][:14], two.tensors["taught.seen"])
    assert np.bincount(three.tensors["taught.labels"]).tolist() == [8, 8, 8]
    unseen, truth = sets.labelled(30, 60)
    logits = np.stack([result.logits for result in run(three, patchify(np.stack(unseen), 4))])
    assert (logits.argmax(axis=1) == truth).mean() > 0.9
    assert taught(folder, "base.safetensors", "plain.safetensors") == ""
    assert ModelPackage.load(tmp_path / "plain.safetensors").meta["taught"] == {}
    said = " ".join(taught(more, "plain.safetensors", "x.safetensors", "--add").split())
    assert "'plain' has kept nothing of the photos that it was taught with; teach it with --keep" in said
    three.tensors["taught.labels"] = np.full(24, 3, np.uint16)
    with pytest.raises(RowvitError, match=r"tensor taught\.labels has class 3 of 3"):
        three.check()


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("rows", ["class", "all"])
def test_a_backbone_knows_what_was_added(rows: str, bits: int) -> None:
    """Of a network that answers with tokens only, too, whose unit its head has."""
    rng = np.random.default_rng(1)
    sizes = dict(dim=32, heads=2, depth=2, hidden=48, patch_size=4, image_size=12, classes=0, pruning=[])
    base = random_package(rng, **sizes, tokens={"rows": rows, "layers": [1]})
    backbone = Backbone.of(base)
    backbone = replace(backbone, unit=float(base.meta["scales"]["tokens"]) * 2**bits)
    for count in (2, 3):  # and as `--add` goes on from it
        weight, names = rng.normal(size=(count, 32)), list("abc")[:count]
        made = backbone.with_head(weight, np.zeros(count), names, 5.0, "mine", "h", known(count))
        seen = rng.integers(-9, 9, (2 * count, 32)).astype(np.int8)
        kept = Kept(seen, np.repeat(np.arange(count), 2).astype(np.uint16), tuple(names))
        taught = ModelPackage.decode(kept.within(made).encode())
        assert Backbone.of(base).of_taught(taught) is not None
        backbone = Backbone.of(taught)


def known(classes: int) -> Familiar:
    zeros = np.zeros((classes, 32), np.float32)
    return Familiar(np.eye(32, dtype=np.float32), zeros, 1.0, zeros[:0])


@pytest.mark.parametrize("classes", [5, 0])
def test_a_backbone_knows_its_own(tmp_path: Path, classes: int) -> None:
    """What was taught from it, in whichever of its units, also from a file; and nothing else."""
    options = {} if classes else dict(tokens="class", classes=[])
    backbone = Backbone.of(package(replace(CONFIG, classes=classes), **options))
    units = [backbone.unit] if classes else [backbone.unit, 2 * backbone.unit]
    rng = np.random.default_rng(2)
    for unit in units:
        own = replace(backbone, unit=unit)
        made = own.with_head(
            rng.normal(size=(3, 32)), rng.normal(size=3), NAMES, 5.0, "mine", "a head", known(3)
        )
        kept = Kept(rng.integers(-127, 128, (4, 32)).astype(np.int8), np.arange(4, dtype=np.uint16) % 3, ())
        kept.within(made).save(path := tmp_path / "mine.safetensors")
        assert backbone.of_taught(ModelPackage.load(path)) == own
    made.tensors["layers.1.fc2.bias"] = made.tensors["layers.1.fc2.bias"] + 1
    other = own.with_head(np.ones((2, 32)), np.zeros(2), ["a", "b"], 5.0, "other", "a head", known(2))
    other.meta["pruning"] = []
    for stranger in (made, other):
        with pytest.raises(RowvitError, match=f"'{stranger.meta['name']}' was not taught from 'base'"):
            backbone.of_taught(stranger)
    with pytest.raises(RowvitError, match="was not taught from 'base'"):
        backbone.of_taught(package(replace(CONFIG, dim=16)))


def test_findings() -> None:
    """Counts, the two classes that are confused, and photos in the wrong folder."""
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    guesses = [0, 0, 1, 0, 1, 1, 2, 2, 0]
    sure = [0.9, 0.9, 0.97, 0.6, 0.9, 0.9, 0.9, 0.9, 0.91]
    table = np.full((9, 3), 0.0)
    for row, guess, share in zip(table, guesses, sure, strict=True):
        row[:] = (1 - share) / 2
        row[guess] = share
    found = Findings(labels, ("a", "b", "c"), [*"012345678"], table, np.arange(9), [])
    assert found.right.tolist() == [2, 2, 2] and found.counts.tolist() == [3, 3, 3]
    assert found.confused == (0, 1, 2) and list(found.mistaken(0, 1)) == [2, 3]
    assert list(found.doubtful()) == [2, 8]
    assert found.recognised == (pytest.approx(6 / 9), pytest.approx(9)) and found.alone == []
    pairs = replace(found, recordings=np.array([0, 0, 1, 2, 2, 3, 4, 4, 5]))
    assert pairs.recognised == (pytest.approx((1 + 0 + 0.5 + 1 + 1 + 0) / 6), pytest.approx(6))
    one = replace(found, recordings=np.array([0, 0, 0, 2, 2, 3, 4, 4, 5]))
    assert one.alone == [0] and one.recognised == (pytest.approx((0.5 + 1 + 1 + 0) / 4), pytest.approx(4))
    none = replace(found, recordings=labels)
    assert none.alone == [0, 1, 2] and none.recognised is None


def test_few_photos_of_one_class_are_few() -> None:
    """However many there are of another: the mean of the classes is of as many photos as it is sure of."""
    labels = np.repeat(np.arange(3), [60, 3, 4])
    guesses = np.where(np.isin(np.arange(67), [60, 63, 64]), 0, labels)
    found = Findings(labels, tuple("abc"), [*map(str, range(67))], np.eye(3)[guesses], np.arange(67), [])
    mean, count = found.recognised
    assert mean == pytest.approx((1 + 2 / 3 + 2 / 4) / 3)
    assert count == pytest.approx(9 / (1 / 60 + 1 / 3 + 1 / 4))
    rng = np.random.default_rng(0)  # of a share that all classes have, that many photos have the same spread
    draws = [np.mean([rng.binomial(n, 0.8) / n for n in (60, 3, 4)]) for _ in range(20000)]
    assert np.var(draws) == pytest.approx(0.8 * 0.2 / count, rel=0.05)


def test_recordings_are_folders(tmp_path: Path) -> None:
    """Photos of a folder below a class's are judged as one, are kept as one, and counted as one."""
    folder = class_folders(tmp_path / "squares")
    for place in folder.iterdir():
        for number, file in enumerate(sorted(place.iterdir())):
            (place / f"clip {number // 3}").mkdir(exist_ok=True)
            file.rename(place / f"clip {number // 3}" / file.name)
    package().save(tmp_path / "base.safetensors")
    command = ["teach", str(folder), "--from", str(tmp_path / "base.safetensors"), "--config", "tiny"]
    command += ["-o", str(tmp_path / "mine.safetensors"), "--keep"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    low, high = wilson(9, 9)
    whole = f"100.0%; mean of the classes 100.0% ({low:.1%} to {high:.1%})"
    assert f"24 of 24 photos of 9 recordings recognised, {whole}" in said
    assert "of new photos of these classes, about 10% will be said to be unlike all of them" in said
    taught = ModelPackage.load(tmp_path / "mine.safetensors")
    assert taught.meta["taught"] == {"photos": 24, "recordings": 9}
    assert np.bincount(taught.tensors["taught.recordings"]).tolist() == [3, 3, 2] * 3
    more = class_folders(tmp_path / "more", 9, 5)
    command = ["teach", str(more), "--from", str(tmp_path / "mine.safetensors"), "--config", "tiny", "--add"]
    result = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "more.safetensors")])
    assert "of 33 photos of 18 recordings recognised" in " ".join(result.output.split())
    assert ModelPackage.load(tmp_path / "more.safetensors").meta["taught"]["recordings"] == 18
    for place in folder.iterdir():
        for file in place.glob("*/*"):
            file.rename(place / "clip 0" / file.name)
    result = CliRunner().invoke(
        app, ["teach", str(folder), *command[2:-1], "-o", str(tmp_path / "x.safetensors")]
    )
    said = " ".join(result.output.split())
    assert "recognised, 100.0%, by heads that had seen others of the same recording" in said
    assert "cannot tell how well new photos are recognised: blue, green, red; record them again" in said
    taught.tensors["taught.recordings"] = np.full(24, 9, np.uint16)
    with pytest.raises(RowvitError, match=r"taught\.recordings has recording 9"):
        taught.check()
    for wrong in ({"before": False}, {"before": 1}, {"recordings": 2}):
        with pytest.raises(RowvitError, match="the description"):
            ModelPackage(taught.meta | {"taught": wrong}, taught.tensors).check()


def test_a_recording_of_two_classes() -> None:
    """One evening's photos of both is a recording of each, which no head that has seen it judges."""
    rng, labels = np.random.default_rng(0), np.arange(24) % 2
    backbone, evenings = Backbone.of(package()), np.arange(24) // 12
    own = rng.normal(0, 30, (4, 32))  # of an evening and a class, and nothing else
    x = np.round(own[2 * evenings + labels] + rng.normal(0, 3, (24, 32))).astype(np.float32)

    def learned(together: np.ndarray) -> Findings:
        names, looks = [*map(str, range(24))], np.tile(UNSEEN, (24, 1))
        examples = lesson.Examples(x, np.arange(24), labels, ("a", "b"), names, together, looks)
        found = lesson.learn(examples, backbone, "mine", "evenings", "ridge")
        assert sorted(np.bincount(found.kept.recordings).tolist()) == [6, 6, 6, 6]
        return found.findings

    shared, apart = learned(evenings), learned(2 * evenings + labels)
    assert shared.alone == apart.alone == []
    np.testing.assert_array_equal(shared.probabilities, apart.probabilities)
    assert shared.recognised == apart.recognised


def test_recordings_that_are_called_as_their_class(tmp_path: Path) -> None:
    """Digits whose films have numbers; what lies beside the films is of none."""
    places = [f"{label}/{film}" for label in "01" for film in "012"] + ["0", "1"]
    for number, place in enumerate(places):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for frame in range(2):
            (tmp_path / place / f"{number}{frame}.png").write_bytes(b"")
    (tmp_path / ".thumbnails").mkdir()
    found = read(tmp_path)
    together = recordings(found)
    assert found.classes == ("0", "1") and len(found) == 16
    assert sorted(np.unique(together, return_counts=True)[1]) == [1] * 4 + [2] * 6
    named = replace(found, classes=("zero", "one"))  # as by --labels
    np.testing.assert_array_equal(recordings(named), together)
    assert len(np.unique(recordings(found.subset(15)))) in (9, 10)


def test_a_split_beside_hidden_folders(tmp_path: Path) -> None:
    class_folders(tmp_path / "train")
    class_folders(tmp_path / "test")
    (tmp_path / ".cache").mkdir()
    assert read(tmp_path).classes == tuple(NAMES)


@pytest.mark.parametrize("names", [("train", "valid", "test"), ("Train", "Test"), ("train", "VAL")])
def test_splits_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    """However datasets call them; the other commands read the same folders."""
    for seed, name in enumerate(names):
        class_folders(tmp_path / name, 9 + 3 * seed, seed)
    found = read(tmp_path)
    assert found.classes == tuple(NAMES) and len(found) == 9
    assert len(open_data(tmp_path, "train")) == 9
    assert len(open_data(tmp_path, "test")) == 9 + 3 * (len(names) - 1)


def test_cifar_by_its_own_folder(tmp_path: Path) -> None:
    root = sets.cifar(tmp_path)
    assert len(read(root / "cifar-10-batches-py")) == len(read(root))


def test_what_is_added_goes_to_what_was_taught_alone(tmp_path: Path) -> None:
    """Nothing else that is read is written."""
    archive, more = sets.archive(tmp_path / "d.npz"), class_folders(tmp_path / "more", 9)
    mine = tmp_path / "mine.safetensors"
    package().save(tmp_path / "base.safetensors")

    def taught(photos: Path, base: Path, *options: object) -> str:
        command = ["teach", str(photos), "--from", str(base), "-c", "tiny", *map(str, options)]
        result = CliRunner().invoke(app, command)
        assert result.exit_code in (0, 2), result.output
        return "" if result.exit_code == 0 else " ".join(result.output.split())

    assert taught(more, tmp_path / "base.safetensors", "--keep", "-o", mine) == ""
    before = archive.read_bytes(), mine.read_bytes()
    for options in (["-o", archive], ["-o", tmp_path / "new.safetensors", "--json", mine]):
        assert "it is read as well" in taught(archive, mine, "--add", *options)
    assert (archive.read_bytes(), mine.read_bytes()) == before
    assert taught(archive, mine, "--add", "-o", mine) == "" and mine.read_bytes() != before[1]


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    """They are told as well as can be, and nothing that was found is lost."""
    folder = class_folders(tmp_path / "squares", 24)
    file = folder / "red" / os.fsdecode(b"caf\xe9.png")
    try:
        file.write_bytes((folder / "blue" / "000.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    package().save(tmp_path / "base.safetensors")
    found, picture = tmp_path / "found.json", tmp_path / "confused.png"
    command = ["teach", str(folder), "--from", str(tmp_path / "base.safetensors"), "-c", "tiny", "--solver"]
    command += ["ridge", "-o", str(tmp_path / "mine.safetensors"), "--plot", str(picture)]
    result = CliRunner().invoke(app, [*command, "--json", str(found)])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "caf\N{REPLACEMENT CHARACTER}.png" in "".join(result.output.split()) and picture.exists()
    assert len(json.loads(found.read_text())["photos"]) == 25
    result = CliRunner().invoke(app, [*command, "--json", "-"])
    assert len(json.loads(result.stdout)["photos"]) == 25  # and nothing else
    bad = CliRunner().invoke(app, [*command[:-3], str(tmp_path / os.fsdecode(b"caf\xe9.safetensors"))])
    assert bad.exit_code == 2 and "not a name for a network; give it one with --name" in " ".join(
        bad.output.split()
    )


def test_what_could_not_be_kept_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any photo is looked at."""
    folder = class_folders(tmp_path / "squares", 24)
    package().save(tmp_path / "base.safetensors")
    monkeypatch.setattr(lesson, "look", None)
    monkeypatch.setattr("rowvit.teach.backbone.MOST_KEPT", 23)
    command = ["teach", str(folder), "--from", str(tmp_path / "base.safetensors"), "-c", "tiny", "--keep"]
    command += ["-o", str(tmp_path / "mine.safetensors")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2 and "24 photos, and a package keeps at most 23" in result.output
    for name in ("\u05d0\u200f", "\N{SOFT HYPHEN}a", "a\N{NO-BREAK SPACE}b"):
        (folder / "red").rename(folder / name)
        assert name in read(folder).classes
        (folder / name).rename(folder / "red")
    for name in (" ", "re\nd", "re\x1b[31md", "\u202ea"):
        (folder / "red").rename(folder / name)
        with pytest.raises(RowvitError, match="use printable characters in its name"):
            read(folder)
        (folder / name).rename(folder / "red")


def said_of(findings: Findings, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command prints of them, in one line."""
    made, count = package(), len(findings.labels)
    made.meta["familiar"] = {"limit": 1.0, "alarms": 0.05}
    kept = Kept(np.zeros((count, 1), np.int8), findings.labels.astype(np.uint16), findings.classes)
    head = fitting.Head(np.zeros((2, 1)), np.zeros(2))
    _print(Taught(made, kept, fitting.Fitted(head, "ridge", 1.0, findings.probabilities), findings))
    return " ".join("".join(capsys.readouterr()).split())


def test_what_the_interval_is_of(capsys: pytest.CaptureFixture[str]) -> None:
    """Long recordings that are right, and photos that are not."""
    labels = np.repeat(np.arange(2), 11)
    together = np.concatenate([np.zeros(10), [1], np.full(10, 2), [3]]).astype(np.int64)
    right = np.where(np.isin(together, [0, 2]), labels, 1 - labels)
    said = said_of(
        Findings(labels, ("a", "b"), [*map(str, range(22))], np.eye(2)[right], together, []), capsys
    )
    low, high = wilson(2, 4)
    assert (
        "20 of 22 photos of 4 recordings recognised, 90.9%; mean of the classes 50.0%"
        f" ({low:.1%} to {high:.1%})" in said
    )


def test_the_same_photo_twice(tmp_path: Path) -> None:
    """Counts once; in two classes it is named."""
    folder = class_folders(tmp_path / "squares", 12)
    for place in folder.iterdir():
        for file in sorted(place.iterdir()):
            (place / f"again-{file.name}").write_bytes(file.read_bytes())
    package().save(tmp_path / "base.safetensors")
    command = ["teach", str(folder), "--from", str(tmp_path / "base.safetensors"), "--config", "tiny"]
    command += ["-o", str(tmp_path / "mine.safetensors")]
    result = CliRunner().invoke(app, command)
    assert "24 of 24 photos of 12 recordings recognised" in " ".join(result.output.split())
    (folder / "red" / "stray.png").write_bytes((folder / "blue" / "000.png").read_bytes())
    said = " ".join(CliRunner().invoke(app, command).output.split())
    assert "the same photo in blue and in red: " in said and "stray.png" in said


def test_photos_that_were_saved_again() -> None:
    """They are near each other, as far as photos of a class are apart, look alike, and count as one."""
    rng = np.random.default_rng(6)
    backbone = Backbone.of(package())
    labels = np.tile(np.arange(3), 8)
    own = rng.normal(0, 40, (3, 32))[labels] + rng.normal(0, 10, (24, 32))
    looks = rng.integers(0, 256, (24, 192), np.uint8)
    others = rng.integers(0, 256, (24, 192), np.uint8)
    for spread, again, found in (
        (2.0, looks // 8 * 8, 24),
        (7.0, looks, 48),
        (2.0, others, 48),
        (0.0, others, 24),
    ):
        x = np.concatenate([own, own + rng.normal(0, spread, own.shape)])
        both = Photos([b""] * 48, np.concatenate([labels, labels]), tuple(NAMES), "photos")
        pictures = np.concatenate([looks, again]).astype(np.float32)
        seen = Seen(both, (backbone.unit * x).astype(np.float32), np.arange(48), pictures)
        findings = teach(seen, backbone, "mine", "ridge").findings
        assert len(set(findings.recordings)) == found and not findings.twins
    near = np.concatenate([own, own + rng.normal(0, 2, own.shape)])  # of which nothing else is known
    seen = Seen(both, (backbone.unit * near).astype(np.float32), np.arange(48), np.tile(UNSEEN, (48, 1)))
    assert len(set(teach(seen, backbone, "mine", "ridge").findings.recordings)) == 48


def test_what_no_user_put_there(tmp_path: Path) -> None:
    """Thumbnails and what other systems keep of files are left out; folders that look alike are one class."""
    folder = class_folders(tmp_path / "squares", 12)
    for place in folder.iterdir():
        picture = next(place.iterdir()).read_bytes()
        for hidden in (".thumbnails/a.png", "@eaDir/b.png", "._c.png"):
            (place / hidden).parent.mkdir(exist_ok=True)
            (place / hidden).write_bytes(picture)
        (place / "notes.txt").write_text("none")
    (folder / "__MACOSX" / "blue").mkdir(parents=True)
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "café")
        class_folders(tmp_path / form, 9)
        (tmp_path / form / "green").rename(folder / name)
    found = read(folder)
    assert found.classes == ("blue", unicodedata.normalize("NFC", "café"), "green", "red")
    assert np.bincount(found.labels).tolist() == [4, 6, 4, 4]
    package().save(tmp_path / "base.safetensors")
    command = ["teach", str(folder), "--from", str(tmp_path / "base.safetensors"), "--config", "tiny"]
    command += ["--keep", "--json", "-", "-o", str(tmp_path / "mine.safetensors")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0 and "no pictures, by their names: 3 (notes.txt, notes.txt" in result.stderr
    assert len(json.loads(result.stdout)["photos"]) == 18
    # a package whose class has its name the other way, as earlier ones may
    taught = ModelPackage.load(tmp_path / "mine.safetensors")
    taught.meta["classes"][1] = unicodedata.normalize("NFD", "café")
    again = Kept.of(taught)
    assert again.classes == found.classes and again.labels.tolist() == found.labels.tolist()
    taught.meta["classes"][0] = "café"
    merged = Kept.of(taught)
    assert merged.classes == ("café", "green", "red") and np.bincount(merged.labels).tolist() == [10, 4, 4]
    archive = np.load(sets.archive(tmp_path / "d.npz"))
    written = {**archive, "classes": np.array([unicodedata.normalize("NFD", "café"), "blue", "red"])}
    np.savez(tmp_path / "e.npz", **written)
    assert set(read(tmp_path / "e.npz").classes) < set(found.classes)
    for name in ("a\nb", " "):
        result = CliRunner().invoke(app, [*command, "--name", name])
        assert result.exit_code == 2 and "not a name" in result.output


def test_advice(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a class with few photos, though all were recognised."""
    labels = np.repeat(np.arange(2), [30, 3])
    alone = np.arange(33)
    said = said_of(Findings(labels, ("a", "b"), [*map(str, alone)], np.eye(2)[labels], alone, []), capsys)
    low, high = wilson(4 / (1 / 30 + 1 / 3), 4 / (1 / 30 + 1 / 3))
    assert f"100.0%; mean of the classes 100.0% ({low:.1%} to {high:.1%})" in said
    assert "what would help: more photos of b, of which there are 3" in said


def test_classes_that_look_the_same(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "squares", 9)
    for name in NAMES[1:]:
        for file in (folder / name).iterdir():
            file.unlink()
        for file in (folder / NAMES[0]).iterdir():
            (folder / name / file.name).write_bytes(file.read_bytes())
    package().save(tmp_path / "base.safetensors")
    command = ["teach", str(folder), "--from", str(tmp_path / "base.safetensors"), "--config", "tiny"]
    for solver in ("ridge", "logistic"):
        result = CliRunner().invoke(
            app, [*command, "-o", str(tmp_path / "x.safetensors"), "--solver", solver, "--views", "1"]
        )
        assert result.exit_code == 2
        assert "the photos of blue, green, red look all the same to 'base'" in " ".join(result.output.split())


def test_folders_that_are_no_classes(tmp_path: Path) -> None:
    """A class may be called train; hidden folders are none, and pictures beside the classes are left out."""
    folder = class_folders(tmp_path / "squares", 12)
    (folder / "red").rename(folder / "train")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / "beside.png").write_bytes(sets.png(sets.labelled(1, 3)[0][0]))
    assert read(folder).classes == ("blue", "green", "train") and len(read(folder)) == 12
    package().save(tmp_path / "base.safetensors")
    command = ["teach", str(folder), "--from", str(tmp_path / "base.safetensors"), "--config", "tiny"]
    command += ["-o", str(tmp_path / "mine.safetensors")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0 and "pictures beside the folders of classes: 1" in " ".join(
        result.output.split()
    ), result.output
    result = CliRunner().invoke(app, [*command, "--photos", "5"])
    said = " ".join(result.output.split())
    assert (
        result.exit_code == 2
        and "fewer than 3 photos of" in said
        and "draw more of them, by --photos" in said
    )


def test_what_is_refused(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "a", 9)
    one = class_folders(tmp_path / "b", 9)
    for name in NAMES[1:]:
        (one / name).rename(tmp_path / f"elsewhere-{name}")
    with pytest.raises(RowvitError, match=r"'b' has one class \(blue\).*make a folder for each class"):
        read(one)
    (folder / "green" / "001.png").unlink()
    with pytest.raises(
        RowvitError, match=r"fewer than 3 photos of green \(2\); add photos, or remove the folder$"
    ):
        read(folder)
    before = Kept(np.zeros((5, 8), np.int8), np.array([0, 0, 0, 1, 2], np.uint16), ("blue", "green", "grey"))
    with pytest.raises(RowvitError, match=r"fewer than 3 photos of grey \(1\); add photos$"):
        require(read(class_folders(tmp_path / "e", 9)), before)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RowvitError, match="'empty' has no folders of classes"):
        read(tmp_path / "empty")
    assert len(read(sets.folder(tmp_path / "c"))) == 24
    assert len(read(sets.archive(tmp_path / "d.npz"))) == 24
    with pytest.raises(RowvitError, match="a head that the host computes, or no class token"):
        Backbone.of(package(replace(CONFIG, pool="norm-mean", pruning=())))
    behind = package(tokens="all", behind=[0])
    assert Backbone.of(behind).package.meta["tokens"]["layers"] == [1]
