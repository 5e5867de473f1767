# SPDX-License-Identifier: Apache-2.0
"""From a model package to steps: every instruction but the loads, and what each step needs loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from rowvit.compiler.hazards import Access, Memory
from rowvit.errors import RowvitError
from rowvit.formats.package import MAX_K, ModelPackage
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import QUEUE, Dst, Engine, Flag, Instruction, LoadKind, NormKind, Op

EMBED_TAG = 255
ALL_BANDS = 0xFFFF


@dataclass(eq=False)
class Block:
    """Room for loaded data: lines of weight memory, or one parameter or norm slot (size 1)."""

    memory: Memory
    size: int
    first: int = -1  #: first step that uses it
    last: int = -1  #: last step that uses it
    base: int = -1  #: where it is, once the scheduler has decided
    only: int = -1  #: the one base that it may have; -1: any


@dataclass(eq=False)
class Load:
    """One LOAD instruction, to be placed before the first step that uses its block."""

    kind: LoadKind
    address: int  #: byte offset in the weights
    rows: int
    groups: int
    block: Block | None  #: None: residual memory
    offset: int = 0  #: lines from the block's base; residual address
    mask: Access | None = None  #: GATHER: the mask words
    after: int = -1  #: step that it must not overtake: what completes the mask, or reads what it overwrites
    band0: int = 0
    had: Access | None = None  #: REST: the mask words of an earlier load of the same rows
    previous: bool = False  #: for the image before


@dataclass(frozen=True)
class Mask:
    """Mask words of one hidden tile, complete after ``step``; for bands from ``band0``."""

    step: int
    start: int  #: first neuron within the chunk
    words: Access
    band0: int = 0
    had: Access | None = None  #: the words for the bands before ``band0``


@dataclass(eq=False)
class Reserved:
    """Lines that hold K^T or V from step ``first`` to step ``last``."""

    base: int
    size: int
    first: int
    last: int


@dataclass(eq=False)
class Step:
    """One instruction with the accesses that do not depend on where its loads go."""

    instruction: Instruction
    accesses: list[Access]
    layer: int
    name: str
    loads: list[Load] = field(default_factory=list)
    weights: Block | None = None
    params: Block | None = None


def compute_read(
    memory: Memory, base: int, width: int, stride: int = 0, bands: int = 1, first: int = 0
) -> Access:
    return Access(Engine.EXEC, False, memory, base, width, stride, bands, first)


def compute_write(
    memory: Memory, base: int, width: int, stride: int = 0, bands: int = 1, first: int = 0, banded=True
) -> Access:
    return Access(Engine.DRAIN, True, memory, base, width, stride, bands, first, banded)


@dataclass(frozen=True)
class Region:
    """Token memory: band p at ``base + p * stride``."""

    base: int
    stride: int
    bands: int

    @property
    def end(self) -> int:
        return self.base + self.stride * self.bands


def tokens_per_layer(meta: dict) -> list[tuple[int, int]]:
    """Upper bounds of live tokens (in attention, after it) of every layer."""
    live = meta["architecture"]["tokens"]
    prune = {p["layer"]: p["keep"] for p in meta["pruning"]}
    bounds = []
    for layer in range(meta["architecture"]["depth"]):
        after = min(live, prune.get(layer, live) + 1)
        bounds.append((live, after))
        live = after
    return bounds


class Lowering:
    """Steps, reservations and weight bytes of one pass: the head of the image before, beside the patch
    embedding of this one, and its layers.

    Parameters
    ----------
    package : ModelPackage
    config : HardwareConfig
    checkpoints : bool
        Also dump the residual stream after the embedding and after each half layer.

    Raises
    ------
    RowvitError
        The network does not fit the configuration; the message has the numbers.
    """

    def __init__(self, package: ModelPackage, config: HardwareConfig, checkpoints: bool) -> None:
        self.package, self.config, self.checkpoints = package, config, checkpoints
        self.meta = package.meta
        self.arch = package.meta["architecture"]
        self.steps: list[Step] = []
        self.reserved: list[Reserved] = []
        self.data: list[np.ndarray] = []
        self.data_bytes = 0
        self.norms = 0
        self.output_bytes = 0
        self.bounds = tokens_per_layer(self.meta)
        self.tokens = self.arch["tokens"]
        self.dim = self.arch["dim"]
        self.head_dim = self.dim // self.arch["heads"]
        self.dim_tiles = -(-self.dim // config.tile)
        self.res_stride = self.dim_tiles * config.lanes
        self.row_words = -(-self.arch["channels"] * self.arch["patch_size"] ** 2 // 8)
        #: one head takes `lanes` channels of a Q, K, V or O row, whatever its width
        self.heads_words = self.arch["heads"] * config.lanes // 8
        self._check()
        self._begin()
        for layer, (before, after) in enumerate(self.bounds):
            self._attention(layer, before, after)
            self._ffn(layer, after)

    # -- checks ---------------------------------------------------------------------------------

    def _check(self) -> None:
        config, arch = self.config, self.arch
        name = f"'{self.meta['name']}' on '{config.name}'"

        def need(value: int, limit: int, what: str) -> None:
            if value > limit:
                raise RowvitError(f"{name} needs {what}: {value}, available: {limit}")

        need(self.tokens, config.max_tokens, "tokens")
        need(self.dim, config.max_dim, "LayerNorm channels")
        need(self.head_dim, config.lanes, "channels per head")
        need(arch["heads"] * config.lanes, MAX_K, "terms in the projection, a head padded to the lanes")
        need(8 * self.row_words, MAX_K, "terms in the patch embedding")
        need(arch["depth"], EMBED_TAG // 2, "layers")
        if self.dim % config.lanes:
            raise RowvitError(f"{name}: dim {self.dim} is not a multiple of the {config.lanes} lanes")
        chunk = min(self.meta["ffn_chunk"], arch["hidden"])
        chunk_lines = -(-chunk // config.lanes) * config.lanes
        need(chunk_lines, MAX_K, "terms in an FFN2 chunk (ffn_chunk, padded to the lanes)")
        need(config.bands(self.tokens) * self.res_stride, config.residual_depth, "residual memory addresses")
        need(8 * self.row_words, config.weight_depth, "weight lines for the patch embedding")
        need(chunk_lines, config.weight_depth, "weight lines for an FFN2 chunk")
        need(
            self.dim + self._kt_lines(self.tokens) + config.bands(self.tokens) * config.rows,
            config.weight_depth,
            f"weight lines for attention ({self.dim} of V's weights, {self._kt_lines(self.tokens)} of K^T,"
            f" {config.bands(self.tokens) * config.rows} of V)",
        )
        need(arch["heads"] * config.lanes, config.weight_depth, "weight lines for the projection")
        if self.meta["ffn2_rule"] == "tile" and self.meta["tile_rows"] % config.rows:
            raise RowvitError(
                f"{name}: tile_rows {self.meta['tile_rows']} is not a multiple of {config.rows},"
                " the rows of a band"
            )

        bands = config.bands(self.tokens)
        words = self.dim // 8
        self.patches = Region(config.token_depth - self.row_words * bands, self.row_words, bands)
        # the first LayerNorm writes X band by band behind the patch embedding's reads
        behind = max(
            (words * (p + 1) - self.row_words * (p + 1) for p in range(bands - 1)),
            default=words - self.row_words,
        )
        need(self.row_words * bands + max(behind, 0), config.token_depth, "token words for patches beside X")
        for before, after in set(self.bounds):
            _, rows = self._attention_regions(before)
            need(
                rows.end + self._p_words(before),
                config.token_depth,
                f"token words for X, Q and P of {before} tokens",
            )
            ffn = config.bands(after) * (words + self._hidden_stride(chunk))
            need(ffn, config.token_depth, f"token words for X and {chunk} hidden neurons of {after} tokens")

    def _attention_regions(self, tokens: int) -> tuple[Region, Region]:
        """X, and the rows of all heads' Q, which O replaces; P follows them.

        Where the token memory is too small for both, X is a part of those rows: the heads of the last pass
        over the groups have their Q in its place.
        """
        config, words = self.config, self.dim // 8
        bands = config.bands(tokens)
        x = Region(0, words, bands)
        rows = Region(x.end, self.heads_words, bands)
        if rows.end + self._p_words(tokens) <= config.token_depth:
            return x, rows
        before = (self.arch["heads"] - 1) // config.groups * config.groups * config.lanes // 8
        stride = max(before + words, self.heads_words)
        return Region(before, stride, bands), Region(0, stride, bands)

    def _kt_lines(self, tokens: int) -> int:
        return -(-tokens // self.config.lanes) * self.config.lanes

    def _p_stride(self, tokens: int) -> int:
        return -(-tokens // self.config.lanes) * self.config.segment_words

    def _p_words(self, tokens: int) -> int:
        return 2 * self.config.groups * self._p_stride(tokens)

    @property
    def _hidden_segment(self) -> int:
        """Words of LANES hidden values: without a mask rule they are stored dense."""
        return self.config.lanes // 8 if self.meta["ffn2_rule"] == "none" else self.config.segment_words

    def _hidden_stride(self, chunk: int) -> int:
        return -(-chunk // self.config.lanes) * self._hidden_segment

    # -- data -----------------------------------------------------------------------------------

    def _append(self, array: np.ndarray) -> int:
        """Add bytes to the weights; their offset, a multiple of 64."""
        raw = np.ascontiguousarray(array).view(np.uint8).ravel()
        offset = self.data_bytes
        raw = np.concatenate([raw, np.zeros(-raw.size % 64, np.uint8)])
        self.data.append(raw)
        self.data_bytes += raw.size
        return offset

    def _lanes(self, array: np.ndarray, groups: int) -> np.ndarray:
        """Zero-pad the last axis to ``groups`` * LANES channels."""
        pad = groups * self.config.lanes - array.shape[-1]
        return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, pad)])

    def _weight_load(self, matrix: np.ndarray, groups: int) -> tuple[Load, Block]:
        """Matrix int8 [k, groups * LANES], k padded with zero rows to whole words of scalars."""
        matrix = np.pad(matrix, ((0, -len(matrix) % 8), (0, 0)))
        block = Block(Memory.WEIGHT, len(matrix))
        address = self._append(pack_pairs(matrix))
        return Load(LoadKind.WEIGHT, address, len(matrix), groups, block), block

    def _param_load(self, bias: np.ndarray, mult: np.ndarray, groups: int) -> tuple[Load, Block]:
        words = self._lanes(_words(bias, mult), groups)
        block = Block(Memory.PARAM, 1)
        return Load(LoadKind.PARAM, self._append(words), 1, groups, block), block

    # -- steps ----------------------------------------------------------------------------------

    def _step(self, op: Op, name: str, layer: int, accesses: list[Access], flags=(), tag=0, **fields) -> Step:
        step = Step(Instruction(op, fields, frozenset(flags), tag), accesses, layer, name)
        self.steps.append(step)
        return step

    def _use(self, step: Step, *pairs: tuple[Load, Block]) -> None:
        """``step``, the newest one, uses these loads' blocks; parameters are loaded before weights."""
        index = len(self.steps) - 1
        for load, block in sorted(pairs, key=lambda pair: pair[1].memory is Memory.WEIGHT):
            if block.first < 0:
                block.first = index
                load.previous = Flag.PREVIOUS in step.instruction.flags
                step.loads.append(load)
            block.last = index
            if block.memory is Memory.WEIGHT:
                step.weights = block
            else:
                step.params = block

    def _matmul(
        self,
        name: str,
        layer: int,
        dst: Dst,
        source: Access,
        target: list[Access],
        groups: int,
        loads: list[tuple[Load, Block]],
        flags=(),
        tag=0,
        **fields,
    ) -> Step:
        accesses = [source, *target]
        if Flag.SET_LIVE in flags:
            accesses.append(Access(Engine.EXEC, True, Memory.LIVE, 0, 1))
        elif Flag.ONE_ROW not in flags:
            accesses.append(Access(Engine.EXEC, False, Memory.LIVE, 0, 1))
        step = self._step(Op.MATMUL, name, layer, accesses, flags, tag, dst=dst, groups=groups, **fields)
        self._use(step, *loads)
        return step

    def _row_norm(self, name: str, layer: int, path: str, shift: int, x: Region, flags=()) -> None:
        """LayerNorm of the residual stream into X."""
        config, bands, words = self.config, x.bands, self.dim // 8
        accesses = [
            Access(Engine.NORM, False, Memory.RESIDUAL, 0, self.res_stride, self.res_stride, bands),
            Access(Engine.NORM, True, Memory.TOKEN, x.base, words, x.stride, bands),
        ]
        if Flag.ONE_ROW not in flags:
            accesses.append(Access(Engine.NORM, False, Memory.LIVE, 0, 1))
        step = self._step(
            Op.NORM,
            name,
            layer,
            accesses,
            flags,
            kind=NormKind.LAYERNORM,
            dim=self.dim,
            res_stride=self.res_stride,
            dst_base=x.base,
            dst_stride=x.stride,
            shift=shift,
        )
        tensors = self.package.tensors
        block = Block(Memory.NORM, 1)
        words = _words(tensors[f"{path}.b"], tensors[f"{path}.g"].view(np.uint16))
        load = Load(LoadKind.NORM, self._append(words), self.dim, config.groups, block)
        self._use(step, (load, block))

    def _dump(self, name: str, layer: int, tag: int, tokens: int) -> None:
        if not self.checkpoints:
            return
        bands = self.config.bands(tokens)
        accesses = [
            Access(Engine.NORM, False, Memory.RESIDUAL, 0, self.res_stride, self.res_stride, bands),
            Access(Engine.NORM, False, Memory.LIVE, 0, 1),
        ]
        fields = dict(kind=NormKind.DUMP, dim=self.dim, res_stride=self.res_stride)
        self._step(Op.NORM, name, layer, accesses, tag=tag, **fields)
        self.output_bytes += 8 + 2 * self.dim * tokens

    def _mark(self, tag: int) -> None:
        """The newest array operation emits a MARK record."""
        step = next(s for s in reversed(self.steps) if QUEUE[s.instruction.op] is Engine.EXEC)
        step.instruction.flags |= {Flag.MARK}
        step.instruction.tag = tag
        self.output_bytes += 16

    def _residual_tiles(self) -> list[tuple[int, slice, int]]:
        """(address offset, channels, active groups) of every lane tile of the residual stream."""
        lanes, tile = self.config.lanes, self.config.tile
        return [
            (
                t * lanes,
                slice(t * tile, min((t + 1) * tile, self.dim)),
                -(-min(tile, self.dim - t * tile) // lanes),
            )
            for t in range(self.dim_tiles)
        ]

    def _residual_write(self, base: int, bands: int, band0: int = 0) -> Access:
        return compute_write(
            Memory.RESIDUAL,
            base + band0 * self.res_stride,
            self.config.lanes,
            self.res_stride,
            bands,
            band0,
        )

    def _begin(self) -> None:
        """Patch embedding, and the head of the image before.

        The head takes many weights for little work, the embedding few for much: where the weight memory
        has room for both, a lane tile of the head goes before each piece of the embedding but the first.
        """
        config, package = self.config, self.package
        region = self.patches
        head = self._head()
        next(head)  # its LayerNorm, before the residual stream is overwritten
        pieces, between = self._embed_pieces()
        if not between:
            list(head)
        receive = Access(
            Engine.RECV, True, Memory.TOKEN, region.base, region.stride, region.stride, region.bands
        )
        receiver = self._step(
            Op.RECV,
            "patches",
            -1,
            [receive],
            rows=self.tokens,
            prefix=self.arch["prefix"],
            row_words=self.row_words,
            dst_base=region.base,
            dst_stride=region.stride,
        )
        weight, mult = package.tensors["patch.weight"], package.tensors["patch.mult"]
        positions = self._position_loads(pieces)
        positions[0].after = 0
        for base, channels, groups in self._residual_tiles():
            loads = [
                self._param_load(np.zeros_like(mult[channels], np.int32), mult[channels], groups),
                self._weight_load(weight[:, channels], groups),
            ]
            if base == 0:
                loads[1][1].only = 0  # so that what is left for the head is in a row
                # the memory's bandwidth is for the weights first: the array can follow the patches
                self._use(receiver, loads[1])
                receiver.loads.append(positions[0])
            for number, (band0, bands) in enumerate(pieces):
                if base == 0:
                    for _ in range(between.get(number, 0)):
                        next(head)
                first = base == 0 and band0 == 0
                step = self._matmul(
                    f"patch.{base // config.lanes}" + (f".{band0}" if band0 else ""),
                    -1,
                    Dst.RESIDUAL,
                    compute_read(
                        Memory.TOKEN,
                        region.base + band0 * region.stride,
                        region.stride,
                        region.stride,
                        bands,
                        band0,
                    ),
                    [self._residual_write(base, bands, band0)],
                    groups,
                    loads,
                    [Flag.SET_LIVE] if first else [],
                    src_base=region.base,
                    src_stride=region.stride,
                    k=8 * self.row_words,
                    dst_base=base,
                    dst_stride=self.res_stride,
                    shift=self.meta["params"]["patch.shift"],
                    band0=band0,
                    bands=bands,
                    rows=self.tokens if first else 0,
                )
                if base == 0 and band0:
                    step.loads.insert(0, positions[band0])
        self._mark(EMBED_TAG)
        self._dump("embed", -1, 0, self.tokens)

    def _embed_pieces(self) -> tuple[list[tuple[int, int]], dict[int, int]]:
        """Pieces (first band, bands), and how many lane tiles of the head go before which piece.

        A piece is at most twice as long as the one before, during which its part of the position table is
        loaded. The head waits for some pieces, until most patches have come in: they share the bandwidth.
        """
        bands = self.patches.bands
        tiles = -(-self.arch["classes"] // self.config.tile)
        lines = 8 * self.row_words + -(-self.dim // 8) * 8
        beside = lines <= self.config.weight_depth and self.config.param_slots > 2
        alone = bands * 9 // 20 if beside else bands
        pieces, band0, size = [], 0, 4
        while band0 < alone:
            # a small rest goes with the piece before it
            take = size if alone - band0 >= 2 * size else alone - band0
            pieces.append((band0, take))
            band0, size = band0 + take, 2 * take
        if not beside:
            return pieces, {}
        rest, first = bands - band0, len(pieces)
        count = max(1, min(tiles, rest // 8), -(-rest // size))
        edges = [band0 + rest * i // count for i in range(count + 1)]
        pieces += [(start, end - start) for start, end in pairwise(edges)]
        before = [first + tile * count // tiles for tile in range(tiles)]
        return pieces, {number: before.count(number) for number in before}

    def _position_loads(self, pieces: list[tuple[int, int]]) -> dict[int, Load]:
        """The position table in the residual memory's layout, bank by bank: first band -> piece."""
        config = self.config
        bands, tiles = self.patches.bands, self.dim_tiles
        table = np.zeros((bands * config.rows, tiles * config.tile), np.int16)
        table[: self.tokens, : self.dim] = self.package.tensors["pos"]
        table = table.reshape(bands, config.rows, tiles, config.groups, config.lanes)
        banks = table.transpose(0, 2, 4, 1, 3).reshape(bands * self.res_stride, config.rows * config.groups)
        banks = np.pad(banks, ((0, 0), (0, max(0, 4 - banks.shape[1]))))
        loads = {}
        for band0, count in pieces:
            start, rows = band0 * self.res_stride, count * self.res_stride
            address = self._append(banks[start : start + rows])
            loads[band0] = Load(LoadKind.RESIDUAL, address, rows, config.groups, None, start)
        return loads

    def _attention(self, layer: int, before: int, after: int) -> None:
        config, package, meta = self.config, self.package, self.meta
        params = meta["params"]["layers"][layer]
        prune = next((p for p in meta["pruning"] if p["layer"] == layer), None)
        lanes, bands = config.lanes, config.bands(before)
        x, rows = self._attention_regions(before)
        self._row_norm("norm1", layer, f"layers.{layer}.norm1", params["norm1.shift"], x)
        kt_base = config.weight_depth - self._kt_lines(before)
        v_lines = bands * config.rows
        v_base = kt_base - v_lines
        source = compute_read(Memory.TOKEN, x.base, self.dim // 8, x.stride, bands)
        heads = self.arch["heads"]
        for first in range(0, heads, config.groups):
            groups = min(config.groups, heads - first)
            offset, width = first * lanes // 8, groups * lanes // 8
            head_rows = (Memory.TOKEN, rows.base + offset, width, rows.stride, bands)
            kt = (Memory.WEIGHT, kt_base, self._kt_lines(before))
            v_rows = (Memory.WEIGHT, v_base, config.rows, config.rows, bands)
            targets = {
                "q": (
                    Dst.TOKEN,
                    compute_write(*head_rows),
                    dict(dst_base=rows.base + offset, dst_stride=rows.stride),
                ),
                "k": (Dst.KEY, compute_write(*kt, banded=False), dict(dst_base=kt_base)),
                "v": (Dst.VALUE, compute_write(*v_rows), dict(dst_base=v_base)),
            }
            # Q first: its weights and K's are out of the way when K^T and V need their lines. Where it
            # replaces X it comes last.
            in_place = rows.base < x.end and first + groups == heads
            made = {}
            for part in "kvq" if in_place else "qkv":
                dst, target, fields = targets[part]
                path = f"layers.{layer}.{part}"
                made[part] = len(self.steps)
                self._matmul(
                    f"{part}.{first // config.groups}",
                    layer,
                    dst,
                    source,
                    [target],
                    groups,
                    [
                        self._param_load(
                            self._heads(package.tensors[f"{path}.bias"], first, groups),
                            self._heads(package.tensors[f"{path}.mult"], first, groups),
                            groups,
                        ),
                        self._weight_load(
                            self._heads(package.tensors[f"{path}.weight"], first, groups), groups
                        ),
                    ],
                    src_base=x.base,
                    src_stride=x.stride,
                    k=self.dim,
                    shift=params[f"{part}.shift"],
                    bands=bands,
                    **fields,
                )
            accesses = [
                compute_read(*head_rows),
                compute_read(Memory.WEIGHT, kt_base, self._kt_lines(before), 0, bands),
                compute_read(Memory.WEIGHT, v_base, v_lines, 0, bands),
                compute_write(*head_rows),
                compute_write(Memory.TOKEN, rows.end, self._p_words(before), banded=False),
                Access(Engine.EXEC, False, Memory.LIVE, 0, 1),
            ]
            flags = set()
            if prune:
                flags = {Flag.SCORE, Flag.SCORE_CLEAR} if first == 0 else {Flag.SCORE}
                accesses.append(compute_write(Memory.SCORE, 0, 1))
            self._step(
                Op.ATTN,
                f"attn.{first // config.groups}",
                layer,
                accesses,
                flags,
                q_base=rows.base + offset,
                q_stride=rows.stride,
                head_dim=-(-self.head_dim // 8) * 8,
                groups=groups,
                kt_base=kt_base,
                v_base=v_base,
                p_base=rows.end,
                p_stride=self._p_stride(before),
                o_base=rows.base + offset,
                o_stride=rows.stride,
                s_mult=params["s_mult"],
                s_shift=params["s_shift"],
                pv_shift=params["pv_shift"],
            )
            last = len(self.steps) - 1
            self.reserved.append(Reserved(kt_base, self._kt_lines(before), made["k"], last))
            self.reserved.append(Reserved(v_base, v_lines, made["v"], last))
        if prune:
            accesses = [
                Access(Engine.SELECT, False, Memory.SCORE, 0, 1),
                Access(Engine.SELECT, True, Memory.LIVE, 0, 1, banded=False),
            ]
            fields = dict(keep=prune["keep"], threshold=prune["threshold"])
            self._step(Op.SELECT, "select", layer, accesses, tag=layer, **fields)
            self.output_bytes += 8 + 8 * -(-after // 4)
        self._projection(layer, rows, prune is not None, after)
        self._dump("attn", layer, 1 + 2 * layer, after)

    def _heads(self, array: np.ndarray, first: int, groups: int) -> np.ndarray:
        """Columns of heads ``first`` to ``first + groups - 1``, each padded to LANES."""
        heads = array.reshape(*array.shape[:-1], -1, self.head_dim)[..., first : first + groups, :]
        pad = [(0, 0)] * (heads.ndim - 1) + [(0, self.config.lanes - self.head_dim)]
        return np.pad(heads, pad).reshape(*array.shape[:-1], groups * self.config.lanes)

    def _projection(self, layer: int, rows: Region, gather: bool, after: int) -> None:
        tensors, bands = self.package.tensors, self.config.bands(after)
        path = f"layers.{layer}.proj"
        padded = self._heads(tensors[f"{path}.weight"].T, 0, self.arch["heads"]).T
        if gather:  # a band's rows may come from anywhere
            source = compute_read(Memory.TOKEN, rows.base, rows.end - rows.base, 0, bands)
        else:
            source = compute_read(Memory.TOKEN, rows.base, self.heads_words, rows.stride, bands)
        for base, channels, groups in self._residual_tiles():
            self._matmul(
                f"proj.{base // self.config.lanes}",
                layer,
                Dst.RESIDUAL,
                source,
                [self._residual_write(base, bands)],
                groups,
                [
                    self._param_load(
                        tensors[f"{path}.bias"][channels], tensors[f"{path}.mult"][channels], groups
                    ),
                    self._weight_load(padded[:, channels], groups),
                ],
                [Flag.GATHER] if gather else [],
                src_base=rows.base,
                src_stride=rows.stride,
                k=len(padded),
                dst_base=base,
                dst_stride=self.res_stride,
                shift=self.meta["params"]["layers"][layer]["proj.shift"],
                bands=bands,
            )

    # -- FFN ------------------------------------------------------------------------------------

    def _ffn(self, layer: int, tokens: int) -> None:
        config, meta = self.config, self.meta
        hidden, chunk = self.arch["hidden"], min(meta["ffn_chunk"], self.arch["hidden"])
        params = meta["params"]["layers"][layer]
        x = Region(0, self.dim // 8, config.bands(tokens))
        self._row_norm("norm2", layer, f"layers.{layer}.norm2", params["norm2.shift"], x)
        chunks = [slice(c, min(c + chunk, hidden)) for c in range(0, hidden, chunk)]
        words = self._hidden_stride(chunk) * x.bands
        # with room for two chunks the next FFN1 runs while the masked rows of W2 come in
        buffers = min(len(chunks), 2, (config.token_depth - x.end) // words)
        masks = self._mask_words(tokens, chunk)
        mask_buffers = min(len(chunks), config.mask_depth // masks if masks else len(chunks))
        buffers = min(buffers, mask_buffers)
        if buffers < 1:
            raise RowvitError(
                f"'{meta['name']}' on '{config.name}' needs mask words for one FFN2 chunk: {masks},"
                f" available: {config.mask_depth}; take a greater tile_rows or a smaller ffn_chunk"
            )
        pending: list[tuple] = []
        for c, neurons in enumerate(chunks):
            region = Region(
                x.end + c % buffers * words, self._hidden_stride(neurons.stop - neurons.start), x.bands
            )
            mask_base = c % mask_buffers * masks
            made = self._ffn1(layer, x, neurons, region, mask_base, buffers == 1)
            pending.append((layer, c, neurons, region, mask_base, made))
            if len(pending) == buffers:
                self._ffn2(*pending.pop(0))
        for late in pending:
            self._ffn2(*late)
        self._mark(layer)
        self._dump("ffn", layer, 2 + 2 * layer, tokens)

    def _row_tiles(self, tokens: int) -> list[tuple[int, int]]:
        """(first band, bands) of every row tile that has a mask of its own."""
        bands = self.config.bands(tokens)
        if self.meta["ffn2_rule"] != "tile":
            return [(0, bands)]
        step = self.meta["tile_rows"] // self.config.rows
        return [(band, min(step, bands - band)) for band in range(0, bands, step)]

    def _mask_words(self, tokens: int, chunk: int) -> int:
        if self.meta["ffn2_rule"] == "none":
            return 0
        words = len(self._row_tiles(tokens)) * -(-chunk // self.config.lanes)
        return words + self.config.groups if self.meta["ffn2_rule"] == "image" else words

    def _late_bands(self, bands: int) -> int:
        """Bands of a hidden tile whose FFN1 takes as long as half of its rows of W2 take to load."""
        late = -(-self.config.tile * self.config.groups * self.config.lanes // (16 * self.dim))
        return late if bands >= 2 * late else 0

    def _ffn1(
        self, layer: int, x: Region, neurons: slice, region: Region, mask_base: int, hurry: bool
    ) -> list[Mask]:
        """FFN1 of one chunk; returns the masks of its hidden tiles, in order.

        In a hurry the last tile's last bands have a mask of their own: almost all rows of W2 are
        known from the bands before, and are loaded meanwhile.
        """
        config, tensors = self.config, self.package.tensors
        lanes, tile = config.lanes, config.tile
        params = self.meta["params"]["layers"][layer]
        count = neurons.stop - neurons.start
        segments = -(-count // lanes)
        rule = self.meta["ffn2_rule"]
        row_tiles = self._row_tiles(x.bands * config.rows)
        mask_bands = {"none": 0, "image": ALL_BANDS, "tile": self.meta["tile_rows"] // config.rows}[rule]
        weight, bias, mult = (
            tensors[f"layers.{layer}.fc1.{n}"][..., neurons] for n in ("weight", "bias", "mult")
        )
        made = []
        for start in range(0, count, tile):
            columns = slice(start, min(start + tile, count))
            groups = -(-(columns.stop - start) // lanes)
            offset = start // lanes * self._hidden_segment
            loads = [
                self._param_load(bias[columns], mult[columns], groups),
                self._weight_load(self._lanes(weight[:, columns], groups), groups),
            ]
            late = self._late_bands(x.bands) if hurry and rule == "image" and columns.stop == count else 0
            word, had = mask_base + start // lanes, None
            for band0, bands in [(0, x.bands - late), (x.bands - late, late)] if late else [(0, x.bands)]:
                row = region.base + offset + band0 * region.stride
                width = groups * self._hidden_segment
                targets = [compute_write(Memory.TOKEN, row, width, region.stride, bands, band0)]
                mask = {}
                if rule != "none":
                    mask = dict(mask_base=word, mask_bands=mask_bands, mask_stride=segments)
                    words = (Memory.MASK, word, groups, segments, len(row_tiles))
                    targets.append(compute_write(*words, banded=False))
                    read = Access(Engine.LOAD, False, Memory.MASK, word, groups, banded=False)
                    made.append(Mask(len(self.steps), start, read, band0, had))
                    word, had = mask_base + segments, read
                self._matmul(
                    f"fc1.{(neurons.start + start) // tile}" + (f".{band0}" if band0 else ""),
                    layer,
                    Dst.HIDDEN,
                    compute_read(Memory.TOKEN, x.base + band0 * x.stride, x.stride, x.stride, bands, band0),
                    targets,
                    groups,
                    loads,
                    src_base=x.base,
                    src_stride=x.stride,
                    k=self.dim,
                    dst_base=region.base + offset,
                    dst_stride=region.stride,
                    shift=params["fc1.shift"],
                    thr=params["thr"],
                    band0=band0,
                    bands=bands,
                    **mask,
                )
        return made

    def _ffn2(
        self, layer: int, chunk: int, neurons: slice, region: Region, mask_base: int, made: list[Mask]
    ) -> None:
        """FFN2 of one chunk, added to the residual stream."""
        config, tensors, rule = self.config, self.package.tensors, self.meta["ffn2_rule"]
        lanes = config.lanes
        segments = region.stride // self._hidden_segment
        path = f"layers.{layer}.fc2"
        mult, bias = tensors[f"{path}.mult"], tensors[f"{path}.bias"]
        if chunk:
            bias = np.zeros_like(bias)
        weight = np.pad(
            tensors[f"{path}.weight"][neurons],
            ((0, segments * lanes - (neurons.stop - neurons.start)), (0, 0)),
        )
        tiles = self._residual_tiles()
        stored = [self._append(pack_pairs(weight[:, channels])) for _, channels, _ in tiles]
        row_tiles = self._row_tiles(region.bands * config.rows)
        # one slot per lane tile serves all row tiles, as long as others have one left
        shared = len(tiles) < config.param_slots
        params = [self._param_load(bias[c], mult[c], groups) for _, c, groups in tiles]
        flags, k = (
            ([Flag.SPARSE, Flag.UNSIGNED], segments)
            if rule != "none"
            else ([Flag.UNSIGNED], segments * lanes)
        )
        for r, (band0, bands) in enumerate(row_tiles):
            start = region.base + band0 * region.stride
            source = compute_read(Memory.TOKEN, start, region.stride, region.stride, bands, band0)
            for t, (base, _, groups) in enumerate(tiles):
                block = Block(Memory.WEIGHT, segments * lanes)
                loads = self._ffn2_loads(stored[t], groups, block, mask_base + r * segments, band0, made)
                param, slot = params[t]
                if not shared:
                    slot = Block(Memory.PARAM, 1)
                    param = Load(param.kind, param.address, 1, groups, slot)
                step = self._matmul(
                    f"fc2.{chunk}.{t}" + (f".{r}" if rule == "tile" else ""),
                    layer,
                    Dst.RESIDUAL,
                    source,
                    [self._residual_write(base, bands, band0)],
                    groups,
                    [(param, slot), (loads[0], block)],
                    flags,
                    src_base=region.base,
                    src_stride=region.stride,
                    k=k,
                    dst_base=base,
                    dst_stride=self.res_stride,
                    shift=self.meta["params"]["layers"][layer]["fc2.shift"],
                    band0=band0,
                    bands=bands,
                )
                step.loads += loads[1:]

    def _ffn2_loads(
        self, address: int, groups: int, block: Block, mask_base: int, band0: int, made: list[Mask]
    ) -> list[Load]:
        """Loads of W2 for one lane tile: all rows, or by mask.

        The first row tile's rows come hidden tile by hidden tile, while FFN1 still makes the next.
        """
        lanes = self.config.lanes
        if self.meta["ffn2_rule"] == "none":
            return [Load(LoadKind.WEIGHT, address, block.size, groups, block)]
        if band0:
            words = Access(Engine.LOAD, False, Memory.MASK, mask_base, block.size // lanes, banded=False)
            made = [Mask(made[-1].step, 0, words, band0)]
        return [
            Load(
                LoadKind.WEIGHT,
                address + mask.start * groups * lanes,
                mask.words.width * lanes,
                groups,
                block,
                mask.start,
                mask.words,
                mask.step,
                mask.band0,
                mask.had,
            )
            for mask in made
        ]

    # -- head -----------------------------------------------------------------------------------

    def _head(self) -> Iterator[None]:
        """LayerNorm, then a lane tile of the classifier each time, for the image before."""
        config, tensors, params = self.config, self.package.tensors, self.meta["params"]
        depth, classes, lanes = self.arch["depth"], self.arch["classes"], config.lanes
        flags = [Flag.ONE_ROW, Flag.PREVIOUS]
        x = Region(0, self.dim // 8, 1)
        self._row_norm("norm", depth, "norm", params["norm.shift"], x, flags)
        self.output_bytes += 8 + 8 * -(-classes // 4)
        source = compute_read(Memory.TOKEN, x.base, x.stride)
        for start in range(0, classes, config.tile):
            yield
            count = min(config.tile, classes - start)
            groups = -(-count // lanes)
            # results stream lane by lane, and within a lane group by group
            order = np.arange(groups * lanes).reshape(lanes, groups).T.ravel()
            weight, bias, mult = (
                self._lanes(tensors[f"head.{n}"][..., start : start + count], groups)[..., order]
                for n in ("weight", "bias", "mult")
            )
            last = start + count == classes
            self._matmul(
                f"head.{start // config.tile}",
                depth,
                Dst.STREAM,
                source,
                [],
                groups,
                [self._param_load(bias, mult, groups), self._weight_load(weight, groups)],
                [*flags, Flag.LAST] if last else flags,
                src_base=x.base,
                src_stride=x.stride,
                k=self.dim,
                shift=params["head.shift"],
                bands=1,
                count=count,
                total=classes if start == 0 else 0,
            )
        yield


def _words(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Parameter words uint64: int32 ``low`` in bits 31:0, uint16 ``high`` in bits 47:32."""
    return low.astype(np.int32).view(np.uint32).astype(np.uint64) | high.astype(np.uint64) << np.uint64(32)


def pack_pairs(weights: np.ndarray) -> np.ndarray:
    """Weights as weight memory holds them: of every pair of lanes the odd one is less by one where the even
    one is negative, so that a multiplier takes both as one number (rtl/array/rowvit_mac_pair.v).

    Parameters
    ----------
    weights : int8 array [..., lanes], lanes even, values in [-127, 127]
    """
    packed = weights.copy()
    packed[..., 1::2] -= weights[..., ::2] < 0
    return packed
