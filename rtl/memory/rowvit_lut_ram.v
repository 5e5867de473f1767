// SPDX-License-Identifier: Apache-2.0
// Single port memory in LUT RAM, in four banks, so that no path leads through all of it: every bank is read
// into a register, and one of these is selected in the next step. Reads move with en_i, writes do not.
// Throughput: a read or a write per cycle. Latency: 2 cycles with en_i.
`default_nettype none

module rowvit_lut_ram #(
    // Bits of a word.
    parameter WIDTH = 16,
    // Words, at least 8.
    parameter DEPTH = 512,
    // Bits of an address: no other number.
    parameter AW = $clog2(DEPTH)
) (
    input  wire             clk_i,
    input  wire             en_i,
    input  wire             we_i,
    input  wire [AW-1:0]    addr_i,
    input  wire [WIDTH-1:0] wdata_i,
    output reg  [WIDTH-1:0] rdata_o
);
  generate
    if (DEPTH < 8) begin : g_bad_depth
      illegal_parameter_lut_ram_depth_must_be_at_least_8 u_bad();
    end
    if (AW != $clog2(DEPTH)) begin : g_bad_aw
      illegal_parameter_lut_ram_aw_must_be_clog2_of_depth u_bad();
    end
  endgenerate

  localparam BW = AW - 2;
  localparam BANKS = (DEPTH + (1 << BW) - 1) >> BW;
  wire [WIDTH*4-1:0] read;
  genvar b;
  generate
    for (b = 0; b < 4; b = b + 1) begin : g_bank
      if (b < BANKS) begin : g_used
        (* ram_style = "distributed" *) reg [WIDTH-1:0] mem_q [0:(1<<BW)-1];
        reg [WIDTH-1:0] read_q;
        always @(posedge clk_i) begin
          if (we_i && addr_i[AW-1:BW] == b) mem_q[addr_i[BW-1:0]] <= wdata_i;
          if (en_i) read_q <= mem_q[addr_i[BW-1:0]];
        end
        assign read[WIDTH*b+:WIDTH] = read_q;
      end else begin : g_none
        assign read[WIDTH*b+:WIDTH] = {WIDTH{1'b0}};
      end
    end
  endgenerate

  reg [1:0] bank_q;
  always @(posedge clk_i) begin
    if (en_i) begin
      bank_q <= addr_i[AW-1:BW];
      rdata_o <= read[WIDTH*bank_q+:WIDTH];
    end
  end
endmodule

`default_nettype wire
