# SPDX-License-Identifier: Apache-2.0
"""What the cycle model finds."""

from __future__ import annotations

from dataclasses import dataclass, field

from rowvit.formats.program import Operation
from rowvit.hardware.isa import Engine, LoadKind


@dataclass
class Slice:
    """One operation of one engine.

    Parameters
    ----------
    engine : Engine
    operation : Operation
        What it computes; of a load, the first operation that uses it.
    image : int
    number : int
        Operations of this engine before it, since start.
    load : LoadKind, optional
    start, end : float
        Cycles since start. Before ``start`` the operation waits for its first dependency.
    busy : float
        Cycles of work in it: scalars that fire, words that arrive, lanes that drain.
    """

    engine: Engine
    operation: Operation
    image: int
    number: int
    load: LoadKind | None = None
    start: float = 0.0
    end: float = 0.0
    busy: float = 0.0

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
    """What `predict` says about one start of the core.

    Parameters
    ----------
    total : int
        Cycles from start to the last word of the last image.
    layer_cycles : list of int
        Of the last image: embedding, layers, head, as in `rowvit.targets.target.Result`.
    image_cycles : list of int
        Of every image; the head of all but the last counts in the next one's embedding.
    layers : list of LayerTimes
        Of the last image, in the same order.
    timeline : list of Slice
    """

    total: int
    layer_cycles: list[int]
    image_cycles: list[int]
    layers: list[LayerTimes]
    timeline: list[Slice]
