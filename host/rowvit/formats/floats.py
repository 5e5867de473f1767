# SPDX-License-Identifier: Apache-2.0
"""Files of float networks, as far as they are read without PyTorch: safetensors with a description.

The metadata key ``rowvit-float`` holds JSON: ``format``, ``config`` (the fields of
`rowvit.model.vit.ViTConfig`) and ``card`` (the fields of `rowvit.model.store.Card`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rowvit.errors import RowvitError
from rowvit.formats.container import parse

FORMAT = 1
KEY = "rowvit-float"


def description(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a file's metadata say of its network; `RowvitError` if nothing, or it is of another format."""
    if KEY not in metadata:
        raise RowvitError(f"{path}: not a float network of rowvit", "make one with rowvit import")
    try:
        found: dict[str, Any] = parse(metadata[KEY], strict=False)
        version = found["format"]
        if version == FORMAT:
            found["config"].keys(), found["card"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RowvitError(f"{path}: the network's description is not readable") from error
    if version != FORMAT:
        raise RowvitError(f"{path}: format {version}, but this rowvit reads {FORMAT}", "import it again")
    return found
