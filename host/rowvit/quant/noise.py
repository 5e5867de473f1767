# SPDX-License-Identifier: Apache-2.0
"""Where quantisation hurts: the signal-to-noise ratio of every layer, in dB."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from rowvit.formats.package import LINEARS, ModelPackage
from rowvit.formats.tokens import count, layers, normalised
from rowvit.model.prune import changed
from rowvit.model.vit import VisionTransformer, predict
from rowvit.quant.aware import activation_levels
from rowvit.quant.calibrate import ActivationStatistics, decibels
from rowvit.reference import ImageResult, patchify, run

ACTIVATIONS = ("norm1", "q", "k", "v", "o", "norm2", "hidden")
_BATCH = 16


@dataclass(frozen=True)
class LayerNoise:
    """Signal-to-noise ratios of one layer, in dB.

    ``attention`` and ``ffn`` are those of the integer network's residual stream against the float network's,
    including the error of all earlier layers. "embed", "logits" and "tokens" have only ``ffn``.
    """

    layer: str  #: "embed", the layer's number from 0, "logits", or "tokens" behind the last layer
    activations: dict[str, float]  #: of rounding and clipping alone, per activation
    weights: float | None  #: of rounding alone, in the worst of a block's matrices
    attention: float | None
    ffn: float


def layer_noise(model: VisionTransformer, package: ModelPackage, photos: np.ndarray) -> list[LayerNoise]:
    """Compare a float network with its package, both without token pruning so that rows correspond.

    Thresholds of the hidden activations are no noise: both have the package's.

    Parameters
    ----------
    model : VisionTransformer
        The network that the package was made from.
    package : ModelPackage
    photos : uint8 array [B, S, S, 3]
    """
    scales, preprocessing = package.meta["scales"], package.meta["preprocessing"]
    dense = changed(model, pruning=(), thresholds=_thresholds(model, package))
    config = dense.config
    integers = ModelPackage(package.meta | {"pruning": []}, package.tensors)
    statistics = ActivationStatistics()
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
    last = config.depth - 1
    for first in range(0, len(photos), _BATCH):
        part = photos[first : first + _BATCH]
        seen: dict[str, np.ndarray] = {}

        def observe(name: str, value: Tensor, seen: dict[str, np.ndarray] = seen) -> None:
            statistics.observe(name, value)
            if name.endswith((".attn", ".ffn")) or name == "embed" or (name == "logits" and config.classes):
                seen[name] = value.numpy()
            if name == f"layers.{config.depth - 1}.ffn" and last in layers(package.meta):
                tokens = dense.norm(value) if normalised(package.meta) else value
                seen["tokens"] = tokens[:, : count(package.meta, value.shape[1])].numpy()

        predict(dense, part, preprocessing["mean"], preprocessing["std"], len(part), observe)
        found = run(integers, patchify(part, package.arch["patch_size"]), checkpoints=True)
        for name, exact in seen.items():
            unit = scales.get("logit", 1.0) if name == "logits" else scales.get(name, scales["residual"])
            ours = np.stack([_state(result, name, last) for result in found]) * unit
            sums[name] += np.square(exact, dtype=np.float64).sum(), np.square(exact - ours).sum()
    rows = [LayerNoise("embed", {}, None, None, decibels(*sums["embed"]))]
    for i in range(config.depth):
        name = f"layers.{i}"
        rounded = {
            part: statistics.noise(
                f"{name}.{part}", scales[f"{name}.{part}"], activation_levels(model, f"{name}.{part}")
            )
            for part in ACTIVATIONS
        }
        attention, ffn = (decibels(*sums[f"{name}.{part}"]) for part in ("attn", "ffn"))
        rows.append(LayerNoise(str(i), rounded, _weights(model, package, i), attention, ffn))
    rows += [
        LayerNoise(name, {}, None, None, decibels(*sums[name]))
        for name in ("logits", "tokens")
        if name in sums
    ]
    return rows


def _thresholds(model: VisionTransformer, package: ModelPackage) -> tuple[float, ...]:
    """A float network's, and where quantisation has chosen others, what is rounded to them."""
    own = model.config.thresholds or (0.0,) * model.config.depth
    found = []
    for i, threshold in enumerate(own):
        least = package.meta["params"]["layers"][i].get("thr", 1)
        found.append(threshold or (least - 0.5) * package.meta["scales"][f"layers.{i}.hidden"] * (least > 1))
    return tuple(found) if any(found) else ()


def _state(result: ImageResult, name: str, last: int) -> np.ndarray:
    """What was observed as ``name``, in integers."""
    if name == "logits":
        return result.logits
    return result.tokens[last].values if name == "tokens" else result.checkpoints[name]


def _weights(model: VisionTransformer, package: ModelPackage, layer: int) -> float:
    """The worst matrix of a block: float weights against the nearest multiple."""
    block = model.blocks[layer]
    matrices = dict(zip("qkv", block.attn.qkv.weight.chunk(3), strict=True))
    matrices |= {"proj": block.attn.proj.weight, "fc1": block.mlp.fc1.weight, "fc2": block.mlp.fc2.weight}
    return min(
        _rounded(matrices[name].detach().numpy(), package.tensors[f"layers.{layer}.{name}.weight"])
        for name in LINEARS
    )


def _rounded(exact: np.ndarray, integers: np.ndarray) -> float:
    """Float weights [out, in] against integers [in, out], each output channel in its best unit."""
    ours = integers.T.astype(np.float64)
    unit = (exact * ours).sum(axis=1) / np.maximum(np.square(ours).sum(axis=1), 1)
    return decibels(np.square(exact, dtype=np.float64).sum(), np.square(exact - ours * unit[:, None]).sum())
