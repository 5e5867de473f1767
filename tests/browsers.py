# SPDX-License-Identifier: Apache-2.0
"""Debian's Chromium, for tests that look at pages."""

from __future__ import annotations

import os
import shutil

import pytest

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def browser_path() -> str:
    """The first that is installed; without one the test is skipped, in CI it fails."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent(f"needs one of {', '.join(BROWSERS)} (make test installs it)")
    return found
