# SPDX-License-Identifier: Apache-2.0
"""The core without its AXI boundary runs whole networks in four states: results, resets, starts and errors.

Its clients of the memory are models, and every word that it sends is defined.
"""

from __future__ import annotations

import random
from collections import Counter

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

import rowvit
from harness import STALLS, Reader, collect, cycles, drive, pulse, reset, run, start, uint, wait_for
from rowvit.compiler import compile
from rowvit.formats.package import ModelPackage
from rowvit.formats.records import Answer
from rowvit.hardware.buses import EVENT
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import COUNTERS, Error, Op
from rowvit.quant.synthetic import random_package
from rowvit.reference import patchify
from rowvit.targets.target import Result

BASE = 0x7_0000_0000
IMAGES = np.random.default_rng(2).integers(0, 256, (3, 4, 4, 3), np.uint8)
#: counters that say the same however memory and streams stall
EXACT = ("fires", "pv_nonzeros", "ffn2_nonzeros", "w2_fetched", "w2_rows", "recv_words", "send_words")


#: An array with memories for little more than the network below, that simulation in gates stays short. The
#: token memory is in LUT RAM there: as a 72 bit wide RAMB36E1 Yosys connects half of its ninth bits wrongly
#: (until its pull request 5833 of April 2026).
SMALL = HardwareConfig(
    name="small",
    board="none",
    clock_mhz=100.0,
    rows=2,
    groups=1,
    lanes=16,
    weight_depth=512,
    token_depth=64,
    residual_depth=192,
    max_tokens=16,
    max_dim=32,
    param_slots=2,
    norm_slots=2,
    mask_depth=16,
    port_bits=64,
    rotary_tokens=16,
)
#: counters of cycles that are named like the bit of `EVENT` that is high in them
CYCLES = (
    *("exec_fire", "wait_data", "wait_drain", "wait_steal", "drain_busy", "load_busy", "load_wait"),
    *("norm_busy", "softmax_busy", "select_busy"),
)


def pruned_package() -> ModelPackage:
    """A network with rotary positions, token pruning and FFN2 skipping, with gates."""
    return random_package(
        np.random.default_rng(1),
        dim=32,
        depth=1,
        heads=2,
        image_size=4,
        patch_size=2,
        hidden=32,
        classes=5,
        pruning=[{"layer": 0, "keep": 2, "threshold": 0}],
        rotary=True,
        gated=True,
    )


def packet(image: np.ndarray) -> np.ndarray:
    """The network's input of one image: uint64 [words]."""
    patches = patchify(image[None], 2)[0].view(np.uint8)
    return np.pad(patches, ((0, 0), (0, -patches.shape[1] % 8))).reshape(-1).view(np.uint64)


class Core:
    """A program in memory, images at the input, and the words of the output."""

    def __init__(self, dut) -> None:
        self.dut = dut
        package = pruned_package()
        self.program = compile(package, SMALL, checkpoints=True)
        with rowvit.open("golden", config=SMALL, checkpoints=True) as golden:
            golden.load(package)
            self.expected = golden(IMAGES)
        self.tasks: list = []
        self.packets: list[list[int]] = [[]]
        self.errors: list[tuple[int, int]] = []
        self.seen: Counter[str] = Counter()  #: what counters of cycles should say

    async def start(
        self, images: int, sink_stall: float = 0.0, memory: float = 0.0, blob: bytes = b"", cut: int = 0
    ) -> None:
        """Start ``images`` passes, of the program or of ``blob``, without its last ``cut`` bytes."""
        dut, blob = self.dut, blob or self.program.blob.tobytes()
        for task in self.tasks:
            task.cancel()
        dut.s_axis_tvalid.value = 0
        dut.base_i.value, dut.length_i.value = BASE, len(blob) - cut
        dut.program_i.value, dut.passes_i.value = self.program.pass_for(1).offset, images
        dut.watchdog_i.value = 2000
        self.readers = [
            Reader(dut, blob, BASE, latency, memory, port, "reader_clear_o")
            for port, latency in (("0", 12), ("1", 20))
        ]
        self.packets, self.errors, self.seen = [[]], [], Counter()
        names = dict(valid="m_axis_tvalid", ready="m_axis_tready", data=("m_axis_tdata", "m_axis_tlast"))
        output = collect(dut, self._sink, sink_stall, **names)
        work = *(reader.run() for reader in self.readers), self._beats(), self._watch(), output
        self.tasks = [cocotb.start_soon(task) for task in work]
        await pulse(dut, "start_i")

    def send(self, *images: int, stall: float = 0.0, words: int | None = None) -> None:
        """Queue packets at the input, or one packet of the first ``words`` words of them."""
        items = []
        for image in images:
            row = packet(IMAGES[image])
            items += [
                {"s_axis_tdata": int(w), "s_axis_tlast": int(i + 1 == row.size)} for i, w in enumerate(row)
            ]
        if words is not None:
            items = [item | {"s_axis_tlast": int(i + 1 == words)} for i, item in enumerate(items[:words])]
        names = {"valid": "s_axis_tvalid", "ready": "s_axis_tready"}
        self.tasks.append(cocotb.start_soon(drive(self.dut, items, stall, **names)))

    async def _beats(self) -> None:
        """What the reader says of its beats: a word of a client each."""
        dut = self.dut
        ports = [(getattr(dut, f"rsp{i}_valid_i"), getattr(dut, f"rsp{i}_ready_o")) for i in (0, 1)]
        while True:
            await ReadOnly()
            beat = any(uint(valid) and uint(ready) for valid, ready in ports)
            await FallingEdge(dut.clk_i)
            dut.reader_beat_i.value = int(beat)

    def _sink(self, item: tuple[int, int]) -> None:
        """A word of the output, all of whose bits are defined, and TLAST."""
        word, last = item
        self.packets[-1].append(word)
        if last:
            self.packets.append([])

    async def _watch(self) -> None:
        """Note errors, and count cycles."""
        dut = self.dut
        while True:
            await ReadOnly()
            if uint(dut.run):
                happens = EVENT.unpack(uint(dut.happens))
                self.seen["exec_busy"] += uint(dut.u_array.exec_busy) or happens["drain_busy"]
                for name in CYCLES:
                    self.seen[name] += happens[name]
            if uint(dut.error_valid_o):
                self.errors.append((uint(dut.error_code_o), uint(dut.error_info_o)))
            await FallingEdge(dut.clk_i)

    async def idle(self) -> None:
        """Until the core is not busy: the run is over, or stopped by an error."""
        await wait_for(self.dut, lambda: not uint(self.dut.busy_o))

    def counters(self) -> dict[str, int]:
        value = uint(self.dut.counters_o)
        return {name: value >> 32 * i & 0xFFFFFFFF for i, (name, _) in enumerate(COUNTERS)}

    def check(self, *images: int) -> None:
        """The packets are the reference's answers to the images of these numbers, and there was no error."""
        assert not self.errors
        assert len(self.packets) == len(images) + 1 and not self.packets[-1]
        meta = self.program.meta
        for words, image in zip(self.packets, images, strict=False):
            (answer,) = Answer.parse(np.array(words, np.uint64).view(np.uint8), meta)
            result = Result.of(meta, answer.logits, answer.kept, checkpoints=answer.checkpoints)
            assert result.same(self.expected[image])


async def power_on(dut) -> Core:
    """After the reset everything that the core says is defined, and nothing goes on."""
    await start(dut, s_axis_tvalid=0, s_axis_tdata=0, s_axis_tlast=0, m_axis_tready=0)
    await cycles(dut, 3)
    core = Core(dut)
    assert not any(core.counters().values())
    assert not uint(dut.busy_o) and not uint(dut.m_axis_tvalid)
    return core


@cocotb.test()
async def networks(dut):
    """Two images of one start, without and with stalls of memory and streams."""
    core = await power_on(dut)
    counted = []
    for source_stall, sink_stall in (STALLS[0], STALLS[-1]):
        await core.start(2, sink_stall, memory=source_stall)
        core.send(0, 1, stall=source_stall)
        await core.idle()
        core.check(0, 1)
        counted.append(core.counters())
        assert {name: counted[-1][name] for name in core.seen} == core.seen
        assert counted[-1]["send_words"] == sum(map(len, core.packets))
    for name in EXACT:
        assert len({counters[name] for counters in counted}) == 1, name
        assert counted[0][name] > 0, name


@cocotb.test()
async def resets(dut):
    """At any time: nothing is counted or sent behind it, and the next run is as after power-on."""
    core = await power_on(dut)
    await core.start(1)
    core.send(0)
    await core.idle()
    core.check(0)
    first = core.counters()
    for number, wait in enumerate([1, 50, random.randrange(first["cycles"])]):
        await core.start(2)
        core.send(1, 2)
        await cycles(dut, wait)
        if number % 3:
            await pulse(dut, "reset_i")
        else:
            await reset(dut)
        await cycles(dut, 2)  # it goes through a register
        packets = len(core.packets), len(core.packets[-1])
        for _ in range(40):
            await cycles(dut)
            assert not any(core.counters().values())
            assert not uint(dut.busy_o) and not uint(dut.m_axis_tvalid)
        assert packets == (len(core.packets), len(core.packets[-1]))
        await core.start(1)
        core.send(0)
        await core.idle()
        core.check(0)
        again = core.counters()
        assert {name: again[name] for name in EXACT} == {name: first[name] for name in EXACT}


@cocotb.test()
async def errors(dut):
    """Each of the core's errors stops it, with its code and the instruction; the next run is right."""
    core = await power_on(dut)
    code = core.program.pass_for(1)
    damaged = bytearray(core.program.blob.tobytes())
    damaged[code.offset + 64 * 7] |= 0xF  # opcode
    for error, op in {
        Error.BAD_OPCODE: None,
        Error.ADDRESS_RANGE: Op.LOAD,
        Error.STREAM_SHORT: Op.RECV,
        Error.STREAM_LONG: Op.RECV,
        Error.AXI_READ: None,
        Error.WATCHDOG: None,
    }.items():
        blob = bytes(damaged) if error is Error.BAD_OPCODE else b""
        await core.start(1, blob=blob, cut=64 if error is Error.ADDRESS_RANGE else 0)
        core.send(0, 1, words={Error.STREAM_SHORT: 7, Error.STREAM_LONG: 100}.get(error))
        await cycles(dut, 200)
        if error is Error.AXI_READ:
            await pulse(dut, "reader_error_i")
        if error is Error.WATCHDOG:
            for reader in core.readers:
                reader.stall = 1.0
        await core.idle()
        ((found, info),) = core.errors
        assert found == error
        if op:
            assert code.instructions[info].op is op
        else:
            assert info == (7 if error is Error.BAD_OPCODE else 0)
        await pulse(dut, "reset_i")
        await core.start(1)
        core.send(2)
        await core.idle()
        core.check(2)


@pytest.mark.parametrize("testcase", ["networks", "resets", "errors"])
def test_core(testcase):
    structure = {name.upper(): value for name, value in SMALL.structure().items()}
    run("rowvit_core", {**structure, "CONFIG_HASH": SMALL.hash}, testcase=testcase)
