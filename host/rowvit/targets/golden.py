# SPDX-License-Identifier: Apache-2.0
"""The integer reference behind the driver's interface."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rowvit.compiler.plan import problem
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.formats.work import WORK
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import FRONTENDS
from rowvit.hardware.config import HardwareConfig
from rowvit.reference import patchify, run
from rowvit.reference.frontend import Geometry, only_square, resize
from rowvit.targets.target import Result, Target, loaded, read_package

if TYPE_CHECKING:
    from rowvit.formats.program import Program
    from rowvit.reference.network import Counts


LOG = logging.getLogger("rowvit")


class Golden(Target):
    """Runs packages on the CPU; ``cycles`` and ``counters`` stay empty.

    `RowvitError` if there is no such front end.

    Parameters
    ----------
    config : HardwareConfig
        Results do not depend on it.
    checkpoints : bool
        Also return the residual stream after every half layer.
    frontend : str
        "host": images have the network's size; "hls": they have any size, and are scaled as by the HLS
        preprocessor.
    """

    def __init__(self, config: HardwareConfig, checkpoints: bool = False, frontend: str = "host") -> None:
        if frontend not in FRONTENDS:
            raise RowvitError(f"no front end '{frontend}'", f"use {' or '.join(FRONTENDS)}")
        self.config, self.checkpoints, self.frontend = config, checkpoints, frontend
        self.package: ModelPackage | None = None
        self.counts: list[Counts] = []  #: of the last call's images, for the cycle model

    def load(self, model: str | Path | ModelPackage | Program) -> None:
        """Read a package; `RowvitError` for a program that was compiled elsewhere, which holds no network."""
        package = read_package(model)
        if self.frontend == "hls":
            only_square(package.arch)
        self.package, self.meta = package, package.meta
        why = problem(self.meta, self.config)
        if why and not any(not problem(self.meta, configs.load(name)) for name in configs.names()):
            LOG.warning("%s; no named configuration holds it, so only golden runs it", why)

    def _run(self, images: Sequence[NDArray[Any]]) -> list[Result]:
        begin, package = time.monotonic(), loaded(self.package)
        if self.frontend == "hls":
            images = [resize(i, Geometry.for_network(i.shape[1], i.shape[0], package.arch)) for i in images]
        patches = patchify(np.stack(images), package.arch["patch_size"])
        found = run(package, patches, self.checkpoints)
        seconds = (time.monotonic() - begin) / len(images)
        self.counts = [image.counts for image in found]
        return [
            Result.of(
                package.meta,
                image.logits,
                image.kept,
                package.tensors,
                tokens=image.tokens,
                rows=image.rows,
                checkpoints=image.checkpoints,
                attention=image.attention,
                seconds=seconds,
                **{name: getattr(image.counts, name) for name in WORK},
            )
            for image in found
        ]
