# SPDX-License-Identifier: Apache-2.0
"""The float network against timm, its pruning and FFN2 rules, random packages and images."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rowvit import images
from rowvit.errors import RowvitError
from rowvit.formats.package import keep_schedule
from rowvit.quant.synthetic import preset_package
from rowvit.reference import patchify, run

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm.models.vision_transformer")

from rowvit.model.importers.checkpoint import read_checkpoint  # noqa: E402
from rowvit.model.importers.state_dict import from_timm  # noqa: E402

SHAPE = dict(img_size=16, patch_size=4, embed_dim=32, depth=3, num_heads=2, num_classes=7)


def timm_model(act: str = "relu", seed: int = 0, **options: object) -> torch.nn.Module:
    """A timm network with random parameters that keep activations near 1."""
    layer = {"relu": torch.nn.ReLU, "gelu": torch.nn.GELU}[act]
    model = timm.VisionTransformer(**SHAPE, act_layer=layer, **options)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
        parameter.data = torch.randn(parameter.shape, generator=generator) / math.sqrt(fan_in)
    return model.eval()


def inputs(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize(
    ("act", "options"),
    [("relu", {}), ("gelu", {}), ("relu", {"init_values": 0.5}), ("relu", {"qkv_bias": False})],
)
@torch.no_grad()
def test_logits_equal_timm(act: str, options: dict) -> None:
    twin = timm_model(act, **options)
    state = {name: tensor.clone() for name, tensor in twin.state_dict().items()}
    model = from_timm(state, heads=2, act=act)
    assert torch.allclose(model(inputs()), twin(inputs()), atol=1e-4)
    assert all(torch.equal(state[name], tensor) for name, tensor in twin.state_dict().items())


@torch.no_grad()
def test_pruning_equals_evit_on_timm_blocks() -> None:
    """Pruning written independently, image by image, from timm's own modules."""
    twin = timm_model()
    pruning = keep_schedule(16, (0, 2), 0.5)
    assert [step["keep"] for step in pruning] == [8, 4]
    model = from_timm(twin.state_dict(), heads=2, pruning=tuple(pruning))
    logits = model(inputs())
    keep = {step["layer"]: step["keep"] for step in pruning}
    for index, image in enumerate(inputs()):
        x = torch.cat([twin.cls_token[0], twin.patch_embed(image[None])[0]]) + twin.pos_embed[0]
        tokens = torch.arange(17)
        for layer, block in enumerate(twin.blocks):
            normed = block.norm1(x)
            x = x + block.attn(normed[None])[0]
            if layer in keep:
                q, k, _ = block.attn.qkv(normed).reshape(len(x), 3, 2, 16).permute(1, 2, 0, 3)
                score = [0.0] * len(x)
                for head in (q @ k.transpose(1, 2) / 4).softmax(dim=-1)[:, 0].tolist():
                    total = sum(round(255 * share / max(head)) for share in head)
                    for j, share in enumerate(head):
                        octave, fraction = divmod(round(32 * math.log2(max(head) / share)), 32)
                        e = round(255 * 2 ** (-fraction / 32)) / 2**octave
                        score[j] += math.floor(2**20 * e / total) / 2**20
                best = sorted(range(1, len(x)), key=lambda j, score=score: -score[j])[: keep[layer]]
                rows = [0, *sorted(best)]
                x, tokens = x[rows], tokens[rows]
            x = x + block.mlp(block.norm2(x))
        assert torch.allclose(twin.head(twin.norm(x)[0]), logits[index], atol=1e-4)
        assert torch.equal(model.tokens[index], tokens)


@torch.no_grad()
def test_threshold_drops_small_activations() -> None:
    state = timm_model().state_dict()
    exact = from_timm(state, heads=2)(inputs())
    assert torch.equal(from_timm(state, heads=2, thresholds=(0.0,) * 3)(inputs()), exact)
    assert not torch.equal(from_timm(state, heads=2, thresholds=(0.5,) * 3)(inputs()), exact)
    without = {name: 0 * tensor if name.endswith("fc2.weight") else tensor for name, tensor in state.items()}
    everything = from_timm(state, heads=2, thresholds=(1e9,) * 3)
    assert torch.equal(everything(inputs()), from_timm(without, heads=2)(inputs()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("pos_embed"), "lacks 'pos_embed'"),
        (lambda s: s.update({"norm_pre.weight": torch.zeros(31)}), "tensor 'norm_pre.weight' has shape"),
        (lambda s: s.pop("blocks.1.norm2.bias"), r"lacks 'blocks.1.norm2.bias' \(1 missing"),
        (lambda s: s.update({"fc_norm.weight": torch.zeros(32)}), "two LayerNorms behind the blocks"),
        (
            lambda s: s.update({"blocks.2.mlp.fc2.weight": torch.zeros(32, 65)}),
            "tensor 'blocks.2.mlp.fc2.weight' has shape",
        ),
        (lambda s: s.update({"pos_embed": torch.zeros(1, 18, 32)}), "18 positions"),
    ],
)
def test_bad_state_dicts_are_named(change: object, message: str) -> None:
    state = dict(timm_model().state_dict())
    change(state)
    with pytest.raises(RowvitError, match=message):
        from_timm(state, heads=2)


def test_bad_heads_and_activation() -> None:
    state = timm_model().state_dict()
    with pytest.raises(RowvitError, match="3 heads do not divide the width 32"):
        from_timm(state, heads=3)
    with pytest.raises(RowvitError, match="'mish'"):
        from_timm(state, heads=2, act="mish")


def test_read_checkpoint(tmp_path: Path) -> None:
    state = timm_model().state_dict()
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(state, tmp_path / "a.safetensors")
    torch.save({"model": state}, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        read = read_checkpoint(tmp_path / name).state
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], state[key]) for key in state)
    (tmp_path / "b.pth").write_bytes(b"no checkpoint")
    torch.save([1, 2], tmp_path / "c.pth")
    for name in ("b.pth", "c.pth", "missing.pth", "missing.safetensors"):
        with pytest.raises(RowvitError, match=name):
            read_checkpoint(tmp_path / name)


def test_deit_tiny_preset() -> None:
    """The workload has the promised size and sparsity, and the same seed gives the same file."""
    package = preset_package("deit-tiny")
    assert package.digest() == preset_package("deit-tiny").digest()
    dense = preset_package("deit-tiny", dense=True)
    assert all(np.array_equal(package.tensors[name], dense.tensors[name]) for name in package.tensors)
    noise = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    patches = patchify(noise, 16)
    counts = run(package, patches)[0].counts
    assert counts.live == [197] * 3 + [99] * 3 + [50] * 3 + [26] * 3
    shares = [nonzeros / (768 * n) for nonzeros, n in zip(counts.ffn2_nonzeros, counts.live, strict=True)]
    assert all(0.15 < share < 0.25 for share in shares)
    assert 1.2e9 < counts.macs_dense < 1.3e9
    assert 0.58 < 1 - counts.macs_executed / counts.macs_dense < 0.65
    result = run(dense, patches)[0]
    assert result.kept == [] and result.counts.live == [197] * 12
    assert result.counts.w2_rows_fetched == result.counts.w2_rows_total == 12 * 768
    assert result.counts.macs_dense == counts.macs_dense


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def test_decode_cuts_the_middle() -> None:
    picture = Image.new("RGB", (40, 20), (255, 0, 0))
    picture.paste((0, 0, 255), (10, 0, 30, 20))
    pixels = images.decode(encoded(picture), 10)
    assert pixels.shape == (10, 10, 3) and pixels.dtype == np.uint8
    assert (pixels == [0, 0, 255]).all()
    assert images.decode(encoded(Image.new("L", (8, 8), 7)), 8, "bilinear").tolist() == [[[7] * 3] * 8] * 8


def test_bad_images(tmp_path: Path) -> None:
    whole = encoded(Image.new("RGB", (64, 64), (1, 2, 3)), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    for name in ("cut.jpg", "text.jpg", "missing.jpg"):
        with pytest.raises(RowvitError, match=name):
            images.decode(tmp_path / name, 8)
    with pytest.raises(RowvitError, match="'lanczos'"):
        images.decode(whole, 8, "lanczos")
