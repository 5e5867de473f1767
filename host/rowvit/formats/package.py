# SPDX-License-Identifier: Apache-2.0
"""The model package: everything integer that a network needs, in one safetensors file.

``meta`` (the file's metadata key ``rowvit``, as JSON):

=================  ========================================================================================
format             1
name               name of the network
architecture       image_size, patch_size, channels, dim, depth, heads, hidden, classes, prefix, tokens
preprocessing      resize ("bicubic" or "bilinear"), mean and std of pixels in 0..1 (folded; informative)
classes            class names
pruning            list of {layer (0-based), keep (besides token 0), threshold (20 fraction bits)}
ffn2_rule          "none", "image" or "tile"; with "tile", ``tile_rows`` rows make a tile
ffn_chunk          hidden neurons per chunk of the second FFN layer
params             shifts and scalar multipliers: patch.shift, layers[i], norm.shift, head.shift
scales             float value of one unit of residual, logits, ... (informative)
licence, source    of the network, as its card has them
accuracy           measured accuracy, with its test set (informative)
history            what was done to the network, one line per step (optional)
hash               SHA-256 over all of the above and the tensors
=================  ========================================================================================

Tensors: patch.weight int8 [K, D] (k in the order py, px, channel), patch.mult uint16 [D], pos int16
[N, D]; per layer ``layers.{i}.``: norm1 and norm2 (.g int16, .b int32 [D]), q, k, v, proj, fc1, fc2
(.weight int8 [in, out], .bias int32 [out], .mult uint16 [out]); norm (.g, .b), head (.weight, .bias,
.mult). Head h of attention owns channels h*hd .. (h+1)*hd-1 of q, k and v.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rowvit.errors import RowvitError
from rowvit.formats import container

FORMAT = 1
MAX_K = 1024
BIAS_LIMIT = 1 << 25  # biases have 26 bits
RULES = ("none", "image", "tile")
LINEARS = ("q", "k", "v", "proj", "fc1", "fc2")
#: scalar parameters: name -> (lowest, highest)
NETWORK_PARAMS = {"patch.shift": (1, 40), "norm.shift": (0, 31), "head.shift": (1, 40)}
LAYER_PARAMS = {
    "norm1.shift": (0, 31),
    "q.shift": (1, 40),
    "k.shift": (1, 40),
    "v.shift": (1, 40),
    "s_mult": (0, 65535),
    "s_shift": (1, 40),
    "pv_shift": (8, 16),
    "proj.shift": (1, 40),
    "norm2.shift": (0, 31),
    "fc1.shift": (1, 40),
    "thr": (1, 255),
    "fc2.shift": (1, 40),
}


def tensor_table(arch: dict[str, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every tensor of a package: name -> (dtype, shape)."""
    dim, hidden, classes = arch["dim"], arch["hidden"], arch["classes"]
    patch_k = arch["channels"] * arch["patch_size"] ** 2
    table: dict[str, tuple[str, tuple[int, ...]]] = {
        "patch.weight": ("int8", (patch_k, dim)),
        "patch.mult": ("uint16", (dim,)),
        "pos": ("int16", (arch["tokens"], dim)),
    }

    def norm(name: str) -> None:
        table[f"{name}.g"] = ("int16", (dim,))
        table[f"{name}.b"] = ("int32", (dim,))

    def linear(name: str, k: int, out: int) -> None:
        table[f"{name}.weight"] = ("int8", (k, out))
        table[f"{name}.bias"] = ("int32", (out,))
        table[f"{name}.mult"] = ("uint16", (out,))

    for i in range(arch["depth"]):
        norm(f"layers.{i}.norm1")
        for name in ("q", "k", "v", "proj"):
            linear(f"layers.{i}.{name}", dim, dim)
        norm(f"layers.{i}.norm2")
        linear(f"layers.{i}.fc1", dim, hidden)
        linear(f"layers.{i}.fc2", hidden, dim)
    norm("norm")
    linear("head", dim, classes)
    return table


def keep_schedule(patches: int, layers: Sequence[int], rho: float | Sequence[float]) -> list[dict]:
    """A token schedule, as in a package's ``pruning``.

    With one number, EViT's: each of ``layers`` keeps ``ceil(patches * rho)`` of the patches that it sees.
    Several are the shares of all patches that are left behind each of them, rounded to whole patches.
    """
    if isinstance(rho, Sequence):
        kept = [round(patches * share) for share in rho]
    else:
        kept = []
        for _ in layers:
            patches = math.ceil(patches * rho)
            kept.append(patches)
    return [{"layer": layer, "keep": keep, "threshold": 0} for layer, keep in zip(layers, kept, strict=True)]


@dataclass
class ModelPackage:
    """An integer network: metadata, whose ``hash`` `save` computes, and tensors, as described above."""

    meta: dict
    tensors: dict[str, np.ndarray]

    @property
    def arch(self) -> dict[str, int]:
        """``meta["architecture"]``."""
        return self.meta["architecture"]

    def digest(self) -> str:
        """SHA-256 over the metadata (without ``hash``) and all tensors, as 64 hex digits."""
        meta = {key: value for key, value in self.meta.items() if key != "hash"}
        sha = hashlib.sha256(json.dumps(meta, sort_keys=True, separators=(",", ":")).encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name]
            sha.update(f"\n{name} {tensor.dtype.name} {list(tensor.shape)}\n".encode())
            sha.update(np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).tobytes())
        return sha.hexdigest()

    def save(self, path: str | os.PathLike) -> None:
        """Check the package, set its hash and write it; `RowvitError` if a check or the writing fails."""
        self.check(str(path))
        self.meta["hash"] = self.digest()
        container.write(path, self.tensors, {"rowvit": json.dumps(self.meta, sort_keys=True)})

    @classmethod
    def load(cls, path: str | os.PathLike) -> ModelPackage:
        """Read and check a package.

        `RowvitError` if the file is missing, truncated, not a package, changed since it was written, or holds
        values outside the ranges of numerics.md.
        """
        tensors, metadata = container.read(path)
        if "rowvit" not in metadata:
            raise RowvitError(f"{path}: not a rowvit package", "make one with rowvit quantise")
        try:
            meta = json.loads(metadata["rowvit"])
            version = meta["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise RowvitError(f"{path}: the package's description is not readable") from error
        if version != FORMAT:
            raise RowvitError(
                f"{path}: package format {version}, but this rowvit reads {FORMAT}", "make the package again"
            )
        package = cls(meta, tensors)
        if meta.get("hash") != package.digest():
            raise RowvitError(f"{path}: the contents do not match their hash", "copy or make the file again")
        package.check(str(path))
        return package

    def check(self, name: str = "package") -> None:
        """Check structure and ranges; `RowvitError`, which starts with ``name``, if a check fails."""
        try:
            self._check_meta()
            self._check_tensors()
        except KeyError as error:
            raise RowvitError(f"{name}: the description lacks {error.args[0]!r}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise RowvitError(f"{name}: {error}") from error

    def _check_meta(self) -> None:
        meta, arch = self.meta, self.arch
        for key in ("channels", "dim", "depth", "heads", "hidden", "classes", "prefix", "tokens"):
            if type(arch[key]) is not int or arch[key] < 1:
                raise ValueError(f"architecture.{key} is {arch[key]!r}, not a positive integer")
        grid = arch["image_size"] // arch["patch_size"]
        if arch["image_size"] % arch["patch_size"] or arch["tokens"] != arch["prefix"] + grid * grid:
            raise ValueError("architecture: image size, patch size, prefix and tokens do not agree")
        if arch["dim"] % arch["heads"]:
            raise ValueError("architecture: dim is not a multiple of heads")
        if arch["heads"] > 15:
            raise ValueError("architecture: more than 15 heads overflow the token scores")
        for key, value in (("dim", arch["dim"]), ("a patch", arch["channels"] * arch["patch_size"] ** 2)):
            if value > MAX_K:
                raise ValueError(f"architecture: {key} of {value} scalars overflows; the limit is {MAX_K}")
        if meta["ffn2_rule"] not in RULES:
            raise ValueError(f"ffn2_rule is {meta['ffn2_rule']!r}, not one of {', '.join(RULES)}")
        if meta["ffn2_rule"] == "tile" and meta["tile_rows"] < 1:
            raise ValueError("tile_rows is below 1")
        if not 1 <= meta["ffn_chunk"] <= MAX_K:
            raise ValueError(f"ffn_chunk {meta['ffn_chunk']} is not in 1..{MAX_K}")
        if len(meta["classes"]) != arch["classes"]:
            raise ValueError(f"{len(meta['classes'])} class names for {arch['classes']} classes")
        last = -1
        for step in meta["pruning"]:
            if not last < step["layer"] < arch["depth"]:
                raise ValueError(f"pruning layer {step['layer']} is not ascending in 0..{arch['depth'] - 1}")
            if not 0 <= step["keep"] < 1 << 16 or not 0 <= step["threshold"] < 1 << 24:
                raise ValueError(f"pruning in layer {step['layer']}: keep or threshold out of range")
            last = step["layer"]
        params = meta["params"]
        if len(params["layers"]) != arch["depth"]:
            raise ValueError(f"params of {len(params['layers'])} layers for depth {arch['depth']}")
        ranges = [(params, key, limits) for key, limits in NETWORK_PARAMS.items()]
        ranges += [(layer, key, limits) for layer in params["layers"] for key, limits in LAYER_PARAMS.items()]
        for where, key, (low, high) in ranges:
            if type(where[key]) is not int or not low <= where[key] <= high:
                raise ValueError(f"parameter {key} is {where[key]!r}, not an integer in {low}..{high}")

    def _check_tensors(self) -> None:
        table = tensor_table(self.arch)
        if table.keys() != self.tensors.keys():
            odd = sorted(table.keys() ^ self.tensors.keys())
            raise ValueError(f"tensors missing or unexpected: {', '.join(odd[:5])}")
        for name, (dtype, shape) in table.items():
            tensor = self.tensors[name]
            if tensor.dtype != dtype or tensor.shape != shape:
                raise ValueError(
                    f"tensor {name} is {tensor.dtype} {list(tensor.shape)}, not {dtype} {list(shape)}"
                )
            if name.endswith(".weight") and tensor.min() < -127:
                raise ValueError(f"tensor {name} holds -128; weights are in [-127, 127]")
            if name.endswith(".bias") and not -BIAS_LIMIT <= tensor.min() <= tensor.max() < BIAS_LIMIT:
                raise ValueError(f"tensor {name} exceeds the 26 bits of a bias")
