# SPDX-License-Identifier: Apache-2.0
"""The RTL equals the integer reference at every checkpoint, in kept tokens and in logits.

Every network runs the whole way: package, compiler, blob, PYNQ driver, AXI DMA, Verilated RTL.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import rowvit
from rowvit.compiler import compile
from rowvit.compiler.plan import Plan, Stage
from rowvit.compiler.sharing import candidates
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.hardware.config import load
from rowvit.quant.synthetic import preset_package, random_package
from rowvit.targets.target import MODELS

#: Hypothesis examples; the long run sets ROWVIT_NETWORKS=200 and more
NETWORKS = int(os.environ.get("ROWVIT_NETWORKS", "32"))


TINY = load("tiny")
#: `1`: random networks on `tiny` only
ONLY_TINY = os.environ.get("ROWVIT_ONLY_TINY") == "1"
#: arrays like `tiny` with more rows, which share ports of the weight memory and LayerNorm's lanes, with
#: several groups, a memory port of 128 bits, and room for several images
LARGER = [
    replace(TINY, name="tiny-4x1", rows=4, token_depth=4096, residual_depth=4096),
    replace(
        TINY,
        name="tiny-8x2",
        rows=8,
        groups=2,
        token_depth=4096,
        residual_depth=4096,
        port_bits=128,
    ),
]


@st.composite
def cases(draw):
    """A random network, and a configuration for it."""
    config = TINY if ONLY_TINY else draw(st.sampled_from([TINY, TINY, *LARGER]))
    return draw(packages(config.rows)), config


@st.composite
def packages(draw, rows):
    """Random networks for `tiny`: odd and even token counts, all FFN2 rules, extreme values."""
    heads = draw(st.integers(1, 4))
    depth = draw(st.integers(1, 3))
    patch = draw(st.sampled_from([2, 4]))
    side = draw(st.integers(1, 7))
    tokens = side * side + 1
    hidden = 16 * draw(st.integers(1, 8))
    chunk = draw(st.sampled_from([c for c in range(16, hidden + 1, 16) if hidden % c == 0]))
    pruning, live = [], tokens
    for layer in range(depth):
        if draw(st.booleans()):
            keep = draw(st.integers(0, live - 1))
            threshold = draw(st.sampled_from([0, 0, 1 << 12, 1 << 16, 1 << 19]))
            pruning.append({"layer": layer, "keep": keep, "threshold": threshold})
            live = min(live, keep + 1)
    return random_package(
        np.random.default_rng(draw(st.integers(0, 2**32 - 1))),
        dim=16 * heads,
        depth=depth,
        heads=heads,
        image_size=side * patch,
        patch_size=patch,
        hidden=hidden,
        classes=draw(st.integers(1, 40)),
        pruning=pruning,
        ffn2_rule=draw(st.sampled_from(["none", "image", "tile"])),
        tile_rows=rows * draw(st.integers(1, 8)),
        ffn_chunk=chunk,
        thr=draw(st.sampled_from([1, 1, 2, 30, 255])),
        extreme=draw(st.booleans()),
    )


@st.composite
def shared(draw):
    """A random network, a configuration with room for several images, and which of them share loads."""
    config = draw(st.sampled_from(LARGER))
    package = draw(packages(config.rows).filter(lambda package: package.meta["ffn2_rule"] != "tile"))
    try:
        choices = list(candidates(Plan(package.meta, config), 6))
    except RowvitError:
        choices = []  # does not fit at all
    assume(choices)
    return package, config, draw(st.sampled_from(choices))


def assert_equal(package, config, images, checkpoints=True, batch=1, stages=None, **options):
    """Run ``images`` on `sim` and on `golden`; everything must be equal. Returns the results of both."""
    config = load(config) if isinstance(config, str) else config
    with rowvit.open("golden", config=config, checkpoints=checkpoints) as golden:
        golden.load(package)
        expected = golden(images)
    with rowvit.open("sim", config=config, **options) as sim:
        sim.load(compile(package, config, checkpoints=checkpoints, stages=stages))
        results = sim(images, batch=batch)
    assert len(results) == len(expected) == len(images)
    for result, want in zip(results, expected, strict=True):
        for name, rows in want.checkpoints.items():
            np.testing.assert_array_equal(result.checkpoints[name], rows, name)
        assert [kept.tolist() for kept in result.kept] == [kept.tolist() for kept in want.kept]
        np.testing.assert_array_equal(result.logits, want.logits)
        assert result.same(want)
    return results, expected


def random_images(package, count, seed):
    side = package.meta["architecture"]["image_size"]
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@settings(
    max_examples=NETWORKS,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(cases(), st.integers(1, 3), st.integers(0, 3), st.integers(0, 1000), st.booleans())
def test_random_networks(case, batch, stalls, seed, checkpoints):
    package, config = case
    try:
        compile(package, config)
    except RowvitError:
        return  # does not fit; the refusals have tests of their own
    images = random_images(package, batch, seed)
    results, expected = assert_equal(package, config, images, checkpoints, batch, stalls=stalls)
    if batch == 1:
        (result,), (want,) = results, expected
        for name in ("macs_executed", "macs_dense", "w2_rows_fetched", "w2_rows_total"):
            assert getattr(result, name) == getattr(want, name), name


@settings(
    max_examples=NETWORKS // 2,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(shared(), st.integers(1, 2), st.integers(0, 3), st.integers(0, 1000), st.booleans())
def test_images_that_share_loads(case, passes, stalls, seed, checkpoints):
    """One pass or two, each of as many images as share the last layers' weights."""
    package, config, stages = case
    count = passes * stages[-1].images
    images = random_images(package, count, seed)
    assert_equal(package, config, images, checkpoints, count, stages, stalls=stalls)


def test_batches_of_any_size():
    """Images beyond a multiple of those that share loads run alone, in order."""
    shape = dict(dim=32, depth=2, heads=2, image_size=8, patch_size=2, hidden=64, classes=5)
    package = random_package(np.random.default_rng(3), **shape)
    images = random_images(package, 5, 3)
    results, _ = assert_equal(package, LARGER[0], images, batch=5, stages=(Stage(0, 2),))
    assert [result.batch for result in results] == [4, 4, 4, 4, 1]


def test_patches_in_chunks():
    """Patches of more scalars than a product takes: 3 x 20 x 20 in three chunks."""
    shape = dict(dim=48, depth=1, heads=3, image_size=60, patch_size=20, hidden=32, classes=5)
    package = random_package(np.random.default_rng(5), **shape)
    assert_equal(package, TINY, random_images(package, 2, 5), batch=2, stalls=3)


def test_sixteen_heads():
    """More than the token scores can add up; a network that drops no tokens has none."""
    shape = dict(dim=256, depth=2, heads=16, image_size=8, patch_size=4, hidden=64, classes=5)
    package = random_package(np.random.default_rng(1), **shape)
    assert_equal(package, TINY, random_images(package, 2, 1), batch=2)


def test_dead_row_tiles():
    """Many operations in a row without a live band: the drain passes them on faster than it counts them."""
    package = random_package(
        np.random.default_rng(7),
        dim=16,
        depth=1,
        heads=1,
        image_size=12,
        patch_size=2,
        hidden=16,
        classes=3,
        pruning=[{"layer": 0, "keep": 35, "threshold": 1 << 19}],
        ffn2_rule="tile",
        tile_rows=2,
    )
    assert_equal(package, "tiny", random_images(package, 2, 7), batch=2)


def sign_digits(count):
    package = ModelPackage.load(MODELS / "sign_digits.safetensors")
    return package, sorted((MODELS / "sign_digits_photos").glob("*.jpg"))[:count]


@pytest.mark.parametrize("stalls", [0, 7])
def test_sign_digits_photo(stalls):
    package, photos = sign_digits(1)
    assert_equal(package, "pynq-z2", photos, stalls=stalls)


@pytest.mark.slow
@pytest.mark.parametrize("stalls", [0, 3])
def test_all_photos(stalls):
    package, photos = sign_digits(20)
    assert len(photos) == 20
    assert_equal(package, "pynq-z2", photos, stalls=stalls)


@pytest.mark.slow
def test_deit_tiny_batch():
    """Eight images, of which two share the middle layers and four the last ones."""
    package = preset_package("deit-tiny")
    assert_equal(package, "pynq-z2", random_images(package, 8, 3), checkpoints=False, batch=8)


@pytest.mark.slow
@pytest.mark.parametrize("stalls", [0, 5])
@pytest.mark.parametrize("dense", [False, True])
def test_deit_tiny(dense, stalls):
    package = preset_package("deit-tiny", dense=dense)
    assert_equal(package, "pynq-z2", random_images(package, 1, 1), stalls=stalls)


def test_deit_tiny_pruned():
    """Network (b), whose cycles are quoted, once in the default run."""
    package = preset_package("deit-tiny")
    (result,), _ = assert_equal(package, "pynq-z2", random_images(package, 1, 2), checkpoints=False)
    assert result.live == [99, 50, 26]
