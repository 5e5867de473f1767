# SPDX-License-Identifier: Apache-2.0
"""The RTL's parameters and ports, read by pyverilog, agree with Python; naming rules."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from rowvit.errors import RowvitError
from rowvit.hardware import buses, isa
from rowvit.hardware.config import load

RTL = Path(__file__).resolve().parents[3] / "rtl"

pytestmark = pytest.mark.skipif(shutil.which("iverilog") is None, reason="pyverilog needs iverilog on PATH")

AXI4_LITE = {
    "awaddr": "i", "awvalid": "i", "awready": "o", "wdata": "i", "wstrb": "i", "wvalid": "i", "wready": "o",
    "bresp": "o", "bvalid": "o", "bready": "i", "araddr": "i", "arvalid": "i", "arready": "o", "rdata": "o",
    "rresp": "o", "rvalid": "o", "rready": "i",
}  # fmt: skip
AXI4_READ = {
    "araddr": ("o", 64), "arlen": ("o", 8), "arsize": ("o", 3), "arburst": ("o", 2), "arcache": ("o", 4),
    "arprot": ("o", 3), "arvalid": ("o", 1), "arready": ("i", 1), "rdata": ("i", "PORT_BITS"),
    "rresp": ("i", 2), "rlast": ("i", 1), "rvalid": ("i", 1), "rready": ("o", 1),
}  # fmt: skip


@pytest.fixture
def parse(tmp_path, monkeypatch):
    """Parse Verilog text; pyverilog writes its tables into the working directory."""
    monkeypatch.chdir(tmp_path)
    from pyverilog.vparser.parser import VerilogCodeParser

    def parse(text: str):
        (tmp_path / "source.v").write_text(text)
        return VerilogCodeParser(["source.v"], preprocess_include=[str(RTL)]).parse()

    return parse


def walk(node):
    yield node
    for child in node.children():
        yield from walk(child)


def integer(value) -> int:
    """The value of a constant such as ``512``, ``8'd3`` or ``32'h0``."""
    digits = value.var.value if type(value).__name__ == "Rvalue" else value.value
    size, tick, rest = digits.replace("_", "").partition("'")
    return int(rest[1:], {"d": 10, "h": 16, "b": 2}[rest[0].lower()]) if tick else int(size)


@pytest.fixture
def top(parse):
    from pyverilog.vparser.ast import ModuleDef

    # pyverilog knows no attributes of ports
    text = re.sub(r"\(\* .*? \*\)", "", (RTL / "rowvit_top.v").read_text())
    return next(node for node in walk(parse(text)) if isinstance(node, ModuleDef))


def test_top_parameters_are_the_structural_fields(top) -> None:
    from pyverilog.vparser.ast import Localparam, Parameter

    names = {n.name for n in walk(top) if isinstance(n, Parameter) and not isinstance(n, Localparam)}
    fields = {name.upper() for name in load("tiny").structure()}
    assert fields | {"CONFIG_HASH"} <= names
    # what the build chooses, and results do not depend on
    assert names - fields - {"CONFIG_HASH"} == {"USE_DSP", "RAM_STYLE"}


def test_every_port_of_the_top_says_what_it_is() -> None:
    """Each has its X_INTERFACE_INFO, of the interface and signal that its name says."""
    text = (RTL / "rowvit_top.v").read_text()
    found = dict(
        re.findall(r'\(\* X_INTERFACE_INFO = "\S+ (\w+ \w+)" \*\)\s+(?:in|out)put +wire .*?(\w+),?\n', text)
    )
    control = {"aclk CLK": "aclk", "aresetn RST": "aresetn", "irq INTERRUPT": "irq"}
    assert {key: found.pop(key) for key in control} == control
    assert all(name == key.lower().replace(" ", "_") for key, name in found.items())
    assert len(found) + len(control) == text[: text.index("\n);")].count(" wire ")


def test_top_ports(top) -> None:
    from pyverilog.vparser.ast import Input, Output

    ports = {}
    for port in top.portlist.ports:
        direction = {Input: "i", Output: "o"}[type(port.first)]
        width = port.first.width
        if width is not None and type(width.msb).__name__ == "Minus":  # a parameter, less one
            ports[port.first.name] = (direction, width.msb.left.name)
        else:
            ports[port.first.name] = (direction, 1 if width is None else integer(width.msb) + 1)
    assert ports["aclk"] == ports["aresetn"] == ("i", 1) and ports["irq"] == ("o", 1)
    assert {n[7:]: d for n, (d, _) in ports.items() if n.startswith("s_axil_")} == AXI4_LITE
    assert ports["s_axil_awaddr"][1] == ports["s_axil_araddr"][1] == 12
    assert {n[6:]: port for n, port in ports.items() if n.startswith("m_axi_")} == AXI4_READ
    stream = {"tdata": 64, "tvalid": 1, "tready": 1, "tlast": 1}
    assert {n[7:]: w for n, (_, w) in ports.items() if n.startswith("s_axis_")} == stream
    assert {n[7:]: w for n, (_, w) in ports.items() if n.startswith("m_axis_")} == stream | {"tkeep": 8}


def test_registers_do_not_overlap() -> None:
    offsets = [offset for offset, _, _ in isa.REGISTERS.values()]
    offsets += [isa.COUNTER_BASE + 4 * i for i in range(len(isa.COUNTERS))]
    assert len(set(offsets)) == len(offsets) and max(offsets) < 1 << 12


def test_every_file_holds_the_module_of_its_name() -> None:
    files = sorted(RTL.rglob("*.v"))
    assert files
    for path in files:
        assert re.findall(r"^\s*module\s+(\w+)", path.read_text(), re.M) == [path.stem]
        assert path.stem.startswith("rowvit_")


def test_instruction_fields_have_names() -> None:
    """A slot's number stands in the table of instructions only; elsewhere its generated name does."""
    for path in RTL.rglob("*.v"):
        assert not re.findall(r"\[16 ?\* ?\d+ ?\+:|\b(?:instr_[iq]|q_exec)\[\d+\s*[]:+]", path.read_text()), (
            path
        )


#: ports beside the buses: clocks, resets, AXI and its TLAST, and what nobody takes
NO_BUS = re.compile(
    r"clk_i|rst_ni|clear_i|[sm]_axil?_\w+|[sm]_axis_\w+|irq_o|run\.pass_end_i|(dispatch|axi_reader)\.busy_o"
)


def ports(unit: str) -> list[str]:
    """Names of a unit's ports."""
    (path,) = RTL.glob(f"*/rowvit_{unit}.v")
    text = path.read_text()
    return re.findall(
        r"^\s*(?:in|out)put\s+(?:wire|reg)\s+(?:\[.*?\]\s*)?(\w+)", text[: text.index(");\n")], re.M
    )


def test_every_port_of_a_unit_is_of_one_bus() -> None:
    """And every end of a bus has ports, with the fields that the table names."""
    found: dict[tuple[str, str], int] = {}
    for link in buses.LINKS:
        for unit, port in link.ends():
            own = [name for name in ports(unit) if re.fullmatch(rf"{port}(_\w+)*?(_[io])?", name)]
            assert own, f"{link.name}: {unit} has no port {port}"
            for name in own:
                found[unit, name] = found.get((unit, name), 0) + 1
    for unit in {unit for unit, _ in found}:
        for name in ports(unit):
            if not NO_BUS.fullmatch(name) and not NO_BUS.fullmatch(f"{unit}.{name}"):
                assert found.pop((unit, name), 0) == 1, f"{unit}.{name} is of one bus, and of one only"
    assert not found


def test_units_of_the_table_are_those_of_core_array_and_top() -> None:
    made = set()
    for name in ("rowvit_core.v", "array/rowvit_array.v", "rowvit_top.v"):
        made |= set(re.findall(r"^ *rowvit_(\w+) #?\(?(?:u_\w+ )?\(?", (RTL / name).read_text(), re.M))
    units = {unit for link in buses.LINKS for unit, _ in link.ends()}
    assert made - {"core", "array", "copies"} == units


def test_fields_of_a_bus_are_ports_of_its_drivers_or_a_vector() -> None:
    for link in buses.LINKS:
        ends = link.ends()
        if isinstance(link.fields, buses.Vector):
            texts = [next(RTL.glob(f"*/rowvit_{unit}.v")).read_text() for unit, _ in ends]
            assert any(f"`{link.fields.prefix}_" in text for text in texts), link.name
            continue
        drivers = ends[: len(link.drivers.split())]
        for name in link.fields.split():
            assert any(f"{port}_{name}_{way}" in ports(unit) for unit, port in drivers for way in "io"), (
                f"{link.name}: no port {name}"
            )


def test_what_holds_a_bus_is_there() -> None:
    tests = RTL.parent / "tests"
    for link in buses.LINKS:
        for held in link.held.split(", "):
            kind, _, name = held.rpartition(" ")
            path = tests / (f"formal/{name}_proof.v" if kind == "proof" else f"unit/{name}.py")
            assert path.exists(), f"{link.name}: no {path}"


def test_vectors_of_buses() -> None:
    sizes = {"ROWS": 4, "GROUPS": 3, "BANK_W": 2}
    fields = {"null": 1, "rows": 0b1011, "dst": 0xBEEF, "bank": 0b11100100, "addr": 1 << 16 * 12 - 1}
    vector = buses.TILE.pack(fields, **sizes)
    read = buses.TILE.unpack(vector, **sizes)
    assert {name: value for name, value in read.items() if value} == fields
    low, end, _ = buses.TILE.ranges()["drain"]
    assert (str(low), str(end)) == ("18", "17*ROWS+BANK_W*ROWS+98")
    assert buses.TILE.part("drain", vector, **sizes) == vector >> 18 & (1 << 17 * 4 + 2 * 4 + 80) - 1
    for wrong in ({"groups": 256}, {"colour": 1}):
        with pytest.raises(RowvitError):
            buses.TILE.pack(wrong, **sizes)
