# SPDX-License-Identifier: Apache-2.0
"""Files to pixels beside other work: by threads, in order, and within a part of the machine's memory."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.processors import GROUPS, control_groups, processors

#: gets the position of an image that cannot be used, from 0, and why
Refused = Callable[[int, RowvitError], object]
#: of pixels that wait for their turn, at most: a board may have 512 MB for everything
AHEAD_BYTES = 64_000_000
#: that pictures take together while they are decoded, however much memory there is
MOST_BYTES = 256_000_000
_ALWAYS = 16_000_000  # bytes that they may take however little is free
_SMALL = 8_000_000  # bytes that the allocator may keep for the next picture
#: parameters of glibc's mallopt, and from how many bytes on memory goes back as soon as it is free
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _LARGE = -3, -1, 4_000_000
_PATIENCE = 600.0  # seconds to wait for others' memory
Source = TypeVar("Source")


def memory() -> tuple[int, int]:
    """Bytes of memory that there are, and that are free: of the machine, or of this process's control group.

    Where the kernel does not say, as on a Mac, there are taken to be enough.
    """
    with suppress(OSError, KeyError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        total, free = (1024 * int(lines[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
        names = "max", "current", "inactive_file"
        old = "limit_in_bytes", "usage_in_bytes", "total_inactive_file"  # of version 1
        for group, (limit, usage, cache) in [
            *((group, names) for group in control_groups()),
            (GROUPS / "memory", old),
        ]:
            # without a limit it is "max", or a number beyond all memory
            with suppress(OSError, ValueError):
                most, taken = (int((group / f"memory.{name}").read_text()) for name in (limit, usage))
                kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                total, free = min(total, most), min(free, most - taken + int(kept.get(cache, 0)))
        return total, max(free, 0)
    return 16 * MOST_BYTES, 16 * MOST_BYTES


class TooLarge(RowvitError):
    """A picture would take more memory than pictures may."""


class Room:
    """Memory for pictures while they are decoded, which all threads of a process share.

    It is a quarter of what is free, but at most an eighth of all memory (64 MB of 512), and `MOST_BYTES`.
    """

    def __init__(self) -> None:
        self._processes = 1
        self.forget()

    def forget(self) -> None:
        """Nobody has any of it, as in a fork, which has none of the threads that had some."""
        self._taken, self._changed, self._entrance = 0, threading.Condition(), threading.Lock()

    def share(self, processes: int) -> None:
        """So many processes, this one among them, decode at the same time."""
        self._processes = processes

    def size(self) -> int:
        """Bytes, those included that are taken."""
        total, free = memory()
        return max(min(total // 8, (free + self._taken) // 4, MOST_BYTES) // self._processes, _ALWAYS)

    @contextmanager
    def taken(self, needed: int) -> Iterator[None]:
        """So many bytes, when others have given them back; those that ask first get them first.

        Raises
        ------
        TooLarge
            There are never so many. The sentence lacks the picture.
        RowvitError
            Others keep theirs for ten minutes.
        """
        if not self._entrance.acquire(timeout=_PATIENCE):
            raise _late()
        try:
            with self._changed:
                if needed > _ALWAYS and needed > (size := self.size()):
                    raise TooLarge(
                        f"takes {-(-needed // 10**6):,} MB to decode, and may take {size // 10**6:,} MB here",
                        "scale it down, or save it as JPEG",
                    )
                while self._taken + needed > _ALWAYS and self._taken and self._taken + needed > self.size():
                    if not self._changed.wait(_PATIENCE):
                        raise _late()
                self._taken += needed
        finally:
            self._entrance.release()
        try:
            with _given_back() if needed > _SMALL else nullcontext():
                yield
        finally:
            with self._changed:
                self._taken -= needed
                self._changed.notify_all()


def _late() -> RowvitError:
    return RowvitError(
        f"has waited {_PATIENCE:.0f} s for memory that other pictures take", "decode fewer at once"
    )


def give_back() -> None:
    """What was freed goes back to the system, and large blocks do from now on.

    glibc would keep up to 64 MB for each thread.
    """
    library = _keeping_little()
    with suppress(AttributeError):
        library.malloc_trim(0)


def _keeping_little() -> Any:
    """The C library, which from now on keeps no large blocks that were freed, if it is glibc."""
    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    with suppress(AttributeError):
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_TRIM_THRESHOLD, _LARGE)
    return library


@contextmanager
def _given_back() -> Iterator[None]:
    _keeping_little()
    try:
        yield
    finally:
        give_back()


#: of this process
ROOM = Room()

LOG = logging.getLogger("rowvit")
#: what this process has said, with the words that are put into it
SAID: dict[str, tuple[str, ...]] = {}
_HEARD: ContextVar[list[tuple[str, tuple[str, ...]]]] = ContextVar("heard")


def say_once(text: str, *words: str) -> None:
    """Log a sentence that holds for many files, for the first of them, unless somebody is `hearing` it.

    A worker process only notes it: whoever gets its results says what is in its `SAID`.
    """
    if (heard := _HEARD.get(None)) is not None:
        heard.append((text, words))
    elif text not in SAID:
        SAID[text] = words
        LOG.info(f"{text}; so of all such files", *words)


@contextmanager
def hearing() -> Iterator[list[str]]:
    """Of its context, what `say_once` would say of a file is then in the list, of every file."""
    said: list[str] = []
    with _heard() as heard:
        yield said
    said += [text % words for text, words in heard]


@contextmanager
def _heard() -> Iterator[list[tuple[str, tuple[str, ...]]]]:
    found: list[tuple[str, tuple[str, ...]]] = []
    token = _HEARD.set(found)
    try:
        yield found
    finally:
        _HEARD.reset(token)


class _Turns(Generic[Source]):
    """Threads decode an image when it is its turn, and earlier where its pixels fit in `AHEAD_BYTES`.

    On a small machine a quarter of the `Room` is less. Pixels are taken to be as large as the largest before;
    frames for the HLS front end are of any size.
    """

    def __init__(self, decode: Callable[[Source], NDArray[Any]]) -> None:
        self._decode, self._changed = decode, threading.Condition()
        self._turn = 0  # number of the image whose pixels are wanted
        self._said: dict[int, list[tuple[str, tuple[str, ...]]]] = {}
        self._sizes: dict[int, int] = {}  # bytes of pixels that wait, or are on their way
        self._largest = 0
        self._most = min(AHEAD_BYTES, ROOM.size() // 4)

    def decode(self, number: int, image: Source) -> NDArray[Any]:
        """In a thread; images start in order, so that none holds up the one whose turn it is.

        `CancelledError` if nobody wants it any more.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: number <= self._turn or sum(self._sizes.values()) + self._largest <= self._most
            )
            if self._turn == _OVER:
                raise CancelledError
            self._sizes[number] = self._largest
        with _heard() as heard:
            pixels = self._decode(image)
        with self._changed:
            self._said[number] = heard
            self._sizes[number] = pixels.nbytes
            self._largest = max(self._largest, pixels.nbytes)
        return pixels

    def begin(self, number: int) -> None:
        """An image's turn has come: the one before it was given, or refused."""
        with self._changed:
            self._turn = max(self._turn, number)
            self._sizes.pop(number - 1, None)
            self._changed.notify_all()

    def end(self) -> None:
        """No turn comes any more, and nobody waits for one."""
        self.begin(_OVER)

    def forget(self) -> None:
        """In a fork, which has none of the threads: one of them may have been at it."""
        self._changed = threading.Condition()

    def say(self, number: int) -> None:
        """What is to be said of an image that is there, in the order of the images."""
        for text, words in self._said.pop(number, ()):
            say_once(text, *words)


_OVER = sys.maxsize  # a turn behind all images
_OPEN: WeakSet[_Turns[Any]] = WeakSet()
_OPENING = threading.Lock()  # while `_OPEN` gets one more, or is looked through


def _end_all() -> None:
    with _OPENING:
        open_ones = [*_OPEN]
    for turns in open_ones:
        turns.end()


# Python waits for an executor's threads before it closes what a script left open, so none may wait for
# its turn then: a thread that reads on decodes by itself. What is registered here comes before that; what
# atexit has comes behind it.
with suppress(AttributeError, RuntimeError):  # it is none of Python's promises; or Python ends already
    threading._register_atexit(_end_all)  # type: ignore[attr-defined]


def _forget() -> None:
    """A fork has none of the threads, and all locks as one of them may have held them."""
    global _OPENING
    _OPENING = threading.Lock()
    for turns in _OPEN:
        turns.forget()
    _OPEN.clear()
    ROOM.forget()


with suppress(AttributeError):  # only where there are forks
    os.register_at_fork(after_in_child=_forget)


def decoded(
    images: Iterable[Source],
    decode: Callable[[Source], NDArray[Any]],
    ahead: int = 0,
    refused: Refused | None = None,
) -> Generator[NDArray[Any], None, None]:
    """What ``decode`` makes of the images, in order.

    Parameters
    ----------
    images : iterable
        Arrays are not decoded early, nor is what follows them: a camera's next image is not waited for.
    decode : callable
        Called in threads, for arrays in the caller's.
    ahead : int
        Images that threads may decode early; at least so many that one is ready while all decode. They take
        `AHEAD_BYTES` at most.
    refused : callable, optional
        Gets an image that ``decode`` refuses, and the others follow. Without it, the error is raised.

    Raises
    ------
    RowvitError
        Of ``decode``. What ``images`` raises passes through, after the images before it.
    """
    numbered = enumerate(images)
    ahead = max(ahead, processors() + 1)
    taken: deque[tuple[int, Source, Future[NDArray[Any]] | None]] = deque()
    failure: Exception | None = None
    more = True
    turns = _Turns(decode)
    with _OPENING:
        _OPEN.add(turns)
    pool = ThreadPoolExecutor(processors())  # threads start when there is something to decode
    try:
        while True:
            while more and len(taken) < ahead and not (taken and isinstance(taken[-1][1], np.ndarray)):
                try:
                    number, image = next(numbered)
                except StopIteration:
                    more = False
                except Exception as error:  # raised after the images before it
                    more, failure = False, error
                else:
                    future = None
                    if not isinstance(image, np.ndarray):
                        with suppress(RuntimeError):  # Python ends: there are no threads any more
                            future = pool.submit(turns.decode, number, image)
                    taken.append((number, image, future))
            if not taken:
                break
            number, image, future = taken.popleft()
            turns.begin(number)
            try:
                try:
                    pixels = decode(image) if future is None else future.result()
                except CancelledError:  # likewise
                    pixels = decode(image)
                turns.say(number)
            except RowvitError as error:
                if refused is None:
                    raise
                refused(number, error)
            else:
                yield pixels
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        turns.end()
        pool.shutdown()
    if failure is not None:
        raise failure
