# SPDX-License-Identifier: Apache-2.0
"""State dicts with the names of timm, Hugging Face transformers or torchvision to the float network."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rowvit.errors import RowvitError
from rowvit.model.store import load_state
from rowvit.model.vit import VisionTransformer, ViTConfig

_PATCH = "patch_embed.proj.weight"
#: tensors of variants that the accelerator does not run: pattern, what it is
_FOREIGN = (
    (r"norm_pre\.", "a LayerNorm between the embedding and the blocks"),
    (r"blocks\.\d+\.attn\.[qk]_norm\.", "normalised queries and keys"),
    (r"blocks\.\d+\.mlp\.(w12|w3|fc1_g|norm)\b", "an FFN that is gated or has its own norm"),
    (r"attn_pool\.", "pooling by attention"),
    (r".*rel(ative)?_pos", "relative positions"),
    (r"patch_embed\.backbone\.|stem\.", "convolutions before the patches"),
)

#: shapes that are relied on before `load_state` compares them all; 0: any size, -1: the network's width
_SHAPES = (
    (r"(cls|dist|reg)_token|pos_embed", (1, 0, -1)),
    (r"blocks\.\d+\.(ls\d\.gamma|attn\.proj\.bias|mlp\.fc2\.bias)", (-1,)),
    (r"blocks\.\d+\.(attn\.proj|mlp\.fc2)\.weight", (-1, 0)),
    (r"blocks\.\d+\.mlp\.fc1\.weight|head\.weight", (0, -1)),
)

_HEAD_SIZE = 64  # channels, in every common vision transformer
_WRAPPERS = re.compile(r"(module\.|model\.|backbone\.|_orig_mod\.|vit\.|deit\.|dinov2(_with_registers)?\.)+")
#: names in transformers and torchvision, and the corresponding names in timm
_NAMES = (
    # transformers: ViT, DeiT, DINOv2
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(.*)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.output\.dense\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_before\.(.*)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.(.*)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.((?:norm|mlp).*)", r"blocks.\1.\2"),
    (r"layernorm\.(.*)", r"norm.\1"),
    (r"(?:cls_)?classifier\.(.*)", r"head.\1"),
    (r"distillation_classifier\.(.*)", r"head_dist.\1"),
    # torchvision
    (r"class_token", "cls_token"),
    (r"conv_proj\.(.*)", r"patch_embed.proj.\1"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_(\d)\.(.*)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(.*)", r"blocks.\1.attn.qkv.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.ln\.(.*)", r"norm.\1"),
    (r"heads\.head\.(.*)", r"head.\1"),
)


def read_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """State dict of a .safetensors, .pth, .pt or .bin file.

    Raises
    ------
    RowvitError
        If the file cannot be read or holds no state dict.
    """
    try:
        if str(path).endswith(".safetensors"):
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RowvitError(f"{path}: no such file") from error
    except SafetensorError as error:
        raise RowvitError(f"{path}: not a whole safetensors file ({error})", "copy it again") from error
    except Exception as error:  # torch raises many types for a foreign file
        raise RowvitError(
            f"{path}: PyTorch cannot read it as a checkpoint that holds only weights"
        ) from error
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, Mapping) else state
    if not (isinstance(state, Mapping) and state and all(isinstance(t, Tensor) for t in state.values())):
        raise RowvitError(f"{path}: holds no state dict", "save model.state_dict()")
    return dict(state)


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of transformers (ViT, DeiT, DINOv2) or torchvision with timm's names.

    Prefixes such as ``module.`` are removed, and queries, keys and values joined. Names that are timm's
    already, or unknown, stay.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = _WRAPPERS.sub("", name, count=1) if _WRAPPERS.match(name) else name
        for pattern, new in _NAMES:
            if match := re.fullmatch(pattern, name):
                name = match.expand(new)
                break
        renamed[name] = tensor
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if len({renamed[part].shape if part in renamed else None for part in parts}) == 1:
            renamed[name.replace(".query.", ".qkv.")] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def from_timm(
    state: Mapping[str, Tensor], heads: int | None = None, act: str = "relu", **options: Any
) -> VisionTransformer:
    """Build the network for a state dict of timm's VisionTransformer.

    LayerScale is folded into the layers before it; a missing QKV bias becomes zero; distillation and
    register tokens join the class token; without ``head.weight`` the network returns features.

    Parameters
    ----------
    state : mapping of tensors
        Names and shapes as in timm; the position table is learnt.
    heads : int, optional
        Not visible in a state dict; by default one per 64 channels.
    act : str
        A key of `rowvit.model.vit.ACTIVATIONS`.
    **options
        Further fields of `ViTConfig`, such as ``pruning``, ``pool`` or ``eps``.

    Raises
    ------
    RowvitError
        If a tensor is missing, unexpected or of the wrong shape.
    """
    state = {name: tensor.detach().float() for name, tensor in state.items()}
    for name in state:
        for pattern, what in _FOREIGN:
            if re.match(pattern, name):
                raise RowvitError(f"the state dict has {name!r}, {what}, which the accelerator does not run")
    for key in (_PATCH, "pos_embed", "blocks.0.mlp.fc1.weight"):
        if key not in state:
            raise RowvitError(f"the state dict lacks {key!r}, expected that of a timm VisionTransformer")
    if state[_PATCH].ndim != 4 or not state[_PATCH].numel():
        raise RowvitError(
            f"the state dict: tensor {_PATCH!r} has shape {list(state[_PATCH].shape)}, expected"
            " [width, 3, patch, patch]"
        )
    dim, channels, patch, width = state[_PATCH].shape
    _require_shapes(state, dim)
    if channels != 3 or patch != width:
        raise RowvitError(
            f"the state dict's patches are {patch} x {width} pixels of {channels} channels,"
            " expected squares of 3 channels"
        )
    state.pop("mask_token", None)
    prefix, grid = _join_prefix(state, dim)
    if "fc_norm.weight" in state and "norm.weight" not in state:
        options.setdefault("pool", "mean")
        for part in ("weight", "bias"):
            if f"fc_norm.{part}" in state:
                state[f"norm.{part}"] = state.pop(f"fc_norm.{part}")
    options.setdefault("distilled", "head_dist.weight" in state)
    depth = len({match[1] for name in state if (match := re.match(r"blocks\.(\d+)\.", name))})
    _fold_layer_scale(state, depth)
    config = ViTConfig(
        image_size=grid * patch,
        patch_size=patch,
        dim=dim,
        depth=depth,
        heads=heads or max(dim // _HEAD_SIZE, 1),
        hidden=state["blocks.0.mlp.fc1.weight"].shape[0],
        classes=len(state.get("head.weight", ())),
        act=act,
        prefix=prefix,
        **options,
    )
    state.setdefault("patch_embed.proj.bias", torch.zeros(dim))
    for block in range(depth):
        state.setdefault(f"blocks.{block}.attn.qkv.bias", torch.zeros(3 * dim))
    model = VisionTransformer(config)
    load_state(model, state, "the state dict")
    return model.eval()


def _require_shapes(state: Mapping[str, Tensor], dim: int) -> None:
    for name, tensor in state.items():
        for pattern, sizes in _SHAPES:
            if not re.fullmatch(pattern, name):
                continue
            wanted = [dim if size < 0 else size for size in sizes]
            if tensor.ndim != len(wanted) or any(
                w and w != s for w, s in zip(wanted, tensor.shape, strict=True)
            ):
                shape = "[" + ", ".join(str(size or "any") for size in wanted) + "]"
                raise RowvitError(
                    f"the state dict: tensor {name!r} has shape {list(tensor.shape)}, expected {shape}"
                )


def _join_prefix(state: dict[str, Tensor], dim: int) -> tuple[int, int]:
    """Make one ``cls_token`` of all prefix tokens and one ``pos_embed`` for all; returns (prefix, grid)."""
    parts = [state.pop(name) for name in ("cls_token", "dist_token", "reg_token") if name in state]
    prefix = sum(part.shape[1] for part in parts)
    state["cls_token"] = torch.cat(parts, dim=1) if parts else torch.zeros(1, 0, dim)
    positions = state["pos_embed"]
    # some networks have positions for the patches only, or for these and the class token
    for placed in dict.fromkeys((prefix, 0, min(prefix, 1))):
        patches = positions.shape[1] - placed
        grid = math.isqrt(max(patches, 0))
        if grid and grid * grid == patches:
            first, last = positions[:, :placed], positions[:, placed:]
            state["pos_embed"] = torch.cat([first, torch.zeros(1, prefix - placed, dim), last], dim=1)
            return prefix, grid
    raise RowvitError(
        f"the state dict has {positions.shape[1]} positions and {prefix} tokens before the patches,"
        " expected a square grid of patches"
    )


def _fold_layer_scale(state: dict[str, Tensor], depth: int) -> None:
    for block in range(depth):
        for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            gamma = state.pop(f"blocks.{block}.{scale}.gamma", None)
            for part in ("weight", "bias"):
                name = f"blocks.{block}.{layer}.{part}"
                if gamma is not None and name in state:
                    state[name] = state[name] * gamma.view(-1, *[1] * (state[name].ndim - 1))
