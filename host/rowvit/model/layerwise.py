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
    inputs: Iterator[
        Tensor
    ]  #: float32 [rows, D] of every batch of photos, behind the LayerNorm; to be used up


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
