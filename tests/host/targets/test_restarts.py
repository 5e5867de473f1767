# SPDX-License-Identifier: Apache-2.0
"""Resets, restarts and slow hosts on the RTL: nothing of a run before reaches the next one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from waiting import HANG

import faults
from replay import TINY
from rowvit.compiler import compile
from rowvit.errors import RowvitError
from rowvit.formats.program import Program
from rowvit.formats.records import Answer
from rowvit.hardware.isa import Op
from rowvit.overlay import RowvitOverlay
from rowvit.overlay.dma import DMA_IDLE, MM2S, S2MM
from rowvit.pynq import PynqBuffer, allocate
from rowvit.quant.synthetic import random_package
from rowvit.reference import patchify
from rowvit.sim.device import MemoryModel, SimDevice
from rowvit.targets.driver import Accelerator
from rowvit.targets.golden import Golden
from rowvit.targets.target import Result

#: of a memory without stalls
EXACT = (*faults.EXACT, "fires", "axi_beats")
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
        Accelerator(RowvitOverlay(device.bitstream, TINY, device), timeout=HANG) as found,
    ):
        found.load(package)
        yield found


def exact(result) -> dict[str, int]:
    return {name: result.counters[name] for name in EXACT}


def packet(acc, image: np.ndarray) -> PynqBuffer:
    """What the DMA sends for an image [S, S, 3]: its patches, in rows that end in padding."""
    given = acc.meta["input"]
    (patches,) = patchify(image[None], acc.meta["architecture"]["patch_size"])
    buffer = allocate((given["bytes"],), np.uint8, target=acc.device)
    buffer[:] = 0
    buffer.reshape(given["rows"], -1)[:, : patches.shape[1]] = patches.view(np.uint8)
    buffer.flush()
    return buffer


def complete(acc, channel: int) -> None:
    """Simulate until a channel of the DMA is done."""
    while not acc.dma.read(channel + 4) & DMA_IDLE:
        acc.device.advance(50)
    (acc.dma.sendchannel if channel == MM2S else acc.dma.recvchannel).wait()


def start(acc, passes: int = 1) -> None:
    """Without an image: the core loads weights, and waits."""
    acc.core.start(acc.blob.physical_address, acc.blob.nbytes, 0, passes, 0)


def test_resets_at_any_time(acc, expected):
    """Counters are 0 after a reset and stay so, and the next run is as after power-on, to the bit."""
    (first,) = acc(IMAGES[:1])
    assert first.same(expected[0])
    rng = np.random.default_rng(1)
    for wait in [1, 2, 5, 17, *rng.integers(20, 12000, 25).tolist()]:
        start(acc)
        acc.dma.sendchannel.transfer(packet(acc, IMAGES[1]))
        acc.device.advance(int(wait))
        acc.core.reset()
        if wait % 2:  # old bursts come in meanwhile
            acc.device.advance(500)
        counters = acc.core.counters()
        assert not any(counters.values()), (wait, {k: v for k, v in counters.items() if v})
        acc.reset()  # the DMA, too: the packet was cut
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
    packets = [packet(acc, image) for image in IMAGES[:2]]
    sink = allocate((-(-acc.program.passes[0].output_bytes // 8) * 8,), np.uint8, target=acc.device)
    for number, want in enumerate(expected[:2]):
        acc.dma.recvchannel.transfer(sink)
        start(acc)
        if number == 0:
            acc.dma.sendchannel.transfer(packets[0])
            complete(acc, MM2S)
            # the next image stands at the core's door while it is at work, and after it is done
            acc.dma.sendchannel.transfer(packets[1])
        complete(acc, S2MM)
        acc.device.advance(200)
        assert acc.core.counters()["recv_words"] == first.counters["recv_words"]
        (answer,) = Answer.parse(np.array(sink[: acc.dma.recvchannel.transferred]), acc.meta)
        found = Result.of(acc.meta, answer.logits, answer.kept, checkpoints=answer.checkpoints)
        assert found.same(want)


def test_an_image_that_comes_late_is_no_hang(acc, expected, monkeypatch):
    """Ten times the watchdog's limit, and between two images of one start."""
    acc.watchdog = 2000
    channel = acc.dma.sendchannel
    send = channel.transfer

    def late(array) -> None:
        acc.device.advance(20_000)
        send(array)

    monkeypatch.setattr(channel, "transfer", late)
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
    acc.reset()
    assert acc(IMAGES[:1])[0].same(expected[0])


def test_a_reset_is_over_when_it_returns(acc, expected):
    """The core offers a word that nobody takes; the next run begins at once, and does not meet it."""
    start(acc)
    acc.dma.sendchannel.transfer(packet(acc, IMAGES[1]))
    while not acc.core.counter("fires"):
        acc.device.advance(100)
    acc.device.advance(5000)
    acc.reset()
    (again,) = acc(IMAGES[:1])
    assert again.same(expected[0])


@pytest.mark.parametrize("word", [0, 1, 7])
def test_an_answer_that_is_cut(acc, expected, word):
    """TLAST comes early: what comes behind it does not reach the next image."""
    acc.device.inject("receive", "last", word)
    with pytest.raises(RowvitError, match=r"not made of records|is incomplete"):
        acc(IMAGES[:1])
    assert acc(IMAGES[:1])[0].same(expected[0])


@pytest.mark.parametrize("what", ["busy", "stopped"])
def test_what_someone_else_left(acc, expected, what):
    """A run that waits for an image, or an error: the next run does not meet it."""
    (first,) = acc(IMAGES[:1])
    if what == "busy":
        start(acc, passes=2)
    else:
        acc.core.start(0x1000, 64, 0, 1, 0)  # no memory is there
    acc.device.advance(500)
    assert acc.core.get("STATUS") & 7 == {"busy": 1, "stopped": 4}[what]
    (again,) = acc(IMAGES[:1])
    assert again.same(expected[0]) and exact(again) == exact(first)
    assert not acc.core.get("STATUS") & 5


@pytest.mark.parametrize("what", ["memory is dead", "core was reset"])
def test_waiting_for_an_interrupt_ends(package, expected, caplog, what):
    """With the simulation's sentence, long before the host's deadline, and nothing else on the terminal."""
    with (
        SimDevice(TINY, budget=20_000) as device,
        Accelerator(RowvitOverlay(device.bitstream, TINY, device), timeout=HANG, watchdog=0) as acc,
    ):
        acc.load(package)
        channel = acc.dma.sendchannel
        send = channel.transfer

        async def results() -> list:
            return [result async for result in acc.stream_async(IMAGES[:1])]

        def then_reset(array) -> None:
            send(array)
            acc.device.advance(500)
            acc.core.reset()

        if what == "memory is dead":
            device.inject("read", "pause", 200, -1)
        else:
            channel.transfer = then_reset
        with pytest.raises(RowvitError, match=r"nothing moved for [23]\d{4} cycles"):
            asyncio.run(results())
        assert not caplog.records
        channel.transfer = send
        device.heal()
        assert asyncio.run(results())[0].same(expected[0])


def test_a_simulation_closed_under_a_waiter(package, caplog):
    """The waiter gets a sentence, and the terminal nothing."""
    with SimDevice(TINY) as device:
        acc = Accelerator(RowvitOverlay(device.bitstream, TINY, device), timeout=HANG)
        acc.load(package)

        async def results() -> None:
            asyncio.get_running_loop().call_later(0.05, device.close)
            while True:
                async for _ in acc.stream_async(IMAGES):
                    pass

        with pytest.raises(RowvitError, match="is closed"):
            asyncio.run(results())
    assert not caplog.records


def test_faults_of_single_words(acc, expected):
    """What the simulated memory and DMA do to one word, once, and what comes of it."""
    device = acc.device
    words = device.stats["beats"]
    (first,) = acc(IMAGES[:1])
    words = device.stats["beats"] - words
    device.inject("read", "pause", 5, 3000)
    assert acc(IMAGES[:1])[0].cycles == pytest.approx(first.cycles + 3000, abs=200)
    for port, effect, word, value, message in (
        ("read", "error", words - 1, 2, "a memory read failed"),
        ("send", "last", 3, 0, "ended early"),
        ("send", "last", first.counters["recv_words"] - 1, 0, "is too long"),
        ("send", "error", 5, 0x20, "MM2S channel stopped: slave error"),
        ("receive", "error", 0, 0x40, "S2MM channel stopped: decode error"),
    ):
        device.inject(port, effect, word, value)
        with pytest.raises(RowvitError, match=message):
            acc(IMAGES[:1])
        assert acc(IMAGES[:1])[0].same(expected[0])
    device.inject("receive", "flip", first.counters["send_words"] - 1, 3)
    (other,) = acc(IMAGES[:1])
    assert (other.logits ^ first.logits).tolist()[-1] == 8 and not other.same(expected[0])
    acc.watchdog = 2000
    device.inject("address", "pause", 3, -1)
    with pytest.raises(RowvitError, match="nothing moved for 2000 cycles"):
        acc(IMAGES[:1])
    device.heal()
    assert acc(IMAGES[:1])[0].same(expected[0])
