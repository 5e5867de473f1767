# SPDX-License-Identifier: Apache-2.0
"""Program files: what is read is what was written, and each other file is refused with a sentence."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from networks import small_package
from rowvit.compiler import Program, compile
from rowvit.compiler.plan import Stage
from rowvit.errors import RowvitError
from rowvit.formats import container
from rowvit.formats.program import FORMAT, Operation, OperationKind
from rowvit.hardware.config import load
from rowvit.hardware.isa import ABI_VERSION, INSTRUCTION_BYTES


@pytest.fixture(scope="module")
def program() -> Program:
    """A pass for one image and one for two."""
    return compile(small_package(np.random.default_rng(1)), load("tiny"), stages=(Stage(0, 2),))


def test_save_and_load(program: Program, tmp_path: Path) -> None:
    program.save(tmp_path / "p.safetensors")
    again = Program.load(tmp_path / "p.safetensors")
    assert again.meta == program.meta
    assert again.package is None and program.package is not None
    assert program.checked and not again.checked
    np.testing.assert_array_equal(again.blob, program.blob)
    np.testing.assert_array_equal(again.code, program.code)
    np.testing.assert_array_equal(again.weights, program.weights)
    assert again.blob.size == again.code.size * 2 + again.weights.size
    assert [part.images for part in again.passes] == [1, 2]
    assert [again.pass_for(n).images for n in (1, 2, 3, 8)] == [1, 2, 1, 2]
    for part, same, meta in zip(again.passes, program.passes, program.meta["passes"], strict=True):
        assert part.operations == same.operations and len(part.operations) == len(part.code) - 2
        assert (part.shares, part.output_bytes) == (meta["shares"], meta["output_bytes"])
        np.testing.assert_array_equal(part.code, same.code)
        own = again.blob[part.offset :][: len(part.code) * INSTRUCTION_BYTES]
        np.testing.assert_array_equal(own, np.ascontiguousarray(part.code).view(np.uint8).ravel())
        assert [one.op for one in part.instructions] == [one.op for one in same.instructions]
        assert part.instructions is part.instructions and part.instructions[0].encode().tolist() == (
            part.code[0].tolist()
        )
    assert again.passes[0].offset == 0 and again.passes[1].offset == len(again.passes[0].code) * 64


def test_what_a_program_is_made_of_does_not_change(program: Program) -> None:
    for one, name in ((program.passes[0], "images"), (program.passes[0].operations[0], "layer")):
        with pytest.raises(AttributeError):
            setattr(one, name, 3)


def test_texts_leave_out_the_package(program: Program) -> None:
    assert "package" not in repr(replace(program, code=program.code[:1], weights=program.weights[:1]))


def test_labels_and_json() -> None:
    ffn2 = Operation(OperationKind.FFN2, 3, chunk=0, tile=2, row_tile=1)
    late = Operation(OperationKind.FFN1, 0, tile=0, band=7)
    norm = Operation(OperationKind.NORM, 5)
    assert [one.label for one in (ffn2, late, norm)] == ["fc2.0.2.1", "fc1.0.7", "norm"]
    assert ffn2.to_json() == {"kind": "fc2", "layer": 3, "chunk": 0, "tile": 2, "row_tile": 1}
    assert norm.to_json() == {"kind": "norm", "layer": 5}
    for one in (ffn2, late, norm):
        assert Operation.from_json(one.to_json()) == one
    assert len({ffn2, late, norm, Operation.from_json(norm.to_json())}) == 3


def test_what_is_no_program_is_refused(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    tensors = {"program": program.code, "weights": program.weights}
    for metadata in ({}, {"rowvit-program": "{"}, {"rowvit-program": "[]"}, {"rowvit-program": '{"abi": 3}'}):
        container.write(path, tensors, metadata)
        with pytest.raises(RowvitError, match=f"{path} is not a rowvit program") as caught:
            Program.load(path)
        assert "compile a model package first" in caught.value.advice


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"abi": 99}, f"has format {FORMAT} and ABI 99, this rowvit has {FORMAT} and {ABI_VERSION}"),
        ({"format": 1}, f"has format 1 and ABI {ABI_VERSION}, this rowvit has {FORMAT} and {ABI_VERSION}"),
    ],
)
def test_other_versions_are_refused(program: Program, tmp_path: Path, change: dict, words: str) -> None:
    replace(program, meta=program.meta | change).save(tmp_path / "q.safetensors")
    with pytest.raises(RowvitError, match=words) as caught:
        Program.load(tmp_path / "q.safetensors")
    assert caught.value.advice == "compile it again"


def write(path: Path, right: Program, tensors: dict[str, np.ndarray], sha256: str = "") -> None:
    """The program's description over any tensors, with a checksum that is right or another."""
    right.save(path)
    _, metadata = container.read(path)
    checksum = sha256 or container.digest(right.meta, tensors)
    container.write(path, tensors, metadata | {"sha256": checksum})


def test_other_tensors_are_refused(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    code, weights = program.code, program.weights
    count = len(code)
    more = {name: weights[:8] for name in "abcdefg"}
    for tensors, words in (
        ({}, "its tensors are missing"),
        (dict(program=code), "its tensors are program$"),
        (dict(program=code, weights=weights, **more), "its tensors are a, b, c, d, e$"),
        (dict(program=code[:-1], weights=weights), rf"uint16 \[{count - 1}, 32\], not {count} instructions"),
        (dict(program=code[:, :-1], weights=weights), rf"uint16 \[{count}, 31\], not {count} instructions"),
        (dict(program=code.astype(np.int32), weights=weights), "its code is int32"),
        (dict(program=code, weights=weights[None]), r"its weights are uint8 \[1, \d+\], not bytes"),
        (dict(program=code, weights=weights.view(np.int8)), r"its weights are int8 \[\d+\], not bytes"),
    ):
        write(path, program, tensors)
        with pytest.raises(RowvitError) as caught:
            Program.load(path)
        assert caught.value.advice == "compile it again" and re.search(words, caught.value.message)
    write(path, program, dict(program=code, weights=weights), "0" * 64)
    with pytest.raises(RowvitError, match="does not match its checksum"):
        Program.load(path)


def test_an_unknown_operation_is_refused(program: Program, tmp_path: Path) -> None:
    code = program.code.copy()
    code[1, 0] = 0x3F  # an opcode that there is not
    replace(program, code=code).save(tmp_path / "q.safetensors")
    loaded = Program.load(tmp_path / "q.safetensors")
    with pytest.raises(RowvitError):
        loaded.passes[0].instructions  # noqa: B018
