# SPDX-License-Identifier: Apache-2.0
"""A linear layer in integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rowvit.quant.fixed import multiplier
from rowvit.quant.rounding import compensated

_BIAS_PEAK = 1 << 23  # half of the accumulator's clamp; the products use the other half


def linear(
    weight: NDArray[np.floating],
    bias: NDArray[np.floating] | None,
    x: float,
    y: float | NDArray[np.floating],
    name: str,
    moment: NDArray[np.floating] | None = None,
    power_of_two: bool = False,
) -> tuple[dict[str, NDArray[np.generic]], int]:
    """Quantise a linear layer.

    Parameters
    ----------
    weight : float array [out, in]
    bias : float array [out], or None if the layer has none
    x : float
        Unit of its input.
    y : float, or float array [out]
        Unit of its result.
    name : str
        For the error message.
    moment : float array [in, in], optional
        Second moment of its inputs, with which the errors of rounding make up for each other.
    power_of_two : bool
        Multipliers are powers of two; the units of weights are adapted to that.

    Returns
    -------
    tensors : dict
        "weight" int8 [in, out], "mult" uint16 [out] and, with a bias, "bias" int32 [out].
    shift : int

    Raises
    ------
    RowvitError
        As of `rowvit.quant.fixed.multiplier`.
    """
    unit = np.abs(weight).max(axis=1) / 127
    if bias is not None:
        # a channel of tiny weights and a large bias needs a coarser unit for the bias to fit
        unit = np.maximum(unit, np.abs(bias) / (x * _BIAS_PEAK))
    unit = np.where(unit > 0, unit, unit.max() or y / x)
    if power_of_two:
        unit = y / x * 2.0 ** np.ceil(np.log2(unit * x / y))
    levels = weight / unit[:, None]
    rounded = np.round(levels) if moment is None else compensated(levels, moment)
    tensors: dict[str, NDArray[np.generic]] = {"weight": rounded.astype(np.int8).T.copy()}
    if bias is not None:
        tensors["bias"] = np.round(bias / (x * unit)).astype(np.int32)
    tensors["mult"], shift = multiplier(x * unit / y, name)
    return tensors, shift
