// SPDX-License-Identifier: Apache-2.0
// Drain to the residual memory, stages 6 to 11: the sums before are read early enough to meet the results of
// stage 10. The next read of a word that is written in stage 11 comes LANES cycles later.
// Throughput 1 lane per cycle of all rows and groups (gathered rows: of a row). Latency 6, from stage 5.
`default_nettype none
`include "rowvit_buses.vh"

module rowvit_drain_residual #(
    // Rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64,
    // Bits of a row's number.
    parameter BANK_W = 1
) (
    input  wire                      clk_i,
    input  wire                      rst_ni,
    // the tile whose lanes are in stage 5, and whether its results come here
    input  wire [`T_QUEUE]           tile_i,
    input  wire                      residual_i,
    // stages 5 and 6: lanes, and the row of gathered ones
    input  wire                      valid5_i,
    input  wire                      valid6_i,
    input  wire [$clog2(LANES)-1:0]  lane5_i,
    input  wire [$clog2(LANES)-1:0]  lane6_i,
    input  wire [BANK_W-1:0]         row5_i,
    // stage 10: a lane for here, where it goes, and the row of a gathered one
    input  wire                      valid10_i,
    input  wire [ROWS*GROUPS-1:0]    active10_i,
    input  wire                      gather10_i,
    input  wire [BANK_W-1:0]         row10_i,
    input  wire [15:0]               addr10_i,
    input  wire [16*ROWS*GROUPS-1:0] y10_i,
    // residual memory; read data two cycles after res_rd_o
    output reg                       res_rd_o,
    output reg  [15:0]               res_raddr_o,
    input  wire [16*ROWS*GROUPS-1:0] res_rdata_i,
    output reg  [ROWS*GROUPS-1:0]    res_we_o,
    output reg                       res_busy_o,  // any of them, if its row and group exist
    output reg  [15:0]               res_waddr_o,
    output reg  [16*ROWS*GROUPS-1:0] res_wdata_o
);
  localparam N = ROWS * GROUPS;
  localparam LW = $clog2(LANES);

  // ---------------------------------------------------------------- stages 6 to 10: the sums before
  reg              to_res6_q, gather6_q;
  reg [BANK_W-1:0] bank6_q;
  reg [15:0]       base6_q;
  reg [9:7]        gathers_q;
  reg [3*BANK_W-1:0] banks_q;  // of stages 9 to 7
  reg [16*N-1:0]   old10_q;
  wire [BANK_W-1:0] bank9 = banks_q[2*BANK_W+:BANK_W];
  wire             gather = tile_i[`T_GATHER];
  wire [BANK_W*ROWS-1:0] bank = tile_i[`T_BANK];
  wire [16*ROWS-1:0] res_src = tile_i[`T_RES_SRC];
  always @(posedge clk_i) begin
    if (valid5_i && lane5_i == {LW{1'b0}}) begin
      to_res6_q <= residual_i;
      gather6_q <= gather;
      bank6_q   <= bank[BANK_W*row5_i+:BANK_W];
      base6_q   <= gather ? res_src[16*row5_i+:16] : tile_i[`T_DST];
    end
    res_rd_o    <= valid6_i && to_res6_q;
    res_raddr_o <= base6_q + {{(16 - LW) {1'b0}}, lane6_i};
    gathers_q   <= {gathers_q[8:7], gather6_q};
    banks_q     <= {banks_q[2*BANK_W-1:0], bank6_q};
    if (!rst_ni) res_rd_o <= 1'b0;
  end
  genvar r, g, i;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_old_row
      for (g = 0; g < GROUPS; g = g + 1) begin : g_old
        localparam I = r * GROUPS + g;
        wire [16*ROWS-1:0] sums;  // of the group
        for (i = 0; i < ROWS; i = i + 1) begin : g_bank
          assign sums[16*i+:16] = res_rdata_i[16*(i*GROUPS+g)+:16];
        end
        always @(posedge clk_i)
          old10_q[16*I+:16] <= gathers_q[9] ? sums[16*bank9+:16] : sums[16*r+:16];
      end
    end
  endgenerate

  // ---------------------------------------------------------------- stage 11: sums
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_sum_row
      for (g = 0; g < GROUPS; g = g + 1) begin : g_sum
        localparam I = r * GROUPS + g;
        wire signed [16:0] sum = {old10_q[16*I+15], old10_q[16*I+:16]}
                               + {y10_i[16*I+15], y10_i[16*I+:16]};
        always @(posedge clk_i) begin
          res_we_o[I] <= valid10_i && active10_i[I] && (!gather10_i || row10_i == r);
          res_wdata_o[16*I+:16] <= sum[16] == sum[15] ? sum[15:0] : {sum[16], {15{~sum[16]}}};
          if (!rst_ni) res_we_o[I] <= 1'b0;
        end
      end
    end
  endgenerate
  always @(posedge clk_i) begin
    res_busy_o <= valid10_i;
    res_waddr_o <= addr10_i;
    if (!rst_ni) res_busy_o <= 1'b0;
  end
endmodule
`default_nettype wire
