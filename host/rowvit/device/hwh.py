# SPDX-License-Identifier: Apache-2.0
"""The hardware handoff (.hwh) that Vivado would write for the block design, for the simulated device.

Names, types and addresses are the block design's: processing system, AXI DMA, the core, and an
interrupt controller behind which the three interrupts stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from xml.sax.saxutils import quoteattr

from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import COUNTER_BASE, COUNTERS, REGISTERS

DMA_BASE = 0x40400000
CORE_BASE = 0x43C00000
INTC_BASE = 0x41800000
RANGE = 0x10000
CLOCK_DIVISOR = 10
#: boards with a Zynq-7000; all others have a Zynq UltraScale+
ZYNQ_7000 = ("pynq-z1", "pynq-z2", "none")

DMA_PARAMETERS = {
    "c_include_sg": 0,
    "c_sg_length_width": 26,
    "c_include_mm2s": 1,
    "c_include_s2mm": 1,
    "c_include_mm2s_dre": 0,
    "c_include_s2mm_dre": 0,
    "c_m_axi_mm2s_data_width": 64,
    "c_m_axi_s2mm_data_width": 64,
    "c_micro_dma": 0,
}
_ACCESS = {"ro": "read-only", "wo": "write-only", "rw": "read-write", "w1c": "read-write"}


def is_zynq_7000(config: HardwareConfig) -> bool:
    return config.board.lower() in ZYNQ_7000


def clock_registers(config: HardwareConfig) -> dict[int, int]:
    """PLL registers of the processing system, by address, that make ``clock_mhz`` with `CLOCK_DIVISOR`.

    PYNQ takes 50 MHz (Zynq-7000) or 33.333 MHz (UltraScale+) for the oscillator.
    """
    if is_zynq_7000(config):
        multiplier = round(config.clock_mhz * CLOCK_DIVISOR / 50)
        return {0xF8000100 + 4 * i: multiplier << 12 for i in range(3)}
    multiplier = round(config.clock_mhz * CLOCK_DIVISOR / 33.333)
    addresses = (0xFF5E0020, 0xFF5E0030, 0xFD1A0020, 0xFD1A002C, 0xFD1A0038)
    return dict.fromkeys(addresses, multiplier << 8)


def handoff(config: HardwareConfig) -> str:
    """The .hwh of ``config`` as XML."""
    registers = [(name, offset, access, text) for name, (offset, access, text) in REGISTERS.items()]
    registers += [(name.upper(), COUNTER_BASE + 4 * i, "ro", text) for i, (name, text) in enumerate(COUNTERS)]
    modules = [
        _processing_system(config),
        _module(
            "axi_dma_0",
            "xilinx.com:ip:axi_dma:7.1",
            DMA_PARAMETERS,
            ports=[
                _wire("mm2s_introut", "O", "concat_0", "In0"),
                _wire("s2mm_introut", "O", "concat_0", "In1"),
            ],
            slave="S_AXI_LITE",
        ),
        _module(
            "rowvit_0",
            "xilinx.com:module_ref:rowvit_top:1.0",
            {name.upper(): value for name, value in config.structure().items()},
            ports=[_wire("irq", "O", "concat_0", "In2")],
            slave="s_axil",
            registers=registers,
        ),
        _module(
            "concat_0",
            "xilinx.com:ip:xlconcat:2.1",
            {},
            ports=[
                _wire("In0", "I", "axi_dma_0", "mm2s_introut"),
                _wire("In1", "I", "axi_dma_0", "s2mm_introut"),
                _wire("In2", "I", "rowvit_0", "irq"),
                _wire("dout", "O", "axi_intc_0", "intr"),
            ],
        ),
        _module(
            "axi_intc_0",
            "xilinx.com:ip:axi_intc:4.1",
            {},
            ports=[_wire("intr", "I", "concat_0", "dout"), _wire("irq", "O", "ps_0", _irq_port(config))],
            slave="s_axi",
        ),
    ]
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8" standalone="no" ?>',
            '<EDKSYSTEM EDWVERSION="1.2" TIMESTAMP="" VIVADOVERSION="2022.2">',
            f'<SYSTEMINFO ARCH="{"zynq" if is_zynq_7000(config) else "zynquplus"}" NAME="rowvit"/>',
            "<EXTERNALPORTS/>",
            "<EXTERNALINTERFACES/>",
            f"<MODULES>{''.join(modules)}</MODULES>",
            "</EDKSYSTEM>",
        ]
    )


def _irq_port(config: HardwareConfig) -> str:
    return "IRQ_F2P" if is_zynq_7000(config) else "pl_ps_irq0"


def _processing_system(config: HardwareConfig) -> str:
    if is_zynq_7000(config):
        name, version, master = "processing_system7", "5.5", "M_AXI_GP0"
        clocks: dict[str, object] = {}
        for i in range(4):
            clocks[f"PCW_FPGA_FCLK{i}_ENABLE"] = 1
            clocks[f"PCW_FCLK{i}_PERIPHERAL_DIVISOR0"] = CLOCK_DIVISOR
            clocks[f"PCW_FCLK{i}_PERIPHERAL_DIVISOR1"] = 1
            clocks[f"PCW_FCLK{i}_PERIPHERAL_CLKSRC"] = "IO PLL"
    else:
        name, version, master = "zynq_ultra_ps_e", "3.4", "M_AXI_HPM0_FPD"
        clocks = {}
        for i in range(4):
            clocks[f"PSU__FPGA_PL{i}_ENABLE"] = 1
            clocks[f"PSU__CRL_APB__PL{i}_REF_CTRL__DIVISOR0"] = CLOCK_DIVISOR
            clocks[f"PSU__CRL_APB__PL{i}_REF_CTRL__DIVISOR1"] = 1
            clocks[f"PSU__CRL_APB__PL{i}_REF_CTRL__SRCSEL"] = "IOPLL"
            clocks[f"PSU__CRL_APB__PL{i}_REF_CTRL__ACT_FREQMHZ"] = config.clock_mhz
    memory = "".join(
        f'<MEMRANGE ADDRESSBLOCK="Reg" BASEVALUE="0x{base:08X}" HIGHVALUE="0x{base + RANGE - 1:08X}"'
        f' INSTANCE="{instance}" MASTERBUSINTERFACE="{master}" MEMTYPE="REGISTER"'
        f' SLAVEBUSINTERFACE="{slave}"/>'
        for instance, slave, base in (
            ("axi_dma_0", "S_AXI_LITE", DMA_BASE),
            ("rowvit_0", "s_axil", CORE_BASE),
            ("axi_intc_0", "s_axi", INTC_BASE),
        )
    )
    return _module(
        "ps_0",
        f"xilinx.com:ip:{name}:{version}",
        clocks,
        ports=[_wire(_irq_port(config), "I", "axi_intc_0", "irq")],
        master=master,
        memory=memory,
    )


def _module(
    name: str,
    vlnv: str,
    parameters: Mapping[str, object],
    ports: Iterable[str],
    slave: str = "",
    master: str = "",
    memory: str = "",
    registers: Iterable[tuple[str, int, str, str]] = (),
) -> str:
    buses = "".join(
        f'<BUSINTERFACE NAME="{bus}" TYPE="{kind}" VLNV="xilinx.com:interface:aximm:1.0"/>'
        for bus, kind in ((slave, "SLAVE"), (master, "MASTER"))
        if bus
    )
    block = "".join(_register(*register) for register in registers)
    if block:
        block = (
            f'<ADDRESSBLOCKS><ADDRESSBLOCK INTERFACE="{slave}" NAME="reg0" USAGE="register">'
            f"<REGISTERS>{block}</REGISTERS></ADDRESSBLOCK></ADDRESSBLOCKS>"
        )
    values = "".join(f'<PARAMETER NAME="{key}" VALUE="{value}"/>' for key, value in parameters.items())
    return (
        f'<MODULE FULLNAME="/{name}" INSTANCE="{name}" MODTYPE="{vlnv.split(":")[2]}" VLNV="{vlnv}">'
        f"{block}<PARAMETERS>{values}</PARAMETERS><PORTS>{''.join(ports)}</PORTS>"
        f"<BUSINTERFACES>{buses}</BUSINTERFACES><MEMORYMAP>{memory}</MEMORYMAP></MODULE>"
    )


def _wire(name: str, direction: str, instance: str, port: str) -> str:
    return (
        f'<PORT DIR="{direction}" NAME="{name}" SIGIS="INTERRUPT">'
        f'<CONNECTIONS><CONNECTION INSTANCE="{instance}" PORT="{port}"/></CONNECTIONS></PORT>'
    )


def _register(name: str, offset: int, access: str, text: str) -> str:
    properties = {
        "DESCRIPTION": text,
        "ADDRESS_OFFSET": f"0x{offset:X}",
        "SIZE": 32,
        "ACCESS": _ACCESS[access],
        "IS_ENABLED": "true",
    }
    inner = "".join(f'<PROPERTY NAME="{k}" VALUE={quoteattr(str(v))}/>' for k, v in properties.items())
    return f'<REGISTER NAME="{name}">{inner}</REGISTER>'
