# SPDX-License-Identifier: Apache-2.0
"""Every line and branch of the compiler is taken by a program that runs on the RTL in `test_bit_exact.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from draws import ARRAYS, NUMBERS, case

from rowvit.hardware.isa import Flag, Op

SCRIPT = Path(__file__).with_name("reached.py")


def test_every_branch_of_the_compiler_is_reached():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    *_, total = done.stdout.splitlines()
    assert total.split()[-1] == "100%", done.stdout


def test_loads_of_late_bands_are_reached():
    """Rows of W2 for the last bands of images which run alone in a layer before others share: what a branch
    of the compiler does not show, and random networks hardly ever have.
    """
    found = 0
    for array in ARRAYS:
        for number in NUMBERS[array]:
            one = case(array, number)
            code = one.program.passes[-1]
            late = [i for i in code.instructions if i.op is Op.LOAD and Flag.GATHER in i.flags and i.image]
            found += one.batch >= code.images and any(i.fields["band0"] for i in late)
    assert found >= 4
