# SPDX-License-Identifier: Apache-2.0
"""Matrix products and softmax.

With constant weights a product is a linear layer, of two activations a part of attention: scores of queries
and keys, or values weighed by their softmax.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from rowvit.model.importers.onnx import values as flow
from rowvit.model.importers.onnx.arithmetic import offset, scale
from rowvit.model.importers.onnx.values import Node


def mat_mul(node: Node) -> flow.AnyView:
    """A linear layer, queries times keys, or probabilities times values."""
    return _product(node.inputs[0], node.inputs[1], node)


def fused_mat_mul(node: Node) -> flow.AnyView:
    """Onnxruntime's product, which may transpose its inputs and scale the result."""
    if node.attribute("transBatchA", 0) or node.attribute("transBatchB", 0):
        raise flow.NotUnderstood("it moves the batch")
    a, b = (
        _transposed(value) if node.attribute(f"trans{name}", 0) else value
        for name, value in zip("AB", node.inputs, strict=True)
    )
    result = _product(a, b, node)
    factor = node.attribute("alpha", 1.0)
    return result if factor == 1 else scale(result, np.array(factor), node)


def _transposed(value: flow.Value | None) -> flow.Value | None:
    if isinstance(value, flow.View):
        return replace(value, at=value.at.swapaxes(-1, -2))
    return value.swapaxes(-1, -2) if isinstance(value, np.ndarray) else value


def _product(a: flow.Value | None, b: flow.Value | None, node: Node) -> flow.AnyView:
    if isinstance(a, flow.View) and isinstance(b, np.ndarray):
        return _linear(a, b, node)
    if isinstance(a, np.ndarray):
        raise flow.NotUnderstood(
            "its queries do not depend on the image (pooling by attention), which is not read from ONNX"
        )
    if flow.shows(a, flow.Linear) and flow.shows(b, flow.Linear):
        return _scores(a, b, node)
    if flow.shows(a, flow.Probabilities) and flow.shows(b, flow.Linear):
        return _mixed(a, b, node)
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
    if isinstance(view.of, flow.Scores | flow.Probabilities):
        raise flow.NotUnderstood("it mixes attention's heads")
    if not isinstance(view.of, flow.Normed | flow.Mixed | flow.Pointwise | flow.Pooled | flow.Joined):
        raise flow.NotUnderstood("there is a linear layer where the accelerator has none")
    order = view.whole_rows()
    canonical = np.empty_like(weight)
    canonical[order] = weight * view.factor
    width = weight.shape[1]
    layer = flow.Linear(width, node.label, view.of, canonical, np.zeros(width))
    return flow.View(layer, view.rows[..., :1] * width + np.arange(width))


def einsum(node: Node) -> flow.AnyView:
    """A product of two tensors, brought to the form of MatMul."""
    equation = node.attribute("equation", b"").decode().replace(" ", "")
    inputs, _, out = equation.partition("->")
    terms = inputs.split(",")
    if len(terms) != 2 or "." in equation or any(len(set(t)) < len(t) for t in (*terms, out)):
        raise flow.NotUnderstood(f"of Einsum only products of two tensors are read, not {equation}")
    left, right = terms
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
    if isinstance(b, np.ndarray):
        product = _product(first, ordered(b, right, "", summed, other), node)
    else:
        product = _product(first, replace(b, at=ordered(b.at, right, shared, summed, other)), node)
    order = shared + own + other
    at = product.at.reshape([sizes[x] for x in order])
    return replace(product, at=at.transpose([order.index(x) for x in out]))


# -- attention --------------------------------------------------------------------------------------


def softmax(node: Node) -> flow.AnyView:
    """Probabilities of scores, or of classes."""
    view = node.view()
    axis = node.attribute("axis", -1 if node.opset >= 13 else 1)
    if axis not in (-1, view.at.ndim - 1):
        raise flow.NotUnderstood("the softmax is not over the last axis")
    view.whole_rows()
    if flow.shows(view, flow.Scores):
        return _probabilities(view, node)
    if isinstance(view.of, flow.Linear | flow.Sum):
        of = flow.scaled(view) if flow.shows(view, flow.Linear) else view.of
        return flow.View(flow.Classes(view.of.width, node.label, of), view.at)
    raise flow.NotUnderstood("there is a softmax where the accelerator has none")


def _probabilities(view: flow.View[flow.Scores], node: Node) -> flow.View[flow.Probabilities]:
    return flow.View(flow.Probabilities(view.of.width, node.label, view.of), view.at)


def attention(node: Node) -> flow.AnyView:
    """ONNX's fused operator: [B, heads, tokens, size], or [B, tokens, channels] with head counts."""
    if isinstance(node.input(3), np.ndarray):
        raise flow.NotUnderstood("a table is added to attention's scores (relative positions, or a mask)")
    masked_or_cached = any(value is not None for value in node.inputs[3:])
    if masked_or_cached or node.attribute("is_causal", 0) or node.attribute("softcap", 0.0):
        raise flow.NotUnderstood("attention is masked, capped or cached")
    views = [node.view(index) for index in range(3)]
    flat = views[0].at.ndim == 3
    if flat:
        counts = node.attribute("q_num_heads", 0), *[node.attribute("kv_num_heads", 0)] * 2
        views = [
            replace(view, at=view.at.reshape(*view.at.shape[:2], count, -1).swapaxes(1, 2))
            for view, count in zip(views, counts, strict=True)
        ]
    q, k, v = views
    k = replace(k, at=k.at.swapaxes(-1, -2))
    if not (flow.shows(q, flow.Linear) and flow.shows(k, flow.Linear) and flow.shows(v, flow.Linear)):
        raise flow.NotUnderstood("its inputs are not linear layers")
    found = _scores(q, k, node)
    scale = node.attribute("scale", 0.0) or q.at.shape[-1] ** -0.5
    found = replace(found, of=replace(found.of, scale=found.of.scale * scale))
    result = _mixed(_probabilities(found, node), v, node)
    if not flat:
        return result
    at = result.at.swapaxes(1, 2)
    return replace(result, at=at.reshape(*at.shape[:2], -1))


def _scores(q: flow.View[flow.Linear], k: flow.View[flow.Linear], node: Node) -> flow.View[flow.Scores]:
    """Queries [..., tokens, size] times keys [..., size, tokens]."""
    q_tokens, q_columns = _heads(q, transposed=False)
    k_tokens, k_columns = _heads(k, transposed=True)
    if q_columns.shape != k_columns.shape or len(q_tokens) != len(k_tokens):
        raise flow.NotUnderstood("queries and keys differ in number")
    n, scale = len(q_tokens), q.factor * k.factor
    found = flow.Scores(n, node.label, q.of, k.of, q_columns, k_columns, scale)
    heads = np.arange(len(q_columns))[:, None, None]
    at = (heads * n + q_tokens[:, None]) * n + k_tokens
    return flow.View(found, at.reshape(*q.at.shape[:-1], n))


def _mixed(p: flow.View[flow.Probabilities], v: flow.View[flow.Linear], node: Node) -> flow.View[flow.Mixed]:
    """Probabilities [..., tokens, tokens] times values [..., tokens, size]."""
    n = p.of.width
    at = p.at.reshape(-1, *p.at.shape[-2:])
    tokens, columns = _heads(v, transposed=False)
    heads, rows = at[:, 0, 0] // (n * n), at[0, :, 0] // n % n
    expected = (heads[:, None, None] * n + rows[:, None]) * n + tokens
    if not np.array_equal(heads, np.arange(len(columns))) or not np.array_equal(at, expected):
        raise flow.NotUnderstood("probabilities and values do not meet head by head")
    width = columns.size
    found = flow.Mixed(width, node.label, p.of, flow.scaled(v), columns)
    at = rows[:, None] * width + np.arange(width).reshape(len(columns), 1, -1)
    return flow.View(found, at.reshape(*p.at.shape[:-1], columns.shape[1]))


def _heads(view: flow.View[flow.Linear], transposed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Token order [tokens] and columns [heads, size] of a tensor [..., tokens, size]."""
    at = view.at.swapaxes(-1, -2) if transposed else view.at
    at = at.reshape(-1, *at.shape[-2:])
    rows, channels = at // view.of.width, at % view.of.width
    tokens, columns = rows[0, :, 0], channels[:, 0]
    if (rows != tokens[:, None]).any() or (channels != columns[:, None]).any():
        raise flow.NotUnderstood("heads and tokens are mixed up")
    if not np.array_equal(np.sort(tokens), np.arange(len(tokens))):
        raise flow.NotUnderstood("attention does not see every token once (attention in windows)")
    return tokens, columns
