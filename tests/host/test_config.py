# SPDX-License-Identifier: Apache-2.0
"""Configurations: reading, checking, hashing."""

from __future__ import annotations

import dataclasses

import pytest

from rowvit.errors import RowvitError
from rowvit.hardware import config


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
        if field != "lanes":
            assert dataclasses.replace(tiny, **{field: value + 1}).hash != tiny.hash


def test_hashes_are_stable() -> None:
    # bitstreams and programs in the field carry them
    assert config.load("tiny").hash == 0x7BAB1F13


def test_derived_numbers() -> None:
    pynq = config.load("pynq-z2")
    assert (pynq.macs_per_cycle, pynq.tile, pynq.segment_words, pynq.bands(197)) == (384, 192, 9, 99)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(RowvitError, match=r"'nope'; take one of .*pynq-z2.*tiny"):
        config.load("nope")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rows = 2 ", "rows = 0 ", "rows = 0 is not in"),
        ("rows = 2 ", "rows = 'two' ", "rows = 'two' is not of type int"),
        ("rows = 2 ", "", "lacks rows"),
        ("rows = 2 ", "rows = 2\ncolumns = 3 ", "columns"),
        ("rows = 2 ", "rows = = 2", "is not TOML"),
        ("lanes = 16 ", "lanes = 12 ", "lanes = 12; take a multiple of 8"),
        ("rows = 2 ", "rows = 16 ", "at most 15 rows"),
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
