# SPDX-License-Identifier: Apache-2.0
"""fifo and skid_buffer proved by induction with Yosys' SAT solver; broken copies must not prove."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from waiting import HANG

HERE = Path(__file__).parent
STREAM = HERE.parents[1] / "rtl" / "stream"

#: module -> (probe wires and the registers they show, registers that start at 0)
PROOFS = {
    "rowvit_fifo": (
        {"read": "read_q", "write": "write_q", **{f"mem{i}": f"mem_q[{i}]" for i in range(4)}},
        ("count_q", "read_q", "write_q"),
    ),
    "rowvit_skid_buffer": ({"skid_data": "skid_data_q"}, ("out_valid_q", "skid_valid_q")),
}
#: module, text, replacement
MUTANTS = (
    ("rowvit_fifo", "assign in_ready_o = !count_q[AW]", "assign in_ready_o = 1'b1"),
    ("rowvit_fifo", "{AW + 1{pop && !push}}", "{AW + 1{pop}}"),
    ("rowvit_skid_buffer", "if (!skid_valid_q) skid_data_q", "skid_data_q"),
    ("rowvit_skid_buffer", "!rst_ni || clear_i", "!rst_ni"),
)

pytestmark = [
    pytest.mark.formal,
    pytest.mark.skipif(shutil.which("yosys") is None, reason="needs yosys on PATH"),
]


def proves(module: str, source: Path) -> bool:
    """Whether every assertion about ``module`` in ``source`` holds in every reachable state."""
    probes, zeros = PROOFS[module]
    script = [
        f"read_verilog -formal {HERE / 'queue_proof.v'} {source}",
        f"hierarchy -top {module}_proof",
        "proc",
        "flatten",
        "memory -nordff",
        *(rf"connect -set {wire} \u_dut.{register}" for wire, register in probes.items()),
        "opt_clean",
        "chformal -lower",
        "sat -verify -tempinduct -maxsteps 4 -prove-asserts -set-init u_plain.count_o 0 "
        + " ".join(f"-set-init u_dut.{register} 0" for register in zeros),
    ]
    result = subprocess.run(["yosys", "-p", "\n".join(script)], capture_output=True, text=True, timeout=HANG)
    proved = "Induction step proven: SUCCESS!" in result.stdout
    assert proved or re.search("proof did fail", result.stderr + result.stdout), result.stderr
    return proved


@pytest.mark.parametrize("module", PROOFS)
def test_proof(module):
    assert proves(module, STREAM / f"{module}.v")


@pytest.mark.parametrize("module, text, replacement", MUTANTS)
def test_mutant_does_not_prove(module, text, replacement, tmp_path):
    source = (STREAM / f"{module}.v").read_text()
    assert text in source
    mutant = tmp_path / f"{module}.v"
    mutant.write_text(source.replace(text, replacement))
    assert not proves(module, mutant)
