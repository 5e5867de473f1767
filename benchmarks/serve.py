# SPDX-License-Identifier: Apache-2.0
"""Loads `rowvit serve`: latency, refusals, the server's processor time per request, memory.

The table of docs/serve.md: ``python benchmarks/serve.py``. It takes ``hey`` (Debian: ``apt install hey``) for
the load. Processor time and memory are the server's own process', from its /metrics. The server's share is
what is left without the driver's, which is measured alone; "no work" is a target that answers at once.
"""

from __future__ import annotations

import csv
import io
import multiprocessing
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from record import Record, record

from rowvit.errors import RowvitError
from rowvit.hardware.config import load as configuration
from rowvit.images import decode
from rowvit.quant.synthetic import random_package
from rowvit.targets.golden import Golden
from rowvit.targets.session import image_files, shipped_photos
from rowvit.targets.target import Result, read_package

PHOTO = image_files(shipped_photos("sign-digits"))[7]
SMALL = dict(dim=32, depth=2, heads=2, image_size=12, patch_size=2, hidden=48, classes=5)

TITLES = (
    *("load", "requests", "429", "median ms", "p90 ms", "p99 ms"),
    *("driver, CPU ms", "server, CPU ms", "MB before", "MB after"),
)


class Still(Golden):
    """Answers every image at once, with what the first one gave."""

    _answer: Result | None = None

    def _run(self, images: Sequence[np.ndarray]) -> list[Result]:
        if self._answer is None:
            (self._answer,) = super()._run(images[:1])
        return [self._answer] * len(images)


@dataclass(frozen=True)
class Load:
    """What hey sends, and to what."""

    name: str
    target: str
    model: str
    pixels: bool  # or else a JPEG
    requests: int
    clients: int
    queue: int = 64

    def arguments(self, body: Path, port: int, requests: int) -> list[str]:
        address = f"http://127.0.0.1:{port}"
        address += "/v2/models/it/infer" if self.pixels else "/models/it/classify"
        headers = ["-H", "Inference-Header-Content-Length: 0"] if self.pixels else []
        counts = ["-n", str(requests), "-c", str(self.clients), "-t", "60"]
        kind = ["-m", "POST", "-T", "application/octet-stream", "-D", str(body)]
        return ["hey", *counts, *kind, *headers, "-o", "csv", address]


def loads(small: str, requests: int) -> list[Load]:
    signs = "sign-digits"
    return [
        Load("no work, pixels", "still", signs, True, requests, 8),
        Load("no work, JPEG", "still", signs, False, requests, 8),
        Load("12 x 12 pixels", "golden", small, True, requests, 8),
        Load("sign-digits, one client", "golden", signs, True, requests // 50, 1),
        Load("sign-digits, 8 clients", "golden", signs, True, requests // 20, 8),
        Load("sign-digits, 64 clients, queue of 16", "golden", signs, True, requests // 20, 64, queue=16),
    ]


def serve(load: Load, pipe: Connection) -> None:
    """A server in a process of its own."""
    from rowvit.serve.networks import read_networks
    from rowvit.serve.server import bound, run
    from rowvit.serve.service import Limits, Service

    networks = read_networks([f"it={load.model}"])
    service = Service(networks, "golden", lambda: opened(load), Limits(queue=load.queue))
    with bound("127.0.0.1", 0) as listener:
        run(service, listener, lambda: pipe.send(listener.getsockname()[1]))


def opened(load: Load) -> Golden:
    return Golden(configuration("pynq-z2")) if load.target == "golden" else Still(configuration("pynq-z2"))


def gauges(port: int) -> tuple[float, float, float]:
    """Processor time in seconds, resident memory in MB, images classified."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = dict(
            line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#")
        )
    images = float(lines.get('rowvit_images_total{model="it"}', 0))
    memory = float(lines["process_resident_memory_bytes"]) / 1e6
    return float(lines["process_cpu_seconds_total"]), memory, images


def driver_ms(load: Load, pixels: np.ndarray, count: int) -> float:
    """Processor time per image of the driver alone, in ms."""
    with opened(load) as driver:
        driver.load(load.model)
        driver(pixels[None])
        begin = time.process_time()
        for _ in driver.stream((pixels for _ in range(count)), 2):
            pass
        return 1e3 * (time.process_time() - begin) / count


def measure(load: Load) -> list[str]:
    """A row of the table."""
    side = read_package(load.model).arch["image_size"]
    pixels = decode(PHOTO, side)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(load, there), daemon=True)
    process.start()
    try:
        if not here.poll(120):
            raise RowvitError("the server does not start", "look at its messages")
        port = here.recv()
        with tempfile.NamedTemporaryFile() as body:
            body.write(pixels.tobytes() if load.pixels else PHOTO.read_bytes())
            body.flush()
            path, warm_up = Path(body.name), max(load.clients, load.requests // 10)
            subprocess.run(load.arguments(path, port, warm_up), capture_output=True, check=True)
            cpu, memory, images = gauges(port)
            command = load.arguments(path, port, load.requests)
            sent = subprocess.run(command, capture_output=True, check=True)
        cpu_after, memory_after, images_after = gauges(port)
    finally:
        process.terminate()
        process.join(60)
    rows = list(csv.DictReader(io.StringIO(sent.stdout.decode())))
    status = Counter(row["status-code"] for row in rows)
    times = np.array([float(row["response-time"]) for row in rows if row["status-code"] == "200"]) * 1e3
    if set(status) - {"200", "429"} or not len(times):
        raise RowvitError(f"the server answered {dict(status)}", "look at its messages")
    answered = images_after - images
    own = driver_ms(load, pixels, min(load.requests, 2000))
    over = 1e3 * (cpu_after - cpu) / len(rows) - own * answered / len(rows)
    return [
        load.name,
        f"{len(rows):,}",
        f"{status['429']:,}",
        *(f"{value:.1f}" for value in np.quantile(times, [0.5, 0.9, 0.99])),
        f"{own:.2f}",
        f"{over:.2f}",
        f"{memory:.0f}",
        f"{memory_after:.0f}",
    ]


def main(
    requests: Annotated[
        int, typer.Option(min=1000, help="Of the longest load; the others send a part of that.")
    ] = 10_000,
    only: Annotated[str, typer.Option(help="Loads whose name contains this.")] = "",
    keep: Record = False,
) -> None:
    """Start servers one after the other, load them, and print the table in Markdown."""
    if shutil.which("hey") is None:
        raise SystemExit("rowvit: hey is missing; install it with: apt install hey")
    with tempfile.TemporaryDirectory() as directory:
        small = f"{directory}/small.safetensors"
        random_package(np.random.default_rng(0), **SMALL, pruning=[]).save(small)
        print("| " + " | ".join(TITLES) + " |\n" + "| -- " * len(TITLES) + "|", flush=True)
        for load in loads(small, requests):
            if only in load.name:
                row = measure(load)
                print("| " + " | ".join(row) + " |", flush=True)
                if keep:
                    cells = zip(TITLES[1:], row[1:], strict=True)
                    figures = {title.replace(",", ""): float(cell.replace(",", "")) for title, cell in cells}
                    record("serve", load.name, figures)


if __name__ == "__main__":
    typer.run(main)
