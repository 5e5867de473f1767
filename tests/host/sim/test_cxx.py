# SPDX-License-Identifier: Apache-2.0
"""The C++ compiler is found, whatever the machine has, and what it lacks is said."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rowvit.errors import RowvitError
from rowvit.sim import cxx
from rowvit.sim.tools import variables

#: a compiler of which only the name is there
BROKEN = "#!/bin/sh\necho 'fatal error: atomic: no such file' >&2\nexit 1\n"
#: GCC, but for an option that it does not know
STRANGER = """#!/bin/sh
case "$*" in *-march=native*) echo unknown option >&2; exit 1;; esac
PATH=/usr/bin:/bin exec {gcc} "$@"
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that is on the PATH; nothing, as yet."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(cxx.importlib.util, "find_spec", lambda name: None)
    return folder


def tool(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


GCC = next(f"/usr/bin/{name}" for name in ("g++", "clang++", "c++") if os.path.exists(f"/usr/bin/{name}"))
WORKS = f'#!/bin/sh\nPATH=/usr/bin:/bin exec {GCC} "$@"\n'


def makes(compiler: cxx.Compiler, work: Path) -> int:
    """What a function returns from a library of two files."""
    sources = [work / "one.cpp", work / "two.cpp"]
    sources[0].write_text('int two();\nextern "C" int three() { return 1 + two(); }\n')
    sources[1].write_text("int two() { return TWO; }\n")
    objects = [source.with_suffix(".o") for source in sources]
    for source, out in zip(sources, objects, strict=True):
        subprocess.run(compiler.compile(source, out, "-O1", "-DTWO=2"), check=True)
    subprocess.run(compiler.link(objects, work / "library.so"), check=True)
    return ctypes.CDLL(str(work / "library.so")).three()


def test_the_first_that_works_is_taken(tools: Path, tmp_path: Path) -> None:
    tool(tools, "clang++", BROKEN)
    tool(tools, "g++", WORKS)
    found = cxx.compiler(tmp_path)
    assert found.command == ("g++",) and "-march=native" in found.flags
    assert makes(found, tmp_path) == 3


def test_a_compiler_without_an_option(tools: Path, tmp_path: Path) -> None:
    """As Apple's without ``-march=native``."""
    tool(tools, "c++", STRANGER.format(gcc=GCC))
    found = cxx.compiler(tmp_path)
    assert found.command == ("c++",) and "-march=native" not in found.flags
    assert makes(found, tmp_path) == 3


def test_clang_does_not_get_the_options_of_gcc(tools: Path, tmp_path: Path) -> None:
    tool(tools, "g++", WORKS.replace("\nPATH", '\n[ "$1" = --version ] && echo Apple clang 15 && exit\nPATH'))
    assert not set(cxx.WITHOUT) & set(cxx.compiler(tmp_path).flags)
    tool(tools, "g++", WORKS.replace("\nPATH", '\n[ "$1" = --version ] && echo "g++ (GCC) 15" && exit\nPATH'))
    assert set(cxx.WITHOUT) <= set(cxx.compiler(tmp_path).flags)


def test_zig_is_the_last(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a package of this name that is another compiler."""
    package = tmp_path / "ziglang"
    package.mkdir()
    (package / "__main__.py").write_text(f"import os, sys; os.execv({GCC!r}, [{GCC!r}, *sys.argv[2:]])")
    monkeypatch.setattr(cxx.importlib.util, "find_spec", lambda name: name == "ziglang" or None)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setattr(cxx.shutil, "which", lambda name: None)
    found = cxx.compiler(tmp_path)
    assert found.command == (sys.executable, "-m", "ziglang", "c++")


def test_the_one_that_is_asked_for(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tools, "g++", WORKS)
    tool(tools, "mine", WORKS)
    monkeypatch.setenv("CXX", "mine -g0")
    assert cxx.compiler(tmp_path).command == ("mine", "-g0")
    monkeypatch.setenv("CXX", "nosuch")
    with pytest.raises(
        RowvitError, match=r"CXX=nosuch makes no shared library: .*nosuch.*; set another, or none"
    ):
        cxx.compiler(tmp_path)


def test_where_zig_keeps_what_it_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rest, and not in a home that may not be there; the user's own choice stays."""
    monkeypatch.setenv("ROWVIT_CACHE", "/cache")
    monkeypatch.delenv("ZIG_GLOBAL_CACHE_DIR", raising=False)
    assert variables()["ZIG_GLOBAL_CACHE_DIR"] == "/cache/zig"
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", "/own")
    assert variables()["ZIG_GLOBAL_CACHE_DIR"] == "/own"


def test_none(tools: Path, tmp_path: Path) -> None:
    with pytest.raises(RowvitError, match=r"needs a C\+\+ compiler; install one .*pip install ziglang"):
        cxx.compiler(tmp_path)
    tool(tools, "g++", BROKEN)
    with pytest.raises(
        RowvitError, match=r"(?s)no compiler here makes a shared.*atomic: no such file.*ziglang"
    ):
        cxx.compiler(tmp_path)


def test_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc, the processor is known by its family."""

    def gone(self: Path) -> str:
        raise FileNotFoundError

    assert cxx.processor()
    monkeypatch.setattr(Path, "read_text", gone)
    monkeypatch.setattr(cxx.platform, "machine", lambda: "arm64")
    assert cxx.processor() == "arm64"
