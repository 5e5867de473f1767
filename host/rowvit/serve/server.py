# SPDX-License-Identifier: Apache-2.0
"""The HTTP server around the application: a socket, signals, and connections that dawdle."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rowvit.errors import RowvitError
from rowvit.serve.app import application
from rowvit.serve.service import Service

_HEADERS = 10.0  # seconds for a request's headers
_KEEP_ALIVE = 75  # seconds that a connection may idle: longer than nginx keeps one to a server


class _Protocol(H11Protocol):
    """Also closes connections that do not say what they want."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._late is None:  # the start of a request
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(_HEADERS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
        self._late = None


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one. `RowvitError` if the address cannot be used."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]  # which says the address again
        raise RowvitError(
            f"nothing can listen at {host}, port {port} ({reason})", "choose another --port or --host"
        ) from error
    # connections inherit it; without it the body waits 40 ms for the client to acknowledge the head
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def http_server(service: Service) -> uvicorn.Server:
    """What serves a service whose engine has started."""
    config = uvicorn.Config(
        application(service),
        http=_Protocol,
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # the application's own line says more
        server_header=False,
        limit_concurrency=service.limits.connections + 1,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(service.limits.deadline),
    )
    return uvicorn.Server(config)


def run(service: Service, listener: socket.socket, ready: Callable[[], object] = lambda: None) -> None:
    """Start the engine and serve until SIGTERM or SIGINT, then answer what has come in, and end.

    Parameters
    ----------
    service : Service
    listener : socket
        From `bound`.
    ready : callable
        Called when the core is there, just before the first request is taken.

    Raises
    ------
    RowvitError
        The target cannot be opened, or does not take a network.
    """
    service.engine.start()
    ready()
    http_server(service).run(sockets=[listener])
