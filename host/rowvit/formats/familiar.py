# SPDX-License-Identifier: Apache-2.0
"""How far a photo is from all that a network's classes look like, so that it need not be one of them.

The distance is Mahalanobis', of the class token behind the last LayerNorm, rounded as the head sees it, from
the nearest class's mean, with one covariance for all classes (arXiv 1807.03888). ``familiar`` of a
description has ``limit``, which the photos of its classes rarely exceed, and ``alarms``, the share of them
that do. The tensors are familiar.whitening float32 [D, D] and familiar.means float32 [classes, D], whitened;
with ``odd``, familiar.odd float32 [odd, D], too, the means of kinds of pictures that show nothing, whitened.
A picture that is nearer to one of these than to every class is beyond the limit, however near it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.formats import tokens
from rowvit.formats.tokens import Tokens

TENSORS = "familiar."  #: with which names of tensors begin


def problems(meta: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with ``familiar`` of a description."""
    last = meta["architecture"]["depth"] - 1
    if last not in tokens.layers(meta) or not tokens.normalised(meta) or not meta["architecture"]["prefix"]:
        yield "what is familiar takes the class token behind the last layer, and its LayerNorm"
    if not meta["classes"]:
        yield "what is familiar looks like one of the classes, and there are none"


def tensor_table(meta: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every tensor of it: name -> (dtype, shape)."""
    if "familiar" not in meta:
        return {}
    dim, odd = meta["architecture"]["dim"], meta["familiar"].get("odd", 0)
    return {
        f"{TENSORS}whitening": ("float32", (dim, dim)),
        f"{TENSORS}means": ("float32", (len(meta["classes"]), dim)),
    } | ({f"{TENSORS}odd": ("float32", (odd, dim))} if odd else {})


def seen(values: NDArray[Any], unit: float) -> NDArray[np.float32]:
    """What a head sees of class tokens: whole numbers of its unit, from -127 to 127."""
    found: NDArray[np.float32] = np.clip(np.round(values / unit), -127, 127).astype(np.float32)
    return found


def distance(
    meta: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], answered: Mapping[int, Tokens]
) -> float | None:
    """Of an image from the nearest class, in units of the limit; None if the network does not say.

    Where a kind of odd pictures is nearer, in units of the distance from that, if this is more.

    Parameters
    ----------
    meta : mapping
        Description of a package or program.
    tensors : mapping
        Its own, at least those of `tensor_table`.
    answered : mapping
        The tokens of the image, by layer.
    """
    if "familiar" not in meta:
        return None
    token = answered[meta["architecture"]["depth"] - 1].values[0]
    unit = float(meta["scales"]["norm"])
    x = unit * seen(token.astype(np.float32) * np.float32(meta["scales"]["tokens"]), unit)
    white = x @ tensors[f"{TENSORS}whitening"]

    def nearest(name: str) -> float:
        return float(np.sqrt(np.square(white - tensors[TENSORS + name]).sum(axis=1).min()))

    far = nearest("means")
    found = far / float(meta["familiar"]["limit"])
    if meta["familiar"].get("odd") and (odd := nearest("odd")) < far:
        found = max(found, far / max(odd, 1e-6))
    return found
