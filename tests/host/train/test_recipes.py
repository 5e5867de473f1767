# SPDX-License-Identifier: Apache-2.0
"""Run scripts of the recipes: usage, their files, and that a killed run goes on where it was."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from waiting import HANG

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
SCRIPTS = sorted(RECIPES.glob("*/run.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.parent.name)
def test_usage_and_recipes(script: Path) -> None:
    done = subprocess.run(["bash", script], capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 2
    assert "DATA FOLDER" in done.stderr
    text = script.read_text()
    named = set(re.findall(r"\w[\w.-]*\.toml", text))
    if re.search(r"^chain ", text, re.MULTILINE):
        named |= {"relu.toml", "prune.toml", "int8.toml"}
    assert named == {path.name for path in script.parent.glob("*.toml")}


def test_steps_go_on(tmp_path: Path) -> None:
    """A step that failed runs again; those before it do not; half a file is not taken for a whole one."""
    recipe = tmp_path / "recipes" / "some"
    recipe.mkdir(parents=True)
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(RECIPES / "steps.sh", recipe.parent)
    script = recipe / "run.sh"
    script.write_text(
        '. "$(dirname "$0")/../steps.sh"\n'
        "step one bash -c 'echo once >> log; touch one'\n"
        "printed two bash -c 'echo twice >> log; echo half; test -e ready && echo whole'\n"
        "step three cp two three\n"
    )
    (tmp_path / "data").touch()

    def run() -> subprocess.CompletedProcess[str]:
        command = ["bash", script, tmp_path / "data", tmp_path / "out"]
        return subprocess.run(command, capture_output=True, text=True, timeout=HANG)

    assert run().returncode != 0
    out = tmp_path / "out"
    assert not (out / "two").exists()
    (out / "ready").touch()
    done = run()
    assert done.returncode == 0, done.stderr
    assert "one is there" in done.stdout
    assert (out / "log").read_text() == "once\ntwice\ntwice\n"
    assert (out / "three").read_text() == "half\nwhole\n"
    assert [line.split("\t")[0] for line in (out / "times.tsv").read_text().splitlines()] == [
        "one",
        "two",
        "three",
    ]
