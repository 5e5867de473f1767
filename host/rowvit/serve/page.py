# SPDX-License-Identifier: Apache-2.0
"""The page: rendered here, so that it works without scripts; ``page.js`` adds camera, drop and slider."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

import rowvit
from rowvit.measure.draw.plots import number
from rowvit.measure.speed.throughput import BASIS
from rowvit.photos import readable
from rowvit.serve import cards
from rowvit.serve.answers import EVIDENCE, Explanation
from rowvit.serve.metrics import WINDOW
from rowvit.serve.query import form, named
from rowvit.serve.refusal import Refusal
from rowvit.teach.lesson import FEWEST

if TYPE_CHECKING:
    from rowvit.serve.networks import Network
    from rowvit.serve.service import Classified, Service

HERE = Path(__file__).parent
#: of requests by the script, which wants only the part that changes
PART = "x-part"
_FRAME = 320  # pixels of a camera frame's longer side


def page_routes() -> list[BaseRoute]:
    return [
        Route("/", _page, methods=["GET"]),
        Route("/", _answer, methods=["POST"]),
        Route("/now", _now),
        Route("/examples/{model}/{index}", _example),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["readable"] = readable
    environment.filters["uri"] = _uri
    return environment


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _render(
    request: Request, part: str, status: int = 200, headers: dict | None = None, **values: Any
) -> Response:
    """A part of the page if the script asks, else all of it."""
    if not request.headers.get(PART):
        service: Service = request.app.state.service
        known = dict(
            part=part,
            chosen=request.scope["state"].get("chosen") or [next(iter(service.networks)), ""],
            networks=list(service.networks.values()),
            teachable=[network for network in service.networks.values() if network.backbone],
            lessons=service.limits.lessons,
            fewest=FEWEST,
            ratio=_ratio(service.networks.values()),
            base=str(request.base_url),
            evidence=EVIDENCE[service.target_name],
            target=service.target_name,
            config=service.config,
            version=rowvit.__version__,
        )
        part, values = "page", known | _figures(service) | values
    return HTMLResponse(_templates().get_template(f"{part}.html.j2").render(values), status, headers)


def _ratio(networks: Iterable[Network]) -> str:
    """Width over height of the part of a camera's frame that is sent; empty if networks differ: all of it."""
    ratios = {Fraction(width, height) for height, width in (network.shape for network in networks)}
    return str(float(ratios.pop())) if len(ratios) == 1 else ""


def failure(request: Request, status: int, sentence: str, headers: dict[str, str]) -> Response:
    """An error as the page shows it; alone, for those who may not see the page, and where it is not."""
    if not request.headers.get(PART) and ("app" not in request.scope or request.scope["path"] != "/"):
        alone = _templates().get_template("alone.html.j2").render(sentence=sentence)
        return HTMLResponse(alone, status, headers)
    return _render(request, "failure", status, headers, sentence=sentence)


async def _page(request: Request) -> Response:
    return _render(request, "nothing")


async def _now(request: Request) -> Response:
    return HTMLResponse(
        _templates().get_template("now.html.j2").render(**_figures(request.app.state.service))
    )


def _figures(service: Service) -> dict[str, Any]:
    """What the page says of the last seconds."""
    return {
        "now": service.metrics.now(),
        "window": WINDOW,
        "basis": BASIS[service.target_name],
        "simulated": service.target_name == "sim",
        "ready": service.engine.ready,
        "trouble": service.engine.trouble,
        "held": service.engine.held,
        "limit": service.engine.limit,
        "power": service.power,
    }


async def _example(request: Request) -> Response:
    network = request.app.state.service.served(request.path_params["model"])
    photo = network.example(request.path_params["index"])
    return FileResponse(photo, headers={"Cache-Control": "max-age=3600"})


async def _answer(request: Request) -> Response:
    service: Service = request.app.state.service
    deadline = service.deadline()
    async with form(request) as fields:
        names = [str(fields.get("model") or next(iter(service.networks))), str(fields.get("other") or "")]
        request.scope["state"]["chosen"] = names
        file = fields.get("photo")
        data, photo = (await file.read(), named(file)) if isinstance(file, UploadFile) else (b"", "")
        example, frame = str(fields.get("example") or ""), str(fields.get("frame") or "")
    if example:  # which is sent where its button was pressed
        name, _, index = example.rpartition("/")
        path = service.served(name).example(index)
        data, photo = path.read_bytes(), readable(path.name)
    wanted = list(dict.fromkeys(filter(None, names)))
    found = await service.classify(wanted, data, deadline)
    result = found[0].answer.result
    models = ",".join(one.network.name for one in found)
    request.scope["state"]["note"] = f"model={models} images={len(found)} batch={result.batch}"
    columns = [await _column(service, data, one, frame, "" if frame else photo, deadline) for one in found]
    cycled = [column["document"].get("cycles", {}).get("layers", ()) for column in columns]
    return _render(
        request,
        "answer",
        columns=columns,
        most=max((layer["cycles"] for layers in cycled for layer in layers), default=1),  # of both networks
        simulated=service.target_name == "sim",
    )


async def _column(
    service: Service, data: bytes, one: Classified, frame: str, photo: str, deadline: float
) -> dict[str, Any]:
    """By the deadline; what the integer reference adds may be missing, and is said to be."""
    explanation = None
    if not frame:
        try:
            explanation = await service.explain(one, deadline)
        except Refusal as refusal:
            one.said.append(f"attention is left out: {refusal}")
    drawing = service.beside(_draw, service, data, one, explanation, frame, photo)
    return await service.within(deadline, drawing)


def _draw(
    service: Service, data: bytes, one: Classified, explanation: Explanation | None, frame: str, photo: str
) -> dict[str, Any]:
    """In a thread: pictures and downloads; of a camera's frame only the layer that is looked at."""
    document = service.document(one, explanation, photo)
    seen = cards.shown(data, one, service.frontend, _FRAME if frame else cards.SIDE)
    with cards.room(seen, one):
        return _drawn(document, seen, one, explanation, frame)


def _drawn(
    document: dict[str, Any],
    seen: Image.Image,
    one: Classified,
    explanation: Explanation | None,
    frame: str,
) -> dict[str, Any]:
    """Of the photo as the network has ``seen`` it."""
    left = cards.left(seen, one)
    last = one.network.meta["architecture"]["depth"] - 1
    at = cards.telling(one)
    column = dict(document=document, last=last, at=at, photo=cards.PHOTO)
    column |= dict(watched=(), json=b"", png=b"")
    if frame:
        try:
            layer = min(max(int(frame[:4]), cards.PHOTO), last)
        except ValueError:
            layer = at
        return column | {"left": cards.packed(step for step in left if step.first <= layer <= step.last)}
    return column | {
        "left": cards.packed(left),
        "watched": cards.packed(cards.watched(seen, one, explanation) if explanation else ()),
        "json": json.dumps(document, indent=1).encode(),
        "png": cards.card(seen, one, explanation, source(document)),
    }


def source(document: dict[str, Any]) -> str:
    """A line about where an answer comes from."""
    latency = f"{document['latency']['ms']:.3g} ms ({document['latency']['basis']})"
    return f"{document['model']} on {document['config']['name']}, {document['evidence']}; {latency}"
