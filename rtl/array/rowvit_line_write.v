// SPDX-License-Identifier: Apache-2.0
// Writes to the weight memory: the drain's (K^T, V) go first, a loaded line waits. The drain's line is all
// ones but for the bits that it clears; it waits a cycle for what announces it, which goes to many
// registers. (The tile counts as complete much later.)
// Throughput 1 line per cycle. Latency 1.
`default_nettype none
`include "rowvit_buses.vh"

module rowvit_line_write #(
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64,
    // Bits of a weight line's number.
    parameter AW = 10
) (
    input  wire                    clk_i,
    input  wire                    rst_ni,
    // the drain; dw_next_i a cycle ahead
    input  wire                    dw_next_i,
    input  wire [GROUPS-1:0]       dw_valid_i,
    input  wire [`WW_ALL]          dw_i,
    // a loaded line of a group
    input  wire                    load_valid_i,
    output wire                    load_ready_o,
    input  wire [7:0]              load_group_i,
    input  wire [15:0]             load_line_i,
    input  wire [8*LANES-1:0]      load_data_i,
    // to rowvit_issue.v
    output wire [GROUPS-1:0]       wr_valid_o,
    output wire [AW*GROUPS-1:0]    wr_line_o,
    output wire [LANES*GROUPS-1:0] wr_be_o,
    output wire [8*LANES-1:0]      wr_data_o,
    output wire [64*GROUPS-1:0]    wr_clear_o
);
  localparam PARTS = 4;
  localparam W = 8 * LANES / PARTS;

  wire [PARTS:0]      ones;
  reg  [GROUPS-1:0]   dw_valid_q, load_valid_q;
  reg  [`WW_ALL]      dw_q;
  reg  [AW-1:0]       line_q;
  reg  [8*LANES-1:0]  data_q;
  rowvit_copies #(
      .N(PARTS + 1)
  ) u_ones (
      .clk_i(clk_i), .d_i(dw_next_i), .q_o(ones)
  );
  assign load_ready_o = !ones[PARTS];
  assign wr_data_o = data_q;
  assign wr_clear_o = dw_q[`WW_CLEAR];
  genvar g;
  generate
    for (g = 0; g < PARTS; g = g + 1) begin : g_part
      always @(posedge clk_i) data_q[W*g+:W] <= ones[g] ? {W{1'b1}} : load_data_i[W*g+:W];
    end
    for (g = 0; g < GROUPS; g = g + 1) begin : g_group
      localparam [7:0] G = g;
      always @(posedge clk_i) begin
        load_valid_q[g] <= load_valid_i && !ones[PARTS] && load_group_i == G;
        if (!rst_ni) load_valid_q[g] <= 1'b0;
      end
      assign wr_valid_o[g] = dw_valid_q[g] || load_valid_q[g];
      assign wr_line_o[AW*g+:AW] = dw_valid_q[g] ? dw_q[`WW_LINE] : line_q;
      assign wr_be_o[LANES*g+:LANES] = dw_valid_q[g] ? dw_q[`WW_BE] : {LANES{1'b1}};
    end
  endgenerate
  always @(posedge clk_i) begin
    dw_valid_q <= dw_valid_i;
    dw_q       <= dw_i;
    line_q     <= load_line_i[AW-1:0];
    if (!rst_ni) dw_valid_q <= {GROUPS{1'b0}};
  end
endmodule
`default_nettype wire
