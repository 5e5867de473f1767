# SPDX-License-Identifier: Apache-2.0
"""What the reports by Yosys have in common: reading a configuration's top, and names of modules."""

from __future__ import annotations

import re

from rowvit.hardware.config import load
from rowvit.sim.verilate import RTL, parameters, sources


def read_top(config: str) -> str:
    """Yosys commands that read the RTL and set the top's parameters, with DSP48E1 instances."""
    values = parameters(load(config)) | {"USE_DSP": "1"}
    sets = " ".join(f"-set {name} {value}" for name, value in values.items())
    return f"read_verilog -I{RTL} {' '.join(map(str, sources()))}; chparam {sets} rowvit_top"


def module_name(name: str) -> str:
    """A module's own name, without what Yosys adds for its parameters."""
    return re.sub(r"^\$paramod(\$[0-9a-f]+)?\\|\\.*=.*$", "", name)
