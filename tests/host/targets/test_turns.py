# SPDX-License-Identifier: Apache-2.0
"""Who drives a device: one process the board, in it one stream at a time, which leaves no buffer behind."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pynq
import pytest
from pynq import Device, interrupt, uio
from waiting import HANG, until

import rowvit
from replay import IMAGES, TINY, fpga_manager, leak_free, program
from rowvit.errors import RowvitError
from rowvit.overlay import RowvitOverlay, claim
from rowvit.overlay.overlay import require_board
from rowvit.pynq import PynqBuffer, give_loop
from rowvit.quant.synthetic import random_package
from rowvit.sim.device import IRQ_LINES, SimDevice
from rowvit.targets.driver import Accelerator

# -- processes ------------------------------------------------------------------------------------


def others_claim() -> str:
    """What another process is told that wants the board."""
    code = (
        "import sys; from pathlib import Path; from rowvit.overlay import claim;"
        "claim.LOCK = Path(sys.argv[1]); held = claim.claim(); print('it is mine')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(claim.LOCK)], capture_output=True, text=True, timeout=HANG
    )
    return (ran.stdout + ran.stderr).strip().splitlines()[-1]


@pytest.fixture
def board(make, tmp_path) -> SimDevice:
    """One with the kernel's FPGA manager."""
    device = make().device
    folder = tmp_path / "fpga_manager"
    folder.mkdir()
    fpga_manager(device, folder, "operating")
    return device


def test_one_process_has_the_board(board):
    """Until its last accelerator is closed; its own are no others."""
    with Accelerator(RowvitOverlay(board.bitstream, device=board)) as acc:
        acc.load(program())
        with Accelerator(RowvitOverlay(board.bitstream, device=board)):
            told = others_claim()
            assert f"the board is in use by process {os.getpid()} (" in told, told
            assert told.endswith("end that, or close its target, first")
        assert "is in use" in others_claim(), "the first is open"
    assert others_claim() == "it is mine"
    with pytest.raises(RowvitError, match=r"rowvit\S*\.bit was closed; open it again"):
        Accelerator(acc.overlay)  # others may have loaded something else
    assert others_claim() == "it is mine"


def test_of_two_on_an_overlay_each_has_the_board(board):
    overlay = RowvitOverlay(board.bitstream, device=board)
    one, other = Accelerator(overlay), Accelerator(overlay)
    one.close()
    assert "is in use" in others_claim()
    other.close()
    assert others_claim() == "it is mine"


def test_what_was_closed_is_not_loaded_again(make):
    """The board may be another process's by then."""
    acc = make()
    acc.load(program())
    acc.close()
    with pytest.raises(RowvitError, match=r"this accelerator was closed; open it again"):
        acc.load(program())


def test_the_board_is_roots(board, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RowvitError, match=r"programmable logic to root alone; use sudo -i"):
        RowvitOverlay(board.bitstream, device=board)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(claim, "LOCK", tmp_path)  # which cannot be written
    with pytest.raises(RowvitError, match=r"who uses the board, cannot be opened \(Is a dir.*; work as"):
        RowvitOverlay(board.bitstream, device=board)


def test_a_link_in_place_of_the_lock(board, monkeypatch, tmp_path):
    """Whoever may write where it lies, must not have root write elsewhere."""
    monkeypatch.setattr(claim, "LOCK", tmp_path / "other")
    (tmp_path / "other").symlink_to(tmp_path / "precious")
    with pytest.raises(RowvitError, match="cannot be opened"):
        RowvitOverlay(board.bitstream, device=board)
    assert not (tmp_path / "precious").exists()


# -- in one process ---------------------------------------------------------------------------------


def test_what_is_opened_again_ends_what_was_open(make):
    """As when a cell of a notebook runs again: the stream of before says that it was ended."""
    first = make()
    first.load(program())
    stream = first.stream(IMAGES)
    assert next(stream).top1 == 1
    second = Accelerator(RowvitOverlay(first.device.bitstream, TINY, first.device), timeout=HANG)
    second.load(program())
    assert [result.top1 for result in second(IMAGES)] == [1, 1, 1]
    with pytest.raises(RowvitError, match="this accelerator was closed; open it again"):
        list(stream)
    assert [result.top1 for result in second(IMAGES)] == [1, 1, 1]
    assert leak_free(second)


def test_two_take_turns(make):
    """On one bitstream, one after the other is done; not one amid the other."""
    one = make()
    other = Accelerator(RowvitOverlay(one.device.bitstream, TINY, one.device), timeout=HANG)
    for acc in (one, other):
        acc.load(program())
    for acc in (one, other, one):
        assert [result.top1 for result in acc(IMAGES)] == [1, 1, 1]
    stream = one.stream(IMAGES)
    next(stream)
    for use in (lambda: other(IMAGES), lambda: other.load(program())):
        with pytest.raises(RowvitError, match="a stream of this accelerator is open; read it to its end"):
            use()
    assert len(list(stream)) == 2 and len(other(IMAGES)) == 3


def test_what_another_has_reset_goes_on(make):
    """Its transfers were the last, but the DMA begins anew."""
    one = make()
    one.load(program())
    assert len(one(IMAGES)) == 3
    other = Accelerator(RowvitOverlay(one.device.bitstream, TINY, one.device), timeout=HANG)
    other.load(program())
    for acc in (one, one, other, one):
        assert [result.top1 for result in acc(IMAGES)] == [1, 1, 1]


def test_another_bitstream_was_loaded_since(make):
    acc = make()
    acc.load(program())
    acc.overlay.turns.bitstream = "/home/xilinx/other.bit"
    for use in (lambda: acc(IMAGES), lambda: acc.load(program())):
        with pytest.raises(RowvitError, match=r"other.bit was loaded since, in place of .*; open it again"):
            use()


def test_pynq_has_loaded_another_since(make, tmp_path):
    """Its addresses hold something else then, or nothing, where a board stands still: none is touched."""
    acc = make()
    acc.load(program())
    stream = acc.stream(IMAGES)
    next(stream)
    acc.overlay.download()
    acc.reset()
    for suffix in (".bit", ".hwh"):
        shutil.copy(Path(acc.device.bitstream).with_suffix(suffix), tmp_path / f"other{suffix}")
    pynq.Overlay(str(tmp_path / "other.bit"), device=acc.device)
    touched: list[int] = []
    acc.device.read_registers = lambda address, length: touched.append(address) or bytes(length)
    acc.device.write_registers = lambda address, data: touched.append(address)
    for use in (lambda: next(stream), lambda: acc(IMAGES), lambda: acc.load(program()), acc.reset, acc.probe):
        with pytest.raises(RowvitError, match=r"other\.bit, by PYNQ, was loaded since, in place of"):
            use()
    acc.close()
    assert touched == [] and leak_free(acc)


def test_pynq_has_loaded_it_again(make):
    """Which does not give the core the clock that rowvit does."""
    acc = make()
    acc.load(program())
    pynq.Overlay(acc.device.bitstream, device=acc.device)
    with pytest.raises(RowvitError, match="by PYNQ, was loaded since"):
        acc(IMAGES)
    with Accelerator(RowvitOverlay(acc.device.bitstream, TINY, acc.device), timeout=HANG) as again:
        again.load(program())
        assert len(again(IMAGES)) == 3


def test_what_was_downloaded_by_hand_is_loaded(make, tmp_path):
    """And the other overlay of the device is not."""
    acc = make()
    acc.load(program())
    for suffix in (".bit", ".hwh"):
        shutil.copy(Path(acc.device.bitstream).with_suffix(suffix), tmp_path / f"other{suffix}")
    other = Accelerator(RowvitOverlay(tmp_path / "other.bit", TINY, acc.device), timeout=HANG)
    acc.overlay.download()
    acc.overlay.require_loaded()
    with pytest.raises(RowvitError, match=r"was loaded since, in place of .*other\.bit"):
        other.load(program())


def test_resetting_what_was_not_downloaded_loads_nothing(make):
    """PYNQ notes no time for such an overlay, and `reset` would write that to the device."""
    acc = make()
    opened = RowvitOverlay(acc.device.bitstream, TINY, acc.device, download=False)
    with Accelerator(opened, timeout=HANG) as again:
        again.load(program())
        opened.reset()
        assert len(again(IMAGES)) == 3
    pynq.Overlay(acc.device.bitstream, device=acc.device)
    assert not opened.is_loaded()


def test_pynq_could_not_load_another(board, tmp_path):
    """It notes no time of that, but the logic is no core's any more."""
    acc = Accelerator(RowvitOverlay(board.bitstream, TINY, board), timeout=HANG)
    acc.load(program())
    stream = acc.stream(IMAGES)
    next(stream)
    (tmp_path / "fpga_manager" / "state").write_text("write complete error\n")
    touched: list[int] = []
    board.read_registers = lambda address, length: touched.append(address) or bytes(length)
    board.write_registers = lambda address, data: touched.append(address)
    for use in (lambda: next(stream), lambda: acc(IMAGES), lambda: acc.load(program()), acc.reset, acc.probe):
        with pytest.raises(
            RowvitError, match="is not loaded: the FPGA manager's state is 'write complete error'"
        ):
            use()
    assert touched == []
    acc.close()


def test_closed_it_touches_no_register(make):
    """Another process may have loaded something else."""
    acc = make()
    acc.close()
    touched: list[int] = []
    acc.device.read_registers = lambda address, length: touched.append(address) or bytes(length)
    acc.device.write_registers = lambda address, data: touched.append(address)
    for use in (acc.probe, acc.reset, lambda: acc.load(program()), lambda: acc(IMAGES)):
        with pytest.raises(RowvitError, match="this accelerator was closed; open it again"):
            use()
    assert touched == []


def dropped(stream) -> None:
    """The caller forgets it amid a cycle, so that Python finalises it when it collects garbage."""
    cycle = [stream]
    cycle.append(cycle)


def test_collected_while_it_is_closed(make, monkeypatch):
    """By a thread that closing waits for."""
    acc = make()
    acc.load(program())

    def pixels(number: int) -> np.ndarray:
        if number == 2:
            began.set()
            assert closing.wait(HANG)
            gc.collect()
        return IMAGES[0]

    began, closing = threading.Event(), threading.Event()
    acc._pixels = pixels
    monkeypatch.setattr("rowvit.decoding.processors", lambda: 1)
    gc.disable()
    try:
        stream = acc.stream(range(9))
        next(stream)
        dropped(stream)
        del stream
        assert began.wait(HANG)
        threading.Timer(0.2, closing.set).start()
        acc.close()
    finally:
        gc.enable()
    assert leak_free(acc)


def test_collected_while_another_is_refused(make, monkeypatch):
    acc = make()
    acc.load(program())

    class Refused(RowvitError):
        def __init__(self, *words: str) -> None:
            gc.collect()
            super().__init__(*words)

    stream = acc.stream(IMAGES)
    next(stream)
    dropped(stream)
    del stream
    monkeypatch.setattr(claim, "RowvitError", Refused)
    with pytest.raises(RowvitError, match="a stream of this accelerator is open"):
        acc(IMAGES)
    assert len(acc(IMAGES)) == 3


def test_a_close_that_fails_can_be_repeated(make):
    acc = make(on_close=lambda: 1 / 0)
    acc.load(program())
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            acc.close()
    assert leak_free(acc)


def test_closed_while_a_stream_is_left(make):
    """Its thread resets the core then: who closes it meanwhile is told, and nothing is freed under it."""
    acc = make()
    acc.load(program())
    reset, resetting, go_on = acc.reset, threading.Event(), threading.Event()

    def slow_reset() -> None:
        resetting.set()
        assert go_on.wait(HANG)
        reset()

    def leave() -> None:
        with closing(acc.stream(IMAGES)) as stream:
            next(stream)
            acc.reset = slow_reset

    leaving = threading.Thread(target=leave)
    leaving.start()
    assert resetting.wait(HANG)
    with pytest.raises(
        RowvitError, match="another thread is at work on this accelerator; end that there first"
    ):
        acc.close()
    go_on.set()
    leaving.join(HANG)
    acc.reset = reset
    assert len(acc(IMAGES)) == 3
    acc.close()
    assert leak_free(acc)


def test_closed_by_an_image(make):
    """Images come from code of the user's, in the middle of a step."""
    acc = make()
    acc.load(program())

    def images():
        yield IMAGES[0]
        acc.close()

    with pytest.raises(
        RowvitError, match="an image of its stream closes this accelerator; end the stream first"
    ):
        list(acc.stream(images()))
    assert len(acc(IMAGES)) == 3 and leak_free(acc)


def test_closed_while_a_stream_sleeps(make, monkeypatch):
    """The stream wakes amid that, and is told that it has ended; it does not go on beside it."""
    acc = make()
    acc.load(program())
    reset, advance, resetting, told = acc.reset, acc._advance, threading.Event(), []
    acc._advance = lambda batch: resetting.is_set() and advance(batch)  # else it is done before it can sleep

    def slow_reset() -> None:
        resetting.set()
        time.sleep(0.1)  # in which the stream goes on, if it may
        reset()

    def sleep(seconds: float) -> None:
        if not resetting.is_set():
            acc.reset = slow_reset
            closing.start()
            assert resetting.wait(HANG)

    def use() -> None:
        with pytest.raises(RowvitError) as told_so:
            list(acc.stream(IMAGES))
        told.append(str(told_so.value))

    closing, user = threading.Thread(target=acc.close), threading.Thread(target=use)
    monkeypatch.setattr("rowvit.targets.driver.time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    user.start()
    for thread in (user, closing):
        thread.join(HANG)
    assert told == ["this accelerator was closed; open it again"]
    assert leak_free(acc)


def test_threads_do_not_mix(make):
    """One of them streams, the others are refused, and nobody closes under it."""
    acc = make()
    acc.load(program())
    told: list[str] = []
    inside, go = threading.Event(), threading.Event()

    def images():
        yield IMAGES[0]
        inside.set()
        assert go.wait(HANG)
        yield from IMAGES[1:]

    thread = threading.Thread(target=lambda: told.extend(str(one.top1) for one in acc.stream(images())))
    thread.start()
    assert inside.wait(HANG)
    for use, message in (
        (lambda: acc(IMAGES), "a stream of this accelerator is open"),
        (acc.close, "another thread is at work on this accelerator; end that there first"),
        (
            lambda: RowvitOverlay(acc.device.bitstream, TINY, acc.device),
            "another thread is at work on this accelerator",
        ),
    ):
        with pytest.raises(RowvitError, match=message):
            use()
    go.set()
    thread.join(HANG)
    assert told == ["1", "1", "1"] and len(acc(IMAGES)) == 3


def test_many_threads_at_once(make):
    """Whoever gets it has right answers, whatever the others try meanwhile."""
    acc = make()
    acc.load(program())
    found: list[object] = []
    end = time.monotonic() + 1

    def use() -> None:
        while time.monotonic() < end:
            try:
                found.append([one.top1 for one in acc(IMAGES)])
            except RowvitError as error:
                found.append(str(error).partition(";")[0])

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert [1, 1, 1] in found
    assert all(one in ([1, 1, 1], "a stream of this accelerator is open") for one in found)


# -- memory -----------------------------------------------------------------------------------------


class Memory(int):
    """The handle of a buffer, whose end unmaps its memory, as that of XRT's does."""

    ended: list[int] = []

    def __del__(self) -> None:
        self.ended.append(int(self))


@pytest.fixture
def handles(monkeypatch):
    """Buffers of PYNQ 3.1: parts of one hold its handle, and freeing it gives back that of the whole."""
    Memory.ended = []
    made: list[int] = []
    allocate, free = SimDevice.allocate, PynqBuffer.freebuffer

    def allocated(self, *args, **options):
        left = [address for address in made if address not in self._used and address not in Memory.ended]
        assert not left, "memory that was freed is unmapped while something else may lie there"
        buffer = allocate(self, *args, **options)
        made.append(buffer.bo)
        buffer.bo = Memory(buffer.bo)
        Memory.ended = [address for address in Memory.ended if address != buffer.bo]
        return buffer

    def freed(self):
        free(self)
        if hasattr(self, "memory"):
            vars(self).pop("bo", None)

    monkeypatch.setattr(SimDevice, "allocate", allocated)
    monkeypatch.setattr(PynqBuffer, "freebuffer", freed)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_stream_that_ends_early_keeps_no_part_of_a_buffer(handles, make, batch):
    """XRT unmaps a buffer's memory when its last part goes: by then, something else may lie there."""
    acc = make()
    acc.load(program())
    for _ in range(3):
        stream = acc.stream([*IMAGES, *IMAGES], batch)
        next(stream)
        stream.close()
        assert len(acc(IMAGES, batch)) == 3


def test_frames_that_grow_keep_no_part_of_a_buffer(handles):
    package = random_package(
        np.random.default_rng(0), dim=32, depth=1, heads=2, image_size=8, patch_size=4, hidden=16, classes=3
    )
    frames = [np.full((side, side, 3), side, np.uint8) for side in (8, 20, 40, 90)]
    with rowvit.open("sim", TINY, frontend="hls") as acc:
        acc.load(package)
        assert len(acc(frames)) == 4


# -- interrupts -------------------------------------------------------------------------------------


class Uio:
    """A file of /dev/uio: a write arms it, and then the simulation runs until the interrupt can be read."""

    def __init__(self, device: SimDevice, lock: threading.RLock) -> None:
        self.device, self.lock, self.reads = device, lock, 0
        self.ours, self.theirs = socket.socketpair()

    def fileno(self) -> int:
        return self.ours.fileno()

    def write(self, data: bytes) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def read(self, count: int) -> bytes:
        self.reads += 1
        return self.ours.recv(count)

    def close(self) -> None:
        pass

    def _run(self) -> None:
        def raised() -> bool:
            with self.lock:
                if not self.device.interrupt_pending():
                    self.device.advance()
                    return False
                return True

        until(raised)
        self.theirs.send(b"\0\0\0\1")


@pytest.fixture
def lines(monkeypatch):
    """PYNQ's files of interrupts by number: in place of the simulator's, those that a test opens."""
    controller, found = interrupt._InterruptController, {}
    yield SimpleNamespace(
        found=found,
        replace=lambda: (
            monkeypatch.setattr(controller, "_uio_devices", found),
            monkeypatch.setattr(controller, "_controllers", []),
        ),
    )
    give_loop()  # which PYNQ asks for where it closes them
    found.clear()
    monkeypatch.undo()
    gc.collect()


def test_interrupts_reach_every_event_loop(make, monkeypatch, lines):
    """By PYNQ's own reader of UIO, which registers with the first loop alone."""
    acc = make(memory=None, budget=10**9)
    device, lock = acc.device, threading.RLock()

    def guarded(call):
        def guarded_call(*args):
            with lock:
                return call(*args)

        return guarded_call

    for name in ("read_registers", "write_registers", "advance", "interrupt_pending"):
        setattr(device, name, guarded(getattr(device, name)))
    file = Uio(device, lock)
    lines.replace()
    monkeypatch.setattr(uio, "open", lambda *_, **__: file, raising=False)
    monkeypatch.setattr(interrupt, "get_uio_irq", lambda _: "/dev/uio0")
    acc.load(program())
    for count in range(1, 4):
        assert asyncio.run(acc.interrupt_arrives(IMAGES[:1]))
        assert file.reads == count
    assert IRQ_LINES[device.arch] in lines.found


def test_a_thread_without_event_loop(standin, monkeypatch, tmp_path, lines):
    """As a server's: PYNQ asks for a loop where it looks for devices, and for a driver's interrupts."""
    os.mkfifo(tmp_path / "uio0")
    monkeypatch.setattr(type(Device), "devices", property(lambda _: [asyncio.get_event_loop()]))
    with SimDevice(TINY, rtl=standin) as device:
        lines.replace()
        monkeypatch.setattr(interrupt, "get_uio_irq", lambda _: str(tmp_path / "uio0"))
        with ThreadPoolExecutor(1) as thread:
            thread.submit(require_board).result()
        with ThreadPoolExecutor(1) as thread:
            overlay = thread.submit(RowvitOverlay, device.bitstream, TINY, device).result()
        with ThreadPoolExecutor(1) as thread:
            core = thread.submit(lambda: overlay.core).result()
        assert core.interrupts and IRQ_LINES[device.arch] in lines.found


def test_the_files_of_interrupts_are_closed_at_exit(tmp_path):
    """PYNQ asks for a loop there, too, which the program may have ended."""
    os.mkfifo(tmp_path / "uio0")
    code = (
        "import asyncio, sys; from rowvit.pynq import UioController, interrupt\n"
        "async def wait(): interrupt._InterruptController._uio_devices[0] = UioController(sys.argv[1])\n"
        "asyncio.run(wait())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "uio0")], capture_output=True, text=True, timeout=HANG
    )
    assert (done.returncode, done.stderr) == (0, "")
