# SPDX-License-Identifier: Apache-2.0
"""Attention with base-2 softmax (numerics.md, section 5); token scores and selection (section 7)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.reference.layers import accumulate, requant
from rowvit.reference.primitives import recip, rescale, rsr, sat8

#: 255 * 2**(-f/32) with 8 fraction bits
EXP = np.round(255 * 256 * 2.0 ** (-np.arange(32) / 32)).astype(np.int64)
#: 255 * 2**(-f/32), what a token score takes of an exponential before its shift
FRACTION = (EXP + 128) >> 8


#: fraction bits of queries and keys before they are rotated to int8, and of the table of rotations
ROTATED_BITS, TURN_BITS = 6, 14


def rotate(y: NDArray[Any], table: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]:
    """Queries or keys rotated by their rows' places: int8, as ``y``.

    Parameters
    ----------
    y : int16 array [rows, heads, head_dim]
        As requantised, with 6 fraction bits.
    table : int16 array [coordinates, head_dim / 4, 2]
        Cosine and sine with 14 fraction bits, by coordinate and frequency.
    places : uint8 array [rows, 2]
        Of every row its two coordinates.
    """
    turns = table[places].astype(np.int64).transpose(0, 2, 1, 3)  # pairs of channels: frequency, axis
    cos, sin = np.moveaxis(turns.reshape(len(y), 1, -1, 2), -1, 0)
    even, odd = y[..., 0::2].astype(np.int64), y[..., 1::2].astype(np.int64)
    both = np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return sat8(rsr(both, ROTATED_BITS + TURN_BITS)).reshape(y.shape)


def _exponential_table() -> NDArray[Any]:
    distance = np.arange(4096)
    octave = distance >> 5
    shift = 8 + np.minimum(octave, 8)
    value = (EXP[distance & 31] + (1 << (shift - 1))) >> shift
    return np.where(octave <= 8, value, 0).astype(np.uint8)


#: e of every distance from the row maximum, 0 to 4095
EXPONENTIAL = _exponential_table()


def logits(q: NDArray[Any], k: NDArray[Any], s_mult: int, s_shift: int) -> NDArray[Any]:
    """Attention logits S in 1/32 of log2: int16 [..., n, n] in [-2048, 2047].

    ``q`` and ``k`` are int8 [..., n, head_dim].
    """
    scaled = requant(accumulate(q, np.swapaxes(k, -1, -2)), 0, s_mult, s_shift)
    return scaled.clip(-2048, 2047)


def exponentials(s: NDArray[Any]) -> NDArray[Any]:
    """Unnormalised probabilities uint8 of logits int16 [..., n] in [-2048, 2047]; a row's largest is 255."""
    found: NDArray[np.uint8] = EXPONENTIAL[s.max(axis=-1, keepdims=True) - s]
    return found


def weigh(e: NDArray[Any], v: NDArray[Any], pv_shift: int) -> NDArray[Any]:
    """Weighted mean of the values: int8 [..., n, head_dim], as ``v``.

    The weights ``e`` are uint8 [..., n, n], ``pv_shift`` is in [8, 16].
    """
    n, r = recip(e.sum(axis=-1, keepdims=True, dtype=np.int64))
    acc = accumulate(e, v).astype(np.float64)
    np.clip(acc, -(1 << 24), (1 << 24) - 1, out=acc)
    return sat8(rescale(acc, r, n + pv_shift))


def token_scores(s: NDArray[Any]) -> NDArray[Any]:
    """Scores of all tokens, int64 [n] with 20 fraction bits.

    ``s`` are the class token's attention logits, int16 [heads, n] in [-2048, 2047].
    """
    n, r = recip(exponentials(s).sum(axis=-1, keepdims=True, dtype=np.int64))
    distance = s.max(axis=-1, keepdims=True).astype(np.int64) - s
    shares: NDArray[np.int64] = (FRACTION[distance & 31] * r) >> (n - 4 + (distance >> 5))
    scores: NDArray[np.int64] = shares.sum(axis=0)
    return scores


def select(scores: NDArray[Any], keep: int, threshold: int = 0) -> NDArray[Any]:
    """Rows that stay, as ascending int64 indices: token 0 and the best of the others.

    Parameters
    ----------
    scores : integer array [n]; the score of token 0 is ignored
    keep : int
        Upper limit of tokens that stay besides token 0; of equal scores the lower index wins.
    threshold : int
        Tokens with a lower score go in any case.
    """
    others = np.asarray(scores, np.int64)[1:]
    best = np.argsort(-others, kind="stable")[:keep]
    best = best[others[best] >= threshold]
    return np.concatenate([[0], np.sort(best) + 1])
