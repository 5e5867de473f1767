# SPDX-License-Identifier: Apache-2.0
"""The checker of programs refuses what would compute something else for some images."""

from __future__ import annotations

import re
from contextlib import nullcontext
from copy import deepcopy
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
from rowvit.compiler.cells import Area, Cells, Value, Values
from rowvit.compiler.plan import ALONE, Plan, Stage
from rowvit.compiler.sharing import candidates
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.formats.program import OperationKind
from rowvit.hardware.config import HardwareConfig, load
from rowvit.hardware.isa import (
    FIELDS,
    INSTRUCTION_BYTES,
    Dst,
    Flag,
    Instruction,
    LoadKind,
    NormKind,
    Op,
    Record,
)
from rowvit.quant.synthetic import random_package
from rowvit.targets.target import read_program

TINY = load("tiny")
#: loads that are for one image
PLACED = (LoadKind.RESIDUAL, LoadKind.PLACE)
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


NETWORK = dict(dim=32, depth=2, heads=4, image_size=10, patch_size=2, hidden=48, classes=20, ffn_chunk=32)
#: programs that have instructions of every kind: row tiles with masks of their own; dense chunks, patches in
#: chunks, and two groups of which the last tile of each kind uses one; images that share what is loaded, with
#: late bands that have a mask of their own. All answer with tokens
PROGRAMS = {
    "tiles": (dict(ffn2_rule="tile", tile_rows=4, tokens={"rows": "all", "layers": [0, 1]}), TINY, {}),
    "dense": (
        dict(dim=48, heads=3, image_size=60, patch_size=20, ffn2_rule="none")
        | dict(pruning=[{"layer": 0, "keep": 5, "threshold": 7}], tokens={"rows": "class", "layers": [1]}),
        replace(TINY, groups=2),
        dict(checkpoints=True, batch=1),
    ),
    "shared": (
        dict(dim=16, heads=1, image_size=8, hidden=32, rare=0.9)
        | dict(pruning=[{"layer": 0, "keep": 3, "threshold": 0}], tokens={"rows": "all", "layers": [0, 1]})
        | dict(rotary=True, gated=True),
        replace(TINY, token_depth=448),
        dict(stages=(Stage(0, 1), Stage(1, 2))),
    ),
}


@pytest.fixture(scope="module", params=PROGRAMS)
def right(request) -> tuple[Program, HardwareConfig]:
    changes, config, options = PROGRAMS[request.param]
    package = random_package(np.random.default_rng(0), **NETWORK | changes)
    return compile(package, config, **options), config


def kinds(one: Instruction) -> set[str]:
    """What an instruction is, in the words in which the meanings of its fields say whose they are."""
    found = {flag.name for flag in one.flags}
    if one.op is Op.LOAD:
        found.add(LoadKind(one.fields["kind"]).name)
    elif one.op is Op.MATMUL:
        found.add(Dst(one.fields["dst"]).name)
    elif one.op is Op.NORM:
        found.add(NormKind(one.fields["kind"]).name)
    return found


def matters(one: Instruction, name: str, step: int) -> bool:
    """Whether a field that is one more or less makes the instruction wrong, and can be seen to."""
    of = FIELDS[one.op][name].meaning.replace(",", " ").partition(":")[0].split()
    words = {word for word in of if word.isupper()}
    if name in UNKNOWN or one.fields[name] + step < 0 or (words and not words & kinds(one)):
        return False
    # more than it needs is no fault
    more = name in ("rows", "groups") if one.op is Op.LOAD else name in ("bands", "p_stride")
    # without a use: the place of what no other instruction names, strides of one band, and of a mask its row
    # tiles, if it is one for all bands, and its place, if it goes on
    f = one.fields
    masks = f.get("mask_bands", 0)
    many = Flag.ONE_ROW not in one.flags and (f.get("bands") != 1 or f["band0"])
    used = {
        "p_base": False,
        "dst_stride": many,
        "src_stride": many,
        "mask_base": masks and Flag.JOIN not in one.flags,
        "mask_stride": 0 < masks < 0xFFFF,
        "mask_bands": masks < 0xFFFF,
    }
    return not (more and step > 0) and (one.op is Op.LOAD or bool(used.get(name, True)))


def refused(program: Program, config: HardwareConfig, number: int, new: Instruction) -> str:
    """What is wrong with the last pass whose instruction ``number`` is another; "": nothing."""
    start = len(program.code) - len(program.passes[-1].code)
    try:
        check(with_code(program, {start + number: new}), config)
    except RowvitError as error:
        return error.message
    return ""


def one_of_each(program: Program) -> dict[int, Instruction]:
    """An instruction of every kind: if there are more, neither the first of them nor the last."""
    found: dict[tuple, list[int]] = {}
    code = program.passes[-1].instructions
    for number, one in enumerate(code[1:-1], 1):
        found.setdefault((one.op, *sorted(kinds(one))), []).append(number)
    middle = [numbers[(len(numbers) - 1) // 2] for numbers in found.values()]
    return {number: code[number] for number in middle}


def test_every_field_matters(right: tuple[Program, HardwareConfig]) -> None:
    program, config = right
    for number, one in one_of_each(program).items():
        for name, value in one.fields.items():
            for step in (1, -1):
                if matters(one, name, step):
                    new = replace(one, fields=one.fields | {name: value + step})
                    assert "is wrong" in refused(program, config, number, new), (number, one, name, step)


def test_every_flag_matters(right: tuple[Program, HardwareConfig]) -> None:
    """All rows in place of those of a mask are no fault."""
    program, config = right
    for number, one in one_of_each(program).items():
        for flag in Flag:
            all_rows = one.op is Op.LOAD and flag is Flag.GATHER in one.flags and Flag.REST not in one.flags
            new = replace(one, flags=one.flags ^ {flag})
            assert all_rows or "is wrong" in refused(program, config, number, new), (number, one, flag)


def test_every_image_matters(right: tuple[Program, HardwareConfig]) -> None:
    """But not whose a load is that has no guard, as long as it is one of the pass."""
    program, config = right
    images = program.passes[-1].images
    for number, one in one_of_each(program).items():
        anyone = one.op is Op.LOAD and one.fields["kind"] not in PLACED and not one.fields["band0"]
        for image in {images, one.image ^ 1}:
            message = refused(program, config, number, replace(one, image=image))
            assert "is wrong" in message or (anyone and image < images), (number, one, image)


def others(program: Program, config: HardwareConfig) -> dict[str, tuple[int, dict[str, int], str]]:
    """What no change by one shows: an instruction, its other fields, and the words that refuse it."""
    code = list(enumerate(program.passes[-1].instructions))

    def first(op: Op, **fields: int) -> tuple[int, dict[str, int]]:
        return next(
            (n, one.fields) for n, one in code if one.op is op and fields.items() <= one.fields.items()
        )

    weights, f = first(Op.LOAD, kind=LoadKind.WEIGHT)
    lines = config.weight_depth - f["rows"]
    parameters, _ = first(Op.LOAD, kind=LoadKind.PARAM)
    norm, _ = first(Op.LOAD, kind=LoadKind.NORM)
    key, k = first(Op.MATMUL, dst=Dst.KEY)
    hidden, _ = first(Op.MATMUL, dst=Dst.HIDDEN)
    query, q = first(Op.MATMUL, dst=Dst.TOKEN)
    embedding, _ = first(Op.MATMUL, dst=Dst.RESIDUAL)
    head, h = first(Op.MATMUL, dst=Dst.STREAM)
    tokens, t = first(Op.NORM, kind=NormKind.TOKENS)
    sizes = {
        LoadKind.WEIGHT: lambda f: f["rows"] * f["groups"] * config.lanes,
        LoadKind.PARAM: lambda f: 8 * f["groups"] * config.lanes,
        LoadKind.NORM: lambda f: 8 * f["rows"],
        LoadKind.RESIDUAL: lambda f: 8 * config.residual_words(f["rows"]),
        LoadKind.ROTATION: lambda f: 8 * f["rows"],
        LoadKind.PLACE: lambda f: 8 * f["rows"],
    }
    there = {LoadKind(one.fields["kind"]) for _, one in code if one.op is Op.LOAD}
    loads = {kind: first(Op.LOAD, kind=kind) for kind in there}
    behind = {
        f"{kind.name} behind the blob": (
            n,
            dict(address=program.blob.size - sizes[kind](f) + 8),
            "are no words",
        )
        for kind, (n, f) in loads.items()
    }
    behind |= {
        f"{kind.name} of an odd number": (n, dict(rows=f["rows"] - 1), "rows of")
        for kind, (n, f) in loads.items()
        if kind not in (LoadKind.WEIGHT, LoadKind.PARAM, LoadKind.NORM)
    }
    joined = [n + 1 for n, one in code if Flag.JOIN in one.flags and Flag.JOIN not in code[n + 1][1].flags]
    goes_on = {}
    for n in joined[-1:]:
        for fields in (dict(mask_bands=1), dict(band0=1)):
            goes_on[f"a mask that may end before: {fields}"] = n, fields, "a mask that goes on"
        goes_on["a mask that ends"] = n - 1, dict(mask_bands=1), "a mask that is to go on"
    return (
        behind
        | goes_on
        | {
            "code for weights": (weights, dict(address=program.code.nbytes - 8), "no words of 8 bytes among"),
            "half a word": (weights, dict(address=f["address"] + 4), "no words of 8 bytes among"),
            "lines behind the last": (weights, dict(dst=lines + 1), f"weight lines {lines + 1} to"),
            "no rows": (weights, dict(rows=0), "0 rows of"),
            "no groups": (weights, dict(groups=0), "rows of 0 groups"),
            "groups that are not there": (weights, dict(groups=config.groups + 1), "groups"),
            "a slot that is not there": (parameters, dict(dst=config.param_slots), "is not there"),
            "a norm slot that is not there": (norm, dict(dst=config.norm_slots), "is not there"),
            "K over its own weights": (key, dict(dst_base=k["wbase"] + k["k"] - 1), "over its own weights"),
            "Q behind the memory": (query, dict(dst_base=config.token_depth - 1), f"of {config.token_depth}"),
            "rows over each other": (query, dict(dst_stride=q["groups"] * 2 - 1), "token addresses"),
            "the residual stream's end": (
                embedding,
                dict(dst_base=config.residual_depth),
                "residual addresses",
            ),
            "a mask word that is not there": (
                hidden,
                dict(mask_base=config.mask_depth, mask_bands=0xFFFF),
                "mask word" if program.meta["ffn2_rule"] != "none" else "is wrong",
            ),
            "masks of another rule": (
                hidden,
                dict(mask_bands=int(program.meta["ffn2_rule"] == "none")),
                "mask_bands with FFN2 rule",
            ),
            "no bands": (embedding, dict(bands=0), "0 bands"),
            "a part with more words": (tokens, dict(dst_stride=t["dst_stride"] + 1), "has other than"),
            "logits that are missing": (head, dict(count=h["count"] - 1), "logits of|LAST is not"),
        }
    )


def test_words_of_a_wide_port() -> None:
    """An address or a size between them would load other bytes."""
    config = load("kv260")
    assert config.port_bits == 128
    program = compile(small_package(np.random.default_rng(0), dim=64, heads=1, ffn2_rule="image"), config)
    part = program.passes[-1]
    for kind in (LoadKind.WEIGHT, LoadKind.PARAM, LoadKind.NORM):
        number, one = next(
            (number, one)
            for number, one in enumerate(part.instructions)
            if one.op is Op.LOAD and one.fields["kind"] == kind
        )
        fields = one.fields | dict(address=one.fields["address"] + 8)
        assert "no words of 16 bytes among" in refused(program, config, number, replace(one, fields=fields))


def test_attention_before_the_last_of_the_pass_before(right: tuple[Program, HardwareConfig]) -> None:
    """Behind the last pass the core would run it once more."""
    program, config = right
    part = program.passes[-1]
    start, code = len(program.code) - len(part.code), part.instructions
    attention = next(n for n, one in enumerate(code) if one.op is Op.ATTN)
    late = next(n for n, one in enumerate(code) if n > attention and one.op is Op.MATMUL)
    header = replace(code[0], fields=code[0].fields | dict(finish=late))
    previous = replace(code[late], flags=code[late].flags | {Flag.PREVIOUS})
    with pytest.raises(RowvitError, match="it is of this pass, and the core would run it once more"):
        check(with_code(program, {start: header, start + late: previous}), config)


def test_what_else_is_refused(right: tuple[Program, HardwareConfig]) -> None:
    program, config = right
    part = program.passes[-1]
    for what, (number, fields, words) in others(program, config).items():
        one = part.instructions[number]
        message = refused(program, config, number, replace(one, fields=one.fields | fields))
        assert re.search(words, message), (what, message)
    for number, one in ((0, Instruction(Op.END)), (len(part.code) - 1, part.instructions[1])):
        assert "begin with HEADER and end with END" in refused(program, config, number, one)


def test_tokens_are_those_that_the_network_answers_with(right: tuple[Program, HardwareConfig]) -> None:
    program, config = right
    code = program.passes[-1].instructions
    number, one = next(
        (n, one) for n, one in enumerate(code) if one.op is Op.NORM and one.fields["kind"] == NormKind.TOKENS
    )
    assert "is wrong" in refused(program, config, number, replace(one, tag=one.tag ^ 1))
    without = Program(program.code, program.weights, {k: v for k, v in program.meta.items() if k != "tokens"})
    with pytest.raises(RowvitError, match="answers with other tokens"):
        check(without, config)


def test_the_last_tokens_end_a_pass_without_classes() -> None:
    package = random_package(
        np.random.default_rng(0),
        **NETWORK
        | dict(classes=0, tokens={"rows": "all", "layers": [0, 1]}, dim=16, heads=1, hidden=32)
        | dict(pruning=[{"layer": 0, "keep": 3, "threshold": 0}]),
    )
    program = compile(package, TINY, stages=(Stage(0, 1), Stage(1, 2)))
    assert not program.passes[-1].instructions[0].fields["finish"]
    answers = [
        (n, one)
        for n, one in enumerate(program.passes[-1].instructions)
        if one.op is Op.NORM and one.fields["kind"] == NormKind.TOKENS
    ]
    assert [Flag.LAST in one.flags for _, one in answers] == [False, False, False, True]
    for number, one in answers:
        new = replace(one, flags=one.flags ^ {Flag.LAST})
        assert "LAST is not the flag" in refused(program, TINY, number, new)


def test_an_image_is_embedded_once(right: tuple[Program, HardwareConfig]) -> None:
    """A later product that would set the number of live tokens again, to what it was."""
    program, config = right
    first, *later = (
        (number, one) for number, one in enumerate(program.passes[0].instructions) if one.op is Op.MATMUL
    )
    rows = first[1].fields["rows"]
    assert Flag.SET_LIVE in first[1].flags
    number, one = next((n, one) for n, one in later if Flag.SET_LIVE not in one.flags and one.image == 0)
    again = replace(one, flags=one.flags | {Flag.SET_LIVE}, fields=one.fields | {"rows": rows})
    with pytest.raises(RowvitError, match="SET_LIVE comes twice"):
        check(with_code(program, {number: again}), config)


def test_parts_of_an_operation_are_named_by_their_first_band(right: tuple[Program, HardwareConfig]) -> None:
    """`profile` shows them."""
    for part in right[0].passes:
        for one, operation in zip(part.instructions[1:-1], part.operations, strict=True):
            if operation.kind in (OperationKind.EMBEDDING, OperationKind.FFN1) and one.op is Op.MATMUL:
                assert operation.band == (one.fields["band0"] or None)


def test_parameters_without_a_use_are_refused() -> None:
    """Loaded again at the end of the pass, where the next one does not know of them."""
    program = compile(random_package(np.random.default_rng(0), **NETWORK), TINY, batch=1)
    part, meta = program.passes[0], deepcopy(program.meta)
    load = next(
        number for number, one in enumerate(part.instructions) if one.fields.get("kind") == LoadKind.PARAM
    )
    end = len(program.code) - 1
    meta["passes"][0]["instructions"] += 1
    meta["passes"][0]["operations"].append(meta["passes"][0]["operations"][load - 1])
    code = np.insert(program.code, end, part.code[load], axis=0)
    for row, one in zip(code, map(Instruction.decode, code.tolist()), strict=True):
        if one.op is Op.LOAD:  # the weights are one instruction further on
            fields = one.fields | {"address": one.fields["address"] + INSTRUCTION_BYTES}
            row[:] = replace(one, fields=fields).encode()
    with pytest.raises(RowvitError, match="parameters are loaded that nobody uses"):
        check(Program(code, program.weights, meta), TINY)


def test_a_mask_does_not_go_on_beyond_the_pass() -> None:
    """Not even one that nobody takes, as all rows are loaded: the next pass would go on with it."""
    program = compile(random_package(np.random.default_rng(0), **NETWORK), TINY, batch=1)
    code = dict(enumerate(program.passes[0].instructions))
    gathers = {n: one for n, one in code.items() if Flag.GATHER in one.flags and one.op is Op.LOAD}
    all_rows = {n: replace(one, flags=one.flags - {Flag.GATHER}) for n, one in gathers.items()}
    check(with_code(program, all_rows), TINY)
    last = max(n for n, one in code.items() if one.fields.get("mask_bands"))
    goes_on = replace(code[last], flags=code[last].flags | {Flag.JOIN})
    with pytest.raises(RowvitError, match="a mask goes on beyond the pass"):
        check(with_code(program, all_rows | {last: goes_on}), TINY)


@pytest.mark.parametrize("stride", ["src_stride", "dst_stride"])
def test_strides_that_gathered_rows_have_no_bits_for(stride: str) -> None:
    """The core multiplies by twelve."""
    package = random_package(
        np.random.default_rng(0), **NETWORK, pruning=[{"layer": 0, "keep": 1, "threshold": 0}]
    )
    program = compile(package, TINY, batch=1)
    code = enumerate(program.passes[0].instructions)
    number, one = next((n, one) for n, one in code if one.op is Op.MATMUL and Flag.GATHER in one.flags)
    wide = replace(one, fields=one.fields | {stride: 4096})
    with pytest.raises(RowvitError, match="strides with GATHER are below 4096"):
        check(with_code(program, {number: wide}), TINY)


def test_what_cells_hold_is_said() -> None:
    """The first cell that is not right, what it holds, and what it should."""
    values = Values()
    cells, one, other = Cells("token", 12, values), Value("X", 0, 1), Value("O", 1, 2, 3, 4, 5)
    area = Area(2, 4, 3, 2)
    with pytest.raises(ValueError, match="token address 2 holds nothing, not cell 0 of band 0 of nothing"):
        cells.read(area)
    cells.write(area, one)
    assert cells.read(area) == one and not cells.filled(area, one)
    cells.fill(8, 1, other)
    name = r"O of image 2 after 4 additions and 3 selections, tile 5 \(pass 1\)"
    right = r"cell 2 of band 1 of X of image 1 after 0 additions and 0 selections \(pass 0\)"
    with pytest.raises(ValueError, match=f"token address 8 holds {name}, not {right}"):
        cells.read(area)
    cells.fill(4, 1, other)
    with pytest.raises(ValueError, match=f"token address 4 holds {name}, not cell 2 of band 0 of X"):
        cells.read(area)
    with pytest.raises(ValueError, match="token addresses 2 to 12 of 12"):
        cells.read(Area(2, 4, 3, 3))
    cells.fill(0, 12, other)
    assert cells.filled(Area(0, 6, 6, 2), other) and not cells.filled(Area(0, 6, 6, 2), one)


@pytest.mark.parametrize(("base", "words"), [(4, ""), (8, ""), (12, "bands of Q .* not read yet"), (20, "")])
def test_cells_are_not_written_before_they_are_read(base: int, words: str) -> None:
    """Bands of 4 cells from 8 on, each read before what replaces it: itself, the next, or the one before."""
    one, other, cells = Value("Q", 0, 0), Value("O", 0, 0), Cells("token", 32, Values())
    cells.write(Area(8, 4, 4, 3), one)
    with pytest.raises(ValueError, match=words) if words else nullcontext():
        cells.write(Area(base, 4, 4, 3), other, source=one)
        assert cells.read(Area(base, 4, 4, 3)) == other


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
