# SPDX-License-Identifier: Apache-2.0
"""Compiled programs are kept in the cache: a board's processor compiles for seconds what it loads at once.

The variable ``ROWVIT_CACHE_PROGRAMS=0`` switches this off.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from rowvit.cache import cache_directory
from rowvit.compiler import BATCH, compile
from rowvit.compiler.head import frame, headless, with_head
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.formats.program import Program
from rowvit.hardware.config import HardwareConfig

#: bytes of programs that are kept, at most; the newest one is always kept
ROOM = 256 << 20
_PREFIX = "program-"


def compiled(
    package: ModelPackage, config: HardwareConfig, checkpoints: bool = False, keep: bool = True
) -> Program:
    """What `compile` makes, from the cache if it has been made before by this very compiler.

    One that differs in the head alone gets this package's. A program was checked before it was kept, and its
    SHA-256 says that it is still the same: one that was cut or changed is compiled again. Where the cache
    cannot be written, nothing is kept; without ``keep``, the program with an empty head.
    """
    path = _path(package, config, checkpoints)
    if path is None:
        return compile(package, config, checkpoints)
    try:
        program = Program.load(path, made_here=True)
    except RowvitError:
        program = compile(package if keep else headless(package), config, checkpoints)
        _keep(program, path)
    else:
        program.package, program.checked = package, True
        with suppress(OSError):
            os.utime(path)  # it is in use: others go first
    if program.meta["model"]["hash"] != package.digest():
        program = with_head(program, package, config)
    return program


def _path(package: ModelPackage, config: HardwareConfig, checkpoints: bool) -> Path | None:
    """The program's file, there or not; None if programs are not kept."""
    if os.environ.get("ROWVIT_CACHE_PROGRAMS") == "0":
        return None
    named = [_compiler(), frame(package, config), config.name, config.structure(), checkpoints, BATCH]
    digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
    try:
        return cache_directory() / f"{_PREFIX}{digest[:32]}.safetensors"
    except RowvitError:  # the user has no home
        return None


@cache
def _compiler() -> str:
    """SHA-256 of what decides what a program is: compiler, formats and instruction set."""
    sha, rowvit = hashlib.sha256(), Path(__file__).parents[1]
    for room in ("compiler", "formats", "hardware"):
        for path in sorted([*(rowvit / room).glob("*.py"), *(rowvit / room).glob("*.json")]):
            sha.update(f"{room}/{path.name}\n".encode() + path.read_bytes())
    return sha.hexdigest()


def _keep(program: Program, path: Path) -> None:
    """Save it, which is done when complete, and let go what was not used for longest."""
    with suppress(OSError, RowvitError):
        path.parent.mkdir(parents=True, exist_ok=True)
        program.save(path)
        used = sorted(((file.stat(), file) for file in path.parent.glob(f"{_PREFIX}*")), key=_unused)
        total = 0
        for state, file in used:
            total += state.st_size
            if total > ROOM and file != path:
                file.unlink(missing_ok=True)


def _unused(entry: tuple[os.stat_result, Path]) -> float:
    """Sorts the newest first."""
    return -entry[0].st_mtime
