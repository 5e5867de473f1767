# SPDX-License-Identifier: Apache-2.0
"""``rowvit train`` and ``rowvit eval``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rowvit.cli.common import (
    DEFAULT_CONFIG,
    ERR,
    LOG,
    OUT,
    ConfigOption,
    TargetName,
    app,
    sentences,
    writable,
    write,
)
from rowvit.errors import RowvitError
from rowvit.hardware import config as configs

if TYPE_CHECKING:
    from rowvit.measure.accuracy import Evaluation
    from rowvit.model.store import Card
    from rowvit.model.vit import VisionTransformer
    from rowvit.train.data import Photos
    from rowvit.train.recipe import Phase, Recipe

LOG_EVERY = 30.0  # seconds between two lines of a training run that no one watches
FloatArgument = Annotated[Path, typer.Argument(help="A float network (.safetensors, from rowvit import).")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="The network to write (.safetensors).")]
DataOption = Annotated[
    Path,
    typer.Option(
        help="Photos: a folder with train and val folders of classes, CIFAR-10's python version, or an .npz."
    ),
]


def bar(what: str) -> Progress:
    """A progress bar on the terminal's error stream."""
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}")
    return Progress(TextColumn(what), *columns, console=ERR, transient=True)


@app.command()
@sentences
def train(
    model: FloatArgument,
    output: OutputOption,
    data: DataOption,
    recipe: Annotated[Path, typer.Option(help="Phases, rates and augmentation (.toml).")],
    teacher: Annotated[
        Path | None, typer.Option(help="A float network to distill from; its classes are the same.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode photos.")] = 0,
    save_every: Annotated[float, typer.Option(min=1, help="Seconds between two saved states.")] = 60.0,
    measure: Annotated[
        bool, typer.Option(help="At the end, measure top-1 on the whole test set and note it in the card.")
    ] = True,
) -> None:
    """Fine-tune a float network by a recipe.

    The state is kept in OUTPUT.state; after a kill the same command goes on from there and gives the
    network that it would have given. Under torchrun every process takes a share of each batch. Where
    the photos have other classes than the network, it gets a new head.

    Examples
    --------
      rowvit train vit.safetensors --data photos/ --recipe fine-tune.toml -o tuned.safetensors

      torchrun --nproc-per-node 4 -m rowvit.cli train vit.safetensors --data photos/ ...
    """
    from rowvit.measure.accuracy import matched
    from rowvit.model import store
    from rowvit.model.adapt import with_classes
    from rowvit.train import recipe as recipes
    from rowvit.train.data import open_data

    steps = recipes.load(recipe)
    network, card = store.load(model)
    photos = open_data(data, "train")
    writable(output)
    if network.config.classes == len(photos.classes):
        photos = matched(photos, card.name, card.classes)
    else:
        network = with_classes(network, len(photos.classes), deviation=0.0)
        ERR.print(f"{card.name}: a new head for {len(photos.classes)} classes", highlight=False)
    card.classes = list(photos.classes)
    tested = test_set(data, card, measure)
    taught = store.load(teacher) if teacher else None
    if run_recipe(network, card, photos, (recipe.name, steps), output, taught, workers, save_every):
        note_accuracy(network, card, tested, output)


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
    """Train in place, with a progress bar, and save the network; whether this process is to go on."""
    from rowvit.model import store
    from rowvit.train.loop import Trainer

    name, steps = recipe
    state = output.with_name(output.name + ".state")
    trainer = Trainer(network, card, photos, steps, state, teacher, workers, save_every)
    with bar("training") as progress:
        task = progress.add_task("", total=sum(trainer.steps), note="", visible=trainer.rank == 0)
        logged = time.monotonic()

        def step(done: int, total: int, phase: Phase, value: float) -> None:
            nonlocal logged
            progress.update(task, completed=done, note=f"{phase.name} loss {value:.3f}")
            if not ERR.is_terminal and trainer.rank == 0 and time.monotonic() > logged + LOG_EVERY:
                LOG.info("step %d of %d, %s, loss %.3f", done, total, phase.name, value)
                logged = time.monotonic()

        trainer.run(step)
    phases = ", ".join(phase.name or f"{phase.epochs:g} epochs" for phase in steps.phases)
    card.history.append(f"trained by {name} ({phases}) on {photos.name}")
    card.accuracy = {}
    if trainer.rank == 0:
        store.save(output, network, card)
    trainer.forget()
    return trainer.rank == 0


def test_set(data: Path, card: Card, measure: bool) -> Photos | None:
    """The test photos, opened before the work and not after it; None if nothing is to be measured."""
    from rowvit.measure.accuracy import matched
    from rowvit.train.data import open_data

    if not measure:
        return None
    try:
        return matched(open_data(data, "test"), card.name, card.classes)
    except RowvitError as error:
        raise RowvitError(f"{str(error).rstrip('.')}; to measure nothing, give --no-measure") from error


def note_accuracy(network: VisionTransformer, card: Card, tested: Photos | None, output: Path) -> None:
    """Measure top-1 on the whole test set, print it and write it into the card at ``output``."""
    from rowvit.measure.accuracy import evaluate, wilson
    from rowvit.model import store

    if tested is None:
        return
    with bar("measuring") as progress:
        task = progress.add_task("", total=len(tested), note="")
        found = evaluate((network, card), tested, progress=lambda done: progress.update(task, completed=done))
    low, high = wilson(found.right(), len(tested))
    card.accuracy = {"set": tested.name, "unit": "percent top-1", "float": round(found.report()["top1"], 2)}
    store.save(output, network, card)
    OUT.print(
        f"{output}: top-1 {card.accuracy['float']:.2f} % on {tested.name}"
        f" (95 % interval {100 * low:.2f} to {100 * high:.2f})",
        soft_wrap=True,
        highlight=False,
    )


@app.command("eval")
@sentences
def evaluate_command(
    model: Annotated[str, typer.Argument(help="A float network or a model package (.safetensors).")],
    data: DataOption,
    target: Annotated[
        TargetName, typer.Option("--target", "-t", help="Of a package. golden: fast; sim: the RTL.")
    ] = TargetName.golden,
    config: ConfigOption = DEFAULT_CONFIG,
    photos: Annotated[
        int, typer.Option(min=0, help="So many test photos, drawn with a fixed seed; 0: the whole set.")
    ] = 0,
    cycles: Annotated[
        int, typer.Option(min=0, help="golden: so many photos also go through the cycle model.")
    ] = 0,
    agree: Annotated[
        Path | None, typer.Option(help="A network to compare the answers with, such as the float one.")
    ] = None,
    rule: Annotated[
        str | None, typer.Option(help="Another FFN2 rule than the network's: none, image or tile.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Of a float network: fp32, or bf16, which is faster.")
    ] = "fp32",
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes on this machine (Dask).")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler, to use its workers: tcp://HOST:8786.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything that was found.")] = None,
) -> None:
    """Measure accuracy and work over a test set.

    Top-1 comes with its 95 % interval (Wilson). MACs and rows of W2 are those that were executed and
    fetched, against the network without pruning and skipping. On sim every photo is compared with
    the integer reference to the bit; exit 1 if one differs.

    Examples
    --------
      rowvit eval net.safetensors --data imagenet/ --jobs 8 --cycles 16

      rowvit eval net.safetensors --data photos.npz --target sim --photos 20
    """
    from rowvit.measure.accuracy import evaluate
    from rowvit.train.data import open_data

    if target is TargetName.board:
        raise RowvitError(
            "whole sets run on golden and sim; for a board take rowvit run PHOTOS --target board"
        )
    network = _with_rule(_network(model), rule)
    if target is TargetName.sim and isinstance(network, tuple):
        raise RowvitError(f"{model} is a float network; quantise it to run it on sim")
    if precision not in ("fp32", "bf16"):
        raise RowvitError(f"precision '{precision}' is not fp32 or bf16")
    hardware = configs.load(config)
    writable(json_file)
    tested = open_data(data, "test")
    tested = tested.subset(photos) if photos else tested

    def measured(what: Any, name: str) -> Evaluation:
        with bar(name) as progress:
            task = progress.add_task("", total=len(tested), note="")
            return evaluate(
                what,
                tested,
                target.value,
                hardware,
                cycles,
                jobs,
                scheduler,
                lambda done: progress.update(task, completed=done),
                precision,
            )

    found = measured(network, "measuring")
    if agree:
        found.compare(measured(_network(str(agree)), "comparing"))
    report = found.report()
    if json_file:
        write(json_file, json.dumps(report, indent=1) + "\n")
    _print(report)
    if target is TargetName.sim and not isinstance(network, tuple) and report["bit_exact"] < len(tested):
        raise typer.Exit(1)


def _network(name: str) -> Any:
    """A package, or a float network and its card."""
    from rowvit.formats import container
    from rowvit.model import store
    from rowvit.targets.target import read_package

    if Path(name).is_file() and store.KEY in container.read(name)[1]:
        return store.load(name)
    return read_package(name)


def _with_rule(network: Any, rule: str | None) -> Any:
    from rowvit.formats.package import RULES, ModelPackage

    if rule is None:
        return network
    if rule not in RULES:
        raise RowvitError(f"FFN2 rule '{rule}' is not one of {', '.join(RULES)}")
    if isinstance(network, ModelPackage):
        return ModelPackage(network.meta | {"ffn2_rule": rule}, network.tensors)
    from rowvit.model.prune import set_ffn2

    model, card = network
    set_ffn2(model, rule, model.config.thresholds)
    return model, card


def _print(report: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    row = table.add_row
    row("network", f"{report['network']} ({report['kind']})")
    row("photos", report["data"])
    low, high = report["top1_interval_95"]
    row("top-1", f"{report['top1']:.2f} % (95 % interval {low:.2f} to {high:.2f})")
    if report["top5"] is not None:
        row("top-5", f"{report['top5']:.2f} %")
    if report["agreement"] is not None:
        row("same class as the other", f"{report['agreement']:.2f} %")
    executed, dense = report["macs_executed"] / 1e6, report["macs_dense"] / 1e6
    row("MACs per photo", f"{executed:.1f} M of {dense:.1f} M dense ({report['macs_saved']:.1f} % fewer)")
    fetched, total = report["w2_rows_fetched"], report["w2_rows_total"]
    row("W2 rows per photo", f"{fetched:.0f} of {total:.0f} ({report['w2_rows_saved']:.1f} % fewer)")
    row("zeros behind ReLU", f"{report['zeros']:.1f} %")
    if "cycles" in report:
        row("cycles per photo", f"{report['cycles']:,.0f} ({report['cycles_of']})")
    if "bit_exact" in report:
        row("equal to reference", f"{report['bit_exact']} of {report['photos']}, to the bit")
    OUT.print(table, highlight=False)
    if len(report["classes"]) <= 20:
        shown = Table("truth", *report["classes"], title="guesses", box=None, pad_edge=False)
        for column in shown.columns[1:]:
            column.justify = "right"
        for name, counts in zip(report["classes"], report["confusion"], strict=True):
            shown.add_row(name, *(str(count) if count else "." for count in counts))
        OUT.print(shown, highlight=False)
