# SPDX-License-Identifier: Apache-2.0
"""The bitstream build, run with a stand-in for Vivado that refuses what Vivado would (see ``vivado``)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path, PureWindowsPath
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import HANG, until

from rowvit.errors import RowvitError
from rowvit.formats import provenance
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import FRONTENDS, boards
from rowvit.sim import hwh
from standins import BOARD_FILES, HERE, ROOT, VIVADO, build, needs_tcl


@pytest.mark.parametrize("name", boards())
def test_a_board_holds_its_configuration(name):
    build.require_room(configs.load(boards()[name].configuration), boards()[name])


def test_every_configuration_has_its_board():
    for name in configs.names():
        config = configs.load(name)
        assert config.board == "none" or config.board in boards()
    assert {board.configuration for board in boards().values()} <= set(configs.names())
    assert BOARD_FILES.keys() == boards().keys()


@needs_tcl
@pytest.mark.parametrize("installed", [True, False], ids=["board file", "no board file"])
@pytest.mark.parametrize("name", boards())
def test_build(make, monkeypatch, tmp_path, name, installed):
    """Every script runs for every board; what comes out is the configuration, and whole."""
    monkeypatch.setenv("STANDIN_BOARD_FILES", BOARD_FILES[name] if installed else "some.com:other:part0:1.0")
    if not installed and not boards()[name].settings:
        with pytest.raises(RowvitError, match=r"has no board file .* which sets the processor's PLLs"):
            make(name)
        return
    made, record = make(name)
    board, config = boards()[name], configs.load(boards()[name].configuration)
    assert record.part == board.part
    assert record.board_part == (BOARD_FILES[name] if installed else "")
    for key, value in config.structure().items():
        assert record.parameters["rowvit_0", key.upper()] == str(value)
    assert int(record.parameters["rowvit_0", "CONFIG_HASH"], 0) == config.hash
    assert record.parameters["rowvit_0", "USE_DSP"] == "1"
    clock = record.parameters["ps_0", board.family.frequency]
    assert float(clock) == config.clock_mhz
    assert made.actual_clock_mhz > 0.9 * config.clock_mhz  # also where the preset has clocks by divisors
    for key, value in board.settings.items():
        assert (record.parameters["ps_0", key] == str(value)) or installed
    verilog = {file.relative_to(tmp_path / "work"): file.read_bytes() for file in record.files}
    ours = [*(ROOT / "rtl").rglob("*.v"), *(ROOT / "rtl").glob("*.vh")]
    assert verilog == {file.relative_to(ROOT): file.read_bytes() for file in ours}
    assert record.parameters["rowvit_0", "RAM_STYLE"] == board.ram_style

    stem = f"rowvit-{config.name}"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        f"{stem}.bit",
        f"{stem}.hwh",
        f"{stem}.json",
    ]
    assert provenance.verify(tmp_path / "out") == [made]
    assert made.config_hash == f"{config.hash:08X}" and made.board == name
    assert made.utilisation["block_ram"] == {"used": 121.5, "available": 140}
    assert (made.setup_slack_ns, made.hold_slack_ns) == (0.123, 0.011)


@needs_tcl
@pytest.mark.parametrize("frontend", FRONTENDS)
@pytest.mark.parametrize("name", boards())
def test_simulated_handoff_is_the_built_design(make, name, frontend):
    """Cells, parameters, interfaces, wires and addresses of the simulator's .hwh are Vivado's."""
    _, record = make(name, frontend=frontend)
    config = replace(configs.load(boards()[name].configuration), board=name)
    root = ElementTree.fromstring(hwh.handoff(config, frontend))
    modules = {m.get("INSTANCE"): m for m in root.iter("MODULE")}
    without_version = {cell: vlnv.rpartition(":")[0] for cell, vlnv in record.cells.items()}
    assert {cell: m.get("VLNV").rpartition(":")[0] for cell, m in modules.items()} == without_version

    derived = re.compile(r"DIVISOR|ACT_FREQMHZ|C_[MS]AXIGP|FCLK[123]|PL[123]_|FPGA_PL[123]")
    compared = 0
    for cell, module in modules.items():
        for parameter in module.iter("PARAMETER"):
            if not derived.search(parameter.get("NAME")):
                assert record.parameters[cell, parameter.get("NAME")] == parameter.get("VALUE")
                compared += 1
    assert compared > 40

    kinds, buses = {}, defaultdict(set)
    for cell, module in modules.items():
        for bus in module.iter("BUSINTERFACE"):
            kinds[f"{cell}/{bus.get('NAME')}"] = bus.get("TYPE")
            buses[bus.get("BUSNAME")].add(f"{cell}/{bus.get('NAME')}")
    assert kinds == record.interfaces
    assert {frozenset(ends) for ends in buses.values()} == record.wires

    nets = set()
    for cell, module in modules.items():
        for port in module.iter("PORT"):
            ends = {(c.get("INSTANCE"), c.get("PORT")) for c in port.iter("CONNECTION")}
            here = f"{cell}/{port.get('NAME')}"
            for other in ("/".join(end) for end in ends):
                nets.add((here, other) if port.get("DIR") == "O" else (other, here))
    assert nets == record.nets

    ranges = {}
    for memory in modules["ps_0"].iter("MEMRANGE"):
        low, high = (int(memory.get(key), 16) for key in ("BASEVALUE", "HIGHVALUE"))
        ranges[f"{memory.get('INSTANCE')}/{memory.get('SLAVEBUSINTERFACE')}"] = (low, high - low + 1)
    assert ranges == record.addresses


@needs_tcl
@pytest.mark.parametrize(
    ("script", "right", "wrong", "message"),
    [
        ("build.tcl", "create_block_design $design", "create_design $design", "create_design"),
        ("build.tcl", "update_compile_order", "update_compile_orders", "update_compile_orders"),
        ("build.tcl", "make_wrapper -files $system -top", "make_wrapper -files $system -first", "-first"),
        (
            "build.tcl",
            "set_property synth_checkpoint_mode",
            "set_property checkpoint_mode",
            "checkpoint_mode",
        ),
        ("build.tcl", "get_files system.bd", "get_files design.bd", "design.bd"),
        ("build.tcl", "    generate_target all $system\n    make", "    make", "make_wrapper"),
        ("build.tcl", "bd/system/hw_handoff", "bd/system/handoff", "system.hwh"),
        ("build.tcl", "STATS.WHS", "STATS.WHX", "STATS.WHX"),
        ("build.tcl", "run synth_1", "run synth_2", "synth_2"),
        ("block_design.tcl", "validate_bd_design", "validate_design", "validate_design"),
        ("block_design.tcl", "validate_bd_design\n", "", "not validated"),
        ("block_design.tcl", "-target_address_space", "-address_space", "-address_space"),
        ("block_design.tcl", "/Data", "/Date", "address space ps_0/Date"),
        ("block_design.tcl", "    assign_bd_address\n", "", "no addresses"),
        ("block_design.tcl", "bd_rule:$ip", "bd_rule:$name", "rule"),
        ("block_design.tcl", "CONFIG.$name", "CONFIGURE.$name", "CONFIGURE"),
        ("block_design.tcl", "connect_bd_net [pin $driver] [pin $load]", "pin $load", "no driver"),
    ],
)
def test_wrong_script_is_refused(make, monkeypatch, tmp_path, script, right, wrong, message):
    copy = shutil.copytree(ROOT / "bitstreams", tmp_path / "bitstreams")
    text = (copy / script).read_text()
    assert right in text
    (copy / script).write_text(text.replace(right, wrong))
    monkeypatch.setattr(build, "HERE", copy)
    with pytest.raises(RowvitError, match=re.escape(message)):
        make("ZCU104")
    assert not (tmp_path / "out").exists()


@needs_tcl
@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("rowvit_0/s_axil", "rowvit_0/s_axi_lite", "finds no interface rowvit_0/s_axi_lite"),
        ("rowvit_0/aclk", "rowvit_0/clk", "pin rowvit_0/clk"),
        ("axi_dma_0/mm2s_introut", "axi_dma_0/mm2s_intr", "pin axi_dma_0/mm2s_intr"),
        ("concat_0/In2", "concat_0/In3", "pin concat_0/In3"),
        ("ps_0/S_AXI_HP1", "ps_0/S_AXI_HP2", "interface ps_0/S_AXI_HP2"),
        ("axi_dma_0/S_AXIS_S2MM", "axi_dma_0/M_AXI_S2MM", "cannot be wired"),
        ("reset_0/peripheral_aresetn", "reset_0/peripheral_reset", "reset"),
        ("{c_sg_length_width} {26}", "{c_sg_length_width} {27}", "it takes one of"),
        ("{c_sg_length_width}", "{c_sg_width}", "no parameter c_sg_width"),
        ("{c_include_sg} {0}", "{c_include_sg} {1}", "M_AXI_SG is not wired"),
        ("{TOKEN_DEPTH}", "{TOKENS}", "no parameter TOKENS"),
        ("xilinx.com:ip:axi_intc", "xilinx.com:ip:axi_inc", "finds no IP xilinx.com:ip:axi_inc"),
        ("module_ref:rowvit_top", "module_ref:rowvit", "no module rowvit "),
        ("{0x43C00000}", "{0x83C00000}", "not within"),
        ("{0x43C00000}", "{0x40400000}", "overlap"),
        ("{0x43C00000} {4096}", "{0x43C00000} {65536}", "12 address bits"),
        ("xc7z020clg400-1", "xc7z021clg400-1", "no part xc7z021clg400-1"),
        ("rtl/rowvit_top.v", "rtl/rowvit_tops.v", "no file"),
        ("{reset_0/slowest_sync_clk}", "{rowvit_0/aresetn}", "only one of them is a clock"),
        ("{rowvit_0/aresetn}", "{rowvit_0/aclk}", "has a driver already"),
        ("PCW_CRYSTAL_PERIPHERAL_FREQMHZ", "PCW_CRYSTAL_FREQMHZ", "no parameter PCW_CRYSTAL_FREQMHZ"),
    ],
)
def test_wrong_design_is_refused(make, monkeypatch, tmp_path, right, wrong, message):
    write_script = build.write_script

    def changed(*arguments):
        script = write_script(*arguments)
        text = script.read_text()
        assert right in text
        script.write_text(text.replace(right, wrong))
        return script

    monkeypatch.setattr(build, "write_script", changed)
    monkeypatch.setenv("STANDIN_BOARD_FILES", "some.com:other:part0:1.0")  # boards.toml instead
    with pytest.raises(RowvitError, match=message):
        make("Pynq-Z2")
    assert not (tmp_path / "out").exists()


def built(folder) -> tuple[str, float]:
    """The bitstream and the clock of the .hwh, in Hz."""
    clock = ElementTree.parse(folder / "rowvit-pynq-z2.hwh").getroot().get("CLOCK")
    return (folder / "rowvit-pynq-z2.bit").read_text().strip(), float(clock)


@needs_tcl
@pytest.mark.parametrize("second", ["0", "1"], ids=["one clock", "two clocks"])
def test_missed_timing_ends_with_a_slower_overlay(make, monkeypatch, tmp_path, capsys, second):
    """7 ns and 0.621 ns missing allow 131.2 MHz; below it the processor makes 125 MHz of its 1000."""
    monkeypatch.setenv("STANDIN_WNS", "-0.621")
    monkeypatch.setenv("STANDIN_SECOND_CLOCK", second)
    made, _ = make("Pynq-Z2")
    said = " ".join(capsys.readouterr().err.split())
    assert "timing is not met at 142.857 MHz, setup slack -0.621 ns: the overlay is built for 125.000" in said
    assert made.clock_mhz == 142.857 and made.actual_clock_mhz == 125
    assert made.setup_slack_ns == pytest.approx(8 - 7.621)
    assert built(tmp_path / "out") == ("bitstream for xc7z020clg400-1, implementation 1", 125e6)
    assert provenance.verify(tmp_path / "out") == [made]


@needs_tcl
@pytest.mark.parametrize(
    ("paths", "implementation", "mhz"),
    [
        ("6.5", 1, 1000 / 7),  # the first meets it: no other is tried
        ("9 7.5 8.5 9.5", 2, 125),  # the best of four
        ("9 8.5 6.9", 3, 1000 / 7),  # until one meets it
        ("9", 1, 1000 / 9),  # none is faster than the first
    ],
)
def test_retry_keeps_the_fastest(make, monkeypatch, tmp_path, paths, implementation, mhz):
    monkeypatch.setenv("STANDIN_PATH_NS", paths)
    strategies = [build.STRATEGY, *build.OTHERS]
    made, _ = make("Pynq-Z2", strategies=strategies)
    bits, hz = built(tmp_path / "out")
    assert bits.endswith(f"implementation {implementation}") and hz == pytest.approx(mhz * 1e6)
    assert made.actual_clock_mhz == pytest.approx(mhz)
    assert made.strategy == strategies[implementation - 1]


@needs_tcl
@pytest.mark.parametrize("version", ["2022.2", "2024.1"])  # the wait for a run that fails is an error, or not
def test_another_strategy_where_one_has_no_room(make, monkeypatch, capsys, version):
    """What Vivado says of the first is not what the build ends with."""
    monkeypatch.setenv("STANDIN_VERSION", version)
    monkeypatch.setenv("STANDIN_STATUS", "{route_design ERROR} finished")
    made, _ = make("Pynq-Z2", strategies=["Performance_Explore", "Area_Explore"])
    assert made.strategy == "Area_Explore"
    assert "impl_1 ended with 'route_design ERROR'" in capsys.readouterr().err


@needs_tcl
@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("STANDIN_STATUS", "{place_design ERROR}", "impl_1 ended with 'place_design ERROR'; see "),
        ("STANDIN_STATUS", "{route_design ERROR}", "impl_1 ended with 'route_design ERROR'; see "),
        ("STANDIN_UNROUTED", "17", "routing ended with 17 nets that have no way; "),
        ("STANDIN_WHS", "-0.02", "hold times are not met, at any clock: slack -0.02 ns; "),
        ("STANDIN_PATH_NS", "120", "setup times are not met at any clock: slack -113.000 ns; "),
    ],
)
def test_no_room_names_a_smaller_configuration(make, monkeypatch, tmp_path, variable, value, message):
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("STANDIN_VERSION", "2024.1")
    with pytest.raises(build.NoRoom, match=message) as error:
        make("Pynq-Z2")
    assert str(error.value).endswith(
        "vivado.log; what has more room is make bitstream BOARD=Pynq-Z2 CONFIG=pynq-z2-lite"
    )
    with pytest.raises(build.NoRoom, match=r"what has more room is another STRATEGY$"):
        make("Pynq-Z2", config="tiny")
    if variable != "STANDIN_STATUS":  # of several, the reasons are warnings
        with pytest.raises(build.NoRoom, match="none of 2 strategies"):
            make("Pynq-Z2", strategies=["Performance_Explore", "Area_Explore"])
    assert not (tmp_path / "out").exists() and not list((tmp_path / "work").rglob("*.bit"))


def test_smaller_configurations():
    found = {name: build.smaller(configs.load(name)) for name in configs.names()}
    assert {name: less.name for name, less in found.items() if less} == {
        "kv260": "pynq-z2",
        "paper": "pynq-z2",
        "pynq-z2": "pynq-z2-lite",
        "pynq-z2-257": "pynq-z2-lite",
        "zcu104": "pynq-z2",
        "zu3": "pynq-z2-lite",
    }


@needs_tcl
@pytest.mark.parametrize("made", [0, 63, 65])
def test_other_ultra_ram_ends_the_build(make, monkeypatch, made):
    monkeypatch.setenv("STANDIN_URAM", str(made))
    with pytest.raises(RowvitError, match=f"synthesis made {made} UltraRAM .* where 64 are expected"):
        make("KV260")
    make("Pynq-Z2")  # needs none


@needs_tcl
def test_unconstrained_design_is_refused(make, monkeypatch):
    monkeypatch.setenv("STANDIN_WNS", "NA")
    with pytest.raises(RowvitError, match="no constrained paths"):
        make("Pynq-Z2")


@needs_tcl
@pytest.mark.parametrize(
    ("version", "warned"),
    [
        *(("2021.2", True), ("2022.1", False), ("2024.1.2", False), ("2025.2", False), ("2026.1", True)),
        *(("2022.2_AR000035739", False), ("2020.1_AR1", True), ("of today", True)),
    ],
)
def test_other_versions_warn(make, monkeypatch, capsys, version, warned):
    monkeypatch.setenv("STANDIN_VERSION", version)
    made, _ = make("KV260")
    assert made.tool == f"Vivado {version}"
    assert (f"this is Vivado {version}" in capsys.readouterr().err) == warned


@needs_tcl
def test_clock_that_the_processor_cannot_make_warns(make, tmp_path, capsys):
    text = (configs.DIRECTORY / "pynq-z2.toml").read_text()
    (tmp_path / "faster.toml").write_text(text.replace("clock_mhz = 142.857", "clock_mhz = 150"))
    made, _ = make("Pynq-Z2", config=str(tmp_path / "faster.toml"))
    assert made.clock_mhz == 150
    assert made.actual_clock_mhz == pytest.approx(1000 / 7)
    assert "150 MHz were asked for: the overlay is built for 142.857 MHz" in capsys.readouterr().err
    made, _ = make("ZCU104")
    assert made.actual_clock_mhz == pytest.approx(187.498, rel=1e-5)
    assert "asked for" not in capsys.readouterr().err


@needs_tcl
def test_board_files_from_a_directory(make, tmp_path):
    (tmp_path / "boards" / BOARD_FILES["Ultra96V2"]).mkdir(parents=True)
    made, record = make("Ultra96V2", board_files=tmp_path / "boards")
    assert made.board_file == record.board_part == BOARD_FILES["Ultra96V2"]
    with pytest.raises(RowvitError, match="is no directory"):
        make("Ultra96V2", board_files=tmp_path / "elsewhere")


@needs_tcl
def test_another_configuration(make):
    made, record = make("ZCU104", config="tiny")
    assert record.parameters["rowvit_0", "LANES"] == "16"
    assert record.parameters["ps_0", "PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ"] == "100.0"
    assert made.configuration == "tiny" and made.board == "ZCU104"


@needs_tcl
def test_unknown_strategy(make):
    with pytest.raises(RowvitError, match="no strategy Hope"):
        make("Pynq-Z2", strategies=["Hope"])


@needs_tcl
def test_deadline(make, monkeypatch):
    monkeypatch.setenv("STANDIN_HANG", "1")
    with pytest.raises(RowvitError, match=r"not done within 0\.0003 hours"):
        make("Pynq-Z2", hours=0.0003)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_vivado(tmp_path, number):
    """It would go on for hours in a folder that the next build empties."""
    program = tmp_path / "vivado"
    program.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/pid.part\nmv {tmp_path}/pid.part {tmp_path}/pid\nexec sleep 9999\n"
    )
    program.chmod(0o755)
    command = [sys.executable, ROOT / "bitstreams/build.py", "Pynq-Z2", "--vivado", program]
    heard = partial(signal.signal, number, signal.SIG_DFL)  # which nohup, around these tests, ignores
    with subprocess.Popen(
        [*command, "--work", tmp_path / "work"], stdout=-3, stderr=-3, preexec_fn=heard
    ) as build:
        until((tmp_path / "pid").exists, build)
        build.send_signal(number)
        assert build.wait(HANG) == 128 + number
    vivado = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(vivado, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_while_vivado_starts(tmp_path, monkeypatch, number):
    """When it is there, and nothing yet would end it."""
    started = []

    class Started(subprocess.Popen):
        def __init__(self, *words, **options):
            super().__init__(*words, **options)
            started.append(self)
            os.kill(os.getpid(), number)

    endings = build.Endings()
    before = signal.signal(number, signal.SIG_DFL)
    endings.catch()
    monkeypatch.setattr(build, "ENDINGS", endings)
    monkeypatch.setattr(build.subprocess, "Popen", Started)
    try:
        with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
            list(build.run_tool("Vivado", ["sleep", "9999"], tmp_path, "log", "result", 1.0))
    finally:
        signal.signal(number, before)
    assert getattr(ended.value, "code", 128 + number) == 128 + number
    assert started[0].returncode == -signal.SIGKILL
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_missing_vivado(make):
    with pytest.raises(RowvitError, match=r"no-such-vivado not found; install Vivado 2022\.1 to 2025\.2"):
        make("Pynq-Z2", vivado="no-such-vivado")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "echo 'ERROR: [Common 17-345] A valid license was not found'; exit 1",
            r"17-345\] A valid license.*log is",
        ),
        ("exit 7", "Vivado ended with code 7"),
        ("echo 'ERROR: [Common 17-39] wait failed'", r"17-39\] wait failed; its log is"),
        ("exit 0", r"Vivado left no \S*result\.txt; its log is"),
    ],
)
def test_vivado_fails(make, tmp_path, body, message):
    program = tmp_path / "broken"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    with pytest.raises(RowvitError, match=message):
        make("Pynq-Z2", vivado=str(program))


@needs_tcl
def test_command(tmp_path):
    """As make runs it: paths may be relative, errors are one sentence."""
    command = [sys.executable, str(ROOT / "bitstreams/build.py")]
    rest = ["--vivado", "tests/bitstreams/vivado", "--work", tmp_path / "work", "--out", tmp_path / "out"]
    options = dict(cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    done = subprocess.run([*command, "pynq-z1", *rest], **options)
    assert done.returncode == 0, done.stderr
    assert "placement and routing" in done.stdout
    assert (tmp_path / "out/Pynq-Z1/rowvit-pynq-z2.json").is_file()
    done = subprocess.run([*command, "Zybo", *rest], **options)
    assert done.returncode == 2
    assert done.stderr.startswith("rowvit: no board 'Zybo'; use one of Pynq-Z1, ")


@needs_tcl
def test_command_clock_and_retry(tmp_path):
    """CLOCK asks for what the processor can make; RETRY tries other strategies for it."""
    command = [sys.executable, str(ROOT / "bitstreams/build.py"), "pynq-z2", "--clock", "130"]
    command += ["--vivado", "tests/bitstreams/vivado", "--work", tmp_path / "work", "--out", tmp_path / "out"]
    options = dict(cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    for retry, mhz in (([], 1000 / 9), (["--retry"], 125)):
        options["env"] = {**os.environ, "STANDIN_PATH_NS": "9 7.9"}
        done = subprocess.run([*command, *retry], **options)
        assert done.returncode == 0, done.stderr
        assert ("not met at 125.000 MHz, setup slack -1.000" in done.stderr) != bool(retry)
        made = provenance.Provenance.read(tmp_path / "out/Pynq-Z2/rowvit-pynq-z2.json")
        assert made.actual_clock_mhz == pytest.approx(mhz) and made.setup_slack_ns >= 0
        assert made.config_hash == f"{configs.load('pynq-z2').hash:08X}"


#: what Windows has not
UNKNOWN = """
import sys

class Windows:
    def find_spec(self, name, *_):
        if name in ("fcntl", "grp", "pwd", "pynq", "resource", "termios"):
            raise ImportError(name)

sys.meta_path.insert(0, Windows())
sys.modules.pop("fcntl", None)
"""


@needs_tcl
def test_dry_run_runs_elsewhere(tmp_path):
    """What it writes makes the overlay, also when the directory is moved, and without what Windows lacks."""
    folder = tmp_path / "it's {my} \\ $folder; [really]"
    folder.mkdir()
    script = UNKNOWN + "import runpy\nrunpy.run_path(sys.argv.pop(1), run_name='__main__')"
    command = [sys.executable, "-c", script, str(ROOT / "bitstreams/build.py"), "KV260", "--dry-run"]
    done = subprocess.run(
        [*command, "--work", tmp_path / "work"],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0 and "two to four hours" in " ".join(done.stdout.split()), done.stderr
    moved = shutil.move(tmp_path / "work/KV260", folder)
    script = Path(moved, "build.tcl")
    assert str(tmp_path) not in script.read_text() and str(ROOT) not in script.read_text()
    environment = {**os.environ, "STANDIN_BOARD_FILES": BOARD_FILES["KV260"]}
    vivado = [VIVADO, "-mode", "batch", "-source", script]
    done = subprocess.run(vivado, capture_output=True, text=True, timeout=HANG, env=environment)
    assert done.returncode == 0, done.stdout
    assert Path(moved, "rowvit.bit").is_file()


@pytest.mark.parametrize(
    ("board", "config", "lacks"),
    [
        ("Pynq-Z2", "zu3", r"5\.4 Mb of memories, and the part has 5\.2"),
        ("KV260", "zcu104", "88 UltraRAMs, and the part has 64"),
    ],
)
def test_a_configuration_that_a_part_cannot_hold(tmp_path, board, config, lacks):
    """Is refused before anything is built, or written for another PC."""
    command = [sys.executable, ROOT / "bitstreams/build.py", board, "--config", config, "--dry-run"]
    done = subprocess.run(
        [*command, "--work", tmp_path / "work"], capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 2 and re.search(
        f"'{config}' does not fit {board} .*{lacks}; build", done.stderr
    )
    assert not (tmp_path / "work").exists()


def test_no_dry_run_of_the_preprocessor(tmp_path):
    """The design would need the IP that Vitis HLS makes."""
    command = [sys.executable, ROOT / "bitstreams/build.py", "Pynq-Z2", "--dry-run", "--frontend", "hls"]
    done = subprocess.run(
        [*command, "--work", tmp_path / "work"], capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 2 and "the IP that Vitis HLS makes" in done.stderr
    assert not (tmp_path / "work").exists()


@needs_tcl
@pytest.mark.parametrize("frontend", FRONTENDS)
def test_any_path(make, tmp_path, frontend):
    """Spaces, as in the names of Windows' users, and what Tcl takes for something else."""
    odd = tmp_path / "My Documents" / "a {b} \\c $d [e] f's"
    files = odd / "boards" / BOARD_FILES["Ultra96V2"]
    files.mkdir(parents=True)
    made, record = make("Ultra96V2", board_files=files.parent, work=odd / "work", frontend=frontend)
    assert made.board_file == record.board_part == BOARD_FILES["Ultra96V2"]
    assert odd / "work/rtl/rowvit_top.v" in record.files


def test_paths_of_windows():
    path = PureWindowsPath(r"C:\Users\Ada Lovelace\rowvit\boards")
    assert build.tcl(path) == "{C:/Users/Ada Lovelace/rowvit/boards}"


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        (["BOARD=ZCU104"], "ZCU104"),
        (["BOARD=ZCU104", "CONFIG=tiny", "JOBS=3"], "ZCU104 --config tiny --jobs 3"),
        (["BOARD=KV260", "FRONTEND=hls"], "KV260 --frontend hls"),
        (["BOARD=KV260", "CLOCK=200", "RETRY=1", "DRY_RUN=1"], "KV260 --clock 200 --retry --dry-run"),
    ],
)
def test_make(variables, arguments):
    # below another make it would say where it is
    command = ["make", "--dry-run", "--no-print-directory", "bitstream", *variables]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG, check=True)
    assert " ".join(done.stdout.split()).endswith(f"bitstreams/build.py {arguments}")


def test_make_without_a_board():
    done = subprocess.run(["make", "bitstream"], cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 2
    assert done.stderr.startswith("rowvit: name a board: make bitstream BOARD=Pynq-Z2")


def test_utilisation_of_both_families():
    text = """
| CLB LUTs                   | 68000 |     0 |          0 |    230400 | 29.51 |
|   LUT as Logic             | 60000 |     0 |          0 |    230400 | 26.04 |
| CLB Registers              | 61234 |     0 |          0 |    460800 | 13.29 |
| Block RAM Tile |  192 |     0 |          0 |       312 | 61.54 |
| URAM           |   76 |     0 |          0 |        96 | 79.17 |
| DSPs           |  396 |     0 |          0 |      1728 | 22.92 |
"""
    found = build.utilisation(text)
    assert found["lut"] == {"used": 68000, "available": 230400}
    assert found["ultra_ram"] == {"used": 76, "available": 96}
    assert found.keys() == build.RESOURCES.keys()
    assert build.utilisation("| Slice LUTs*  | 5 | 0 | 0 | 53200 | 0.01 |") == {
        "lut": {"used": 5, "available": 53200}
    }
    with pytest.raises(RowvitError, match="no row"):
        build.utilisation("| Something | 1 |")


words = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@needs_tcl
@settings(max_examples=25)
@given(st.dictionaries(words, st.lists(words, max_size=4), min_size=1, max_size=4))
def test_tcl_words(table):
    """A dictionary of lists reads the same in Tcl."""
    script = "set t " + build.tcl(table) + "\ndict for {k v} $t {puts <$k>; foreach w $v {puts >$w<}}"
    out = subprocess.run(
        ["tclsh"], input=script, capture_output=True, text=True, timeout=HANG, check=True
    ).stdout
    assert out.splitlines() == [
        line for key, row in table.items() for line in (f"<{key}>", *(f">{word}<" for word in row))
    ]


def test_lint():
    files = [ROOT / "bitstreams", ROOT / "hls", *HERE.glob("*.tcl"), HERE / "vivado", HERE / "vitis_hls"]
    done = subprocess.run(
        [sys.executable, "-m", "tclint", *files], capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stdout
