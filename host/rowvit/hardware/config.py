# SPDX-License-Identifier: Apache-2.0
"""Named hardware configurations: one file each serves RTL, reference, compiler, simulator and driver."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from rowvit.errors import RowvitError

if sys.version_info >= (3, 11):
    import tomllib
else:  # PYNQ images still carry Python 3.10
    import tomli as tomllib

DIRECTORY = Path(__file__).parent / "configs"
#: fields that do not change the circuit, and so are not part of the hash
DESCRIPTIVE = ("name", "board", "clock_mhz")


@dataclass(frozen=True)
class HardwareConfig:
    """One accelerator. Fields are the keys of ``configs/*.toml``; counts unless a unit is given."""

    name: str
    board: str
    clock_mhz: float
    rows: int  #: token rows processed together (a band)
    groups: int  #: lane groups; each serves one head in attention
    lanes: int  #: lanes per group
    weight_depth: int  #: weight memory, lines of LANES bytes, per group
    token_depth: int  #: token memory, 64-bit words, per row bank
    residual_depth: int  #: residual memory, 16-bit words, per (row, group) bank
    max_tokens: int
    max_dim: int  #: LayerNorm channels
    param_slots: int  #: lane-tile parameter sets held at once
    norm_slots: int  #: LayerNorm parameter sets held at once
    mask_depth: int  #: FFN2 mask words of LANES bits

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kind = {"str": str, "float": (int, float), "int": int}[field.type]
            if not isinstance(value, kind) or isinstance(value, bool):
                raise RowvitError(
                    f"configuration '{self.name}': {field.name} = {value!r} is not of type {field.type}"
                )
            if field.type == "int" and not 1 <= value <= 0xFFFF:
                raise RowvitError(f"configuration '{self.name}': {field.name} = {value} is not in 1..65535")
        if self.lanes % 8 or self.lanes > 64:
            raise RowvitError(
                f"configuration '{self.name}': lanes = {self.lanes}; take a multiple of 8 up to 64"
            )
        if self.rows > 15 or self.groups > 255:
            raise RowvitError(
                f"configuration '{self.name}': {self.rows} rows and {self.groups} groups do not fit the CAPS"
                " register; take at most 15 rows and 255 groups"
            )

    @property
    def tile(self) -> int:
        """Output channels of one lane tile: ``lanes * groups``."""
        return self.lanes * self.groups

    @property
    def macs_per_cycle(self) -> int:
        return self.rows * self.groups * self.lanes

    @property
    def segment_words(self) -> int:
        """64-bit words of one compressed segment: bitmap and ``lanes`` values."""
        return 1 + self.lanes // 8

    def residual_words(self, rows: int) -> int:
        """64-bit words of a RESIDUAL load of ``rows`` addresses, an even number.

        The int16 values of all (row, group) banks at one address fill whole words, or those of two addresses
        do; those of a single pair of banks are padded to a word.
        """
        return rows * max(4, self.rows * self.groups) // 4

    def bands(self, tokens: int) -> int:
        """Bands of ``rows`` token rows that hold ``tokens`` rows."""
        return -(-tokens // self.rows)

    def structure(self) -> dict[str, int]:
        """The fields that shape the circuit: RTL parameters by their lower-case names."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in DESCRIPTIVE}

    @cached_property
    def hash(self) -> int:
        """First 32 bits of the SHA-256 of the canonical JSON of ``structure()``."""
        text = json.dumps(self.structure(), sort_keys=True, separators=(",", ":"))
        return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def names() -> list[str]:
    """Names of the configurations that come with rowvit."""
    return sorted(path.stem for path in DIRECTORY.glob("*.toml"))


def load(name_or_path: str | Path) -> HardwareConfig:
    """Read a configuration by its name or from a TOML file.

    Raises
    ------
    RowvitError
        The name or file is unknown, it cannot be read or is not TOML, a key is missing or unknown, or a value
        is out of range.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = DIRECTORY / f"{name_or_path}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RowvitError(
            f"no hardware configuration '{name_or_path}'; take one of {', '.join(names())} or a .toml file"
        ) from error
    except OSError as error:
        raise RowvitError(f"{path} cannot be read ({error.strerror}); name a .toml file") from error
    except ValueError as error:
        raise RowvitError(f"{path} is not TOML: {error}") from error
    known = {field.name for field in fields(HardwareConfig)}
    if wrong := known ^ values.keys():
        state = "lacks" if wrong <= known else "has unknown or lacks known keys:"
        raise RowvitError(
            f"{path} {state} {', '.join(sorted(wrong))}; its keys are {', '.join(sorted(known))}"
        )
    return HardwareConfig(**values)
