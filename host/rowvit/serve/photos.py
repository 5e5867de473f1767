# SPDX-License-Identifier: Apache-2.0
"""Pictures from strangers: those that cannot be used are refused by a status and a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from rowvit.decoding import TooLarge, hearing
from rowvit.errors import RowvitError
from rowvit.images import NoPicture, for_network
from rowvit.reference.frontend import Geometry
from rowvit.serve.refusal import Refusal


@contextmanager
def refusing() -> Iterator[None]:
    """`Refusal` for pictures: 413 if one is too large, 415 if it is none, 400 if it is damaged or not fit."""
    try:
        yield
    except Refusal:
        raise
    except RowvitError as error:
        status = 413 if isinstance(error, TooLarge) else 415 if isinstance(error, NoPicture) else 400
        said = error.message.removeprefix("the image: ")
        raise Refusal(status, f"the file {said}" if said[0].islower() else said, error.advice) from error


def pixels_of(data: bytes, meta: dict, frontend: str) -> tuple[np.ndarray, list[str]]:
    """Decode a picture as `images.for_network` does, and what is to be said of it.

    Raises
    ------
    Refusal
        400 if it is empty, no complete picture or not for the HLS front end, 413 if decoding it takes more
        memory than pictures may, 415 if its format is not one of ``images.FORMATS``.
    """
    if not data:
        raise Refusal(400, "the request holds no picture", "send a JPEG or PNG file")
    with refusing(), hearing() as said:
        pixels = for_network(data, meta, frontend)
    check_size(pixels.shape[1], pixels.shape[0], meta, frontend)
    return pixels, said


def check_size(width: int, height: int, meta: dict, frontend: str) -> None:
    """`Refusal` 400 for an image that the HLS front end does not take; the host's takes one size only."""
    if frontend == "hls":
        with refusing():
            Geometry.for_network(width, height, meta["architecture"])
