# SPDX-License-Identifier: Apache-2.0
"""Packages and programs that are wrong, with a checksum that is right: a sentence, or no harm."""

from __future__ import annotations

import copy
import json
import math
import os
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rowvit.cli import app
from rowvit.compiler import compile
from rowvit.compiler.plan import Stage
from rowvit.errors import RowvitError, replacing
from rowvit.formats import container
from rowvit.formats.package import ModelPackage
from rowvit.formats.program import Program
from rowvit.hardware.config import load
from rowvit.quant.synthetic import random_package

WRONG: list[Any] = [None, True, "x", "", -1, 0, 1, 3, 1.5, 1 << 40, [], ["x"], {}, {"x": 1}]
NUMBERS: list[Any] = [-(1 << 40), 10**9, 10**400, 1e-300, 1e300, math.nan, math.inf]  #: in place of one
DELETED = object()
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    return random_package(
        np.random.default_rng(8),
        dim=32,
        depth=2,
        heads=2,
        image_size=8,
        patch_size=2,
        hidden=32,
        classes=3,
        pruning=[{"layer": 0, "keep": 9, "threshold": 0}],
    )


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "p.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    return path


def edits(meta: Any) -> Iterator[tuple[str, Any]]:
    """Where, and a copy of ``meta`` that is wrong there."""

    def places(value: Any, path: tuple) -> Iterator[tuple]:
        inner = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, item in list(inner)[:4] if isinstance(value, list) else inner:
            yield (*path, key)
            yield from places(item, (*path, key))

    for path in places(meta, ()):
        value = meta
        for key in path:
            value = value[key]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        others = [*NUMBERS, value + 1, float(value)] if number else ["\ud800"] * isinstance(value, str)
        for wrong in [DELETED, *WRONG, *others]:
            edited = copy.deepcopy(meta)
            where = edited
            for key in path[:-1]:
                where = where[key]
            if wrong is DELETED:
                del where[path[-1]]
            else:
                where[path[-1]] = wrong
            yield f"{'.'.join(map(str, path))} = {'deleted' if wrong is DELETED else wrong!r}", edited


def tensor_edits(tensors: dict[str, np.ndarray]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """What is wrong, and tensors of which one is."""
    for name, tensor in tensors.items():
        others = {
            "in a list": tensor[None],
            "of lists": tensor[..., None],
            "flat": tensor.ravel() if tensor.ndim > 1 else tensor.reshape(1, -1),
            "a scalar": tensor.ravel()[0].reshape(()),
            "empty": tensor[:0],
            "shorter": tensor[:-1],
            "longer": np.concatenate([tensor, tensor[:1]]),
        }
        for dtype in ("bool", "int8", "uint8", "int16", "uint16", "int32", "float32", "float64", "uint64"):
            if tensor.dtype != dtype:
                others[dtype] = tensor.astype(dtype)
        for what, other in others.items():
            yield f"{name} {what}", tensors | {name: other}
        yield f"no {name}", {key: value for key, value in tensors.items() if key != name}
    yield "one more", tensors | {"x": np.zeros(1 << 10, np.uint8)}
    yield "none", {}


def write_package(path: Path, meta: dict, tensors: dict[str, np.ndarray]) -> None:
    meta["hash"] = ModelPackage(meta, tensors).digest()
    container.write(path, tensors, {"rowvit": json.dumps(meta)})


def write_program(path: Path, meta: dict, tensors: dict[str, np.ndarray]) -> None:
    metadata = {"rowvit-program": json.dumps(meta), "sha256": container.digest(meta, tensors)}
    container.write(path, tensors, metadata)


def command(*arguments: Any) -> int:
    """Exit code; a traceback fails."""
    found = CliRunner().invoke(app, [*map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code in (0, 1, 2)
    return found.exit_code


@pytest.mark.parametrize(
    "sample", [pytest.param(12, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
def test_packages(package, photo, tmp_path, sample):
    path, harmless = tmp_path / "p.safetensors", 0
    for number, (where, meta) in enumerate(edits(package.meta)):
        if number % sample:
            continue
        write_package(path, meta, package.tensors)
        try:
            ModelPackage.load(path)
        except RowvitError as error:
            assert str(error).startswith(str(path)), where
            assert command("info", path) == 2, where
            continue
        except Exception as error:
            raise AssertionError(where) from error
        harmless += 1
        try:
            command("info", path)
            command("run", path, photo, "-t", "golden", "-c", "tiny")
            command("compile", path, "-c", "tiny", "-o", tmp_path / "c.safetensors")
        except Exception as error:
            raise AssertionError(where) from error
    assert harmless  # names, for instance


@pytest.mark.parametrize(
    "sample", [pytest.param(40, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
def test_programs(package, tmp_path, sample):
    program = compile(package, load("tiny"))
    tensors = {"program": program.code, "weights": program.weights}
    path, harmless = tmp_path / "p.safetensors", 0
    for number, (where, meta) in enumerate(edits(program.meta)):
        if number % sample:
            continue
        write_program(path, meta, tensors)
        try:
            Program.load(path)
        except RowvitError as error:
            assert str(error).startswith(str(path)), where
            continue
        except Exception as error:
            raise AssertionError(where) from error
        harmless += 1
        try:
            command("disasm", path)
            command("info", path)
        except Exception as error:
            raise AssertionError(where) from error
    assert harmless


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m["input"].update(rows=15, bytes=15 * 16),
            "rows and row_words are not those of the patches",
        ),
        (lambda m: m["input"].update(row_words=3, bytes=16 * 24), "rows and row_words are not those of the"),
        (lambda m: m["input"].update(bytes=16 * 16 + 8), "rows, row_words and bytes do not agree"),
        (lambda m: m["passes"].reverse(), "passes.0 runs 4 images, not 1"),
        (
            lambda m: m["passes"].append({**m["passes"][1], "images": 17}),
            "passes.2.images is 17, but must be",
        ),
        (lambda m: m["passes"][1].update(images=6), r"passes.1 has shares \[2, 4\] that do not divide"),
        (lambda m: m["passes"][1].update(shares=[3, 4]), r"passes.1 has shares \[3, 4\] that do not divide"),
        (lambda m: m["passes"][1].update(shares=[4, 2]), r"passes.1 has shares \[4, 2\] that do not divide"),
        (lambda m: m["passes"][1].update(shares=[2, 10**9]), "shares.1 is 1000000000, but must be smaller"),
        (lambda m: m["passes"][1].update(shares=[4]), "passes.1 has 1 shares for depth 2"),
        (lambda m: m["passes"][0].update(output_bytes=95), "output_bytes 95, but its records take 96 to 96"),
        (lambda m: m["passes"][0].update(output_bytes=97), "output_bytes 97, but its records take 96 to 96"),
        (lambda m: m["passes"][0]["operations"].pop(), "passes.0 has .* operations for .* instructions"),
        (lambda m: m["architecture"].update(depth=2.0), "architecture.depth is 2.0, but must be integer"),
    ],
)
def test_what_does_not_agree_is_said(package, tmp_path, change, message):
    program = compile(package, load("tiny"), stages=(Stage(0, 2), Stage(1, 4)))
    path = tmp_path / "p.safetensors"
    program.save(path)
    changed = Program.load(path)
    change(changed.meta)
    changed.save(path)
    with pytest.raises(RowvitError, match=message):
        Program.load(path)


def test_what_the_network_answers_with_is_missing(package, tmp_path):
    """Where a head on the host takes it, and in a program."""
    meta = {key: value for key, value in package.meta.items() if key != "pruning"} | {"pruning": []}
    meta["architecture"] = meta["architecture"] | {"classes": 0}
    meta["tokens"] = {"rows": "all", "layers": [1], "shift": 1}
    meta |= {"scales": meta["scales"] | {"tokens": 0.1}, "classes": []}
    tensors = {name: tensor for name, tensor in package.tensors.items() if not name.startswith("head.")}
    tensors |= {"tokens.g": tensors["norm.g"], "tokens.b": tensors["norm.b"]}
    program, path = compile(ModelPackage(meta, tensors), load("tiny")), tmp_path / "p.safetensors"
    program.save(path)
    program = Program.load(path)
    del program.meta["tokens"]["layout"]
    program.save(path)
    with pytest.raises(RowvitError, match=r"tokens\.layout belongs to a program"):
        Program.load(path)
    head = {"pool": "mean", "steps": [{"op": "linear", "name": "linear", "out": 3}]}
    del meta["tokens"]
    with pytest.raises(RowvitError, match="answers with the tokens behind its last layer"):
        ModelPackage(meta | {"host_head": head, "classes": ["ant", "bee", "cow"]}, tensors).check("p")


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("classes", [1, 16, 17, 70])
def test_output_bytes_of_what_is_compiled(tmp_path, groups, classes):
    """With and without checkpoints, of one lane tile of logits or several."""
    config = replace(load("tiny"), groups=groups)
    pruning = [{"layer": 0, "keep": 9, "threshold": 0}]
    rng = np.random.default_rng(groups)
    small = random_package(
        rng, dim=32, depth=2, heads=2, image_size=8, patch_size=2, hidden=32, classes=classes, pruning=pruning
    )
    for checkpoints in (False, True):
        compile(small, config, checkpoints).save(tmp_path / "p.safetensors")
        Program.load(tmp_path / "p.safetensors")


def test_tensors(package, tmp_path):
    """Of another shape or type, missing, or too many."""
    program = compile(package, load("tiny"))
    path = tmp_path / "p.safetensors"
    for where, tensors in tensor_edits(package.tensors):
        write_package(path, copy.deepcopy(package.meta), tensors)
        with pytest.raises(RowvitError, match="tensor"):
            ModelPackage.load(path)
            raise AssertionError(where)
    for where, tensors in tensor_edits({"program": program.code, "weights": program.weights}):
        write_program(path, program.meta, tensors)
        if where in ("weights shorter", "weights longer", "weights empty"):
            continue  # still bytes
        with pytest.raises(RowvitError, match=r"is damaged: its (code|weights|tensors)"):
            Program.load(path)
            raise AssertionError(where)


@pytest.mark.parametrize("change", [{"accuracy": {"top1": float("nan")}}, {"history": ["caf\udce9"]}])
def test_what_could_not_be_read_is_not_written(package, tmp_path, change):
    odd = ModelPackage(package.meta | change, package.tensors)
    with pytest.raises(RowvitError, match=r"p\.safetensors: the description holds what no JSON may"):
        odd.save(tmp_path / "p.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_as_a_whole(package, tmp_path, monkeypatch):
    """What was there stays where writing fails, as on a full disk; a link stays one."""
    path, link = tmp_path / "p.safetensors", tmp_path / "link.safetensors"
    package.save(path)
    path.chmod(0o640)
    link.symlink_to(path)
    ModelPackage(package.meta | {"name": "second"}, package.tensors).save(link)
    assert link.is_symlink() and ModelPackage.load(path).meta["name"] == "second"
    assert path.stat().st_mode & 0o777 == 0o640

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RowvitError, match=r"p\.safetensors: cannot be written \(No space left on device\)"):
        package.save(path)
    monkeypatch.undo()
    assert ModelPackage.load(path).meta["name"] == "second" and len(list(tmp_path.iterdir())) == 2
    package.save("/dev/null")
    reading, writing = os.pipe()
    with replacing(f"/dev/fd/{writing}") as file, open(reading) as pipe:
        file.write_text("{}")
        os.close(writing)
        assert pipe.read() == "{}"


def test_two_that_write_one_file(tmp_path):
    """Whoever ends last is there, as a whole; a file of the user's with a like name stays."""
    path, own = tmp_path / "r.json", tmp_path / "r.json.part"
    own.write_text("mine")
    with replacing(path) as one:
        one.write_text("one, whole")
        with replacing(path) as other:
            other.write_text("other")
        assert path.read_text() == "other"
    assert path.read_text() == "one, whole" and own.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == [path, own]


def test_types_that_no_package_has(tmp_path):
    """As of most checkpoints."""
    head = b'{"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}'
    (tmp_path / "b.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))
    with pytest.raises(RowvitError, match=r"b\.safetensors: holds tensors of type BF16, and .*; rowvit imp"):
        ModelPackage.load(tmp_path / "b.safetensors")


def test_no_number_takes_memory(package, tmp_path):
    """However large it is: a file takes about as much as it has bytes."""
    program = compile(package, load("tiny"))
    tensors, path = {"program": program.code, "weights": program.weights}, tmp_path / "p.safetensors"
    size = sum(tensor.nbytes for tensor in [*tensors.values(), *package.tensors.values()])
    assert 20 * size < 8 * MEGABYTE
    tracemalloc.start()
    try:
        for where, meta in edits(program.meta):
            if where.endswith(" = 1000000000"):  # larger ones exceed every range
                write_program(path, meta, tensors)
                tracemalloc.reset_peak()
                try:
                    Program.load(path)
                    assert where.startswith(("preprocessing.", "scales.", "config.hash")), where
                except RowvitError:
                    pass
                assert tracemalloc.get_traced_memory()[1] < 8 * MEGABYTE, where
    finally:
        tracemalloc.stop()


def test_every_flipped_bit_is_found(package, tmp_path):
    """In code, weights and description: the checksum covers all of a program's file."""
    path = tmp_path / "p.safetensors"
    compile(package, load("tiny")).save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    Program.load(path)
    for position in rng.choice(len(whole), 300, replace=False):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = Program.load(path)
        except RowvitError:
            continue
        # what is left: names in the file's own header that nobody reads, or blanks
        assert np.array_equal(loaded.blob, compile(package, load("tiny")).blob)
