# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol, version 2, over HTTP: JSON tensors, and Triton's binary ones.

A network takes ``pixels``, uint8 [images, H, W, 3], and gives the tensors of `outputs`. Source: the
specification of the protocol's HTTP/REST, and Triton Inference Server's extensions (those in `EXTENSIONS`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

import rowvit
from rowvit.formats import tokens as answered
from rowvit.formats.description import violation
from rowvit.serve.metrics import Statistics
from rowvit.serve.networks import Network
from rowvit.serve.openapi import request_validator
from rowvit.serve.photos import check_size
from rowvit.serve.refusal import Refusal
from rowvit.targets.features import Features, features, most
from rowvit.targets.target import Result

EXTENSIONS = [
    *("binary_tensor_data", "classification"),
    *("model_configuration", "model_repository", "statistics"),
]
PLATFORM = "rowvit"
VERSION = "1"
HEADER = "Inference-Header-Content-Length"
PIXELS = "pixels"
_JSON = 4 << 20  # bytes: while JSON is read nothing else is done
_CONFIG_TYPES = {
    kind: f"TYPE_{'STRING' if kind == 'BYTES' else kind}"
    for kind in ("UINT8", "BOOL", "INT16", "INT64", "FP32", "BYTES")
}
#: bytes that a number of an answer takes, at most, while it is written: twice itself, or its text
_BINARY, _TEXT = 16, 48
_TYPES = {"UINT8": "u1", "BOOL": "?", "INT16": "<i2", "INT64": "<i8", "FP32": "<f4"}


@dataclass(frozen=True)
class Output:
    """A tensor that a network gives."""

    name: str
    datatype: str  #: as the protocol calls it
    shape: list[int]  #: of one image
    value: Callable[[Result], Any]  #: from a result, an array of that shape, or bytes


def outputs(network: Network, counted: bool) -> dict[str, Output]:
    """Tensors by name; ``cycles`` where they are ``counted``, that is not on golden."""
    arch = network.meta["architecture"]
    classes, prunings, tokens = len(network.meta["classes"]), len(network.meta["pruning"]), arch["tokens"]
    kind = "INT16" if arch["classes"] else "FP32"

    def alive(result: Result) -> np.ndarray:
        table = np.zeros((prunings, tokens), bool)
        for row, kept in zip(table, result.kept, strict=True):
            row[kept] = True
        return table

    found = [
        Output("probabilities", "FP32", [classes], lambda r: r.probabilities),
        Output("logits", kind, [classes], lambda r: r.logits),
        Output("class", "INT64", [1], lambda r: r.top1),
        Output("label", "BYTES", [1], lambda r: r.label.encode()),
    ]
    if not classes:
        found = []
    for layer in answered.layers(network.meta)[-1:]:
        count, dim = most(network.meta, layer), arch["dim"]

        def own(result: Result) -> Features:
            return features([result.tokens], network.meta)

        found += [
            Output("token", "FP32", [dim], lambda r: own(r).values[0, 0]),
            Output("tokens", "FP32", [count, dim], lambda r: own(r).values[0]),
            Output("token_indices", "INT64", [count], lambda r: own(r).indices[0]),
        ]
    if prunings:
        found.append(Output("alive", "BOOL", [prunings, tokens], alive))
    if counted:
        found.append(Output("cycles", "INT64", [1], lambda r: r.cycles))
    return {output.name: output for output in found}


def server_metadata() -> dict[str, Any]:
    return {"name": "rowvit", "version": rowvit.__version__, "extensions": EXTENSIONS}


def model_metadata(network: Network, counted: bool, frontend: str) -> dict[str, Any]:
    """What a client needs to know of the tensors."""
    return {
        "name": network.name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [{"name": PIXELS, "datatype": "UINT8", "shape": [-1, *_image_shape(network, frontend)]}],
        "outputs": [
            {"name": o.name, "datatype": o.datatype, "shape": [-1, *o.shape]}
            for o in outputs(network, counted).values()
        ],
    }


def model_config(network: Network, counted: bool, frontend: str, most: int) -> dict[str, Any]:
    """The same as Triton's configuration of a model, of which a request may have ``most`` images."""
    metadata = model_metadata(network, counted, frontend)

    def tensors(kind: str) -> list[dict[str, Any]]:
        return [
            {"name": t["name"], "data_type": _CONFIG_TYPES[t["datatype"]], "dims": t["shape"][1:]}
            for t in metadata[kind]
        ]

    return {
        "name": network.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": most,
        "input": tensors("inputs"),
        "output": tensors("outputs"),
    }


def wants_ready(body: bytes) -> bool:
    """Whether a request for the index is for networks alone that answer; `Refusal` 400 if it is none."""
    try:
        wanted = json.loads(body.strip() or b"{}")
    except (ValueError, RecursionError):
        wanted = None
    if not isinstance(wanted, dict) or not isinstance(wanted.get("ready"), bool | None):
        raise Refusal(400, "the request is for no index", 'send nothing, or {"ready": true}')
    return bool(wanted.get("ready"))


def repository_index(networks: Iterable[Network], trouble: str, ready: bool) -> list[dict[str, str]]:
    """Every network and whether it answers; ``trouble`` is why none does, or empty.

    Where ``ready`` ones alone are wanted, those that do not are left out.
    """
    if trouble and ready:
        return []
    state = "UNAVAILABLE" if trouble else "READY"
    return [{"name": n.name, "version": VERSION, "state": state, "reason": trouble} for n in networks]


def statistics(found: Iterable[Statistics]) -> dict[str, Any]:
    """What was answered, as Triton counts it; pixels come decoded, so that input and output take nothing."""
    found = [replace(one, batches=dict(one.batches)) for one in found]  # which the engine's thread adds to

    def spent(count: int, seconds: float) -> dict[str, int]:
        return {"count": count, "ns": round(1e9 * seconds)}

    def computed(count: int, seconds: float) -> dict[str, Any]:
        return {
            "compute_input": spent(count, 0.0),
            "compute_infer": spent(count, seconds),
            "compute_output": spent(count, 0.0),
        }

    return {
        "model_stats": [
            {
                "name": one.name,
                "version": VERSION,
                "last_inference": round(1e3 * one.last),
                "inference_count": one.images,
                "execution_count": sum(count // size for size, (count, _) in one.batches.items()),
                "inference_stats": {
                    "success": spent(one.images, one.took),
                    "fail": spent(one.failures, one.lost),
                    "queue": spent(one.images, one.waited),
                    **computed(one.images, sum(seconds for _, seconds in one.batches.values())),
                },
                "batch_stats": [
                    {"batch_size": size, **computed(count // size, seconds)}
                    for size, (count, seconds) in sorted(one.batches.items())
                ],
            }
            for one in found
        ]
    }


def _image_shape(network: Network, frontend: str) -> list[int]:
    """Of an image; -1 where the HLS front end takes any size."""
    return [-1, -1, 3] if frontend == "hls" else [*network.shape, 3]


# -- requests ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """An inference request that has been understood."""

    identifier: str  #: empty if the client gave none
    images: np.ndarray  #: uint8 [N, H, W, 3]
    #: which tensors, whether in binary, and of how many classes ("classification"; 0: the tensor itself)
    wanted: list[tuple[Output, bool, int]]
    seconds: float | None  #: that the client gives the server


def read_request(
    body: bytes, header_length: str | None, network: Network, counted: bool, frontend: str
) -> Request:
    """Understand an inference request.

    Parameters
    ----------
    body : bytes
        JSON, then the binary tensors.
    header_length : str or None
        Of the HTTP header `HEADER`: bytes of the JSON; "0" if the body is the pixels of one image.

    Raises
    ------
    Refusal
        400, for what is wrong with it; 413 for too much JSON.
    """
    if header_length is None:
        length = len(body)
    elif header_length.isdecimal() and len(header_length) < 10 and int(header_length) <= len(body):
        length = int(header_length)
    else:
        raise Refusal(
            400, f"{HEADER} is {header_length[:20]!r}, of a body of {len(body)} bytes", "correct it"
        )
    if header_length is not None and length == 0:
        shape = [1, *_image_shape(network, frontend)]
        if -1 in shape:
            raise Refusal(400, "pixels of no shape", f"describe them in JSON, with {HEADER}")
        wanted = [(output, True, 0) for output in outputs(network, counted).values()]
        return Request("", _binary(body, shape), wanted, None)
    if length > _JSON:
        raise Refusal(413, f"the request's JSON is larger than {_JSON:,} bytes", "send tensors in binary")
    try:
        message = json.loads(body[:length])
    except (ValueError, RecursionError) as error:
        raise Refusal(
            400, "the request is no JSON", f"send JSON, and with binary tensors its length as {HEADER}"
        ) from error
    if sentence := violation(request_validator(), message, "the request"):
        raise Refusal(400, sentence)
    parameters = message.get("parameters", {})
    timeout = parameters.get("timeout")
    return Request(
        message.get("id", ""),
        _images(message["inputs"], body[length:], network, frontend),
        _wanted(message, outputs(network, counted)),
        timeout / 1e6 if timeout else None,  # Triton's are microseconds
    )


def _images(inputs: list[dict[str, Any]], binary: bytes, network: Network, frontend: str) -> np.ndarray:
    if [tensor["name"] for tensor in inputs] != [PIXELS]:
        named = ", ".join(repr(tensor["name"][:40]) for tensor in inputs) or "none"
        raise Refusal(400, f"the inputs are {named}", f"{network.name} takes one, '{PIXELS}'")
    (tensor,) = inputs
    # by JSON's schema, 3.0 is an integer as well
    shape, expected = [*map(int, tensor["shape"])], _image_shape(network, frontend)
    fits = len(shape) == 4 and all(e in (-1, s) for e, s in zip(expected, shape[1:], strict=True))
    if tensor["datatype"] != "UINT8" or not fits or min(shape) < 1:
        sizes = ", ".join("any" if size == -1 else str(size) for size in expected)
        raise Refusal(
            400,
            f"input '{PIXELS}' is {tensor['datatype'][:10]} {shape[:8]}",
            f"{network.name} takes UINT8 [images, {sizes}]",
        )
    check_size(shape[2], shape[1], network.meta, frontend)
    size = tensor.get("parameters", {}).get("binary_data_size")
    if size is None:
        if "data" not in tensor:
            raise Refusal(400, f"input '{PIXELS}' has no data", "send 'data', or binary_data_size and bytes")
        if binary:
            raise Refusal(400, f"{len(binary)} bytes follow the JSON, but no input has them", "say whose")
        return _numbers(tensor["data"], shape)
    if size != len(binary):
        raise Refusal(
            400, f"{len(binary)} bytes follow the JSON, but inputs have {size}", "correct one of them"
        )
    return _binary(binary, shape)


def _binary(data: bytes, shape: list[int]) -> np.ndarray:
    if len(data) != math.prod(shape):
        raise Refusal(400, f"{len(data)} bytes are no tensor {shape}", f"send {math.prod(shape)}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _numbers(data: list, shape: list[int]) -> np.ndarray:
    """A tensor from JSON, flat or nested.

    NumPy alone would make an array of what is none, with room for its longest text in every element.
    """
    level: list[Any] = [data]
    for size in shape if data and isinstance(data[0], list) else [math.prod(shape)]:
        if not all(isinstance(part, list) and len(part) == size for part in level):
            raise Refusal(
                400, f"the data of input '{PIXELS}' does not have shape {shape}", "send it flat or nested"
            )
        level = [*chain.from_iterable(level)]
    if {*map(type, level)} != {int} or min(level) < 0 or max(level) > 255:
        raise Refusal(400, f"the data of input '{PIXELS}' is not UINT8", "send whole numbers from 0 to 255")
    return np.frombuffer(bytes(level), np.uint8).reshape(shape)


def _wanted(message: dict[str, Any], there: dict[str, Output]) -> list[tuple[Output, bool, int]]:
    binary = message.get("parameters", {}).get("binary_data_output", False)
    if not message.get("outputs"):
        return [(output, binary, 0) for output in there.values()]
    found: list[tuple[Output, bool, int]] = []
    for asked in message["outputs"]:
        if asked["name"] not in there:
            raise Refusal(400, f"there is no output '{asked['name'][:40]}'", f"use {', '.join(there)}")
        output, parameters = there[asked["name"]], asked.get("parameters", {})
        if any(output is other for other, _, _ in found):
            raise Refusal(400, f"output '{output.name}' is asked for twice", "ask once")
        count = int(parameters.get("classification", 0))
        if count and output.name not in ("probabilities", "logits"):
            raise Refusal(400, f"output '{output.name}' has no classes", "ask for those of probabilities")
        found.append((output, parameters.get("binary_data", binary), count))
    return found


# -- responses ----------------------------------------------------------------------------------------


def largest(request: Request) -> int:
    """Bytes that its answer takes while it is written, at most, but for labels."""
    numbers = [
        (math.prod(output.shape), _BINARY if binary and not count else _TEXT)
        for output, binary, count in request.wanted
    ]
    return len(request.images) * sum(count * size for count, size in numbers)


def write_response(network: Network, request: Request, results: Sequence[Result]) -> tuple[bytes, int | None]:
    """The body of the answer, and the length of the JSON in it if binary tensors follow."""
    described: list[str] = []
    binaries: list[bytes] = []
    for output, binary, count in request.wanted:
        values = [output.value(result) for result in results]
        datatype, shape = output.datatype, [len(results), *output.shape]
        if count:
            classes = network.meta["classes"]
            values = [_best(value, classes, count) for value in values]
            datatype, shape = "BYTES", [len(results), len(values[0])]
        tensor: dict[str, Any] = {"name": output.name, "datatype": datatype, "shape": shape}
        if datatype == "BYTES":
            texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
            raw = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
            rows: Iterable[list[Any]] = [[text.decode() for text in texts]]
        else:
            array = np.array(values, _TYPES[datatype]).reshape(shape)
            raw = array.tobytes() if binary else b""
            rows = (row.ravel().tolist() for row in array)  # of one image after the other: lists are large
        if binary:
            tensor["parameters"] = {"binary_data_size": len(raw)}
            binaries.append(raw)
            described.append(json.dumps(tensor))
        else:
            data = ", ".join(json.dumps(row)[1:-1] for row in rows)
            described.append(f'{json.dumps(tensor)[:-1]}, "data": [{data}]}}')
    answer = {"model_name": network.name, "model_version": VERSION}
    if request.identifier:
        answer["id"] = request.identifier
    header = f'{json.dumps(answer)[:-1]}, "outputs": [{", ".join(described)}]}}'.encode()
    return header + b"".join(binaries), len(header) if binaries else None


def _best(values: np.ndarray, classes: Sequence[Any], count: int) -> list[bytes]:
    """The largest values as "value:index:label"."""
    order = np.argsort(-values.astype(np.float64), kind="stable")[:count]
    return [f"{values[i]:f}:{i}:{classes[i]}".encode() for i in order]
