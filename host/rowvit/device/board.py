# SPDX-License-Identifier: Apache-2.0
"""The overlay of a board that runs PYNQ."""

from __future__ import annotations

from pathlib import Path

from pynq import Device, Overlay

from rowvit.errors import RowvitError
from rowvit.hardware.config import HardwareConfig


def overlay(config: HardwareConfig, bitstream: str | Path | None = None) -> Overlay:
    """Load a bitstream; by default ``rowvit-<configuration>.bit`` in the working directory.

    Raises
    ------
    RowvitError
        There is no board, or the .bit or its .hwh is missing.
    """
    path = Path(bitstream or f"rowvit-{config.name}.bit").absolute()
    for file, origin in (
        (path, "build it or copy it"),
        (path.with_suffix(".hwh"), "copy it from the same build"),
    ):
        if not file.is_file():
            raise RowvitError(f"{file} does not exist; {origin} to the board")
    if not Device.devices:
        raise RowvitError("PYNQ finds no device here; run on a board with PYNQ, as root, or take target sim")
    return Overlay(str(path))
