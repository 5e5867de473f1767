# SPDX-License-Identifier: Apache-2.0
"""``rowvit quantise``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from rowvit.cli.common import OUT, app, progress_bar, right_aligned, say, sentences, writable, write
from rowvit.cli.options import FloatArgument, MeasureOption, OutputOption, PhotosOption
from rowvit.cli.train import test_set


@app.command()
@sentences
def quantise(
    model: FloatArgument,
    output: OutputOption,
    data: PhotosOption,
    photos: Annotated[int, typer.Option(min=1, help="Training photos to calibrate on.")] = 256,
    method: Annotated[
        str, typer.Option(help="Scales of activations: mse (least squared error), percentile or max.")
    ] = "mse",
    percentile: Annotated[
        float, typer.Option(help="For method percentile: the share that is not clipped.")
    ] = 99.99,
    rule: Annotated[
        str | None,
        typer.Option(
            help="FFN2 rule: none, image or tile; by default the network's, or image if it has none."
        ),
    ] = None,
    tile_rows: Annotated[int, typer.Option(min=1, help="For rule tile: rows per tile.")] = 16,
    threshold_energy: Annotated[
        float,
        typer.Option(help="Lossy FFN2 threshold: share of the hidden activations' energy to drop."),
    ] = 0.0,
    ffn_chunk: Annotated[
        int | None,
        typer.Option(help="Hidden neurons per chunk of FFN2; by default equal chunks of at most 384."),
    ] = None,
    smooth: Annotated[
        float, typer.Option(help="Move outlier channels from activations into weights: 0 none, 1 all.")
    ] = 0.0,
    power_of_two: Annotated[
        bool, typer.Option("--power-of-two", help="Requantise by powers of two only.")
    ] = False,
    measure: MeasureOption = True,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes that measure (Dask).")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the table of noise.")] = None,
) -> None:
    """Turn a float ReLU network into an int8 package for the accelerator.

    The table shows where accuracy is lost, as signal-to-noise ratios in dB: of each activation by its own
    rounding and clipping; of the worst matrix of each layer; and of the residual stream with everything
    before it.

    Example
    -------
      rowvit quantise vit-relu.safetensors --data photos/ -o vit-int8.safetensors
    """
    from rowvit.model import store
    from rowvit.quant.noise import layer_noise
    from rowvit.quant.quantise import QuantOptions, default_chunk
    from rowvit.quant.quantise import quantise as to_integers
    from rowvit.quant.smooth import centre_keys
    from rowvit.quant.smooth import smooth as even
    from rowvit.train.data import open_data

    network, card = store.load(model)
    config = network.config
    writable(output, json_file)
    tested = test_set(data, card, measure)
    options = QuantOptions(
        name=card.name,
        classes=card.classes,
        mean=card.mean,
        std=card.std,
        resize=card.resize,
        ffn2_rule=rule or ("image" if config.ffn2_rule == "none" else config.ffn2_rule),
        tile_rows=tile_rows,
        ffn_chunk=ffn_chunk or default_chunk(config.hidden),
        threshold_energy=threshold_energy,
        method=method,
        percentile=percentile,
        power_of_two=power_of_two,
        licence=card.licence,
        source=card.source,
    )
    found = open_data(data, "train", labels=False)
    drawn = found.subset(photos)
    pixels = drawn.pixels(range(len(drawn)), config.image_size, card.resize)
    with progress_bar("calibrating", 3) as progress:
        network = centre_keys(network, options.mean, options.std, pixels)
        if smooth:
            network = even(network, options.mean, options.std, pixels, smooth)
        progress(1)
        package = to_integers(network, pixels, options)
        progress(2)
        noise = layer_noise(network, package, pixels[:64])
    table = right_aligned("layer", *noise[1].activations, "weights", "attn", "ffn")

    def finite(value: Any) -> Any:
        """Without the infinities of activations that are all zero: JSON has none."""
        if isinstance(value, dict):
            return {key: finite(part) for key, part in value.items()}
        return None if value in (math.inf, -math.inf) else value

    def text(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    for row in noise:
        values = [row.activations.get(name) for name in noise[1].activations]
        table.add_row(row.layer, *map(text, [*values, row.weights, row.attention, row.ffn]))
    say("Signal-to-noise ratios in dB; attn and ffn: the residual stream after them")
    OUT.print(table, highlight=False)
    if json_file:
        write(json_file, json.dumps([finite(vars(row)) for row in noise], indent=1, allow_nan=False) + "\n")
    package.meta["history"] = [*card.history, f"quantised ({method}) on {drawn.name}"]
    package.meta["accuracy"] = dict(card.accuracy)
    package.save(output)
    if tested is not None:
        from rowvit.measure.accuracy import evaluate

        with progress_bar("measuring", len(tested)) as progress:
            result = evaluate(package, tested, jobs=jobs, progress=progress)
        if card.accuracy.get("set", tested.name) != tested.name:
            package.meta["accuracy"] = {}
        package.meta["accuracy"] |= result.note()
        package.save(output)
        report = result.report()
        say(
            f"{output}: {result.summary()}; {report['macs_saved']:.1f} % fewer MACs,"
            f" {report['w2_rows_saved']:.1f} % fewer W2 rows"
        )
