# SPDX-License-Identifier: Apache-2.0
"""A model package as a float network, to train on: what its integers stand for, by its units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.model.store import Card, load_state
from rowvit.model.vit import VisionTransformer, ViTConfig

#: what a package may have that is read from the float network alone
_BEYOND = {
    "rotary": "rotary positions",
    "gated": "a gated FFN",
    "pre_norm": "a LayerNorm before its blocks",
    "host_head": "a head that the host computes",
    "row_heads": "heads of rows",
}
_ADVICE = "import what it was made of"


def of_package(package: ModelPackage, source: str) -> tuple[VisionTransformer, Card]:
    """The float network whose integers a package is, with its pruning, its thresholds and its FFN2 rule.

    Weights have the package's 8 bits, and the class token is part of its position. A package without classes
    becomes a network without a head.

    Raises
    ------
    RowvitError
        The package has parts that are not read back, or does not name a unit; starts with ``source``.
    """
    meta = package.meta
    if beyond := next((text for key, text in _BEYOND.items() if key in meta), None):
        raise RowvitError(f"{source}: is quantised, and has {beyond}", _ADVICE)
    try:
        model = VisionTransformer(_config(meta))
        state = _state(_Reals(package), meta)
    except KeyError as error:
        raise RowvitError(f"{source}: is quantised, and does not say the unit {error}", _ADVICE) from error
    load_state(model, {name: torch.from_numpy(value).float() for name, value in state.items()}, source)
    taken = meta["preprocessing"]
    card = Card(
        meta["name"],
        list(meta["classes"]),
        mean=list(taken["mean"]),
        std=list(taken["std"]),
        resize=taken["resize"],
        crop=taken.get("crop", 1.0),
        licence=meta.get("licence", ""),
        source=meta.get("source", ""),
        history=list(meta.get("history", [])),
    )
    return model.eval(), card


def _config(meta: Mapping[str, Any]) -> ViTConfig:
    arch = meta["architecture"]
    levels = [layer["thr"] for layer in meta["params"]["layers"]]
    units = [meta["scales"][f"layers.{layer}.hidden"] for layer in range(arch["depth"])]
    # where rounding to a level begins
    lowest = tuple(
        (level - 0.5) * unit if level > 1 else 0.0 for level, unit in zip(levels, units, strict=True)
    )
    sizes = ("image_size", "patch_size", "dim", "depth", "heads", "hidden", "classes", "prefix")
    return ViTConfig(
        **{key: arch[key] for key in sizes},
        image_width=arch.get("image_width", 0),
        pool="token" if arch["prefix"] else "norm-mean",  # of no class token: there is no head
        pruning=tuple(
            {key: value for key, value in step.items() if key != "threshold" or value}
            for step in meta["pruning"]
        ),
        ffn2_rule=meta["ffn2_rule"],
        tile_rows=meta["tile_rows"],
        thresholds=lowest if any(lowest) else (),
    )


class _Reals:
    """Layers of a package in real numbers."""

    def __init__(self, package: ModelPackage) -> None:
        self.tensors, self.units = package.tensors, package.meta["scales"]

    def norm(self, name: str, shift: int, y: str) -> dict[str, NDArray[Any]]:
        """Weight and bias [D] of a LayerNorm whose result has the unit ``y``."""
        unit = self.units[y] * 2.0**-shift
        gain, offset = (self.tensors[f"{name}.{part}"] * unit for part in "gb")
        return {"weight": 1024 * gain, "bias": offset}  # z has 10 fraction bits

    def linear(self, name: str, shift: int, x: str, y: str) -> dict[str, NDArray[Any]]:
        """Weight [out, in] and bias [out] of a linear layer from the unit ``x`` to ``y``."""
        factor = self.tensors[f"{name}.mult"] * 2.0**-shift * self.units[y]
        weight = (self.tensors[f"{name}.weight"] * factor).T / self.units[x]
        return {"weight": weight, "bias": self.tensors[f"{name}.bias"] * factor}

    def embedding(self, shift: int, taken: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The patch embedding's weight [D, 3, P, P] and bias [D], for pixels less mean, over std."""
        factor = self.tensors["patch.mult"] * 2.0**-shift * self.units["residual"]
        weight = (
            self.tensors["patch.weight"] * factor
        ).T  # of pixels less 128, of a row of pixels after the other
        mean, std = (255 * np.array(taken[key]) for key in ("mean", "std"))
        by_colour = weight.reshape(len(weight), -1, len(mean))
        side = round(by_colour.shape[1] ** 0.5)
        scaled = (by_colour * std).reshape(len(weight), side, side, -1).transpose(0, 3, 1, 2)
        return {"weight": scaled.copy(), "bias": by_colour.sum(axis=1) @ (mean - 128)}


def _state(reals: _Reals, meta: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    arch, params = meta["architecture"], meta["params"]
    found: dict[str, NDArray[Any]] = {
        "cls_token": np.zeros((1, arch["prefix"], arch["dim"])),
        "pos_embed": reals.tensors["pos"][None] * reals.units["residual"],
    }

    def put(target: str, parts: Mapping[str, NDArray[Any]]) -> None:
        found.update({f"{target}.{part}": value for part, value in parts.items()})

    put("patch_embed.proj", reals.embedding(params["patch.shift"], meta["preprocessing"]))
    for number, shifts in enumerate(params["layers"]):
        layer, block = f"layers.{number}", f"blocks.{number}"
        for norm in ("norm1", "norm2"):
            put(f"{block}.{norm}", reals.norm(f"{layer}.{norm}", shifts[f"{norm}.shift"], f"{layer}.{norm}"))
        qkv = [
            reals.linear(f"{layer}.{part}", shifts[f"{part}.shift"], f"{layer}.norm1", f"{layer}.{part}")
            for part in ("q", "k", "v")
        ]
        put(f"{block}.attn.qkv", {part: np.concatenate([one[part] for one in qkv]) for part in qkv[0]})
        for name, target, x, y in (
            ("proj", "attn.proj", f"{layer}.o", "residual"),
            ("fc1", "mlp.fc1", f"{layer}.norm2", f"{layer}.hidden"),
            ("fc2", "mlp.fc2", f"{layer}.hidden", "residual"),
        ):
            put(f"{block}.{target}", reals.linear(f"{layer}.{name}", shifts[f"{name}.shift"], x, y))
    if arch["classes"]:
        put("norm", reals.norm("norm", params["norm.shift"], "norm"))
        put("head", reals.linear("head", params["head.shift"], "norm", "logit"))
    elif "shift" in meta["tokens"]:
        put("norm", reals.norm("tokens", meta["tokens"]["shift"], "tokens"))
    else:
        raise KeyError("tokens")  # a LayerNorm of the patches' mean, which the package has not
    return found
