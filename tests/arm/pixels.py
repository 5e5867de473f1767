# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of the pixels that networks get from photos and frames: the same on every processor.

``python pixels.py FOLDER`` has a line for each JPEG and PNG of the folder, for arrays of RGB and YUYV made of
them, for three preprocessings and both front ends.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from rowvit.images import for_network


def inputs(folder: Path) -> Iterator[tuple[str, bytes | np.ndarray]]:
    for file in sorted(folder.iterdir()):
        yield file.name, file.read_bytes()
        if file.suffix == ".png":
            with Image.open(file) as photo:
                pixels = np.array(photo.convert("RGB"))
            yield f"{file.name} as RGB", pixels
            yield f"{file.name} as YUYV", np.ascontiguousarray(pixels[:, : pixels.shape[1] & ~1, :2])


for size, resize, crop in ((100, "bilinear", 1.0), (112, "bicubic", 1.0), (224, "bicubic", 0.875)):
    meta = {
        "preprocessing": {"resize": resize, "crop": crop},
        "architecture": {"image_size": size},
    }
    for name, photo in inputs(Path(sys.argv[1])):
        for frontend in ("host", "hls"):
            pixels = for_network(photo, meta, frontend)
            print(name, size, frontend, pixels.shape, hashlib.sha256(pixels.tobytes()).hexdigest())
