# SPDX-License-Identifier: Apache-2.0
"""Gives a float network a gated FFN with SiLU (SwiGLU): python gates.py FROM TO

The hidden neurons are two thirds as many, rounded to whole groups of 8, so that the FFN has as many weights
as before; they are new, the attention is FROM's.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from rowvit.model import store
from rowvit.model.vit import VisionTransformer


def main() -> None:
    """Write TO."""
    source, target = sys.argv[1:]
    old, card = store.load(source)
    torch.manual_seed(0)
    hidden = round(old.config.hidden * 2 / 3 / 8) * 8
    new = VisionTransformer(replace(old.config, act="silu", gated=True, hidden=hidden))
    kept = {name: tensor for name, tensor in old.state_dict().items() if ".mlp." not in name}
    new.load_state_dict(new.state_dict() | kept)
    card.accuracy = {}
    card.history.append("a new gated FFN")
    store.save(target, new, card)


if __name__ == "__main__":
    main()
