# SPDX-License-Identifier: Apache-2.0
"""Operators that onnxruntime's optimiser fuses, written out in ONNX's own.

The reader of the network sees what is written out; onnxruntime, with which it is compared, runs the file's
own. Meanings: ContribOperators.md of onnxruntime.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

DOMAIN = "com.microsoft"


def write_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with ONNX's own operators for those that are known here; others stay."""
    if all(node.domain != DOMAIN for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    for node in model.graph.node:
        known = _OPERATORS.get(node.op_type) if node.domain == DOMAIN else None
        out = _Writer(node)
        if known is None or known(out) is False:
            copy.graph.node.append(node)
            continue
        copy.graph.node.extend(out.nodes)
        copy.graph.initializer.extend(out.constants)
    return copy


class _Writer:
    """Collects the nodes for one fused node."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self.node, self.nodes = node, list[onnx.NodeProto]()
        self.constants: list[onnx.TensorProto] = []
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}

    def input(self, index: int) -> str:
        """Name of an input; empty if it is absent."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def output(self, index: int) -> str:
        return self.node.output[index] if index < len(self.node.output) else ""

    def constant(self, value: Any, kind: str = "float32") -> str:
        name = f"{self.node.output[0]}/constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """A node, and the name of its output."""
        output = output or f"{self.node.output[0]}/{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], self.node.name, **attributes))
        return output

    def biased(self, x: str, bias: str) -> str:
        """``x + bias``; ``x`` if there is none."""
        return self.add("Add", x, bias) if bias else x


def _gelu(out: _Writer, x: str) -> None:
    """By erf."""
    inner = out.add("Erf", out.add("Mul", x, out.constant(1 / math.sqrt(2))))
    half = out.add("Mul", x, out.constant(0.5))
    out.add("Mul", half, out.add("Add", inner, out.constant(1.0)), output=out.output(0))


def _fast_gelu(out: _Writer) -> None:
    """By tanh."""
    x = out.biased(out.input(0), out.input(1))
    cube = out.add("Mul", out.add("Mul", out.add("Mul", x, x), x), out.constant(0.044715))
    inner = out.add("Mul", out.add("Add", x, cube), out.constant(math.sqrt(2 / math.pi)))
    half = out.add("Mul", x, out.constant(0.5))
    out.add("Mul", half, out.add("Add", out.add("Tanh", inner), out.constant(1.0)), output=out.output(0))


def _quick_gelu(out: _Writer) -> None:
    x = out.input(0)
    inner = out.add("Mul", x, out.constant(out.attributes.get("alpha", 1.702)))
    out.add("Mul", x, out.add("Sigmoid", inner), output=out.output(0))


def _skip_layer_norm(out: _Writer) -> None:
    """LayerNorm of a sum; its fourth output is the sum."""
    x, skip, weight, offset, bias = (out.input(index) for index in range(5))
    total = out.add("Add", out.biased(x, bias), skip, output=out.output(3))
    epsilon = out.attributes.get("epsilon", 1e-12)
    inputs = [total, weight, *([offset] if offset else [])]
    out.add("LayerNormalization", *inputs, output=out.output(0), axis=-1, epsilon=epsilon)


def _attention(out: _Writer) -> bool:
    """Queries, keys and values of one matrix, without mask or cache."""
    sizes = out.attributes.get("qkv_hidden_sizes")
    if any(out.node.input[3:]) or out.attributes.get("unidirectional") or sizes:
        return False
    joined = out.biased(out.add("MatMul", out.input(0), out.input(1)), out.input(2))
    parts = out.add("Reshape", joined, out.constant([0, 0, 3, -1], "int64"))
    q, k, v = (out.add("Gather", parts, out.constant(part, "int64"), axis=2) for part in range(3))
    _heads(out, q, k, v)
    return True


def _multi_head_attention(out: _Writer) -> bool:
    """The same of separate matrices, whose biases come joined."""
    q, k, v, bias = (out.input(index) for index in range(4))
    if any(out.node.input[4:]) or out.attributes.get("unidirectional") or not (q and k and v):
        return False
    if bias:
        parts = out.add("Reshape", bias, out.constant([3, -1], "int64"))
        q, k, v = (
            out.add("Add", x, out.add("Gather", parts, out.constant(index, "int64"), axis=0))
            for index, x in enumerate((q, k, v))
        )
    _heads(out, q, k, v)
    return True


def _heads(out: _Writer, q: str, k: str, v: str) -> None:
    """Attention of queries, keys and values [B, N, D] with ``num_heads``."""
    split = out.constant([0, 0, int(out.attributes["num_heads"]), -1], "int64")
    q, k, v = (
        out.add("Transpose", out.add("Reshape", x, split), perm=order)
        for x, order in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3]))
    )
    scores = out.add("MatMul", q, k)
    if scale := out.attributes.get("scale", 0.0):
        scores = out.add("Mul", scores, out.constant(scale))
    else:
        size = out.add("Gather", out.add("Shape", q), out.constant(3, "int64"))
        root = out.add("Sqrt", out.add("Cast", size, to=onnx.TensorProto.FLOAT))
        scores = out.add("Div", scores, root)
    mixed = out.add("MatMul", out.add("Softmax", scores, axis=-1), v)
    mixed = out.add("Transpose", mixed, perm=[0, 2, 1, 3])
    out.add("Reshape", mixed, out.constant([0, 0, -1], "int64"), output=out.output(0))


#: each writes the nodes for one; False: it cannot, for what its attributes or inputs ask for
_OPERATORS: dict[str, Callable[[_Writer], bool | None]] = {
    "Attention": _attention,
    "BiasGelu": lambda out: _gelu(out, out.add("Add", out.input(0), out.input(1))),
    "FastGelu": _fast_gelu,
    "Gelu": lambda out: _gelu(out, out.input(0)),
    "MultiHeadAttention": _multi_head_attention,
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _skip_layer_norm,
}
