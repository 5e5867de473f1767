# SPDX-License-Identifier: Apache-2.0
"""Subjects before a light background: their mask, other backgrounds, and attention that stays on them."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from rowvit.errors import RowvitError

torch = pytest.importorskip("torch")

from rowvit.model.store import Card  # noqa: E402
from rowvit.model.vit import VisionTransformer, ViTConfig, standardise  # noqa: E402
from rowvit.photos import Photos  # noqa: E402
from rowvit.train.data import Augmentation, TrainingSet  # noqa: E402
from rowvit.train.loop import ScoreRecorder, Trainer  # noqa: E402
from rowvit.train.loss import unfocused  # noqa: E402
from rowvit.train.recipe import Phase, Recipe  # noqa: E402
from rowvit.train.subject import on_patches, subject  # noqa: E402

SKIN = (190, 140, 110)


def photo(side: int, centre: tuple[float, float], radius: float, seed: int = 0) -> Image.Image:
    """A skin-coloured disc before paper that is darker on one side, with noise."""
    rng = np.random.default_rng(seed)
    paper = np.repeat(np.linspace(150, 235, side)[None, :, None], side, axis=0) * [1.0, 1.0, 0.98]
    image = Image.fromarray(paper.astype(np.uint8))
    (x, y), r = (c * side for c in centre), radius * side
    ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), SKIN)
    return Image.fromarray((np.asarray(image) + rng.integers(-6, 7, (side, side, 3))).astype(np.uint8))


def disc(side: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    return np.hypot(x - centre[0], y - centre[1]) < radius


@settings(max_examples=20)
@given(
    side=st.integers(40, 130),
    x=st.floats(0.3, 0.7),
    y=st.floats(0.3, 0.7),
    radius=st.floats(0.15, 0.28),
    seed=st.integers(0, 99),
)
@example(side=40, x=0.5, y=0.46875, radius=0.15234375, seed=0)
def test_mask_is_the_subject(side: int, x: float, y: float, radius: float, seed: int) -> None:
    mask = np.asarray(subject(photo(side, (x, y), radius, seed)))
    assert mask.shape == (side, side) and set(np.unique(mask)) <= {0, 255}
    found, true = mask > 0, disc(side, (x, y), radius)
    # a fifth, and, as counts for small discs, a third of a pixel all around
    ring = 2 * np.pi * radius * side / 3
    assert (found ^ true).sum() < 0.2 * (found | true).sum() + ring


def test_share_of_each_patch() -> None:
    masks = np.random.default_rng(1).integers(0, 2, (3, 12, 12)).astype(np.uint8) * 255
    share = on_patches(masks, 4)
    for n in range(3):
        for row in range(3):
            for column in range(3):
                cell = masks[n, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                assert share[n, 3 * row + column] == pytest.approx((cell > 0).mean())


def discs(count: int, side: int = 48) -> Photos:
    """Discs left or right of the middle, the label."""
    files = []
    for n in range(count):
        buffer = BytesIO()
        photo(side, (0.3 if n % 2 else 0.7, 0.3 + 0.4 * (n % 5) / 4), 0.2, n).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return Photos(files, np.arange(count) % 2, ("right", "left"), "discs train, all")


def test_another_background() -> None:
    """Only what is off the subject changes, differently in every epoch, and the same again for a seed."""
    photos = discs(6)
    plain = TrainingSet(photos, 48, "bicubic", Augmentation(), 3)
    moved = TrainingSet(photos, 48, "bicubic", Augmentation(background=1.0), 3, masks=True)
    again = TrainingSet(photos, 48, "bicubic", Augmentation(background=1.0), 3, masks=True)
    for index in range(6):
        pixels, found = plain[index][0].numpy(), moved[index][0].numpy()
        assert pixels.shape == (3, 48, 48) and found.shape == (4, 48, 48)
        on = found[3] == 255
        assert np.array_equal(pixels[:, on], found[:3, on])
        assert np.abs(pixels[:, ~on].astype(int) - found[:3, ~on]).mean() > 20
        assert np.array_equal(found, again[index][0])
        moved.epoch = again.epoch = index + 1
        assert not np.array_equal(found[:3, ~on], moved[index][0].numpy()[:3, ~on])
    some = TrainingSet(photos, 48, "bicubic", Augmentation(background=0.5), 3)
    changed = []
    for some.epoch in range(20):
        changed += [not np.array_equal(some[i][0], plain[i][0]) for i in range(6)]
    assert 40 < sum(changed) < 80


def test_masks_leave_the_photo_as_it_is() -> None:
    """Cropped and scaled as without them; Pillow would turn what a fourth channel hides black."""
    photos = discs(6)
    for augmentation in (Augmentation(crop=0.6, flip=True), Augmentation(flip=True)):
        plain = TrainingSet(photos, 48, "bicubic", augmentation, 3)
        masked = TrainingSet(photos, 48, "bicubic", augmentation, 3, masks=True)
        for index in range(6):
            assert np.array_equal(masked[index][0][:3], plain[index][0])


def test_mask_follows_the_crop() -> None:
    cropped = TrainingSet(discs(6), 48, "bicubic", Augmentation(crop=0.4, flip=True), 1, masks=True)
    for index in range(6):
        pixels = cropped[index][0].numpy()
        found = pixels[3] > 127
        true = (pixels[0].astype(int) - pixels[2]) > 40
        assert (found & true).sum() / (found | true).sum() > 0.85


def test_penalty_against_its_definition() -> None:
    share = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
    score = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1]])
    tokens = torch.tensor([[-1, 0, 2, 3], [-1, 0, 1, 2]])  # the first is the class token
    expected = -np.log((0.3 * 1.0 + 0.2 * 0.5) / 0.6)  # the second photo has no subject
    assert unfocused([score], [tokens], share).item() == pytest.approx(expected, rel=1e-5)
    assert unfocused([score], [tokens], torch.zeros(2, 4)).item() == 0
    assert unfocused([score[:1]], [tokens[:1]], torch.ones(1, 4)).item() == pytest.approx(0, abs=1e-6)


def test_focus_moves_attention_to_the_subject(tmp_path: Path) -> None:
    def hits(model: VisionTransformer) -> float:
        pixels = torch.stack([held[n][0] for n in range(len(held))]).float() / 255
        with torch.no_grad(), ScoreRecorder(model) as scores:
            model.eval()(standardise(pixels[:, :3], card.mean, card.std))
        share = torch.from_numpy(on_patches((pixels[:, 3].numpy() * 255).astype(np.uint8), 8))
        score, patches = scores.scores[0][:, 1:], scores.tokens[0][:, 1:]
        return float(((score * share.gather(1, patches)).sum(1) / score.sum(1)).mean())

    config = ViTConfig(image_size=48, patch_size=8, dim=32, depth=2, heads=2, hidden=64, classes=2)
    phase = Phase(epochs=8, lr=3e-3, prune_layers=(1,), rho=0.5)
    card = Card("discs", ["right", "left"])
    held = TrainingSet(discs(16), 48, "bicubic", Augmentation(background=1.0), 9, masks=True)
    found = {}
    for focus in (0.0, 1.0):
        torch.manual_seed(0)
        model = VisionTransformer(config)
        recipe = Recipe(
            (replace(phase, focus=focus),),
            batch=16,
            precision="fp32",
            augmentation=Augmentation(background=0.7),
        )
        trainer = Trainer(model, card, discs(64), recipe, tmp_path / "state")
        trainer.run()
        trainer.forget()
        found[focus] = hits(model)
    assert found[1.0] > 0.5 > found[0.0]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Augmentation(background=1.5), "background is 1.5, not in 0..1"),
        (lambda: Phase(1, 1e-3, focus=-1.0, prune_layers=(0,)), "focus is -1.0"),
        (lambda: Phase(1, 1e-3, focus=1.0), "focus needs prune_layers"),
    ],
)
def test_bad_values_are_named(make, message: str) -> None:
    with pytest.raises(RowvitError, match=message):
        make()
