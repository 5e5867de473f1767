# SPDX-License-Identifier: Apache-2.0
"""Lowering of the head: final LayerNorm and classifier."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rowvit.compiler.lower import Lowering
from rowvit.compiler.steps import Region
from rowvit.compiler.weights import pad_lanes
from rowvit.formats.program import Operation, OperationKind
from rowvit.hardware.isa import Dst, Flag


def head(lowering: Lowering) -> Iterator[None]:
    """LayerNorm, then a lane tile of the classifier each time, for the image before."""
    config, plan, params = lowering.config, lowering.plan, lowering.meta["params"]
    depth, classes, lanes = plan.arch["depth"], plan.arch["classes"], config.lanes
    flags = [Flag.ONE_ROW, Flag.PREVIOUS]
    x = Region(0, plan.words, 1)
    lowering.row_norm(depth, "norm", params["norm.shift"], x, flags)
    lowering.output_bytes += 8 + 8 * -(-classes // 4)
    for start in range(0, classes, config.tile):
        yield
        count = min(config.tile, classes - start)
        groups = -(-count // lanes)
        # results stream lane by lane, and within a lane group by group
        order = np.arange(groups * lanes).reshape(lanes, groups).T.ravel()
        weight, bias, mult = (
            pad_lanes(lowering.tensors[f"head.{n}"][..., start : start + count], groups * lanes)[..., order]
            for n in ("weight", "bias", "mult")
        )
        lowering.matmul(
            Operation(OperationKind.HEAD, depth, tile=start // config.tile),
            Dst.STREAM,
            [x.read()],
            groups,
            lowering.linear(weight, bias, mult, groups),
            [*flags, Flag.LAST] if start + count == classes else flags,
            **x.source(),
            k=plan.dim,
            shift=params["head.shift"],
            bands=1,
            count=count,
            total=classes if start == 0 else 0,
        )
    yield
