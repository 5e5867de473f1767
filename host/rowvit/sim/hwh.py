# SPDX-License-Identifier: Apache-2.0
"""The hardware handoff (.hwh) that Vivado would write for the block design, for the simulated device.

Cells, parameters, connections and addresses are those of `rowvit.hardware.block_design`, from which
the bitstream is built. Vivado adds more parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, SubElement, tostring

from rowvit.hardware import clocks
from rowvit.hardware.block_design import PS, BlockDesign, block_design, board, family
from rowvit.hardware.config import HardwareConfig

#: MHz of the oscillator, as PYNQ takes it
OSCILLATORS = {"zynq-7000": 50, "zynq-ultrascale": 33.333}


def is_zynq_7000(config: HardwareConfig) -> bool:
    """Whether the configuration's board has a Zynq-7000; otherwise it has a Zynq UltraScale+."""
    return family(config).name == "zynq-7000"


def pll_mhz(config: HardwareConfig) -> float:
    """The PLL of a configuration's board; without one, ten times its clock."""
    return 10 * config.clock_mhz if config.board == "none" else board(config.board).pll_mhz


def clock_registers(config: HardwareConfig) -> dict[int, int]:
    """PLL registers of the processing system, by address."""
    multiplier = round(pll_mhz(config) / OSCILLATORS[family(config).name])
    if is_zynq_7000(config):
        return {0xF8000100 + 4 * i: multiplier << 12 for i in range(3)}
    addresses = (0xFF5E0020, 0xFF5E0030, 0xFD1A0020, 0xFD1A002C, 0xFD1A0038)
    return dict.fromkeys(addresses, multiplier << 8)


def handoff(config: HardwareConfig, frontend: str = "host") -> str:
    """The .hwh of ``config`` with a front end, as XML."""
    design = block_design(config, frontend=frontend)
    root = Element("EDKSYSTEM", EDWVERSION="1.2", TIMESTAMP="", VIVADOVERSION="2022.2")
    _add(root, "SYSTEMINFO", ARCH="zynq" if is_zynq_7000(config) else "zynquplus", NAME="rowvit")
    _add(root, "EXTERNALPORTS")
    _add(root, "EXTERNALINTERFACES")
    modules = _add(root, "MODULES")
    for name, cell in design.cells.items():
        module = _add(
            modules,
            "MODULE",
            FULLNAME=f"/{name}",
            INSTANCE=name,
            IS_PL=str(name != PS).upper(),
            MODTYPE=cell.vlnv.split(":")[2],
            VLNV=cell.vlnv,
        )
        parameters = _add(module, "PARAMETERS")
        for key, value in (cell.parameters | (_derived(config) if name == PS else {})).items():
            _add(parameters, "PARAMETER", NAME=key, VALUE=value)
        _add_ports(_add(module, "PORTS"), name, design, config.clock_mhz)
        buses = _add(module, "BUSINTERFACES")
        for bus, kind in cell.interfaces.items():
            protocol = "aximm" if kind in ("MASTER", "SLAVE") else "axis"
            vlnv = f"xilinx.com:interface:{protocol}:1.0"
            _add(
                buses, "BUSINTERFACE", BUSNAME=_wire(f"{name}/{bus}", design), NAME=bus, TYPE=kind, VLNV=vlnv
            )
        memory = _add(module, "MEMORYMAP")
        for master, slave, base, size, kind in _ranges(name, design):
            _add(
                memory,
                "MEMRANGE",
                ADDRESSBLOCK="Reg",
                BASEVALUE=f"0x{base:08X}",
                HIGHVALUE=f"0x{base + size - 1:08X}",
                INSTANCE=slave.split("/")[0],
                MASTERBUSINTERFACE=master,
                MEMTYPE=kind,
                SLAVEBUSINTERFACE=slave.split("/")[1],
            )
    return tostring(root, encoding="unicode", xml_declaration=True)


def _derived(config: HardwareConfig) -> dict[str, object]:
    """Parameters that Vivado derives for the processing system, and PYNQ reads."""
    clock = clocks.at_most(pll_mhz(config), config.clock_mhz)
    if is_zynq_7000(config):
        derived: dict[str, object] = {}
        for i in range(4):
            derived[f"PCW_FPGA_FCLK{i}_ENABLE"] = int(i == 0)
            derived[f"PCW_FCLK{i}_PERIPHERAL_DIVISOR0"] = clock.divisor0
            derived[f"PCW_FCLK{i}_PERIPHERAL_DIVISOR1"] = clock.divisor1
            derived[f"PCW_FCLK{i}_PERIPHERAL_CLKSRC"] = "IO PLL"
        return derived
    derived = {
        "C_MAXIGP0_DATA_WIDTH": 32,
        "C_SAXIGP2_DATA_WIDTH": 64,
        "C_SAXIGP3_DATA_WIDTH": config.port_bits,
    }
    for i in range(4):
        derived[f"PSU__FPGA_PL{i}_ENABLE"] = int(i == 0)
        derived[f"PSU__CRL_APB__PL{i}_REF_CTRL__DIVISOR0"] = clock.divisor0
        derived[f"PSU__CRL_APB__PL{i}_REF_CTRL__DIVISOR1"] = clock.divisor1
        derived[f"PSU__CRL_APB__PL{i}_REF_CTRL__SRCSEL"] = "IOPLL"
        derived[f"PSU__CRL_APB__PL{i}_REF_CTRL__ACT_FREQMHZ"] = config.clock_mhz
    return derived


def _wire(interface: str, design: BlockDesign) -> str:
    """The name of the bus at an interface: that of its master."""
    return next(pair[0] for pair in design.interfaces if interface in pair).replace("/", "_")


def _ranges(cell: str, design: BlockDesign) -> Iterator[tuple[str, str, int, int, str]]:
    """What a cell's masters reach: master, slave, base, bytes and kind."""
    for slave in design.addresses if cell == PS else ():
        place = f"{slave.cell}/{slave.interface}"
        yield design.family.control, place, slave.base, slave.range, "REGISTER"
    for master, port in design.memory.items():
        if master.startswith(f"{cell}/"):
            yield master.split("/")[1], f"{PS}/{port}", 0, design.family.memory_bytes, "MEMORY"


def _add_ports(ports: Element, name: str, design: BlockDesign, clock_mhz: float) -> None:
    """The single-wire ports of a cell, each with what it is connected to."""
    for driver, (kind, loads) in design.nets.items():
        for pin in (driver, *loads):
            cell, port = pin.split("/")
            if cell != name:
                continue
            item = _add(ports, "PORT", DIR="O" if pin == driver else "I", NAME=port, SIGIS=kind)
            if kind == "clk":
                item.set("CLKFREQUENCY", f"{clock_mhz * 1e6:.0f}")
            connections = _add(item, "CONNECTIONS")
            for other in loads if pin == driver else (driver,):
                instance, port = other.split("/")
                _add(connections, "CONNECTION", INSTANCE=instance, PORT=port)


def _add(parent: Element, tag: str, **attributes: object) -> Element:
    return SubElement(parent, tag, {key: str(value) for key, value in attributes.items()})
