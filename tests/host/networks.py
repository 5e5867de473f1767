# SPDX-License-Identifier: Apache-2.0
"""Small random networks for the tests of quantiser, compiler and devices."""

from __future__ import annotations

import numpy as np

from rowvit.formats.package import ModelPackage
from rowvit.quant.synthetic import random_package


def small_package(rng: np.random.Generator, **changes) -> ModelPackage:
    """A network of random shape for the configuration ``tiny`` (16 lanes); ``changes`` fix some of it."""
    heads = int(rng.integers(1, 4))
    dim = 16 * int(rng.integers(heads, 5))
    while dim // heads > 16 or dim % heads:
        dim = 16 * int(rng.integers(1, 5))
    hidden = int(rng.integers(9, 100))
    depth = int(rng.integers(1, 4))
    grid = int(rng.integers(2, 6))
    prune = sorted(rng.choice(depth, int(rng.integers(0, depth + 1)), replace=False))
    options = dict(
        dim=dim,
        heads=heads,
        depth=depth,
        hidden=hidden,
        patch_size=(patch := int(rng.integers(1, 5))),
        image_size=patch * grid,
        classes=int(rng.integers(1, 40)),
        pruning=[
            {
                "layer": int(layer),
                "keep": int(rng.integers(0, grid * grid + 2)),
                "threshold": int(rng.choice([0, 1 << 14, 1 << 16])),
            }
            for layer in prune
        ],
        ffn2_rule=str(rng.choice(["none", "image", "tile"])),
        tile_rows=2 * int(rng.integers(1, 8)),
        ffn_chunk=int(rng.integers(8, 65)),
        columns=float(rng.uniform(0.1, 0.9)),
    )
    return random_package(rng, **options | changes)


def random_patches(rng: np.random.Generator, package: ModelPackage, images: int) -> np.ndarray:
    """Patches int8 [images, tokens - prefix, K] over the whole range."""
    arch = package.meta["architecture"]
    shape = (images, arch["tokens"] - arch["prefix"], package.tensors["patch.weight"].shape[0])
    return rng.integers(-128, 128, shape).astype(np.int8)


def smooth_photos(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random pictures uint8 [count, height, width, 3], of squares of four pixels a side."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, height // 4, width // 4, 3))
    return coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)


def snr(exact: np.ndarray, rounded: np.ndarray) -> float:
    """Signal-to-noise ratio in dB."""
    return float(10 * np.log10(np.square(exact).sum() / np.square(exact - rounded).sum()))


def randomise(model, seed: int = 0):
    """Random weights that keep activations near 1, in place; returns the network in evaluation mode."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
        parameter.data = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
        if "norm" in name and name.endswith("weight"):
            parameter.data += 1
    return model.eval()
