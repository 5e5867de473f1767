# SPDX-License-Identifier: Apache-2.0
"""Meanings of the tensors of an ONNX graph.

Every tensor that depends on the image is a `View`: an array of indices into a matrix [rows, width]
of one of the quantities below, most of which name the quantity that they are made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

#: arguments at which elementwise functions are sampled
GRID = np.linspace(-12.0, 12.0, 2401)


class NotUnderstood(Exception):
    """Why a node has no meaning in a vision transformer."""


@dataclass(frozen=True, eq=False)
class Quantity:
    """A matrix [rows, width] of the network; ``node`` made it."""

    width: int
    node: str


@dataclass(frozen=True, eq=False)
class Stream(Quantity):
    """The residual stream: the embedding, or ``before`` plus ``branch``."""

    before: Stream | None = None
    branch: Linear | None = None


@dataclass(frozen=True, eq=False)
class Pooled(Quantity):
    """The mean over ``rows`` of a quantity; one row."""

    of: Quantity
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Statistic(Quantity):
    """Per row: mean, variance (with ``eps``), deviation or inverse deviation."""

    kind: str
    of: Quantity
    eps: float = 0.0


@dataclass(frozen=True, eq=False)
class Centred(Quantity):
    """A quantity less its mean over a row, or (``squared``) the square of that."""

    of: Quantity
    squared: bool = False


@dataclass(frozen=True, eq=False)
class Normed(Quantity):
    """LayerNorm of a quantity."""

    of: Quantity
    weight: np.ndarray
    bias: np.ndarray
    eps: float


@dataclass(frozen=True, eq=False)
class Linear(Quantity):
    """``of @ weight + bias``; weight [width of ``of``, width]."""

    of: Quantity
    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Pointwise(Quantity):
    """A function of the scalars of a linear layer, as its values on `GRID`."""

    of: Linear
    samples: np.ndarray


@dataclass(frozen=True, eq=False)
class Scores(Quantity):
    """Row head * tokens + i, column j: product of query i and key j, times ``scale``.

    ``q_columns`` and ``k_columns`` [heads, size] say which columns of the layers meet.
    """

    q: Linear
    k: Linear
    q_columns: np.ndarray
    k_columns: np.ndarray
    scale: float


@dataclass(frozen=True, eq=False)
class Probabilities(Quantity):
    """Softmax of the rows of scores."""

    of: Scores


@dataclass(frozen=True, eq=False)
class Mixed(Quantity):
    """Values weighed by probabilities; channel head * size + c."""

    of: Probabilities
    v: Linear
    v_columns: np.ndarray


@dataclass(frozen=True, eq=False)
class Classes(Quantity):
    """Softmax of logits."""

    of: Quantity


@dataclass(frozen=True, eq=False)
class Sum(Quantity):
    """``factor`` times the sum of two layers, each on a row of its own; one row."""

    parts: tuple[Linear, Linear]
    rows: tuple[int, int]
    factor: float = 1.0


@dataclass(frozen=True)
class View:
    """A tensor: ``factor`` times the scalars ``row * width + channel`` of a quantity."""

    of: Quantity
    at: np.ndarray
    factor: float = 1.0

    @property
    def rows(self) -> np.ndarray:
        """Row of every scalar."""
        return self.at // self.of.width

    @property
    def channels(self) -> np.ndarray:
        """Channel of every scalar."""
        return self.at % self.of.width


@dataclass(frozen=True)
class Image:
    """A tensor from which the embedding is made; ``shape`` as far as it is known."""

    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Unknown:
    """A tensor that no rule explains."""

    reason: str


Value = np.ndarray | View | Image | Unknown


def label(node: onnx.NodeProto) -> str:
    """The node as messages name it."""
    return f"node {node.name or node.output[0]!r} ({node.op_type})"


def evaluate(node: onnx.NodeProto, inputs: Sequence[np.ndarray | None], opset: int) -> list[np.ndarray]:
    """Run one node by ONNX's reference implementation; absent optional inputs are None."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    names = [f"i{index}" if value is not None else "" for index, value in enumerate(inputs)]
    del copy.input[:]
    copy.input.extend(names)
    feeds = {name: value for name, value in zip(names, inputs, strict=True) if value is not None}
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([copy], "node", declared, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    """Attributes by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def scaled(view: View) -> Linear:
    """The layer of a view, with the view's factor in its weights."""
    layer = view.of
    if view.factor == 1:
        return layer
    return replace(layer, weight=layer.weight * view.factor, bias=layer.bias * view.factor)


def constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Initialisers by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
