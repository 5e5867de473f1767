# SPDX-License-Identifier: Apache-2.0
"""The overlay as PYNQ expects it. PYNQ, which takes seconds to import, comes with the first of these names;
then `RowvitCore` is bound to the core of any overlay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rowvit.overlay.core import RowvitCore
    from rowvit.overlay.overlay import (
        RowvitHierarchy,
        RowvitOverlay,
        board_here,
        cached_metadata,
        require_board,
    )

__all__ = [
    "RowvitCore",
    "RowvitHierarchy",
    "RowvitOverlay",
    "board_here",
    "cached_metadata",
    "require_board",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rowvit.overlay import overlay

    return getattr(overlay, name)
