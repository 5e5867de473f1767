# SPDX-License-Identifier: Apache-2.0
"""Prebuilt overlays to download, from a manifest of addresses and SHA-256."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from rowvit.errors import RowvitError
from rowvit.formats import provenance
from rowvit.hardware.config import tomllib

MANIFEST = Path(__file__).with_name("prebuilt.toml")
_CHUNK = 1 << 16


@dataclass(frozen=True)
class RemoteFile:
    """A file to download."""

    url: str
    sha256: str
    bytes: int

    @property
    def name(self) -> str:
        return Path(urlsplit(self.url).path).name


@dataclass(frozen=True)
class Prebuilt:
    """An entry of the manifest."""

    name: str
    board: str
    configuration: str
    files: tuple[RemoteFile, ...]  #: .bit, .hwh and .json


def manifest(path: Path = MANIFEST) -> list[Prebuilt]:
    """The prebuilt overlays; `RowvitError` if the file cannot be read, or an entry is not complete."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = [
            Prebuilt(**{**entry, "files": tuple(RemoteFile(**file) for file in entry["files"])})
            for entry in table.get("overlays", [])
        ]
    except OSError as error:
        raise RowvitError(
            f"{path} cannot be read ({error.strerror})", "name a manifest of overlays"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RowvitError(f"{path} is not a manifest of overlays: {error}") from error
    for entry in entries:
        for file in entry.files:
            if urlsplit(file.url).scheme not in ("http", "https"):
                raise RowvitError(f"{path}: {file.url} is not an http or https address")
        if sorted(file.name for file in entry.files) != sorted(
            entry.name + suffix for suffix in provenance.SUFFIXES
        ):
            raise RowvitError(f"{path}: '{entry.name}' needs its .bit, .hwh and .json, and nothing else")
    return entries


def fetch(
    overlay: Prebuilt,
    directory: Path,
    seconds: float = 300,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> None:
    """Download an overlay. Files appear under their names only when all three are there and correct.

    Parameters
    ----------
    directory : Path
        Created if it does not exist.
    seconds : float
        Deadline for everything.
    progress : callable
        Called with file name, bytes so far, and bytes in all.

    Raises
    ------
    RowvitError
        A download fails, is late, or differs from the manifest in size or SHA-256; or the files do not
        agree with their provenance.
    """
    deadline = time.monotonic() + seconds
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".fetch-") as scratch:
            for file in overlay.files:
                _download(file, Path(scratch) / file.name, deadline, seconds, progress)
            provenance.verify(Path(scratch))
            for file in overlay.files:
                os.replace(Path(scratch) / file.name, directory / file.name)
    except OSError as error:
        raise RowvitError(
            f"{directory}: {error.strerror or error}", "use a directory that you may write"
        ) from error


def _read(response: HTTPResponse) -> bytes:
    """More of it; an error of the network is none of the file that is written."""
    try:
        return response.read1(_CHUNK)
    except TimeoutError:
        raise
    except OSError as error:
        raise ConnectionError(error.strerror or str(error)) from error


def _download(
    file: RemoteFile,
    path: Path,
    deadline: float,
    seconds: float,
    progress: Callable[[str, int, int], None],
) -> None:
    late = RowvitError(
        f"{file.url} did not arrive within {seconds:g} s", "try again, or allow more --seconds"
    )
    done, digest = 0, hashlib.sha256()
    try:
        with (
            urllib.request.urlopen(file.url, timeout=max(deadline - time.monotonic(), 0.1)) as response,
            path.open("wb") as sink,
        ):
            while block := _read(response):
                done += len(block)
                if time.monotonic() > deadline:
                    raise late
                if done > file.bytes:
                    break
                digest.update(block)
                sink.write(block)
                progress(file.name, done, file.bytes)
    except TimeoutError as error:
        raise late from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise late from error
        raise RowvitError(
            f"{file.url} cannot be fetched: {error.reason}", "see that you are online"
        ) from error
    except (ConnectionError, ValueError, HTTPException) as error:
        said = " ".join(str(error).split())  # which may be what a server of another kind has sent
        raise RowvitError(f"{file.url} cannot be fetched: {said}", "try again") from error
    if done != file.bytes or digest.hexdigest() != file.sha256:
        raise RowvitError(
            f"{file.url} is not the file of the manifest ({done:,} bytes of {file.bytes:,}, SHA-256"
            f" {digest.hexdigest()[:12]}, expected {file.sha256[:12]})",
            "nothing was kept; see that the manifest is current, and try again",
        )
