// SPDX-License-Identifier: Apache-2.0
// Two multiply-accumulators on one DSP48E1: P += (w1 * 2^17 + w0) * x, w in [-127, 127], |x| <= 256.
// A pair of weights comes as {w1 - (w0 < 0), w0}, so that its bytes side by side, w0 extended to 17
// bits, are that factor; the DSP's pre-adder picks the pair of port a or b.
// The low sum outgrows its 17 bits, so its wraps are counted outside the DSP: one product is less than
// a quarter of the field, hence a wrap is a step between its second and third quarter. Then
//   w = wraps - P[16],  low sum = w * 2^17 + P[16:0],  high sum = P[42:17] - w.
// Throughput 1 pair per cycle. Latency x_i to p_o 4, to wraps_o 5; first_i belongs to the product of the
// x_i three cycles before. Registers of what is not summed stand still.
`default_nettype none
module rowvit_mac_pair (
    input  wire               clk_i,
    input  wire signed [ 8:0] x_i,
    input  wire        [15:0] a_i,
    input  wire        [15:0] b_i,
    input  wire               use_b_i,
    input  wire        [ 3:0] en_i,     // x_i is a factor; so were those of one, two and three cycles before
    input  wire               first_i,  // start new sums
    output wire        [42:0] p_o,
    output reg         [ 8:0] wraps_o
);
  wire [24:0] a = {a_i[15:8], {9{a_i[7]}}, a_i[7:0]};
  wire [24:0] b = {b_i[15:8], {9{b_i[7]}}, b_i[7:0]};
  wire [47:0] p48;
  DSP48E1 #(
      .A_INPUT("DIRECT"), .B_INPUT("DIRECT"), .USE_DPORT("TRUE"), .USE_MULT("MULTIPLY"),
      .USE_SIMD("ONE48"), .AREG(1), .ACASCREG(1), .ADREG(1), .DREG(1), .BREG(2), .BCASCREG(2),
      .CREG(0), .MREG(1), .PREG(1), .ALUMODEREG(0), .CARRYINREG(0), .CARRYINSELREG(0),
      .INMODEREG(1), .OPMODEREG(0), .AUTORESET_PATDET("NO_RESET"), .MASK(48'h3fffffffffff),
      .PATTERN(48'h0), .SEL_MASK("MASK"), .SEL_PATTERN("PATTERN"), .USE_PATTERN_DETECT("NO_PATDET")
  ) u_dsp (
      .CLK(clk_i), .A({{5{a[24]}}, a}), .D(b), .B({{9{x_i[8]}}, x_i}),
      .C(48'd0), .INMODE({2'b00, use_b_i, use_b_i, 1'b0}),
      .OPMODE({1'b0, !first_i, 5'b00101}), .ALUMODE(4'b0000),
      .CARRYIN(1'b0), .CARRYINSEL(3'b000), .ACIN(30'd0), .BCIN(18'd0), .PCIN(48'd0),
      .CARRYCASCIN(1'b0), .MULTSIGNIN(1'b0),
      .CEA1(1'b0), .CEA2(en_i[0]), .CEAD(en_i[1]), .CEALUMODE(1'b1), .CEB1(en_i[0]), .CEB2(en_i[1]),
      .CEC(1'b0), .CECARRYIN(1'b0), .CECTRL(1'b1), .CED(en_i[0]), .CEINMODE(1'b1), .CEM(en_i[2]),
      .CEP(en_i[3]), .RSTA(1'b0), .RSTALLCARRYIN(1'b0), .RSTALUMODE(1'b0), .RSTB(1'b0),
      .RSTC(1'b0), .RSTCTRL(1'b0), .RSTD(1'b0), .RSTINMODE(1'b0), .RSTM(1'b0), .RSTP(1'b0),
      .P(p48), .ACOUT(), .BCOUT(), .PCOUT(), .CARRYCASCOUT(), .CARRYOUT(), .MULTSIGNOUT(),
      .OVERFLOW(), .UNDERFLOW(), .PATTERNBDETECT(), .PATTERNDETECT()
  );
  assign p_o = p48[42:0];

  // The quarter of the low field after this product and before it.
  reg       en_q, first_q;
  reg [1:0] before_q;
  wire      up   = before_q == 2'b01 && p_o[16:15] == 2'b10;
  wire      down = before_q == 2'b10 && p_o[16:15] == 2'b01;
  always @(posedge clk_i) begin
    en_q    <= en_i[3];
    first_q <= first_i;
    if (en_q) before_q <= p_o[16:15];
    if (first_q) wraps_o <= 9'd0;
    else if (en_q) wraps_o <= wraps_o + {{8{down}}, up | down};
  end
endmodule
`default_nettype wire
