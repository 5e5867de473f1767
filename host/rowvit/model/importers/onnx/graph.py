# SPDX-License-Identifier: Apache-2.0
"""An ONNX file, prepared for images of one size: what it holds, and running parts of it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from rowvit.errors import RowvitError

_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


class Graph:
    """One ONNX file, prepared for batches of one image; ``image_size`` matters where the file leaves it open.

    ``input`` is the tensor that holds the image: ``shape`` and ``dtype`` are its own, ``side`` is in pixels.
    ``constants`` are the initialisers by name; ``nodes`` are in the order of execution.

    Raises
    ------
    RowvitError
        If the file is no ONNX model of a network with one image as its input.
    """

    def __init__(self, path: str | os.PathLike, image_size: int | None) -> None:
        self.path = path
        model = _load(path)
        graph = model.graph
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in self.constants]
        if len(inputs) != 1:
            names = ", ".join(value.name for value in inputs)
            raise RowvitError(f"{path}: has {len(inputs)} inputs ({names}), but a vision transformer has one")
        self.input = inputs[0].name
        self._fix_input(inputs[0], image_size)
        del graph.value_info[:]  # they may hold the shapes of another batch or image
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")
        try:
            self.model = shape_inference.infer_shapes(model, check_type=True, data_prop=True)
        except Exception as error:
            raise RowvitError(f"{path}: contradicts itself according to ONNX ({error})") from error
        self.nodes = list(self.model.graph.node)
        self.outputs = [value.name for value in self.model.graph.output]
        self.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))

    def _fix_input(self, value: onnx.ValueInfoProto, image_size: int | None) -> None:
        dims = value.type.tensor_type.shape.dim
        sizes = [dim.dim_value for dim in dims]
        if len(sizes) != 4 or 3 not in (sizes[1], sizes[3]):
            raise RowvitError(
                f"{self.path}: input {value.name!r} has shape {sizes}, expected [batch, 3, side, side] or"
                " [batch, side, side, 3] (0 is an open size)"
            )
        self.channels_first = sizes[1] == 3
        sides = {size for size in (sizes[2:] if self.channels_first else sizes[1:3]) if size}
        if image_size and not sides:
            sides.add(image_size)
        if len(sides) != 1:
            raise RowvitError(
                f"{self.path}: input {value.name!r} has the sides {sorted(sides) or 'open'},"
                " expected one square size",
                "pass --image-size where it is open",
            )
        (self.side,) = sides
        if sizes[0] > 1:
            raise RowvitError(
                f"{self.path}: is made for batches of {sizes[0]}", "export it for one image, or any number"
            )
        self.shape = (1, 3, self.side, self.side) if self.channels_first else (1, self.side, self.side, 3)
        for dim, size in zip(dims, self.shape, strict=True):
            dim.dim_value = size
        self.dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)

    def needed(self, outputs: Sequence[str], until: Sequence[str] = ()) -> list[onnx.NodeProto]:
        """Nodes that ``outputs`` depend on, in order, up to and without those that make ``until``."""
        wanted, nodes = set(outputs) - set(until), []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                nodes.append(node)
                wanted |= set(node.input) - set(until)
        return nodes[::-1]

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        """A tensor of the graph by onnxruntime, for images [B, 3, S, S], one at a time."""
        import onnxruntime

        nodes, graph = self.needed([output]), self.model.graph
        names = {name for node in nodes for name in node.input}
        part = onnx.GraphProto(
            name="part",
            node=nodes,
            initializer=[tensor for tensor in graph.initializer if tensor.name in names],
            input=[value for value in graph.input if value.name == self.input],
            output=[onnx.ValueInfoProto(name=output)],
        )
        versions = dict(ir_version=self.model.ir_version, opset_import=self.model.opset_import)
        model = onnx.ModelProto(graph=part, **versions)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors are reported once, below
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            inputs = images if self.channels_first else images.transpose(0, 2, 3, 1)
            feeds = [np.ascontiguousarray(image[None], self.dtype) for image in inputs]
            return np.concatenate([session.run([output], {self.input: feed})[0] for feed in feeds])
        except Exception as error:  # onnxruntime's own exception types
            raise RowvitError(f"{self.path}: onnxruntime cannot run it ({error})") from error

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What ONNX's inference knows of the tensors' shapes."""
        shapes = {}
        for value in self.model.graph.value_info:
            kind = value.type.tensor_type
            if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
                shapes[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
        return shapes


def _load(path: str | os.PathLike) -> onnx.ModelProto:
    """A checked model in float32, without functions."""
    from onnx import inliner

    try:
        model = onnx.load(path)
        if not model.graph.node:
            raise ValueError("no nodes")
        model = inliner.inline_local_functions(model)
    except FileNotFoundError as error:
        raise RowvitError(f"{path}: no such file, or its external weights are not next to it") from error
    except Exception as error:  # protobuf's own exception types
        raise RowvitError(f"{path}: cannot be read as an ONNX model ({error})") from error
    _to_float32(model)
    for tensor in model.graph.initializer:
        if not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise RowvitError(f"{path}: weights {tensor.name!r} hold NaN or infinity", "export it again")
    return model


def _to_float32(model: onnx.ModelProto) -> None:
    """Half and double precision to single: weights, constants, casts, inputs and outputs."""

    def convert(tensor: TensorProto) -> None:
        if tensor.data_type in _HALF:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), name))

    for tensor in model.graph.initializer:
        convert(tensor)
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.tensor_type.elem_type in _HALF:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                convert(attribute.t)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i in _HALF:
                attribute.i = TensorProto.FLOAT
