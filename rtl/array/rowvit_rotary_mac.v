// SPDX-License-Identifier: Apache-2.0
// A DSP48E1 that adds two products: P = (first ? ROUND : P) + a * b.
// Throughput 1 product per cycle. Latency REGS + 2 from a_i and b_i to p_o; first_i belongs to those of REGS
// cycles before.
`default_nettype none
module rowvit_rotary_mac #(
    // Registers before the multiplier, 1 or 2.
    parameter REGS = 1,
    // What a sum begins with.
    parameter [47:0] ROUND = 0,
    // 1: DSP48E1 instance, 0: its behavioural twin.
    parameter USE_DSP = 0
) (
    input  wire               clk_i,
    input  wire signed [19:0] a_i,
    input  wire signed [15:0] b_i,
    input  wire               first_i,
    output wire signed [47:0] p_o
);
  generate
    if (REGS != 1 && REGS != 2) begin : g_bad_regs
      illegal_parameter_rotary_mac_regs_must_be_1_or_2 u_bad ();
    end
    if (USE_DSP != 0) begin : g_dsp
      DSP48E1 #(
          .A_INPUT("DIRECT"), .B_INPUT("DIRECT"), .USE_DPORT("FALSE"), .USE_MULT("MULTIPLY"),
          .USE_SIMD("ONE48"), .AREG(REGS), .ACASCREG(REGS), .ADREG(0), .DREG(0), .BREG(REGS), .BCASCREG(REGS),
          .CREG(0), .MREG(1), .PREG(1), .ALUMODEREG(0), .CARRYINREG(0), .CARRYINSELREG(0),
          .INMODEREG(0), .OPMODEREG(1), .AUTORESET_PATDET("NO_RESET"), .MASK(48'h3fffffffffff),
          .PATTERN(48'h0), .SEL_MASK("MASK"), .SEL_PATTERN("PATTERN"), .USE_PATTERN_DETECT("NO_PATDET")
      ) u_dsp (
          .CLK(clk_i), .A({{10{a_i[19]}}, a_i}), .D(25'd0), .B({{2{b_i[15]}}, b_i}),
          .C(ROUND), .INMODE(5'b00000),
          .OPMODE({2'b01, first_i, 4'b0101}), .ALUMODE(4'b0000),
          .CARRYIN(1'b0), .CARRYINSEL(3'b000), .ACIN(30'd0), .BCIN(18'd0), .PCIN(48'd0),
          .CARRYCASCIN(1'b0), .MULTSIGNIN(1'b0),
          .CEA1(1'b1), .CEA2(1'b1), .CEAD(1'b0), .CEALUMODE(1'b1), .CEB1(1'b1), .CEB2(1'b1),
          .CEC(1'b0), .CECARRYIN(1'b0), .CECTRL(1'b1), .CED(1'b0), .CEINMODE(1'b1), .CEM(1'b1),
          .CEP(1'b1), .RSTA(1'b0), .RSTALLCARRYIN(1'b0), .RSTALUMODE(1'b0), .RSTB(1'b0),
          .RSTC(1'b0), .RSTCTRL(1'b0), .RSTD(1'b0), .RSTINMODE(1'b0), .RSTM(1'b0), .RSTP(1'b0),
          .P(p_o), .ACOUT(), .BCOUT(), .PCOUT(), .CARRYCASCOUT(), .CARRYOUT(), .MULTSIGNOUT(),
          .OVERFLOW(), .UNDERFLOW(), .PATTERNBDETECT(), .PATTERNDETECT()
      );
    end else begin : g_twin
      reg signed [19:0] a1_q, a2_q;
      reg signed [15:0] b1_q, b2_q;
      reg signed [35:0] m_q;
      reg signed [47:0] p_q;
      reg               first_q;
      assign p_o = p_q;
      always @(posedge clk_i) begin
        a1_q    <= a_i;
        b1_q    <= b_i;
        a2_q    <= a1_q;
        b2_q    <= b1_q;
        m_q     <= REGS == 2 ? a2_q * b2_q : a1_q * b1_q;
        first_q <= first_i;
        p_q     <= (first_q ? $signed(ROUND) : p_q) + $signed({{12{m_q[35]}}, m_q});
      end
    end
  endgenerate
endmodule
`default_nettype wire
