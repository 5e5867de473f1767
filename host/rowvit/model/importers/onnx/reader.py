# SPDX-License-Identifier: Apache-2.0
"""From the meaning of a graph's output to the float network, backwards."""

from __future__ import annotations

import math

import numpy as np
import torch

from rowvit.model.importers.onnx import values as flow
from rowvit.model.store import load_state
from rowvit.model.vit import ACTIVATIONS, VisionTransformer, ViTConfig, activation_name


class Reader:
    """Reads a network off its output, backwards.

    Parameters
    ----------
    side, tokens : int
    state : dict of arrays
        The embedding's parameters; the others are added.
    """

    def __init__(self, side: int, tokens: int, state: dict[str, np.ndarray]) -> None:
        self.side, self.tokens, self.state = side, tokens, state
        self.dim = state["pos_embed"].shape[2]
        self.prefix = state["cls_token"].shape[1]
        self.eps: float | None = None
        self.facts: dict = {}

    def network(self, end: flow.View) -> VisionTransformer:
        """The network that ends in a view; `NotUnderstood` if there is none."""
        stream = self._head(end)
        halves = []
        while stream.before is not None:
            halves.append(stream)
            stream = stream.before
        halves.reverse()
        if not halves or len(halves) % 2:
            where = halves[-1].node if halves else stream.node
            raise flow.NotUnderstood(f"{where}: a block of attention and FFN should follow here")
        shapes = set()
        for index, (attention, ffn) in enumerate(zip(halves[::2], halves[1::2], strict=True)):
            shapes.add((self._attention(index, attention), *self._ffn(index, ffn)))
            if len(shapes) > 1:
                raise flow.NotUnderstood(
                    f"{ffn.node}: heads, hidden width or activation differ from the block before"
                )
        (heads, hidden, act) = shapes.pop()
        patch = self.state["patch_embed.proj.weight"].shape[-1]
        config = ViTConfig(
            image_size=self.side,
            patch_size=patch,
            dim=self.dim,
            depth=len(halves) // 2,
            heads=heads,
            hidden=hidden,
            act=act,
            prefix=self.prefix,
            eps=self.eps,
            **self.facts,
        )
        model = VisionTransformer(config)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(a)).float() for name, a in self.state.items()}
        load_state(model, tensors, "The ONNX file")
        return model.eval()

    def _put(self, name: str, weight: np.ndarray, bias: np.ndarray) -> None:
        self.state[f"{name}.weight"], self.state[f"{name}.bias"] = weight, bias

    # -- pooling and head -----------------------------------------------------------------------------

    def _head(self, end: flow.View) -> flow.Stream:
        """Read pooling and head; returns the residual stream that they see."""
        of, rows = end.of, np.unique(end.rows)
        if isinstance(of, flow.Classes):
            of = of.of
        layers: list[tuple[flow.Linear, int]] = []
        if isinstance(of, flow.Sum):
            if of.rows not in ((0, 1), (1, 0)) or abs(of.factor - 0.5) > 1e-6:
                raise flow.NotUnderstood(f"{of.node}: expected the mean of two heads, on tokens 0 and 1")
            layers = sorted(zip(of.parts, of.rows, strict=True), key=lambda part: part[1])
        elif isinstance(of, flow.Linear):
            (row,) = rows if len(rows) == 1 else (-1,)
            of = flow.scaled(flow.View(of, end.at, end.factor))
            layers = [(of, int(row))]
        for name, (layer, _) in zip(("head", "head_dist"), layers, strict=False):
            self._put(name, layer.weight.T, layer.bias)
        self.facts = {"classes": layers[0][0].width if layers else 0, "distilled": len(layers) == 2}
        sources = [layer.of for layer, _ in layers] or [of]
        if any(source is not sources[0] and not _same_norm(source, sources[0]) for source in sources):
            raise flow.NotUnderstood(f"{layers[1][0].node}: the two heads see different LayerNorms")
        if layers and len(layers) == 1:
            rows = np.array([layers[0][1]])
        return self._pool(sources[0], rows, bool(layers))

    def _pool(self, seen: flow.Quantity, rows: np.ndarray, has_head: bool) -> flow.Stream:
        patches = tuple(range(self.prefix, self.tokens))
        pool, pooled, norm = "token", None, seen
        if isinstance(seen, flow.Pooled):  # norm, mean
            pool, pooled, norm = "norm-mean", seen, seen.of
        elif isinstance(seen, flow.Normed) and isinstance(seen.of, flow.Pooled):
            pool, pooled = "mean", seen.of
        if not isinstance(norm, flow.Normed):
            raise flow.NotUnderstood(f"{seen.node}: the network should end in a LayerNorm and a linear head")
        if pooled is not None and pooled.rows != patches:
            raise flow.NotUnderstood(f"{pooled.node}: the mean is not that of all patches alone")
        stream = norm.of.of if pool == "mean" else norm.of
        if not isinstance(stream, flow.Stream):
            raise flow.NotUnderstood(f"{norm.node}: the last LayerNorm does not see the residual stream")
        if pooled is None and not self.facts["distilled"]:
            whole = not has_head and len(rows) == self.tokens
            if not whole and rows.tolist() != [0]:
                count = f"{len(rows)} tokens" if len(rows) > 1 else f"token {rows[0]}"
                raise flow.NotUnderstood(f"{seen.node}: the head sees {count}, not the first alone")
            if whole and not self.prefix:
                pool = "norm-mean"
        self.facts["pool"] = pool
        self._norm("norm", norm)
        return stream

    def _norm(self, name: str, norm: flow.Normed) -> None:
        eps = float(f"{norm.eps:.6g}")  # float32's 9.99999997e-07 is 1e-06
        if self.eps is not None and self.eps != eps:
            raise flow.NotUnderstood(f"{norm.node}: its epsilon {eps} differs from {self.eps} of others")
        self.eps = eps
        self._put(name, norm.weight, norm.bias)

    # -- blocks ---------------------------------------------------------------------------------------

    def _branch(self, half: flow.Stream, kind: type, what: str) -> flow.Linear:
        if not isinstance(half.branch.of, kind):
            raise flow.NotUnderstood(f"{half.node}: {what} should be added here")
        return half.branch

    def _source(self, layer: flow.Quantity, half: flow.Stream) -> flow.Normed:
        norm = layer.of
        if not isinstance(norm, flow.Normed) or norm.of is not half.before:
            raise flow.NotUnderstood(f"{layer.node}: its input is not the LayerNorm of the residual stream")
        return norm

    def _attention(self, index: int, half: flow.Stream) -> int:
        name = f"blocks.{index}"
        proj = self._branch(half, flow.Mixed, "the result of attention")
        mixed = proj.of
        scores = mixed.of.of
        layers = (scores.q, scores.q_columns), (scores.k, scores.k_columns), (mixed.v, mixed.v_columns)
        norms = [self._source(layer, half) for layer, _ in layers]
        if any(not _same_norm(norm, norms[0]) for norm in norms):
            raise flow.NotUnderstood(f"{scores.node}: queries, keys and values see different LayerNorms")
        heads, size = scores.q_columns.shape
        if any(columns.shape != (heads, size) for _, columns in layers) or heads * size != self.dim:
            raise flow.NotUnderstood(
                f"{scores.node}: {heads} heads of {size} channels do not make the width {self.dim}"
            )
        weights = [layer.weight[:, columns.reshape(-1)].T for layer, columns in layers]
        biases = [layer.bias[columns.reshape(-1)] for layer, columns in layers]
        factor = scores.scale * math.sqrt(size)
        if abs(factor - 1) > 1e-5:
            weights[0], biases[0] = weights[0] * factor, biases[0] * factor
        self._norm(f"{name}.norm1", norms[0])
        self._put(f"{name}.attn.qkv", np.concatenate(weights), np.concatenate(biases))
        self._put(f"{name}.attn.proj", proj.weight.T, proj.bias)
        return heads

    def _ffn(self, index: int, half: flow.Stream) -> tuple[int, str]:
        name = f"blocks.{index}"
        fc2 = self._branch(half, flow.Pointwise, "the result of an FFN")
        act, fc1 = fc2.of, fc2.of.of
        self._norm(f"{name}.norm2", self._source(fc1, half))
        self._put(f"{name}.mlp.fc1", fc1.weight.T, fc1.bias)
        self._put(f"{name}.mlp.fc2", fc2.weight.T, fc2.bias)
        known = activation_name(flow.GRID, act.samples)
        if known is None:
            raise flow.NotUnderstood(f"{act.node}: the activation is none of {', '.join(ACTIVATIONS)}")
        return fc1.width, known


def _same_norm(a: flow.Quantity, b: flow.Quantity) -> bool:
    if a is b:
        return True
    return (
        isinstance(a, flow.Normed)
        and isinstance(b, flow.Normed)
        and a.of is b.of
        and a.eps == b.eps
        and np.array_equal(a.weight, b.weight)
        and np.array_equal(a.bias, b.bias)
    )
