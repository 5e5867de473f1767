# SPDX-License-Identifier: Apache-2.0
"""``rowvit relu``."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from rowvit.cli.common import OUT, app, progress_bar, right_aligned, say, sentences, writable
from rowvit.cli.options import FloatArgument, MeasureOption, OutputOption, PhotosOption
from rowvit.cli.train import note_accuracy, run_recipe, test_set


@app.command()
@sentences
def relu(
    model: FloatArgument,
    output: OutputOption,
    data: PhotosOption,
    photos: Annotated[int, typer.Option(min=1, help="Training photos to fit to.")] = 400,
    check: Annotated[
        int, typer.Option(min=1, help="Other training photos, for top-1 after each layer.")
    ] = 500,
    ridge: Annotated[float, typer.Option(help="Pull towards the old matrices.")] = 1e-3,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Then fine-tune by this recipe (.toml), with the GELU network as teacher."),
    ] = None,
    measure: MeasureOption = True,
) -> None:
    """Turn a GELU network into a ReLU network, layer by layer.

    The second FFN matrix of each layer is refitted to the output of the GELU block, by ridge
    regression; this takes no labels and no gradients. The table shows for every layer the zeros
    behind ReLU, the squared error of the block's output before and after the fit, relative to the
    GELU block's output, and top-1 of the network with ReLU up to this layer.

    Example
    -------
      rowvit relu vit.safetensors --data photos/ -o vit-relu.safetensors --recipe fine-tune.toml
    """
    from rowvit.measure.accuracy import evaluate, matched
    from rowvit.model import store
    from rowvit.model.relu import to_relu
    from rowvit.train import recipe as recipes
    from rowvit.train.data import open_data

    steps = (recipe.name, recipes.load(recipe)) if recipe else None
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

    table = right_aligned("layer", "zeros", "error if swapped", "error refitted", "top-1", left=0)
    labelled = bool(len(checked)) and len(trained.classes) == network.config.classes
    table.add_row("none", "", "", "", top1() if labelled else "")
    batch = 50
    with progress_bar("refitting", network.config.depth * -(-len(pixels) // batch)) as progress:
        batches = count(1)
        for done in to_relu(network, card, pixels, ridge, batch, lambda: progress(next(batches))):
            row = f"{done.layer}", f"{done.zeros:.1%}", f"{done.swapped:.3f}", f"{done.error:.3f}"
            table.add_row(*row, top1() if labelled else "")
    OUT.print(table, highlight=False)
    if labelled:
        say(f"top-1 on {len(checked)} training photos that were not used for the fit")
    card.history.append(f"GELU to ReLU by ridge refit ({ridge:g}) on {fitted.name}")
    card.accuracy = {}
    if not steps:
        store.save(output, network, card)
    elif not run_recipe(network, card, trained, steps, output, store.load(model)):
        return
    note_accuracy(network, card, tested, output)
