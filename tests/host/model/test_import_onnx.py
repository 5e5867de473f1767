# SPDX-License-Identifier: Apache-2.0
"""ONNX files of two exporters and several libraries: outputs equal the original's, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rowvit.errors import RowvitError

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("timm")

import exports  # noqa: E402
from exports import HuggingFaceNetwork, JaxNetwork, PlainNetwork, export, timm_network  # noqa: E402
from rowvit.model.importers import import_model  # noqa: E402
from rowvit.model.importers.onnx import read_onnx  # noqa: E402
from rowvit.model.vit import normalise  # noqa: E402

NETWORKS: dict[str, tuple[Callable, dict]] = {
    "timm": (timm_network, {"prefix": 1, "heads": 3, "act": "gelu", "hidden": 96, "eps": 1e-6}),
    "layer-scale": (lambda: timm_network(init_values=0.5, qkv_bias=False), {}),
    "relu": (lambda: timm_network(act_layer=torch.nn.ReLU), {"act": "relu"}),
    "registers": (lambda: timm_network(reg_tokens=3, no_embed_class=True), {"prefix": 4}),
    "mean": (lambda: timm_network(global_pool="avg"), {"pool": "mean", "prefix": 1}),
    "norm-mean": (lambda: timm_network(global_pool="avg", fc_norm=False), {"pool": "norm-mean"}),
    "no-class-token": (lambda: timm_network(global_pool="avg", class_token=False), {"prefix": 0}),
    "features": (lambda: timm_network(num_classes=0), {"classes": 0}),
    "deit-distilled": (exports.timm_distilled, {"prefix": 2, "distilled": True}),
    "torchvision": (exports.torchvision_network, {"hidden": 40}),
    "transformers": (HuggingFaceNetwork, {"eps": 1e-12, "hidden": 40}),
    "transformers-deit": (lambda: HuggingFaceNetwork(distilled=True), {"prefix": 2, "distilled": True}),
    "einsum": (PlainNetwork, {"act": "gelu", "eps": 1e-5}),
    "gelu-tanh": (lambda: PlainNetwork("tanh", "mean"), {"act": "gelu_tanh", "pool": "mean"}),
    "class-mean": (lambda: PlainNetwork(pool="class-mean"), {"pool": "class-mean"}),
    "jax": (JaxNetwork, {"act": "gelu"}),
}


#: every network by two exporters, three networks by more variants of them
EXPORTS = [(name, *form) for name in NETWORKS for form in (("script", 14), ("dynamo", 18))] + [
    (name, *form)
    for name in ("timm", "transformers-deit", "torchvision")
    for form in (("script open", 17), ("script", 20), ("dynamo", 23))
]


@pytest.mark.parametrize(("name", "how", "opset"), EXPORTS)
@torch.no_grad()
def test_output_equals_the_original(tmp_path: Path, name: str, how: str, opset: int) -> None:
    """Opset 14 writes LayerNorm and GELU out, 17 has LayerNormalization, 20 Gelu, 23 Attention."""
    if how == "dynamo":
        pytest.importorskip("onnxscript")
    make, facts = NETWORKS[name]
    network = make()
    result = read_onnx(export(network, tmp_path / "a.onnx", how, opset))
    images = exports.images()
    assert torch.allclose(result.model(images), network(images), atol=2e-5)
    assert result.difference < 1e-5 and not result.dropped
    assert {key: getattr(result.model.config, key) for key in facts} == facts


@torch.no_grad()
def test_names_do_not_matter(tmp_path: Path) -> None:
    network = timm_network()
    model = onnx.load(export(network, tmp_path / "a.onnx"))
    names: dict[str, str] = {"": ""}
    for node in model.graph.node:
        node.name = ""
        for tensors in (node.input, node.output):
            tensors[:] = [names.setdefault(tensor, f"t{len(names)}") for tensor in tensors]
    for value in [*model.graph.initializer, *model.graph.input, *model.graph.output]:
        value.name = names[value.name]
    onnx.save(model, tmp_path / "b.onnx")
    images = exports.images()
    assert torch.allclose(read_onnx(tmp_path / "b.onnx").model(images), network(images), atol=2e-5)


@pytest.mark.parametrize(("how", "opset"), [("script", 17), ("dynamo", 18)])
@torch.no_grad()
def test_preprocessing_of_integers_goes_into_the_card(tmp_path: Path, how: str, opset: int) -> None:
    network = exports.Raw(timm_network())
    photos = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    found = read_onnx(export(network, tmp_path / "a.onnx", how, opset, photos[:1]))
    taken = normalise(photos.numpy(), found.pixels.mean, found.pixels.std)
    assert torch.allclose(found.model(taken), network(photos), atol=1e-4)
    assert found.pixels.peak == 255 and np.allclose(found.pixels.mean, [0.4, 0.5, 0.6])
    assert np.allclose(found.pixels.std, [0.2, 0.25, 0.3])


@torch.no_grad()
def test_softmax_after_the_head_is_left_out(tmp_path: Path) -> None:
    network = PlainNetwork("clamp", "norm-mean")
    model = read_onnx(export(network, tmp_path / "a.onnx")).model
    images = exports.images()
    assert model.config.act == "relu" and model.config.pool == "norm-mean"
    assert torch.allclose(model(images).softmax(dim=1), network(images), atol=1e-6)


@torch.no_grad()
def test_half_precision(tmp_path: Path) -> None:
    network = timm_network()
    model = onnx.load(export(network, tmp_path / "a.onnx"))
    tensors = list(model.graph.initializer)
    tensors += [a.t for node in model.graph.node for a in node.attribute if a.type == a.TENSOR]
    for tensor in tensors:
        if tensor.data_type == tensor.FLOAT:
            half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name))
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, tmp_path / "half.onnx")
    found = read_onnx(tmp_path / "half.onnx").model
    images = exports.images()
    assert found.config.act == "gelu"
    assert torch.allclose(found(images), network(images), atol=1e-2)


@torch.no_grad()
def test_external_weights(tmp_path: Path) -> None:
    network = timm_network()
    model = onnx.load(export(network, tmp_path / "a.onnx"))
    onnx.save(model, tmp_path / "b.onnx", save_as_external_data=True, location="b.data", size_threshold=0)
    images = exports.images()
    assert torch.allclose(read_onnx(tmp_path / "b.onnx").model(images), network(images), atol=2e-5)
    (tmp_path / "b.data").unlink()
    with pytest.raises(RowvitError, match=r"b\.onnx"):
        read_onnx(tmp_path / "b.onnx")


class Saliency(torch.nn.Module):
    """An encoder under a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = timm_network(num_classes=0, global_pool="")
        self.decoder = torch.nn.ConvTranspose2d(24, 1, 4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.encoder(images)[:, 1:]
        return self.decoder(patches.transpose(1, 2).reshape(len(images), 24, 4, 4)).sigmoid()


@torch.no_grad()
def test_encoder_alone(tmp_path: Path) -> None:
    network = Saliency().eval()
    export(network, tmp_path / "a.onnx")
    with pytest.raises(RowvitError, match=r"\(ConvTranspose\)"):
        read_onnx(tmp_path / "a.onnx")
    result = read_onnx(tmp_path / "a.onnx", encoder=True)
    images = exports.images()
    assert result.model.config.classes == 0 and "ConvTranspose" in result.dropped
    features = result.model.norm(result.model.encode(images))
    assert torch.allclose(features, network.encoder(images), atol=2e-5)
    changed = import_model(tmp_path / "a.onnx", encoder=True, classes=5, image_size=32).model.config
    assert (changed.classes, changed.image_size) == (5, 32)  # in one command, with a new head
    with pytest.raises(RowvitError, match="activation is none"):  # in every block
        export(PlainNetwork("mish"), tmp_path / "b.onnx")
        read_onnx(tmp_path / "b.onnx", encoder=True)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: PlainNetwork("mish"), r"\(Mul\): the activation is none of relu, gelu"),
        (lambda: PlainNetwork(change="embedding"), r"\(Add\) is not one linear layer on patches.*Relu"),
        (
            lambda: PlainNetwork(change="norm in between"),
            r"\(LayerNormalization\): the residual stream is normalised itself",
        ),
        (
            lambda: PlainNetwork(change="normed queries"),
            r"\(LayerNormalization\): .*normalised queries and keys",
        ),
        (lambda: PlainNetwork(change="mask"), r"\(Add\): a table is added to attention's scores"),
        (lambda: PlainNetwork(change="gate"), r"\(Mul\): .*a gated FFN, which is not read from ONNX"),
        (lambda: PlainNetwork(change="parallel"), r"\(Add\): its input is not the LayerNorm|should be added"),
        (lambda: PlainNetwork(pool="last"), r"the head sees token 16, not the first"),
        (lambda: timm_network(global_pool="max"), r"\(ReduceMax\)"),
        (
            lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 4), torch.nn.ReLU()),
            "has no attention, but 1 conv",
        ),
    ],
)
def test_what_does_not_run_is_named(tmp_path: Path, network: Callable, message: str) -> None:
    export(network().eval(), tmp_path / "a.onnx")
    with pytest.raises(RowvitError, match=rf"a\.onnx.*{message}"):
        read_onnx(tmp_path / "a.onnx")


@torch.no_grad()
def test_layernorm_before_the_blocks(tmp_path: Path) -> None:
    network = PlainNetwork(change="norm first").eval()
    export(network, tmp_path / "a.onnx")
    found = read_onnx(tmp_path / "a.onnx").model
    assert found.config.pre_norm
    images = torch.randn(2, 3, found.config.image_size, found.config.image_size)
    torch.testing.assert_close(found(images), network(images), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_fused_operators_of_onnxruntime(tmp_path: Path) -> None:
    """Its optimiser's output is the same network; operators that it does not stand for are named."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "b.onnx"), 4
    network = timm_network(act_layer="quick_gelu")
    onnxruntime.InferenceSession(str(export(network, tmp_path / "a.onnx")), options)
    model = onnx.load(tmp_path / "b.onnx")
    assert {node.op_type for node in model.graph.node if node.domain == "com.microsoft"} >= {"QuickGelu"}
    found = read_onnx(tmp_path / "b.onnx").model
    images = exports.images()
    assert found.config.act == "quick_gelu" and torch.allclose(found(images), network(images), atol=2e-5)
    node = next(node for node in model.graph.node if node.op_type == "QuickGelu")
    node.op_type = "BiasSplitGelu"
    onnx.save(model, tmp_path / "c.onnx")
    with pytest.raises(RowvitError, match=r"\(BiasSplitGelu\): the operator is of domain com\.microsoft"):
        read_onnx(tmp_path / "c.onnx")


def test_quantised_files_are_named(tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(export(timm_network(), tmp_path / "a.onnx"), tmp_path / "b.onnx")
    with pytest.raises(RowvitError, match=r"quantised already, as node .*Quantize.*rowvit quantise makes"):
        read_onnx(tmp_path / "b.onnx")


@torch.no_grad()
def test_open_sizes_and_casts_at_the_end(tmp_path: Path) -> None:
    """Optimum leaves all sizes open, with config.json beside; converters to half precision sort nothing."""
    network = timm_network()
    model = onnx.load(export(network, tmp_path / "a.onnx", "script open"))
    for name, dim in zip("bchw", model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        dim.dim_param = name
    first, *others = model.graph.node
    del model.graph.node[:]
    model.graph.node.extend([*others, first])
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(RowvitError, match="pass --image-size"):
        import_model(tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text('{"image_size": 16, "id2label": {"0": "a", "1": "b"}}')
    pixels = '{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.4, 0.4], "do_center_crop": true'
    pixels += ', "size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}'
    (tmp_path / "preprocessor_config.json").write_text(pixels)
    (tmp_path / "a.onnx").unlink()
    found = import_model(tmp_path)
    images = exports.images()
    assert torch.allclose(found.model(images), network(images), atol=2e-5)
    assert found.card.mean == [0.1, 0.2, 0.3] and found.card.crop == 0.8
    assert not any("assumed" in note for note in found.notes)


class Normalising(torch.nn.Module):
    """A network that takes pixels: of ``peak``, in the order of ``channels``, normalised as Keras does."""

    def __init__(self, network: torch.nn.Module, peak: float, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.peak, self.channels = network, peak, channels

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = pixels[:, list(self.channels)]
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        return self.network((x - self.peak * mean[:, None, None]) / (self.peak * std[:, None, None]))


class Around(torch.nn.Module):
    """A network that takes pixels in -1..1, and normalises them as ImageNet's."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        return self.network((x * 0.5 + 0.5 - mean[:, None, None]) / std[:, None, None])


def test_pixels_around_zero_are_refused(tmp_path: Path) -> None:
    export(Around(timm_network()).eval(), tmp_path / "a.onnx")
    with pytest.raises(RowvitError, match=r"as if pixels were in -1\.\.1; export it without that"):
        import_model(tmp_path / "a.onnx")


class Chosen(torch.nn.Module):
    """Some of a network's outputs."""

    def __init__(self, network: torch.nn.Module, choose: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.network, self.choose = network, choose

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.choose(self.network(x))


@pytest.mark.parametrize("make", [lambda x: x[:, 1:], lambda x: x.flip(1), lambda x: x[:, [3, 0, 3]]])
@torch.no_grad()
def test_some_of_the_classes(tmp_path: Path, make: Callable) -> None:
    """Without the one for nothing, say, or in another order."""
    network = Chosen(timm_network(), make).eval()
    found = read_onnx(export(network, tmp_path / "a.onnx"))
    images = exports.images()
    assert torch.allclose(found.model(images), network(images), atol=2e-5)


@pytest.mark.parametrize("make", [lambda x: x[:, :16], lambda x: x.flip(1)])
def test_some_of_the_channels_are_refused(tmp_path: Path, make: Callable) -> None:
    export(Chosen(timm_network(num_classes=0), make).eval(), tmp_path / "a.onnx")
    with pytest.raises(RowvitError, match="the output is a part of it, or in another order"):
        read_onnx(tmp_path / "a.onnx")


@pytest.mark.parametrize(("peak", "channels"), [(1, (0, 1, 2)), (255, (0, 1, 2)), (255, (2, 1, 0))])
@torch.no_grad()
def test_normalisation_in_the_graph_goes_into_the_card(
    tmp_path: Path, peak: int, channels: tuple[int, ...]
) -> None:
    """Photos through the card and the network give what their pixels give in the file: never twice."""
    network = Normalising(timm_network(), peak, channels)
    found = import_model(export(network, tmp_path / "a.onnx"))
    mean, std = (np.array(v)[list(channels)] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    assert np.allclose(found.card.mean, mean, atol=1e-5) and np.allclose(found.card.std, std, atol=1e-5)
    photos = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    pixels = torch.from_numpy(photos).permute(0, 3, 1, 2).float() * (peak / 255)
    taken = normalise(photos, found.card.mean, found.card.std)
    assert torch.allclose(found.model(taken), network(pixels), atol=1e-4)
    assert any(f"pixels in 0..{peak} and normalises" in note for note in found.notes)
    assert not any("ImageNet's" in note for note in found.notes)
    with pytest.raises(RowvitError, match="normalises its input itself; leave out --mean and --std"):
        import_model(tmp_path / "a.onnx", mean=[0.5] * 3, std=[0.5] * 3)


class Pyramid(torch.nn.Module):
    """Convolutions before the only LayerNorm, as in hybrids."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form.removeprefix("one, ")
        more = [] if form.startswith("one") else [torch.nn.Conv2d(24, 24, 3, 1, 1)]
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 24, 5, 4, 2), torch.nn.ReLU(), *more)
        self.norm = torch.nn.LayerNorm(24)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images).permute(0, 2, 3, 1)
        if self.form == "windows":
            x = x.reshape(-1, 2, 2, 2, 2, 24).transpose(2, 3).reshape(-1, 4, 24)
        return self.norm(x.flatten(1, 2) if self.form == "tokens" else x).softmax(dim=-1)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("grid", "2 convolutions come before the first LayerNorm"),
        ("windows", "2 convolutions come before the first LayerNorm"),
        ("tokens", "2 convolutions come before the first LayerNorm"),
        ("one, grid", r"reads \[1, 4, 4, 24\] scalars.*without windows"),
        ("one, windows", r"reads \[4, 4, 24\] scalars"),
        ("one, tokens", "not one linear layer on patches"),
    ],
)
def test_hybrids_are_refused(tmp_path: Path, form: str, message: str) -> None:
    with pytest.raises(RowvitError, match=message):
        read_onnx(export(Pyramid(form), tmp_path / "a.onnx"))


def test_what_is_no_model_of_images(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"

    def refused(message: str, **options: object) -> None:
        with pytest.raises(RowvitError, match=message):
            read_onnx(path, **options)

    refused("no such file")
    for junk in (b"", b"no model", b"\x08\x07"):
        path.write_bytes(junk)
        refused("cannot be read as an ONNX model")
    good = onnx.load(export(timm_network(), path))
    refused("has no output 'nothing'; it has", output="nothing")
    assert read_onnx(path, image_size=32).model.config.image_size == 16  # the size is not open

    def changed(change: Callable) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(good)
        change(model.graph)
        onnx.save(model, path)

    def shape(*sizes: int) -> Callable:
        def change(graph: onnx.GraphProto) -> None:
            for dim, size in zip(graph.input[0].type.tensor_type.shape.dim, sizes, strict=True):
                dim.Clear()
                if size:
                    dim.dim_value = size

        return change

    changed(shape(8, 3, 16, 16))
    refused("batches of 8")
    changed(shape(1, 1, 16, 16))
    refused(r"shape \[1, 1, 16, 16\]")
    changed(shape(1, 3, 16, 20))
    refused("onnxruntime cannot run it")  # the positions are for another size
    changed(shape(1, 3, 0, 0))
    refused("pass --image-size")
    assert read_onnx(path, image_size=16).model.config.image_size == 16
    changed(lambda graph: graph.input.append(onnx.helper.make_tensor_value_info("mask", 1, [1])))
    refused(r"has 2 inputs \(images, mask\)")

    def poison(graph: onnx.GraphProto) -> None:
        tensor = next(t for t in graph.initializer if len(t.dims) > 1)
        values = onnx.numpy_helper.to_array(tensor).copy()
        values.flat[5] = np.nan
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    changed(poison)
    refused("hold NaN or infinity")
    changed(lambda graph: graph.node[-1].attribute.append(onnx.helper.make_attribute("transB", 0)))
    refused(r"a\.onnx")
