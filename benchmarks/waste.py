# SPDX-License-Identifier: Apache-2.0
"""Reads of memories that nobody uses, and bits of multipliers that change for nothing, as Markdown tables.

    python benchmarks/waste.py sign-digits deit-tiny --config pynq-z2

Counted in the simulated RTL, for one image.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from cycles import network
from energy import NETWORKS, one_image
from record import Record, record

import rowvit
from rowvit.cli.common import status
from rowvit.hardware.config import HardwareConfig, load
from rowvit.hardware.pipeline import NORM_ROWS
from rowvit.measure.speed.profile import watched
from rowvit.sim import verilate
from rowvit.targets.target import read_program

COUNTERS = Path(__file__).with_suffix(".sv")


def reads(config: HardwareConfig, counted: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Of each kind of memory: reads that are used, and all."""
    c, banks = counted, config.rows * config.groups
    normed = (c["norm_sums"] + c["norm_values"]) * config.groups * min(config.rows, NORM_ROWS)
    found = {
        "weight": (c["weight_reads"], c["weight_reads"] + c["weight_reads_at_writes"]),
        "token": (c["token_reads"], c["token_reads"]),
        "residual": (normed + c["residual_drained"], c["residual_reads"]),
        "parameters": (c["drained"] * config.groups, c["parameter_reads"]),
        "norm parameters": (c["norm_values"] * config.groups, c["norm_parameter_reads"]),
        "logits": (c["exponentials"] * banks, c["logit_reads"]),
        "scores": (c["scores"] + c["score_reads"], c["score_memory_reads"]),
        "selection table": (c["selected"] + c["gathers"] * config.rows, c["table_reads"]),
        "mask": (c["mask_reads"], c["mask_memory_reads"]),
    }
    return found | {"all": tuple(sum(column) for column in zip(*found.values(), strict=True))}


def main(
    networks: Annotated[list[str] | None, typer.Argument(help="Names; quote 'deit-tiny dense'.")] = None,
    config: Annotated[str, typer.Option(help="Hardware configuration.")] = "pynq-z2",
    keep: Record = False,
) -> None:
    """Print the tables."""
    hardware = load(config)
    with tempfile.TemporaryDirectory() as folder:
        both = Path(folder) / "counters.sv"
        both.write_text(f'`include "{verilate.ACTIVITY}"\n{COUNTERS.read_text()}')
        verilate.ACTIVITY = both
        for name in networks or NETWORKS:
            package = network(name)
            with (
                status(f"{name}: simulating an image"),
                rowvit.open("sim", config=hardware, activity=True) as sim,
            ):
                sim.load(read_program(package, hardware))
                watched(sim, one_image(name, package))
                counted = {key: int(values[-1]) for key, values in sim.device.activity().items()}
            print(f"{name} on {config}\n\n| memory | reads used | all reads | used |\n|---|---|---|---|")
            for memory, (used, all_) in reads(hardware, counted).items():
                share = 100 * used / max(all_, 1)
                print(f"| {memory} | {used:,} | {all_:,} | {share:.1f} % |")
                if keep:
                    record("waste", f"{config} {name}, {memory}", dict(used=used, all=all_, percent=share))
            print(
                "\n| registers of the multipliers | bits that change | while the lanes wait |\n|---|---|---|"
            )
            for kind in ("free", "gated"):
                toggles = dict(all=counted[f"{kind}_toggles"], waiting=counted[f"{kind}_toggles_waiting"])
                print(f"| {kind} | {toggles['all']:,} | {toggles['waiting']:,} |")
                if keep:
                    record("waste", f"{config} {name}, {kind} registers", toggles)
            print(flush=True)


if __name__ == "__main__":
    typer.run(main)
