# SPDX-License-Identifier: Apache-2.0
"""What Yosys makes of the RTL for a Zynq-7000, in primitives with DSP48E1, still computes the same.

Yosys' own merging of multipliers into DSPs has lost a sign bit in packed multiplies before; these tests
would see it.
"""

from __future__ import annotations

import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge, ReadOnly
from netlist import need, primitives, synthesise

import harness
import rowvit
from rowvit.compiler import compile
from rowvit.compiler.weights import pack_pairs
from rowvit.formats.records import Answer
from rowvit.hardware.isa import REGISTERS
from rowvit.targets.target import Result
from test_core import SMALL, packet, pruned_package
from test_requant import values  # noqa: F401  cocotb runs it in here

BASE = 0x1_0000_0000


@cocotb.test()
async def lockstep(dut):
    """Tiles of 1 to 40 products, with gaps, extreme and random operands."""
    rng = random.Random(5)
    inputs = (dut.en_i, dut.first_i, dut.last_i, dut.x_i, dut.use_b_i, dut.a_i, dut.b_i)
    for signal in inputs:
        signal.value = 0
    cocotb.start_soon(harness.Clock(dut.clk_i, 10, "ns").start())
    extremes = [-127, -1, 0, 1, 127]
    compared = ticks = 0
    for _ in range(150):
        # a shadow is written again 6 cycles after a tile's end at the earliest
        length = rng.choice([6, 8, rng.randint(6, 40)])
        low, high = rng.choice([(-128, 127), (0, 255)])
        wild = rng.random() < 0.4
        k = 0
        while k < length:
            await FallingEdge(dut.clk_i)
            go = rng.random() < 0.9
            x = rng.choice([low, high]) if wild else rng.randint(low, high)
            lines = []
            for _ in range(2):
                weights = [rng.choice(extremes) if wild else rng.randint(-127, 127) for _ in range(8)]
                lines.append(int.from_bytes(pack_pairs(np.array(weights, np.int8)).tobytes(), "little"))
            pins = (go, k == 0, k == length - 1, x & 0x1FF, rng.random() < 0.5, *lines)
            for signal, value in zip(inputs, pins, strict=True):
                signal.value = int(value)
            k += go
            await ReadOnly()
            ticks += 1
            if ticks > 100:  # every shadow was written
                assert dut.gate_o.value == dut.rtl_o.value, f"cycle {ticks}"
                assert dut.rtl_o.value.is_resolvable
                compared += 1
    assert compared > 1000


class Ports:
    """Drives rowvit_top: registers, a read-only memory, the input stream; collects the output."""

    def __init__(self, dut, memory: bytes) -> None:
        self.dut, self.memory = dut, memory
        self.output: list[int] = []
        self.last = False
        for name in ("s_axil_awvalid", "s_axil_wvalid", "s_axil_arvalid", "s_axis_tvalid", "m_axi_rvalid"):
            getattr(dut, name).value = 0
        dut.m_axi_rresp.value = 0
        dut.m_axis_tready.value = 1
        dut.m_axi_arready.value = 1
        dut.s_axil_bready.value = 1

    async def write(self, name: str, value: int) -> None:
        """Write a register."""
        dut = self.dut
        dut.s_axil_awaddr.value, dut.s_axil_wdata.value = REGISTERS[name][0], value
        dut.s_axil_wstrb.value = 15
        waiting = {dut.s_axil_awvalid: dut.s_axil_awready, dut.s_axil_wvalid: dut.s_axil_wready}
        for valid in waiting:
            valid.value = 1
        while waiting:
            await ReadOnly()
            taken = [valid for valid, ready in waiting.items() if ready.value]
            await FallingEdge(dut.aclk)
            for valid in taken:
                valid.value = 0
                del waiting[valid]
        await FallingEdge(dut.aclk)

    async def serve(self) -> None:
        """The memory: bursts in order, the first word 20 cycles after its address."""
        dut, time, beats = self.dut, 0, []
        while True:
            ready = bool(beats) and beats[0][0] <= time
            dut.m_axi_rvalid.value = int(ready)
            if ready:
                _, address, last = beats[0]
                dut.m_axi_rdata.value = int.from_bytes(self.memory[address : address + 8], "little")
                dut.m_axi_rlast.value = int(last)
            await ReadOnly()
            if dut.m_axi_arvalid.value:
                address, length = int(dut.m_axi_araddr.value) - BASE, int(dut.m_axi_arlen.value) + 1
                assert 0 <= address <= len(self.memory) - 8 * length
                beats += [(time + 20, address + 8 * i, i == length - 1) for i in range(length)]
            if ready and dut.m_axi_rready.value:
                beats.pop(0)
            if dut.m_axis_tvalid.value:
                self.output.append(int(dut.m_axis_tdata.value))
                self.last = bool(dut.m_axis_tlast.value)
            await FallingEdge(dut.aclk)
            time += 1

    async def send(self, packet: bytes) -> None:
        """One packet of the input stream."""
        dut = self.dut
        for at in range(0, len(packet), 8):
            dut.s_axis_tdata.value = int.from_bytes(packet[at : at + 8], "little")
            dut.s_axis_tlast.value = int(at + 8 == len(packet))
            dut.s_axis_tvalid.value = 1
            while True:
                await ReadOnly()
                taken = bool(dut.s_axis_tready.value)
                await FallingEdge(dut.aclk)
                if taken:
                    break
        dut.s_axis_tvalid.value = 0


@cocotb.test()
async def network(dut):
    """Run the program of the file RUN on its input and leave the output stream in the same file."""
    path = harness.parameter("RUN")
    with np.load(path) as run:
        blob, packet = run["blob"].tobytes(), run["packet"].tobytes()
    ports = Ports(dut, blob)
    dut.aresetn.value = 0
    cocotb.start_soon(harness.Clock(dut.aclk, 10, "ns").start())
    for _ in range(5):
        await FallingEdge(dut.aclk)
    dut.aresetn.value = 1
    await FallingEdge(dut.aclk)
    cocotb.start_soon(ports.serve())
    registers = dict(BASE_LO=BASE & 0xFFFFFFFF, BASE_HI=BASE >> 32, PROGRAM=0, LENGTH=len(blob), PASSES=1)
    for name, value in (registers | dict(WATCHDOG=5000, CONTROL=1)).items():
        await ports.write(name, value)
    cocotb.start_soon(ports.send(packet))
    for _ in range(30_000):
        await FallingEdge(dut.aclk)
        if ports.last:
            break
    assert ports.last, f"no end of the output after {len(ports.output)} words"
    np.savez(path, output=np.array(ports.output, np.uint64))


def test_cluster():
    """Eight lanes of multiply-accumulators, RTL and netlist in lock step."""
    need("iverilog", "yosys")
    gate = synthesise("rowvit_cluster", {"LANES": 8, "USE_DSP": 1}, "cluster_gate")
    assert gate.read_text().count("DSP48E1 #(") == 4
    source = harness.ROOT / "tests" / "gate" / "lockstep_cluster.v"
    harness.run("lockstep_cluster", testcase="lockstep", source=source, library=[gate, *primitives()])


def test_requant():
    """The requantiser, whose multiplication Yosys itself puts into a DSP48E1."""
    need("iverilog", "yosys")
    gate = synthesise("rowvit_requant", {})
    assert "DSP48E1 #(" in gate.read_text()
    harness.run("rowvit_requant", testcase="values", source=gate, library=primitives())


@pytest.mark.slow
def test_whole_top(tmp_path):
    """A network with token pruning and FFN2 skipping, from AXI to AXI."""
    need("iverilog", "yosys")
    package = pruned_package()
    images = np.random.default_rng(2).integers(0, 256, (1, 4, 4, 3), np.uint8)
    program = compile(package, SMALL, checkpoints=True)
    run = tmp_path / "run.npz"
    np.savez(run, blob=program.blob, packet=packet(images[0]))

    parameters = {name.upper(): value for name, value in SMALL.structure().items()}
    gate = synthesise("rowvit_top", {**parameters, "USE_DSP": 1, "CONFIG_HASH": f"32'h{SMALL.hash:08X}"})
    env = {"RUN": str(run)}
    harness.run("rowvit_top", testcase="network", source=gate, library=primitives(), env=env)

    with np.load(run) as done:
        (answer,) = Answer.parse(done["output"].view(np.uint8), program.meta)
    with rowvit.open("golden", config=SMALL, checkpoints=True) as golden:
        golden.load(package)
        (want,) = golden(images)
    assert len(want.kept[0]) == 3
    result = Result.of(program.meta, answer.logits, answer.kept, checkpoints=answer.checkpoints)
    assert result.same(want)
