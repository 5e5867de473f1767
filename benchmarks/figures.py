# SPDX-License-Identifier: Apache-2.0
"""Figures of the documentation, from what the benchmarks keep in benchmarks/results.

    python benchmarks/figures.py            # fill them into the pages
    python benchmarks/figures.py --check    # name those that are others, and exit 1

A comment that no reader sees names the numbers right before it: file and record, and keys of the record or of
`DERIVED`, one for each number.

    It takes 479,937 cycles, 297.7 images/s<!--= cycles/pynq-z2 sign-digits: cycles, images_per_second -->

In a table they may also stand in the first cell of a row, ``FILE/RECORD``, and in the head of a column,
``KEY, KEY``, or the other way round, and name all numbers of the cell where they meet, if it has no comment
of its own. ``FILE`` in the corner makes the text of the first cells their records. Where a record lacks the
figure, the cell has no number.

The page decides how a figure looks: it keeps its decimals, commas and sign. A comment touches the text before
it, as one that begins a line would end the paragraph.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from record import read

from rowvit.hardware.config import load
from rowvit.measure.accuracy.evaluation import wilson

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/*.md", "bitstreams/*.md", "hls/*.md")
CODE = re.compile(r"^ *```.*?^ *```|<!--.*?-->|`[^`\n]*`", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"<!--= (.*?) -->")
LINE, BAR = re.compile(".+"), re.compile(r"(?<!\\)\|")
NUMBER = re.compile(r"(?<![\w./-])[+-]?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")


class Unknown(Exception):
    """A comment names what is not there."""


class Figures:
    """Those of a record and those that follow from them, by key; `KeyError` if only other records have it."""

    records = staticmethod(cache(read))

    def __init__(self, reference: str) -> None:
        self.file, _, name = reference.partition("/")
        if name not in self.records(self.file):
            raise Unknown(f"benchmarks/results has no record '{reference}'")
        self.recorded = self.records(self.file)[name]["figures"]

    @property
    def first(self) -> Figures:
        """Those of the file's first record."""
        return Figures(f"{self.file}/{next(iter(self.records(self.file)))}")

    def __getitem__(self, key: str) -> Any:
        if key in self.recorded:
            return self.recorded[key]
        if key in DERIVED:
            return DERIVED[key](self)
        if any(key in record["figures"] for record in self.records(self.file).values()):
            raise KeyError(key)
        raise Unknown(f"no record of '{self.file}' has a figure '{key}', nor is it derived")


#: figures that follow from others
DERIVED: dict[str, Callable[[Figures], Any]] = {
    # cycles
    "clock_mhz": lambda f: load(f["config"]).clock_mhz,
    "images_per_100_megacycles": lambda f: 1e8 / f["cycles"],
    "images_per_second": lambda f: f["clock_mhz"] * 1e6 / f["cycles"],
    "images_per_second_at_best": lambda f: f["images_per_second"] / f["useful"],
    "images_per_second_of_a_dsp": lambda f: (
        f["images_per_second"] / Figures(f"resources/{f['config']}")["dsp"]
    ),
    "million_cycles": lambda f: f["cycles"] / 1e6,
    "of_dense": lambda f: Figures(f"cycles/{f['config']} {f['network']} dense")["cycles"] / f["cycles"],
    "busy_percent": lambda f: 100 * f["busy"],
    "useful_percent": lambda f: 100 * f["useful"],
    "predicted_cycles": lambda f: sum(f["predicted"]),
    "of_lower_percent": lambda f: 100 * f["of_lower"],
    "multiplies_percent": lambda f: 100 * f["multiplies"] / f["cycles"],
    # resources
    "lut": lambda f: f["lut_logic"] + f["lut_memory"],
    "lut_percent": lambda f: 100 * f["lut"] / Figures(f"parts/{f['config']}")["lut"],
    "ramb36_percent": lambda f: 100 * f["ramb36"] / Figures(f"memories/{f['config']}")["part_ramb36"],
    # UG949 counts one for eight flip-flops of the part
    "control_sets_percent": lambda f: 100 * f["control_sets"] / (Figures(f"parts/{f['config']}")["ff"] / 8),
    # accuracy; a file begins with the network that the others are compared with
    "top1": lambda f: 100 * f["right"] / f["photos"],
    "low": lambda f: 100 * wilson(f["right"], f["photos"])[0],
    "high": lambda f: 100 * wilson(f["right"], f["photos"])[1],
    "gelu": lambda f: f.first["top1"],
    "change": lambda f: f["top1"] - f.first["top1"],
    "lost": lambda f: f.first["top1"] - f["top1"],
    "million_macs": lambda f: f["macs_executed"] / 1e6,
    # schedules
    "spaced_percent": lambda f: 100 * f["spaced"] / f["photos"],
    "searched_percent": lambda f: 100 * f["searched"] / f["photos"],
    # how far from the goal of docs/results.md
    "lost_too_much": lambda f: f["lost"] - 2.0,
    "macs_missing": lambda f: 61.5 - f["macs_saved"],
    "w2_rows_missing": lambda f: 59.3 - f["w2_rows_saved"],
}


class Place(NamedTuple):
    """A stretch of a page where numbers are figures: the last ones, or all."""

    start: int
    end: int
    reference: str  #: FILE/RECORD
    keys: str  #: KEY, KEY
    all: bool


def places(page: str) -> Iterator[Place]:
    """In order."""
    bare = CODE.sub(lambda found: found[0] if found[0].startswith("<!--") else blank(found), page)
    for block in re.finditer(r"(?:^.*\S.*\n?)+", bare, re.MULTILINE):
        if block[0].startswith("|"):
            yield from _in_table(page, bare, block)
        else:
            yield from _before_comments(bare, *block.span())


def _before_comments(bare: str, start: int, end: int) -> Iterator[Place]:
    for found in NAMED.finditer(bare, start, end):
        reference, _, keys = found[1].rpartition(": ")
        yield Place(start, found.start(), reference, keys, False)
        start = found.end()


def _in_table(page: str, bare: str, table: re.Match) -> Iterator[Place]:
    lines = [line.span() for line in LINE.finditer(bare, *table.span())]
    rows = [[(a.end(), b.start()) for a, b in pairwise(BAR.finditer(bare, *line))] for line in lines]

    def named(cell: tuple[int, int]) -> str:
        found = NAMED.search(bare, *cell)
        return found[1] if found else ""

    corner, *columns = map(named, rows[0])
    for line, (head, *cells) in zip(lines[2:], rows[2:], strict=True):
        row = named(head) or (f"{corner}/{page[slice(*head)].strip()}" if corner else "")
        for cell, column in zip(cells, columns, strict=True):
            if row and column and not named(cell):
                reference, keys = (row, column) if "/" in row else (column, row)
                yield Place(*cell, reference, keys, True)
        yield from (place for place in _before_comments(bare, *line) if place.reference)


def blank(found: re.Match) -> str:
    """Spaces in place of what was found."""
    return re.sub(r"\S", " ", found[0])


def shaped(old: str, value: float) -> str:
    """The figure as it looks in the place of the old one."""
    sign = "+" if old[0] in "+-" else ""
    comma = "" if re.search(r"\d{4}", old) else ","
    return f"{value:{sign}{comma}.{len(old.partition('.')[2])}f}"


class Change(NamedTuple):
    """A number that is not the figure, or, where ``new`` is empty, what keeps a figure from its place."""

    start: int
    end: int
    new: str
    what: str


def changes(page: str) -> tuple[list[Change], int]:
    """What a page has wrong, and how many of its numbers are figures."""
    visible, found, count = CODE.sub(blank, page), list[Change](), 0
    for start, end, reference, keys, whole in places(page):
        numbers = list(NUMBER.finditer(visible, start, end))
        try:
            record = Figures(reference)
            values = [record[key] for key in keys.split(", ")]
        except Unknown as error:
            found.append(Change(end, end, "", str(error)))
            continue
        except KeyError as error:
            if numbers or not whole:
                found.append(Change(end, end, "", f"{reference} has no {error}"))
            continue
        values = [v for value in values for v in (value if isinstance(value, list) else [value])]
        wanted = f"{reference}: {keys}"
        if len(numbers) < len(values) or (whole and len(numbers) > len(values)):
            text = f"{len(numbers)} numbers stand where benchmarks/results has {len(values)} ({wanted})"
            found.append(Change(end, end, "", text))
            continue
        for number, value in zip(numbers[-len(values) :], values, strict=True):
            count += 1
            if (new := shaped(number[0], value)) != number[0]:
                text = f"{number[0]} is {new} in benchmarks/results ({wanted})"
                found.append(Change(*number.span(), new, text))
    return sorted(found), count


def main(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if a figure differs.")
    ] = False,
) -> None:
    """Fill the figures into the pages, and print how many numbers of each page are filled in."""
    wrong = 0
    for path in (path for pattern in PAGES for path in sorted(ROOT.glob(pattern))):
        page = path.read_text()
        found, count = changes(page)
        name = path.relative_to(ROOT)
        for change in found:
            print(f"{name}:{page.count(chr(10), 0, change.start) + 1}: {change.what}")
            wrong += check or not change.new
        if not check:
            for start, end, new, _ in reversed(found):
                page = page[:start] + (new or page[start:end]) + page[end:]
            path.write_text(page)
        if count:
            print(f"{name}: {count} of {len(NUMBER.findall(CODE.sub(blank, page)))} numbers are filled in")
    raise typer.Exit(wrong > 0)


if __name__ == "__main__":
    typer.run(main)
