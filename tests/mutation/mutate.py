# SPDX-License-Identifier: Apache-2.0
"""Which mutants of the RTL or of the compiler the tests find, as a Markdown table: ``make mutate``.

A sample is drawn by a seed, from every module by its size and at least two. Each mutant gets its own copy of
the project and meets tests until one fails. For the RTL: those of the units that contain it, the proofs about
it, networks on `tiny`, and random networks on larger arrays. For the compiler: what its programs cost, the
checker's, those of files, programs on the model of the machine, and networks on the RTL. `equivalents.toml`
names the mutants that no test can find, each with the reason.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated

import typer
from mutants import ROOT, Mutant, instances, modules, mutants, ordered
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from rowvit.hardware.config import tomllib

HERE = Path(__file__).parent
UNITS = ROOT / "tests" / "unit"
BUILD = ROOT / "build" / "mutation"
SECONDS = 300  # that a step may take, several times what any does; a fault that hangs is found by that
#: of computing, and bytes of memory, that a step may take for a fault in Python, however busy the machine is
COMPUTING = {"cycles": 40, "checker": 180, "files": 120, "fits": 60, "model": 180, "rtl": 400}
BYTES = 8 << 30
#: that the tests need of the project
COPIED = ("host", "rtl", "hls", "tests", "benchmarks", "bitstreams", "pyproject.toml")
BIT_EXACT = "tests/network/test_bit_exact.py"
#: on `tiny`, then on arrays with more rows
NETWORKS = (
    ["-k", "dead_row or (random_networks and not 2x3 and not 4x1 and not 8x2)", BIT_EXACT],
    ["tests/host/targets/test_restarts.py"],
    ["tests/network/test_profile.py"],
    ["-k", "random_networks or any_size", BIT_EXACT],
)
FILES = [f"tests/host/formats/test_{name}.py" for name in ("program", "descriptions")]
#: for the compiler, from fast to slow
COMPILER = (
    ("cycles", ["tests/network/test_schedules.py"]),
    ("checker", ["tests/host/compiler/test_check.py"]),
    ("files", ["-k", "program or compiled", *FILES]),
    ("fits", ["tests/measure/speed/test_fits.py"]),
    ("model", ["-k", "not share and not random", "tests/host/compiler/test_compiler.py"]),
    ("model", ["-k", "share or random", "tests/host/compiler/test_compiler.py"]),
    ("rtl", [BIT_EXACT]),
)
#: what is for a module itself, and comes first
OWN = {"checker": "checker", "cells": "checker", "program": "files"}
EQUIVALENT = "equivalent"
SURVIVOR = "survivor"
UNBUILT = "does not build"
PLURAL = {name: f"{name}s" for name in ("unit", "network", "proof", SURVIVOR)}


def units() -> dict[str, list[str]]:
    """Test file -> the modules that it names, which it builds."""
    return {
        f"tests/unit/{path.name}": sorted(
            set(re.findall(r'"(rowvit_\w+)"', path.read_text())) & set(modules())
        )
        for path in sorted(UNITS.glob("test_*.py"))
    }


def units_of(module: str) -> list[str]:
    """The unit tests whose units contain the module, its own first."""
    found = {
        path: min(len(instances(top)) for top in tops if module in instances(top))
        for path, tops in units().items()
        if any(module in instances(top) for top in tops)
    }
    return sorted(found, key=lambda path: (module not in units()[path], found[path]))


def proofs_of(module: str) -> str | None:
    """What ``pytest -k`` finds the proofs by of all that the module is in; None: there is none."""
    text = (ROOT / "tests/formal/test_proofs.py").read_text()
    named = sorted(set(re.findall(r'"(rowvit_\w+)"', text)) & set(modules()))
    tops = [top for top in named if module in instances(top)]
    if not tops:
        return None
    names = " or ".join(f"{name}]" for top in tops for name in (top.removeprefix("rowvit_"), top))
    return f"(test_holds or test_a_reset_of_one_cycle_is_whole) and ({names})"


def steps(module: str) -> list[tuple[str, list[str]]]:
    """What a mutant of the module meets in turn: arguments of pytest, behind variables of its environment."""
    if module in modules("compiler"):
        return sorted(COMPILER, key=lambda step: step[0] != OWN.get(module))
    found = [("unit", [path]) for path in units_of(module)]
    if proofs := proofs_of(module):
        found.append(("proof", ["-m", "formal", "-k", proofs, "tests/formal/test_proofs.py"]))
    return found + [("network", arguments) for arguments in NETWORKS]


class Copy:
    """A copy of the project below ``build``, for one mutant at a time."""

    def __init__(self, number: int):
        self.root = BUILD / f"copy{number}"
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        for name in COPIED:
            source, target = ROOT / name, self.root / name
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
                shutil.copytree(source, target, symlinks=True, ignore=ignore)
            else:
                shutil.copy(source, target)
        # a simulator is built for a few seconds of running: without optimisation, in a third of the time
        compiler = self.root / "bin" / "g++"
        compiler.parent.mkdir()
        compiler.write_text(f'#!/bin/bash\nexec {shutil.which("g++")} "${{@/#-O2/-O0}}"\n')
        compiler.chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{compiler.parent}{os.pathsep}{os.environ['PATH']}",
            "CXX": str(compiler),
            "PYTHONPATH": str(self.root / "host"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HYPOTHESIS_STORAGE_DIRECTORY": str(self.root / "hypothesis"),
            "COCOTB_MAX_FAILURES": "1",
        }

    def outcome(self, mutant: Mutant) -> str:
        """What finds the mutant: a step's name and test; `SURVIVOR` or `UNBUILT`."""
        target = self.root / mutant.path.relative_to(ROOT)
        target.write_bytes(mutant.source())
        try:
            if not self._builds(target):
                return UNBUILT
            for name, arguments in steps(mutant.module):
                if failed := self._failed(name, arguments):
                    return f"{name}: {failed}"
            return SURVIVOR
        finally:
            shutil.rmtree(self.root / "cache", ignore_errors=True)
            shutil.rmtree(self.root / "build", ignore_errors=True)
            target.write_bytes(mutant.path.read_bytes())

    def sound(self, chosen: list[str]) -> None:
        """RuntimeError if a test of the modules fails without a fault: it would find every mutant."""
        for name, arguments in {(name, tuple(a)) for module in chosen for name, a in steps(module)}:
            if failed := self._failed(name, list(arguments)):
                raise RuntimeError(f"{failed} ({name}) fails without a mutant: mend it first")

    def _builds(self, target: Path) -> bool:
        if target.suffix == ".py":
            try:
                compile(target.read_bytes(), target, "exec")
            except SyntaxError:
                return False
            return True
        sources = [str(path) for path in sorted((self.root / "rtl").rglob("*.v"))]
        command = ["verilator", "--lint-only", "-Wno-lint", "-Wno-fatal", f"-I{self.root / 'rtl'}"]
        done = subprocess.run([*command, "--top-module", "rowvit_top", *sources], capture_output=True)
        return done.returncode == 0

    def _failed(self, step: str, arguments: list[str]) -> str:
        """The first test that fails; "": none does. A fault in Python leaves the simulators as they are."""
        computing = COMPUTING.get(step)
        variables = [argument for argument in arguments if "=" in argument]
        command = [
            "env",
            *variables,
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "--tb=no",
            "-p",
            "no:cacheprovider",
        ]
        command += ["--hypothesis-profile", "first", *arguments[len(variables) :]]
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment | ({} if computing else {"ROWVIT_CACHE": str(self.root / "cache")}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # its simulators end with it
            preexec_fn=partial(_limit, computing) if computing else None,
        )
        seconds = 20 * computing if computing else SECONDS
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"{arguments[-1]} (not done in {seconds} s)"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode in (0, 5):  # passed, or none selected
            return ""
        if process.returncode == -signal.SIGKILL:
            return f"{arguments[-1]} (not done in {computing} s of computing)"
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
        return failed[0] if failed else f"{arguments[-1]} ({output.strip().splitlines()[-1]})"


def _limit(seconds: int) -> None:
    """Ends the process where a fault makes a loop endless, or an array large."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))


def equivalents() -> dict[tuple[str, str, str], str]:
    """Module, line and mutated line -> why no test can find it. ValueError if it is no mutant any more."""
    found = {}
    for entry in tomllib.loads((HERE / "equivalents.toml").read_text()).get("equivalent", ()):
        key = entry["module"], entry["line"], entry["mutant"]
        if key not in {(m.module, *m.change()) for m in mutants(entry["module"])}:
            raise ValueError(f"equivalents.toml: {entry['module']} has no such mutant: {entry['mutant']}")
        found[key] = entry["reason"]
    return found


def sample(count: int, seed: int, only: list[str]) -> list[Mutant]:
    """About ``count`` mutants: of every module by its size, and at least two; in a random order."""
    sizes = {module: len(mutants(module)) for module in only}
    total = sum(sizes.values())
    found = [
        mutant
        for module, size in sizes.items()
        for mutant in ordered(module, seed)[: max(2, math.floor(count * size / total))]
    ]
    random.Random(seed).shuffle(found)
    return found


def table(results: list[tuple[Mutant, str]]) -> str:
    """Per module: mutants that build, and what found them."""
    compiled = any(mutant.module in modules("compiler") for mutant, _ in results)
    found_by = list(dict(COMPILER)) if compiled else ["unit", "network", "proof"]
    columns = [*found_by, EQUIVALENT, SURVIVOR]
    heads = ["module", "mutants", *(PLURAL.get(name, name) for name in columns)]
    lines = [f"| {' | '.join(heads)} |", f"|{' -- |' * len(heads)}"]
    counts: dict[str, Counter[str]] = {}
    for mutant, outcome in results:
        if outcome != UNBUILT:
            counts.setdefault(mutant.module, Counter())[outcome.partition(":")[0]] += 1
    for module, found in [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]:
        numbers = [found.total(), *(found[column] for column in columns)]
        lines.append(f"| `{module}` | {' | '.join(map(str, numbers))} |".replace("`all`", "all"))
    return "\n".join(lines)


def score(results: list[tuple[Mutant, str]]) -> float:
    """Share of the mutants that were found, of those that build and are not judged equivalent."""
    outcomes = [outcome for _, outcome in results if outcome not in (UNBUILT, EQUIVALENT)]
    return 1 - outcomes.count(SURVIVOR) / max(1, len(outcomes))


def run(chosen: list[Mutant], jobs: int, log: Path) -> list[tuple[Mutant, str]]:
    """Outcomes of the mutants; what was found is kept in ``log`` and is not run again."""
    judged = equivalents()
    kept = {}
    if log.exists():
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            kept[entry["module"], entry["line"], entry["mutant"], entry["operator"]] = entry["outcome"]
    copies: SimpleQueue[Copy] = SimpleQueue()
    for number in range(jobs):
        copies.put(Copy(number))
    lock = threading.Lock()

    def one(mutant: Mutant) -> tuple[Mutant, str]:
        line, after = mutant.change()
        key = mutant.module, line, after, mutant.operator
        if key[:3] in judged:
            return mutant, EQUIVALENT
        if key in kept and kept[key] != SURVIVOR:
            return mutant, kept[key]
        copy = copies.get()
        begin = time.monotonic()
        try:
            outcome = copy.outcome(mutant)
        finally:
            copies.put(copy)
        entry = {
            "module": mutant.module,
            "operator": mutant.operator,
            "number": mutant.line,
            "line": line,
            "mutant": after,
            "outcome": outcome,
            "seconds": round(time.monotonic() - begin),
        }
        with lock, log.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        return mutant, outcome

    columns = (*Progress.get_default_columns(), TextColumn("{task.completed} of {task.total}"))
    with Progress(*columns, TimeElapsedColumn()) as progress, ThreadPoolExecutor(jobs) as pool:
        return list(progress.track(pool.map(one, chosen), total=len(chosen), description="mutants"))


class Of(str, Enum):
    """What is mutated, and how many mutants are a sample."""

    RTL, COMPILER = "rtl", "compiler"

    @property
    def count(self) -> int:
        return 150 if self is Of.RTL else 300


def main(
    of: Annotated[Of, typer.Option(help="What is mutated.")] = Of.RTL,
    count: Annotated[int | None, typer.Option(help="Mutants, about.", show_default="150 or 300")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 1,
    module: Annotated[list[str] | None, typer.Option(help="Only of these modules.")] = None,
    jobs: Annotated[int, typer.Option(help="At a time.")] = 2,
    resume: Annotated[bool, typer.Option(help="Run only what was not found before.")] = False,
    least: Annotated[float, typer.Option(help="Score below which the exit code is 1.")] = 0.95,
) -> None:
    """Run a sample of mutants; a table, the survivors and the score."""
    if unknown := set(module or ()) - set(modules(of.value)):
        raise typer.BadParameter(f"no module {', '.join(sorted(unknown))} of the {of.value}")
    BUILD.mkdir(parents=True, exist_ok=True)
    log = BUILD / f"{of.value}-seed{seed}.jsonl"
    chosen = sample(count or of.count, seed, module or modules(of.value))
    if not resume:
        log.unlink(missing_ok=True)
        Copy(0).sound(sorted({mutant.module for mutant in chosen}))
    results = run(chosen, jobs, log)
    print(table(results))
    for mutant, outcome in results:
        if outcome == SURVIVOR:
            before, after = mutant.change()
            print(f"\n{mutant.module}:{mutant.line}, {mutant.operator}\n- {before}\n+ {after}")
    found = score(results)
    print(f"\nscore {found:.1%} of {sum(o not in (UNBUILT, EQUIVALENT) for _, o in results)}")
    raise typer.Exit(int(found < least))


if __name__ == "__main__":
    typer.run(main)
