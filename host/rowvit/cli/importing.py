# SPDX-License-Identifier: Apache-2.0
"""The command import."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from rowvit.cli.common import ERR, app, print_rows, say, sentences
from rowvit.errors import RowvitError

if TYPE_CHECKING:
    from rowvit.model.importers import Imported


class HeadName(str, Enum):
    """Heads of a distilled network."""

    all = "all"
    token = "class"


@app.command("import")
@sentences
def import_(
    source: Annotated[
        str, typer.Argument(help="timm:NAME, an .onnx file, or a state dict (.safetensors, .pth, .pt, .bin).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The float network to write.")],
    weights: Annotated[
        Path | None, typer.Option(help="timm: a state dict of the model, instead of the hub's weights.")
    ] = None,
    random: Annotated[bool, typer.Option("--random", help="timm: random weights.")] = False,
    heads: Annotated[
        int | None, typer.Option(min=1, help="State dict: attention heads; by default one per 64 channels.")
    ] = None,
    act: Annotated[
        str | None, typer.Option(help="State dict: relu, gelu or gelu_tanh; by default gelu.")
    ] = None,
    onnx_output: Annotated[str | None, typer.Option(help="ONNX: which output; by default the first.")] = None,
    encoder: Annotated[
        bool, typer.Option("--encoder", help="Leave out whatever follows the last LayerNorm.")
    ] = False,
    head: Annotated[
        HeadName,
        typer.Option(help="Distilled networks: the mean of both heads, or the one on the class token."),
    ] = HeadName.all,
    classes: Annotated[
        int | None, typer.Option(min=1, help="A new, untrained head with this many classes.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Pixels per side; position embeddings are interpolated.")
    ] = None,
    class_names: Annotated[
        Path | None, typer.Option(help="A text file with one name per line, or a JSON list.")
    ] = None,
    mean: Annotated[
        tuple[float, float, float] | None, typer.Option(help="Of the pixels, in 0..1.", show_default=False)
    ] = None,
    std: Annotated[
        tuple[float, float, float] | None, typer.Option(help="Of the pixels, in 0..1.", show_default=False)
    ] = None,
    licence: Annotated[str | None, typer.Option(help="For the model card.")] = None,
) -> None:
    """Import a vision transformer: a float network for relu, prune, train and quantise.

    The import is checked: the network must give the same as timm or onnxruntime for the original.

    Examples
    --------
      rowvit import timm:deit_tiny_patch16_224 -o deit.safetensors

      rowvit import timm:vit_tiny_patch16_224 --random --classes 10 --image-size 64 -o tiny.safetensors

      rowvit import model.onnx --class-names names.txt -o model.safetensors
    """
    from rowvit.model import store
    from rowvit.model.importers import import_model

    with ERR.status(f"importing {escape(source)}"):
        found = import_model(
            source,
            weights=weights,
            random=random,
            heads=heads,
            act=act,
            output=onnx_output,
            encoder=encoder,
            class_head=head is HeadName.token,
            classes=classes,
            class_names=None if class_names is None else _names(class_names),
            image_size=image_size,
            mean=mean,
            std=std,
            licence=licence,
        )
    store.save(output, found.model, found.card)
    _print_network(found, output)


def _names(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
        names = json.loads(text) if text.lstrip().startswith("[") else text.split("\n")
    except (OSError, ValueError) as error:
        raise RowvitError(f"{path}: cannot be read as a list of names ({error})") from error
    return [str(name).strip() for name in names if str(name).strip()]


def network_rows(config: Mapping, card: Mapping) -> dict[str, str]:
    """Lines about a float network, from the fields of its `ViTConfig` and its `Card`."""
    tokens = config["prefix"] + (config["image_size"] // config["patch_size"]) ** 2
    seen = "class token" if config["pool"] == "token" else "mean of patches"
    if config["distilled"]:
        seen = "class and distillation token, a head each"
    head = f"{seen}, {config['classes']} classes" if config["classes"] else f"none; features of the {seen}"
    return {
        "image": f"{config['image_size']} x {config['image_size']}, patches of {config['patch_size']}",
        "network": (
            f"{config['depth']} layers, {config['dim']} channels, {config['heads']} heads,"
            f" {config['hidden']} hidden ({config['act']}), {tokens} tokens"
        ),
        "head": head,
        "mean, std": " ".join(f"{value:g}" for value in [*card["mean"], *card["std"]]),
        "resizing": card["resize"],
        "licence": card["licence"] or "unknown",
        "source": card["source"],
    }


def _print_network(found: Imported, output: Path) -> None:
    described = network_rows(asdict(found.model.config), asdict(found.card))
    print_rows({"float network": f"{found.card.name}, written to {output}", **described})
    for note in found.notes:
        say(note)
