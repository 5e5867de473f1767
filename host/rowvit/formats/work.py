# SPDX-License-Identifier: Apache-2.0
"""What an image costs: multiplications, and rows of the second FFN matrix, W2 (numerics.md, section 11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from operator import mul
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from rowvit.formats.description import lanes_each

_Number = TypeVar("_Number", int, NDArray[Any])


@dataclass
class Work(Generic[_Number]):
    """Work for one image, or int64 arrays with an entry per image where images differ."""

    #: multiplications of nonzero scalars in P and (unless ``ffn2_rule`` is "none") in the hidden
    #: activations, and all multiplications of the other layers, over live rows; the projection runs
    #: on kept rows only, and the patch embedding counts without its prefix rows
    macs_executed: _Number
    macs_dense: int  #: of the same network without any pruning or skipping
    #: rows of W2 fetched, over all layers; rule "tile" fetches for every tile of live rows
    w2_rows_fetched: _Number
    #: those that would be fetched without looking at the activations: hidden per layer, and with
    #: rule "tile" hidden per tile of live rows
    w2_rows_total: int


#: the fields of `Work`
WORK = tuple(field.name for field in fields(Work))


@dataclass(frozen=True)
class Shape:
    """What the tokens of an image, by layer, determine of its work."""

    rest: int  #: multiplications but for those of nonzero probabilities and hidden activations
    dense: int  #: ``macs_dense``
    hidden: int  #: hidden activations, over all layers and live tokens
    rows: int  #: ``w2_rows_total``
    each: tuple[int, int]  #: multiplications of a probability, and of a hidden activation
    skips: bool  #: whether zeros of the latter are skipped

    def work(self, pv_nonzeros: int, ffn2_nonzeros: _Number, w2_rows: _Number) -> Work[_Number]:
        """With nonzero probabilities and hidden activations, and useful rows of W2, over all layers."""
        pv, ffn2 = self.each
        if not self.skips:
            ffn2_nonzeros, w2_rows = self.hidden + 0 * ffn2_nonzeros, self.rows + 0 * w2_rows
        return Work(self.rest + pv * pv_nonzeros + ffn2 * ffn2_nonzeros, self.dense, w2_rows, self.rows)


def shape(meta: Mapping[str, Any], live: Sequence[int]) -> Shape:
    """The `Shape` of an image.

    Parameters
    ----------
    meta : mapping
        ``architecture``, ``ffn2_rule`` and ``tile_rows`` of a package or program.
    live : sequence of int
        Tokens that enter the FFN of each layer: those that its attention leaves.
    """
    arch, rule = meta["architecture"], meta["ffn2_rule"]
    tokens, hidden, depth, dim = arch["tokens"], arch["hidden"], arch["depth"], arch["dim"]
    tiles = sum(-(-rows // meta["tile_rows"]) for rows in live) if rule == "tile" else depth
    inner, after, whole = live[:-1], sum(live), tokens * depth
    head_dim = dim // arch["heads"]

    def macs(before: int, squares: int, after: int) -> int:
        """Of so many rows: that enter attention, the squares of these, and that leave it."""
        patches = (tokens - arch["prefix"]) * arch["channels"] * arch["patch_size"] ** 2
        layers = (3 * before + after) * dim**2 + squares * dim + after * dim * hidden * lanes_each(meta)
        found: int = dim * (patches + arch["classes"]) + layers
        return found

    return Shape(
        macs(tokens + sum(inner), tokens**2 + sum(map(mul, inner, inner)), after),
        macs(whole, tokens * whole, whole) + dim * tokens * whole + dim * hidden * whole,
        hidden * after,
        hidden * tiles,
        (head_dim, dim),
        rule != "none",
    )


def count_work(
    meta: Mapping[str, Any],
    live: Sequence[int],
    pv_nonzeros: int,
    ffn2_nonzeros: _Number,
    w2_rows: _Number,
) -> Work[_Number]:
    """Work from what was counted while a network ran: `shape` and `Shape.work`."""
    return shape(meta, live).work(pv_nonzeros, ffn2_nonzeros, w2_rows)
