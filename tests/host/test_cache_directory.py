# SPDX-License-Identifier: Apache-2.0
"""Where things are kept that rowvit has made."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowvit.cache import cache_directory
from rowvit.errors import RowvitError


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"ROWVIT_CACHE": "/own"}, "/own"),
        ({"ROWVIT_CACHE": "here"}, f"{Path.cwd()}/here"),  # or the loader would look elsewhere
        ({"ROWVIT_CACHE": "", "XDG_CACHE_HOME": "/shared"}, "/shared/rowvit"),
        ({"XDG_CACHE_HOME": ""}, "/home/someone/.cache/rowvit"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/someone/.cache/rowvit"),
        ({}, "/home/someone/.cache/rowvit"),
    ],
)
def test_variables(monkeypatch, variables, found):
    """Those of the XDG base directory specification are ignored where they are no absolute paths."""
    monkeypatch.setenv("HOME", "/home/someone")
    for name in ("ROWVIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_directory() == Path(found)


def test_a_user_without_a_home(monkeypatch):
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    for name in ("ROWVIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RowvitError, match=r"no home directory.*; name a folder in the variable ROWVIT_CACHE"):
        cache_directory()
