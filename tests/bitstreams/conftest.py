# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest

from rowvit.hardware import config as configs
from rowvit.hardware.block_design import boards
from standins import BOARD_FILES, VITIS_HLS, VIVADO, Record, build


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Builds a board's default configuration; returns provenance and record."""

    def run(name: str, config: str = "", **options):
        monkeypatch.setenv("STANDIN_RECORD", str(tmp_path / "record"))
        if "STANDIN_BOARD_FILES" not in os.environ:
            monkeypatch.setenv("STANDIN_BOARD_FILES", " ".join(BOARD_FILES.values()))
        target = boards()[name]
        options = {"vivado": VIVADO, "vitis_hls": VITIS_HLS, "jobs": 1, "work": tmp_path / "work"} | options
        hardware = configs.load(config or target.configuration)
        made = build.build(target, hardware, out=tmp_path / "out", **options)
        return made, Record(tmp_path / "record")

    return run
