# SPDX-License-Identifier: Apache-2.0
"""The networks that a server offers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rowvit.errors import RowvitError
from rowvit.formats.description import image_shape
from rowvit.formats.package import ModelPackage
from rowvit.hardware.config import HardwareConfig
from rowvit.serve.refusal import Refusal
from rowvit.targets.session import image_files, shipped_photos
from rowvit.targets.target import read_model, read_program

if TYPE_CHECKING:
    from rowvit.formats.program import Program

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
EXAMPLES = 24  # at most, of a network


@dataclass(eq=False)
class Network:
    """One network."""

    name: str  #: in addresses: letters, digits, dots, dashes
    source: ModelPackage | Program
    examples: list[Path] = field(default_factory=list)  #: photos to try

    @property
    def meta(self) -> dict:
        """Description of package or program."""
        return self.source.meta

    @property
    def package(self) -> ModelPackage | None:
        """What the integer reference runs; None of a compiled program."""
        return self.source if isinstance(self.source, ModelPackage) else None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the images that the network takes."""
        return image_shape(self.meta["architecture"])

    @property
    def grey(self) -> np.ndarray:
        """An image that shows whether the core answers: uint8 [H, W, 3]."""
        return np.full((*self.shape, 3), 128, np.uint8)

    def example(self, index: str) -> Path:
        """A photo to try, by its number from 0; `Refusal` 404 if there is none."""
        if index not in map(str, range(len(self.examples))):
            raise Refusal(
                404, f"{self.name} has {len(self.examples)} examples, and none '{index[:20]}'", "count from 0"
            )
        return self.examples[int(index)]

    def program(self, config: HardwareConfig) -> Program:
        """The network compiled for ``config``; `RowvitError` if it does not fit."""
        return read_program(self.source, config)


def read_networks(models: Sequence[str], examples: Path | None = None) -> dict[str, Network]:
    """Networks by their names.

    Parameters
    ----------
    models : sequence of str
        Files, names of networks that come with rowvit, or NAME=FILE.
    examples : Path, optional
        A folder of photos for all of them, besides those that come with a network.

    Raises
    ------
    RowvitError
        A file cannot be read, a name cannot be part of an address, or two networks have the same.
    """
    found: dict[str, Network] = {}
    own = image_files([examples])[:EXAMPLES] if examples else []
    for model in models:
        name, _, path = model.rpartition("=")
        if name and Path(model).exists():
            name, path = "", model
        source = read_model(path)
        if not name:
            meta = source.meta
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(meta.get("name") or meta["model"]["name"])).strip(
                "-."
            )
        if not _NAME.fullmatch(name):
            raise RowvitError(
                f"{model}: '{name}' is no name for an address",
                "use letters, digits, dots and dashes: NAME=FILE",
            )
        if name in found:
            raise RowvitError(f"two networks are called {name}", f"name one of them: NAME={path}")
        photos = shipped_photos(path)
        found[name] = Network(name, source, own or (image_files(photos)[:EXAMPLES] if photos else []))
    return found
