# SPDX-License-Identifier: Apache-2.0
"""The pictures of README.md, to docs/pictures: what the commands in their captions write, and badges.

make pictures
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from html import escape
from pathlib import Path

from rich.console import Console
from rich.text import Text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "pictures"
PHOTO = "host/rowvit/models/sign_digits_photos/3_0618.jpg"
RUN = ("run", "sign-digits", "--target", "sim", "--check")
COLUMNS = 82  # as wide as the lines of RUN


def rowvit(*arguments: str) -> str:
    """What the command prints, with its colours."""
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    command = [sys.executable, "-m", "rowvit.cli", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def terminal(command: str, output: str) -> str:
    """A window with a command and its output, as SVG that loads no fonts."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text(f"$ {command}", "bold"))
    console.print(Text.from_ansi(output.rstrip()))
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="rowvit"), flags=re.DOTALL)


def badge(name: str, text: str, color: str) -> str:
    """Name and text, side by side."""
    left, right = (7 * len(part) + 12 for part in (name, text))
    style = 'font-family="Verdana, sans-serif" font-size="11" fill="#fff" text-anchor="middle"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img"'
        f' aria-label="{escape(f"{name}: {text}")}"><clipPath id="r"><rect width="{left + right}" height="20"'
        f' rx="3"/></clipPath><g clip-path="url(#r)"><rect width="{left}" height="20" fill="#555"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{color}"/></g>'
        f'<g {style}><text x="{left / 2}" y="14" textLength="{left - 12}">{escape(name)}</text>'
        f'<text x="{left + right / 2}" y="14" textLength="{right - 12}">{escape(text)}</text></g></svg>\n'
    )


def badges() -> dict[str, str]:
    """What pyproject.toml and the RTL's rules say of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    low, high = re.match(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()
    return {
        "licence": badge("licence", project["license"], "#3b6fb6"),
        "python": badge("Python", f"3.{low} to 3.{int(high) - 1}", "#3b6fb6"),
        "verilog": badge("RTL", "Verilog-2005", "#3b6fb6"),
        "board": badge("on a board", "not run yet", "#9a6700"),
    }


def main() -> None:
    OUT.mkdir(exist_ok=True)
    rowvit("run", "sign-digits", PHOTO, "--target", "sim", "--plot", str(OUT / "photo.webp"))
    rowvit("profile", "sign-digits", "--plot", str(OUT / "profile.webp"))
    (OUT / "run.svg").write_text(terminal(" ".join(("rowvit", *RUN)), rowvit(*RUN)))
    for name, text in badges().items():
        (OUT / f"{name}.svg").write_text(text)


if __name__ == "__main__":
    main()
