# SPDX-License-Identifier: Apache-2.0
"""LayerNorm (numerics.md, section 4)."""

from __future__ import annotations

import numpy as np

from rowvit.reference.primitives import isqrt, recip, rsr, sat8


def normalise(x: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance with 10 fraction bits.

    Parameters
    ----------
    x : int16 array [..., D], D <= 1024

    Returns
    -------
    int64 array [..., D] in the int16 range
    """
    x = x.astype(np.int64)
    dim = x.shape[-1]
    s1 = x.sum(axis=-1, keepdims=True)
    s2 = (x * x).sum(axis=-1, keepdims=True)
    n, r = recip(isqrt(np.maximum(dim * s2 - s1 * s1, 1)))
    centred = dim * x - s1
    scaled = (centred << np.maximum(10 - n, 0)) >> np.maximum(n - 10, 0)
    return np.clip(rsr(scaled * r, 16), -32768, 32767)


def layernorm(x: np.ndarray, g: np.ndarray, b: np.ndarray, shift: int) -> np.ndarray:
    """LayerNorm of int16 [..., D] to int8 [..., D].

    Parameters
    ----------
    x : int16 array [..., D]
    g : int16 array [D]
    b : int32 array [D]
    shift : int in [0, 31]
    """
    return sat8(rsr(normalise(x) * g + b, shift))
