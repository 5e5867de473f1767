# SPDX-License-Identifier: Apache-2.0
"""Lowering of what a pass begins with: patch embedding, and the head of the image before."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from rowvit.compiler.hazards import Access, Memory
from rowvit.compiler.head import head
from rowvit.compiler.lower import Loaded, Lowering
from rowvit.compiler.plan import EMBED_TAG
from rowvit.compiler.steps import Load, Step
from rowvit.formats.program import Operation, OperationKind
from rowvit.hardware.isa import Dst, Engine, Flag, LoadKind, Op


def embed(lowering: Lowering) -> None:
    """Patch embedding, and the head of the image before.

    The head takes many weights for little work, the embedding few for much: where the weight memory
    has room for both, a lane tile of the head goes before each piece of the embedding but the first.
    """
    plan = lowering.plan
    head_tiles = head(lowering)
    next(head_tiles)  # its LayerNorm, before the residual stream is overwritten
    pieces, between = _pieces(lowering)
    if not between:
        list(head_tiles)
    receiver = _receive(lowering)
    weight, mult = lowering.tensors["patch.weight"], lowering.tensors["patch.mult"]
    bias = np.zeros_like(mult, np.int32)  # the position table holds it
    positions = _position_loads(lowering, pieces)
    for tile, (_, channels, groups) in enumerate(plan.residual_tiles()):
        loads = lowering.linear(weight[:, channels], bias[channels], mult[channels], groups)
        if tile == 0:
            load, block = loads[1]
            load.operation = positions[0].operation = Operation(OperationKind.EMBEDDING, -1, tile=0)
            block.only = 0  # so that the room left for the head is contiguous
            # the memory's bandwidth is for the weights first: the array can follow the patches
            lowering.use(receiver, loads[1])
            receiver.loads.append(positions[0])
        for number, piece in enumerate(pieces):
            if tile == 0:
                for _ in range(between.get(number, 0)):
                    next(head_tiles)
            step = _piece(lowering, tile, piece, loads)
            if tile == 0 and piece[0]:
                step.loads.insert(0, positions[piece[0]])
    lowering.mark(EMBED_TAG)
    lowering.dump(-1, 0, plan.tokens)


def _receive(lowering: Lowering) -> Step:
    plan = lowering.plan
    region = plan.patches
    target = Access(Engine.RECV, True, Memory.TOKEN, region.base, region.stride, region.stride, region.bands)
    return lowering.step(
        Op.RECV,
        Operation(OperationKind.INPUT, -1),
        [target],
        rows=plan.tokens,
        prefix=plan.arch["prefix"],
        row_words=plan.row_words,
        dst_base=region.base,
        dst_stride=region.stride,
    )


def _piece(lowering: Lowering, tile: int, piece: tuple[int, int], loads: list[Loaded]) -> Step:
    """One lane tile of some bands; the very first sets the live count."""
    plan, (band0, bands) = lowering.plan, piece
    base, _, groups = plan.residual_tiles()[tile]
    first = tile == 0 and band0 == 0
    return lowering.matmul(
        Operation(OperationKind.EMBEDDING, -1, tile=tile, band=band0 or None),
        Dst.RESIDUAL,
        [plan.patches.read(band0=band0, bands=bands), lowering.residual_write(base, bands, band0)],
        groups,
        loads,
        [Flag.SET_LIVE] if first else [],
        **plan.patches.source(),
        k=8 * plan.row_words,
        dst_base=base,
        dst_stride=plan.res_stride,
        shift=lowering.meta["params"]["patch.shift"],
        band0=band0,
        bands=bands,
        rows=plan.tokens if first else 0,
    )


def _pieces(lowering: Lowering) -> tuple[list[tuple[int, int]], dict[int, int]]:
    """Pieces (first band, bands), and how many lane tiles of the head go before which piece.

    A piece is at most twice as long as the one before, during which its part of the position table is
    loaded. The head waits for some pieces, until most patches have come in: they share the bandwidth.
    """
    plan, config = lowering.plan, lowering.config
    bands = plan.patches.bands
    tiles = -(-plan.arch["classes"] // config.tile)
    lines = 8 * plan.row_words + plan.dim
    both = lines <= config.weight_depth and config.param_slots > 2
    pieces = list(_doubling(bands * 9 // 20 if both else bands))
    if not both:
        return pieces, {}
    band0, first = sum(pieces[-1]) if pieces else 0, len(pieces)
    size = 4 if not pieces else 2 * pieces[-1][1]
    rest = bands - band0
    count = max(1, min(tiles, rest // 8), -(-rest // size))
    edges = [band0 + rest * i // count for i in range(count + 1)]
    pieces += [(start, end - start) for start, end in pairwise(edges)]
    before = [first + tile * count // tiles for tile in range(tiles)]
    return pieces, {number: before.count(number) for number in before}


def _doubling(end: int) -> Iterator[tuple[int, int]]:
    band0, size = 0, 4
    while band0 < end:
        # a small remainder joins the piece before it
        take = size if end - band0 >= 2 * size else end - band0
        yield band0, take
        band0, size = band0 + take, 2 * take


def _position_loads(lowering: Lowering, pieces: list[tuple[int, int]]) -> dict[int, Load]:
    """The position table in the residual memory's layout, bank by bank: first band -> piece."""
    config, plan = lowering.config, lowering.plan
    bands, tiles, stride = plan.patches.bands, plan.dim_tiles, plan.res_stride
    table = np.zeros((bands * config.rows, tiles * config.tile), np.int16)
    table[: plan.tokens, : plan.dim] = lowering.tensors["pos"]
    table = table.reshape(bands, config.rows, tiles, config.groups, config.lanes)
    banks = table.transpose(0, 2, 4, 1, 3).reshape(bands * stride, config.rows * config.groups)
    banks = np.pad(banks, ((0, 0), (0, max(0, 4 - banks.shape[1]))))
    loads = {}
    for band0, count in pieces:
        start, rows = band0 * stride, count * stride
        address = lowering.blob.append(banks[start : start + rows])
        loads[band0] = Load(LoadKind.RESIDUAL, address, rows, config.groups, None, start)
    loads[0].after = 0
    return loads
