# SPDX-License-Identifier: Apache-2.0
"""Who drives a device: one process at a time the board, and in a process one stream at a time a device.

Two would reset each other's transfers, and one would take the other's answers for its own.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rowvit.errors import RowvitError

if TYPE_CHECKING:
    from rowvit.pynq import Device

LOCK = Path("/run/lock/rowvit.lock")
_LONG = 60  # characters of a command


class Claim:
    """The board is this process's, as long as the object is there.

    `RowvitError` if it is another's, which the message names, or not everybody's.
    """

    def __init__(self) -> None:
        path = LOCK if LOCK.parent.is_dir() else Path(tempfile.gettempdir()) / LOCK.name
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            self._file = os.fdopen(os.open(path, flags, 0o644), "r+")
        except OSError as error:
            raise RowvitError(
                f"{path}, which says who uses the board, cannot be opened ({error.strerror})",
                "work as root (sudo -i)",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RowvitError(
                f"the board is in use by {_process(self._file.read().strip())}",
                "end that, or close its target, first",
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()


def _process(number: str) -> str:
    """A process and its command, as far as they are known."""
    if not number.isdecimal():
        return "another process"
    with suppress(OSError):
        words = Path(f"/proc/{number}/cmdline").read_bytes().decode(errors="replace").split("\0")
        command = " ".join(words).strip()
        return f"process {number} ({command[:_LONG]}{'...' * (len(command) > _LONG)})"
    return f"process {number}"


_CLAIM: Callable[[], Claim | None] = lambda: None  # noqa: E731 a weak reference, later


def claim() -> Claim:
    """The claim of this process, which all of its overlays share."""
    global _CLAIM
    found = _CLAIM()
    if found is None:
        found = Claim()
        _CLAIM = weakref.ref(found)
    return found


class _Held:
    """One turn at a device; ``end`` ends it from outside."""

    def __init__(self, end: Callable[[], object] | None) -> None:
        self.end = end


class Turns:
    """A device's, in this process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # Python may finalise a stream, which gives up its turn, anywhere
        self._held: _Held | None = None
        self.bitstream = ""  #: what was loaded last
        self.loaded: str | None = None  #: when, as PYNQ notes it
        self.last: object = None  #: who has put core and DMA into the state that they are in

    @contextmanager
    def taken(self, end: Callable[[], object] | None = None) -> Iterator[None]:
        """In its context nobody else takes the device, unless by `end`; `RowvitError` if somebody has."""
        held = _Held(end)
        with self._lock:
            if self._held is not None:
                raise RowvitError(
                    "a stream of this accelerator is open", "read it to its end, or close it, first"
                )
            self._held = held
        try:
            yield
        finally:
            self._give(held)

    def end(self) -> None:
        """End the turn of whoever has the device; `RowvitError` if that is at work in another thread."""
        held = self._held
        if held is not None:
            if held.end is None:
                raise RowvitError("another thread opens this accelerator", "open it in one")
            held.end()
            self._give(held)

    def _give(self, held: _Held) -> None:
        with self._lock:
            if self._held is held:
                self._held = None


_TURNS: weakref.WeakKeyDictionary[Device, Turns] = weakref.WeakKeyDictionary()


def turns(device: Device) -> Turns:
    """Those of a device."""
    return _TURNS.setdefault(device, Turns())
