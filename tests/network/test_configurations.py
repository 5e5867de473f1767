# SPDX-License-Identifier: Apache-2.0
"""Every shipped configuration beyond `tiny` and `pynq-z2`: it elaborates without a warning, is built, and
equals the integer reference on two networks.
"""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from test_bit_exact import assert_equal, random_images

from rowvit.hardware.config import load, names
from rowvit.quant.synthetic import preset_package, random_package
from rowvit.sim.verilate import RTL, parameters, sources

#: the default run builds one of them, which takes a minute
CONFIGURATIONS = [
    pytest.param(name, marks=[] if name == "paper" else pytest.mark.slow)
    for name in names()
    if name not in ("tiny", "pynq-z2")
]


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


@pytest.mark.parametrize("name", names())
def test_elaborates(name):
    if shutil.which("verilator") is None:
        pytest.skip("Verilator is not installed: sudo apt-get install -y verilator")
    values = [f"-G{parameter}={value}" for parameter, value in parameters(load(name)).items()]
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


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if name not in ("tiny", "pynq-z2")])
def test_small(name):
    """What the memories are sized for."""
    package = preset_package("vit-small-14" if name == "pynq-z2-257" else "deit-small")
    assert_equal(package, name, random_images(package, 1, 1), checkpoints=False)
