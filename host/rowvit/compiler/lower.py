# SPDX-License-Identifier: Apache-2.0
"""From a model package to steps: every instruction but the loads, and what each step needs loaded.

`Lowering` collects them; `embed`, `attention` and `ffn` lower their parts of the network for one image, or
for all images of a pass, which then share every load of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.compiler.plan import Plan, Stages
from rowvit.compiler.steps import (
    Access,
    Allocation,
    Load,
    OnChip,
    Region,
    Step,
    compute_write,
)
from rowvit.compiler.weights import Blob, pack_pairs, pad_lanes, pad_rows, parameter_words
from rowvit.formats import tokens
from rowvit.formats.package import ModelPackage
from rowvit.formats.program import Operation, OperationKind
from rowvit.hardware.isa import QUEUE, Dst, Engine, Flag, Instruction, LoadKind, NormKind, Op

Loaded = tuple[Load, Allocation]
#: numbers that say which part of a layer's tensors a load has
Part = tuple[int, ...]
#: takes that part of the tensor "weight", "bias" or "mult"
Cut = Callable[[str, NDArray[Any], Part], NDArray[Any]]


def channels(_: str, tensor: NDArray[Any], part: Part) -> NDArray[Any]:
    """Of any tensor the channels in the range ``part``."""
    return tensor[..., slice(*part)]


class Lowering:
    """Steps, reservations and weight bytes of one pass.

    With ``checkpoints`` the residual stream is dumped after the embedding and after each half layer.
    """

    def __init__(
        self, package: ModelPackage, plan: Plan, stages: Stages, blob: Blob, checkpoints: bool
    ) -> None:
        self.plan, self.config, self.stages, self.checkpoints = plan, plan.config, stages, checkpoints
        self.meta = package.meta
        # the position table holds the bias of the patches
        self.tensors = package.tensors | {"patch.bias": np.zeros(plan.dim, np.int32)}
        if "pre_norm" in self.meta:
            identity = 127 * np.eye(plan.dim, dtype=np.int8)
            self.tensors |= {"pre.weight": identity, "pre.bias": np.zeros(plan.dim, np.int32)}
        self.blob = blob
        self.steps: list[Step] = []
        self.reserved: list[Allocation] = []  #: of K^T and V, placed
        self.output_bytes = 0  #: of all images
        self.image = 0  #: to which new steps belong
        self.behind: tuple[int, Access] | None = None  #: a step, and what the next new load waits for of it
        self.rotations: list[Load] = []  #: for the next step that rotates

    def each(self, images: Iterable[int]) -> Iterator[int]:
        """The images, to each of which new steps belong in its turn."""
        for image in images:
            self.image = image
            yield image

    def residual_base(self, layer: int) -> int:
        """Residual address of the image's row 0 in a layer's attention, behind the last one in the head."""
        level = max((n for n, stage in enumerate(self.stages) if stage.layer <= layer), default=0)
        return self.plan.residual_base(self.stages, level, self.image)

    def weight_load(self, path: str, groups: int, part: Part, cut: Cut) -> Loaded:
        """Part [k, channels] of a layer's weights, padded with zeros to whole words of scalars and to the
        groups' lanes.
        """

        def lines() -> NDArray[Any]:
            matrix = pad_rows(self._tensor(path, "weight", part, cut), 8)
            return pack_pairs(pad_lanes(matrix, groups * self.config.lanes))

        address, rows = self.blob.place((path, part, "weight"), lines, path == "head")
        block = Allocation(OnChip.WEIGHT, rows)
        return Load(LoadKind.WEIGHT, address, rows, groups, block), block

    def param_load(self, path: str, groups: int, part: Part, cut: Cut) -> Loaded:
        def words() -> NDArray[Any]:
            bias, mult = (self._tensor(path, name, part, cut) for name in ("bias", "mult"))
            return pad_lanes(parameter_words(bias, mult), groups * self.config.lanes)

        address, _ = self.blob.place((path, part, "params"), words, path == "head")
        block = Allocation(OnChip.PARAM, 1)
        return Load(LoadKind.PARAM, address, 1, groups, block), block

    def linear(self, path: str, groups: int, part: Part, cut: Cut) -> list[Loaded]:
        return [self.param_load(path, groups, part, cut), self.weight_load(path, groups, part, cut)]

    def _tensor(self, path: str, name: str, part: Part, cut: Cut) -> NDArray[Any]:
        return cut(name, self.tensors[f"{path}.{name}"], part)

    def use(self, step: Step, *pairs: Loaded) -> None:
        """``step``, the newest one, uses these loads' blocks; parameters are loaded before weights.

        The loads of a block that nobody has used yet belong to the step and its image.
        """
        index = len(self.steps) - 1
        new = [block for _, block in pairs if block.first < 0]
        for load, block in sorted(pairs, key=lambda pair: pair[1].memory is OnChip.WEIGHT):
            if block in new:
                block.first = index
                load.previous = Flag.PREVIOUS in step.instruction.flags
                load.image = step.instruction.image
                if self.behind:
                    (load.after, load.behind), self.behind = self.behind, None
                step.loads.append(load)
            block.last = index
            if block.memory is OnChip.WEIGHT:
                step.weights = block
            else:
                step.params = block

    def step(
        self,
        op: Op,
        operation: Operation,
        accesses: list[Access],
        flags: Collection[Flag] = (),
        tag: int = 0,
        **fields: int,
    ) -> Step:
        step = Step(Instruction(op, fields, frozenset(flags), tag, image=self.image), accesses, operation)
        self.steps.append(step)
        return step

    def matmul(
        self,
        operation: Operation,
        dst: Dst,
        accesses: list[Access],
        loads: list[Loaded],
        flags: Collection[Flag],
        **fields: int,
    ) -> Step:
        if Flag.ONE_ROW not in flags:
            accesses = [
                *accesses,
                Access(Engine.EXEC, Flag.SET_LIVE in flags, OnChip.LIVE, self.image, 1),
            ]
        if Flag.GATHER in flags:
            entries = self.plan.bounds[operation.layer][1]
            accesses = [*accesses, Access(Engine.EXEC, False, OnChip.TABLE, fields["table"], entries)]
        groups = loads[0][0].groups
        step = self.step(Op.MATMUL, operation, accesses, flags, dst=dst, groups=groups, **fields)
        self.use(step, *loads)
        return step

    def residual_matmul(
        self,
        operation: Operation,
        source: Access,
        loads: list[Loaded],
        flags: Collection[Flag],
        bands: int,
        band0: int = 0,
        **fields: int,
    ) -> Step:
        """A matrix product whose lane tile the drain adds to ``bands`` bands of the residual stream.

        With GATHER it takes only the rows that stay, to where the next layer has them.
        """
        offset, _, _ = self.plan.residual_tiles()[operation.tile or 0]
        base = self.residual_base(operation.layer) + offset
        if operation.kind in (OperationKind.PROJECTION, OperationKind.FFN2):
            base = self.residual_base(operation.layer + 1) + offset
        accesses = [source]
        if Flag.GATHER in flags:
            old = self.residual_base(operation.layer) + offset
            size = self.plan.residual_size(self.plan.bounds[operation.layer][0])
            accesses.append(Access(Engine.DRAIN, False, OnChip.RESIDUAL, old, size, 0, bands))
            fields |= dict(res_from=old)
        stride, lanes = self.plan.res_stride, self.config.lanes
        target = compute_write(OnChip.RESIDUAL, base + band0 * stride, lanes, stride, bands, band0)
        fields |= dict(dst_base=base, dst_stride=stride, bands=bands, band0=band0)
        return self.matmul(operation, Dst.RESIDUAL, [*accesses, target], loads, flags, **fields)

    def norm_load(self, path: str) -> Loaded:
        def words() -> NDArray[Any]:
            return parameter_words(self.tensors[f"{path}.b"], self.tensors[f"{path}.g"].view(np.uint16))

        block, (address, _) = Allocation(OnChip.NORM, 1), self.blob.place((path, (), "norm"), words)
        return Load(LoadKind.NORM, address, self.plan.dim, self.config.groups, block), block

    def row_norm(
        self, layer: int, base: int, loads: Loaded, shift: int, x: Region, flags: Collection[Flag] = ()
    ) -> None:
        """LayerNorm of the residual stream from address ``base`` on into X."""
        plan = self.plan
        accesses = [
            self._residual_read(base, x.bands),
            Access(Engine.NORM, True, OnChip.TOKEN, x.base, plan.words, x.stride, x.bands),
        ]
        if Flag.ONE_ROW not in flags:
            accesses.append(Access(Engine.NORM, False, OnChip.LIVE, self.image, 1))
        step = self.step(
            Op.NORM,
            Operation(OperationKind.NORM, layer),
            accesses,
            flags,
            kind=NormKind.LAYERNORM,
            dim=plan.dim,
            res_base=base,
            res_stride=plan.res_stride,
            dst_base=x.base,
            dst_stride=x.stride,
            shift=shift,
        )
        self.use(step, loads)

    def dump(self, layer: int, base: int, tag: int, live: int) -> None:
        """Send the residual stream from address ``base`` on, in a program with checkpoints; `answer_tokens`
        sends what the network answers with.
        """
        if self.checkpoints and tag not in tokens.state_tags(self.meta):
            self._send_rows(NormKind.DUMP, layer, base, tag, live)

    def answer_tokens(self, layer: int, live: int, images: Sequence[int]) -> None:
        """Send the tokens behind a layer, at most ``live`` of each image, if the network answers with them.

        Without classes, those of the last image and layer end the pass, behind every other record.
        """
        if layer not in tokens.layers(self.meta):
            return
        rows, normalised = tokens.count(self.meta, live), tokens.normalised(self.meta)
        loads = self.norm_load("tokens") if normalised else None
        kind, tag = (NormKind.TOKENS, layer) if normalised else (NormKind.DUMP, tokens.state_tag(layer))
        for image in self.each(images):
            ends = not self.plan.arch["classes"] and layer == self.plan.arch["depth"] - 1
            ends = ends and image == self.stages[-1].images - 1
            self._send_rows(kind, layer, self.residual_base(layer + 1), tag, rows, loads, ends)

    def _send_rows(
        self,
        kind: NormKind,
        layer: int,
        base: int,
        tag: int,
        rows: int,
        loads: Loaded | None = None,
        ends: bool = False,
    ) -> None:
        """The image's first ``rows`` residual rows, from address ``base`` on, as a record, which may end the
        pass; to TOKENS belong ``loads``.
        """
        plan, fields = self.plan, {}
        operation, size = OperationKind.DUMP, 2 * plan.dim * rows
        flags = {Flag.LAST} if ends else set()
        accesses = [self._residual_read(base, self.config.bands(rows))]
        if kind is NormKind.TOKENS:
            layout = tokens.Layout.of(self.config)
            operation, size = OperationKind.TOKENS, layout.payload(rows, plan.dim)
            fields = dict(dst_stride=layout.part_words(plan.dim), shift=self.meta["tokens"]["shift"])
            flags |= {Flag.ONE_ROW} if self.meta["tokens"]["rows"] == "class" else set()
        if ends:
            accesses.append(Access(Engine.NORM, True, OnChip.PACKET, 0, 1, banded=False))
        if Flag.ONE_ROW not in flags:
            accesses.append(Access(Engine.NORM, False, OnChip.LIVE, self.image, 1))
        fields |= dict(kind=kind, dim=plan.dim, res_base=base, res_stride=plan.res_stride)
        step = self.step(Op.NORM, Operation(operation, layer), accesses, flags, tag, **fields)
        if loads is not None:
            self.use(step, loads)
        self.output_bytes += 8 + size

    def mark(self, tag: int) -> None:
        """The image's newest array operation emits a MARK record."""
        own = (step for step in reversed(self.steps) if step.instruction.image == self.image)
        step = next(step for step in own if QUEUE[step.instruction.op] is Engine.EXEC)
        step.instruction.flags |= {Flag.MARK}
        if not self.plan.arch["classes"]:  # else the packet ends with a record of the same engine
            step.accesses.append(compute_write(OnChip.PACKET, 0, 1))
        step.instruction.tag = tag
        self.output_bytes += 16

    def _residual_read(self, base: int, bands: int) -> Access:
        stride = self.plan.res_stride
        return Access(Engine.NORM, False, OnChip.RESIDUAL, base, stride, stride, bands)
