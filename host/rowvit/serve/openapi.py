# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document of the routes for programs; requests are checked with its schema."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import fastjsonschema

import rowvit
from rowvit.formats.work import WORK


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


def _all(**properties: Any) -> dict[str, Any]:
    """An object whose properties are all required."""
    return _object(" ".join(properties), **properties)


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


TEXT, NUMBER, INTEGER, TRUTH = ({"type": t} for t in ("string", "number", "integer", "boolean"))
_MOST = 2**53  # that every language's numbers hold
_SIZE = {"type": "integer", "minimum": 0, "maximum": _MOST}
_SIDE = {"type": "integer", "minimum": -1, "maximum": _MOST}
_DATA = {"type": "array", "description": "Flat or nested; left out if the tensor follows in binary"}


def _tensors(**more: Any) -> dict[str, Any]:
    tensor = _object("name datatype shape", name=TEXT, datatype=TEXT, shape=_list(_SIDE), **more)
    return _list(tensor)


_METADATA = _tensors()
_TENSORS = _tensors(parameters=_object(binary_data_size=_SIZE), data=_DATA)
_CONFIGURED = _list(_all(name=TEXT, data_type=TEXT, dims=_list(INTEGER)))
_SPENT = _all(count=INTEGER, ns=INTEGER)
_COMPUTED = dict(compute_input=_SPENT, compute_infer=_SPENT, compute_output=_SPENT)
_COUNTED = {"type": ["integer", "null"], "description": "null for images that shared a start of the core"}

SCHEMAS: dict[str, Any] = {
    "Error": _all(error={"type": "string", "description": "What is wrong, and what to do"}),
    "ServerMetadata": _all(name=TEXT, version=TEXT, extensions=_list(TEXT)),
    "ModelMetadata": _object(
        "name platform inputs outputs",
        name=TEXT,
        versions=_list(TEXT),
        platform=TEXT,
        inputs=_METADATA,
        outputs=_METADATA,
    ),
    "Models": _all(models=_list(TEXT)),
    "ModelConfig": _all(
        name=TEXT,
        platform=TEXT,
        backend=TEXT,
        version_policy=_object(),
        max_batch_size={"type": "integer", "description": "Images of a request, at most"},
        input=_CONFIGURED,
        output=_CONFIGURED,
    ),
    "RepositoryIndex": _list(
        _all(name=TEXT, version=TEXT, state={"enum": ["READY", "UNAVAILABLE"]}, reason=TEXT)
    ),
    "Statistics": _all(
        model_stats=_list(
            _all(
                name=TEXT,
                version=TEXT,
                last_inference={"type": "integer", "description": "Milliseconds since 1970"},
                inference_count={"type": "integer", "description": "Images"},
                execution_count={"type": "integer", "description": "Starts of the core"},
                inference_stats=_all(success=_SPENT, fail=_SPENT, queue=_SPENT, **_COMPUTED),
                batch_stats=_list(_all(batch_size=INTEGER, **_COMPUTED)),
            )
        )
    ),
    "Ready": _object("ready", name=TEXT, ready=TRUTH),
    "InferRequest": _object(
        "inputs",
        id=TEXT,
        parameters=_object(
            binary_data_output=TRUTH,
            timeout={**_SIZE, "description": "Microseconds until the answer"},
        ),
        inputs=_TENSORS,
        outputs=_list(
            _object("name", name=TEXT, parameters=_object(binary_data=TRUTH, classification=_SIZE))
        ),
    ),
    "InferResponse": _object(
        "model_name outputs",
        model_name=TEXT,
        model_version=TEXT,
        id=TEXT,
        outputs=_TENSORS,
    ),
    "Answer": _object(
        "model target evidence config label classes logits tokens work latency batch notes rowvit",
        model=TEXT,
        target={"enum": ["golden", "sim", "board"]},
        evidence={"type": "string", "description": "What computed it"},
        config=_all(name=TEXT, hash=TEXT, clock_mhz=NUMBER),
        label=TEXT,
        classes=_list(_all(label=TEXT, index=INTEGER, probability=NUMBER)),
        logits=_list(NUMBER),  # of a head on the host no integers
        tokens=_all(
            input=INTEGER,
            pruned=_list(_all(layer=INTEGER, alive=INTEGER, kept=_list(INTEGER))),
        ),
        work=_all(**dict.fromkeys(WORK, _COUNTED)),
        latency=_all(
            ms=NUMBER,
            basis={"type": "string", "description": "The clock behind ms"},
            queue_ms=NUMBER,
            answer_ms=NUMBER,
        ),
        batch={"type": "integer", "description": "Images of the start that ran this one"},
        notes={"description": "About the picture: without colours, or several frames", **_list(TEXT)},
        rowvit=TEXT,
        photo={"type": "string", "description": "The name of the file, of a form"},
        verdict={"type": "string", "description": "The label, or that it is like no class"},
        distance={"type": "number", "description": "From the classes; above 1 it is like none"},
        cycles=_all(
            total=INTEGER,
            source=TEXT,
            layers=_list(_all(name=TEXT, cycles=INTEGER)),
        ),
        bit_exact={"type": "boolean", "description": "Equal to the integer reference; with explain"},
        attention={
            "description": "Of the class token, mean over the heads, by the integer reference; with explain",
            **_list(_all(layer=INTEGER, tokens=_list(INTEGER), share=_list(NUMBER))),
        },
    ),
    "Lesson": _all(
        lesson={
            "type": "string",
            "description": "Its identifier; also the model's name, once it has learned",
        },
        model={"type": "string", "description": "The network that is taught"},
        classes=_list(_all(label=TEXT, photos=INTEGER)),
        photos=INTEGER,
        expires={"type": "number", "description": "Seconds after which it is gone, unless somebody asks"},
        learning={"type": "boolean", "description": "Whether it learns now, or waits to"},
        learned={"anyOf": [_ref("Learned"), {"type": "null"}]},
    ),
    "Learned": {
        "description": "By cross-validation: each photo judged by a head that had not seen its recording, or,"
        " where its class has one recording only, that had not seen the photo",
        **_all(
            photos=INTEGER,
            recordings={
                "type": "integer",
                "description": "Photos that were not taken together, or are equal",
            },
            right=INTEGER,
            share={
                "description": "That is right, as the mean of the classes, in each of which every recording"
                " counts the same; without those of `alone`, and null where there is no other",
                "anyOf": [NUMBER, {"type": "null"}],
            },
            interval={
                "description": "95 %, of that share",
                "anyOf": [_list(NUMBER), {"type": "null"}],
            },
            alone={
                "description": "Classes of one recording: how well new photos are right is not known",
                **_list(TEXT),
            },
            classes=_list(_all(label=TEXT, photos=INTEGER, right=INTEGER)),
            confused={
                "description": "The two classes that are taken for each other most often",
                "anyOf": [
                    _all(labels=_list(TEXT), count=INTEGER, photos=_list(_ref("JudgedPhoto"))),
                    {"type": "null"},
                ],
            },
            weakest={"type": ["string", "null"], "description": "Class of which the fewest are right"},
            doubtful={"description": "Photos that may be of another class", **_list(_ref("JudgedPhoto"))},
            solver={"enum": ["logistic", "ridge"]},
            seconds=NUMBER,
        ),
    },
    "JudgedPhoto": _all(photo=INTEGER, label=TEXT, guess=TEXT, probability=NUMBER),
    "ShownPhoto": _all(photo={"type": "integer", "description": "Its number"}, label=TEXT),
}

_MODEL = {"name": "model", "in": "path", "required": True, "schema": TEXT}
_VERSION = {"name": "version", "in": "path", "required": True, "schema": TEXT}
_LESSON = {"name": "lesson", "in": "path", "required": True, "schema": TEXT}
_PHOTO = {"name": "photo", "in": "path", "required": True, "schema": INTEGER}
_CLASS = {"name": "class", "in": "query", "required": True, "schema": TEXT}
_RECORDING = {
    "name": "recording",
    "in": "query",
    "description": "A text that photos have in common that were taken together, as frames of a camera are",
    "schema": TEXT,
}
_LENGTH = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "Bytes of JSON before the binary tensors; 0: the body is the pixels of one image",
    "schema": _SIZE,
}
_EXPLAIN = {
    "name": "explain",
    "in": "query",
    "description": "Also attention, comparison with the reference, and on golden predicted cycles",
    "schema": TRUTH,
}
_TIMEOUT = {"name": "timeout", "in": "query", "description": "Seconds until the answer", "schema": NUMBER}
_ANY = {"schema": {"type": "string", "format": "binary"}}
_BYTES = "application/octet-stream"
_REFUSALS = {
    "400": "It cannot be understood",
    "401": "It lacks the token",
    "404": "There is no such model, lesson, class or photo",
    "408": "It did not arrive in time",
    "409": "The network cannot be taught, or the lesson is not so far",
    "413": "It is too large",
    "415": "It is no picture",
    "429": "The queue is full; Retry-After says when to try again",
    "503": "The core failed, the server is stopping, or lessons have no room",
    "504": "No answer within the deadline",
}


def _answers(schema: str, refusals: str = "", **others: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(schema)}, **others}
    return {"200": {"description": "OK", "content": content}} | _refused(refusals)


def _refused(refusals: str) -> dict[str, Any]:
    error = {"application/json": {"schema": _ref("Error")}}
    return {status: {"description": _REFUSALS[status], "content": error} for status in refusals.split()}


def _get(summary: str, responses: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"summary": summary, "parameters": list(parameters), "responses": responses}}


def _versions(path: str, operation: str, item: dict[str, Any]) -> dict[str, Any]:
    """A path of a model, and the same of one version."""
    versioned = {operation: item[operation] | {"parameters": [*item[operation]["parameters"], _VERSION]}}
    return {
        f"/v2/models/{{model}}{path}": item,
        f"/v2/models/{{model}}/versions/{{version}}{path}": versioned,
    }


def _post(summary: str, body: dict[str, Any], schema: str, other: str, *parameters: Any) -> dict[str, Any]:
    """``other`` is the answer's media type besides JSON."""
    responses = _answers(schema, "400 401 404 408 409 413 415 429 503 504", **{other: _ANY})
    content = {**body, _BYTES: _ANY}
    operation = {"summary": summary, "parameters": list(parameters), "responses": responses}
    return {"post": operation | {"requestBody": {"required": True, "content": content}}}


def _lesson(
    summary: str,
    schema: str,
    refusals: str,
    *parameters: dict[str, Any],
    status: str = "200",
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """An operation on a lesson."""
    done: dict[str, Any] = {"description": "Done"}
    if schema:
        done |= {"content": {"application/json": {"schema": _ref(schema)}}}
    found: dict[str, Any] = {"summary": summary, "parameters": list(parameters)}
    if body is not None:
        found["requestBody"] = body
    return found | {"responses": {status: done} | _refused(f"401 404 {refusals}")}


def _lesson_paths() -> dict[str, Any]:
    package = {"required": False, "content": {_BYTES: _ANY}}
    photo = {"required": True, "content": {"image/*": _ANY, _BYTES: _ANY}}
    begun = "Begin a lesson; with a package that a lesson or rowvit teach --keep has made, go on from it"
    heavy = "400 408 413 415 429 503 504"
    new = {"name": "name", "in": "query", "required": True, "schema": TEXT}
    named = {"name": "name", "in": "query", "description": "Of the network", "schema": TEXT}
    keep = {
        "name": "keep",
        "in": "query",
        "description": "Also what it has seen of the photos, by which a lesson can go on; by default true",
        "schema": TRUTH,
    }
    taught = {"200": {"description": "The taught network", "content": {_BYTES: _ANY}}}
    return {
        "/models/{model}/lessons": {
            "post": _lesson(begun, "Lesson", "400 408 409 413 429 503", _MODEL, status="201", body=package)
        },
        "/lessons/{lesson}": {
            "get": _lesson("What a lesson has", "Lesson", "", _LESSON),
            "delete": _lesson("Forget a lesson", "", "", _LESSON, status="204"),
        },
        "/lessons/{lesson}/photos": {
            "post": _lesson(
                "Show a lesson a photo of a class",
                "ShownPhoto",
                heavy,
                *(_LESSON, _CLASS, _RECORDING, _TIMEOUT),
                status="201",
                body=photo,
            ),
            "patch": _lesson("Rename a class", "Lesson", "400", _LESSON, _CLASS, new),
            "delete": _lesson("Forget a class", "Lesson", "400", _LESSON, _CLASS),
        },
        "/lessons/{lesson}/photos/{photo}": {
            "delete": _lesson("Forget a photo", "Lesson", "", _LESSON, _PHOTO)
        },
        "/lessons/{lesson}/learn": {
            "post": _lesson("Learn from the photos", "Lesson", "400 409 429 504", _LESSON, _TIMEOUT)
        },
        "/lessons/{lesson}/package": {
            "get": {
                "summary": "The taught network, as rowvit run and a later lesson take it",
                "parameters": [_LESSON, named, keep],
                "responses": taught | _refused("400 401 404 409 429 503"),
            }
        },
    }


@cache
def openapi() -> dict[str, Any]:
    """The document."""
    plain = {"200": {"description": "OK", "content": {"text/plain": {"schema": TEXT}}}}
    infer = _post(
        "Classify pixels (Open Inference Protocol v2)",
        {"application/json": {"schema": _ref("InferRequest")}},
        "InferResponse",
        _BYTES,
        *(_MODEL, _LENGTH),
    )
    summary = "Classify a picture; with Accept: image/png the answer is drawn"
    classify = _post(summary, {"image/*": _ANY}, "Answer", "image/png", _MODEL, _EXPLAIN, _TIMEOUT)
    live = {"get": {"summary": "Whether the server runs", "responses": _answers("Ready")}}
    ready = {"get": {"summary": "Whether the core answers", "responses": _answers("Ready", "503")}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rowvit",
            "version": rowvit.__version__,
            "summary": "Vision transformers on the rowvit accelerator",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v2/health/live": live,
            "/v2/health/ready": ready,
            "/v2": _get("What this server is", _answers("ServerMetadata", "401")),
            **_versions("", "get", _get("Tensors of a model", _answers("ModelMetadata", "401 404"), _MODEL)),
            **_versions(
                "/ready", "get", _get("Whether a model can be used", _answers("Ready", "401 404 503"), _MODEL)
            ),
            **_versions("/config", "get", _get("Configuration", _answers("ModelConfig", "401 404"), _MODEL)),
            **_versions("/stats", "get", _get("What it answered", _answers("Statistics", "401 404"), _MODEL)),
            "/v2/models": _get("Names of the models", _answers("Models", "401")),
            "/v2/models/stats": _get("What all models answered", _answers("Statistics", "401")),
            "/v2/repository/index": {
                "post": {
                    "summary": "All models, and whether they answer",
                    "requestBody": {
                        "required": False,
                        "content": {"application/json": {"schema": _object(ready=TRUTH)}},
                    },
                    "responses": _answers("RepositoryIndex", "400 401 408 413 415 429"),
                }
            },
            **_versions("/infer", "post", infer),
            "/models/{model}/classify": classify,
            **_lesson_paths(),
            "/metrics": _get("Metrics for Prometheus", plain),
            "/openapi.json": _get("This document", {"200": {"description": "OK"}}),
        },
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


@cache
def request_validator() -> Callable[[Any], Any]:
    """Checks an inference request; raises as fastjsonschema does."""
    return fastjsonschema.compile({"components": {"schemas": SCHEMAS}, **_ref("InferRequest")})
