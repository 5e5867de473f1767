// SPDX-License-Identifier: Apache-2.0
// Weight lines of one group. Port A reads. Port B takes byte-masked writes (loads, K^T and V),
// and in cycles without one reads for the odd rows of a band, when the rows walk different lists.
// Throughput 1 read and 1 read or write per cycle, latency 1. True dual port block RAM.
`default_nettype none
module rowvit_weight_memory #(
    // Lanes of a group.
    parameter LANES = 64,
    // Lines.
    parameter DEPTH = 1024,
    // Bits of a line's number.
    parameter AW = 10
) (
    input  wire               clk_i,
    input  wire               a_en_i,
    input  wire [AW-1:0]      a_addr_i,
    output reg  [8*LANES-1:0] a_data_o,
    input  wire               b_en_i,
    input  wire [LANES-1:0]   b_we_i,    // none set: read
    input  wire [AW-1:0]      b_addr_i,
    input  wire [8*LANES-1:0] b_data_i,
    output reg  [8*LANES-1:0] b_data_o
);
  reg [8*LANES-1:0] mem_q [0:DEPTH-1];

  always @(posedge clk_i) if (a_en_i) a_data_o <= mem_q[a_addr_i];

  integer i;
  always @(posedge clk_i)
    if (b_en_i) begin
      for (i = 0; i < LANES; i = i + 1)
        if (b_we_i[i]) mem_q[b_addr_i][8*i+:8] <= b_data_i[8*i+:8];
      b_data_o <= mem_q[b_addr_i];
    end
endmodule
`default_nettype wire
