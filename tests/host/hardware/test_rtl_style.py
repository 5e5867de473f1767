# SPDX-License-Identifier: Apache-2.0
"""What `rtl/STYLE.md` says of names and parameters, and no linter checks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import HANG

RTL = Path(__file__).resolve().parents[3] / "rtl"
MODULES = sorted(RTL.rglob("rowvit_*.v"))
#: whose parameters are described in another file
ELSEWHERE = {"rowvit_core": "parameters as of rowvit_top"}


def registers(text: str) -> set[str]:
    """What is assigned at a clock's edge: in this RTL, without blocking, and nothing else is."""
    syntax = pytest.importorskip("pyslang.syntax")
    found: set[str] = set()

    def visit(node: object) -> None:
        if getattr(node, "kind", None) == syntax.SyntaxKind.NonblockingAssignmentExpression:
            names = str(node.left)
            while names != (names := re.sub(r"\[[^][]*\]", "", names)):
                pass
            found.update(re.findall(r"[A-Za-z_]\w*", re.sub(r"//.*", "", names)))

    syntax.SyntaxTree.fromText(text).root.visit(visit)
    return found


def test_registers_are_found() -> None:
    text = """module m (input wire clk_i, output reg a_o); always @(posedge clk_i) begin
        if (a <= b) c <= a <= b; {a_o, d[2*i[0]+:1]} <= x; for (i = 0; i < 2; i = i + 1) e_q[f] <= g;
        end endmodule"""
    assert registers(text) == {"c", "a_o", "d", "e_q"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_registers_end_in_q(path: Path) -> None:
    """Or in `_o`: they are ports."""
    assert not {name for name in registers(path.read_text()) if not name.endswith(("_q", "_o"))}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_parameters_have_a_comment_each(path: Path) -> None:
    head = path.read_text().partition(");\n")[0]
    if path.stem in ELSEWHERE:
        assert ELSEWHERE[path.stem] in head
        return
    lines = [line.strip() for line in head.splitlines()]
    bare = [
        line
        for above, line in zip(["", *lines], lines, strict=False)
        if line.startswith("parameter ") and not (above.startswith("// ") and "//" not in line)
    ]
    assert not bare


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_who_does_not_ask_is_never_refused(path: Path) -> None:
    """An open in_ready_o has its assertion."""
    text = path.read_text()
    assert text.count(".in_ready_o()") == len(re.findall(r"\.NEVER_REFUSED\(1\)", text))


#: module, values that it cannot have, and the limit that every tool must name
ILLEGAL = [
    ("issue", {"ROWS": 3}, "rows_must_be_2_4_or_8"),
    ("array", {"WEIGHT_DEPTH": 16, "LANES": 16}, "weight_depth_must_be_above_lanes_and_at_most_65536"),
    ("array", {"WEIGHT_DEPTH": 65537}, "weight_depth_must_be_above_lanes_and_at_most_65536"),
    ("array", {"MAX_TOKENS": 128, "ROTARY_TOKENS": 64}, "rotary_tokens_must_be_0_or_at_least_max_tokens"),
    ("drain", {"GROUPS": 7, "LANES": 64}, "groups_must_be_at_most_6"),
    ("drain", {"GROUPS": 5, "LANES": 32}, "groups_of_fewer_than_64_lanes_must_be_at_most_4"),
    ("drain", {"LANES": 8}, "lanes_must_be_16_32_or_64"),
    ("drain", {"PARAM_SLOTS": 512}, "param_slots_must_be_a_power_of_two_from_2_to_256"),
    ("drain", {"MASK_DEPTH": 1}, "mask_depth_must_be_a_power_of_two_from_2_to_65536"),
    ("norm_engine", {"NORM_SLOTS": 300}, "norm_slots_must_be_at_most_256_in_65536_addresses"),
    ("token_memory", {"DEPTH": 131072}, "depth_must_be_from_2_to_65536"),
    ("residual_memory", {"DEPTH": 131072}, "depth_must_be_from_2_to_65536"),
    ("axil_regs", {"ROWS": 16}, "rows_must_be_at_most_15"),
    ("axil_regs", {"GROUPS": 256}, "groups_must_be_at_most_255"),
    ("axil_regs", {"LANES": 4096}, "lanes_must_be_at_most_4095"),
    ("norm_engine", {"MAX_DIM": 1088, "LANES": 64}, "max_dim_must_be_at_most_1024"),
    ("norm_engine", {"MAX_DIM": 80, "LANES": 64}, "max_dim_must_be_a_multiple_of_lanes"),
    ("norm_engine", {"GROUPS": 17, "LANES": 64}, "groups_times_lanes_must_be_at_most_1024"),
    ("norm_engine", {"MAX_DIM": 48, "LANES": 24}, "lanes_must_be_a_power_of_two_from_8_on"),
    ("compress", {"LANES": 128}, "lanes_must_be_8_16_32_or_64"),
    ("softmax", {"MAX_TOKENS": 8}, "max_tokens_must_be_from_lanes_to_1024"),
    ("softmax", {"MAX_TOKENS": 1025}, "max_tokens_must_be_from_lanes_to_1024"),
    ("fifo", {"DEPTH": 5}, "depth_must_be_a_power_of_two_from_2_on"),
    ("skid_buffer", {"WIDTH": 0}, "width_must_be_at_least_1"),
    ("axi_reader", {"WIDTH": 32}, "width_must_be_64_or_128"),
    ("axi_reader", {"DEPTH1": 8}, "depths_must_be_at_least_16"),
    ("split_ram", {"DEPTH": 511}, "depth_must_be_even"),
    ("drain", {"ROTARY_TOKENS": 48}, "rotary_tokens_must_be_0_or_a_power_of_two_to_4096"),
    ("rotary_table", {"ROWS": 3}, "rows_must_be_even"),
    ("rotary_mac", {"REGS": 3}, "regs_must_be_1_or_2"),
    ("lut_ram", {"DEPTH": 4}, "depth_must_be_at_least_8"),
    ("lut_ram", {"AW": 8}, "aw_must_be_clog2_of_depth"),
    ("load_engine", {"LANES": 128}, "lanes_must_be_16_32_or_64"),
    ("sdp_ram", {"DEPTH": 500}, "depth_must_be_a_power_of_two"),
]


def refusal(tool: str, module: str, values: dict[str, int]) -> str:
    """What a tool says as it elaborates a module with these parameters; it must end with an error."""
    top, folders = f"rowvit_{module}", sorted(path for path in RTL.iterdir() if path.is_dir())
    (source,) = RTL.glob(f"*/{top}.v")
    search = [word for folder in folders for word in ("-y", str(folder))]
    if tool == "verilator":
        command = ["verilator", "--lint-only", "-Wno-lint", "-Wno-fatal", f"-I{RTL}", *search]
        command += [f"-G{name}={value}" for name, value in values.items()]
        command += ["--top-module", top, str(source)]
    elif tool == "iverilog":
        command = ["iverilog", "-g2005", "-t", "null", f"-I{RTL}", *search, "-s", top]
        command += [*(f"-P{top}.{name}={value}" for name, value in values.items()), str(source)]
    elif tool == "yosys":
        changes = "".join(f" -chparam {name} {value}" for name, value in values.items())
        sources = " ".join(str(path) for path in MODULES if path.parent != RTL)
        command = [
            "yosys",
            "-q",
            "-p",
            f"read_verilog -I{RTL} {sources}; hierarchy -check -top {top}{changes}",
        ]
    else:
        words = [f"-G {name}={value}" for name, value in values.items()] + search
        command = [
            sys.executable,
            "-c",
            "import sys; from pyslang.driver import CommandLineOptions, Driver; d = Driver();"
            " d.addStandardArgs(); d.parseCommandLine(sys.argv[1], CommandLineOptions());"
            " sys.exit(not (d.processOptions() and d.parseAllSources() and d.runFullCompilation(True)))",
            " ".join(["slang --std 1364-2005 --top", top, "-I", str(RTL), *words, str(source)]),
        ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.mark.parametrize("module, values, limit", ILLEGAL, ids=lambda part: part if type(part) is str else "")
def test_illegal_parameters_name_their_limit(module: str, values: dict[str, int], limit: str) -> None:
    if shutil.which("verilator") is None:
        pytest.skip("Verilator is not installed: sudo apt-get install -y verilator")
    assert f"illegal_parameter_{module}_{limit}" in refusal("verilator", module, values)


@pytest.mark.parametrize("tool", ["iverilog", "yosys", "slang"])
def test_every_tool_names_the_limit(tool: str) -> None:
    if tool != "slang" and shutil.which(tool) is None:
        pytest.skip(f"{tool} is not on the PATH")
    module, values, limit = next(one for one in ILLEGAL if one[0] == "fifo")
    assert f"illegal_parameter_{module}_{limit}" in refusal(tool, module, values)


def test_every_limit_is_tried() -> None:
    """But for that of a constant of rowvit_defs.vh."""
    said = {name for path in MODULES for name in re.findall(r"illegal_parameter_(\w+)", path.read_text())} - {
        "axi_reader_burst_words_must_be_16"
    }
    assert said == {f"{module}_{limit}" for module, _, limit in ILLEGAL}
