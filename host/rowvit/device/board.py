# SPDX-License-Identifier: Apache-2.0
"""The overlay of a board that runs PYNQ."""

from __future__ import annotations

from pathlib import Path

from rowvit.hardware.block_design import overlay_name
from rowvit.hardware.config import HardwareConfig
from rowvit.overlay import RowvitOverlay


def overlay(
    config: HardwareConfig, bitstream: str | Path | None = None, frontend: str = "host"
) -> RowvitOverlay:
    """Load a bitstream.

    Parameters
    ----------
    config : HardwareConfig
    bitstream : str or Path, optional
        By default ``rowvit-<configuration>.bit`` in the working directory, ``rowvit-<configuration>-hls.bit``
        with the HLS front end.
    frontend : str
        "host" or "hls": what the bitstream has.

    Raises
    ------
    RowvitError
        As `RowvitOverlay`.
    """
    return RowvitOverlay(bitstream or f"{overlay_name(config, frontend)}.bit", config, frontend=frontend)
