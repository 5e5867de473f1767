# SPDX-License-Identifier: Apache-2.0
"""Pictures from strangers: what is no picture, or would take too much memory, is refused before decoding."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

from rowvit.errors import RowvitError
from rowvit.images import for_network
from rowvit.reference.frontend import Geometry
from rowvit.serve.refusal import Refusal

#: what cameras, phones and browsers make; others of Pillow's formats run programs, or say their size late
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
PIXELS = 25_000_000  # of a picture, by its header; decoding takes 3 bytes or more for each


def pixels_of(data: bytes, meta: dict, frontend: str) -> np.ndarray:
    """Decode a picture as `images.for_network` does.

    Raises
    ------
    Refusal
        400 if it is empty, no complete picture or not for the HLS front end, 413 if it has more than
        `PIXELS`, 415 if its format is not one of `FORMATS`.
    """
    if not data:
        raise Refusal(400, "the request holds no picture", "send a JPEG or PNG file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is lower
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                size = image.size
    except Image.DecompressionBombError:
        raise Refusal(413, "the picture has too many pixels", f"send at most {PIXELS:,}") from None
    except (OSError, ValueError, SyntaxError, TypeError):
        raise Refusal(
            415, "this is no picture", f"send one of {', '.join(FORMATS)}, complete, of a size above 0"
        ) from None
    if size[0] * size[1] > PIXELS:
        raise Refusal(
            413, f"the picture has {size[0]:,} x {size[1]:,} pixels", f"send at most {PIXELS:,} in all"
        )
    try:
        pixels = for_network(data, meta, frontend)
    except RowvitError as error:
        raise Refusal(400, error.message, error.advice) from error
    check_size(pixels.shape[1], pixels.shape[0], meta, frontend)
    return pixels


def check_size(width: int, height: int, meta: dict, frontend: str) -> None:
    """`Refusal` 400 for an image that the HLS front end does not take; the host's takes one size only."""
    if frontend == "hls":
        try:
            Geometry.for_network(width, height, meta["architecture"])
        except RowvitError as error:
            raise Refusal(400, error.message, error.advice) from error
