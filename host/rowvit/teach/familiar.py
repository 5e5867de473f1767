# SPDX-License-Identifier: Apache-2.0
"""What the photos of some classes look like, by which others are known (`rowvit.formats.familiar`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowvit.teach.fit import folds

ALARMS = 0.05  #: share of the photos of its classes that a network takes for something else
#: of the covariance that becomes equal in all directions, of which few photos know little
_SHRINKAGE = 0.1


@dataclass(frozen=True)
class Familiar:
    """What `rowvit.formats.familiar.distance` takes."""

    whitening: NDArray[np.float32]  #: [D, D]
    means: NDArray[np.float32]  #: [classes, D], whitened
    limit: float

    def distances(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        """[n] of class tokens [n, D], not in units of the limit."""
        white = x @ self.whitening
        squares = np.square(white).sum(axis=1)[:, None] - 2 * white @ self.means.T
        found: NDArray[np.floating] = np.sqrt(
            np.maximum((squares + np.square(self.means).sum(axis=1)).min(axis=1), 0)
        )
        return found


def learn(x: NDArray[np.floating], labels: NDArray[np.integer], photos: NDArray[np.integer]) -> Familiar:
    """What is familiar, with the limit that all but `ALARMS` of the photos keep to which are not in it.

    Parameters
    ----------
    x : float array [n, D]
        Class tokens of views.
    labels : int array [n]
        Classes from 0, each with at least two photos.
    photos : int array [n]
        As of `rowvit.teach.fit.fit`.
    """
    first = np.flatnonzero(np.diff(photos, prepend=-1))
    fold = folds(labels[first])
    held = np.empty(len(first))
    for number in range(fold.max() + 1):
        inside = fold[photos] != number
        held[fold == number] = _shape(x[inside], labels[inside]).distances(x[first[fold == number]])
    found = _shape(x, labels)
    limit = max(float(np.quantile(held, 1 - ALARMS)), 1e-6)  # of equal photos it would be 0
    return Familiar(found.whitening, found.means, limit)


def _shape(x: NDArray[np.floating], labels: NDArray[np.integer]) -> Familiar:
    x = x.astype(np.float64)
    means = np.stack([x[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    own = x - means[labels]
    covariance = own.T @ own / len(x)
    floor = max(float(np.trace(covariance)) / len(covariance), 1e-12)
    values, vectors = np.linalg.eigh(
        (1 - _SHRINKAGE) * covariance + _SHRINKAGE * floor * np.eye(len(covariance))
    )
    whitening = vectors / np.sqrt(values)
    return Familiar(whitening.astype(np.float32), (means @ whitening).astype(np.float32), 1.0)
