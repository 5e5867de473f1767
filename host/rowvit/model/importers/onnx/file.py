# SPDX-License-Identifier: Apache-2.0
"""ONNX files of any exporter to the float network.

The embedding (whatever stands between the image and the first LayerNorm: scaling, convolution or
matrix product, class token, positions, their resizing) is one linear map of disjoint patches; its
weights are found by running it on test images. From there on `interpreter` says what the tensors mean,
and `reader` reads the network off the output. In the end both are run and compared.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper, shape_inference

from rowvit.errors import RowvitError
from rowvit.model.importers.onnx import values as flow
from rowvit.model.importers.onnx.interpreter import Interpreter
from rowvit.model.importers.onnx.reader import Reader
from rowvit.model.vit import VisionTransformer

TOLERANCE = 1e-3  # of the output's peak; float32 networks come within 1e-5
_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass
class OnnxResult:
    """An imported network.

    Parameters
    ----------
    model : VisionTransformer
    difference : float
        Greatest difference from onnxruntime's output, relative to that output's greatest magnitude.
    dropped : str
        The first node after the encoder that is left out; empty if none is.
    """

    model: VisionTransformer
    difference: float
    dropped: str = ""


def read_onnx(
    path: str | os.PathLike, image_size: int | None = None, output: str | None = None, encoder: bool = False
) -> OnnxResult:
    """Read a vision transformer.

    Parameters
    ----------
    path : path
    image_size : int, optional
        Needed where the file leaves the image's size open; has no effect where it does not.
    output : str, optional
        The graph's output to import; by default the first.
    encoder : bool
        End with the last LayerNorm, whatever follows it; the network has no head then.

    Raises
    ------
    RowvitError
        If the file is no ONNX model, or no vision transformer that the accelerator runs: then the
        message names the node that says so.
    """
    graph = _Graph(path, image_size)
    return graph.network(output, encoder)


class _Graph:
    """One ONNX file, prepared for images of one size and batches of one."""

    def __init__(self, path: str | os.PathLike, image_size: int | None) -> None:
        self.path = path
        model = _load(path)
        graph = model.graph
        self.constants = flow.constants(graph)
        inputs = [value for value in graph.input if value.name not in self.constants]
        if len(inputs) != 1:
            names = ", ".join(value.name for value in inputs)
            raise RowvitError(f"{path}: has {len(inputs)} inputs ({names}); a vision transformer has one.")
        self.input = inputs[0].name
        self._fix_input(inputs[0], image_size)
        del graph.value_info[:]  # they may hold the shapes of another batch or image
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")
        try:
            self.model = shape_inference.infer_shapes(model, check_type=True, data_prop=True)
        except Exception as error:
            raise RowvitError(f"{path}: ONNX finds a contradiction in it: {error}") from error
        self.nodes = list(self.model.graph.node)
        self.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))

    def _fix_input(self, value: onnx.ValueInfoProto, image_size: int | None) -> None:
        dims = value.type.tensor_type.shape.dim
        sizes = [dim.dim_value for dim in dims]
        if len(sizes) != 4 or 3 not in (sizes[1], sizes[3]):
            raise RowvitError(
                f"{self.path}: input {value.name!r} has shape {sizes}; expected [batch, 3, side, side] or "
                "[batch, side, side, 3] (0 stands for an open size)."
            )
        self.channels_first = sizes[1] == 3
        sides = {size for size in (sizes[2:] if self.channels_first else sizes[1:3]) if size}
        if image_size and not sides:
            sides.add(image_size)
        if len(sides) != 1:
            raise RowvitError(
                f"{self.path}: input {value.name!r} has the sides {sorted(sides) or 'open'}; "
                "expected one square size (give --image-size where it is open)."
            )
        (self.side,) = sides
        if sizes[0] > 1:
            raise RowvitError(
                f"{self.path}: is made for batches of {sizes[0]}; export it for one image, or any number."
            )
        self.shape = (1, 3, self.side, self.side) if self.channels_first else (1, self.side, self.side, 3)
        for dim, size in zip(dims, self.shape, strict=True):
            dim.dim_value = size
        self.dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)

    # -- running parts of the graph ------------------------------------------------------------------

    def _needed(self, outputs: Sequence[str], until: Sequence[str] = ()) -> list[onnx.NodeProto]:
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

        nodes = self._needed([output])
        names = {name for node in nodes for name in node.input}
        model = onnx.ModelProto()
        model.CopyFrom(
            onnx.ModelProto(ir_version=self.model.ir_version, opset_import=self.model.opset_import)
        )
        graph = self.model.graph
        model.graph.name = "part"
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(t for t in graph.initializer if t.name in names)
        model.graph.input.extend(value for value in graph.input if value.name == self.input)
        model.graph.output.append(onnx.ValueInfoProto(name=output))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors are told once, below
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            inputs = images if self.channels_first else images.transpose(0, 2, 3, 1)
            feeds = [np.ascontiguousarray(image[None], self.dtype) for image in inputs]
            return np.concatenate([session.run([output], {self.input: feed})[0] for feed in feeds])
        except Exception as error:  # onnxruntime's own exception types
            raise RowvitError(f"{self.path}: onnxruntime cannot run it: {error}") from error

    # -- embedding -----------------------------------------------------------------------------------

    def _embedding_tensor(self) -> str:
        """What the first LayerNorm reads."""
        from_image = {self.input}
        for node in self.nodes:
            read = next((name for name in node.input if name in from_image), None)
            if read is None or node.op_type in ("Shape", "Size"):
                continue
            if node.op_type in ("LayerNormalization", "ReduceMean"):
                return read
            from_image |= set(node.output)
        raise RowvitError(f"{self.path}: has no LayerNorm; this is no vision transformer.")

    def _embedding(self, name: str) -> dict[str, np.ndarray]:
        """Weights of the linear map from patches to ``name``, and the rest of it as a position table."""
        nodes = self._needed([name])
        last = flow.label(nodes[-1]) if nodes else f"input {name!r}"
        rng = np.random.default_rng(0)
        peak = 255.0 if np.issubdtype(self.dtype, np.integer) else 1024.0
        trial = rng.integers(0, 256, (1, 3, self.side, self.side)).astype(np.float64)
        (base, out) = self.run(np.concatenate([np.zeros_like(trial), trial]), name)
        moved = (base != out).reshape(len(base), -1).any(axis=1)
        prefix = int(moved.argmax())
        grid = math.isqrt(len(base) - prefix)
        if base.ndim != 2 or grid * grid != len(base) - prefix or not moved.any() or self.side % grid:
            raise RowvitError(
                f"{self.path}: {last} gives {list(base.shape)} scalars to the first LayerNorm; expected a"
                " square grid of patches and the tokens before them, each with its channels."
            )
        patch = self.side // grid
        size = 3 * patch * patch
        weight = np.empty((size, base.shape[1]))
        # every patch of a test image holds another unit vector
        for first in range(0, size, grid * grid):
            units = np.arange(first, min(first + grid * grid, size))
            vectors = np.zeros((grid * grid, size))
            vectors[np.arange(len(units)), units] = peak
            answer = self.run(_from_patches(vectors, patch)[None], name)[0].astype(np.float64) - base
            weight[units] = answer[prefix : prefix + len(units)] / peak
        expected = base.astype(np.float64)
        expected[prefix:] += _to_patches(trial[0], patch) @ weight
        if np.abs(expected - out).max() > TOLERANCE * np.abs(out).max():
            raise RowvitError(
                f"{self.path}: the embedding that ends in {last} is not one linear layer on patches of"
                f" {patch} x {patch} pixels ({', '.join(sorted({node.op_type for node in nodes}))});"
                " the accelerator runs no other."
            )
        return {
            "patch_embed.proj.weight": weight.T.reshape(-1, 3, patch, patch),
            "patch_embed.proj.bias": np.zeros(base.shape[1]),
            "cls_token": np.zeros((1, prefix, base.shape[1])),
            "pos_embed": base[None].astype(np.float64),
        }

    # -- the network ---------------------------------------------------------------------------------

    def network(self, output: str | None, encoder: bool) -> OnnxResult:
        names = [value.name for value in self.model.graph.output]
        if output is not None and output not in names:
            raise RowvitError(f"{self.path}: has no output {output!r}; it has {', '.join(names)}.")
        output = output or names[0]
        embedding = self._embedding_tensor()
        state = self._embedding(embedding)
        tokens, dim = state["pos_embed"].shape[1:]
        stream = flow.Stream(dim, f"the embedding {embedding!r}")
        at = np.arange(tokens * dim).reshape(1, tokens, dim)
        values: dict[str, flow.Value] = dict(self.constants)
        values |= {self.input: flow.Image(self.shape), embedding: flow.View(stream, at)}
        interpreter = Interpreter(self.opset, values)
        interpreter.run(self._needed([output], until=[embedding]), self._shapes())
        end = interpreter.values.get(output)
        dropped = ""
        if encoder:
            output, end, dropped = self._last_norm(interpreter, output)
        if isinstance(end, flow.Unknown):
            raise RowvitError(f"{self.path}: {end.reason}.")
        if not isinstance(end, flow.View):
            raise RowvitError(f"{self.path}: output {output!r} does not depend on the transformer.")
        reader = Reader(self.side, tokens, state)
        try:
            model = reader.network(end)
        except flow.NotUnderstood as error:
            raise RowvitError(f"{self.path}: {error}.") from error
        return OnnxResult(model, self._compare(model, end, output), dropped)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """What ONNX's inference knows of the tensors' shapes."""
        shapes = {}
        for value in self.model.graph.value_info:
            kind = value.type.tensor_type
            if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
                shapes[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
        return shapes

    def _last_norm(self, interpreter: Interpreter, output: str) -> tuple[str, flow.Value, str]:
        """The last LayerNorm's tensor and meaning, and the first node behind it that is left out."""
        after = interpreter.values[output]
        found: list[tuple[str, flow.View]] = []
        for node in self.nodes:
            for name in node.output:
                value = interpreter.values.get(name)
                if not isinstance(value, flow.View) or not isinstance(value.of, flow.Normed):
                    continue
                if found and found[0][1].of is not value.of:
                    found.clear()
                found.append((name, value))
        if not found:
            return output, after, ""
        name, value = max(found, key=lambda item: item[1].at.size)  # rather all tokens than some
        return name, value, after.reason if isinstance(after, flow.Unknown) else ""

    def _compare(self, model: VisionTransformer, end: flow.View, output: str) -> float:
        shape = (2, 3, self.side, self.side)
        images = np.random.default_rng(1).integers(0, 256, shape).astype(np.float64)
        if np.issubdtype(self.dtype, np.floating):
            images = (images - 128) / 64  # about what normalised photos span
        theirs = self.run(images, output).astype(np.float64)
        with torch.inference_mode():
            inputs = torch.from_numpy(images).float()
            if isinstance(end.of, flow.Normed) and len(np.unique(end.rows)) > 1:
                ours = model.norm(model.encode(inputs))
            else:
                ours = model(inputs)
            if isinstance(end.of, flow.Classes):
                ours = ours.softmax(dim=-1)
        difference = np.abs(ours.numpy() - theirs.reshape(ours.shape)).max() / np.abs(theirs).max()
        if not difference <= TOLERANCE:
            raise RowvitError(
                f"{self.path}: the imported network's output differs from onnxruntime's by {difference:.1e}"
                " of its peak; please report this file."
            )
        return float(difference)


def _from_patches(vectors: np.ndarray, patch: int) -> np.ndarray:
    """Patches [G * G, 3 * P * P], scalars in the order channel, y, x, to an image [3, S, S]."""
    grid = math.isqrt(len(vectors))
    cells = vectors.reshape(grid, grid, 3, patch, patch)
    return cells.transpose(2, 0, 3, 1, 4).reshape(3, grid * patch, grid * patch)


def _to_patches(image: np.ndarray, patch: int) -> np.ndarray:
    """The inverse of `_from_patches`."""
    grid = image.shape[1] // patch
    cells = image.reshape(3, grid, patch, grid, patch)
    return cells.transpose(1, 3, 0, 2, 4).reshape(grid * grid, -1)


def _load(path: str | os.PathLike) -> onnx.ModelProto:
    """A checked model in float32, without functions."""
    from onnx import inliner

    try:
        model = onnx.load(path)
        if not model.graph.node:
            raise ValueError("no nodes")
        model = inliner.inline_local_functions(model)
    except FileNotFoundError as error:
        raise RowvitError(f"{path}: no such file, or its external weights are not beside it.") from error
    except Exception as error:  # protobuf's own exception types
        raise RowvitError(f"{path}: cannot be read as an ONNX model ({error}).") from error
    _to_float32(model)
    for tensor in model.graph.initializer:
        if not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise RowvitError(f"{path}: weights {tensor.name!r} hold NaN or infinity; mend the file.")
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
