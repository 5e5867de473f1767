# SPDX-License-Identifier: Apache-2.0
"""Thousands of faults around random networks on the simulated RTL, as a Markdown table.

    python tests/host/soak.py                # as make soak
    python tests/host/soak.py --session 17   # the faults of one session again, one by one

A session is one random network on an array of 2 or 4 rows, with one memory and one deadline, and a row of
faults on it, all of `faults.FAULTS` in turn; seed and number say everything about it. Sessions run in two
processes at once. Then one accelerator classifies thousands of files, and its process must not grow. Exit 1
if a result was silently wrong that something could have checked, if a run after a fault was not right, if
anything ended without a sentence or not at all, or if the process grew.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

import rowvit
from faults import CONFIGURATIONS, FAULTS, Outcome, Rig, attempt
from networks import small_package
from rowvit.sim.verilate import build
from rowvit.targets.workers import end_with_parent

FAULTS_EACH = 24  # of a session
GROWTH = 1.0  # MB that a process may grow after its first images
COLUMNS = ("tried", "ended in an error sentence", "finished right", "right afterwards", "silently wrong")


def session(seed: int, number: int) -> list[Outcome]:
    """The faults of one session."""
    names = list(FAULTS)
    chosen = [names[(number * FAULTS_EACH + i) % len(names)] for i in range(FAULTS_EACH)]
    rng = np.random.default_rng([seed, number])
    with Rig(rng) as rig:
        return [attempt(rig, chosen[i]) for i in rng.permutation(FAULTS_EACH)]


def table(outcomes: list[Outcome]) -> Iterator[str]:
    """Rows of counts, and the sums."""
    counts = {name: Counter[str]() for name in (*FAULTS, "**all**")}
    for outcome in outcomes:
        for name in (outcome.fault, "**all**"):
            counts[name].update(["tried", outcome.ended, *["after"] * outcome.after])
    yield f"| fault | {' | '.join(COLUMNS)} |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for name, count in counts.items():
        mark = "" if name not in FAULTS or FAULTS[name].checked else " \\*"
        cells = [f"{count[key]:,}" for key in ("tried", "error", "right", "after", "wrong")]
        yield f"| {name}{mark} | {' | '.join(cells)} |"


def resident() -> float:
    """Memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def growth(count: int) -> tuple[float, float, bool]:
    """MB after a fifth of ``count`` files and after all of them, and whether all results were right."""
    rng = np.random.default_rng(0)
    package = small_package(rng, dim=16, depth=1, heads=1, hidden=16, patch_size=4, image_size=8, pruning=[])
    with tempfile.TemporaryDirectory(prefix="rowvit-") as folder:
        files = [Path(folder, f"{number}.png") for number in range(20)]
        for file in files:
            Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(file)
        with rowvit.open("golden", CONFIGURATIONS[0]) as golden:
            golden.load(package)
            expected = golden(files)
        with rowvit.open("sim", CONFIGURATIONS[0]) as sim:
            sim.load(package)
            early, right = 0.0, True
            for number, result in enumerate(sim.stream(files[i % len(files)] for i in range(count))):
                right &= result.same(expected[number % len(files)])
                if number == count // 5:
                    early = resident()
            return early, resident(), right


def main(
    runs: Annotated[int, typer.Option(help="Faults at least, each followed by a run.")] = 2000,
    images: Annotated[int, typer.Option(help="Images through one accelerator.")] = 5000,
    seed: Annotated[int, typer.Option()] = 1,
    jobs: Annotated[int, typer.Option(help="Processes at once.")] = 2,
    only: Annotated[int | None, typer.Option("--session", help="Run this one, and print its faults.")] = None,
) -> None:
    """Print the table; exit 1 if something was wrong."""
    if only is not None:
        found = session(seed, only)
        for outcome in found:
            print(f"{'' if outcome.passed else 'FAILED '}{outcome.fault}: {outcome.ended} {outcome.text}")
        raise typer.Exit(not all(outcome.passed for outcome in found))
    for config in CONFIGURATIONS:
        build(config)  # once, before the processes need it
    begin, outcomes, bad = time.monotonic(), [], 0
    sessions = range(-(-runs // FAULTS_EACH))
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        for number, found in enumerate(pool.map(partial(session, seed), sessions)):
            outcomes += found
            for outcome in (outcome for outcome in found if not outcome.passed):
                bad += 1
                print(f"session {number}, {outcome.fault}: {outcome.ended} {outcome.text}", file=sys.stderr)
            print(f"{len(outcomes)} of {len(sessions) * FAULTS_EACH} runs", file=sys.stderr, flush=True)
    print("\n".join(table(outcomes)))
    print(
        f"\n{len(outcomes):,} faults in {len(sessions)} sessions, seed {seed}, {jobs} processes at once:"
        f" {time.monotonic() - begin:,.0f} s, {bad} not as they should be"
    )
    begin = time.monotonic()
    early, late, right = growth(images)
    print(
        f"{images:,} images in one process: {early:.1f} MB after {images // 5:,}, {late:.1f} MB at the end,"
        f" {'all' if right else 'NOT all'} equal to the reference, {time.monotonic() - begin:,.0f} s"
    )
    raise typer.Exit(bool(bad) or not right or late > early + GROWTH)


if __name__ == "__main__":
    typer.run(main)
