# SPDX-License-Identifier: Apache-2.0
"""Every example in a help or on a page runs: on small stand-ins for the files that it names.

They are networks of 12 layers for the configuration `tiny`, a few photos, results and recipes. Boards are the
simulated one; what takes long is asked for less of.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import photos as sets
import pytest
from clocks import TickingClock
from PIL import Image
from typer.testing import CliRunner

from networks import randomise
from rowvit.measure import energy, temperature
from rowvit.measure.power import protocol

torch = pytest.importorskip("torch")
vision_transformer = pytest.importorskip("timm.models.vision_transformer")

from rowvit.cli import app  # noqa: E402
from rowvit.model import store  # noqa: E402
from rowvit.model.vit import VisionTransformer, ViTConfig  # noqa: E402
from rowvit.targets.open import open as open_target  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
#: pages for users; those of results have commands of recipes, whose data is not here
PAGES = ["README.md", "bitstreams/README.md", "hls/README.md"] + [
    f"docs/{name}.md"
    for name in (
        *("accuracy", "backbones", "board", "energy", "measurement", "serve", "your-model"),
        "commands",
    )
]
#: what only has to be understood, and why
PARSED = {
    "torchrun": "starts several processes",
    "rowvit import dinov2-small/": "a folder of the hub",
    "rowvit import clip/": "a folder of the hub",
    "rowvit import clip-vit-base-patch32/": "a folder of the hub",
    "rowvit import yolos-tiny/": "a folder of the hub",
    "rowvit import deit/": "a checkpoint that the page makes by timm",
    "rowvit eval int8.safetensors --data imagenet/ --scheduler": "workers on other machines",
    "rowvit verify-overlay": "a bitstream of Vivado",
    "rowvit diagnose --target board": "a board",
    "rowvit diagnose --json": "a board",
    "rowvit power pruned.safetensors": "a large network that the page makes",
    "rowvit report pruned.json": "its result, and another's",
    "rowvit run sign-digits photo.jpg --frontend hls": "the preprocessor takes networks with larger patches",
    "rowvit run sign-digits photo.jpg --target board --frontend hls": "likewise",
}
FLOAT = {"vit", "gelu", "deit", "dinov2", "clip", "yolos"}  #: networks with GELU, by their files' names
RELU = {"relu", "vit-relu", "pruned", "final", "start", "trained", "dinov2-relu", "clip-relu", "yolos-relu"}
BY_NAME = {"everyday", "sign-digits", "MODEL"}  #: without a suffix
INT8 = BY_NAME | {"int8", "vit-int8", "dinov2-int8", "clip-int8", "yolos-int8", "deit-tiny", "dense", "mine"}
PHOTOS = {"photos", "PHOTOS", "DATA", "IMAGES", "imagenet", "things"}
RECIPE = "batch = 8\n[[phase]]\nepochs = 0.25\nlr = 1e-4\n"


def of_pages() -> Iterator[str]:
    """Lines with commands in blocks, without comments; in the order of the pages."""
    for page in PAGES:
        blocks = r"^```(?:sh|console)\n(.*?)^```"
        for block in re.findall(blocks, (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                for before in ("$ ", "time ", ".venv/bin/"):
                    line = line.removeprefix(before)
                line = re.sub(r"\s+#.*", "", line).strip()
                if line.startswith(("rowvit ", "torchrun ")):
                    yield " ".join(line.split())


EXAMPLES = [*dict.fromkeys(of_pages())]


def rowvit(*arguments: str):
    found = CliRunner().invoke(app, list(arguments))
    assert found.exit_code == 0, (arguments, found.output, found.exception)
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the examples name."""
    folder = tmp_path_factory.mktemp("world")
    config = ViTConfig(sets.SIDE, 4, 32, 12, 2, 48, 3, act="gelu")
    classes = list(sets.COLOURS)
    for act, names in (("gelu", FLOAT), ("relu", RELU)):
        network = randomise(VisionTransformer(ViTConfig(**{**vars(config), "act": act})), 1)
        for name in sorted(names):
            store.save(folder / f"{name}.safetensors", network, store.Card(name, classes))
    for name in sorted(PHOTOS):
        sets.folder(folder / name, 9, 6)
        for number, pixels in enumerate(sets.labelled(3, 2)[0]):
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")
        shutil.copy(folder / name / "0.jpg", folder / name / "3_0618.jpg")
    for name in ("photo.jpg", "my-photo.jpg", "new.jpg"):
        shutil.copy(folder / "photos" / "0.jpg", folder / name)
    sets.archive(folder / "photos.npz")
    for name, others in (("classes", classes), ("cups", classes), ("more", ["more", "others"])):
        for label, of in enumerate(others):
            (folder / name / of).mkdir(parents=True)
            for number in range(4):
                pixels = sets.picture(np.random.default_rng(number), [*sets.COLOURS.values()][label])
                Image.fromarray(pixels).save(folder / name / of / f"{number}.png")
    own = folder / "recipes" / "sign-digits"
    own.mkdir(parents=True)
    for name in ("gelu", "relu", "prune"):
        assert (ROOT / "recipes" / "sign-digits" / f"{name}.toml").exists()
        for path in (folder, own):
            (path / f"{name}.toml").write_text(RECIPE + "distill = 0.5\n" * (name != "gelu"))
    (folder / "recipes" / "own").mkdir()
    assert (ROOT / "recipes" / "own" / "train.toml").exists()
    (folder / "recipes" / "own" / "train.toml").write_text(RECIPE)
    shutil.copy(energy.TABLE, folder / "my-energies.toml")
    (folder / "names.txt").write_text("\n".join(classes))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rowvit("certificate", "-o", "rowvit.pem")
        rowvit(
            "quantise", "vit-relu.safetensors", "--data", "photos", "-o", "int8.safetensors", "--no-measure"
        )
        for name in sorted(INT8 - {"int8"}):
            shutil.copy("int8.safetensors", name if name in BY_NAME else f"{name}.safetensors")
        rowvit("teach", "classes", "--from", "int8.safetensors", "--keep", "-o", "mine.safetensors")
        for name in ("program", "vit-program"):
            rowvit("compile", "int8.safetensors", "-c", "tiny", "-o", f"{name}.safetensors")
        shape = dict(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=3)
        network = randomise(vision_transformer.VisionTransformer(**shape))
        torch.onnx.export(network, (torch.zeros(1, 3, 16, 16),), "model.onnx", dynamo=False)
        rowvit("baseline", "int8.safetensors", "-o", "float.onnx")
        bench = ("bench", "sign-digits", "photos", "-t", "golden", "-c", "tiny", "-n", "3")
        rowvit(*bench, "--json", "sim.json")
        for name in ("ideal", "bench"):
            shutil.copy("sim.json", f"{name}.json")
        patch.setattr(protocol, "measure", partial(protocol.measure, clock=TickingClock(1)))
        power = ("power", "sign-digits", "photos", "-t", "golden", "-c", "tiny", "-n", "1", "--pairs", "5")
        rowvit(
            *power,
            "--seconds",
            "3",
            "--settle",
            "1",
            "--instrument",
            "csv",
            "--measures",
            "its socket",
            "--json",
            "csv.json",
        )
    document = json.loads((folder / "csv.json").read_text())
    passes, wall = document["passes"], document["protocol"]["wall_minus_monotonic_s"]
    times = np.arange(passes[0]["start"] - 3, passes[-1]["stop"] + 3, 0.05)
    busy = sum(((times >= p["start"]) & (times < p["stop"])) * (p["kind"] == "busy") for p in passes)
    watts = 3 + 1.5 * busy + np.random.default_rng(0).normal(0, 0.01, len(times))
    rows = (f"{t + wall:.6f},{w:.4f}\n" for t, w in zip(times, watts, strict=True))
    (folder / "meter.csv").write_text("time,power\n" + "".join(rows))
    shutil.copy(folder / "csv.json", folder / "power.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rowvit("power-log", "power.json", "meter.csv")
    return folder


def shortened(line: str) -> list[str]:
    """The arguments, for a small configuration, and for less of what takes long."""
    arguments = shlex.split(line)[1:]
    command = arguments[0]
    for option in ("--images", "--photos", "--check", "--warm-up"):
        if option in arguments[:-1] and arguments[arguments.index(option) + 1].isdigit():
            arguments[arguments.index(option) + 1] = "3"
    if command in ("bench", "power") and not {"-n", "--images"} & {*arguments}:
        arguments += ["-n", "2"]
    if "--hidden" in arguments[:-1]:
        arguments[arguments.index("--hidden") + 1] = "32"
    arguments = ["tiny" if word == "pynq-z2" else word for word in arguments]
    takes = ("run", "profile", "features", "compile", "disasm", "prune", "teach", "eval", "bench", "power")
    if command in (*takes, "diagnose", "serve") and not {"-c", "--config"} & {*arguments}:
        arguments += ["-c", "tiny"]
    if command == "serve":  # 8000 may be another's
        arguments += ["--port", "0"]
    if "--baseline" in arguments:
        arguments += ["--baseline-seconds", "0.01"]
    if command == "power":
        arguments += ["--pairs", "5", "--seconds", "0.5", "--settle", "0"]
        arguments += [] if "--instrument" in arguments else ["--instrument", "none"]
        arguments += [] if "--measures" in arguments else ["--measures", "its socket"]
    if command == "import" and arguments[1].startswith("timm:"):
        arguments += ["--random"]
    return arguments


@pytest.mark.parametrize("line", EXAMPLES)
def test_example(line: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with 0, and writes what it says that it writes."""
    if any(line.startswith(start) for start in PARSED):
        parsed(line)
        return
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(temperature, "IIO", tmp_path)

    def on_no_board(target: str, config: object, **options: object):
        options.pop("bitstream", None)
        return open_target("sim" if target == "board" else target, config, **options)

    monkeypatch.setattr("rowvit.targets.session.open_target", on_no_board)
    shipped = {"sign-digits": [Path("photo.jpg")]}
    monkeypatch.setattr("rowvit.targets.session.shipped_photos", lambda model: shipped.get(model, []))
    monkeypatch.setattr("rowvit.cli.serve._log_lines", lambda: None)  # of this process
    monkeypatch.setattr("rowvit.serve.server.run", lambda service, listener, ready, certificate: ready())
    monkeypatch.setattr(protocol, "measure", partial(protocol.measure, clock=TickingClock(1)))
    arguments = shortened(line)
    outputs = [
        Path(value)
        for option, value in pairwise(arguments)
        if option in ("-o", "--output", "--json", "--plot", "--trace", "--trace-json")
    ]
    for path in outputs:
        path.unlink(missing_ok=True)
    rowvit(*arguments)
    assert all(path.stat().st_size for path in outputs)


def parsed(line: str) -> None:
    """Names of the command and its options, and what they may be."""
    words = shlex.split(line.replace("...", "-o x --recipe x").rpartition("rowvit.cli ")[2])
    words = words[words[0] == "rowvit" :]
    from typer import Context
    from typer.main import get_command

    group = get_command(app)
    command = group.get_command(Context(group), words[0])
    command.make_context(words[0], words[1:])


def test_examples_follow_from_each_other() -> None:
    """A network that an example of a help takes is bundled, or made by an example of a help."""
    text = (ROOT / "docs" / "commands.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    made, taken = set(), set()
    for line in lines:
        words = line.split()
        for before, word in pairwise(words):
            if word.endswith(".safetensors"):
                (made if before in ("-o", "--output") else taken).add(word.partition("=")[2] or word)
    assert len(taken) > 3 and taken <= made


def test_exceptions_are_of_examples() -> None:
    for start in PARSED:
        assert any(line.startswith(start) for line in EXAMPLES), start
