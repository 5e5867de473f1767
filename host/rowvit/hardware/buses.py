# SPDX-License-Identifier: Apache-2.0
"""Buses between units of the RTL: vectors with named fields, and who is at which end of which port.

`rowvit.hardware.generate` makes ``rtl/rowvit_buses.vh`` of `VECTORS`, with a macro per field, and the table
in ``docs/architecture.md`` of `LINKS`. Unit tests make and read vectors with `Vector.pack` and
`Vector.unpack`.
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
        """The vector of these fields, 0 elsewhere; `RowvitError` for one that is unknown or too large."""
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


@dataclass(frozen=True)
class Link:
    """A bus between units, or several that are alike.

    Parameters
    ----------
    name : str
    drivers, takers : str
        Ends, as ``unit.port``: the ports of ``rowvit_unit`` that are called ``port`` or begin with ``port_``.
    fields : str or Vector
        What it carries, by the names that drivers' ports have behind ``port_``; "": the ports say it.
    handshake : str
    held : str
        What holds it: proofs (``tests/formal/NAME_proof.v``), as ``proof NAME``, and unit tests.
    """

    name: str
    drivers: str
    takers: str
    fields: str | Vector
    handshake: str
    held: str

    def ends(self) -> list[tuple[str, str]]:
        """Unit and port of each end, drivers first."""
        words = f"{self.drivers} {self.takers}".split()
        return [(unit, port) for unit, _, port in (word.partition(".") for word in words)]

    def by_unit(self) -> tuple[str, str]:
        """Drivers and takers as text: each unit with its ports."""
        sides = []
        for words in (self.drivers.split(), self.takers.split()):
            units: dict[str, list[str]] = {}
            for unit, _, port in (word.partition(".") for word in words):
                units.setdefault(unit, []).append(port)
            sides.append("; ".join(f"`{unit}` {', '.join(found)}" for unit, found in units.items()))
        return sides[0], sides[1]


QUEUED = "valid, ready"
ALWAYS = "valid, always taken"
LINKS = (
    Link(
        "settings",
        "axil_regs.start axil_regs.reset axil_regs.base axil_regs.program axil_regs.length axil_regs.passes"
        " axil_regs.watchdog",
        "run.start_i run.reset run.passes dispatch.start dispatch.base dispatch.program dispatch.length"
        " dispatch.passes load_engine.base load_engine.length monitor.limit",
        "",
        "start and reset for a cycle; the others stay while the core is busy",
        "proof axil_regs, test_core",
    ),
    Link(
        "state",
        "run.busy run.pass_done run.error_valid run.error_code run.error_info live.last run.start_o run.run",
        "axil_regs.busy axil_regs.pass_done axil_regs.error axil_regs.done axil_regs.live axil_regs.counters"
        " monitor.run",
        "",
        "levels; pass_done and error_valid for a cycle",
        "proof axil_regs, test_core",
    ),
    Link(
        "errors",
        "dispatch.error load_engine.error recv.error axi_reader.error monitor.error",
        "run.dispatch run.load run.recv run.reader run.watchdog run.pass_end",
        "code info",
        "for a cycle; the first one counts",
        "proof dispatch, proof recv, test_core",
    ),
    Link(
        "reads",
        "dispatch.req load_engine.req",
        "axi_reader.req0 axi_reader.req1",
        "addr bytes",
        QUEUED,
        "proof axi_reader, proof dispatch",
    ),
    Link(
        "words read",
        "axi_reader.rsp0 axi_reader.rsp1",
        "dispatch.rsp load_engine.rsp",
        "data",
        QUEUED,
        "proof axi_reader",
    ),
    Link(
        "instructions",
        "dispatch.q0 dispatch.q1 dispatch.q2 dispatch.q3 dispatch.q4",
        "load_engine.instr exec.instr drain.instr norm_engine.instr select.instr recv.instr",
        "",
        "valid, ready when it is done with; stays until then; the drain reads it with each tile",
        "proof dispatch, test_exec",
    ),
    Link(
        "progress",
        "drain.done drain.bands load_engine.done_o norm_engine.done_o norm_engine.bands_o select.done_o"
        " recv.done_o recv.bands_o issue.op_done",
        "load_engine.done_i load_engine.bands exec.done exec.bands norm_engine.done_i norm_engine.bands_i"
        " select.done_i select.bands recv.done_i recv.bands_i monitor.progress",
        "",
        "counts, behind the last write that they stand for",
        "proof dep_check, test_core",
    ),
    Link(
        "live tokens",
        "exec.set_live select.kept",
        "live.set live.kept live.image live.live load_engine.live exec.live norm_engine.live select.live",
        "rows",
        "valid for a cycle; a count for each engine's image",
        "test_live, test_exec",
    ),
    Link(
        "tiles",
        "exec.tile",
        "fetch.cmd issue.tile drain.tile",
        TILE,
        "valid, and ready of all that take it",
        "proof issue, test_exec, test_issue, test_drain",
    ),
    Link(
        "rows selected",
        "exec.src",
        "select.src",
        "addr data",
        "data a cycle after its address",
        "test_exec, test_select",
    ),
    Link(
        "scalars",
        "fetch.x",
        "issue.x",
        "data idx last",
        QUEUED,
        "proof issue, test_fetch",
    ),
    Link(
        "reads of tokens",
        "fetch.rd",
        "token_memory.r",
        "bank addr dvalid data",
        "valid, ready; dvalid with its data a cycle later",
        "test_fetch, test_token_memory",
    ),
    Link(
        "writes of tokens",
        "norm_engine.tw recv.tw drain.tw",
        "token_memory.w",
        "addr data",
        "valid, ready per bank; the drain is never refused",
        "proof recv, test_token_memory",
    ),
    Link(
        "loaded lines",
        "load_engine.ww",
        "line_write.load",
        "group line data",
        QUEUED,
        "test_load_engine, test_core",
    ),
    Link(
        "lines of K^T and V",
        "drain.ww",
        "line_write.dw",
        LINE,
        "valid, always taken; next a cycle ahead",
        "test_drain, test_core",
    ),
    Link(
        "line writes",
        "line_write.wr",
        "issue.wr",
        "line be data clear",
        ALWAYS,
        "test_issue",
    ),
    Link(
        "shadows",
        "issue.captured issue.shadow drain.release",
        "drain.captured drain.shadow issue.release",
        "",
        "captured when a tile's are complete, release before they may be overwritten, for a cycle each",
        "proof issue, test_drain",
    ),
    Link("lane parameters", "load_engine.pw", "drain.pw", PARAMETER, ALWAYS, "test_load_engine, test_drain"),
    Link(
        "norm parameters",
        "load_engine.nw",
        "norm_engine.nw",
        "group slot index data",
        ALWAYS,
        "test_load_engine, test_norm_engine",
    ),
    Link(
        "attention",
        "exec.attn_start exec.rows softmax.bands",
        "softmax.op_start softmax.cfg exec.softmax_bands",
        "",
        "start for a cycle; bands that are complete come back",
        "test_exec, test_softmax",
    ),
    Link("S", "drain.s", "softmax.s", SCORE, ALWAYS, "test_drain, test_softmax"),
    Link(
        "P",
        "softmax.p",
        "drain.p",
        PROBABILITY,
        "feed, always taken; closed and idle come back",
        "test_softmax, test_drain_words",
    ),
    Link(
        "reciprocals",
        "softmax.recip",
        "drain.recip",
        "band r n",
        "those of the band's parity, in the same cycle; they stay until that band is drained",
        "test_softmax, test_drain",
    ),
    Link(
        "scores",
        "softmax.score",
        "select.score",
        "addr data",
        "data a cycle after its address, while ready",
        "test_softmax, test_select",
    ),
    Link(
        "residual sums",
        "drain.res",
        "residual_memory.drain residual_memory.rdata",
        "rd raddr rdata we busy waddr wdata",
        "never refused; data two cycles after rd",
        "test_drain, test_residual_memory",
    ),
    Link(
        "residual reads",
        "norm_engine.rd",
        "residual_memory.norm",
        "addr data",
        "valid, ready; data two cycles later",
        "test_norm_engine, test_residual_memory",
    ),
    Link(
        "position table",
        "load_engine.rw",
        "residual_memory.load",
        "addr data",
        QUEUED,
        "test_load_engine, test_residual_memory",
    ),
    Link(
        "FFN2 mask",
        "load_engine.mask",
        "drain.mask",
        "addr data",
        "data a cycle after its address",
        "test_load_engine, test_drain",
    ),
    Link(
        "records",
        "drain.rec select.out norm_engine.out",
        "send.in",
        "data eor last",
        QUEUED,
        "proof send, test_drain",
    ),
    Link(
        "marks",
        "monitor.counters",
        "drain.cycles drain.fires",
        "",
        "counts, read when a MARK is made",
        "test_core",
    ),
    Link(
        "events",
        "load_engine.busy load_engine.wait exec.busy drain.busy issue.fire_any issue.wait_data"
        " issue.wait_drain issue.wait_steal norm_engine.busy softmax.busy select.busy recv.word send.sent"
        " axi_reader.beat",
        "monitor.event",
        EVENT,
        "a bit per cycle",
        "test_core",
    ),
    Link(
        "amounts",
        "issue.fires issue.ffn2_nonzeros issue.pv_nonzeros load_engine.w2_fetched load_engine.w2_rows"
        " recv.starved",
        "monitor.fires monitor.ffn2_nonzeros monitor.pv_nonzeros monitor.w2_fetched monitor.w2_rows"
        " monitor.host",
        "",
        "counts of a cycle",
        "test_core",
    ),
)
