# SPDX-License-Identifier: Apache-2.0
"""Results: a measurement with everything that a reviewer asks about it.

``report/result.schema.json`` defines their files. A value that is not to be had (a temperature, say) is never
left out: ``{"none": reason}`` takes its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import rowvit
from rowvit.errors import replacing
from rowvit.processors import processors

if TYPE_CHECKING:
    from rowvit.targets.session import ImageSet, Session

FORMAT = "rowvit-result/1"
#: what a result's figures are, by kind and target
EVIDENCE = {
    ("throughput", "board"): "measured on the board",
    ("throughput", "sim"): "simulated cycles at the core's clock; nothing was measured on a board",
    ("throughput", "golden"): "the integer reference on this machine's CPU; no accelerator was measured",
    ("power", "board"): "measured on the board",
    ("power", "sim"): "a dry run: any power is that of the simulating machine, not of an accelerator",
    ("power", "golden"): "the integer reference on this machine's CPU; no accelerator was measured",
}
#: variables that change how fast PyTorch, onnxruntime and NumPy are
_TUNING = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_")
_PACKAGES = ("numpy", "pillow", "pynq", "pandas", "torch", "onnxruntime")


def describe(kind: str, session: Session, images: ImageSet) -> dict[str, Any]:
    """Everything about a measurement except what was measured.

    Parameters
    ----------
    kind : str
        "throughput" or "power".
    session : Session
        The network on its target; a board is opened.
    images : ImageSet
        The images of the measurement.

    Returns
    -------
    dict
        To be completed with ``protocol``, ``instrument``, ``idle``, ``temperature``, and the part named
        after its kind.
    """
    overlay = _overlay(session)  # first, since it opens a board, whose clock may be another
    target, config, meta = session.target_name, session.config, session.meta
    model = meta.get("model", meta)
    evidence = EVIDENCE[kind, target]
    if target == "sim" and config.board == "none":
        evidence = evidence.replace("the core's clock", "a clock of no board, to compare cycles")
    return {
        "schema": FORMAT,
        "kind": kind,
        "target": target,
        "evidence": evidence,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": ["rowvit", *sys.argv[1:]],
        "board": board() if target == "board" else {"none": f"target {target}"},
        "host": host(),
        "overlay": overlay,
        "config": {"name": config.name, "hash": f"{config.hash:08X}", **config.structure()},
        "clock": _clock(session),
        "model": {
            "name": model["name"],
            "hash": model.get("hash") or {"none": "made in memory, not saved"},
            "architecture": meta["architecture"],
            "pruning": meta["pruning"],
            "ffn2_rule": meta["ffn2_rule"],
            "accuracy": session.source.meta.get("accuracy") or {"none": "the package states none"},
        },
        "data": data_set(images),
        "rowvit": revision(),
        "versions": versions(target == "sim"),
    }


def host() -> dict[str, Any]:
    """The CPU that runs the driver: its name, processors, load in the last minute, and the environment
    variables that tune its arithmetic libraries.
    """
    name = platform.processor() or platform.machine()
    with suppress(OSError), open("/proc/cpuinfo") as lines:
        named = [line for line in lines if line.startswith(("model name", "Model"))]
        name = named[0].split(":", 1)[1].strip() if named else name
    return {
        "cpu": name,
        "processors": processors(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "environment": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(_TUNING)},
    }


def board() -> dict[str, Any]:
    """Name and kernel of the board that this runs on."""
    name = os.environ.get("BOARD", "")  # PYNQ sets it
    with suppress(OSError):
        name = name or Path("/proc/device-tree/model").read_text().strip("\0\n ")
    if not name:
        return {"none": "neither the variable BOARD nor a device tree names it"}
    return {"name": name, "kernel": platform.release()}


def revision() -> dict[str, Any]:
    """Version, Git revision where there is one, and a hash over Python, RTL, C++ and tables."""
    root = Path(rowvit.__file__).parent
    sha = hashlib.sha256()
    kinds = (".py", ".v", ".vh", ".vlt", ".cpp", ".h", ".sv", ".toml", ".json")
    files = {*root.rglob("*"), *(root / "rtl").rglob("*"), *(root / "hls").rglob("*")}  # which may be links
    for path in sorted(file for file in files if file.suffix in kinds):
        sha.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD") if git("ls-files", "--error-unmatch", "__init__.py") else None
    found: dict[str, Any] = {"version": rowvit.__version__, "sources_sha256": sha.hexdigest()}
    found["revision"] = commit or {"none": "installed, not a Git working tree"}
    found["modified"] = bool(git("status", "--porcelain", "--untracked-files=no", ".")) if commit else False
    return found


def versions(simulated: bool = False) -> dict[str, str]:
    """Versions of Python, of the packages that a figure may depend on, and of the simulator."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    if simulated:
        from rowvit.sim import verilate

        found["simulator"] = verilate.version()
    return found


def data_set(images: ImageSet) -> dict[str, Any]:
    """Which images: a name, how they were chosen, and the hash of their pixels."""
    pixels = images.pixels[: images.distinct]
    digest = hashlib.sha256()
    for image in pixels:
        digest.update(image.tobytes())
    return {
        "set": images.name,
        "subset": images.subset,
        "images": len(pixels),
        "sha256": digest.hexdigest(),
        "repeated": len(images.pixels) / len(pixels),
    }


def _overlay(session: Session) -> dict[str, Any]:
    if session.target_name == "board":
        from rowvit.targets.driver import Accelerator

        assert isinstance(session.target, Accelerator)
        bitstream = Path(session.target.overlay.bitfile_name)
        return {"file": bitstream.name, "sha256": hashlib.sha256(bitstream.read_bytes()).hexdigest()}
    if session.target_name == "sim":
        from rowvit.sim.verilate import RTL, sources

        files = sorted({*sources(), *RTL.rglob("*.vh")})
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
        return {"file": "the RTL under Verilator", "sha256": digest}
    return {"none": f"target {session.target_name} has no overlay"}


def _clock(session: Session) -> dict[str, Any]:
    mhz = session.config.clock_mhz
    if session.target_name != "board":
        return {"mhz": mhz, "source": "the configuration's; not a clock that was run"}
    from rowvit.targets.driver import Accelerator

    assert isinstance(session.target, Accelerator)
    clock = session.target.overlay.handoff.pl_clock
    if clock is None:
        return {"mhz": mhz, "source": "the .hwh's; what makes it, the processing system cannot read"}
    return {"mhz": mhz, "source": f"read from the processing system (fclk{clock[0]})"}


def differences(found: dict[str, Any], again: dict[str, Any], where: str) -> list[str]:
    """A phrase for every number in ``again`` that is another one in ``found``."""
    problems: list[str] = []
    for key, value in again.items():
        place = f"{where}.{key}"
        if isinstance(value, dict):
            problems += differences(found.get(key, {}), value, place)
        elif not np.allclose(found.get(key, np.nan), value, rtol=1e-6, atol=1e-12):
            said = found.get(key, "missing")
            problems.append(
                f"{place} is {said}, but {value:.6g} by the values that it comes from"
                if not isinstance(value, list)
                else f"{place} is not what it comes from"
            )
    return problems


def write(path: Path, document: dict[str, Any]) -> None:
    """Write a result; `RowvitError` if the file cannot be written."""
    with replacing(path) as part:
        part.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
