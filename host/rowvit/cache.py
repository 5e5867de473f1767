# SPDX-License-Identifier: Apache-2.0
"""Where rowvit keeps what it has made: simulators and compiled programs."""

from __future__ import annotations

import os
from pathlib import Path

from rowvit.errors import RowvitError


def cache_directory() -> Path:
    """``$ROWVIT_CACHE``, or ``rowvit`` in the user's cache directory; `RowvitError` if there is neither."""
    if own := os.environ.get("ROWVIT_CACHE"):
        return Path(own).absolute()  # the loader looks elsewhere for a library without a folder
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if shared.is_absolute():  # others are to be ignored, by the XDG base directory specification
        return shared / "rowvit"
    try:
        return Path.home() / ".cache" / "rowvit"
    except RuntimeError as error:
        raise RowvitError(
            "this user has no home directory, in which simulators and programs are kept",
            "name a folder in the variable ROWVIT_CACHE",
        ) from error
