# SPDX-License-Identifier: Apache-2.0
"""What the page draws of a photo."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from rowvit.quant.synthetic import random_package
from rowvit.serve.cards import shown
from rowvit.serve.engine import TimedResult
from rowvit.serve.networks import Network
from rowvit.serve.service import Classified


def test_a_photo_is_shown_as_its_network_crops_it():
    package = random_package(
        np.random.default_rng(1), dim=32, depth=1, heads=2, image_size=12, patch_size=2, hidden=48, classes=5
    )
    package.meta["preprocessing"]["crop"] = 0.5
    framed = Image.new("RGB", (200, 200), "red")
    framed.paste("blue", (50, 50, 150, 150))
    photo = io.BytesIO()
    framed.save(photo, "PNG")
    pixels = np.zeros((12, 12, 3), np.uint8)
    one = Classified(Network("small", package), pixels, TimedResult(None, 0.0, 0.0), [])
    for frontend in ("host", "hls"):
        square = shown(photo.getvalue(), one, frontend, 64)
        assert (np.asarray(square) == np.full((64, 64, 3), (0, 0, 255))).all()
