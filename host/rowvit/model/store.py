# SPDX-License-Identifier: Apache-2.0
"""Float networks on disk: safetensors with timm's names, and the configuration and card as metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rowvit.errors import RowvitError
from rowvit.formats import container
from rowvit.formats.floats import FORMAT, KEY, description
from rowvit.model.vit import VisionTransformer, ViTConfig, is_number


@dataclass
class Card:
    """What is known about a network besides its weights; it is copied into the package."""

    name: str
    classes: list[str] = field(default_factory=list)  #: names; empty if the network has no head
    mean: list[float] = field(default_factory=lambda: [0.5] * 3)  #: of pixels in 0..1, by channel
    std: list[float] = field(default_factory=lambda: [0.5] * 3)  #: likewise
    resize: str = "bicubic"  #: or "bilinear"
    #: side of the middle square that is scaled, as a share of a photo's shorter side; of a rectangle likewise
    crop: float = 1.0
    licence: str = ""
    source: str = ""
    accuracy: dict = field(default_factory=dict)  #: figures, and the set on which they were measured
    history: list[str] = field(default_factory=list)  #: what was done to the network, one line per step

    def check(self) -> None:
        """`RowvitError` if photos cannot be prepared so."""
        for what, values, positive in (("mean", self.mean, False), ("std", self.std, True)):
            if len(values) != 3 or not all(is_number(v) and (v > 0 or not positive) for v in values):
                raise RowvitError(
                    f"{self.name}: {what} {values} is not that of three channels",
                    "use numbers of pixels in 0..1",
                )
        if self.resize not in ("bicubic", "bilinear"):
            raise RowvitError(f"{self.name}: no way to resize is '{self.resize}'", "use bicubic or bilinear")
        if not (is_number(self.crop) and 0 < self.crop <= 1):
            raise RowvitError(f"{self.name}: crop {self.crop} is not a share of a photo")


def save(path: str | os.PathLike, model: VisionTransformer, card: Card) -> None:
    """Write a float network.

    Raises
    ------
    RowvitError
        If a tensor holds NaN or infinity, the card does not fit the network, or the file cannot be written.
    """
    card.check()
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    require_finite(state, card.name)
    if len(card.classes) != model.config.classes:
        raise RowvitError(
            f"{card.name}: {len(card.classes)} class names for {model.config.classes} classes",
            "name each class",
        )
    config = asdict(model.config)
    for name in ("image_width", "rotary", "gated"):
        if not config[name]:
            del config[name]  # files of networks without are as they were before there were others
    told = {"format": FORMAT, "config": config, "card": asdict(card)}
    tensors = {name: tensor.float().numpy() for name, tensor in state.items()}
    container.write(path, tensors, {KEY: json.dumps(told, sort_keys=True)})


def load(path: str | os.PathLike) -> tuple[VisionTransformer, Card]:
    """Read a float network, in evaluation mode.

    Raises
    ------
    RowvitError
        If the file is missing, damaged, of another kind or format, or its tensors do not fit its
        configuration.
    """
    if not Path(path).exists():
        raise RowvitError(
            f"{path}: no such file",
            "name a float network, which rowvit import, relu or train writes; rowvit import reads those back"
            " that come with rowvit in int8",
        )
    tensors, metadata = container.read(path)
    found = description(path, metadata)
    try:
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in found["config"].items()
        }
        config, card = ViTConfig(**values), Card(**found["card"])
        card.check()
    except RowvitError as error:
        raise RowvitError(f"{path}: {error.message}", error.advice) from error
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise RowvitError(f"{path}: the network's description is not readable") from error
    model = VisionTransformer(config)
    load_state(model, {name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}, path)
    return model.eval(), card


def load_state(model: VisionTransformer, state: Mapping[str, Tensor], source: object) -> None:
    """Load a network's tensors.

    Raises
    ------
    RowvitError
        Names ``source`` and the first tensor that is missing, unexpected, misshapen or not finite.
    """
    expected = model.state_dict()
    missing, odd = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or odd:
        what = f"lacks {missing[0]!r}" if missing else f"has {odd[0]!r}, which this network has no place for"
        raise RowvitError(f"{source} {what} ({len(missing)} missing, {len(odd)} unexpected)")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise RowvitError(
                f"{source}: tensor {name!r} has shape {list(state[name].shape)},"
                f" expected {list(tensor.shape)}"
            )
    require_finite(state, source)
    model.load_state_dict(state)


def require_finite(state: Mapping[str, Tensor], source: object) -> None:
    """Raise a `RowvitError` naming ``source`` and the first tensor with NaN or infinity, if there is one."""
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise RowvitError(
                f"{source}: tensor {name!r} holds NaN or infinity", "train it again or fix the checkpoint"
            )
