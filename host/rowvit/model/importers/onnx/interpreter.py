# SPDX-License-Identifier: Apache-2.0
"""Gives the tensors of an ONNX graph their meaning, node by node, from the embedding on.

Every rule takes a `Node`, at least one of whose inputs is a view, and returns the meaning of its output
(`move`: of all its outputs) or raises `NotUnderstood`. Reshape, Transpose, Slice and the like move a view's
indices, by ONNX's reference implementation, so that it does not matter how an exporter cuts heads or queries,
keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from rowvit.model.importers.onnx import arithmetic, fused, products
from rowvit.model.importers.onnx.graph import Graph
from rowvit.model.importers.onnx.values import (
    AnyView,
    Image,
    Joined,
    Node,
    Normed,
    NotUnderstood,
    Pointwise,
    Pooled,
    Unknown,
    Value,
    View,
    rotary,
    shows,
)


def interpret(graph: Graph, nodes: Sequence[onnx.NodeProto], values: dict[str, Value]) -> None:
    """Add the meanings of all outputs of ``nodes`` to ``values``.

    Before, these hold the constants, the image, and the embedding as a view of a `Stream`.
    """
    shapes = graph.shapes()
    for proto in nodes:
        if all(name in values for name in proto.output if name):
            continue
        inputs = [values.get(name) if name else None for name in proto.input]
        outputs = _outputs(Node(proto, inputs, graph.opset), shapes)
        for name, value in zip(proto.output, outputs, strict=False):
            if name:
                values.setdefault(name, value)


def _outputs(node: Node, image_shapes: dict[str, tuple[int, ...]]) -> Sequence[Value]:
    count = len(node.proto.output)
    for value in node.inputs:
        if isinstance(value, Unknown):
            return [value] * count
    try:
        return _understood(node, image_shapes)
    except NotUnderstood as error:
        return [Unknown(f"{node.label}: {error}")] * count
    except Exception as error:  # the reference implementation raises what it likes
        return [Unknown(f"{node.label}: ONNX's reference implementation cannot run it ({error})")] * count


def _understood(node: Node, image_shapes: dict[str, tuple[int, ...]]) -> Sequence[Value]:
    kind, domain = node.proto.op_type, node.proto.domain
    if domain not in ("", "ai.onnx") and (domain, kind) != (fused.DOMAIN, "FusedMatMul"):
        raise NotUnderstood(
            f"the operator is of domain {domain}, not ONNX's own; export without such fusions"
        )
    if kind in ("Shape", "Size") and isinstance(value := node.inputs[0], Image | View):
        shape = value.at.shape if isinstance(value, View) else value.shape
        if shape is None:
            raise NotUnderstood("ONNX's shape inference cannot tell this shape; export with fixed sizes")
        return node.evaluate([np.broadcast_to(np.int8(0), shape)])
    constants = [value for value in node.inputs if value is None or isinstance(value, np.ndarray)]
    if len(constants) == len(node.inputs):
        return node.evaluate(constants)
    if any(isinstance(value, Image) for value in node.inputs):
        if any(isinstance(value, View) for value in node.inputs):
            raise NotUnderstood("the image comes in again after the embedding")
        return [Image(image_shapes.get(name)) for name in node.proto.output]
    if kind not in OPERATORS:
        raise node.no_such_step()
    result = OPERATORS[kind](node)
    return result if isinstance(result, list) else [result]


def move(node: Node) -> list[Value]:
    """Any operator that only moves scalars."""
    view = node.view()
    rest = [value for value in node.inputs[1:] if value is None or isinstance(value, np.ndarray)]
    if len(rest) < len(node.inputs) - 1:
        raise NotUnderstood("what it selects depends on the image")
    return [replace(view, at=at) for at in node.evaluate([view.at, *rest])]


def cast(node: Node) -> AnyView:
    """Conversions between floating point types change nothing here."""
    kind = helper.tensor_dtype_to_np_dtype(node.attribute("to", 0))
    if not np.issubdtype(kind, np.floating):
        raise NotUnderstood(f"activations become {kind.name}")
    return node.view()


def is_nan(node: Node) -> np.ndarray:
    """Activations are finite."""
    return np.zeros(node.view().at.shape, bool)


def where(node: Node) -> Value:
    """One of its inputs, if the condition is the same everywhere."""
    condition, yes, no = node.inputs
    chosen = None
    if isinstance(condition, np.ndarray) and (condition.all() or not condition.any()):
        chosen = yes if condition.all() else no
    if chosen is None:
        raise NotUnderstood("what it selects depends on the image")
    return chosen


def concat(node: Node) -> AnyView:
    """Parts of one tensor, or a class token and a mean beside it."""
    views = [value for value in node.inputs if isinstance(value, View)]
    if len(views) < len(node.inputs) or any(
        view.of is not views[0].of or view.factor != views[0].factor for view in views
    ):
        roots = {id(view.of.of if isinstance(view.of, Pointwise) else view.of): view.of for view in views}
        if len(views) == len(node.inputs) and len(roots) == 1 and any(shows(v, Pointwise) for v in views):
            raise rotary()  # one half negated, and the other
        if len(views) == len(node.inputs) and (joined := _token_and_mean(node, views)):
            return joined
        raise NotUnderstood("it joins tensors of different origin")
    return replace(views[0], at=np.concatenate([v.at for v in views], axis=node.attribute("axis", 0)))


def _token_and_mean(node: Node, views: Sequence[AnyView]) -> View[Joined] | None:
    """The class token beside the mean of what follows it; None if the views are something else."""
    if len(views) != 2 or node.attribute("axis", 0) not in (-1, views[0].at.ndim - 1):
        return None
    token, mean = views
    if not shows(token, Normed) or not shows(mean, Pooled) or mean.of.of is not token.of or token.rows.any():
        return None
    width = token.of.width
    joined = Joined(2 * width, node.label, token.of, mean.of)
    return View(joined, np.concatenate([token.at, width + mean.at], axis=-1))


# fmt: off
_MOVES = (
    "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
)
_POINTWISE = (
    "Abs", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min", "Mish",
    "Neg", "Relu", "Selu", "Sigmoid", "Softplus", "Swish", "Tanh",
)
# fmt: on


def pad(node: Node) -> Value:
    """Tokens are padded to whole windows."""
    raise NotUnderstood("it adds tokens (attention in windows)")


OPERATORS: dict[str, Callable[[Node], Value | list[Value]]] = {
    **dict.fromkeys(_MOVES, move),
    "Cast": cast,
    "Concat": concat,
    "Dropout": Node.view,  # nothing happens outside of training
    "IsNaN": is_nan,
    "Pad": pad,
    "Where": where,
    **dict.fromkeys(_POINTWISE, arithmetic.pointwise),
    "Add": arithmetic.add,
    "Div": arithmetic.div,
    "Mul": arithmetic.mul,
    "Pow": arithmetic.pow,
    "Sub": arithmetic.sub,
    "LayerNormalization": arithmetic.layer_normalization,
    "Reciprocal": arithmetic.reciprocal,
    "ReduceMean": arithmetic.reduce_mean,
    "Sqrt": arithmetic.sqrt,
    "Einsum": products.einsum,
    "Gemm": products.gemm,
    "MatMul": products.mat_mul,
    "FusedMatMul": products.fused_mat_mul,
    "Attention": products.attention,
    "Softmax": products.softmax,
}
