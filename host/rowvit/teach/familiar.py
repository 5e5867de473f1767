# SPDX-License-Identifier: Apache-2.0
"""What the photos of some classes look like, by which others are known (`rowvit.formats.familiar`).

The limit is a conformal one: the distance that all but `ALARMS` of photos keep to which took no part, every
class counting the same. Too few recordings for that have the largest such distance, or that of a normal
distribution, whichever is larger; of n of them, a new photo then exceeds it once in n + 1.

Kinds of pictures that show nothing (`rowvit.teach.odd`) are known, too, unless photos of the classes that
took no part are nearer to them: who teaches plain colours wants them told apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rowvit.teach.fit import folds, sureness

ALARMS = 0.05  #: share of the photos of its classes that a network takes for something else, at least
#: of the covariance that becomes equal in all directions, where nothing is known before
_SHRINKAGE = 0.1
_BEFORE = 60  # recordings that what is known before counts as much as
_TAKEN = 0.005  # share of the photos of its classes that an odd kind may be nearer to


@dataclass(frozen=True)
class Familiar:
    """What `rowvit.formats.familiar.distance` takes."""

    whitening: NDArray[np.float32]  #: [D, D]
    means: NDArray[np.float32]  #: [classes, D], whitened
    limit: float
    odd: NDArray[np.float32]  #: [kinds, D] of pictures that show nothing, whitened
    alarms: float = ALARMS  #: share of photos of the classes that exceed it

    def distances(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        """[n] of class tokens [n, D] from the nearest class, not in units of the limit."""
        found: NDArray[np.floating] = self._from(self.means, x).min(axis=1)
        return found

    def taken(self, x: NDArray[np.floating]) -> NDArray[np.bool_]:
        """[n, kinds] of class tokens [n, D], whether an odd kind is nearer than every class."""
        return self._from(self.odd, x) < self.distances(x)[:, None]

    def _from(self, points: NDArray[np.float32], x: NDArray[np.floating]) -> NDArray[np.floating]:
        white = x @ self.whitening
        squares = np.square(white).sum(axis=1)[:, None] - 2 * white @ points.T
        found: NDArray[np.floating] = np.sqrt(np.maximum(squares + np.square(points).sum(axis=1), 0))
        return found


def learn(
    x: NDArray[np.floating],
    labels: NDArray[np.integer],
    photos: NDArray[np.integer],
    recordings: NDArray[np.integer] | None = None,
    before: NDArray[np.float64] | None = None,
    unit: float = 0.0,
    odd: NDArray[np.floating] | None = None,
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
    odd : float array [kinds, D], optional
        Mean class tokens of kinds of pictures that show nothing.
    """
    first = np.flatnonzero(np.diff(photos, prepend=-1))
    recordings = np.arange(len(first)) if recordings is None else recordings
    weights = 1.0 / np.bincount(photos)[photos]

    kinds = np.zeros((0, x.shape[1])) if odd is None else odd

    def shape(inside: NDArray[np.bool_]) -> Familiar:
        own = len(np.unique(recordings[photos[inside]]))
        return _shape(x[inside], labels[inside], weights[inside], own, before, unit, kinds)

    fold = folds(labels[first], recordings)
    held, taken = np.empty(len(first)), np.zeros((len(first), len(kinds)), bool)
    for number in range(fold.max() + 1):
        known, tried = shape(fold[photos] != number), fold == number
        held[tried], taken[tried] = known.distances(x[first[tried]]), known.taken(x[first[tried]])
    found = shape(np.ones(len(x), bool))
    share, count = sureness(labels[first], recordings)
    order = np.argsort(held)
    keep = np.cumsum(share[order]) * count / (count + 1) - (1 - ALARMS) > -1e-9  # and one photo more
    if keep[-1]:
        limit = float(held[order][keep.argmax()])
    else:
        dim = x.shape[1]
        normal = math.sqrt(dim + 1.645 * math.sqrt(2 * dim))  # that 95% keep to, nearly
        limit = max(float(held.max()), normal)
    left = found.odd[share @ taken <= _TAKEN]
    return replace(found, limit=max(limit, 1e-6), odd=left, alarms=max(ALARMS, 1 / (count + 1)))


def _shape(
    x: NDArray[np.floating],
    labels: NDArray[np.integer],
    weights: NDArray[np.float64],
    recordings: int,
    before: NDArray[np.float64] | None,
    unit: float,
    odd: NDArray[np.floating],
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
    white = [(points @ whitening).astype(np.float32) for points in (means, odd)]
    return Familiar(whitening.astype(np.float32), white[0], 1.0, white[1])
