# SPDX-License-Identifier: Apache-2.0
"""Networks that people keep, as timm, transformers and torchvision make them: which of them are imported.

    python benchmarks/networks.py [--only REGEX] [--record]

A network has random weights, no two of them alike, and is written as its users keep it: a state dict, a
folder of its library, ONNX by `torch.onnx.export`, or a timm name. Width, heads, patches and image are the
original's. Depth is two blocks where a library lets it be chosen, since all blocks of these families are
alike; pyramids and convolutional networks are whole.

A file is "equal" if its output, or its tokens behind the last LayerNorm, are within 1e-4 of the library's
own, relative to the largest; "refused truly" if the refusal has the words that stand beside the network here,
which are by hand, from papers and the libraries' code; "refused wrongly" if it lacks them, or if there are
none; and "wrong" otherwise.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import timm
import torch
import torchvision
import transformers
import typer
from record import Record, record
from torch import Tensor, nn

from rowvit.errors import RowvitError
from rowvit.model.importers import import_model
from rowvit.model.vit import VisionTransformer

TOLERANCE = 1e-4
OUTCOMES = ("equal", "refused truly", "refused wrongly", "wrong")


class Network(NamedTuple):
    """A network of a family; ``word`` is a regular expression that a refusal must contain, empty for none."""

    family: str
    name: str
    make: Callable[[], nn.Module]
    forms: tuple[str, ...]
    word: str = ""
    options: dict[str, Any] = {}  #: of `import_model`, as a user is told to pass them
    theirs: Callable[[nn.Module, Tensor], Tensor] | None = None  #: the library's own tokens, where not usual


# -- the networks --------------------------------------------------------------------------------------

TABLE: list[Network] = []


def of_timm(
    family: str,
    names: str,
    word: str = "",
    forms: str = "dict folder",
    encoder: bool = False,
    **arguments: Any,
) -> None:
    """Add networks of timm by their names; one whose folder is foreign must be refused by name, too."""
    for name in names.split():
        make = _timm(name, arguments)
        chosen = (f"name {forms}" if word and not encoder and "folder" in forms else forms).split()
        TABLE.append(Network(family, name, make, tuple(chosen), word, {"encoder": True} if encoder else {}))


def _timm(name: str, arguments: dict[str, Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        network = timm.create_model(name, **arguments)
        network.arguments = arguments
        return network

    return make


def of_transformers(
    family: str,
    kind: str,
    settings: dict[str, Any],
    word: str = "",
    forms: str = "dict folder",
    encoder: bool = False,
    theirs: Callable[[nn.Module, Tensor], Tensor] | None = None,
) -> None:
    """Add a network of transformers by its class."""

    def make() -> nn.Module:
        made = getattr(transformers, kind)
        network: nn.Module = made(made.config_class(**settings))
        return network

    size = settings.get("vision_config") or settings.get("backbone_config") or settings
    stated = size if isinstance(size, dict) else size.to_dict()
    options = {"encoder": True} if encoder else {}
    TABLE.append(
        Network(
            family,
            f"{kind} {stated.get('hidden_size', '')}",
            make,
            tuple(forms.split()),
            word,
            options,
            theirs,
        )
    )


def of_torchvision(
    family: str, name: str, make: Callable[[], nn.Module], word: str = "", forms: str = "dict"
) -> None:
    """Add a network of torchvision."""
    TABLE.append(Network(family, f"torchvision {name}", make, tuple(forms.split()), word))


def size(width: int, patch: int = 16, image: int = 224, **more: Any) -> dict[str, Any]:
    """Settings of transformers for a width; 64 channels a head."""
    found = dict(hidden_size=width, num_attention_heads=width // 64, intermediate_size=4 * width)
    return found | dict(num_hidden_layers=2, patch_size=patch, image_size=image) | more


ALL = "dict folder onnx"

of_timm("ViT", "vit_tiny_patch16_224 vit_base_patch32_224", forms=ALL, depth=2)
of_timm(
    "ViT", "vit_small_patch16_224 vit_small_patch32_224 vit_base_patch16_224 vit_base_patch8_224", depth=2
)
of_timm(
    "ViT", "vit_base_patch16_384 vit_large_patch16_224 vit_large_patch32_384 vit_huge_patch14_224", depth=2
)
of_timm("ViT", "vit_base_patch16_reg4_gap_256 vit_so150m2_patch16_reg1_gap_256", depth=2)
of_transformers("ViT", "ViTForImageClassification", size(768), forms=ALL)
of_transformers("ViT", "ViTModel", size(768))
of_transformers("ViT", "ViTModel", size(1024, 32, 384))
for patch, width in ((16, 768), (32, 768), (16, 1024)):
    shape = dict(image_size=224, patch_size=patch, num_layers=2, num_heads=width // 64)
    of_torchvision(
        "ViT",
        f"vit {width} /{patch}",
        lambda shape=shape, width=width: torchvision.models.VisionTransformer(
            **shape, hidden_dim=width, mlp_dim=4 * width
        ),
    )

of_timm("DeiT", "deit_tiny_patch16_224 deit_tiny_distilled_patch16_224", forms=ALL, depth=2)
of_timm("DeiT", "deit_small_patch16_224 deit_base_patch16_224 deit_base_distilled_patch16_384", depth=2)
of_timm("DeiT", "deit3_small_patch16_224 deit3_base_patch16_384 deit3_large_patch16_224", depth=2)
of_transformers("DeiT", "DeiTForImageClassification", size(192))
of_transformers("DeiT", "DeiTForImageClassificationWithTeacher", size(384), forms=ALL)

of_timm("DINO", "vit_small_patch16_224 vit_small_patch8_224 vit_base_patch16_224", depth=2, num_classes=0)
of_transformers("DINO", "ViTModel", size(384))

of_timm("MAE", "vit_base_patch16_224", depth=2, num_classes=0)
of_timm("MAE", "vit_base_patch16_224 vit_large_patch16_224 vit_huge_patch14_224", depth=2, global_pool="avg")


def unmasked(network: nn.Module, images: Tensor) -> Tensor:
    """MAE's tokens in their order."""
    count = (images.shape[-1] // network.config.patch_size) ** 2
    encoder = getattr(network, "vit", network)
    encoder.config.mask_ratio = encoder.embeddings.config.mask_ratio = 0.0
    tokens: Tensor = encoder(images, noise=torch.arange(count)[None].float()).last_hidden_state
    return tokens


of_transformers("MAE", "ViTMAEModel", size(768), theirs=unmasked)
of_transformers("MAE", "ViTMAEForPreTraining", size(768), encoder=True, theirs=unmasked)

of_timm("DINOv2", "vit_small_patch14_dinov2", forms=ALL, depth=2, img_size=224)
of_timm("DINOv2", "vit_base_patch14_dinov2 vit_large_patch14_dinov2", depth=2)
of_timm("DINOv2", "vit_small_patch14_reg4_dinov2 vit_base_patch14_reg4_dinov2", depth=2)
of_transformers("DINOv2", "Dinov2Model", size(384, 14, 518))
of_transformers("DINOv2", "Dinov2Model", size(768, 14, 518))
of_transformers("DINOv2", "Dinov2WithRegistersModel", size(768, 14, 518))
of_transformers("DINOv2", "Dinov2ForImageClassification", size(384, 14), forms=ALL)
of_transformers("DINOv2", "Dinov2WithRegistersForImageClassification", size(384, 14))

of_timm("DINOv2 giant", "vit_giant_patch14_dinov2 vit_giant_patch14_reg4_dinov2", depth=2)
of_timm("DINOv2 giant", "vit_giant_patch14_dinov2", "gated FFN, which is not read", forms="onnx", depth=2)
of_transformers("DINOv2 giant", "Dinov2Model", size(1536, 14, use_swiglu_ffn=True))

dinov3 = "vit_small_patch16_dinov3 vit_base_patch16_dinov3 vit_large_patch16_dinov3"
of_timm("DINOv3", dinov3, forms="folder", depth=2)
of_timm("DINOv3", dinov3, "how its positions turn", forms="dict", depth=2)
of_timm("DINOv3", "vit_small_patch16_dinov3", "not read from ONNX", forms="onnx", depth=2)
plus = "vit_small_plus_patch16_dinov3 vit_huge_plus_patch16_dinov3"
of_timm("DINOv3", plus, forms="folder", depth=2)
of_timm("DINOv3", plus, "how its positions turn", forms="dict", depth=2)
of_transformers("DINOv3", "DINOv3ViTModel", size(384, num_register_tokens=4))
of_transformers("DINOv3", "DINOv3ViTModel", size(384), "DINOv3.*not read from ONNX", forms="onnx")
of_transformers("DINOv3", "DINOv3ViTModel", size(768, 16, 512, num_register_tokens=4), forms="folder")
of_transformers(
    "DINOv3", "DINOv3ViTModel", size(1280, use_gated_mlp=True, hidden_act="silu", num_register_tokens=4)
)
of_timm("DINOv3", "convnext_tiny", "no attention")

of_timm("CLIP", "vit_base_patch32_clip_224", forms=ALL, depth=2)
of_timm(
    "CLIP",
    "vit_base_patch16_clip_quickgelu_224 vit_large_patch14_clip_336 vit_huge_patch14_clip_224",
    depth=2,
)
of_transformers("CLIP", "CLIPVisionModelWithProjection", size(768, 32, projection_dim=512), forms=ALL)
of_transformers("CLIP", "CLIPVisionModel", size(1024, 14, 336))
of_transformers(
    "CLIP", "CLIPVisionModelWithProjection", size(1280, 14, hidden_act="gelu", num_attention_heads=16)
)
of_transformers(
    "CLIP",
    "CLIPModel",
    dict(vision_config=size(768), text_config=dict(num_hidden_layers=1, vocab_size=100), projection_dim=512),
    theirs=lambda network, images: network.visual_projection(network.vision_model(images).pooler_output),
)
of_transformers("CLIP", "OwlViTVisionModel", size(768, 32, 768))
of_transformers("CLIP", "BlipVisionModel", size(768, 16, 384))

of_timm("SigLIP", "vit_base_patch16_siglip_gap_224", depth=2, num_classes=0)
of_timm("SigLIP", "vit_base_patch16_siglip_224 vit_so400m_patch14_siglip_384", encoder=True, depth=2)
of_timm("SigLIP", "vit_base_patch16_siglip_224 vit_base_patch16_siglip_512", depth=2)
of_timm("SigLIP", "vit_so400m_patch14_siglip_384", depth=2)
of_timm("SigLIP", "vit_base_patch16_siglip_224", "pool", forms="onnx", depth=2)
so400m = size(1152, 14, 384, num_attention_heads=16, intermediate_size=4304)
of_transformers("SigLIP", "SiglipForImageClassification", size(768, num_labels=5), forms=ALL)
of_transformers("SigLIP", "SiglipVisionModel", size(768), encoder=True)
of_transformers("SigLIP", "SiglipVisionModel", so400m, encoder=True)

of_timm("NaFlex", "naflexvit_base_patch16_gap naflexvit_base_patch16_siglip", "any shape", depth=2)
of_transformers("NaFlex", "Siglip2VisionModel", size(768, num_patches=256), "any shape")

eva02 = "eva02_tiny_patch14_224 eva02_small_patch14_336"
of_timm("EVA-02", eva02, forms="folder", depth=2)
of_timm("EVA-02", eva02, "how its positions turn", forms="dict", depth=2)
of_timm("EVA-02", "eva02_tiny_patch14_224", "not read from ONNX", forms="onnx", depth=2)
of_timm(
    "EVA-02",
    "eva02_base_patch14_448 eva02_large_patch14_224 eva02_base_patch16_clip_224",
    "norm inside the FFN",
    depth=2,
)
of_timm("EVA-02", "eva02_enormous_patch14_clip_224", "EvaBlockPostNorm|how its positions turn", depth=2)
of_timm("EVA", "eva_large_patch14_196", depth=2)
of_timm("EVA", "eva_giant_patch14_224", forms="folder", depth=2)
of_timm("EVA", "eva_giant_patch14_224", "how its positions turn", forms="dict", depth=2)

rope = "vit_small_patch16_rope_224 vit_base_patch16_rope_ape_224 vit_medium_patch16_rope_reg1_gap_256"
of_timm("RoPE-ViT", rope, forms="folder", depth=2)
of_timm("RoPE-ViT", rope, "how its positions turn", forms="dict", depth=2)
of_timm("RoPE-ViT", "vit_small_patch16_rope_224", "not read from ONNX", forms="onnx", depth=2)
of_timm("RoPE-ViT", "vit_small_patch16_rope_mixed_224", "mixed", forms="dict folder", depth=2)

of_timm("BEiT", "beit_base_patch16_224", "relative", forms=ALL, depth=2)
of_timm("BEiT", "beit_large_patch16_384 beitv2_base_patch16_224", "relative", depth=2)
of_timm("BEiT", "beit3_base_patch16_224", "norm inside", depth=2)
of_transformers("BEiT", "BeitForImageClassification", size(768, use_relative_position_bias=True), "relative")
of_transformers("BEiT", "BeitModel", size(768, use_shared_relative_position_bias=True), "relative")
of_transformers("BEiT", "Data2VecVisionModel", size(768, use_relative_position_bias=True), "relative")
plain = size(384, use_absolute_position_embeddings=True, use_relative_position_bias=False)
of_transformers("BEiT", "BeitForImageClassification", plain)
without = size(384, use_absolute_position_embeddings=False, use_relative_position_bias=False)
of_transformers("BEiT", "Data2VecVisionForImageClassification", without, forms="folder onnx")

of_timm("Swin", "swin_tiny_patch4_window7_224", "windows", forms=ALL)
of_timm("Swin", "swin_base_patch4_window7_224 swinv2_tiny_window8_256", "windows")
of_transformers("Swin", "SwinForImageClassification", {}, "windows", forms=ALL)
of_transformers("Swin", "Swinv2Model", {}, "windows")
of_torchvision("Swin", "swin_t", torchvision.models.swin_t, "windows")

core = "vit_pe_core_tiny_patch16_384 vit_pe_core_base_patch16_224"
of_timm("Perception Encoder", core, "beside a class token|by which angles", depth=2)
of_timm("Perception Encoder", core, encoder=True, forms="folder", depth=2)
of_timm("Perception Encoder", "vit_pe_core_tiny_patch16_384", "not read from ONNX", forms="onnx", depth=2)
of_timm("Perception Encoder", "vit_pe_lang_large_patch14_448", "LayerNorm", depth=2)
of_timm("Perception Encoder", "vit_pe_spatial_base_patch16_512", "0 LayerNorms|no LayerNorm behind", depth=2)
of_timm("AIMv2", "aimv2_large_patch14_224 aimv2_huge_patch14_336", "RMSNorm", depth=2)
of_transformers("AIMv2", "Aimv2VisionModel", size(1024, 14), "RMSNorm", forms=ALL)

of_timm("RADIO, InternViT", "vit_base_patch16_radio_v3 vit_intern300m_patch14_448", "LayerNorm", depth=2)
of_transformers("RADIO, InternViT", "InternVLVisionModel", size(1024, 14, 448), "LayerNorm")
of_transformers("I-JEPA, MSN", "IJepaModel", size(1280, 14, num_attention_heads=16))
of_transformers("I-JEPA, MSN", "ViTMSNModel", size(384))
of_transformers("I-JEPA, MSN", "ViTMSNForImageClassification", size(768))


def before_the_neck(network: nn.Module, images: Tensor) -> Tensor:
    """The tokens behind the last LayerNorm, below a decoder."""
    if getattr(network, "backbone", None) is not None:
        found: Tensor = network.backbone(images).feature_maps[-1]
        return found
    tokens: Tensor = network.dpt(images).last_hidden_state
    return tokens


neck = dict(neck_hidden_sizes=[48, 96], reassemble_factors=[1, 1], fusion_hidden_size=64)
for width in (384, 768):
    backbone = transformers.Dinov2Config(
        **size(width, 14, 518), out_features=["stage1", "stage2"], reshape_hidden_states=False
    )
    of_transformers(
        "DPT, Depth Anything",
        "DepthAnythingForDepthEstimation",
        dict(backbone_config=backbone, patch_size=14, reassemble_hidden_size=width) | neck,
        encoder=True,
        theirs=before_the_neck,
    )
of_transformers(
    "DPT, Depth Anything",
    "DPTForDepthEstimation",
    size(1024, 16, 384, num_hidden_layers=4, backbone_out_indices=[0, 1, 2, 3]),
    encoder=True,
    theirs=before_the_neck,
)


def detections_first(network: nn.Module, images: Tensor) -> Tensor:
    """YOLOS's tokens, those of detections before the patches."""
    found = network.vit(images).last_hidden_state
    return torch.cat([found[:, :1], found[:, -100:], found[:, 1:-100]], dim=1)


yolos = dict(num_detection_tokens=100, use_mid_position_embeddings=False)
of_transformers(
    "YOLOS",
    "YolosForObjectDetection",
    size(192, 16, [224, 224], **yolos),
    theirs=detections_first,
)
of_transformers(
    "YOLOS",
    "YolosForObjectDetection",
    size(384, 16, [800, 1333], num_detection_tokens=100, use_mid_position_embeddings=True),
    "between the blocks",
)
of_timm("SAM, ViTDet", "samvit_base_patch16", "windows", depth=2)
of_transformers("SAM, ViTDet", "SamVisionModel", dict(num_hidden_layers=2), "windows")
of_transformers("SAM, ViTDet", "VitDetModel", size(768, use_relative_position_embeddings=True), "windows")
of_timm("SAM, ViTDet", "sam2_hiera_tiny hiera_tiny_224", "windows")
of_transformers("ViTPose", "VitPoseBackbone", size(384, [16, 16], [256, 192]), "padded")

of_timm("hybrids", "vit_tiny_r_s16_p8_224", "convolutions", depth=2)
of_timm(
    "hybrids",
    "tiny_vit_5m_224 mobilevit_s levit_128s maxvit_tiny_tf_224 coatnet_0_rw_224 pvt_v2_b0",
    "convolutions|fewer tokens",
)
of_timm("hybrids", "cait_xxs24_224", "heads are mixed", depth=2)
of_timm("hybrids", "xcit_nano_12_p16_224", "across channels", depth=2)
of_timm("hybrids", "convit_tiny", "gated by positions", depth=2)
of_transformers("hybrids", "MobileViTForImageClassification", {}, "convolutions", forms=ALL)
of_transformers("hybrids", "SegformerForImageClassification", {}, "fewer tokens|convolutions")
of_transformers("hybrids", "DPTModel", size(768, 16, 384, is_hybrid=True), "convolutions", forms="folder")

of_timm("convolutional", "resnet18 mobilenetv3_small_100", "no attention", forms=ALL)
of_timm(
    "convolutional",
    "resnet50 mobilenetv4_conv_small convnext_tiny efficientnet_b0 mixer_b16_224",
    "no attention",
)
of_transformers("convolutional", "ResNetForImageClassification", {}, "no attention")
of_transformers("convolutional", "ConvNextForImageClassification", {}, "no attention")
of_transformers("convolutional", "MobileNetV2ForImageClassification", {}, "no attention")
of_torchvision("convolutional", "resnet50", torchvision.models.resnet50, "no attention")
of_torchvision("convolutional", "mobilenet_v2", torchvision.models.mobilenet_v2, "no attention")
of_torchvision("convolutional", "convnext_tiny", torchvision.models.convnext_tiny, "no attention")


# -- their files, and what becomes of them -------------------------------------------------------------


def shaken(network: nn.Module) -> nn.Module:
    """The network with noise on every parameter: LayerScale and class token begin where they do nothing.

    Tokens and positions become as large as in trained networks, where epsilon hardly counts.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            large = re.search("token|pos|class_embedding", name)
            size = 0.5 if large else 0.02 if parameter.ndim > 1 else 0.1
            parameter.add_(torch.randn_like(parameter), alpha=size)
    return network.eval()


class Answer(nn.Module):
    """The network's logits or features alone, as they are exported."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        found = self.network(images)
        if isinstance(found, Tensor):
            return found
        kinds = ["logits", "image_embeds"]
        # the last hidden state of CLIP's kin has no LayerNorm
        kinds += (
            ["pooler_output"]
            if hasattr(self.network, "vision_model") or "CLIP" in type(self.network).__name__
            else []
        )
        first = next(kind for kind in (*kinds, "last_hidden_state") if getattr(found, kind, None) is not None)
        answer: Tensor = found[first]
        return answer


def settings(network: nn.Module) -> Any:
    """Of the network, or of its image side; None of timm and torchvision."""
    whole = getattr(network, "config", None)
    return getattr(whole, "vision_config", None) or getattr(whole, "backbone_config", None) or whole


def side(network: nn.Module) -> int:
    """Of the image, in pixels."""
    found = getattr(settings(network), "image_size", None)
    found = found or getattr(getattr(network, "patch_embed", None), "img_size", None) or 224
    return int(found if isinstance(found, int) else found[0])


def written(network: nn.Module, form: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file or folder in one form, and what `import_model` must be told beside."""
    if form == "folder":
        if hasattr(network, "save_pretrained"):
            network.save_pretrained(folder)
        else:
            timm.models.save_for_hf(network, folder, model_args=network.arguments, safe_serialization=True)
        return folder, {}
    if form == "onnx":
        path = folder / "network.onnx"
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            example = torch.randn(1, 3, side(network), side(network))
            torch.onnx.export(Answer(network).eval(), (example,), path, dynamo=False, opset_version=17)
        return path, {}
    torch.save(network.state_dict(), folder / "network.pth")
    return folder / "network.pth", told(network)


def told(network: nn.Module) -> dict[str, Any]:
    """What a state dict does not say, and a user does."""
    if (config := settings(network)) is not None:
        heads, act = getattr(config, "num_attention_heads", None), getattr(config, "hidden_act", None)
        act = {"gelu_pytorch_tanh": "gelu_tanh"}.get(act, act)
        act = "silu" if getattr(config, "use_swiglu_ffn", False) else act  # whatever the settings say
        return {"heads": heads, "act": act} if isinstance(heads, int) else {}
    if not isinstance(network, timm.models.VisionTransformer):
        return {}
    pool = {"token": "token", "avg": "norm-mean" if isinstance(network.fc_norm, nn.Identity) else "mean"}
    act = {"QuickGELU": "quick_gelu", "GELUTanh": "gelu_tanh"}.get(
        type(getattr(network.blocks[0].mlp, "act", None)).__name__
    )
    return {"heads": network.blocks[0].attn.num_heads, "pool": pool.get(network.global_pool), "act": act}


def difference(network: Network, original: nn.Module, ours: VisionTransformer) -> float:
    """Of the outputs for one image, relative to the library's largest."""
    images = torch.randn(1, 3, side(original), side(original))
    seen = images[
        ..., : ours.config.image_size, : ours.config.image_size
    ]  # what is left of whole patches is not
    with torch.inference_mode():
        if network.theirs is not None:
            theirs = network.theirs(original, images)
        elif network.options and not hasattr(original, "config"):
            theirs = original.forward_features(images)
        else:
            theirs = original(images).last_hidden_state if network.options else Answer(original)(images)
        found = ours(seen) if theirs.ndim == 2 else ours.norm(ours.encode(seen))
        return float((found - theirs).abs().max() / theirs.abs().max())


def outcome(network: Network, original: nn.Module, form: str) -> tuple[str, str]:
    """One of `OUTCOMES`, and the difference or the refusal."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            if form == "name":
                found = import_model(f"timm:{network.name}", random=True)
            else:
                path, options = written(original, form, Path(folder))
                found = import_model(path, **options, **network.options)
        except RowvitError as error:
            message = str(error).replace(folder, "")
            truly = network.word and re.search(network.word, message) and "\n" not in message
            return OUTCOMES[1 if truly else 2], message
        except Exception as error:
            return "wrong", repr(error)
    if form == "name":
        return "wrong", "imported by its name"
    far = difference(network, original, found.model)
    return ("equal" if far <= TOLERANCE else "wrong"), f"{far:.1e}"


def chosen(only: str) -> list[Network]:
    """The networks whose family and name a regular expression finds."""
    return [network for network in TABLE if re.search(only, f"{network.family} {network.name}")]


def results(only: str) -> Iterator[tuple[Network, str, str]]:
    """Every network, form and outcome, which are printed on the way."""
    for network in chosen(only):
        torch.manual_seed(0)
        original = shaken(network.make())
        for form in network.forms:
            began = time.perf_counter()
            what, how = outcome(network, original, form)
            seconds = time.perf_counter() - began
            print(
                f"{network.family} | {network.name} | {form} | {what} | {seconds:.1f} s | {how}", flush=True
            )
            yield network, form, what


def main(
    only: Annotated[str, typer.Option(help="Regular expression on family and name.")] = "",
    keep: Record = False,
) -> None:
    """Print what becomes of every file, and families with the number of each."""
    logging.disable(logging.WARNING)
    os.environ["TQDM_DISABLE"] = "1"
    torch.set_num_threads(1)
    counts: dict[str, Counter[str]] = {}
    networks: Counter[str] = Counter(entry.family for entry in chosen(only))
    for network, _, what in results(only):
        counts.setdefault(network.family, Counter())[what] += 1
    print("\n| family | networks | files | " + " | ".join(OUTCOMES) + " |\n" + "| -- " * 7 + "|")
    for family, found in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        count = networks[family] or networks.total()
        figures = {"networks": count, "files": found.total()} | {
            what.replace(" ", "_"): found[what] for what in OUTCOMES
        }
        print(f"| {family} | " + " | ".join(map(str, figures.values())) + " |")
        if keep and (family in networks or not only):
            record("networks", family, figures, "torch", "timm", "transformers")


if __name__ == "__main__":
    typer.run(main)
