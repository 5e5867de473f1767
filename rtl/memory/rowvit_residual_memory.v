// SPDX-License-Identifier: Apache-2.0
// Residual stream: one bank of int16 per row of a band and group, all at one address.
// Write clients: the drain, which is never refused, and the position table.
// Read clients: the drain, which is never refused, and the norm engine.
// Throughput 1 read and 1 write of every bank per cycle, latency 2.
`default_nettype none
module rowvit_residual_memory #(
    // ROWS * GROUPS.
    parameter BANKS = 6,
    // int16 per bank.
    parameter DEPTH = 1024,
    // Of the RAM: "auto" leaves it to the size; "block", "distributed" (LUT RAM), "ultra".
    parameter RAM_STYLE = "auto"
) (
    input  wire                clk_i,
    input  wire                drain_busy_i,  // its turn to write
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
  localparam AW = $clog2(DEPTH);

  generate
    if (DEPTH < 2 || DEPTH > 65536) begin : g_bad_depth
      illegal_parameter_residual_memory_depth_must_be_from_2_to_65536 u_bad ();
    end
  endgenerate

  wire [15:0] waddr = load_ready_o ? load_waddr_i : drain_waddr_i;
  wire [15:0] raddr = drain_rd_i ? drain_raddr_i : norm_raddr_i;
  assign norm_rd_ready_o = !drain_rd_i;
  assign load_ready_o = !drain_busy_i;
  wire rd = drain_rd_i || norm_rd_i;

  genvar b;
  generate
    for (b = 0; b < BANKS; b = b + 1) begin : g_bank
      wire we = load_ready_o ? load_we_i : drain_we_i[b];
      wire [15:0] wdata = load_ready_o ? load_wdata_i[16*b+:16] : drain_wdata_i[16*b+:16];
      rowvit_split_ram #(
          .WIDTH(16),
          .DEPTH(DEPTH),
          .AW   (AW),
          .RAM_STYLE(RAM_STYLE),
          .OUT_REG(1)
      ) u_ram (
          .clk_i(clk_i),
          .we_i(we), .waddr_i(waddr[AW-1:0]), .wdata_i(wdata),
          .re_i(rd), .raddr_i(raddr[AW-1:0]), .rdata_o(rdata_o[16*b+:16])
      );
    end
  endgenerate
endmodule
`default_nettype wire
