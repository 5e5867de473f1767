# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: routes, and around them token, limits, log and errors."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rowvit.serve import cards, protocol
from rowvit.serve.networks import Network
from rowvit.serve.openapi import openapi
from rowvit.serve.page import failure, page_routes, source
from rowvit.serve.query import flag, seconds
from rowvit.serve.refusal import Refusal
from rowvit.serve.service import Service
from rowvit.serve.teach import lesson_routes

LOG = logging.getLogger("rowvit.serve")
COOKIE = "rowvit-token"
#: what load balancers ask, without a token
_OPEN = ("/v2/health/live", "/v2/health/ready")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
        b" media-src blob:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
]


def application(service: Service) -> ASGIApp:
    """The application of a service whose engine has started."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watches = [asyncio.create_task(watch()) for watch in (service.watch_power, service.watch_lessons)]
        try:
            yield
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.to_thread(service.close)

    app = Starlette(
        routes=[*_program_routes(), *lesson_routes(), *page_routes()],
        lifespan=lifespan,
        exception_handlers=dict.fromkeys((Refusal, HTTPException, 500), _refused),
    )
    app.state.service = service
    return _Gate(app, service)


# -- programs -----------------------------------------------------------------------------------------


def _program_routes() -> list[Route]:
    versions = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    return [
        Route("/v2/health/live", _live),
        Route("/v2/health/ready", _ready),
        Route("/v2", _server),
        *(Route(path, _model) for path in versions),
        *(Route(f"{path}/ready", _model_ready) for path in versions),
        *(Route(f"{path}/infer", _infer, methods=["POST"]) for path in versions),
        Route("/models/{model}/classify", _classify, methods=["POST"]),
        Route("/metrics", _metrics),
        Route("/openapi.json", _openapi),
    ]


async def _live(request: Request) -> Response:
    return JSONResponse({"ready": True})


async def _ready(request: Request) -> Response:
    return _whether_ready(request.app.state.service)


def _whether_ready(service: Service, **more: Any) -> Response:
    if not service.engine.ready:
        raise Refusal(503, service.engine.trouble or "the core does not answer", retry_after=1)
    return JSONResponse({**more, "ready": True})


async def _server(request: Request) -> Response:
    return JSONResponse(protocol.server_metadata())


def _counted(service: Service) -> bool:
    return service.target_name != "golden"


async def _model(request: Request) -> Response:
    service, network = await _addressed(request)
    return JSONResponse(protocol.model_metadata(network, _counted(service), service.frontend))


async def _model_ready(request: Request) -> Response:
    service, network = await _addressed(request)
    return _whether_ready(service, name=network.name)


async def _addressed(request: Request) -> tuple[Service, Network]:
    """The network that the path names."""
    service: Service = request.app.state.service
    network = await service.network(request.path_params["model"])
    version = request.path_params.get("version", protocol.VERSION)
    if version != protocol.VERSION:
        raise Refusal(404, f"{network.name} has no version '{version[:20]}'", f"use {protocol.VERSION}")
    return service, network


async def _infer(request: Request) -> Response:
    service, network = await _addressed(request)
    begin = service.deadline()
    headers = request.headers
    body = protocol.decompressed(
        await request.body(), headers.get("content-encoding", ""), service.limits.body
    )
    asked = protocol.read_request(
        body, headers.get(protocol.HEADER), network, _counted(service), service.frontend
    )
    with service.engine.place(len(asked.images)):
        deadline = min(begin, service.deadline(asked.seconds))
        answers = await service.engine.classify(network, list(asked.images), deadline)
    request.state.note = f"model={network.name} images={len(answers)} batch={answers[0].result.batch}"
    content, length = protocol.write_response(network, asked, [answer.result for answer in answers])
    if length is None:
        return Response(content, media_type="application/json")
    return Response(content, headers={protocol.HEADER: str(length)}, media_type="application/octet-stream")


async def _classify(request: Request) -> Response:
    service, network = await _addressed(request)
    explained = flag(request, "explain")
    drawn = "image/png" in request.headers.get("accept", "")
    deadline = service.deadline(seconds(request))
    (one,) = await service.classify([request.path_params["model"]], await request.body(), deadline)
    explanation = await service.explain(one) if explained or drawn else None
    request.state.note = f"model={network.name} images=1 batch={one.answer.result.batch}"
    document = service.document(one, explanation)
    if not drawn:
        return JSONResponse(document)
    png = await service.beside(
        cards.card, await request.body(), one, explanation, service.frontend, source(document)
    )
    return Response(png, media_type="image/png")


async def _metrics(request: Request) -> Response:
    return Response(request.app.state.service.metrics.text(), media_type="text/plain; version=0.0.4")


async def _openapi(request: Request) -> Response:
    return JSONResponse(openapi())


# -- errors -------------------------------------------------------------------------------------------


def _refused(request: Request, error: Exception) -> Response:
    status, sentence = 500, "internal server error; the server's log has the details"
    headers = dict(getattr(error, "headers", None) or {})
    if isinstance(error, Refusal):
        status, sentence = error.status, str(error)
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
    elif isinstance(error, HTTPException):
        status = error.status_code
        sentence = {
            404: "there is no such page; see /openapi.json for what there is",
            405: f"this address does not take {request.method}; see /openapi.json for what it takes",
        }.get(status, str(error.detail))
    if status == 408:
        headers["Connection"] = "close"
    if "text/html" in request.headers.get("accept", ""):
        return failure(request, status, sentence, headers)
    return JSONResponse({"error": sentence}, status, headers)


# -- around all of it ---------------------------------------------------------------------------------


class _Gate:
    """Token, limits of bodies, deadline of reading them, metrics, and a line of log for every request."""

    def __init__(self, app: Starlette, service: Service) -> None:
        self.app, self.service = app, service
        self._bytes = 0  # of the bodies that are held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status, mine, arrived = time.monotonic(), 500, 0, False
        limits = self.service.limits
        largest = self.service.largest(scope["path"])
        scope.setdefault("state", {})["note"] = ""

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        async def limited() -> Message:
            nonlocal mine, arrived
            if arrived:
                return await receive()
            try:
                with anyio.fail_after(max(0.0, begin + limits.deadline - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise Refusal(408, "the request did not arrive in time", "send it again") from None
            arrived = not message.get("more_body", False)
            size = len(message.get("body", b""))
            mine += size
            self._bytes += size
            if mine > largest:
                raise Refusal(413, f"the request is larger than {largest:,} bytes", "send fewer at once")
            if self._bytes > max(limits.bodies, largest):
                raise Refusal(429, "too many large requests are here already", "try again in 1 s", 1)
            return message

        request = Request(scope)
        try:
            try:
                answer = self._admitted(request)
            except Refusal as refusal:
                answer = _refused(request, refusal)
            if answer is None:
                await self.app(scope, limited, noted)
            else:
                await answer(scope, receive, noted)
        finally:
            self._bytes -= mine
            self._log(scope, status, time.monotonic() - begin)

    def _admitted(self, request: Request) -> Response | None:
        """What a request gets instead of an answer, or `Refusal`, if its headers say enough."""
        token, path = self.service.token, request.scope["path"]
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and path not in _OPEN and not self._known(given or request.cookies.get(COOKIE, "")):
            if path == "/" and self._known(request.query_params.get("token", "")):
                answer = RedirectResponse("./", 303)  # so that the token does not stay in the address
                secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
                answer.set_cookie(COOKIE, token, 30 * 86400, httponly=True, samesite="strict", secure=secure)
                return answer
            advice = "open /?token=TOKEN in a browser, or send the header Authorization: Bearer TOKEN"
            raise Refusal(401, "this server wants its token", advice)
        length, limit = request.headers.get("content-length", "0"), self.service.largest(path)
        if length.isdecimal() and int(length) > limit:
            raise Refusal(413, f"the request is larger than {limit:,} bytes", "send less")
        return None

    def _known(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.service.token.encode())

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        endpoint = scope.get("endpoint")
        route = getattr(endpoint, "__name__", "_static")[1:] if endpoint else "none"
        self.service.metrics.requests.labels(route, str(status)).inc()
        self.service.metrics.request_seconds.labels(route).observe(seconds)
        client = scope.get("client") or ("-",)
        path = scope.get("raw_path", b"").decode("ascii", "backslashreplace")  # as it came: one line
        note = scope["state"]["note"]
        LOG.info("%s %s %s %d %.1f ms %s", client[0], scope["method"], path, status, 1e3 * seconds, note)
