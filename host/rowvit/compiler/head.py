# SPDX-License-Identifier: Apache-2.0
"""Lowering of the classifier, and another classifier in a program that is compiled already.

A program with another head differs in the head's weights, its shift and how many logits the last lane tile
sends; everything else stays, as long as the tiles have as many lane groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.compiler.lower import Loaded, Lowering, Part, channels
from rowvit.compiler.plan import ALONE, Plan
from rowvit.compiler.steps import Region
from rowvit.compiler.weights import Blob, pad_lanes
from rowvit.formats import container
from rowvit.formats.package import ModelPackage
from rowvit.formats.program import Operation, OperationKind, Program, described, host_tensors
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import INSTRUCTION_BYTES, Dst, Flag, Instruction, LoadKind, Op

_HEAD = ("weight", "bias", "mult")
#: tensors, by the beginning of their names, and parts of the description on which no instruction and no other
#: weight depends
_APART = ("head.", "taught.", "familiar.")
_INFORMATIVE = (
    *("hash", "name", "classes", "scales", "accuracy", "licence", "source", "history"),
    *("taught", "familiar"),
)


def head(lowering: Lowering) -> Iterator[None]:
    """LayerNorm, then a lane tile of the classifier each time, for the images of the pass before."""
    config, plan, params = lowering.config, lowering.plan, lowering.meta["params"]
    depth = plan.arch["depth"]
    flags = [Flag.ONE_ROW, Flag.PREVIOUS]
    rows = [Region(image * plan.words, plan.words, 1) for image in range(lowering.stages[-1].images)]
    loads = lowering.norm_load("norm")
    for image in lowering.each(range(len(rows))):
        base = lowering.residual_base(depth)
        lowering.row_norm(depth, base, loads, params["norm.shift"], rows[image], flags)
    parts = _tiles(plan.arch["classes"], config)
    for tile, part in enumerate(parts):
        lowering.image = 0  # whose embedding this is part of
        yield
        tile_loads = _loads(lowering, part)
        for image in lowering.each(range(len(rows))):
            ends = part == parts[-1] and image == len(rows) - 1
            lowering.matmul(
                Operation(OperationKind.HEAD, depth, tile=tile),
                Dst.STREAM,
                [rows[image].read()],
                tile_loads,
                [*flags, Flag.LAST] if ends else flags,
                **rows[image].source(),
                k=plan.dim,
                shift=params["head.shift"],
                bands=1,
                count=part[1] - part[0],
            )
            lowering.output_bytes += _record_bytes(part)
    lowering.image = 0
    yield


def frame(package: ModelPackage, config: HardwareConfig) -> str:
    """SHA-256 of what two packages share if `with_head` turns a program of one into one of the other."""
    tensors = {name: tensor for name, tensor in package.tensors.items() if not name.startswith(_APART)}
    meta = {key: value for key, value in package.meta.items() if key not in _INFORMATIVE}
    arch, params = dict(package.arch), dict(meta["params"])
    meta["head"] = [_groups(part, config) for part in _tiles(arch.pop("classes"), config)]
    params.pop("head.shift", None)
    return container.digest(meta | {"architecture": arch, "params": params}, tensors)


def headless(package: ModelPackage) -> ModelPackage:
    """A package with the same `frame` whose head says nothing; itself if it has none."""
    if not package.arch["classes"]:
        return package
    tensors = {name: tensor for name, tensor in package.tensors.items() if not name.startswith(_APART)}
    tensors |= {f"head.{part}": np.zeros_like(package.tensors[f"head.{part}"]) for part in _HEAD}
    meta = {key: value for key, value in package.meta.items() if key not in _INFORMATIVE} | {
        "name": "network",
        "classes": [str(number) for number in range(package.arch["classes"])],
        "params": package.meta["params"] | {"head.shift": 0},
        "scales": package.meta["scales"] | {"logit": 1.0},
    }
    return ModelPackage(meta, tensors)


def with_head(program: Program, package: ModelPackage, config: HardwareConfig) -> Program:
    """What `compile` would make of a package with the `frame` of the one that the program was made of."""
    code, weights = program.code.copy(), program.weights.copy()
    lowering = Lowering(package, Plan(package.meta, config), ALONE, Blob(), False)
    parts = _tiles(package.arch["classes"], config)
    before = _tiles(program.meta["architecture"]["classes"], config)
    more = sum(map(_record_bytes, parts)) - sum(map(_record_bytes, before))
    places: dict[tuple[int, LoadKind], int] = {}  # where the tiles' parameters and weights begin
    start, passes = 1, []
    for stored, part in zip(program.meta["passes"], program.passes, strict=True):
        for row, operation in enumerate(part.operations, start):
            if operation.kind is not OperationKind.HEAD or operation.tile is None:
                continue
            instruction = Instruction.decode(code[row].tolist())
            if instruction.op is Op.LOAD:  # a tile may come in several
                key = operation.tile, LoadKind(instruction.fields["kind"])
                address = instruction.fields["address"] - len(code) * INSTRUCTION_BYTES
                places[key] = min(address, places.get(key, address))
            else:
                first, last = parts[operation.tile]
                fields = {"shift": package.meta["params"]["head.shift"], "count": last - first}
                code[row] = replace(instruction, fields=instruction.fields | fields).encode()
        start += stored["instructions"]
        passes.append(stored | {"output_bytes": part.output_bytes + part.images * more})
    for tile, part_ in enumerate(parts):
        for load, _ in _loads(lowering, part_):
            array = lowering.blob.array(load.address)
            place = places[tile, load.kind]
            weights[place : place + len(array)] = array
    left = {key: value for key, value in program.meta.items() if key != "familiar"}
    meta = left | described(package, config) | {"passes": passes}
    return Program(code, weights, meta, host_tensors(package), package, program.checked)


def _tiles(classes: int, config: HardwareConfig) -> list[tuple[int, int]]:
    """First class and end of every lane tile."""
    return [(first, min(first + config.tile, classes)) for first in range(0, classes, config.tile)]


def _groups(part: Part, config: HardwareConfig) -> int:
    return -(-(part[1] - part[0]) // config.lanes)


def _record_bytes(part: Part) -> int:
    return 8 + 8 * -(-(part[1] - part[0]) // 4)


def _loads(lowering: Lowering, part: Part) -> list[Loaded]:
    """Of a tile's parameters and weights."""
    lanes, groups = lowering.config.lanes, _groups(part, lowering.config)
    # results stream lane by lane, and within a lane group by group
    order = np.arange(groups * lanes).reshape(lanes, groups).T.ravel()

    def cut(name: str, tensor: NDArray[Any], part: Part) -> NDArray[Any]:
        return pad_lanes(channels(name, tensor, part), groups * lanes)[..., order]

    return lowering.linear("head", groups, part, cut)
