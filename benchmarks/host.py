# SPDX-License-Identifier: Apache-2.0
"""What the host does for a photo, in instructions: counted, so that a board's processor needs no board.

    python benchmarks/host.py                  # this machine's, by valgrind
    python benchmarks/host.py stream           # one group of steps only
    python benchmarks/host.py --arch armhf     # a Pynq-Z2's, emulated; arm64: a KV260's
    python benchmarks/host.py --memory         # instead of instructions, the most memory of run and serve

`host_steps.py` is what is counted. ARM needs root, debootstrap and qemu-user-static with binfmt_misc, and
makes a Debian of its kind in build/arm, as `make test-arm` does, and one for a QEMU that counts (Debian links
later ones statically, which take no plugins). Kernel, cache misses and cache flushes are not in the counts.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from compileall import compile_dir
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from statistics import mean
from typing import Annotated

import numpy as np
import typer
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).parent
FOLDER = ROOT / "build" / "host"
CACHE = "cache"  #: within it
sys.path.append(str(ROOT / "tests" / "arm"))

from emulate import BOARDS, HOME, RELEASE, VENV, Emulated, install  # noqa: E402
from record import Record, read, record  # noqa: E402

from rowvit.hardware.host import COUNTS, DRIVER, NETWORKS, SOURCES  # noqa: E402

PHOTO = ROOT / "host" / "rowvit" / "models" / "sign_digits_photos" / "3_0618.jpg"
SIZES = {"224x224": (224, 224), "640x480": (640, 480), "1920x1080": (1920, 1080)}


STEPS = "host_steps.py", "plain_board.py"  #: what is counted, and what it imports
MEMORY = "host_memory.py"
COMPILE = [os.environ.get("CC", "cc"), "-O1", "-shared", "-fPIC"]
# libjpeg-turbo looks for NEON in /proc/cpuinfo, which is this machine's
FIXED = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "JSIMD_FORCENEON": "1"}


class Architecture(str, Enum):
    """Processors, by Debian's names."""

    X86 = "x86"
    ARMHF = "armhf"
    ARM64 = "arm64"


def prepare() -> None:
    """The files that the steps need."""
    from rowvit.hardware.config import load
    from rowvit.quant.synthetic import preset_package
    from rowvit.targets.target import read_package, read_program

    compile_dir(ROOT / "host" / "rowvit", quiet=1)  # or an import would do it
    FOLDER.mkdir(parents=True, exist_ok=True)
    # the second start finds what the first one left
    shutil.rmtree(FOLDER / CACHE, ignore_errors=True)
    os.environ |= {"ROWVIT_CACHE": str(FOLDER / CACHE), "ROWVIT_CACHE_PROGRAMS": "1"}
    for name in NETWORKS:
        package = read_package(name) if name == "sign-digits" else preset_package(name)
        package.save(path := FOLDER / f"{name}.safetensors")
        read_program(path, load("pynq-z2")).save(FOLDER / f"{name}.rowvit")
    photo, rng = Image.open(PHOTO).convert("RGB"), np.random.default_rng(0)
    for name, size in SIZES.items():
        pixels = np.asarray(photo.resize(size, Image.BICUBIC), np.int16)
        noisy = (pixels + rng.integers(-8, 9, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(FOLDER / f"{name}.jpg", quality=85)


def by_valgrind(groups: Sequence[str]) -> list[int]:
    """Instructions of each step on this machine."""
    library = FOLDER / "marks.so"
    subprocess.run([*COMPILE, "-DCALLGRIND", "-o", library, HERE / "marks.c"], check=True)
    for old in FOLDER.glob("callgrind.out*"):
        old.unlink()
    environment = os.environ | FIXED | {"ROWVIT_MARKS": str(library), "PYTHONPATH": str(ROOT / "host")}
    tool = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no"]
    tool.append(f"--callgrind-out-file={FOLDER / 'callgrind.out'}")
    command = [*tool, sys.executable, "-W", "ignore", HERE / STEPS[0], FOLDER, *groups]
    subprocess.run(command, check=True, env=environment)
    counts = {}
    for path in FOLDER.glob("callgrind.out.*"):
        text = path.read_text(errors="replace")
        number = re.search(r"^desc: Trigger: Client Request: (\d+)$", text, re.MULTILINE)
        total = re.search(r"^(?:totals|summary): (\d+)$", text, re.MULTILINE)
        if number and total:
            counts[int(number[1])] = int(total[1])
    return [counts[number] for number in sorted(counts)]


@contextmanager
def beside(architecture: str) -> Iterator[Emulated]:
    """An emulated Debian with what a board has, and the files of the steps in `HOME`."""
    with Emulated(architecture) as there:
        there.pynq()
        install(there, *BOARDS[architecture])
        shutil.copytree(ROOT / "host", there.home / "host", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(FOLDER, there.home / "files")
        for file in (*STEPS, MEMORY):
            shutil.copy(HERE / file, there.home)
        yield there


def emulated(architecture: str, groups: Sequence[str]) -> list[int]:
    """Instructions of each step on an emulated processor."""
    qemu = _qemu()
    with beside(architecture) as there:
        emulator = _copied(qemu, there, {"armhf": "arm", "arm64": "aarch64"}[architecture])
        plugin = there.root / "usr" / "lib" / "marks.so"
        subprocess.run([*COMPILE, "-o", plugin, HERE / "marks.c"], check=True)
        there.run(
            *(emulator, "-plugin", f"/usr/lib/marks.so,to={HOME}/counts"),
            *(f"{VENV}/bin/python3", "-W", "ignore", f"{HOME}/{STEPS[0]}", f"{HOME}/files", *groups),
            PYTHONPATH=f"{HOME}/host",
            ROWVIT_CACHE=f"{HOME}/files/{CACHE}",
            **FIXED,
        )
        shutil.copy(there.home / "files" / "steps.json", FOLDER)
        moments = [int(line.split()[1]) for line in (there.home / "counts").read_text().splitlines()]
    return [after - before for before, after in zip(moments[::2], moments[1::2], strict=True)]


def peaks(arch: Architecture) -> dict[str, float]:
    """The most memory of commands on a board, in MB, an emulator's included."""
    prepare()
    commands = "run", "serve"
    if arch is Architecture.X86:
        start = [sys.executable, "-W", "ignore", HERE / MEMORY, FOLDER]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "host")}
        return {one: float(subprocess.check_output([*start, one], env=environment)) for one in commands}
    with beside(arch.value) as there:
        start = [f"{VENV}/bin/python3", "-W", "ignore", f"{HOME}/{MEMORY}", f"{HOME}/files"]
        return {one: float(there.run(*start, one, PYTHONPATH=f"{HOME}/host")) for one in commands}


def _qemu() -> Path:
    """A Debian of this machine's kind with a QEMU that takes plugins."""
    root = ROOT / "build" / "arm" / "qemu"
    if not (root / ".made").exists():
        shutil.rmtree(root, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", "--include=qemu-user", RELEASE, root]
        subprocess.run(command, check=True)
        (root / ".made").touch()
    return root


def _copied(qemu: Path, there: Emulated, name: str) -> str:
    """Copy an emulator and its libraries, and return its path there."""
    path = f"/usr/bin/qemu-{name}"
    listed = subprocess.run(["chroot", qemu, "ldd", path], capture_output=True, text=True, check=True).stdout
    for file in {path, *re.findall(r"(?<= )/lib\S+|(?<=\t)/lib\S+", listed)}:
        target = there.root / file[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        source = qemu / file[1:]
        while source.is_symlink():  # an absolute one is meant within
            to = source.readlink()
            source = qemu / str(to)[1:] if to.is_absolute() else source.parent / to
        shutil.copy(source, target)
    return path


def per_call(counts: list[int]) -> dict[str, float]:
    """Instructions of a call of each step, less those of the counting itself."""
    found: dict[str, list[float]] = {}
    for (step, calls), count in zip(json.loads((FOLDER / "steps.json").read_text()), counts, strict=True):
        found.setdefault(step, []).append(count / calls)
    (nothing,) = found.pop("nothing")
    return {step: mean(each) - nothing for step, each in found.items()}


def counted(arch: Architecture, groups: Sequence[str]) -> dict[str, float]:
    """Instructions of a call of each step of these groups of `host_steps.py`; none: of all."""
    prepare()
    counts = by_valgrind(groups) if arch is Architecture.X86 else emulated(arch.value, groups)
    return per_call(counts)


def main(
    groups: Annotated[
        list[str], typer.Argument(help="Of steps: import, compile, load, photos, stream; or all.")
    ] = [],  # noqa: B006
    arch: Annotated[Architecture, typer.Option(help="Whose instructions.")] = Architecture.X86,
    memory: Annotated[
        bool, typer.Option("--memory", help="The most memory of run and serve instead.")
    ] = False,
    keep: Record = False,
) -> None:
    """Count, and print a table."""
    if memory:
        print("| command | most memory, MB |\n| -- | -- |")
        for command, most in peaks(arch).items():
            print(f"| {command} | {most:.0f} |")
            if keep:
                record("host", f"{arch.value} memory of {command}", {"mb": most})
        return
    counts = counted(arch, groups)
    print("| step | million instructions |\n| -- | -- |")
    for step, count in counts.items():
        print(f"| {step} | {count / 1e6:.3g} |")
    if keep:
        for step, count in counts.items():
            record("host", f"{arch.value} {step}", {"million": count / 1e6}, "pillow")
        COUNTS.write_text(estimated() + "\n")


def estimated() -> str:
    """What `rowvit.hardware.host` estimates from: the recorded counts of boards' processors, as JSON."""
    found, steps = read("host"), (DRIVER, *SOURCES[1:])
    million = {
        arch: {
            f"{step} {name}": round(found[f"{arch} {step} {name}"]["figures"]["million"], 3)
            for step in steps
            for name in NETWORKS
        }
        for arch in BOARDS
        if f"{arch} {DRIVER} deit-tiny" in found
    }
    return json.dumps(million, indent=1)


if __name__ == "__main__":
    typer.run(main)
