# SPDX-License-Identifier: Apache-2.0
"""An empty picture to draw on, and files of pictures; numbers as pictures and tables show them."""

from __future__ import annotations

import base64
import io
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rowvit.errors import RowvitError, needs, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: colours that readers with any kind of colour blindness tell apart (Okabe and Ito, "Color Universal Design")
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = COLOURS = (
    *("#0072b2", "#d55e00", "#009e73"),
    *("#cc79a7", "#e69f00", "#56b4e9"),
)
GREY = "#8a8a8a"  #: to be seen on white and on black
INK = "#010203"  #: of text and lines in an embedded SVG: the page's, light or dark
_MOST = 16_000  # pixels of a side: WebP has 14 bits for them, and the others no more than twice as many
_WORDS = "#1c1c1c", "#e4e4e4"  # on a light page, and on a dark one
_PAGE = (
    f"<style>svg{{color:{_WORDS[0]}}}@media(prefers-color-scheme:dark){{svg{{color:{_WORDS[1]}}}}}</style>"
)


def figure(width: float, height: float) -> Figure:
    """An empty picture, in inches, which needs no display.

    Raises
    ------
    RowvitError
        Matplotlib is missing.
    """
    with needs("a plot needs matplotlib", "matplotlib"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    picture = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(picture)
    return picture


def can_save(path: Path) -> None:
    """`RowvitError` if matplotlib is missing, or a file of this name is no picture: before the work."""
    formats = figure(1, 1).canvas.get_supported_filetypes()
    if path.suffix.lower().lstrip(".") not in formats:
        raise RowvitError(f"{path}: its name does not end like a picture's", "use .png, .svg, .pdf or .webp")


def save(picture: Figure, path: Path) -> None:
    """Write a picture, in the format that its name ends with; `RowvitError` if that fails."""
    can_save(path)
    dpi = min(picture.dpi, _MOST / max(picture.get_size_inches()))
    with replacing(path) as part:
        picture.savefig(part, format=path.suffix.lower().lstrip("."), dpi=dpi)


def embedded(picture: Figure, kind: str, dark: bool = False) -> str:
    """A picture as a URL that holds it, on the page's background.

    ``kind`` is "svg+xml", whose words are light where the page is ``dark``, or "webp", where this says it.
    """
    file = io.BytesIO()
    if kind == "webp":
        from matplotlib.text import Text

        for text in picture.findobj(Text):
            text.set_color(_WORDS[dark])
        picture.savefig(file, format=kind, transparent=True)
        data = file.getvalue()
    else:
        picture.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
        drawing = file.getvalue().decode().replace(INK, "currentColor")
        before, svg, behind = re.split(r"(<svg [^>]*>)", drawing, maxsplit=1)
        data = f"{before}{svg}{_PAGE}{behind}".encode()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def number(value: float | None) -> str:
    """Four significant digits, or all of a whole number, with separators of thousands."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return f"{value:g}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 9)}f}"


def estimate(value: float, uncertainty: float) -> tuple[str, str]:
    """A value and its uncertainty, to two significant digits of the latter."""
    if not uncertainty > 0 or not math.isfinite(uncertainty):
        return number(value), number(uncertainty)
    leading = math.floor(math.log10(float(f"{uncertainty:.1e}")))  # 0.0996 is 0.10
    digits, tens = max(0, 1 - leading), 10.0 ** max(0, leading - 1)
    of_value, of_uncertainty = (
        f"{round(one / tens) * tens if leading > 1 else one:,.{digits}f}" for one in (value, uncertainty)
    )
    return of_value, of_uncertainty
