// SPDX-License-Identifier: Apache-2.0
// Two int8 x int9 products per cycle on one DSP48E1: (w1 * 2^17 + w0) * x, split into two fields;
// a negative low field borrows one from the high field. w in [-127, 127].
// Throughput 1 pair per cycle, latency 4. Resources: 1 DSP48E1 (USE_DSP = 0: the behavioural twin that
// simulators take). The pipeline has no enables: flags travel beside it.
`default_nettype none
module mac_pair #(
    parameter USE_DSP = 0  // 1: DSP48E1 primitive; 0: behavioural twin
) (
    input  wire               clk_i,
    input  wire signed [ 8:0] x_i,
    input  wire signed [ 7:0] w0_i,
    input  wire signed [ 7:0] w1_i,
    output wire        [16:0] p0_o,     // w0 * x
    output wire        [16:0] p1_o,     // w1 * x - borrow_o
    output wire               borrow_o
);
  // One product has at most 16 bits (127 * 256); the spacing of 17 leaves the low field its sign.
  wire [33:0] p;

  assign p0_o = p[16:0];
  assign p1_o = p[33:17];
  assign borrow_o = p[16];

  generate
    if (USE_DSP != 0) begin : g_dsp
      wire [47:0] p48;
      /* verilator lint_off PINCONNECTEMPTY */
      DSP48E1 #(
          .A_INPUT("DIRECT"), .B_INPUT("DIRECT"), .USE_DPORT("TRUE"), .USE_MULT("MULTIPLY"),
          .USE_SIMD("ONE48"), .AREG(1), .ACASCREG(1), .ADREG(1), .DREG(1), .BREG(2), .BCASCREG(2),
          .CREG(0), .MREG(1), .PREG(1), .ALUMODEREG(0), .CARRYINREG(0), .CARRYINSELREG(0),
          .INMODEREG(0), .OPMODEREG(0), .AUTORESET_PATDET("NO_RESET"), .MASK(48'h3fffffffffff),
          .PATTERN(48'h0), .SEL_MASK("MASK"), .SEL_PATTERN("PATTERN"), .USE_PATTERN_DETECT("NO_PATDET")
      ) u_dsp (
          .CLK(clk_i), .A({{22{w0_i[7]}}, w0_i}), .D({w1_i, 17'd0}), .B({{9{x_i[8]}}, x_i}),
          .C(48'd0), .INMODE(5'b00100), .OPMODE(7'b0000101), .ALUMODE(4'b0000),
          .CARRYIN(1'b0), .CARRYINSEL(3'b000), .ACIN(30'd0), .BCIN(18'd0), .PCIN(48'd0),
          .CARRYCASCIN(1'b0), .MULTSIGNIN(1'b0),
          .CEA1(1'b0), .CEA2(1'b1), .CEAD(1'b1), .CEALUMODE(1'b1), .CEB1(1'b1), .CEB2(1'b1),
          .CEC(1'b0), .CECARRYIN(1'b0), .CECTRL(1'b1), .CED(1'b1), .CEINMODE(1'b1), .CEM(1'b1),
          .CEP(1'b1), .RSTA(1'b0), .RSTALLCARRYIN(1'b0), .RSTALUMODE(1'b0), .RSTB(1'b0),
          .RSTC(1'b0), .RSTCTRL(1'b0), .RSTD(1'b0), .RSTINMODE(1'b0), .RSTM(1'b0), .RSTP(1'b0),
          .P(p48), .ACOUT(), .BCOUT(), .PCOUT(), .CARRYCASCOUT(), .CARRYOUT(), .MULTSIGNOUT(),
          .OVERFLOW(), .UNDERFLOW(), .PATTERNBDETECT(), .PATTERNDETECT()
      );
      /* verilator lint_on PINCONNECTEMPTY */
      assign p = p48[33:0];
    end else begin : g_twin
      reg signed [ 7:0] a_q, d_q;
      reg signed [ 8:0] b1_q, b2_q;
      reg signed [24:0] ad_q;
      reg signed [33:0] m_q, p_q;
      always @(posedge clk_i) begin
        a_q  <= w0_i;
        d_q  <= w1_i;
        b1_q <= x_i;
        b2_q <= b1_q;
        ad_q <= {d_q, 17'd0} + {{17{a_q[7]}}, a_q};
        m_q  <= ad_q * b2_q;
        p_q  <= m_q;
      end
      assign p = p_q;
    end
  endgenerate
endmodule
`default_nettype wire
