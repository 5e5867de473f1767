# SPDX-License-Identifier: Apache-2.0
"""The RAMs of every board's configuration, as Vivado's documents say that it maps them, fit the part."""

from __future__ import annotations

import shutil
import sys
from functools import cache
from pathlib import Path

import pytest

from rowvit.hardware import config as configs
from rowvit.hardware.block_design import board, boards

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from memories import SYSTEM, Ram, rams

#: of every board its own configuration, and of every configuration its board
ON_BOARDS = sorted(
    {(name, board.configuration) for name, board in boards().items()}
    | {(config.board, config.name) for config in map(configs.load, configs.names()) if config.board != "none"}
)


@cache
def mapped(name: str, ram_style: str) -> list[Ram]:
    """Boards share them."""
    return rams(name, ram_style)


def ram(depth: int, width: int, style: str = "block", dual: bool = False, bytes: bool = False) -> Ram:
    return Ram("", depth, width, style, dual, bytes, 1)


def test_mapping_is_that_of_the_documents() -> None:
    """UG906: 40K x 36 takes 72 RAMB36, as 32K and 8K words 40; AR 61995: 1,146,880 x 3 takes 192."""
    assert ram(40 * 1024, 36).block_ram() == 72
    assert ram(32 * 1024, 36).block_ram() + ram(8 * 1024, 36).block_ram() == 40
    assert ram(1146880, 3).block_ram() == 192
    assert ram(1024, 16).block_ram() == 0.5 and ram(2048, 16).block_ram() == 1
    assert ram(1024, 512, dual=True, bytes=True).block_ram() == 16
    assert ram(4097, 73, "ultra").ultra_ram() == 4 and ram(4096, 72, "ultra").block_ram() == 0


@pytest.mark.skipif(shutil.which("yosys") is None, reason="needs yosys: apt-get install yosys")
@pytest.mark.parametrize(("on", "name"), ON_BOARDS)
def test_fits_its_part(on: str, name: str) -> None:
    target = board(on)
    found = mapped(name, target.ram_style)
    for one in found:
        assert one.depth & (one.depth - 1) == 0 or one.style == "distributed", one
    blocks = sum(one.count * one.block_ram() for one in found)
    assert blocks + SYSTEM <= target.block_ram
    ultra = sum(one.count * one.ultra_ram() for one in found)
    assert ultra <= target.ultra_ram
    assert ultra == (configs.load(name).ultra_ram if target.ram_style == "ultra" else 0)
    if name == boards()["Pynq-Z2"].configuration:
        assert blocks <= 130


@pytest.mark.skipif(shutil.which("yosys") is None, reason="needs yosys: apt-get install yosys")
def test_ultra_ram_of_depths_in_pieces(tmp_path: Path) -> None:
    text = (configs.DIRECTORY / "kv260.toml").read_text()
    text = text.replace("token_depth = 8192", "token_depth = 7424").replace("_depth = 8192", "_depth = 4162")
    odd = tmp_path / "odd.toml"
    odd.write_text(text)
    found = rams(str(odd), "ultra")
    assert sum(one.count * one.ultra_ram() for one in found) == configs.load(odd).ultra_ram == 8 * (4 + 3)
