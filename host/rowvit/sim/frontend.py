# SPDX-License-Identifier: Apache-2.0
"""Builds the HLS preprocessor for the simulator: the kernel's own C++, by g++, into a shared library."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
from pathlib import Path

from rowvit.errors import RowvitError
from rowvit.sim.verilate import APT, HLS, cache_directory, processor, run, work_directory

LOG = logging.getLogger("rowvit")
SOURCES = [HLS / "frontend.cpp", HLS / "sim" / "simulator.cpp"]
FLAGS = "-std=c++17 -O2 -march=native -fPIC -shared -Wno-unknown-pragmas"


def build() -> Path:
    """The kernel as a shared library with the functions of ``hls/sim/ports.h``, built once.

    Raises
    ------
    RowvitError
        g++ or AMD's ap_int headers are missing, the cache cannot be written, or the build failed.
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

    sha = hashlib.sha256()
    for text in (FLAGS, importlib.metadata.version("hls4ml"), processor()):
        sha.update(f"{text}\n".encode())
    for path in [*SOURCES, *sorted(HLS.glob("*.h")), *sorted(HLS.glob("sim/*.h"))]:
        sha.update(f"{path.name}\n".encode() + path.read_bytes())
    library = cache_directory() / f"frontend-{sha.hexdigest()[:16]}.so"
    if library.is_file():
        return library

    LOG.info("building the HLS front end: a few seconds, once")
    with work_directory() as work:
        made = Path(work) / "frontend.so"
        # ours before theirs: hls_stream.h is in both
        include = [f"-I{HLS / 'sim'}", "-isystem", str(headers)]
        command = ["g++", *FLAGS.split(), *include, *map(str, SOURCES), "-o", str(made)]
        run(command, dict(os.environ), library.with_suffix(".log"))
        os.replace(made, library)
    library.with_suffix(".log").unlink(missing_ok=True)
    return library
