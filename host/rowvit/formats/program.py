# SPDX-License-Identifier: Apache-2.0
"""A compiled network: instructions and weights in one blob, and what the driver must know about it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.formats import container, description, familiar
from rowvit.formats import head as heads
from rowvit.formats.tokens import Layout
from rowvit.hardware.isa import ABI_VERSION, INSTRUCTION_BYTES, SLOTS, Instruction

if TYPE_CHECKING:
    from rowvit.formats.package import ModelPackage
    from rowvit.hardware.config import HardwareConfig

FORMAT = 5


class OperationKind(Enum):
    """What an operation does; the value names it in labels and program files, and its tensors in packages."""

    INPUT = "patches"
    PRE = "pre"
    EMBEDDING = "patch"
    NORM = "norm"
    DUMP = "dump"
    TOKENS = "tokens"
    QUERY = "q"
    KEY = "k"
    VALUE = "v"
    ATTENTION = "attn"
    SELECT = "select"
    PROJECTION = "proj"
    FFN1 = "fc1"
    FFN2 = "fc2"
    HEAD = "head"

    __hash__ = object.__hash__  # Enum's hashes the name, in Python


class Operation(NamedTuple):
    """Which part of a network an instruction computes."""

    kind: OperationKind
    layer: int  #: -1: patch embedding; the network's depth: head
    chunk: int | None = None  #: FFN2: chunk of the hidden neurons
    tile: int | None = None  #: lane tile of the results; in attention as many heads as there are groups
    row_tile: int | None = None  #: FFN2 with the rule "tile"
    band: int | None = None  #: the first one, where an operation that is split does not begin at band 0

    @property
    def label(self) -> str:
        """Kind and numbers, without the layer; for display only."""
        numbers = (self.chunk, self.tile, self.row_tile, self.band)
        return ".".join([self.kind.value, *(str(number) for number in numbers if number is not None)])

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads: the fields that are not None."""
        found = {key: value for key, value in zip(self._fields, self, strict=True) if value is not None}
        return found | {"kind": self.kind.value}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Operation:
        return cls(**found | {"kind": OperationKind(found["kind"])})


@dataclass(frozen=True)
class Pass:
    """Instructions that run some images, HEADER to END."""

    images: int
    shares: list[int]  #: of every layer, the images that share its loads of weights
    output_bytes: int  #: at most, of all images
    offset: int  #: of the first instruction in the blob, in bytes
    code: NDArray[Any]  #: uint16 [instructions, 32]
    #: what every instruction between HEADER and END does; of a LOAD, the first operation that uses it
    operations: list[Operation]

    @cached_property
    def instructions(self) -> list[Instruction]:
        return [Instruction.decode(row) for row in self.code.tolist()]


@dataclass
class Program:
    """One program for one configuration."""

    code: NDArray[Any]  #: uint16 [instructions, 32], of all passes
    weights: NDArray[Any]  #: uint8 [bytes]: what LOAD instructions read; it follows the code in the blob
    #: ``format``, ``abi``, ``config`` {name, hash}, ``model`` {name, hash}, ``architecture``, ``classes``,
    #: ``preprocessing``, ``scales``, ``pruning``, ``ffn2_rule``, ``tile_rows``, ``ffn_chunk``,
    #: ``tokens`` of a network that answers with them, with the ``layout`` of their records, ``host_head``,
    #: ``row_heads``, ``checkpoints``, ``input`` {rows, row_words, bytes}, and ``passes`` {images, shares,
    #: output_bytes, instructions, operations}: what `passes` are made of
    meta: dict[str, Any]
    #: those of `host_tensors`, which the host computes with
    head: dict[str, NDArray[Any]] = field(default_factory=dict)
    #: what it was compiled from, which the integer reference runs; None if it was read from a file
    package: ModelPackage | None = field(default=None, repr=False, compare=False)
    checked: bool = field(default=False, compare=False)  #: `compiler.check` has found nothing wrong

    @cached_property
    def blob(self) -> NDArray[Any]:
        """uint8 array: code, then weights. Its base in memory must be a multiple of 64."""
        return np.concatenate([np.ascontiguousarray(self.code, "<u2").view(np.uint8).ravel(), self.weights])

    @cached_property
    def passes(self) -> list[Pass]:
        """A pass for one image and, where images share loads, one for several."""
        found, start = [], 0
        for part in self.meta["passes"]:
            end = start + part["instructions"]
            operations = [Operation.from_json(operation) for operation in part["operations"]]
            counts = part["images"], part["shares"], part["output_bytes"]
            offset = start * INSTRUCTION_BYTES
            found.append(Pass(*counts, offset, self.code[start:end], operations))
            start = end
        return found

    def pass_for(self, images: int) -> Pass:
        """The pass that runs ``images`` images, a multiple of its own, with the fewest loads."""
        return max((p for p in self.passes if images % p.images == 0), key=lambda p: p.images)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with tensors ``program`` and ``weights``, the metadata as JSON, and the
        SHA-256 over all of them.
        """
        tensors = {"program": self.code, "weights": self.weights} | self.head
        metadata = {"rowvit-program": json.dumps(self.meta, sort_keys=True)}
        container.write(path, tensors, metadata | {"sha256": container.digest(self.meta, tensors)})

    @classmethod
    def load(cls, path: str | Path, made_here: bool = False) -> Program:
        """Read what `save` wrote; `RowvitError` if it is damaged, no program, or of another format or ABI.

        The description of one that is ``made_here``, by this very rowvit, is right if its checksum is.
        """
        tensors, metadata = container.read(path)
        try:
            meta = container.parse(metadata["rowvit-program"])
            versions = meta["format"], meta["abi"]
        except (KeyError, TypeError, ValueError) as error:
            raise RowvitError(f"{path} is not a rowvit program", "compile a model package first") from error
        if versions != (FORMAT, ABI_VERSION):
            raise RowvitError(
                f"{path} has format {versions[0]} and ABI {versions[1]}, this rowvit has {FORMAT} and"
                f" {ABI_VERSION}",
                "compile it again",
            )
        if metadata.get("sha256") != container.digest(meta, tensors):
            raise RowvitError(
                f"{path} is damaged: it does not match its checksum", "copy or compile it again"
            )
        if not made_here:
            description.check(meta, "program", str(path))
        try:
            table = heads.tensor_table(meta) | familiar.tensor_table(meta)
            own = {name: tensors.pop(name, np.empty(0)) for name in table}
            if wrong := [n for n, t in own.items() if (t.dtype.name, t.shape) != table[n]]:
                raise ValueError(f"tensor {wrong[0]} is missing or of the wrong shape")
            program = cls(*_checked(tensors, sum(part["instructions"] for part in meta["passes"])), meta, own)
            assert program.passes
        except ValueError as error:
            raise RowvitError(f"{path} is damaged: {error}", "compile it again") from error
        return program


def host_tensors(package: ModelPackage) -> dict[str, NDArray[Any]]:
    """A package's tensors that a program takes over as they are: of `formats.head` and `formats.familiar`."""
    own = *heads.TENSORS, familiar.TENSORS
    return {name: tensor for name, tensor in package.tensors.items() if name.startswith(own)}


def described(package: ModelPackage, config: HardwareConfig) -> dict[str, Any]:
    """What a program's description takes over from its package."""
    meta = package.meta
    copied = ("architecture", "classes", "preprocessing", "scales", "pruning", "ffn2_rule", "ffn_chunk")
    optional = ("host_head", "row_heads", "pre_norm", "rotary", "gated", "tokens", "familiar")
    found = {key: meta[key] for key in (*copied, "tile_rows")}
    found |= {key: meta[key] for key in optional if key in meta}
    if "tokens" in meta:
        found["tokens"] = meta["tokens"] | {"layout": list(Layout.of(config))}
    return found | {"model": {"name": meta["name"], "hash": package.digest()}}


def _checked(tensors: dict[str, NDArray[Any]], instructions: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Code and weights; `ValueError` if the tensors are not those of a program of so many instructions."""
    if tensors.keys() != {"program", "weights"}:
        raise ValueError(f"its tensors are {', '.join(sorted(tensors)[:5]) or 'missing'}")
    code, weights = tensors["program"], tensors["weights"]
    if code.dtype != np.uint16 or code.shape != (instructions, SLOTS):
        raise ValueError(f"its code is {code.dtype} {list(code.shape)}, not {instructions} instructions")
    if weights.dtype != np.uint8 or weights.ndim != 1:
        raise ValueError(f"its weights are {weights.dtype} {list(weights.shape)}, not bytes")
    return code, weights
