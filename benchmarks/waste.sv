// SPDX-License-Identifier: Apache-2.0
// Reads of memories whether somebody uses them or not, and bits that change in the multipliers: for waste.py,
// which puts it behind the counters of host/rowvit/sim/activity.sv.

// -- reads, of all copies ------------------------------------------------------------------------
bind rowvit_drain_requant rowvit_activity #("parameter_reads") u_all_reads (
    .clk_i(clk_i), .amount_i(read_i ? GROUPS : 0));
bind rowvit_softmax rowvit_activity #("logit_reads") u_all_reads (
    .clk_i(clk_i), .amount_i(sending && en[ROWS] ? N : 0));
bind rowvit_softmax rowvit_activity #("score_memory_reads") u_all_scores (
    .clk_i(clk_i), .amount_i(32'(score_pass ? stage_q[3] : score_read_i)));
bind rowvit_select rowvit_activity #("table_reads") u_all_table (
    .clk_i(clk_i), .amount_i((src_read_i ? ROWS : 0) + 32'(state_q == S_READ)));
bind rowvit_drain_mask rowvit_activity #("mask_memory_reads") u_all_reads (
    .clk_i(clk_i), .amount_i(32'(mask_read_i)));
bind rowvit_weight_memory rowvit_activity #("weight_reads_at_writes") u_at_writes (
    .clk_i(clk_i), .amount_i(32'(b_en_i && b_we_i != 0)));
bind rowvit_norm_params rowvit_activity #("norm_parameter_reads") u_all_reads (
    .clk_i(clk_i), .amount_i(move_i ? GROUPS : 0));
bind rowvit_rotary_table rowvit_activity #("rotary_reads") u_all_reads (
    .clk_i(clk_i), .amount_i(read_i ? ROWS : 0));
bind rowvit_drain_residual rowvit_activity #("residual_drained") u_used (
    .clk_i(clk_i), .amount_i(res_rd_o ? (gathers_q[7] ? GROUPS : N) : 0));

// -- the registers of the multipliers ------------------------------------------------------------
// As of a DSP48E1 for each pair of lanes: factors, the pair that is chosen, and the product. GATED: a register
// takes a value only if it belongs to a product that is summed.
module rowvit_toggles #(
    parameter LANES = 64,
    parameter GATED = 0,
    parameter string ALL = "",
    parameter string WAITING = ""
) (
    input wire               clk_i,
    input wire               en_i,
    input wire [8:0]         x_i,
    input wire [8*LANES-1:0] a_i,
    input wire [8*LANES-1:0] b_i,
    input wire               use_b_i
);
  localparam PAIRS = LANES / 2;
  reg [2:0] en_q;
  reg [8:0] x1_q, x2_q;
  reg       use_b_q;
  reg [8*LANES-1:0] a_q, b_q, chosen_q;
  reg [34*PAIRS-1:0] m_q, m;
  wire [8*LANES-1:0] chosen = use_b_q ? b_q : a_q;
  always @*
    for (int i = 0; i < PAIRS; i = i + 1)
      m[34*i+:34] = 34'($signed({chosen_q[16*i+8+:8], {9{chosen_q[16*i+7]}}, chosen_q[16*i+:8]}) * $signed(x2_q));
  wire go1 = GATED == 0 || en_i, go2 = GATED == 0 || en_q[0], go3 = GATED == 0 || en_q[1];
  wire [31:0] changed = (go1 ? PAIRS * $countones(x1_q ^ x_i) + $countones(a_q ^ a_i) + $countones(b_q ^ b_i) : 0)
      + (go2 ? PAIRS * $countones(x2_q ^ x1_q) + $countones(chosen_q ^ chosen) : 0)
      + (go3 ? $countones(m_q ^ m) : 0);
  wire waiting = !en_i && en_q == 3'd0;
  always @(posedge clk_i) begin
    en_q <= {en_q[1:0], en_i};
    use_b_q <= use_b_i;
    if (go1) {x1_q, a_q, b_q} <= {x_i, a_i, b_i};
    if (go2) {x2_q, chosen_q} <= {x1_q, chosen};
    if (go3) m_q <= m;
  end
  rowvit_activity #(ALL) u_all (.clk_i(clk_i), .amount_i(changed));
  rowvit_activity #(WAITING) u_waiting (.clk_i(clk_i), .amount_i(waiting ? changed : 0));
endmodule
bind rowvit_cluster rowvit_toggles #(LANES, 0, "free_toggles", "free_toggles_waiting") u_free (
    .clk_i(clk_i), .en_i(en_i), .x_i(x_i), .a_i(a_i), .b_i(b_i), .use_b_i(use_b_i));
bind rowvit_cluster rowvit_toggles #(LANES, 1, "gated_toggles", "gated_toggles_waiting") u_gated (
    .clk_i(clk_i), .en_i(en_i), .x_i(x_i), .a_i(a_i), .b_i(b_i), .use_b_i(use_b_i));
