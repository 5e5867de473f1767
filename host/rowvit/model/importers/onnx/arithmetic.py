# SPDX-License-Identifier: Apache-2.0
"""Sums, products, functions and means.

Constants by channel go into weights. Functions of a linear layer are kept as samples, so that it does not
matter how an exporter writes GELU. LayerNorm is one operator, or is written out as mean, difference,
variance and deviation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeGuard

import numpy as np

from rowvit.model.importers.onnx import values as flow
from rowvit.model.importers.onnx.values import Node
from rowvit.model.vit import GRID


def add(node: Node) -> flow.AnyView:
    """A bias, LayerNorm's epsilon, a residual addition, two heads, or part of an activation."""
    a, b = _view_first(node)
    if isinstance(b, np.ndarray):
        if flow.shows(a, flow.Statistic) and a.of.kind == "variance" and b.size == 1:
            return replace(a, of=replace(a.of, eps=a.of.eps + float(b.reshape(()))))
        return offset(a, b, node)
    for side, branch in ((a, b), (b, a)):
        stream = flow.as_stream(side) if flow.shows(branch, flow.Linear) else side
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
    return _centred(a, b, node) or pointwise(node)


def mul(node: Node) -> flow.AnyView:
    """A constant, a square, an inverse deviation, or part of an activation."""
    a, b = _view_first(node)
    if isinstance(b, np.ndarray):
        return scale(a, b, node)
    if flow.shows(a, flow.Centred) and a.of is b.of and np.array_equal(a.at, b.at):
        return replace(a, of=replace(a.of, squared=True))
    return _normalised(a, b, "inverse", node) or _normalised(b, a, "inverse", node) or pointwise(node)


def div(node: Node) -> flow.AnyView:
    """A constant, a deviation, or part of an activation."""
    a, b = node.inputs
    if isinstance(a, flow.View) and isinstance(b, np.ndarray):
        return scale(a, 1 / b.astype(np.float64), node)
    return _normalised(a, b, "deviation", node) or pointwise(node)


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
        raise flow.NotUnderstood("the residual stream is scaled")
    return flow.View(flow.Residual(stream.of.width, node.label, stream.of, flow.scaled(branch)), stream.at)


def _two_heads(a: flow.View[flow.Linear], b: flow.View[flow.Linear], node: Node) -> flow.View[flow.Sum]:
    rows = [np.unique(view.rows) for view in (a, b)]
    two = all(len(row) == 1 for row in rows) and rows[0] != rows[1]
    if not two or a.factor != b.factor or not np.array_equal(a.channels, b.channels):
        raise flow.NotUnderstood("it adds two layers that are not the two heads of a distilled network")
    total = flow.Sum(a.of.width, node.label, (a.of, b.of), (int(rows[0][0]), int(rows[1][0])), a.factor)
    return flow.View(total, a.channels)


# -- constants and functions --------------------------------------------------------------------------


def pointwise(node: Node) -> flow.View[flow.Pointwise]:
    """Any function of the scalars of one linear layer."""
    views = [value for value in node.inputs if isinstance(value, flow.View)]
    roots = {id(_root(view)): view for view in views}
    view = next(iter(roots.values()))
    root = _root(view)
    places = all(np.array_equal(other.at, view.at) for other in views)
    layers = all(isinstance(_root(other), flow.Linear) for other in views)
    if node.proto.op_type == "Mul" and layers and (len(roots) > 1 or not places):
        raise flow.gated()
    if len(roots) > 1 or not isinstance(root, flow.Linear):
        raise flow.NotUnderstood("it combines activations in a way that the accelerator does not run")
    if not places:
        raise flow.NotUnderstood("it combines scalars of different places")
    (result,) = node.evaluate([_samples(value) for value in node.inputs])
    return flow.View(flow.Pointwise(root.width, node.label, root, result), view.at)


def _root(view: flow.AnyView) -> flow.Quantity:
    return view.of.of if isinstance(view.of, flow.Pointwise) else view.of


def _samples(value: flow.Value | None) -> np.ndarray | None:
    if isinstance(value, flow.View):
        return value.factor * (value.of.samples if isinstance(value.of, flow.Pointwise) else GRID)
    if not isinstance(value, np.ndarray):
        return None
    if value.size != 1:
        raise flow.NotUnderstood("its constant differs from place to place")
    return value.reshape(()).astype(np.float64)


def scale(view: flow.AnyView, constant: np.ndarray, node: Node) -> flow.AnyView:
    """A view times a constant."""
    if _is_neutral(view, constant, 1.0):
        return view
    constant = constant.astype(np.float64)
    if _is_uniform(constant):
        value = float(constant.flat[0])
        if isinstance(view.of, flow.Linear):
            return replace(view, factor=view.factor * value)
        if isinstance(view.of, flow.Scores):
            return replace(view, of=replace(view.of, scale=view.of.scale * value))
        if isinstance(view.of, flow.Sum):
            return replace(view, of=replace(view.of, factor=view.of.factor * value))
        if isinstance(view.of, flow.Pointwise):
            return pointwise(node)
    layer = _layer(view)
    try:
        channel = _by_channel(view, constant)
    except flow.NotUnderstood as error:
        if isinstance(layer, flow.Linear) and np.abs(constant).max() <= 1:  # a cosine or sine of the position
            raise flow.rotary() from error
        raise
    weight, bias = layer.weight * channel, layer.bias * channel
    return flow.View(replace(layer, weight=weight, bias=bias, node=node.label), view.at)


def offset(view: flow.AnyView, constant: np.ndarray, node: Node) -> flow.AnyView:
    """A view plus a constant."""
    if _is_neutral(view, constant, 0.0):
        return view
    constant = constant.astype(np.float64)
    if isinstance(view.of, flow.Pointwise) and _is_uniform(constant):
        return pointwise(node)
    if isinstance(view.of, flow.Residual):  # a late bias
        branch = view.of.branch
        branch = replace(branch, bias=branch.bias + _by_channel(view, constant))
        return replace(view, of=replace(view.of, branch=branch, node=node.label))
    layer = _layer(view)
    return flow.View(replace(layer, bias=layer.bias + _by_channel(view, constant), node=node.label), view.at)


def _is_neutral(view: flow.AnyView, constant: np.ndarray, neutral: float) -> bool:
    if np.broadcast_shapes(view.at.shape, constant.shape) != view.at.shape:
        raise flow.NotUnderstood("a constant is larger than what it meets")
    return bool((constant == neutral).all())


def _is_uniform(constant: np.ndarray) -> bool:
    return constant.size > 0 and bool((constant == constant.flat[0]).all())


def _layer(view: flow.AnyView) -> flow.Linear | flow.Normed:
    if flow.shows(view, flow.Linear):
        return flow.scaled(view)
    if flow.shows(view, flow.Normed):
        return view.of
    if flow.shows(view, flow.Scores):
        raise flow.NotUnderstood("a table is added to attention's scores (relative positions, or a mask)")
    raise flow.NotUnderstood("a constant meets the activations here, which the accelerator does not do")


def _by_channel(view: flow.AnyView, constant: np.ndarray) -> np.ndarray:
    full = np.broadcast_to(constant, view.at.shape).reshape(-1)
    channels = view.channels.reshape(-1)
    channel = np.zeros(view.of.width)
    channel[channels] = full
    if (channel[channels] != full).any():
        raise flow.NotUnderstood("the constant differs from token to token")
    return channel


# -- LayerNorm --------------------------------------------------------------------------------------


def layer_normalization(node: Node) -> flow.AnyView:
    """The fused operator."""
    view, weight, bias = node.view(), node.input(1), node.input(2)
    if node.attribute("axis", -1) not in (-1, view.at.ndim - 1):
        raise flow.NotUnderstood("it normalises more than the channels of a token")
    source = _source(view)
    channels = view.whole_rows()
    if not isinstance(weight, np.ndarray) or isinstance(bias, flow.View):
        raise flow.NotUnderstood("its weights are not constant")
    ones, zeros = np.ones(len(channels)), np.zeros(len(channels))
    eps = node.attribute("epsilon", 1e-5)
    normed = flow.Normed(view.of.width, node.label, source, ones, zeros, eps)
    result = scale(flow.View(normed, view.at), weight, node)
    return offset(result, bias, node) if isinstance(bias, np.ndarray) else result


def reduce_mean(node: Node) -> flow.AnyView:
    """The mean over tokens, over a token's channels, or of their squared differences: the variance."""
    view = node.view()
    rank, given = view.at.ndim, node.input(1)
    axes = given.tolist() if isinstance(given, np.ndarray) else node.attribute("axes", [])
    axes = tuple(axis % rank for axis in (axes or range(rank)))
    rest = tuple(axis for axis in range(rank) if axis not in axes)
    at = view.at.transpose(rest + axes).reshape(*(view.at.shape[axis] for axis in rest), -1)
    shape = [1 if axis in axes else size for axis, size in enumerate(view.at.shape)]
    if not node.attribute("keepdims", 1):
        shape = [view.at.shape[axis] for axis in rest]
    flat = flow.View(view.of, at, view.factor)
    rows, channels = flat.rows, flat.channels
    if (channels == channels[..., :1]).all():  # over tokens
        used = rows.reshape(-1, rows.shape[-1])[0]
        if (rows != used).any() or not isinstance(view.of, flow.Stream | flow.Normed) or view.factor != 1:
            raise flow.NotUnderstood("it is not the mean over tokens of the residual stream")
        pooled = flow.Pooled(view.of.width, node.label, view.of, tuple(sorted(used.tolist())))
        return flow.View(pooled, channels[..., 0].reshape(shape))
    flat.whole_rows()
    if isinstance(view.of, flow.Centred) and view.of.squared:
        statistic = flow.Statistic(1, node.label, "variance", view.of.of)
    else:
        statistic = flow.Statistic(1, node.label, "mean", _source(view))
    return flow.View(statistic, rows[..., 0].reshape(shape))


#: what a LayerNorm is that is of something else than the residual stream
_INSIDE = {
    flow.Linear: "normalised queries and keys",
    flow.Mixed: "a norm inside or behind attention",
    flow.Pointwise: "a norm inside or behind the FFN",
}


def _is_branch(of: flow.Quantity) -> TypeGuard[flow.Linear]:
    """Whether it is the last layer of attention or of an FFN."""
    return isinstance(of, flow.Linear) and isinstance(of.of, flow.Mixed | flow.Pointwise)


def _source(view: flow.AnyView) -> flow.Stream | flow.Pooled:
    view = flow.as_stream(view)
    if isinstance(view.of, flow.Normed):
        raise flow.NotUnderstood("the residual stream is normalised itself, not only what branches off it")
    if not isinstance(view.of, flow.Stream | flow.Pooled) or view.factor != 1:
        inside = _INSIDE.get(type(view.of.of if _is_branch(view.of) else view.of), "of another kind")
        raise flow.NotUnderstood(f"it normalises something other than the residual stream ({inside})")
    return view.of


def sqrt(node: Node) -> flow.AnyView:
    """The deviation of a variance, or a function of a layer."""
    return _statistic(node, "variance", "deviation") or pointwise(node)


def reciprocal(node: Node) -> flow.AnyView:
    """The inverse of a deviation."""
    found = _statistic(node, "deviation", "inverse")
    if found is None:
        raise node.no_such_step()
    return found


def _statistic(node: Node, old: str, new: str) -> flow.View[flow.Statistic] | None:
    view = node.view()
    if not flow.shows(view, flow.Statistic) or view.of.kind != old:
        return None
    return replace(view, of=replace(view.of, kind=new, node=node.label))


def _centred(view: flow.Value | None, mean: flow.Value | None, node: Node) -> flow.View[flow.Centred] | None:
    """A stream less its mean; None if the two are something else."""
    if not isinstance(view, flow.View) or not _is_statistic(mean, "mean", view.of, view):
        return None
    return flow.View(flow.Centred(view.of.width, node.label, view.of), view.at)


def _normalised(
    view: flow.Value | None, statistic: flow.Value | None, kind: str, node: Node
) -> flow.View[flow.Normed] | None:
    """A centred stream over its deviation; None if the two are something else."""
    if not flow.shows(view, flow.Centred) or view.of.squared:
        return None
    if not _is_statistic(statistic, kind, view.of.of, view):
        return None
    width = view.of.width
    ones, zeros = np.ones(width), np.zeros(width)
    return flow.View(flow.Normed(width, node.label, view.of.of, ones, zeros, statistic.of.eps), view.at)


def _is_statistic(
    value: flow.Value | None, kind: str, of: flow.Quantity, view: flow.AnyView
) -> TypeGuard[flow.View[flow.Statistic]]:
    """Whether ``value`` is this statistic of ``of``; `NotUnderstood` if it is of other rows than ``view``."""
    if not flow.shows(value, flow.Statistic) or value.of.kind != kind or value.of.of is not of:
        return False
    rows = view.rows
    if rows.shape != np.broadcast_shapes(rows.shape, value.at.shape) or (rows != value.at).any():
        raise flow.NotUnderstood("it brings together different tokens")
    return True
