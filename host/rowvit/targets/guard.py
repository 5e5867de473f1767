# SPDX-License-Identifier: Apache-2.0
"""A guard that can stay on: one image in N is computed by the integer reference, too, beside the core."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.targets.golden import Golden
from rowvit.targets.target import Result, first_difference, read_package

if TYPE_CHECKING:
    from rowvit.formats.program import Program
    from rowvit.hardware.config import HardwareConfig


class Difference(RowvitError):
    """A result that differs from the integer reference.

    Parameters
    ----------
    image : int
        Its number, from 0, of all that the target was given.
    where : str
        From `first_difference`.
    advice : str
    name : str, optional
        Of the image's file.
    """

    def __init__(self, image: int, where: str, advice: str, name: str = "") -> None:
        super().__init__(f"{name or f'image {image}'} differs from the integer reference in {where}", advice)
        self.image, self.where, self.name = image, where, name

    def renumbered(self, image: int, name: str = "") -> Difference:
        """The same, of an image by another number."""
        return Difference(image, self.where, self.advice, name)

    def __reduce__(self) -> tuple[type[Difference], tuple[int, str, str, str]]:
        return type(self), (self.image, self.where, self.advice, self.name)


@dataclass(eq=False)
class _Check:
    number: int
    name: str
    reference: Future[Result]
    result: Result | None = None


class Guard:
    """Compares one result in ``every``, the first included, with the integer reference.

    The integer reference is computed in a thread from the moment that an image is taken. What differs is
    raised once it is there, at the latest at the stream's end; then the target takes no more images until a
    network is loaded, whose first image is checked again.

    Parameters
    ----------
    every : int
    memory : callable
        Raises a `RowvitError` if program or weights have changed in memory.

    Attributes
    ----------
    count : int
        Results so far.

    Raises
    ------
    RowvitError
        ``every`` is below 1.
    """

    def __init__(self, every: int, memory: Callable[[], object]) -> None:
        if every < 1:
            raise RowvitError(f"one image in {every} cannot be checked", "use 1 or more")
        self.every, self.count = every, 0
        self._memory = memory
        self._first = 0  # number of an image that is checked, whatever came before it
        self._failure: Difference | None = None
        self._told = True  # whether the failure has reached the caller
        self._names: deque[str] = deque()  # of the images taken, up to the one that is prepared next
        self._open: deque[_Check] = deque()
        self._taken = 0

    def use(self, program: Program, config: HardwareConfig, frontend: str) -> None:
        """Take the network that ``program`` was compiled from; `RowvitError` if it does not hold it."""
        self.close()
        self._golden = Golden(config, program.meta["checkpoints"], frontend)
        self._golden.load(read_package(program))
        if self._failure is not None:
            self._failure, self._first = None, self.count

    def close(self) -> None:
        """Raise a difference that was found when nobody could be told, since a stream was dropped."""
        if self._failure is not None and not self._told:
            self.refuse()

    def refuse(self) -> None:
        """Raise the difference, if one was found and no network was loaded since."""
        if self._failure is not None:
            self._told = True
            raise self._failure

    # -- one stream -----------------------------------------------------------------------------

    def begin(self, images: Iterable[NDArray[Any] | str | Path]) -> Iterator[NDArray[Any] | str | Path]:
        """A stream's images, whose names are noted."""
        self._pool = ThreadPoolExecutor(1, "reference")
        self._taken = self.count
        self._names.clear()
        return self._noted(images)

    def _noted(self, images: Iterable[NDArray[Any] | str | Path]) -> Iterator[NDArray[Any] | str | Path]:
        for image in images:
            self._names.append("" if isinstance(image, np.ndarray) else str(image))
            yield image

    def watch(self, groups: Iterable[Sequence[NDArray[Any]]]) -> Iterator[Sequence[NDArray[Any]]]:
        """The pixels of a stream's images; the integer reference starts with those that are due."""
        for group in groups:
            for pixels in group:
                name = self._names.popleft()
                if (self._taken - self._first) % self.every == 0:
                    # the caller may write the next image to the same array
                    reference = self._pool.submit(self._compute, pixels.copy())
                    self._open.append(_Check(self._taken, name, reference))
                self._taken += 1
            yield group

    def _compute(self, pixels: NDArray[Any]) -> Result:
        (result,) = self._golden([pixels])
        return result

    def note(self, results: Iterable[Result]) -> None:
        """Results of the core, in order; compared now if the integer reference is there."""
        for result in results:
            for check in self._open:
                if check.number == self.count:
                    check.result = result
            self.count += 1
        self.settle()

    def settle(self) -> None:
        """Compare what can be; raises the `Difference`."""
        while self._open and self._open[0].result is not None and self._open[0].reference.done():
            self._compare(self._open.popleft())
        self.refuse()

    def _compare(self, check: _Check) -> None:
        """Set ``bit_exact``, or note the failure."""
        assert check.result is not None
        reference = check.reference.result()
        assert self._golden.meta is not None
        where = first_difference(check.result, reference, self._golden.meta)
        check.result.bit_exact = not where
        if where and self._failure is None:
            self._failure, self._told = Difference(check.number, where, self._advice(), check.name), False

    def _advice(self) -> str:
        try:
            self._memory()
        except RowvitError as changed:
            return str(changed)
        return (
            "program and weights in memory are unchanged: see that the clock is not too fast, and memory and"
            " bitstream are sound (rowvit diagnose); if they are, report it, since rowvit is wrong"
        )

    @property
    def behind(self) -> int:
        """Results of the core that the integer reference is not ready for."""
        return sum(check.result is not None for check in self._open)

    @property
    def busy(self) -> bool:
        """Whether the integer reference is at work."""
        return any(not check.reference.done() for check in self._open)

    def checking(self, result: Result) -> bool:
        """Whether a result is among those to be compared, and is not yet."""
        return any(check.result is result for check in self._open)

    def end(self, heard: bool) -> None:
        """Compare what has a result, and drop the rest; raises the `Difference`.

        Unless it is ``heard``, which nobody knows of a stream that is closed, it is raised once more later.
        """
        try:
            for check in self._open:
                if check.result is None:
                    check.reference.cancel()
            self._pool.shutdown()
            while self._open and self._open[0].result is not None:
                self._compare(self._open.popleft())
        finally:
            self._open.clear()
        if self._failure is not None and not self._told:
            self._told = heard
            raise self._failure
