# SPDX-License-Identifier: Apache-2.0
"""ReLU with threshold (numerics.md, section 6) and the compressed segment of token memory."""

from __future__ import annotations

import numpy as np


def relu(y: np.ndarray, thr: int) -> np.ndarray:
    """``0 if y < thr else min(y, 255)``: int16 to uint8; ``thr`` in [1, 255]."""
    hidden = np.clip(y, 0, 255).astype(np.uint8)
    hidden[hidden < thr] = 0
    return hidden


def compress(values: np.ndarray) -> np.ndarray:
    """Pack one segment: a bitmap of the nonzero lanes, then their values in order.

    Parameters
    ----------
    values : uint8 array [lanes], lanes a multiple of 8 and at most 64

    Returns
    -------
    uint64 array [1 + lanes / 8], little endian; the unused tail is zero
    """
    lanes = values.size
    packed = np.zeros(8 + lanes, np.uint8)
    bitmap = np.packbits(values != 0, bitorder="little")
    packed[: bitmap.size] = bitmap
    nonzero = values[values != 0]
    packed[8 : 8 + nonzero.size] = nonzero
    return packed.view("<u8")


def decompress(words: np.ndarray, lanes: int) -> np.ndarray:
    """Values uint8 [lanes] of a compressed segment; its tail is ignored."""
    packed = np.ascontiguousarray(words, "<u8").view(np.uint8)
    mask = np.unpackbits(packed[:8], bitorder="little")[:lanes].astype(bool)
    values = np.zeros(lanes, np.uint8)
    values[mask] = packed[8 : 8 + mask.sum()]
    return values
