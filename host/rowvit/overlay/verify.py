# SPDX-License-Identifier: Apache-2.0
"""Checks of an overlay's files: ``rowvit verify-overlay``, and the first steps of ``rowvit diagnose``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from rowvit.errors import RowvitError
from rowvit.formats import provenance
from rowvit.overlay.bitfile import BitHeader, Handoff, same_build

_LENGTH_BITS = 26  # of the DMA's length register, the most it can have
_CORE_BYTES = 4096  # addresses of the core's registers and counters
_ONE_BUILD = "copy all three files from one build"
#: whether something is right (None: could not be determined, or may be intended), and what was found
Finding: TypeAlias = tuple[bool | None, str]


@dataclass(frozen=True)
class Check:
    """The outcome of one check."""

    name: str
    ok: bool | None  #: None: could not be determined, or may be intended
    text: str  #: what was found
    advice: str = ""  #: what to do about it, if it is not ok
    figures: dict[str, float] = field(default_factory=dict)  #: what was measured, with units in the names


def verify(bitfile: str | Path) -> list[Check]:
    """Check a .bit and the files next to it.

    Checks that cannot be made because an earlier one failed are left out.
    """
    path = Path(bitfile)
    checks: list[Check] = []
    header = handoff = None

    def attempt(name: str, look: Callable[..., Finding], *files: BitHeader | Handoff) -> None:
        try:
            checks.append(Check(name, *look(*files)))
        except RowvitError as error:
            checks.append(Check(name, False, error.message, error.advice))

    def bit() -> Finding:
        nonlocal header
        header = BitHeader.read(path)
        tool = f", Vivado {header.tool}" if header.tool else ""
        made = f", {header.date} {header.time}" if header.date else ""
        return True, f"{header.design} for {header.part}{made}{tool}, {header.size:,} bytes"

    def hwh() -> Finding:
        nonlocal handoff
        handoff = Handoff(path.with_suffix(".hwh"))
        kind = "Zynq-7000" if handoff.zynq_7000 else "Zynq UltraScale+"
        return True, f"{handoff.path.name}, {kind}, Vivado {handoff.tool or 'unknown'}"

    attempt("bitstream", bit)
    attempt("handoff", hwh)
    if handoff is None:
        return checks
    if header is not None:
        attempt("same build", _same_build, header, handoff)
    attempt("core", _core, handoff)
    if not checks[-1].ok:
        return checks
    attempt("clock", _clock, handoff)
    attempt("DMA", _dma, handoff)
    attempt("addresses", _addresses, handoff)
    attempt("memory ports", _ports, handoff)
    attempt("provenance", _provenance, handoff)
    return checks


def _same_build(header: BitHeader, handoff: Handoff) -> Finding:
    found = same_build(header, handoff)
    return (True, found) if found else (None, "the .hwh does not name its part")


def _core(handoff: Handoff) -> Finding:
    config = handoff.config
    names = " or ".join(handoff.config_names()) or "none of the named ones"
    return True, (
        f"{handoff.core.path}, {config.rows} x {config.groups} x {config.lanes}, configuration {names}"
        f" (hash {config.hash:08X}), {handoff.frontend} front end"
    )


def _clock(handoff: Handoff) -> Finding:
    clock, config = handoff.core.clock_mhz, handoff.config
    if clock is None:
        return None, "the .hwh does not say the core's clock"
    text = f"{clock:g} MHz"
    if config.name != "unnamed" and abs(clock - config.clock_mhz) > 0.02 * config.clock_mhz:
        return None, f"{text}, where '{config.name}' has {config.clock_mhz:g}: it works, at another speed"
    return True, text


def _dma(handoff: Handoff) -> Finding:
    dma = handoff.dma
    bits = dma.number("c_sg_length_width", 14)
    longest = f"{(1 << min(max(bits, 0), _LENGTH_BITS)) - 1:,} bytes"
    wrong, advice = "", "build the design with rowvit's scripts"
    if not dma.number("c_include_mm2s", 1) or not dma.number("c_include_s2mm", 1):
        wrong = "it lacks a channel"
    elif dma.number("c_include_sg", 1):
        wrong = "it is in scatter-gather mode, the driver uses direct register mode"
    elif bits < _LENGTH_BITS:
        wrong = f"its length register has {bits} bits: a transfer moves at most {longest}"
        advice = f"set c_sg_length_width to {_LENGTH_BITS}"
    else:
        for side in ("mm2s", "s2mm"):
            width = dma.number(f"c_{'m' if side == 'mm2s' else 's'}_axis_{side}_tdata_width", 64)
            if width != 64:
                wrong = f"its {side} stream is {width} bits wide, the core's are 64"
    if wrong:
        raise RowvitError(f"{dma.path}: {wrong}", advice)
    return True, f"{dma.path}, both channels, transfers of up to {longest}"


def _addresses(handoff: Handoff) -> Finding:
    blocks = (handoff.core, handoff.dma)
    text = ", ".join(f"{b.path} 0x{b.base:08X} ({b.size >> 10} KB)" for b in blocks)
    for block, needed in zip(blocks, (_CORE_BYTES, 0x60), strict=True):
        if block.size < needed:
            raise RowvitError(
                f"{block.path} has {block.size} bytes of addresses, it needs {needed}",
                "assign it a range in the block design",
            )
    (low, first), (high, _) = sorted((b.base, b.size) for b in blocks)
    if low + first > high:
        raise RowvitError(f"ranges overlap: {text}", "assign addresses in the block design")
    return True, text


def _ports(handoff: Handoff) -> Finding:
    found = {
        f"{block.path}/{master}": slave
        for block in (handoff.core, handoff.dma)
        for master, slave in block.memories.items()
    }
    if not found:
        return None, "the .hwh does not say which ports reach memory"
    text = ", ".join(f"{master} to {slave}" for master, slave in found.items())
    if len(found) < 3:
        raise RowvitError(
            f"of three masters only {text}", "connect the core and both DMA channels to HP ports"
        )
    if slow := [slave for slave in found.values() if "HP" not in slave.upper()]:
        return None, f"{text}: {slow[0]} is not an HP port; rowvit flushes caches as HP ports need it"
    return True, text


def _provenance(handoff: Handoff) -> Finding:
    path = handoff.path.with_suffix(".json")
    if not path.exists():
        return None, f"there is no {path.name} next to it: where it comes from is unknown"
    (found,) = provenance.verify(path)
    if found.config_hash != f"{handoff.config.hash:08X}":
        raise RowvitError(f"{path.name} is of a build with hash {found.config_hash}", _ONE_BUILD)
    if found.frontend != handoff.frontend:
        raise RowvitError(
            f"{path.name} is of a build with the {found.frontend} front end, the .hwh has {handoff.frontend}",
            _ONE_BUILD,
        )
    revision = f"{(found.revision or 'no revision')[:12]}{', with changes' if found.dirty else ''}"
    return True, f"{found.board}, {revision}, {found.tool}, {found.date}; files are unchanged"
