# SPDX-License-Identifier: Apache-2.0
"""A board whose power is a known function of the accelerator's counters, its sensor, and its clock."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from clocks import FakeClock

import rowvit
from rowvit.measure.power.instrument import Instrument
from rowvit.measure.power.passes import PowerPass
from rowvit.measure.power.samples import Samples
from rowvit.quant.synthetic import random_package
from rowvit.targets.target import Result

#: joules of one count; what a lane group's multiplication, a word from memory, ... take on this board
JOULES = {"fires": 6e-6, "axi_beats": 9e-6, "ffn2_nonzeros": 2e-6, "softmax_busy": 3e-6, "cycles": 5e-7}
MHZ = 0.2  # slow, so that an image of `tiny` takes tens of milliseconds


@functools.cache
def results() -> list[Result]:
    """Of eight images on the simulated RTL; their counters differ."""
    rng = np.random.default_rng(11)
    size = dict(dim=32, depth=2, heads=2, image_size=12, patch_size=2, hidden=48, classes=5)
    package = random_package(rng, **size, pruning=[{"layer": 0, "keep": 30, "threshold": 1 << 15}])
    images = rng.integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
    images[:4] //= 8
    with rowvit.open("sim", config="tiny") as sim:
        sim.load(package)
        return sim(images)


def joules(result: Result) -> float:
    """What the image takes beyond the idle board."""
    return sum(JOULES[name] * result.counters[name] for name in JOULES)


@dataclass
class FakeBoard:
    """Classifies by letting time pass; remembers the energy that it has taken beyond idling.

    Parameters
    ----------
    clock : FakeClock
    rng : numpy Generator
        Of the drift of its idle power, and of the host's pauses between images.
    """

    clock: FakeClock
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.times, self.energies = [self.clock.now], [0.0]
        self.slope = self.rng.normal(0, 5e-4)  # watts per second: it warms up
        self.wave = self.rng.uniform(0.01, 0.05), self.rng.uniform(40, 200), self.rng.uniform(0, 2 * math.pi)
        self.next = int(self.rng.integers(8))

    def work(self) -> int:
        """One image."""
        result = results()[self.next]
        self.next = (self.next + 1) % 8
        self._spend(self.rng.uniform(1e-3, 3e-3), 0.0)  # the host
        self._spend(result.counters["cycles"] / MHZ * 1e-6, joules(result))
        return 1

    def _spend(self, seconds: float, energy: float) -> None:
        before = self.energies[-1]
        self.times += [self.clock.now, self.clock.now + seconds]
        self.energies += [before, before + energy]
        self.clock.sleep(seconds)

    def energy(self, until: np.ndarray | float) -> np.ndarray:
        """True joules from the board's start, idling included."""
        height, period, phase = self.wave
        since = np.asarray(until) - self.times[0]
        idle = 3.0 * since + self.slope * since**2 / 2
        idle = idle - height * period / (2 * math.pi) * np.cos(2 * math.pi * since / period + phase)
        return idle + np.interp(until, self.times, self.energies)

    @staticmethod
    def truth() -> float:
        """Mean dynamic joules of an image."""
        return float(np.mean([joules(result) for result in results()]))

    def total(self, passes: Sequence[PowerPass]) -> float:
        """True joules per image in the busy passes, idling included."""
        busy = [p for p in passes if p.kind == "busy"]
        return float(np.mean([(self.energy(p.end) - self.energy(p.begin)) / p.images for p in busy]))


class FakeSensor(Instrument):
    """Averages over a time, is noisy, has steps and a factor, and is not read quite regularly."""

    def __init__(
        self,
        board: FakeBoard,
        rng: np.random.Generator,
        average: float = 0.14,
        noise: float = 0.02,
        step: float = 0.01,
        scale: float = 1.0,
    ) -> None:
        super().__init__("fake sensor", "all of the fake board", 0.05)
        self.board, self.rng, self.average, self.noise, self.step = board, rng, average, noise, step
        self.scale = scale
        self.parts: list[np.ndarray] = []

    def start(self) -> None:
        self.begun = self.board.clock.now

    def stop(self) -> None:
        count = int((self.board.clock.now - self.begun) / self.interval) + 1
        times = self.begun + np.sort(self.interval * (np.arange(count) + self.rng.uniform(0, 0.4, count)))
        times[0], times[-1] = self.begun, min(times[-1], self.board.clock.now)
        watts = (self.board.energy(times) - self.board.energy(times - self.average)) / self.average
        watts = self.scale * watts + self.rng.normal(0, self.noise, count)
        if self.step:
            watts = np.round(watts / self.step) * self.step
        self.parts.append(np.stack([times, watts]))

    def samples(self, passes: Sequence[PowerPass]) -> Samples:
        return Samples(*np.concatenate(self.parts, axis=1))


def write_log(path: Path, board: FakeBoard, rate: float, offset: float, noise: float = 0.0) -> None:
    """The log of a meter at the board's supply; ``offset`` is its clock less the monotonic one.

    Each sample is the mean power since the one before, as meters with a fast converter give it.
    """
    times = np.arange(board.times[0], board.clock.now, 1 / rate)
    watts = np.diff(board.energy(times)) * rate + board.rng.normal(0, noise, len(times) - 1)
    rows = (f"{t:.6f},{w:.6f}\n" for t, w in zip(times[1:] - 0.5 / rate + offset, watts, strict=True))
    path.write_text("Time (s),Power (W)\n" + "".join(rows))


def hwmon_tree(root: Path, sensors: dict[str, str], **files: str) -> Path:
    """A sysfs tree: directory -> name."""
    for directory, name in sensors.items():
        (root / directory).mkdir(parents=True)
        (root / directory / "name").write_text(f"{name}\n")
        (root / directory / "power1_input").write_text("1000000\n")
        for file, text in files.items():
            (root / directory / file).write_text(text)
    return root
