# SPDX-License-Identifier: Apache-2.0
"""Make the demo network and its photos: hand signs 0 to 9.

``python -m rowvit.train.sign_digits --checkpoint FLOAT.safetensors --photos PHOTOS.npz -o FOLDER``
quantises the float network (timm names; 56 pixels, patch 4, width 128, 6 blocks, 2 heads, ReLU),
measures float and int8, dense and pruned, on all test photos, and writes ``sign_digits.safetensors``
and two test photos of each class into FOLDER.

PHOTOS.npz holds ``jpeg`` (all files one after the other, uint8), ``off`` (their offsets, one more
than photos), ``y`` (labels) and ``test`` (true for test photos). Calibration sees training photos
only. Half of the patches are dropped after attention in blocks 3, 4 and 5, counted from 1.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage, keep_schedule
from rowvit.model.importers.state_dict import from_timm, read_checkpoint
from rowvit.model.vit import predict
from rowvit.quant.quantise import QuantOptions, quantise
from rowvit.reference import patchify, run
from rowvit.train.data import open_data

HEADS = 2
PRUNE_LAYERS, RHO = (2, 3, 4), 0.5
CALIBRATION_STRIDE = 4  # every fourth training photo
PHOTOS_PER_CLASS = 2
OPTIONS = QuantOptions(
    name="sign-digits",
    classes=[str(digit) for digit in range(10)],
    mean=(0.674139, 0.645413, 0.615984),
    std=(0.140777, 0.157692, 0.185478),
    ffn_chunk=256,
    licence="Apache-2.0",
    source="trained for rowvit on the Sign Language Digits Dataset (Arda Mavi, arXiv 2011.08927, Apache-2.0)",
)


def make(
    checkpoint: Path, photos: Path, output: Path, options: QuantOptions = OPTIONS
) -> dict[str, str | float]:
    """Write package and photos; returns the accuracies recorded in the package.

    Raises
    ------
    RowvitError
        If the checkpoint or the photos cannot be read.
    """
    if photos.suffix != ".npz":
        raise RowvitError(f"{photos}: not an .npz archive")
    train, test = (open_data(photos, split) for split in ("train", "test"))
    with np.load(photos) as archive:  # files are named by their index in the whole archive
        indices = np.flatnonzero(archive.get("test", np.ones(len(test))))
    state = read_checkpoint(checkpoint)
    dense = from_timm(state, HEADS)
    patches = dense.config.tokens - 1
    pruned = from_timm(state, HEADS, pruning=tuple(keep_schedule(patches, PRUNE_LAYERS, RHO)))

    side, resize = dense.config.image_size, options.resize
    seen = train.pixels(range(0, len(train), CALIBRATION_STRIDE), side, resize)
    package = quantise(pruned, seen, options)
    without_pruning = ModelPackage(package.meta | {"pruning": []}, package.tensors)

    images, truth = test.pixels(range(len(test)), side, resize), test.labels
    inputs = patchify(images, dense.config.patch_size)
    results = run(package, inputs)
    guesses = {
        "float_dense": predict(dense, images, options.mean, options.std).argmax(axis=1),
        "float_pruned": predict(pruned, images, options.mean, options.std).argmax(axis=1),
        "int8_dense": [result.top1 for result in run(without_pruning, inputs)],
        "int8_pruned": [result.top1 for result in results],
    }
    counts = [result.counts for result in results]
    accuracy: dict[str, str | float] = {"set": f"all {len(test)} test photos", "unit": "percent top-1"}
    accuracy |= {key: round(100 * float(np.mean(guess == truth)), 2) for key, guess in guesses.items()}
    macs = 1 - sum(c.macs_executed for c in counts) / sum(c.macs_dense for c in counts)
    rows = 1 - sum(c.w2_rows_fetched for c in counts) / sum(c.w2_rows_total for c in counts)
    accuracy |= {"macs_saved_percent": round(100 * macs, 1), "w2_rows_saved_percent": round(100 * rows, 1)}
    package.meta["accuracy"] = accuracy

    folder = output / "sign_digits_photos"
    folder.mkdir(parents=True, exist_ok=True)
    package.save(output / "sign_digits.safetensors")
    for digit in range(len(options.classes)):
        for index in np.flatnonzero(truth == digit)[:PHOTOS_PER_CLASS]:
            (folder / f"{digit}_{indices[index]:04d}.jpg").write_bytes(test.files[index])
    return accuracy


def main() -> None:
    """Command line of ``python -m rowvit.train.sign_digits``."""
    parser = argparse.ArgumentParser(
        prog="python -m rowvit.train.sign_digits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="float network, .safetensors or .pth")
    parser.add_argument("--photos", type=Path, required=True, help="photos, labels and test mask, .npz")
    parser.add_argument("--threshold-energy", type=float, default=0.0, help="lossy FFN2 threshold, e.g. 0.01")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")
    args = parser.parse_args()
    options = replace(OPTIONS, threshold_energy=args.threshold_energy)
    for key, value in make(args.checkpoint, args.photos, args.output, options).items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    main()
