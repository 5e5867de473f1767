# SPDX-License-Identifier: Apache-2.0
"""A model of the accelerator at instruction level that keeps only the promised order.

Engines are coroutines that advance in random order, band by band; nothing but the dependency
fields, the order within an engine and the blocking queues holds them back. Memories start out
invalid, and reading what was never written (or what a load did not fetch) is an error. A program
that gives the right logits here under many seeds lacks no dependency that matters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from rowvit.compiler import Program
from rowvit.formats.description import in_places
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import (
    ABI_VERSION,
    NO_DEP,
    QUEUE,
    Dst,
    Engine,
    Flag,
    Instruction,
    LoadKind,
    NormKind,
    Op,
    Record,
)
from rowvit.reference.attention import exponentials, logits, select, token_scores, weigh
from rowvit.reference.layers import (
    accumulate,
    compress,
    decompress,
    gate,
    layernorm,
    relu,
    requant,
    residual_add,
    token_values,
)
from rowvit.reference.primitives import rsr, sat8

Process = Iterator[Callable[[], bool]]


def always() -> bool:
    return True


def unpack_pairs(lines: np.ndarray) -> np.ndarray:
    """Weights [..., lanes] of lines as weight memory holds them (docs/isa.md)."""
    weights = lines.copy()
    weights[..., 1::2] += lines[..., ::2] < 0
    return weights


class Invalid:
    """An array whose elements must be written before they are read."""

    def __init__(self, shape: tuple[int, ...], dtype: type, name: str) -> None:
        self.data = np.zeros(shape, dtype)
        self.valid = np.zeros(shape, bool)
        self.name = name

    def __getitem__(self, key) -> np.ndarray:
        if not self.valid[key].all():
            raise AssertionError(f"{self.name} memory read at {key} before it was written")
        return self.data[key]

    def __setitem__(self, key, value) -> None:
        self.data[key] = value
        self.valid[key] = True


class Machine:
    """Run a program over images.

    Parameters
    ----------
    program : Program
    config : HardwareConfig
    rng : numpy Generator
        Chooses the order of everything that is not ordered.
    images : int
        How many there will be.
    """

    def __init__(
        self, program: Program, config: HardwareConfig, rng: np.random.Generator, images: int
    ) -> None:
        self.config, self.rng = config, rng
        self.part = program.pass_for(images)
        self.queue_depth = int(rng.integers(1, 9))
        self.drain_buffers = int(rng.integers(1, 4))
        self.blob = program.blob
        self.code = [Instruction.decode(row) for row in self.part.code.tolist()]
        assert self.code[0].op is Op.HEADER and self.code[-1].op is Op.END
        self.finish = self.code[0].fields.pop("finish")
        assert self.code[0].fields == {"config_hash": config.hash, "abi": ABI_VERSION}
        rows, groups, lanes = config.rows, config.groups, config.lanes
        self.token = Invalid((rows, config.token_depth), np.uint64, "token")
        self.weight = Invalid((groups, config.weight_depth, lanes), np.int8, "weight")
        self.residual = Invalid((rows, groups, config.residual_depth), np.int16, "residual")
        self.bias = Invalid((config.param_slots, groups, lanes), np.int32, "parameter")
        self.mult = Invalid((config.param_slots, groups, lanes), np.uint16, "parameter")
        self.norm_g = Invalid((config.norm_slots, config.max_dim), np.int16, "norm parameter")
        self.norm_b = Invalid((config.norm_slots, config.max_dim), np.int32, "norm parameter")
        self.mask = Invalid((config.mask_depth, lanes), bool, "mask")
        self.joined = np.zeros((groups, lanes), bool)  # of the mask under way
        self.score = Invalid((config.max_tokens,), np.int64, "score")
        self.source = Invalid((config.max_tokens,), np.int64, "selection")
        self.rotation = Invalid((16 * lanes, 2), np.int16, "rotation")
        self.place = Invalid((config.rotary_tokens, 2), np.uint8, "place")
        self.live = dict.fromkeys(range(self.part.images), 0)
        self.done = dict.fromkeys(Engine, 0)
        self.bands = dict.fromkeys(Engine, 0)
        self.queues: dict[Engine, deque] = {engine: deque() for engine in Engine}
        self.drains: deque = deque()
        #: by number of the image since start
        self.records: dict[int, list[tuple[Record, int, np.ndarray]]] = {}
        self.ended = 0
        self.fetched = 0

    # -- order ----------------------------------------------------------------------------------

    def run(self, patches: np.ndarray) -> list[list[tuple[Record, int, np.ndarray]]]:
        """Records (type, tag, payload) of every image; patches int8 [images, rows, K]."""
        self.images = deque(patches)
        processes: dict[str, Process] = {
            "dispatch": self._dispatch(len(patches)),
            "load": self._engine(Engine.LOAD, self._load),
            "exec": self._engine(Engine.EXEC, self._exec),
            "drain": self._drain(),
            "norm": self._engine(Engine.NORM, self._norm),
            "select": self._engine(Engine.SELECT, self._select),
            "recv": self._engine(Engine.RECV, self._recv),
        }
        waits = {name: next(process) for name, process in processes.items()}
        # some engines are much slower than others, and different ones each time
        speed = {name: 10.0 ** self.rng.uniform(-2, 2) for name in processes}
        while self.ended < len(patches):
            ready = [name for name, wait in waits.items() if wait()]
            assert ready, f"deadlock: done {self.done}, waiting {[q[0] for q in self.queues.values() if q]}"
            weights = np.array([speed[name] for name in ready])
            name = ready[int(np.searchsorted(np.cumsum(weights), self.rng.random() * weights.sum()))]
            waits[name] = next(processes[name])
        return [self.records[image] for image in range(len(patches))]

    def _emit(self, image: int, record: Record, tag: int, data: np.ndarray) -> None:
        assert image // self.part.images == self.ended // self.part.images, "a record is in another's packet"
        self.records.setdefault(image, []).append((record, tag, data))

    def _dispatch(self, images: int) -> Process:
        base = dict.fromkeys(Engine, 0)
        passes = images // self.part.images
        for number in range(passes + 1):
            start = dict(base)
            for instruction in self.code[1:-1] if number < passes else self.code[1 : self.finish + 1]:
                queue = QUEUE[instruction.op]
                yield lambda queue=queue: len(self.queues[queue]) < self.queue_depth
                deps = {e: start[e] + dep for e, dep in instruction.deps.items() if dep != NO_DEP}
                previous = Flag.PREVIOUS in instruction.flags
                void = previous if number == 0 else number == passes and not previous
                image = (number - previous) * self.part.images + instruction.image
                self.queues[queue].append((instruction, deps, void, image))
                base[queue] += 1
                base[Engine.DRAIN] += queue is Engine.EXEC
        while True:
            yield lambda: False

    def _engine(self, engine: Engine, work: Callable[..., Process]) -> Process:
        while True:
            yield lambda: bool(self.queues[engine])
            instruction, deps, void, image = self.queues[engine].popleft()

            def ready(band: int, deps=deps, chain=instruction.chain) -> Callable[[], bool]:
                return lambda: all(
                    self.done[e] >= dep or (e in chain and self.done[e] == dep - 1 and self.bands[e] > band)
                    for e, dep in deps.items()
                )

            if void:
                yield ready(0)
                if engine is Engine.EXEC:
                    yield lambda: len(self.drains) < self.drain_buffers
                    self.drains.append((replace(instruction, flags=frozenset()), image, 0, (), None, True))
            else:
                yield from work(instruction, ready, image)
            self._complete(engine)

    def _complete(self, engine: Engine) -> None:
        self.done[engine] += 1
        self.bands[engine] = 0

    # -- loads ----------------------------------------------------------------------------------

    def _load(self, instruction: Instruction, ready, _: int) -> Process:
        f = instruction.fields
        yield ready(0)
        rows, groups, lanes = f["rows"], f["groups"], self.config.lanes
        kind = LoadKind(f["kind"])
        if kind is LoadKind.WEIGHT:
            wanted = np.ones(rows, bool)
            if Flag.GATHER in instruction.flags:
                if f["band0"] * self.config.rows >= self.live[instruction.image]:
                    return
                wanted = self.mask[f["mask_base"] : f["mask_base"] + rows // lanes].ravel()
                if Flag.REST in instruction.flags:
                    wanted &= ~self.mask[f["mask_had"] : f["mask_had"] + rows // lanes].ravel()
                self.fetched += int(wanted.sum())
            data = self._read(f["address"], rows * groups * lanes, np.int8).reshape(rows, groups, lanes)
            data = unpack_pairs(data)
            assert f["dst"] + rows <= self.config.weight_depth
            for part in np.array_split(np.arange(rows), 4):
                yield always
                for row in part:
                    line = (slice(0, groups), f["dst"] + row)
                    if wanted[row]:
                        self.weight[line] = data[row]
                    elif Flag.REST not in instruction.flags:
                        self.weight.valid[line] = False
            return
        yield always
        if kind is LoadKind.PARAM:
            words = self._read(f["address"], groups * lanes * 8, np.uint64).reshape(groups, lanes)
            self.bias[f["dst"], :groups] = words.astype(np.uint32).view(np.int32)
            self.mult[f["dst"], :groups] = words >> np.uint64(32)
        elif kind is LoadKind.NORM:
            words = self._read(f["address"], rows * 8, np.uint64)
            self.norm_b[f["dst"], :rows] = words.astype(np.uint32).view(np.int32)
            self.norm_g[f["dst"], :rows] = (words >> np.uint64(32)).astype(np.uint16).view(np.int16)
        elif kind in (LoadKind.ROTATION, LoadKind.PLACE):
            words = self._read(f["address"], rows * 8, np.uint32).reshape(rows, 2)[:, 0]
            own = slice(f["dst"], f["dst"] + rows)
            if kind is LoadKind.ROTATION:
                self.rotation[own] = words.copy().view(np.int16).reshape(rows, 2)
            else:
                self.place[own] = np.stack([words & 31, words >> 5], axis=1)
        else:
            banks = self.config.rows * self.config.groups
            assert rows % 2 == 0
            size = max(4, banks) * 2 * rows
            data = self._read(f["address"], size, np.int16).reshape(rows, -1)[:, :banks]
            where = slice(f["dst"], f["dst"] + rows)
            self.residual[:, :, where] = data.T.reshape(self.config.rows, self.config.groups, rows)

    def _read(self, address: int, size: int, dtype: type) -> np.ndarray:
        assert address % 8 == 0 and size % 8 == 0 and address + size <= self.blob.size
        return self.blob[address : address + size].view(dtype)

    # -- array ----------------------------------------------------------------------------------

    def _exec(self, instruction: Instruction, ready, image: int) -> Process:
        """Operands are read at some time after a band's dependencies are met."""
        f, flags, rows = instruction.fields, instruction.flags, self.config.rows
        first = f.get("band0", 0)
        yield ready(first)
        if Flag.SET_LIVE in flags:
            self.live[instruction.image] = f["rows"]
        live = 1 if Flag.ONE_ROW in flags else self.live[instruction.image]
        end = min(-(-live // rows), first + f.get("bands", 0xFFFF))
        if instruction.op is Op.ATTN:
            end = -(-live // rows)
        for band in range(first, end):
            yield ready(band)
            if self.rng.random() < 0.5:
                yield always
            tokens = range(band * rows, min((band + 1) * rows, live))
            if instruction.op is Op.ATTN:
                result = self._attend(f, tokens, live)
            else:
                result = self._multiply(f, flags, band, tokens)
            yield lambda: len(self.drains) < self.drain_buffers
            self.drains.append((instruction, image, band, tokens, result, band == end - 1))
            if band < end - 1:
                self.bands[Engine.EXEC] = band + 1
        if end <= first:
            yield lambda: len(self.drains) < self.drain_buffers
            self.drains.append((instruction, image, first, (), None, True))

    def _row(self, base: int, row: int, stride: int, words: int) -> np.ndarray:
        """Bytes of one token row."""
        start = base + row // self.config.rows * stride
        return self.token[row % self.config.rows, start : start + words].view(np.uint8)

    def _multiply(self, f: dict[str, int], flags: frozenset, band: int, tokens: range) -> np.ndarray:
        """Accumulators [rows, groups * lanes]."""
        lanes, groups = self.config.lanes, f["groups"]
        dtype = np.uint8 if Flag.UNSIGNED in flags else np.int8
        out = []
        for token in tokens:
            row = int(self.source[f["table"] + token]) if Flag.GATHER in flags else token
            if Flag.SPARSE in flags:
                x = np.concatenate([self._segment(f, row, s) for s in range(f["k"])]).view(dtype)
            else:
                x = self._row(f["src_base"], row, f["src_stride"], f["k"] // 8).view(dtype)
            used = np.flatnonzero(x) if Flag.SPARSE in flags else np.arange(x.size)
            w = self.weight[:groups, f["wbase"] + used].transpose(1, 0, 2).reshape(len(used), groups * lanes)
            out.append(accumulate(x[used], w) if len(used) else np.zeros(groups * lanes))
        return np.array(out)

    def _segment(self, f: dict[str, int], row: int, segment: int) -> np.ndarray:
        """Values of one compressed segment; words beyond its last value are not read."""
        base = f["src_base"] + segment * self.config.segment_words
        bitmap = self._row(base, row, f["src_stride"], 1)
        count = int(np.unpackbits(bitmap).sum())
        words = self._row(base, row, f["src_stride"], 1 + -(-count // 8)).view(np.uint64)
        return decompress(np.pad(words, (0, self.config.segment_words - words.size)), self.config.lanes)

    def _attend(self, f: dict[str, int], tokens: range, live: int) -> tuple[np.ndarray, np.ndarray]:
        """O int8 [rows, groups * lanes] and S int16 [rows, groups, live]."""
        lanes, rows, size = self.config.lanes, self.config.rows, self.config.segment_words
        o, s = [], []
        for token in tokens:
            for g in range(f["groups"]):
                q = self._row(f["q_base"] + g * lanes // 8, token, f["q_stride"], f["head_dim"] // 8)
                tiles = []
                for t in range(0, live, lanes):
                    lines = slice(f["kt_base"] + t, f["kt_base"] + t + f["head_dim"])
                    tiles.append(self.weight[g, lines, : min(lanes, live - t)])
                kt = np.concatenate(tiles, axis=1)
                own = logits(q.view(np.int8)[None], kt.T, f["s_mult"], f["s_shift"])
                p = exponentials(own)
                for t in range(0, live, lanes):
                    base = f["p_base"] + ((token // rows % 2) * self.config.groups + g) * f["p_stride"]
                    words = compress(np.pad(p[0, t : t + lanes], (0, max(0, t + lanes - live))))
                    start = base + t // lanes * size
                    self.token[token % rows, start : start + size] = words
                v = self.weight[g, f["v_base"] : f["v_base"] + live]
                o.append(weigh(p, v, f["pv_shift"])[0])
                s.append(own[0])
        shape = (len(tokens), f["groups"])
        return np.reshape(o, (shape[0], -1)), np.reshape(s, (*shape, live))

    # -- drain ----------------------------------------------------------------------------------

    def _drain(self) -> Process:
        while True:
            yield lambda: bool(self.drains)
            instruction, image, band, tokens, result, last = self.drains[0]
            if self.rng.random() < 0.5:
                yield always
            if len(tokens):
                if instruction.op is Op.ATTN:
                    self._drain_attention(instruction, tokens, *result)
                else:
                    self._drain_matmul(instruction, image, band, tokens, result)
            if last and Flag.MARK in instruction.flags:
                self._emit(image, Record.MARK, instruction.tag, np.zeros(1))
            if last and Flag.LAST in instruction.flags:
                self.ended += self.part.images
            self.drains.popleft()
            if last:
                self._complete(Engine.DRAIN)
            else:
                self.bands[Engine.DRAIN] = band + 1

    def _drain_attention(self, instruction: Instruction, tokens: range, o: np.ndarray, s: np.ndarray) -> None:
        f = instruction.fields
        for row, token in zip(o, tokens, strict=True):
            self._write_row(f["o_base"], token, f["o_stride"], row)
        if Flag.SCORE in instruction.flags and tokens[0] == 0:
            own = slice(f["table"], f["table"] + s.shape[-1])
            clear = Flag.SCORE_CLEAR in instruction.flags
            self.score[own] = token_scores(s[0]) + (0 if clear else self.score[own])

    def _write_row(self, base: int, token: int, stride: int, row: np.ndarray) -> None:
        start = base + token // self.config.rows * stride
        words = np.ascontiguousarray(row).view(np.uint64)
        self.token[token % self.config.rows, start : start + words.size] = words

    def _drain_matmul(
        self, instruction: Instruction, image: int, band: int, tokens: range, acc: np.ndarray
    ) -> None:
        f, config = instruction.fields, self.config
        lanes, groups, dst = config.lanes, f["groups"], Dst(f["dst"])
        bias, mult = self.bias[f["pslot"], :groups].ravel(), self.mult[f["pslot"], :groups].ravel()
        y = requant(acc, bias, mult, f["shift"])
        if dst is Dst.STREAM:
            self._emit(image, Record.LOGITS, 0, y[0].reshape(groups, lanes).T.ravel()[: f["count"]])
            return
        if dst is Dst.HIDDEN:
            gated = Flag.GATED in instruction.flags
            hidden = in_places(gate(y), 2).view(np.uint8) if gated else relu(y, f["thr"])
            hidden = hidden.reshape(len(tokens), groups, lanes)
            self._drain_hidden(instruction, band, tokens, hidden)
            return
        gather = Flag.GATHER in instruction.flags
        if Flag.ROPE in instruction.flags:
            y = np.array([self._rotated(f, *one) for one in zip(y, tokens, strict=True)])
        for row, token in zip(y, tokens, strict=True):
            if dst is Dst.TOKEN:
                self._write_row(f["dst_base"], token, f["dst_stride"], sat8(row))
            elif dst is Dst.KEY:
                start = f["dst_base"] + token // lanes * lanes
                self.weight[:groups, start : start + lanes, token % lanes] = sat8(row).reshape(groups, lanes)
            elif dst is Dst.VALUE:
                self.weight[:groups, f["dst_base"] + token] = sat8(row).reshape(groups, lanes)
            else:
                # a gathered row adds to the residual row that it had before the selection
                row_before = int(self.source[f["table"] + token]) if gather else token
                old = self._residual_lanes(f, f["res_from"] if gather else f["dst_base"], row_before)
                new = self._residual_lanes(f, f["dst_base"], token)
                self.residual[new] = residual_add(self.residual[old], row.reshape(groups, lanes))

    def _rotated(self, f: dict[str, int], row: np.ndarray, token: int) -> np.ndarray:
        """The lanes of all groups, pair by pair (docs/isa.md)."""
        lanes = self.config.lanes
        pair = np.arange(lanes // 2)
        entry = 2 * (self.place[f["table"] + token][pair % 2].astype(int) * (lanes // 4) + pair // 2)
        first, second = (self.rotation[entry + odd].astype(np.int64) for odd in (0, 1))
        even, odd = row.astype(np.int64).reshape(f["groups"], -1, 2)[..., None].transpose(2, 0, 1, 3)
        found: np.ndarray = rsr(even * first + odd * second, 20).reshape(row.shape)
        return found

    def _residual_lanes(self, f: dict[str, int], base: int, token: int) -> tuple[int, slice, slice]:
        start = base + token // self.config.rows * f["dst_stride"]
        return token % self.config.rows, slice(0, f["groups"]), slice(start, start + self.config.lanes)

    def _drain_hidden(self, instruction: Instruction, band: int, tokens: range, hidden: np.ndarray) -> None:
        config, f = self.config, instruction.fields
        if not f["mask_bands"]:
            for token, row in zip(tokens, hidden, strict=True):
                self._write_row(f["dst_base"], token, f["dst_stride"], row.ravel())
            return
        first = f.get("band0", 0)
        tile, inside = divmod(band - first, f["mask_bands"])
        word = f["mask_base"] + tile * f["mask_stride"]
        live = self.live[instruction.image]
        last = band + 1 == min(-(-live // config.rows), first + f["bands"])
        self.joined[: f["groups"]] |= (hidden != 0).any(axis=0)
        if inside + 1 == f["mask_bands"] or (last and Flag.JOIN not in instruction.flags):
            self.mask[word : word + f["groups"]] = self.joined[: f["groups"]]
            self.joined[:] = False
        for token, row in zip(tokens, hidden, strict=True):
            for g, values in enumerate(row):
                packed = compress(values)[: 1 + -(-np.count_nonzero(values) // 8)]
                base = f["dst_base"] + g * config.segment_words
                self._write_row(base, token, f["dst_stride"], packed)

    # -- vector units ---------------------------------------------------------------------------

    def _norm(self, instruction: Instruction, ready, image: int) -> Process:
        f, config = instruction.fields, self.config
        yield ready(0)
        rows = 1 if Flag.ONE_ROW in instruction.flags else self.live[instruction.image]
        dump = []
        for band in range(-(-rows // config.rows)):
            yield ready(band)
            if self.rng.random() < 0.5:
                yield always
            start = f["res_base"] + band * f["res_stride"]
            tokens = range(band * config.rows, min((band + 1) * config.rows, rows))
            x = self.residual.data[:, :, start : start + f["res_stride"]]
            x = x.reshape(config.rows, config.groups, -1, config.lanes).transpose(0, 2, 1, 3)
            x = x.reshape(config.rows, -1)[: len(tokens), : f["dim"]]
            dim = slice(0, f["dim"])
            if f["kind"] == NormKind.DUMP:
                dump.append(x)
            elif f["kind"] == NormKind.TOKENS:
                gain, offset = self.norm_g[f["slot"], dim], self.norm_b[f["slot"], dim]
                dump.append(token_values(x, gain, offset, f["shift"]))
            else:
                y = layernorm(x, self.norm_g[f["slot"], dim], self.norm_b[f["slot"], dim], f["shift"])
                if self.rng.random() < 0.5:
                    yield always
                for token, row in zip(tokens, y, strict=True):
                    self._write_row(f["dst_base"], token, f["dst_stride"], row)
            self.bands[Engine.NORM] += 1
        if dump:
            kind = Record.TOKENS if f["kind"] == NormKind.TOKENS else Record.CHECKPOINT
            self._emit(image, kind, instruction.tag, np.concatenate(dump))
        if Flag.LAST in instruction.flags:
            self.ended += self.part.images

    def _select(self, instruction: Instruction, ready, image: int) -> Process:
        f = instruction.fields
        yield ready(0)
        scores = self.score[f["table"] : f["table"] + self.live[instruction.image]]
        keep = select(scores, f["keep"], f["threshold"])
        yield always
        self.source[f["table"] : f["table"] + len(keep)] = keep
        if self.place.valid[f["from"] : f["from"] + 1].any():  # of a network with rotary positions
            self.place[f["to"] : f["to"] + len(keep)] = self.place[f["from"] + keep]
        self.live[instruction.image] = len(keep)
        self._emit(image, Record.KEPT, instruction.tag, keep)

    def _recv(self, instruction: Instruction, ready, _: int) -> Process:
        f, rows = instruction.fields, self.config.rows
        patches = self.images.popleft()
        patches = np.pad(patches, ((f["prefix"], 0), (0, 8 * f["row_words"] - patches.shape[1])))
        assert len(patches) == f["rows"]
        for band in range(-(-f["rows"] // rows)):
            yield ready(band)
            for token in range(band * rows, min((band + 1) * rows, f["rows"])):
                self._write_row(f["dst_base"], token, f["dst_stride"], patches[token])
            self.bands[Engine.RECV] += 1
