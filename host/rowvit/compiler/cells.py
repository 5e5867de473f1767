# SPDX-License-Identifier: Apache-2.0
"""What the cells of a memory hold, for `checker`: not data, but which value's band, and where in its row."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: a cell's tag: its value's number, its band, its place within the row
_VALUE, _BAND = 32, 20


class Value(NamedTuple):
    """Something of one image, made of its residual stream after ``sums`` additions."""

    kind: str
    life: int  #: number of the pass
    image: int
    epoch: int = 0  #: selections before it
    sums: int = 0
    part: int = 0  #: tile of heads

    def __str__(self) -> str:
        text = f"{self.kind} of image {self.image} after {self.sums} additions and {self.epoch} selections"
        return text + (f", tile {self.part}" if self.part else "") + f" (pass {self.life})"


class Values:
    """Numbers of values."""

    def __init__(self) -> None:
        self._numbers: dict[Value, int] = {}
        self._values: list[Value] = []

    def number(self, value: Value) -> int:
        """Its number, a new one for a new value."""
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = len(self._values)
            self._values.append(value)
        return found

    def name(self, number: int) -> str:
        return str(self._values[number]) if number >= 0 else "nothing"

    def __getitem__(self, number: int) -> Value:
        return self._values[number]


class Area(NamedTuple):
    """Cells [bands, width]: band ``first`` + p at ``base`` + p * ``stride``."""

    base: int
    stride: int
    width: int
    bands: int
    first: int = 0


class Cells:
    """A memory of ``depth`` addresses; ``ValueError`` says what is wrong with a reading or writing."""

    def __init__(self, name: str, depth: int, values: Values) -> None:
        self.name, self.depth, self.values = name, depth, values
        # twice as deep, since views of whole strides reach beyond the last band
        self._tags = np.full(2 * depth, -1, np.int64)
        self._ends: dict[int, tuple[int, int]] = {}  #: of every value: between which addresses it may be

    def _view(self, area: Area) -> NDArray[Any]:
        end = area.base + (area.bands - 1) * area.stride + area.width
        if end > self.depth or (area.bands > 1 and area.width > area.stride):
            raise ValueError(f"{self.name} addresses {area.base} to {end - 1} of {self.depth}")
        if area.bands == 1:
            return self._tags[area.base : area.base + area.width][None]
        end = area.base + area.bands * area.stride
        return self._tags[area.base : end].reshape(area.bands, area.stride)[:, : area.width]

    def place(self, address: int) -> int:
        """Of a cell, within its value's row."""
        return self._tags.item(min(address, self.depth)) & (1 << _BAND) - 1

    def read(self, area: Area, place: int = 0) -> Value:
        """The one value that lies there, band by band, and in order from ``place`` on in every row."""
        view = self._view(area)
        number = self._tags.item(area.base) >> _VALUE
        right, as_bytes = _right(area.bands, area.width, area.first, place)
        found = view - (number << _VALUE)
        if number < 0 or found.tobytes() != as_bytes:  # faster than element by element
            band, cell = np.argwhere((found != right) | (view < 0))[0]
            name = self.values.name(int(view[band, cell]) >> _VALUE)
            raise ValueError(
                f"{self.name} address {area.base + band * area.stride + cell} holds {name}, not cell"
                f" {place + cell} of band {area.first + band} of {self.values.name(number)}"
            )
        return self.values[number]

    def write(self, area: Area, value: Value, place: int = 0, source: Value | None = None) -> None:
        """Band by band, each after the same band of ``source`` has been read."""
        view, end = self._view(area), area.base + area.bands * area.stride + area.width
        if source is not None:
            number = self.values.number(source)
            low, high = self._ends.get(number, (0, 0))
            if area.base < high and low < end and (own := view >> _VALUE == number).any():
                bands = view >> _BAND & (1 << _VALUE - _BAND) - 1
                if (own & (bands > np.arange(area.first, area.first + area.bands)[:, None])).any():
                    raise ValueError(f"it writes over bands of {source} that it has not read yet")
        number = self.values.number(value)
        low, high = self._ends.get(number, (area.base, end))
        self._ends[number] = min(low, area.base), max(high, end)
        np.add(_right(area.bands, area.width, area.first, place)[0], number << _VALUE, out=view)

    def fill(self, base: int, size: int, value: Value) -> None:
        """``size`` cells from ``base`` on, whatever their bands."""
        number = self.values.number(value)
        low, high = self._ends.get(number, (base, base + size))
        self._ends[number] = min(low, base), max(high, base + size)
        self._view(Area(base, size, size, 1))[:] = number << _VALUE

    def filled(self, area: Area, value: Value) -> bool:
        """Whether `fill` wrote all of the area."""
        return bool((self._view(area) == self.values.number(value) << _VALUE).all())


@lru_cache(maxsize=128)
def _right(bands: int, width: int, first: int, place: int) -> tuple[NDArray[Any], bytes]:
    """Tags [bands, width] of value 0, also as bytes."""
    rows = np.arange(first, first + bands, dtype=np.int64)[:, None] << _BAND
    tags = rows + np.arange(place, place + width, dtype=np.int64)
    return tags, tags.tobytes()
