# SPDX-License-Identifier: Apache-2.0
"""Statistics of activations on calibration photos, and the scales chosen from them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

METHODS = ("mse", "percentile", "max")
_SAMPLES_PER_BATCH = 1 << 15
_LARGEST_PER_BATCH = 1 << 8
_BY_PEAK = ("embed", ".attn", ".ffn", "sums", "logits", "tokens")


@dataclass
class ActivationStatistics:
    """Samples, peaks and peaks per channel of every observed activation.

    The largest magnitudes of a batch are always among its samples: one token of an image may hold
    activations a hundred times larger than the others, and a network fails without them. ``weights`` is the
    number of magnitudes that each sample represents. The residual stream and the logits are scaled by their
    peaks and have no samples.
    """

    samples: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    weights: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    peak: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    channels: dict[str, np.ndarray] = field(default_factory=dict)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def observe(self, name: str, value: Tensor) -> None:
        """Record an activation [..., channels]; called by the float network."""
        rows = value.detach().abs().flatten(0, -2)
        peaks = rows.amax(dim=1)
        self.peak[name] = max(self.peak[name], float(peaks.max()))
        if name.endswith(_BY_PEAK):
            return
        flat = rows.numpy().reshape(-1)
        parts = [(flat, 1.0)]
        if flat.size > _SAMPLES_PER_BATCH:
            # they lie in the rows of the largest peaks
            among = rows[peaks.topk(min(_LARGEST_PER_BATCH, len(rows))).indices].numpy().reshape(-1)
            largest = np.partition(among, -_LARGEST_PER_BATCH)[-_LARGEST_PER_BATCH:].copy()  # not a view
            # at random: a regular stride would hit the same few channels again and again
            others = flat[self.rng.integers(0, flat.size, _SAMPLES_PER_BATCH)]
            others = others[others < largest[0]]
            parts = [(largest, 1.0), (others, (flat.size - largest.size) / max(others.size, 1))]
        for drawn, weight in parts:
            self.samples[name].append(drawn)
            self.weights[name].append(np.broadcast_to(weight, drawn.shape))
        channels = rows.amax(dim=0).numpy()
        self.channels[name] = np.maximum(self.channels.get(name, 0.0), channels)

    def scale(self, name: str, levels: int, method: str = "mse", percentile: float = 99.99) -> float:
        """Value of one unit of ``levels`` magnitudes.

        Parameters
        ----------
        name : str
        levels : int
            127 or 255.
        method : str
            "mse": least squared error of rounding and clipping together; "percentile": this share of the
            magnitudes is not clipped; "max": nothing is clipped.
        percentile : float
        """
        peak = self.peak[name] or 1.0
        if method == "max":
            return peak / levels
        values, weights = self.magnitudes(name)
        if method == "percentile":
            order = np.argsort(values)
            below = np.cumsum(weights[order])
            place = np.searchsorted(below, below[-1] * percentile / 100)
            return float(values[order[min(place, len(order) - 1)]] or peak) / levels
        candidates = peak / levels * np.geomspace(0.2, 1.0, 60)
        errors = [rounding(values, weights, unit, levels) for unit in candidates]
        return float(candidates[int(np.argmin(errors))])

    def magnitudes(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """All samples of an activation, and how many magnitudes each represents."""
        return np.concatenate(self.samples[name]).astype(np.float64), np.concatenate(self.weights[name])

    def noise(self, name: str, unit: float, levels: int) -> float:
        """Signal-to-noise ratio, in dB, of an activation in units of ``unit``; infinite if it is all zero."""
        values, weights = self.magnitudes(name)
        return decibels(weights @ np.square(values), rounding(values, weights, unit, levels))


def rounding(values: np.ndarray, weights: np.ndarray, unit: float, levels: int) -> float:
    """Squared error of weighted magnitudes in units of ``unit``, at most ``levels`` of them."""
    error = values / unit  # overwritten: new arrays of this size cost more than the arithmetic
    np.minimum(np.rint(error, out=error), levels, out=error)
    error *= unit
    error -= values
    return float(weights @ np.square(error, out=error))


def decibels(signal: float, noise: float) -> float:
    """Ratio of two squared sums; infinite without noise."""
    if noise <= 0 or signal <= 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise))
