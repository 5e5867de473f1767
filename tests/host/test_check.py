# SPDX-License-Identifier: Apache-2.0
"""The checker of programs refuses what would compute something else for some images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from machine import Machine
from networks import random_patches, small_package
from rowvit import reference
from rowvit.compiler import Program, check, compile
from rowvit.compiler.plan import ALONE, Plan, Stage
from rowvit.compiler.sharing import candidates
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.hardware.config import HardwareConfig, load
from rowvit.hardware.isa import FIELDS, Flag, Instruction, Op, Record
from rowvit.quant.synthetic import random_package
from rowvit.targets.target import read_program

TINY = load("tiny")
#: fields that a second image or pass would be needed for, or the weights' bytes
UNKNOWN = {"shift", "thr", "s_mult", "s_shift", "pv_shift", "address"}


def late_rows(seed: int = 0) -> ModelPackage:
    """Images share weights once few tokens are left; before, some neurons are used by few of the many."""
    return random_package(
        np.random.default_rng(seed),
        dim=16,
        depth=3,
        heads=1,
        image_size=14,
        patch_size=2,
        hidden=128,
        classes=10,
        pruning=[{"layer": 1, "keep": 3, "threshold": 0}],
        rare=0.9,
    )


#: a token memory with room for one chunk of hidden neurons, so that late bands have a mask of their own
LATE = replace(TINY, token_depth=2048)
TOGETHER = (Stage(0, 1), Stage(2, 4))


def with_code(program: Program, instructions: dict[int, Instruction]) -> Program:
    code = program.code.copy()
    for number, instruction in instructions.items():
        code[number] = instruction.encode()
    return Program(code, program.weights, program.meta)


def of_image_0(program: Program) -> Program:
    """As a compiler made it that asked image 0 whether a band is live, whoever the load was for."""
    part = program.passes[-1]
    start = len(program.code) - len(part.code)
    late = {
        start + n: replace(one, image=0)
        for n, one in enumerate(part.instructions)
        if one.op is Op.LOAD and Flag.GATHER in one.flags and one.fields["band0"] and one.image
    }
    assert late
    return with_code(program, late)


def test_a_late_load_that_asks_another_image_is_refused() -> None:
    program = compile(late_rows(), LATE, stages=TOGETHER)
    check(program, LATE)
    with pytest.raises(
        RowvitError, match=r"fc2.* rows of W2 that its band \d+ uses may not have been loaded|mask"
    ):
        check(of_image_0(program), LATE)


def answers(program: Program, config: HardwareConfig, patches: np.ndarray, seed: int) -> list[list]:
    """Logits and kept rows of every image on the model of the machine."""
    found = Machine(program, config, np.random.default_rng(seed), len(patches)).run(patches)
    return [
        [np.concatenate([data for kind, _, data in records if kind is Record.LOGITS]).tolist()]
        + [data.tolist() for kind, _, data in records if kind is Record.KEPT]
        for records in found
    ]


def other_value(draw, fields: dict[str, int], others: list[dict[str, int]], lanes: int) -> dict[str, int]:
    """A field and another value of it: the next ones, a lane tile on, or what an instruction alike has."""
    name = draw(st.sampled_from(sorted(fields.keys() - UNKNOWN)))
    value = fields[name]
    near = [value + 1, value - 1, value + lanes, value - lanes, 0]
    choices = [v for v in near if v >= 0] + [other[name] for other in others]
    new = choices[draw(st.integers(0, len(choices) - 1))]
    assume(new != value)
    return {name: new}


@settings(max_examples=80)
@given(st.integers(0, 2**32 - 1), st.data())
def test_a_changed_program_is_refused_or_right(seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.choice([2, 4, 8]))
    package = small_package(rng, tile_rows=rows * int(rng.integers(1, 4)), rare=float(rng.choice([0.0, 0.5])))
    depths = dict(token_depth=4096, residual_depth=4096)
    config = replace(TINY, **depths, rows=rows, groups=int(rng.integers(1, 4)))
    shared = package.meta["ffn2_rule"] != "tile"
    stages = data.draw(
        st.sampled_from([ALONE, *(candidates(Plan(package.meta, config), 3) if shared else ())])
    )
    program = compile(package, config, stages=stages)
    part = program.passes[-1]
    number = data.draw(st.integers(1, len(part.code) - 2))
    one = part.instructions[number]
    if data.draw(st.booleans()):
        alike = [other.fields for other in part.instructions if other.op is one.op]
        new = replace(one, fields=one.fields | other_value(data.draw, one.fields, alike, config.lanes))
    elif data.draw(st.booleans()):
        new = replace(one, image=data.draw(st.integers(0, part.images)))
    else:
        new = replace(one, flags=one.flags ^ {data.draw(st.sampled_from(Flag))})
    try:
        changed = with_code(program, {len(program.code) - len(part.code) + number: new})
        check(changed, config)
    except RowvitError:
        return
    patches = random_patches(rng, package, 2 * part.images)
    expected = answers(program, config, patches, seed)
    assert answers(changed, config, patches, seed) == expected, f"{number}: {one} -> {new}"


def test_what_two_passes_show_of_constants() -> None:
    """A shift that is not that of the other images."""
    program = compile(late_rows(), LATE, stages=TOGETHER)
    number, one = next(
        (n, one) for n, one in enumerate(program.passes[0].instructions) if one.op is Op.MATMUL
    )
    assert "shift" in FIELDS[one.op]
    wrong = with_code(program, {number: replace(one, fields=one.fields | {"shift": one.fields["shift"] + 1})})
    with pytest.raises(RowvitError, match="differ from"):
        check(wrong, LATE)


def test_a_wrong_program_file_is_refused(tmp_path: Path) -> None:
    """Before it runs, with a sentence that says where it is wrong and what to do."""
    path = tmp_path / "old.safetensors"
    of_image_0(compile(late_rows(), LATE, stages=TOGETHER)).save(path)
    with pytest.raises(RowvitError, match=r"is wrong at instruction .* image \d of 4") as caught:
        read_program(path, LATE)
    assert "compile the package again" in caught.value.advice


@pytest.mark.parametrize("seed", [0, 2, 5])
def test_images_that_run_alone_have_all_their_rows(seed: int) -> None:
    """Neurons that only the last bands use, in layers before the images share: once they had not."""
    package = late_rows(seed)
    patches = random_patches(np.random.default_rng(seed), package, 4)
    expected = [result.logits.tolist() for result in reference.run(package, patches)]
    program = compile(package, LATE, stages=TOGETHER)
    assert [records[0] for records in answers(program, LATE, patches, seed)] == expected
    with pytest.raises(AssertionError, match="weight memory read"):
        answers(of_image_0(program), LATE, patches, seed)
