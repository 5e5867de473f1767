# SPDX-License-Identifier: Apache-2.0
"""``rowvit profile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from rowvit.cli.common import ERR, OUT, app, right_aligned, say, sentences, writable
from rowvit.cli.options import (
    DEFAULT_CONFIG,
    LATENCY,
    RATE,
    ConfigOption,
    LatencyOption,
    MemoryName,
    MemoryOption,
    ModelArgument,
    RateOption,
    memory_model,
)

if TYPE_CHECKING:
    from rowvit.measure.profile import LayerProfile, Profile


@app.command()
@sentences
def profile(
    model: ModelArgument,
    image: Annotated[
        Path | None,
        typer.Argument(
            help="An image file; by default the first photo that comes with the model, or random pixels."
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    predict: Annotated[
        bool, typer.Option("--predict", help="Only the cycle model, without simulating the RTL.")
    ] = False,
    memory: MemoryOption = MemoryName.ddr,
    latency: LatencyOption = LATENCY,
    rate: RateOption = RATE,
    trace_json: Annotated[
        Path | None, typer.Option("--trace-json", help="Write the timeline, for ui.perfetto.dev.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture (.png, .svg, .pdf): timeline and roofline.")
    ] = None,
) -> None:
    """Show where the cycles of one image go, by layer and unit.

    The array multiplies, or waits: for weights, for data, or for the drain of its previous tile. The
    counters are the RTL's; what it waits for comes from the cycle model, whose cycles are shown next to
    the RTL's.

    Examples
    --------
      rowvit profile sign-digits --plot sign.png --trace-json sign.json

      rowvit profile deit-tiny.safetensors cat.jpg --predict --rate 50
    """
    from rowvit.hardware import config as configs
    from rowvit.measure import profile as measure
    from rowvit.targets.target import read_model

    hardware = configs.load(config)
    model_memory = memory_model(memory, latency, rate)
    network = read_model(model)
    writable(trace_json, plot)
    pixels = _one_image(model, image, network.meta)
    with ERR.status("predicting" if predict else "simulating one image"):
        found = measure.profile(network, pixels, hardware, model_memory, not predict)
    _print_profile(found)
    if trace_json:
        measure.write_trace(found, trace_json)
    if plot:
        measure.plot(found, plot)


def _one_image(model: str, image: Path | None, meta: dict[str, Any]) -> np.ndarray:
    """Pixels uint8 [S, S, 3]: of the file, of the model's first photo, or random."""
    from rowvit.images import for_network
    from rowvit.targets.session import image_files, shipped_photos

    if image is None and (photos := shipped_photos(model)):
        image = image_files(photos)[0]
    if image is None:
        side = meta["architecture"]["image_size"]
        return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return for_network(image, meta)


def _print_profile(found: Profile) -> None:
    """The table of `rowvit profile`; shares are of the layer's cycles."""

    def shares(layers: list[LayerProfile], *keys: str) -> list[str]:
        cycles = sum(layer.cycles for layer in layers)
        values = [sum(getattr(layer, key) for layer in layers) / cycles for key in keys]
        return [f"{min(value, 1):.0%}" if value >= 0.005 else "." for value in values]

    compared = found.result is not None
    array = right_aligned(
        *("layer", "cycles", *["model"] * compared, "MAC/cycle", "busy", "weights", "data", "draining")
    )
    units = right_aligned("layer", "load", "load waits", "drain", "LayerNorm", "softmax", "selection")
    for name, layers in [*((layer.name, [layer]) for layer in found.layers), ("total", found.layers)]:
        cycles, predicted = (sum(getattr(layer, key) for layer in layers) for key in ("cycles", "predicted"))
        array.add_row(
            name,
            f"{cycles:,}",
            *[f"{predicted / cycles - 1:+.1%}"] * compared,
            f"{sum(layer.macs for layer in layers) / cycles:.0f}",
            *shares(layers, "busy", "weights", "data", "draining"),
        )
        units.add_row(name, *shares(layers, "load", "load_wait", "drain", "norm", "softmax", "select"))
    config = found.config
    say(f"{found.network} on {config.name}: {found.source}, {found.memory}")
    say(f"\nThe array ({config.macs_per_cycle} MAC per cycle): busy, or waiting for")
    OUT.print(array, highlight=False)
    say("\nThe other units: busy")
    OUT.print(units, highlight=False)
