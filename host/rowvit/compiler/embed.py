# SPDX-License-Identifier: Apache-2.0
"""Lowering of what a pass begins with: patch embedding, and the head of the pass before."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.compiler.head import head
from rowvit.compiler.lower import Lowering, Part, channels
from rowvit.compiler.plan import EMBED_TAG
from rowvit.compiler.steps import Access, Load, OnChip, Region
from rowvit.compiler.weights import pad_lanes, pad_rows
from rowvit.formats.package import patch_chunks
from rowvit.formats.program import Operation, OperationKind
from rowvit.hardware.isa import Engine, Flag, LoadKind, Op


def embed(lowering: Lowering) -> None:
    """Patch embedding, and before the first image's the head of the pass before.

    The head takes many weights for little work, the embedding few for much: where the weight memory
    has room for both, a lane tile of the head goes before each piece of the embedding but the first.
    """
    plan = lowering.plan
    head_tiles = head(lowering) if lowering.image == 0 and plan.arch["classes"] else iter(())
    next(head_tiles, None)  # its LayerNorm, before the residual stream is overwritten
    behind = len(lowering.steps) - 1
    pieces, between = _pieces(lowering)
    if not between:
        list(head_tiles)
    patches, stride = plan.patches, plan.patches.stride
    receiver = lowering.step(
        Op.RECV,
        Operation(OperationKind.INPUT, -1),
        [Access(Engine.RECV, True, OnChip.TOKEN, patches.base, stride, stride, patches.bands)],
        rows=plan.tokens,
        prefix=plan.arch["prefix"],
        row_words=plan.row_words,
        dst_base=patches.base,
        dst_stride=stride,
    )
    positions = _position_loads(lowering, pieces)
    positions[0].after = behind
    lowering.rotations += _rotation_loads(lowering, behind)
    chunks = patch_chunks(plan.arch)

    def cut(name: str, tensor: NDArray[Any], part: Part) -> NDArray[Any]:
        own = channels(name, tensor, part[1:])
        return own[chunks[part[0]]] if name == "weight" else own

    parts = list(product(enumerate(plan.residual_tiles()), enumerate(chunks)))
    for (tile, (_, own, groups)), (number, scalars) in parts:
        loads = lowering.linear("patch", groups, (number, own.start, own.stop), cut)
        offset, words = scalars.start // 8, plan.patch_words[number]
        begins = tile == number == 0
        chunk = number if len(chunks) > 1 else None
        if begins:
            load, block = loads[1]
            load.operation = positions[0].operation = Operation(
                OperationKind.EMBEDDING, -1, chunk=chunk, tile=0
            )
            if between:
                block.only = 0  # so that the room left for the head is contiguous
            # the memory's bandwidth is for the weights first: the array can follow the patches
            lowering.use(receiver, loads[1])
            receiver.loads.append(positions[0])
        for piece, (band0, bands) in enumerate(pieces):
            if begins:
                for _ in range(between.get(piece, 0)):
                    next(head_tiles)
            first = begins and band0 == 0
            step = lowering.residual_matmul(
                Operation(OperationKind.EMBEDDING, -1, chunk=chunk, tile=tile, band=band0 or None),
                patches.read(words, offset, band0, bands),
                loads,
                [Flag.SET_LIVE] if first else [],
                bands,
                band0,
                **patches.source() | dict(src_base=patches.base + offset),
                k=8 * words,
                shift=lowering.meta["params"]["patch.shift"],
                rows=plan.tokens if first else 0,
            )
            if begins and band0:
                step.loads.insert(0, positions[band0])
    if "pre_norm" in lowering.meta:
        _pre_norm(lowering)
    lowering.mark(EMBED_TAG)
    # the patches have the memory's bandwidth before the weights of the first layer
    arrived = Access(Engine.LOAD, False, OnChip.TOKEN, patches.base, patches.end - patches.base, banded=False)
    lowering.behind = lowering.steps.index(receiver), arrived
    lowering.dump(-1, lowering.residual_base(0), 0, plan.tokens)


def _pre_norm(lowering: Lowering) -> None:
    """The LayerNorm before the blocks: int8 rows, and a product with the identity in place of the residual
    stream, which is cleared in between.
    """
    plan, params = lowering.plan, lowering.meta["params"]
    x, base = Region(0, plan.words, plan.patches.bands), lowering.residual_base(0)
    lowering.row_norm(-1, base, lowering.norm_load("pre_norm"), params["pre_norm.shift"], x)
    read, size = len(lowering.steps) - 1, plan.residual_size(plan.tokens)
    banks = max(4, lowering.config.rows * lowering.config.groups)
    most = min(size, 1 << 15)  # rows of a load have 16 bits, and are even
    address, _ = lowering.blob.place(("pre", (most,), "zeros"), lambda: np.zeros((most, banks), np.int16))
    for tile, (_, own, groups) in enumerate(plan.residual_tiles()):
        operation = Operation(OperationKind.PRE, -1, tile=tile)
        loads = lowering.linear("pre", groups, (own.start, own.stop), channels)
        step = lowering.residual_matmul(
            operation, x.read(), loads, [], x.bands, **x.source(), k=plan.dim, shift=params["pre.shift"]
        )
        if not tile:
            step.loads[:0] = [
                Load(
                    *(LoadKind.RESIDUAL, address, min(most, size - first), lowering.config.groups),
                    *(None, base + first),
                    after=read,
                    image=lowering.image,
                    operation=operation,
                )
                for first in range(0, size, most)
            ]


def _pieces(lowering: Lowering) -> tuple[list[tuple[int, int]], dict[int, int]]:
    """Pieces (first band, bands), and how many lane tiles of the head go before which piece.

    A piece is at most twice as long as the one before, during which its part of the position table is
    loaded. The head waits for some pieces, until most patches have come in: they share the bandwidth.
    """
    plan, config = lowering.plan, lowering.config
    bands, first_piece = plan.patches.bands, max(1, 8 // config.rows)
    tiles = -(-plan.arch["classes"] // config.tile)
    lines = 8 * max(plan.patch_words) + plan.dim
    both = tiles and lowering.image == 0 and lines <= config.weight_depth and config.param_slots > 2
    # the head's rows must not lie where the patches come in
    both = both and lowering.stages[-1].images * plan.words <= plan.patches.base
    pieces = list(_doubling(bands * 9 // 20 if both else bands, first_piece))
    if not both:
        return pieces, {}
    band0, first = sum(pieces[-1]) if pieces else 0, len(pieces)
    size = first_piece if not pieces else 2 * pieces[-1][1]
    rest = bands - band0
    count = max(1, min(tiles, rest // 8), -(-rest // size))
    edges = [band0 + rest * i // count for i in range(count + 1)]
    pieces += [(start, end - start) for start, end in pairwise(edges)]
    before = [first + tile * count // tiles for tile in range(tiles)]
    return pieces, {number: before.count(number) for number in before}


def _doubling(end: int, size: int) -> Iterator[tuple[int, int]]:
    band0 = 0
    while band0 < end:
        # a small remainder joins the piece before it
        take = size if end - band0 >= 2 * size else end - band0
        yield band0, take
        band0, size = band0 + take, 2 * take


def _position_loads(lowering: Lowering, pieces: list[tuple[int, int]]) -> dict[int, Load]:
    """The position table in the residual memory's layout, bank by bank: first band -> piece."""
    config, plan = lowering.config, lowering.plan
    bands, tiles, stride = plan.patches.bands, plan.dim_tiles, plan.res_stride

    @cache
    def banks() -> NDArray[Any]:
        table = np.zeros((bands * config.rows, tiles * config.tile), np.int16)
        table[: plan.tokens, : plan.dim] = lowering.tensors["pos"]
        table = table.reshape(bands, config.rows, tiles, config.groups, config.lanes)
        found = table.transpose(0, 2, 4, 1, 3).reshape(bands * stride, config.rows * config.groups)
        return pad_lanes(found, max(4, found.shape[1]))

    def piece(start: int, rows: int) -> NDArray[Any]:
        return banks()[start : start + rows]

    loads = {}
    for band0, count in pieces:
        start, rows = band0 * stride, count * stride
        address, _ = lowering.blob.place(("pos", (start, rows)), partial(piece, start, rows))
        place = lowering.residual_base(0) + start
        loads[band0] = Load(
            LoadKind.RESIDUAL, address, rows, config.groups, None, place, image=lowering.image
        )
    return loads


def _rotation_loads(lowering: Lowering, behind: int) -> list[Load]:
    """The image's places, and in the first one's turn the table of rotations, if the network has them."""
    if "rotary" not in lowering.meta:
        return []
    lanes, image = lowering.config.lanes, lowering.image

    def table() -> NDArray[Any]:
        turns = lowering.tensors["rope.table"]
        cos, sin = np.moveaxis(np.pad(turns, ((0, 0), (0, lanes // 4 - turns.shape[1]), (0, 0))), -1, 0)
        # what an even lane adds to itself and to the odd one, and what the odd lane adds
        entries = np.stack([cos, sin, -sin, cos], axis=-1).reshape(-1, 2)
        return _words(entries.view(np.uint16), 16)

    def places() -> NDArray[Any]:
        return _words(pad_rows(lowering.tensors["rope.places"], 2), 5)

    start = lowering.plan.place(lowering.residual_base(0))
    found = []
    for kind, make, first in ((LoadKind.ROTATION, table, 0), (LoadKind.PLACE, places, start)):
        if kind is LoadKind.PLACE or not image:
            address, rows = lowering.blob.place(("rope", (), kind.name), make)
            found.append(Load(kind, address, rows, 1, None, first, after=behind, image=image))
    return found


def _words(pairs: NDArray[Any], bits: int) -> NDArray[Any]:
    """Words uint64 of unsigned pairs [n, 2], the first in the lowest ``bits``."""
    low, high = pairs.T.astype(np.uint64)
    words: NDArray[np.uint64] = low | high << np.uint64(bits)
    return words
