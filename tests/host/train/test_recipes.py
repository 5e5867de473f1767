# SPDX-License-Identifier: Apache-2.0
"""Run scripts of the recipes: usage, their files, and that a killed run goes on where it was."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from typer import Context
from typer.main import get_command
from typer.testing import CliRunner
from waiting import HANG

pytest.importorskip("torch")
pytest.importorskip("timm")

from rowvit.cli import app

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
SCRIPTS = [
    pytest.param(path, id=f"{path.parent.name}/{path.name}") for path in sorted(RECIPES.glob("*/*.sh"))
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_usage(script: Path) -> None:
    done = subprocess.run(["bash", script], capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 2
    assert "DATA FOLDER" in done.stderr


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in RECIPES.glob("*/*.sh")}), ids=lambda path: path.name
)
def test_recipes(folder: Path) -> None:
    """All are of a script."""
    text = "".join(path.read_text() for path in folder.glob("*.sh"))
    named = set(re.findall(r"\w[\w.-]*\.toml", text))
    if re.search(r"^chain ", text, re.MULTILINE):
        named |= {"relu.toml", "prune.toml", "int8.toml"}
    assert named == {path.name for path in folder.glob("*.toml")}


#: in place of the commands: says what it was called with, and makes what it would write
STANDIN = """#!/bin/bash
printf '%s\\n' "$(basename "$0") ${*@Q}" >> "$CALLS"
while [ $# -gt 0 ]; do
    case $1 in -o | --json) touch "$2" ;; esac
    shift
done
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_line(script: Path, tmp_path: Path) -> None:
    """All commands have the options that they are given; networks of timm are imported by them."""
    bin = tmp_path / "bin"
    bin.mkdir()
    for name in ("rowvit", "torchrun", "python", "pip", "unzip"):
        (bin / name).write_text(STANDIN)
        (bin / name).chmod(0o755)
    (tmp_path / "data").touch()
    (tmp_path / "teachers").mkdir()
    (tmp_path / "teachers" / "first.safetensors").touch()
    usage = re.search(rf"{script.name} \S+ FOLDER(.*)", script.read_text())
    assert usage
    for word in usage[1].split():
        (tmp_path / word).touch()
    timm = "timm:deit_tiny_patch16_224"
    values = {"START": timm, "TEACHERS": tmp_path / "teachers", "CLASSES": "3"}
    more = [values.get(word, word) for word in usage[1].split() if not word.startswith("[")]
    command = ["bash", script, "data", "out", *more]
    environment = os.environ | {
        "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "PROCESSES": "1",
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stderr
    group = get_command(app)
    lines = [shlex.split(line) for line in (tmp_path / "calls").read_text().splitlines()]
    asked = [arguments for program, *arguments in lines if program == "rowvit"]
    assert len(asked) >= 3
    for name, *arguments in asked:
        made = group.get_command(Context(group), name)
        assert made is not None, name
        made.make_context(name, [*arguments])
        if timm in arguments:
            arguments[arguments.index("-o") + 1] = str(tmp_path / "made.safetensors")
            found = CliRunner().invoke(app, [name, *arguments, "--random"])
            assert found.exit_code == 0, found.output
    assert (timm in (tmp_path / "calls").read_text()) == (timm in script.read_text())


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
