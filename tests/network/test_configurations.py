# SPDX-License-Identifier: Apache-2.0
"""Every shipped configuration beyond `tiny` and `pynq-z2`, and arrays that none of them has: each elaborates
without a warning, is built, and equals the integer reference on two networks.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from draws import ARRAYS
from test_bit_exact import assert_equal, random_images

from rowvit.hardware.config import HardwareConfig, load, names
from rowvit.quant.synthetic import preset_package, random_package
from rowvit.sim.verilate import RTL, parameters, sources

#: the default run builds one of them, which takes a minute
CONFIGURATIONS = [
    pytest.param(name, marks=[] if name == "paper" else pytest.mark.slow)
    for name in names()
    if name not in ("tiny", "pynq-z2")
]

#: rows, groups, lanes and width of the memory port of the others
SHAPES = [
    *((2, 4, 32, 64), (2, 5, 64, 128), (2, 6, 64, 64), (4, 1, 64, 128), (4, 2, 32, 128), (4, 3, 32, 64)),
    *((4, 4, 16, 128), (4, 5, 64, 64), (4, 6, 64, 128), (8, 1, 32, 64), (8, 4, 32, 128), (8, 5, 64, 64)),
    (8, 6, 64, 128),
]


def array(rows: int, groups: int, lanes: int, port_bits: int) -> HardwareConfig:
    shape = dict(rows=rows, groups=groups, lanes=lanes, port_bits=port_bits)
    depths = dict(weight_depth=2048, token_depth=8192, residual_depth=max(4096, 16384 // rows))
    rest = dict(
        max_tokens=128, max_dim=lanes * (groups + 1), mask_depth=256, rotary_tokens=128 * (lanes < 64)
    )
    name = f"array-{rows}x{groups}x{lanes}-{port_bits}"
    return replace(load("tiny"), name=name, **shape, **depths, **rest)


OTHERS = [pytest.param(array(*shape), id=array(*shape).name, marks=pytest.mark.slow) for shape in SHAPES]


def one_head_more(config):
    """Heads for a full and a partly used pass over the groups; tokens and hidden units to match."""
    heads = min(config.groups + 1, config.max_dim // config.lanes)
    return random_package(
        np.random.default_rng(config.groups),
        dim=heads * config.lanes,
        depth=2,
        heads=heads,
        image_size=36,
        patch_size=4,
        hidden=2 * config.tile + config.lanes,
        ffn_chunk=config.tile + config.lanes // 2,
        classes=config.tile + 3,
        prefix=2,  # an odd number of tokens
        rotary=config.rotary_tokens > 0,
        gated=config.rotary_tokens > 0,
        pruning=[{"layer": 0, "keep": 20, "threshold": 0}],
    )


def no_zeros(config):
    """The shortest products, none of whose hidden values is zero: the most words per cycle that the drain
    can make.
    """
    package = random_package(
        np.random.default_rng(1),
        dim=config.lanes,
        depth=2,
        heads=1,
        image_size=36,
        patch_size=4,
        hidden=4 * config.tile,
        ffn_chunk=min(2 * config.tile, 1024 // config.tile * config.tile),
        classes=5,
    )
    for layer in range(2):
        package.tensors[f"layers.{layer}.fc1.bias"][:] += 1 << 19
    return package


def test_any_two_parameters_meet():
    """Every value of two of an array's four is in one that is built."""
    possible = dict(rows=(2, 4, 8), groups=range(1, 7), lanes=(16, 32, 64), port_bits=(64, 128))
    there = [*map(load, names()), *ARRAYS.values(), *(array(*shape) for shape in SHAPES)]
    for first, second in itertools.combinations(possible, 2):
        pairs = {(getattr(config, first), getattr(config, second)) for config in there}
        wanted = set(itertools.product(possible[first], possible[second]))
        if (first, second) == ("groups", "lanes"):
            wanted = {(groups, lanes) for groups, lanes in wanted if groups <= 4 or lanes == 64}
        assert pairs == wanted, (first, second)


@pytest.mark.parametrize("config", [*(pytest.param(load(name), id=name) for name in names()), *OTHERS])
def test_elaborates(config):
    if shutil.which("verilator") is None:
        pytest.skip("Verilator is not installed: sudo apt-get install -y verilator")
    values = [f"-G{parameter}={value}" for parameter, value in parameters(config).items()]
    command = ["verilator", "--lint-only", "-Wall", f"-I{RTL}", *map(str, [RTL / "lint.vlt", *sources()])]
    done = subprocess.run([*command, "--top-module", "rowvit_top", *values], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_bit_exact(name):
    config = load(name)
    for package in (one_head_more(config), no_zeros(config)):
        for stalls in (0, 3):
            results, _ = assert_equal(package, name, random_images(package, 2, 5), stalls=stalls)
    assert results[0].counters


@pytest.mark.parametrize("config", OTHERS)
def test_other_arrays(config):
    """What a user may write into a configuration of one's own."""
    for package in (one_head_more(config), no_zeros(config)):
        assert_equal(package, config, random_images(package, 3, 5), batch=2, stalls=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if name not in ("tiny", "pynq-z2")])
def test_small(name):
    """What the memories are sized for."""
    preset = {"pynq-z2-257": "vit-small-14", "pynq-z2-lite": "deit-tiny"}.get(name, "deit-small")
    package = preset_package(preset)
    assert_equal(package, name, random_images(package, 1, 1), checkpoints=False)
