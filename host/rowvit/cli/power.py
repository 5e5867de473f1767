# SPDX-License-Identifier: Apache-2.0
"""``rowvit power`` and ``power-log``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from rowvit.cli.common import (
    OUT,
    app,
    print_result,
    progress_bar,
    right_aligned,
    say,
    sentences,
    writable,
    write_result,
)
from rowvit.cli.options import (
    DEFAULT_CONFIG,
    BatchOption,
    BitstreamOption,
    ConfigOption,
    CountOption,
    ImagesArgument,
    ModelArgument,
    ResultOption,
    SetNameOption,
    SubsetOption,
    TargetName,
    TargetOption,
    target_options,
)
from rowvit.errors import RowvitError
from rowvit.measure.sensors import kinds

_KINDS = "; ".join(f"{kind.name}: {kind.help}" for kind in kinds().values())


@app.command()
@sentences
def power(
    model: ModelArgument,
    images: ImagesArgument = None,
    target: TargetOption = TargetName.board,
    config: ConfigOption = DEFAULT_CONFIG,
    instrument: Annotated[
        str,
        typer.Option(help=f"{_KINDS}. By default the board's own; off the board none.", show_default=False),
    ] = "",
    rail: Annotated[
        list[str] | None,
        typer.Option(
            help="pmbus, hwmon: a rail or sensor by name, instead of the board's; repeat to add their power."
        ),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="csv: the meter's log, if it exists by the end of the passes.")
    ] = None,
    measures: Annotated[str, typer.Option(help="csv: where the meter is connected.")] = "",
    pairs: Annotated[int, typer.Option(help="Number of idle passes, and of busy ones.")] = 10,
    seconds: Annotated[float, typer.Option(help="Measured part of a pass.")] = 10.0,
    settle: Annotated[float, typer.Option(help="Seconds of the same load before it, not counted.")] = 3.0,
    interval: Annotated[
        float, typer.Option(min=0.001, help="pmbus, hwmon: seconds from one sample to the next.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="For the order of the passes.")] = 0,
    batch: BatchOption = 8,
    count: CountOption = 0,
    json_file: ResultOption = None,
    data: SetNameOption = None,
    subset: SubsetOption = None,
    bitstream: BitstreamOption = None,
) -> None:
    """Measure the energy per image: idle and busy passes in shuffled order, and their difference.

    Idle means: overlay and network loaded, core not started. PYNQ-Z1 and Z2 have no sensor and need an
    external meter; its log may also be joined later, with rowvit power-log.

    Examples
    --------
      rowvit power deit-tiny.rvp photos/ --json power.json

      rowvit power deit-tiny.rvp photos/ --instrument csv --json power.json
    """
    from rowvit.measure import power as protocol
    from rowvit.measure import result, sensors
    from rowvit.measure.instruments import meter
    from rowvit.measure.workload import Workload

    plan = protocol.Plan(pairs, seconds, settle, seed=seed)
    writable(json_file)
    board = result.board().get("name", "") if target is TargetName.board else None
    wanted = sensors.Wanted(board, rail or (), measures, interval)
    opened = sensors.open_instrument(instrument, wanted)
    later = opened.available == "later"
    if later and str(json_file) in ("None", "-"):
        raise RowvitError(
            f"--instrument {instrument} needs a result file, which the meter's log is joined to",
            "pass --json FILE",
        )
    options = target_options(target, bitstream)
    workload = Workload.load(model, config, target.value, images or (), count, data, subset, **options)
    with progress_bar("passes", 2 * pairs) as progress, workload.session:
        document = protocol.document(workload, plan, opened, batch, progress)
    if later:
        write_result(document, json_file)
        if log is None:
            say(f"Copy the meter's log and run: rowvit power-log {json_file} LOG")
            return
        meter.join(document, log)
    print_result(document, json_file, _print_power)


@app.command("power-log")
@sentences
def power_log(
    result_file: Annotated[Path, typer.Argument(metavar="RESULT", help="Of rowvit power --instrument csv.")],
    log: Annotated[Path, typer.Argument(help="The meter's log (CSV with a header).")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here instead of over RESULT.")
    ] = None,
    search: Annotated[
        float, typer.Option(min=0, help="Seconds by which the meter's clock may differ from the board's.")
    ] = 60.0,
) -> None:
    """Join the log of an external meter to the passes of rowvit power --instrument csv.

    The log needs columns time (seconds or dates), and power, or voltage and current. It is shifted to where
    the power rises and falls with the passes, and refused where it does not.
    """
    from rowvit.measure import result
    from rowvit.measure.instruments import meter

    document = result.read(result_file)
    meter.join(document, log, search)
    print_result(document, output or result_file, _print_power)


def _print_power(document: dict[str, Any]) -> None:
    from rowvit.measure.power import FIGURES

    say(f"{document['model']['name']} on {document['target']}: {document['evidence']}")
    busy = [p for p in document["passes"] if p["kind"] == "busy"]
    found = document["power"]
    if "none" in found:
        images = sum(p["images"] for p in busy)
        rate = images / sum(p["end"] - p["begin"] for p in busy)
        say(f"{len(busy)} busy passes: {images} images, {rate:.2f} images/s")
        say(f"instrument: {found['none']}")
        return
    instrument = document["instrument"]
    table = right_aligned("", "mean", f"± ({found['confidence']:.0%})", "standard error")
    for key, (name, unit, scale) in FIGURES.items():
        one = found[key]
        value, half, error = (one[k] * scale for k in ("value", "uncertainty", "standard_error"))
        # two digits of the uncertainty, and as many decimals of the others
        digits = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 3
        table.add_row(name, *(f"{number:.{digits}f} {unit}" for number in (value, half, error)))
    OUT.print(table, highlight=False)
    say(
        f"{len(busy)} pairs of passes; {instrument['name']} ({instrument['measures']}),"
        f" {instrument['sampling_hz']:.3g} samples per second, steps of {found['step_watts']:.2g} W"
    )
    if not found["significant"]:
        say(
            "The difference between busy and idle is within its uncertainty: use longer or more passes"
            " (--seconds, --pairs)"
        )
