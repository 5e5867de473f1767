# SPDX-License-Identifier: Apache-2.0
"""dispatch: queues, absolute dependencies over several passes, void instructions, prefetch, errors, clear."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import cocotb
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

from harness import STALLS, Reader, collect, cycles, pulse, run, start, uint, wait_for
from rowvit.hardware import isa
from rowvit.hardware.isa import Engine, Flag, Op

HASH = 0x89ABCDEF
BASE = 0x7_0000_0000
PROGRAM = 0x1240
QUEUES = (Op.LOAD, Op.MATMUL, Op.NORM, Op.SELECT, Op.RECV)
#: slots each queue keeps, from the instruction table
SLOTS = [isa.queue_slots(isa.QUEUE[op]) for op in QUEUES]
#: dependency slot -> queue whose instructions the engine counts
QUEUE_OF = {Engine.LOAD: 0, Engine.EXEC: 1, Engine.DRAIN: 1, Engine.NORM: 2, Engine.SELECT: 3, Engine.RECV: 4}


def queue_of(op: int) -> int:
    return QUEUES.index(Op.MATMUL if op == Op.ATTN else op)


def header(config_hash: int = HASH, abi: int = isa.ABI_VERSION, finish: int = 0) -> list[int]:
    slots = [0] * 32
    slots[12] = finish
    slots[0] = Op.HEADER
    slots[9], slots[10], slots[11] = config_hash & 0xFFFF, config_hash >> 16, abi
    return slots


def new_program(n: int) -> list[list[int]]:
    """A header, n random instructions and END."""
    body = []
    for _ in range(n):
        slots = [random.getrandbits(16) for _ in range(32)]
        slots[0] = random.choice((*QUEUES, Op.ATTN)) | random.getrandbits(12) << 4
        slots[1] &= ~(1 << Flag.VOID)
        for engine in Engine:
            slots[3 + engine] = random.choice((isa.NO_DEP, -3, 0, 1, random.randrange(500))) & 0xFFFF
        body.append(slots)
    found = [index for index, slots in enumerate(body, 1) if slots[1] >> Flag.PREVIOUS & 1]
    return [header(finish=max(found, default=0)), *body, [int(Op.END), *[0] * 31]]


def expected(program: list[list[int]], passes: int) -> list[list[int]]:
    """Per queue: the instructions, dependencies absolute, void or not, cut to the slots the engine has."""
    queues: list[list[int]] = [[] for _ in QUEUES]
    for turn in range(passes + 1):
        base = [len(queue) for queue in queues]
        end = len(program) - 1 if turn < passes else program[0][12] + 1
        for index, slots in enumerate(program[1:end], 1):
            slots = list(slots)
            q = queue_of(slots[0] & 0xF)
            previous = slots[1] >> Flag.PREVIOUS & 1
            slots[1] |= (previous if turn == 0 else turn == passes and not previous) << Flag.VOID
            for engine in Engine:
                dep = slots[3 + engine]
                dep = -0x4000 if dep == 0x8000 else dep - (dep >> 15 << 16)
                slots[3 + engine] = base[QUEUE_OF[engine]] + dep & 0xFFFF
            slots[SLOTS[q] :] = [0] * (32 - SLOTS[q])
            slots[31] = index
            queues[q].append(sum(slot << 16 * i for i, slot in enumerate(slots)))
    return queues


@dataclass
class Run:
    """Starts a program and keeps what comes out of the queues."""

    dut: object
    program: list[list[int]]
    stall: float = 0.0
    sink_stall: float = 0.0
    latency: int = 20
    after: int = 1000  #: bytes behind the program
    got: list[list[int]] = field(default_factory=lambda: [[] for _ in QUEUES])

    async def start(self, passes: int, queues: tuple[int, ...] = (0, 1, 2, 3, 4)) -> None:
        code = b"".join(slot.to_bytes(2, "little") for slots in self.program for slot in slots)
        blob = random.randbytes(PROGRAM) + code + random.randbytes(self.after)
        self.reader = Reader(self.dut, blob, BASE, self.latency, self.stall)
        self.tasks = [cocotb.start_soon(self.reader.run())]
        for q in queues:
            sink = collect(self.dut, self.got[q].append, self.sink_stall, f"q{q}", data="{}_instr_o")
            self.tasks.append(cocotb.start_soon(sink))
        self.dut.base_i.value, self.dut.program_i.value = BASE, PROGRAM
        self.dut.length_i.value, self.dut.passes_i.value = len(blob), passes
        await pulse(self.dut, "start_i", "clear_i")

    async def error(self) -> tuple[int, int]:
        """Wait for the error pulse; return its code and info."""
        for _ in range(5000):
            await ReadOnly()
            if self.dut.error_valid_o.value:
                result = uint(self.dut.error_code_o), uint(self.dut.error_info_o)
                await FallingEdge(self.dut.clk_i)
                return result
            await FallingEdge(self.dut.clk_i)
        raise AssertionError("no error")

    async def stop(self) -> None:
        """Clear, and take the model away."""
        for task in self.tasks:
            task.cancel()
        self.dut.rsp_valid_i.value = self.dut.req_ready_i.value = 0
        for q in range(5):
            getattr(self.dut, f"q{q}_ready_i").value = 0
        await pulse(self.dut, "clear_i")


@cocotb.test()
async def distributes(dut):
    """Every instruction reaches its queue once per pass, in order, with absolute dependencies."""
    await start(dut)
    for source, sink in STALLS:
        for passes, n in ((1, 0), (1, 1), (3, 40), (2, 150)):
            program = new_program(n)
            job = Run(dut, program, source, sink, after=random.choice((0, 8, 64, 1000)))
            await job.start(passes)
            await wait_for(dut, lambda: not dut.busy_o.value)
            await cycles(dut, 200)
            assert job.got == expected(program, passes)
            await job.stop()


@cocotb.test()
async def runs_ahead(dut):
    """One instruction per 10 cycles; a full queue holds the rest back, and fetching stops soon after."""
    await start(dut)
    program = [header(), *[[int(Op.NORM), *[0] * 31] for _ in range(100)], [int(Op.END), *[0] * 31]]
    job = Run(dut, program, latency=40, after=0)
    await job.start(1)
    assert await wait_for(dut, lambda: not dut.busy_o.value) < 10 * len(program) + 80
    await job.stop()
    job = Run(dut, program)
    await job.start(1, queues=())
    await cycles(dut, 1000)
    assert len(job.reader.requests) == 1 + 17 + 1 + 7, "header, queue and its head, assembled, in flight"
    await job.stop()


@cocotb.test()
async def runs_into_the_next_image(dut):
    """The next image's first instructions are queued while the last image's still wait."""
    await start(dut)
    program = new_program(5)
    job = Run(dut, program)
    await job.start(2, queues=())
    await wait_for(dut, lambda: not dut.busy_o.value)
    await job.stop()


@cocotb.test()
async def refuses(dut):
    """Wrong hash, ABI and opcodes, and a program without END; afterwards a good one runs."""
    await start(dut)
    good = new_program(6)
    unknown = [[op, *[0] * 31] for op in (0, Op.HEADER, 9, 255)]  # 15 with an image and a tag
    cases = [
        ([header(HASH ^ 1 << 31), *good[1:]], isa.Error.BAD_HASH, 0, 0),
        ([header(HASH ^ 1), *good[1:]], isa.Error.BAD_HASH, 0, 0),
        ([header(abi=isa.ABI_VERSION + 1), *good[1:]], isa.Error.BAD_HASH, 0, 0),
        ([*good[1:]], isa.Error.BAD_HASH, 0, 0),
        (good[:-1], isa.Error.ADDRESS_RANGE, 7, 6),
        ([], isa.Error.ADDRESS_RANGE, 0, 0),
        *(([*good[:4], bad, *good[4:]], isa.Error.BAD_OPCODE, 4, 3) for bad in unknown),
    ]
    for program, code, index, dispatched in cases:
        job = Run(dut, program, 0.2, 0.2, after=0)
        await job.start(1)
        assert await job.error() == (code, index)
        await cycles(dut, 100)
        assert sum(map(len, job.got)) == dispatched and dut.busy_o.value
        await job.stop()
        assert not dut.busy_o.value
        job = Run(dut, good)
        await job.start(1)
        await wait_for(dut, lambda: not dut.busy_o.value)
        await cycles(dut, 20)
        assert job.got == expected(good, 1)
        await job.stop()


@cocotb.test()
async def no_passes_and_clear(dut):
    """Zero passes: nothing happens. Clear at any time, then a whole run."""
    await start(dut)
    program = new_program(30)
    job = Run(dut, program)
    await job.start(0)
    await cycles(dut, 50)
    assert not dut.busy_o.value and not job.reader.requests
    await job.stop()
    for _ in range(15):
        job = Run(dut, program, 0.1, 0.98)
        await job.start(2)
        await cycles(dut, random.randrange(400))
        await job.stop()
    job = Run(dut, program)
    await job.start(2)
    await wait_for(dut, lambda: not dut.busy_o.value)
    await cycles(dut, 20)
    assert job.got == expected(program, 2)


@pytest.mark.parametrize(
    ("sim", "port"),
    [("verilator", 64), ("icarus", 128), pytest.param("icarus", 64, marks=pytest.mark.slow)],
)
def test_dispatch(sim, port):
    run("rowvit_dispatch", {"CONFIG_HASH": HASH, "PORT_BITS": port}, sim)
