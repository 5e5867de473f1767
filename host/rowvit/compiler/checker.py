# SPDX-License-Identifier: Apache-2.0
"""Checks a program: an abstract run over its instructions, for any data and any number of live tokens.

Every cell of every memory knows what was last written to it (`cells`), and whoever reads it says what it
expects there. Tokens are counted by bounds: band p of an image exists if the image has that many live tokens,
and it is the same band p for whoever writes and for whoever reads, as long as both ask the same image at the
same point. That is what the guard of a masked load is held against, and what a run with random data hardly
ever meets.

It reads the instructions as the core does, and what they belong to (`Operation`); nothing of what the
compiler knew. It takes them in program order: that dependencies keep this order is not checked, nor what the
bytes of the weights are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowvit.compiler.cells import Area, Cells, Value, Values
from rowvit.compiler.plan import EMBED_TAG
from rowvit.errors import RowvitError
from rowvit.formats import tokens
from rowvit.formats.description import lanes_each
from rowvit.formats.package import patch_chunks
from rowvit.formats.program import Operation, OperationKind, Pass, Program
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import (
    GATHER_STRIDE,
    MAX_OPERATIONS,
    QUEUE,
    Dst,
    Flag,
    Instruction,
    LoadKind,
    NormKind,
    Op,
    Record,
)

_ALL_BANDS = 0xFFFF
_OWNER = 40  #: first bit of a weight line's owner
_SEGMENT = 16  #: places of a hidden segment in its row
#: flags that an opcode may have
_FLAGS: dict[Op, set[Flag]] = {
    Op.LOAD: {Flag.GATHER, Flag.REST, Flag.PREVIOUS},
    Op.MATMUL: set(Flag) - {Flag.SCORE, Flag.SCORE_CLEAR, Flag.REST, Flag.VOID},
    Op.ATTN: {Flag.SCORE, Flag.SCORE_CLEAR},
    Op.NORM: {Flag.ONE_ROW, Flag.PREVIOUS, Flag.LAST},
    Op.SELECT: set(),
    Op.RECV: set(),
}
#: what a product is, by where it goes, or what it adds to the residual stream
_KINDS: dict[Dst | str, OperationKind] = {
    Dst.TOKEN: OperationKind.QUERY,
    Dst.KEY: OperationKind.KEY,
    Dst.VALUE: OperationKind.VALUE,
    Dst.HIDDEN: OperationKind.FFN1,
    Dst.STREAM: OperationKind.HEAD,
    "patches": OperationKind.EMBEDDING,
    "X before the blocks": OperationKind.PRE,
    "O": OperationKind.PROJECTION,
    "hidden": OperationKind.FFN2,
}


@dataclass(eq=False)
class _Image:
    """An image of one pass."""

    life: int  #: 0: of the pass before; 1: of this one
    number: int
    received: bool = False
    bounds: list[int] = field(default_factory=list)  #: of its live tokens, and after each selection
    records: list[tuple[Record, int]] = field(default_factory=list)  #: that it has sent: type and tag
    logits: int = 0

    @property
    def epoch(self) -> int:
        return len(self.bounds) - 1

    def value(self, kind: str, sums: int = 0, part: int = 0, epoch: int | None = None) -> Value:
        return Value(kind, self.life, self.number, self.epoch if epoch is None else epoch, sums, part)


class _Used(NamedTuple):
    """Bands of a hidden segment: those whose neurons a mask has, or whose rows of W2 are there."""

    hidden: Value
    segment: int
    first: int
    end: int


class _Mask(NamedTuple):
    """A mask word: whose neurons it has, and the band without which it is not written."""

    used: tuple[_Used, ...]
    image: _Image
    epoch: int
    band0: int


class _Slot(NamedTuple):
    """Parameters that are loaded: their address, how many groups or channels, and for what."""

    address: int
    size: int
    part: tuple[Any, ...]


def check(program: Program, config: HardwareConfig) -> None:
    """Check every pass of a program for ``config``; `RowvitError` names the first instruction at fault.

    Every address is written before it is read, by the image that reads it and for this purpose, and not
    overwritten in between; masks, tables and guards of loads are those of the images that they serve; weights
    and parameters are whole, and the same for every image; every image is alive, and gets all of its records.
    """
    same: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for part in program.passes:
        _Run(program, part, config, same).run()
    program.checked = True


class _Run:
    """One run of a pass that stands for the first, the last, and all in between.

    It finds nothing of the pass before but row 0 of every image, where it takes it (PREVIOUS), and must leave
    those of its own images there. Neither pass takes what was loaded or written for the other, which is void
    in the first one and behind the last.
    """

    def __init__(
        self,
        program: Program,
        part: Pass,
        config: HardwareConfig,
        same: dict[tuple[Any, ...], tuple[Any, ...]],
    ) -> None:
        self.config, self.part, self.same = config, part, same
        self.meta = program.meta
        self.arch: dict[str, int] = self.meta["architecture"]
        self.weights = range(program.code.nbytes, program.code.nbytes + program.weights.size)  #: in the blob
        self.values = Values()
        self.token = Cells("token", config.token_depth, self.values)
        self.residual = Cells("residual", config.residual_depth, self.values)
        self.scores = Cells("score", config.max_tokens, self.values)
        self.table = Cells("selection", config.max_tokens, self.values)
        self.kv = Cells("weight", config.weight_depth, self.values)  #: K^T and V
        self.places = Cells("place", config.rotary_tokens, self.values)
        self.turns = False  #: whether the table of rotations is there
        #: owner, one of `parts`, << 40 | address << 3 | groups of loaded ones
        self.lines = np.full(config.weight_depth, -1, np.int64)
        #: 0: all of them are there; else one of `covers`
        self.cover = np.zeros(config.weight_depth, np.int64)
        #: what lines are for, and of which life
        self.parts: dict[tuple[Any, ...], int] = {}
        self.covers: list[tuple[_Used, ...]] = [()]
        self.slots: dict[tuple[LoadKind, int], _Slot] = {}
        self.unused: set[tuple[LoadKind, int]] = set()  #: slots that nobody has read since they were loaded
        self.masks: dict[int, _Mask] = {}
        self.joined: dict[int, list[_Used]] = {}  #: by group, of the mask under way
        self.heads: dict[Value, int] = {}  #: that a score has added up
        #: of hidden neurons: FFN1's weights, parameters and group
        self.segments: dict[tuple[Any, ...], int] = {}
        self.stride: int = -(-self.arch["dim"] // config.tile) * config.lanes  #: of residual rows
        self.embeddings = len(patch_chunks(self.arch)) + ("pre_norm" in self.meta)
        self.chunks: int = -(-self.arch["hidden"] // self.meta["ffn_chunk"])
        self.steps: dict[Op, Callable[[Instruction, _Image, Operation], None]] = {
            Op.LOAD: self._load,
            Op.MATMUL: self._matmul,
            Op.ATTN: self._attention,
            Op.NORM: self._norm,
            Op.SELECT: self._select,
            Op.RECV: self._receive,
        }

    def run(self) -> None:
        self.at = 0  #: number of the instruction; 0: none
        try:
            self._passes()
        except ValueError as error:
            raise RowvitError(
                f"the program for '{self.config.name}' is wrong{self._where()}: {error}",
                "compile the package again with this rowvit; if that fails, too, report it",
            ) from error

    def _where(self) -> str:
        if not self.at:
            return ""
        one, operation = self.part.instructions[self.at], self.part.operations[self.at - 1]
        of = f"{operation.label} of layer {operation.layer}, image {one.image} of {self.part.images}"
        return f" at instruction {self.at} ({of})"

    def _passes(self) -> None:
        code = self.part.instructions
        if code[0].op is not Op.HEADER or code[-1].op is not Op.END:
            raise ValueError("it does not begin with HEADER and end with END")
        finish = max((n for n, one in enumerate(code) if Flag.PREVIOUS in one.flags), default=0)
        if code[0].fields["finish"] != finish:
            raise ValueError(f"finish is {code[0].fields['finish']}, but PREVIOUS ends with {finish}")
        for self.at in range(1, finish):
            if code[self.at].op in (Op.ATTN, Op.SELECT):
                raise ValueError("it is of this pass, and the core would run it once more behind the last")
        self.at = 0
        engines = Counter(QUEUE[one.op] for one in code if one.op in QUEUE)
        if engines and (most := max(engines.values())) > MAX_OPERATIONS:
            raise ValueError(f"an engine has {most} operations, of at most {MAX_OPERATIONS}")
        bounds = [self.arch["tokens"]]
        for step in self.meta["pruning"]:
            bounds.append(min(bounds[-1], step["keep"] + 1))
        before = [_Image(0, number, bounds=bounds) for number in range(self.part.images)]
        own = [_Image(1, number) for number in range(self.part.images)]
        for image, area in self._rows_left(before):
            self.residual.write(area, self._left(image))
        for number in range(1, len(code) - 1):
            self._step(number, before if Flag.PREVIOUS in code[number].flags else own)
        for image, area in self._rows_left(own):
            self._expect(self.residual.read(area), self._left(image))
        self.at = 0
        if self.unused:
            raise ValueError("parameters are loaded that nobody uses")
        if any(self.joined.values()):
            raise ValueError("a mask goes on beyond the pass")
        for image, then in zip(own, before, strict=True):
            self._complete(image, then)

    def _rows_left(self, images: list[_Image]) -> Iterator[tuple[_Image, Area]]:
        """Residual rows that the next pass takes of these images."""
        for number, one in enumerate(self.part.instructions):
            self.at = number
            if one.op is Op.NORM and Flag.PREVIOUS in one.flags and one.image < len(images):
                yield images[one.image], Area(one.fields["res_base"], self.stride, self.stride, 1)

    def _left(self, image: _Image) -> Value:
        """What they are."""
        return image.value("residual", self._sums(self.arch["depth"], 0))

    def _step(self, number: int, images: list[_Image]) -> None:
        one, operation = self.part.instructions[number], self.part.operations[number - 1]
        self.at = number
        if one.op not in self.steps or not one.flags <= _FLAGS[one.op]:
            raise ValueError("opcode or flags have no place here")
        if one.image >= len(images):
            raise ValueError(f"there are {len(images)} images")
        self.steps[one.op](one, images[one.image], operation)

    def _complete(self, image: _Image, then: _Image) -> None:
        """It sends all of its records, and those that the next pass sends are as of the one before."""
        layers = range(self.arch["depth"])
        expected = {
            Record.MARK: [EMBED_TAG, *layers],
            Record.KEPT: [step["layer"] for step in self.meta["pruning"]],
            Record.CHECKPOINT: list(range(2 * len(layers) + 1))
            if self.meta["checkpoints"]
            else tokens.state_tags(self.meta),
            Record.TOKENS: tokens.layers(self.meta) if tokens.normalised(self.meta) else [],
        }
        for kind, tags in expected.items():
            if [tag for record, tag in image.records + then.records if record is kind] != tags:
                raise ValueError(f"image {image.number} sends other {kind.name} records than its network has")
        if then.logits != self.arch["classes"]:
            raise ValueError(f"image {image.number} sends {then.logits} logits of {self.arch['classes']}")

    def _bands(self, image: _Image, first: int = 0, most: int = _ALL_BANDS, epoch: int = -1) -> int:
        """How many bands from ``first`` on an operation has at most."""
        if not image.bounds:
            raise ValueError("the image has no live tokens yet")
        return min(self.config.bands(image.bounds[epoch]) - first, most)

    @staticmethod
    def _expect(value: Value, right: Value) -> None:
        if value != right:
            raise ValueError(f"it takes {value}, not {right}")

    def _sums(self, layer: int, half: int) -> int:
        """Additions to the residual stream before the given half of a layer."""
        return self.embeddings + layer * (1 + self.chunks) + half

    @staticmethod
    def _part(image: _Image, operation: Operation) -> tuple[Any, ...]:
        """What weights and parameters are for, whatever the rows."""
        return image.life, *operation[:4]

    def _consistent(self, operation: Operation, *facts: object) -> None:
        """What must be the same for every image and in every pass."""
        if (known := self.same.setdefault(operation[:4], facts)) != facts:
            raise ValueError(f"weights or constants {facts} differ from {known}, which other images have")

    # -- loads ----------------------------------------------------------------------------------

    def _load(self, one: Instruction, image: _Image, operation: Operation) -> None:
        f, config = one.fields, self.config
        kind, dst, rows, groups = LoadKind(f["kind"]), f["dst"], f["rows"], f["groups"]
        pairs = kind in (LoadKind.RESIDUAL, LoadKind.ROTATION, LoadKind.PLACE)  # a port word may be two
        if not 1 <= groups <= config.groups or rows < 1 or (pairs and rows % 2):
            raise ValueError(f"{rows} rows of {groups} groups")
        gather, rest = Flag.GATHER in one.flags, Flag.REST in one.flags
        if (gather and kind is not LoadKind.WEIGHT) or (rest and not gather):
            raise ValueError("GATHER is a flag of weights, and REST one of GATHER")
        if kind is LoadKind.WEIGHT:
            size = rows * groups * config.lanes
        elif kind is LoadKind.PARAM:
            size = 8 * groups * config.lanes
        else:
            size = 8 * (config.residual_words(rows) if kind is LoadKind.RESIDUAL else rows)
        first, end, port = f["address"], f["address"] + size, config.port_bits // 8
        if first % port or size % port or first not in self.weights or end > self.weights.stop:
            raise ValueError(f"bytes {first} to {end - 1} are no words of {port} bytes among the weights")
        part = self._part(image, operation)
        if kind in (LoadKind.ROTATION, LoadKind.PLACE):
            self._load_rotary(one, image)
        elif kind is LoadKind.RESIDUAL:
            what = "zeros" if operation.kind is OperationKind.PRE else "positions"
            self.residual.fill(dst, rows, image.value(what, epoch=0))
        elif kind is LoadKind.WEIGHT:
            self._load_lines(one, image, self.parts.setdefault(part, len(self.parts)))
        else:
            slots = config.param_slots if kind is LoadKind.PARAM else config.norm_slots
            if dst >= slots or (kind, dst) in self.unused:
                raise ValueError(f"{kind.name} slot {dst} of {slots} is not there, or nobody has used it yet")
            self.slots[kind, dst] = _Slot(f["address"], groups if kind is LoadKind.PARAM else rows, part)
            self.unused.add((kind, dst))

    def _load_rotary(self, one: Instruction, image: _Image) -> None:
        """The table of rotations, or an image's places; all images have the same ones."""
        f, kind = one.fields, LoadKind(one.fields["kind"])
        coordinates = self.meta.get("rotary", {"coordinates": 0})["coordinates"]
        table = kind is LoadKind.ROTATION
        if Flag.PREVIOUS in one.flags:
            raise ValueError("PREVIOUS is no flag of it")
        size = coordinates * self.config.lanes // 2
        if coordinates and not table:
            size = -(-self.arch["tokens"] // 2) * 2
        if f["rows"] != size or (table and f["dst"]):
            raise ValueError(f"{f['rows']} words of {kind.name} to {f['dst']}")
        if not table:
            self.places.fill(f["dst"], size, image.value("places", epoch=0))
        known = self.same.setdefault((kind,), (f["address"],))
        if known != (f["address"],):
            raise ValueError("rotations or places differ from those of other images")
        self.turns = self.turns or table

    def _parameters(self, kind: LoadKind, slot: int, size: int, part: tuple[Any, ...]) -> int:
        """The address of the operation's parameters."""
        found = self.slots.get((kind, slot))
        if found is None or found.size < size or found.part != part:
            raise ValueError(f"{kind.name} slot {slot} does not hold its parameters")
        self.unused.discard((kind, slot))
        return found.address

    def _load_lines(self, one: Instruction, image: _Image, owner: int) -> None:
        f, lanes = one.fields, self.config.lanes
        dst, rows, groups = f["dst"], f["rows"], f["groups"]
        if dst + rows > self.config.weight_depth:
            raise ValueError(f"weight lines {dst} to {dst + rows - 1} of {self.config.weight_depth}")
        lines = slice(dst, dst + rows)
        tags = (owner << _OWNER | f["address"] << 3 | groups) + _steps(rows, groups * lanes)
        rest = Flag.REST in one.flags
        if rest and not (self.lines[lines] == tags).all():
            raise ValueError("the rows of the mask before are not in its lines")
        self.kv.fill(dst, rows, image.value("weights"))
        self.lines[lines] = tags
        if Flag.GATHER not in one.flags:
            self.cover[lines] = 0
            return
        if rows % lanes:
            raise ValueError(f"a mask for {rows} rows")
        self._bands(image)
        for word in range(rows // lanes):
            used = self._mask(f["mask_base"] + word, image, f["band0"]).used
            if f["band0"]:  # it is empty without this band of its image, and serves nobody else
                own = image.life, image.number, image.epoch
                used = tuple(
                    one._replace(first=max(one.first, f["band0"])) for one in used if one.hidden[1:4] == own
                )
            own_lines = slice(dst + word * lanes, dst + (word + 1) * lanes)
            if rest:
                there = self.covers[self.cover[own_lines.start]]
                if not set(self._mask(f["mask_had"] + word, image, f["band0"]).used) <= set(there):
                    raise ValueError("the rows of the mask before have not been loaded")
                used = (*there, *used)
            self.cover[own_lines] = len(self.covers)
            self.covers.append(used)

    def _mask(self, word: int, image: _Image, band0: int) -> _Mask:
        mask = self.masks.get(word)
        if mask is None:
            raise ValueError(f"mask word {word} has not been written")
        if mask.band0 and not (mask.image is image and mask.epoch == image.epoch and band0 >= mask.band0):
            raise ValueError(
                f"mask word {word} is written with band {mask.band0} of image {mask.image.number}, and read"
                f" with band {band0}"
            )
        return mask

    # -- array ----------------------------------------------------------------------------------

    def _matrix(self, f: dict[str, int], lines: int, part: tuple[Any, ...]) -> int:
        """The address of the operation's weights, ``lines`` lines from ``wbase`` on."""
        own, owner = slice(f["wbase"], f["wbase"] + lines), self.parts.get(part)
        found = self.lines[own]
        first = found.item(0) if len(found) == lines else -1
        right = first + _steps(lines, f["groups"] * self.config.lanes)
        if first >> _OWNER != owner or first & 7 != f["groups"] or found.tobytes() != right.tobytes():
            raise ValueError(f"weight lines {own.start} to {own.stop - 1} do not hold its weights")
        return (first & (1 << _OWNER) - 1) >> 3

    def _terms(self, operation: Operation) -> int:
        """Scalars of a row that the operation takes."""
        arch, number = self.arch, operation.chunk or 0
        if operation.kind is OperationKind.EMBEDDING and number < self.embeddings:
            chunk = patch_chunks(arch)[number]
            return -(-int(chunk.stop - chunk.start) // 8) * 8
        if operation.kind is OperationKind.PROJECTION:
            return arch["heads"] * self.config.lanes
        if operation.kind is OperationKind.FFN2:
            size, lanes = self.meta["ffn_chunk"], self.config.lanes
            neurons: int = min(size, arch["hidden"] - number * size)
            return -(-neurons * lanes_each(self.meta) // lanes) * lanes
        return arch["dim"]

    def _matmul(self, one: Instruction, image: _Image, operation: Operation) -> None:
        f, flags, dst = one.fields, one.flags, Dst(one.fields["dst"])
        if Flag.SET_LIVE in flags:
            if f["rows"] != self.arch["tokens"] or image.bounds or not image.received:
                raise ValueError("SET_LIVE comes twice, before the patches, or with another number of tokens")
            image.bounds.append(f["rows"])
        bands = self._bands(image, f["band0"], f["bands"])
        if Flag.ONE_ROW in flags:
            bands = min(1, bands)
        terms = f["k"] * (self.config.lanes if Flag.SPARSE in flags else 1)
        if bands < 1 or not 1 <= f["groups"] <= self.config.groups or terms != self._terms(operation):
            raise ValueError(f"{bands} bands, {terms} scalars of a row, {f['groups']} groups")
        head = {Flag.ONE_ROW, Flag.PREVIOUS} if dst is Dst.STREAM else set()
        if flags & {Flag.ONE_ROW, Flag.PREVIOUS} != head or (Flag.LAST in flags and not head):
            raise ValueError("ONE_ROW, PREVIOUS and LAST are the classifier's")
        second = operation.kind is OperationKind.FFN2
        gated = "gated" in self.meta
        hidden = {
            Flag.UNSIGNED: second and not gated,
            Flag.SPARSE: second and self.meta["ffn2_rule"] != "none",
            Flag.GATED: gated and operation.kind is OperationKind.FFN1,
        }
        if flags & set(hidden) != {flag for flag, is_there in hidden.items() if is_there}:
            raise ValueError("UNSIGNED and SPARSE are those of hidden activations, GATED is that of FFN1")
        if Flag.GATHER in flags:
            entries = Area(f["table"], 0, image.bounds[-1], 1)
            if operation.kind is not OperationKind.PROJECTION or image.epoch < 1:
                raise ValueError("GATHER is that of a projection behind a selection")
            if max(f["src_stride"], f["dst_stride"]) >= GATHER_STRIDE:
                raise ValueError(f"strides with GATHER are below {GATHER_STRIDE}")
            if f["table"] % self.config.rows or not self.table.filled(entries, image.value("rows")):
                raise ValueError(f"entries from {f['table']} on in the selection table are not the image's")
        rotates = "rotary" in self.meta and operation.kind in (OperationKind.QUERY, OperationKind.KEY)
        if (Flag.ROPE in flags) != rotates:
            raise ValueError("ROPE is a flag of Q and K, if positions are rotary")
        if rotates:
            places = Area(f["table"], image.bounds[-1], image.bounds[-1], 1)
            if not self.turns or f["table"] % self.config.rows:
                raise ValueError("there is no table of rotations, or no band of places begins there")
            if not self.places.filled(places, image.value("places")):
                raise ValueError(f"places from {f['table']} on are not the image's")
        if Flag.JOIN in flags and not (dst is Dst.HIDDEN and f["mask_bands"]):
            raise ValueError("JOIN is a flag of masks")
        weights: tuple[Any, ...]
        part = self._part(image, operation)
        if second:
            weights, source = self._hidden_source(one, bands, part)
        else:
            weights, source = self._dense_source(one, image, bands, part)
        if operation.kind is not _KINDS.get(source.kind if dst is Dst.RESIDUAL else dst):
            raise ValueError(f"{source.kind} to {dst.name}")
        parameters = self._parameters(LoadKind.PARAM, f["pslot"], f["groups"], part)
        self._consistent(operation, weights, parameters, f["groups"], f["shift"], f["thr"])
        if dst is Dst.RESIDUAL:
            self._to_residual(one, image, operation, source, bands)
        elif dst is Dst.STREAM:
            self._to_stream(one, image, source)
        else:
            half = int(dst is Dst.HIDDEN)
            self._expect(source, image.value("X", self._sums(operation.layer, half)))
            if half:
                self._to_hidden(one, image, source, bands, (*weights, parameters))
            else:
                self._to_heads(one, image, operation.tile or 0, source, bands)
        if Flag.MARK in flags:
            image.records.append((Record.MARK, one.tag))

    def _dense_source(
        self, one: Instruction, image: _Image, bands: int, part: tuple[Any, ...]
    ) -> tuple[tuple[Any, ...], Value]:
        """Weights, and the rows that they are multiplied with: patches, X, or O."""
        f, first = one.fields, one.fields["band0"]
        address = self._matrix(f, f["k"], part)
        if self.cover[f["wbase"] : f["wbase"] + f["k"]].any():
            raise ValueError("it takes all rows of weights of which a mask has loaded some")
        area = Area(f["src_base"] + first * f["src_stride"], f["src_stride"], f["k"] // 8, bands, first)
        place = self.token.place(area.base)
        if Flag.GATHER in one.flags:
            area = Area(f["src_base"], f["src_stride"], f["k"] // 8, self._bands(image, epoch=-2))
        return (address, place), self.token.read(area, place)

    def _hidden_source(
        self, one: Instruction, bands: int, part: tuple[Any, ...]
    ) -> tuple[tuple[Any, ...], Value]:
        """Weights and hidden segments of FFN2; all rows of W2 that a band needs are there."""
        f, lanes, first = one.fields, self.config.lanes, one.fields["band0"]
        sparse = Flag.SPARSE in one.flags
        if sparse == (self.meta["ffn2_rule"] == "none"):
            raise ValueError(f"SPARSE is {sparse} with FFN2 rule {self.meta['ffn2_rule']}")
        words, segments = (self.config.segment_words, f["k"]) if sparse else (lanes // 8, f["k"] // lanes)
        address = self._matrix(f, segments * lanes, part)
        found, places = set(), []
        for number in range(segments):
            base = f["src_base"] + number * words + first * f["src_stride"]
            place = self.token.place(base)
            hidden = self.token.read(Area(base, f["src_stride"], words, bands, first), place)
            found.add(hidden)
            places.append(place // _SEGMENT)
            start = f["wbase"] + number * lanes
            covers = set(self.cover[start : start + lanes].tolist())
            if covers != {0}:
                there = self.covers[covers.pop()] if sparse and len(covers) == 1 else ()
                self._require(there, _Used(hidden, places[-1], first, first + bands))
        source = found.pop()
        if found or source.kind != "hidden":
            raise ValueError(f"it takes {source} for hidden activations")
        neurons = list(self.segments)
        return (address, *(neurons[place] for place in places)), source

    @staticmethod
    def _require(there: tuple[_Used, ...], needed: _Used) -> None:
        """Of the rows of W2 that masks have loaded, all are there that ``needed`` uses."""
        band = needed.first
        for used in sorted(there, key=lambda used: used.first):
            if used[:2] == needed[:2] and used.first <= band:
                band = max(band, used.end)
        if band < needed.end:
            raise ValueError(f"rows of W2 that its band {band} uses may not have been loaded")

    def _to_heads(self, one: Instruction, image: _Image, tile: int, x: Value, bands: int) -> None:
        """Q, K^T or V of some heads."""
        f, config, dst = one.fields, self.config, Dst(one.fields["dst"])
        if bands != self._bands(image):
            raise ValueError("it leaves out tokens")
        value = image.value(dst.name, x.sums, tile)
        if dst is Dst.TOKEN:
            width = f["groups"] * config.lanes // 8
            area = Area(f["dst_base"], f["dst_stride"], width, bands)
            self.token.write(area, value, tile * config.tile // 8, x)
            return
        unit = config.lanes if dst is Dst.KEY else config.rows
        size = -(-image.bounds[-1] // unit) * unit
        if f["dst_base"] < f["wbase"] + f["k"] and f["wbase"] < f["dst_base"] + size:
            raise ValueError("it writes over its own weights")
        self.kv.write(Area(f["dst_base"], size, size, 1), value)
        self.lines[f["dst_base"] : f["dst_base"] + size] = -1

    def _to_hidden(
        self, one: Instruction, image: _Image, x: Value, bands: int, weights: tuple[Any, ...]
    ) -> None:
        """Hidden activations, and what their masks get."""
        f, first = one.fields, one.fields["band0"]
        if bool(f["mask_bands"]) == (self.meta["ffn2_rule"] == "none"):
            raise ValueError(f"{f['mask_bands']} mask_bands with FFN2 rule {self.meta['ffn2_rule']}")
        words = self.config.segment_words if f["mask_bands"] else self.config.lanes // 8
        hidden = image.value("hidden", x.sums)
        for group in range(f["groups"]):
            segment = self.segments.setdefault((*weights, group), len(self.segments))
            base = f["dst_base"] + group * words + first * f["dst_stride"]
            self.token.write(Area(base, f["dst_stride"], words, bands, first), hidden, segment * _SEGMENT, x)
            if f["mask_bands"]:
                self._join(one, image, group, _Used(hidden, segment, first, first + bands))

    def _join(self, one: Instruction, image: _Image, group: int, used: _Used) -> None:
        """A group's mask goes on, and is written unless the next operation goes on with it."""
        f, under_way = one.fields, self.joined.setdefault(group, [])
        if under_way and (f["band0"] or f["mask_bands"] < used.end):
            raise ValueError("a mask that goes on from the image before may end without this one")
        under_way.append(used)
        if Flag.JOIN in one.flags:
            if f["mask_bands"] <= used.end - used.first:
                raise ValueError("a mask that is to go on ends with its own bands")
            return
        for tile, band0 in enumerate(range(used.first, used.end, f["mask_bands"])):
            end = band0 + f["mask_bands"]
            own = [
                _Used(hidden, segment, max(start, band0), min(stop, end))
                for hidden, segment, start, stop in under_way
            ]
            word = f["mask_base"] + tile * f["mask_stride"] + group
            if word >= self.config.mask_depth:
                raise ValueError(f"mask word {word} of {self.config.mask_depth}")
            self.masks[word] = _Mask(tuple(own), image, image.epoch, band0)
        self.joined[group] = []

    def _to_residual(
        self, one: Instruction, image: _Image, operation: Operation, source: Value, bands: int
    ) -> None:
        """Patch embedding, projection or FFN2: adds to the residual stream."""
        f, first, stride = one.fields, one.fields["band0"], one.fields["dst_stride"]
        gather, lanes = Flag.GATHER in one.flags, self.config.lanes
        place, chunk, epoch = (operation.tile or 0) * lanes, operation.chunk or 0, image.epoch
        area = Area(f["dst_base"] + first * stride, stride, lanes, bands, first)
        if source.kind == "patches":
            self._expect(source, image.value("patches", epoch=0))
            sums = chunk
        elif source.kind == "X before the blocks":
            sums = self.embeddings - 1
            self._expect(source, image.value(source.kind, sums))
        elif source.kind == "hidden":
            sums = self._sums(operation.layer, 1)
            self._expect(source, image.value("hidden", sums))
            sums += chunk
        else:
            epoch -= gather
            sums = self._sums(operation.layer, 0)
            self._expect(source, image.value("O", sums, epoch=epoch))
        start = {"patches": "positions", "X before the blocks": "zeros"}.get(source.kind, "")
        if start and (start == "zeros" or sums == 0):
            if not self.residual.filled(area, image.value(start, epoch=0)):
                raise ValueError(f"the image's {start} are not where {source.kind} are added")
        else:
            old = area
            if gather:
                old = Area(f["res_from"], stride, lanes, self._bands(image, epoch=-2))
                if old.base < area.base < old.base + old.bands * stride:
                    raise ValueError("gathered rows move up, over rows that are yet to be read")
            self._expect(self.residual.read(old, place), image.value("residual", sums, epoch=epoch))
        self.residual.write(area, image.value("residual", sums + 1), place)

    def _to_stream(self, one: Instruction, image: _Image, x: Value) -> None:
        """Logits of the image's row 0."""
        self._expect(x, image.value("X of row 0", self._sums(self.arch["depth"], 0)))
        image.logits += one.fields["count"]
        complete = image.number == self.part.images - 1 and image.logits == self.arch["classes"]
        if (Flag.LAST in one.flags) != complete:
            raise ValueError("LAST is not the flag of the pass's last record")

    def _attention(self, one: Instruction, image: _Image, operation: Operation) -> None:
        f, config, tile = one.fields, self.config, operation.tile or 0
        bands, lanes, groups, words = self._bands(image), config.lanes, f["groups"], config.lanes // 8
        if groups != min(config.groups, self.arch["heads"] - tile * config.groups):
            raise ValueError(f"{groups} groups")
        if f["head_dim"] != -(-self.arch["dim"] // self.arch["heads"] // 8) * 8:
            raise ValueError(f"{f['head_dim']} channels of a head")
        if f["p_stride"] < -(-image.bounds[-1] // lanes) * config.segment_words:
            raise ValueError(f"{f['p_stride']} words for the probabilities of a row")
        if Flag.SCORE_CLEAR in one.flags and Flag.SCORE not in one.flags:
            raise ValueError("SCORE_CLEAR is a flag of SCORE")
        live, sums = image.bounds[-1], self._sums(operation.layer, 0)
        # probabilities of every band, before Q is read: nothing that is needed may be there
        self.token.fill(f["p_base"], 2 * config.groups * f["p_stride"], image.value("P"))
        place = tile * config.tile // 8
        q = self.token.read(Area(f["q_base"], f["q_stride"], groups * words, bands), place)
        self._expect(q, image.value("TOKEN", sums, tile))
        for first in range(0, live, lanes):
            k = self.kv.read(Area(f["kt_base"] + first, lanes, f["head_dim"], 1), first)
            self._expect(k, image.value("KEY", sums, tile))
        v = self.kv.read(Area(f["v_base"], live, live, 1))
        self._expect(v, image.value("VALUE", sums, tile))
        area = Area(f["o_base"], f["o_stride"], groups * words, bands)
        self.token.write(area, image.value("O", sums), place, q)
        self._consistent(operation, groups, f["head_dim"], f["s_mult"], f["s_shift"], f["pv_shift"])
        if Flag.SCORE in one.flags:
            score, entries = image.value("score", sums), Area(f["table"], live, live, 1)
            if Flag.SCORE_CLEAR in one.flags:
                self.heads[score] = 0
            else:
                self._expect(self.scores.read(entries), score)
            self.scores.write(entries, score)
            self.heads[score] += groups

    # -- vector units ---------------------------------------------------------------------------

    def _norm(self, one: Instruction, image: _Image, operation: Operation) -> None:
        f, row = one.fields, Flag.ONE_ROW in one.flags
        stride = self.stride
        kind, previous = NormKind(f["kind"]), Flag.PREVIOUS in one.flags
        if f["dim"] != self.arch["dim"] or f["res_stride"] != stride:
            raise ValueError("its channels or its addresses are not the network's")
        bands = self._bands(image, 0, 1 if row else _ALL_BANDS)
        stream = self.residual.read(Area(f["res_base"], stride, stride, bands))
        if kind is NormKind.TOKENS:
            self._tokens(one, image, operation, stream)
            return
        if kind is NormKind.DUMP:
            self._expect(stream, image.value("residual", self._sums(*divmod(one.tag, 2))))
            answers = one.tag in tokens.state_tags(self.meta)
            self._require_end(one, image, answers and one.tag == tokens.state_tag(self.arch["depth"] - 1))
            if row or previous:
                raise ValueError("ONE_ROW and PREVIOUS are no flags of it")
            image.records.append((Record.CHECKPOINT, one.tag))
            return
        if row != previous or Flag.LAST in one.flags:
            raise ValueError("it has one of ONE_ROW and PREVIOUS without the other, or LAST")
        if operation.layer < 0:
            self._expect(stream, image.value("residual", self.embeddings - 1))
            address = self._parameters(LoadKind.NORM, f["slot"], f["dim"], self._part(image, operation))
            self._consistent(operation, address, f["shift"])
            area = Area(f["dst_base"], f["dst_stride"], f["dim"] // 8, bands)
            self.token.write(area, image.value("X before the blocks", stream.sums))
            return
        half = int(stream.sums != self._sums(operation.layer, 0))
        self._expect(stream, image.value("residual", self._sums(operation.layer, half)))
        address = self._parameters(LoadKind.NORM, f["slot"], f["dim"], self._part(image, operation))
        self._consistent(operation._replace(tile=half), address, f["shift"])
        area = Area(f["dst_base"], f["dst_stride"], f["dim"] // 8, bands)
        self.token.write(area, image.value("X of row 0" if row else "X", stream.sums))

    def _require_end(self, one: Instruction, image: _Image, answers: bool) -> None:
        """LAST is the flag of what ends the pass: without classes, the last answer of the last image."""
        last = answers and not self.arch["classes"] and image.number == self.part.images - 1
        if (Flag.LAST in one.flags) != last:
            raise ValueError("LAST is not the flag of the pass's last record")

    def _tokens(self, one: Instruction, image: _Image, operation: Operation, stream: Value) -> None:
        """The tokens behind a layer, which the tag has."""
        f, answer = one.fields, self.meta.get("tokens", {"rows": "", "layers": []})
        self._expect(stream, image.value("residual", self._sums(one.tag + 1, 0)))
        if one.tag not in answer["layers"] or (Flag.ONE_ROW in one.flags) != (answer["rows"] == "class"):
            raise ValueError("the network answers with other tokens")
        parts = min(self.config.rows, 4) * self.config.groups
        if f["dst_stride"] != self.stride * -(-parts // 4):
            raise ValueError(f"a part of its rows has other than {f['dst_stride']} words")
        self._require_end(one, image, one.tag == self.arch["depth"] - 1)
        if Flag.PREVIOUS in one.flags:
            raise ValueError("PREVIOUS is no flag of it")
        address = self._parameters(LoadKind.NORM, f["slot"], f["dim"], self._part(image, operation))
        self._consistent(operation, address, f["shift"])
        image.records.append((Record.TOKENS, one.tag))

    def _select(self, one: Instruction, image: _Image, operation: Operation) -> None:
        f = one.fields
        self._bands(image)
        step = next((s for s in self.meta["pruning"] if s["layer"] == operation.layer), None)
        if step is None or (f["keep"], f["threshold"]) != (step["keep"], step["threshold"]):
            raise ValueError("the network keeps other tokens here")
        entries = Area(f["table"], image.bounds[-1], image.bounds[-1], 1)
        score = self.scores.read(entries)
        self._expect(score, image.value("score", self._sums(operation.layer, 0)))
        if self.heads[score] != self.arch["heads"]:
            raise ValueError(f"the scores are of {self.heads[score]} heads of {self.arch['heads']}")
        before = image.bounds[-1]
        if "rotary" in self.meta:
            if f["to"] > f["from"] or f["from"] % self.config.rows or f["to"] % self.config.rows:
                raise ValueError(f"places move from {f['from']} to {f['to']}")
            if not self.places.filled(Area(f["from"], before, before, 1), image.value("places")):
                raise ValueError(f"places from {f['from']} on are not the image's")
        elif f["from"] or f["to"]:
            raise ValueError("it moves places, which the network does not have")
        image.bounds.append(min(before, f["keep"] + 1))
        if "rotary" in self.meta:
            self.places.fill(f["to"], image.bounds[-1], image.value("places"))
        image.records.append((Record.KEPT, one.tag))
        self.table.fill(f["table"], entries.width, image.value("rows"))

    def _receive(self, one: Instruction, image: _Image, _: Operation) -> None:
        f = one.fields
        if image.received or (f["rows"], f["prefix"]) != (self.arch["tokens"], self.arch["prefix"]):
            raise ValueError("the image's patches come twice, or are other than the network's")
        image.received = True
        area = Area(f["dst_base"], f["dst_stride"], f["row_words"], self.config.bands(f["rows"]))
        self.token.write(area, image.value("patches", epoch=0))


@lru_cache(maxsize=64)
def _steps(rows: int, width: int) -> NDArray[Any]:
    """What each line of a weight matrix, ``width`` bytes, adds to the first one's tag."""
    return np.arange(rows, dtype=np.int64) * width << 3
