# SPDX-License-Identifier: Apache-2.0
"""What lowering makes and the scheduler orders: steps, loads, their accesses and the room that they need."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial
from typing import NamedTuple

from rowvit.formats.program import Operation
from rowvit.hardware.isa import Engine, Instruction, LoadKind


class OnChip(Enum):
    """The memories of the core, in the units of their addresses."""

    TOKEN = auto()  #: words of a row bank
    WEIGHT = auto()  #: lines of a group
    RESIDUAL = auto()  #: addresses of a bank
    PARAM = auto()  #: slots
    NORM = auto()  #: slots
    MASK = auto()  #: words
    SCORE = auto()  #: the one table of token scores
    LIVE = auto()  #: live tokens of every image
    TABLE = auto()  #: the one selection table
    ROTATION = auto()  #: entries of the table of rotations
    PLACE = auto()  #: rows; the one behind the last stands for the port by which loads and selections write
    PACKET = auto()  #: the output packet, of one address: whoever ends it waits for its MARK records

    __hash__ = object.__hash__  # Enum's hashes the name, in Python


class Access(NamedTuple):
    """Band ``first`` + p touches ``[base + p * stride, + width)`` of ``memory``, for p < bands."""

    engine: Engine
    write: bool
    memory: OnChip
    base: int
    width: int
    stride: int = 0
    bands: int = 1
    first: int = 0
    #: False: not in band order, so that nobody can follow band by band
    banded: bool = True

    @property
    def end(self) -> int:
        return self.base + (self.bands - 1) * self.stride + self.width

    @property
    def dense(self) -> bool:
        return self.bands == 1 or self.stride <= self.width


#: the array reads operands, and the drain writes results
compute_read, compute_write = partial(Access, Engine.EXEC, False), partial(Access, Engine.DRAIN, True)


@dataclass(eq=False)
class Allocation:
    """Room for loaded data, K^T or V: lines of weight memory, or one parameter or norm slot (size 1)."""

    memory: OnChip
    size: int
    first: int = -1  #: first step that uses it
    last: int = -1  #: last step that uses it
    base: int = -1  #: where it is, once the scheduler has decided
    only: int = -1  #: the one base that it may have; -1: any

    @property
    def end(self) -> int:
        return self.base + self.size


@dataclass(eq=False)
class Load:
    """One LOAD instruction, to be placed before the first step that uses its block."""

    kind: LoadKind
    address: int  #: byte offset in the weights
    rows: int
    groups: int
    block: Allocation | None  #: None: residual memory, rotations or places
    offset: int = 0  #: lines from the block's base; residual address, entry or row
    mask: Mask | None = None  #: GATHER
    after: int = -1  #: step that it must not overtake: what completes the mask, or reads what it overwrites
    previous: bool = False  #: for the pass before
    image: int = 0  #: the first that uses it
    operation: Operation | None = None  #: the first to use it; None: its step's
    late: bool = False  #: its lines had another use when their block was placed
    behind: Access | None = None  #: what has to be written before, though the load does not use it

    def split(self, first: int, size: int, line: int) -> tuple[Load, Load]:
        """The loads of ``size`` rows, which are the first or the last ones, and of the others.

        A row has ``line`` bytes.
        """
        rest = size if first == 0 else 0
        own = replace(self, address=self.address + first * line, rows=size, offset=self.offset + first)
        left = self.rows - size
        return own, replace(
            self, address=self.address + rest * line, rows=left, offset=self.offset + rest, late=True
        )


@dataclass(frozen=True)
class Mask:
    """Mask words of one hidden tile, complete after ``step``; for bands from ``band0``."""

    step: int
    start: int  #: first neuron within the chunk
    words: Access
    band0: int = 0
    had: Access | None = None  #: REST: the words for the bands before ``band0``, whose rows are loaded


@dataclass(eq=False)
class Step:
    """One instruction with the accesses that do not depend on where its loads go."""

    instruction: Instruction
    accesses: list[Access]
    operation: Operation
    loads: list[Load] = field(default_factory=list)
    weights: Allocation | None = None
    params: Allocation | None = None


@dataclass(frozen=True)
class Region:
    """Token memory: band p at ``base + p * stride``."""

    base: int
    stride: int
    bands: int

    @property
    def end(self) -> int:
        return self.base + self.stride * self.bands

    def read(self, width: int = 0, offset: int = 0, band0: int = 0, bands: int = 0) -> Access:
        """The array reads ``width`` words of every band, or of ``bands`` from ``band0``; 0: all."""
        start = self.base + offset + band0 * self.stride
        size = width or self.stride
        return compute_read(OnChip.TOKEN, start, size, self.stride, bands or self.bands, band0)

    def write(self, width: int, offset: int = 0, band0: int = 0, bands: int = 0) -> Access:
        """The drain writes ``width`` words of every band, or of ``bands`` from ``band0``; 0: all."""
        start = self.base + offset + band0 * self.stride
        return compute_write(OnChip.TOKEN, start, width, self.stride, bands or self.bands, band0)

    def source(self) -> dict[str, int]:
        return dict(src_base=self.base, src_stride=self.stride)
