# SPDX-License-Identifier: Apache-2.0
"""A network of random weights whose blocks do something, and coloured squares for it to look at."""

from __future__ import annotations

import numpy as np
import photos as sets
import torch

from rowvit.model import store
from rowvit.model.vit import VisionTransformer, ViTConfig

CARD = store.Card("squares", list(sets.COLOURS))


def network(config: ViTConfig) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(config).eval()
    for block in model.blocks:  # blocks that do something
        for linear in (block.mlp.fc1, block.mlp.fc2, block.attn.proj):
            linear.weight.data *= 3
    return model


def pictures(count: int = 60) -> np.ndarray:
    return np.stack(sets.labelled(count, 4)[0])
