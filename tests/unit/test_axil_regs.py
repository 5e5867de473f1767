# SPDX-License-Identifier: Apache-2.0
"""axil_regs against the register table: access, start and reset, errors, interrupts."""

from __future__ import annotations

import itertools
import random

import cocotb
from cocotb.triggers import ReadOnly
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from harness import cycles, parameter, pulse, run, start, uint
from rowvit.hardware import isa

HASH = 0xC0FFEE42
PARAMETERS = {"CONFIG_HASH": HASH, "ROWS": 2, "GROUPS": 3, "LANES": 64}


class Registers:
    """Register access by name through cocotbext-axi's AXI4-Lite master, with idle cycles."""

    def __init__(self, dut):
        self.axi = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk_i, dut.rst_ni, False)
        for i, channel in enumerate(
            (
                self.axi.write_if.aw_channel,
                self.axi.write_if.w_channel,
                self.axi.write_if.b_channel,
                self.axi.read_if.ar_channel,
                self.axi.read_if.r_channel,
            )
        ):
            rng = random.Random(i)
            channel.set_pause_generator(rng.random() < parameter("stall") for _ in itertools.count())

    async def read(self, name: str) -> int:
        return await self.axi.read_dword(isa.REGISTERS[name][0])

    async def write(self, name: str, value: int) -> None:
        await self.axi.write_dword(isa.REGISTERS[name][0], value)


async def watch(dut, seen: dict[str, int]) -> None:
    """Count the cycles of the pulses."""
    while True:
        await cycles(dut)
        await ReadOnly()
        for name in ("start_o", "reset_o"):
            seen[name] = seen.get(name, 0) + int(dut[name].value)


@cocotb.test()
async def identity_and_configuration(dut):
    """Constants read as in the table; rw registers keep what was written, byte by byte."""
    await start(dut)
    regs = Registers(dut)
    await cycles(dut, 2)
    assert await regs.read("ID") == isa.ID
    assert await regs.read("ABI") == isa.ABI_VERSION
    assert await regs.read("CONFIG_HASH") == HASH
    assert await regs.read("CAPS") == 2 | 3 << 4 | 64 << 12
    values = {
        name: random.getrandbits(32)
        for name in ("BASE_LO", "BASE_HI", "PROGRAM", "LENGTH", "WATCHDOG", "PASSES", "IRQ_ENABLE")
    }
    for name, value in values.items():
        await regs.write(name, value)
    values["PASSES"] &= 0xFFFF
    values["IRQ_ENABLE"] &= 3
    for name, value in values.items():
        assert await regs.read(name) == value, name
    await regs.axi.write(isa.REGISTERS["LENGTH"][0] + 1, b"\xa5")
    assert await regs.read("LENGTH") == values["LENGTH"] & 0xFFFF00FF | 0xA500
    await cycles(dut)
    assert uint(dut.base_o) == values["BASE_HI"] << 32 | values["BASE_LO"]
    assert uint(dut.program_o) == values["PROGRAM"]
    assert uint(dut.passes_o) == values["PASSES"]
    assert uint(dut.watchdog_o) == values["WATCHDOG"]
    for name in ("ID", "STATUS", "ERROR"):
        before = await regs.read(name)
        await regs.write(name, ~before & 0xFFFFFFFF)
        assert await regs.read(name) == before, f"{name} is read only"
    for address in (0x3C, 0x50, 0xD0, 0xFC, 0x100, 0x180, 0xFFC):
        assert await regs.axi.read_dword(address) == 0


@cocotb.test()
async def live_values(dut):
    """Progress, live count and counters read what comes in."""
    await start(dut)
    regs = Registers(dut)
    done, live, counters = (random.getrandbits(n) for n in (96, 16, 640))
    dut.done_i.value, dut.live_i.value, dut.counters_i.value = done, live, counters
    await cycles(dut, 2)
    for i in range(3):
        assert await regs.read(f"PROGRESS{i}") == done >> 32 * i & 0xFFFFFFFF
    assert await regs.read("LIVE") == live
    for i in range(len(isa.COUNTERS)):
        value = await regs.axi.read_dword(isa.COUNTER_BASE + 4 * i)
        assert value == counters >> 32 * i & 0xFFFFFFFF


@cocotb.test()
async def run_and_interrupts(dut):
    """A run of two images; interrupts; a start while busy does nothing."""
    await start(dut)
    regs = Registers(dut)
    seen: dict[str, int] = {}
    cocotb.start_soon(watch(dut, seen))
    await cycles(dut, 2)
    assert await regs.read("STATUS") == 0
    await regs.write("PASSES", 2)
    await regs.write("IRQ_ENABLE", 1)
    await regs.write("CONTROL", 1)
    await cycles(dut)
    dut.busy_i.value = 1
    assert seen == {"start_o": 1, "reset_o": 0}
    await regs.write("CONTROL", 1)
    assert seen["start_o"] == 1, "start while busy"
    names = "BASE_LO", "BASE_HI", "PROGRAM", "LENGTH", "PASSES", "WATCHDOG"
    kept = {name: await regs.read(name) for name in names}
    for name in names:
        await regs.write(name, 0x1234)
    assert kept == {name: await regs.read(name) for name in names}
    assert await regs.read("STATUS") == 1 and not dut.irq_o.value
    await pulse(dut, "pass_done_i")
    assert dut.irq_o.value
    assert await regs.read("STATUS") == 1 << 16 | 1
    await regs.write("IRQ_STATUS", 2)
    assert await regs.read("IRQ_STATUS") == 1
    await regs.write("IRQ_STATUS", 1)
    assert not dut.irq_o.value
    await pulse(dut, "pass_done_i")
    assert await regs.read("STATUS") == 2 << 16 | 1
    dut.busy_i.value = 0
    assert await regs.read("STATUS") == 2 << 16 | 2
    await regs.write("CONTROL", 1)
    await cycles(dut, 2)
    assert seen["start_o"] == 2
    assert await regs.read("STATUS") == 0, "images and done start anew"


@cocotb.test()
async def errors(dut):
    """The first error stays, blocks a start, and goes with a core reset."""
    await start(dut)
    regs = Registers(dut)
    seen: dict[str, int] = {}
    cocotb.start_soon(watch(dut, seen))
    await cycles(dut, 2)
    await regs.write("PASSES", 1)
    await regs.write("IRQ_ENABLE", 2)
    for code, info in ((isa.Error.STREAM_SHORT, 0x123456), (isa.Error.WATCHDOG, 7)):
        dut.error_code_i.value, dut.error_info_i.value = int(code), info
        await pulse(dut, "error_valid_i")
    assert dut.irq_o.value
    assert await regs.read("ERROR") == 0x123456 << 8 | isa.Error.STREAM_SHORT
    assert await regs.read("STATUS") == 4
    await regs.write("CONTROL", 1)
    assert seen["start_o"] == 0
    await regs.write("CONTROL", 2)
    await cycles(dut, 2)
    assert seen == {"start_o": 0, "reset_o": 1} and not dut.irq_o.value
    assert await regs.read("ERROR") == 0 and await regs.read("STATUS") == 0
    assert await regs.read("PASSES") == 1, "a core reset keeps the configuration"
    await regs.write("CONTROL", 1)
    await cycles(dut, 2)
    assert seen["start_o"] == 1


@cocotb.test()
async def silent_in_reset(dut):
    """Neither VALID nor READY in reset; a master that is out of it earlier is served afterwards."""
    await start(dut, s_axil_arvalid=1, s_axil_araddr=isa.REGISTERS["ID"][0])
    dut.s_axil_awvalid.value = dut.s_axil_wvalid.value = dut.s_axil_wstrb.value = 0
    dut.s_axil_bready.value = dut.s_axil_rready.value = 0
    await cycles(dut, 2)
    dut.rst_ni.value = 0
    dut.s_axil_awvalid.value = dut.s_axil_wvalid.value = 1
    for _ in range(4):
        await cycles(dut)
        for name in ("arready", "awready", "wready", "bvalid", "rvalid"):
            assert dut[f"s_axil_{name}"].value == 0, name
    dut.rst_ni.value = 1
    dut.s_axil_awvalid.value = dut.s_axil_wvalid.value = 0
    await cycles(dut, 3)
    assert dut.s_axil_rvalid.value == 1 and uint(dut.s_axil_rdata) == isa.ID


def test_axil_regs():
    for stall in (0.0, 0.5):
        run("rowvit_axil_regs", PARAMETERS, env={"stall": stall})
