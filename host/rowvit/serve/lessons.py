# SPDX-License-Identifier: Apache-2.0
"""Lessons: classes that people teach a served network, each person's own, in memory and for a while.

Of a photo a lesson has only what the head of the network sees, a byte per channel, and 8 x 8 pixels, by which
it knows copies. Whoever knows a lesson's
identifier, which cannot be guessed, can use it; nothing lists them.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.hardware.config import HardwareConfig
from rowvit.measure.accuracy.evaluation import wilson
from rowvit.serve.networks import Network
from rowvit.serve.refusal import Refusal
from rowvit.targets.features import features
from rowvit.targets.target import Result
from rowvit.teach.backbone import Backbone, Kept
from rowvit.teach.lesson import FEWEST, NAME, UNSEEN, Examples, Taught, called_so, learn, thumbnail

PREFIX = "lesson-"
_EMPTY = 10.0  # seconds after which a lesson without photos gives way
_LISTED = 24  # photos of a finding, at most
_OVERHEAD = 768  # bytes that a photo takes besides what is seen of it, with its thumbnail


@dataclass(frozen=True)
class LessonLimits:
    """What lessons may take."""

    lessons: int = 16  #: at once
    idle: float = 1800.0  #: seconds after which one that nobody asks for is gone
    classes: int = 32  #: of a lesson
    photos: int = 1000  #: of a lesson
    size: int = 16 << 20  #: bytes of what all lessons have seen
    compiled: int = (
        4  #: taught networks that stay compiled; others are compiled again when they are asked for
    )


@dataclass(frozen=True)
class Photo:
    """One photo."""

    label: str  #: its class
    seen: NDArray[np.int8]  #: [D]
    recording: str | int  #: which the photos have in common that were taken together
    look: NDArray[np.uint8] | None = None  #: of `rowvit.teach.lesson.thumbnail`; None of one from a package


@dataclass
class Learned:
    """What came of learning."""

    package: ModelPackage
    kept: Kept  #: what it learned from
    numbers: list[int]  #: of these photos in the lesson
    found: dict[str, Any]  #: for JSON: `Learned` in the OpenAPI document
    network: Network | None  #: of the package, for the engine; None while it is put away
    coming: asyncio.Future[Network] | None = None  #: it, while it is compiled again


@dataclass(eq=False)
class Lesson:
    """One lesson."""

    identifier: str
    network: Network  #: that is taught
    backbone: Backbone  #: its own, in this lesson's unit
    limits: LessonLimits
    used: float  #: when somebody last asked for it
    owner: str = ""  #: the address that began it
    photos: dict[int, Photo] = field(default_factory=dict)  #: by numbers that are not used again
    learned: Learned | None = None
    learning: int = 0  #: times that it is learning now, or waits to: at most one of each
    waiting: asyncio.Future[Learned] | None = None  #: what others may join, as it has not begun
    awaited: int = 0  #: requests that wait for it to have learned
    _last: int = -1
    _coming: list[str] = field(default_factory=list)  # classes of photos on their way

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of their first photos."""
        return tuple(dict.fromkeys(photo.label for photo in self.photos.values()))

    @property
    def size(self) -> int:
        """Bytes of what it has seen."""
        return len(self.photos) * self.photo + (self.learned.kept.seen.nbytes if self.learned else 0)

    @property
    def photo(self) -> int:
        """Bytes of what it sees of a photo."""
        return self.backbone.package.arch["dim"] + _OVERHEAD

    @contextmanager
    def place(self, label: str) -> Iterator[None]:
        """Room for a photo of a class, from before it is decoded; `Refusal` 413 if there is none."""
        if len(self.photos) + len(self._coming) >= self.limits.photos:
            raise Refusal(
                413, f"the lesson has {self.limits.photos:,} photos, as many as it may", "remove some"
            )
        classes = {*self.classes, *self._coming}
        if label not in classes and len(classes) >= self.limits.classes:
            raise Refusal(
                413, f"the lesson has {self.limits.classes} classes, as many as it may", "remove one"
            )
        self._coming.append(label)
        try:
            yield
        finally:
            self._coming.remove(label)

    def add(self, label: str, result: Result, pixels: NDArray[np.uint8], recording: str = "") -> int:
        """Keep what the head sees of a photo that the network has run, and a thumbnail; the photo's number.

        ``recording`` is any text that it has in common with photos that were taken together with it.
        """
        meta, last = self.network.runs.meta, self.backbone.package.arch["depth"] - 1
        token = features([result.tokens], meta, last).values[:, 0]
        if not self.photos:  # without a head, the first photo says the unit
            self.backbone = self.backbone.fitted(token)
        (seen,) = self.backbone.seen(token).astype(np.int8)
        self._last += 1
        self.photos[self._last] = Photo(label, seen, recording or self._last, thumbnail(pixels))
        return self._last

    def take(self, kept: Kept) -> None:
        """The photos that a package has kept; `Refusal` 413 if they are too many."""
        for what, own, most in (
            ("photos", len(kept.labels), self.limits.photos),
            ("classes", len(kept.classes), self.limits.classes),
        ):
            if own > most:
                raise Refusal(
                    413, f"the package has {own:,} {what}, and a lesson takes {most:,}", "use rowvit teach"
                )
        labels = [class_name(label[:NAME]) for label in kept.classes]
        together = np.arange(len(kept.labels)) if kept.recordings is None else kept.recordings
        for label, seen, recording in zip(kept.labels, kept.seen, together, strict=True):
            self._last += 1
            self.photos[self._last] = Photo(labels[label], seen.copy(), -1 - int(recording))

    def remove(self, number: int) -> None:
        """Forget a photo; `Refusal` 404 if there is none of this number."""
        if self.photos.pop(number, None) is None:
            raise Refusal(404, f"the lesson has no photo {number}", "ask for the lesson to see its classes")

    def of(self, label: str) -> list[int]:
        """The photos of a class; `Refusal` 404 if there are none."""
        found = [number for number, photo in self.photos.items() if photo.label == label]
        if not found:
            raise Refusal(404, f"the lesson has no photos of '{label}'", "ask for it to see its classes")
        return found

    def rename(self, label: str, name: str) -> None:
        """The photos of a class get another's name; `Refusal` 404 if there are none."""
        for number in self.of(label):
            self.photos[number] = replace(self.photos[number], label=name)

    def require_enough(self) -> None:
        """`Refusal` 409 if the photos that it has now are too few to learn from."""
        classes = self.classes
        counts = Counter(photo.label for photo in self.photos.values())
        if len(classes) < 2:
            there = f"one class ({classes[0]})" if classes else "no photos"
            raise Refusal(
                409, f"the lesson has {there}, and it takes two classes or more", "add photos of another"
            )
        if few := [f"{label} ({counts[label]})" for label in classes if counts[label] < FEWEST]:
            raise Refusal(
                409, f"fewer than {FEWEST} photos of {', '.join(few)}", "add some, or remove the class"
            )

    def examples(self) -> Examples:
        """What it learns from if it does so now; `Refusal` 409 if that is too little."""
        self.require_enough()
        classes, photos = self.classes, self.photos.values()
        together: dict[str | int, int] = {}
        return Examples(
            np.stack([photo.seen for photo in photos]).astype(np.float32),
            np.arange(len(photos)),
            np.array([classes.index(photo.label) for photo in photos]),
            classes,
            [str(number) for number in self.photos],
            np.array([together.setdefault(photo.recording, len(together)) for photo in photos]),
            np.stack([UNSEEN if photo.look is None else photo.look for photo in photos]).astype(np.float32),
        )

    def package(self, name: str, keep: bool) -> ModelPackage:
        """The taught network, with or without what it has seen; `Refusal` 409 if it has not learned yet."""
        if self.learned is None:
            raise Refusal(409, "the lesson has not learned yet", "let it learn first")
        found = self.learned.package
        if keep:  # without those that have been removed since
            there = [at for at, number in enumerate(self.learned.numbers) if number in self.photos]
            found = self.learned.kept.only(there).within(found) if there else found
        return ModelPackage(found.meta | {"name": name}, found.tensors)

    def document(self, now: float) -> dict[str, Any]:
        """The lesson, for JSON; its schema is `Lesson` in the OpenAPI document."""
        counts = Counter(photo.label for photo in self.photos.values())
        return {
            "lesson": self.identifier,
            "model": self.network.name,
            "classes": [{"label": label, "photos": counts[label]} for label in self.classes],
            "photos": len(self.photos),
            "expires": max(0.0, self.limits.idle - (now - self.used)),
            "learning": self.learning > 0,
            "learned": None if self.learned is None else self.learned.found,
        }


def learned(
    network: Network, backbone: Backbone, examples: Examples, config: HardwareConfig | None
) -> Learned:
    """Learn.

    Parameters
    ----------
    network : Network
        That is taught.
    backbone : Backbone
        Of the lesson.
    examples : Examples
        Of the lesson.
    config : HardwareConfig or None
        What the taught network is compiled for; None: golden runs it.

    Raises
    ------
    RowvitError
        The taught network does not fit the configuration.
    """
    begin = time.monotonic()
    taught = learn(examples, backbone, f"{network.name}-taught", "a lesson")
    own = network.taught(taught.package, config)
    numbers = [*map(int, examples.names)]
    found = _found(taught, numbers) | {"seconds": time.monotonic() - begin}
    return Learned(taught.package, taught.kept, numbers, found, own)


def _found(taught: Taught, numbers: list[int]) -> dict[str, Any]:
    """What cross-validation says, of photos by their numbers."""
    found = taught.findings
    total, right, judged = len(found.labels), int(found.right.sum()), found.recognised
    first, second, mistaken = found.confused
    classes = found.classes

    def told(photos: Iterable[int]) -> list[dict[str, Any]]:
        return [
            {
                "photo": numbers[i],
                "label": classes[found.labels[i]],
                "guess": classes[found.guesses[i]],
                "probability": float(found.probabilities[i].max()),
            }
            for i in [*photos][:_LISTED]
        ]

    return {
        "photos": total,
        "recordings": len(set(found.recordings.tolist())),
        "right": right,
        "share": None if judged is None else judged[0],
        "interval": None if judged is None else list(wilson(judged[0] * judged[1], judged[1])),
        "alone": [classes[label] for label in found.alone],
        "classes": [
            {"label": label, "photos": int(all_), "right": int(own)}
            for label, all_, own in zip(classes, found.counts, found.right, strict=True)
        ],
        "confused": {
            "labels": [classes[first], classes[second]],
            "count": mistaken,
            "photos": told(found.mistaken(first, second)),
        }
        if mistaken
        else None,
        "weakest": classes[found.weakest] if right < total else None,
        "doubtful": told(found.doubtful()),
        "solver": taught.fitted.solver,
    }


def class_name(text: str) -> str:
    """A class's name as it is used; `Refusal` 400 if it is none."""
    if (name := called_so(text)) is None:
        raise Refusal(
            400, "the class has no name that can be used", f"give it 1 to {NAME} printable characters"
        )
    return name


def teachable(network: Network) -> Backbone:
    """What lessons teach; `Refusal` 409 if the network cannot be taught."""
    if network.backbone is None:
        raise Refusal(409, f"{network.name} cannot be taught: {network.unteachable}")
    return network.backbone


def kept(network: Network, data: bytes) -> tuple[Backbone, Kept]:
    """The file of a package that was taught from a network: the backbone as it was then, and what was kept.

    `Refusal` 409 if the network cannot be taught, 400 if the package is damaged, was taught from another one,
    or has kept nothing.
    """
    backbone = teachable(network)
    try:
        package = ModelPackage.decode(data)
        found = Kept.of(package)
        return backbone.of_taught(package), found
    except RowvitError as error:
        raise Refusal(400, error.message, error.advice) from error


class Lessons:
    """All lessons of a server; only the event loop's thread uses them.

    Parameters
    ----------
    limits : LessonLimits
    clock : callable
        Gives seconds.
    """

    def __init__(self, limits: LessonLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.clock = limits, clock
        self._lessons: dict[str, Lesson] = {}

    def open(self, network: Network, before: tuple[Backbone, Kept] | None = None, owner: str = "") -> Lesson:
        """A new lesson, which goes on from what was ``before``, from `kept`.

        Where there is no place for it, one without photos gives way, or one of an address that has begun more
        than a quarter of all.

        Raises
        ------
        Refusal
            409 if the network cannot be taught, 413 if there is too much to go on from, 503 if there is no
            room.
        """
        backbone = teachable(network)
        now = self.clock()
        self.sweep()
        less = self._giving_way(owner) if len(self._lessons) >= self.limits.lessons else None
        lesson = Lesson(PREFIX + secrets.token_urlsafe(16), network, backbone, self.limits, now, owner)
        if before is not None:
            lesson.backbone, photos = before
            lesson.take(photos)
        self.room(lesson.size)
        if less is not None:
            del self._lessons[less.identifier]
        self._lessons[lesson.identifier] = lesson
        return lesson

    def _giving_way(self, owner: str) -> Lesson:
        """The lesson whose place a new one of an address takes; `Refusal` 503 if there is none."""
        now, lessons = self.clock(), sorted(self._lessons.values(), key=lambda lesson: lesson.used)
        for lesson in lessons:
            if not lesson.photos and now - lesson.used > _EMPTY:
                return lesson
        counts = Counter(lesson.owner for lesson in lessons)
        most, count = counts.most_common(1)[0]
        if count > self.limits.lessons // 4 and count > counts[owner] + 1:
            return next(lesson for lesson in lessons if lesson.owner == most)
        after = max(1, round(lessons[0].used + self.limits.idle - now))
        going = "a lesson goes" if len(lessons) == 1 else f"{len(lessons)} lessons go"
        raise Refusal(503, f"{going} on here already", "try again later", after)

    def find(self, identifier: str) -> Lesson:
        """A lesson, which is then no longer idle; `Refusal` 404 if there is none."""
        self.sweep()
        if identifier not in self._lessons:
            minutes = f"{self.limits.idle / 60:g}"
            raise Refusal(
                404,
                f"there is no such lesson, or it was idle for {minutes} minutes and is gone",
                "begin another",
            )
        lesson = self._lessons[identifier]
        lesson.used = self.clock()
        return lesson

    def close(self, identifier: str) -> None:
        """Forget a lesson."""
        self.find(identifier)
        del self._lessons[identifier]

    def room(self, more: int) -> None:
        """`Refusal` 503 if the lessons have no room for so many bytes more."""
        if sum(lesson.size for lesson in self._lessons.values()) + more > self.limits.size:
            raise Refusal(
                503, f"the lessons here take all of their {self.limits.size >> 20} MB", "try again later", 60
            )

    def sweep(self) -> None:
        """Forget lessons that nobody has asked for, and put networks away that others were used after."""
        now = self.clock()
        self._lessons = {
            identifier: lesson
            for identifier, lesson in self._lessons.items()
            if now - lesson.used < self.limits.idle
        }
        compiled = [lesson for lesson in self._lessons.values() if lesson.learned and lesson.learned.network]
        for lesson in sorted(compiled, key=lambda lesson: -lesson.used)[self.limits.compiled :]:
            assert lesson.learned is not None
            lesson.learned.network = None
