# SPDX-License-Identifier: Apache-2.0
"""Build an overlay with Vivado: .bit, .hwh and provenance. ``make bitstream BOARD=Pynq-Z2`` runs it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path, PurePath
from typing import Annotated

import typer
from rich.console import Console

from rowvit.errors import RowvitError
from rowvit.formats import provenance
from rowvit.hardware import clocks
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import FRONTENDS, PS, Board, block_design, board, overlay_name
from rowvit.hardware.config import HardwareConfig

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
HLS, RTL = ROOT / "hls", ROOT / "rtl"
IP = "frontend/solution/impl/ip"  #: where Vitis HLS leaves it
STRATEGY = "Performance_ExplorePostRoutePhysOpt"
#: that are tried after it for a faster clock
OTHERS = ("Performance_ExtraTimingOpt", "Performance_NetDelay_high", "Congestion_SpreadLogic_high")
#: how long Vivado may take, by whether the array has many rows; nobody has run it yet
HOURS = {
    False: "Vivado may take one to two hours for it, by an estimate that is still to be measured",
    True: "Vivado may take two to four hours for it, by an estimate that is still to be measured",
}
#: rows of Vivado's utilisation report, by what they are called in the provenance
RESOURCES = {
    "lut": r"(?:Slice|CLB) LUTs",
    "register": r"(?:Slice|CLB) Registers",
    "block_ram": r"Block RAM Tile",
    "ultra_ram": r"URAM",
    "dsp": r"DSPs",
}
Frontend = Enum("Frontend", {name: name for name in FRONTENDS}, type=str)
OUT = Console()
ERR = Console(stderr=True)


def tcl(value: object) -> str:
    """A value as a Tcl word: mappings become dictionaries, sequences lists; paths have slashes."""
    if isinstance(value, Mapping):
        value = [item for pair in value.items() for item in pair]
    if isinstance(value, (list, tuple)):
        return "{" + " ".join(tcl(item) for item in value) + "}"
    if isinstance(value, bool):
        value = int(value)
    text = value.as_posix() if isinstance(value, PurePath) else str(value)
    if re.search(r"[{}\\]", text):
        return '"' + re.sub(r'([][{}$"\\])', r"\\\1", text) + '"'
    return "{" + text + "}"


def description(
    config: HardwareConfig,
    target: Board,
    strategies: Sequence[str],
    jobs: int,
    board_files: Path | None = None,
    frontend: str = "host",
) -> dict[str, object]:
    """The input of the Tcl scripts: the block design of ``config`` on a board, files and part.

    Files are named from the directory of the script on.
    """
    design = block_design(config, target.family, frontend, target.ram_style)
    return {
        "strategies": strategies,
        "jobs": jobs,
        "part": target.part,
        "board_part": target.board_part,
        "board_files": board_files or "",
        "ip": IP if frontend == "hls" else "",
        "settings": target.settings,
        "rule": target.family.rule,
        "first": target.family.first,
        "processing_system": PS,
        "clock": f"{PS}/{target.family.clock}",
        "frequency": target.family.frequency,
        "clocks": slower(config, target),
        "sources": [file.relative_to(ROOT) for kind in ("*.v", "*.vh") for file in sorted(RTL.rglob(kind))],
        "include": "rtl",
        "ultra_ram": config.ultra_ram if target.ram_style == "ultra" else 0,
        "cells": {
            name: {"vlnv": cell.vlnv, "parameters": cell.parameters} for name, cell in design.cells.items()
        },
        "interfaces": design.interfaces,
        "nets": {driver: loads for driver, (_, loads) in design.nets.items()},
        "addresses": [(f"{a.cell}/{a.interface}", f"0x{a.base:08X}", a.range) for a in design.addresses],
    }


def slower(config: HardwareConfig, target: Board) -> list[str]:
    """The processor's clocks down to a tenth of the configuration's, in MHz, fastest first."""
    below, slowest = config.clock_mhz * (1 + clocks.ROUNDING), config.clock_mhz / 10
    found = [clock.mhz for clock in clocks.clocks(target.pll_mhz) if slowest <= clock.mhz <= below]
    return [f"{mhz:.6f}" for mhz in reversed(found)]


def bits(config: HardwareConfig) -> int:
    """Of the token, residual and weight memories."""
    residual, weight = 16 * config.residual_depth, 8 * config.lanes * config.weight_depth
    return config.rows * (64 * config.token_depth + config.groups * residual) + config.groups * weight


def require_room(config: HardwareConfig, target: Board) -> None:
    """`RowvitError` for memories that the part cannot hold, however they are mapped: hours before Vivado."""
    there = 1024 * (36 * target.block_ram + 288 * target.ultra_ram)
    lacks = ""
    if bits(config) > there:
        lacks = f"{bits(config) / 1e6:.1f} Mb of memories, and the part has {there / 1e6:.1f}"
    elif target.ram_style == "ultra" and config.ultra_ram > target.ultra_ram:
        lacks = f"{config.ultra_ram} UltraRAMs, and the part has {target.ultra_ram}"
    if lacks:
        raise RowvitError(
            f"'{config.name}' does not fit {target.name} ({target.part}): it has {lacks}",
            f"build the board's own configuration, '{target.configuration}', or another smaller one",
        )


def smaller(config: HardwareConfig) -> HardwareConfig | None:
    """The largest array that is built for boards, is smaller than this one, and has less memory."""
    found = [
        other
        for other in map(configs.load, configs.names())
        if other.board != "none"
        and other.macs_per_cycle < config.macs_per_cycle
        and bits(other) < bits(config)
    ]
    return max(found, key=lambda other: other.macs_per_cycle, default=None)


def write_script(work: Path, *arguments) -> Path:
    """Write all that Vivado runs into ``work``, with the RTL: ``build.tcl``, which needs nothing else.

    The directory may be moved, also to another PC, if ``board_files`` is not used. ``arguments`` are those
    of `description`.
    """
    shutil.copytree(RTL, work / "rtl", ignore=shutil.ignore_patterns("*.md", "*.vlt", "*.rules"))
    text = "\n".join((HERE / name).read_text(encoding="utf-8") for name in ("block_design.tcl", "build.tcl"))
    script = work / "build.tcl"
    script.write_text(f"set description {tcl(description(*arguments))}\n{text}", encoding="utf-8")
    return script


def utilisation(report: str) -> dict[str, dict[str, float]]:
    """Used and available resources from the text of Vivado's ``report_utilization``.

    Raises
    ------
    RowvitError
        The report has no row for LUTs.
    """
    found = {}
    for name, pattern in RESOURCES.items():
        if match := re.search(rf"^\|\s*{pattern}\*?\s*\|(.*)\|\s*$", report, re.MULTILINE):
            used, *_, available, _ = (column.strip() for column in match[1].split("|"))
            found[name] = {"used": float(used), "available": float(available)}
    if "lut" not in found:
        raise RowvitError("Vivado's utilisation report has no row 'Slice LUTs' or 'CLB LUTs'")
    return found


def revision() -> tuple[str | None, bool]:
    """The Git commit of the sources, and whether they differ from it; (None, True) outside Git."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", ROOT, *command], capture_output=True, text=True, check=True, timeout=60
            )
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None, True
    return commit.stdout.strip(), bool(changes.stdout.strip())


def find(*commands: str, name: str, variable: str) -> str:
    """The path of the first of ``commands`` that is there; `RowvitError` if none is."""
    for command in commands:
        if path := shutil.which(command):
            return os.path.abspath(path)
    raise RowvitError(
        f"{' or '.join(commands)} not found",
        f"install {name} 2022.1 to 2025.2 with the board's device family, and source its settings64.sh, or"
        f" name it: make bitstream {variable}=/path/to/{commands[0]}",
    )


class NoRoom(RowvitError):
    """The design is placed, routed or held by no part of this size, or not in this run."""


class Endings:
    """Signals that end a build, SIGHUP when a connection by ssh does. While a tool starts they wait until it
    would be ended, too: it would go on for hours, in a folder that the next build empties.
    """

    def __init__(self) -> None:
        self._number, self._wait = 0, False

    def catch(self) -> None:
        """Hear them, but for those that whoever started this ignores, as nohup SIGHUP."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            usual = signal.SIG_DFL, signal.default_int_handler
            if number is not None and signal.getsignal(number) in usual:
                signal.signal(number, self._came)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Until `release`, or the end."""
        self._wait = True
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """End, if one has come."""
        self._wait = False
        number, self._number = self._number, 0
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if number:
            sys.exit(128 + number)

    def _came(self, number: int, frame: object) -> None:
        self._number = number
        if not self._wait:
            self.release()


ENDINGS = Endings()


def run_tool(
    name: str,
    command: list,
    work: Path,
    log: str,
    result: str,
    hours: float,
    variables: Mapping[str, str] | None = None,
) -> Generator[str, None, None]:
    """Run a tool of AMD's in ``work``, where it leaves ``log`` and ``result``; yields what our Tcl says.

    Raises
    ------
    NoRoom
        It says so.
    RowvitError
        It fails, leaves no result, or is not done within ``hours``.
    """
    late = threading.Event()
    errors: list[str] = []
    no_room = ""
    with (
        ENDINGS.held(),
        subprocess.Popen(
            [str(word) for word in command],
            cwd=work,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        ) as process,
    ):

        def stop() -> None:
            late.set()
            if os.name == "posix":  # with what it has started
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()

        timer = threading.Timer(hours * 3600, stop)
        timer.start()
        try:
            ENDINGS.release()
            for line in process.stdout:
                text = line.strip()
                if text.startswith("rowvit: error: "):
                    errors.append(text.removeprefix("rowvit: error: "))
                elif text.startswith("rowvit: no room: "):
                    no_room = text.removeprefix("rowvit: no room: ")
                elif text.startswith("rowvit: "):
                    yield text.removeprefix("rowvit: ")
                elif text.startswith("ERROR: "):
                    errors.append(text)
            process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                stop()
    if late.is_set():
        advice = f"see {work / log}, or allow more --hours"
        raise RowvitError(f"{name} was not done within {hours:g} hours", advice)
    if no_room:
        raise NoRoom(no_room, f"its log is {work / log}")
    # a failure that is in the log alone was followed by another try
    if process.returncode or not (work / result).is_file():
        without = (
            f"ended with code {process.returncode}" if process.returncode else f"left no {work / result}"
        )
        raise RowvitError(errors[-1] if errors else f"{name} {without}", f"its log is {work / log}")


def show(tool: str, texts: Generator[str, None, None]) -> None:
    """Print what a tool says as it says it; warnings go to standard error."""
    with OUT.status(f"starting {tool}") as status, closing(texts):
        for text in texts:
            if text.startswith("warning: "):
                ERR.print(f"rowvit: {text}", markup=False, highlight=False, soft_wrap=True)
            else:
                status.update(f"{tool}: {text}")
                OUT.print(f"{datetime.now():%H:%M:%S} {text}", highlight=False)


def pack_frontend(program: str, config: HardwareConfig, target: Board, work: Path, hours: float) -> None:
    """Make IP of the HLS preprocessor in ``work``; errors as `build`."""
    shutil.copytree(HLS, work / "hls", ignore=shutil.ignore_patterns("sim", "*.md"))
    log, script = "vitis_hls.log", "hls/build.tcl"
    if Path(program).stem == "vitis-run":
        command = [program, "--mode", "hls", "--tcl", script]
    else:
        command = [program, "-f", script, "-l", log]
    variables = {"PART": target.part, "PERIOD": f"{1e3 / config.clock_mhz:.3f}"}
    texts = run_tool("Vitis HLS", command, work, log, f"{IP}/component.xml", hours, variables)
    show("Vitis HLS", texts)


def build(
    target: Board,
    config: HardwareConfig,
    work: Path,
    out: Path,
    vivado: str,
    strategies: Sequence[str] = (STRATEGY,),
    jobs: int = 2,
    hours: float = 12,
    board_files: Path | None = None,
    frontend: str = "host",
    vitis_hls: str = "",
) -> provenance.Provenance:
    """Build ``config`` for a board in ``work``, and put the overlay into ``out``.

    Its clock is the configuration's, or the fastest below it that the routed design meets. ``strategies`` of
    implementation are tried until one meets it, each for at most ``hours``.

    Raises
    ------
    NoRoom
        Placement or routing failed, or hold times are not met.
    RowvitError
        Vivado or Vitis HLS is missing or fails, or the build takes too long.
    """
    program = find(vivado, name="Vivado", variable="VIVADO")
    if frontend == "hls":
        commands = [vitis_hls] if vitis_hls else ["vitis_hls", "vitis-run"]
        hls_program = find(*commands, name="Vitis HLS", variable="VITIS_HLS")
    work, out = work.resolve(), out.resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if frontend == "hls":
        pack_frontend(hls_program, config, target, work, hours)
    script = write_script(work, config, target, strategies, jobs, board_files, frontend)
    commit, dirty = revision()
    # no path in it: Vivado's launchers are shell scripts, or .bat
    log, result_file = "vivado.log", "result.txt"
    command = [program, "-mode", "batch", "-nojournal", "-log", log, "-source", script.name]
    try:
        show("Vivado", run_tool("Vivado", command, work, log, result_file, hours * len(strategies)))
    except NoRoom as error:
        less = smaller(config)
        other = f"make bitstream BOARD={target.name} CONFIG={less.name}" if less else "another STRATEGY"
        raise NoRoom(error.message, f"{error.advice}; what has more room is {other}") from error
    result = dict(
        line.partition(" ")[::2] for line in (work / result_file).read_text(encoding="utf-8").splitlines()
    )
    asked, actual = float(result["asked"]), float(result["hz"]) / 1e6
    if actual < asked:
        missed = f"timing is not met at {asked:.3f} MHz, setup slack {result['missed']} ns"
    elif abs(actual - config.clock_mhz) > 0.01 * config.clock_mhz:
        missed = f"{config.clock_mhz:g} MHz were asked for"
    else:
        missed = ""
    if missed:
        ERR.print(
            f"rowvit: warning: {missed}: the overlay is built for {actual:.3f} MHz, which the processor"
            " makes, and will run with that",
            soft_wrap=True,
            highlight=False,
        )
    name = overlay_name(config, frontend)
    out.mkdir(parents=True, exist_ok=True)
    files = {}
    for suffix in (".bit", ".hwh"):
        fresh = out / f".{name}{suffix}.new"
        shutil.copyfile(work / f"rowvit{suffix}", fresh)
        os.replace(fresh, out / f"{name}{suffix}")
        files[f"{name}{suffix}"] = provenance.sha256(out / f"{name}{suffix}")
    made = provenance.Provenance(
        board=target.name,
        part=target.part,
        configuration=config.name,
        frontend=frontend,
        structure=config.structure(),
        config_hash=f"{config.hash:08X}",
        revision=commit,
        dirty=dirty,
        tool=f"Vivado {result['version']}",
        strategy=result["strategy"],
        board_file=result["board_part"],
        clock_mhz=config.clock_mhz,
        actual_clock_mhz=round(actual, 6),
        setup_slack_ns=float(result["setup"]),
        hold_slack_ns=float(result["hold"]),
        utilisation=utilisation((work / "utilisation.rpt").read_text(encoding="utf-8", errors="replace")),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        files=files,
    )
    made.write(out / f"{name}.json")
    return made


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    board_name: Annotated[str, typer.Argument(metavar="BOARD", help="Pynq-Z1, Pynq-Z2, ZCU104, ...")],
    config: Annotated[
        str, typer.Option(help="Hardware configuration, a name or .toml file; by default the board's.")
    ] = "",
    clock: Annotated[
        float | None,
        typer.Option(min=1, help="MHz of the logic, instead of the configuration's; names and hash stay."),
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="If timing is not met, try other strategies for a faster clock.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only write the Tcl that Vivado would run.")
    ] = False,
    vivado: Annotated[str, typer.Option(help="Vivado's executable.")] = "vivado",
    strategy: Annotated[str, typer.Option(help="Vivado's implementation strategy.")] = STRATEGY,
    jobs: Annotated[int, typer.Option(min=1, help="Parallel jobs.")] = os.cpu_count() or 1,
    hours: Annotated[float, typer.Option(min=0, help="Hours per strategy after which to give up.")] = 12,
    board_files: Annotated[
        Path | None, typer.Option(help="Directory of board files that do not come with Vivado.")
    ] = None,
    frontend: Annotated[
        Frontend,
        typer.Option(
            help="Where images are cut into patches: on the host, or by the HLS preprocessor (hls)."
        ),
    ] = Frontend.host,
    vitis_hls: Annotated[
        str, typer.Option(help="Executable of Vitis HLS; by default vitis_hls or vitis-run.")
    ] = "",
    work: Annotated[Path, typer.Option(help="Project directory, emptied first.")] = ROOT / "build/bitstream",
    out: Annotated[Path, typer.Option(help="Directory for overlays.")] = ROOT / "build/overlays",
) -> None:
    """Build an overlay with Vivado."""
    ENDINGS.catch()
    try:
        target = board(board_name)
        hardware = configs.load(config or target.configuration)
        if clock is not None:
            hardware = replace(hardware, clock_mhz=round(clocks.at_most(target.pll_mhz, clock).mhz, 6))
        require_room(hardware, target)
        files = board_files.resolve() if board_files else None
        strategies = list(dict.fromkeys([strategy, *OTHERS])) if retry else [strategy]
        if dry_run:
            if frontend is Frontend.hls:
                raise RowvitError(
                    "with --frontend hls, Vivado's Tcl needs the IP that Vitis HLS makes",
                    "build without --dry-run, or write the Tcl of the host front end",
                )
            folder = work / target.name
            shutil.rmtree(folder, ignore_errors=True)
            script = write_script(folder, hardware, target, strategies, jobs, files)
            OUT.print(
                f"{script}, with the RTL beside it; here or on another PC: vivado -mode batch -source"
                f" build.tcl. {HOURS[hardware.rows > 2]}",
                soft_wrap=True,
                highlight=False,
            )
            return
        made = build(
            target,
            hardware,
            work / target.name,
            out / target.name,
            vivado,
            strategies,
            jobs,
            hours,
            files,
            frontend.value,
            vitis_hls,
        )
    except RowvitError as error:
        ERR.print(f"rowvit: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    used = ", ".join(
        f"{n['used']:g} of {n['available']:g} {name.replace('_', ' ')}"
        for name, n in made.utilisation.items()
    )
    name = overlay_name(hardware, frontend)
    OUT.print(
        f"{out / target.name / name}.bit, .hwh and .json: {made.actual_clock_mhz:g} MHz,"
        f" setup slack {made.setup_slack_ns:g} ns, hold slack {made.hold_slack_ns:g} ns; {used}",
        soft_wrap=True,
        highlight=False,
    )


if __name__ == "__main__":
    app()
