# SPDX-License-Identifier: Apache-2.0
"""Where rowvit keeps what it has made: simulators and compiled programs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """``$ROWVIT_CACHE``, or ``rowvit`` in the user's cache directory."""
    if "ROWVIT_CACHE" in os.environ:
        return Path(os.environ["ROWVIT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rowvit"
