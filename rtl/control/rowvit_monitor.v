// SPDX-License-Identifier: Apache-2.0
// The core's counters, and the watchdog. What happens in a cycle is counted a cycle later. (CYCLES and FIRES,
// which MARK records have, come from registers already.)
// Throughput: every cycle. Latency: 2 cycles, of amounts 1.
`default_nettype none
`include "rowvit_buses.vh"

module rowvit_monitor #(
    // Width of the memory's port: what a beat of it counts.
    parameter PORT_BITS = 64
) (
    input  wire         clk_i,
    input  wire         rst_ni,
    input  wire [1:0]   clear_i,  // copies of the reset, for half of the counters each
    input  wire         run_i,
    input  wire [`E_ALL] event_i,
    // Amounts of a cycle.
    input  wire [7:0]   fires_i,
    input  wire [3:0]   ffn2_nonzeros_i,
    input  wire [7:0]   pv_nonzeros_i,
    input  wire [15:0]  w2_fetched_i,
    input  wire [15:0]  w2_rows_i,
    // Watchdog: what is done, and whether the host's input, or room for its output, is awaited: no hang.
    input  wire [191:0] progress_i,
    input  wire         host_i,
    input  wire [31:0]  limit_i,
    output wire         error_o,
    output wire [639:0] counters_o
);
  `include "rowvit_defs.vh"
  localparam PORT_WORDS = PORT_BITS / 64;

  reg [`E_ALL] event_q;
  reg          host_q;
  always @(posedge clk_i) begin
    event_q <= event_i;
    host_q  <= host_i;
    if (!rst_ni) event_q <= 0;
  end
  wire [16*N_COUNTER-1:0] inc;
  assign inc[16*CNT_CYCLES+:16]        = {15'd0, run_i};
  assign inc[16*CNT_EXEC_BUSY+:16]     = {15'd0, event_q[`E_EXEC_BUSY]};
  assign inc[16*CNT_EXEC_FIRE+:16]     = {15'd0, event_q[`E_EXEC_FIRE]};
  assign inc[16*CNT_FIRES+:16]         = {8'd0, fires_i};
  assign inc[16*CNT_FFN2_NONZEROS+:16] = {12'd0, ffn2_nonzeros_i};
  assign inc[16*CNT_PV_NONZEROS+:16]   = {8'd0, pv_nonzeros_i};
  assign inc[16*CNT_WAIT_DATA+:16]     = {15'd0, event_q[`E_WAIT_DATA]};
  assign inc[16*CNT_WAIT_DRAIN+:16]    = {15'd0, event_q[`E_WAIT_DRAIN]};
  assign inc[16*CNT_WAIT_STEAL+:16]    = {15'd0, event_q[`E_WAIT_STEAL]};
  assign inc[16*CNT_DRAIN_BUSY+:16]    = {15'd0, event_q[`E_DRAIN_BUSY]};
  assign inc[16*CNT_LOAD_BUSY+:16]     = {15'd0, event_q[`E_LOAD_BUSY]};
  assign inc[16*CNT_LOAD_WAIT+:16]     = {15'd0, event_q[`E_LOAD_WAIT]};
  assign inc[16*CNT_AXI_BEATS+:16]     = event_q[`E_AXI_BEATS] ? PORT_WORDS[15:0] : 16'd0;
  assign inc[16*CNT_W2_FETCHED+:16]    = w2_fetched_i;
  assign inc[16*CNT_W2_ROWS+:16]       = w2_rows_i;
  assign inc[16*CNT_NORM_BUSY+:16]     = {15'd0, event_q[`E_NORM_BUSY]};
  assign inc[16*CNT_SOFTMAX_BUSY+:16]  = {15'd0, event_q[`E_SOFTMAX_BUSY]};
  assign inc[16*CNT_SELECT_BUSY+:16]   = {15'd0, event_q[`E_SELECT_BUSY]};
  assign inc[16*CNT_RECV_WORDS+:16]    = {15'd0, event_q[`E_RECV_WORDS]};
  assign inc[16*CNT_SEND_WORDS+:16]    = {15'd0, event_q[`E_SEND_WORDS]};

  // In halves, as each has 32 registers to clear and to enable per counter.
  localparam HALF = N_COUNTER / 2;
  // What was under way before a reset or start is not counted.
  wire [1:0] counting;
  rowvit_copies #(
      .N(2)
  ) u_counting (
      .clk_i(clk_i), .d_i(run_i && rst_ni), .q_o(counting)
  );
  genvar g;
  generate
    for (g = 0; g < 2; g = g + 1) begin : g_counters
      rowvit_counters #(
          .N(HALF)
      ) u_counters (
          .clk_i(clk_i), .rst_ni(!clear_i[g]),
          .en_i({HALF{counting[g]}} | (g == 0 ? {{(HALF - 1){1'b0}}, 1'b1} << CNT_CYCLES : {HALF{1'b0}})),
          .inc_i(inc[16*HALF*g+:16*HALF]), .count_o(counters_o[32*HALF*g+:32*HALF])
      );
    end
  endgenerate

  rowvit_watchdog #(
      .WIDTH(192)
  ) u_watchdog (
      .clk_i(clk_i), .rst_ni(rst_ni), .busy_i(run_i), .limit_i(limit_i), .progress_i(progress_i),
      .event_i(event_q[`E_RECV_WORDS] || event_q[`E_SEND_WORDS] || event_q[`E_AXI_BEATS]
               || event_q[`E_EXEC_FIRE] || host_q),
      .error_o(error_o)
  );
endmodule
`default_nettype wire
