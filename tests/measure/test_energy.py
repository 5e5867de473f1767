# SPDX-License-Identifier: Apache-2.0
"""Energy estimated by activity: prices by hand, a table of the user's own, and what commands show of it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from rowvit.cli import app
from rowvit.errors import RowvitError
from rowvit.hardware.activity import COUNTS
from rowvit.hardware.config import load
from rowvit.measure import energy
from rowvit.measure.report.page import estimated_energy
from rowvit.quant.synthetic import random_package

#: simple prices at the process they are for: a product of 2 bits 1 pJ, of 8 x 9 bits 18 pJ
OWN = """
[process]
node_nm = 28
volts = 0.9
source = "made up"
[multiply]
pj = 4
bits = 4
source = "made up"
[add]
pj = 2
bits = 1
source = "made up"
[register]
pj = 1
bits = 2
source = "made up"
[sram]
pj = [1, 2]
bytes = [1024, 4096]
bits = 64
source = "made up"
[ddr]
pj = 10
bits = 64
source = "made up"
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    return path


def spent(config, prices, **counts):
    """Energy in pJ of what takes any, by name."""
    found = energy.items(config, dict.fromkeys(COUNTS, 0.0) | counts, prices)
    return {item.name: item.picojoules for item in found if item.picojoules}


def test_published():
    """28 nm of 45 nm at the same voltage, and of 40 nm: 8 x 9 bits, 26 bits, 26 flip-flops."""
    prices, shrunk = energy.load(), 28 / 45
    assert prices.access(64, 1024) == pytest.approx(10 * shrunk)  # 8 KB
    assert prices.access(512, 4096) == pytest.approx(8 * 20 * shrunk)  # eight memories of 32 KB side by side
    assert prices.access(16, 16384) == pytest.approx(20 * shrunk / 4)  # 32 KB, of a quarter of the width
    one = spent(load("tiny"), prices, fires=1)["multiply-accumulate"] / 16
    assert one == pytest.approx((3.1 * 72 / 1024 + 0.1 * 26 / 32) * shrunk + 0.009 * 26 * 28 / 40)
    assert spent(load("tiny"), prices, recv_words=2)["words"] == 2 * 64 * 70


def test_own(own):
    """`tiny`, 2 x 1 x 16 lanes: its weight memory has 128 bits, for each 64 of which it is 4 KB or more."""
    prices, tiny = energy.load(own), load("tiny")
    # of 16 lanes: product 72 / 4, sum 52, register 13
    assert spent(tiny, prices, fires=3) == {"multiply-accumulate": 3 * 16 * (18 + 52 + 13)}
    # two results of 25 x 17 bits, 27 and 17; 64 parameters of 42 bits are 336 bytes, 1/2 per octave
    drained = spent(tiny, prices, drained=1)
    assert drained["requantise"] == 2 * (25 * 17 / 4 + 2 * (27 + 17))
    size = tiny.param_slots * 16 * 42 / 8
    assert drained["parameters"] == pytest.approx(42 / 64 * (size / 1024) ** 0.5)
    for words in ("axi_beats", "recv_words", "send_words"):
        assert spent(tiny, prices, **{words: 5})["words"] == 50
    line = 2 * (tiny.weight_depth * 8 / 1024) ** 0.5
    assert spent(tiny, prices, weight_reads=1)["weight"] == pytest.approx(line)
    assert spent(tiny, prices, weight_bytes=4)["weight"] == pytest.approx(line / 4)


def test_operations_per_joule():
    """Two of every multiply-accumulate, by what the chip takes: arithmetic and memories, without the DDR."""
    one = energy.Estimate(ddr=100.0, sram=3.0, arithmetic=2.0, macs=10.0, macs_dense=40.0)
    assert (one.chip, one.total) == (5.0, 105.0)
    assert (one.tops_per_watt, one.tops_per_watt_dense) == (4.0, 16.0)


def test_memories_may_take_the_same(own):
    own.write_text(OWN.replace("pj = [1, 2]", "pj = [1, 1]"))
    found = energy.load(own)
    assert found.access(64, 128) == found.access(64, 200) == found.access(64, 512)


def test_scaled(own):
    """What was published for 56 nm and 1.8 V takes eight times the energy that it takes here."""
    own.write_text(OWN.replace("pj = 10\n", "pj = 10\nnode_nm = 56\nvolts = 1.8\n"))
    assert energy.load(own).ddr == pytest.approx(10 / 64 / 8)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[ddr]", "[dram]", "has a table dram"),
        ("pj = 10\n", "", "the table ddr has other keys"),
        ("pj = 10\n", "pj = 10\nvolts = 1\n", "the table ddr has other keys"),
        ("pj = 10\n", "pj = -10\n", "ddr.pj = -10"),
        ("pj = [1, 2]", "pj = [1]", "sram.pj"),
        ('bits = 64\nsource = "made up"\n[ddr]', 'bits = 64\nsource = ""\n[ddr]', "sram.source"),
        ("[ddr]", "[ddr", "is not TOML"),
        (OWN, "ddr = 3.1\n" + OWN[: OWN.index("[ddr]")], "ddr is 3.1, and no table"),
        ("bytes = [1024, 4096]", "bytes = 1024", "sram."),
        ("bytes = [1024, 4096]", "bytes = [8, 8]", "sram.bytes"),
    ],
)
def test_refused(own, old, new, said):
    assert old in OWN
    own.write_text(OWN.replace(old, new))
    with pytest.raises(RowvitError, match=re.escape(said)):
        energy.load(own)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    package = random_package(
        np.random.default_rng(4),
        dim=32,
        depth=2,
        heads=2,
        image_size=16,
        patch_size=4,
        hidden=64,
        classes=5,
        pruning=[{"layer": 0, "keep": 7, "threshold": 0}],
        name="small",
    )
    path = tmp_path_factory.mktemp("energy") / "small.safetensors"
    package.save(path)
    return path


def test_savings(package):
    """Each saving takes what it is for, and no more: tokens and zeros arithmetic, rows DDR."""
    from rowvit.formats.package import ModelPackage

    loaded, image = ModelPackage.load(package), np.zeros((16, 16, 3), np.uint8)
    image[4:, :8] = 200
    found = energy.savings(loaded, image, load("tiny"), energy.load())
    dense, tokens, rows, zeros, both, everything = (found[name] for name in energy.SAVINGS)
    assert dense.macs > max(tokens.macs, rows.macs) > 0
    assert rows.macs > zeros.macs == both.macs > everything.macs
    assert {one.macs_dense for one in found.values()} == {dense.macs_dense}
    assert tokens.arithmetic < dense.arithmetic
    assert zeros.arithmetic < rows.arithmetic < dense.arithmetic
    assert rows.ddr == both.ddr < zeros.ddr
    assert everything.total < min(tokens.total, both.total)


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "120"})
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_command(package, own):
    """Counts of RTL and model give the same table; a program has no savings."""
    tables = []
    for predict in ([], ["--predict"]):
        out = run("profile", package, "-c", "tiny", "--energy", *predict)
        assert "estimate by activity" in out
        assert "nothing is measured" in out
        assert "Prediction, which rowvit power" in out
        layers = out.split("lanes clocked", 1)[1].split("\n\n")[0].splitlines()[1:]
        assert [line.split()[0] for line in layers] == ["embed", "0", "1", "head", "total", "share"]
        tables.append([float(value.replace(",", "")) for value in layers[-2].split()[1:]])
    assert tables[0] == pytest.approx(tables[1], rel=0.05)
    program = package.with_name("program.safetensors")
    run("compile", package, "-c", "tiny", "-o", program)
    out = run("profile", program, "-c", "tiny", "--predict", "--energies", own)
    assert "takes the model package" in out
    assert "no-such.toml cannot be read" in run(
        "profile", package, "--energies", "no-such.toml", "--predict", code=2
    )


def test_report(power_file, small):
    """Beside the prediction stands what two results from a board say, and nothing else does."""
    pruned = json.loads(power_file.read_text())
    pruned["target"], pruned["power"]["significant"] = "board", True
    pruned["protocol"]["batch"] = 1
    dense = json.loads(json.dumps(pruned))
    dense["model"] |= {"hash": "0" * 64, "pruning": [], "ffn2_rule": "none"}
    joules = {"value": 3.0, "uncertainty": 0.03, "standard_error": 0.01}
    pruned["power"]["dynamic_joules_per_image"] = joules
    dense["power"]["dynamic_joules_per_image"] = joules | {"value": 6.0}
    photo = sorted(small["images"].iterdir())[0]
    arguments = str(small["package"]), photo, energy.load()
    found = estimated_energy([("p", pruned), ("d", dense)], *arguments)
    assert [row[0] for row in found["rows"]] == [*energy.SAVINGS]
    assert found["title"].startswith("Energy, estimate by activity")
    assert "Measured on the board, by d: 2.000 ± 0.022 times." in found["said"]
    for names, same in (
        (("pmbus VCCINT", "pmbus VCCBRAM"), False),
        (("external meter, log p.csv", "external meter, log d.csv"), True),
    ):
        for document, name in zip((pruned, dense), names, strict=True):
            document["instrument"] |= {"name": name, "measures": "the rails named by the user"}
        said = estimated_energy([("p", pruned), ("d", dense)], *arguments)["said"]
        assert any("Measured on the board" in sentence for sentence in said) == same
    for change in (
        {"clock": dense["clock"] | {"mhz": 7}},
        {"protocol": dense["protocol"] | {"batch": 8}},
        {"instrument": dense["instrument"] | {"measures": "another rail"}},
        {"model": dense["model"] | {"hash": pruned["model"]["hash"]}},
    ):
        said = estimated_energy([("p", pruned), ("d", dense | change)], *arguments)["said"]
        assert any("test it yet" in text for text in said), change
    older = json.loads(json.dumps(pruned))
    del older["config"]["rotary_tokens"]
    assert estimated_energy([("o", older)], *arguments) is None
    dense["target"] = "sim"
    assert any(
        "test it yet" in text for text in estimated_energy([("p", pruned), ("d", dense)], *arguments)["said"]
    )
