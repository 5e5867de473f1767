# SPDX-License-Identifier: Apache-2.0
"""Buses between units of the RTL: vectors with named fields, and who is at which end of which port.

`rowvit.hardware.generate` makes ``rtl/rowvit_buses.vh`` of `VECTORS`, with a macro per field, and the table in
``docs/architecture.md`` of `LINKS`. Unit tests make and read vectors with `Vector.pack` and `Vector.unpack`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from rowvit.errors import RowvitError


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
    """Fields of a vector, lowest bits first.

    Parameters
    ----------
    prefix : str
        Of the macros' names; ``{prefix}_ALL`` is the whole vector.
    meaning : str
    fields : dict
        Name -> (width, meaning).
    spans : dict
        Name -> (first field, last field, what takes them): parts that travel alone.
    """

    prefix: str
    meaning: str
    fields: Mapping[str, tuple[str, str]]
    spans: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)

    def places(self) -> dict[str, tuple[Width, Width]]:
        """Field -> (first bit, width)."""
        found, low = {}, Width()
        for name, (width, _) in self.fields.items():
            found[name] = low, Width(width)
            low = low + Width(width)
        return found

    def ranges(self) -> dict[str, tuple[Width, Width, str]]:
        """Field, span or ``all`` -> (first bit, bit behind the last one, meaning)."""
        places, names = self.places(), list(self.fields)
        found = {name: (low, low + width, self.fields[name][1]) for name, (low, width) in places.items()}
        for name, (first, last, meaning) in {
            **self.spans,
            "all": (names[0], names[-1], self.meaning),
        }.items():
            found[name] = places[first][0], places[last][0] + places[last][1], meaning
        return found

    def pack(self, values: Mapping[str, int], **parameters: int) -> int:
        """The vector of these fields, with 0 for others; `RowvitError` for one that is unknown or too large."""
        if unknown := set(values) - set(self.fields):
            raise RowvitError(f"{self.prefix}: no field {', '.join(sorted(unknown))}")
        vector = 0
        for name, (low, width) in self.places().items():
            value = values.get(name, 0)
            if value:
                if value >> width.at(parameters):
                    raise RowvitError(f"{self.prefix}: {name} = {value} does not fit")
                vector |= value << low.at(parameters)
        return vector

    def part(self, span: str, vector: int, **parameters: int) -> int:
        """The bits of a span of the vector, from 0 on."""
        low, end, _ = self.ranges()[span]
        return vector >> low.at(parameters) & (1 << end.at(parameters) - low.at(parameters)) - 1

    def unpack(self, vector: int, **parameters: int) -> dict[str, int]:
        """Field -> value."""
        return {
            name: vector >> low.at(parameters) & (1 << width.at(parameters)) - 1
            for name, (low, width) in self.places().items()
        }


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
        "last": ("1", "its record ends the image"),
        "tag": ("12", "tag and image, for records"),
        "count": ("16", "logits of the tile"),
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
VECTORS = (TILE, OPERATION, PARAMETER, LINE, SCORE, PROBABILITY, EVENT)
