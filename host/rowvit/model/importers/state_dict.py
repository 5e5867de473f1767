# SPDX-License-Identifier: Apache-2.0
"""State dicts in timm's names to the float network."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rowvit.errors import RowvitError
from rowvit.model.importers.foreign import by_names, facts
from rowvit.model.importers.names import HEAD_SIZE
from rowvit.model.importers.rotary import Rope
from rowvit.model.store import load_state
from rowvit.model.vit import RowHeads, VisionTransformer, ViTConfig

_PATCH = "patch_embed.proj.weight"
_PREFIX = ("cls_token", "dist_token", "reg_token", "det_token")  # beside the patches
#: shapes that are relied on before `load_state` compares them all; 0: any size, -1: the network's width
_SHAPES = (
    (r"(cls|dist|reg|det)_token|pos_embed", (1, 0, -1)),
    (r"norm_pre\.(weight|bias)", (-1,)),
    (r"blocks\.\d+\.(ls\d\.gamma|attn\.proj\.bias|mlp\.fc2\.bias)", (-1,)),
    (r"blocks\.\d+\.(attn\.proj|mlp\.fc2)\.weight", (-1, 0)),
    (r"blocks\.\d+\.mlp\.fc1\.weight", (0, -1)),
    (r"head\.weight", (0, 0)),
)
_ENCODER = re.compile(
    r"(cls|dist|reg|det)_token|pos_embed|patch_embed\..*|blocks\.\d+\..*|(fc_)?norm\..*|norm_pre\..*"
)
_HEADS = re.compile(
    r"head(_dist)?\.(weight|bias)|attn_pool\.(latent|(q|kv|proj|norm|mlp\.fc[12])\.(weight|bias))"
    r"|row_heads\.(scores|boxes)\.\d\.(weight|bias)"
)
#: beside the encoder, and a part of it that is not run: it stays, and is refused
_BESIDE = re.compile(
    r"(visual\.)?(rope|shared_rel_pos|rel_pos_bias|conv_root)"
    r"|(visual\.)?((encoder|[tT]ransformer)\.)?(layers?\.|resblocks\.|encoder_layer_|encoderblock_)+\d+\."
)
LEAVE_OUT = "--encoder leaves out what follows the last LayerNorm"


def encoder_alone(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """What comes up to the last LayerNorm, and the beginnings of the names of what else there is."""
    kept = {name: tensor for name, tensor in state.items() if _ENCODER.fullmatch(name) or _BESIDE.match(name)}
    return kept, list(dict.fromkeys(name.split(".")[0] for name in state if name not in kept))


def pools(state: Mapping[str, Tensor]) -> list[str]:
    """What the head of a state dict in timm's names may see, as in `ViTConfig.pool`; the likeliest first."""
    head, embedding = state.get("head.weight"), state.get(_PATCH)
    if head is not None and embedding is not None and head.shape[1:] == (2 * len(embedding),):
        return ["class-mean"]  # as Dinov2ForImageClassification has it
    token, mean = "cls_token" in state, "mean" if "fc_norm.weight" in state else "norm-mean"
    if "attn_pool.latent" in state:
        return ["attention"]
    if "head_dist.weight" in state:
        return ["token"]
    if not token:
        return [mean]
    return ["mean"] if mean == "mean" else ["token", "norm-mean"]


def from_timm(
    state: Mapping[str, Tensor],
    heads: int | None = None,
    act: str = "relu",
    sizes: Sequence[tuple[int, int]] = (),
    rope: Rope | None = None,
    gate_last: bool = False,
    **options: Any,
) -> VisionTransformer:
    """Build the network for a state dict of timm's VisionTransformer.

    LayerScale is folded into the layers before it; a bias that no block has becomes zero; distillation and
    register tokens join the class token; without ``head.weight`` the network returns features. Where FFN1 is
    twice as wide as FFN2 reads, or two layers, the FFN is gated.

    Parameters
    ----------
    state : mapping of tensors
        Names and shapes as in timm; the position table is learnt, and may lack beside rotary positions.
    heads : int, optional
        Not visible in a state dict; by default one per 64 channels.
    act : str
        A key of `rowvit.model.vit.ACTIVATIONS`.
    sizes : sequence of (height, width)
        Which the image may have; the first that `fitting` finds counts, else it is a square.
    rope : Rope, optional
        Rotary positions; the image has as many patches as they have.
    gate_last : bool
        Of a gated FFN whose gates and values are the halves of one layer: the gates are the second.
    **options
        Further fields of `ViTConfig`, such as ``pruning`` or ``eps``; ``pool`` is by default the first of
        `pools`.

    Raises
    ------
    RowvitError
        If a tensor is missing, unexpected or of the wrong shape.
    """
    config, state = described(state, heads, act, sizes, rope, gate_last, **options)
    model = VisionTransformer(config)
    load_state(model, state, "the state dict")
    return model.eval()


def described(
    state: Mapping[str, Tensor],
    heads: int | None = None,
    act: str = "relu",
    sizes: Sequence[tuple[int, int]] = (),
    rope: Rope | None = None,
    gate_last: bool = False,
    **options: Any,
) -> tuple[ViTConfig, dict[str, Tensor]]:
    """The architecture of a state dict, and its tensors in the float network's form; as for `from_timm`.

    It reads shapes and names, so that tensors on PyTorch's device "meta" will do.
    """
    state = {name: tensor.detach().float() for name, tensor in state.items()}
    if (found := by_names(facts(state))) and (found.what or rope is None):  # else only angles lack
        raise found.error(advice="" if by_names(facts(state), heads=False) else LEAVE_OUT)
    gated = _interleave_gates(state, gate_last)
    for key in (_PATCH, "pos_embed", "blocks.0.mlp.fc1.weight"):
        if key not in state and (key != "pos_embed" or rope is None):
            if found := by_names(facts(state, whole=True)):
                raise found.error()
            raise RowvitError(f"the state dict lacks {key!r}, expected that of a timm VisionTransformer")
    odd = sorted(name for name in state if not _ENCODER.fullmatch(name) and not _HEADS.fullmatch(name))
    if odd:
        raise RowvitError(
            f"the state dict has {odd[0]!r}, which this network has no place for ({len(odd)} such tensors)",
            LEAVE_OUT,
        )
    if not {"fc_norm.weight", "norm.weight"} & state.keys():
        raise RowvitError(
            "the state dict has no LayerNorm behind the last block, where the accelerator has one"
        )
    if "fc_norm.weight" in state and "norm.weight" in state:
        raise RowvitError(
            "the state dict has two LayerNorms behind the blocks, 'norm' and 'fc_norm'; one runs"
        )
    if state[_PATCH].ndim != 4 or not state[_PATCH].numel():
        raise RowvitError(
            f"the state dict: tensor {_PATCH!r} has shape {list(state[_PATCH].shape)}, expected"
            " [width, 3, patch, patch]"
        )
    dim, channels, patch, width = state[_PATCH].shape
    if rope is not None:
        state.setdefault("pos_embed", torch.zeros(1, math.prod(rope.grid), dim))
        sizes = [(rope.grid[0] * patch, rope.grid[1] * patch)]
    _require_shapes(state, dim)
    if channels != 3 or patch != width:
        raise RowvitError(
            f"the state dict's patches are {patch} x {width} pixels of {channels} channels,"
            " expected squares of 3 channels"
        )
    options.setdefault("pool", pools(state)[0])
    prefix, (rows, columns) = _join_prefix(state, dim, fitting(state, sizes))
    for part in ("weight", "bias"):
        if f"fc_norm.{part}" in state:
            state[f"norm.{part}"] = state.pop(f"fc_norm.{part}")
    options.setdefault("distilled", "head_dist.weight" in state)
    if "row_heads.scores.0.weight" in state:
        options.setdefault("row_heads", _row_heads(state))
    depth = len({match[1] for name in state if (match := re.match(r"blocks\.(\d+)\.", name))})
    _fold_layer_scale(state, depth)
    if options["pool"] == "attention" and "head.weight" not in state:  # its result is the answer
        state["head.weight"] = torch.eye(dim)
    config = ViTConfig(
        image_size=rows * patch,
        image_width=columns * patch,
        patch_size=patch,
        dim=dim,
        depth=depth,
        heads=heads or max(dim // HEAD_SIZE, 1),
        hidden=state["blocks.0.mlp.fc1.weight"].shape[0] // (1 + gated),
        classes=len(state.get("head.weight", ())),
        act=act,
        prefix=prefix,
        pre_norm="norm_pre.weight" in state,
        rotary=rope is not None,
        gated=gated,
        **options,
    )
    state.setdefault("patch_embed.proj.bias", torch.zeros(dim))
    if "head.weight" in state:
        state.setdefault("head.bias", torch.zeros(len(state["head.weight"])))  # CLIP's projection has none
    _fill_biases(state, depth)
    if rope is not None:
        rope.write(state, config)
    return config, state


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


def fitting(state: Mapping[str, Tensor], sizes: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The first height and width whose patches the positions are for; None if there is none."""
    if not sizes:
        return None
    patch, positions = state[_PATCH].shape[-1], state["pos_embed"].shape[1]
    before = sum(int(state[name].shape[1]) for name in _PREFIX if name in state)
    for height, width in sizes:
        if any((height // patch) * (width // patch) == positions - placed for placed in _placed(before)):
            return height, width
    return None


def _placed(prefix: int) -> dict[int, None]:
    """How many tokens before the patches have positions: some networks have none, or the class token's."""
    return dict.fromkeys((prefix, 0, min(prefix, 1)))


def _join_prefix(
    state: dict[str, Tensor], dim: int, size: tuple[int, int] | None
) -> tuple[int, tuple[int, int]]:
    """Make one ``cls_token`` of all prefix tokens and one ``pos_embed`` for all.

    Returns prefix, and rows and columns of patches: those of ``size``, which fits, else of a square.
    """
    if "det_token" in state:  # YOLOS has them behind the patches: attention sees no order
        ends = 1, -int(state["det_token"].shape[1])
        first, patches, last = state["pos_embed"].tensor_split(ends, dim=1)
        state["pos_embed"] = torch.cat([first, last, patches], dim=1)
    parts = [state.pop(name) for name in _PREFIX if name in state]
    prefix = sum(int(part.shape[1]) for part in parts)
    state["cls_token"] = torch.cat(parts, dim=1) if parts else torch.zeros(1, 0, dim)
    positions = state["pos_embed"]
    patch = state[_PATCH].shape[-1]
    for placed in _placed(prefix):
        count = positions.shape[1] - placed
        side = patch * math.isqrt(max(count, 0))
        rows, columns = (edge // patch for edge in size or (side, side))
        if rows and rows * columns == count:
            first, last = positions[:, :placed], positions[:, placed:]
            state["pos_embed"] = torch.cat([first, torch.zeros(1, prefix - placed, dim), last], dim=1)
            return prefix, (rows, columns)
    raise RowvitError(
        f"the state dict has {positions.shape[1]} positions and {prefix} tokens before the patches, which is"
        " no square grid of patches",
        "pass the size of the images that it was trained with: --image-size HEIGHTxWIDTH",
    )


def _row_heads(state: dict[str, Tensor]) -> RowHeads:
    """Those of detection tokens, whose layers get the places that `RowHeads` has between activations."""
    layers = len([name for name in state if re.fullmatch(r"row_heads\.scores\.\d\.weight", name)])
    own = {name: state.pop(name) for name in list(state) if name.startswith("row_heads.")}
    for name, tensor in own.items():
        _, head, layer, part = name.split(".")
        state[f"row_heads.{head}.{2 * int(layer)}.{part}"] = tensor
    scores = len(state[f"row_heads.scores.{2 * (layers - 1)}.weight"])
    names = tuple(map(str, range(scores)))
    return RowHeads("prefix", names, layers, any(name.startswith("row_heads.boxes.") for name in state))


def _interleave_gates(state: dict[str, Tensor], gate_last: bool) -> bool:
    """Put gates and values of a gated FFN in turn, as `Mlp` has them; whether there are any.

    They are two layers, as of timm's SwiGLU, or the halves of one, of its GluMlp.
    """
    gated = False
    for name, second in list(state.items()):
        match = re.fullmatch(r"(blocks\.\d+\.mlp\.fc)2\.weight", name)
        if match is None or second.ndim != 2:
            continue
        for part in ("weight", "bias"):
            layer, gate, value = (f"{match[1]}1{end}.{part}" for end in ("", "_g", "_x"))
            if gate in state and value in state:
                halves = [state.pop(gate), state.pop(value)]
                if halves[0].shape != halves[1].shape:
                    shapes = " and ".join(str(list(half.shape)) for half in halves)
                    raise RowvitError(f"the state dict: {gate!r} and {value!r} differ in shape ({shapes})")
            elif layer in state and state[layer].shape[:1] == (2 * second.shape[1],):
                halves = list(state[layer].chunk(2))
                halves = halves[::-1] if gate_last else halves
            else:
                continue
            state[layer], gated = torch.stack(halves, dim=1).flatten(0, 1), True
    return gated


def _fill_biases(state: dict[str, Tensor], depth: int) -> None:
    """Zeros for the biases that a layer has in no block."""
    for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        names = [f"blocks.{block}.{layer}" for block in range(depth)]
        if not any(f"{name}.bias" in state for name in names):
            for name in names:
                if f"{name}.weight" in state:
                    state[f"{name}.bias"] = torch.zeros(len(state[f"{name}.weight"]))


def _fold_layer_scale(state: dict[str, Tensor], depth: int) -> None:
    for block in range(depth):
        for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            gamma = state.pop(f"blocks.{block}.{scale}.gamma", None)
            for part in ("weight", "bias"):
                name = f"blocks.{block}.{layer}.{part}"
                if gamma is not None and name in state:
                    state[name] = state[name] * gamma.view(-1, *[1] * (state[name].ndim - 1))
