# SPDX-License-Identifier: Apache-2.0
"""Matrix products: with constant weights they are linear layers, of two activations parts of attention."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from rowvit.model.importers.onnx import values as flow
from rowvit.model.importers.onnx.node import Node
from rowvit.model.importers.onnx.operators.attention import mixed, scores
from rowvit.model.importers.onnx.operators.elementwise import offset


def mat_mul(node: Node) -> flow.AnyView:
    """A linear layer, queries times keys, or probabilities times values."""
    a, b = node.inputs
    return _product(a, b, node)


def _product(a: flow.Value | None, b: flow.Value | None, node: Node) -> flow.AnyView:
    if isinstance(a, flow.View) and isinstance(b, np.ndarray):
        return _linear(a, b, node)
    if isinstance(a, np.ndarray):
        raise flow.NotUnderstood("a constant is multiplied from the left")
    if flow.shows(a, flow.Linear) and flow.shows(b, flow.Linear):
        return scores(a, b, node)
    if flow.shows(a, flow.Probabilities) and flow.shows(b, flow.Linear):
        return mixed(a, b, node)
    raise flow.NotUnderstood("it multiplies what does not belong together in attention")


def gemm(node: Node) -> flow.AnyView:
    """A linear layer."""
    view, weight, bias = node.view(), node.input(1), node.input(2)
    if not isinstance(weight, np.ndarray) or node.attribute("transA", 0) or isinstance(bias, flow.View):
        raise flow.NotUnderstood("its weights are not constant")
    weight = weight.astype(np.float64) * node.attribute("alpha", 1.0)
    result = _linear(view, weight.T if node.attribute("transB", 0) else weight, node)
    return (
        offset(result, bias * node.attribute("beta", 1.0), node) if isinstance(bias, np.ndarray) else result
    )


def _linear(view: flow.AnyView, weight: np.ndarray, node: Node) -> flow.View[flow.Linear]:
    weight = weight.astype(np.float64)
    while weight.ndim > 2 and weight.shape[0] == 1:
        weight = weight[0]
    if weight.ndim != 2:
        raise flow.NotUnderstood("its weights are not one matrix")
    if not isinstance(view.of, flow.Normed | flow.Mixed | flow.Pointwise | flow.Pooled):
        raise flow.NotUnderstood("there is a linear layer where the accelerator has none")
    order = view.whole_rows()
    canonical = np.empty_like(weight)
    canonical[order] = weight * view.factor
    width = weight.shape[1]
    layer = flow.Linear(width, node.label, view.of, canonical, np.zeros(width))
    return flow.View(layer, view.rows[..., :1] * width + np.arange(width))


def _einsum_terms(equation: str) -> tuple[str, str, str]:
    inputs, _, out = equation.partition("->")
    terms = inputs.split(",")
    if len(terms) != 2 or "." in equation or any(len(set(t)) < len(t) for t in (*terms, out)):
        raise flow.NotUnderstood(f"of Einsum only products of two tensors are read, not {equation}")
    return terms[0], terms[1], out


def einsum(node: Node) -> flow.AnyView:
    """A product of two tensors, brought to the form of MatMul."""
    equation = node.attribute("equation", b"").decode().replace(" ", "")
    left, right, out = _einsum_terms(equation)
    a, b = node.inputs
    if isinstance(a, np.ndarray):
        a, b, left, right = b, a, right, left
    if not isinstance(a, flow.View) or not isinstance(b, flow.View | np.ndarray):
        raise node.no_such_step()
    shared = "".join(x for x in left if x in right and x in out)
    summed = "".join(x for x in left if x in right and x not in out)
    own, other = ("".join(x for x in term if x not in shared + summed) for term in (left, right))
    constant = isinstance(b, np.ndarray)
    if not summed or set(own + other) - set(out) or (constant and shared):
        raise flow.NotUnderstood(f"{equation} is neither a linear layer nor a product of attention")
    right_shape = b.shape if isinstance(b, np.ndarray) else b.at.shape
    sizes = dict(zip(left, a.at.shape, strict=True)) | dict(zip(right, right_shape, strict=True))

    def ordered(array: np.ndarray, term: str, *groups: str) -> np.ndarray:
        array = array.transpose([term.index(x) for group in groups for x in group])
        return array.reshape(
            *(sizes[x] for x in shared), *(math.prod(sizes[x] for x in group) for group in groups[1:])
        )

    first = replace(a, at=ordered(a.at, left, shared, own, summed))
    second: flow.Value
    if isinstance(b, np.ndarray):
        second = ordered(b, right, "", summed, other)
    else:
        second = replace(b, at=ordered(b.at, right, shared, summed, other))
    product = _product(first, second, node)
    order = shared + own + other
    at = product.at.reshape([sizes[x] for x in order])
    return replace(product, at=at.transpose([order.index(x) for x in out]))
