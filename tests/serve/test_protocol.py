# SPDX-License-Identifier: Apache-2.0
"""What programs get: Triton's own client and curl, and a sentence for whatever is wrong."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
import tracemalloc
import zlib
from urllib.parse import urlencode

import jsonschema
import numpy as np
import photos as sets
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from puppet import serving
from waiting import HANG, until

import rowvit
from rowvit.errors import RowvitError
from rowvit.images import for_network
from rowvit.measure.power.instrument import Instrument
from rowvit.quant.synthetic import random_package
from rowvit.serve import server, service
from rowvit.serve.networks import read_networks
from rowvit.serve.service import Limits


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(files, pixels):
    """Of the driver itself."""
    with rowvit.open("golden", "tiny") as target:
        target.load(files["small"])
        return target(pixels)


@pytest.fixture
def client(golden):
    with triton.InferenceServerClient(f"127.0.0.1:{golden.port}") as one:
        yield one


def png(width: int, height: int, **options) -> bytes:
    stream = io.BytesIO()
    rng = np.random.default_rng(width)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(stream, "PNG", **options)
    return stream.getvalue()


# -- a client that is not ours ----------------------------------------------------------------------


def test_triton_asks_what_there_is(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("small") and client.is_model_ready("small", "1")
    assert not client.is_model_ready("large") and not client.is_model_ready("small", "2")
    extensions = "binary_tensor_data classification model_configuration model_repository statistics"
    assert client.get_server_metadata()["extensions"] == extensions.split()
    found = client.get_model_metadata("small")
    assert found["inputs"] == [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 12, 12, 3]}]
    assert {o["name"]: (o["datatype"], o["shape"]) for o in found["outputs"]} == {
        "probabilities": ("FP32", [-1, 5]),
        "logits": ("INT16", [-1, 5]),
        "class": ("INT64", [-1, 1]),
        "label": ("BYTES", [-1, 1]),
        "alive": ("BOOL", [-1, 1, 37]),
    }
    assert "alive" not in {o["name"] for o in client.get_model_metadata("dense")["outputs"]}


def test_triton_asks_how_it_is_configured(networks, puppet):
    with (
        serving(networks, "sim", lambda: puppet, batch=4) as served,
        triton.InferenceServerClient(f"127.0.0.1:{served.port}") as client,
    ):
        index = client.get_model_repository_index()
        assert [(one["name"], one["version"], one["state"]) for one in index] == [
            ("small", "1", "READY"),
            ("dense", "1", "READY"),
        ]
        assert served.ask("GET", "/v2/models").json == {"models": ["small", "dense"]}
        metadata, config = client.get_model_metadata("small"), client.get_model_config("small", "1")
        assert config["max_batch_size"] == 64
        assert config["input"] == [{"name": "pixels", "data_type": "TYPE_UINT8", "dims": [12, 12, 3]}]
        assert [tensor["name"] for tensor in config["output"]] == [t["name"] for t in metadata["outputs"]]
        assert {"name": "label", "data_type": "TYPE_STRING", "dims": [1]} in config["output"]
        for change in (client.load_model, client.unload_model):
            with pytest.raises(triton.InferenceServerException, match="loaded when the server starts"):
                change("small")


def test_triton_asks_what_was_answered(networks, puppet):
    with (
        serving(networks, "sim", lambda: puppet, batch=4) as served,
        triton.InferenceServerClient(f"127.0.0.1:{served.port}") as client,
    ):
        (before,) = client.get_inference_statistics("small")["model_stats"]
        assert before["inference_count"] == before["execution_count"] == before["last_inference"] == 0
        for images in (1, 4, 4):
            assert served.infer(np.zeros((images, 12, 12, 3), np.uint8)).status == 200
        puppet.failures.append(RowvitError("a fault"))
        assert served.infer(np.zeros((1, 12, 12, 3), np.uint8)).status == 503
        until(lambda: served.service.engine.ready)
        everything = client.get_inference_statistics()["model_stats"]
        assert [one["name"] for one in everything] == ["small", "dense"]
        (found,) = client.get_inference_statistics("small", "1")["model_stats"]
        assert found == everything[0] and found["inference_count"] == 9
        sizes = {one["batch_size"]: one["compute_infer"]["count"] for one in found["batch_stats"]}
        assert sum(size * count for size, count in sizes.items()) == 9
        assert (
            found["execution_count"]
            == sum(sizes.values())
            == len([name for name, images in puppet.batches if name == "small"]) - 1
        )  # the grey image after the fault, which nobody asked for
        spent = found["inference_stats"]
        assert spent["success"]["count"] == spent["queue"]["count"] == 9 and spent["fail"]["count"] == 1
        assert spent["success"]["ns"] == pytest.approx(
            spent["queue"]["ns"] + spent["compute_infer"]["ns"], abs=9
        )
        assert found["last_inference"] == pytest.approx(1000 * time.time(), abs=60_000)


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary_in", [True, False])
def test_triton_infers(client, pixels, expected, binary_in, compression):
    tensor = triton.InferInput("pixels", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels, binary_data=binary_in)
    found = client.infer("small", [tensor], request_id="seven", request_compression_algorithm=compression)
    assert found.get_response()["id"] == "seven"
    assert np.array_equal(found.as_numpy("logits"), [r.logits for r in expected])
    assert np.allclose(found.as_numpy("probabilities"), [r.probabilities for r in expected], atol=1e-6)
    assert found.as_numpy("class").tolist() == [[r.top1] for r in expected]
    assert found.as_numpy("label").tolist() == [[r.label.encode()] for r in expected]
    alive = found.as_numpy("alive")
    assert alive.dtype == bool
    assert [np.flatnonzero(a[0]).tolist() for a in alive] == [r.kept[0].tolist() for r in expected]


def test_triton_chooses_outputs(client, pixels, expected):
    tensor = triton.InferInput("pixels", [1, 12, 12, 3], "UINT8")
    tensor.set_data_from_numpy(pixels[:1])
    wanted = [
        triton.InferRequestedOutput("label", binary_data=False),
        triton.InferRequestedOutput("probabilities", class_count=2),
        triton.InferRequestedOutput("logits", binary_data=True),
    ]
    found = client.infer("small", [tensor], outputs=wanted)
    assert [o["name"] for o in found.get_response()["outputs"]] == ["label", "probabilities", "logits"]
    assert found.as_numpy("label").tolist() == [[expected[0].label]]
    assert np.array_equal(found.as_numpy("logits"), [expected[0].logits])
    order = np.argsort(-expected[0].probabilities, kind="stable")[:2]
    best = [text.decode().split(":") for text in found.as_numpy("probabilities")[0]]
    assert [(int(index), label) for _, index, label in best] == [(i, str(i)) for i in order]
    assert float(best[0][0]) == pytest.approx(expected[0].probabilities.max(), abs=1e-5)


@pytest.mark.parametrize("classes", [0, 5])
def test_triton_gets_tokens(tmp_path, pixels, classes):
    shape = dict(dim=32, depth=2, heads=2, image_size=12, patch_size=2, hidden=48, classes=classes)
    pruning = [{"layer": 0, "keep": 20, "threshold": 0}]
    answers = {"rows": "all", "layers": [0, 1]}
    made = random_package(np.random.default_rng(4), **shape, pruning=pruning, tokens=answers)
    made.meta["name"] = "features"
    if classes:  # so that it can be taught
        made.meta["scales"]["norm"] = 1 / 32
    made.save(path := tmp_path / "features.safetensors")
    with rowvit.open("golden", "tiny") as target:
        target.load(path)
        values, indices = target.features(pixels)
    networks = read_networks([str(path)], None)
    assert networks["features"].backbone
    with (
        serving(networks, "golden", lambda: rowvit.open("golden", "tiny")) as one,
        triton.InferenceServerClient(f"127.0.0.1:{one.port}") as client,
    ):
        there = {o["name"]: o["shape"] for o in client.get_model_metadata("features")["outputs"]}
        assert there["tokens"] == [-1, 21, 32] and ("logits" in there) == bool(classes)
        tensor = triton.InferInput("pixels", pixels.shape, "UINT8")
        tensor.set_data_from_numpy(pixels)
        found = client.infer("features", [tensor])
        described = one.ask("POST", "/models/features/classify", png(30, 20))
        assert described.status == 200 and len(described.json["classes"]) == classes
        assert one.ask("POST", "/models/features/classify", png(30, 20), Accept="image/png").status == 200
    np.testing.assert_array_equal(found.as_numpy("tokens"), values)
    np.testing.assert_array_equal(found.as_numpy("token"), values[:, 0])
    np.testing.assert_array_equal(found.as_numpy("token_indices"), indices)


def test_triton_gets_sentences(client):
    tensor = triton.InferInput("pixels", [1, 8, 8, 3], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(
        triton.InferenceServerException, match=r"pixels' is UINT8 \[1, 8, 8, 3\]; small takes"
    ):
        client.infer("small", [tensor])
    with pytest.raises(
        triton.InferenceServerException, match="no model 'large' is served here; use small, dense"
    ):
        client.infer("large", [tensor])


def test_curl(golden, files, expected, tmp_path):
    """A picture, a tensor in JSON, a raw tensor; curl knows nothing of the protocol."""
    if shutil.which("curl") is None:
        pytest.skip("needs curl")

    def curl(*arguments: str) -> bytes:
        return subprocess.run(["curl", "-sS", "--fail", *arguments], capture_output=True, check=True).stdout

    photo = files["photos"] / "0.png"
    answer = json.loads(curl("--data-binary", f"@{photo}", f"{golden.url}/models/small/classify"))
    with rowvit.open("golden", "tiny") as target:
        target.load(files["small"])
        (result,) = target([photo])
        raw = tmp_path / "pixels"
        raw.write_bytes(for_network(photo, target.meta).tobytes())
    assert answer["logits"] == result.logits.tolist() and answer["label"] == result.label
    sent = curl(
        *("-H", "Inference-Header-Content-Length: 0", "-H", "Content-Type: application/octet-stream"),
        *("--data-binary", f"@{raw}", "-D", str(tmp_path / "headers"), f"{golden.url}/v2/models/small/infer"),
    )
    lines = (tmp_path / "headers").read_text().lower().splitlines()
    (length,) = (line.split(":")[1] for line in lines if line.startswith("inference-header-content-length"))
    described = json.loads(sent[: int(length)])["outputs"]
    at = int(length)
    for tensor in described:
        size = tensor["parameters"]["binary_data_size"]
        if tensor["name"] == "logits":
            assert np.array_equal(np.frombuffer(sent[at : at + size], "<i2"), result.logits)
        at += size
    assert at == len(sent)


def form(*files: tuple[str, bytes], **fields: str) -> tuple[bytes, str]:
    """A form's body and type, as curl -F sends it."""
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts += [(f'name="file"; filename="{name}"\r\nContent-Type: image/png', data) for name, data in files]
    body = b"".join(
        b"--line\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + data + b"\r\n"
        for head, data in parts
    )
    return body + b"--line--\r\n", "multipart/form-data; boundary=line"


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate", "GZIP", "x-gzip", " Identity"])
def test_forms_and_packed_bodies(golden, encoding):
    """The same answer as to the picture alone; a form's file has a name."""
    data = png(30, 20)
    plain = golden.ask("POST", "/models/small/classify", data).json
    pack = zlib.compress if encoding == "deflate" else gzip.compress if "zip" in encoding.lower() else bytes
    headers = {"Content_Encoding": encoding} if encoding else {}
    packed = golden.ask("POST", "/models/small/classify", pack(data), **headers)
    assert packed.json["logits"] == plain["logits"] and "photo" not in packed.json
    body, kind = form(("C:\\photos\\a b.png", data), more="x")
    for path in ("/models/small/classify", "/models/dense/classify"):
        answer = golden.ask("POST", path, pack(body), Content_Type=kind, **headers)
        assert answer.status == 200 and answer.json["photo"] == "a b.png"
    drawn = golden.ask(
        "POST", "/models/small/classify", pack(body), Content_Type=kind, Accept="image/png", **headers
    )
    assert drawn.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (*form(more="x"), 400, "the form has no file; send one, as curl -F"),
        (*form(("a", b"x"), ("b", b"y")), 400, "the form has several files; send one file"),
        (b"--line", "multipart/form-data", 400, "the form cannot be read (Missing boundary"),
        (form(("a.png", b""))[0], form()[1], 400, "the request holds no picture"),
        (gzip.compress(b"x", mtime=0)[:-3], {"Content_Encoding": "gzip"}, 400, "no complete gzip data"),
        (b"x", {"Content_Encoding": "br"}, 415, "Content-Encoding 'br' is not known; use gzip"),
        (
            gzip.compress(bytes(17 << 20), mtime=0),
            {"Content_Encoding": "gzip"},
            413,
            "larger than 16,777,216 bytes",
        ),
    ],
)
def test_what_is_no_form(golden, body, headers, status, says):
    headers = headers if isinstance(headers, dict) else {"Content_Type": headers}
    reply = golden.ask("POST", "/models/small/classify", body, **headers)
    assert reply.status == status and says in reply.error


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "AVIF", "BMP", "PPM"])
def test_formats_and_what_is_said_of_a_picture(golden, form):
    """All that `rowvit run` takes; the answer says what of a picture was left out, or is missing."""
    sets.require_reader(form)
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    frames = [Image.fromarray(pixels), Image.new("L", (30, 20), 90).convert("RGB")]
    for first, other in (frames, reversed(frames)):
        file = io.BytesIO()
        several = form in ("GIF", "TIFF", "WEBP", "AVIF")
        first.save(file, form, **(dict(save_all=True, append_images=[other]) if several else {}))
        reply = golden.ask("POST", "/models/small/classify", file.getvalue())
        assert reply.status == 200, reply
        notes = " ".join(reply.json["notes"])
        assert ("several frames, of which the first is taken" in notes) == several
        assert ("has no colours" in notes) == (first is frames[1])


def test_packed_bodies_count_as_what_they_are(networks, puppet):
    """Kilobytes that become megabytes do not get past the limit of all bodies."""
    tensor = gzip.compress(np.zeros((60, 12, 12, 3), np.uint8).tobytes() + bytes(900_000))
    limits = Limits(body=1 << 20, bodies=1 << 20, deadline=HANG)
    with serving(networks, "sim", lambda: puppet, limits) as served:
        puppet.go.clear()
        head = {"Content_Encoding": "gzip", "Inference_Header_Content_Length": "0"}
        waiting = served.later(np.zeros((1, 12, 12, 3), np.uint8))
        until(puppet.inside.is_set)
        replies = [served.ask("POST", "/v2/models/small/infer", tensor, **head) for _ in range(3)]
        assert {reply.status for reply in replies} == {400}  # alone, each is looked at
        puppet.go.set()
        waiting.join(HANG)
        until(lambda: served.service.open_requests == 0)  # after its answer


def test_whole_numbers_may_have_a_point(golden):
    """As some languages write all their numbers; of JSON's schema, 3.0 is an integer."""
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1.0, 12, 12, 3.0], "data": [0] * 432}
    outputs = [{"name": "probabilities", "parameters": {"classification": 2.0}}]
    message = json.dumps({"inputs": [tensor], "outputs": outputs})
    reply = golden.ask("POST", "/v2/models/small/infer", message)
    assert reply.status == 200 and reply.json["outputs"][0]["shape"] == [1, 2]


# -- what is wrong ------------------------------------------------------------------------------------


def bomb(side: int = 30_000) -> bytes:
    """A PNG of so many pixels squared in a few hundred bytes, cut off."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))


def bitmap(side: int) -> bytes:
    """The header of a BMP of so many pixels squared."""
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, side, side, 1, 24, *(0,) * 6)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "the request holds no picture"),
        (b"GET / HTTP/1.1", 415, "the file is no picture; use one of JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "the file is no picture"),
        (png(40, 40)[:-200], 400, "cannot be decoded as an image"),
        (bomb(), 413, "the file has more than"),
        (bitmap(9000), 413, "BMP of 9,000 x 9,000 pixels takes 324 MB to decode, and may take"),
        (bytes(17 << 20), 413, "the request is larger than 16,777,216 bytes"),
    ],
)
def test_what_is_no_picture(golden, body, status, says):
    reply = golden.ask("POST", "/models/small/classify", body)
    assert reply.status == status and says in reply.error


def test_a_body_without_length_is_limited(golden):
    """In chunks, so that only counting tells."""
    reply = golden.ask("POST", "/models/small/classify", (bytes(1 << 20) for _ in range(20)))
    assert reply.status == 413 and "larger than 16,777,216 bytes" in reply.error


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"inputs": []}, "the inputs are none; small takes one, 'pixels'"),
        ({"inputs": 3}, "the request's inputs is 3, but must be array"),
        ({"inputs": [{"name": "pixels", "shape": [1]}]}, "the request lacks inputs.0.datatype"),
        ({"inputs.0.name": "image"}, "the inputs are 'image'"),
        ({"inputs.0.datatype": "FP32"}, "input 'pixels' is FP32 [1, 12, 12, 3]; small takes UINT8"),
        ({"inputs.0.shape": [1, 12, 12, 1]}, "small takes UINT8 [images, 12, 12, 3]"),
        ({"inputs.0.shape": [0, 12, 12, 3]}, "small takes UINT8"),
        ({"inputs.0.shape": [2, 12, 12, 3]}, "does not have shape [2, 12, 12, 3]"),
        ({"inputs.0.data": [0] * 431}, "does not have shape"),
        ({"inputs.0.data": [[0], [1, 2]]}, "does not have shape"),
        ({"inputs.0.data": [256] * 432}, "is not UINT8; send whole numbers from 0 to 255"),
        ({"inputs.0.data": [-1] * 432}, "is not UINT8"),
        ({"inputs.0.data": [0.5] * 432}, "is not UINT8"),
        ({"inputs.0.data": ["a"] * 432}, "is not UINT8"),
        ({"inputs.0.data": [True] * 432}, "is not UINT8"),
        ({"inputs.0.data": [0] * 431 + [[0]]}, "is not UINT8"),
        ({"inputs.0.data": [[0] * 432]}, "does not have shape"),
        ({"inputs.0.data": [[[[0] * 3] * 12] * 11 + [[[0] * 3] * 11]]}, "does not have shape"),
        ({"inputs.0.datatype": "\ud800"}, r"input 'pixels' is \ud800 [1"),
        ({"outputs": [{"name": "\ud800"}]}, r"there is no output '\ud800'"),
        ({"inputs.0.parameters": {"binary_data_size": 432}}, "0 bytes follow the JSON, but inputs have 432"),
        ({"inputs.0.parameters": {"shared_memory_region": "x"}, "inputs.0.data": None}, "must be array"),
        ({"outputs": [{"name": "masks"}]}, "there is no output 'masks'; use probabilities"),
        ({"outputs": [{"name": "label", "parameters": {"classification": 2}}]}, "'label' has no classes"),
        ({"parameters": {"timeout": -1}}, "the request's parameters.timeout is -1"),
        ({"parameters": {"timeout": 10**400}}, "the request's parameters.timeout is 1000"),
        ({"inputs.0.shape": [10**4000, 12, 12, 3]}, "the request's inputs.0.shape.0 is 1000"),
        (
            {"outputs": [{"name": "label"}, {"name": "alive"}, {"name": "label"}]},
            "'label' is asked for twice",
        ),
        ({"id": 7}, "the request's id is 7, but must be string"),
    ],
)
def test_wrong_requests(golden, change, says):
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, 12, 12, 3], "data": [0] * 432}
    message: dict = {"inputs": [tensor]}
    for path, value in change.items():
        place, *keys = message, *path.split(".")
        for key in keys[:-1]:
            place = place[int(key) if key.isdigit() else key]
        place[keys[-1]] = value
    reply = golden.ask("POST", "/v2/models/small/infer", json.dumps(message))
    assert reply.status == 400 and says in reply.error


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"{", {}, 400, "the request is no JSON"),
        (b"[" * 100_000, {}, 400, "the request is no JSON"),
        (b" " * (5 << 20), {}, 413, "JSON is larger than 4,194,304 bytes; send tensors in binary"),
        (b"[]", {}, 400, "the request's value is [], but must be object"),
        (b"{}", {}, 400, "the request lacks inputs"),
        (b"{}", {"Inference_Header_Content_Length": "3"}, 400, "is '3', of a body of 2 bytes"),
        (b"{}", {"Inference_Header_Content_Length": "-1"}, 400, "is '-1'"),
        (b"{}", {"Inference_Header_Content_Length": "9" * 5000}, 400, "of a body of 2 bytes"),
        (b"{}", {"Inference_Header_Content_Length": "0"}, 400, "2 bytes are no tensor [1, 12, 12, 3]"),
        (b"{}", {"Content_Encoding": "br"}, 415, "Content-Encoding 'br' is not known; use gzip"),
        (b"{}", {"Content_Encoding": "gzip"}, 400, "no complete gzip data"),
        (gzip.compress(b"{}", mtime=0)[:-4], {"Content_Encoding": "gzip"}, 400, "no complete gzip data"),
        (
            gzip.compress(bytes(17 << 20), mtime=0),
            {"Content_Encoding": "gzip"},
            413,
            "larger than 16,777,216 bytes",
        ),
    ],
)
def test_wrong_bodies(golden, body, headers, status, says):
    reply = golden.ask("POST", "/v2/models/small/infer", body, **headers)
    assert reply.status == status and says in reply.error


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/v2/models/large", 404, "no model 'large' is served here; use small, dense"),
        ("GET", "/v2/models/small/versions/2", 404, "small has no version '2'; use 1"),
        ("POST", "/models/large/classify", 404, "no model 'large'"),
        ("GET", "/models/small/classify", 405, "this address does not take GET"),
        ("GET", "/nowhere", 404, "there is no such page"),
        ("GET", "/static/../app.py", 404, "there is no such page"),
        ("POST", "/models/small/classify?explain=maybe", 400, "explain is 'maybe'; use true or false"),
        ("POST", "/models/small/classify?timeout=-3", 400, "timeout is '-3'; use seconds"),
        ("GET", "/examples/small/99", 404, "small has 5 examples, and none '99'; count from 0"),
        ("GET", "/examples/small/" + "9" * 5000, 404, "small has 5 examples"),
        ("GET", "/examples/small/-1", 404, "small has 5 examples"),
    ],
)
def test_wrong_addresses(golden, method, path, status, says):
    reply = golden.ask(method, path)
    assert reply.status == status and says in reply.error


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=25)
@given(
    st.one_of(
        st.binary(max_size=300),
        json_values.map(lambda value: json.dumps(value).encode()),
        st.fixed_dictionaries(
            {"inputs": st.lists(json_values, max_size=2)},
            optional={"outputs": json_values, "id": json_values},
        ).map(lambda value: json.dumps(value).encode()),
    ),
    st.sampled_from(["/v2/models/small/infer", "/models/small/classify"]),
)
def test_whatever_is_sent_is_refused(golden, body, path):
    reply = golden.ask("POST", path, body)
    assert 400 <= reply.status < 500 and len(reply.error) > 10


def test_texts_for_pixels_take_no_memory(golden):
    """Of an array, each would have the room of the longest one."""
    texts = ["a" * 20_000] + [""] * 431
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, 12, 12, 3], "data": texts}
    tracemalloc.start()
    try:
        reply = golden.ask("POST", "/v2/models/small/infer", json.dumps({"inputs": [tensor]}))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert reply.status == 400 and "is not UINT8" in reply.error


def test_an_index_of_what_is_ready(networks, puppet):
    with serving(networks, "sim", lambda: puppet) as served:
        for body in (b"", b"\n", b"{}", b'{"ready": null}', b'{"ready": false}', b'{"ready": true}'):
            found = served.ask("POST", "/v2/repository/index", body).json
            assert [(one["name"], one["state"]) for one in found] == [("small", "READY"), ("dense", "READY")]
        for body in (b"{", b"[]", b'{"ready": 1}'):
            reply = served.ask("POST", "/v2/repository/index", body)
            assert reply.status == 400 and 'send nothing, or {"ready": true}' in reply.error


def test_an_error_of_another_address_stands_alone(golden):
    """The page's own addresses would lead elsewhere from there."""
    reply = golden.ask("GET", "/models/small/classify", Accept="text/html")
    text = reply.body.decode()
    assert reply.status == 405 and "does not take GET" in text
    assert "static/" not in text and "<form" not in text


def test_an_example_whose_name_is_not_utf8(tmp_path):
    folder = tmp_path / "examples"
    folder.mkdir()
    try:
        (folder / os.fsdecode(b"\xc4.png")).write_bytes(png(16, 16))
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    networks = read_networks(["sign-digits"], folder)
    with serving(networks, "golden", lambda: rowvit.open("golden")) as served:
        assert "example 1: \N{REPLACEMENT CHARACTER}" in served.ask("GET", "/").body.decode()
        form = {"example": "sign-digits/0", "model": "sign-digits"}
        headers = {"Content_Type": "application/x-www-form-urlencoded", "Accept": "text/html"}
        reply = served.ask("POST", "/", urlencode(form), **headers)
        assert reply.status == 200 and "of \N{REPLACEMENT CHARACTER}.png" in reply.body.decode()


def test_slow_requests_end(networks, puppet, monkeypatch):
    """Half a request line, and a body that does not come: both connections are closed by the server."""
    with serving(networks, "sim", lambda: puppet, Limits(deadline=0.5)) as served:
        with monkeypatch.context() as patch:
            patch.setattr(server, "_HEADERS", 0.3)
            with socket.create_connection(("127.0.0.1", served.port), timeout=HANG) as slow:
                slow.sendall(b"GET /v2/heal")
                assert slow.recv(100) == b""
        with socket.create_connection(("127.0.0.1", served.port), timeout=HANG) as slow:
            slow.sendall(
                b"POST /models/small/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc"
            )
            reply = slow.makefile("rb").read()
        assert b" 408 " in reply and b"did not arrive in time" in reply
        assert served.service.engine.held == 0


def test_the_hls_front_end(networks):
    """Pictures, of which the middle square is sent, and tensors of any size that the kernel is built for."""
    with serving(networks, "golden", lambda: rowvit.open("golden", "tiny", frontend="hls")) as served:
        assert served.ask("GET", "/v2/models/small").json["inputs"][0]["shape"] == [-1, -1, -1, 3]
        assert served.infer(np.zeros((2, 20, 30, 3), np.uint8)).status == 200
        assert served.ask("POST", "/models/small/classify?explain=1", png(40, 30)).status == 200
        assert served.ask("POST", "/models/small/classify", png(4100, 20)).status == 200
        wide = served.infer(np.zeros((1, 2, 4100, 3), np.uint8))
        assert wide.status == 400 and "does not go through the HLS front end" in wide.error
        assert served.service.engine.faults == 0


def test_a_rectangle(tmp_path):
    """Pictures are cut to its shape, and drawn in it; the HLS front end refuses it before it serves."""
    shape = dict(dim=32, depth=2, heads=2, image_size=12, image_width=28, patch_size=4, hidden=48, classes=5)
    package = random_package(
        np.random.default_rng(6), **shape, pruning=[{"layer": 0, "keep": 9, "threshold": 0}]
    )
    package.meta["name"] = "wide"
    package.save(path := tmp_path / "wide.safetensors")
    networks, data = read_networks([str(path)]), png(90, 30)
    with serving(networks, "golden", lambda: rowvit.open("golden", "tiny")) as served:
        described = served.ask("GET", "/v2/models/wide").json["inputs"][0]["shape"]
        assert described == [-1, 12, 28, 3]
        with rowvit.open("golden", "tiny") as target:
            target.load(path)
            (expected,) = target([pixels := for_network(data, target.meta)])
        found = served.infer(pixels[None], model="wide").json["outputs"]
        (logits,) = (tensor["data"] for tensor in found if tensor["name"] == "logits")
        assert logits == expected.logits.tolist()
        assert served.infer(np.zeros((1, 28, 12, 3), np.uint8), model="wide").status == 400
        answer = served.ask("POST", "/models/wide/classify?explain=1", data).json
        assert answer["logits"] == expected.logits.tolist() and len(answer["attention"][0]["tokens"]) == 22
        drawn = served.ask("POST", "/models/wide/classify", data, Accept="image/png")
        assert Image.open(io.BytesIO(drawn.body)).size == (16 + 3 * (448 + 16), 192 + 3 * 16 + 4 * 30)
        page = served.ask("GET", "/").body.decode()
        assert f'data-ratio="{28 / 12}"' in page
    with (
        pytest.raises(RowvitError, match="the HLS front end makes squares"),
        serving(networks, "golden", lambda: rowvit.open("golden", "tiny", frontend="hls")),
    ):
        pass


# -- answers, their descriptions, and figures ------------------------------------------------------


def test_openapi(golden):
    found = golden.ask("GET", "/openapi.json").json
    validate(found)

    def check(value, name: str) -> None:
        jsonschema.validate(value, {**found, "$ref": f"#/components/schemas/{name}"})

    check(golden.ask("GET", "/v2").json, "ServerMetadata")
    check(golden.ask("GET", "/v2/models/small").json, "ModelMetadata")
    check(golden.ask("GET", "/v2/models/small/ready").json, "Ready")
    check(golden.ask("GET", "/v2/models").json, "Models")
    check(golden.ask("GET", "/v2/models/small/config").json, "ModelConfig")
    check(golden.ask("GET", "/v2/models/stats").json, "Statistics")
    check(golden.ask("POST", "/v2/repository/index").json, "RepositoryIndex")
    check(golden.infer(np.zeros((2, 12, 12, 3), np.uint8)).json, "InferResponse")
    check(golden.ask("POST", "/models/small/classify", png(30, 20)).json, "Answer")
    check(golden.ask("POST", "/models/small/classify?explain=1", png(30, 20)).json, "Answer")
    check(golden.ask("POST", "/models/small/classify").json, "Error")
    # what is described is there; of lessons, in test_lessons.py
    for path, item in found["paths"].items():
        if "lesson" in path:
            continue
        address = path.format(model="small", version="1")
        for method in item:
            assert golden.ask(method.upper(), address).status not in (404, 405), address


def test_an_explained_answer(golden, files):
    data = png(30, 20)
    found = golden.ask("POST", "/models/small/classify?explain=true", data).json
    with rowvit.open("golden", "tiny") as target:
        target.load(files["small"])
        (result,) = target([for_network(data, target.meta)])
    assert found["target"] == "golden" and "no board" in found["evidence"]
    assert found["latency"]["basis"] == "the host's monotonic clock"
    assert found["tokens"]["pruned"] == [{"layer": 0, "alive": 21, "kept": result.kept[0].tolist()}]
    assert found["work"]["w2_rows_total"] == result.w2_rows_total
    assert found["cycles"]["source"] == "predicted by the cycle model"
    assert [layer["name"] for layer in found["cycles"]["layers"]] == ["embed", "0", "1", "head"]
    assert [len(look["tokens"]) for look in found["attention"]] == [37, 21]
    assert all(sum(look["share"]) == pytest.approx(1, abs=1e-3) for look in found["attention"])


def test_an_explanation_that_differs(served):
    """The puppet's logits are not the reference's: it is said, and the reference's work is not the core's."""
    found = served.ask("POST", "/models/small/classify?explain=true", png(30, 20)).json
    assert found["bit_exact"] is False and set(found["work"].values()) == {None}


def test_times_of_an_answer(served, puppet):
    """Of the core, of the wait for it, and of all."""
    replies, picture = [], png(30, 20)

    def ask() -> None:
        replies.append(served.ask("POST", "/models/small/classify", picture).json["latency"])

    puppet.go.clear()
    threads = [threading.Thread(target=ask) for _ in range(2)]
    threads[0].start()
    until(puppet.inside.is_set)
    threads[1].start()
    until(lambda: len(served.service.engine._queue) == 1)  # where it begins to wait
    time.sleep(0.3)
    puppet.go.set()
    for thread in threads:
        thread.join(HANG)
    first, second = sorted(replies, key=lambda one: one["queue_ms"])
    assert first["answer_ms"] - first["queue_ms"] >= 300  # it was in the core
    assert 300 <= second["queue_ms"] < second["answer_ms"]
    for one in replies:  # cycles at the core's clock, as they are simulated
        assert one["ms"] == pytest.approx(1 / puppet.config.clock_mhz) and one["answer_ms"] >= 300


def test_a_drawn_answer(golden):
    reply = golden.ask("POST", "/models/small/classify", png(30, 20), Accept="image/png")
    assert reply.status == 200 and reply.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(reply.body))
    picture.load()
    assert picture.width == 16 + 3 * (448 + 16)  # photo, what is left, attention


def test_metrics(networks, puppet):
    with serving(networks, "sim", lambda: puppet) as served:
        puppet_mhz = puppet.config.clock_mhz
        for _ in range(3):
            served.infer(np.zeros((2, 12, 12, 3), np.uint8))
        served.infer(np.zeros((1, 12, 12, 3), np.uint8), model="none")
        text = served.ask("GET", "/metrics").body.decode()
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["rowvit_images_total", ("model", "small")] == 6
    assert found["rowvit_core_cycles_total", ("model", "small")] == 6 * 1000
    assert found["rowvit_core_seconds_sum", ("model", "small")] == pytest.approx(6e-3 / puppet_mhz)
    assert found["rowvit_requests_total", ("route", "infer"), ("status", "200")] == 3
    assert found["rowvit_requests_total", ("route", "infer"), ("status", "404")] == 1
    assert found[("rowvit_ready",)] == 1 and found[("rowvit_queue_images",)] == 0
    assert found[("process_resident_memory_bytes",)] > 0


def test_rows_are_counted(golden, files):
    def rows(what: str) -> float:
        text = golden.ask("GET", "/metrics").body.decode()
        found = re.search(rf'^rowvit_w2_rows_total{{model="dense",what="{what}"}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    pixels = np.random.default_rng(3).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    with rowvit.open("golden", "tiny") as target:
        target.load(files["dense"])
        (result,) = target([pixels])
    before = rows("fetched"), rows("skipped")
    assert golden.infer(pixels[None], model="dense").status == 200
    assert rows("fetched") - before[0] == result.w2_rows_fetched > 0
    assert rows("skipped") - before[1] == result.w2_rows_total - result.w2_rows_fetched > 0


def test_power(networks, puppet, monkeypatch):
    """Watts of the sensor, and joules: watts by images per second, of the same seconds."""

    class Meter(Instrument):
        def watts(self) -> float:
            return 2.5

    monkeypatch.setattr(service, "open_instrument", lambda kind, wanted: Meter("meter", "the 5 V rail"))
    with serving(networks, "board", lambda: puppet, board="Pynq-Z2") as served:

        def measured():
            served.infer(np.zeros((4, 12, 12, 3), np.uint8))
            return now if (now := served.service.metrics.now()).joules else None

        now = until(measured)
        assert now.watts == 2.5 and now.joules == pytest.approx(2.5 / now.per_second)
        assert "Power: the 5 V rail, idle power included" in served.ask("GET", "/now").body.decode()
        assert "rowvit_watts 2.5" in served.ask("GET", "/metrics").body.decode()


def test_no_power(networks, puppet):
    """A board without a sensor says what to do instead."""
    with serving(networks, "board", lambda: puppet, board="Pynq-Z2") as served:
        assert "no power sensor of Pynq-Z2 is known" in served.ask("GET", "/now").body.decode()
        assert "rowvit_watts NaN" in served.ask("GET", "/metrics").body.decode()


def test_the_log(golden, caplog):
    with caplog.at_level("INFO", "rowvit.serve"):
        golden.infer(np.zeros((2, 12, 12, 3), np.uint8))
        until(lambda: caplog.messages)
        golden.ask("GET", "/nowhere%0Aforged%20line")
        until(lambda: len(caplog.messages) == 2)
    assert caplog.messages[0].startswith("127.0.0.1 POST /v2/models/small/infer 200 ")
    assert caplog.messages[0].endswith("ms model=small images=2 batch=1")
    assert "GET /nowhere%0Aforged%20line 404" in caplog.messages[1] and "\n" not in caplog.messages[1]


# -- the token ------------------------------------------------------------------------------------------


def test_the_token(networks, puppet):
    token = "0123456789abcdef"
    with serving(networks, "sim", lambda: puppet, token=token) as served:
        for path in ("/", "/now", "/v2", "/metrics", "/openapi.json", "/static/page.js", "/?token=wrong"):
            reply = served.ask("GET", path)
            assert reply.status == 401 and "wants its token" in reply.error
        assert served.infer(np.zeros((1, 12, 12, 3), np.uint8)).status == 401
        assert served.ask("GET", "/v2/health/ready").status == 200  # for load balancers
        assert served.ask("GET", "/v2", Authorization=f"Bearer {token}").status == 200
        for wrong in ("0123456789abcdeX", token[:-1], token + "0"):
            assert served.ask("GET", "/v2", Authorization=f"Bearer {wrong}").status == 401
        reply = served.ask("GET", f"/?token={token}")
        assert reply.status == 303 and reply.headers["location"] == "./"
        cookie, *attributes = reply.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=lax"} <= set(attributes) and "Secure" not in attributes
        behind = served.ask("GET", f"/?token={token}", X_Forwarded_Proto="https")  # nginx, which speaks HTTPS
        assert "Secure" in behind.headers["set-cookie"].split("; ")
        assert served.ask("GET", "/", Cookie=cookie).status == 200
