# SPDX-License-Identifier: Apache-2.0
"""Features: the tokens that a network answers with, of several images, as floats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.formats import tokens
from rowvit.formats.tokens import Tokens


class Features(NamedTuple):
    """Tokens of images, the class token first."""

    values: NDArray[Any]  #: float32 [B, N, D]; zeros where an image has fewer tokens
    #: int64 [B, N]: their numbers among all tokens of the network, of which pruning drops some; -1 where an
    #: image has fewer
    indices: NDArray[Any]


def most(meta: Mapping[str, Any], layer: int) -> int:
    """The most tokens that an image has behind a layer."""
    live: int = meta["architecture"]["tokens"]
    for step in meta["pruning"]:
        if step["layer"] <= layer:
            live = min(live, step["keep"] + 1)
    return tokens.count(meta, live)


def layer_of(meta: Mapping[str, Any], layer: int | None) -> int:
    """The layer that is meant, by default the last one that the network answers behind.

    `RowvitError` if the network does not answer with tokens, or not behind this layer.
    """
    layers = tokens.layers(meta)
    if not layers:
        raise RowvitError(
            "the network answers with classes only",
            "quantise it with --tokens class or all, or load package.with_tokens()",
        )
    if layer is None:
        return layers[-1]
    if layer not in layers:
        there = ", ".join(map(str, layers))
        raise RowvitError(f"the network does not answer behind layer {layer}", f"it does behind {there}")
    return layer


def features(
    answers: Sequence[Mapping[int, Tokens]], meta: Mapping[str, Any], layer: int | None = None
) -> Features:
    """The tokens of several images.

    Parameters
    ----------
    answers : sequence of mappings
        `Result.tokens` of every image.
    meta : mapping
        Description of the package or program that computed them.
    layer : int, optional
        Behind which layer, from 0; by default the last one that there is.

    Raises
    ------
    RowvitError
        As `layer_of`.
    """
    layer = layer_of(meta, layer)
    width = most(meta, layer)
    values = np.zeros((len(answers), width, meta["architecture"]["dim"]), np.float32)
    indices = np.full((len(answers), width), -1, np.int64)
    for row, numbers, answer in zip(values, indices, answers, strict=True):
        own = answer[layer]
        row[: len(own.values)] = own.values
        numbers[: len(own.indices)] = own.indices
    values *= np.float32(meta["scales"]["tokens"])
    return Features(values, indices)


def row_arrays(answers: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """`Result.rows` of several images, by name: [B, rows, ...]; where an image has fewer, indices are -1."""
    found: dict[str, NDArray[Any]] = {}
    width = max((len(answer["indices"]) for answer in answers if answer), default=0)
    for name in answers[0] if answers else ():
        parts = [answer[name] for answer in answers]
        shape = len(answers), width, *parts[0].shape[1:]
        found[name] = np.full(shape, -1 if name == "indices" else 0, parts[0].dtype)
        for row, part in zip(found[name], parts, strict=True):
            row[: len(part)] = part
    return found


def told(rows: Mapping[str, NDArray[Any]], names: Sequence[str], most: int = 3) -> list[tuple[str, float]]:
    """What the heads of rows say of an image, in a few words, the surest first.

    With boxes, things (not the last name, which is that of nothing) and their probabilities, from 0.5 on;
    without, names and their shares of the patches.
    """
    scores = rows["scores"].astype(np.float64)
    chosen = scores.argmax(axis=1)
    if "boxes" not in rows:
        shares = np.bincount(chosen, minlength=len(names)) / max(len(chosen), 1)
        order = np.argsort(-shares, kind="stable")[:most]
        return [(str(names[i]), float(shares[i])) for i in order if shares[i] > 0]
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    sure = exponentials.max(axis=1) / exponentials.sum(axis=1)
    things = (sure >= 0.5) & (chosen != len(names) - 1)
    best = [i for i in np.argsort(-sure, kind="stable") if things[i]]
    return [(str(names[chosen[i]]), float(sure[i])) for i in best[:most]]
