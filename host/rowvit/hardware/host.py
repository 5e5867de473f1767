# SPDX-License-Identifier: Apache-2.0
"""How long a board's processor works for an image: estimated from instructions that were counted.

``benchmarks/host.py --record`` counts them on emulated processors, for two networks, and writes
``host.json``. What a network of another size needs is taken to grow with its pixels: a rectangle counts as
the square of as many. Kernel, caches and
their flushes are not in the counts, so the estimate has a lower and an upper end: those of the instructions
per cycle that are assumed (``boards.toml``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rowvit.hardware.block_design import Board, board
from rowvit.hardware.config import HardwareConfig

COUNTS = Path(__file__).with_name("host.json")
#: networks that were counted, and the pixels of their sides
NETWORKS = {"sign-digits": 56, "deit-tiny": 224}
ARRAY, PHOTO, CAMERA = "ready array", "JPEG 640x480", "camera's RGB 640x480"
#: where images come from, by the names of the steps that decode them
SOURCES = (ARRAY, "JPEG 224x224", PHOTO, "JPEG 1920x1080", CAMERA)
DRIVER = "stream"  #: the step of a ready array

Span = tuple[float, float]  #: the fewest, and the most


@dataclass(frozen=True)
class HostTime:
    """What one image takes of a board's processor, in ms of one core, at both ends of its assumed speed."""

    board: Board
    source: str
    driver: Span  #: patches, starting the core, its answer: by one thread
    decode: Span  #: by a thread for each core

    @property
    def per_image(self) -> Span:
        """Time from one image to the next, if nothing but the host took any; in ms."""
        cores = self.board.processor.cores
        low, high = (
            max(driver, (driver + decode) / cores)
            for driver, decode in zip(self.driver, self.decode, strict=True)
        )
        return low, high

    def limit(self, fabric: float, name: str = "fabric") -> str:
        """What takes longest: the fabric with its ms per image, called ``name``, decoding, or the driver."""
        low, high = self.per_image
        part = "driver" if high == self.driver[1] else "decode"
        if low > fabric:
            return part
        return f"{name} or {part}" if high > fabric else name

    def share(self, fabric: float) -> Span:
        """Its time over the fabric's; above 1 it is the limit."""
        low, high = self.per_image
        return low / fabric, high / fabric

    def rate(self, fabric: float) -> Span:
        """Images per second that host and fabric reach together."""
        low, high = self.per_image
        return 1e3 / max(fabric, high), 1e3 / max(fabric, low)

    def report(self, fabric: float, name: str = "fabric") -> dict[str, Any]:
        """For JSON."""
        return {
            "source": self.source,
            "driver_ms": list(self.driver),
            "decode_ms": list(self.decode),
            "ms_per_image": list(self.per_image),
            "of_fabric": list(self.share(fabric)),
            "images_per_second": list(self.rate(fabric)),
            "limit": self.limit(fabric, name),
        }


def host_time(of: Board, side: float, source: str = PHOTO) -> HostTime:
    """Estimate for one image of ``side`` x ``side`` pixels, from one of `SOURCES`."""
    steps = _counts()[of.processor.architecture]
    cycles_per_ms = 1e3 * of.processor.mhz

    def span(step: str) -> Span:
        count = 1e6 * _grown(side, *(steps[f"{step} {name}"] for name in NETWORKS))
        slow, fast = of.processor.per_cycle
        return count / fast / cycles_per_ms, count / slow / cycles_per_ms

    return HostTime(of, source, span(DRIVER), (0.0, 0.0) if source == ARRAY else span(source))


def host_times(config: HardwareConfig, side: float) -> Iterator[HostTime]:
    """Estimates from every one of `SOURCES`, on a configuration's board; none if it has no board."""
    if config.board != "none":
        of = board(config.board)
        yield from (host_time(of, side, source) for source in SOURCES)


def host_work(config: HardwareConfig, side: float, fabric: float, name: str = "fabric") -> dict[str, Any]:
    """Estimates from every one of `SOURCES`, beside the fabric's ms per image, as JSON; as of `HostTime`."""
    times = list(host_times(config, side))
    if not times:
        return {"none": f"'{config.name}' is of no board"}
    one, slow, fast = times[0].board.processor, *times[0].board.processor.per_cycle
    return {
        "board": times[0].board.name,
        "basis": f"estimated from counted instructions, {slow:g} to {fast:g} of them per cycle of"
        f" {one.cores} x {one.name} at {one.mhz:.0f} MHz",
        "fabric_ms": fabric,
        "sources": [time.report(fabric, name) for time in times],
    }


#: of `rows` and `row`
HEAD = ("images from", "host, ms", "of the fabric's", "images/s", "limit")


def rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """A table of what `host_work` found."""
    return [row(one) for one in found["sources"]]


def row(one: dict[str, Any]) -> tuple[str, ...]:
    """A row of it, from `HostTime.report`."""
    return (
        one["source"],
        shown(one["ms_per_image"], ".1f"),
        shown(one["of_fabric"], ".0%"),
        shown(one["images_per_second"], ".0f"),
        one["limit"],
    )


def said(found: dict[str, Any]) -> str:
    """A sentence above or below it."""
    return (
        f"What the host takes for an image on a {found['board']}, {found['basis']}; the fabric takes"
        f" {found['fabric_ms']:.2f} ms"
    )


def shown(ends: Iterable[float], digits: str) -> str:
    """Both ends, as "1.2 to 2.4"; ``digits`` formats each."""
    low, high = (f"{end:{digits}}" for end in ends)
    return low if low == high else f"{low.rstrip('%')} to {high}"


def _grown(side: float, small: float, large: float) -> float:
    """Linear in pixels through both networks counted, and no less than the smaller."""
    fewer, more = (one**2 for one in NETWORKS.values())
    return max(small + (large - small) * (side**2 - fewer) / (more - fewer), min(small, large))


@cache
def _counts() -> dict[str, dict[str, float]]:
    """Million instructions by architecture, and by step and network."""
    found: dict[str, dict[str, float]] = json.loads(COUNTS.read_text())
    return found
