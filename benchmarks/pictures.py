# SPDX-License-Identifier: Apache-2.0
"""The pictures of README.md and docs/backbones.md, to docs/pictures: what commands write, and badges.

make pictures
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.text import Text

from rowvit.hardware.config import tomllib
from rowvit.targets.target import read_package

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "pictures"
PHOTO = "host/rowvit/models/sign_digits_photos/3_0618.jpg"
RUN = ("run", "sign-digits", "--target", "sim", "--check")
COLUMNS = 82  # as wide as the lines of RUN


def rowvit(*arguments: str) -> str:
    """What the command prints, with its colours."""
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    command = [sys.executable, "-m", "rowvit.cli", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def terminal(command: str, output: str) -> str:
    """A window with a command and its output, as SVG that loads no fonts."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text(f"$ {command}", "bold"))
    console.print(Text.from_ansi(output.rstrip()))
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="rowvit"), flags=re.DOTALL)


def badge(name: str, text: str, color: str) -> str:
    """Name and text, side by side."""
    left, right = (7 * len(part) + 12 for part in (name, text))
    style = 'font-family="Verdana, sans-serif" font-size="11" fill="#fff" text-anchor="middle"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img"'
        f' aria-label="{escape(f"{name}: {text}")}"><clipPath id="r"><rect width="{left + right}" height="20"'
        f' rx="3"/></clipPath><g clip-path="url(#r)"><rect width="{left}" height="20" fill="#555"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{color}"/></g>'
        f'<g {style}><text x="{left / 2}" y="14" textLength="{left - 12}">{escape(name)}</text>'
        f'<text x="{left + right / 2}" y="14" textLength="{right - 12}">{escape(text)}</text></g></svg>\n'
    )


def badges() -> dict[str, str]:
    """What pyproject.toml and the RTL's rules say of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python = project["requires-python"].removeprefix(">=") + " or later"
    return {
        "licence": badge("licence", project["license"], "#3b6fb6"),
        "python": badge("Python", python, "#3b6fb6"),
        "verilog": badge("RTL", "Verilog-2005", "#3b6fb6"),
        "board": badge("on a board", "not run yet", "#9a6700"),
    }


@contextmanager
def served(target: str, *networks: str) -> Iterator[Page]:
    """The live page of these networks, in a browser."""
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    command = [sys.executable, "-m", "rowvit.cli", "serve", *networks, "--target", target, "--port", "0"]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        address = next(line for line in server.stderr or () if "http://" in line).split()[-1]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
            tab = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
            tab.goto(address)
            yield tab
            browser.close()
    finally:
        server.terminate()
        server.communicate()


def picture(tab: Page, name: str) -> None:
    """What the browser shows."""
    shown = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    shown.resize((960, 720)).save(OUT / f"{name}.webp", quality=85)


def page() -> None:
    """The live page: a photo on the network, and beside it on the same without pruning, both on sim."""
    with tempfile.TemporaryDirectory() as directory:
        dense = read_package("sign-digits")
        dense.meta["pruning"] = []
        dense.save(f"{directory}/dense.safetensors")
        with served("sim", "sign-digits", f"dense={directory}/dense.safetensors") as tab:
            tab.select_option("#other", "dense")
            tab.click(".examples button:nth-child(8)")
            tab.wait_for_selector("article.answer", timeout=300_000)
            tab.locator("input[type=range]").first.fill("4")
            tab.locator(".now").evaluate("part => part.remove()")  # its figures are of this moment
            picture(tab, "serve")


def lesson() -> None:
    """The tab Teach: hand signs for even and for odd digits, taught to the network of everyday things."""
    photos = sorted((ROOT / PHOTO).parent.glob("*.jpg"))
    new = photos.pop(7)
    with served("golden", "everyday") as tab:
        tab.get_by_role("link", name="Teach").click()
        for number, name in enumerate(("even", "odd")):
            tab.locator("#classes .name").nth(number).fill(name)
            own = [str(photo) for photo in photos if int(photo.name[0]) % 2 == number]
            tab.locator("#classes .files").nth(number).set_input_files(own)
            tab.get_by_text(f"{len(own)} photos", exact=True).nth(0).wait_for(timeout=300_000)
        tab.wait_for_function(
            "() => !document.getElementById('teach-state').textContent.includes('on their way')",
            timeout=300_000,
        )
        tab.get_by_role("button", name="Learn", exact=True).click()
        tab.locator("#findings").wait_for(timeout=300_000)
        tab.locator("#try").set_input_files(str(new))
        tab.wait_for_selector("article.answer", timeout=300_000)
        tab.locator("article.answer input[type=range]").fill("8")
        tab.locator(".now").evaluate("part => part.remove()")
        tab.evaluate("() => window.scrollTo(0, 0)")
        picture(tab, "teach")


def neighbours(columns: int = 5, rows: int = 3, side: int = 112, gap: int = 4) -> Image.Image:
    """Of every fourth of the demo's photos, on top, those whose class tokens are likest, and the cosines."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "features.npz"
        rowvit("features", "sign-digits", str(Path(PHOTO).parent), "--target", "golden", "-o", str(output))
        with np.load(output) as found:
            tokens, files = found["values"][:, 0], found["files"]
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    likeness = tokens @ tokens.T
    np.fill_diagonal(likeness, -1)
    width, height = (count * (side + gap) - gap for count in (columns, rows + 1))
    picture = Image.new("RGB", (width, height + gap), "white")
    draw = ImageDraw.Draw(picture)
    for column, photo in enumerate(range(0, len(files), len(files) // columns)):
        best = np.argsort(-likeness[photo], kind="stable")[:rows]
        for row, number in enumerate([photo, *best]):
            place = column * (side + gap), row * (side + gap) + gap * (row > 0)
            with Image.open(ROOT / str(files[number])) as file:
                picture.paste(file.convert("RGB").resize((side, side)), place)
            if row:
                text = f"{likeness[photo, number]:.2f}"
                draw.rectangle((*place, place[0] + 29, place[1] + 13), "white")
                draw.text((place[0] + 3, place[1] + 1), text, "black")
    return picture


def main() -> None:
    OUT.mkdir(exist_ok=True)
    page()
    lesson()
    rowvit("run", "sign-digits", PHOTO, "--target", "sim", "--plot", str(OUT / "photo.webp"))
    rowvit("profile", "sign-digits", "--plot", str(OUT / "profile.webp"))
    (OUT / "run.svg").write_text(terminal(" ".join(("rowvit", *RUN)), rowvit(*RUN)))
    neighbours().save(OUT / "neighbours.webp", quality=80)
    for name, text in badges().items():
        (OUT / f"{name}.svg").write_text(text)


if __name__ == "__main__":
    main()
