// SPDX-License-Identifier: Apache-2.0
// The arithmetic of rowvit_cluster as simulators take it: a product and a sum of 32 bits per lane, side by
// side, where the FPGA has DSPs with two lanes each. The shadow is the same in every cycle.
// Throughput LANES MAC per cycle. Latency x_i/a_i/b_i to the sums 4; en_i, first_i and last_i belong to the
// x_i three cycles before.
`default_nettype none
module rowvit_cluster_twin #(
    // Lanes of a group.
    parameter LANES = 64
) (
    input  wire                clk_i,
    input  wire                en_i,
    input  wire                first_i,
    input  wire                last_i,
    input  wire signed [8:0]   x_i,
    input  wire [8*LANES-1:0]  a_i,
    input  wire [8*LANES-1:0]  b_i,
    input  wire                use_b_i,
    output reg  [26*LANES-1:0] shadow_o
);
  reg [8*LANES-1:0] w1_q, w2_q, w3_q;
  reg signed [8:0] x1_q, x2_q, x3_q;
  reg [32*LANES-1:0] sums_q;
  reg sum_q, wraps_too_q;
  reg [9*LANES/2-1:0] wraps_q;
  wire [31:0] x = {{23{x3_q[8]}}, x3_q};

  integer l;
  always @(posedge clk_i) begin
    w1_q <= use_b_i ? b_i : a_i;
    w2_q <= w1_q;
    w3_q <= w2_q;
    x1_q <= x_i;
    x2_q <= x1_q;
    x3_q <= x2_q;
    if (en_i) begin
      for (l = 0; l < LANES; l = l + 2) begin
        sums_q[32*l+:32] <= (first_i ? 32'd0 : sums_q[32*l+:32])
            + {{24{w3_q[8*l+7]}}, w3_q[8*l+:8]} * x;
        // the odd weight of a pair is less by one where the even one is negative
        sums_q[32*l+32+:32] <= (first_i ? 32'd0 : sums_q[32*l+32+:32])
            + ({{24{w3_q[8*l+15]}}, w3_q[8*l+8+:8]} + {31'd0, w3_q[8*l+7]}) * x;
      end
    end

    sum_q       <= last_i;
    wraps_too_q <= sum_q;
    for (l = 0; l < LANES; l = l + 2) begin
      if (sum_q) begin
        shadow_o[26*l+:17]    <= sums_q[32*l+:17];
        shadow_o[26*l+17+:26] <= sums_q[32*l+32+:26] + {{11{sums_q[32*l+31]}}, sums_q[32*l+17+:15]};
        wraps_q[9*l/2+:9]     <= sums_q[32*l+17+:9] + {8'd0, sums_q[32*l+16]};
      end
      if (wraps_too_q) shadow_o[26*l+43+:9] <= wraps_q[9*l/2+:9];
    end
  end
endmodule
`default_nettype wire
