# SPDX-License-Identifier: Apache-2.0
"""Token selection (numerics.md, section 7)."""

from __future__ import annotations

import numpy as np


def select(scores: np.ndarray, keep: int, threshold: int = 0) -> np.ndarray:
    """Rows that stay: token 0 and the best of the others, in their old order.

    Parameters
    ----------
    scores : integer array [n]; the score of token 0 is ignored
    keep : int
        Upper limit of tokens that stay besides token 0; of equal scores the lower index wins.
    threshold : int
        Tokens with a lower score go in any case.

    Returns
    -------
    int64 array of row indices, ascending, starting with 0
    """
    others = np.asarray(scores, np.int64)[1:]
    best = np.argsort(-others, kind="stable")[:keep]
    best = best[others[best] >= threshold]
    return np.concatenate([[0], np.sort(best) + 1])
