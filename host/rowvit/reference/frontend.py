# SPDX-License-Identifier: Apache-2.0
"""The preprocessor (numerics.md, section 10): a camera frame to the pixels that a network takes.

The twin of ``hls/frontend.cpp``, and the packet that the kernel takes. It needs numpy only.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.formats.description import image_shape
from rowvit.reference.primitives import rsr

MAGIC = 0x5652
#: what the kernel is built for (``hls/frontend.h``)
MAX_FRAME, MAX_SIDE, MAX_STRIPE, MAX_BIN = 4095, 256, 4096, 3
STEP_BITS, WEIGHT_BITS = 20, 8
_HEADER = struct.Struct("<10H4x2I")
HEADER_BYTES = _HEADER.size


@dataclass(frozen=True)
class Geometry:
    """What becomes of a frame: a window of it is binned and scaled to ``grid`` x ``grid`` patches.

    `RowvitError` if the kernel is not built for it.
    """

    width: int  #: pixels of the frame
    height: int
    left: int  #: of the window, in pixels of the frame
    top: int
    window_width: int
    window_height: int
    bin: int  #: squares of ``2**bin`` pixels are averaged before scaling
    patch: int  #: pixels of a patch's side
    grid: int  #: patches of the result's side

    @classmethod
    @lru_cache(maxsize=8)  # a camera's frames are alike
    def of(cls, width: int, height: int, side: int, patch: int) -> Geometry:
        """The middle square of a frame for a network of ``side`` x ``side`` pixels.

        Bins are the largest that leave at least ``side`` pixels; the square loses the pixels that do
        not fill a bin.
        """
        square = min(width, height)
        bin = max((b for b in range(MAX_BIN + 1) if square >> b >= side), default=0)
        window = square >> bin << bin
        left, top = (width - window) // 2, (height - window) // 2
        return cls(width, height, left, top, window, window, bin, patch, side // patch)

    @classmethod
    def for_network(cls, width: int, height: int, arch: Mapping[str, Any]) -> Geometry:
        """The same for the network with this "architecture"; `RowvitError` if its images are no squares."""
        return cls.of(width, height, only_square(arch), arch["patch_size"])

    def __post_init__(self) -> None:
        size = f"a frame of {self.width} x {self.height} pixels"
        if not (1 <= self.width <= MAX_FRAME and 1 <= self.height <= MAX_FRAME):
            raise RowvitError(f"{size} does not go through the HLS front end", f"it takes 1 to {MAX_FRAME}")
        if (
            self.left < 0
            or self.top < 0
            or self.left + self.window_width > self.width
            or self.top + self.window_height > self.height
            or not 0 <= self.bin <= MAX_BIN
            or min(self.window_width, self.window_height) >> self.bin < 1
        ):
            raise RowvitError(
                f"{size} has no window of {self.window_width} x {self.window_height} pixels at {self.left},"
                f" {self.top} in bins of {1 << max(self.bin, 0)}",
                "take a window inside it, of at least a bin",
            )
        if self.patch < 1 or self.grid < 2 or self.side > MAX_SIDE or self.side * self.patch > MAX_STRIPE:
            raise RowvitError(
                f"the HLS front end cannot make {self.grid} x {self.grid} patches of {self.patch} pixels: it"
                f" is built for at least 2 x 2 patches, {MAX_SIDE} pixels a side and {MAX_STRIPE} pixels in a"
                " row of patches",
                "take the host front end",
            )

    @property
    def side(self) -> int:
        """Pixels of the result's side."""
        return self.grid * self.patch

    @property
    def binned(self) -> tuple[int, int]:
        """Columns and rows that are left after binning."""
        return self.window_width >> self.bin, self.window_height >> self.bin

    @property
    def steps(self) -> tuple[int, int]:
        """Binned columns and rows from one pixel of the result to the next, with 20 fraction bits."""
        x, y = (((count << STEP_BITS) + self.side // 2) // self.side for count in self.binned)
        return x, y

    @property
    def packet_bytes(self) -> int:
        return HEADER_BYTES + 3 * self.width * self.height

    def header(self) -> NDArray[Any]:
        """The first four words of a packet, as uint8 [32]."""
        packed = _HEADER.pack(
            *(MAGIC, self.width, self.height, self.bin),
            *(self.left, self.top, self.window_width, self.window_height),
            *(self.patch, self.grid, *self.steps),
        )
        return np.frombuffer(packed, np.uint8)


def only_square(arch: Mapping[str, Any]) -> int:
    """The side of a network's images, by its "architecture"; `RowvitError` if they are no squares."""
    height, width = image_shape(arch)
    if height != width:
        raise RowvitError(
            f"the HLS front end makes squares, and this network takes images of {height} x {width} pixels"
            " (height x width)",
            "take the host front end",
        )
    return height


def fill_packet(frame: NDArray[Any], geometry: Geometry, packet: NDArray[Any]) -> None:
    """Write header and RGB pixels, uint8 [height, width, 3], to ``packet``, uint8 [packet_bytes]."""
    packet[:HEADER_BYTES] = geometry.header()
    packet[HEADER_BYTES:].reshape(frame.shape)[:] = frame


def resize(frame: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """Window, bins, and bilinear interpolation with one rounding at the end.

    RGB frame uint8 [height, width, 3] to uint8 [side, side, 3].
    """
    columns, rows = geometry.binned
    size = 1 << geometry.bin
    window = frame[geometry.top :, geometry.left :][: rows * size, : columns * size]
    sums = window.reshape(rows, size, columns, size, 3).sum((1, 3), np.int64)
    step_x, step_y = geometry.steps
    left, right, x = _positions(columns, geometry.side, step_x)
    above, below, y = _positions(rows, geometry.side, step_y)
    one, x, y = 1 << WEIGHT_BITS, x[:, None], y[:, None, None]
    lines = sums[:, left] * (one - x) + sums[:, right] * x
    value = lines[above] * (one - y) + lines[below] * y
    return rsr(value, 2 * WEIGHT_BITS + 2 * geometry.bin).astype(np.uint8)


def _positions(count: int, side: int, step: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """For each output the input before it, the one after, and its weight, of ``count`` inputs."""
    exact = (step >> 1) - (1 << STEP_BITS >> 1) + step * np.arange(side, dtype=np.int64)
    position = np.clip(rsr(exact, STEP_BITS - WEIGHT_BITS), 0, count - 1 << WEIGHT_BITS)
    before = position >> WEIGHT_BITS
    return before, np.minimum(before + 1, count - 1), position & (1 << WEIGHT_BITS) - 1
