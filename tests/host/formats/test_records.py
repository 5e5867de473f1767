# SPDX-License-Identifier: Apache-2.0
"""Records of images that a pass computes together, and what each of them took."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from replay import mark, program, record
from rowvit.errors import RowvitError
from rowvit.formats.records import Answer, spans
from rowvit.formats.tokens import Layout
from rowvit.hardware.isa import Record

META = program().meta | {"pruning": [{"layer": 0, "keep": 3, "threshold": 0}, {"layer": 1, "keep": 1}]}
META["architecture"] = META["architecture"] | {"depth": 2, "classes": 5}


def output(image: int) -> list[bytes]:
    """Records of one image: it keeps rows 0, 2, 4 of 5, then 0 and 1 + image of those; two lane tiles."""
    marks = [record(Record.MARK, tag, 1, np.array([tag, image], np.uint32), image) for tag in (255, 0, 1)]
    logits = np.arange(5, dtype=np.int16) - 10 * image
    return [
        *marks,
        record(Record.KEPT, 0, 3, np.array([0, 2, 4], np.uint16), image),
        record(Record.KEPT, 1, 2, np.array([0, 1 + image], np.uint16), image),
        record(Record.LOGITS, 2, 4, logits[:4], image),
        record(Record.LOGITS, 2, 1, logits[4:], image),
    ]


def parse(parts: list[bytes], images: int) -> list[Answer]:
    return Answer.parse(np.frombuffer(b"".join(parts), np.uint8), META, images)


#: the same network, which answers with all tokens behind both layers
ANSWERS = META | {
    "tokens": {"rows": "all", "layers": [0, 1], "shift": 3, "layout": [2, 1, 16]},
    "architecture": META["architecture"] | {"dim": 16},
}


def tokens(tag: int, rows: int, image: int = 0) -> bytes:
    """Tokens of 16 channels in parts of two rows, whose values are 100 * row + channel."""
    parts = [
        [100 * row + channel for row in (first, first + 1)]
        for first in range(0, rows, 2)
        for channel in range(16)
    ]
    words = np.array([[*pair, 0, 0] for pair in parts], np.int16)
    return record(Record.TOKENS, tag, rows, words, image)


def test_tokens_are_numbered() -> None:
    parts = [*output(0), tokens(0, 3), tokens(1, 2)]
    (answer,) = Answer.parse(np.frombuffer(b"".join(parts), np.uint8), ANSWERS)
    for layer, numbers in ((0, [0, 2, 4]), (1, [0, 2])):
        values, indices = answer.tokens[layer]
        assert indices.tolist() == numbers
        np.testing.assert_array_equal(values, 100 * np.arange(len(numbers))[:, None] + np.arange(16))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([tokens(0, 3)], r"tokens behind layers \[0\], not \[0, 1\]"),
        ([tokens(0, 3), tokens(1, 2), tokens(2, 2)], r"layers \[0, 1, 2\], not"),
        ([tokens(0, 3), tokens(1, 3)], "3 tokens behind layer 1, of 2"),
        ([tokens(0, 3)[:-8], tokens(1, 2)], "not made of records|TOKENS record of"),
        ([record(Record.TOKENS, 0, 3, np.zeros(64, np.int16))], "TOKENS record of 3 with 128 bytes, not 256"),
    ],
)
def test_other_tokens_are_refused(extra: list[bytes], message: str) -> None:
    with pytest.raises(RowvitError, match=message):
        Answer.parse(np.frombuffer(b"".join([*output(0), *extra]), np.uint8), ANSWERS)


def test_tokens_of_a_network_without() -> None:
    with pytest.raises(RowvitError, match="does not answer with them"):
        parse([*output(0), tokens(0, 3)], 1)


@given(
    st.builds(Layout, st.integers(1, 4), st.integers(1, 6), st.sampled_from([16, 64])),
    st.integers(1, 9),
    st.integers(1, 300),
)
def test_layouts_of_tokens(layout: Layout, rows: int, dim: int) -> None:
    """Value by value as isa.md says it."""
    values = np.random.default_rng(dim).integers(-32768, 32768, (rows, dim))
    words = []
    tiles = -(-dim // (layout.groups * layout.lanes))
    for first in range(0, rows, layout.rows):
        for tile in range(tiles):
            for lane in range(layout.lanes):
                some = []
                for row in range(first, first + layout.rows):
                    for group in range(layout.groups):
                        channel = (tile * layout.groups + group) * layout.lanes + lane
                        some.append(int(values[row, channel]) if row < rows and channel < dim else 0)
                words += some + [0] * (-len(some) % 4)
    assert layout.payload(rows, dim) == 2 * len(words)
    assert layout.part_words(dim) == len(words) // 4 // -(-rows // layout.rows)
    np.testing.assert_array_equal(layout.unpack(np.array(words, np.int16), rows, dim), values)


def test_records_find_their_image() -> None:
    mixed = [part for pair in zip(output(0), output(1), strict=True) for part in pair]
    for image, answer in enumerate(parse(mixed, 2)):
        np.testing.assert_array_equal(answer.logits, np.arange(5) - 10 * image)
        assert [list(kept) for kept in answer.kept] == [[0, 2, 4], [0, 2 + 2 * image]]
        assert answer.marks == [(255, image), (0, image), (1, image)]


@pytest.mark.parametrize(
    ("parts", "images", "message"),
    [
        (output(0), 2, "0 of 5 logits, 0 of 3 marks, 0 of 2 token lists"),
        (output(1), 1, "a record of image 1, but the pass has 1"),
        ([*output(0), record(Record.KEPT, 1, 1, np.array([2], np.uint16))], 1, "keeps row 2 of 2"),
        ([*output(0), mark(1, 1, 1)], 1, "4 of 3 marks"),
        ([*output(0), record(Record.LOGITS, 2, 1, np.zeros(1, np.int16))], 1, "more than 5 logits"),
        ([record(Record.LOGITS, 2, 9, np.zeros(4, np.int16))], 1, "LOGITS record of 9 with 8 bytes, not 18"),
        ([record(Record.LOGITS, 2, 4, np.zeros(7, np.int8))], 1, "LOGITS record of 4 with 7 bytes, not 8"),
        ([record(Record.KEPT, 2, 1, np.zeros(8, np.int16))], 1, "KEPT record of 1 with 16 bytes, not 2"),
        ([record(Record.CHECKPOINT, 0, 99, np.zeros(8, np.int16))], 1, "CHECKPOINT record of 99 with 16"),
        ([record(Record.MARK, 0, 1, np.zeros(1, np.uint32))], 1, "MARK record of 1 with 4 bytes, not 8"),
    ],
)
def test_what_is_missing_or_too_much_is_refused(parts: list[bytes], images: int, message: str) -> None:
    with pytest.raises(RowvitError, match=message):
        parse(parts, images)


@st.composite
def packets(draw: st.DrawFn) -> np.ndarray:
    """Records of two images, with others or any bytes between them, bytes changed, and the end cut off."""
    header = st.builds(
        lambda kind, image, tag, count, size: (
            kind | image << 4 | tag << 8 | count << 16 | size << 32
        ).to_bytes(8, "little"),
        st.one_of(st.sampled_from([int(kind) for kind in Record]), st.integers(0, 15)),
        st.integers(0, 2),
        st.integers(0, 255),
        st.one_of(st.integers(0, 6), st.just(0xFFFF)),
        st.one_of(st.integers(0, 80), st.just(0xFFFFFFFF)),
    )
    whole = [*output(0), *output(1)]
    part = st.one_of(st.sampled_from(whole), header, st.binary(max_size=24))
    parts = draw(st.one_of(st.just(whole), st.just(whole), st.lists(part, max_size=20)))
    for extra in draw(st.lists(part, max_size=2)):
        where = draw(st.integers(0, len(parts)))
        parts = [*parts[:where], extra, *parts[where:]]
    packet = bytearray(b"".join(parts))
    for _ in range(draw(st.integers(0, 3)) if packet else 0):
        packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
    return np.frombuffer(bytes(packet), np.uint8)[: draw(st.sampled_from([None, None, len(packet) // 2, -1]))]


@settings(max_examples=300)
@given(packets())
@example(np.frombuffer(record(Record.CHECKPOINT, 0, 0, np.zeros(0, np.int16)), np.uint8))
@example(np.frombuffer(b"".join([*output(0), *output(1)]), np.uint8))
def test_any_packet_is_an_answer_or_a_sentence(packet: np.ndarray) -> None:
    try:
        answers = Answer.parse(packet, META, 2)
    except RowvitError:
        return
    for answer in answers:
        assert answer.logits.shape == (5,)
        before = np.arange(5)
        for kept in answer.kept:
            assert kept[0] == 0 and np.isin(kept, before).all() and (np.diff(kept) > 0).all()
            before = kept
        assert all(rows.shape[1:] == (16,) for rows in answer.checkpoints.values())
    marks = [[cycles for cycles, _ in answer.marks] for answer in answers]
    assert sum(map(sum, spans(0, marks, 2**32, [1, 2]))) == 2**32


@pytest.mark.parametrize("rows", [[], [1, 2], [0, 3, 2], [0, 2, 2]])
def test_kept_rows_ascend_from_the_class_token(rows: list[int]) -> None:
    with pytest.raises(RowvitError, match=r"keeps rows \[.*\]\.\.\., not row 0 and later ones"):
        parse([record(Record.KEPT, 0, len(rows), np.array(rows, np.uint16))], 1)


def test_images_computed_together_share_what_it_took() -> None:
    """Two images: embedding and layer 0 one after the other, layer 1 and the head together."""
    marks = [[110, 130, 191], [140, 180, 200]]
    assert spans(100, marks, 207, [1, 2]) == [[10, 20, 10, 3], [10, 40, 10, 4]]


@given(st.data())
def test_nothing_is_lost(data: st.DataObject) -> None:
    """The parts of all images add up to the whole pass, whatever the groups."""
    shares, images = [], 1
    for _ in range(data.draw(st.integers(1, 4))):
        images *= data.draw(st.integers(1, 2))
        shares.append(images)
    steps = st.integers(1, 100)
    marks: list[list[int]] = [[] for _ in range(images)]
    now = start = data.draw(steps)

    def run(level: int, group: range) -> None:
        nonlocal now
        below = ([1, *shares][level - 1]) if level else 1
        for first in range(group.start, group.stop, below):
            if level:
                run(level - 1, range(first, first + below))
        for image in group:
            now += data.draw(steps)
            marks[image].append(now)

    run(len(shares), range(images))
    end = now + data.draw(steps)
    found = spans(start, marks, end, shares)
    assert sum(map(sum, found)) == end - start
    assert all(len(image) == len(shares) + 2 and min(image) >= 0 for image in found)
