# SPDX-License-Identifier: Apache-2.0
"""What goes into the cycle model (tokens alive, non-zeros, rows of W2 that are used) and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rowvit.formats.description import in_places, lanes_each
from rowvit.formats.program import Operation, Program
from rowvit.hardware.isa import Engine, LoadKind

if TYPE_CHECKING:
    from rowvit.reference.network import Counts


@dataclass
class LayerStatistics:
    """What the data decide in one layer of one image."""

    hidden: np.ndarray  #: bool [after, hidden]: the hidden activation is not zero; of a gated FFN, in places
    #: [tiles, hidden] the first row of a row tile that uses a hidden neuron, hence a row of W2; ``after`` if
    #: none does. One tile unless the rule is "tile"
    first: np.ndarray
    probabilities: np.ndarray  #: bool [heads, before, before]: the probability is not zero

    @property
    def before(self) -> int:
        """Tokens alive in attention."""
        return self.probabilities.shape[1]

    @property
    def after(self) -> int:
        """Tokens alive from the projection on."""
        return len(self.hidden)


Statistics = list[LayerStatistics]


def measured(counts: Counts) -> Statistics:
    """Statistics of an image that the integer reference ran (`rowvit.reference.network.run`)."""
    layers = zip(counts.hidden_bits, counts.w2_first, counts.pv_bits, strict=True)
    return [
        LayerStatistics(
            np.unpackbits(hidden, axis=1, count=first.shape[1]).view(bool),
            first,
            np.unpackbits(p, axis=2, count=p.shape[1]).view(bool),
        )
        for hidden, first, p in layers
    ]


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
    layers, live = [], arch["tokens"]
    for layer in range(arch["depth"]):
        after = min(live, keep.get(layer, live))
        tiles = -(-after // meta["tile_rows"]) if meta["ffn2_rule"] == "tile" else 1
        used = rng.random((tiles, arch["hidden"])) < rows
        # rows use a neuron independently of each other
        share, tile = min(1.0, hidden / max(rows, 1e-9)), np.arange(after) * tiles // after
        nonzero = used[tile] & (rng.random((after, arch["hidden"])) < share)
        begin = np.arange(tiles)[:, None] * meta["tile_rows"]
        waits = rng.geometric(np.clip(share, 1e-9, 1), used.shape) - 1
        first = np.where(used, np.minimum(begin + waits, after - 1), after)
        nonzero = in_places(nonzero, lanes_each(meta))
        first = after - in_places(after - first, lanes_each(meta))
        layers.append(
            LayerStatistics(nonzero, first, rng.random((arch["heads"], live, live)) < probabilities)
        )
        live = after
    return layers


@dataclass
class Slice:
    """One operation of one engine; before ``start`` it waits for its first dependency."""

    engine: Engine
    operation: Operation  #: what it computes; of a load, the first operation that uses it
    image: int
    number: int  #: operations of this engine before it, since start
    load: LoadKind | None = None
    start: float = 0.0  #: cycles since start of the core
    end: float = 0.0  #: likewise
    busy: float = 0.0  #: cycles of work in it: scalars that fire, words that arrive, lanes that drain

    @property
    def layer(self) -> int:
        """-1: patch embedding; the network's depth: head."""
        return self.operation.layer

    @property
    def name(self) -> str:
        """For display."""
        label = self.operation.label
        return label if self.load is None else f"{label} {self.load.name.lower()}"


@dataclass
class LayerTimes:
    """Cycles of one layer by engine, and why the array was idle.

    The array's four add up to the time from the previous layer's last operation to this one's.
    """

    busy: dict[Engine, float] = field(default_factory=lambda: dict.fromkeys(Engine, 0.0))
    weights: float = 0.0  #: array waits for loads
    data: float = 0.0  #: array waits for activations
    draining: float = 0.0  #: array waits for the drain of the tile before
    instructions: float = 0.0  #: array waits for the dispatcher
    load_wait: float = 0.0  #: a load waits for room or for a mask
    softmax: float = 0.0  #: softmax busy
    macs: float = 0.0  #: multiplications of the array
    words: float = 0.0  #: 64-bit words loaded


@dataclass
class Prediction:
    """What `predict` says about one start of the core."""

    total: int  #: cycles from start to the last word of the last image
    layer_cycles: list[int]  #: of the last image: embedding, layers, head (`rowvit.targets.target.Result`)
    #: of every image; heads count in the next pass's first embedding, but those of the last pass
    image_cycles: list[int]
    layers: list[LayerTimes]  #: of the last image, in the same order
    timeline: list[Slice]
