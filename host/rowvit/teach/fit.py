# SPDX-License-Identifier: Apache-2.0
"""A linear head for classes, its strength by cross-validation.

On a computer scikit-learn's logistic regression fits it; where that is not installed, as on a board, ridge
regression on one number per class, in NumPy. Photos that are views of each other are never on both sides of a
fold, nor are photos of one recording, where their class has two. Logits are scaled so that a softmax of them
says how often they are right (arXiv 1706.04599), with Platt's targets: few photos never make it certain.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FOLDS = 5
#: weights of the penalty that are tried, from free to strict
_RIDGES = tuple(10.0**power for power in np.arange(-3, 3.1, 0.5))
_LOGISTIC = tuple(10.0**power for power in np.arange(-3, 1.1, 1.0))
_SHARPNESS = np.geomspace(0.05, 50, 121)


@dataclass(frozen=True)
class Head:
    """Logits are ``x @ weight.T + bias`` of what the head sees."""

    weight: Array  #: [classes, D]
    bias: Array  #: [classes]

    def logits(self, x: NDArray[np.floating]) -> Array:
        """[n, classes] of [n, D]"""
        found: Array = x @ self.weight.T + self.bias
        return found


@dataclass(frozen=True)
class Fitted:
    """A head, and what cross-validation says of it."""

    head: Head
    solver: str  #: "logistic" or "ridge"
    strength: float  #: of the penalty
    #: [photos, classes] of every photo by the head that had not seen it, nor its recording (see `folds`)
    probabilities: Array


def fit(
    x: NDArray[np.floating],
    labels: NDArray[np.integer],
    photos: NDArray[np.integer],
    solver: str = "",
    recordings: NDArray[np.integer] | None = None,
) -> Fitted:
    """Fit a head.

    Parameters
    ----------
    x : float array [n, D]
        What it sees of each view.
    labels : int array [n]
        Classes from 0, each with at least two photos.
    photos : int array [n]
        Whose views they are, from 0 in ascending order; of each the first counts as the photo itself.
    solver : str
        "logistic" or "ridge"; by default the first, if scikit-learn is installed.
    recordings : int array [photos], optional
        Which photos belong together; by default each is one of its own.
    """
    solver = solver or ("logistic" if find_spec("sklearn") else "ridge")
    solve, strengths = {"logistic": (_logistic, _LOGISTIC), "ridge": (_ridge, _RIDGES)}[solver]
    first = np.flatnonzero(np.diff(photos, prepend=-1))
    own = labels[first]
    recordings = np.arange(len(own)) if recordings is None else recordings
    fold = folds(own, recordings)
    share = 1.0 / np.bincount(photos)[photos]  # every photo counts the same, however many views it has
    centre = np.average(x.astype(np.float64), axis=0, weights=share)
    middle = centre.mean()
    spread = max(float(np.sqrt(np.average(np.square(x - middle).mean(axis=1), weights=share))), 1e-9)
    z = (x - centre) / spread
    weights = share / np.bincount(own)[labels]  # and every class
    out = np.zeros((len(strengths), len(first), labels.max() + 1))
    for number in range(fold.max() + 1):
        inside = fold[photos] != number
        heads = solve(z[inside], labels[inside], weights[inside], strengths)
        for logits, head in zip(out, heads, strict=True):
            logits[fold == number] = head.logits(z[first[fold == number]])
    losses = [min(_loss(sharp * logits, own) for sharp in _SHARPNESS) for logits in out]
    best = int(np.argmin(losses))
    (head,) = solve(z, labels, weights, (strengths[best],))
    counts = np.bincount(_kinds(own, _spread(own, recordings)))
    sharp = min(_SHARPNESS, key=lambda value: _loss(value * out[best], own, (counts + 1) / (counts + 2)))
    weight = sharp * head.weight / spread
    found = Head(weight, sharp * head.bias - weight @ centre)
    return Fitted(found, solver, strengths[best], softmax(sharp * out[best]))


def one_thread() -> AbstractContextManager[object]:
    """One thread for NumPy's products of small matrices: several wait for each other for a third of the time.

    Without scikit-learn, which brings threadpoolctl, as many as there were.
    """
    if find_spec("threadpoolctl") is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1, "blas")
    return limits


def softmax(logits: Array) -> Array:
    """Probabilities [n, classes]."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Array = e / e.sum(axis=1, keepdims=True)
    return found


def lone(labels: NDArray[np.integer], recordings: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether a class [classes] has one recording only, which no head can judge that has seen another."""
    found: NDArray[np.bool_] = np.bincount(_kinds(labels, recordings), minlength=labels.max() + 1) < 2
    return found


def folds(labels: NDArray[np.integer], recordings: NDArray[np.integer]) -> NDArray[np.int64]:
    """The fold of every photo, of `FOLDS` or fewer: of each class as many in each as can be.

    Photos of one recording are in one fold; those of a `lone` one are spread.
    """
    recordings = _spread(labels, recordings)
    kinds = _kinds(labels, recordings)
    count = min(FOLDS, int(np.bincount(kinds).min()))
    found = np.empty(len(kinds), np.int64)
    rng, start = np.random.default_rng(0), 0
    for label in range(kinds.max() + 1):
        own = rng.permutation(np.flatnonzero(kinds == label))
        found[own] = (start + np.arange(len(own))) % count
        start += len(own)
    spread: NDArray[np.int64] = found[np.unique(recordings, return_inverse=True)[1]]
    return spread


def sureness(
    labels: NDArray[np.integer], recordings: NDArray[np.integer]
) -> tuple[NDArray[np.float64], float]:
    """What each photo [photos] counts for in a mean of the classes, and of how many that is as sure a mean.

    Every class counts the same, and so does every recording of a class. The number is of independent photos
    in classes of equal size; few of one class make it small, however many there are of another.
    """
    _, which, sizes = np.unique(
        np.stack([labels, recordings]), axis=1, return_inverse=True, return_counts=True
    )
    which = which.ravel()
    each = np.bincount(labels, 1.0 / sizes[which])  # recordings
    classes = np.unique(labels)
    share: NDArray[np.float64] = 1.0 / sizes[which] / each[labels] / len(classes)
    return share, len(classes) ** 2 / float((1.0 / each[classes]).sum())


def _spread(labels: NDArray[np.integer], recordings: NDArray[np.integer]) -> NDArray[np.integer]:
    """The recordings, but each photo of a `lone` one is one of its own."""
    alone = lone(labels, recordings)[labels]
    return np.where(alone, recordings.max() + 1 + np.arange(len(labels)), recordings)


def _kinds(labels: NDArray[np.integer], recordings: NDArray[np.integer]) -> NDArray[np.integer]:
    """The class of every recording."""
    return labels[np.unique(recordings, return_index=True)[1]]


def _loss(logits: Array, labels: NDArray[np.integer], targets: Array | None = None) -> float:
    """Mean cross entropy, every class counting the same; ``targets`` [classes] are what each should get."""
    found = np.log(np.maximum(softmax(logits), 1e-12))
    chosen = found[np.arange(len(labels)), labels]
    weights = 1.0 / np.bincount(labels)[labels]
    if targets is not None:
        others = (found.sum(axis=1) - chosen) / (found.shape[1] - 1)
        chosen = targets[labels] * chosen + (1 - targets[labels]) * others
    return float(-(weights * chosen).sum() / weights.sum())


def _ridge(z: Array, labels: NDArray[np.integer], weights: Array, strengths: tuple[float, ...]) -> list[Head]:
    """Weighted least squares on 1 for the class and 0 for the others, for all strengths at once."""
    weights = weights / weights.mean()
    wanted = np.eye(labels.max() + 1)[labels]
    mean, aim = (np.average(a, axis=0, weights=weights) for a in (z, wanted))
    root = np.sqrt(weights)[:, None]
    a, b = root * (z - mean), root * (wanted - aim)
    values, vectors = np.linalg.eigh(a.T @ a / len(z))
    right = vectors.T @ (a.T @ b) / len(z)
    heads = []
    for strength in strengths:
        weight = (vectors @ (right / (np.maximum(values, 0) + strength)[:, None])).T
        heads.append(Head(weight, aim - weight @ mean))
    return heads


def _logistic(
    z: Array, labels: NDArray[np.integer], weights: Array, strengths: tuple[float, ...]
) -> list[Head]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=200, warm_start=True)
    weights = weights / weights.mean()
    heads = []
    for strength in strengths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is near enough by then
            model.set_params(C=strength).fit(z, labels, weights)
        weight, bias = model.coef_, model.intercept_
        if len(weight) == 1:  # of two classes it has one number
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        heads.append(Head(weight.astype(np.float64), bias.astype(np.float64)))
    return heads
