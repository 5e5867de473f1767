# SPDX-License-Identifier: Apache-2.0
"""Networks that answer with tokens: as the float network computes them, on golden, sim and by command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import rowvit
from networks import snr
from rowvit.cli import app
from rowvit.compiler import compile
from rowvit.errors import RowvitError
from rowvit.formats.bundled import MODELS
from rowvit.formats.package import ModelPackage
from rowvit.hardware.config import load
from rowvit.model import store
from rowvit.model.store import Card
from rowvit.model.vit import VisionTransformer, ViTConfig, normalise, predict
from rowvit.quant.noise import layer_noise
from rowvit.quant.quantise import QuantOptions, quantise
from rowvit.reference.layers import linear
from rowvit.targets.features import features
from rowvit.targets.target import Result, read_package

HALF = (0.5, 0.5, 0.5)
PHOTOS = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)


def network(classes: int = 0, keep: int | None = 9, **changes) -> VisionTransformer:
    """Random weights; two prefix tokens, 16 patches, of which ``keep`` stay behind layer 1 of 3."""
    torch.manual_seed(1)
    pruning = ({"layer": 1, "keep": keep},) if keep else ()
    config = ViTConfig(16, 4, 32, 3, 2, 64, classes, pruning=pruning, **{"prefix": 2} | changes)
    made = VisionTransformer(config).eval()
    for name, parameter in made.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)
    return made


def package(made: VisionTransformer, tokens: str = "all", behind: tuple[int, ...] = ()) -> ModelPackage:
    names = [str(number) for number in range(made.config.classes)]
    return quantise(made, PHOTOS, QuantOptions("some", names, HALF, HALF, tokens=tokens, behind=behind))


def states(made: VisionTransformer) -> list[np.ndarray]:
    """Tokens behind every layer, by PyTorch."""
    found = []
    with torch.inference_mode():
        made.encode(
            normalise(PHOTOS, HALF, HALF),
            lambda name, value: found.append(made.norm(value).numpy()) if name.endswith(".ffn") else None,
        )
    return found


def answers(target: str, some: ModelPackage, folder: Path) -> tuple[list[Result], list[Result]]:
    """Of a target, in batches and from a file (of the compiled program, on sim), and of the reference."""
    some.save(path := folder / "some.safetensors")
    if target == "sim":
        compile(some, load("tiny")).save(path := folder / "some.rowvit")
    with rowvit.open(target, config="tiny") as opened, rowvit.open("golden", config="tiny") as golden:
        opened.load(path)
        golden.load(some)
        return opened(PHOTOS, batch=3), golden(PHOTOS)


@pytest.mark.parametrize("classes", [0, 7])
def test_features_are_the_float_networks(classes: int) -> None:
    made = network(classes, keep=None)
    exact = states(made)
    with rowvit.open("golden", config="tiny") as golden:
        golden.load(package(made, behind=(0, 2)))
        for layer in (0, 2, None):
            values, indices = golden.features(PHOTOS, layer=layer)
            assert values.dtype == np.float32 and snr(exact[layer or 2 * (layer is None)], values) > 30
            np.testing.assert_array_equal(indices, np.tile(np.arange(18), (6, 1)))
        (result,) = golden(PHOTOS[:1])
        assert result.logits.shape == (classes,) and result.probabilities.shape == (classes,)
        assert (result.top1, result.label) == (-1, "") if not classes else result.label == str(result.top1)


def test_sixteen_bits_are_as_exact_as_the_residual_stream() -> None:
    made = network(keep=None)
    noise = {row.layer: row.ffn for row in layer_noise(made, package(made), PHOTOS)}
    assert abs(noise["tokens"] - noise["2"]) < 2 and "logits" not in noise


def test_dropped_tokens_are_not_among_them() -> None:
    made = network()
    exact = states(made)
    with rowvit.open("golden", config="tiny") as golden:
        golden.load(package(made, behind=(0, 2)))
        results = golden(PHOTOS)
        values, indices = golden.features(PHOTOS)
        assert golden.features(PHOTOS, layer=0).indices.shape == (6, 18)
    assert values.shape == (6, 10, 32)
    for row, result in zip(indices, results, strict=True):
        np.testing.assert_array_equal(row, result.kept[0])
    same = (indices == made.tokens.numpy()).all(axis=1)  # a score that is rounded may choose another
    assert same.sum() >= 3 and snr(exact[2][same], values[same]) > 30


def test_a_threshold_leaves_images_with_fewer() -> None:
    some = package(network())
    scores = 1 << 17
    some.meta["pruning"] = [{"layer": 1, "keep": 9, "threshold": scores}]
    with rowvit.open("golden", config="tiny") as golden:
        golden.load(some)
        values, indices = golden.features(PHOTOS)
        counts = [len(result.kept[0]) for result in golden(PHOTOS)]
    assert len(set(counts)) > 1
    for row, own, count in zip(indices, values, counts, strict=True):
        assert (row[:count] >= 0).all() and (row[count:] == -1).all() and not own[count:].any()


def test_class_token_alone() -> None:
    made = network()
    with rowvit.open("golden", config="tiny") as golden:
        golden.load(package(made))
        every = golden.features(PHOTOS).values
        golden.load(package(made, "class"))
        values, indices = golden.features(PHOTOS)
    assert values.shape == (6, 1, 32) and not indices.any()
    assert snr(every[:, :1], values) > 55  # another unit


@pytest.mark.parametrize("tokens", ["all", "class"])
@pytest.mark.parametrize("classes", [0, 3])
def test_simulation(tokens: str, classes: int) -> None:
    some = package(network(classes), tokens, (1, 2))
    with rowvit.open("golden", config="tiny") as golden, rowvit.open("sim", config="tiny", stalls=3) as sim:
        golden.load(some)
        sim.load(some)
        for ours, want in zip(sim(PHOTOS, batch=4), golden(PHOTOS), strict=True):
            assert ours.same(want) and sorted(ours.tokens) == [1, 2]
        ours, want = sim.features(PHOTOS, batch=3), golden.features(PHOTOS)
    np.testing.assert_array_equal(ours.values, want.values)
    np.testing.assert_array_equal(ours.indices, want.indices)


@pytest.mark.parametrize(
    ("tokens", "behind", "message"),
    [
        ("some", (), "tokens 'some' are not class or all"),
        ("all", (3,), "no layers"),
        ("all", (0,), "tokens behind the last layer are the answer"),
        ("", (), "no classifier head.*--tokens"),
    ],
)
def test_what_quantise_refuses(tokens: str, behind: tuple[int, ...], message: str) -> None:
    with pytest.raises(RowvitError, match=message):
        package(network(), tokens, behind)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_tokens_without_a_layernorm(checkpoints: bool) -> None:
    """Where the last LayerNorm is that of the patches' mean: rows of the residual stream, behind two layers,
    with the others among the checkpoints, and the right ones after pruning.
    """
    made = network(pool="mean", prefix=1)
    some = package(made, behind=(0, 2))
    with (
        rowvit.open("golden", config="tiny", checkpoints=checkpoints) as golden,
        rowvit.open("sim", config="tiny") as sim,
    ):
        golden.load(some)
        sim.load(compile(some, load("tiny"), checkpoints=checkpoints))
        for layer, tokens in ((0, 17), (2, 10)):
            values, indices = golden.features(PHOTOS, layer=layer)
            assert values.shape == (6, tokens, 32) and (indices[:, 0] == 0).all()
        pairs = list(zip(sim(PHOTOS[:3], batch=3), golden(PHOTOS[:3]), strict=True))
    with torch.inference_mode():
        stream = made.encode(normalise(PHOTOS, HALF, HALF)).numpy()
    compared = 0
    for result, wanted, exact, kept in zip(
        *zip(*pairs, strict=True), stream, made.tokens.numpy(), strict=False
    ):
        assert result.same(wanted) and len(result.checkpoints) == 7 * checkpoints
        values, indices = result.tokens[2]
        if (kept == indices).all():  # integers can rank tokens otherwise
            compared += 1
            assert snr(exact, values * some.meta["scales"]["tokens"]) > 20
    assert compared
    with pytest.raises(RowvitError, match="come all together"):
        package(made, "class")


def seen(made: VisionTransformer, tokens: torch.Tensor) -> torch.Tensor:
    """What the head sees, of what the network answers with."""
    pool, mean = made.config.pool, tokens[:, made.config.prefix :].mean(dim=1)
    if pool == "attention":
        return made.attn_pool(tokens)
    if pool == "mean":
        return made.norm(mean)
    return mean if pool == "norm-mean" else torch.cat([tokens[:, 0], mean], dim=1)


@pytest.mark.parametrize("pool", ["norm-mean", "class-mean", "mean", "attention"])
@pytest.mark.parametrize("target", ["golden", "sim"])
def test_heads_on_the_host(pool: str, target: str, tmp_path: Path) -> None:
    """Their logits are the float network's, nearly; a program from a file has the head, too."""
    made = network(5, keep=None, pool=pool, prefix=0 if pool == "attention" else 2)
    some = package(made, "")
    assert some.meta["architecture"]["classes"] == 0 and some.meta["classes"] == list("01234")
    exact = predict(made, PHOTOS, HALF, HALF)
    results, expected = answers(target, some, tmp_path)
    golden_features = features([result.tokens for result in expected], some.meta)
    ours = np.stack([result.logits for result in results])
    assert ours.dtype == np.float32 and snr(exact, ours) > 20
    with torch.inference_mode():
        head = made.head(seen(made, torch.from_numpy(golden_features.values)))
    np.testing.assert_allclose(ours, head.numpy(), rtol=1e-4, atol=1e-5)
    assert [result.label for result in results] == [str(row.argmax()) for row in ours]
    np.testing.assert_allclose(results[0].probabilities.sum(), 1)
    assert all(result.same(want) for result, want in zip(results, expected, strict=True))
    assert layer_noise(made, some, PHOTOS)[-2].layer == "logits"


@pytest.mark.parametrize("target", ["golden", "sim"])
def test_no_class_token(target: str) -> None:
    """As timm's gap models: patches alone, and their mean for the head."""
    made = VisionTransformer(replace(network(5, keep=None, pool="norm-mean").config, prefix=0)).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, 0.5, 0.3)
    some = package(made, "")
    with rowvit.open(target, config="tiny") as opened:
        opened.load(some)
        values, indices = opened.features(PHOTOS)
        logits = np.stack([result.logits for result in opened(PHOTOS)])
    assert values.shape == (6, 16, 32) and snr(states(made)[2], values) > 25
    np.testing.assert_array_equal(indices, np.tile(np.arange(16), (6, 1)))
    assert snr(predict(made, PHOTOS, HALF, HALF), logits) > 20
    with pytest.raises(RowvitError, match="no class token to answer with"):
        package(replace_classes(made), "class")


def replace_classes(made: VisionTransformer) -> VisionTransformer:
    return VisionTransformer(replace(made.config, classes=0)).eval()


def test_pruning_and_a_mean_over_patches() -> None:
    made = network(5, pool="norm-mean")
    with pytest.raises(RowvitError, match="leave out the pruning"):
        package(made)
    single = VisionTransformer(replace(made.config, prefix=1)).eval()
    with rowvit.open("golden", config="tiny") as golden:
        golden.load(package(single))
        assert golden(PHOTOS)[0].logits.shape == (5,)


def broken(meta: dict) -> dict[str, dict]:
    """Descriptions of heads that are not right, by what is said of them."""
    head, linear = meta["host_head"], meta["host_head"]["steps"][0]
    return {
        "gives 4 numbers for 5 classes": {"host_head": head | {"steps": [linear | {"out": 4}]}},
        "a step linear of the host's head has name, op": {
            "host_head": head | {"steps": [{"op": "linear", "name": "linear"}]}
        },
        "host_head.pool": {"host_head": head | {"pool": "all"}},
        "pools by attention with no heads": {"host_head": head | {"pool": "attention"}},
        "pools by mean with 2 heads": {"host_head": head | {"heads": 2}},
        "have equal names": {"host_head": head | {"steps": [linear, linear]}},
        "takes 32 numbers and gives 5": {
            "host_head": head | {"steps": [{"op": "residual", "steps": [linear]}, linear | {"name": "other"}]}
        },
        "within another": {
            "host_head": head
            | {"steps": [{"op": "residual", "steps": [{"op": "residual", "steps": []}]}, linear]}
        },
        "a step residual of the host's head has op": {"host_head": head | {"steps": [{"op": "residual"}]}},
        "host_head.steps.0.op": {"host_head": head | {"steps": [{"op": "exec", "name": "linear"}]}},
        "takes all tokens": {"tokens": meta["tokens"] | {"rows": "class"}},
        "takes the tokens behind the last layer": {"architecture": meta["architecture"] | {"classes": 5}},
    }


def test_broken_heads_are_refused() -> None:
    some = package(network(5, keep=None, pool="norm-mean"), "")
    for words, changes in broken(some.meta).items():
        with pytest.raises(RowvitError, match=words):
            ModelPackage(some.meta | changes, some.tensors).check()
    for name, tensor in (("weight", np.float32("nan")), ("bias", np.float32("inf"))):
        wrong = some.tensors[f"host_head.linear.{name}"].copy()
        wrong.flat[0] = tensor
        with pytest.raises(RowvitError, match="not finite"):
            ModelPackage(some.meta, some.tensors | {f"host_head.linear.{name}": wrong}).check()


def test_what_a_network_does_not_answer() -> None:
    with rowvit.open("golden", config="tiny") as golden:
        golden.load(package(network()))
        with pytest.raises(RowvitError, match=r"does not answer behind layer 1.*behind 2"):
            golden.features(PHOTOS, layer=1)
        golden.load("sign-digits")
        with pytest.raises(RowvitError, match=r"classes only.*--tokens"):
            golden.features(np.zeros((1, 56, 56, 3), np.uint8))


def test_tokens_of_any_package(tmp_path: Path) -> None:
    """The class token's 16 bits, rounded, are what the head sees: the same logits."""
    made = read_package("sign-digits")
    some = made.with_tokens()
    assert some.with_tokens() is some and "tokens" not in made.meta
    photos = sorted((MODELS / "sign_digits_photos").glob("*.jpg"))[:3]
    with rowvit.open("golden", config="pynq-z2") as golden:
        golden.load(some)
        results = golden(photos)
        golden.load(made)
        expected = golden(photos)
    arch, params = some.arch, some.meta["params"]
    for result, want in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.logits, want.logits)
        token = result.tokens[arch["depth"] - 1].values[:1].astype(np.int64)
        x = np.clip((token + 64) >> 7, -127, 127).astype(np.int8)
        weight, bias, mult = (some.tensors[f"head.{part}"] for part in ("weight", "bias", "mult"))
        near = linear(x, weight, bias, mult, params["head.shift"])[0].astype(int)
        assert np.abs(near - want.logits).max() <= 200  # rounded twice
    output = tmp_path / "features.npz"
    command = ["features", "sign-digits", *map(str, photos), "-t", "golden", "-o", str(output)]
    assert CliRunner().invoke(app, command).exit_code == 0
    values = np.load(output)["values"]
    exact = results[0].tokens[arch["depth"] - 1].values * np.float32(some.meta["scales"]["tokens"])
    np.testing.assert_array_equal(values[0], exact)


def test_command(tmp_path: Path) -> None:
    some = package(network(), behind=(0, 2))
    some.save(tmp_path / "some.safetensors")
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, photo in zip(files, PHOTOS, strict=False):
        Image.fromarray(photo).save(file)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with rowvit.open("golden", config="tiny") as golden:
        golden.load(some)
        for options, layer, count in ([], None, 10), (["--behind", "0"], 0, 18), (["--dense"], None, 18):
            command = ["features", str(tmp_path / "some.safetensors"), *map(str, files), "-t", "golden"]
            output = tmp_path / "features.npz"
            ended = CliRunner().invoke(app, [*command, "-c", "tiny", "-o", str(output), *options])
            assert ended.exit_code == 0, ended.output
            found = np.load(output)
            assert found["values"].shape == (3, count, 32) and found["files"].tolist() == list(
                map(str, files)
            )
            if options != ["--dense"]:
                np.testing.assert_array_equal(
                    found["values"], golden.features(PHOTOS[:3], layer=layer).values
                )
    ended = CliRunner().invoke(app, [*command, str(tmp_path / "bad.png"), "-o", str(output)])
    assert ended.exit_code == 1 and "skipped" in ended.output and np.load(output)["values"].shape[0] == 3


def test_commands_on_a_network_without_classes(tmp_path: Path) -> None:
    """From import to features with labelled photos: nothing is measured, and nothing asks for classes."""
    for number in range(4):
        folder = tmp_path / "data" / ("train" if number < 2 else "test") / str(number % 2)
        folder.mkdir(parents=True)
        Image.fromarray(PHOTOS[number]).save(folder / "a.png")
    made = network(act="gelu", keep=None)
    store.save(tmp_path / "float.safetensors", made, Card("some", [], list(HALF), list(HALF)))

    def ran(*arguments: object, code: int = 0) -> str:
        ended = CliRunner().invoke(app, [*map(str, arguments)])
        assert ended.exit_code == code, ended.output
        return ended.output

    data = "--data", tmp_path / "data"
    relu, int8 = tmp_path / "relu.safetensors", tmp_path / "int8.safetensors"
    ran("relu", tmp_path / "float.safetensors", *data, "-o", relu)
    assert "no classifier head" in ran("quantise", relu, *data, "-o", int8, code=2)
    assert "tokens" in ran("quantise", relu, *data, "--tokens", "all", "-o", int8)
    assert "all tokens behind layer 2" in ran("info", int8)
    photo = next((tmp_path / "data").rglob("*.png"))
    assert "answers with tokens" in ran("run", int8, photo, "-t", "golden", "-c", "tiny")
    ran("features", int8, photo, "-t", "golden", "-c", "tiny", "-o", tmp_path / "features.npz")
    assert "has no classes" in ran("eval", int8, *data, code=2)
    wanted = "quantise", relu, *data, "--tokens", "all", "--measure", "-o", int8
    assert "no accuracy to measure" in ran(*wanted, code=2)
