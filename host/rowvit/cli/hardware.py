# SPDX-License-Identifier: Apache-2.0
"""Commands on configurations and overlays: ``rowvit config`` and ``rowvit overlays``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rowvit.cli.common import ERR, OUT, config_app, overlays_app, print_rows, say, sentences
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
    """Show one configuration: its fields, and the sizes of its memories."""
    c = configs.load(name)
    print_rows(
        {
            "board": c.board,
            "clock_mhz": f"{c.clock_mhz:g}",
            **{key: str(value) for key, value in c.structure().items()},
            "MAC per cycle": str(c.macs_per_cycle),
            "weight memory": f"{c.groups * c.weight_depth * c.lanes / 1024:g} KB",
            "token memory": f"{c.rows * c.token_depth * 8 / 1024:g} KB",
            "residual memory": f"{c.rows * c.groups * c.residual_depth * 2 / 1024:g} KB",
            "hash": f"{c.hash:08X}",
        }
    )


ManifestOption = Annotated[
    Path | None,
    typer.Option("--manifest", help="A list of prebuilt overlays (.toml) to use instead of rowvit's."),
]


@overlays_app.command("list")
@sentences
def overlays_list(manifest: ManifestOption = None) -> None:
    """List the prebuilt overlays."""
    from rowvit.overlay import prebuilt

    entries = prebuilt.manifest(manifest or prebuilt.MANIFEST)
    if not entries:
        say("There are no prebuilt overlays yet. Build one with Vivado: make bitstream BOARD=Pynq-Z2")
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
    to: Annotated[Path, typer.Option("--to", help="Directory to write .bit, .hwh and .json to.")] = Path(),
    seconds: Annotated[float, typer.Option(help="Give up after this many seconds.")] = 300,
    manifest: ManifestOption = None,
) -> None:
    """Download a prebuilt overlay, and check it against the manifest."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from rowvit.overlay import prebuilt

    entries = {entry.name: entry for entry in prebuilt.manifest(manifest or prebuilt.MANIFEST)}
    if name not in entries:
        known = f"use one of {', '.join(entries)}" if entries else "there are none yet: make bitstream"
        raise RowvitError(f"no prebuilt overlay '{name}'", known)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=ERR) as progress:
        tasks = {f.name: progress.add_task(f.name, total=f.bytes) for f in entries[name].files}
        prebuilt.fetch(
            entries[name], to, seconds, lambda file, done, _: progress.update(tasks[file], completed=done)
        )
    say(f"{to / name}.bit, .hwh and .json: as in the manifest")


@overlays_app.command("verify")
@sentences
def overlays_verify(
    path: Annotated[Path, typer.Argument(help="A .bit, .hwh or .json, or a directory of overlays.")],
) -> None:
    """Check that overlays are complete and of a configuration that this version knows.

    rowvit verify-overlay checks the contents of .bit and .hwh.
    """
    from rowvit.overlay import provenance

    for made in provenance.verify(path):
        source = made.revision or "unknown"
        print_rows(
            {
                "complete": ", ".join(made.files),
                "configuration": f"{made.configuration}, hash {made.config_hash}, {made.frontend} front end",
                "board": f"{made.board}, {made.part}",
                "built": f"{made.date}, {made.tool}, {made.strategy}",
                "commit": f"{source}, with changes" if made.dirty else source,
                "clock": f"{made.actual_clock_mhz:g} MHz",
                "slack": f"setup {made.setup_slack_ns:g} ns, hold {made.hold_slack_ns:g} ns",
            }
        )
