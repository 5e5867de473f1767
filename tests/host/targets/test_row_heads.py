# SPDX-License-Identifier: Apache-2.0
"""Heads that answer for each patch, or for each detection token with a box (YOLOS)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import rowvit
from networks import randomise, snr
from rowvit.cli import app
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.model import store
from rowvit.model.adapt import rebuild
from rowvit.model.importers import import_model
from rowvit.model.store import Card
from rowvit.model.vit import RowHeads, VisionTransformer, ViTConfig, normalise
from rowvit.quant.quantise import QuantOptions, quantise
from rowvit.targets.features import row_arrays, told
from test_features import HALF, PHOTOS, answers


def network(heads: RowHeads, **changes: object) -> VisionTransformer:
    torch.manual_seed(1)
    config = ViTConfig(16, 4, 32, 2, 2, 64, 0, row_heads=heads, **{"prefix": 1} | changes)
    made = VisionTransformer(config).eval()
    for name, parameter in made.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)
    return made


def package(made: VisionTransformer) -> ModelPackage:
    return quantise(made, PHOTOS, QuantOptions("some", [], HALF, HALF))


CASES = {
    "patches": (RowHeads("patches", ("road", "sky", "tree")), {}),
    "patches that stay": (RowHeads("patches", ("a", "b")), {"pruning": ({"layer": 0, "keep": 7},)}),
    "boxes": (RowHeads("prefix", ("cat", "dog", "nothing"), 3, True), {"prefix": 6}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", ["golden", "sim"])
def test_as_the_float_network(case: str, target: str, tmp_path: Path) -> None:
    """Of a batch, by a program from a file as well; equal to the reference to the bit."""
    heads, changes = CASES[case]
    made = network(heads, **changes)
    some = package(made)
    assert some.meta["row_heads"]["names"] == list(heads.names) and some.meta["classes"] == []
    results, wanted = answers(target, some, tmp_path)
    with torch.inference_mode():
        stream = made.encode(normalise(PHOTOS, HALF, HALF))
        exact = {name: value.numpy() for name, value in made.rows(stream).items()}
    first, end = (1, 6) if heads.rows == "prefix" else (made.config.prefix, 17)
    for number, (result, want) in enumerate(zip(results, wanted, strict=True)):
        assert result.same(want) and result.rows.keys() == {"indices", *exact}
        for name in exact:
            np.testing.assert_array_equal(result.rows[name], want.rows[name])
        if changes.get("pruning") and (made.tokens[number].numpy() != result.tokens[1].indices).any():
            continue  # integers can rank tokens otherwise
        kept = np.arange(first, end) if "pruning" not in changes else made.tokens[number].numpy()[1:]
        np.testing.assert_array_equal(result.rows["indices"], kept)
        for name, values in exact.items():
            assert snr(values[number], result.rows[name]) > 20


def test_told() -> None:
    """The surest things first, without what is nothing or unsure; shares of patches."""
    names = ["cat", "dog", "nothing"]
    scores = np.array([[5, 0, 0], [0, 9, 0], [0, 0, 9], [1, 0.9, 0.8]], np.float32)
    found = told({"scores": scores, "boxes": np.zeros((4, 4))}, names)
    assert [name for name, _ in found] == ["dog", "cat"] and found[0][1] > found[1][1] > 0.9
    assert told({"scores": scores}, names) == [("cat", 0.5), ("dog", 0.25), ("nothing", 0.25)]


def test_arrays_of_images_with_fewer_rows() -> None:
    rows = [{"indices": np.arange(count), "scores": np.ones((count, 2), np.float32)} for count in (3, 1)]
    arrays = row_arrays(rows)
    assert arrays["scores"].shape == (2, 3, 2) and arrays["indices"].tolist() == [[0, 1, 2], [0, -1, -1]]
    assert row_arrays([{}, {}]) == {} == row_arrays([])


def test_commands(tmp_path: Path) -> None:
    """A float network through its file, `run` and `features`."""
    heads, changes = CASES["boxes"]
    store.save(path := tmp_path / "float.safetensors", network(heads, **changes), Card("boxes"))
    model, _ = store.load(path)
    assert model.config.row_heads == heads
    package(model).save(tmp_path / "int8.safetensors")
    Image.fromarray(PHOTOS[0]).save(tmp_path / "a.png")
    base = [str(tmp_path / "int8.safetensors"), str(tmp_path / "a.png"), "--target", "golden", "-c", "tiny"]
    ended = CliRunner().invoke(app, ["run", *base, "--json", str(tmp_path / "run.json")])
    assert ended.exit_code == 0 and "seen" in ended.output, ended.output
    (image,) = json.loads((tmp_path / "run.json").read_text())["images"]
    assert np.shape(image["rows"]["boxes"]) == (5, 4) and image["rows"]["indices"] == [1, 2, 3, 4, 5]
    ended = CliRunner().invoke(app, ["features", *base, "-o", str(tmp_path / "a.npz")])
    assert ended.exit_code == 0, ended.output
    with np.load(tmp_path / "a.npz") as file:
        assert file["row_scores"].shape == (1, 5, 3) and file["row_names"].tolist() == list(heads.names)
        np.testing.assert_allclose(file["row_boxes"][0], image["rows"]["boxes"], rtol=1e-6)
    ended = CliRunner().invoke(app, ["info", base[0]])
    assert "scores of 3 names and boxes of prefix" in " ".join(ended.output.split())


def test_what_is_refused() -> None:
    heads, changes = CASES["boxes"]
    for words, wrong in {
        "behind the class token": {"prefix": 1},
        "all of them": {"prefix": 3, "pruning": ({"layer": 0, "keep": 7},)},
        "behind the last LayerNorm": {"pool": "mean", "prefix": 3},
    }.items():
        with pytest.raises(RowvitError, match=words):
            network(heads, **wrong)
    some = package(network(heads, **changes))
    rows, first = some.meta["row_heads"], some.meta["row_heads"]["boxes"][0]
    for words, meta in {
        "gives 3 numbers for 2 scores": {"row_heads": rows | {"names": ["a", "b"]}},
        "gives 5 numbers for 4 boxes": {"row_heads": rows | {"boxes": [first | {"out": 5}]}},
        "row_heads.rows": {"row_heads": rows | {"rows": "all"}},
        "take all tokens": {"tokens": some.meta["tokens"] | {"rows": "class"}},
    }.items():
        with pytest.raises(RowvitError, match=words):
            ModelPackage(some.meta | meta, some.tensors).check()


@pytest.mark.parametrize("form", ["folder", "state dict"])
def test_yolos(form: str, tmp_path: Path) -> None:
    """Scores and boxes are transformers' own; the names are its labels, and nothing."""
    transformers = pytest.importorskip("transformers")
    labels = {0: "cat", 1: "dog", 2: "cup"}
    config = transformers.YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=[16, 16],
        patch_size=4,
        num_detection_tokens=5,
        use_mid_position_embeddings=False,
        id2label=labels,
        label2id={name: number for number, name in labels.items()},
    )
    torch.manual_seed(2)
    theirs = randomise(transformers.YolosForObjectDetection(config)).eval()
    if form == "folder":
        theirs.save_pretrained(tmp_path)
        found = import_model(tmp_path)
    else:
        torch.save(theirs.state_dict(), tmp_path / "yolos.pth")
        found = import_model(tmp_path / "yolos.pth", heads=2)
    heads = found.model.config.row_heads
    assert heads is not None and (heads.rows, heads.layers, heads.boxes) == ("prefix", 3, True)
    names = ("cat", "dog", "cup", "nothing") if form == "folder" else ("0", "1", "2", "3")
    assert heads.names == names and found.model.config.prefix == 6
    pixels = normalise(PHOTOS, HALF, HALF)
    with torch.inference_mode():
        wanted, ours = theirs(pixels), found.model.rows(found.model.encode(pixels))
    torch.testing.assert_close(ours["scores"], wanted.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours["boxes"], wanted.pred_boxes, rtol=1e-4, atol=1e-5)
    relu = rebuild(found.model, replace(found.model.config, act="relu"))
    with rowvit.open("golden", config="tiny") as golden:
        golden.load(package(relu))
        ours = np.stack([result.rows["boxes"] for result in golden(PHOTOS)])
    with torch.inference_mode():
        exact = relu.rows(relu.encode(normalise(PHOTOS, HALF, HALF)))["boxes"].numpy()
    assert ours.shape == (6, 5, 4) and snr(exact, ours) > 20


def test_positions_between_blocks_are_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.YolosConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=[16, 16],
        patch_size=4, num_detection_tokens=5, use_mid_position_embeddings=True,
    )  # fmt: skip
    transformers.YolosForObjectDetection(config).save_pretrained(tmp_path)
    with pytest.raises(RowvitError, match="positions added between the blocks"):
        import_model(tmp_path)
