# SPDX-License-Identifier: Apache-2.0
"""Streams: two images in flight, in order, and nothing left behind however they end."""

from __future__ import annotations

import asyncio
import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pynq import interrupt
from waiting import HANG

from replay import ANSWER, IMAGES, TINY, disturb, leak_free, program
from rowvit.errors import RowvitError
from rowvit.hardware.isa import COUNTER_BASE, COUNTERS
from rowvit.overlay import RowvitOverlay
from rowvit.quant.synthetic import random_package
from rowvit.sim.device import MemoryModel, SimDevice
from rowvit.targets.driver import Accelerator
from rowvit.targets.golden import Golden
from rowvit.targets.target import Result, Target


class Camera(Exception):
    """What an iterator may raise."""


def broken(after: int):
    yield from (IMAGES[i % 3] for i in range(after))
    raise Camera("the lens fell off")


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_camera_that_writes_to_one_array(batch, cached):
    """What it has given is what is computed, also where a batch waits for more."""
    sizes = dict(dim=16, depth=1, heads=1, image_size=8, patch_size=4, hidden=16, classes=3)
    package = random_package(np.random.default_rng(3), **sizes)
    frames = np.random.default_rng(4).integers(0, 256, (5, 8, 8, 3), np.uint8)

    def camera():
        array = np.empty_like(frames[0])
        for frame in frames:
            array[:] = frame
            yield array

    golden = Golden(TINY)
    golden.load(package)
    wanted = [result.logits.tolist() for result in golden(frames)]
    assert [result.logits.tolist() for result in golden.stream(camera(), batch)] == wanted
    ready = golden.prepared(camera(), batch)
    assert [result.logits.tolist() for result in golden.stream(ready, batch)] == wanted
    with (
        SimDevice(TINY, cached=cached) as device,
        Accelerator(RowvitOverlay(device.bitstream, TINY, device)) as acc,
    ):
        acc.load(package)
        assert [result.logits.tolist() for result in acc.stream(camera(), batch)] == wanted


@pytest.fixture(params=[True, False], ids=["cached", "plain"])
def acc(make, request) -> Accelerator:
    """With memory that the processor caches, and as on a board."""
    made = make(cached=request.param)
    made.load(program())
    return made


@pytest.fixture
def slow(make) -> Accelerator:
    """With a memory so slow that one must wait for the core."""
    made = make(memory=MemoryModel(rate=1))
    made.load(program())
    return made


class Sizes(Target):
    """Answers with the number of pixels of each image, and notes how many it was given at once."""

    def __init__(self) -> None:
        self.meta = {"architecture": {"image_size": 4}, "preprocessing": {"resize": "bicubic"}}
        self.batches: list[int] = []

    def _run(self, images):
        self.batches.append(len(images))
        return [int(image.mean()) for image in images]


def test_files_are_decoded_early_and_pixels_are_not_waited_for(tmp_path, monkeypatch) -> None:
    """Files: up to two batches ahead of the results; pixels, as from a camera, when their turn comes."""
    monkeypatch.setattr("rowvit.decoding.processors", lambda: 2)
    for value in range(9):
        Image.new("RGB", (4, 4), (value, value, value)).save(tmp_path / f"{value}.png")
    files = [tmp_path / f"{value}.png" for value in range(9)]
    taken = []

    def noted(images):
        for number, image in enumerate(images):
            taken.append(number)
            yield image

    target = Sizes()
    assert list(target.stream(noted(files), 2)) == list(range(9)) and target.batches == [2, 2, 2, 2, 1]
    stream = target.stream(noted(files), 2)
    taken.clear()
    assert next(stream) == 0 and len(taken) in range(4, 7)
    stream.close()
    pixels = [np.full((4, 4, 3), value, np.uint8) for value in range(9)]
    stream = target.stream(noted(pixels), 2)
    taken.clear()
    assert next(stream) == 0 and taken == [0, 1]
    files[5] = tmp_path / "none.png"
    found = []
    with pytest.raises(RowvitError, match=r"none\.png: no such file"):
        for value in target.stream([*files[:4], pixels[4], *files[5:]], 2):
            found.append(value)
    assert found == [0, 1, 2, 3, 4]


def is_usable(acc: Accelerator) -> bool:
    return [result.top1 for result in acc(IMAGES)] == [1, 1, 1] and leak_free(acc)


def arguments(acc: Accelerator, events: list) -> None:
    """Note every start of the core, and how many buffers there are."""
    start = acc.core.start

    def noted(*args):
        events.append("start")
        noted.buffers = max(noted.buffers, len(acc.device._used))
        start(*args)

    noted.buffers = 0
    acc.core.start = noted


def test_two_in_flight(acc):
    """The next image is taken while the core computes, and is started before the results are given."""
    events: list = []
    arguments(acc, events)

    def images():
        for i in range(4):
            events.append(f"take {i}")
            yield IMAGES[i % 3]

    for i, _ in enumerate(acc.stream(images())):
        events.append(f"result {i}")
    assert events == [
        *("take 0", "start", "take 1", "start", "result 0"),
        *("take 2", "start", "result 1", "take 3", "start", "result 2", "result 3"),
    ]
    assert acc.core.start.buffers == 1 + 2 * 2  # the network; input and answer of two images
    assert is_usable(acc)


def test_the_core_computes_while_the_next_image_is_taken(acc):
    """Without being asked for anything: the image was handed to core and DMA before."""
    done = []

    def images():
        for image in IMAGES:
            yield image
            for _ in range(5):  # time that the iterator takes; it ends at every transfer's end
                acc.device.advance(2_000)
            done.append(acc.core.counters()["send_words"])

    list(acc.stream(images()))
    assert done[:2] == [len(ANSWER) // 8] * 2


@settings(max_examples=12)
@given(count=st.integers(0, 9), batch=st.integers(1, 5))
def test_order(ordered, count, batch):
    """Image i gives result i, whatever the batch and the last one's size."""
    acc, golden = ordered
    images = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    expected = [golden(image[None])[0].logits.tolist() for image in images]
    assert [result.logits.tolist() for result in acc.stream(iter(images), batch)] == expected
    assert [result.logits.tolist() for result in asyncio.run(collect(acc, images, batch))] == expected
    assert leak_free(acc)


@pytest.fixture(scope="module")
def ordered():
    """The RTL, so that images have answers of their own, and the reference."""
    rng = np.random.default_rng(5)
    package = random_package(
        rng, dim=16, depth=1, heads=1, image_size=8, patch_size=4, hidden=16, classes=9, pruning=[]
    )
    golden = Golden(TINY)
    golden.load(package)
    with (
        SimDevice(TINY) as device,
        Accelerator(RowvitOverlay(device.bitstream, TINY, device), HANG) as acc,
    ):
        acc.load(package)
        yield acc, golden


async def collect(acc: Accelerator, images, batch: int = 1) -> list[Result]:
    return [result async for result in acc.stream_async(images, batch)]


# -- ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_exception_in_the_iterator(acc, after, batch):
    """What was taken before it is still answered; then it passes through."""
    results = []
    with pytest.raises(Camera, match="lens"):
        for result in acc.stream(broken(after), batch):
            results.append(result.top1)
    assert results == [1] * after
    assert is_usable(acc)


def test_exception_in_the_iterator_of_an_asynchronous_stream(acc):
    async def run() -> list[int]:
        results = []
        with pytest.raises(Camera, match="lens"):
            async for result in acc.stream_async(broken(2)):
                results.append(result.top1)
        return results

    assert asyncio.run(run()) == [1, 1]
    assert is_usable(acc)


def test_exception_on_golden(ordered):
    _, golden = ordered
    results = []
    with pytest.raises(Camera, match="lens"):
        for result in golden.stream(broken(3), 2):
            results.append(result)
    assert len(results) == 3


def test_an_image_of_wrong_size(acc):
    results = []
    with pytest.raises(RowvitError, match=r"images are uint8 \[1, 4, 4, 3\]; this network takes"):
        for result in acc.stream([IMAGES[0], IMAGES[1], IMAGES[2][:4, :4]]):
            results.append(result)
    assert len(results) == 2
    assert is_usable(acc)


def test_one_image(acc):
    """As it is, or as a batch of one; and what is none."""
    (alone,), (batch,) = acc(IMAGES[0]), acc(IMAGES[:1])
    np.testing.assert_array_equal(alone.logits, batch.logits)
    with pytest.raises(RowvitError, match="an image is of type Image; use a path or a uint8 array"):
        acc([Image.fromarray(IMAGES[0])])
    assert is_usable(acc)


@pytest.mark.parametrize("read", [0, 1, 2])
def test_closed_early(acc, read):
    stream = acc.stream(IMAGES[i % 3] for i in range(5))
    for _ in range(read):
        next(stream)
    stream.close()
    assert is_usable(acc)


def test_let_go(acc):
    stream = acc.stream(IMAGES)
    next(stream)
    del stream
    gc.collect()
    assert is_usable(acc)


def test_left_asynchronous_stream(acc):
    async def run() -> None:
        stream = acc.stream_async(IMAGES)
        async for _ in stream:
            break
        await stream.aclose()

    asyncio.run(run())
    assert is_usable(acc)


def test_cancelled_asynchronous_stream(acc):
    acc.watchdog = 1  # the stand-in hangs
    acc.device.budget = 10**9

    async def run() -> None:
        await asyncio.wait_for(collect(acc, IMAGES), 0.2)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(run())
    acc.watchdog = 0
    assert is_usable(acc)


def test_one_stream_at_a_time(acc):
    stream = acc.stream(IMAGES)
    next(stream)
    for use in (lambda: acc(IMAGES), lambda: next(acc.stream(IMAGES)), lambda: acc.load(program())):
        with pytest.raises(RowvitError, match="a stream of this accelerator is open; read it to its end"):
            use()
    assert len(list(stream)) == 2
    assert is_usable(acc)


def test_closed_meanwhile(make):
    acc = make()
    acc.load(program())
    stream = acc.stream(IMAGES)
    next(stream)
    acc.close()
    with pytest.raises(RowvitError, match="this accelerator was closed; open it again"):
        list(stream)
    gc.collect()
    assert not acc.device._used


def test_interrupted_by_the_user(acc):
    """Control-C while the next image is taken, and the core computes the one before."""

    def images():
        yield IMAGES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(acc.stream(images()))
    assert is_usable(acc)


@pytest.mark.parametrize("number", [1, 2])
def test_a_start_that_fails(acc, number):
    """The DMA waits for the answer by then: it must not write to memory that is given back."""
    start, left = acc.core.start, [number]

    def fail(*args) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise RuntimeError("bus error")
        start(*args)

    acc.core.start = fail
    with pytest.raises(RuntimeError, match="bus error"):
        list(acc.stream(IMAGES))
    acc.core.start = start
    assert is_usable(acc)


def test_a_dma_that_does_not_come_back(acc):
    """A reset in vain is said at the next use, and made good when the DMA answers again."""
    base, read = acc.overlay.handoff.dma.base, acc.device.read_registers
    acc.device.budget = 10**9
    disturb(acc.device, {base: 4, base + 0x34: 0x4040})  # an error, and a reset that never ends
    with pytest.raises(RowvitError, match="S2MM channel stopped: decode error"):
        acc(IMAGES)
    assert leak_free(acc)
    disturb(acc.device, {base + 0x34: 0x4041})  # it has halted by now
    with pytest.raises(RowvitError, match="axi_dma_0 does not leave its reset"):
        acc(IMAGES)
    acc.device.read_registers = read
    acc.dma.write(0x30, 0)  # halted
    assert is_usable(acc)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_no_memory_for_a_buffer(acc, number):
    """The first, second, third or fourth buffer of a stream is refused."""
    allocate, left = acc.device.allocate, [number]

    def refuse(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            raise RuntimeError("Failed to allocate Memory!")
        return allocate(*args, **kwargs)

    acc.device.allocate = refuse
    with pytest.raises(RowvitError, match="no contiguous memory for a buffer"):
        list(acc.stream(IMAGES))
    acc.device.allocate = allocate
    assert is_usable(acc)


def test_greater_batches_later(acc):
    """Buffers grow with the batch, and the smaller ones are given back."""
    assert len(acc(IMAGES, batch=1)) == len(acc(IMAGES, batch=2)) == len(acc(IMAGES, batch=3)) == 3
    assert leak_free(acc)


# -- waiting ----------------------------------------------------------------------------------------


def waits(monkeypatch) -> list[str]:
    """Whether an asynchronous stream waited for the interrupt or slept."""
    seen: list[str] = []
    wait, sleep = interrupt.Interrupt.wait, asyncio.sleep

    async def noted_wait(self):
        seen.append("interrupt")
        await wait(self)

    async def noted_sleep(seconds, *rest):
        seen.append("sleep" if seconds else "yield")
        await sleep(seconds, *rest)

    monkeypatch.setattr(interrupt.Interrupt, "wait", noted_wait)
    monkeypatch.setattr(asyncio, "sleep", noted_sleep)
    return seen


def test_interrupts(slow, monkeypatch):
    seen = waits(monkeypatch)
    assert slow.core.interrupts == ["rowvit_0/irq"]
    assert len(asyncio.run(collect(slow, IMAGES))) == 3
    assert "interrupt" in seen and "sleep" not in seen
    assert asyncio.run(slow.interrupt_arrives(IMAGES[:1]))


def test_no_interrupt(slow, monkeypatch):
    """The kernel has no UIO device for it, as on an image without the device tree entry."""
    for known, nothing in (("_uio_devices", {}), ("_controllers", [])):
        monkeypatch.setattr(interrupt._InterruptController, known, nothing)
    monkeypatch.setattr(interrupt, "get_uio_irq", lambda line: None)
    seen = waits(monkeypatch)
    assert [r.top1 for r in asyncio.run(collect(slow, IMAGES))] == [1, 1, 1]
    assert "sleep" in seen and "interrupt" not in seen
    assert not asyncio.run(slow.interrupt_arrives(IMAGES[:1]))


def test_an_interrupt_that_never_comes(slow, monkeypatch):
    """The stream looks for itself after a while."""

    async def never(self):
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(interrupt.Interrupt, "wait", never)
    assert [r.top1 for r in asyncio.run(collect(slow, IMAGES))] == [1, 1, 1]
    assert not asyncio.run(slow.interrupt_arrives(IMAGES[:1]))
    assert leak_free(slow)


def test_deadline_of_an_asynchronous_stream(make):
    acc = make(watchdog=1, budget=10**9, timeout=0.2)
    acc.load(program())
    with pytest.raises(RowvitError, match=r"image 0 was not done in 0.2 s, .*: core busy"):
        asyncio.run(collect(acc, IMAGES))
    assert leak_free(acc)


def test_images_of_one_pass_have_the_time_of_all(make):
    """The timeout is of an image, and those of a pass are done together."""
    acc = make(watchdog=1, budget=10**9, timeout=0.1)
    two = {"images": 2, "shares": [1], "output_bytes": 64, "instructions": 0, "operations": []}
    acc.load(program(passes=[two]))
    with pytest.raises(RowvitError, match=r"image 0 was not done in 0.2 s, .*: core busy"):
        acc(IMAGES[:2], batch=2)


def test_others_run_meanwhile(slow):
    ticks = []

    async def tick() -> None:
        while True:
            ticks.append(1)
            await asyncio.sleep(0)

    async def run() -> list[Result]:
        other = asyncio.ensure_future(tick())
        results = await collect(slow, IMAGES)
        other.cancel()
        return results

    assert len(asyncio.run(run())) == 3
    assert len(ticks) >= 3


def test_a_second_event_loop(acc):
    """Interrupts belong to a loop; every stream takes new ones."""
    for _ in range(2):
        assert len(asyncio.run(collect(acc, IMAGES))) == 3


def test_counters_are_those_of_the_image(acc):
    """They are read before the next image is started."""
    at = acc.overlay.handoff.core.base + COUNTER_BASE + 4 * list(dict(COUNTERS)).index("pv_nonzeros")
    starts = []
    start = acc.core.start
    acc.core.start = lambda *args: (starts.append(1), start(*args))
    disturb(acc.device, {at: lambda _: len(starts)})
    assert [result.counters["pv_nonzeros"] for result in acc.stream(IMAGES)] == [1, 2, 3]
