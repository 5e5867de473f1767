# SPDX-License-Identifier: Apache-2.0
"""Compiler: a model package and a hardware configuration give a program and its weights.

``plan`` gives activations their places, ``lower`` and the modules of the network's parts make the steps,
``schedule`` places the loads and derives the dependencies.
"""

from __future__ import annotations

import numpy as np

from rowvit.compiler.attention import attention
from rowvit.compiler.embed import embed
from rowvit.compiler.ffn import ffn
from rowvit.compiler.lower import Lowering
from rowvit.compiler.schedule import Scheduler
from rowvit.formats.package import ModelPackage
from rowvit.formats.program import FORMAT, Program
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import ABI_VERSION, QUEUE, Engine

__all__ = ["Program", "compile", "disasm"]


def compile(package: ModelPackage, config: HardwareConfig, checkpoints: bool = False) -> Program:
    """Compile a network for one configuration.

    Parameters
    ----------
    package : ModelPackage
    config : HardwareConfig
    checkpoints : bool
        The program also sends the residual stream after the embedding and after each half layer.

    Raises
    ------
    RowvitError
        The network does not fit; the message says what is needed and what is available.
    """
    lowering = Lowering(package, config, checkpoints)
    embed(lowering)
    for layer, (before, after) in enumerate(lowering.plan.bounds):
        attention(lowering, layer, before, after)
        ffn(lowering, layer, after)
    instructions, operations = Scheduler(lowering).run()
    meta, plan = package.meta, lowering.plan
    input_rows = plan.tokens - plan.arch["prefix"]
    copied = ("classes", "preprocessing", "scales", "pruning", "ffn2_rule", "ffn_chunk")
    info = {key: meta[key] for key in copied} | {
        "format": FORMAT,
        "abi": ABI_VERSION,
        "config": {"name": config.name, "hash": config.hash},
        "model": {"name": meta["name"], "hash": package.digest()},
        "architecture": meta["architecture"],
        "tile_rows": meta.get("tile_rows", 0),
        "checkpoints": checkpoints,
        "input": {"rows": input_rows, "row_words": plan.row_words, "bytes": 8 * plan.row_words * input_rows},
        "output": {"max_bytes": lowering.output_bytes},
        "instructions": len(instructions),
        "operations": [operation.to_json() for operation in operations],
    }
    code = np.stack([instruction.encode() for instruction in instructions])
    return Program(code, lowering.blob.bytes(), info)


def disasm(program: Program) -> str:
    """One line per instruction: index, the operation's number on its engine, fields, dependencies.

    ``LOAD>=12`` waits for 12 loads of this image; ``DRAIN~7`` follows the seventh band by band.
    """
    lines = []
    count = dict.fromkeys(Engine, 0)
    depth = program.meta["architecture"]["depth"]
    for index, instruction in enumerate(program.instructions):
        queue = QUEUE.get(instruction.op)
        number, note = "", ""
        if queue is not None:
            count[queue] += 1
            number = f"{queue.name}#{count[queue]}"
        if queue is Engine.EXEC:
            operation = program.operations[index - 1]
            inside = 0 <= operation.layer < depth
            note = f"  ; layer {operation.layer} {operation.label}" if inside else f"  ; {operation.label}"
        lines.append(f"{index:5d} {number:<10} {instruction}{note}")
    return "\n".join(lines) + "\n"
