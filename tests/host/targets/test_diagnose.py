# SPDX-License-Identifier: Apache-2.0
"""``rowvit diagnose``: a sound board passes, and each fault ends the walk at the step that names it."""

from __future__ import annotations

import errno
import hashlib
import json
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pynq
import pytest
from clocks import FakeClock, TickingClock
from pynq import Device
from typer.testing import CliRunner

from replay import TINY, disturb, fpga_manager
from rowvit.cli import app
from rowvit.hardware import config as configs
from rowvit.hardware.isa import COUNTER_BASE, COUNTERS, REGISTERS
from rowvit.overlay.verify import Check
from rowvit.sim import hwh
from rowvit.sim.device import DDR_BASE, MemoryModel, SimDevice
from rowvit.targets.diagnose import _SIZES, _SMALL, _Walk, diagnose

FILES = [
    *(
        "bitstream",
        "handoff",
        "same build",
        "core",
        "clock",
        "DMA",
        "addresses",
        "memory ports",
        "provenance",
    ),
]
BOARD = [
    *("overlay", "PL clock", "memory", "channels", "transfer", "speed", "memories", "stream", "interrupt"),
]


@pytest.fixture
def clock(monkeypatch) -> FakeClock:
    """The host's, as the walk measures the core's speed by it."""
    fake = FakeClock()
    monkeypatch.setattr("rowvit.targets.diagnose.time", fake)
    return fake


@pytest.fixture
def board(monkeypatch, clock):
    """A simulated board that PYNQ finds, its core's cycle counter at 100 MHz of the host's time.

    Returns a function: what is done to device and files before the walk -> what the walk finds.
    """
    opened = []

    def walk(fault=lambda device, files: None, config=TINY, **options) -> list[Check]:
        device = SimDevice(TINY, **options)
        opened.append(device)
        monkeypatch.setattr(type(Device), "devices", [device], raising=False)
        disturb(device, {counter(device, "cycles"): partial(cycles, clock, 100e6)})
        fault(device, Path(device.bitstream))
        return list(diagnose("board", config, Path(device.bitstream)))

    yield walk
    for device in opened:
        device.close()


def cycles(clock: FakeClock, hertz: float, _: int) -> int:
    """What the counter reads, in the middle of the millisecond that reading takes."""
    clock.sleep(0.5e-3)
    found = int(clock.now * hertz) & 0xFFFFFFFF
    clock.sleep(0.5e-3)
    return found


def address(device: SimDevice, cell: str, offset: int) -> int:
    return next(slave.base for slave in device._slaves if slave.cell == cell) + offset


def counter(device: SimDevice, name: str) -> int:
    return address(device, "rowvit_0", COUNTER_BASE + 4 * list(dict(COUNTERS)).index(name))


def handoff(old: str, new: str):
    """A fault: another text in the .hwh."""

    def edit(_: SimDevice, bit: Path) -> None:
        text = bit.with_suffix(".hwh").read_text()
        assert old in text
        bit.with_suffix(".hwh").write_text(text.replace(old, new))

    return edit


def failed(checks: list[Check]) -> tuple[str, str, str]:
    """The one check that failed, which is the last."""
    assert [check.ok is False for check in checks] == [False] * (len(checks) - 1) + [True]
    return checks[-1].name, checks[-1].text, checks[-1].advice


@pytest.mark.parametrize("cached", [True, False])
def test_a_sound_board(board, cached):
    """Also with the memory that PYNQ allocates there, in front of which there is no cache to lose it from."""
    checks = board(cached=cached)
    assert [check.name for check in checks] == ["device", *FILES, *BOARD]
    assert {check.name for check in checks if check.ok is None} == {"same build", "provenance"}
    assert not [check for check in checks if check.ok is False]
    text = {check.name: check.text for check in checks}
    assert text["PL clock"] == "PL clock 0 runs at 100.0 MHz, built for 100"
    assert "100.0 by PYNQ" in text["speed"]
    figures = {check.name: check.figures for check in checks}
    close = pytest.approx(100, rel=1e-4)  # PYNQ 4 reads 99.999
    assert figures["PL clock"] == {"pl_clock": 0, "mhz": close, "built_for_mhz": 100.0}
    assert figures["speed"]["at_least_mhz"] < 100 < figures["speed"]["at_most_mhz"]
    assert "512 of 512 weight lines" in text["memories"]


def test_the_simulated_board(tmp_path):
    """The same walk, but for the speed of the clock."""
    text = (configs.DIRECTORY / "tiny.toml").read_text()
    (tmp_path / "tiny.toml").write_text(text.replace('board = "none"', f'board = "{TINY.board}"'))
    report = tmp_path / "report.json"
    options = ["--target", "sim", "--config", str(tmp_path / "tiny.toml"), "--json", str(report)]
    result = CliRunner().invoke(app, ["diagnose", *options])
    assert result.exit_code == 0, result.output
    names = [line[8:20].strip() for line in result.stdout.splitlines() if line.startswith(("ok ", "? "))]
    assert names == ["device", *FILES, *(name for name in BOARD if name != "speed")]
    assert "failed" not in result.stdout
    found = json.loads(report.read_text())
    assert found["finished"] and found["evidence"] == "the RTL under Verilator; no board"
    figures = {check["name"]: check["figures"] for check in found["checks"]}
    for name in ("transfer", "memories"):
        assert figures[name]["cycles"] == pytest.approx(figures[name]["predicted_cycles"], rel=0.03)


# -- files and device -------------------------------------------------------------------------------


def test_no_board(monkeypatch, recwarn, tmp_path):
    """One sentence; that PYNQ warns of it, too, is kept from the user."""

    def nothing(_) -> list:
        warnings.warn("No devices found, is the XRT environment sourced?", stacklevel=1)
        return []

    monkeypatch.setattr(type(Device), "devices", property(nothing))
    (check,) = diagnose("board", TINY, tmp_path / "rowvit.bit")
    advice = "run on a board with PYNQ, as root (sudo -i), or use --target sim"
    assert failed([check]) == ("device", "PYNQ finds no device here", advice)
    code, _, _ = diagnosed("-t", "board", "--json", tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())
    assert code == 1 and found["target"] == "board" and found["evidence"] == "no board"
    result = CliRunner().invoke(app, ["diagnose", "-t", "board", "-c", "tiny"])
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == f"device: {advice}"
    assert not recwarn.list


def test_nothing_to_diagnose():
    result = CliRunner().invoke(app, ["diagnose", "--target", "golden"])
    assert result.exit_code == 2
    assert result.stderr == "rowvit: golden has nothing to diagnose; use --target board or sim\n"


@pytest.mark.parametrize(
    "fault, name, text, advice",
    [
        (lambda _, bit: bit.unlink(), "bitstream", "cannot be read", "build the bitstream, or copy"),
        (lambda _, bit: bit.write_bytes(b"ELF"), "bitstream", "not a Xilinx .bit", "copy the file again"),
        (lambda _, bit: bit.with_suffix(".hwh").unlink(), "handoff", "does not exist", "copy it from the"),
        (handoff(":rowvit_top:", ":adder:"), "core", "holds no rowvit core", "use a rowvit design's"),
        (
            handoff('NAME="LANES" VALUE="16"', 'NAME="LANES" VALUE="32"'),
            "core",
            "CONFIG_HASH is 0x61098B35, but the hash of its others is",
            "build the bitstream again",
        ),
        (
            handoff('"c_sg_length_width" VALUE="26"', '"c_sg_length_width" VALUE="14"'),
            "DMA",
            "its length register has 14 bits: a transfer moves at most 16,383 bytes",
            "set c_sg_length_width to 26",
        ),
        (handoff('"c_include_sg" VALUE="0"', '"c_include_sg" VALUE="1"'), "DMA", "scatter-gather", "build"),
    ],
    ids=["no bit", "no bitstream", "no hwh", "no core", "hash", "length", "scatter-gather"],
)
def test_wrong_files(board, fault, name, text, advice):
    """All that the files say is shown; the walk ends after them."""
    checks = board(fault)
    (wrong,) = [check for check in checks if check.ok is False]
    assert wrong.name == name and text in wrong.text and advice in wrong.advice
    assert not {check.name for check in checks} & set(BOARD)


def test_another_configuration(board):
    name, text, advice = failed(board(config=replace(TINY, name="mine", lanes=32)))
    assert name == "overlay" and "is of configuration tiny" in text and "not of 'mine'" in text
    assert advice == "name the configuration it was built for"


def test_another_bitstream(board):
    def fault(_, bit: Path) -> None:
        bit.with_suffix(".hwh").write_text(hwh.handoff(replace(TINY, lanes=32)))

    name, text, advice = failed(board(fault, replace(TINY, lanes=32)))
    assert name == "overlay" and "was built for a configuration with hash 0x61098B35" in text
    assert "copy its own .hwh" in advice


@pytest.mark.parametrize("register, text", [("ID", "no rowvit core is at this"), ("ABI", "has ABI 99")])
def test_another_core(board, register, text):
    def fault(device, _) -> None:
        disturb(device, {address(device, "rowvit_0", REGISTERS[register][0]): 99})

    name, found, advice = failed(board(fault))
    assert name == "overlay" and text in found and advice


def test_firmware_that_refuses_the_bitstream(board, tmp_path):
    def fault(device, _) -> None:
        fpga_manager(device, tmp_path, "write error", OSError(errno.EINVAL, "Invalid argument"))

    name, text, advice = failed(board(fault))
    assert name == "overlay"
    assert text.endswith(
        "rowvit.bit is not loaded: the FPGA manager's state is 'write error' (Invalid argument)"
    )
    assert advice.startswith(
        "read what fpga_manager says in dmesg, and see that the .bit is for this board's part"
    )


# -- the board --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mhz, ok", [(99.0, True), (101.9, True), (125.0, False), (50.0, None)])
def test_the_pl_clock(board, monkeypatch, mhz, ok):
    """Too fast is a fault; slower only counts as another speed."""
    monkeypatch.setattr("rowvit.targets.diagnose.Clocks", SimpleNamespace(fclk0_mhz=mhz))
    checks = board()
    clock = next(check for check in checks if check.name == "PL clock")
    assert clock.ok is ok
    assert f"runs at {mhz} MHz, built for 100" in clock.text
    if ok is False:
        assert failed(checks)[2] == "set pynq.Clocks.fclk0_mhz = 100: the circuit may fail above it"


def test_the_core_runs_at_another_speed(board, clock):
    """PYNQ says 100 MHz, the core counts 125: timing may not be met. Where it counts 25, the rest follows."""

    def fault(rate: float):
        return lambda device, _: disturb(device, {counter(device, "cycles"): partial(cycles, clock, rate)})

    name, text, advice = failed(board(fault(125e6)))
    assert name == "speed" and text == "125.0 MHz counted by the core, 100.0 by PYNQ"
    assert "copy .bit and .hwh of one build" in advice
    checks = board(fault(25e6))
    speed = next(check for check in checks if check.name == "speed")
    assert speed.ok is None and speed.text.startswith(
        "25.0 MHz counted by the core, 100.0 by PYNQ: results are"
    )
    assert checks[-1].name == "interrupt" and all(check.ok is not False for check in checks)


def test_contiguous_memory_is_exhausted(board, monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("CmaTotal: 16384 kB\nCmaFree: 2048 kB\n")
    monkeypatch.setattr("rowvit.targets.driver.MEMINFO", tmp_path / "meminfo")

    def fault(device, _) -> None:
        def refuse(*_, **__):
            raise RuntimeError("Failed to allocate Memory!")

        device.allocate = refuse

    assert failed(board(fault)) == (
        "memory",
        "no 16 MB of contiguous memory (CmaTotal: 16384 kB, CmaFree: 2048 kB)",
        "free buffers (restart other notebooks), or boot with a larger cma=",
    )


def test_the_simulated_memory_is_too_small(board):
    name, text, _ = failed(board(memory=MemoryModel(megabytes=8)))
    assert name == "memory" and "a buffer of 16384 KB does not fit" in text


@pytest.mark.parametrize("least", [{"max_tokens": 16}, {"max_dim": 16}, {"max_tokens": 49, "max_dim": 16}])
def test_configurations_that_hold_little(least):
    """A network for the self-tests fits all the same."""
    walk = _Walk("board", replace(TINY, **least), Path("tiny.bit"))
    walk.overlay = SimpleNamespace(frontend="rtl")
    for sizes in (_SIZES, _SMALL):
        package, _ = walk._fitting(sizes)
        assert package.arch["tokens"] <= walk.config.max_tokens


def test_memory_that_loses_data(board):
    """As if caches were not flushed."""

    def fault(device, _) -> None:
        device.flush = lambda *_: None

    assert failed(board(fault))[:2] == ("memory", "memory for the DMA loses data")


@pytest.mark.parametrize("offset, value, text", [(0x00, 4, "leave its reset"), (0x34, 1, "start")])
def test_a_dma_that_does_not_answer(board, offset, value, text):
    def fault(device, _) -> None:
        disturb(device, {address(device, "axi_dma_0", offset): value})

    name, found, advice = failed(board(fault, budget=10**9))
    assert name == "channels" and f"axi_dma_0 does not {text}" in found
    assert advice == "use .bit and .hwh of one build"


@pytest.mark.parametrize(
    "offset, status, text, advice",
    [
        (
            0x34,
            0x10000,
            "because the core is done, but the DMA never saw TLAST",
            "use .bit and .hwh of one",
        ),
        (0x04, 0x10000, "S2MM idle (status 0x00011002)", "use .bit and .hwh of one build"),
        (
            0x34,
            0x10040,
            "S2MM channel stopped: decode error (there is no memory",
            "bitstream and",
        ),
    ],
    ids=["no end", "sending", "decode error"],
)
def test_a_dma_that_is_stuck(board, monkeypatch, offset, status, text, advice):
    monkeypatch.setattr("rowvit.targets.diagnose.SECONDS", {"board": 0.3})
    monkeypatch.setattr("rowvit.targets.driver.time", TickingClock())

    def fault(device, _) -> None:
        dma = address(device, "axi_dma_0", offset)
        length = address(device, "axi_dma_0", 0x58)
        write = device.write_registers

        def watched(at: int, data) -> None:  # once it is to move something
            write(at, data)
            if at == length:
                disturb(device, {dma: status})

        device.write_registers = watched

    name, found, what = failed(board(fault, budget=10**9))
    assert name == "transfer" and text in found and advice in what


def test_words_that_get_lost(board):
    def fault(device, _) -> None:
        disturb(device, {counter(device, "recv_words"): 293})

    name, text, advice = failed(board(fault))
    assert (name, text) == ("transfer", "the core received 293 words, not 294")
    assert advice


def flipped(network: bool):
    """A fault: bits flip on their way to memory, those of the network's middle or those of the image."""

    def fault(device, _) -> None:
        flush = device.flush

        def flip(bo: int, offset: int, pointer: int, size: int) -> None:
            flush(bo, offset, pointer, size)
            if size < 1 << 20 and (size > 1 << 13) == network:  # the test of memory is greater
                at = bo + offset - DDR_BASE
                device.ddr[at + size // 2 : at + size // 2 + min(size // 4, 2048)] ^= 0x10

        device.flush = flip

    return fault


def test_wrong_logits(board):
    name, text, advice = failed(board(flipped(network=False)))
    assert name == "transfer" and text.startswith("the result differs from the reference, first in")
    assert advice.startswith("see that timing is met at this clock")


def test_changed_memory(board):
    name, text, advice = failed(board(flipped(network=True)))
    assert name == "transfer"
    assert text.startswith("2048 of ") and "bytes of program and weights have changed in memory" in text
    assert advice.startswith("load the network again")


def test_no_interrupt(board):
    """No fault: streams look for themselves."""

    def fault(device, _) -> None:
        device.interrupt_pending = lambda: False

    checks = board(fault, budget=10**9)
    assert checks[-1].name == "interrupt" and checks[-1].ok is None
    assert checks[-1].text == "rowvit_0/irq was not seen: stream_async polls every 20 ms instead"


def test_buffers_are_given_back(board):
    devices = []
    board(lambda device, _: devices.append(device))
    assert not devices[0]._used


# -- the report -------------------------------------------------------------------------------------


def diagnosed(*options) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["diagnose", "-c", "tiny", *map(str, options)])
    return found.exit_code, found.stdout, found.stderr


def test_report(board, monkeypatch, tmp_path):
    """What somebody else needs to see: board, image, versions, files, clocks, cycles, every check."""
    (tmp_path / "REVISION").write_text("Release 2022_09_29 8a11cb5\nBoard 2022_09_29 8a11cb5\n")
    monkeypatch.setattr("rowvit.measure.report.diagnosis.REVISION", tmp_path / "REVISION")
    monkeypatch.setenv("BOARD", "Pynq-Z2")
    devices = []
    board(lambda device, _: devices.append(device))
    bit = Path(devices[0].bitstream)
    report = tmp_path / "report.json"
    code, out, err = diagnosed("--bitstream", bit, "--json", report)
    assert code == 0 and f"{report}: the report" in err.replace("\n", "") and "interrupt" in out
    found = json.loads(report.read_text())
    assert found["finished"] and not found["failed"] and found["evidence"] == "a board"
    assert found["board"]["name"] == "Pynq-Z2"
    assert found["image"]["revision"][0] == "Release 2022_09_29 8a11cb5"
    assert found["versions"]["pynq"] == pynq.__version__ and found["rowvit"]["version"]
    assert found["config"]["hash"] == f"{TINY.hash:08X}"
    files = {file["file"]: file for file in found["files"]}
    assert files[bit.name]["sha256"] == hashlib.sha256(bit.read_bytes()).hexdigest()
    assert files[bit.with_suffix(".json").name]["none"] == "No such file or directory"
    assert [check["name"] for check in found["checks"]] == ["device", *FILES, *BOARD]
    figures = {check["name"]: check["figures"] for check in found["checks"]}
    assert figures["PL clock"]["mhz"] == pytest.approx(100, rel=1e-4) and figures["memories"]["cycles"] > 1000


def test_report_of_a_failure(board):
    devices = []
    board(lambda device, _: devices.append(device))
    bit = Path(devices[0].bitstream)
    bit.write_bytes(b"<html>not found</html>")
    code, out, err = diagnosed("-t", "board", "--bitstream", bit, "--json", "-")
    found = json.loads(out)
    assert code == 1 and found["failed"] == ["bitstream"] and found["finished"]
    wrong = next(check for check in found["checks"] if check["name"] == "bitstream")
    assert not wrong["ok"] and f"bitstream: {wrong['advice']}" in err


def test_report_of_a_board_that_freezes(board, monkeypatch, tmp_path):
    """What was found before it is in the file."""
    devices = []
    board(lambda device, _: devices.append(device))
    monkeypatch.setattr("rowvit.targets.diagnose._Walk._memory", lambda _: sys.exit("frozen"))
    report = tmp_path / "report.json"
    bit = Path(devices[0].bitstream)
    assert diagnosed("-t", "board", "--bitstream", bit, "--json", report)[0] == 1
    found = json.loads(report.read_text())
    assert not found["finished"] and found["checks"][-1]["name"] == "PL clock"


def test_report_to_nowhere(tmp_path):
    code, _, err = diagnosed("--target", "sim", "--json", tmp_path / "none" / "report.json")
    assert code == 2 and "cannot be written" in err.replace("\n", "")
