# SPDX-License-Identifier: Apache-2.0
"""``rowvit train`` and ``rowvit eval``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from rowvit.cli import options as opt
from rowvit.cli.common import (
    ERR,
    OUT,
    command,
    print_rows,
    progress_bar,
    right_aligned,
    say,
    write,
    wrote,
    wrote_network,
)
from rowvit.errors import RowvitError

if TYPE_CHECKING:
    from rowvit.measure.accuracy.evaluation import Evaluation, Labels, Network
    from rowvit.model.store import Card
    from rowvit.model.vit import VisionTransformer
    from rowvit.photos import Photos
    from rowvit.train.recipe import Phase, Recipe


@command()
def train(
    model: opt.FloatArgument,
    output: opt.OutputOption,
    data: opt.PhotosOption,
    recipe: Annotated[Path, Option(metavar="FILE", help="Phases, rates and augmentation (.toml).")],
    teacher: Annotated[
        Path | None, Option(metavar="MODEL", help="A float network with the same classes to distill from.")
    ] = None,
    seed: Annotated[
        int | None,
        Option(
            min=0, metavar="N", show_default="the recipe's", help="Of everything that is drawn by chance."
        ),
    ] = None,
    most: Annotated[
        int | None,
        Option(
            "--photos",
            min=1,
            metavar="N",
            show_default="the recipe's",
            help="At most so many training photos, drawn with the seed.",
        ),
    ] = None,
    workers: Annotated[int, Option(min=0, metavar="N", help="Processes that decode photos.")] = 0,
    save_every: Annotated[
        float, Option(min=1, metavar="SECONDS", help="Time between two saved states.")
    ] = 60.0,
    measure: opt.MeasureOption = None,
    labels: opt.LabelsOption = None,
) -> None:
    """Fine-tune a float network by a recipe.

    The state is kept in OUTPUT.state; after a kill the same command continues from there and gives the
    same network as an uninterrupted run. Under torchrun every process takes a share of each batch. Where
    the photos have other classes than the network, it gets a new head.

    Examples
    --------
      rowvit train vit.safetensors --data photos/ --recipe recipes/sign-digits/gelu.toml -o tuned.safetensors

      torchrun --nproc-per-node 4 -m rowvit.cli train vit.safetensors --data photos/ ...
    """
    from rowvit.measure.accuracy.evaluation import matched, read_labels
    from rowvit.model import store
    from rowvit.model.adapt import with_classes
    from rowvit.photos import one_way, open_data
    from rowvit.train import recipe as recipes

    name, steps = recipe.name, recipes.load(recipe)
    if seed is not None:
        name, steps = f"{name} with seed {seed}", replace(steps, seed=seed)
    if most is not None:
        steps = replace(steps, photos=most)
    if teacher and not steps.taught:
        raise RowvitError(
            f"{name} learns nothing from a teacher", "leave it out, or set distill, features or apart"
        )
    network, card = store.load(model)
    photos = open_data(data, "train")
    names = read_labels(labels)
    theirs, ours = (set(map(one_way, some)) for some in (photos.classes, card.classes))
    if names is not None or theirs == ours:
        photos = matched(photos, card.name, card.classes, names)
    elif network.config.classes == len(photos.classes) and theirs.isdisjoint(ours):
        say(f"{card.name}: its {len(photos.classes)} classes take the photos' names, in sorted order", ERR)
    else:
        network = with_classes(network, len(photos.classes), deviation=0.0)
        say(f"{card.name}: a new head for {len(photos.classes)} classes", ERR)
        if ours & theirs:
            say(
                f"{len(ours & theirs)} are named as its own; --labels keeps its head if all are its classes",
                ERR,
            )
    card.classes = list(photos.classes)
    tested = test_set(data, card, measure, names)
    taught = store.load(teacher) if teacher else None
    if run_recipe(network, card, photos, (name, steps), output, taught, workers, save_every):
        note_accuracy(network, card, tested, output)
        wrote_network(output, network.config.act, data)


def run_recipe(
    network: VisionTransformer,
    card: Card,
    photos: Photos,
    recipe: tuple[str, Recipe],
    output: Path,
    teacher: tuple[VisionTransformer, Card] | None,
    workers: int = 0,
    save_every: float = 60.0,
) -> bool:
    """Train by a recipe and its name, and save the network; returns whether this is the first process.

    The state is kept in ``output.state``.
    """
    from rowvit.train.loop import Trainer

    name, steps = recipe
    state = output.with_name(output.name + ".state")
    with progress_bar("training") as progress:
        trainer = Trainer(network, card, photos, steps, state, teacher, workers, save_every)
        say(f"training on {trainer.device} in {'bf16' if trainer.bf16 else 'fp32'}", ERR)

        def step(done: int, total: int, phase: Phase, loss: float) -> None:
            progress(done, f"{phase.name} loss {loss:.3f}", total)

        trainer.run(step)
        return trainer.save(output, name)


def test_set(data: Path, card: Card, measure: bool | None, labels: Labels = None) -> Photos | None:
    """The test photos, opened before the work and not after it; None if nothing is to be measured.

    That is if ``measure`` is false, or None and the data has no labelled test photos, which is said.
    """
    from rowvit.measure.accuracy.evaluation import matched
    from rowvit.photos import open_data

    if measure is False:
        return None
    if not card.classes:
        if measure:
            raise RowvitError(f"{card.name} has no classes, so there is no accuracy to measure")
        return None
    try:
        photos = open_data(data, "test")
    except RowvitError as error:
        if measure or not data.exists():
            raise
        say(f"no accuracy is measured: {error.message}", ERR)
        return None
    try:
        return matched(photos, card.name, card.classes, labels)
    except RowvitError as error:
        raise RowvitError(f"{error}; to skip measuring, use --no-measure") from error


def skipped(number: int, error: RowvitError) -> None:
    """Say which photo is left out of what is measured."""
    say(f"skipped: {error}", ERR)


def note_accuracy(network: VisionTransformer, card: Card, tested: Photos | None, output: Path) -> None:
    """Measure top-1 on the whole test set, print it and write it into the card at ``output``."""
    from rowvit.measure.accuracy.evaluation import evaluate
    from rowvit.model import store

    if tested is None:
        return
    with progress_bar("measuring", len(tested)) as progress:
        found = evaluate((network, card), tested, progress=progress, refused=skipped)
    card.accuracy = found.note()
    store.save(output, network, card)
    say(f"{output}: {found.summary()}")


@command("eval")
def evaluate_command(
    model: Annotated[
        str, Argument(metavar="MODEL", help="A float network or a model package (.safetensors).")
    ],
    data: opt.PhotosOption,
    target: Annotated[
        opt.TargetName,
        Option(
            "--target",
            "-t",
            metavar="golden|sim",
            help="For a package: golden, which is fast, or sim, the RTL. Whole sets do not run on boards.",
        ),
    ] = opt.TargetName.golden,
    config: opt.ConfigOption = opt.DEFAULT_CONFIG,
    photos: Annotated[
        int,
        Option(
            min=0,
            metavar="N",
            show_default="the whole set",
            help="Number of test photos, drawn with a fixed seed.",
        ),
    ] = 0,
    cycles: Annotated[
        int,
        Option(min=0, metavar="N", help="golden: number of photos that also go through the cycle model."),
    ] = 0,
    agree: Annotated[
        Path | None,
        Option(metavar="MODEL", help="A network to compare the answers with, such as the float one."),
    ] = None,
    rule: Annotated[
        str | None, Option(metavar="none|image|tile", help="Another FFN2 rule than the network's.")
    ] = None,
    precision: Annotated[
        str, Option(metavar="fp32|bf16", help="Of a float network; bf16 is faster.")
    ] = "fp32",
    jobs: Annotated[int, Option(min=1, metavar="N", help="Worker processes on this machine (Dask).")] = 1,
    scheduler: Annotated[
        str | None,
        Option(metavar="ADDRESS", help="Of a Dask scheduler, to use its workers, as tcp://HOST:8786."),
    ] = None,
    labels: opt.LabelsOption = None,
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write everything that was found.")
    ] = None,
) -> None:
    """Measure accuracy and work over a test set.

    Photos belong to the network's classes by the names of their folders; there may be fewer of them. Top-1
    comes with its 95 % interval (Wilson). MACs and rows of W2 are those that were executed and
    fetched, relative to the network without pruning and skipping. On sim every photo is compared with
    the integer reference, bit for bit. Exit 1 if one differs, or a photo cannot be decoded, which is left
    out.

    Examples
    --------
      rowvit eval vit-int8.safetensors --data photos/ --cycles 16 --agree vit.safetensors

      rowvit eval vit-int8.safetensors --data photos.npz --target sim --photos 20
    """
    from rowvit.hardware import config as configs
    from rowvit.measure.accuracy.evaluation import evaluate, load, made, matched, read_labels, with_rule
    from rowvit.photos import open_data

    if target is opt.TargetName.board:
        raise RowvitError(
            "whole sets run on golden and sim", "for a board use rowvit run MODEL PHOTOS --target board"
        )
    network = load(model)
    if rule is not None:
        network = with_rule(network, rule)
    if target is opt.TargetName.sim and isinstance(network, tuple):
        raise RowvitError(f"{model} is a float network", "quantise it to run it on sim")
    if precision == "bf16" and not isinstance(network, tuple):
        raise RowvitError(f"--precision is for float networks, and {model} is int8", "leave it out")
    if cycles and isinstance(network, tuple):
        raise RowvitError(f"--cycles is for int8 networks, and {model} is a float one", "quantise it")
    if scheduler and jobs > 1:
        raise RowvitError("--jobs is for this machine, and --scheduler has workers of its own", "pass one")
    hardware = configs.load(config)
    tested = open_data(data, "test")
    meta = network[1] if isinstance(network, tuple) else network.meta
    name, classes = (meta["name"], meta["classes"]) if isinstance(meta, dict) else (meta.name, meta.classes)
    if not classes:
        raise RowvitError(
            f"{name} has no classes, so there is no accuracy", "rowvit features gives its tokens"
        )
    tested = matched(tested, name, classes, read_labels(labels))
    tested = tested.subset(photos) if photos else tested

    refused: dict[int, RowvitError] = {}

    if target is opt.TargetName.sim:
        from rowvit.sim.verilate import build

        build(hardware)  # before the bar, whose clock is that of the photos

    def measured(what: Network, name: str) -> Evaluation:
        ways = target.value, hardware, cycles, jobs, scheduler
        with progress_bar(name, len(tested)) as progress:
            return evaluate(what, tested, *ways, progress, precision, refused.__setitem__)

    other = load(agree) if agree else None
    if other is not None:
        its = vars(other[1]) if isinstance(other, tuple) else other.meta
        matched(tested, its["name"], its["classes"])  # said now, and not after the first
    found = measured(network, "measuring")
    if other is not None:
        found.compare(measured(other, "comparing"))
    report = found.report() | made(model, data, network)
    if json_file:
        write(json_file, json.dumps(report, indent=1) + "\n")
    for why in refused.values():
        say(f"skipped: {why}", ERR)
    _print(report)
    if json_file:
        wrote(json_file)
    if refused or report.get("bit_exact", len(tested)) < len(tested):
        raise typer.Exit(1)


def _print(report: dict[str, Any]) -> None:
    low, high = report["top1_interval_95"]
    rows = {
        "network": f"{report['network']} ({report['kind']})",
        "photos": report["data"],
        "top-1": f"{report['top1']:.2f} % (95 % interval {low:.2f} to {high:.2f})",
    }
    if report["top5"] is not None:
        rows["top-5"] = f"{report['top5']:.2f} %"
    if "unlike" in report:
        rows["said to be unlike all classes"] = f"{report['unlike']:.2f} %"
    if report["agreement"] is not None:
        rows["same class as the other"] = f"{report['agreement']:.2f} %"
    executed, dense = report["macs_executed"] / 1e6, report["macs_dense"] / 1e6
    rows["MACs per photo"] = f"{executed:.1f} M of {dense:.1f} M dense ({report['macs_saved']:.1f} % fewer)"
    fetched, total = report["w2_rows_fetched"], report["w2_rows_total"]
    rows["W2 rows per photo"] = f"{fetched:.0f} of {total:.0f} ({report['w2_rows_saved']:.1f} % fewer)"
    rows["zeros behind ReLU"] = f"{report['zeros']:.1f} %"
    if "cycles" in report:
        rows["cycles per photo"] = f"{report['cycles']:,.0f} ({report['cycles_of']})"
    if "bit_exact" in report:
        rows["equal to reference"] = (
            f"{report['bit_exact']} of {report['photos']}, bit for bit in logits and kept tokens"
        )
    print_rows(rows)
    if len(report["classes"]) <= 20:
        shown = right_aligned("truth", *report["classes"])
        shown.title = "guesses"
        for name, counts in zip(report["classes"], report["confusion"], strict=True):
            shown.add_row(name, *(str(count) if count else "." for count in counts))
        OUT.print(shown)
