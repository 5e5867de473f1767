# SPDX-License-Identifier: Apache-2.0
"""From instructions to jobs: what the data of an image make of every instruction."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from rowvit.cycles.data import LayerStatistics, Slice, Statistics
from rowvit.formats.description import lanes_each
from rowvit.formats.program import Operation, Pass, Program
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import QUEUE, Dst, Engine, Flag, Instruction, LoadKind, Op

WEIGHT_PORTS = 2  # of the weight memory: row r of a band walks its non-zeros on port r % 2

#: engine, operation since start, band by band
Dependency = tuple[Engine, int, bool]


_empty = partial(np.empty, 0)


@dataclass(eq=False)
class Job:
    """One instruction of one image, as its engine sees it."""

    instruction: Instruction
    slice: Slice
    deps: list[Dependency]
    live: int
    turn: int  #: pass of the program
    void: bool
    #: SPARSE, ATTN, [bands, ports]: cycles that a band's scalars fire on each port of the weight memory
    ports: np.ndarray = field(default_factory=_empty)
    work: np.ndarray = field(default_factory=_empty)  #: likewise, [bands]: scalars, over all groups
    lines: np.ndarray = field(default_factory=_empty)  #: likewise, [bands]: weight lines read, of all groups
    #: SPARSE, ATTN and what FFN1 compresses, [bands]: words of the token memory
    packed: np.ndarray = field(default_factory=_empty)
    words: int = 0  #: LOAD
    scan: int = 0  #: LOAD, gather: mask words
    fetched: int = 0  #: LOAD, gather: rows
    time: float = 0.0  #: when it enters its queue

    @property
    def chained(self) -> list[Dependency]:
        """Dependencies that hold band by band."""
        return [dep for dep in self.deps if dep[2]]


def jobs(program: Program, part: Pass, config: HardwareConfig, statistics: list[Statistics]) -> list[Job]:
    """The jobs of all turns of a pass in program order, for images with the given statistics."""
    header, *body, _ = part.instructions
    work = _Work(program, part, config, body)
    per_pass = Counter(QUEUE[instruction.op] for instruction in body)
    per_pass[Engine.DRAIN] = per_pass[Engine.EXEC]
    turns, found = len(statistics) // part.images, []
    for turn in range(turns + 1):
        base = {engine: per_pass[engine] * turn for engine in Engine}
        number = dict(base)
        live = [program.meta["architecture"]["tokens"]] * part.images
        todo = body if turn < turns else body[: header.fields["finish"]]
        for instruction, operation in zip(todo, part.operations, strict=False):
            engine = QUEUE[instruction.op]
            image = (turn - (Flag.PREVIOUS in instruction.flags)) * part.images + instruction.image
            deps = [
                (e, base[e] + dep - 1, e in instruction.chain)
                for e, dep in instruction.deps.items()
                if base[e] + dep > 0
            ]
            piece = Slice(engine, operation, image, number[engine])
            number[engine] += 1
            void = not 0 <= image < len(statistics)
            job = Job(instruction, piece, deps, live[instruction.image], turn, void)
            found.append(job)
            if not void:
                count = part.shares[operation.layer] if 0 <= operation.layer < len(part.shares) else 1
                first = image - instruction.image % count
                work.describe(job, statistics[first : first + count], image - first)
                if instruction.op is Op.SELECT:
                    live[instruction.image] = statistics[image][operation.layer].after
    return found


class _Work:
    """How much work the instructions of a program are."""

    def __init__(self, program: Program, part: Pass, config: HardwareConfig, body: list[Instruction]) -> None:
        self.config, self.chunk = config, program.meta["ffn_chunk"] * lanes_each(program.meta)
        self.bases: dict[Operation, int] = {}  # weight line of a sparse product's first row of W2
        self.rest: dict[tuple[Operation, int], int] = {}  # first row of a load of the rest of the rows
        for instruction, operation in zip(body, part.operations, strict=True):
            if Flag.SPARSE in instruction.flags:
                self.bases[operation] = instruction.fields["wbase"]
            elif Flag.REST in instruction.flags:
                row = instruction.fields["band0"] * config.rows
                self.rest[operation, instruction.fields["dst"]] = row

    def describe(self, job: Job, images: list[Statistics], number: int) -> None:
        """Fill in what the data decide, for one of the images that are computed together."""
        layers = images[number]
        instruction, operation = job.instruction, job.slice.operation
        fields = instruction.fields
        if Flag.ONE_ROW in instruction.flags:
            job.live = 1
        if instruction.op is Op.ATTN:
            first = (operation.tile or 0) * self.config.groups
            heads = slice(first, first + fields["groups"])
            self._walk(job, layers[operation.layer].probabilities[heads])
        elif Flag.SPARSE in instruction.flags:
            first = (operation.chunk or 0) * self.chunk
            self._walk(job, layers[operation.layer].hidden[None, :, first : first + self.chunk])
        elif instruction.op is Op.MATMUL and fields["dst"] == Dst.HIDDEN and fields["mask_bands"]:
            tile = self.config.tile  # tiles are numbered through all chunks, of which each begins with one
            chunk, number = divmod(operation.tile or 0, -(-self.chunk // tile))
            first = chunk * self.chunk + number * tile
            end = min(first + tile, (chunk + 1) * self.chunk)
            job.packed = self._packed(layers[operation.layer].hidden[None, :, first:end])
        elif instruction.op is Op.LOAD:
            job.slice.load = LoadKind(fields["kind"])
            if Flag.GATHER in instruction.flags:
                self._gather(job, [image[operation.layer] for image in images])
            else:
                job.words = self._words(job.slice.load, fields["rows"], fields["groups"])

    def _walk(self, job: Job, nonzero: np.ndarray) -> None:
        """How long the walks of rows [groups, rows, scalars] take; those of a port walk the union of theirs.

        A row without any scalar has one all the same.
        """
        config, ports = self.config, WEIGHT_PORTS
        groups, rows, count = nonzero.shape
        bands = config.bands(rows)
        padded = np.zeros((groups, bands * config.rows, count), bool)
        padded[:, :rows] = nonzero
        padded[:, :rows, 0] |= ~nonzero.any(axis=2)
        job.work = padded.reshape(groups, bands, -1).sum(axis=(0, 2)).astype(float)
        shared = padded.reshape(groups, bands, config.rows // ports, ports, count).any(axis=2)
        cycles = shared.sum(axis=3)
        job.ports = cycles.max(axis=0).astype(float)
        job.lines = cycles.sum(axis=(0, 2)).astype(float)
        job.packed = self._packed(nonzero)

    def _packed(self, nonzero: np.ndarray) -> np.ndarray:
        """Words of compressed rows [groups, rows, scalars], by band: bitmaps, and the non-zeros."""
        config = self.config
        groups, rows, count = nonzero.shape
        segments = -(-count // config.lanes)
        padded = np.zeros((groups, config.bands(rows) * config.rows, segments * config.lanes), bool)
        padded[:, :rows, :count] = nonzero
        words = -(-padded.reshape(groups, -1, segments, config.lanes).sum(axis=3) // 8)
        words[:, :rows] += 1
        by_band: np.ndarray = words.reshape(groups, -1, config.rows * segments).sum(axis=(0, 2)).astype(float)
        return by_band

    def _words(self, kind: LoadKind, rows: int, groups: int) -> int:
        if kind is LoadKind.WEIGHT:
            return rows * groups * self.config.lanes // 8
        if kind is LoadKind.PARAM:
            return groups * self.config.lanes
        return self.config.residual_words(rows) if kind is LoadKind.RESIDUAL else rows

    def _gather(self, job: Job, images: list[LayerStatistics]) -> None:
        """The rows of W2 that a masked load fetches, for the images that share it."""
        config, fields, operation = self.config, job.instruction.fields, job.slice.operation
        chunk, tile = operation.chunk or 0, operation.row_tile or 0
        begin = chunk * self.chunk + fields["dst"] - self.bases[operation]
        end = min(begin + fields["rows"], (chunk + 1) * self.chunk)
        rest = self.rest.get((operation, fields["dst"]))  # a later load fetches what is left of these rows
        later = Flag.REST in job.instruction.flags
        if len(images) > 1:  # it is for the last of the images
            used = np.array([image.first[tile, begin:end] < image.after for image in images])
            fetched = used if rest is None else used[:-1]
            rows = used[-1] & ~used[:-1].any(axis=0) if later else fetched.any(axis=0)
        else:  # it is for the last bands
            (layer,) = images
            first = layer.first[tile, begin:end] if tile < len(layer.first) else np.empty(0)
            low = fields["band0"] * config.rows if later else 0
            high = layer.after if later or rest is None else min(layer.after, rest)
            rows = (first >= low) & (first < high)
        job.scan = -(-fields["rows"] // config.lanes)
        job.fetched = int(rows.sum())
        job.words = self._words(LoadKind.WEIGHT, job.fetched, fields["groups"])
