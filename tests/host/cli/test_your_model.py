# SPDX-License-Identifier: Apache-2.0
"""The walkthrough of docs/your-model.md, command by command."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import HANG

pytest.importorskip("timm")

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "your-model.md").read_text()


def walk(section: str, folder: Path) -> dict[str, str]:
    """What the commands of a section print, by name; with random weights instead of the hub's."""
    lines = DOCUMENT.split(f"## {section}\n")[1].split("\n```\n")[0].splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith(("rowvit ", "python "))]
    shutil.copytree(ROOT / "host" / "rowvit" / "models" / "sign_digits_photos", folder / "photos")
    printed = {}
    for program, name, *arguments in commands:
        if program == "rowvit":
            name, *arguments = "-m", "rowvit.cli", name, *arguments
        arguments += ["--random"] * any(argument.startswith("timm:") for argument in arguments)
        found = subprocess.run(
            [sys.executable, name, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=HANG,
        )
        assert found.returncode == 0, found.stderr
        printed[arguments[1] if program == "rowvit" else program] = found.stdout
    return printed


@pytest.mark.slow
def test_to_a_photo(tmp_path: Path) -> None:
    """From a timm name to a photo on the simulated RTL."""
    printed = walk("In ten minutes", tmp_path)
    assert list(printed) == ["import", "relu", "quantise", "run"]
    assert "1 of 1, bit for bit" in printed["run"]


@pytest.mark.slow
def test_to_a_report(tmp_path: Path) -> None:
    """From a timm folder to a page of figures; each command names the file that it wrote."""
    printed = walk("From a timm folder to a report", tmp_path)
    steps = ["import", "relu", "prune", "quantise", "run", "compile", "bench", "report"]
    assert list(printed) == ["python", *steps]
    assert "1 of 1, bit for bit" in printed["run"] and "197 > 99 > 50 > 26" in printed["run"]
    for name, file in (("import", "deit"), ("relu", "relu"), ("prune", "pruned"), ("quantise", "int8")):
        assert f"{file}.safetensors: written; next: rowvit " in printed[name]
    assert "program.safetensors: written" in printed["compile"]
    assert "data:image/svg" in (tmp_path / "report.html").read_text()
