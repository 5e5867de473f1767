# SPDX-License-Identifier: Apache-2.0
"""Heads that the host computes from tokens, in float32: a pooling, then steps from a table.

Equal tokens give equal results in one process; between machines, and between processes with more or fewer
threads, they differ in the last digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.formats.head import ROW_HEADS
from rowvit.formats.tokens import Tokens

Tensors = Callable[[str], NDArray[Any]]  # by the end of a name
Step = Mapping[str, Any]


def _linear(x: NDArray[Any], tensors: Tensors, step: Step) -> NDArray[Any]:
    weight, bias = _own(tensors, step["name"])
    found: NDArray[Any] = x @ weight + bias
    return found


def _layernorm(x: NDArray[Any], tensors: Tensors, step: Step) -> NDArray[Any]:
    weight, bias = _own(tensors, step["name"])
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(step["eps"]))
    found: NDArray[Any] = centred / deviation * weight + bias
    return found


def _normalise(x: NDArray[Any], _: Tensors, __: Step) -> NDArray[Any]:
    found: NDArray[Any] = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.float32(1e-12))
    return found


def _residual(x: NDArray[Any], tensors: Tensors, step: Step) -> NDArray[Any]:
    found: NDArray[Any] = x + _run(x, tensors, step["steps"])
    return found


def _each(function: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[..., NDArray[Any]]:
    """A step of an activation."""
    return lambda x, *_: function(x)


def _sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    """Without overflow, for large negative numbers too."""
    found: NDArray[Any] = np.float32(0.5) * (1 + np.tanh(x / 2))
    return found


_ERF = np.frompyfunc(math.erf, 1, 1)


def _gelu(x: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = x / 2 * (1 + _ERF(x / np.float32(math.sqrt(2))).astype(np.float32))
    return found


def _gelu_tanh(x: NDArray[Any]) -> NDArray[Any]:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)
    found: NDArray[Any] = x / 2 * (1 + np.tanh(inner))
    return found


#: by `formats.head.STEPS`: what a step does to [..., C]
_STEPS: dict[str, Callable[[NDArray[Any], Tensors, Step], NDArray[Any]]] = {
    "linear": _linear,
    "layernorm": _layernorm,
    "normalise": _normalise,
    "gelu": _each(_gelu),
    "gelu_tanh": _each(_gelu_tanh),
    "quick_gelu": _each(lambda x: x * _sigmoid(np.float32(1.702) * x)),
    "silu": _each(lambda x: x * _sigmoid(x)),
    "relu": _each(lambda x: np.maximum(x, 0)),
    "sigmoid": _each(_sigmoid),
    "residual": _residual,
}


def _run(x: NDArray[Any], tensors: Tensors, steps: Sequence[Step]) -> NDArray[Any]:
    for step in steps:
        x = _STEPS[step["op"]](x, tensors, step)
    return x


def _own(tensors: Tensors, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    return tensors(f"{name}.weight"), tensors(f"{name}.bias")


def _at(tensors: Mapping[str, NDArray[Any]], place: str) -> Tensors:
    """Those whose names begin with ``place``, by the rest."""
    return lambda name: tensors[f"{place}.{name}"]


def _pool(head: Mapping[str, Any], tensors: Tensors, x: NDArray[Any], patches: NDArray[Any]) -> NDArray[Any]:
    """By `formats.head.POOLS`, of tokens [n, D]; ``patches``, bool [n], says which of them are."""
    if head["pool"] == "class":
        found: NDArray[Any] = x[0]
    elif head["pool"] == "attention":
        found = _attend(x, tensors, head["heads"])
    else:
        # where pruning has left no patches, their mean is nothing
        mean = x[patches].mean(axis=0) if patches.any() else np.zeros_like(x[0])
        found = mean if head["pool"] == "mean" else np.concatenate([x[0], mean])
    return found


def _attend(x: NDArray[Any], tensors: Tensors, heads: int) -> NDArray[Any]:
    """The mean of the values of all tokens by each head's attention; queries and keys are in the scores."""
    scores = x @ tensors("pool.score")
    shares = np.exp(scores - scores.max(axis=0))
    means = (shares / shares.sum(axis=0)).T @ x
    weight, bias = _own(tensors, "pool")
    values = np.einsum("hi,ihd->hd", means, weight.reshape(len(weight), heads, -1))
    found: NDArray[Any] = values.reshape(-1) + bias
    return found


def head_logits(meta: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], answer: Tokens) -> NDArray[Any]:
    """Logits float32 [classes] of a network whose head is on the host.

    Parameters
    ----------
    meta : mapping
        Description of the package or program.
    tensors : mapping
        Those of `formats.head.tensor_table`, and maybe others.
    answer : Tokens
        Behind the last layer.
    """
    head = meta["host_head"]
    values = answer.values * np.float32(meta["scales"]["tokens"])
    own = _at(tensors, "host_head")
    x = _pool(head, own, values, answer.indices >= meta["architecture"]["prefix"])
    return _run(x, own, head["steps"]).astype(np.float32, copy=False)


def row_answers(
    meta: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], answer: Tokens
) -> dict[str, NDArray[Any]]:
    """What a network with ``row_heads`` says of each of its rows.

    Parameters are those of `head_logits`.

    Returns
    -------
    dict of arrays
        "indices", int64 [rows]: the tokens' numbers; "scores", float32 [rows, names]; "boxes", float32
        [rows, 4], if it has them: middle (x, y), width and height, as shares of the image's.
    """
    heads, prefix = meta["row_heads"], meta["architecture"]["prefix"]
    patches = answer.indices >= prefix
    chosen = patches if heads["rows"] == "patches" else ~patches & (answer.indices > 0)
    x = answer.values[chosen] * np.float32(meta["scales"]["tokens"])
    found = {"indices": answer.indices[chosen]}
    for name in ROW_HEADS:
        if name in heads:
            found[name] = _run(x, _at(tensors, f"row_heads.{name}"), heads[name]).astype(
                np.float32, copy=False
            )
    return found
