// SPDX-License-Identifier: Apache-2.0
// The table of rotations, of which every row of a band reads an entry. Two rows share a true dual port block
// RAM; it is written through the first one's port.
// Throughput: an entry per row and cycle. Latency 2.
`default_nettype none
module rowvit_rotary_table #(
    // Rows of a band, an even number.
    parameter ROWS = 2,
    // Bits of an entry's number.
    parameter AW = 10
) (
    input  wire               clk_i,
    input  wire               we_i,
    input  wire [AW-1:0]      waddr_i,
    input  wire [31:0]        wdata_i,
    input  wire               read_i,
    input  wire [AW*ROWS-1:0] addr_i,
    output wire [32*ROWS-1:0] data_o
);
  genvar r;
  generate
    if (ROWS % 2 != 0) begin : g_bad_rows
      illegal_parameter_rotary_table_rows_must_be_even u_bad ();
    end
    for (r = 0; r < ROWS; r = r + 2) begin : g_pair
      (* ram_style = "block" *) reg [31:0] mem_q [0:(1<<AW)-1];
      reg  [31:0]   a_q, b_q, a_out_q, b_out_q;
      wire [AW-1:0] a = we_i ? waddr_i : addr_i[AW*r+:AW];
      always @(posedge clk_i) begin
        if (we_i || read_i) begin
          if (we_i) mem_q[a] <= wdata_i;
          a_q <= mem_q[a];
        end
      end
      always @(posedge clk_i) if (read_i) b_q <= mem_q[addr_i[AW*(r+1)+:AW]];
      always @(posedge clk_i) {a_out_q, b_out_q} <= {a_q, b_q};
      assign data_o[32*r+:64] = {b_out_q, a_out_q};
    end
  endgenerate
endmodule
`default_nettype wire
