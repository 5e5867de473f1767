# SPDX-License-Identifier: Apache-2.0
"""The float network in plain NumPy, for boards that have neither PyTorch nor onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rowvit.formats.description import image_shape


class NumpyNetwork:
    """`VisionTransformer` with ReLU and the head on the class token, in float32; BLAS does the products.

    Parameters
    ----------
    architecture : dict
        Of a package's or program's description.
    pruning : list of {layer, keep}
    parameters : mapping of str to float32 arrays, optional
        By timm's names; random by default.
    """

    def __init__(
        self, architecture: dict, pruning: list[dict], parameters: Mapping[str, np.ndarray] | None = None
    ) -> None:
        self.arch, self.keep = architecture, {step["layer"]: step["keep"] for step in pruning}
        self.parameters = _random(architecture) if parameters is None else parameters

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits float32 [B, classes] of normalised images float32 [B, 3, H, W]."""
        p, arch = self.parameters, self.arch
        patch = arch["patch_size"]
        rows, columns = (side // patch for side in image_shape(arch))
        x = images.reshape(-1, 3, rows, patch, columns, patch).transpose(0, 2, 4, 1, 3, 5)
        x = (
            x.reshape(-1, rows * columns, 3 * patch**2)
            @ p["patch_embed.proj.weight"].reshape(arch["dim"], -1).T
        )
        x += p["patch_embed.proj.bias"]
        x = np.concatenate([np.broadcast_to(p["cls_token"], (len(x), *p["cls_token"].shape[1:])), x], axis=1)
        x = x + p["pos_embed"]
        for layer in range(arch["depth"]):
            x = self._block(x, f"blocks.{layer}.", self.keep.get(layer))
        return self._linear(self._norm(x[:, 0], "norm."), "head.")

    def _block(self, x: np.ndarray, name: str, keep: int | None) -> np.ndarray:
        count, tokens, dim = x.shape
        heads = self.arch["heads"]
        qkv = self._linear(self._norm(x, f"{name}norm1."), f"{name}attn.qkv.")
        q, k, v = qkv.reshape(count, tokens, 3, heads, -1).transpose(2, 0, 3, 1, 4)
        scores = q @ k.transpose(0, 1, 3, 2) * np.float32((dim // heads) ** -0.5)
        attention = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attention /= attention.sum(axis=-1, keepdims=True)
        mixed = (attention @ v).transpose(0, 2, 1, 3).reshape(count, tokens, dim)
        x = x + self._linear(mixed, f"{name}attn.proj.")
        if keep is not None and keep < tokens - 1:
            score = _token_scores(attention[:, :, 0])[:, 1:]
            best = np.sort(np.argsort(-score, axis=1, kind="stable")[:, :keep], axis=1) + 1
            rows = np.concatenate([np.zeros((count, 1), best.dtype), best], axis=1)
            x = np.take_along_axis(x, rows[..., None], axis=1)
        hidden = np.maximum(self._linear(self._norm(x, f"{name}norm2."), f"{name}mlp.fc1."), 0)
        return x + self._linear(hidden, f"{name}mlp.fc2.")

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.parameters[f"{name}weight"].T + self.parameters[f"{name}bias"]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(1e-6))
        return centred * scale * self.parameters[f"{name}weight"] + self.parameters[f"{name}bias"]


def _token_scores(attention: np.ndarray) -> np.ndarray:
    """As `rowvit.model.vit.token_scores`, which rounds as the accelerator does."""
    share = attention / attention.max(axis=-1, keepdims=True)
    distance = np.rint(-32 * np.log2(np.maximum(share, np.float32(2.0**-127))))
    octave = np.floor(distance / 32)
    e = np.rint(255 * np.exp2(octave - distance / 32)) * np.exp2(-octave)
    rounded = np.floor(2**20 * e / np.rint(255 * share).sum(axis=-1, keepdims=True)) / 2**20
    found: np.ndarray = rounded.mean(axis=1)
    return found


def _random(arch: dict) -> dict[str, np.ndarray]:
    """Seeded parameters of about the size of trained ones."""
    dim, hidden, patch = arch["dim"], arch["hidden"], arch["patch_size"]
    shapes = {
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "cls_token": (1, arch["prefix"], dim),
        "pos_embed": (1, arch["tokens"], dim),
        "head.weight": (arch["classes"], dim),
    }
    for layer in range(arch["depth"]):
        block = f"blocks.{layer}."
        shapes |= {f"{block}attn.qkv.weight": (3 * dim, dim), f"{block}attn.proj.weight": (dim, dim)}
        shapes |= {f"{block}mlp.fc1.weight": (hidden, dim), f"{block}mlp.fc2.weight": (dim, hidden)}
    rng = np.random.default_rng(0)
    found = {
        name: np.float32(0.02) * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()
    }
    norms = ["norm.", *(f"blocks.{layer}.norm{i}." for layer in range(arch["depth"]) for i in (1, 2))]
    found |= {f"{name}weight": np.ones(dim, np.float32) for name in norms}
    weights = [name for name in found if name.endswith("weight")]
    return found | {n.replace("weight", "bias"): np.zeros(len(found[n]), np.float32) for n in weights}
