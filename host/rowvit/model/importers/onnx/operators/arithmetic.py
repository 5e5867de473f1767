# SPDX-License-Identifier: Apache-2.0
"""Sums and products: residual additions, parts of LayerNorm and of activations, constants by channel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rowvit.model.importers.onnx import values as flow
from rowvit.model.importers.onnx.node import Node
from rowvit.model.importers.onnx.operators.elementwise import offset, pointwise, scale
from rowvit.model.importers.onnx.operators.normalise import centred, normalised


def add(node: Node) -> flow.AnyView:
    """A bias, LayerNorm's epsilon, a residual addition, two heads, or part of an activation."""
    a, b = _view_first(node)
    if isinstance(b, np.ndarray):
        if flow.shows(a, flow.Statistic) and a.of.kind == "variance" and b.size == 1:
            return replace(a, of=replace(a.of, eps=a.of.eps + float(b.reshape(()))))
        return offset(a, b, node)
    for stream, branch in ((a, b), (b, a)):
        if flow.shows(stream, flow.Stream) and flow.shows(branch, flow.Linear):
            return _residual(stream, branch, node)
    if flow.shows(a, flow.Linear) and flow.shows(b, flow.Linear) and a.of is not b.of:
        return _two_heads(a, b, node)
    if isinstance(a.of, flow.Linear | flow.Pointwise) and isinstance(b.of, flow.Linear | flow.Pointwise):
        return pointwise(node)
    if isinstance(a.of, flow.Normed) or isinstance(b.of, flow.Normed):
        raise flow.NotUnderstood("the residual stream is normalised itself, not only what branches off it")
    raise flow.NotUnderstood("it adds what does not belong together in a vision transformer")


def sub(node: Node) -> flow.AnyView:
    """A constant, a mean, or part of an activation."""
    a, b = node.inputs
    if isinstance(a, flow.View) and isinstance(b, np.ndarray):
        return offset(a, -b, node)
    found = centred(a, b, node) if isinstance(a, flow.View) and isinstance(b, flow.View) else None
    return found or pointwise(node)


def mul(node: Node) -> flow.AnyView:
    """A constant, a square, an inverse deviation, or part of an activation."""
    a, b = _view_first(node)
    if isinstance(b, np.ndarray):
        return scale(a, b, node)
    if flow.shows(a, flow.Centred) and a.of is b.of and np.array_equal(a.at, b.at):
        return replace(a, of=replace(a.of, squared=True))
    found = normalised(a, b, "inverse", node) or normalised(b, a, "inverse", node)
    return found or pointwise(node)


def div(node: Node) -> flow.AnyView:
    """A constant, a deviation, or part of an activation."""
    a, b = node.inputs
    if isinstance(a, flow.View) and isinstance(b, np.ndarray):
        return scale(a, 1 / b.astype(np.float64), node)
    found = (
        normalised(a, b, "deviation", node) if isinstance(a, flow.View) and isinstance(b, flow.View) else None
    )
    return found or pointwise(node)


def pow(node: Node) -> flow.AnyView:
    """The square of a centred stream, or part of an activation."""
    a, b = node.inputs
    if flow.shows(a, flow.Centred) and isinstance(b, np.ndarray) and (b == 2).all():
        return replace(a, of=replace(a.of, squared=True))
    return pointwise(node)


def _view_first(node: Node) -> tuple[flow.AnyView, flow.AnyView | np.ndarray]:
    """Inputs of a commutative operator."""
    a, b = node.inputs
    if isinstance(a, np.ndarray):
        a, b = b, a
    if isinstance(a, flow.View) and isinstance(b, flow.View | np.ndarray):
        return a, b
    raise node.no_such_step()


def _residual(
    stream: flow.View[flow.Stream], branch: flow.View[flow.Linear], node: Node
) -> flow.View[flow.Stream]:
    if not np.array_equal(stream.at, branch.at) or stream.of.width != branch.of.width:
        raise flow.NotUnderstood("the branch does not meet the residual stream token by token")
    if stream.factor != 1:
        raise flow.NotUnderstood("the residual stream is flow.scaled")
    return flow.View(flow.Residual(stream.of.width, node.label, stream.of, flow.scaled(branch)), stream.at)


def _two_heads(a: flow.View[flow.Linear], b: flow.View[flow.Linear], node: Node) -> flow.View[flow.Sum]:
    rows = [np.unique(view.rows) for view in (a, b)]
    if (
        any(len(row) != 1 for row in rows)
        or rows[0] == rows[1]
        or a.factor != b.factor
        or not np.array_equal(a.channels, b.channels)
    ):
        raise flow.NotUnderstood("it adds two layers that are not the two heads of a distilled network")
    total = flow.Sum(a.of.width, node.label, (a.of, b.of), (int(rows[0][0]), int(rows[1][0])), a.factor)
    return flow.View(total, a.channels)
