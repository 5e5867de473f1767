# SPDX-License-Identifier: Apache-2.0
"""``rowvit doctor``: what works on this machine."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import sys
from pathlib import Path

from rich.table import Table
from rich.text import Text

import rowvit
from rowvit.cli.common import OUT, command
from rowvit.errors import RowvitError

#: what the extras of pyproject.toml are for
EXTRAS = {
    "model": "your own networks: import, train, quantise",
    "teach": "logistic regression in teach",
    "heic": "photos in HEIC",
    "report": "plots and reports",
    "serve": "the server",
    "eval": "eval on many processes",
    "hls": "the HLS front end in simulation",
    "power": "power by sensors or a meter's log",
    "notebook": "the notebooks",
}
MARKS = {True: Text("ok", "green"), False: Text("missing", "red"), None: Text("-", "bright_black")}


@command()
def doctor() -> None:
    """Show what works on this machine, and what to install for the rest; it takes a second."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, works, text in [
        *_here(),
        *_simulator(),
        *(_extra(extra) for extra in EXTRAS),
        _sensors(),
        _board(),
    ]:
        table.add_row(name, MARKS[works], Text(text))
    OUT.print(table)


#: what a row is about, whether it works (None: not every machine has one), and what was found or is to do
Row = tuple[str, bool | None, str]


def _here() -> list[Row]:
    package = Path(rowvit.__file__).parent
    return [
        ("rowvit", True, f"{rowvit.__version__} in {package}"),
        ("Python", True, f"{platform.python_version()}, {sys.executable}, NumPy {_version('numpy')}"),
    ]


def _simulator() -> list[Row]:
    """What targets sim and board take."""
    try:
        from rowvit.pynq import pynq

        rows: list[Row] = [("PYNQ", True, pynq.__version__)]
    except RowvitError as error:
        rows = [("PYNQ", False, str(error))]
    try:
        from rowvit.sim import verilate

        rows.append(("Verilator", True, verilate.version().removeprefix("Verilator ")))
    except RowvitError as error:
        rows.append(("Verilator", False, str(error)))
    return [*rows, ("C++ compiler", *_compiler())]


def _compiler() -> tuple[bool, str]:
    """Whether there is a C++ compiler, and which, or what to do."""
    from rowvit.sim import cxx

    try:
        found = cxx.candidates()
    except RowvitError as error:
        return False, str(error)
    if found and not shutil.which(found[0][0]):
        return False, f"{found[0][0]}, as the variable CXX says, is not there"
    return bool(found), shlex.join(found[0]) if found else cxx.ADVICE


def _extra(extra: str) -> Row:
    """Whether what an extra installs is there."""
    from importlib import metadata  # slow to import, and no other command needs it

    try:
        asked = metadata.requires("rowvit") or []
    except metadata.PackageNotFoundError:
        return extra, None, f"{EXTRAS[extra]}: not known, as rowvit was not installed by pip"
    # what only some Pythons and machines need is left out
    of = [text for text in asked if re.search(rf"; *extra == .{extra}.$", text)]
    names = {match[0] for text in of if (match := re.match(r"[\w.-]+", text))} - {"rowvit"}
    missing = sorted(name for name in names if not _version(name))
    if missing:
        return extra, False, f"{EXTRAS[extra]}: pip install 'rowvit[{extra}]' ({', '.join(missing)})"
    return extra, True, EXTRAS[extra]


def _sensors() -> Row:
    """Power sensors that the kernel shows."""
    from rowvit.measure.power.instruments import hwmon

    found = [
        file.read_text().strip()
        for file in sorted(hwmon.HWMON.glob("hwmon*/name"))
        if (file.parent / "power1_input").exists()
    ]
    return "sensors", bool(found) or None, ", ".join(found) or "none of power; a meter's log does as well"


def _board() -> Row:
    from rowvit.hardware.block_design import known
    from rowvit.measure.result import board

    found = board()
    if "none" in found:
        return "board", None, "none; sim runs the same programs"
    row = known(os.environ.get("BOARD", ""))
    fits = f"configuration {row.configuration}" if row else "not in the table of boards"
    return "board", row is not None, f"{found['name']}, {fits}; `rowvit diagnose` tries the overlay"


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
