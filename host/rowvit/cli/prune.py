# SPDX-License-Identifier: Apache-2.0
"""``rowvit prune``."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rowvit.cli.common import OUT, app, progress_bar, right_aligned, say, sentences, writable, write
from rowvit.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    FloatArgument,
    MeasureOption,
    OutputOption,
    PhotosOption,
)
from rowvit.cli.train import note_accuracy, test_set
from rowvit.errors import RowvitError

if TYPE_CHECKING:
    from rowvit.measure.schedules import Point


@app.command()
@sentences
def prune(
    model: FloatArgument,
    output: OutputOption,
    data: PhotosOption,
    layers: Annotated[
        str | None,
        typer.Option(help="Blocks after whose attention tokens are dropped, counted from 0: 3,6,9."),
    ] = None,
    rho: Annotated[
        float | None,
        typer.Option(min=0.01, max=1.0, help="Share of the patch tokens that each of them keeps."),
    ] = None,
    cycles: Annotated[
        float | None, typer.Option(min=1, help="Search: at most this many cycles per image.")
    ] = None,
    macs_saved: Annotated[
        float | None, typer.Option(min=0, max=100, help="Search: at least this percentage of the MACs saved.")
    ] = None,
    rule: Annotated[
        str,
        typer.Option(
            help="FFN2 rule: none, image or tile; auto: image or tile, whichever takes fewer cycles."
        ),
    ] = "auto",
    max_loss: Annotated[
        float, typer.Option(min=0, help="Points of top-1 that lossy FFN2 thresholds may cost; 0: none.")
    ] = 0.0,
    photos: Annotated[
        int, typer.Option(min=1, help="Training photos for accuracy, drawn with a fixed seed.")
    ] = 500,
    config: ConfigOption = DEFAULT_CONFIG,
    plot: Annotated[
        Path | None, typer.Option(help="Write accuracy against cycles (.png, .svg, .pdf).")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all schedules that were tried.")
    ] = None,
    measure: MeasureOption = True,
) -> None:
    """Choose where tokens are dropped, and which small hidden activations.

    By hand with --layers and --rho, or by a search for the most accurate schedule within a budget of cycles
    or MACs. Cycles are predicted by the cycle model on the photos' own data. Accuracy is that of the
    network as it is: fine-tune it afterwards with rowvit train.

    Examples
    --------
      rowvit prune vit-relu.safetensors --data photos/ --layers 3,6,9 --rho 0.5 -o pruned.safetensors

      rowvit prune vit-relu.safetensors --data photos/ --cycles 3e6 --plot pareto.png -o pruned.safetensors
    """
    from rowvit.formats.package import RULES
    from rowvit.hardware import config as configs
    from rowvit.measure import schedules as search
    from rowvit.measure.accuracy import matched
    from rowvit.model import store
    from rowvit.train.data import open_data

    network, card = store.load(model)
    hardware = configs.load(config)
    writable(output, plot, json_file)
    if rule not in (*RULES, "auto"):
        raise RowvitError(f"FFN2 rule '{rule}' is not one of {', '.join(RULES)} and auto")
    budget = cycles is not None or macs_saved is not None
    if budget == (layers is not None) or (layers is None) != (rho is None):
        raise RowvitError(
            "prune takes either a schedule or a budget",
            "use --layers with --rho, or --cycles or --macs-saved",
        )
    if layers is None:
        tried = list(search.schedules(network.config.depth))
    else:
        tried = [((), 1.0), (_blocks(layers, network.config.depth), rho or 1.0)]
    tested = test_set(data, card, measure)
    drawn = matched(open_data(data, "train"), card.name, card.classes).subset(photos)
    pixels = drawn.pixels(range(len(drawn)), network.config.image_size, card.resize)
    package = search.stand_in(network, card, pixels[:64], "image" if rule == "auto" else rule)
    with progress_bar("schedules", len(tried)) as progress:
        done = count(1)
        points = search.explore(
            network,
            card,
            package,
            pixels,
            drawn.labels,
            hardware,
            tried,
            progress=lambda point: progress(
                next(done), f"{point.top1:.1%} at {point.cycles / 1e6:.2f} M cycles"
            ),
        )
    saved = None if macs_saved is None else macs_saved / 100
    chosen = points[-1] if layers else search.choose(points, cycles, saved)
    _print(points, chosen)
    say(f"top-1 on {drawn.name}; cycles by the cycle model, {hardware.name}")
    if plot:
        search.plot(points, chosen, hardware, plot)
    if json_file:
        write(json_file, json.dumps([vars(point) for point in points], indent=1) + "\n")
    if rule == "auto":
        by_rule = search.rule_cycles(
            search.pruned(package, network, chosen.layers, chosen.rho), pixels[:4], hardware
        )
        rule = min(by_rule, key=by_rule.__getitem__)
        costs = ", ".join(f"{name} {value:,.0f}" for name, value in by_rule.items())
        say(f"FFN2 rule {rule}; cycles by rule: {costs}")
    search.apply(network, card, chosen, rule)
    if max_loss:
        table = right_aligned("energy dropped", "top-1", left=2)
        search.thresholds_for(
            network,
            card,
            pixels,
            drawn.labels,
            max_loss / 100,
            rule,
            lambda energy, reached: table.add_row(f"{energy:.2%}", f"{reached:.1%}"),
        )
        OUT.print(table, highlight=False)
        shown = ", ".join(f"{value:.3g}" for value in network.config.thresholds) or "none"
        say(f"thresholds by layer: {shown}")
        card.history.append(f"hidden activations dropped below {shown}")
    store.save(output, network, card)
    note_accuracy(network, card, tested, output)


def _blocks(text: str, depth: int) -> tuple[int, ...]:
    parts = text.split(",")
    blocks = [int(part) for part in parts if part.strip().isdigit()]
    if len(blocks) != len(parts) or sorted(set(blocks)) != blocks or blocks[-1] >= depth:
        raise RowvitError(f"blocks '{text}' are not ascending numbers below {depth}", "write them as 3,6,9")
    return tuple(blocks)


def _print(points: list[Point], chosen: Point) -> None:
    from rowvit.measure.schedules import front

    best = front(points)
    table = right_aligned("", "blocks", "rho", "cycles", "MACs saved", "top-1", left=2)
    for point in points if len(points) <= 2 else [p for p in points if p in best or p is chosen]:
        mark = "chosen" if point is chosen else ""
        blocks = ", ".join(map(str, point.layers)) or "none"
        row = f"{point.rho:g}", f"{point.cycles:,.0f}", f"{point.macs_saved:.1%}", f"{point.top1:.1%}"
        table.add_row(mark, blocks, *row)
    OUT.print(table, highlight=False)
