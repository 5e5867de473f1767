# SPDX-License-Identifier: Apache-2.0
"""The page of a report: what it says, and that a browser shows it, on a desk and on a phone."""

from __future__ import annotations

import base64
import io
import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from browsers import browser
from PIL import Image

from rowvit.measure.draw import plots
from rowvit.measure.draw.plots import estimate, number
from rowvit.measure.report import charts
from rowvit.measure.report.page import page
from rowvit.measure.speed import profile


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
    other = json.loads(json.dumps(power).replace('"value": ', '"value": 9'))
    names = "deit-tiny-dense-on-the-simulated-rtl-2026-11-30.json", "deit-tiny-pruned-at-half-the-speed.json"
    documents = [(names[0], json.loads(bench_file.read_text())), (names[1], slower)]
    powers = [("measured-with-a-shunt.json", power), ("again.json", power), ("a-very-hot-board.json", other)]
    path.write_text(page([*documents, *powers]))
    return path


@pytest.fixture(scope="module")
def open_page():
    with browser() as opened:
        yield opened


#: cells of tables, and how many lines of text they have
LINES = """[...document.querySelectorAll('td, th')].map(cell => {
    const words = document.createRange();
    words.selectNodeContents(cell);
    return new Set([...words.getClientRects()].filter(r => r.width).map(r => Math.round(r.top))).size;
})"""
#: texts of what is wider inside than outside, and so cut off until somebody scrolls
CUT = """[...document.querySelectorAll('body *')]
    .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
    .filter(e => getComputedStyle(e).display !== 'inline')
    .map(e => e.outerHTML.slice(0, 120))"""


#: words that are broken between letters
BROKEN = """[...document.querySelectorAll('td, th, li, p, dd, dt, h2, h3')].flatMap(cell => {
    const found = [], nodes = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    while (nodes.nextNode())
        for (const word of nodes.currentNode.data.matchAll(/(?<!\\w)[A-Za-z]{2,20}(?!\\w)/g)) {
            const letters = document.createRange();
            letters.setStart(nodes.currentNode, word.index);
            letters.setEnd(nodes.currentNode, word.index + word[0].length);
            const lines = [...letters.getClientRects()].filter(r => r.width).map(r => Math.round(r.top));
            if (new Set(lines).size > 1) found.push(`${word[0]} in ${cell.textContent.trim().slice(0, 60)}`);
        }
    return found;
})"""


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_in_a_browser(open_page, report, bench_file, width):
    document = json.loads(bench_file.read_text())
    tab = open_page(viewport={"width": width, "height": 800})
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

    # a result takes less than four screens of a desk, and says what is not wanted at once when asked
    heights = tab.evaluate(
        "[...document.querySelectorAll('section')].map(e => e.getBoundingClientRect().height)"
    )
    assert width < 1280 or max(heights) < 4 * 800
    cards = tab.locator("#result-1 .card")
    assert [cards.nth(i).locator(".name").inner_text() for i in range(cards.count())] == [
        "throughput",
        "latency",
        "energy per image",
        "accuracy",
    ]
    assert number(document["throughput"]["images_per_second"]) in cards.nth(0).inner_text()
    assert "a dry run" not in tab.inner_text("#result-1")
    assert "6 images, in batches of 3" not in tab.inner_text("#result-1")
    cards.nth(0).locator("summary").click()
    assert "6 images, in batches of 3" in cards.nth(0).inner_text()
    tab.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width

    # nothing is cut off, in no table either, and no cell becomes a tower of words
    assert tab.evaluate(CUT) == []
    assert max(tab.evaluate(LINES)) <= 4
    assert tab.evaluate(BROKEN) == []

    # every plot is drawn: it has a size, and more than one color
    plots = tab.locator("img.plot")
    assert plots.count() == 2 * 4 + 3 * 2 + 2 + 1
    for i in range(plots.count()):
        box = plots.nth(i).bounding_box()
        assert 0.8 * min(width, 432) - 32 < box["width"] <= 544 and box["height"] > 100
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
        "CPU " + document["host"]["cpu"],
        "nothing was measured on a board",
        "torch",
    ):
        assert value in text
    compared = tab.inner_text("#compared-throughput")
    assert "0.500" in compared and "2.000" in compared and "a slow memory" in compared
    said = tab.inner_text("#compared-power")
    assert said.count("again.json within, a-very-hot-board.json beyond the uncertainties") == 6
    assert "None." in said  # no condition differs
    assert tab.title().startswith("rowvit: ")


def test_in_the_dark(open_page, report):
    """The page and its plots go by what the reader prefers: light words on dark, and the reverse."""
    for scheme, dark in (("light", False), ("dark", True)):
        tab = open_page(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
        tab.goto(report.as_uri(), wait_until="load")
        for part in ("#result-1 .cards", "#result-1 img.plot >> nth=0", "#result-1 .tables"):
            shot = Image.open(io.BytesIO(tab.locator(part).screenshot())).convert("L")
            shares = np.bincount(np.asarray(shot).ravel(), minlength=256) / (shot.width * shot.height)
            assert (shares[:64].sum() if dark else shares[240:].sum()) > 0.7, (scheme, part)
            words = shares[170:].sum() if dark else shares[:100].sum()
            assert 0.002 < words < 0.2, (scheme, part)


#: what is left of linear RGB without one kind of cones (Machado, Oliveira and Fernandes 2009)
BLIND = {
    "no": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def closest(colours: list[str], blind: str) -> float:
    """The smallest distance of two colours in CIE Lab, for a reader with a kind of colour blindness."""

    def lab(colour: str) -> np.ndarray:
        values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        seen = np.clip(np.array(BLIND[blind]) @ linear, 0, 1)
        to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
        ratio = np.array(to_xyz) @ seen / [0.9505, 1, 1.089]
        root = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
        return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])

    return min(float(np.linalg.norm(lab(one) - lab(other))) for one, other in combinations(colours, 2))


@pytest.mark.parametrize("blind", BLIND)
def test_colours_are_told_apart(blind):
    """By any reader; a distance of 10 is seen at a glance."""
    assert closest([*plots.COLOURS], blind) > 14
    assert closest([plots.BLUE, plots.VERMILION, plots.GREY], blind) > 20
    assert closest([*profile.COLOURS.values()], blind) > 20
    assert closest([colour for _, colour in profile.WAITS.values()], blind) > 20


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


def test_a_result_goes_by_one_name(bench_file):
    """In its title, its plots and the comparison; a simulated bar says so, and what the CPU's bars are."""
    document = json.loads(bench_file.read_text())
    assert charts.rates("mine.json", document).caption == (
        "Above, mine.json: simulated cycles at the core's clock. Below, measured: the float network on the"
        " CPU, load "
        f"{document['host']['load']:.1f}"
    )
    text = page([("mine.json", document), ("other.json", document)]).split("<body>")[1]
    assert "<h2>mine.json <small>random on sim: throughput</small></h2>" in text
    assert "other.json / mine.json" in text


def test_energy_is_that_of_the_same_network(bench_file, power_file):
    """A card of one result shows what another one of the same network on a board measured, and from where."""
    bench, power = (json.loads(path.read_text()) for path in (bench_file, power_file))
    bench["throughput"] |= {"layers": {"none": ""}, "baseline": {"none": ""}}  # fewer plots
    figure = power["power"]["joules_per_image"]
    texts = estimate(1e3 * figure["value"], 1e3 * figure["uncertainty"])
    shown = f'{texts[0]} ± {texts[1]} <span class="unit">'
    bench["protocol"]["batch"] = power["protocol"]["batch"]
    documents = [("bench.json", bench), ("power.json", power)]
    dry_run = page(documents)
    assert dry_run.count(shown) == 1 and "from power.json: a dry run" in dry_run
    bench["target"] = power["target"] = "board"
    assert page(documents).count(shown) == 2
    for key, inner in (("clock", "mhz"), ("protocol", "batch"), ("overlay", "sha256")):
        faster = json.loads(json.dumps(power))
        faster[key][inner] = 7
        apart = page([documents[0], ("power.json", faster)])
        assert apart.count(shown) == 1 and "rowvit power had another overlay, clock or batch" in apart
    assert "several results go with this: power.json, again.json" in page([*documents, ("again.json", power)])
    for one, other in (("0" * 64, "1" * 64), ({"none": "in memory"}, {"none": "in memory"})):
        bench["model"]["hash"], power["model"]["hash"] = one, other
        apart = page(documents)
        assert apart.count(shown) == 1 and apart.count("no result of rowvit power goes with this") == 1


def test_power_does_not_repeat_throughput(bench_file, power_file):
    """A result of power has its own figures; one without figures says why, and has nothing else."""
    bench, power = (json.loads(path.read_text()) for path in (bench_file, power_file))
    bench["throughput"] |= {"layers": {"none": ""}, "baseline": {"none": ""}}  # fewer plots
    none = power | {"power": {"none": "no meter was there"}}

    def cards(text: str, number: int) -> list[str]:
        section = text.split(f'<section id="result-{number}">')[1].partition("</section>")[0]
        return re.findall(r'<div class="card"><div class="name">([^<]*)', section)

    text = page([("bench.json", bench), ("power.json", power), ("none.json", none)])
    energies = ["energy per image", "of that, above idle", "throughput"]
    assert cards(text, 1) == ["throughput", "latency", "energy per image", "accuracy"]
    assert cards(text, 2) == energies and cards(text, 3) == ["energy per image"]
    assert cards(page([("power.json", power)]), 1) == [*energies, "accuracy"]


def test_accuracy_is_what_the_package_states(bench_file):
    document = json.loads(bench_file.read_text())
    assert document["model"]["accuracy"] == {"none": "the package states none"}
    document["throughput"] |= {"layers": {"none": ""}, "baseline": {"none": ""}}  # fewer plots
    assert "not stated" in page([("a", document)])
    document["model"]["accuracy"] = {"int8": 97.08, "set": "the <whole> set", "unit": "percent top-1"}
    text = page([("a", document)])
    assert "97.08" in text and "percent top-1" in text and "on the &lt;whole&gt; set" in text
    del document["model"]["accuracy"]  # of an older version
    assert "rowvit eval measures it" in page([("a", document)])


def test_legends_are_outside_the_axes(bench_file, power_file):
    """Of every plot with a legend: all of its words are above the frame of the axes."""
    documents = [("a", json.loads(bench_file.read_text())), ("b", json.loads(power_file.read_text()))]
    text = page([*documents, documents[0]])
    legends = 0
    for source in re.findall(r'class="plot" src="data:image/svg\+xml;base64,([^"]+)"', text):
        drawing = base64.b64decode(source).decode()
        axes = re.search(r'<g id="patch_2">\s*<path d="([^"]+)"', drawing)[1]
        top = min(float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", axes))
        if '<g id="legend_1">' in drawing:
            words = re.findall(r"translate\([\d.]+ ([\d.]+)\)", drawing.split('<g id="legend_1">')[1])
            assert words and max(map(float, words)) < top
            legends += 1
    assert legends >= 9


def test_what_the_network_makes_of_a_photo(small, bench_file, rowvit_command, tmp_path):
    out, photo = tmp_path / "page.html", small["images"] / "0.png"
    command = ("report", bench_file, "-o", out)
    rowvit_command(*command, "--model", small["package"], "--photo", photo)
    text = out.read_text()
    assert "What random makes of 0.png, by the integer reference" in text
    encoded = re.search(r'src="data:image/webp;base64,([^"]+)"', text)[1]
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).width > 1000
    for options, sentence in (
        (("--model", "sign-digits"), "no result is of the network sign-digits"),
        (("--photo", photo), "pass both --model and --photo"),
        (("--model", small["package"]), "pass both --model and --photo"),
    ):
        assert sentence in "".join(rowvit_command(*command, *options, code=2).stderr.splitlines())


def test_files_of_one_name(bench_file, rowvit_command, tmp_path):
    """They go by their paths."""
    files = [tmp_path / name / "bench.json" for name in ("before", "after")]
    for file in files:
        file.parent.mkdir()
        file.write_text(bench_file.read_text())
    rowvit_command("report", *files, "-o", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert all(f"<h2>{file} <small>" in text for file in files)


@pytest.mark.parametrize(
    ("value", "uncertainty", "texts"),
    [
        (0.49083, 0.14844, ("0.49", "0.15")),
        (3.00014, 0.0024426, ("3.0001", "0.0024")),
        (1234.5, 148.4, ("1,230", "150")),
        (12.345, 0.0996, ("12.35", "0.10")),
        (9.87, 9.96, ("10", "10")),
        (55.5, 12.3, ("56", "12")),
        (2.5, 0.0, ("2.500", "0")),
    ],
)
def test_uncertainties_have_two_digits(value, uncertainty, texts):
    assert estimate(value, uncertainty) == texts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (66.0, "66"),
        (1234567.8, "1,234,568"),
        (12.3456, "12.35"),
        (0.00123456, "0.001235"),
        (-2.5, "-2.500"),
    ],
)
def test_numbers_have_four_digits(value, text):
    assert number(value) == text
