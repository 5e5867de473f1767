# SPDX-License-Identifier: Apache-2.0
"""What a network makes of a photo, as pictures: each pixel, and what is on it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import rowvit
from rowvit.errors import RowvitError
from rowvit.images import decode
from rowvit.measure import pictures
from rowvit.targets.target import MODELS, Result


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def meta(grid: int, patch: int, prefix: int = 1, layers: tuple[int, ...] = ()) -> dict:
    arch = {"image_size": grid * patch, "patch_size": patch, "prefix": prefix, "tokens": prefix + grid * grid}
    pruning = [{"layer": layer, "keep": 1, "threshold": 0} for layer in layers]
    return {"architecture": arch, "preprocessing": {"resize": "bicubic"}, "pruning": pruning}


def result(
    kept: list[np.ndarray], attention: list[np.ndarray], probabilities: np.ndarray | None = None
) -> Result:
    return Result(
        0, "0", np.ones(1) if probabilities is None else probabilities, np.zeros(1), kept, {}, attention
    )


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


@given(width=st.integers(8, 60), height=st.integers(8, 60))
def test_the_network_takes_what_is_shown(width, height):
    """Scaled to its size, the part that is shown is what it gets."""
    photo = png(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))
    shown = pictures.seen(photo, meta(4, 4))
    assert shown.width == shown.height == max(16, min(width, height))
    assert np.array_equal(np.asarray(shown.resize((16, 16), Image.BICUBIC)), decode(photo, 16))


def test_the_preprocessor_cuts_off_what_does_not_fill_its_squares():
    """Of 67 pixels, squares of 2 x 2 cover 66, in the middle."""
    pixels = np.random.default_rng(0).integers(0, 256, (67, 71, 3), dtype=np.uint8)
    shown = pictures.seen(png(pixels), meta(4, 8), "hls")
    assert np.array_equal(np.asarray(shown), pixels[:66, 2:68])


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
    """Grey stays grey where there is none, and dropped patches are dark; for the mean of heads, or for one."""
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
    assert pictures.classes(made, ["a", "b", "c", 7], 3) == [("b", 0.5), ("7", 0.3), ("a", 0.1)]


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
