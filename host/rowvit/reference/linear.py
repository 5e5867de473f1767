# SPDX-License-Identifier: Apache-2.0
"""Linear layer (numerics.md, section 3)."""

from __future__ import annotations

import numpy as np

from rowvit.reference.primitives import rescale

#: integers of float32 are exact up to here
FLOAT32_EXACT = 1 << 24


def accumulate(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Exact integer matrix product through floating-point BLAS.

    Whatever the order of summation, no partial sum exceeds ``K * max|x| * max|w|``. Up to 2**24 every
    one of them is a float32, hence float32 BLAS makes no rounding error; beyond it float64 is used
    (exact to 2**53). int8 by int8 stays in float32 up to K = 1024, uint8 by int8 up to K = 518.

    Parameters
    ----------
    x : int8 or uint8 array [..., K]
    weight : int8 array [K, C], values in [-127, 127]

    Returns
    -------
    float32 or float64 array [..., C] of integers
    """
    bound = weight.shape[-2] * {"int8": 128, "uint8": 255}[x.dtype.name] * 127
    dtype = np.float32 if bound <= FLOAT32_EXACT else np.float64
    return np.matmul(x.astype(dtype), weight.astype(dtype))


def requant(acc: np.ndarray, bias: np.ndarray | int, mult: np.ndarray | int, shift: int) -> np.ndarray:
    """``sat16(rsr(sat25(acc + bias) * mult, shift))``.

    Parameters
    ----------
    acc : array [..., C] of integers, any numeric type
    bias : integers [C], 26 bits signed
    mult : integers [C] in [0, 65535]
    shift : int in [1, 40]

    Returns
    -------
    int16 array [..., C]
    """
    value = np.add(acc, bias, dtype=np.float64)
    np.clip(value, -(1 << 24), (1 << 24) - 1, out=value)
    return rescale(value, mult, shift)


def linear(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | int, mult: np.ndarray, shift: int
) -> np.ndarray:
    """One linear layer: int8 or uint8 [..., K] by int8 [K, C] to int16 [..., C]."""
    return requant(accumulate(x, weight), bias, mult, shift)


def residual_add(residual: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``sat16(residual + y)`` of two int16 arrays."""
    return np.clip(residual.astype(np.int32) + y, -32768, 32767).astype(np.int16)
