# SPDX-License-Identifier: Apache-2.0
"""Cycles of networks that people keep as encoders, by the cycle model, as a Markdown table.

    python benchmarks/encoders.py

They have the shapes of the originals and random weights; no token is dropped, and rows of W2 are skipped as
in the workloads of results.md. Within 0.1 % of the simulated RTL where that was run (tests/network).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import typer
from record import Record, record

from rowvit.compiler import compile
from rowvit.compiler.plan import problem
from rowvit.cycles import predict
from rowvit.hardware.config import load
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
    "CLIP ViT-B/32, class token": (B | dict(patch_size=32, pre_norm=True), "class"),
    "CLIP ViT-B/16, class token": (B | dict(patch_size=16, pre_norm=True), "class"),
    "MAE ViT-B/16, tokens": (B | dict(patch_size=16), "all"),
    "SigLIP ViT-B/16, tokens": (B | dict(patch_size=16, prefix=0), "all"),
}


def main(keep: Record = False) -> None:
    """Print cycles per image."""
    print("| network | tokens | configuration | cycles | images/s |")
    print("|---|---|---|---|---|")
    for name, (shape, rows) in NETWORKS.items():
        answer = {"rows": rows, "layers": [11]} if rows else None
        classes = shape.get("classes", 0 if rows else 1000)
        package = random_package(
            np.random.default_rng(0),
            **dict(ffn_chunk=384) | shape | dict(image_size=224, classes=classes, tokens=answer, columns=0.4),
        )
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
