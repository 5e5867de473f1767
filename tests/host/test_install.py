# SPDX-License-Identifier: Apache-2.0
"""What pip installs: a wheel that needs no checkout, and as little on a board as its image lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image
from waiting import HANG

from rowvit.quant.synthetic import random_package

ROOT = Path(__file__).parents[2]
EXTRAS = (
    "torch",
    "timm",
    "onnx",
    "onnxruntime",
    "safetensors",
    "matplotlib",
    "jinja2",
    "pandas",
    "distributed",
)
#: releases that PYNQ's images have: of the Zynq-7000 (3.0.1, Ubuntu 22.04) and of 4.0
IMAGES = {
    "armv7l": {
        "pynq": "3.0.1",
        "numpy": "1.21.5",
        "pillow": "9.0.1",
        "matplotlib": "3.5.1",
    },
    "aarch64": {"pynq": "4.0.0"},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The unpacked wheel."""
    tree, wheels, site = (tmp_path_factory.mktemp(name) for name in ("tree", "wheels", "site"))
    for name in ("host", "rtl", "hls"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", wheels, tree], check=True, capture_output=True, timeout=HANG)
    (wheel,) = wheels.glob("rowvit-*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site


@pytest.mark.parametrize("arguments", [["golden"], ["sim"], ["sim", "--frontend", "hls"]], ids=" ".join)
def test_a_wheel_is_all_that_golden_and_sim_need(site, tmp_path, arguments):
    """In an empty directory, without the packages of the extras (but for hls)."""
    rng = np.random.default_rng(1)
    random_package(rng, dim=16, depth=1, heads=1, image_size=8, patch_size=4, hidden=16, classes=3).save(
        tmp_path / "net.safetensors"
    )
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({EXTRAS}))\n"
        "import rowvit; print(rowvit.__file__)\n"
        "from rowvit.cli import app; app()"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "run",
        "net.safetensors",
        "photo.png",
        "--config",
        "tiny",
        "--check",
    ]
    done = subprocess.run(
        [*command, "--target", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert "1 of 1, bit for bit" in done.stdout


def requirements(site: Path, machine: str, python: str, extra: str = "") -> dict[str, Requirement]:
    (information,) = site.glob("*.dist-info")
    environment = {"platform_machine": machine, "python_version": python, "extra": extra}
    found = map(Requirement, Distribution.at(information).requires)
    return {r.name: r for r in found if not r.marker or r.marker.evaluate(environment)}


def test_a_pc_needs_nothing_large(site):
    plain = requirements(site, "x86_64", "3.11")
    assert not plain.keys() & {*EXTRAS, "torchvision", "hls4ml"}
    # the last PYNQ that knows the Zynq-7000
    assert plain["pynq"].specifier.contains("3.1.2") and not plain["pynq"].specifier.contains("4.0.0")


@pytest.mark.parametrize("machine", IMAGES)
def test_a_board_keeps_what_its_image_brings(site, machine):
    plain = requirements(site, machine, "3.10")
    board = requirements(site, machine, "3.10", "board")
    assert board.keys() - plain.keys() == {"matplotlib"}
    for name, version in IMAGES[machine].items():
        assert board[name].specifier.contains(version), name
