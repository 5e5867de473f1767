# SPDX-License-Identifier: Apache-2.0
"""Names of tensors: where a network begins in a state dict, and its parts by library."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

#: the patch embedding in timm, transformers (ViT and its kin; DINOv3; SigLIP and CLIP), torchvision,
#: OpenAI's CLIP, mmpretrain, Google's JAX
_ANCHOR = re.compile(
    r"(?P<prefix>(?:.*\.)?)"
    r"(?:(?:patch_embed\.(?:proj|projection|backbone\..*)|embeddings\.patch_embeddings(?:\.projection)?"
    r"|embeddings\.patch_embedding|conv_proj|visual\.conv1)\.weight|embedding\.kernel)"
)

_LAYER = r"(?:encoder\.|model\.)?layers?\.(\d+)\."
_FFN = r"(?:(?:encoder\.|model\.)?layers?|blocks)\.(\d+)\.mlp\."  # also DINOv2's and DINOv3's own
#: names in transformers (4 and 5) and torchvision, and the corresponding names in timm
_NAMES = (
    # transformers: ViT, DeiT, MSN, DINOv2, DINOv3, I-JEPA, BEiT
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    # YOLOS
    (r"embeddings\.detection_tokens", "det_token"),
    (r"class_labels_classifier\.layers\.(.*)", r"row_heads.scores.\1"),
    (r"bbox_predictor\.layers\.(.*)", r"row_heads.boxes.\1"),
    (r"(?:embeddings\.)?register_tokens|storage_tokens", "reg_token"),  # DINOv2's and DINOv3's own, too
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.(?:projection\.)?(weight|bias)", r"patch_embed.proj.\1"),
    (_LAYER + r"attention\.attention\.(query|key|value)\.(.*)", r"blocks.\1.attn.\2.\3"),
    (_LAYER + r"(?:attention|self_attn)\.q_proj\.(.*)", r"blocks.\1.attn.query.\2"),
    (_LAYER + r"(?:attention|self_attn)\.k_proj\.(.*)", r"blocks.\1.attn.key.\2"),
    (_LAYER + r"(?:attention|self_attn)\.v_proj\.(.*)", r"blocks.\1.attn.value.\2"),
    (_LAYER + r"attention\.(?:output\.dense|o_proj|projection_layer)\.(.*)", r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"self_attn\.(?:out_proj|projection)\.(.*)", r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"self_attn\.qkv\.(.*)", r"blocks.\1.attn.qkv.\2"),
    (_LAYER + r"intermediate\.dense\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"output\.dense\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (_LAYER + r"(?:layernorm_before|layer_norm1)\.(.*)", r"blocks.\1.norm1.\2"),
    (_LAYER + r"(?:layernorm_after|layer_norm2)\.(.*)", r"blocks.\1.norm2.\2"),
    (_LAYER + r"layer_scale(\d)\.lambda1", r"blocks.\1.ls\2.gamma"),
    (_LAYER + r"lambda_(\d)", r"blocks.\1.ls\2.gamma"),
    (_FFN + r"(?:gate_proj|w1)\.(.*)", r"blocks.\1.mlp.gate.\2"),  # joined with fc1, if it has one
    (_FFN + r"(?:up_proj|w2|w12|weights_in)\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (_FFN + r"(?:down_proj|w3|weights_out)\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (_LAYER + r"((?:norm|mlp).*)", r"blocks.\1.\2"),
    (r"layernorm\.(.*)", r"norm.\1"),
    (r"pooler\.layernorm\.(.*)", r"fc_norm.\1"),
    (r"(?:cls_)?classifier\.(.*)", r"head.\1"),
    (r"distillation_classifier\.(.*)", r"head_dist.\1"),
    # transformers: SigLIP, CLIP, OWL-ViT, BLIP
    (r"embeddings\.class_embedding", "cls_token"),
    (r"embeddings\.patch_embedding\.(.*)", r"patch_embed.proj.\1"),
    (r"embeddings\.position_embedding(?:\.weight)?", "pos_embed"),
    (r"post_layernorm\.(.*)", r"norm.\1"),
    (r"pre_(?:layrnorm|layernorm)\.(.*)", r"norm_pre.\1"),
    (r"visual_projection\.(.*)", r"head.\1"),
    # OpenAI's CLIP, and open_clip
    (r"visual\.class_embedding", "cls_token"),
    (r"visual\.positional_embedding", "pos_embed"),
    (r"visual\.conv1\.(.*)", r"patch_embed.proj.\1"),
    (r"visual\.ln_pre\.(.*)", r"norm_pre.\1"),
    (r"visual\.ln_post\.(.*)", r"norm.\1"),
    (r"visual\.transformer\.resblocks\.(\d+)\.ln_(\d)\.(.*)", r"blocks.\1.norm\2.\3"),
    (r"visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_(.*)", r"blocks.\1.attn.qkv.\2"),
    (r"visual\.transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"visual\.transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (r"visual\.transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (r"visual\.proj", "visual_projection"),
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
#: pooling by attention in transformers' SigLIP
_POOLING = (
    (r"head\.probe", "attn_pool.latent"),
    (r"head\.attention\.in_proj_(.*)", r"attn_pool.qkv.\1"),
    (r"head\.attention\.out_proj\.(.*)", r"attn_pool.proj.\1"),
    (r"head\.layernorm\.(.*)", r"attn_pool.norm.\1"),
    (r"head\.(mlp\..*)", r"attn_pool.\1"),
)
#: names that mean something else elsewhere, by a tensor that tells
_MORE_NAMES = {
    # mmpretrain
    "patch_embed.projection.weight": (
        (r"patch_embed\.projection\.(.*)", r"patch_embed.proj.\1"),
        (r"layers\.(\d+)\.ln(\d)\.(.*)", r"blocks.\1.norm\2.\3"),
        (r"layers\.(\d+)\.attn\.((?:qkv|proj)\..*)", r"blocks.\1.attn.\2"),
        (r"layers\.(\d+)\.ffn\.(?:layers\.0\.0|w12)\.(.*)", r"blocks.\1.mlp.fc1.\2"),
        (r"layers\.(\d+)\.ffn\.(?:layers\.1|w3)\.(.*)", r"blocks.\1.mlp.fc2.\2"),
        (r"layers\.(\d+)\.(?:attn|ffn)\.gamma(\d)\.weight", r"blocks.\1.ls\2.gamma"),
        (r"pre_norm\.(.*)", r"norm_pre.\1"),
        (r"ln1\.(.*)", r"norm.\1"),
        (r"ln2\.(.*)", r"fc_norm.\1"),  # of the patches' mean
        (r"head\.(?:layers\.head|fc)\.(.*)", r"head.\1"),
        (r"head\.layers\.head_dist\.(.*)", r"head_dist.\1"),
    ),
    # Google's JAX: vision_transformer, big_vision
    "embedding.kernel": (
        (r"cls", "cls_token"),
        (r"embedding\.(.*)", r"patch_embed.proj.\1"),
        (r"(?:Transformer\.posembed_input\.)?pos_embedding", "pos_embed"),
        (r"Transformer\.encoderblock_(\d+)\.LayerNorm_0\.(.*)", r"blocks.\1.norm1.\2"),
        (r"Transformer\.encoderblock_(\d+)\.LayerNorm_[12]\.(.*)", r"blocks.\1.norm2.\2"),
        (
            r"Transformer\.encoderblock_(\d+)\.MultiHeadDotProductAttention_\d\.(query|key|value)\.(.*)",
            r"blocks.\1.attn.\2.\3",
        ),
        (
            r"Transformer\.encoderblock_(\d+)\.MultiHeadDotProductAttention_\d\.out\.(.*)",
            r"blocks.\1.attn.proj.\2",
        ),
        (r"Transformer\.encoderblock_(\d+)\.MlpBlock_\d\.Dense_0\.(.*)", r"blocks.\1.mlp.fc1.\2"),
        (r"Transformer\.encoderblock_(\d+)\.MlpBlock_\d\.Dense_1\.(.*)", r"blocks.\1.mlp.fc2.\2"),
        (r"Transformer\.encoder_norm\.(.*)", r"norm.\1"),
    ),
}
#: timm's Eva
_EVA = (
    (r"(blocks\.\d+)\.gamma_(\d)", r"\1.ls\2.gamma"),
    (r"(blocks\.\d+\.attn)\.q_(?:proj\.)?(weight|bias)", r"\1.query.\2"),
    (r"(blocks\.\d+\.attn)\.k_(?:proj\.)?(weight|bias)", r"\1.key.\2"),
    (r"(blocks\.\d+\.attn)\.v_(?:proj\.)?(weight|bias)", r"\1.value.\2"),
)
_SEPARATE = re.compile(r"(.*\.attn\.)(?:query|key|value)\.(weight|bias)")
HEAD_SIZE = 64  # channels, in every common vision transformer
PERIODS = "rope_embed.periods"  #: of rotary positions, in DINOv3's own checkpoints
#: tensors that every library drops at inference, or keeps as an index
_IDLE = re.compile(r"(embeddings\.)?mask_token|embeddings\.position_ids|local_cls_norm\..*|n_averaged")
#: the text side of CLIP in transformers, and in OpenAI's names, where it has no name of its own
_TEXT = re.compile(r"text_model\..*|text_projection.*|logit_(scale|bias)")
_TEXT_OPENAI = re.compile(r"transformer\..*|token_embedding\..*|positional_embedding|ln_final\..*")


def networks(names: Iterable[str]) -> list[str]:
    """Prefixes under which a vision transformer's tensors stand in a state dict; "" for none."""
    found = (match["prefix"] for name in names if (match := _ANCHOR.fullmatch(name)))
    return list(dict.fromkeys(found))


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """One of the `networks` of a state dict, and what stands beside them, such as a head.

    Of the names beside it, the part of the prefix that they share is removed: of ``model.vit.`` and
    ``model.classifier.weight``, ``model.``. Other networks are left out.
    """
    others = [other for other in networks(state) if other != prefix and not prefix.startswith(other)]
    found = {}
    for name, tensor in state.items():
        if any(name.startswith(other) for other in others):
            continue
        shared = prefix
        while not name.startswith(shared):
            shared = shared[: shared.rstrip(".").rfind(".") + 1]
        found[name[len(shared) :]] = tensor
    return found


def timm_names(state: Mapping[str, Tensor], eva: bool = False) -> dict[str, Tensor]:
    """A state dict of another library with timm's names and shapes; queries, keys and values are joined.

    So are gate and value of a gated FFN, in this order. Names that are timm's already, or unknown, stay;
    with ``eva`` those of timm's Eva become those of its VisionTransformer.
    """
    renamed: dict[str, Tensor] = {}
    openai, jax = "visual.conv1.weight" in state, "embedding.kernel" in state
    names = (
        *_NAMES,
        *(_EVA if eva else ()),
        *(row for tensor, rows in _MORE_NAMES.items() if tensor in state for row in rows),
    )
    for name, tensor in state.items():
        if _IDLE.fullmatch(name) or _TEXT.fullmatch(name) or (openai and _TEXT_OPENAI.fullmatch(name)):
            continue
        for pattern, new in (*names, *(_POOLING if "head.probe" in state else ())):
            if match := re.fullmatch(pattern, name):
                name = match.expand(new)
                break
        if jax:
            name, tensor = _of_jax(name, tensor)
        renamed[name] = tensor
    for part in ("weight", "bias"):
        if (joined := renamed.pop(f"attn_pool.qkv.{part}", None)) is not None:
            third = len(joined) // 3
            renamed[f"attn_pool.q.{part}"], renamed[f"attn_pool.kv.{part}"] = joined[:third], joined[third:]
    if "visual_projection" in renamed:
        renamed["head.weight"] = renamed.pop("visual_projection").T.contiguous()
    if openai or "embeddings.patch_embedding.weight" in state:  # SigLIP's and CLIP's lack the batch
        for name in {"cls_token", "pos_embed"} & renamed.keys():
            renamed[name] = renamed[name].reshape(1, -1, renamed[name].shape[-1])
    for name in [name for name in renamed if name.endswith(".attn.qkv.bias_mask")]:
        _mask(renamed, name)
    separate = (match for name in renamed if (match := _SEPARATE.fullmatch(name)))
    for stem, end in dict.fromkeys((match[1], match[2]) for match in separate):
        parts = [f"{stem}{part}.{end}" for part in ("query", "key", "value")]
        if end == "bias":  # BEiT's keys have none, and DINOv3's may lack any
            given = next(renamed[part] for part in parts if part in renamed)
            renamed |= {part: torch.zeros_like(given) for part in parts if part not in renamed}
        _join(renamed, parts, f"{stem}qkv.{end}")
    for name in [name for name in renamed if re.search(r"\.mlp\.gate\.", name)]:
        first = name.replace(".gate.", ".fc1.")
        _join(renamed, [name, first], first)
    return renamed


def _join(state: dict[str, Tensor], parts: Sequence[str], name: str) -> None:
    """One layer of several, if all are there and have one shape."""
    if len({state[part].shape if part in state else None for part in parts}) == 1 and parts[0] in state:
        state[name] = torch.cat([state.pop(part) for part in parts])


def _mask(state: dict[str, Tensor], name: str) -> None:
    """Leave out what a mask of DINOv3's repository leaves out of the bias: zeros, or NaN for keys."""
    bias = state.get(name.removesuffix("_mask"))
    if bias is not None and bias.shape == state[name].shape and bias.ndim == 1:
        q, k, v = (bias * state.pop(name)).tensor_split(3)
        state[name.removesuffix("_mask")] = torch.cat([q, k.where(~k.isnan(), 0), v])


def _of_jax(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """A tensor of JAX as PyTorch has it: outputs come first, and heads and their channels are joined."""
    stem, _, part = name.rpartition(".")
    if part == "kernel" and tensor.ndim == 4:
        return f"{stem}.weight", tensor.permute(3, 2, 0, 1).contiguous()
    if part == "kernel" and tensor.ndim > 1:
        matrix = tensor.flatten(0, -2) if stem.endswith(".proj") else tensor.flatten(1)
        return f"{stem}.weight", matrix.T.contiguous()
    if part == "bias":
        return name, tensor.flatten()
    return (f"{stem}.weight", tensor) if part == "scale" else (name, tensor)


def heads_in(state: Mapping[str, Tensor]) -> int | None:
    """Heads, before `timm_names`, where tensors say them: JAX's axes, DINOv3's periods."""
    patch, periods = (state.get(name) for name in ("patch_embed.proj.weight", PERIODS))
    if patch is not None and patch.ndim and periods is not None and periods.numel():
        return len(patch) // (4 * periods.numel())
    return next(
        (t.shape[1] for name, t in state.items() if name.endswith("query.kernel") and t.ndim == 3), None
    )


def library(state: Mapping[str, Tensor]) -> str:
    """Whose names a state dict has, before `timm_names`.

    "timm", "transformers", "torchvision", "openai", "mmpretrain" or "jax".
    """
    if any(name.startswith("embeddings.") for name in state):
        return "transformers"
    if "visual.conv1.weight" in state:
        return "openai"
    if "patch_embed.projection.weight" in state:
        return "mmpretrain"
    if "embedding.kernel" in state:
        return "jax"
    return "torchvision" if "conv_proj.weight" in state else "timm"
