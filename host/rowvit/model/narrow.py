# SPDX-License-Identifier: Apache-2.0
"""Fewer hidden neurons in every FFN, layer by layer and without backpropagation.

Neurons are taken out one by one, always the one whose loss changes the FFN's output least once the rest of
the second matrix makes up for it, by least squares on the inputs that the layer gets (Optimal Brain Surgeon,
Hassibi and Stork 1992, on the layer's output, a whole row of the matrix at a time). The ridge pulls what is
left towards the old matrix, which stays where the photos say little.

What is taken out is in no package: its rows and columns of both matrices are neither loaded nor multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from rowvit.errors import RowvitError
from rowvit.model.layerwise import fed, require_ridge, ridged, with_ones
from rowvit.model.store import Card
from rowvit.model.vit import Mlp, VisionTransformer


@dataclass(frozen=True)
class NarrowLayer:
    """The effect of narrowing one layer."""

    layer: int  #: counted from 0
    error: float  #: relative squared error of the FFN's output, the second matrix refitted
    cut: float  #: the same with what is left of the old matrix


def _without(gram: Tensor, matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Which ``count`` of the rows of a matrix [rows + 1, D] stay, and what they then are; the last one does.

    ``gram`` [rows + 1, rows + 1] is that of the inputs of the rows, with the ridge.
    """
    inverse = torch.linalg.inv(gram)
    alive = torch.ones(len(gram), dtype=torch.bool)
    matrix = matrix.clone()
    for _ in range(len(gram) - 1 - count):
        cost = matrix.square().sum(dim=1) / inverse.diagonal()
        cost[~alive] = torch.inf
        gone = int(cost[:-1].argmin())
        column = inverse[:, gone] / inverse[gone, gone]
        matrix -= torch.outer(column, matrix[gone])
        inverse -= torch.outer(column, inverse[gone])
        alive[gone] = False
        # What is left of its own row and column is rounding
        matrix[gone], inverse[gone], inverse[:, gone], inverse[gone, gone] = 0.0, 0.0, 0.0, 1.0
    return alive[:-1].nonzero().flatten(), matrix


def _shrink(mlp: Mlp, stays: Tensor, second: Tensor) -> None:
    """Leave these neurons to an FFN, in place, with rows of ``second`` [H + 1, D], the last for the bias."""
    first = torch.stack([2 * stays, 2 * stays + 1], dim=1).flatten() if mlp.gated else stays
    with torch.no_grad():
        mlp.fc1.weight = nn.Parameter(mlp.fc1.weight[first].clone())
        mlp.fc1.bias = nn.Parameter(mlp.fc1.bias[first].clone())
        mlp.fc2.weight = nn.Parameter(second[stays].T.float().contiguous())
        mlp.fc2.bias = nn.Parameter(second[-1].float())
    mlp.fc1.out_features, mlp.fc2.in_features = len(first), len(stays)


def require_narrower(model: VisionTransformer, card: Card, hidden: int) -> None:
    """Check that so many neurons can stay in every FFN of a network.

    Raises
    ------
    RowvitError
        If no more are there, or the network pools by attention, with an FFN of the same width.
    """
    if not 0 < hidden < model.config.hidden:
        raise RowvitError(
            f"{hidden} hidden neurons cannot stay of {card.name}'s {model.config.hidden}",
            "take a number below that",
        )
    if model.attn_pool is not None:
        raise RowvitError(
            f"{card.name} pools by attention, with an FFN that is as wide as the others",
            "networks of this kind cannot be narrowed",
        )


def to_narrow(
    model: VisionTransformer,
    card: Card,
    photos: np.ndarray,
    hidden: int,
    ridge: float = 1e-3,
    batch: int = 50,
    progress: Callable[[], None] = lambda: None,
) -> Iterator[NarrowLayer]:
    """Leave ``hidden`` neurons in every FFN of a network, in place; yields after every layer.

    Between layers the network is usable, with the layers narrowed so far.

    Parameters
    ----------
    model : VisionTransformer
    card : Card
        Mean and standard deviation of its input.
    photos : uint8 array [B, S, S, 3]
        About a thousand; no labels are needed. Memory is that of `rowvit.model.layerwise.fed`.
    hidden : int
        Neurons that stay, below those that there are.
    ridge : float
        Pull towards the old matrix, relative to the mean square of a hidden activation.
    batch : int
        Photos that go through a layer at once.
    progress : callable
        Called after every batch of every layer.

    Raises
    ------
    RowvitError
        As `require_narrower`, or if there are no photos.
    """
    require_narrower(model, card, hidden)
    require_ridge(ridge)
    for layer, mlp, inputs in fed(model, card, photos, batch, progress):
        size = mlp.fc2.in_features
        gram, rows = torch.zeros(size + 1, size + 1, dtype=torch.float64), 0
        for x in inputs:
            with torch.inference_mode():
                ones = with_ones(mlp.passed(mlp.activate(mlp.fc1(x))))
                gram += (ones.T @ ones).double()
            rows += len(ones)
        with torch.inference_mode():
            old = torch.cat([mlp.fc2.weight.T, mlp.fc2.bias[None]]).double()
            stays, new = _without(ridged(gram, ridge, rows), old, hidden)
            total = max(_square(gram, old), 1e-30)
            left = torch.zeros_like(old)
            left[stays], left[-1] = old[stays], old[-1]
            error, cut = (_square(gram, old - other) / total for other in (new, left))
        _shrink(mlp, stays, new)
        if layer == model.config.depth - 1:
            model.config = replace(model.config, hidden=hidden)
        yield NarrowLayer(layer, error, cut)


def _square(gram: Tensor, matrix: Tensor) -> float:
    """Squared length of what a matrix makes of the rows of this Gram matrix."""
    return max(float((matrix * (gram @ matrix)).sum()), 0.0)
