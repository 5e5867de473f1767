# SPDX-License-Identifier: Apache-2.0
"""Accuracy lost over the work that is left, beside published points, as a picture (.svg, .png, .pdf).

    python benchmarks/curve.py "DeiT-Tiny, hand signs=gelu.json,0.9.json,0.7.json,int8.json" -o curve.svg

The files are what ``rowvit eval --json`` wrote: first the network that the others are compared with, then
from most to least work. Points that were published are of other networks and of another data set, and say
so: they show the shape of the curve, not a level to reach. Files with cycles also give the second plot.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from rowvit.measure.draw.plots import figure


class Published(NamedTuple):
    """Points of others: 10^9 multiply-accumulates and top-1, and those of the network without pruning."""

    name: str
    macs: float
    top1: float
    points: list[tuple[float, float]]


#: EViT without fusion: github.com/youweiliang/evit, README (top-1), and its paper (arXiv 2202.07800, MACs),
#: for keep rates 0.9 to 0.5 in three blocks; DiffRate: github.com/OpenGVLab/DiffRate, README.
PUBLISHED = [
    Published(
        "EViT, DeiT-S, ImageNet",
        4.6,
        79.8,
        [(4.0, 79.9), (3.5, 79.7), (3.0, 79.4), (2.6, 79.1), (2.3, 78.4)],
    ),
    Published("DiffRate, DeiT-S, ImageNet", 4.6, 79.8, [(2.905, 79.54)]),
]


def main(
    series: Annotated[
        list[str],
        typer.Argument(metavar="NAME=FILE.json,...", help="Our networks; files from most to least work."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture.")],
) -> None:
    """Draw the picture."""
    picture = figure(9, 3.6)
    by_macs, by_cycles = picture.subplots(1, 2, sharey=True)
    for number, text in enumerate(series):
        name, _, files = text.rpartition("=")
        dense, *rest = (json.loads(Path(file).read_text()) for file in files.split(","))
        style = {"marker": "o", "color": f"C{number}", "label": f"rowvit, {name}"}
        left = [1 - report["macs_saved"] / 100 for report in rest]
        lost = [report["top1"] - dense["top1"] for report in rest]
        by_macs.plot(left, lost, **style)
        timed = [
            (report["cycles"] / 1e6, change)
            for report, change in zip(rest, lost, strict=True)
            if "cycles" in report
        ]
        by_cycles.plot([cycles for cycles, _ in timed], [change for _, change in timed], **style)
    for paper, marker in zip(PUBLISHED, "sd", strict=True):
        left = [macs / paper.macs for macs, _ in paper.points]
        lost = [top1 - paper.top1 for _, top1 in paper.points]
        by_macs.plot(left, lost, marker=marker, color="0.5", linestyle="--", label=f"published: {paper.name}")
    by_macs.set_xlabel("multiply-accumulates left (1: none saved)")
    by_macs.set_ylabel("change of top-1, points")
    picture.legend(
        *by_macs.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="x-small"
    )
    by_cycles.set_xlabel("million cycles per image by the cycle model, pynq-z2")
    for axes in (by_macs, by_cycles):
        axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        axes.grid(alpha=0.3)
    picture.savefig(output)


if __name__ == "__main__":
    typer.run(main)
