# SPDX-License-Identifier: Apache-2.0
"""Runs the tools that build a simulator."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from rowvit.cache import cache_directory
from rowvit.errors import RowvitError
from rowvit.processors import processors

SECONDS = 3600  # that a step of a build may take; the largest takes minutes


_RUNNING: WeakSet[_Running] = WeakSet()


def end_all() -> None:
    """End the tools of builds in other threads, which an interrupt does not reach."""
    for one in [*_RUNNING]:
        one.end()


class _Running:
    """Tools that run now, which end together."""

    def __init__(self) -> None:
        self._lock, self._all, self.ended = threading.Lock(), set[subprocess.Popen[str]](), False
        _RUNNING.add(self)

    def start(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        """A tool, and what it starts, in a group of its own."""
        with self._lock:
            if self.ended:
                raise RowvitError(f"{Path(command[0]).name} is not started any more")
            try:
                found = subprocess.Popen(
                    command,
                    env=environment,
                    text=True,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as error:  # as of a script whose interpreter is not there
                raise RowvitError(f"{command[0]} cannot be run ({error.strerror})") from error
            self._all.add(found)
            return found

    def done(self, one: subprocess.Popen[str]) -> None:
        with self._lock:
            self._all.discard(one)

    def end(self) -> None:
        """Of all, now: nobody waits for what they make."""
        with self._lock:
            self.ended = True
            for one in self._all:
                with suppress(ProcessLookupError):
                    os.killpg(one.pid, signal.SIGKILL)


def variables() -> dict[str, str]:
    """Of the environment, with a cache for Zig's compiler, which is otherwise in the user's home."""
    found = dict(os.environ)
    with suppress(RowvitError):
        found.setdefault("ZIG_GLOBAL_CACHE_DIR", str(cache_directory() / "zig"))
    return found


def run_all(commands: Sequence[list[str]], environment: dict[str, str], log: Path) -> None:
    """Run commands, as many at a time as there are processors; errors as of `run`, the first one's."""
    running = _Running()
    with ThreadPoolExecutor(processors()) as pool:
        try:
            left = {pool.submit(run, command, environment, log, running) for command in commands}
            while left:  # a second at a time: an interrupt just before, or in another thread, wakes nobody
                done, left = wait(left, 1, FIRST_EXCEPTION)
                for one in done:
                    one.result()
        except BaseException:  # Ctrl-C and SIGTERM, too
            running.end()
            pool.shutdown(cancel_futures=True)
            raise


def run(
    command: list[str],
    environment: dict[str, str],
    log: Path | None = None,
    running: _Running | None = None,
) -> str:
    """Run a tool; its standard output. `RowvitError` if it fails or is not done within `SECONDS`."""
    name, running = Path(command[0]).name, running or _Running()
    with running.start(command, environment) as tool:
        try:
            told, warned = tool.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            running.end()
            raise RowvitError(
                f"{name} was not done within {SECONDS} s",
                "see that the machine has memory and processor to spare, and try again",
            ) from error
        except BaseException:
            running.end()
            raise
        finally:
            running.done(tool)
    output = told + warned
    if tool.returncode == 0:
        return told
    if log and not running.ended:  # else it is another one that has failed
        log.write_text(f"$ {' '.join(command)}\n{output}")
    if any(header in output for header in ("zlib.h", "lz4.h")):
        raise RowvitError(
            "recording waveforms needs the header files of zlib and lz4",
            "install with: sudo apt-get install -y zlib1g-dev liblz4-dev",
        )
    where = f" (all of it in {log})" if log else ""
    tail = "\n".join(output.strip().splitlines()[-12:])
    raise RowvitError(f"building the simulator failed in {name}{where}:\n{tail}")
