# SPDX-License-Identifier: Apache-2.0
"""load_engine: every kind of load in every memory, gathers, dependencies, rate, range errors, reset."""

from __future__ import annotations

import random
from dataclasses import dataclass

import cocotb
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

from harness import STALLS, Reader, cycles, drive, parameter, reset, run, start, uint, wait_for
from rowvit.hardware import isa
from rowvit.hardware.buses import ROTATION
from rowvit.hardware.isa import Engine, LoadKind

BASE = 0x3_0000_0000
BLOB = 1 << 17
FIELDS = isa.FIELDS[isa.Op.LOAD]
EXEC = Engine.EXEC


@dataclass
class Load:
    """One LOAD; ``dep`` is the number of EXEC operations it waits for."""

    kind: LoadKind
    address: int
    dst: int = 0
    rows: int = 1
    groups: int = 1
    gather: bool = False
    rest: bool = False
    mask_base: int = 0
    mask_had: int = 0
    band0: int = 0
    dep: int = -0x4000
    chain: int = 0
    index: int = 0
    void: bool = False

    def encode(self) -> int:
        word = isa.Op.LOAD | self.chain << 32 | self.index << 496
        word |= self.gather << 16 + isa.Flag.GATHER | self.rest << 16 + isa.Flag.REST
        word |= self.void << 16 + isa.Flag.VOID
        for engine in Engine:
            word |= ((self.dep if engine == EXEC else -0x4000) & 0xFFFF) << 16 * (3 + engine)
        for name, place in FIELDS.items():
            word |= int(getattr(self, name)) << 16 * place.slot
        return word

    def size(self) -> int:
        """Bytes it spans in the blob, from the layouts."""
        lanes = parameter("LANES")
        return {
            LoadKind.WEIGHT: self.rows * self.groups * lanes,
            LoadKind.PARAM: self.groups * lanes * 8,
            LoadKind.NORM: self.rows * 8,
            LoadKind.RESIDUAL: self.rows * 2 * max(4, parameter("ROWS") * parameter("GROUPS")),
            LoadKind.ROTATION: self.rows * 8,
            LoadKind.PLACE: self.rows * 8,
        }[self.kind]

    def rows_fetched(self, masks: dict[int, int], live: int) -> list[int]:
        """Rows of a WEIGHT load that are fetched."""
        if self.void:
            return []
        if not self.gather:
            return list(range(self.rows))
        if self.band0 * parameter("ROWS") >= live:
            return []
        lanes = parameter("LANES")

        def bit(base: int, j: int) -> bool:
            return bool(masks[base + j // lanes] >> j % lanes & 1)

        return [
            j
            for j in range(self.rows)
            if bit(self.mask_base, j) and not (self.rest and bit(self.mask_had, j))
        ]

    def writes(self, blob: bytes, masks: dict[int, int], live: int) -> list[tuple]:
        """What it writes, in order."""
        lanes, groups = parameter("LANES"), parameter("GROUPS")
        if self.void:
            return []

        def number(at: int, n: int) -> int:
            return int.from_bytes(blob[self.address + at : self.address + at + n], "little")

        if self.kind == LoadKind.WEIGHT:
            return [
                ("weight", g, self.dst + j, number((j * self.groups + g) * lanes, lanes))
                for j in self.rows_fetched(masks, live)
                for g in range(self.groups)
            ]
        if self.kind == LoadKind.PARAM:
            return [
                ("param", g, self.dst, lane, number(8 * (g * lanes + lane), 6))
                for g in range(self.groups)
                for lane in range(lanes)
            ]
        if self.kind == LoadKind.NORM:
            return [
                (
                    "norm",
                    ch // lanes % groups,
                    self.dst,
                    ch // (lanes * groups) * lanes + ch % lanes,
                    number(8 * ch, 6),
                )
                for ch in range(self.rows)
            ]
        if self.kind in (LoadKind.ROTATION, LoadKind.PLACE):
            place = int(self.kind == LoadKind.PLACE)
            return [("rotary", place, self.dst + row, number(8 * row, 4)) for row in range(self.rows)]
        step = self.size() // self.rows if self.rows else 0
        return [
            ("residual", self.dst + a, number(a * step, 2 * parameter("ROWS") * groups))
            for a in range(self.rows)
        ]


class Bench:
    """Blob, mask memory and the sinks; ``seen`` holds the writes in order."""

    def __init__(self, dut, live: int = 100, stall: float = 0.0, sink_stall: float = 0.0, latency: int = 20):
        self.dut, self.live, self.sink_stall = dut, live, sink_stall
        self.blob = random.randbytes(BLOB)
        self.masks: dict[int, int] = {}
        self.reader = Reader(dut, self.blob, BASE, latency, stall)
        self.seen: list[tuple] = []
        self.fetched = self.rows = self.errors = self.waited = 0
        self.on_write = lambda write: None
        dut.base_i.value, dut.length_i.value, dut.live_i.value = BASE, BLOB, live
        models = self.reader.run(), self.mask_memory(), self.sinks()
        self.tasks = [cocotb.start_soon(model) for model in models]

    async def mask_memory(self) -> None:
        while True:
            await ReadOnly()
            asked = self.dut.mask_read_o.value.is_resolvable and bool(self.dut.mask_read_o.value)
            address = uint(self.dut.mask_addr_o) if asked else None
            await FallingEdge(self.dut.clk_i)
            if asked:
                garbage = random.getrandbits(parameter("LANES"))
                self.dut.mask_data_i.value = self.masks.get(address, garbage)

    async def sinks(self) -> None:
        dut = self.dut
        while True:
            ready = random.random() >= self.sink_stall
            dut.ww_ready_i.value = dut.rw_ready_i.value = int(ready)
            await ReadOnly()
            ports = {
                "weight": (dut.ww_valid_o, dut.ww_group_o, dut.ww_line_o, dut.ww_data_o),
                "param": (dut.pw_valid_o, dut.pw_group_o, dut.pw_slot_o, dut.pw_lane_o, dut.pw_data_o),
                "norm": (dut.nw_valid_o, dut.nw_group_o, dut.nw_slot_o, dut.nw_index_o, dut.nw_data_o),
                "residual": (dut.rw_valid_o, dut.rw_addr_o, dut.rw_data_o),
            }
            rotary = ROTATION.unpack(uint(dut.ro_o)) if dut.ro_valid_o.value else {}
            new = [
                (name, *map(uint, payload))
                for name, (valid, *payload) in ports.items()
                if valid.value and (ready or name not in ("weight", "residual"))
            ]
            new += [("rotary", *rotary.values())] if rotary else []
            assert len(new) < 2
            for write in new:
                self.on_write(write)
                self.seen.append(write)
            self.fetched += uint(dut.w2_fetched_o)
            self.rows += uint(dut.w2_rows_o)
            self.waited += int(dut.wait_o.value)
            self.errors += int(dut.error_valid_o.value)
            await FallingEdge(dut.clk_i)

    def issue(self, loads: list[Load]):
        """Queue the loads without waiting for them."""
        items = [load.encode() for load in loads]
        return cocotb.start_soon(drive(self.dut, items, 0.0, "instr", data="{}_i"))

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.dut.rsp_valid_i.value = self.dut.req_ready_i.value = self.dut.instr_valid_i.value = 0
        await reset(self.dut)


def new_load(masks: dict[int, int], live: int, kind: LoadKind | None = None) -> Load:
    """A random load anywhere in the blob; gathers get mask words of their own."""
    lanes, groups, rows = parameter("LANES"), parameter("GROUPS"), parameter("ROWS")
    kind = random.choice(list(LoadKind)) if kind is None else kind
    load = Load(kind, 0, dst=random.randrange(4), groups=random.randint(1, groups))
    load.rows = random.choice((0, 1, 2, 3, random.randint(1, 3 * lanes)))
    if kind not in (LoadKind.PARAM, LoadKind.NORM):
        load.dst = random.randrange(1000)
    if kind == LoadKind.WEIGHT:
        load.gather = random.random() < 0.6
        load.mask_base = len(masks)
        load.band0 = random.choice((0, live // rows, -(-live // rows), live))
        if load.gather:
            load.rows = random.randint(0, 4 * lanes)
            density = random.choice((0.0, 0.03, 0.3, 1.0))
            load.rest = random.random() < 0.5
            words = load.rows // lanes + 1
            load.mask_had = load.mask_base + words
            for w in range(load.mask_base, load.mask_base + 2 * words):
                masks[w] = sum((random.random() < density) << i for i in range(lanes))
    word = parameter("PORT_BITS", 64) // 8
    while (kind == LoadKind.RESIDUAL and load.rows % 2) or load.size() % word:
        load.rows += 1
    load.address = word * random.randint(0, (BLOB - load.size()) // word)
    load.void = random.random() < 0.1
    return load


@cocotb.test()
async def fills_memories(dut):
    """Loads of all kinds back to back, under all stalls; done counts whole operations; W2 counters."""
    await start(dut)
    for source, sink in STALLS:
        bench = Bench(dut, random.choice((1, 7, 50)), source, sink)
        loads = [new_load(bench.masks, bench.live) for _ in range(30)]
        loads += [new_load(bench.masks, bench.live, kind) for kind in LoadKind for _ in range(2)]
        writes = [load.writes(bench.blob, bench.masks, bench.live) for load in loads]
        ends = [sum(map(len, writes[: i + 1])) for i in range(len(loads))]

        def in_time(write, bench=bench, ends=ends):
            done = uint(dut.done_o)
            assert all(end <= len(bench.seen) for end in ends[:done]), "done before the last write"

        bench.on_write = in_time
        bench.issue(loads)
        await wait_for(dut, lambda: uint(dut.done_o) == len(loads))  # noqa: B023
        await cycles(dut, 20)
        assert bench.seen == [write for group in writes for write in group]
        counted = [
            load
            for load in loads
            if load.gather and not load.void and load.band0 * parameter("ROWS") < bench.live
        ]
        fetched = sum(len(load.rows_fetched(bench.masks, bench.live)) for load in counted)
        assert (bench.fetched, bench.rows) == (fetched, sum(load.rows for load in counted if not load.rest))
        assert not dut.busy_o.value and bench.errors == 0
        await bench.stop()


@cocotb.test()
async def waits_for_dependencies(dut):
    """No write, and no mask read that counts, before the dependency; plain data is fetched ahead."""
    await start(dut)
    for sink in (0.0, 0.3):
        bench = Bench(dut, sink_stall=sink)
        masks: dict[int, int] = {}
        loads = [new_load(masks, bench.live) for _ in range(25)]
        for i, load in enumerate(loads):
            load.dep, load.band0 = i + 1, 0
        plain = Load(LoadKind.WEIGHT, 0, rows=2, dep=1)
        loads.insert(0, plain)
        writes = [load.writes(bench.blob, masks, bench.live) for load in loads]
        owner = [i for i, group in enumerate(writes) for _ in group]
        state = {"exec": 0}

        def allowed(write, bench=bench, owner=owner, state=state, loads=loads):
            assert loads[owner[len(bench.seen)]].dep <= state["exec"]

        bench.on_write = allowed
        bench.issue(loads)
        await cycles(dut, 60)
        assert bench.reader.requests[0] == (0, plain.size()), "plain loads are read ahead"
        for executed in range(1, len(loads)):
            # The masks of the loads that become ready appear together with the progress.
            for load in loads:
                if load.gather and load.dep == executed:
                    words = range(load.mask_base, load.mask_had + load.rows // parameter("LANES") + 1)
                    bench.masks.update((w, masks[w]) for w in words)
            state["exec"] = executed
            dut.done_i.value = executed << 16 * EXEC
            await cycles(dut, random.choice((1, 5, 300)))
        await wait_for(dut, lambda: uint(dut.done_o) == len(loads))  # noqa: B023
        assert bench.seen == [write for group in writes for write in group]
        assert bench.waited > 50
        dut.done_i.value = 0
        await bench.stop()


@cocotb.test()
async def chain_and_wrap(dut):
    """A chained load goes when the operation before has finished a band; counts wrap at 16 bits."""
    await start(dut)
    bench = Bench(dut)
    dut.done_i.value = 0xFFFF << 16 * EXEC
    bench.issue([Load(LoadKind.WEIGHT, 0, rows=2, dep=0x10000, chain=1 << EXEC)])
    await cycles(dut, 80)
    assert not bench.seen
    dut.bands_i.value = 1 << 16 * EXEC
    await wait_for(dut, lambda: uint(dut.done_o) == 1, 80)
    assert len(bench.seen) == 2


@cocotb.test()
async def full_rate(dut):
    """40 cycles of latency: dense loads take a cycle per word, gathers few more."""
    await start(dut)
    lanes, groups = parameter("LANES"), parameter("GROUPS")
    bench = Bench(dut, latency=40)
    dense = [
        Load(LoadKind.WEIGHT, 0, rows=lanes, groups=groups),
        Load(LoadKind.PARAM, 64, groups=groups),
        Load(LoadKind.WEIGHT, 16, rows=5, groups=1),
        Load(LoadKind.NORM, 0, rows=3 * lanes),
        Load(LoadKind.RESIDUAL, 0, rows=72),
        Load(LoadKind.ROTATION, 0, rows=64),
    ] * 3
    word = parameter("PORT_BITS", 64) // 8
    words = sum(load.size() // (word if load.kind == LoadKind.WEIGHT else 8) for load in dense)
    bench.issue(dense)
    taken = await wait_for(dut, lambda: uint(dut.done_o) == len(dense))
    assert taken <= words + 60, f"{words} words took {taken} cycles"
    for w in range(8):
        bench.masks[w] = sum((random.random() < 0.25) << i for i in range(lanes))
    gather = {"rows": 4 * lanes, "groups": groups, "gather": True}
    gathers = [Load(LoadKind.WEIGHT, 0, mask_base=word, **gather) for word in (0, 4)]
    words = sum(len(load.rows_fetched(bench.masks, bench.live)) for load in gathers) * groups * lanes // word
    bench.issue(gathers)
    taken = await wait_for(dut, lambda: uint(dut.done_o) == len(dense) + 2)
    assert taken <= words + 60 + (0 if groups * lanes > 64 else 50), f"{words} words took {taken} cycles"


@cocotb.test()
async def refuses_what_lies_beyond_the_blob(dut):
    """Up to the last byte is fine, a word more is not; a reset at any time gets it going again."""
    await start(dut)
    for kind in LoadKind:
        for beyond in (0, parameter("PORT_BITS", 64) // 8, 1 << 20):
            bench = Bench(dut)
            load = Load(kind, 0, rows=16, groups=1, index=777)
            load.address = BLOB - load.size() + beyond
            bench.issue([load])
            if not beyond:
                await wait_for(dut, lambda: uint(dut.done_o) == 1)
            else:
                await cycles(dut, 100)
                assert bench.errors == 1 and not bench.seen and not bench.reader.requests
                assert uint(dut.error_code_o) == isa.Error.ADDRESS_RANGE
                assert uint(dut.error_info_o) == 777 and uint(dut.done_o) == 0
            await bench.stop()
    for _ in range(20):
        bench = Bench(dut, 50, 0.1, 0.1)
        task = bench.issue([new_load(bench.masks, 50) for _ in range(5)])
        await cycles(dut, random.randrange(200))
        task.cancel()
        await bench.stop()
        assert not dut.busy_o.value and uint(dut.done_o) == 0
    bench = Bench(dut)
    load = Load(LoadKind.WEIGHT, 16, rows=3)
    bench.issue([load])
    await wait_for(dut, lambda: uint(dut.done_o) == 1)
    assert bench.seen == load.writes(bench.blob, {}, bench.live)


@pytest.mark.parametrize(
    "sim, parameters",
    [
        ("icarus", {"ROWS": 2, "GROUPS": 1, "LANES": 16}),
        ("icarus", {"ROWS": 2, "GROUPS": 3, "LANES": 64}),
        ("icarus", {"ROWS": 4, "GROUPS": 3, "LANES": 16}),
        ("verilator", {"ROWS": 2, "GROUPS": 2, "LANES": 32}),
        ("verilator", {"ROWS": 8, "GROUPS": 3, "LANES": 64, "PORT_BITS": 128}),
        ("icarus", {"ROWS": 2, "GROUPS": 3, "LANES": 16, "PORT_BITS": 128}),
    ],
)
def test_load_engine(sim, parameters):
    run("rowvit_load_engine", parameters, sim)
