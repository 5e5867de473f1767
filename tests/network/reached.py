# SPDX-License-Identifier: Apache-2.0
"""Which lines and branches of the compiler no case of `test_bit_exact.py` takes, all of which run on the RTL.

    python tests/network/reached.py

What no program that runs can take is excluded here, each with its reason.
"""

from __future__ import annotations

import coverage

#: patterns of lines, which stand for all that belongs to them, and why no case takes them
EXCLUDED = {
    r"\braise\b": "refusals; their tests are tests/host/compiler/test_compiler.py and test_check.py",
    r"except ValueError": "what a refusal is made of",
    r"def (disasm|problem|chunks|what_fits|on_chip)\(": "texts, advice and sizes, of no program",
    r"def (name|__str__|_where)\(": "texts of refusals",
    r"if number < 0 or found\.tobytes\(\) != ": "what a refusal names",
}


def main() -> None:
    """Print what is missing, and a line that says how much there is."""
    measured = coverage.Coverage(branch=True, data_file=None, include=["*/rowvit/compiler/*"])
    measured.set_option("report:exclude_lines", list(EXCLUDED))
    measured.start()
    from draws import ARRAYS, NUMBERS, case

    for array in ARRAYS:
        for number in NUMBERS[array]:
            case(array, number)
    measured.stop()
    measured.report(show_missing=True)


if __name__ == "__main__":
    main()
