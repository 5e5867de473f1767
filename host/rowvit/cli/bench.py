# SPDX-License-Identifier: Apache-2.0
"""``rowvit bench`` and ``baseline``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rowvit.cli.common import (
    ERR,
    OUT,
    app,
    print_result,
    print_rows,
    progress_bar,
    right_aligned,
    say,
    sentences,
    writable,
)
from rowvit.cli.options import (
    DEFAULT_CONFIG,
    LATENCY,
    RATE,
    BatchOption,
    BitstreamOption,
    ConfigOption,
    CountOption,
    ImagesArgument,
    LatencyOption,
    MemoryName,
    MemoryOption,
    ModelArgument,
    RateOption,
    ResultOption,
    SetNameOption,
    SubsetOption,
    TargetName,
    TargetOption,
    target_options,
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
        float, typer.Option(min=0, help="Seconds for each combination of runtime, threads and batch.")
    ] = 3.0,
    json_file: ResultOption = None,
    data: SetNameOption = None,
    subset: SubsetOption = None,
    bitstream: BitstreamOption = None,
    memory: MemoryOption = MemoryName.ddr,
    latency: LatencyOption = LATENCY,
    rate: RateOption = RATE,
) -> None:
    """Measure latency and throughput, and where the time goes.

    Latency is that of one image after the other; throughput that of batches, where one computes while
    the next is being prepared. On sim both are simulated cycles x clock; nothing is measured.

    Examples
    --------
      rowvit bench sign-digits --target sim --baseline torch,ort --json sim.json

      rowvit bench deit-tiny.rvp photos/ --target board --images 1000 --warm-up 20 --json board.json
    """
    from rowvit.measure import baseline as cpu
    from rowvit.measure import throughput
    from rowvit.measure.workload import Workload

    writable(json_file)
    runtimes = [name for name in baseline.split(",") if name]
    options = target_options(target, bitstream, memory, latency, rate)
    workload = Workload.load(model, config, target.value, images or (), count, data, subset, **options)
    # what is missing, before the work
    ways = cpu.ways(workload.session.meta, runtimes, sorted({1, batch}))
    total = len(workload.images)
    with (
        progress_bar(f"{total} images, alone and in batches", 2 * total) as progress,
        workload.session,
    ):
        document = throughput.document(workload, batch, warm_up, progress)
    if ways:
        speeds: list[dict[str, Any]] = []
        with progress_bar("the float network on this CPU", len(ways)) as progress:
            for speed in cpu.measure(ways, baseline_seconds):
                speeds.append(speed.record())
                progress(len(speeds))
        document["throughput"]["baseline"] = speeds
    print_result(document, json_file, _print_throughput)


def _print_throughput(document: dict[str, Any]) -> None:
    figures = document["throughput"]
    config, clock = document["config"], document["clock"]
    say(
        f"{document['model']['name']} on {document['target']}, '{config['name']}' at {clock['mhz']:g} MHz:"
        f" {document['evidence']}" + (f"; {figures['memory']}" if "memory" in figures else "")
    )
    latency, gops, pipelined = figures["latency_ms"], figures["gops"], figures["pipelined"]
    print_rows(
        {
            "latency": f"median {latency['median']:.3f} ms (min {latency['min']:.3f},"
            f" p90 {latency['p90']:.3f}, p99 {latency['p99']:.3f})",
            "": f"of {len(latency['values'])} images, one after the other",
            "throughput": f"{figures['images_per_second']:.1f} images/s"
            f" ({pipelined['ms_per_image']:.3f} ms per image, in batches of {pipelined['batch']})",
            "effective GOPS": f"{gops['dense_equivalent']:.1f} dense-equivalent,"
            f" {gops['executed']:.1f} executed"
            + (f", of a peak of {gops['peak']:.1f}" if "peak" in gops else ""),
        }
    )
    if figures["phases"]["latency"]:
        table = right_aligned("ms per image", "one by one", f"batches of {pipelined['batch']}", left=1)
        table.add_column("by")
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
        table = right_aligned("layer", "cycles", "array busy")
        for layer in figures["layers"]:
            table.add_row(layer["name"], f"{layer['cycles']:,.0f}", f"{layer['busy']:.1%}")
        OUT.print()
        OUT.print(table, highlight=False)
    if isinstance(figures["baseline"], list):
        host = document["host"]
        say(
            f"\nThe float network on {host['cpu']} ({host['processors']} processors, load {host['load']:.1f}"
            " before the start), wall time:"
        )
        table = right_aligned("runtime", "threads", "batch", "images/s", "at best", "ms per call")
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

    For boards that run onnxruntime, but not PyTorch. The weights are random, since speed does not
    depend on them.
    """
    from rowvit.measure.baseline import save
    from rowvit.targets.target import read_model

    writable(output)
    with ERR.status("writing the float network"):
        save(read_model(model).meta, output, batch)
    say(f"{output}: float network for {batch} images per call")
