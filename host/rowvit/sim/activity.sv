// SPDX-License-Identifier: Apache-2.0
// What the core does in every cycle, counted for the estimate of energy. Nothing here is part of the RTL:
// counters are bound to its modules, and only the simulator that `build(activity=True)` makes has them.
// Names and meanings: rowvit.hardware.activity.
`include "rowvit_buses.vh"

module rowvit_activity #(
    // Of the count; instances that share it add to it.
    parameter string NAME = ""
) (
    input wire        clk_i,
    input wire [31:0] amount_i
);
  import "DPI-C" function int rowvit_count_number(input string name);
  import "DPI-C" function void rowvit_count(input int number, input int amount);
  int number;
  initial number = rowvit_count_number(NAME);
  always @(posedge clk_i) if (amount_i != 0) rowvit_count(number, amount_i);
endmodule

// -- memories ------------------------------------------------------------------------------------
bind rowvit_weight_memory rowvit_activity #("weight_reads") u_reads (
    .clk_i(clk_i), .amount_i(32'(a_en_i) + 32'(b_en_i && b_we_i == 0)));
bind rowvit_weight_memory rowvit_activity #("weight_bytes") u_writes (
    .clk_i(clk_i), .amount_i(b_en_i ? 32'($countones(b_we_i)) : 0));
bind rowvit_split_ram rowvit_activity #(WIDTH == 64 ? "token_reads" : "residual_reads") u_reads (
    .clk_i(clk_i), .amount_i(32'(re_i)));
bind rowvit_split_ram rowvit_activity #(WIDTH == 64 ? "token_writes" : "residual_writes") u_writes (
    .clk_i(clk_i), .amount_i(32'(we_i)));
bind rowvit_drain_requant rowvit_activity #("parameter_writes") u_writes (
    .clk_i(clk_i), .amount_i(32'(pw_valid_i)));
bind rowvit_norm_params rowvit_activity #("norm_parameter_writes") u_writes (
    .clk_i(clk_i), .amount_i(32'(nw_valid)));
bind rowvit_drain_mask rowvit_activity #("mask_writes") u_writes (
    .clk_i(clk_i), .amount_i(32'(left_q != 0)));
bind rowvit_load_request rowvit_activity #("mask_reads") u_reads (
    .clk_i(clk_i), .amount_i(32'(state_q == S_LATCH || state_q == S_HAD)));
bind rowvit_exec rowvit_activity #("gathers") u_gathers (
    .clk_i(clk_i), .amount_i(32'(state_q == X_GATHER && g_step_q == G_LAST)));
bind rowvit_select rowvit_activity #("selected") u_selected (.clk_i(clk_i), .amount_i(32'(write)));
bind rowvit_drain rowvit_activity #("rotary_writes") u_rotary (.clk_i(clk_i), .amount_i(32'(ro_valid_i)));

// -- operations ----------------------------------------------------------------------------------
bind rowvit_drain rowvit_activity #("drained") u_drained (.clk_i(clk_i), .amount_i(32'(step)));
bind rowvit_drain rowvit_activity #("rotated") u_rotated (
    .clk_i(clk_i), .amount_i(32'(valid10_q && op10_q[`O_LATE])));
bind rowvit_drain_residual rowvit_activity #("residual_sums") u_sums (
    .clk_i(clk_i), .amount_i(32'(valid10_i)));
bind rowvit_softmax rowvit_activity #("logits") u_logits (.clk_i(clk_i), .amount_i(32'(s_live)));
bind rowvit_softmax rowvit_activity #("exponentials") u_exponentials (
    .clk_i(clk_i), .amount_i(32'(sending && en[ROWS])));
bind rowvit_softmax rowvit_activity #("reciprocals") u_reciprocals (
    .clk_i(clk_i), .amount_i(32'(recip_next)));
bind rowvit_softmax rowvit_activity #("scores") u_scores (.clk_i(clk_i), .amount_i(32'(stage_q[4])));
bind rowvit_select rowvit_activity #("score_reads") u_reads (
    .clk_i(clk_i), .amount_i(32'(scan_q && score_ready_i)));
bind rowvit_norm_passes rowvit_activity #("norm_sums") u_sums (
    .clk_i(clk_i), .amount_i(32'(read_o && square_o)));
bind rowvit_norm_passes rowvit_activity #("norm_values") u_values (
    .clk_i(clk_i), .amount_i(32'(read_o && !square_o)));
bind rowvit_norm_passes rowvit_activity #("norm_parts") u_parts (
    .clk_i(clk_i), .amount_i(32'(sum_start_o)));
