# SPDX-License-Identifier: Apache-2.0
"""What the FFN of each layer is fed, from the first layer on, while the layers are changed one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rowvit.errors import RowvitError
from rowvit.model.store import Card
from rowvit.model.vit import Mlp, VisionTransformer, normalise


class Fed(NamedTuple):
    """The FFN of one layer, and what it is fed."""

    layer: int  #: counted from 0
    mlp: Mlp
    #: float32 [rows, D] of every batch of photos, behind the LayerNorm; to be used up
    inputs: Iterator[Tensor]


def with_ones(hidden: Tensor) -> Tensor:
    """Hidden activations [rows, H], and a column of ones for the bias."""
    return torch.cat([hidden, torch.ones(len(hidden), 1)], dim=1)


def require_ridge(ridge: float) -> None:
    """Check the weight of the pull towards the old matrix.

    Raises
    ------
    RowvitError
        If it is not above 0.
    """
    if ridge <= 0:
        raise RowvitError(f"ridge {ridge:g} is not above 0", "without it silent neurons cannot be fitted")


def ridged(gram: Tensor, ridge: float, rows: int) -> Tensor:
    """The Gram matrix [H + 1, H + 1] of ``rows`` rows of `with_ones`, with that pull; hardly any on the bias.

    ``ridge`` is relative to the mean square of a hidden activation.
    """
    penalty = torch.full_like(gram.diagonal(), max(ridge * float(gram.diagonal()[:-1].mean()), 1e-12))
    penalty[-1] = 1e-9 * rows
    return gram + torch.diag(penalty)


def fed(
    model: VisionTransformer,
    card: Card,
    photos: np.ndarray,
    batch: int,
    progress: Callable[[], None] = lambda: None,
) -> Iterator[Fed]:
    """The FFNs of a network, in their order, each fed by the layers before it as they then are.

    What these make of the photos is kept, so that no layer runs again for those behind it:
    ``4 * tokens * dim`` bytes for each photo, 150 MB for 1000 photos at DeiT-Tiny's size.

    Parameters
    ----------
    model : VisionTransformer
    card : Card
        Mean and standard deviation of its input.
    photos : uint8 array [B, S, S, 3]
    batch : int
        Photos that go through a layer at once.
    progress : callable
        Called after every batch of every layer.

    Raises
    ------
    RowvitError
        If there are no photos.
    """
    if not len(photos):
        raise RowvitError("there are no photos to fit the network to")
    parts = [photos[first : first + batch] for first in range(0, len(photos), batch)]
    with torch.inference_mode():
        stream = [model.embed(normalise(part, card.mean, card.std)) for part in parts]
        tokens = [torch.arange(model.config.tokens).expand(len(part), -1) for part in parts]

    def inputs(layer: int) -> Iterator[Tensor]:
        block = model.blocks[layer]
        for index, x in enumerate(stream):
            with torch.inference_mode():
                x = model.blocks[layer - 1].feed(x) if layer else x
                stream[index], kept = block.attend(x, turn=model.turn(tokens[index]))
                tokens[index] = tokens[index] if kept is None else tokens[index].gather(1, kept)
                normed = block.norm2(stream[index]).flatten(0, 1)
            yield normed
            progress()

    for layer, block in enumerate(model.blocks):
        yield Fed(layer, block.mlp, inputs(layer))
