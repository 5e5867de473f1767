// SPDX-License-Identifier: Apache-2.0
// LOGITS and MARK records of the drain. The logits of a tile are a record: they come one per cycle (lane,
// then group) and are packed four to a word. The header enters from the stage before, a cycle ahead.
// Throughput 1 logit per cycle, as long as room_o holds the drain back, and mark_room_o marks. Latency 2.
`default_nettype none

module rowvit_drain_records #(
    // Lane groups.
    parameter GROUPS = 3
) (
    input  wire                 clk_i,
    input  wire                 rst_ni,
    // the logit that comes in the next cycle
    input  wire                 head_valid_i,
    input  wire                 head_first_i,  // the first of its tile
    input  wire [7:0]           head_group_i,
    input  wire [15:0]          head_count_i,  // logits of the tile
    input  wire                 head_last_i,   // the record ends the pass
    input  wire [11:0]          head_tag_i,    // tag and image
    input  wire                 logit_valid_i,
    input  wire [16*GROUPS-1:0] logit_i,       // of row 0, all groups
    // MARK record; never in a LOGITS record
    input  wire                 mark_i,
    input  wire [11:0]          mark_tag_i,
    input  wire [31:0]          cycles_i,
    input  wire [31:0]          fires_i,
    output wire                 marking_o,     // its second word follows
    output reg                  room_o,        // for the logits in the drain's pipeline
    output reg                  mark_room_o,   // for the MARK records of all tiles in it
    output wire                 rec_valid_o,
    input  wire                 rec_ready_i,
    output wire [63:0]          rec_data_o,
    output wire                 rec_eor_o,
    output wire                 rec_last_o
);
  `include "rowvit_defs.vh"

  reg  [15:0] index_q, count_q;
  reg  [47:0] pack_q;
  reg         first_q, last_q, mark_q;
  reg  [7:0]  group_q;
  wire [15:0] index = first_q ? 16'd0 : index_q;
  wire        logit = logit_valid_i && index < count_q;
  wire        final_logit = index == count_q - 16'd1;
  wire        logit_word = logit && (&index[1:0] || final_logit);
  wire        logit_header = head_valid_i && head_first_i;
  wire [14:0] logit_words = {1'b0, head_count_i[15:2]} + {14'd0, |head_count_i[1:0]};
  wire [31:0] logit_bytes = {14'd0, logit_words, 3'd0};
  reg  [15:0] value;
  integer v;
  always @* begin
    value = 16'd0;
    for (v = 0; v < GROUPS; v = v + 1) if (group_q == v[7:0]) value = logit_i[16*v+:16];
  end
  wire [63:0] logit_data = index[1:0] == 2'd0 ? {48'd0, value}
                         : index[1:0] == 2'd1 ? {32'd0, value, pack_q[15:0]}
                         : index[1:0] == 2'd2 ? {16'd0, value, pack_q[31:0]} : {value, pack_q};
  always @(posedge clk_i) begin
    {count_q, last_q, group_q, first_q} <= {head_count_i, head_last_i, head_group_i, head_first_i};
    if (logit_valid_i) index_q <= index + 16'd1;
    if (logit)
      case (index[1:0])
        2'd0: pack_q[15:0] <= value;
        2'd1: pack_q[31:16] <= value;
        default: pack_q[47:32] <= value;
      endcase
    mark_q <= mark_i;
    if (!rst_ni) mark_q <= 1'b0;
  end
  wire [6:0] rec_count;
  wire [63:0] rec_word = mark_i ? {32'd8, 16'd1, mark_tag_i, RECORD_MARK[3:0]}
                       : mark_q ? {fires_i, cycles_i}
                       : logit_header ? {logit_bytes, head_count_i, head_tag_i, RECORD_LOGITS[3:0]}
                       : logit_data;
  reg        word_valid_q;
  reg [65:0] word_q;
  always @(posedge clk_i) begin
    word_valid_q <= mark_i || mark_q || logit_header || logit_word;
    word_q       <= {mark_q || (logit_word && final_logit), logit_word && final_logit && last_q, rec_word};
    room_o       <= rec_count < 7'd4;
    mark_room_o  <= rec_count < 7'd40;
    if (!rst_ni) word_valid_q <= 1'b0;
  end
  // Holds the marks of a pass's 16 images: a dump that waits for the last one's rows keeps the stream.
  rowvit_fifo #(
      .WIDTH(66),
      .DEPTH(64),
      .NEVER_REFUSED(1)
  ) u_fifo (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(word_valid_q), .in_ready_o(), .in_data_i(word_q),
      .out_valid_o(rec_valid_o), .out_ready_i(rec_ready_i),
      .out_data_o({rec_eor_o, rec_last_o, rec_data_o}), .count_o(rec_count)
  );
  assign marking_o = mark_q;
endmodule
`default_nettype wire
