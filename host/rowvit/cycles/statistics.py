# SPDX-License-Identifier: Apache-2.0
"""What the data decide: tokens alive, non-zeros, and the rows of W2 that are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rowvit.formats.program import Program

if TYPE_CHECKING:
    from rowvit.reference.network import Counts


@dataclass
class LayerStatistics:
    """What the data decide in one layer of one image.

    Parameters
    ----------
    before, after : int
        Tokens alive in attention, and from the projection on.
    hidden : int array [after, chunks]
        Nonzero hidden activations.
    first : int array [tiles, hidden]
        The first row of a row tile that uses a hidden neuron, hence a row of W2; ``after`` if none does.
        One tile unless the rule is "tile".
    probabilities : int array [heads, before]
        Nonzero probabilities.
    """

    before: int
    after: int
    hidden: np.ndarray
    first: np.ndarray
    probabilities: np.ndarray


Statistics = list[LayerStatistics]


def measured(counts: Counts) -> Statistics:
    """Statistics of an image that the integer reference ran (`rowvit.reference.network.run`)."""
    layers = zip(counts.hidden_rows, counts.w2_first, counts.pv_rows, strict=True)
    return [LayerStatistics(p.shape[1], hidden.shape[0], hidden, first, p) for hidden, first, p in layers]


def assumed(
    program: Program, hidden: float = 0.2, rows: float = 0.4, probabilities: float = 0.9
) -> Statistics:
    """Statistics without an image.

    Parameters
    ----------
    program : Program
    hidden : float
        Share of the hidden activations that are not zero.
    rows : float
        Share of the rows of W2 that are used; at least ``hidden``.
    probabilities : float
        Share of the probabilities that are not zero.

    Returns
    -------
    list of LayerStatistics
        Every pruning keeps as many tokens as it may; the shares are spread at random (same seed).
    """
    meta = program.meta
    arch, rng = meta["architecture"], np.random.default_rng(0)
    keep = {step["layer"]: step["keep"] + 1 for step in meta["pruning"]}
    starts = np.arange(0, arch["hidden"], meta["ffn_chunk"])
    layers, live = [], arch["tokens"]
    for layer in range(arch["depth"]):
        after = min(live, keep.get(layer, live))
        tiles = -(-after // meta["tile_rows"]) if meta["ffn2_rule"] == "tile" else 1
        used = rng.random((tiles, arch["hidden"])) < rows
        columns = np.add.reduceat(used, starts, axis=1, dtype=int)[np.arange(after) * tiles // after]
        nonzeros = rng.binomial(columns, min(1.0, hidden / max(rows, 1e-9)))
        p = rng.binomial(live, probabilities, (arch["heads"], live))
        # rows use a neuron independently of each other
        begin = np.arange(tiles)[:, None] * meta["tile_rows"]
        waits = rng.geometric(np.clip(hidden / max(rows, 1e-9), 1e-9, 1), used.shape) - 1
        first = np.where(used, np.minimum(begin + waits, after - 1), after)
        layers.append(LayerStatistics(live, after, nonzeros, first, p))
        live = after
    return layers
