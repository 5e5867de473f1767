# SPDX-License-Identifier: Apache-2.0
"""Networks from elsewhere: timm names, state dicts, ONNX files. `import_model` reads any of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rowvit.errors import RowvitError
from rowvit.model import adapt, store
from rowvit.model.store import Card
from rowvit.model.vit import VisionTransformer

#: preprocessing of most published checkpoints
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_ASSUMED = "mean and std are assumed to be ImageNet's; the file does not say"
#: transformers' names of activations
_HIDDEN_ACTS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}


@dataclass
class Imported:
    """A float network, its card, and notes for the user."""

    model: VisionTransformer
    card: Card
    #: assumptions, what was left out, and how far the output is from the original's
    notes: list[str] = field(default_factory=list)


def import_model(
    source: str | os.PathLike,
    *,
    weights: str | os.PathLike | None = None,
    random: bool = False,
    heads: int | None = None,
    act: str | None = None,
    output: str | None = None,
    encoder: bool = False,
    class_head: bool = False,
    classes: int | None = None,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    licence: str | None = None,
) -> Imported:
    """Import a vision transformer.

    Parameters
    ----------
    source : str or path
        ``timm:NAME``, an ONNX file, a state dict (.safetensors, .pth, .pt, .bin; a ``config.json`` of
        timm or transformers next to it is read), or a float network of rowvit.
    weights : path, optional
        With a timm name: a state dict of that model.
    random : bool
        With a timm name: random weights instead of the hub's.
    heads, act : optional
        What a state dict does not say; by default 64 channels per head, and GELU.
    output : str, optional
        Of an ONNX file: the output to import, by default the first.
    encoder : bool
        Leave out everything after the last LayerNorm; ``classes`` adds a new head.
    class_head : bool
        Of two heads (distilled DeiT), keep only the one on the class token.
    classes : int, optional
        Add a new, untrained head with this many classes.
    class_names : sequence of str, optional
    image_size : int, optional
        Pixels per side; position embeddings are interpolated. For an ONNX file that leaves the size
        open, its size.
    mean, std : sequences of three floats, optional
        Of pixels in 0..1; by default the source's, or ImageNet's.
    licence : str, optional

    Raises
    ------
    RowvitError
        If the source cannot be read, is not a vision transformer that the accelerator runs, or the
        options do not fit it. The message names the node or tensor at fault.
    """
    name = os.fspath(source)
    if (weights is not None or random) and not name.startswith("timm:"):
        raise RowvitError(
            "weights from a file or at random belong to a timm name", "pass timm:NAME as the source"
        )
    if name.startswith("timm:"):
        found = _timm(name.removeprefix("timm:"), weights, random)
    elif name.endswith(".onnx"):
        found = _onnx(name, image_size, output, encoder)
    else:
        found = _state_dict(name, heads, act)
    if class_head and not found.model.config.distilled:
        raise RowvitError(f"{name}: has one head; only distilled networks have a choice")
    _reshape(found, class_head, 0 if encoder and classes is None else classes, image_size)
    card = found.card
    card.classes = card.classes if class_names is None else list(class_names)
    if None not in (mean, std):
        found.notes = [note for note in found.notes if note != _ASSUMED]
    card.mean = list(mean) if mean is not None else card.mean
    card.std = list(std) if std is not None else card.std
    card.licence = licence if licence is not None else card.licence
    card.history.append(f"imported from {card.source}")
    return found


def _reshape(found: Imported, class_head: bool, classes: int | None, image_size: int | None) -> None:
    """Change heads, classes and image size of a network as the options of `import_model` say."""
    model, card = found.model, found.card
    if class_head:
        model = adapt.class_head_alone(model)
        found.notes.append("the distillation head is left out")
    if classes is not None:
        model = adapt.with_classes(model, classes)
        card.classes = [str(index) for index in range(classes)]
        if classes:
            found.notes.append(f"the head of {classes} classes is untrained")
    if image_size and image_size != model.config.image_size:
        found.notes.append(
            f"position embeddings interpolated from {model.config.image_size} to {image_size} pixels"
        )
        model = adapt.resize(model, image_size)
    if len(card.classes) != model.config.classes:
        card.classes = [str(index) for index in range(model.config.classes)]
    found.model = model


def _timm(name: str, weights: str | os.PathLike | None, random: bool) -> Imported:
    from rowvit.model.importers import timm
    from rowvit.model.importers.state_dict import read_checkpoint, timm_names

    if weights is not None and random:
        raise RowvitError("weights are from a file or random, not both")
    state = None if weights is None else timm_names(read_checkpoint(weights))
    module = timm.create(name, state, pretrained=state is None and not random)
    model, difference = timm.from_module(module)
    card = timm.card(module, name, model.config.classes)
    if random:
        card.source, card.licence = f"random weights in the shape of timm's {name}", "CC0-1.0"
    elif weights is not None:
        card.source, card.licence = f"{Path(weights).name}, weights of timm's {name}", ""
    return Imported(model, card, [f"output differs from timm's by {difference:.1e} of its peak"])


def _onnx(path: str, image_size: int | None, output: str | None, encoder: bool) -> Imported:
    from rowvit.model.importers.onnx import read_onnx

    result = read_onnx(path, image_size, output, encoder)
    card = Card(Path(path).stem, mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD), source=Path(path).name)
    notes = [f"output differs from onnxruntime's by {result.difference:.1e} of its peak"]
    if result.dropped:
        notes.append(f"ends with the last LayerNorm; left out from {result.dropped.split(':')[0]} on")
    notes.append(_ASSUMED)
    return Imported(result.model, card, notes)


def _state_dict(path: str, heads: int | None, act: str | None) -> Imported:
    from rowvit.model.importers.state_dict import from_timm, read_checkpoint, timm_names

    if store.KEY in _metadata(path):
        return Imported(*store.load(path), [])
    settings = _json(Path(path).with_name("config.json"))
    if "architecture" in settings:  # timm's own
        found = _timm(settings["architecture"], path, False)
        found.card.source = Path(path).name
        return found
    state = timm_names(read_checkpoint(path))
    notes = []
    pooler = [name for name in state if name.startswith("pooler.dense.")]
    if pooler and "head.weight" not in state:  # transformers' networks without a head have one
        state = {name: tensor for name, tensor in state.items() if name not in pooler}
        notes.append("the pooler after the last LayerNorm is left out")
    options = {}
    if "num_attention_heads" in settings:  # transformers'
        heads = heads or int(settings["num_attention_heads"])
        options["eps"] = float(settings.get("layer_norm_eps", 1e-12))
        stated = settings.get("hidden_act", "gelu")
        act = act or _HIDDEN_ACTS.get(stated, stated)
    model = from_timm(state, heads, act or "gelu", **options)
    if heads is None:
        heads = model.config.heads
        size = model.config.dim // heads
        notes.append(f"{heads} heads of {size} channels assumed; a state dict does not say")
    if act is None:
        notes.append("GELU assumed; a state dict does not say")
    labels = settings.get("id2label", {})
    pixels = _json(Path(path).with_name("preprocessor_config.json"))
    if "image_mean" not in pixels:
        notes.append(_ASSUMED)
    card = Card(
        Path(path).stem,
        classes=[str(labels[key]) for key in sorted(labels, key=int)],
        mean=pixels.get("image_mean", list(IMAGENET_MEAN)),
        std=pixels.get("image_std", list(IMAGENET_STD)),
        resize="bilinear" if pixels.get("resample") == 2 else "bicubic",
        source=Path(path).name,
    )
    return Imported(model, card, notes)


def _metadata(path: str) -> dict[str, str]:
    """Metadata of a safetensors file; empty for other or unreadable files."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def _json(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise RowvitError(f"{path}: is not readable as JSON", "fix it or move it away") from error
    return found if isinstance(found, dict) else {}
