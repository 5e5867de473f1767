# SPDX-License-Identifier: Apache-2.0
"""An ONNX file, prepared for images of one size: what it holds, running parts of it, and its embedding.

The embedding is everything between the image and the first LayerNorm. Scaling, convolution or matrix product,
class token, positions and their resizing are together one linear map of disjoint patches. Its weights are
found by running it on test images.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from rowvit.errors import RowvitError
from rowvit.model.importers.onnx import fused
from rowvit.model.importers.onnx.values import label

#: operators on integers, of ONNX and of onnxruntime
_QUANTISED = re.compile("QuantizeLinear|^QLinear|^QAttention|^QGemm|Integer|^MatMulNBits|^DynamicQuantize")
_RMS = ("RMSNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization")
_ATTENTION = ("Attention", "MultiHeadAttention", "Softmax")
_TOLERANCE = 1e-3  # of the peak
_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


class Graph:
    """One ONNX file, prepared for batches of one image; ``image_size`` matters where the file leaves it open.

    ``input`` is the tensor that holds the image: ``shape`` and ``dtype`` are its own, ``size`` its height and
    width. ``constants`` are the initialisers by name; ``nodes`` are in the order of execution, with
    onnxruntime's fused operators written out.

    Raises
    ------
    RowvitError
        If the file is no ONNX model of a network with one image as its input.
    """

    def __init__(self, path: str | os.PathLike, image_size: tuple[int, int] | None) -> None:
        self.path = path
        own = _load(path)
        self.own = list(own.graph.node)  # as the file has them, in the order of execution
        model = fused.write_out(own)
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

    def _fix_input(self, value: onnx.ValueInfoProto, image_size: tuple[int, int] | None) -> None:
        dims = value.type.tensor_type.shape.dim
        sizes = [dim.dim_value for dim in dims]
        if len(sizes) == 4 and not sizes[1] and sizes[3] != 3:
            sizes[1] = 3  # open, as optimum leaves them
        if len(sizes) != 4 or 3 not in (sizes[1], sizes[3]):
            raise RowvitError(
                f"{self.path}: input {value.name!r} has shape {sizes}, expected [batch, 3, height, width]"
                " or [batch, height, width, 3] (0 is an open size)"
            )
        self.channels_first = sizes[1] == 3
        height, width = sizes[2:] if self.channels_first else sizes[1:3]
        if image_size and all(
            own in (0, given) for own, given in zip((height, width), image_size, strict=True)
        ):
            height, width = image_size
        self.size = height or width, width or height  # with one side open, a square
        if not height and not width:
            raise RowvitError(f"{self.path}: input {value.name!r} leaves its size open", "pass --image-size")
        if sizes[0] > 1:
            raise RowvitError(
                f"{self.path}: is made for batches of {sizes[0]}",
                "export it for one image, or with an open batch (dynamic_axes)",
            )
        self.shape = (1, 3, *self.size) if self.channels_first else (1, *self.size, 3)
        for dim, size in zip(dims, self.shape, strict=True):
            dim.dim_value = size
        self.dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)

    def needed(
        self, outputs: Sequence[str], until: Sequence[str] = (), own: bool = False
    ) -> list[onnx.NodeProto]:
        """Nodes that ``outputs`` depend on, in order, up to and without those that make ``until``.

        With ``own``, those of the file, where onnxruntime's fused operators are not written out.
        """
        wanted, nodes = set(outputs) - set(until), []
        for node in reversed(self.own if own else self.nodes):
            if wanted & set(node.output):
                nodes.append(node)
                wanted |= set(node.input) - set(until)
        return nodes[::-1]

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        """A tensor of the graph by onnxruntime, for images [B, 3, H, W], one at a time."""
        import onnxruntime

        nodes, graph = self.needed([output], own=True) or self.needed([output]), self.model.graph
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
        options.intra_op_num_threads = 1  # the runs are many and short, and more threads spin between them
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
        _sort(model.graph)
    except FileNotFoundError as error:
        raise RowvitError(f"{path}: no such file, or its external weights are not next to it") from error
    except Exception as error:  # protobuf's own exception types
        raise RowvitError(f"{path}: cannot be read as an ONNX model ({error})") from error
    _refuse_integers(model.graph, path)
    _to_float32(model)
    for tensor in model.graph.initializer:
        if (
            tensor.dims and not np.isfinite(numpy_helper.to_array(tensor)).all()
        ):  # -inf pads where a maximum is
            raise RowvitError(f"{path}: weights {tensor.name!r} hold NaN or infinity", "export it again")
    return model


def _refuse_integers(graph: onnx.GraphProto, path: str | os.PathLike) -> None:
    for node in graph.node:
        if _QUANTISED.search(node.op_type):
            raise RowvitError(
                f"{path}: is quantised already, as {label(node)} shows",
                "import the float network; rowvit quantise makes the accelerator's integers of it",
            )


def _sort(graph: onnx.GraphProto) -> None:
    """Put nodes in the order of execution; converters to half precision leave their casts at the end."""
    made = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    before = {i: {made[name] for name in node.input if name in made} for i, node in enumerate(graph.node)}
    if all(max(inputs, default=-1) < index for index, inputs in before.items()):
        return
    nodes = [graph.node[index] for index in TopologicalSorter(before).static_order()]
    del graph.node[:]
    graph.node.extend(nodes)


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


def embedding_tensor(graph: Graph) -> str:
    """What the first LayerNorm reads."""
    from_image, shapes = {graph.input}, graph.shapes()
    made = {name: node.op_type for node in graph.nodes for name in node.output}
    rms = RowvitError(f"{graph.path}: its norms do not subtract the mean (RMSNorm), as the accelerator does")
    for node in graph.nodes:
        read = next((name for name in node.input if name in from_image), None)
        if read is None or node.op_type in ("Shape", "Size"):
            continue
        mean = node.op_type == "ReduceMean" and _over_channels(node, graph.constants, shapes.get(read))
        if node.op_type in _RMS or (mean and made.get(read) in ("Pow", "Mul")):  # of squares
            raise rms
        if node.op_type == "LayerNormalization" or mean:
            return read
        from_image |= set(node.output)
    raise RowvitError(f"{graph.path}: has no LayerNorm, so it is not a vision transformer")


def _over_channels(
    node: onnx.NodeProto, constants: Mapping[str, np.ndarray], shape: tuple[int, ...] | None
) -> bool:
    """Whether a mean is over the last axis alone, as a LayerNorm's, as far as the file says."""
    axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
    if axes is None and len(node.input) > 1 and node.input[1] in constants:
        axes = constants[node.input[1]].tolist()
    return axes is None or axes == [-1] or (shape is not None and axes == [len(shape) - 1])


def embedding(graph: Graph, name: str) -> dict[str, np.ndarray]:
    """Weights of the linear map from patches to ``name``, and the rest of it as a position table."""
    nodes = graph.needed([name])
    last = label(nodes[-1]) if nodes else f"input {name!r}"
    kinds = [node.op_type for node in nodes]
    if set(kinds) & set(_ATTENTION):
        raise RowvitError(
            f"{graph.path}: attention comes before the first LayerNorm, which reads {last}"
            " (post-norm, or blocks of another kind)"
        )
    if (convolutions := kinds.count("Conv")) > 1:
        raise RowvitError(
            f"{graph.path}: {convolutions} convolutions come before the first LayerNorm, and the accelerator"
            " runs one, of disjoint patches"
        )
    rng = np.random.default_rng(0)
    peak = 255.0 if np.issubdtype(graph.dtype, np.integer) else 1024.0
    trial = rng.integers(0, 256, (1, 3, *graph.size)).astype(np.float64)
    both = graph.run(np.concatenate([np.zeros_like(trial), trial]), name)
    no_patches = RowvitError(
        f"{graph.path}: the first LayerNorm reads {[len(both) // 2, *both.shape[1:]]} scalars from {last},"
        " expected [1, tokens, channels]: a grid of square patches and the tokens before them"
        + (", without windows or pixels in their places" if both.ndim != 3 or len(both) != 2 else "")
    )
    if both.ndim != 3 or len(both) != 2:
        raise no_patches
    base, out = both
    moved = (base != out).any(axis=1)
    prefix = int(moved.argmax())
    if behind := int(moved[::-1].argmax()):
        raise RowvitError(
            f"{graph.path}: {behind} tokens stand behind the patches (YOLOS), which is not read from ONNX",
            "import the folder or state dict",
        )
    patches = len(base) - prefix
    patch = math.isqrt(math.prod(graph.size) // patches)
    grid = graph.size[0] // max(patch, 1), graph.size[1] // max(patch, 1)
    if not moved.any() or math.prod(grid) != patches or math.prod(graph.size) != patches * patch * patch:
        raise no_patches
    size = 3 * patch * patch
    refused = RowvitError(
        f"{graph.path}: the embedding that ends in {last} is not one linear layer on patches of"
        f" {patch} x {patch} pixels ({', '.join(sorted({node.op_type for node in nodes}))}),"
        " which is all that the accelerator runs"
    )
    # of half of the patches only their own tokens may depend; the long way below would take minutes to say so
    half = np.arange(patches) % 2 == 0
    (halved,) = graph.run(
        _from_patches(_to_patches(trial[0], patch) * half[:, None], patch, grid)[None], name
    )
    expected = base.astype(np.float64)
    expected[prefix:][half] = out[prefix:][half]
    if np.abs(expected - halved).max() > _TOLERANCE * np.abs(out).max():
        raise refused
    weight = np.empty((size, base.shape[1]))
    # every patch of a test image holds a different unit vector
    for first in range(0, size, patches):
        units = np.arange(first, min(first + patches, size))
        vectors = np.zeros((patches, size))
        vectors[np.arange(len(units)), units] = peak
        answer = graph.run(_from_patches(vectors, patch, grid)[None], name)[0].astype(np.float64) - base
        weight[units] = answer[prefix : prefix + len(units)] / peak
    expected = base.astype(np.float64)
    expected[prefix:] += _to_patches(trial[0], patch) @ weight
    if np.abs(expected - out).max() > _TOLERANCE * np.abs(out).max():
        raise refused
    return {
        "patch_embed.proj.weight": weight.T.reshape(-1, 3, patch, patch),
        "patch_embed.proj.bias": np.zeros(base.shape[1]),
        "cls_token": np.zeros((1, prefix, base.shape[1])),
        "pos_embed": base[None].astype(np.float64),
    }


def _from_patches(vectors: np.ndarray, patch: int, grid: tuple[int, int]) -> np.ndarray:
    """Patches [rows * columns, 3 * P * P], scalars in the order channel, y, x, to an image [3, H, W]."""
    rows, columns = grid
    cells = vectors.reshape(rows, columns, 3, patch, patch)
    return cells.transpose(2, 0, 3, 1, 4).reshape(3, rows * patch, columns * patch)


def _to_patches(image: np.ndarray, patch: int) -> np.ndarray:
    """The inverse of `_from_patches`."""
    rows, columns = image.shape[1] // patch, image.shape[2] // patch
    cells = image.reshape(3, rows, patch, columns, patch)
    return cells.transpose(1, 3, 0, 2, 4).reshape(rows * columns, -1)
