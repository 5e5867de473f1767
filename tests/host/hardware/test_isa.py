# SPDX-License-Identifier: Apache-2.0
"""Encoding, decoding, printing and documenting instructions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowvit.errors import RowvitError
from rowvit.hardware import generate, isa
from rowvit.hardware.isa import FIELDS, NO_DEP, Dst, Engine, Flag, Instruction, LoadKind, Op

ROOT = Path(__file__).resolve().parents[3]


@st.composite
def instructions(draw) -> Instruction:
    op = draw(st.sampled_from(Op))
    return Instruction(
        op,
        {name: draw(st.integers(0, (1 << 16 * place.slots) - 1)) for name, place in FIELDS[op].items()},
        frozenset(draw(st.sets(st.sampled_from(Flag)))),
        draw(st.integers(0, 255)),
        draw(st.dictionaries(st.sampled_from(Engine), st.integers(NO_DEP + 1, 0x7FFF))),
        frozenset(draw(st.sets(st.sampled_from(Engine)))),
        draw(st.integers(0, isa.MAX_IMAGES - 1)),
    )


@given(instructions())
def test_decode_reverses_encode(instruction: Instruction) -> None:
    slots = instruction.encode()
    assert slots.nbytes == isa.INSTRUCTION_BYTES
    assert Instruction.decode(slots.tolist()) == instruction


def test_fields_lie_where_the_table_says() -> None:
    instruction = Instruction(
        Op.LOAD, {"address": 0x12345678}, frozenset({Flag.GATHER}), 7, {Engine.DRAIN: -2}
    )
    slots = instruction.encode()
    assert slots[0] == 0x0702 and slots[1] == 4 and slots[5] == 0xFFFE and slots[3] == 0x8000
    assert (slots[10], slots[11]) == (0x5678, 0x1234)


def test_fields_of_an_opcode_do_not_overlap() -> None:
    fields = range(isa.OPERANDS, isa.INDEX)
    for table in FIELDS.values():
        taken = [slot for place in table.values() for slot in range(place.slot, place.slot + place.slots)]
        assert len(set(taken)) == len(taken) and set(taken) <= set(fields)


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        (Instruction(Op.LOAD, {"rows": 1 << 16}), "rows = 65536 does not fit 16 bits"),
        (Instruction(Op.MATMUL, {"keep": 1}), "MATMUL has no field 'keep'"),
        (Instruction(Op.NORM, tag=256), "tag = 256 does not fit 8 bits"),
        (Instruction(Op.NORM, deps={Engine.LOAD: 1 << 15}), "LOAD 32768 does not fit"),
    ],
)
def test_what_cannot_be_encoded_is_refused(instruction: Instruction, message: str) -> None:
    with pytest.raises(RowvitError, match=message):
        instruction.encode()


def test_unknown_opcodes_are_refused() -> None:
    with pytest.raises(RowvitError, match="unknown opcode 9"):
        Instruction.decode([9] * isa.SLOTS)


def test_text_names_enums_flags_and_dependencies() -> None:
    instruction = Instruction(
        Op.MATMUL,
        {"dst": Dst.KEY, "k": 192},
        frozenset({Flag.MARK}),
        3,
        {Engine.LOAD: 12, Engine.DRAIN: 7},
        frozenset({Engine.DRAIN}),
        5,
    )
    assert str(instruction) == "MATMUL  tag=3 image=5 k=192 dst=KEY MARK | LOAD>=12 DRAIN~7"
    assert (
        str(Instruction(Op.LOAD, {"kind": LoadKind.NORM, "address": 64})) == "LOAD    kind=NORM address=0x40"
    )


@pytest.mark.parametrize("path", generate.FILES, ids=str)
def test_committed_files_are_the_generated_ones(path: Path) -> None:
    assert (ROOT / path).read_text() == generate.FILES[path](), "run python -m rowvit.hardware.generate"
