# SPDX-License-Identifier: Apache-2.0
"""Routes of lessons: photos in, class by class, then learning, and the taught package out.

What has learned is classified by as any network is, with the lesson's identifier for the name of the model.
"""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rowvit.serve.engine import ADDRESS
from rowvit.serve.lessons import Lesson, class_name, kept
from rowvit.serve.query import body, flag, picture, seconds
from rowvit.serve.refusal import Refusal
from rowvit.serve.service import Service
from rowvit.teach.lesson import NAME


def lesson_routes() -> list[Route]:
    lesson = "/lessons/{lesson}"
    return [
        Route("/models/{model}/lessons", _begin, methods=["POST"]),
        Route(lesson, _lesson, methods=["GET"]),
        Route(lesson, _forget, methods=["DELETE"]),
        Route(f"{lesson}/photos", _show, methods=["POST"]),
        Route(f"{lesson}/photos", _rename, methods=["PATCH"]),
        Route(f"{lesson}/photos", _drop, methods=["DELETE"]),
        Route(f"{lesson}/photos/{{photo}}", _remove, methods=["DELETE"]),
        Route(f"{lesson}/learn", _learn, methods=["POST"]),
        Route(f"{lesson}/package", _package, methods=["GET"]),
    ]


def _addressed(request: Request) -> tuple[Service, Lesson]:
    """The lesson that the path names."""
    service: Service = request.app.state.service
    return service, service.lessons.find(request.path_params["lesson"])


def _label(request: Request, name: str = "class") -> str:
    return class_name(request.query_params.get(name, ""))


def _said(service: Service, lesson: Lesson, status: int = 200) -> Response:
    return JSONResponse(lesson.document(service.lessons.clock()), status)


async def _begin(request: Request) -> Response:
    service: Service = request.app.state.service
    network = service.served(request.path_params["model"])
    data = await body(request)
    before = await service.beside(kept, network, data) if data else None
    return _said(service, service.lessons.open(network, before, ADDRESS.get()), 201)


async def _lesson(request: Request) -> Response:
    return _said(*_addressed(request))


async def _forget(request: Request) -> Response:
    service, lesson = _addressed(request)
    service.lessons.close(lesson.identifier)
    return Response(status_code=204)


async def _show(request: Request) -> Response:
    service, lesson = _addressed(request)
    label, deadline = _label(request), service.deadline(seconds(request))
    recording = request.query_params.get("recording", "")
    if len(recording) > NAME:
        raise Refusal(400, f"recording has {len(recording)} characters", f"use at most {NAME}")
    with lesson.place(label):
        service.lessons.room(lesson.photo)
        data, _ = await picture(request)
        (one,) = await service.classify([lesson.network.name], data, deadline)
        service.lessons.find(lesson.identifier)  # it may have been forgotten meanwhile
        number = lesson.add(label, one.answer.result, one.pixels, recording)
    request.state.note = f"model={lesson.network.name} images=1 batch={one.answer.result.batch}"
    return JSONResponse({"photo": number, "label": label}, 201)


async def _rename(request: Request) -> Response:
    service, lesson = _addressed(request)
    lesson.rename(_label(request), _label(request, "name"))
    return _said(service, lesson)


async def _drop(request: Request) -> Response:
    service, lesson = _addressed(request)
    for number in lesson.of(_label(request)):
        lesson.remove(number)
    return _said(service, lesson)


async def _remove(request: Request) -> Response:
    service, lesson = _addressed(request)
    number = request.path_params["photo"]
    lesson.remove(int(number) if number.isdecimal() and len(number) < 10 else -1)
    return _said(service, lesson)


async def _learn(request: Request) -> Response:
    service, lesson = _addressed(request)
    await service.learn(lesson, service.deadline(seconds(request)))
    return _said(service, lesson)


async def _package(request: Request) -> Response:
    service, lesson = _addressed(request)
    name = class_name(request.query_params.get("name", f"{lesson.network.name}-taught"))
    package = lesson.package(name, flag(request, "keep", True))
    size = sum(tensor.nbytes for tensor in package.tensors.values())
    await request.state.answers(2 * size)  # it is there twice while it is encoded
    data = await service.beside(package.encode, name)
    file = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "taught"
    headers = {"Content-Disposition": f'attachment; filename="{file}.safetensors"'}
    return Response(data, headers=headers, media_type="application/octet-stream")
