# SPDX-License-Identifier: Apache-2.0
"""Divide what the last block writes into the residual stream by 8, for training to go on from there.

``python recipes/cifar10-vit-s14/calm.py NETWORK.safetensors -o OUTPUT.safetensors``. The LayerNorm after the
last block takes no notice of the stream's size, so training lets it grow; but in int8 one scale of the stream
serves all blocks (docs/numerics.md), and the others are left with few of its levels. The logits change, as
the last block's share of its own stream gets smaller.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from rowvit.model import store

DIVISOR = 8


def main() -> None:
    """Scale both matrices and write the network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    model, card = store.load(options.network)
    last = model.blocks[-1]
    with torch.no_grad():
        for layer in (last.attn.proj, last.mlp.fc2):
            layer.weight.div_(DIVISOR)
            layer.bias.div_(DIVISOR)
    card.accuracy = {}
    card.history.append(f"what the last block writes divided by {DIVISOR}")
    store.save(options.output, model, card)


if __name__ == "__main__":
    main()
