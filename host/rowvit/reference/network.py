# SPDX-License-Identifier: Apache-2.0
"""The whole network in integers, bit for bit what the accelerator computes.

Linear layers run over the rows of several images at once; attention and selection run per image,
because images may keep different numbers of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.formats import tokens
from rowvit.formats.description import in_places, lanes_each
from rowvit.formats.package import ModelPackage, patch_chunks
from rowvit.formats.records import checkpoint_names
from rowvit.formats.tokens import Tokens
from rowvit.formats.work import Work, count_work
from rowvit.reference.attention import exponentials, logits, rotate, select, token_scores, weigh
from rowvit.reference.head import head_logits, row_answers
from rowvit.reference.layers import gate, layernorm, linear, relu, requant, residual_add, token_values
from rowvit.reference.primitives import sat8

IMAGES_AT_ONCE = 4  # activations of more images would not stay in a core's cache


@dataclass
class Counts(Work[int]):
    """Work done for one image, and the numbers behind it, of every layer."""

    #: rows that enter the FFN
    live: list[int] = field(default_factory=list)
    #: nonzero hidden activations
    ffn2_nonzeros: list[int] = field(default_factory=list)
    #: nonzero unnormalised probabilities, over heads and rows
    pv_nonzeros: list[int] = field(default_factory=list)
    #: uint8 [live, hidden / 8]: a bit (as of ``numpy.packbits``) for every hidden activation that is not 0,
    #: before it one for its gate, if it has one
    hidden_bits: list[NDArray[Any]] = field(default_factory=list, repr=False, compare=False)
    #: uint16 [tiles, hidden], likewise: the first row of a tile that uses a hidden neuron, ``live`` if none
    #: does; with rules "image" and "none" one tile
    w2_first: list[NDArray[Any]] = field(default_factory=list, repr=False, compare=False)
    #: uint8 [heads, rows, rows / 8], likewise of unnormalised probabilities
    pv_bits: list[NDArray[Any]] = field(default_factory=list, repr=False, compare=False)


@dataclass
class ImageResult:
    """Results of one image."""

    logits: NDArray[Any]  #: int16 [classes]; float32 where the host computes the head
    kept: list[
        NDArray[Any]
    ]  #: int64, per pruning layer: original indices of the tokens that stay, 0 included
    #: uint8 [heads, rows], of every layer: the class token's unnormalised probabilities of the tokens that
    #: enter it
    attention: list[NDArray[Any]]
    counts: Counts
    #: int16 [live, D], states of the residual stream by `checkpoint_names`; empty unless asked for
    checkpoints: dict[str, NDArray[Any]]
    tokens: dict[int, Tokens]  #: by the layer behind which they are; see `formats.tokens.layers`
    rows: dict[str, NDArray[Any]] = field(default_factory=dict)  #: of `reference.head.row_answers`

    @property
    def top1(self) -> int:
        """Lowest index among the largest logits; -1 if there are none."""
        return int(self.logits.argmax()) if self.logits.size else -1


def patchify(images: NDArray[Any], patch: int) -> NDArray[Any]:
    """Cut images into patches.

    Parameters
    ----------
    images : uint8 array [B, H, W, 3]
    patch : int
        Side of a patch in pixels; divides H and W.

    Returns
    -------
    int8 array [B, (H / patch) * (W / patch), 3 * patch**2]
        ``pixel - 128``; patches in raster order, scalars in the order (y, x, channel).
    """
    batch, height, width, channels = images.shape
    rows, columns = height // patch, width // patch
    tiles = (images ^ 0x80).view(np.int8).reshape(batch, rows, patch, columns, patch, channels)
    return tiles.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, patch * patch * channels)


def run(package: ModelPackage, patches: NDArray[Any], checkpoints: bool = False) -> list[ImageResult]:
    """Run the network on a batch.

    Parameters
    ----------
    package : ModelPackage
    patches : int8 array [B, tokens - prefix, K]
        From `patchify`.
    checkpoints : bool
        Also return the residual stream after every half layer.

    Raises
    ------
    RowvitError
        ``patches`` does not have this network's shape or type.
    """
    expected = (package.arch["tokens"] - package.arch["prefix"], package.tensors["patch.weight"].shape[0])
    if patches.dtype != np.int8 or patches.ndim != 3 or patches.shape[1:] != expected:
        raise RowvitError(
            f"patches are {patches.dtype} {list(patches.shape)}",
            f"network {package.meta['name']} takes int8 [images, {expected[0]}, {expected[1]}] from patchify",
        )
    results: list[ImageResult] = []
    for first in range(0, len(patches), IMAGES_AT_ONCE):
        results += _Batch(package, patches[first : first + IMAGES_AT_ONCE], checkpoints).run()
    return results


class _Batch:
    """Residual rows of a few images, one image after the other, and what is recorded of them."""

    def __init__(self, package: ModelPackage, patches: NDArray[Any], checkpoints: bool) -> None:
        self.meta, self.arch, self.tensors = package.meta, package.arch, package.tensors
        self.patches = patches
        self.record = checkpoints
        self.checkpoints = iter(checkpoint_names(self.arch["depth"]))
        self.results = [
            ImageResult(np.empty(0, np.int16), [], [], Counts(0, 0, 0, 0), {}, {}) for _ in patches
        ]
        self.tokens = [
            np.arange(self.arch["tokens"], dtype=np.int64) for _ in patches
        ]  # original indices of the live rows

    def run(self) -> list[ImageResult]:
        steps = {step["layer"]: step for step in self.meta["pruning"]}
        self._embed()
        for i, params in enumerate(self.meta["params"]["layers"]):
            self._attention(f"layers.{i}", params, steps.get(i))
            self._ffn(f"layers.{i}", params)
            if i in tokens.layers(self.meta):
                self._answer_tokens(i)
        if self.arch["classes"]:
            self._head()
        elif "host_head" in self.meta:
            for result in self.results:
                answer = result.tokens[self.arch["depth"] - 1]
                result.logits = head_logits(self.meta, self.tensors, answer)
        for result in self.results:
            if "row_heads" in self.meta:
                result.rows = row_answers(self.meta, self.tensors, result.tokens[self.arch["depth"] - 1])
            result.counts = self._count(result.counts)
        return self.results

    def _slices(self) -> list[slice]:
        """Rows of every image in the flat residual stream."""
        ends = np.cumsum([len(tokens) for tokens in self.tokens])
        return [slice(end - len(tokens), end) for end, tokens in zip(ends, self.tokens, strict=True)]

    def _checkpoint(self) -> None:
        name = next(self.checkpoints)
        if self.record:
            for result, rows in zip(self.results, self._slices(), strict=True):
                result.checkpoints[name] = self.residual[rows].copy()

    def _norm(self, x: NDArray[Any], name: str, shift: int) -> NDArray[Any]:
        return layernorm(x, self.tensors[f"{name}.g"], self.tensors[f"{name}.b"], shift)

    def _linear(self, x: NDArray[Any], name: str, shift: int) -> NDArray[Any]:
        weight, bias, mult = (self.tensors[f"{name}.{part}"] for part in ("weight", "bias", "mult"))
        return linear(x, weight, bias, mult, shift)

    def _embed(self) -> None:
        prefix = self.arch["prefix"]
        residual = np.repeat(self.tensors["pos"][None], len(self.patches), axis=0)
        weight, mult = self.tensors["patch.weight"], self.tensors["patch.mult"]
        for chunk in patch_chunks(self.arch):
            part = self.patches[..., chunk]
            y = linear(part, weight[chunk], 0, mult, self.meta["params"]["patch.shift"])
            residual[:, prefix:] = residual_add(residual[:, prefix:], y)
        self.residual = residual.reshape(-1, self.arch["dim"])
        if "pre_norm" in self.meta:
            params = self.meta["params"]
            x = self._norm(self.residual, "pre_norm", params["pre_norm.shift"])
            # a product with 127 times the identity, whose result takes the residual stream's place
            self.residual = requant(
                x.astype(np.int32) * 127, 0, self.tensors["pre.mult"], params["pre.shift"]
            )
        self._checkpoint()

    def _attention(self, name: str, params: dict[str, Any], step: dict[str, Any] | None) -> None:
        dim, heads = self.arch["dim"], self.arch["heads"]
        x = self._norm(self.residual, f"{name}.norm1", params["norm1.shift"])
        q, k, v = (self._linear(x, f"{name}.{part}", params[f"{part}.shift"]) for part in "qkv")
        q, k, v = (
            (self._rotated(q), self._rotated(k), sat8(v)) if "rotary" in self.meta else map(sat8, (q, k, v))
        )
        kept_rows, mixed = [], []
        for image, rows in enumerate(self._slices()):
            counts, n = self.results[image].counts, len(self.tokens[image])

            def split(t: NDArray[Any], rows: slice = rows, n: int = n) -> NDArray[Any]:
                return t[rows].reshape(n, heads, dim // heads).transpose(1, 0, 2)

            s = logits(split(q), split(k), params["s_mult"], params["s_shift"])
            e = exponentials(s)
            o = weigh(e, split(v), params["pv_shift"]).transpose(1, 0, 2).reshape(n, dim)
            weighed = e != 0
            self.results[image].attention.append(e[:, 0].copy())  # not a view of all rows
            keep = np.arange(n)
            if step is not None:
                keep = select(token_scores(s[:, 0]), step["keep"], step["threshold"])
                self.tokens[image] = self.tokens[image][keep]
                self.results[image].kept.append(self.tokens[image])
            kept_rows.append(rows.start + keep)
            mixed.append(o[keep])
            counts.pv_nonzeros.append(int(np.count_nonzero(weighed)))
            counts.pv_bits.append(np.packbits(weighed, axis=2))
        y = self._linear(np.concatenate(mixed), f"{name}.proj", params["proj.shift"])
        self.residual = residual_add(self.residual[np.concatenate(kept_rows)], y)
        self._checkpoint()

    def _rotated(self, y: NDArray[Any]) -> NDArray[Any]:
        places = self.tensors["rope.places"][np.concatenate(self.tokens)]
        heads = y.reshape(len(y), self.arch["heads"], -1)
        return rotate(heads, self.tensors["rope.table"], places).reshape(y.shape)

    def _ffn(self, name: str, params: dict[str, Any]) -> None:
        x = self._norm(self.residual, f"{name}.norm2", params["norm2.shift"])
        y = self._linear(x, f"{name}.fc1", params["fc1.shift"])
        hidden = gate(y) if "gated" in self.meta else relu(y, params["thr"])
        weight, bias, mult = (self.tensors[f"{name}.fc2.{part}"] for part in ("weight", "bias", "mult"))
        size = self.meta["ffn_chunk"]
        for first in range(0, len(weight), size):
            chunk = slice(first, first + size)
            y = linear(hidden[:, chunk], weight[chunk], bias if first == 0 else 0, mult, params["fc2.shift"])
            self.residual = residual_add(self.residual, y)
        self._checkpoint()
        for result, rows in zip(self.results, self._slices(), strict=True):
            self._count_ffn(result.counts, hidden[rows])

    def _count_ffn(self, counts: Counts, hidden: NDArray[Any]) -> None:
        n, live = len(hidden), in_places(hidden != 0, lanes_each(self.meta))
        tile = self.meta["tile_rows"] if self.meta["ffn2_rule"] == "tile" else n
        starts = np.arange(0, n, tile)
        first = np.where(live, np.arange(n, dtype=np.uint16)[:, None], np.uint16(n))
        first = np.minimum.reduceat(first, starts, axis=0)
        counts.live.append(n)
        counts.ffn2_nonzeros.append(int(np.count_nonzero(live)))
        counts.hidden_bits.append(np.packbits(live, axis=1))
        counts.w2_first.append(first)

    def _count(self, counts: Counts) -> Counts:
        rows = sum(int((first < n).sum()) for first, n in zip(counts.w2_first, counts.live, strict=True))
        work = count_work(self.meta, counts.live, sum(counts.pv_nonzeros), sum(counts.ffn2_nonzeros), rows)
        return replace(counts, **vars(work))

    def _answer_tokens(self, layer: int) -> None:
        for result, rows, live in zip(self.results, self._slices(), self.tokens, strict=True):
            own = self.residual[rows][: tokens.count(self.meta, len(live))]
            if tokens.normalised(self.meta):
                gain, offset = self.tensors["tokens.g"], self.tensors["tokens.b"]
                own = token_values(own, gain, offset, self.meta["tokens"]["shift"])
            result.tokens[layer] = Tokens(own, live[: len(own)])

    def _head(self) -> None:
        first = self.residual[[rows.start for rows in self._slices()]]
        x = self._norm(first, "norm", self.meta["params"]["norm.shift"])
        y = self._linear(x, "head", self.meta["params"]["head.shift"])
        for result, values in zip(self.results, y, strict=True):
            result.logits = values
