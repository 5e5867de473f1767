# SPDX-License-Identifier: Apache-2.0
"""Resets, restarts and slow hosts on the RTL: nothing of a run before reaches the next one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from replay import TINY
from rowvit.compiler import compile
from rowvit.errors import RowvitError
from rowvit.formats.program import Program
from rowvit.hardware.isa import Op
from rowvit.overlay import RowvitOverlay
from rowvit.overlay.dma import MM2S, S2MM
from rowvit.quant.synthetic import random_package
from rowvit.sim.device import MemoryModel, SimDevice
from rowvit.targets.driver import Accelerator
from rowvit.targets.golden import Golden

#: counters that do not depend on when the host looks
EXACT = (
    "fires",
    "ffn2_nonzeros",
    "pv_nonzeros",
    "axi_beats",
    "w2_fetched",
    "w2_rows",
    "recv_words",
    "send_words",
)
IMAGES = np.random.default_rng(2).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def package():
    return random_package(
        np.random.default_rng(3),
        dim=32,
        depth=2,
        heads=2,
        image_size=16,
        patch_size=4,
        hidden=48,
        classes=5,
        pruning=[{"layer": 0, "keep": 9, "threshold": 0}],
    )


@pytest.fixture(scope="module")
def expected(package):
    golden = Golden(TINY)
    golden.load(package)
    return golden(IMAGES)


@pytest.fixture
def acc(package):
    with (
        SimDevice(TINY, MemoryModel(latency=60, rate=50)) as device,
        Accelerator(RowvitOverlay(device.bitstream, TINY, device), timeout=60) as found,
    ):
        found.load(package)
        yield found


def exact(result) -> dict[str, int]:
    return {name: result.counters[name] for name in EXACT}


def start(acc, passes: int = 1) -> None:
    """Without an image: the core loads weights, and waits."""
    acc.core.start(acc._blob.physical_address, acc._blob.nbytes, 0, passes, 0)


def test_resets_at_any_time(acc, expected):
    """Counters are 0 after a reset and stay so, and the next run is as after power-on, to the bit."""
    (first,) = acc(IMAGES[:1])
    assert first.same(expected[0])
    rng = np.random.default_rng(1)
    for wait in [1, 2, 5, 17, *rng.integers(20, 12000, 25).tolist()]:
        start(acc)
        buffer = acc._stage([IMAGES[1]], [None, None], 0)
        acc.dma.sendchannel.transfer(buffer.source[0, : buffer.sizes[0]])
        acc.device.advance(int(wait))
        acc.core.reset()
        if wait % 2:  # old bursts come in meanwhile
            acc.device.advance(500)
        counters = acc.core.counters()
        assert not any(counters.values()), (wait, {k: v for k, v in counters.items() if v})
        acc._reset()  # the DMA, too: the packet was cut
        (again,) = acc(IMAGES[:1])
        assert again.same(first) and exact(again) == exact(first), wait
        assert abs(again.cycles - first.cycles) < 200, wait  # bursts in flight were waited for


def test_a_start_counts_its_own_words(acc, expected):
    """A start right behind a reset, while words of the run before still arrive."""
    (first,) = acc(IMAGES[:1])
    for wait in range(30, 400, 37):
        start(acc)
        acc.device.advance(wait)
        acc.core.reset()
        (again,) = acc(IMAGES[:1])
        assert again.same(expected[0]) and exact(again) == exact(first), wait


def test_words_of_the_next_packet_are_left(acc, expected):
    """Two images are queued, one pass is run: the second image is whole for the next start."""
    (first,) = acc(IMAGES[:1])
    batches = [acc._stage([image], [None, None], 0) for image in IMAGES[:2]]
    found = []
    for number, batch in enumerate(batches):
        acc.dma.recvchannel.transfer(batch.sink[0])
        if number == 0:
            start(acc)
            acc.dma.sendchannel.transfer(batch.source[0, : batch.sizes[0]])
            while not acc._finished(acc.dma.sendchannel, MM2S):
                acc.device.advance(50)
            # the next image stands at the core's door while it is at work, and after it is done
            acc.dma.sendchannel.transfer(batches[1].source[0, : batches[1].sizes[0]])
        else:
            start(acc)
        while not acc._finished(acc.dma.recvchannel, S2MM):
            acc.device.advance(50)
        acc.device.advance(200)
        assert acc.core.counters()["recv_words"] == first.counters["recv_words"]
        batch.lengths.append(acc.dma.recvchannel.transferred)
        found += acc._results(batch, 0.0, acc.core.counters(), [np.array(batch.sink[0, : batch.lengths[0]])])
    assert [result.same(want) for result, want in zip(found, expected, strict=False)] == [True, True]


def test_an_image_that_comes_late_is_no_hang(acc, expected, monkeypatch):
    """Ten times the watchdog's limit, and between two images of one start."""
    acc.watchdog = 2000
    send = acc._send

    def late(batch) -> None:
        acc.device.advance(20_000)
        send(batch)

    monkeypatch.setattr(acc, "_send", late)
    results = acc(IMAGES, batch=3)
    assert all(r.same(e) for r, e in zip(results, expected, strict=True))


def test_a_hang_is_one_with_the_input_there(package, acc):
    """An operation that waits for something that never happens: the watchdog, not the host's deadline."""
    acc.watchdog = 2000
    program = compile(package, TINY)
    lines = program.passes[0].instructions
    number, line = next((i, line) for i, line in enumerate(lines) if line.op is Op.NORM and line.deps)
    program.code[number] = replace(line, deps=dict.fromkeys(line.deps, 999)).encode()
    acc.load(Program(program.code, program.weights, program.meta))
    with pytest.raises(RowvitError, match=r"nothing moved for 2000 cycles"):
        acc(IMAGES[:1])
    acc.load(package)
    assert len(acc(IMAGES)) == 3


def test_what_runs_cannot_be_changed(acc, expected):
    """Registers of what runs keep their values while the core is busy."""
    core = acc.core
    start(acc)
    kept = {name: core.get(name) for name in ("BASE_LO", "PROGRAM", "LENGTH", "PASSES")}
    for name in kept:
        core.set(name, 64)
    assert kept == {name: core.get(name) for name in kept}
    acc._reset()
    assert acc(IMAGES[:1])[0].same(expected[0])
