# SPDX-License-Identifier: Apache-2.0
"""Where an overlay comes from: the ``.json`` next to ``.bit`` and ``.hwh``, and checks against it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import fastjsonschema

from rowvit.errors import RowvitError
from rowvit.formats import container
from rowvit.hardware import config as configs
from rowvit.hardware.config import HardwareConfig

SUFFIXES = (".bit", ".hwh", ".json")
#: JSON Schema of the types that a provenance's fields have
_SCHEMAS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    str | None: {"type": ["string", "null"]},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
}


def _schema(kind: Any) -> dict[str, Any]:
    """Of a type: one of `_SCHEMAS`, or a dictionary by names."""
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": _schema(get_args(kind)[1])}
    return _SCHEMAS[kind]


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 16):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Provenance:
    """What a build says about an overlay: the ``.json`` next to the ``.bit``."""

    board: str
    part: str
    configuration: str
    frontend: str  #: "host", or "hls" if the design holds the HLS preprocessor
    structure: dict[str, int]  #: of the configuration
    config_hash: str  #: eight hexadecimal digits
    revision: str | None  #: Git commit, None outside a repository
    dirty: bool  #: files differed from that commit
    tool: str
    strategy: str
    board_file: str  #: Vivado's, empty if it was not installed
    clock_mhz: float  #: that the configuration asks for
    actual_clock_mhz: float
    setup_slack_ns: float
    hold_slack_ns: float
    utilisation: dict[str, dict[str, float]]  #: by resource: used, available
    date: str  #: UTC, ISO 8601
    files: dict[str, str]  #: SHA-256 by file name

    @classmethod
    def read(cls, path: Path) -> Provenance:
        """Read a provenance file; `RowvitError` if it is missing or is not one."""
        try:
            values = container.parse(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RowvitError(
                f"{path} cannot be read ({error.strerror})", "copy it from the build, with the .bit and .hwh"
            ) from error
        except ValueError as error:
            raise RowvitError(f"{path} is not JSON ({error})", "copy it from the build again") from error
        try:
            fastjsonschema.validate(
                {
                    "type": "object",
                    "properties": _PROPERTIES,
                    "required": [*_PROPERTIES],
                    "additionalProperties": False,
                },
                values,
            )
        except fastjsonschema.JsonSchemaValueException as error:
            raise RowvitError(
                f"{path} is not the provenance of an overlay of this version ({error.message})",
                "copy it from the build again",
            ) from error
        return cls(**values)

    def write(self, path: Path) -> None:
        """Write a provenance file, which `read` reads."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


#: schemas of the fields
_PROPERTIES = {name: _schema(kind) for name, kind in get_type_hints(Provenance).items()}


def verify(path: Path) -> list[Provenance]:
    """Check overlays against their provenance: both files unchanged, the configuration known.

    Parameters
    ----------
    path : Path
        A ``.bit``, ``.hwh`` or ``.json``, or a directory of overlays.

    Raises
    ------
    RowvitError
        A file is missing or changed, or the configuration has another hash here than in the build.
    """
    if path.is_dir():
        found = sorted({file.with_suffix("") for file in path.glob("*.bit")})
        if not found:
            raise RowvitError(f"{path} holds no .bit", "name a directory with overlays")
    else:
        if path.suffix not in SUFFIXES:
            raise RowvitError(f"{path}: name a .bit, .hwh or .json, or a directory with them")
        found = [path.with_suffix("")]
    return [_verify(overlay) for overlay in found]


def _verify(overlay: Path) -> Provenance:
    provenance = Provenance.read(overlay.parent / f"{overlay.name}.json")
    for suffix in (".bit", ".hwh"):
        file = overlay.parent / f"{overlay.name}{suffix}"
        if file.name not in provenance.files:
            raise RowvitError(f"{overlay}.json does not name {file.name}", "keep the names of the build")
        if not file.is_file():
            raise RowvitError(f"{file} is missing", "copy it from the build")
        if sha256(file) != provenance.files[file.name]:
            raise RowvitError(
                f"{file} is not the file of {overlay}.json (SHA-256)", "copy all three files again"
            )
    try:
        built = HardwareConfig("built", "none", provenance.clock_mhz, **provenance.structure)
    except TypeError as error:
        raise RowvitError(
            f"{overlay}.json: its configuration has other fields than this version's",
            "build the overlay again",
        ) from error
    if f"{built.hash:08X}" != provenance.config_hash:
        raise RowvitError(
            f"{overlay}.json: the configuration makes hash {built.hash:08X}, not {provenance.config_hash}",
            "copy it from the build again",
        )
    name = provenance.configuration
    if name in configs.names() and configs.load(name).hash != built.hash:
        raise RowvitError(
            f"{overlay} was built from another '{name}' (hash {built.hash:08X}) than this version's"
            f" ({configs.load(name).hash:08X})",
            f"build it again, or use the software of its revision {provenance.revision or 'unknown'}",
        )
    return provenance
