# SPDX-License-Identifier: Apache-2.0
"""What a network makes of a photo, as pictures: each pixel, and what is on it."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import rowvit
from rowvit.errors import RowvitError
from rowvit.formats.bundled import MODELS
from rowvit.images import decode
from rowvit.measure.draw import pictures, plots
from rowvit.quant.synthetic import random_package
from rowvit.targets.target import Result


def joined(text: str) -> str:
    """What a narrow terminal broke into lines."""
    return "".join(text.splitlines())


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def meta(
    grid: int, patch: int, prefix: int = 1, layers: tuple[int, ...] = (), columns: int | None = None
) -> dict:
    """Of a network with ``grid`` rows of patches, and as many columns unless told."""
    arch = {"image_size": grid * patch, "patch_size": patch, "prefix": prefix}
    arch["tokens"] = prefix + grid * (columns or grid)
    if columns:
        arch["image_width"] = columns * patch
    pruning = [{"layer": layer, "keep": 1, "threshold": 0} for layer in layers]
    return {"architecture": arch, "preprocessing": {"resize": "bicubic"}, "pruning": pruning}


def result(
    kept: list[np.ndarray], attention: list[np.ndarray], probabilities: np.ndarray | None = None
) -> Result:
    logits = np.zeros(1) if probabilities is None else np.log(probabilities)
    return Result(0, "0", logits, 1.0, kept, {}, attention)


@given(
    grid=st.integers(1, 5),
    patch=st.integers(1, 4),
    scale=st.integers(1, 3),
    prefix=st.integers(1, 2),
    data=st.data(),
)
def test_dropped_patches_are_dimmed(grid, patch, scale, prefix, data):
    """Pixel by pixel: those of a kept patch are as they were, all others at the share."""
    tokens = data.draw(st.sets(st.integers(prefix, prefix + grid * grid - 1)))
    side = grid * patch * scale
    photo = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    kept = np.array([*range(prefix), *sorted(tokens)])
    arch = meta(grid, patch, prefix)["architecture"]
    dimmed = np.asarray(pictures.remaining(Image.fromarray(photo), kept, arch, 0.5))
    row, column = np.mgrid[:side, :side] // (patch * scale)
    stays = np.isin(prefix + row * grid + column, list(tokens))
    assert np.array_equal(dimmed, np.where(stays[:, :, None], photo, photo // 2))


@pytest.mark.parametrize(("width", "height", "kept"), [(8, 8, [0, 5]), (8, 7, [0]), (1, 1, [0])])
def test_tokens_of_another_photo(width, height, kept):
    photo = Image.new("RGB", (width, height))
    with pytest.raises(RowvitError, match=r"has no 2 x 2 patches, or tokens beyond"):
        pictures.remaining(photo, np.array(kept), meta(2, 4)["architecture"])


@given(width=st.integers(8, 31), height=st.integers(8, 31))
def test_the_network_takes_what_is_shown(width, height):
    """Scaled to its size, the part that is shown is what it gets; larger photos are scaled in another way."""
    photo = png(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))
    shown = pictures.seen(photo, meta(4, 4))
    assert shown.width == shown.height == max(16, min(width, height))
    assert np.array_equal(np.asarray(shown.resize((16, 16), Image.BICUBIC)), decode(photo, 16))


@pytest.mark.parametrize("crop", [1.0, 0.5])
def test_what_is_shown_of_a_large_jpeg(crop):
    """With fewer pixels, but not too few, it is the same part."""
    photo = io.BytesIO()
    large = Image.new("RGB", (1600, 1600), "red")
    large.paste("blue", (400, 400, 1200, 1200))
    large.save(photo, "JPEG")
    description = meta(4, 4) | {"preprocessing": {"resize": "bicubic", "crop": crop}}
    shown = pictures.seen(photo.getvalue(), description, enough=100)
    assert 100 <= shown.width < 400
    red, _, blue = shown.getpixel((2, 2))
    assert (blue > 200 > 50 > red) == (crop == 0.5)


def test_the_preprocessor_cuts_off_what_does_not_fill_its_squares():
    """Of 67 pixels, squares of 2 x 2 cover 66, in the middle."""
    pixels = np.random.default_rng(0).integers(0, 256, (67, 71, 3), dtype=np.uint8)
    shown = pictures.seen(png(pixels), meta(4, 8), "hls")
    assert np.array_equal(np.asarray(shown), pixels[:66, 2:68])


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    patch=st.integers(1, 4),
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    data=st.data(),
)
def test_rectangles(rows, columns, patch, width, height, data):
    """What is seen is what the network takes but for scaling, and kept patches lie where they are cut."""
    shape, description = (rows * patch, columns * patch), meta(rows, patch, columns=columns)
    photo = png(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))
    shown = pictures.seen(photo, description)
    assert shown.height >= shape[0] and shown.width >= shape[1]
    if shown.height < 2 * shape[0] or shown.width < 2 * shape[1]:
        scaled = shown.resize((shape[1], shape[0]), Image.BICUBIC)
        assert np.array_equal(np.asarray(scaled), decode(photo, shape))
    kept = data.draw(st.sets(st.integers(1, rows * columns)))
    bright = Image.new("RGB", shown.size, "white")
    dimmed = np.asarray(pictures.remaining(bright, np.array([0, *sorted(kept)]), description["architecture"]))
    for y, x in np.ndindex(rows, columns):
        middle = dimmed[int((y + 0.5) * shown.height / rows), int((x + 0.5) * shown.width / columns)]
        assert (middle == (255 if 1 + y * columns + x in kept else 38)).all()


def test_pictures_in_the_shape_of_the_network():
    """Plots and pages show them with the longer side as long as a square's; other shapes are refused."""
    arch = meta(3, 4, columns=7)["architecture"]
    assert (
        pictures.fitted(arch, 448) == (448, 192)
        and pictures.fitted(meta(2, 4)["architecture"], 448) == (448,) * 2
    )
    with pytest.raises(RowvitError, match="a photo of 28 x 28 pixels has no 7 x 3 patches"):
        pictures.remaining(Image.new("RGB", (28, 28)), np.array([0]), arch)
    sizes = dict(dim=32, depth=2, heads=2, image_size=12, image_width=28, patch_size=4, hidden=32, classes=3)
    package = random_package(
        np.random.default_rng(3), **sizes, pruning=[{"layer": 0, "keep": 5, "threshold": 0}]
    )
    pixels = np.random.default_rng(0).integers(0, 256, (12, 28, 3), dtype=np.uint8)
    with rowvit.open("golden") as golden:
        golden.load(package)
        results = golden([pixels])
    picture = pictures.draw(["a"], [Image.fromarray(pixels)], results, results, package.meta)
    shapes = {axes.images[0].get_array().shape for axes in picture.axes if axes.images}
    assert shapes == {(206, 480, 3)}


def test_attention_by_layer():
    """Tokens that enter a layer are those that the prunings before it left; shares are of a head's sum."""
    everything = np.array([[255, 0, 51, 204, 0], [85, 85, 85, 0, 0]], np.uint8)
    less = np.array([[10, 30, 60], [50, 0, 0]], np.uint8)
    made = result([np.array([0, 2, 3])], [everything, less], None)
    first, second = pictures.looks(made, meta(2, 4, layers=(0,)))
    assert (first.layer, first.tokens.tolist()) == (0, [0, 1, 2, 3, 4])
    assert (second.layer, second.tokens.tolist()) == (1, [0, 2, 3])
    assert np.allclose(first.shares, [[0.5, 0, 0.1, 0.4, 0], [1 / 3, 1 / 3, 1 / 3, 0, 0]])
    assert np.allclose(second.shares, [[0.1, 0.3, 0.6], [1, 0, 0]])


def test_the_more_attention_the_more_orange():
    """Grey stays grey where there is none, dropped patches are dark; for the mean of heads, or for one."""
    look = pictures.Look(1, np.array([0, 1, 2, 4]), np.array([[0.1, 0.6, 0.3, 0], [0.8, 0, 0, 0.2]]))
    photo, arch = Image.new("RGB", (40, 40), (100, 150, 200)), meta(2, 4)["architecture"]

    def colours(head: int | None) -> np.ndarray:
        """Red above blue, in the middle of every patch; and the brightness of the dropped one."""
        shown = (
            np.asarray(pictures.attention(photo, look, arch, head)).astype(int)[10::20, 10::20].reshape(4, 3)
        )
        assert shown[2].max() < 40 and np.ptp(shown[2]) == 0
        return shown[:, 0] - shown[:, 2]

    mean, first, second = (colours(head) for head in (None, 0, 1))
    assert mean[0] > mean[1] > mean[3] > 0
    assert first[0] > first[1] > first[3] == 0 and first[0] == mean[0]
    assert second[3] > 150 and second[0] == second[1] == 0


def test_nothing_on_the_patches():
    look = pictures.Look(0, np.arange(5), np.array([[1.0, 0, 0, 0, 0]]))
    shown = pictures.attention(Image.new("RGB", (8, 8), "white"), look, meta(2, 4)["architecture"])
    assert shown.getcolors() == [(64, (255, 255, 255))]


def test_likeliest_classes():
    made = result([], [], np.array([0.1, 0.5, 0.1, 0.3]))
    names, shares = zip(*made.likeliest(["a", "b", "c", 7], 3), strict=True)
    assert names == ("b", "7", "a") and shares == pytest.approx((0.5, 0.3, 0.1))


def test_what_stays_has_the_most_attention():
    """Of the demo's photo: no dropped token has a higher sum over the heads than one that stays."""
    with rowvit.open("golden") as golden:
        golden.load("sign-digits")
        photo = next(iter((MODELS / "sign_digits_photos").glob("*.jpg")))
        (found,) = golden([photo])
        described = golden.meta
    shown = {look.layer: look for look in pictures.looks(found, described)}
    assert sorted(shown) == list(range(described["architecture"]["depth"]))
    for step, kept in zip(described["pruning"], found.kept, strict=True):
        look = shown[step["layer"]]
        sums, stays = look.shares.sum(axis=0), np.isin(look.tokens, kept)
        assert sums[~stays].max() <= sums[stays][1:].min() + 2**-18


def test_every_target_writes_the_same_picture(small, tmp_path, rowvit_command):
    """With --check or without: the reference runs in either case."""
    command = ("run", small["package"], small["images"] / "0.png", "-c", "tiny", "--plot")
    ways = {"golden": ("-t", "golden"), "sim": (), "checked": ("--check",)}
    written = {name: tmp_path / f"{name}.png" for name in ways}
    for name, options in ways.items():
        assert f"{written[name]}: the picture" in joined(
            rowvit_command(*command, written[name], *options).stderr
        )
    first, *others = (np.asarray(Image.open(path)) for path in written.values())
    assert len(np.unique(first.reshape(-1, 4), axis=0)) > 1000
    assert all(np.array_equal(first, other) for other in others)


def test_a_program_has_no_attention(small, tmp_path, rowvit_command):
    program, picture = tmp_path / "program.safetensors", tmp_path / "program.png"
    rowvit_command("compile", small["package"], "-o", program, "-c", "tiny")
    said = rowvit_command("run", program, small["images"] / "0.png", "-c", "tiny", "--plot", picture).stderr
    assert "without attention, which takes the model package" in joined(said) and picture.exists()


def test_the_first_photos_of_many(small, tmp_path, rowvit_command, monkeypatch):
    monkeypatch.setattr(pictures, "MOST", 2)
    picture = tmp_path / "two.png"
    said = rowvit_command("run", small["package"], small["images"], "-t", "golden", "--plot", picture).stderr
    assert f"{picture}: the first 2 photos" in joined(said)
    alone = tmp_path / "alone.png"
    rowvit_command("run", small["package"], small["images"] / "0.png", "-t", "golden", "--plot", alone)
    two, one = (Image.open(path).convert("RGB") for path in (picture, alone))
    assert two.size == (one.width, 2 * one.height)
    small_size = (one.width // 20, one.height // 20)  # parts begin at fractions of a pixel
    first, second, expected = (
        np.asarray(part.resize(small_size)).astype(int)
        for part in (two.crop((0, 0, *one.size)), two.crop((0, one.height, one.width, two.height)), one)
    )
    assert np.abs(first - expected).mean() < 4 < np.abs(second - expected).mean()


def test_what_cannot_be_drawn_is_refused_before_the_work(small, tmp_path, rowvit_command, monkeypatch):
    command = ("run", small["package"], small["images"], "-t", "golden", "--plot")
    for path, reason in (
        (tmp_path / "x.gif2", "use .png, .svg, .pdf or .webp"),
        (tmp_path / "none" / "x.png", "there is no directory"),
    ):
        found = rowvit_command(*command, path, code=2)
        assert found.stdout == "" and reason in joined(found.stderr)
    for module in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, module, None)
    found = rowvit_command(*command, tmp_path / "x.png", code=2)
    assert found.stdout == "" and "pip install matplotlib" in joined(found.stderr)


@pytest.mark.parametrize("pruning", [[], [1], list(range(8))])
def test_titles_of_a_picture(pruning):
    """All of them are on it, none runs into another, whatever files and classes are called."""
    steps = [{"layer": layer, "keep": 40 - 4 * layer, "threshold": 0} for layer in pruning]
    sizes = dict(dim=32, depth=8, heads=2, image_size=14, patch_size=2, hidden=32, classes=7)
    package = random_package(np.random.default_rng(3), **sizes, pruning=steps)
    package.meta["classes"] = [f"${number}$ " + "a long name, " * 20 for number in range(7)]
    pixels = np.random.default_rng(0).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    with rowvit.open("golden") as golden:
        golden.load(package)
        results = golden([pixels])
    names = ["$x^2$ " + "photo " * 30]
    picture = pictures.draw(names, [Image.fromarray(pixels)], results, results, package.meta)
    shown = [axes for axes in picture.axes if axes.images]
    titles = [axes.get_title(loc="left") for axes in shown]
    tokens = [50, *(41 - 4 * layer for layer in pruning)]
    left = [
        f"layer {n}: {after} of {before}"
        for n, before, after in zip(pruning, tokens, tokens[1:], strict=False)
    ]
    entering = [tokens[sum(n < layer for n in pruning)] for layer in range(8)]
    assert titles[1:] == [*left, *(f"layer {n}: {count} tokens" for n, count in enumerate(entering))]

    picture.canvas.draw()
    canvas = picture.bbox
    texts = [text for text in picture.texts if text.get_text()] + [axes._left_title for axes in shown]
    boxes = [text.get_window_extent() for text in texts]
    for number, box in enumerate(boxes):
        assert canvas.x0 <= box.x0 and box.x1 <= canvas.x1 and canvas.y0 <= box.y0 and box.y1 <= canvas.y1
        assert not any(box.overlaps(other) for other in boxes[:number]), texts[number].get_text()


def test_a_long_picture_is_a_webp_too(tmp_path):
    """Which has at most 16,383 pixels a side."""
    plots.save(plots.figure(1, 200), path := tmp_path / "picture.webp")
    assert Image.open(path).size[1] == pytest.approx(16_000, abs=110)


def test_a_picture_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "picture.PNG"
    plots.save(plots.figure(1, 1), path)
    before = path.read_bytes()
    assert before.startswith(b"\x89PNG")
    picture = plots.figure(1, 1)

    def full(part, **options):
        Path(part).write_bytes(before[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(picture, "savefig", full)
    with pytest.raises(RowvitError, match=r"picture\.PNG: cannot be written \(No space left on device\)"):
        plots.save(picture, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
