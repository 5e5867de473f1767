# SPDX-License-Identifier: Apache-2.0
"""What a network makes of a photo: the patches that are left, where its class token looks, and its classes.

All but `draw` return Pillow images and plain values, for a web page as well as for a plot.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rowvit.errors import RowvitError
from rowvit.formats.description import image_shape
from rowvit.images import FILTERS, before_crop, middle, upright, within
from rowvit.measure.draw import plots
from rowvit.reference.frontend import Geometry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rowvit.targets.target import Result

#: brightness of a dropped patch, relative to the photo's
DIMMED = 0.15
#: photos that one picture may show
MOST = 20
_LOOK, _OPAQUE = "#ff7f0e", 220  # of 255: the photo shines through
# of a plot: inches of a photo's side, of a small one's, between them, and of the two titles above it
_SMALL, _GAP, _TITLES = 1.6, 0.08, 0.54
_LARGE = 2 * _SMALL + _TITLES
_COLUMNS, _PIXELS = 6, 480  # small photos in a row; pixels of any photo's longer side


@dataclass(frozen=True)
class Look:
    """The class token's attention in one layer."""

    layer: int
    tokens: np.ndarray  #: int64 [n]: original indices of the tokens that enter the layer
    shares: np.ndarray  #: float64 [heads, n]: of the attention of every head, which adds up to 1


def seen(
    source: str | os.PathLike | bytes, meta: Mapping[str, Any], frontend: str = "host", enough: int = 0
) -> Image.Image:
    """The part of a photo that a network sees, in the photo's own resolution.

    Parameters
    ----------
    source : path or bytes
        As for `images.decode`, and refused as there.
    meta : mapping
        Description of the network's package or program.
    frontend : str
        "host" or "hls": what scales it for the network, and cuts off what.
    enough : int
        Pixels of the longer side that will do: for "host" a large JPEG is then decoded at a smaller size,
        sooner.

    Returns
    -------
    Image
        RGB, in the shape of the network's images but for less than a pixel, and with at least their pixels.
    """
    arch, shape = meta["architecture"], image_shape(meta["architecture"])
    crop = meta["preprocessing"].get("crop", 1.0)
    if frontend == "hls":
        with upright(source) as photo:
            image = within(photo, crop)
        window = Geometry.for_network(*image.size, arch)
        right, below = window.left + window.window_width, window.top + window.window_height
        image = image.crop((window.left, window.top, right, below))
    else:
        with upright(source, before_crop(fitted(arch, enough)[::-1], crop)) as photo:
            image = middle(photo, shape, crop)
    if image.height < shape[0] or image.width < shape[1]:
        return image.resize(shape[::-1], FILTERS[meta["preprocessing"]["resize"]])
    return image


def fitted(arch: Mapping[str, int], side: int) -> tuple[int, int]:
    """Width and height of a picture in the shape of a network's images, whose longer side is ``side``."""
    height, width = image_shape(arch)
    return -(-side * width // max(height, width)), -(-side * height // max(height, width))


def remaining(
    photo: Image.Image, kept: np.ndarray, arch: Mapping[str, int], dimmed: float = DIMMED
) -> Image.Image:
    """A photo in which the patches that the network dropped are dimmed.

    Parameters
    ----------
    photo : Image
        In the shape of the network's images, such as `seen` returns, or the network's pixels.
    kept : int array
        Tokens that stay, as in ``Result.kept``: the prefix (class token) comes before the patches, which go
        row by row.
    arch : mapping
        The network's "architecture".
    dimmed : float
        Brightness of the dropped patches, relative to the photo.

    Raises
    ------
    RowvitError
        The photo has another shape, or a token is outside it.
    """
    stays = _on_photo(photo, kept, np.full(len(kept), 255), arch)
    return Image.composite(photo, _darker(photo, dimmed), stays)


def looks(result: Result, meta: Mapping[str, Any]) -> list[Look]:
    """The class token's attention in every layer, on the tokens that enter it; none on sim and board.

    These are the integers that the integer reference computes, and the core selects by, over the sum of
    their row.
    ``meta`` is the description of the network.
    """
    after = dict(zip((step["layer"] for step in meta["pruning"]), result.kept, strict=True))
    tokens = np.arange(meta["architecture"]["tokens"])
    found = []
    for layer, weights in enumerate(result.attention):
        found.append(Look(layer, tokens, weights / weights.sum(axis=1, keepdims=True, dtype=np.int64)))
        tokens = after.get(layer, tokens)
    return found


def attention(
    photo: Image.Image, look: Look, arch: Mapping[str, int], head: int | None = None
) -> Image.Image:
    """A photo in grey on which patches are the more orange the more the class token attends to them.

    Parameters
    ----------
    photo : Image
        As for `remaining`, which also says what is raised.
    look : Look
        The patch with the most attention is all orange; those that earlier layers dropped are dimmed.
    arch : mapping
    head : int, optional
        By default the mean over the heads.
    """
    shares = look.shares.mean(axis=0) if head is None else look.shares[head]
    patches = look.tokens >= arch["prefix"]
    most = shares[patches].max(initial=0)
    strength = np.rint(_OPAQUE * shares / most) if most else np.zeros(len(shares))
    grey = photo.convert("L").convert("RGB")
    base = remaining(grey, look.tokens, arch)
    return Image.composite(
        Image.new("RGB", photo.size, _LOOK), base, _on_photo(photo, look.tokens, strength, arch)
    )


def draw(
    names: Sequence[str],
    photos: Iterable[Image.Image],
    results: Sequence[Result],
    references: Sequence[Result],
    meta: Mapping[str, Any],
    narrow: bool = False,
) -> Figure:
    """Photos, what is left of each after every pruning, its classes, and the class token's attention.

    Parameters
    ----------
    names : sequence of str
        A title for each photo.
    photos : iterable of Image
        As from `seen`; at most `MOST`. One is taken at a time.
    results : sequence of Result
        Of any target.
    references : sequence of Result
        Of golden, for the attention, which the core does not put out; without any it is left out.
    meta : mapping
        Description of the network.
    narrow : bool
        For a phone: the photo above everything else, and two of the small pictures side by side.

    Raises
    ------
    RowvitError
        Matplotlib is missing, or a photo does not belong to its result.
    """
    columns = 2 if narrow else max(_COLUMNS, len(meta["pruning"]) + 2)
    pruned = -(-len(meta["pruning"]) // columns) if narrow else 0  # rows, before that of the classes
    rows = pruned + 1 + (-(-meta["architecture"]["depth"] // columns) if references else not narrow)
    small = columns * (_SMALL + _GAP)
    width, height = _LARGE + small + 3 * _GAP, rows * (_SMALL + _TITLES) + 2 * _GAP
    if narrow:
        width, height = max(_LARGE, small) + 2 * _GAP, height + _LARGE + _TITLES
    picture = plots.figure(width, height * len(names))
    picture.set_layout_engine("none")
    for number, (name, photo, result) in enumerate(zip(names, photos, results, strict=True)):
        top = height * (len(names) - number) - _GAP
        image = photo.resize(fitted(meta["architecture"], _PIXELS))
        strip = _Strip(picture, top, image, meta, columns, pruned, narrow)
        strip.photo(name, result)
        strip.remaining(result)
        strip.classes(result)
        if references:
            strip.attention(references[number])
    return picture


@dataclass
class _Strip:
    """One photo's part of a plot; lengths are in inches."""

    picture: Figure
    top: float  #: from the picture's lower edge
    image: Image.Image
    meta: Mapping[str, Any]
    columns: int  #: of small pictures
    pruned: int  #: rows of them before that of the classes
    narrow: bool

    def photo(self, name: str, result: Result) -> None:
        axes = self._axes(_GAP, self.top - _TITLES - _LARGE, _LARGE, _LARGE, shorten(name, 50))
        _show(axes, self.image, shorten(result.label, 50))

    def remaining(self, result: Result) -> None:
        before = self.meta["architecture"]["tokens"]
        for place, (step, kept) in enumerate(zip(self.meta["pruning"], result.kept, strict=True)):
            row, column = divmod(place, self.columns) if self.narrow else (0, place)
            axes = self._square(row, column, "" if place else "left after pruning")
            image = remaining(self.image, kept, self.meta["architecture"])
            _show(axes, image, f"layer {step['layer']}: {len(kept)} of {before}")
            before = len(kept)

    def classes(self, result: Result) -> None:
        """Bars, each below its class, whose name may be long."""
        first = 0 if self.narrow else len(result.kept)
        left, below = self._corner(self.pruned, first)
        space = 2 * _GAP if first else 0.0
        width = (self.columns - first) * (_SMALL + _GAP) - _GAP - space
        axes = self._axes(left + space, below, width, _SMALL, "classes")
        for place, (text, share) in enumerate(result.likeliest(self.meta["classes"])):
            axes.barh(place + 0.3, share, 0.3, color=plots.BLUE)
            label = f"{share:.1%}  {text}"
            axes.text(0, place, label, va="center", fontsize=8, clip_on=True, parse_math=False)
        axes.set(xlim=(0, 1), ylim=(4.6, -0.4))
        axes.set_axis_off()

    def attention(self, reference: Result) -> None:
        for look in looks(reference, self.meta):
            row, column = divmod(look.layer, self.columns)
            heads = f", mean of {len(look.shares)} heads" if len(look.shares) > 1 else ""
            heading = "" if look.layer else f"attention of the class token{heads}"
            axes = self._square(self.pruned + 1 + row, column, heading)
            image = attention(self.image, look, self.meta["architecture"])
            _show(axes, image, f"layer {look.layer}: {len(look.tokens)} tokens")

    def _corner(self, row: int, column: int) -> tuple[float, float]:
        first, above = (_GAP, _LARGE + _TITLES) if self.narrow else (_LARGE + 3 * _GAP, 0.0)
        return first + column * (_SMALL + _GAP), self.top - above - (row + 1) * (_SMALL + _TITLES)

    def _square(self, row: int, column: int, heading: str) -> Axes:
        return self._axes(*self._corner(row, column), _SMALL, _SMALL, heading)

    def _axes(self, left: float, below: float, width: float, height: float, heading: str) -> Axes:
        across, up = self.picture.get_size_inches()
        top = (below + height + 0.25) / up  # above a title
        self.picture.text(left / across, top, heading, fontsize=9, weight="bold", parse_math=False)
        return self.picture.add_axes((left / across, below / up, width / across, height / up))


def _show(axes: Axes, image: Image.Image, title: str) -> None:
    axes.imshow(image)
    axes.set_title(title, fontsize=9, loc="left", pad=3, parse_math=False)
    axes.set_axis_off()


def _darker(image: Image.Image, share: float) -> Image.Image:
    return image.point(lambda value: int(value * share))


def _on_photo(
    photo: Image.Image, tokens: np.ndarray, values: np.ndarray, arch: Mapping[str, int]
) -> Image.Image:
    """The values (0 to 255) of the tokens that are patches, each on its patch of the photo; elsewhere 0."""
    height, width = image_shape(arch)
    rows, columns = height // arch["patch_size"], width // arch["patch_size"]
    patches, prefix = tokens >= arch["prefix"], arch["prefix"]
    # a photo's middle has the ratio but for less than a pixel
    other = abs(photo.width * height - photo.height * width) >= max(height, width)
    small = photo.width < columns or photo.height < rows
    if other or small or (tokens >= prefix + rows * columns).any():
        raise RowvitError(
            f"a photo of {photo.width} x {photo.height} pixels has no {columns} x {rows} patches, or tokens"
            " beyond them are kept",
            "use the part that this network took",
        )
    table = np.zeros(rows * columns, np.uint8)
    table[tokens[patches] - prefix] = values[patches]
    # where a pixel's middle is
    row_of, column_of = (
        (2 * np.arange(count) + 1) * parts // (2 * count)
        for count, parts in ((photo.height, rows), (photo.width, columns))
    )
    return Image.fromarray(table.reshape(rows, columns)[row_of][:, column_of])
