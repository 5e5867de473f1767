# SPDX-License-Identifier: Apache-2.0
"""The RTL equals the integer reference at every checkpoint, in kept tokens and in logits.

Every network runs the whole way: package, compiler, blob, PYNQ driver, AXI DMA, Verilated RTL.
"""

from __future__ import annotations

import numpy as np
import pytest
from draws import ARRAYS, NUMBERS, RECTANGLES, SHIPPED, case

import rowvit
from rowvit.compiler import compile
from rowvit.compiler.plan import Stage
from rowvit.formats.bundled import MODELS
from rowvit.formats.description import image_shape
from rowvit.formats.package import ModelPackage
from rowvit.hardware.config import load
from rowvit.hardware.isa import MAX_IMAGES
from rowvit.quant.synthetic import preset_package, random_package


def assert_equal(package, config, images, checkpoints=True, batch=1, stages=None, **options):
    """Compile, and run ``images`` on `sim` and on `golden`; everything must be equal: both results."""
    config = load(config) if isinstance(config, str) else config
    program = compile(package, config, checkpoints, min(batch, MAX_IMAGES), stages)
    return assert_program_equal(package, program, config, images, batch, **options)


def assert_program_equal(package, program, config, images, batch, **options):
    """``program`` of ``package``."""
    checkpoints = program.meta["checkpoints"]
    with rowvit.open("golden", config=config, checkpoints=checkpoints) as golden:
        golden.load(package)
        expected = golden(images)
    with rowvit.open("sim", config=config, **options) as sim:
        sim.load(program)
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
    shape = count, *image_shape(package.arch), 3
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("array", "number"), [(array, n) for array in ARRAYS for n in NUMBERS[array]])
def test_random_networks(array, number, rectangle=False):
    one = case(array, number, rectangle)
    results, expected = assert_program_equal(
        one.package, one.program, one.config, one.images, one.batch, stalls=one.stalls
    )
    if one.batch == 1:
        for result, want in zip(results, expected, strict=True):
            for name in ("macs_executed", "macs_dense", "w2_rows_fetched", "w2_rows_total"):
                assert getattr(result, name) == getattr(want, name), name


@pytest.mark.parametrize(("array", "number"), [(array, n) for array in ARRAYS for n in RECTANGLES])
def test_random_rectangles(array, number):
    """Of numbers of patches that are no squares; shapes alone are drawn above, too."""
    test_random_networks(array, number, rectangle=True)


def test_records_of_nine_images():
    """MARK records that wait while a checkpoint is sent: once the ninth was dropped."""
    test_random_networks("tiny-8x2", 93)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
@pytest.mark.parametrize("array", SHIPPED)
def test_random_networks_on_shipped_arrays(array, number):
    test_random_networks(array, number)


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("prefix", [1, 2])
def test_rotary_positions(array, prefix):
    """Odd and even numbers of places, which move twice, alone and with images that share loads."""
    package = random_package(
        np.random.default_rng(prefix),
        **dict(dim=32, depth=4, heads=2, image_size=10, patch_size=2, hidden=64, classes=5),
        prefix=prefix,
        rotary=True,
        pruning=[{"layer": layer, "keep": keep, "threshold": 0} for layer, keep in ((0, 12), (2, 5))],
    )
    assert_equal(package, ARRAYS[array], random_images(package, 5, 3), batch=4, stalls=prefix)


def test_batches_of_any_size():
    """Images beyond a multiple of those that share loads run alone, in order."""
    shape = dict(dim=32, depth=2, heads=2, image_size=8, patch_size=2, hidden=64, classes=5)
    package = random_package(np.random.default_rng(3), **shape)
    images = random_images(package, 5, 3)
    results, _ = assert_equal(package, ARRAYS["tiny-4x1"], images, batch=5, stages=(Stage(0, 2),))
    assert [result.batch for result in results] == [4, 4, 4, 4, 1]


def test_patches_in_chunks():
    """Patches of more scalars than a product takes: 3 x 20 x 20 in three chunks."""
    shape = dict(dim=48, depth=1, heads=3, image_size=60, patch_size=20, hidden=32, classes=5)
    package = random_package(np.random.default_rng(5), **shape)
    assert_equal(package, "tiny", random_images(package, 2, 5), batch=2, stalls=3)


@pytest.mark.parametrize("heads, keep", [(16, [3]), (32, [])])
def test_many_heads(heads, keep):
    """As many as the token scores can add up, and more in a network that drops no tokens and has none."""
    drops = [{"layer": 0, "keep": count, "threshold": 0} for count in keep]
    shape = dict(dim=256, depth=2, heads=heads, image_size=8, patch_size=4, hidden=64, classes=5)
    package = random_package(np.random.default_rng(1), **shape, pruning=drops)
    assert_equal(package, "tiny", random_images(package, 2, 1), batch=2)


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


def shipped(name, count):
    package = ModelPackage.load(MODELS / f"{name}.safetensors")
    return package, sorted((MODELS / f"{name}_photos").glob("*.jpg"))[:count]


@pytest.mark.parametrize("stalls", [0, 7])
def test_sign_digits_photo(stalls):
    package, photos = shipped("sign_digits", 1)
    assert_equal(package, "pynq-z2", photos, stalls=stalls)


def test_everyday_photo():
    """With the class token by which it is known whether a photo is like its classes."""
    package, photos = shipped("everyday", 1)
    (result,), (want,) = assert_equal(package, "pynq-z2", photos)
    assert result.distance == want.distance is not None


@pytest.mark.slow
@pytest.mark.parametrize("stalls", [0, 3])
@pytest.mark.parametrize(("name", "count"), [("sign_digits", 20), ("everyday", 12)])
def test_all_photos(name, count, stalls):
    package, photos = shipped(name, 20)
    assert len(photos) == count
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
