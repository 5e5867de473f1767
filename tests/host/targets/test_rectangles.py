# SPDX-License-Identifier: Apache-2.0
"""A network for rectangular images the whole way: quantised, on golden and sim, measured, refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import rowvit
from rowvit.cli import app
from rowvit.errors import RowvitError
from rowvit.formats.description import image_shape, square_side
from rowvit.formats.package import ModelPackage
from rowvit.hardware.host import host_work
from rowvit.images import decode
from rowvit.quant.synthetic import random_package
from rowvit.reference import patchify
from rowvit.targets.driver import _pack

SIZE = dict(dim=32, depth=2, heads=2, image_size=12, image_width=28, patch_size=4, hidden=48, classes=5)
PRUNING = [{"layer": 0, "keep": 9, "threshold": 0}]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> SimpleNamespace:
    """A package, and photos of which none has its shape."""
    folder = tmp_path_factory.mktemp("rectangles")
    package = random_package(np.random.default_rng(1), **SIZE, pruning=PRUNING)
    package.save(folder / "p.safetensors")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(2)
    for number, size in enumerate([(30, 90), (61, 20), (8, 9)]):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
    return SimpleNamespace(package=folder / "p.safetensors", photos=folder / "photos", folder=folder)


def command(*arguments: object, code: int = 0) -> str:
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert found.exit_code == code, (found.output, found.exception)
    return found.stdout if not code else found.stderr


def test_descriptions() -> None:
    """Of a rectangle they name the width, which counts; of a square they are as before."""
    made = random_package(np.random.default_rng(1), **SIZE)
    assert image_shape(made.arch) == (12, 28) and made.arch["tokens"] == 1 + 3 * 7
    square = random_package(np.random.default_rng(1), **SIZE | {"image_width": 12})
    assert "image_width" not in square.arch and image_shape(square.arch) == (12, 12)
    for width in (24, 27, 0, 9000, "28"):
        wrong = ModelPackage(made.meta | {"architecture": made.arch | {"image_width": width}}, made.tensors)
        with pytest.raises(RowvitError, match=r"do not agree|image_width"):
            wrong.check("wrong")


@pytest.mark.parametrize(("size", "patch", "padding"), [((12, 28), 4, 0), ((15, 9), 3, 5), ((2, 7), 1, 2)])
def test_patches_of_the_driver_are_those_of_the_reference(size, patch, padding) -> None:
    """In raster order, and of an image in another order of memory."""
    image = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = patchify(image[None], patch)[0]
    row, column, y, x, channel = 1, 2, patch - 1, 0, 1
    pixel = int(image[row * patch + y, column * patch + x, channel])
    assert expected[row * (size[1] // patch) + column, (y * patch + x) * 3 + channel] == pixel - 128
    for same in (image, np.asfortranarray(image)):
        rows = np.zeros((len(expected), expected.shape[1] + padding), np.uint8)
        _pack(same, patch, rows)
        assert np.array_equal(rows[:, : expected.shape[1]].view(np.int8), expected)
        assert not rows[:, expected.shape[1] :].any()


def test_commands(files) -> None:
    """Photos are cut to the network's shape; sim equals golden; what is predicted and described."""
    out = files.folder / "program.safetensors"
    checked = command("run", files.package, files.photos, "-t", "sim", "-c", "tiny", "--check", "--batch", 2)
    assert checked.count(" yes ") == 3
    with rowvit.open("golden", "tiny") as golden:
        golden.load(files.package)
        photos = sorted(files.photos.iterdir())
        pixels = np.stack([decode(photo, (12, 28)) for photo in photos])
        assert all(a.same(b) for a, b in zip(golden(photos), golden(pixels), strict=True))
        with pytest.raises(RowvitError, match=r"takes uint8 \[B, 12, 28, 3\]"):
            golden(pixels.transpose(0, 2, 1, 3))
    command("compile", files.package, "-c", "tiny", "-o", out)
    for file in (files.package, out):
        assert "12 x 28 (height x width), patches of 4" in command("info", file)
    assert json.loads(command("fits", files.package, "--json", "-"))["configurations"]
    assert "total" in command("profile", files.package, "-c", "tiny", "--predict")
    bench = files.folder / "bench.json"
    options = ("-t", "golden", "-n", 2, "--warm-up", 0, "--json", bench)
    command("bench", files.package, files.photos, *options)
    assert json.loads(bench.read_text())["throughput"]


def test_estimates_of_the_host_count_pixels() -> None:
    """Those of a rectangle are those of the square of as many pixels."""
    config = rowvit.hardware.config.load("pynq-z2")
    assert square_side({"image_size": 112, "image_width": 448}) == 224
    assert host_work(config, square_side({"image_size": 224}), 1.0) == host_work(config, 224, 1.0)


def test_the_hls_front_end_refuses(files) -> None:
    """When the network is loaded, not with the first photo."""
    message = (
        r"the HLS front end makes squares, .* takes images of 12 x 28 pixels \(height x width\); take the"
    )
    with rowvit.open("golden", "tiny", frontend="hls") as golden, pytest.raises(RowvitError, match=message):
        golden.load(files.package)
    told = command(
        *("run", files.package, files.photos, "-t", "golden", "-c", "tiny", "--frontend", "hls"), code=2
    )
    assert "the HLS front end makes squares" in " ".join(told.split()) and told.count("rowvit:") == 1


def test_from_a_float_network(tmp_path: Path, files) -> None:
    """Quantised on photos of its shape, close to what it was, also as the float network that is timed."""
    torch = pytest.importorskip("torch")
    from networks import randomise, snr
    from rowvit.measure.speed import baseline
    from rowvit.measure.speed.numpy_network import NumpyNetwork
    from rowvit.model import store
    from rowvit.model.vit import VisionTransformer, ViTConfig, predict

    config = ViTConfig(12, 4, 32, 2, 2, 64, 3, image_width=28)
    model, card = randomise(VisionTransformer(config)), store.Card("wide", ["a", "b", "c"])
    store.save(tmp_path / "f.safetensors", model, card)
    assert store.load(tmp_path / "f.safetensors")[0].config == config and config.grid == (3, 7)
    pixels = np.random.default_rng(5).integers(0, 256, (60, 12, 28, 3), dtype=np.uint8)
    command("quantise", tmp_path / "f.safetensors", "--data", files.photos, "-o", tmp_path / "p.safetensors")
    with rowvit.open("golden", "tiny") as golden:
        golden.load(tmp_path / "p.safetensors")
        ours = np.stack([result.logits for result in golden(pixels)]) * golden.meta["scales"]["logit"]
    exact = predict(model, pixels, card.mean, card.std)
    assert snr(exact, ours) > 15
    meta = ModelPackage.load(tmp_path / "p.safetensors").meta
    timed = baseline.float_network(meta)
    images = torch.randn(2, 3, 12, 28, generator=torch.Generator().manual_seed(1))
    parameters = {name: value.numpy() for name, value in timed.state_dict().items()}
    found = NumpyNetwork(meta["architecture"], [], parameters)(images.numpy())
    with torch.inference_mode():
        np.testing.assert_allclose(found, timed(images).numpy(), atol=1e-5)


def test_squares_are_described_as_before(tmp_path: Path) -> None:
    """Neither files nor what training knows its saved states by has a width, and a square has one name."""
    pytest.importorskip("torch")
    from rowvit.formats import container
    from rowvit.model import store
    from rowvit.model.vit import VisionTransformer, ViTConfig

    config = ViTConfig(8, 4, 12, 2, 3, 20, 2)
    assert config == ViTConfig(8, 4, 12, 2, 3, 20, 2, image_width=8) and "image_width" not in repr(config)
    store.save(tmp_path / "f.safetensors", VisionTransformer(config), store.Card("n", ["a", "b"]))
    assert "image_width" not in container.read(tmp_path / "f.safetensors")[1][store.KEY]
    for width, message in ((10, "patch of 4 does not divide the image of 8 x 10"), (-4, "image_width is -4")):
        with pytest.raises(RowvitError, match=message):
            ViTConfig(8, 4, 12, 2, 3, 20, 2, image_width=width)


def test_training_refuses() -> None:
    """With a sentence, also where only the teacher takes rectangles."""
    pytest.importorskip("torch")
    from rowvit.model.store import Card
    from rowvit.model.vit import VisionTransformer, ViTConfig
    from rowvit.train.loop import require_fit
    from rowvit.train.recipe import Phase, Recipe

    square, wide = (VisionTransformer(ViTConfig(8, 4, 12, 1, 3, 20, 2, image_width=w)) for w in (8, 12))
    photos, recipe = SimpleNamespace(classes=["a", "b"]), Recipe((Phase(1, 1e-3),))
    require_fit(square, photos, recipe, None)
    for model, teacher in ((wide, None), (square, (wide, Card("t")))):
        with pytest.raises(RowvitError, match=r"training takes square images, and a network takes 8 x 12"):
            require_fit(model, photos, recipe, teacher)
