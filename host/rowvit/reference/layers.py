# SPDX-License-Identifier: Apache-2.0
"""Linear layer, LayerNorm, and ReLU with its compressed segments (numerics.md, sections 3, 4, 6 and 8)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.reference.primitives import isqrt, recip, rescale, rsr, sat8, sat16

#: of the product of a gate and what it lets through, below a unit of the hidden activation
GATE_BITS = 16
#: integers of float32 are exact up to here
FLOAT32_EXACT = 1 << 24


def accumulate(x: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
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
    product: NDArray[Any] = np.matmul(x.astype(dtype), weight.astype(dtype))
    return product


def requant(
    acc: NDArray[Any], bias: NDArray[Any] | int, mult: NDArray[Any] | int, shift: int
) -> NDArray[Any]:
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
    x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | int, mult: NDArray[Any], shift: int
) -> NDArray[Any]:
    """One linear layer: int8 or uint8 [..., K] by int8 [K, C] to int16 [..., C]."""
    return requant(accumulate(x, weight), bias, mult, shift)


def residual_add(residual: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """``sat16(residual + y)`` of two int16 arrays."""
    total: NDArray[np.int32] = residual.astype(np.int32) + y
    return np.clip(total, -32768, 32767).astype(np.int16)


def normalise(x: NDArray[Any]) -> NDArray[Any]:
    """Zero mean and unit variance with 10 fraction bits: int64 [..., D] in the int16 range.

    ``x`` is int16 [..., D], D <= 1024.
    """
    x = x.astype(np.int64)
    dim = x.shape[-1]
    s1 = x.sum(axis=-1, keepdims=True)
    s2 = (x * x).sum(axis=-1, keepdims=True)
    n, r = recip(isqrt(np.maximum(dim * s2 - s1 * s1, 1)))
    centred = dim * x - s1
    scaled = (centred << np.maximum(10 - n, 0)) >> np.maximum(n - 10, 0)
    return np.clip(rsr(scaled * r, 16), -32768, 32767)


def layernorm(x: NDArray[Any], g: NDArray[Any], b: NDArray[Any], shift: int) -> NDArray[Any]:
    """LayerNorm of int16 [..., D] to int8 [..., D]; g int16 [D], b int32 [D], shift in [0, 31]."""
    return sat8(rsr(normalise(x) * g + b, shift))


def token_values(x: NDArray[Any], g: NDArray[Any], b: NDArray[Any], shift: int) -> NDArray[Any]:
    """`layernorm` to int16 (section 8)."""
    return sat16(rsr(normalise(x) * g + b, shift))


def relu(y: NDArray[Any], thr: int) -> NDArray[Any]:
    """``0 if y < thr else min(y, 255)``: int16 to uint8; ``thr`` in [1, 255] (section 6)."""
    hidden = np.clip(y, 0, 255).astype(np.uint8)
    hidden[hidden < thr] = 0
    return hidden


def gate(y: NDArray[Any]) -> NDArray[Any]:
    """Gates and values in turn, int16 [..., 2 F], to the int8 [..., F] of a gated FFN (section 6)."""
    return sat8(rsr(np.maximum(y[..., 0::2], 0).astype(np.int64) * y[..., 1::2], GATE_BITS))


def compress(values: NDArray[Any]) -> NDArray[Any]:
    """Pack one segment: a bitmap of the nonzero lanes, then their values in order.

    ``values`` is uint8 or int8 [lanes], a multiple of 8 and at most 64; the result little-endian uint64
    [1 + lanes / 8], its unused tail zero.
    """
    lanes = values.size
    packed = np.zeros(8 + lanes, np.uint8)
    bitmap = np.packbits(values != 0, bitorder="little")
    packed[: bitmap.size] = bitmap
    nonzero = values[values != 0].view(np.uint8)
    packed[8 : 8 + nonzero.size] = nonzero
    return packed.view("<u8")


def decompress(words: NDArray[Any], lanes: int) -> NDArray[Any]:
    """Values uint8 [lanes] of a compressed segment; its tail is ignored."""
    packed = np.ascontiguousarray(words, "<u8").view(np.uint8)
    mask = np.unpackbits(packed[:8], bitorder="little")[:lanes].astype(bool)
    values = np.zeros(lanes, np.uint8)
    values[mask] = packed[8 : 8 + mask.sum()]
    return values
