// SPDX-License-Identifier: Apache-2.0
// LayerNorm arithmetic of one residual bank (docs/numerics.md, section 4), a 22-stage pipeline:
// x * x for the sums (pass 1), or from x to y (pass 2), of 8 bits or of 16. Stage numbers count from the
// read: x_i is the memory's answer in stage 2, y_o and wide_o are in stage 22. Other ports name theirs.
// Throughput: one value per cycle in which it moves. No DSP48.
`default_nettype none

module rowvit_norm_lane (
    input  wire        clk_i,
    input  wire        move_i,  // every stage moves in the next cycle
    // Stage 2. Banks without a channel count as zero.
    input  wire [15:0] x_i,
    input  wire        present_i,
    input  wire        square_i,
    input  wire [10:0] dim_i,
    // Stage 3 and stage 7.
    output wire [15:0] x_o,
    output wire [31:0] product_o,
    // Of the row: S1 in stage 7, n in stage 8, R in stage 9.
    input  wire [25:0] s1_i,
    input  wire [4:0]  n_i,
    input  wire [16:0] r_i,
    // Of the channel: g in stage 15, b plus half of what shift takes away in stage 19.
    input  wire [15:0] g_i,
    input  wire [32:0] bias_i,
    // Of the operation; high_i has the bits from shift + 7 up set, or from shift + 15 up for wide_o.
    input  wire [4:0]  shift_i,
    input  wire [33:0] high_i,
    output reg  [7:0]  y_o,
    output reg  [15:0] wide_o
);
  // A copy for about 250 registers each. Tools merge equal registers unless told not to: Vivado by the
  // register's attribute, Yosys by that of the block.
  (* keep = "true" *) reg [2:0] en_q;
  (* keep = "true" *) always @(posedge clk_i) en_q <= {3{move_i}};

  // ---------------------------------------------------------------- 3 to 7: x * x or D * x
  reg [15:0] x3_q, factor3_q;
  assign x_o = x3_q;
  always @(posedge clk_i) begin
    if (en_q[0]) begin
      x3_q <= present_i ? x_i : 16'd0;
      factor3_q <= !square_i ? {5'd0, dim_i} : present_i ? x_i : 16'd0;
    end
  end
  rowvit_lut_mul #(
      .AW(16), .BW(16), .PER_STAGE(2)
  ) u_scale (
      .clk_i(clk_i), .en_i(en_q[0]), .a_i(x3_q), .b_i(factor3_q), .p_o(product_o)
  );

  // ---------------------------------------------------------------- 8, 9: N, N'
  // The variance bounds the deviation: |N| < 32 * 2^(n+1), so that N' has 17 bits.
  reg [26:0] n8_q;
  reg [16:0] n9_q;
  wire signed [36:0] wide = {n8_q, 10'd0};
  wire [36:0] by_eights = wide >>> {n_i[4:3], 3'd0};
  wire [23:0] by_ones = by_eights[23:0] >> n_i[2:0];
  always @(posedge clk_i) begin
    if (en_q[0]) begin
      n8_q <= product_o[26:0] - {s1_i[25], s1_i};
      n9_q <= by_ones[16:0];
    end
  end

  // ---------------------------------------------------------------- 10 to 15: z
  wire [34:0] z14;
  reg  [15:0] z15_q;
  rowvit_lut_mul #(
      .AW(17), .BW(18), .PER_STAGE(2), .ROUND(32768)
  ) u_normalise (
      .clk_i(clk_i), .en_i(en_q[1]), .a_i(n9_q), .b_i({1'b0, r_i}), .p_o(z14)
  );
  wire z_fits = z14[34:31] == {4{z14[34]}};
  always @(posedge clk_i) begin
    if (en_q[1]) z15_q <= z_fits ? z14[31:16] : {z14[34], {15{!z14[34]}}};
  end

  // ---------------------------------------------------------------- 16 to 20: z * g + b
  wire [31:0] product19;
  reg  [33:0] v20_q;
  rowvit_lut_mul #(
      .AW(16), .BW(16), .PER_STAGE(2)
  ) u_gain (
      .clk_i(clk_i), .en_i(en_q[2]), .a_i(z15_q), .b_i(g_i), .p_o(product19)
  );
  always @(posedge clk_i) begin
    if (en_q[2]) v20_q <= {{2{product19[31]}}, product19} + {bias_i[32], bias_i};
  end

  // ---------------------------------------------------------------- 21, 22: y
  wire [33:0] v_by_eights = $signed(v20_q) >>> {shift_i[4:3], 3'd0};
  wire [22:0] v_by_ones = v_by_eights[22:0] >> shift_i[2:0];
  reg [15:0] low21_q;
  reg       over21_q, negative21_q;
  always @(posedge clk_i) begin
    if (en_q[2]) begin
      low21_q <= v_by_ones[15:0];
      over21_q <= ((v20_q ^ {34{v20_q[33]}}) & high_i) != 34'd0;
      negative21_q <= v20_q[33];
      y_o <= over21_q ? (negative21_q ? 8'h81 : 8'h7f) : low21_q[7:0] == 8'h80 ? 8'h81 : low21_q[7:0];
      wide_o <= over21_q ? {negative21_q, {15{!negative21_q}}} : low21_q;
    end
  end
endmodule

`default_nettype wire
