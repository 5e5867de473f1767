# SPDX-License-Identifier: Apache-2.0
"""From a float network to the accelerator's: ``rowvit relu``, ``narrow``, ``prune`` and ``quantise``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from typer import Option

from rowvit.cli import options as opt
from rowvit.cli.common import (
    ERR,
    OUT,
    command,
    progress_bar,
    right_aligned,
    say,
    write,
    wrote,
    wrote_network,
)
from rowvit.cli.train import note_accuracy, run_recipe, skipped, test_set
from rowvit.errors import RowvitError

FRONT = (0.85, 0.7, 0.55, 0.4)  # of the unpruned network's cycles: what a plot shows besides
TRIED = 400  # schedules that a search tries, about

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from rowvit.formats.package import ModelPackage
    from rowvit.hardware.config import HardwareConfig
    from rowvit.measure.accuracy.evaluation import Labels
    from rowvit.measure.accuracy.schedules import Point
    from rowvit.model.store import Card
    from rowvit.model.vit import VisionTransformer
    from rowvit.photos import Photos

Layer = TypeVar("Layer")

FitOption = Annotated[int, Option(min=1, metavar="N", help="Training photos to fit to.")]
CheckOption = Annotated[
    int, Option(min=1, metavar="N", help="Other training photos, for top-1 before and after.")
]
EachLayerOption = Annotated[
    bool, Option("--each-layer", help="Measure top-1 after every layer too, which takes longer.")
]
RidgeOption = Annotated[float, Option(metavar="WEIGHT", help="Weight of the pull towards the old matrices.")]


@command()
def relu(
    model: opt.FloatArgument,
    output: opt.OutputOption,
    data: opt.PhotosOption,
    photos: FitOption = 400,
    check: CheckOption = 500,
    each_layer: EachLayerOption = False,
    ridge: RidgeOption = 1e-3,
    recipe: Annotated[
        Path | None,
        Option(
            metavar="FILE", help="Then fine-tune by this recipe (.toml), with the GELU network as teacher."
        ),
    ] = None,
    measure: opt.MeasureOption = None,
    labels: opt.LabelsOption = None,
) -> None:
    """Turn a GELU network into a ReLU network, layer by layer.

    The second FFN matrix of each layer is refitted to the output of the GELU block, by ridge
    regression; this takes no labels and no gradients. The table shows for every layer the zeros
    behind ReLU, the squared error of the block's output before and after the fit, relative to the
    GELU block's output, and, where it was measured, top-1 of the network with ReLU up to this layer.

    Example
    -------
      rowvit relu vit.safetensors --data photos -o vit-relu.safetensors --recipe recipes/sign-digits/relu.toml
    """
    from rowvit.measure.accuracy.evaluation import matched, read_labels
    from rowvit.measure.accuracy.schedules import BATCH
    from rowvit.model import store
    from rowvit.model.adapt import rebuild
    from rowvit.model.relu import to_relu
    from rowvit.photos import open_data
    from rowvit.train import recipe as recipes
    from rowvit.train.loop import require_fit

    steps = (recipe.name, recipes.load(recipe)) if recipe else None
    network, card = store.load(model)
    trained, names = open_data(data, "train", labels=recipe is not None), read_labels(labels)
    if steps:
        trained = matched(trained, card.name, card.classes, names)
        turned = rebuild(network, replace(network.config, act="relu"))  # which is trained
        require_fit(turned, trained, steps[1], (network, card))
    tested = test_set(data, card, measure, names)
    fitted, checked = trained.subset(photos), trained.subset(check, skip=photos)
    table, measured = _layer_by_layer(
        (network, card),
        (fitted, _known(checked, card, None if steps else names)),
        each_layer,
        ("zeros", "error if swapped", "error refitted"),
        lambda pixels, step: to_relu(network, card, pixels, ridge, BATCH, step),
        lambda done: (f"{done.zeros:.1%}", f"{done.swapped:.3f}", f"{done.error:.3f}"),
    )
    card.history.append(f"GELU to ReLU by ridge refit ({ridge:g}) on {fitted.name}")
    card.accuracy = {}
    if not steps:
        store.save(output, network, card)
    _show(table, measured)
    if steps and not run_recipe(network, card, trained, steps, output, store.load(model)):
        return
    note_accuracy(network, card, tested, output)
    wrote_network(output, network.config.act, data)


@command()
def narrow(
    model: opt.FloatArgument,
    output: opt.OutputOption,
    data: opt.PhotosOption,
    hidden: Annotated[int, Option(min=1, metavar="N", help="Hidden neurons that stay in every FFN.")],
    photos: FitOption = 1000,
    check: CheckOption = 500,
    each_layer: EachLayerOption = False,
    ridge: RidgeOption = 1e-3,
    measure: opt.MeasureOption = None,
    labels: opt.LabelsOption = None,
) -> None:
    """Take hidden neurons out of every FFN, layer by layer.

    The second FFN matrix of each layer is refitted, so that the FFN's output changes least; this
    takes no labels and no gradients. Weights that are not there are neither loaded nor multiplied.
    The table shows for every layer the squared error of the output, relative to the output, with
    the old matrix and with the refitted one, and, where it was measured, top-1 of the network with
    the layers up to this one narrowed. Training makes up for most of what it costs.

    Example
    -------
      rowvit narrow vit-relu.safetensors --data photos --hidden 384 -o vit-narrow.safetensors
    """
    from rowvit.measure.accuracy.evaluation import read_labels
    from rowvit.measure.accuracy.schedules import BATCH
    from rowvit.model import store
    from rowvit.model.narrow import require_narrower, to_narrow
    from rowvit.photos import open_data

    network, card = store.load(model)
    require_narrower(network, card, hidden)
    before, names = network.config.hidden, read_labels(labels)
    trained, tested = open_data(data, "train", labels=False), test_set(data, card, measure, names)
    fitted, checked = trained.subset(photos), trained.subset(check, skip=photos)
    table, measured = _layer_by_layer(
        (network, card),
        (fitted, _known(checked, card, names)),
        each_layer,
        ("error if cut", "error refitted"),
        lambda pixels, step: to_narrow(network, card, pixels, hidden, ridge, BATCH, step),
        lambda done: (f"{done.cut:.3f}", f"{done.error:.3f}"),
    )
    card.history.append(f"{hidden} of {before} hidden neurons by ridge refit ({ridge:g}) on {fitted.name}")
    card.accuracy = {}
    store.save(output, network, card)
    _show(table, measured)
    note_accuracy(network, card, tested, output)
    wrote_network(output, network.config.act, data)


def _known(photos: Photos, card: Card, names: Labels) -> Photos | None:
    """The photos, as of the network's classes; nothing where there are none, or of other classes."""
    from rowvit.measure.accuracy.evaluation import matched
    from rowvit.photos import among

    if not len(photos) or not photos.classes or not (names or among(photos.classes, card.classes)):
        return None
    return matched(photos, card.name, card.classes, names)


def _layer_by_layer(
    found: tuple[VisionTransformer, Card],
    photos: tuple[Photos, Photos | None],
    each_layer: bool,
    titles: tuple[str, ...],
    refit: Callable[[np.ndarray, Callable[[], None]], Iterable[Layer]],
    cells: Callable[[Layer], tuple[str, ...]],
) -> tuple[Table, int]:
    """What a refit says of every layer, with top-1 before and after; and of how many photos that is.

    The first of the photos are those of the fit, the others those of top-1. The refit gets their pixels, and
    what it has to call after every batch.
    """
    from rowvit.measure.accuracy.schedules import BATCH, top1

    (network, card), (fitted, checked) = found, photos
    size, depth = network.config.size, network.config.depth
    pixels = fitted.prepared(size, card.resize, card.crop)
    tests, measured = pixels[:0], set[int]()  # after these layers
    if checked:
        tests = checked.prepared(size, card.resize, card.crop)
        measured = {-1, *range(depth)} if each_layer else {-1, depth - 1}
    table = right_aligned("layer", *titles, *(["top-1"] if checked else []), left=0)
    batches = count(1)
    total = depth * -(-len(pixels) // BATCH) + len(measured) * -(-len(tests) // BATCH)
    with progress_bar("refitting", total) as progress:

        def step() -> None:
            progress(next(batches))

        def accuracy(layer: int) -> list[str]:
            if not checked:
                return []
            return [f"{top1(network, card, tests, checked.labels, step):.1%}" if layer in measured else ""]

        if checked:
            table.add_row("none", *("" for _ in titles), *accuracy(-1))
        for layer, done in enumerate(refit(pixels, step)):
            table.add_row(f"{layer}", *cells(done), *accuracy(layer))
    return table, len(tests)


def _show(table: Table, tests: int) -> None:
    OUT.print(table)
    if tests:
        say(f"top-1 on {tests} training photos that were not used for the fit")


@command()
def prune(
    model: opt.FloatArgument,
    output: opt.OutputOption,
    data: opt.PhotosOption,
    layers: Annotated[
        str | None,
        Option(
            metavar="LAYERS",
            help="Blocks after whose attention tokens are dropped, counted from 0, as 3,6,9.",
        ),
    ] = None,
    rho: Annotated[
        float | None,
        Option(min=0.01, max=1.0, metavar="SHARE", help="Share of the patch tokens that each of them keeps."),
    ] = None,
    keep: Annotated[
        str | None,
        Option(
            metavar="SHARES",
            help="Instead of --rho: shares of all patch tokens left after each, as 0.7,0.4,0.1.",
        ),
    ] = None,
    cycles: Annotated[
        float | None, Option(min=1, metavar="CYCLES", help="Search: at most so many cycles per image.")
    ] = None,
    macs_saved: Annotated[
        float | None,
        Option(min=0, max=100, metavar="PERCENT", help="Search: at least this share of the MACs saved."),
    ] = None,
    trim: Annotated[
        bool,
        Option(
            "--trim",
            help="Leave only the class token to the last block's FFN: the same logits for less work,"
            " but no list of the kept tokens.",
        ),
    ] = False,
    lossy: Annotated[
        bool | None,
        Option(
            "--lossy/--exact",
            show_default="lossy",
            help="Search: drop small hidden activations, too, or tokens alone.",
        ),
    ] = None,
    rule: Annotated[
        str,
        Option(
            metavar="none|image|tile|auto",
            help="FFN2 rule; auto: image or tile, whichever takes fewer cycles.",
        ),
    ] = "auto",
    max_loss: Annotated[
        float,
        Option(
            min=0,
            metavar="POINTS",
            help="By hand: what FFN2 thresholds may cost of top-1; 0: no thresholds.",
        ),
    ] = 0.0,
    photos: Annotated[
        int, Option(min=1, metavar="N", help="Training photos for accuracy, drawn with a fixed seed.")
    ] = 500,
    config: opt.ConfigOption = opt.DEFAULT_CONFIG,
    plot: Annotated[
        Path | None, Option(metavar="FILE", help=f"Write accuracy against cycles ({opt.PICTURES}).")
    ] = None,
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write the schedules that are printed.")
    ] = None,
    measure: opt.MeasureOption = None,
    labels: opt.LabelsOption = None,
) -> None:
    """Choose where tokens are dropped, and which small hidden activations.

    By hand with --layers and --rho or --keep, or by a search for the schedule and the thresholds in a budget
    of cycles or MACs that change the network's answers least, which needs no labels. Cycles are predicted by
    the cycle model on the photos' own data. Accuracy is that of the network as it is: fine-tune it afterwards
    with rowvit train.

    Examples
    --------
      rowvit prune vit-relu.safetensors --data photos/ --layers 3,6,9 --rho 0.5 -o vit-pruned.safetensors

      rowvit prune vit-relu.safetensors --data photos/ --macs-saved 30 -o vit-pruned.safetensors
    """
    from rowvit.formats.description import RULES
    from rowvit.hardware import config as configs
    from rowvit.measure.accuracy import schedules as search
    from rowvit.measure.accuracy.evaluation import matched, read_labels
    from rowvit.model import store
    from rowvit.photos import among, open_data
    from rowvit.quant.quantise import obstacles

    if plot:
        from rowvit.measure.draw.plots import can_save

        can_save(plot)
    network, card = store.load(model)
    hardware = configs.load(config)
    some = replace(network.config, pruning=({"layer": 0, "keep": 1},))
    for obstacle in obstacles(some, tokens=True):
        raise obstacle
    if rule not in (*RULES, "auto"):
        raise RowvitError(f"FFN2 rule '{rule}' is not one of {', '.join(RULES)} and auto")
    budget = cycles is not None or macs_saved is not None
    if budget == (layers is not None) or (layers is None) == (rho is not None or keep is not None):
        raise RowvitError(
            "prune takes either a schedule or a budget",
            "use --layers with --rho or --keep, or --cycles or --macs-saved",
        )
    if budget and max_loss:
        raise RowvitError(
            "a search raises thresholds itself", "leave out --max-loss, and pass --exact if it shall not"
        )
    if lossy is not None and not budget:
        raise RowvitError("--lossy and --exact are of a search", "by hand --max-loss raises thresholds")
    if rho is not None and keep is not None:
        raise RowvitError("--rho and --keep exclude each other", "use one of them")
    names = read_labels(labels)
    tested = test_set(data, card, measure, names)
    drawn = open_data(data, "train", max_loss > 0).subset(photos)
    labelled = max_loss > 0 or bool(drawn.classes and (names or among(drawn.classes, card.classes)))
    if labelled:
        drawn = matched(drawn, card.name, card.classes, names)
    pixels = drawn.prepared(network.config.size, card.resize, card.crop)
    if network.config.pruning or network.config.thresholds:
        say(f"{card.name}: the schedule and the thresholds that it has are replaced", ERR)
    package = search.stand_in(network, card, pixels, "image" if rule == "auto" else rule)
    if layers is None:
        unpruned, points, chosen = _searched(
            network,
            card,
            package,
            pixels,
            hardware,
            cycles,
            macs_saved,
            lossy is not False,
            trim,
            plot is not None,
        )
    else:
        blocks = _blocks(layers, network.config.depth)
        ways = [((), 1.0), (blocks, rho or _shares(keep or "", len(blocks)))]
        points = [search.measure(network, card, package, pixels, hardware, *way, trim) for way in ways]
        unpruned, chosen = points
    dense = search.classes(network, card, pixels, unpruned, trim)
    with progress_bar("schedules", len(points)) as progress:
        for index, point in enumerate(points):
            found = dense if point is unpruned else search.classes(network, card, pixels, point, trim)
            points[index] = search.judged(point, found, dense, drawn.labels if labelled else None)
            chosen = points[index] if point is chosen else chosen
            progress(index + 1)
    said = []
    if rule == "auto":
        schedule = search.schedule_of(network, chosen.layers, chosen.rho, trim)
        by_rule = {"image": chosen.cycles}
        whole = search.thresholded(search.pruned(package, schedule), chosen.thresholds)
        by_rule |= search.tile_cycles(whole, pixels, hardware)
        rule = min(by_rule, key=by_rule.__getitem__)
        costs = ", ".join(f"{name} {value:,.0f}" for name, value in by_rule.items())
        said.append(f"FFN2 rule {rule}; cycles by rule: {costs}")
    search.apply(network, card, chosen, rule, trim)
    table = right_aligned("energy dropped", "top-1", left=2)
    if max_loss:
        search.thresholds_for(
            network,
            card,
            pixels,
            drawn.labels,
            max_loss / 100,
            rule,
            lambda energy, reached: table.add_row(f"{energy:.2%}", f"{reached:.1%}"),
        )
    try:
        store.save(output, network, card)
        if json_file:
            write(json_file, json.dumps([_finite(vars(point)) for point in points], indent=1) + "\n")
        if plot:
            search.plot(points, chosen, hardware, plot)
    finally:  # what cannot be written is shown all the same
        _print(points, chosen)
        what = "top-1 and agreement" if labelled else "agreement"
        say(f"{what} with the unpruned network on {drawn.name}; cycles by the cycle model, {hardware.name}")
        for text in said:
            say(text)
        if max_loss:
            OUT.print(table)
            least = network.config.thresholds
            say(search.dropped_below(least) if least else "no thresholds")
    for path in filter(None, (plot, json_file)):
        wrote(path)
    note_accuracy(network, card, tested, output)
    wrote_network(output, network.config.act, data)


def _searched(
    network: VisionTransformer,
    card: Card,
    package: ModelPackage,
    pixels: np.ndarray,
    hardware: HardwareConfig,
    cycles: float | None,
    macs_saved: float | None,
    lossy: bool,
    trim: bool,
    plotted: bool,
) -> tuple[Point, list[Point], Point]:
    """The unpruned network, what is to be shown, from slow to fast, and what is chosen for the budget.

    Shown are both, and if they are to be plotted, others.
    """
    from rowvit.measure.accuracy import search

    with (
        progress_bar("schedules tried", None) as progress,
        search.Search(
            network,
            card,
            package,
            pixels,
            hardware,
            lossy,
            trim,
            lambda tried: progress(tried, total=max(TRIED, tried)),
        ) as found,
    ):
        dense = found.point(found.dense)
        chosen = found.within(cycles, None if macs_saved is None else macs_saved / 100)
        others = []
        for share in FRONT if plotted else ():
            other = found.best(found.costs.cycles, share * found.costs.cycles(found.dense))
            if other is not None:  # a small network may not become so small
                others.append(found.point(other))
    return dense, sorted([dense, *others, chosen], key=lambda point: -point.cycles), chosen


def _finite(value: Any) -> Any:
    """Without infinities, as of activations that are all zero, and what was not measured: JSON has none."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{share:.1%}"


def _blocks(text: str, depth: int) -> tuple[int, ...]:
    parts = text.split(",")
    blocks = [int(part) for part in parts if part.strip().isdecimal()]
    if len(blocks) != len(parts) or sorted(set(blocks)) != blocks or blocks[-1] >= depth:
        raise RowvitError(f"blocks '{text}' are not ascending numbers below {depth}", "write them as 3,6,9")
    return tuple(blocks)


def _shares(text: str, count: int) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != count or not all(1 >= a >= b >= 0 for a, b in pairwise([1.0, *shares])):
        raise RowvitError(
            f"'{text}' are not {count} descending shares from 1 to 0, one for each block",
            "write them as 0.7,0.4,0.1",
        )
    return shares


def _print(points: list[Point], chosen: Point) -> None:
    labelled = not math.isnan(chosen.top1)
    titles = ["", "blocks", "left", "thresholds", "cycles", "MACs saved", *(["top-1"] if labelled else [])]
    table = right_aligned(*titles, "agreement", left=2)
    for point in points:
        mark = "chosen" if point is chosen else ""
        blocks = ", ".join(map(str, point.layers)) or "none"
        raised = sum(value > 0 for value in point.thresholds)
        row = point.shares, f"{raised} layers" if raised else "none", f"{point.cycles:,.0f}"
        shown = (f"{point.macs_saved:.1%}", *([_percent(point.top1)] if labelled else []))
        table.add_row(mark, blocks, *row, *shown, _percent(point.agreement))
    OUT.print(table)


@command()
def quantise(
    model: opt.FloatArgument,
    output: opt.OutputOption,
    data: opt.PhotosOption,
    photos: Annotated[int, Option(min=1, metavar="N", help="Training photos to calibrate on.")] = 256,
    method: Annotated[
        str,
        Option(
            metavar="mse|percentile|max", help="Scales of activations, by the least squared error or another."
        ),
    ] = "mse",
    percentile: Annotated[
        float | None,
        Option(
            metavar="PERCENT", help="For method percentile: the share that is not clipped; by default 99.99."
        ),
    ] = None,
    rule: Annotated[
        str | None,
        Option(
            metavar="none|image|tile",
            help="FFN2 rule; by default the network's, or image if it has none.",
        ),
    ] = None,
    tile_rows: Annotated[
        int | None,
        Option(min=1, metavar="ROWS", help="For rule tile: rows per tile; by default the network's, or 16."),
    ] = None,
    threshold_energy: Annotated[
        float,
        Option(
            metavar="SHARE", help="Lossy FFN2 threshold: share of the hidden activations' energy to drop."
        ),
    ] = 0.0,
    ffn_chunk: Annotated[
        int | None,
        Option(
            min=1,
            metavar="NEURONS",
            help="Hidden neurons per chunk of FFN2; by default equal chunks of at most 384.",
        ),
    ] = None,
    smooth: Annotated[
        float,
        Option(metavar="SHARE", help="Move outlier channels from activations into weights: 0 none, 1 all."),
    ] = 0.0,
    power_of_two: Annotated[
        bool, Option("--power-of-two", help="Requantise linear layers by powers of two only.")
    ] = False,
    tokens: Annotated[
        str,
        Option(
            metavar="class|all",
            help="Answer with tokens behind the last LayerNorm: the class token or all live ones.",
        ),
    ] = "",
    behind: Annotated[
        str,
        Option(
            metavar="LAYERS",
            help="With --tokens: behind which, counted from 0, as 2,5,8,11; by default the last one.",
        ),
    ] = "",
    measure: opt.MeasureOption = None,
    labels: opt.LabelsOption = None,
    jobs: Annotated[int, Option(min=1, metavar="N", help="Worker processes that measure (Dask).")] = 1,
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write the table of noise.")
    ] = None,
) -> None:
    """Turn a float ReLU network into an int8 package for the accelerator.

    The table shows where accuracy is lost, as signal-to-noise ratios in dB: of each activation by its own
    rounding and clipping; of the worst matrix of each layer; and of the residual stream with everything
    before it.

    Example
    -------
      rowvit quantise vit-relu.safetensors --data photos/ -o vit-int8.safetensors
    """
    from rowvit.measure.accuracy.evaluation import read_labels
    from rowvit.model import store
    from rowvit.photos import open_data, spread
    from rowvit.quant.noise import layer_noise
    from rowvit.quant.quantise import QuantOptions, default_chunk
    from rowvit.quant.quantise import quantise as to_integers
    from rowvit.quant.smooth import centre_keys
    from rowvit.quant.smooth import smooth as even

    if behind and not tokens:
        raise RowvitError("--behind is for tokens, which --tokens asks for", "name both, or neither")
    if percentile is not None and method != "percentile":
        raise RowvitError(f"--percentile is not of the method {method}", "add --method percentile")
    network, card = store.load(model)
    config = network.config
    rule = rule or ("image" if config.ffn2_rule == "none" else config.ffn2_rule)
    if tile_rows and rule != "tile":
        raise RowvitError(f"--tile-rows is for rule tile, not for {rule}", "add --rule tile, or leave it out")
    tested = test_set(data, card, measure, read_labels(labels))
    options = QuantOptions(
        name=card.name,
        classes=card.classes,
        mean=card.mean,
        std=card.std,
        resize=card.resize,
        crop=card.crop,
        ffn2_rule=rule,
        tile_rows=tile_rows or config.tile_rows,
        ffn_chunk=ffn_chunk or default_chunk(config),
        threshold_energy=threshold_energy,
        method=method,
        percentile=QuantOptions.percentile if percentile is None else percentile,
        power_of_two=power_of_two,
        licence=card.licence,
        source=card.source,
        tokens=tokens,
        behind=_blocks(behind, config.depth) if behind else (),
    )
    found = open_data(data, "train", labels=False)
    drawn = found.subset(photos)
    pixels = drawn.prepared(config.size, card.resize, card.crop)
    with progress_bar("calibrating", 3) as progress:
        network = centre_keys(network, options.mean, options.std, pixels)
        if smooth:
            network = even(network, options.mean, options.std, pixels, smooth)
        progress(1)
        package = to_integers(network, pixels, options)
        progress(2)
        noise = layer_noise(network, package, spread(pixels, 64))
    table = right_aligned("layer", *noise[1].activations, "weights", "attn", "ffn")

    def text(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    for row in noise:
        values = [row.activations.get(name) for name in noise[1].activations]
        table.add_row(row.layer, *map(text, [*values, row.weights, row.attention, row.ffn]))
    package.meta["history"] = [*card.history, f"quantised ({method}) on {drawn.name}"]
    package.meta["accuracy"] = dict(card.accuracy)
    ratios = json.dumps([_finite(vars(row)) for row in noise], indent=1, allow_nan=False)
    try:
        package.save(output)
        if json_file:
            write(json_file, ratios + "\n")
    finally:  # what cannot be written is shown all the same
        say("Signal-to-noise ratios in dB; attn and ffn: the residual stream after them")
        OUT.print(table)
    if tested is not None:
        from rowvit.measure.accuracy.evaluation import evaluate

        with progress_bar("measuring", len(tested)) as progress:
            result = evaluate(package, tested, jobs=jobs, progress=progress, refused=skipped)
        if card.accuracy.get("set", tested.name) != tested.name:
            package.meta["accuracy"] = {}
        package.meta["accuracy"] |= result.note()
        package.save(output)
        report = result.report()
        say(
            f"{output}: {result.summary()}; {report['macs_saved']:.1f} % fewer MACs,"
            f" {report['w2_rows_saved']:.1f} % fewer W2 rows"
        )
    if json_file:
        wrote(json_file)
    wrote(output, "rowvit", "run", output, "PHOTOS", "--target", "sim", "--check")
