# SPDX-License-Identifier: Apache-2.0
"""A graph that normalises its input itself: mean and standard deviation, found by running its beginning.

Whichever operators do it, in whichever order of channels or patches: it is looked for the last tensor each of
whose scalars is one scalar of the image, times a factor and plus an offset of its channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rowvit.errors import RowvitError
from rowvit.model.importers.onnx.graph import Graph

_TOLERANCE = 1e-5
_UNIT = 1.5  # mean or deviation above that are of pixels in 0..255


@dataclass
class Pixels:
    """What a graph takes, and how it normalises it."""

    peak: int  #: of the pixels that it takes: 1 or 255
    mean: list[float]  #: of pixels in 0..1, by channel
    std: list[float]  #: likewise


def normalisation(graph: Graph, embedding: str) -> Pixels | None:
    """How a graph normalises its input before it makes the tensor ``embedding`` of it; None if it does not.

    Integers are pixels in 0..255, whatever happens to them. `RowvitError` for pixels around 0, whose mean
    would be below 0.
    """
    whole, shapes = 3 * math.prod(graph.size), graph.shapes()
    tensors = [name for node in graph.needed([embedding], own=True) for name in node.output]
    integers = bool(np.issubdtype(graph.dtype, np.integer))
    for name in reversed(tensors):
        if int(np.prod(shapes.get(name, (0,)))) != whole:
            continue
        found = _affine(graph, name)
        if found is None or min(found[0]) <= 0:
            continue
        factor, offset = found
        if not integers and np.allclose(factor, 1) and np.allclose(offset, 0):
            break
        beyond = max(1 / factor.min(), np.abs(offset / factor).max()) > _UNIT
        if (offset > 0).any():
            raise RowvitError(
                f"{graph.path}: normalises its input itself, as if pixels were in -1..1",
                "export it without that, and pass --mean and --std of pixels in 0..1",
            )
        return _pixels(255 if integers or beyond else 1, factor, offset)
    return _pixels(255, np.ones(3), np.zeros(3)) if integers else None


def _pixels(peak: int, factor: np.ndarray, offset: np.ndarray) -> Pixels:
    mean, std = -offset / factor / peak, 1 / factor / peak
    return Pixels(peak, *([float(f"{value:.6g}") for value in values] for values in (mean, std)))


def _affine(graph: Graph, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Factors and offsets [3] of a tensor whose scalars are those of the image times and plus these."""
    count, step = math.prod(graph.size), 255.0
    images = np.zeros((5, 3, *graph.size))
    images[1:4] = step * np.eye(3)[:, :, None, None]  # one channel at a time
    images[4] = np.random.default_rng(2).permutation(3 * count).reshape(3, *graph.size) % 256
    zero, *channels, noise = graph.run(images, name).astype(np.float64).reshape(5, -1)
    steps = (np.stack(channels) - zero) / step
    own = np.abs(steps).argmax(axis=0)  # the channel that each scalar is of
    factor, offset = np.zeros(3), np.zeros(3)
    for channel in range(3):
        mine = own == channel
        if mine.sum() != count:
            return None
        factor[channel], offset[channel] = steps[channel, mine].mean(), zero[mine].mean()
        expected = np.sort(factor[channel] * images[4, channel].ravel() + offset[channel])
        scale = _TOLERANCE * np.abs(expected).max()
        same = np.abs(zero[mine] - offset[channel]).max() <= scale
        if not same or np.abs(np.sort(noise[mine]) - expected).max() > scale:
            return None
    rest = np.where(np.arange(3)[:, None] == own, 0, steps)
    return (factor, offset) if np.abs(rest).max() <= _TOLERANCE * np.abs(factor).max() else None
