# SPDX-License-Identifier: Apache-2.0
"""How many images share the loads of weights, layer by layer.

Where few tokens are left, a layer's weights take longer to come than to be used. The more images share them
the better, as far as the memories hold those images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from rowvit.compiler.plan import ALONE, Plan, Stage, Stages
from rowvit.hardware.isa import MAX_IMAGES
from rowvit.hardware.memory import Memory

#: what the estimate takes for data: shares of the probabilities and of the hidden activations that are not
#: zero, and of the rows of W2 that have a use
_PROBABILITIES, _HIDDEN, _ROWS = 0.9, 0.25, 0.6
#: more images must gain this much: they take memory, and the first one's answer comes later
_WORTH = 0.999
_STARTS = 24  #: layers with which a stage may begin: beyond, trying them all takes minutes


def choose(plan: Plan, batch: int, without: Collection[Stages] = ()) -> Stages:
    """The stages with the fewest cycles for ``batch`` images, by an estimate; none of ``without``.

    With the FFN2 rule "tile" nothing is shared: its loads are for a few rows of one image.
    """
    if plan.rule == "tile":
        return ALONE
    alone = sum(_cycles(plan, ALONE))
    best, least = ALONE, batch * alone
    for stages in sorted(candidates(plan, batch), key=lambda s: s[-1].images):
        if stages in without:
            continue
        rest = batch % stages[-1].images
        cycles = (batch - rest) * sum(_cycles(plan, stages)) + rest * alone
        if cycles < (least if stages[-1].images == best[-1].images else _WORTH * least):
            best, least = stages, cycles
    return best


def candidates(plan: Plan, batch: int) -> Iterator[Stages]:
    """Stages that fit."""
    starts = [0, *(layer + 1 for layer, (before, after) in enumerate(plan.bounds[:-1]) if after < before)]
    starts = starts[:: -(-len(starts) // _STARTS)]

    def extend(stages: Stages, left: list[int]) -> Iterator[Stages]:
        if not left:
            if stages[-1].images > 1 and _fits(plan, stages):
                yield stages
            return
        yield from extend(stages, left[1:])
        before = stages[-1].images
        for images in range(2 * before, min(batch, MAX_IMAGES) + 1, before):
            yield from extend((*stages, Stage(left[0], images)), left[1:])

    for images in range(1, min(batch, MAX_IMAGES) + 1):
        yield from extend((Stage(0, images),), starts[1:])


def _fits(plan: Plan, stages: Stages) -> bool:
    config = plan.config
    for level, stage in enumerate(stages):
        size = plan.residual_size(plan.bounds[stage.layer][0])
        bases = [plan.residual_base(stages, level, image) for image in range(stages[-1].images)]
        if max(bases) + size > config.residual_depth:
            return False
        if "rotary" in plan.meta and plan.place(max(bases) + size) > config.rotary_tokens:
            return False
    pruned = {step["layer"] for step in plan.meta["pruning"]}
    for layer, (images, (before, after)) in enumerate(zip(plan.shares(stages), plan.bounds, strict=True)):
        if images == 1:
            continue
        kv = plan.kt_lines(before) + plan.v_lines(before)
        hidden = config.bands(after) * (plan.words + plan.hidden_stride(plan.chunk))
        if (
            plan.attention_regions(before, images)[-1][1].end + plan.p_words(before) > config.token_depth
            or images * hidden > config.token_depth
            or not (plan.holds_qkv(before) or plan.dim + images * kv <= config.weight_depth)
            or (layer in pruned and plan.table_base(before, images - 1) + before > config.max_tokens)
        ):
            return False
    return True


def _cycles(plan: Plan, stages: Stages) -> Iterator[float]:
    """Cycles per image of every layer and the head: what takes longer, its multiplications or its weights."""
    config, arch = plan.config, plan.arch
    dim, hidden, lanes = plan.dim, plan.hidden, config.lanes
    passes = -(-plan.heads // config.groups)
    sparse = plan.rule != "none"
    rate = Memory().words_per_cycle(config.port_bits)
    yield dim * -(-arch["classes"] // lanes) * lanes / 8 / rate / stages[-1].images
    for images, (before, after) in zip(plan.shares(stages), plan.bounds, strict=True):
        first, second = config.bands(before), config.bands(after)
        tokens = -(-before // lanes)
        attend = tokens * plan.head_dim + max(_PROBABILITIES * before, 5.0 * tokens)
        work = first * passes * (3 * dim + attend) + second * plan.dim_tiles * plan.heads * lanes
        words = dim * 4 * plan.heads * lanes / 8
        kv = plan.kt_lines(before) + plan.v_lines(before)
        # where two tiles of weights have no room beside all K^T and V, half of each load is waited for
        waits = not plan.holds_qkv(before) and 2 * dim + images * kv > config.weight_depth
        attention = max(work, words / rate / images) + waits * words / rate / images / 2
        work = second * -(-hidden // config.tile) * dim
        work += second * plan.dim_tiles * hidden * (_HIDDEN / plan.each if sparse else 1.0)
        words = dim * hidden / 8 * (1 + (_ROWS / plan.each if sparse else 1.0))
        yield attention + max(work, words / rate / images)
