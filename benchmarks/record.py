# SPDX-License-Identifier: Apache-2.0
"""Figures that benchmarks keep for the documentation, in ``results/FILE.json``; `figures.py` fills them in.

    python benchmarks/record.py cycles idle    # run again what wrote these files

A file has records by name: ``figures``, and where they come from. One with ``entered`` was typed, from where
it says; of the rest it has what is known.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from rowvit.measure.result import host, revision, versions

RESULTS = Path(__file__).with_name("results")

#: an option of the benchmarks
Record = Annotated[bool, typer.Option("--record", help="Keep the figures in benchmarks/results.")]


def read(file: str) -> dict[str, dict[str, Any]]:
    """The records of a file by name; none if there is no file."""
    path = RESULTS / f"{file}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def record(file: str, name: str, figures: dict[str, Any], *used: str) -> None:
    """Keep ``figures`` of this command in a file, in place of those that had the name.

    ``used`` names packages and tools, beside Python and NumPy, whose versions matter.
    """
    source, machine, packages = revision(), host(), versions()
    entry = {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_named, sys.argv[1:])]),
        "date": now(),
        "commit": source["revision"],
        "modified": source["modified"],
        "versions": {tool: packages.get(tool) or version(tool) for tool in ("python", "numpy", *used)},
        "processor": f"{machine['processors']} of {machine['cpu']}, load {machine['load']:.1f} at the end",
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{file}.json").write_text(json.dumps(read(file) | {name: entry}, indent=1) + "\n")


def _named(argument: str) -> str:
    """An argument as records have it: files outside this working tree by their names alone."""
    path = Path(argument)
    # os.path, as Path.exists fails on what is too long for a name
    outside = os.path.exists(path) and not path.resolve().is_relative_to(RESULTS.parents[1])
    return path.name if outside else argument


def now() -> str:
    """Date and time."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def version(tool: str) -> str:
    """Of a package that is imported, or is no tool on the PATH; of the tool there."""
    if tool in sys.modules or not shutil.which(tool):
        return metadata.version(tool)
    return subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def main(files: Annotated[list[str], typer.Argument(help="Names in benchmarks/results.")]) -> None:
    """Run again the commands that recorded these files, but for what others of them have recorded since."""
    began, done = now(), set()
    for file, name in [(f, name) for f in files for name in read(f)]:
        entry = read(file)[name]
        command = entry.get("command", "")
        if "--record" in command and command not in done and entry.get("date", "") < began:
            done.add(command)
            print(f"+ {command}", flush=True)
            _, *arguments = shlex.split(command)
            subprocess.run([sys.executable, *arguments], cwd=RESULTS.parents[1], check=True)


if __name__ == "__main__":
    typer.run(main)
