# SPDX-License-Identifier: Apache-2.0
"""Commands on models and programs: compile, disasm, info."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from rowvit.cli.common import app, print_rows, say, sentences
from rowvit.cli.importing import network_rows
from rowvit.cli.options import DEFAULT_CONFIG, ConfigOption, ModelArgument
from rowvit.formats import container
from rowvit.hardware import config as configs
from rowvit.hardware.isa import Op


@app.command()
@sentences
def compile(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The program to write (.safetensors).")],
    config: ConfigOption = DEFAULT_CONFIG,
    checkpoints: Annotated[
        bool,
        typer.Option("--checkpoints", help="The program also sends the residuals after every half layer."),
    ] = False,
) -> None:
    """Compile a model package into a program for one configuration.

    A program holds instructions and weights in one blob; a board loads it without compiling.
    """
    from rowvit.compiler import compile as lower
    from rowvit.targets.target import read_package

    program = lower(read_package(model), configs.load(config), checkpoints)
    program.save(output)
    sizes = program.meta["input"]["bytes"], program.meta["output"]["max_bytes"]
    say(
        f"{output}: {len(program.code)} instructions, {program.blob.nbytes / 1e6:.2f} MB for '{config}';"
        f" an image is {sizes[0]} bytes in, up to {sizes[1]} out"
    )


@app.command()
@sentences
def disasm(model: ModelArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Print a program's instructions, one per line; a package is compiled first.

    LOAD>=12 waits until 12 loads of this image are complete; DRAIN~7 follows the seventh operation
    of the drain band by band.
    """
    from rowvit.compiler import disasm as text
    from rowvit.targets.target import read_program

    sys.stdout.write(text(read_program(model, configs.load(config))))


@app.command()
@sentences
def info(model: ModelArgument) -> None:
    """Describe a float network, a model package or a compiled program."""
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
        rows["instructions"] = meta["instructions"]
        rows["blob"] = f"{found.blob.nbytes / 1e6:.2f} MB"
        counts = {op.name: sum(i.op is op for i in found.instructions) for op in Op}
        rows["by opcode"] = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        rows["checkpoints"] = "yes" if meta["checkpoints"] else "no"
    else:
        rows["package"] = meta["name"]
        rows["weights"] = f"{sum(t.nbytes for t in found.tensors.values()) / 1e6:.2f} MB"
        pixels = meta["preprocessing"]
        rows["mean, std"] = " ".join(f"{value:g}" for value in [*pixels["mean"], *pixels["std"]])
        rows["resizing"] = pixels["resize"]
        for key in ("licence", "source", "accuracy"):
            rows[key] = meta.get(key)
        rows["history"] = "; ".join(meta.get("history", ()))
        rows["hash"] = meta.get("hash")
    rows["image"] = f"{arch['image_size']} x {arch['image_size']}, patches of {arch['patch_size']}"
    rows["network"] = (
        f"{arch['depth']} layers, {arch['dim']} channels, {arch['heads']} heads, {arch['hidden']} hidden,"
        f" {arch['tokens']} tokens, {arch['classes']} classes"
    )
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


def _float_network(model: str) -> bool:
    """Describe a float network, without PyTorch; returns whether it is one."""
    metadata = container.read(model)[1] if Path(model).is_file() else {}
    if "rowvit-float" not in metadata:
        return False
    description = json.loads(metadata["rowvit-float"])
    config, card = description["config"], description["card"]
    rows = {"float network": card["name"], **network_rows(config, card)}
    rows["pruning"] = "; ".join(f"layer {s['layer']} keeps {s['keep']}" for s in config["pruning"]) or "none"
    rows["accuracy"] = json.dumps(card["accuracy"]) if card["accuracy"] else "not measured"
    rows["history"] = "; ".join(card["history"])
    print_rows(rows)
    return True
