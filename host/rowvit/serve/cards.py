# SPDX-License-Identifier: Apache-2.0
"""Answers as pictures: what the page shows of every layer, and one PNG of them all."""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from rowvit.decoding import ROOM, TooLarge
from rowvit.images import FILTERS
from rowvit.measure.draw.pictures import attention, fitted, remaining, seen

if TYPE_CHECKING:
    from rowvit.serve.answers import Explanation
    from rowvit.serve.service import Classified

PHOTO = -1  # what is before layer 0
SIDE = 448  # pixels of a picture's longer side
_GAP, _LINE = 16, 30
_ENOUGH = 4  # patches, for a picture to show something
_INK, _FAINT, _PAPER = "#14202b", "#5b6b7a", "#ffffff"


@dataclass(frozen=True)
class Snapshot:
    """A picture that holds behind the layers from ``first`` to ``last``; before all of them is `PHOTO`."""

    first: int
    last: int
    caption: str
    picture: Image.Image


def shown(data: bytes, one: Classified, frontend: str, side: int = SIDE) -> Image.Image:
    """What the network saw, finer than its own pixels where the picture is: RGB, its longer side ``side``."""
    size = fitted(one.network.meta["architecture"], side)
    try:
        image = seen(data, one.network.meta, frontend, side)
    except TooLarge:  # there is room for the pixels, and none for a finer picture
        image = Image.fromarray(one.pixels)
    return image.resize(size, FILTERS["bicubic"])


def room(photo: Image.Image, one: Classified) -> AbstractContextManager[None]:
    """Memory for all that is drawn of an answer: pictures of prunings and layers, and the card."""
    meta = one.network.meta
    pictures = 2 * len(meta["pruning"]) + meta["architecture"]["depth"] + 3
    return ROOM.taken(min(4 * photo.width * photo.height * pictures, ROOM.size() // 2))


def left(photo: Image.Image, one: Classified) -> list[Snapshot]:
    """What is left after each pruning: the photo first."""
    meta, result = one.network.meta, one.answer.result
    arch, steps = meta["architecture"], meta["pruning"]
    edges = [PHOTO, *(step["layer"] for step in steps), arch["depth"]]
    found = [Snapshot(PHOTO, edges[1] - 1, f"all {arch['tokens']} tokens", photo)]
    for number, kept in enumerate(result.kept, 1):
        caption = f"{len(kept)} of {arch['tokens']} tokens left since layer {edges[number]}"
        found.append(Snapshot(edges[number], edges[number + 1] - 1, caption, remaining(photo, kept, arch)))
    return found


def telling(one: Classified) -> int:
    """The last layer behind which there are patches to be seen: the class token alone shows nothing."""
    arch, steps = one.network.meta["architecture"], one.network.meta["pruning"]
    ends = [*(step["layer"] - 1 for step in steps), arch["depth"] - 1]
    counts = [arch["tokens"], *map(len, one.answer.result.kept)]
    shown = (end for end, count in zip(ends, counts, strict=True) if count >= arch["prefix"] + _ENOUGH)
    return max(shown, default=ends[0])


def watched(photo: Image.Image, one: Classified, explanation: Explanation) -> list[Snapshot]:
    """Where the class token looks in every layer."""
    arch = one.network.meta["architecture"]
    return [
        Snapshot(
            look.layer,
            look.layer,
            f"layer {look.layer}: attention of the class token",
            attention(photo, look, arch),
        )
        for look in explanation.looks
    ]


def packed(steps: Iterable[Snapshot]) -> list[dict[str, Any]]:
    """Snapshots as the page takes them, with a JPEG in place of the picture."""
    found = []
    for step in steps:
        picture, stream = step.picture, io.BytesIO()
        picture.save(stream, "JPEG", quality=85)
        place = dict(first=step.first, last=step.last, caption=step.caption)
        found.append(place | dict(width=picture.width, height=picture.height, jpeg=stream.getvalue()))
    return found


def card(photo: Image.Image, one: Classified, explanation: Explanation | None, source: str) -> bytes:
    """One PNG: the photo, what is left after each pruning, where the class token looks, the classes.

    Parameters
    ----------
    photo : Image
        From `shown`.
    one : Classified
    explanation : Explanation, optional
        With attention; of the last layer that prunes, or else of the last.
    source : str
        Where the figures come from: the last line.
    """
    meta, result = one.network.meta, one.answer.result
    steps = left(photo, one)
    if explanation is not None and explanation.looks:
        pruned = [step["layer"] for step in meta["pruning"]]
        steps.append(watched(photo, one, explanation)[pruned[-1] if pruned else -1])
    best = result.likeliest(meta["classes"])
    width = _GAP + len(steps) * (SIDE + _GAP)
    sheet = Image.new("RGB", (width, photo.height + 3 * _GAP + 4 * _LINE), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, step in enumerate(steps):
        x = _GAP + number * (SIDE + _GAP)
        sheet.paste(step.picture, (x, _GAP))
        draw.text((x, photo.height + 1.5 * _GAP), step.caption, _FAINT, _font(18))
    y = photo.height + 2 * _GAP + _LINE
    title = f"{result.verdict}  {best[0][1]:.1%}" if best else "no classes"
    others = ",  ".join(f"{name} {share:.1%}" for name, share in best[1:])
    draw.text((_GAP, y), title, _INK, _font(28))
    draw.text((_GAP, y + 1.4 * _LINE), others, _FAINT, _font(18))
    draw.text((_GAP, y + 2.3 * _LINE), source, _FAINT, _font(18))
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=False)
    return stream.getvalue()


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size
        return ImageFont.load_default()
