# SPDX-License-Identifier: Apache-2.0
"""The core's output: records, and the answer to one image that they make up."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.formats import tokens
from rowvit.formats.tokens import Layout, Tokens
from rowvit.hardware.isa import Record

_MARK, _LOGITS, _KEPT, _CHECKPOINT, _TOKENS = map(
    int, (Record.MARK, Record.LOGITS, Record.KEPT, Record.CHECKPOINT, Record.TOKENS)
)
_KINDS = frozenset(map(int, Record))
_HEADER = struct.Struct("<BBHI")  # type and image, tag, count, bytes of the payload
_COUNTS = struct.Struct("<II")  # of a MARK: cycles, fires


def checkpoint_names(depth: int) -> list[str]:
    """Names of the residual stream's states, in the order of the tags of CHECKPOINT records."""
    return ["embed", *(f"layers.{layer}.{half}" for layer in range(depth) for half in ("attn", "ffn"))]


@dataclass
class Answer:
    """The output of one image."""

    logits: NDArray[Any]  #: int16 [classes]
    kept: list[NDArray[Any]]  #: int64, per pruning layer: original indices of the tokens that stay
    tokens: dict[int, Tokens]  #: by the layer behind which they are; see `formats.tokens.layers`
    checkpoints: dict[str, NDArray[Any]]  #: int16 [live, D] by `checkpoint_names`; empty unless compiled in
    marks: list[tuple[int, int]]  #: counters ``cycles`` and ``fires`` after embedding and after each layer

    @classmethod
    def parse(cls, output: NDArray[Any], meta: Mapping[str, Any], images: int = 1) -> list[Answer]:
        """Read the output packet uint8 [bytes] of a pass of ``images`` images.

        ``meta`` is the program's description. `RowvitError` if it is not made of records, one has the wrong
        size or impossible rows, or some are missing or too many.
        """
        arch = meta["architecture"]
        answers = [cls(np.empty(0, np.int16), [], {}, {}, []) for _ in range(images)]
        layout = Layout(*meta["tokens"]["layout"]) if "tokens" in meta else None
        logits = [bytearray() for _ in answers]
        for (kind, image, tag, count), payload in _records(output.tobytes()):
            if image >= images:
                raise RowvitError(f"the output has a record of image {image}, but the pass has {images}")
            answer = answers[image]
            if kind == _MARK:
                size = 8
            elif kind == _TOKENS and layout:
                size = layout.payload(count, arch["dim"])
            elif kind == _TOKENS:
                raise RowvitError("the output has tokens, but the network does not answer with them")
            else:
                size = count * 2 * (arch["dim"] if kind == _CHECKPOINT else 1)
            if not size <= len(payload) <= size + 7 & ~7:
                raise RowvitError(
                    f"the output has a {Record(kind).name} record of {count} with {len(payload)} bytes,"
                    f" not {size}"
                )
            if kind == _MARK:
                answer.marks.append(_COUNTS.unpack(payload))
            elif kind == _LOGITS:
                logits[image] += payload[:size]
                if len(logits[image]) > 2 * arch["classes"]:
                    raise RowvitError(f"the output has more than {arch['classes']} logits of an image")
            elif kind == _TOKENS and layout:
                rows = layout.unpack(np.frombuffer(payload, "<i2", size // 2), count, arch["dim"])
                answer.tokens[tag] = Tokens(rows, np.empty(0, np.int64))
            elif kind == _KEPT:
                before = answer.kept[-1] if answer.kept else None
                answer.kept.append(_kept(np.frombuffer(payload, "<u2", count), before, arch["tokens"]))
            else:
                names = checkpoint_names(arch["depth"])
                name = names[tag] if tag < len(names) else f"checkpoint {tag}"
                rows = np.frombuffer(payload, "<i2", size // 2)
                answer.checkpoints[name] = rows.reshape(count, arch["dim"]).copy()
        for answer, values in zip(answers, logits, strict=True):
            if values:
                answer.logits = np.frombuffer(values, "<i2")
            answer._take_rows(meta)
            answer._complete(meta)
            answer._number(meta)
        return answers

    def _take_rows(self, meta: Mapping[str, Any]) -> None:
        """Tokens as they are in the residual stream are among the checkpoints, which may be only these."""
        if tokens.normalised(meta):
            return
        for layer in tokens.layers(meta):
            name = f"layers.{layer}.ffn"
            if name in self.checkpoints:
                self.tokens[layer] = Tokens(self.checkpoints[name], np.empty(0, np.int64))
                if not meta["checkpoints"]:
                    del self.checkpoints[name]

    def _complete(self, meta: Mapping[str, Any]) -> None:
        classes, depth = meta["architecture"]["classes"], meta["architecture"]["depth"]
        found = len(self.logits), len(self.marks), len(self.kept)
        if found != (classes, depth + 1, len(meta["pruning"])):
            raise RowvitError(
                f"the output of an image is incomplete: {found[0]} of {classes} logits,"
                f" {found[1]} of {depth + 1} marks, {found[2]} of {len(meta['pruning'])} token lists"
            )
        if sorted(self.tokens) != (after := tokens.layers(meta)):
            raise RowvitError(f"the output has tokens behind layers {sorted(self.tokens)}, not {after}")

    def _number(self, meta: Mapping[str, Any]) -> None:
        """Indices of the tokens; `RowvitError` if there are others than live ones."""
        for layer, (values, _) in self.tokens.items():
            live = alive(meta, self.kept, layer)
            if len(values) != tokens.count(meta, len(live)):
                raise RowvitError(f"the output has {len(values)} tokens behind layer {layer}, of {len(live)}")
            self.tokens[layer] = Tokens(values, live[: len(values)])


def alive(meta: Mapping[str, Any], kept: Sequence[NDArray[Any]], layer: int) -> NDArray[Any]:
    """Original indices, int64, of the tokens that live behind a layer, of those that each pruning kept."""
    before = [own for step, own in zip(meta["pruning"], kept, strict=True) if step["layer"] <= layer]
    return before[-1] if before else np.arange(meta["architecture"]["tokens"], dtype=np.int64)


def _kept(rows: NDArray[Any], before: NDArray[Any] | None, tokens: int) -> NDArray[Any]:
    """Original indices, int64, of ``rows``, uint16, of the tokens ``before``; None: of all ``tokens``."""
    count = tokens if before is None else len(before)
    # Python's integers are faster than NumPy's scalars, and bytes than `all`
    if (rows.size and rows.item(-1) < count and rows.item(0) == 0) and 0 not in (
        rows[1:] > rows[:-1]
    ).tobytes():
        return rows.astype(np.int64) if before is None else before[rows]
    if (last := int(rows.max(initial=0))) >= count:
        raise RowvitError(f"the output keeps row {last} of {count}")
    raise RowvitError(f"the output keeps rows {rows[:8].tolist()}..., not row 0 and later ones")


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
    if images == 1:
        edges = [*marks[0], end]
        if edges == sorted(edges):
            return [[mark - edge for edge, mark in pairwise([start, *edges])]]
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


class _Outline(NamedTuple):
    """What the packets of a network have in common: all but the payloads, most of the time."""

    fields: struct.Struct  #: header and payload of one record after the other
    headers: tuple[bytes, ...]
    records: list[tuple[int, int, int, int]]  #: type, image, tag, count


_OUTLINES: dict[int, _Outline] = {}  # by the length of packets, of which the last one had it
_MOST = 64


def _records(data: bytes) -> Iterator[tuple[tuple[int, int, int, int], bytes]]:
    """Records of an output packet: type, image, tag and count, and the payload."""
    outline = _OUTLINES.get(len(data))
    fields = () if outline is None else outline.fields.unpack(data)
    if outline is None or fields[::2] != outline.headers:
        if len(_OUTLINES) >= _MOST:
            _OUTLINES.clear()
        outline = _OUTLINES[len(data)] = _outline(data)
        fields = outline.fields.unpack(data)
    return zip(outline.records, fields[1::2], strict=True)


def _outline(data: bytes) -> _Outline:
    at, end, layout = 0, len(data), ["<"]
    headers, records = [], []
    while at < end:
        first, tag, count, size = _HEADER.unpack_from(data, at) if at + 8 <= end else (0, 0, 0, 0)
        kind, payload = first & 15, at + 8
        after = payload + (size + 7 & ~7)
        if kind not in _KINDS or after > end:
            header = int.from_bytes(data[at : at + 8], "little")
            raise RowvitError(
                f"the output is not made of records: word {at // 8} of {end // 8} is 0x{header:016X}",
                "bitstream and software may be of different versions",
            )
        headers.append(data[at:payload])
        records.append((kind, first >> 4, tag, count))
        layout.append(f"8s{size}s{after - payload - size}x")
        at = after
    return _Outline(struct.Struct("".join(layout)), tuple(headers), records)
