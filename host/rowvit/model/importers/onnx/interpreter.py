# SPDX-License-Identifier: Apache-2.0
"""Gives the tensors of an ONNX graph their meaning, node by node, from the embedding on.

What an operator does to a view is told in `operators`; here is what all of them have in common. The
names of nodes are used in messages only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from rowvit.model.importers.onnx.node import Node
from rowvit.model.importers.onnx.operators import OPERATORS
from rowvit.model.importers.onnx.values import Image, NotUnderstood, Unknown, Value, View


@dataclass
class Interpreter:
    """Gives every tensor of a graph its meaning.

    Parameters
    ----------
    opset : int
    values : dict of tensor name -> Value
        Before `run`: constants, the image, and the embedding as a view of a `Stream`.
    """

    opset: int
    values: dict[str, Value] = field(default_factory=dict)

    def run(self, nodes: Sequence[onnx.NodeProto], image_shapes: dict[str, tuple[int, ...]]) -> None:
        """Interpret nodes in their order.

        Parameters
        ----------
        nodes : sequence of NodeProto
        image_shapes : dict
            Known shapes of the tensors that come before the embedding.
        """
        for proto in nodes:
            if all(name in self.values for name in proto.output if name):
                continue
            inputs = [self.values.get(name) if name else None for name in proto.input]
            outputs = _outputs(Node(proto, inputs, self.opset), image_shapes)
            for name, value in zip(proto.output, outputs, strict=False):
                if name:
                    self.values.setdefault(name, value)


def _outputs(node: Node, image_shapes: dict[str, tuple[int, ...]]) -> Sequence[Value]:
    count = len(node.proto.output)
    for value in node.inputs:
        if isinstance(value, Unknown):
            return [value] * count
    try:
        return _understood(node, image_shapes)
    except NotUnderstood as error:
        return [Unknown(f"{node.label}: {error}")] * count
    except Exception as error:  # the reference implementation raises what it likes
        return [Unknown(f"{node.label}: ONNX's reference implementation cannot run it ({error})")] * count


def _understood(node: Node, image_shapes: dict[str, tuple[int, ...]]) -> Sequence[Value]:
    kind, domain = node.proto.op_type, node.proto.domain
    if domain not in ("", "ai.onnx"):
        raise NotUnderstood(
            f"the operator is of domain {domain}, not ONNX's own; export without such fusions"
        )
    if kind in ("Shape", "Size") and isinstance(node.inputs[0], Image | View):
        return [_shape(node, node.inputs[0])]
    constants = [value for value in node.inputs if value is None or isinstance(value, np.ndarray)]
    if len(constants) == len(node.inputs):
        return node.evaluate(constants)
    if any(isinstance(value, Image) for value in node.inputs):
        if any(isinstance(value, View) for value in node.inputs):
            raise NotUnderstood("the image comes in again after the embedding")
        return [Image(image_shapes.get(name)) for name in node.proto.output]
    if kind not in OPERATORS:
        raise node.no_such_step()
    result = OPERATORS[kind](node)
    return result if isinstance(result, list) else [result]


def _shape(node: Node, value: Image | View) -> np.ndarray:
    shape = value.at.shape if isinstance(value, View) else value.shape
    if shape is None:
        raise NotUnderstood("ONNX's shape inference cannot tell this shape; export with fixed sizes")
    return node.evaluate([np.broadcast_to(np.int8(0), shape)])[0]
