// SPDX-License-Identifier: Apache-2.0
// Records of the norm engine. DUMP: the first count_i residual rows, in channel order, as a CHECKPOINT
// record. TOKENS: the words of rowvit_norm_tokens behind a record's header.
// Throughput: DUMP one word of four channels in 7 cycles, TOKENS one word per cycle.
`default_nettype none

module rowvit_norm_dump #(
    // Rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64
) (
    input  wire                      clk_i,
    input  wire                      rst_ni,
    // Start; the settings stay until done_o.
    input  wire                      start_i,
    input  wire                      tokens_i,
    input  wire                      last_i,   // the record ends the pass
    input  wire [15:0]               count_i,
    input  wire [11:0]               tag_i,  // and image
    input  wire [10:0]               dim_i,
    input  wire [15:0]               res_base_i,
    input  wire [15:0]               res_stride_i,
    input  wire [15:0]               part_words_i,  // TOKENS: words of a part
    // The band that is read next, and whether it may be read, as of the cycle before.
    output reg  [15:0]               band_o,
    input  wire                      band_ok_i,
    output wire                      band_done_o,
    output wire                      done_o,
    // Residual memory, two cycles after an accepted read.
    output wire                      rd_valid_o,
    input  wire                      rd_ready_i,
    output wire [15:0]               rd_addr_o,
    input  wire [16*ROWS*GROUPS-1:0] rd_data_i,
    // Words of TOKENS; the last of a band, and of the record.
    input  wire                      tk_valid_i,
    output wire                      tk_ready_o,
    input  wire [63:0]               tk_data_i,
    input  wire                      tk_band_end_i,
    input  wire                      tk_op_end_i,
    // Record.
    output wire                      out_valid_o,
    input  wire                      out_ready_i,
    output wire [63:0]               out_data_o,
    output wire                      out_eor_o,
    output wire                      out_last_o
);
  `include "rowvit_defs.vh"
  localparam N = ROWS * GROUPS;
  localparam PART = ROWS < NORM_ROWS ? ROWS : NORM_ROWS;  // rows of a part

  localparam S_IDLE = 3'd0, S_SIZE = 3'd1, S_HEADER = 3'd2, S_BAND = 3'd3, S_READ = 3'd4,
             S_WORD = 3'd5, S_TOKENS = 3'd6;
  reg [2:0]  state_q;
  reg [31:0] bytes_q;     // of the payload: dim * count * 2, or parts * words * 8
  reg [10:0] bits_q;      // of the first factor
  reg [3:0]  step_q;
  reg [15:0] row_q;       // row
  reg [7:0]  sub_q;       // in its band
  reg [15:0] base_q;      // residual address of the band
  reg [15:0] tile_q;      // of the lane tile
  reg [15:0] lane_q;
  reg [7:0]  group_q;
  reg [10:0] left_q;      // channels of the row not read
  reg [2:0]  fill_q;      // channels of the word read
  reg [2:1]  reading_q;   // stages of the read of the last of them
  reg [15:0] bank_q;      // and its bank
  reg        known_q;     // band_ok_i is about this band
  reg [63:0] word_q;

  wire [10:0] parts = (count_i[10:0] + PART[10:0] - 11'd1) >> $clog2(PART);
  wire [31:0] factor = tokens_i ? {13'd0, part_words_i, 3'd0} : {15'd0, count_i, 1'b0};
  wire read = rd_valid_o && rd_ready_i;
  wire lane_end = lane_q == LANES[15:0] - 16'd1;
  wire group_end = group_q == GROUPS[7:0] - 8'd1;
  // Registered: they do not change in a word's last cycles.
  reg        row_end_q, last_row_q, band_end_q;
  wire       word, room, end_of_record;
  wire [63:0] data;
  wire taken = word && room;

  reg [15:0] value;
  always @* begin : select
    integer i;
    value = 16'd0;
    for (i = 0; i < N; i = i + 1) if (bank_q[15:8] == i[7:0]) value = value | rd_data_i[16*i+:16];
  end
  // Bank of each row's group 0.
  reg [7:0] row_bank;
  always @* begin : banks
    integer i;
    row_bank = 8'd0;
    for (i = 0; i < ROWS; i = i + 1) if (sub_q == i[7:0]) row_bank = i[7:0] * GROUPS[7:0];
  end

  assign rd_valid_o = state_q == S_READ && !fill_q[2];
  assign rd_addr_o = tile_q + lane_q;
  wire [3:0] kind = tokens_i ? RECORD_TOKENS[3:0] : RECORD_CHECKPOINT[3:0];
  assign tk_ready_o = state_q == S_TOKENS && room;
  assign word = state_q == S_HEADER || state_q == S_WORD || (state_q == S_TOKENS && tk_valid_i);
  assign data = state_q == S_HEADER ? {bytes_q, count_i, tag_i, kind}
              : state_q == S_WORD ? word_q : tk_data_i;
  assign end_of_record = (state_q == S_WORD && row_end_q && last_row_q)
                      || (state_q == S_TOKENS && tk_op_end_i);
  rowvit_skid_buffer #(
      .WIDTH(66)
  ) u_out (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(word), .in_ready_o(room), .in_data_i({end_of_record && last_i, end_of_record, data}),
      .out_valid_o(out_valid_o), .out_ready_i(out_ready_i), .out_data_o({out_last_o, out_eor_o, out_data_o})
  );
  assign band_done_o = taken && ((state_q == S_WORD && row_end_q && band_end_q)
                                 || (state_q == S_TOKENS && tk_band_end_i));
  assign done_o = taken && end_of_record;

  always @(posedge clk_i) begin
    reading_q <= {reading_q[1], read};
    bank_q <= {bank_q[7:0], row_bank + group_q};
    known_q <= state_q == S_BAND;
    fill_q <= (fill_q + {2'd0, read}) & {3{state_q == S_READ}};
    row_end_q <= left_q == 11'd0;
    last_row_q <= row_q + 16'd1 == count_i;
    band_end_q <= sub_q == ROWS[7:0] - 8'd1 || row_q + 16'd1 == count_i;
    if (reading_q[2]) word_q <= {value, word_q[63:16]};
    case (state_q)
      S_IDLE: begin
        bytes_q <= 32'd0;
        bits_q <= tokens_i ? parts : dim_i;
        step_q <= 4'd11;
        row_q <= 16'd0;
        sub_q <= 8'd0;
        base_q <= res_base_i;
        band_o <= 16'd0;
        if (start_i) state_q <= S_SIZE;
      end
      S_SIZE: begin
        bytes_q <= {bytes_q[30:0], 1'b0} + (bits_q[10] ? factor : 32'd0);
        bits_q <= bits_q << 1;
        step_q <= step_q - 4'd1;
        if (step_q == 4'd1) state_q <= S_HEADER;
      end
      S_HEADER: if (taken) state_q <= tokens_i ? S_TOKENS : S_BAND;
      S_TOKENS: if (taken && end_of_record) state_q <= S_IDLE;
      S_BAND: begin  // entered before every row
        tile_q <= base_q;
        lane_q <= 16'd0;
        group_q <= 8'd0;
        left_q <= dim_i;
        if (band_ok_i && known_q) state_q <= S_READ;
      end
      S_READ: begin
        if (read) begin
          left_q <= left_q - 11'd1;
          lane_q <= lane_end ? 16'd0 : lane_q + 16'd1;
          if (lane_end) group_q <= group_end ? 8'd0 : group_q + 8'd1;
          if (lane_end && group_end) tile_q <= tile_q + LANES[15:0];
        end
        if (fill_q[2] && !reading_q[1]) state_q <= S_WORD;
      end
      default: begin  // S_WORD
        if (taken) begin
          state_q <= !row_end_q ? S_READ : last_row_q ? S_IDLE : S_BAND;
          if (row_end_q) begin
            row_q <= row_q + 16'd1;
            sub_q <= band_end_q ? 8'd0 : sub_q + 8'd1;
            if (band_end_q) begin
              base_q <= base_q + res_stride_i;
              band_o <= band_o + 16'd1;
            end
          end
        end
      end
    endcase
    if (!rst_ni) state_q <= S_IDLE;
  end
endmodule

`default_nettype wire
