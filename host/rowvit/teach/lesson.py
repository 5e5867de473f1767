# SPDX-License-Identifier: Apache-2.0
"""Photos to learn from, what a backbone makes of them, and the package with the head that they make.

Photos that were taken together, as frames of a camera are, look alike: a head that has seen some of them
knows the others. They are one recording, which is judged as a whole by heads that have seen nothing of it.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rowvit.errors import RowvitError
from rowvit.formats.description import image_shape
from rowvit.formats.package import ModelPackage
from rowvit.photos import (
    CIFAR,
    TESTS,
    TRAINING,
    File,
    Photos,
    folder_name,
    in_class_folders,
    inside,
    one_way,
    open_data,
    readable,
)
from rowvit.targets.features import features
from rowvit.targets.target import Result
from rowvit.teach import familiar, odd
from rowvit.teach.backbone import Backbone, Kept
from rowvit.teach.fit import Fitted, fit, lone, sureness
from rowvit.teach.views import all_views, chunks

FEWEST = 3  #: photos of a class
NAME = 255  #: characters of a class's name, at most, as of a folder's
#: categories of characters, and classes of their direction, that are in no name
_CONTROLS, _TURNS = ("Cc", "Cs", "Zl", "Zp"), ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
_AT_ONCE = 128  # views that are held as pixels
_SIDE = 8  # pixels of a thumbnail
#: copies are nearer than this to each other, of the distance between two photos of a class, and their
#: thumbnails correlate by more than that
_NEAR, _ALIKE = 0.3, 0.985
UNSEEN = np.full(3 * _SIDE**2, np.nan, np.float32)  #: in place of the thumbnail of a photo that is not there
#: runs images uint8 [H, W, 3] on a target
Run = Callable[[Sequence[NDArray[np.uint8]]], Sequence[Result]]


def read(path: Path, before: Kept | None = None, named: bool = True) -> Photos:
    """Photos in a folder for each class, or the training photos of what `rowvit.photos` reads.

    Where ``named``, they become names of classes. With those that were kept ``before`` one class is enough.

    Raises
    ------
    RowvitError
        There is no such folder, or there are too few classes or photos of one; as `open_data`.
    """
    path = Path(path)
    cifar = folder_name(path) == CIFAR or any(path.glob(f"**/{CIFAR}"))
    if path.is_dir() and not _is_split(path) and not cifar:
        photos = in_class_folders(path, folder_name(path))
    else:
        photos = open_data(path, "train")
    for name in photos.classes:
        if named and not nameable(name):
            raise RowvitError(f"'{photos.name}' has a class {name!r}", "use printable characters in its name")
    require(photos, before)
    return photos


def called_so(text: str) -> str | None:
    """A name of a class or network as it is used; None if it is none."""
    name = one_way(" ".join(text.split()))
    return name if nameable(name) else None


def nameable(text: str) -> bool:
    """Whether a class or a network can have a name as it stands, with nothing that controls a terminal."""
    return 0 < len(text.strip()) <= NAME and not any(
        unicodedata.category(one) in _CONTROLS or unicodedata.bidirectional(one) in _TURNS for one in text
    )


def _is_split(path: Path) -> bool:
    """Whether the folders in one are of training and of test photos, and not of classes."""
    folders = {name.lower() for name in inside(path, recursive=False)[1]}
    return "train" in folders and folders <= {*TRAINING, *TESTS}


def recordings(photos: Photos) -> NDArray[np.int64]:
    """The recording of each photo: those of one folder below a class's are one, others are their own."""
    keys: dict[object, int] = {}

    def key(number: int, file: File) -> object:
        if photos.root is None or not isinstance(file, Path):
            return number
        return number if file.parent.parent == photos.root else file.parent

    found = [keys.setdefault(key(number, file), len(keys)) for number, file in enumerate(photos.files)]
    return np.array(found, np.int64)


def require(photos: Photos, before: Kept | None = None, advice: str = "") -> None:
    """`RowvitError` if there are too few classes, or photos of one, with those ``before``."""
    if len(photos.classes) < (1 if before else 2):
        what = f"one class ({photos.classes[0]})" if photos.classes else "no folders of classes"
        raise RowvitError(
            f"'{photos.name}' has {what}, and a classifier has two or more",
            "make a folder for each class",
        )
    counts = Counter(before.classes[label] for label in before.labels) if before else Counter[str]()
    counts.update(photos.classes[label] for label in photos.labels)
    classes = dict.fromkeys([*photos.classes, *(before.classes if before else ())])
    few = [name for name in classes if counts[name] < FEWEST]
    if few:
        told = ", ".join(f"{name} ({counts[name]})" for name in few)
        advice = advice or "add photos" + ", or remove the folder" * any(
            name in photos.classes for name in few
        )
        raise RowvitError(f"fewer than {FEWEST} photos of {told}", advice)


@dataclass(frozen=True)
class Seen:
    """What a backbone says of photos."""

    photos: Photos  #: those that could be read
    values: NDArray[np.float32]  #: [n, D] class tokens of their views, in the order of the photos
    #: int64 [n]: the photo of each view, of which the first is the photo as it is
    of: NDArray[np.int64]
    looks: NDArray[np.floating]  #: [photos, 192] of `thumbnail`


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photo [H, W, 3] as small as is enough to know a copy of it by: uint8 [192]."""
    return np.asarray(Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BOX)).ravel()


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
    looks: list[NDArray[np.uint8]] = []
    for part in chunks(all_views(photos.files, meta, count, flip, note), -(-_AT_ONCE // count)):
        answers = [result.tokens for result in run(list(np.concatenate(part)))]
        found.append(features(answers, meta, last).values[:, 0])
        looks += [thumbnail(one[0]) for one in part]
        progress(sum(map(len, found)) // count)
    kept = [number for number in range(len(photos)) if number not in wrong]
    left = photos.only(kept)
    require(left, before)
    if not kept:
        raise RowvitError(f"'{photos.name}' has no photo that can be read", "see what is said of each")
    of = np.repeat(np.arange(len(kept)), count)
    return Seen(left, np.concatenate(found), of, np.stack(looks).astype(np.float32))


def look_at_nothing(backbone: Backbone, run: Run) -> NDArray[np.float64]:
    """Mean class tokens [kinds, D] of every kind of pictures that show nothing (`rowvit.teach.odd`)."""
    meta, last = backbone.package.meta, backbone.package.arch["depth"] - 1
    answers = [result.tokens for result in run(odd.pictures(*image_shape(meta["architecture"])))]
    tokens = backbone.seen(features(answers, meta, last).values[:, 0]).astype(np.float64)
    found: NDArray[np.float64] = backbone.unit * tokens.reshape(-1, odd.EACH, tokens.shape[1]).mean(axis=1)
    return found


def _plain(seen: NDArray[np.float32], of: NDArray[np.int64]) -> NDArray[np.float32]:
    """[photos, D] of the photos as they are, of their views [n, D]."""
    return seen[np.flatnonzero(np.diff(of, prepend=-1))]


@dataclass(frozen=True)
class Examples:
    """What a head learns from."""

    seen: NDArray[np.float32]  #: [n, D]: what it sees of each view, in the order of the photos
    #: int64 [n]: the photo of each view, of which the first is the photo as it is
    of: NDArray[np.int64]
    labels: NDArray[np.int64]  #: [photos]
    classes: tuple[str, ...]
    names: list[str]  #: of the photos
    recordings: NDArray[np.int64]  #: [photos]
    looks: NDArray[np.floating]  #: [photos, 192] of `thumbnail`, or `UNSEEN`, of which copies look the same

    @property
    def plain(self) -> NDArray[np.float32]:
        """[photos, D] of the photos as they are."""
        return _plain(self.seen, self.of)

    @property
    def kept(self) -> Kept:
        """The photos as they are, to be kept in a package."""
        _, own = np.unique(self.recordings, return_inverse=True)
        together = own.astype(np.uint16) if own.max() + 1 < len(own) else None
        return Kept(self.plain.astype(np.int8), self.labels.astype(np.uint16), self.classes, together)


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
    recordings: NDArray[np.int64]  #: [photos]
    twins: list[tuple[int, int]]  #: photos of two classes that are the same

    @property
    def recognised(self) -> tuple[float, float] | None:
        """The mean share of the classes that was recognised, and of how many independent photos it is.

        Without the classes that are `alone`; None if all of them are.
        """
        judged = ~lone(self.labels, self.recordings)[self.labels]
        if not judged.any():
            return None
        share, count = sureness(self.labels[judged], self.recordings[judged])
        return min(1.0, float(share @ (self.guesses == self.labels)[judged])), count

    @property
    def alone(self) -> list[int]:
        """Classes of one recording: heads that had seen others of it judged their photos, which says nothing
        of new ones.
        """
        return np.flatnonzero(lone(self.labels, self.recordings)).tolist()

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

    def doubtful(self, sure: float = 0.8) -> Iterator[int]:
        """Photos that may lie in the wrong folder: heads that had not seen them took them for another class,
        as ``sure`` and as sure as of half of those that they recognised.
        """
        best = self.probabilities.max(axis=1)
        right = self.guesses == self.labels
        least = max(sure, float(np.median(best[right]))) if right.any() else sure
        for number in np.argsort(-best, kind="stable"):
            if best[number] >= least and not right[number]:
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
    named = all(isinstance(file, Path) for file in new.files)
    names = [readable(str(file)) for file in new.files] if named else []
    names = names or [f"photo {number}" for number in range(len(labels))]
    together, looks = recordings(new), seen.looks
    if before:
        old = len(before.labels)
        x, of = np.concatenate([before.seen.astype(x.dtype), x]), np.concatenate([np.arange(old), old + of])
        then = np.arange(old) if before.recordings is None else before.recordings.astype(np.int64)
        together = np.concatenate([then, then.max() + 1 + together])
        labels = np.concatenate([before.labels.astype(labels.dtype), labels])
        names = [f"photo {number} of before" for number in range(old)] + names
        looks = np.concatenate([np.tile(UNSEEN, (old, 1)), looks])
    source = f"{new.name}, and {len(before.labels)} kept from before" if before else new.name
    return learn(Examples(x, of, labels, classes, names, together, looks), backbone, name, source, solver)


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

    Raises
    ------
    RowvitError
        The photos of the classes are all the same.
    """
    x, labels, classes = examples.seen, examples.labels, examples.classes
    pairs = np.stack([labels, examples.recordings])  # what shows two classes is a recording of each
    together = np.unique(pairs, axis=1, return_inverse=True)[1].ravel()
    together, twins = _merged(examples.plain, labels, together, examples.looks)
    fitted = fit(x, labels[examples.of], examples.of, solver, together)
    logits = fitted.head.logits(x)
    if np.ptp(logits - logits.mean(axis=1, keepdims=True), axis=0).max() < 1e-6:
        raise RowvitError(
            f"the photos of {', '.join(classes)} look all the same to '{backbone.package.meta['name']}'",
            "show it photos that differ between the classes",
        )
    history = f"a head for {len(classes)} classes from {len(labels)} photos of {source}"
    known = familiar.learn(
        backbone.unit * x,
        labels[examples.of],
        examples.of,
        together,
        backbone.before,
        backbone.unit,
        backbone.odd,
    )
    peak = float(np.abs(logits).max())
    package = backbone.with_head(fitted.head.weight, fitted.head.bias, classes, peak, name, history, known)
    findings = Findings(labels, classes, examples.names, fitted.probabilities, together, twins)
    return Taught(package, replace(examples, recordings=together).kept, fitted, findings)


def _merged(
    plain: NDArray[np.float32],
    labels: NDArray[np.int64],
    recordings: NDArray[np.int64],
    looks: NDArray[np.floating],
) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """The recordings where copies of a photo [n, D] are of one, and photos of two classes that are the same.

    A copy may have been scaled or saved again: it is far nearer than another photo of its class, and looks
    alike as a thumbnail (where a camera does not move, all photos may).
    """
    colours = looks.reshape(len(labels), -1, 3)
    alike = (colours - colours.mean(axis=1, keepdims=True)).reshape(len(labels), -1)
    alike /= np.maximum(np.linalg.norm(alike, axis=1, keepdims=True), 1e-6)
    classes, found = np.unique(labels), recordings.copy()
    middle = np.stack([plain[labels == label].mean(axis=0) for label in classes])
    away = np.square(plain - middle[np.searchsorted(classes, labels)]).sum()
    near = _NEAR**2 * 2 * float(away) / max(len(labels) - len(classes), 1)
    for label in classes:
        own = np.flatnonzero(labels == label)
        squares = np.square(plain[own]).sum(axis=1)
        first = np.ones(len(own), bool)  # of which there are copies, or none
        for begin in range(0, len(own), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            distances = squares[part, None] + squares - 2 * plain[own[part]] @ plain[own].T
            as_small = alike[own[part]] @ alike[own].T >= _ALIKE  # false of what is `UNSEEN`
            distances[~as_small & (distances > 0)] = np.inf
            for row, number in zip(distances, range(begin, len(own)), strict=False):
                row = np.where(first[:number], row[:number], np.inf)
                if row.min(initial=np.inf) <= near:
                    first[number] = False
                    found[found == found[own[number]]] = found[own[row.argmin()]]
    _, known, same = np.unique(plain, axis=0, return_index=True, return_inverse=True)
    twins: dict[tuple[int, int], tuple[int, int]] = {}  # the first of a class that looks as one of another
    for number, one in enumerate(known[same.ravel()]):
        if labels[one] != labels[number]:
            twins.setdefault((int(one), int(labels[number])), (int(one), number))
    return found, [*twins.values()]


def acquaint(seen: Seen, backbone: Backbone, nothing: NDArray[np.float64] | None = None) -> ModelPackage:
    """The network with the head that it has, which says when a photo looks like none of its classes.

    Parameters
    ----------
    seen : Seen
        Of photos of every class, whose labels are the network's.
    backbone : Backbone
        That saw them.
    nothing : float64 array [kinds, D], optional
        Of `look_at_nothing`.
    """
    photos, of, x = seen.photos, seen.of, backbone.seen(seen.values)
    together, _ = _merged(_plain(x, of), photos.labels, recordings(photos), seen.looks)
    history = f"what its classes look like, from {len(photos)} photos of {photos.name}"
    known = familiar.learn(
        backbone.unit * x, photos.labels[of], of, together, unit=backbone.unit, odd=nothing
    )
    return backbone.with_own_head(history, known)
