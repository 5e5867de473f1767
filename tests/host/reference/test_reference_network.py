# SPDX-License-Identifier: Apache-2.0
"""The whole integer network against a plain per-row twin, and its counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.quant.synthetic import random_package
from rowvit.reference import network, patchify, run
from rowvit.reference.attention import EXPONENTIAL

TINY = dict(dim=32, depth=2, heads=2, image_size=16, patch_size=4, hidden=64, classes=5, ffn_chunk=32)


def tiny(seed: int = 0, **changes: object) -> ModelPackage:
    return random_package(np.random.default_rng(seed), **(TINY | changes))


def patches_for(package: ModelPackage, count: int, seed: int = 1) -> np.ndarray:
    arch = package.arch
    side = arch["image_size"]
    images = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return patchify(images, arch["patch_size"])


def plain(
    package: ModelPackage, patches: np.ndarray
) -> tuple[list[int], list[list[int]], list[list[list[int]]], int]:
    """Logits, kept tokens, the class token's attention and multiplications of an image in Python integers."""
    meta, t, arch = package.meta, package.tensors, package.arch
    dim, heads = arch["dim"], arch["heads"]
    size = dim // heads
    macs = 0

    def rsr(v: np.ndarray, s: int) -> np.ndarray:
        return (v + (1 << s >> 1)) >> s

    def linear(
        x: np.ndarray, name: str, shift: int, rows: slice = slice(None), bias: bool = True
    ) -> np.ndarray:
        nonlocal macs
        weight = t[name + ".weight"][rows].astype(np.int64)
        skips = name.endswith("fc2") and meta["ffn2_rule"] != "none"
        macs += (int(np.count_nonzero(x)) if skips else x.size) * weight.shape[1]
        acc = x.astype(np.int64) @ weight
        v = np.clip(acc + (t[name + ".bias"].astype(np.int64) if bias else 0), -(1 << 24), (1 << 24) - 1)
        return np.clip(rsr(v * t[name + ".mult"], shift), -32768, 32767)

    def norm(x: np.ndarray, name: str, shift: int) -> np.ndarray:
        out = np.zeros_like(x)
        for i, row in enumerate(x.astype(object)):
            s1 = sum(row)
            q = math.isqrt(max(dim * sum(v * v for v in row) - s1 * s1, 1))
            n = q.bit_length() - 1
            r = (1 << (n + 16)) // q
            for c, v in enumerate(row):
                centred = dim * v - s1
                centred = centred >> (n - 10) if n >= 10 else centred << (10 - n)
                z = min(max((centred * r + (1 << 15)) >> 16, -32768), 32767)
                y = z * int(t[name + ".g"][c]) + int(t[name + ".b"][c])
                out[i, c] = min(max((y + (1 << shift >> 1)) >> shift, -127), 127)
        return out

    x = t["pos"].astype(np.int64)
    x[1:] += linear(patches, "patch", meta["params"]["patch.shift"], bias=False)
    x = np.clip(x, -32768, 32767)
    live, kept, attention = list(range(arch["tokens"])), [], []
    for i, params in enumerate(meta["params"]["layers"]):
        name = f"layers.{i}."
        step = next((step for step in meta["pruning"] if step["layer"] == i), None)
        h = norm(x, name + "norm1", params["norm1.shift"])
        q, k, v = (np.clip(linear(h, name + p, params[p + ".shift"]), -127, 127) for p in "qkv")
        o = np.zeros_like(h)
        score = [0] * len(live)
        attention.append([])
        for head in range(heads):
            c = slice(head * size, (head + 1) * size)
            s = np.clip(rsr(q[:, c] @ k[:, c].T * params["s_mult"], params["s_shift"]), -2048, 2047)
            macs += len(live) ** 2 * size
            for row in range(len(live)):
                e = [int(EXPONENTIAL[s[row].max() - value]) for value in s[row]]
                macs += sum(value != 0 for value in e) * size
                n = sum(e).bit_length() - 1
                r = (1 << (n + 16)) // sum(e)
                acc = np.array(e) @ v[:, c]
                o[row, c] = np.clip(rsr(acc * r, n + params["pv_shift"]), -127, 127)
                if row == 0:
                    attention[-1].append(e)
                    for token, value in enumerate(s[row]):
                        octave, fraction = divmod(int(s[row].max() - value), 32)
                        score[token] += int(EXPONENTIAL[fraction]) * r >> (n - 4 + octave)
        if step:
            order = sorted(range(1, len(live)), key=lambda j: (-score[j], j))[: step["keep"]]
            rows = [0, *sorted(j for j in order if score[j] >= step["threshold"])]
            live = [live[j] for j in rows]
            kept.append(live)
            x, o = x[rows], o[rows]
        x = np.clip(x + linear(o, name + "proj", params["proj.shift"]), -32768, 32767)
        h = linear(norm(x, name + "norm2", params["norm2.shift"]), name + "fc1", params["fc1.shift"])
        h = np.where(h < params["thr"], 0, np.minimum(h, 255))
        for first in range(0, arch["hidden"], meta["ffn_chunk"]):
            rows = slice(first, first + meta["ffn_chunk"])
            y = linear(h[:, rows], name + "fc2", params["fc2.shift"], rows, bias=first == 0)
            x = np.clip(x + y, -32768, 32767)
    h = norm(x[:1], "norm", meta["params"]["norm.shift"])
    return linear(h, "head", meta["params"]["head.shift"])[0].tolist(), kept, attention, macs


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("rule", ["none", "image", "tile"])
def test_network_against_plain_twin(rule: str, extreme: bool) -> None:
    for seed in range(3):
        pruning = [{"layer": 0, "keep": 9, "threshold": 0}, {"layer": 1, "keep": 6, "threshold": 90000}]
        package = tiny(seed, ffn2_rule=rule, tile_rows=4, pruning=pruning, extreme=extreme, thr=1 + 20 * seed)
        patches = patches_for(package, 2, seed)
        for result, image in zip(run(package, patches), patches, strict=True):
            logits, kept, attention, macs = plain(package, image)
            assert result.logits.tolist() == logits
            assert [list(step) for step in result.kept] == kept
            assert [heads.tolist() for heads in result.attention] == attention
            assert result.counts.macs_executed == macs


def test_rules_change_counts_but_no_values() -> None:
    patches = patches_for(tiny(), 1)
    rules = ("none", "image", "tile")
    results = {rule: run(tiny(ffn2_rule=rule, tile_rows=4), patches)[0] for rule in rules}
    assert len({tuple(result.logits) for result in results.values()}) == 1
    none, image, tile = (results[rule].counts for rule in rules)
    assert none.w2_rows_fetched == none.w2_rows_total == image.w2_rows_total == 2 * 64
    assert image.w2_rows_fetched < image.w2_rows_total
    assert tile.w2_rows_total == 2 * 5 * 64  # 17 rows are 5 tiles
    assert image.w2_rows_fetched <= tile.w2_rows_fetched < tile.w2_rows_total
    assert image.macs_executed == tile.macs_executed < none.macs_executed <= none.macs_dense
    assert none.ffn2_nonzeros == image.ffn2_nonzeros


def test_batch_size_does_not_matter() -> None:
    # a score threshold leaves every image a different number of tokens
    package = tiny(3, pruning=[{"layer": 0, "keep": 14, "threshold": 110000}])
    patches = patches_for(package, 7)
    together = run(package, patches, checkpoints=True)
    assert len({len(result.kept[0]) for result in together}) > 1
    for index, result in enumerate(together):
        alone = run(package, patches[index : index + 1], checkpoints=True)[0]
        assert result.counts == alone.counts
        assert result.checkpoints.keys() == {
            "embed",
            "layers.0.attn",
            "layers.0.ffn",
            "layers.1.attn",
            "layers.1.ffn",
        }
        for name, rows in result.checkpoints.items():
            assert np.array_equal(rows, alone.checkpoints[name])
        assert len(result.checkpoints["layers.1.ffn"]) == len(result.kept[0]) == result.counts.live[0]
    assert network.IMAGES_AT_ONCE < 7


def test_wrong_patches_are_refused() -> None:
    package = tiny()
    with pytest.raises(RowvitError, match="int8"):
        run(package, patches_for(package, 1).astype(np.int16))
    with pytest.raises(RowvitError, match=r"\[images, 16, 48\]"):
        run(package, patches_for(package, 1)[:, 1:])
