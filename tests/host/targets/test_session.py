# SPDX-License-Identifier: Apache-2.0
"""A session: files to results, on every target and in several processes, and the statistics over them."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from waiting import HANG, until

import rowvit
from rowvit import decoding
from rowvit.compiler import compile
from rowvit.errors import RowvitError
from rowvit.formats.bundled import MODELS
from rowvit.formats.package import ModelPackage
from rowvit.hardware.config import load
from rowvit.quant.synthetic import random_package
from rowvit.targets.guard import Difference
from rowvit.targets.session import Session, image_files, shipped_photos


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    pruning = [{"layer": 0, "keep": 9, "threshold": 1 << 15}]
    size = dict(dim=32, depth=2, heads=2, image_size=8, patch_size=2, hidden=32, classes=3)
    return random_package(np.random.default_rng(5), **size, pruning=pruning, ffn2_rule="image")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    directory = tmp_path_factory.mktemp("photos")
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256 >> index, (9, 11, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"{index}.png")
    return image_files([directory])


def test_a_single_image_has_a_forecast(package, files):
    """By the cycle model: the share rises as the simulator's cycles do, and ends at all of the image."""
    with Session(package, "sim", "tiny") as session:
        seen: list[float] = []
        with session.forecast(1, progress=seen.append):
            results = session.run(files[:1])
            before = len(seen)
            until(lambda: len(seen) > before)  # one look after the run, if none during it
        assert seen[-2] > 0 and seen[-1] == 1 and seen == sorted(seen)
        assert session.predicted() == pytest.approx(results[0].cycles, rel=0.2)
        with session.forecast(6, jobs=2, progress=seen.append):
            seen.clear()
        assert seen == []  # several processes count their images


def test_statistics_are_those_of_the_results(package, files):
    config = load("tiny")
    with Session(package, "sim", "tiny") as session:
        seen: list[int] = []
        results = session.run(files, progress=seen.append)
        assert seen == [1, 2, 3]
        before = session.statistics(results)
        session.compare(results, files)
        found = session.statistics(results)
        record = session.record(files, results, 1.5)
    assert before.bit_exact is None and found.bit_exact == found.images == 3
    counts = [len(result.kept[0]) for result in results]
    assert found.tokens == [(17, 17), (min(counts), max(counts))]
    cycles = np.mean([result.cycles for result in results])
    assert found.cycles == pytest.approx(cycles)
    assert found.images_per_second == pytest.approx(config.clock_mhz * 1e6 / cycles)
    fires = np.mean([result.counters["fires"] for result in results])
    assert found.array_busy == pytest.approx(fires / (cycles * config.rows * config.groups))
    executed = np.mean([result.macs_executed for result in results])
    assert found.array_useful == pytest.approx(executed / (cycles * config.macs_per_cycle))
    assert found.simulation_khz > 0
    for result in results:  # as after so many images in one start that the register went round
        result.counters["fires"] -= 1 << 32
    assert session.statistics(results).array_busy == found.array_busy
    assert [image["file"] for image in record["images"]] == list(map(str, files))
    assert record["seconds"] == 1.5 and record["config"]["name"] == "tiny" and "memory" not in record


def test_a_session_is_used_again(package, files):
    """Opened once, for one process and for several; results are the same."""
    with Session(package, "sim", "tiny", checkpoints=True) as session:
        first, target = session.run(files), session.target
        again, apart = session.run(files[:1]), session.run(files, jobs=2)
        assert session.target is target
        workers = multiprocessing.active_children()
        together = session.run(files, batch=2, jobs=2)
        assert multiprocessing.active_children() == workers and len(workers) == 2
    assert multiprocessing.active_children() == []
    assert again[0].same(first[0]) and first[0].checkpoints
    for one, other, batched in zip(first, apart, together, strict=True):
        assert one.same(other) and one.same(batched) and one.cycles == other.cycles
    found = session.statistics(together)
    assert found.macs_executed is None and found.array_useful is None and found.array_busy > 0


def test_processes_check_the_images_that_are_due(package, files):
    """Whichever of them gets an image, and over all runs."""
    with Session(package, "sim", "tiny", check_every=2) as session:
        first, second = session.run(files, jobs=2), session.run(files, batch=2, jobs=2)
    assert [result.bit_exact for result in first + second] == [True, None, True, None, True, None]
    found = session.statistics(first)
    assert (found.bit_exact, found.compared, found.images) == (2, 2, 3)
    assert session.compared == "logits and kept tokens"


@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_process_finds_a_difference(package, files, checkpoints):
    """A weight of the program is not that of its package, and only the third image's result shows it."""
    program = compile(package, load("tiny"), checkpoints)
    program.weights[-16312] ^= 0x40
    where = r"checkpoint layers\.0\.attn, row 0" if checkpoints else r"logits\[\d\]"
    for jobs in (1, 2):
        with Session(program, "sim", "tiny", check_every=1) as session:
            with pytest.raises(Difference, match=f"^image 2 differs from the integer reference in {where}"):
                session.run(files, jobs=jobs)
            assert session.locate(files[2]) == ""  # compiled again, it is right


def test_golden(package, files):
    with Session(package, "golden", load("tiny")) as session:
        found = session.statistics(session.run(files, jobs=0))
    assert found.cycles is found.array_busy is found.simulation_khz is None and found.macs_dense > 0


def test_the_reference_in_processes(package, monkeypatch):
    """Of more images than one of them gets at once, and not on a board, whose memory is small."""
    pixels = np.random.default_rng(4).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    with Session(package, "golden", load("tiny"), checkpoints=True) as session:
        alone = session.run(pixels)
        few = session.run(pixels[:32], jobs=0)
        assert multiprocessing.active_children() == []
        seen: list[int] = []
        apart = session.run(pixels, batch=3, jobs=2, progress=seen.append)
        assert len(multiprocessing.active_children()) == 2 and seen == [32, 40]
        assert "OPENBLAS_NUM_THREADS" not in os.environ
    assert multiprocessing.active_children() == []
    for one, other in zip(alone, [*few, *apart[32:]], strict=True):
        assert one.same(other) and one.attention and one.macs_executed == other.macs_executed
    assert all(one.same(other) for one, other in zip(alone, apart, strict=True))
    monkeypatch.setenv("BOARD", "Pynq-Z2")
    with Session(package, "golden", load("tiny")) as session:
        session.run(pixels, jobs=2)
        assert multiprocessing.active_children() == []


def test_what_is_no_image_does_not_stop_the_others(package, files, tmp_path):
    """In one process and in two: their positions, and the images' own numbers where one differs."""
    (tmp_path / "none.png").write_bytes(b"no image")
    mixed = [tmp_path / "none.png", files[0], tmp_path / "gone.png", *files[1:]]
    program = compile(package, load("tiny"))
    program.weights[-16312] ^= 0x40  # only the last photo shows it
    for jobs in (1, 2):
        for batch in (1, 2):
            found: dict[int, str] = {}
            with Session(package, "sim", "tiny") as session:
                results = session.run(
                    mixed, batch, jobs, refused=lambda n, error, found=found: found.__setitem__(n, str(error))
                )
                wanted = session.run(files)
                with pytest.raises(RowvitError, match=r"is no picture|no such file"):
                    session.run(mixed, batch, jobs)
            assert [one.same(other) for one, other in zip(results, wanted, strict=True)] == [True] * 3
            assert sorted(found) == [0, 2] and "is no picture" in found[0] and "no such file" in found[2]
            with Session(program, "sim", "tiny", check_every=1) as session:
                with pytest.raises(Difference) as error:
                    session.run(mixed, batch, jobs, refused=lambda n, error: None)
                assert error.value.image == 4, (batch, jobs)


def test_scripts_that_do_not_say_what_is_theirs_alone(tmp_path):
    """Their processes run the script, too, and end before they have read what they are for, however large."""
    size = dict(dim=64, depth=4, heads=4, image_size=8, patch_size=2, hidden=256, classes=3)
    random_package(np.random.default_rng(0), **size).save(tmp_path / "large.safetensors")
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\n"
        "from rowvit.formats.package import ModelPackage\n"
        "from rowvit.targets.session import Session\n"
        f"package = ModelPackage.load({str(tmp_path / 'large.safetensors')!r})\n"
        "with Session(package, 'golden', 'tiny') as session:\n"
        "    session.run([np.zeros((8, 8, 3), np.uint8)] * 200, jobs=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "processes could not begin; in a script, work with several under: if __name__ == '__main__'"
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_said_once(package, tmp_path, monkeypatch, caplog, jobs):
    """Whatever process decodes the first of two animated files."""
    monkeypatch.setattr(decoding, "SAID", {})
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    for name in "ab":
        frames[0].save(tmp_path / f"{name}.gif", save_all=True, append_images=frames[1:])
    with caplog.at_level("INFO", "rowvit"), Session(package, "sim", "tiny") as session:
        session.run([tmp_path / "a.gif", tmp_path / "b.gif"], jobs=jobs)
    assert sum("several frames, of which the first is taken" in text for text in caplog.messages) == 1


def test_the_hls_front_end_takes_whole_photos(package, files):
    """Of another size than the network's, and scaled as `resize` of the reference scales them."""
    with Session(package, "golden", "tiny", frontend="hls") as session:
        results = session.run(files)
        pixels = [np.asarray(Image.open(file)) for file in files]
        assert pixels[0].shape == (9, 11, 3)
        assert all(one.same(other) for one, other in zip(results, session.run(pixels), strict=True))


def test_files(tmp_path, files):
    assert image_files([files[0], files[1].parent]) == [files[0], *files]
    assert [path.name for path in shipped_photos("sign-digits")] == ["sign_digits_photos"]
    assert shipped_photos("deit-tiny") == []
    sources = (MODELS / "ATTRIBUTION.md").read_text()
    for photo in (MODELS / "everyday_photos").iterdir():  # each has its source and licence
        assert f"| {photo.stem} |" in sources
    with pytest.raises(RowvitError, match="holds no pictures; pass image files"):
        image_files([tmp_path])


def test_other_files_of_a_folder_are_skipped(tmp_path):
    """And said to be; a file that is named is taken, whatever its name."""
    for name in ("notes.txt", "b.PNG", ".hidden", "a.jpeg", "list.csv"):
        (tmp_path / name).write_bytes(b"")
    said: list[str] = []
    found = image_files([tmp_path, tmp_path / "notes.txt"], said.append)
    assert [path.name for path in found] == ["a.jpeg", "b.PNG", "notes.txt"]
    assert said == [f"{tmp_path}: 2 of 4 files skipped, no pictures by name (list.csv, notes.txt)"]


def test_folders_in_a_folder(tmp_path):
    """Are said to be left out, or walked; hidden ones are neither."""
    for name in ("b/deep/2.png", "a/1.png", "a/notes.txt", "0.png", ".cache/9.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"")
    said: list[str] = []
    folder = tmp_path / "photos"
    assert image_files([folder], said.append) == [folder / "0.png"]
    assert said == [f"{folder}: 2 folders in it left out (a, b); --recursive takes the pictures there, too"]
    said.clear()
    found = image_files([folder], said.append, recursive=True)
    assert found == [folder / name for name in ("0.png", "a/1.png", "b/deep/2.png")]
    assert said == [f"{folder}: 1 of 4 files skipped, no pictures by name (notes.txt)"]
    (folder / "0.png").unlink()
    with pytest.raises(RowvitError, match="holds no pictures; pass --recursive for those in its folders"):
        image_files([folder], said.append)


def test_one_file_needs_no_list(package, files):
    with rowvit.open("golden", config="tiny") as golden:
        golden.load(package)
        assert golden(str(files[0]))[0].same(golden([files[0]])[0])
        assert golden(files[0])[0].same(golden([files[0]])[0])


@pytest.mark.parametrize("target", ["golden", "sim"])
@pytest.mark.parametrize("batch", [0, 1 << 16])
def test_a_batch_that_is_none(package, files, target, batch):
    with Session(package, target, "tiny") as session:
        for use in (session.run, lambda images, batch: session.prepare(len(images), batch)):
            with pytest.raises(
                RowvitError, match=f"a batch of {batch} images is not possible; use 1 to 65535"
            ):
                use(files, batch=batch)
