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
_SIZE = {"type": "integer", "minimum": 0}
_DATA = {"type": "array", "description": "Flat or nested; left out if the tensor follows in binary"}


def _tensors(**more: Any) -> dict[str, Any]:
    tensor = _object("name datatype shape", name=TEXT, datatype=TEXT, shape=_list(INTEGER), **more)
    return _list(tensor)


_METADATA = _tensors()
_TENSORS = _tensors(parameters=_object(binary_data_size=_SIZE), data=_DATA)
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
    "Ready": _object("ready", name=TEXT, ready=TRUTH),
    "InferRequest": _object(
        "inputs",
        id=TEXT,
        parameters=_object(
            binary_data_output=TRUTH,
            timeout={"type": "integer", "minimum": 0, "description": "Microseconds until the answer"},
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
        "model target evidence config label classes logits tokens work latency batch rowvit",
        model=TEXT,
        target={"enum": ["golden", "sim", "board"]},
        evidence={"type": "string", "description": "What computed it"},
        config=_all(name=TEXT, hash=TEXT, clock_mhz=NUMBER),
        label=TEXT,
        classes=_list(_all(label=TEXT, index=INTEGER, probability=NUMBER)),
        logits=_list(INTEGER),
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
        rowvit=TEXT,
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
}

_MODEL = {"name": "model", "in": "path", "required": True, "schema": TEXT}
_VERSION = {"name": "version", "in": "path", "required": True, "schema": TEXT}
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
    "404": "There is no such model",
    "408": "It did not arrive in time",
    "413": "It is too large",
    "415": "It is no picture",
    "429": "The queue is full; Retry-After says when to try again",
    "503": "The core failed, or the server is stopping",
    "504": "No answer within the deadline",
}


def _answers(schema: str, refusals: str = "", **others: Any) -> dict[str, Any]:
    error = {"application/json": {"schema": _ref("Error")}}
    found = {
        "200": {"description": "OK", "content": {"application/json": {"schema": _ref(schema)}, **others}}
    }
    return found | {s: {"description": _REFUSALS[s], "content": error} for s in refusals.split()}


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
    responses = _answers(schema, "400 401 404 408 413 415 429 503 504", **{other: _ANY})
    content = {**body, _BYTES: _ANY}
    operation = {"summary": summary, "parameters": list(parameters), "responses": responses}
    return {"post": operation | {"requestBody": {"required": True, "content": content}}}


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
            **_versions("/infer", "post", infer),
            "/models/{model}/classify": classify,
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
