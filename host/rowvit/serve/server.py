# SPDX-License-Identifier: Apache-2.0
"""The HTTP server around the application: a socket, signals, and connections that dawdle or are too many."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import get_remote_addr

from rowvit.errors import RowvitError
from rowvit.serve.app import application
from rowvit.serve.gate import neighbourhood
from rowvit.serve.service import Service

_HEADERS = 10.0  # seconds for a request's headers, and for a handshake before
_TURNED_AWAY = 64  # connections that get a sentence at once; more are closed
_KEEP_ALIVE = 75  # seconds that a connection may idle: longer than nginx keeps one to a server


class Doors:
    """The connections of a server, at most so many.

    Where there are more, the address that has the most gives way: its oldest connection that is not being
    answered is closed, or where it is the newcomer's own, the newcomer gets 503 as its answer.

    Parameters
    ----------
    most : int
        Connections that are served at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside: dict[_Protocol | _Handshake, str] = {}  # the oldest first, with their addresses

    def enter(self, one: _Protocol | _Handshake) -> None:
        address = neighbourhood(one.client[0] if one.client else "-")
        self._inside[one] = address
        if len(self._inside) <= self._most:
            return
        counts = Counter(self._inside.values())
        largest = max(counts, key=lambda other: (counts[other], other == address))
        if largest != address:
            waiting = (p for p, own in self._inside.items() if own == largest and not p.is_answered)
            if (oldest := next(waiting, None)) is not None:
                self.leave(oldest)
                oldest.transport.abort()
                return
        if len(self._inside) > self._most + _TURNED_AWAY:
            self.leave(one)
            one.transport.abort()
        else:
            one.turn_away()

    def leave(self, one: _Protocol | _Handshake) -> None:
        self._inside.pop(one, None)


class _Whose(logging.LoggerAdapter):
    """What is said of a connection begins with its address."""

    @property
    def level(self) -> int:
        """Which uvicorn looks at."""
        return self.logger.level

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        return f"{(self.extra or {})['who']} {msg}", kwargs


async def _full(scope: Scope, receive: Receive, send: Send) -> None:
    """The application of connections for which there is no room."""
    error = "too many connections are here already; try again in 1 s"
    headers = {"Retry-After": "1", "Connection": "close"}
    await JSONResponse({"error": error}, 503, headers)(scope, receive, send)


class _Protocol(H11Protocol):
    """Also closes connections that do not say what they want, and those for which there is no room."""

    doors: Doors
    patience: float
    _late: asyncio.TimerHandle | None = None
    _rest: asyncio.TimerHandle | None = None  # of a body that was refused before it was here

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        whose: Any = _Whose(self.logger, {"who": self.client[0] if self.client else "-"})
        self.logger = whose
        self._wait()
        self.doors.enter(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._late is None:  # the start of a request
            self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # its client may look for the answer only behind the body, which is dropped, but not for ever
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._rest = self.loop.call_later(self.patience, self._cut, self.cycle)

    def _cut(self, refused: object) -> None:
        if self.cycle is refused and self.conn.their_state is h11.SEND_BODY:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._rest is not None:
            self._rest.cancel()
        self.doors.leave(self)
        super().connection_lost(exc)

    @property
    def is_answered(self) -> bool:
        """Whether a whole request has come, and its answer is not out."""
        cycle = self.cycle
        # its client does not take what is left, or what there is already
        if cycle is None or self.transport.is_closing() or self.flow.write_paused:
            return False
        return not cycle.more_body and not cycle.response_complete

    def turn_away(self) -> None:
        """Answer whatever comes with a sentence."""
        self.app = _full

    def _wait(self) -> None:
        self._late = self.loop.call_later(_HEADERS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
        self._late = None


class _Handshake(asyncio.Protocol):
    """A connection by TLS from its first byte on, which becomes one of `served` after its handshake."""

    doors: Doors
    context: ssl.SSLContext
    served: type[_Protocol]
    transport: asyncio.Transport
    client: tuple[str, int] | None
    is_answered = False

    def __init__(self, **settings: Any) -> None:
        self._protocol = self.served(**settings)
        self._handed_over = self._lost = False
        self._early = bytearray()  # what came with the handshake's end

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport, self.client = transport, get_remote_addr(transport)
        self.doors.enter(self)
        if not transport.is_closing():
            self._task = asyncio.get_running_loop().create_task(self._shake())

    def data_received(self, data: bytes) -> None:
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._handed_over:  # while the loss was on its way
            self._protocol.connection_lost(exc)

    def turn_away(self) -> None:
        """Do nothing yet: a sentence can only be read after the handshake."""

    async def _shake(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            secured = await loop.start_tls(
                self.transport, self, self.context, server_side=True, ssl_handshake_timeout=_HEADERS
            )
        except OSError:  # it left, dawdled or speaks something else
            return
        finally:
            self.doors.leave(self)
        if secured is None or self._lost:
            return
        self._handed_over = True
        secured.set_protocol(self._protocol)
        self._protocol.connection_made(secured)
        if self._early:
            self._protocol.data_received(bytes(self._early))


class _Server(uvicorn.Server):
    """Told to end, first answers what has come in: until then new requests are refused by a sentence."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service, self._until = service, math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._until == math.inf:
            self._service.stopping, self.should_exit = True, False
            self._until = time.monotonic() + self._service.limits.deadline
        else:  # a second signal does not wait
            self.config.timeout_graceful_shutdown = 0
            self._service.patience = 0.0

    async def on_tick(self, counter: int) -> bool:
        ended = await super().on_tick(counter)
        drained = self._service.stopping and not self._service.open_requests
        return ended or drained or time.monotonic() > self._until


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


def http_server(service: Service, certificate: tuple[Path, Path] | None = None) -> uvicorn.Server:
    """What serves a service whose engine has started, with a ``certificate`` and its key by HTTPS."""
    doors = Doors(service.limits.connections)
    protocol: type[asyncio.Protocol] = type(
        "Protocol", (_Protocol,), {"doors": doors, "patience": service.limits.deadline}
    )
    if certificate:  # by the server's own TLS, what has no handshake yet would not be counted
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
        protocol = type("Handshake", (_Handshake,), {"doors": doors, "context": context, "served": protocol})
    config = uvicorn.Config(
        application(service),
        http=protocol,
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # the application's own line says more
        server_header=False,
        proxy_headers=bool(proxies := os.environ.get("FORWARDED_ALLOW_IPS", "")),
        forwarded_allow_ips=proxies,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(service.limits.deadline),
    )
    return _Server(config, service)


def run(
    service: Service,
    listener: socket.socket,
    ready: Callable[[], object] = lambda: None,
    certificate: tuple[Path, Path] | None = None,
) -> None:
    """Start the engine and serve until SIGTERM or SIGINT, then answer what has come in, and end.

    Parameters
    ----------
    service : Service
    listener : socket
        From `bound`.
    ready : callable
        Called when the core is there, just before the first request is taken.
    certificate : tuple of Path, optional
        Certificate and key, in PEM: then by HTTPS.

    Raises
    ------
    RowvitError
        The target cannot be opened, or does not take a network.
    """
    service.engine.start()
    ready()
    http_server(service, certificate).run(sockets=[listener])
