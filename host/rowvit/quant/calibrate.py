# SPDX-License-Identifier: Apache-2.0
"""What calibration photos say of every activation, and the scales that follow from it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

METHODS = ("mse", "percentile", "max")
_SAMPLES_PER_BATCH = 1 << 15


@dataclass
class Statistics:
    """Samples, greatest magnitudes and channels' greatest magnitudes of every observed activation."""

    samples: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    peak: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    channels: dict[str, np.ndarray] = field(default_factory=dict)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def observe(self, name: str, value: Tensor) -> None:
        """Record an activation [..., channels]; called by the float network."""
        value = value.detach().abs()
        flat = value.flatten().numpy()
        self.peak[name] = max(self.peak[name], float(flat.max()))
        # at random: a regular step would meet the same few channels again and again
        self.samples[name].append(flat[self.rng.integers(0, flat.size, _SAMPLES_PER_BATCH)])
        channels = value.flatten(0, -2).amax(dim=0).numpy()
        self.channels[name] = np.maximum(self.channels.get(name, 0.0), channels)

    def scale(self, name: str, levels: int, method: str = "mse", percentile: float = 99.99) -> float:
        """Value of one unit of ``levels`` magnitudes.

        Parameters
        ----------
        name : str
        levels : int
            127 or 255.
        method : str
            "mse": least squared error of rounding and clipping together; "percentile": that share of the
            magnitudes is not clipped; "max": nothing is.
        percentile : float
        """
        peak = self.peak[name] or 1.0
        if method == "max":
            return peak / levels
        values = np.concatenate(self.samples[name]).astype(np.float64)
        if method == "percentile":
            return float(np.percentile(values, percentile, method="higher") or peak) / levels
        candidates = peak / levels * np.geomspace(0.2, 1.0, 60)
        return float(candidates[int(np.argmin([rounding(values, unit, levels) for unit in candidates]))])

    def noise(self, name: str, unit: float, levels: int) -> float:
        """Signal to noise, in dB, of an activation in units of ``unit``; infinite if it is all zero."""
        values = np.concatenate(self.samples[name]).astype(np.float64)
        return decibels(np.square(values).sum(), rounding(values, unit, levels))


def rounding(values: np.ndarray, unit: float, levels: int) -> float:
    """Squared error of magnitudes in units of ``unit``, at most ``levels`` of them."""
    return float(np.square(np.minimum(np.round(values / unit), levels) * unit - values).sum())


def decibels(signal: float, noise: float) -> float:
    """Ratio of two squared sums; infinite without noise."""
    if noise <= 0 or signal <= 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise))
