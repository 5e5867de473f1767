# SPDX-License-Identifier: Apache-2.0
"""Boards and what runs on them: verify-overlay, diagnose, ``rowvit config`` and ``rowvit overlays``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer import Argument, Option

from rowvit.cli import options as opt
from rowvit.cli.common import ERR, OUT, Group, app, command, print_rows, say, status
from rowvit.errors import RowvitError
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import bitstream_here

if TYPE_CHECKING:
    from rowvit.overlay.verify import Check

config_app = typer.Typer(
    no_args_is_help=True, cls=Group, help="Hardware configurations: what an accelerator is built from."
)
app.add_typer(config_app, name="config")
overlays_app = typer.Typer(
    no_args_is_help=True, cls=Group, help="Overlays for boards: prebuilt ones, and your own builds."
)
app.add_typer(overlays_app, name="overlays")
_MARKS = {True: Text("ok", "green"), False: Text("failed", "red"), None: Text("?", "yellow")}


@command("verify-overlay")
def verify_overlay(
    bitstream: Annotated[
        Path,
        Argument(
            metavar="FILE", help="The .bit; its .hwh must be next to it, and its .json is checked, too."
        ),
    ],
) -> None:
    """Check a bitstream by its files, without a board: one build, configuration, DMA, ports, clock.

    Example
    -------
      rowvit verify-overlay rowvit-pynq-z2.bit
    """
    from rowvit.overlay.verify import verify

    checks = verify(bitstream)
    for check in checks:
        _print_check(check)
    _advise(checks)


@command()
def diagnose(
    *,
    target: opt.TargetOption,
    config: opt.ConfigOption = opt.DEFAULT_CONFIG,
    bitstream: opt.BitstreamOption = None,
    json_file: Annotated[
        Path | None,
        Option(
            "--json",
            metavar="FILE",
            help="Also write a report, to send along with a question; - for standard output.",
        ),
    ] = None,
) -> None:
    """Check the board step by step, from its files to a network with known logits.

    It stops at the first step that fails, and says below the table what to do. The report is written after
    every step, so that there is one even if the board freezes.

    Examples
    --------
      rowvit diagnose --target sim --json my-board.json

      rowvit diagnose --target board --bitstream rowvit-pynq-z2.bit
    """
    from rowvit.measure.report import diagnosis
    from rowvit.targets.diagnose import diagnose as walk

    if target is opt.TargetName.golden:
        raise RowvitError("golden has nothing to diagnose", "use --target board or sim")
    configuration = configs.load(config)
    if bitstream is None and target is opt.TargetName.board:
        bitstream = bitstream_here(configuration)
    output = str(json_file) == "-"
    file = None if output else json_file
    document = diagnosis.describe(target.value, configuration, bitstream) if json_file else {}
    checks: list[Check] = []
    with status("looking for the device") as spinner:
        for check in walk(target.value, configuration, bitstream):
            spinner.stop()  # it would occupy standard output, too
            checks.append(check)
            if not output:
                _print_check(check)
            if file:
                diagnosis.write(file, document, checks, finished=False)
            spinner.update(f"after {check.name}")
            spinner.start()
    if file:
        diagnosis.write(file, document, checks)
        say(f"{file}: the report", ERR)
    elif output:
        typer.echo(diagnosis.text(document, checks), nl=False)
    _advise(checks, ERR if output else OUT)


def _print_check(check: Check) -> None:
    """One line of what was found."""
    line = Table(box=None, pad_edge=False, show_header=False)
    for width in (6, 12, None):
        line.add_column(width=width)
    line.add_row(_MARKS[check.ok], check.name, check.text)
    OUT.print(line)


def _advise(checks: list[Check], console: Console = OUT) -> None:
    """Say what to do about checks that failed; exit 1 if any did."""
    failed = [check for check in checks if check.ok is False]
    for check in failed:
        if check.advice:
            say(f"\n{check.name}: {check.advice}", console)
    if failed:
        raise typer.Exit(1)


@command("list", config_app)
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
    OUT.print(table)


@command("show", config_app)
def config_show(
    name: Annotated[str, Argument(metavar="NAME|FILE", help="A configuration's name or .toml file.")],
) -> None:
    """Show one configuration: its fields, and the sizes of its memories.

    Example
    -------
      rowvit config show zcu104
    """
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
    Option(
        "--manifest",
        metavar="FILE",
        help="A list of prebuilt overlays (.toml) to use instead of rowvit's.",
    ),
]


@command("list", overlays_app)
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
    OUT.print(table)


@command("fetch", overlays_app)
def overlays_fetch(
    name: Annotated[str, Argument(metavar="NAME", help="A name of rowvit overlays list.")],
    to: Annotated[
        Path, Option("--to", metavar="FOLDER", help="Where to write .bit, .hwh and .json.")
    ] = Path(),
    seconds: Annotated[float, Option(metavar="SECONDS", help="Time after which to give up.")] = 300,
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


@command("verify", overlays_app)
def overlays_verify(
    path: Annotated[Path, Argument(metavar="PATH", help="A .bit, .hwh or .json, or a folder of overlays.")],
) -> None:
    """Check that overlays are complete and of a configuration that this version knows.

    rowvit verify-overlay checks the contents of .bit and .hwh.
    """
    from rowvit.formats import provenance

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
