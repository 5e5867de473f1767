# SPDX-License-Identifier: Apache-2.0
"""From the meaning of a graph's output to the float network, backwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from rowvit.model.importers.onnx import values as flow
from rowvit.model.store import load_state
from rowvit.model.vit import ACTIVATIONS, VisionTransformer, ViTConfig, activation_name


class Reader:
    """Reads a network off its output, backwards.

    ``size`` is the image's height and width; ``state`` holds the embedding's parameters, and the others are
    added.
    """

    def __init__(self, size: tuple[int, int], state: dict[str, np.ndarray]) -> None:
        self.size, self.state = size, state
        _, self.tokens, self.dim = state["pos_embed"].shape
        self.prefix = state["cls_token"].shape[1]
        self.epsilons: set[float] = set()

    def network(self, end: flow.AnyView) -> VisionTransformer:
        """The network that ends in a view; `NotUnderstood` if there is none."""
        layers, seen, rows = self._head(end)
        pool, stream = self._pool(seen, rows, len(layers))
        halves: list[flow.Residual] = []
        while isinstance(stream, flow.Residual):
            halves.insert(0, stream)
            stream = stream.before
        begins = stream if isinstance(stream, flow.Begun) else None
        if begins is not None:
            self._norm("norm_pre", begins.norm)
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
        ((heads, hidden, act),) = shapes
        (eps,) = self.epsilons
        config = ViTConfig(
            image_size=self.size[0],
            image_width=self.size[1],
            patch_size=self.state["patch_embed.proj.weight"].shape[-1],
            dim=self.dim,
            depth=len(halves) // 2,
            heads=heads,
            hidden=hidden,
            classes=layers[0].width if layers else 0,
            act=act,
            prefix=self.prefix,
            pool=pool,
            distilled=len(layers) == 2,
            eps=eps,
            pre_norm=begins is not None,
        )
        model = VisionTransformer(config)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(a)).float() for name, a in self.state.items()}
        load_state(model, tensors, "the ONNX file")
        return model.eval()

    def _put(self, name: str, weight: np.ndarray, bias: np.ndarray) -> None:
        self.state[f"{name}.weight"], self.state[f"{name}.bias"] = weight, bias

    def _head(self, end: flow.AnyView) -> tuple[Sequence[flow.Linear], flow.Quantity, Sequence[int]]:
        """Layers of the head (none to two), what they see, and the tokens that they see it of."""
        of, rows, channels = end.of, np.unique(end.rows).tolist(), end.channels.ravel()
        some = not isinstance(of, flow.Linear | flow.Sum) and rows in ([0], list(range(self.tokens)))
        if some and not np.array_equal(end.at.ravel(), np.arange(len(rows) * of.width)):
            raise flow.NotUnderstood(f"{of.node}: the output is a part of it, or in another order")
        if isinstance(of, flow.Classes):
            of = of.of
        if isinstance(of, flow.Sum):
            if of.rows not in ((0, 1), (1, 0)) or abs(of.factor - 0.5) > 1e-6:
                raise flow.NotUnderstood(f"{of.node}: expected the mean of two heads, on tokens 0 and 1")
            layers = list(of.parts if of.rows == (0, 1) else of.parts[::-1])
        elif isinstance(of, flow.Linear):
            layers = [flow.scaled(flow.View(of, end.at, end.factor))]
        else:
            return [], of, rows
        whole = np.array_equal(channels, np.arange(of.width))
        if rows == [0] and not whole:  # some classes, or another order
            width = len(channels)
            layers = [
                replace(layer, width=width, weight=layer.weight[:, channels], bias=layer.bias[channels])
                for layer in layers
            ]
        for name, layer in zip(("head", "head_dist"), layers, strict=False):
            self._put(name, layer.weight.T, layer.bias)
        seen = layers[0].of
        if not _same_norm(layers[-1].of, seen):
            raise flow.NotUnderstood(f"{layers[-1].node}: the two heads see different LayerNorms")
        return layers, seen, rows

    def _pool(self, seen: flow.Quantity, rows: Sequence[int], heads: int) -> tuple[str, flow.Stream]:
        """How the tokens are pooled, a value of `ViTConfig.pool`, and the residual stream before it."""
        patches = tuple(range(self.prefix, self.tokens))
        pool, pooled, norm = "token", None, seen
        if isinstance(seen, flow.Joined):
            pool, pooled, norm = "class-mean", seen.mean, seen.token
        elif isinstance(seen, flow.Pooled):  # norm, mean
            pool, pooled, norm = "norm-mean", seen, seen.of
        elif isinstance(seen, flow.Normed) and isinstance(seen.of, flow.Pooled):
            pool, pooled = "mean", seen.of
        if not isinstance(norm, flow.Normed):
            raise flow.NotUnderstood(f"{seen.node}: the network should end in a LayerNorm and a linear head")
        if pooled is not None and pooled.rows != patches:
            raise flow.NotUnderstood(f"{pooled.node}: the mean is not over all patches and nothing else")
        stream = pooled.of if pool == "mean" and pooled is not None else norm.of
        if not isinstance(stream, flow.Stream):
            raise flow.NotUnderstood(f"{norm.node}: the last LayerNorm does not see the residual stream")
        if pooled is None and heads < 2:
            whole = not heads and len(rows) == self.tokens
            if not whole and rows != [0]:
                count = f"{len(rows)} tokens" if len(rows) > 1 else f"token {rows[0]}"
                raise flow.NotUnderstood(f"{seen.node}: the head sees {count}, not the first alone")
            if whole and not self.prefix:
                pool = "norm-mean"
        self._norm("norm", norm)
        return pool, stream

    def _norm(self, name: str, norm: flow.Normed) -> None:
        eps = float(f"{norm.eps:.6g}")  # float32's 9.99999997e-07 is 1e-06
        self.epsilons.add(eps)
        if len(self.epsilons) > 1:
            (other,) = self.epsilons - {eps}
            raise flow.NotUnderstood(f"{norm.node}: its epsilon {eps} differs from the {other} of others")
        self._put(name, norm.weight, norm.bias)

    def _source(self, layer: flow.Linear, half: flow.Residual) -> flow.Normed:
        norm = layer.of
        if not isinstance(norm, flow.Normed) or norm.of is not half.before:
            raise flow.NotUnderstood(f"{layer.node}: its input is not the LayerNorm of the residual stream")
        return norm

    def _attention(self, index: int, half: flow.Residual) -> int:
        name, proj = f"blocks.{index}", half.branch
        mixed = proj.of
        if not isinstance(mixed, flow.Mixed):
            raise flow.NotUnderstood(f"{half.node}: the result of attention should be added here")
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

    def _ffn(self, index: int, half: flow.Residual) -> tuple[int, str]:
        name, fc2 = f"blocks.{index}", half.branch
        act = fc2.of
        if not isinstance(act, flow.Pointwise):
            raise flow.NotUnderstood(f"{half.node}: the result of an FFN should be added here")
        fc1 = act.of
        self._norm(f"{name}.norm2", self._source(fc1, half))
        self._put(f"{name}.mlp.fc1", fc1.weight.T, fc1.bias)
        self._put(f"{name}.mlp.fc2", fc2.weight.T, fc2.bias)
        known = activation_name(act.samples)
        if known is None:
            raise flow.NotUnderstood(f"{act.node}: the activation is none of {', '.join(ACTIVATIONS)}")
        return fc1.width, known


def _same_norm(a: flow.Quantity, b: flow.Quantity) -> bool:
    if not isinstance(a, flow.Normed) or not isinstance(b, flow.Normed):
        return a is b
    parameters = np.array_equal(a.weight, b.weight) and np.array_equal(a.bias, b.bias)
    return parameters and a.of is b.of and a.eps == b.eps
