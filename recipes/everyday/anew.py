# SPDX-License-Identifier: Apache-2.0
"""A ReLU network of the teacher's shape with random weights, nobody's: the student before it learns.

``python recipes/everyday/anew.py TEACHER.safetensors -o OUTPUT.safetensors``
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from rowvit.model import store
from rowvit.model.store import Card
from rowvit.model.vit import VisionTransformer

DEVIATION = 0.02


def main() -> None:
    """Write the network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    teacher, card = store.load(options.teacher)
    torch.manual_seed(1)
    model = VisionTransformer(replace(teacher.config, act="relu"))
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            nn.init.trunc_normal_(parameter, std=DEVIATION)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    pixels = dict(mean=card.mean, std=card.std, resize=card.resize, crop=card.crop)
    licence, source = "Apache-2.0", "random weights, taught on Tiny-ImageNet by a fine-tuned DeiT-Tiny"
    new = Card(name="everyday", classes=card.classes, **pixels, licence=licence, source=source)
    store.save(options.output, model, new)


if __name__ == "__main__":
    main()
