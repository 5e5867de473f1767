# SPDX-License-Identifier: Apache-2.0
"""``rowvit bench`` and ``baseline``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from rowvit.cli.common import (
    DEFAULT_CONFIG,
    ERR,
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
    LatencyOption,
    MemoryOption,
    RateOption,
    SubsetOption,
    TargetOption,
    prepare,
    progress_bar,
    temperature,
    temperatures,
    written,
)


@app.command()
@sentences
def bench(
    model: ModelArgument,
    images: ImagesArgument = None,
    target: TargetOption = TargetName.sim,
    config: ConfigOption = DEFAULT_CONFIG,
    count: CountOption = 0,
    batch: BatchOption = 8,
    warm_up: Annotated[
        int, typer.Option("--warm-up", min=0, help="Images before each measurement, not counted.")
    ] = 1,
    baseline: Annotated[
        str,
        typer.Option(
            help="Also time the float network on this CPU, in the same run: torch, ort (onnxruntime),"
            " numpy, or a file of rowvit baseline; several with commas."
        ),
    ] = "",
    baseline_seconds: Annotated[
        float, typer.Option(min=0, help="Seconds of every way of running it: runtime, threads, batch.")
    ] = 3.0,
    json_file: JsonOption = None,
    data: DataOption = None,
    subset: SubsetOption = None,
    bitstream: BitstreamOption = None,
    memory: MemoryOption = MemoryName.ddr,
    latency: LatencyOption = 40,
    rate: RateOption = 85,
) -> None:
    """Measure latency and throughput, and where the time goes.

    Latency is that of one image after the other; throughput that of batches, of which one computes while
    the next is made ready. On sim both are simulated cycles x clock; nothing is measured.

    Examples
    --------
      rowvit bench sign-digits --target sim --baseline torch,ort --json sim.json

      rowvit bench deit-tiny.rvp photos/ --target board --images 1000 --warm-up 20 --json board.json
    """
    from rowvit.measure import baseline as cpu
    from rowvit.measure import throughput

    writable(json_file)
    runtimes = [name for name in baseline.split(",") if name]
    workload = prepare(model, images, target, config, count, data, subset, bitstream, (memory, latency, rate))
    ways = cpu.ways(workload.model.meta, runtimes, sorted({1, batch}))  # what is missing, before the work
    total, thermometer, degrees = len(workload.pixels), temperature(workload.target), []
    with (
        progress_bar(f"{total} images, alone and in batches", 2 * total) as progress,
        workload.open() as opened,
    ):
        document = workload.describe("throughput", opened)
        degrees += [thermometer[1]()] if thermometer else []
        figures = throughput.measure(
            opened, workload.target, workload.pixels, batch, warm_up, document["clock"]["mhz"], progress
        )
        degrees += [thermometer[1]()] if thermometer else []
    figures["baseline"] = {"none": "not asked for (--baseline)"}
    if ways:
        figures["baseline"] = []
        with progress_bar("the float network on this CPU", len(ways)) as progress:
            for speed in cpu.measure(ways, baseline_seconds):
                figures["baseline"].append(speed.record())
                progress(len(figures["baseline"]))
    if "memory" in workload.options:
        figures["memory"] = str(workload.options["memory"])
    document |= {
        "protocol": {
            "warm_up": f"{warm_up} image{'s' * (warm_up != 1)} before latency, and before throughput",
            "repetitions": total,
            "batch": batch,
        },
        "instrument": {
            "name": "cycle counter of the core" if workload.target == "sim" else "the host's monotonic clock",
            "measures": figures["basis"],
            "sampling_hz": {"none": "every image is timed"},
        },
        "idle": {"none": "no power is measured"},
        "temperature": temperatures(thermometer, degrees, workload.target),
        "throughput": figures,
    }
    if str(json_file) != "-":
        _print_throughput(document)
    written(document, json_file)


def _print_throughput(document: dict[str, Any]) -> None:
    figures = document["throughput"]
    config, clock = document["config"], document["clock"]
    OUT.print(
        f"{document['model']['name']} on {document['target']}, '{config['name']}' at {clock['mhz']:g} MHz:"
        f" {document['evidence']}" + (f"; {figures['memory']}" if "memory" in figures else ""),
        soft_wrap=True,
        highlight=False,
    )
    latency, gops = figures["latency_ms"], figures["gops"]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row(
        "latency",
        f"median {latency['median']:.3f} ms (min {latency['min']:.3f}, p90 {latency['p90']:.3f},"
        f" p99 {latency['p99']:.3f})",
    )
    table.add_row("", f"of {len(latency['values'])} images, one after the other")
    pipelined = figures["pipelined"]
    table.add_row(
        "throughput",
        f"{figures['images_per_second']:.1f} images/s ({pipelined['ms_per_image']:.3f} ms per image, in"
        f" batches of {pipelined['batch']})",
    )
    table.add_row(
        "effective GOPS",
        f"{gops['dense_equivalent']:.1f} dense-equivalent, {gops['executed']:.1f} executed"
        + (f", of {gops['peak']:.1f} at the peak" if "peak" in gops else ""),
    )
    OUT.print(table, highlight=False)
    if figures["phases"]["latency"]:
        table = Table(
            "ms per image", "one by one", f"batches of {pipelined['batch']}", "by", box=None, pad_edge=False
        )
        together = {phase["name"]: phase["ms"] for phase in figures["phases"]["pipelined"]}
        for phase in figures["phases"]["latency"]:
            other = together.get(phase["name"])
            table.add_row(
                phase["name"],
                f"{phase['ms']:.3f}",
                "" if other is None else f"{other:.3f}",
                "host's clock" if phase["clock"] == "host" else phase["clock"],
            )
        OUT.print()
        OUT.print(table, highlight=False)
    if isinstance(figures["layers"], list):
        table = Table("layer", "cycles", "array busy", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for layer in figures["layers"]:
            table.add_row(layer["name"], f"{layer['cycles']:,.0f}", f"{layer['busy']:.1%}")
        OUT.print()
        OUT.print(table, highlight=False)
    if isinstance(figures["baseline"], list):
        host = document["host"]
        OUT.print(
            f"\nThe float network on {host['cpu']} ({host['processors']} processors, load {host['load']:.1f}"
            " before the start), wall time:",
            soft_wrap=True,
            highlight=False,
        )
        table = Table(
            "runtime", "threads", "batch", "images/s", "at best", "ms per call", box=None, pad_edge=False
        )
        for column in table.columns[1:]:
            column.justify = "right"
        for speed in figures["baseline"]:
            table.add_row(
                f"{speed['runtime']} {speed['version']}",
                str(speed["threads"]),
                str(speed["batch"]),
                f"{speed['images_per_second']:.1f}",
                f"{speed['batch'] / speed['fastest_s']:.1f}",
                f"{speed['median_s'] * 1e3:.2f}",
            )
        OUT.print(table, highlight=False)


@app.command()
@sentences
def baseline(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write (.onnx).")],
    batch: Annotated[int, typer.Option(min=1, help="Images per call.")] = 1,
) -> None:
    """Write the float network of a model's architecture as ONNX, for rowvit bench --baseline FILE.

    For boards on which onnxruntime runs, but PyTorch does not. The weights are random, since speed does not
    depend on them.
    """
    from rowvit.measure.baseline import save
    from rowvit.targets.target import read_model

    writable(output)
    with ERR.status("writing the float network"):
        save(read_model(model).meta, output, batch)
    OUT.print(f"{output}: float network for {batch} images a call", highlight=False, soft_wrap=True)
