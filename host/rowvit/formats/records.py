# SPDX-License-Identifier: Apache-2.0
"""The core's output: records, and the answer to one image that they make up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rowvit.errors import RowvitError
from rowvit.hardware.isa import Record


def checkpoint_names(depth: int) -> list[str]:
    """Names of the residual stream's states, in the order of the tags of CHECKPOINT records."""
    return ["embed", *(f"layers.{layer}.{half}" for layer in range(depth) for half in ("attn", "ffn"))]


@dataclass
class Answer:
    """The output of one image."""

    logits: np.ndarray  #: int16 [classes]
    kept: list[np.ndarray]  #: int64, per pruning layer: original indices of the tokens that stay
    checkpoints: dict[str, np.ndarray]  #: int16 [live, D] by `checkpoint_names`; empty unless compiled in
    marks: list[tuple[int, int]]  #: counters ``cycles`` and ``fires`` after embedding and after each layer

    @classmethod
    def parse(cls, output: np.ndarray, meta: Mapping[str, Any]) -> Answer:
        """Read the output packet uint8 [bytes] of a program with the description ``meta``.

        `RowvitError` if it is not made of records, or some are missing.
        """
        classes, depth = meta["architecture"]["classes"], meta["architecture"]["depth"]
        answer = cls(np.empty(0, np.int16), [], {}, [])
        names = dict(enumerate(checkpoint_names(depth)))
        for kind, tag, count, payload in split(output):
            if kind is Record.LOGITS:
                answer.logits = payload.view("<i2")[:count].copy()
            elif kind is Record.KEPT:
                answer.kept.append(payload.view("<u2")[:count].astype(np.int64))
            elif kind is Record.CHECKPOINT:
                name = names.get(tag, f"checkpoint {tag}")
                answer.checkpoints[name] = payload.view("<i2").reshape(count, -1).copy()
            else:
                cycles, fires = payload.view("<u4")[:2]
                answer.marks.append((int(cycles), int(fires)))
        found = len(answer.logits), len(answer.marks), len(answer.kept)
        if found != (classes, depth + 1, len(meta["pruning"])):
            raise RowvitError(
                f"the output of an image is incomplete: {found[0]} of {classes} logits,"
                f" {found[1]} of {depth + 1} marks, {found[2]} of {len(meta['pruning'])} token lists"
            )
        return answer


def split(output: np.ndarray) -> Iterator[tuple[Record, int, int, np.ndarray]]:
    """Split an output packet uint8 [bytes] into records: type, tag, count and payload uint8 [bytes].

    `RowvitError` if a header is not a record's.
    """
    at = 0
    while at < len(output):
        header = int.from_bytes(output[at : at + 8].tobytes(), "little")
        kind, tag, count, size = header & 0xFF, header >> 8 & 0xFF, header >> 16 & 0xFFFF, header >> 32
        if kind not in set(Record) or at + 8 + size > len(output):
            raise RowvitError(
                f"the output is not made of records: word {at // 8} of {len(output) // 8} is 0x{header:016X}",
                "bitstream and software may be of different versions",
            )
        yield Record(kind), tag, count, output[at + 8 : at + 8 + size]
        at += 8 + -(-size // 8) * 8
