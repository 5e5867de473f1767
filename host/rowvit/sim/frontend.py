# SPDX-License-Identifier: Apache-2.0
"""Builds the HLS preprocessor for the simulator: the kernel's own C++, by g++, into a shared library."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

from rowvit.errors import RowvitError
from rowvit.sim.verilate import APT, HLS, cached, processor

SOURCES = [HLS / "frontend.cpp", HLS / "sim" / "simulator.cpp"]
FLAGS = "-std=c++17 -O2 -march=native -fPIC -shared -Wno-unknown-pragmas"


def build() -> Path:
    """The kernel as a shared library with the functions of ``hls/sim/ports.h``, built once.

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
        include = [f"-I{HLS / 'sim'}", "-isystem", str(headers)]
        return [["g++", *FLAGS.split(), *include, *map(str, SOURCES), "-o", f"{work}/library.so"]]

    texts = FLAGS, importlib.metadata.version("hls4ml"), processor()
    files = [*SOURCES, *sorted(HLS.glob("*.h")), *sorted(HLS.glob("sim/*.h"))]
    return cached("frontend", texts, files, "the HLS front end: a few seconds", dict(os.environ), steps)
