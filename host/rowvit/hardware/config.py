# SPDX-License-Identifier: Apache-2.0
"""Named hardware configurations: one file each serves RTL, reference, compiler, simulator and driver."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from rowvit.errors import RowvitError

if sys.version_info >= (3, 11):
    import tomllib as tomllib  # others take it from here
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
    port_bits: int  #: width of the memory port
    rotary_tokens: int  #: rows of tokens whose rotary positions are held; 0: it has no unit for them

    def __post_init__(self) -> None:
        where = f"configuration '{self.name}'"
        types: dict[str, tuple[type, ...]] = {"str": (str,), "float": (int, float), "int": (int,)}
        for field in fields(self):
            value, kind = getattr(self, field.name), str(field.type)
            if not isinstance(value, types[kind]) or isinstance(value, bool):
                raise RowvitError(f"{where}: {field.name} = {value!r} is not of type {kind}")
        if not re.fullmatch(r"\w[\w.-]*", self.name):  # files are named after it
            raise RowvitError(f"{where}: this is no name", "use letters, digits and . _ -")
        if not 0 < self.clock_mhz < math.inf:
            raise RowvitError(f"{where}: clock_mhz = {self.clock_mhz} is not a positive number")
        for name, possible, values, why in self._limits():
            if not possible:
                raise RowvitError(f"{where}: {name} = {getattr(self, name)}, but {why}", f"use {values}")

    def _limits(self) -> Iterator[tuple[str, bool, str, str]]:
        """Field, whether its value is possible, which values are, and why; later ones rely on earlier ones.

        Beyond these limits the RTL does not elaborate, or computes something else.
        """

        def within(name: str, values: range, why: str) -> tuple[str, bool, str, str]:
            text = f"{values[0]} to {values[-1]}" if len(values) > 1 else f"{values[0]}"
            if values.step > 1:
                text = f"a multiple of {values.step}, {text}"
            return name, getattr(self, name) in values, text, why

        yield (
            "rows",
            self.rows in (2, 4, 8),
            "2, 4 or 8",
            "row numbers are binary, and weights have two ports",
        )
        why = "a weight line has two words or more, a segment's bitmap has one, and lane numbers are binary"
        yield "lanes", self.lanes in (16, 32, 64), "16, 32 or 64", why
        why = f"a token memory bank cannot take the results of more at {self.lanes} lanes"
        yield within("groups", range(1, 7 if self.lanes == 64 else 5), why)
        why = f"LayerNorm takes {self.lanes} channels at a time, and its sums hold at most 1024"
        yield within("max_dim", range(self.lanes, 1025, self.lanes), why)
        why = "softmax needs room for a lane tile of tokens, and sums of P V hold at most 1024 of them"
        yield within("max_tokens", range(self.lanes, 1025), why)
        powers = [1 << bits for bits in range(1, 17)]
        why = "slot numbers have 1 to 8 bits, and this memory is not split"
        yield "param_slots", self.param_slots in powers[:8], "a power of two, 2 to 256", why
        slot = self.lanes * -(-self.max_dim // self.tile)
        why = f"slot numbers have 8 bits and parameter addresses 16, at {slot} addresses per slot"
        yield within("norm_slots", range(1, min(256, (1 << 16) // slot) + 1), why)
        why = "line addresses have at most 16 bits, but more than lane numbers"
        yield within("weight_depth", range(self.lanes + 1, (1 << 16) + 1), why)
        for name in ("token_depth", "residual_depth"):
            yield within(name, range(2, (1 << 16) + 1, 2), "addresses have 1 to 16 bits, pieces even depths")
        why = "addresses have 1 to 16 bits, and this memory is not split"
        yield (
            "port_bits",
            self.port_bits in (64, 128),
            "64 or 128",
            "loads take one or two 64-bit words at a time",
        )
        yield "mask_depth", self.mask_depth in powers, "a power of two, 2 to 65536", why
        places = [0, *(rows for rows in powers if self.max_tokens <= rows <= 4096)]
        why = "places have at most 12 bits, and those of an image must have room"
        text = f"0, for none, or a power of two, {places[1]} to {places[-1]}"
        yield "rotary_tokens", self.rotary_tokens in places, text, why

    @property
    def tile(self) -> int:
        """Output channels of one lane tile: ``lanes * groups``."""
        return self.lanes * self.groups

    @property
    def clock_text(self) -> str:
        """The clock in words. Without a board it is there to compare cycles: ``paper`` has that of a chip."""
        return f"{self.clock_mhz:g} MHz" + (", a clock of no board" if self.board == "none" else "")

    @property
    def macs_per_cycle(self) -> int:
        return self.rows * self.groups * self.lanes

    @property
    def segment_words(self) -> int:
        """64-bit words of one compressed segment: bitmap and ``lanes`` values."""
        return 1 + self.lanes // 8

    @property
    def ultra_ram(self) -> int:
        """UltraRAM, of 4096 words each, that token and residual memory take where they are made of it.

        A bank is made of pieces of 2^b words, one for each bit of its depth, those below 256 words elsewhere:
        rowvit_split_ram.v.
        """

        def bank(depth: int) -> int:
            return sum(-(-(1 << b) // 4096) for b in range(8, depth.bit_length()) if depth >> b & 1)

        return self.rows * (bank(self.token_depth) + self.groups * bank(self.residual_depth))

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

    `RowvitError` if there is no such name or file, it cannot be read or is not TOML, a key is missing or
    unknown, or a value is out of range.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = DIRECTORY / f"{name_or_path}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RowvitError(
            f"no hardware configuration '{name_or_path}'", f"use one of {', '.join(names())} or a .toml file"
        ) from error
    except OSError as error:
        raise RowvitError(f"{path} cannot be read ({error.strerror})", "name a .toml file") from error
    except ValueError as error:
        raise RowvitError(f"{path} is not TOML: {error}") from error
    known = {field.name for field in fields(HardwareConfig)}
    if known != values.keys():
        wrong = {"lacks": known - values.keys(), "has, unknown,": values.keys() - known}
        state = " and ".join(f"{verb} {', '.join(sorted(keys))}" for verb, keys in wrong.items() if keys)
        raise RowvitError(f"{path} {state}", f"its keys are {', '.join(sorted(known))}")
    return HardwareConfig(**values)
