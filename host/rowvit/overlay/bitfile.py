# SPDX-License-Identifier: Apache-2.0
"""What the files of an overlay say: the header of the .bit, and the .hwh next to it.

They are read without PYNQ's parsers, so that a PC without a board can check them, and PYNQ's view of an
overlay can be compared with them.
"""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
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
_PS = {"processing_system7": "Zynq-7000", "zynq_ultra_ps_e": "Zynq UltraScale+"}
_MAGIC = bytes.fromhex("0009 0ff00ff00ff00ff000 0001")


@dataclass(frozen=True)
class BitHeader:
    """The header of a .bit."""

    design: str  #: name of the top module
    tool: str  #: version of Vivado, if the header has it
    part: str
    date: str
    time: str
    size: int  #: bytes of configuration data

    @classmethod
    def read(cls, path: Path) -> BitHeader:
        """Read a .bit's header; `RowvitError` if the file is missing, no .bit, or cut short."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RowvitError(
                f"{path}: cannot be read ({error.strerror})", "build the bitstream, or copy it here"
            ) from error
        if not data.startswith(_MAGIC):
            raise RowvitError(f"{path} is not a Xilinx .bit", "copy the file again, in binary mode")
        texts, at = {}, len(_MAGIC)
        try:
            while (key := data[at : at + 1]) != b"e":
                (length,) = struct.unpack_from(">H", data, at + 1)
                texts[key.decode()] = data[at + 3 : at + 3 + length].rstrip(b"\0").decode()
                at += 3 + length
            (size,) = struct.unpack_from(">I", data, at + 1)
            design, *options = texts["a"].split(";")
            tool = next((text.partition("=")[2] for text in options if text.startswith("Version=")), "")
            header = cls(design, tool, texts["b"], texts["c"], texts["d"], size)
        except (struct.error, KeyError, UnicodeDecodeError) as error:
            raise RowvitError(f"{path}: its header is damaged", "copy the file again") from error
        if len(data) != at + 5 + size:
            raise RowvitError(
                f"{path}: {len(data) - at - 5} bytes follow its header, which announces {size}",
                "copy the file again",
            )
        return header

    @property
    def made(self) -> datetime | None:
        """When Vivado wrote it, by the clock of its PC; None if the header does not say."""
        return _moment(f"{self.date} {self.time}", "%Y/%m/%d %H:%M:%S")

    def encode(self, data: bytes) -> bytes:
        """A .bit of this header and ``data``."""
        design = f"{self.design};Version={self.tool}"
        parts = [_MAGIC]
        for key, text in zip("abcd", (design, self.part, self.date, self.time), strict=True):
            raw = text.encode() + b"\0"
            parts.append(key.encode() + struct.pack(">H", len(raw)) + raw)
        return b"".join([*parts, b"e", struct.pack(">I", len(data)), data])


@dataclass(frozen=True)
class IpBlock:
    """One block of the design."""

    path: str  #: name, after those of the hierarchies around it: "rowvit_0" or "vision/rowvit_0"
    type: str  #: VLNV
    parameters: dict[str, str]  #: by lower-case name
    base: int = 0  #: as the processor sees it; 0, like the size, if it has no address range
    size: int = 0  #: bytes
    #: master interface -> slave interface of the processing system that it reaches
    memories: dict[str, str] = field(default_factory=dict)
    clock_mhz: float | None = None  #: of its first clock pin, if the file says it
    clock_source: str = ""  #: what drives that pin, as "ps_0/FCLK_CLK0"

    def number(self, name: str, default: int = 0) -> int:
        """A parameter as a number; ``default`` if the file does not hold it."""
        text = self.parameters.get(name.lower(), "").strip().strip('"')
        if match := re.fullmatch(r"\d*'([hdb])([0-9a-fA-F_]+)", text):
            with suppress(ValueError):
                return int(match[2].replace("_", ""), {"h": 16, "d": 10, "b": 2}[match[1]])
        with suppress(ValueError):
            return int(text, 0)
        with suppress(ValueError, OverflowError):
            return int(float(text))
        return default


class Handoff:
    """A .hwh; `RowvitError` if the file is missing or is no .hwh."""

    blocks: dict[str, IpBlock]  #: by path
    tool: str  #: version of Vivado
    part: str  #: device and package, as far as the file names them

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RowvitError(
                f"{path} does not exist", "copy it from the build that made the bitstream"
            ) from error
        except (ElementTree.ParseError, UnicodeDecodeError) as error:
            raise RowvitError(f"{path} is not a .hwh ({error})", "copy the file again") from error
        try:
            self._read(root)
        except ValueError as error:
            raise RowvitError(f"{path} is damaged ({error})", "copy the file again") from error

    def _read(self, root: ElementTree.Element) -> None:
        """`ValueError` if an address or a frequency is no number."""
        modules = root.findall("MODULES/MODULE")
        info = root.find("SYSTEMINFO")
        if info is None or not modules:
            raise RowvitError(
                f"{self.path} describes no design", "copy the .hwh of the build that made the .bit"
            )
        self.tool = root.get("VIVADOVERSION", "")
        self.design = info.get("NAME", "")
        self.made = _moment(root.get("TIMESTAMP", ""), "%a %b %d %H:%M:%S %Y")
        self.part = f"{info.get('DEVICE', '')}{info.get('PACKAGE', '')}"
        names = {m.get("INSTANCE"): m.get("FULLNAME", m.get("INSTANCE", "")).strip("/") for m in modules}
        processors = {m.get("INSTANCE") for m in modules if m.get("MODTYPE") in _PS}
        ranges = {
            memory.get("INSTANCE"): (
                int(memory.get("BASEVALUE", "0"), 0),
                int(memory.get("HIGHVALUE", "0"), 0),
            )
            for module in modules
            if module.get("INSTANCE") in processors
            for memory in module.findall("MEMORYMAP/MEMRANGE")
        }
        self.blocks = {}
        for module in modules:
            instance = module.get("INSTANCE")
            low, high = ranges.get(instance, (0, -1))
            self.blocks[names[instance]] = IpBlock(
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
    def core(self) -> IpBlock:
        """The rowvit core; `RowvitError` if there is none or more than one."""
        return self._one([b for b in self.blocks.values() if b.type in CORE_TYPES], "rowvit core")

    @cached_property
    def dma(self) -> IpBlock:
        """The AXI DMA in the core's hierarchy, or else the only one; `RowvitError` if there is none."""
        found = [b for b in self.blocks.values() if b.type.startswith(DMA_TYPE)]
        place = self.core.path.rpartition("/")[0]
        return self._one([b for b in found if b.path.rpartition("/")[0] == place] or found, "AXI DMA")

    @cached_property
    def processor(self) -> IpBlock:
        found = [b for b in self.blocks.values() if b.type.split(":")[2:3] and b.type.split(":")[2] in _PS]
        return self._one(found, "Zynq processing system")

    @property
    def pl_clock(self) -> tuple[int, float] | None:
        """Number of the processor's clock that drives the core, and the MHz that timing was met for."""
        cell, _, pin = self.core.clock_source.rpartition("/")
        wanted, index = self.core.clock_mhz, pin[-1:]
        if cell != self.processor.path or not index.isdigit() or wanted is None:
            return None
        return int(index), wanted

    @property
    def zynq_7000(self) -> bool:
        return self.processor.type.split(":")[2] == "processing_system7"

    @cached_property
    def frontend(self) -> str:
        """What makes patches of images: "hls" if the design has the preprocessor, otherwise "host"."""
        kind = FRONTEND_VLNV.rpartition(":")[0]
        return "hls" if any(b.type.rpartition(":")[0] == kind for b in self.blocks.values()) else "host"

    @cached_property
    def config(self) -> HardwareConfig:
        """The configuration of the core's parameters: a named one, or "unnamed".

        `RowvitError` if a parameter is missing or impossible, or CONFIG_HASH is not the hash of the others.
        """
        structure = {name: self.core.number(name) for name in configs.load("tiny").structure()}
        if missing := [name.upper() for name in structure if name not in self.core.parameters]:
            raise RowvitError(
                f"{self.path}: the core has no parameter {', '.join(missing)}",
                "build the bitstream from this version",
            )
        clock = self.core.clock_mhz or 100.0
        try:
            found = HardwareConfig(name="unnamed", board="none", clock_mhz=clock, **structure)
        except RowvitError as error:
            raise RowvitError(f"{self.path}: {error.message}", "build the bitstream again") from error
        written = self.core.number("config_hash", found.hash)
        if written != found.hash:
            raise RowvitError(
                f"{self.path}: the core's parameter CONFIG_HASH is 0x{written:08X}, but the hash of its"
                f" others is 0x{found.hash:08X}",
                "build the bitstream again, from one configuration",
            )
        for name in self.config_names(found):
            return configs.load(name)
        return found

    def config_names(self, config: HardwareConfig | None = None) -> list[str]:
        """Names of the configurations of this circuit."""
        wanted = (config or self.config).hash
        return [name for name in configs.names() if configs.load(name).hash == wanted]

    def _one(self, found: list[IpBlock], kind: str) -> IpBlock:
        if len(found) == 1:
            return found[0]
        have = ", ".join(block.path for block in (found or self.blocks.values()))
        count = "no" if not found else f"{len(found)} blocks of type"
        raise RowvitError(
            f"{self.path}: the design holds {count} {kind} (it holds {have})", "use a rowvit design's .hwh"
        )


def same_build(header: BitHeader, handoff: Handoff) -> str | None:
    """What .bit and .hwh have in common; None if the .hwh does not say enough.

    Raises
    ------
    RowvitError
        They are of different designs, parts or versions of Vivado, or the .bit is older than the .hwh, which
        Vivado writes first.
    """

    def plain(part: str) -> str:
        return re.sub(r"[^a-z0-9]", "", part.lower()).removeprefix("xc")

    def series(tool: str) -> str:  # the .hwh has the update's number too: 2020.2.2
        return ".".join(tool.split(".")[:2])

    differences = []
    if handoff.design and header.design not in (handoff.design, f"{handoff.design}_wrapper"):
        differences.append(f"the .bit is of design {header.design}, the .hwh of {handoff.design}")
    if handoff.part and not plain(header.part).startswith(plain(handoff.part)):
        differences.append(f"the .bit is for {header.part}, the .hwh for {handoff.part}")
    if header.tool and handoff.tool and series(header.tool) != series(handoff.tool):
        differences.append(f"the .bit is from Vivado {header.tool}, the .hwh from {handoff.tool}")
    if header.made and handoff.made and header.made < handoff.made:
        differences.append(f"the .bit of {header.made} is older than the .hwh of {handoff.made}")
    if differences:
        raise RowvitError(f"{handoff.path}: {differences[0]}", "copy both from one build")
    return f"both for {handoff.part}" if handoff.part else None


def _moment(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(" ".join(text.split()), form)
    except ValueError:
        return None


def _clock_of(module: ElementTree.Element, names: dict[str | None, str]) -> tuple[float | None, str]:
    for port in module.findall("PORTS/PORT"):
        if port.get("CLKFREQUENCY"):
            wire = port.find("CONNECTIONS/CONNECTION")
            source = "" if wire is None else f"{names.get(wire.get('INSTANCE'))}/{wire.get('PORT')}"
            return float(port.get("CLKFREQUENCY", "0")) / 1e6, source
    return None, ""
