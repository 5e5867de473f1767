# SPDX-License-Identifier: Apache-2.0
"""What the commands share: the applications they hang on, options, consoles, errors as sentences."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from rowvit.errors import RowvitError
from rowvit.hardware.block_design import default_configuration

if TYPE_CHECKING:
    from rowvit.overlay.verify import Check

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""Vision transformers on the rowvit accelerator.

Try: rowvit run sign-digits --target sim --check""",
)
config_app = typer.Typer(
    no_args_is_help=True, help="Hardware configurations: what an accelerator is built from."
)
app.add_typer(config_app, name="config")
overlays_app = typer.Typer(no_args_is_help=True, help="Overlays for boards: prebuilt ones, and built ones.")
app.add_typer(overlays_app, name="overlays")
OUT = Console()
ERR = Console(stderr=True)
LOG = logging.getLogger("rowvit")
#: what commands for float networks import, and the extra "model" installs
MODEL_PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "safetensors")


class TargetName(str, Enum):
    """Where a network runs."""

    golden = "golden"
    sim = "sim"
    board = "board"


class MemoryName(str, Enum):
    """How the simulated memory behaves."""

    ddr = "ddr"
    ideal = "ideal"


class FrontendName(str, Enum):
    """Who makes patches of images."""

    host = "host"
    hls = "hls"


def sentences(command: Callable) -> Callable:
    """What the user can put right becomes one sentence and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        if not LOG.handlers:
            LOG.addHandler(RichHandler(console=ERR, show_time=False, show_level=False, show_path=False))
            LOG.setLevel(logging.INFO)
        try:
            return command(*args, **kwargs)
        except ModuleNotFoundError as error:
            package = str(error.name).split(".")[0]
            if package not in MODEL_PACKAGES:
                raise
            _refuse(f"this needs the package {package}; install it with: pip install 'rowvit[model]'", error)
        except RowvitError as error:
            _refuse(str(error), error)

    return wrapped


def _refuse(sentence: str, error: Exception) -> NoReturn:
    ERR.print(f"rowvit: {sentence}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2) from error


ModelArgument = Annotated[
    str,
    typer.Argument(
        help="A model package or compiled program (.safetensors), or sign-digits, which comes along."
    ),
]
DEFAULT_CONFIG = default_configuration()
ConfigOption = Annotated[
    str,
    typer.Option(
        "--config", "-c", help="Hardware configuration: a name (rowvit config list) or a .toml file."
    ),
]


def writable(path: Path | None) -> None:
    """`RowvitError` for a path that nothing can be written to: before the work, not after it."""
    if path is None or str(path) == "-":
        return
    if path.is_dir():
        raise RowvitError(f"{path}: cannot be written (it is a directory)")
    if not path.absolute().parent.is_dir():
        raise RowvitError(f"{path}: cannot be written (there is no directory {path.parent})")


def write(path: Path, text: str) -> None:
    """Write a text file; `RowvitError` if that fails."""
    try:
        path.write_text(text)
    except OSError as error:
        raise RowvitError(f"{path}: cannot be written ({error.strerror})") from error


_MARKS = {True: "[green]ok[/green]", False: "[red]failed[/red]", None: "[yellow]?[/yellow]"}


def print_check(check: Check) -> None:
    """One line of what was found."""
    line = Table(box=None, pad_edge=False, show_header=False)
    for width in (6, 12, None):
        line.add_column(width=width)
    line.add_row(_MARKS[check.ok], check.name, escape(check.text))
    OUT.print(line, highlight=False)


def print_advice(checks: list[Check]) -> bool:
    """What to do about checks that failed; whether none did."""
    failed = [check for check in checks if check.ok is False]
    for check in failed:
        if check.advice:
            OUT.print(f"\n{check.name}: {check.advice}", markup=False, highlight=False, soft_wrap=True)
    return not failed
