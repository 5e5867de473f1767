# SPDX-License-Identifier: Apache-2.0
"""Lessons over HTTP: what is taught, whose it is, how much and how long, and what is refused."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import jsonschema
import numpy as np
import photos as sets
import pytest
from openapi_spec_validator import validate
from puppet import Puppet, Reply, Served, serving
from typer.testing import CliRunner
from waiting import HANG, until

import rowvit
from rowvit.cli import app
from rowvit.compiler import compile
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.formats.tokens import Tokens
from rowvit.hardware.config import load
from rowvit.images import for_network
from rowvit.measure.accuracy.evaluation import wilson
from rowvit.quant.synthetic import random_package
from rowvit.serve import lessons, service
from rowvit.serve.gate import _Bodies
from rowvit.serve.lessons import LessonLimits
from rowvit.serve.networks import Network, read_networks
from rowvit.serve.refusal import Refusal
from rowvit.serve.service import Limits
from rowvit.targets.golden import Golden
from rowvit.teach.backbone import Kept

SIZE = dict(dim=32, depth=2, heads=2, image_size=12, patch_size=2, hidden=48)
NAMES = list(sets.COLOURS)


def package(seed: int = 0, classes: int = 5, name: str = "small") -> ModelPackage:
    """A network that can be taught: with a head, or answering with its class token."""
    tokens = None if classes else {"rows": "class", "layers": [1]}
    pruning = [{"layer": 0, "keep": 20, "threshold": 0}]
    made = random_package(
        np.random.default_rng(seed), **SIZE, classes=classes, pruning=pruning, tokens=tokens
    )
    made.meta["name"] = name
    if classes:
        made.meta["scales"]["norm"] = 1 / 32
    return made


def networks(*packages: ModelPackage) -> dict[str, Network]:
    found = {one.meta["name"]: Network(one.meta["name"], one) for one in packages or (package(),)}
    for one in found.values():
        one.backbone, one.unteachable = lessons.Backbone.of(one.source), ""
    return found


def golden(*packages: ModelPackage, **options):
    return serving(networks(*packages), "golden", lambda: rowvit.open("golden", "tiny"), **options)


@pytest.fixture
def taught():
    """A server on the integer reference, with one network."""
    with golden() as one:
        yield one


@dataclass
class Pupil:
    """A lesson, asked as one person's browser does."""

    served: Served
    lesson: str = ""

    def __post_init__(self) -> None:
        if not self.lesson:
            reply = self.served.ask("POST", f"/models/{next(iter(self.served.service.networks))}/lessons")
            assert reply.status == 201, reply
            self.lesson = reply.json["lesson"]

    def ask(self, method: str, path: str = "", body: bytes | None = None) -> Reply:
        return self.served.ask(method, f"/lessons/{self.lesson}{path}", body)

    def show(self, label: str, pixels: np.ndarray) -> Reply:
        return self.ask("POST", f"/photos?class={quote(label)}", sets.png(pixels))

    def show_all(self, count: int = 12, seed: int = 0, names: list[str] = NAMES) -> None:
        """Squares of ``count`` photos, class by class, as class folders have them."""
        pictures, labels = sets.labelled(count, seed)
        for number in np.argsort(labels, kind="stable"):
            reply = self.show(names[labels[number]], pictures[number])
            assert reply.status == 201, reply

    def learn(self) -> dict:
        reply = self.ask("POST", "/learn")
        assert reply.status == 200, reply
        return reply.json

    def answer(self, pixels: np.ndarray, query: str = "") -> dict:
        reply = self.served.ask("POST", f"/models/{self.lesson}/classify{query}", sets.png(pixels))
        assert reply.status == 200, reply
        return reply.json

    def download(self, path: Path, query: str = "") -> ModelPackage:
        reply = self.ask("GET", f"/package{query}")
        assert reply.status == 200, reply
        path.write_bytes(reply.body)
        return ModelPackage.load(path)


def class_folders(path: Path, count: int, seed: int = 0) -> Path:
    for number, (pixels, label) in enumerate(zip(*sets.labelled(count, seed), strict=True)):
        place = path / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:03d}.png").write_bytes(sets.png(pixels))
    return path


# -- what is taught -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "units"), [(5, (7, 8)), (0, (7, 8)), (0, (8, 7))])
def test_a_lesson_makes_what_the_command_makes(tmp_path, monkeypatch, classes, units):
    """The same head and the same findings as `rowvit teach` of the same photos, each seen once; the answers
    are those of `rowvit run` on the downloaded package.
    """
    monkeypatch.setattr("rowvit.teach.backbone._COARSER", units)  # the first is taken, until photos say more
    base = package(classes=classes)
    base.save(tmp_path / "base.safetensors")
    command = [
        "teach",
        str(class_folders(tmp_path / "photos", 15)),
        "--views",
        "1",
        "--keep",
        "--config",
        "tiny",
    ]
    command += ["--from", str(tmp_path / "base.safetensors"), "-o", str(tmp_path / "command.safetensors")]
    result = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "found.json")])
    assert result.exit_code == 0, result.output
    expected = ModelPackage.load(tmp_path / "command.safetensors")
    unit = lessons.Backbone.of(base).unit
    assert (expected.meta["scales"]["norm"] != pytest.approx(unit)) == (units == (8, 7))
    with golden(base) as served:
        pupil = Pupil(served)
        pupil.show_all(15)
        found = pupil.learn()
        own = pupil.download(tmp_path / "own.safetensors", "?name=mine")
        plain = pupil.download(tmp_path / "plain.safetensors", "?keep=false")
        picture = sets.labelled(4, 9)[0][3]
        answer = pupil.answer(picture)
    assert own.meta["name"] == "mine" and own.meta["classes"] == NAMES
    assert own.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        np.testing.assert_array_equal(own.tensors[name], tensor, err_msg=name)
    assert plain.meta["taught"] == {} and plain.meta["classes"] == NAMES
    said = json.loads((tmp_path / "found.json").read_text())
    assert found["classes"] == [{"label": name, "photos": 5} for name in NAMES]
    assert (found["learned"]["photos"], found["learned"]["right"]) == (15, said["right"])
    assert found["learned"]["solver"] == said["solver"]
    (tmp_path / "new.png").write_bytes(sets.png(picture))
    command = ["run", str(tmp_path / "plain.safetensors"), str(tmp_path / "new.png"), "--target", "golden"]
    result = CliRunner().invoke(app, [*command, "--config", "tiny", "--json", str(tmp_path / "run.json")])
    assert result.exit_code == 0, result.output
    (one,) = json.loads((tmp_path / "run.json").read_text())["images"]
    assert answer["label"] == one["label"]
    with rowvit.open("golden", "tiny") as target:
        target.load(own)
        (exact,) = target([for_network(sets.png(picture), own.meta)])
    assert answer["logits"] == exact.logits.tolist()
    assert [entry["label"] for entry in answer["classes"]] == [NAMES[i] for i in np.argsort(-exact.logits)]


def test_on_the_simulated_core(tmp_path):
    """Features, and answers of two taught networks and of the served one by turns, are the reference's."""
    with serving(networks(), "sim", lambda: rowvit.open("sim", "tiny", check_every=2)) as served:
        pupils = [Pupil(served), Pupil(served)]
        for number, pupil in enumerate(pupils):
            pupil.show_all(9, number)
            pupil.learn()
        kept = pupils[0].download(tmp_path / "sim.safetensors")
        pictures = sets.labelled(6, 30)[0]
        answers = [[pupil.answer(picture, "?explain=true") for pupil in pupils] for picture in pictures[:3]]
        plain = served.ask("POST", "/models/small/classify", sets.png(pictures[0])).json
        other = pupils[1].download(tmp_path / "other.safetensors")
    with golden() as reference:
        pupil = Pupil(reference)
        pupil.show_all(9, 0)
        pupil.learn()
        again = pupil.download(tmp_path / "golden.safetensors")
        expected = reference.ask("POST", "/models/small/classify", sets.png(pictures[0])).json
    for name, tensor in again.tensors.items():
        np.testing.assert_array_equal(kept.tensors[name], tensor, err_msg=name)
    assert plain["logits"] == expected["logits"]
    for taught, column in ((kept, 0), (other, 1)):
        with rowvit.open("golden", "tiny") as target:
            target.load(taught)
            results = target([for_network(sets.png(picture), taught.meta) for picture in pictures[:3]])
        for answer, result in zip([row[column] for row in answers], results, strict=True):
            assert answer["logits"] == result.logits.tolist() and answer["bit_exact"]
            assert answer["tokens"]["pruned"][0]["kept"] == result.kept[0].tolist()
            assert answer["distance"] == result.distance and answer["verdict"] == result.verdict
    assert "distance" not in plain


def test_something_else(taught):
    """A photo like no class says so, in words, too."""
    pupil = Pupil(taught)
    pupil.show_all(24)
    pupil.learn()
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    answer = pupil.answer(noise)
    assert answer["distance"] > 1 and answer["verdict"] == f"unlike all, nearest {answer['label']}"
    own = pupil.answer(sets.picture(np.random.default_rng(78), sets.COLOURS["blue"]))
    assert own["distance"] <= 1 and own["verdict"] == own["label"] == "blue"


@pytest.mark.parametrize("kind", ["acquainted", "tokens"])
def test_the_network_itself_answers_as_ever(tmp_path, kind):
    """One that can be taught says, too, that a photo is like none of its classes, and its own tokens."""
    if kind == "tokens":
        answers = {"rows": "all", "layers": [0, 1]}
        made = random_package(np.random.default_rng(3), **SIZE, classes=3, tokens=answers)
        made.meta["scales"]["norm"] = 1 / 32
    else:
        plain, path = package(classes=3), tmp_path / "acquainted.safetensors"
        plain.meta["classes"] = NAMES
        plain.save(tmp_path / "plain.safetensors")
        command = ["teach", str(class_folders(tmp_path / "photos", 24)), "--same-head", "-o", str(path)]
        done = CliRunner().invoke(app, [*command, "--from", str(tmp_path / "plain.safetensors")])
        assert done.exit_code == 0, done.output
        made = ModelPackage.load(path)
    made.meta["name"] = "small"
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    made.save(tmp_path / "small.safetensors")
    there = read_networks([str(tmp_path / "small.safetensors")])
    with serving(there, "golden", lambda: rowvit.open("golden", "tiny")) as served:
        pupil = Pupil(served)
        pupil.show_all(12)
        assert pupil.learn()["learned"]["photos"] == 12
        found = served.ask("POST", "/models/small/classify", sets.png(noise)).json
    with rowvit.open("golden", "tiny") as target:
        target.load(made)
        (result,) = target([for_network(sets.png(noise), made.meta)])
    assert found["logits"] == result.logits.tolist()
    assert found.get("distance") == result.distance and found.get("verdict", result.label) == result.verdict
    assert (result.distance is not None) == (kind == "acquainted")


def test_tokens_that_lessons_do_not_see(tmp_path):
    """A network that answers with others does so, and is not taught."""
    answers = {"rows": "all", "layers": [0]}
    made = random_package(np.random.default_rng(3), **SIZE, classes=5, tokens=answers, name="other")
    made.meta["scales"]["norm"] = 1 / 32
    made.save(tmp_path / "other.safetensors")
    found = read_networks([str(tmp_path / "other.safetensors")])["other"]
    assert found.backbone is None and "other tokens than lessons see" in found.unteachable
    assert found.runs is found.source


def test_the_hls_front_end(tmp_path):
    """Sees whole pictures, in lessons, too."""
    with serving(networks(), "golden", lambda: rowvit.open("golden", "tiny", frontend="hls")) as served:
        pupil = Pupil(served)
        pupil.show_all(12)
        assert pupil.learn()["learned"]["photos"] == 12
        wide = np.concatenate([sets.labelled(1, 9, 40)[0][0]] * 2, axis=1)
        answer = pupil.answer(wide)
        own = pupil.download(tmp_path / "own.safetensors")
    with rowvit.open("golden", "tiny", frontend="hls") as target:
        target.load(own)
        (tmp_path / "wide.png").write_bytes(sets.png(wide))
        (result,) = target([tmp_path / "wide.png"])
    assert answer["logits"] == result.logits.tolist() and answer["label"] == NAMES[0]


def test_findings(taught):
    """A photo in the wrong class is named by its number, and so are the two classes that are confused."""
    pupil = Pupil(taught)
    pupil.show_all(24)
    blue = sets.picture(np.random.default_rng(77), sets.COLOURS["blue"])
    wrong = pupil.show("red", blue).json["photo"]
    found = pupil.learn()["learned"]
    assert (found["photos"], found["right"]) == (25, 24)
    judged = {"photo": wrong, "label": "red", "guess": "blue"}
    assert found["confused"]["labels"] == ["blue", "red"] and found["confused"]["count"] == 1
    for photos in (found["confused"]["photos"], found["doubtful"]):
        assert [{key: one[key] for key in judged} for one in photos] == [judged]
    assert found["weakest"] == "red"
    pupil.ask("DELETE", f"/photos/{wrong}")
    found = pupil.learn()["learned"]
    assert found["right"] == found["photos"] == 24 and found["confused"] is found["weakest"] is None


def test_recordings(taught, tmp_path):
    """Photos that were taken together are judged together, also in a lesson that goes on from them."""
    pupil = Pupil(taught)
    pictures, labels = sets.labelled(18, 0)
    for number, (pixels, label) in enumerate(zip(pictures, labels, strict=True)):
        query = f"?class={NAMES[label]}&recording=held-{label}-{number // 9}"
        assert pupil.ask("POST", f"/photos{query}", sets.png(pixels)).status == 201
    found = pupil.learn()["learned"]
    assert (found["photos"], found["recordings"]) == (18, 6)
    assert found["interval"] == pytest.approx(wilson(6 * found["right"] / 18, 6), abs=0.02)
    made = pupil.download(tmp_path / "made.safetensors")
    assert np.bincount(made.tensors["taught.recordings"]).tolist() == [3] * 6
    reply = taught.ask("POST", "/models/small/lessons", (tmp_path / "made.safetensors").read_bytes())
    again = Pupil(taught, reply.json["lesson"])
    assert again.learn()["learned"]["recordings"] == 6
    again.show("blue", sets.labelled(1, 40)[0][0])
    assert again.learn()["learned"]["recordings"] == 7
    once = Pupil(taught)
    for pixels, label in zip(pictures, labels, strict=True):
        once.ask("POST", f"/photos?class={NAMES[label]}&recording={label}", sets.png(pixels))
    document = once.learn()
    assert document["learned"]["recordings"] == 3 and document["learned"]["interval"] is None
    assert document["learning"] is False


@pytest.mark.parametrize(
    "name", ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0915\u094d\u200d\u0937"]
)
def test_names_with_joiners(taught, name):
    pupil = Pupil(taught)
    assert pupil.show(name, sets.labelled(1, 0)[0][0]).json["label"] == name


def test_classes_are_renamed_and_removed(taught):
    pupil = Pupil(taught)
    pupil.show_all(12)
    reply = pupil.ask("PATCH", "/photos?class=red&name=very%20%20red")
    assert {one["label"]: one["photos"] for one in reply.json["classes"]} == {
        "blue": 4,
        "green": 4,
        "very red": 4,
    }
    reply = pupil.ask("DELETE", "/photos?class=green")
    assert [one["label"] for one in reply.json["classes"]] == ["blue", "very red"]
    assert pupil.learn()["learned"]["photos"] == 8
    number = pupil.show("blue", sets.labelled(1, 3)[0][0]).json["photo"]
    assert number == 12  # numbers are not used again
    assert pupil.answer(sets.labelled(3, 8)[0][2])["label"] == "very red"


# -- going on from a package --------------------------------------------------------------------------


def test_a_lesson_goes_on(taught, tmp_path):
    """What it downloads, and what the command has kept, are lessons again; more photos join them."""
    first = Pupil(taught)
    first.show_all(12, names=["blue", "green", "green"])  # two classes
    first.learn()
    made = first.download(tmp_path / "first.safetensors")
    reply = taught.ask("POST", "/models/small/lessons", (tmp_path / "first.safetensors").read_bytes())
    assert reply.status == 201
    assert reply.json["classes"] == [{"label": "blue", "photos": 4}, {"label": "green", "photos": 8}]
    second = Pupil(taught, reply.json["lesson"])
    assert second.learn()["learned"]["photos"] == 12
    same = second.download(tmp_path / "same.safetensors")
    for name, tensor in made.tensors.items():
        np.testing.assert_array_equal(same.tensors[name], tensor, err_msg=name)
    second.show_all(9, 5, ["blue", "green", "red"])
    found = second.learn()["learned"]
    assert [one["photos"] for one in found["classes"]] == [7, 11, 3]
    folder = class_folders(tmp_path / "more", 9, 3)
    second.download(tmp_path / "second.safetensors")
    command = ["teach", str(folder), "--from", str(tmp_path / "second.safetensors"), "--add", "--views", "1"]
    command += ["-o", str(tmp_path / "third.safetensors"), "--config", "tiny"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    reply = taught.ask("POST", "/models/small/lessons", (tmp_path / "third.safetensors").read_bytes())
    assert [one["photos"] for one in reply.json["classes"]] == [10, 14, 6]


def test_packages_that_no_lesson_goes_on_from(taught):
    pupil = Pupil(taught)
    pupil.show_all(9)
    pupil.learn()
    plain = pupil.ask("GET", "/package?keep=false").body
    whole = pupil.ask("GET", "/package?name=mine").body
    with golden(package(seed=1, name="other")) as elsewhere:
        reply = elsewhere.ask("POST", "/models/other/lessons", whole)
        assert reply.status == 400 and reply.error.startswith(
            "'mine' was not taught from 'other', or from another"
        )
        limits = Limits(deadline=HANG, lessons=LessonLimits(photos=8))
    with golden(limits=limits) as small:
        reply = small.ask("POST", "/models/small/lessons", whole)
        assert reply.status == 413 and "the package has 9 photos, and a lesson takes 8" in reply.error
    for body, says in (
        (plain, "has kept nothing of the photos that it was taught with; teach it with --keep"),
        (whole[:-5], "package: truncated, tensor"),
        (whole[:300] + b"!" + whole[301:], "package:"),
        (b"no package", "package: not a safetensors file"),
        (b"\0" * 100, "package: not a"),
    ):
        reply = taught.ask("POST", "/models/small/lessons", body)
        assert reply.status == 400 and says in reply.error, reply
    assert taught.ask("GET", "/v2/health/ready").status == 200


def test_a_package_may_be_larger_than_a_picture():
    """As large as what may have been taught here, and no larger."""
    limits = Limits(deadline=HANG, body=2_000, bodies=4_000)
    with golden(limits=limits) as served:
        pupil = Pupil(served)
        pupil.show_all(9)
        pupil.learn()
        whole = pupil.ask("GET", "/package").body
        assert len(whole) > limits.bodies
        assert served.ask("POST", "/models/small/lessons", whole).status == 201
        reply = served.ask("POST", "/models/small/lessons", bytes(8 << 20))
        assert reply.status == 413 and "the request is larger than" in reply.error
        assert served.ask("POST", f"/lessons/{pupil.lesson}/photos?class=a", whole).status == 413
        assert served.ask("POST", "/models/small/classify", whole).status == 413


# -- whose it is --------------------------------------------------------------------------------------


def test_users_do_not_mix(taught):
    """Four at once teach opposite things; nothing names another's lesson."""
    turned = [NAMES[(number + 1) % 3] for number in range(3)]
    pictures, labels = sets.labelled(6, 40)
    wrong, found = [], []

    def attend(names: list[str]) -> None:
        pupil = Pupil(taught)
        pupil.show_all(9, names=names)
        pupil.learn()
        found.append(pupil.lesson)
        for picture, label in zip(pictures, labels, strict=True):
            if (said := pupil.answer(picture)["label"]) != names[label]:
                wrong.append((names, said))

    threads = [threading.Thread(target=attend, args=(names,)) for names in [NAMES, turned] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert len({*found}) == 4 and not wrong
    assert all(re.fullmatch(r"lesson-[\w-]{22}", one) for one in found)
    for path in ("/", "/now", "/metrics", "/v2", "/v2/models/small", "/openapi.json"):
        text = taught.ask("GET", path).body.decode()
        assert not any(one in text for one in found), path
    said = taught.infer(np.zeros((1, 12, 12, 3), np.uint8), model="lesson-" + "a" * 22)
    assert said.status == 404 and "there is no such lesson, or it was idle for 30 minutes" in said.error
    said = taught.infer(np.zeros((1, 12, 12, 3), np.uint8), model="none")
    assert said.error == "no model 'none' is served here; use small"


def test_a_name_is_one_however_it_is_typed(taught):
    pupil, pictures = Pupil(taught), sets.labelled(2, 0)[0]
    for name, pixels in zip(
        ("Caf\N{LATIN SMALL LETTER E WITH ACUTE}", "Cafe\N{COMBINING ACUTE ACCENT}"), pictures, strict=True
    ):
        assert pupil.show(name, pixels).status == 201
    assert [one["photos"] for one in pupil.ask("GET").json["classes"]] == [2]


def test_a_taught_network_is_a_model(taught, caplog):
    """Of the inference protocol, too; its images are counted, without the lesson."""
    pupil = Pupil(taught)
    pupil.show_all(9)
    assert taught.ask("GET", f"/v2/models/{pupil.lesson}").status == 409
    pupil.learn()
    outputs = {
        one["name"]: one["shape"] for one in taught.ask("GET", f"/v2/models/{pupil.lesson}").json["outputs"]
    }
    assert outputs["probabilities"] == [-1, 3]
    for path in ("", "/ready", "/config"):
        assert taught.ask("GET", f"/v2/models/{pupil.lesson}{path}").json["name"] == pupil.lesson
    reply = taught.ask("GET", f"/v2/models/{pupil.lesson}/stats")
    assert reply.status == 404 and "a lesson has no statistics of its own" in reply.error
    pixels = np.stack([for_network(sets.png(one), package().meta) for one in sets.labelled(3, 11)[0]])
    with caplog.at_level("INFO", "rowvit.serve"):
        reply = taught.infer(pixels, model=pupil.lesson)
        until(lambda: "images=3" in caplog.text)
    assert pupil.lesson not in caplog.text and reply.json["model_name"] == pupil.lesson
    assert {one["name"]: one["data"] for one in reply.json["outputs"]}["label"] == NAMES
    assert 'rowvit_images_total{model="small, taught"} 3.0' in taught.ask("GET", "/metrics").body.decode()


def test_the_token(puppet):
    """Lessons want it, all of their routes."""
    with serving(networks(), "sim", lambda: puppet, token="0123456789abcdef") as served:
        for method, path in (
            *(("POST", "/models/small/lessons"), ("GET", "/lessons/x"), ("DELETE", "/lessons/x")),
            *((method, "/lessons/x/photos?class=a") for method in ("POST", "PATCH", "DELETE")),
            *(("DELETE", "/lessons/x/photos/1"), ("POST", "/lessons/x/learn"), ("GET", "/lessons/x/package")),
        ):
            reply = served.ask(method, path)
            assert reply.status == 401 and "wants its token" in reply.error
        reply = served.ask("POST", "/models/small/lessons", Authorization="Bearer 0123456789abcdef")
        assert reply.status == 201


# -- how much, and how long -----------------------------------------------------------------------------


def test_who_does_not_take_a_package(monkeypatch):
    """Is left after the deadline, and its connection gives way to others."""
    monkeypatch.setattr(ModelPackage, "encode", lambda self, name: bytes(8 << 20))
    limits = Limits(deadline=HANG, connections=2)
    with golden(limits=limits) as served, ExitStack() as stack:
        pupil = Pupil(served)
        pupil.show_all(9)
        pupil.learn()
        object.__setattr__(limits, "deadline", 1.0)
        for _ in range(2):
            stuck = stack.enter_context(socket.socket())
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.bind(("127.0.0.2", 0))
            stuck.connect(("127.0.0.1", served.port))
            stuck.sendall(f"GET /lessons/{pupil.lesson}/package HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        until(lambda: served.service.open_requests == 2)
        until(lambda: served.service.open_requests == 0)
        assert served.ask("GET", "/v2").status == 200
        assert len(pupil.ask("GET", "/package").body) == 8 << 20


def test_a_package_is_larger_than_a_request_may_be(caplog):
    """It is sent as a whole all the same, and by one request after the other."""
    with golden(limits=Limits(body=2_000, bodies=4_000, deadline=HANG)) as served:
        pupil = Pupil(served)
        pupil.show_all(9)
        pupil.learn()
        for _ in range(2):
            reply = pupil.ask("GET", "/package")
            assert reply.status == 200 and len(reply.body) > 4_000
            assert ModelPackage.decode(reply.body).meta["classes"] == NAMES
    assert not any(record.exc_info for record in caplog.records)


def test_limits():
    square = sets.labelled(1, 0)[0][0]
    room = 6 * (32 + lessons._OVERHEAD)
    own = LessonLimits(lessons=2, classes=2, photos=4, size=room)
    with golden(limits=Limits(deadline=HANG, lessons=own)) as served:
        pupil, other = Pupil(served), Pupil(served)
        full = served.ask("POST", "/models/small/lessons")
        assert full.status == 503 and full.error == "2 lessons go on here already; try again later"
        assert 1700 < int(full.headers["retry-after"]) <= 1800
        for label in "aab":
            assert pupil.show(label, square).status == 201
        reply = pupil.show("c", square)
        assert (
            reply.status == 413 and "the lesson has 2 classes, as many as it may; remove one" in reply.error
        )
        assert pupil.show("a", square).status == 201
        reply = pupil.show("a", square)
        assert (
            reply.status == 413 and "the lesson has 4 photos, as many as it may; remove some" in reply.error
        )
        assert [other.show("a", square).status for _ in range(2)] == [201, 201]
        reply = other.show("b", square)
        assert reply.status == 503 and "the lessons here take all of their 0 MB" in reply.error
        assert pupil.ask("DELETE", "/photos/0").status == 200
        assert other.show("b", square).status == 201
        assert other.ask("DELETE").status == 204
        assert other.ask("GET").status == 404
        assert served.ask("POST", "/models/small/lessons").status == 201


def test_one_address_does_not_take_all_places():
    """Lessons without photos give way after a while, and then those of who has begun the most."""
    now = [0.0]
    own = LessonLimits(lessons=4)
    square = sets.labelled(1, 0)[0][0]
    with golden(limits=Limits(deadline=HANG, lessons=own), clock=lambda: now[0]) as served:
        kept, network = served.service.lessons, served.service.networks["small"]
        first = Pupil(served)
        assert first.show("a", square).status == 201
        empty = [kept.open(network) for _ in range(3)]
        with pytest.raises(Refusal, match="4 lessons go on here already"):
            kept.open(network)
        now[0] = 11.0
        many = [kept.open(network, owner="many") for _ in range(3)]
        assert not any(one.identifier in kept._lessons for one in empty)
        for one in many:
            one.photos[0] = kept._lessons[first.lesson].photos[0]
        with pytest.raises(Refusal, match="4 lessons go on here already"):
            kept.open(network, owner="many")
        now[0] = 12.0
        kept.find(many[0].identifier)
        guest = kept.open(network, owner="guest")
        assert [one.identifier in kept._lessons for one in many] == [True, False, True]
        guest.photos[0] = many[0].photos[0]
        two = kept.open(network, owner="two")
        two.photos[0] = many[0].photos[0]
        with pytest.raises(Refusal, match="4 lessons go on here already"):
            kept.open(network, owner="three")
        assert first.ask("GET").status == 200


def test_photos_on_their_way_count(puppet):
    """What is asked for at once has room together, or is refused."""
    with serving(
        networks(), "sim", lambda: puppet, Limits(deadline=HANG, lessons=LessonLimits(photos=2, classes=1))
    ) as served:
        pupil, replies = Pupil(served), []
        puppet.go.clear()
        square = sets.labelled(1, 0)[0][0]
        threads = [threading.Thread(target=lambda: replies.append(pupil.show("a", square))) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: served.service.engine.held == 2)
        assert "1 classes, as many as it may" not in pupil.show("a", square).error
        assert pupil.show("a", square).status == pupil.show("b", square).status == 413
        puppet.go.set()
        for thread in threads:
            thread.join(HANG)


def test_idle_lessons_are_gone():
    """Asking for one, or classifying by it, keeps it; time alone lets it go, with the room that it had."""
    now = [0.0]
    own = LessonLimits(lessons=2, idle=100.0)
    with golden(limits=Limits(deadline=HANG, lessons=own), clock=lambda: now[0]) as served:
        pupil, other = Pupil(served), Pupil(served)
        assert other.show("a", sets.labelled(1, 0)[0][0]).status == 201
        pupil.show_all(9)
        pupil.learn()
        now[0] = 99.0
        pupil.answer(sets.labelled(1, 3)[0][0])
        assert served.ask("POST", "/models/small/lessons").status == 503
        now[0] = 100.0
        assert served.ask("POST", "/models/small/lessons").status == 201  # the other one's place
        assert "was idle for 1.66667 minutes and is gone; begin another" in other.ask("GET").error
        assert pupil.ask("GET").json["expires"] == 100.0
        now[0] = 300.0
        for reply in (pupil.ask("GET"), pupil.ask("POST", "/learn"), pupil.ask("GET", "/package")):
            assert reply.status == 404 and "there is no such lesson" in reply.error
        assert served.ask("POST", f"/models/{pupil.lesson}/classify", b"").status == 404
        assert not served.service.lessons._lessons


def test_idle_lessons_go_though_nobody_asks(monkeypatch):
    """What they have seen does not wait in memory for the next visitor."""
    monkeypatch.setattr(service, "_SWEEP", 0.01)
    now = [0.0]
    limits = Limits(deadline=HANG, lessons=LessonLimits(idle=100.0))
    with golden(limits=limits, clock=lambda: now[0]) as served:
        Pupil(served).show_all(9)
        assert served.service.lessons._lessons
        now[0] = 100.0
        until(lambda: not served.service.lessons._lessons)


def test_what_was_learned_takes_room():
    """As what was shown does, also of a package; there, more classes than a lesson may have are refused."""
    each = 32 + lessons._OVERHEAD
    with golden() as served:
        pupil = Pupil(served)
        pupil.show_all(9)
        lesson = served.service.lessons._lessons[pupil.lesson]
        assert lesson.size == 9 * each
        pupil.learn()
        assert lesson.size == 9 * each + 9 * 32
        whole = pupil.ask("GET", "/package").body
    for own, status, says in (
        (LessonLimits(size=9 * each - 1), 503, "the lessons here take all of their"),
        (LessonLimits(classes=2), 413, "the package has 3 classes, and a lesson takes 2"),
        (LessonLimits(size=9 * each, classes=3), 201, None),
    ):
        with golden(limits=Limits(deadline=HANG, lessons=own)) as small:
            reply = small.ask("POST", "/models/small/lessons", whole)
            assert reply.status == status and (says is None or says in reply.error), reply


def test_few_photos_of_a_finding_are_listed(taught, monkeypatch):
    monkeypatch.setattr(lessons, "_LISTED", 2)
    pupil = Pupil(taught)
    pupil.show_all(30)
    for seed in range(4):
        pupil.show("red", sets.picture(np.random.default_rng(seed), sets.COLOURS["blue"]))
    found = pupil.learn()["learned"]
    assert found["confused"]["count"] == 4 and len(found["confused"]["photos"]) == 2


def test_a_lesson_that_is_forgotten_while_it_is_shown_a_photo(puppet):
    with serving(networks(), "sim", lambda: puppet) as served:
        pupil, replies = Pupil(served), []
        puppet.go.clear()
        thread = threading.Thread(target=lambda: replies.append(pupil.show("a", sets.labelled(1, 0)[0][0])))
        thread.start()
        until(puppet.inside.is_set)
        assert pupil.ask("DELETE").status == 204
        puppet.go.set()
        thread.join(HANG)
        assert replies[0].status == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", "/models/none/lessons", b"", 404, "no model 'none' is served here; use small"),
        ("GET", "/models/small/lessons", b"", 405, "does not take GET"),
        ("GET", "/lessons/lesson-none", b"", 404, "there is no such lesson"),
        ("POST", "{}/photos", b"x", 400, "the class has no name that can be used; give it 1 to 255"),
        ("POST", "{}/photos?class=%20%09", b"x", 400, "the class has no name"),
        ("POST", "{}/photos?class=" + "a" * 256, b"x", 400, "the class has no name"),
        ("POST", "{}/photos?class=a%00b", b"x", 400, "the class has no name"),
        ("POST", "{}/photos?class=a", b"", 400, "the request holds no picture"),
        ("POST", "{}/photos?class=a", b"no picture", 415, "the file is no picture"),
        ("POST", "{}/photos?class=a&timeout=0", b"x", 400, "timeout is '0'"),
        ("DELETE", "{}/photos?class=none", b"", 404, "the lesson has no photos of 'none'"),
        ("PATCH", "{}/photos?class=none&name=a", b"", 404, "the lesson has no photos of 'none'"),
        ("PATCH", "{}/photos?class=none", b"", 400, "the class has no name"),
        ("DELETE", "{}/photos/0", b"", 404, "the lesson has no photo 0"),
        ("DELETE", "{}/photos/" + "9" * 5000, b"", 404, "the lesson has no photo"),
        ("DELETE", "{}/photos/-1", b"", 404, "the lesson has no photo -1"),
        ("DELETE", "{}/photos/0000000000", b"", 404, "the lesson has no photo"),
        (
            "POST",
            "{}/learn",
            b"",
            409,
            "the lesson has no photos, and it takes two classes or more; add photos",
        ),
        ("GET", "{}/package", b"", 409, "the lesson has not learned yet; let it learn first"),
        ("GET", "{}/package?keep=maybe", b"", 400, "keep is 'maybe'; use true or false"),
        ("POST", "/models/{}/classify", b"x", 409, "the lesson has not learned yet"),
        ("POST", "/models/{}/lessons", b"", 404, "no model 'lesson-"),
        ("GET", "/examples/{}/0", b"", 404, "no model 'lesson-"),
    ],
)
def test_what_is_refused(taught, method, path, body, status, says):
    own = Pupil(taught).lesson
    address = path.format(own if path.startswith("/") else f"/lessons/{own}")
    reply = taught.ask(method, address, body)
    assert reply.status == status and says in reply.error, reply


def test_too_little_to_learn_from(taught):
    pupil = Pupil(taught)
    square = sets.labelled(1, 0)[0][0]
    for label in "aaab":
        pupil.show(label, square)
    reply = pupil.ask("POST", "/learn")
    assert reply.status == 409 and reply.error.startswith("fewer than 3 photos of b (1); add some")
    pupil.ask("DELETE", "/photos?class=b")
    assert "the lesson has one class (a), and it takes two classes" in pupil.ask("POST", "/learn").error


def test_networks_that_are_not_taught(tmp_path, files):
    """By a sentence that says why, on the page, too."""
    compile(package(), load("tiny")).save(tmp_path / "program.safetensors")
    there = read_networks([str(files["small"]), f"program={tmp_path / 'program.safetensors'}"])
    with serving(there, "sim", Puppet) as served:
        for name, says in (
            ("small", "small cannot be taught: 'small' does not say the unit of its tokens; quantise it"),
            ("program", "program cannot be taught: 'program' is a compiled program"),
        ):
            reply = served.ask("POST", f"/models/{name}/lessons")
            assert reply.status == 409 and says in reply.error
    package().save(tmp_path / "p.safetensors")
    off = read_networks([str(tmp_path / "p.safetensors")], teach=False)
    assert off["small"].runs is off["small"].source
    with serving(off, "sim", Puppet) as served:
        reply = served.ask("POST", "/models/small/lessons")
        assert reply.status == 409 and "start it without --no-teach" in reply.error


def test_a_network_that_fits_only_as_it_is(monkeypatch):
    """Is served all the same, and not taught."""
    (network,) = networks().values()
    real = compile

    def tight(made, *arguments, **options):
        if "tokens" in made.meta:
            raise RowvitError("no room for tokens")
        return real(made, *arguments, **options)

    monkeypatch.setattr("rowvit.compiler.cache.compile", tight)
    with serving({"small": network}, "sim", Puppet) as served:
        assert served.infer(np.zeros((1, 12, 12, 3), np.uint8)).status == 200
        assert (
            "small cannot be taught: no room for tokens" in served.ask("POST", "/models/small/lessons").error
        )


def test_a_network_that_is_larger_than_the_configuration():
    """On the integer reference it runs all the same, without cycles; it is still taught after an answer."""
    large = package()
    small = replace(load("tiny"), max_tokens=16)
    with serving(networks(large), "golden", lambda: rowvit.open("golden", small)) as served:
        square = sets.png(sets.labelled(1, 0)[0][0])
        for _ in range(2):
            reply = served.ask("POST", "/models/small/classify?explain=1", square)
            assert reply.status == 200, reply
        assert served.ask("POST", "/", _form(square), **_FORM).status == 200
        pupil = Pupil(served)
        pupil.show_all()
        assert pupil.learn()["learned"]["photos"] == 12


_FORM = {"Content_Type": "multipart/form-data; boundary=x", "X_Part": "1", "Accept": "text/html"}


def _form(picture: bytes, model: str = "small") -> bytes:
    """What the page asks."""
    head = b"--x\r\nContent-Disposition: form-data; name="
    fields = head + b'"model"\r\n\r\n' + model.encode() + b"\r\n"
    photo = head + b'"photo"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n' + picture
    return fields + photo + b"\r\n--x--\r\n"


def test_a_network_without_classes_on_the_page():
    with golden(package(classes=0)) as served:
        reply = served.ask("POST", "/", _form(sets.png(sets.labelled(1, 0)[0][0])), **_FORM)
        assert reply.status == 200 and "no classes" in reply.body.decode(), reply


# -- many at once ---------------------------------------------------------------------------------------


class Tokens32(Puppet):
    """A puppet that also answers with a token: the colour of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: str = ""  # name of a network that cannot be loaded

    def load(self, model) -> None:
        super().load(model)
        if self.fails and self.fails in self.loads[-1]:
            raise RowvitError("no room for the program")

    def tokens(self, image):
        token = np.resize(image.mean(axis=(0, 1)) * 100, 32).astype(np.int16)[None]
        return {1: Tokens(token, np.zeros(1, np.int64))}


@pytest.fixture
def held(monkeypatch):
    """Learning waits for an event."""
    go, inside = threading.Event(), threading.Event()

    def wait(*arguments):
        inside.set()
        assert go.wait(HANG)
        return lessons.learned(*arguments)

    monkeypatch.setattr(service, "learned", wait)
    yield go, inside
    go.set()


def test_others_are_answered_while_one_learns(taught, held):
    go, inside = held
    pupil, replies = Pupil(taught), []
    pupil.show_all(9)
    thread = threading.Thread(target=lambda: replies.append(pupil.ask("POST", "/learn")))
    thread.start()
    until(inside.is_set)
    assert taught.ask("POST", "/models/small/classify", sets.png(sets.labelled(1, 0)[0][0])).status == 200
    other = Pupil(taught)
    other.show_all(9)
    late = pupil.show("late", sets.labelled(1, 4)[0][0])  # not of what is being learned
    assert late.status == 201 and not replies
    go.set()
    thread.join(HANG)
    assert replies[0].status == 200 and replies[0].json["learned"]["photos"] == 9
    assert replies[0].json["photos"] == 10
    assert other.learn()["learned"]["photos"] == 9


def test_learning_that_takes_longer_than_its_request(taught, held):
    go, _ = held
    pupil = Pupil(taught)
    pupil.show_all(9)
    reply = pupil.ask("POST", "/learn?timeout=0.2")
    assert (
        reply.status == 504
        and "has not learned by the request's deadline, and goes on; ask for it" in reply.error
    )
    assert pupil.ask("GET").json["learned"] is None
    go.set()
    until(lambda: pupil.ask("GET").json["learned"])
    assert pupil.answer(sets.labelled(1, 3)[0][0])["label"] == NAMES[0]


def test_learning_in_turn(taught, held):
    """While one of a lesson runs, the next takes the photos that there are then, for all that ask for it."""
    go, inside = held
    pupil, replies = Pupil(taught), []
    pupil.show_all(9)

    def learn() -> None:
        replies.append(pupil.ask("POST", "/learn"))

    threads = [threading.Thread(target=learn) for _ in range(6)]
    for number, thread in enumerate(threads):
        thread.start()
        if number == 0:
            until(inside.is_set)
        assert pupil.show("red", sets.labelled(3, 60 + number)[0][2]).status == 201
    until(lambda: next(iter(taught.service._learning)).learning == 2)
    go.set()
    for thread in threads:
        thread.join(HANG)
    assert [reply.status for reply in replies] == [200] * 6
    assert sorted(reply.json["learned"]["photos"] for reply in replies) == [9] + [15] * 5
    assert not taught.service._learning and pupil.learn()["learned"]["photos"] == 15


def test_more_lessons_than_may_learn(taught, held):
    """One that asks often is one of four; the fifth is sent away."""
    go, _ = held
    pupils, threads = [Pupil(taught) for _ in range(5)], []
    for pupil in pupils:
        pupil.show_all(9)
    for number, pupil in enumerate(pupils[:4]):
        for _ in range(3):
            threads.append(threading.Thread(target=pupil.ask, args=("POST", "/learn")))
            threads[-1].start()
        until(lambda n=number: len(taught.service._learning) == n + 1)
    reply = pupils[4].ask("POST", "/learn")
    assert reply.status == 429 and reply.headers["retry-after"] == "1" and "4 lessons wait" in reply.error
    for _ in range(5):
        threads.append(threading.Thread(target=pupils[3].ask, args=("POST", "/learn")))
        threads[-1].start()
    until(lambda: taught.service.lessons.find(pupils[3].lesson).awaited == 8)
    assert "8 requests wait for this lesson to learn" in pupils[3].ask("POST", "/learn").error
    other = http.client.HTTPConnection("127.0.0.1", taught.port, HANG, source_address=("127.0.0.2", 0))
    other.request("POST", f"/lessons/{pupils[4].lesson}/learn")  # an address of which none waits
    until(lambda: len(taught.service._learning) == 5)
    go.set()
    assert other.getresponse().status == 200
    other.close()
    for thread in threads:
        thread.join(HANG)
    assert all(pupil.ask("GET").json["learned"]["photos"] == 9 for pupil in pupils[:4])
    assert pupils[4].learn()["learned"]["photos"] == 9


def test_what_is_removed_is_not_in_the_package(taught, tmp_path):
    """Though it has learned from it: whoever has the package has what it kept."""
    pupil = Pupil(taught)
    pupil.show_all(12)
    pupil.learn()
    assert pupil.ask("DELETE", f"/photos?class={NAMES[0]}").status == 200
    assert pupil.ask("DELETE", "/photos/11").status == 200  # of another class
    found = pupil.download(tmp_path / "mine.safetensors")
    assert found.meta["classes"] == NAMES  # as it answers
    assert np.bincount(Kept.of(found).labels, minlength=3).tolist() == [0, 4, 3]
    assert "photos" not in pupil.download(tmp_path / "x.safetensors", "?keep=false").meta["taught"]
    reply = taught.ask("POST", "/models/small/lessons", (tmp_path / "mine.safetensors").read_bytes())
    assert [one["photos"] for one in reply.json["classes"]] == [4, 3]
    for label in NAMES[1:]:
        assert pupil.ask("DELETE", f"/photos?class={label}").status == 200
    assert "photos" not in pupil.download(tmp_path / "y.safetensors").meta["taught"]


def test_who_is_left_keeps_its_recording(taught, tmp_path):
    pupil = Pupil(taught)
    for number, (pixels, label) in enumerate(zip(*sets.labelled(18, 0), strict=True)):
        query = f"?class={NAMES[label]}&recording=film-{label}-{number // 6}"
        assert pupil.ask("POST", f"/photos{query}", sets.png(pixels)).status == 201
    pupil.learn()
    shown = pupil.download(tmp_path / "all.safetensors").tensors["taught.recordings"]
    for number in (0, 7):
        assert pupil.ask("DELETE", f"/photos/{number}").status == 200
    found = pupil.download(tmp_path / "mine.safetensors").tensors["taught.recordings"]
    left = np.delete(shown, [0, 7])
    assert len(found) == 16 and len({*shown.tolist()}) == 9
    assert ((found[:, None] == found) == (left[:, None] == left)).all()


def test_a_package_on_its_way_counts(taught, monkeypatch):
    """Twice while it is encoded, and then as what is sent."""
    seen, take = [], _Bodies.take

    def noted(bodies, own, size, room):
        seen.append(size)
        return take(bodies, own, size, room)

    monkeypatch.setattr("rowvit.serve.gate._PART", 1000)
    monkeypatch.setattr(_Bodies, "take", noted)
    pupil = Pupil(taught)
    pupil.show_all(9)
    pupil.learn()
    reply = pupil.ask("GET", "/package")
    tensors = ModelPackage.decode(reply.body).tensors.values()
    assert seen[-2:] == [2 * sum(one.nbytes for one in tensors), len(reply.body)]


def test_few_networks_stay_compiled(monkeypatch):
    """Of lessons, the ones that were used last; the others are compiled again when they are asked for."""
    made = []
    real = Network.taught
    hold = threading.Event()
    hold.set()

    def counted(network, *arguments):
        assert hold.wait(HANG)
        made.append(real(network, *arguments))
        return made[-1]

    monkeypatch.setattr(Network, "taught", counted)
    now = [0.0]

    def tick() -> float:
        now[0] += 1
        return now[0]

    limits = Limits(deadline=HANG, lessons=LessonLimits(compiled=2))
    with serving(networks(), "sim", Tokens32, limits, clock=tick) as served:
        pupils = [Pupil(served) for _ in range(3)]
        for number, pupil in enumerate(pupils):
            for label in (0, 1):
                for _ in range(3):
                    pixels = np.full((12, 12, 3), 40 + 100 * label + number, np.uint8)
                    assert pupil.show(str(label), pixels).status == 201
            pupil.learn()

        def compiled() -> list[bool]:
            own = [served.service.lessons._lessons[pupil.lesson].learned for pupil in pupils]
            return [one.network is not None for one in own]

        assert compiled() == [False, True, True] and len(made) == 3
        square = np.zeros((12, 12, 3), np.uint8)
        assert pupils[2].answer(square)["model"] == "small, taught" and len(made) == 3
        pupils[0].answer(square)
        assert compiled() == [True, False, True] and len(made) == 4
        pupils[1].answer(square)
        assert compiled() == [True, True, False] and len(made) == 5
        asking = [threading.Thread(target=pupils[2].answer, args=(square,)) for _ in range(4)]
        hold.clear()
        for thread in asking:
            thread.start()
        until(lambda: served.service.open_requests == 4)
        hold.set()
        for thread in asking:
            thread.join(HANG)
        assert len(made) == 6, "once, however many ask"
        engine = served.service.engine
        del made[:]
        for pupil in pupils:
            assert pupil.ask("DELETE").status == 204
        served.infer(np.zeros((1, 12, 12, 3), np.uint8))
        until(lambda: len(engine._models) == 1)  # what nobody can ask for is not kept


def test_a_taught_network_that_cannot_be_loaded():
    """Its images are refused, and nobody else's."""
    puppet = Tokens32()
    with serving(networks(), "sim", lambda: puppet) as served:
        pupil = Pupil(served)
        for label in (0, 1):
            for _ in range(3):
                pupil.show(str(label), np.full((12, 12, 3), 40 + 100 * label, np.uint8))
        pupil.learn()
        puppet.fails = "taught"
        square = np.zeros((12, 12, 3), np.uint8)
        reply = served.ask("POST", f"/models/{pupil.lesson}/classify", sets.png(square))
        assert reply.status == 503 and "no room for the program" in reply.error
        assert served.infer(np.zeros((1, 12, 12, 3), np.uint8)).status == 200
        assert served.ask("GET", "/v2/health/ready").status == 200
        puppet.fails = ""
        assert pupil.answer(square)["label"] in "01"


def test_nothing_is_stored(monkeypatch, tmp_path):
    """The cache of programs gets what is served, and nothing of a lesson."""
    monkeypatch.setenv("ROWVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ROWVIT_CACHE_PROGRAMS")
    with serving(networks(), "sim", Tokens32) as served:
        before = sorted((tmp_path / "cache").iterdir())
        assert len(before) == 1
        pupil = Pupil(served)
        for label in (0, 1):
            for _ in range(3):
                pupil.show(str(label), np.full((12, 12, 3), 40 + 100 * label, np.uint8))
        pupil.learn()
        pupil.answer(np.zeros((12, 12, 3), np.uint8))
        pupil.download(tmp_path / "mine.safetensors")
    assert sorted((tmp_path / "cache").iterdir()) == before


def test_the_reference_of_a_forgotten_network_is_forgotten(taught):
    """What explains answers is kept as long as the network is."""
    pupil = Pupil(taught)
    pupil.show_all(9)
    pupil.learn()
    found = pupil.answer(sets.labelled(1, 2)[0][0], "?explain=true")
    assert len(found["attention"]) == 2 and found["cycles"]["source"] == "predicted by the cycle model"
    goldens = taught.service._goldens
    assert len(goldens) == 1 and isinstance(next(iter(goldens.values()))[0], Golden)
    pupil.learn()
    pupil.answer(sets.labelled(1, 2)[0][0])
    until(lambda: not goldens)


def test_openapi(taught):
    found = taught.ask("GET", "/openapi.json").json
    validate(found)

    def check(value, name: str) -> None:
        jsonschema.validate(value, {**found, "$ref": f"#/components/schemas/{name}"})

    pupil = Pupil(taught)
    check(pupil.ask("GET").json, "Lesson")
    check(pupil.show("red", sets.labelled(3, 0)[0][2]).json, "ShownPhoto")
    pupil.show_all(12)
    pupil.show("red", sets.labelled(1, 70)[0][0])
    check(pupil.learn(), "Lesson")
    check(pupil.ask("DELETE", "/photos/99").json, "Error")
    assert {"429", "503"} <= found["paths"]["/lessons/{lesson}/package"]["get"]["responses"].keys()
    assert found["components"]["schemas"]["Answer"]["properties"]["logits"]["items"] == {"type": "number"}
    described = {path: item for path, item in found["paths"].items() if "lesson" in path}
    assert len(described) == 6 and sum(map(len, described.values())) == 9
    for path, item in described.items():
        address = path.format(model="small", lesson=pupil.lesson, photo=1)
        for method in sorted(item, reverse=True):  # the lesson itself is deleted last
            if (path, method) != ("/lessons/{lesson}", "delete"):
                query = "?class=red&name=red" if path.endswith("/photos") else ""
                assert taught.ask(method.upper(), address + query).status not in (404, 405), address
