# SPDX-License-Identifier: Apache-2.0
"""Opening a target by its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rowvit.errors import RowvitError

if TYPE_CHECKING:
    from rowvit.hardware.config import HardwareConfig
    from rowvit.targets.target import Target


def open(target: str, config: str | Path | HardwareConfig | None = None, **options: Any) -> Target:
    """Open an accelerator; use it as a context manager.

    Parameters
    ----------
    target : str
        "golden": integer reference on the CPU; "sim": the RTL under Verilator; "board": a Zynq
        running PYNQ.
    config : str, Path or HardwareConfig, optional
        Name or file of the hardware configuration; by default that of the ``bitstream``, of the only overlay
        in the working directory of a board, of the board, or else ``pynq-z2``.
    **options
        golden: ``checkpoints``; sim: those of `SimDevice`; board: ``bitstream``, by default
        ``rowvit-<configuration>.bit`` in the working directory, or ``rowvit-<configuration>-hls.bit`` where
        that alone is there; sim and board: ``timeout``, ``watchdog`` and ``check_every`` of `Accelerator`;
        all: ``frontend``, "host" or "hls" (by default that of the bitstream, or else "host").

    Returns
    -------
    Target
        ``load(model)`` takes a package, a program, the path of either, or the name of a network that
        comes with rowvit; a call with images returns one `Result` each.

    Raises
    ------
    RowvitError
        The target cannot be opened; the message says why and what to do.
    """
    # imported where they are used: a board has no simulator, golden no pynq
    from rowvit.hardware.block_design import bitstream_here, default_configuration
    from rowvit.hardware.config import HardwareConfig, load

    if config is not None and not isinstance(config, HardwareConfig):
        config = load(config)
    if target == "golden":
        from rowvit.targets.golden import Golden

        if options.pop("check_every", None) is not None:
            raise RowvitError(
                "golden is the integer reference: there is nothing to check it with",
                "check sim or board, or leave the check out",
            )
        return Golden(config or load(default_configuration()), **options)
    if target not in ("sim", "board"):
        raise RowvitError(f"no target '{target}'", "use golden, sim or board")
    from rowvit.overlay import RowvitOverlay
    from rowvit.targets.driver import Accelerator

    driver = {name: options.pop(name) for name in ("timeout", "watchdog", "check_every") if name in options}
    if target == "sim":
        from rowvit.sim.device import SimDevice

        device = SimDevice(config or load(default_configuration()), **options)
        try:
            overlay = RowvitOverlay(device.bitstream, device.config, device)
            return Accelerator(overlay, on_close=device.close, **{"timeout": 600.0, **driver})
        except BaseException:
            device.close()
            raise
    bitstream = options.pop("bitstream", None)
    if bitstream is None:
        config = config or load(default_configuration())
        bitstream = bitstream_here(config, options.get("frontend"))
    return Accelerator(RowvitOverlay(bitstream, config, **options), **driver)
