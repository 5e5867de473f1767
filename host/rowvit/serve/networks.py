# SPDX-License-Identifier: Apache-2.0
"""The networks that a server offers."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rowvit.errors import RowvitError
from rowvit.formats import tokens
from rowvit.formats.description import image_shape
from rowvit.formats.package import ModelPackage
from rowvit.hardware.config import HardwareConfig
from rowvit.images import decode
from rowvit.serve.refusal import Refusal
from rowvit.targets.session import image_files, shipped_photos
from rowvit.targets.target import read_model, read_program
from rowvit.teach.backbone import Backbone

if TYPE_CHECKING:
    from rowvit.formats.program import Program

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
EXAMPLES = 24  # at most, of a network
_TRIED = 16  # pixels of an example's side, to see that it is a picture
LOG = logging.getLogger("rowvit.serve")


@dataclass(eq=False)
class Network:
    """One network."""

    name: str  #: in addresses: letters, digits, dots, dashes
    source: ModelPackage | Program
    examples: list[Path] = field(default_factory=list)  #: photos to try
    backbone: Backbone | None = None  #: what lessons teach
    unteachable: str = ""  #: why there is none
    stored: bool = True  #: whether its compiled program may be kept on disk

    @property
    def meta(self) -> dict:
        """Description of package or program."""
        return self.source.meta

    @property
    def package(self) -> ModelPackage | None:
        """What it was made of; None of a program that was compiled elsewhere."""
        return self.source if isinstance(self.source, ModelPackage) else self.source.package

    @property
    def runs(self) -> ModelPackage | Program:
        """What targets run: it answers as the network does, and for lessons with its class token, too."""
        if self.backbone is None or not isinstance(self.source, ModelPackage):
            return self.source
        return self.source.with_tokens("class")

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
        """What runs, compiled for ``config``; `RowvitError` if it does not fit.

        One that fits only without its class token is no longer taught.
        """
        try:
            return read_program(self.runs, config, keep=self.stored)
        except RowvitError as error:
            if self.backbone is None:
                raise
            self.backbone, self.unteachable = None, str(error)
            return self.program(config)

    def taught(self, package: ModelPackage, config: HardwareConfig | None) -> Network:
        """A network that was taught from this one, compiled where there is a ``config``; no head is kept."""
        source = package if config is None else read_program(package, config, keep=False)
        return Network(f"{self.name}, taught", source, stored=False)


def read_networks(
    models: Sequence[str], examples: Path | None = None, teach: bool = True
) -> dict[str, Network]:
    """Networks by their names.

    Parameters
    ----------
    models : sequence of str
        Files, names of networks that come with rowvit, or NAME=FILE.
    examples : Path, optional
        A folder of photos for all of them, besides those that come with a network.
    teach : bool
        Whether lessons may teach them.

    Raises
    ------
    RowvitError
        A file cannot be read, a name cannot be part of an address, or two networks have the same.
    """
    found: dict[str, Network] = {}
    if examples and not examples.is_dir():
        raise RowvitError(f"{examples}: no such folder of examples")
    own = _pictures(examples) if examples else []
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
        found[name].backbone, found[name].unteachable = _backbone(name, source, teach)
    return found


def _pictures(folder: Path) -> list[Path]:
    """Those of a folder that can be shown, at most as many as there may be."""

    def usable(file: Path) -> bool:
        try:
            decode(file, _TRIED)
        except RowvitError as error:
            LOG.warning("skipped: %s", error)
            return False
        return True

    return [*islice(filter(usable, image_files([folder])), EXAMPLES)]


def _backbone(name: str, source: ModelPackage | Program, teach: bool) -> tuple[Backbone | None, str]:
    """What lessons teach, or why there is none."""
    if not teach:
        return None, "this server does not teach; start it without --no-teach"
    if not isinstance(source, ModelPackage):
        return None, f"'{name}' is a compiled program, which cannot be taught; serve its package"
    own = tokens.layers(source.meta)
    if own and (source.arch["depth"] - 1 not in own or not tokens.normalised(source.meta)):
        return None, f"'{name}' answers with other tokens than lessons see; quantise it with --tokens class"
    try:
        return Backbone.of(source), ""
    except RowvitError as error:
        return None, str(error)
