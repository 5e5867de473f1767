# SPDX-License-Identifier: Apache-2.0
"""The command line: results, files, and one sentence for every mistake."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import photos as sets
import processes
import pytest
from clocks import TickingClock
from PIL import Image
from typer.testing import CliRunner
from waiting import HANG, until

from rowvit.cli import app
from rowvit.cli.common import ERR, Terminated, progress_bar
from rowvit.errors import RowvitError
from rowvit.formats import container
from rowvit.formats.package import ModelPackage
from rowvit.hardware.isa import COUNTERS
from rowvit.measure.power import protocol
from rowvit.quant.synthetic import random_package
from rowvit.targets.golden import Golden
from rowvit.targets.session import Session
from rowvit.targets.target import read_package, read_program


def rowvit(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def mistake(*arguments: object) -> str:
    """Standard error of a command that fails: one sentence, nothing else."""
    result = rowvit(*arguments, code=2)
    built = "building the simulator", "compiling it with"  # once, before the first of these tests
    lines = [line for line in result.stderr.splitlines() if not line.startswith(built)]
    assert result.stdout == ""
    assert len(lines) == 1 and lines[0].startswith("rowvit: "), result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, Path]:
    """A package and a program for `tiny`, and two images."""
    directory = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(5)
    package = random_package(
        rng,
        dim=32,
        depth=1,
        heads=2,
        image_size=8,
        patch_size=2,
        hidden=32,
        classes=3,
        pruning=[{"layer": 0, "keep": 5, "threshold": 0}],
        ffn2_rule="image",
    )
    files = {name: directory / f"{name}.safetensors" for name in ("package", "program")}
    package.save(files["package"])
    rowvit("compile", files["package"], "-o", files["program"], "-c", "tiny")
    files["images"] = directory / "images"
    files["images"].mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(files["images"] / name)
    return files


def test_golden_photos():
    out = rowvit("run", "sign-digits", "--target", "golden").stdout
    assert len(re.findall(r"^\d_\d{4}\.jpg +\d +\d +0\.\d{3}", out, re.MULTILINE)) == 20
    assert re.search(r"1\d of 20 right", out)
    assert "tokens alive" in out and "197 > 99 > 50 > 26" in out


def test_everyday_photos():
    """Twelve photos, of which ten are of its classes; five classes of each."""
    out = rowvit("run", "everyday", "--target", "golden", "--top", 5).stdout
    rows = [line for line in out.splitlines() if ".jpg" in line]
    assert len(rows) == 12 and len(re.findall(r" [01]\.\d{3}$", out, re.MULTILINE)) == 60
    assert re.search(r"\d+ of 10 right; of 2 the name says nothing", out)
    meta = read_package("everyday").meta
    assert {row.split("_")[0].replace("-", " ") for row in rows} & set(meta["classes"])
    assert meta["licence"] == "Apache-2.0" and meta["accuracy"]["set"] == "tiny-imagenet test, all 10000"


def test_truths_by_names(small, tmp_path):
    """Of classes in file names, also of several words; a name without one says nothing."""
    package = ModelPackage.load(small["package"])
    meta = {key: value for key, value in package.meta.items() if key != "hash"}
    named = ModelPackage(meta | {"classes": ["tabby cat", "1", "one_two"]}, package.tensors)
    named.save(tmp_path / "named.safetensors")
    truths = {"tabby-cat_1": "tabby cat", "1_1_copy": "1", "one_two_3": "one_two", "other_1": "", "1": ""}
    for name in truths:
        shutil.copy(small["images"] / "a.png", tmp_path / f"{name}.png")
    out = rowvit(
        "run", tmp_path / "named.safetensors", tmp_path, "-t", "golden", "-c", "tiny", "--top", 3
    ).stdout
    answer = Session(named, "golden", "tiny").run([small["images"] / "a.png"])[0]
    right = sum(truth == answer.label for truth in truths.values())
    assert f"{right} of 3 right; of 2 the name says nothing" in out
    order = [named.meta["classes"][i] for i in np.argsort(-answer.logits, kind="stable")]
    for name, truth in truths.items():
        lines = out.splitlines()
        (number,) = (n for n, line in enumerate(lines) if line.startswith(f"{name}.png "))
        assert re.sub(r"^\S+\s+", "", lines[number]).startswith(truth or order[0])
        assert [re.split(r"\s{2,}", line.strip())[-2] for line in lines[number : number + 3]] == order


def test_sim_report(small, tmp_path):
    report = tmp_path / "report.json"
    run = ("run", small["package"], small["images"], "-c", "tiny", "--check", "--jobs", 1)
    out = rowvit(*run, "--json", report).stdout
    assert re.search(
        r"^equal to reference +2 of 2, bit for bit in logits and kept tokens *$", out, re.MULTILINE
    )
    assert "(simulated cycles at the core's clock)" in " ".join(out.split())
    data = json.loads(report.read_text())
    assert data["memory"] == {"latency": 40, "rate": 85, "ideal": False, "megabytes": 128}
    assert data["config"]["name"] == "tiny"
    assert [Path(image["file"]).name for image in data["images"]] == ["a.png", "b.png"]
    assert data["layers"][:2] == ["embed", "0"] and data["layers"][-1] == "head"
    for image in data["images"]:
        assert len(image["layer_cycles"]) == len(data["layers"])
        assert image["bit_exact"] is True
        assert image["top1"] == int(np.argmax(image["logits"]))
        assert sum(image["layer_cycles"]) == image["cycles"] == image["counters"]["cycles"]
        assert [len(kept) for kept in image["kept"]] == [6]
        assert 0 < image["macs_executed"] <= image["macs_dense"]
        assert 0 <= image["w2_rows_fetched"] <= image["w2_rows_total"] == 32
        assert set(image["counters"]) == {name for name, _ in COUNTERS}

    ideal = json.loads(rowvit(*run, "--memory", "ideal", "--json", "-").stdout)
    everything = rowvit(*run, "--stalls", 3, "--checkpoints", "--json", tmp_path / "stalled.json").stdout
    assert "2 of 2, bit for bit in logits, kept tokens and 3 checkpoints" in everything
    stalled = json.loads((tmp_path / "stalled.json").read_text())
    for fast, plain, slow in zip(ideal["images"], data["images"], stalled["images"], strict=True):
        assert fast["logits"] == plain["logits"] == slow["logits"]
        assert fast["cycles"] < plain["cycles"] < slow["cycles"]
        assert fast["bit_exact"] and slow["bit_exact"]
    other = json.loads(rowvit(*run, "--stalls", 4, "--checkpoints", "--json", "-").stdout)
    assert [one["cycles"] for one in other["images"]] != [one["cycles"] for one in stalled["images"]]


def test_processes_and_batches_agree(small):
    def images(*options):
        report = json.loads(
            rowvit("run", small["program"], small["images"], "-c", "tiny", "--json", "-", *options).stdout
        )
        return report["images"]

    one, two = images("--jobs", 1), images("--jobs", 2)
    together = images("--batch", 2)
    for a, b, c in zip(one, two, together, strict=True):
        assert a["logits"] == b["logits"] == c["logits"]
        assert a["cycles"] == b["cycles"]
        assert c["batch"] == 2 and c["macs_executed"] is None


def test_waveform(small, tmp_path):
    wave = tmp_path / "wave.fst"
    image = small["images"] / "a.png"
    rowvit("run", small["program"], image, "-c", "tiny", "--trace", wave, "--trace-cycles", "100:200")
    assert wave.stat().st_size > 1000


def test_difference_is_exit_code_1(small, monkeypatch):
    monkeypatch.setattr("rowvit.targets.target.Result.same", lambda self, other: False)
    out = rowvit("run", small["package"], small["images"], "-t", "golden", "--check", code=1).stdout
    assert "NO" in out and "0 of 2, bit for bit" in out


@pytest.fixture
def wrong(monkeypatch) -> None:
    """Programs have other weights than their packages, as by a fault of the compiler or of the core."""

    def damaged(model, config, checkpoints=False):
        program = read_program(model, config, checkpoints)
        program.weights[-1800:-1500] ^= 0x40
        return program

    monkeypatch.setattr("rowvit.targets.session.read_program", damaged)


def test_a_difference_is_located(small, wrong):
    """Cycles are those of a run without checkpoints; a second run with them names the half layer."""
    done = rowvit("run", small["package"], small["images"], "-c", "tiny", "--check", "--jobs", 2, code=1)
    assert "0 of 2, bit for bit in logits and kept tokens" in done.stdout
    assert re.search(r"a\.png differs from the integer reference in (logits|tokens kept)", done.stderr)
    again = "computed again with checkpoints, the network loaded anew: it first differs in checkpoint"
    assert again in done.stderr


def test_a_difference_that_does_not_come_again(small, monkeypatch):
    """As that of a bit of the weights in memory, which are written anew."""
    run = Session.run

    def flipped(session, *arguments):
        session.target.blob[-1800:-1500] ^= 0x40
        session.target.blob.flush()
        return run(session, *arguments)

    monkeypatch.setattr(Session, "run", flipped)
    image = small["images"] / "a.png"
    done = rowvit("run", small["package"], image, "-c", "tiny", "--check", code=1)
    assert "the network loaded anew: it is equal to the reference" in done.stderr
    text = mistake("run", small["package"], image, "-c", "tiny", "--check-every", 1)
    assert text.startswith(f"rowvit: {image} differs from the integer reference in ")
    assert re.search(r"300 of \d+ bytes of program and weights have changed in memory", text)
    assert text.endswith("the network loaded anew: it is equal to the reference")


def test_some_are_checked(small):
    run = ("run", small["package"], small["images"], "-c", "tiny", "--check-every", 2, "--jobs", 2)
    out = rowvit(*run).stdout
    assert re.search(r"^a\.png .* yes ", out, re.MULTILINE)
    assert re.search(r"^b\.png .* not compared ", out, re.MULTILINE)
    assert "1 of 1, bit for bit in logits and kept tokens" in out
    assert re.search(r"^not compared +1 *$", out, re.MULTILINE)
    images = json.loads(rowvit(*run, "--json", "-").stdout)["images"]
    assert [image["bit_exact"] for image in images] == [True, None]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_difference_stops_the_run(small, wrong, jobs):
    text = mistake(
        *("run", small["package"], small["images"], "-c", "tiny", "--check-every", 2, "--jobs", jobs)
    )
    assert text.startswith(f"rowvit: {small['images'] / 'a.png'} differs from the integer reference in ")
    assert "program and weights in memory are unchanged" in text and "it first differs in checkpoint" in text


def test_what_cannot_be_checked(small):
    assert "use the model package" in mistake("run", small["program"], small["images"], "--check-every", 2)
    text = mistake("run", small["package"], small["images"], "-t", "golden", "--check-every", 2)
    assert text.endswith(
        "--check-every is for sim and board, not for --target golden; leave it out, or use --target sim"
    )


@pytest.mark.parametrize(
    ("target", "option", "scope"),
    [
        ("golden", ("--trace", "x.fst"), "sim"),
        ("golden", ("--trace-cycles", "0:1000000"), "sim"),
        ("golden", ("--memory", "ddr"), "sim"),
        ("board", ("--jobs", "2"), "golden and sim"),
        ("board", ("--stalls", "1"), "sim"),
        ("sim", ("--bitstream", "x.bit"), "board"),
        ("golden", ("--timeout", "9"), "sim and board"),
    ],
)
def test_options_of_another_target(small, tmp_path, monkeypatch, target, option, scope):
    """Are refused, where they would have done nothing, also at their defaults; no file is left."""
    monkeypatch.chdir(tmp_path)
    text = mistake("run", small["package"], small["images"], "-t", target, "-c", "tiny", *option)
    first = scope.split()[0]
    advice = f"leave it out, or use --target {first}"
    assert text == f"rowvit: {option[0]} is for {scope}, not for --target {target}; {advice}"
    assert not list(tmp_path.iterdir())


def test_files_in_another_locale(tmp_path):
    """What rowvit writes and reads is UTF-8, whatever the terminal has; lists of Windows have a mark."""
    code = (
        "import sys; from pathlib import Path; from rowvit.cli.common import write;"
        "from rowvit.cli.model import _names; from rowvit.measure.accuracy.evaluation import read_labels;"
        "write(Path(sys.argv[1]), '\\xb5J \\xb1 \\u2026');"
        "assert _names(Path(sys.argv[2])) == ['cat', 'd\\xf6g'], _names(Path(sys.argv[2]));"
        "assert read_labels(sys.argv[3]) == {'a': 'cat'}"
    )
    files = [tmp_path / name for name in ("page.html", "names.txt", "labels.csv")]
    files[1].write_text("cat\nd\xf6g\n", encoding="utf-8-sig")
    files[2].write_text("a,cat\n", encoding="utf-8-sig")
    own = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, *files], check=True, env=os.environ | own, timeout=HANG)
    assert files[0].read_text(encoding="utf-8") == "µJ ± …"


def test_names_say_what_is_written(small, tmp_path):
    """What does not end as the file's kind does is refused before the work."""
    features = ("features", small["package"], small["images"], "-c", "tiny", "-o", tmp_path / "x.txt")
    assert f"{tmp_path / 'x.txt'}: what is written is .npz; name it x.npz" in mistake(*features)
    baseline = ("baseline", small["package"], "-o", tmp_path / "x")
    assert "what is written is .onnx; name it x.onnx" in mistake(*baseline)
    assert not list(tmp_path.iterdir())


def test_the_default_target(small, monkeypatch):
    """A board's own; elsewhere sim where cycles are counted, golden where only answers are asked for."""
    run = ("run", small["package"], small["images"], "-c", "tiny", "--json", "-")
    assert json.loads(rowvit(*run).stdout)["target"] == "sim"
    monkeypatch.setenv("BOARD", "Pynq-Z2")
    assert "rowvit-tiny.bit does not exist" in mistake(*run)
    assert "rowvit-tiny.bit does not exist" in mistake("bench", *run[1:])
    monkeypatch.delenv("BOARD")
    for target, commands in (
        ("golden", ("features", "teach", "serve")),
        ("sim", ("run", "bench", "power", "diagnose")),
    ):
        for command in commands:
            told = re.sub(r"[\s│]+", " ", rowvit(command, "-h").stdout)
            assert f"board on a board, else {target}, as" in told, command


@pytest.mark.parametrize("command", ["run", "bench", "features", "power"])
def test_folders_and_files_that_are_none(small, tmp_path, monkeypatch, command):
    """Alike in all commands: what is left out is said, the rest goes on, and the exit code tells."""
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (photos / name).write_bytes((small["images"] / name).read_bytes())
    (photos / "more" / "c.png").write_bytes((small["images"] / "a.png").read_bytes())
    plan = ("--pairs", 5, "--seconds", 0.01, "--settle", 0)
    monkeypatch.setattr(protocol, "measure", partial(protocol.measure, clock=TickingClock(0.3)))
    options = {
        "run": ("--json", tmp_path / "out"),
        "bench": ("--json", tmp_path / "out", "-n", 9),
        "power": ("--json", tmp_path / "out", "-n", 9, *plan),
        "features": ("-o", tmp_path / "out.npz"),
    }
    model = "sign-digits" if command == "features" else small["package"]
    line = (command, model, photos, "-t", "golden", *options[command])

    def images() -> int:
        if command == "features":
            return len(np.load(tmp_path / "out.npz")["files"])
        document = json.loads((tmp_path / "out").read_text())
        return len(document["images"]) if command == "run" else document["data"]["images"]

    done = rowvit(*line)
    assert f"{photos}: a folder in it left out (more); --recursive takes" in done.stderr
    assert images() == 2
    rowvit(*line, "--recursive")
    assert images() == 3
    (photos / "broken.png").write_bytes(b"no picture")
    done = rowvit(*line, "--recursive", code=1)
    assert f"skipped: {photos / 'broken.png'}: is no picture" in done.stderr
    assert images() == 3


def test_flags_have_no_values():
    """In helps: of a bool it would seem that one could be given."""
    for command in ((), ("run",), ("prune",), ("config",), ("config", "show")):
        assert "bool" not in rowvit(*command, "-h").stdout.lower()
    assert "--check true" not in rowvit("run", "-h").stdout


def test_info_and_disasm(small):
    out = rowvit("info", "sign-digits").stdout
    assert "6 layers, 128 channels, 2 heads" in out and "layer 1 keeps 98" in out and "Apache-2.0" in out
    out = rowvit("info", small["program"]).stdout
    assert "for 'tiny'" in out and "ATTN" in out
    listing = rowvit("disasm", small["program"], "-c", "tiny").stdout
    assert listing == rowvit("disasm", small["package"], "-c", "tiny").stdout
    assert listing.splitlines()[0].split()[1] == "HEADER" and listing.splitlines()[-1].split()[1] == "END"


def test_configurations():
    assert re.search(r"pynq-z2 +Pynq-Z2 +2 x 3 x 64 +384 +142\.857", rowvit("config", "list").stdout)
    assert re.search(r"weight memory +8 KB", rowvit("config", "show", "tiny").stdout)
    assert "no hardware configuration 'big'" in mistake("config", "show", "big")


def test_progress_where_no_one_can_watch_a_bar(monkeypatch, capsys):
    """A line every ten seconds at most, none for work that is over before, and none at the end."""
    clock = [100.0]
    monkeypatch.setattr(ERR, "get_time", lambda: clock[0])
    with progress_bar("refitting", 400) as progress:
        for done in range(1, 401):
            clock[0] += 0.5 if done <= 100 else 30
            progress(done, "block 3" if done == 20 else "")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "refitting: 20 of 400, 10 s, about 3 min left, block 3",
        "refitting: 40 of 400, 20 s, about 3 min left",
        "refitting: 60 of 400, 30 s, about 3 min left",
    ]
    assert lines[-1].startswith("refitting: 399 of 400, 3 h, about ") and len(lines) == 5 + 299
    with progress_bar("training") as progress:
        clock[0] += 30
        progress(1, total=4)
    assert capsys.readouterr().err == "training: 1 of 4, 30 s\n"


def test_help_teaches():
    for command in ((), ("run",), ("compile",), ("disasm",), ("info",), ("config",)):
        assert "Usage" in rowvit(*command, "--help").stdout
    assert "rowvit run sign-digits" in rowvit("run", "--help").stdout


def test_mistakes_with_files(small, tmp_path):
    image = small["images"] / "a.png"
    assert "no.safetensors: cannot be read" in mistake("run", tmp_path / "no.safetensors", image)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(small["package"].read_bytes()[:-100])
    assert "truncated" in mistake("run", cut, image)
    damaged = bytearray(small["package"].read_bytes())
    damaged[-1] ^= 1
    cut.write_bytes(damaged)
    assert "do not match their hash" in mistake("info", cut)
    cut.write_bytes(b"hello, world")
    assert "not a safetensors file" in mistake("info", cut)
    assert "is no picture" in mistake("run", small["package"], cut, "-c", "tiny")
    assert "no such file" in mistake("run", small["package"], tmp_path / "x.jpg", "-c", "tiny")
    assert "no image is named" in mistake("run", small["package"], "-c", "tiny")
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in mistake("run", small["package"], tmp_path / "empty", "-c", "tiny")
    run = ("run", small["package"], image, "-t", "golden", "--json")
    assert "cannot be written" in rowvit(*run, tmp_path / "none" / "r.json", code=2).stderr


def test_what_is_read_is_not_written(small, tmp_path):
    """Nor one file by two options; found before the work."""
    files = {name: tmp_path / small[name].name for name in ("package", "program")}
    for name, path in files.items():
        shutil.copy(small[name], path)
    photo = tmp_path / "a.png"
    shutil.copy(small["images"] / "a.png", photo)
    package, link = files["package"], tmp_path / "link.safetensors"
    link.symlink_to(package)
    golden = ("run", package, photo, "-t", "golden", "-c", "tiny")
    before = {path: path.read_bytes() for path in (*files.values(), photo)}
    for command, option in (
        (("compile", package, "-c", "tiny"), ("-o", package)),
        (("compile", package, "-c", "tiny"), ("-o", link)),
        (golden, ("--json", package)),
        (golden, ("--plot", photo)),
        (("features", package, photo, "-c", "tiny"), ("-o", photo)),
        (("profile", package, photo, "-c", "tiny"), ("--trace-json", package)),
        (("baseline", package), ("-o", package)),
    ):
        assert "is read as well; name another file with -" in mistake(*command, *option)
    (beside := tmp_path / "photos" / "b.png").parent.mkdir()
    before[beside] = beside.write_bytes(before[photo]) and before[photo]
    folder = ("run", package, beside.parent, "-t", "golden", "-c", "tiny")
    assert "is read as well; name another file with --plot" in mistake(*folder, "--plot", beside)
    two = tmp_path / "two.png"
    assert "two options name it" in mistake(*golden, "--json", two, "--plot", two)
    assert not two.exists() and all(path.read_bytes() == was for path, was in before.items())
    assert "--output: this is no standard output; name a file" in mistake("compile", package, "-o", "-")
    assert "--trace-json: this is no standard output" in mistake("profile", package, "--trace-json", "-")


def test_long_names_leave_room_for_answers(small, tmp_path):
    photo = tmp_path / f"{'a photo that was taken in the laboratory, ' * 3}1.png"
    shutil.copy(small["images"] / "a.png", photo)
    run = rowvit("run", small["package"], photo, "-t", "golden", "-c", "tiny", "--check").stdout
    (answer,) = json.loads(
        rowvit("run", small["package"], photo, "-t", "golden", "-c", "tiny", "--json", "-").stdout
    )["images"]
    assert f" {answer['probability']:.3f} " in run and f" {answer['label']} " in run and " yes " in run
    assert all(word in run for word in photo.name.split())


@pytest.mark.parametrize("variables", [{}, {"TERM": "", "PYTHONUNBUFFERED": ""}, {"PYTHONUNBUFFERED": "1"}])
def test_a_stream_that_takes_no_more(variables):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "rowvit", "info", "sign-digits"],
            env=os.environ | variables,
            stdout=full,
            stderr=-1,
            text=True,
            timeout=HANG,
        )
    assert ended.returncode == 2
    assert ended.stderr == "rowvit: standard output cannot be written (No space left on device)\n"


def test_what_cannot_be_printed_is_written(small, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    written = tmp_path / "bench.json", tmp_path / "trace.json"
    for command, file in (
        (["bench", small["package"], "-t", "golden", "-c", "tiny", "-n", "2", "--json"], written[0]),
        (["profile", small["package"], "-c", "tiny", "--predict", "--trace-json"], written[1]),
    ):
        with open("/dev/full", "w") as full:
            words = [sys.executable, "-m", "rowvit", *map(str, command), str(file)]
            ended = subprocess.run(words, stdout=full, stderr=-1, text=True, timeout=HANG)
        assert ended.returncode == 2 and "standard output cannot be written" in ended.stderr
        json.loads(file.read_text())


def test_what_cannot_be_written_is_shown(small, tmp_path, monkeypatch):
    """As on a disk that others fill while it is measured."""

    def full(path, document):
        raise RowvitError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr("rowvit.measure.result.write", full)
    options = "-t", "golden", "-c", "tiny", "-n", "2", "--json", tmp_path / "bench.json"
    ended = rowvit("bench", small["package"], *options, code=2)
    assert "No space left" in ended.stderr and "images/s" in ended.stdout


def test_names_that_the_system_refuses(small, tmp_path):
    """What it says of a file is one sentence."""
    name = "n" * 5000
    for command in (
        ("run", small["package"], tmp_path / name, "-t", "golden", "-c", "tiny"),
        ("profile", small["package"], "--predict", "--trace-json", tmp_path / name),
        ("info", tmp_path / name),
    ):
        assert "File name too long" in mistake(*command)


def test_no_temporary_folder(small, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    images = [small["images"]] * 40
    said = mistake("run", small["package"], *images, "-t", "golden", "-c", "tiny", "--jobs", "2")
    assert "no temporary folder can be made" in said and "TMPDIR" in said


@pytest.mark.parametrize("file", ["waveform.fst", None])
def test_a_full_disk_is_not_standard_outputs_fault(monkeypatch, file):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([file] if file else []))

    monkeypatch.setattr("rowvit.targets.target.read_model", full)
    what = file or f"a file, perhaps one in {tempfile.gettempdir()},"
    assert mistake("run", "sign-digits") == f"rowvit: {what} cannot be written (No space left on device)"


@pytest.mark.parametrize(
    "command", [("disasm",), ("run", "-t", "golden", "--json", "-"), ("fits", "--json", "-"), ("info",)]
)
def test_a_standard_output_that_is_closed(small, command):
    """What a service manager may give; results are then for nobody."""
    name, *options = command
    images = [str(small["images"])] if name == "run" else []
    words = [sys.executable, "-m", "rowvit", name, str(small["package"]), *images, *options, "-c", "tiny"]
    words = words[:-2] if name in ("fits", "info") else words
    ended = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *words], stderr=-1, text=True, timeout=HANG)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr


NESTED = "[" * 200_000


def test_json_that_is_nested_too_deeply(tmp_path):
    """It is a mistake like any other in a file."""
    photos = sets.archive(tmp_path / "a.npz")
    (tmp_path / "deep.json").write_text(NESTED)
    container.write(tmp_path / "net.safetensors", {}, {"rowvit-float": NESTED})
    for command in (
        ("info", tmp_path / "net.safetensors"),
        ("eval", tmp_path / "net.safetensors", "--data", tmp_path),
        ("report", tmp_path / "deep.json", "--check"),
        ("eval", "sign-digits", "--data", photos, "--labels", tmp_path / "deep.json"),
    ):
        assert "nested too deeply" in (said := mistake(*command)) or "not readable" in said


def test_a_description_whose_patches_are_of_no_size(tmp_path):
    config = {"image_size": 8, "patch_size": 0, "prefix": 1, "pool": "token", "distilled": False}
    metadata = {"rowvit-float": json.dumps({"format": 1, "config": config, "card": {"name": "x"}})}
    container.write(tmp_path / "net.safetensors", {}, metadata)
    assert "the network's description is not readable" in mistake("info", tmp_path / "net.safetensors")


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_no_number(small, tmp_path, value):
    """Ranges that options have may let it in."""
    run = ("run", small["package"], small["images"], "-c", "tiny", "-t", "sim", "--timeout", value)
    assert "--timeout" in rowvit(*run, code=2).stderr
    smooth = ("quantise", small["package"], "--data", small["images"], "-o", tmp_path / "x")
    assert f"--smooth is {value}; use a finite number" in mistake(*smooth, "--smooth", value)


def test_options_of_other_networks(small, tmp_path):
    """What a network says itself, or has not, is told in vain: it is refused."""
    quantise = ("quantise", small["package"], "--data", small["images"], "-o", tmp_path / "x")
    assert "--behind is for tokens, which --tokens asks for" in mistake(*quantise, "--behind", "1")
    assert "--percentile is not of the method mse; add --method percentile" in mistake(
        *quantise, "--percentile", "99.99"
    )
    evaluate = ("eval", small["package"], "--data", small["images"], "--precision", "bf16")
    assert "--precision is for float networks, and" in mistake(*evaluate)
    fits = ("fits", small["package"], "--classes", 7, "--image-size", 16)
    assert "is quantised, with a shape of its own; leave out --classes, --image-size" in mistake(*fits)


def test_mistakes_with_configurations(small):
    image = small["images"] / "a.png"
    tiny = (image, "-c", "tiny")
    assert "needs tokens: 197, available: 64" in mistake("run", "sign-digits", "-c", "tiny")
    assert "is for configuration 'tiny'" in mistake("run", small["program"], image)
    assert "use the model package" in mistake("run", small["program"], *tiny, "-t", "golden")
    assert "use the model package" in mistake("compile", small["program"], "-o", "x")
    assert "use the model package" in mistake("run", small["program"], small["images"], "--check")
    assert "rowvit-tiny.bit does not exist" in mistake("run", small["package"], *tiny, "-t", "board")
    trace = ("--trace", "x", "--trace-cycles", "9")
    assert "FIRST:LAST" in mistake("run", small["package"], *tiny, *trace)


def test_unsupported_architecture(small, tmp_path):
    package = ModelPackage.load(small["package"])
    package.meta["architecture"]["heads"] = 1  # one head of 32 channels does not fit 16 lanes
    path = tmp_path / "heads.safetensors"
    package.save(path)
    assert "32" in mistake("run", path, small["images"] / "a.png", "-c", "tiny")


def test_packages_of_an_extra_that_are_missing(small):
    """In a fresh process: modules that other tests imported would not look for them again."""
    package, out = str(small["package"]), str(small["package"].with_name("out.safetensors"))
    onnx = small["package"].with_name("net.onnx")
    onnx.touch()
    commands = {
        "torch": [
            ["train", package, "--data", "d", "--recipe", "r.toml", "-o", out],
            ["relu", package, "--data", "d", "-o", out],
            ["prune", package, "--data", "d", "-o", out],
            ["quantise", package, "--data", "d", "-o", out],
            ["eval", package, "--data", "d"],
            ["import", "timm:vit_tiny_patch16_224", "-o", out],
        ],
        "onnx": [["import", str(onnx), "-o", out]],
    }
    for missing, lines in commands.items():
        code = (
            f"import sys; sys.modules[{missing!r}] = None\n"
            "from rowvit.cli import app; from typer.testing import CliRunner\n"
            f"for line in {lines}:\n"
            "    done = CliRunner().invoke(app, line); print(done.exit_code, done.output.strip())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=HANG,
        )
        sentence = f"2 rowvit: this needs the package {missing}; install it with: pip install 'rowvit[model]'"
        assert done.stdout.splitlines() == [sentence] * len(lines), done.stdout + done.stderr


def killed(*_: object) -> None:
    """What happens to a process for which there is no memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_simulation_is_named(small, monkeypatch):
    monkeypatch.setattr("rowvit.targets.workers._work", killed)
    text = mistake("run", small["program"], small["images"], "-c", "tiny", "--jobs", 2)
    assert "one of 2 processes was killed, as when memory runs out; free some, or use fewer --jobs" in text


def test_mistakes_while_running(small, tmp_path):
    """Errors of the simulation, also from processes of a pool."""
    big = tmp_path / "big.safetensors"
    random_package(
        np.random.default_rng(0), dim=64, depth=20, heads=4, image_size=8, patch_size=2, hidden=256, classes=3
    ).save(big)
    for jobs in (1, 2):
        text = mistake("run", big, small["images"], "-c", "tiny", "--ddr", 1, "--jobs", jobs)
        assert "does not fit" in text and "1 MB" in text
    text = mistake("run", small["program"], small["images"] / "a.png", "-c", "tiny", "--timeout", 1e-9)
    assert "image 0 was not done" in text


def test_names_are_text(tmp_path):
    """Of classes, networks and files: markup, emoji and links in them are printed, not obeyed."""
    package = random_package(
        np.random.default_rng(8), dim=32, depth=1, heads=2, image_size=8, patch_size=2, hidden=32, classes=2
    )
    package.meta["classes"] = ["[/b]", ":smile: [bold]b[/bold]"]
    package.meta["name"] = "[/n] [red]"
    path, photo = tmp_path / "[bold]p.safetensors", tmp_path / "[red]x[_red].png"
    package.save(path)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(photo)
    for arguments in (
        ("run", path, photo, "-t", "golden", "-c", "tiny"),
        ("info", path),
        ("bench", path, photo, "-t", "golden", "-c", "tiny", "-n", "2"),
        ("profile", path, photo, "--predict", "-c", "tiny"),
    ):
        found = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "300"})
        assert found.exit_code == 0, (arguments[0], found.output, found.exception)
        if arguments[0] == "run":
            assert "[red]x[_red].png" in found.stdout
            assert "[/b]" in found.stdout or ":smile: [bold]b[/bold]" in found.stdout
        elif arguments[0] == "info":
            assert "[/n] [red]" in found.stdout
    (tmp_path / "[x].png").write_bytes(b"no")
    found = CliRunner().invoke(
        app, ["run", str(path), str(tmp_path / "[x].png"), "-t", "golden", "-c", "tiny"]
    )
    assert found.exit_code == 2 and "[x].png: is no picture" in found.output
    both = str(photo), str(tmp_path / "[x].png")
    found = CliRunner().invoke(app, ["run", str(path), *both, "-t", "golden", "-c", "tiny", "--json", "-"])
    assert found.exit_code == 1 and [image["file"] for image in json.loads(found.stdout)["images"]] == [
        both[0]
    ]
    assert re.sub(r"\s+", "", found.stderr).count(f"skipped:{both[1]}:isnopicture".replace(" ", "")) == 1


def _ends_with_its_workers(sent: str, folder: Path, *arguments: object) -> None:
    """A command that has minutes of work for two workers gets a signal, or several: all end, and say nothing.

    That is at once: workers use less processor time than for what they are at.
    """
    command = [sys.executable, "-m", "rowvit.cli", *arguments, "--jobs", "2"]
    files = folder / "files"
    files.mkdir()
    environment = os.environ | {"TMPDIR": str(files)}

    def listen() -> None:
        """A shell's background job ignores Ctrl-C, and nohup's SIGHUP, and what they start does, too."""
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    with subprocess.Popen(
        [*map(str, command)], env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=listen
    ) as process:
        used: dict[int, float] = {}

        def look() -> set[int]:
            """Its descendants, and what they have used."""
            left = processes.children(process.pid) if process.poll() is None else used
            used.update({child: max(processes.seconds(child), used.get(child, 0.0)) for child in left})
            return {child for child in left if processes.alive(child)}

        def busy() -> bool:
            """Whether two simulate, by what they have used."""
            assert process.poll() is None
            return bool(look()) and sum(seconds > 4 for seconds in used.values()) >= 2

        until(busy)
        begun, before = look(), dict(used)
        for number, name in enumerate(sent.split()):
            if number:
                until(lambda: look() != begun)
            process.send_signal(signal.Signals[name])
        until(lambda: process.poll() is not None and not look())
        assert process.returncode != 0 and max(used[child] - before[child] for child in begun) < 3
        assert process.stderr is not None and "Traceback" not in (said := process.stderr.read()), said
        if sent in ("SIGINT", "SIGTERM", "SIGHUP"):
            assert not list(files.glob("rowvit-*"))
        assert sent not in ("SIGTERM", "SIGHUP") or process.returncode == -signal.Signals[sent]


def test_names_that_are_not_utf_8(small, tmp_path):
    """They are told as well as can be, and nothing is lost: files, tables, the report."""
    folder = tmp_path / os.fsdecode(b"caf\xe9s")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    shutil.copy(small["images"] / "a.png", folder / os.fsdecode(b"caf\xe9.png"))
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}

    def rowvit(*arguments: object) -> str:
        command = [sys.executable, "-m", "rowvit.cli", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=HANG)
        return done.stdout.decode()

    golden = ("-t", "golden", "-c", "tiny")
    files = {name: tmp_path / name for name in ("run.json", "picture.png", "bench.json", "report.html")}
    said = rowvit(
        "run", small["package"], folder, *golden, "--json", files["run.json"], "--plot", files["picture.png"]
    )
    assert "caf\\udce9.png" in said
    rowvit("bench", small["package"], folder, *golden, "-n", "2", "--json", files["bench.json"])
    assert "caf\N{REPLACEMENT CHARACTER}s" in json.loads(files["bench.json"].read_text())["data"].values()
    rowvit("report", files["bench.json"], "-o", files["report.html"])
    assert all(file.exists() for file in files.values())


@pytest.fixture
def stopped(monkeypatch):
    """Sets what comes to the main thread behind the first answer of golden, and is kept from this process."""
    stream = Golden.stream

    def by(error: BaseException) -> None:
        def interrupted(golden, images, batch=1):
            yield next(iter(stream(golden, images, batch)))
            raise error

        monkeypatch.setattr(Golden, "stream", interrupted)
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        monkeypatch.setattr(signal, "raise_signal", lambda number: sys.exit(128 + number))

    return by


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (Terminated(signal.SIGTERM), 128 + signal.SIGTERM)]
)
def test_what_stops_run_leaves_the_answers_that_came(small, monkeypatch, stopped, error, status):
    stopped(error)
    command = ["run", str(small["package"]), str(small["images"]), "-t", "golden", "-c", "tiny"]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == status and "a.png" in found.stdout and "b.png" not in found.stdout
    assert "stopped: 1 of 2 images" in found.stderr
    assert CliRunner().invoke(app, [*command, "--json", "-"]).stdout == ""

    def gone(*_):  # as the terminal is where a connection has ended
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("rowvit.cli.run._print_results", gone)
    assert CliRunner().invoke(app, command).exit_code == status


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (Terminated(signal.SIGTERM), 128 + signal.SIGTERM)]
)
def test_what_stops_features_leaves_those_that_came(small, tmp_path, stopped, error, status):
    stopped(error)
    shutil.copytree(small["images"], photos := tmp_path / "photos")
    (photos / "0.png").write_bytes(b"no photo")
    command = ["features", "sign-digits", str(photos), "-t", "golden", "-o", str(tmp_path / "f.npz")]
    (tmp_path / "f.npz").write_text("of before")
    found = CliRunner().invoke(app, command)
    assert found.exit_code == status, found.stderr
    assert "stopped: the first 1 of 3 images" in found.stderr and "skipped: " in found.stderr
    with np.load(tmp_path / "f.partial.npz") as file:
        assert [Path(name).name for name in file["files"]] == ["a.png"] and len(file["values"]) == 1
    assert (tmp_path / "f.npz").read_text() == "of before"


@pytest.mark.parametrize("sent", ["SIGINT", "SIGINT SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_workers_of_run_end(small, tmp_path, sent):
    photo = next(small["images"].iterdir())
    many = tmp_path / "photos"
    many.mkdir()
    for number in range(400):
        os.symlink(photo, many / f"{number}.png")
    slow = ("-c", "tiny", "--batch", 20, "--rate", 1, "--latency", 2000)
    _ends_with_its_workers(sent, tmp_path, "run", small["package"], many, *slow)


@pytest.mark.parametrize(
    "sent", ["SIGINT", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGKILL"))]
)
def test_workers_of_eval_end(tmp_path, sent):
    """Those that Dask starts."""
    pytest.importorskip("distributed")
    pytest.importorskip("torch")
    package = random_package(
        np.random.default_rng(0),
        dim=192,
        depth=6,
        heads=3,
        image_size=128,
        patch_size=8,
        hidden=768,
        classes=3,
    )
    package.meta["classes"] = list(sets.COLOURS)
    package.save(tmp_path / "net.safetensors")
    data = sets.archive(tmp_path / "photos.npz", test=3000)
    _ends_with_its_workers(sent, tmp_path, "eval", tmp_path / "net.safetensors", "--data", data)


def test_a_run_needs_nothing_that_measures():
    """Sensors, statistics and plots load with the commands that use them."""
    code = (
        "import sys; from rowvit.cli import app;"
        "app(['run', 'sign-digits', '--target', 'golden'], standalone_mode=False);"
        "bad = [name for name in sys.modules if name.startswith('rowvit.measure')]; assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
