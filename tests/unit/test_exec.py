# SPDX-License-Identifier: Apache-2.0
"""exec: the tiles of random MATMUL and ATTN operations against a list made from docs/isa.md's definitions.

Back to back, with stalls, dependencies met late, and a reset in the middle.
"""

import random
from math import ceil

import cocotb
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

import harness
from harness import parameter, uint
from rowvit.hardware.buses import TILE
from rowvit.hardware.isa import Engine, Flag, Op
from vector import defined, instruction

LANES, GROUPS, MAX_TOKENS = 16, 2, 64


class Job:
    """A random operation: its instruction, the rows alive, the table of selected rows, and its tiles.

    A tile is {name: value} of the fields that mean something in it; ``addr``, ``bank`` and ``res_src`` are
    lists by row (``addr`` of each group).
    """

    def __init__(self, rng: random.Random, rows: int) -> None:
        self.rows_in_band = rows
        self.live = rng.randint(1, MAX_TOKENS)
        self.attn = rng.random() < 0.4
        self.table = rng.sample(range(MAX_TOKENS), MAX_TOKENS)
        self.set_rows = 0
        flags: set[Flag] = set()
        if self.attn:
            names = {
                "q_base": 256,
                "q_stride": 16,
                "kt_base": 128,
                "v_base": 128,
                "p_base": 256,
                "p_stride": 16,
                "o_base": 256,
                "o_stride": 16,
            }
            fields = {name: rng.randrange(size) for name, size in names.items()}
            fields |= {"head_dim": rng.choice([16, 64]), "groups": rng.randint(1, GROUPS)}
        else:
            fields = {
                "src_base": rng.randrange(256),
                "src_stride": rng.randrange(16),
                "k": rng.randrange(1, 512),
                "wbase": rng.randrange(128),
                "groups": rng.randint(1, GROUPS),
                "dst_base": rng.randrange(256),
                "dst_stride": rng.randrange(16),
                "res_from": rng.randrange(256),
                "band0": rng.choice([0, 0, rng.randrange(8)]),
                "bands": rng.choice([0, 2, 0xFFFF, rng.randrange(16)]),
                "mask_base": rng.randrange(256),
                "mask_bands": rng.randint(1, 4),
                "mask_stride": rng.randrange(8),
                "table": rows * rng.randrange(4),
            }
            for flag in (Flag.SPARSE, Flag.UNSIGNED, Flag.JOIN):
                if rng.random() < 0.5:
                    flags.add(flag)
            if rng.random() < 0.1:
                flags.add(Flag.VOID)
            kind = rng.random()
            if kind < 0.3:
                flags.add(Flag.GATHER)
                self.live = min(self.live, 32)  # entries of the table behind its base
            elif kind < 0.4:
                flags.add(Flag.ONE_ROW)
            elif kind < 0.5:
                flags.add(Flag.SET_LIVE)
                fields["rows"] = self.set_rows = rng.randint(1, MAX_TOKENS)
        self.fields, self.flags = fields, flags
        self.engine = rng.choice([None, Engine.LOAD, Engine.NORM])  # that it waits for
        self.chain = self.engine == Engine.NORM
        self.tiles = self._attention() if self.attn else self._matmul()

    def word(self) -> int:
        op = Op.ATTN if self.attn else Op.MATMUL
        deps = {} if self.engine is None else {self.engine: 1}
        chain = (Engine.NORM,) if self.chain else ()
        return instruction(op, tuple(self.flags), deps=deps, chain=chain, **self.fields)

    def _matmul(self) -> list[dict]:
        f, rows = self.fields, self.rows_in_band
        count = 1 if Flag.ONE_ROW in self.flags else self.set_rows or self.live
        end = min(f["band0"] + f["bands"], ceil(count / rows))
        if Flag.VOID in self.flags or f["band0"] >= end:
            return [{"null": 1, "op_last": 1}]
        gather = Flag.GATHER in self.flags
        found = []
        for turn, band in enumerate(range(f["band0"], end)):
            last = band == end - 1
            chosen = [self.table[f["table"] + rows * band + r] for r in range(rows)] if gather else []
            own = [f["src_base"] + band * f["src_stride"]] * rows
            tile = {
                "null": 0,
                "op_last": int(last),
                "shared": 1,
                "sparse": int(Flag.SPARSE in self.flags),
                "unsigned": int(Flag.UNSIGNED in self.flags),
                "pv": 0,
                "s": 0,
                "wbase": f["wbase"],
                "groups": f["groups"],
                "rows": _exist(band, count, rows),
                "count": f["k"],
                "band": band,
                "dst": f["dst_base"] + band * f["dst_stride"],
                "gather": int(gather),
                "mask": f["mask_base"] + turn // f["mask_bands"] * f["mask_stride"],
                "mask_end": int((turn + 1) % f["mask_bands"] == 0 or (last and Flag.JOIN not in self.flags)),
            }
            addr = [f["src_base"] + t // rows * f["src_stride"] for t in chosen] if gather else own
            tile["addr"] = [[a] * GROUPS for a in addr]
            tile["bank"] = [t % rows for t in chosen] if gather else list(range(rows))
            if gather:
                tile["res_src"] = [f["res_from"] + t // rows * f["dst_stride"] for t in chosen]
            found.append(tile)
        return found

    def _attention(self) -> list[dict]:
        f, rows, live = self.fields, self.rows_in_band, self.live
        bands, tiles = ceil(live / rows), ceil(live / LANES)
        common = {"null": 0, "shared": 0, "groups": f["groups"], "gather": 0, "bank": list(range(rows))}

        def scores(band: int) -> list[dict]:
            addr = [[f["q_base"] + band * f["q_stride"] + g * LANES // 8 for g in range(GROUPS)]] * rows
            return [
                common
                | {
                    "op_last": 0,
                    "sparse": 0,
                    "unsigned": 0,
                    "pv": 0,
                    "s": 1,
                    "wbase": f["kt_base"] + LANES * t,
                    "rows": _exist(band, live, rows),
                    "count": f["head_dim"],
                    "band": band,
                    "s_first": int(t == 0),
                    "s_last": int(t == tiles - 1),
                    "token": LANES * t,
                    "addr": addr,
                }
                for t in range(tiles)
            ]

        def values(band: int) -> dict:
            odd = GROUPS * f["p_stride"] if band % 2 else 0
            addr = [[f["p_base"] + odd + g * f["p_stride"] for g in range(GROUPS)]] * rows
            return common | {
                "op_last": int(band == bands - 1),
                "sparse": 1,
                "unsigned": 1,
                "pv": 1,
                "s": 0,
                "wbase": f["v_base"],
                "rows": _exist(band, live, rows),
                "count": tiles,
                "band": band,
                "dst": f["o_base"] + band * f["o_stride"],
                "addr": addr,
            }

        found = scores(0)  # S runs up to two bands ahead of P V
        for band in range(bands):
            found += scores(band + 1) if band + 1 < bands else []
            found.append(values(band))
        return found


def _exist(band: int, count: int, rows: int) -> int:
    """Rows of a band that exist; its first one always does."""
    return sum(1 << r for r in range(rows) if r == 0 or band * rows + r < count)


class Bench:
    """Everything around exec: the selection table, the softmax, and the engines that it waits for."""

    def __init__(self, dut, rng: random.Random, stall: float) -> None:
        self.dut, self.rng, self.stall = dut, rng, stall
        self.rows = parameter("ROWS")

    async def run(self, job: Job, cut: int | None = None) -> None:
        """One operation, or until ``cut`` of its tiles were taken."""
        dut, rng, rows = self.dut, self.rng, self.rows
        dut.instr_i.value, dut.live_i.value = job.word(), job.live
        dut.instr_valid_i.value = 1
        done, bands, soft, scored = 0, 0, 0, []
        taken, started, live_set = 0, 0, 0
        answer = 0
        for _ in range(20_000):
            if rng.random() < 0.3:
                if job.engine == Engine.LOAD and taken == 0:
                    done = 1
                bands += job.chain
            if scored and rng.random() < 0.2:
                soft += scored.pop(0)
            dut.done_i.value = done << 16 * Engine.LOAD
            dut.bands_i.value = bands << 16 * Engine.NORM
            dut.softmax_bands_i.value = soft
            go = rng.random() >= self.stall
            dut.tile_ready_i.value = int(go)
            dut.src_data_i.value = answer
            await ReadOnly()
            started += int(dut.attn_start_o.value)
            if dut.set_live_o.value:
                live_set += 1
                assert uint(dut.set_live_rows_o) == job.set_rows
            if dut.attn_start_o.value:
                soft, scored = 0, []
            # the table answers a cycle after it was asked, and until it is asked again
            if dut.src_read_o.value:
                asked = [defined(dut.src_addr_o) >> 16 * r & 0xFFFF for r in range(rows)]
                answer = sum(job.table[a % MAX_TOKENS] << 16 * r for r, a in enumerate(asked))
            if dut.tile_valid_o.value and go:
                want = job.tiles[taken]
                self._same(want, taken)
                assert job.engine != Engine.LOAD or done == 1, "before its load"
                if job.chain and not want["null"]:
                    assert want.get("pv") or bands > want["band"], "before its band"
                if want.get("s_last"):
                    scored.append(1)
                if want.get("pv"):
                    assert soft > want["band"], "before its softmax"
                taken += 1
                last = taken == len(job.tiles)
                assert bool(dut.instr_ready_o.value) == last
                if last or taken == cut:
                    await FallingEdge(dut.clk_i)
                    dut.instr_valid_i.value = 0
                    dut.tile_ready_i.value = 0
                    assert started == int(job.attn)
                    assert live_set == int(Flag.SET_LIVE in job.flags and Flag.VOID not in job.flags)
                    return
            else:
                assert not dut.instr_ready_o.value
            await FallingEdge(dut.clk_i)
        raise AssertionError(f"no tile {taken} of {len(job.tiles)}")

    def _same(self, want: dict, number: int) -> None:
        dut, rows = self.dut, self.rows
        bits = parameter("BANK_W")
        found: dict = TILE.unpack(defined(dut.tile_o), ROWS=rows, GROUPS=GROUPS, BANK_W=bits)
        banks, sources, addr = (found[name] for name in ("bank", "res_src", "addr"))
        found["bank"] = [banks >> bits * r & (1 << bits) - 1 for r in range(rows)]
        found["res_src"] = [sources >> 16 * r & 0xFFFF for r in range(rows)]
        found["addr"] = [[addr >> 16 * (r * GROUPS + g) & 0xFFFF for g in range(GROUPS)] for r in range(rows)]
        for name, value in want.items():
            assert found[name] == value, f"tile {number}: {name} is {found[name]}, not {value}"


@cocotb.test()
async def operations(dut):
    rng = random.Random(parameter("seed"))
    await harness.start(dut)
    await harness.cycles(dut)
    bench = Bench(dut, rng, parameter("stall"))
    for number in range(60):
        job = Job(rng, parameter("ROWS"))
        if number % 10 == 5 and len(job.tiles) > 1:
            await bench.run(job, cut=rng.randrange(1, len(job.tiles)))
            await harness.reset(dut)
        else:
            await bench.run(job)
        assert not dut.busy_o.value or number % 10 == 5
        await harness.cycles(dut, rng.choice([0, 0, 1, 3]))


@pytest.mark.parametrize(("rows", "bank_w"), [(2, 1), (4, 2), (8, 3)])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_exec(rows, bank_w, stall):
    parameters = {"ROWS": rows, "GROUPS": GROUPS, "LANES": LANES, "BANK_W": bank_w}
    harness.run("rowvit_exec", parameters, env={"stall": stall, "seed": rows}, testcase="operations")
