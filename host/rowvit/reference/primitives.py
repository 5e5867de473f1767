# SPDX-License-Identifier: Apache-2.0
"""Rounding, saturation and reciprocal (numerics.md, section 1), exact on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rsr(value: NDArray[Any], shift: NDArray[Any] | int) -> NDArray[Any]:
    """Rounding shift right, half up.

    Parameters
    ----------
    value : int64 array
    shift : int or int64 array, 0 to 62, broadcast against ``value``

    Returns
    -------
    int64 array
        ``floor((value + 2**(shift-1)) / 2**shift)``; ``value`` itself where shift is 0.
    """
    shift = np.asarray(shift, np.int64)
    rounded: NDArray[np.int64] = (np.asarray(value, np.int64) + ((np.int64(1) << shift) >> 1)) >> shift
    return rounded


def rescale(value: NDArray[Any], mult: NDArray[Any] | float, shift: NDArray[Any] | int) -> NDArray[Any]:
    """``rsr(value * mult, shift)`` clamped to int16, in float64 and still exact.

    ``value`` has at most 25 bits and ``mult`` at most 17, so that the product, scaled by a power of
    two, and the half added to it need at most 53 bits as long as ``shift <= 50``.

    Parameters
    ----------
    value : float64 array of integers, overwritten
    mult : integers in [0, 65536], broadcast against ``value``
    shift : integers in [0, 50], broadcast against ``mult``

    Returns
    -------
    int16 array
    """
    value *= np.asarray(mult, np.float64) * np.exp2(-np.asarray(shift, np.float64))
    value += 0.5
    np.floor(value, out=value)
    np.clip(value, -32768, 32767, out=value)
    return value.astype(np.int16)


def sat8(value: NDArray[Any]) -> NDArray[Any]:
    """Clamp to [-127, 127] and return int8."""
    return np.clip(value, -127, 127).astype(np.int8)


def sat16(v: NDArray[Any]) -> NDArray[Any]:
    """Clamp to the range of int16."""
    return np.clip(v, -32768, 32767).astype(np.int16)


def recip(q: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Reciprocal of integers in [1, 2**46).

    Returns
    -------
    n, r : int64 arrays
        ``n = floor(log2 q)`` and ``r = floor(2**(n+16) / q)``, so that ``1/q`` is about ``r * 2**-(n+16)``.
    """
    q = np.asarray(q, np.int64)
    n = np.frexp(q.astype(np.float64))[1].astype(np.int64) - 1  # exact: q < 2**53
    return n, (np.int64(1) << (n + 16)) // q


def isqrt(value: NDArray[Any]) -> NDArray[Any]:
    """``floor(sqrt(value))`` of integers in [0, 2**52)."""
    value = np.asarray(value, np.int64)
    root = np.sqrt(value.astype(np.float64)).astype(np.int64)
    root -= root * root > value  # the float root may have been rounded up to an integer
    return root
