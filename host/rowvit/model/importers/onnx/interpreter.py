# SPDX-License-Identifier: Apache-2.0
"""Rules that give the tensors of an ONNX graph their meaning, node by node, from the embedding on.

Reshape, Transpose, Slice and their like move a view's indices, by ONNX's reference implementation, so
that it does not matter how an exporter cuts heads or queries, keys and values. Elementwise functions
of a linear layer are carried as samples, so that it does not matter how an exporter writes GELU.
Names of nodes stand in messages only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import helper

from rowvit.model.importers.onnx.values import (
    GRID,
    Centred,
    Classes,
    Image,
    Linear,
    Mixed,
    Normed,
    NotUnderstood,
    Pointwise,
    Pooled,
    Probabilities,
    Quantity,
    Scores,
    Statistic,
    Stream,
    Sum,
    Unknown,
    Value,
    View,
    attributes,
    evaluate,
    label,
    scaled,
)

# fmt: off
_MOVES = {
    "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
}
_POINTWISE = {
    "Abs", "Add", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max",
    "Min", "Mish", "Mul", "Neg", "Pow", "Relu", "Selu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Swish", "Tanh",
}
# fmt: on


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
        for node in nodes:
            if all(name in self.values for name in node.output if name):
                continue
            inputs = [self.values.get(name) if name else None for name in node.input]
            outputs = self._node(node, inputs, image_shapes)
            for name, value in zip(node.output, outputs, strict=False):
                if name:
                    self.values.setdefault(name, value)

    def _node(self, node: onnx.NodeProto, inputs: list, image_shapes: dict) -> list[Value]:
        count = len(node.output)
        for value in inputs:
            if isinstance(value, Unknown):
                return [value] * count
        try:
            if node.domain not in ("", "ai.onnx"):
                raise NotUnderstood(
                    f"the operator is of domain {node.domain}, not ONNX's own; export without such fusions"
                )
            shape = self._shape_of(node, inputs)
            if shape is not None:
                return [shape]
            if any(isinstance(value, Image) for value in inputs):
                if any(isinstance(value, View) for value in inputs):
                    raise NotUnderstood("the image comes in again after the embedding")
                return [Image(image_shapes.get(name)) for name in node.output]
            if not any(isinstance(value, View) for value in inputs):
                return list(evaluate(node, inputs, self.opset))
            return self._rule(node, inputs)
        except NotUnderstood as error:
            return [Unknown(f"{label(node)}: {error}")] * count
        except Exception as error:  # the reference implementation raises what it likes
            return [Unknown(f"{label(node)}: ONNX's reference cannot run it ({error})")] * count

    def _shape_of(self, node: onnx.NodeProto, inputs: list) -> np.ndarray | None:
        if node.op_type not in ("Shape", "Size") or not isinstance(inputs[0], Image | View):
            return None
        shape = inputs[0].at.shape if isinstance(inputs[0], View) else inputs[0].shape
        if shape is None:
            raise NotUnderstood("ONNX's shape inference cannot tell this shape; export with fixed sizes")
        return evaluate(node, [np.broadcast_to(np.int8(0), shape)], self.opset)[0]

    def _rule(self, node: onnx.NodeProto, inputs: list) -> list[Value]:
        kind = node.op_type
        if kind in _MOVES and isinstance(inputs[0], View):
            if any(isinstance(value, View) for value in inputs[1:]):
                raise NotUnderstood("what it selects depends on the image")
            moved = evaluate(node, [inputs[0].at, *inputs[1:]], self.opset)
            return [replace(inputs[0], at=at) for at in moved]
        rule: Callable | None = getattr(self, f"_{kind.lower()}", None)
        if rule is not None:
            value = rule(node, inputs)
            if value is not None:
                return [value]
        if kind in _POINTWISE:
            return [self._pointwise(node, inputs)]
        raise NotUnderstood("a vision transformer that the accelerator runs has no such step here")

    # -- rules that pass tensors on ---------------------------------------------------------------

    def _cast(self, node: onnx.NodeProto, inputs: list) -> View:
        kind = helper.tensor_dtype_to_np_dtype(attributes(node)["to"])
        if not np.issubdtype(kind, np.floating):
            raise NotUnderstood(f"activations become {kind.name}")
        return inputs[0]

    def _dropout(self, node: onnx.NodeProto, inputs: list) -> View:
        return inputs[0]

    def _isnan(self, node: onnx.NodeProto, inputs: list) -> np.ndarray:
        return np.zeros(inputs[0].at.shape, bool)

    def _where(self, node: onnx.NodeProto, inputs: list) -> Value:
        condition, yes, no = inputs
        if isinstance(condition, np.ndarray) and (condition.all() or not condition.any()):
            return yes if condition.all() else no
        raise NotUnderstood("what it selects depends on the image")

    def _concat(self, node: onnx.NodeProto, inputs: list) -> View:
        views = [value for value in inputs if isinstance(value, View)]
        if len(views) < len(inputs) or any(
            view.of is not views[0].of or view.factor != views[0].factor for view in views
        ):
            raise NotUnderstood("it joins tensors of different origin")
        return replace(views[0], at=np.concatenate([v.at for v in views], axis=attributes(node)["axis"]))

    # -- LayerNorm ---------------------------------------------------------------------------------

    def _layernormalization(self, node: onnx.NodeProto, inputs: list) -> View:
        view, weight, bias = (*inputs, None)[:3]
        axis = int(attributes(node).get("axis", -1))
        if axis not in (-1, view.at.ndim - 1):
            raise NotUnderstood("it normalises more than the channels of a token")
        source = self._source(view)
        channels = self._whole_rows(view)
        eps = float(attributes(node).get("epsilon", 1e-5))
        ones, zeros = np.ones(len(channels)), np.zeros(len(channels))
        normed = Normed(view.of.width, label(node), source, ones, zeros, eps)
        result = self._affine(View(normed, view.at), weight, "scale", node)
        return result if bias is None else self._affine(result, bias, "offset", node)

    def _source(self, view: View) -> Quantity:
        if isinstance(view.of, Normed):
            raise NotUnderstood("the residual stream is normalised itself, not only what branches off it")
        if not isinstance(view.of, Stream | Pooled) or view.factor != 1:
            raise NotUnderstood("it normalises something else than the residual stream")
        return view.of

    def _whole_rows(self, view: View) -> np.ndarray:
        """Channels of the last axis, which must be all channels of one row."""
        rows, channels = view.rows, view.channels
        order = channels.reshape(-1, channels.shape[-1])[0]
        if (rows != rows[..., :1]).any() or (channels != order).any():
            raise NotUnderstood("its rows are not the channels of a token")
        if len(order) != view.of.width or len(set(order.tolist())) != len(order):
            raise NotUnderstood("it takes a part of a token's channels")
        return order

    def _reducemean(self, node: onnx.NodeProto, inputs: list) -> View:
        view, options = inputs[0], attributes(node)
        axes = options.get("axes") if len(inputs) < 2 or inputs[1] is None else inputs[1].tolist()
        axes = tuple(axis % view.at.ndim for axis in (axes or range(view.at.ndim)))
        rest = tuple(axis for axis in range(view.at.ndim) if axis not in axes)
        at = view.at.transpose(rest + axes).reshape(*(view.at.shape[axis] for axis in rest), -1)
        shape = [1 if axis in axes else size for axis, size in enumerate(view.at.shape)]
        if not options.get("keepdims", 1):
            shape = [size for axis, size in enumerate(view.at.shape) if axis not in axes]
        flat = View(view.of, at, view.factor)
        rows, channels = flat.rows, flat.channels
        if (channels == channels[..., :1]).all():  # over tokens
            used = rows.reshape(-1, rows.shape[-1])[0]
            if (rows != used).any() or not isinstance(view.of, Stream | Normed) or view.factor != 1:
                raise NotUnderstood("it is not the mean over tokens of the residual stream")
            pooled = Pooled(view.of.width, label(node), view.of, tuple(sorted(used.tolist())))
            return View(pooled, channels[..., 0].reshape(shape))
        self._whole_rows(flat)
        if isinstance(view.of, Centred) and view.of.squared:
            statistic = Statistic(1, label(node), "variance", view.of.of)
        else:
            statistic = Statistic(1, label(node), "mean", self._source(view))
        return View(statistic, rows[..., 0].reshape(shape))

    def _sqrt(self, node: onnx.NodeProto, inputs: list) -> View | None:
        return self._statistic(inputs[0], "variance", "deviation", node)

    def _reciprocal(self, node: onnx.NodeProto, inputs: list) -> View | None:
        return self._statistic(inputs[0], "deviation", "inverse", node)

    def _statistic(self, view: View, old: str, new: str, node: onnx.NodeProto) -> View | None:
        if not isinstance(view.of, Statistic) or view.of.kind != old:
            return None
        return replace(view, of=replace(view.of, kind=new, node=label(node)))

    def _normalised(self, view: View, statistic: View, kind: str, node: onnx.NodeProto) -> View | None:
        """The centred stream over its deviation."""
        if not (
            isinstance(view.of, Centred)
            and not view.of.squared
            and isinstance(statistic.of, Statistic)
            and statistic.of.kind == kind
            and statistic.of.of is view.of.of
        ):
            return None
        self._same_rows(view, statistic)
        width = view.of.width
        eps = statistic.of.eps
        return View(Normed(width, label(node), view.of.of, np.ones(width), np.zeros(width), eps), view.at)

    def _same_rows(self, view: View, statistic: View) -> None:
        if (
            view.rows.shape != np.broadcast_shapes(view.rows.shape, statistic.at.shape)
            or (view.rows != statistic.at).any()
        ):
            raise NotUnderstood("it brings together different tokens")

    # -- sums and products -------------------------------------------------------------------------

    def _add(self, node: onnx.NodeProto, inputs: list) -> View | None:
        a, b = inputs
        if isinstance(a, np.ndarray):
            a, b = b, a
        if isinstance(b, np.ndarray):
            if isinstance(a.of, Statistic) and a.of.kind == "variance" and b.size == 1:
                return replace(a, of=replace(a.of, eps=a.of.eps + float(b.reshape(()))))
            return self._affine(a, b, "offset", node)
        for stream, branch in ((a, b), (b, a)):
            if isinstance(stream.of, Stream) and isinstance(branch.of, Linear):
                return self._residual(stream, branch, node)
        if isinstance(a.of, Linear) and isinstance(b.of, Linear) and a.of is not b.of:
            return self._two_heads(a, b, node)
        if isinstance(a.of, Linear | Pointwise) and isinstance(b.of, Linear | Pointwise):
            return None
        if isinstance(a.of, Normed) or isinstance(b.of, Normed):
            raise NotUnderstood("the residual stream is normalised itself, not only what branches off it")
        raise NotUnderstood("it adds what does not belong together in a vision transformer")

    def _residual(self, stream: View, branch: View, node: onnx.NodeProto) -> View:
        if not np.array_equal(stream.at, branch.at) or stream.of.width != branch.of.width:
            raise NotUnderstood("the branch does not meet the residual stream token by token")
        if stream.factor != 1:
            raise NotUnderstood("the residual stream is scaled")
        return View(Stream(stream.of.width, label(node), stream.of, scaled(branch)), stream.at)

    def _two_heads(self, a: View, b: View, node: onnx.NodeProto) -> View:
        rows = [np.unique(view.rows) for view in (a, b)]
        if (
            any(len(row) != 1 for row in rows)
            or rows[0] == rows[1]
            or a.factor != b.factor
            or not np.array_equal(a.channels, b.channels)
        ):
            raise NotUnderstood("it adds two layers that are not the two heads of a distilled network")
        parts = (scaled(replace(a, factor=1.0)), scaled(replace(b, factor=1.0)))
        total = Sum(a.of.width, label(node), parts, (int(rows[0][0]), int(rows[1][0])), a.factor)
        return View(total, a.channels)

    def _sub(self, node: onnx.NodeProto, inputs: list) -> View | None:
        a, b = inputs
        if isinstance(a, View) and isinstance(b, np.ndarray):
            return self._affine(a, -b, "offset", node)
        if isinstance(a, View) and isinstance(b.of, Statistic) and b.of.kind == "mean" and b.of.of is a.of:
            self._same_rows(a, b)
            return View(Centred(a.of.width, label(node), a.of), a.at)
        return None

    def _pow(self, node: onnx.NodeProto, inputs: list) -> View | None:
        a, b = inputs
        if isinstance(a, View) and isinstance(a.of, Centred) and isinstance(b, np.ndarray) and (b == 2).all():
            return replace(a, of=replace(a.of, squared=True))
        return None

    def _mul(self, node: onnx.NodeProto, inputs: list) -> View | None:
        a, b = inputs
        if isinstance(a, np.ndarray):
            a, b = b, a
        if isinstance(b, np.ndarray):
            return self._affine(a, b, "scale", node)
        if isinstance(a.of, Centred) and a.of is b.of and np.array_equal(a.at, b.at):
            return replace(a, of=replace(a.of, squared=True))
        return self._normalised(a, b, "inverse", node) or self._normalised(b, a, "inverse", node)

    def _div(self, node: onnx.NodeProto, inputs: list) -> View | None:
        a, b = inputs
        if isinstance(b, np.ndarray):
            return self._affine(a, 1 / b.astype(np.float64), "scale", node)
        return self._normalised(a, b, "deviation", node) if isinstance(a, View) else None

    def _affine(self, view: View, constant: np.ndarray, how: str, node: onnx.NodeProto) -> View | None:
        """Constants by channel go into the weights; None if the function is not linear any more."""
        neutral = 1.0 if how == "scale" else 0.0
        if np.broadcast_shapes(view.at.shape, constant.shape) != view.at.shape:
            raise NotUnderstood("a constant is greater than what it meets")
        if (constant == neutral).all():
            return view
        constant = constant.astype(np.float64)
        same = constant.size > 0 and (constant == constant.flat[0]).all()
        if how == "scale" and same:
            value = float(constant.flat[0])
            if isinstance(view.of, Linear):
                return replace(view, factor=view.factor * value)
            if isinstance(view.of, Scores):
                return replace(view, of=replace(view.of, scale=view.of.scale * value))
            if isinstance(view.of, Sum):
                return replace(view, of=replace(view.of, factor=view.of.factor * value))
        if isinstance(view.of, Pointwise) and same:
            return None
        if isinstance(view.of, Stream) and view.of.branch and how == "offset":  # a late bias
            branch = view.of.branch
            branch = replace(branch, bias=branch.bias + self._by_channel(view, constant))
            return replace(view, of=replace(view.of, branch=branch, node=label(node)))
        if not isinstance(view.of, Linear | Normed):
            raise NotUnderstood("a constant meets the activations here, which the accelerator does not do")
        channel = self._by_channel(view, constant)
        of = scaled(view) if isinstance(view.of, Linear) else view.of
        if how == "offset":
            return View(replace(of, bias=of.bias + channel, node=label(node)), view.at)
        weight, bias = of.weight * channel, of.bias * channel
        return View(replace(of, weight=weight, bias=bias, node=label(node)), view.at)

    def _by_channel(self, view: View, constant: np.ndarray) -> np.ndarray:
        full = np.broadcast_to(constant, view.at.shape).reshape(-1)
        channels = view.channels.reshape(-1)
        channel = np.zeros(view.of.width)
        channel[channels] = full
        if (channel[channels] != full).any():
            raise NotUnderstood("the constant differs from token to token")
        return channel

    def _pointwise(self, node: onnx.NodeProto, inputs: list) -> View:
        views = [value for value in inputs if isinstance(value, View)]
        roots = {id(v.of.of if isinstance(v.of, Pointwise) else v.of): v for v in views}
        view = next(iter(roots.values()))
        root = view.of.of if isinstance(view.of, Pointwise) else view.of
        if len(roots) > 1 or not isinstance(root, Linear):
            raise NotUnderstood("it combines activations in a way that the accelerator does not run")
        if any(not np.array_equal(v.at, view.at) for v in views):
            raise NotUnderstood("it combines scalars of different places")

        def samples(value: Value | None) -> np.ndarray | None:
            if isinstance(value, View):
                return value.factor * (value.of.samples if isinstance(value.of, Pointwise) else GRID)
            if value is not None and value.size != 1:
                raise NotUnderstood("its constant differs from place to place")
            return None if value is None else value.reshape(()).astype(np.float64)

        (result,) = evaluate(node, [samples(value) for value in inputs], self.opset)
        return View(Pointwise(root.width, label(node), root, result), view.at)

    # -- linear layers and attention -----------------------------------------------------------------

    def _matmul(self, node: onnx.NodeProto, inputs: list) -> View:
        a, b = inputs
        if isinstance(b, np.ndarray):
            return self._linear(a, b, node)
        if isinstance(a, np.ndarray):
            raise NotUnderstood("a constant is multiplied from the left")
        if isinstance(a.of, Linear) and isinstance(b.of, Linear):
            return self._scores(a, b, node)
        if isinstance(a.of, Probabilities) and isinstance(b.of, Linear):
            return self._mixed(a, b, node)
        raise NotUnderstood("it multiplies what does not belong together in attention")

    def _gemm(self, node: onnx.NodeProto, inputs: list) -> View:
        view, weight, bias = (*inputs, None)[:3]
        options = attributes(node)
        if not isinstance(weight, np.ndarray) or options.get("transA", 0) or isinstance(bias, View):
            raise NotUnderstood("its weights are not constant")
        weight = weight.astype(np.float64) * options.get("alpha", 1.0)
        result = self._linear(view, weight.T if options.get("transB", 0) else weight, node)
        if bias is None:
            return result
        return self._affine(result, bias * options.get("beta", 1.0), "offset", node)

    def _linear(self, view: View, weight: np.ndarray, node: onnx.NodeProto) -> View:
        weight = weight.astype(np.float64)
        while weight.ndim > 2 and weight.shape[0] == 1:
            weight = weight[0]
        if weight.ndim != 2:
            raise NotUnderstood("its weights are not one matrix")
        if not isinstance(view.of, Normed | Mixed | Pointwise | Pooled):
            raise NotUnderstood("a linear layer stands where the accelerator has none")
        order = self._whole_rows(view)
        canonical = np.empty_like(weight)
        canonical[order] = weight * view.factor
        width = weight.shape[1]
        layer = Linear(width, label(node), view.of, canonical, np.zeros(width))
        return View(layer, view.rows[..., :1] * width + np.arange(width))

    def _einsum(self, node: onnx.NodeProto, inputs: list) -> View:
        equation = attributes(node)["equation"].decode().replace(" ", "")
        terms, _, out = equation.partition("->")
        terms = terms.split(",")
        if len(terms) != 2 or "." in equation or any(len(set(t)) < len(t) for t in (*terms, out)):
            raise NotUnderstood(f"of Einsum only products of two tensors are read, not {equation}")
        (a, b), (left, right) = inputs, terms
        if isinstance(a, np.ndarray):
            a, b, left, right = b, a, right, left
        shared = "".join(x for x in left if x in right and x in out)
        summed = "".join(x for x in left if x in right and x not in out)
        own, other = ("".join(x for x in term if x not in shared + summed) for term in (left, right))
        constant = isinstance(b, np.ndarray)
        if not summed or set(own + other) - set(out) or (constant and shared):
            raise NotUnderstood(f"{equation} is neither a linear layer nor a product of attention")
        sizes = dict(zip(left, a.at.shape, strict=True)) | dict(
            zip(right, b.shape if constant else b.at.shape, strict=True)
        )

        def ordered(array: np.ndarray, term: str, *groups: str) -> np.ndarray:
            array = array.transpose([term.index(x) for group in groups for x in group])
            return array.reshape(
                *(sizes[x] for x in shared), *(math.prod(sizes[x] for x in g) for g in groups[1:])
            )

        first = replace(a, at=ordered(a.at, left, shared, own, summed))
        if constant:
            product = self._linear(first, ordered(b, right, "", summed, other), node)
        else:
            product = self._matmul(node, [first, replace(b, at=ordered(b.at, right, shared, summed, other))])
        order = shared + own + other
        at = product.at.reshape([sizes[x] for x in order])
        return replace(product, at=at.transpose([order.index(x) for x in out]))

    def _heads(self, view: View, transposed: bool) -> tuple[np.ndarray, np.ndarray]:
        """Token order [tokens] and columns [heads, size] of a tensor [..., tokens, size]."""
        at = view.at.swapaxes(-1, -2) if transposed else view.at
        at = at.reshape(-1, *at.shape[-2:])
        rows, channels = at // view.of.width, at % view.of.width
        tokens, columns = rows[0, :, 0], channels[:, 0]
        if (rows != tokens[:, None]).any() or (channels != columns[:, None]).any():
            raise NotUnderstood("heads and tokens are mixed up")
        if not np.array_equal(np.sort(tokens), np.arange(len(tokens))):
            raise NotUnderstood("attention does not see every token once")
        return tokens, columns

    def _scores(self, q: View, k: View, node: onnx.NodeProto) -> View:
        q_tokens, q_columns = self._heads(q, transposed=False)
        k_tokens, k_columns = self._heads(k, transposed=True)
        if q_columns.shape != k_columns.shape or len(q_tokens) != len(k_tokens):
            raise NotUnderstood("queries and keys differ in number")
        n, scale = len(q_tokens), q.factor * k.factor
        scores = Scores(n, label(node), q.of, k.of, q_columns, k_columns, scale)
        heads = np.arange(len(q_columns))[:, None, None]
        at = (heads * n + q_tokens[:, None]) * n + k_tokens
        return View(scores, at.reshape(*q.at.shape[:-1], n))

    def _softmax(self, node: onnx.NodeProto, inputs: list) -> View:
        (view,) = inputs
        axis = int(attributes(node).get("axis", -1 if self.opset >= 13 else 1))
        if axis not in (-1, view.at.ndim - 1):
            raise NotUnderstood("the softmax is not over the last axis")
        self._whole_rows(view)
        if isinstance(view.of, Scores):
            return View(Probabilities(view.of.width, label(node), view.of), view.at)
        if isinstance(view.of, Linear | Sum):
            of = scaled(view) if isinstance(view.of, Linear) else view.of
            return View(Classes(view.of.width, label(node), of), view.at)
        raise NotUnderstood("a softmax stands where the accelerator has none")

    def _mixed(self, p: View, v: View, node: onnx.NodeProto) -> View:
        n = p.of.width
        at = p.at.reshape(-1, *p.at.shape[-2:])
        tokens, columns = self._heads(v, transposed=False)
        heads, rows = at[:, 0, 0] // (n * n), at[0, :, 0] // n % n
        if (
            not np.array_equal(heads, np.arange(len(columns)))
            or (at != (heads[:, None, None] * n + rows[:, None]) * n + tokens).any()
        ):
            raise NotUnderstood("probabilities and values do not meet head by head")
        layer = scaled(v)
        width = columns.size
        mixed = Mixed(width, label(node), p.of, layer, columns)
        at = rows[:, None] * width + np.arange(width).reshape(len(columns), 1, -1)
        return View(mixed, at.reshape(*p.at.shape[:-1], columns.shape[1]))

    def _attention(self, node: onnx.NodeProto, inputs: list) -> View:
        """ONNX's fused operator: [B, heads, tokens, size], or [B, tokens, channels] with head counts."""
        options = attributes(node)
        odd = {key: options[key] for key in ("is_causal", "softcap") if options.get(key)}
        if odd or any(value is not None for value in inputs[3:]):
            raise NotUnderstood("attention is masked, capped or cached")
        views = list(inputs[:3])
        flat = views[0].at.ndim == 3
        if flat:
            counts = options["q_num_heads"], *[options["kv_num_heads"]] * 2
            views = [
                replace(view, at=view.at.reshape(*view.at.shape[:2], count, -1).swapaxes(1, 2))
                for view, count in zip(views, counts, strict=True)
            ]
        q, k, v = views
        scale = options.get("scale") or q.at.shape[-1] ** -0.5
        scores = self._scores(q, replace(k, at=k.at.swapaxes(-1, -2)), node)
        scores = replace(scores, of=replace(scores.of, scale=scores.of.scale * scale))
        mixed = self._mixed(View(Probabilities(scores.of.width, label(node), scores.of), scores.at), v, node)
        if not flat:
            return mixed
        at = mixed.at.swapaxes(1, 2)
        return replace(mixed, at=at.reshape(*at.shape[:2], -1))
