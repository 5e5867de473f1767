# SPDX-License-Identifier: Apache-2.0
"""The packages that come with rowvit, by name."""

from __future__ import annotations

import os
from pathlib import Path

MODELS = Path(__file__).parents[1] / "models"


def names() -> list[str]:
    """Their names, in order."""
    return sorted(file.stem.replace("_", "-") for file in MODELS.glob("*.safetensors"))


def stem(name: str | os.PathLike[str]) -> str:
    """How files and folders of one begin in `MODELS`."""
    return os.fspath(name).replace("-", "_")


def bundled(name: str | os.PathLike[str]) -> Path | None:
    """The file of one, unless there is a file or folder of that name."""
    file, bare = MODELS / f"{stem(name)}.safetensors", not os.path.dirname(name)
    # of these a name that is too long for a file is none, and no error
    return file if bare and os.path.isfile(file) and not os.path.exists(name) else None
