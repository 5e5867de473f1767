# SPDX-License-Identifier: Apache-2.0
"""ONNX files of any exporter to the float network.

`graph` prepares the file, and finds the weights before the first LayerNorm by running that part. From there
on `interpreter` says what the tensors mean (`values`), and `reader` reads the network off the output. In the
end both are run and compared.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from rowvit.errors import RowvitError
from rowvit.formats.description import Size, sides
from rowvit.model.importers.foreign import ANY_SHAPE, CONVOLUTIONS, by_names, lacking
from rowvit.model.importers.onnx import values as flow
from rowvit.model.importers.onnx.graph import Graph, embedding, embedding_tensor
from rowvit.model.importers.onnx.interpreter import interpret
from rowvit.model.importers.onnx.pixels import Pixels, normalisation
from rowvit.model.importers.onnx.reader import Reader
from rowvit.model.vit import VisionTransformer, standardise

TOLERANCE = 1e-3  # of the output's peak; float32 networks come within 1e-5


@dataclass
class OnnxResult:
    """An imported network."""

    model: VisionTransformer
    pixels: Pixels | None  #: how the file normalises its input itself; the network takes normalised pixels
    difference: float  #: largest, from onnxruntime's output, relative to that output's largest magnitude
    dropped: str = ""  #: the first node after the encoder that is left out; empty if none is


def read_onnx(
    path: str | os.PathLike, image_size: Size | None = None, output: str | None = None, encoder: bool = False
) -> OnnxResult:
    """Read a vision transformer.

    Parameters
    ----------
    path : path
    image_size : int or tuple of int, optional
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
    try:
        return _read(path, image_size, output, encoder)
    except RowvitError as error:
        known, advice = ("", "") if error.advice else _known(path)
        if known:
            raise RowvitError(f"{path}: {known}", advice) from error
        raise


def _known(path: str | os.PathLike) -> tuple[str, str]:
    """What the whole is that a node does not fit, by names and operators, and what to do.

    Empty where they do not say.
    """
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception:  # protobuf's own exception types
        return "", ""
    found = by_names([tensor.name for tensor in graph.initializer], heads=False, all_there=False)
    if found and list(found.what) != [CONVOLUTIONS]:  # of those, the nodes say more
        return str(found).replace("the state dict has", "it has"), found.advice
    if any(value.name == "spatial_shapes" for value in graph.input):
        return f"this is NaFlex: {lacking([ANY_SHAPE])}", ""
    kinds = [node.op_type for node in graph.node]
    attention = any("Softmax" in kind or "Attention" in kind for kind in kinds)
    if kinds and not attention and not any(node.domain for node in graph.node):
        count = kinds.count("Conv")
        return f"it has no attention, but {count} convolutions, so it is not a vision transformer", ""
    return "", ""


def _read(path: str | os.PathLike, image_size: Size | None, output: str | None, encoder: bool) -> OnnxResult:
    graph = Graph(path, None if image_size is None else sides(image_size))
    output = graph.outputs[0] if output is None else output
    if output not in graph.outputs:
        raise RowvitError(f"{path}: has no output {output!r}", f"it has {', '.join(graph.outputs)}")
    first = embedding_tensor(graph)
    state = embedding(graph, first)
    pixels = normalisation(graph, first)
    if pixels:
        _take_normalised(state, pixels)
    tokens, dim = state["pos_embed"].shape[1:]
    stream = flow.Stream(dim, f"the embedding {first!r}")
    values: dict[str, flow.Value] = {
        **graph.constants,
        graph.input: flow.Image(graph.shape),
        first: flow.View(stream, np.arange(tokens * dim).reshape(1, tokens, dim)),
    }
    interpret(graph, graph.needed([output], until=[first]), values)
    end, dropped = values.get(output), ""
    if encoder:
        output, end, dropped = _last_norm(graph, values, output)
    if isinstance(end, flow.Unknown):
        raise RowvitError(f"{path}: {end.reason}", _advice(graph, state, values, output))
    if not isinstance(end, flow.View):
        raise RowvitError(f"{path}: output {output!r} does not depend on the transformer")
    try:
        model = Reader(graph.size, state).network(end)
    except flow.NotUnderstood as error:
        raise RowvitError(f"{path}: {error}") from error
    return OnnxResult(model, pixels, _difference(graph, model, end, output, pixels), dropped)


def _take_normalised(state: dict[str, np.ndarray], pixels: Pixels) -> None:
    """Change the embedding to take normalised pixels in place of the file's."""
    weight, prefix = state["patch_embed.proj.weight"], state["cls_token"].shape[1]
    mean, std = (pixels.peak * np.array(v)[None, :, None, None] for v in (pixels.mean, pixels.std))
    state["pos_embed"][:, prefix:] += (weight * mean).sum(axis=(1, 2, 3))
    state["patch_embed.proj.weight"] = weight * std


def _advice(graph: Graph, state: dict[str, np.ndarray], values: dict[str, flow.Value], output: str) -> str:
    """What to do where the end of the graph is not understood: leave it out, if what comes before is."""
    _, norm, _ = _last_norm(graph, values, output)
    try:
        if not isinstance(norm, flow.View):
            return ""
        Reader(graph.size, dict(state)).network(norm)
    except flow.NotUnderstood:
        return ""
    others = [name for name in graph.outputs if name != output]
    named = f", --onnx-output names another output ({', '.join(others)})" if others else ""
    return f"--encoder leaves out what follows the last LayerNorm{named}"


def _last_norm(
    graph: Graph, values: dict[str, flow.Value], output: str
) -> tuple[str, flow.Value | None, str]:
    """The last LayerNorm's tensor and meaning, and the first node behind it that is left out."""
    after = values.get(output)
    found: list[tuple[str, flow.View[flow.Normed]]] = []
    for name in (name for node in graph.nodes for name in node.output):
        value = values.get(name)
        if flow.shows(value, flow.Normed):
            if found and found[0][1].of is not value.of:
                found.clear()
            found.append((name, value))
    if not found:
        return output, after, ""
    name, norm = max(found, key=lambda item: item[1].at.size)  # all tokens rather than some
    return name, norm, after.reason if isinstance(after, flow.Unknown) else ""


def _difference(
    graph: Graph, model: VisionTransformer, end: flow.AnyView, output: str, pixels: Pixels | None
) -> float:
    """How far the network is from the graph on two random images; too far is a `RowvitError`."""
    shape = (2, 3, *graph.size)
    images = np.random.default_rng(1).integers(0, 256, shape).astype(np.float64)
    if pixels is None:
        images = (images - 128) / 64  # about what normalised photos span
        taken = torch.from_numpy(images).float()
    else:
        taken = standardise(torch.from_numpy(images / 255), pixels.mean, pixels.std).float()
        images *= pixels.peak / 255
    theirs = graph.run(images, output).astype(np.float64)
    with torch.inference_mode():
        if isinstance(end.of, flow.Normed) and len(np.unique(end.rows)) > 1:
            ours = model.norm(model.encode(taken))
        else:
            ours = model(taken)
        if isinstance(end.of, flow.Classes):
            ours = ours.softmax(dim=-1)
    difference = np.abs(ours.numpy() - theirs.reshape(ours.shape)).max() / (np.abs(theirs).max() or 1.0)
    if not difference <= TOLERANCE:
        raise RowvitError(
            f"{graph.path}: the imported network's output differs from onnxruntime's by {difference:.1e}"
            " of its peak",
            "please report this file",
        )
    return float(difference)
