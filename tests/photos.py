# SPDX-License-Identifier: Apache-2.0
"""A small set of labelled photos for the tests: noisy squares of one colour for each class."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 50, 40)}
SIDE = 16


def picture(rng: np.random.Generator, colour: tuple[int, int, int], side: int = SIDE) -> np.ndarray:
    """Pixels uint8 [side, side, 3]."""
    noise = rng.normal(0, 40, (side, side, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def labelled(count: int, seed: int, side: int = SIDE) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures and labels, the classes in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(COLOURS)
    return [picture(rng, list(COLOURS.values())[label], side) for label in labels], labels


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def archive(path: Path, train: int = 24, test: int = 12) -> Path:
    """An .npz with train_jpeg and so on."""
    tables: dict[str, np.ndarray] = {"classes": np.array(list(COLOURS))}
    for split, count, seed in (("train", train, 0), ("test", test, 1)):
        pictures, labels = labelled(count, seed)
        files = [png(pixels) for pixels in pictures]
        tables[f"{split}_jpeg"] = np.frombuffer(b"".join(files), np.uint8)
        tables[f"{split}_off"] = np.cumsum([0, *map(len, files)])
        tables[f"{split}_y"] = labels.astype(np.uint8)
    np.savez(path, **tables)
    return path


def folder(path: Path, train: int = 24, test: int = 12) -> Path:
    """Folders of classes in train and val."""
    for split, count, seed in (("train", train, 0), ("val", test, 1)):
        for index, (pixels, label) in enumerate(zip(*labelled(count, seed), strict=True)):
            place = path / split / list(COLOURS)[label]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{index:03d}.png").write_bytes(png(pixels))
    return path


def cifar(path: Path) -> Path:
    """The layout of CIFAR-10's python version, with ten photos in each file."""
    root = path / "cifar-10-batches-py"
    root.mkdir(parents=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for seed, name in enumerate(names):
        pictures, labels = labelled(10, seed, side=32)
        data = np.stack(pictures).transpose(0, 3, 1, 2).reshape(10, -1)
        (root / name).write_bytes(pickle.dumps({b"data": data, b"labels": labels.tolist()}))
    (root / "batches.meta").write_bytes(pickle.dumps({b"label_names": [n.encode() for n in COLOURS]}))
    return path


def require_reader(form: str) -> None:
    """Skip where nothing reads a format."""
    if form == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif form == "AVIF":
        pytest.importorskip("PIL._avif")
