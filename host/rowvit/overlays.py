# SPDX-License-Identifier: Apache-2.0
"""Built overlays: what a build says of itself (provenance), and prebuilt ones to download.

An overlay is three files of one name: ``.bit``, ``.hwh`` and ``.json``, its provenance.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

from rowvit.errors import RowvitError
from rowvit.hardware import config as configs
from rowvit.hardware.config import HardwareConfig

if sys.version_info >= (3, 11):
    import tomllib
else:  # PYNQ images still carry Python 3.10
    import tomli as tomllib

MANIFEST = Path(__file__).with_name("overlays.toml")
CHUNK = 1 << 16
SUFFIXES = (".bit", ".hwh", ".json")


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


# -- provenance ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Provenance:
    """What a build says of an overlay: the ``.json`` beside the ``.bit``."""

    board: str
    part: str
    configuration: str
    frontend: str  #: "host", or "hls" if the design holds the HLS preprocessor
    structure: dict[str, int]  #: of the configuration
    config_hash: str  #: eight hexadecimal digits
    revision: str | None  #: Git commit, None outside a repository
    dirty: bool  #: files differed from that commit
    tool: str
    strategy: str
    board_file: str  #: Vivado's, empty if it was not installed
    clock_mhz: float  #: that the configuration asks for
    actual_clock_mhz: float
    setup_slack_ns: float
    hold_slack_ns: float
    utilisation: dict[str, dict[str, float]]  #: by resource: used, available
    date: str  #: UTC, ISO 8601
    files: dict[str, str]  #: SHA-256 by file name

    @classmethod
    def read(cls, path: Path) -> Provenance:
        """Read a provenance file.

        Raises
        ------
        RowvitError
            It is missing or is not a provenance file.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RowvitError(
                f"{path} cannot be read ({error.strerror}); copy it from the build, with the .bit and .hwh"
            ) from error
        except ValueError as error:
            raise RowvitError(f"{path} is not JSON ({error}); copy it from the build again") from error
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or values.keys() != names:
            raise RowvitError(
                f"{path} is not the provenance of an overlay of this version; copy it from the build again"
            )
        return cls(**values)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def verify(path: Path) -> list[Provenance]:
    """See that overlays are what their provenance says: both files whole, the configuration known.

    Parameters
    ----------
    path : Path
        A ``.bit``, ``.hwh`` or ``.json``, or a directory of overlays.

    Raises
    ------
    RowvitError
        A file is missing or changed, or the configuration has another hash here than in the build.
    """
    if path.is_dir():
        found = sorted({file.with_suffix("") for file in path.glob("*.bit")})
        if not found:
            raise RowvitError(f"{path} holds no .bit; name a directory with overlays")
    else:
        if path.suffix not in SUFFIXES:
            raise RowvitError(f"{path}: name a .bit, .hwh or .json, or a directory with them")
        found = [path.with_suffix("")]
    return [_verify(overlay) for overlay in found]


def _verify(overlay: Path) -> Provenance:
    provenance = Provenance.read(overlay.parent / f"{overlay.name}.json")
    for suffix in (".bit", ".hwh"):
        file = overlay.parent / f"{overlay.name}{suffix}"
        if file.name not in provenance.files:
            raise RowvitError(f"{overlay}.json does not name {file.name}; keep the names that the build gave")
        if not file.is_file():
            raise RowvitError(f"{file} is missing; copy it from the build")
        if sha256(file) != provenance.files[file.name]:
            raise RowvitError(
                f"{file} is not the file of {overlay}.json (SHA-256); copy all three files again"
            )
    try:
        built = HardwareConfig("built", "none", provenance.clock_mhz, **provenance.structure)
    except TypeError as error:
        raise RowvitError(
            f"{overlay}.json: its configuration has other fields than this version's; build the overlay again"
        ) from error
    if f"{built.hash:08X}" != provenance.config_hash:
        raise RowvitError(
            f"{overlay}.json: the configuration makes hash {built.hash:08X}, not {provenance.config_hash};"
            " copy it from the build again"
        )
    name = provenance.configuration
    if name in configs.names() and configs.load(name).hash != built.hash:
        raise RowvitError(
            f"{overlay} was built from another '{name}' (hash {built.hash:08X}) than this version's"
            f" ({configs.load(name).hash:08X}); build it again, or use the software of its revision"
            f" {provenance.revision or 'unknown'}"
        )
    return provenance


# -- prebuilt overlays --------------------------------------------------------------------------


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
    """Read the list of prebuilt overlays.

    Raises
    ------
    RowvitError
        The file cannot be read, or an entry is not complete.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = [
            Prebuilt(**{**entry, "files": tuple(RemoteFile(**file) for file in entry["files"])})
            for entry in table.get("overlays", [])
        ]
    except OSError as error:
        raise RowvitError(f"{path} cannot be read ({error.strerror}); name a manifest of overlays") from error
    except (tomllib.TOMLDecodeError, TypeError, KeyError, AttributeError) as error:
        raise RowvitError(f"{path} is no manifest of overlays: {error}") from error
    for entry in entries:
        for file in entry.files:
            if urlsplit(file.url).scheme not in ("http", "https"):
                raise RowvitError(f"{path}: {file.url} is not an http or https address")
        if sorted(file.name for file in entry.files) != sorted(entry.name + suffix for suffix in SUFFIXES):
            raise RowvitError(f"{path}: '{entry.name}' needs its .bit, .hwh and .json, and nothing else")
    return entries


def fetch(
    overlay: Prebuilt,
    directory: Path,
    seconds: float = 300,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> None:
    """Download an overlay. Files appear under their names only when all three are there and right.

    Parameters
    ----------
    directory : Path
        Created if it does not exist.
    seconds : float
        Deadline for everything.
    progress : callable
        Takes file name, bytes so far, bytes in all.

    Raises
    ------
    RowvitError
        A download fails, is late, or has not the size or SHA-256 of the manifest; or the files do not
        agree with their provenance.
    """
    deadline = time.monotonic() + seconds
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".fetch-") as scratch:
            for file in overlay.files:
                _download(file, Path(scratch) / file.name, deadline, seconds, progress)
            verify(Path(scratch))
            for file in overlay.files:
                os.replace(Path(scratch) / file.name, directory / file.name)
    except OSError as error:
        raise RowvitError(
            f"{directory}: {error.strerror or error}; take a directory you may write"
        ) from error


def _download(
    file: RemoteFile,
    path: Path,
    deadline: float,
    seconds: float,
    progress: Callable[[str, int, int], None],
) -> None:
    late = RowvitError(
        f"{file.url} did not arrive within {seconds:g} s; try again, or give it more --seconds"
    )
    done, digest = 0, hashlib.sha256()
    try:
        with (
            urllib.request.urlopen(file.url, timeout=max(deadline - time.monotonic(), 0.1)) as response,
            path.open("wb") as sink,
        ):
            while block := response.read1(CHUNK):
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
        raise RowvitError(f"{file.url} cannot be fetched: {error.reason}; see that you are online") from error
    except (ConnectionError, ValueError) as error:
        raise RowvitError(f"{file.url} cannot be fetched: {error}; try again") from error
    if done != file.bytes or digest.hexdigest() != file.sha256:
        raise RowvitError(
            f"{file.url} is not the file of the manifest ({done:,} bytes of {file.bytes:,}, SHA-256"
            f" {digest.hexdigest()[:12]}, expected {file.sha256[:12]}); nothing was kept"
        )
