# SPDX-License-Identifier: Apache-2.0
"""drain: every destination against the integer reference, tiles back to back and with pauses."""

import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge, ReadOnly

import harness
from rowvit.formats.description import in_places
from rowvit.hardware.buses import LINE, MOVE, PARAMETER, ROTATION, SCORE, TILE
from rowvit.hardware.isa import Dst, Flag, Record
from rowvit.reference.layers import compress, gate, relu, requant
from rowvit.reference.primitives import rsr, sat8

ROWS, GROUPS, LANES = (
    harness.parameter(name, value) for name, value in (("ROWS", 2), ("GROUPS", 2), ("LANES", 16))
)
SLOTS, ROTARY = 4, harness.parameter("ROTARY_TOKENS", 0)
BANK_W = (ROWS - 1).bit_length()
SIZES = {"ROWS": ROWS, "GROUPS": GROUPS, "LANES": LANES, "BANK_W": BANK_W, "AW": 12}
N, SEGW = ROWS * GROUPS, 1 + LANES // 8
SCORES, OUTPUT = "S", "O"  # the two kinds of tiles of ATTN
KINDS = [*Dst, SCORES, OUTPUT]


def shadow_of(acc):
    """Pack accumulators [N, LANES] as the clusters hold them (rtl/array/rowvit_mac_pair.v)."""
    value = 0
    for i, row in enumerate(acc.tolist()):
        for pair in range(LANES // 2):
            low, high = row[2 * pair], row[2 * pair + 1]
            wraps = low >> 17
            field = ((high + wraps) & (1 << 26) - 1) << 17 | low & 0x1FFFF
            counted = (wraps + (low >> 16 & 1)) & 0x1FF
            value |= (counted << 43 | field) << (26 * LANES * i + 52 * pair)
    return value


class Tile:
    """A random tile: descriptor, accumulators and the results of its requantisation."""

    def __init__(self, rng, number, kind, params, null=False):
        self.kind, self.number, self.null = kind, number, null
        self.groups = rng.randint(1, GROUPS)
        count = 1 if kind == Dst.STREAM else rng.choice([1, ROWS, ROWS, rng.randint(1, ROWS)])
        self.rows = (1 << count) - 1
        self.band = rng.randrange(40 // ROWS)
        self.slot = rng.randrange(SLOTS)
        self.shift = rng.randint(14, 24)
        self.thr = rng.choice([1, 1, 30, 200])
        self.dense = rng.random() < 0.3
        self.gather = kind == Dst.RESIDUAL and rng.random() < 0.5
        self.dst = 64 * number
        self.token = LANES * rng.randrange(3)
        self.tag = rng.randrange(1 << 12)  # with the image
        self.mark = kind != Dst.STREAM and not null and rng.random() < 0.3
        self.count = rng.randint(1, self.groups * LANES)
        self.src = [2000 + 32 * rng.randrange(20) for _ in range(ROWS)]
        self.bank = [rng.randrange(ROWS) for _ in range(ROWS)]
        self.s_mult = rng.randrange(65536)
        self.rope = bool(ROTARY) and kind in (Dst.TOKEN, Dst.KEY) and rng.random() < 0.7
        self.gated = bool(ROTARY) and kind == Dst.HIDDEN and rng.random() < 0.7
        self.place = rng.randrange(ROTARY // ROWS - 40 // ROWS) if self.rope else 0  # band of row 0's place
        width = rng.randint(8, 25)
        acc = [rng.randrange(-(1 << width), 1 << width) for _ in range(N * LANES)]
        self.acc = np.array(acc).reshape(N, LANES)
        self.recip = [(rng.randint(1 << 15, 1 << 16), rng.randint(7, 18)) for _ in range(N)]
        self.y = np.empty((N, LANES), np.int64)
        for i in range(N):
            if kind == SCORES:
                self.y[i] = requant(self.acc[i], 0, self.s_mult, self.shift)
            elif kind == OUTPUT:
                self.shift = 12
                r, n = self.recip[i]
                self.y[i] = requant(self.acc[i], 0, r, self.shift + n)
            else:
                bias, mult = params[i % GROUPS][self.slot]
                self.y[i] = requant(self.acc[i], bias, mult, self.shift)
        self.active = [(r, g) for r in range(ROWS) if self.rows >> r & 1 for g in range(self.groups)]

    def hidden(self, y):
        """Values of the lanes of a hidden tile: uint8, or int8 with gates."""
        return in_places(gate(y), 2) if self.gated else relu(y, self.thr)

    def inputs(self):
        """Values of the descriptor's ports."""
        slots = [0] * 32
        attention = self.kind in (SCORES, OUTPUT)
        slots[0] = self.tag << 4
        slots[1] = self.mark << Flag.MARK | (self.kind == Dst.STREAM) << Flag.LAST | self.rope << Flag.ROPE
        slots[1] |= self.gated << Flag.GATED
        if attention:
            slots[19], slots[20], slots[21] = self.s_mult, self.shift, self.shift
        else:
            slots[14], slots[17], slots[18], slots[19] = int(self.kind), self.shift, self.slot, self.thr
            slots[23] = 0 if self.dense else 0xFFFF
            slots[26] = self.count if self.kind == Dst.STREAM else 0
            slots[27] = self.place * ROWS
        tile = {
            "null": int(self.null),
            "op_last": 1,
            "pv": int(self.kind == OUTPUT),
            "s": int(self.kind == SCORES),
            "groups": self.groups,
            "rows": self.rows,
            "band": self.band,
            "dst": self.dst,
            "gather": int(self.gather),
            "res_src": sum(address << 16 * r for r, address in enumerate(self.src)),
            "bank": sum(bank << BANK_W * r for r, bank in enumerate(self.bank)),
            "s_first": 1,
            "s_last": 1,
            "token": self.token,
            "mask_end": 1,
            "mask": 4 * (self.number % 16),
        }
        return {
            "instr_i": sum(value << 16 * slot for slot, value in enumerate(slots)),
            "tile_i": TILE.part("drain", TILE.pack(tile, **SIZES), **SIZES),
        }


async def positions(dut, rng):
    """Fill the table of rotations, and the places, some of which then move; what they are in the end."""
    table = np.array([rng.choice([-16384, 16384, rng.randint(-16384, 16384)]) for _ in range(32 * LANES)])
    table = table.reshape(-1, 2)  # first, second
    places = np.array([[rng.randrange(32), rng.randrange(32)] for _ in range(ROTARY)])
    entries = [
        (0, address, (second & 0xFFFF) << 16 | first & 0xFFFF)
        for address, (first, second) in enumerate(table.tolist())
    ]
    entries += [(1, row, second << 5 | first) for row, (first, second) in enumerate(places.tolist())]
    dut.ro_valid_i.value = 1
    for place, address, data in entries:
        dut.ro_i.value = ROTATION.pack({"place": place, "address": address, "data": data})
        await FallingEdge(dut.clk_i)
    dut.ro_valid_i.value = 0
    # as the selection does: a row is read every cycle, and written two cycles later if it stays
    start, to = ROTARY // 2, ROTARY // 2 - rng.choice([0, ROWS, ROTARY // 4])
    stays, kept = [rng.random() < 0.5 for _ in range(ROTARY // 2)], 0
    for row in range(ROTARY // 2 + 2):
        move = row >= 2 and stays[row - 2]
        dut.move_valid_i.value = int(move)
        dut.move_i.value = MOVE.pack({"from": (start + row) % ROTARY, "to": to + kept})
        if move:
            places[to + kept] = places[start + row - 2]
            kept += 1
        await FallingEdge(dut.clk_i)
    dut.move_valid_i.value = 0
    return table, places


def rotated(tile, table, places):
    """Results of a rotated tile, by the table's entries (docs/isa.md)."""
    found = np.empty((N, LANES), np.int64)
    for i in range(N):
        place = places[(tile.place + tile.band) * ROWS + i // GROUPS]
        for pair in range(LANES // 2):
            entry = 2 * (place[pair % 2] * (LANES // 4) + pair // 2)
            both = tile.y[i, 2 * pair : 2 * pair + 2].astype(np.int64)
            found[i, 2 * pair : 2 * pair + 2] = rsr(both @ table[entry : entry + 2], 20)
    return found


def residual(address, bank):
    """What the residual memory holds before the test."""
    return (address * 7919 + bank * 104729) % 65536 - 32768


@cocotb.test()
async def destinations(dut):
    pauses = harness.parameter("pauses")
    rng = random.Random(29)
    extremes = [-(1 << 25), (1 << 25) - 1, 0, -1]
    params = [[None] * SLOTS for _ in range(GROUPS)]
    await harness.start(dut)
    for group in range(GROUPS):
        for slot in range(SLOTS):
            bias = [
                rng.choice(extremes) if rng.random() < 0.1 else rng.randint(-9999, 9999) for _ in range(LANES)
            ]
            mult = [rng.randrange(65536) for _ in range(LANES)]
            params[group][slot] = np.array(bias), np.array(mult)
            for lane in range(LANES):
                data = mult[lane] << 32 | bias[lane] & 0xFFFFFFFF
                dut.pw_valid_i.value = 1
                dut.pw_i.value = PARAMETER.pack({"group": group, "slot": slot, "lane": lane, "data": data})
                await FallingEdge(dut.clk_i)
    dut.pw_valid_i.value = 0
    if ROTARY:
        table, places = await positions(dut, rng)
    kinds = [*KINDS, *[Dst.TOKEN, Dst.KEY, Dst.HIDDEN] * (2 if ROTARY else 0)]
    tiles = [Tile(rng, number, rng.choice(kinds), params) for number in range(60)]
    for tile in tiles:
        if tile.rope:
            tile.y = rotated(tile, table, places)
    assert not ROTARY or min(sum(t.rope for t in tiles), sum(t.gated for t in tiles)) > 5
    # operations without a tile (of tokens that were dropped, say), up to more than the queue of tiles holds
    queued = []
    for tile in tiles:
        count = rng.choice([0, 0, 0, 1, 3, 6, 10])
        queued += [Tile(rng, 0, rng.choice([Dst.TOKEN, Dst.HIDDEN]), params, null=True) for _ in range(count)]
        queued.append(tile)

    tokens, lines, sums, scores, records = {}, {}, {}, [], []
    masks = {}

    async def watch():
        reads, announced = [None, None], False
        while True:
            value, read = 0, reads.pop(0)
            if read is not None:
                value = sum((residual(read, i) & 0xFFFF) << 16 * i for i in range(N))
            dut.res_rdata_i.value = value
            dut.rec_ready_i.value = rng.random() >= pauses
            await ReadOnly()
            for r in range(ROWS):
                if int(dut.tw_valid_o.value) >> r & 1:
                    address = int(dut.tw_addr_o.value) >> 16 * r & 0xFFFF
                    tokens[r, address] = int(dut.tw_data_o.value) >> 64 * r & (1 << 64) - 1
            assert (int(dut.ww_valid_o.value) != 0) == announced
            announced = bool(dut.ww_next_o.value)
            line = LINE.unpack(int(dut.ww_o.value), **SIZES)
            for g in range(GROUPS):
                if int(dut.ww_valid_o.value) >> g & 1:
                    word = ~line["clear"] >> 64 * g
                    for lane in range(LANES):
                        if line["be"] >> lane & 1:
                            lines[g, line["line"], lane] = word >> 8 * (lane % 8) & 255
            for i in range(N):
                if int(dut.res_we_o.value) >> i & 1:
                    sums[i, int(dut.res_waddr_o.value)] = int(dut.res_wdata_o.value) >> 16 * i & 0xFFFF
            if dut.s_valid_o.value:
                score = SCORE.unpack(int(dut.s_o.value), **SIZES)
                scores.append((score["token"], (score["first"], score["last"]), score["data"]))
            if dut.rec_valid_o.value and dut.rec_ready_i.value:
                flags = int(dut.rec_eor_o.value), int(dut.rec_last_o.value)
                records.append((int(dut.rec_data_o.value), *flags))
            reads.append(int(dut.res_raddr_o.value) if dut.res_rd_o.value else None)
            await FallingEdge(dut.clk_i)

    cocotb.start_soon(watch())
    cocotb.start_soon(harness.drive(dut, [tile.inputs() for tile in queued], pauses / 2, "tile"))
    for tile in tiles:
        await harness.pulse(dut, "captured_i")
        # complete two cycles after captured_i, of no use from the cycle before on
        dut.shadow_i.value = rng.getrandbits(26 * LANES * N)
        await FallingEdge(dut.clk_i)
        dut.shadow_i.value = shadow_of(tile.acc)
        dut.recip_r_i.value = sum(r << 17 * i for i, (r, _) in enumerate(tile.recip))
        dut.recip_n_i.value = sum(n << 5 * i for i, (_, n) in enumerate(tile.recip))
        # the array may overwrite the shadows eight cycles after the release
        await harness.wait_for(dut, lambda: bool(dut.release_o.value), 5000)
        await harness.cycles(dut, 5)
        while rng.random() < pauses:
            await FallingEdge(dut.clk_i)
    await harness.wait_for(dut, lambda: int(dut.done_o.value) == len(queued), 500)
    await harness.cycles(dut, 100)
    for tile in tiles:
        if tile.kind == Dst.HIDDEN and not tile.dense:
            for g in range(tile.groups):
                dut.mask_addr_i.value, dut.mask_read_i.value = 4 * (tile.number % 16) + g, 1
                await harness.cycles(dut, 1)
                dut.mask_addr_i.value, dut.mask_read_i.value = rng.getrandbits(16), 0
                await harness.cycles(dut, 1)  # what was read stays
                masks[tile.number, g] = int(dut.mask_data_o.value)

    def weight(group, line, lane):
        """What a multiplier makes of a written lane (docs/isa.md)."""
        byte = lines[group, line, lane]
        if lane % 2:
            byte += lines[group, line, lane - 1] >> 7
        return (byte + 128) % 256 - 128

    def bytes_of(words):
        return b"".join(word.to_bytes(8, "little") for word in words)

    for tile in tiles:
        where = f"tile {tile.number}, {tile.kind!r}"
        union = [np.zeros(LANES, bool) for _ in range(GROUPS)]
        for r, g in tile.active:
            y = tile.y[r * GROUPS + g]
            first = tile.dst + g * LANES // 8
            if tile.kind in (Dst.TOKEN, OUTPUT) or (tile.kind == Dst.HIDDEN and tile.dense):
                hidden = tile.kind == Dst.HIDDEN
                want = (tile.hidden(y) if hidden else sat8(y).astype(np.int8)).tobytes()
                assert bytes_of(tokens[r, first + w] for w in range(LANES // 8)) == want, where
            elif tile.kind == Dst.HIDDEN:
                values = tile.hidden(y)
                union[g] |= values != 0
                words = compress(values)[: 1 + -(-np.count_nonzero(values) // 8)]
                got = bytes_of(tokens[r, tile.dst + g * SEGW + w] for w in range(words.size))
                assert (
                    got[: 8 + np.count_nonzero(values)] == words.tobytes()[: 8 + np.count_nonzero(values)]
                ), where
            elif tile.kind == Dst.KEY:
                token = ROWS * tile.band + r
                for lane in range(LANES):
                    line = tile.dst + token // LANES * LANES + lane
                    assert weight(g, line, token % LANES) == sat8(y[lane]), where
            elif tile.kind == Dst.VALUE:
                for lane in range(LANES):
                    line = tile.dst + ROWS * tile.band + r
                    assert weight(g, line, lane) == sat8(y[lane]), where
            elif tile.kind == Dst.RESIDUAL:
                for lane in range(LANES):
                    old = residual(tile.dst + lane, r * GROUPS + g)
                    if tile.gather:
                        old = residual(tile.src[r] + lane, tile.bank[r] * GROUPS + g)
                    want = int(np.clip(old + y[lane], -32768, 32767)) & 0xFFFF
                    assert sums[r * GROUPS + g, tile.dst + lane] == want, where
        if tile.kind == Dst.HIDDEN and not tile.dense:
            for g in range(tile.groups):
                later = [t for t in tiles if t.number > tile.number and t.number % 16 == tile.number % 16]
                if not any(t.kind == Dst.HIDDEN and not t.dense and g < t.groups for t in later):
                    want = int.from_bytes(np.packbits(union[g], bitorder="little").tobytes(), "little")
                    assert masks[tile.number, g] == want, where

    for tile in (tile for tile in tiles if tile.kind == SCORES):
        for lane in range(LANES):
            token, flags, data = scores.pop(0)
            assert (token, flags) == (tile.token + lane, (int(lane == 0), int(lane == LANES - 1)))
            for r, g in tile.active:
                i = r * GROUPS + g
                assert data >> 12 * i & 0xFFF == int(np.clip(tile.y[i, lane], -2048, 2047)) & 0xFFF
    assert not scores

    for tile in (tile for tile in tiles if tile.mark or tile.kind == Dst.STREAM):
        header, eor, last = records.pop(0)
        assert (eor, last) == (0, 0)
        assert header & 0xFFFF == tile.tag << 4 | (Record.MARK if tile.mark else Record.LOGITS)
        if tile.mark:
            assert records.pop(0)[1:] == (1, 0)
            continue
        words = -(-tile.count // 4)
        assert header >> 16 == 8 * words << 16 | tile.count
        want = tile.y[: tile.groups].T.ravel()[: tile.count].astype("<i2").tobytes()
        taken = [records.pop(0) for _ in range(words)]
        assert bytes_of(word for word, _, _ in taken)[: 2 * tile.count] == want
        assert [flags for _, *flags in taken] == [[0, 0]] * (words - 1) + [[1, 1]]
    assert not records


@cocotb.test()
async def marks_wait(dut):
    """MARK records of many operations while the stream stands still: none is lost, and all come in order."""
    rng = random.Random(5)
    await harness.start(dut)
    # without results, so that they come as fast as they can; a record has two words
    tiles = [Tile(rng, 0, Dst.TOKEN, [[(0, 1)] * SLOTS] * GROUPS, null=True) for _ in range(160)]
    for number, tile in enumerate(tiles[::2]):
        tile.mark, tile.tag = True, number
    dut.rec_ready_i.value = 0
    cocotb.start_soon(harness.drive(dut, [tile.inputs() for tile in tiles], 0.0, "tile"))
    await harness.cycles(dut, 2000)
    done = int(dut.done_o.value)
    assert 16 <= done // 2 < 32  # a pass's images, and what the records have room for
    records = []
    dut.rec_ready_i.value = 1
    for _ in range(2000):
        await ReadOnly()
        if dut.rec_valid_o.value:
            records.append(int(dut.rec_data_o.value))
        await FallingEdge(dut.clk_i)
    assert int(dut.done_o.value) == len(tiles)
    assert [header >> 4 & 0xFFF for header in records[::2]] == list(range(len(tiles) // 2))
    assert {header & 0xF for header in records[::2]} == {Record.MARK}


@pytest.mark.parametrize(
    ("rows", "groups", "lanes", "rotary", "pauses"),
    [
        *((2, 2, 16, 0, 0.0), (2, 2, 16, 64, 0.5), (8, 2, 16, 512, 0.0)),
        *((2, 2, 16, 64, 0.0), (2, 3, 64, 128, 0.0)),
        pytest.param(4, 2, 16, 0, 0.2, marks=pytest.mark.slow),
        pytest.param(4, 1, 32, 128, 0.2, marks=pytest.mark.slow),
    ],
)
def test_drain(rows, groups, lanes, rotary, pauses):
    parameters = {
        "ROWS": rows,
        "BANK_W": (rows - 1).bit_length(),
        "GROUPS": groups,
        "LANES": lanes,
        "ROTARY_TOKENS": rotary,
        "AW": 12,
        "PARAM_SLOTS": SLOTS,
        "MASK_DEPTH": 64,
    }
    cases = ["destinations", "marks_wait"] if pauses == 0.0 else ["destinations"]
    harness.run("rowvit_drain", parameters, sim="verilator", env={"pauses": pauses}, testcase=cases)
