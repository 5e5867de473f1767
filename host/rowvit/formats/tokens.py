# SPDX-License-Identifier: Apache-2.0
"""Tokens that a network answers with (numerics.md, section 8), and their records (isa.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.pipeline import NORM_ROWS

#: of a description's ``tokens.rows``: the class token, or all live tokens
ROWS = ("class", "all")


class Tokens(NamedTuple):
    """The tokens of one image behind a layer."""

    #: int16 [n, D], after the last LayerNorm, or as in the residual stream; in units of the scale "tokens"
    values: NDArray[Any]
    indices: NDArray[Any]  #: int64 [n]: their numbers among all tokens of the network


def layers(meta: Mapping[str, Any]) -> list[int]:
    """The layers of a network behind which it answers with tokens; ``meta`` of a package or program."""
    found: list[int] = meta["tokens"]["layers"] if "tokens" in meta else []
    return found


def normalised(meta: Mapping[str, Any]) -> bool:
    """Whether the tokens that it answers with, if any, have been through a LayerNorm; otherwise they are rows
    of the residual stream, and come as CHECKPOINT records.
    """
    return "shift" in meta.get("tokens", ())


def state_tag(layer: int) -> int:
    """Tag of the CHECKPOINT record behind a layer, as in `records.checkpoint_names`."""
    return 2 + 2 * layer


def state_tags(meta: Mapping[str, Any]) -> list[int]:
    """Tags of the CHECKPOINT records that are tokens which the network answers with."""
    return [] if normalised(meta) else [state_tag(layer) for layer in layers(meta)]


def count(meta: Mapping[str, Any], live: int) -> int:
    """How many of ``live`` tokens it answers with."""
    return 1 if meta["tokens"]["rows"] == "class" else live


class Layout(NamedTuple):
    """Sizes on which the layout of a TOKENS record depends."""

    rows: int  #: of a part
    groups: int
    lanes: int

    @classmethod
    def of(cls, config: HardwareConfig) -> Layout:
        return cls(min(config.rows, NORM_ROWS), config.groups, config.lanes)

    def part_words(self, dim: int) -> int:
        """64-bit words of a part of rows of ``dim`` channels."""
        return self.lanes * -(-dim // (self.groups * self.lanes)) * -(-self.rows * self.groups // 4)

    def payload(self, rows: int, dim: int) -> int:
        """Bytes of ``rows`` rows of ``dim`` channels."""
        return 8 * -(-rows // self.rows) * self.part_words(dim)

    def unpack(self, payload: NDArray[Any], rows: int, dim: int) -> NDArray[Any]:
        """Values int16 [rows, dim] of a record's payload, int16 as well."""
        parts, tiles = -(-rows // self.rows), -(-dim // (self.groups * self.lanes))
        values = payload.reshape(parts, tiles, self.lanes, -1)[..., : self.rows * self.groups]
        values = values.reshape(parts, tiles, self.lanes, self.rows, self.groups)
        found = values.transpose(0, 3, 1, 4, 2).reshape(parts * self.rows, -1)
        return np.ascontiguousarray(found[:rows, :dim])
