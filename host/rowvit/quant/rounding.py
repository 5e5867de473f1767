# SPDX-License-Identifier: Apache-2.0
"""Rounding of weights that keeps a layer's results, rather than each weight, close to what they were.

Rounded to nearest, the weights of an output channel have errors that add up where their inputs are alike, as
neighbouring pixels are. Optimal brain compression (OBC, arXiv 2208.11580) in the fixed order of GPTQ (arXiv
2210.17323) rounds one weight of a channel after the other and lets those that are left make up for the error,
by the second moments of the inputs on calibration photos.
"""

from __future__ import annotations

import numpy as np

_DAMPING = 0.01  # of the mean moment, added to all: GPTQ's
_BLOCK = 128  # weights of a channel between two updates of all later ones


def compensated(levels: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Whole numbers [out, in] within int8 near ``levels`` whose products with the inputs are near theirs.

    Parameters
    ----------
    levels : float array [out, in]
        Weights in units of their output channel.
    moment : float array [in, in]
        Second moment of the inputs, of any scale.
    """
    size = np.diag(moment).mean()
    if not size > 0:  # the inputs are always 0
        return np.clip(np.round(levels), -127, 127)
    order = np.argsort(-np.diag(moment), kind="stable")  # the largest first, while many others can make up
    damped = (moment / size + _DAMPING * np.eye(len(moment)))[np.ix_(order, order)]
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    wanted = levels[:, order].astype(np.float64)
    rounded = np.empty_like(wanted)
    for first in range(0, len(order), _BLOCK):
        block = slice(first, min(first + _BLOCK, len(order)))
        errors = np.empty((len(wanted), block.stop - first))
        for i in range(first, block.stop):
            rounded[:, i] = np.clip(np.round(wanted[:, i]), -127, 127)
            errors[:, i - first] = (wanted[:, i] - rounded[:, i]) / factor[i, i]
            wanted[:, i : block.stop] -= np.outer(errors[:, i - first], factor[i, i : block.stop])
        wanted[:, block.stop :] -= errors @ factor[block, block.stop :]
    result = np.empty_like(rounded)
    result[:, order] = rounded
    return result
