# SPDX-License-Identifier: Apache-2.0
"""``rowvit prune``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rowvit.cli.common import DEFAULT_CONFIG, OUT, ConfigOption, app, sentences, writable, write
from rowvit.cli.train import DataOption, FloatArgument, OutputOption, bar, note_accuracy, test_set
from rowvit.errors import RowvitError
from rowvit.hardware import config as configs


@app.command()
@sentences
def prune(
    model: FloatArgument,
    output: OutputOption,
    data: DataOption,
    layers: Annotated[
        str | None, typer.Option(help="Blocks after whose attention tokens go, counted from 0: 3,6,9.")
    ] = None,
    rho: Annotated[
        float | None, typer.Option(min=0.01, max=1.0, help="Share of the patch tokens that each keeps.")
    ] = None,
    cycles: Annotated[
        float | None, typer.Option(min=1, help="Search: at most so many cycles per image.")
    ] = None,
    macs_saved: Annotated[
        float | None, typer.Option(min=0, max=100, help="Search: at least so many percent of the MACs saved.")
    ] = None,
    rule: Annotated[
        str, typer.Option(help="FFN2 rule: none, image or tile; auto: of the last two, that of fewer cycles.")
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
    measure: Annotated[
        bool, typer.Option(help="At the end, measure top-1 on the whole test set and note it in the card.")
    ] = True,
) -> None:
    """Choose which tokens go where, and which small hidden activations.

    By hand with --layers and --rho, or searched for a budget of cycles or MACs: the most accurate
    schedule within it. Cycles are those of the compiler's cycle model on the photos' own data.
    Accuracy is that of the network as it is: fine-tune it afterwards with rowvit train.

    Examples
    --------
      rowvit prune vit-relu.safetensors --data photos/ --layers 3,6,9 --rho 0.5 -o pruned.safetensors

      rowvit prune vit-relu.safetensors --data photos/ --cycles 3e6 --plot pareto.png -o pruned.safetensors
    """
    from rowvit.formats.package import RULES, keep_schedule
    from rowvit.measure import schedules as search
    from rowvit.measure.accuracy import matched
    from rowvit.model import store
    from rowvit.model.prune import set_ffn2, set_pruning
    from rowvit.quant.quantise import QuantOptions, default_chunk, quantise
    from rowvit.quant.smooth import centre_keys
    from rowvit.train.data import open_data

    network, card = store.load(model)
    hardware = configs.load(config)
    for path in (output, plot, json_file):
        writable(path)
    if rule not in (*RULES, "auto"):
        raise RowvitError(f"FFN2 rule '{rule}' is not one of {', '.join(RULES)} and auto")
    budget = cycles is not None or macs_saved is not None
    if budget == (layers is not None) or (layers is None) != (rho is None):
        raise RowvitError("give --layers and --rho, or a budget: --cycles or --macs-saved")
    if layers is None:
        tried = list(search.schedules(network.config.depth))
    else:
        tried = [((), 1.0), (_blocks(layers, network.config.depth), rho or 1.0)]
    tested = test_set(data, card, measure)
    drawn = matched(open_data(data, "train"), card.name, card.classes).subset(photos)
    pixels = drawn.pixels(range(len(drawn)), network.config.image_size, card.resize)
    options = QuantOptions(
        card.name,
        card.classes,
        card.mean,
        card.std,
        ffn2_rule="image" if rule == "auto" else rule,
        ffn_chunk=default_chunk(network.config.hidden),
    )
    centred = centre_keys(network, card.mean, card.std, pixels[:64])
    package = quantise(centred, pixels[:64], options)
    with bar("schedules") as progress:
        task = progress.add_task("", total=len(tried), note="")
        points = search.explore(
            network,
            card,
            package,
            pixels,
            drawn.labels,
            hardware,
            tried,
            progress=lambda point: progress.update(
                task, advance=1, note=f"{point.top1:.1%} at {point.cycles / 1e6:.2f} M cycles"
            ),
        )
    chosen = (
        points[-1]
        if layers
        else search.choose(points, cycles, None if macs_saved is None else macs_saved / 100)
    )
    _print(points, chosen)
    OUT.print(f"top-1 on {drawn.name}; cycles by the cycle model, {hardware.name}", highlight=False)
    if plot:
        search.plot(points, chosen, hardware, plot)
    if json_file:
        write(json_file, json.dumps([vars(point) for point in points], indent=1) + "\n")
    patches = network.config.tokens - network.config.prefix
    schedule = keep_schedule(patches, chosen.layers, chosen.rho)
    set_pruning(network, schedule)
    if rule == "auto":
        package.meta["pruning"] = schedule
        by_rule = search.rule_cycles(package, pixels[:4], hardware)
        rule = min(by_rule, key=by_rule.__getitem__)
        costs = ", ".join(f"{name} {value:,.0f}" for name, value in by_rule.items())
        OUT.print(f"FFN2 rule {rule}; cycles by rule: {costs}", highlight=False)
    set_ffn2(network, rule)
    if chosen.layers:
        blocks = ", ".join(map(str, chosen.layers))
        card.history.append(f"tokens pruned after attention of blocks {blocks}: {chosen.rho:g} of them stay")
    if max_loss:
        table = Table("energy dropped", "top-1", box=None, pad_edge=False)
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
        OUT.print(f"thresholds by layer: {shown}", highlight=False)
        card.history.append(f"hidden activations dropped below {shown}")
    card.accuracy = {}
    store.save(output, network, card)
    note_accuracy(network, card, tested, output)


def _blocks(text: str, depth: int) -> tuple[int, ...]:
    parts = text.split(",")
    blocks = [int(part) for part in parts if part.strip().isdigit()]
    if len(blocks) != len(parts) or sorted(set(blocks)) != blocks or blocks[-1] >= depth:
        raise RowvitError(f"blocks '{text}' are not ascending numbers below {depth}, as in 3,6,9")
    return tuple(blocks)


def _print(points: list, chosen: object) -> None:
    from rowvit.measure.schedules import front

    best = front(points)
    table = Table("", "blocks", "rho", "cycles", "MACs saved", "top-1", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for point in points if len(points) <= 2 else [p for p in points if p in best or p is chosen]:
        mark = "chosen" if point is chosen else ""
        blocks = ", ".join(map(str, point.layers)) or "none"
        row = f"{point.rho:g}", f"{point.cycles:,.0f}", f"{point.macs_saved:.1%}", f"{point.top1:.1%}"
        table.add_row(mark, blocks, *row)
    OUT.print(table, highlight=False)
