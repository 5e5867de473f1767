// SPDX-License-Identifier: Apache-2.0
// One row and head of the softmax (docs/numerics.md, section 5): running maximum while S arrives,
// then e = EXP(max - s) of one token per cycle, their sum L, and recip(L). For token scores
// (section 7), e_o is the exponential of the distance's fraction alone, and octave_o the rest.
// Latency of e_o and octave_o: 2 cycles of en_i after s_read_i.
`default_nettype none

module rowvit_softmax_lane #(
    // Bits of L.
    parameter SUM_W = 18
) (
    input  wire          clk_i,
    input  wire          rst_ni,
    // S of a live token; the first of its band.
    input  wire          s_valid_i,
    input  wire          s_first_i,
    input  wire [11:0]   s_data_i,
    // Second pass: start_i takes the maximum over; en_i moves the pipeline.
    input  wire          start_i,
    input  wire          en_i,
    input  wire [11:0]   s_read_i,
    input  wire          live_i,      // with the distance: the token is live
    input  wire          score_i,     // for token scores
    output reg  [7:0]    e_o,
    output reg           keep_o,      // e_o is not 0
    output reg  [4:0]    octave_o,    // powers of two to divide it by; 31: 31 or more
    input  wire          feed_i,      // e_o is taken
    // Reciprocal of L; previous_i asks for that of the band before.
    input  wire          recip_start_i,
    output wire          recip_done_o,
    input  wire          previous_i,
    output wire [4:0]    n_o,
    output wire [16:0]   r_o
);
  // ---------------------------------------------------------------- maximum
  reg [11:0] running_q, max_q;
  wire greater = $signed(s_data_i) > $signed(running_q);
  always @(posedge clk_i) begin
    if (s_valid_i && (s_first_i || greater)) running_q <= s_data_i;
    if (start_i) max_q <= running_q;
  end

  // ---------------------------------------------------------------- e
  // 255 * 2^(8 - f / 32), f = 31 first; from it, e of the distances below 256. Of those up to
  // 287 e is 1, of others 0.
  localparam [511:0] EXP = {
      16'd33355, 16'd34085, 16'd34831, 16'd35594, 16'd36374, 16'd37170, 16'd37984, 16'd38816,
      16'd39666, 16'd40534, 16'd41422, 16'd42329, 16'd43256, 16'd44203, 16'd45171, 16'd46160,
      16'd47171, 16'd48204, 16'd49259, 16'd50338, 16'd51440, 16'd52566, 16'd53717, 16'd54894,
      16'd56096, 16'd57324, 16'd58579, 16'd59862, 16'd61173, 16'd62512, 16'd63881, 16'd65280
  };
  wire [11:0] distance = max_q - s_read_i;
  reg [11:0] distance_q;
  reg [6:0]  octave_q;
  // near: e of a distance below 256. An AND with constants and an OR, not an index into them, of
  // which synthesis makes wide multiplexers of constants.
  wire [31:0] fraction = 32'd1 << distance_q[4:0];
  wire [7:0]  octave = 8'd1 << distance_q[7:5];
  wire [7:0]  near;
  genvar i, k, o;
  generate
    for (k = 0; k < 8; k = k + 1) begin : g_near
      wire [7:0] in_octave;
      for (o = 0; o < 8; o = o + 1) begin : g_octave
        wire [31:0] column;
        for (i = 0; i < 32; i = i + 1) begin : g_column
          wire [22:0] rounded = {7'd0, EXP[16*i+:16]} + (23'd128 << o);
          assign column[i] = rounded[8+o+k];
        end
        assign in_octave[o] = |(fraction & column);
      end
      assign near[k] = |(octave & in_octave);
    end
  endgenerate
  wire [7:0] e = distance_q[11:8] == 4'd0 ? near : {7'd0, distance_q[11:5] == 7'd8};
  reg [SUM_W-1:0] sum_q;
  always @(posedge clk_i) begin
    if (en_i) begin
      distance_q <= distance;
      if (score_i) distance_q[11:5] <= 7'd0;
      octave_q <= distance[11:5];
      octave_o <= octave_q[6:5] == 2'd0 ? octave_q[4:0] : 5'd31;
      e_o <= live_i ? e : 8'd0;
      keep_o <= live_i && (distance_q[11:8] == 4'd0 || distance_q[11:5] == 7'd8);
    end
    if (start_i) sum_q <= 0;
    else if (feed_i) sum_q <= sum_q + {{(SUM_W - 8){1'b0}}, e_o};
  end

  // ---------------------------------------------------------------- reciprocal
  wire [4:0]  n;
  wire [16:0] r;
  reg  [4:0]  n_q;
  reg  [16:0] r_q;
  rowvit_recip #(
      .QW(SUM_W)
  ) u_recip (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .start_i(recip_start_i), .q_i(sum_q), .done_o(recip_done_o), .n_o(n), .r_o(r)
  );
  always @(posedge clk_i) begin
    if (recip_start_i) {n_q, r_q} <= {n, r};
  end
  assign {n_o, r_o} = previous_i ? {n_q, r_q} : {n, r};
endmodule

`default_nettype wire
