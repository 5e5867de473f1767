# SPDX-License-Identifier: Apache-2.0
"""A node of an ONNX graph as the rules see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from rowvit.model.importers.onnx.values import AnyView, NotUnderstood, Value, View

T = TypeVar("T")


def label(node: onnx.NodeProto) -> str:
    """The node as messages name it."""
    return f"node {node.name or node.output[0]!r} ({node.op_type})"


@dataclass(frozen=True)
class Node:
    """A node and the meanings of its inputs; an absent optional input is None."""

    proto: onnx.NodeProto
    inputs: Sequence[Value | None]
    opset: int

    @property
    def label(self) -> str:
        """The node as messages name it."""
        return label(self.proto)

    def input(self, index: int) -> Value | None:
        """An input; None if it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def view(self, index: int = 0) -> AnyView:
        """An input that must depend on the image."""
        value = self.input(index)
        if not isinstance(value, View):
            raise self.no_such_step()
        return value

    def attribute(self, name: str, default: T) -> T:
        """An attribute, of the type of ``default``."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                return cast(T, helper.get_attribute_value(attribute))
        return default

    def evaluate(self, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        """Run the node on these inputs by ONNX's reference implementation."""
        copy = onnx.NodeProto()
        copy.CopyFrom(self.proto)
        names = [f"i{index}" if value is not None else "" for index, value in enumerate(inputs)]
        del copy.input[:]
        copy.input.extend(names)
        feeds = {name: value for name, value in zip(names, inputs, strict=True) if value is not None}
        declared = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in feeds.items()
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in self.proto.output if name]
        graph = helper.make_graph([copy], "node", declared, outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]

    @staticmethod
    def no_such_step() -> NotUnderstood:
        """The reason for a node that no rule explains."""
        return NotUnderstood("a vision transformer that the accelerator runs has no such step here")
