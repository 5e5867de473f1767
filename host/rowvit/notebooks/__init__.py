# SPDX-License-Identifier: Apache-2.0
"""Notebooks for board and simulator, which ``pynq get-notebooks`` copies."""

from __future__ import annotations


def where() -> str:
    """Where a notebook runs its networks: "board" if PYNQ finds a board, otherwise "sim"."""
    from rowvit.overlay import board_here

    return "board" if board_here() else "sim"
