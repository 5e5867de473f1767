# SPDX-License-Identifier: Apache-2.0
"""Buses between units of the RTL: vectors with named fields, and who is at which end of which port.

`rowvit.hardware.generate` makes ``rtl/rowvit_buses.vh`` of `VECTORS`, with a macro per field, and the table
in ``docs/architecture.md`` of `LINKS`, which are in ``buses.toml``. Unit tests make and read vectors
with `Vector.pack` and `Vector.unpack`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from rowvit.errors import RowvitError
from rowvit.hardware.config import tomllib


class Width:
    """A number of bits: a sum of products of integers and of the RTL's parameters.

    Parameters
    ----------
    text : str
        A product, such as ``"16*ROWS"``.
    """

    def __init__(self, text: str = "0") -> None:
        factors = [factor.strip() for factor in text.split("*")]
        names = tuple(factor for factor in factors if not factor.isdigit())
        self.terms = Counter({names: prod(int(factor) for factor in factors if factor.isdigit())})

    def __add__(self, other: Width | int) -> Width:
        found = Width()
        found.terms = self.terms.copy()
        found.terms.update({(): other} if isinstance(other, int) else other.terms)
        return found

    def __sub__(self, other: Width) -> Width:
        found = self + 0
        found.terms.subtract(other.terms)
        return found

    def at(self, parameters: Mapping[str, int]) -> int:
        """Its value; ``KeyError`` if a parameter is missing."""
        return sum(k * prod(parameters[name] for name in names) for names, k in self.terms.items())

    def __str__(self) -> str:
        """As Verilog, the number last."""
        text = ""
        for names, k in sorted(self.terms.items(), key=lambda term: (len(term[0]) or 9, term[0])):
            if k and not names:
                text += f"{k:+d}"
            elif k:
                text += "+" + "*".join([*([str(k)] if k != 1 else []), *names])
        return text.removeprefix("+") or "0"


@dataclass(frozen=True)
class Vector:
    """Fields of a vector, lowest bits first."""

    prefix: str  #: of the macros' names; ``{prefix}_ALL`` is the whole vector
    meaning: str
    fields: Mapping[str, tuple[str, str]]  #: name -> (width, meaning)
    #: name -> (first field, last field, what takes them): parts that travel alone
    spans: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)

    def ranges(self) -> dict[str, tuple[Width, Width, str]]:
        """Field, span or ``all`` -> (first bit, bit behind the last one, meaning)."""
        found, low = {}, Width()
        for name, (width, meaning) in self.fields.items():
            found[name] = low, low + Width(width), meaning
            low = found[name][1]
        spans = {name: (found[a][0], found[b][1], meaning) for name, (a, b, meaning) in self.spans.items()}
        return found | spans | {"all": (Width(), low, self.meaning)}

    def pack(self, values: Mapping[str, int], **parameters: int) -> int:
        """The vector of these fields, 0 elsewhere; `RowvitError` for one that is unknown or too large."""
        if unknown := set(values) - set(self.fields):
            raise RowvitError(f"{self.prefix}: no field {', '.join(sorted(unknown))}")
        ranges, vector = self.ranges(), 0
        for name, value in values.items():
            low, end, _ = ranges[name]
            if value >> (end - low).at(parameters):
                raise RowvitError(f"{self.prefix}: {name} = {value} does not fit")
            vector |= value << low.at(parameters)
        return vector

    def part(self, span: str, vector: int, **parameters: int) -> int:
        """The bits of a span of the vector, from 0 on."""
        return _cut(vector, self.ranges()[span], parameters)

    def unpack(self, vector: int, **parameters: int) -> dict[str, int]:
        """Field -> value."""
        ranges = self.ranges()
        return {name: _cut(vector, ranges[name], parameters) for name in self.fields}


def _cut(vector: int, place: tuple[Width, Width, str], parameters: Mapping[str, int]) -> int:
    low, end, _ = place
    return vector >> low.at(parameters) & (1 << (end - low).at(parameters)) - 1


TILE = Vector(
    "T",
    "a tile, from exec to all that take it",
    {
        "shared": ("1", "all groups take group 0's scalars"),
        "sparse": ("1", "rows are lists of non-zeros"),
        "wbase": ("16", "weight line of k = 0"),
        "pv": ("1", "P V"),
        "null": ("1", "nothing to do: an operation without bands"),
        "op_last": ("1", "last one of its operation"),
        "groups": ("8", "groups that take part"),
        "rows": ("ROWS", "rows that exist"),
        "band": ("16", ""),
        "dst": ("16", "where its results go: token memory word, line or residual address"),
        "gather": ("1", "rows come from the selection table"),
        "s_first": ("1", "S: first one of its band"),
        "s_last": ("1", "S: last one of its band"),
        "token": ("16", "S: token of lane 0"),
        "mask_end": ("1", "last band of a row tile, whose mask is written"),
        "mask": ("16", "mask word of group 0"),
        "res_src": ("16*ROWS", "gather: residual address of each row before"),
        "bank": ("BANK_W*ROWS", "bank in which each row lies"),
        "s": ("1", "S = Q K^T"),
        "unsigned": ("1", "scalars are uint8"),
        "count": ("11", "scalars of a row, or segments"),
        "addr": ("16*ROWS*GROUPS", "word of each row and group"),
    },
    {
        "issue": ("shared", "rows", "what issue takes"),
        "drain": ("pv", "s", "what the drain takes"),
        "queue": ("null", "bank", "what the drain keeps"),
    },
)
OPERATION = Vector(
    "O",
    "what the drain keeps of a tile's instruction",
    {
        "kind": ("4", "DST_*, or KIND_S or KIND_O"),
        "shift": ("6", "of the requantisation"),
        "mult": ("16", "multiplier of S, or threshold of HIDDEN"),
        "pslot": ("8", "parameter slot"),
        "band_end": ("1", "its last lane ends a band"),
        "dense": ("1", "HIDDEN: plain words, no mask"),
        "mark": ("1", "a MARK record follows"),
        "last": ("1", "its record ends the pass"),
        "tag": ("12", "tag and image, for records"),
        "count": ("16", "logits of the tile"),
        "late": ("1", "pairs of lanes are rotated or gated"),
        "gated": ("1", "they are a gate and what it lets through"),
        "place": ("11", "ROPE: band of row 0's place"),
    },
)
PARAMETER = Vector(
    "PW",
    "bias and multiplier of a lane, from load_engine to drain",
    {
        "group": ("8", ""),
        "slot": ("8", ""),
        "lane": ("8", ""),
        "data": ("48", "{mult[47:32], bias[31:0]}"),
    },
)
LINE = Vector(
    "WW",
    "the drain's write to a line of weight memory: every eight lanes are ~clear",
    {
        "line": ("AW", ""),
        "be": ("LANES", "lanes that are written"),
        "clear": ("64*GROUPS", "bits that are 0"),
    },
)
SCORE = Vector(
    "S",
    "S, a token of all rows and groups per cycle, from drain to softmax",
    {
        "token": ("16", ""),
        "first": ("1", "first of its band"),
        "last": ("1", "last of its band"),
        "data": ("12*ROWS*GROUPS", ""),
    },
)
PROBABILITY = Vector(
    "P",
    "P, a lane of a segment of all rows and groups, from softmax to the drain's compressors",
    {
        "data": ("8*ROWS*GROUPS", ""),
        "keep": ("ROWS*GROUPS", "it is not 0"),
        "base": ("16*GROUPS", "word of the segment, with its first lane"),
    },
)
ROTATION = Vector(
    "RO",
    "an entry of the table of rotations, or a place, from load_engine to drain",
    {
        "place": ("1", "a place"),
        "address": ("16", ""),
        "data": ("32", ""),
    },
)
MOVE = Vector(
    "MV",
    "a place that moves as tokens are dropped, from select to drain",
    {
        "from": ("16", "read in this cycle"),
        "to": ("16", "written with the valid, two cycles later"),
    },
)
EVENT = Vector(
    "E",
    "what happens in a cycle, a bit for each counter that counts cycles or words",
    {
        name: ("1", "")
        for name in (
            *("exec_busy", "exec_fire", "wait_data", "wait_drain", "wait_steal", "drain_busy", "load_busy"),
            *("load_wait", "axi_beats", "norm_busy", "softmax_busy", "select_busy", "recv_words"),
            "send_words",
        )
    },
)
VECTORS = (TILE, OPERATION, PARAMETER, LINE, SCORE, PROBABILITY, ROTATION, MOVE, EVENT)


@dataclass(frozen=True)
class Link:
    """A bus between units, or several that are alike: a table of ``buses.toml``."""

    name: str
    drivers: str  #: ends, as ``unit.port``: the ports of ``rowvit_unit`` called ``port`` or ``port_...``
    takers: str
    handshake: str
    held: str  #: what holds it: proofs (``tests/formal/NAME_proof.v``), as ``proof NAME``, and unit tests
    #: what it carries, by the names that drivers' ports have behind ``port_``; "": the ports say it
    fields: str | Vector = ""

    def ends(self) -> list[tuple[str, str]]:
        """Unit and port of each end, drivers first."""
        return [*_ends(self.drivers), *_ends(self.takers)]

    def by_unit(self) -> Iterator[str]:
        """Drivers and takers as text: each unit with its ports."""
        for side in (_ends(self.drivers), _ends(self.takers)):
            units: dict[str, list[str]] = {}
            for unit, port in side:
                units.setdefault(unit, []).append(port)
            yield "; ".join(f"`{unit}` {', '.join(found)}" for unit, found in units.items())


def _ends(words: str) -> list[tuple[str, str]]:
    return [(unit, port) for unit, _, port in (word.partition(".") for word in words.split())]


def _links() -> Iterator[Link]:
    vectors = {vector.prefix: vector for vector in VECTORS}
    tables = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    for name, table in tables.items():
        if vector := table.pop("vector", ""):
            table["fields"] = vectors[vector]
        yield Link(name, **table)


LINKS = tuple(_links())
