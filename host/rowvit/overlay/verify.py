# SPDX-License-Identifier: Apache-2.0
"""Checks of an overlay's files: ``rowvit verify-overlay``, and the first steps of ``rowvit diagnose``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rowvit.errors import RowvitError
from rowvit.overlay import provenance
from rowvit.overlay.bitfile import BitHeader, Handoff

_LENGTH_BITS = 26  # of the DMA's length register, the most it can have
_CORE_BYTES = 4096  # addresses of the core's registers and counters


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Parameters
    ----------
    name : str
    ok : bool or None
        None: could not be determined, or may be intended.
    text : str
        What was found.
    advice : str
        What to do about it, if it is not ok.
    """

    name: str
    ok: bool | None
    text: str
    advice: str = ""


def verify(bitfile: str | Path) -> list[Check]:
    """Check a .bit and the files next to it.

    Checks that cannot be made because an earlier one failed are left out.
    """
    path = Path(bitfile)
    checks: list[Check] = []
    header = handoff = None

    def attempt(name: str, look: Callable[[], Check]) -> None:
        try:
            checks.append(look())
        except RowvitError as error:
            checks.append(Check(name, False, error.message, error.advice))

    def bit() -> Check:
        nonlocal header
        header = BitHeader.read(path)
        tool = f", Vivado {header.tool}" if header.tool else ""
        made = f", {header.date} {header.time}" if header.date else ""
        text = f"{header.design} for {header.part}{made}{tool}, {header.size:,} bytes"
        return Check("bitstream", True, text)

    def hwh() -> Check:
        nonlocal handoff
        handoff = Handoff(path.with_suffix(".hwh"))
        kind = "Zynq-7000" if handoff.zynq_7000 else "Zynq UltraScale+"
        return Check("handoff", True, f"{handoff.path.name}, {kind}, Vivado {handoff.tool or 'unknown'}")

    attempt("bitstream", bit)
    attempt("handoff", hwh)
    if handoff is None:
        return checks
    if header is not None:
        attempt("same build", partial(_same_build, header, handoff))
    attempt("core", partial(_core, handoff))
    if not checks[-1].ok:
        return checks
    for name, look in (
        ("clock", _clock),
        ("DMA", _dma),
        ("addresses", _addresses),
        ("memory ports", _ports),
        ("provenance", _provenance),
    ):
        attempt(name, partial(look, handoff))
    return checks


def _plain(part: str) -> str:
    return re.sub(r"[^a-z0-9]", "", part.lower()).removeprefix("xc")


def _same_build(header: BitHeader, handoff: Handoff) -> Check:
    name = "same build"
    if not handoff.part:
        return Check(name, None, "the .hwh does not name its part")
    if not _plain(header.part).startswith(_plain(handoff.part)):
        return Check(
            name,
            False,
            f"the .bit is for {header.part}, the .hwh for {handoff.part}",
            "copy both from one build",
        )
    if header.tool and handoff.tool and header.tool != handoff.tool:
        return Check(
            name,
            False,
            f"the .bit is from Vivado {header.tool}, the .hwh from {handoff.tool}",
            "copy both from one build",
        )
    return Check(name, True, f"both for {handoff.part}")


def _core(handoff: Handoff) -> Check:
    config = handoff.config
    names = " or ".join(handoff.config_names()) or "none of the named ones"
    return Check(
        "core",
        True,
        f"{handoff.core.path}, {config.rows} x {config.groups} x {config.lanes}, configuration {names}"
        f" (hash {config.hash:08X}), {handoff.frontend} front end",
    )


def _clock(handoff: Handoff) -> Check:
    name, clock, config = "clock", handoff.core.clock_mhz, handoff.config
    if clock is None:
        return Check(name, None, "the .hwh does not say the core's clock")
    if config.name != "unnamed" and abs(clock - config.clock_mhz) > 0.02 * config.clock_mhz:
        return Check(
            name,
            None,
            f"{clock:g} MHz, where '{config.name}' has {config.clock_mhz:g}: it works, at another speed",
        )
    return Check(name, True, f"{clock:g} MHz")


def _dma(handoff: Handoff) -> Check:
    dma = handoff.dma
    bits = dma.number("c_sg_length_width", 14)
    wrong, advice = "", "build the design with rowvit's scripts"
    if not dma.number("c_include_mm2s", 1) or not dma.number("c_include_s2mm", 1):
        wrong = "it lacks a channel"
    elif dma.number("c_include_sg", 1):
        wrong = "it is in scatter-gather mode, the driver uses direct register mode"
    elif bits < _LENGTH_BITS:
        wrong = f"its length register has {bits} bits: a transfer moves at most {(1 << bits) - 1:,} bytes"
        advice = f"set c_sg_length_width to {_LENGTH_BITS}"
    else:
        for side in ("mm2s", "s2mm"):
            width = dma.number(f"c_{'m' if side == 'mm2s' else 's'}_axis_{side}_tdata_width", 64)
            if width != 64:
                wrong = f"its {side} stream is {width} bits wide, the core's are 64"
    if wrong:
        return Check("DMA", False, f"{dma.path}: {wrong}", advice)
    return Check("DMA", True, f"{dma.path}, both channels, transfers of up to {(1 << bits) - 1:,} bytes")


def _addresses(handoff: Handoff) -> Check:
    name, blocks = "addresses", (handoff.core, handoff.dma)
    text = ", ".join(f"{b.path} 0x{b.base:08X} ({b.size >> 10} KB)" for b in blocks)
    for block, needed in zip(blocks, (_CORE_BYTES, 0x60), strict=True):
        if block.size < needed:
            return Check(
                name,
                False,
                f"{block.path} has {block.size} bytes of addresses, it needs {needed}",
                "assign it a range in the block design",
            )
    (low, first), (high, _) = sorted((b.base, b.size) for b in blocks)
    if low + first > high:
        return Check(name, False, f"ranges overlap: {text}", "assign addresses in the block design")
    return Check(name, True, text)


def _ports(handoff: Handoff) -> Check:
    name = "memory ports"
    found = {
        f"{block.path}/{master}": slave
        for block in (handoff.core, handoff.dma)
        for master, slave in block.memories.items()
    }
    if not found:
        return Check(name, None, "the .hwh does not say which ports reach memory")
    text = ", ".join(f"{master} to {slave}" for master, slave in found.items())
    if len(found) < 3:
        return Check(
            name, False, f"of three masters only {text}", "connect the core and both DMA channels to HP ports"
        )
    if slow := [slave for slave in found.values() if "HP" not in slave.upper()]:
        return Check(
            name, None, f"{text}: {slow[0]} is no HP port; rowvit flushes caches as HP ports need it"
        )
    return Check(name, True, text)


def _provenance(handoff: Handoff) -> Check:
    name, path = "provenance", handoff.path.with_suffix(".json")
    if not path.exists():
        return Check(name, None, f"there is no {path.name} next to it: where it comes from is unknown")
    (found,) = provenance.verify(path)
    if found.config_hash != f"{handoff.config.hash:08X}":
        return Check(
            name,
            False,
            f"{path.name} is of a build with hash {found.config_hash}",
            "copy all three files from one build",
        )
    if found.frontend != handoff.frontend:
        text = (
            f"{path.name} is of a build with the {found.frontend} front end, the .hwh has {handoff.frontend}"
        )
        return Check(name, False, text, "copy all three files from one build")
    revision = f"{(found.revision or 'no revision')[:12]}{', with changes' if found.dirty else ''}"
    return Check(name, True, f"{found.board}, {revision}, {found.tool}, {found.date}; files are unchanged")
