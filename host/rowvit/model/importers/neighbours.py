# SPDX-License-Identifier: Apache-2.0
"""What timm, transformers and optimum write beside the weights: settings and preprocessing, as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rowvit.errors import RowvitError
from rowvit.model.store import Card

#: files with weights, in the order of preference
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.onnx")
_BILINEAR = 2  # Pillow's number
_WINDOWS = "attention in windows"
_CONVOLUTIONS = "convolutions"
#: networks by transformers' ``model_type`` that the accelerator does not run: what they are, and have
_OTHERS = {
    "dinov3_vit": ("DINOv3", "rotary positions"),
    "dinov3_convnext": ("DINOv3 ConvNeXt", _CONVOLUTIONS),
    "aimv2": ("AIMv2", "RMSNorm and a gated FFN"),
    "aimv2_vision_model": ("AIMv2", "RMSNorm and a gated FFN"),
    "pixtral": ("Pixtral", "rotary positions"),
    "swin": ("Swin", f"{_WINDOWS} and relative positions"),
    "swinv2": ("Swin v2", f"{_WINDOWS} and relative positions"),
    "hiera": ("Hiera", f"{_WINDOWS} and pooling between its layers"),
    "vitdet": ("ViTDet", f"{_WINDOWS} and relative positions"),
    **dict.fromkeys(("sam", "sam_vision_model"), ("SAM", f"{_WINDOWS} and relative positions")),
    "mlcd_vision_model": ("MLCD", "rotary positions"),
    "pvt": ("PVT", "attention to fewer tokens, and patches of patches"),
    "pvt_v2": ("PVT v2", "attention to fewer tokens, and convolutions"),
    "segformer": ("SegFormer", "attention to fewer tokens, and convolutions"),
    "levit": ("LeViT", "convolutions, and attention with a bias"),
    "cvt": ("CvT", _CONVOLUTIONS),
    "mobilevit": ("MobileViT", _CONVOLUTIONS),
    "mobilevitv2": ("MobileViT v2", _CONVOLUTIONS),
    **{
        kind: (name, "no attention, but convolutions")
        for kind, name in (
            *(("convnext", "ConvNeXt"), ("convnextv2", "ConvNeXt v2"), ("resnet", "ResNet"), ("bit", "BiT")),
            *(("mobilenet_v1", "MobileNet v1"), ("mobilenet_v2", "MobileNet v2"), ("regnet", "RegNet")),
            *(("efficientnet", "EfficientNet"), ("poolformer", "PoolFormer")),
        )
    },
}
#: settings of networks that it runs only without them, and what they bring
_SETTINGS = {
    "use_swiglu_ffn": "a gated FFN",
    "use_relative_position_bias": "relative positions",
    "use_shared_relative_position_bias": "relative positions",
    "use_qk_norm": "normalised queries and keys",
}


@dataclass
class Neighbours:
    """The settings of the folder that the weights are in; empty where there are none."""

    config: dict[str, Any] = field(default_factory=dict)
    pixels: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("vision_config", "backbone_config"):  # of CLIP and SigLIP, of DepthAnything
            part = self.config.get(key)
            self.config = self.config | part if isinstance(part, dict) else self.config

    @property
    def of_timm(self) -> bool:
        """Whether timm wrote them."""
        return "architecture" in self.config

    @property
    def foreign(self) -> str:
        """What the network is and has that the accelerator does not run, by its settings; else empty."""
        kind = str(self.config.get("model_type", ""))
        name, what = _OTHERS.get(kind, (f"transformers' {kind}", ""))
        found = [what] if what else [text for key, text in _SETTINGS.items() if self.config.get(key)]
        return f"this is {name}: {' and '.join(dict.fromkeys(found))}" if found else ""

    @property
    def classes(self) -> list[str]:
        """Class names of transformers."""
        labels = self.config.get("id2label", {})
        return [str(labels[key]) for key in sorted(labels, key=int)]

    @property
    def says_pixels(self) -> bool:
        """Whether transformers says how photos are normalised."""
        return "image_mean" in self.pixels or not self.pixels.get("do_normalize", True)

    def fill(self, card: Card) -> None:
        """Write transformers' preprocessing and class names to a card."""
        pixels = self.pixels
        card.classes = self.classes or card.classes
        if pixels and not pixels.get("do_normalize", True):
            card.mean, card.std = [0.0] * 3, [1.0] * 3
        else:
            card.mean = list(pixels.get("image_mean", card.mean))
            card.std = list(pixels.get("image_std", card.std))
        if "resample" in pixels:
            card.resize = "bilinear" if pixels["resample"] == _BILINEAR else "bicubic"
        scaled, cut = (_side(pixels.get(key)) for key in ("size", "crop_size"))
        if pixels.get("do_center_crop") and scaled and cut:
            card.crop = min(1.0, cut / scaled)


def _side(size: Any) -> int:
    """Of a size as transformers writes it: a number, or a dictionary by edge; 0 if there is none."""
    if isinstance(size, dict):
        return int(size.get("shortest_edge") or size.get("height") or 0)
    return int(size or 0)


def read_neighbours(path: Path) -> Neighbours:
    """The settings beside the weights in ``path``; `RowvitError` if one of them is not JSON."""
    return Neighbours(*(_json(path.with_name(name)) for name in ("config.json", "preprocessor_config.json")))


def weights_in(folder: Path) -> Path:
    """The file with weights in a folder as timm, transformers and optimum write it.

    Raises
    ------
    RowvitError
        If there is none, or only parts of one.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    if any(folder.glob("*.index.json")):
        raise RowvitError(f"{folder}: holds weights in several files", "save them in one (max_shard_size)")
    raise RowvitError(f"{folder}: holds none of {', '.join(WEIGHTS)}", "name the file with the weights")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise RowvitError(f"{path}: is not readable as JSON", "fix it or move it away") from error
    return found if isinstance(found, dict) else {}
