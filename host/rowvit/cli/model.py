# SPDX-License-Identifier: Apache-2.0
"""Commands on models and programs: import, compile, disasm, info."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from rowvit.cli import options as opt
from rowvit.cli.common import command, print_rows, say, status, unread, wrote, wrote_network
from rowvit.errors import RowvitError
from rowvit.formats import container, floats
from rowvit.formats.description import image_shape
from rowvit.hardware import config as configs
from rowvit.hardware.isa import Op

if TYPE_CHECKING:
    from rowvit.model.vit import ViTConfig


class HeadName(str, Enum):
    """Heads of a distilled network."""

    all = "all"
    token = "class"


@command("import")
def import_(
    source: Annotated[
        str,
        Argument(
            metavar="SOURCE",
            help="timm:NAME, an .onnx file, a state dict or checkpoint (.safetensors, .pth, .pt, .ckpt,"
            " .bin, .npz), a folder of timm, transformers or optimum, or a package, to train on.",
        ),
    ],
    output: Annotated[Path, Option("--output", "-o", metavar="FILE", help="The float network to write.")],
    weights: Annotated[
        Path | None,
        Option(metavar="FILE", help="timm: a state dict of the model, instead of the hub's weights."),
    ] = None,
    random: Annotated[bool, Option("--random", help="timm: random weights.")] = False,
    heads: opt.HeadsOption = None,
    act: Annotated[
        str | None,
        Option(
            metavar="relu|gelu|gelu_tanh|quick_gelu|silu",
            show_default="gelu",
            help="State dict: the activation, which it does not say.",
        ),
    ] = None,
    pool: opt.PoolOption = None,
    part: Annotated[
        str | None,
        Option(metavar="NAME", help="Checkpoint with several networks: the name of the one to import."),
    ] = None,
    onnx_output: Annotated[
        str | None, Option(metavar="NAME", help="ONNX: which output; by default the first.")
    ] = None,
    encoder: Annotated[
        bool, Option("--encoder", help="Leave out whatever follows the last LayerNorm.")
    ] = False,
    head: Annotated[
        HeadName,
        Option(
            metavar="all|class",
            help="Distilled networks: the mean of both heads, or the one on the class token.",
        ),
    ] = HeadName.all,
    classes: opt.ClassesOption = None,
    image_size: opt.ImageSizeOption = None,
    class_names: Annotated[
        Path | None, Option(metavar="FILE", help="A text file with one name per line, or a JSON list.")
    ] = None,
    mean: Annotated[
        tuple[float, float, float] | None,
        Option(metavar="RED GREEN BLUE", help="Of the pixels, in 0..1.", show_default=False),
    ] = None,
    std: Annotated[
        tuple[float, float, float] | None,
        Option(metavar="RED GREEN BLUE", help="Of the pixels, in 0..1.", show_default=False),
    ] = None,
    prompts: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Folder with CLIP or SigLIP: a text file with a prompt per line; they are the classes.",
        ),
    ] = None,
    licence: Annotated[str | None, Option(metavar="TEXT", help="For the model card.")] = None,
    origin: Annotated[
        str | None,
        Option(metavar="TEXT", help="For the model card: who made it, from what; by default the source."),
    ] = None,
) -> None:
    """Import a vision transformer: a float network for relu, prune, train and quantise.

    An import by name, from a timm folder or from ONNX is checked: the network must give the same as timm or
    onnxruntime for the original. A bare state dict has nothing to compare with: what it does not say is
    assumed and listed, or refused where two networks would fit.

    Examples
    --------
      rowvit import timm:deit_tiny_patch16_224 -o vit.safetensors

      rowvit import timm:vit_tiny_patch16_224 --random --classes 10 --image-size 64 -o vit.safetensors

      rowvit import model.onnx --class-names names.txt -o vit.safetensors

      rowvit import clip-vit-base-patch32/ --prompts prompts.txt -o vit.safetensors

      rowvit import everyday --classes 10 -o vit.safetensors
    """
    from rowvit.model import store
    from rowvit.model.importers import import_model, weights_in

    if Path(source).is_dir():
        unread(output, "--output", [weights_in(Path(source))])
    with status(f"importing {source}"):
        found = import_model(
            source,
            weights=weights,
            random=random,
            heads=heads,
            act=act,
            pool=pool,
            part=part,
            output=onnx_output,
            encoder=encoder,
            class_head=head is HeadName.token,
            classes=classes,
            class_names=None if class_names is None else _names(class_names),
            prompts=None if prompts is None else _names(prompts),
            image_size=image_size,
            mean=mean,
            std=std,
            licence=licence,
        )
    found.card.source = origin or found.card.source
    store.save(output, found.model, found.card)
    described = _network_rows(asdict(found.model.config), asdict(found.card))
    print_rows({"float network": f"{found.card.name}, written to {output}", **described})
    for note in found.notes:
        say(note)
    _say_what_is_next(found.model.config, output)
    wrote_network(output, found.model.config.act)


def _say_what_is_next(config: ViTConfig, output: Path) -> None:
    """Which configurations hold the network, and what must change before it runs on one."""
    from rowvit.compiler.plan import chunks, problem
    from rowvit.measure.speed.fits import stand_in
    from rowvit.quant.quantise import obstacles

    for reason in obstacles(config):
        say(f"before it runs: {reason}")
    try:
        meta = stand_in(config, output.name).meta
    except RowvitError as error:
        say(f"no configuration holds it: {error}")
        return
    named = [configs.load(name) for name in configs.names()]
    held = [one.name for one in named if next(chunks(meta, one), 0)]
    largest = max(named, key=lambda one: (one.max_dim, one.residual_depth * one.rows * one.groups))
    say(
        f"held by {', '.join(held)} (rowvit fits {output} predicts its speed)"
        if held
        else f"no configuration holds it: {problem(meta, largest)}"
    )


def _names(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = container.parse(text) if text.lstrip().startswith("[") else text.split("\n")
    except (OSError, ValueError) as error:
        raise RowvitError(f"{path}: cannot be read as a list of names ({error})") from error
    return [str(name).strip() for name in names if str(name).strip()]


@command()
def compile(
    model: Annotated[
        str,
        Argument(
            metavar="MODEL",
            help="A model package (.safetensors), or everyday or sign-digits, which are bundled.",
        ),
    ],
    output: Annotated[
        Path, Option("--output", "-o", metavar="FILE", help="The program to write (.safetensors).")
    ],
    config: opt.ConfigOption = opt.DEFAULT_CONFIG,
    checkpoints: Annotated[
        bool, Option("--checkpoints", help="The program also sends the residuals after every half layer.")
    ] = False,
    batch: Annotated[
        int, Option("--batch", metavar="N", help="Images that may share a load of weights, 1 to 16.")
    ] = 8,
) -> None:
    """Compile a model package into a program for one configuration.

    A program holds instructions and weights in one blob; a board loads it without compiling.

    Example
    -------
      rowvit compile vit-int8.safetensors -o vit-program.safetensors
    """
    from rowvit.compiler import compile as lower
    from rowvit.targets.target import read_package

    program = lower(read_package(model), configs.load(config), checkpoints, batch)
    program.save(output)
    sizes = program.meta["input"]["bytes"], program.passes[0].output_bytes
    together = program.passes[-1].images
    shared = f"; in batches {together} images share weights" if together > 1 else ""
    say(
        f"{output}: {len(program.code)} instructions, {program.blob.nbytes / 1e6:.2f} MB for '{config}';"
        f" an image is {sizes[0]} bytes in, up to {sizes[1]} out{shared}"
    )
    wrote(output, "rowvit", "run", output, "PHOTOS", "--target", "board", "--config", config)


@command()
def disasm(model: opt.ModelArgument, config: opt.ConfigOption = opt.DEFAULT_CONFIG) -> None:
    """Print a program's instructions, one per line; a package is compiled first.

    LOAD>=12 waits until 12 loads of this pass are complete; DRAIN~7 follows the seventh operation
    of the drain band by band.

    Example
    -------
      rowvit disasm sign-digits
    """
    from rowvit.compiler import disasm as text
    from rowvit.targets.target import read_program

    typer.echo(text(read_program(model, configs.load(config))), nl=False)


@command()
def info(model: opt.ModelArgument) -> None:
    """Describe a float network, a model package or a compiled program.

    Example
    -------
      rowvit info sign-digits
    """
    from rowvit.compiler import Program
    from rowvit.targets.target import read_model

    if _float_network(model):
        return
    found = read_model(model)
    meta = found.meta
    arch = meta["architecture"]
    rows: dict[str, object] = {}
    if isinstance(found, Program):
        rows["program of"] = f"{meta['model']['name']} for '{meta['config']['name']}'"
        rows["instructions"] = len(found.code)
        rows["share weights"] = f"{found.passes[-1].images} images"
        rows["blob"] = f"{found.blob.nbytes / 1e6:.2f} MB"
        counts = {op.name: sum(i.op is op for i in found.passes[0].instructions) for op in Op}
        rows["by opcode"] = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        rows["checkpoints"] = "yes" if meta["checkpoints"] else "no"
    else:
        rows["package"] = meta["name"]
        rows["weights"] = f"{sum(t.nbytes for t in found.tensors.values()) / 1e6:.2f} MB"
        pixels = meta["preprocessing"]
        rows["mean, std"] = " ".join(f"{value:g}" for value in [*pixels["mean"], *pixels["std"]])
        rows["resizing"] = _resizing(pixels["resize"], pixels.get("crop", 1.0))
        for key in ("licence", "source"):
            rows[key] = meta.get(key)
        rows["accuracy"] = meta.get("accuracy") or "not measured"
        rows["history"] = "; ".join(meta.get("history", ()))
        rows["hash"] = meta.get("hash")
    rows["image"] = _image(arch)
    rows["network"] = (
        f"{arch['depth']} layers, {arch['dim']} channels, {arch['heads']} heads, {arch['hidden']} hidden,"
        f" {arch['tokens']} tokens{_parts(meta)}"
    )
    rows["answers with"] = _answers(meta)
    rows["pruning"] = (
        "; ".join(
            f"layer {step['layer']} keeps {step['keep']}"
            + (f" with score {step['threshold'] / 2**20:.4f} and more" if step["threshold"] else "")
            for step in meta["pruning"]
        )
        or "none"
    )
    rows["second FFN matrix"] = {
        "none": "fetched whole",
        "image": "rows that the image uses are fetched",
        "tile": f"rows that a tile of {meta.get('tile_rows')} tokens uses are fetched",
    }[meta["ffn2_rule"]]
    print_rows(
        {
            name: json.dumps(value) if isinstance(value, dict) else str(value)
            for name, value in rows.items()
            if value not in (None, "")
        }
    )


def _parts(values: Mapping[str, Any]) -> str:
    """What some networks have, by their description."""
    parts = {"rotary": "rotary positions", "gated": "gated FFN"}
    return "".join(f", {what}" for key, what in parts.items() if values.get(key))


def _answers(meta: Mapping[str, Any]) -> str:
    """What a package or program gives."""
    found = []
    if meta["classes"]:
        pool = meta["host_head"]["pool"].replace("-", " and ") if "host_head" in meta else ""
        found.append(f"{len(meta['classes'])} classes" + (f" (head on the host: {pool})" if pool else ""))
    if "tokens" in meta:
        which = "all tokens" if meta["tokens"]["rows"] == "all" else "the class token"
        found.append(f"{which} behind layer {', '.join(map(str, meta['tokens']['layers']))}")
    if rows := meta.get("row_heads"):
        boxes = " and boxes" if "boxes" in rows else ""
        found.append(f"scores of {len(rows['names'])} names{boxes} of {rows['rows']} (heads on the host)")
    return "; ".join(found)


def _float_network(model: str) -> bool:
    """Describe a float network, without PyTorch; returns whether it is one."""
    if floats.KEY not in container.metadata(model):
        return False
    description = floats.description(model, container.read(model)[1])
    config, card = description["config"], description["card"]
    try:
        rows = {"float network": card["name"], **_network_rows(config, card)}
        rows["pruning"] = (
            "; ".join(f"layer {s['layer']} keeps {s['keep']}" for s in config["pruning"]) or "none"
        )
        rows["accuracy"] = json.dumps(card["accuracy"]) if card["accuracy"] else "not measured"
        rows["history"] = "; ".join(card["history"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise RowvitError(f"{model}: the network's description is not readable") from error
    print_rows(rows)
    return True


def _image(arch: Mapping) -> str:
    height, width = image_shape(arch)
    which = "" if height == width else " (height x width)"
    return f"{height} x {width}{which}, patches of {arch['patch_size']}"


def _resizing(filter_: str, crop: float) -> str:
    return filter_ if crop == 1 else f"{filter_}, of the middle with {crop:.1%} of the shorter side"


def _network_rows(config: Mapping, card: Mapping) -> dict[str, str]:
    """Lines about a float network, from the fields of its `ViTConfig` and its `Card`."""
    tokens = config["prefix"] + math.prod(side // config["patch_size"] for side in image_shape(config))
    seen = {
        "token": "class token",
        "class-mean": "class token and the mean of patches",
        "attention": "tokens, by attention",
    }.get(config["pool"], "mean of patches")
    if config["distilled"]:
        seen = "class and distillation token, a head each"
    head = f"{seen}, {config['classes']} classes" if config["classes"] else f"none; features of the {seen}"
    return {
        "image": _image(config),
        "network": (
            f"{config['depth']} layers, {config['dim']} channels, {config['heads']} heads,"
            f" {config['hidden']} hidden ({config['act']}), {tokens} tokens"
            f"{_parts(config)}"
        ),
        "head": head,
        "mean, std": " ".join(f"{value:g}" for value in [*card["mean"], *card["std"]]),
        "resizing": _resizing(card["resize"], card.get("crop", 1.0)),
        "licence": card["licence"] or "unknown",
        "source": card["source"],
    }
