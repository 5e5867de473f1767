# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: the routes for programs, and how errors are said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from rowvit.serve import cards, protocol
from rowvit.serve.answers import Explanation
from rowvit.serve.gate import LEFT, Gate
from rowvit.serve.networks import Network
from rowvit.serve.openapi import openapi
from rowvit.serve.page import failure, page_routes, source
from rowvit.serve.query import body, flag, picture, seconds
from rowvit.serve.refusal import Refusal
from rowvit.serve.service import Classified, Service
from rowvit.serve.teach import lesson_routes

_LARGE = 1_000_000  # bytes of tensors that count while they are written, and not only when they go out


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
        exception_handlers=dict.fromkeys((Refusal, HTTPException, ClientDisconnect, 500), _refused),
    )
    app.state.service = service
    return Gate(app, service, _refused)


# -- programs -----------------------------------------------------------------------------------------


def _program_routes() -> list[Route]:
    versions = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    return [
        Route("/v2/health/live", _live),
        Route("/v2/health/ready", _ready),
        Route("/v2", _server),
        Route("/v2/models", _models),
        Route("/v2/models/stats", _all_statistics),
        Route("/v2/repository/index", _index, methods=["POST"]),
        Route("/v2/repository/models/{model}/{change:path}", _fixed, methods=["POST"]),
        *(Route(path, _model) for path in versions),
        *(Route(f"{path}/config", _config) for path in versions),
        *(Route(f"{path}/stats", _statistics) for path in versions),
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
    described = _as_asked(request, network)
    return JSONResponse(protocol.model_metadata(described, _counted(service), service.frontend))


async def _models(request: Request) -> Response:
    return JSONResponse({"models": list(request.app.state.service.networks)})


async def _index(request: Request) -> Response:
    service: Service = request.app.state.service
    ready = protocol.wants_ready(await body(request))
    return JSONResponse(protocol.repository_index(service.networks.values(), service.engine.trouble, ready))


async def _fixed(request: Request) -> Response:
    raise Refusal(400, "networks are loaded when the server starts, and stay", "name them to rowvit serve")


async def _config(request: Request) -> Response:
    service, network = await _addressed(request)
    described, most = _as_asked(request, network), service.engine.limit
    return JSONResponse(protocol.model_config(described, _counted(service), service.frontend, most))


async def _statistics(request: Request) -> Response:
    service, network = await _addressed(request)
    if network.name not in service.networks:
        raise Refusal(404, "a lesson has no statistics of its own", "ask for those of the network it teaches")
    return JSONResponse(protocol.statistics([service.metrics.statistics(network.name)]))


async def _all_statistics(request: Request) -> Response:
    service: Service = request.app.state.service
    return JSONResponse(protocol.statistics(map(service.metrics.statistics, service.networks)))


async def _model_ready(request: Request) -> Response:
    service, network = await _addressed(request)
    return _whether_ready(service, name=_as_asked(request, network).name)


async def _addressed(request: Request, deadline: float | None = None) -> tuple[Service, Network]:
    """The network that the path names, by the deadline."""
    service: Service = request.app.state.service
    network = await service.network(request.path_params["model"], deadline)
    version = request.path_params.get("version", protocol.VERSION)
    if version != protocol.VERSION:
        raise Refusal(404, f"{network.name} has no version '{version[:20]}'", f"use {protocol.VERSION}")
    return service, network


def _as_asked(request: Request, network: Network) -> Network:
    """A network, called as the path does: what a lesson has taught is found by the lesson's identifier."""
    return replace(network, name=request.path_params["model"])


async def _infer(request: Request) -> Response:
    begin = request.app.state.service.deadline()
    service, network = await _addressed(request, begin)
    header = request.headers.get(protocol.HEADER)
    asked = protocol.read_request(await body(request), header, network, _counted(service), service.frontend)
    entered = time.monotonic()
    try:
        with service.engine.place(len(asked.images)) as place:
            deadline = min(begin, service.deadline(asked.seconds))
            answers = await service.engine.classify(network, list(asked.images), deadline, place)
    except Refusal:
        service.metrics.failed(network.name, time.monotonic() - entered)
        raise
    request.state.note = f"model={network.name} images={len(answers)} batch={answers[0].result.batch}"
    results = [answer.result for answer in answers]
    write = partial(protocol.write_response, _as_asked(request, network), asked, results)
    if (size := protocol.largest(asked)) > _LARGE:
        await request.state.answers(size)
        content, length = await asyncio.to_thread(write)
    else:
        content, length = write()
    if length is None:
        return Response(content, media_type="application/json")
    return Response(content, headers={protocol.HEADER: str(length)}, media_type="application/octet-stream")


async def _classify(request: Request) -> Response:
    deadline = request.app.state.service.deadline(seconds(request))
    service, network = await _addressed(request, deadline)
    explained = flag(request, "explain")
    drawn = "image/png" in request.headers.get("accept", "")
    data, photo = await picture(request)
    (one,) = await service.classify([request.path_params["model"]], data, deadline)
    explanation = await service.explain(one, deadline) if explained or drawn else None
    request.state.note = f"model={network.name} images=1 batch={one.answer.result.batch}"
    document = service.document(one, explanation, photo)
    if not drawn:
        return JSONResponse(document)
    shown = await service.within(deadline, service.beside(cards.shown, data, one, service.frontend))
    png = await service.within(deadline, service.beside(_card, shown, one, explanation, source(document)))
    return Response(png, media_type="image/png")


def _card(shown: Image.Image, one: Classified, explanation: Explanation | None, line: str) -> bytes:
    with cards.room(shown, one):
        return cards.card(shown, one, explanation, line)


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
    elif isinstance(error, ClientDisconnect):
        status, sentence = LEFT, "the client left before its request was here"
    sentence = sentence.encode(errors="backslashreplace").decode()  # it may quote what UTF-8 cannot say
    if status == 408:
        headers["Connection"] = "close"
    if "text/html" in request.headers.get("accept", ""):
        return failure(request, status, sentence, headers)
    return JSONResponse({"error": sentence}, status, headers)
