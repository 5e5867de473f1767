# SPDX-License-Identifier: Apache-2.0
"""Real factors as a multiplier and a shift; angles as cosines and sines."""

from __future__ import annotations

import math

import numpy as np

from rowvit.errors import RowvitError
from rowvit.reference.attention import TURN_BITS


def multiplier(factors: np.ndarray | float, what: str = "factor") -> tuple[np.ndarray, int]:
    """Factors as ``mult * 2**-shift``, with one shift for all of them.

    Parameters
    ----------
    factors : float array, not negative
    what : str
        Name for the error message.

    Returns
    -------
    mult : uint16 array
        The largest uses all 16 bits as far as the range of the shift allows.
    shift : int
        In [1, 40].

    Raises
    ------
    RowvitError
        If a factor is negative, not finite, or at least 2**15.
    """
    factors = np.asarray(factors, np.float64)
    peak = float(factors.max())
    if not np.isfinite(factors).all() or factors.min() < 0 or peak > 32767:
        raise RowvitError(f"{what}: scale factors from {factors.min():g} to {peak:g} cannot be represented")
    # frexp: peak < 2**exponent, so peak * 2**(16-exponent) < 2**16
    shift = min(max(16 - math.frexp(peak)[1], 1), 40)
    if round(peak * 2.0**shift) > 65535:  # as a power of two that rounding left a little less
        shift -= 1
    return np.round(factors * 2.0**shift).astype(np.uint16), shift


def value_shift(value_unit: float, wanted: float, clip: bool = True) -> int:
    """How many powers of two, 0 to 8, the unit of attention's output O is finer than that of V.

    It comes closest to ``wanted``, or, where nothing may ``clip``, as close from above.
    """
    finer = math.log2(value_unit / wanted)
    return min(max(round(finer) if clip else math.floor(finer), 0), 8)


def rotations(angles: np.ndarray) -> np.ndarray:
    """Cosine and sine of angles [...] as a package's table has them: int16 [..., 2]."""
    turns = 2.0**TURN_BITS * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    found: np.ndarray = np.round(turns).astype(np.int16)
    return found
