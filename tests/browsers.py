# SPDX-License-Identifier: Apache-2.0
"""Chromium, Debian's or Playwright's, for tests that look at pages."""

from __future__ import annotations

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
    """The first that is installed, as what opens a page; without one the test is skipped."""
    from playwright.sync_api import Error, sync_playwright

    found, patience = next(filter(None, map(shutil.which, BROWSERS)), None), 1000 * HANG
    with sync_playwright() as playwright:
        options = dict(args=["--no-sandbox", *flags], timeout=patience)
        try:  # without a path, what `playwright install` has left
            opened = playwright.chromium.launch(executable_path=found, **options)
        except Error:
            if found:
                raise
            pytest.skip(f"needs one of {', '.join(BROWSERS)}, or `playwright install --only-shell chromium`")

        def page(**options: object) -> Page:
            one = opened.new_page(**options)
            one.set_default_timeout(patience)
            return one

        yield page
        opened.close()


def weak(page: Page) -> list:
    """Text that does not stand out from what is behind it as WCAG's level AA asks: 4.5, large text 3."""
    found: list = page.evaluate(
        """() => {
            const linear = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
            const light = rgb => 0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2]);
            const parse = text => text.match(/[\\d.]+/g).map(Number);
            const behind = e => {
                for (; e; e = e.parentElement) {
                    const c = parse(getComputedStyle(e).backgroundColor);
                    if (c.length === 3 || c[3] === 1) return c;
                }
            };
            return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() &&
                [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => {
                    const two = [light(parse(getComputedStyle(e).color)), light(behind(e))];
                    const [a, b] = two.sort((x, y) => y - x);
                    const large = parseFloat(getComputedStyle(e).fontSize) >= 24;
                    return [(a + 0.05) / (b + 0.05) / (large ? 3 : 4.5), e.textContent.trim().slice(0, 30)];
                }).filter(([ratio]) => ratio < 1);
        }"""
    )
    return found
