# SPDX-License-Identifier: Apache-2.0
"""The float network: a vision transformer with timm's parameter names, token pruning and ReLU.

Token pruning is EViT's without the fused token: after attention and its residual of a pruning
block, the class token and the ``keep`` patch tokens that the class token attends to most, averaged over
heads, continue to the FFN of the same block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rowvit.errors import RowvitError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "gelu_tanh": partial(nn.functional.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),  # OpenAI's CLIP
    "silu": nn.functional.silu,
}
POOLS = ("token", "mean", "norm-mean", "class-mean", "attention")
#: arguments at which activation functions are compared
GRID = np.linspace(-12.0, 12.0, 2401)


def activation_name(values: np.ndarray) -> str | None:
    """The key of `ACTIVATIONS` whose function is closest to these values on `GRID`, if within 1e-3."""
    inputs = torch.from_numpy(GRID)
    # constants in half precision put GELU off by 1e-4; its two forms differ by 5e-4
    distance = {name: np.abs(f(inputs).numpy() - values).max() for name, f in ACTIVATIONS.items()}
    nearest = min(distance, key=distance.__getitem__)
    return nearest if distance[nearest] < 1e-3 else None


#: called with a name such as "layers.0.q" and the activation
Observer = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class RowHeads:
    """Heads that answer for each of some tokens, behind the last LayerNorm."""

    rows: str  #: "patches", or "prefix": the prefix tokens behind the class token
    names: tuple[str, ...]  #: for each of which there is a score
    layers: int = 1  #: linear ones, with ReLU between them and the network's width
    boxes: bool = False  #: whether there is a box as well: middle (x, y), width, height, in 0..1


@dataclass(frozen=True)
class ViTConfig:
    """Architecture of the float network.

    Raises
    ------
    RowvitError
        If the values contradict each other.
    """

    image_size: int  #: pixels per side of the square image, or the height of a rectangle
    patch_size: int  #: pixels per side of a patch
    dim: int
    depth: int
    heads: int
    hidden: int
    classes: int  #: 0: no head, the network ends in features
    act: str = "relu"  #: a key of `ACTIVATIONS`; only ReLU networks can be quantised
    pruning: tuple[dict, ...] = ()  #: {layer (0-based), keep}
    #: "none", "image" or "tile" (with ``tile_rows``): which rows of W2 count as fetched; results are the same
    ffn2_rule: str = "none"
    tile_rows: int = 16
    #: per layer; hidden activations below it are dropped (lossy). Empty for none
    thresholds: tuple[float, ...] = ()
    prefix: int = 1  #: tokens before the patches: the class token, then a distillation token or registers
    #: what the head sees: "token", the class token after the final LayerNorm; "mean", that LayerNorm of the
    #: patches' mean; "norm-mean", the mean of the patches after it; "class-mean", that and the class token;
    #: "attention", what `AttentionPool` makes of all tokens after it
    pool: str = "token"
    #: a key of `ACTIVATIONS`: that of the pooling by attention
    pool_act: str = field(default="gelu_tanh", repr=False)
    distilled: bool = False  #: a second head on token 1; the logits are the mean of both (DeiT)
    eps: float = 1e-6  #: of every LayerNorm
    pre_norm: bool = False  #: a LayerNorm before the blocks (CLIP)
    row_heads: RowHeads | None = field(default=None, repr=False)  #: besides the head, or instead of it
    #: queries and keys are rotated by the places of their patches (`Rotary`)
    rotary: bool = field(default=False, repr=False)
    #: FFN1 has two channels for each hidden neuron, its gate, which ``act`` is of, and what that multiplies
    gated: bool = field(default=False, repr=False)
    #: of the image; 0 if it is as wide as high. Like other later fields not in repr, by which training
    #: knows its saved states
    image_width: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if self.image_width == self.image_size:
            object.__setattr__(self, "image_width", 0)  # a square has one description
        if isinstance(self.row_heads, dict):  # as a file has it
            object.__setattr__(
                self, "row_heads", RowHeads(**self.row_heads | {"names": tuple(self.row_heads["names"])})
            )
        for key in (
            "image_size",
            "image_width",
            "patch_size",
            "dim",
            "depth",
            "heads",
            "hidden",
            "classes",
            "prefix",
        ):
            if not is_whole(value := getattr(self, key)):
                raise RowvitError(f"not a valid network: {key} is {value!r}, no whole number")
        head_dim = self.dim // max(self.heads, 1)
        positive = ("image_size", "patch_size", "dim", "depth", "heads", "hidden")
        pixels = " x ".join(map(str, self.size)) if self.image_width else self.image_size
        problems = {f"{key} is {getattr(self, key)}": getattr(self, key) < 1 for key in positive} | {
            f"classes is {self.classes}": self.classes < 0,
            f"prefix is {self.prefix}": self.prefix < 0,
            f"eps is {self.eps}": not (is_number(self.eps) and self.eps > 0),
            "pruning is not a list of layers, each with what it keeps, from the first to the last": (
                not _is_pruning(self.pruning, self.depth)
            ),
            f"thresholds are not a number for each of {self.depth} layers": bool(self.thresholds)
            and not (len(self.thresholds) == self.depth and all(map(is_number, self.thresholds))),
            f"image_width is {self.image_width}": self.image_width < 0,
            f"the patch of {self.patch_size} does not divide the image of {pixels} pixels": any(
                side % max(self.patch_size, 1) for side in self.size
            ),
            f"{self.heads} heads do not divide the width {self.dim}": self.dim % max(self.heads, 1) != 0,
            f"rotary positions take four channels at a time, of {head_dim} that a head has": (
                self.rotary and head_dim % 4 != 0
            ),
            **{
                f"activation {act!r} is not one of {', '.join(ACTIVATIONS)}": act not in ACTIVATIONS
                for act in (self.act, self.pool_act)
            },
            f"pooling {self.pool!r} is not one of {', '.join(POOLS)}": self.pool not in POOLS,
            "heads of prefix tokens need some behind the class token, and all of them": self.row_heads
            is not None
            and self.row_heads.rows == "prefix"
            and (self.prefix < 2 or bool(self.pruning)),
            "heads of rows take tokens behind the last LayerNorm": self.row_heads is not None
            and self.pool == "mean",
            "pooling by attention is of patches alone": self.pool == "attention" and self.prefix > 0,
            "there is no class token for the head": self.pool in ("token", "class-mean") and self.prefix < 1,
            "there is no class token whose attention could rank the others": bool(self.pruning)
            and self.prefix < 1,
            "a gated FFN has no thresholds": self.gated and bool(self.thresholds),
            "two heads need a class and a distillation token": self.distilled
            and (self.prefix < 2 or self.pool != "token" or self.classes < 1),
        }
        for problem, found in problems.items():
            if found:
                raise RowvitError(f"not a valid network: {problem}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image, in pixels."""
        return self.image_size, self.image_width or self.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = (side // self.patch_size for side in self.size)
        return rows, columns

    @property
    def tokens(self) -> int:
        """Patches and prefix tokens."""
        return self.prefix + math.prod(self.grid)

    @property
    def head_on_host(self) -> bool:
        """Whether the host computes the head, in float, from tokens: it reads more than the class token."""
        return self.classes > 0 and self.pool != "token"

    @property
    def seen(self) -> int:
        """Numbers that the head sees."""
        return self.dim * (2 if self.pool == "class-mean" else 1)

    @property
    def exempt(self) -> int:
        """Leading tokens that pruning never drops, as a head or a mean relies on their position."""
        return self.prefix if self.distilled or self.pool != "token" else 1


def is_whole(value: object) -> bool:
    """Whether it is a whole number, and no truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a number that a float holds, and no truth value."""
    if isinstance(value, float | np.floating):
        return math.isfinite(value)
    return is_whole(value) and abs(value) < 2**63  # type: ignore[arg-type]


def _is_pruning(steps: Sequence[Any], depth: int) -> bool:
    """Whether each has a layer and what that keeps, and layers come one after the other."""
    if not all(isinstance(step, Mapping) and is_whole(step.get("layer")) for step in steps):
        return False
    if not all(is_whole(step.get("keep")) and step["keep"] >= 0 for step in steps):
        return False
    return all(a < b for a, b in pairwise([-1, *(step["layer"] for step in steps), depth]))


def _ignore(name: str, value: Tensor) -> None:
    """The observer that does nothing."""


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.dim, config.patch_size, config.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Rotary(nn.Module):
    """Rotary positions (RoPE) along two axes: angles by which pairs of channels of queries and keys turn.

    Channels 2p and 2p + 1 of a head turn by frequency p // 2 of their patch's row (p even) or column (p odd).
    ``rows`` [rows of patches, D / heads / 4] and ``columns`` hold the angles; prefix tokens do not turn.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.prefix = config.prefix
        for name, count in zip(("rows", "columns"), config.grid, strict=True):
            self.register_buffer(name, torch.zeros(count, config.dim // config.heads // 4))

    def forward(self, tokens: Tensor) -> Tensor:
        """Cosines and sines [B, 1, live, D / heads / 2, 2] for original indices [B, live]."""
        grid = len(self.rows), len(self.columns), -1
        both = self.rows[:, None].expand(grid), self.columns[None].expand(grid)
        angles = torch.stack(both, dim=-1).flatten(2).flatten(0, 1)
        angles = nn.functional.pad(angles, (0, 0, self.prefix, 0))[tokens]
        return torch.stack([angles.cos(), angles.sin()], dim=-1)[:, None]


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Pairs of channels of ``x`` [B, heads, N, D / heads], turned by what `Rotary` gives."""
    (even, odd), (cos, sin) = x.unflatten(-1, (-1, 2)).unbind(-1), turn.unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class Attention(nn.Module):
    """Multi-head self-attention that also returns the class token's attention, averaged over heads."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)

    def split(self, x: Tensor, turn: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, both rotated by ``turn``, and values of every head: [B, heads, N, D / heads]."""
        batch, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return (q, k, v) if turn is None else (rotate(q, turn), rotate(k, turn), v)

    def forward(
        self, x: Tensor, observe: Observer, name: str, turn: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        q, k, v = self.split(x, turn)
        for part, value in zip("qkv", (q, k, v), strict=True):
            observe(f"{name}.{part}", value)
        attention = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        o = (attention @ v).transpose(1, 2).flatten(2)
        observe(f"{name}.o", o)
        return self.proj(o), token_scores(attention[:, :, 0])


_TIE = 1e-12  # between neighbours of equal score; scores that differ do so by far more


def token_scores(attention: Tensor) -> Tensor:
    """Scores [B, live] by the class token's attention [B, heads, live], averaged over heads.

    They are rounded as on the accelerator (docs/numerics.md, section 7): a token's attention to 1/32 of
    a power of two below its head's largest, the head's sum to the 255 levels of its exponentials, and what
    is less than 2**-20 is cut off. Of equal scores the first stays. Gradients are the attention's.
    """
    share = attention / attention.amax(dim=-1, keepdim=True)
    distance = (-32 * share.clamp(min=2.0**-127).log2()).round()
    octave = (distance / 32).floor()
    # ONNX has no exp2
    e = (255 * torch.pow(2.0, octave - distance / 32)).round() * torch.pow(2.0, -octave)
    rounded = (2**20 * e / (255 * share).round().sum(dim=-1, keepdim=True)).floor() / 2**20
    return (attention + (rounded - attention).detach()).mean(dim=1)


class FusedAttention(Attention):
    """The same by PyTorch's fused kernel, faster but without scores: for blocks that do not prune."""

    def forward(
        self, x: Tensor, observe: Observer, name: str, turn: Tensor | None = None
    ) -> tuple[Tensor, None]:
        o = nn.functional.scaled_dot_product_attention(*self.split(x, turn))
        return self.proj(o.transpose(1, 2).flatten(2)), None


class Mlp(nn.Module):
    """The two FFN layers; channels 2f and 2f + 1 of a gated one are gate and value of hidden neuron f."""

    def __init__(self, config: ViTConfig, layer: int) -> None:
        super().__init__()
        self.gated = config.gated
        self.fc1 = nn.Linear(config.dim, config.hidden * (1 + config.gated))
        self.fc2 = nn.Linear(config.hidden, config.dim)
        self.act = ACTIVATIONS[config.act]
        self.threshold = config.thresholds[layer] if config.thresholds else 0.0

    def forward(self, x: Tensor, observe: Observer, name: str) -> Tensor:
        h = self.activate(self.fc1(x), observe, name)
        observe(f"{name}.hidden", h)
        return self.fc2(self.passed(h))

    def passed(self, h: Tensor) -> Tensor:
        """Hidden activations without those that the threshold drops."""
        return torch.where(h < self.threshold, 0.0, h) if self.threshold > 0 else h

    def activate(self, y: Tensor, observe: Observer = _ignore, name: str = "") -> Tensor:
        """Hidden activations [..., hidden] of the first layer's results."""
        if not self.gated:
            return self.act(y)
        gate, value = y.unflatten(-1, (-1, 2)).unbind(-1)
        for part, found in (("gate", gate.relu()), ("value", value)):  # negative gates end in 0, or near it
            observe(f"{name}.{part}", found)
        return self.act(gate) * value


def kept_rows(x: Tensor, prefix: int, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The ``prefix`` rows of ``x`` [B, N, D], those ``chosen`` [B, K] of the rest, and their indices."""
    first = torch.arange(prefix, device=x.device).expand(len(x), -1)
    rows = torch.cat([first, chosen.sort(dim=1).values + prefix], dim=1)
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[2])), rows


class Block(nn.Module):
    """Attention, token pruning if ``keep`` is given, FFN."""

    def __init__(self, config: ViTConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=config.eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.eps)
        self.mlp = Mlp(config, layer)
        self.keep = next((step["keep"] for step in config.pruning if step["layer"] == layer), None)
        self.exempt = config.exempt

    def forward(
        self, x: Tensor, observe: Observer = _ignore, name: str = "", turn: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Residual stream [B, live, D], and the rows [B, live] of ``x`` that it has; None if it has all.

        ``turn`` is what `Rotary` gives for the tokens of ``x``, if the network has it.
        """
        x, rows = self.attend(x, observe, name, turn)
        return self.feed(x, observe, name), rows

    def attend(
        self, x: Tensor, observe: Observer = _ignore, name: str = "", turn: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Attention and token pruning; arguments and results as of `forward`."""
        normed = self.norm1(x)
        observe(f"{name}.norm1", normed)
        y, score = self.attn(normed, observe, name, turn)
        x = x + y
        rows = None
        if self.keep is not None and score is not None and self.keep < x.shape[1] - self.exempt:
            # The first of equal scores stays: topk alone does not say which, and a stable sort has no ONNX.
            late = torch.arange(score.shape[1] - self.exempt, device=x.device) * _TIE
            best = (score[:, self.exempt :].detach().double() - late).topk(self.keep, dim=1).indices
            x, rows = kept_rows(x, self.exempt, best)
        observe(f"{name}.attn", x)
        return x, rows

    def feed(self, x: Tensor, observe: Observer = _ignore, name: str = "") -> Tensor:
        """FFN: residual stream [B, live, D]."""
        normed = self.norm2(x)
        observe(f"{name}.norm2", normed)
        x = x + self.mlp(normed, observe, name)
        observe(f"{name}.ffn", x)
        return x


class AttentionPool(nn.Module):
    """One query of its own attends to all tokens [B, N, D], and an FFN follows: [B, D] (SigLIP)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.latent = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.q = nn.Linear(config.dim, config.dim)
        self.kv = nn.Linear(config.dim, 2 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.mlp = Mlp(replace(config, act=config.pool_act, thresholds=(), gated=False), 0)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, dim = x.shape
        q = self.q(self.latent).expand(batch, -1, -1)
        q, k, v = (
            part.reshape(batch, -1, self.heads, dim // self.heads).transpose(1, 2)
            for part in (q, *self.kv(x).chunk(2, dim=-1))
        )
        y = self.proj(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))[:, 0]
        return y + self.mlp(self.norm(y), _ignore, "pool")


class VisionTransformer(nn.Module):
    """The float network; parameters have timm's names.

    ``cls_token`` [1, prefix, D] holds all prefix tokens, ``pos_embed`` [1, tokens, D] all positions.

    Parameters
    ----------
    config : ViTConfig
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, config.prefix, config.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.dim))
        self.norm_pre = nn.LayerNorm(config.dim, eps=config.eps) if config.pre_norm else nn.Identity()
        self.rope = Rotary(config) if config.rotary else None
        blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.blocks = cast("Sequence[Block]", blocks)
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.attn_pool = AttentionPool(config) if config.pool == "attention" else None
        self.head = nn.Linear(config.seen, config.classes) if config.classes else nn.Identity()
        self.head_dist = nn.Linear(config.dim, config.classes) if config.distilled else None
        self.row_heads = nn.ModuleDict(_row_heads(config))
        self.tokens = torch.empty(0)  # original indices [B, live] of the tokens that reached the end
        self.token_drop = 0.0  # share of the patch tokens that training leaves out, at random for each image

    def embed(self, images: Tensor, observe: Observer = _ignore) -> Tensor:
        """Residual stream [B, tokens, D] before the first block, for normalised images [B, 3, H, W]."""
        x = self.patch_embed(images)
        if self.config.prefix:  # onnxruntime mistakes the shape of one with none
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = x + self.pos_embed
        if self.config.pre_norm:
            x = self.norm_pre(x)
            observe("pre_norm", x)
        observe("embed", x)
        return x

    def encode(self, images: Tensor, observe: Observer = _ignore) -> Tensor:
        """Residual stream [B, live, D] after the last block, for normalised images [B, 3, H, W]."""
        x = self.embed(images, observe)
        tokens = self.all_tokens(x)
        if self.training and self.token_drop:
            x, tokens = self._drop(x)
        for layer in range(self.config.depth):
            x, tokens = self.step(layer, x, tokens, observe)
        self.tokens = tokens
        return x

    def all_tokens(self, x: Tensor) -> Tensor:
        """Original indices [B, tokens] of a residual stream [B, tokens, D] from which nothing was dropped."""
        return torch.arange(x.shape[1], device=x.device).expand(len(x), -1)

    def step(
        self, layer: int, x: Tensor, tokens: Tensor, observe: Observer = _ignore
    ) -> tuple[Tensor, Tensor]:
        """One block: the residual stream [B, live, D], and original indices [B, live], before and after."""
        x, rows = self.blocks[layer](x, observe, f"layers.{layer}", self.turn(tokens))
        return x, tokens if rows is None else tokens.gather(1, rows)

    def turn(self, tokens: Tensor) -> Tensor | None:
        """What `Rotary` gives for original indices [B, live]; None without rotary positions."""
        return None if self.rope is None else self.rope(tokens)

    def _drop(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The prefix and the patch tokens drawn in this step, in their order, and their indices."""
        prefix, patches = self.config.prefix, x.shape[1] - self.config.prefix
        keep = max(1, round(patches * (1 - self.token_drop)))
        return kept_rows(x, prefix, torch.rand(len(x), patches, device=x.device).argsort(dim=1)[:, :keep])

    def pool(self, x: Tensor) -> Tensor:
        """What the head sees of the residual stream: [B, D], [B, 2, D] if distilled, [B, 2 D] if both."""
        config = self.config
        if config.pool == "token":
            return self.norm(x[:, :2] if config.distilled else x[:, 0])
        if config.pool == "mean":
            return self.norm(_mean(x[:, config.prefix :]))
        normed = self.norm(x)
        if self.attn_pool is not None:
            return self.attn_pool(normed)
        mean = _mean(normed[:, config.prefix :])
        return mean if config.pool == "norm-mean" else torch.cat([normed[:, 0], mean], dim=1)

    def forward(self, images: Tensor, observe: Observer = _ignore) -> Tensor:
        """Logits [B, classes] of normalised images [B, 3, H, W]; without a head, features [B, D]."""
        return self.classify(self.encode(images, observe), observe)

    def rows(self, x: Tensor) -> dict[str, Tensor]:
        """What `ViTConfig.row_heads` say, of the residual stream [B, live, D] after the last block.

        "scores" [B, rows, names], and "boxes" [B, rows, 4]; rows in the order of the tokens.
        """
        heads, prefix = self.config.row_heads, self.config.prefix
        if heads is None:
            return {}
        chosen = self.norm(x[:, prefix:] if heads.rows == "patches" else x[:, 1:prefix])
        return {name: head(chosen) for name, head in self.row_heads.items()}

    def classify(self, x: Tensor, observe: Observer = _ignore) -> Tensor:
        """Results as of `forward`, from the residual stream [B, live, D] after the last block."""
        normed = self.pool(x)
        observe("norm", normed)
        if self.head_dist is None:
            logits = self.head(normed)
        else:
            logits = (self.head(normed[:, 0]) + self.head_dist(normed[:, 1])) / 2
        observe("logits", logits)
        return logits


def _mean(patches: Tensor) -> Tensor:
    """[B, D] of patches [B, live, D]; where none is left, zeros, as of the integer reference."""
    found: Tensor = patches.mean(dim=1) if patches.shape[1] else patches.sum(dim=1)
    return found


def _row_heads(config: ViTConfig) -> dict[str, nn.Module]:
    heads = config.row_heads
    if heads is None:
        return {}

    def layers(out: int, *last: nn.Module) -> nn.Module:
        inner = [nn.Linear(config.dim, config.dim) for _ in range(heads.layers - 1)]
        return nn.Sequential(
            *(part for linear in inner for part in (linear, nn.ReLU())), nn.Linear(config.dim, out), *last
        )

    found = {"scores": layers(len(heads.names))}
    return found | ({"boxes": layers(4, nn.Sigmoid())} if heads.boxes else {})


def normalise(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images uint8 [B, H, W, 3] to the float network's input [B, 3, H, W]; mean and std of pixels in 0..1."""
    return standardise(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, mean, std)


def standardise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels in 0..1 [B, 3, H, W] less their mean, over their standard deviation."""
    shift, scale = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (mean, std))
    return (pixels - shift) / scale


def predict(
    model: VisionTransformer,
    images: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    batch: int = 32,
    observe: Observer = _ignore,
) -> np.ndarray:
    """Logits float32 [B, classes] of images uint8 [B, H, W, 3].

    The network must be on the CPU; it is left in evaluation mode.
    """
    model.eval()
    with torch.inference_mode():
        parts = [
            model(normalise(images[first : first + batch], mean, std), observe)
            for first in range(0, len(images), batch)
        ]
    return torch.cat(parts).float().numpy()
