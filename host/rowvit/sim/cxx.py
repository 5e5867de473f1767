# SPDX-License-Identifier: Apache-2.0
"""The C++ compiler of this machine, and all in which compilers and systems differ.

Tried with GCC, Clang and Zig's Clang on Linux. On macOS, ``clang++`` should do as well: not tried.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from rowvit.errors import RowvitError
from rowvit.sim.tools import run, variables

#: in this order: Clang compiles faster than GCC, and what it makes is faster
COMMANDS = ("clang++", "g++", "c++")
#: GCC only: on functions of 10,000 statements, the first two passes take most of the time, and make nothing
#: faster; with AVX-512, the third (seen in GCC 12.4) loads 64 bytes as aligned from where they are not
WITHOUT = ("-fno-tree-pre", "-fno-code-hoisting", "-fno-tree-slp-vectorize")
#: what compilers call "for this processor"; some have neither
NATIVE = (("-march=native",), ("-mcpu=native",), ())
ADVICE = "install one (Debian, Ubuntu: sudo apt-get install -y g++; without root: pip install ziglang)"
SAMPLE = "#include <atomic>\n#include <cstdint>\n#include <string>\nstd::string word() { return {}; }\n"


@dataclass(frozen=True)
class Compiler:
    """A compiler that makes shared libraries."""

    command: tuple[str, ...]
    flags: tuple[str, ...]  #: of every file

    def compile(self, source: Path, output: Path, *options: str) -> list[str]:
        """The command that makes an object file."""
        return [*self.command, *self.flags, *options, "-c", str(source), "-o", str(output)]

    def link(self, objects: list[Path], output: Path, *options: str) -> list[str]:
        """The command that makes a shared library."""
        return [*self.command, *self.flags, "-shared", *map(str, objects), *options, "-o", str(output)]


def candidates() -> list[tuple[str, ...]]:
    """Commands that may compile: ``$CXX``, or else those of `COMMANDS` that are there, and ziglang's.

    `RowvitError` if ``$CXX`` cannot be read.
    """
    try:
        asked = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise RowvitError(
            f"CXX={os.environ['CXX']} is no command ({error})", "set another, or none"
        ) from error
    if asked:
        return [tuple(asked)]
    found: list[tuple[str, ...]] = [(name,) for name in COMMANDS if shutil.which(name)]
    if importlib.util.find_spec("ziglang"):
        found.append((sys.executable, "-m", "ziglang", "c++"))
    return found


def compiler(work: Path) -> Compiler:
    """The first of the `candidates` that makes a shared library.

    Parameters
    ----------
    work : Path
        A directory for trials.

    Raises
    ------
    RowvitError
        There is none.
    """
    found = candidates()
    source, output, failure = work / "sample.cpp", work / "sample.so", ""
    source.write_text(SAMPLE)
    for command in found:
        for native in NATIVE:
            flags = ("-std=c++17", "-fPIC", *native)
            try:
                run(Compiler(command, flags).link([source], output), variables())
                clang = "clang" in run([*command, "--version"], variables()).lower()
            except (OSError, RowvitError) as error:
                failure = failure or str(error)
                continue
            return Compiler(command, flags if clang else (*flags, *WITHOUT))
    if "CXX" in os.environ and found:
        raise RowvitError(
            f"CXX={shlex.join(found[0])} makes no shared library: {failure}", "set another, or none"
        )
    if found:
        raise RowvitError(f"no compiler here makes a shared library: {failure}", ADVICE)
    raise RowvitError("the simulator needs a C++ compiler", ADVICE)


def processor() -> str:
    """What `NATIVE` depends on, so that machines may share a home directory."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # no Linux
        return platform.machine()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
