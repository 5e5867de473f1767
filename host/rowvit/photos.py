# SPDX-License-Identifier: Apache-2.0
"""Labelled photos on disk: folders of classes, CIFAR-10 as it is published, archives of JPEGs.

`open_data` tells them apart by what is at the path:

- a folder with ``train`` and ``val`` (or ``test``, ``valid``, ``Train``), each with a folder for every
  class: ImageFolder, such as ImageNet; a folder of class folders alone is a test set;
- a folder of photos, where no labels are needed (relu, quantise);
- a folder that holds ``cifar-10-batches-py``, or is it;
- an ``.npz`` with ``jpeg``, ``off``, ``y`` and ``test``: all files one after the other (uint8), their
  offsets (one more than photos), labels, and true for test photos;
- an ``.npz`` with ``train_jpeg``, ``train_off``, ``train_y``, the same for ``test``, and ``classes``.
"""

from __future__ import annotations

import os
import pickle
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rowvit.decoding import Refused, decoded
from rowvit.errors import RowvitError
from rowvit.formats.description import Size, sides
from rowvit.images import decode, is_picture

SPLITS = ("train", "test")
#: names of the folders of a split, of which the first that is there counts, in capitals, too
TRAINING, TESTS = ("train",), ("val", "test", "validation", "valid")
CIFAR = "cifar-10-batches-py"
File = Path | bytes | np.ndarray


@dataclass(frozen=True)
class Photos:
    """Photos of one split, not yet decoded."""

    files: Sequence[File]  #: files, contents of files, or pixels uint8 [H, W, 3]
    labels: np.ndarray  #: int64 [n]
    classes: tuple[str, ...]
    source: str  #: the set and its split: "cifar-10 test"
    root: Path | None = None  #: whose folders are the classes, if such a folder has them
    extent: str = ""  #: which of them: "all 10000"
    scope: str = ""  #: of a network's classes, those that there are: "9 of 10 classes"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def name(self) -> str:
        """As in model cards and tables: "cifar-10 test, all 10000"."""
        return ", ".join(filter(None, (self.source, self.extent, self.scope)))

    def subset(self, count: int, seed: int = 0, skip: int = 0) -> Photos:
        """At most ``count`` photos, drawn at random with a fixed seed; the extent says so.

        With ``skip``, the photos drawn after the first ``skip``: none of those in a subset of that size.
        """
        if count >= len(self) and not skip:
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self))[skip : skip + count])
        return replace(self.only(chosen), extent=f"{len(chosen)} of {len(self)} drawn with seed {seed}")

    def only(self, chosen: Sequence[int] | np.ndarray) -> Photos:
        """Some of the photos, by their numbers, under the same name."""
        return replace(self, files=[self.files[i] for i in chosen], labels=self.labels[chosen])

    def pixels(
        self,
        indices: Sequence[int] | np.ndarray,
        size: Size,
        resize: str = "bicubic",
        crop: float = 1.0,
        refused: Refused | None = None,
    ) -> np.ndarray:
        """Photos uint8 [n, height, width, 3], prepared as for the accelerator by `rowvit.images.decode`.

        ``refused`` as of ``rowvit.decoding.decoded``; there may be none left then.
        """
        files = (self.files[i] for i in indices)
        found = decoded(files, lambda file: decode(encoded(file), size, resize, crop), refused=refused)
        return np.array([*found], np.uint8).reshape(-1, *sides(size), 3)

    def prepared(self, size: Size, resize: str, crop: float, refused: Refused | None = None) -> np.ndarray:
        """All photos, as of `pixels`."""
        return self.pixels(range(len(self)), size, resize, crop, refused)


def spread(photos: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of the photos, from all over them: a set is sorted by class."""
    count = min(count, len(photos))
    return photos[np.arange(count) * len(photos) // max(count, 1)]


def encoded(file: File) -> Path | bytes:
    """Input of `rowvit.images.decode`; pixels become a lossless file."""
    if not isinstance(file, np.ndarray):
        return file
    buffer = BytesIO()
    Image.fromarray(file).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def open_data(path: Path, split: str, labels: bool = True) -> Photos:
    """Photos of a split, "train" or "test".

    Without ``labels`` a folder of photos will do as well: all are training photos with label -1, and there
    are no classes.

    Raises
    ------
    RowvitError
        If there is no set of labelled photos at ``path``, or it lacks the split.
    """
    if split not in SPLITS:
        raise RowvitError(f"there is no split '{split}'", f"use one of {', '.join(SPLITS)}")
    path = Path(path)
    if not path.exists():
        raise RowvitError(f"{path}: no such data", "pass a folder of classes, CIFAR-10 or an .npz archive")
    if path.suffix == ".npz":
        photos = _archive(path, split)
    elif (called := folder_name(path)) == CIFAR or (path / CIFAR).is_dir():
        photos = _cifar(path if called == CIFAR else path / CIFAR, split)
    elif (
        not labels
        and split == "train"
        and path.is_dir()
        and not _split_in(path, TRAINING)
        and _photos_in(path)
    ):
        files = _photos_in(path)
        none = np.full(len(files), -1, np.int64)
        photos = Photos(files, none, (), called, extent=f"all {len(files)}, without labels")
    elif path.is_dir():
        photos = _folder(path, split)
    else:
        raise RowvitError(f"{path}: not a folder or .npz archive of labelled photos")
    if not len(photos):
        raise RowvitError(f"{path}: the split '{split}' holds no photos")
    return replace(photos, source=readable(photos.source), extent=photos.extent or f"all {len(photos)}")


def _archive(path: Path, split: str) -> Photos:
    try:
        with np.load(path) as archive:
            tables = {key: np.asarray(archive[key]) for key in archive.files}
    except Exception as error:  # damage may surface in NumPy, zipfile or zlib, each with its own errors
        raise RowvitError(f"{path}: cannot be read as an .npz archive ({error})") from error
    name = path.stem.removesuffix("_jpeg").replace("_", "-")
    if {"jpeg", "off", "y", "test"} <= tables.keys():
        jpeg, offsets, labels, test = (tables[key] for key in ("jpeg", "off", "y", "test"))
    elif {f"{split}_jpeg", f"{split}_off", f"{split}_y"} <= tables.keys():
        jpeg, offsets, labels = (tables[f"{split}_{key}"] for key in ("jpeg", "off", "y"))
        test = np.full(labels.shape, split == "test")
    else:
        raise RowvitError(
            f"{path}: holds {', '.join(sorted(tables))}, expected jpeg, off, y and test"
            f" or {split}_jpeg, {split}_off and {split}_y"
        )
    rows = {"files": jpeg, "offsets": offsets, "labels": labels, "test": test}
    for key, row in rows.items():
        if row.ndim != 1 or row.dtype.kind not in "biu":
            raise RowvitError(
                f"{path}: {key} are {row.dtype} {list(row.shape)}, expected one row of integers"
            )
    ends, labels = offsets.astype(np.int64), labels.astype(np.int64)
    classes = tables.get("classes", np.arange(labels.max(initial=-1) + 1))
    if classes.ndim != 1 or classes.dtype.kind not in "USiuO":
        raise RowvitError(f"{path}: classes are {classes.dtype} {list(classes.shape)}, not a row of names")
    texts = [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in classes]
    if not len(labels) + 1 == len(ends) == len(test) + 1:
        raise RowvitError(
            f"{path}: {len(labels)} labels, {len(ends)} offsets and {len(test)} test marks, expected as many"
            " marks as labels and one offset more"
        )
    if not 0 <= ends[0] <= ends[-1] <= len(jpeg) or (np.diff(ends) < 0).any():
        raise RowvitError(f"{path}: the offsets do not ascend within the {len(jpeg)} bytes of the files")
    if not ((labels >= 0) & (labels < classes.size)).all():
        raise RowvitError(
            f"{path}: labels from {labels.min()} to {labels.max()} for {classes.size} classes,"
            " expected numbers from 0"
        )
    chosen = np.flatnonzero((test != 0) == (split == "test"))
    files = [jpeg[ends[i] : ends[i + 1]].tobytes() for i in chosen]
    return Photos(files, labels[chosen], tuple(map(one_way, texts)), f"{name} {split}")


def _cifar(path: Path, split: str) -> Photos:
    """The published pickles ("python version"), read without running any code in them."""
    names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    try:
        batches = [_Unpickler(BytesIO((path / name).read_bytes()), encoding="bytes").load() for name in names]
        meta = _Unpickler(BytesIO((path / "batches.meta").read_bytes()), encoding="bytes").load()
        pixels = np.concatenate([batch[b"data"] for batch in batches])
        labels = np.concatenate([batch[b"labels"] for batch in batches]).astype(np.int64)
        classes = tuple(one_way(name.decode()) for name in meta[b"label_names"])
        pixels = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        if len(pixels) != len(labels):
            raise ValueError(f"{len(pixels)} pictures and {len(labels)} labels")
        if not ((labels >= 0) & (labels < len(classes))).all():
            raise ValueError(f"labels from {labels.min()} to {labels.max()} for {len(classes)} classes")
    except Exception as error:  # a damaged pickle may raise anything
        raise RowvitError(f"{path}: not CIFAR-10's python version ({error})") from error
    return Photos(list(pixels), labels, classes, f"cifar-10 {split}")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(("numpy", "_codecs")) and name in ("_reconstruct", "ndarray", "dtype", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in it")


def _folder(path: Path, split: str) -> Photos:
    names = TRAINING if split == "train" else TESTS
    # of the usual names also one without folders of classes, about which there is a sentence then
    flat = (path / name for name in names[:3] if (path / name).is_dir())
    root = _split_in(path, names) or next(flat, None)
    if root is None:
        other = _split_in(path, TRAINING) or any((path / name).is_dir() for name in ("train", "val"))
        if split == "train" or other:
            raise RowvitError(f"{path}: has no folder {' or '.join(names)} with a folder for every class")
        root = path
    photos = in_class_folders(root, f"{folder_name(path)} {split}")
    if not photos.classes:
        raise RowvitError(f"{root}: has no folders of classes", "put the photos of each class into a folder")
    return photos


def _split_in(path: Path, names: Sequence[str]) -> Path | None:
    """The first of some folders that there is, in whatever letters, with folders in it.

    A class may have one of these names, and has photos.
    """
    folders = {name.lower(): path / name for name in inside(path, recursive=False)[1]}
    there = (folders[name] for name in names if name in folders)
    return next((folder for folder in there if inside(folder, recursive=False)[1]), None)


def in_class_folders(root: Path, source: str) -> Photos:
    """The pictures below the folders in ``root``, each of which is a class; there may be none.

    Hidden folders and files are left out, as a file manager does not show them either, and what macOS and
    network storage keep of files. Folders whose names look alike are one class.
    """
    folders: dict[str, list[str]] = {}
    for folder in inside(root, recursive=False)[1]:
        if folder != readable(folder):
            text = f"{root}: the folder {readable(folder)} has a name that is not UTF-8"
            raise RowvitError(text, "rename it")
        folders.setdefault(one_way(folder), []).append(folder)
    classes = tuple(sorted(folders))
    files: list[Path] = []
    labels: list[int] = []
    for label, of in enumerate(classes):
        found = [file for folder in folders[of] for file in inside(root / folder)[0] if is_picture(file)]
        files += found
        labels += [label] * len(found)
    return Photos(files, np.array(labels, np.int64), classes, readable(source), root)


def inside(path: Path, recursive: bool = True) -> tuple[list[Path], list[str]]:
    """Files of a directory, and names of the directories in it that are left out; none that is hidden.

    Links are followed, but not to where they are in, and a directory counts once however many lead to it.

    Raises
    ------
    RowvitError
        A directory that counts cannot be read.
    """
    try:
        return _walk(path, recursive)
    except OSError as error:
        raise RowvitError(
            f"{error.filename}: cannot be read ({error.strerror})", "allow it, or move it elsewhere"
        ) from error


def _walk(path: Path, recursive: bool) -> tuple[list[Path], list[str]]:
    def fail(error: OSError) -> None:  # or what is in there would be left out without a word
        raise error

    above = os.path.join(os.path.realpath(path), "")
    files: list[Path] = []
    left_out: list[str] = []
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(path, onerror=fail, followlinks=True):
        itself = os.stat(folder)
        if (itself.st_dev, itself.st_ino) in seen:
            folders.clear()
            continue
        seen.add((itself.st_dev, itself.st_ino))
        folders[:] = sorted(
            name
            for name in folders
            if not _hidden(name)
            and not above.startswith(os.path.join(os.path.realpath(os.path.join(folder, name)), ""))
        )
        files += (Path(folder, name) for name in names if not _hidden(name))
        if not recursive:
            left_out = list(folders)
            folders.clear()
    return sorted(filter(_is_file, files)), left_out


def _is_file(path: Path) -> bool:
    """As of pathlib, whose answer to a directory that may not be entered depends on Python's version."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except PermissionError:
        raise
    except OSError:  # a link that leads nowhere
        return False


def _hidden(name: str) -> bool:
    """Of what no user put there: of thumbnails, or of what macOS, a NAS or a file system keep of files."""
    return name.startswith(".") or name in ("__MACOSX", "@eaDir", "lost+found")


def folder_name(path: Path) -> str:
    """The last part of a path, also of ``.``."""
    return readable(os.path.basename(os.path.abspath(path)))


def one_way(name: str) -> str:
    """A name as most systems write it: of "é" macOS makes "e" and its accent."""
    return unicodedata.normalize("NFC", name)


def among(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether all of some names are others', in whatever way systems write them."""
    return set(map(one_way, names)) <= set(map(one_way, others))


def readable(name: str) -> str:
    """A name of a file without what is not UTF-8, which no description of a network may hold."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _photos_in(folder: Path) -> list[Path]:
    return [file for file in inside(folder, recursive=False)[0] if is_picture(file)]
