# SPDX-License-Identifier: Apache-2.0
"""The page of a report: what it says, and that a browser shows it, on a desk and on a phone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from rowvit.measure.report import number, page

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def slower(bench_file) -> dict:
    """The same, at half the speed and on another memory."""
    document = json.loads(bench_file.read_text())
    figures = document["throughput"]
    figures["images_per_second"] /= 2
    for key in ("min", "median", "p90", "p99", "max", "mean"):
        figures["latency_ms"][key] *= 2
    figures["memory"] = "a slow memory"
    document["command"] = ["rowvit", "bench", "<script>alert(1)</script>"]
    return document


@pytest.fixture(scope="module")
def report(bench_file, power_file, slower, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    power = json.loads(power_file.read_text())
    documents = [("bench.json", json.loads(bench_file.read_text())), ("slower.json", slower)]
    path.write_text(page([*documents, ("power.json", power), ("again.json", power)]))
    return path


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent(f"needs one of {', '.join(BROWSERS)} (make test installs it)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_in_a_browser(browser, report, bench_file, width):
    document = json.loads(bench_file.read_text())
    tab = browser.new_page(viewport={"width": width, "height": 800})
    errors, requests = [], []
    tab.on("console", lambda message: errors.append(message.text))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(report.as_uri(), wait_until="load")
    assert errors == []
    assert {url.split(":")[0] for url in requests} <= {"file", "data"}  # no network

    # the page is no wider than the screen, and its text is large enough
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    sizes = tab.evaluate(
        "[...document.querySelectorAll('td, p, li')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 12

    # no condition's name is broken within a word
    assert tab.evaluate(
        """[...document.querySelectorAll('.conditions td:first-child')].every(cell => {
            const words = document.createRange();
            words.selectNodeContents(cell);
            return words.getClientRects().length <= cell.textContent.split(/[ .-]/).length;
        })"""
    )

    # every plot is drawn: it has a size, and more than one color
    plots = tab.locator("img.plot")
    assert plots.count() == 2 * 4 + 2 * 2 + 2 + 1
    for i in range(plots.count()):
        box = plots.nth(i).bounding_box()
        assert box["width"] > 0.8 * min(width, 432) - 32 and box["height"] > 100
        assert plots.nth(i).get_attribute("alt")
    colors = tab.evaluate(
        """Promise.all([...document.querySelectorAll('img.plot')].map(async image => {
            await image.decode();
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [200, 120];
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0, 200, 120);
            return new Set(new Uint32Array(context.getImageData(0, 0, 200, 120).data.buffer)).size;
        }))"""
    )
    assert min(colors) > 10

    # tables are filled
    empty = tab.evaluate("[...document.querySelectorAll('table')].filter(t => !t.querySelector('td')).length")
    assert empty == 0
    text = tab.inner_text("#result-1")
    for value in (
        number(document["throughput"]["images_per_second"]),
        number(document["throughput"]["latency_ms"]["p99"]),
        document["model"]["hash"],
        document["config"]["hash"],
        "nothing was measured on a board",
        "torch",
    ):
        assert value in text
    compared = tab.inner_text("#compared-throughput")
    assert "0.500" in compared and "2.000" in compared and "a slow memory" in compared
    assert tab.inner_text("#compared-power").count("within the uncertainties") == 6
    assert "None." in tab.inner_text("#compared-power")  # no condition differs
    assert tab.title().startswith("rowvit: ")


def test_what_results_say_is_not_markup(report):
    text = report.read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text


def test_power_beyond_its_uncertainty(power_file):
    first, second = (json.loads(power_file.read_text()) for _ in range(2))
    first["power"]["joules_per_image"] = {"value": 0.5, "standard_error": 0.01, "uncertainty": 0.06}
    second["power"]["joules_per_image"] = {"value": 0.6, "standard_error": 0.01, "uncertainty": 0.06}
    text = page([("a", first), ("b", second)])
    assert text.count("beyond the uncertainties") == 1 and "1.200" in text


def test_one_result_is_not_compared(bench_file):
    text = page([("a", json.loads(bench_file.read_text()))])
    assert "compared" not in text.split("<body>")[1] and text.count('class="plot"') == 4


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567.8, "1,234,568"), (12.3456, "12.35"), (0.00123456, "0.001235"), (-2.5, "-2.500")],
)
def test_numbers_have_four_digits(value, text):
    assert number(value) == text
