# SPDX-License-Identifier: Apache-2.0
"""Training: data sets, recipes, the loop, resumption and several processes."""

from __future__ import annotations

import copy
import errno
import itertools
import logging
import math
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import photos as sets
import pytest
from clocks import FakeClock
from PIL import Image
from typer.testing import CliRunner
from waiting import HANG, until

from rowvit.errors import RowvitError

torch = pytest.importorskip("torch")


from rowvit.cli import app  # noqa: E402
from rowvit.measure.accuracy.evaluation import evaluate  # noqa: E402
from rowvit.model import store  # noqa: E402
from rowvit.model.vit import VisionTransformer, ViTConfig, normalise, predict  # noqa: E402
from rowvit.photos import Photos, open_data  # noqa: E402
from rowvit.train import recipe as recipes  # noqa: E402
from rowvit.train.apart import Apart  # noqa: E402
from rowvit.train.data import Augmentation, TrainingSet  # noqa: E402
from rowvit.train.loop import Trainer, _groups, _rate, in_bf16  # noqa: E402
from rowvit.train.loss import features, loss, mix, rows  # noqa: E402
from rowvit.train.recipe import Phase, Recipe  # noqa: E402

ROOT = Path(__file__).parents[3]
CONFIG = ViTConfig(image_size=16, patch_size=4, dim=32, depth=2, heads=2, hidden=48, classes=3)
RECIPE = """
batch = 8
seed = 3
precision = "fp32"
[augmentation]
crop = 0.7
flip = true
[[phase]]
name = "drop"
epochs = 4
lr = 3e-3
token_drop = 0.4
[[phase]]
name = "prune"
epochs = 4
lr = 2e-3
prune_layers = [0]
rho = 0.5
prune_share = 0.67
quantise = true
"""


def network(path: Path, config: ViTConfig = CONFIG, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model = VisionTransformer(config)
    torch.nn.init.normal_(model.pos_embed, std=0.02)
    classes = list(sets.COLOURS) if config.classes == 3 else [str(i) for i in range(config.classes)]
    store.save(path, model, store.Card("squares", classes))
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    return store.load(path)[0].state_dict()


def command(*args: object, **options: object) -> str:
    result = CliRunner().invoke(app, list(map(str, args)))
    assert result.exit_code == options.get("code", 0), result.output
    return result.output


# -- data ----------------------------------------------------------------------------------------


def test_the_same_photos_from_every_form(tmp_path: Path) -> None:
    found = [
        open_data(sets.archive(tmp_path / "a.npz"), "test"),
        open_data(sets.folder(tmp_path / "f"), "test"),
    ]
    expected, labels = sets.labelled(12, 1)
    for photos in found:
        order = np.argsort(labels, kind="stable") if photos is found[1] else np.arange(12)
        assert photos.classes == tuple(sets.COLOURS)
        assert photos.labels.tolist() == labels[order].tolist()
        assert np.array_equal(photos.pixels(range(12), 16), np.stack(expected)[order])
        assert "test, all 12" in photos.name
    assert len(open_data(tmp_path / "f", "train")) == 24
    # a folder of classes alone is a test set
    assert open_data(tmp_path / "f" / "val", "test").labels.tolist() == found[1].labels.tolist()


def test_photos_without_labels(tmp_path: Path) -> None:
    """A folder of photos is enough for whatever needs no labels."""
    pictures, _ = sets.labelled(3, 1)
    for index, pixels in enumerate(pictures):
        (tmp_path / f"{index}.png").write_bytes(sets.png(pixels))
    (tmp_path / "notes.txt").write_text("no photo")
    photos = open_data(tmp_path, "train", labels=False)
    assert len(photos) == 3 and photos.classes == () and "without labels" in photos.name
    assert np.array_equal(photos.pixels(range(3), 16), np.stack(pictures))
    with pytest.raises(RowvitError, match="has no folder train"):
        open_data(tmp_path, "train")
    with pytest.raises(RowvitError, match="no folders of classes"):
        open_data(tmp_path, "test", labels=False)


def test_masked_archive(tmp_path: Path) -> None:
    pictures, labels = sets.labelled(9, 5)
    files = [sets.png(pixels) for pixels in pictures]
    mask = np.arange(9) % 3 == 0
    np.savez(
        tmp_path / "m.npz",
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        off=np.cumsum([0, *map(len, files)]),
        y=labels,
        test=mask,
    )
    for split, chosen in (("test", mask), ("train", ~mask)):
        photos = open_data(tmp_path / "m.npz", split)
        assert photos.labels.tolist() == labels[chosen].tolist()
        assert np.array_equal(photos.pixels(range(len(photos)), 16), np.stack(pictures)[chosen])


def test_cifar_layout(tmp_path: Path) -> None:
    root = sets.cifar(tmp_path)
    photos = open_data(root, "train")
    assert len(photos) == 50 and photos.classes == tuple(sets.COLOURS)
    assert np.array_equal(photos.pixels([13], 32)[0], sets.labelled(10, 1, side=32)[0][3])
    assert len(open_data(root / "cifar-10-batches-py", "test")) == 10
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(os.getcwd))
    with pytest.raises(RowvitError, match="does not belong in it"):
        open_data(root, "test")


@pytest.mark.parametrize(
    ("make", "split", "message"),
    [
        (lambda p: None, "test", "no such data"),
        (lambda p: p.write_text("x"), "test", "not a folder"),
        (lambda p: p.mkdir(), "train", "has no folder train"),
        (lambda p: p.mkdir(), "test", "no folders of classes"),
        (lambda p: (p / "val" / "cat").mkdir(parents=True), "test", "holds no photos"),
        (lambda p: (p / "val" / "cat").mkdir(parents=True), "validation", "split 'validation'"),
    ],
)
def test_bad_data_are_named(tmp_path: Path, make: object, split: str, message: str) -> None:
    make(tmp_path / "data")
    with pytest.raises(RowvitError, match=message):
        open_data(tmp_path / "data", split)


def test_bad_archives_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(RowvitError, match="holds x, expected jpeg"):
        open_data(tmp_path / "a.npz", "train")
    whole = sets.archive(tmp_path / "a.npz").read_bytes()
    np.save(tmp_path / "c.npy", np.zeros(3))
    renamed = (tmp_path / "c.npy").read_bytes()
    for damaged in (b"PK no archive", b"", whole[:-100], whole[:200] + bytes(400) + whole[600:], renamed):
        (tmp_path / "b.npz").write_bytes(damaged)
        with pytest.raises(RowvitError, match=r"b\.npz: cannot be read as an \.npz archive"):
            open_data(tmp_path / "b.npz", "train")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"off": [0, 4]}, "2 labels, 2 offsets and 2 test marks"),
        ({"test": [True]}, "as many marks as labels"),
        ({"test": ["no", "yes"]}, r"test are <U3 \[2\]"),
        ({"off": [0, 4, 9]}, "do not ascend within the 8 bytes"),
        ({"off": [0, 9, 8]}, "do not ascend within the 8 bytes"),
        ({"y": [0, 3]}, "labels from 0 to 3 for 3 classes"),
        ({"y": [-1, 2]}, "labels from -1 to 2 for 3 classes"),
        ({"y": ["cat", "dog"]}, r"labels are <U3 \[2\], expected one row of integers"),
        ({"y": [[0, 1]]}, r"labels are int64 \[1, 2\]"),
        ({"classes": "cat"}, r"classes are <U3 \[\], not a row of names"),
        ({"classes": [["a", "b"]]}, r"classes are <U1 \[1, 2\], not a row of names"),
        ({"y": np.zeros(0, int), "off": [0], "test": np.zeros(0, bool)}, "the split 'train' holds no photos"),
    ],
)
def test_archives_that_do_not_agree_are_named(tmp_path: Path, tables: dict, message: str) -> None:
    right = {"jpeg": np.zeros(8, np.uint8), "off": [0, 4, 8], "y": [0, 1], "test": [False, True]}
    np.savez(tmp_path / "a.npz", **{"classes": list(sets.COLOURS)} | right | tables)
    with pytest.raises(RowvitError, match=message):
        open_data(tmp_path / "a.npz", "train")


def test_names_of_classes_in_bytes(tmp_path: Path) -> None:
    right = {"jpeg": np.zeros(8, np.uint8), "off": [0, 4, 8], "y": [0, 1], "test": [False, False]}
    np.savez(tmp_path / "a.npz", classes=np.array(["caf\u00e9".encode(), b"tea"]), **right)
    assert open_data(tmp_path / "a.npz", "train").classes == ("caf\u00e9", "tea")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """No description of a network can hold them."""
    folder = tmp_path / os.fsdecode(b"pict\xe9res")
    for name in (b"caf\xe9", b"tea"):
        (folder / "train" / os.fsdecode(name)).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "train" / os.fsdecode(name) / "a.png")
    with pytest.raises(RowvitError, match="the folder caf\ufffd has a name that is not UTF-8; rename it"):
        open_data(folder, "train")
    (folder / "train" / os.fsdecode(b"caf\xe9")).rename(folder / "train" / "coffee")
    assert open_data(folder, "train").name == "pict\ufffdres train, all 2"


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({b"labels": [0] * 9}, "10 pictures and 9 labels"),
        ({b"labels": [0] * 9 + [200]}, "labels from 0 to 200 for 3 classes"),
        ({b"data": None}, "not CIFAR-10's python version"),
    ],
)
def test_damaged_cifar(tmp_path: Path, batch: dict, message: str) -> None:
    root = sets.cifar(tmp_path)
    file = root / "cifar-10-batches-py" / "test_batch"
    file.write_bytes(pickle.dumps(pickle.loads(file.read_bytes()) | batch))
    with pytest.raises(RowvitError, match=message):
        open_data(root, "test")


def test_subset_says_what_the_set_lacks(tmp_path: Path) -> None:
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    some = replace(photos, scope="1 of 3 classes")
    assert some.subset(7).name == "a train, 7 of 24 drawn with seed 0, 1 of 3 classes"
    assert some.subset(7).subset(3).name == "a train, 3 of 7 drawn with seed 0, 1 of 3 classes"
    model, card = store.load(network(tmp_path / "in.safetensors"))
    recipe = Recipe((Phase(1, 1e-3),), batch=8, precision="fp32", photos=9)
    trainer = Trainer(model, card, photos, recipe, tmp_path / "x.state")
    assert trainer.trained_on == "a train, 9 of 24 drawn with seed 0"


def test_subset(tmp_path: Path) -> None:
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    part = photos.subset(7)
    assert len(part) == 7 and "7 of 24" in part.name
    assert part.labels.tolist() == photos.subset(7).labels.tolist()
    assert photos.subset(100) is photos


def test_sets_are_called_by_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the one that one is in, and where a name has a comma."""
    data = sets.folder(tmp_path / "cats, dogs")
    sets.cifar(tmp_path)
    monkeypatch.chdir(data)
    assert open_data(Path("."), "train").subset(5).name == "cats, dogs train, 5 of 24 drawn with seed 0"
    monkeypatch.chdir(data / "train" / "red")
    assert open_data(Path("."), "train", labels=False).name == "red, all 8, without labels"
    monkeypatch.chdir(tmp_path / "cifar-10-batches-py")
    assert open_data(Path("."), "test").name.startswith("cifar-10 test, all ")


def _denied(path: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


@pytest.mark.parametrize("what", ["scandir", "stat"])
def test_a_class_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """It is not left out without a word: neither a folder that cannot be listed, nor one not entered."""
    data = sets.folder(tmp_path / "data")
    whole, closed = getattr(os, what), data / "train" / "red"

    def guarded(path: object = ".", *more: object, **options: object) -> object:
        inside = closed == Path(os.fsdecode(path)) if what == "scandir" else closed in Path(path).parents
        return _denied(path) if not isinstance(path, int) and inside else whole(path, *more, **options)

    monkeypatch.setattr(os, what, guarded)
    with pytest.raises(RowvitError, match=r"train/red.* cannot be read \(Permission denied\)"):
        open_data(data, "train")
    assert len(open_data(data, "test")) == 12


def test_augmentation_depends_on_epoch_and_index_alone(tmp_path: Path) -> None:
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    augmentation = Augmentation(crop=0.5, flip=True, randaugment=5)
    data = TrainingSet(photos, 16, "bicubic", augmentation, seed=1)
    before = torch.random.get_rng_state()
    first = [data[i][0] for i in range(4)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(data[i][0], first[i]) for i in (3, 1, 2, 0))
    data.epoch = 1
    assert not all(torch.equal(data[i][0], first[i]) for i in range(4))
    plain = TrainingSet(photos, 16, "bicubic", Augmentation(), seed=1)
    assert np.array_equal(plain[2][0].permute(1, 2, 0).numpy(), photos.pixels([2], 16)[0])


@pytest.mark.parametrize("crop", [0.999, 1.0])
def test_photos_are_turned_before_they_are_cut(tmp_path: Path, crop: float) -> None:
    """A camera held upright: the sky is at the left of the file, at the top of the photo."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "cat").mkdir()
    Image.fromarray(pixels).save(tmp_path / "cat" / "a.png", exif=exif)
    (tmp_path / "cat" / "b.png").write_bytes(b"no photo")
    photos = open_data(tmp_path, "test")
    data = TrainingSet(photos, 16, "bicubic", Augmentation(crop=crop), seed=1)
    brightness = data[0][0].float().mean(dim=(0, 2))
    assert brightness[:6].min() > 200 and brightness[-6:].max() < 55
    with pytest.raises(RowvitError, match=r"photo 1 of .* test, all 2: .*b\.png: is no picture"):
        data[1]


# -- recipes and losses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a \\[\\[phase\\]\\]"),
        ("[[phase]]\nepochs = 1", "a phase needs 'lr'"),
        ("[[phase]]\nepochs = 1\nlr = 1e-3\nlearning = 2", "there is no 'learning'; a phase has epochs"),
        ("[[phase]]\nepochs = 0\nlr = 1e-3", "epochs is 0"),
        ("[[phase]]\nepochs = inf\nlr = 1e-3", "'epochs' is inf"),
        ("[[phase]]\nepochs = 1\nlr = 1e-3\nweight_decay = -0.1", "weight_decay is -0.1"),
        ("[[phase]]\nepochs = 1\nlr = 1e-3\nprune_layers = [3, 3]", r"prune_layers are \[3, 3\]"),
        (
            "[[phase]]\nepochs = 1\nlr = 1e-3\nprune_layers = ['a']",
            r"'prune_layers' is \['a'\], expected the type list of int",
        ),
        ("seed = -1\n[[phase]]\nepochs = 1\nlr = 1e-3", "seed is -1"),
        ("batch = true\n[[phase]]\nepochs = 1\nlr = 1e-3", "'batch' is True, expected the type int"),
        ("[[phase]]\nepochs = 1\nlr = 1e-3\nrho = 1.5", "rho is 1.5"),
        (
            "[[phase]]\nepochs = 1\nlr = 1e-3\nprune_layers = [1]\nkeep = [0.5, 0.2]",
            "keep has 2 shares for 1",
        ),
        (
            "[[phase]]\nepochs = 1\nlr = 1e-3\nprune_layers = [1, 2]\nkeep = [0.2, 0.5]",
            "not descending shares",
        ),
        (
            "[[phase]]\nepochs = 1\nlr = 1e-3\nprune_layers = [1]\nkeep = [0.2]\nrho = 0.5",
            "keep and rho exclude each other",
        ),
        ("[[phase]]\nepochs = 1\nlr = 1e-3\nrow_penalty = -1", "row_penalty is -1"),
        ("[[phase]]\nepochs = 1\nlr = 1e-3\nmin_steps = -1", "min_steps is -1"),
        ("[[phase]]\nepochs = 1\nlr = 1e-3\napart = true\ntoken_drop = 0.5", "apart excludes"),
        ("[[phase]]\nepochs = 1\nlr = 1e-3\nfeature_layers = [1]", "but features is 0"),
        ("[[phase]]\nepochs = 1\nlr = 1e-3\ntoken_drop = 0.5\nprune_layers = [1]", "exclude each other"),
        ("precision = 'fp8'\n[[phase]]\nepochs = 1\nlr = 1e-3", "'fp8' is not auto, bf16 or fp32"),
        ("batch = 'many'\n[[phase]]\nepochs = 1\nlr = 1e-3", "'batch' is 'many', expected the type int"),
        ("[augmentation]\ncrop = 0.0\n[[phase]]\nepochs = 1\nlr = 1e-3", "crop is 0.0, not above 0"),
        (
            "[augmentation]\nrandaugment = 31\n[[phase]]\nepochs = 1\nlr = 1e-3",
            "randaugment is 31, not in 0..30",
        ),
        ("batch = ", "not a recipe in TOML"),
        ("[phase]\nepochs = 1\nlr = 1e-3", "'phase' is one table; write \\[\\[phase\\]\\]"),
        ("augmentation = 1\n[[phase]]\nepochs = 1\nlr = 1e-3", "'augmentation' is 1, and no table"),
        ("[[phase]]\nepochs = 1\nlr = nan", "'lr' is nan, expected the type float"),
        (
            "[[phase]]\nepochs = 1\nlr = 1e-3\nprune_layers = [1]\nkeep = ['0.5']",
            "the type list of float",
        ),
        ("[[phase]]\nepochs = 1\nlr = 1e-3\nfeatures = 1.0\nfeature_layers = [1.5]", "the type list of int"),
        (
            "augmentation = {randaugment = 9}\n[[phase]]\nepochs = 1\nlr = 1\nfocus = 1\nprune_layers = [0]",
            "focus and randaugment exclude each other",
        ),
    ],
)
def test_bad_recipes_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(RowvitError, match=message) as found:
        recipes.load(tmp_path / "r.toml")
    assert "r.toml" in str(found.value)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.toml")), ids=lambda path: path.stem)
def test_published_recipes_are_read(path: Path) -> None:
    assert recipes.load(path).phases


def test_loss_against_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, taught = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.tensor([0, 2, 1, 1, 0])
    phase = Phase(1, 1e-3, distill=0.3, temperature=2.0)
    targets = torch.nn.functional.one_hot(labels, 3).double()
    p, q = (np.exp(x.numpy() / 2) for x in (taught, logits))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    soft = (p * np.log(p / q)).sum(axis=1).mean() * 4
    hard = -np.mean(
        [row[label] - np.log(np.exp(row).sum()) for row, label in zip(logits.numpy(), labels, strict=True)]
    )
    assert float(loss(logits, targets, taught, phase)) == pytest.approx(0.7 * hard + 0.3 * soft)
    assert float(loss(logits, targets, None, phase)) == pytest.approx(hard)


def test_mixup_blends_images_as_labels() -> None:
    torch.manual_seed(0)
    labels = torch.arange(8)
    images = labels.float().view(8, 1, 1, 1).expand(8, 3, 4, 4)
    mixed, targets = mix(images, labels, 8, Phase(1, 1e-3, mixup=1.0))
    assert torch.allclose(targets.sum(dim=1), torch.ones(8))
    assert torch.allclose(mixed[:, 0, 0, 0], targets @ labels.float())
    assert not torch.equal(mixed, images)


# -- the loop ------------------------------------------------------------------------------------


def test_train_learns_and_notes_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, start = sets.archive(tmp_path / "a.npz"), network(tmp_path / "in.safetensors")
    (tmp_path / "r.toml").write_text(RECIPE)
    out = tmp_path / "out.safetensors"
    monkeypatch.setattr("rowvit.cli.common.LINE_EVERY", 0.0)
    ticks = itertools.count()
    monkeypatch.setattr("rowvit.cli.common.ERR.get_time", lambda: next(ticks) / 100)
    text = command("train", start, "--data", data, "--recipe", tmp_path / "r.toml", "-o", out)
    steps = [line for line in text.splitlines() if line.startswith("training: ")]
    assert len(steps) == 23  # the last step needs no line
    assert re.match(r"training: 1 of 24, \d s, drop loss \d\.\d{3}$", steps[0])
    assert re.match(r"training: 2 of 24, \d s, about \d+ s left, drop loss", steps[1])
    model, card = store.load(out)
    assert card.accuracy["set"] == "a test, all 12" and card.accuracy["float"] >= 90
    assert f"{card.accuracy['float']:.2f} %" in text
    assert card.history == ["trained by r.toml (drop, prune) on a train, all 24"]
    assert model.config.pruning == ({"layer": 0, "keep": 8, "threshold": 0},)
    assert not (tmp_path / "out.safetensors.state").exists()


def test_new_head_for_other_classes(tmp_path: Path) -> None:
    start = network(tmp_path / "in.safetensors", replace(CONFIG, classes=7))
    (tmp_path / "r.toml").write_text("batch = 8\n[[phase]]\nepochs = 1\nlr = 1e-3")
    data = sets.folder(tmp_path / "data")
    out = tmp_path / "out.safetensors"
    command("train", start, "--data", data, "--recipe", tmp_path / "r.toml", "-o", out, "--no-measure")
    model, card = store.load(out)
    assert model.config.classes == 3 and card.classes == list(sets.COLOURS) and card.accuracy == {}


@pytest.mark.parametrize(
    ("classes", "right"),
    [
        (["red", "blue", unicodedata.normalize("NFD", "café")], True),  # trained in another order
        (["0", "1", "2"], False),  # others' names, in whose place the photos' come
    ],
)
def test_names_however_they_are_written(tmp_path: Path, classes: list[str], right: bool) -> None:
    """A head stays with its names: by them, or in sorted order if they are all others."""
    data = sets.folder(tmp_path / "data")
    for split in ("train", "val"):
        (data / split / "green").rename(data / split / unicodedata.normalize("NFC", "café"))
    model, card = store.load(network(tmp_path / "in.safetensors"))
    card.classes = classes
    store.save(tmp_path / "in.safetensors", model, card)
    (tmp_path / "r.toml").write_text("batch = 8\n[[phase]]\nepochs = 0.1\nlr = 1e-9")
    arguments = ["train", tmp_path / "in.safetensors", "--data", data, "--recipe", tmp_path / "r.toml"]
    said = command(*arguments, "-o", out := tmp_path / "out.safetensors", "--no-measure")
    after, written = store.load(out)
    assert torch.allclose(after.head.weight, model.head.weight, atol=1e-6)
    assert ("in sorted order" in said) != right and "a new head" not in said
    names = ["red", "blue", "café"] if right else ["blue", "café", "red"]
    assert [unicodedata.normalize("NFC", name) for name in written.classes] == names


def test_a_name_that_is_new_makes_a_new_head(tmp_path: Path) -> None:
    """Where only some are the network's: none of its rows is given to another class."""
    data = sets.folder(tmp_path / "data")
    model, card = store.load(network(tmp_path / "in.safetensors"))
    card.classes = ["blue", "pink", "red"]
    store.save(tmp_path / "in.safetensors", model, card)
    (tmp_path / "r.toml").write_text("batch = 8\n[[phase]]\nepochs = 0.1\nlr = 1e-9")
    arguments = ["train", tmp_path / "in.safetensors", "--data", data, "--recipe", tmp_path / "r.toml"]
    said = command(*arguments, "-o", out := tmp_path / "out.safetensors", "--no-measure")
    assert "2 are named as its own; --labels keeps its head if all are its classes" in " ".join(said.split())
    assert "a new head for 3 classes" in said and store.load(out)[0].head.weight.abs().max() < 1e-6


def test_a_teacher_that_teaches_nothing(tmp_path: Path) -> None:
    data = sets.folder(tmp_path / "data")
    start = network(tmp_path / "in.safetensors")
    (tmp_path / "r.toml").write_text("batch = 8\n[[phase]]\nepochs = 1\nlr = 1e-3")
    arguments = ["train", start, "--data", data, "--recipe", tmp_path / "r.toml", "--teacher", start]
    result = CliRunner().invoke(app, [*map(str, arguments), "-o", str(tmp_path / "out.safetensors")])
    said = " ".join(result.output.split())
    assert result.exit_code == 2 and "r.toml learns nothing from a teacher; leave it out" in said


def test_photos_that_are_damaged(tmp_path: Path) -> None:
    """One that training meets says how it goes on, and it does; of the test set it is left out, and said."""
    data = sets.folder(tmp_path / "data")
    start = network(tmp_path / "in.safetensors")
    (tmp_path / "r.toml").write_text("batch = 8\n[[phase]]\nepochs = 2\nlr = 1e-3")
    out = tmp_path / "out.safetensors"
    arguments = ["train", start, "--data", data, "--recipe", tmp_path / "r.toml", "-o", out]
    broken = sorted((data / "train" / "red").iterdir())[3]
    whole = broken.read_bytes()
    broken.write_bytes(b"no picture")
    result = CliRunner().invoke(app, [*map(str, arguments)])
    said = " ".join(result.output.split())
    assert result.exit_code == 2 and "put a whole picture of this name in its place, and the same" in said
    broken.write_bytes(whole)
    next((data / "val" / "blue").iterdir()).write_bytes(b"no picture")
    said = " ".join(command(*arguments).split())
    assert "skipped: " in said and "but for 1 that cannot be decoded" in said and out.exists()


def test_a_picture_beside_the_folder_of_training_photos(tmp_path: Path) -> None:
    """Is not taken for all of them, where labels are not needed."""
    data = sets.folder(tmp_path / "data")
    (data / "overview.png").write_bytes(sets.png(sets.labelled(1, 3)[0][0]))
    assert len(open_data(data, "train", labels=False)) == 24


def test_seed_and_photos_in_place_of_the_recipes(tmp_path: Path) -> None:
    data, start = sets.archive(tmp_path / "a.npz"), network(tmp_path / "in.safetensors")
    (tmp_path / "r.toml").write_text(RECIPE)
    other = tmp_path / "other.toml"
    other.write_text("seed = 8\nphotos = 17\n" + RECIPE.replace("seed = 3\n", ""))

    def trained(name: str, recipe: Path, *told: str) -> Path:
        out = tmp_path / name
        command("train", start, "--data", data, "--recipe", recipe, "-o", out, "--no-measure", *told)
        return out

    recipes_own, theirs = trained("own", tmp_path / "r.toml"), trained("theirs", other)
    given = trained("given", tmp_path / "r.toml", "--seed", "8", "--photos", "17")
    assert all(torch.equal(value, weights(theirs)[name]) for name, value in weights(given).items())
    assert not torch.equal(weights(given)["head.weight"], weights(recipes_own)["head.weight"])
    line = "trained by r.toml with seed 8 (drop, prune) on a train, 17 of 24 drawn with seed 8"
    assert store.load(given)[1].history[-1] == line


def test_killed_run_goes_on_without_loss(tmp_path: Path) -> None:
    """A process that is killed outright and one that is not end with the same network."""
    data, start = sets.archive(tmp_path / "a.npz"), network(tmp_path / "in.safetensors")
    (tmp_path / "r.toml").write_text(RECIPE.replace("epochs = 4", "epochs = 12"))
    base = [
        sys.executable,
        "-m",
        "rowvit.cli",
        "train",
        start,
        "--data",
        data,
        "--recipe",
        tmp_path / "r.toml",
    ]
    base += ["--no-measure", "--save-every", "1"]
    killed, whole = tmp_path / "killed.safetensors", tmp_path / "whole.safetensors"
    state = tmp_path / "killed.safetensors.state"
    slow = tmp_path / "slow.py"  # stands still once there is a state, so that the kill comes during the run
    slow.write_text(
        "import os, sys, time\nfrom rowvit.train import loop\nstep = loop.Trainer._step\n"
        f"def late(*a):\n    time.sleep({HANG} if os.path.exists({str(state)!r}) else 0.1)\n"
        "    return step(*a)\n"
        "loop.Trainer._step = late\nfrom rowvit.cli import app\napp(sys.argv[1:])\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, slow, *map(str, base[3:]), "-o", str(killed)],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    until(state.exists, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    done = torch.load(state, weights_only=True)["done"]
    assert 0 < done < 72
    for out in (killed, whole):
        found = subprocess.run(
            [*map(str, base), "-o", str(out)], env=environment, capture_output=True, text=True, timeout=HANG
        )
        assert found.returncode == 0, found.stderr
        assert (f"continuing after step {done} of 72" in found.stderr) == (out is killed)
    assert killed.read_bytes() == whole.read_bytes()


def test_state_of_another_run_is_refused(tmp_path: Path) -> None:
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    model, card = store.load(network(tmp_path / "in.safetensors"))
    recipe = Recipe((Phase(1, 1e-3),), batch=8, precision="fp32")
    state = tmp_path / "x.state"
    state.write_bytes(b"nothing")
    with pytest.raises(RowvitError, match="cannot be read as a training state"):
        Trainer(model, card, photos, recipe, state).run()
    torch.save({"fingerprint": "other", "done": 1}, state)
    with pytest.raises(RowvitError, match="another recipe, network, teacher or data"):
        Trainer(model, card, photos, recipe, state).run()
    state.unlink()
    Trainer(model, card, photos, recipe, state, save_every=0.0).run()
    pruned = VisionTransformer(replace(CONFIG, pruning=({"layer": 0, "keep": 8},)))
    pruned.load_state_dict(model.state_dict())
    with pytest.raises(RowvitError, match="another recipe, network, teacher or data"):  # the same weights
        Trainer(pruned, card, photos, recipe, state).run()
    taught = replace(recipe, phases=(Phase(1, 1e-3, distill=0.5),))
    relabelled = replace(photos, labels=(photos.labels + 1) % 3)
    for other in (relabelled, replace(photos, classes=photos.classes[::-1])):
        with pytest.raises(RowvitError, match="another recipe, network, teacher or data"):
            Trainer(copy.deepcopy(model), card, other, recipe, state).run()
    for seed in (1, 2):  # a state belongs to its teacher, too
        state.unlink()
        teacher = store.load(network(tmp_path / "t.safetensors", seed=seed))
        Trainer(copy.deepcopy(model), card, photos, taught, state, teacher, save_every=0.0).run()
    with pytest.raises(RowvitError, match="another recipe, network, teacher or data"):
        other = store.load(network(tmp_path / "t.safetensors", seed=1))
        Trainer(copy.deepcopy(model), card, photos, taught, state, other).run()


def test_state_stays_until_the_network_is_saved(tmp_path: Path) -> None:
    """A run that ends, but whose network is not written, finishes at once when continued."""
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    start, state = network(tmp_path / "in.safetensors"), tmp_path / "x.state"
    phases = Phase(1, 1e-3, prune_layers=(0,), rho=0.5), Phase(1, 1e-3)
    recipe = Recipe(phases, batch=8, precision="fp32")
    steps: list[int] = []
    models = []
    for _ in range(2):
        model, card = store.load(start)
        trainer = Trainer(model, card, photos, recipe, state, save_every=0.0)
        trainer.run(lambda done, *_: steps.append(done))
        models.append(model)
    assert steps == [1, 2, 3, 4, 5, 6]
    assert models[0].config == models[1].config and models[0].config.pruning[0]["keep"] == 8
    weights = (model.state_dict() for model in models)
    assert all(map(torch.equal, *(state.values() for state in weights)))
    trainer.forget()
    assert not state.exists()


def test_a_phase_leaves_shares_of_all_patches() -> None:
    phase = Phase(1, 1e-3, prune_layers=(1, 2, 4), keep=(0.9, 0.5, 0.02))
    assert [(step["layer"], step["keep"]) for step in phase.schedule(196)] == [(1, 176), (2, 98), (4, 4)]


def test_later_phases_keep_the_schedule_when_a_run_goes_on(tmp_path: Path) -> None:
    """Stopped in the second phase, which keeps the pruning schedule of the first."""
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    start = network(tmp_path / "in.safetensors")
    phases = Phase(1, 1e-3, prune_layers=(0,), rho=0.5), Phase(1, 1e-3)
    recipe = Recipe(phases, batch=8, precision="fp32")

    whole, card = store.load(start)
    Trainer(whole, card, photos, recipe, tmp_path / "whole.state").run()
    model, _ = store.load(start)
    with pytest.raises(KeyboardInterrupt):
        Trainer(model, card, photos, recipe, tmp_path / "x.state", save_every=0.0).run(stop_after(4))
    model, _ = store.load(start)
    Trainer(model, card, photos, recipe, tmp_path / "x.state").run()
    assert model.config == whole.config
    assert all(map(torch.equal, model.state_dict().values(), whole.state_dict().values()))


def stop_after(steps: int) -> Callable:
    def progress(done: int, *_: object) -> None:
        if done > steps:
            raise KeyboardInterrupt

    return progress


def test_two_processes_train_the_same_network(tmp_path: Path) -> None:
    """Under torchrun, two processes continue from one's first step and match its steps up to rounding."""
    data, start = sets.archive(tmp_path / "a.npz"), network(tmp_path / "in.safetensors")
    # roundings turn the last bits of a sum into units
    text = (
        RECIPE.replace("quantise = true", "")
        .replace("token_drop = 0.4", "distill = 0.5")
        .replace("epochs = 4", "epochs = 1")
    )
    (tmp_path / "r.toml").write_text(text)
    network(tmp_path / "teacher.safetensors", seed=5)
    arguments = ["train", start, "--data", data, "--recipe", tmp_path / "r.toml", "--no-measure"]
    arguments += ["--teacher", tmp_path / "teacher.safetensors"]
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    command(*arguments, "-o", one)
    model, card = store.load(start)
    begun = (open_data(data, "train"), recipes.load(tmp_path / "r.toml"), tmp_path / "two.safetensors.state")
    with pytest.raises(KeyboardInterrupt):
        teacher = store.load(tmp_path / "teacher.safetensors")
        Trainer(model, card, *begun, teacher, save_every=0.0).run(stop_after(1))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = subprocess.run(
        [*launch, "-m", "rowvit.cli", *map(str, arguments), "-o", str(two)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("continuing after step 1 of 6") == 2 and not begun[2].exists()
    start_weights, first, second = weights(start), weights(one), weights(two)
    assert any(not torch.allclose(first[name], start_weights[name], atol=1e-3) for name in first)
    for name in first:
        assert torch.allclose(first[name], second[name], atol=2e-4), name


CONTINUED = """
import sys
from pathlib import Path
import numpy as np
import torch
import torch.distributed as dist
from rowvit.model.store import Card
from rowvit.model.vit import VisionTransformer, ViTConfig
from rowvit.photos import Photos
from rowvit.train.loop import Trainer
from rowvit.train.recipe import Phase, Recipe

torch.set_num_threads(1)
drawn = np.random.default_rng(0)
pictures = [drawn.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(24)]
photos = Photos(pictures, drawn.integers(0, 2, 24), ("a", "b"), "noise")
recipe = Recipe((Phase(2, 1e-3), Phase(1, 1e-3)), batch=12, precision="fp32")
state = Path(sys.argv[1])


class Stop(Exception):
    pass


def trained(after=None):
    torch.manual_seed(0)
    shape = dict(act="relu", prefix=0, pool="norm-mean")
    model = VisionTransformer(ViTConfig(16, 8, 64, 3, 4, 256, 2, **shape))
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.05)
    every = 9999 if after is None else 0
    trainer = Trainer(model, Card("n", ["a", "b"]), photos, recipe, state, save_every=every)
    write = trainer._write_state

    def written(*arguments):
        write(*arguments)
        dist.barrier()
        if trainer.done == after:
            raise Stop

    trainer._write_state = written
    try:
        trainer.run()
    except Stop:
        pass
    return model


whole = trained()
trained(after=3)
same = map(torch.equal, whole.state_dict().values(), trained().state_dict().values())
print("the same" if all(same) else "another", flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def test_three_processes_go_on_as_they_were(tmp_path: Path) -> None:
    """Of a network without a class token, whose parameter of none gets no gradient."""
    (tmp_path / "continued.py").write_text(CONTINUED)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    done = subprocess.run(
        [*launch, tmp_path / "continued.py", tmp_path / "x.state"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the same") == 3 and "another" not in done.stdout


def test_states_of_short_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short phases are, a state is written when it is time."""
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    model, card = store.load(network(tmp_path / "in.safetensors"))
    recipe = Recipe((Phase(1 / 3, 1e-3),) * 6, batch=8, precision="fp32")
    clock, written = FakeClock(), list[int]()
    monkeypatch.setattr("rowvit.train.loop.time", clock)
    trainer = Trainer(model, card, photos, recipe, tmp_path / "x.state", save_every=60.0)
    monkeypatch.setattr(trainer, "_write_state", lambda *_: written.append(trainer.done))
    trainer.run(lambda *_: clock.sleep(25))
    assert written == [3, 6]


def test_large_photos_are_decoded_no_larger_than_crops_need(tmp_path: Path) -> None:
    """A phone's photo of 24 megapixels, held upright, fits the memory for pictures, as elsewhere."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (5712, 4284), (90, 140, 60)).save(tmp_path / "a.jpg", exif=exif)
    photos = Photos([tmp_path / "a.jpg"], np.zeros(1, np.int64), ("a",), "phone")
    found, _ = TrainingSet(photos, 32, "bicubic", Augmentation(crop=0.6), 1)[0]
    assert np.abs(found.float().mean(dim=(1, 2)).numpy() - [90, 140, 60]).max() < 2


@pytest.mark.parametrize("side", [16, 20])
def test_distillation_follows_the_teacher(tmp_path: Path, side: int) -> None:
    """With the teacher's answers alone, the student answers like a teacher that is always wrong."""
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    model, card = store.load(network(tmp_path / "in.safetensors"))
    teacher, _ = store.load(network(tmp_path / "t.safetensors", replace(CONFIG, image_size=side), seed=1))
    learn = Recipe((Phase(12, 3e-3),), batch=8, precision="fp32")
    Trainer(teacher, card, photos, learn, tmp_path / "t.state").run()
    with torch.no_grad():  # permute the classes
        teacher.head.weight.copy_(teacher.head.weight[[1, 2, 0]])
        teacher.head.bias.copy_(teacher.head.bias[[1, 2, 0]])
    recipe = Recipe((Phase(12, 3e-3, distill=1.0),), batch=8, precision="fp32")
    Trainer(model, card, photos, recipe, tmp_path / "s.state", (teacher, card)).run()
    guesses = predict(model, photos.pixels(range(24), 16), card.mean, card.std).argmax(axis=1)
    assert np.mean(guesses == (photos.labels - 1) % 3) > 0.9


def test_features_against_their_definition() -> None:
    """By PyTorch's own LayerNorm, token by token; the same features at another scale cost nothing."""
    generator = torch.Generator().manual_seed(0)
    stream = torch.randn(2, 3, 8, generator=generator)
    taught = torch.randn(2, 5, 8, generator=generator)
    tokens = torch.tensor([[0, 2, 4], [0, 1, 3]])
    norm = torch.nn.LayerNorm(8)
    parts = [
        (norm(stream[image, place]) - norm(taught[image, tokens[image, place]])).square().mean().item()
        for image in range(2)
        for place in range(3)
    ]
    assert float(features(stream, tokens, taught)) == pytest.approx(np.mean(parts))
    same = torch.stack([taught[image, tokens[image]] for image in range(2)])
    assert float(features(3 * same + 1, tokens, taught)) == pytest.approx(0, abs=1e-6)


def test_features_follow_the_teacher(tmp_path: Path) -> None:
    """A pruned network that is taught features ends nearer to its teacher's than one taught answers."""
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    teacher, card = store.load(network(tmp_path / "t.safetensors", seed=1))
    learn = Recipe((Phase(12, 3e-3),), batch=8, precision="fp32")
    Trainer(teacher, card, photos, learn, tmp_path / "t.state").run()
    pixels = normalise(photos.pixels(range(24), 16), card.mean, card.std)
    distance = {}
    for weight in (0.0, 1.0):
        model, card = store.load(network(tmp_path / "in.safetensors"))
        phase = Phase(12, 3e-3, distill=0.5, features=weight, prune_layers=(0,), rho=0.5)
        recipe = Recipe((phase,), batch=8, precision="fp32")
        Trainer(model, card, photos, recipe, tmp_path / f"{weight}.state", (teacher, card)).run()
        with torch.no_grad():
            stream = model.encode(pixels)
            distance[weight] = float(features(stream, model.tokens, teacher.encode(pixels)))
        guesses = predict(model, photos.pixels(range(24), 16), card.mean, card.std).argmax(axis=1)
        assert np.mean(guesses == photos.labels) > 0.9
    assert distance[1.0] < 0.5 * distance[0.0]


def test_streams_behind_other_blocks(tmp_path: Path) -> None:
    """Compared behind the first block, it ends nearer to the teacher's stream there."""
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    teacher, card = store.load(network(tmp_path / "t.safetensors", seed=1))
    pixels = normalise(photos.pixels(range(24), 16), card.mean, card.std)
    distance = {}
    for layers in ((), (0, 1)):
        model, card = store.load(network(tmp_path / "in.safetensors"))
        phase = Phase(12, 3e-3, distill=0.5, features=1.0, feature_layers=layers)
        recipe = Recipe((phase,), batch=8, precision="fp32")
        Trainer(model, card, photos, recipe, tmp_path / f"{len(layers)}.state", (teacher, card)).run()
        first = [streams(net, pixels)["layers.0.ffn"] for net in (model, teacher)]
        distance[layers] = float(features(first[0], model.tokens, first[1]))
    assert distance[(0, 1)] < 0.5 * distance[()]
    absent = Recipe((Phase(1, 1e-3, name="p", features=1.0, feature_layers=(2,)),), batch=8)
    with pytest.raises(RowvitError, match="phase 'p' has feature_layers that the network does not have"):
        Trainer(model, card, photos, absent, tmp_path / "x.state", (teacher, card))


def streams(model: VisionTransformer, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Everything that a network observes, without gradients."""
    found: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        model.eval()(pixels, found.__setitem__)
    return found


@pytest.mark.parametrize("change", [{}, {"rotary": True}, {"gated": True}])
def test_apart_against_its_definition(tmp_path: Path, change: dict) -> None:
    """The teacher itself costs nothing; a part that adds nothing costs its mean square over its variance."""
    config = replace(CONFIG, **change)
    teacher, _ = store.load(network(tmp_path / "t.safetensors", config, seed=1))
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seen = streams(teacher, pixels)
    with torch.no_grad():
        lost, logits = Apart(teacher)(pixels, seen)
    assert float(lost) < 1e-9 and torch.allclose(logits, seen["logits"], atol=1e-5)
    model, _ = store.load(tmp_path / "t.safetensors")
    last = model.blocks[1].mlp.fc2
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
        lost, logits = Apart(model)(pixels, seen)
    added = seen["layers.1.ffn"] - seen["layers.1.attn"]
    assert float(lost) == pytest.approx(float(added.square().mean() / added.var()) / 5, rel=1e-4)
    assert torch.allclose(logits, seen["logits"], atol=1e-5)  # the head still sees the teacher's


def test_apart_learns_the_teachers_parts(tmp_path: Path) -> None:
    """From other random weights, every part comes nearer to the teacher's, and the head learns as well."""
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    teacher, card = store.load(network(tmp_path / "t.safetensors", seed=1))
    learn = Recipe((Phase(12, 3e-3),), batch=8, precision="fp32")
    Trainer(teacher, card, photos, learn, tmp_path / "t.state").run()
    model, card = store.load(network(tmp_path / "in.safetensors"))
    pixels = normalise(photos.pixels(range(24), 16), card.mean, card.std)
    seen = streams(teacher, pixels)
    with torch.no_grad():
        before = float(Apart(model)(pixels, seen)[0])
    recipe = Recipe((Phase(30, 3e-3, distill=0.5, apart=True),), batch=8, precision="fp32")
    Trainer(model, card, photos, recipe, tmp_path / "s.state", (teacher, card)).run()
    with torch.no_grad():
        after, logits = Apart(model)(pixels, seen)
    assert float(after) < 0.2 * before
    assert np.mean(logits.argmax(dim=1).numpy() == seen["logits"].argmax(dim=1).numpy()) > 0.9


def test_rounded_phase_begins_with_centred_keys(tmp_path: Path) -> None:
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    model, card = store.load(network(tmp_path / "in.safetensors"))
    dim = CONFIG.dim
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.bias[dim : 2 * dim] += 6
    before = predict(model, photos.pixels(range(24), 16), card.mean, card.std)
    recipe = Recipe((Phase(0.3, 1e-9, quantise=True),), batch=8, precision="fp32")
    Trainer(model, card, photos, recipe, tmp_path / "x.state").run()
    keys = []

    def observe(name: str, value: torch.Tensor) -> None:
        if name.endswith(".k"):
            keys.append(float(value.mean(dim=(0, 2)).abs().max()))

    after = predict(model, photos.pixels(range(24), 16), card.mean, card.std, observe=observe)
    assert max(keys) < 0.1 and np.allclose(after, before, atol=1e-4)


def test_row_penalty_saves_rows(tmp_path: Path) -> None:
    """The same run with the penalty fetches fewer rows of W2, and still learns."""
    hidden = [torch.tensor([[[1.0, 0, 3], [-2, 0, 1]]]), torch.zeros(1, 4, 3)]
    assert float(rows(hidden)) == pytest.approx((2 + 0 + 3) / 3 / 2)
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    fetched = {}
    for weight in (0.0, 1.0):
        start = network(tmp_path / "in.safetensors", replace(CONFIG, ffn2_rule="image"))
        model, card = store.load(start)
        recipe = Recipe((Phase(12, 3e-3, row_penalty=weight),), batch=8, precision="fp32")
        Trainer(model, card, photos, recipe, tmp_path / f"{weight}.state").run()
        found = evaluate((model, card), photos)
        assert found.right() / len(photos) > 0.9
        fetched[weight] = found.work.w2_rows_fetched.sum()
    assert fetched[1.0] < 0.7 * fetched[0.0]


@pytest.mark.parametrize(
    ("batch", "least", "steps"), [(8, 0, 6), (8, 5, 6), (8, 30, 30), (24, 0, 2), (25, 0, 2), (64, 30, 30)]
)
def test_few_photos(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, batch: int, least: int, steps: int
) -> None:
    """A batch has at most all of them, and a phase as many steps as are asked for."""
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    model, card = store.load(network(tmp_path / "in.safetensors"))
    recipe = Recipe((Phase(2, 3e-3, min_steps=least),), batch=batch, precision="fp32")
    said: list[tuple] = []
    with caplog.at_level(logging.INFO, "rowvit"):
        Trainer(model, card, photos, recipe, tmp_path / "x.state").run(lambda *told: said.append(told))
    assert said[-1][:2] == (steps, steps)
    assert ("a batch has 24 photos instead of" in caplog.text) == (batch > 24)
    assert least < 30 or evaluate((model, card), photos).right() > 20


@pytest.mark.parametrize(
    ("batch", "count", "message"),
    [(9, 24, "a batch of 9 cannot be split evenly among 2"), (8, 1, "split among processes: 1 among 2")],
)
def test_processes_without_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, count: int, message: str
) -> None:
    monkeypatch.setattr("rowvit.train.loop._processes", lambda: (0, 2, torch.device("cpu")))
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    model, card = store.load(network(tmp_path / "in.safetensors"))
    with pytest.raises(RowvitError, match=message):
        Trainer(
            model, card, photos, Recipe((Phase(1, 1e-3),), batch=batch, photos=count), tmp_path / "x.state"
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phases": (Phase(1, 1e-3, distill=0.5),)}, "--teacher"),
        ({"phases": (Phase(1, 1e-3, features=0.5),)}, "--teacher"),
        ({"phases": (Phase(1, 1e-3, apart=True),)}, "--teacher"),
        ({"phases": (Phase(1, 1e-3, name="p", prune_layers=(2,)),)}, "phase 'p' prunes in a block"),
        (
            {"phases": (Phase(1, 1e-3, prune_layers=(0,)), Phase(1, 1e-3, name="p", apart=True))},
            "phase 'p' is apart, but a network drops tokens",
        ),
        ({"phases": (Phase(1, 1e9, name="p"),)}, "lower the learning rate"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    model, card = store.load(network(tmp_path / "in.safetensors"))
    if "learning" in message:
        with torch.no_grad():
            model.head.weight.fill_(float("nan"))
    recipe = replace(Recipe((Phase(1, 1e-3),), batch=8, precision="fp32"), **change)
    teacher = (model, card) if "apart" in message else None
    with pytest.raises(RowvitError, match=message):
        Trainer(model, card, photos, recipe, tmp_path / "x.state", teacher).run()


def test_one_class_is_refused(tmp_path: Path) -> None:
    """Every answer would be right before anything is learned."""
    folder = tmp_path / "photos" / "train" / "one"
    folder.mkdir(parents=True)
    for number, pixels in enumerate(sets.labelled(3, 2)[0]):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    photos = open_data(tmp_path / "photos", "train")
    model = VisionTransformer(replace(CONFIG, classes=1))
    with pytest.raises(RowvitError, match="one class leaves nothing to learn"):
        Trainer(model, store.Card("one", ["one"]), photos, Recipe((Phase(1, 1e-3),)), tmp_path / "x.state")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 7}, "has 7 classes"),
        ({"image_size": 20}, "has 26 tokens"),
        ({"patch_size": 2}, "has 65 tokens"),
        ({"dim": 64}, "has 64 channels"),
        ({"depth": 3}, "has 3 blocks"),
    ],
)
def test_teacher_of_another_shape_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    model, card = store.load(network(tmp_path / "in.safetensors"))
    teacher = store.load(network(tmp_path / "t.safetensors", replace(CONFIG, **change)))
    phase = Phase(1, 1e-3, apart=True) if "depth" in change else Phase(1, 1e-3, features=0.5)
    recipe = Recipe((phase,), batch=8, precision="fp32")
    with pytest.raises(RowvitError, match=f"the teacher {message}"):
        Trainer(model, card, photos, recipe, tmp_path / "x.state", teacher)
    shuffled = model, replace(card, classes=card.classes[::-1])
    with pytest.raises(RowvitError, match="the teacher has the classes in another order"):
        Trainer(model, card, photos, recipe, tmp_path / "x.state", shuffled)


def test_what_a_run_takes_for_granted_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    trimmed = replace(CONFIG, pruning=({"layer": 0, "keep": 8}, {"layer": 1, "keep": 0}))
    model, card = store.load(network(tmp_path / "in.safetensors", trimmed))
    teacher = model, replace(card, classes=["0", "1", "2"])
    schedule = Phase(1, 1e-3, distill=0.5, prune_layers=(0,), rho=0.5)
    with caplog.at_level("INFO", "rowvit"):
        Trainer(model, card, photos, Recipe((Phase(1, 1e-3),), batch=8), tmp_path / "x.state", (model, card))
        assert not caplog.messages
        Trainer(model, card, photos, Recipe((schedule,), batch=8), tmp_path / "x.state", teacher)
    first = photos.classes[0]
    assert caplog.messages == [
        f"the teacher calls class '{first}' '0': it teaches by their order",
        "the recipe's pruning takes the place of the network's own",
    ]


@pytest.mark.parametrize("warmup", [1e-4, 1e-3, 0.1])
def test_no_rate_is_above_the_phases(warmup: float) -> None:
    rates = [_rate(Phase(1, 2e-3, warmup=warmup), done) for done in np.linspace(0, 1, 5001)]
    assert 0 < rates[0] <= max(rates) <= 2e-3 * (1 + 1e-9)


def test_rates_fall_to_the_last() -> None:
    """From the phase's, where warming up ends, along half a cosine."""
    phase = Phase(1, 2e-3, warmup=0.1, final_lr=4e-4)
    rates = [_rate(phase, done) for done in (0.05, 0.1, 0.55, 1.0)]
    assert rates == pytest.approx([1e-3, 2e-3, 1.2e-3, 4e-4])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_step_is_as_the_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Rates by phase and block, tokens, pruning, precision; every epoch has its order and its views."""
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    model, card = store.load(network(tmp_path / "in.safetensors"))
    phases = (
        Phase(2, 1e-3, warmup=0.5, final_lr=1e-4, layer_decay=0.5, token_drop=0.4),
        Phase(4, 2e-3, warmup=0.0, prune_layers=(0,), rho=0.5, prune_share=0.5),
    )
    recipe = Recipe(phases, batch=8, seed=1, precision=precision, augmentation=Augmentation(flip=True))
    trainer = Trainer(model, card, photos, recipe, tmp_path / "x.state")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates: list[dict[str, float]] = []
    found: list[tuple[float, bool]] = []
    views: list[bytes] = []
    casts: list[bool] = []
    whole = trainer._step

    def noted(wrapped: object, optimizer: torch.optim.AdamW, phase: Phase, *batch: torch.Tensor) -> float:
        groups = optimizer.param_groups
        rates.append({names[id(p)]: group["lr"] for group in groups for p in group["params"]})
        found.append((model.token_drop, bool(model.config.pruning)))
        views.extend(photo.numpy().tobytes() for photo in batch[0])
        return whole(wrapped, optimizer, phase, *batch)

    monkeypatch.setattr(trainer, "_step", noted)
    model.register_forward_pre_hook(lambda *_: casts.append(torch.is_autocast_enabled("cpu")))
    trainer.run()

    first = [2e-6, 1e-3 / 3, 2e-3 / 3, 1e-3, 7.75e-4, 3.25e-4]
    second = [1e-3 * (1 + math.cos(math.pi * step / 12)) for step in range(12)]
    assert [step["head.weight"] for step in rates] == pytest.approx([*first, *second])
    for name, factor in (("blocks.1.mlp.fc1.bias", 2), ("blocks.0.attn.qkv.weight", 4), ("pos_embed", 8)):
        expected = [*(rate / factor for rate in first), *second]
        assert [step[name] for step in rates] == pytest.approx(expected), name
    assert found[:6] == [(0.4, False)] * 6 and {*found[6:]} == {(0.0, False), (0.0, True)}
    assert model.token_drop == 0 and model.config.pruning
    assert {*casts} == {precision == "bf16"}

    def plain(view: bytes) -> bytes:
        """Of a photo, whether it is mirrored or not."""
        pixels = np.frombuffer(view, np.uint8).reshape(3, 16, 16)
        return min(view, pixels[:, :, ::-1].tobytes())

    epochs = [[plain(view) for view in views[at : at + 24]] for at in range(0, len(views), 24)]
    every = {plain(photo.transpose(2, 0, 1).tobytes()) for photo in photos.pixels(range(24), 16)}
    assert len(epochs) == 6 and all({*epoch} == every for epoch in epochs) and len(every) == 24
    assert len({tuple(epoch) for epoch in epochs}) == 6 and len({*views}) > 40


def test_each_augmentation_alone(tmp_path: Path) -> None:
    """Mirrors only mirror, and some; colours leave no photo's size, and few as they are."""
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    plain = [torch.from_numpy(one).permute(2, 0, 1) for one in photos.pixels(range(24), 16)]
    mirrored = TrainingSet(photos, 16, "bicubic", Augmentation(flip=True), seed=1)
    same = [torch.equal(mirrored[i][0], plain[i]) for i in range(24)]
    assert 4 < sum(same) < 20
    assert all(same[i] or torch.equal(mirrored[i][0], plain[i].flip(2)) for i in range(24))
    coloured = TrainingSet(photos, 16, "bicubic", Augmentation(randaugment=9), seed=1)
    assert sum(torch.equal(coloured[i][0], plain[i]) for i in range(24)) < 12
    assert {coloured[i][0].shape for i in range(24)} == {(3, 16, 16)}


def test_smooth_labels() -> None:
    """A share of every label is spread over all classes."""
    logits = torch.tensor([[math.log(2), 0.0, 0.0]])  # probabilities of a half and two quarters
    targets = torch.tensor([[1.0, 0.0, 0.0]])
    found = loss(logits, targets, None, Phase(1, 1e-3, label_smoothing=0.3))
    assert found.item() == pytest.approx(0.8 * math.log(2) + 0.2 * math.log(4))


def test_what_decays() -> None:
    """Matrices; neither biases and gains nor what is added to tokens."""
    model = VisionTransformer(replace(CONFIG, pre_norm=True))
    groups = _groups(model, Phase(1, 1e-3, weight_decay=0.3))
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    found = {name: decays[id(parameter)] for name, parameter in model.named_parameters()}
    assert {*found.values()} == {0.0, 0.3}
    matrices = {"qkv.weight", "proj.weight", "fc1.weight", "fc2.weight", "head.weight"}
    assert {name for name, decay in found.items() if decay} == {
        name for name in found if any(name.endswith(matrix) for matrix in matrices)
    }


def test_gradients_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of all parameters together, to length 1."""
    lengths: list[float] = []
    step = torch.optim.AdamW.step

    def noted(optimizer: torch.optim.AdamW, *arguments: object) -> object:
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        lengths.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]))))
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    model, card = store.load(network(tmp_path / "in.safetensors"))
    with torch.no_grad():
        model.head.weight *= 1000
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    recipe = Recipe((Phase(1, 1e-5),), batch=8, precision="fp32")
    Trainer(model, card, photos, recipe, tmp_path / "x.state").run()
    assert len(lengths) == 3 and lengths == pytest.approx([1.0] * 3, rel=1e-3)


def test_rates_fall_from_the_head_to_the_input() -> None:
    """The LayerNorm before the first block, which CLIP's networks have, is of the input, too."""
    model = VisionTransformer(replace(CONFIG, pre_norm=True))
    factors = {
        id(parameter): group["factor"]
        for group in _groups(model, Phase(1, 1e-3, layer_decay=0.5))
        for parameter in group["params"]
    }
    found = {name: factors[id(parameter)] for name, parameter in model.named_parameters()}
    assert {found[name] for name in ("norm_pre.weight", "pos_embed", "patch_embed.proj.weight")} == {0.125}
    assert found["blocks.0.norm1.weight"] == 0.25 and found["blocks.1.norm1.weight"] == 0.5
    assert found["norm.weight"] == found["head.bias"] == 1.0


def test_state_that_cannot_be_written(tmp_path: Path) -> None:
    """Where the disk is full the run ends with a sentence, and the state before it stays."""
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    state, recipe = tmp_path / "x.state", Recipe((Phase(1, 1e-3),), batch=8, precision="fp32")
    model, card = store.load(network(tmp_path / "in.safetensors"))
    start, limits = copy.deepcopy(model), resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(done: int, *_: object) -> None:
        if done == 2:  # files may not grow beyond it
            resource.setrlimit(resource.RLIMIT_FSIZE, (state.stat().st_size // 2, limits[1]))

    try:
        with pytest.raises(RowvitError, match=r"x\.state: cannot be written \(.*\)"):
            Trainer(model, card, photos, recipe, state, save_every=0.0).run(fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.glob("x.state*")] == ["x.state"]
    steps: list[int] = []
    Trainer(start, card, photos, recipe, state).run(lambda done, *_: steps.append(done))
    assert steps == [2, 3]


def test_streams_of_other_tokens_are_not_compared(tmp_path: Path) -> None:
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    whole = store.load(network(tmp_path / "in.safetensors"))
    drops = store.load(
        network(tmp_path / "d.safetensors", replace(CONFIG, pruning=({"layer": 0, "keep": 8},)))
    )
    inside = Phase(1, 1e-3, name="f", features=1.0, feature_layers=(1,))
    first = Phase(1, 1e-3, prune_layers=(0,), rho=0.5)
    for (model, card), teacher, phases, message in (
        (whole, drops, (Phase(1, 1e-3, name="f", features=1.0),), "but the teacher drops tokens"),
        (drops, whole, (inside,), "phase 'f' has feature_layers, but the network drops tokens by then"),
        (whole, whole, (first, inside), "phase 'f' has feature_layers, but the network drops tokens by then"),
    ):
        with pytest.raises(RowvitError, match=message):
            recipe = Recipe(phases, batch=8, precision="fp32")
            Trainer(model, card, photos, recipe, tmp_path / "x.state", teacher)


def test_rounded_phase_wants_a_network_that_can_be_quantised(tmp_path: Path) -> None:
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    model, card = store.load(network(tmp_path / "in.safetensors", replace(CONFIG, act="gelu")))
    recipe = Recipe((Phase(1, 1e-3, quantise=True),), batch=8)
    with pytest.raises(RowvitError, match="activation is gelu"):
        Trainer(model, card, photos, recipe, tmp_path / "x.state")


def test_processes_that_cannot_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = open_data(sets.archive(tmp_path / "a.npz"), "train")
    model, card = store.load(network(tmp_path / "in.safetensors"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RowvitError, match="start them with torchrun"):
        Trainer(model, card, photos, Recipe((Phase(1, 1e-3),), batch=8), tmp_path / "x.state")


def test_classes_keep_the_order_of_the_network(tmp_path: Path) -> None:
    """A network with its classes in another order than the folders is trained and measured by name."""
    torch.manual_seed(0)
    model = VisionTransformer(CONFIG)
    store.save(tmp_path / "in.safetensors", model, store.Card("squares", ["red", "blue", "green"]))
    (tmp_path / "r.toml").write_text(RECIPE)
    data = sets.folder(tmp_path / "data")
    out = tmp_path / "out.safetensors"
    command("train", tmp_path / "in.safetensors", "--data", data, "--recipe", tmp_path / "r.toml", "-o", out)
    model, card = store.load(out)
    assert card.classes == ["red", "blue", "green"] and card.accuracy["float"] >= 90
    from rowvit.model.vit import predict

    tested = open_data(data, "test")
    guesses = predict(model, tested.pixels(range(12), 16), card.mean, card.std).argmax(axis=1)
    right = [
        card.classes[guess] == tested.classes[label]
        for guess, label in zip(guesses, tested.labels, strict=True)
    ]
    assert np.mean(right) >= 0.9


@pytest.mark.parametrize("workers", [0, 1])
def test_photo_that_cannot_be_decoded_is_named(tmp_path: Path, workers: int) -> None:
    data = sets.folder(tmp_path / "data")
    broken = next((data / "train" / "blue").iterdir())
    Image.new("RGB", (16, 16)).save(broken)
    broken.write_bytes(broken.read_bytes()[:20])
    start = network(tmp_path / "in.safetensors")
    (tmp_path / "r.toml").write_text("batch = 24\n[[phase]]\nepochs = 1\nlr = 1e-3")
    out = tmp_path / "out.safetensors"
    told = "--data", data, "--recipe", tmp_path / "r.toml", "--workers", workers, "-o", out
    text = command("train", start, *told, code=2).replace("\n", "")
    assert broken.name in text and "RowvitError" not in text and "Traceback" not in text


@pytest.mark.parametrize(
    "precision, has, found",
    [("auto", True, True), ("auto", False, False), ("bf16", False, True), ("fp32", True, False)],
)
def test_bf16_where_the_processor_has_it(monkeypatch, precision: str, has: bool, found: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    assert in_bf16(precision, torch.device("cpu")) is found
