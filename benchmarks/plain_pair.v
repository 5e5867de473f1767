// SPDX-License-Identifier: Apache-2.0
// A pair of lanes without a DSP's packing, as a chip could have it in place of rowvit_mac_pair.v: two multipliers
// of 8 x 9 bits and two sums, with the same registers and enables. For the count of gates in paper.py.
`default_nettype none
module plain_pair (
    input  wire               clk_i,
    input  wire signed [ 8:0] x_i,
    input  wire        [15:0] a_i,      // two weights
    input  wire        [15:0] b_i,
    input  wire               use_b_i,
    input  wire        [ 3:0] en_i,     // x_i is a factor; so were those of one, two and three cycles before
    input  wire               first_i,  // start new sums
    output reg signed  [25:0] low_o,
    output reg signed  [25:0] high_o
);
  reg        [15:0] a_q, b_q, w_q;
  reg               use_b_q;
  reg signed [ 8:0] x1_q, x2_q;
  reg signed [16:0] low_q, high_q;  // products
  always @(posedge clk_i) begin
    use_b_q <= use_b_i;
    if (en_i[0]) begin
      a_q  <= a_i;
      b_q  <= b_i;
      x1_q <= x_i;
    end
    if (en_i[1]) begin
      w_q  <= use_b_q ? b_q : a_q;
      x2_q <= x1_q;
    end
    if (en_i[2]) begin
      low_q  <= $signed(w_q[7:0]) * x2_q;
      high_q <= $signed(w_q[15:8]) * x2_q;
    end
    if (en_i[3]) begin
      low_o  <= (first_i ? 26'sd0 : low_o) + low_q;
      high_o <= (first_i ? 26'sd0 : high_o) + high_q;
    end
  end
endmodule
`default_nettype wire
