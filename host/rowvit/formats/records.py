# SPDX-License-Identifier: Apache-2.0
"""The core's output: records, and the answer to one image that they make up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.hardware.isa import Record


def checkpoint_names(depth: int) -> list[str]:
    """Names of the residual stream's states, in the order of the tags of CHECKPOINT records."""
    return ["embed", *(f"layers.{layer}.{half}" for layer in range(depth) for half in ("attn", "ffn"))]


@dataclass
class Answer:
    """The output of one image."""

    logits: NDArray[Any]  #: int16 [classes]
    kept: list[NDArray[Any]]  #: int64, per pruning layer: original indices of the tokens that stay
    checkpoints: dict[str, NDArray[Any]]  #: int16 [live, D] by `checkpoint_names`; empty unless compiled in
    marks: list[tuple[int, int]]  #: counters ``cycles`` and ``fires`` after embedding and after each layer

    @classmethod
    def parse(cls, output: NDArray[Any], meta: Mapping[str, Any], images: int = 1) -> list[Answer]:
        """Read the output packet uint8 [bytes] of a pass of ``images`` images.

        ``meta`` is the program's description. `RowvitError` if it is not made of records, one has the wrong
        size or impossible rows, or some are missing or too many.
        """
        arch = meta["architecture"]
        answers = [cls(np.empty(0, np.int16), [], {}, []) for _ in range(images)]
        names = dict(enumerate(checkpoint_names(arch["depth"])))
        for kind, image, tag, count, payload in split(output):
            if image >= images:
                raise RowvitError(f"the output has a record of image {image}, but the pass has {images}")
            answer = answers[image]
            size = 8 if kind is Record.MARK else count * 2 * (arch["dim"] if kind is Record.CHECKPOINT else 1)
            if not size <= len(payload) <= -(-size // 8) * 8:
                raise RowvitError(
                    f"the output has a {kind.name} record of {count} with {len(payload)} bytes, not {size}"
                )
            payload = payload[:size]
            if kind is Record.LOGITS:
                answer.logits = np.concatenate([answer.logits, payload.view("<i2")])
                if len(answer.logits) > arch["classes"]:
                    raise RowvitError(f"the output has more than {arch['classes']} logits of an image")
            elif kind is Record.KEPT:
                rows = payload.view("<u2").astype(np.int64)
                before = answer.kept[-1] if answer.kept else np.arange(arch["tokens"], dtype=np.int64)
                if rows.max(initial=0) >= len(before):
                    raise RowvitError(f"the output keeps row {rows.max()} of {len(before)}")
                if rows[:1].tolist() != [0] or (np.diff(rows) <= 0).any():
                    raise RowvitError(
                        f"the output keeps rows {rows[:8].tolist()}..., not row 0 and later ones"
                    )
                answer.kept.append(before[rows])
            elif kind is Record.CHECKPOINT:
                name = names.get(tag, f"checkpoint {tag}")
                answer.checkpoints[name] = payload.view("<i2").reshape(count, arch["dim"]).copy()
            else:
                cycles, fires = payload.view("<u4")
                answer.marks.append((int(cycles), int(fires)))
        for answer in answers:
            answer._complete(meta)
        return answers

    def _complete(self, meta: Mapping[str, Any]) -> None:
        classes, depth = meta["architecture"]["classes"], meta["architecture"]["depth"]
        found = len(self.logits), len(self.marks), len(self.kept)
        if found != (classes, depth + 1, len(meta["pruning"])):
            raise RowvitError(
                f"the output of an image is incomplete: {found[0]} of {classes} logits,"
                f" {found[1]} of {depth + 1} marks, {found[2]} of {len(meta['pruning'])} token lists"
            )


def spans(start: int, marks: Sequence[Sequence[int]], end: int, shares: Sequence[int]) -> list[list[int]]:
    """What a counter counted in the embedding, every layer and the head of each image of a pass.

    Images that were computed together get an equal part each.

    Parameters
    ----------
    start, end : int
        The counter at the beginning and at the end of the pass.
    marks : [images][depth + 1]
        The counter when embedding and layers were complete.
    shares : [depth]
        Of every layer, how many images were computed together.
    """
    images = len(marks)
    parts = [(end, len(shares) + 1, range(images))]
    for number, together in enumerate([1, *shares]):
        for first in range(0, images, together):
            group = range(first, first + together)
            parts.append((max(marks[image][number] for image in group), number, group))
    found = [[0] * (len(shares) + 2) for _ in marks]
    edge = start
    for mark, number, group in sorted(parts, key=lambda part: part[:2]):
        spent = mark - edge
        for n, image in enumerate(group):
            found[image][number] = spent * (n + 1) // len(group) - spent * n // len(group)
        edge = mark
    return found


def split(output: NDArray[Any]) -> Iterator[tuple[Record, int, int, int, NDArray[Any]]]:
    """Split an output packet uint8 [bytes] into records: type, image, tag, count, payload uint8 [bytes].

    `RowvitError` if a header is not a record's.
    """
    at = 0
    while at < len(output):
        header = int.from_bytes(output[at : at + 8].tobytes(), "little")
        kind, image, tag = header & 0xF, header >> 4 & 0xF, header >> 8 & 0xFF
        count, size = header >> 16 & 0xFFFF, header >> 32
        if kind not in set(Record) or at + 8 + size > len(output):
            raise RowvitError(
                f"the output is not made of records: word {at // 8} of {len(output) // 8} is 0x{header:016X}",
                "bitstream and software may be of different versions",
            )
        yield Record(kind), image, tag, count, output[at + 8 : at + 8 + size]
        at += 8 + -(-size // 8) * 8
