# SPDX-License-Identifier: Apache-2.0
"""Elaborates every configuration with slang, which is as strict as synthesis tools are.

    python tests/lint/slang.py

It ends with 1 if there is an error or a warning.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pyslang.driver import CommandLineOptions, Driver

from rowvit.hardware import config as configs
from rowvit.sim.verilate import RTL, parameters, sources

#: an array of one group shifts its only bit out (rowvit_drain_mask)
FLAGS = "--std 1364-2005 --top rowvit_top -Wextra -Werror -Wno-shift-count-overflow"
DSP = Path(__file__).parents[2] / "benchmarks" / "dsp_shaped.v"  # has all ports of the primitive


def elaborates(config: configs.HardwareConfig, dsp: int) -> bool:
    """Whether slang has nothing to say of a configuration, with or without DSP48E1; it prints what it has."""
    values = {**parameters(config), "USE_DSP": dsp}
    words = [f"-G {name}={value}".replace("'", r"\'") for name, value in values.items()]
    driver = Driver()
    driver.addStandardArgs()
    line = " ".join(["slang", FLAGS, "-I", str(RTL), *words, *map(str, [*sources(), DSP])])
    return (
        driver.parseCommandLine(line, CommandLineOptions())
        and driver.processOptions()
        and driver.parseAllSources()
        and driver.runFullCompilation(True)
    )


def main() -> None:
    """Print the configurations that elaborate; exit 1 if one does not."""
    made = {(name, dsp): elaborates(configs.load(name), dsp) for name in configs.names() for dsp in (0, 1)}
    print(f"slang: {sum(made.values())} of {len(made)} configurations elaborate without a warning")
    sys.exit(not all(made.values()))


if __name__ == "__main__":
    main()
