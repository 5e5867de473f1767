# SPDX-License-Identifier: Apache-2.0
"""The simulated accelerator compared with this machine's CPU, dense and pruned, in one run.

    make bench
    python benchmarks/compare.py --config pynq-z2 --json build/bench.json

The accelerator's figures are simulated cycles at the core's clock, exact and repeatable. The CPU's are wall
time of the float network of the same architecture, pruned in the same way, in PyTorch and onnxruntime; they
depend on the machine that ran them, and on how busy it was.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from cycles import Cycles, network
from cycles import measure as simulate
from record import Record, record
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from rowvit.measure.result import host, revision, versions
from rowvit.measure.speed import baseline
from rowvit.sim.device import MemoryModel

OUT = Console()
NETWORKS = ["deit-tiny dense", "deit-tiny"]


def main(
    networks: Annotated[list[str] | None, typer.Argument(help="Names; quote 'deit-tiny dense'.")] = None,
    config: Annotated[str, typer.Option(help="Hardware configuration.")] = "pynq-z2",
    batches: Annotated[str, typer.Option(help="Images per call on the CPU.")] = "1,16",
    seconds: Annotated[float, typer.Option(help="For each way of running on the CPU.")] = 3.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures.")] = None,
    keep: Record = False,
) -> None:
    """Print cycles and utilisation of the accelerator, and the throughput of this machine's CPU."""
    memory = MemoryModel()
    simulated: list[Cycles] = []
    speeds: list[tuple[str, baseline.Speed]] = []
    machine = host()
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("")
        for name in networks or NETWORKS:
            progress.update(task, description=f"{name}: simulating")
            simulated.append(simulate(name, config, memory))
            progress.update(task, description=f"{name}: this machine's CPU")
            sizes = [int(size) for size in batches.split(",")]
            ways = baseline.ways(network(name).meta, batches=sizes)
            speeds += [(name, speed) for speed in baseline.measure(ways, seconds)]
    _print_simulated(simulated, config)
    disturbed = _print_cpu(speeds, machine)
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(_record(simulated, speeds, machine, config), indent=1) + "\n")
        OUT.print(f"\n{json_file} holds all figures", highlight=False)
    if keep and disturbed:
        raise SystemExit("nothing is recorded: other programs may have taken this CPU's time")
    if keep:
        ways: dict[str, dict[str, float]] = {}
        for name, speed in speeds:
            way = f"{speed.runtime}, threads {speed.threads}, batch {speed.batch}"
            ways.setdefault(way, {})[name] = speed.images_per_second
        for way, figures in ways.items():
            record("compare", way, figures, "torch", "onnxruntime")


def _print_simulated(simulated: list[Cycles], config: str) -> None:
    first = simulated[0]
    table = Table("network", box=None, pad_edge=False)
    for title in ("cycles", "array busy", "useful MACs", "MACs", "images/s"):
        table.add_column(title, justify="right")
    for c in simulated:
        table.add_row(
            c.network,
            f"{c.cycles:,.0f}",
            f"{c.busy:.1%}",
            f"{c.useful:.1%}",
            f"{c.macs / 1e6:.0f} M of {c.macs_dense / 1e6:.0f} M",
            f"{c.images_per_second:.1f}",
        )
    OUT.print(
        f"Accelerator '{config}', int8, batch 1: simulated cycles x {first.clock_mhz:g} MHz; {first.memory}",
        soft_wrap=True,
        highlight=False,
    )
    OUT.print(table, highlight=False)


def _print_cpu(speeds: list[tuple[str, baseline.Speed]], machine: dict[str, Any]) -> bool:
    """A row per way of running, a column per network; whether one was disturbed."""
    names = list(dict.fromkeys(name for name, _ in speeds))
    table = Table("runtime", "threads", "batch", box=None, pad_edge=False)
    for name in names:
        table.add_column(f"{name}, images/s", justify="right")
    rows: dict[tuple, dict[str, baseline.Speed]] = {}
    for name, speed in speeds:
        rows.setdefault((speed.runtime, speed.version, speed.threads, speed.batch), {})[name] = speed
    marks = {}
    for name in names:
        own = [speed for other, speed in speeds if other == name]
        found = baseline.disturbances([speed.record() for speed in own], machine)
        marks |= {id(speed): mark for speed, mark in zip(own, found, strict=True)}
    for (runtime, version, threads, batch), ways in rows.items():
        cells = [
            f"{way.images_per_second:.1f} ({batch / way.fastest_s:.1f}){'*' * bool(marks[id(way)])}"
            for way in (ways[name] for name in names)
        ]
        table.add_row(f"{runtime} {version}", str(threads), str(batch), *cells)
    OUT.print(
        f"\nThis machine's CPU ({machine['cpu']}, {machine['processors']} processors), float32: wall time,"
        f" median call (fastest call); load {machine['load']:.1f} before the start",
        soft_wrap=True,
        highlight=False,
    )
    OUT.print(table, highlight=False)
    for reason in dict.fromkeys(filter(None, marks.values())):
        OUT.print(
            f"* other programs may have taken this CPU's time: {reason}", soft_wrap=True, highlight=False
        )
    return any(marks.values())


def _record(
    simulated: list[Cycles], speeds: list[tuple[str, baseline.Speed]], machine: dict[str, Any], config: str
) -> dict[str, Any]:
    return {
        "rowvit": revision(),
        "config": config,
        "machine": machine,
        "simulated": [{**asdict(c), "images_per_second": c.images_per_second} for c in simulated],
        "cpu": [{"network": name, **speed.record()} for name, speed in speeds],
        "versions": versions(),
    }


if __name__ == "__main__":
    typer.run(main)
