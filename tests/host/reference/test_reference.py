# SPDX-License-Identifier: Apache-2.0
"""Primitives of the integer reference against slow twins in Python integers, and against float."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowvit.formats.description import MAX_HEADS
from rowvit.reference import patchify
from rowvit.reference.attention import EXP, exponentials, logits, select, token_scores, weigh
from rowvit.reference.layers import (
    accumulate,
    compress,
    decompress,
    layernorm,
    linear,
    normalise,
    relu,
    requant,
    residual_add,
)
from rowvit.reference.primitives import isqrt, recip, rescale, rsr

SEEDS = st.integers(0, 2**32 - 1)


def sat(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


def slow_rsr(value: int, shift: int) -> int:
    return (value + (1 << (shift - 1))) >> shift if shift else value


def slow_recip(q: int) -> tuple[int, int]:
    n = q.bit_length() - 1
    return n, (1 << (n + 16)) // q


def slow_requant(acc: int, bias: int, mult: int, shift: int) -> int:
    value = sat(acc + bias, -(1 << 24), (1 << 24) - 1)
    return sat(slow_rsr(value * mult, shift), -32768, 32767)


def mixed(rng: np.random.Generator, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
    """Integers in [low, high], a third of them at the ends."""
    value = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < 0.33, rng.choice([low, high], shape), value)


@given(st.integers(-(2**60), 2**60), st.integers(0, 50))
def test_rsr(value: int, shift: int) -> None:
    assert rsr(np.int64(value), shift) == slow_rsr(value, shift)


@given(st.integers(1, 2**45))
def test_recip(q: int) -> None:
    n, r = recip(np.array([q]))
    assert (n[0], r[0]) == slow_recip(q)
    assert 2**15 <= r[0] <= 2**16


@given(st.integers(1, 2**25), st.integers(-2, 2))
def test_isqrt_near_squares(root: int, step: int) -> None:
    value = max(root * root + step, 0)
    assert isqrt(np.array([value]))[0] == math.isqrt(value)


@given(st.integers(-(2**24), 2**24 - 1), st.integers(0, 65536), st.integers(0, 50))
def test_rescale(value: int, mult: int, shift: int) -> None:
    expected = sat(slow_rsr(value * mult, shift), -32768, 32767)
    assert rescale(np.array([float(value)]), mult, shift)[0] == expected


@given(
    st.integers(-(2**25), 2**25), st.integers(-(2**25), 2**25 - 1), st.integers(0, 65535), st.integers(1, 40)
)
def test_requant(acc: int, bias: int, mult: int, shift: int) -> None:
    assert requant(np.array([acc]), bias, mult, shift)[0] == slow_requant(acc, bias, mult, shift)


@settings(max_examples=40)
@given(SEEDS, st.booleans(), st.sampled_from([1, 16, 518, 519, 1024]))
def test_linear(seed: int, unsigned: bool, k: int) -> None:
    rng = np.random.default_rng(seed)
    x = (
        mixed(rng, 0, 255, (2, k)).astype(np.uint8)
        if unsigned
        else mixed(rng, -128, 127, (2, k)).astype(np.int8)
    )
    weight = mixed(rng, -127, 127, (k, 3)).astype(np.int8)
    bias = mixed(rng, -(2**25), 2**25 - 1, (3,)).astype(np.int32)
    mult = mixed(rng, 0, 65535, (3,)).astype(np.uint16)
    shift = int(rng.integers(1, 41))
    y = linear(x, weight, bias, mult, shift)
    for row in range(2):
        for c in range(3):
            acc = sum(int(a) * int(w) for a, w in zip(x[row], weight[:, c], strict=True))
            assert y[row, c] == slow_requant(acc, int(bias[c]), int(mult[c]), shift)


@pytest.mark.parametrize("value", [-128, 127])
def test_accumulate_is_exact_at_the_bound(value: int) -> None:
    # 128 * 127 * 1024 and odd neighbours lie at the very end of float32's exact integers
    x = np.full((1, 1024), value, np.int8)
    weight = np.full((1024, 1), 127, np.int8)
    weight[-1] = 126
    assert accumulate(x, weight)[0, 0] == value * (127 * 1023 + 126)
    x = np.full((1, 1024), 255, np.uint8)
    assert accumulate(x, weight)[0, 0] == 255 * (127 * 1023 + 126)


def slow_layernorm(x: list[int], g: list[int], b: list[int], shift: int) -> list[int]:
    dim = len(x)
    s1 = sum(x)
    q = math.isqrt(max(dim * sum(v * v for v in x) - s1 * s1, 1))
    n, r = slow_recip(q)
    result = []
    for value, gain, offset in zip(x, g, b, strict=True):
        centred = dim * value - s1
        centred = centred >> (n - 10) if n >= 10 else centred << (10 - n)
        z = sat(slow_rsr(centred * r, 16), -32768, 32767)
        result.append(sat(slow_rsr(z * gain + offset, shift), -127, 127))
    return result


@settings(max_examples=60)
@given(SEEDS, st.sampled_from([1, 16, 192, 1024]), st.sampled_from([0, 1, 100, 32767]), st.integers(0, 31))
def test_layernorm(seed: int, dim: int, spread: int, shift: int) -> None:
    rng = np.random.default_rng(seed)
    x = mixed(rng, -spread - (spread == 32767), spread, (1, dim)).astype(np.int16)
    g = mixed(rng, -32768, 32767, (dim,)).astype(np.int16)
    b = mixed(rng, -(2**31), 2**31 - 1, (dim,)).astype(np.int32)
    assert layernorm(x, g, b, shift)[0].tolist() == slow_layernorm(
        x[0].tolist(), g.tolist(), b.tolist(), shift
    )


@settings(max_examples=30)
@given(SEEDS, st.sampled_from([64, 192, 768]), st.integers(50, 8000))
def test_layernorm_against_float(seed: int, dim: int, spread: int) -> None:
    x = np.random.default_rng(seed).normal(100, spread, (4, dim)).astype(np.int16)
    exact = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    assert np.abs(normalise(x) / 1024 - exact).max() < 2.5 / 1024 + np.abs(exact).max() * 2**-9


def slow_exponentials(s: list[int]) -> list[int]:
    result = []
    for value in s:
        d = max(s) - value
        octave = d >> 5
        result.append(slow_rsr(int(EXP[d & 31]), 8 + octave) if octave <= 8 else 0)
    return result


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 40), st.sampled_from([1, 30, 300, 2047]))
def test_attention(seed: int, n: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    head_dim, s_mult, s_shift = 16, int(rng.integers(0, 65536)), int(rng.integers(1, 41))
    q, k, v = (mixed(rng, -127, 127, (n, head_dim)).astype(np.int8) for _ in range(3))
    s = logits(q, k, s_mult, s_shift)
    acc = sum(int(a) * int(b) for a, b in zip(q[0], k[n - 1], strict=True))
    assert s[0, n - 1] == sat(slow_rsr(acc * s_mult, s_shift), -2048, 2047)

    s = np.clip(np.round(rng.normal(0, spread, (n, n))), -2048, 2047).astype(np.int16)
    e = exponentials(s)
    pv_shift = int(rng.integers(8, 17))
    o = weigh(e, v, pv_shift)
    for row in {0, n // 2, n - 1}:
        assert e[row].tolist() == slow_exponentials(s[row].tolist())
        assert e[row].max() == 255
        shift, r = slow_recip(sum(e[row].tolist()))
        for c in range(head_dim):
            acc = sum(int(a) * int(b) for a, b in zip(e[row], v[:, c], strict=True))
            value = sat(acc, -(1 << 24), (1 << 24) - 1) * r
            assert o[row, c] == sat(slow_rsr(value, shift + pv_shift), -127, 127)


@settings(max_examples=30)
@given(SEEDS, st.integers(2, 200))
def test_softmax_against_float(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    s = np.round(rng.normal(0, 60, (n, n))).astype(np.int16)
    e = exponentials(s)
    exact = 2.0 ** (s / 32)
    exact /= exact.sum(axis=1, keepdims=True)
    probability = e / e.sum(axis=1, keepdims=True, dtype=np.int64)
    # each e is off by at most half a unit of 1/255 of the greatest
    assert np.abs(probability - exact).max() <= exact.max() * n / 255
    v = rng.integers(-127, 128, (n, 16)).astype(np.int8)
    assert np.abs(weigh(e, v, 16) - probability @ v).max() <= 0.5 + 127 * 2**-14


@settings(max_examples=50)
@given(SEEDS, st.integers(1, 15), st.integers(1, 197), st.sampled_from([30, 300, 2047]))
def test_token_scores(seed: int, heads: int, n: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    s = np.clip(np.round(rng.normal(0, spread, (heads, n))), -2048, 2047).astype(np.int16)
    expected = [0] * n
    for row in s.tolist():
        shift, r = slow_recip(sum(slow_exponentials(row)))
        for token, value in enumerate(row):
            octave, fraction = divmod(max(row) - value, 32)
            expected[token] += slow_rsr(int(EXP[fraction]), 8) * r >> (shift - 4 + octave)
    scores = token_scores(s)
    assert scores.tolist() == expected
    assert scores.max() < 1 << 24
    # rounded are e in L, to half a unit of 255; its fraction, to half a unit of 128; shares, to 2**-20
    exact = 2.0 ** (s.astype(float) / 32)
    largest = exact / exact.max(axis=1, keepdims=True)
    off = (n / 2 / 255) / largest.sum(axis=1).min() + 1 / 256 + 2**-14
    exact /= exact.sum(axis=1, keepdims=True)
    assert (np.abs(scores / 2**20 - exact.sum(axis=0)) <= off * exact.sum(axis=0) + heads * 2**-20).all()


def test_token_scores_tell_small_attention_apart() -> None:
    """Of tokens with less than 1/512 of the largest attention, whose e is 0."""
    s = np.array([[2047, *range(1700, 1400, -1)]], np.int16)
    scores = token_scores(s)[1:]
    assert not exponentials(s)[0, 1:].any()
    assert (np.diff(scores) <= 0).all() and len(set(scores.tolist())) > 150


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(0, 70), st.integers(0, 20))
def test_select_against_a_sort(scores: list[int], keep: int, threshold: int) -> None:
    order = sorted(range(1, len(scores)), key=lambda index: (-scores[index], index))
    expected = [0, *sorted(index for index in order[:keep] if scores[index] >= threshold)]
    assert select(np.array(scores), keep, threshold).tolist() == expected


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=20), st.integers(1, 255))
def test_relu(values: list[int], thr: int) -> None:
    expected = [0 if value < thr else min(value, 255) for value in values]
    assert relu(np.array(values, np.int16), thr).tolist() == expected


@given(SEEDS, st.sampled_from([16, 64]), st.sampled_from([0.0, 0.2, 1.0]))
def test_compress(seed: int, lanes: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.integers(1, 256, lanes) * (rng.random(lanes) < density)).astype(np.uint8)
    words = compress(values)
    assert words.size == 1 + lanes // 8
    assert int(words[0]) == sum(1 << index for index, value in enumerate(values) if value)
    payload = b"".join(int(word).to_bytes(8, "little") for word in words[1:])
    nonzero = values[values != 0]
    assert payload[: nonzero.size] == nonzero.tobytes()
    assert decompress(words, lanes).tolist() == values.tolist()


def test_residual_add_saturates() -> None:
    ends = np.array([32767, -32768, 5], np.int16)
    assert residual_add(ends, ends).tolist() == [32767, -32768, 10]


def test_patchify_order() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    patches = patchify(images, 4)
    assert patches.shape == (2, 4, 48)
    row, column, y, x, c = 1, 0, 2, 3, 1
    assert (
        patches[1, row * 2 + column, (y * 4 + x) * 3 + c]
        == int(images[1, row * 4 + y, column * 4 + x, c]) - 128
    )


def test_scores_of_the_most_heads_fit_their_bits():
    """Whatever the sum of exponentials is: section 7. The largest number says that no token stays."""
    total = np.arange(255, 255 * 1024 + 1)
    n, r = recip(total)
    assert MAX_HEADS * int(((255 * r) >> (n - 4)).max()) < (1 << 24) - 1
