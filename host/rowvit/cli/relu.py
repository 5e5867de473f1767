# SPDX-License-Identifier: Apache-2.0
"""``rowvit relu``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rowvit.cli.common import OUT, app, sentences, writable
from rowvit.cli.train import (
    DataOption,
    FloatArgument,
    OutputOption,
    bar,
    note_accuracy,
    run_recipe,
    test_set,
)


@app.command()
@sentences
def relu(
    model: FloatArgument,
    output: OutputOption,
    data: DataOption,
    photos: Annotated[int, typer.Option(min=1, help="Training photos to fit to.")] = 400,
    check: Annotated[
        int, typer.Option(min=1, help="Other training photos, for top-1 after each layer.")
    ] = 500,
    ridge: Annotated[float, typer.Option(help="Pull towards the old matrices.")] = 1e-3,
    recipe: Annotated[
        Path | None, typer.Option(help="Then fine-tune by this recipe (.toml), taught by the GELU network.")
    ] = None,
    measure: Annotated[
        bool, typer.Option(help="At the end, measure top-1 on the whole test set and note it in the card.")
    ] = True,
) -> None:
    """Turn a GELU network into a ReLU network, layer by layer.

    The second FFN matrix of each layer is fitted anew to what the GELU block gave, by ridge
    regression; this takes no labels and no gradients. The table shows for every layer the zeros
    behind ReLU, the squared error of the block's output before and after the fit, relative to the
    GELU block's, and top-1 of the network with ReLU up to there.

    Example
    -------
      rowvit relu vit.safetensors --data photos/ -o vit-relu.safetensors --recipe fine-tune.toml
    """
    from rowvit.measure.accuracy import evaluate, matched
    from rowvit.model import store
    from rowvit.model.relu import to_relu
    from rowvit.train import recipe as recipes
    from rowvit.train.data import open_data

    steps = recipes.load(recipe) if recipe else None
    network, card = store.load(model)
    trained = open_data(data, "train", labels=recipe is not None)
    if steps:
        trained = matched(trained, card.name, card.classes)
    writable(output)
    tested = test_set(data, card, measure)
    fitted, checked = trained.subset(photos), trained.subset(check, skip=photos)
    pixels = fitted.pixels(range(len(fitted)), network.config.image_size, card.resize)

    def top1() -> str:
        found = evaluate((network, card), checked)
        return f"{100 * found.right() / len(checked):.1f} %"

    table = Table("layer", "zeros", "error if swapped", "error refitted", "top-1", box=None, pad_edge=False)
    for column in table.columns:
        column.justify = "right"
    labelled = bool(len(checked)) and len(trained.classes) == network.config.classes
    table.add_row("none", "", "", "", top1() if labelled else "")
    batch = 50
    with bar("refitting") as progress:
        task = progress.add_task("", total=network.config.depth * -(-len(pixels) // batch), note="")
        for done in to_relu(network, card, pixels, ridge, batch, lambda: progress.advance(task)):
            row = f"{done.layer}", f"{done.zeros:.1%}", f"{done.swapped:.3f}", f"{done.error:.3f}"
            table.add_row(*row, top1() if labelled else "")
            progress.update(task, note=f"layer {done.layer}")
    OUT.print(table, highlight=False)
    if labelled:
        OUT.print(f"top-1 on {len(checked)} training photos that were not fitted to", highlight=False)
    card.history.append(f"GELU to ReLU by ridge refit ({ridge:g}) on {fitted.name}")
    card.accuracy = {}
    if not steps:
        store.save(output, network, card)
    elif not run_recipe(network, card, trained, (recipe.name, steps), output, store.load(model)):
        return
    note_accuracy(network, card, tested, output)
