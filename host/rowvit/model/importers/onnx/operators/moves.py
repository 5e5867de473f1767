# SPDX-License-Identifier: Apache-2.0
"""Operators that move, join or pass on scalars.

Reshape, Transpose, Slice and the like move a view's indices, by ONNX's reference implementation, so that
it does not matter how an exporter cuts heads or queries, keys and values.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import helper

from rowvit.model.importers.onnx import values as flow
from rowvit.model.importers.onnx.node import Node


def move(node: Node) -> list[flow.Value]:
    """Any operator that only moves scalars."""
    view = node.view()
    rest = [value for value in node.inputs[1:] if value is None or isinstance(value, np.ndarray)]
    if len(rest) < len(node.inputs) - 1:
        raise flow.NotUnderstood("what it selects depends on the image")
    return [replace(view, at=at) for at in node.evaluate([view.at, *rest])]


def cast(node: Node) -> flow.AnyView:
    """Conversions between floating point types change nothing here."""
    kind = helper.tensor_dtype_to_np_dtype(node.attribute("to", 0))
    if not np.issubdtype(kind, np.floating):
        raise flow.NotUnderstood(f"activations become {kind.name}")
    return node.view()


def dropout(node: Node) -> flow.AnyView:
    """Nothing happens outside of training."""
    return node.view()


def is_nan(node: Node) -> np.ndarray:
    """Activations are finite."""
    return np.zeros(node.view().at.shape, bool)


def where(node: Node) -> flow.Value:
    """One of its inputs, if the condition is the same everywhere."""
    condition, yes, no = node.inputs
    chosen = None
    if isinstance(condition, np.ndarray) and (condition.all() or not condition.any()):
        chosen = yes if condition.all() else no
    if chosen is None:
        raise flow.NotUnderstood("what it selects depends on the image")
    return chosen


def concat(node: Node) -> flow.AnyView:
    """Parts of one tensor."""
    views = [value for value in node.inputs if isinstance(value, flow.View)]
    if len(views) < len(node.inputs) or any(
        view.of is not views[0].of or view.factor != views[0].factor for view in views
    ):
        raise flow.NotUnderstood("it joins tensors of different origin")
    return replace(views[0], at=np.concatenate([v.at for v in views], axis=node.attribute("axis", 0)))
