# SPDX-License-Identifier: Apache-2.0
"""PYNQ where pip cannot resolve what it asks for."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import numpy as np
import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rowvit.hardware.config import tomllib
from rowvit.pynq import UNPINNED, PynqBuffer

ROOT = Path(__file__).parents[2]
#: not installed from Python 3.13 on: gRPC is for remote boards, and nothing here imports it
WITHOUT = {"pynq", "pynqutils", "grpcio", "grpcio-tools"}


def test_what_pynq_asks_for_is_asked_for_in_its_place() -> None:
    """From Python 3.13 on; but for the upper bound of NumPy, every requirement is one of ours."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    later = {**default_environment(), "python_version": "3.13", "python_full_version": "3.13.5", "extra": ""}
    ours = {
        canonicalize_name(one.name): one
        for one in map(Requirement, project["dependencies"])
        if one.marker is None or one.marker.evaluate(later)
    }
    assert not WITHOUT & ours.keys()
    for package in map(Requirement, UNPINNED):
        for asked in map(Requirement, requires(package.name) or ()):
            name = canonicalize_name(asked.name)
            assert name in ours.keys() | WITHOUT
            pins = [one for one in ours.get(name, asked).specifier if one.operator != ">="]
            assert name in ("numpy", *WITHOUT) or all(
                one in pins for one in asked.specifier if one.operator != ">="
            )


def test_what_is_imported_needs_no_grpc() -> None:
    code = "import sys, rowvit.pynq, rowvit.sim.device; print(*sys.modules)"
    hidden = f"import sys; sys.modules['grpc'] = None; {code}"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=True)
    assert not {"grpc_tools", "google.protobuf"} & set(done.stdout.split())


@pytest.mark.parametrize("file", ["Makefile", "README.md"])
def test_versions_are_those_of_the_module(file: str) -> None:
    """In the commands that install them without what they ask for."""
    found = set(re.findall(r"\bpynq(?:utils)?==[0-9.]+\d", (ROOT / file).read_text()))
    assert found == set(UNPINNED)


#: this Python's command
INSTALL = "--no-deps " + " ".join(UNPINNED) if sys.version_info >= (3, 13) else "'pynq>=3.1.2,<4'"


@pytest.mark.parametrize(
    "missing, install",
    [
        ("pynq", INSTALL),
        ("pynqutils", INSTALL),
        ("pkg_resources", "'setuptools<=80'"),
        ("cffi", "cffi"),
    ],
)
def test_what_is_missing_is_said(missing: str, install: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import rowvit.cli as c; c.app()"
    run = [sys.executable, "-c", code, "run", "sign-digits", "-t", "sim"]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        f"rowvit: simulator and board need PYNQ, and the Python package {missing} is missing;"
        f" install it with: pip install {install}\n"
    )


def test_buffers_know_their_device() -> None:
    buffer = PynqBuffer(shape=(3, 2), dtype=np.uint8, device="it", device_address=4096)
    assert buffer.device == "it" and buffer[1:].device == "it" and buffer.device_address == 4096
