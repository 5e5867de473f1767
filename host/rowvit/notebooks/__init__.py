# SPDX-License-Identifier: Apache-2.0
"""Notebooks for board and simulator; ``pynq get-notebooks`` copies them to where Jupyter finds them."""

from __future__ import annotations

import warnings


def where() -> str:
    """Where a notebook runs its networks: "board" if PYNQ finds one here, otherwise "sim"."""
    from pynq import Device

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PYNQ's, of a PC without accelerator cards
        return "board" if Device.devices else "sim"
