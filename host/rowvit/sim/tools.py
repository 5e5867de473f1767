# SPDX-License-Identifier: Apache-2.0
"""Runs the tools that build a simulator."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rowvit.errors import RowvitError
from rowvit.processors import processors

SECONDS = 3600  # that a step of a build may take; the largest takes minutes


def run_all(commands: Sequence[list[str]], environment: dict[str, str], log: Path) -> None:
    """Run commands, as many at a time as there are processors; errors as of `run`, the first one's."""
    with ThreadPoolExecutor(processors()) as pool:
        done = [pool.submit(run, command, environment, log) for command in commands]
        for one in done:
            try:
                one.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def run(command: list[str], environment: dict[str, str], log: Path | None = None) -> str:
    """Run a tool; its standard output. `RowvitError` if it fails or is not done within `SECONDS`."""
    name = Path(command[0]).name
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RowvitError(
            f"{name} was not done within {SECONDS} s",
            "see that the machine has memory and processor to spare, and try again",
        ) from error
    output = result.stdout + result.stderr
    if result.returncode == 0:
        return result.stdout
    if log:
        log.write_text(f"$ {' '.join(command)}\n{output}")
    if "zlib.h" in output:
        raise RowvitError(
            "recording waveforms needs zlib", "install with: sudo apt-get install -y zlib1g-dev"
        )
    where = f" (all of it in {log})" if log else ""
    tail = "\n".join(output.strip().splitlines()[-12:])
    raise RowvitError(f"building the simulator failed in {name}{where}:\n{tail}")
