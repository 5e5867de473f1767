# SPDX-License-Identifier: Apache-2.0
"""The board's software on a board's kind of processor, emulated, in a Debian of its own: ``make test-arm``.

The folder of ``make board-bundle`` is installed there by its ``install.sh``, without a network, beside PYNQ
as an image has it. Then the reference, the compiler and ``diagnose`` run, and give what they give here; and
the driver's tests, with the simulator of `tiny` built there.

It needs root, debootstrap, qemu-user-static with binfmt_misc (Debian's packages of these names), and the
network for the making of the Debian: half an hour or more, once. It is left in ``build/arm``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from rowvit.hardware.block_design import board
from rowvit.pynq import UNPINNED

ROOT = Path(__file__).resolve().parents[2]
MADE = ROOT / "build" / "arm"
RELEASE, PYTHON = "bookworm", "3.11"  #: Debian, and its Python
PACKAGES = ["ca-certificates", "g++", "libffi-dev", "libmagic1", "make", "verilator"]
PACKAGES += [f"python3-{name}" for name in ("dev", "numpy", "pil", "pip", "venv")]
#: a board and what ``platform.machine`` says, by Debian's names of the architectures
BOARDS = {"armhf": ("Pynq-Z2", "armv7l"), "arm64": ("KV260", "aarch64")}
HOME = "/opt"  #: there
#: as PYNQ's images do
VENV = "/usr/local/share/pynq-venv"
IMAGE = [
    "jinja2",
    "pynqmetadata",
    "cffi",
    "nest_asyncio",
    "tqdm",
    "python-magic",
    "setuptools<=80",
    "pycparser<3",
]
#: folders that are in memory: emulated 32-bit programs cannot list those of file systems with large offsets
IN_MEMORY = ("usr/local/share", "opt", "tmp")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SIZES = (100, 100), (224, 224), (640, 480), (641, 479), (1920, 1080)  #: of photos
TESTS = ["pytest", "hypothesis", "packaging"]
FILES = [
    "tests/host/sim/test_sim_device.py",
    *(f"tests/host/targets/test_{name}.py" for name in ("driver", "stream", "symptoms")),
    "tests/host/formats/test_records.py",
]


class Emulated:
    """A Debian in a folder, for another processor."""

    def __init__(self, architecture: str) -> None:
        self.root = MADE / architecture
        self.home, self.architecture = self.root / HOME[1:], architecture
        if not (self.root / ".made").exists():
            shutil.rmtree(self.root, ignore_errors=True)
            self.root.mkdir(parents=True)
            options = [f"--arch={architecture}", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
            subprocess.run(["debootstrap", *options, RELEASE, self.root], check=True)
            (self.root / ".made").touch()
        if CERTIFICATES.exists():  # what this machine trusts, a proxy's, say
            shutil.copy(CERTIFICATES, self.root / CERTIFICATES.relative_to("/"))

    def __enter__(self) -> Emulated:
        for name in IN_MEMORY:
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.root / name], check=True)
        subprocess.run(["mount", "-t", "proc", "proc", self.root / "proc"], check=True)  # PYNQ reads it
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("proc", *IN_MEMORY):
            subprocess.run(["umount", "--lazy", self.root / name], check=True)

    def run(self, *command: str, network: bool = True, status: int = 0, **variables: str) -> str:
        """Standard output of a command; the exit status is what it must end with."""
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": HOME,
            "LC_ALL": "C.UTF-8",
            "PIP_CERT": str(CERTIFICATES),
            **variables,
        }
        if not network:
            environment |= {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_CONFIG_FILE": os.devnull}
        print(f"{self.architecture}$ {' '.join(command)}", flush=True)
        done = subprocess.run(
            ["chroot", self.root, *command], stdout=subprocess.PIPE, text=True, env=environment
        )
        if done.returncode != status:
            print(done.stdout)
            raise SystemExit(f"{command[0]} ended with {done.returncode} instead of {status}")
        return done.stdout

    def pynq(self) -> None:
        """PYNQ and what it needs, as an image has it."""
        if not (self.root / VENV[1:]).exists():
            self.run("python3", "-m", "venv", "--system-site-packages", VENV)
        pip = f"{VENV}/bin/pip", "install", "-q"
        self.run(*pip, *IMAGE, "wheel")
        # its libraries for video and audio need headers that Debian has elsewhere, and nobody here uses them
        self.run(*pip, "--no-deps", *UNPINNED, PYNQ_BUILD_ARCH="none")


def install(there: Emulated, name: str, machine: str) -> None:
    """The bundle for a board, by its own script, without a network."""
    spec = importlib.util.spec_from_file_location("bundle", ROOT / "bitstreams" / "bundle.py")
    assert spec and spec.loader
    bundle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bundle)
    bundle.PYTHONS = {machine: (PYTHON,)}
    made = bundle.bundle(board(name), None, MADE / "bundles")
    shutil.unpack_archive(made, there.home)
    there.run("sh", f"{HOME}/{made.stem}/install.sh", network=False)
    shutil.copytree(there.home / made.stem, there.home / "board", dirs_exist_ok=True)


def same(there: Emulated, *command: str) -> None:
    """A command writes the same file here and there."""
    here = MADE / "here"
    subprocess.run(
        [sys.executable, "-m", "rowvit.cli", *command, str(here)], check=True, cwd=there.home / "board"
    )
    there.run(
        "sh", "-c", f"cd {HOME}/board && {VENV}/bin/rowvit {' '.join(command)} {HOME}/there", network=False
    )
    ours, theirs = here, there.home / "there"
    if ours.read_bytes()[:1] == b"{":  # a result, with times and names of machines
        one, other = (json.loads(file.read_text())["images"] for file in (ours, theirs))
        for image in (*one, *other):
            image.pop("seconds", None)
            image.pop("timing", None)
        assert one == other, command
    else:
        assert ours.read_bytes() == theirs.read_bytes(), command


def pixels(there: Emulated) -> None:
    """Photos and frames become the same pixels here and there, of any size."""
    photos, script = there.home / "photos", Path(__file__).with_name("pixels.py")
    photos.mkdir()
    with Image.open(there.home / "board" / "photo.jpg") as photo:
        for size in SIZES:
            large, name = photo.convert("RGB").resize(size, Image.BICUBIC), "{}x{}".format(*size)
            for kind, options in (("png", {}), ("jpg", {"quality": 85}), ("444.jpg", {"subsampling": 0})):
                large.save(photos / f"{name}.{kind}", **options)
    shutil.copy(script, there.home)
    here = subprocess.check_output([sys.executable, script, photos], text=True)
    found = there.run(f"{VENV}/bin/python", f"{HOME}/{script.name}", f"{HOME}/photos", network=False)
    assert here.splitlines() == found.splitlines()
    print(f"{len(here.splitlines())} times the same pixels")


def main(
    architectures: Annotated[list[str] | None, typer.Argument(help="armhf, arm64; by default both.")] = None,
) -> None:
    """Install and run what a board gets, on an emulated processor of its kind."""
    for architecture in architectures or BOARDS:
        with Emulated(architecture) as there:
            _try(there, *BOARDS[architecture])
        print(f"{architecture}: installed, and equal to this machine")


def _try(there: Emulated, name: str, machine: str) -> None:
    assert there.run("uname", "-m").strip() == machine
    there.pynq()
    install(there, name, machine)
    print(there.run(f"{VENV}/bin/rowvit", "doctor", network=False))
    same(there, "run", "sign-digits", "photo.jpg", "-t", "golden", "--json")
    same(there, "compile", "sign-digits", "-c", board(name).configuration, "-o")
    pixels(there)
    diagnose = f"{VENV}/bin/rowvit", "diagnose", "--target", "board", "--json", "-"
    report = there.run(*diagnose, network=False, status=1)
    assert json.loads(report)["evidence"] == "no board"
    there.run(f"{VENV}/bin/pip", "install", "-q", *TESTS)
    shutil.copytree(ROOT / "tests", there.home / "tests", dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", there.home)
    tests = f"cd {HOME} && {VENV}/bin/python -m pytest -q -p no:cacheprovider {' '.join(FILES)}"
    print(there.run("sh", "-c", tests, network=False))


if __name__ == "__main__":
    typer.run(main)
