# SPDX-License-Identifier: Apache-2.0
"""Weights and parameters in the layout of the on-chip memories."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Blob:
    """The bytes that loads read."""

    def __init__(self) -> None:
        self._parts: list[NDArray[Any]] = []
        self._size = 0
        self._offsets: dict[bytes, int] = {}

    def copy(self) -> Blob:
        """Another one with the same bytes."""
        other = Blob()
        other._parts, other._size, other._offsets = self._parts[:], self._size, dict(self._offsets)
        return other

    def append(self, array: NDArray[Any]) -> int:
        """Add an array's bytes, unless they are there; returns their offset, a multiple of 64."""
        raw = np.ascontiguousarray(array).view(np.uint8).ravel()
        digest = hashlib.sha256(raw.tobytes()).digest()
        if digest not in self._offsets:
            self._offsets[digest] = self._size
            self._parts.append(np.pad(raw, (0, -raw.size % 64)))
            self._size += self._parts[-1].size
        return self._offsets[digest]

    def bytes(self) -> NDArray[Any]:
        """uint8 array [bytes]"""
        return np.concatenate(self._parts)


def pad_lanes(array: NDArray[Any], channels: int) -> NDArray[Any]:
    """Zero-pad the last axis to ``channels``."""
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, channels - array.shape[-1])])


def pad_heads(array: NDArray[Any], head_dim: int, first: int, heads: int, lanes: int) -> NDArray[Any]:
    """Channels of ``heads`` heads from ``first`` on, each padded with zeros from ``head_dim`` to ``lanes``:
    [..., channels of all heads] to [..., heads * lanes].
    """
    split = array.reshape(*array.shape[:-1], -1, head_dim)[..., first : first + heads, :]
    return pad_lanes(split, lanes).reshape(*array.shape[:-1], heads * lanes)


def parameter_words(low: NDArray[Any], high: NDArray[Any]) -> NDArray[Any]:
    """Parameter words uint64: int32 ``low`` in bits 31:0, uint16 ``high`` in bits 47:32."""
    return low.astype(np.int32).view(np.uint32).astype(np.uint64) | high.astype(np.uint64) << np.uint64(32)


def pack_pairs(weights: NDArray[Any]) -> NDArray[Any]:
    """Weights as weight memory holds them: in every pair of lanes the odd weight is one less where the even
    one is negative, so that a multiplier takes both as one number (rtl/array/rowvit_mac_pair.v).

    Parameters
    ----------
    weights : int8 array [..., lanes], lanes even, values in [-127, 127]
    """
    packed = weights.copy()
    packed[..., 1::2] -= weights[..., ::2] < 0
    return packed
