# SPDX-License-Identifier: Apache-2.0
"""Quantisation-aware training: the float network rounds as its package does (straight-through gradients).

Weights, and the activations that are int8 or uint8 on the accelerator, are rounded and clipped as in
`rowvit.quant.quantise`; matrix products are of integers, which bfloat16 holds exactly. The residual stream
and biases, which have 16 bits or more, the patch embedding, whose errors of rounding cancel, and the softmax,
whose error is far below a unit of O, stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from rowvit.model.vit import Attention, VisionTransformer, predict
from rowvit.quant.calibrate import ActivationStatistics
from rowvit.quant.fixed import value_shift

_INPUTS = ("norm1", "o", "norm2", "hidden")  # of the four linear layers of a block


def activation_scales(
    model: VisionTransformer, mean: Sequence[float], std: Sequence[float], photos: np.ndarray
) -> dict[str, float]:
    """Scales of all activations as the quantiser would choose them, from photos uint8 [B, S, S, 3]."""
    statistics = ActivationStatistics()
    predict(model, photos, mean, std, observe=statistics.observe)
    kept = (*_INPUTS, "q", "k", "v")
    scales = {
        name: statistics.scale(name, activation_levels(model, name))
        for name in statistics.samples
        if (name == "norm" and not model.config.head_on_host) or name.split(".")[-1] in kept
    }
    for i in range(model.config.depth):
        v, o = scales[f"layers.{i}.v"], scales[f"layers.{i}.o"]
        scales[f"layers.{i}.o"] = v * 2.0 ** -value_shift(v, o)
    return scales


def activation_levels(model: VisionTransformer, name: str) -> int:
    """The largest integer of an activation."""
    return 255 if name.endswith(".hidden") and not model.config.gated else 127


def round_through(x: Tensor, unit: Tensor | float, low: int, high: int) -> Tensor:
    """``x / unit`` clipped and rounded to integers; the gradient passes where nothing is clipped."""
    clipped = (x.float() / unit).clamp(low, high)
    return clipped + (clipped.round() - clipped).detach()


def _weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Int8 values of a weight [out, in], and the unit of each output channel."""
    unit = (weight.detach().abs().amax(dim=1) / 127).clamp(min=1e-30)
    return round_through(weight, unit[:, None], -127, 127), unit


@contextmanager
def quantisation_aware(model: VisionTransformer, scales: Mapping[str, float]) -> Iterator[None]:
    """Within the context, forward passes of ``model`` round as its package would, with these ``scales``."""
    changed: list[nn.Module] = []
    split_of: list[Attention] = []

    def replace_forward(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        vars(module)["forward"] = forward  # hides the class's own
        changed.append(module)

    def rounded(y: Tensor, name: str) -> Tensor:
        return round_through(y, scales[name], -127, 127) * scales[name]

    def linear(layer: nn.Linear, source: str, outputs: Sequence[str] = ()) -> None:
        high = activation_levels(model, source)
        low = 0 if high == 255 else -high

        def forward(x: Tensor) -> Tensor:
            weight, unit = _weight(layer.weight)
            levels = round_through(x, scales[source], low, high)
            y = nn.functional.linear(levels, weight) * (scales[source] * unit) + layer.bias
            if not outputs:
                return y
            parts = zip(y.chunk(len(outputs), dim=-1), outputs, strict=True)
            return torch.cat([rounded(part, name) if name else part for part, name in parts], dim=-1)

        replace_forward(layer, forward)

    def rotating(attention: Attention, names: Sequence[str]) -> None:
        """Queries and keys are rounded behind their rotation."""
        split = attention.split

        def rounding(x: Tensor, turn: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v = split(x, turn)
            return rounded(q, names[0]), rounded(k, names[1]), v

        vars(attention)["split"] = rounding
        split_of.append(attention)

    for i, block in enumerate(model.blocks):
        layers = (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2)
        for layer, source in zip(layers, _INPUTS, strict=True):
            names = [f"layers.{i}.{part}" for part in "qkv"] if layer is block.attn.qkv else []
            if names and model.config.rotary:
                rotating(block.attn, names[:2])
                names[:2] = "", ""
            linear(layer, f"layers.{i}.{source}", names)
    if isinstance(model.head, nn.Linear) and not model.config.head_on_host:
        linear(model.head, "norm")
    try:
        yield
    finally:
        for module in changed:
            del vars(module)["forward"]
        for attention in split_of:
            del vars(attention)["split"]
