// SPDX-License-Identifier: Apache-2.0
// Compressed segments: of LANES uint8 values, the nonzero ones packed eight to a word, and a bitmap
// of which they are. The bitmap is word 0 of the segment and leaves last.
// Throughput: one value per cycle without a gap, as long as a segment's words are taken before the
// next segment ends. Latency: a word leaves one cycle after its last value.
`default_nettype none

module rowvit_compress #(
    // Values per segment: 8, 16, 32 or 64.
    parameter LANES = 64,
    // 1: who writes looks at closed_o, and leaves in_ready_o open; simulations check it.
    parameter NEVER_REFUSED = 0
) (
    input  wire             clk_i,
    input  wire             rst_ni,
    // Values, lane 0 first; the segment's word address comes with lane 0.
    input  wire             in_valid_i,
    output wire             in_ready_o,
    input  wire [7:0]       in_data_i,
    input  wire             in_keep_i,  // it is not 0
    input  wire [15:0]      in_base_i,
    // A segment's words or bitmap have not left: in_ready_o will be low at the end of the next one.
    output wire             closed_o,
    // Words for the token memory.
    output wire             out_valid_o,
    input  wire             out_ready_i,
    output wire [15:0]      out_addr_o,
    output wire [63:0]      out_data_o,
    // The bitmap of a segment, in the cycle after its last value.
    output reg              seg_valid_o,
    output wire [LANES-1:0] seg_bitmap_o,
    // No value waits and no segment is open.
    output wire             idle_o
);
  localparam LW = $clog2(LANES);
  localparam PW = LW - 2;  // word pointers: two segments of LANES / 8 words

  generate
    if (LANES < 8 || LANES > 64 || (1 << LW) != LANES) begin : g_bad_lanes
      illegal_parameter_compress_lanes_must_be_8_16_32_or_64 u_bad();
    end
  endgenerate

  // The open segment.
  reg [LW-1:0]    lane_q;
  reg [LANES-1:1] bitmap_q;
  reg [15:0]      base_q;
  reg [2:0]       byte_q;
  reg [PW-1:0]    write_q;
  // The closed segment, until its bitmap has left.
  reg             closed_q;
  reg [LANES-1:0] closed_bitmap_q;
  reg [15:0]      closed_base_q;
  reg [PW-1:0]    closed_end_q;
  // Next word to leave, and its address.
  reg [PW-1:0]    read_q;
  reg [15:0]      addr_q;

  wire last = &lane_q;
  assign in_ready_o = !(last && closed_q);
  assign closed_o = closed_q;
  wire push = in_valid_i && in_ready_o;
  wire keep = in_keep_i;
  wire word_end = keep ? last || (&byte_q) : last && byte_q != 3'd0;
  wire [PW-1:0] write_d = write_q + {{(PW - 1){1'b0}}, word_end};

  wire has_word = read_q != (closed_q ? closed_end_q : write_q);
  wire pop = out_valid_o && out_ready_i;
  wire pop_bitmap = pop && !has_word;
  wire between = lane_q == 0;  // no segment is open; the next one opens with in_base_i of that cycle

  wire [63:0] word;
  genvar i;
  generate
    for (i = 0; i < 8; i = i + 1) begin : g_byte
      (* ram_style = "distributed" *) reg [7:0] mem_q [0:(1 << PW)-1];
      assign word[8*i+:8] = mem_q[read_q];
      always @(posedge clk_i) begin
        // A zero is written as well; the next value takes its place.
        if (push && byte_q == i) mem_q[write_q] <= in_data_i;
      end
    end
  endgenerate

  wire [63:0] bitmap_word;
  generate
    if (LANES == 64) begin : g_bitmap
      assign bitmap_word = closed_bitmap_q;
    end else begin : g_bitmap
      assign bitmap_word = {{(64 - LANES){1'b0}}, closed_bitmap_q};
    end
  endgenerate

  assign out_valid_o = has_word || closed_q;
  assign out_addr_o = has_word ? addr_q : closed_base_q;
  assign out_data_o = has_word ? word : bitmap_word;
  assign seg_bitmap_o = closed_bitmap_q;
  assign idle_o = !out_valid_o && lane_q == 0;

  always @(posedge clk_i) begin
    if (push) begin
      bitmap_q <= {keep, bitmap_q[LANES-1:2]};
      if (last) begin
        closed_bitmap_q <= {keep, bitmap_q};
        closed_base_q <= base_q;
        closed_end_q <= write_d;
      end
    end
    lane_q <= lane_q + {{(LW - 1){1'b0}}, push};
    write_q <= write_q + {{(PW - 1){1'b0}}, push && word_end};
    byte_q <= (byte_q + {2'd0, push && keep}) & {3{!(push && word_end)}};
    if (pop && has_word) read_q <= read_q + 1'b1;
    if (between) base_q <= in_base_i;
    // The words of a segment are next when it opens, or when the one before it has left.
    if (pop_bitmap || (between && !closed_q)) addr_q <= (between ? in_base_i : base_q) + 16'd1;
    else if (pop) addr_q <= addr_q + 16'd1;
    closed_q <= (push && last) || (closed_q && !pop_bitmap);
    seg_valid_o <= push && last;
    if (!rst_ni) begin
      lane_q <= 0;
      byte_q <= 3'd0;
      write_q <= 0;
      read_q <= 0;
      closed_q <= 1'b0;
      seg_valid_o <= 1'b0;
    end
  end

`ifdef ROWVIT_ASSERT
  generate
    if (NEVER_REFUSED != 0) begin : g_assert
      reg reset_q;  // before the first reset nothing holds
      initial reset_q = 1'b0;
      always @(posedge clk_i) begin : never_refused
        reset_q <= reset_q || !rst_ni;
`ifdef FORMAL
        if (rst_ni) assert (!in_valid_i || in_ready_o);
`else
        if (reset_q && rst_ni && in_valid_i && !in_ready_o) $fatal(1, "a value is refused");
`endif
      end
    end
  endgenerate
`endif
endmodule

`default_nettype wire
