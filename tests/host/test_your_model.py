# SPDX-License-Identifier: Apache-2.0
"""The walk of docs/your-model.md, command by command as it stands there."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("timm")

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "your-model.md").read_text()


@pytest.mark.slow
def test_walk(tmp_path: Path) -> None:
    """From a timm name, with random weights in the place of the hub's, to a photo on the simulated RTL."""
    lines = DOCUMENT.split("## In ten minutes")[1].split("\n- ")[0].splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("    rowvit ")]
    assert [command[1] for command in commands] == ["import", "relu", "quantise", "run"]
    shutil.copytree(ROOT / "host" / "rowvit" / "models" / "sign_digits_photos", tmp_path / "photos")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "host")}
    for _, name, *arguments in commands:
        found = subprocess.run(
            [sys.executable, "-m", "rowvit.cli", name, *arguments, *(["--random"] * (name == "import"))],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
        )
        print(found.stdout)
        assert found.returncode == 0, found.stderr
    assert "1 of 1, bit for bit" in found.stdout
