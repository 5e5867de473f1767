# SPDX-License-Identifier: Apache-2.0
"""The overlay under PYNQ: what binds to what, and what is refused before the core is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pynq
import pytest
from pynq import Device
from pynq.lib.dma import DMA

import rowvit
from replay import BOARDS, IMAGES, TINY, disturb, program
from rowvit.errors import RowvitError
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import CORE, boards
from rowvit.hardware.block_design import DMA as DMA_CELL
from rowvit.hardware.isa import ABI_VERSION, ID, REGISTERS
from rowvit.overlay import RowvitCore, RowvitHierarchy, RowvitOverlay
from rowvit.overlay.bitfile import BitHeader
from rowvit.sim import hwh
from rowvit.sim.device import SimDevice
from rowvit.targets.driver import Accelerator

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
            "parameter CONFIG_HASH is 0x3E22A840, but the hash of its others is 0x",
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
    with pytest.raises(RowvitError, match=r"of configuration tiny \(hash 0x3E22A840\), not of 'pynq-z2'"):
        RowvitOverlay(device.bitstream, configs.load("pynq-z2"), device)


def test_zynq_7000_on_pynq_4(standin, monkeypatch):
    monkeypatch.setattr(pynq, "__version__", "4.0.0")
    device = SimDevice(replace(TINY, board="Pynq-Z2"), rtl=standin)
    with pytest.raises(RowvitError, match=r"for a Zynq-7000, which PYNQ 4.0.0 no longer supports"):
        RowvitOverlay(device.bitstream, device=device)
    device.close()


def test_no_device(device, monkeypatch):
    monkeypatch.setattr(type(Device), "devices", [], raising=False)
    with pytest.raises(RowvitError, match="PYNQ finds no device here; run on a board with PYNQ, as root"):
        RowvitOverlay(device.bitstream)
    with pytest.raises(RowvitError, match="PYNQ finds no device here"):
        rowvit.open("board", "tiny", bitstream=device.bitstream)


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


@pytest.mark.skipif(not hasattr(pynq.Clocks, "device"), reason="PYNQ 3.0 has clocks on a board only")
@pytest.mark.parametrize(("factor", "mhz"), [(1.5, 100.0), (1.0, 100.0), (0.8, 100.0), (1.07, 97.0)])
def test_clock_of_another_boot_image(standin, monkeypatch, factor, mhz):
    """The .hwh's divisors would make `factor` times 100 MHz of this board's PLL: the overlay finds others."""
    monkeypatch.setattr(pynq.Clocks, "device", None)
    monkeypatch.delattr(pynq.Clocks, "_real_instance", raising=False)
    config = replace(TINY, board=BOARDS[0])
    oscillator, shift = (50, 12) if hwh.is_zynq_7000(config) else (33.333, 8)
    with SimDevice(config, rtl=standin) as device:
        Device.active_device = device
        for address, value in hwh.clock_registers(config).items():
            device._ps[address] = round((value >> shift) * factor) << shift
        pll = oscillator * (device._ps[address] >> shift)
        overlay = RowvitOverlay(device.bitstream, device=device)
        best = max(pll / (a * b) for a in range(1, 64) for b in range(1, 64) if pll / (a * b) <= 100.1)
        assert overlay.config.clock_mhz == pytest.approx(best, rel=1e-3) == pytest.approx(mhz, rel=0.1)
        assert pynq.Clocks.fclk0_mhz == pytest.approx(best, rel=1e-5)
        assert overlay.config.hash == TINY.hash


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
