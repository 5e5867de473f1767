# SPDX-License-Identifier: Apache-2.0
"""Lowering of the first half of a layer: attention, token selection, projection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from numpy.typing import NDArray

from rowvit.compiler.lower import Loaded, Lowering, Part
from rowvit.compiler.steps import Access, Allocation, OnChip, compute_read, compute_write
from rowvit.compiler.weights import pad_heads
from rowvit.formats.program import Operation, OperationKind
from rowvit.hardware.isa import Dst, Engine, Flag, Op

_PARTS = (OperationKind.QUERY, OperationKind.KEY, OperationKind.VALUE)


def attention(lowering: Lowering, layer: int, before: int, after: int, images: Sequence[int]) -> None:
    """The layer has at most ``before`` tokens of each image, and ``after`` from its projection on."""
    half = _Attention(lowering, layer, before, after, images)
    half.norm()
    for first in range(0, lowering.plan.heads, lowering.config.groups):
        half.heads(first)
    half.projection()
    for _ in lowering.each(images):
        lowering.dump(layer, lowering.residual_base(layer + 1), 1 + 2 * layer, after)


class _Attention:
    """Regions and lines of one layer's attention."""

    def __init__(
        self, lowering: Lowering, layer: int, tokens: int, after: int, images: Sequence[int]
    ) -> None:
        self.lowering, self.layer, self.tokens, self.after = lowering, layer, tokens, after
        self.images = images
        self.prune = next((p for p in lowering.meta["pruning"] if p["layer"] == layer), None)
        self.plan = plan = lowering.plan
        self.rotary = "rotary" in lowering.meta
        self.params = lowering.meta["params"]["layers"][layer]
        self.regions = dict(zip(images, plan.attention_regions(tokens, len(images)), strict=True))
        self.p_base = max(rows.end for _, rows in self.regions.values())
        self.bands = lowering.config.bands(tokens)
        self.kt_lines, self.v_lines = plan.kt_lines(tokens), plan.v_lines(tokens)
        self.head_words = lowering.config.lanes // 8  #: of a row of Q or O
        self.held: dict[int, list[Allocation]] = {}  #: K^T and V of images whose attention is to come
        #: images whose K^T and V are held at once
        self.areas = min(len(images), 2) if plan.holds_qkv(tokens) else len(images)

    def norm(self) -> None:
        loads = self.lowering.norm_load(f"layers.{self.layer}.norm1")
        for image in self.lowering.each(self.images):
            x, _ = self.regions[image]
            base = self.lowering.residual_base(self.layer)
            self.lowering.row_norm(self.layer, base, loads, self.params["norm1.shift"], x)

    def heads(self, first: int) -> None:
        """As many heads from ``first`` on as there are groups.

        The weights of Q, K and V are held for all images, if there is room, and attention follows an image
        behind them. Otherwise they come one after the other, and every image's K^T and V are held.
        """
        images, behind = self.images, self.areas - 1
        groups = min(self.lowering.config.groups, self.plan.heads - first)
        order = self._order(first, groups)
        loads = {kind: self._part_loads(kind, first, groups) for kind in order}
        if self.areas == len(images):
            for kind in order:
                for _ in self.lowering.each(images):
                    self._part(kind, first, groups, loads[kind])
            for _ in self.lowering.each(images):
                self._attend(first, groups)
            return
        for number in range(len(images) + behind):
            if number < len(images):
                self.lowering.image = images[number]
                for kind in order:
                    self._part(kind, first, groups, loads[kind])
            if number >= behind:
                self.lowering.image = images[number - behind]
                self._attend(first, groups)

    def _order(self, first: int, groups: int) -> Sequence[OperationKind]:
        """Q first: its weights and K's are out of the way when K^T and V need their lines. Where it replaces
        X it comes last.
        """
        x, rows = self.regions[self.images[0]]
        in_place = rows.base < x.end and first + groups == self.plan.heads
        return [*_PARTS[1:], _PARTS[0]] if in_place else _PARTS

    @property
    def table(self) -> int:
        """The image's entries in the tables of scores and of the selection."""
        return self.plan.table_base(self.tokens, self.images.index(self.lowering.image))

    def _select(self, prune: dict[str, int]) -> None:
        accesses = [
            Access(Engine.SELECT, False, OnChip.SCORE, self.table, self.tokens),
            Access(Engine.SELECT, True, OnChip.LIVE, self.lowering.image, 1, banded=False),
            Access(Engine.SELECT, True, OnChip.TABLE, self.table, self.tokens, banded=False),
        ]
        fields = dict(keep=prune["keep"], threshold=prune["threshold"], table=self.table)
        if self.rotary:
            start, to = (
                self.plan.place(self.lowering.residual_base(layer)) for layer in (self.layer, self.layer + 1)
            )
            accesses += [
                Access(Engine.SELECT, False, OnChip.PLACE, start, self.tokens, banded=False),
                Access(Engine.SELECT, True, OnChip.PLACE, to, self.after, banded=False),
                Access(
                    Engine.SELECT, True, OnChip.PLACE, self.lowering.config.rotary_tokens, 1, banded=False
                ),
            ]
            fields |= {"from": start, "to": to}
        operation = Operation(OperationKind.SELECT, self.layer)
        self.lowering.step(Op.SELECT, operation, accesses, (), self.layer, **fields)
        self.lowering.output_bytes += 8 + 8 * -(-self.after // 4)

    def _lines(self) -> tuple[int, int]:
        """First lines of the image's K^T and V: those of all K^T are the last of the weight memory."""
        area = self.images.index(self.lowering.image) % self.areas + 1
        end = self.lowering.config.weight_depth
        return end - area * self.kt_lines, end - self.areas * self.kt_lines - area * self.v_lines

    def _part_loads(self, kind: OperationKind, first: int, groups: int) -> list[Loaded]:
        lanes, head_dim = self.lowering.config.lanes, self.plan.head_dim

        def cut(_: str, tensor: NDArray[Any], part: Part) -> NDArray[Any]:
            return pad_heads(tensor, head_dim, part[0], part[1], lanes)

        return self.lowering.linear(f"layers.{self.layer}.{kind.value}", groups, (first, groups), cut)

    def _part(self, kind: OperationKind, first: int, groups: int, loads: list[Loaded]) -> None:
        """Q, K or V of some heads of the image."""
        lowering, config, plan = self.lowering, self.lowering.config, self.plan
        x, rows = self.regions[lowering.image]
        kt_base, v_base = self._lines()
        step = len(lowering.steps)
        if kind is OperationKind.QUERY:
            dst, offset = Dst.TOKEN, first * self.head_words
            target = rows.write(groups * self.head_words, offset)
            fields = dict(dst_base=rows.base + offset, dst_stride=rows.stride)
        elif kind is OperationKind.KEY:
            dst, fields = Dst.KEY, dict(dst_base=kt_base)
            target = compute_write(OnChip.WEIGHT, kt_base, self.kt_lines, banded=False)
            self._hold(Allocation(OnChip.WEIGHT, self.kt_lines, step, -1, kt_base))
        else:
            dst, fields = Dst.VALUE, dict(dst_base=v_base)
            target = compute_write(OnChip.WEIGHT, v_base, config.rows, config.rows, self.bands)
            self._hold(Allocation(OnChip.WEIGHT, self.v_lines, step, -1, v_base))
        accesses, flags = [x.read(plan.words), target], []
        rotates = self.rotary and kind is not OperationKind.VALUE
        if rotates:
            start = plan.place(lowering.residual_base(self.layer))
            entries = lowering.meta["rotary"]["coordinates"] * config.lanes // 2
            accesses += [
                Access(Engine.DRAIN, False, OnChip.ROTATION, 0, entries, 0, self.bands),
                Access(Engine.DRAIN, False, OnChip.PLACE, start, config.rows, config.rows, self.bands),
            ]
            flags, fields = [Flag.ROPE], fields | {"table": start}
        made = lowering.matmul(
            Operation(kind, self.layer, tile=first // config.groups),
            dst,
            accesses,
            loads,
            flags,
            **x.source(),
            k=plan.dim,
            shift=self.params[f"{kind.value}.shift"],
            bands=self.bands,
            **fields,
        )
        if rotates:
            made.loads += lowering.rotations
            lowering.rotations = []

    def _hold(self, block: Allocation) -> None:
        self.lowering.reserved.append(block)
        self.held.setdefault(self.lowering.image, []).append(block)

    def _attend(self, first: int, groups: int) -> None:
        """Attention of some heads of the image; with the last ones, its selection."""
        lowering, plan, params = self.lowering, self.plan, self.params
        _, rows = self.regions[lowering.image]
        kt_base, v_base = self._lines()
        for block in self.held.pop(lowering.image):
            block.last = len(lowering.steps)
        offset, width = first * self.head_words, groups * self.head_words
        flags: Collection[Flag] = ()
        accesses = [
            rows.read(width, offset),
            compute_read(OnChip.WEIGHT, kt_base, self.kt_lines, 0, self.bands),
            compute_read(OnChip.WEIGHT, v_base, self.v_lines, 0, self.bands),
            rows.write(width, offset),
            compute_write(OnChip.TOKEN, self.p_base, plan.p_words(self.tokens), banded=False),
            Access(Engine.EXEC, False, OnChip.LIVE, lowering.image, 1),
        ]
        fields = {}
        if self.prune:
            accesses.append(compute_write(OnChip.SCORE, self.table, self.tokens))
            flags = [Flag.SCORE, Flag.SCORE_CLEAR] if first == 0 else [Flag.SCORE]
            fields = dict(table=self.table)
        lowering.step(
            Op.ATTN,
            Operation(OperationKind.ATTENTION, self.layer, tile=first // lowering.config.groups),
            accesses,
            flags,
            q_base=rows.base + offset,
            q_stride=rows.stride,
            head_dim=-(-plan.head_dim // 8) * 8,
            groups=groups,
            kt_base=kt_base,
            v_base=v_base,
            p_base=self.p_base,
            p_stride=plan.p_stride(self.tokens),
            o_base=rows.base + offset,
            o_stride=rows.stride,
            s_mult=params["s_mult"],
            s_shift=params["s_shift"],
            pv_shift=params["pv_shift"],
            **fields,
        )
        if self.prune and first + groups == plan.heads:
            self._select(self.prune)

    def projection(self) -> None:
        """Adds to the residual stream of the tokens that stay."""
        lowering, plan = self.lowering, self.plan
        lanes = lowering.config.lanes

        def cut(name: str, tensor: NDArray[Any], part: Part) -> NDArray[Any]:
            own = tensor[..., slice(*part)]
            return pad_heads(own.T, plan.head_dim, 0, plan.heads, lanes).T if name == "weight" else own

        for tile, (_, channels, groups) in enumerate(plan.residual_tiles()):
            part = channels.start, channels.stop
            loads = lowering.linear(f"layers.{self.layer}.proj", groups, part, cut)
            for _ in lowering.each(self.images):
                self._project(tile, plan.heads * lanes, loads)

    def _project(self, tile: int, k: int, loads: list[Loaded]) -> None:
        """One lane tile of the image's projection."""
        lowering, gather = self.lowering, self.prune is not None
        _, rows = self.regions[lowering.image]
        bands = lowering.config.bands(self.after)
        # a gathered band's rows may come from anywhere
        anywhere = compute_read(OnChip.TOKEN, rows.base, rows.end - rows.base, 0, bands)
        lowering.residual_matmul(
            Operation(OperationKind.PROJECTION, self.layer, tile=tile),
            anywhere if gather else rows.read(self.plan.heads_words),
            loads,
            [Flag.GATHER] if gather else [],
            bands,
            **rows.source(),
            **(dict(table=self.table) if gather else {}),
            k=k,
            shift=self.params["proj.shift"],
        )
