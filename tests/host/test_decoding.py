# SPDX-License-Identifier: Apache-2.0
"""Decoding by threads: the order, what is refused, and the memory of what waits."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
from waiting import HANG, until

from rowvit import decoding
from rowvit.decoding import decoded
from rowvit.errors import RowvitError

THREADS, BYTES = 3, 1000


@pytest.fixture(autouse=True)
def small_memory(monkeypatch):
    monkeypatch.setattr("rowvit.decoding.processors", lambda: THREADS)
    monkeypatch.setattr("rowvit.decoding.AHEAD_BYTES", BYTES)


def sized(size: Callable[[int], int], begun: list[int]) -> Callable[[int], np.ndarray]:
    """A decoder of numbers, which refuses every fifth."""

    def decode(number: int) -> np.ndarray:
        begun.append(number)
        if number % 5 == 4:
            raise RowvitError(f"{number} is bad")
        return np.full(size(number), number, np.uint8)

    return decode


@pytest.mark.parametrize("ahead", [0, 2, 40])
@pytest.mark.parametrize("size", [1, 300, 999, 5000])
def test_order(ahead: int, size: int) -> None:
    """Whatever size they have, also one that no memory is meant for; the bad do not stop the others."""
    wrong: dict[int, str] = {}
    found = decoded(
        range(23), sized(lambda n: size, []), ahead, lambda n, error: wrong.update({n: str(error)})
    )
    assert [int(pixels[0]) for pixels in found] == [n for n in range(23) if n % 5 != 4]
    assert wrong == {n: f"{n} is bad" for n in (4, 9, 14, 19)}
    with pytest.raises(RowvitError, match="4 is bad"):
        list(decoded(range(23), sized(lambda n: size, []), ahead))


def test_what_waits_fits_in_memory() -> None:
    """The image that is wanted and those after it; the threads take up what has become free."""
    begun: list[int] = []
    for pixels in decoded(range(23), sized(lambda n: 300, begun), 40, lambda n, error: None):
        most = int(pixels[0]) + BYTES // 300
        until(lambda most=most: len(begun) >= min(23, most))
        assert len(begun) <= most + THREADS - 1  # at the start no size is known
    assert len(begun) == 23


def test_images_that_grow() -> None:
    """Nobody knows before a large one that it is: then each thread may have one, and no more follow."""
    begun: list[int] = []
    stream = decoded(range(23), sized(lambda n: 10 if n < 1 else 600, begun), 40)
    assert [int(next(stream)[0]) for _ in range(2)] == [0, 1]
    assert len(begun) <= 1 + THREADS
    stream.close()  # while threads wait
    assert len(begun) < 23


def test_a_camera_is_not_waited_for() -> None:
    taken: list[int] = []

    def frames():
        for number in range(3):
            taken.append(number)
            yield np.full(1, number, np.uint8)

    for number, _ in enumerate(decoded(frames(), lambda frame: frame, 40)):
        assert taken == [*range(number + 1)]


def test_what_is_said_is_said_in_order(monkeypatch, caplog):
    """Of the first file that it holds for, whichever thread comes to its own first."""
    monkeypatch.setattr(decoding, "SAID", {})
    monkeypatch.setattr(decoding, "processors", lambda: 2)
    other = threading.Event()

    def decode(image: str) -> np.ndarray:
        assert image != "a" or other.wait(HANG)
        decoding.say_once("%s is odd", image)
        other.set()
        return np.zeros((2, 2, 3), np.uint8)

    with caplog.at_level("INFO", "rowvit"):
        assert len(list(decoding.decoded(["a", "b"], decode, 2))) == 2
    assert caplog.messages == ["a is odd; so of all such files"]


KEPT = """
import sys
import numpy as np
from rowvit import decoding
decoding.AHEAD_BYTES = 1000
begun = []
kept = decoding.decoded(range(99), lambda number: begun.append(number) or np.zeros(600, np.uint8), 99)
print(len(next(kept)), len(next(kept)))
class AtTheEnd:
    def __del__(self):
        print(len(begun) < 50)
last = AtTheEnd()
"""


def test_a_stream_that_is_kept_does_not_keep_the_process() -> None:
    """Its threads wait for memory when Python ends, and it waits for them."""
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, timeout=HANG)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["600", "600", "True"], "")


ANOTHER_READS = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from rowvit import decoding
decoding.AHEAD_BYTES = 1000
images = decoding.decoded(range(40), lambda number: np.full(600, number, np.uint8), 20)
"""
OUTLIVES = (
    ANOTHER_READS
    + """
def read():
    numbers = [int(next(images)[0])]
    threading.main_thread().join()
    time.sleep(0.2)  # Python ends all threads that decode
    print(numbers + [int(pixels[0]) for pixels in images] == [*range(40)])
threading.Thread(target=read).start()
"""
)
IDLES = (
    ANOTHER_READS
    + """
pool = ThreadPoolExecutor(1)
print(int(pool.submit(next, images).result()[0]) == 0)
"""
)


@pytest.mark.parametrize("script", [OUTLIVES, IDLES], ids=["outlives", "idles"])
def test_a_thread_that_is_not_the_main_one_reads(script: str) -> None:
    """All of it, where it goes on behind the main thread's end; and Python ends where it does not."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["True"], "")


FORKED = """
import os, threading
import numpy as np
from rowvit import decoding
decoding.MOST_BYTES = 1  # the room is what there always is, however much memory is free
first_read, started, go_on = (threading.Event() for _ in range(3))
def decode(number):
    if number:
        first_read.wait()  # or it might keep the room from the first
    with decoding.ROOM.taken(decoding.ROOM.size()):
        if number:
            started.set()
            go_on.wait()
        return np.zeros(600, np.uint8)
images = decoding.decoded(range(9), decode, 9)
next(images)
first_read.set()
waits = threading.Thread(target=decode, args=[0])
started.wait()
waits.start()  # at the entrance
if child := os.fork():
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    go_on.set()
else:
    images.close()
    print(sum(map(len, decoding.decoded(range(1), lambda number: decode(0)))), flush=True)
    os._exit(7)
"""


def test_a_fork_waits_for_no_thread_of_its_parent() -> None:
    quiet = ["-W", "ignore::DeprecationWarning"]  # Python's own, from 3.12 on, of any fork amid threads
    run = [sys.executable, *quiet, "-c", FORKED]
    done = subprocess.run(run, capture_output=True, text=True, timeout=HANG)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["600", "7"], "")
