# SPDX-License-Identifier: Apache-2.0
"""The one exception that rowvit raises for what a user can fix: also missing packages, and files."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class RowvitError(Exception):
    """What is wrong and where, and what to do about it, in one sentence without a full stop.

    Parameters
    ----------
    message : str
        What is wrong, and where.
    advice : str, optional
        What to do about it; ``str(error)`` is "message; advice".
    """

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message, advice)
        self.message, self.advice = message, advice

    def __str__(self) -> str:
        return f"{self.message}; {self.advice}" if self.advice else self.message


@contextmanager
def writing(path: object) -> Iterator[None]:
    """`RowvitError` for a file that cannot be written."""
    try:
        yield
    except OSError as error:
        raise RowvitError(f"{path}: cannot be written ({error.strerror})") from error


def temporary_directory() -> tempfile.TemporaryDirectory[str]:
    """A folder to be removed; `RowvitError` if there is no place for one."""
    try:
        return tempfile.TemporaryDirectory(prefix="rowvit-")
    except OSError as error:
        what = f"no temporary folder can be made ({error.strerror})"
        raise RowvitError(what, "make room, or name another place in the variable TMPDIR") from error


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write to, which takes the place of ``path`` at the end; if that fails, what was there stays.

    `RowvitError` as of `writing`.
    """
    given, real = Path(path), Path(os.path.realpath(path))
    with writing(path):
        if given.exists() and not given.is_file():  # a device, or a pipe, whose real path names no file
            yield given
            return
        part = real.with_name(f"{real.name}.{secrets.token_hex(4)}.part")  # others may write the same file
        try:
            yield part
            if real.exists():
                part.chmod(real.stat().st_mode & 0o777)
            os.replace(part, real)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def needs(what: str, package: str) -> Iterator[None]:
    """`RowvitError` for imports that fail: what needs the package, and how to install it."""
    try:
        yield
    except ImportError as error:
        raise RowvitError(what, f"install it with: pip install {package}") from error
