// SPDX-License-Identifier: Apache-2.0
// Requantiser of one accumulator: sat16(rsr(sat25(acc + bias) * mult, shift)), numerics.md section 3.
// Throughput 1 per cycle, latency 7. One DSP48E1.
`default_nettype none
module rowvit_requant (
    input  wire               clk_i,
    input  wire signed [25:0] acc_i,
    input  wire signed [25:0] bias_i,
    input  wire        [16:0] mult_i,
    input  wire        [ 5:0] shift_i,  // 1..47
    output reg  signed [15:0] y_o
);
  reg signed [26:0] sum_q;
  wire              fits = sum_q[26:24] == 3'b000 || sum_q[26:24] == 3'b111;
  reg        [16:0] mult_q;
  reg        [ 5:0] s0_q;

  reg signed [24:0] v_q;
  reg signed [17:0] m_q;
  reg signed [42:0] p1_q, p2_q;
  reg signed [43:0] c_q;
  reg        [ 5:0] s1_q, s2_q, s3_q;
  reg        [ 2:0] s4_q;

  // The bit below the result rounds it: floor(v / 2^s + 1/2) is the shifted value plus that bit.
  wire signed [43:0] fine = c_q >>> s4_q;
  reg                sign_q, over_q;  // of all of it; it has more bits than fine_q
  reg         [17:0] fine_q;
  wire signed [16:0] y = fine_q[17:1] + {16'd0, fine_q[0]};

  always @(posedge clk_i) begin
    sum_q  <= {acc_i[25], acc_i} + {bias_i[25], bias_i};
    mult_q <= mult_i;
    s0_q   <= shift_i;
    v_q  <= fits ? sum_q[24:0] : {sum_q[26], {24{~sum_q[26]}}};
    m_q  <= {1'b0, mult_q};
    s1_q <= s0_q;
    p1_q <= v_q * m_q;
    s2_q <= s1_q;
    p2_q <= p1_q;
    s3_q <= s2_q;
    c_q  <= $signed({p2_q, 1'b0}) >>> {s3_q[5:3], 3'b000};
    s4_q <= s3_q[2:0];
    sign_q <= fine[43];
    over_q <= fine[43:17] != {27{fine[43]}};
    fine_q <= fine[17:0];
    y_o  <= over_q || y[16] != y[15] ? {sign_q, {15{~sign_q}}} : y[15:0];
  end
endmodule
`default_nettype wire
