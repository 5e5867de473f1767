# SPDX-License-Identifier: Apache-2.0
"""The float network: a vision transformer with timm's parameter names, token pruning and ReLU.

Token pruning is EViT's without the fused token: after attention and its residual of a pruning
block, the class token and the ``keep`` patch tokens with the greatest attention of the class token,
averaged over heads, go on to the FFN of the same block. PyTorch is needed here and in the
quantiser only.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rowvit import container
from rowvit.errors import RowvitError

#: called with a name such as "layers.0.q" and the activation
Observer = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class ViTConfig:
    """Architecture of the float network.

    Parameters
    ----------
    image_size, patch_size : int
        In pixels; images and patches are square.
    dim, depth, heads, hidden, classes : int
    act : str
        "relu" or "gelu"; only ReLU networks can be quantised.
    pruning : tuple of {layer (0-based), keep}
    ffn2_rule : str
        "none", "image" or "tile" (with ``tile_rows``): which rows of W2 count as fetched. None of
        them changes a result.
    tile_rows : int
    thresholds : tuple of float
        Per layer, hidden activations below it are dropped (lossy); empty for none.
    """

    image_size: int
    patch_size: int
    dim: int
    depth: int
    heads: int
    hidden: int
    classes: int
    act: str = "relu"
    pruning: tuple[dict, ...] = ()
    ffn2_rule: str = "none"
    tile_rows: int = 16
    thresholds: tuple[float, ...] = ()

    @property
    def tokens(self) -> int:
        """Patches and the class token."""
        return 1 + (self.image_size // self.patch_size) ** 2


def _ignore(name: str, value: Tensor) -> None:
    """The observer of those who do not observe."""


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.dim, config.patch_size, config.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention that also returns the class token's attention, averaged over heads."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, observe: Observer, name: str) -> tuple[Tensor, Tensor]:
        batch, n, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        for part, value in zip("qkv", (q, k, v), strict=True):
            observe(f"{name}.{part}", value)
        attention = (q @ k.transpose(-1, -2) / math.sqrt(dim // self.heads)).softmax(dim=-1)
        o = (attention @ v).transpose(1, 2).reshape(batch, n, dim)
        observe(f"{name}.o", o)
        return self.proj(o), attention[:, :, 0].mean(dim=1)


class Mlp(nn.Module):
    """The two FFN layers; counts the rows of the second that the FFN2 rule fetches."""

    def __init__(self, config: ViTConfig, layer: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.dim, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.dim)
        self.act = {"relu": nn.functional.relu, "gelu": nn.functional.gelu}[config.act]
        self.threshold = config.thresholds[layer] if config.thresholds else 0.0
        self.rule, self.tile_rows = config.ffn2_rule, config.tile_rows
        self.rows_fetched = self.rows_total = 0

    def forward(self, x: Tensor, observe: Observer, name: str) -> Tensor:
        h = self.act(self.fc1(x))
        observe(f"{name}.hidden", h)
        if self.threshold > 0:
            h = torch.where(h < self.threshold, 0.0, h)
        self._count(h)
        return self.fc2(h)

    def _count(self, h: Tensor) -> None:
        tiles = h.split(self.tile_rows if self.rule == "tile" else h.shape[1], dim=1)
        self.rows_total += len(tiles) * h.shape[0] * h.shape[2]
        if self.rule == "none":
            self.rows_fetched = self.rows_total
        else:
            self.rows_fetched += sum(int((tile != 0).any(dim=1).sum()) for tile in tiles)


class Block(nn.Module):
    """Attention, token pruning if ``keep`` is given, FFN."""

    def __init__(self, config: ViTConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=1e-6)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.dim, eps=1e-6)
        self.mlp = Mlp(config, layer)
        self.keep = next((step["keep"] for step in config.pruning if step["layer"] == layer), None)

    def forward(self, x: Tensor, tokens: Tensor, observe: Observer, name: str) -> tuple[Tensor, Tensor]:
        normed = self.norm1(x)
        observe(f"{name}.norm1", normed)
        y, score = self.attn(normed, observe, name)
        x = x + y
        if self.keep is not None and self.keep < x.shape[1] - 1:
            best = score[:, 1:].topk(self.keep, dim=1).indices.sort(dim=1).values + 1
            rows = torch.cat([torch.zeros_like(best[:, :1]), best], dim=1)
            x = x.gather(1, rows[..., None].expand(-1, -1, x.shape[2]))
            tokens = tokens.gather(1, rows)
        observe(f"{name}.attn", x)
        normed = self.norm2(x)
        observe(f"{name}.norm2", normed)
        x = x + self.mlp(normed, observe, name)
        observe(f"{name}.ffn", x)
        return x, tokens


class VisionTransformer(nn.Module):
    """The float network; parameters have timm's names.

    Parameters
    ----------
    config : ViTConfig
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.dim))
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.head = nn.Linear(config.dim, config.classes)
        self.tokens = torch.empty(0)  # original indices [B, live] of the tokens that reached the end

    def forward(self, images: Tensor, observe: Observer = _ignore) -> Tensor:
        """Logits [B, classes] of normalised images [B, 3, S, S]."""
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        observe("embed", x)
        tokens = torch.arange(x.shape[1]).expand(len(x), -1)
        for layer, block in enumerate(self.blocks):
            x, tokens = block(x, tokens, observe, f"layers.{layer}")
        self.tokens = tokens
        normed = self.norm(x[:, 0])
        observe("norm", normed)
        logits = self.head(normed)
        observe("logits", logits)
        return logits


def normalise(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images uint8 [B, S, S, 3] to the float network's input [B, 3, S, S]; mean and std of pixels in 0..1."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def predict(
    model: VisionTransformer,
    images: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    batch: int = 32,
    observe: Observer = _ignore,
) -> np.ndarray:
    """Logits float32 [B, classes] of images uint8 [B, S, S, 3]."""
    model.eval()
    with torch.inference_mode():
        parts = [
            model(normalise(images[first : first + batch], mean, std), observe)
            for first in range(0, len(images), batch)
        ]
    return torch.cat(parts).numpy()


def read_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """State dict of a .safetensors, .pth, .pt or .bin file.

    Raises
    ------
    RowvitError
        If the file cannot be read or holds no state dict.
    """
    if str(path).endswith(".safetensors"):
        return {name: torch.from_numpy(tensor.copy()) for name, tensor in container.read(path)[0].items()}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a foreign file
        raise RowvitError(f"{path}: PyTorch cannot read it as a checkpoint of weights alone.") from error
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise RowvitError(f"{path}: holds no state dict; save model.state_dict().")
    return dict(state)


def from_timm(
    state: Mapping[str, Tensor], heads: int, act: str = "relu", **options: object
) -> VisionTransformer:
    """Build the network that fits a state dict of timm's VisionTransformer.

    LayerScale is folded into the layers before it; a missing QKV bias becomes zero.

    Parameters
    ----------
    state : mapping of tensors
        Names and shapes as in timm; class token, learnt position table, linear head.
    heads : int
        Not to be seen in a state dict.
    act : str
        "relu" or "gelu".
    **options
        Further fields of `ViTConfig`, such as ``pruning``.

    Raises
    ------
    RowvitError
        If a tensor is missing, unexpected or of the wrong shape.
    """
    state = {name: tensor.detach().float() for name, tensor in state.items()}
    for key in ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight", "head.weight"):
        if key not in state:
            raise RowvitError(
                f"The state dict lacks {key!r}; expected a timm VisionTransformer with a linear head."
            )
    dim, channels, patch, _ = state["patch_embed.proj.weight"].shape
    tokens = state["pos_embed"].shape[1]
    grid = math.isqrt(tokens - 1)
    if channels != 3 or grid * grid != tokens - 1:
        raise RowvitError(
            f"The state dict has {channels} channels and {tokens} positions; "
            "expected 3 channels and a square grid of patches with one class token."
        )
    if heads < 1 or dim % heads:
        raise RowvitError(f"{heads} heads do not divide the width {dim}; give the network's number of heads.")
    if act not in ("relu", "gelu"):
        raise RowvitError(f"Activation {act!r} is not known; use 'relu' or 'gelu'.")
    depth = 1 + max(int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name)))
    _fold_layer_scale(state, depth)
    config = ViTConfig(
        image_size=grid * patch,
        patch_size=patch,
        dim=dim,
        depth=depth,
        heads=heads,
        hidden=state["blocks.0.mlp.fc1.weight"].shape[0],
        classes=state["head.weight"].shape[0],
        act=act,
        **options,
    )
    model = VisionTransformer(config)
    for block in range(depth):
        state.setdefault(f"blocks.{block}.attn.qkv.bias", torch.zeros(3 * dim))
    expected = model.state_dict()
    missing, odd = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or odd:
        what = f"lacks {missing[0]!r}" if missing else f"has {odd[0]!r}, which this network has no place for"
        raise RowvitError(f"The state dict {what} ({len(missing)} missing, {len(odd)} unexpected).")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise RowvitError(
                f"Tensor {name!r} has shape {list(state[name].shape)}, expected {list(tensor.shape)}."
            )
    model.load_state_dict(state)
    return model.eval()


def _fold_layer_scale(state: dict[str, Tensor], depth: int) -> None:
    for block in range(depth):
        for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            gamma = state.pop(f"blocks.{block}.{scale}.gamma", None)
            if gamma is not None:
                for part, factor in (("weight", gamma[:, None]), ("bias", gamma)):
                    state[f"blocks.{block}.{layer}.{part}"] = state[f"blocks.{block}.{layer}.{part}"] * factor
