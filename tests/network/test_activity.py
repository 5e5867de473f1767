# SPDX-License-Identifier: Apache-2.0
"""What costs energy: the RTL's counts, the model's, and counts by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest
from draws import ARRAYS, case

import rowvit
from rowvit.compiler import compile
from rowvit.cycles import activity, measured
from rowvit.errors import RowvitError
from rowvit.hardware.activity import COUNTS, REGISTERS
from rowvit.hardware.config import load
from rowvit.hardware.isa import INSTRUCTION_BYTES
from rowvit.measure import energy
from rowvit.measure.speed.profile import layer_activity, watched
from rowvit.quant.synthetic import random_package
from rowvit.reference import patchify, run
from rowvit.sim.verilate import ACTIVITY

#: instructions that the dispatcher fetches beyond the last one, at most
AHEAD = 12


def statistics(package, image):
    (result,) = run(package, patchify(image[None], package.arch["patch_size"]))
    return measured(result.counts)


def both(sim, package, program, image):
    """Counts of an image by the RTL, and by the model."""
    sim.load(program)
    _, _, counters = watched(sim, image)
    counted = energy.added(layer_activity(sim, counters))
    return counted, energy.added(activity(program, sim.config, statistics(package, image)))


def random_image(package, seed=1):
    side = package.arch["image_size"]
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tiny():
    with rowvit.open("sim", config="tiny", activity=True) as sim:
        yield sim


def test_names():
    """The simulator counts what is no register, by the same names."""
    bound = re.findall(r'"(\w+)"', ACTIVITY.read_text().partition("endmodule")[2])
    assert sorted(bound) == sorted(COUNTS.keys() - {*REGISTERS})


def test_by_hand(tiny):
    """A network without pruning, so small that everything it does was counted by hand, twice: see below.

    2 x 1 x 16 lanes; 4 patches of 48 scalars and the class token are 5 rows in 3 bands of 2, 2 and 1; one
    layer of 16 channels, one head, 16 hidden neurons, 3 classes. Only P is sparse; its non-zeros are the
    reference's.
    """
    package = random_package(
        np.random.default_rng(2),
        dim=16,
        depth=1,
        heads=1,
        image_size=8,
        patch_size=4,
        hidden=16,
        classes=3,
        ffn2_rule="none",
    )
    image = random_image(package)
    (layer,) = statistics(package, image)
    nonzeros = layer.probabilities[0].sum(axis=1)  # of each row, at most 5
    p, words = int(nonzeros.sum()), int((1 + -(-nonzeros // 8)).sum())
    expected = {
        # rows x k: patches, Q, K, V, S, projection, FFN1, FFN2; head for one row; P V
        "fires": 5 * (48 + 3 * 16 + 16 + 16 + 16 + 16) + 16 + p,
        # the rows of a band share a line, but those of P V do not
        "weight_reads": 3 * (48 + 3 * 16 + 16 + 16 + 16 + 16) + 16 + p,
        # weights: rows of 16 bytes for patches, Q, K, V, projection, FFN1, FFN2, head; and K and V themselves
        "weight_bytes": 16 * (48 + 3 * 16 + 16 + 16 + 16 + 16) + 2 * 5 * 16,
        # 8 scalars a word: X of patches, of Q, K, V, of S, projection, FFN1, FFN2, head; P
        "token_reads": 5 * (6 + 3 * 2 + 2 + 2 + 2 + 2) + 2 + words,
        # patches with the class token's zeros, LayerNorm twice and that of the head, Q, O, hidden; P, and of
        # the row that the last band lacks a bitmap and a word
        "token_writes": 5 * (6 + 2 + 2 + 2 + 2 + 2) + 2 + words + 2,
        # lanes x bands: patches, Q, K, V, S, P V, projection, FFN1, FFN2; logits for one group
        "drained": 16 * (3 * 9 + 1),
        "residual_sums": 16 * 3 * 3,
        # the drain reads both rows' banks; LayerNorm reads them twice; it is of 3, 3 and 1 bands
        "residual_reads": 2 * 16 * 3 * 3 + 2 * 2 * 16 * 7,
        # patches, projection, FFN2 of 5 rows; positions of 6
        "residual_writes": 3 * 16 * 5 + 16 * 6,
        # lane tiles with parameters: patches, Q, K, V, projection, FFN1, FFN2, head
        "parameter_writes": 16 * 8,
        "norm_parameter_writes": 16 * 3,
        "norm_parts": 7,
        "norm_sums": 16 * 7,
        "norm_values": 16 * 7,
        "logits": 5 * 3,
        "exponentials": 16 * 3,
        "reciprocals": 3,
        "recv_words": 4 * 6,
        # marks of embedding and layer; three logits
        "send_words": 2 * 2 + 2,
    }
    unused = ["mask_reads", "mask_writes", "gathers", "scores", "score_reads", "selected"]
    unused += ["rotated", "rotary_writes"]
    expected |= dict.fromkeys(unused, 0)
    counted, predicted = both(tiny, package, compile(package, tiny.config), image)
    for found in (counted, predicted):
        assert {name: found[name] for name in expected} == expected
    # weights, parameters, LayerNorm's, and positions, a word for each address; the rest are instructions
    loads = (expected["weight_bytes"] - 160) // 8 + 16 * 8 + 16 * 3 + 16 * 6
    fetched, rest = divmod(counted["axi_beats"] - loads, INSTRUCTION_BYTES // 8)
    assert not rest
    assert 1 <= fetched / len(compile(package, tiny.config).passes[0].code) <= 2


@pytest.mark.parametrize(
    "changes",
    [
        dict(ffn2_rule="image", pruning=[{"layer": 0, "keep": 12, "threshold": 0}]),
        dict(ffn2_rule="tile", tile_rows=8, ffn_chunk=32),
        dict(tokens={"rows": "all", "layers": [0, 1]}, pruning=[{"layer": 0, "keep": 12, "threshold": 0}]),
        dict(tokens={"rows": "all", "layers": [1]}, classes=0),
        dict(gated=True, rotary=True, pruning=[{"layer": 0, "keep": 12, "threshold": 0}]),
    ],
    ids=["pruned", "tile", "tokens", "no classes", "gated"],
)
def test_model(tiny, changes):
    """Counts follow from the instructions and the data; a selection's passes and absent rows nearly."""
    options = dict(dim=32, depth=2, heads=2, image_size=20, patch_size=4, hidden=64, classes=20)
    package = random_package(np.random.default_rng(3), **options | changes)
    counted, predicted = both(tiny, package, compile(package, tiny.config), random_image(package))
    assert 0 <= counted.pop("axi_beats") - predicted.pop("axi_beats") <= 8 * AHEAD
    assert predicted.pop("score_reads") <= 3 * counted.pop("score_reads")
    assert counted.pop("token_writes") == pytest.approx(predicted.pop("token_writes"), rel=0.01)
    assert counted == predicted


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("array", ["tiny", "tiny-8x2"])
def test_drawn(array, number):
    """The model's energy is the RTL's within 5 %, for networks of any shape."""
    drawn, prices = case(array, number), energy.load()
    program, image = compile(drawn.package, drawn.config, batch=1), drawn.images[0]
    with rowvit.open("sim", config=ARRAYS[array], activity=True) as sim:
        counted, predicted = both(sim, drawn.package, program, image)
    rtl, model = (energy.estimate(drawn.config, counts, prices, 1, 1) for counts in (counted, predicted))
    assert model.total == pytest.approx(rtl.total, rel=0.05)
    assert model.chip == pytest.approx(rtl.chip, rel=0.05)


def test_not_counted():
    with rowvit.open("sim", config="tiny") as sim, pytest.raises(RowvitError, match="does not count"):
        sim.device.activity()


@pytest.mark.slow
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "pruned"])
def test_deit_tiny(dense):
    from rowvit.quant.synthetic import preset_package

    package = preset_package("deit-tiny", dense=dense)
    with rowvit.open("sim", config=load("pynq-z2"), activity=True) as sim:
        counted, predicted = both(sim, package, compile(package, sim.config), random_image(package))
    prices = energy.load()
    rtl, model = (energy.estimate(sim.config, counts, prices, 1, 1) for counts in (counted, predicted))
    assert model.total == pytest.approx(rtl.total, rel=0.05)
