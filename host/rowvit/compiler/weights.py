# SPDX-License-Identifier: Apache-2.0
"""Weights and parameters in the layout of the on-chip memories."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BEGINNING = 64  # bytes


class Blob:
    """The bytes that loads read."""

    def __init__(self) -> None:
        self._size = 0
        #: offsets and bytes of arrays of equal length and beginning: to hash whole ones takes a processor of
        #: 32 bits longer than to pack them
        self._arrays: dict[tuple[int, bytes], tuple[tuple[int, bytes], ...]] = {}
        self._made: dict[Hashable, tuple[int, int]] = {}

    def copy(self) -> Blob:
        """Another one with the same bytes."""
        other = Blob()
        other._size, other._arrays, other._made = self._size, dict(self._arrays), dict(self._made)
        return other

    def append(self, array: NDArray[Any], own: bool = False) -> int:
        """Add an array's bytes, unless they are there; returns their offset, a multiple of 64.

        Those of its ``own`` no other array shares.
        """
        raw, offset = array.tobytes(), self._size
        key = len(raw), b"" if own else raw[:_BEGINNING]
        alike = self._arrays.get(key, ())
        for known, other in () if own else alike:
            if other == raw:
                return known
        self._arrays[key] = *alike, (offset, raw)
        self._size += -(-len(raw) // 64) * 64
        return offset

    def place(self, key: Hashable, make: Callable[[], NDArray[Any]], own: bool = False) -> tuple[int, int]:
        """Offset and length of the array that ``make`` gives, which is made and added once for each key."""
        if key not in self._made:
            array = make()
            self._made[key] = self.append(array, own), len(array)
        return self._made[key]

    def array(self, offset: int) -> NDArray[Any]:
        """The bytes of the array there: uint8 [bytes]"""
        raw = next(raw for first, raw in chain.from_iterable(self._arrays.values()) if first == offset)
        return np.frombuffer(raw, np.uint8)

    def bytes(self) -> NDArray[Any]:
        """uint8 array [bytes]"""
        blob = np.zeros(self._size, np.uint8)
        for offset, raw in chain.from_iterable(self._arrays.values()):
            blob[offset : offset + len(raw)] = np.frombuffer(raw, np.uint8)
        return blob


def pad_lanes(array: NDArray[Any], channels: int) -> NDArray[Any]:
    """Zero-pad the last axis to ``channels``."""
    if array.shape[-1] == channels:
        return array
    padded = np.zeros((*array.shape[:-1], channels), array.dtype)
    padded[..., : array.shape[-1]] = array
    return padded


def pad_rows(array: NDArray[Any], multiple: int) -> NDArray[Any]:
    """Zero-pad the first axis to a multiple."""
    if not len(array) % multiple:
        return array
    return np.concatenate([array, np.zeros((-len(array) % multiple, *array.shape[1:]), array.dtype)])


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
    pairs = np.ascontiguousarray(weights).view("<u2")
    packed: NDArray[Any] = (pairs - ((pairs & 0x80) << 1)).view(np.int8)
    return packed
