# SPDX-License-Identifier: Apache-2.0
"""Files to pixels beside other work: by threads, in order, and not so early that they take much memory."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.processors import processors

#: gets the position of an image that cannot be used, from 0, and why
Refused = Callable[[int, RowvitError], object]
#: of pixels that wait for their turn: a board may have 512 MB for everything
AHEAD_BYTES = 64_000_000
Source = TypeVar("Source")


class _Turns(Generic[Source]):
    """Threads decode an image when it is its turn, and earlier where its pixels fit in `AHEAD_BYTES`.

    They are taken to be as large as the largest before; frames for the HLS front end are of any size.
    """

    def __init__(self, decode: Callable[[Source], NDArray[Any]]) -> None:
        self._decode, self._changed = decode, Condition()
        self._turn = 0  # number of the image whose pixels are wanted
        self._sizes: dict[int, int] = {}  # bytes of pixels that wait, or are on their way
        self._largest = 0

    def decode(self, number: int, image: Source) -> NDArray[Any]:
        """In a thread; images start in order, so that none holds up the one whose turn it is."""
        with self._changed:
            self._changed.wait_for(
                lambda: number <= self._turn or sum(self._sizes.values()) + self._largest <= AHEAD_BYTES
            )
            self._sizes[number] = self._largest
        pixels = self._decode(image)
        with self._changed:
            self._sizes[number] = pixels.nbytes
            self._largest = max(self._largest, pixels.nbytes)
        return pixels

    def begin(self, number: int) -> None:
        """An image's turn has come: the one before it was given, or refused."""
        with self._changed:
            self._turn = number
            self._sizes.pop(number - 1, None)
            self._changed.notify_all()


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
    taken: deque[tuple[int, Source | Future[NDArray[Any]]]] = deque()
    failure: Exception | None = None
    more = True
    turns = _Turns(decode)
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
                    early = not isinstance(image, np.ndarray)
                    taken.append((number, pool.submit(turns.decode, number, image) if early else image))
            if not taken:
                break
            number, first = taken.popleft()
            turns.begin(number)
            try:
                pixels = first.result() if isinstance(first, Future) else decode(first)
            except RowvitError as error:
                if refused is None:
                    raise
                refused(number, error)
            else:
                yield pixels
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        turns.begin(sys.maxsize)  # nobody waits any more
        pool.shutdown()
    if failure is not None:
        raise failure
