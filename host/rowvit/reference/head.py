# SPDX-License-Identifier: Apache-2.0
"""Heads that the host computes from tokens, in float32: a pooling, then steps from a table.

Equal tokens give equal results on one machine; between machines they differ in the last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.formats.tokens import Tokens

Tensors = Mapping[str, NDArray[Any]]


def _linear(x: NDArray[Any], tensors: Tensors, name: str) -> NDArray[Any]:
    found: NDArray[Any] = x @ tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
    return found


def _layernorm(x: NDArray[Any], tensors: Tensors, name: str) -> NDArray[Any]:
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(1e-6))
    found: NDArray[Any] = centred / deviation * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
    return found


def _normalise(x: NDArray[Any], tensors: Tensors, name: str) -> NDArray[Any]:
    found: NDArray[Any] = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.float32(1e-12))
    return found


#: by `formats.head.POOLS`: of the tokens [n, D], and which of them are patches, bool [n]
_POOLS: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    "class": lambda x, patches: x[0],
    "mean": lambda x, patches: x[patches].mean(axis=0),
    "class-mean": lambda x, patches: np.concatenate([x[0], x[patches].mean(axis=0)]),
}
#: by `formats.head.STEPS`: what a step does to [..., C]
_STEPS: dict[str, Callable[[NDArray[Any], Tensors, str], NDArray[Any]]] = {
    "linear": _linear,
    "layernorm": _layernorm,
    "normalise": _normalise,
}


def head_logits(meta: Mapping[str, Any], tensors: Tensors, answer: Tokens) -> NDArray[Any]:
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
    patches = answer.indices >= meta["architecture"]["prefix"]
    if not patches.any():  # pruning has left none: their mean is nothing
        values, patches = np.concatenate([values, values[:1] * 0]), np.append(patches, True)
    x = _POOLS[head["pool"]](values, patches)
    for step in head["steps"]:
        x = _STEPS[step["op"]](x, tensors, f"host_head.{step.get('name', '')}")
    return x.astype(np.float32, copy=False)
