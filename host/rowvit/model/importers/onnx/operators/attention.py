# SPDX-License-Identifier: Apache-2.0
"""Attention: scores of queries and keys, their softmax, values weighed by it, and the fused operator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rowvit.model.importers.onnx import values as flow
from rowvit.model.importers.onnx.node import Node


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
    if (
        node.attribute("is_causal", 0)
        or node.attribute("softcap", 0.0)
        or any(value is not None for value in node.inputs[3:])
    ):
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
    found = scores(q, k, node)
    scale = node.attribute("scale", 0.0) or q.at.shape[-1] ** -0.5
    found = replace(found, of=replace(found.of, scale=found.of.scale * scale))
    result = mixed(_probabilities(found, node), v, node)
    if not flat:
        return result
    at = result.at.swapaxes(1, 2)
    return replace(result, at=at.reshape(*at.shape[:2], -1))


def scores(q: flow.View[flow.Linear], k: flow.View[flow.Linear], node: Node) -> flow.View[flow.Scores]:
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


def mixed(p: flow.View[flow.Probabilities], v: flow.View[flow.Linear], node: Node) -> flow.View[flow.Mixed]:
    """Probabilities [..., tokens, tokens] times values [..., tokens, size]."""
    n = p.of.width
    at = p.at.reshape(-1, *p.at.shape[-2:])
    tokens, columns = _heads(v, transposed=False)
    heads, rows = at[:, 0, 0] // (n * n), at[0, :, 0] // n % n
    if (
        not np.array_equal(heads, np.arange(len(columns)))
        or (at != (heads[:, None, None] * n + rows[:, None]) * n + tokens).any()
    ):
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
        raise flow.NotUnderstood("attention does not see every token once")
    return tokens, columns
