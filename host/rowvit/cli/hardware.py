# SPDX-License-Identifier: Apache-2.0
"""Commands on configurations and overlays: ``rowvit config`` and ``rowvit overlays``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rowvit.cli.common import ERR, OUT, config_app, overlays_app, sentences
from rowvit.errors import RowvitError
from rowvit.hardware import config as configs


@config_app.command("list")
@sentences
def config_list() -> None:
    """List the configurations that come with rowvit."""
    table = Table(
        "name", "board", "rows x groups x lanes", "MAC per cycle", "MHz", "hash", box=None, pad_edge=False
    )
    for name in configs.names():
        c = configs.load(name)
        table.add_row(
            name,
            c.board,
            f"{c.rows} x {c.groups} x {c.lanes}",
            str(c.macs_per_cycle),
            f"{c.clock_mhz:g}",
            f"{c.hash:08X}",
        )
    OUT.print(table, highlight=False)


@config_app.command("show")
@sentences
def config_show(
    name: Annotated[str, typer.Argument(help="A configuration's name or .toml file.")],
) -> None:
    """Show one configuration: its fields, and the memories that they make."""
    c = configs.load(name)
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in {"board": c.board, "clock_mhz": f"{c.clock_mhz:g}", **c.structure()}.items():
        table.add_row(key, str(value))
    table.add_row("MAC per cycle", str(c.macs_per_cycle))
    table.add_row("weight memory", f"{c.groups * c.weight_depth * c.lanes / 1024:g} KB")
    table.add_row("token memory", f"{c.rows * c.token_depth * 8 / 1024:g} KB")
    table.add_row("residual memory", f"{c.rows * c.groups * c.residual_depth * 2 / 1024:g} KB")
    table.add_row("hash", f"{c.hash:08X}")
    OUT.print(table, highlight=False)


ManifestOption = Annotated[
    Path | None, typer.Option("--manifest", help="Another list of prebuilt overlays than rowvit's (.toml).")
]


@overlays_app.command("list")
@sentences
def overlays_list(manifest: ManifestOption = None) -> None:
    """List the prebuilt overlays."""
    from rowvit.overlay import prebuilt

    entries = prebuilt.manifest(manifest or prebuilt.MANIFEST)
    if not entries:
        OUT.print(
            "There are no prebuilt overlays yet. Build one with Vivado: make bitstream BOARD=Pynq-Z2",
            soft_wrap=True,
            highlight=False,
        )
        return
    table = Table("name", "board", "configuration", "MB", box=None, pad_edge=False)
    for entry in entries:
        size = sum(file.bytes for file in entry.files)
        table.add_row(entry.name, entry.board, entry.configuration, f"{size / 1e6:.1f}")
    OUT.print(table, highlight=False)


@overlays_app.command("fetch")
@sentences
def overlays_fetch(
    name: Annotated[str, typer.Argument(help="A name of rowvit overlays list.")],
    to: Annotated[Path, typer.Option("--to", help="Directory that takes .bit, .hwh and .json.")] = Path(),
    seconds: Annotated[float, typer.Option(help="Give up after so many seconds.")] = 300,
    manifest: ManifestOption = None,
) -> None:
    """Download a prebuilt overlay, and see that it is what it should be."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from rowvit.overlay import prebuilt

    entries = {entry.name: entry for entry in prebuilt.manifest(manifest or prebuilt.MANIFEST)}
    if name not in entries:
        known = f"take one of {', '.join(entries)}" if entries else "there are none yet: make bitstream"
        raise RowvitError(f"no prebuilt overlay '{name}'; {known}")
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=ERR) as progress:
        tasks = {f.name: progress.add_task(f.name, total=f.bytes) for f in entries[name].files}
        prebuilt.fetch(
            entries[name], to, seconds, lambda file, done, _: progress.update(tasks[file], completed=done)
        )
    OUT.print(f"{to / name}.bit, .hwh and .json: as in the manifest", soft_wrap=True, highlight=False)


@overlays_app.command("verify")
@sentences
def overlays_verify(
    path: Annotated[Path, typer.Argument(help="A .bit, .hwh or .json, or a directory of overlays.")],
) -> None:
    """See that overlays are whole and of a configuration that this version knows.

    rowvit verify-overlay looks into .bit and .hwh themselves.
    """
    from rowvit.overlay import provenance

    for made in provenance.verify(path):
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_row("whole", ", ".join(made.files))
        table.add_row(
            "configuration", f"{made.configuration}, hash {made.config_hash}, {made.frontend} front end"
        )
        table.add_row("board", f"{made.board}, {made.part}")
        source = made.revision or "unknown"
        table.add_row("built", f"{made.date}, {made.tool}, {made.strategy}")
        table.add_row("commit", f"{source}, with changes" if made.dirty else source)
        table.add_row("clock", f"{made.actual_clock_mhz:g} MHz")
        table.add_row("slack", f"setup {made.setup_slack_ns:g} ns, hold {made.hold_slack_ns:g} ns")
        OUT.print(table, highlight=False)
