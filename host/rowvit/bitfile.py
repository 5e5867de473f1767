# SPDX-License-Identifier: Apache-2.0
"""What the files of an overlay say: the header of the .bit, and the .hwh beside it.

They are read without a board and without PYNQ, so that a PC can judge them, and so that what PYNQ
believes of an overlay can be compared with them.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

from rowvit.errors import RowvitError
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import FRONTEND_VLNV
from rowvit.hardware.config import HardwareConfig

#: types of the core: Vivado's for the RTL as a module of the block design, and the packaged IP's
CORE_TYPES = ("xilinx.com:module_ref:rowvit_top:1.0", "rowvit:rowvit:rowvit_top:1.0")
DMA_TYPE = "xilinx.com:ip:axi_dma"
LENGTH_BITS = 26  # of the DMA's length register, the most it can have
CORE_BYTES = 4096  # addresses of the core's registers and counters
_PS = {"processing_system7": "Zynq-7000", "zynq_ultra_ps_e": "Zynq UltraScale+"}
_MAGIC = bytes.fromhex("0009 0ff00ff00ff00ff000 0001")


@dataclass(frozen=True)
class BitHeader:
    """The header of a .bit.

    Parameters
    ----------
    design : str
        Name of the top module.
    tool : str
        Version of Vivado, if the header tells.
    part, date, time : str
    size : int
        Bytes of configuration data.
    """

    design: str
    tool: str
    part: str
    date: str
    time: str
    size: int

    @classmethod
    def read(cls, path: Path) -> BitHeader:
        """Read a .bit's header.

        Raises
        ------
        RowvitError
            The file is missing, no .bit, or cut short.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RowvitError(
                f"{path}: cannot be read ({error.strerror}); build the bitstream, or copy it here"
            ) from error
        if not data.startswith(_MAGIC):
            raise RowvitError(f"{path} is not a Xilinx .bit; copy the file again, in binary mode")
        texts, at = {}, len(_MAGIC)
        try:
            while (key := data[at : at + 1]) != b"e":
                (length,) = struct.unpack_from(">H", data, at + 1)
                texts[key.decode()] = data[at + 3 : at + 3 + length].rstrip(b"\0").decode()
                at += 3 + length
            (size,) = struct.unpack_from(">I", data, at + 1)
            design, *options = texts["a"].split(";")
            header = cls(design, _option(options, "Version"), texts["b"], texts["c"], texts["d"], size)
        except (struct.error, KeyError, UnicodeDecodeError) as error:
            raise RowvitError(f"{path}: its header is damaged; copy the file again") from error
        if len(data) != at + 5 + size:
            raise RowvitError(
                f"{path}: {len(data) - at - 5} bytes follow its header, which announces {size}; copy the file"
                " again"
            )
        return header

    def encode(self, data: bytes) -> bytes:
        """A .bit of this header and ``data``."""
        design = f"{self.design};Version={self.tool}"
        parts = [_MAGIC]
        for key, text in zip("abcd", (design, self.part, self.date, self.time), strict=True):
            raw = text.encode() + b"\0"
            parts.append(key.encode() + struct.pack(">H", len(raw)) + raw)
        return b"".join([*parts, b"e", struct.pack(">I", len(data)), data])


@dataclass(frozen=True)
class Block:
    """One block of the design.

    Parameters
    ----------
    path : str
        Name, after those of the hierarchies around it: "rowvit_0" or "vision/rowvit_0".
    type : str
        VLNV.
    parameters : dict of str
        By lower-case name.
    base, size : int
        Address range that the processor sees; 0 and 0 if it sees none.
    memories : dict of str
        Master interface -> slave interface of the processing system that it reaches.
    clock_mhz : float or None
        Of its first clock pin, if the file says it.
    clock_source : str
        What drives that pin, as "ps_0/FCLK_CLK0".
    """

    path: str
    type: str
    parameters: dict[str, str]
    base: int = 0
    size: int = 0
    memories: dict[str, str] = field(default_factory=dict)
    clock_mhz: float | None = None
    clock_source: str = ""

    def number(self, name: str, default: int = 0) -> int:
        """A parameter as a number; ``default`` if the file does not hold it."""
        text = self.parameters.get(name.lower(), "").strip().strip('"')
        if match := re.fullmatch(r"\d*'([hdb])([0-9a-fA-F_]+)", text):
            return int(match[2].replace("_", ""), {"h": 16, "d": 10, "b": 2}[match[1]])
        try:
            return int(text, 0)
        except ValueError:
            return int(float(text)) if re.fullmatch(r"[\d.]+", text) else default


class Handoff:
    """A .hwh.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    blocks : dict of Block
        By path.
    tool : str
        Version of Vivado.
    part : str
        Device and package, as far as the file names them.

    Raises
    ------
    RowvitError
        The file is missing or no .hwh.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RowvitError(
                f"{path} does not exist; copy it from the build that made the bitstream"
            ) from error
        except (ElementTree.ParseError, UnicodeDecodeError) as error:
            raise RowvitError(f"{path} is not a .hwh ({error}); copy the file again") from error
        modules = root.findall("MODULES/MODULE")
        info = root.find("SYSTEMINFO")
        if info is None or not modules:
            raise RowvitError(f"{path} describes no design; copy the .hwh of the build that made the .bit")
        self.tool = root.get("VIVADOVERSION", "")
        self.part = f"{info.get('DEVICE', '')}{info.get('PACKAGE', '')}"
        names = {m.get("INSTANCE"): (m.get("FULLNAME") or m.get("INSTANCE")).strip("/") for m in modules}
        processors = {m.get("INSTANCE") for m in modules if m.get("MODTYPE") in _PS}
        ranges = {
            memory.get("INSTANCE"): (int(memory.get("BASEVALUE"), 0), int(memory.get("HIGHVALUE"), 0))
            for module in modules
            if module.get("INSTANCE") in processors
            for memory in module.findall("MEMORYMAP/MEMRANGE")
        }
        self.blocks: dict[str, Block] = {}
        for module in modules:
            instance = module.get("INSTANCE")
            low, high = ranges.get(instance, (0, -1))
            self.blocks[names[instance]] = Block(
                names[instance],
                module.get("VLNV", ""),
                {
                    p.get("NAME", "").lower(): p.get("VALUE", "")
                    for p in module.findall("PARAMETERS/PARAMETER")
                },
                low,
                high - low + 1,
                {
                    memory.get("MASTERBUSINTERFACE", ""): memory.get("SLAVEBUSINTERFACE", "")
                    for memory in module.findall("MEMORYMAP/MEMRANGE")
                    if memory.get("INSTANCE") in processors
                },
                *_clock_of(module, names),
            )

    @cached_property
    def core(self) -> Block:
        """The rowvit core; `RowvitError` if there is none or more than one."""
        return self._one([b for b in self.blocks.values() if b.type in CORE_TYPES], "rowvit core")

    @cached_property
    def dma(self) -> Block:
        """The AXI DMA in the core's hierarchy, or else the only one; `RowvitError` if there is none."""
        found = [b for b in self.blocks.values() if b.type.startswith(DMA_TYPE)]
        place = self.core.path.rpartition("/")[0]
        return self._one([b for b in found if b.path.rpartition("/")[0] == place] or found, "AXI DMA")

    @cached_property
    def processor(self) -> Block:
        found = [b for b in self.blocks.values() if b.type.split(":")[2:3] and b.type.split(":")[2] in _PS]
        return self._one(found, "Zynq processing system")

    @property
    def zynq_7000(self) -> bool:
        return self.processor.type.split(":")[2] == "processing_system7"

    @cached_property
    def frontend(self) -> str:
        """Who makes patches of images: "hls" if the design holds the preprocessor, otherwise "host"."""
        kind = FRONTEND_VLNV.rpartition(":")[0]
        return "hls" if any(b.type.rpartition(":")[0] == kind for b in self.blocks.values()) else "host"

    @cached_property
    def config(self) -> HardwareConfig:
        """The configuration that the core's parameters make: a named one, or one of no name.

        Raises
        ------
        RowvitError
            A parameter is missing, or the parameter CONFIG_HASH is not the hash of the others.
        """
        structure = {name: self.core.number(name) for name in configs.load("tiny").structure()}
        if missing := [name.upper() for name in structure if name not in self.core.parameters]:
            raise RowvitError(
                f"{self.path}: the core has no parameter {', '.join(missing)}; it may be another version's,"
                " build the bitstream from this one"
            )
        clock = self.core.clock_mhz or 100.0
        found = HardwareConfig(name="unnamed", board="none", clock_mhz=clock, **structure)
        written = self.core.number("config_hash", found.hash)
        if written != found.hash:
            raise RowvitError(
                f"{self.path}: the core's parameter CONFIG_HASH is 0x{written:08X}, its other parameters make"
                f" 0x{found.hash:08X}; build the bitstream again, from one configuration"
            )
        for name in self.config_names(found):
            return configs.load(name)
        return found

    def config_names(self, config: HardwareConfig | None = None) -> list[str]:
        """Names of the configurations that make this circuit."""
        wanted = (config or self.config).hash
        return [name for name in configs.names() if configs.load(name).hash == wanted]

    def _one(self, found: list[Block], kind: str) -> Block:
        if len(found) == 1:
            return found[0]
        have = ", ".join(block.path for block in (found or self.blocks.values()))
        count = "no" if not found else f"{len(found)} blocks of type"
        raise RowvitError(
            f"{self.path}: the design holds {count} {kind} (it holds {have}); take a rowvit design's .hwh"
        )


def _clock_of(module: ElementTree.Element, names: dict[str | None, str]) -> tuple[float | None, str]:
    for port in module.findall("PORTS/PORT"):
        if port.get("CLKFREQUENCY"):
            wire = port.find("CONNECTIONS/CONNECTION")
            source = "" if wire is None else f"{names.get(wire.get('INSTANCE'))}/{wire.get('PORT')}"
            return int(port.get("CLKFREQUENCY", "0")) / 1e6, source
    return None, ""


def _option(options: list[str], name: str) -> str:
    return next((text.partition("=")[2] for text in options if text.startswith(f"{name}=")), "")


# -- verification -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Parameters
    ----------
    name : str
    ok : bool or None
        None: could not be told, and need not be wrong.
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
    """Look at a .bit and the files beside it.

    Checks that cannot be made because an earlier one failed are left out.
    """
    path = Path(bitfile)
    checks: list[Check] = []
    header = handoff = None

    def attempt(name: str, look) -> None:
        try:
            checks.append(look())
        except RowvitError as error:
            text, _, advice = str(error).partition("; ")
            checks.append(Check(name, False, text, advice))

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
        attempt("same build", lambda: _same_build(header, handoff))
    attempt("core", lambda: _core(handoff))
    if not checks[-1].ok:
        return checks
    for name, look in (
        ("clock", _clock),
        ("DMA", _dma),
        ("addresses", _addresses),
        ("memory ports", _ports),
        ("provenance", _provenance),
    ):
        attempt(name, lambda look=look: look(handoff))
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
    elif bits < LENGTH_BITS:
        wrong = f"its length register has {bits} bits: a transfer moves at most {(1 << bits) - 1:,} bytes"
        advice = f"set c_sg_length_width to {LENGTH_BITS}"
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
    for block, least in zip(blocks, (CORE_BYTES, 0x60), strict=True):
        if block.size < least:
            return Check(
                name,
                False,
                f"{block.path} has {block.size} bytes of addresses, it needs {least}",
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
    from rowvit import overlays

    name, path = "provenance", handoff.path.with_suffix(".json")
    if not path.exists():
        return Check(name, None, f"no {path.name} lies beside it: where it comes from is unknown")
    (found,) = overlays.verify(path)
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
    return Check(name, True, f"{found.board}, {revision}, {found.tool}, {found.date}; files are whole")
