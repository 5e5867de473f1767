# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from puppet import Puppet, Served, serving

import rowvit
from rowvit.quant.synthetic import random_package
from rowvit.serve.networks import Network, read_networks

SIZE = dict(dim=32, depth=2, heads=2, image_size=12, patch_size=2, hidden=48, classes=5)


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, Path]:
    """Two packages for `tiny`, the second without pruning, and photos of any size."""
    directory = tmp_path_factory.mktemp("served")
    found = {"small": directory / "small.safetensors", "dense": directory / "dense.safetensors"}
    for seed, (name, path) in enumerate(found.items()):
        pruning = [{"layer": 0, "keep": 20, "threshold": 0}] if name == "small" else []
        package = random_package(np.random.default_rng(seed), **SIZE, pruning=pruning)
        package.meta["name"] = name
        package.save(path)
    found["photos"] = directory / "photos"
    found["photos"].mkdir()
    rng = np.random.default_rng(5)
    for i in range(5):
        pixels = rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(found["photos"] / f"{i}.png")
    return found


@pytest.fixture
def networks(files) -> dict[str, Network]:
    return read_networks([str(files["small"]), str(files["dense"])], files["photos"])


@pytest.fixture
def puppet() -> Puppet:
    return Puppet()


@pytest.fixture
def served(networks, puppet):
    """A server whose target is the puppet."""
    with serving(networks, "sim", lambda: puppet, batch=4) as one:
        yield one
        puppet.go.set()


@pytest.fixture(scope="session")
def golden(files) -> Served:
    """A server on the integer reference."""
    two = read_networks([str(files["small"]), str(files["dense"])], files["photos"])
    with serving(two, "golden", lambda: rowvit.open("golden", "tiny")) as one:
        yield one
