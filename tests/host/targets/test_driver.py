# SPDX-License-Identifier: Apache-2.0
"""The driver: on a stand-in core that replays records, and on the RTL against the reference."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pynq import Device

import rowvit
from replay import ANSWER, IMAGES, TINY, leak_free, mark, program
from rowvit.compiler import compile
from rowvit.errors import RowvitError
from rowvit.formats.records import Answer
from rowvit.hardware.isa import REGISTERS, Error
from rowvit.quant.synthetic import random_package
from rowvit.targets.golden import Golden
from rowvit.targets.target import Result, first_difference


@pytest.mark.parametrize("seed", [0, 3])
def test_results(make, seed):
    acc = make(seed)
    acc.load(program())
    (result,) = acc(IMAGES[:1])
    assert (result.top1, result.label) == (1, "bee")
    assert result.logits.dtype == np.int16
    assert result.logits.tolist() == [1, 7, -2]
    np.testing.assert_allclose(
        result.probabilities, np.exp([-1.5, 0, -2.25]) / np.exp([-1.5, 0, -2.25]).sum()
    )
    assert [k.tolist() for k in result.kept] == [[0, 2, 4]]
    assert result.live == [3]
    assert result.checkpoints["embed"].tolist() == np.arange(32).reshape(2, 16).tolist()
    assert result.checkpoints["layers.0.attn"].tolist() == [list(range(16))]
    assert result.checkpoints["layers.0.ffn"].tolist() == [[-i for i in range(16)]]
    assert result.layer_cycles[:2] == [10, 20]
    assert sum(result.layer_cycles) == result.cycles == result.counters["cycles"]
    assert result.layer_fires[:2] == [4, 5]
    assert result.counters["axi_beats"] == len(ANSWER) // 8
    assert result.macs_dense == 4 * 48 * 16 + (4 * 5 * 256 + 2 * 25 * 16 + 2 * 5 * 256) + 16 * 3
    assert result.w2_rows_total == 16
    assert result.bit_exact is None


def test_a_program_that_changed_in_memory(make):
    acc = make(0)
    with pytest.raises(RowvitError, match="no network is loaded"):
        acc.check_memory()
    acc.load(program())
    acc.check_memory()
    acc.blob[[70, 75]] ^= 1
    acc.blob.flush()
    with pytest.raises(RowvitError, match=r"2 of \d+ bytes of program and weights .* the first at 70"):
        acc.check_memory()
    acc.load(program())
    acc.check_memory()


@pytest.mark.parametrize("seed", [0, 4])
def test_batches(make, seed):
    acc = make(seed)
    acc.load(program())
    for batch in (1, 2, 3, 7):
        results = acc(IMAGES, batch=batch)
        assert len(results) == 3
        assert all(r.top1 == 1 and len(r.layer_cycles) == 3 for r in results)
        assert [r.batch for r in results] == {1: [1, 1, 1], 2: [2, 2, 1], 3: [3] * 3, 7: [3] * 3}[batch]
    assert results[0].macs_executed is None
    assert results[0].counters is results[2].counters


def test_patches_reach_the_core(make):
    """The bytes sent are the patches, padded to words."""
    acc = make()
    package_program = program(
        architecture=program().meta["architecture"] | {"image_size": 4, "patch_size": 1, "tokens": 17},
        input={"rows": 16, "row_words": 1, "bytes": 128},
    )
    acc.load(package_program)
    sent = []
    transfer = acc.dma.sendchannel.transfer
    acc.dma.sendchannel.transfer = lambda array: (sent.append(np.array(array)), transfer(array))
    acc(IMAGES[:1, :4, :4])
    expected = np.zeros((16, 8), np.uint8)
    expected[:, :3] = IMAGES[0, :4, :4].reshape(16, 3) ^ 0x80
    np.testing.assert_array_equal(sent[0].reshape(expected.shape), expected)


def test_caches_are_flushed_once_for_a_batch(make, monkeypatch):
    """And not for each image: PYNQ 3.1 would flush the whole buffer each time."""
    acc = make()
    acc.load(program())
    synced: list[tuple[str, int]] = []
    for name in ("flush", "invalidate"):
        sync = getattr(acc.device, name)

        def noted(bo, offset, pointer, size, name=name, sync=sync):
            synced.append((name, size))
            sync(bo, offset, pointer, size)

        monkeypatch.setattr(acc.device, name, noted)
    assert [result.top1 for result in acc(IMAGES, batch=3)] == [1, 1, 1]
    assert synced == [("flush", 3 * 192), ("invalidate", 3 * -(-len(ANSWER) // 8) * 8)]


def test_stalled_core(make):
    acc = make(watchdog=1)  # the stand-in hangs
    acc.load(program())
    with pytest.raises(
        RowvitError, match=r"nothing moved for \d+ cycles: .* words read, 2\d sent, 0 received"
    ):
        acc(IMAGES)
    assert leak_free(acc)
    acc.watchdog = 0
    assert acc(IMAGES)[0].top1 == 1


def test_core_error(make):
    acc = make()
    acc.load(program())
    start = acc.core.start
    acc.core.start = lambda base, *rest: start(0x1000, *rest)
    with pytest.raises(RowvitError, match="the core stopped: a memory read failed"):
        acc(IMAGES)
    acc.core.start = start
    assert leak_free(acc)
    assert acc(IMAGES)[2].top1 == 1


def test_every_error_code_has_a_sentence(make):
    acc = make()
    for code in Error:
        if code is not Error.NONE:
            acc.core.get = lambda name, code=code: 5 << 8 | code
            error = acc.core.error()
            assert "unknown error code" not in error.message and error.advice
            nowhere = code in (Error.AXI_READ, Error.WATCHDOG)
            assert error.message.startswith(f"the core stopped{'' if nowhere else ' at instruction 5'}: ")
    acc.core.get = lambda name: 99
    assert "unknown error code 99" in acc.core.error().message


@pytest.mark.parametrize(
    "answer, message",
    [
        (bytes(16), "not made of records: word 0 of 2"),
        (mark(0, 1, 1), "incomplete: 0 of 3 logits, 1 of 2 marks, 0 of 1 token lists"),
    ],
)
def test_damaged_answers(make, answer, message):
    acc = make()
    acc.load(program(answer))
    with pytest.raises(RowvitError, match=message):
        acc(IMAGES)
    assert leak_free(acc)


def test_records_of_a_cut_stream():
    with pytest.raises(RowvitError, match="not made of records"):
        Answer.parse(np.frombuffer(ANSWER[:-8], np.uint8), program(ANSWER).meta)


def test_loading_errors(make, tmp_path):
    acc = make()
    with pytest.raises(RowvitError, match="no network is loaded"):
        acc(IMAGES)
    with pytest.raises(RowvitError, match=r"for configuration 'big'.*not for 'tiny'.*compile the"):
        acc.load(program(config={"name": "big", "hash": 1}))
    with pytest.raises(RowvitError, match="DMA moves at most 67108863"):
        acc.load(program(output_bytes=1 << 26))
    with pytest.raises(RowvitError, match="cannot be read"):
        acc.load(tmp_path / "none.safetensors")
    acc.load(program())
    with pytest.raises(RowvitError, match=r"images are float32 \[1, 8, 8, 3\]; this network takes uint8"):
        acc(np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(RowvitError, match="a batch of 0 images"):
        acc(IMAGES, batch=0)
    assert leak_free(acc)


def test_targets():
    with pytest.raises(RowvitError, match="no target 'fpga'"):
        rowvit.open("fpga")
    with pytest.raises(RowvitError, match="no hardware configuration 'x'"):
        rowvit.open("golden", "x")
    with pytest.raises(RowvitError, match=r"rowvit-tiny.bit does not exist"):
        rowvit.open("board", "tiny")


@pytest.mark.parametrize(
    "board, config",
    [
        ("Pynq-Z1", "pynq-z2"),
        ("Pynq-Z2", "pynq-z2"),
        ("ZCU104", "zcu104"),
        ("KV260", "kv260"),
        ("Ultra96", "zu3"),
        ("AUP-ZU3", "zu3"),
        ("Arty", "pynq-z2"),
    ],
)
def test_a_board_takes_its_own_configuration(monkeypatch, tmp_path, board, config):
    """BOARD is the variable that PYNQ's images set."""
    monkeypatch.setenv("BOARD", board)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RowvitError, match=rf"/rowvit-{config}.bit does not exist"):
        rowvit.open("board")


def test_a_board_that_no_table_knows_takes_its_only_overlay(monkeypatch, tmp_path):
    monkeypatch.setenv("BOARD", "My-Board")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rowvit-zu3.bit").touch()
    with pytest.raises(RowvitError, match=r"/rowvit-zu3.hwh does not exist"):
        rowvit.open("board")


def test_the_only_overlay_may_have_either_front_end(monkeypatch, tmp_path):
    """The host's comes first, where both are there; a front end that is named has its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rowvit-tiny-hls.bit").touch()
    with pytest.raises(RowvitError, match=r"/rowvit-tiny-hls.hwh does not exist"):
        rowvit.open("board", "tiny")
    with pytest.raises(RowvitError, match=r"/rowvit-tiny.bit does not exist"):
        rowvit.open("board", "tiny", frontend="host")
    (tmp_path / "rowvit-tiny.bit").touch()
    for frontend, file in ((None, "tiny"), ("host", "tiny"), ("hls", "tiny-hls")):
        with pytest.raises(RowvitError, match=rf"/rowvit-{file}.hwh does not exist"):
            rowvit.open("board", "tiny", frontend=frontend)


def test_a_bitstream_brings_its_configuration(make, monkeypatch):
    device = make().device
    monkeypatch.setattr(type(Device), "devices", [device], raising=False)
    with pytest.raises(RowvitError, match="of configuration tiny"):
        rowvit.open("board", "pynq-z2", bitstream=device.bitstream)
    with rowvit.open("board", bitstream=device.bitstream) as acc:
        assert acc.config.name == "tiny"
        acc.load(program())
        assert acc(IMAGES)[0].top1 == 1


def test_golden_takes_packages_only():
    with rowvit.open("golden", TINY) as golden, pytest.raises(RowvitError, match="use the model package"):
        golden.load(program())


def test_comparison():
    def result(**values) -> Result:
        return Result.of(program().meta, np.array([1, 2, 3], np.int16), [np.array([0, 1])], **values)

    assert result().same(result())
    other = result()
    other.kept = [np.array([0, 2])]
    assert not result().same(other)
    assert not result().same(result(checkpoints={"embed": np.zeros((1, 2), np.int16)}))


def test_comparison_of_what_the_host_computes():
    """The order of sums, which a process of one thread has otherwise, is no difference; a wrong sum is."""

    def result(*logits: float) -> Result:
        meta = program().meta | {"host_head": {}}
        return Result.of(meta, np.array(logits, np.float32), [])

    one = result(-1.275911808, 3.0, 0.001)
    for other, equal in (
        (result(-1.275911689, 3.0, 0.001), True),
        (result(-1.2, 3.0, 0.001), False),
        (result(-1.275911808, 3.0, float("nan")), False),
        (result(-1.275911808, 3.0), False),
    ):
        assert one.same(other) == equal
        assert (first_difference(other, one, program().meta | {"pruning": []}) == "") == equal


def test_board_half_needs_no_torch():
    """The driver loads with numpy and pynq alone."""
    code = (
        "import sys, rowvit, rowvit.formats.program, rowvit.overlay.bitfile, rowvit.targets.diagnose,"
        " rowvit.targets.driver;"
        "bad = {'torch', 'timm', 'onnx', 'typer', 'rich', 'PIL'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_driver_needs_no_quantiser():
    code = (
        "import sys, rowvit.formats.package, rowvit.formats.program, rowvit.targets.driver;"
        "assert not [name for name in sys.modules if name.startswith(('rowvit.quant', 'rowvit.model.'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("rule", ["none", "image", "tile"])
@pytest.mark.parametrize("seed", [0, 9])
def test_rtl_equals_reference(rule, seed):
    """Bits, work counters and cycles of a small network on the RTL."""
    rng = np.random.default_rng(11)
    package = random_package(
        rng,
        dim=48,
        depth=2,
        heads=3,
        image_size=12,
        patch_size=2,
        hidden=80,
        classes=7,
        pruning=[{"layer": 0, "keep": 20, "threshold": 0}],
        ffn2_rule=rule,
        tile_rows=8,
        ffn_chunk=48,
    )
    images = rng.integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)
    golden = Golden(TINY, checkpoints=True)
    golden.load(package)
    expected = golden(images)
    with rowvit.open("sim", TINY, stalls=seed) as acc:
        acc.load(compile(package, TINY, checkpoints=True))
        results = acc(images)
        together = acc(images, batch=3)
    for one, in_batch, want in zip(results, together, expected, strict=True):
        assert one.same(want)
        assert in_batch.same(want)
        for name in ("macs_executed", "macs_dense", "w2_rows_fetched", "w2_rows_total"):
            assert getattr(one, name) == getattr(want, name), name
        assert len(one.layer_cycles) == 4
        assert sum(one.layer_cycles) == one.cycles == one.counters["cycles"]
    assert sum(r.cycles for r in together) == together[0].counters["cycles"]


def test_a_closed_simulation_says_so():
    with rowvit.open("sim", TINY) as acc:
        device, address = acc.device, acc.core.mmio.base_addr
    with pytest.raises(RowvitError, match="is closed"):
        device.read_registers(address + REGISTERS["ID"][0], 4)
