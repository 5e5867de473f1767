# SPDX-License-Identifier: Apache-2.0
"""docs/another-board.md, followed to the letter for its made-up board; and mistakes in a row of one's own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import HANG

from rowvit.errors import RowvitError
from rowvit.formats import provenance
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import board, boards, default_configuration
from rowvit.measure.power.instruments import own_instrument
from standins import ROOT, VIVADO, needs_tcl

PAGE = (ROOT / "docs/another-board.md").read_text()
ROW = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1]
STEPS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
PART = re.search('part = "(.*)"', ROW)[1]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Where the page's file is, named as the page's first command does."""
    (tmp_path / "my-boards.toml").write_text(ROW)
    variable, path = STEPS[0].removeprefix("export ").split("=")
    monkeypatch.setenv(variable, str(tmp_path / path))
    return tmp_path


def run(step: str, *more: object, **environment: str) -> subprocess.CompletedProcess:
    """A step of the page, with our Python in place of that of the environment that make would make."""
    words = shlex.split(step)
    if words[0] == "make":
        command = ["make", "--dry-run", "--no-print-directory", *words[1:]]
        recipe = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG, check=True)
        words = shlex.split(next(line for line in recipe.stdout.splitlines() if "python bitstreams/" in line))
    return subprocess.run(
        [sys.executable, *words[1:], *map(str, more)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=HANG,
    )


def test_the_page_has_five_steps():
    assert re.findall(r"^## (\d)\.", PAGE, re.MULTILINE) == list("12345")
    assert [shlex.split(step)[:2] for step in STEPS] == [
        ["export", "ROWVIT_BOARDS=my-boards.toml"],
        ["python", "benchmarks/memories.py"],
        ["make", "bitstream"],
        ["make", "bitstream"],
        ["make", "board-bundle"],
    ]
    assert "My-Board" not in boards()


@pytest.mark.skipif(shutil.which("yosys") is None, reason="needs yosys: apt-get install yosys")
@pytest.mark.slow
def test_memories(own):
    done = run(STEPS[1])
    assert done.returncode == 0 and done.stdout.splitlines()[-1] in PAGE, done.stdout + done.stderr
    file = own / "my-boards.toml"
    file.write_text(ROW.replace("block_ram = 180", "block_ram = 170"))
    done = run(STEPS[1])
    assert done.returncode == 1 and "does not fit the memories of My-Board" in done.stdout, done.stderr


@needs_tcl
def test_dry_run_and_build(own):
    dry = run(STEPS[2], "--work", own / "dry")
    assert dry.returncode == 0 and (own / "dry/My-Board/build.tcl").is_file(), dry.stderr
    files = own / "files"
    (files / "example.com:my-board:part0:1.0").mkdir(parents=True)
    build = STEPS[3].replace("/path/to/board_files", str(files))
    where = ["--vivado", VIVADO, "--work", own / "work", "--out", own / "out"]
    lacks = run(build, *where)
    assert lacks.returncode == 2 and f"this Vivado has no part {PART}" in lacks.stderr
    done = run(build, *where, STANDIN_PARTS=PART)
    assert done.returncode == 0, done.stderr
    (made,) = provenance.verify(own / "out/My-Board")
    assert (made.board, made.part, made.configuration) == ("My-Board", PART, "zu3")
    without = run(STEPS[2].replace(" DRY_RUN=1", ""), *where, STANDIN_PARTS=PART)
    assert without.returncode == 2 and "has no board file" in without.stderr


def test_on_the_board(own, monkeypatch):
    bundle = run(STEPS[4], "--overlays", own / "none")
    assert bundle.returncode == 2 and "My-Board/rowvit-zu3.bit does not exist" in bundle.stderr
    assert default_configuration() == "pynq-z2"
    monkeypatch.setenv("BOARD", "My-Board")
    monkeypatch.chdir(own)
    assert default_configuration() == "zu3" and own_instrument("My-Board") == "pmbus"
    for file, expected in [
        ("mine.bit", "zu3"),
        ("rowvit-mine.bit", "zu3"),  # no name of a configuration
        ("rowvit-pynq-z2-lite-hls.bit", "zu3"),  # two
    ]:
        (own / file).touch()
        assert default_configuration() == expected
    (own / "rowvit-mine.bit").unlink()
    assert default_configuration() == "pynq-z2-lite"
    (own / "rowvit-zu3.bit").touch()
    assert default_configuration() == "zu3"
    monkeypatch.delenv("BOARD")
    assert default_configuration() == "pynq-z2"


def test_a_row_takes_the_place_of_one(own):
    (own / "my-boards.toml").write_text(ROW.replace("My-Board", "ZCU104"))
    assert board("zcu104").part == PART and board("Pynq-Z2").configuration == "pynq-z2"


def test_settings_and_a_configuration_of_ones_own(own):
    config = own / "mine.toml"
    text = (configs.DIRECTORY / "zu3.toml").read_text()
    config.write_text(text.replace('"zu3"', '"mine"').replace("Ultra96V2", "My-Board"))
    row = ROW.replace('"zu3"', f'"{config}"\nsettings = "mine"').replace("zynq-ultrascale", "zynq-7000")
    (own / "my-boards.toml").write_text(row + "[settings.mine]\nPCW_CRYSTAL_PERIPHERAL_FREQMHZ = 50\n")
    assert board("My-Board").settings == {"PCW_CRYSTAL_PERIPHERAL_FREQMHZ": 50}
    dry = run(STEPS[2], "--work", own / "dry")
    assert dry.returncode == 0, dry.stderr
    assert "PCW_CRYSTAL_PERIPHERAL_FREQMHZ" in (own / "dry/My-Board/build.tcl").read_text()


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ('part = "xczu42eg-sfvc784-1-e"\n', "", "board My-Board lacks part; its keys are family, part, "),
        ("pll_mhz", "pll", "board My-Board has unknown or lacks known keys: pll, pll_mhz; its keys are "),
        ("pll_mhz = 1500.0", "pll_mhz = 0", "board My-Board: pll_mhz = 0 is not a positive number"),
        ("block_ram = 180", 'block_ram = "180"', "board My-Board: block_ram = '180' is not of type int"),
        ('"zynq-ultrascale"', '"zynq"', "board My-Board: no family 'zynq'; use one of zynq-7000, zynq-ultra"),
        ('"zynq-ultrascale"', '["zynq-7000"]', r"board My-Board: no family \['zynq-7000'\]; use one of "),
        ('"block"', '"distributed"', "board My-Board: no ram_style 'distributed'; use one of block, ultra"),
        ("ultra_ram = 0", 'ultra_ram = 0\nsettings = "x"', "no settings 'x'; use one of pynq-z"),
        ("[boards.My-Board.power]\n", "", "board My-Board has unknown or lacks known keys: instrument, "),
        ("rails = []\n", "", "board My-Board: power lacks rails; its keys are instrument, rails, measures, "),
        ("[boards.My-Board]", "[board.My-Board]", "has a table 'board', which is none of boards, settings, "),
        ("[boards.My-Board.power]", "[boards.My-Board.power", "is not TOML: "),
        (ROW, "boards = 5", "'boards' holds something other than tables; give it tables like those of docs/"),
    ],
)
def test_mistakes_in_a_row(own, right, wrong, message):
    assert right in ROW
    (own / "my-boards.toml").write_text(ROW.replace(right, wrong, 1))
    with pytest.raises(RowvitError, match=f"my-boards.toml.* {message}"):
        board("My-Board")


def test_a_file_that_is_not_there(own):
    (own / "my-boards.toml").unlink()
    with pytest.raises(RowvitError, match=r"the file of ROWVIT_BOARDS, cannot be read \(No such file"):
        boards()
    rowvit = [sys.executable, "-m", "rowvit.cli", "config", "list"]
    environment = {**os.environ, "BOARD": "My-Board"}
    done = subprocess.run(rowvit, capture_output=True, text=True, timeout=HANG, env=environment)
    assert done.returncode == 2 and done.stderr.startswith(f"rowvit: {Path(own)}"), done.stderr
