# SPDX-License-Identifier: Apache-2.0
"""Writes what is generated from the tables of `rowvit.hardware`, in a checkout.

    python -m rowvit.hardware.generate

They are ``rtl/rowvit_defs.vh``, ``rtl/rowvit_buses.vh`` and ``docs/isa.md``, and tables in other pages: of
``pipeline.py`` and ``buses.py`` in ``docs/architecture.md``, of ``boards.toml`` in ``docs/board.md``,
``docs/measurement.md`` and ``bitstreams/README.md``, of ``energies.toml`` and ``activity.py`` in
``docs/energy.md``. A test holds them equal to what is committed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rowvit.hardware import activity, buses, clocks, isa, pipeline
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import Board, boards
from rowvit.hardware.isa import QUEUE, Coded, Engine

ROOT = Path(__file__).resolve().parents[3]


def _localparams(prefix: str, values: Mapping[str, int | str]) -> str:
    text = ", ".join(f"{prefix}{name.upper()}~=~{value}" for name, value in values.items())
    lines = textwrap.wrap(text, 100, initial_indent="localparam ", subsequent_indent=" " * 11)
    return "\n".join(lines).replace("~", " ") + ";"


def _packed(name: str, values: Iterable[int], comment: str) -> str:
    """A table of bytes; entry i is ``NAME[8*i+:8]``."""
    entries = [f"8'd{value}" for value in values]
    return f"localparam [{8 * len(entries) - 1}:0] {name} = {{{', '.join(reversed(entries))}}};  // {comment}"


def _filled(
    page: str, name: str, head: Iterable[str], rows: Iterable[Iterable[object]], text: str | None = None
) -> str:
    """A page, or its text so far, in which the table between two comments is this one."""
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in rows]
    table = [f"| {' | '.join(head)} |", "|" + " -- |" * len(list(head)), *lines]
    before, mark, rest = (text or (ROOT / page).read_text()).partition(f"<!-- generated: {name} -->")
    _, end, after = rest.partition("<!-- end generated -->")
    return "".join([before, mark, "\n\n", "\n".join(table), "\n\n", end, after])


def _codes(members: Iterable[Coded]) -> dict[str, int]:
    return {member.name: member.value for member in members}


def verilog() -> str:
    """``rtl/rowvit_defs.vh``: the constants that the RTL shares with the host."""
    queues = list(dict.fromkeys(QUEUE.values()))
    served = {engine: Engine.EXEC if engine is Engine.DRAIN else engine for engine in Engine}
    common = ["OPCODE", "FLAGS", "CHAIN", "DEPS", "OPERANDS", "INDEX"]
    positions = {"IMAGE": "4", "TAG": "8", **{name: f"16*{getattr(isa, name)}" for name in common}}
    lines = [
        "// SPDX-License-Identifier: Apache-2.0",
        "// Written by `python -m rowvit.hardware.generate` from the tables in host/rowvit/hardware/isa.py",
        "// and pipeline.py, where each constant is explained. Included inside modules.",
        _localparams("", {"ABI_VERSION": isa.ABI_VERSION}),
        f"localparam [31:0] ID = 32'h{isa.ID:08X};",
        "// Instructions: F_* are the first bits of slots and fields.",
        _localparams("", {"INSTR_W": 8 * isa.INSTRUCTION_BYTES, "NO_DEP": f"16'h{isa.NO_DEP & 0xFFFF:04X}"}),
        _localparams("", {"N_ENGINE": len(Engine), **{f"E_{e.name}": e.value for e in Engine}}),
        _localparams("OP_", _codes(isa.Op)),
        _localparams("FLAG_", _codes(isa.Flag)),
        _localparams("", {"MAX_IMAGES": isa.MAX_IMAGES}),
        _localparams("F_", positions),
    ]
    for op, fields in isa.FIELDS.items():
        if fields:
            slots = {name: f"16*{place.slot}" for name, place in fields.items()}
            lines.append(_localparams(f"F_{op.name}_", slots))
    lines += [
        _localparams("DST_", _codes(isa.Dst)),
        _localparams("KIND_", {"S": len(isa.Dst), "O": len(isa.Dst) + 1}) + "  // of the drain, behind DST_*",
        _localparams("LOADKIND_", _codes(isa.LoadKind)),
        _localparams("NORMKIND_", _codes(isa.NormKind)),
        "// Queues: slots that a queue holds, and the queue that each engine's operations come from.",
        _localparams("", {"N_QUEUE": len(queues), **{f"Q_{e.name}": i for i, e in enumerate(queues)}}),
        _packed("QUEUE_SLOTS", map(isa.queue_slots, queues), "queue 0 lowest"),
        _localparams("", {"MAX_SLOTS": max(map(isa.queue_slots, queues))}),
        _packed("ENGINE_QUEUE", (queues.index(served[e]) for e in Engine), "engine 0 lowest"),
        "// Errors, records, registers, counters.",
        _localparams("ERROR_", _codes(isa.Error)),
        _localparams("RECORD_", _codes(isa.Record)),
        _localparams("REG_", {name: f"'h{offset:02X}" for name, (offset, _, _) in isa.REGISTERS.items()}),
        _localparams("", {"COUNTER_BASE": f"'h{isa.COUNTER_BASE:02X}", "N_COUNTER": len(isa.COUNTERS)}),
        _localparams("CNT_", {name: i for i, (name, _) in enumerate(isa.COUNTERS)}),
        "// Depths, and lengths of pipelines.",
        _localparams("", {name: getattr(pipeline, name) for name in pipeline.RTL}),
        _packed("DRAIN_DONE", map(pipeline.drain_done, range(pipeline.MAX_GROUPS + 1)), "0 groups lowest"),
    ]
    return "\n".join(lines) + "\n"


def macros() -> str:
    """``rtl/rowvit_buses.vh``: a macro for each field of `rowvit.hardware.buses`, and for widths of parts."""
    lines = [
        "// SPDX-License-Identifier: Apache-2.0",
        "// Written by `python -m rowvit.hardware.generate` from host/rowvit/hardware/buses.py. Included",
        "// before modules, as ports need it. A macro is a range of bits: x[`T_WBASE] is a field of a tile.",
        "// Names in it, such as ROWS, are the module's parameters. *_ALL is a whole vector, *_W a width.",
        "`ifndef ROWVIT_BUSES_VH",
        "`define ROWVIT_BUSES_VH",
    ]
    for vector in buses.VECTORS:
        lines += ["", f"// {vector.meaning}"]
        for name, (low, end, meaning) in vector.ranges().items():
            macro = f"{vector.prefix}_{name.upper()}"
            bits = str(low) if str(end) == str(low + 1) else f"{end + -1}:{low}"
            comment = f"  // {meaning}" if meaning and name != "all" else ""
            lines.append(f"`define {macro} {bits}{comment}")
            if name in (*vector.spans, "all"):
                lines.append(f"`define {macro}_W ({end - low})")
    return "\n".join([*lines, "", "`endif"]) + "\n"


def markdown() -> str:
    """``docs/isa.md``: every table of `rowvit.hardware.isa`."""
    out = [
        "# Instructions, registers and records",
        "",
        "Written by `python -m rowvit.hardware.generate`; edit `host/rowvit/hardware/isa.py`.",
        "",
        f"ABI version {isa.ABI_VERSION}.",
        "",
        "## Instruction",
        "",
        f"An instruction is {isa.INSTRUCTION_BYTES} bytes: {isa.SLOTS} little-endian slots of 16 bits."
        f" Slots 0 to {isa.OPERANDS - 1} are common:",
        "",
        "| slot | field | meaning |",
        "|---|---|---|",
        f"| {isa.OPCODE} | opcode, image, tag | opcode in bits 3:0; image of the pass in bits 7:4 and tag in"
        " bits 15:8 (layer number), which are copied to records |",
        f"| {isa.FLAGS} | flags | below |",
        f"| {isa.CHAIN} | chain | bit e set: the dependency on engine e is per band, not per operation |",
        f"| {isa.DEPS}..{isa.OPERANDS - 1} | dep[e] | operations of engine e that must be complete"
        " (signed, relative to the pass) |",
        "",
        isa.SEMANTICS,
    ]

    def codes(title: str, cls: type[Coded], head: str) -> None:
        out.extend([f"## {title}", "", f"| {head} | name | meaning |", "|---|---|---|"])
        out.extend(f"| {member.value} | {member.name} | {member.meaning} |" for member in cls)
        out.append("")

    codes("Engines", Engine, "number")
    codes("Opcodes", isa.Op, "code")
    codes("Flags", isa.Flag, "bit")
    out += ["## Fields", ""]
    for op, table in isa.FIELDS.items():
        if table:
            out += [f"### {op.name}", "", "| slot | field | meaning |", "|---|---|---|"]
            for name, place in table.items():
                last = f"..{place.slot + place.slots - 1}" if place.slots > 1 else ""
                out.append(f"| {place.slot}{last} | {name} | {place.meaning} |")
            out.append("")
    codes("MATMUL destinations (`dst`)", isa.Dst, "value")
    codes("Load kinds (`kind`)", isa.LoadKind, "value")
    codes("Norm kinds (`kind`)", isa.NormKind, "value")
    out += ["## Registers (AXI4-Lite)", "", "| offset | name | access | meaning |", "|---|---|---|---|"]
    out += [f"| 0x{o:02X} | {n} | {access} | {text} |" for n, (o, access, text) in isa.REGISTERS.items()]
    text = (
        "32 bits each, cleared by start; they go round. What follows from them for an image:"
        " [work](numerics.md#11-work)."
    )
    out += ["", "## Counters", "", text, "", "| offset | name | counts |"]
    out += ["|---|---|---|"]
    counters = enumerate(isa.COUNTERS)
    out += [f"| 0x{isa.COUNTER_BASE + 4 * i:02X} | {n} | {text} |" for i, (n, text) in counters]
    out.append("")
    codes("Error codes", isa.Error, "code")
    codes("Output records", isa.Record, "type")
    out.append(str(isa.Record.__doc__))
    return "\n".join(out) + "\n"


def architecture() -> str:
    """``docs/architecture.md`` with tables of `rowvit.hardware.pipeline`, for 3 groups, and `buses`."""
    p, groups, lanes = pipeline, 3, 64
    rows: list[tuple[str, str, int | str]] = [
        ("instruction fetched", "at the head of its engine's queue", p.DISPATCH),
        ("a read's address leaves", "its first word in weight memory, without the memory's latency", p.READ),
        ("dependencies met", "first scalar fires; of a compressed row", f"{p.REACT}; {p.REACT_SPARSE}"),
        ("a band complete", "first scalar of a following operation's band fires", p.REACT_BAND),
        ("scalar fires", "product in its accumulator; last sum in the shadows", f"{p.MULTIPLY}; {p.CAPTURE}"),
        ("shadows full", "lanes drained, one per cycle, all rows and groups at once", lanes),
        ("lane read", "requantised and written", p.REQUANTISE),
        ("last lane read", "tile counted as complete, its bytes packed and written", p.drain_done(groups)),
        (f"{p.CAPTURE - 1} lanes before the end of a drain", "the next tile's last scalar may fire", 1),
        (
            "last S of a band",
            "first word of P readable; plus a cycle per token",
            f"{p.SOFTMAX} + {p.SOFTMAX_GROUP * groups}",
        ),
        (
            "sums of a band's LayerNorm",
            "statistics; of each further row",
            f"{p.NORM_STATS}; {p.NORM_ROW} more",
        ),
        ("residual read", "normalised int8 written", p.NORM_OUT),
    ]
    text = _filled("docs/architecture.md", "pipeline", ["from", "to", "cycles"], rows)
    links = []
    for link in buses.LINKS:
        fields = link.fields
        if isinstance(fields, buses.Vector):
            fields = f"`{fields.prefix}_*`: " + ", ".join(fields.fields)
        else:
            fields = ", ".join(fields.split())
        links.append((link.name, *link.by_unit(), fields, link.handshake, link.held))
    head = ["bus", "from", "to", "fields", "handshake", "held by"]
    return _filled("docs/architecture.md", "buses", head, links, text)


def _boards_with(cells: Callable[[Board], tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Rows of a table of boards; those with the same cells share one."""
    shared: dict[tuple[str, ...], list[str]] = {}
    for board in boards().values():
        shared.setdefault(cells(board), []).append(board.name)
    return [(", ".join(names), *rest) for rest, names in shared.items()]


def board_images() -> str:
    """``docs/board.md`` with its table of images."""
    rows = _boards_with(lambda board: (board.image, board.boot, board.supply))
    return _filled("docs/board.md", "boards", ["board", "image", "boot from the card", "power"], rows)


def board_power() -> str:
    """``docs/measurement.md`` with its table of instruments."""

    def cells(board: Board) -> tuple[str, ...]:
        rails = ", ".join(f"`{rail}`" for rail in board.power.rails)
        measures = board.power.measures if rails else f"connect a meter at {board.power.measures}"
        return f"`{board.power.instrument}`", rails or "none known", measures

    head = ["board", "`--instrument`", "rail or sensor", "what it measures"]
    return _filled("docs/measurement.md", "boards", head, _boards_with(cells))


def board_builds() -> str:
    """``bitstreams/README.md`` with its table of parts, board files and configurations."""

    def cells(board: Board) -> tuple[str, ...]:
        config = configs.load(board.configuration)
        mhz = clocks.at_most(board.pll_mhz, config.clock_mhz).mhz
        delivered = f" (the processor delivers {mhz:.3f})" if mhz < 0.99 * config.clock_mhz else ""
        return (
            f"`{board.part}`",
            f"`{board.board_part}`" + (", or none" if board.settings else ""),
            f"`{config.name}`, {config.rows} x {config.groups} x {config.lanes}",
            "UltraRAM" if board.ram_style == "ultra" else "block RAM",
            f"{config.clock_mhz:g} MHz{delivered}",
        )

    head = ["board", "part", "board file", "configuration", "token and residual memory", "target clock"]
    return _filled("bitstreams/README.md", "boards", head, _boards_with(cells))


def energies() -> str:
    """``docs/energy.md`` with its tables of published energies and of counts."""
    rows = []
    for name, table in configs.tomllib.loads((Path(__file__).parent / "energies.toml").read_text()).items():
        process = f"{table['node_nm']:g} nm, {table['volts']:g} V" if "node_nm" in table else "not scaled"
        value = ""
        if "pj" in table:
            each = f"{table['bits']} bit{'s' * (table['bits'] > 1)}"
            value = f"{table['pj']} pJ for {each}"
            if sizes := table.get("bytes"):
                pairs = zip(table["pj"], sizes, strict=True)
                value = "; ".join(f"{pj} pJ for {each} of {size >> 10} KB" for pj, size in pairs)
        rows.append((f"`{name}`", value, process, table["source"]))
    text = _filled("docs/energy.md", "energies", ["table", "energy", "published for", "source"], rows)
    counts = [(f"`{name}`", meaning) for name, meaning in activity.COUNTS.items()]
    return _filled("docs/energy.md", "counts", ["count", "of"], counts, text)


#: file in the checkout -> its text
FILES = {
    Path("rtl/rowvit_defs.vh"): verilog,
    Path("rtl/rowvit_buses.vh"): macros,
    Path("docs/isa.md"): markdown,
    Path("docs/architecture.md"): architecture,
    Path("docs/board.md"): board_images,
    Path("docs/measurement.md"): board_power,
    Path("bitstreams/README.md"): board_builds,
    Path("docs/energy.md"): energies,
}

if __name__ == "__main__":
    for path, text in FILES.items():
        (ROOT / path).write_text(text())
