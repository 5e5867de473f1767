# SPDX-License-Identifier: Apache-2.0
"""What the commands share: the applications they belong to, consoles, progress, errors as sentences."""

from __future__ import annotations

import errno
import io
import logging
import math
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from rowvit.errors import RowvitError, replacing
from rowvit.formats.bundled import bundled

if TYPE_CHECKING:
    from rich.status import Status
    from rich.table import Table

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
# Names of files, classes and networks are printed as they are: no markup, no :emoji:, no colours by pattern.
OUT = Console(markup=False, emoji=False, highlight=False)
ERR = Console(stderr=True, markup=False, emoji=False, highlight=False)
LOG = logging.getLogger("rowvit")
LINE_EVERY = 10.0  # seconds between two lines of progress
#: what commands for float networks import, and the extra "model" installs
MODEL_PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "safetensors")

P = ParamSpec("P")
R = TypeVar("R")


def _without_types(parameters: list[Any]) -> list[Any]:
    """Parameters of a help: a flag takes no value, and an argument's name says more than Python's type."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None
    return parameters


class Group(TyperGroup):
    """Commands behind a word."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class Command(TyperCommand):
    """What its user can fix becomes one sentence on standard error, and exit code 2."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        if not LOG.handlers:
            from rich.logging import RichHandler

            LOG.addHandler(RichHandler(console=ERR, show_time=False, show_level=False, show_path=False))
            LOG.setLevel(logging.INFO)
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be in any encoding
        # Pillow warns of what `rowvit.decoding` bounds
        warnings.filterwarnings("ignore", message=r"Image size \(\d+ pixels\) exceeds limit")
        try:
            self._finite(ctx)
            self._fits_target(ctx)
            self._can_write(ctx)
            with unwinding():
                return super().invoke(ctx)
        except ModuleNotFoundError as error:
            package = str(error.name).split(".")[0]
            if package not in MODEL_PACKAGES:
                raise
            sentence = f"this needs the package {package}; install it with: pip install 'rowvit[model]'"
            cause: Exception = error
        except RowvitError as error:
            sentence, cause = str(error), error
        except OSError as error:
            full = error.errno in _FULL
            if not full and error.filename is None:
                raise
            if full and _of_a_stream(error):
                what = "standard output cannot be written"
                with suppress(OSError):  # what it has not taken is not tried again at the end
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            elif full and error.errno != errno.EIO:
                what = f"{error.filename or _some_file()} cannot be written"
            else:
                what = f"{error.filename or 'a file'} cannot be read or written"
            sentence, cause = f"{what} ({error.strerror})", error
        except KeyboardInterrupt:
            # all that is left is to end, and a second Ctrl-C does that at once: no traceback of it
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise
        say(f"rowvit: {sentence}", ERR)
        raise typer.Exit(2) from cause

    def _finite(self, ctx: Any) -> None:
        """`RowvitError` for nan and inf, which are in no range and pass by every check of one."""
        for parameter in self.params:
            for value in _values(ctx, parameter):
                if isinstance(value, float) and not math.isfinite(value):
                    raise RowvitError(f"{parameter.opts[0]} is {value}", "use a finite number")

    def _fits_target(self, ctx: Any) -> None:
        """`RowvitError` for an option of another target, which its help begins with."""
        target = getattr(ctx.params.get("target"), "value", None)
        for parameter in self.params:
            if parameter.name == "target":  # which has a word on each
                continue
            scope = _SCOPE.match(getattr(parameter, "help", None) or "")
            source = ctx.get_parameter_source(parameter.name)
            if target and scope and source is not None and source.name == "COMMANDLINE":
                targets = scope[1].split(", ")
                if target not in targets:
                    raise RowvitError(
                        f"{parameter.opts[0]} is for {' and '.join(targets)}, not for --target {target}",
                        f"leave it out, or use --target {targets[0]}",
                    )

    def _can_write(self, ctx: Any) -> None:
        """`RowvitError`, before the work, for a file that cannot be written, is also read, or another's."""
        written: dict[str, Path] = {}
        read: dict[str, list[Path]] = {}
        for parameter in self.params:
            values = _values(ctx, parameter)
            paths = [Path(one) for one in values if isinstance(one, str | Path) and not isinstance(one, Enum)]
            if parameter.name not in _WRITTEN:
                read[parameter.name] = [bundled(path) or path for path in paths]
                continue
            for path in paths:
                if str(path) != "-":
                    written[parameter.opts[0]] = path
                elif "- for standard output" not in (getattr(parameter, "help", None) or ""):
                    raise RowvitError(f"{parameter.opts[0]}: this is no standard output", "name a file")
        writable(*written.values())
        for option, path in written.items():
            # what was taught may take what is added to it
            own = "source" if ctx.params.get("add") and option == "--output" else None
            unread(path, option, [file for name, files in read.items() if name != own for file in files])
            if any(_same(path, other) for name, other in written.items() if name != option):
                raise RowvitError(f"{path}: two options name it", "name two files")


#: parameters that name files to be written
_WRITTEN = ("output", "json_file", "plot", "trace", "trace_json")
#: what a stream or a disk says that takes no more; files that options name have a sentence of their own
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _some_file() -> str:
    """Which it probably is that the system does not name."""
    with suppress(OSError):  # there may be no folder
        return f"a file, perhaps one in {tempfile.gettempdir()},"
    return "a file"


def _of_a_stream(error: OSError) -> bool:
    """Whether it came while a line was printed: streams do not say which file they are."""
    names = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(name.endswith(("rich.console", "click.utils")) for name in names)


def _values(ctx: Any, parameter: Any) -> Sequence[Any]:
    """What was given for a parameter, one by one."""
    given = ctx.params.get(parameter.name)
    return given if isinstance(given, list | tuple) else [given]


def unread(path: Path, option: str, read: Iterable[Path]) -> None:
    """`RowvitError` if the file that ``option`` names is one of those that are read."""
    if any(os.path.isfile(other) and _same(path, other) for other in read):
        raise RowvitError(f"{path}: it is read as well", f"name another file with {option}")


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one is not there
        return os.path.realpath(one) == os.path.realpath(other)


def require_suffix(path: Path, suffix: str) -> None:
    """`RowvitError` for a file whose name would say that it is something else."""
    if path.suffix.lower() != suffix:
        raise RowvitError(f"{path}: what is written is {suffix}", f"name it {path.stem}{suffix}")


#: how the help of an option begins that not all targets have
_SCOPE = re.compile(r"((?:golden|sim|board)(?:, (?:golden|sim|board))*): ")


def command(
    name: str | None = None, group: typer.Typer = app, cls: type[Command] = Command
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register a command."""
    return group.command(name, cls=cls)


class Terminated(BaseException):
    """A signal came that ends a process: its number."""


_ENDINGS = (signal.SIGTERM, signal.SIGHUP)  # the second when the terminal goes, as with a connection by ssh


@contextmanager
def unwinding() -> Iterator[None]:
    """They end the process as Ctrl-C does, only that its status says which: DMA and files are let go."""

    def stop(number: int, frame: object) -> None:
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = [number for number in _ENDINGS if signal.getsignal(number) == signal.SIG_DFL]
    for number in own:
        signal.signal(number, stop)
    try:
        yield
    except Terminated as error:
        (number,) = error.args
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    finally:
        for number in own:
            signal.signal(number, signal.SIG_DFL)


def say(text: str, console: Console = OUT) -> None:
    """A line of plain text, not wrapped."""
    console.print(text, soft_wrap=True)


def status(text: str) -> Status:
    """A spinner on standard error, behind which ``text`` stands as it is."""
    return ERR.status(Text(text))


class Update(Protocol):
    """Sets what a progress bar shows."""

    def __call__(self, done: float, note: str = "", total: float | None = None) -> None: ...


@contextmanager
def progress_bar(what: str, total: float | None = None) -> Iterator[Update]:
    """A bar on standard error; if that is no terminal, a line at most every `LINE_EVERY` seconds.

    The line reads "refitting: 37 of 400, 12 s, about 2 min left", and ends with the note if there is one.

    Parameters
    ----------
    what : str
        Shown before the bar.
    total : float, optional
        What "done" reaches at the end; if it is left out, the first update says it, and shows the bar.
    """
    from rich import progress as bars

    columns = (
        *(bars.TextColumn("{task.description}", markup=False), bars.BarColumn(), bars.MofNCompleteColumn()),
        *(bars.TimeElapsedColumn(), bars.TimeRemainingColumn()),
        bars.TextColumn("{task.fields[note]}", markup=False),
    )
    period = 600.0  # seconds; updates that are minutes apart, too, say how long the rest takes
    with bars.Progress(
        *columns, console=ERR, transient=True, disable=not ERR.is_terminal, speed_estimate_period=period
    ) as progress:
        number = progress.add_task(what, total=total, visible=total is not None, note="")
        task = progress.tasks[number]
        shown = progress.get_time()

        def update(done: float, note: str = "", total: float | None = None) -> None:
            nonlocal shown
            progress.update(number, completed=done, note=note, total=total, visible=True)
            if progress.disable and not task.finished and progress.get_time() >= shown + LINE_EVERY:
                shown = progress.get_time()
                parts = [f"{what}: {int(done)} of {task.total:.0f}", _duration(task.elapsed or 0.0)]
                if task.time_remaining:
                    parts.append(f"about {_duration(task.time_remaining)} left")
                say(", ".join([*parts, note] if note else parts), ERR)

        yield update


def _duration(seconds: float) -> str:
    """In seconds, minutes or hours, whichever is read most easily."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def writable(*paths: Path | None) -> None:
    """`RowvitError` for a path that nothing can be written to: before the work, not after it."""
    for path in paths:
        if path is None or str(path) == "-":
            continue
        if path.is_dir():
            raise RowvitError(f"{path}: cannot be written (it is a directory)")
        if not path.absolute().parent.is_dir():
            raise RowvitError(f"{path}: cannot be written (there is no directory {path.parent})")
        if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise RowvitError(f"{path}: cannot be written (Permission denied)")


def write(path: Path, text: str) -> None:
    """Write a text file; `RowvitError` if that fails. Names of files in it may be in any encoding."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def wrote(path: Path, *command: object) -> None:
    """Say that a file is written, and which command comes next."""
    say(f"{path}: written" + (f"; next: {shlex.join(map(str, command))}" if command else ""))


def wrote_network(path: Path, act: str, data: str | Path = "PHOTOS") -> None:
    """Say that a float network with this activation is written, and which command comes next."""
    step, follower = ("quantise", "int8") if act == "relu" else ("relu", "relu")
    wrote(path, "rowvit", step, path, "--data", data, "-o", f"{follower}.safetensors")


def answered(files: Sequence[Path], refused: Mapping[int, RowvitError]) -> list[Path]:
    """The files that no one refused, after a word on each that was; the first refusal, where none is left."""
    found = [file for number, file in enumerate(files) if number not in refused]
    for why in refused.values():
        if not found:
            raise why
        say(f"skipped: {why}", ERR)
    return found


def right_aligned(*titles: str, left: int = 1) -> Table:
    """A table without lines; all columns but the first ``left`` are aligned to the right.

    What finds no room goes on in the next line, here and in `print_rows`.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for index, title in enumerate(titles):
        table.add_column(title, justify="left" if index < left else "right", overflow="fold")
    return table


def print_rows(rows: dict[str, str]) -> None:
    """Names, and what is to say of each."""
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for _ in range(2):
        table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(name, text)
    OUT.print(table)


def print_host_work(found: dict[str, Any]) -> None:
    """What `rowvit.hardware.host.host_work` estimates."""
    from rowvit.hardware.host import HEAD, rows, said

    if "none" in found:
        return
    table = right_aligned(*HEAD)
    for row in rows(found):
        table.add_row(*row)
    say(f"\n{said(found)}")
    OUT.print(table)
