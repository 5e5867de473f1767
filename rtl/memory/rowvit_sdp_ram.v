// SPDX-License-Identifier: Apache-2.0
// Simple dual port memory: one write port, one registered read port. A read of the word that is
// being written returns the old word. Throughput 1 read and 1 write per cycle, latency 1, or 2 with the
// output register, which is free in a block RAM.
// RAM_STYLE: "auto" leaves it to the size; "block", "distributed" (LUT RAM), "ultra".
`default_nettype none
module rowvit_sdp_ram #(
    // Bits of a word.
    parameter WIDTH = 64,
    // Words; a power of two.
    parameter DEPTH = 512,
    // Bits of an address.
    parameter AW = 9,
    // Of the RAM: "auto" leaves it to the size; "block", "distributed" (LUT RAM), "ultra".
    parameter RAM_STYLE = "auto",
    // 1: with an output register.
    parameter OUT_REG = 0
) (
    input  wire             clk_i,
    input  wire             we_i,
    input  wire [AW-1:0]    waddr_i,
    input  wire [WIDTH-1:0] wdata_i,
    input  wire             re_i,
    input  wire [AW-1:0]    raddr_i,
    output wire [WIDTH-1:0] rdata_o
);
  (* ram_style = RAM_STYLE *) reg [WIDTH-1:0] mem_q [0:DEPTH-1];

  generate
    if (DEPTH != 1 << AW) begin : g_bad_depth
      illegal_parameter_sdp_ram_depth_must_be_a_power_of_two u_bad ();
    end
  endgenerate

  reg [WIDTH-1:0] read_q;
  always @(posedge clk_i) begin
    if (we_i) mem_q[waddr_i] <= wdata_i;
    if (re_i) read_q <= mem_q[raddr_i];
  end
  generate
    if (OUT_REG != 0) begin : g_out
      reg [WIDTH-1:0] out_q;
      always @(posedge clk_i) out_q <= read_q;
      assign rdata_o = out_q;
    end else begin : g_out
      assign rdata_o = read_q;
    end
  endgenerate
endmodule
`default_nettype wire
