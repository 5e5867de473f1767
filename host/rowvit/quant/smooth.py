# SPDX-License-Identifier: Apache-2.0
"""Make activations easier to round without changing what the network computes.

`centre_keys` subtracts from the keys what they all have in common, which a softmax does not see: it would
waste int8 levels and push attention logits beyond the numerics' clamp (SageAttention smooths K this way).

`smooth` moves outlier channels from activations into weights. A channel between two linear operations may be
divided by a factor on its way in and multiplied by it on its way out. After a LayerNorm the factor goes into
its gain and the next layer's columns (SmoothQuant); between V and the projection, and between FFN1 and FFN2
(ReLU lets positive factors through), into rows and columns of the two matrices.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rowvit.errors import RowvitError
from rowvit.model.vit import VisionTransformer, predict
from rowvit.quant.calibrate import ActivationStatistics

_LIMIT = 16.0  # of a factor, in either direction


def centre_keys(
    model: VisionTransformer, mean: Sequence[float], std: Sequence[float], photos: np.ndarray
) -> VisionTransformer:
    """An equivalent network whose keys have a mean of 0 in every channel on these photos.

    The same network if its positions are rotary: what keys have in common is not, once they are rotated.

    Parameters
    ----------
    model : VisionTransformer
        Not changed.
    mean, std : sequences of three floats
        Of pixels in 0..1.
    photos : uint8 array [B, S, S, 3]
        Calibration photos.
    """
    if model.config.rotary:
        return copy.deepcopy(model)
    sums: dict[str, Tensor] = {}
    tokens: Counter[str] = Counter()

    def observe(name: str, value: Tensor) -> None:
        if name.endswith(".k"):  # [B, heads, tokens, channels of a head]
            sums[name] = sums.get(name, 0) + value.double().sum(dim=(0, 2)).flatten()
            tokens[name] += value.shape[0] * value.shape[2]

    predict(model, photos, mean, std, observe=observe)
    model = copy.deepcopy(model)
    dim = model.config.dim
    with torch.no_grad():
        for i, block in enumerate(model.blocks):
            name = f"layers.{i}.k"
            block.attn.qkv.bias[dim : 2 * dim] -= sums[name] / tokens[name]
    return model


def smooth(
    model: VisionTransformer,
    mean: Sequence[float],
    std: Sequence[float],
    photos: np.ndarray,
    strength: float = 0.5,
    places: tuple[str, ...] = ("norm", "value"),
) -> VisionTransformer:
    """An equivalent network whose channels of activations are more alike in size.

    Parameters
    ----------
    model : VisionTransformer
        With ReLU if ``places`` holds "hidden"; not changed.
    mean, std : sequences of three floats
        Of pixels in 0..1.
    photos : uint8 array [B, S, S, 3]
        Calibration photos.
    strength : float
        0 leaves the activations alone, 1 makes all channels equally large.
    places : tuple of str
        "norm": after both LayerNorms of a block; "value": between V and projection; "hidden": between the
        FFN layers, at the cost of fewer zeros, as small activations no longer round to 0.

    Raises
    ------
    RowvitError
        If the strength is not in 0..1, or the network has thresholds and "hidden" is among the places.
    """
    if not 0 <= strength <= 1:
        raise RowvitError(f"smoothing strength {strength:g} is not in 0..1")
    if "hidden" in places and any(model.config.thresholds):
        raise RowvitError("thresholds are of hidden activations as they are", "set them behind the smoothing")
    statistics = ActivationStatistics()
    predict(model, photos, mean, std, observe=statistics.observe)
    channels = statistics.channels
    model = copy.deepcopy(model)
    dim = model.config.dim
    own = slice(1, None, 2) if model.config.gated else slice(None)  # not the gates
    with torch.no_grad():
        for i, block in enumerate(model.blocks):
            qkv, proj, fc1, fc2 = block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2
            # place, activation, gain (a column) and bias that make it, weight that takes it
            steps = (
                ("norm", "norm1", block.norm1.weight[:, None], block.norm1.bias, qkv.weight),
                ("norm", "norm2", block.norm2.weight[:, None], block.norm2.bias, fc1.weight),
                ("value", "o", qkv.weight[2 * dim :], qkv.bias[2 * dim :], proj.weight),
                ("hidden", "hidden", fc1.weight[own], fc1.bias[own], fc2.weight),
            )
            for place, name, gain, bias, weight in steps:
                if place in places:
                    factor = _factors(channels[f"layers.{i}.{name}"], weight, strength)
                    gain.div_(factor[:, None])
                    bias.div_(factor)
                    weight.mul_(factor)
    return model


def _factors(peaks: np.ndarray, weight: Tensor, strength: float) -> Tensor:
    """SmoothQuant's factors for the columns of ``weight`` [out, in], with a geometric mean of 1."""
    activation = torch.from_numpy(np.asarray(peaks)).float()
    column = weight.abs().amax(dim=0)
    used = (activation > 0) & (column > 0)
    if not used.any():
        return torch.ones_like(column)
    factor = torch.where(used, activation**strength / column.clamp(min=1e-12) ** (1 - strength), 1.0)
    factor = factor / factor[used].log().mean().exp()
    return torch.where(used, factor, 1.0).clamp(1 / _LIMIT, _LIMIT)
