# SPDX-License-Identifier: Apache-2.0
"""What is measured: a network on a target, and images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rowvit.images import for_network
from rowvit.measure import result
from rowvit.measure.sensors import thermometer
from rowvit.targets.session import Session, image_files, shipped_photos

if TYPE_CHECKING:
    from rowvit.hardware.config import HardwareConfig

#: images of a measurement, where nobody says how many
COUNT, COUNT_SIM = 200, 10
_RANDOM = 16  # different random images at most


@dataclass
class Workload:
    """A network on a target, and the images of a measurement.

    Parameters
    ----------
    session : Session
        To be closed by whoever uses the workload.
    images : uint8 array [N, S, S, 3]
    data : dict
        Which images they are, from `result.data_set`.
    files : list of Path
        Where the images came from, one each; empty for random pixels.
    """

    session: Session
    images: np.ndarray
    data: dict[str, Any]
    files: list[Path]

    @classmethod
    def load(
        cls,
        model: str,
        config: str | Path | HardwareConfig | None = None,
        target: str = "sim",
        images: Sequence[Path] = (),
        count: int = 0,
        name: str | None = None,
        subset: str | None = None,
        **options: Any,
    ) -> Workload:
        """Read a network and images.

        Parameters
        ----------
        model, config, target, **options
            As of `Session`.
        images : sequence of Path
            Files or directories; by default the photos that come with the model, or random pixels.
        count : int
            Images of the measurement, which repeats those that there are; 0: 10 on sim, else 200.
        name, subset : str, optional
            What to call the data set, and which part of it this is.

        Raises
        ------
        RowvitError
            A file cannot be read, or the network does not fit the configuration.
        """
        session = Session(model, config, target, **options)
        count = count or (COUNT_SIM if target == "sim" else COUNT)
        if not images and (images := shipped_photos(model)):
            name = name or f"photos that come with {model}"
        files: list[Path] = []
        if images:
            files = image_files(images)
            name = name or (images[0] if images[0].is_dir() else images[0].parent).resolve().name
            pixels = np.stack([for_network(file, session.meta) for file in files[:count]])
            subset = subset or f"first {len(pixels)} of {len(files)} files by name"
            files = files[:count]
        else:
            side = session.meta["architecture"]["image_size"]
            shape = min(count, _RANDOM), side, side, 3
            pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
            name, subset = name or "random pixels", subset or "seed 0"
        data = result.data_set(name, subset, pixels)
        data["repeated"] = count / len(pixels)
        repeated = np.arange(count) % len(pixels)
        return cls(session, pixels[repeated], data, [files[i] for i in repeated] if files else [])

    def thermometer(self) -> tuple[str, Callable[[], float]] | tuple[None, None]:
        """Source and reading of the die's temperature; both None without one, as in simulation."""
        return (self.session.target_name != "sim" and thermometer()) or (None, None)
