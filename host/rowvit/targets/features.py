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
