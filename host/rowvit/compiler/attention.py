# SPDX-License-Identifier: Apache-2.0
"""Lowering of the first half of a layer: attention, token selection, projection."""

from __future__ import annotations

from collections.abc import Collection

from rowvit.compiler.lower import Lowering
from rowvit.compiler.steps import Access, Block, Memory, compute_read, compute_write
from rowvit.compiler.weights import pad_heads
from rowvit.formats.program import Operation, OperationKind
from rowvit.hardware.isa import Dst, Engine, Flag, Op


def attention(lowering: Lowering, layer: int, before: int, after: int) -> None:
    """The layer has at most ``before`` tokens, and ``after`` from its projection on."""
    params = lowering.meta["params"]["layers"][layer]
    prune = next((p for p in lowering.meta["pruning"] if p["layer"] == layer), None)
    half = _Attention(lowering, layer, before)
    lowering.row_norm(layer, f"layers.{layer}.norm1", params["norm1.shift"], half.x)
    for first in range(0, lowering.plan.heads, lowering.config.groups):
        half.heads(first, scored=prune is not None)
    if prune:
        accesses = [
            Access(Engine.SELECT, False, Memory.SCORE, 0, 1),
            Access(Engine.SELECT, True, Memory.LIVE, 0, 1, banded=False),
        ]
        fields = dict(keep=prune["keep"], threshold=prune["threshold"])
        lowering.step(Op.SELECT, Operation(OperationKind.SELECT, layer), accesses, tag=layer, **fields)
        lowering.output_bytes += 8 + 8 * -(-after // 4)
    half.projection(gather=prune is not None, after=after)
    lowering.dump(layer, 1 + 2 * layer, after)


class _Attention:
    """Regions and lines of one layer's attention."""

    def __init__(self, lowering: Lowering, layer: int, tokens: int) -> None:
        self.lowering, self.layer, self.tokens = lowering, layer, tokens
        self.plan = plan = lowering.plan
        self.params = lowering.meta["params"]["layers"][layer]
        self.x, self.rows = plan.attention_regions(tokens)
        self.bands = self.x.bands
        self.kt_lines, self.v_lines = plan.kt_lines(tokens), plan.v_lines(tokens)
        self.kt_base = lowering.config.weight_depth - self.kt_lines
        self.v_base = self.kt_base - self.v_lines
        self.head_words = lowering.config.lanes // 8  #: of a row of Q or O

    def heads(self, first: int, scored: bool) -> None:
        """As many heads from ``first`` on as there are groups."""
        lowering = self.lowering
        groups = min(lowering.config.groups, self.plan.heads - first)
        # Q first: its weights and K's are out of the way when K^T and V need their lines. Where it
        # replaces X it comes last.
        in_place = self.rows.base < self.x.end and first + groups == self.plan.heads
        parts = [OperationKind.QUERY, OperationKind.KEY, OperationKind.VALUE]
        made = {}
        for kind in [*parts[1:], parts[0]] if in_place else parts:
            made[kind] = len(lowering.steps)
            self._part(kind, first, groups)
        flags = [Flag.SCORE] if scored else []
        self._attend(first, groups, [*flags, Flag.SCORE_CLEAR] if scored and first == 0 else flags)
        last = len(lowering.steps) - 1
        lowering.reserved += [
            Block(Memory.WEIGHT, self.kt_lines, made[OperationKind.KEY], last, self.kt_base),
            Block(Memory.WEIGHT, self.v_lines, made[OperationKind.VALUE], last, self.v_base),
        ]

    def _part(self, kind: OperationKind, first: int, groups: int) -> None:
        """Q, K or V of some heads."""
        lowering, config, plan = self.lowering, self.lowering.config, self.plan
        tensors, path = lowering.tensors, f"layers.{self.layer}.{kind.value}"
        if kind is OperationKind.QUERY:
            dst, offset = Dst.TOKEN, first * self.head_words
            target = self.rows.write(groups * self.head_words, offset)
            fields = dict(dst_base=self.rows.base + offset, dst_stride=self.rows.stride)
        elif kind is OperationKind.KEY:
            dst, fields = Dst.KEY, dict(dst_base=self.kt_base)
            target = compute_write(Memory.WEIGHT, self.kt_base, self.kt_lines, banded=False)
        else:
            dst, fields = Dst.VALUE, dict(dst_base=self.v_base)
            target = compute_write(Memory.WEIGHT, self.v_base, config.rows, config.rows, self.bands)
        bias, mult, weight = (
            pad_heads(tensors[f"{path}.{name}"], plan.head_dim, first, groups, config.lanes)
            for name in ("bias", "mult", "weight")
        )
        lowering.matmul(
            Operation(kind, self.layer, tile=first // config.groups),
            dst,
            [self.x.read(plan.words), target],
            lowering.linear(weight, bias, mult, groups),
            (),
            **self.x.source(),
            k=plan.dim,
            shift=self.params[f"{kind.value}.shift"],
            bands=self.bands,
            **fields,
        )

    def _attend(self, first: int, groups: int, flags: Collection[Flag]) -> None:
        rows, plan, params = self.rows, self.plan, self.params
        offset, width = first * self.head_words, groups * self.head_words
        accesses = [
            rows.read(width, offset),
            compute_read(Memory.WEIGHT, self.kt_base, self.kt_lines, 0, self.bands),
            compute_read(Memory.WEIGHT, self.v_base, self.v_lines, 0, self.bands),
            rows.write(width, offset),
            compute_write(Memory.TOKEN, rows.end, plan.p_words(self.tokens), banded=False),
            Access(Engine.EXEC, False, Memory.LIVE, 0, 1),
        ]
        if flags:
            accesses.append(compute_write(Memory.SCORE, 0, 1))
        self.lowering.step(
            Op.ATTN,
            Operation(OperationKind.ATTENTION, self.layer, tile=first // self.lowering.config.groups),
            accesses,
            flags,
            q_base=rows.base + offset,
            q_stride=rows.stride,
            head_dim=-(-plan.head_dim // 8) * 8,
            groups=groups,
            kt_base=self.kt_base,
            v_base=self.v_base,
            p_base=rows.end,
            p_stride=plan.p_stride(self.tokens),
            o_base=rows.base + offset,
            o_stride=rows.stride,
            s_mult=params["s_mult"],
            s_shift=params["s_shift"],
            pv_shift=params["pv_shift"],
        )

    def projection(self, gather: bool, after: int) -> None:
        """Adds to the residual stream of the ``after`` tokens that stay."""
        lowering, plan, rows = self.lowering, self.plan, self.rows
        bands, lanes = lowering.config.bands(after), lowering.config.lanes
        path = f"layers.{self.layer}.proj"
        bias, mult, weight = (lowering.tensors[f"{path}.{name}"] for name in ("bias", "mult", "weight"))
        weight = pad_heads(weight.T, plan.head_dim, 0, plan.heads, lanes).T
        # a gathered band's rows may come from anywhere
        anywhere = compute_read(Memory.TOKEN, rows.base, rows.end - rows.base, 0, bands)
        source = anywhere if gather else rows.read(plan.heads_words)
        for tile, (_, channels, groups) in enumerate(plan.residual_tiles()):
            lowering.residual_matmul(
                Operation(OperationKind.PROJECTION, self.layer, tile=tile),
                source,
                lowering.linear(weight[:, channels], bias[channels], mult[channels], groups),
                [Flag.GATHER] if gather else [],
                bands,
                **rows.source(),
                k=len(weight),
                shift=self.params["proj.shift"],
            )
