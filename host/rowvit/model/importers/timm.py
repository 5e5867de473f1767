# SPDX-License-Identifier: Apache-2.0
"""timm's VisionTransformer and Eva, by name or as modules, to the float network."""

from __future__ import annotations

import difflib
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from rowvit.errors import RowvitError
from rowvit.model.importers.foreign import by_names, facts, lacking
from rowvit.model.importers.names import timm_names
from rowvit.model.importers.rotary import of_timm
from rowvit.model.importers.state_dict import LEAVE_OUT, described, fitting, from_timm
from rowvit.model.store import Card
from rowvit.model.vit import ACTIVATIONS, GRID, VisionTransformer, ViTConfig, activation_name

TOLERANCE = 1e-3  # of the largest logit
_DEADLINE = 10  # seconds for the hub to answer
#: by timm's modules: the constructors' argument for a LayerNorm behind the mean
_FC_NORM = dict.fromkeys(("timm.models.vision_transformer", "timm.models.deit"), "fc_norm")
_FC_NORM["timm.models.eva"] = "use_fc_norm"


def create(
    name: str,
    state: Mapping[str, Tensor] | None = None,
    pretrained: bool = False,
    encoder: bool = False,
    **arguments: Any,
) -> Any:
    """Timm's module of a name such as ``deit_tiny_patch16_224``.

    Parameters
    ----------
    name : str
        With or without a tag, as in ``deit_tiny_patch16_224.fb_in1k``.
    state : mapping of tensors, optional
        Weights in timm's names; their head says how many classes there are.
    pretrained : bool
        Load timm's weights, from its cache or the hub.
    encoder : bool
        Leave out pooling by attention and what follows it.
    **arguments
        Of timm's constructor, such as ``img_size``.

    Raises
    ------
    RowvitError
        If timm does not know the name, the network is of another family, the hub cannot be reached, or the
        weights do not fit.
    """
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3)
        hint = f"do you mean {' or '.join(near)}?" if near else ""
        raise RowvitError(f"timm {timm.__version__} has no model {name!r}", hint)
    if state is not None:
        arguments = {"num_classes": len(state.get("head.weight", ()))} | arguments
    hub = not pretrained or _hub_answers()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # random weights are the same every time
            module: Any = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # timm and its hub raise many types
        if not pretrained:
            raise RowvitError(f"timm cannot make {name!r} ({error})") from error
        why = _first_line(error) if hub else "the hub does not answer, and they are not in its cache"
        raise RowvitError(
            f"the weights of {name!r} cannot be fetched ({why})",
            "pass a file with --weights, or take random weights with --random",
        ) from error
    _require_family(module, name)
    if state is not None:
        try:
            module.load_state_dict(dict(state))
        except RuntimeError as error:
            raise RowvitError(f"the weights do not fit timm's {name} ({_first_line(error, 1)})") from error
    if encoder and module.attn_pool is not None:
        module.reset_classifier(0, "avg" if module.cls_token is None else "token")
    return module.eval()


def arguments(
    name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any], sizes: Sequence[tuple[int, int]] = ()
) -> dict[str, Any]:
    """Arguments of timm's constructor by timm's ``config.json``; ``state`` holds the weights.

    One of ``sizes``, heights and widths, is that of the images if the weights fit it, and not the size of the
    architecture itself.
    """
    import timm
    from timm.models import model_entrypoint

    if not timm.is_model(name):
        return {}
    size = None
    if state.keys() >= {"patch_embed.proj.weight", "pos_embed"}:
        told = (settings.get("model_args") or {}).get("img_size")
        own = tuple(told) if isinstance(told, list) else (told,) * 2 if told else _size_of(name)
        size = fitting(state, [*([own] if own else []), *sizes])
        size = None if size == own else size
    found: dict[str, Any] = {"img_size": size} if size else {}
    if not settings:
        return found
    found |= settings.get("model_args") or {}
    pool = settings.get("global_pool")
    norm = _FC_NORM.get(model_entrypoint(name).__module__)
    if pool and norm and "global_pool" not in found:
        found["global_pool"] = pool
        if pool == "avg" and "norm.weight" in state:  # older versions do not write where the LayerNorm is
            found.setdefault(norm, False)
    return found


def _size_of(name: str) -> tuple[int, int] | None:
    """Height and width of an architecture's images; None if timm does not say."""
    import timm

    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return None if known is None else (known.input_size[1], known.input_size[2])


def _hub_answers() -> bool:
    """Without the hub, its client is told to use the cache alone: it would retry for minutes."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or getproxies():
        return not constants.HF_HUB_OFFLINE
    address = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname, address.port or 443), _DEADLINE).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True
    return not constants.HF_HUB_OFFLINE


def _first_line(error: Exception, line: int = 0) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[min(line, len(lines) - 1)].strip().rstrip(".")


def _require_family(module: Any, name: str = "") -> None:
    """`RowvitError`, with what it has instead, for a network that is neither VisionTransformer nor Eva."""
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer as TimmTransformer

    if isinstance(module, TimmTransformer | Eva):
        return
    kind = type(module).__name__
    parts = (type(part).__name__ for part in module.modules())
    found = by_names([*facts(module.state_dict(), whole=True), *parts], heads=False)
    what = f"timm's {name or kind} is of class {kind}, which is neither VisionTransformer nor Eva"
    if found and found.what:
        raise RowvitError(f"{what}: {lacking(found.what)}")
    raise RowvitError(f"{what}, the only ones that are read", "export it as ONNX")


def configuration(name: str, encoder: bool = False) -> ViTConfig:
    """The architecture behind a name, without weights; `RowvitError` as of `create` and `from_module`."""
    with torch.device("meta"):
        module = create(name, encoder=encoder)
        return described(timm_names(module.state_dict(), eva=True), **_facts(module))[0]


def _facts(module: Any) -> dict[str, Any]:
    """What a state dict does not say, as arguments of `from_timm`; `RowvitError` as of `from_module`."""
    from timm.models.eva import EvaBlock
    from timm.models.vision_transformer import Block

    kind = type(module).__name__
    _require_family(module)
    for block in module.blocks:
        if type(block) not in (Block, EvaBlock):
            odd = type(block).__name__
            raise RowvitError(
                f"this {kind} is made of {odd}, and the accelerator runs only timm's Block and EvaBlock"
            )
    function = getattr(getattr(block, "mlp", None), "act", None)
    act = activation_name(function(torch.from_numpy(GRID)).detach().numpy()) if function else None
    if act is None:
        raise RowvitError(f"the FFN of this {kind} is not two layers with {' or '.join(ACTIVATIONS)}")
    has_norm = not isinstance(module.norm, nn.Identity)
    has_fc_norm = not isinstance(module.fc_norm, nn.Identity)
    pool = {"token": "token", "avg": "norm-mean" if has_norm else "mean", "map": "attention"}.get(
        module.global_pool
    )
    if pool is None or has_norm == has_fc_norm or (pool == "attention") != (module.attn_pool is not None):
        raise RowvitError(
            f"this {kind} pools by {module.global_pool!r} between {has_norm + has_fc_norm} LayerNorms,"
            " expected the class token, the mean of the patches or SigLIP's attention, and one LayerNorm"
        )
    options: dict[str, Any] = dict(heads=block.attn.num_heads, act=act, pool=pool, eps=float(block.norm1.eps))
    options["gate_last"] = getattr(block.mlp, "gate_last", False)
    grid = getattr(module.patch_embed, "grid_size", None)
    kernel = getattr(getattr(module.patch_embed, "proj", None), "kernel_size", None)
    if grid and kernel:
        options["sizes"] = [(grid[0] * kernel[0], grid[1] * kernel[1])]
    if (rope := getattr(module, "rope", None)) is not None:
        half = getattr(block.attn, "rotate_half", False)
        options["rope"] = of_timm(rope, module.patch_embed.grid_size, half)
    if pool == "attention":
        if module.num_prefix_tokens:
            raise RowvitError(
                f"this {kind} pools by attention beside a class token or registers, and the accelerator's"
                " pooling by attention is of patches alone",
                LEAVE_OUT,
            )
        if module.attn_pool.num_heads != block.attn.num_heads:
            raise RowvitError(
                f"this {kind} pools by attention of {module.attn_pool.num_heads} heads, expected"
                f" {block.attn.num_heads}, as many as in its blocks",
                LEAVE_OUT,
            )
        function = module.attn_pool.mlp.act
        options["pool_act"] = activation_name(function(torch.from_numpy(GRID)).detach().numpy()) or ""
    return options


def from_module(module: nn.Module) -> tuple[VisionTransformer, float]:
    """The float network of a timm VisionTransformer or Eva, and how far its output is from timm's.

    Returns
    -------
    model : VisionTransformer
    difference : float
        Largest difference between the outputs for two random images, relative to the largest magnitude.

    Raises
    ------
    RowvitError
        If the module is of another class, or of a variant that the accelerator does not run.
    """
    kind = type(module).__name__
    model = from_timm(timm_names(module.state_dict(), eva=True), **_facts(module))
    height, width = model.config.size
    images = torch.randn(2, 3, *getattr(module.patch_embed, "img_size", None) or (height, width))
    with torch.inference_mode():
        theirs = module(images)  # what is left of whole patches is not seen (SigLIP's 384 pixels)
        apart = (model(images[..., :height, :width]) - theirs).abs().max()
        difference = float(apart / (theirs.abs().max() or 1.0))  # a head that is new is one of zeros
    if not difference <= TOLERANCE:
        raise RowvitError(
            f"this {kind} computes something else: the outputs differ by {difference:.1e} of their peak"
        )
    return model, difference


def known_of(module: nn.Module, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """What timm knows of the name, and before that what a ``config.json`` says that timm wrote."""
    settings = settings or {}
    # earlier versions wrote all into one dictionary
    return {**(getattr(module, "pretrained_cfg", {}) or {}), **(settings.get("pretrained_cfg") or settings)}


def card(module: nn.Module, name: str, classes: int, settings: Mapping[str, Any] | None = None) -> Card:
    """What timm says about a model: preprocessing, licence, class names.

    ``settings`` are those of a ``config.json`` that timm wrote, which go before what timm knows of the name.
    Without class names there, 1000 classes are ImageNet's.
    """
    from timm.data import ImageNetInfo

    settings, known = settings or {}, known_of(module, settings)
    names = next((known[key] for key in ("label_names", "labels") if known.get(key)), ())
    names = settings.get("label_names") or names
    if isinstance(names, Mapping):
        names = [names[key] for key in sorted(names, key=int)]
    if len(names) != classes:
        names = [str(index) for index in range(classes)]
        if classes == 1000:
            info = ImageNetInfo()
            names = [info.index_to_description(index).split(",")[0] for index in range(classes)]
            names = [f"{n} ({i})" if names.count(n) > 1 else n for i, n in enumerate(names)]  # two are cranes
    return Card(
        name=name,
        classes=[str(name) for name in names],
        mean=[float(value) for value in known.get("mean", [0.5] * 3)],
        std=[float(value) for value in known.get("std", [0.5] * 3)],
        resize="bilinear" if known.get("interpolation") == "bilinear" else "bicubic",
        crop=float(known.get("crop_pct") or 1.0),
        licence=known.get("license") or "",
        source=f"timm {known.get('hf_hub_id') or name}".rstrip("/"),
    )
