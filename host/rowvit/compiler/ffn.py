# SPDX-License-Identifier: Apache-2.0
"""Lowering of the second half of a layer: FFN1 and FFN2, chunk by chunk of the hidden neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.compiler.lower import Loaded, Lowering, Part, channels
from rowvit.compiler.steps import Access, Allocation, Load, Mask, OnChip, Region, compute_write
from rowvit.compiler.weights import pad_rows
from rowvit.formats.description import in_places
from rowvit.formats.program import Operation, OperationKind
from rowvit.hardware.isa import Dst, Engine, Flag, LoadKind

_ALL_BANDS = 0xFFFF


@dataclass
class _Chunk:
    number: int
    places: slice  #: lanes of FFN1, rows of W2
    segments: int  #: of `lanes` places
    regions: list[Region]  #: hidden activations of every image
    mask_base: int
    masks: list[Mask] = field(default_factory=list)  #: of its hidden tiles, in order

    @property
    def size(self) -> int:
        return int(self.places.stop - self.places.start)


def ffn(lowering: Lowering, layer: int, tokens: int, images: Sequence[int]) -> None:
    """The layer's FFN on at most ``tokens`` tokens of each image."""
    _Ffn(lowering, layer, tokens, images).run()
    for _ in lowering.each(images):
        lowering.mark(layer)
        lowering.dump(layer, lowering.residual_base(layer + 1), 2 + 2 * layer, tokens)


class _Ffn:
    def __init__(self, lowering: Lowering, layer: int, tokens: int, images: Sequence[int]) -> None:
        self.lowering, self.layer, self.images = lowering, layer, images
        self.config, self.plan = lowering.config, lowering.plan
        self.params = lowering.meta["params"]["layers"][layer]
        self.rule, self.gated = self.plan.rule, "gated" in lowering.meta
        self.bands = self.config.bands(tokens)
        size = self.plan.words * self.bands
        self.x = [Region(i * size, self.plan.words, self.bands) for i in range(len(images))]
        self.row_tiles = self.plan.row_tiles(self.bands)

    def run(self) -> None:
        loads = self.lowering.norm_load(f"layers.{self.layer}.norm2")
        for i, _ in enumerate(self.lowering.each(self.images)):
            base = self.lowering.residual_base(self.layer + 1)
            self.lowering.row_norm(self.layer, base, loads, self.params["norm2.shift"], self.x[i])
        hidden, chunk = self.plan.hidden, self.plan.chunk
        starts = range(0, hidden, chunk)
        words, masks = self.plan.hidden_stride(chunk) * self.bands, self.plan.mask_words(self.bands)
        buffers, mask_buffers = self._buffers(len(starts), words, masks)
        pending: list[_Chunk] = []
        for c, start in enumerate(starts):
            places = slice(start, min(start + chunk, hidden))
            segments = -(-(places.stop - start) // self.config.lanes)
            stride = segments * self.plan.hidden_segment
            base = self.x[-1].end + c % buffers * len(self.images) * words
            regions = [Region(base + i * words, stride, self.bands) for i in range(len(self.images))]
            pending.append(_Chunk(c, places, segments, regions, c % mask_buffers * masks))
            self._ffn1(pending[-1], hurry=buffers == 1)
            if len(pending) == buffers:
                self._ffn2(pending.pop(0))
        for late in pending:
            self._ffn2(late)

    def _buffers(self, chunks: int, words: int, masks: int) -> tuple[int, int]:
        """Chunks in token memory at once, and in mask memory.

        With room for two the next FFN1 runs while the masked rows of W2 come in.
        """
        config = self.config
        mask_buffers = min(chunks, config.mask_depth // masks if masks else chunks)
        room = (config.token_depth - self.x[-1].end) // (len(self.images) * words)
        return min(chunks, 2, room, mask_buffers), mask_buffers

    def _ffn1(self, chunk: _Chunk, hurry: bool) -> None:
        """FFN1 of one chunk, and its masks.

        In a hurry the last tile's last bands have their own mask: almost all rows of W2 are known from the
        bands before, and are loaded meanwhile. FFN1 of these bands takes as long as loading half of the rows.
        Of several images it is the last one that has its own mask.
        """
        lanes, tile, bands, first = self.config.lanes, self.config.tile, self.bands, chunk.places.start
        count = len(self.images)
        for start in range(0, chunk.size, tile):
            end = min(start + tile, chunk.size)
            groups = -(-(end - start) // lanes)
            part = first + start, first + end
            loads = self.lowering.linear(f"layers.{self.layer}.fc1", groups, part, channels)
            late = -(-tile * tile // (16 * self.plan.dim))
            split = hurry and self.rule == "image" and end == chunk.size
            # images, first band, bands: a mask for each
            pieces = [(range(count), 0, bands)]
            if split and count > 1:
                pieces = [(range(count - 1), 0, bands), (range(count - 1, count), 0, bands)]
            elif split and bands >= 2 * late:
                pieces = [(range(1), 0, bands - late), (range(1), bands - late, late)]
            word, had = chunk.mask_base + start // lanes, None
            for images, band0, size in pieces:
                words = Access(Engine.LOAD, False, OnChip.MASK, word, groups, banded=False)
                mask = Mask(len(self.lowering.steps) + len(images) - 1, start, words, band0, had)
                for i in images:
                    self._ffn1_piece(chunk, i, mask, size, loads, join=i != images[-1])
                if self.rule != "none":
                    chunk.masks.append(mask)
                word, had = chunk.mask_base + chunk.segments, words

    def _ffn1_piece(
        self, chunk: _Chunk, i: int, mask: Mask, bands: int, loads: list[Loaded], join: bool
    ) -> None:
        """Some bands of one image's hidden tile: those of its mask, which it has only with a mask rule."""
        config, plan, x, region = self.config, self.plan, self.x[i], chunk.regions[i]
        self.lowering.image = self.images[i]
        band0, groups, word = mask.band0, mask.words.width, mask.words.base
        offset = mask.start // config.lanes * plan.hidden_segment
        accesses = [
            x.read(band0=band0, bands=bands),
            region.write(groups * plan.hidden_segment, offset, band0, bands),
        ]
        fields: dict[str, int] = {}
        flags = [Flag.GATED] if self.gated else []
        if self.rule != "none":
            tile_rows, segments = self.lowering.meta["tile_rows"], chunk.segments
            mask_bands = _ALL_BANDS if self.rule == "image" else tile_rows // config.rows
            fields = dict(mask_base=word, mask_bands=mask_bands, mask_stride=segments)
            row_tiles = len(self.row_tiles)
            accesses.append(compute_write(OnChip.MASK, word, groups, segments, row_tiles, banded=False))
            if join:
                flags.append(Flag.JOIN)
        tile = chunk.number * -(-plan.chunk // config.tile) + mask.start // config.tile
        self.lowering.matmul(
            Operation(OperationKind.FFN1, self.layer, tile=tile, band=band0 or None),
            Dst.HIDDEN,
            accesses,
            loads,
            flags,
            **x.source(),
            k=plan.dim,
            dst_base=region.base + offset,
            dst_stride=region.stride,
            shift=self.params["fc1.shift"],
            thr=self.params["thr"],
            band0=band0,
            bands=bands,
            **fields,
        )

    def _ffn2(self, chunk: _Chunk) -> None:
        """FFN2 of one chunk, added to the residual streams."""
        lowering, path = self.lowering, f"layers.{self.layer}.fc2"

        def cut(name: str, tensor: NDArray[Any], part: Part) -> NDArray[Any]:
            own = channels(name, tensor, part[1:])
            if name == "weight":
                neurons = slice(*(end // self.plan.each for end in (chunk.places.start, chunk.places.stop)))
                return pad_rows(in_places(own[neurons].T, self.plan.each).T, self.config.lanes)
            return np.zeros_like(own) if name == "bias" and chunk.number else own

        tiles = [
            (groups, (chunk.number, own.start, own.stop)) for _, own, groups in self.plan.residual_tiles()
        ]
        stored = [lowering.weight_load(path, *tile, cut)[0].address for tile in tiles]
        params = [lowering.param_load(path, *tile, cut) for tile in tiles]
        for r in range(len(self.row_tiles)):
            for t, address in enumerate(stored):
                param, slot = params[t]
                # one slot per lane tile serves all row tiles, as long as others have one left
                if len(tiles) >= self.config.param_slots:
                    slot = Allocation(OnChip.PARAM, 1)
                    param = Load(param.kind, param.address, 1, param.groups, slot)
                self._ffn2_tile(chunk, r, t, address, (param, slot))

    def _ffn2_tile(self, chunk: _Chunk, r: int, t: int, address: int, param: Loaded) -> None:
        """One lane tile of one row tile, with all rows of W2 or those in its masks.

        The first row tile's rows come hidden tile by hidden tile, while FFN1 still makes the next.
        """
        plan, lanes, sparse = self.plan, self.config.lanes, self.rule != "none"
        _, _, groups = plan.residual_tiles()[t]
        band0, bands = self.row_tiles[r]
        block = Allocation(OnChip.WEIGHT, chunk.segments * lanes)
        loads, masks = [Load(LoadKind.WEIGHT, address, block.size, groups, block)], chunk.masks
        if band0:
            word = chunk.mask_base + r * chunk.segments
            words = Access(Engine.LOAD, False, OnChip.MASK, word, chunk.segments, banded=False)
            masks = [Mask(masks[-1].step, 0, words, band0)]
        if sparse:
            loads = []
            for mask in masks:
                start, rows = address + mask.start * groups * lanes, mask.words.width * lanes
                loads.append(Load(LoadKind.WEIGHT, start, rows, groups, block, mask.start, mask, mask.step))
        row_tile = r if self.rule == "tile" else None
        flags = [*([] if self.gated else [Flag.UNSIGNED]), *([Flag.SPARSE] if sparse else [])]
        for i, _ in enumerate(self.lowering.each(self.images)):
            region = chunk.regions[i]
            self.lowering.residual_matmul(
                Operation(OperationKind.FFN2, self.layer, chunk.number, t, row_tile),
                region.read(band0=band0, bands=bands),
                [param, *((load, block) for load in loads)],
                flags,
                bands,
                band0,
                **region.source(),
                k=chunk.segments if sparse else block.size,
                shift=self.params["fc2.shift"],
            )
