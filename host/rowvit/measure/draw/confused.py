# SPDX-License-Identifier: Apache-2.0
"""Photos of classes that are taken for each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING

from PIL import Image

from rowvit.measure.draw import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 6  #: photos of a row
_FEWEST = 3  # columns, for titles
_SIDE, _TITLE, _GAP = 1.6, 0.3, 0.1  # inches


@dataclass(frozen=True)
class Row:
    """Photos that share a title."""

    title: str
    photos: Sequence[tuple[str, Image.Image]]  #: what is below each; at most `MOST`


def draw(rows: Sequence[Row]) -> Figure:
    """A picture of the rows, one below the other; `RowvitError` if Matplotlib is missing."""
    columns = max(_FEWEST, *(len(row.photos) for row in rows))
    width, high = columns * (_SIDE + _GAP) + _GAP, _SIDE + 2 * _TITLE + _GAP
    height = len(rows) * high + _GAP
    picture = plots.figure(width, height)
    picture.set_layout_engine("none")
    for number, row in enumerate(rows):
        top = height - number * high - _GAP
        title = shorten(row.title, round(14 * width))
        picture.text(_GAP / width, top / height, title, va="top", fontsize=10, parse_math=False)
        for place, (text, photo) in enumerate(row.photos):
            left, below = _GAP + place * (_SIDE + _GAP), top - _TITLE - _SIDE
            axes = picture.add_axes((left / width, below / height, _SIDE / width, _SIDE / height))
            axes.imshow(photo)
            axes.set_axis_off()
            axes.text(
                *(0.5, -0.03, shorten(text, 28)),
                transform=axes.transAxes,
                ha="center",
                va="top",
                fontsize=7,
                parse_math=False,
            )
    return picture
