# SPDX-License-Identifier: Apache-2.0
"""Every line and branch of the compiler is taken by a program that runs on the RTL in `test_bit_exact.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("reached.py")


def test_every_branch_of_the_compiler_is_reached():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    *_, total = done.stdout.splitlines()
    assert total.split()[-1] == "100%", done.stdout
