# SPDX-License-Identifier: Apache-2.0
"""Numbers and names in the pages that the code has, too, are the code's; measured ones: test_figures.py."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rowvit.errors import RowvitError
from rowvit.hardware import clocks, isa, pipeline
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import DMA_PARAMETERS, board
from rowvit.hardware.config import tomllib
from rowvit.measure.power.passes import DRY_RUN, PowerPlan
from rowvit.serve.gate import _GUESSES
from rowvit.serve.protocol import _JSON
from rowvit.serve.service import _LEARNING, Limits
from rowvit.targets import diagnose
from rowvit.targets.driver import Accelerator
from rowvit.teach.lesson import FEWEST

ROOT = Path(__file__).resolve().parents[2]
#: pages about what is there now; results and changelog tell of earlier states, too
PAGES = [
    *("README.md", "CONTRIBUTING.md", "bitstreams/README.md", "hls/README.md"),
    *sorted(
        f"docs/{path.name}" for path in ROOT.glob("docs/*.md") if path.stem not in ("results", "experiments")
    ),
]
WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
PYNQ, WIDE = configs.load("pynq-z2"), configs.load("pynq-z2-257")


def text(page: str) -> str:
    """A page without the wraps of its lines."""
    return " ".join((ROOT / page).read_text().split())


def test_modules_that_have_moved_are_where_the_changelog_says() -> None:
    table = (ROOT / "CHANGELOG.md").read_text().partition("these modules have moved:")[2].strip()
    found = []
    for row in table.split("\n\n")[0].splitlines()[2:]:
        new = re.findall(r"`((?:rowvit)?\.[\w.]+)`", row.split("|")[2])
        home = new[0].rpartition(".")[0] if new else ""
        found += [home + name if name.startswith(".") else name for name in new]
    assert len(found) > 20
    for name in found:
        assert importlib.util.find_spec(name), name


def possible(base: configs.HardwareConfig, name: str) -> list[int]:
    """The values below 100 that a field may have beside the others."""
    found = []
    for value in range(100):
        with suppress(RowvitError):
            replace(base, **{name: value})
            found.append(value)
    return found


def default(function, name: str):
    return inspect.signature(function).parameters[name].default


def causes() -> int:
    """Of a wait that takes too long: the sentences that the driver has for it."""
    source = textwrap.dedent(inspect.getsource(Accelerator._cause))
    return sum(isinstance(node, ast.Return) for node in ast.walk(ast.parse(source)))


def bits(field: str) -> int:
    """Width of a field of the register CAPS."""
    high, low = map(int, re.findall(rf"{field}\[(\d+):(\d+)\]", isa.REGISTERS["CAPS"][2])[0])
    return high - low + 1


ROWS = "{}, {} or {}".format(*possible(PYNQ, "rows"))
CLOCK = f"{PYNQ.clock_mhz:g}"
LESSONS = Limits().lessons
RESULTS = json.loads((ROOT / "benchmarks/results/cycles.json").read_text())
CYCLES = RESULTS["pynq-z2 sign-digits"]["figures"]["cycles"]
#: page, a place in it, and the numbers that it has there
CLAIMS: list[tuple[str, str, tuple[object, ...]]] = [
    ("README.md", r"images/s at ([\d.]+) MHz", (CLOCK,)),
    ("CONTRIBUTING.md", r"`rows` is ([^.]+)\.", (ROWS,)),
    ("CONTRIBUTING.md", r"the register has (\d+) bits for the rows", (bits("rows"),)),
    ("CONTRIBUTING.md", r"parts of a band, of at most (\w+) rows each", (WORDS[pipeline.NORM_ROWS],)),
    ("CONTRIBUTING.md", r"It takes ([\d,]+) cycles, ([\d.]+) images/s<!--= cycles/pynq-z2 sign-digits:",
     (f"{CYCLES:,.0f}", f"{1e6 * PYNQ.clock_mhz / CYCLES:.1f}")),
    ("docs/architecture.md", r"a \*band\*: ([^)]+)\)", (ROWS,)),
    ("docs/architecture.md", r"- ROWS is ([^.]+)\.", (ROWS,)),
    ("docs/architecture.md", r"GROUPS is at most (\d+) \((\d+) if LANES is below 64\)",
     (max(possible(PYNQ, "groups")), max(possible(configs.load("tiny"), "groups")))),
    ("docs/architecture.md", r"LANES of each group \((\d+) at `pynq-z2`\)", (PYNQ.tile,)),
    ("docs/architecture.md", r"LayerNorm has lanes for (\w+) rows", (WORDS[pipeline.NORM_ROWS],)),
    ("docs/architecture.md", r"at most (\d+) bursts of (\d+) words", (pipeline.BURSTS, pipeline.BURST_WORDS)),
    ("docs/architecture.md", r"\| weight \| (\d+) groups x (\d+) lines x (\d+) bytes",
     (PYNQ.groups, PYNQ.weight_depth, PYNQ.lanes)),
    ("docs/architecture.md", r"\| token \| (\d+) banks x ([\d,]+) x 64 bit",
     (PYNQ.rows, f"{PYNQ.token_depth:,}")),
    ("docs/architecture.md", r"\| residual \| (\d+) banks x ([\d,]+) x 16 bit",
     (PYNQ.rows * PYNQ.groups, f"{PYNQ.residual_depth:,}")),
    ("docs/architecture.md", r"\| parameters \| (\d+) groups x (\d+) slots x (\d+) lanes",
     (PYNQ.groups, PYNQ.param_slots, PYNQ.lanes)),
    ("docs/architecture.md", r"\(([\d,]+) and ([\d,]+) words\)",
     (f"{WIDE.residual_depth:,}", f"{WIDE.token_depth:,}")),
    ("docs/board.md", r"ABI and hash (\w+) are correct", (f"{PYNQ.hash:08X}",)),
    ("docs/board.md", r"ok PL clock PL clock 0 runs at ([\d.]+) MHz, built for ([\d.]+)",
     (f"{clocks.at_most(board('Pynq-Z2').pll_mhz, PYNQ.clock_mhz).mhz:.1f}", CLOCK)),
    ("docs/board.md", r"or one of (\w+) other causes", (WORDS[causes() - 1],)),
    ("docs/board.md", r"`--timeout` \((\d+) s per image", (f"{default(Accelerator.__init__, 'timeout'):g}",)),
    ("docs/board.md", r"\(a (\w+) cycles without progress\)",
     ({1_000_000: "million"}.get(default(Accelerator.__init__, "watchdog")),)),
    ("docs/measurement.md", r"The default is (\d+) pairs of (\d+) s",
     (PowerPlan().pairs, f"{PowerPlan().seconds:g}")),
    ("docs/measurement.md", r"Each pass starts with (\d+) s of .*? a tail of ([\d.]+) s",
     (f"{PowerPlan().settle:g}", f"{PowerPlan().tail:g}")),
    ("docs/measurement.md", r"it takes (\d+) pairs of (\d+) s", (DRY_RUN.pairs, f"{DRY_RUN.seconds:g}")),
    ("docs/serve.md", r"over (\d+) MB of JSON", (_JSON >> 20,)),
    ("docs/serve.md", r"more than (\d+) connections", (Limits().connections,)),
    ("docs/serve.md", r"Of connections \((\d+)\), of megabytes that are on their way \((\d+);",
     (Limits().connections, Limits().bodies >> 20)),
    ("docs/serve.md", r"After (\w+) wrong ones from an address", (WORDS[_GUESSES],)),
    ("docs/serve.md", r"or (\d+) minutes without a question", (f"{LESSONS.idle / 60:g}",)),
    ("docs/serve.md", r"more than (\d+) lessons, or more than (\d+) MB",
     (LESSONS.lessons, LESSONS.size >> 20)),
    ("docs/serve.md", r"more than (\d+) classes or ([\d,]+) photos in a lesson",
     (LESSONS.classes, f"{LESSONS.photos:,}")),
    ("docs/serve.md", r"fewer than (\w+) photos of one", (WORDS[FEWEST],)),
    ("docs/serve.md", r"more than (\d+) lessons that wait to learn", (_LEARNING,)),
    ("docs/serve.md", r"the (\d+) that were used last stay compiled", (LESSONS.compiled,)),
    ("docs/your-model.md", r"of (\d+) MAC per cycle images per second \S+ at ([\d.]+) MHz",
     (PYNQ.macs_per_cycle, CLOCK)),
    ("bitstreams/README.md", r"length register of (\d+) bits \(packets of up to (\d+) MB\)",
     (DMA_PARAMETERS["c_sg_length_width"], 1 << int(str(DMA_PARAMETERS["c_sg_length_width"])) - 20)),
    ("hls/README.md", r"At ([\d.]+) MHz a frame", (CLOCK,)),
]  # fmt: skip


@pytest.mark.parametrize("page, place, numbers", CLAIMS)
def test_numbers_are_those_of_the_code(page: str, place: str, numbers: tuple[object, ...]) -> None:
    found = re.findall(place, text(page))
    assert found, "the page no longer says it: change the claim with it"
    said = {one if isinstance(one, tuple) else (one,) for one in found}
    assert said == {tuple(map(str, numbers))}


def shapes(page: str) -> Iterator[tuple[str, str]]:
    """Configurations with rows x groups x lanes behind their names, as ``pynq-z2` (2 x 3 x 64)``."""
    for name, shape in re.findall(r"`(?:CONFIG=)?([\w-]+)`,? \(?(\d+ x \d+ x \d+)\b", text(page)):
        if name in configs.names():
            yield name, shape


def test_shapes_of_configurations() -> None:
    found = [one for page in PAGES for one in shapes(page)]
    assert {name for name, _ in found} == set(configs.names())
    for name, shape in found:
        config = configs.load(name)
        assert shape == f"{config.rows} x {config.groups} x {config.lanes}", name


def test_clocks_of_configurations() -> None:
    found = [
        one for page in PAGES for one in re.findall(r"`([\w-]+)`[^.`|]*? at (\d[\d.]*\d) MHz", text(page))
    ]
    assert ("kv260", "199.998") in found
    for name, mhz in found:
        assert name not in configs.names() or float(mhz) == configs.load(name).clock_mhz, name


def test_ultra_ram_in_the_files_of_configurations() -> None:
    found = {
        path.stem: sum(map(int, parts[0]))
        for path in configs.DIRECTORY.glob("*.toml")
        if (parts := re.findall(r"UltraRAM: (\d+) token, (\d+) residual", path.read_text()))
    }
    assert found == {name: configs.load(name).ultra_ram for name in ("kv260", "zcu104")}


def test_layers_are_those_of_the_contract() -> None:
    """The table in CONTRIBUTING.md has every module of the package, in the order of pyproject.toml."""
    page = (ROOT / "CONTRIBUTING.md").read_text().partition("| layer | contents |")[2].partition("\n\n")[0]
    told = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in page.splitlines() if line))
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    assert told == [name for layer in contract["layers"] for name in layer.split(" | ")]


def test_folders_of_tests() -> None:
    (row,) = re.findall(r"\| `tests/` \| (.*) \|", (ROOT / "CONTRIBUTING.md").read_text())
    folders = {path.parent.name for path in ROOT.glob("tests/*/*.py")}
    assert set(re.findall(r"`(\w+)`", row)) == folders


def test_layers_are_counted_from_0() -> None:
    """As the glossary says, in whatever tells users of them."""
    assert "Layers are counted from 0, in files" in text("docs/glossary.md")
    pages = [*PAGES, "docs/results.md", "docs/experiments.md"]
    scripts = (path for path in ROOT.glob("recipes/*/*.*") if path.suffix != ".safetensors")
    pages += [str(path.relative_to(ROOT)) for path in scripts]
    for page in pages:
        assert not re.search(r"(counted |\(|\(?blocks |\(?layers )from 1\b", text(page)), page


def test_targets_of_make() -> None:
    """Commands in the pages are targets of the Makefile."""
    (phony,) = re.findall(r"\.PHONY: ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text())
    targets = set(phony.replace("\\", " ").split())
    for page in PAGES:
        code = re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", (ROOT / page).read_text(), re.DOTALL)
        for command in (line for block in code for line in "\n".join(block).splitlines()):
            for target in re.findall(r"^(?:.*&& )?make ((?!PYTHON)[a-z][\w.-]*)", command.strip()):
                assert target in targets, (page, command)


def test_headers_of_the_rtl_have_no_resources() -> None:
    """What a tool counts is in docs/results.md; nothing would hold it here."""
    for path in ROOT.glob("rtl/**/*.v"):
        header = path.read_text().partition("`default_nettype")[0]
        assert not re.search(r"[Rr]esources|\d[\d.,]*k? (LUT|FF|flip-flops|RAMB36)\b", header), path


def test_largest_network_of_diagnose() -> None:
    """The sample in docs/board.md, with the integer reference in place of the core."""

    class Walk(diagnose._Walk):
        def __init__(self) -> None:
            self.config, self.overlay = PYNQ, SimpleNamespace(frontend="host")

        def _compare(self, package, program):
            (result,) = self._golden(package)(diagnose._images(program, 1))
            return replace(result, cycles=0)

    said = str(Walk()._memories()[1]).replace(" 0 cycles", " ... cycles")
    assert said in text("docs/board.md")


def test_badges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of README.md are what `make pictures` would make of pyproject.toml today."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import pictures

    for name, badge in pictures.badges().items():
        assert (ROOT / f"docs/pictures/{name}.svg").read_text() == badge, name
