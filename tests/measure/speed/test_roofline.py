# SPDX-License-Identifier: Apache-2.0
"""The picture of a profile: names of layers that cover neither each other nor dots."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from rowvit.compiler import compile
from rowvit.cycles import predict
from rowvit.hardware.config import load
from rowvit.hardware.isa import Engine
from rowvit.hardware.memory import Memory
from rowvit.measure.speed.profile import LayerProfile, Profile, plot
from rowvit.quant.synthetic import random_package

pytest.importorskip("matplotlib")


def made_up(places: list[tuple[float, float]]) -> Profile:
    """Layers with so many MACs per byte, and per cycle."""
    layers = []
    for number, (intensity, speed) in enumerate(places):
        name = "embed" if number == 0 else "head" if number == len(places) - 1 else str(number - 1)
        units = [10_000.0, 0, 0, 0, *[0.0] * 6]
        layers.append(
            LayerProfile(name, 10_000, 10_000, *units, macs=1e4 * speed, bytes=1e4 * speed / intensity)
        )
    return Profile("made up", load("pynq-z2"), Memory(), "cycle model", layers, [], None)


def boxes(profile: Profile) -> tuple[list, list, object]:
    """Of the names in the roofline, and of its dots; the frame."""
    figure = plot(profile)
    axes = figure.axes[-1]
    (dots,) = axes.collections
    middles = axes.transData.transform(dots.get_offsets())
    return [text.get_window_extent() for text in axes.texts], middles.tolist(), axes.bbox


def test_a_layer_beside_the_embedding():
    """Two layers that share a name, close to the left of the embedding's dot."""
    names, dots, frame = boxes(made_up([(20, 50), (120, 200), (17.4, 56), (17.2, 57), (0.9, 5)]))
    assert len(names) == 4  # embed, 0, "1, 2" and head
    for one, other in combinations(names, 2):
        assert not one.overlaps(other)
    for name in names:
        assert not any(name.contains(x, y) for x, y in dots)
        assert frame.x0 <= name.x0 and name.x1 <= frame.x1 and frame.y0 <= name.y0 and name.y1 <= frame.y1


@pytest.mark.parametrize("seed", range(6))
def test_drawn_layers(seed):
    """Twelve layers, some of them close together, and their ends."""
    rng = np.random.default_rng(seed)
    middle = np.exp(rng.uniform(np.log(5), np.log(200), 4)), np.exp(rng.uniform(np.log(30), np.log(300), 4))
    near = rng.integers(0, 4, 12)
    places = [(middle[0][n] * rng.uniform(0.8, 1.25), middle[1][n] * rng.uniform(0.8, 1.25)) for n in near]
    names, dots, _ = boxes(made_up([(20, 40), *places, (1, 6)]))
    assert not any(one.overlaps(other) for one, other in combinations(names, 2))
    hidden = sum(any(name.contains(x, y) for name in names) for x, y in dots)
    assert hidden == 0


@pytest.mark.parametrize("latency", [40, 400])
@pytest.mark.parametrize("name", ["pynq-z2", "kv260"])
def test_loads_take_as_long_as_the_port_lets_them(name, latency):
    """By its width, and by how many bursts are in flight."""
    config, memory = load(name), Memory(latency)
    sizes = dict(dim=192, depth=3, heads=3, image_size=96, patch_size=16, hidden=768, classes=10)
    found = predict(compile(random_package(np.random.default_rng(0), **sizes), config), config, memory)
    loaded = sum(layer.words for layer in found.layers) / memory.words_per_cycle(config.port_bits)
    busy = sum(layer.busy[Engine.LOAD] for layer in found.layers)
    assert 0.75 * busy < loaded < 1.02 * busy
    assert memory.words_per_cycle(128) == 2 * memory.words_per_cycle(64)
