# SPDX-License-Identifier: Apache-2.0
"""The report of ``rowvit diagnose --json``: what a board's owner sends, and what a maintainer asks first."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rowvit.errors import writing
from rowvit.formats.provenance import sha256
from rowvit.measure import result
from rowvit.targets.driver import cma

if TYPE_CHECKING:
    from rowvit.hardware.config import HardwareConfig
    from rowvit.overlay.verify import Check

FORMAT = "rowvit-diagnosis/1"
REVISION = Path("/home/xilinx/REVISION")  # PYNQ's images note there what they were built from


def describe(target: str, config: HardwareConfig, bitstream: Path | None) -> dict[str, Any]:
    """All but the checks: board, image, software, configuration, files.

    Parameters
    ----------
    target : str
        "board" or "sim".
    config : HardwareConfig
    bitstream : Path, optional
        The .bit, where it is not made for the occasion.
    """
    simulated = target == "sim"
    return {
        "target": target,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": ["rowvit", *sys.argv[1:]],
        "board": {"none": "target sim"} if simulated else result.board(),
        "image": _image(),
        "host": result.host() | {"root": os.geteuid() == 0, "contiguous_memory": cma()},
        "rowvit": result.revision(),
        "versions": result.versions(simulated),
        "config": {"name": config.name, "hash": f"{config.hash:08X}", **config.structure()},
        "files": [_file(bitstream.with_suffix(s)) for s in (".bit", ".hwh", ".json")] if bitstream else [],
    }


def text(document: dict[str, Any], checks: Sequence[Check], finished: bool = True) -> str:
    """The report as JSON, with the checks so far."""
    failed = [check.name for check in checks if check.ok is False]
    if document["target"] == "sim":
        evidence = "the RTL under Verilator; no board"
    else:
        evidence = "a board" if any(check.name == "device" and check.ok for check in checks) else "no board"
    complete = {"schema": FORMAT, "target": document["target"], "evidence": evidence} | document
    complete |= {"finished": finished, "failed": failed, "checks": [asdict(c) for c in checks]}
    return json.dumps(complete, indent=1) + "\n"


def write(path: Path, document: dict[str, Any], checks: Sequence[Check], finished: bool = True) -> None:
    """Write the report through to the card: the next step may freeze the board, and ``finished`` stays false.

    `RowvitError` if it cannot be written.
    """
    with writing(path), path.open("w") as file:
        file.write(text(document, checks, finished))
        file.flush()
        os.fsync(file.fileno())


def _image() -> dict[str, Any]:
    """Distribution, kernel, and the revision of PYNQ's image."""
    found: dict[str, Any] = {"kernel": platform.release(), "revision": []}
    with suppress(OSError):
        found["system"] = platform.freedesktop_os_release()["PRETTY_NAME"]
    with suppress(OSError):
        found["revision"] = REVISION.read_text().splitlines()
    return found


def _file(path: Path) -> dict[str, Any]:
    try:
        return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
    except OSError as error:
        return {"file": path.name, "none": str(error.strerror)}
