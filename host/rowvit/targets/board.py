# SPDX-License-Identifier: Apache-2.0
"""The overlay of a board that runs PYNQ."""

from __future__ import annotations

from pathlib import Path

from rowvit.hardware import config as configs
from rowvit.hardware.block_design import default_configuration, overlay_name
from rowvit.hardware.config import HardwareConfig
from rowvit.overlay import RowvitOverlay


def overlay(
    config: HardwareConfig | None = None, bitstream: str | Path | None = None, frontend: str | None = None
) -> RowvitOverlay:
    """Load a bitstream.

    Parameters
    ----------
    config : HardwareConfig, optional
        By default that of the bitstream, or else this board's.
    bitstream : str or Path, optional
        By default ``rowvit-<configuration>.bit`` in the working directory, ``rowvit-<configuration>-hls.bit``
        with the HLS front end.
    frontend : str, optional
        "host" or "hls": the front end that is expected; by default that of the bitstream, or else "host".

    Raises
    ------
    RowvitError
        As `RowvitOverlay`.
    """
    if bitstream is None:
        config = config or configs.load(default_configuration())
        bitstream = f"{overlay_name(config, frontend or 'host')}.bit"
    return RowvitOverlay(bitstream, config, frontend=frontend)
