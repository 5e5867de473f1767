# SPDX-License-Identifier: Apache-2.0
"""The float network's rotary positions: by their definition, of tokens that stay, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from networks import randomise
from rowvit.errors import RowvitError
from rowvit.model import adapt, store
from rowvit.model.vit import VisionTransformer, ViTConfig, token_scores
from rowvit.quant.quantise import QuantOptions, obstacles, quantise

CONFIG = ViTConfig(40, 8, 32, 3, 2, 48, 5, prefix=2, rotary=True, image_width=56)


def network(**changes: object) -> VisionTransformer:
    """5 x 7 patches, heads of 16 channels; every place has angles of its own."""
    model = randomise(VisionTransformer(replace(CONFIG, **changes)))
    generator = torch.Generator().manual_seed(2)
    for angles in (model.rope.rows, model.rope.columns):
        angles.copy_(6 * torch.rand(angles.shape, generator=generator) - 3)
    return model


def images() -> torch.Tensor:
    return torch.randn(3, 3, 40, 56, generator=torch.Generator().manual_seed(9))


def turned(x: np.ndarray, model: VisionTransformer, tokens: np.ndarray) -> np.ndarray:
    """A head's channels [N, 16] as 8 complex numbers, times those of their patches; the prefix stays."""
    rows, columns = model.rope.rows.double().numpy(), model.rope.columns.double().numpy()
    pairs = x[:, 0::2] + 1j * x[:, 1::2]
    for one, token in zip(pairs, tokens, strict=True):
        if token >= 2:
            row, column = divmod(token - 2, 7)
            one[0::2] *= np.exp(1j * rows[row])
            one[1::2] *= np.exp(1j * columns[column])
    return pairs


@torch.no_grad()
@pytest.mark.parametrize("pruning", [(), ({"layer": 0, "keep": 19}, {"layer": 1, "keep": 8})])
def test_by_their_definition(pruning: tuple) -> None:
    """Image by image with complex numbers; tokens that stay have the angles of their places."""
    model = network(pruning=pruning)
    logits = model(images())
    for number, image in enumerate(images()):
        x, tokens = model.embed(image[None])[0], np.arange(37)
        for layer, block in enumerate(model.blocks):
            q, k, v = (
                block.attn.qkv(block.norm1(x)).double().numpy().reshape(-1, 3, 2, 16).transpose(1, 2, 0, 3)
            )
            mixed, attention = [], []
            for head in range(2):
                query, key = (turned(part[head], model, tokens) for part in (q, k))
                shares = np.exp((query @ key.conj().T).real / 4)
                shares /= shares.sum(axis=1, keepdims=True)
                mixed.append(shares @ v[head])
                attention.append(shares[0])
            x = x + block.attn.proj(torch.from_numpy(np.concatenate(mixed, axis=1)).float())
            keep = next((step["keep"] for step in pruning if step["layer"] == layer), None)
            if keep:
                scores = token_scores(torch.from_numpy(np.stack(attention))[None])[0].numpy()
                stay = np.sort(np.argsort(-scores[1:], kind="stable")[:keep]) + 1
                rows = np.concatenate([[0], stay])
                x, tokens = x[rows], tokens[rows]
            x = x + block.mlp(block.norm2(x), lambda *_: None, "")
        np.testing.assert_array_equal(model.tokens[number].numpy(), tokens)
        torch.testing.assert_close(model.head(model.norm(x[0])), logits[number], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_tokens_left_out_in_training() -> None:
    """Those that are drawn have the angles of their places."""
    model = network().train()
    model.token_drop = 0.4
    torch.manual_seed(0)
    stream = model.encode(images())
    x = model.embed(images()).gather(1, model.tokens[..., None].expand(-1, -1, 32))
    assert x.shape[1] == 23
    for layer in range(3):
        x, _ = model.step(layer, x, model.tokens)
    torch.testing.assert_close(stream, x)


@torch.no_grad()
def test_a_file(tmp_path: Path) -> None:
    model = network()
    store.save(tmp_path / "a.safetensors", model, store.Card("a", list("01234")))
    again, _ = store.load(tmp_path / "a.safetensors")
    assert again.config == model.config and torch.equal(again(images()), model(images()))


@torch.no_grad()
def test_resized() -> None:
    """Angles of equally spaced places cover the same length; there and back is the same."""
    model = network()
    model.rope.rows.copy_(torch.arange(5.0)[:, None] * torch.tensor([1.0, 0.5, 0.1, 0]) - 2)
    model.rope.columns.copy_(torch.arange(7.0)[:, None] * torch.tensor([2.0, 0.5, 0.1, 0]))
    larger = adapt.resize(model, (80, 112))
    assert larger.rope.rows.shape == (10, 4) and larger.rope.columns.shape == (14, 4)
    torch.testing.assert_close(larger.rope.rows[:, 0], torch.arange(10.0) / 2 - 2.25)
    again = adapt.resize(larger, (40, 56))
    torch.testing.assert_close(again.rope.rows, model.rope.rows)
    torch.testing.assert_close(again.rope.columns, model.rope.columns)


def test_what_is_refused() -> None:
    with pytest.raises(RowvitError, match="rotary positions take four channels at a time, of 6 that a head"):
        replace(CONFIG, dim=36, heads=6)
    (reason,) = obstacles(replace(CONFIG, image_size=256, image_width=0))
    assert str(reason).startswith("the network has rotary positions of 32 patches a side, and 31 fit; use a")
    assert not list(obstacles(replace(CONFIG, image_size=248, image_width=0)))
    model = network(image_size=160, image_width=104)
    photos = np.random.default_rng(0).integers(0, 256, (2, 160, 104, 3), dtype=np.uint8)
    message = "the rotary positions of 20 x 13 patches have 34 coordinates, and 32 fit; use a square"
    with pytest.raises(RowvitError, match=message):
        quantise(model, photos, QuantOptions("a", list("01234")))
