# SPDX-License-Identifier: Apache-2.0
"""What an image costs: multiplications, and rows of the second FFN matrix, W2 (numerics.md, section 11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from operator import mul
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

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


def count_work(
    meta: Mapping[str, Any],
    live: Sequence[int],
    pv_nonzeros: int,
    ffn2_nonzeros: _Number,
    w2_rows: _Number,
) -> Work[_Number]:
    """Work from what was counted while a network ran.

    Parameters
    ----------
    meta : mapping
        ``architecture``, ``ffn2_rule`` and ``tile_rows`` of a package or program.
    live : sequence of int
        Tokens that enter the FFN of each layer: those that its attention leaves.
    pv_nonzeros : int
        Nonzero probabilities over all layers, heads and rows.
    ffn2_nonzeros, w2_rows : int or int64 array
        Nonzero hidden activations, and rows of W2 that have a use, over all layers. Rule "none" uses all.
    """
    arch, rule = meta["architecture"], meta["ffn2_rule"]
    tokens, hidden, depth = arch["tokens"], arch["hidden"], arch["depth"]
    tiles = sum(-(-rows // meta["tile_rows"]) for rows in live) if rule == "tile" else depth
    none, inner, after, whole = rule == "none", live[:-1], sum(live), tokens * depth
    entering = tokens + sum(inner), tokens**2 + sum(map(mul, inner, inner))
    nonzeros = hidden * after + 0 * ffn2_nonzeros if none else ffn2_nonzeros
    return Work(
        _macs(arch, *entering, after, pv_nonzeros, nonzeros),
        _macs(arch, whole, tokens * whole, whole, arch["heads"] * tokens * whole, hidden * whole),
        hidden * tiles + 0 * w2_rows if none else w2_rows,
        hidden * tiles,
    )


def _macs(
    arch: Mapping[str, int], before: int, squares: int, after: int, pv_nonzeros: int, ffn2_nonzeros: _Number
) -> _Number:
    """Of so many rows, over all layers: that enter attention, the squares of these, and that leave it."""
    dim = arch["dim"]
    patches = (arch["tokens"] - arch["prefix"]) * arch["channels"] * arch["patch_size"] ** 2
    macs = dim * (patches + arch["classes"]) + pv_nonzeros * (dim // arch["heads"])
    macs += (3 * before + after) * dim**2 + squares * dim + after * dim * arch["hidden"]
    return macs + dim * ffn2_nonzeros
