# SPDX-License-Identifier: Apache-2.0
"""What the photos of some classes look like, by which others are known (`rowvit.formats.familiar`).

The limit is a conformal one: the distance that all but `ALARMS` of photos keep to which took no part. Too few
recordings for that have the largest such distance, or that of a normal distribution, whichever is larger; of
n of them, a new photo then exceeds it once in n + 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowvit.teach.fit import folds

ALARMS = 0.05  #: share of the photos of its classes that a network takes for something else, at least
#: of the covariance that becomes equal in all directions, where nothing is known before
_SHRINKAGE = 0.1
_BEFORE = 60  # recordings that what is known before counts as much as


@dataclass(frozen=True)
class Familiar:
    """What `rowvit.formats.familiar.distance` takes."""

    whitening: NDArray[np.float32]  #: [D, D]
    means: NDArray[np.float32]  #: [classes, D], whitened
    limit: float
    alarms: float = ALARMS  #: share of photos of the classes that exceed it

    def distances(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        """[n] of class tokens [n, D], not in units of the limit."""
        white = x @ self.whitening
        squares = np.square(white).sum(axis=1)[:, None] - 2 * white @ self.means.T
        found: NDArray[np.floating] = np.sqrt(
            np.maximum((squares + np.square(self.means).sum(axis=1)).min(axis=1), 0)
        )
        return found


def learn(
    x: NDArray[np.floating],
    labels: NDArray[np.integer],
    photos: NDArray[np.integer],
    recordings: NDArray[np.integer] | None = None,
    before: NDArray[np.float64] | None = None,
    unit: float = 0.0,
) -> Familiar:
    """What is familiar.

    Parameters
    ----------
    x : float array [n, D]
        Class tokens of views.
    labels : int array [n]
        Classes from 0, each with at least two photos.
    photos, recordings
        As of `rowvit.teach.fit.fit`.
    before : float array [D, D], optional
        Covariance of photos of other classes.
    unit : float
        Of whole numbers that ``x`` was rounded to.
    """
    first = np.flatnonzero(np.diff(photos, prepend=-1))
    recordings = np.arange(len(first)) if recordings is None else recordings
    weights = 1.0 / np.bincount(photos)[photos]

    def shape(inside: NDArray[np.bool_]) -> Familiar:
        own = len(np.unique(recordings[photos[inside]]))
        return _shape(x[inside], labels[inside], weights[inside], own, before, unit)

    fold = folds(labels[first], recordings)
    held = np.empty(len(first))
    for number in range(fold.max() + 1):
        held[fold == number] = shape(fold[photos] != number).distances(x[first[fold == number]])
    found = shape(np.ones(len(x), bool))
    _, which, sizes = np.unique(recordings, return_inverse=True, return_counts=True)
    count, dim = len(sizes), x.shape[1]
    rank = math.ceil((count + 1) * (1 - ALARMS))
    if rank <= count:
        order = np.argsort(held)
        before_it = np.cumsum((1.0 / sizes[which])[order])  # recordings
        limit = float(held[order][np.searchsorted(before_it, rank - 1e-9)])
    else:
        normal = math.sqrt(dim + 1.645 * math.sqrt(2 * dim))  # that 95% keep to, nearly
        limit = max(float(held.max()), normal)
    return Familiar(found.whitening, found.means, max(limit, 1e-6), max(ALARMS, 1 / (count + 1)))


def _shape(
    x: NDArray[np.floating],
    labels: NDArray[np.integer],
    weights: NDArray[np.float64],
    recordings: int,
    before: NDArray[np.float64] | None,
    unit: float,
) -> Familiar:
    x = x.astype(np.float64)
    own = [labels == label for label in range(labels.max() + 1)]
    means = np.stack([np.average(x[each], axis=0, weights=weights[each]) for each in own])
    away = x - means[labels]
    covariance = (away * weights[:, None]).T @ away / weights.sum()
    if before is None:
        floor = max(float(np.trace(covariance)) / len(covariance), 1e-12)
        covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * floor * np.eye(len(covariance))
    else:
        covariance = (_BEFORE * before + recordings * covariance) / (_BEFORE + recordings)
    values, vectors = np.linalg.eigh(covariance + unit**2 / 12 * np.eye(len(covariance)))
    whitening = vectors / np.sqrt(values)
    return Familiar(whitening.astype(np.float32), (means @ whitening).astype(np.float32), 1.0)
