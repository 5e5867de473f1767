# SPDX-License-Identifier: Apache-2.0
"""The overlay under PYNQ: what binds to what, and what is refused before the core is touched."""

from __future__ import annotations

import errno
import math
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pynq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from overlays import built
from pynq import Device
from pynq.lib.dma import DMA

import rowvit
from replay import BOARDS, IMAGES, TINY, disturb, fpga_manager, program
from rowvit.errors import RowvitError
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import CORE, boards
from rowvit.hardware.block_design import DMA as DMA_CELL
from rowvit.hardware.clocks import TOLERANCE, at_most
from rowvit.hardware.isa import ABI_VERSION, ID, REGISTERS
from rowvit.measure import result
from rowvit.overlay import RowvitCore, RowvitHierarchy, RowvitOverlay
from rowvit.overlay.bitfile import BitHeader
from rowvit.sim import hwh
from rowvit.sim.device import SimDevice
from rowvit.targets.driver import Accelerator
from rowvit.targets.session import Session

FAMILIES = {boards()[name].family.name: name for name in BOARDS}
OTHER = replace(TINY, name="other", lanes=32)


@pytest.fixture
def device(standin):
    with_board = replace(TINY, board=BOARDS[0])
    opened = SimDevice(with_board, rtl=standin)
    yield opened
    opened.close()


def handoff(device: SimDevice) -> Path:
    return Path(device.bitstream).with_suffix(".hwh")


def edit(device: SimDevice, *changes: tuple[str, str]) -> None:
    """Change the text of the .hwh."""
    text = handoff(device).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    handoff(device).write_text(text)


def at(device: SimDevice, cell: str) -> int:
    return next(slave.base for slave in device._slaves if slave.cell == cell)


def test_files_of_another_build_are_refused(device):
    """By the word of the build, if it is there."""
    bit = Path(device.bitstream)
    built(bit)
    RowvitOverlay(device.bitstream, device=device)
    handoff(device).write_text(handoff(device).read_text() + "\n")
    with pytest.raises(RowvitError, match=r"\.hwh is not the file of .*\.json \(SHA-256\); copy all three"):
        RowvitOverlay(device.bitstream, device=device)


# -- binding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", BOARDS)
def test_board(standin, board):
    """Every board's .hwh gives core, DMA, clock and configuration, and an image passes through."""
    device = SimDevice(replace(TINY, board=board), rtl=standin)
    overlay = RowvitOverlay(device.bitstream, device=device)
    assert overlay.config.hash == TINY.hash
    assert overlay.config.name == "tiny"
    assert isinstance(overlay.core, RowvitCore) and isinstance(overlay.dma, DMA)
    addresses = boards()[board].family.addresses
    assert overlay.ip_dict[CORE]["phys_addr"] == overlay.core.mmio.base_addr == addresses[CORE]
    assert overlay.ip_dict[DMA_CELL]["phys_addr"] == addresses[DMA_CELL]
    assert overlay.dma.buffer_max_size == (1 << 26) - 1
    with Accelerator(overlay, on_close=device.close) as acc:
        acc.load(program())
        assert [result.top1 for result in acc(IMAGES)] == [1, 1, 1]


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_with_the_preprocessor(standin, board):
    """A kernel without registers between DMA and core changes nothing for PYNQ; the .hwh tells of it."""
    config = replace(TINY, board=board)
    device = SimDevice(config, rtl=standin)
    handoff(device).write_text(hwh.handoff(config, "hls"))
    overlay = RowvitOverlay(device.bitstream, device=device)
    assert overlay.frontend == "hls"
    assert isinstance(overlay.core, RowvitCore) and isinstance(overlay.dma, DMA)
    device.close()


def test_any_overlay_binds_the_core(device):
    """Importing rowvit.overlay is enough for PYNQ's own Overlay."""
    overlay = pynq.Overlay(device.bitstream, device=device)
    assert isinstance(overlay.rowvit_0, RowvitCore)
    assert overlay.rowvit_0.get("ID") == ID


def test_names_and_addresses_come_from_the_handoff(device):
    """Other names, another hierarchy, other addresses: nothing is expected to be where it was."""
    core, dma = at(device, CORE), at(device, DMA_CELL)
    edit(
        device,
        (f'FULLNAME="/{CORE}"', 'FULLNAME="/vision/left/engine"'),
        (f'FULLNAME="/{DMA_CELL}"', 'FULLNAME="/vision/left/mover"'),
        (f'"0x{core:08X}"', f'"0x{core + 0x1000000:08X}"'),
        (f'"0x{core + 0xFFF:08X}"', f'"0x{core + 0x1000FFF:08X}"'),
        (f'"0x{dma:08X}"', f'"0x{dma + 0x100000:08X}"'),
        (f'"0x{dma + 0xFFFF:08X}"', f'"0x{dma + 0x10FFFF:08X}"'),
    )
    device._slaves = tuple(
        replace(slave, base=slave.base + {CORE: 0x1000000, DMA_CELL: 0x100000}.get(slave.cell, 0))
        for slave in device._slaves
    )
    overlay = RowvitOverlay(device.bitstream, device=device)
    assert overlay.core.path == "vision/left/engine"
    assert isinstance(overlay.vision.left, RowvitHierarchy)
    assert overlay.vision.left.core is overlay.core
    assert overlay.vision.left.dma is overlay.dma
    with Accelerator(overlay) as acc:
        acc.load(program())
        assert acc(IMAGES)[2].top1 == 1


def test_a_hierarchy_without_dma_is_left_to_others(device):
    edit(device, (f'FULLNAME="/{CORE}"', 'FULLNAME="/vision/engine"'))
    overlay = RowvitOverlay(device.bitstream, device=device)
    assert not isinstance(overlay.vision, RowvitHierarchy)
    assert isinstance(overlay.core, RowvitCore) and isinstance(overlay.dma, DMA)


def test_a_loaded_bitstream_is_taken_as_it_is(device):
    RowvitOverlay(device.bitstream, device=device)
    loads = []
    device.download = lambda *_: loads.append(1)
    assert RowvitOverlay(device.bitstream, device=device, download=False).core.get("ID") == ID
    assert not loads


# -- files ------------------------------------------------------------------------------------------


def test_the_bitstream_is_missing(device, tmp_path):
    with pytest.raises(RowvitError, match=r"none.bit does not exist; build it or copy it to the board"):
        RowvitOverlay(tmp_path / "none.bit", device=device)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda path: path.unlink(), r"rowvit.hwh does not exist; copy it from the build that made the"),
        (lambda path: path.write_text("<EDK"), r"rowvit.hwh is not a .hwh \(.*; copy the file again"),
        (lambda path: path.write_text("<A/>"), "describes no design"),
        (
            lambda path: path.write_text(path.read_text().replace(":rowvit_top:", ":adder:")),
            r"the design holds no rowvit core \(it holds ps_0,.*use a rowvit design's .hwh",
        ),
        (
            lambda path: path.write_text(path.read_text().replace('NAME="LANES"', 'NAME="LANE"')),
            "the core has no parameter LANES; build the bitstream from this",
        ),
        (
            lambda path: path.write_text(
                path.read_text().replace('NAME="LANES" VALUE="16"', 'NAME="LANES" VALUE="32"')
            ),
            "parameter CONFIG_HASH is 0x61098B35, but the hash of its others is 0x",
        ),
        (
            lambda path: path.write_text(
                path.read_text().replace('NAME="GROUPS" VALUE="1"', 'NAME="GROUPS" VALUE="5"')
            ),
            r"rowvit.hwh: configuration 'unnamed': groups = 5, but .*; build the bitstream again",
        ),
    ],
    ids=["missing", "cut", "empty", "no core", "parameter missing", "hash of another", "beyond a limit"],
)
def test_the_handoff_is_judged_before_loading(device, change, message):
    change(handoff(device))
    device.download = device.write_registers = device.read_registers = None  # none of them is called
    with pytest.raises(RowvitError, match=message):
        RowvitOverlay(device.bitstream, device=device)


def test_the_handoff_is_of_another_configuration_than_asked_for(device):
    device.download = None
    with pytest.raises(RowvitError, match=r"of configuration tiny \(hash 0x61098B35\), not of 'pynq-z2'"):
        RowvitOverlay(device.bitstream, configs.load("pynq-z2"), device)


def test_zynq_7000_on_pynq_4(standin, monkeypatch):
    monkeypatch.setattr(pynq, "__version__", "4.0.0")
    device = SimDevice(replace(TINY, board="Pynq-Z2"), rtl=standin)
    with pytest.raises(RowvitError, match=r"for a Zynq-7000, which PYNQ 4.0.0 no longer supports"):
        RowvitOverlay(device.bitstream)
    assert RowvitOverlay(device.bitstream, device=device).config.hash == TINY.hash  # a simulated one
    device.close()


def test_no_device(device, monkeypatch):
    monkeypatch.setattr(type(Device), "devices", [], raising=False)
    with pytest.raises(RowvitError, match="PYNQ finds no device here; run on a board with PYNQ, as root"):
        RowvitOverlay(device.bitstream)
    with pytest.raises(RowvitError, match="PYNQ finds no device here"):
        rowvit.open("board", "tiny", bitstream=device.bitstream)


# -- a board that refuses the bitstream -------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "state, error, said",
    [
        ("write error", OSError(errno.EINVAL, "Invalid argument"), "'write error' (Invalid argument)"),
        ("write complete error", OSError(errno.ETIMEDOUT, "Timeout"), "'write complete error' (Timeout)"),
        ("unknown", None, "'unknown'"),
    ],
    ids=["firmware", "kernel", "silent"],
)
def test_a_bitstream_is_refused(standin, tmp_path, family, state, error, said):
    """As the PMU's firmware or the kernel does it; logic that is not configured would not answer a read."""
    boot = "" if family == "zynq-7000" else ", and the boot firmware the one that the image needs"
    with SimDevice(replace(TINY, board=FAMILIES[family]), rtl=standin) as device:
        fpga_manager(device, tmp_path, state, error)
        disturb(device, {at(device, CORE): lambda _: pytest.fail("a read")})
        with pytest.raises(RowvitError) as caught:
            RowvitOverlay(device.bitstream, device=device)
    assert caught.value.message == f"{device.bitstream} is not loaded: the FPGA manager's state is {said}"
    assert caught.value.advice == (
        f"read what fpga_manager says in dmesg, and see that the .bit is for this board's part{boot}"
    )


def test_what_is_no_refusal(device, tmp_path):
    """Before the manager is told anything, PYNQ copies the bitstream to /lib/firmware."""
    fpga_manager(device, tmp_path, "operating", PermissionError(errno.EACCES, "Permission denied"))
    with pytest.raises(PermissionError):
        RowvitOverlay(device.bitstream, device=device)


def test_a_bitstream_that_was_loaded_by_others(device, tmp_path):
    """The manager does not know of JTAG's, but of its own failures."""
    fpga_manager(device, tmp_path, "operating")
    RowvitOverlay(device.bitstream, device=device)
    (tmp_path / "state").write_text("unknown\n")
    assert RowvitOverlay(device.bitstream, device=device, download=False).core.get("ID") == ID
    (tmp_path / "state").write_text("write complete error\n")
    with pytest.raises(
        RowvitError, match="is not loaded: the FPGA manager's state is 'write complete error';"
    ):
        RowvitOverlay(device.bitstream, device=device, download=False)


# -- registers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "register, value, message",
    [
        ("ID", 0, "register ID reads 0x00000000, not 0x.*no rowvit core is at this address; copy this"),
        ("ID", 0xFFFFFFFF, "register ID reads 0xFFFFFFFF"),
        ("ABI", ABI_VERSION + 1, f"has ABI {ABI_VERSION + 1}, this software {ABI_VERSION}; build both"),
        ("CONFIG_HASH", OTHER.hash, f"with hash 0x{OTHER.hash:08X}, but 'tiny' has 0x{TINY.hash:08X}"),
    ],
)
def test_a_wrong_core_is_refused_before_anything_else(device, register, value, message):
    """Three reads are all that reaches the logic."""
    base = at(device, CORE)
    disturb(device, {base + REGISTERS[register][0]: value})
    touched = []
    slaves = [range(slave.base, slave.base + slave.range) for slave in device._slaves]

    def watch(kind: str, access):
        def watched(address: int, argument):
            if any(address in slave for slave in slaves):
                touched.append((kind, address - base))
            return access(address, argument)

        return watched

    device.read_registers = watch("read", device.read_registers)
    device.write_registers = watch("write", device.write_registers)
    with pytest.raises(RowvitError, match=message):
        Accelerator(RowvitOverlay(device.bitstream, device=device))
    assert touched == [("read", REGISTERS[name][0]) for name in ("ID", "ABI", "CONFIG_HASH")]


def test_the_handoff_is_another_bitstreams(device):
    """Both are rowvit's, of different configurations: the register tells."""
    handoff(device).write_text(hwh.handoff(replace(OTHER, board=BOARDS[0])))
    with pytest.raises(RowvitError, match=f"built for a configuration with hash 0x{TINY.hash:08X}"):
        RowvitOverlay(device.bitstream, device=device)


def test_a_program_for_another_configuration(make):
    acc = make()
    with pytest.raises(RowvitError, match=r"the program is for configuration 'other' \(hash.*compile the"):
        acc.load(program(config={"name": "other", "hash": OTHER.hash}))


@pytest.mark.parametrize("stuck", [{0x00: 4}, {0x34: 1}], ids=["reset", "halted"])
def test_a_dma_that_does_not_start(device, stuck):
    """PYNQ's own driver would wait forever."""
    device.budget = 10**9
    base = at(device, DMA_CELL)
    disturb(device, {base + offset: value for offset, value in stuck.items()})
    with pytest.raises(RowvitError, match=r"axi_dma_0 does not (leave its reset|start): register 0x.*1 s"):
        Accelerator(RowvitOverlay(device.bitstream, device=device))


# -- PYNQ's memory of the last bitstream ------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("{core:08X}", "{other:08X}", "have rowvit_0 at 0x{core:08X}, the .hwh has it at 0x{other:08X}"),
        (f'FULLNAME="/{CORE}"', 'FULLNAME="/engine_0"', "do not hold engine_0"),
        (
            'NAME="c_sg_length_width" VALUE="26"',
            'NAME="c_sg_length_width" VALUE="20"',
            "have another c_sg_length_width of axi_dma_0 than the .hwh",
        ),
    ],
    ids=["address", "name", "parameter"],
)
def test_stale_metadata(device, old, new, message):
    """PYNQ keeps the metadata of an earlier .hwh of this name: they are compared, not believed."""
    core = at(device, CORE)
    words = {"core": core, "other": core + 0x10000}
    stale = device.get_bitfile_metadata(device.bitstream)
    edit(device, (old.format(**words), new.format(**words)))
    device.get_bitfile_metadata = lambda *_: stale
    device.download = None
    with pytest.raises(RowvitError, match=f"metadata of .*{message.format(**words)}; delete .* and load"):
        RowvitOverlay(device.bitstream, device=device)


def test_the_cache_is_named(device, monkeypatch, tmp_path):
    """The sentence names the files that PYNQ keeps."""
    (tmp_path / "pl_server").mkdir()
    for name in ("_current_metadata.pkl", "global_pl_state_xilinx.json", "other.py"):
        (tmp_path / "pl_server" / name).touch()
    stale = device.get_bitfile_metadata(device.bitstream)
    edit(device, (f'FULLNAME="/{CORE}"', 'FULLNAME="/engine_0"'))
    device.get_bitfile_metadata = lambda *_: stale
    monkeypatch.setattr(pynq, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(RowvitError) as caught:
        RowvitOverlay(device.bitstream, device=device)
    assert "_current_metadata.pkl and" in str(caught.value)
    assert "global_pl_state_xilinx.json" in str(caught.value)
    assert "other.py" not in str(caught.value)


# -- files of one build, and the clock that they were built for -------------------------------------

HTML = b"<!DOCTYPE html><html><body>Sign in to continue</body></html>"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bit: b"", "is not a Xilinx .bit; copy the file again"),
        (lambda bit: HTML, "is not a Xilinx .bit; copy the file again, in binary mode"),
        (lambda bit: bit[:-5], "its header is damaged|bytes follow its header"),
        (
            lambda bit: bit.replace(b"rowvit_wrapper", b"CPU_1_0_design"),
            "of design CPU_1_0_design, the .hwh of rowvit",
        ),
    ],
    ids=["empty", "html", "cut", "another design"],
)
def test_a_bit_that_is_no_pair_is_refused_before_anything_is_touched(device, monkeypatch, change, message):
    bit = Path(device.bitstream)
    bit.write_bytes(change(bit.read_bytes()))
    for name in ("write_registers", "read_registers", "download"):
        monkeypatch.setattr(device, name, lambda *_, name=name: pytest.fail(f"{name} of the device"))
    with pytest.raises(RowvitError, match=message):
        RowvitOverlay(device.bitstream, device=device)


def test_a_bit_that_is_older_than_its_hwh(device):
    """Vivado writes the .hwh with the block design, and the .bit at the end."""
    edit(device, ('TIMESTAMP=""', 'TIMESTAMP="Sun Jul 19 01:04:17 2026"'))
    for date, older in (("2026/07/19", False), ("2026/07/18", True)):
        header = BitHeader("rowvit_wrapper", "", "simulation", date, "23:00:00", 0)
        Path(device.bitstream).write_bytes(header.encode(b""))
        if older:
            with pytest.raises(RowvitError, match=r"-18 23:00:00 is older than the \.hwh of 2026-07-19"):
                RowvitOverlay(device.bitstream, device=device)
        else:
            RowvitOverlay(device.bitstream, device=device)


#: control register of PL clock 0, and its divisors' lowest bits (UG585 FPGA0_CLK_CTRL, UG1087 PL0_REF_CTRL)
CLOCK_CONTROL = {"zynq-7000": (0xF8000170, (8, 20)), "zynq-ultrascale": (0xFF5E00C0, (8, 16))}
DIVISOR = st.integers(1, 63)


@contextmanager
def booted(standin: Path, family: str, pll: float, mhz: float, divisors: tuple[int, int]):
    """A board whose image booted with a PLL of about ``pll`` MHz and ``divisors`` for PL clock 0, and whose
    bitstream was built for ``mhz``: device, the PLL's exact MHz, and what happens from now on: pairs of
    divisors that are written, and "load".
    """
    config = replace(TINY, board=FAMILIES[family], clock_mhz=mhz)
    control, (low, high) = CLOCK_CONTROL[family]
    oscillator, shift = (50, 12) if family == "zynq-7000" else (33.333, 8)
    with pytest.MonkeyPatch.context() as patch, SimDevice(config, rtl=standin) as device:
        patch.setattr(pynq.Clocks, "device", None, raising=False)
        patch.delattr(pynq.Clocks, "_real_instance", raising=False)
        patch.setattr(pynq.ps, "CPU_ARCH", device.arch)  # by which PYNQ 3.0 goes
        device._ps.update(dict.fromkeys(hwh.clock_registers(config), round(pll / oscillator) << shift))
        device._ps[control] = divisors[0] << low | divisors[1] << high
        events: list = []
        now = divisors
        write, load = device.write_registers, device.download

        def watched(address: int, data: bytes) -> None:
            nonlocal now
            write(address, data)
            pair = device._ps[control] >> low & 63, device._ps[control] >> high & 63
            if pair != now:
                events.append(pair)
                now = pair

        def loaded(*arguments) -> None:
            events.append("load")
            load(*arguments)

        device.write_registers, device.download = watched, loaded
        yield device, round(pll / oscillator) * oscillator, events


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(FAMILIES)),
    st.floats(400, 3000),
    st.floats(50, 350),
    DIVISOR,
    DIVISOR,
    st.booleans(),
)
@example(
    "zynq-ultrascale", 1500, 100, 10, 1, True
)  # PLLs that are faster than the .hwh's, the same, and slower
@example("zynq-ultrascale", 1000, 100, 10, 1, True)
@example("zynq-ultrascale", 1070, 100, 10, 1, True)  # 97 MHz; what is nearest to 100 would be 107
@example("zynq-ultrascale", 800, 100, 2, 63, True)
@example("zynq-ultrascale", 1500, 100, 10, 1, False)
@example("zynq-ultrascale", 1000, 100, 10, 1, False)
def test_no_clock_is_faster_than_what_timing_was_met_for(
    standin, family, pll, mhz, before0, before1, download
):
    """Neither before the bitstream is loaded nor afterwards, whatever the image booted with; and it is the
    fastest that there is.
    """
    with booted(standin, family, pll, mhz, (before0, before1)) as (device, pll, events):
        overlay = RowvitOverlay(device.bitstream, device=device, download=download)
        written = [event for event in events if event != "load"]
        assert all(pll / (a * b) <= mhz * (1 + TOLERANCE) for a, b in written)
        assert events == [*written, "load"] if download else events == written, "all are set before"
        best = at_most(pll, mhz)
        assert math.prod([(before0, before1), *written][-1]) == best.divisor0 * best.divisor1
        assert pynq.Clocks.fclk0_mhz == pytest.approx(best.mhz, rel=1e-5)
        assert overlay.config.clock_mhz == pytest.approx(best.mhz, rel=1e-3)
        assert overlay.config.hash == TINY.hash


def test_a_bitstream_that_is_loaded_again_has_its_clock_again(standin):
    """Another one was here meanwhile."""
    with booted(standin, "zynq-ultrascale", 1200, 100, (10, 1)) as (device, pll, events):
        overlay = RowvitOverlay(device.bitstream, device=device)
        pynq.Clocks.set_pl_clk(0, 3, 1)
        events.clear()
        overlay.download()
        assert math.prod(events[-2]) == 12 and events[-1] == "load"
        assert max(pll / (a * b) for a, b in events[:-1]) < 101
        kept = overlay.parser.clock_dict[0]
        assert kept["divisor0"] * kept["divisor1"] == 15, "PYNQ keeps it for the next time"


def test_a_clock_that_is_not_the_processors(device):
    """What the .hwh says of it is what cycles are divided by."""
    frequency = f'CLKFREQUENCY="{round(TINY.clock_mhz * 1e6)}"'
    pin = boards()[BOARDS[0]].family.clock
    edit(device, (frequency, 'CLKFREQUENCY="75000000"'), (pin, "CLK_OUT"))
    overlay = RowvitOverlay(device.bitstream, device=device)
    assert overlay.handoff.pl_clock is None and overlay.config.clock_mhz == 75


@pytest.mark.parametrize("known", [True, False])
def test_results_have_the_clock_of_the_core(device, monkeypatch, known):
    """The one that the .hwh names, and that of the .hwh alone where the processing system makes none."""
    monkeypatch.setattr(type(Device), "devices", [device], raising=False)
    if not known:
        frequency = f'CLKFREQUENCY="{round(TINY.clock_mhz * 1e6)}"'
        pin = boards()[BOARDS[0]].family.clock
        edit(device, (frequency, 'CLKFREQUENCY="75000000"'), (pin, "CLK_OUT"))
    with Session(program(), "board", "tiny", bitstream=device.bitstream) as session:
        found = result.describe("throughput", session, session.choose([], 1))["clock"]
    assert found["mhz"] == pytest.approx(TINY.clock_mhz if known else 75)
    assert found["source"].startswith("read from the processing system (fclk0)" if known else "the .hwh's;")


def test_a_pynq_that_sets_another_clock(standin, monkeypatch):
    """One whose download would not read the divisors where today's versions do."""
    monkeypatch.setattr(pynq.Overlay, "download", lambda *_: pynq.Clocks.set_pl_clk(0, 10, 1))
    with (
        booted(standin, "zynq-ultrascale", 1500, 100, (10, 1)) as (device, *_),
        pytest.raises(RowvitError, match=r"0 runs at 149\.\d+ MHz, but timing was met for 100; set pynq\.Cl"),
    ):
        RowvitOverlay(device.bitstream, device=device)


def test_dma_is_stopped_before_the_core_is_reset(device, monkeypatch):
    """A core that is reset drops TVALID without TREADY: nobody may be listening (AXI4-Stream, 2.2.1)."""
    overlay = RowvitOverlay(device.bitstream, device=device)
    core, dma = at(device, CORE), at(device, DMA_CELL)
    written: list[tuple[int, int]] = []
    write = device.write_registers

    def record(address: int, data: bytes) -> None:
        written.append((address, int.from_bytes(bytes(data[:4]), "little")))
        write(address, data)

    monkeypatch.setattr(device, "write_registers", record)
    with Accelerator(overlay):
        pass
    reset = written.index((core + REGISTERS["CONTROL"][0], 2))
    before = [value for address, value in written[:reset] if address == dma]
    assert before and before[-1] & 4, "the last that the DMA was told before is to reset"
    assert any(address == dma and value & 1 for address, value in written[reset:]), "started again"
