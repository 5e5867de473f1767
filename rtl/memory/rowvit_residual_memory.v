// SPDX-License-Identifier: Apache-2.0
// Residual stream: one bank of int16 per row of a band and group, all at one address.
// Write clients: the drain, which is never refused, and the position table.
// Read clients: the drain, which is never refused, and the norm engine.
// Throughput 1 read and 1 write of every bank per cycle, latency 1.
// Resources: a bank of 2048 words is a RAMB36; a rest of at most 1024 words is half of one; about
// 270 LUT at 6 banks.
`default_nettype none
module rowvit_residual_memory #(
    parameter BANKS = 6,    // ROWS * GROUPS
    parameter DEPTH = 1024  // int16 per bank
) (
    input  wire                clk_i,
    input  wire [BANKS-1:0]    drain_we_i,
    input  wire [15:0]         drain_waddr_i,
    input  wire [16*BANKS-1:0] drain_wdata_i,
    input  wire                load_we_i,
    output wire                load_ready_o,
    input  wire [15:0]         load_waddr_i,
    input  wire [16*BANKS-1:0] load_wdata_i,
    input  wire                drain_rd_i,
    input  wire [15:0]         drain_raddr_i,
    input  wire                norm_rd_i,
    output wire                norm_rd_ready_o,
    input  wire [15:0]         norm_raddr_i,
    output wire [16*BANKS-1:0] rdata_o
);
  localparam WHOLE = DEPTH % 2048 <= 1024 && DEPTH > 2048 ? DEPTH - DEPTH % 2048 : DEPTH;
  localparam REST = DEPTH - WHOLE;
  localparam AW = $clog2(WHOLE);
  wire [15:0] waddr = load_ready_o ? load_waddr_i : drain_waddr_i;
  wire [15:0] raddr = drain_rd_i ? drain_raddr_i : norm_raddr_i;
  assign norm_rd_ready_o = !drain_rd_i;
  assign load_ready_o = drain_we_i == {BANKS{1'b0}};
  wire rd = drain_rd_i || norm_rd_i;

  genvar b;
  generate
    for (b = 0; b < BANKS; b = b + 1) begin : g_bank
      wire we = load_ready_o ? load_we_i : drain_we_i[b];
      wire [15:0] wdata = load_ready_o ? load_wdata_i[16*b+:16] : drain_wdata_i[16*b+:16];
      wire [15:0] rdata;
      rowvit_sdp_ram #(
          .WIDTH(16),
          .DEPTH(WHOLE),
          .AW   (AW)
      ) u_ram (
          .clk_i(clk_i),
          .we_i(we && {16'd0, waddr} < WHOLE), .waddr_i(waddr[AW-1:0]), .wdata_i(wdata),
          .re_i(rd), .raddr_i(raddr[AW-1:0]), .rdata_o(rdata)
      );
      if (REST == 0) begin : g_whole
        assign rdata_o[16*b+:16] = rdata;
      end else begin : g_rest
        wire [15:0] rest;
        reg         in_rest_q;
        always @(posedge clk_i) if (rd) in_rest_q <= {16'd0, raddr} >= WHOLE;
        rowvit_sdp_ram #(
            .WIDTH(16),
            .DEPTH(REST),
            .AW   ($clog2(REST))
        ) u_rest (
            .clk_i(clk_i),
            .we_i(we && {16'd0, waddr} >= WHOLE), .waddr_i(waddr[$clog2(REST)-1:0]), .wdata_i(wdata),
            .re_i(rd), .raddr_i(raddr[$clog2(REST)-1:0]), .rdata_o(rest)
        );
        assign rdata_o[16*b+:16] = in_rest_q ? rest : rdata;
      end
    end
  endgenerate
endmodule
`default_nettype wire
