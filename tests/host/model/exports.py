# SPDX-License-Identifier: Apache-2.0
"""Small vision transformers in the styles of several libraries, with random parameters."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from timm.models import register_model
from torch import Tensor, nn

from networks import randomise

SIDE = 16


def timm_network(**options: object) -> nn.Module:
    """The VisionTransformer of timm: fused queries, keys and values."""
    from timm.models import vision_transformer

    shape = dict(img_size=SIDE, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5)
    return randomise(vision_transformer.VisionTransformer(**shape | options))


@register_model
def rowvit_test_network(pretrained: bool = False, **options: object) -> nn.Module:
    """`timm_network` in timm's registry, by this name."""
    return timm_network(**{k: v for k, v in options.items() if k in ("num_classes", "img_size")})


@register_model
def rowvit_test_giant(pretrained: bool = False, **options: object) -> nn.Module:
    """DINOv2's giant, small, in timm's registry."""
    from timm.models.vision_transformer import vit_giant_patch14_dinov2

    return vit_giant_patch14_dinov2(depth=2, embed_dim=48, num_heads=3, img_size=56, **options)


def timm_distilled() -> nn.Module:
    """The DeiT of timm with a distillation token and two heads."""
    from timm.models.deit import VisionTransformerDistilled

    return randomise(
        VisionTransformerDistilled(
            img_size=SIDE, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5
        )
    )


def torchvision_network() -> nn.Module:
    """The VisionTransformer of torchvision: torch's own attention."""
    from torchvision.models import VisionTransformer

    return randomise(
        VisionTransformer(
            image_size=SIDE,
            patch_size=4,
            num_layers=2,
            num_heads=3,
            hidden_dim=24,
            mlp_dim=40,
            num_classes=5,
        )
    )


class HuggingFaceNetwork(nn.Module):
    """The structure and names of transformers' ViTForImageClassification, DeiT with ``distilled``.

    Separate layers for queries, keys and values; heads moved by view and permute; scores divided.
    """

    def __init__(self, distilled: bool = False) -> None:
        super().__init__()
        dim, tokens = 24, 17 + distilled
        self.vit = nn.Module()
        self.vit.embeddings = nn.Module()
        self.vit.embeddings.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if distilled:
            self.vit.embeddings.distillation_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.vit.embeddings.position_embeddings = nn.Parameter(torch.zeros(1, tokens, dim))
        self.vit.embeddings.patch_embeddings = nn.Module()
        self.vit.embeddings.patch_embeddings.projection = nn.Conv2d(3, dim, 4, 4)
        self.vit.encoder = nn.Module()
        self.vit.encoder.layer = nn.ModuleList(self.layer(dim, 40) for _ in range(2))
        self.vit.layernorm = nn.LayerNorm(dim, eps=1e-12)
        self.heads = ["cls_classifier", "distillation_classifier"] if distilled else ["classifier"]
        for name in self.heads:
            self.add_module(name, nn.Linear(dim, 5))
        randomise(self)

    @staticmethod
    def layer(dim: int, hidden: int) -> nn.Module:
        layer = nn.Module()
        layer.attention = nn.Module()
        layer.attention.attention = nn.Module()
        for part in ("query", "key", "value"):
            layer.attention.attention.add_module(part, nn.Linear(dim, dim))
        layer.attention.output = nn.Module()
        layer.attention.output.dense = nn.Linear(dim, dim)
        layer.intermediate, layer.output = nn.Module(), nn.Module()
        layer.intermediate.dense = nn.Linear(dim, hidden)
        layer.output.dense = nn.Linear(hidden, dim)
        layer.layernorm_before = nn.LayerNorm(dim, eps=1e-12)
        layer.layernorm_after = nn.LayerNorm(dim, eps=1e-12)
        return layer

    def forward(self, pixel_values: Tensor) -> Tensor:
        first = self.vit.embeddings
        x = first.patch_embeddings.projection(pixel_values).flatten(2).transpose(1, 2)
        tokens = [first.cls_token, *([first.distillation_token] if len(self.heads) > 1 else [])]
        x = torch.cat([*(token.expand(len(x), -1, -1) for token in tokens), x], dim=1)
        x = x + first.position_embeddings
        for layer in self.vit.encoder.layer:
            normed = layer.layernorm_before(x)
            parts = layer.attention.attention
            q, k, v = (
                part(normed).view(*normed.shape[:2], 3, 8).permute(0, 2, 1, 3)
                for part in (parts.query, parts.key, parts.value)
            )
            scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(8)
            mixed = torch.matmul(scores.softmax(dim=-1), v).permute(0, 2, 1, 3).contiguous()
            x = layer.attention.output.dense(mixed.view(*normed.shape)) + x
            hidden = nn.functional.gelu(layer.intermediate.dense(layer.layernorm_after(x)))
            x = layer.output.dense(hidden) + x
        x = self.vit.layernorm(x)
        logits = [getattr(self, name)(x[:, index]) for index, name in enumerate(self.heads)]
        return logits[0] if len(logits) == 1 else (logits[0] + logits[1]) / 2


def transformers_dinov3(**settings: object) -> nn.Module:
    """The DINOv3ViTModel of transformers."""
    transformers = pytest.importorskip("transformers")
    shape = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40)
    config = transformers.DINOv3ViTConfig(**shape | dict(image_size=SIDE, patch_size=4) | settings)
    return randomise(transformers.DINOv3ViTModel(config))


class PlainNetwork(nn.Module):
    """Written by hand: patches by reshaping and a linear layer, einsum, GELU by its formula."""

    def __init__(self, act: str = "erf", pool: str = "token", change: str = "") -> None:
        super().__init__()
        dim = 24
        self.act, self.pool, self.change = act, pool, change
        self.patch = nn.Linear(48, dim)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.place = nn.Parameter(torch.zeros(1, 17, dim))
        self.layers = nn.ModuleList()
        for _ in range(2):
            layer = nn.Module()
            layer.norm_a, layer.norm_b = nn.LayerNorm(dim), nn.LayerNorm(dim)
            layer.to_qkv, layer.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
            layer.up, layer.down, layer.gate = nn.Linear(dim, 40), nn.Linear(40, dim), nn.Linear(dim, 40)
            self.layers.append(layer)
        self.norm, self.classify = nn.LayerNorm(dim), nn.Linear(2 * dim if pool == "class-mean" else dim, 5)
        randomise(self)

    def activation(self, x: Tensor) -> Tensor:
        if self.act == "erf":
            return 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))
        if self.act == "tanh":
            return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        if self.act in ("silu", "quick_gelu"):
            return x * torch.sigmoid({"silu": 1.0, "quick_gelu": 1.702}[self.act] * x)
        if self.act == "mish":
            return nn.functional.mish(x)
        return torch.clamp(x, min=0)

    def forward(self, images: Tensor) -> Tensor:
        b = images.shape[0]
        # patches with their scalars in the order y, x, channel
        x = images.reshape(b, 3, 4, 4, 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(b, 16, 48)
        x = self.patch(x)
        if self.change == "embedding":
            x = torch.relu(x)
        x = torch.cat([self.token.expand(b, -1, -1), x], dim=1) + self.place
        if self.change == "norm first":
            x = self.norm(x)
        for number, layer in enumerate(self.layers):
            if number and self.change == "norm in between":
                x = self.norm(x)
            q, k, v = layer.to_qkv(layer.norm_a(x)).chunk(3, dim=-1)
            if self.change == "normed queries":
                q = nn.functional.layer_norm(q, (24,))
            # heads interleaved with channels, which no library does
            q, k, v = (t.reshape(b, 17, 8, 3).permute(0, 3, 1, 2) for t in (q, k, v))
            scores = torch.einsum("bhid,bhjd->bhij", q * 8**-0.5, k)
            if self.change == "mask":
                scores = scores + torch.ones(17, 17).triu(1) * -9.0
            mixed = torch.einsum("bhij,bhjd->bhid", scores.softmax(dim=-1), v)
            x = x + layer.out(mixed.permute(0, 2, 3, 1).reshape(b, 17, 24))
            hidden = self.activation(layer.up(layer.norm_b(x)))
            if self.change == "gate":
                hidden = hidden * layer.gate(layer.norm_b(x))
            x = x + layer.down(hidden)
            if self.change == "parallel":
                x = x + layer.down(hidden)
        if self.pool == "mean":
            return self.classify(self.norm(x[:, 1:].mean(dim=1)))
        if self.pool == "norm-mean":
            return self.classify(self.norm(x)[:, 1:].mean(dim=1)).softmax(dim=-1)
        if self.pool == "class-mean":
            x = self.norm(x)
            return self.classify(torch.cat([x[:, 0], x[:, 1:].mean(dim=1)], dim=1))
        if self.pool == "last":
            return self.classify(self.norm(x[:, -1]))
        return self.classify(self.norm(x[:, 0]))


class JaxNetwork(PlainNetwork):
    """In the style of JAX's exporters: weights by heads in einsum, biases after the residual add."""

    def forward(self, images: Tensor) -> Tensor:
        b = images.shape[0]
        x = images.reshape(b, 3, 4, 4, 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(b, 16, 48)
        x = torch.cat([self.token.expand(b, -1, -1), self.patch(x)], dim=1) + self.place
        for layer in self.layers:
            normed = layer.norm_a(x)
            weights = layer.to_qkv.weight.reshape(3, 3, 8, 24)
            q, k, v = (torch.einsum("bnd,hkd->bhnk", normed, weight) for weight in weights)
            p = torch.einsum("bhid,bhjd->bhij", q * 8**-0.5, k).softmax(dim=-1)
            mixed = torch.einsum("bhij,bhjd->bihd", p, v)
            x = x + torch.einsum("bihd,ohd->bio", mixed, layer.out.weight.reshape(24, 3, 8))
            x = x + layer.out.bias
            x = x + layer.down(self.activation(layer.up(layer.norm_b(x))))
        return self.classify(self.norm(x[:, 0]))


class Raw(nn.Module):
    """Photos uint8 [B, S, S, 3] in front of a network: the graph does the preprocessing."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, photos: Tensor) -> Tensor:
        pixels = photos.permute(0, 3, 1, 2).float() / 255
        mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
        return self.network((pixels - mean[:, None, None]) / std[:, None, None])


class Answer(nn.Module):
    """One tensor of a network's answer: the first of ``kinds`` that a library's has, such as "logits"."""

    def __init__(self, network: nn.Module, *kinds: str) -> None:
        super().__init__()
        self.network, self.kinds = network, kinds

    def forward(self, pixels: Tensor) -> Tensor:
        found = self.network(pixels)
        if isinstance(found, Tensor):
            return found
        return next(found[kind] for kind in self.kinds if getattr(found, kind, None) is not None)


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(9))


def export(
    network: nn.Module, path: Path, how: str = "script", opset: int = 17, example: Tensor | None = None
) -> Path:
    """Write ONNX by one of torch's two exporters, "script" or "dynamo"; "open" leaves the batch open."""
    example = images(1) if example is None else example
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        if how.startswith("script"):
            axes = {"images": {0: "batch"}} if "open" in how else None
            torch.onnx.export(
                network,
                (example,),
                path,
                dynamo=False,
                opset_version=opset,
                input_names=["images"],
                dynamic_axes=axes,
            )
        else:
            torch.onnx.export(network, (example,), path, dynamo=True, opset_version=opset, verbose=False)
    return path
