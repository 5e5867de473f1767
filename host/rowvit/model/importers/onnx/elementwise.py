# SPDX-License-Identifier: Apache-2.0
"""Elementwise functions: constants by channel go into weights, functions of a layer are kept as samples.

Because of the samples it does not matter how an exporter writes GELU.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rowvit.model.importers.onnx import values as flow
from rowvit.model.importers.onnx.values import Node
from rowvit.model.vit import GRID


def pointwise(node: Node) -> flow.View[flow.Pointwise]:
    """Any function of the scalars of one linear layer."""
    views = [value for value in node.inputs if isinstance(value, flow.View)]
    roots = {id(_root(view)): view for view in views}
    view = next(iter(roots.values()))
    root = _root(view)
    if len(roots) > 1 or not isinstance(root, flow.Linear):
        raise flow.NotUnderstood("it combines activations in a way that the accelerator does not run")
    if any(not np.array_equal(other.at, view.at) for other in views):
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
    channel = _by_channel(view, constant)
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
    raise flow.NotUnderstood("a constant meets the activations here, which the accelerator does not do")


def _by_channel(view: flow.AnyView, constant: np.ndarray) -> np.ndarray:
    full = np.broadcast_to(constant, view.at.shape).reshape(-1)
    channels = view.channels.reshape(-1)
    channel = np.zeros(view.of.width)
    channel[channels] = full
    if (channel[channels] != full).any():
        raise flow.NotUnderstood("the constant differs from token to token")
    return channel
