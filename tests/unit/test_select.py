# SPDX-License-Identifier: Apache-2.0
"""select against its Python twin: ties, limits, thresholds, several selections, reset."""

from __future__ import annotations

import random
from collections.abc import Sequence

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

from harness import collect, cycles, drive, parameter, reset, run, start, uint, wait_for
from rowvit.hardware.buses import MOVE
from rowvit.hardware.isa import Engine, Op, Record
from rowvit.reference.attention import select
from vector import answer, instruction


class Tokens:
    """The unit's surroundings: scores, and how many tokens are alive."""

    def __init__(self, dut) -> None:
        self.dut, self.done = dut, 0
        self.scores = np.zeros(parameter("MAX_TOKENS"), np.int64)
        self.table = 0  #: entry of token 0
        dut.score_ready_i.value = 1
        dut.src_read_i.value = 0
        cocotb.start_soon(answer(dut, self.score, "score_addr_o", "score_data_i", valid="score_read_o"))

    def score(self, address: int) -> int:
        return int(self.scores[address]) if address < self.scores.size else random.getrandbits(24)

    async def busy_scores(self) -> None:
        """The score memory is read by others now and then."""
        while True:
            self.dut.score_ready_i.value = int(random.random() < 0.9)
            await cycles(self.dut, random.choice((1, 1, 5)))

    async def new_image(self, rows: int) -> None:
        await cycles(self.dut)
        self.table = random.randint(0, parameter("MAX_TOKENS") - rows)
        self.live = self.dut.live_i.value = rows

    async def check_sources(self, sources: np.ndarray) -> None:
        """All ports of the table, one cycle after the address; it stays until another is read."""
        rows = parameter("ROWS")
        for first in range(0, len(sources), rows):
            band = [min(first + r, len(sources) - 1) for r in range(rows)]
            self.dut.src_addr_i.value = sum(self.table + token << 16 * r for r, token in enumerate(band))
            for read in (1, 0):
                self.dut.src_read_i.value = read
                await cycles(self.dut)
                await ReadOnly()
                found = [uint(self.dut.src_data_o) >> 16 * r & 0xFFFF for r in range(rows)]
                await FallingEdge(self.dut.clk_i)
                assert found == [int(sources[token]) for token in band]
                self.dut.src_addr_i.value = random.getrandbits(16 * rows)

    async def select(
        self, scores: Sequence[int], keep: int, threshold: int = 0, stall: float = 0.0
    ) -> np.ndarray:
        """Run one SELECT on scores of the live tokens and compare record, table and count."""
        dut, tag, image = self.dut, random.getrandbits(8), random.getrandbits(4)
        self.scores[self.table : self.table + self.live] = scores
        sources = select(np.asarray(scores), keep, threshold)
        words: list[tuple[int, int]] = []
        fields = dict(keep=keep, threshold=threshold, table=self.table)
        rows = parameter("ROWS")
        fields |= {"from": rows * random.randint(8, 64), "to": rows * random.randint(0, 8)}
        moves = cocotb.start_soon(self.moves(fields["from"], fields["to"]))
        word = instruction(Op.SELECT, tag=tag, image=image, **fields)
        counted = cocotb.start_soon(self.count())
        op = cocotb.start_soon(drive(dut, [word], 0, "instr", data="{}_i"))
        await collect(
            dut, lambda item: words.append(item) or item[1], stall, data=("out_data_o", "out_eor_o")
        )
        await op
        payload = np.zeros(-(-len(sources) // 4) * 4, np.uint16)
        payload[: len(sources)] = sources
        header = Record.KEPT | image << 4 | tag << 8 | len(sources) << 16 | payload.nbytes << 32
        assert [item[0] for item in words] == [header, *(int(v) for v in payload.view("<u8"))]
        assert [item[1] for item in words] == [0] * (len(words) - 1) + [1]
        self.done += 1
        assert uint(dut.done_o) == self.done and await counted == len(sources)
        moves.cancel()
        assert self.moved == (sources.tolist() if parameter("ROTARY", 0) else [])
        self.live = dut.live_i.value = len(sources)
        await self.check_sources(sources)
        return sources

    async def moves(self, start: int, to: int) -> None:
        """Which rows' places have moved: to the next one each, from what was read two cycles before."""
        self.moved: list[int] = []
        reads = [0, 0]
        while True:
            await ReadOnly()
            move = (
                MOVE.unpack(uint(self.dut.move_o))
                if self.dut.move_o.value.is_resolvable
                else {"from": 0, "to": 0}
            )
            if self.dut.move_valid_o.value:
                assert move["to"] == to + len(self.moved)
                self.moved.append(reads[0] - start)
            reads = [reads[1], move["from"]]
            await FallingEdge(self.dut.clk_i)

    async def count(self) -> int:
        """The count of kept tokens, when it is announced."""
        await wait_for(self.dut, lambda: bool(self.dut.kept_valid_o.value))
        return uint(self.dut.kept_o)


def some_scores(n: int, kind: str) -> list[int]:
    if kind == "equal":
        return [random.choice((0, 1, 5000, (1 << 24) - 1))] * n
    if kind == "few":
        values = [random.getrandbits(24) for _ in range(3)]
        return [random.choice(values) for _ in range(n)]
    if kind == "extreme":
        return [random.choice((0, 1, (1 << 24) - 2, (1 << 24) - 1)) for _ in range(n)]
    if kind == "typical":
        return [min(int(random.expovariate(n / (3 << 20))), (1 << 24) - 1) for _ in range(n)]
    return [random.getrandbits(24) for _ in range(n)]


@cocotb.test()
async def selections(dut):
    """Counts, keeps, kinds of scores and thresholds; up to three selections in an image."""
    await start(dut)
    tokens = Tokens(dut)
    most = parameter("MAX_TOKENS")
    cocotb.start_soon(tokens.busy_scores())
    for image in range(parameter("IMAGES")):
        n = (most, 1, 2, 17, most - 1)[image] if image < 5 else random.randint(1, most)
        await tokens.new_image(n)
        for _ in range(3):
            n = tokens.live
            kind = random.choice(("equal", "few", "extreme", "typical", "uniform"))
            scores = some_scores(n, kind)
            keep = random.choice((0, 1, n // 2, max(n - 2, 0), n - 1, n, 0xFFFF, random.randint(0, n)))
            threshold = random.choice((0, 0, 1, scores[n // 2], scores[0] + 1, (1 << 24) - 1, 1 << 24))
            await tokens.select(scores, keep, threshold, random.choice((0, 0.5)))


@cocotb.test()
async def all_kept(dut):
    """Without threshold and with keep >= n - 1 every token stays, and there is a record."""
    await start(dut)
    tokens = Tokens(dut)
    await tokens.new_image(9)
    for keep in (8, 9, 0xFFFF):
        assert len(await tokens.select(some_scores(9, "few"), keep)) == 9


@cocotb.test()
async def waits_for_dependencies(dut):
    """Nothing happens before the operations it depends on are complete, or their first band with chain."""
    await start(dut)
    tokens = Tokens(dut)
    await tokens.new_image(5)
    dut.out_ready_i.value = 1
    drain = 16 * Engine.DRAIN
    for number, chain in enumerate([(), (Engine.DRAIN,)]):
        tokens.scores[tokens.table : tokens.table + 5] = [9, 1, 4, 2, 3]
        word = instruction(Op.SELECT, deps={Engine.DRAIN: 3}, chain=chain, keep=2, table=tokens.table)
        dut.done_i.value, dut.bands_i.value = 2 << drain, 0 if chain else 1 << drain
        op = cocotb.start_soon(drive(dut, [word], 0, "instr", data="{}_i"))
        await cycles(dut, 300)
        assert not dut.busy_o.value and uint(dut.done_o) == number
        if chain:
            dut.bands_i.value = 1 << drain
        else:
            dut.done_i.value = 3 << drain
        await op
        assert uint(dut.done_o) == number + 1
        await tokens.check_sources(np.array([0, 2, 4]))


@cocotb.test()
async def restart(dut):
    """At any time; afterwards counts are zero."""
    await start(dut)
    tokens = Tokens(dut)
    for delay in (1, 2, 30, 90, 200, 400):
        await tokens.new_image(20)
        tokens.scores[tokens.table : tokens.table + 20] = some_scores(20, "uniform")
        word = instruction(Op.SELECT, keep=7, table=tokens.table)
        op = cocotb.start_soon(drive(dut, [word], 0, "instr", data="{}_i"))
        dut.out_ready_i.value = int(delay < 400)
        await cycles(dut, delay)
        op.cancel()
        dut.instr_valid_i.value = 0
        await reset(dut)
        assert uint(dut.done_o) == 0 and not dut.busy_o.value
        tokens.done = 0
        await tokens.new_image(20)
        await tokens.select(some_scores(20, "typical"), 7)
        await tokens.select(some_scores(8, "few"), 3)
        await reset(dut)
        tokens.done = 0


@cocotb.test()
async def speed(dut):
    """The search stops early: far below one pass per bit on scores as they are."""
    await start(dut)
    tokens = Tokens(dut)
    n = parameter("MAX_TOKENS")
    await tokens.new_image(n)
    tokens.scores[:n] = some_scores(n, "typical")
    cocotb.start_soon(drive(dut, [instruction(Op.SELECT, keep=n // 2)], 0, "instr", data="{}_i"))
    dut.out_ready_i.value = 1
    await wait_for(dut, lambda: bool(dut.busy_o.value))
    cycles_taken = await wait_for(dut, lambda: not dut.busy_o.value)
    assert cycles_taken < 18 * n + 60


@pytest.mark.parametrize(
    "sim, parameters, images",
    [
        ("icarus", {"ROWS": 2, "MAX_TOKENS": 64}, 12),
        ("icarus", {"ROWS": 1, "MAX_TOKENS": 24, "ROTARY": 1}, 12),
        ("verilator", {"ROWS": 2, "MAX_TOKENS": 64, "ROTARY": 1}, 25),
    ],
)
def test_select(sim, parameters, images):
    """Table depths with and without spare bits."""
    run("rowvit_select", parameters, sim, env={"IMAGES": images})
