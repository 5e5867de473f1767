# SPDX-License-Identifier: Apache-2.0
"""Cycles of networks that people keep as encoders, by the cycle model, as a Markdown table.

    python benchmarks/encoders.py
    python benchmarks/encoders.py --rtl kv260 "CLIP ViT-B/32, class token"
    python benchmarks/encoders.py --stream kv260 "DeiT-T/16, classes and tokens"

They have the shapes of the originals and random weights; unless they are pruned no token is dropped, and
rows of W2 are skipped as in the workloads of results.md. With ``--rtl`` one of them is simulated, in minutes,
and every bit compared with the integer reference's; with ``--stream`` its images come one behind the other.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import typer
from record import Record, record

import rowvit
from rowvit.compiler import compile
from rowvit.compiler.plan import problem
from rowvit.cycles import predict
from rowvit.formats.package import ModelPackage, keep_schedule
from rowvit.hardware.config import HardwareConfig, load
from rowvit.quant.synthetic import random_package

T = dict(dim=192, depth=12, heads=3, hidden=768)
S = dict(dim=384, depth=12, heads=6, hidden=1536)
B = dict(dim=768, depth=12, heads=12, hidden=3072)
CONFIGS = ("pynq-z2", "pynq-z2-257", "kv260", "zcu104")
#: name -> shape, and with which tokens it answers; "": with a thousand classes
NETWORKS: dict[str, tuple[dict[str, Any], str]] = {
    "DeiT-T/16, classes": (T | dict(patch_size=16), ""),
    "DeiT-T/16, classes and tokens": (T | dict(patch_size=16, classes=1000), "all"),
    "DeiT-T/16, tokens": (T | dict(patch_size=16), "all"),
    "DINOv2-S/14, tokens": (S | dict(patch_size=14, ffn_chunk=192), "all"),
    "DINOv2-S/14, class token": (S | dict(patch_size=14, ffn_chunk=192), "class"),
    "DINOv3-S/16, tokens": (S | dict(patch_size=16, prefix=5, rotary=True), "all"),
    "DINOv3-S+/16, tokens": (S | dict(patch_size=16, prefix=5, rotary=True, gated=True), "all"),
    "EVA02-Ti/14, tokens": (T | dict(hidden=512, patch_size=14, rotary=True, gated=True), "all"),
    "EVA02-S/14, tokens": (S | dict(hidden=1024, patch_size=14, rotary=True, gated=True), "all"),
    "DINOv3-B/16, tokens": (B | dict(patch_size=16, prefix=5, rotary=True), "all"),
    "CLIP ViT-B/32, class token": (B | dict(patch_size=32, pre_norm=True), "class"),
    "CLIP ViT-B/16, class token": (B | dict(patch_size=16, pre_norm=True), "class"),
    "MAE ViT-B/16, tokens": (B | dict(patch_size=16), "all"),
    "SigLIP ViT-B/16, tokens": (B | dict(patch_size=16, prefix=0), "all"),
    "YOLOS-T/16, tokens": (T | dict(patch_size=16, prefix=101), "all"),
    "DINOv3-S/16, class token, pruned": (
        S | dict(patch_size=16, prefix=5, rotary=True, pruning=196),
        "class",
    ),
    "DINOv3-S+/16, class token, pruned": (
        S | dict(patch_size=16, prefix=5, rotary=True, gated=True, pruning=196),
        "class",
    ),
    "DINOv2-S/14, class token, pruned": (S | dict(patch_size=14, ffn_chunk=192, pruning=256), "class"),
    "CLIP ViT-B/16, class token, pruned": (B | dict(patch_size=16, pre_norm=True, pruning=196), "class"),
}
KEEP = (3, 6, 9), 0.7  #: of pruned ones' patches, 0.7 stay after each of these blocks


def network(name: str) -> ModelPackage:
    shape, rows = NETWORKS[name]
    answer = {"rows": rows, "layers": [11]} if rows else None
    classes = shape.get("classes", 0 if rows else 1000)
    if patches := shape.get("pruning"):
        shape = shape | {"pruning": keep_schedule(patches, *KEEP)}
    return random_package(
        np.random.default_rng(0),
        **dict(ffn_chunk=384) | shape | dict(image_size=224, classes=classes, tokens=answer, columns=0.4),
    )


def simulated(package: ModelPackage, config: HardwareConfig) -> int:
    """Cycles of an image on the simulated RTL, whose results are the integer reference's."""
    images = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    with rowvit.open("golden", config=config) as golden, rowvit.open("sim", config=config) as sim:
        golden.load(package)
        sim.load(compile(package, config, batch=1))
        (wanted,), (result,) = golden(images), sim(images)
    assert result.same(wanted)
    return int(result.cycles)


def main(
    only: Annotated[list[str], typer.Argument(help="A configuration, and a network.")] = [],  # noqa: B006
    rtl: Annotated[bool, typer.Option("--rtl", help="Simulate the RTL.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Each further image of a start.")] = False,
    keep: Record = False,
) -> None:
    """Print cycles per image."""
    if rtl:
        config, name = only
        package = network(name)
        cycles, predicted = (
            simulated(package, load(config)),
            predict(compile(package, load(config), batch=1), load(config)),
        )
        print(f"{cycles:,} cycles simulated, {predicted.total:,.0f} predicted; all bits equal")
        if keep:
            record(
                "encoders-rtl", f"{config} {name}", {"cycles": cycles, "predicted": float(predicted.total)}
            )
        return
    if stream:
        config, name = only
        program, array = compile(network(name), load(config), batch=1), load(config)
        alone, more = (predict(program, array, images=images).total for images in (1, 6))
        print(f"{(more - alone) / 5:,.0f} cycles for each further image")
        if keep:
            record("encoders-stream", f"{config} {name}", {"cycles": round((more - alone) / 5)})
        return
    print("| network | tokens | configuration | cycles | images/s |")
    print("|---|---|---|---|---|")
    for name in NETWORKS:
        package = network(name)
        for config in map(load, CONFIGS):
            if problem(package.meta, config):
                continue
            cycles = predict(compile(package, config, batch=1), config).total
            rate = config.clock_mhz * 1e6 / cycles
            tokens = package.arch["tokens"]
            print(f"| {name} | {tokens} | `{config.name}` | {cycles:,.0f} | {rate:.1f} |")
            if keep:
                figures = {"tokens": tokens, "cycles": float(cycles), "images_per_second": rate}
                record("encoders", f"{config.name} {name}", figures)


if __name__ == "__main__":
    typer.run(main)
