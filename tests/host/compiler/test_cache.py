# SPDX-License-Identifier: Apache-2.0
"""Compiled programs in the cache: used again, made anew where anything is another, and never in the way."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from networks import small_package
from rowvit.compiler import cache, compile
from rowvit.compiler.cache import compiled
from rowvit.compiler.head import headless
from rowvit.formats.package import ModelPackage
from rowvit.formats.program import Program
from rowvit.hardware.config import load
from rowvit.targets.target import read_program

TINY = load("tiny")


@pytest.fixture
def package() -> ModelPackage:
    return small_package(np.random.default_rng(1), depth=1)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Program]:
    """What is compiled from now on; the cache is a new folder, ``tmp_path / "cache"``."""
    found: list[Program] = []

    def compiling(*arguments: object) -> Program:
        found.append(compile(*arguments))
        return found[-1]

    monkeypatch.setattr(cache, "compile", compiling)
    monkeypatch.setenv("ROWVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ROWVIT_CACHE_PROGRAMS")
    return found


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache").iterdir())


def test_compiled_once(package: ModelPackage, made: list[Program], tmp_path: Path) -> None:
    """The second time it comes from the file: the same program, with its package, checked."""
    path = tmp_path / "small.safetensors"
    package.save(path)
    first, second = (read_program(path, TINY) for _ in range(2))
    assert len(made) == 1 and len(kept(tmp_path)) == 1
    assert first is made[0] and second is not first
    assert np.array_equal(first.blob, second.blob) and first.meta == second.meta
    assert second.checked and second.package is not None and second.package.digest() == package.digest()


def test_a_head_that_may_not_be_kept(made: list[Program], tmp_path: Path) -> None:
    """The program is, and says nothing of it; what is run is what is compiled alone."""
    package = small_package(np.random.default_rng(1), classes=9)
    secret = another_head(np.random.default_rng(2), package, 9)
    for _ in range(2):
        found = read_program(secret, TINY, keep=False)
        alone = compile(secret, TINY)
        assert np.array_equal(found.blob, alone.blob) and found.meta == alone.meta and found.checked
    (path,) = kept(tmp_path)
    assert len(made) == 1 and b"another" not in path.read_bytes() and b"class 1" not in path.read_bytes()
    other = another_head(np.random.default_rng(3), package, 9)
    assert np.array_equal(made[0].blob, compile(headless(other), TINY).blob)


def test_anything_else_is_compiled(
    package: ModelPackage, made: list[Program], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiled(package, TINY)
    compiled(package, TINY, checkpoints=True)
    compiled(package, replace(TINY, token_depth=2 * TINY.token_depth))
    compiled(package, replace(TINY, name="other"))
    weights = package.tensors["layers.0.q.weight"].copy()
    weights[0, 0] += 1 if weights[0, 0] < 0 else -1
    compiled(ModelPackage(package.meta, package.tensors | {"layers.0.q.weight": weights}), TINY)
    compiled(ModelPackage(package.meta | {"ffn_chunk": 8}, package.tensors), TINY)
    monkeypatch.setattr(cache, "_compiler", lambda: "another")
    compiled(package, TINY)
    assert len(made) == len(kept(tmp_path)) == 7


def test_what_makes_another_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A changed, new or renamed file of the compiler, the formats or the instruction set; none of others."""
    folder = tmp_path / "rowvit"
    for name in ("compiler/a.py", "formats/b.py", "hardware/c.py", "hardware/d.json", "serve/e.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1")
    monkeypatch.setattr(cache, "__file__", str(folder / "compiler" / "cache.py"))
    compiler = cache._compiler.__wrapped__
    found = [compiler()]
    for name in ("compiler/a.py", "formats/b.py", "hardware/c.py", "hardware/d.json", "formats/new.py"):
        (folder / name).write_text("2")
        found.append(compiler())
    (folder / "formats" / "new.py").rename(folder / "formats" / "old.py")
    found.append(compiler())
    assert len({*found}) == 7
    (folder / "serve" / "e.py").write_text("2")
    assert compiler() == found[-1]


@pytest.mark.parametrize("config", ["tiny", "pynq-z2"])
@pytest.mark.parametrize("seed", range(6))
def test_another_head_is_put_into_the_program(seed: int, config: str, made: list[Program]) -> None:
    """As compiled, byte by byte, whatever the classes, as long as they take as many lane groups."""
    rng, hardware = np.random.default_rng(seed), load(config)
    classes = int(rng.integers(1, 3 * hardware.tile))
    tokens = [None, {"rows": "class", "layers": [0]}, {"rows": "all", "layers": [0]}][seed % 3]
    shape = dict(dim=2 * hardware.lanes, heads=2, classes=classes)
    package = small_package(rng, **shape, tokens=tokens, pre_norm=seed % 2 == 1)
    compiled(package, hardware)
    last = -(-(classes % hardware.tile or hardware.tile) // hardware.lanes)
    full = (classes - 1) // hardware.tile * hardware.tile
    for _ in range(2):
        other = full + (last - 1) * hardware.lanes + int(rng.integers(1, hardware.lanes + 1))
        changed = another_head(rng, package, other)
        swapped = compiled(changed, hardware)
        assert len(made) == 1 and swapped.checked and swapped.package is changed
        alone = compile(changed, hardware)
        assert np.array_equal(swapped.blob, alone.blob) and swapped.meta == alone.meta


def test_a_head_of_more_lane_groups_is_compiled(made: list[Program]) -> None:
    package = small_package(np.random.default_rng(0), classes=TINY.lanes)
    for classes in (TINY.lanes, TINY.lanes + 1):
        compiled(another_head(np.random.default_rng(1), package, classes), TINY)
    assert len(made) == 2


def test_equal_tiles_of_a_head_do_not_share_their_weights(made: list[Program]) -> None:
    """Nor with anything else: another head would change that, too."""
    package = small_package(np.random.default_rng(0), classes=2 * TINY.tile)
    tensors = {
        name: np.ones_like(tensor) for name, tensor in package.tensors.items() if name.startswith("head.")
    }
    compiled(ModelPackage(package.meta, package.tensors | tensors), TINY)
    changed = another_head(np.random.default_rng(1), package, 2 * TINY.tile)
    assert np.array_equal(compiled(changed, TINY).blob, compile(changed, TINY).blob)
    assert len(made) == 1


def another_head(rng: np.random.Generator, package: ModelPackage, classes: int) -> ModelPackage:
    """The package with a random head, other names, a kept photo, and nothing else that is another."""
    dim = package.arch["dim"]
    tensors = package.tensors | {
        "head.weight": rng.integers(-127, 128, (dim, classes)).astype(np.int8),
        "head.bias": rng.integers(-1000, 1000, classes).astype(np.int32),
        "head.mult": rng.integers(1 << 14, 1 << 15, classes).astype(np.uint16),
        "taught.seen": np.zeros((1, dim), np.int8),
        "taught.labels": np.zeros(1, np.uint16),
    }
    meta = package.meta | {
        "name": "another",
        "classes": [f"class {number}" for number in range(classes)],
        "architecture": package.arch | {"classes": classes},
        "params": package.meta["params"] | {"head.shift": int(rng.integers(10, 20))},
        "scales": package.meta["scales"] | {"logit": 0.5},
        "taught": {"photos": 1},
    }
    changed = ModelPackage(meta, tensors)
    changed.check()
    return changed


def test_a_loaded_package_that_is_changed_is_another(package: ModelPackage, tmp_path: Path) -> None:
    """Its digest is remembered only as long as nothing of it has changed."""
    path = tmp_path / "small.safetensors"
    package.save(path)
    loaded = ModelPackage.load(path)
    assert loaded.digest() == loaded.meta["hash"]
    loaded.meta["pruning"] = [{"layer": 0, "keep": 2, "threshold": 1}]
    assert loaded.digest() == ModelPackage(loaded.meta, loaded.tensors).digest() != loaded.meta["hash"]
    loaded = ModelPackage.load(path)
    loaded.tensors["head.bias"] = loaded.tensors["head.bias"] + 1
    assert loaded.digest() == ModelPackage(loaded.meta, loaded.tensors).digest() != loaded.meta["hash"]


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "folder"])
def test_what_is_damaged_is_compiled_again(
    package: ModelPackage, made: list[Program], tmp_path: Path, damage: str
) -> None:
    first = compiled(package, TINY)
    (path,) = kept(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "bit":
        data[-1] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(data[: len(data) // 2 if damage == "cut" else 0])
    again = compiled(package, TINY)
    assert len(made) == 2 and np.array_equal(again.blob, first.blob)
    assert kept(tmp_path) == [path]  # and no unfinished file beside it
    compiled(package, TINY)
    assert len(made) == (3 if damage == "folder" else 2)


def test_a_cache_that_cannot_be_written_is_no_error(
    package: ModelPackage, made: list[Program], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROWVIT_CACHE", str(tmp_path / "file" / "cache"))
    assert compiled(package, TINY).checked and len(made) == 1
    monkeypatch.setenv("ROWVIT_CACHE", str(tmp_path / "cache"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert compiled(package, TINY).checked and len(made) == 2
    assert kept(tmp_path) == []


def test_a_program_is_everybodys(package: ModelPackage, made: list[Program], tmp_path: Path) -> None:
    """As far as the umask lets them: several users may share a cache."""
    before = os.umask(0o002)
    try:
        compiled(package, TINY)
    finally:
        os.umask(before)
    (path,) = kept(tmp_path)
    assert len(made) == 1 and path.stat().st_mode & 0o777 == 0o664


def test_switched_off(
    package: ModelPackage, made: list[Program], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROWVIT_CACHE_PROGRAMS", "0")
    for _ in range(2):
        compiled(package, TINY)
    assert len(made) == 2 and not (tmp_path / "cache").exists()


def test_what_is_not_used_goes(
    package: ModelPackage, made: list[Program], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With room for two programs the one goes that was not used for longest; simulators stay."""
    compiled(package, TINY)
    (first,) = kept(tmp_path)
    library = tmp_path / "cache" / "tiny-0123456789abcdef.so"
    library.touch()
    os.utime(library, (0, 0))
    monkeypatch.setattr(cache, "ROOM", 5 * first.stat().st_size // 2)
    other = replace(TINY, name="other")
    compiled(package, other)
    for path in kept(tmp_path):
        os.utime(path, (path == first, path == first))  # the first is the newer one, by a second
    (second,) = set(kept(tmp_path)) - {first, library}
    compiled(package, other)  # but the second one is used
    compiled(package, replace(TINY, name="third"))
    assert len(made) == 3
    left = kept(tmp_path)
    assert first not in left and {second, library} <= set(left) and len(left) == 3
