# SPDX-License-Identifier: Apache-2.0
"""What timm, transformers and optimum write beside the weights: settings and preprocessing, as JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rowvit.errors import RowvitError
from rowvit.formats.container import parse
from rowvit.model.importers.foreign import by_settings
from rowvit.model.store import Card
from rowvit.model.vit import ViTConfig, is_number

#: files with weights, in the order of preference
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.onnx")
#: Pillow's names of resampling, and the ones that are here
_RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
_HERE = ("bilinear", "bicubic")
_BICUBIC = 3  # what most of transformers' processors do
_DINOV3 = "dinov3_vit"  # transformers' model_type
_FIX = "fix the config.json or move it away"
_FIX_PIXELS = "fix it or move it away, and use --mean and --std"
SQUASHED = "{} squeezes photos of any shape into one; here their middle is cut out in that shape"
#: settings of transformers by which photos keep the ratio of their sides
_KEEPS_SHAPE = ("keep_aspect_ratio", "max_size", "format", "do_pad")
_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_OPENAI = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_SQUARE, _LARGER, _LARGEST = ({"height": side, "width": side} for side in (224, 256, 384))
_CUT = {"size": {"shortest_edge": 224}, "resample": 3, "do_center_crop": True, "crop_size": _SQUARE}
#: what its processors do, as they begin, where the settings do not say; a size that is one number is that of
#: a square, except where their own has a shorter side
_PROCESSORS: dict[str, dict[str, Any]] = {
    "ViT": {"size": _SQUARE, "resample": 2, **_HALF},
    "DINOv3ViT": {"size": _SQUARE, "resample": 2, **_IMAGENET},
    "Beit": {"size": _SQUARE, "resample": 3, "crop_size": _SQUARE, **_HALF},
    "DeiT": {"size": _LARGER, "resample": 3, "do_center_crop": True, "crop_size": _SQUARE, **_HALF},
    "CLIP": {**_CUT, **_OPENAI},
    "Bit": {**_CUT, **_OPENAI},
    "SiglipImage": {"size": _SQUARE, "resample": 3, **_HALF},
    "Blip": {"size": _LARGEST, "resample": 3, **_OPENAI},
    "DPT": {"size": _LARGEST, "resample": 3, **_HALF},
}
#: which it is, by networks, where they do not name it
_PROCESSOR_OF = {
    **dict.fromkeys(("vit", "vit_mae", "vit_msn", "ijepa", "trocr"), "ViT"),
    **dict.fromkeys(("beit", "data2vec-vision"), "Beit"),
    **dict.fromkeys(("clip", "metaclip_2", "clip_vision_model"), "CLIP"),
    **dict.fromkeys(("siglip", "siglip_vision_model"), "SiglipImage"),
    "blip": "Blip",
    "deit": "DeiT",
    **dict.fromkeys(("depth_anything", "dpt"), "DPT"),
    "dinov2": "Bit",
    "dinov3_vit": "DINOv3ViT",
}

#: where transformers keeps the settings of a network that is a part of another: of CLIP and SigLIP,
#: DepthAnything, TrOCR, ColPali
_PARTS = ("vision_config", "backbone_config", "encoder", "vlm_config")
#: transformers' settings of a network, and what the weights say of them, by fields of `ViTConfig`
_NUMBERS: dict[str, Callable[[ViTConfig], int]] = {
    "hidden_size": lambda shape: shape.dim,
    "num_hidden_layers": lambda shape: shape.depth,
    "intermediate_size": lambda shape: shape.hidden,
    "patch_size": lambda shape: shape.patch_size,
    "num_channels": lambda shape: 3,
    "num_register_tokens": lambda shape: shape.prefix - 1,
    "use_gated_mlp": lambda shape: shape.gated,
    "use_swiglu_ffn": lambda shape: shape.gated,
}
#: transformers' names of activations
_HIDDEN_ACTS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "swish": "silu"}
#: DINOv3's settings for biases, and transformers' names of these
_BIASES = {
    **{f"{part}_bias": rf"\battention\.{part[0]}_proj\.bias$" for part in ("query", "key", "value")},
    "proj_bias": r"\battention\.o_proj\.bias$",
    "mlp_bias": r"\bmlp\.\w+\.bias$",
}
#: what else is a part's own, not the whole's
_OWN = (*_NUMBERS, "image_size", "num_attention_heads", "hidden_act", "layer_norm_eps", "mlp_ratio")
#: heads of parts, of which transformers writes only what is not the default
_HEADS = {
    **dict.fromkeys(
        ("beit", "blip_vision_model", "clip_vision_model", "data2vec-vision", "deit", "dinov2"), 12
    ),
    **dict.fromkeys(("altclip_vision_model", "chinese_clip_vision_model", "clipseg_vision_model"), 12),
    **dict.fromkeys(("git_vision_model", "xclip_vision_model"), 12),
    **dict.fromkeys(("dinov2_with_registers", "metaclip_2_vision_model", "siglip_vision_model", "vit"), 12),
    **dict.fromkeys(("owlv2_vision_model", "owlvit_vision_model"), 12),
    **dict.fromkeys(("idefics3_vision", "phi4_multimodal_vision", "smolvlm_vision"), 16),
    **dict.fromkeys(("blip_2_vision_model", "instructblip_vision_model", "kosmos_2_vision_model"), 16),
    "dinov3_vit": 6,
}


@dataclass
class Neighbours:
    """The settings of the folder that the weights are in; empty where there are none."""

    config: dict[str, Any] = field(default_factory=dict)
    pixels: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._whole = self.config
        for key in _PARTS:
            if isinstance(part := self.config.get(key), dict):
                rest = {name: value for name, value in self.config.items() if name not in _OWN}
                heads = _HEADS.get(str(part.get("model_type")))
                known = {} if heads is None else {"num_attention_heads": heads}
                self.config = rest | Neighbours(known | part).config
                break

    @property
    def of_timm(self) -> bool:
        """Whether timm wrote them."""
        return "architecture" in self.config

    @property
    def like(self) -> str:
        """The library as which positions of an exported network are interpolated."""
        kind = self.config.get("model_type")  # with registers it is the original's, as timm's is
        return "timm" if kind in (None, "dinov2_with_registers") else "transformers"

    @property
    def foreign(self) -> str:
        """What the network is and has that the accelerator does not run, by its settings; else empty."""
        return by_settings(self._whole) or by_settings(self.config)

    def require_agreement(self, shape: ViTConfig, path: str) -> None:
        """`RowvitError` naming ``path`` if a number of transformers' settings contradicts the weights."""
        numbers: dict[str, float] = {name: found(shape) for name, found in _NUMBERS.items()}
        if (ratio := self.number("mlp_ratio")) is not None:  # DINOv2: in place of the width
            del numbers["intermediate_size"]
            wanted = int(shape.dim * ratio)
            if shape.gated:  # as many weights, in whole eights of neurons
                wanted = -(-int(wanted * 2 / 3) // 8) * 8
            exact = shape.hidden * (1.5 if shape.gated else 1) / shape.dim
            numbers["mlp_ratio"] = ratio if wanted == shape.hidden else exact
        side = self.config.get(
            "image_size"
        )  # what is left of whole patches is not seen (SigLIP's 384 pixels)
        if isinstance(side, int) and side // shape.patch_size != shape.image_size // shape.patch_size:
            numbers["image_size"] = shape.image_size
        for name, found in numbers.items():
            value = self.config.get(name)
            if isinstance(value, int | float) and value != found:
                raise RowvitError(
                    f"{path}: its config.json says {name} {value}, and the weights say {found}",
                    _FIX,
                )

    def require_biases(self, names: Iterable[str], path: str) -> None:
        """`RowvitError` naming ``path`` if DINOv3's settings say another set of biases than the weights."""
        names = list(names)
        for key, pattern in _BIASES.items() if self.config.get("model_type") == _DINOV3 else ():
            found = any(re.search(pattern, name) for name in names)
            if self.config.get(key, found) != found:
                raise RowvitError(
                    f"{path}: its config.json says {key} {self.config[key]}, and the weights say {found}",
                    _FIX,
                )

    def add_positions(self, state: dict[str, Tensor]) -> None:
        """Zeros for positions where transformers' settings say that there are none (BEiT, Data2Vec)."""
        if self.config.get("use_absolute_position_embeddings") is not False:
            return
        image, patch, dim = (self.config.get(key) for key in ("image_size", "patch_size", "hidden_size"))
        if isinstance(image, int) and isinstance(patch, int) and isinstance(dim, int):
            state.setdefault("pos_embed", torch.zeros(1, 1 + (image // patch) ** 2, dim))

    @property
    def act(self) -> str | None:
        """The FFN's activation by transformers' settings, a key of `ACTIVATIONS` where that has it."""
        if self.config.get("use_swiglu_ffn"):  # DINOv2's, whatever hidden_act says
            return "silu"
        name = self.config.get("hidden_act")
        if not isinstance(name, str | None):
            raise RowvitError(f"the config.json says hidden_act {str(name)[:60]}", _FIX)
        return None if name is None else _HIDDEN_ACTS.get(name, name)

    @property
    def classes(self) -> list[str]:
        """Class names of transformers."""
        labels = self.config.get("id2label") or {}
        if isinstance(labels, list):
            return [str(label) for label in labels]
        try:
            return [str(labels[key]) for key in sorted(labels, key=int)]
        except (TypeError, ValueError) as error:
            raise RowvitError(f"the config.json says id2label {str(labels)[:60]}", _FIX) from error

    def number(self, name: str) -> float | None:
        """A setting that is more than 0; None where it is not there, or null."""
        value = self.config.get(name)
        if value is not None and not (is_number(value) and value > 0):
            raise RowvitError(f"the config.json says {name} {str(value)[:60]}", _FIX)
        return value

    def whole(self, name: str) -> int | None:
        """The same of a whole number, which JSON may have with a point."""
        value = self.number(name)
        if value is not None and value != int(value):
            raise RowvitError(f"the config.json says {name} {value}", _FIX)
        return None if value is None else int(value)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of images by transformers' settings; None if they do not say."""
        size = self.config.get("image_size")
        both = size if isinstance(size, list) else [size, size]
        if size is None or isinstance(size, dict) or len(both) != 2:
            return None
        if not all(is_number(side) and side == int(side) > 0 for side in both):
            raise RowvitError(f"the config.json says image_size {str(size)[:60]}", _FIX)
        return int(both[0]), int(both[1])

    @property
    def timm_says_pixels(self) -> bool:
        """Whether timm says how photos are normalised."""
        return self.of_timm and "mean" in (self.config.get("pretrained_cfg") or self.config)

    @property
    def says_pixels(self) -> bool:
        """Whether transformers says how photos are normalised."""
        return self._processing.get("image_mean") is not None or not self.pixels.get("do_normalize", True)

    @property
    def _defaults(self) -> dict[str, Any]:
        """What transformers' processor does where the settings do not say, unless it is as most do."""
        kind = self.pixels.get("image_processor_type") or self.pixels.get("feature_extractor_type")
        whole, own = (str(config.get("model_type")) for config in (self._whole, self.config))
        kind = str(kind or _PROCESSOR_OF.get(whole) or _PROCESSOR_OF.get(own, ""))
        return next((found for name, found in _PROCESSORS.items() if kind.startswith(name)), {})

    @property
    def _processing(self) -> dict[str, Any]:
        """What transformers does to photos; empty where nothing is said of them at all."""
        said = {key: value for key, value in self.pixels.items() if value is not None}
        return self._defaults | said if self.pixels else {}

    @property
    def squashes(self) -> bool:
        """Whether timm or transformers bring photos of any shape to a fixed one, before they cut or not."""
        settings = self.config.get("pretrained_cfg") or self.config
        if self.of_timm:
            return settings.get("crop_mode") == "squash"
        size, kept = self._processing.get("size"), any(map(self.pixels.get, _KEEPS_SHAPE))
        if kept or not self._processing.get("do_resize", True):
            return False
        if isinstance(size, int):  # by itself a side of a square, or the shorter side
            return "height" in self._defaults.get("size", ())
        return (isinstance(size, list) and len(size) == 2) or (
            isinstance(size, dict) and {"height", "width"} <= size.keys()
        )

    def fill(self, card: Card) -> list[str]:
        """Write transformers' preprocessing and class names to a card; what of it is to be said."""
        resizing, notes = self._processing, list[str]()
        card.classes = self.classes or card.classes
        if self.says_pixels:
            card.mean, card.std = self._normalisation(card.std, notes)
        if resizing.get("do_resize", bool(resizing)):
            number = resizing.get("resample", _BICUBIC)
            known = type(number) is int and 0 <= number < len(_RESAMPLING)
            how = _RESAMPLING[number] if known else str(number)[:60]
            card.resize = how if how in _HERE else "bicubic"
            if how not in _HERE:
                notes.append(f"transformers resizes photos by resampling '{how}', and here it is bicubic")
        scaled, cut = (_side(resizing.get(key)) for key in ("size", "crop_size"))
        if resizing.get("do_center_crop") and scaled and cut:
            card.crop = min(1.0, cut / scaled)
        if self.squashes:
            notes.append(SQUASHED.format("timm" if self.of_timm else "transformers"))
        return notes

    def _normalisation(self, usual: list[float], notes: list[str]) -> tuple[list[float], list[float]]:
        """Mean and std of pixels in 0..1, whatever those were scaled to that transformers' are of.

        Without ``image_std`` it is the ``usual`` one.
        """
        said = {key: value for key, value in self._processing.items() if key in _IMAGENET}
        pixels, normalised = self.pixels | said, self.pixels.get("do_normalize", True)
        mean, std = [0.0] * 3, [1.0] * 3
        if normalised:
            mean = _channels(pixels, "image_mean")
            if pixels.get("image_std") is None:
                pixels, assumed = pixels | {"image_std": usual}, "std is assumed to be ImageNet's"
                notes.append(f"{assumed}; preprocessor_config.json does not say")
            std = _channels(pixels, "image_std")
        scaled, factor = pixels.get("do_rescale", True), pixels.get("rescale_factor")
        factor = 1 / 255 if factor is None else factor
        if not (is_number(factor) and factor > 0):
            raise RowvitError(
                f"the preprocessor_config.json says rescale_factor {str(factor)[:60]}", _FIX_PIXELS
            )
        peak = 255 * factor if scaled else 255.0
        if peak > 2 and max(*mean, *std) <= 1:  # not of such pixels: who called it had scaled them
            peak = 1.0
            notes.append(
                "mean and std are taken for those of pixels in 0..1, to which transformers scales none here"
            )
        least = -1.0 if scaled and pixels.get("rescale_offset") else 0.0
        found = [(value - least) / peak for value in mean], [value / peak for value in std]
        for what, values, low, high in zip(("mean", "std"), found, (-0.01, 0.01), (1.01, 2.0), strict=True):
            if not all(low <= value <= high for value in values):
                told = (
                    f"image_{what} {pixels[f'image_{what}']}" if normalised else f"rescale_factor {factor:g}"
                )
                raise RowvitError(
                    f"the preprocessor_config.json says {told}, of pixels in {least:g}..{least + peak:g}",
                    _FIX_PIXELS,
                )
        return found


def _channels(pixels: Mapping[str, Any], key: str) -> list[float]:
    """Numbers of three channels, which may be one number."""
    value = pixels[key]
    values = value if isinstance(value, list) else [value] * 3
    if len(values) != 3 or not all(map(is_number, values)):
        raise RowvitError(f"the preprocessor_config.json says {key} {str(value)[:60]}", _FIX_PIXELS)
    return [float(number) for number in values]


def _side(size: Any) -> int:
    """Of a size as transformers writes it: a number, two, or a dictionary by edge; 0 if there is none."""
    found = size or 0
    if isinstance(size, dict):
        found = size.get("shortest_edge") or size.get("height") or 0
    sides = found if isinstance(found, list) and found else [found]
    if not all(map(is_number, sides)):
        raise RowvitError(f"the preprocessor_config.json says size {str(size)[:60]}", _FIX_PIXELS)
    return int(min(sides))


def read_neighbours(path: Path) -> Neighbours:
    """The settings beside the weights in ``path``; `RowvitError` if one of them is not JSON."""
    names = "config.json", "preprocessor_config.json", "processor_config.json"
    config, pixels, processor = (_json(path.with_name(name)) for name in names)
    # transformers 5 writes the pixels of what takes words, too, into the settings of both
    return Neighbours(config, pixels or processor.get("image_processor") or {})


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
        found = parse(path.read_text(encoding="utf-8"), strict=False)
    except ValueError as error:
        raise RowvitError(f"{path}: is not readable as JSON", "fix it or move it away") from error
    return found if isinstance(found, dict) else {}
