# SPDX-License-Identifier: Apache-2.0
"""CLIP: a LayerNorm before the blocks, and the projection of the class token as a head."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import rowvit
from networks import randomise, snr
from rowvit.cli import app
from rowvit.errors import RowvitError
from rowvit.model import store
from rowvit.model.importers import import_model
from rowvit.model.vit import VisionTransformer, normalise, predict
from rowvit.quant.noise import layer_noise
from rowvit.quant.quantise import QuantOptions, quantise

transformers = pytest.importorskip("transformers")
SIZE = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=16, patch_size=4)
SIZE |= dict(intermediate_size=64, projection_dim=12)
MEAN, STD = [0.4814, 0.4578, 0.4082], [0.2686, 0.2613, 0.2757]
PHOTOS = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)


def clip(kind: str = "CLIPVisionModelWithProjection") -> torch.nn.Module:
    made = getattr(transformers, kind)
    if kind == "CLIPModel":
        text = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=40)
        config = made.config_class(vision_config=SIZE, text_config=text, projection_dim=12)
    else:
        config = made.config_class(**SIZE)
    torch.manual_seed(2)
    return randomise(made(config)).eval()


def embeddings(network: torch.nn.Module, pixels: Tensor) -> Tensor:
    """Of transformers' own."""
    with torch.inference_mode():
        if hasattr(network, "text_model"):
            seen = network.vision_model(pixels)
            return network.visual_projection(seen.pooler_output)
        seen = network(pixels)
        return seen.image_embeds if hasattr(seen, "image_embeds") else seen.pooler_output


def openai_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of transformers in the names of OpenAI's repository, with a text side."""
    found = {
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
        "visual.proj": state["visual_projection.weight"].T,
        "positional_embedding": torch.zeros(77, 16),
        "token_embedding.weight": torch.zeros(40, 16),
        "text_projection": torch.zeros(16, 12),
        "ln_final.weight": torch.zeros(16),
        "transformer.resblocks.0.ln_1.weight": torch.zeros(16),
        "logit_scale": torch.tensor(4.6),
    }
    names = {"layer_norm": "ln_", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn.out": "attn.out"}
    for name, tensor in state.items():
        if match := re.fullmatch(r"vision_model\.(pre_layrnorm|post_layernorm)\.(.*)", name):
            found[f"visual.ln_{match[1].split('_')[0]}.{match[2]}"] = tensor
        if match := re.fullmatch(r"vision_model\.encoder\.layers\.(\d+)\.(.*)", name):
            block, rest = f"visual.transformer.resblocks.{match[1]}", match[2]
            if q := re.fullmatch(r"self_attn\.q_proj\.(.*)", rest):
                parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
                found[f"{block}.attn.in_proj_{q[1]}"] = torch.cat(parts)
            elif not re.match(r"self_attn\.[kv]_proj", rest):
                for old, new in names.items():
                    rest = rest.replace(old, new)
                found[f"{block}.{rest}"] = tensor
    return found


KINDS = "CLIPVisionModelWithProjection", "CLIPModel", "CLIPVisionModel"


@pytest.mark.parametrize(
    ("form", "kind"),
    # OpenAI's has a projection
    [*product(("folder", "state dict"), KINDS), *product(("openai",), KINDS[:2])],
)
def test_imported(form: str, kind: str, tmp_path: Path) -> None:
    network = clip(kind)
    if form == "folder":
        network.save_pretrained(tmp_path)
        found = import_model(tmp_path)
    else:
        state = network.state_dict()
        if form == "openai":
            state = openai_names(state)
        torch.save(state, tmp_path / "clip.pth")
        found = import_model(tmp_path / "clip.pth", heads=2)
        assert any("quick GELU assumed" in note for note in found.notes)
    config = found.model.config
    assert config.pre_norm and config.act == "quick_gelu" and config.heads == 2
    assert config.classes == (0 if kind == "CLIPVisionModel" else 12)
    assert found.card.classes[:1] == ([] if kind == "CLIPVisionModel" else ["embedding 0"])
    pixels = normalise(PHOTOS, MEAN, STD)
    with torch.inference_mode():
        torch.testing.assert_close(found.model(pixels), embeddings(network, pixels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["CLIPForImageClassification", "MetaClip2ForImageClassification"])
def test_a_head_on_patches_without_a_norm_is_refused(kind: str, tmp_path: Path) -> None:
    """Its encoder is what it is without the head."""
    if not hasattr(transformers, kind):
        pytest.skip(f"this transformers has no {kind}")
    made = getattr(transformers, kind)
    torch.manual_seed(2)
    network = randomise(made(made.config_class(vision_config=SIZE, num_labels=3))).eval()
    network.save_pretrained(tmp_path)
    with pytest.raises(RowvitError, match="its head sees the mean of the patches in front of the last"):
        import_model(tmp_path)
    found = import_model(tmp_path, encoder=True).model
    pixels = torch.from_numpy(PHOTOS).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        wanted = network.vision_model(pixels).pooler_output
        assert torch.allclose(found(pixels), wanted, atol=1e-5)


def tokenizer(folder: Path) -> None:
    """CLIP's, of single characters."""
    words = ["<|startoftext|>", "<|endoftext|>"]
    characters = [chr(code) for code in range(ord("a"), ord("a") + 17)]
    words += characters + [f"{character}</w>" for character in characters]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    names = folder / "vocab.json", folder / "merges.txt"
    transformers.CLIPTokenizer(*map(str, names)).save_pretrained(folder)


@pytest.mark.parametrize("command", [False, True])
def test_prompts(command: bool, tmp_path: Path) -> None:
    """The order of the classes, and their distances up to one factor, are CLIP's own."""
    network, prompts = clip("CLIPModel"), ["a dog", "a cab", "beef"]
    network.save_pretrained(tmp_path)
    tokenizer(tmp_path)
    if command:
        (tmp_path / "prompts.txt").write_text("\n".join(prompts))
        arguments = ["import", str(tmp_path), "--prompts", str(tmp_path / "prompts.txt")]
        ended = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "out.safetensors")])
        assert ended.exit_code == 0, ended.output
        model, card = store.load(tmp_path / "out.safetensors")
    else:
        found = import_model(tmp_path, prompts=prompts)
        model, card = found.model, found.card
    assert card.classes == prompts
    pixels = normalise(PHOTOS, MEAN, STD)
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)(prompts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        theirs = network(pixel_values=pixels, **tokens).logits_per_image
        ours = model(pixels)
    factor = (ours / theirs).numpy()
    np.testing.assert_allclose(factor, np.repeat(factor[:, :1], 3, axis=1), rtol=1e-3)
    assert (ours.argmax(1) == theirs.argmax(1)).all() and 0.5 < factor.mean() < 2


def test_prompts_need_the_text_side(tmp_path: Path) -> None:
    clip().save_pretrained(tmp_path)
    with pytest.raises(RowvitError, match="both sides and its tokenizer"):
        import_model(tmp_path, prompts=["a"])
    with pytest.raises(RowvitError, match="for its own head"):
        import_model(tmp_path, prompts=["a"], classes=3)


def relu_network() -> VisionTransformer:
    """CLIP's shape, as it is after `rowvit relu`."""
    network = clip()
    state = dict(network.state_dict())
    from rowvit.model.importers.names import timm_names, without_prefix
    from rowvit.model.importers.state_dict import from_timm

    return from_timm(timm_names(without_prefix(state, "vision_model.")), heads=2, act="relu")


@pytest.mark.parametrize("tokens", ["", "all"])
def test_on_the_accelerator(tokens: str) -> None:
    """Int8 with a unit for each channel is as exact before the blocks as what the blocks add."""
    network = relu_network()
    names = [str(number) for number in range(12)]
    package = quantise(network, PHOTOS, QuantOptions("clip", names, MEAN, STD, tokens=tokens))
    noise = {row.layer: row.ffn for row in layer_noise(network, package, PHOTOS)}
    assert noise["embed"] > 38 and noise["embed"] > noise["2"] + 3
    with rowvit.open("golden", config="tiny", checkpoints=True) as golden:
        golden.load(package)
        expected = golden(PHOTOS)
    with rowvit.open("sim", config="tiny", stalls=5) as sim:
        from rowvit.compiler import compile
        from rowvit.hardware.config import load

        sim.load(compile(package, load("tiny"), checkpoints=True))
        results = sim(PHOTOS, batch=2)
    assert all(result.same(want) for result, want in zip(results, expected, strict=True))
    exact = predict(network, PHOTOS, MEAN, STD)
    ours = np.stack([result.logits for result in results]) * package.meta["scales"]["logit"]
    assert snr(exact, ours) > 20


def test_a_package_without_its_shifts_is_refused() -> None:
    package = quantise(relu_network(), PHOTOS, QuantOptions("clip", [str(n) for n in range(12)], MEAN, STD))
    del package.meta["params"]["pre.shift"]
    with pytest.raises(RowvitError, match=r"params lack pre\.shift"):
        package.check()
