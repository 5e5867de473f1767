# SPDX-License-Identifier: Apache-2.0
"""Networks from elsewhere: timm names, state dicts, ONNX files. `import_model` reads any of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rowvit.errors import RowvitError
from rowvit.formats.bundled import bundled
from rowvit.formats.container import metadata
from rowvit.formats.description import Size, sides
from rowvit.model import adapt, store
from rowvit.model.importers.neighbours import SQUASHED, read_neighbours, weights_in
from rowvit.model.store import Card
from rowvit.model.vit import VisionTransformer, ViTConfig

if TYPE_CHECKING:
    from torch import Tensor

#: preprocessing of most published checkpoints
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
#: activations in a note
_SPOKEN = {"gelu_tanh": "GELU by tanh", "quick_gelu": "quick GELU", "silu": "SiLU of the FFN's gate"}
_PIXELS = (224, 224)  # where nothing says how large the image is
_ASSUMED = "mean and std are assumed to be ImageNet's; the file does not say"
#: options of `import_model` for what only some files leave open: their flags, and whose they are
_OPEN = {
    "heads": ("--heads", "a state dict that does not say it"),
    "act": ("--act", "a state dict that does not say it"),
    "pool": ("--pool", "a state dict that does not say it"),
    "part": ("--part", "a checkpoint with several networks"),
    "output": ("--onnx-output", "an ONNX file"),
}
_POOLS = {
    "token": "the class token",
    "mean": "a LayerNorm of the patches' mean",
    "norm-mean": "the mean of the patches behind the last LayerNorm",
    "attention": "the tokens' values by attention",
}


@dataclass
class Imported:
    """A float network, its card, and notes for the user."""

    model: VisionTransformer
    card: Card
    #: assumptions, what was left out, and how far the output is from the original's
    notes: list[str] = field(default_factory=list)
    like: str = "timm"  #: library as which positions are interpolated


def import_model(
    source: str | os.PathLike,
    *,
    weights: str | os.PathLike | None = None,
    random: bool = False,
    heads: int | None = None,
    act: str | None = None,
    pool: str | None = None,
    part: str | None = None,
    output: str | None = None,
    encoder: bool = False,
    class_head: bool = False,
    classes: int | None = None,
    class_names: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
    image_size: Size | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    licence: str | None = None,
) -> Imported:
    """Import a vision transformer.

    Parameters
    ----------
    source : str or path
        ``timm:NAME``, an ONNX file, a state dict or checkpoint (.safetensors, .pth, .pt, .ckpt, .bin,
        .npz of JAX), a folder with one of these as timm, transformers and optimum write it, a float network
        of rowvit, or a package, also by the name of one that comes with rowvit. A ``config.json`` and a
        ``preprocessor_config.json`` next to the weights are read.
    weights : path, optional
        With a timm name: a state dict of that model.
    random : bool
        With a timm name: random weights instead of the hub's.
    heads, act : optional
        What a state dict does not say; by default 64 channels per head, and GELU, or SiLU for a gated FFN.
    pool : str, optional
        Likewise, what its head sees, as in `rowvit.model.vit.ViTConfig`; there is no default where tensors
        and their names leave a choice.
    part : str, optional
        Of a checkpoint with several networks, the name under which the one to import stands.
    output : str, optional
        Of an ONNX file: the output to import, by default the first.
    encoder : bool
        Leave out everything after the last LayerNorm; ``classes`` adds a new head.
    class_head : bool
        Of two heads (distilled DeiT), keep only the one on the class token.
    classes : int, optional
        Add a new, untrained head with this many classes.
    class_names : sequence of str, optional
    prompts : sequence of str, optional
        Of a folder with CLIP or SigLIP: its classes are these texts (`prompts.with_prompts`).
    image_size : int or tuple of int, optional
        Pixels per side, or height and width; position embeddings are interpolated. For an ONNX file that
        leaves the size open, a state dict with positions for just these patches, and DINOv3's, its size.
    mean, std : sequences of three floats, optional
        Of pixels in 0..1; by default the source's, or ImageNet's. A graph that normalises its input itself
        has its own.
    licence : str, optional

    Raises
    ------
    RowvitError
        If the source cannot be read, is not a vision transformer that the accelerator runs, could be two
        networks, or the options do not fit it. The message names the node or tensor at fault.
    """
    name = os.fspath(source)
    for what, values, least in (("mean", mean, 0.0), ("std", std, 1e-6)):
        if values is not None and not all(least <= value <= 1 for value in values):
            numbers = " ".join(f"{value:g}" for value in values)
            raise RowvitError(
                f"{what} {numbers} is not that of pixels in 0..1", "divide those of 0..255 by 255"
            )
    if (weights is not None or random) and not name.startswith("timm:"):
        raise RowvitError(
            "weights from a file or at random belong to a timm name", "pass timm:NAME as the source"
        )
    if not name.startswith("timm:"):
        name = str(bundled(name) or name)
        name = str(weights_in(Path(name))) if Path(name).is_dir() else name
    bare = encoder or classes is not None
    size = None if image_size is None else sides(image_size)
    told = {"heads": heads, "act": act, "pool": pool, "part": part, "output": output}
    if name.startswith("timm:"):
        require_open(name, told, *(["part"] if weights is not None else []))
        found = _timm(name.removeprefix("timm:"), weights, random, size, encoder, part)
    elif name.endswith(".onnx"):
        require_open(name, told, "output")
        found = _onnx(name, size, output, encoder, None in (mean, std))
    else:
        require_open(name, told, "heads", "act", "pool", "part")
        found = _state_dict(name, heads, act, pool, part, bare, encoder, size)
    if class_head and not found.model.config.distilled:
        raise RowvitError(f"{name}: has one head; only distilled networks have a choice")
    card, before = found.card, found.model
    _reshape(found, class_head, 0 if encoder and classes is None else classes, size)
    if prompts is not None:
        from rowvit.model.importers.prompts import with_prompts

        if bare or not Path(source).is_dir() or not found.model.config.classes:
            raise RowvitError(f"{source}: prompts are for a folder with CLIP or SigLIP, and for its own head")
        found.model = with_prompts(found.model, Path(source), prompts)
        card.classes = list(prompts)
    card.classes = card.classes if class_names is None else list(class_names)
    if None not in (mean, std):
        found.notes = [note for note in found.notes if note != _ASSUMED]
    card.mean = list(mean) if mean is not None else card.mean
    card.std = list(std) if std is not None else card.std
    card.licence = licence if licence is not None else card.licence
    if found.model is not before or mean is not None or std is not None:
        card.accuracy = {}  # a float network's of rowvit was measured as it was
    again = ", ".join(["imported again", *found.notes])  # likewise
    card.history.append(again if card.history else f"imported from {card.source}")
    card.check()
    return found


def require_open(source: str, told: Mapping[str, object], *left: str) -> None:
    """`RowvitError` if an option, but those ``left`` open, tells what ``source`` says itself or has not."""
    for name, value in told.items():
        if value is not None and name not in left:
            flag, whose = _OPEN[name]
            raise RowvitError(f"{flag} is for {whose}, and not for {source}", "leave it out")


def _reshape(found: Imported, class_head: bool, classes: int | None, size: tuple[int, int] | None) -> None:
    """Change heads, classes and image size of a network as the options of `import_model` say."""
    model, card = found.model, found.card
    if class_head:
        model = adapt.class_head_alone(model)
        found.notes.append("the distillation head is left out")
    if classes is not None:
        model = adapt.with_classes(model, classes)
        card.classes = [str(index) for index in range(classes)]
        if classes:
            card.crop = 1.0
            found.notes.append(f"the head of {classes} classes is untrained")
    if size and size != model.config.size:
        before, after = (_pixels(one) for one in (model.config.size, size))
        found.notes.append(f"positions interpolated from {before} to {after} pixels, as {found.like} does")
        model = adapt.resize(model, size, antialias=found.like == "timm")
        if schedule := model.config.pruning:
            kept = ", ".join(str(step["keep"]) for step in schedule)
            found.notes.append(f"its pruning keeps the same shares, now {kept} tokens; train it with that")
    if len(card.classes) != model.config.classes:
        card.classes = [str(index) for index in range(model.config.classes)]
    found.model = model


def _pixels(size: tuple[int, int]) -> str:
    """A size in a sentence: of a square the side."""
    return " x ".join(map(str, size)) if size[0] != size[1] else str(size[0])


def _timm(
    name: str,
    weights: str | os.PathLike | None,
    random: bool,
    size: tuple[int, int] | None,
    encoder: bool,
    part: str | None,
) -> Imported:
    from rowvit.model.importers.checkpoint import read_checkpoint
    from rowvit.model.importers.names import timm_names
    from rowvit.model.importers.timm import configuration

    if weights is not None and random:
        raise RowvitError("weights are from a file or random, not both")
    if weights is None:
        configuration(name, encoder)  # what does not run is refused before its weights are fetched or made
    state = None if weights is None else timm_names(read_checkpoint(weights, part).state)
    pretrained = state is None and not random
    found = _timm_module(name, state, pretrained, sizes=[size] if size else [], encoder=encoder)
    card = found.card
    if random:
        card.source, card.licence = f"random weights in the shape of timm's {name}", "CC0-1.0"
    elif weights is not None:
        card.source, card.licence = f"{Path(weights).name}, weights of timm's {name}", ""
    return found


def _timm_module(
    name: str,
    state: Mapping[str, Tensor] | None,
    pretrained: bool = False,
    settings: Mapping[str, Any] | None = None,
    sizes: Sequence[tuple[int, int]] = (),
    encoder: bool = False,
) -> Imported:
    """A network that timm makes; ``settings`` are timm's ``config.json``."""
    from rowvit.model.importers import timm

    arguments = timm.arguments(name, state or {}, settings or {}, sizes)
    module = timm.create(name, state, pretrained, encoder, **arguments)
    model, difference = timm.from_module(module)
    card = timm.card(module, name, model.config.classes, settings)
    notes = [f"output differs from timm's by {difference:.1e} of its peak"]
    if timm.known_of(module, settings).get("crop_mode") == "squash":
        notes.append(SQUASHED.format("timm"))
    return Imported(model, card, notes)


def _onnx(
    path: str, size: tuple[int, int] | None, output: str | None, encoder: bool, normalises: bool
) -> Imported:
    """``normalises``: mean and standard deviation may be those of the graph."""
    from rowvit.model.importers.onnx import read_onnx

    beside = read_neighbours(Path(path))
    try:
        result = read_onnx(path, size or beside.size, output, encoder)
    except RowvitError as error:
        if beside.foreign:  # says more than a node
            raise RowvitError(f"{path}: {beside.foreign}") from error
        raise
    beside.require_agreement(result.model.config, path)
    card = Card(Path(path).stem, mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD), source=Path(path).name)
    said = beside.fill(card)
    told = beside.timm_says_pixels
    if told:
        from torch import nn

        from rowvit.model.importers import timm

        card = timm.card(nn.Module(), card.name, result.model.config.classes, beside.config)
        card.source = Path(path).name
    notes = [f"output differs from onnxruntime's by {result.difference:.1e} of its peak", *said]
    if result.dropped:
        notes.append(f"ends with the last LayerNorm; left out from {result.dropped.split(':')[0]} on")
    if result.pixels is not None:
        if not normalises:
            raise RowvitError(f"{path}: normalises its input itself", "leave out --mean and --std")
        card.mean, card.std = result.pixels.mean, result.pixels.std
        notes.append(
            f"the graph takes pixels in 0..{result.pixels.peak} and normalises them itself: its mean and std"
            " go into the card, and the network takes normalised pixels"
        )
    elif not (beside.says_pixels or told):
        notes.append(_ASSUMED)
    return Imported(result.model, card, notes, beside.like)


def _package(path: str) -> Imported:
    from rowvit.formats.package import ModelPackage
    from rowvit.model.importers.package import of_package

    package = ModelPackage.load(path)
    notes = ["read back from a package: weights have its 8 bits"]
    if "familiar" in package.meta:
        notes.append("what its classes look like is left out")
    if any(step.get("threshold") for step in package.meta["pruning"]):
        notes.append(
            "the thresholds of its scores are for packages: here as many tokens stay as it keeps at most"
        )
    return Imported(*of_package(package, path), notes)


def _state_dict(
    path: str,
    heads: int | None,
    act: str | None,
    pool: str | None,
    part: str | None,
    bare: bool,
    encoder: bool,
    size: tuple[int, int] | None,
) -> Imported:
    """``bare``: without a head, whatever follows the last LayerNorm; ``encoder``: that was asked for."""
    from rowvit.model.importers.checkpoint import read_checkpoint
    from rowvit.model.importers.foreign import by_names, facts
    from rowvit.model.importers.names import HEAD_SIZE, heads_in, library, timm_names
    from rowvit.model.importers.rotary import is_dinov3, of_dinov3
    from rowvit.model.importers.state_dict import described, encoder_alone, from_timm

    ours, shape = metadata(path), {"heads": heads, "act": act, "pool": pool}
    if store.KEY in ours:
        require_open(path, {**shape, "part": part})
        return Imported(*store.load(path), [])
    if "rowvit-program" in ours:
        raise RowvitError(f"{path}: is a compiled program", "import the package or what that was made of")
    if "rowvit" in ours:
        require_open(path, {**shape, "part": part})
        return _package(path)
    beside = read_neighbours(Path(path))
    if beside.foreign:
        raise RowvitError(f"{path}: {beside.foreign}")
    checkpoint = read_checkpoint(path, part)
    names, state = library(checkpoint.state), timm_names(checkpoint.state)
    sizes = [one for one in (beside.size, size) if one]
    if beside.of_timm:
        require_open(path, shape)
        name = beside.config["architecture"]
        found = _timm_module(name, state, settings=beside.config, sizes=sizes, encoder=encoder)
        found.card.source = Path(path).name
        return found
    notes: list[str] = []
    told = any(value is not None for value in shape.values())
    if (
        names == "timm"
        and not told
        and (named := _named(checkpoint.architectures, state, path, sizes, encoder, notes))
    ):
        return named
    if not bare and "classifier.weight" in checkpoint.state and _in_clip(checkpoint.state):
        raise RowvitError(
            f"{path}: its head sees the mean of the patches in front of the last LayerNorm, which the"
            " accelerator does not give",
            "import it with --encoder, and teach it your classes",
        )
    if (other := by_names(facts(checkpoint.state), heads=False)) and other.name:
        raise other.error(path)
    # transformers' networks without a head have a pooler, and SigLIP's with one an unused pooling
    beside_head = r"attn_pool\." if "head.weight" in state else r"pooler\.dense\."
    unused = [name for name in state if re.match(beside_head, name)] if names == "transformers" else []
    if bare:
        state, left = encoder_alone(state)
        notes += [f"left out: {', '.join(left)}"] if left else []
    elif unused:
        state = {name: tensor for name, tensor in state.items() if name not in unused}
        notes.append("the pooler after the last LayerNorm is left out")
    heads = heads or beside.whole("num_attention_heads") or heads_in(checkpoint.state)
    act = act or beside.act
    beside.require_biases(checkpoint.state, path)
    beside.add_positions(state)
    rope = None
    if is_dinov3(checkpoint.state):
        pixels = beside.size or size or _PIXELS
        rope = of_dinov3(state, pixels, heads, beside.number("rope_theta"))
        if pixels is _PIXELS:
            notes.append(f"{_pixels(pixels)} pixels assumed (--image-size); a state dict does not say")
    # what is no vision transformer at all is told first
    gated = described(state, heads, act or "gelu", sizes, rope)[0].gated
    options: dict[str, Any] = {"pool": pool or _pool(state, names, path, notes)}
    assumed, eps = ("gelu", 1e-5) if rope else _assumed(names, checkpoint.state)
    assumed = "silu" if gated else assumed
    if names in ("transformers", "openai") or eps != ViTConfig.eps:
        stated = beside.number("layer_norm_eps")
        options["eps"] = stated or eps
        if stated is None:
            notes.append(f"LayerNorm's epsilon {eps:g} assumed; a state dict does not say")
    model = from_timm(state, heads, act or assumed, sizes, rope, pool_act=act or assumed, **options)
    rows = model.config.row_heads
    if rows is not None and len(rows.names) == len(beside.classes) + 1:  # the last one is that of nothing
        rows = replace(rows, names=(*beside.classes, "nothing"))
        model = adapt.rebuild(model, replace(model.config, row_heads=rows))
    if model.config.image_width and beside.size is None:
        notes.append(
            f"positions taken for those of {_pixels(model.config.size)} pixels, as --image-size says"
        )
    beside.require_agreement(model.config, path)
    if heads is None:
        notes.append(
            f"{model.config.heads} heads of {HEAD_SIZE} channels assumed (--heads); a state dict does not say"
        )
    if act is None:
        what = _SPOKEN.get(assumed, "GELU")
        notes.append(f"{what} assumed (--act); a state dict does not say")
    if gated and any(name.endswith(".mlp.fc1.weight") for name in checkpoint.state):
        notes.append("the first half of FFN1 is taken for its gate; a state dict does not say")
    if not beside.says_pixels:
        notes.append(_ASSUMED)
    card = Card(Path(path).stem, mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD), source=Path(path).name)
    notes += beside.fill(card)
    projected = checkpoint.state.keys() & {"visual_projection.weight", "visual.proj"}  # CLIP
    if model.config.classes and (projected or "head.weight" not in state):
        card.classes = [f"embedding {number}" for number in range(model.config.classes)]
    # DINOv2 with registers is the original's, as timm's is
    theirs = names == "transformers" and not any(
        name.endswith("register_tokens") for name in checkpoint.state
    )
    return Imported(model, card, notes, "transformers" if theirs else "timm")


def _in_clip(state: Mapping[str, Tensor]) -> bool:
    """Whether the names, as before `timm_names`, are those of transformers' CLIP."""
    return any(name.endswith("embeddings.class_embedding") for name in state)


def _assumed(library: str, state: Mapping[str, Tensor]) -> tuple[str, float]:
    """Activation and LayerNorm's epsilon of a library's usual networks; names as before `timm_names`."""
    if library == "openai" or {"pre_layrnorm.weight", "pre_layernorm.weight"} & state.keys():
        return "quick_gelu", 1e-5  # CLIP, OWL-ViT
    if library == "timm" and "norm_pre.weight" in state:  # CLIP
        return "gelu", 1e-5
    if "embeddings.patch_embedding.weight" in state and "embeddings.class_embedding" in state:  # BLIP
        return "gelu", 1e-5
    if "embeddings.patch_embedding.weight" in state:  # SigLIP
        return "gelu_tanh", 1e-6
    if library == "transformers":
        return "gelu", 1e-6 if any("layer_scale1" in name for name in state) else 1e-12  # DINOv2, others
    return "gelu_tanh" if library == "jax" else "gelu", ViTConfig.eps


def _named(
    architectures: Sequence[str],
    state: Mapping[str, Tensor],
    path: str,
    sizes: Sequence[tuple[int, int]],
    encoder: bool,
    notes: list[str],
) -> Imported | None:
    """The network by the architecture that a checkpoint names, if timm knows one and the weights fit it."""
    import timm

    for name in architectures:
        if timm.is_model(name):
            try:
                found = _timm_module(name, state, sizes=sizes, encoder=encoder)
            except RowvitError as error:
                notes.append(f"the checkpoint names timm's {name}, but {error.message}")
                continue
            found.card.source, found.card.licence = f"{Path(path).name}, weights of timm's {name}", ""
            found.notes.append(f"the checkpoint names timm's {name}")
            return found
    return None


def _pool(state: Mapping[str, Tensor], library: str, path: str, notes: list[str]) -> str:
    """What the head sees, by what the tensors and their names say.

    Raises
    ------
    RowvitError
        If they fit two networks.
    """
    from rowvit.model.importers.state_dict import pools

    likely, *others = pools(state)
    if likely == "mean" and library == "timm" and "cls_token" in state:
        notes.append(f"the head is taken to see {_POOLS[likely]}, as there is 'fc_norm' (--pool)")
    if library != "timm" or not others:
        return likely  # heads of transformers and torchvision see the class token where there is one
    if "head.weight" in state:
        which = " or ".join(f"{_POOLS[pool]} (--pool {pool})" for pool in (likely, *others))
        raise RowvitError(
            f"{path}: the state dict fits two networks, whose head sees {which}",
            "name the pooling, or the architecture: timm:NAME --weights FILE",
        )
    notes.append(f"features of {_POOLS[likely]} assumed (--pool); a state dict does not say")
    return likely
