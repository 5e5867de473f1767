# SPDX-License-Identifier: Apache-2.0
"""Random networks with other outputs, beginnings, positions and images, of ones that only give classes."""

from __future__ import annotations

import numpy as np

from rowvit.formats.description import COORDINATES, image_keys
from rowvit.formats.package import ModelPackage
from rowvit.quant.fixed import multiplier, rotations
from rowvit.quant.synthetic import with_gates
from rowvit.reference.attention import ROTATED_BITS


def ends(rng: np.random.Generator, tensor: np.ndarray) -> np.ndarray:
    """Half of the values at the ends of their range."""
    info = np.iinfo(tensor.dtype)
    picked = rng.choice([info.min, info.max, 0, 1], tensor.shape).astype(tensor.dtype)
    return np.where(rng.random(tensor.shape) < 0.5, picked, tensor)


def varied(rng: np.random.Generator, package: ModelPackage, rotary: bool = True) -> ModelPackage:
    """The network as it is, or answering with tokens, without classes, with a LayerNorm before its blocks.

    Of some the patches lie in another rectangle, of as many. With ``rotary`` some have rotary positions, of
    any rotations, or a gated FFN.
    """
    meta, tensors = package.meta | {"scales": dict(package.meta["scales"])}, dict(package.tensors)
    meta["params"] = dict(meta["params"])
    depth, dim = package.arch["depth"], package.arch["dim"]

    def norm(name: str) -> None:
        tensors[f"{name}.g"] = np.round(rng.normal(64.0, 8.0, dim)).astype(np.int16)
        tensors[f"{name}.b"] = np.round(rng.normal(0.0, 8192.0, dim)).astype(np.int32)
        if rng.random() < 0.25:
            tensors.update({f"{name}.{part}": ends(rng, tensors[f"{name}.{part}"]) for part in "gb"})

    if rng.random() < 0.2:
        norm("pre_norm")
        factor = 2000.0 / (127 * 32) * rng.uniform(0.8, 1.25, dim)
        tensors["pre.mult"], meta["params"]["pre.shift"] = multiplier(factor)
        meta["params"]["pre_norm.shift"] = int(rng.choice([11, 11, 11, 0, 31]))
        meta["pre_norm"] = True
    (own,) = rng.spawn(1)  # draws what came later, so that the rest stays as it was
    if rng.random() < 0.5:
        layers = sorted({depth - 1, *np.flatnonzero(rng.random(depth) < 0.3).tolist()})
        norm("tokens")
        rows, shift = str(rng.choice(["class", "all", "all"])), int(rng.choice([5, 5, 5, 0, 31]))
        meta["tokens"] = {"rows": rows, "layers": layers, "shift": shift}
        meta["scales"]["tokens"] = 2.0**-11
        if own.random() < 0.25:  # as they are in the residual stream
            meta["tokens"] = {"rows": "all", "layers": layers}
            del tensors["tokens.g"], tensors["tokens.b"]
        if rng.random() < 0.5:
            meta |= {"classes": [], "architecture": package.arch | {"classes": 0}}
            del meta["scales"]["logit"], meta["params"]["norm.shift"], meta["params"]["head.shift"]
            tensors = {name: t for name, t in tensors.items() if not name.startswith(("norm.", "head."))}
    (own,) = rng.spawn(1)
    if own.random() < 0.5:
        patch, patches = package.arch["patch_size"], package.arch["tokens"] - package.arch["prefix"]
        rows = int(own.choice([rows for rows in range(1, patches + 1) if patches % rows == 0]))
        others = {key: value for key, value in meta["architecture"].items() if key != "image_width"}
        meta["architecture"] = others | image_keys((rows * patch, patches // rows * patch))
    (own,) = rng.spawn(1)
    frequencies, left = divmod(dim // package.arch["heads"], 4)
    if own.random() < 0.3 and rotary and not left:
        count = int(own.integers(1, COORDINATES + 1))
        angles = own.uniform(-np.pi, np.pi, (count, frequencies)).round(int(own.integers(3)))
        turns = rotations(angles)
        corners = own.choice([-(1 << 14), 0, 1 << 14], turns.shape).astype(np.int16)
        tensors["rope.table"] = np.where(own.random(turns.shape) < 0.2, corners, turns)
        tensors["rope.places"] = own.integers(0, count, (package.arch["tokens"], 2)).astype(np.uint8)
        meta["rotary"] = {"coordinates": count}
        meta["params"]["layers"] = [
            params | {key: max(1, params[key] - ROTATED_BITS) for key in ("q.shift", "k.shift")}
            for params in meta["params"]["layers"]
        ]
    found = ModelPackage(meta, tensors)
    (own,) = rng.spawn(1)
    if own.random() < 0.3 and rotary:
        found = with_gates(own, found)
    found.check("varied")
    return found
