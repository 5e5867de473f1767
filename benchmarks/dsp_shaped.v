// SPDX-License-Identifier: Apache-2.0
// What rowvit_mac_pair.v uses of a DSP48E1, as a chip would have it: P += (A or D) * x, with the same registers and
// enables, for x of 9 bits. For the count of gates in paper.py; other ports and parameters do nothing.
`default_nettype none
module DSP48E1 #(
    parameter A_INPUT = "DIRECT", B_INPUT = "DIRECT", USE_DPORT = "FALSE", USE_MULT = "MULTIPLY",
    parameter USE_SIMD = "ONE48", AUTORESET_PATDET = "NO_RESET", SEL_MASK = "MASK",
    parameter SEL_PATTERN = "PATTERN", USE_PATTERN_DETECT = "NO_PATDET",
    parameter AREG = 1, ACASCREG = 1, ADREG = 1, DREG = 1, BREG = 1, BCASCREG = 1, CREG = 1, MREG = 1,
    parameter PREG = 1, ALUMODEREG = 1, CARRYINREG = 1, CARRYINSELREG = 1, INMODEREG = 1, OPMODEREG = 1,
    parameter [47:0] MASK = 48'h3fffffffffff, PATTERN = 48'h0
) (
    input  wire [29:0] A, ACIN,
    input  wire [17:0] B, BCIN,
    input  wire [47:0] C, PCIN,
    input  wire [24:0] D,
    input  wire [ 6:0] OPMODE,
    input  wire [ 4:0] INMODE,
    input  wire [ 3:0] ALUMODE,
    input  wire [ 2:0] CARRYINSEL,
    input  wire CARRYIN, CARRYCASCIN, MULTSIGNIN, CLK,
    input  wire CEA1, CEA2, CEAD, CEALUMODE, CEB1, CEB2, CEC, CECARRYIN, CECTRL, CED, CEINMODE, CEM, CEP,
    input  wire RSTA, RSTALLCARRYIN, RSTALUMODE, RSTB, RSTC, RSTCTRL, RSTD, RSTINMODE, RSTM, RSTP,
    output wire [29:0] ACOUT,
    output wire [17:0] BCOUT,
    output wire [47:0] P, PCOUT,
    output wire [ 3:0] CARRYOUT,
    output wire CARRYCASCOUT, MULTSIGNOUT, OVERFLOW, UNDERFLOW, PATTERNBDETECT, PATTERNDETECT
);
  reg signed [24:0] a_q, d_q, ad_q;
  reg signed [ 8:0] x1_q, x2_q;
  reg signed [33:0] m_q;
  reg signed [42:0] p_q;
  reg               use_d_q;
  assign P = {{5{p_q[42]}}, p_q};
  always @(posedge CLK) begin
    if (CEA2) a_q <= A[24:0];
    if (CED) d_q <= D;
    if (CEINMODE) use_d_q <= INMODE[2];
    if (CEAD) ad_q <= use_d_q ? d_q : a_q;
    if (CEB1) x1_q <= B[8:0];
    if (CEB2) x2_q <= x1_q;
    if (CEM) m_q <= ad_q * x2_q;
    if (CEP) p_q <= (OPMODE[5] ? p_q : 43'sd0) + m_q;
  end
endmodule
`default_nettype wire
