# SPDX-License-Identifier: Apache-2.0
"""Configurations: reading, checking, hashing."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess

import pytest
from waiting import HANG

from rowvit.errors import RowvitError
from rowvit.hardware import config
from rowvit.sim.verilate import RTL, sources


@pytest.mark.parametrize("name", config.names())
def test_shipped_configurations_load_under_their_own_name(name: str) -> None:
    loaded = config.load(name)
    assert loaded.name == name
    assert loaded == config.load(config.DIRECTORY / f"{name}.toml")


def test_the_hash_depends_on_structure_only() -> None:
    tiny = config.load("tiny")
    assert 0 <= tiny.hash < 1 << 32
    assert dataclasses.replace(tiny, name="other", clock_mhz=7.0, board="x").hash == tiny.hash
    for field, value in tiny.structure().items():
        changed = value + 1 if field in ("groups", "norm_slots", "weight_depth") else 2 * value
        changed = value - 1 if field == "max_tokens" else changed
        assert dataclasses.replace(tiny, **{field: changed}).hash != tiny.hash


def test_hashes_are_stable() -> None:
    # bitstreams and programs in the field carry them
    assert config.load("tiny").hash == 0x61098B35


def test_derived_numbers() -> None:
    pynq = config.load("pynq-z2")
    assert (pynq.macs_per_cycle, pynq.tile, pynq.segment_words, pynq.bands(197)) == (384, 192, 9, 99)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(RowvitError, match=r"'nope'; use one of .*pynq-z2.*tiny"):
        config.load("nope")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rows = 2 ", "rows = 0 ", "'tiny': rows = 0, but row numbers are binary, .*; use 2, 4 or 8"),
        ("rows = 2 ", "rows = 'two' ", "rows = 'two' is not of type int"),
        ("rows = 2 ", "", r"wrong\.toml lacks rows; its keys are"),
        ("rows = 2 ", "rows = 2\ncolumns = 3 ", r"wrong\.toml has, unknown, columns; its keys are"),
        ("rows = 2 ", "columns = 3 ", "lacks rows and has, unknown, columns; its"),
        ("rows = 2 ", "rows = = 2", "is not TOML"),
        ("lanes = 16 ", "lanes = 12 ", "lanes = 12, .*; use 16, 32 or 64"),
        ("groups = 1 ", "groups = 12 ", "groups = 12, but .* 16 lanes; use 1 to 4"),
        ("max_dim = 256 ", "max_dim = 250 ", "max_dim = 250, .*; use a multiple of 16, 16 to 1024"),
        ("clock_mhz = 100.0", "clock_mhz = nan", "clock_mhz = nan is not a positive number"),
        (
            'name = "tiny"',
            'name = "../tiny"',
            r"'\.\./tiny': this is no name; use letters, digits and \. _ -",
        ),
    ],
)
def test_wrong_files_are_refused(tmp_path, old: str, new: str, message: str) -> None:
    text = (config.DIRECTORY / "tiny.toml").read_text()
    assert old in text
    path = tmp_path / "wrong.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(RowvitError, match=message):
        config.load(path)


def test_what_is_no_text_is_refused(tmp_path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_bytes(b"\xff\xfe\0")
    with pytest.raises(RowvitError, match=r"wrong\.toml is not TOML: 'utf-8' codec can't decode"):
        config.load(path)
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(RowvitError, match=r"folder\.toml cannot be read \(Is a directory\); name a \.toml"):
        config.load(tmp_path / "folder.toml")


# -- limits -----------------------------------------------------------------------------------------

LOWEST = dict(
    **dict(rows=2, groups=1, lanes=16, weight_depth=17, token_depth=2, residual_depth=2),
    **dict(max_tokens=16, max_dim=16, param_slots=2, norm_slots=1, mask_depth=2, port_bits=64),
    rotary_tokens=0,
)
HIGHEST = dict(
    **dict(rows=2, groups=6, lanes=64, weight_depth=65536, token_depth=65536, residual_depth=65536),
    **dict(max_tokens=1024, max_dim=1024, param_slots=256, norm_slots=256, mask_depth=65536, port_bits=128),
    rotary_tokens=4096,
)
#: structures that are possible, and for each what is just beyond it
CORNERS = [
    (LOWEST, {name: value - 1 for name, value in LOWEST.items()} | {"lanes": 8}),
    (HIGHEST, {name: value + 1 for name, value in HIGHEST.items()} | {"lanes": 128, "max_dim": 1088}),
    (LOWEST | {"groups": 4, "residual_depth": 2048}, {"groups": 5, "residual_depth": 2049, "lanes": 24}),
    (LOWEST | {"groups": 4, "lanes": 32, "weight_depth": 33, "max_tokens": 32, "max_dim": 32}, {"groups": 5}),
    (LOWEST | {"rows": 4, "rotary_tokens": 16}, {"rows": 5, "rotary_tokens": 17}),
    (LOWEST | {"rows": 8, "groups": 3}, {"rows": 16}),
    (LOWEST | {"max_dim": 1024, "norm_slots": 64}, {"norm_slots": 65, "max_dim": 1032}),
    (LOWEST | {"param_slots": 4, "mask_depth": 4}, {"param_slots": 3, "mask_depth": 3, "token_depth": 3}),
]


def elaborates(structure: dict[str, int]) -> bool:
    """Whether the RTL passes Verilator without a warning."""
    command = ["verilator", "--lint-only", "-Wall", f"-I{RTL}", str(RTL / "lint.vlt"), *map(str, sources())]
    command += ["--top-module", "rowvit_top", *(f"-G{name.upper()}={n}" for name, n in structure.items())]
    return subprocess.run(command, capture_output=True, timeout=HANG).returncode == 0


@pytest.mark.parametrize("inside, beyond", CORNERS)
def test_configuration_and_rtl_have_the_same_limits(inside: dict[str, int], beyond: dict[str, int]) -> None:
    if shutil.which("verilator") is None:
        pytest.skip("Verilator is not installed: sudo apt-get install -y verilator")

    def make(structure: dict[str, int]) -> config.HardwareConfig:
        return config.HardwareConfig(name="corner", board="none", clock_mhz=100.0, **structure)

    make(inside)
    assert elaborates(inside)
    for name, value in beyond.items():
        with pytest.raises(RowvitError, match=f"^configuration 'corner': {name} = {value}, but .*; use "):
            make(inside | {name: value})
        assert not elaborates(inside | {name: value}), name
