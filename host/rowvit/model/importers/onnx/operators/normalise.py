# SPDX-License-Identifier: Apache-2.0
"""LayerNorm, as one operator or written out as mean, difference, variance and deviation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rowvit.model.importers.onnx import values as flow
from rowvit.model.importers.onnx.node import Node
from rowvit.model.importers.onnx.operators.elementwise import offset, pointwise, scale


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


def _source(view: flow.AnyView) -> flow.Stream | flow.Pooled:
    if isinstance(view.of, flow.Normed):
        raise flow.NotUnderstood("the residual stream is normalised itself, not only what branches off it")
    if not isinstance(view.of, flow.Stream | flow.Pooled) or view.factor != 1:
        raise flow.NotUnderstood("it normalises something other than the residual stream")
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


def centred(view: flow.AnyView, mean: flow.AnyView, node: Node) -> flow.View[flow.Centred] | None:
    """A stream less its mean; None if the two are something else."""
    if not (isinstance(mean.of, flow.Statistic) and mean.of.kind == "mean" and mean.of.of is view.of):
        return None
    _require_same_rows(view, mean)
    return flow.View(flow.Centred(view.of.width, node.label, view.of), view.at)


def normalised(
    view: flow.AnyView, statistic: flow.AnyView, kind: str, node: Node
) -> flow.View[flow.Normed] | None:
    """A centred stream over its deviation; None if the two are something else."""
    if not (
        isinstance(view.of, flow.Centred)
        and not view.of.squared
        and isinstance(statistic.of, flow.Statistic)
        and statistic.of.kind == kind
        and statistic.of.of is view.of.of
    ):
        return None
    _require_same_rows(view, statistic)
    width, eps = view.of.width, statistic.of.eps
    return flow.View(
        flow.Normed(width, node.label, view.of.of, np.ones(width), np.zeros(width), eps), view.at
    )


def _require_same_rows(view: flow.AnyView, statistic: flow.AnyView) -> None:
    if (
        view.rows.shape != np.broadcast_shapes(view.rows.shape, statistic.at.shape)
        or (view.rows != statistic.at).any()
    ):
        raise flow.NotUnderstood("it brings together different tokens")
