# SPDX-License-Identifier: Apache-2.0
"""Chromium, Debian's or Playwright's, for tests that look at pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from waiting import HANG

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@contextmanager
def browser(*flags: str) -> Iterator[Callable[..., Page]]:
    """The first that is installed, as what opens a page; without one the test is skipped, in CI it fails."""
    from playwright.sync_api import Error, sync_playwright

    found, patience = next(filter(None, map(shutil.which, BROWSERS)), None), 1000 * HANG
    with sync_playwright() as playwright:
        options = dict(args=["--no-sandbox", *flags], timeout=patience)
        try:  # without a path, what `playwright install` has left
            opened = playwright.chromium.launch(executable_path=found, **options)
        except Error:
            if found:
                raise
            absent = pytest.fail if os.environ.get("CI") else pytest.skip
            absent(f"needs one of {', '.join(BROWSERS)}, or `playwright install --only-shell chromium`")

        def page(**options: object) -> Page:
            one = opened.new_page(**options)
            one.set_default_timeout(patience)
            return one

        yield page
        opened.close()
