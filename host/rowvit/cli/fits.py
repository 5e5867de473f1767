# SPDX-License-Identifier: Apache-2.0
"""``rowvit fits``: which configurations hold a network, and how fast it is there, before any training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rowvit.cli import options as opt
from rowvit.cli.common import OUT, command, progress_bar, right_aligned, say, status, write
from rowvit.errors import RowvitError
from rowvit.hardware import config as configs
from rowvit.hardware.host import HEAD, PHOTO, row
from rowvit.hardware.memory import Memory

if TYPE_CHECKING:
    from rowvit.model.vit import ViTConfig


@command()
def fits(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="timm:NAME, without its weights; whatever rowvit import takes; or a model package.",
        ),
    ],
    config: Annotated[
        str | None,
        typer.Option(
            "--config", "-c", metavar="NAME|FILE", help="Only this configuration: a name or a .toml file."
        ),
    ] = None,
    classes: opt.ClassesOption = None,
    image_size: opt.ImageSizeOption = None,
    heads: opt.HeadsOption = None,
    pool: opt.PoolOption = None,
    json_file: opt.ResultOption = None,
) -> None:
    """Show which configurations can run a network and how fast, or which limit it exceeds.

    Cycles, images per second and bytes are predicted by the cycle model for data that it assumes; nothing
    is measured. What must change before the network runs anywhere, such as its activation, is listed.

    Examples
    --------
      rowvit fits timm:vit_small_patch16_224

      rowvit fits model.onnx -c zcu104
    """
    from rowvit.measure.speed.fits import fit, stand_in
    from rowvit.targets.target import read_package

    chosen = [configs.load(name) for name in ([config] if config else configs.names())]
    quantised = _is_package(source)
    if quantised:
        shaping = {"classes": classes, "image-size": image_size, "heads": heads, "pool": pool}
        if told := [f"--{name}" for name, value in shaping.items() if value is not None]:
            raise RowvitError(
                f"{source} is quantised, with a shape of its own", f"leave out {', '.join(told)}"
            )
        package, reasons = read_package(source), []
    else:
        from rowvit.quant.quantise import obstacles

        with status(f"reading {source}"):
            shape = _architecture(source, classes, image_size, heads, pool)
        reasons = list(obstacles(shape))
        try:
            package = stand_in(shape, source)
        except RowvitError as error:
            raise RowvitError(f"no configuration can hold {error.message}", error.advice) from error
    found = []
    with progress_bar("configurations", len(chosen)) as progress:
        for number, hardware in enumerate(chosen, 1):
            found.append(fit(package, hardware, not quantised))
            progress(number, hardware.name)
    if json_file:
        report = {
            "source": source,
            "before_it_runs": [str(reason) for reason in reasons],
            "configurations": [one.report() for one in found],
        }
        text = json.dumps(report, indent=1) + "\n"
        if str(json_file) == "-":
            typer.echo(text, nl=False)
            return
        write(json_file, text)
    for reason in reasons:
        say(f"before it runs: {reason}")
    table = right_aligned("", "cycles", "images/s", "at MHz", "KB on chip", "MB read", "MB in DDR")
    hosts = right_aligned("", *HEAD[1:])
    for one in found:
        if not one.problem:
            table.add_row(
                *(one.config.name, f"{one.cycles:,}", f"{one.images_per_second:.1f}"),
                *(f"{one.config.clock_mhz:g}", f"{one.on_chip / 1e3:,.0f}"),
                *(f"{one.traffic / 1e6:.2f}", f"{one.stored / 1e6:.2f}"),
            )
            if one.host:
                hosts.add_row(one.config.name, *row(one.host.report(one.milliseconds, one.fabric))[1:])
    if table.row_count:
        say(f"Predicted by the cycle model, not measured: of one image, with {Memory()}")
        OUT.print(table)
        if hosts.row_count:
            say(f"From a {PHOTO} each, estimated from counted instructions of the board's processor:")
            OUT.print(hosts)
        if none := [one.config.name for one in found if not one.problem and one.config.board == "none"]:
            say(f"{', '.join(none)}: the clock is of no board, and there to compare cycles")
    else:
        say("no configuration holds this network" if config is None else f"'{config}' does not hold it")
    for one in found:
        if one.problem:
            say(one.problem)
        elif one.chunk != package.meta["ffn_chunk"]:
            say(f"{one.config.name}: with rowvit quantise --ffn-chunk {one.chunk}")


def _is_package(source: str) -> bool:
    """Whether this is an int8 package or a network that comes with rowvit."""
    from rowvit.formats.container import metadata

    if source.startswith("timm:"):
        return False
    path = Path(source)
    return bool({"rowvit", "rowvit-program"} & metadata(source).keys()) or not (path.exists() or path.suffix)


def _architecture(
    source: str, classes: int | None, image_size: opt.ImageSize | None, heads: int | None, pool: str | None
) -> ViTConfig:
    from rowvit.model.importers import import_model, require_open

    if not source.startswith("timm:"):
        found = import_model(source, classes=classes, image_size=image_size, heads=heads, pool=pool)
        return found.model.config
    from rowvit.model.importers.timm import configuration

    require_open(source, {"heads": heads, "pool": pool})
    shape = configuration(source.removeprefix("timm:"))
    height, width = image_size or shape.size
    return replace(
        shape,
        classes=shape.classes if classes is None else classes,
        distilled=shape.distilled and classes is None,
        image_size=height,
        image_width=width,
    )
