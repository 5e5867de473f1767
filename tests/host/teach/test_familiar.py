# SPDX-License-Identifier: Apache-2.0
"""What photos of the classes look like, and photos of something else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import photos as sets
import pytest
from typer.testing import CliRunner

from rowvit.compiler import cache, compile
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.formats.program import Program
from rowvit.hardware.config import load
from rowvit.measure.accuracy.evaluation import evaluate
from rowvit.photos import Photos
from rowvit.targets.session import Session
from rowvit.targets.target import read_program
from rowvit.teach.backbone import Backbone, Kept
from rowvit.teach.familiar import ALARMS, Familiar, learn
from rowvit.teach.lesson import UNSEEN, Seen, acquaint, look, look_at_nothing, teach

torch = pytest.importorskip("torch")

from rowvit.cli import app  # noqa: E402
from test_teach import CONFIG, NAMES, package  # noqa: E402

TINY = load("tiny")


def clusters(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points around the means of three classes, with one covariance that is neither round nor aligned."""
    labels = np.arange(count) % 3
    means = np.array([[0.0, 0, 0, 0], [9, 0, 3, 0], [0, 8, 0, -5]])
    turn = np.array([[3.0, 1, 0, 0], [0, 1, 0.5, 0], [0, 0, 0.3, 0.2], [1, 0, 0, 2]])
    return means[labels] + rng.normal(size=(count, 4)) @ turn, labels


def test_distances_against_their_definition() -> None:
    """By the inverse of the covariance; of views, all of which shape it."""
    x, labels = clusters(np.random.default_rng(0), 240)
    found = learn(x, labels, np.arange(240) // 2 * 2 // 2)
    means = np.stack([x[labels == label].mean(axis=0) for label in range(3)])
    covariance = np.cov((x - means[labels]).T, bias=True)
    covariance = 0.9 * covariance + 0.1 * np.trace(covariance) / 4 * np.eye(4)
    away = np.random.default_rng(1).normal(0, 6, (20, 4))
    every = away[:, None] - means
    wanted = np.einsum("ncd,de,nce->nc", every, np.linalg.inv(covariance), every).min(axis=1)
    np.testing.assert_allclose(found.distances(away), np.sqrt(wanted), rtol=1e-4)


def test_limit_is_what_few_photos_of_the_classes_exceed() -> None:
    """Photos that took no part; those that did are nearer."""
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(20):
        x, labels = clusters(rng, 60)
        found = learn(x, labels, np.arange(60))
        rates.append(np.mean(found.distances(clusters(rng, 1000)[0]) > found.limit))
    assert np.mean(rates) == pytest.approx(ALARMS, abs=0.02)


def test_every_class_counts_the_same() -> None:
    """Photos of a small class are said to be unlike all hardly more often than those of a large one."""
    rng, dim, counts = np.random.default_rng(1), 24, [90, 5, 5, 5]
    means = rng.normal(0, 6, (4, dim))
    stretch = np.array([1.0, 2, 2, 2])[:, None]  # of which the pooled covariance knows little

    def near(labels: np.ndarray) -> np.ndarray:
        return means[labels] + stretch[labels] * rng.normal(size=(len(labels), dim))

    rates = []
    for _ in range(20):
        labels = np.repeat(np.arange(4), counts)
        found = learn(near(labels), labels, np.arange(len(labels)), before=np.eye(dim))
        new = np.repeat(np.arange(4), 100)
        rates.append((found.distances(near(new)) > found.limit).reshape(4, 100).mean(axis=1))
        assert found.alarms == pytest.approx(max(ALARMS, 1 / (16 / (1 / 90 + 3 / 5) + 1)))
    assert np.mean(rates, axis=0).max() < 0.15


def test_odd_pictures_are_nearer_to_their_kind() -> None:
    """Within the limit of a class, too; a kind that photos of the classes are nearer to is no odd one."""
    rng = np.random.default_rng(2)
    x, labels = clusters(rng, 120)
    odd = np.array([[2.0, 2, 1, -1], [60, 0, 0, 0], [9, 0, 3, 0]])  # among them, far off, and a class itself
    found = learn(x, labels, np.arange(120), odd=odd)
    np.testing.assert_allclose(np.linalg.solve(found.whitening.T, found.odd.T).T, odd[1:2], atol=1e-3)
    apart = odd[[1]] + rng.normal(0, 0.5, (50, 4))
    assert found.taken(apart).all() and not found.taken(clusters(rng, 300)[0]).any()
    near = learn(x, labels, np.arange(120), odd=odd[1:] * [[0.5, 1, 1, 1], [1, 1, 1, 1]])
    assert len(near.odd) == 1 and np.linalg.norm(near.odd - near.means[1]) > 1


def test_few_photos_go_by_what_is_known_before() -> None:
    """Three photos of each class and the covariance of others: new ones are alike, and the rest is not."""
    rng, dim = np.random.default_rng(3), 40
    turn = rng.normal(size=(dim, dim)) * np.geomspace(0.1, 2, dim)
    before = turn.T @ turn
    means = rng.normal(0, 4, (2, dim))
    labels = np.repeat(np.arange(2), 3)

    def near(labels: np.ndarray) -> np.ndarray:
        return means[labels] + rng.normal(size=(len(labels), dim)) @ turn

    own, others = [], []
    for _ in range(20):
        found = learn(near(labels), labels, np.arange(6), before=before)
        assert found.alarms == pytest.approx(1 / 7)
        own.append(np.mean(found.distances(near(np.arange(200) % 2)) > found.limit))
        others.append(np.mean(found.distances(rng.normal(0, 12, (50, dim))) > found.limit))
    assert np.mean(own) < 1 / 7 and np.mean(others) > 0.95


def test_frames_of_one_recording_say_little() -> None:
    """The limit is no narrower than what is known before, however alike they are."""
    rng = np.random.default_rng(4)
    before, labels = np.eye(20), np.repeat(np.arange(2), 30)
    x = np.where(labels, 30.0, 0.0)[:, None] + rng.normal(0, 0.01, (60, 20))
    found = learn(x, labels, np.arange(60), labels, before)
    moved = np.concatenate([rng.normal(0, 1, (200, 20)), 30 + rng.normal(0, 1, (200, 20))])
    assert (found.distances(moved) > found.limit).mean() < 0.1 and found.alarms == pytest.approx(1 / 3)
    assert (found.distances(moved + 15) > found.limit).all()


@pytest.mark.parametrize("known", [False, True])
def test_its_own_photos_are_alike(known: bool) -> None:
    """Also where all of a class are one: what is seen of a photo then is what was seen when it learned."""
    base = acquainted() if known else package()
    backbone = Backbone.of(base)
    pictures, labels = sets.labelled(3, 2)
    given = Photos(
        [pictures[i] for i in np.repeat(np.arange(3), 3)], np.repeat(labels, 3), tuple(NAMES), "same"
    )
    with Session(backbone.package, "golden", "tiny") as session:
        seen = look(given, backbone, session.run, 1, True, lambda *_: None)
    assert (backbone.before is not None) == known
    found = teach(seen, backbone, "mine", "ridge").package
    with Session(found, "golden", "tiny") as session:
        assert [result.distance < 0.01 for result in session.run(pictures)] == [True] * 3


@pytest.fixture(scope="module")
def taught() -> ModelPackage:
    """Three colours of squares."""
    pictures, labels = sets.labelled(60, 2)
    return lesson(pictures, labels)


def lesson(
    pictures: list, labels: np.ndarray, seed: int = 0, base: ModelPackage | None = None
) -> ModelPackage:
    backbone = Backbone.of(base or package())
    given = Photos(pictures, labels, tuple(NAMES), "squares")
    with Session(backbone.package, "golden", "tiny") as session:
        seen = look(given, backbone, session.run, 2, True, lambda *_: None)
    return teach(seen, backbone, f"mine {seed}", "ridge").package


def acquainted() -> ModelPackage:
    """The network itself, which knows what photos of its own classes look like."""
    backbone = Backbone.of(package())
    pictures, _ = sets.labelled(60, 3)
    given = Photos(pictures, np.arange(60) % 5, tuple("01234"), "squares")
    with Session(backbone.package, "golden", "tiny") as session:
        seen = look(given, backbone, session.run, 1, True, lambda *_: None)
        return acquaint(seen, backbone, look_at_nothing(backbone, session.run))


def test_what_was_known_before_is_handed_on() -> None:
    """Teaching goes on by photos that were not taught: by one's own, a new limit would be too near."""
    pictures, labels = sets.labelled(30, 2)
    for base in (acquainted(), package()):
        before = Backbone.of(base).before
        assert (before is not None) == ("familiar" in base.meta)
        found = lesson(pictures, labels, base=base)
        kept = Kept(np.zeros((2, 32), np.int8), np.arange(2).astype(np.uint16), ("a", "b")).within(found)
        for one in (found, kept):
            again = Backbone.of(ModelPackage.decode(one.encode())).before
            if before is None:
                assert again is None
            else:
                np.testing.assert_allclose(again, before, rtol=1e-4, atol=1e-6 * np.abs(before).max())


def test_frames_are_judged_by_what_saw_none_of_their_film() -> None:
    """With the head that is there, too: photos of films that are new are rarely unlike all."""
    rng = np.random.default_rng(0)
    backbone = Backbone.of(package())
    means = rng.normal(0, 30, (5, 32))

    def films(count: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(5 * count) % 5
        own = means[labels] + rng.normal(0, 8, (len(labels), 32))
        x = np.repeat(own, frames, axis=0) + rng.normal(0, 3, (len(own) * frames, 32))
        return backbone.unit * x, np.repeat(labels, frames)

    x, labels = films(12, 6)
    root = Path("/photos")
    files = [root / str(label) / f"film {n // 6}" / f"{n}.jpg" for n, label in enumerate(labels)]
    shares = []
    for given in (
        Photos(files, labels, tuple("01234"), "films", root),
        Photos(files, labels, tuple("01234"), ""),
    ):
        found = acquaint(
            Seen(given, x.astype(np.float32), np.arange(len(x)), np.tile(UNSEEN, (len(x), 1))), backbone
        )
        tensors = [found.tensors[f"familiar.{name}"] for name in ("whitening", "means")]
        known = Familiar(*tensors, 1.0, np.zeros((0, 32), np.float32))
        new = backbone.unit * backbone.seen(films(200, 1)[0])
        shares.append((known.distances(new) > found.meta["familiar"]["limit"]).mean())
    assert shares[0] < 0.15 and shares[1] > 0.5, shares


def test_grey_pictures_are_like_none(tmp_path: Path) -> None:
    """Nor are black ones or text, wherever the network puts them; and what a taught one says is handed on."""
    base = acquainted()
    assert base.meta["familiar"]["odd"] == len(base.tensors["familiar.odd"]) > 3
    pictures, labels = sets.labelled(60, 2)
    own = lesson(pictures, labels, base=base)
    white = base.tensors["familiar.odd"] @ np.linalg.inv(base.tensors["familiar.whitening"])
    other = own.tensors["familiar.odd"] @ np.linalg.inv(own.tensors["familiar.whitening"])
    assert np.abs(other[:, None] - white).sum(axis=2).min(axis=1).max() < 1e-2 * np.abs(white).max()
    shown = [np.full((sets.SIDE, sets.SIDE, 3), grey, np.uint8) for grey in (0, 20, 90, 128, 200, 255)]
    program = compile(own, TINY)
    found = []
    for model, target in ((own, "golden"), (program, "sim")):
        with Session(model, target, "tiny") as session:
            found.append([result.distance for result in session.run([*shown, *sets.labelled(12, 90)[0]])])
    assert found[0] == found[1]
    assert min(found[0][:6]) > 1 and np.mean([one <= 1 for one in found[0][6:]]) > 0.7, found[0]
    plain = ModelPackage(own.meta | {"familiar": {**own.meta["familiar"], "odd": 0}, "hash": ""}, own.tensors)
    with pytest.raises(RowvitError, match="odd"):
        plain.check()


def strange() -> np.ndarray:
    """Noise, which is no square."""
    return np.random.default_rng(5).integers(0, 256, (8, sets.SIDE, sets.SIDE, 3), np.uint8)


def test_on_every_target(taught: ModelPackage, tmp_path: Path) -> None:
    """The reference, the RTL and a program that was saved say the same, and know squares from noise."""
    own = sets.labelled(12, 90)[0]
    program = compile(taught, TINY)
    program.save(tmp_path / "program.safetensors")
    loaded = Program.load(tmp_path / "program.safetensors")
    found = []
    for model, target in ((taught, "golden"), (taught, "sim"), (loaded, "sim")):
        with Session(model, target, "tiny") as session:
            found.append([result.distance for result in session.run([*own, *strange()])])
    assert found[0] == found[1] == found[2]
    assert np.mean([distance <= 1 for distance in found[0][:12]]) > 0.7
    assert min(found[0][12:]) > 1


def test_command_says_so(taught: ModelPackage, tmp_path: Path) -> None:
    taught.save(tmp_path / "mine.safetensors")
    (tmp_path / "noise.png").write_bytes(sets.png(strange()[0]))
    (tmp_path / "square.png").write_bytes(sets.png(sets.labelled(1, 90)[0][0]))
    command = ["run", str(tmp_path / "mine.safetensors"), "--target", "golden", "--config", "tiny"]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "noise.png"), str(tmp_path / "square.png")])
    lines = [line for line in result.output.splitlines() if ".png" in line]
    assert "unlike all, nearest" in lines[0] and "unlike" not in lines[1], result.output


def test_the_head_stays(tmp_path: Path) -> None:
    """The same answers, of the same program, and noise is like none; other folders are told by --labels."""
    pictures, labels = sets.labelled(60, 2)
    base = lesson(*sets.labelled(60, 3))
    without = {key: value for key, value in base.meta.items() if key not in ("familiar", "tokens", "hash")}
    kept = {
        key: tensor for key, tensor in base.tensors.items() if key.split(".")[0] not in ("familiar", "tokens")
    }
    ModelPackage(without, kept).save(tmp_path / "base.safetensors")
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        folder = tmp_path / "photos" / f"n{label}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(sets.png(picture))
    output = tmp_path / "known.safetensors"
    command = ["teach", str(tmp_path / "photos"), "--from", str(tmp_path / "base.safetensors"), "--same-head"]
    command += ["--config", "tiny", "-o", str(output)]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2 and "are no classes of" in " ".join(refused.output.split())
    for number, name in enumerate(base.meta["classes"][:2]):
        shutil.copytree(tmp_path / "photos" / f"n{number}", tmp_path / "some" / name)
    refused = CliRunner().invoke(app, ["teach", str(tmp_path / "some"), *command[2:]])
    told = " ".join(refused.output.split())
    assert refused.exit_code == 2 and f"photos of {base.meta['classes'][2]} (0); add photos of each" in told
    result = CliRunner().invoke(app, [*command, "--labels", "sorted", "--photos", "45"])
    assert result.exit_code == 0, result.output
    assert "45 photos, of whose like 5%" in result.output
    found = ModelPackage.load(output)
    assert found.meta["name"] == base.meta["name"] and "45 of 60 drawn" in found.meta["history"][-1]
    assert all(np.array_equal(found.tensors[name], tensor) for name, tensor in kept.items())
    own = [*sets.labelled(12, 90)[0], *strange()]
    answers = []
    for model, target in ((ModelPackage(without, kept), "golden"), (found, "golden"), (found, "sim")):
        with Session(model, target, "tiny") as session:
            answers.append(session.run(own))
    for plain, known, simulated in zip(*answers, strict=True):
        assert np.array_equal(plain.logits, known.logits) and plain.distance is None
        assert known.distance == simulated.distance and known.same(simulated)
    away = np.array([result.distance for result in answers[1]])
    assert (away[:12] <= 1).mean() > 0.7 and (away[12:] > 1).all()
    report = evaluate(found, Photos([*own], np.arange(20) % 3, tuple(NAMES), "both")).report()
    assert report["unlike"] == pytest.approx(100 * (away > 1).mean())


def test_what_else_a_network_has_stays(tmp_path: Path) -> None:
    """With its head: tokens behind other layers, and what it has kept of photos."""
    folder = sets.folder(tmp_path / "photos") / "train"

    def taught(base: ModelPackage, *options: str) -> tuple[ModelPackage, str]:
        base.save(tmp_path / "base.safetensors")
        command = ["teach", str(folder), "--from", str(tmp_path / "base.safetensors"), "-c", "tiny"]
        result = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "o.safetensors"), *options])
        assert result.exit_code == 0, result.output
        return ModelPackage.load(tmp_path / "o.safetensors"), " ".join(result.output.split())

    kept, said = taught(package(), "--keep")
    again, _ = taught(kept, "--same-head")
    assert again.meta["taught"] == kept.meta["taught"] and "left out" not in said
    assert np.array_equal(Kept.of(again).seen, Kept.of(kept).seen)
    three = replace(CONFIG, classes=3)
    both = package(three, tokens="all", behind=[0, 1], classes=NAMES)
    known, said = taught(both, "--same-head")
    assert known.meta["tokens"] == both.meta["tokens"] and "left out" not in said
    assert all(np.array_equal(known.tensors[name], tensor) for name, tensor in both.tensors.items())
    with Session(known, "golden", "tiny") as session:
        near, far = session.run(
            [sets.labelled(1, 7)[0][0], np.full((sets.SIDE, sets.SIDE, 3), 128, np.uint8)]
        )
    assert near.distance < 1 < far.distance and sorted(near.tokens) == [0, 1]
    early = package(three, tokens="all", behind=[0], classes=NAMES)
    for base, options in ((both, []), (early, []), (early, ["--same-head"])):
        found, said = taught(base, *options)
        assert found.meta["tokens"]["rows"] == "class" and found.meta["tokens"]["layers"] == [1]
        assert "answers with other tokens, too: left out, but for the class token" in said


@pytest.mark.parametrize("option", [["--add"], ["--keep"], ["--solver", "ridge"], ["--json", "a.json"]])
def test_what_goes_with_a_new_head_is_refused(
    taught: ModelPackage, tmp_path: Path, option: list[str]
) -> None:
    taught.save(tmp_path / "mine.safetensors")
    command = ["teach", str(tmp_path), "--from", str(tmp_path / "mine.safetensors"), "--same-head", *option]
    result = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "known.safetensors")])
    assert result.exit_code == 2 and "are of a new head" in " ".join(result.output.split())


def test_another_lesson_is_not_compiled_again(
    taught: ModelPackage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The program with another head, and with another distance, is the one that is compiled alone."""
    made = []
    monkeypatch.setattr(cache, "compile", lambda *a: made.append(1) or compile(*a))
    monkeypatch.setenv("ROWVIT_CACHE", str(tmp_path))
    monkeypatch.delenv("ROWVIT_CACHE_PROGRAMS")
    other = lesson(*sets.labelled(60, 3), 1)
    read_program(taught, TINY)
    found, alone = read_program(other, TINY), compile(other, TINY)
    assert len(made) == 1 and np.array_equal(found.blob, alone.blob) and found.meta == alone.meta
    assert found.head.keys() == alone.head.keys()
    assert all(np.array_equal(found.head[name], tensor) for name, tensor in alone.head.items())


def test_what_does_not_agree_is_refused(taught: ModelPackage) -> None:
    tensors = dict(taught.tensors)
    without = {key: value for key, value in taught.meta.items() if key not in ("tokens", "hash")}
    with pytest.raises(RowvitError, match="what is familiar takes the class token behind the last layer"):
        ModelPackage(without, tensors).check()
    short = tensors | {"familiar.means": tensors["familiar.means"][:2]}
    with pytest.raises(RowvitError, match=r"tensor familiar\.means is float32 \[2, 32\]"):
        ModelPackage(taught.meta, short).check()
    endless = tensors | {"familiar.means": tensors["familiar.means"] * np.float32(np.inf)}
    with pytest.raises(RowvitError, match="numbers that are not finite"):
        ModelPackage(taught.meta, endless).check()
    scales = {name: value for name, value in taught.meta["scales"].items() if name != "norm"}
    with pytest.raises(RowvitError, match="scales lack norm"):
        ModelPackage(taught.meta | {"scales": scales}, tensors).check()
    never = taught.meta | {"familiar": {"limit": 0, "alarms": 0.05}}
    with pytest.raises(RowvitError, match="limit"):
        ModelPackage(never, tensors).check()
