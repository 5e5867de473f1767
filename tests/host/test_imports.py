# SPDX-License-Identifier: Apache-2.0
"""What is imported: PYNQ takes seconds on a board's processor, and nothing but a device needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "code",
    [
        "import rowvit.cli",
        "from rowvit.targets.driver import Accelerator",
        "import rowvit.compiler.cache, rowvit.overlay.verify, rowvit.overlay.bitfile",
        "import rowvit.targets.session, rowvit.targets.golden",
        "from rowvit.cli import app; app(['fits', 'sign-digits'], standalone_mode=False)",
        "from rowvit.cli import app; app('run sign-digits --target golden'.split(), standalone_mode=False)",
        "import rowvit; rowvit.open('golden').load('sign-digits')",
    ],
)
def test_pynq_comes_with_a_device(code: str) -> None:
    check = "import sys; bad = {'pynq', 'torch', 'matplotlib'} & set(sys.modules); assert not bad, bad"
    subprocess.run([sys.executable, "-c", f"{code}\n{check}"], check=True)


def test_commands_come_when_they_are_used() -> None:
    """The table of modules is what each of them has; the command alone does not even need NumPy."""
    code = (
        "import sys, rowvit.cli as cli; from typer.main import get_command\n"
        "assert not {'numpy', *(f'rowvit.cli.{name}' for name in cli.MODULES)} & set(sys.modules)\n"
        "group = get_command(cli.app)\n"
        "for module, commands in cli.MODULES.items():\n"
        "    before = set(group.commands)\n"
        "    assert all(group.get_command(None, name) for name in commands)\n"
        "    assert set(group.commands) - before == set(commands), (module, commands)\n"
        "assert set(group.commands) == set(group.list_commands(None))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_the_overlay() -> None:
    """They come when they are asked for, and others do not."""
    code = (
        "import sys, rowvit.overlay as room; assert 'pynq' not in sys.modules\n"
        "assert all(getattr(room, name).__name__ == name for name in room.__all__)\n"
        "assert 'pynq' in sys.modules and not hasattr(room, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
