# SPDX-License-Identifier: Apache-2.0
"""Packages and programs whose description is wrong, with a checksum that is right: a sentence, or no harm."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rowvit.cli import app
from rowvit.compiler import compile
from rowvit.errors import RowvitError
from rowvit.formats import container
from rowvit.formats.package import ModelPackage
from rowvit.formats.program import Program
from rowvit.hardware.config import load
from rowvit.quant.synthetic import random_package

WRONG: list[Any] = [None, True, "x", "", -1, 0, 1, 3, 1.5, 1 << 40, [], ["x"], {}, {"x": 1}]
DELETED = object()


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
        for wrong in [DELETED, *WRONG]:
            edited = copy.deepcopy(meta)
            where = edited
            for key in path[:-1]:
                where = where[key]
            if wrong is DELETED:
                del where[path[-1]]
            else:
                where[path[-1]] = wrong
            yield f"{'.'.join(map(str, path))} = {'deleted' if wrong is DELETED else wrong!r}", edited


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
        edited = ModelPackage(meta, package.tensors)
        meta["hash"] = edited.digest()
        container.write(path, package.tensors, {"rowvit": json.dumps(meta)})
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
        metadata = {"rowvit-program": json.dumps(meta), "sha256": container.digest(meta, tensors)}
        container.write(path, tensors, metadata)
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
