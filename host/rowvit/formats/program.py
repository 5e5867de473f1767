# SPDX-License-Identifier: Apache-2.0
"""A compiled network: instructions and weights in one blob, and what the driver must know of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from rowvit.errors import RowvitError
from rowvit.formats import container
from rowvit.hardware.isa import ABI_VERSION, SLOTS, Instruction

FORMAT = 1


@dataclass
class Program:
    """One program for one configuration.

    Parameters
    ----------
    code : uint16 array [instructions, 32]
    weights : uint8 array [bytes]
        What LOAD instructions read; it follows the code in the blob.
    meta : dict
        ``format``, ``abi``, ``config`` {name, hash}, ``model`` {name, hash}, ``architecture``,
        ``classes``, ``preprocessing``, ``scales``, ``pruning``, ``ffn2_rule``, ``tile_rows``,
        ``ffn_chunk``, ``checkpoints``, ``input`` {rows, row_words, bytes}, ``output`` {max_bytes},
        ``instructions``, and ``ops``: [layer, name] of every array operation in order (layer -1:
        patch embedding, depth: head).
    """

    code: np.ndarray
    weights: np.ndarray
    meta: dict

    @cached_property
    def blob(self) -> np.ndarray:
        """uint8 array: code, then weights. Its base in memory must be a multiple of 64."""
        return np.concatenate([np.ascontiguousarray(self.code, "<u2").view(np.uint8).ravel(), self.weights])

    @property
    def instructions(self) -> list[Instruction]:
        return [Instruction.decode(row) for row in self.code]

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with tensors ``program`` and ``weights`` and the metadata as JSON."""
        container.write(
            path,
            {"program": self.code, "weights": self.weights},
            {"rowvit-program": json.dumps(self.meta, sort_keys=True)},
        )

    @classmethod
    def load(cls, path: str | Path) -> Program:
        """Read what ``save`` wrote.

        Raises
        ------
        RowvitError
            The file is damaged, no program, or for another ABI.
        """
        tensors, metadata = container.read(path)
        try:
            meta = json.loads(metadata["rowvit-program"])
            code, weights = tensors["program"], tensors["weights"]
        except (KeyError, ValueError) as error:
            raise RowvitError(f"{path} is not a rowvit program; compile a model package first") from error
        if meta.get("format") != FORMAT or meta.get("abi") != ABI_VERSION:
            raise RowvitError(
                f"{path} has format {meta.get('format')} and ABI {meta.get('abi')}, this rowvit has"
                f" {FORMAT} and {ABI_VERSION}; compile it again"
            )
        if (
            code.dtype != np.uint16
            or code.shape != (meta["instructions"], SLOTS)
            or weights.dtype != np.uint8
        ):
            raise RowvitError(f"{path} is damaged: its code is not {meta['instructions']} instructions")
        return cls(code, weights, meta)
