# SPDX-License-Identifier: Apache-2.0
"""Meanings of the tensors of an ONNX graph, and its nodes as the rules see them.

Every tensor that depends on the image is a `View`: an array of indices into a matrix [rows, width]
of one of the quantities below, most of which name the quantity that they are made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Generic, TypeGuard, TypeVar, cast

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from rowvit.model.importers.foreign import ORIGIN

T = TypeVar("T")


class NotUnderstood(Exception):
    """Why a node has no meaning in a vision transformer."""


def rotary() -> NotUnderstood:
    """The reason for a node that turns queries or keys."""
    return NotUnderstood(
        f"it turns queries and keys by their positions, and rotary positions are not read from ONNX; {ORIGIN}"
    )


def gated() -> NotUnderstood:
    """The reason for a node that multiplies two layers."""
    return NotUnderstood(
        f"it multiplies two layers with each other (a gated FFN, which is not read from ONNX); {ORIGIN}"
    )


@dataclass(frozen=True, eq=False)
class Quantity:
    """A matrix [rows, width] of the network; ``node`` made it."""

    width: int
    node: str


@dataclass(frozen=True, eq=False)
class Stream(Quantity):
    """The residual stream: the embedding, or what `Residual` makes of it."""


@dataclass(frozen=True, eq=False)
class Residual(Stream):
    """The residual stream after half a block: ``before`` plus ``branch``."""

    before: Stream
    branch: Linear


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
class Begun(Stream):
    """The residual stream where it begins with a LayerNorm of the embedding."""

    norm: Normed


@cache
def begun(norm: Normed) -> Begun:
    """The one stream that begins with a LayerNorm."""
    return Begun(norm.width, norm.node, norm)


@dataclass(frozen=True, eq=False)
class Linear(Quantity):
    """``of @ weight + bias``; weight [width of ``of``, width]."""

    of: Quantity
    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Joined(Quantity):
    """The first token of a LayerNorm, and beside it a mean of the same; one row."""

    token: Normed
    mean: Pooled


@dataclass(frozen=True, eq=False)
class Pointwise(Quantity):
    """A function of the scalars of a linear layer, as its values on `rowvit.model.vit.GRID`."""

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
    """``factor`` times the sum of two layers, each on its own row; one row."""

    parts: tuple[Linear, Linear]
    rows: tuple[int, int]
    factor: float = 1.0


Q = TypeVar("Q", bound=Quantity, covariant=True)


@dataclass(frozen=True)
class View(Generic[Q]):
    """A tensor: ``factor`` times the scalars ``row * width + channel`` of a quantity."""

    of: Q
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

    def whole_rows(self) -> np.ndarray:
        """Channels of the last axis; `NotUnderstood` unless they are all channels of one row."""
        rows, channels = self.rows, self.channels
        order = channels.reshape(-1, channels.shape[-1])[0]
        if (rows != rows[..., :1]).any() or (channels != order).any():
            raise NotUnderstood("its rows are not the channels of a token")
        if len(order) != self.of.width or len(set(order.tolist())) != len(order):
            raise NotUnderstood("it takes only part of a token's channels")
        return order


@dataclass(frozen=True)
class Image:
    """A tensor from which the embedding is made; ``shape`` as far as it is known."""

    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Unknown:
    """A tensor that no rule explains."""

    reason: str


AnyView = View[Quantity]
Value = np.ndarray | AnyView | Image | Unknown


def shows(value: Value | None, kind: type[Q]) -> TypeGuard[View[Q]]:
    """Whether a tensor is a view of that kind of quantity."""
    return isinstance(value, View) and isinstance(value.of, kind)


def as_stream(view: AnyView) -> AnyView:
    """A view of the residual stream, if it is one of the LayerNorm before the blocks; else itself."""
    norm = view.of
    if isinstance(norm, Normed) and type(norm.of) is Stream and view.factor == 1:
        return View(begun(norm), view.at)
    return view


def scaled(view: View[Linear]) -> Linear:
    """The layer of a view, with the view's factor in its weights."""
    layer = view.of
    if view.factor == 1:
        return layer
    return replace(layer, weight=layer.weight * view.factor, bias=layer.bias * view.factor)


def label(node: onnx.NodeProto) -> str:
    """The node as messages name it."""
    return f"node {node.name or node.output[0]!r} ({node.op_type})"


@dataclass(frozen=True)
class Node:
    """A node and the meanings of its inputs; an absent optional input is None."""

    proto: onnx.NodeProto
    inputs: Sequence[Value | None]
    opset: int

    @property
    def label(self) -> str:
        """The node as messages name it."""
        return label(self.proto)

    def input(self, index: int) -> Value | None:
        """An input; None if it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def view(self, index: int = 0) -> AnyView:
        """An input that must depend on the image."""
        value = self.input(index)
        if not isinstance(value, View):
            raise self.no_such_step()
        return value

    def attribute(self, name: str, default: T) -> T:
        """An attribute, of the type of ``default``."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                return cast(T, helper.get_attribute_value(attribute))
        return default

    def evaluate(self, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        """Run the node on these inputs by ONNX's reference implementation."""
        feeds = {name: x for name, x in zip(self.proto.input, inputs, strict=True) if x is not None}
        declared = [onnx.ValueInfoProto(name=name) for name in feeds]
        outputs = [onnx.ValueInfoProto(name=name) for name in self.proto.output if name]
        graph = helper.make_graph([self.proto], "node", declared, outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]

    @staticmethod
    def no_such_step() -> NotUnderstood:
        """The reason for a node that no rule explains."""
        return NotUnderstood("a vision transformer that the accelerator runs has no such step here")
