# SPDX-License-Identifier: Apache-2.0
"""The embedding of an ONNX graph: everything between the image and the first LayerNorm.

Scaling, convolution or matrix product, class token, positions and their resizing are together one linear
map of disjoint patches. Its weights are found by running it on test images.
"""

from __future__ import annotations

import math

import numpy as np

from rowvit.errors import RowvitError
from rowvit.model.importers.onnx.graph import Graph
from rowvit.model.importers.onnx.values import label

_TOLERANCE = 1e-3  # of the peak


def embedding_tensor(graph: Graph) -> str:
    """What the first LayerNorm reads."""
    from_image = {graph.input}
    for node in graph.nodes:
        read = next((name for name in node.input if name in from_image), None)
        if read is None or node.op_type in ("Shape", "Size"):
            continue
        if node.op_type in ("LayerNormalization", "ReduceMean"):
            return read
        from_image |= set(node.output)
    raise RowvitError(f"{graph.path}: has no LayerNorm, so it is no vision transformer")


def embedding(graph: Graph, name: str) -> dict[str, np.ndarray]:
    """Weights of the linear map from patches to ``name``, and the rest of it as a position table."""
    nodes = graph.needed([name])
    last = label(nodes[-1]) if nodes else f"input {name!r}"
    rng = np.random.default_rng(0)
    peak = 255.0 if np.issubdtype(graph.dtype, np.integer) else 1024.0
    trial = rng.integers(0, 256, (1, 3, graph.side, graph.side)).astype(np.float64)
    (base, out) = graph.run(np.concatenate([np.zeros_like(trial), trial]), name)
    moved = (base != out).reshape(len(base), -1).any(axis=1)
    prefix = int(moved.argmax())
    grid = math.isqrt(len(base) - prefix)
    if base.ndim != 2 or grid * grid != len(base) - prefix or not moved.any() or graph.side % grid:
        raise RowvitError(
            f"{graph.path}: the first LayerNorm reads {list(base.shape)} scalars from {last}, expected a"
            " square grid of patches and the tokens before them, each with its channels."
        )
    patch = graph.side // grid
    size = 3 * patch * patch
    weight = np.empty((size, base.shape[1]))
    # every patch of a test image holds a different unit vector
    for first in range(0, size, grid * grid):
        units = np.arange(first, min(first + grid * grid, size))
        vectors = np.zeros((grid * grid, size))
        vectors[np.arange(len(units)), units] = peak
        answer = graph.run(_from_patches(vectors, patch)[None], name)[0].astype(np.float64) - base
        weight[units] = answer[prefix : prefix + len(units)] / peak
    expected = base.astype(np.float64)
    expected[prefix:] += _to_patches(trial[0], patch) @ weight
    if np.abs(expected - out).max() > _TOLERANCE * np.abs(out).max():
        raise RowvitError(
            f"{graph.path}: the embedding that ends in {last} is not one linear layer on patches of"
            f" {patch} x {patch} pixels ({', '.join(sorted({node.op_type for node in nodes}))}),"
            " which is all that the accelerator runs"
        )
    return {
        "patch_embed.proj.weight": weight.T.reshape(-1, 3, patch, patch),
        "patch_embed.proj.bias": np.zeros(base.shape[1]),
        "cls_token": np.zeros((1, prefix, base.shape[1])),
        "pos_embed": base[None].astype(np.float64),
    }


def _from_patches(vectors: np.ndarray, patch: int) -> np.ndarray:
    """Patches [G * G, 3 * P * P], scalars in the order channel, y, x, to an image [3, S, S]."""
    grid = math.isqrt(len(vectors))
    cells = vectors.reshape(grid, grid, 3, patch, patch)
    return cells.transpose(2, 0, 3, 1, 4).reshape(3, grid * patch, grid * patch)


def _to_patches(image: np.ndarray, patch: int) -> np.ndarray:
    """The inverse of `_from_patches`."""
    grid = image.shape[1] // patch
    cells = image.reshape(3, grid, patch, grid, patch)
    return cells.transpose(1, 3, 0, 2, 4).reshape(grid * grid, -1)
