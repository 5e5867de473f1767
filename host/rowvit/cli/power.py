# SPDX-License-Identifier: Apache-2.0
"""``rowvit power`` and ``power-log``."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from rowvit.cli.common import (
    DEFAULT_CONFIG,
    OUT,
    ConfigOption,
    MemoryName,
    ModelArgument,
    TargetName,
    app,
    sentences,
    writable,
)
from rowvit.cli.measuring import (
    BatchOption,
    BitstreamOption,
    CountOption,
    DataOption,
    ImagesArgument,
    JsonOption,
    SubsetOption,
    TargetOption,
    prepare,
    progress_bar,
    temperature,
    temperatures,
    written,
)
from rowvit.errors import RowvitError

if TYPE_CHECKING:
    from rowvit.measure.power import Pass
    from rowvit.measure.sensors import Instrument


class InstrumentName(str, Enum):
    """What measures power."""

    pmbus = "pmbus"
    hwmon = "hwmon"
    csv = "csv"
    none = "none"


@app.command()
@sentences
def power(
    model: ModelArgument,
    images: ImagesArgument = None,
    target: TargetOption = TargetName.board,
    config: ConfigOption = DEFAULT_CONFIG,
    instrument: Annotated[
        InstrumentName | None,
        typer.Option(
            help="pmbus: rails of PYNQ; hwmon: INA226 or INA260 of the kernel; csv: log of an external meter;"
            " none: only count images. By default the board's own; off the board none.",
            show_default=False,
        ),
    ] = None,
    rail: Annotated[
        list[str] | None,
        typer.Option(
            help="pmbus, hwmon: a rail or sensor by name, in place of the board's; their watts are added."
        ),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="csv: the meter's log, there when the passes are over.")
    ] = None,
    measures: Annotated[str | None, typer.Option(help="csv: where the meter is connected.")] = None,
    pairs: Annotated[int, typer.Option(help="Passes: so many idle, and so many busy.")] = 10,
    seconds: Annotated[float, typer.Option(help="Measured part of a pass.")] = 10.0,
    settle: Annotated[float, typer.Option(help="Seconds of the same load before, not counted.")] = 3.0,
    interval: Annotated[
        float, typer.Option(min=0.001, help="pmbus, hwmon: seconds from a sample to the next.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of the passes.")] = 0,
    batch: BatchOption = 8,
    count: CountOption = 0,
    json_file: JsonOption = None,
    data: DataOption = None,
    subset: SubsetOption = None,
    bitstream: BitstreamOption = None,
) -> None:
    """Measure the energy of an image: idle and busy passes in shuffled order, and their difference.

    Idle means: overlay and network loaded, core not started. PYNQ-Z1 and Z2 have no sensor and need an
    external meter; its log may also be joined later, with rowvit power-log.

    Examples
    --------
      rowvit power deit-tiny.rvp photos/ --json power.json

      rowvit power deit-tiny.rvp photos/ --instrument csv --json power.json
    """
    from rowvit.measure import power as protocol
    from rowvit.measure import result

    plan = protocol.Plan(pairs, seconds, settle, seed=seed)
    writable(json_file)
    board = result.board().get("name", "") if target is TargetName.board else ""
    kind = instrument or _default_instrument(board, target)
    meter = _instrument(kind, board, rail or [], measures, interval)
    if kind is InstrumentName.csv and str(json_file) in ("None", "-"):
        raise RowvitError("with --instrument csv, give --json FILE: the meter's log is joined to it")
    workload = prepare(
        model, images, target, config, count, data, subset, bitstream, (MemoryName.ddr, 40, 85)
    )
    thermometer = temperature(workload.target)
    with progress_bar(f"{2 * pairs} passes", 2 * pairs) as progress, workload.open() as opened:
        document = workload.describe("power", opened)

        def work() -> int:
            # to its end: the core must not wait for the host through an idle pass
            return len(opened(workload.pixels, batch))

        passes: list[Pass] = []

        def done(latest: Pass) -> None:
            passes.append(latest)
            progress(len(passes))

        wall = time.time() - time.monotonic()
        protocol.measure(plan, work, meter, thermometer[1] if thermometer else None, progress=done)
    document |= {
        "protocol": {
            "warm_up": f"all images once, and {settle:g} s of the same load before every pass",
            "repetitions": pairs,
            "batch": batch,
            **asdict(plan),
            "order": [kind for _, kind in plan.order()],
            "wall_minus_monotonic_s": wall,
        },
        "instrument": {
            "name": meter.name,
            "measures": meter.measures,
            "sampling_hz": {"none": meter.name},
        },
        "idle": {"none": "no power was measured"},
        "temperature": temperatures(thermometer, [p.temperature for p in passes], workload.target),
        "passes": [asdict(p) for p in passes],
        "power": {"none": meter.name},
    }
    if kind in (InstrumentName.pmbus, InstrumentName.hwmon):
        _add_power(document, meter)
    written(document, json_file)
    if kind is InstrumentName.csv:
        if log is None:
            OUT.print(f"Copy the meter's log and run: rowvit power-log {json_file} LOG", highlight=False)
            return
        _join(document, log, 60.0)
        written(document, json_file)
    if str(json_file) != "-":
        _print_power(document)


@app.command("power-log")
@sentences
def power_log(
    result_file: Annotated[Path, typer.Argument(metavar="RESULT", help="Of rowvit power --instrument csv.")],
    log: Annotated[Path, typer.Argument(help="The meter's log (CSV with a header).")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here, not over RESULT.")
    ] = None,
    search: Annotated[
        float, typer.Option(min=0, help="Seconds that the meter's clock may differ from the board's.")
    ] = 60.0,
) -> None:
    """Join the log of an external meter to the passes of rowvit power --instrument csv.

    The log needs columns time (seconds or dates), and power, or voltage and current. It is shifted to where
    the power rises and falls with the passes, and refused where it does not.
    """
    from rowvit.measure import result
    from rowvit.measure.meter import EXTERNAL

    document = result.read(result_file)
    if document["kind"] != "power" or not document["instrument"]["name"].startswith(EXTERNAL):
        raise RowvitError(
            f"{result_file} was not recorded for an external meter; give a result of"
            " rowvit power --instrument csv"
        )
    _join(document, log, search)
    written(document, output or result_file)
    _print_power(document)


def _default_instrument(board: str, target: TargetName) -> InstrumentName:
    from rowvit.measure.sensors import known

    if target is not TargetName.board:
        return InstrumentName.none
    row = known(board)
    if row is None or row.power.instrument == "csv":
        return InstrumentName.pmbus  # which refuses, and says what to do
    return InstrumentName(row.power.instrument)


def _instrument(
    kind: InstrumentName, board: str, rails: list[str], measures: str | None, interval: float
) -> Instrument:
    from rowvit.measure import sensors
    from rowvit.measure.meter import EXTERNAL

    if kind is InstrumentName.pmbus:
        return sensors.pmbus(board, rails, interval=interval)
    if kind is InstrumentName.hwmon:
        return sensors.hwmon(board, rails, interval=interval)
    if rails:
        raise RowvitError(f"--instrument {kind.value} has no rails; leave --rail out")
    if kind is InstrumentName.none:
        return sensors.Instrument("none: images and seconds are counted, power is not measured", "nothing")
    row = sensors.known(board)
    where = measures or (row.power.measures if row and row.power.instrument == "csv" else "")
    if not where:
        raise RowvitError("say where the meter is connected, as in --measures '12 V supply of the board'")
    return sensors.Instrument(f"{EXTERNAL}; its log is not joined yet (rowvit power-log)", where)


def _add_power(document: dict[str, Any], instrument: Instrument) -> None:
    """Complete a result with the figures that the instrument's samples give."""
    from rowvit.measure import power as protocol

    passes = [protocol.Pass(**record) for record in document["passes"]]
    samples = instrument.samples(passes)
    found = protocol.figures(passes, samples)
    document["instrument"] |= {"name": instrument.name, "sampling_hz": 1 / samples.interval}
    document["idle"] = {
        "watts": found["idle_watts"]["value"],
        "state": "overlay and network loaded, core not started",
    }
    document["power"] = found


def _join(document: dict[str, Any], log: Path, search: float) -> None:
    from rowvit.measure.meter import MeterLog

    meter = MeterLog(
        log,
        document["instrument"]["measures"],
        document["protocol"]["wall_minus_monotonic_s"],
        search,
    )
    _add_power(document, meter)
    document["power"]["log"] = {"file": log.name, "sha256": meter.sha256, "shift_s": meter.shift}


def _print_power(document: dict[str, Any]) -> None:
    from rowvit.measure.power import FIGURES

    OUT.print(
        f"{document['model']['name']} on {document['target']}: {document['evidence']}",
        soft_wrap=True,
        highlight=False,
    )
    busy = [p for p in document["passes"] if p["kind"] == "busy"]
    images = sum(p["images"] for p in busy)
    found = document["power"]
    if "none" in found:
        rate = images / sum(p["end"] - p["begin"] for p in busy)
        OUT.print(f"{len(busy)} busy passes: {images} images, {rate:.2f} images/s", highlight=False)
        OUT.print(f"instrument: {found['none']}", highlight=False, soft_wrap=True)
        return
    instrument = document["instrument"]
    table = Table("", "mean", f"± ({found['confidence']:.0%})", "standard error", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for key, (name, unit, scale) in FIGURES.items():
        one = found[key]
        value, half, error = (one[k] * scale for k in ("value", "uncertainty", "standard_error"))
        # two digits of the uncertainty, and the others as far
        digits = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 3
        table.add_row(name, *(f"{number:.{digits}f} {unit}" for number in (value, half, error)))
    OUT.print(table, highlight=False)
    OUT.print(
        f"{len(busy)} pairs of passes; {instrument['name']} ({instrument['measures']}),"
        f" {instrument['sampling_hz']:.3g} samples a second, steps of {found['step_watts']:.2g} W",
        soft_wrap=True,
        highlight=False,
    )
    if not found["significant"]:
        OUT.print(
            "The difference between busy and idle is within its uncertainty: take longer or more passes"
            " (--seconds, --pairs)",
            soft_wrap=True,
            highlight=False,
        )
