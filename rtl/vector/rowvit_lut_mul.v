// SPDX-License-Identifier: Apache-2.0
// Signed multiplier without DSP48: radix-4 Booth rows added one below the other, one LUT per bit and
// row, PER_STAGE rows between registers. p = a * b + ROUND.
// Throughput: one per cycle (en_i holds every stage). Latency: ceil(ceil(BW / 2) / PER_STAGE) cycles.
// Under Verilator the product is computed in one piece; the tests compare both forms.
`default_nettype none

module rowvit_lut_mul #(
    // Bits of a.
    parameter AW = 16,
    // Bits of b, which is cut into rows.
    parameter BW = 16,
    // Rows between registers.
    parameter PER_STAGE = 3,
    // Constant added to the product, from 0 to 2^(AW-1).
    parameter [63:0] ROUND = 0
) (
    input  wire             clk_i,
    input  wire             en_i,
    input  wire [AW-1:0]    a_i,
    input  wire [BW-1:0]    b_i,
    output wire [AW+BW-1:0] p_o
);
  localparam ROWS = (BW + 1) / 2;
  localparam STAGES = (ROWS + PER_STAGE - 1) / PER_STAGE;

`ifdef VERILATOR
  localparam PW = AW + BW;
  reg [PW*STAGES-1:0] p_q;
  wire [PW-1:0] a = {{BW{a_i[AW-1]}}, a_i};
  wire [PW-1:0] b = {{AW{b_i[BW-1]}}, b_i};
  assign p_o = p_q[PW*(STAGES-1)+:PW];
  always @(posedge clk_i) begin
    if (en_i) begin
      p_q <= p_q << PW;
      p_q[PW-1:0] <= a * b + ROUND[PW-1:0];
    end
  end
`else
  localparam SW = AW + 2;      // a row sum: below 4/3 * 2^AW in magnitude
  localparam B = 2 * ROWS + 1; // b, sign extended, and a zero below it

  // Between stages: a, b, the sum of the rows so far without the bits below the next row, and
  // those bits. Stage s reads slice s. What b says of its rows has been decoded in the stage before,
  // which also keeps b's last register out of a shift register in LUTs, whose output is late.
  wire [AW*(STAGES+1)-1:0]     a_s;
  wire [B*(STAGES+1)-1:0]      b_s;
  wire [SW*(STAGES+1)-1:0]     sum_s;
  wire [2*ROWS*(STAGES+1)-1:0] low_s;
  assign a_s[0+:AW] = a_i;
  assign b_s[0+:B] = {{(2 * ROWS - BW + 1){b_i[BW-1]}}, b_i[BW-2:0], 1'b0};
  assign sum_s[0+:SW] = ROUND[SW-1:0];
  assign low_s[0+:2*ROWS] = 0;

  genvar s, r;
  generate
    for (s = 0; s < STAGES; s = s + 1) begin : g_stage
      localparam FIRST = PER_STAGE * s;
      localparam COUNT = ROWS - FIRST < PER_STAGE ? ROWS - FIRST : PER_STAGE;
      wire [AW-1:0] a = a_s[AW*s+:AW];
      wire [B-1:0] b = b_s[B*s+:B];
      wire [SW*(COUNT+1)-1:0] sum;
      wire [2*ROWS-1:0] low;
      assign sum[0+:SW] = sum_s[SW*s+:SW];
      for (r = 0; r < COUNT; r = r + 1) begin : g_row
        localparam K = FIRST + r;
        wire [2:0] digit = b_s[B*(s==0?0:s-1)+2*K+:3];
        wire [2:0] code = {digit[2], digit == 3'b011 || digit == 3'b100, digit[1] ^ digit[0]};
        wire negative, two, one;
        if (s == 0) begin : g_code
          assign {negative, two, one} = code;
        end else begin : g_code
          reg [2:0] code_q;
          always @(posedge clk_i) if (en_i) code_q <= code;
          assign {negative, two, one} = code_q;
        end
        wire [SW-1:0] size = one ? {{2{a[AW-1]}}, a} : two ? {a[AW-1], a, 1'b0} : {SW{1'b0}};
        wire [SW-1:0] above = sum[SW*r+:SW];
        // Bits that no later row reaches go to low.
        wire [SW-1:0] shifted = K == 0 ? above : {{2{above[SW-1]}}, above[SW-1:2]};
        // above + (negative ? ~size + 1 : size), as a difference: then it is certain that the
        // minuend takes the carry chain's direct input, and a bit needs one LUT, not two.
        wire [SW:0] total = {shifted, 1'b0} - {size ^ {SW{!negative}}, !negative};
        assign sum[SW*(r+1)+:SW] = total[SW:1];
        assign low[2*K+:2] = total[2:1];
      end
      if (FIRST > 0) begin : g_low
        assign low[2*FIRST-1:0] = low_s[2*ROWS*s+:2*FIRST];
      end
      if (FIRST + COUNT < ROWS) begin : g_above
        assign low[2*ROWS-1:2*(FIRST+COUNT)] = 0;
      end
      reg [AW-1:0] a_q;
      reg [B-1:0] b_q;
      reg [SW-1:0] sum_q;
      reg [2*ROWS-1:0] low_q;
      always @(posedge clk_i) begin
        if (en_i) begin
          a_q <= a;
          b_q <= b;
          sum_q <= sum[SW*COUNT+:SW];
          low_q <= low;
        end
      end
      assign a_s[AW*(s+1)+:AW] = a_q;
      assign b_s[B*(s+1)+:B] = b_q;
      assign sum_s[SW*(s+1)+:SW] = sum_q;
      assign low_s[2*ROWS*(s+1)+:2*ROWS] = low_q;
    end
  endgenerate

  wire [SW+2*ROWS-3:0] product = {sum_s[SW*STAGES+:SW], low_s[2*ROWS*STAGES+:2*ROWS-2]};
  assign p_o = product[AW+BW-1:0];
`endif
endmodule

`default_nettype wire
