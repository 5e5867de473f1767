# SPDX-License-Identifier: Apache-2.0
"""The overlay of a board that runs PYNQ."""

from __future__ import annotations

from pathlib import Path

from rowvit.hardware.config import HardwareConfig
from rowvit.overlay import RowvitOverlay


def overlay(config: HardwareConfig, bitstream: str | Path | None = None) -> RowvitOverlay:
    """Load a bitstream; by default ``rowvit-<configuration>.bit`` in the working directory.

    Raises
    ------
    RowvitError
        As `RowvitOverlay`.
    """
    return RowvitOverlay(bitstream or f"rowvit-{config.name}.bit", config)
