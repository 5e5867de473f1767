# SPDX-License-Identifier: Apache-2.0
"""``rowvit fits``: limits, predictions and bytes, against the compiler and the cycle model."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from typer.testing import CliRunner

from rowvit.cli import app
from rowvit.compiler import compile
from rowvit.cycles import predict
from rowvit.errors import RowvitError
from rowvit.hardware import config as configs
from rowvit.measure.speed.fits import fit, stand_in
from rowvit.model.store import Card, save
from rowvit.model.vit import VisionTransformer, ViTConfig
from rowvit.quant.synthetic import preset_package, random_package
from rowvit.targets.golden import Golden

pytest.importorskip("timm")


def fits(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["fits", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def report(*arguments: object) -> dict:
    found = json.loads(fits(*arguments, "--json", "-").stdout)
    found["configurations"] = {one["config"]: one for one in found["configurations"]}
    return found


def test_a_name_without_weights() -> None:
    """As a package of the same size: what is compiled, and what the cycle model says, without its weights."""
    found = report("timm:deit_tiny_patch16_224", "-c", "pynq-z2")
    package, config = preset_package("deit-tiny", dense=True), configs.load("pynq-z2")
    package.meta["ffn2_rule"] = "image"
    program = compile(package, config, batch=1)
    (one,) = found["configurations"].values()
    assert one["predicted_cycles"] == predict(program, config).total
    assert one["predicted_images_per_second"] == pytest.approx(142.857e6 / one["predicted_cycles"], abs=0.01)
    assert one["ddr_bytes"] == program.blob.nbytes  # which begins with the code
    # every weight once, and less than that of W2, whose rows are used in part; the head comes once
    weights = sum(t.nbytes for name, t in package.tensors.items() if name.endswith(".weight"))
    assert 0.8 * weights < one["ddr_bytes_read_per_image"] < 1.1 * weights
    available = 3 * 1024 * 64 + 2 * 10240 * 8 + 6 * 13312 * 2
    assert 0.6 * available < one["on_chip_bytes"] <= available
    assert "rowvit relu" in found["before_it_runs"][0]


@pytest.mark.parametrize("pre_norm", [False, True])
def test_no_class_token(pre_norm: bool) -> None:
    """As many tokens as patches, for which alone there is room; and the LayerNorm before the blocks."""
    shape = dict(image_size=128, patch_size=8, dim=128, depth=2, heads=2, hidden=256, prefix=0)
    package = stand_in(ViTConfig(**shape, classes=0, pool="mean", pre_norm=pre_norm), "patches alone")
    config = configs.load("pynq-z2-lite")
    tokens = {"rows": "all", "layers": [1]}
    chunk = package.meta["ffn_chunk"]
    random = random_package(
        np.random.default_rng(0), **shape, classes=0, ffn_chunk=chunk, tokens=tokens, pre_norm=pre_norm
    )
    lengths = [len(compile(one, config, batch=1).code) for one in (package, random)]
    assert not fit(package, config, free=True).problem and lengths[0] == lengths[1]


def test_limits_are_named_and_a_smaller_chunk_is_found() -> None:
    """ViT-S/14 in 257 tokens: docs/results.md runs it on pynq-z2-257 in chunks of 192."""
    name = "timm:vit_small_patch14_dinov2", "--image-size", 224, "--classes", 10
    found = report(*name, "-c", "pynq-z2")["configurations"]["pynq-z2"]
    assert not found["fits"] and "residual memory addresses: 16512" in found["problem"]
    found = report(*name, "-c", "pynq-z2-257")["configurations"]["pynq-z2-257"]
    assert found["fits"] and found["ffn_chunk"] <= 192
    text = fits("timm:vit_small_patch14_dinov2", "--classes", 10, "-c", "zcu104").stdout
    assert "needs tokens: 1370" in text and "'zcu104' does not hold it" in text


@pytest.mark.parametrize(
    ("part", "name", "problem"),
    [
        ("rotary", "rotary positions", "rows with rotary positions: 18, available: 0"),
        ("gated", "gated FFN", "a gated FFN, which comes with rotary positions (rotary_tokens)"),
    ],
)
def test_what_needs_the_rotary_unit(tmp_path, part: str, name: str, problem: str) -> None:
    """Of a float network and of its package alike."""
    shape = dict(image_size=32, patch_size=8, dim=64, depth=1, heads=1, hidden=64, classes=3) | {part: True}
    model = VisionTransformer(ViTConfig(**shape, prefix=2))
    network, package = tmp_path / "float.safetensors", tmp_path / "int8.safetensors"
    save(network, model, Card("a", classes=["a", "b", "c"]))
    random_package(np.random.default_rng(0), **shape, prefix=2).save(package)
    for source in (network, package):
        said = CliRunner().invoke(app, ["info", str(source)]).output
        assert name in " ".join(said.split())
        found = report(source)["configurations"]
        assert found["kv260"]["fits"] and not found["pynq-z2"]["fits"]
        assert problem in found["pynq-z2"]["problem"]


def test_packages_and_what_nothing_holds() -> None:
    one = report("sign-digits", "-c", "pynq-z2")["configurations"]["pynq-z2"]
    assert one["fits"] and one["predicted_cycles"] > 1e5
    # on two Cortex-A9, a large JPEG takes longer than so small a network
    assert one["host"]["limit"] == "decode" and one["host"]["of_fabric"][0] > 1
    lines = fits("sign-digits", "-c", "pynq-z2").stdout.splitlines()
    assert any(line.startswith("pynq-z2") and line.endswith("decode") for line in lines)
    assert report("sign-digits", "-c", "paper")["configurations"]["paper"]["host"] is None
    mistake = fits("timm:vit_huge_patch14_224", code=2).stderr
    assert "width of 1280" in mistake or "1280 scalars" in mistake
    assert "is neither VisionTransformer nor Eva" in fits("timm:resnet18", code=2).stderr


def test_refusals_name_what_fits(caplog: pytest.LogCaptureFixture) -> None:
    """The compiler's, and golden's note that no board could run it."""
    shape = dict(dim=384, depth=1, heads=6, hidden=384, image_size=224, patch_size=14, classes=4)
    package = random_package(np.random.default_rng(0), **shape, ffn_chunk=384)
    with pytest.raises(RowvitError, match=r"16512, available: 13312; it fits kv260, .*zcu104, zu3"):
        compile(package, configs.load("pynq-z2"))
    with pytest.raises(RowvitError, match=r"rowvit quantise --ffn-chunk \d+ makes it fit"):
        compile(package, configs.load("pynq-z2-257"))
    with caplog.at_level(logging.WARNING, "rowvit"):
        Golden(configs.load("pynq-z2")).load(package)
        assert not caplog.records
        shape |= dict(image_size=560)
        large = random_package(np.random.default_rng(0), **shape, ffn_chunk=384)
        Golden(configs.load("pynq-z2")).load(large)
    assert "needs tokens: 1601" in caplog.text and "only golden runs it" in caplog.text
    with pytest.raises(RowvitError, match="no named configuration holds it"):
        compile(large, configs.load("pynq-z2"))
