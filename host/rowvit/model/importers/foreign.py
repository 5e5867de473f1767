# SPDX-License-Identifier: Apache-2.0
"""Networks that the accelerator does not run: which they are and what they have, by settings and by names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from rowvit.errors import RowvitError

MIXED = "mixed rotary positions (a pair of channels turns by row and column at once)"
_RELATIVE = "relative positions"
_WINDOWS = "attention in windows"
CONVOLUTIONS = "convolutions"
ANY_SHAPE = "patches of photos of any shape"
_PADDED = "patches of a padded photo"
_TURNING = "a class token that turns like the patches"
_FRAMES = "patches of several frames"
_NO_MEAN = "norms without a bias, such as RMSNorm"
_NO_ATTENTION = "no attention, but convolutions"
_ONNX = "export it as ONNX"
_BY_NAME = "import it by the name that timm has for it: timm:NAME --weights FILE"
#: instead of an ONNX file
ORIGIN = "import the folder, state dict or timm name that it came from"
_FROM_ONNX = "whose rotary positions are not read from ONNX"


class Foreign(NamedTuple):
    """What a network is, and what it has that the accelerator does not run."""

    what: Sequence[str]
    name: str = ""  #: its family, such as "DINOv3"; empty where only the parts are known
    shown: str = ""  #: the first tensor, or fact about tensors, that shows it
    unread: str = ""  #: instead of ``what``: why its tensors cannot be read
    advice: str = ""  #: what to do where it is not read

    def __str__(self) -> str:
        shown = self.shown if self.shown.startswith("'") else repr(self.shown)
        begin = f"this is {self.name} ({shown})" if self.name else f"the state dict has {shown}"
        return f"{begin}, {self.unread}" if self.unread else f"{begin}: {lacking(self.what)}"

    def error(self, source: object = "", advice: str = "") -> RowvitError:
        """The refusal of a state dict."""
        return RowvitError(f"{source}: {self}" if source else str(self), self.advice or advice)


def lacking(what: Sequence[str]) -> str:
    """The parts of a network as a refusal names them."""
    *first, last = dict.fromkeys(what)
    parts = f"{', '.join(first)} and {last}" if first else last
    return f"{parts}, which the accelerator does not run"


# -- by settings ---------------------------------------------------------------------------------------

#: networks by transformers' ``model_type``: what they are, and have
KINDS = {
    "dinov3_convnext": ("DINOv3 ConvNeXt", _NO_ATTENTION),
    **dict.fromkeys(("aimv2", "aimv2_vision_model"), ("AIMv2", "RMSNorm")),
    **dict.fromkeys(("siglip2", "siglip2_vision_model"), ("SigLIP 2 NaFlex", ANY_SHAPE)),
    "groupvit": ("GroupViT", "blocks that group tokens"),
    "vitpose_backbone": ("ViTPose", _PADDED),
    "pixtral": ("Pixtral", f"RMSNorm and {ANY_SHAPE}"),
    "mlcd_vision_model": ("MLCD", _TURNING),
    "llama4_vision_model": ("Llama 4's image side", "patches joined behind the last LayerNorm"),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), ("Qwen VL", f"{ANY_SHAPE} and {_FRAMES}")),
    # windows
    **dict.fromkeys(("swin", "maskformer-swin", "donut-swin"), ("Swin", f"{_WINDOWS} and {_RELATIVE}")),
    **dict.fromkeys(("swinv2", "swin2sr"), ("Swin v2", f"{_WINDOWS} and {_RELATIVE}")),
    "hiera": ("Hiera", f"{_WINDOWS} and pooling between its layers"),
    **dict.fromkeys(("vitdet", "vitmatte"), ("ViTDet", f"{_WINDOWS} and {_RELATIVE}")),
    **dict.fromkeys(("sam", "sam_vision_model", "sam_hq"), ("SAM", f"{_WINDOWS} and {_RELATIVE}")),
    "sam2": ("SAM 2", f"{_WINDOWS} and pooling between its layers"),
    "dinat": ("DiNAT", "attention to neighbours alone"),
    # video
    "videomae": ("VideoMAE", _FRAMES),
    "vivit": ("ViViT", _FRAMES),
    "timesformer": ("TimeSformer", "attention over space and time in turns"),
    "vjepa2": ("V-JEPA 2", _FRAMES),
    # convolutions beside attention
    "pvt": ("PVT", "attention to fewer tokens, and patches of patches"),
    "pvt_v2": ("PVT v2", "attention to fewer tokens, and convolutions"),
    **dict.fromkeys(("segformer", "glpn"), ("SegFormer", "attention to fewer tokens, and convolutions")),
    "levit": ("LeViT", "convolutions, and attention with a bias"),
    "cvt": ("CvT", CONVOLUTIONS),
    "mobilevit": ("MobileViT", CONVOLUTIONS),
    "mobilevitv2": ("MobileViT v2", CONVOLUTIONS),
    **dict.fromkeys(("detr", "conditional_detr", "deformable_detr", "rt_detr"), ("DETR", CONVOLUTIONS)),
    **{
        kind: (name, _NO_ATTENTION)
        for kind, name in (
            *(("convnext", "ConvNeXt"), ("convnextv2", "ConvNeXt v2"), ("resnet", "ResNet"), ("bit", "BiT")),
            *(("mobilenet_v1", "MobileNet v1"), ("mobilenet_v2", "MobileNet v2"), ("regnet", "RegNet")),
            *(("efficientnet", "EfficientNet"), ("poolformer", "PoolFormer"), ("focalnet", "FocalNet")),
            ("swiftformer", "SwiftFormer"),
        )
    },
}
#: names of networks that it runs, but for some settings
_NAMES = {"dinov3_vit": "DINOv3"}
#: settings of networks that it runs only without them, and what they bring
_SETTINGS = {
    "use_relative_position_bias": _RELATIVE,
    "use_shared_relative_position_bias": _RELATIVE,
    "use_qk_norm": "normalised queries and keys",
    "is_hybrid": CONVOLUTIONS,
}


def by_settings(config: Mapping[str, Any]) -> str:
    """What transformers' ``config.json`` says of a network that the accelerator does not run; else empty."""
    kind = str(config.get("model_type", ""))
    name, what = KINDS.get(kind, (_NAMES.get(kind, f"transformers' {kind}"), ""))
    found = [what] if what else [text for key, text in _SETTINGS.items() if config.get(key)]
    return f"this is {name}: {lacking(found)}" if found else ""


# -- by the names of tensors, or of timm's modules -----------------------------------------------------


_NOTHING = "(?!)"  # matches no name


class _Family(NamedTuple):
    """Networks whose tensors' names, or facts about them, match all of ``shown`` and none of ``lacks``."""

    name: str
    shown: tuple[str, ...]
    what: tuple[str, ...] = ()
    lacks: str = _NOTHING
    kept: bool = True  #: whether ONNX keeps the names that it lacks; exporters fold what adds to constants
    unread: str = ""
    advice: str = ""


_ROPE = r"\b(rope|rotary)|inv_freq|freqs_cos"
_NO_BIAS = r"norm_?1\.weight', without a bias"
_TABLE = r"\brelative_position_bias_table\b"
_ALONE = "and no attention"
_ATTENTION = re.compile(r"att(n|ention)|qkv|[qkv]_proj|query|in_proj|mhsa|transformer", re.IGNORECASE)
_STAGES = r"\b(stages|layers|features)\.\d+(\.blocks|\.attn_blocks)?\.\d+\."

#: the first that fits names the network, and adds what its tensors do not show
_FAMILIES = (
    _Family("EVA-02", (r"\bmlp\.(fc1_g|w3)\b", r"\bmlp\.(norm|ffn_ln)\b")),
    _Family("AIMv2", (r"\brms_norm1\.|\bpatchifier\.",), (_NO_MEAN,)),
    _Family("AIMv2", (r"\bmlp\.fc1_g\b", _NO_BIAS), (_NO_MEAN,), lacks=r"\bgamma_1\b"),
    _Family(
        "Perception Encoder",
        (r"\b(norm_pre|ln_pre)\.", r"\battn_pool\.(latent|probe)\b"),
        kept=False,
        unread="and a state dict does not say by which angles its positions turn",
        advice=_BY_NAME,
    ),
    _Family("Swin v2", (r"\b(cpb_mlp|continuous_position_bias_mlp|meta_mlp)\b",), (_WINDOWS, _RELATIVE)),
    _Family("Swin", (f"{_STAGES}.*{_TABLE}",), (_WINDOWS,), lacks="conv"),
    _Family("BEiT or Data2Vec", (_TABLE,), lacks=_STAGES),
    _Family("SAM or ViTDet", (r"\brel_pos_[hw]\b",), (_WINDOWS,), lacks=_STAGES),
    _Family("Hiera", (r"\bblocks\.\d+\.proj\.",), (_WINDOWS, "pooling between its layers"), "pool_q"),
    _Family(
        "ViTPose",
        (r"\battention\.attention\.query\b", r"\blayernorm_before\b", r"\bmlp\.fc1\b"),
        (_PADDED,),
        lacks=r"\bcls_token\b",
        kept=False,
    ),
    _Family("NaFlex", (r"\bembeds\.proj\b|'.*', a matrix",), (ANY_SHAPE,)),
    _Family("lucidrains' vit-pytorch", (r"\bto_patch_embedding\.3\.",), ("a LayerNorm of a patch's pixels",)),
    _Family(
        "lucidrains' vit-pytorch",
        (r"\bto_patch_embedding\.",),
        unread="whose names are not read",
        advice=_ONNX,
    ),
    _Family("a video network", ("'.*', of several frames",), (_FRAMES,)),
    _Family("MLP-Mixer", (r"\bmlp_tokens\b",), ("no attention, but FFNs across tokens",)),
    _Family("ResNet or its kin", (r"\blayer1\.0\.conv1\.|\bresnet\.encoder\.", _ALONE), (_NO_ATTENTION,)),
    _Family("MobileNet or its kin", (r"\bconv_stem\.", _ALONE), (_NO_ATTENTION,)),
    _Family("ConvNeXt or its kin", (r"\bstages\..*\.(conv_dw|dwconv)\b", _ALONE), (_NO_ATTENTION,)),
    _Family("a convolutional network", (_ALONE,), (_NO_ATTENTION,)),
    _Family(
        "Eva or BEiT in timm's names",
        (r"\bgamma_1\b|\battn\.q_bias\b",),
        lacks=f"{_TABLE}|token_only",
        kept=False,
        unread="which do not say whether and how its positions turn, and where its LayerNorms are",
        advice=_BY_NAME,
    ),
    _Family(
        "a network with rotary positions",
        (_ROPE,),
        lacks=r"\brope_embed\.periods|\brope\.freqs\b",
        kept=False,
        unread="whose angles are read from DINOv3's state dicts and by timm's names alone",
        advice=_BY_NAME,
    ),
)
#: of a gated FFN, where only the names of biases are left
_GATE = r"\b(mlp|ffn)\.(w12|w3|fc1_g|fc1_x|weights_in|gate_proj)\b"
#: those of which ONNX has the names, and networks that are not read from it, though they run
_IN_ONNX = (
    *(family for family in _FAMILIES if family.kept),
    _Family(
        "DINOv3",
        (r"\blayer\.\d+\.mlp\.up_proj\b",),
        lacks=r"\bencoder\.layer\b",  # DINOv2's
        unread=_FROM_ONNX,
        advice=ORIGIN,
    ),
    _Family(
        "a network with rotary positions", (_ROPE,), unread="which are not read from ONNX", advice=ORIGIN
    ),
    _Family("a network with a gated FFN", (_GATE,), unread="which is not read from ONNX", advice=ORIGIN),
)

#: parts, in the order of naming
_PARTS = (
    (r"\b[qk]_(layer)?norm\b", "normalised queries and keys"),
    (r"\bmlp\.(norm|ffn_ln)\b", "a norm inside the FFN"),
    (r"\battn\.(norm|inner_attn_ln)\b", "a norm inside attention"),
    (rf"{_NO_BIAS}|\bRms", _NO_MEAN),
    (r"window|Window|\bwin_attn|\bw_msa\b", _WINDOWS),
    (r"\brope\.freqs\b", MIXED),
    (r"\bclass_pos_emb\b", _TURNING),
    (r"\battn\.gate\b", "attention with a gate"),
    (r"rel(ative)?_pos|attention_bias|RelPos", _RELATIVE),
    (r"\bmid_position_embeddings\b", "positions added between the blocks"),
    (r"proj_l\b|talking|TalkingHead", "attention whose heads are mixed"),
    (r"\bgating_param\b", "attention gated by positions"),
    (r"\blambda_q\d\b", "differential attention"),
    (r"\.sr\.", "attention to fewer tokens"),
    (r"\battn\.temperature|\bXCA\b", "attention across channels"),
    (r"\b(attns|ffns)\.\d|\bin_proj\.|ParallelScaling|ParallelThings", "attention and FFN side by side"),
    (r"blocks_token_only|ClassAttn", "blocks for the class token alone"),
    (r"\bpatch_embed\.backbone\.|\bembeddings\.backbone\.|\bconv_root\.|\bBatchNorm", CONVOLUTIONS),
    (r"'.*', one of several convolutions", CONVOLUTIONS),
)
#: likewise what follows the last LayerNorm
_HEAD_PARTS = (
    (
        r"^attn_pool\.(?!(latent|q|kv|proj|norm|mlp)\b)|\bMAPHead_0\.",
        "pooling by attention of another kind than SigLIP's",
    ),
    (r"^(head\.(layers\.)?\d+\.|head\.(mlp|fc\d?|last_layer)\b|pre_logits\.)", "a head of several layers"),
)


def by_names(names: Iterable[str], heads: bool = True, all_there: bool = True) -> Foreign | None:
    """What names say of a network that the accelerator does not run, None if nothing.

    Parameters
    ----------
    names : iterable of str
        Of tensors, with `facts` about them, or of timm's modules.
    heads : bool
        Whether what follows the last LayerNorm counts.
    all_there : bool
        Whether a name that lacks says something, unlike in ONNX.
    """
    names, shown = list(names), ""
    parts: list[str] = []
    for pattern, part in (*_PARTS, *(_HEAD_PARTS if heads else ())):
        if first := _first(names, pattern):
            shown, parts = shown or first, [*parts, part]
    for family in _FAMILIES if all_there else _IN_ONNX:
        firsts = [_first(names, pattern) for pattern in family.shown]
        if all(firsts) and not _first(names, family.lacks):
            if family.unread:
                why = ("", "") if parts else (family.unread, family.advice)
                return Foreign(parts, family.name, firsts[0], *why)
            known = " ".join(family.what)
            return Foreign(
                [*family.what, *(part for part in parts if part not in known)], family.name, firsts[0]
            )
    return Foreign(parts, "", shown) if parts else None


def _first(names: Sequence[str], pattern: str) -> str:
    return next((name for name in names if re.search(pattern, name)), "")


def facts(state: Mapping[str, Tensor], whole: bool = False) -> Iterator[str]:
    """Names of a state dict's tensors, and what their shapes say; these begin with a quote.

    ``whole``: all of it is the network, so that convolutions are its own, not those of a decoder.
    """
    yield from state
    for name, tensor in state.items():
        if name.endswith(("norm1.weight", "norm_1.weight")) and f"{name[:-6]}bias" not in state:
            yield f"'{name}', without a bias"
        if re.search(r"\bpatch_embed", name) and tensor.ndim == 5 and tensor.shape[1] == 3:
            yield f"'{name}', of several frames"
        if name.endswith("embeddings.patch_embedding.weight") and tensor.ndim == 2:
            yield f"'{name}', a matrix"
    kernels = [name for name, tensor in state.items() if tensor.ndim == 4 and max(tensor.shape[2:]) > 1]
    if whole and len(kernels) > 1:
        beside = any(map(_ATTENTION.search, state))
        yield f"'{kernels[-1]}', {'one of several convolutions' if beside else f'a convolution, {_ALONE}'}"
