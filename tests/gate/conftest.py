# SPDX-License-Identifier: Apache-2.0
"""Gate-level tests use the harness of the unit tests and need Yosys and Icarus."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
