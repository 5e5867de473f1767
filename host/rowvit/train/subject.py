# SPDX-License-Identifier: Apache-2.0
"""What a photo shows before a plain, light background, and other backgrounds for it.

Made for the hand signs: skin is redder than the paper behind it, whatever the light. No network takes part,
so that the mask can also judge which patches a network keeps.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageFilter

_BINS = 128


def subject(image: Image.Image) -> Image.Image:
    """The subject of an RGB photo as a mask "L" of the same size: 255 on it, otherwise 0.

    Otsu's threshold (IEEE Trans. SMC 9, 1979) of red less blue, slightly blurred before and cleared of specks
    after it.
    """
    side = min(image.size)
    smooth = np.asarray(image.filter(ImageFilter.GaussianBlur(side / 80)), np.int16)
    redness = smooth[..., 0] - smooth[..., 2]
    mask = Image.fromarray(np.where(redness > _otsu(redness), 255, 0).astype(np.uint8))
    return mask.filter(ImageFilter.MedianFilter(max(3, side // 20 | 1)))


def _otsu(values: np.ndarray) -> float:
    """The threshold between the two classes that differ most."""
    counts, edges = np.histogram(values, _BINS)
    centres = (edges[1:] + edges[:-1]) / 2
    below, weighted = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    distance = weighted / np.maximum(below, 1) - (weighted[-1] - weighted) / np.maximum(above, 1)
    return float(centres[np.argmax(below * above * distance**2)])


def background(width: int, height: int) -> Image.Image:
    """Coloured noise of a random grain, from torch's generator."""
    grain = int(torch.randint(1, 9, ()))
    noise = torch.randint(0, 256, (grain, grain, 3), dtype=torch.uint8).numpy()
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def on_patches(mask: np.ndarray, patch: int) -> np.ndarray:
    """Share of each patch that is subject, row by row: float [n, patches] of masks uint8 [n, S, S]."""
    count, side, _ = mask.shape
    cells = mask.reshape(count, side // patch, patch, side // patch, patch)
    return cells.mean(axis=(2, 4)).reshape(count, -1) / 255
