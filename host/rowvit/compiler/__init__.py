# SPDX-License-Identifier: Apache-2.0
"""Compiler: a model package and a hardware configuration give a program and its weights.

``plan`` gives activations their places, ``sharing`` decides which layers several images are computed in
together, ``lower`` and the modules of the network's parts make the steps, ``schedule`` places the loads and
derives the dependencies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from rowvit.compiler.attention import attention
from rowvit.compiler.checker import check
from rowvit.compiler.embed import embed
from rowvit.compiler.ffn import ffn
from rowvit.compiler.lower import Lowering
from rowvit.compiler.plan import ALONE, Plan, Stages
from rowvit.compiler.schedule import Scheduler
from rowvit.compiler.sharing import choose
from rowvit.compiler.steps import Load, Step
from rowvit.compiler.weights import Blob
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.formats.program import FORMAT, Program, described, host_tensors
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import (
    ABI_VERSION,
    INSTRUCTION_BYTES,
    MAX_IMAGES,
    MAX_OPERATIONS,
    QUEUE,
    SLOTS,
    Engine,
)

__all__ = ["BATCH", "Program", "check", "compile", "disasm"]

#: images that may share a load, unless said otherwise
BATCH = 8


def compile(
    package: ModelPackage,
    config: HardwareConfig,
    checkpoints: bool = False,
    batch: int = BATCH,
    stages: Stages | None = None,
) -> Program:
    """Compile a network for one configuration.

    Parameters
    ----------
    package : ModelPackage
    config : HardwareConfig
    checkpoints : bool
        The program also sends the residual stream after the embedding and after each half layer.
    batch : int
        Images that may share a load of weights, 1 to 16. If several do, the program has a pass for one image
        and a pass for those.
    stages : tuple of `compiler.plan.Stage`, optional
        Which images share, instead of what an estimate chooses for ``batch``.

    Raises
    ------
    RowvitError
        The network does not fit; the message says what is needed and what is available. Stages that an
        estimate prefers, but that find no room, are passed over.
    """
    if not 1 <= batch <= MAX_IMAGES:
        raise RowvitError(f"a batch of {batch} images is not possible", f"use 1 to {MAX_IMAGES}")
    plan, blob = Plan(package.meta, config), Blob()
    if stages is not None:
        plan.check_stages(stages)

    def schedule(stages: Stages, blob: Blob) -> tuple[Scheduler, list[Load | Step]]:
        scheduler = Scheduler(_lower(package, plan, stages, blob, checkpoints))
        order = scheduler.run()
        queues = Counter(
            Engine.LOAD if isinstance(item, Load) else QUEUE[item.instruction.op] for item in order
        )
        if (most := max(queues.values())) > MAX_OPERATIONS:
            raise RowvitError(
                f"'{package.meta['name']}' on '{config.name}' needs operations of an engine: {most},"
                f" available: {MAX_OPERATIONS}",
                "use a larger tile_rows or ffn_chunk",
            )
        return scheduler, order

    made = {ALONE: schedule(ALONE, blob)}
    without: set[Stages] = set()
    while (together := stages or choose(plan, batch, without)) not in made:
        more = blob.copy()
        try:
            made[together] = schedule(together, more)
            blob = more
        except RowvitError:  # no room for some block of weights
            if stages:
                raise
            without.add(together)
    schedulers, orders = zip(*made.values(), strict=True)
    code_bytes = sum((len(order) + 2) * INSTRUCTION_BYTES for order in orders)
    codes = [
        scheduler.instructions(order, code_bytes) for scheduler, order in zip(schedulers, orders, strict=True)
    ]
    input_rows = plan.tokens - plan.arch["prefix"]
    info = described(package, config) | {
        "format": FORMAT,
        "abi": ABI_VERSION,
        "config": {"name": config.name, "hash": config.hash},
        "checkpoints": checkpoints,
        "input": {"rows": input_rows, "row_words": plan.row_words, "bytes": 8 * plan.row_words * input_rows},
        "passes": [
            {
                "images": stages[-1].images,
                "shares": plan.shares(stages),
                "output_bytes": scheduler.lowering.output_bytes,
                "instructions": len(code),
                "operations": [item.operation.to_json() for item in order if item.operation],
            }
            for stages, scheduler, order, code in zip(made, schedulers, orders, codes, strict=True)
        ],
    }
    code = np.concatenate([instruction.encode() for code in codes for instruction in code])
    own = host_tensors(package)
    program = Program(code.reshape(-1, SLOTS), blob.bytes(), info, own, package)
    check(program, config)
    return program


def _lower(package: ModelPackage, plan: Plan, stages: Stages, blob: Blob, checkpoints: bool) -> Lowering:
    """All steps of a pass: of each stage those of one group of images after the other."""
    lowering = Lowering(package, plan, stages, blob, checkpoints)

    def run(level: int, images: Sequence[int]) -> None:
        below = stages[level - 1].images if level else 1
        for first in range(0, len(images), below):
            if level:
                run(level - 1, images[first : first + below])
            else:
                lowering.image = images[first]
                embed(lowering)
        end = stages[level + 1].layer if level + 1 < len(stages) else len(plan.bounds)
        for layer in range(stages[level].layer, end):
            before, after = plan.bounds[layer]
            attention(lowering, layer, before, after, images)
            ffn(lowering, layer, after, images)
            lowering.answer_tokens(layer, after, images)

    run(len(stages) - 1, range(stages[-1].images))
    return lowering


def disasm(program: Program) -> str:
    """One line per instruction: index in its pass, number of its engine's operation, fields, dependencies.

    ``LOAD>=12`` waits for 12 loads of this pass; ``DRAIN~7`` follows the seventh band by band.
    """
    lines = []
    depth = program.meta["architecture"]["depth"]
    for part in program.passes:
        count = dict.fromkeys(Engine, 0)
        for index, instruction in enumerate(part.instructions):
            queue = QUEUE.get(instruction.op)
            number, note = "", ""
            if queue is not None:
                count[queue] += 1
                number = f"{queue.name}#{count[queue]}"
            if queue is Engine.EXEC:
                operation = part.operations[index - 1]
                inside = 0 <= operation.layer < depth
                note = (
                    f"  ; layer {operation.layer} {operation.label}" if inside else f"  ; {operation.label}"
                )
            lines.append(f"{index:5d} {number:<10} {instruction}{note}")
    return "\n".join(lines) + "\n"
