# SPDX-License-Identifier: Apache-2.0
"""Commands for a board and its files: verify-overlay and diagnose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rowvit.cli.common import ERR, app, print_advice, print_check, sentences
from rowvit.cli.options import DEFAULT_CONFIG, BitstreamOption, ConfigOption, TargetName
from rowvit.errors import RowvitError


@app.command("verify-overlay")
@sentences
def verify_overlay(
    bitstream: Annotated[Path, typer.Argument(help="The .bit; its .hwh and .json must be next to it.")],
) -> None:
    """Check a bitstream by its files, without a board: one build, configuration, DMA, ports, clock.

    Example
    -------
      rowvit verify-overlay rowvit-pynq-z2.bit
    """
    from rowvit.overlay.verify import verify

    checks = verify(bitstream)
    for check in checks:
        print_check(check)
    if not print_advice(checks):
        raise typer.Exit(1)


@app.command()
@sentences
def diagnose(
    target: Annotated[
        TargetName, typer.Option("--target", "-t", help="board: this board; sim: the simulated one.")
    ] = TargetName.board,
    config: ConfigOption = DEFAULT_CONFIG,
    bitstream: BitstreamOption = None,
) -> None:
    """Check the board step by step, from its files to a network with known logits.

    It stops at the first step that fails, and says below the table what to do.

    Examples
    --------
      rowvit diagnose --bitstream rowvit-pynq-z2.bit

      rowvit diagnose --target sim
    """
    from rowvit.hardware import config as configs
    from rowvit.targets.diagnose import diagnose as walk

    if target is TargetName.golden:
        raise RowvitError("golden has nothing to diagnose", "use --target board or sim")
    checks = []
    with ERR.status("looking for the device") as status:
        for check in walk(target.value, configs.load(config), bitstream):
            status.stop()  # it would occupy standard output, too
            print_check(check)
            checks.append(check)
            status.update(f"after {check.name}")
            status.start()
    if not print_advice(checks):
        raise typer.Exit(1)
