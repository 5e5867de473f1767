# SPDX-License-Identifier: Apache-2.0
"""The command ``rowvit``: a module for each family of commands, imported when one of them is used."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.main import get_command

import rowvit
from rowvit.cli.common import Group, app, say

__all__ = ["app"]

#: commands by the module that has them, in the order of the help
MODULES = {
    "run": ("run", "profile"),
    "features": ("features",),
    "model": ("import", "compile", "disasm", "info"),
    "fits": ("fits",),
    "train": ("train", "eval"),
    "networks": ("relu", "narrow", "prune", "quantise"),
    "teach": ("teach",),
    "measure": ("bench", "baseline", "power", "power-log", "report"),
    "serve": ("serve", "certificate"),
    "hardware": ("verify-overlay", "diagnose", "config", "overlays"),
    "doctor": ("doctor",),
}
_MODULE_OF = {command: module for module, commands in MODULES.items() for command in commands}


class _Commands(Group):
    """Imports what a command needs when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_MODULE_OF)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands:
            # of a command that there is not, something like it may be suggested
            for module in {_MODULE_OF[cmd_name]} if cmd_name in _MODULE_OF else MODULES:
                import_module(f"rowvit.cli.{module}")  # adds its commands to `app`
            self.commands = vars(get_command(app))["commands"]
        return super().get_command(ctx, cmd_name)


def _version_wanted(wanted: bool) -> None:
    if wanted:
        say(f"rowvit {rowvit.__version__}")
        raise typer.Exit


@app.callback(cls=_Commands)
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version_wanted, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Vision transformers on the rowvit accelerator.

    Try: rowvit run sign-digits --target sim --check
    """
