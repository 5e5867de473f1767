# SPDX-License-Identifier: Apache-2.0
"""Targets in several processes, which end at once when they have to, and with their parent."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from rowvit.decoding import ROOM, SAID, say_once
from rowvit.errors import RowvitError, temporary_directory
from rowvit.targets.guard import Difference
from rowvit.targets.open import open as open_target
from rowvit.targets.target import position

if TYPE_CHECKING:
    from rowvit.decoding import Refused
    from rowvit.formats.package import ModelPackage
    from rowvit.formats.program import Program
    from rowvit.hardware.config import HardwareConfig
    from rowvit.targets.target import ImageSource, Result, Target


_THREADS = "OPENBLAS_NUM_THREADS"  # read when NumPy is imported
_ENDING = 1.0  # seconds, at most, until the exit status of a process is known whose pipe has ended


class Workers:
    """Processes that each hold a network on a target of their own; a pipe leads to each.

    The pools of the standard library do not fit processes that are killed. That of ``concurrent.futures`` has
    a thread that fails if it learns of the death after the images left over were cancelled, and waits for the
    rest of a result that was half sent; that of ``multiprocessing`` waits for the results of the dead. Here,
    a pipe that ends says that its process did.

    Parameters
    ----------
    count : int
        Processes at most; they start when there are images for them.
    model, target, config, options
        What `Target.load` and `rowvit.open` take.
    """

    def __init__(
        self,
        count: int,
        model: ModelPackage | Program,
        target: str,
        config: HardwareConfig,
        options: dict[str, Any],
    ) -> None:
        self.count = count
        self._spec = model, target, config, options
        self._processes: dict[Connection, BaseProcess] = {}
        # what they write, and do not remove when they are killed
        self._files = temporary_directory()

    def map(
        self, starts: Sequence[Sequence[ImageSource]], first: int = 0, refused: Refused | None = None
    ) -> Iterator[list[Result]]:
        """The results of each start's images, in order; ``first`` is the number of the first image.

        ``refused`` as of `Target.prepared`.

        Raises
        ------
        RowvitError
            As in `rowvit.open`, `Target.load` and `Target.stream`; or a process was killed. Afterwards, and
            if not all results are taken, there is nothing left to do but `close`.
        """
        while len(self._processes) < min(self.count, len(starts)):
            self._start()
        before = list(accumulate(map(len, starts), initial=0))
        waiting, idle = deque(enumerate(starts)), list(self._processes)
        busy: dict[Connection, int] = {}
        done: dict[int, tuple[list[Result], dict[int, RowvitError], dict[str, tuple[str, ...]]]] = {}
        for index in range(len(starts)):
            while index not in done:
                try:
                    while waiting and idle:
                        pipe = idle.pop()
                        number, images = waiting.popleft()
                        busy[pipe] = number
                        pipe.send((first + before[number], images, refused is not None))
                    ready = multiprocessing.connection.wait(list(busy))
                    answers = {pipe: pipe.recv() for pipe in busy if pipe in ready}
                except (EOFError, OSError) as error:
                    raise self._ended() from error
                for pipe, answer in answers.items():
                    if isinstance(answer[0], Exception):
                        raise answer[0] from RuntimeError(answer[1])
                    done[busy.pop(pipe)] = answer
                    idle.append(pipe)
            results, wrong, said = done.pop(index)
            for text, words in said.items():
                say_once(text, *words)
            for number, why in wrong.items():
                assert refused is not None
                refused(before[index] + number, why)
            yield results

    def close(self) -> None:
        """End the processes, whatever they do: an image may take minutes."""
        for process in self._processes.values():
            process.kill()
        for pipe, process in self._processes.items():
            process.join()
            pipe.close()
        self._processes.clear()
        self._files.cleanup()

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        pipe, theirs = spawn.Pipe()
        # a daemon: Python does not wait for it at its own end, whichever way it gets there
        process = spawn.Process(target=_work, args=(theirs, self._files.name, self.count), daemon=True)
        # a terminal sends Ctrl-C to all, and it is for the parent: the process inherits that it is held back
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        threads = os.environ.get(_THREADS)
        os.environ.setdefault(_THREADS, "1")  # those of several processes would wait for each other
        try:
            process.start()
            self._processes[pipe] = process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            if threads is None:
                del os.environ[_THREADS]
        theirs.close()
        # not among the arguments: Python would wait for ever if the process ended before it had read them all
        try:
            pipe.send(self._spec)
        except OSError as error:
            raise self._ended() from error

    def _ended(self) -> RowvitError:
        """Why a process is not there any more."""
        processes = self._processes.values()
        for process in processes:
            process.join(_ENDING / len(processes))
        if any(process.exitcode == 1 for process in processes):  # it has printed why
            return RowvitError(
                f"one of {len(processes)} processes could not begin",
                "in a script, work with several under: if __name__ == '__main__'",
            )
        return RowvitError(
            f"one of {len(processes)} processes was killed, as when memory runs out",
            "free some, or use fewer --jobs",
        )


def _work(pipe: Connection, files: str, processes: int) -> None:
    """A process's life: results for images, or an error and how it came about, until it is killed."""
    end_with_parent()
    tempfile.tempdir = files
    logging.getLogger("rowvit").addHandler(logging.NullHandler())  # the parent says it
    ROOM.share(processes)
    loaded: Target | None = None
    with suppress(EOFError, ConnectionError):  # the parent is gone
        model, target, config, options = pipe.recv()
        while True:
            first, images, skip = pipe.recv()
            wrong: dict[int, RowvitError] = {}
            try:
                if loaded is None:
                    opened = open_target(target, config, **options)
                    opened.load(model)
                    loaded = opened
                loaded.count_from(first)
                pixels = loaded.prepared(images, len(images), wrong.__setitem__ if skip else None)
                answer: Any = list(loaded.stream(pixels, len(images))), wrong, SAID
            except Difference as error:
                number = first + position(error.image - first, wrong)
                answer = error.renumbered(number), traceback.format_exc()
            except Exception as error:
                answer = error, traceback.format_exc()
            pipe.send(answer)


def end_with_parent() -> None:
    """Let this process, a worker, end with its parent, however that ends, and not by Ctrl-C before it.

    Nothing else would wake a worker that waits for images.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    if threading.current_thread() is threading.main_thread():
        # the terminal sends it to all: the parent ends this one
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()
