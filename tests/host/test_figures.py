# SPDX-License-Identifier: Apache-2.0
"""Figures of the documentation are those of benchmarks/results: what is filled in, what is found wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import HANG

from rowvit.targets.target import read_package

ROOT = Path(__file__).resolve().parents[2]
PAGE = """# A page

An image of 96 pixels takes 1,234,567 cycles,
81.0 images/s<!--= runs/a net x8: cycles, images_per_second --> at 100 MHz,
`7,654<!--= runs/none: cycles -->`, and +0.25 points more.<!--= runs/other: points -->

| network | cycles<!--= cycles --> | points (of them)<!--= points, parts --> | |
| -- | -- | -- | -- |
| a net<!--= runs/a net x8 --> | 1,234,567 | | 1.2 M<!--= runs/a net x8: million_cycles --> |
| another<!--= runs/other --> | 999 | -1 (3 4) | 2 of them |

| runs<!--= runs --> | cycles<!--= cycles --> |
| -- | -- |
| other | 999 |

```
| text<!--= runs/a net x8 --> | 1 |
```
"""
RUNS = {
    "a net x8": {"cycles": 1234567, "clock_mhz": 100.0},
    "other": {"cycles": 999.4, "points": 0.25, "parts": [3, 4]},
}
FILLED = PAGE.replace("-1 (3 4)", "+0 (3 4)")


class Docs:
    """A page, and what benchmarks recorded, in a place of their own."""

    def __init__(self, folder: Path) -> None:
        self.page, self.results = folder / "README.md", folder / "benchmarks" / "results" / "runs.json"
        self.results.parent.mkdir(parents=True)
        for script in ("figures.py", "record.py"):
            shutil.copy(ROOT / "benchmarks" / script, folder / "benchmarks")
        self.record(RUNS)

    def record(self, runs: dict) -> None:
        self.results.write_text(json.dumps({name: {"figures": figures} for name, figures in runs.items()}))

    def run(self, text: str, *options: str) -> tuple[int, str]:
        """Exit status and output, for a page with this text."""
        self.page.write_text(text)
        command = [sys.executable, self.results.parents[1] / "figures.py", *options]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=HANG, env={"PYTHONPATH": str(ROOT / "host")}
        )
        assert not done.stderr, done.stderr
        return done.returncode, done.stdout


@pytest.fixture
def docs(tmp_path: Path) -> Docs:
    return Docs(tmp_path)


def test_filling_is_idempotent(docs: Docs) -> None:
    status, output = docs.run(PAGE)
    assert (status, docs.page.read_text()) == (0, FILLED)
    assert "README.md:10: -1 is +0 in benchmarks/results (runs/other: points, parts)" in output
    status, output = docs.run(FILLED)
    assert (status, docs.page.read_text()) == (0, FILLED)
    assert output == "README.md: 10 of 13 numbers are filled in\n"
    assert docs.run(FILLED, "--check")[0] == 0


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("1,234,567 cycles", "1,234,568 cycles", 3, "1,234,568 is 1,234,567"),
        ("81.0 images", "81.1 images", 4, "81.1 is 81.0"),
        ("+0.25 points", "+0.35 points", 5, "+0.35 is +0.25"),
        ("| 1,234,567 |", "| 1,234,576 |", 9, "1,234,576 is 1,234,567"),
        ("| 1.2 M", "| 1.3 M", 9, "1.3 is 1.2"),
        ("(3 4)", "(3 5)", 10, "5 is 4"),
        ("| other | 999 |", "| other | 998 |", 14, "998 is 999"),
    ],
)
def test_a_digit_that_differs_is_named(docs: Docs, old: str, new: str, line: int, says: str) -> None:
    wrong = FILLED.replace(old, new)
    status, output = docs.run(wrong, "--check")
    assert status == 1 and docs.page.read_text() == wrong
    assert f"README.md:{line}: {says} in benchmarks/results (runs/" in output
    assert len(output.splitlines()) == 2


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("runs/other: points -->", "runs/other: pints -->", "no record of 'runs' has a figure 'pints'"),
        ("runs/other: points -->", "rums/other: points -->", "has no record 'rums/other'"),
        ("cycles<!--= cycles --> | points", "cycles<!--= cicles --> | points", "a figure 'cicles'"),
        ("| other |", "| others |", "has no record 'runs/others'"),
        ("runs/other: points -->", "runs/a net x8: points -->", "runs/a net x8 has no 'points'"),
        ("-1 (3 4)", "-1 (3 4 5)", "4 numbers stand where benchmarks/results has 3"),
        ("| 999 | +0", "| | +0", "0 numbers stand where benchmarks/results has 1"),
    ],
)
def test_a_figure_that_is_not_there_is_named(docs: Docs, old: str, new: str, says: str) -> None:
    text = (FILLED if "+0" in old else PAGE).replace(old, new)
    assert text != (FILLED if "+0" in old else PAGE)
    for options in ([], ["--check"]):
        status, output = docs.run(text, *options)
        assert status == 1
        assert says in output


def test_a_new_figure_is_filled_in(docs: Docs) -> None:
    """As the page writes it."""
    docs.record(RUNS | {"a net x8": {"cycles": 80000, "clock_mhz": 100.0}})
    status, _ = docs.run(PAGE)
    found = docs.page.read_text()
    assert status == 0
    assert "An image of 96 pixels takes 80,000 cycles,\n1,250.0 images/s<!" in found
    assert "| a net<!--= runs/a net x8 --> | 80,000 | | 0.1 M<" in found


def test_rows_of_accuracy(docs: Docs) -> None:
    """What a benchmark prints is what a page gets from its record, which says where it comes from."""
    pytest.importorskip("torch")
    folder = docs.results.parents[1]
    shutil.copy(ROOT / "benchmarks" / "accuracy.py", folder)
    arguments = []
    for name, right, interval, hidden in (
        ("GELU float", 397, [94.3641, 97.9595], 256),
        ("+ int8, narrower", 390, [92.3161, 96.6344], 64),
    ):
        report = {
            "macs_executed": 30e6 + hidden * 0.4e6,
            "macs_dense": 40e6 + hidden * 0.5e6,
            "w2_rows_fetched": hidden * 9.0,
            "w2_rows_total": hidden * 12.0,
            "hidden_neurons": hidden,
            "zeros": 45.6,
            "data": "signs",
            "photos": 411,
            "top1": 100 * right / 411,
            "top1_interval_95": interval,
        }
        (folder / f"{right}.json").write_text(json.dumps(report | {"cycles": 473523.4}))
        arguments.append(f"{name}={folder}/{right}.json")
    environment = {"PYTHONPATH": str(ROOT / "host")}
    command = [sys.executable, folder / "accuracy.py", *arguments, "--record", "signs"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, env=environment, check=True)
    head, line, *rows = done.stdout.splitlines()[:4]
    keys = ["top1, low, high", "change", "million_macs, macs_saved"]
    keys += ["w2_rows_fetched, w2_rows_total, w2_rows_saved", "zeros", "cycles"]
    marks = " | ".join(f"<!--= {key} -->" for key in keys)
    page = "\n".join([f"| <!--= signs --> | {marks} |", line, *rows, ""])
    assert docs.run(page, "--check") == (0, "README.md: 22 of 22 numbers are filled in\n"), head
    assert "| 132.4 (21.2%) | 2,304 of 3,072 (25.0%) |" in rows[0]
    assert "| 55.6 (66.9%) | 576 of 3,072 (81.2%) |" in rows[1]  # of the wide network's 168 million and rows
    record = json.loads((docs.results.parent / "signs.json").read_text())["+ int8, narrower"]
    assert record["command"].endswith("--record signs")
    assert set(record["versions"]) == {"python", "numpy", "torch"}
    assert {"date", "commit", "processor"} < set(record)


def test_commands_run_again(docs: Docs) -> None:
    """Those that record, each once."""
    folder = docs.results.parents[1]
    (folder / "say.py").write_text("import sys; print(*sys.argv[1:])")
    once = {"command": "python benchmarks/say.py 'a b' --record", "figures": {}}
    entered = {"command": "python benchmarks/say.py entered", "entered": "from a page", "figures": {}}
    docs.results.write_text(json.dumps({"one": once, "two": once, "three": entered, "four": {"figures": {}}}))
    command = [sys.executable, folder / "record.py", "runs"]
    environment = {"PYTHONPATH": str(ROOT / "host")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, env=environment, check=True)
    assert done.stdout == f"+ {once['command']}\na b --record\n"


@pytest.mark.parametrize(
    ("name", "file", "record"),
    [("sign-digits", "demo", "int8"), ("everyday", "everyday-narrow", "as it comes with rowvit")],
)
def test_cards_of_networks_say_what_was_measured(name: str, file: str, record: str) -> None:
    """What ``rowvit info`` shows of those that come with rowvit."""
    results = json.loads((ROOT / "benchmarks" / "results" / f"{file}.json").read_text())
    measured = results[record]["figures"]
    card = read_package(name).meta["accuracy"]
    assert card["int8"] == round(100 * measured["right"] / measured["photos"], 2)
    assert card["macs_saved_percent"] == round(measured["macs_saved"], 1)
    assert card["w2_rows_saved_percent"] == round(measured["w2_rows_saved"], 1)
