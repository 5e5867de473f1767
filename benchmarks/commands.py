# SPDX-License-Identifier: Apache-2.0
"""docs/commands.md: what the helps of all commands say, on one page.

    python benchmarks/commands.py

Names, units, defaults and words are those of the options in ``host/rowvit/cli``, their one home.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mdformat
import typer
from typer.main import get_command

from rowvit.cli import app
from rowvit.hardware.config import tomllib

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
_HEAD = """# Commands

What `rowvit COMMAND -h` prints, on one page: made of the commands by `python benchmarks/commands.py`.
`rowvit -h` lists them, `rowvit --install-completion` completes them in your shell, and `rowvit doctor`
says what works on a machine.

Exit codes: 0; 1 if something that was checked is wrong, or a file was left out (but for photos by which
`train`, `relu`, `narrow`, `prune` and `quantise` measure accuracy beside their work); 2 if a command
could not do its work, which standard error explains: in one sentence, or where a word of the command line
is wrong, by the usage of the command as well.
"""


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Name, command and context of every command."""
    yield from _below("rowvit", get_command(app), None)


def _below(name: str, command: Any, parent: Any) -> Iterator[tuple[str, Any, Any]]:
    context = typer.Context(command, info_name=name.split()[-1], parent=parent)
    if not hasattr(command, "list_commands"):
        yield name, command, context
        return
    for inner in command.list_commands(context):
        yield from _below(f"{name} {inner}", command.get_command(context, inner), context)


def examples(command: Any) -> list[str]:
    """Of its help."""
    return re.findall(r"^ +((?:rowvit|torchrun) .*)$", _parts(command)[1], re.MULTILINE)


def _parts(command: Any) -> tuple[str, str]:
    """Of a help: the text, and what is below the title of the examples."""
    text, _, below = re.sub(r"\n *(Examples?)\n *-+\n", "\n\f", command.help or "").partition("\f")
    return text.strip(), below


def page() -> str:
    """All of it, as Markdown."""
    parts = [_HEAD]
    for name, command, context in commands():
        parts += [f"## {name}", _parts(command)[0]]
        if lines := examples(command):
            parts.append("\n".join(["```sh", *lines, "```"]))
        rows = [_row(one) for one in command.get_params(context) if one.name != "help"]
        if rows:
            parts.append("\n".join(["|  | default |  |", "| -- | -- | -- |", *rows]))
    options = tomllib.loads((PAGE.parents[1] / ".mdformat.toml").read_text())
    return mdformat.text("\n\n".join(parts), options=options, extensions={"gfm", "tables"})


def _row(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = []
    shown = ", ".join(f"`{name}`" for name in names)
    if parameter.metavar:
        shown = f"{shown} `{parameter.metavar}`".strip()
    cells = shown, _default(parameter), parameter.help
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    value = parameter.default
    if parameter.required:
        return "required"
    if isinstance(value, bool):
        return (
            f"`{(parameter.opts if value else parameter.secondary_opts)[0]}`"
            if parameter.secondary_opts
            else ""
        )
    if value in (None, "", ()) or not parameter.show_default or callable(value):
        return ""
    value = value.value if isinstance(value, enum.Enum) else value
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page())
