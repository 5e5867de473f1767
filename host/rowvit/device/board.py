# SPDX-License-Identifier: Apache-2.0
"""The overlay of a board that runs PYNQ."""

from __future__ import annotations

from pathlib import Path

from rowvit.hardware import config as configs
from rowvit.hardware.block_design import overlay_name
from rowvit.hardware.config import HardwareConfig
from rowvit.overlay import RowvitOverlay


def configuration() -> HardwareConfig:
    """What is built for the board that this is; ``pynq-z2`` where nothing tells its name."""
    from rowvit.measure.result import board
    from rowvit.measure.sensors import known

    row = known(board().get("name", ""))
    return configs.load(row.configuration if row else "pynq-z2")


def overlay(
    config: HardwareConfig | None = None, bitstream: str | Path | None = None, frontend: str = "host"
) -> RowvitOverlay:
    """Load a bitstream.

    Parameters
    ----------
    config : HardwareConfig, optional
        By default what the bitstream is of, or else this board's.
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
    if bitstream is None:
        config = config or configuration()
        bitstream = f"{overlay_name(config, frontend)}.bit"
    return RowvitOverlay(bitstream, config, frontend=frontend)
