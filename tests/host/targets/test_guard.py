# SPDX-License-Identifier: Apache-2.0
"""The guard: one image in N goes through the integer reference, too, which finds weights that changed."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from waiting import HANG

import rowvit
from replay import TINY
from rowvit.compiler import compile
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.formats.program import Program
from rowvit.quant.synthetic import random_package
from rowvit.targets.driver import Accelerator
from rowvit.targets.golden import Golden
from rowvit.targets.guard import Difference
from rowvit.targets.target import Result, first_difference

SIZE = dict(dim=32, depth=2, heads=2, image_size=8, patch_size=2, hidden=32, classes=3)
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
AT = -15280  # a byte of the weights, whose bit 6 changes every image's result


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    pruning = [{"layer": 0, "keep": 9, "threshold": 1 << 15}]
    return random_package(np.random.default_rng(5), **SIZE, pruning=pruning, ffn2_rule="image")


@pytest.fixture
def guarded(package):
    """Opens simulated accelerators with the network, which check one image in ``every``."""
    opened = []

    def one(every: int, model: ModelPackage | Program = package) -> Accelerator:
        opened.append(rowvit.open("sim", TINY, check_every=every))
        opened[-1].load(model)
        return opened[-1]

    yield one
    for acc in opened:
        acc.guard = None  # what was found has been looked at
        acc.close()


def flip(acc: Accelerator) -> None:
    """A bit of the weights in the memory that the core reads."""
    acc.blob[AT] ^= 0x40
    acc.blob.flush()


def exact(results: list[Result]) -> list[bool | None]:
    return [result.bit_exact for result in results]


class Gate:
    """Holds the reference until it is opened."""

    def __init__(self, monkeypatch) -> None:
        self.open = threading.Event()
        compute = Golden._run

        def held(golden, images):
            assert self.open.wait(HANG)
            return compute(golden, images)

        monkeypatch.setattr(Golden, "_run", held)


def test_one_in_n_over_the_life_of_the_target(guarded):
    acc = guarded(3)
    assert exact(acc(IMAGES[:4])) == [True, None, None, True]
    assert exact(acc(IMAGES[:2], batch=2)) == [None, None]
    assert exact(list(acc.stream(IMAGES, batch=4))) == [True, None, None, True, None, None, True]
    assert exact(guarded(1)(IMAGES[:3], batch=2)) == [True] * 3


def test_results_are_those_without_it(guarded, package):
    with rowvit.open("sim", TINY) as plain:
        plain.load(package)
        expected = plain(IMAGES, batch=3)
    found = guarded(2)(IMAGES, batch=3)
    for one, other in zip(found, expected, strict=True):
        assert one.same(other) and one.cycles == other.cycles


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_bit_of_the_weights(guarded, batch):
    """It is found by the next image that is checked, and is in memory; a network loaded anew is right."""
    acc = guarded(4)
    acc(IMAGES[:1])
    flip(acc)
    with pytest.raises(Difference) as error:
        acc(IMAGES, batch)
    assert error.value.image == 4 and error.value.where.startswith(("logits[", "tokens kept by layer 0"))
    assert str(error.value).startswith("image 4 differs from the integer reference in ")
    size = acc.program.blob.nbytes
    said = f"1 of {size} bytes of program and weights have changed in memory, the first at {size + AT}"
    assert said in str(error.value)
    with pytest.raises(Difference, match="image 4 differs"):  # nothing more until it is loaded again
        acc(IMAGES[:1])
    acc.load(acc.program)
    assert exact(acc(IMAGES[:5])) == [True, None, None, None, True]


def test_what_is_wrong_all_the_time(guarded, package):
    """A program that is not what its package says, as by a fault of the compiler: memory is not to blame."""
    program = compile(package, TINY, checkpoints=True)
    program.weights[AT] ^= 0x40
    acc = guarded(2, program)
    for _ in range(2):
        with pytest.raises(Difference, match=r"in checkpoint (embed|layers\.[01]\.(attn|ffn)), row \d+, cha"):
            acc(IMAGES)
        acc.load(program)
    with pytest.raises(Difference, match=r"weights in memory are unchanged: .* report it"):
        acc(IMAGES)


def test_the_file_is_named(guarded, tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, pixels in zip(files, IMAGES, strict=False):
        Image.fromarray(pixels).save(file)
    acc = guarded(2)
    assert exact(acc(files)) == [True, None, True]
    flip(acc)
    with pytest.raises(Difference, match=rf"^{files[2]} differs from the integer reference in "):
        acc([IMAGES[0], files[2]])


def test_results_do_not_wait_for_the_reference(guarded, monkeypatch):
    """They are given as they come, in order; the check is made up for at the stream's end."""
    gate = Gate(monkeypatch)
    stream = guarded(5).stream(IMAGES)
    first = [next(stream) for _ in range(5)]
    assert exact(first) == [None] * 5
    gate.open.set()
    rest = list(stream)
    assert exact(first + rest) == [True, None, None, None, None, True, None]


def test_what_waits_for_the_reference_is_bounded(guarded, monkeypatch):
    """A reference that is slower than the core holds it up."""
    gate, taken, results = Gate(monkeypatch), [], []
    acc = guarded(1)

    def images():
        for number in range(20):
            taken.append(number)
            yield IMAGES[number % 7]

    thread = threading.Thread(target=lambda: results.extend(acc.stream(images())))
    thread.start()
    time.sleep(1.5)  # long enough for all of them
    assert len(taken) <= 4
    gate.open.set()
    thread.join(HANG)
    assert exact(results) == [True] * 20 and len(taken) == 20


def test_the_caller_may_use_its_array_again(guarded, monkeypatch):
    gate, image = Gate(monkeypatch), np.empty((8, 8, 3), np.uint8)

    def camera():
        for pixels in IMAGES[:3]:
            image[:] = pixels
            yield image
        gate.open.set()

    assert exact(list(guarded(3).stream(camera()))) == [True, None, None]


def test_a_stream_that_is_closed_early(guarded, monkeypatch):
    """The check of a result that was given out is not lost; a closed stream says it."""
    gate, acc = Gate(monkeypatch), guarded(1)
    flip(acc)
    stream = acc.stream(IMAGES)
    next(stream)
    threading.Timer(0.2, gate.open.set).start()
    with pytest.raises(Difference, match="image 0 differs"):
        stream.close()
    with pytest.raises(Difference, match="image 0 differs"):
        acc(IMAGES)
    acc.load(acc.program)


def test_a_fault_of_the_core_and_a_difference(guarded, monkeypatch):
    """The difference is raised, and once: it explains the other."""
    gate, acc = Gate(monkeypatch), guarded(1)
    flip(acc)
    stream = acc.stream(IMAGES)
    next(stream)
    acc.blob[:] = 0xFF
    acc.blob.flush()
    threading.Timer(0.2, gate.open.set).start()
    with pytest.raises(Difference, match="image 0 differs"):
        list(stream)
    acc.load(acc.program)
    assert exact(acc(IMAGES[:2])) == [True, True]


@pytest.mark.parametrize("load", [False, True])
def test_a_stream_that_is_let_go(package, monkeypatch, load):
    """Nobody can be told then: the target says it at its end, or when a network is loaded."""
    gate = Gate(monkeypatch)
    monkeypatch.setattr(sys, "unraisablehook", lambda found: None)  # what Python prints
    with pytest.raises(Difference, match="image 0 differs"), rowvit.open("sim", TINY, check_every=1) as acc:
        acc.load(package)
        flip(acc)
        stream = acc.stream(IMAGES)
        next(stream)
        gate.open.set()
        del stream
        gc.collect()
        if load:
            acc.load(package)
    assert not acc.device._used and acc.program is None  # closed all the same


def test_a_target_that_is_closed_early(package, monkeypatch):
    gate = Gate(monkeypatch)
    acc = rowvit.open("sim", TINY, check_every=1)
    acc.load(package)
    flip(acc)
    stream = acc.stream(IMAGES)
    next(stream)
    gate.open.set()
    with pytest.raises(Difference, match="image 0 differs"):
        acc.close()
    assert not acc.device._used


def test_what_was_said_is_not_said_again(package):
    with rowvit.open("sim", TINY, check_every=1) as acc:
        acc.load(package)
        flip(acc)
        with pytest.raises(Difference):
            acc(IMAGES)


def test_the_iterators_own_error(guarded):
    """It passes through where nothing differs; the image that was due is due again."""
    acc = guarded(2)

    def broken():
        yield IMAGES[0]
        yield IMAGES[1]
        raise OSError("the lens fell off")

    results = []
    with pytest.raises(OSError, match="lens"):
        results.extend(acc.stream(broken()))
    assert exact(acc(IMAGES[:2])) == [True, None]


def test_a_reference_that_fails(guarded, monkeypatch):
    def fail(golden, images):
        raise MemoryError("no room")

    acc = guarded(4)
    with monkeypatch.context() as patch:
        patch.setattr(Golden, "_run", fail)
        with pytest.raises(MemoryError, match="no room"):
            acc(IMAGES)
    acc.load(acc.program)
    acc(IMAGES)


def test_asynchronous_streams(guarded, monkeypatch):
    gate, acc, ticks = Gate(monkeypatch), guarded(3), []

    async def tick() -> None:
        while True:
            ticks.append(1)
            if len(ticks) == 20:  # without them, it would wait for ever
                gate.open.set()
            await asyncio.sleep(0.01)

    async def run() -> list[Result]:
        other = asyncio.ensure_future(tick())
        results = [result async for result in acc.stream_async(IMAGES)]
        other.cancel()
        return results

    assert exact(asyncio.run(run())) == [True, None, None, True, None, None, True]
    assert len(ticks) >= 20  # others run while it waits for the reference
    flip(acc)
    with pytest.raises(Difference, match="image 9 differs"):
        asyncio.run(run())


def test_what_cannot_be_checked(guarded, package, tmp_path):
    with pytest.raises(RowvitError, match="one image in 0 cannot be checked; use 1 or more"):
        rowvit.open("sim", TINY, check_every=0)
    with pytest.raises(RowvitError, match="golden is the integer reference: there is nothing to check"):
        rowvit.open("golden", TINY, check_every=1)
    compile(package, TINY).save(tmp_path / "program.safetensors")
    acc = guarded(1)
    with pytest.raises(RowvitError, match=r"is a program compiled for 'tiny'.*; use the model package"):
        acc.load(tmp_path / "program.safetensors")
    with pytest.raises(RowvitError, match="no network is loaded"):
        acc(IMAGES)


def result(**changes) -> Result:
    meta = {"scales": {"logit": 1.0}, "classes": ["a", "b"]}
    values = dict(
        logits=np.array([1, 2], np.int16),
        kept=[np.array([0, 2, 4]), np.array([0, 4])],
        checkpoints={"embed": np.zeros((5, 4), np.int16), "layers.1.attn": np.zeros((3, 4), np.int16)},
    )
    return Result.of(meta, **values | changes)


def changed(name: str, row: int, channel: int) -> dict[str, np.ndarray]:
    found = result().checkpoints
    found[name][row, channel] = -7
    return {"checkpoints": found}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({}, ""),
        ({"logits": np.array([1, 3])}, "logits[1]: 3 instead of 2 (kept tokens and checkpoints are equal)"),
        (
            {"kept": [np.array([0, 2, 4]), np.array([0, 3])]},
            "tokens kept by layer 2, number 1: 3 instead of 4",
        ),
        (
            {"kept": [np.array([0, 2]), np.array([0, 3])]},
            "tokens kept by layer 1, number 2: none instead of 4",
        ),
        (changed("embed", 4, 2), "checkpoint embed, row 4, channel 2: -7 instead of 0"),
        # kept tokens are known before the checkpoint behind them
        (
            changed("layers.1.attn", 0, 0) | {"kept": [np.array([1, 2, 4]), np.array([0, 4])]},
            "tokens kept by layer 1, number 0: 1 instead of 0",
        ),
        ({"checkpoints": {}}, "checkpoint embed, which is not there with 5 rows"),
    ],
)
def test_the_first_difference(changes, where):
    meta = {"architecture": {"depth": 3}, "pruning": [{"layer": 1}, {"layer": 2}]}
    assert first_difference(result(**changes), result(), meta) == where


def test_a_network_without_pruning():
    ours, theirs = result(kept=[], checkpoints={}), result(kept=[], checkpoints={}, logits=np.array([9, 2]))
    meta = {"architecture": {"depth": 1}, "pruning": []}
    assert first_difference(ours, theirs, meta) == "logits[0]: 1 instead of 9"
