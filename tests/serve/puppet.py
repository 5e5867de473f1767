# SPDX-License-Identifier: Apache-2.0
"""A target that does as it is told, and a server in a thread with a client that speaks HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from waiting import HANG, until

from rowvit.errors import RowvitError
from rowvit.formats.tokens import Tokens
from rowvit.hardware.config import load
from rowvit.serve.networks import Network
from rowvit.serve.server import bound, http_server
from rowvit.serve.service import Limits, Service
from rowvit.targets.target import Result, Target


class Puppet(Target):
    """Its class is the first pixel of an image; it can be held, made to fail, and asked what it ran."""

    def __init__(self) -> None:
        self.config = load("tiny")
        self.go = threading.Event()
        self.go.set()
        self.inside = threading.Event()  # set while it is held
        self.failures: list[Exception] = []  # of the next runs
        self.broken = False  # nothing runs until it is opened again
        self.batches: list[tuple[str, int]] = []  # network and images of every start
        self.loads: list[str] = []
        self.closed = 0

    def load(self, model) -> None:
        self.meta, self.head = model.meta, model.head
        self.loads.append(model.meta["model"]["name"])

    def _run(self, images: Sequence[np.ndarray]) -> list[Result]:
        self.inside.set()
        assert self.go.wait(HANG)
        self.inside.clear()
        if self.failures:
            raise self.failures.pop(0)
        if self.broken:
            raise RowvitError("the core no longer answers")
        meta = self.meta
        assert meta is not None
        self.batches.append((meta["model"]["name"], len(images)))
        tokens, classes = meta["architecture"]["tokens"], meta["architecture"]["classes"]
        kept = [np.arange(min(tokens, step["keep"] + 1)) for step in meta["pruning"]]
        return [
            Result.of(
                meta,
                np.where(np.arange(classes) == image[0, 0, 0], 100, 0).astype(np.int16),
                kept,
                self.head,
                tokens=self.tokens(image),
                seconds=1e-3,
                cycles=1000,
                batch=len(images),
            )
            for image in images
        ]

    def tokens(self, image: np.ndarray) -> dict[int, Tokens]:
        """Of an image, by layer."""
        return {}

    def probe(self) -> None:
        if self.broken:
            raise RowvitError("the core no longer answers")

    def close(self) -> None:
        self.closed += 1


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence, of a refusal."""
        assert self.status >= 400, self
        return self.json["error"]


@dataclass
class Served:
    """A server and how to ask it."""

    port: int
    service: Service
    server: uvicorn.Server
    replies: list[Reply] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes | str | None = None, **headers: str) -> Reply:
        """One request; underscores in the names of headers are dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def infer(self, pixels: np.ndarray, model: str = "small", **parameters: Any) -> Reply:
        """An inference request with JSON tensors."""
        tensor = {
            "name": "pixels",
            "datatype": "UINT8",
            "shape": list(pixels.shape),
            "data": pixels.ravel().tolist(),
        }
        message = {"inputs": [tensor], "parameters": parameters}
        return self.ask("POST", f"/v2/models/{model}/infer", json.dumps(message))

    def later(self, *arguments: Any, **keywords: Any) -> threading.Thread:
        """`infer` in a thread, its reply in ``replies``."""
        thread = threading.Thread(target=lambda: self.replies.append(self.infer(*arguments, **keywords)))
        thread.start()
        return thread


@contextmanager
def serving(
    networks: dict[str, Network],
    target_name: str,
    open_target: Callable[[], Target],
    limits: Limits | None = None,
    certificate: Path | None = None,
    **options: Any,
) -> Iterator[Served]:
    """A service on a free port of this computer; stopped at the end."""
    service = Service(networks, target_name, open_target, limits or Limits(deadline=HANG), **options)
    service.engine.start()
    server = http_server(service, (certificate, certificate) if certificate else None)
    with bound("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started)
            yield Served(listener.getsockname()[1], service, server)
        finally:
            server.should_exit = True
            thread.join(HANG)
            assert not thread.is_alive(), "the server does not stop"


@contextmanager
def command(
    *arguments: object, program: Sequence[str] = ("-m", "rowvit.cli"), **environment: str
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """``rowvit serve`` on `tiny` as a process, and the lines that it writes.

    ``program`` is what Python runs, and ``environment`` stands over this process's.
    """
    process = subprocess.Popen(
        [sys.executable, *program, "serve", *map(str, arguments), "-c", "tiny", "--port", "0"],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr))
    reader.start()
    try:
        until(lambda: any("://localhost:" in line for line in lines), process)
        yield process, lines
    finally:
        process.kill()
        process.wait(HANG)
        reader.join(HANG)


def port_of(lines: list[str]) -> int:
    """Where a `command` listens."""
    return next(int(found[1]) for line in lines if (found := re.search(r"://localhost:(\d+)", line)))
