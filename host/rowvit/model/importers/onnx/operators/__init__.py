# SPDX-License-Identifier: Apache-2.0
"""What ONNX's operators do to the tensors of a vision transformer, by the operator's name.

Every rule takes a `Node`, at least one of whose inputs is a view, and returns the meaning of its output
(`moves.move`: of all its outputs) or raises `NotUnderstood`.
"""

from __future__ import annotations

from collections.abc import Callable

from rowvit.model.importers.onnx.node import Node
from rowvit.model.importers.onnx.operators import arithmetic, attention, elementwise, linear, moves, normalise
from rowvit.model.importers.onnx.values import Value

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

OPERATORS: dict[str, Callable[[Node], Value | list[Value]]] = {
    **dict.fromkeys(_MOVES, moves.move),
    "Cast": moves.cast,
    "Concat": moves.concat,
    "Dropout": moves.dropout,
    "IsNaN": moves.is_nan,
    "Where": moves.where,
    **dict.fromkeys(_POINTWISE, elementwise.pointwise),
    "Add": arithmetic.add,
    "Div": arithmetic.div,
    "Mul": arithmetic.mul,
    "Pow": arithmetic.pow,
    "Sub": arithmetic.sub,
    "LayerNormalization": normalise.layer_normalization,
    "Reciprocal": normalise.reciprocal,
    "ReduceMean": normalise.reduce_mean,
    "Sqrt": normalise.sqrt,
    "Einsum": linear.einsum,
    "Gemm": linear.gemm,
    "MatMul": linear.mat_mul,
    "Attention": attention.attention,
    "Softmax": attention.softmax,
}
