# SPDX-License-Identifier: Apache-2.0
"""Photos to learn from, what a backbone makes of them, and the package with the head that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.photos import Photos, in_class_folders, open_data
from rowvit.targets.features import features
from rowvit.targets.target import Result
from rowvit.teach import familiar
from rowvit.teach.backbone import Backbone, Kept
from rowvit.teach.fit import Fitted, fit
from rowvit.teach.views import all_views, chunks

FEWEST = 3  #: photos of a class
_AT_ONCE = 32  # photos whose views are held as pixels
#: runs images uint8 [H, W, 3] on a target
Run = Callable[[Sequence[NDArray[np.uint8]]], Sequence[Result]]


def read(path: Path, before: Kept | None = None) -> Photos:
    """Photos in a folder for each class, or the training photos of what `rowvit.photos` reads.

    With those that were kept ``before`` one class is enough.

    Raises
    ------
    RowvitError
        There is no such folder, or there are too few classes or photos of one; as `open_data`.
    """
    path = Path(path)
    if path.is_dir() and not (path / "train").is_dir() and not any(path.glob("**/cifar-10-batches-py")):
        photos = in_class_folders(path, path.name)
    else:
        photos = open_data(path, "train")
    require(photos, before)
    return photos


def require(photos: Photos, before: Kept | None = None) -> None:
    """`RowvitError` if there are too few classes, or photos of one, with those ``before``."""
    if len(photos.classes) < (1 if before else 2):
        what = f"one class ({photos.classes[0]})" if photos.classes else "no folders of classes"
        raise RowvitError(
            f"'{photos.name}' has {what}, and a classifier has two or more",
            "make a folder for each class",
        )
    counts = np.bincount(photos.labels, minlength=len(photos.classes))
    known = before.classes if before else ()
    few = [
        f"{name} ({count})"
        for name, count in zip(photos.classes, counts, strict=True)
        if count < (1 if name in known else FEWEST)
    ]
    if few:
        raise RowvitError(
            f"fewer than {FEWEST} photos of {', '.join(few)}", "add photos, or remove the folder"
        )


@dataclass(frozen=True)
class Seen:
    """What a backbone says of photos."""

    photos: Photos  #: those that could be read
    values: NDArray[np.float32]  #: [n, D] class tokens of their views, in the order of the photos
    #: int64 [n]: the photo of each view, of which the first is the photo as it is
    of: NDArray[np.int64]


def look(
    photos: Photos,
    backbone: Backbone,
    run: Run,
    count: int,
    flip: bool,
    refused: Callable[[int, RowvitError], None],
    progress: Callable[[int], None] = lambda done: None,
    before: Kept | None = None,
) -> Seen:
    """Class tokens of ``count`` views of every photo.

    Parameters
    ----------
    photos : Photos
    backbone : Backbone
    run : callable
        Of a target that has loaded the backbone's package.
    count, flip
        As of `rowvit.teach.views.views`.
    refused : callable
        Gets the number of a photo that cannot be read, and why.
    progress : callable
        Gets the number of photos done.
    before : Kept, optional
        As of `read`.

    Raises
    ------
    RowvitError
        Too few photos can be read; what ``run`` raises.
    """
    wrong: set[int] = set()

    def note(number: int, error: RowvitError) -> None:
        wrong.add(number)
        refused(number, error)

    meta, last = backbone.package.meta, backbone.package.arch["depth"] - 1
    found: list[NDArray[np.float32]] = []
    for part in chunks(all_views(photos.files, meta, count, flip, note), _AT_ONCE):
        answers = [result.tokens for result in run(list(np.concatenate(part)))]
        found.append(features(answers, meta, last).values[:, 0])
        progress(sum(map(len, found)) // count)
    kept = [number for number in range(len(photos)) if number not in wrong]
    left = Photos([photos.files[i] for i in kept], photos.labels[kept], photos.classes, photos.name)
    require(left, before)
    return Seen(left, np.concatenate(found), np.repeat(np.arange(len(kept)), count))


@dataclass(frozen=True)
class Examples:
    """What a head learns from."""

    seen: NDArray[np.float32]  #: [n, D]: what it sees of each view, in the order of the photos
    #: int64 [n]: the photo of each view, of which the first is the photo as it is
    of: NDArray[np.int64]
    labels: NDArray[np.int64]  #: [photos]
    classes: tuple[str, ...]
    names: list[str]  #: of the photos

    @property
    def kept(self) -> Kept:
        """The photos as they are, to be kept in a package."""
        own = self.seen[np.flatnonzero(np.diff(self.of, prepend=-1))]
        return Kept(own.astype(np.int8), self.labels.astype(np.uint16), self.classes)


@dataclass(frozen=True)
class Taught:
    """A network that has learned, and how well."""

    package: ModelPackage
    kept: Kept  #: what it has learned from; `Kept.within` puts it into the package
    fitted: Fitted
    findings: Findings


@dataclass(frozen=True)
class Findings:
    """What cross-validation says of photos and classes; each photo by a head that had not seen it."""

    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    names: list[str]  #: of the photos
    probabilities: NDArray[np.float64]  #: [photos, classes]

    @property
    def guesses(self) -> NDArray[np.int64]:
        """The class of each photo, by the heads."""
        found: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return found

    @property
    def right(self) -> NDArray[np.int64]:
        """Photos of every class that were recognised."""
        return np.bincount(self.labels[self.guesses == self.labels], minlength=len(self.classes))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Photos of every class."""
        return np.bincount(self.labels, minlength=len(self.classes))

    @property
    def confused(self) -> tuple[int, int, int]:
        """The two classes of which most photos were taken for the other, and how many."""
        table = np.zeros((len(self.classes),) * 2, np.int64)
        np.add.at(table, (self.labels, self.guesses), 1)
        both = np.triu(table + table.T, 1)
        first, second = np.unravel_index(both.argmax(), both.shape)
        return int(first), int(second), int(both.max())

    @property
    def weakest(self) -> int:
        """The class of which the smallest share was recognised."""
        return int(np.argmin(self.right / self.counts))

    def mistaken(self, first: int, second: int) -> Iterator[int]:
        """The photos of either of two classes that were taken for the other, the surest first."""
        sure = self.probabilities.max(axis=1)
        for number in np.argsort(-sure, kind="stable"):
            if {self.labels[number], self.guesses[number]} == {first, second}:
                yield int(number)

    def doubtful(self, sure: float = 0.9, own: float = 0.05) -> Iterator[int]:
        """Photos that may lie in the wrong folder: heads that had not seen them were ``sure`` of another
        class, and gave their own at most that share, ``own``.
        """
        best = self.probabilities.max(axis=1)
        mine = self.probabilities[np.arange(len(self.labels)), self.labels]
        for number in np.argsort(-best, kind="stable"):
            if best[number] >= sure and mine[number] <= own:
                yield int(number)


def teach(seen: Seen, backbone: Backbone, name: str, solver: str = "", before: Kept | None = None) -> Taught:
    """The backbone with a head for the classes of photos.

    Parameters
    ----------
    seen : Seen
    backbone : Backbone
        That saw them.
    name : str
        Of the network.
    solver : str
        As of `rowvit.teach.fit.fit`.
    before : Kept, optional
        Photos that the same backbone saw before; a class of the same name has these and the new ones.
    """
    backbone = backbone.fitted(seen.values)
    x, of, new = backbone.seen(seen.values), seen.of, seen.photos
    classes = tuple(dict.fromkeys([*(before.classes if before else ()), *new.classes]))
    labels = np.array([classes.index(name) for name in new.classes])[new.labels]
    names = list(map(str, new.files)) if all(isinstance(f, Path) for f in new.files) else []
    names = names or [f"photo {number}" for number in range(len(labels))]
    if before:
        old = len(before.labels)
        x, of = np.concatenate([before.seen.astype(x.dtype), x]), np.concatenate([np.arange(old), old + of])
        labels = np.concatenate([before.labels.astype(labels.dtype), labels])
        names = [f"photo {number} of before" for number in range(old)] + names
    return learn(Examples(x, of, labels, classes, names), backbone, name, new.name, solver)


def learn(examples: Examples, backbone: Backbone, name: str, source: str, solver: str = "") -> Taught:
    """The backbone with a head that examples teach.

    Parameters
    ----------
    examples : Examples
        Of two classes or more, with at least two photos each.
    backbone : Backbone
        Whose units they are in.
    name : str
        Of the network.
    source : str
        What the photos are called in the network's history.
    solver : str
        As of `rowvit.teach.fit.fit`.
    """
    x, labels, classes = examples.seen, examples.labels, examples.classes
    fitted = fit(x, labels[examples.of], examples.of, solver)
    peak = float(np.abs(fitted.head.logits(x)).max())
    history = f"a head for {len(classes)} classes from {len(labels)} photos of {source}"
    known = familiar.learn(backbone.unit * x, labels[examples.of], examples.of)
    package = backbone.with_head(fitted.head.weight, fitted.head.bias, classes, peak, name, history, known)
    findings = Findings(labels, classes, examples.names, fitted.probabilities)
    return Taught(package, examples.kept, fitted, findings)


def acquaint(seen: Seen, backbone: Backbone) -> ModelPackage:
    """The network with the head that it has, which says when a photo looks like none of its classes.

    Parameters
    ----------
    seen : Seen
        Of photos of every class, whose labels are the network's.
    backbone : Backbone
        That saw them.
    """
    labels, x = seen.photos.labels[seen.of], backbone.unit * backbone.seen(seen.values)
    history = f"what its classes look like, from {len(seen.photos)} photos of {seen.photos.name}"
    return backbone.with_own_head(history, familiar.learn(x, labels, seen.of))
