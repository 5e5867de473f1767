# SPDX-License-Identifier: Apache-2.0
"""Changes to a float network's shape: image size, classes, heads. Each returns a new network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from rowvit.formats.description import Size, sides
from rowvit.model.store import load_state
from rowvit.model.vit import VisionTransformer, ViTConfig


def resize(model: VisionTransformer, image_size: Size, antialias: bool = True) -> VisionTransformer:
    """The network for another image size: position embeddings of patches interpolated (bicubic).

    With ``antialias`` they are as timm's, without it as transformers'. Rotary positions are spread over the
    same angles. A pruning schedule keeps the same shares of the patches; thresholds of scores, which are
    shares of attention and so smaller among more tokens, stay as they are.

    Raises
    ------
    RowvitError
        If the patches do not divide the size.
    """
    config = model.config
    if sides(image_size) == config.size:
        return model
    height, width = sides(image_size)
    new = replace(config, image_size=height, image_width=width)
    more = math.prod(new.grid) / math.prod(config.grid)
    # at least one where there was one: 0 is the last block's, of which the head sees the class token alone
    kept = (round(step["keep"] * more) or min(step["keep"], 1) for step in config.pruning)
    steps = zip(config.pruning, kept, strict=True)
    new = replace(new, pruning=tuple(step | {"keep": keep} for step, keep in steps))
    first, last = model.pos_embed[:, : config.prefix], model.pos_embed[:, config.prefix :]
    table = last.reshape(1, *config.grid, -1).permute(0, 3, 1, 2)
    table = nn.functional.interpolate(table, size=new.grid, mode="bicubic", antialias=antialias)
    table = table.flatten(2).transpose(1, 2)
    changes = {"pos_embed": torch.cat([first, table], dim=1)}
    if model.rope is not None:
        before = model.rope.rows, model.rope.columns
        rows, columns = (_spread(angles, count) for angles, count in zip(before, new.grid, strict=True))
        changes |= {"rope.rows": rows, "rope.columns": columns}
    return rebuild(model, new, changes)


def _spread(angles: Tensor, count: int) -> Tensor:
    """Angles [n, F], equally spaced, of as many places as ``count`` over the same length."""
    places = (torch.arange(count) + 0.5) * (len(angles) / count) - 0.5
    step = (angles[-1] - angles[0]) / max(1, len(angles) - 1)
    return angles[0] + places[:, None] * step


def with_classes(model: VisionTransformer, classes: int, deviation: float = 0.02) -> VisionTransformer:
    """The network with a new, untrained head (weights of this deviation, no bias), or none (0 classes)."""
    new = replace(model.config, classes=classes, distilled=False)
    if not classes:
        return rebuild(model, new)
    generator = torch.Generator().manual_seed(0)
    weight = deviation * torch.randn(classes, new.seen, generator=generator)
    return rebuild(model, new, {"head.weight": weight, "head.bias": torch.zeros(classes)})


def class_head_alone(model: VisionTransformer) -> VisionTransformer:
    """A distilled network without the head on its distillation token."""
    return rebuild(model, replace(model.config, distilled=False))


def rebuild(
    model: VisionTransformer, config: ViTConfig, changes: Mapping[str, Tensor] | None = None
) -> VisionTransformer:
    """A network of another configuration with the old tensors, apart from ``changes``.

    Raises
    ------
    RowvitError
        If a tensor does not fit the new configuration.
    """
    new = VisionTransformer(config)
    state = model.state_dict() | dict(changes or {})
    load_state(new, {name: state[name] for name in new.state_dict()}, "the network")
    return new.train(model.training)
