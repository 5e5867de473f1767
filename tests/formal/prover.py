# SPDX-License-Identifier: Apache-2.0
"""Runs Yosys' model checker (yosys-smtbmc with the solver yices) over a proof and over mutants of its RTL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from waiting import HANG

HERE = Path(__file__).parent
RTL = HERE.parents[1] / "rtl"


@dataclass(frozen=True)
class Mutant:
    """A fault put into the RTL: in ``module``, ``text`` (which is there once) becomes ``replacement``."""

    module: str
    text: str
    replacement: str


@dataclass(frozen=True)
class Proof:
    """A module ``NAME_proof`` in ``NAME_proof.v`` whose assertions hold.

    Parameters
    ----------
    name : str
    modules : tuple of str
        Of the RTL that it needs.
    depth : int
        Steps: of the bounded check from the initial state, and of the induction.
    induction : bool
        Whether the assertions are shown for all time, and not only for ``depth`` cycles.
    cover : int
        Steps in which every ``cover`` is reached; 0: there are none.
    mutants : tuple of Mutant
        Faults, each of which breaks an assertion within ``depth`` or ``bound`` steps.
    """

    name: str
    modules: tuple[str, ...]
    depth: int
    induction: bool = True
    cover: int = 0
    mutants: tuple[Mutant, ...] = ()
    #: steps in which the mutants are found, where the induction needs fewer
    bound: int = 0

    def model(self, work: Path, mutant: Mutant | None = None) -> Path:
        """The transition relation as SMT-LIB; a wire without driver in the harness fails."""
        sources = [next(RTL.rglob(f"{module}.v")) for module in self.modules]
        # with what the RTL says of itself
        return model(
            [HERE / f"{self.name}_proof.v", *mutated(sources, mutant, work)],
            f"{self.name}_proof",
            work,
            "-DROWVIT_ASSERT",
        )

    def holds(self, work: Path, mutant: Mutant | None = None) -> bool:
        """Whether the assertions hold; with a mutant only the bounded check is run."""
        model = self.model(work, mutant)
        if mutant:
            return smtbmc(model, "-t", str(self.bound or self.depth))
        steps = str(self.depth)
        return smtbmc(model, "-t", steps) and (not self.induction or smtbmc(model, "-i", "-t", steps))

    def covers(self, work: Path) -> bool:
        """Whether every ``cover`` is reached: the assumptions leave something to prove."""
        return smtbmc(self.model(work), "-c", "-t", str(self.cover))


def available() -> bool:
    """Whether Yosys and the solver are there."""
    return shutil.which("yosys-smtbmc") is not None and shutil.which("yices-smt2", path=_path()) is not None


def _path() -> str:
    """With the environment's own programs: the solver comes from PyPI."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def mutated(sources: Sequence[Path], mutant: Mutant | None, work: Path) -> list[Path]:
    """The sources, of which the mutant's has its fault."""
    found = []
    for source in sources:
        if mutant and source.stem == mutant.module:
            text = source.read_text()
            assert text.count(mutant.text) == 1, f"{mutant.text!r} is not there once"
            source = work / source.name
            source.write_text(text.replace(mutant.text, mutant.replacement))
        found.append(source)
    return found


def model(sources: Sequence[Path], top: str, work: Path, define: str = "") -> Path:
    """The transition relation of ``top`` as SMT-LIB; a wire without driver fails."""
    found = work / "model.smt2"
    log = yosys(
        f"read_verilog -formal -sv {define} -I{RTL} {' '.join(map(str, sources))};"
        f" hierarchy -check -top {top};"
        " prep -flatten -nordff; async2sync; chformal -lower; setundef -undriven -anyseq;"
        f" opt -keepdc -fast; dffunmap; write_smt2 -wires {found}"
    )
    assert "is used but has no driver" not in log, log[-4000:]
    return found


def yosys(script: str) -> str:
    """Run a script; its log."""
    done = subprocess.run(["yosys", "-p", script], capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done.stdout


def smtbmc(model: Path, *arguments: str) -> bool:
    command = ["yosys-smtbmc", "-s", "yices", "--noprogress", *arguments, str(model)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=HANG, env=os.environ | {"PATH": _path()}
    )
    # after "BMC failed!" it prints what it found, and may stumble over the solver's answers
    passed = "Status: PASSED" in done.stdout
    failed = "Status: FAILED" in done.stdout or "BMC failed!" in done.stdout
    assert passed != failed, done.stdout + done.stderr
    return passed
