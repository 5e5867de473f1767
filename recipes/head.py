# SPDX-License-Identifier: Apache-2.0
"""A first step of several recipes: fit a head to the encoder's class token by logistic regression.

``python recipes/head.py ENCODER.safetensors DATA -o OUTPUT.safetensors`` uses the features of training photos
that are drawn with a fixed seed. The encoder is not trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from rowvit.model import store
from rowvit.model.adapt import with_classes
from rowvit.model.vit import predict
from rowvit.photos import open_data

DECAY = 1e-3


def main() -> None:
    """Fit the head and write the network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=4000, metavar="N", help="training photos that are used")
    options = parser.parse_args()
    model, card = store.load(options.encoder)
    photos = open_data(options.data, "train").subset(options.photos)
    model = with_classes(model, 0)
    pixels = photos.pixels(range(len(photos)), model.config.image_size, card.resize)
    with torch.autocast("cpu", torch.bfloat16):
        features = torch.from_numpy(predict(model, pixels, card.mean, card.std))
    labels = torch.from_numpy(photos.labels)
    model = with_classes(model, len(photos.classes), deviation=0.0)
    head = model.head
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(head(features), labels) + DECAY * head.weight.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    right = float((head(features).argmax(dim=1) == labels).float().mean())
    print(f"{100 * right:.1f} % of the {len(photos)} photos to which it was fitted")
    card.classes = list(photos.classes)
    card.accuracy = {}
    card.history.append(f"head by logistic regression on {photos.name}")
    store.save(options.output, model, card)


if __name__ == "__main__":
    main()
