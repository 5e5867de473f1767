# SPDX-License-Identifier: Apache-2.0
"""The kernel's C++ against its NumPy twin, and the twin against floating point."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel import Kernel, rows, words
from rowvit.errors import RowvitError
from rowvit.reference import frontend, patchify
from rowvit.reference.frontend import HEADER_BYTES, MAX_BIN, Geometry, resize
from rowvit.sim import verilate


@st.composite
def geometries(draw, most: int = 60):
    """Any window of any frame, shrunk or enlarged to any grid of patches."""
    width, height = draw(st.integers(1, most)), draw(st.integers(1, most))
    bin = draw(st.integers(0, min(MAX_BIN, min(width, height).bit_length() - 1)))
    window_width, window_height = draw(st.integers(1 << bin, width)), draw(st.integers(1 << bin, height))
    left, top = draw(st.integers(0, width - window_width)), draw(st.integers(0, height - window_height))
    patch = draw(st.integers(1, 9))
    grid = draw(st.integers(2, max(2, 24 // patch)))
    return Geometry(width, height, left, top, window_width, window_height, bin, patch, grid)


def frame_of(geometry: Geometry, seed: int) -> np.ndarray:
    """Random pixels, in a view of a greater array: lines lie apart, the first is the last."""
    shape = geometry.height, geometry.width + 5, 3
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)[::-1, : geometry.width]


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return Kernel()


@settings(max_examples=150)
@given(st.lists(geometries(), min_size=1, max_size=3), st.integers(0, 1 << 30), st.booleans())
def test_frames(kernel, sizes, seed, stalls):
    """Frames of different sizes, one after the other without a pause."""
    frames = [frame_of(geometry, seed + i) for i, geometry in enumerate(sizes)]
    found = kernel.run(map(words, frames, sizes), np.random.default_rng(seed) if stalls else None, idle=3000)
    assert not kernel.open
    assert len(found) == len(frames)
    for packet, frame, geometry in zip(found, frames, sizes, strict=True):
        np.testing.assert_array_equal(packet, rows(resize(frame, geometry), geometry.patch))


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry.of(4095, 17, 32, 16),  # the widest frame
        Geometry.of(9, 4095, 8, 4),  # the highest
        Geometry.of(300, 300, 256, 16),  # the greatest side, and pixels in a row of patches
        Geometry.of(1, 1, 256, 1),
        Geometry.of(640, 480, 224, 16),
        Geometry(200, 300, 0, 0, 200, 300, 3, 4, 30),  # enlarged after binning, to another shape
    ],
    ids=lambda g: f"{g.width}x{g.height}-{g.side}",
)
def test_limits(kernel, geometry):
    frame = frame_of(geometry, 1)
    (found,) = kernel.run([words(frame, geometry)])
    np.testing.assert_array_equal(found, rows(resize(frame, geometry), geometry.patch))


def test_a_frame_of_the_right_size_stays_as_it_is(kernel):
    geometry = Geometry.of(24, 24, 24, 4)
    frame = frame_of(geometry, 2)
    np.testing.assert_array_equal(resize(frame, geometry), frame)
    (found,) = kernel.run([words(frame, geometry)])
    patches = patchify(frame[None], 4)[0]  # what the host front end sends
    np.testing.assert_array_equal(found.view(np.int8).reshape(patches.shape), patches)


@settings(max_examples=200)
@given(geometries(), st.integers(0, 1 << 30))
def test_twin_is_bilinear(geometry, seed):
    """Half-pixel centres, edges repeated, as torch has it with align_corners=False."""
    frame = frame_of(geometry, seed)
    g = geometry
    window = frame[g.top : g.top + g.window_height, g.left : g.left + g.window_width]
    pooled = torch.nn.functional.avg_pool2d(
        torch.tensor(window.copy(), dtype=torch.float64).permute(2, 0, 1)[None], 1 << g.bin
    )
    expected = torch.nn.functional.interpolate(
        pooled, (g.side, g.side), mode="bilinear", align_corners=False
    )[0].permute(1, 2, 0)
    # a weight is off by 1/512 at most, and by the step's rounding; so the value by 2 * 255 / 512 and 1/2
    assert np.abs(resize(frame, geometry) - expected.numpy()).max() < 1.6


@given(geometries(), st.integers(0, 255))
def test_flat_stays_flat(geometry, value):
    frame = np.full((geometry.height, geometry.width, 3), value, np.uint8)
    assert (resize(frame, geometry) == value).all()


GOOD = Geometry.of(30, 20, 12, 4)


@pytest.mark.parametrize("stalls", [False, True])
@pytest.mark.parametrize("missing", [1, 2, 7, 100, 224])
def test_short_frames(kernel, missing, stalls):
    """The packet ends a word early, and the next frame is whole again."""
    frame = frame_of(GOOD, 3)
    packet = words(frame, GOOD)
    assert len(packet) == 229
    short, good = kernel.run([packet[:-missing], packet], np.random.default_rng(missing) if stalls else None)
    expected = rows(resize(frame, GOOD), 4)
    np.testing.assert_array_equal(good, expected)
    black = frame.reshape(-1).copy()
    black[max(8 * (len(packet) - missing) - HEADER_BYTES, 0) :] = 0
    np.testing.assert_array_equal(short, rows(resize(black.reshape(frame.shape), GOOD), 4)[:-1])


@pytest.mark.parametrize("stalls", [False, True])
@pytest.mark.parametrize("surplus", [1, 2, 1000])
def test_long_frames(kernel, surplus, stalls):
    """The packet has no TLAST, and the next frame is whole again."""
    packet = words(frame_of(GOOD, 4), GOOD)
    long = np.concatenate([packet, np.arange(surplus, dtype=np.uint64)])
    (found,) = kernel.run([long, packet], np.random.default_rng(surplus) if stalls else None)
    expected = rows(resize(frame_of(GOOD, 4), GOOD), 4)
    np.testing.assert_array_equal(found, np.concatenate([expected, expected]))
    (found,) = kernel.run([long])
    assert kernel.open
    kernel.reset()


@pytest.mark.parametrize("missing", [1, 4])
def test_bad_frames_whose_answer_is_ready_before_they_end(kernel, missing):
    """The window ends long before the frame, so all rows but the last words wait for the frame's end."""
    geometry = Geometry(12, 200, 0, 0, 12, 12, 0, 4, 3)
    frame = frame_of(geometry, 5)
    packet, expected = words(frame, geometry), rows(frame[:12], 4)
    found = kernel.run([packet[:-missing], packet])
    assert [len(p) for p in found] == [len(expected) - 1, len(expected)]
    for packet in found:
        np.testing.assert_array_equal(packet, expected[: len(packet)])


HEADER_FIELDS = ["magic", "width", "height", "bin", "left", "top", "window_width", "window_height"]
HEADER_FIELDS += ["patch", "grid", "zero0", "zero1"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("magic", 0x5653), ("zero0", 1), ("zero1", 1)],
        *[(name, value) for name in ("width", "height") for value in (0, 4096, 0xFFFF)],
        *[("left", 11), ("top", 1), ("left", 0xFFFF), ("top", 0xFFFF)],
        *[("window_width", 26), ("window_height", 21), ("window_width", 0), ("window_height", 0)],
        *[("bin", 4), ("bin", 0xFFFF), ("patch", 0), ("grid", 1), ("grid", 0)],
        *[("patch", 86), ("grid", 65), ("patch", 0xFFFF), ("grid", 0xFFFF), ("patch", 37)],
    ],
)
def test_refused_headers(kernel, field, value):
    """One word answers, and the next frame is whole again."""
    packet = words(frame_of(GOOD, 6), GOOD)
    bad = packet.copy()
    bad.view(np.uint16)[HEADER_FIELDS.index(field)] = value
    refused, good = kernel.run([bad, packet])
    assert refused.tolist() == [0]
    np.testing.assert_array_equal(good, rows(resize(frame_of(GOOD, 6), GOOD), 4))


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_packets_that_end_in_the_header(kernel, length):
    packet = words(frame_of(GOOD, 7), GOOD)
    refused, good = kernel.run([packet[:length], packet])
    assert len(refused) == 1
    assert len(good) == 9 * 6


def test_bins_wider_than_the_window_are_refused(kernel):
    packet = words(frame_of(GOOD, 8), GOOD)
    packet.view(np.uint16)[[3, 6]] = 3, 7
    refused, _ = kernel.run([packet, words(frame_of(GOOD, 8), GOOD)])
    assert refused.tolist() == [0]


@settings(max_examples=60)
@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=30), st.data())
def test_rubbish_does_no_lasting_harm(kernel, rubbish, data):
    """Whatever comes before TLAST, the next frame is whole again."""
    bad = np.array(rubbish, np.uint64)
    if data.draw(st.booleans()):  # past the header's checks, with steps that make no sense
        bad = words(frame_of(GOOD, 9), GOOD)
        bad[3] = rubbish[0]
    good = words(frame_of(GOOD, 10), GOOD)
    found = kernel.run([bad, good], idle=3000)
    expected = rows(resize(frame_of(GOOD, 10), GOOD), 4)
    np.testing.assert_array_equal(found[-1], expected)


@pytest.mark.parametrize("sent", [2, 4, 50, 228])
def test_reset_inside_a_frame(kernel, sent):
    packet = words(frame_of(GOOD, 11), GOOD)
    kernel.run([packet[:sent]], cut=True, idle=3000)
    kernel.reset()
    (found,) = kernel.run([packet])
    np.testing.assert_array_equal(found, rows(resize(frame_of(GOOD, 11), GOOD), 4))


def test_a_frame_leaves_while_it_enters(kernel):
    """Nothing waits for the end but the last rows: half a frame gives half of the patches."""
    geometry = Geometry.of(64, 64, 64, 8)
    packet = words(frame_of(geometry, 12), geometry)
    (found,) = kernel.run([packet[: len(packet) // 2]], cut=True, idle=3000)
    whole = rows(frame_of(geometry, 12), 8)
    assert len(whole) // 4 < len(found) <= len(whole) // 2
    np.testing.assert_array_equal(found, whole[: len(found)])
    kernel.reset()


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (100, 100), (300, 200), (32, 32)])
def test_rate(kernel, size):
    """A cycle per pixel of the frame, and one per pixel of the result; two where it is the greater."""
    geometry = Geometry.of(*size, 64, 8)
    before = kernel.cycles
    kernel.run([words(frame_of(geometry, 13), geometry)], idle=500)
    pixels, result = size[0] * size[1], 64 * 64
    assert kernel.cycles - before - 500 < pixels + (1 if pixels >= result else 1.5) * result + 200


@pytest.mark.parametrize("side", [224, 448])
def test_figures(side):
    """Those of hls/README.md."""
    figures = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "hls.json").read_text())
    kernel, geometry = Kernel(), Geometry.of(side, side, 224, 16)
    kernel.run([words(frame_of(geometry, 14), geometry)], idle=1000)
    assert kernel.cycles - 1000 == figures[str(side)]["figures"]["cycles"]


def test_constants_are_the_kernels():
    text = (verilate.HLS / "frontend.h").read_text()
    found = dict(re.findall(r"constexpr int (\w+) = (\w+);", text))
    for name in ("MAX_FRAME", "MAX_SIDE", "MAX_STRIPE", "MAX_BIN", "MAGIC", "STEP_BITS", "WEIGHT_BITS"):
        assert int(found[name], 0) == getattr(frontend, name)
    assert int(found["HEADER_WORDS"]) * 8 == HEADER_BYTES


@given(st.integers(1, 4095), st.integers(1, 4095), st.integers(1, 16), st.integers(2, 16))
def test_the_middle_square(width, height, patch, grid):
    g = Geometry.of(width, height, patch * grid, patch)
    square = min(width, height)
    assert square - (1 << g.bin) < g.window_width == g.window_height <= square
    assert abs(2 * g.left + g.window_width - width) <= 1
    assert abs(2 * g.top + g.window_height - height) <= 1
    assert g.bin == 0 or g.window_width >> g.bin >= g.side
    assert g.bin == MAX_BIN or g.window_width >> g.bin < 2 * g.side


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            dict(width=4096),
            "a frame of 4096 x 20 pixels does not go through the HLS front end; it takes 1 to",
        ),
        (dict(left=11), "no window of 20 x 20 pixels at 11, 0 in bins of 1; take a window inside it"),
        (dict(top=-1), "take a window inside it"),
        (dict(window_width=3, bin=2), "of at least a bin"),
        (dict(bin=4), "in bins of 16"),
        (dict(patch=20, grid=13), "cannot make 13 x 13 patches of 20 pixels.*take the host front end"),
        (dict(grid=1), "at least 2 x 2 patches"),
    ],
)
def test_what_cannot_be_is_refused(changes, sentence):
    with pytest.raises(RowvitError, match=sentence):
        replace(GOOD, **changes)


def test_build_without_the_headers(monkeypatch):
    monkeypatch.setattr(verilate.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RowvitError, match=r"pip install 'rowvit\[hls\]', or take --frontend host"):
        verilate.build_frontend()


def test_build_without_a_cache(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROWVIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(RowvitError, match="set the variable ROWVIT_CACHE to a directory"):
        verilate.build_frontend()


def test_build_errors_are_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("ROWVIT_CACHE", str(tmp_path))
    broken = tmp_path / "broken.cpp"
    broken.write_text("no C++\n")
    monkeypatch.setattr(verilate, "FRONTEND_SOURCES", [broken])
    with pytest.raises(RowvitError, match=r"(?s)building the simulator failed in \S+ .*\.log\):.*broken"):
        verilate.build_frontend()
