# SPDX-License-Identifier: Apache-2.0
"""How long the simulator takes to build, and how fast it runs, by compiler, as a Markdown table.

    python benchmarks/simulator.py

Every row is built anew, and runs the same photo. Compare rows of one table, of a machine that does nothing
else.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from record import Record, record

import rowvit
from rowvit.cli.options import DEFAULT_CONFIG
from rowvit.formats.bundled import MODELS
from rowvit.hardware import config as configs
from rowvit.sim import cxx, verilate

#: what is tried: a name, the variable CXX, and what is set otherwise
VARIANTS = {
    "g++, with the pass that is left out": ("g++", dict(WITHOUT=())),
    "g++": ("g++", {}),
    "g++ -O1": ("g++", dict(FAST="-O1")),
    "clang++": ("clang++", {}),
}


@contextmanager
def variant(compiler: str, values: dict[str, object]) -> Iterator[None]:
    """A compiler and other constants of `cxx` and `verilate`, with an empty cache."""
    before = dict(os.environ), cxx.WITHOUT, verilate.FAST
    with tempfile.TemporaryDirectory() as cache:
        os.environ |= {"CXX": compiler, "ROWVIT_CACHE": cache}
        cxx.WITHOUT = values.get("WITHOUT", cxx.WITHOUT)
        verilate.FAST = values.get("FAST", verilate.FAST)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before[0])
            _, cxx.WITHOUT, verilate.FAST = before


def spent() -> float:
    """Seconds of processor time of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(
    config: Annotated[str, typer.Option(help="Hardware configuration.")] = DEFAULT_CONFIG,
    also: Annotated[list[str], typer.Option(help="More compilers, as CXX takes them.")] = [],  # noqa: B006
    record_them: Record = False,
) -> None:
    """Build and run a simulator with each compiler that is here."""
    hardware, photo = configs.load(config), MODELS / "sign_digits_photos" / "3_0618.jpg"
    print("| compiler | build, s | of processors, s | kHz |\n| -- | -- | -- | -- |")
    for name, (compiler, values) in {**VARIANTS, **{one: (one, {}) for one in also}}.items():
        if shutil.which(compiler.split()[0]) is None:
            continue
        with variant(compiler, values):
            began, before = time.monotonic(), spent()
            verilate.build(hardware)
            built, cost = time.monotonic() - began, spent() - before
            rates = []
            with rowvit.open("sim", hardware) as acc:
                acc.load("sign-digits")
                for _ in range(4):  # the fastest: what else the machine does only makes it slower
                    begin = time.process_time()
                    (result,) = acc([photo])
                    rates.append(result.cycles / (time.process_time() - begin) / 1e3)
        figures = {"seconds": round(built, 1), "processor_seconds": round(cost, 1), "khz": round(max(rates))}
        print(f"| {name} | {built:.0f} | {cost:.0f} | {max(rates):.0f} |", flush=True)
        if record_them:
            record("simulator", f"{config} {name}", figures, "verilator", compiler.split()[0])


if __name__ == "__main__":
    typer.run(main)
