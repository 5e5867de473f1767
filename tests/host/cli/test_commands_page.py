# SPDX-License-Identifier: Apache-2.0
"""docs/commands.md is what the commands say today, and they say it with units."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rowvit.cli import app

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("mdformat")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import commands

    return commands


def test_the_page(made) -> None:
    """Else: python benchmarks/commands.py."""
    assert (ROOT / "docs" / "commands.md").read_text() == made.page()


def test_every_option_has_a_unit_and_a_word(made) -> None:
    """Or says what it may be; a flag has neither unit nor value."""
    for name, command, context in made.commands():
        for one in command.get_params(context):
            assert one.help, (name, one.name)
            flag = one.param_type_name == "option" and one.is_flag
            assert bool(one.metavar) != flag, (name, one.name)


def test_helps_show_no_types_of_python(made) -> None:
    for name, _, _ in made.commands():
        text = CliRunner().invoke(app, [*name.split()[1:], "-h"], env={"COLUMNS": "200"}).output
        assert "Show this message" in text and not re.search(r"<\w*(str|Path|int|float|bool)\b", text), name


def test_every_command_with_a_file_has_an_example(made) -> None:
    without = {name for name, command, _ in made.commands() if not made.examples(command)}
    assert without == {f"rowvit {name}" for name in ("doctor", "config list")} | {
        f"rowvit overlays {name}" for name in ("list", "fetch", "verify")
    }


def test_pictures_are_what_matplotlib_writes() -> None:
    pytest.importorskip("matplotlib")
    from rowvit.cli.options import PICTURES
    from rowvit.measure.draw import plots

    for suffix in re.findall(r"\.\w+", PICTURES):
        plots.can_save(Path(f"picture{suffix}"))
