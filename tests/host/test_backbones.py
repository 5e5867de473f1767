# SPDX-License-Identifier: Apache-2.0
"""docs/backbones.md runs line by line, with random weights in small shapes in place of the hub's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from networks import randomise
from rowvit.cli import app

transformers = pytest.importorskip("transformers")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "backbones.md"
SIZE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=16, image_size=224)
SIZE |= dict(intermediate_size=64)


def dinov2(folder: Path) -> None:
    settings = {key: value for key, value in SIZE.items() if key != "intermediate_size"}
    made = transformers.Dinov2Model(transformers.Dinov2Config(**settings | {"patch_size": 14}, mlp_ratio=2))
    randomise(made).save_pretrained(folder)


def clip(folder: Path) -> None:
    from test_import_clip import tokenizer

    text = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=40)
    config = transformers.CLIPConfig(vision_config=SIZE, text_config=text, projection_dim=12)
    randomise(transformers.CLIPModel(config)).save_pretrained(folder)
    tokenizer(folder)


def yolos(folder: Path) -> None:
    config = transformers.YolosConfig(
        **SIZE | {"image_size": [224, 224]}, num_detection_tokens=100, use_mid_position_embeddings=False
    )
    randomise(transformers.YolosForObjectDetection(config)).save_pretrained(folder)


MADE: dict[str, Callable[[Path], None]] = {"dinov2-small": dinov2, "clip": clip, "yolos-tiny": yolos}


def blocks() -> dict[str, list[tuple[str, str]]]:
    """By the folder that a section fetches: its blocks, each with its language."""
    sections = PAGE.read_text().split("\n## ")[1:]
    found = {re.search(r"--local-dir (\S+)", one)[1]: one for one in sections}
    return {name: re.findall(r"```(sh|python)\n(.*?)```", one, re.DOTALL) for name, one in found.items()}


def test_every_section_is_tried() -> None:
    assert blocks().keys() == MADE.keys()


@pytest.mark.parametrize("name", MADE)
def test_section(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "model"))
    torch.manual_seed(0)
    Path(name).mkdir()
    MADE[name](Path(name))
    Path("PHOTOS").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(f"PHOTOS/{number}.png")
    for language, text in blocks()[name]:
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), {})
            continue
        for line in text.splitlines():
            words = shlex.split(line)
            if words[0] == "printf":
                Path(words[-1]).write_text(words[1].replace("\\n", "\n"))
            elif words[0] == "rowvit":
                ended = CliRunner().invoke(app, words[1:])
                assert ended.exit_code == 0, (line, ended.output, ended.exception)
            else:
                assert words[:2] == ["hf", "download"], line
    left = {path.name for path in tmp_path.iterdir()}
    assert {"dinov2-small": "features.npz", "clip": "clip-int8.safetensors", "yolos-tiny": "boxes.png"}[
        name
    ] in left
