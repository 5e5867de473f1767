# SPDX-License-Identifier: Apache-2.0
"""Everything that a board needs in one folder and one .tar, for a board without internet and compiler.

``make board-bundle BOARD=Pynq-Z2`` runs it. The folder holds rowvit's wheel, a wheel in pure Python of each
package that the board's image lacks, the overlay, a photo, ``install.sh`` and checksums.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Annotated

import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.console import Console

from rowvit.errors import RowvitError
from rowvit.formats import provenance
from rowvit.formats.bundled import MODELS
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import Board, board, overlay_name

ROOT = Path(__file__).resolve().parents[1]
#: Python of PYNQ's images: 3.0 and 3.1, Kria-PYNQ (Ubuntu 22.04); 4.0 (Ubuntu 24.04, no Zynq-7000)
PYTHONS = {"armv7l": ("3.10",), "aarch64": ("3.10", "3.12")}
#: what every image brings; what of it needs a compiler could not be installed there
IMAGE = {"numpy", "pynq", "pillow", "setuptools", "pycparser", "jinja2"}
PHOTO = MODELS / "sign_digits_photos" / "3_0618.jpg"
INSTALL = """\
#!/bin/sh
# Installs rowvit from this folder, without a network. As root on the board: sh install.sh
set -eu
cd "$(dirname "$0")"
sha256sum -c --quiet SHA256SUMS
for file in rowvit-*.bit wheels/*.whl; do
    [ ! -e "$file" ] || grep -qF "  $file" SHA256SUMS || {
        echo "rowvit: $file is here, but not of this bundle, and would be used;" \\
             "rm -rf wheels rowvit-* and unpack the bundle again" >&2; exit 1; }
done
python=/usr/local/share/pynq-venv/bin/python3    # PYNQ's own environment, from 3.0 on
[ -x "$python" ] || python=python3
python="${PYTHON:-$python}"
"$python" -c 'import sys; v = "%d.%d" % sys.version_info[:2]; v in "@PYTHONS@".split() or sys.exit(
    "rowvit: this folder is for Python @PYTHONS@, this is " + v + "; make it again for this image")'
"$python" -c 'import numpy, PIL, pynq' || {
    echo "rowvit: $python lacks numpy, Pillow or pynq, which PYNQ images bring;" \\
         "name the image's Python: PYTHON=/path/to/python3 sh install.sh" >&2; exit 1; }
# without what they ask for: all of it is here, or of the image, whose pynq asks for what no image has
packages=$(ls wheels | sed 's/-.*//' | sort -u)
# shellcheck disable=SC2086
"$python" -m pip install --no-index --no-deps --find-links wheels --upgrade $packages
# of one version there are many revisions
"$python" -m pip install --no-index --no-deps --force-reinstall wheels/rowvit-*.whl
"$python" -c 'import rowvit.cli, rowvit.pynq, rowvit.targets.driver, rowvit.serve.server' || {
    echo "rowvit: installed, but it does not import in $python; send this output along with a question" >&2
    exit 1; }
echo "installed; next:"
echo "  cd $PWD    # where the overlay is"
echo "  rowvit diagnose    # from the files to a network with known logits"
echo "  rowvit run sign-digits photo.jpg --target board"
echo "  rowvit serve sign-digits --target board --host 0.0.0.0    # the live page, also for your PC"
"""


def machine(target: Board) -> str:
    """What ``platform.machine()`` says on a board."""
    return "armv7l" if target.family.name == "zynq-7000" else "aarch64"


def missing(wheel: Path, python: str, platform_machine: str) -> list[str]:
    """Requirements of a wheel that an image with this Python lacks."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": platform_machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "extra": "serve",
    }
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    return [
        f"{r.name}{r.specifier}"
        for r in requirements
        if r.name.lower() not in IMAGE and (r.marker is None or r.marker.evaluate(environment))
    ]


def _lacking(wheels: Path, wanted: list[str], python: str, platform_machine: str) -> list[str]:
    """Requirements of the wheels in a folder that are neither there nor ``wanted``."""
    there = {canonicalize_name(path.name.split("-")[0]) for path in wheels.iterdir()}
    there |= {canonicalize_name(Requirement(text).name) for text in wanted}
    found = (text for wheel in sorted(wheels.iterdir()) for text in missing(wheel, python, platform_machine))
    return [text for text in found if canonicalize_name(Requirement(text).name) not in there]


def pip(*arguments: str | Path) -> None:
    """Run this Python's pip; `RowvitError` with the last lines of its output if it fails."""
    command = [sys.executable, "-m", "pip", *map(str, arguments), "-q"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = re.sub(r"\s+", " ", result.stderr.strip())[-500:]
        raise RowvitError(f"pip {arguments[0]} failed: {reason}", "see that this PC reaches the internet")


def bundle(target: Board, overlay: Path | None, out: Path) -> Path:
    """Make the folder of a board in ``out``, and its .tar.

    Parameters
    ----------
    target : Board
    overlay : Path or None
        The .bit, with .hwh and .json next to it; None for a folder without an overlay.
    out : Path
        Directory of folder and .tar; what is there is replaced.

    Returns
    -------
    Path
        The .tar.

    Raises
    ------
    RowvitError
        A file of the overlay is missing or not what its .json says, or pip finds no wheel in pure Python.
    """
    folder = out / f"rowvit-{target.name}"
    shutil.rmtree(folder, ignore_errors=True)
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    if overlay is not None:
        for suffix in provenance.SUFFIXES:
            file = overlay.with_suffix(suffix)
            if not file.is_file():
                others = sorted(path.stem for path in overlay.parent.glob("rowvit-*.bit"))
                advice = f"run make bitstream BOARD={target.name} first, with the same CONFIG and FRONTEND"
                raise RowvitError(
                    f"{file} does not exist", f"{advice}; there is {', '.join(others)}" if others else advice
                )
            shutil.copy(file, folder)
        provenance.verify(folder)
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # setuptools would pack what was deleted since
    pip("wheel", "--no-deps", "-w", wheels, ROOT)
    (wheel,) = wheels.glob("rowvit-*.whl")
    kind = machine(target)
    for python in PYTHONS[kind]:
        pure = ("--only-binary=:all:", "--implementation", "py", "--abi", "none", "--platform", "any")
        more = wanted = missing(wheel, python, kind)
        while more:
            pip("download", *pure, "--python-version", python, "-d", wheels, *wanted)
            # for the conditions of what packages require, pip takes this PC's Python: it misses some of them
            more = _lacking(wheels, wanted, python, kind)
            wanted = wanted + more
    shutil.copy(PHOTO, folder / "photo.jpg")
    # as the board reads them, also from Windows
    text = dict(encoding="utf-8", newline="\n")
    (folder / "install.sh").write_text(INSTALL.replace("@PYTHONS@", " ".join(PYTHONS[kind])), **text)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = [f"{provenance.sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(sums), **text)
    return Path(shutil.make_archive(str(folder), "tar", out, folder.name))


def main(
    board_name: Annotated[str, typer.Argument(metavar="BOARD", help="Pynq-Z1, Pynq-Z2, ZCU104, ...")],
    overlays: Annotated[Path, typer.Option(help="Directory with a folder of overlays per board.")] = ROOT
    / "build/overlays",
    config: Annotated[str, typer.Option(help="Hardware configuration; by default the board's.")] = "",
    frontend: Annotated[str, typer.Option(help="host or hls: the overlay's front end.")] = "host",
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="Only the software.")] = False,
    out: Annotated[Path, typer.Option(help="Directory for folder and .tar.")] = ROOT / "build/bundles",
) -> None:
    """Collect what a board needs."""
    try:
        target = board(board_name)
        name = overlay_name(configs.load(config or target.configuration), frontend)
        made = bundle(target, None if no_overlay else overlays / target.name / f"{name}.bit", out)
    except RowvitError as error:
        Console(stderr=True).print(f"rowvit: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    print(
        f"{made}: copy it to the board, and there, as root:"
        f" tar xf {made.name} && cd {made.stem} && sh install.sh"
    )


if __name__ == "__main__":
    typer.run(main)
