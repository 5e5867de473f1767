# SPDX-License-Identifier: Apache-2.0
"""Symptoms on a board that make people give up, provoked, and what is said instead.

A DMA that is waited for without end, ``allocate`` without contiguous memory, and transfers that a narrow
length register cuts. A missing or strange .hwh, and stale metadata: ``overlay/test_overlay.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from clocks import TickingClock
from waiting import HANG

from replay import ANSWER, IMAGES, TINY, disturb, leak_free, program
from rowvit.errors import RowvitError
from rowvit.hardware.block_design import DMA_PARAMETERS
from rowvit.hardware.isa import COUNTER_BASE, COUNTERS, REGISTERS
from rowvit.overlay import RowvitOverlay
from rowvit.quant.synthetic import random_package
from rowvit.sim.device import MemoryModel, SimDevice
from rowvit.targets.driver import Accelerator

S2MM_STATUS, MM2S_STATUS, MM2S_LENGTH = 0x34, 0x04, 0x28


# -- 1. The wait hangs ------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch) -> TickingClock:
    """The host's."""
    ticking = TickingClock()
    monkeypatch.setattr("rowvit.targets.driver.time", ticking)
    return ticking


@pytest.fixture
def stuck(make) -> Accelerator:
    """A core that takes its image and never answers; the watchdog does not help."""
    acc = make(watchdog=1, budget=10**9, timeout=0.1)
    acc.load(program())
    return acc


def register(acc: Accelerator, name: str) -> int:
    base, counters = acc.overlay.handoff.core.base, list(dict(COUNTERS))
    return base + (REGISTERS[name][0] if name in REGISTERS else COUNTER_BASE + 4 * counters.index(name))


def sentence(acc: Accelerator, clock: TickingClock) -> str:
    """What a run says that goes over its deadline; it takes no longer than that, and leaves nothing."""
    begin = clock.now
    with pytest.raises(RowvitError) as caught:
        acc(IMAGES)
    assert clock.now - begin < acc.timeout + 0.1
    assert leak_free(acc)
    return str(caught.value)


def test_a_wait_ends_at_its_deadline(stuck, clock):
    """Status of accelerator and DMA, words that moved, and the likely cause."""
    assert re.fullmatch(
        r"image 0 was not done in 0\.1 s, probably because no word came from memory, .* HP port:"
        r" core busy \(status 0x00000001\), 0 passes done, \d+ live tokens,"
        r" operations done LOAD 0, .*, 0 words read from memory, 24 received, 0 sent,"
        r" DMA MM2S idle \(status 0x00011002\), S2MM waiting \(status 0x00010000\);"
        r" see `rowvit verify-overlay`",
        sentence(stuck, clock),
    )


@pytest.mark.parametrize(
    "reads, cause, advice",
    [
        ({"ID": 0}, "the core no longer answers", "load the bitstream again"),
        ({"STATUS": 2}, "the core is done, but the DMA never saw TLAST", "use .bit and .hwh of one"),
        ({"STATUS": 0}, "the core never started or was reset meanwhile", "see that nothing else uses it"),
        ({"cycles": 7}, "the core's clock stands still", "see that the PL clock is on"),
        ({"axi_beats": 0}, "no word came from memory", "see `rowvit verify-overlay`"),
        (
            {"axi_beats": 9, "recv_words": 5},
            "5 of 24 input words arrived, and the DMA's MM2S stream stands still",
            "run `rowvit diagnose`",
        ),
        (
            {"axi_beats": 9, "send_words": 3},
            "the DMA's S2MM stream stands still after 3 words, or the core waits for itself",
            "run `rowvit diagnose`, and report this message",
        ),
    ],
    ids=["gone", "no end", "reset", "clock", "memory", "input", "core"],
)
def test_the_likely_cause(stuck, clock, reads, cause, advice):
    start = stuck.core.start

    def started(*args) -> None:
        start(*args)
        disturb(stuck.device, {register(stuck, name): value for name, value in reads.items()})

    stuck.core.start = started
    message, _, found = sentence(stuck, clock).partition("; ")
    assert cause in message and found.startswith(advice)


def test_a_core_that_is_only_slow(clock):
    """Nothing is stuck: the core works on, and the sentence says to allow more time."""
    package = random_package(
        np.random.default_rng(1), dim=64, depth=4, heads=4, image_size=20, patch_size=4, hidden=256, classes=9
    )
    with (
        SimDevice(TINY, MemoryModel(latency=400, rate=1)) as device,
        Accelerator(RowvitOverlay(device.bitstream, TINY, device), timeout=0.02) as acc,
    ):
        acc.load(package)
        images = np.zeros((1, 20, 20, 3), np.uint8)
        with pytest.raises(RowvitError, match=r"because the core is still at work: .*; allow more"):
            acc(images)
        acc.timeout = HANG
        assert len(acc(images)) == 1


@pytest.fixture(scope="module")
def network() -> Iterator[Accelerator]:
    """On the RTL, without a watchdog; its images are `IMAGES`."""
    package = random_package(
        np.random.default_rng(1), dim=32, depth=1, heads=2, image_size=8, patch_size=2, hidden=32, classes=3
    )
    with (
        SimDevice(TINY, budget=10**9) as device,
        Accelerator(RowvitOverlay(device.bitstream, TINY, device), timeout=60, watchdog=0) as acc,
    ):
        acc.load(package)
        yield acc


NO_WORD = r"no word came from memory, as the core's read port does not reach an HP port"
SILENT = r"the memory no longer answers the core's reads: \d+ words came"
NO_INPUT = r"(\d+) of (\d+) input words arrived, and the DMA's MM2S stream stands still"


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("place", [0, 0.02, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("port", ["address", "read", "send"])
def test_what_the_core_waits_for(network, port, place, batch):
    """ARREADY that stays low, an R channel without a word, or input that does not come, from the start or
    later: the sentence names the memory or the input, whichever it is.
    """
    before = network.device.stats
    expected = network(IMAGES, batch=batch)
    after = network.device.stats
    name = {"address": "bursts", "read": "beats", "send": "sent"}[port]
    words = after[name] - before[name]
    network.device.inject(port, "pause", int(place * words), -1)
    network.timeout = 0.5
    with pytest.raises(RowvitError) as caught:
        network(IMAGES, batch=batch)
    network.device.heal()
    network.timeout = 60
    cause = NO_INPUT if port == "send" else SILENT if place else NO_WORD
    found = re.search(rf"probably because {cause}: core busy", str(caught.value))
    assert found, caught.value
    if port == "send":
        arrived, wanted = map(int, found.groups())
        image = words // len(IMAGES)
        assert wanted % image == 0 and wanted - image <= arrived < wanted <= words
        assert arrived % image == int(place * words) % image
    assert all(one.same(other) for one, other in zip(network(IMAGES, batch=batch), expected, strict=True))


@pytest.mark.parametrize(
    "channel, bit, words",
    [
        (MM2S_STATUS, 0x40, "MM2S channel stopped: decode error (there is no memory at the address)"),
        (MM2S_STATUS, 0x20, "MM2S channel stopped: slave error (memory refused the access)"),
        (S2MM_STATUS, 0x10, "S2MM channel stopped: internal error (the packet is longer than its buffer)"),
    ],
)
def test_a_dma_that_stops_with_an_error(make, clock, channel, bit, words):
    acc = make()
    acc.load(program())
    dma = acc.overlay.handoff.dma.base
    start = acc.core.start

    def started(*args) -> None:
        start(*args)
        disturb(acc.device, {dma + channel: lambda status: status | bit})

    acc.core.start = started
    assert f"the DMA's {words}" in sentence(acc, clock)


# -- 4. Memory --------------------------------------------------------------------------------------


def test_the_simulated_memory_is_too_small(make):
    acc = make(memory=MemoryModel(megabytes=1))
    with pytest.raises(RowvitError, match=r"a buffer of 2000 KB does not fit: the largest free .*1024 KB"):
        acc.load(program(bytes(2_048_000)))
    assert leak_free(acc)
    acc.load(program())
    assert len(acc(IMAGES)) == 3


@pytest.mark.parametrize("error", [RuntimeError("Failed to allocate Memory!"), MemoryError(), OSError()])
def test_contiguous_memory_is_exhausted(make, monkeypatch, tmp_path, error):
    """How much was asked for, what there is, what to do."""
    (tmp_path / "meminfo").write_text("MemFree:  99999 kB\nCmaTotal:   131072 kB\nCmaFree:     1204 kB\n")
    monkeypatch.setattr("rowvit.targets.driver.MEMINFO", tmp_path / "meminfo")
    acc = make()

    def refuse(*_, **__):
        raise error

    allocate, acc.device.allocate = acc.device.allocate, refuse
    with pytest.raises(RowvitError) as caught:
        acc.load(program(bytes(40_960)))
    assert str(caught.value) == (
        "no contiguous memory for a buffer of 40 KB (CmaTotal: 131072 kB, CmaFree: 1204 kB); free other"
        " buffers, use a smaller batch, or boot with a larger cma="
    )
    acc.device.allocate = allocate
    acc.load(program())
    assert len(acc(IMAGES)) == 3


def test_a_kernel_that_does_not_say(make, monkeypatch, tmp_path):
    monkeypatch.setattr("rowvit.targets.driver.MEMINFO", tmp_path / "none")
    acc = make()
    acc.device.allocate = lambda *_, **__: (_ for _ in ()).throw(RuntimeError)
    with pytest.raises(RowvitError, match=r"of 1 KB \(the kernel does not say how much there is\);"):
        acc.load(program())


# -- 5. The length register -------------------------------------------------------------------------


def test_transfers_longer_than_the_register_are_refused(make, monkeypatch):
    """Before anything is sent, with both numbers."""
    monkeypatch.setitem(DMA_PARAMETERS, "c_sg_length_width", 7)
    with pytest.raises(RowvitError, match="transfer of 216 bytes, the DMA moves at most 127; build the DMA"):
        make().load(program())


def test_a_register_narrower_than_the_handoff_says(make):
    """Fourteen bits where the .hwh says 26: 19200 bytes become 2816, which only the DMA knows."""
    acc = make()
    architecture = program().meta["architecture"] | {"image_size": 80, "patch_size": 16, "tokens": 26}
    acc.load(program(architecture=architecture, input={"rows": 25, "row_words": 96, "bytes": 19_200}))
    image = np.zeros((1, 80, 80, 3), np.uint8)
    with (
        sends(acc, lambda size: size & 0x3FFF),
        pytest.raises(
            RowvitError, match=r"sent 2816 of 19200 bytes, and 352 of 2400 words reached .* narrower"
        ),
    ):
        acc(image)
    assert acc(image)[0].top1 == 1
    assert leak_free(acc)


@contextmanager
def sends(acc: Accelerator, moved: Callable[[int], int]) -> Iterator[None]:
    """The DMA takes other lengths from MM2S_LENGTH than are written to it."""
    at, write = acc.overlay.handoff.dma.base + MM2S_LENGTH, acc.device.write_registers

    def narrow(address: int, data: bytes) -> None:
        value = int.from_bytes(bytes(data), "little")
        write(address, (moved(value) if address == at else value).to_bytes(4, "little"))

    acc.device.write_registers = narrow
    try:
        yield
    finally:
        acc.device.write_registers = write


@pytest.mark.parametrize("batch", [1, 3])
def test_input_that_the_core_finds_cut(network, batch):
    """The register is named, not only the packet that ended early."""
    expected = network(IMAGES)
    with (
        sends(network, lambda size: size // 2),
        pytest.raises(RowvitError, match=r"sent 128 of 256 bytes, and 16 of 32 words reached the core: its"),
    ):
        network(IMAGES, batch=batch)
    assert all(one.same(other) for one, other in zip(network(IMAGES, batch=batch), expected, strict=True))


def test_input_that_is_cut_before_the_core_hangs(stuck, clock):
    with sends(stuck, lambda size: size // 2):
        assert "sent 96 of 192 bytes, and 12 of 24 words reached the core: its" in sentence(stuck, clock)


@pytest.mark.parametrize("read", [0, 8, 0x3FFFFFF])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_length_that_is_not_what_was_sent(network, monkeypatch, caplog, read, batch):
    """PG021 does not promise it of MM2S: while all words arrive, it is worth a warning, once."""
    expected = network(IMAGES)
    monkeypatch.setattr(network.device, "read_registers", network.device.read_registers)  # undone at the end
    disturb(network.device, {network.overlay.handoff.dma.base + MM2S_LENGTH: read})
    with Accelerator(network.overlay, timeout=60, watchdog=0) as acc:
        acc.load(network.program)
        for _ in range(2):
            assert all(one.same(other) for one, other in zip(acc(IMAGES, batch=batch), expected, strict=True))
    assert [record.getMessage() for record in caplog.records] == [
        f"the DMA's MM2S_LENGTH reads {read} after a transfer of 256 bytes, but all words reached the core"
    ]


def test_a_length_that_is_not_what_was_sent_and_a_core_that_hangs(stuck, clock, caplog):
    """Two things are wrong, and the one that matters is said."""
    disturb(stuck.device, {stuck.overlay.handoff.dma.base + MM2S_LENGTH: 0})
    assert "probably because no word came from memory" in sentence(stuck, clock)
    assert len(caplog.records) == 1


def test_answers_longer_than_their_buffer(make):
    acc = make()
    acc.load(program(output_bytes=len(ANSWER) - 16))
    with pytest.raises(RowvitError, match=r"the DMA's S2MM channel stopped: .*longer than its buffer"):
        acc(IMAGES)
    assert leak_free(acc)


def test_a_dma_without_one_channel(make, monkeypatch):
    monkeypatch.setitem(DMA_PARAMETERS, "c_include_s2mm", 0)
    with pytest.raises(RowvitError, match="lacks a channel"):
        make()
