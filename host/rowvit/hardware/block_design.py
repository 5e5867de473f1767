# SPDX-License-Identifier: Apache-2.0
"""The system around the core: boards, and the block design that Vivado builds for them.

The one table of cells, parameters, connections and addresses; boards and their processing systems are in
``boards.toml``, and in a file of the user's that the variable ``ROWVIT_BOARDS`` names. The Tcl under
``bitstreams/`` builds it in Vivado, and `rowvit.sim.hwh` describes it to the simulated board.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from rowvit.errors import RowvitError
from rowvit.hardware.config import HardwareConfig, names, tomllib

BOARDS = Path(__file__).with_name("boards.toml")
OWN_BOARDS = "ROWVIT_BOARDS"  #: the variable that names a file of further rows
RAM_STYLES = ("block", "ultra")
CORE, DMA, INTC, PS, FRONTEND = "rowvit_0", "axi_dma_0", "axi_intc_0", "ps_0", "frontend_0"
TOP = "rowvit_top"
#: what makes patches of images: the host, or the HLS preprocessor between DMA and core
FRONTENDS = ("host", "hls")
FRONTEND_VLNV = "rowvit:hls:rowvit_frontend:1.0"  # as hls/build.tcl packs it

DMA_PARAMETERS: dict[str, object] = {
    "c_include_sg": 0,
    "c_sg_include_stscntrl_strm": 0,
    "c_sg_length_width": 26,
    "c_micro_dma": 0,
    "c_include_mm2s": 1,
    "c_include_s2mm": 1,
    "c_include_mm2s_dre": 0,
    "c_include_s2mm_dre": 0,
    "c_m_axi_mm2s_data_width": 64,
    "c_m_axi_s2mm_data_width": 64,
    "c_m_axis_mm2s_tdata_width": 64,
    "c_s_axis_s2mm_tdata_width": 64,
    "c_mm2s_burst_size": 16,  # AXI3, the port of a Zynq-7000, has no longer bursts
    "c_s2mm_burst_size": 16,
}


@dataclass(frozen=True)
class Processor:
    """A board's processor, for estimates of what the host's work takes (`rowvit.hardware.host`)."""

    name: str
    architecture: str  #: by Debian's names
    cores: int
    mhz: float
    per_cycle: list[float]  #: instructions per cycle that are assumed, from fewest to most


@dataclass(frozen=True)
class Family:
    """A processing system: interfaces, pins, parameters and address map, from ``boards.toml``."""

    name: str
    vlnv: str
    control: str  #: AXI master for registers
    memory: list[str]  #: AXI slaves to the DDR: for the DMA, for the core
    clock: str
    reset: str
    interrupt: str
    bus_clocks: list[str]  #: clock inputs of ``control`` and ``memory``
    parameters: dict[str, object]
    frequency: str  #: parameter that takes the clock in MHz
    port_width: str  #: parameter that takes the width of the core's port to the DDR
    port_bits: int  #: at most; where the core's is wider, the interconnect between them converts
    rule: dict[str, str]  #: options of Vivado's automation rule, besides the preset
    address_bits: int  #: of the DMA
    memory_bytes: int  #: that ``memory`` reaches from address 0 on
    addresses: dict[str, int]  #: base by cell; within what ``control`` reaches
    processor: Processor
    first: dict[str, object] = field(default_factory=dict)  #: parameters by which others are understood


@dataclass(frozen=True)
class PowerSensor:
    """How a board's power is measured; see ``boards.toml``."""

    instrument: str
    rails: list[str]
    measures: str
    known_as: str = ""


@dataclass(frozen=True)
class Board:
    """A row of ``boards.toml``."""

    name: str
    family: Family
    part: str
    board_part: str  #: pattern of Vivado's board file
    configuration: str
    ram_style: str  #: of token and residual memory: "block" or "ultra"
    block_ram: int  #: RAMB36 of the part
    ultra_ram: int  #: URAM288 of the part
    pll_mhz: float  #: of the PLL behind the logic's clock, as PYNQ's image boots
    power: PowerSensor
    processor: Processor
    settings: dict[str, object] = field(default_factory=dict)  #: where the board file is missing; empty: none
    image: str = ""  #: with PYNQ; this and what follows is for people
    boot: str = ""  #: how it boots from the card
    supply: str = ""


_Row = TypeVar("_Row", Processor, Family, PowerSensor, Board)
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "list": (list,),
    "dict": (dict,),
    "PowerSensor": (PowerSensor,),
    "Processor": (Processor,),
}


def _made(row: type[_Row], where: str, values: dict[str, Any]) -> _Row:
    """An object of a row; `RowvitError` if a key is missing, unknown or of another type."""
    keys = {one.name: str(one.type).partition("[")[0] for one in fields(row)}
    needed = {one.name for one in fields(row) if one.default is one.default_factory is MISSING}
    if wrong := (needed - values.keys()) | (values.keys() - keys.keys()):
        state = "lacks" if wrong <= needed else "has unknown or lacks known keys:"
        listed = ", ".join(key for key in keys if key != "name")
        raise RowvitError(f"{where} {state} {', '.join(sorted(wrong))}", f"its keys are {listed}")
    for key, value in values.items():
        kind = keys[key]
        if not isinstance(value, _TYPES.get(kind, object)) or isinstance(value, bool):
            raise RowvitError(f"{where}: {key} = {value!r} is not of type {kind}")
    return row(**values)


def _file(path: Path) -> dict[str, dict[str, Any]]:
    """Tables of a file as ``boards.toml``."""
    like = "give it tables like those of docs/another-board.md"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RowvitError(f"{path}, the file of {OWN_BOARDS}, cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise RowvitError(f"{path} is not TOML: {error}", like) from error
    for name, rows in tables.items():
        if name not in ("boards", "settings", "families"):
            raise RowvitError(
                f"{path} has a table '{name}', which is none of boards, settings, families", like
            )
        if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
            raise RowvitError(f"{path}: '{name}' holds something other than tables", like)
    return tables


def _with_processor(where: str, row: dict[str, Any], otherwise: dict[str, Any]) -> dict[str, Any]:
    """A row with its processor made, of what the row says and ``otherwise``."""
    given = row.get("processor", {})
    if not isinstance(given, dict) or not (given or otherwise):
        return row  # `_made` says what is wrong
    return row | {"processor": _made(Processor, f"{where}: processor", otherwise | given)}


@cache
def _tables(own: str) -> tuple[dict[str, Family], dict[str, Board]]:
    """Families and boards, also of a user's file; a row there replaces the one with its name."""
    paths = [BOARDS, Path(own)] if own else [BOARDS]
    rows: dict[str, dict[str, tuple[Path, dict[str, Any]]]] = {"boards": {}, "settings": {}, "families": {}}
    for path in paths:
        for table, found in _file(path).items():
            rows[table] |= {name: (path, row) for name, row in found.items()}
    families = {}
    for name, (path, row) in rows["families"].items():
        where = f"{path}: family {name}"
        families[name] = _made(Family, where, _with_processor(where, row, {}) | {"name": name})

    def choice(where: str, key: str, value: object, among: Iterable[str]) -> str:
        for name in among:
            if name == value:
                return name
        raise RowvitError(f"{where}: no {key} {value!r}", f"use one of {', '.join(among)}")

    boards = {}
    for name, (path, row) in rows["boards"].items():
        where = f"{path}: board {name}"
        values = row | {"name": name}
        if "family" in row:
            values["family"] = made_of = families[choice(where, "family", row["family"], families)]
            values = _with_processor(where, values, vars(made_of.processor))
        if "settings" in row:
            name_of_settings = choice(where, "settings", row["settings"], rows["settings"])
            values["settings"] = rows["settings"][name_of_settings][1]
        if isinstance(row.get("power"), dict):
            values["power"] = _made(PowerSensor, f"{where}: power", row["power"])
        made = boards[name] = _made(Board, where, values)
        choice(where, "ram_style", made.ram_style, RAM_STYLES)
        if not 0 < made.pll_mhz < math.inf:
            raise RowvitError(f"{where}: pll_mhz = {made.pll_mhz} is not a positive number")
    return families, boards


def boards() -> dict[str, Board]:
    """The boards by name; `RowvitError` if a file of the user's has a mistake."""
    return _tables(os.environ.get(OWN_BOARDS, ""))[1]


def board(name: str) -> Board:
    """A board by its name, in upper or lower case; `RowvitError` if there is none."""
    for known, found in boards().items():
        if known.lower() == name.lower():
            return found
    raise RowvitError(
        f"no board '{name}'",
        f"use one of {', '.join(boards())}, or name a file with a row for it: {OWN_BOARDS}=my-boards.toml"
        " (docs/another-board.md)",
    )


def known(name: str) -> Board | None:
    """The board that PYNQ's images call ``name``, if it is in the table."""
    if name:
        for found in boards().values():
            if name.lower() in (found.name.lower(), found.power.known_as.lower()):
                return found
    return None


def is_board() -> bool:
    """Whether this machine has a Zynq: PYNQ's images set BOARD, and the device tree names the chip."""
    if os.environ.get("BOARD"):
        return True
    with suppress(OSError):
        return b"xlnx,zynq" in Path("/proc/device-tree/compatible").read_bytes()
    return False


def default_configuration() -> str:
    """That of the board we are on, by the variable BOARD that PYNQ's images set, or else ``pynq-z2``.

    On a board where the working directory has one overlay, of another configuration: that one.
    """
    if not is_board():
        return "pynq-z2"
    overlays = {
        path.stem.removeprefix("rowvit-").removesuffix("-hls") for path in Path().glob("rowvit-*.bit")
    }
    if len(overlays) == 1 and overlays <= set(names()):
        return overlays.pop()
    here = known(os.environ.get("BOARD", ""))
    return here.configuration if here else "pynq-z2"


def family(config: HardwareConfig) -> Family:
    """The processing system of a configuration's board, a Zynq-7000 for 'none'; `RowvitError` as `board`."""
    if config.board == "none":
        return _tables("")[0]["zynq-7000"]
    return board(config.board).family


@dataclass(frozen=True)
class Cell:
    """A block. Vivado takes the newest version that it has; ``vlnv`` names that of Vivado 2022.2."""

    vlnv: str
    parameters: dict[str, object]
    interfaces: dict[str, str] = field(default_factory=dict)  #: name to MASTER, SLAVE, INITIATOR or TARGET


@dataclass(frozen=True)
class Address:
    """Where the processor finds a slave."""

    cell: str
    interface: str
    base: int
    range: int  #: bytes


@dataclass(frozen=True)
class BlockDesign:
    """Cells and wires. A pin or interface is named ``cell/name``."""

    family: Family
    cells: dict[str, Cell]
    interfaces: tuple[tuple[str, str], ...]  #: from master to slave
    nets: dict[str, tuple[str, tuple[str, ...]]]  #: by driver: clk, rst or INTERRUPT, and the loads
    addresses: tuple[Address, ...]  #: of the slaves that the processor's master reaches
    memory: dict[str, str]  #: master to the processing system's slave through which it reaches memory


def block_design(
    config: HardwareConfig, ps: Family | None = None, frontend: str = "host", ram_style: str | None = None
) -> BlockDesign:
    """The block design of one configuration.

    Parameters
    ----------
    config : HardwareConfig
    ps : Family, optional
        The processing system; by default that of the configuration's board.
    frontend : str
        One of `FRONTENDS`.
    ram_style : str, optional
        Of token and residual memory; by default that of the configuration's board.

    Raises
    ------
    RowvitError
        There is no such front end, or no such board.
    """
    if frontend not in FRONTENDS:
        raise RowvitError(f"no front end '{frontend}'", f"use {' or '.join(FRONTENDS)}")
    ps = ps or family(config)
    if ram_style is None:
        ram_style = "block" if config.board == "none" else board(config.board).ram_style
    control, dma_memory, core_memory = "axi_control", "axi_dma_memory", "axi_core_memory"
    cells = {
        PS: Cell(
            ps.vlnv,
            ps.parameters
            | {ps.frequency: config.clock_mhz, ps.port_width: min(config.port_bits, ps.port_bits)},
            {ps.control: "MASTER", **dict.fromkeys(ps.memory, "SLAVE")},
        ),
        CORE: Cell(
            f"xilinx.com:module_ref:{TOP}:1.0",
            {name.upper(): value for name, value in config.structure().items()}
            | {"CONFIG_HASH": f"0x{config.hash:08X}", "USE_DSP": 1, "RAM_STYLE": ram_style},
            {"s_axil": "SLAVE", "m_axi": "MASTER", "s_axis": "TARGET", "m_axis": "INITIATOR"},
        ),
        DMA: Cell(
            "xilinx.com:ip:axi_dma:7.1",
            DMA_PARAMETERS | {"c_addr_width": ps.address_bits},
            {
                "S_AXI_LITE": "SLAVE",
                "M_AXI_MM2S": "MASTER",
                "M_AXI_S2MM": "MASTER",
                "M_AXIS_MM2S": "INITIATOR",
                "S_AXIS_S2MM": "TARGET",
            },
        ),
        control: _interconnect(slaves=1, masters=3),
        dma_memory: _interconnect(slaves=2, masters=1),
        core_memory: _interconnect(slaves=1, masters=1),
        "reset_0": Cell("xilinx.com:ip:proc_sys_reset:5.0", {}),
        "concat_0": Cell("xilinx.com:ip:xlconcat:2.1", {"NUM_PORTS": 3}),
        INTC: Cell(
            "xilinx.com:ip:axi_intc:4.1",
            {"C_IRQ_CONNECTION": 1, "C_KIND_OF_INTR": "0x00000000"},  # one wire; inputs are levels
            {"s_axi": "SLAVE"},
        ),
    }
    outputs, inputs = [f"{DMA}/M_AXIS_MM2S"], [f"{CORE}/s_axis"]
    if frontend == "hls":
        cells[FRONTEND] = Cell(FRONTEND_VLNV, {}, {"s_axis": "TARGET", "m_axis": "INITIATOR"})
        outputs.append(f"{FRONTEND}/m_axis")
        inputs.insert(0, f"{FRONTEND}/s_axis")
    interfaces = (
        (f"{PS}/{ps.control}", f"{control}/S00_AXI"),
        (f"{control}/M00_AXI", f"{DMA}/S_AXI_LITE"),
        (f"{control}/M01_AXI", f"{INTC}/s_axi"),
        (f"{control}/M02_AXI", f"{CORE}/s_axil"),
        (f"{DMA}/M_AXI_MM2S", f"{dma_memory}/S00_AXI"),
        (f"{DMA}/M_AXI_S2MM", f"{dma_memory}/S01_AXI"),
        (f"{dma_memory}/M00_AXI", f"{PS}/{ps.memory[0]}"),
        (f"{CORE}/m_axi", f"{core_memory}/S00_AXI"),
        (f"{core_memory}/M00_AXI", f"{PS}/{ps.memory[1]}"),
        *zip(outputs, inputs, strict=True),
        (f"{CORE}/m_axis", f"{DMA}/S_AXIS_S2MM"),
    )
    crossbars = {name: cell for name, cell in cells.items() if "axi_interconnect" in cell.vlnv}
    clocked = [
        *(f"{PS}/{pin}" for pin in ps.bus_clocks),
        f"{CORE}/aclk",
        *(f"{DMA}/{pin}" for pin in ("s_axi_lite_aclk", "m_axi_mm2s_aclk", "m_axi_s2mm_aclk")),
        f"{INTC}/s_axi_aclk",
        "reset_0/slowest_sync_clk",
    ]
    for name, cell in crossbars.items():
        clocked += [f"{name}/ACLK", *(f"{name}/{port[:3]}_ACLK" for port in cell.interfaces)]
    if frontend == "hls":
        clocked.append(f"{FRONTEND}/ap_clk")
    reset = [f"{CORE}/aresetn", f"{DMA}/axi_resetn", f"{INTC}/s_axi_aresetn"]
    reset += [f"{name}/{port[:3]}_ARESETN" for name, cell in crossbars.items() for port in cell.interfaces]
    nets = {
        f"{PS}/{ps.clock}": ("clk", tuple(clocked)),
        f"{PS}/{ps.reset}": ("rst", ("reset_0/ext_reset_in",)),
        "reset_0/interconnect_aresetn": ("rst", tuple(f"{name}/ARESETN" for name in crossbars)),
        "reset_0/peripheral_aresetn": ("rst", tuple(reset)),
        f"{DMA}/mm2s_introut": ("INTERRUPT", ("concat_0/In0",)),
        f"{DMA}/s2mm_introut": ("INTERRUPT", ("concat_0/In1",)),
        f"{CORE}/irq": ("INTERRUPT", ("concat_0/In2",)),
        "concat_0/dout": ("INTERRUPT", (f"{INTC}/intr",)),
        f"{INTC}/irq": ("INTERRUPT", (f"{PS}/{ps.interrupt}",)),
    }
    if frontend == "hls":
        # a DMA that is reset has dropped a frame: the kernel must not wait for the rest of it
        nets[f"{DMA}/mm2s_prmry_reset_out_n"] = ("rst", (f"{FRONTEND}/ap_rst_n",))
    addresses = (
        Address(DMA, "S_AXI_LITE", ps.addresses[DMA], 0x10000),
        Address(INTC, "s_axi", ps.addresses[INTC], 0x10000),
        Address(CORE, "s_axil", ps.addresses[CORE], 0x1000),  # its 12 address bits
    )
    memory = {
        f"{DMA}/M_AXI_MM2S": ps.memory[0],
        f"{DMA}/M_AXI_S2MM": ps.memory[0],
        f"{CORE}/m_axi": ps.memory[1],
    }
    return BlockDesign(ps, cells, interfaces, nets, addresses, memory)


def overlay_name(config: HardwareConfig, frontend: str) -> str:
    """Name of the files of an overlay: "rowvit-pynq-z2", or "rowvit-pynq-z2-hls"."""
    return f"rowvit-{config.name}" + ("-hls" if frontend == "hls" else "")


def bitstream_here(config: HardwareConfig, frontend: str | None = None) -> Path:
    """The .bit in the working directory, which need not be there.

    Without a front end it is the host's, or the HLS one where that alone is there.
    """
    named = {one: Path(f"{overlay_name(config, one)}.bit") for one in FRONTENDS}
    if frontend is None:
        frontend = next((one for one in FRONTENDS if named[one].exists()), "host")
    return named[frontend]


def _interconnect(slaves: int, masters: int) -> Cell:
    ports = {f"S{i:02}_AXI": "SLAVE" for i in range(slaves)} | {
        f"M{i:02}_AXI": "MASTER" for i in range(masters)
    }
    return Cell("xilinx.com:ip:axi_interconnect:2.1", {"NUM_SI": slaves, "NUM_MI": masters}, ports)
